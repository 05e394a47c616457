//! Low-rank adaptation.
//!
//! **What it does.** It freezes the network and trains a product of two thin matrices beside each
//! linear map, so that a run keeps a few megabytes in the place of a copy of the model.
//! **Source.** Hu et al., ICLR 2022, "LoRA: Low-rank adaptation of large language models";
//! rank-stabilised: Kalajdzievski, 2023. The adapter that goes on and the one that is merged after
//! each task are the two simplest courses of card S086; merging the product and not the factors is
//! card S091's centralise step with one adapter.
//! **Equation.** `y = W₀ x + α/r · B A x` (rank-stabilised: `α/√r`), with `W₀` frozen, A from
//! `U(±1/√in)` and B from 0.
//! **Use it** to teach a pretrained model at a fraction of the memory, beside any other method: the
//! penalties, projections and draws of a recipe then act on A and B. `between = "merge"` adds the
//! adapter to the weights at the end of an experience and begins a fresh one. **Not** on a network
//! that has learnt nothing yet, and not as a protection by itself: what a low-rank update can
//! overwrite, it does.
//! **Stores** A and B (and those that were merged, so that a run can be resumed). **Costs** two
//! thirds of a step's products: no gradient of the weights is computed.

use crate::methods::{MethodCard, read, settings};
use crate::spec::Parts;
use ebb_net::{AdapterSpec, Between, Gate};
use serde::{Deserialize, Serialize};

/// LoRA's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct LoraSettings {
    /// Rank of each map's update.
    pub rank: usize,
    /// The update is `alpha / rank · B A`.
    pub alpha: f64,
    /// Divide by the root of the rank instead.
    pub rank_stabilised: bool,
    /// Which linear maps (their paths, with `*`).
    pub on: Vec<String>,
    /// What becomes of it between two experiences.
    pub between: Between,
}

impl Default for LoraSettings {
    fn default() -> Self {
        let AdapterSpec {
            rank,
            alpha,
            rank_stabilised,
            on,
            between,
            ..
        } = AdapterSpec::default();
        Self {
            rank,
            alpha,
            rank_stabilised,
            on,
            between,
        }
    }
}

impl LoraSettings {
    /// The adapter with a gate.
    pub(crate) fn adapter(self, gate: Gate) -> AdapterSpec {
        AdapterSpec {
            rank: self.rank,
            alpha: self.alpha,
            rank_stabilised: self.rank_stabilised,
            on: self.on,
            between: self.between,
            gate,
        }
    }
}

/// LoRA in the table of methods.
pub const LORA: MethodCard = MethodCard {
    name: "lora",
    aliases: &[],
    title: "Low-rank adaptation",
    source: "Hu et al., 2022",
    card: "S086",
    family: "adapter",
    use_it: "to teach a pretrained model at a fraction of the memory, beside any other method",
    not_for: "networks that have learnt nothing yet; as a protection by itself",
    stores: "two thin matrices a linear map",
    costs: "two thirds of a step's products",
    defaults: || settings(&LoraSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            adapter: Some(read::<LoraSettings>(with)?.adapter(Gate::Open)),
            ..Parts::default()
        })
    },
};
