use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong in this crate. Every message says what happened and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("cannot {action} `{path}`: {source}", path = path.display())]
    Io {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The reason given by the operating system.
        source: io::Error,
    },
    /// A file that a model needs is not there.
    #[error("`{path}` has no {what}", path = path.display())]
    Missing {
        /// The folder or file.
        path: PathBuf,
        /// What is not there, and what to do.
        what: String,
    },
    /// A file is not what its name says, was cut short, or contradicts itself.
    #[error("`{path}` is damaged: {what}. Copy or download it again", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A file is whole and holds something that this program does not read.
    #[error("`{path}` cannot be used: {what}", path = path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it holds, and what to do.
        what: String,
    },
    /// A tensor is missing, of another shape, or of a type that is not read.
    #[error("tensor `{tensor}` of `{path}`: {what}", path = path.display())]
    Tensor {
        /// The file or folder.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What is wrong with it.
        what: String,
    },
    /// Something is in the way of what is to be written.
    #[error(
        "`{path}` is there already and nothing is overwritten: choose another folder or remove it",
        path = path.display()
    )]
    Exists {
        /// The folder asked for.
        path: PathBuf,
    },
    /// Text could not be turned into tokens, or tokens into text.
    #[error("the tokenizer refused its input: {0}")]
    Tokenize(String),
    /// A chat template could not be read or refused the conversation.
    #[error("the chat template {0}")]
    Template(String),
    /// Somebody asked to stop.
    #[error("stopped: nothing was written")]
    Stopped,
    /// Two things that should fit do not.
    #[error("{0}")]
    Mismatch(String),
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn missing(path: &Path, what: impl Into<String>) -> Error {
        Error::Missing {
            path: path.into(),
            what: what.into(),
        }
    }

    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Error {
        Error::Damaged {
            path: path.into(),
            what: what.into(),
        }
    }

    pub(crate) fn unsupported(path: &Path, what: impl Into<String>) -> Error {
        Error::Unsupported {
            path: path.into(),
            what: what.into(),
        }
    }

    pub(crate) fn tensor(path: &Path, tensor: &str, what: impl Into<String>) -> Error {
        Error::Tensor {
            path: path.into(),
            tensor: tensor.into(),
            what: what.into(),
        }
    }
}

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
