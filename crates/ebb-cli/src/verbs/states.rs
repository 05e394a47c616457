//! `ebb states`: the chain of model states of a run.

use crate::around::Around;
use crate::error::{Error, Result};
use crate::exit::Ended;
use crate::out::{self, Table};
use ebb_record::{RunDir, RunView, StateMeta};
use indicatif::HumanBytes;
use serde::Serialize;
use std::path::PathBuf;

/// List the states of a run, or remove the bytes of one for good
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct States {
    /// The run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Remove the bytes of this state (an id or its beginning); that it was stays on record
    #[arg(long, value_name = "ID")]
    purge: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
A state holds the weights and everything needed to go on from them. The end of each experience is
kept, and the last few checkpoints (`save.keep`); HEAD is the present one.

Examples:
  ebb states runs/der++-1
  ebb states runs/der++-1 --purge 3f2a";

/// So much of an id must be written: a slip must not remove a state.
const SHORTEST: usize = 4;

/// A state in the list.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    meta: &'a StateMeta,
    head: bool,
    kept: bool,
    bytes: u64,
}

/// The id that the user means: an id, its beginning, or `HEAD`.
///
/// # Errors
/// When there is none, or more than one.
pub fn resolve(states: &ebb_record::States, asked: &str) -> Result<String> {
    if let Some(head) = states.head().filter(|_| asked == "HEAD") {
        return Ok(head.id.clone());
    }
    if asked.len() < SHORTEST {
        return Err(Error::request(
            format!("`{asked}` is too short to name a state"),
            format!("write at least {SHORTEST} letters of its id, or HEAD"),
        ));
    }
    let fits = |s: &&StateMeta| s.id.starts_with(asked);
    let found: Vec<&StateMeta> = states.chain().iter().filter(fits).collect();
    match found.as_slice() {
        [one] => Ok(one.id.clone()),
        [] => Err(Error::request(
            format!("the run has no state `{asked}`"),
            "`ebb states RUN` lists the states of a run",
        )),
        [first, second, ..] => Err(Error::request(
            format!("`{asked}` begins several ids"),
            format!("write more of it: {} or {}, …", first.id, second.id),
        )),
    }
}

fn bytes(meta: &StateMeta) -> u64 {
    meta.files.values().map(|f| f.bytes).sum()
}

impl States {
    /// Does it.
    ///
    /// # Errors
    /// When the run cannot be read, or the state not be removed.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        match &self.purge {
            Some(asked) => self.purge(asked)?,
            None => self.list(around)?,
        }
        Ok(Ended::Done)
    }

    fn purge(&self, asked: &str) -> Result<()> {
        let mut run = RunDir::open(&self.run)?;
        let id = resolve(run.states(), asked)?;
        let kept = run.states().is_kept(&id);
        let freed = run.states().get(&id).map_or(0, bytes);
        run.purge(&id)?;
        if self.json {
            return out::json(&serde_json::json!({
                "purged": id, "bytes": if kept { freed } else { 0 },
            }));
        }
        out::print(&match kept {
            true => format!("removed {id} for good, {}", HumanBytes(freed)),
            false => format!("the bytes of {id} were removed before"),
        })
    }

    fn list(&self, around: &Around) -> Result<()> {
        // The run first: without one, the states of a path that is none would just be empty.
        let states = RunView::load(&self.run)?.states()?;
        let head = states.head().map(|s| s.id.as_str());
        let rows: Vec<Row> = states
            .chain()
            .iter()
            .map(|meta| Row {
                meta,
                head: head == Some(meta.id.as_str()),
                kept: states.is_kept(&meta.id),
                bytes: bytes(meta),
            })
            .collect();
        if self.json {
            return out::json(&rows);
        }
        let mut table = Table::new(&["", "state", "made by", ">step", "at", ">size", "from"]);
        for row in &rows {
            let at = match (row.meta.experience, row.meta.milestone) {
                (None, _) => "the start".to_owned(),
                (Some(e), true) => format!("end of experience {}", e + 1),
                (Some(e), false) => format!("in experience {}", e + 1),
            };
            table.row([
                if row.head { "HEAD" } else { "" }.to_owned(),
                row.meta.id.clone(),
                row.meta.verb.name().to_owned(),
                row.meta.step.to_string(),
                at,
                match row.kept {
                    true => HumanBytes(row.bytes).to_string(),
                    false => "removed".to_owned(),
                },
                row.meta
                    .parent
                    .as_deref()
                    .map_or("", |p| &p[..p.len().min(8)])
                    .to_owned(),
            ]);
        }
        out::print(&table.text(&around.terminal()))
    }
}
