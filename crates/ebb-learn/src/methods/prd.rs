//! Prototype-sample relation distillation.
//!
//! **What it does.** Learns features by supervised contrast and, beside them, a prototype a class
//! that follows the features without moving them. What old prototypes think of the new examples, as
//! a distribution over the examples of the batch, is kept; so they stay usable with nothing stored.
//! **Source.** Asadi et al., ICML 2023 (card S128), and its released code. Here the contrast is of
//! the features themselves, without a projection behind them, the batch is not doubled by
//! augmentation (add `[[plugin]] kind = "view-batch"` for images), and the relation is a mean over
//! the old prototypes.
//! **Equation.** With features `h`, prototypes `P_c`, scores `s_ic = h_i·P_c/|P_c|`, and `s'` of
//! the network after the last experience:
//! `L = SupCon(h; 0.1) + π mean_i (1 − cos(P_{y_i}, sg h_i)) + δ mean_{c old} KL(p'_c ‖ p_c)`,
//! `p_c = softmax_i s_ic` along the batch, or with `axis = "class"` along the classes of each row.
//! **Use it** where nothing may be stored, with `network.head = "prototypes"` and batches of 128 or
//! so. **Not** in small batches, whose relations are noise.
//! **Stores** one copy of the weights. **Costs** one more forward pass a step.

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::methods::er::cross_entropy;
use crate::methods::{MethodCard, settings};
use crate::oracle::PassResult;
use crate::plugin::{Plugin, Scene};
use crate::spec::{ClassesSpec, LossSpec, Parts, PluginSpec, ReductionSpec, TermSpec};
use ebb_space::{Support, Weights};
use serde::{Deserialize, Serialize};

/// Along what the scores of old prototypes are a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Axis {
    /// The examples of the batch, for each prototype.
    Batch,
    /// The old classes, for each example: LwF on these scores.
    Class,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct PrdSettings {
    /// Weight of the prototypes' pull, π.
    pull: f64,
    /// Weight of the relation, δ.
    relation: f64,
    temperature: f64,
    /// Along what the relation is a distribution: the rows of the `batch`, or the `class`es of a row.
    axis: Axis,
}

impl Default for PrdSettings {
    fn default() -> Self {
        Self {
            pull: 2.0,
            relation: 4.0,
            temperature: 0.1,
            axis: Axis::Batch,
        }
    }
}

/// The pull on the prototypes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct PullSettings {
    /// Its weight, π.
    pub weight: f64,
}

impl Default for PullSettings {
    fn default() -> Self {
        Self { weight: 2.0 }
    }
}

/// The plugin.
pub struct PrototypePull {
    settings: PullSettings,
}

impl PrototypePull {
    /// A plugin with these settings.
    pub fn new(settings: PullSettings) -> Self {
        Self { settings }
    }
}

/// Adds `weight` times the gradient of `1 − cos(p, h)` by `p` to `into`.
fn pull(p: &[f32], h: &[f32], weight: f64, into: &mut [f32]) {
    let dot = |a: &[f32], b: &[f32]| {
        let each = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        each.sum::<f64>()
    };
    let (of_p, of_h) = (dot(p, p).sqrt(), dot(h, h).sqrt());
    if of_p == 0.0 || of_h == 0.0 {
        return; // no direction to turn in
    }
    let cos = dot(p, h) / (of_p * of_h);
    for ((g, p), h) in into.iter_mut().zip(p).zip(h) {
        let slope = f64::from(*h) / of_h - cos * f64::from(*p) / of_p;
        *g -= (weight * slope / of_p) as f32;
    }
}

impl Plugin for PrototypePull {
    fn name(&self) -> &'static str {
        "prototype-pull"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        let mut entries = scene.oracle.model.layout().entries().iter();
        let biased = |path: &str| path.starts_with("head") && path.ends_with(".bias");
        match entries.any(|e| biased(&e.path)) {
            false => Ok(()),
            true => Err(Error::Recipe {
                reason: "prototypes are directions and have no bias: set network.head = \
                         \"prototypes\" (or a cosine head)"
                    .into(),
            }),
        }
    }

    fn change_gradient(
        &mut self,
        scene: &mut Scene,
        batch: &Batch,
        pass: &PassResult,
        gradient: &mut Weights,
    ) -> Result<()> {
        let asked;
        let features = match pass.features.is_empty() {
            false => &pass.features,
            true => {
                asked = scene.oracle.forward(batch).1;
                &asked
            }
        };
        let width = scene.oracle.model.network().features();
        let layout = scene.oracle.model.layout().clone();
        let weights = scene.oracle.model.weights();
        let (rows, new) = (&batch.rows, Support::from("new"));
        let is_new: Vec<bool> = rows.supports.iter().map(|s| new.contains(s)).collect();
        let members: Vec<usize> = (0..rows.len())
            .filter(|i| is_new[usize::from(rows.support[*i])])
            .collect();
        let weight = self.settings.weight / members.len().max(1) as f64;
        // Heads side by side: the prototype of column c is row c of their weights.
        let mut first = 0;
        for entry in layout.entries() {
            if !(entry.path.starts_with("head") && entry.path.ends_with(".weight")) {
                continue;
            }
            let columns = first..first + entry.range.len() / width;
            for &i in &members {
                let column = rows.labels[i] as usize;
                if columns.contains(&column) {
                    let start = entry.range.start + (column - first) * width;
                    let p = &weights.as_slice()[start..start + width];
                    let h = &features[i * width..(i + 1) * width];
                    let into = &mut gradient.as_mut_slice()[start..start + width];
                    pull(p, h, weight, into);
                }
            }
            first = columns.end;
        }
        Ok(())
    }
}

/// PRD in the table of methods.
pub const PRD: MethodCard = MethodCard {
    name: "prd",
    aliases: &["prototype-relation-distillation"],
    title: "Prototype-sample relation distillation",
    source: "Asadi et al., ICML 2023",
    card: "S128",
    family: "distillation",
    use_it: "nothing may be stored; with `network.head = \"prototypes\"` and batches of 128",
    not_for: "small batches, and heads with a bias (refused)",
    stores: "one copy of the weights",
    costs: "one more forward pass a step",
    defaults: || settings(&PrdSettings::default()),
    expand: |with, _| {
        let s: PrdSettings = crate::methods::read(with)?;
        let relation = TermSpec {
            loss: match s.axis {
                Axis::Batch => LossSpec::PrototypeRelation,
                Axis::Class => LossSpec::Distillation,
            },
            classes: ClassesSpec::Old,
            ..cross_entropy("new", s.relation)
        };
        let contrast = TermSpec {
            loss: LossSpec::SupCon,
            temperature: Some(s.temperature),
            ..cross_entropy("new", 1.0)
        };
        Ok(Parts {
            term: vec![contrast, relation],
            plugin: vec![PluginSpec::PrototypePull(PullSettings { weight: s.pull })],
            reduction: Some(ReductionSpec::SumOfMeans),
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging;

    fn cosine(a: &[f64], b: &[f64]) -> f64 {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    fn wide(v: &[f32]) -> Vec<f64> {
        v.iter().map(|v| f64::from(*v)).collect()
    }

    /// The pull against finite differences of the mean of `1 − cos`, the features held; nothing
    /// but prototypes moves. With a head a task too, where columns are counted through the heads.
    #[test]
    fn the_pull_moves_prototypes_alone() {
        for scenario in ["class", "task"] {
            let sets = [("network.head", "prototypes")];
            let mut s = staging::session("prd", scenario, &sets);
            staging::act(&mut s, 1, |scene| {
                let batch = scene.batch_of("new", &scene.train()[..11]);
                let (n, width) = (11, scene.oracle.model.network().features());
                let value = scene.oracle.value(scene.remembering, &batch);
                let features = scene.oracle.forward(&batch).1;
                let pass = PassResult {
                    value: value.expect("a value"),
                    logits: Vec::new(),
                    features: features.clone(),
                };
                let mut gradient = Weights::zeros(scene.oracle.model.layout());
                let mut plugin = PrototypePull::new(PullSettings::default());
                let done = plugin.change_gradient(scene, &batch, &pass, &mut gradient);
                done.expect("features are there");
                let weights = scene.oracle.model.weights();
                let (heads, others): (Vec<_>, Vec<_>) =
                    (weights.iter()).partition(|(entry, _)| entry.path.starts_with("head"));
                let prototypes: Vec<f64> = heads.iter().flat_map(|(_, v)| wide(v)).collect();
                let loss = |p: &[f64]| {
                    let each = (0..n).map(|i| {
                        let c = batch.rows.labels[i] as usize;
                        let h = wide(&features[i * width..(i + 1) * width]);
                        2.0 * (1.0 - cosine(&p[c * width..(c + 1) * width], &h))
                    });
                    each.sum::<f64>() / n as f64
                };
                let found = heads.iter().flat_map(|(entry, _)| {
                    gradient.get(&entry.path).expect("the same layout").to_vec()
                });
                let mut moved = 0;
                for (j, found) in found.enumerate() {
                    let at = |step: f64| {
                        let mut p = prototypes.clone();
                        p[j] += step;
                        loss(&p)
                    };
                    let want = (at(1e-5) - at(-1e-5)) / 2e-5;
                    assert!(
                        (f64::from(found) - want).abs() < 1e-6,
                        "{j}: {found} {want}"
                    );
                    moved += usize::from(found != 0.0);
                }
                assert_eq!(moved, 2 * width); // the two classes of the experience
                for (entry, _) in others {
                    let g = gradient.get(&entry.path).expect("the same layout");
                    assert!(g.iter().all(|g| *g == 0.0), "{}", entry.path);
                }
            });
        }
    }

    /// Contrast and relation, written out in f64; the cross-entropy is not added, and there is no
    /// relation in the first experience.
    #[test]
    fn the_loss_is_the_papers() {
        let sets = [("network.head", "prototypes"), ("stream.split", "2")];
        let mut s = staging::session("prd", "class", &sets);
        staging::act(&mut s, 0, |scene| {
            let names: Vec<&str> = scene.objective.terms.iter().map(|t| &*t.name).collect();
            assert_eq!(names, ["sup-con"]);
        });
        s.oracle.freeze_teacher();
        staging::jolt(&mut s.oracle.model, 0.2);
        staging::act(&mut s, 1, |scene| {
            let batch = scene.batch_of("new", &scene.train()[..8]);
            let found = scene
                .oracle
                .value(scene.objective, &batch)
                .expect("a value");
            let features = wide(&scene.oracle.forward(&batch).1);
            let width = features.len() / 8;
            let row = |i: usize| &features[i * width..(i + 1) * width];
            let labels = &batch.rows.labels;
            let contrast = |i: usize| {
                let others = || (0..8).filter(|j| *j != i);
                let alike: Vec<usize> = others().filter(|j| labels[*j] == labels[i]).collect();
                let e = |j: usize| (cosine(row(i), row(j)) / 0.1).exp();
                let below: f64 = others().map(e).sum();
                let sum: f64 = alike.iter().map(|j| (e(*j) / below).ln()).sum();
                -sum / alike.len().max(1) as f64
            };
            let sup_con = (0..8).map(contrast).sum::<f64>() / 8.0;
            // Scores of the prototypes of the first five classes, now and before.
            let scores = |weights: &Weights, features: &[f64]| -> Vec<Vec<f64>> {
                let p = wide(weights.get("head.weight").expect("prototypes"));
                let score = |i: usize, c: usize| {
                    let (h, p) = (&features[i * width..][..width], &p[c * width..][..width]);
                    cosine(h, p) * h.iter().map(|v| v * v).sum::<f64>().sqrt()
                };
                (0..5)
                    .map(|c| (0..8).map(|i| score(i, c)).collect())
                    .collect()
            };
            let now = scores(&scene.oracle.model.weights(), &features);
            let teacher = scene.oracle.teacher.as_mut().expect("frozen");
            let before = teacher.forward(batch.x.clone(), &mut ebb_net::Taps::none());
            let before = wide(&ebb_kernels::slices::to_vec(&before.features));
            let before = scores(&teacher.weights(), &before);
            let softmax = |s: &[f64], i: usize| s[i].exp() / s.iter().map(|s| s.exp()).sum::<f64>();
            let kl = |c: usize| -> f64 {
                let ratio = |i| (softmax(&before[c], i) / softmax(&now[c], i)).ln();
                (0..8).map(|i| softmax(&before[c], i) * ratio(i)).sum()
            };
            let relation = (0..5).map(kl).sum::<f64>() / 5.0;
            let want = sup_con + 4.0 * relation;
            assert!(
                (found.total - want).abs() < 1e-5 * want,
                "{} {want}",
                found.total
            );
            assert!(relation > 1e-4, "{relation}");
        });
    }
}
