//! `ebb report`: one HTML page of one or many runs.

use crate::error::{Error, Result};
use crate::exit::Ended;
use crate::{out, place};
use ebb_report::{Options, RunData};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Write one self-contained HTML page of one or many runs
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Report {
    /// Run directories, or directories that hold runs
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Write the page here; else report.html in RUN, or here where there are several
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Title of the page
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Open it in the browser
    #[arg(long)]
    open: bool,
}

const AFTER_HELP: &str = "\
The page needs no network and no other file: accuracy matrix, accuracy while learning (where the
stability gap shows), every number with its interval, cost, recipe and states. Runs that differ
in the seed alone become one group with intervals over seeds. A run may still be under way.

Examples:
  ebb report runs/der++-1 --open
  ebb report runs/* -o comparison.html --title \"Replay on the digits\"
  ebb report runs/er-3                   all seeds of `ebb learn --method er --seeds 5`";

impl Report {
    /// Does it.
    ///
    /// # Errors
    /// When a run cannot be read or the page not be written.
    pub fn run(&self) -> Result<Ended> {
        let runs = place::given(&self.runs)?;
        let data = runs
            .iter()
            .map(|run| RunData::load(run))
            .collect::<Result<Vec<_>, _>>()?;
        let page = match (&self.out, self.runs.as_slice()) {
            (Some(out), _) => out.clone(),
            (None, [one]) => one.join("report.html"),
            (None, _) => PathBuf::from("report.html"),
        };
        let options = Options {
            title: self.title.clone(),
            footer: Some(format!("ebb {}", env!("CARGO_PKG_VERSION"))),
            ..Options::default()
        };
        let html = ebb_report::render(&data, &options);
        std::fs::write(&page, html).map_err(|source| Error::Io {
            action: "write",
            path: page.clone(),
            source,
        })?;
        out::print(&out::quoted(&page))?;
        if self.open {
            open(&page)?;
        }
        Ok(Ended::Done)
    }
}

/// Opens a file with whatever the desktop opens it with.
fn open(page: &Path) -> Result<()> {
    let mut command = if cfg!(target_os = "macos") {
        Command::new("open")
    } else if cfg!(windows) {
        let mut command = Command::new("cmd");
        command.args(["/C", "start", ""]);
        command
    } else {
        Command::new("xdg-open")
    };
    let opened = command
        .arg(page)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    opened.map(drop).map_err(|e| {
        Error::request(
            format!("no browser could be started: {e}"),
            format!("the page is written: open {} yourself", page.display()),
        )
    })
}
