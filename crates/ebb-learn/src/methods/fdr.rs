//! Function distance regularisation.
//!
//! **What it does.** Stores, at the end of each experience, some of its examples with the answers
//! the network then gave, and keeps later answers to them near.
//! **Source.** Benjamin, Rolnick & Kording, ICLR 2019, "Measuring and regularizing networks in
//! function space" (objective.md 0.5); as a baseline of Buzzega et al., NeurIPS 2020.
//! **Equation.** `L = CE(new) + α · mean ‖softmax z(x') − softmax z'‖₂`, the norm not squared, the
//! mean over the rows drawn. With `steps = "two"`, as in the baseline's public code: a step on
//! `CE(new)`, and from where it leads another on the second term.
//! **Use it** with known boundaries and a small memory. **Not** without boundaries: the answers it
//! keeps are those of the end of an experience (DER keeps those of the moment).
//! **Stores** `capacity` examples in equal shares by experience, and their logits.
//! **Costs** the rows drawn on top of the batch: one gradient evaluation a step, `steps = "two"`
//! two.

use crate::batch::{Batch, Collect};
use crate::error::Result;
use crate::methods::er::{cross_entropy, draw};
use crate::methods::{MethodCard, settings};
use crate::oracle::PassResult;
use crate::plugin::{Plugin, Scene};
use crate::spec::{
    KeepSpec, LossSpec, MemorySpec, Parts, PluginSpec, ReductionSpec, SelectSpec, TermSpec,
};
use ebb_memory::Select;
use ebb_space::{Classes, Combinator, Objective, Reduction, Weights, presets};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Whether both terms are descended at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Steps {
    /// One step on the sum.
    One,
    /// One on the new batch, then one on the memory.
    Two,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct FdrSettings {
    capacity: usize,
    alpha: f64,
    replay: usize,
    /// Whether the distance is a term of the step (`one`) or a step of its own behind it (`two`).
    steps: Steps,
}

impl Default for FdrSettings {
    fn default() -> Self {
        Self {
            capacity: 200,
            alpha: 1.0,
            replay: 0,
            steps: Steps::One,
        }
    }
}

/// The second of two steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct FdrStep {
    /// The factor `α`.
    pub alpha: f64,
    /// Records drawn; 0: as many as the batch.
    pub size: usize,
}

impl Default for FdrStep {
    fn default() -> Self {
        Self {
            alpha: 1.0,
            size: 0,
        }
    }
}

/// The plugin of `steps = "two"`.
pub struct Fdr {
    step: FdrStep,
    distance: Objective,
    gradient: Option<Weights>,
}

impl Fdr {
    /// A plugin with these settings.
    pub fn new(step: FdrStep) -> Self {
        let term = presets::fdr("replay").with(Combinator::Mask(Classes::Row));
        Self {
            distance: Objective {
                terms: vec![term.weighted(step.alpha)],
                reduction: Reduction::SumOfMeans,
            },
            step,
            gradient: None,
        }
    }
}

impl Plugin for Fdr {
    fn name(&self) -> &'static str {
        "function-distance"
    }

    fn after_step(&mut self, scene: &mut Scene, _: &Batch, _: &PassResult) -> Result<()> {
        let Some(replay) = scene.replay.as_deref().filter(|r| !r.memory.is_empty()) else {
            return Ok(());
        };
        let size = scene.size(self.step.size);
        let drawn = (replay.memory).draw("fdr", Select::Uniform, size, scene.step)?;
        let mut collect = Collect::default();
        replay.add_slots(&mut collect, "replay", &drawn.slots)?;
        let remembered = scene.finish(collect);
        let zeros = || Weights::zeros(scene.oracle.model.layout());
        let gradient = self.gradient.get_or_insert_with(zeros);
        let oracle = &mut scene.oracle;
        oracle.gradient(&self.distance, &remembered, None, gradient)?;
        scene.optimizer.step(&mut oracle.model, gradient, scene.lr);
        if let Some((mask, anchor)) = scene.frozen {
            let mut weights = oracle.model.weights();
            mask.restore(&mut weights, anchor);
            oracle.model.set_weights(&weights)?;
        }
        Ok(())
    }
}

/// FDR in the table of methods.
pub const FDR: MethodCard = MethodCard {
    name: "fdr",
    aliases: &["function-distance"],
    title: "Function distance regularisation",
    source: "Benjamin et al., ICLR 2019",
    card: "S075",
    family: "replay",
    use_it: "known boundaries and a small memory",
    not_for: "streams without boundaries, data that may not be kept",
    stores: "`capacity` examples and their logits",
    costs: "the replayed rows on top of the batch; `steps = \"two\"`: a second gradient and step",
    defaults: || settings(&FdrSettings::default()),
    expand: |with, _| {
        let s: FdrSettings = crate::methods::read(with)?;
        let mut parts = Parts {
            memory: Some(MemorySpec {
                capacity: s.capacity,
                keep: KeepSpec::ExperienceBalanced,
            }),
            term: vec![cross_entropy("new", 1.0)],
            reduction: Some(ReductionSpec::SumOfMeans),
            ..Parts::default()
        };
        match s.steps {
            Steps::One => {
                parts.draw =
                    BTreeMap::from([("a".to_owned(), draw(SelectSpec::Uniform, s.replay))]);
                parts.term.push(TermSpec {
                    weight: s.alpha,
                    ..TermSpec::new("replay:a", LossSpec::FunctionDistance)
                });
            }
            Steps::Two => parts.plugin.push(PluginSpec::FunctionDistance(FdrStep {
                alpha: s.alpha,
                size: s.replay,
            })),
        }
        Ok(parts)
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::learn_keeping;
    use crate::methods::staging;
    use crate::session::Session;
    use crate::{Around, Silent};
    use ebb_space::Key;
    use std::sync::atomic::AtomicBool;

    fn run(session: Session) -> Session {
        let mut around = Around {
            data_dir: &std::env::temp_dir(),
            progress: &mut Silent,
            stop: &AtomicBool::new(false),
        };
        let (_, session) = learn_keeping(session, None, &mut around).expect("a run");
        session
    }

    /// Softmax of a row, in f64.
    fn softmax(z: &[f32]) -> Vec<f64> {
        let e: Vec<f64> = z.iter().map(|v| f64::from(*v).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.iter().map(|v| v / sum).collect()
    }

    /// With a learning rate of 0 every experience ends at the first weights, so what is stored must
    /// be their logits; and every experience has its share.
    #[test]
    fn the_memory_holds_equal_shares_and_the_logits_of_each_end() {
        for steps in ["one", "two"] {
            let sets = [
                ("train.lr", "0.0"),
                ("with.capacity", "63"),
                ("with.steps", steps),
            ];
            let mut s = run(staging::session("fdr", "class", &sets));
            let memory = &s.replay.as_ref().expect("a memory").memory;
            let mut shares = [0; 5];
            for m in memory.metas() {
                shares[m.experience as usize] += 1;
            }
            assert_eq!(shares, [13, 13, 13, 12, 12]);
            let slots: Vec<u32> = (0..63).collect();
            let (mut x, mut stored) = (Vec::new(), Vec::new());
            memory.gather(&slots, None, &mut x).expect("inputs");
            memory.gather_logits(&slots, &mut stored).expect("logits");
            for (a, b) in stored.iter().zip(s.oracle.logits(x, 63)) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }

    /// The second step against finite differences of the equation, written out in f64 on the
    /// logits of the rows it draws (all there are).
    #[test]
    fn the_second_step_descends_the_distance() {
        let sets = [
            ("with.capacity", "12"),
            ("with.alpha", "0.7"),
            ("with.steps", "two"),
            ("stream.split", "2"),
        ];
        let mut s = run(staging::session("fdr", "class", &sets));
        let slots: Vec<u32> = (0..12).collect();
        let memory = &s.replay.as_ref().expect("a memory").memory;
        let (mut x, mut stored) = (Vec::new(), Vec::new());
        memory.gather(&slots, None, &mut x).expect("inputs");
        memory.gather_logits(&slots, &mut stored).expect("logits");
        // Away from the end, where the distance of the newest rows is 0 and has no slope.
        let mut before = s.oracle.model.weights();
        let mut draws = Key::new(1, "away").stream();
        let away = before.as_mut_slice().iter_mut();
        away.for_each(|w| *w += 0.1 * draws.normal() as f32);
        s.oracle.model.set_weights(&before).expect("its own layout");
        staging::act(&mut s, 1, |scene| {
            let batch = scene.batch_of("new", &scene.train()[..2]);
            let pass = PassResult {
                value: scene
                    .oracle
                    .value(scene.remembering, &batch)
                    .expect("a value"),
                logits: Vec::new(),
                features: Vec::new(),
            };
            let step = FdrStep {
                alpha: 0.7,
                size: 0,
            };
            Fdr::new(step)
                .after_step(scene, &batch, &pass)
                .expect("a step");
        });
        let after = s.oracle.model.weights();
        let width = stored.len() / 12;
        let mut distance = |w: &Weights| -> f64 {
            s.oracle.model.set_weights(w).expect("its own layout");
            let z = s.oracle.logits(x.clone(), 12);
            let rows = z.chunks_exact(width).zip(stored.chunks_exact(width));
            let norms = rows.map(|(z, r)| {
                let squares = softmax(z).into_iter().zip(softmax(r));
                squares.map(|(p, q)| (p - q).powi(2)).sum::<f64>().sqrt()
            });
            0.7 * norms.sum::<f64>() / 12.0
        };
        let mut moved = 0.0;
        for i in (0..before.as_slice().len()).step_by(17) {
            let h = 1e-2f32;
            let (mut up, mut down) = (before.clone(), before.clone());
            up.as_mut_slice()[i] += h;
            down.as_mut_slice()[i] -= h;
            let slope = (distance(&up) - distance(&down)) / (2.0 * f64::from(h));
            let found = f64::from(before.as_slice()[i]) - f64::from(after.as_slice()[i]);
            // The learning rate is 0.1.
            assert!((found - 0.1 * slope).abs() < 2e-4, "{i}: {found} {slope}");
            moved += found.abs();
        }
        assert!(moved > 1e-3, "{moved}");
    }
}
