//! What a page is drawn from: plain values, so that a report can be made of anything that
//! fills them in. `record.rs` fills them from a run directory.

use ebb_space::Number;

/// One run (one recipe, one seed), as the report sees it.
///
/// A value that was not measured is `None`; a value that is not finite is treated as `None`.
/// Accuracies are fractions in `[0, 1]`.
#[derive(Clone, Debug, Default)]
pub struct RunData {
    /// Name of the run, usually its directory.
    pub name: String,
    /// The method in the field's words (`der++`).
    pub method: String,
    /// The data stream (`split MNIST, 5 experiences`).
    pub stream: String,
    /// `task`, `domain` or `class`.
    pub scenario: String,
    /// The network (`MLP 784-400-400-10`).
    pub network: String,
    /// The seed of this run.
    pub seed: u64,
    /// Identity of the recipe *without its seed*: runs that agree in it are one group.
    pub recipe_id: String,
    /// Whether the run came to its end.
    pub status: Status,
    /// The experiences in order of learning.
    pub experiences: Vec<Experience>,
    /// Names of the test sets; empty if there is one for each experience, named like it.
    pub sets: Vec<String>,
    /// Accuracy on test set `j` before any learning.
    pub initial: Vec<Option<f64>>,
    /// `matrix[i][j]`: accuracy after experience `i` on test set `j`.
    pub matrix: Vec<Vec<Option<f64>>>,
    /// Summary numbers with their intervals and protocols.
    pub numbers: Vec<Number>,
    /// What the run cost.
    pub cost: Cost,
    /// Accuracy at each evaluated step.
    pub curves: Curves,
    /// Recipe combinations that were refused by default and accepted by name.
    pub accepted: Vec<String>,
    /// How the numbers were taken: (choice, value).
    pub protocol: Vec<(String, String)>,
    /// The recipe as resolved (TOML).
    pub recipe: String,
    /// Versions, CPU, threads: (name, value).
    pub environment: Vec<(String, String)>,
    /// The chain of model states, oldest first.
    pub states: Vec<StateLink>,
}

/// One experience, as the report sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Experience {
    /// Its name.
    pub name: String,
    /// The test sets it teaches; `None` is the one of its own index.
    pub teaches: Option<Vec<usize>>,
}

impl Experience {
    /// An experience that teaches the test set of its own index.
    pub fn named(name: impl Into<String>) -> Experience {
        Experience {
            name: name.into(),
            teaches: None,
        }
    }
}

impl RunData {
    /// Whether experience `i` teaches test set `j`.
    pub fn teaches(&self, i: usize, j: usize) -> bool {
        match self.experiences.get(i).and_then(|e| e.teaches.as_ref()) {
            Some(sets) => sets.contains(&j),
            None => i == j,
        }
    }

    /// The test set that experience `i` teaches, if it is exactly one.
    pub(crate) fn teaches_only(&self, i: usize) -> Option<usize> {
        match self.experiences.get(i).and_then(|e| e.teaches.as_deref()) {
            Some([one]) => Some(*one),
            Some(_) => None,
            None => Some(i),
        }
    }

    /// Name of test set `j`; empty where it has none.
    pub fn set_name(&self, j: usize) -> &str {
        match self.sets.get(j) {
            Some(name) => name,
            None if self.sets.is_empty() => self.experience_name(j),
            None => "",
        }
    }

    /// Name of experience `i`; empty where it has none.
    pub fn experience_name(&self, i: usize) -> &str {
        self.experiences.get(i).map_or("", |e| &e.name)
    }
}

/// How far a run came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// It came to the end of its recipe.
    #[default]
    Finished,
    /// It is still running or was stopped; the text says where.
    Unfinished(String),
}

/// What a run cost; `None` where it was not measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Seconds spent in training, without evaluation and saving.
    pub train_seconds: Option<f64>,
    /// Seconds from start to end.
    pub total_seconds: Option<f64>,
    /// Optimizer steps.
    pub steps: Option<u64>,
    /// Calls of the gradient oracle.
    pub gradient_calls: Option<u64>,
    /// Rows that went forward through the network.
    pub forward_rows: Option<u64>,
    /// Rows that went backward.
    pub backward_rows: Option<u64>,
    /// Bytes of the replay memory.
    pub memory_bytes: Option<u64>,
    /// Peak resident set of the process in bytes.
    pub peak_rss_bytes: Option<u64>,
}

impl Cost {
    /// Optimizer steps in a second of training.
    pub fn steps_per_second(&self) -> Option<f64> {
        match (self.steps, self.train_seconds) {
            (Some(steps), Some(seconds)) if seconds > 0.0 && seconds.is_finite() => {
                Some(steps as f64 / seconds)
            }
            _ => None,
        }
    }
}

/// Per-iteration evaluation of a fixed panel of each test set.
#[derive(Clone, Debug, Default)]
pub struct Curves {
    /// Steps at which the panel was evaluated, increasing.
    pub steps: Vec<u64>,
    /// `sets[j][k]`: accuracy on test set `j` at `steps[k]`.
    pub sets: Vec<Vec<Option<f64>>>,
    /// First step of each experience (`starts[0]` is usually 0).
    pub starts: Vec<u64>,
}

/// One link in the chain of model states.
#[derive(Clone, Debug, Default)]
pub struct StateLink {
    /// Identity of the state.
    pub id: String,
    /// The state it was made from.
    pub parent: Option<String>,
    /// What made it (`learn`, `edit`, `erase`, `merge`).
    pub verb: String,
    /// Where in the run it was made (`after experience 2, step 400`).
    pub at: String,
    /// Whether HEAD points to it.
    pub head: bool,
}

/// A value if it is there and finite.
pub(crate) fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|v| v.is_finite())
}
