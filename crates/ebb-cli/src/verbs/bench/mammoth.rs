//! `ebb bench mammoth`: the same two methods in Mammoth (tag neurips2020) and here, in turns.

use super::{lay_out, median, refused, show, timed};
use crate::around::Around;
use crate::error::Result;
use crate::exit::Ended;
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Measure experience replay and DER++ beside Mammoth, the code of the DER paper
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Mammoth {
    /// A checkout of Mammoth at its tag neurips2020
    #[arg(value_name = "DIR")]
    checkout: PathBuf,
    /// A Python with torch and torchvision
    #[arg(long, value_name = "PYTHON", default_value = "python3")]
    python: PathBuf,
    /// Where the peers' scripts lie
    #[arg(long, value_name = "DIR", default_value = "benches/peers")]
    peers: PathBuf,
    /// Batch sizes to measure
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [10, 128])]
    batch: Vec<usize>,
    /// Turns; medians over them are printed
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u64,
    /// Write the figures here as Markdown, and beside it as JSON
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Class-incremental split MNIST, MLP 2x100, SGD 0.1, a reservoir of 200, one epoch.

Examples:
  ebb bench mammoth ~/mammoth --python venv/bin/python
  ebb bench mammoth ~/mammoth --write docs/evidence/mammoth.md";

#[derive(Serialize)]
struct Figures {
    format_version: u32,
    command: String,
    cpu: Option<String>,
    threads: usize,
    runs: Vec<Run>,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
struct Run {
    system: &'static str,
    method: &'static str,
    batch: usize,
    seed: u64,
    /// Updates a second of training.
    steps_per_second: f64,
    process_s: f64,
    accuracy: f64,
    peak_mb: f64,
}

/// Our name and parameters, and Mammoth's name.
const METHODS: [(&str, &str, &str); 2] = [
    ("er", "{ capacity = 200 }", "er"),
    (
        "der++",
        "{ capacity = 200, alpha = 1.0, beta = 0.5 }",
        "derpp",
    ),
];

impl Mammoth {
    /// Measures and prints.
    ///
    /// # Errors
    /// When a process cannot be started or fails.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        let place = tempfile::tempdir().map_err(|e| refused("make", "a temporary folder", e))?;
        let data = around.data_dir()?;
        let mnist = place.path().join("mnist");
        lay_out(&mnist, &data)?;
        let environment = ebb_record::Environment::collect(Default::default(), 0);
        let batches: Vec<String> = self.batch.iter().map(ToString::to_string).collect();
        let figures = Figures {
            format_version: 1,
            command: format!(
                "ebb bench mammoth mammoth --batch {} --rounds {}",
                batches.join(","),
                self.rounds
            ),
            cpu: environment.cpu,
            threads: environment.threads_available,
            runs: self.measure(&mnist, &data, place.path())?,
        };
        show(
            &figures,
            &figures.markdown(),
            self.write.as_deref(),
            self.json,
        )?;
        Ok(Ended::Done)
    }

    fn measure(&self, mnist: &Path, data: &Path, place: &Path) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        for &batch in &self.batch {
            for seed in 0..self.rounds {
                for (method, with, theirs) in METHODS {
                    let recipe = place.join(format!("mammoth-{method}.toml"));
                    // Its network and data: Xavier, zero biases, pixels between 0 and 1.
                    let text = format!(
                        "method = \"{method}\"\nwith = {with}\n\
                     stream = {{ dataset = \"mnist\", split = 5, normalise = \"raw\" }}\n\
                     network = {{ kind = \"mlp\", hidden = [100, 100], init = \"xavier\" }}\n\
                     train = {{ optimizer = \"sgd\", lr = 0.1, epochs = 1, batch = {batch} }}\n\
                     evaluate = {{ every = 0 }}\n"
                    );
                    std::fs::write(&recipe, text).map_err(|e| refused("write", &recipe, e))?;
                    let out = place.join(format!("mammoth-{method}-{batch}-{seed}"));
                    let ours = super::ours(&recipe, &out, data, batch, seed)?;
                    runs.push(Run {
                        system: "ebb",
                        method,
                        batch,
                        seed,
                        steps_per_second: ours.steps / ours.train_s,
                        process_s: ours.process_s,
                        accuracy: ours.accuracy,
                        peak_mb: ours.peak_mb,
                    });
                    let mut command = Command::new(&self.python);
                    command
                        .arg(self.peers.join("mammoth.py"))
                        .args([theirs, &batch.to_string(), &seed.to_string()])
                        .env("MNIST_ROOT", mnist)
                        .env("MAMMOTH", &self.checkout);
                    let (process_s, json) = timed(&mut command)?;
                    let number = |key: &str| json[key].as_f64().unwrap_or(f64::NAN);
                    runs.push(Run {
                        system: "Mammoth",
                        method,
                        batch,
                        seed,
                        steps_per_second: number("it_s"),
                        process_s,
                        accuracy: number("avg_acc"),
                        peak_mb: number("rss_mb"),
                    });
                }
            }
        }
        Ok(runs)
    }
}

impl Figures {
    fn markdown(&self) -> String {
        let runs = &self.runs;
        let mut text = format!(
            "# Beside Mammoth\n\nThe code of the DER paper (tag neurips2020), in turn with `ebb`: class-incremental \
         split MNIST, MLP 784-100-100-10, pixels between 0 and 1, SGD 0.1, one epoch, a reservoir of 200 \
         filled at each step, as many replayed rows as new ones in each draw. Mammoth's evaluations are not \
         counted as its training. Medians over turns.\n\n\
         Made by `{}` on {} threads of {}.\n\n\
         | batch | method | system | steps/s | whole process s | accuracy % | peak MB | steps/s, ebb / Mammoth |\n\
         |---|---|---|---|---|---|---|---|\n",
            self.command,
            self.threads,
            self.cpu.as_deref().unwrap_or("an unknown processor"),
        );
        let mut rows: Vec<(usize, &str, &str)> = Vec::new();
        for run in runs {
            if !rows.contains(&(run.batch, run.method, run.system)) {
                rows.push((run.batch, run.method, run.system));
            }
        }
        rows.sort_by_key(|(batch, ..)| *batch);
        for (batch, method, system) in rows {
            let of = |system: &str, what: fn(&Run) -> f64| {
                let own = |r: &&Run| r.batch == batch && r.method == method && r.system == system;
                median(runs.iter().filter(own).map(what).collect())
            };
            let speed = |system| of(system, |r| r.steps_per_second);
            let ratio = match system {
                "ebb" => format!("{:.1}", speed("ebb") / speed("Mammoth")),
                _ => String::new(),
            };
            let _ = writeln!(
                text,
                "| {batch} | `{method}` | {system} | {:.0} | {:.1} | {:.1} | {:.0} | {ratio} |",
                speed(system),
                of(system, |r| r.process_s),
                of(system, |r| r.accuracy),
                of(system, |r| r.peak_mb),
            );
        }
        text
    }
}
