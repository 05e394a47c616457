use std::io;
use std::path::{Path, PathBuf};

use ebb_space::ExampleId;

use crate::example::Place;

/// What can go wrong in this crate. Every message says what happened, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("cannot {action} `{path}`: {source}", path = path.display())]
    Io {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason given by the operating system.
        source: io::Error,
    },
    /// A file as a whole cannot be read.
    #[error("`{path}` cannot be read: {what}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// One record of a file is not what it should be.
    #[error("{place}: {what}")]
    Record {
        /// The file and the line or row.
        place: Place,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// An example cannot be turned into tokens.
    #[error("{example}: {what}")]
    Example {
        /// Where the example came from, or its id.
        example: String,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// A sequence does not fit.
    #[error(
        "{example}: {tokens} tokens are more than the {length} that fit: allow longer sequences, \
         choose to cut or to split, or remove it"
    )]
    TooLong {
        /// Where the example came from, or its id.
        example: String,
        /// How many tokens it has.
        tokens: usize,
        /// How many fit.
        length: usize,
    },
    /// Sequences for one pack that are longer than its rows.
    #[error("sequence {id} has {tokens} tokens and rows have {length}: encode it for that length")]
    Row {
        /// The example.
        id: ExampleId,
        /// How many tokens it has.
        tokens: usize,
        /// How many fit.
        length: usize,
    },
    /// A setting that means nothing.
    #[error("{0}")]
    Setting(String),
    /// Logits or tokens of which a measure cannot be taken.
    #[error("this cannot be measured: {0}")]
    Measure(String),
    /// From the tokenizer or the chat template.
    #[error(transparent)]
    Hub(#[from] ebb_hub::Error),
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Says which file an error of the operating system is about.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io {
            action,
            path: path.into(),
            source,
        })
    }
}
