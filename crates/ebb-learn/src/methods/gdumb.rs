//! GDumb: greedy sampler and dumb learner.
//!
//! **What it does.** Keeps a class-balanced memory and nothing else; whenever it is asked, a
//! fresh network is trained on the memory alone.
//! **Source.** Prabhu et al., ECCV 2020, "GDumb: A simple approach that questions our progress in
//! continual learning" (peers' protocol). The paper keeps the first records of each class up to
//! its share; here it is a uniform sample of them.
//! **Equation.** `θ_t = argmin_θ mean CE(M_t)` from a fresh start, `M_t` balanced over the classes.
//! **Use it** as the control of every method with a memory: what does training on the stream add?
//! **Not** where the stream is far larger than the memory and its knowledge must be kept.
//! **Stores** `capacity` examples. **Costs** nothing on the stream, and `epochs` passes over the
//! memory an experience.

use crate::methods::{MethodCard, settings};
use crate::spec::{DataPlan, KeepSpec, MemorySpec, Parts};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct GdumbSettings {
    capacity: usize,
}

impl Default for GdumbSettings {
    fn default() -> Self {
        Self { capacity: 500 }
    }
}

/// GDumb in the table of methods.
pub const GDUMB: MethodCard = MethodCard {
    name: "gdumb",
    aliases: &["greedy-sampler"],
    title: "Greedy sampler and dumb learner",
    source: "Prabhu et al., ECCV 2020",
    card: "S124",
    family: "baseline",
    use_it: "the control of every method with a memory: what does training on the stream add?",
    not_for: "streams far larger than the memory whose knowledge must be kept",
    stores: "`capacity` examples",
    costs: "nothing on the stream, `train.epochs` passes over the memory an experience",
    defaults: || settings(&GdumbSettings::default()),
    expand: |with, _| {
        let s: GdumbSettings = crate::methods::read(with)?;
        Ok(Parts {
            data: DataPlan::Memory,
            memory: Some(MemorySpec {
                capacity: s.capacity,
                keep: KeepSpec::ClassBalanced,
            }),
            ..Parts::default()
        })
    },
};
