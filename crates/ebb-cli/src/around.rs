//! What holds for every verb: where data lies, how many threads work, whether there is colour.

use crate::error::{Error, Result};
use ebb_report::{Colour, Terminal};
use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Options of every verb.
#[derive(clap::Args)]
pub struct Around {
    /// Where fetched data lies
    #[arg(long, global = true, value_name = "DIR", help_heading = "Everywhere")]
    data_dir: Option<PathBuf>,
    /// Threads to compute with; results do not depend on it
    #[arg(long, global = true, value_name = "N", help_heading = "Everywhere")]
    threads: Option<NonZeroUsize>,
    /// Plain text
    #[arg(long, global = true, help_heading = "Everywhere")]
    no_color: bool,
}

impl Around {
    /// Sets up what is one a process.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn prepare(&self) -> Result<()> {
        let Some(threads) = self.threads else {
            return Ok(());
        };
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.get())
            .build_global()
            .map_err(|e| {
                Error::request(
                    format!("{threads} threads cannot be started: {e}"),
                    "ask for fewer, or leave --threads out",
                )
            })
    }

    /// Threads to compute with.
    pub fn threads(&self) -> usize {
        rayon::current_num_threads()
    }

    /// Where fetched data lies.
    ///
    /// # Errors
    /// When there is no such place on this machine.
    pub fn data_dir(&self) -> Result<PathBuf> {
        match &self.data_dir {
            Some(dir) => Ok(dir.clone()),
            None => Ok(ebb_data::data_dir()?),
        }
    }

    /// The same for what may need no fetched data: a machine without a home directory can learn
    /// the embedded digits.
    pub fn data_dir_or_here(&self) -> PathBuf {
        self.data_dir().unwrap_or_else(|_| PathBuf::from("data"))
    }

    /// What standard output can show.
    pub fn terminal(&self) -> Terminal {
        let is_terminal = std::io::stdout().is_terminal();
        let width = terminal_size::terminal_size().map(|(w, _)| usize::from(w.0));
        let mut terminal = Terminal::detect(is_terminal, width.filter(|_| is_terminal), |name| {
            std::env::var(name).ok()
        });
        if self.no_color {
            terminal.colour = Colour::None;
        }
        terminal
    }
}
