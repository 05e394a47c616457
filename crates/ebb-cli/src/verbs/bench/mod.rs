//! `ebb bench`: how fast, beside whom.
//!
//! Whole processes are measured from outside, in turns (ours, theirs, ours, …), so that a machine
//! that changes its speed changes it for everyone; what is printed are medians and ratios.

mod forecast;
mod mammoth;
mod merge;
mod overhead;
mod speed;

use crate::around::Around;
use crate::error::{Error, Result};
use crate::exit::Ended;
use crate::out;
use ebb_kernels::gemm::{Mat, matmul};
use ebb_space::stats::mean_ci_t;
use serde::Serialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Measure speed, memory and accuracy of experience replay, alone or beside other systems
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
pub struct Bench {
    #[command(subcommand)]
    what: Option<What>,
    /// Batch sizes to measure
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [10, 128])]
    batch: Vec<usize>,
    /// A Python with torch (and, for the second peer, avalanche-lib 0.6) to run beside
    #[arg(long, value_name = "PYTHON")]
    against: Option<PathBuf>,
    /// Where the peers' scripts lie
    #[arg(long, value_name = "DIR", default_value = "benches/peers")]
    peers: PathBuf,
    /// Turns; medians over them are printed
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u64,
    /// Seeds for the accuracy, which is not timed
    #[arg(long, value_name = "N", default_value_t = 10)]
    seeds: u64,
    /// Write the figures here as Markdown, and beside it as JSON
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum What {
    Methods(overhead::Overhead),
    Mammoth(mammoth::Mammoth),
    Merge(merge::Merge),
    Speed(speed::Speed),
    Forecast(forecast::Forecast),
}

const AFTER_HELP: &str = "\
Experience replay on class-incremental split MNIST, MLP 2x100, SGD 0.1, memory 500, one epoch.

Examples:
  ebb bench                                    this program alone
  ebb bench methods                            what each method adds to a step
  ebb bench forecast                           rows of an association matrix
  ebb bench speed                              steps of every kind of network, and language models
  ebb bench --against venv/bin/python          beside a plain PyTorch loop and Avalanche 0.6
  ebb bench mammoth ~/mammoth --python venv/bin/python   beside the code of the DER paper
  ebb bench merge --against venv/bin/python    merging, beside mergekit
  ebb bench --against python3 --write docs/evidence/bench.md";

/// One process.
#[derive(Clone, Debug, Serialize)]
struct Measured {
    system: String,
    batch: usize,
    seed: u64,
    /// From the start of the process to its end.
    process_s: f64,
    /// As the system itself counts it.
    train_s: f64,
    accuracy: f64,
    peak_mb: f64,
    #[serde(skip)]
    steps: f64,
}

/// Everything that was measured.
#[derive(Serialize)]
struct Figures {
    format_version: u32,
    command: String,
    cpu: Option<String>,
    threads: usize,
    gemm_gflops: f64,
    floors: Vec<Floor>,
    runs: Vec<Measured>,
    accuracy: Vec<Accuracy>,
}

/// The least time the arithmetic could take on this machine.
#[derive(Serialize)]
struct Floor {
    batch: usize,
    steps: u64,
    gflop: f64,
    seconds: f64,
}

#[derive(Serialize)]
struct Accuracy {
    batch: usize,
    seeds: usize,
    mean: f64,
    low: f64,
    high: f64,
}

const RECIPE: &str = include_str!("../../../../../recipes/split-mnist-er.toml");

impl Bench {
    /// Measures and prints.
    ///
    /// # Errors
    /// When a process cannot be started or fails.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        match &self.what {
            Some(What::Speed(speed)) => return speed.run(),
            Some(What::Forecast(forecast)) => return forecast.run(),
            Some(What::Methods(overhead)) => return overhead.run(around),
            Some(What::Mammoth(mammoth)) => return mammoth.run(around),
            Some(What::Merge(merge)) => return merge.run(around),
            None => {}
        }
        let place = tempfile::tempdir().map_err(|e| refused("make", "a temporary folder", e))?;
        let data = around.data_dir()?;
        let recipe = place.path().join("recipe.toml");
        std::fs::write(&recipe, RECIPE).map_err(|e| refused("write", &recipe, e))?;
        let root = place.path().join("mnist");
        lay_out(&root, &data)?;
        let mut runs = Vec::new();
        for &batch in &self.batch {
            for seed in 0..self.rounds {
                let out = place.path().join(format!("run-{batch}-{seed}"));
                runs.push(ours(&recipe, &out, &data, batch, seed)?);
                if let Some(python) = &self.against {
                    for script in ["torch_er.py", "avalanche_er.py"] {
                        runs.push(self.theirs(python, script, &root, batch, seed)?);
                    }
                }
            }
        }
        let mut accuracy = Vec::new();
        for &batch in &self.batch {
            let mut values = Vec::new();
            for seed in 100..100 + self.seeds {
                let out = place.path().join(format!("accuracy-{batch}-{seed}"));
                values.push(ours(&recipe, &out, &data, batch, seed)?.accuracy);
            }
            if let Ok(i) = mean_ci_t(&values, 0.95) {
                accuracy.push(Accuracy {
                    batch,
                    seeds: values.len(),
                    mean: i.value,
                    low: i.low,
                    high: i.high,
                });
            }
        }
        let gemm_gflops = gemm_rate();
        let environment = ebb_record::Environment::collect(Default::default(), 0);
        let figures = Figures {
            format_version: 1,
            command: self.command(),
            cpu: environment.cpu,
            threads: environment.threads_available,
            gemm_gflops,
            floors: self.batch.iter().map(|b| floor(*b, gemm_gflops)).collect(),
            runs,
            accuracy,
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
        let against = if self.against.is_some() {
            " --against python3"
        } else {
            ""
        };
        format!(
            "ebb bench --batch {} --rounds {} --seeds {}{against}",
            batches.join(","),
            self.rounds,
            self.seeds
        )
    }

    fn theirs(
        &self,
        python: &Path,
        script: &str,
        root: &Path,
        batch: usize,
        seed: u64,
    ) -> Result<Measured> {
        let mut command = Command::new(python);
        command
            .arg(self.peers.join(script))
            .args(["er", &batch.to_string(), &seed.to_string()])
            .env("MNIST_ROOT", root);
        let (process_s, json) = timed(&mut command)?;
        let number = |key: &str| json[key].as_f64().unwrap_or(f64::NAN);
        Ok(Measured {
            system: match script {
                "torch_er.py" => "plain PyTorch loop".into(),
                _ => "Avalanche 0.6.0".into(),
            },
            batch,
            seed,
            process_s,
            train_s: number("train_s"),
            accuracy: number("avg_acc"),
            peak_mb: number("rss_mb"),
            steps: number("iters"),
        })
    }
}

fn ours(recipe: &Path, out: &Path, data: &Path, batch: usize, seed: u64) -> Result<Measured> {
    let ebb = std::env::current_exe().map_err(|e| refused("find", "this program", e))?;
    let mut command = Command::new(ebb);
    command
        .arg("--data-dir")
        .arg(data)
        .arg("learn")
        .arg(recipe)
        .arg("-o")
        .arg(out)
        .args(["--json", "--quiet", "--seed", &seed.to_string()])
        .args(["--set", "evaluate.every=0"])
        .args(["--set", &format!("train.batch={batch}")]);
    let (process_s, json) = timed(&mut command)?;
    let cost = |key: &str| json["cost"][key].as_f64().unwrap_or(f64::NAN);
    let accuracy = json["numbers"]
        .as_array()
        .and_then(|numbers| numbers.iter().find(|n| n["name"] == "average_accuracy"))
        .and_then(|n| n["value"].as_f64());
    Ok(Measured {
        system: "ebb".into(),
        batch,
        seed,
        process_s,
        train_s: cost("train_seconds"),
        accuracy: 100.0 * accuracy.unwrap_or(f64::NAN),
        peak_mb: cost("peak_rss_bytes") / 1_048_576.0,
        steps: cost("steps"),
    })
}

/// The folder layout that torchvision reads.
fn lay_out(root: &Path, data: &Path) -> Result<()> {
    ebb_data::load("mnist", data)?;
    let raw = root.join("MNIST/raw");
    std::fs::create_dir_all(&raw).map_err(|e| refused("make", &raw, e))?;
    for name in [
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ] {
        let from = data.join("mnist").join(name);
        std::fs::copy(&from, raw.join(name)).map_err(|e| refused("copy", &from, e))?;
    }
    Ok(())
}

/// Prints figures, and writes them as Markdown and, beside it, as JSON.
fn show(figures: &impl Serialize, text: &str, write: Option<&Path>, json: bool) -> Result<()> {
    if let Some(path) = write {
        std::fs::write(path, text).map_err(|e| refused("write", path, e))?;
        let beside = path.with_extension("json");
        let all = serde_json::to_string_pretty(figures).unwrap_or_default();
        std::fs::write(&beside, all + "\n").map_err(|e| refused("write", &beside, e))?;
    }
    match json {
        true => out::json(figures),
        false => out::print(text),
    }
}

fn refused(action: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Error {
    Error::Io {
        action,
        path: path.as_ref().to_owned(),
        source,
    }
}

/// Runs a process to its end; the last line (or the whole) of its output is JSON.
fn timed(command: &mut Command) -> Result<(f64, Value)> {
    let name = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    let begun = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|e| refused("start", &name, e))?;
    let seconds = begun.elapsed().as_secs_f64();
    let text = String::from_utf8_lossy(&output.stdout);
    let json = serde_json::from_str(text.trim())
        .or_else(|_| serde_json::from_str(text.trim().lines().last().unwrap_or_default()));
    match json {
        Ok(json) if output.status.success() => Ok((seconds, json)),
        _ => {
            let errors = String::from_utf8_lossy(&output.stderr);
            let lines = || errors.trim().lines();
            let last = lines()
                .find(|line| line.starts_with("error"))
                .or(lines().last());
            let last = last.unwrap_or("it said nothing");
            Err(Error::request(
                format!("`{name}` did not come to its end: {last}"),
                "run it by hand to see all it says; a peer needs its packages installed",
            ))
        }
    }
}

/// Multiply-adds of a 1024-cube, in 10⁹ operations a second: the best of several.
fn gemm_rate() -> f64 {
    let n = 1024;
    let (a, b) = (vec![0.5f32; n * n], vec![0.25f32; n * n]);
    let mut c = vec![0.0f32; n * n];
    let mut best: f64 = 0.0;
    for _ in 0..8 {
        let begun = Instant::now();
        matmul(&mut c, Mat::new(&a, n, n), Mat::new(&b, n, n), false);
        best = best.max(2.0 * (n as f64).powi(3) / begun.elapsed().as_secs_f64() / 1e9);
    }
    best
}

/// Forward, weight gradients, and input gradients behind the first layer, of every row.
fn floor(batch: usize, gflops: f64) -> Floor {
    let (first, rest) = (784.0 * 100.0, 100.0 * 100.0 + 100.0 * 10.0);
    let row = 2.0 * (2.0 * first + 3.0 * rest);
    // One epoch of 60,000 new rows, and as many replayed from the second experience on.
    let rows = 60_000.0 + 60_000.0 - 12_665.0;
    let gflop = rows * row / 1e9;
    Floor {
        batch,
        steps: 60_000u64.div_ceil(batch as u64),
        gflop,
        seconds: gflop / gflops,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n => (values[(n - 1) / 2] + values[n / 2]) / 2.0,
    }
}

impl Figures {
    fn of(&self, system: &str, batch: usize, what: impl Fn(&Measured) -> f64) -> Vec<f64> {
        self.runs
            .iter()
            .filter(|r| r.system == system && r.batch == batch)
            .map(what)
            .collect()
    }

    fn markdown(&self) -> String {
        let mut systems: Vec<&str> = Vec::new();
        for run in &self.runs {
            if !systems.contains(&run.system.as_str()) {
                systems.push(&run.system);
            }
        }
        let mut text = format!(
            "# Experience replay on split MNIST, side by side\n\n\
             Class-incremental, MLP 784-100-100-10, SGD 0.1, one epoch, memory 500 filled after each \
             experience, as many replayed rows as new ones. Systems ran in turn; medians, with the \
             smallest and largest in brackets. A ratio above 1 means `ebb` needs less.\n\n\
             Made by `{}` on {} threads of {}.\n\n\
             | batch | system | whole process s | training s | peak MB | accuracy % | process ratio | training ratio | memory ratio |\n\
             |---|---|---|---|---|---|---|---|---|\n",
            self.command,
            self.threads,
            self.cpu.as_deref().unwrap_or("an unknown processor")
        );
        let spread = |v: &[f64], digits: usize| {
            let low = v.iter().copied().fold(f64::INFINITY, f64::min);
            let high = v.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            format!(
                "{:.digits$} ({low:.digits$} to {high:.digits$})",
                median(v.to_vec())
            )
        };
        let mut batches: Vec<usize> = self.floors.iter().map(|f| f.batch).collect();
        batches.dedup();
        for batch in batches {
            for system in &systems {
                let process = self.of(system, batch, |r| r.process_s);
                let train = self.of(system, batch, |r| r.train_s);
                let peak = self.of(system, batch, |r| r.peak_mb);
                let accuracy = self.of(system, batch, |r| r.accuracy);
                let ratio = |theirs: &[f64], what: fn(&Measured) -> f64| {
                    let mine = median(self.of("ebb", batch, what));
                    format!("{:.2}", median(theirs.to_vec()) / mine)
                };
                text += &format!(
                    "| {batch} | {system} | {} | {} | {} | {} | {} | {} | {} |\n",
                    spread(&process, 2),
                    spread(&train, 2),
                    spread(&peak, 0),
                    spread(&accuracy, 1),
                    ratio(&process, |r| r.process_s),
                    ratio(&train, |r| r.train_s),
                    ratio(&peak, |r| r.peak_mb),
                );
            }
        }
        text += "\n## Accuracy over seeds\n\n| batch | seeds | mean % | 95 % interval |\n|---|---|---|---|\n";
        for a in &self.accuracy {
            text += &format!(
                "| {} | {} | {:.2} | {:.2} to {:.2} |\n",
                a.batch, a.seeds, a.mean, a.low, a.high
            );
        }
        text += &format!(
            "\n## The floor\n\nA 1024-cube product runs at {:.0} GFLOP/s here. The arithmetic of the run alone would take:\n\n\
             | batch | steps | GFLOP | seconds at that rate |\n|---|---|---|---|\n",
            self.gemm_gflops
        );
        for f in &self.floors {
            text += &format!(
                "| {} | {} | {:.1} | {:.2} |\n",
                f.batch, f.steps, f.gflop, f.seconds
            );
        }
        text
    }
}
