//! Refresh learning.
//!
//! **What it does.** Before each step it unlearns a little: it climbs the loss of the batch at
//! hand, less where weights mattered before, with some noise. The step that follows relearns.
//! **Source.** Wang et al., ICLR 2024, "A unified and general framework for continual learning"
//! (card S075), and its released code, which refreshes behind the step instead of before it and
//! climbs the cross-entropy of the new rows alone; here it is the whole objective, as in the paper.
//! **Equation.** `steps` times, with `g = ∇L(batch; θ)`, `ξ ~ N(0, I)`, `P = 1/(1 + c F)`:
//! relative (the code), tensor by tensor: `θ ← θ + δ P (‖θ‖ g/‖g‖ + s ξ)`;
//! Langevin (the paper, whose `γ F⁻¹` is `δ P` for large `c`): `θ ← θ + δ P g + s √(2δP) ξ`.
//! After each experience `F ← τ F + F_new`, until the first of them `F = 0`.
//! **Use it** on top of any method, `[[plugin]] kind = "refresh"`. **Not** without its control:
//! at the published numbers `P` is nearly 1 and the move 1e-5 of the weights (`pure-noise`).
//! **Stores** one vector of the size of the weights. **Costs** a gradient, and as many normal
//! draws as there are weights, `steps` times a step; a Fisher pass an experience.

use crate::batch::Batch;
use crate::error::Result;
use crate::fisher::{FisherRequest, fisher};
use crate::methods::{MethodCard, settings};
use crate::oracle::Oracle;
use crate::plugin::{Kept, Plugin, Scene};
use crate::seen::Seen;
use crate::spec::{Parts, PluginSpec};
use ebb_space::{FisherKind, Key, Weights};
use serde::{Deserialize, Serialize};

/// Which of the two published steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Climb {
    /// Each tensor moves by a share of its own norm.
    #[default]
    Relative,
    /// A step of Langevin dynamics, upwards.
    Langevin,
}

/// Refresh learning's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct RefreshSettings {
    /// Unlearning steps before each step, J.
    pub steps: usize,
    /// Which step.
    pub climb: Climb,
    /// Its size, δ.
    pub rate: f64,
    /// The noise, s; 1 is the temperature of the paper's Langevin step.
    pub noise: f64,
    /// How much the Fisher slows a weight down, c.
    pub curvature: f64,
    /// What is kept of the old Fisher at the end of an experience, τ.
    pub decay: f64,
    /// Examples the Fisher is taken over; 0: all of the experience's.
    pub samples: usize,
    /// Move each tensor as far in a random direction: a control that must not work.
    pub pure_noise: bool,
}

impl Default for RefreshSettings {
    fn default() -> Self {
        Self {
            steps: 1,
            climb: Climb::Relative,
            rate: 1e-5,
            noise: 1e-3,
            curvature: 1e-3,
            decay: 1e-5,
            samples: 0,
            pure_noise: false,
        }
    }
}

impl RefreshSettings {
    /// The move of one tensor `theta` whose gradient is `g` and whose Fisher is `f`, one value of
    /// `xi` a weight.
    fn movement(
        &self,
        theta: &[f32],
        g: &[f32],
        f: Option<&[f32]>,
        mut xi: impl FnMut(usize) -> f64,
    ) -> Vec<f32> {
        let norm = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        // A gradient of 0 moves nothing, as in the code, which adds 1e-20 to its norm.
        let length = norm(theta) / norm(g).max(1e-20);
        let mut ascend = |i: usize| {
            let p = 1.0 / (1.0 + self.curvature * f.map_or(0.0, |f| f64::from(f[i])));
            let g = f64::from(g[i]);
            let noise = match self.noise {
                0.0 => 0.0,
                s => s * xi(i),
            };
            match self.climb {
                Climb::Relative => self.rate * p * (length * g + noise),
                Climb::Langevin => self.rate * p * g + (2.0 * self.rate * p).sqrt() * noise,
            }
        };
        (0..theta.len()).map(|i| ascend(i) as f32).collect()
    }
}

/// Normal numbers of the norm of `g`: as long, and in no direction.
fn as_long(g: &mut [f32], key: Key, from: usize) {
    let square = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
    let length = square(g);
    for (i, v) in g.iter_mut().enumerate() {
        *v = key.normal((from + i) as u64) as f32;
    }
    let scale = (length / square(g).max(f64::MIN_POSITIVE)).sqrt();
    g.iter_mut()
        .for_each(|v| *v = (f64::from(*v) * scale) as f32);
}

/// The plugin.
pub struct Refresh {
    settings: RefreshSettings,
    fisher: Option<Weights>,
    gradient: Option<Weights>,
}

impl Refresh {
    /// A plugin with these settings.
    pub fn new(settings: RefreshSettings) -> Self {
        Self {
            settings,
            fisher: None,
            gradient: None,
        }
    }
}

impl Plugin for Refresh {
    fn name(&self) -> &'static str {
        "refresh"
    }

    fn before_step(&mut self, scene: &mut Scene, batch: &mut Batch) -> Result<()> {
        let layout = scene.oracle.model.layout().clone();
        let gradient = self.gradient.get_or_insert_with(|| Weights::zeros(&layout));
        for j in 0..self.settings.steps {
            let key = scene.key.sub("refresh").at(scene.step).at(j as u64);
            scene
                .oracle
                .gradient(scene.objective, batch, None, gradient)?;
            let (g, f) = (gradient.as_mut_slice(), self.fisher.as_ref());
            let frozen = scene.frozen.as_ref().map(|(mask, _)| mask);
            scene.oracle.model.update(|tensor, theta| {
                let range = layout.entries()[tensor].range.clone();
                let from = range.start;
                let g = &mut g[range.clone()];
                if self.settings.pure_noise {
                    as_long(g, key.sub("direction"), from);
                }
                let f = f.map(|f| &f.as_slice()[range]);
                let xi = |i: usize| key.normal((from + i) as u64);
                let movement = self.settings.movement(theta, g, f, xi);
                for (i, (t, m)) in theta.iter_mut().zip(movement).enumerate() {
                    if frozen.is_none_or(|mask| !mask.contains(from + i)) {
                        *t += m;
                    }
                }
            });
        }
        Ok(())
    }

    fn end_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if scene.last() {
            return Ok(());
        }
        let seen = Seen {
            stream: scene.stream,
            experience: scene.experience,
            class_sets: scene.class_sets,
            key: scene.key.sub("refresh Fisher").at(scene.experience as u64),
        };
        let request = FisherRequest {
            kind: FisherKind::PTrueWeighted,
            samples: self.settings.samples,
        };
        let mut new = fisher(scene.oracle, &seen, &request)?;
        if let Some(old) = &self.fisher {
            new.axpy(self.settings.decay as f32, old);
        }
        self.fisher = Some(new);
        Ok(())
    }

    fn keep(&self) -> Result<Kept> {
        let fisher = self.fisher.iter().map(|f| ("fisher".to_owned(), f.clone()));
        Ok(Kept::vectors(fisher.collect()))
    }

    fn restore(&mut self, mut kept: Kept, _oracle: &mut Oracle) -> Result<()> {
        self.fisher = kept.take("fisher");
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.fisher.as_ref().map_or(0, |f| 4 * f.layout().len()) as u64
    }
}

/// Refresh learning in the table of methods.
pub const REFRESH: MethodCard = MethodCard {
    name: "refresh",
    aliases: &["refresh-learning"],
    title: "Refresh learning",
    source: "Wang et al., ICLR 2024",
    card: "S075",
    family: "plug-in",
    use_it: "on top of any method, with `[[plugin]] kind = \"refresh\"`",
    not_for: "claims without its control, noise of the same size (`pure-noise`)",
    stores: "one vector of the size of the weights",
    costs: "one more gradient for each of `steps` a step, a Fisher pass an experience",
    defaults: || settings(&RefreshSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            plugin: vec![PluginSpec::Refresh(crate::methods::read(with)?)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging;

    fn vectors() -> (Vec<f32>, Vec<f32>, Vec<f32>, Vec<f64>) {
        let mut s = Key::new(3, "refresh").stream();
        let mut normal = |scale: f64| (0..40).map(|_| scale * s.normal()).collect::<Vec<f64>>();
        let narrow = |v: Vec<f64>| v.into_iter().map(|v| v as f32).collect::<Vec<f32>>();
        let fisher = normal(20.0).into_iter().map(|v| v * v).collect();
        (
            narrow(normal(0.1)),
            narrow(normal(0.5)),
            narrow(fisher),
            normal(1.0),
        )
    }

    /// The released code takes the detour of a second network that makes a step of 0.01 upwards;
    /// the difference is scaled to the norm of the weights. Written out in f64.
    #[test]
    fn the_relative_step_is_that_of_the_released_code() {
        let (theta, g, f, xi) = vectors();
        let settings = RefreshSettings {
            rate: 1e-2,
            curvature: 0.3,
            noise: 0.7,
            ..RefreshSettings::default()
        };
        let second: Vec<f64> = (0..40)
            .map(|i| f64::from(theta[i]) + 0.01 * f64::from(g[i]))
            .collect();
        let update: Vec<f64> = (0..40).map(|i| second[i] - f64::from(theta[i])).collect();
        let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
        let wide: Vec<f64> = theta.iter().map(|v| f64::from(*v)).collect();
        let scale = norm(&wide) / norm(&update);
        let found = settings.movement(&theta, &g, Some(&f), |i| xi[i]);
        for i in 0..40 {
            let expected =
                1e-2 * (1.0 / (1.0 + 0.3 * f64::from(f[i]))) * (scale * update[i] + 0.7 * xi[i]);
            assert!((f64::from(found[i]) - expected).abs() < 1e-8, "{i}");
        }
        // Without noise and Fisher: of the norm of the weights times the rate.
        let quiet = RefreshSettings {
            noise: 0.0,
            ..settings.clone()
        };
        let found = quiet.movement(&theta, &g, None, |_| 0.0);
        let length = found.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        assert!((length.sqrt() / (1e-2 * norm(&wide)) - 1.0).abs() < 1e-6);
        // A tensor of zeros, such as a fresh bias, has no norm to move by.
        assert_eq!(quiet.movement(&[0.0; 3], &g[..3], None, |_| 1.0), [0.0; 3]);
        assert_eq!(
            quiet.movement(&theta[..3], &[0.0; 3], None, |_| 1.0),
            [0.0; 3]
        );
    }

    /// The Langevin step over many keys: mean `δ P g`, variance `2 δ P` at s = 1.
    #[test]
    fn the_langevin_step_has_the_published_moments() {
        let (theta, g, f, _) = vectors();
        let (rate, c) = (0.05, 0.02);
        let settings = RefreshSettings {
            climb: Climb::Langevin,
            rate,
            noise: 1.0,
            curvature: c,
            ..RefreshSettings::default()
        };
        let n = 20_000;
        let (mut mean, mut square) = (vec![0.0; 40], vec![0.0; 40]);
        for draw in 0..n {
            let key = Key::new(9, "langevin").at(draw);
            let m = settings.movement(&theta, &g, Some(&f), |i| key.normal(i as u64));
            for i in 0..40 {
                mean[i] += f64::from(m[i]) / n as f64;
                square[i] += f64::from(m[i]).powi(2) / n as f64;
            }
        }
        for i in 0..40 {
            let p = 1.0 / (1.0 + c * f64::from(f[i]));
            let (expected, variance) = (rate * p * f64::from(g[i]), 2.0 * rate * p);
            let five = 5.0 / (n as f64).sqrt();
            assert!((mean[i] - expected).abs() < five * variance.sqrt(), "{i}");
            let found = square[i] - mean[i] * mean[i];
            assert!((found / variance - 1.0).abs() < five * 2f64.sqrt(), "{i}");
        }
    }

    #[test]
    fn the_control_is_as_long_and_points_nowhere() {
        let (_, g, ..) = vectors();
        let square = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        let mut along = 0.0;
        for draw in 0..2000 {
            let mut other = g.clone();
            as_long(&mut other, Key::new(4, "control").at(draw), 7);
            assert!((square(&other) / square(&g) - 1.0).abs() < 1e-5);
            let dot: f64 = g.iter().zip(&other).map(|(a, b)| f64::from(a * b)).sum();
            along += dot / square(&g) / 2000.0;
        }
        // The mean cosine of random directions in 40 dimensions: 0, with deviation 1/√40.
        assert!(along.abs() < 5.0 / (40.0f64 * 2000.0).sqrt(), "{along}");
    }

    /// Without noise the loss of the batch rises, and each tensor moves by its share of its norm.
    #[test]
    fn a_batch_is_unlearned_before_its_step() {
        let mut s = staging::session("refresh", "class", &[]);
        staging::jolt(&mut s.oracle.model, 0.3);
        staging::act(&mut s, 0, |scene| {
            let mut batch = scene.batch_of("new", &scene.train()[..32]);
            let value = |scene: &mut Scene, batch: &Batch| {
                let value = scene.oracle.value(scene.objective, batch);
                value.expect("a value").total
            };
            let (before, theta) = (value(scene, &batch), scene.oracle.model.weights());
            let mut refresh = Refresh::new(RefreshSettings {
                rate: 1e-2,
                noise: 0.0,
                ..RefreshSettings::default()
            });
            refresh.before_step(scene, &mut batch).expect("a climb");
            let after = value(scene, &batch);
            assert!(after > before + 1e-3, "{before} {after}");
            let mut moved = scene.oracle.model.weights();
            moved.axpy(-1.0, &theta);
            let norm = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            for entry in theta.layout().entries() {
                let of = |w: &Weights| norm(&w.as_slice()[entry.range.clone()]);
                let share = of(&moved) / of(&theta);
                assert!((share - 1e-2).abs() < 1e-4, "{}: {share}", entry.path);
            }
        });
    }
}
