//! What can go wrong with a study, and what to do about it.

use std::path::PathBuf;

/// An error of a study file, a run or a verdict. A claim that does not hold is no error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A study file that cannot be used.
    #[error("the study {id} cannot be used: {reason}")]
    Study {
        /// The study, or the file's name where it has no id.
        id: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A clause that cannot be read.
    #[error("the clause `{clause}` cannot be read: {reason}")]
    Clause {
        /// Its text.
        clause: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// A test whose level cannot be reached.
    #[error(
        "the clause `{clause}` tests at {level}, but with {seeds} seeds the least p is {least:.4}: \
         give it at least {needed} seeds"
    )]
    Unreachable {
        /// Its text.
        clause: String,
        /// The level asked for.
        level: f64,
        /// Seeds the study has.
        seeds: usize,
        /// The least p they can give.
        least: f64,
        /// Seeds that can reach the level.
        needed: usize,
    },
    /// A number that a run does not have.
    #[error("the arm `{arm}` has no measure `{measure}`: {reason}")]
    NoMeasure {
        /// The arm.
        arm: String,
        /// What was asked for.
        measure: String,
        /// Why it has none.
        reason: String,
    },
    /// Two numbers that must not be compared.
    #[error(
        "`{measure}` was measured by different protocols in this clause: `{left}` and `{right}`"
    )]
    Protocols {
        /// The measure.
        measure: String,
        /// One protocol.
        left: String,
        /// The other.
        right: String,
    },
    /// One run of an arm failed.
    #[error("the arm `{arm}` failed with seed {seed}: {source}")]
    Run {
        /// The arm.
        arm: String,
        /// The seed.
        seed: u64,
        /// Why.
        source: Box<ebb_learn::Error>,
    },
    /// No study of that name.
    #[error("there is no study `{id}`; known are {known}")]
    Unknown {
        /// What was asked for.
        id: String,
        /// What there is.
        known: String,
    },
    /// Stopped by the user.
    #[error("stopped; a study keeps nothing of an unfinished run, so start it again")]
    Stopped,
    /// A verdict that cannot be read.
    #[error("{path}: this verdict cannot be read: {reason}; run the study again to replace it")]
    Verdict {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Reading or writing a file failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An error of the data.
    #[error(transparent)]
    Data(#[from] ebb_data::Error),
    /// An error of erasing.
    #[error(transparent)]
    Erase(#[from] ebb_erase::Error),
    /// An error of a recipe or of training.
    #[error(transparent)]
    Learn(#[from] ebb_learn::Error),
    /// An error of the record.
    #[error(transparent)]
    Record(#[from] ebb_record::Error),
    /// An error of a statistic.
    #[error(transparent)]
    Space(#[from] ebb_space::Error),
    /// An error of a linear world.
    #[error(transparent)]
    World(#[from] crate::worlds::Error),
}

/// The result of this crate's operations.
pub type Result<T> = std::result::Result<T, Error>;
