//! Proxy-based contrastive replay, and its holistic form.
//!
//! **What it does.** Takes the classifier's weights as proxies of the classes and contrasts every
//! row with the proxies of the labels that occur in the batch, new and replayed together, so that
//! new classes do not push away the proxies of old ones that are not there. HPCR lets the weight of
//! that contrast rise and fall, and holds logits and likenesses as the memory has them.
//! **Source.** PCR: Lin et al., CVPR 2023; HPCR: Lin et al., TNNLS 2025 (card S131), and its released
//! code. Without its augmented copies, which proxies do not need.
//! **Equation.** With `s_ic = cos(φ_i, w_c)/τ`, y the labels of the batch's B rows and M the
//! replayed ones:
//! `L_PCR = mean_i −ln (exp s_{i,y_i} / Σ_{j∈B} exp s_{i,y_j})`;
//! `L = κ(t) L_PCR + α mean_{i∈M, j∈B} (s_{i,y_j} − s'_{i,y_j})² + β mean_{i∈M} H(p'_i, p_i)`
//! with stored `s'`, `p_i = softmax_{j∈M, j≠i}(cos(φ_i, φ_j)/τ)`, `p'` of stored features, and
//! `κ(t) = κ₀ + (κ₁ − κ₀)(1 − cos(2πt/500))/2`; α and β act from the second experience on.
//! **Use it** online, in small batches, with `network.head = { kind = "cosine", scale = 11.1 }`:
//! the scale is `1/τ`. **Not** with a head a task, where no classes compete.
//! **Stores** `capacity` examples; HPCR their logits and features too. **Costs** the replayed rows
//! on top of the batch.

use crate::batch::Batch;
use crate::error::Result;
use crate::methods::er::{cross_entropy, draw};
use crate::methods::{MethodCard, settings};
use crate::plugin::{Plugin, Scene};
use crate::spec::{
    ClassesSpec, KeepSpec, LossSpec, MemorySpec, Parts, PluginSpec, ReductionSpec, SelectSpec,
    TermSpec,
};
use ebb_space::{Objective, Reference};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct PcrSettings {
    capacity: usize,
    replay: usize,
}

impl Default for PcrSettings {
    fn default() -> Self {
        Self {
            capacity: 500,
            replay: 0,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct HpcrSettings {
    capacity: usize,
    replay: usize,
    /// Weight of the distance to the stored logits at the labels of the batch, α.
    alpha: f64,
    /// Weight of the likeness of stored features, β.
    beta: f64,
    low: f64,
    high: f64,
    period: u64,
}

impl Default for HpcrSettings {
    fn default() -> Self {
        let cycle = ProxyCycleSettings::default();
        Self {
            capacity: 500,
            replay: 0,
            alpha: 0.1,
            beta: 0.5,
            low: cycle.low,
            high: cycle.high,
            period: cycle.period,
        }
    }
}

/// The course of the contrast's weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct ProxyCycleSettings {
    /// Its least weight, κ₀; 0.09/0.16 as published.
    pub low: f64,
    /// Its greatest, κ₁; 0.09/0.05 as published.
    pub high: f64,
    /// Steps of an experience from one least weight to the next.
    pub period: u64,
}

impl Default for ProxyCycleSettings {
    fn default() -> Self {
        Self {
            low: 0.5625,
            high: 1.8,
            period: 500,
        }
    }
}

/// The plugin.
pub struct ProxyCycle {
    settings: ProxyCycleSettings,
}

impl ProxyCycle {
    /// A plugin with these settings.
    pub fn new(settings: ProxyCycleSettings) -> Self {
        Self { settings }
    }

    /// κ at a step of an experience.
    fn weight(&self, step: u64) -> f64 {
        let s = &self.settings;
        let phase = std::f64::consts::TAU * step as f64 / s.period.max(1) as f64;
        s.low + (s.high - s.low) * 0.5 * (1.0 - phase.cos())
    }
}

impl Plugin for ProxyCycle {
    fn name(&self) -> &'static str {
        "proxy-cycle"
    }

    fn reshape(
        &mut self,
        scene: &mut Scene,
        _: &Batch,
        objective: &mut Cow<Objective>,
    ) -> Result<()> {
        let kappa = self.weight(scene.in_experience);
        for term in &mut objective.to_mut().terms {
            match (term.name.as_str(), term.reference) {
                ("proxy-contrast", _) => term.weight *= kappa,
                // Nothing is forgotten yet.
                ("proxy-distillation", _)
                | ("similarity-distillation", Reference::StoredFeatures)
                    if scene.experience == 0 =>
                {
                    term.weight = 0.0;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn parts(capacity: usize, replay: usize) -> Parts {
    Parts {
        memory: Some(MemorySpec {
            capacity,
            keep: KeepSpec::Reservoir,
        }),
        draw: BTreeMap::from([("a".to_owned(), draw(SelectSpec::Uniform, replay))]),
        term: vec![TermSpec {
            loss: LossSpec::ProxyContrast,
            ..cross_entropy("all", 1.0)
        }],
        reduction: Some(ReductionSpec::SumOfMeans),
        ..Parts::default()
    }
}

/// PCR in the table of methods.
pub const PCR: MethodCard = MethodCard {
    name: "pcr",
    aliases: &["proxy-contrastive-replay"],
    title: "Proxy-based contrastive replay",
    source: "Lin et al., CVPR 2023",
    card: "S131",
    family: "replay",
    use_it: "online, in small batches, with a cosine head of scale 11.1",
    not_for: "a head a task, where no classes compete",
    stores: "`capacity` examples",
    costs: "the replayed rows on top of the batch",
    defaults: || settings(&PcrSettings::default()),
    expand: |with, _| {
        let s: PcrSettings = crate::methods::read(with)?;
        Ok(parts(s.capacity, s.replay))
    },
};

/// HPCR in the table of methods.
pub const HPCR: MethodCard = MethodCard {
    name: "hpcr",
    aliases: &["holistic-proxy-contrastive-replay"],
    title: "Holistic proxy-based contrastive replay",
    source: "Lin et al., TNNLS 2025",
    stores: "`capacity` examples, their logits and features",
    defaults: || settings(&HpcrSettings::default()),
    expand: |with, _| {
        let s: HpcrSettings = crate::methods::read(with)?;
        let mut parts = parts(s.capacity, s.replay);
        let held = |loss, weight, classes| TermSpec {
            loss,
            classes,
            ..cross_entropy("replay:a", weight)
        };
        parts.term.extend([
            held(LossSpec::ProxyDistillation, s.alpha, ClassesSpec::All),
            held(LossSpec::StoredSimilarity, s.beta, ClassesSpec::Scenario),
        ]);
        parts
            .plugin
            .push(PluginSpec::ProxyCycle(ProxyCycleSettings {
                low: s.low,
                high: s.high,
                period: s.period,
            }));
        Ok(parts)
    },
    ..PCR
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging;

    /// κ starts at its least, is greatest half a period later, and comes back.
    #[test]
    fn the_weight_rises_and_falls() {
        let cycle = ProxyCycle::new(ProxyCycleSettings::default());
        for (step, want) in [
            (0, 0.5625),
            (125, 1.18125),
            (250, 1.8),
            (500, 0.5625),
            (750, 1.8),
        ] {
            assert!((cycle.weight(step) - want).abs() < 1e-12, "{step}");
        }
    }

    /// The whole loss, as the paper has it row by row, in f64 on the logits and features of a
    /// batch with replayed rows. Ours lacks the constant `ln n_y` of the contrast.
    #[test]
    fn the_loss_is_the_papers() {
        let sets = [
            ("network.head", "{ kind = 'cosine', scale = 11.0 }"),
            ("with.capacity", "30"),
            ("stream.split", "2"),
        ];
        let mut s = staging::run(staging::session("hpcr", "class", &sets));
        // Away from the weights the newest records were stored at.
        staging::jolt(&mut s.oracle.model, 0.1);
        for experience in [0, 1] {
            staging::act(&mut s, experience, |scene| {
                scene.in_experience = 40;
                let slots: Vec<u32> = (0..9).collect();
                let new = scene.train()[..7].to_vec();
                let batch = staging::mixed(scene, &new, &[("replay:a", &slots)]);
                let mut objective = Cow::Borrowed(scene.objective);
                let mut cycle = ProxyCycle::new(ProxyCycleSettings::default());
                let done = cycle.reshape(scene, &batch, &mut objective);
                done.expect("nothing to fail at");
                let found = scene.oracle.value(&objective, &batch).expect("a value");

                let (logits, features) = scene.oracle.forward(&batch);
                let (n, m) = (batch.rows.len(), slots.len());
                let (k, d) = (logits.len() / n, features.len() / n);
                let y = |i: usize| batch.rows.labels[i] as usize;
                let stored = batch.stored_logits.as_ref().expect("logits");
                let kept = batch.stored_features.as_ref().expect("features");
                let at = |z: &[f32], i: usize, c: usize| f64::from(z[i * k + c]);
                let contrast = |i: usize| {
                    let below: f64 = (0..n).map(|j| at(&logits, i, y(j)).exp()).sum();
                    let alike = (0..n).filter(|j| y(*j) == y(i)).count() as f64;
                    -(at(&logits, i, y(i)).exp() / below).ln() - alike.ln()
                };
                let pcr = (0..n).map(contrast).sum::<f64>() / n as f64;
                let apart =
                    |i: usize, j: usize| (at(&logits, i, y(j)) - at(stored, i, y(j))).powi(2);
                let pairs = (n - m..n).flat_map(|i| (0..n).map(move |j| (i, j)));
                let pcd = pairs.map(|(i, j)| apart(i, j)).sum::<f64>() / (m * n) as f64;
                let likeness = |f: &[f32], i: usize, j: usize| {
                    let row = |i: usize| f[i * d..(i + 1) * d].iter().map(|v| f64::from(*v));
                    let dot = |i, j| row(i).zip(row(j)).map(|(a, b)| a * b).sum::<f64>();
                    dot(i, j) / (dot(i, i) * dot(j, j)).sqrt() / 0.09
                };
                let softmax = |f: &[f32], i: usize, j: usize| {
                    let others = (n - m..n).filter(|o| *o != i);
                    let sum: f64 = others.map(|o| likeness(f, i, o).exp()).sum();
                    likeness(f, i, j).exp() / sum
                };
                let crossed = |i: usize| {
                    let others = (n - m..n).filter(|o| *o != i);
                    others
                        .map(|j| -softmax(kept, i, j) * softmax(&features, i, j).ln())
                        .sum::<f64>()
                };
                let scd = (n - m..n).map(crossed).sum::<f64>() / m as f64;
                let kappa = 0.5625 + 1.2375 * 0.5 * (1.0 - (0.16 * std::f64::consts::PI).cos());
                let held = if experience == 0 { 0.0 } else { 1.0 };
                let want = kappa * pcr + held * (0.1 * pcd + 0.5 * scd);
                assert!((found.total - want).abs() < 1e-5, "{} {want}", found.total);
                assert!(pcd > 1e-3, "stored logits are others: {pcd}");
            });
        }
    }
}
