//! Parameter-selective mean teacher: adapting to a shifted world without labels.
//!
//! **What it does.** The first experience is learned with labels: the source. In the later ones no
//! label is used: the student follows a slow average of itself, important weights are held near
//! the source, and after each step the least informative ones are put back there.
//! **Source.** Tian & Lyu, ECCV 2024, "Parameter-selective continual test-time adaptation" (card
//! S014).
//! **Equation.** `SCE(z, z_T) + λ Σ F (θ − θ₀)²` with
//! `SCE(a, b) = −½ Σ softmax(b) ln softmax(a) − ½ Σ softmax(a) ln softmax(b)` and `F` the mean
//! squared batch gradient at predicted labels on the source. After a step, with `g` the gradient
//! of SCE and `m = [g² ≤ its q-quantile]`: `θ ← m θ₀ + (1−m) θ` and
//! `θ_T ← m θ + (1−m) (α θ_T + (1−α) θ)`. Answered is `z + z_T`.
//! **Use it** on streams of the same classes under changing conditions. **Not** where classes
//! change, and not where the source is poor: a teacher's errors feed on themselves.
//! **Deviation.** The view whose augmentation the authors' code leaves out is left out, as is the
//! averaging of teachers over augmentations; the teacher moves once a step, not twice.
//! **Stores** a teacher, the source and its Fisher diagonal. **Costs** a second gradient and the
//! teacher's pass a step; the step's own gradient, which labels enter, is thrown away.

use crate::batch::Batch;
use crate::error::Result;
use crate::methods::{MethodCard, settings};
use crate::oracle::{Oracle, PassResult};
use crate::plugin::{Kept, Plugin, Scene};
use crate::seen::Seen;
use crate::spec::{Parts, PluginSpec};
use ebb_space::{Mask, Weights};
use serde::{Deserialize, Serialize};

/// The numbers of the parameter-selective mean teacher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct PsmtSettings {
    /// `α` of the teacher.
    pub decay: f64,
    /// `λ` on the way from the source.
    pub lambda: f64,
    /// Share of the weights that is put back after a step.
    pub restore: f64,
    /// Source examples for the Fisher diagonal.
    pub samples: usize,
}

impl Default for PsmtSettings {
    fn default() -> Self {
        Self {
            decay: 0.999,
            lambda: 500.0,
            restore: 0.03,
            samples: 10_000,
        }
    }
}

/// Where adaptation started, and how much each weight mattered there.
struct Source {
    at: Weights,
    fisher: Weights,
}

/// The plugin.
pub struct Psmt {
    settings: PsmtSettings,
    source: Option<Source>,
    /// What of the last gradient was too small to move by.
    least: Option<Mask>,
}

impl Psmt {
    /// A plugin with these settings.
    pub fn new(settings: PsmtSettings) -> Self {
        Self {
            settings,
            source: None,
            least: None,
        }
    }

    /// The mean over batches of the squared gradient at predicted labels.
    fn fisher(&self, scene: &mut Scene) -> Weights {
        let seen = Seen {
            stream: scene.stream,
            experience: scene.experience,
            class_sets: scene.class_sets,
            key: scene.key.sub("psmt"),
        };
        let items = seen.sample(self.settings.samples);
        let outputs = scene.oracle.model.network().outputs();
        let mut gradient = Weights::zeros(scene.oracle.model.layout());
        let mut fisher = gradient.zeros_like();
        let size = scene.recipe.train.batch;
        let share = 1.0 / items.len().div_ceil(size).max(1) as f32;
        for items in items.chunks(size) {
            let batch = seen.batch(&scene.oracle.model, items);
            let by_logits = |z: &[f32]| predicted(z, outputs);
            scene.oracle.pull_back(&batch, by_logits, &mut gradient);
            fisher.add_square(share, &gradient);
        }
        fisher
    }
}

fn softmax(z: &[f32]) -> Vec<f64> {
    let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e: Vec<f64> = z.iter().map(|z| f64::from(z - max).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.into_iter().map(|e| e / sum).collect()
}

/// The derivative of the mean cross-entropy at the predicted labels: `(p − onehot) / n`.
fn predicted(logits: &[f32], outputs: usize) -> Vec<f32> {
    let rows = logits.len() / outputs;
    let of = |z: &[f32]| -> Vec<f32> {
        let p = softmax(z);
        let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let label = z.iter().position(|z| *z == max);
        let each = p.iter().enumerate();
        each.map(|(c, p)| ((p - f64::from(u8::from(Some(c) == label))) / rows as f64) as f32)
            .collect()
    };
    logits.chunks_exact(outputs).flat_map(of).collect()
}

/// The derivative of the mean of `SCE(z, z_T)` by `z`: with `p` and `q` the two softmaxes,
/// `½ (p − q) − ½ p ⊙ (ln q − ⟨p, ln q⟩)` a row.
fn symmetric(student: &[f32], teacher: &[f32], outputs: usize) -> Vec<f32> {
    let rows = student.len() / outputs;
    let of = |(z, t): (&[f32], &[f32])| -> Vec<f32> {
        let (p, q) = (softmax(z), softmax(t));
        let log: Vec<f64> = q.iter().map(|q| q.max(f64::MIN_POSITIVE).ln()).collect();
        let mean: f64 = p.iter().zip(&log).map(|(p, l)| p * l).sum();
        let each = p.iter().zip(&q).zip(&log);
        each.map(|((p, q), l)| (0.5 * (p - q - p * (l - mean)) / rows as f64) as f32)
            .collect()
    };
    let pairs = student
        .chunks_exact(outputs)
        .zip(teacher.chunks_exact(outputs));
    pairs.flat_map(of).collect()
}

/// The elements whose square is at most the `q`-quantile of all squares; none for `q = 0`.
fn least(gradient: &Weights, q: f64) -> Mask {
    if q <= 0.0 {
        return Mask::none(gradient.layout());
    }
    let mut squares = gradient.clone();
    squares.map_in_place(|g| g * g);
    let bound = squares.quantile(q);
    Mask::from_fn(gradient.layout(), |i| squares.as_slice()[i] <= bound)
}

impl Plugin for Psmt {
    fn name(&self) -> &'static str {
        "psmt"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if scene.experience == 1 {
            scene.oracle.freeze_teacher();
            scene.oracle.answers_with_teacher = true;
        }
        Ok(())
    }

    fn change_gradient(
        &mut self,
        scene: &mut Scene,
        batch: &Batch,
        _: &PassResult,
        gradient: &mut Weights,
    ) -> Result<()> {
        let (Some(source), true) = (&self.source, scene.experience > 0) else {
            return Ok(());
        };
        let outputs = scene.oracle.model.network().outputs();
        let theirs = scene.oracle.teacher_logits(batch).unwrap_or_default();
        let by_logits = |z: &[f32]| symmetric(z, &theirs, outputs);
        scene.oracle.pull_back(batch, by_logits, gradient);
        self.least = Some(least(gradient, self.settings.restore));
        let strength = 2.0 * self.settings.lambda as f32;
        let theta = scene.oracle.model.weights();
        gradient.add_product_of_difference(strength, &source.fisher, &theta, &source.at);
        Ok(())
    }

    fn after_step(&mut self, scene: &mut Scene, _: &Batch, _: &PassResult) -> Result<()> {
        let (Some(source), Some(least)) = (&self.source, self.least.take()) else {
            return Ok(());
        };
        let mut theta = scene.oracle.model.weights();
        least.restore(&mut theta, &source.at);
        scene.oracle.model.set_weights(&theta)?;
        if let Some(teacher) = &mut scene.oracle.teacher {
            let mut slow = teacher.weights();
            slow.lerp((1.0 - self.settings.decay) as f32, &theta);
            least.restore(&mut slow, &theta);
            teacher.set_weights(&slow)?;
        }
        Ok(())
    }

    fn end_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if scene.experience == 0 {
            let fisher = self.fisher(scene);
            let at = scene.oracle.model.weights();
            self.source = Some(Source { at, fisher });
        }
        Ok(())
    }

    fn keep(&self) -> Result<Kept> {
        let named = self.source.iter().flat_map(|s| {
            [
                ("source".to_owned(), s.at.clone()),
                ("fisher".to_owned(), s.fisher.clone()),
            ]
        });
        Ok(Kept::vectors(named.collect()))
    }

    fn restore(&mut self, mut kept: Kept, oracle: &mut Oracle) -> Result<()> {
        let (at, fisher) = (kept.take("source"), kept.take("fisher"));
        self.source = at.zip(fisher).map(|(at, fisher)| Source { at, fisher });
        oracle.answers_with_teacher = oracle.teacher.is_some();
        Ok(())
    }

    fn bytes(&self) -> u64 {
        let two = |s: &Source| 8 * s.at.layout().len() as u64;
        self.source.as_ref().map_or(0, two)
    }
}

/// The parameter-selective mean teacher in the table of methods.
pub const PSMT: MethodCard = MethodCard {
    name: "psmt",
    aliases: &["parameter-selective-mean-teacher"],
    title: "Parameter-selective mean teacher",
    source: "Tian & Lyu, ECCV 2024",
    card: "S014",
    family: "test-time adaptation",
    use_it: "later experiences are the same classes under other conditions, without labels",
    not_for: "new classes; a poor source",
    stores: "a teacher, the source and its Fisher diagonal",
    costs: "a second gradient and the teacher's pass a step",
    defaults: || settings(&PsmtSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            plugin: vec![PluginSpec::Psmt(crate::methods::read(with)?)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging::{act, session, train};
    use ebb_space::{Key, Layout};

    fn normals(n: usize, name: &str) -> Vec<f32> {
        let mut s = Key::new(6, name).stream();
        (0..n).map(|_| 2.0 * s.normal() as f32).collect()
    }

    /// The loss as it is written, in f64.
    fn written_out(z: &[f64], t: &[f64]) -> f64 {
        let softmax = |z: &[f64]| -> Vec<f64> {
            let sum: f64 = z.iter().map(|z| z.exp()).sum();
            z.iter().map(|z| z.exp() / sum).collect()
        };
        let rows = z.chunks(4).zip(t.chunks(4)).map(|(z, t)| {
            let (p, q) = (softmax(z), softmax(t));
            let cross =
                |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| -a * b.ln()).sum() };
            0.5 * cross(&q, &p) + 0.5 * cross(&p, &q)
        });
        rows.sum::<f64>() / (z.len() / 4) as f64
    }

    #[test]
    fn the_symmetric_cross_entropy_agrees_with_finite_differences() {
        let (z, t) = (normals(12, "z"), normals(12, "t"));
        let wide = |v: &[f32]| -> Vec<f64> { v.iter().map(|v| f64::from(*v)).collect() };
        let found = symmetric(&z, &t, 4);
        for i in 0..12 {
            let at = |h: f64| {
                let mut z = wide(&z);
                z[i] += h;
                written_out(&z, &wide(&t))
            };
            let want = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!(
                (f64::from(found[i]) - want).abs() < 1e-6,
                "{i}: {} {want}",
                found[i]
            );
        }
    }

    /// Squares 0, 1, 4, 9, 16: the 0.5-quantile is 4, the 0.3-quantile 1.2.
    #[test]
    fn the_least_informative_by_hand() {
        let layout = Layout::new([("w".to_owned(), vec![5])]).expect("one tensor");
        let g = Weights::from_vec(&layout, vec![3.0, -1.0, 0.0, 4.0, -2.0]).expect("five");
        let members = |q| {
            let mask = least(&g, q);
            (0..5).filter(|i| mask.contains(*i)).collect::<Vec<_>>()
        };
        assert_eq!(members(0.5), [1, 2, 4]);
        assert_eq!(members(0.3), [1, 2]);
        assert!(members(0.0).is_empty());
    }

    /// A step by hand on the weights: what is put back is the source's to the bit, in the student
    /// and in the teacher; everywhere else the teacher is the average.
    #[test]
    fn a_step_moves_student_and_teacher_as_the_equation_says() {
        let mut s = session("psmt", "domain", &[]);
        let mut psmt = Psmt::new(PsmtSettings {
            decay: 0.9,
            restore: 0.4,
            samples: 64,
            ..PsmtSettings::default()
        });
        train(&mut s, &mut psmt, 0, 30);
        act(&mut s, 1, |scene| {
            psmt.begin_experience(scene).expect("it begins");
            let batch = scene.batch_of("new", &scene.train()[..16]);
            let before = scene.oracle.model.weights();
            let mut g = before.zeros_like();
            let pass = scene.oracle.gradient(scene.objective, &batch, None, &mut g);
            let pass = pass.expect("a gradient");
            psmt.change_gradient(scene, &batch, &pass, &mut g)
                .expect("changed");
            let put_back = psmt.least.clone().expect("it chose");
            let moved = normals(before.layout().len(), "step");
            let moved = Weights::from_vec(before.layout(), moved).expect("as many");
            scene.oracle.model.set_weights(&moved).expect("its own");
            psmt.after_step(scene, &batch, &pass).expect("after");
            let student = scene.oracle.model.weights();
            let teacher = scene.oracle.teacher.as_ref().expect("it teaches").weights();
            let mut restored = 0;
            for i in 0..before.layout().len() {
                let v = |w: &Weights| w.as_slice()[i];
                if put_back.contains(i) {
                    restored += 1;
                    assert_eq!((v(&student), v(&teacher)), (v(&before), v(&before)));
                } else {
                    let want = 0.9 * v(&before) + 0.1 * v(&moved);
                    assert_eq!(v(&student), v(&moved));
                    assert!((v(&teacher) - want).abs() < 1e-5);
                }
            }
            assert!(restored as f64 >= 0.4 * before.layout().len() as f64);
        });
    }
}
