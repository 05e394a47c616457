//! What can go wrong.

use std::path::PathBuf;

/// The result of an operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A run that nothing can be erased from as it is.
    #[error("nothing can be erased from the run `{path}`: {reason}", path = path.display())]
    Run {
        /// The run.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// A method that is unknown, or settings that make no sense.
    #[error("{reason}")]
    Method {
        /// What is wrong and what would be right.
        reason: String,
    },
    /// Weights that are no numbers came out.
    #[error(
        "`{method}` came to weights that are no numbers after {steps} steps: nothing was changed; \
         take a lower rate or fewer steps"
    )]
    Diverged {
        /// The method.
        method: &'static str,
        /// Steps made by then.
        steps: u64,
    },
    /// An office whose files do not fit together.
    #[error("the office at `{path}` cannot be used: {reason}", path = path.display())]
    Office {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A request that cannot be gone on with.
    #[error("{reason}")]
    Request {
        /// Why, and what to do.
        reason: String,
    },
    /// The operating system refused something.
    #[error("cannot {action} `{path}`: {source}", path = path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The user stopped the work.
    #[error("stopped; the run is as it was")]
    Stopped,
    /// An error of training.
    #[error(transparent)]
    Learn(#[from] ebb_learn::Error),
    /// An error of the run directory.
    #[error(transparent)]
    Record(#[from] ebb_record::Error),
    /// An error of a request or a certificate.
    #[error(transparent)]
    Revise(#[from] ebb_revise::Error),
    /// An error of the algebra.
    #[error(transparent)]
    Space(#[from] ebb_space::Error),
}
