//! Hindsight anchor learning.
//!
//! **What it does.** At the end of each experience it makes an input for every class where
//! forgetting will show most, its anchor, and while later ones are learned it holds the network's
//! answers there against each step.
//! **Source.** Chaudhry et al., AAAI 2021, "Using hindsight to anchor past knowledge in continual
//! learning"; numbers and details as the baseline of Buzzega et al., NeurIPS 2020 (peers' protocol).
//! **Equation.** With `θ̃ = θ − lr ∇L(θ)`, `L` over new and remembered rows:
//! `θ ← θ − lr ∇[L(θ) + λ · mean (z_θ(e) − z_θ̃(e))²]`, the mean over anchors e and outputs. An anchor
//! of class y starts uniform in [0, 1) and ascends, in `ascent` steps of size lr,
//! `ℓ(e, y; θ_M) − ℓ(e, y; θ) − γ‖φ_θ(e) − φ̄‖²`, where θ_M is θ after `finetune` batches of the
//! memory, φ the features and φ̄ their running mean over the experience, `φ̄ ← βφ̄ + (1−β) mean φ`.
//! **Use it** with known boundaries and inputs scaled to [0, 1]. **Not** with Adam in mind: θ̃ is a
//! step of plain gradient descent.
//! **Stores** `capacity` examples and an anchor a class an experience. **Costs** on top of replay one
//! gradient evaluation and a forward pass over all anchors and a forward pass over the new rows a
//! step (`through = "both"`: three gradient evaluations more), and `2 · ascent + finetune` gradient
//! evaluations an experience.
//!
//! Departures of the baseline from the paper, kept here: θ̃'s answers count as constants (`through =
//! "present"`), which turns the pull towards where the step leads; one φ̄ an experience and a squared
//! distance, not one a class and a cosine. `through = "both"` differentiates both answers, as the
//! paper's code does, with `∇²L · v` by a central difference. Here anchors are made in evaluation
//! mode, and with a head a task only an anchor's own head counts.

use crate::batch::{Batch, Collect};
use crate::error::{Error, Result};
use crate::methods::er::{cross_entropy, draw};
use crate::methods::{MethodCard, memory_and, settings_beside, take};
use crate::oracle::{Oracle, PassResult};
use crate::plugin::{Kept, Plugin, Scene};
use crate::seen::column;
use crate::spec::{Parts, PluginSpec, ReductionSpec, SelectSpec};
use ebb_memory::Select;
use ebb_space::{
    ExampleId, Layout, Normalisation, Objective, Reduction, Reference, Term, Weights, presets,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Which of the two answers at an anchor are differentiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Through {
    /// The present ones, as in the baseline's public code.
    Present,
    /// Those after the step too, as in the paper's.
    Both,
}

/// HAL's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct HalSettings {
    /// `λ`, the weight of the anchors.
    pub lambda: f64,
    /// `β`, what is kept of the running mean of features a step.
    pub beta: f64,
    /// `γ`, how near an anchor's features stay to that mean.
    pub gamma: f64,
    /// Steps an anchor is learned in.
    pub ascent: usize,
    /// Batches of the memory that `θ_M` is trained on.
    pub finetune: usize,
    /// Which answers are differentiated.
    pub through: Through,
}

impl Default for HalSettings {
    fn default() -> Self {
        Self {
            lambda: 0.1,
            beta: 0.5,
            gamma: 0.1,
            ascent: 100,
            finetune: 1,
            through: Through::Present,
        }
    }
}

/// The plugin.
pub struct Hal {
    settings: HalSettings,
    /// Inputs, row after row.
    anchors: Vec<f32>,
    /// Their tasks and output columns.
    classes: Vec<(u16, u32)>,
    /// `φ̄` of the experience under way.
    mean: Option<Vec<f32>>,
}

impl Hal {
    /// A plugin with these settings.
    pub fn new(settings: HalSettings) -> Self {
        Self {
            settings,
            anchors: Vec::new(),
            classes: Vec::new(),
            mean: None,
        }
    }

    /// `θ_M`: the present weights after some batches of the memory.
    fn finetuned(&self, scene: &mut Scene) -> Result<Weights> {
        let mut theta = scene.oracle.model.weights();
        let mut gradient = theta.zeros_like();
        let size = scene.recipe.train.batch;
        for k in 0..self.settings.finetune {
            let Some(replay) = scene.replay.as_deref().filter(|r| !r.memory.is_empty()) else {
                break;
            };
            let name = format!("hal:{k}");
            let drawn = (replay.memory).draw(&name, Select::Uniform, size, scene.step)?;
            let batch = scene.batch_of_slots("memory", &drawn.slots)?;
            let loss = scene.remembering;
            scene
                .oracle
                .gradient(loss, &batch, Some(&theta), &mut gradient)?;
            theta.axpy(-scene.lr as f32, &gradient);
        }
        Ok(theta)
    }

    /// Moves the anchors `x` of `classes` uphill, for `remembered = θ_M` and the present weights.
    fn ascend(
        &self,
        scene: &mut Scene,
        remembered: &Weights,
        classes: &[(u16, u32)],
        x: &mut [f32],
    ) -> Result<()> {
        let theta = scene.oracle.model.weights();
        let mut unused = theta.zeros_like();
        let objective = |terms: Vec<Term>| Objective {
            terms,
            reduction: Reduction::SumOfMeans,
        };
        let loss = || presets::cross_entropy("anchors");
        let distance = presets::feature_l2("anchors", Reference::Prototype, Normalisation::HalfSum);
        let now = objective(match self.mean {
            Some(_) => vec![loss(), distance.weighted(2.0 * self.settings.gamma)],
            None => vec![loss()],
        });
        let then = objective(vec![loss()]);
        // Each anchor has its own objective; the gradient is that of their mean.
        let step = scene.lr as f32 * classes.len() as f32;
        for _ in 0..self.settings.ascent {
            let mut batch = batch(scene, x, classes);
            batch.prototypes = self.mean.as_ref().map(|m| m.repeat(classes.len()));
            scene.oracle.model.set_weights(remembered)?;
            let (_, up) = scene.oracle.input_gradient(&then, &batch, &mut unused)?;
            scene.oracle.model.set_weights(&theta)?;
            let (_, down) = scene.oracle.input_gradient(&now, &batch, &mut unused)?;
            for ((x, up), down) in x.iter_mut().zip(up).zip(down) {
                *x += step * (up - down);
            }
        }
        Ok(())
    }

    /// The gradient of `λ · mean (z_θ(e) − z_θ̃(e))²`, for the gradient of the rest.
    fn hold(&self, scene: &mut Scene, rest: &Batch, gradient: &Weights) -> Result<Weights> {
        let anchors = batch(scene, &self.anchors, &self.classes);
        let theta = scene.oracle.model.weights();
        let mut ahead = theta.clone();
        ahead.axpy(-scene.lr as f32, gradient);
        let (present, _) = scene.oracle.forward(&anchors);
        let mut difference = Vec::new();
        let weigh = |ahead: &[f32]| weighted(&anchors, &present, ahead, self.settings.lambda);
        let mut by_ahead = theta.zeros_like();
        scene.oracle.model.set_weights(&ahead)?;
        match self.settings.through {
            Through::Present => difference = weigh(&scene.oracle.forward(&anchors).0),
            Through::Both => scene.oracle.pull_back(
                &anchors,
                |z| {
                    difference = weigh(z);
                    difference.clone()
                },
                &mut by_ahead,
            ),
        }
        scene.oracle.model.set_weights(&theta)?;
        let mut pull = theta.zeros_like();
        scene.oracle.pull_back(&anchors, |_| difference, &mut pull);
        let norm = by_ahead.norm();
        if self.settings.through == Through::Both && norm > 0.0 {
            // θ̃'s answers enter with −1, through ∂θ̃/∂θ = I − lr ∇²L.
            pull.axpy(-1.0, &by_ahead);
            let curvature = curved(scene, rest, &theta, &by_ahead, NUDGE / norm)?;
            pull.axpy(scene.lr as f32, &curvature);
        }
        Ok(pull)
    }
}

/// How far the weights are moved to either side for a product with the Hessian.
const NUDGE: f64 = 1e-2;

/// `∇²L · v` by a central difference of step `h`, leaving running statistics as they are.
fn curved(
    scene: &mut Scene,
    rest: &Batch,
    theta: &Weights,
    v: &Weights,
    h: f64,
) -> Result<Weights> {
    let buffers = scene.oracle.model.buffers().clone();
    let mut at = |h: f64| -> Result<Weights> {
        let (mut moved, mut gradient) = (theta.clone(), theta.zeros_like());
        moved.axpy(h as f32, v);
        scene
            .oracle
            .gradient(scene.objective, rest, Some(&moved), &mut gradient)?;
        Ok(gradient)
    };
    let (mut product, behind) = (at(h)?, at(-h)?);
    product.axpy(-1.0, &behind);
    product.scale((0.5 / h) as f32);
    scene.oracle.model.set_buffers(buffers)?;
    Ok(product)
}

/// The derivative `2λ/n (z − z̃)` over the outputs that count, n of them in all rows.
fn weighted(anchors: &Batch, present: &[f32], ahead: &[f32], lambda: f64) -> Vec<f32> {
    let rows = anchors.rows.len();
    let outputs = present.len() / rows.max(1);
    let mut by = vec![0.0; present.len()];
    let mut counted = 0;
    for i in 0..rows {
        let allowed = anchors.allowed(i);
        for k in (0..outputs).filter(|k| allowed.is_none_or(|set| set[*k])) {
            by[i * outputs + k] = present[i * outputs + k] - ahead[i * outputs + k];
            counted += 1;
        }
    }
    let scale = (2.0 * lambda / f64::from(counted.max(1))) as f32;
    by.iter_mut().for_each(|b| *b *= scale);
    by
}

/// Anchors as a batch on the support `anchors`.
fn batch(scene: &Scene, x: &[f32], classes: &[(u16, u32)]) -> Batch {
    let mut collect = Collect::default();
    collect.support("anchors");
    for (task, column) in classes {
        let id = ExampleId::of(b"anchor", *column);
        collect.row(id, *column, scene.class_sets.of(usize::from(*task)));
    }
    collect.x.extend_from_slice(x);
    scene.finish(collect)
}

impl Plugin for Hal {
    fn name(&self) -> &'static str {
        "hal"
    }

    fn begin_experience(&mut self, _: &mut Scene) -> Result<()> {
        self.mean = None;
        Ok(())
    }

    fn change_gradient(
        &mut self,
        scene: &mut Scene,
        batch: &Batch,
        _: &PassResult,
        gradient: &mut Weights,
    ) -> Result<()> {
        if !self.classes.is_empty() && self.settings.lambda != 0.0 {
            let pull = self.hold(scene, batch, gradient)?;
            gradient.axpy(1.0, &pull);
        }
        Ok(())
    }

    fn after_step(&mut self, scene: &mut Scene, batch: &Batch, _: &PassResult) -> Result<()> {
        let new = batch.rows.support.iter().filter(|s| **s == 0).count();
        // The mean holds the anchors to be made, and after the last experience none are.
        if new == 0 || scene.last() || self.settings.gamma == 0.0 {
            return Ok(());
        }
        let (_, features) = scene.oracle.forward(&batch.part(0..new));
        let width = features.len() / new;
        let mean = self.mean.get_or_insert_with(|| vec![0.0; width]);
        for (j, m) in mean.iter_mut().enumerate() {
            let of_new = features
                .iter()
                .skip(j)
                .step_by(width)
                .map(|f| f64::from(*f));
            let of_new = of_new.sum::<f64>() / new as f64;
            *m = (self.settings.beta * f64::from(*m) + (1.0 - self.settings.beta) * of_new) as f32;
        }
        Ok(())
    }

    fn end_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if scene.last() {
            return Ok(());
        }
        let class = |i: &ebb_data::Item| (i.task, column(scene.stream, i));
        let classes: BTreeSet<(u16, u32)> = scene.train().iter().map(class).collect();
        let classes: Vec<(u16, u32)> = classes.into_iter().collect();
        let width = scene.oracle.model.network().inputs() as u64;
        let key = scene.key.sub("anchor").at(scene.experience as u64);
        let start = |(_, column): &(u16, u32)| {
            let key = key.at(u64::from(*column));
            (0..width).map(move |i| key.uniform(i) as f32)
        };
        let mut x: Vec<f32> = classes.iter().flat_map(start).collect();
        let buffers = scene.oracle.model.buffers().clone();
        let remembered = self.finetuned(scene)?;
        scene.oracle.model.set_buffers(buffers)?;
        self.ascend(scene, &remembered, &classes, &mut x)?;
        self.anchors.extend(x);
        self.classes.extend(classes);
        Ok(())
    }

    fn keep(&self) -> Result<Kept> {
        let vector = |values: &[f32]| -> Result<Weights> {
            let layout = Layout::new([("values".to_owned(), vec![values.len()])])?;
            Ok(Weights::from_vec(&layout, values.to_vec())?)
        };
        let mut vectors = Vec::new();
        if !self.anchors.is_empty() {
            vectors.push(("anchors".to_owned(), vector(&self.anchors)?));
        }
        if let Some(mean) = &self.mean {
            vectors.push(("mean".to_owned(), vector(mean)?));
        }
        Kept::vectors(vectors).with_note(&self.classes)
    }

    fn restore(&mut self, mut kept: Kept, oracle: &mut Oracle) -> Result<()> {
        self.classes = kept.note()?;
        self.anchors = kept
            .take("anchors")
            .map_or_else(Vec::new, Weights::into_vec);
        self.mean = kept.take("mean").map(Weights::into_vec);
        let width = oracle.model.network().inputs();
        if self.anchors.len() != width * self.classes.len() {
            return Err(Error::Checkpoint {
                path: "a plugin's note".into(),
                reason: format!(
                    "{} anchors of {width} values each were named, {} values were kept",
                    self.classes.len(),
                    self.anchors.len()
                ),
            });
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        4 * (self.anchors.len() + self.mean.as_ref().map_or(0, Vec::len)) as u64
    }
}

/// HAL in the table of methods.
pub const HAL: MethodCard = MethodCard {
    name: "hal",
    aliases: &["hindsight-anchor-learning"],
    title: "Hindsight anchor learning",
    source: "Chaudhry et al., AAAI 2021",
    card: "S124",
    family: "replay",
    use_it: "known boundaries, a tiny memory and inputs scaled to [0, 1]",
    not_for: "streams without boundaries, data that may not be kept",
    stores: "`capacity` examples and one learned input a class an experience",
    costs: "the replayed rows, a gradient on all anchors and two forward passes",
    defaults: || {
        let mut table = settings_beside(200, &HalSettings::default());
        table.insert("keep".into(), "reservoir".into());
        table.insert("replay".into(), 0.into());
        table
    },
    expand: |with, _| {
        let mut with = with.clone();
        let replay = take(&mut with, "replay")?;
        let keep = take(&mut with, "keep")?;
        let (memory, own) = memory_and(&with, keep, 1)?;
        Ok(Parts {
            memory: Some(memory),
            draw: BTreeMap::from([("a".to_owned(), draw(SelectSpec::Uniform, replay))]),
            term: vec![cross_entropy("all", 1.0)],
            reduction: Some(ReductionSpec::MeanOverRows),
            plugin: vec![PluginSpec::Hal(own)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging;
    use crate::session::Session;
    use ebb_space::Key;

    /// HAL with random anchors, at the first step of the second experience.
    fn holding(scenario: &str, through: Through) -> (Session, Hal) {
        let s = staging::session("hal", scenario, &[("train.lr", "0.5")]);
        let mut hal = Hal::new(HalSettings {
            lambda: 5.0,
            through,
            ..HalSettings::default()
        });
        let mut draws = Key::new(2, "anchors").stream();
        let width = s.oracle.model.network().inputs();
        hal.classes = vec![(0, 0), (0, 1)];
        hal.anchors = (0..2 * width).map(|_| draws.uniform() as f32).collect();
        (s, hal)
    }

    /// The anchors' gradient against finite differences, along random directions, of the penalty
    /// written out on the logits; with the answers ahead held constant, and with the step to them
    /// taken anew from every point. With a head a task, the other heads do not count.
    #[test]
    fn the_pull_is_the_gradient_of_the_published_penalty() {
        for scenario in ["class", "task"] {
            for through in [Through::Present, Through::Both] {
                let (mut s, hal) = holding(scenario, through);
                staging::act(&mut s, 1, |scene| {
                    let rest = scene.batch_of("new", &scene.train()[..16]);
                    let theta = scene.oracle.model.weights();
                    let mut gradient = theta.zeros_like();
                    let mut task = |scene: &mut Scene, at: &Weights| {
                        let objective = scene.objective;
                        let pass = scene
                            .oracle
                            .gradient(objective, &rest, Some(at), &mut gradient);
                        pass.expect("a gradient");
                        gradient.clone()
                    };
                    let first = task(scene, &theta);
                    let pull = hal.hold(scene, &rest, &first).expect("a pull");
                    let answers = |scene: &mut Scene, at: &Weights| {
                        scene.oracle.model.set_weights(at).expect("its own layout");
                        let z = scene.oracle.logits(hal.anchors.clone(), 2);
                        let counted = if scenario == "task" { 2 } else { z.len() / 2 };
                        let rows = z.chunks_exact(z.len() / 2).flat_map(|r| &r[..counted]);
                        rows.map(|v| f64::from(*v)).collect::<Vec<f64>>()
                    };
                    let ahead = |scene: &mut Scene, at: &Weights, gradient: &Weights| {
                        let mut moved = at.clone();
                        moved.axpy(-0.5, gradient);
                        answers(scene, &moved)
                    };
                    let constant = ahead(scene, &theta, &first);
                    let mut penalty = |scene: &mut Scene, at: &Weights| {
                        let there = match through {
                            Through::Present => constant.clone(),
                            Through::Both => {
                                let gradient = task(scene, at);
                                ahead(scene, at, &gradient)
                            }
                        };
                        let here = answers(scene, at);
                        let squares = here.iter().zip(&there).map(|(a, b)| (a - b).powi(2));
                        5.0 * squares.sum::<f64>() / here.len() as f64
                    };
                    let mut draws = Key::new(9, "directions").stream();
                    for _ in 0..6 {
                        let mut direction = theta.zeros_like();
                        let values = direction.as_mut_slice().iter_mut();
                        values.for_each(|v| *v = draws.normal() as f32);
                        let h = 2e-3f32;
                        let mut at = |step: f32| {
                            let mut moved = theta.clone();
                            moved.axpy(step, &direction);
                            penalty(scene, &moved)
                        };
                        let want = (at(h) - at(-h)) / (2.0 * f64::from(h));
                        let found = pull.dot(&direction);
                        assert!(
                            (found - want).abs() < 0.01 * pull.norm(),
                            "{scenario} {through:?}: {found} {want}, norm {}",
                            pull.norm()
                        );
                    }
                    assert!(pull.norm() > 1e-3);
                });
            }
        }
    }

    /// One step of the ascent against finite differences of its objective by the input; a hundred
    /// small ones raise it.
    #[test]
    fn anchors_ascend_the_forgetting() {
        let mut s = staging::session("hal", "class", &[("train.lr", "0.02")]);
        staging::act(&mut s, 1, |scene| {
            let theta = scene.oracle.model.weights();
            let mut draws = Key::new(5, "remembered").stream();
            let mut remembered = theta.clone();
            let values = remembered.as_mut_slice().iter_mut();
            values.for_each(|v| *v += 0.1 * draws.normal() as f32);
            let classes = [(0u16, 2u32), (0, 3)];
            let width = scene.oracle.model.network().inputs();
            let start: Vec<f32> = (0..2 * width).map(|_| draws.uniform() as f32).collect();
            let mean: Vec<f32> = (0..7).map(|_| draws.normal() as f32).collect();
            let hal = |ascent| Hal {
                mean: Some(mean.clone()),
                ..Hal::new(HalSettings {
                    gamma: 0.3,
                    ascent,
                    ..HalSettings::default()
                })
            };
            let value = |scene: &mut Scene, anchor: usize, x: &[f32]| -> f64 {
                let mut of = |w: &Weights| {
                    scene.oracle.model.set_weights(w).expect("its own layout");
                    let rows = batch(scene, x, &classes);
                    let (z, features) = scene.oracle.forward(&rows);
                    let z: Vec<f64> = z[anchor * 10..][..10]
                        .iter()
                        .map(|v| f64::from(*v))
                        .collect();
                    let sum = z.iter().map(|v| v.exp()).sum::<f64>().ln();
                    let away = features[anchor * 7..][..7].iter().zip(&mean);
                    let away = away.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
                    (sum - z[classes[anchor].1 as usize], away)
                };
                let (then, _) = of(&remembered);
                let (now, away) = of(&theta);
                then - now - 0.3 * away
            };
            let mut one = start.clone();
            hal(1)
                .ascend(scene, &remembered, &classes, &mut one)
                .expect("a step");
            let mut largest: f64 = 0.0;
            for i in (0..2 * width).step_by(5) {
                let h = 1e-2f32;
                let mut at = |step: f32| {
                    let mut x = start.clone();
                    x[i] += step;
                    value(scene, i / width, &x)
                };
                let slope = (at(h) - at(-h)) / (2.0 * f64::from(h));
                let found = f64::from(one[i] - start[i]) / 0.02;
                assert!(
                    (found - slope).abs() < 2e-3 * (0.5 + slope.abs()),
                    "{found} {slope}"
                );
                largest = largest.max(slope.abs());
            }
            assert!(largest > 1e-2);
            let mut many = start.clone();
            hal(100)
                .ascend(scene, &remembered, &classes, &mut many)
                .expect("steps");
            for anchor in 0..2 {
                assert!(value(scene, anchor, &many) > value(scene, anchor, &start) + 1e-2);
            }
        });
    }

    /// `φ̄` after two steps at fixed weights is `(1 − β²)` times the features' mean, and the next
    /// experience starts anew.
    #[test]
    fn the_mean_of_features_runs_from_zero() {
        let mut s = staging::session("hal", "class", &[]);
        staging::act(&mut s, 0, |scene| {
            let rows = scene.batch_of("new", &scene.train()[..11]);
            let pass = PassResult {
                value: scene
                    .oracle
                    .value(scene.remembering, &rows)
                    .expect("a value"),
                logits: Vec::new(),
                features: Vec::new(),
            };
            let (_, features) = scene.oracle.forward(&rows);
            let mut hal = Hal::new(HalSettings {
                beta: 0.6,
                ..HalSettings::default()
            });
            hal.after_step(scene, &rows, &pass).expect("a step");
            hal.after_step(scene, &rows, &pass).expect("a step");
            let mean = hal.mean.clone().expect("a mean");
            assert_eq!(mean.len(), 7);
            for (j, m) in mean.iter().enumerate() {
                let sum: f32 = features.iter().skip(j).step_by(7).sum();
                assert!((m - 0.64 * sum / 11.0).abs() < 1e-6);
            }
            hal.begin_experience(scene).expect("a beginning");
            assert!(hal.mean.is_none());
        });
    }
}
