//! Dark experience replay, and DER++.
//!
//! **What it does.** Stores with each old example the logits the network gave when it was met,
//! and asks for the same logits later: they say more than the label.
//! **Source.** Buzzega et al., NeurIPS 2020 (objective.md 0.5).
//! **Equation.** DER: `L = CE(new) + α · mean (z(x') − z')²`, the mean over rows and classes as
//! in the authors' code; DER++ adds `β · CE(x″, y″)` on a second, independent draw.
//! **Use it** with a small memory and no task boundaries. **Not** where logits of old examples
//! may not be kept.
//! **Stores** `capacity` examples and their logits. **Costs** the rows of one draw (DER++: two)
//! on top of the batch.

use crate::methods::er::{cross_entropy, draw};
use crate::methods::{MethodCard, settings};
use crate::spec::{
    ClassesSpec, KeepSpec, LossSpec, MemorySpec, Parts, ReductionSpec, SelectSpec, TermSpec,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct DerSettings {
    capacity: usize,
    /// Weight of the distance to the stored logits.
    alpha: f64,
    replay: usize,
}

impl Default for DerSettings {
    fn default() -> Self {
        Self {
            capacity: 200,
            alpha: 1.0,
            replay: 0,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct DerPlusPlusSettings {
    capacity: usize,
    /// Weight of the distance to the stored logits.
    alpha: f64,
    /// Weight of the cross-entropy on the second draw.
    beta: f64,
    replay: usize,
}

impl Default for DerPlusPlusSettings {
    fn default() -> Self {
        Self {
            capacity: 200,
            alpha: 1.0,
            beta: 0.5,
            replay: 0,
        }
    }
}

fn parts(capacity: usize, replay: usize, alpha: f64) -> Parts {
    let logits = TermSpec {
        weight: alpha,
        classes: ClassesSpec::All,
        ..TermSpec::new("replay:a", LossSpec::LogitsL2)
    };
    Parts {
        memory: Some(MemorySpec {
            capacity,
            keep: KeepSpec::Reservoir,
        }),
        draw: BTreeMap::from([("a".to_owned(), draw(SelectSpec::Uniform, replay))]),
        term: vec![cross_entropy("new", 1.0), logits],
        reduction: Some(ReductionSpec::SumOfMeans),
        ..Parts::default()
    }
}

/// DER in the table of methods.
pub const DER: MethodCard = MethodCard {
    name: "der",
    aliases: &["dark-experience-replay"],
    title: "Dark experience replay",
    source: "Buzzega et al., NeurIPS 2020",
    card: "S075",
    family: "replay",
    use_it: "a small memory and no task boundaries",
    not_for: "data that may not be kept",
    stores: "`capacity` examples and their logits",
    costs: "the replayed rows on top of the batch",
    defaults: || settings(&DerSettings::default()),
    expand: |with, _| {
        let s: DerSettings = crate::methods::read(with)?;
        Ok(parts(s.capacity, s.replay, s.alpha))
    },
};

/// DER++ in the table of methods.
pub const DER_PLUS_PLUS: MethodCard = MethodCard {
    name: "der++",
    aliases: &["derpp"],
    title: "Dark experience replay with labels",
    costs: "the rows of two draws on top of the batch",
    defaults: || settings(&DerPlusPlusSettings::default()),
    expand: |with, _| {
        let s: DerPlusPlusSettings = crate::methods::read(with)?;
        let mut parts = parts(s.capacity, s.replay, s.alpha);
        parts
            .draw
            .insert("b".to_owned(), draw(SelectSpec::Uniform, s.replay));
        parts.term.push(cross_entropy("replay:b", s.beta));
        Ok(parts)
    },
    ..DER
};
