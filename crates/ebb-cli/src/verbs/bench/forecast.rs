//! `ebb bench forecast`: how long it takes to fill in a row of an association matrix.
//!
//! Each size is measured in a process of its own, so that its peak of memory is its own. Beside it
//! runs the Surprise library, whose estimator fits all known values anew for each new row; few of
//! its thousand passes are timed, and what a thousand take is said to be computed.

use super::{median, refused, show, timed};
use crate::error::Result;
use crate::exit::Ended;
use crate::out;
use ebb_probe::complete::{ClosedForm, Completer, Factors, Known};
use ebb_probe::protocol::known_columns;
use ebb_probe::{Table, rank_probe};
use ebb_space::Key;
use serde::Serialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Measure how fast rows of an association matrix are filled in, alone or beside Surprise
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Forecast {
    /// Numbers of examples to measure
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    examples: Vec<usize>,
    /// Tasks
    #[arg(long, value_name = "M", default_value_t = 100)]
    tasks: usize,
    /// A Python with scikit-surprise to run beside
    #[arg(long, value_name = "PYTHON")]
    against: Option<PathBuf>,
    /// The most examples for which the peer runs
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    peer_examples: usize,
    /// Where the peer's script lies
    #[arg(long, value_name = "DIR", default_value = "benches/peers")]
    peers: PathBuf,
    /// Turns; medians over them are printed
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u64,
    /// Measure here and now, one size, and print JSON: what the program asks of itself
    #[arg(long, hide = true)]
    here: bool,
    /// And make all passes once, for the error they come to
    #[arg(long, hide = true)]
    whole: bool,
    /// Write the figures here as Markdown, and beside it as JSON
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
A drawn matrix with row and column effects, five directions and noise; 30 examples known.

Examples:
  ebb bench forecast
  ebb bench forecast --against venv/bin/python --write docs/evidence/forecast.md";

/// Passes of the descended factors that are timed.
const PASSES: usize = 5;
/// Passes that the estimator makes.
const ALL_PASSES: usize = 1000;
/// The most examples for which all passes are made once, so that errors can be compared.
const WHOLE: usize = 10_000;
/// Columns that are known.
const KNOWN: usize = 30;

/// One process.
#[derive(Clone, Debug, Serialize)]
struct Measured {
    system: String,
    examples: usize,
    turn: u64,
    /// Of the closed form: once for all rows.
    fit_s: Option<f64>,
    /// A new row: by the closed form, or by a thousand passes.
    row_s: f64,
    /// What of that was timed.
    timed_s: f64,
    probe_s: Option<f64>,
    peak_mb: f64,
    /// Root of the mean squared error on the examples that were not known.
    rmse: Option<f64>,
}

#[derive(Serialize)]
struct Figures {
    format_version: u32,
    command: String,
    cpu: Option<String>,
    threads: usize,
    tasks: usize,
    runs: Vec<Measured>,
}

impl Forecast {
    /// Measures and prints.
    ///
    /// # Errors
    /// When a process cannot be started or fails.
    pub fn run(&self) -> Result<Ended> {
        if self.here {
            out::json(&here(
                self.tasks,
                self.examples.first().copied().unwrap_or(1000),
                self.whole,
            )?)?;
            return Ok(Ended::Done);
        }
        let mut runs = Vec::new();
        for &examples in &self.examples {
            for turn in 0..self.rounds {
                runs.extend(self.ours(examples, turn)?);
                if let Some(python) = self
                    .against
                    .as_ref()
                    .filter(|_| examples <= self.peer_examples)
                {
                    runs.push(self.theirs(python, examples, turn)?);
                }
            }
        }
        let environment = ebb_record::Environment::collect(Default::default(), 0);
        let sizes: Vec<String> = self.examples.iter().map(ToString::to_string).collect();
        let against = if self.against.is_some() {
            " --against python3"
        } else {
            ""
        };
        let figures = Figures {
            format_version: 1,
            command: format!(
                "ebb bench forecast --tasks {} --examples {} --rounds {}{against}",
                self.tasks,
                sizes.join(","),
                self.rounds
            ),
            cpu: environment.cpu,
            threads: environment.threads_available,
            tasks: self.tasks,
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

    fn ours(&self, examples: usize, turn: u64) -> Result<Vec<Measured>> {
        let ebb = std::env::current_exe().map_err(|e| refused("find", "this program", e))?;
        let mut command = Command::new(ebb);
        command.args(["bench", "forecast", "--here"]);
        command.args(["--tasks", &self.tasks.to_string()]);
        command.args(["--examples", &examples.to_string()]);
        if turn == 0 && examples <= WHOLE {
            command.arg("--whole");
        }
        let (_, json) = timed(&mut command)?;
        let number = |key: &str| json[key].as_f64().unwrap_or(f64::NAN);
        let passes = number("passes_s");
        Ok(vec![
            Measured {
                system: "ebb, closed form".into(),
                examples,
                turn,
                fit_s: Some(number("fit_s")),
                row_s: number("row_s"),
                timed_s: number("row_s"),
                probe_s: Some(number("probe_s")),
                peak_mb: number("peak_mb"),
                rmse: json["rmse"].as_f64(),
            },
            Measured {
                system: "ebb, factors by descent".into(),
                examples,
                turn,
                fit_s: None,
                row_s: passes * ALL_PASSES as f64 / PASSES as f64,
                timed_s: passes,
                probe_s: None,
                peak_mb: number("peak_after_mb"),
                rmse: json["descent_rmse"].as_f64(),
            },
        ])
    }

    fn theirs(&self, python: &Path, examples: usize, turn: u64) -> Result<Measured> {
        let mut command = Command::new(python);
        command.arg(self.peers.join("surprise_forecast.py"));
        let all = match turn == 0 && examples <= WHOLE {
            true => ALL_PASSES,
            false => 0,
        };
        let sizes = [self.tasks, examples, KNOWN, PASSES, all];
        command.args(sizes.map(|n| n.to_string()));
        let (_, json) = timed(&mut command)?;
        let number = |key: &str| json[key].as_f64().unwrap_or(f64::NAN);
        let fit = number("passes_s");
        Ok(Measured {
            system: "Surprise 1.1.5, SVD".into(),
            examples,
            turn,
            fit_s: None,
            row_s: fit * ALL_PASSES as f64 / PASSES as f64,
            timed_s: fit,
            probe_s: None,
            peak_mb: number("rss_mb"),
            rmse: json["rmse"].as_f64(),
        })
    }
}

/// A drawn matrix of `m` tasks and one more, and `n` examples.
fn drawn(m: usize, n: usize) -> Result<(Table, Vec<f32>)> {
    let key = Key::new(0, "bench forecast");
    let uniform = |what: &str, k: u64| key.sub(what).at(k);
    let columns: Vec<[f32; 6]> = (0..n as u64)
        .map(|j| std::array::from_fn(|k| uniform("column", k as u64).uniform(j) as f32 - 0.5))
        .collect();
    let mut values = Vec::with_capacity((m + 1) * n);
    for i in 0..=m as u64 {
        let row: [f32; 6] =
            std::array::from_fn(|k| uniform("row", k as u64).uniform(i) as f32 - 0.5);
        let noise = key.sub("noise").at(i);
        values.extend(columns.iter().enumerate().map(|(j, column)| {
            let dot: f32 = row[1..].iter().zip(&column[1..]).map(|(a, b)| a * b).sum();
            row[0] + column[0] + 2.0 * dot + 0.1 * (noise.uniform(j as u64) as f32 - 0.5)
        }));
    }
    let new = values.split_off(m * n);
    let ids = |count: usize| (0..count as u64).collect();
    Ok((Table::new(ids(m), ids(n), values)?, new))
}

/// Times one size in this process.
fn here(m: usize, n: usize, whole: bool) -> Result<Value> {
    let (table, new) = drawn(m, n)?;
    let key = Key::new(0, "fit");
    let columns = known_columns(&table, KNOWN, key)?;
    let mut unknown = vec![true; n];
    columns.iter().for_each(|j| unknown[*j] = false);
    let rmse = |row: &[f32]| {
        let pairs = row.iter().zip(&new).zip(&unknown);
        let errors = pairs
            .filter(|(_, u)| **u)
            .map(|((a, b), _)| f64::from(a - b).powi(2));
        (errors.sum::<f64>() / (n - KNOWN.min(n)).max(1) as f64).sqrt()
    };
    let values = columns.iter().map(|j| new[*j]).collect();
    let known = Known::new(columns, values, n)?;
    let begun = Instant::now();
    let closed = ClosedForm::default();
    let fitted = closed.fit(&table, key)?;
    let fit_s = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let row = fitted.complete(&known)?;
    let row_s = begun.elapsed().as_secs_f64();
    let closed_rmse = rmse(&row);
    let peak = || ebb_record::peak_rss_bytes().map_or(f64::NAN, |b| b as f64 / 1_048_576.0);
    let peak_mb = peak();
    let begun = Instant::now();
    rank_probe(&table, key)?;
    let probe_s = begun.elapsed().as_secs_f64();
    let descent = Factors {
        epochs: PASSES,
        ..Factors::default()
    };
    let begun = Instant::now();
    descent.fit(&table, key)?.complete(&known)?;
    let passes_s = begun.elapsed().as_secs_f64();
    let peak_after_mb = peak();
    let descent_rmse = match whole {
        true => Some(rmse(
            &Factors::default().fit(&table, key)?.complete(&known)?,
        )),
        false => None,
    };
    Ok(serde_json::json!({
        "fit_s": fit_s,
        "row_s": row_s,
        "probe_s": probe_s,
        "passes_s": passes_s,
        "peak_mb": peak_mb,
        "peak_after_mb": peak_after_mb,
        "rmse": closed_rmse,
        "descent_rmse": descent_rmse,
    }))
}

impl Figures {
    fn markdown(&self) -> String {
        let mut text = format!(
            "# Filling in a row of an association matrix\n\n\
             {} tasks, {KNOWN} examples of the new one known, five factors. The closed form is fitted \
             once for all rows; the others fit every known value anew for each row, {ALL_PASSES} passes, \
             of which {PASSES} were timed: their times are {} times that. Medians of the turns; memory \
             is the peak of the whole process. The error is the RMSE on what was not known, after all \
             passes; each system draws its matrix by the same law (noise has 0.029).\n\n\
             Made by `{}` on {} threads of {}.\n\n\
             | examples | system | fit once s | a row s | timed s | rank probe s | peak MB | error |\n\
             |---|---|---|---|---|---|---|---|\n",
            self.tasks,
            ALL_PASSES / PASSES,
            self.command,
            self.threads,
            self.cpu.as_deref().unwrap_or("an unknown processor")
        );
        let mut seen: Vec<(usize, &str)> = Vec::new();
        for run in &self.runs {
            if !seen.contains(&(run.examples, &run.system)) {
                seen.push((run.examples, &run.system));
            }
        }
        for (examples, system) in seen {
            let of = || {
                let mine = |r: &&Measured| r.examples == examples && r.system == system;
                self.runs.iter().filter(mine)
            };
            let number = |what: &dyn Fn(&Measured) -> Option<f64>| {
                let values: Vec<f64> = of().filter_map(what).collect();
                match values.is_empty() {
                    true => "–".to_owned(),
                    false => format!("{:.4}", median(values)),
                }
            };
            text += &format!(
                "| {examples} | {system} | {} | {} | {} | {} | {:.0} | {} |\n",
                number(&|r| r.fit_s),
                number(&|r| Some(r.row_s)),
                number(&|r| Some(r.timed_s)),
                number(&|r| r.probe_s),
                median(of().map(|r| r.peak_mb).collect()),
                number(&|r| r.rmse)
            );
        }
        text
    }
}
