//! `ebb lineage`: which example reached what.

use crate::around::Around;
use crate::error::{Error, Result};
use crate::exit::Ended;
use crate::out::{self, Table};
use crate::verbs::states::resolve;
use ebb_record::{Artifact, RunView};
use ebb_space::ExampleId;
use serde::Serialize;
use std::path::PathBuf;

/// Show what an example reached, or which examples reached a state
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Lineage {
    /// The run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// An example's id, a state's (or its beginning), `HEAD`, or `memory`
    #[arg(value_name = "ID")]
    id: String,
    /// Of an example: this view alone, not every view of its record
    #[arg(long)]
    this_view: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
An example's id is that of its content and label: the same in every run. What it reached, it also
reached through everything made from it. Lineage errs towards reaching: a checkpoint in the middle
of an experience counts all of the experience's examples.

Examples:
  ebb lineage runs/der++-1 HEAD | head -1                          an example that reached HEAD
  ebb lineage runs/der++-1 5d41402abc4b2a76b9719d911017c592-0-0    what that example reached";

/// Something that an example reached.
#[derive(Serialize)]
struct Reached {
    kind: &'static str,
    name: String,
    /// Whether the bytes of a state are still there.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<bool>,
}

impl Lineage {
    /// Does it.
    ///
    /// # Errors
    /// When the run cannot be read, or knows no such id.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        let view = RunView::load(&self.run)?;
        let lineage = view.lineage()?;
        let states = view.states()?;
        if self.id.contains('-') {
            let id: ExampleId = self.id.parse().map_err(|e| {
                Error::request(
                    format!("`{}` is no example's id: {e}", self.id),
                    "`ebb lineage RUN HEAD` lists the ids of the examples that reached a run",
                )
            })?;
            let found = match self.this_view {
                true => lineage.reached(&id)?,
                false => lineage.reached_by_any_view(&id)?,
            };
            let reached: Vec<Reached> = found
                .into_iter()
                .map(|artifact| {
                    let (kind, name) = match artifact {
                        Artifact::State(name) => ("state", name),
                        Artifact::Memory(name) => ("memory", name),
                        Artifact::Statistic(name) => ("statistic", name),
                        Artifact::Adapter(name) => ("adapter", name),
                    };
                    let kept = (kind == "state").then(|| states.is_kept(&name));
                    Reached { kind, name, kept }
                })
                .collect();
            self.show_reached(&reached, around)?;
        } else {
            let artifact = match self.id.as_str() {
                "memory" => Artifact::Memory("memory".to_owned()),
                asked => Artifact::State(resolve(&states, asked)?),
            };
            let ids = lineage.examples(&artifact)?;
            let ids: Vec<String> = ids.iter().map(ExampleId::to_string).collect();
            match self.json {
                true => out::json(&ids)?,
                false => out::print(&ids.join("\n"))?,
            }
        }
        Ok(Ended::Done)
    }

    fn show_reached(&self, reached: &[Reached], around: &Around) -> Result<()> {
        if self.json {
            return out::json(&reached);
        }
        if reached.is_empty() {
            return out::print("it reached nothing in this run");
        }
        let mut table = Table::new(&["what", "name", ""]);
        for r in reached {
            let removed = r.kept == Some(false);
            table.row([
                r.kind.to_owned(),
                r.name.clone(),
                if removed { "bytes removed" } else { "" }.to_owned(),
            ]);
        }
        out::print(&table.text(&around.terminal()))
    }
}
