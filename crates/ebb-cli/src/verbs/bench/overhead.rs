//! `ebb bench methods`: what each method adds to a step of fine-tuning.
//!
//! Each method learns the same stream in a process of its own, in turns, and is divided by
//! fine-tuning in the same turn; medians over turns are printed. A step's time is that of training
//! without what happens at the ends of experiences, which stands beside it.

use super::{median, refused, show, timed};
use crate::around::Around;
use crate::error::Result;
use crate::exit::Ended;
use ebb_learn::MethodCard;
use ebb_learn::methods::{ALL, find};
use ebb_record::{Record, RunView};
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Measure what each method adds to a step of fine-tuning, in time and in memory
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Overhead {
    /// Methods to measure; all that train on the stream itself, if none is named
    #[arg(value_name = "METHOD")]
    methods: Vec<String>,
    /// Batch sizes to measure
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [10, 128])]
    batch: Vec<usize>,
    /// Measure on a small language model in the place of images
    #[arg(long)]
    texts: bool,
    /// Turns; medians over them are printed
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u64,
    /// Write the figures here as Markdown, and beside it as JSON
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Domain-incremental split MNIST, 4,000 images an experience, MLP 2x100, SGD 0.01, a memory of 256,
no evaluation while learning. With --texts: statements on people in two halves, a decoder of two
blocks, 64 wide, AdamW.

Examples:
  ebb bench methods                            every method
  ebb bench methods ewc si lwf der++ --batch 128
  ebb bench methods er reptile gere --texts --batch 20
  ebb bench methods --write docs/evidence/overhead.md";

const IMAGES: &str =
    "Domain-incremental split MNIST, 4,000 images an experience, MLP 784-100-100-10, SGD";
const IMAGE_TABLES: &str = "\
stream = { dataset = \"mnist\", split = 5, scenario = \"domain\", per_experience = 4000, test_per_experience = 100 }
network = { kind = \"mlp\", hidden = [100, 100] }
[train]
optimizer = \"sgd\"
lr = 0.01
epochs = 1
";

const TEXTS: &str = "Statements on 600 people in two halves, words as tokens, a decoder of two blocks, 64 wide, AdamW";
const TEXT_TABLES: &str = "\
stream = { dataset = \"text\" }
network = { kind = \"decoder\", width = 64, layers = 2, heads = 4 }
language = { length = 32, experience = [
    { name = \"first\", documents = true, world = { kind = \"facts\", people = 600, parts = 2, part = 0, ask = \"held-out\" } },
    { name = \"second\", documents = true, world = { kind = \"facts\", people = 600, parts = 2, part = 1, ask = \"held-out\" } },
] }
[train]
optimizer = \"adamw\"
lr = 0.001
epochs = 2
";

/// A run.
#[derive(Clone, Debug, Serialize)]
struct Run {
    method: String,
    batch: usize,
    turn: u64,
    steps: f64,
    /// Of training, without the ends of experiences.
    step_seconds: f64,
    /// At the end of an experience, the mean.
    end_seconds: f64,
    /// Rows through the network, forward and backward, the ends of experiences included.
    rows: f64,
    kept_bytes: f64,
    peak_bytes: f64,
}

/// A method that could not be run here.
#[derive(Clone, Debug, Serialize)]
struct Skipped {
    method: String,
    batch: usize,
    reason: String,
}

impl Skipped {
    fn is(&self, method: &MethodCard, batch: usize) -> bool {
        self.method == method.name && self.batch == batch
    }
}

/// A method at a batch size, against fine-tuning.
#[derive(Clone, Debug, Serialize)]
struct Line {
    method: String,
    batch: usize,
    step_microseconds: f64,
    /// Median, least and most over turns.
    step_ratio: [f64; 3],
    rows_ratio: f64,
    end_milliseconds: f64,
    kept_bytes: f64,
    peak_ratio: f64,
    goal: Option<f64>,
}

#[derive(Serialize)]
struct Figures {
    format_version: u32,
    command: String,
    learned: &'static str,
    cpu: Option<String>,
    threads: usize,
    lines: Vec<Line>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped: Vec<Skipped>,
    runs: Vec<Run>,
}

/// What a step may cost at most, in steps of fine-tuning.
fn goal(method: &str, rows: f64) -> Option<f64> {
    match method {
        "der++" | "lwf" => Some(2.1),
        "ewc" | "online-ewc" | "si" => Some(1.15),
        // A gradient on the memory of each earlier experience: what the rows themselves cost.
        "gem" => Some(rows),
        _ => None,
    }
}

/// Whether it trains on the experiences as they come, so that its steps can be compared.
fn trains_on_the_stream(method: &MethodCard) -> Result<bool> {
    let long = method.long_form()?;
    let data = long.get("data").and_then(|v| v.as_str());
    Ok(data.is_none_or(|d| d == "sequential"))
}

impl Overhead {
    /// Measures and prints.
    ///
    /// # Errors
    /// When a process cannot be started or fails.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        let mut methods = Vec::new();
        for name in &self.methods {
            methods.push(find(name)?);
        }
        if methods.is_empty() {
            for method in ALL {
                if trains_on_the_stream(method)? {
                    methods.push(method);
                }
            }
        }
        let place = tempfile::tempdir().map_err(|e| refused("make", "a temporary folder", e))?;
        let data = around.data_dir()?;
        let fine_tuning = find("fine-tune")?;
        let mut runs = Vec::new();
        let mut skipped: Vec<Skipped> = Vec::new();
        for &batch in &self.batch {
            for turn in 0..self.rounds {
                runs.push(self.one(fine_tuning, batch, turn, place.path(), &data)?);
                for method in methods.iter().filter(|m| m.name != fine_tuning.name) {
                    if skipped.iter().any(|s| s.is(method, batch)) {
                        continue;
                    }
                    match self.one(method, batch, turn, place.path(), &data) {
                        Ok(run) => runs.push(run),
                        // Some ask for another network; who is named must run, and who ran once
                        // must run again.
                        Err(e) if self.methods.is_empty() && turn == 0 => skipped.push(Skipped {
                            method: method.name.to_owned(),
                            batch,
                            reason: e.to_string().lines().next().unwrap_or_default().to_owned(),
                        }),
                        Err(e) => return Err(e),
                    }
                }
            }
        }
        let environment = ebb_record::Environment::collect(Default::default(), 0);
        let figures = Figures {
            format_version: 1,
            command: self.command(),
            learned: self.learned().0,
            cpu: environment.cpu,
            threads: environment.threads_available,
            lines: lines(&runs),
            skipped,
            runs,
        };
        show(
            &figures,
            &figures.markdown(),
            self.write.as_deref(),
            self.json,
        )?;
        Ok(Ended::Done)
    }

    fn command(&self) -> String {
        let batches: Vec<String> = self.batch.iter().map(ToString::to_string).collect();
        let names = self.methods.iter().map(|m| format!(" {m}"));
        let names = names.collect::<String>();
        let (batches, rounds) = (batches.join(","), self.rounds);
        let texts = if self.texts { " --texts" } else { "" };
        format!("ebb bench methods{names}{texts} --batch {batches} --rounds {rounds}")
    }

    /// What is learned, in words and as the tables of a recipe.
    fn learned(&self) -> (&'static str, &'static str) {
        match self.texts {
            false => (IMAGES, IMAGE_TABLES),
            true => (TEXTS, TEXT_TABLES),
        }
    }

    /// One run of `method`.
    fn one(
        &self,
        method: &MethodCard,
        batch: usize,
        turn: u64,
        place: &Path,
        data: &Path,
    ) -> Result<Run> {
        let ebb = std::env::current_exe().map_err(|e| refused("find", "this program", e))?;
        let name = method.name;
        let capacity = (method.defaults)().contains_key("capacity");
        let recipe = format!(
            "method = \"{name}\"\naccept = [\"penalty-alone-on-class-incremental\"]\n{}\
         evaluate = {{ every = 0, outcomes = false }}\n{}batch = {batch}\n",
            if capacity {
                "with = { capacity = 256 }\n"
            } else {
                ""
            },
            self.learned().1,
        );
        let path = place.join(format!("{name}.toml"));
        std::fs::write(&path, recipe).map_err(|e| refused("write", &path, e))?;
        let out = place.join(format!("{name}-{batch}-{turn}"));
        let mut command = Command::new(ebb);
        command
            .arg("--data-dir")
            .arg(data)
            .arg("learn")
            .arg(&path)
            .arg("-o")
            .arg(&out);
        command.args(["--json", "--quiet", "--seed", &turn.to_string()]);
        let (_, json) = timed(&mut command)?;
        let cost = |key: &str| json["cost"][key].as_f64().unwrap_or(f64::NAN);
        let mut ends = Vec::new();
        for record in RunView::load(&out)?.records()? {
            if let Record::Consolidate(c) = record {
                ends.push(c.seconds);
            }
        }
        let at_ends: f64 = ends.iter().sum();
        Ok(Run {
            method: name.to_owned(),
            batch,
            turn,
            steps: cost("steps"),
            step_seconds: (cost("train_seconds") - at_ends) / cost("steps"),
            end_seconds: at_ends / ends.len().max(1) as f64,
            rows: cost("forward_rows") + cost("backward_rows"),
            kept_bytes: cost("memory_bytes"),
            peak_bytes: cost("peak_rss_bytes"),
        })
    }
}

/// Each method against fine-tuning in the same turn.
fn lines(runs: &[Run]) -> Vec<Line> {
    let mut order: Vec<(&str, usize)> = Vec::new();
    for run in runs {
        if !order.contains(&(&run.method, run.batch)) {
            order.push((&run.method, run.batch));
        }
    }
    let of = |method: &str, batch: usize| -> Vec<&Run> {
        let of = runs
            .iter()
            .filter(|r| r.method == method && r.batch == batch);
        of.collect()
    };
    let line = |(method, batch): (&str, usize)| {
        let (own, base) = (of(method, batch), of("fine-tune", batch));
        let each = |what: fn(&Run) -> f64| own.iter().map(|r| what(r)).collect::<Vec<f64>>();
        let against = |what: fn(&Run) -> f64| -> Vec<f64> {
            own.iter()
                .zip(&base)
                .map(|(a, b)| what(a) / what(b))
                .collect()
        };
        let steps = against(|r| r.step_seconds);
        let rows_ratio = median(against(|r| r.rows));
        Line {
            method: method.to_owned(),
            batch,
            step_microseconds: 1e6 * median(each(|r| r.step_seconds)),
            step_ratio: [
                median(steps.clone()),
                steps.iter().copied().fold(f64::INFINITY, f64::min),
                steps.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            ],
            rows_ratio,
            end_milliseconds: 1e3 * median(each(|r| r.end_seconds)),
            kept_bytes: median(each(|r| r.kept_bytes)),
            peak_ratio: median(against(|r| r.peak_bytes)),
            goal: goal(method, rows_ratio),
        }
    };
    order.into_iter().map(line).collect()
}

impl Figures {
    fn markdown(&self) -> String {
        let mut text = format!(
            "# What a step of each method costs\n\n\
             {}, a memory of 256 where the method has one (an experience each for GEM and A-GEM), methods at \
             their defaults, no evaluation. Each run is a process of its own, divided by fine-tuning of \
             the same turn; medians over turns, with the least and the most in brackets. *Rows* are rows \
             forward and backward through the network, the ends of experiences included.\n\n\
             Made by `{}` on {} threads of {}.\n\n\
             | batch | method | step, µs | step, × fine-tuning | rows, × | goal, × | end of an experience, ms | kept, kB | peak memory, × |\n\
             |---|---|---|---|---|---|---|---|---|\n",
            self.learned,
            self.command,
            self.threads,
            self.cpu.as_deref().unwrap_or("an unknown processor"),
        );
        for l in &self.lines {
            let [ratio, low, high] = l.step_ratio;
            let goal = match l.goal {
                Some(goal) if ratio <= goal => format!("{goal:.2}, met"),
                Some(goal) => format!("{goal:.2}, missed"),
                None => "–".to_owned(),
            };
            let _ = writeln!(
                text,
                "| {} | `{}` | {:.0} | {ratio:.2} ({low:.2} to {high:.2}) | {:.2} | {goal} | {:.1} | {:.0} | {:.2} |",
                l.batch,
                l.method,
                l.step_microseconds,
                l.rows_ratio,
                l.end_milliseconds,
                l.kept_bytes / 1e3,
                l.peak_ratio,
            );
        }
        if !self.skipped.is_empty() {
            text.push_str("\nNot measured, with the program's own word why:\n\n");
            for s in &self.skipped {
                let _ = writeln!(text, "- `{}` at batch {}: {}", s.method, s.batch, s.reason);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_divides_turn_by_turn() {
        let run = |method: &str, turn: u64, step_seconds: f64| Run {
            method: method.to_owned(),
            batch: 10,
            turn,
            steps: 1.0,
            step_seconds,
            end_seconds: 0.25,
            rows: if method == "ewc" { 30.0 } else { 10.0 },
            kept_bytes: 1.0,
            peak_bytes: 2.0,
        };
        // A machine that is twice as slow in the second turn, for both.
        let runs = [
            run("fine-tune", 0, 1.0),
            run("ewc", 0, 1.25),
            run("fine-tune", 1, 2.0),
            run("ewc", 1, 2.25),
            run("fine-tune", 2, 1.0),
            run("ewc", 2, 1.0),
        ];
        let lines = lines(&runs);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1].step_ratio, [1.125, 1.0, 1.25]);
        assert_eq!((lines[1].rows_ratio, lines[1].goal), (3.0, Some(1.15)));
        assert_eq!(lines[0].step_ratio, [1.0; 3]);
    }
}
