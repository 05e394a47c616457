//! `ebb ledger`: whether the ledger is the one that was written.

use crate::around::Around;
use crate::error::Result;
use crate::exit::Ended;
use crate::out::{self, Table};
use ebb_record::ledger::{self, Entry, Head};
use std::path::PathBuf;

/// Check the ledger of requests, or show it
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Ledger {
    #[command(subcommand)]
    verb: LedgerVerb,
}

const AFTER_HELP: &str = "\
Whoever can write the ledger can write all of it anew. A head that was kept elsewhere (every
certificate carries one) fixes every entry up to it: with it, any changed bit, an entry taken out, put
in or moved, a cut tail and a rewrite are found. Without one, a rewrite of the whole is not.

Examples:
  ebb ledger verify office
  ebb ledger verify office --head 12-5f0c…
  ebb ledger show office";

#[derive(clap::Subcommand)]
enum LedgerVerb {
    /// Check every entry
    Verify {
        /// The office
        #[arg(value_name = "DIR", default_value = "office")]
        directory: PathBuf,
        /// A head that was kept elsewhere: COUNT-HASH
        #[arg(long, value_name = "HEAD")]
        head: Option<Head>,
    },
    /// Show every entry
    Show {
        /// The office
        #[arg(value_name = "DIR", default_value = "office")]
        directory: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl Ledger {
    /// Does it.
    ///
    /// # Errors
    /// When the ledger is not the one that was written, or cannot be read.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        match &self.verb {
            LedgerVerb::Verify { directory, head } => {
                let checked = ledger::verify(directory, head.as_ref())?;
                out::print(&format!(
                    "{} entries hang together\nhead  {}\n{}\n",
                    checked.head.count,
                    checked.head,
                    match checked.fixed {
                        Some(n) => format!("the head that you gave fixes the first {n} of them"),
                        None =>
                            "without a head from outside, a rewrite of the whole is not ruled out"
                                .into(),
                    }
                ))?;
            }
            LedgerVerb::Show { directory, json } => {
                let mut entries = Vec::new();
                ledger::for_each(directory, |n, at, entry| {
                    entries.push((n, at, entry));
                    Ok(())
                })?;
                if *json {
                    let lines: Vec<serde_json::Value> = (entries.iter())
                        .map(|(n, at, entry)| serde_json::json!({"n": n, "at": at, "entry": entry}))
                        .collect();
                    out::json(&lines)?;
                } else {
                    let mut table = Table::new(&[">n", ">at", "what", "request"]);
                    for (n, at, entry) in &entries {
                        let (what, request) = told(entry);
                        table.row([n.to_string(), at.to_string(), what, request]);
                    }
                    out::print(&table.text(&around.terminal()))?;
                }
            }
        }
        Ok(Ended::Done)
    }
}

/// An entry in a few words, and which request it is about.
fn told(entry: &Entry) -> (String, String) {
    let of = |id: &ebb_record::ledger::RequestId| id.to_string()[..8].to_owned();
    match entry {
        Entry::Opened { .. } => ("opened".into(), String::new()),
        Entry::Submitted {
            request, ground, ..
        } => (
            format!("submitted: {}", format!("{ground:?}").to_lowercase()),
            of(request),
        ),
        Entry::Refused {
            request, records, ..
        } => (format!("refused: {records} records"), of(request)),
        Entry::Planned {
            request,
            records,
            method,
            ..
        } => (
            format!("planned: {} records by {method}", records.count),
            of(request),
        ),
        Entry::Started { request } => ("started".into(), of(request)),
        Entry::PhaseDone { request, phase } => (format!("done: {phase}"), of(request)),
        Entry::Erased { request, .. } => ("erased".into(), of(request)),
        Entry::Verified {
            request, passed, ..
        } => (
            if *passed {
                "verified"
            } else {
                "verified, not passed"
            }
            .into(),
            of(request),
        ),
        Entry::Purged {
            request, artifacts, ..
        } => (format!("purged: {artifacts} files"), of(request)),
        Entry::Certified { request, .. } => ("certified".into(), of(request)),
        Entry::Note { name, .. } => (format!("note: {name}"), String::new()),
    }
}
