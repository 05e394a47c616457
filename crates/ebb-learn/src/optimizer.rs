//! Optimizers: fused, in place, with their state keyed by path.
//!
//! The engine's own optimizers key their state by random ids that no checkpoint carries, so a
//! resumed run would start from zero moments without a word. Here the state is a few named
//! vectors in the same space as the weights, and is saved with them.

use ebb_kernels::optim;
use ebb_net::Model;
use ebb_space::{Layout, Weights};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Which optimizer, by the field's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    /// Stochastic gradient descent, with heavy-ball or Nesterov momentum if asked for.
    #[default]
    Sgd,
    /// Adam (Kingma & Ba 2015); weight decay is added to the gradient.
    Adam,
    /// AdamW (Loshchilov & Hutter 2019); weight decay shrinks the weights themselves.
    Adamw,
    /// Adagrad (Duchi et al. 2011).
    Adagrad,
}

/// An optimizer's numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerSettings {
    /// Which one.
    pub kind: OptimizerKind,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Nesterov's form of it.
    pub nesterov: bool,
    /// Adam's decays.
    pub betas: [f64; 2],
    /// Added to the root.
    pub eps: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

/// An optimizer and its state.
#[derive(Clone, Debug)]
pub struct Optimizer {
    settings: OptimizerSettings,
    /// Steps of each tensor since its first gradient that was not 0: the head of a task that
    /// comes late starts its bias correction when it is first used.
    steps: Vec<u64>,
    moments: Vec<(&'static str, Weights)>,
}

impl Optimizer {
    /// Fresh state over `layout`.
    pub fn new(settings: OptimizerSettings, layout: &Arc<Layout>) -> Self {
        let names: &[&'static str] = match settings.kind {
            OptimizerKind::Sgd if settings.momentum == 0.0 => &[],
            OptimizerKind::Sgd => &["momentum"],
            OptimizerKind::Adam | OptimizerKind::Adamw => &["first", "second"],
            OptimizerKind::Adagrad => &["squares"],
        };
        Self {
            settings,
            steps: vec![0; layout.entries().len()],
            moments: names.iter().map(|n| (*n, Weights::zeros(layout))).collect(),
        }
    }

    /// One step along `gradient` at learning rate `lr`, in place.
    pub fn step(&mut self, model: &mut Model, gradient: &Weights, lr: f64) {
        let s = self.settings;
        let layout = gradient.layout().clone();
        let g = gradient.as_slice();
        for (steps, entry) in self.steps.iter_mut().zip(layout.entries()) {
            if *steps > 0 || g[entry.range.clone()].iter().any(|v| *v != 0.0) {
                *steps += 1;
            }
        }
        let (lr32, wd) = (lr as f32, s.weight_decay as f32);
        let range = |i: usize| layout.entries()[i].range.clone();
        match (s.kind, self.moments.as_mut_slice()) {
            (OptimizerKind::Sgd, []) => {
                model.update(|i, p| optim::sgd(p, &g[range(i)], lr32, wd));
            }
            (OptimizerKind::Sgd, [(_, m), ..]) => {
                let m = m.as_mut_slice();
                let mu = s.momentum as f32;
                model.update(|i, p| {
                    optim::momentum(p, &g[range(i)], &mut m[range(i)], lr32, mu, wd, s.nesterov);
                });
            }
            (OptimizerKind::Adam | OptimizerKind::Adamw, [(_, m), (_, v)]) => {
                let (m, v) = (m.as_mut_slice(), v.as_mut_slice());
                let decoupled = s.kind == OptimizerKind::Adamw;
                let step = |t: f64| optim::AdamStep {
                    lr: lr32,
                    beta1: s.betas[0] as f32,
                    beta2: s.betas[1] as f32,
                    eps: s.eps as f32,
                    l2: if decoupled { 0.0 } else { wd },
                    decoupled: if decoupled { wd } else { 0.0 },
                    correction1: (1.0 - s.betas[0].powf(t)) as f32,
                    correction2: (1.0 - s.betas[1].powf(t)) as f32,
                };
                let steps = &self.steps;
                model.update(|i, p| {
                    // A tensor without a gradient so far has nothing to move it.
                    if steps[i] > 0 {
                        let step = step(steps[i] as f64);
                        optim::adam(p, &g[range(i)], &mut m[range(i)], &mut v[range(i)], step);
                    }
                });
            }
            (OptimizerKind::Adagrad, [(_, v), ..]) => {
                let v = v.as_mut_slice();
                let eps = s.eps as f32;
                model.update(|i, p| {
                    optim::adagrad(p, &g[range(i)], &mut v[range(i)], lr32, eps, wd);
                });
            }
            (kind, moments) => {
                unreachable!("{kind:?} is built with its moments, not {}", moments.len())
            }
        }
    }

    /// Steps of each tensor since its first gradient that was not 0.
    pub fn steps(&self) -> &[u64] {
        &self.steps
    }

    /// The state by name, to be saved.
    pub fn state(&self) -> impl Iterator<Item = (&'static str, &Weights)> {
        self.moments.iter().map(|(n, w)| (*n, w))
    }

    /// Puts saved state back.
    pub fn restore(
        &mut self,
        steps: &[u64],
        mut load: impl FnMut(&str) -> Option<Weights>,
    ) -> bool {
        if steps.len() != self.steps.len() {
            return false;
        }
        self.steps.copy_from_slice(steps);
        for (name, moment) in &mut self.moments {
            match load(name) {
                Some(w) => *moment = w,
                None => return false,
            }
        }
        true
    }

    /// Forgets what it knows of one tensor, by its number in the layout.
    pub fn reset_tensor(&mut self, index: usize) {
        self.steps[index] = 0;
        for (_, m) in &mut self.moments {
            let range = m.layout().entries()[index].range.clone();
            m.as_mut_slice()[range].fill(0.0);
        }
    }

    /// Forgets everything: fresh moments, no steps.
    pub fn reset(&mut self) {
        self.steps.fill(0);
        for (_, m) in &mut self.moments {
            m.fill(0.0);
        }
    }

    /// Bytes of state.
    pub fn bytes(&self) -> usize {
        self.moments
            .iter()
            .map(|(_, w)| 4 * w.as_slice().len())
            .sum()
    }
}
