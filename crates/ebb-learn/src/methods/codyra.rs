//! Dynamic rank-selective low-rank adaptation (CoDyRA).
//!
//! **What it does.** Every rank of every map's adapter has a gate; in the second half of an
//! experience gates are pulled to 0 step by step, so that only the ranks that the task needs survive.
//! They are merged into the weights, and a fresh adapter begins.
//! **Source.** Lu et al., 2024, "Adaptive rank, reduced forgetting: Knowledge retention in continual
//! learning vision-language models with dynamic rank-selective LoRA" (card S013).
//! **Equation.** `y = W₀ x + s B diag(w) A x`; after a step of the second half
//! `w ← sign(w) max(|w| − κ, 0)`, κ on `levels` equal steps from 0 to `threshold`. The reference sets
//! what is left below κ to 0 once more, which doubles the dead zone: this is the soft threshold alone.
//! A gate at 0 may come back, since its gradient is not 0.
//! **Use it** for several tasks in a row on a pretrained model, where the rank a task needs is not
//! known. **Not** with weight decay on the gates in mind: the threshold means something only beside
//! the size of B, which decay changes too.
//! **Stores** the adapters that were merged. **Costs** one number a rank more than LoRA.

use crate::batch::Batch;
use crate::error::Result;
use crate::methods::lora::LoraSettings;
use crate::methods::{MethodCard, read, settings, take};
use crate::oracle::PassResult;
use crate::plugin::{Plugin, Scene};
use crate::spec::{Parts, PluginSpec};
use ebb_net::{Between, Gate};
use serde::{Deserialize, Serialize};

/// The gates' numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct SparseGatesSettings {
    /// The largest κ.
    pub threshold: f64,
    /// Share of an experience's steps before the first threshold.
    pub dense: f64,
}

impl Default for SparseGatesSettings {
    fn default() -> Self {
        Self {
            threshold: 0.005,
            dense: 0.5,
        }
    }
}

/// The plugin.
pub struct SparseGates(SparseGatesSettings);

impl SparseGates {
    /// A plugin with these settings.
    pub fn new(settings: SparseGatesSettings) -> Self {
        Self(settings)
    }
}

/// κ after `taken` of `steps` steps: 0 while dense, then equally spaced up to `most`.
fn threshold(most: f64, dense: f64, taken: u64, steps: u64) -> f64 {
    let first = (dense * steps as f64).ceil();
    let rest = (steps as f64 - first).max(1.0);
    most * ((taken as f64 - first) / rest).clamp(0.0, 1.0)
}

/// Pulls `w` towards 0 by κ, and no further.
fn soften(w: &mut [f32], kappa: f32) {
    for w in w {
        *w = w.signum() * (w.abs() - kappa).max(0.0);
    }
}

/// Which trained tensors are gates.
pub(crate) fn is_gate(path: &str) -> bool {
    path.ends_with(".lora_gate")
}

impl Plugin for SparseGates {
    fn name(&self) -> &'static str {
        "sparse-gates"
    }

    fn after_step(&mut self, scene: &mut Scene, _: &Batch, _: &PassResult) -> Result<()> {
        let SparseGatesSettings {
            threshold: most,
            dense,
        } = self.0;
        let kappa = threshold(most, dense, scene.in_experience + 1, scene.steps);
        if kappa > 0.0 {
            let layout = scene.oracle.model.layout().clone();
            scene.oracle.model.update(|i, values| {
                if is_gate(&layout.entries()[i].path) {
                    soften(values, kappa as f32);
                }
            });
        }
        Ok(())
    }
}

/// CoDyRA in the table of methods.
pub const CODYRA: MethodCard = MethodCard {
    name: "codyra",
    aliases: &["dynamic-rank"],
    title: "Dynamic rank-selective adaptation",
    source: "Lu et al., 2024",
    card: "S013",
    family: "adapter",
    use_it: "for tasks in a row on a pretrained model, where the rank a task needs is not known",
    not_for: "networks that have learnt nothing yet",
    stores: "the adapters that were merged",
    costs: "one number a rank more than LoRA",
    defaults: || {
        let mut table = settings(&LoraSettings {
            rank: 16,
            between: Between::Merge,
            ..LoraSettings::default()
        });
        table.extend(settings(&SparseGatesSettings::default()));
        table
    },
    expand: |with, _| {
        let mut with = with.clone();
        let gates = SparseGatesSettings {
            threshold: take(&mut with, "threshold")?,
            dense: take(&mut with, "dense")?,
        };
        Ok(Parts {
            adapter: Some(read::<LoraSettings>(&with)?.adapter(Gate::Ranks)),
            plugin: vec![PluginSpec::SparseGates(gates)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_climb_in_equal_steps_after_the_dense_share() {
        let at = |taken| threshold(0.01, 0.5, taken, 10);
        assert_eq!([at(1), at(5)], [0.0, 0.0]);
        for (taken, want) in [(6, 0.002), (8, 0.006), (10, 0.01)] {
            assert!((at(taken) - want).abs() < 1e-12, "{taken}");
        }
    }

    #[test]
    fn the_soft_threshold_has_a_dead_zone_of_its_own_width() {
        let mut w = [0.3, -0.3, 0.1, -0.05, 0.0];
        soften(&mut w, 0.1);
        let want = [0.2, -0.2, 0.0, 0.0, 0.0];
        assert!(
            w.iter()
                .zip(want)
                .all(|(w, v): (&f32, f32)| (w - v).abs() < 1e-6),
            "{w:?}"
        );
    }
}
