//! Robust continual learning: a high quantile of the environments' risks in place of their mean.
//!
//! **What it does.** At each step the rows of several remembered environments and the new rows
//! each give a risk, and the step descends on the quantile of the normal distribution with the
//! risks' mean and deviation: what is learned worst counts most.
//! **Source.** Kim & Saad, ICASSP 2024, "Analysis of the memorization and generalization
//! capabilities of AI agents: are continual learners robust?" (card S065); quantile risk
//! minimisation is by Eastwood et al. 2022.
//! **Equation.** `L = R̄ + Φ⁻¹(level) √(mean_e (R_e − R̄)² + 10⁻⁸)`, so that the risk of
//! environment `e` counts `1/m + Φ⁻¹(level) (R_e − R̄)/(m · deviation)`.
//! **Use it** where every environment must work. **Not** with a level near 1 and few environments:
//! their quantile is a noisy maximum.
//! **Stores** `capacity` examples. **Costs** the remembered rows, twice forward.

use crate::batch::{Batch, Collect};
use crate::error::Result;
use crate::methods::er::cross_entropy;
use crate::methods::{MethodCard, memory_and, settings_beside};
use crate::plugin::{Plugin, Scene};
use crate::spec::{KeepSpec, Parts, PluginSpec};
use ebb_data::Item;
use ebb_memory::Select;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The rows it adds.
pub const SUPPORT: &str = "replay:environments";

/// The numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct QuantileSettings {
    /// The quantile: 0.5 is the mean, near 1 the worst.
    pub level: f64,
    /// Remembered environments a step.
    pub environments: usize,
    /// Records of each; 0: as many as the batch.
    pub size: usize,
}

impl Default for QuantileSettings {
    fn default() -> Self {
        Self {
            level: 0.9,
            environments: 5,
            size: 0,
        }
    }
}

/// The plugin.
pub struct QuantileRisk {
    settings: QuantileSettings,
    /// Rows of each environment of the step's batch, the new one first.
    spans: Vec<usize>,
}

impl QuantileRisk {
    /// A plugin with these settings.
    pub fn new(settings: QuantileSettings) -> Self {
        Self {
            settings,
            spans: Vec::new(),
        }
    }
}

/// What each risk counts: the derivatives of `mean + z · deviation`.
fn shares(risks: &[f64], level: f64) -> Vec<f64> {
    let m = risks.len() as f64;
    let mean = risks.iter().sum::<f64>() / m;
    let square = risks.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / m;
    // Where risks coincide the deviation has no slope: the root stays away from 0.
    let deviation = (square + 1e-8).sqrt();
    let z = ebb_space::stats::normal_quantile(level);
    let share = |r: &f64| (1.0 + z * (r - mean) / deviation) / m;
    risks.iter().map(share).collect()
}

impl Plugin for QuantileRisk {
    fn name(&self) -> &'static str {
        "quantile-risk"
    }

    fn add_rows(&mut self, scene: &mut Scene, new: &[Item], collect: &mut Collect) -> Result<()> {
        self.spans = vec![collect.len()];
        let Some(replay) = scene.replay.as_deref().filter(|r| !r.memory.is_empty()) else {
            return Ok(());
        };
        let metas = replay.memory.metas();
        let present = scene.experience as u32;
        let known: BTreeSet<u32> = metas.iter().map(|m| m.experience).collect();
        let mut known: Vec<u32> = known.into_iter().filter(|e| *e != present).collect();
        let key = scene.key.sub("environments").at(scene.step);
        key.order(&mut known, |e| u64::from(*e));
        known.truncate(self.settings.environments);
        known.sort_unstable();
        let size = match self.settings.size {
            0 => new.len(),
            n => n,
        };
        collect.support(SUPPORT);
        for environment in known {
            let of = metas
                .iter()
                .map(|m| f64::from(u8::from(m.experience == environment)));
            let of: Vec<f64> = of.collect();
            let held = of.iter().filter(|w| **w > 0.0).count();
            let name = format!("quantile-risk:{environment}");
            let select = Select::Weighted(&of);
            let drawn = replay
                .memory
                .draw(&name, select, size.min(held), scene.step)?;
            replay.add_rows(collect, &drawn.slots)?;
            self.spans.push(drawn.slots.len());
        }
        Ok(())
    }

    fn before_step(&mut self, scene: &mut Scene, batch: &mut Batch) -> Result<()> {
        if self.spans.len() < 2 {
            return Ok(());
        }
        let losses = scene.oracle.value(scene.remembering, batch)?.row_loss;
        let rows = losses.len() as f64;
        let mut start = 0;
        let risk = |n: &usize| {
            let of = &losses[start..start + n];
            start += n;
            of.iter().map(|l| f64::from(*l)).sum::<f64>() / *n as f64
        };
        let risks: Vec<f64> = self.spans.iter().map(risk).collect();
        // The objective is a mean over all rows; an environment's share is shared by its own.
        let shares = shares(&risks, self.settings.level);
        let each = self.spans.iter().zip(shares);
        let weight =
            each.flat_map(|(n, share)| std::iter::repeat_n((share * rows / *n as f64) as f32, *n));
        batch.rows.weight = Some(weight.collect());
        Ok(())
    }
}

/// The robust continual learner in the table of methods.
pub const QUANTILE_RISK: MethodCard = MethodCard {
    name: "quantile-risk",
    aliases: &["robust-continual-learner"],
    title: "Quantile of the environments' risks",
    source: "Kim & Saad, ICASSP 2024",
    card: "S065",
    family: "replay",
    use_it: "every environment must work, not their mean alone",
    not_for: "fewer than five environments at a level near 1",
    stores: "`capacity` examples",
    costs: "the remembered rows, twice forward",
    defaults: || settings_beside(500, &QuantileSettings::default()),
    expand: |with, _| {
        let (memory, own) = memory_and(with, KeepSpec::ExperienceBalanced, 1)?;
        Ok(Parts {
            memory: Some(memory),
            term: vec![cross_entropy("all", 1.0)],
            plugin: vec![PluginSpec::QuantileRisk(own)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    /// The shares are the slopes of the quantile, and at one half those of the mean.
    #[test]
    fn shares_are_the_derivatives_of_the_quantile() {
        let risks = [0.3, 1.1, 0.7, 0.2];
        let quantile = |r: &[f64]| {
            let mean = r.iter().sum::<f64>() / 4.0;
            let square = r.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / 4.0;
            // Φ⁻¹(0.9), from a table.
            mean + 1.281_551_565_544_600_4 * (square + 1e-8).sqrt()
        };
        for (i, share) in shares(&risks, 0.9).iter().enumerate() {
            let at = |h: f64| {
                let mut moved = risks;
                moved[i] += h;
                quantile(&moved)
            };
            let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
            assert!((share - slope).abs() < 1e-7, "{share} {slope}");
        }
        assert!(shares(&risks, 0.5).iter().all(|s| (s - 0.25).abs() < 1e-12));
        assert_eq!(shares(&[0.4, 0.4], 0.95), [0.5, 0.5]);
        // The worst counts most, and all together as much as before.
        let high = shares(&risks, 0.95);
        assert!(high[1] > 0.6 && (high.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
