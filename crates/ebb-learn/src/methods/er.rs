//! Experience replay.
//!
//! **What it does.** Keeps a few old examples and trains on some of them at every step.
//! **Source.** Ratcliff 1990; Chaudhry et al. 2019, "On tiny episodic memories" (reservoir, filled
//! at each step); Hsu et al. 2018, "naive rehearsal" (balanced by experience, filled after each).
//! The two fillings are different algorithms, so both have a name here: `keep`.
//! **Equation.** `L(θ) = mean over (B_new ∪ B_mem) of CE`.
//! **Use it** first: with a few hundred examples it beats most methods that store none.
//! **Not** where old data may not be kept at all.
//! **Stores** `capacity` examples. **Costs** the rows drawn on top of the batch.

use crate::methods::{MethodCard, settings};
use crate::spec::{
    DrawSpec, KeepSpec, LossSpec, MemorySpec, Parts, ReductionSpec, SelectSpec, TermSpec,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Experience replay's numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct ErSettings {
    /// Records the memory may hold.
    capacity: usize,
    /// Which ones it keeps, and when it is filled.
    keep: KeepSpec,
    /// How a step's records are selected.
    select: SelectSpec,
    /// Replayed rows a step; 0: as many as the batch.
    replay: usize,
}

impl Default for ErSettings {
    fn default() -> Self {
        Self {
            capacity: 500,
            keep: KeepSpec::Reservoir,
            select: SelectSpec::Uniform,
            replay: 0,
        }
    }
}

/// Cross-entropy on the rows called `on`.
pub(crate) fn cross_entropy(on: &str, weight: f64) -> TermSpec {
    TermSpec {
        weight,
        ..TermSpec::new(on, LossSpec::CrossEntropy)
    }
}

/// A draw of `size` rows (0: as many as the batch).
pub(crate) fn draw(select: SelectSpec, size: usize) -> DrawSpec {
    DrawSpec {
        displaces: false,
        select,
        size: (size > 0).then_some(size),
    }
}

fn parts(s: &ErSettings) -> Parts {
    Parts {
        memory: Some(MemorySpec {
            capacity: s.capacity,
            keep: s.keep,
        }),
        draw: BTreeMap::from([("a".to_owned(), draw(s.select, s.replay))]),
        term: vec![cross_entropy("all", 1.0)],
        reduction: Some(ReductionSpec::MeanOverRows),
        ..Parts::default()
    }
}

/// Experience replay in the table of methods.
pub const ER: MethodCard = MethodCard {
    name: "er",
    aliases: &["experience-replay", "replay"],
    title: "Experience replay",
    source: "Chaudhry et al., 2019",
    card: "S065",
    family: "replay",
    use_it: "first: a few hundred examples beat most methods that store none",
    not_for: "data that may not be kept",
    stores: "`capacity` examples",
    costs: "the replayed rows on top of the batch",
    defaults: || settings(&ErSettings::default()),
    expand: |with, _| Ok(parts(&crate::methods::read(with)?)),
};

fn rehearsal() -> ErSettings {
    ErSettings {
        capacity: 1100,
        keep: KeepSpec::ExperienceBalanced,
        select: SelectSpec::Concatenate,
        replay: 0,
    }
}

/// Naive rehearsal in the table of methods.
pub const REHEARSAL: MethodCard = MethodCard {
    name: "rehearsal",
    aliases: &["naive-rehearsal"],
    title: "Naive rehearsal",
    source: "Hsu et al., 2018",
    card: "S065",
    use_it: "as experience replay, where an experience may be passed over several times",
    costs: "twice the steps of fine-tuning from the second experience on",
    defaults: || settings(&rehearsal()),
    expand: |with, _| {
        let mut all = settings(&rehearsal());
        all.extend(with.clone());
        Ok(parts(&crate::methods::read(&all)?))
    },
    ..ER
};
