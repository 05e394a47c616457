//! How a recipe describes a stream.

use serde::{Deserialize, Serialize};

use super::Scenario;
use crate::dataset::Normalise;
use crate::transform::Corruption;

/// What makes the experiences of a stream differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Each has classes of its own.
    Split,
    /// Each has all classes under a permutation of the input of its own.
    Permuted,
    /// Each has all classes turned by an angle of its own.
    Rotated,
    /// Each has all classes damaged in a way of its own.
    Corrupted,
    /// Each has all classes in colours of its own (three channels).
    Recoloured,
    /// Classes come back again and again in many short tasks (SCoLe, card S121).
    Recurring,
    /// The experiences of `base`, each mixed with those before it (card S074).
    PowerLaw,
    /// The experiences of `base` as one: the upper bound.
    Joint,
    /// Tasks of random sizes, some classes of one task alone, the examples of others straying
    /// (Si-Blurry, card S139).
    SiBlurry,
}

impl Kind {
    /// The name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Split => "split",
            Kind::Permuted => "permuted",
            Kind::Rotated => "rotated",
            Kind::Corrupted => "corrupted",
            Kind::Recoloured => "recoloured",
            Kind::Recurring => "recurring",
            Kind::PowerLaw => "power-law",
            Kind::Joint => "joint",
            Kind::SiBlurry => "si-blurry",
        }
    }
}

/// The order in which classes are dealt to the experiences of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassOrder {
    /// 0, 1, 2, …
    Fixed,
    /// Drawn from the seed.
    Keyed,
}

/// How the angles of a rotated stream are chosen from a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Angles {
    /// Evenly spaced, both ends included.
    Even,
    /// Drawn uniformly from the seed.
    Keyed,
}

/// A damage and its strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorruptionSpec {
    /// The kind.
    pub kind: Corruption,
    /// 1 to 5.
    pub severity: u8,
}

/// A normalisation by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamedScale {
    /// The dataset's own.
    Dataset,
    /// Full scale becomes 1, nothing more.
    Raw,
}

/// A normalisation, by name or in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"dataset\", \"raw\" or { divisor = 255.0, mean = 0.1, std = 0.2752 }"
)]
pub enum Scale {
    /// By name.
    Named(NamedScale),
    /// In numbers.
    Numbers(Normalise),
}

/// How unequal the classes of a recurring stream are: class `c` of `C` gets
/// `p_c = 1/C − c·factor/C`, normalised, to the power `power`, normalised again; which class gets
/// which share is drawn from the seed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skew {
    /// SCoLe's `f`: 0.05 with ten classes, 0.01 with a hundred.
    pub factor: f64,
    /// SCoLe's "entropy decrease".
    pub power: f64,
}

/// How the tasks of a recurring stream follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskOrder {
    /// Each task is drawn.
    Random,
    /// The groups take turns.
    Cycle,
}

/// What changes after half of a recurring stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecondHalf {
    /// Nothing.
    Same,
    /// Half of the classes, drawn from the seed, do not come back: a probe of forgetting.
    Removed,
    /// The two halves share no class.
    Disjoint,
}

/// How the rehearsed examples of a phase are shared out over the earlier tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mixture {
    /// age^(−exponent).
    PowerLaw,
    /// Equally.
    Uniform,
    /// exp(−rate · age).
    Exponential,
    /// All to the task before.
    MostRecent,
    /// Nothing is rehearsed; the phase has the same number of examples, all of them new.
    None,
}

/// What the age of a task is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recency {
    /// Its introduction, in phases; the newest task has age 1.
    Introduction,
    /// Its last occurrence, in blocks of `block` consecutive examples of one task.
    Occurrence,
}

/// A stream as a recipe describes it. Only `dataset` must be there;
/// [`resolved`](StreamSpec::resolved) writes out every default.
///
/// ```
/// use ebb_data::StreamSpec;
/// let spec: StreamSpec = toml::from_str("dataset = 'digits'\nsplit = 5\nscenario = 'class'").unwrap();
/// let stream = spec.build(std::path::Path::new("."), 0).unwrap();
/// assert_eq!(stream.experiences.len(), 5);
/// assert_eq!(stream.experiences[1].classes, [2, 3]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamSpec {
    /// A name of the catalogue or the path of a `.safetensors` file.
    pub dataset: String,
    /// What makes the experiences differ; `split` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Of `joint` and `power-law`: the kind whose experiences they combine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Kind>,
    /// `split = 5` is short for `kind = "split", n = 5` (or `base = "split", n = 5`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<usize>,
    /// Number of experiences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<usize>,
    /// `class` by default for `split` and `recurring`, `domain` for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scenario: Option<Scenario>,
    /// At most this many training examples an experience, drawn by id. All by default; 600 for
    /// `recurring`; for `power-law` the examples of a phase, for `si-blurry` those of a class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_experience: Option<usize>,
    /// At most this many test examples a test set, drawn by id. All by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_per_experience: Option<usize>,
    /// Pads images with zeros to this height and width, before normalisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pad: Option<usize>,
    /// The dataset's own by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalise: Option<Scale>,
    /// The seed of the stream's draws; that of the run by default. Set it to have the same
    /// permutations, angles and subsets in runs of different seeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Of `split`: `fixed` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_order: Option<ClassOrder>,
    /// Of `split`: the classes of each experience, in place of `n` and `class_order`. Of
    /// `recurring`: the only groups of classes that may form a task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Vec<u32>>>,
    /// Of `permuted`, `corrupted` and `recoloured`: the first experience shows the records as
    /// they are (recoloured: white on black). True by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_identity: Option<bool>,
    /// Of `rotated`: the angles, in place of `n`, `range` and `angles`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degrees: Option<Vec<f64>>,
    /// Of `rotated`: lowest and highest angle; 0 to 180 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<[f64; 2]>,
    /// Of `rotated`: `keyed` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub angles: Option<Angles>,
    /// Of `corrupted`: the damage of each experience (after a first clean one); each of the five
    /// kinds at severity 3 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corruptions: Option<Vec<CorruptionSpec>>,
    /// Blurry boundaries: each training example moves with this chance to another experience,
    /// drawn by id. Test sets stay pure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blurry: Option<f64>,
    /// Gradual transitions: each training example gets a time within its experience, drawn by
    /// id, which is moved by a normal number of this deviation, in experiences; the example is
    /// met in the experience where that time lies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradual: Option<f64>,
    /// Of `recurring`: classes of a task; 2 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes_per_task: Option<usize>,
    /// Of `recurring`: unequal classes; all equal by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skew: Option<Skew>,
    /// Of `recurring`: draws this many allowed groups from the seed, in place of `groups`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_groups: Option<usize>,
    /// Of `recurring`: `random` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<TaskOrder>,
    /// Of `recurring` with `order = "cycle"`: the chance that a task is drawn instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_fraction: Option<f64>,
    /// Of `recurring`: `same` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_half: Option<SecondHalf>,
    /// Of `power-law`: `power-law` by default; the others are controls that rehearse as many
    /// examples in each phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mixture: Option<Mixture>,
    /// Of `power-law`: the exponent; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exponent: Option<f64>,
    /// Of `power-law` with `mixture = "exponential"`: the rate; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Of `power-law`: `introduction` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recency: Option<Recency>,
    /// Of `power-law` with `recency = "occurrence"`: consecutive examples of one task; 10 by
    /// default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<usize>,
    /// Of `power-law`: the share of a phase that is rehearsal. By default the power law itself
    /// sets it, with the newest task at age 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<f64>,
    /// Of `si-blurry`: the share of the classes that belong to one task alone; 0.5 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disjoint: Option<f64>,
    /// Of `si-blurry`: the share of the other classes' examples that may be met in another task;
    /// 0.1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strays: Option<f64>,
}
