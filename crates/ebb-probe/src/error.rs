use std::path::PathBuf;

/// What can go wrong in this crate. Every message says what happened and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Some examples have no value for some task.
    #[error(
        "{columns} of {of} examples lack a value for some task, the first of them `{first}`: \
         remove them first (`without_gaps`), which keeps a map back"
    )]
    Gaps {
        /// How many.
        columns: usize,
        /// Of how many.
        of: usize,
        /// The first of them.
        first: String,
    },
    /// Too few columns of the new row are known.
    #[error(
        "{known} known examples are too few to fill in a row: measure at least {needed} \
         (30 is the usual number)"
    )]
    FewKnown {
        /// How many are known.
        known: usize,
        /// How many are needed.
        needed: usize,
    },
    /// What is said to be known of a row cannot be.
    #[error("what is known of the new task does not fit the matrix: {0}")]
    BadKnown(String),
    /// The matrix belongs to another way of fine-tuning.
    #[error(
        "the matrix was made with the fine-tuning recipe {matrix:.12}, not with {asked:.12}: a \
         forecast holds for its own recipe alone; build a matrix for this one, or fine-tune as \
         the matrix did"
    )]
    OtherRecipe {
        /// The hash the matrix has.
        matrix: String,
        /// The hash it was to have.
        asked: String,
    },
    /// The matrix belongs to another base model.
    #[error(
        "the matrix was measured from the base model {matrix:.12}, not from {asked:.12}: build a \
         matrix for this model"
    )]
    OtherBase {
        /// The weights hash the matrix has.
        matrix: String,
        /// The hash it was to have.
        asked: String,
    },
    /// Numbers that do not make a table.
    #[error("this is no table of tasks and examples: {0}")]
    Shape(String),
    /// The matrix holds no answers, right or wrong.
    #[error(
        "the matrix does not say which answers turned wrong: build it with `ebb forecast build`, \
         or give a file whose values are 0 and 1"
    )]
    NoFlips,
    /// A split into rows to fit and rows to forecast that cannot be.
    #[error("these rows cannot be split so: {0}")]
    Split(String),
    /// Too few rows for an interval of this level.
    #[error(
        "{rows} calibration tasks cannot hold {level} of new ones: that needs at least {needed}; \
         set more tasks aside, or ask for a lower level"
    )]
    FewCalibration {
        /// How many there are.
        rows: usize,
        /// How many it takes.
        needed: usize,
        /// The level asked for.
        level: f64,
    },
    /// A draw with weights that cannot be drawn from.
    #[error("nothing can be drawn with these weights: {0}")]
    Weights(String),
    /// A line of a CSV file.
    #[error("`{path}`, line {line}: {reason}", path = path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what is expected.
        reason: String,
    },
    /// A file that cannot be read or written.
    #[error("cannot {action} `{path}`: {source}", path = path.display())]
    Io {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason given by the operating system.
        source: std::io::Error,
    },
    /// A file that is not what was written.
    #[error("`{path}` is not usable: {what}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A request that cannot be met, with what to do.
    #[error("{0}")]
    Request(String),
    /// An error of the training loop.
    #[error(transparent)]
    Learn(#[from] ebb_learn::Error),
    /// An error of the data.
    #[error(transparent)]
    Data(#[from] ebb_data::Error),
    /// An error of the records.
    #[error(transparent)]
    Record(#[from] ebb_record::Error),
    /// An error of the ground floor.
    #[error(transparent)]
    Space(#[from] ebb_space::Error),
}

/// The result of a fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
