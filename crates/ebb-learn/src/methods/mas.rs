//! Memory aware synapses.
//!
//! **What it does.** After each experience it measures how much each weight moves the length of
//! the output, on inputs alone, and pulls later weights back in proportion.
//! **Source.** Aljundi et al., ECCV 2018, "Memory aware synapses: Learning what (not) to forget";
//! the form by batches is that of the public code of Hsu et al. 2018 (peers' protocol).
//! **Equation.** `L(θ) = L_new(θ) + λ Σ_i Ω_i (θ_i − θ*_i)²`, without a ½: θ* the newest weights, Ω
//! the sum over the experiences of `mean over examples of |∂‖z(x)‖²/∂θ_i|` (`of = "example"`) or of
//! `mean over batches of |∂ mean(z²)/∂θ_i|`, the inner mean over a batch's rows and outputs (`of =
//! "batch"`). The second averages before the absolute value and over the outputs, so it is smaller
//! at least by their number: its λ is another. Plain gradient descent diverges where `lr λ Ω_i > 1`.
//! **Use it** with known task boundaries; labels are not needed. **Not** alone on
//! class-incremental data (refused unless accepted by name).
//! **Stores** two vectors of the size of the weights. **Costs** one fused multiply-add over the
//! weights a step, and an experience one gradient evaluation a batch; `of = "example"` in a network
//! with layers that are not linear, one an example.

use crate::batch::Batch;
use crate::error::Result;
use crate::methods::{MethodCard, settings};
use crate::oracle::Oracle;
use crate::penalty::{Anchored, Penalty};
use crate::per_example::{layers, one_by_one};
use crate::seen::Seen;
use crate::spec::{Parts, PenaltySpec};
use ebb_kernels::gemm::{Mat, matmul};
use ebb_space::Weights;
use serde::{Deserialize, Serialize};

/// Where the absolute value is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MasOf {
    /// Of each example's gradient, as in the paper.
    Example,
    /// Of each batch's gradient, as in the code of Hsu et al.
    Batch,
}

/// Which outputs count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MasOutputs {
    /// Those that compete in the cross-entropy: an example's own head in task-incremental streams,
    /// otherwise as `train.classes` says.
    Scenario,
    /// Every output.
    All,
}

/// MAS's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct MasSettings {
    /// Strength, in the form without ½.
    pub lambda: f64,
    /// Where the absolute value is taken.
    pub of: MasOf,
    /// Rows of a batch of `of = "batch"`.
    pub batch: usize,
    /// Examples the importance is taken over; 0: all of the experience's.
    pub samples: usize,
    /// Which outputs count.
    pub outputs: MasOutputs,
}

impl Default for MasSettings {
    fn default() -> Self {
        Self {
            lambda: 1.0,
            of: MasOf::Example,
            batch: 128,
            samples: 0,
            outputs: MasOutputs::Scenario,
        }
    }
}

/// The penalty.
pub struct Mas {
    settings: MasSettings,
    /// `Ω` and `θ*`.
    kept: Anchored,
}

/// Rows of one pass of `of = "example"`.
const CHUNK: usize = 256;

impl Mas {
    /// Nothing remembered yet.
    pub fn new(settings: MasSettings) -> Self {
        Self {
            settings,
            kept: Anchored::default(),
        }
    }

    /// Takes in an importance and the weights it belongs to.
    pub fn remember(&mut self, importance: &Weights, at: &Weights) {
        let new = || (at.zeros_like(), at.zeros_like());
        let (omega, anchor) = self.kept.0.get_or_insert_with(new);
        omega.axpy(1.0, importance);
        anchor.copy_from(at);
    }

    /// The importance of every weight in the experience that was just trained.
    ///
    /// # Errors
    /// When a pass fails.
    pub fn importance(&self, oracle: &mut Oracle, seen: &Seen) -> Result<Weights> {
        let mut items = seen.sample(self.settings.samples);
        let mut total = Weights::zeros(oracle.model.layout());
        let parts = match self.settings.of {
            MasOf::Example => {
                for items in items.chunks(CHUNK) {
                    let batch = seen.batch(&oracle.model, items);
                    self.add_examples(oracle, &batch, &mut total)?;
                }
                items.len()
            }
            MasOf::Batch => {
                let mut gradient = total.zeros_like();
                seen.key.sub("batches").order(&mut items, |i| i.id.mix());
                let batches = items.chunks(self.settings.batch.max(1));
                let parts = batches.len();
                for items in batches {
                    let batch = seen.batch(&oracle.model, items);
                    let mean_square = |z: &[f32]| {
                        let (mut slope, n) = self.slope(&batch, z);
                        slope.iter_mut().for_each(|s| *s /= n as f32);
                        slope
                    };
                    oracle.pull_back(&batch, mean_square, &mut gradient);
                    total.add_abs(1.0, &gradient);
                }
                parts
            }
        };
        total.scale(1.0 / parts.max(1) as f32);
        Ok(total)
    }

    /// Adds `|∂‖z(x)‖²/∂θ|` of every row; `|δ aᵀ| = |δ| |a|ᵀ` in linear layers.
    fn add_examples(&self, oracle: &mut Oracle, batch: &Batch, total: &mut Weights) -> Result<()> {
        let squares = |z: &[f32]| Ok(self.slope(batch, z).0);
        let absolute = |v: &[f32]| -> Vec<f32> { v.iter().map(|v| v.abs()).collect() };
        let rows = batch.rows.len();
        let linear = layers(oracle, batch, squares, |site, delta, input| {
            let (delta, input) = (absolute(delta), absolute(input));
            if let Some(w) = total.get_mut(&site.weight) {
                let delta = Mat::new(&delta, rows, site.outputs).t();
                matmul(w, delta, Mat::new(&input, rows, site.inputs), true);
            }
            if let Some(b) = site.bias.as_deref().and_then(|path| total.get_mut(path)) {
                for row in delta.chunks_exact(site.outputs) {
                    b.iter_mut().zip(row).for_each(|(b, d)| *b += d);
                }
            }
        })?;
        if !linear {
            one_by_one(oracle, batch, squares, |g| total.add_abs(1.0, g))?;
        }
        Ok(())
    }

    /// The derivative `2z` of the squared length of every row's counted outputs, and how many
    /// outputs are counted in all rows.
    fn slope(&self, batch: &Batch, logits: &[f32]) -> (Vec<f32>, usize) {
        let rows = batch.rows.len();
        let outputs = logits.len() / rows.max(1);
        let mut slope = vec![0.0; logits.len()];
        let mut counted = 0;
        for i in 0..rows {
            let allowed = match self.settings.outputs {
                MasOutputs::Scenario => batch.allowed(i),
                MasOutputs::All => None,
            };
            for k in (0..outputs).filter(|k| allowed.is_none_or(|set| set[*k])) {
                slope[i * outputs + k] = 2.0 * logits[i * outputs + k];
                counted += 1;
            }
        }
        (slope, counted)
    }
}

impl Penalty for Mas {
    fn name(&self) -> &'static str {
        "mas"
    }

    fn active(&self) -> bool {
        self.kept.0.is_some() && self.settings.lambda != 0.0
    }

    fn add_gradient(&self, theta: &Weights, gradient: &mut Weights) {
        if let Some((omega, anchor)) = &self.kept.0 {
            let twice = 2.0 * self.settings.lambda as f32;
            gradient.add_product_of_difference(twice, omega, theta, anchor);
        }
    }

    fn value(&self, theta: &Weights) -> f64 {
        self.kept.0.as_ref().map_or(0.0, |(omega, anchor)| {
            self.settings.lambda * theta.weighted_squared_distance(omega, anchor)
        })
    }

    fn end_of_experience(&mut self, oracle: &mut Oracle, seen: &Seen) -> Result<()> {
        let importance = self.importance(oracle, seen)?;
        let at = oracle.model.weights();
        self.remember(&importance, &at);
        Ok(())
    }

    fn state(&self) -> Vec<(String, &Weights)> {
        self.kept.state()
    }

    fn restore(
        &mut self,
        names: &[String],
        load: &mut dyn FnMut(&str) -> Result<Weights>,
    ) -> Result<()> {
        self.kept.restore(names, load)
    }
}

/// MAS in the table of methods.
pub const MAS: MethodCard = MethodCard {
    name: "mas",
    aliases: &["memory-aware-synapses"],
    title: "Memory aware synapses",
    source: "Aljundi et al., ECCV 2018",
    card: "S029",
    family: "weight penalty",
    use_it: "known task boundaries, where labels are few: the importance needs none",
    not_for: "class-incremental streams on its own (refused unless accepted by name)",
    stores: "two vectors of the size of the weights",
    costs: "one fused multiply-add over the weights a step, a pass over its examples an experience",
    defaults: || settings(&MasSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            penalty: vec![PenaltySpec::Mas(crate::methods::read(with)?)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging;
    use crate::seen::{ClassSets, outputs};
    use crate::session::Session;
    use crate::spec::LossClasses;
    use ebb_data::{Item, Part};
    use ebb_space::Key;

    /// Acts on what the first experience of `session` leaves behind.
    fn after_one<R>(s: &mut Session, act: impl FnOnce(&mut Oracle, &Seen) -> R) -> R {
        let stream = s.stream.clone();
        let seen = Seen {
            stream: &stream,
            experience: 0,
            class_sets: &ClassSets::at(&stream, 0, LossClasses::Seen),
            key: Key::new(4, "mas"),
        };
        act(&mut s.oracle, &seen)
    }

    /// `∂f/∂θ_i` by central differences of what `f` makes of the logits of `items`.
    fn slope(
        oracle: &mut Oracle,
        seen: &Seen,
        items: &[Item],
        i: usize,
        f: &dyn Fn(&[f32]) -> f64,
    ) -> f64 {
        let start = oracle.model.weights();
        let h = 1e-2f32;
        let mut at = |step: f32| {
            let mut moved = start.clone();
            moved.as_mut_slice()[i] += step;
            oracle.model.set_weights(&moved).expect("its own layout");
            let mut x = Vec::new();
            seen.stream.gather(Part::Train, items, &mut x);
            f(&oracle.logits(x, items.len()))
        };
        let slope = (at(h) - at(-h)) / (2.0 * f64::from(h));
        oracle.model.set_weights(&start).expect("its own layout");
        slope
    }

    /// Both forms against finite differences of their definitions, written out on the logits:
    /// with two classes of ten seen (a prefix of the outputs, as in the code of Hsu et al.), with a
    /// head a task, and over all outputs. Batches of 5 of 12 examples leave a last one of 2, whose
    /// gradient counts as much as the others'.
    #[test]
    fn importance_is_its_definition() {
        for (scenario, all) in [("class", false), ("class", true), ("task", false)] {
            for of in [MasOf::Example, MasOf::Batch] {
                let mut s = staging::session("mas", scenario, &[]);
                let mas = Mas::new(MasSettings {
                    of,
                    batch: 5,
                    samples: 12,
                    outputs: if all {
                        MasOutputs::All
                    } else {
                        MasOutputs::Scenario
                    },
                    ..MasSettings::default()
                });
                after_one(&mut s, |oracle, seen| {
                    let found = mas.importance(oracle, seen).expect("passes");
                    let width = outputs(seen.stream);
                    // The digits' first experience and the first head hold two outputs.
                    let counted = if all { width } else { 2 };
                    let squares = |z: &[f32]| -> f64 {
                        let rows = z.chunks_exact(width).flat_map(|r| &r[..counted]);
                        rows.map(|v| f64::from(*v).powi(2)).sum()
                    };
                    let mut items = seen.sample(12);
                    assert_eq!(items.len(), 12);
                    if of == MasOf::Batch {
                        seen.key.sub("batches").order(&mut items, |i| i.id.mix());
                    }
                    let size = if of == MasOf::Batch { 5 } else { 1 };
                    for i in (0..found.as_slice().len()).step_by(23) {
                        let parts = items.chunks(size).map(|items| {
                            let n = match of {
                                MasOf::Batch => (items.len() * counted) as f64,
                                MasOf::Example => 1.0,
                            };
                            slope(oracle, seen, items, i, &|z| squares(z) / n).abs()
                        });
                        let parts: Vec<f64> = parts.collect();
                        let want = parts.iter().sum::<f64>() / parts.len() as f64;
                        let found = f64::from(found.as_slice()[i]);
                        assert!(
                            (found - want).abs() < 2e-3 * (0.05 + want),
                            "{scenario} {of:?}, weight {i}: {found} {want}"
                        );
                    }
                    let unseen = found.as_slice().iter().rev().take(2);
                    assert_eq!(unseen.clone().all(|v| *v == 0.0), !all, "the last biases");
                });
            }
        }
    }

    /// One pass for all examples against a pass an example.
    #[test]
    fn linear_layers_at_once_equal_the_loop_over_examples() {
        let mut s = staging::session("mas", "task", &[]);
        let mas = Mas::new(MasSettings::default());
        after_one(&mut s, |oracle, seen| {
            let batch = seen.batch(&oracle.model, &seen.train()[..9]);
            let mut at_once = Weights::zeros(oracle.model.layout());
            mas.add_examples(oracle, &batch, &mut at_once)
                .expect("a pass");
            let mut looped = at_once.zeros_like();
            let squares = |z: &[f32]| Ok(mas.slope(&batch, z).0);
            one_by_one(oracle, &batch, squares, |g| looped.add_abs(1.0, g)).expect("passes");
            assert!(at_once.norm() > 0.0);
            for (a, b) in at_once.as_slice().iter().zip(looped.as_slice()) {
                assert!((a - b).abs() <= 1e-5 * (1e-3 + b.abs()), "{a} {b}");
            }
        });
    }

    /// The gradient against finite differences of the published penalty, in f64: two experiences,
    /// importances summed, one anchor, no ½.
    #[test]
    fn gradient_is_that_of_the_published_penalty() {
        let s = staging::session("mas", "task", &[]);
        let random = |name: &str, positive: bool| {
            let mut w = s.oracle.model.weights();
            let mut draws = Key::new(3, name).stream();
            for v in w.as_mut_slice() {
                *v = draws.normal() as f32;
                *v = if positive { v.abs() } else { *v };
            }
            w
        };
        let (f1, f2) = (random("f1", true), random("f2", true));
        let (t1, t2, theta) = (random("t1", false), random("t2", false), random("t", false));
        let mut mas = Mas::new(MasSettings {
            lambda: 7.0,
            ..MasSettings::default()
        });
        mas.remember(&f1, &t1);
        mas.remember(&f2, &t2);
        let mut gradient = theta.zeros_like();
        mas.add_gradient(&theta, &mut gradient);
        let value = |i: usize, at: f64| {
            let of = |w: &Weights| f64::from(w.as_slice()[i]);
            7.0 * (of(&f1) + of(&f2)) * (at - of(&t2)).powi(2)
        };
        let mut sum = 0.0;
        for (i, g) in gradient.as_slice().iter().enumerate() {
            let at = f64::from(theta.as_slice()[i]);
            let exact = (value(i, at + 1e-5) - value(i, at - 1e-5)) / 2e-5;
            assert!((f64::from(*g) - exact).abs() < 1e-4 * (1.0 + exact.abs()));
            sum += value(i, at);
        }
        assert!((mas.value(&theta) - sum).abs() < 1e-5 * sum);
    }
}
