//! Prototypical Bayesian learning.
//!
//! **What it does.** Keeps an exact posterior over one Gaussian a class in feature space and
//! trains the encoder so that this posterior predicts the labels; it classifies by the posterior.
//! **Source.** Kessler et al., 2023, "On sequential Bayesian inference for continual learning"
//! (ProtoCL, card S188). Its public code carries a posterior a batch slot and updates with test
//! labels; here a batch's statistics are summed and tests change nothing.
//! **Equation.** A row `(φ, y)`: `Q_y += φ/σ²`, `Λ_y += 1/σ²`, `a_y += 1`; `μ = Q/Λ`. Predictive
//! `ln p(φ, k) = −½ [‖φ − μ_k‖²/v_k + d ln(2π v_k)] + ln(a_k/Σa)`, `v_k = 1/Λ_k + σ²`. The
//! encoder's loss is the cross-entropy of the softmax of it, under the posterior before the step.
//! **Use it** on class-incremental data with a small memory. **Not** without any: the encoder
//! moves, and a posterior of where features were says nothing of where they are.
//! **Stores** `d + 2` numbers a class and the memory. **Costs** a second pass over each batch (the
//! first is the head's, which is not used), and one over the memory every `refresh` steps.
//! Between two of these a replayed row counts each time it is drawn.

use crate::batch::Batch;
use crate::error::Result;
use crate::methods::er::{cross_entropy, draw};
use crate::methods::{MethodCard, memory_and, settings_beside};
use crate::oracle::{Oracle, PassResult, Readout};
use crate::plugin::{Kept, Plugin, Scene, unfit};
use crate::spec::{KeepSpec, Parts, PluginSpec, SelectSpec};
use ebb_space::Weights;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// ProtoCL's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct ProtoClSettings {
    /// σ², of a feature around its class's mean.
    pub variance: f64,
    /// Precision of a mean before any example, around 0.
    pub prior: f64,
    /// What each class counts before any example.
    pub dirichlet: f64,
    /// Steps after which the posterior is computed anew, from the memory.
    pub refresh: u64,
}

impl Default for ProtoClSettings {
    fn default() -> Self {
        Self {
            variance: 0.05,
            prior: 1.0,
            dirichlet: 0.78,
            refresh: 50,
        }
    }
}

/// One Gaussian a class with a known variance, and how often each class was met.
#[derive(Clone, Debug, PartialEq)]
pub struct Posterior {
    settings: ProtoClSettings,
    width: usize,
    /// `[classes, width]`.
    q: Vec<f64>,
    /// Examples of each class.
    count: Vec<f64>,
}

impl Posterior {
    /// The prior over `classes` classes of features of `width` values.
    pub fn new(settings: ProtoClSettings, classes: usize, width: usize) -> Self {
        Self {
            settings,
            width,
            q: vec![0.0; classes * width],
            count: vec![0.0; classes],
        }
    }

    /// Takes in rows of features and their classes.
    pub fn update(&mut self, features: &[f32], labels: &[u32]) {
        let variance = self.settings.variance;
        for (row, label) in features.chunks_exact(self.width).zip(labels) {
            let q = &mut self.q[*label as usize * self.width..][..self.width];
            let each = q.iter_mut().zip(row);
            each.for_each(|(q, v)| *q += f64::from(*v) / variance);
            self.count[*label as usize] += 1.0;
        }
    }

    fn precision(&self, class: usize) -> f64 {
        self.settings.prior + self.count[class] / self.settings.variance
    }

    /// `v_k`.
    fn spread(&self, class: usize) -> f64 {
        1.0 / self.precision(class) + self.settings.variance
    }

    fn differences(&self, row: &[f32], class: usize) -> impl Iterator<Item = f64> {
        let share = 1.0 / self.precision(class);
        let q = self.q[class * self.width..][..self.width].iter();
        row.iter()
            .zip(q)
            .map(move |(v, q)| f64::from(*v) - q * share)
    }

    /// `ln p(φ, k)` for each class.
    pub fn log_joint(&self, row: &[f32]) -> Vec<f64> {
        let a = self.settings.dirichlet;
        let all: f64 = self.count.iter().map(|n| n + a).sum();
        let each = (0..self.count.len()).map(|k| {
            let v = self.spread(k);
            let square: f64 = self.differences(row, k).map(|d| d * d).sum();
            let volume = self.width as f64 * (std::f64::consts::TAU * v).ln();
            -0.5 * (square / v + volume) + ((self.count[k] + a) / all).ln()
        });
        each.collect()
    }

    /// The gradient by a row's features of `−ln p(y | φ)` over the classes that `open` allows.
    fn gradient(&self, row: &[f32], label: usize, open: impl Fn(usize) -> bool) -> Vec<f64> {
        let log = self.log_joint(row);
        let allowed = (0..log.len()).filter(|k| open(*k));
        let top = allowed
            .clone()
            .map(|k| log[k])
            .fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = allowed.clone().map(|k| (log[k] - top).exp()).sum();
        let mut gradient = vec![0.0; self.width];
        for k in allowed {
            let hit = f64::from(u8::from(k == label));
            let slope = ((log[k] - top).exp() / sum - hit) / self.spread(k);
            let each = gradient.iter_mut().zip(self.differences(row, k));
            each.for_each(|(g, d)| *g -= slope * d);
        }
        gradient
    }
}

impl Readout for Posterior {
    fn scores(&self, features: &[f32], rows: usize, outputs: usize) -> Vec<f32> {
        let mut scores = Vec::with_capacity(rows * outputs);
        for row in features.chunks_exact(self.width) {
            let log = self.log_joint(row).into_iter().zip(&self.count);
            scores.extend(log.map(|(l, n)| if *n > 0.0 { l as f32 } else { f32::MIN }));
        }
        scores
    }
}

/// The plugin.
pub struct ProtoCl {
    settings: ProtoClSettings,
    posterior: Option<Posterior>,
}

impl ProtoCl {
    /// A plugin with these settings.
    pub fn new(settings: ProtoClSettings) -> Self {
        Self {
            settings,
            posterior: None,
        }
    }

    fn install(&self, oracle: &mut Oracle) {
        oracle.readout = (self.posterior.clone()).map(|p| Box::new(p) as Box<dyn Readout>);
    }

    /// The posterior of what the memory holds, where its features lie now.
    fn refresh(&mut self, scene: &mut Scene) -> Result<()> {
        let held = scene.replay.as_deref().map_or(0, |r| r.memory.len());
        let Some(posterior) = self.posterior.as_mut().filter(|_| held > 0) else {
            return Ok(());
        };
        let (classes, width) = (posterior.count.len(), posterior.width);
        *posterior = Posterior::new(self.settings.clone(), classes, width);
        let slots: Vec<u32> = match scene.replay.as_deref() {
            Some(replay) => replay.memory.slots_where(|_| true),
            None => Vec::new(),
        };
        for chunk in slots.chunks(256) {
            let batch = scene.batch_of_slots("memory", chunk)?;
            let (_, features) = scene.oracle.forward(&batch);
            posterior.update(&features, &batch.rows.labels);
        }
        Ok(())
    }
}

impl Plugin for ProtoCl {
    fn name(&self) -> &'static str {
        "protocl"
    }

    fn change_gradient(
        &mut self,
        scene: &mut Scene,
        batch: &Batch,
        _pass: &PassResult,
        gradient: &mut Weights,
    ) -> Result<()> {
        let rows = batch.rows.len();
        let outputs = scene.oracle.model.network().outputs();
        let (settings, posterior) = (&self.settings, &mut self.posterior);
        let by_features = |features: &[f32]| {
            let width = features.len() / rows.max(1);
            let posterior =
                posterior.get_or_insert_with(|| Posterior::new(settings.clone(), outputs, width));
            let each = features
                .chunks_exact(width)
                .enumerate()
                .flat_map(|(i, row)| {
                    let open = |k: usize| batch.allowed(i).is_none_or(|set| set[k]);
                    let g = posterior.gradient(row, batch.rows.labels[i] as usize, open);
                    g.into_iter().map(|g| (g / rows as f64) as f32)
                });
            let by: Vec<f32> = each.collect();
            posterior.update(features, &batch.rows.labels);
            by
        };
        scene
            .oracle
            .pull_back_features(batch, by_features, gradient);
        Ok(())
    }

    fn after_step(&mut self, scene: &mut Scene, _batch: &Batch, _pass: &PassResult) -> Result<()> {
        if (scene.step + 1).is_multiple_of(self.settings.refresh.max(1)) {
            self.refresh(scene)?;
        }
        self.install(scene.oracle);
        Ok(())
    }

    fn end_experience(&mut self, scene: &mut Scene) -> Result<()> {
        self.refresh(scene)?;
        self.install(scene.oracle);
        Ok(())
    }

    fn keep(&self) -> Result<Kept> {
        let Some(p) = &self.posterior else {
            return Kept::default().with_note(&None::<(usize, Vec<f64>, Vec<f64>)>);
        };
        // In f64, so that a resumed run adds to the same numbers.
        Kept::default().with_note(&Some((p.width, &p.q, &p.count)))
    }

    fn restore(&mut self, kept: Kept, oracle: &mut Oracle) -> Result<()> {
        let note: Option<(usize, Vec<f64>, Vec<f64>)> = kept.note()?;
        let network = oracle.model.network();
        let (classes, features) = (network.outputs(), network.features());
        self.posterior = match note {
            None => None,
            Some((width, q, count))
                if width == features && count.len() == classes && q.len() == classes * width =>
            {
                Some(Posterior {
                    settings: self.settings.clone(),
                    width,
                    q,
                    count,
                })
            }
            Some(_) => return Err(unfit("protocl")),
        };
        self.install(oracle);
        Ok(())
    }

    fn bytes(&self) -> u64 {
        let numbers = |p: &Posterior| p.q.len() + 2 * p.count.len();
        self.posterior.as_ref().map_or(0, |p| 8 * numbers(p)) as u64
    }
}

/// ProtoCL in the table of methods.
pub const PROTOCL: MethodCard = MethodCard {
    name: "protocl",
    aliases: &["prototypical-bayes"],
    title: "Prototypical Bayesian learning",
    source: "Kessler et al., 2023",
    card: "S188",
    family: "classifier",
    use_it: "class-incremental data with a small memory",
    not_for: "streams without a memory: the features move away from the posterior",
    stores: "`d + 2` numbers a class, `capacity` examples",
    costs: "a second pass over each batch, one over the memory every `refresh` steps",
    defaults: || settings_beside(500, &ProtoClSettings::default()),
    expand: |with, _| {
        let (memory, own) = memory_and(with, KeepSpec::Reservoir, 1)?;
        Ok(Parts {
            memory: Some(memory),
            draw: BTreeMap::from([("a".to_owned(), draw(SelectSpec::Uniform, 0))]),
            term: vec![cross_entropy("all", 1.0)],
            plugin: vec![PluginSpec::ProtoCl(own)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_space::Key;

    fn rows(n: usize, width: usize, seed: u64) -> Vec<f32> {
        let mut s = Key::new(seed, "rows").stream();
        (0..n * width).map(|_| s.normal() as f32).collect()
    }

    fn normal(x: f64, mean: f64, variance: f64) -> f64 {
        (-0.5 * (x - mean).powi(2) / variance).exp() / (std::f64::consts::TAU * variance).sqrt()
    }

    /// The predictive is the integral over the mean of likelihood, times prior, times the
    /// likelihoods of what was seen, done by the trapezoid rule.
    #[test]
    fn the_predictive_is_the_integral_over_the_mean() {
        let settings = ProtoClSettings {
            variance: 0.3,
            ..ProtoClSettings::default()
        };
        let seen = [0.4f32, -0.2, 0.9];
        let mut p = Posterior::new(settings, 2, 1);
        p.update(&seen, &[1, 1, 1]);
        let x = 0.7f32;
        let weight = |m: f64| {
            let likelihoods = seen.iter().map(|v| normal(f64::from(*v), m, 0.3));
            normal(m, 0.0, 1.0) * likelihoods.product::<f64>()
        };
        let grid = || (0..20_001).map(|i| -5.0 + 5e-4 * f64::from(i));
        let joint: f64 = grid()
            .map(|m| weight(m) * normal(f64::from(x), m, 0.3))
            .sum();
        let evidence: f64 = grid().map(weight).sum();
        let class = (3.78f64 / (3.0 + 2.0 * 0.78)).ln();
        let got = p.log_joint(&[x])[1];
        assert!((got - class - (joint / evidence).ln()).abs() < 1e-6);
    }

    #[test]
    fn rows_one_by_one_or_at_once_give_one_posterior() {
        let x = rows(12, 4, 1);
        let labels: Vec<u32> = (0..12).map(|i| i % 3).collect();
        let prior = || Posterior::new(ProtoClSettings::default(), 3, 4);
        let (mut whole, mut parts) = (prior(), prior());
        whole.update(&x, &labels);
        for (row, label) in x.chunks_exact(4).zip(&labels) {
            parts.update(row, &[*label]);
        }
        assert_eq!(whole, parts);
        // The mean is the sum of the rows over (n + σ² · prior).
        let want: f64 = (0..4).map(|i| f64::from(x[12 * i + 2])).sum::<f64>() / 4.05;
        assert!((whole.q[2] / whole.precision(0) - want).abs() < 1e-12);
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let mut p = Posterior::new(
            ProtoClSettings {
                variance: 0.7,
                ..ProtoClSettings::default()
            },
            4,
            3,
        );
        p.update(&rows(9, 3, 2), &[0, 1, 1, 2, 2, 2, 0, 0, 0]);
        let open = |k: usize| k != 1;
        let loss = |row: &[f32]| {
            let log = p.log_joint(row);
            let sum: f64 = (0..4).filter(|k| open(*k)).map(|k| log[k].exp()).sum();
            sum.ln() - log[2]
        };
        let row = [0.25f32, -0.5, 0.75];
        let gradient = p.gradient(&row, 2, open);
        for j in 0..3 {
            let at = |h: f32| {
                let mut moved = row;
                moved[j] += h;
                loss(&moved)
            };
            let h = 2f32.powi(-10);
            let slope = (at(h) - at(-h)) / (2.0 * f64::from(h));
            assert!(
                (gradient[j] - slope).abs() < 1e-5,
                "{} {slope}",
                gradient[j]
            );
        }
    }
}
