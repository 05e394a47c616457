//! The same two methods in Mammoth (tag neurips2020) and here, in turns.

use super::{Bench, median, refused, timed};
use crate::error::Result;
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
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

/// Runs both, `bench.rounds` times at each batch size.
///
/// # Errors
/// When a process cannot be started or fails.
pub fn measure(
    bench: &Bench,
    python: &Path,
    checkout: &Path,
    mnist: &Path,
    data: &Path,
    place: &Path,
) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for &batch in &bench.batch {
        for seed in 0..bench.rounds {
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
                let mut command = Command::new(python);
                command
                    .arg(bench.peers.join("mammoth.py"))
                    .args([theirs, &batch.to_string(), &seed.to_string()])
                    .env("MNIST_ROOT", mnist)
                    .env("MAMMOTH", checkout);
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

/// The table.
pub fn markdown(runs: &[Run]) -> String {
    let mut text = "\n## Beside Mammoth\n\nThe code of the DER paper (tag neurips2020), in turn with \
                    `ebb`: a reservoir of 200 filled at each step, pixels between 0 and 1, SGD 0.1, as \
                    many replayed rows as new ones in each draw. Its evaluations are not counted as \
                    training. Medians.\n\n\
                    | batch | method | system | steps/s | whole process s | accuracy % | peak MB | steps/s, ebb / Mammoth |\n\
                    |---|---|---|---|---|---|---|---|\n"
        .to_owned();
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
