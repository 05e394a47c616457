//! Zeroth-order steps: gradients estimated from forward passes alone.
//!
//! **What it does.** Evaluates the loss a little to both sides of the weights along random
//! directions, and steps along these in proportion to the differences.
//! **Source.** Spall, 1992 (SPSA); as a means against forgetting: Feng et al., 2025, "ZeroFlow"
//! (card S090), whose finding is that such steps move less along directions old tasks are sharp in.
//! **Equation.** With `u_k ~ N(0, I)`:
//! `ĝ = 1/q Σ_k (L(θ + μ u_k) − L(θ − μ u_k)) / 2μ · u_k`, whose mean is `∇L` up to `O(μ²)`.
//! `sign`: `sgn ĝ`. `conserve`: of `θ`, `θ − η ĝ` and `θ + η ĝ` the one of least loss.
//! **Use it** where no backward pass can be had, on few parameters (`on`): the variance of a
//! coordinate of `ĝ` is `(‖∇L‖² + ∂ᵢL²)/q`. **Not** from scratch on a large network. Norm layers
//! keep their running statistics, dropout is off. `conserve` goes with plain SGD alone.
//! **Stores** nothing: directions come from a key, again for each use; a step holds one copy of
//! the weights. **Costs** `2q + 1` forward passes a step (`conserve`: two more), no backward one.

use crate::error::{Error, Result};
use crate::methods::{MethodCard, settings};
use crate::oracle::PassResult;
use crate::spec::{Parts, UpdateSpec};
use crate::update::{StepContext, Update};
use ebb_space::{Key, Layout, Mask, Weights};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What is made of the estimate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// Nothing.
    #[default]
    Plain,
    /// Its sign.
    Sign,
    /// A step along it, against it, or none, whichever leaves the least loss.
    Conserve,
}

/// The numbers of zeroth-order steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct ZerothOrderSettings {
    /// Directions a step, q.
    pub queries: u64,
    /// How far to each side, μ.
    pub mu: f64,
    /// What is made of the estimate.
    pub variant: Variant,
    /// Paths (with `*`) that are perturbed and so trained; left empty: all.
    pub on: Vec<String>,
}

impl Default for ZerothOrderSettings {
    fn default() -> Self {
        Self {
            queries: 1,
            mu: 1e-3,
            variant: Variant::Plain,
            on: Vec::new(),
        }
    }
}

/// Writes the SPSA estimate into `into`: `loss(u, c)` is `L(θ + c u)`, where the direction `u` is
/// the normal draws of a key at the indices in `places`.
///
/// # Errors
/// What `loss` says.
pub fn estimate(
    s: &ZerothOrderSettings,
    places: &[Range<usize>],
    key: Key,
    mut loss: impl FnMut(Key, f64) -> Result<f64>,
    into: &mut Weights,
) -> Result<()> {
    into.fill(0.0);
    for k in 0..s.queries {
        let u = key.at(k);
        let slope = (loss(u, s.mu)? - loss(u, -s.mu)?) / (2.0 * s.mu);
        let share = slope / s.queries as f64;
        for i in places.iter().cloned().flatten() {
            into.as_mut_slice()[i] += (share * u.normal(i as u64)) as f32;
        }
    }
    Ok(())
}

/// The update rule.
pub struct ZerothOrder {
    settings: ZerothOrderSettings,
}

impl ZerothOrder {
    /// An update with these settings.
    pub fn new(settings: ZerothOrderSettings) -> Self {
        Self { settings }
    }

    /// The places of the tensors that are perturbed.
    fn places(&self, layout: &std::sync::Arc<Layout>) -> Result<Vec<Range<usize>>> {
        let all: Vec<&str> = vec!["*"];
        let named: Vec<&str> = self.settings.on.iter().map(String::as_str).collect();
        let patterns = if named.is_empty() { all } else { named };
        let (mask, unmatched) = Mask::from_globs(layout, &patterns);
        if let Some(pattern) = unmatched.first() {
            return Err(Error::no_such_path(pattern, layout));
        }
        let ranges = layout.entries().iter().map(|e| e.range.clone());
        Ok(ranges
            .filter(|r| !r.is_empty() && mask.contains(r.start))
            .collect())
    }
}

impl Update for ZerothOrder {
    fn gradient(&mut self, step: &mut StepContext, gradient: &mut Weights) -> Result<PassResult> {
        let s = &self.settings;
        let (objective, batch) = (step.objective, step.batch);
        let here = step.oracle.evaluate(objective, batch)?;
        let theta = step.oracle.model.weights();
        let layout = theta.layout().clone();
        let places = self.places(&layout)?;
        let chosen: Vec<bool> = (layout.entries().iter())
            .map(|e| places.contains(&e.range))
            .collect();
        let key = step.oracle.key.sub("perturbation");
        let oracle = &mut *step.oracle;
        let at = |u: Key, c: f64| {
            oracle.model.update(|tensor, p| {
                if chosen[tensor] {
                    let range = layout.entries()[tensor].range.clone();
                    let theta = &theta.as_slice()[range.clone()];
                    for ((p, t), i) in p.iter_mut().zip(theta).zip(range) {
                        *p = (f64::from(*t) + c * u.normal(i as u64)) as f32;
                    }
                }
            });
            Ok(oracle.value(objective, batch)?.total)
        };
        estimate(s, &places, key, at, gradient)?;
        match s.variant {
            Variant::Plain => {}
            Variant::Sign => {
                gradient.map_in_place(|g| if g == 0.0 { 0.0 } else { g.signum() });
            }
            Variant::Conserve => {
                let mut along = |c: f64| -> Result<f64> {
                    let mut moved = theta.clone();
                    moved.axpy(c as f32, gradient);
                    step.oracle.model.set_weights(&moved)?;
                    Ok(step.oracle.value(objective, batch)?.total)
                };
                let (down, up) = (along(-step.lr)?, along(step.lr)?);
                gradient.scale(conserved(here.value.total, down, up));
            }
        }
        step.oracle.model.set_weights(&theta)?;
        Ok(here)
    }
}

/// The factor on the estimate that takes the step to the least loss: none, down or up.
fn conserved(here: f64, down: f64, up: f64) -> f32 {
    if here <= down && here <= up {
        0.0
    } else if down <= up {
        1.0
    } else {
        -1.0
    }
}

/// Zeroth-order steps in the table of methods.
pub const ZEROTH_ORDER: MethodCard = MethodCard {
    name: "zeroth-order",
    aliases: &["zeroflow", "spsa"],
    title: "Zeroth-order steps",
    source: "Spall, 1992; Feng et al., 2025",
    card: "S090",
    family: "update",
    use_it: "no backward pass can be had, and few parameters are trained",
    not_for: "large networks from scratch: the variance grows with their size",
    stores: "nothing",
    costs: "two forward passes for each of `queries`, and one, in the place of forward and backward",
    defaults: || settings(&ZerothOrderSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            update: UpdateSpec::ZerothOrder(crate::methods::read(with)?),
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, Collect};
    use crate::objective::remembering;
    use crate::oracle::Oracle;
    use burn::tensor::Device;
    use ebb_net::{ActivationKind, HeadKind, Init, Model, NetworkSpec};
    use ebb_space::ExampleId;

    /// On `½ (θ − a)ᵀ D (θ − a)` the difference quotient is exactly `gᵀu`, so `ĝ = (gᵀu) u`: of
    /// mean `g` and variance `‖g‖² + gᵢ²` in coordinate i, over q.
    #[test]
    fn on_a_quadratic_it_is_unbiased_with_the_known_variance() {
        const N: usize = 6;
        let layout = Layout::new([("w".to_owned(), vec![N])]).expect("one tensor");
        let mut s = Key::new(1, "quadratic").stream();
        let mut vector = || -> Vec<f64> { (0..N).map(|_| s.normal()).collect() };
        let (theta, a, d) = (vector(), vector(), vector());
        let loss = |w: &[f64]| -> f64 {
            let each = (0..N).map(|i| 0.5 * (d[i].abs() + 0.1) * (w[i] - a[i]).powi(2));
            each.sum()
        };
        let g: Vec<f64> = (0..N)
            .map(|i| (d[i].abs() + 0.1) * (theta[i] - a[i]))
            .collect();
        let square: f64 = g.iter().map(|g| g * g).sum();
        let places = std::slice::from_ref(&(0..N));
        for queries in [1, 4] {
            let settings = ZerothOrderSettings {
                queries,
                mu: 0.5,
                ..ZerothOrderSettings::default()
            };
            let mut found = Weights::zeros(&layout);
            let (mut mean, mut second) = ([0.0; N], [0.0; N]);
            let n = 20_000;
            for draw in 0..n {
                let key = Key::new(2, "directions").at(draw);
                let at = |u: Key, c: f64| {
                    let w: Vec<f64> = (0..N).map(|i| theta[i] + c * u.normal(i as u64)).collect();
                    Ok(loss(&w))
                };
                estimate(&settings, places, key, at, &mut found).expect("a quadratic");
                if queries == 1 && draw == 0 {
                    let u = |i: usize| key.at(0).normal(i as u64);
                    let slope: f64 = (0..N).map(|i| g[i] * u(i)).sum();
                    for i in 0..N {
                        assert!((f64::from(found.as_slice()[i]) - slope * u(i)).abs() < 1e-5);
                    }
                }
                for (i, v) in found.as_slice().iter().enumerate() {
                    mean[i] += f64::from(*v) / n as f64;
                    second[i] += f64::from(*v).powi(2) / n as f64;
                }
            }
            for i in 0..N {
                let variance = (square + g[i] * g[i]) / queries as f64;
                let error = (variance / n as f64).sqrt();
                assert!((mean[i] - g[i]).abs() < 5.0 * error, "{i}");
                let ratio = (second[i] - mean[i] * mean[i]) / variance;
                assert!((ratio - 1.0).abs() < 0.1, "{i}: {ratio}");
            }
        }
    }

    fn network() -> (Oracle, Batch) {
        let spec = NetworkSpec::Mlp {
            hidden: vec![4],
            activation: ActivationKind::Tanh,
            dropout: 0.0,
            init: Init::He,
            standardise: false,
            head: HeadKind::default(),
        };
        let network = spec.build([1, 2, 2], 3).expect("a network");
        let model = Model::new(network, Key::new(1, "zeroth"), &Device::flex());
        let mut c = Collect::default();
        c.support("new");
        for i in 0..8u64 {
            c.row(ExampleId::of(&i.to_le_bytes(), 0), (i % 3) as u32, None);
            let mut s = Key::new(i, "x").stream();
            c.x.extend((0..4).map(|_| s.normal() as f32));
        }
        let batch = c.finish(&model, &[], 3);
        (Oracle::new(model, Key::new(3, "step")), batch)
    }

    fn step(oracle: &mut Oracle, batch: &Batch, s: &ZerothOrderSettings, at: u64) -> Weights {
        let objective = remembering();
        let mut gradient = oracle.model.weights().zeros_like();
        oracle.key = Key::new(3, "step").at(at);
        let mut context = StepContext {
            oracle,
            objective: &objective,
            remembering: &objective,
            batch,
            replay: None,
            experience: 0,
            step: at,
            lr: 0.1,
        };
        let mut update = ZerothOrder::new(s.clone());
        update
            .gradient(&mut context, &mut gradient)
            .expect("forward passes");
        gradient
    }

    /// The mean over many steps is the gradient that the backward pass gives; no backward pass is
    /// made, and the weights come back to the bit.
    #[test]
    fn on_a_network_its_mean_is_the_gradient() {
        let (mut oracle, batch) = network();
        let before = oracle.model.weights();
        let settings = ZerothOrderSettings::default();
        let n = 4000;
        let size = before.layout().len();
        let (mut mean, mut second) = (vec![0.0; size], vec![0.0; size]);
        for at in 0..n {
            let found = step(&mut oracle, &batch, &settings, at);
            for (i, v) in found.as_slice().iter().enumerate() {
                mean[i] += f64::from(*v) / n as f64;
                second[i] += f64::from(*v).powi(2) / n as f64;
            }
        }
        assert_eq!(oracle.model.weights().digest(), before.digest());
        assert_eq!(
            (oracle.meter.backward_rows, oracle.meter.gradient_calls),
            (0, 0)
        );
        assert_eq!(oracle.meter.forward_rows, 3 * n * 8);
        let mut exact = before.zeros_like();
        let objective = remembering();
        oracle
            .gradient(&objective, &batch, None, &mut exact)
            .expect("a pass");
        assert!(exact.norm() > 0.1);
        for (i, g) in exact.as_slice().iter().enumerate() {
            let deviation = ((second[i] - mean[i] * mean[i]) / n as f64).sqrt();
            assert!(
                (mean[i] - f64::from(*g)).abs() < 5.0 * deviation + 1e-4,
                "{i}"
            );
        }
    }

    #[test]
    fn variants_and_masks_do_what_they_say() {
        let (mut oracle, batch) = network();
        let plain = ZerothOrderSettings {
            on: vec!["head*".to_owned()],
            ..ZerothOrderSettings::default()
        };
        let with = |variant| ZerothOrderSettings {
            variant,
            ..plain.clone()
        };
        let g = step(&mut oracle, &batch, &plain, 1);
        for (entry, values) in g.iter() {
            let moved = values.iter().any(|v| *v != 0.0);
            assert_eq!(moved, entry.path.starts_with("head"), "{}", entry.path);
        }
        let sign = step(&mut oracle, &batch, &with(Variant::Sign), 1);
        for (s, g) in sign.as_slice().iter().zip(g.as_slice()) {
            assert_eq!(*s, if *g == 0.0 { 0.0 } else { g.signum() });
        }
        // The step that `conserve` takes never raises the loss of the batch.
        let objective = remembering();
        for at in 0..40 {
            let before = oracle.model.weights();
            let now = oracle.value(&objective, &batch).expect("a pass").total;
            let g = step(&mut oracle, &batch, &with(Variant::Conserve), at);
            let mut after = before.clone();
            after.axpy(-0.1, &g);
            oracle.model.set_weights(&after).expect("its own layout");
            let then = oracle.value(&objective, &batch).expect("a pass").total;
            assert!(then <= now, "{then} {now}");
            oracle.model.set_weights(&before).expect("its own layout");
        }
        assert_eq!(
            [conserved(1.0, 2.0, 3.0), conserved(1.0, 1.0, 1.0)],
            [0.0; 2]
        );
        assert_eq!(
            [conserved(3.0, 2.0, 4.0), conserved(3.0, 2.0, 1.0)],
            [1.0, -1.0]
        );
    }
}
