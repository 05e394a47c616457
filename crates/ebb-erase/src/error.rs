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
    /// The user stopped the work.
    #[error("stopped; the run is as it was")]
    Stopped,
    /// An error of training.
    #[error(transparent)]
    Learn(#[from] ebb_learn::Error),
    /// An error of the run directory.
    #[error(transparent)]
    Record(#[from] ebb_record::Error),
    /// An error of the algebra.
    #[error(transparent)]
    Space(#[from] ebb_space::Error),
}
