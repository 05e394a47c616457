//! `summary.json`: what a run came to, in one small file.

use std::path::Path;

use ebb_space::Number;
use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::error::Result;
use crate::gap::Gap;
use crate::json::{read_json, to_json};
use crate::panel::Answer;
use crate::records::{Cost, ExperienceInfo, Record, StateRecord};
use crate::replay::Replay;

/// The newest version of `summary.json` that this program reads.
pub const SUMMARY_VERSION: u32 = 1;

/// What a run came to. Accuracies are fractions; what was not measured is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Version of the format.
    pub format_version: u32,
    /// Whether the run came to its end.
    pub finished: bool,
    /// Name of the run.
    pub run: String,
    /// BLAKE3 of the recipe as resolved.
    pub recipe_hash: String,
    /// The same without the seed: runs that agree in it are one group.
    pub recipe_id: String,
    /// Version of the program.
    pub code_version: String,
    /// The seed.
    pub seed: u64,
    /// The method in the field's words.
    pub method: String,
    /// The stream in words.
    pub stream: String,
    /// The network in words.
    pub network: String,
    /// `task`, `domain` or `class`.
    pub scenario: String,
    /// What test accuracies are of.
    pub protocol: String,
    /// Combinations refused by default and accepted by name.
    pub accepted: Vec<String>,
    /// Names of the experiences, in order.
    pub experiences: Vec<String>,
    /// Names of the test sets, in order.
    pub sets: Vec<String>,
    /// Examples of each test set.
    pub set_sizes: Vec<Option<u64>>,
    /// `matrix[i][j]`: accuracy on test set `j` after experience `i`.
    pub matrix: Vec<Vec<Option<f64>>>,
    /// Accuracy on test set `j` before any learning.
    pub initial: Vec<Option<f64>>,
    /// Mean loss on test set `j` in the newest row of the matrix.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<Option<f64>>,
    /// `loss_rows[i][j]`: mean loss on test set `j` after experience `i`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loss_rows: Vec<Vec<Option<f64>>>,
    /// Every metric that has a value, over the last row and over the panel.
    pub numbers: Vec<Number>,
    /// What each switch did to each earlier test set.
    pub gaps: Vec<Gap>,
    /// What it cost.
    pub cost: Cost,
    /// Accuracy at each evaluated step.
    pub curves: Curves,
    /// The states made, oldest first.
    pub states: Vec<StateRecord>,
    /// Id of the last of them.
    pub head: Option<String>,
}

/// Accuracy on the panels over the steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Curves {
    /// Steps at which panels were evaluated, ascending.
    pub steps: Vec<u64>,
    /// `sets[j][k]`: accuracy on test set `j` at `steps[k]`.
    pub sets: Vec<Vec<Option<f64>>>,
    /// The experience in training at `steps[k]`.
    pub experiences: Vec<usize>,
    /// The step at which each experience begins.
    pub starts: Vec<u64>,
}

/// A summary draws at most about this many points a curve.
const POINTS: usize = 4096;
/// So many evaluations after a switch are always kept: that is where the gap is.
const AFTER_A_SWITCH: usize = 128;

impl Curves {
    pub(crate) fn new(sets: usize) -> Curves {
        Curves {
            sets: vec![Vec::new(); sets],
            ..Curves::default()
        }
    }

    pub(crate) fn push(&mut self, step: u64, experience: usize, answers: &[Answer]) {
        if self.experiences.last() != Some(&experience) {
            self.starts.push(step);
        }
        self.steps.push(step);
        self.experiences.push(experience);
        self.sets.iter_mut().for_each(|curve| curve.push(None));
        for answer in answers {
            if let Some(last) = self.sets.get_mut(answer.set).and_then(|set| set.last_mut()) {
                *last = Some(answer.cell.accuracy());
            }
        }
    }

    /// Fewer points: every evaluation near a switch, every so many elsewhere, and the last.
    #[must_use]
    pub fn thinned(&self) -> Curves {
        let n = self.steps.len();
        if n <= POINTS {
            return self.clone();
        }
        let stride = n.div_ceil(POINTS);
        let mut since = 0;
        let kept: Vec<usize> = (0..n)
            .filter(|&k| {
                let switched = k == 0 || self.experiences[k] != self.experiences[k - 1];
                since = if switched { 0 } else { since + 1 };
                since < AFTER_A_SWITCH || k % stride == 0 || k + 1 == n
            })
            .collect();
        Curves {
            steps: kept.iter().map(|&k| self.steps[k]).collect(),
            sets: self
                .sets
                .iter()
                .map(|set| kept.iter().map(|&k| set[k]).collect())
                .collect(),
            experiences: kept.iter().map(|&k| self.experiences[k]).collect(),
            starts: self.starts.clone(),
        }
    }
}

impl Summary {
    /// What these records come to.
    ///
    /// # Errors
    /// [`Error::NotBegun`](crate::Error::NotBegun) if they have no start,
    /// [`Error::Evaluation`](crate::Error::Evaluation) for an impossible evaluation.
    pub fn from_records(records: &[Record]) -> Result<Summary> {
        Ok(Summary::of(Replay::of(records)?))
    }

    /// What a replay came to.
    pub fn of(mut replay: Replay) -> Summary {
        let start = std::mem::take(&mut replay.start);
        let last = replay.matrix.last();
        let mut numbers = last.map_or(Vec::new(), |k| replay.matrix.numbers(k));
        numbers.extend(replay.panel.numbers());
        if let Some(k) = last {
            let curriculum = replay.matrix.curriculum();
            numbers.extend(crate::answers::numbers(&replay.answers, curriculum, k));
        }
        let names: Vec<String> = start.experiences.iter().map(name).collect();
        let sets = if start.sets.is_empty() {
            names.clone()
        } else {
            start.sets
        };
        let rows = || std::iter::once(None).chain((0..names.len()).map(Some));
        let size = |set| {
            rows()
                .find_map(|row| replay.matrix.get(row, set))
                .map(|cell| cell.n)
        };
        Summary {
            format_version: SUMMARY_VERSION,
            finished: replay.ended,
            run: start.run,
            recipe_hash: start.recipe_hash,
            recipe_id: start.recipe_id,
            code_version: start.code_version,
            seed: start.seed,
            method: start.method,
            stream: start.stream,
            network: start.network,
            scenario: start.scenario,
            protocol: start.protocol,
            accepted: start.accepted,
            set_sizes: (0..sets.len()).map(size).collect(),
            sets,
            matrix: replay.matrix.accuracies(),
            initial: replay.matrix.initial_accuracies(),
            losses: replay.losses,
            loss_rows: replay.loss_rows,
            experiences: names,
            numbers,
            gaps: replay.panel.gaps().to_vec(),
            cost: replay.cost,
            curves: replay.curves.thinned(),
            head: replay.states.last().map(|state| state.id.clone()),
            states: replay.states,
        }
    }

    /// Reads a summary.
    ///
    /// # Errors
    /// [`Error::Newer`](crate::Error::Newer), [`Error::Damaged`](crate::Error::Damaged),
    /// [`Error::Io`](crate::Error::Io).
    pub fn load(path: &Path) -> Result<Summary> {
        read_json(path, SUMMARY_VERSION)
    }

    /// Writes a summary, atomically.
    ///
    /// # Errors
    /// [`Error::DiskFull`](crate::Error::DiskFull), [`Error::Io`](crate::Error::Io).
    pub fn save(&self, path: &Path) -> Result<()> {
        Disk::default().replace(path, &to_json(path, self)?)
    }

    /// The number called `name`.
    pub fn number(&self, name: &str) -> Option<&Number> {
        self.numbers.iter().find(|number| number.name == name)
    }
}

fn name(experience: &ExperienceInfo) -> String {
    if experience.name.is_empty() {
        format!("experience {}", experience.index)
    } else {
        experience.name.clone()
    }
}
