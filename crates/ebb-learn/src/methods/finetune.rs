//! Fine-tuning, and its two bounds.
//!
//! **What they do.** `fine-tune` trains on one experience after the other and does nothing
//! against forgetting: the lower bound every method is measured against. `cumulative` trains at
//! each experience on everything so far; `joint` trains on everything at once: the upper bounds.
//! **Source.** Folklore; "None" and "Offline" in Hsu et al. 2018 and van de Ven & Tolias 2019.
//! **Equation.** `L(θ) = E_new[CE]`.
//! **Use them** as baselines. **Stores** nothing; cumulative and joint need all data at hand.
//! **Costs** one forward and backward pass a step.

use crate::methods::{MethodCard, settings};
use crate::spec::{DataPlan, Parts};
use serde::Serialize;

#[derive(Serialize)]
struct Nothing {}

/// Fine-tuning in the table of methods.
pub const FINE_TUNE: MethodCard = MethodCard {
    name: "fine-tune",
    aliases: &["finetune", "naive", "none"],
    title: "Fine-tuning",
    source: "baseline",
    card: "S124",
    family: "baseline",
    use_it: "the lower bound of every comparison",
    not_for: "keeping anything",
    stores: "nothing",
    costs: "one forward and backward pass a step",
    defaults: || settings(&Nothing {}),
    expand: |_, _| Ok(Parts::default()),
};

/// Joint training in the table of methods.
pub const JOINT: MethodCard = MethodCard {
    name: "joint",
    aliases: &["offline"],
    title: "Joint training",
    source: "baseline",
    use_it: "the upper bound of every comparison",
    not_for: "data that arrives over time",
    stores: "all data",
    expand: |_, _| {
        Ok(Parts {
            data: DataPlan::Joint,
            ..Parts::default()
        })
    },
    ..FINE_TUNE
};

/// Cumulative training in the table of methods.
pub const CUMULATIVE: MethodCard = MethodCard {
    name: "cumulative",
    aliases: &[],
    title: "Cumulative training",
    source: "baseline",
    use_it: "the upper bound when experiences arrive one by one and all may be kept",
    not_for: "long streams: the cost grows with everything seen",
    stores: "all data seen",
    expand: |_, _| {
        Ok(Parts {
            data: DataPlan::Cumulative,
            ..Parts::default()
        })
    },
    ..FINE_TUNE
};
