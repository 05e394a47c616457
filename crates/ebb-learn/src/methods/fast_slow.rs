//! Fast and slow weights for few-shot continual learning: a stand-in of ours.
//!
//! **What it does.** The fast weights learn the tasks one after another under a quadratic penalty.
//! The slow ones follow them by an average, and every few steps learn to tell a few classes apart
//! by a few examples of each. From experience `from` on the slow weights answer, by nearest class
//! mean.
//! **Source.** After Wang et al., 2021, "Few-shot continual learning: a brain-inspired approach"
//! (card S213). The paper's update equations are not public; these are our own in its spirit, so
//! results say nothing of its method.
//! **Equation.** `θ_slow ← α θ_slow + (1−α) θ` after each step; every `every` steps
//! `θ_slow ← θ_slow − lr ∇ mean_q CE(−‖f(q) − μ_c‖²)` on an episode of `ways` classes with `shots`
//! examples for the means `μ_c` and as many queries.
//! **Use it** where what is learned must serve new conditions by a few examples. **Not** for
//! accuracy on the tasks themselves, which is the fast weights'.
//! **Stores** the slow weights, and EWC's two vectors. **Costs** an average over the weights a
//! step, and a gradient on an episode every few.

use crate::batch::Batch;
use crate::error::Result;
use crate::methods::ewc::EwcSettings;
use crate::methods::few_shot::{FewShotSettings, few, means};
use crate::methods::{MethodCard, settings};
use crate::oracle::{Oracle, PassResult};
use crate::plugin::{Kept, Plugin, Scene};
use crate::spec::{Parts, PenaltySpec, PluginSpec};
use ebb_space::Weights;
use serde::{Deserialize, Serialize};

/// Numbers of the fast and slow weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct FastSlowSettings {
    /// The first experience in which the slow weights answer.
    pub from: usize,
    /// `α`.
    pub decay: f64,
    /// Steps between episodes; 0: none.
    pub every: u64,
    /// Classes of an episode.
    pub ways: usize,
    /// Examples a class for its mean, and as many queries.
    pub shots: usize,
    /// Learning rate of an episode.
    pub lr: f64,
}

impl Default for FastSlowSettings {
    fn default() -> Self {
        Self {
            from: 1,
            decay: 0.99,
            every: 10,
            ways: 5,
            shots: 5,
            lr: 0.01,
        }
    }
}

/// The plugin.
pub struct FastSlow {
    settings: FastSlowSettings,
    slow: Option<Weights>,
    gradient: Option<Weights>,
}

impl FastSlow {
    /// A plugin with these settings.
    pub fn new(settings: FastSlowSettings) -> Self {
        Self {
            settings,
            slow: None,
            gradient: None,
        }
    }

    /// A step of `slow` on an episode of the experience's classes.
    fn episode(&mut self, scene: &mut Scene, slow: &mut Weights) -> Result<()> {
        let s = &self.settings;
        let key = scene.key.sub("episode").at(scene.step);
        let mut classes = scene.stream.experiences[scene.experience].outputs.clone();
        key.sub("ways").order(&mut classes, |c| u64::from(*c));
        classes.truncate(s.ways);
        let mut items = few(scene.train(), 2 * s.shots, key);
        items.retain(|item| classes.contains(&item.label));
        // Of each class the first half makes the mean; the order within a class is drawn.
        let mut met = std::collections::BTreeMap::<u32, usize>::new();
        let (mut shown, mut asked) = (Vec::new(), Vec::new());
        for item in items {
            let n = met.entry(item.label).or_default();
            *n += 1;
            if *n <= s.shots {
                shown.push(item)
            } else {
                asked.push(item)
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        let labels: Vec<u32> = shown.iter().chain(&asked).map(|i| i.label).collect();
        let queries = shown.len();
        shown.extend(asked);
        let batch = scene.batch_of("episode", &shown);
        let fast = scene.oracle.model.weights();
        scene.oracle.model.set_weights(slow)?;
        let gradient = self.gradient.get_or_insert_with(|| fast.zeros_like());
        let by_features = |f: &[f32]| prototypical(f, &labels, queries);
        scene
            .oracle
            .pull_back_features(&batch, by_features, gradient);
        slow.axpy(-(s.lr as f32), gradient);
        scene.oracle.model.set_weights(&fast)?;
        Ok(())
    }
}

/// The derivative by the features of the mean cross-entropy of the queries (rows from `queries`
/// on) at `−‖f(q) − μ_c‖²`, the means being those of the rows before.
fn prototypical(features: &[f32], labels: &[u32], queries: usize) -> Vec<f32> {
    let width = features.len() / labels.len().max(1);
    let row = |i: usize| &features[i * width..(i + 1) * width];
    let centres = means(&features[..queries * width], &labels[..queries]);
    let count = |c: u32| labels[..queries].iter().filter(|l| **l == c).count() as f64;
    let share = 1.0 / (labels.len() - queries) as f64;
    let mut by: Vec<f64> = vec![0.0; features.len()];
    for q in queries..labels.len() {
        let away = |centre: &Vec<f32>| -> Vec<f64> {
            row(q)
                .iter()
                .zip(centre)
                .map(|(f, m)| f64::from(*f) - f64::from(*m))
                .collect()
        };
        let ways: Vec<(u32, Vec<f64>)> = centres.iter().map(|(c, m)| (*c, away(m))).collect();
        let z: Vec<f64> = ways
            .iter()
            .map(|(_, d)| -d.iter().map(|d| d * d).sum::<f64>())
            .collect();
        let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = z.iter().map(|z| (z - max).exp()).sum();
        for ((c, d), z) in ways.iter().zip(&z) {
            let p = (z - max).exp() / sum;
            let slope = -2.0 * share * (p - f64::from(u8::from(*c == labels[q])));
            for (i, d) in d.iter().enumerate() {
                by[q * width + i] += slope * d;
                for s in (0..queries).filter(|s| labels[*s] == *c) {
                    by[s * width + i] -= slope * d / count(*c);
                }
            }
        }
    }
    by.into_iter().map(|v| v as f32).collect()
}

impl Plugin for FastSlow {
    fn name(&self) -> &'static str {
        "fast-slow"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if scene.experience == self.settings.from
            && let Some(slow) = self.slow.take()
        {
            scene.oracle.model.set_weights(&slow)?;
        }
        Ok(())
    }

    fn after_step(&mut self, scene: &mut Scene, _: &Batch, _: &PassResult) -> Result<()> {
        if scene.experience >= self.settings.from {
            return Ok(());
        }
        let fast = scene.oracle.model.weights();
        let mut slow = self.slow.take().unwrap_or_else(|| fast.clone());
        slow.lerp((1.0 - self.settings.decay) as f32, &fast);
        let every = self.settings.every;
        if every > 0 && (scene.step + 1).is_multiple_of(every) {
            self.episode(scene, &mut slow)?;
        }
        self.slow = Some(slow);
        Ok(())
    }

    fn keep(&self) -> Result<Kept> {
        let slow = self.slow.iter().map(|w| ("slow".to_owned(), w.clone()));
        Ok(Kept::vectors(slow.collect()))
    }

    fn restore(&mut self, mut kept: Kept, _: &mut Oracle) -> Result<()> {
        self.slow = kept.take("slow");
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.slow.as_ref().map_or(0, |w| 4 * w.layout().len()) as u64
    }
}

/// Fast and slow weights in the table of methods.
pub const FAST_SLOW: MethodCard = MethodCard {
    name: "fast-slow",
    aliases: &[],
    title: "Fast and slow weights, tested by a few examples",
    source: "after Wang et al., 2021",
    card: "S213",
    family: "averaged weights",
    use_it: "new conditions are met with a few examples, behind `from` experiences of training",
    not_for: "accuracy on the trained tasks themselves",
    stores: "the slow weights, and EWC's two vectors",
    costs: "an average over the weights a step, a gradient on an episode every few",
    defaults: || {
        let mut table = settings(&FastSlowSettings::default());
        table.insert("lambda".into(), 1.0.into());
        table
    },
    expand: |with, _| {
        let mut with = with.clone();
        let lambda = crate::methods::take(&mut with, "lambda")?;
        let fast_slow: FastSlowSettings = crate::methods::read(&with)?;
        let few_shot = FewShotSettings {
            from: fast_slow.from,
            shots: fast_slow.shots,
        };
        Ok(Parts {
            penalty: vec![PenaltySpec::Ewc(EwcSettings {
                lambda,
                online: true,
                ..EwcSettings::default()
            })],
            plugin: vec![
                PluginSpec::FastSlow(fast_slow),
                PluginSpec::FewShot(few_shot),
            ],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging::{act, session, train};
    use ebb_space::Key;

    /// The loss written out in f64: three shown rows of two classes, three queries.
    fn written_out(f: &[f64], labels: &[u32]) -> f64 {
        let row = |i: usize| &f[2 * i..2 * i + 2];
        let mean = |c: u32| {
            let own: Vec<usize> = (0..3).filter(|i| labels[*i] == c).collect();
            [0, 1].map(|k| own.iter().map(|i| row(*i)[k]).sum::<f64>() / own.len() as f64)
        };
        let loss = |q: usize| {
            let z = |c: u32| {
                -(0..2)
                    .map(|k| (row(q)[k] - mean(c)[k]).powi(2))
                    .sum::<f64>()
            };
            (z(4).exp() + z(7).exp()).ln() - z(labels[q])
        };
        (3..6).map(loss).sum::<f64>() / 3.0
    }

    #[test]
    fn the_episode_s_gradient_agrees_with_finite_differences() {
        let labels = [4, 7, 4, 7, 4, 7];
        let mut s = Key::new(8, "episode").stream();
        let f: Vec<f32> = (0..12).map(|_| s.normal() as f32).collect();
        let wide: Vec<f64> = f.iter().map(|f| f64::from(*f)).collect();
        let found = prototypical(&f, &labels, 3);
        for i in 0..12 {
            let at = |h: f64| {
                let mut f = wide.clone();
                f[i] += h;
                written_out(&f, &labels)
            };
            let want = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!(
                (f64::from(found[i]) - want).abs() < 1e-5,
                "{i}: {} {want}",
                found[i]
            );
        }
    }

    /// Without episodes the slow weights are the average written out.
    #[test]
    fn slow_weights_are_the_average_and_take_over() {
        let mut s = session("fast-slow", "domain", &[("with.lambda", "0.0")]);
        let mut plugin = FastSlow::new(FastSlowSettings {
            decay: 0.8,
            every: 0,
            ..FastSlowSettings::default()
        });
        let mut want: Option<Weights> = None;
        for _ in 0..4 {
            train(&mut s, &mut plugin, 0, 1);
            let fast = s.oracle.model.weights();
            match &mut want {
                None => want = Some(fast),
                Some(slow) => slow.zip_with(&fast, |s, f| 0.8 * s + 0.2 * f),
            }
        }
        act(&mut s, 1, |scene| {
            plugin.begin_experience(scene).expect("it begins")
        });
        let answers = s.oracle.model.weights();
        let want = want.expect("four steps");
        let pairs = answers.as_slice().iter().zip(want.as_slice());
        assert!(pairs.into_iter().all(|(a, w)| (a - w).abs() < 1e-6));
    }
}
