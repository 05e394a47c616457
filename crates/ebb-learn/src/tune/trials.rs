//! `trials.json`: every trial of a search, the failed ones too.

use crate::error::{Error, Result};
use ebb_record::{Cost, Disk};
use ebb_space::Direction;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;

/// The newest version of `trials.json` that this program reads.
pub const TRIALS_VERSION: u32 = 1;

/// A search: what it looked at, what it tried, what it chose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trials {
    /// Version of the format.
    pub format_version: u32,
    /// Version of the program.
    pub code_version: String,
    /// BLAKE3 of the recipe before anything was chosen, its seed included.
    pub recipe_hash: String,
    /// What the recipe is called.
    pub label: String,
    /// `best` or `stability-decay`.
    pub rule: String,
    /// The number the rule looks at, on the held-out examples.
    pub measure: String,
    /// Which way it is better; unknown until a run has ended.
    pub direction: Option<Direction>,
    /// Stability decay: the share of the best that may be lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Experiences looked at.
    pub first: usize,
    /// Experiences of the stream.
    pub experiences: usize,
    /// The share of their training examples that was held out to measure on.
    pub validation: f64,
    /// Examples learned from, over all experiences looked at.
    pub train_examples: usize,
    /// Examples measured on.
    pub validation_examples: usize,
    /// BLAKE3 of which examples these were.
    pub examples_hash: String,
    /// Seeds of the runs of each trial; none is the recipe's own.
    pub seeds: Vec<u64>,
    /// Trials begun, those of earlier searches in the same place included.
    pub n_trials: usize,
    /// Their runs.
    pub n_runs: usize,
    /// Runs that diverged.
    pub n_failed: usize,
    /// Seconds that the runs took together.
    pub seconds: f64,
    /// What they cost together; diverged runs have no cost but their seconds.
    pub cost: Cost,
    /// What was chosen; none before the search has ended.
    pub chosen: Option<Chosen>,
    /// The trials in the order of the grid; then those of earlier grids, which count as well.
    pub trials: Vec<Trial>,
}

/// What a search came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chosen {
    /// The values, by key.
    pub settings: Map<String, Value>,
    /// The measure of its trial: the mean over the seeds.
    pub value: f64,
    /// The lowest of the seeds.
    pub lowest: f64,
    /// The highest of the seeds.
    pub highest: f64,
    /// Keys whose value lies at an end of its grid: a wider one might choose another.
    pub at_edge: Vec<String>,
    /// Stability decay: what fine-tuning reached and what was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay: Option<Decay>,
}

/// The two phases in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decay {
    /// The newest experience's accuracy by the best fine-tuning.
    pub plasticity: f64,
    /// The least that was asked for.
    pub threshold: f64,
    /// Whether it was reached; if not, the weakest strength that did not diverge was taken.
    pub reached: bool,
}

/// What a trial is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// One point of the grid.
    Grid,
    /// Fine-tuning: how well the newest experience can be learned.
    Plasticity,
    /// A strength of the method.
    Stability,
}

/// One combination of values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// What it is for.
    pub phase: Phase,
    /// The values, by key.
    pub settings: Map<String, Value>,
    /// BLAKE3 of its recipe without the seed.
    pub recipe_id: String,
    /// Mean of the measure over the seeds; none unless every run came to an end, since a mean over
    /// the survivors would flatter.
    pub value: Option<f64>,
    /// Its runs, by seed.
    pub runs: Vec<TrialRun>,
}

/// One run of a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialRun {
    /// Its seed.
    pub seed: u64,
    /// The measure.
    pub value: Option<f64>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Seconds it took.
    pub seconds: f64,
    /// What it cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

impl Trial {
    /// The values in words: `train.lr = 0.03, with.lambda = 10.0`.
    pub fn words(&self) -> String {
        words(&self.settings)
    }

    /// Why it has no value, if a run of it failed.
    pub fn failed(&self) -> Option<&str> {
        self.runs.iter().find_map(|run| run.failed.as_deref())
    }

    /// The lowest and the highest of its runs.
    pub fn spread(&self) -> Option<(f64, f64)> {
        let values = || self.runs.iter().filter_map(|run| run.value);
        Some((values().reduce(f64::min)?, values().reduce(f64::max)?))
    }
}

impl Trials {
    /// Reads a search.
    ///
    /// # Errors
    /// When the file is damaged or of a newer version.
    pub fn load(path: &Path) -> Result<Trials> {
        let bytes = std::fs::read(path).map_err(|source| Error::Io {
            path: path.to_owned(),
            source,
        })?;
        let damaged = |e: serde_json::Error| {
            Error::Record(ebb_record::Error::Damaged {
                path: path.to_owned(),
                what: format!("it is not as it was written ({e})"),
            })
        };
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let found = serde_json::from_slice::<Version>(&bytes).map_err(damaged)?;
        if found.format_version > TRIALS_VERSION {
            return Err(Error::Record(ebb_record::Error::Newer {
                path: path.to_owned(),
                found: found.format_version,
                supported: TRIALS_VERSION,
            }));
        }
        serde_json::from_slice(&bytes).map_err(damaged)
    }

    /// Writes it, atomically.
    ///
    /// # Errors
    /// When the disk is full or the place may not be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(self).map_err(|e| Error::Io {
            path: path.to_owned(),
            source: e.into(),
        })?;
        json.push(b'\n');
        Ok(Disk::default().replace(path, &json)?)
    }

    /// Counts what is there.
    pub(super) fn count(&mut self) {
        let runs = || self.trials.iter().flat_map(|trial| &trial.runs);
        let mut cost = Cost::default();
        for one in runs().filter_map(|run| run.cost) {
            let add = |sum: &mut Option<u64>, x: Option<u64>| {
                if let Some(x) = x {
                    *sum = Some(sum.unwrap_or(0) + x);
                }
            };
            add(&mut cost.steps, one.steps);
            add(&mut cost.forward_rows, one.forward_rows);
            add(&mut cost.backward_rows, one.backward_rows);
            add(&mut cost.gradient_calls, one.gradient_calls);
            // Held by one run after the other: the most, not the sum.
            cost.memory_bytes = cost.memory_bytes.max(one.memory_bytes);
            for (sum, x) in [
                (&mut cost.train_seconds, one.train_seconds),
                (&mut cost.total_seconds, one.total_seconds),
            ] {
                if let Some(x) = x {
                    *sum = Some(sum.unwrap_or(0.0) + x);
                }
            }
        }
        let (n_runs, n_failed) = (
            runs().count(),
            runs().filter(|run| run.failed.is_some()).count(),
        );
        self.seconds = runs().map(|run| run.seconds).sum();
        self.n_trials = self.trials.len();
        (self.n_runs, self.n_failed, self.cost) = (n_runs, n_failed, cost);
    }

    /// Why the trials of `earlier` are of another search; none if this one may go on with them.
    /// More values and more seeds may be added to a search: all it ever tried is counted.
    pub(super) fn differs(&self, earlier: &Trials) -> Option<&'static str> {
        let same = [
            (
                self.code_version == earlier.code_version,
                "another version of the program",
            ),
            (self.recipe_hash == earlier.recipe_hash, "another recipe"),
            (self.rule == earlier.rule, "another rule"),
            (self.measure == earlier.measure, "another measure"),
            (self.first == earlier.first, "another number of experiences"),
            (
                self.examples_hash == earlier.examples_hash,
                "other examples",
            ),
        ];
        same.iter().find(|(same, _)| !same).map(|(_, what)| *what)
    }
}

/// Values in words.
pub(super) fn words(settings: &Map<String, Value>) -> String {
    let word = |(key, value): (&String, &Value)| match value {
        Value::String(text) => format!("{key} = {text}"),
        other => format!("{key} = {other}"),
    };
    settings.iter().map(word).collect::<Vec<_>>().join(", ")
}
