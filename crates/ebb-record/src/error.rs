use std::path::{Path, PathBuf};

use crate::disk::Operation;

/// What can go wrong in this crate. Every message says what happened and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("cannot {action} `{path}`: {source}", path = path.display())]
    Io {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason given by the operating system.
        source: std::io::Error,
    },
    /// No space is left.
    #[error(
        "the disk is full: `{path}`{size} could not be written. Nothing that was already written \
         is lost: free some space, then run `ebb resume` on the run",
        path = path.display(),
        size = size(*bytes)
    )]
    DiskFull {
        /// The file that could not be written.
        path: PathBuf,
        /// How many bytes it was to receive; 0 where that is not known.
        bytes: u64,
    },
    /// The directory holds something already.
    #[error(
        "`{path}` is not empty and a run never overwrites: choose another directory with `-o`, \
         or continue the run that is there with `ebb resume`",
        path = path.display()
    )]
    RunExists {
        /// The directory asked for.
        path: PathBuf,
    },
    /// The directory is no run.
    #[error(
        "`{path}` is not a run: it has no `{missing}`. Give the directory that `ebb learn` wrote",
        path = path.display()
    )]
    NotARun {
        /// The directory given.
        path: PathBuf,
        /// The file that every run has.
        missing: &'static str,
    },
    /// The run was created and stopped before it recorded anything.
    #[error(
        "the run has no `start` record yet, so there is nothing to read: run `ebb resume` on it"
    )]
    NotBegun,
    /// Another process writes this run.
    #[error(
        "the run `{path}` is in use by process {pid}: wait for it or stop it, then try again",
        path = path.display()
    )]
    Locked {
        /// The run directory.
        path: PathBuf,
        /// The process that holds the lock; 0 if it did not say.
        pid: u32,
    },
    /// The file was written by a newer program.
    #[error(
        "`{path}` has format version {found}, this program reads up to {supported}: use a newer \
         `ebb`, nothing was changed",
        path = path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that this program reads.
        supported: u32,
    },
    /// The file is not what was written.
    #[error("`{path}` is damaged: {what}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do where there is something to do.
        what: String,
    },
    /// A tensor of a weights file does not fit.
    #[error("`{path}`, tensor `{tensor}`: {problem}", path = path.display())]
    Tensor {
        /// The weights file.
        path: PathBuf,
        /// The path of the tensor.
        tensor: String,
        /// What does not fit.
        problem: TensorProblem,
    },
    /// No such state, or its bytes were removed.
    #[error("the run has no state `{id}`: {why}")]
    NoState {
        /// The state asked for.
        id: String,
        /// Whether it never was or was purged.
        why: &'static str,
    },
    /// HEAD cannot be purged.
    #[error(
        "state `{id}` is HEAD, the run's present self, and cannot be purged: commit another state \
         first, or delete the run directory"
    )]
    PurgeHead {
        /// The state asked for.
        id: String,
    },
    /// A name that cannot be a file of a state.
    #[error(
        "`{name}` cannot be the name of a file in a state: use a plain name other than `state.json`"
    )]
    BadName {
        /// The name given.
        name: String,
    },
    /// The run was to be finished with records that no state covers.
    #[error(
        "the run cannot be finished: {what} were written after the last committed state; commit \
         a state after the last record"
    )]
    Uncommitted {
        /// Which log runs ahead.
        what: &'static str,
    },
    /// A metric has no value on what was recorded.
    #[error("{metric} has no value here: {why}")]
    Undefined {
        /// The metric.
        metric: String,
        /// What is missing.
        why: String,
    },
    /// Counts or indices that cannot be.
    #[error("this evaluation cannot be recorded: {0}")]
    Evaluation(String),
    /// Runs that must not be averaged together.
    #[error("these runs cannot be put together: {0}")]
    Mixed(String),
    /// A ledger is not the one that was written.
    #[error(
        "the ledger `{path}` cannot be trusted: {problem}. Nothing was changed: keep it as \
         evidence, and compare it with a copy",
        path = path.display()
    )]
    Ledger {
        /// Its directory.
        path: PathBuf,
        /// What was found.
        problem: crate::ledger::Problem,
    },
    /// A text that cannot be what it is read as.
    #[error("`{text}` is not {expected}")]
    Unreadable {
        /// What it should be.
        expected: &'static str,
        /// Its beginning.
        text: String,
    },
    /// A key file that cannot be used.
    #[error("the key `{path}` is refused: {why}", path = path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// An error of the ground floor.
    #[error(transparent)]
    Space(#[from] ebb_space::Error),
    /// A deliberate stop for tests.
    #[error("stopped on purpose after `{operation:?}` of `{path}`", path = path.display())]
    Fault {
        /// After what.
        operation: Operation,
        /// On what.
        path: PathBuf,
    },
}

/// What does not fit about one tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorProblem {
    /// The file lacks it.
    #[error("the file does not have it; the network needs shape {expected:?}")]
    Missing {
        /// The shape needed.
        expected: Vec<usize>,
    },
    /// The network lacks it.
    #[error("the network has no such tensor: the file belongs to another network")]
    Extra,
    /// Another shape.
    #[error("shape {found:?} where the network needs {expected:?}")]
    Shape {
        /// The shape needed.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// Another element type.
    #[error("elements of type {found} where F32 is needed: convert the file")]
    Type {
        /// The type in the file.
        found: String,
    },
    /// NaN or infinity.
    #[error("element {index} is {value}, not a finite number")]
    NotFinite {
        /// Index of the first such element in row-major order.
        index: usize,
        /// `NaN`, `inf` or `-inf`.
        value: String,
    },
}

/// The result of a fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn size(bytes: u64) -> String {
    if bytes == 0 {
        String::new()
    } else {
        format!(" ({bytes} bytes)")
    }
}

impl Error {
    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Error {
        Error::Damaged {
            path: path.into(),
            what: what.into(),
        }
    }

    pub(crate) fn unreadable(expected: &'static str, text: &str) -> Error {
        Error::Unreadable {
            expected,
            text: text.chars().take(80).collect(),
        }
    }

    pub(crate) fn secret(path: &Path, why: impl Into<String>) -> Error {
        Error::Secret {
            path: path.into(),
            why: why.into(),
        }
    }

    pub(crate) fn undefined(metric: impl Into<String>, why: impl Into<String>) -> Error {
        Error::Undefined {
            metric: metric.into(),
            why: why.into(),
        }
    }
}

/// Turns an operating system error into ours, naming the path.
pub(crate) trait At<T> {
    /// For reading and for operations that take no space.
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
    /// For writing `bytes` bytes: a full disk gets its own message.
    fn writing(self, path: &Path, bytes: u64) -> Result<T>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io {
            action,
            path: path.into(),
            source,
        })
    }

    fn writing(self, path: &Path, bytes: u64) -> Result<T> {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        self.map_err(|source| match source.kind() {
            StorageFull | QuotaExceeded => Error::DiskFull {
                path: path.into(),
                bytes,
            },
            _ => Error::Io {
                action: "write",
                path: path.into(),
                source,
            },
        })
    }
}

/// Checks a format version read from `path`.
pub(crate) fn supported(path: &Path, found: u32, supported: u32) -> Result<()> {
    if found > supported {
        return Err(Error::Newer {
            path: path.into(),
            found,
            supported,
        });
    }
    Ok(())
}
