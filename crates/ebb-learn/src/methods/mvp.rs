//! Masked and focused replay for blurry streams: MVP without its prompts.
//!
//! **What it does.** In each step only the classes of the batch compete, and a row counts the more
//! the less its gradient at its class's weights agrees with the batch's: few examples of a class
//! among many others are not drowned.
//! **Source.** Moon et al., ICCV 2023, "Online class incremental learning on stochastic blurry
//! task boundary via mask and visual prompt tuning" (card S139). Its mask is learned with the
//! prompts of a frozen transformer; without prompts it is that of the batch. Its scaling of the
//! features is left out.
//! **Equation.** `L = mean_i [(1−γ) + γ s_i²] CE_i`, `s_i = 1 − cos(∂CE_i/∂w_{y_i}, ∂L̄/∂w_{y_i})`
//! with `L̄` the batch's mean cross-entropy; `s` is not differentiated.
//! **Use it** online on unequal classes. **Not** to judge by balanced streams, where the batch's
//! classes are all classes.
//! **Stores** `capacity` examples. **Costs** a forward pass over the batch on top of replay.

use crate::batch::Batch;
use crate::error::Result;
use crate::methods::er::{cross_entropy, draw};
use crate::methods::{MethodCard, memory_and, settings_beside};
use crate::plugin::{Plugin, Scene};
use crate::spec::{KeepSpec, Parts, PluginSpec, SelectSpec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// MVP's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct MvpSettings {
    /// Share of the loss that is weighted.
    pub gamma: f64,
    /// Whether the classes of the batch alone compete.
    pub mask: bool,
}

impl Default for MvpSettings {
    fn default() -> Self {
        Self {
            gamma: 0.5,
            mask: true,
        }
    }
}

/// The plugin.
pub struct Mvp {
    settings: MvpSettings,
}

impl Mvp {
    /// A plugin with these settings.
    pub fn new(settings: MvpSettings) -> Self {
        Self { settings }
    }
}

/// `s` of each row: `logits` `[rows, outputs]`, `features` `[rows, width]`. The gradient of row
/// `j`'s cross-entropy at the weights of class `c` is `(p_{j,c} − [y_j = c]) h_j`.
fn disagreement(logits: &[f32], features: &[f32], batch: &Batch) -> Vec<f64> {
    let labels = &batch.rows.labels;
    let outputs = logits.len() / labels.len().max(1);
    let width = features.len() / labels.len().max(1);
    let residuals = logits.chunks_exact(outputs).enumerate().map(|(i, z)| {
        let open = |c: usize| batch.allowed(i).is_none_or(|set| set[c]);
        let z = |c: usize| f64::from(z[c]);
        let top = (0..outputs).filter(|c| open(*c)).map(z);
        let top = top.fold(f64::NEG_INFINITY, f64::max);
        let e = |c| if open(c) { (z(c) - top).exp() } else { 0.0 };
        let sum: f64 = (0..outputs).map(e).sum();
        let hit = |c: usize| f64::from(u8::from(labels[i] as usize == c));
        (0..outputs).map(|c| e(c) / sum - hit(c)).collect()
    });
    let residuals: Vec<Vec<f64>> = residuals.collect();
    let row = |i: usize| &features[i * width..][..width];
    // The batch's gradient at the weights of each class that has a row.
    let mut whole: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for label in labels {
        whole.entry(*label as usize).or_insert_with(|| {
            let mut g = vec![0.0; width];
            for (j, r) in residuals.iter().enumerate() {
                let each = g.iter_mut().zip(row(j));
                each.for_each(|(g, h)| *g += r[*label as usize] * f64::from(*h));
            }
            g
        });
    }
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
    labels
        .iter()
        .enumerate()
        .map(|(i, label)| {
            let c = *label as usize;
            let (own, all) = (residuals[i][c], &whole[&c]);
            let dot: f64 = row(i)
                .iter()
                .zip(all)
                .map(|(h, g)| own * f64::from(*h) * g)
                .sum();
            let lengths = norm(&mut row(i).iter().map(|h| own * f64::from(*h)))
                * norm(&mut all.iter().copied());
            1.0 - if lengths > 0.0 { dot / lengths } else { 0.0 }
        })
        .collect()
}

impl Plugin for Mvp {
    fn name(&self) -> &'static str {
        "mvp"
    }

    fn before_step(&mut self, scene: &mut Scene, batch: &mut Batch) -> Result<()> {
        let (logits, features) = scene.oracle.forward(batch);
        let rows = batch.rows.len();
        if self.settings.mask {
            let mut present = vec![false; logits.len() / rows.max(1)];
            let labels = batch.rows.labels.iter();
            labels.for_each(|l| present[*l as usize] = true);
            match batch.rows.class_set {
                None => {
                    batch.rows.class_set = Some(vec![0; rows]);
                    batch.rows.class_sets = vec![present];
                }
                // Heads stay apart.
                Some(_) => batch.rows.class_sets.iter_mut().for_each(|set| {
                    set.iter_mut().zip(&present).for_each(|(s, p)| *s &= *p);
                }),
            }
        }
        let gamma = self.settings.gamma;
        let s = disagreement(&logits, &features, batch);
        let weight = s.iter().map(|s| ((1.0 - gamma) + gamma * s * s) as f32);
        batch.rows.weight = Some(weight.collect());
        Ok(())
    }
}

/// MVP in the table of methods.
pub const MVP: MethodCard = MethodCard {
    name: "mvp",
    aliases: &["si-blurry-mvp"],
    title: "Masked and focused replay (MVP without prompts)",
    source: "Moon et al., ICCV 2023",
    card: "S139",
    family: "replay",
    use_it: "online, blurry boundaries and unequal classes",
    not_for: "data that may not be kept",
    stores: "`capacity` examples",
    costs: "a forward pass over the batch on top of replay",
    defaults: || settings_beside(500, &MvpSettings::default()),
    expand: |with, _| {
        let (memory, own) = memory_and(with, KeepSpec::Reservoir, 1)?;
        Ok(Parts {
            memory: Some(memory),
            draw: BTreeMap::from([("a".to_owned(), draw(SelectSpec::Uniform, 0))]),
            term: vec![cross_entropy("all", 1.0)],
            plugin: vec![PluginSpec::Mvp(own)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging::{act, session};
    use ebb_data::Item;
    use ebb_space::Weights;

    /// Against the gradients that automatic differentiation finds, row by row.
    #[test]
    fn the_disagreement_is_that_of_the_gradients() {
        let mut s = session("mvp", "class", &[]);
        act(&mut s, 1, |scene| {
            let mut items: Vec<Item> = scene.train()[..6].to_vec();
            items.extend_from_slice(&scene.stream.experiences[0].train[..3]);
            let mut batch = scene.batch_of("new", &items);
            let mut plugin = Mvp::new(MvpSettings::default());
            plugin.before_step(scene, &mut batch).expect("a pass");
            let weight = batch.rows.weight.take().expect("weights");
            let layout = scene.oracle.model.layout().clone();
            let head = |rows: std::ops::Range<usize>, scene: &mut Scene| {
                let mut g = Weights::zeros(&layout);
                let part = batch.part(rows);
                let loss = scene.remembering;
                scene.oracle.gradient(loss, &part, None, &mut g).expect("g");
                g.get("head.weight").expect("a head").to_vec()
            };
            let whole = head(0..9, scene);
            for (i, weight) in weight.iter().enumerate() {
                let own = head(i..i + 1, scene);
                let width = own.len() / 10;
                let at = batch.rows.labels[i] as usize * width;
                let (a, b) = (&own[at..at + width], &whole[at..at + width]);
                let dot = |a: &[f32], b: &[f32]| -> f64 {
                    let pairs = a.iter().zip(b);
                    pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
                };
                let s = 1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
                let want = 0.5 + 0.5 * s * s;
                assert!((f64::from(*weight) - want).abs() < 1e-4, "{weight} {want}");
            }
        });
    }
}
