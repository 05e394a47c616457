//! Learning without forgetting.
//!
//! **What it does.** Freezes the network as it was before the experience and keeps its answers on
//! the new inputs.
//! **Source.** Li & Hoiem, TPAMI 2017 (objective.md 0.5).
//! **Equation.** `L = CE(new) + λ T² · KL(softmax(z_old/T) ‖ softmax(z/T))` over the classes of
//! earlier experiences; with a head a task, one such term for each earlier head.
//! **Use it** when nothing may be stored and the experiences resemble each other.
//! **Not** for experiences whose inputs say nothing of the old ones.
//! **Stores** one copy of the weights. **Costs** one more forward pass a step.

use crate::methods::er::cross_entropy;
use crate::methods::{MethodCard, settings};
use crate::spec::{ClassesSpec, LossSpec, Parts, ReductionSpec, TermSpec};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct LwfSettings {
    /// Weight of the distillation.
    lambda: f64,
    temperature: f64,
}

impl Default for LwfSettings {
    fn default() -> Self {
        Self {
            lambda: 1.0,
            temperature: 2.0,
        }
    }
}

/// LwF in the table of methods.
pub const LWF: MethodCard = MethodCard {
    name: "lwf",
    aliases: &["learning-without-forgetting"],
    title: "Learning without forgetting",
    source: "Li & Hoiem, TPAMI 2017",
    card: "S123",
    family: "distillation",
    use_it: "nothing may be stored and the experiences resemble each other",
    not_for: "experiences whose inputs say nothing of the old ones",
    stores: "one copy of the weights",
    costs: "one more forward pass a step",
    defaults: || settings(&LwfSettings::default()),
    expand: |with, _| {
        let s: LwfSettings = crate::methods::read(with)?;
        let keep = TermSpec {
            weight: s.lambda,
            temperature: Some(s.temperature),
            classes: ClassesSpec::Old,
            ..TermSpec::new("new", LossSpec::Distillation)
        };
        Ok(Parts {
            term: vec![cross_entropy("new", 1.0), keep],
            reduction: Some(ReductionSpec::SumOfMeans),
            ..Parts::default()
        })
    },
};
