//! The one error type of this crate.

use std::path::{Path, PathBuf};

/// What can go wrong with data, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file or a download does not have the form it should have.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// The file, member or page.
        what: String,
        /// The first thing found wrong.
        why: String,
    },
    /// A file has the right form and other bytes than were published or recorded.
    #[error(
        "{} is damaged: its {algorithm} is {found}, expected {expected}; run `ebb data fetch {dataset}` to fetch it again",
        path.display()
    )]
    Checksum {
        /// The file.
        path: PathBuf,
        /// The dataset that it belongs to.
        dataset: String,
        /// `md5` or `blake3`.
        algorithm: &'static str,
        /// The published or recorded digest, in hexadecimal.
        expected: String,
        /// The digest of what is there.
        found: String,
    },
    /// Every source of a dataset failed.
    #[error("{dataset} could not be fetched; tried:\n{}\n{remedy}", bullets(tried))]
    Unreachable {
        /// The dataset.
        dataset: String,
        /// A line for every source: what was tried and why it failed.
        tried: Vec<String>,
        /// What the user can do.
        remedy: String,
    },
    /// A dataset of the catalogue is not on this machine yet.
    #[error("{dataset} is not in {} ({missing} is missing); run `ebb data fetch {dataset}`", dir.display())]
    NotFetched {
        /// The dataset.
        dataset: String,
        /// The first file that is missing.
        missing: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// No dataset has this name.
    #[error(
        "there is no dataset \"{name}\"; known are {known}, or the path of a .safetensors file with the tensors x and y"
    )]
    UnknownDataset {
        /// What was asked for.
        name: String,
        /// The names in the catalogue.
        known: String,
    },
    /// There is nothing to fetch for this name.
    #[error("{0} is part of the program and needs no fetching")]
    Embedded(String),
    /// No data directory can be found.
    #[error("no home directory is known; set EBB_DATA to the folder that should hold the data")]
    NoDataDir,
    /// A value in a dataset is not usable.
    #[error("dataset {dataset}: {what}")]
    BadData {
        /// The dataset.
        dataset: String,
        /// Which value, where, and what to do.
        what: String,
    },
    /// A field of a stream's description has a value that cannot work.
    #[error("stream: {field}: {why}")]
    BadStream {
        /// The field as it is written in a recipe.
        field: &'static str,
        /// Why, and what would work.
        why: String,
    },
    /// An experience of a stream would hold no example.
    #[error("stream: experience {index} ({name}) has no {part} example: {why}")]
    EmptyExperience {
        /// Its number, from 0.
        index: usize,
        /// Its name.
        name: String,
        /// `training` or `test`.
        part: &'static str,
        /// Where the examples went, and what to change.
        why: String,
    },
    /// A request for a linear world cannot be met.
    #[error("linear world: {0}")]
    BadWorld(String),
}

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

fn bullets(lines: &[String]) -> String {
    lines
        .iter()
        .map(|line| format!("  - {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    }

    pub(crate) fn malformed(what: impl Into<String>, why: impl Into<String>) -> Error {
        Error::Malformed {
            what: what.into(),
            why: why.into(),
        }
    }

    pub(crate) fn stream(field: &'static str, why: impl Into<String>) -> Error {
        Error::BadStream {
            field,
            why: why.into(),
        }
    }
}
