//! Selective low-rank adaptation.
//!
//! **What it does.** Every linear map learns whether its adapter is used at all; a price on the
//! switches keeps most of them off, so that most of the network stays exactly as it was.
//! **Source.** Bafghi et al., 2025, "Fine tuning without catastrophic forgetting via selective low
//! rank adaptation" (card S012; no code was found).
//! **Equation.** `y = W₀ x + 1[s > τ] · s_c B A x` with one `s` a map, and `L + λ/L Σ|s|` over the
//! `L` maps. Backward takes the indicator for `s` itself. B begins at 0, so that at first `s` feels
//! the price alone: the price begins after a share `warmup` of the experience's steps (ours; the
//! card's start of 0.2 is unconfirmed).
//! **Use it** to change as few layers as will do. **Not** to be sure which ones: the set may differ
//! from seed to seed.
//! **Stores** nothing beside the adapter. **Costs** LoRA's step: a switched-off map is computed while
//! it may come back.

use crate::batch::Batch;
use crate::error::Result;
use crate::methods::codyra::is_gate;
use crate::methods::lora::LoraSettings;
use crate::methods::{MethodCard, read, settings, take};
use crate::oracle::PassResult;
use crate::plugin::{Plugin, Scene};
use crate::spec::{Parts, PluginSpec};
use ebb_net::Gate;
use ebb_space::Weights;
use serde::{Deserialize, Serialize};

/// The price of the switches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct SwitchPriceSettings {
    /// λ.
    pub lambda: f64,
    /// Share of an experience's steps without a price.
    pub warmup: f64,
}

impl Default for SwitchPriceSettings {
    fn default() -> Self {
        Self {
            lambda: 0.1,
            warmup: 0.1,
        }
    }
}

/// The plugin.
pub struct SwitchPrice(SwitchPriceSettings);

impl SwitchPrice {
    /// A plugin with these settings.
    pub fn new(settings: SwitchPriceSettings) -> Self {
        Self(settings)
    }
}

/// Adds the gradient of `λ/L Σ|s|` at `theta`, over the `L` switches that it has.
fn add_price(lambda: f64, theta: &Weights, gradient: &mut Weights) {
    let layout = theta.layout().clone();
    let gates: Vec<_> = layout
        .entries()
        .iter()
        .filter(|e| is_gate(&e.path))
        .collect();
    let each = (lambda / gates.len().max(1) as f64) as f32;
    for entry in gates {
        let (s, g) = (theta.as_slice(), gradient.as_mut_slice());
        for i in entry.range.clone() {
            if s[i] != 0.0 {
                g[i] += each * s[i].signum();
            }
        }
    }
}

impl Plugin for SwitchPrice {
    fn name(&self) -> &'static str {
        "switch-price"
    }

    fn change_gradient(
        &mut self,
        scene: &mut Scene,
        _: &Batch,
        _: &PassResult,
        gradient: &mut Weights,
    ) -> Result<()> {
        if scene.in_experience as f64 >= self.0.warmup * scene.steps as f64 {
            add_price(self.0.lambda, &scene.oracle.model.weights(), gradient);
        }
        Ok(())
    }
}

/// Selective LoRA in the table of methods.
pub const SELECTIVE_LORA: MethodCard = MethodCard {
    name: "selective-lora",
    aliases: &[],
    title: "Selective low-rank adaptation",
    source: "Bafghi et al., 2025",
    card: "S012",
    family: "adapter",
    use_it: "to change as few layers of a pretrained model as will do",
    not_for: "networks that have learnt nothing yet",
    stores: "nothing beside the adapter",
    costs: "LoRA's step",
    defaults: || {
        let mut table = settings(&LoraSettings::default());
        table.extend(settings(&SwitchPriceSettings::default()));
        table.insert("threshold".into(), 0.1.into());
        table.insert("start".into(), 0.2.into());
        table
    },
    expand: |with, _| {
        let mut with = with.clone();
        let price = SwitchPriceSettings {
            lambda: take(&mut with, "lambda")?,
            warmup: take(&mut with, "warmup")?,
        };
        let gate = Gate::Switch {
            threshold: take(&mut with, "threshold")?,
            start: take(&mut with, "start")?,
        };
        Ok(Parts {
            adapter: Some(read::<LoraSettings>(&with)?.adapter(gate)),
            plugin: vec![PluginSpec::SwitchPrice(price)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_space::Layout;

    #[test]
    fn the_price_is_on_the_switches_alone() {
        let entries = [
            ("a.lora_A.weight", 2),
            ("a.lora_gate", 1),
            ("b.lora_gate", 1),
        ];
        let layout = Layout::new(entries.map(|(p, n)| (p.to_owned(), vec![n]))).expect("three");
        let mut theta = Weights::zeros(&layout);
        theta.as_mut_slice().copy_from_slice(&[1.0, 1.0, 0.3, -0.2]);
        let mut gradient = theta.zeros_like();
        add_price(0.5, &theta, &mut gradient);
        assert_eq!(gradient.as_slice(), [0.0, 0.0, 0.25, -0.25]);
    }
}
