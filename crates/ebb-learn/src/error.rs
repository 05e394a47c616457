//! What can go wrong while learning, and what to do about it.

use ebb_space::Layout;
use std::path::PathBuf;

/// An error of a recipe, a run or a method.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A recipe that cannot be read or makes no sense.
    #[error("the recipe cannot be used: {reason}")]
    Recipe {
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A combination that is known not to do what its user wants.
    #[error(
        "refused: {reason}\n  If that is what you want to see, say so in the recipe: accept = [\"{name}\"]"
    )]
    Refused {
        /// The name that accepts it.
        name: &'static str,
        /// Why.
        reason: String,
    },
    /// No method of that name.
    #[error(
        "there is no method called `{name}`; did you mean `{nearest}`? `ebb methods` lists all"
    )]
    UnknownMethod {
        /// What was asked for.
        name: String,
        /// The nearest name.
        nearest: String,
    },
    /// The loss is not a number any more.
    #[error(
        "the loss is not a finite number at step {step} (experience {}), in the term `{term}`: training diverged. \
         Everything up to the last checkpoint is kept; lower the learning rate (it was {lr}) or set `train.clip`", experience + 1
    )]
    Diverged {
        /// The step.
        step: u64,
        /// The experience.
        experience: usize,
        /// The learning rate.
        lr: f64,
        /// The term of the objective.
        term: String,
    },
    /// An experience without examples.
    #[error(
        "experience {index} (`{name}`) has no training examples: check the stream's classes and `per-experience`"
    )]
    EmptyExperience {
        /// Which one.
        index: usize,
        /// Its name.
        name: String,
    },
    /// A checkpoint that does not fit its run.
    #[error("{path}: this checkpoint cannot be used: {reason}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Stopped by the user; everything is saved.
    #[error("stopped at step {step}; `ebb resume {run}` goes on from there")]
    Interrupted {
        /// The step.
        step: u64,
        /// The run directory.
        run: String,
    },
    /// Reading or writing a file failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A search for hyper-parameters that cannot be made, or came to nothing.
    #[error("{reason}")]
    Tune {
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A search stopped by the user.
    #[error("stopped; {runs} runs of the search are finished")]
    TuneStopped {
        /// Runs that came to an end.
        runs: usize,
    },
    /// A list of records to pass over that cannot be used.
    #[error(
        "the list of records to leave out, `{path}`, cannot be used: {reason}; restore it from a \
         copy: without it the run would learn what it must not", path = path.display()
    )]
    Without {
        /// The list.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An error of the data.
    #[error(transparent)]
    Data(#[from] ebb_data::Error),
    /// An error of the memory.
    #[error(transparent)]
    Memory(#[from] ebb_memory::Error),
    /// An error of the network.
    #[error(transparent)]
    Net(#[from] ebb_net::Error),
    /// An error of the run directory.
    #[error(transparent)]
    Record(#[from] ebb_record::Error),
    /// An error of a language model.
    #[error(transparent)]
    Language(#[from] ebb_lm::Error),
    /// An error of texts.
    #[error(transparent)]
    Text(#[from] ebb_text::Error),
    /// An error of a language model's files.
    #[error(transparent)]
    Hub(#[from] ebb_hub::Error),
    /// An error of the algebra.
    #[error(transparent)]
    Space(#[from] ebb_space::Error),
}

impl Error {
    pub(crate) fn no_such_path(pattern: &str, layout: &Layout) -> Self {
        let some: Vec<&str> = layout
            .entries()
            .iter()
            .take(6)
            .map(|e| e.path.as_str())
            .collect();
        Error::Recipe {
            reason: format!(
                "no parameter matches `{pattern}`; the network has {}, …",
                some.join(", ")
            ),
        }
    }
}

/// The result of this crate's operations.
pub type Result<T> = std::result::Result<T, Error>;
