//! What can go wrong, and what to do about it.

use std::path::PathBuf;

/// An error of the program. Its text says what happened; [`Error::remedy`] what to do, where the
/// text does not say it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of learning.
    #[error(transparent)]
    Learn(#[from] ebb_learn::Error),
    /// An error of a run directory.
    #[error(transparent)]
    Record(#[from] ebb_record::Error),
    /// An error of a dataset or stream.
    #[error(transparent)]
    Data(#[from] ebb_data::Error),
    /// An error of a study.
    #[error(transparent)]
    Study(#[from] ebb_study::Error),
    /// An error of a forecast.
    #[error(transparent)]
    Probe(ebb_probe::Error),
    /// An error of erasing.
    #[error(transparent)]
    Erase(ebb_erase::Error),
    /// An error of a language model.
    #[error(transparent)]
    Language(#[from] ebb_lm::Error),
    /// A recipe that cannot be used, by name.
    #[error("{recipe}: {source}")]
    InRecipe {
        /// Its file or name.
        recipe: String,
        /// What is wrong.
        source: Box<Error>,
    },
    /// Learning failed in a run that is on disk.
    #[error("{source}")]
    InRun {
        /// The run directory.
        run: PathBuf,
        /// What happened.
        source: Box<Error>,
        /// What is left to do besides.
        then: Option<String>,
    },
    /// The operating system refused something.
    #[error("cannot {action} `{path}`: {source}", path = path.display())]
    Io {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Standard output cannot be written.
    #[error("standard output cannot be written: {0}")]
    Output(std::io::Error),
    /// A request that cannot be met.
    #[error("{what}")]
    Request {
        /// What is wrong with it.
        what: String,
        /// What would be right.
        remedy: String,
    },
}

impl From<ebb_erase::Error> for Error {
    fn from(error: ebb_erase::Error) -> Error {
        match error {
            ebb_erase::Error::Learn(error) => Error::Learn(error),
            ebb_erase::Error::Record(error) => Error::Record(error),
            error => Error::Erase(error),
        }
    }
}

impl From<ebb_probe::Error> for Error {
    fn from(error: ebb_probe::Error) -> Error {
        match error {
            ebb_probe::Error::Learn(error) => Error::Learn(error),
            ebb_probe::Error::Data(error) => Error::Data(error),
            ebb_probe::Error::Record(error) => Error::Record(error),
            error => Error::Probe(error),
        }
    }
}

/// The result of a fallible function of this program.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A request that cannot be met.
    pub fn request(what: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::Request {
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// What the user can do, where the message does not say it already.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Error::Request { remedy, .. } => Some(remedy.clone()),
            Error::InRecipe { source, .. } => source.remedy(),
            Error::InRun { run, source, then } => source.remedy_in(run).or_else(|| then.clone()),
            Error::Learn(ebb_learn::Error::Recipe { .. }) => Some(
                "correct the recipe or the `--set`; `ebb learn --print-recipe` prints a recipe \
                 with every key that it may have"
                    .into(),
            ),
            Error::Learn(ebb_learn::Error::Refused { name, .. }) => {
                Some(format!("or for one run: --set 'accept=[\"{name}\"]'"))
            }
            Error::Learn(ebb_learn::Error::Io { .. })
            | Error::Record(ebb_record::Error::Io { .. })
            | Error::Learn(ebb_learn::Error::Record(ebb_record::Error::Io { .. }))
            | Error::Data(ebb_data::Error::Io { .. })
            | Error::Io { .. } => {
                Some("check that the path is right and that you may use it".into())
            }
            Error::Record(ebb_record::Error::Damaged { .. }) => {
                Some("nothing else was touched: restore the file from a copy".into())
            }
            Error::Record(ebb_record::Error::NoState { .. }) => {
                Some("`ebb states RUN` lists the states of a run".into())
            }
            _ => None,
        }
    }

    /// The same for an error in a run whose directory is there.
    fn remedy_in(&self, run: &std::path::Path) -> Option<String> {
        let run = crate::out::quoted(run);
        match self {
            Error::Learn(
                ebb_learn::Error::Interrupted { .. } | ebb_learn::Error::TuneStopped { .. },
            ) => None,
            Error::Learn(ebb_learn::Error::Diverged { .. }) => Some(format!(
                "the run is kept: `ebb report {run}` shows how it went; to try again, \
                 `ebb learn {run}/recipe.toml --set train.lr=…` (going on with it would end alike)"
            )),
            Error::Learn(
                ebb_learn::Error::Record(ebb_record::Error::Damaged { .. })
                | ebb_learn::Error::Checkpoint { .. },
            ) => Some(format!(
                "nothing else was touched: restore the file from a copy, or start again with \
                 `ebb learn {run}/recipe.toml`"
            )),
            // The message says itself what to do.
            Error::Learn(ebb_learn::Error::Record(
                ebb_record::Error::DiskFull { .. } | ebb_record::Error::Locked { .. },
            )) => None,
            _ => Some(format!(
                "the run is kept: once the cause is gone, `ebb resume {run}` goes on"
            )),
        }
    }
}
