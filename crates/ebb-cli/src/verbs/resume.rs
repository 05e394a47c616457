//! `ebb resume`: goes on with a run that was stopped or killed.

use crate::around::Around;
use crate::error::{Error, Result};
use crate::exit::Ended;
use crate::show::{self, Finished};
use crate::watch::Watch;
use crate::{interrupt, out};
use ebb_record::RunView;
use ebb_report::Colour;
use std::path::PathBuf;

/// Go on with a run that was stopped or killed, to the same bits
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Resume {
    /// The run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Print the summary as JSON, and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// No progress and no picture
    #[arg(short, long)]
    quiet: bool,
}

const AFTER_HELP: &str = "\
A run goes on from its last checkpoint: the one that Ctrl-C makes, or one of those made every
`save.checkpoint-every` steps. The recipe is the run's own and cannot be changed. A finished run
is only shown.

Examples:
  ebb resume runs/der++-1
  ebb runs                         which runs there are, and which are unfinished";

impl Resume {
    /// Does it.
    ///
    /// # Errors
    /// When the directory is no run or is damaged, and as `ebb learn`.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        // Only a sealed run is looked into first: one that was killed before its first record has
        // nothing to show, and is gone on with like any other.
        let sealed = self.run.join("summary.json").is_file();
        let finished = match sealed {
            true => Some(RunView::load(&self.run)?.summary).filter(|s| s.finished),
            false => None,
        };
        let summary = match finished {
            Some(summary) => {
                if !self.quiet {
                    eprintln!("{} is finished", self.run.display());
                }
                summary
            }
            None => self.go_on(around)?,
        };
        let finished = [Finished {
            directory: self.run.clone(),
            summary,
        }];
        match (self.json, self.quiet) {
            (true, _) => show::json(&finished[0])?,
            (false, true) => out::print(&out::quoted(&self.run))?,
            (false, false) => {
                let mut text = show::picture(&finished, &around.terminal())?;
                let run = out::quoted(&self.run);
                text.push_str(&format!("\nnext ebb report {run} --open\n"));
                out::print(&text)?;
            }
        }
        Ok(Ended::Done)
    }

    fn go_on(&self, around: &Around) -> Result<ebb_record::Summary> {
        let colour = around.terminal().colour != Colour::None;
        let mut watch = Watch::new(self.quiet, colour, "");
        let result = ebb_learn::resume(
            &self.run,
            &mut ebb_learn::Around {
                data_dir: &around.data_dir_or_here(),
                progress: &mut watch,
                stop: interrupt::flag(),
            },
        );
        drop(watch);
        result.map_err(|source| Error::InRun {
            run: self.run.clone(),
            source: Box::new(source.into()),
            then: None,
        })
    }
}
