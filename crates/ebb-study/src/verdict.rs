//! Verdicts: what a study came to, written so that a later one can be compared with it.

use crate::clause::Judged;
use crate::error::{Error, Result};
use crate::reference::Row;
use crate::study::{Arm, Plan, Study};
use ebb_space::Number;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The newest version of a verdict that this program reads.
pub const VERDICT_VERSION: u32 = 1;

/// BLAKE3 of the sources that can change a study's result.
pub fn code_hash(study: &Study) -> &'static str {
    match study.plan {
        Plan::Native(ref native, _) if native.is_language() => env!("EBB_LANGUAGE_HASH"),
        Plan::Arms(_) | Plan::Reference(_) => code_hash_of_arms(reads_text(study)),
        Plan::Native(..) => env!("EBB_NATIVE_HASH"),
    }
}

/// The same of arms, which train language models or other networks.
pub(crate) fn code_hash_of_arms(language: bool) -> &'static str {
    match language {
        true => env!("EBB_LANGUAGE_HASH"),
        false => env!("EBB_CODE_HASH"),
    }
}

/// Whether an arm trains a language model.
fn reads_text(study: &Study) -> bool {
    let arms = study.plan.arms().into_iter().flatten();
    arms.into_iter().any(|(_, arm)| {
        arm.recipe(0, &[])
            .is_ok_and(|r| r.file().language.is_some())
    })
}

/// What a study came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Version of the format.
    pub format_version: u32,
    /// The study.
    pub id: String,
    /// What it is about.
    pub title: String,
    /// What is claimed.
    pub claim: String,
    /// Who claims it.
    pub source: String,
    /// Whether every expectation holds and no control does.
    pub holds: bool,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// The arms, in the order of their names.
    pub arms: Vec<ArmReport>,
    /// The expectations, judged.
    pub expected: Vec<Judged>,
    /// The controls, judged.
    pub controls: Vec<ControlReport>,
    /// Reference rows, of a reference study.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Row>,
    /// Numbers of a study without arms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measured: Vec<Number>,
    /// How coefficients were chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<Tuning>,
    /// Seeds of each arm (the most, where rows added some).
    pub n_seeds: usize,
    /// The largest p of its tests: every one of them must hold, so this is the p of the claim
    /// (an intersection-union test needs no correction).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
    /// What it took.
    pub wall_seconds: f64,
    /// What it may take.
    pub budget_seconds: f64,
    /// Hash of the code that made it.
    pub code_hash: String,
    /// Hash of the study file and every recipe it resolves to.
    pub recipe_hash: String,
    /// How it was carried over from older code, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<Confirmed>,
}

/// A verdict that code other than the one it was made with has confirmed: the first seed of every
/// arm and every trial of the tuning were run again and gave the recorded values bit for bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmed {
    /// Hash of the code that made the verdict.
    pub made_by: String,
    /// Runs that were repeated.
    pub runs: usize,
    /// Values that were compared.
    pub values: usize,
}

/// An arm and what was measured in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmReport {
    /// Its name.
    pub name: String,
    /// What it stands for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// The method.
    pub method: String,
    /// Hash of the recipe without its seed.
    pub recipe: String,
    /// Training seconds, mean over seeds.
    pub train_seconds: f64,
    /// Seeds whose runs diverged: the arm then has no numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diverged: Vec<u64>,
    /// Numbers with intervals over seeds.
    pub measured: Vec<Number>,
    /// The values behind them, one a seed.
    pub per_seed: BTreeMap<String, Vec<f64>>,
}

/// A control and whether it held, which it must not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlReport {
    /// Its name.
    pub name: String,
    /// Why it must not hold.
    pub about: String,
    /// Its clauses.
    pub clauses: Vec<Judged>,
    /// Whether all of them hold.
    pub holds: bool,
    /// Whether one of them could not be judged: then the control says nothing, and the study
    /// cannot hold.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undecided: bool,
}

/// How coefficients were chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// The rule, in words.
    pub rule: String,
    /// Runs it took.
    pub trials: usize,
    /// By arm.
    pub arms: BTreeMap<String, Tuned>,
}

/// The choice for one arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuned {
    /// What was set.
    pub chosen: BTreeMap<String, String>,
    /// Every candidate with its score; none for one that diverged.
    pub tried: Vec<(BTreeMap<String, String>, Option<f64>)>,
    /// Whether the choice lies at an end of its grid: a wider grid might choose another.
    pub at_edge: bool,
}

impl Verdict {
    /// Reads a verdict.
    ///
    /// # Errors
    /// [`Error::Verdict`], [`Error::Io`].
    pub fn load(path: &Path) -> Result<Verdict> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
            path: path.to_owned(),
            source,
        })?;
        let wrong = |reason: String| Error::Verdict {
            path: path.to_owned(),
            reason,
        };
        let verdict: Verdict = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        match verdict.format_version {
            v if v > VERDICT_VERSION => Err(wrong(format!(
                "it has version {v}, this program reads up to {VERDICT_VERSION}"
            ))),
            _ => Ok(verdict),
        }
    }

    /// Writes a verdict into `dir` as `<id>.json`, through a temporary file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, dir: &Path) -> Result<PathBuf> {
        let path = path_of(dir, &self.id);
        let io = |source| Error::Io {
            path: path.clone(),
            source,
        };
        let mut text = serde_json::to_string_pretty(self).map_err(|e| Error::Verdict {
            path: path.clone(),
            reason: e.to_string(),
        })?;
        text.push('\n');
        std::fs::create_dir_all(dir).map_err(io)?;
        let temporary = path.with_extension("json.tmp");
        std::fs::write(&temporary, text).map_err(io)?;
        std::fs::rename(&temporary, &path).map_err(io)?;
        Ok(path)
    }

    /// Why the verdict may not be what the program would find now; none if it is fresh.
    pub fn stale(&self, study: &Study) -> Option<String> {
        let code = self.code_hash != code_hash(study);
        let recipe = self.recipe_hash != recipe_hash(study);
        match (code, recipe) {
            (true, true) => Some("the code and the study have changed".to_owned()),
            (true, false) => Some("the code has changed".to_owned()),
            (false, true) => Some("the study has changed".to_owned()),
            (false, false) => None,
        }
    }

    /// The number of `arm` called `measure`.
    pub fn number(&self, arm: &str, measure: &str) -> Option<&Number> {
        let arm = self.arms.iter().find(|a| a.name == arm)?;
        arm.measured.iter().find(|n| n.name == measure)
    }

    /// Whether it took longer than it may.
    pub fn over_budget(&self) -> bool {
        self.wall_seconds > self.budget_seconds
    }
}

/// Where the verdict of a study lies.
pub fn path_of(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("{id}.json"))
}

/// Hash of a study's file and of every recipe it resolves to: a new default of a method changes
/// it even where the file is the same.
pub fn recipe_hash(study: &Study) -> String {
    // Every recipe was parsed when the study was read; one that no longer parses is changed.
    hash_with(study, |_, arm| {
        arm.recipe(0, &[])
            .map_or_else(|_| String::new(), |r| r.group())
    })
}

/// The hash that a verdict of this study's present file has if its recipes resolved to what the
/// verdict recorded of each arm. Where it is the verdict's, the file is the one it was made from, and
/// only the text that recipes resolve to has changed: a new setting with its default, or another
/// spelling. What tuned arms resolved to untuned is not recorded, so theirs never is.
pub(crate) fn recorded_hash(study: &Study, verdict: &Verdict) -> String {
    let recorded = |name: &str| verdict.arms.iter().find(|arm| arm.name == name);
    hash_with(study, |name, _| {
        recorded(name).map_or_else(String::new, |arm| arm.recipe.clone())
    })
}

fn hash_with(study: &Study, group: impl Fn(&str, &Arm) -> String) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(study.file_hash.as_bytes());
    for (name, arm) in study.plan.arms().into_iter().flatten() {
        hasher.update(name.as_bytes());
        hasher.update(group(name, arm).as_bytes());
    }
    if let Plan::Native(native, _) = &study.plan {
        hasher.update(format!("{native:?}").as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
