//! `ebb runs`: which runs there are.

use crate::around::Around;
use crate::error::Result;
use crate::exit::Ended;
use crate::out::{self, Table};
use crate::place;
use ebb_record::{RunView, Summary};
use serde::Serialize;
use std::path::PathBuf;

/// List runs: method, stream, how far, what they came to
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Runs {
    /// Where to look
    #[arg(value_name = "DIR", default_value = place::RUNS)]
    directory: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  ebb runs
  ebb runs experiments --json | jq '.[] | select(.finished | not) | .directory'";

/// A run in the list.
#[derive(Serialize)]
struct Row {
    directory: PathBuf,
    /// Why the rest is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    damaged: Option<String>,
    method: String,
    stream: String,
    network: String,
    seed: u64,
    finished: bool,
    /// Experiences that came to their end, and all.
    experiences: [usize; 2],
    average_accuracy: Option<f64>,
    forgetting: Option<f64>,
    created_unix_seconds: u64,
    recipe_hash: String,
}

impl Row {
    fn of(directory: PathBuf) -> Row {
        let (summary, created, damaged) = match RunView::load(&directory) {
            Ok(view) => (view.summary, view.environment.created_unix_seconds, None),
            Err(e) => (Summary::default(), 0, Some(e.to_string())),
        };
        let number = |name| summary.number(name).map(|n| n.value);
        let measured = |row: &&Vec<Option<f64>>| row.iter().any(Option::is_some);
        Row {
            average_accuracy: number("average_accuracy"),
            forgetting: number("forgetting"),
            experiences: [
                summary.matrix.iter().filter(measured).count(),
                summary.experiences.len(),
            ],
            directory,
            damaged,
            method: summary.method,
            stream: summary.stream,
            network: summary.network,
            seed: summary.seed,
            finished: summary.finished,
            created_unix_seconds: created,
            recipe_hash: summary.recipe_hash,
        }
    }
}

impl Runs {
    /// Does it.
    ///
    /// # Errors
    /// When the directory cannot be read. A damaged run is listed as such.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        let found = match self.directory.is_dir() || self.directory.as_os_str() != place::RUNS {
            true => place::find(&self.directory)?,
            // Nothing was learned here yet.
            false => Vec::new(),
        };
        let rows: Vec<Row> = found.into_iter().map(Row::of).collect();
        if self.json {
            out::json(&rows)?;
            return Ok(Ended::Done);
        }
        if rows.is_empty() {
            eprintln!(
                "no runs in {}; `ebb learn` makes one",
                self.directory.display()
            );
            return Ok(Ended::Done);
        }
        let mut table = Table::new(&[
            "run",
            "method",
            ">seed",
            "how far",
            ">accuracy %",
            ">forgetting",
            "stream",
        ]);
        for row in &rows {
            let percent =
                |v: Option<f64>| v.map_or_else(|| "–".into(), |v| format!("{:.1}", 100.0 * v));
            let [done, all] = row.experiences;
            table.row([
                out::quoted(&row.directory),
                row.method.clone(),
                row.seed.to_string(),
                match (&row.damaged, row.finished) {
                    (Some(_), _) => "damaged".into(),
                    (None, true) => "finished".into(),
                    (None, false) => format!("{done} of {all}"),
                },
                percent(row.average_accuracy),
                percent(row.forgetting),
                row.damaged.clone().unwrap_or_else(|| row.stream.clone()),
            ]);
        }
        out::print(&table.text(&around.terminal()))?;
        Ok(Ended::Done)
    }
}
