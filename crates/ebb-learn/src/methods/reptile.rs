//! Replay with Reptile: meta-experience replay at the cost of replay.
//!
//! **What it does.** A share of every batch is old examples, and every `every` steps the weights go
//! most of the way back to where they were that many steps ago. Steps that agree across batches, old
//! and new, add up and survive it; those that undo each other do not.
//! **Source.** Abbes et al., CoLLAs 2025, "Revisiting replay and gradient alignment for continual
//! pre-training of large language models" (card S145); meta-experience replay is Riemer et al., ICLR
//! 2019. There everything seen is in the memory at once, and when it is full a random slot is written
//! over; here records come in at the end of an experience, in equal shares by experience, so that
//! a replayed row is always of an earlier one.
//! **Equation.** Every k steps `θ ← θ_s + ε(θ − θ_s)`, `θ_s ← θ`; optimizer moments and running
//! statistics stay. To first order in the learning rate η, averaged over the order of k batches, the
//! steps descend `Σ L(B_i) − (η/2) Σ_{j<i} ∇L(B_i)·∇L(B_j)`. So do plain steps: what ε adds is a
//! term `1/ε` stronger per unit of progress, once η is raised to make up for it.
//! **Use it** on long streams that are trained in many steps, or alone on top of any method,
//! `[[plugin]] kind = "reptile"`. **Not** at the learning rate that suits plain steps: a small ε
//! throws most of the progress away, and looks stable because it learns little.
//! **Stores** `capacity` examples and one copy of the weights. **Costs** nothing on top of replay
//! (old rows take the place of new ones) but one pass over the weights every k steps.

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::methods::er::{cross_entropy, draw};
use crate::methods::{MethodCard, read, settings};
use crate::oracle::{Oracle, PassResult};
use crate::plugin::{Kept, Plugin, Scene};
use crate::spec::{
    DataPlan, DrawSpec, KeepSpec, MemorySpec, Parts, PluginSpec, ReductionSpec, SelectSpec,
};
use ebb_space::Weights;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The pull-back's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct ReptileSettings {
    /// Steps between two pulls, k.
    pub every: u64,
    /// What is kept of the way made since the last one, ε.
    pub epsilon: f64,
}

impl Default for ReptileSettings {
    fn default() -> Self {
        Self {
            every: 500,
            epsilon: 0.1,
        }
    }
}

impl ReptileSettings {
    /// Whether the numbers make sense.
    pub(crate) fn valid(&self) -> bool {
        self.every > 0 && self.epsilon > 0.0 && self.epsilon <= 1.0
    }
}

/// The plugin.
pub struct Reptile {
    settings: ReptileSettings,
    /// Where the weights were at the last pull, or at the start.
    start: Option<Weights>,
}

impl Reptile {
    /// A plugin with these settings.
    pub fn new(settings: ReptileSettings) -> Self {
        Self {
            settings,
            start: None,
        }
    }
}

impl Plugin for Reptile {
    fn name(&self) -> &'static str {
        "reptile"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        // A network that is begun anew has come no way yet.
        if self.start.is_none() || scene.recipe.data == DataPlan::Memory {
            self.start = Some(scene.oracle.model.weights());
        }
        Ok(())
    }

    fn after_step(&mut self, scene: &mut Scene, _: &Batch, _: &PassResult) -> Result<()> {
        if !(scene.step + 1).is_multiple_of(self.settings.every) {
            return Ok(());
        }
        let Some(start) = &mut self.start else {
            return Ok(());
        };
        let epsilon = self.settings.epsilon as f32;
        let layout = start.layout().clone();
        let start = start.as_mut_slice();
        let frozen = scene.frozen.as_ref().map(|(mask, _)| mask);
        scene.oracle.model.update(|tensor, theta| {
            let range = layout.entries()[tensor].range.clone();
            let each = theta.iter_mut().zip(&mut start[range.clone()]);
            for (i, (t, s)) in range.zip(each) {
                // What is frozen may have been elsewhere at the last pull.
                if frozen.is_none_or(|mask| !mask.contains(i)) {
                    *t = *s + epsilon * (*t - *s);
                }
                *s = *t;
            }
        });
        Ok(())
    }

    fn keep(&self) -> Result<Kept> {
        let start = self.start.iter().map(|w| ("start".to_owned(), w.clone()));
        Ok(Kept::vectors(start.collect()))
    }

    fn restore(&mut self, mut kept: Kept, _oracle: &mut Oracle) -> Result<()> {
        self.start = kept.take("start");
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.start.as_ref().map_or(0, |w| 4 * w.layout().len()) as u64
    }
}

/// What a recipe says of the whole method.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct MethodSettings {
    capacity: usize,
    /// The share of a batch that is old examples.
    share: f64,
    every: u64,
    epsilon: f64,
}

impl Default for MethodSettings {
    fn default() -> Self {
        let ReptileSettings { every, epsilon } = ReptileSettings::default();
        Self {
            capacity: 5000,
            share: 0.25,
            every,
            epsilon,
        }
    }
}

fn parts(s: &MethodSettings, batch: usize) -> Result<Parts> {
    if !(0.0..1.0).contains(&s.share) {
        return Err(Error::Recipe {
            reason: format!(
                "`with.share` is the part of a batch that is old examples: from 0 to below 1, not {}",
                s.share
            ),
        });
    }
    let rows = (s.share * batch as f64).round().max(1.0) as usize;
    let replays = s.share > 0.0;
    let old = DrawSpec {
        displaces: true,
        ..draw(SelectSpec::Cycle, rows)
    };
    Ok(Parts {
        memory: replays.then_some(MemorySpec {
            capacity: s.capacity,
            keep: KeepSpec::ExperienceBalanced,
        }),
        draw: BTreeMap::from_iter(replays.then_some(("old".to_owned(), old))),
        term: vec![cross_entropy("all", 1.0)],
        plugin: vec![PluginSpec::Reptile(ReptileSettings {
            every: s.every,
            epsilon: s.epsilon,
        })],
        reduction: Some(ReductionSpec::MeanOverRows),
        ..Parts::default()
    })
}

/// Replay with Reptile in the table of methods.
pub const REPTILE: MethodCard = MethodCard {
    name: "reptile",
    aliases: &["replay-reptile", "meta-experience-replay"],
    title: "Replay with Reptile",
    source: "Abbes et al., CoLLAs 2025",
    card: "S145",
    family: "replay",
    use_it: "long streams of many steps; on top of any method with `[[plugin]] kind = \"reptile\"`",
    not_for: "the learning rate of plain steps, at which a small `epsilon` learns little",
    stores: "`capacity` examples and one copy of the weights",
    costs: "one pass over the weights every `every` steps; old rows displace new ones",
    defaults: || settings(&MethodSettings::default()),
    expand: |with, situation| parts(&read(with)?, situation.batch),
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging;
    use crate::session::Session;
    use ebb_space::Mask;

    /// What the plugin sees after the step `step`.
    fn after(s: &mut Session, plugin: &mut Reptile, step: u64, frozen: Option<Mask>) {
        let anchor = s.oracle.model.weights();
        s.frozen = frozen.map(|mask| (mask, anchor));
        staging::act(s, 0, |scene| {
            scene.step = step;
            let batch = scene.batch_of("new", &scene.train()[..2]);
            let mut gradient = scene.oracle.model.weights();
            let pass = (scene.oracle).gradient(scene.objective, &batch, None, &mut gradient);
            let done = plugin.after_step(scene, &batch, &pass.expect("a pass"));
            done.expect("nothing to fail at");
        });
    }

    /// `½ a (θ − c)²` for each of three batches and two weights: curvature, centre.
    const BATCHES: [[(f64, f64); 2]; 3] = [
        [(1.0, 0.8), (0.2, -1.0)],
        [(0.3, -0.5), (1.5, 0.6)],
        [(2.0, 1.0), (0.7, -0.4)],
    ];

    /// The mean way over all orders of three steps of SGD and a pull is that of one step on
    /// `Σ L_i − (η/2) Σ_{j<i} ∇L_i·∇L_j`, times ε: with the half, and neither without the term nor
    /// with the whole of it.
    #[test]
    fn the_mean_way_descends_the_effective_objective() {
        let (eta, epsilon) = (0.02, 0.3);
        let orders = [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ];
        let slope = |i: usize, d: usize, theta: f64| {
            let (a, c) = BATCHES[i][d];
            a * (theta - c)
        };
        let begin = [0.25f64, 0.125];
        let mut way = [0.0; 2];
        for order in orders {
            let mut s = staging::session("fine-tune", "domain", &[]);
            s.oracle.model.update(|tensor, theta| {
                if tensor == 0 {
                    (theta[0], theta[1]) = (begin[0] as f32, begin[1] as f32);
                }
            });
            let mut plugin = Reptile::new(ReptileSettings { every: 3, epsilon });
            let begun = staging::act(&mut s, 0, |scene| plugin.begin_experience(scene));
            begun.expect("nothing to fail at");
            for (step, i) in order.into_iter().enumerate() {
                s.oracle.model.update(|tensor, theta| {
                    for d in (0..2).filter(|_| tensor == 0) {
                        theta[d] -= (eta * slope(i, d, f64::from(theta[d]))) as f32;
                    }
                });
                after(&mut s, &mut plugin, step as u64, None);
            }
            let theta = s.oracle.model.weights();
            for d in 0..2 {
                way[d] += (f64::from(theta.as_slice()[d]) - begin[d]) / 6.0;
            }
        }
        for d in 0..2 {
            let g = |i: usize| slope(i, d, begin[d]);
            let sum: f64 = (0..3).map(g).sum();
            // ∇ of Σ_{j<i} ∇L_i·∇L_j, by weight d.
            let pairs = [(0, 1), (0, 2), (1, 2)];
            let inner = pairs.map(|(i, j)| BATCHES[i][d].0 * g(j) + BATCHES[j][d].0 * g(i));
            let inner: f64 = inner.iter().sum();
            let predicted = |factor: f64| -epsilon * eta * (sum - factor * eta * inner);
            // What is left of three steps is `η³ a_k a_j g_i` alone; rounding is a hundredth of it.
            let most = |v: f64, i: usize| v.max(BATCHES[i][d].0.max(g(i).abs()));
            let left = epsilon * eta.powi(3) * (0..3).fold(0.0, most).powi(3);
            assert!((way[d] - predicted(0.5)).abs() < left, "{d}: {way:?}");
            for wrong in [0.0, 1.0] {
                assert!(
                    (way[d] - predicted(wrong)).abs() > 2.0 * left,
                    "{d} {wrong}"
                );
            }
        }
    }

    /// It fires every k steps of the run and not before, moves every weight but the frozen ones, and
    /// goes on from where it led.
    #[test]
    fn the_pull_is_the_equation_at_its_steps_alone() {
        let mut s = staging::session("fine-tune", "domain", &[]);
        let start = s.oracle.model.weights();
        let mut plugin = Reptile::new(ReptileSettings {
            every: 3,
            epsilon: 0.25,
        });
        let begun = staging::act(&mut s, 0, |scene| plugin.begin_experience(scene));
        begun.expect("nothing to fail at");
        staging::jolt(&mut s.oracle.model, 0.3);
        let away = s.oracle.model.weights();
        for step in [0, 1] {
            after(&mut s, &mut plugin, step, None);
            assert_eq!(s.oracle.model.weights().digest(), away.digest());
        }
        let (head, _) = Mask::from_globs(away.layout(), &["head*"]);
        after(&mut s, &mut plugin, 2, Some(head.clone()));
        let pulled = s.oracle.model.weights();
        for i in 0..away.layout().len() {
            let [t, s, found] = [&away, &start, &pulled].map(|w| w.as_slice()[i]);
            match head.contains(i) {
                true => assert_eq!(found.to_bits(), t.to_bits(), "{i}"),
                false => {
                    let want = f64::from(s) + 0.25 * (f64::from(t) - f64::from(s));
                    assert!((f64::from(found) - want).abs() < 1e-6, "{i}");
                }
            }
        }
        // Nothing moved since: the next pull changes no bit.
        after(&mut s, &mut plugin, 5, None);
        assert_eq!(s.oracle.model.weights().digest(), pulled.digest());
    }

    /// Running statistics are no parameters: a pull leaves them alone.
    #[test]
    fn running_statistics_stay() {
        let network = "{ kind = \"cnn\", channels = [4], hidden = 0, norm = true }";
        let sets = [
            ("network", network),
            ("with.every", "5"),
            ("with.epsilon", "0.1"),
        ];
        let mut s = staging::session("reptile", "domain", &sets);
        let mut plugin = Reptile::new(ReptileSettings {
            every: 5,
            epsilon: 0.1,
        });
        staging::train(&mut s, &mut plugin, 0, 4);
        let before = s.oracle.model.buffers().clone();
        assert!(!before.layout().is_empty());
        let weights = s.oracle.model.weights().digest();
        // In evaluation, where statistics are read.
        staging::act(&mut s, 0, |scene| {
            scene.step = 4;
            let batch = scene.batch_of("new", &scene.train()[..2]);
            let pass = scene.oracle.evaluate(scene.objective, &batch);
            let done = plugin.after_step(scene, &batch, &pass.expect("a pass"));
            done.expect("nothing to fail at");
        });
        assert_ne!(s.oracle.model.weights().digest(), weights);
        assert_eq!(s.oracle.model.buffers().digest(), before.digest());
    }

    #[test]
    fn a_share_of_the_batch_is_old() {
        let of = |share: f64, batch: usize| {
            let s = MethodSettings {
                share,
                ..MethodSettings::default()
            };
            parts(&s, batch).map(|p| p.draw.get("old").and_then(|d| d.size))
        };
        assert_eq!(of(0.25, 20).expect("a share"), Some(5));
        assert_eq!(of(0.01, 20).expect("a share"), Some(1));
        assert_eq!(of(0.0, 20).expect("a share"), None);
        assert!(of(1.0, 20).is_err() && of(f64::NAN, 20).is_err());
    }
}
