//! Exit codes, and the last lines of a failure.

use crate::error::{Error, Result};
use std::process::ExitCode;

/// How a verb ended when nothing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It did what was asked.
    Done,
    /// A study was run, and its claim does not hold; or a plan does not keep its budget for sure.
    DoesNotHold,
}

/// The code of an error.
const ERROR: u8 = 2;
/// The code of an interrupted run: 128 + SIGINT, as shells have it.
pub const INTERRUPTED: u8 = 130;

/// The exit code of a verb; an error is printed.
pub fn of(result: Result<Ended>) -> ExitCode {
    match result {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::DoesNotHold) => ExitCode::from(1),
        Err(error) => {
            print(&error);
            ExitCode::from(if error.is_interruption() {
                INTERRUPTED
            } else {
                ERROR
            })
        }
    }
}

/// Prints an error: what happened, and what to do.
pub fn print(error: &Error) {
    // An interruption says of itself that it is one.
    let word = if error.is_interruption() {
        ""
    } else {
        "error: "
    };
    eprintln!("{word}{error}");
    if let Some(remedy) = error.remedy() {
        eprintln!("  help: {remedy}");
    }
}

/// The exit code of a command line that was not understood, or that asked for help.
pub fn of_usage(error: &clap::Error) -> ExitCode {
    // A reader that is gone (`ebb --help | head`) is no failure.
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(ERROR)
    } else {
        ExitCode::SUCCESS
    }
}

impl Error {
    fn is_interruption(&self) -> bool {
        match self {
            Error::Learn(
                ebb_learn::Error::Interrupted { .. } | ebb_learn::Error::TuneStopped { .. },
            )
            | Error::Study(ebb_study::Error::Stopped)
            | Error::Language(ebb_lm::Error::Hub(ebb_hub::Error::Stopped)) => true,
            Error::InRun { source, .. } => source.is_interruption(),
            _ => false,
        }
    }
}
