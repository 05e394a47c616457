//! Gradient episodic memory.
//!
//! **What it does.** Before each step it checks against the gradient of every earlier
//! experience's memory; where the step would raise one of those losses, it takes the nearest
//! direction that does not.
//! **Source.** Lopez-Paz & Ranzato, NeurIPS 2017 (card S087).
//! **Equation.** With rows `g_k = ∇L(M_k)` in `G`: if every `⟨g, g_k⟩ ≥ 0` take `g`; otherwise
//! `g̃ = g + Gᵀv` with `v = argmin ½ vᵀ(GGᵀ + εI)v + (Gg)ᵀv` subject to `v ≥ γ`.
//! **Use it** with plain SGD, online. **Not** with momentum or Adam: the direction applied is
//! then not the one that was checked (refused unless accepted by name).
//! **Stores** `capacity` examples and, during a step, one gradient an earlier experience.
//! **Costs** a forward and backward pass over every earlier experience's memory a step.

use crate::error::Result;
use crate::methods::{MethodCard, memory_and, settings_beside};
use crate::oracle::PassResult;
use crate::spec::{KeepSpec, Parts, UpdateSpec};
use crate::update::{StepContext, Update};
use ebb_space::Weights;
use serde::{Deserialize, Serialize};

/// GEM's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct GemSettings {
    /// `γ`, the memory strength: above 0 it favours helping old experiences.
    pub margin: f64,
    /// `ε` on the diagonal.
    pub ridge: f64,
}

impl Default for GemSettings {
    fn default() -> Self {
        Self {
            margin: 0.5,
            ridge: 1e-3,
        }
    }
}

/// The update rule.
pub struct Gem {
    settings: GemSettings,
    constraints: Vec<Weights>,
}

impl Gem {
    /// An update with these settings.
    pub fn new(settings: GemSettings) -> Self {
        Self {
            settings,
            constraints: Vec::new(),
        }
    }
}

impl Update for Gem {
    fn gradient(&mut self, step: &mut StepContext, gradient: &mut Weights) -> Result<PassResult> {
        let pass = step
            .oracle
            .gradient(step.objective, step.batch, None, gradient)?;
        let earlier = step.earlier_experiences();
        while self.constraints.len() < earlier.len() {
            self.constraints.push(gradient.zeros_like());
        }
        for (experience, g) in earlier.iter().zip(&mut self.constraints) {
            let remembered = step.whole_memory_of(*experience)?;
            step.oracle
                .gradient(step.remembering, &remembered, None, g)?;
        }
        project(gradient, &self.constraints[..earlier.len()], &self.settings);
        Ok(pass)
    }
}

/// Replaces `g` by the nearest direction along which no constraint's loss rises.
pub fn project(g: &mut Weights, constraints: &[Weights], settings: &GemSettings) -> bool {
    let along: Vec<f64> = constraints.iter().map(|c| c.dot(g)).collect();
    if along.iter().all(|d| *d >= 0.0) {
        return false;
    }
    let n = constraints.len();
    let mut gram = vec![0.0; n * n];
    for i in 0..n {
        for j in i..n {
            let d = constraints[i].dot(&constraints[j]);
            gram[i * n + j] = d;
            gram[j * n + i] = d;
        }
        gram[i * n + i] += settings.ridge;
    }
    for (v, c) in solve(&gram, &along, settings.margin)
        .iter()
        .zip(constraints)
    {
        g.axpy(*v as f32, c);
    }
    true
}

/// `argmin_v ½ vᵀQv + pᵀv` subject to `v ≥ bound`, by cyclic coordinate descent in f64: each
/// coordinate's optimum is in closed form and clamped. `Q` is positive definite (ridge).
fn solve(q: &[f64], p: &[f64], bound: f64) -> Vec<f64> {
    let n = p.len();
    let mut v = vec![bound.max(0.0); n];
    for _ in 0..10_000 {
        let mut moved: f64 = 0.0;
        for i in 0..n {
            let rest: f64 = (0..n)
                .filter(|j| *j != i)
                .map(|j| q[i * n + j] * v[j])
                .sum();
            let best = ((-p[i] - rest) / q[i * n + i]).max(bound);
            moved = moved.max((best - v[i]).abs() / (1.0 + best.abs()));
            v[i] = best;
        }
        if moved < 1e-12 {
            break;
        }
    }
    v
}

/// GEM in the table of methods.
pub const GEM: MethodCard = MethodCard {
    name: "gem",
    aliases: &["gradient-episodic-memory"],
    title: "Gradient episodic memory",
    source: "Lopez-Paz & Ranzato, NeurIPS 2017",
    card: "S087",
    family: "projection",
    use_it: "plain SGD, online, and old losses that must not rise",
    not_for: "momentum or Adam (refused unless accepted by name), long streams",
    stores: "`capacity` examples and one gradient an earlier experience",
    costs: "a pass over every earlier experience's memory a step",
    defaults: || settings_beside(256, &GemSettings::default()),
    expand: |with, situation| {
        let (memory, own) = memory_and(with, KeepSpec::Ring, situation.experiences)?;
        Ok(Parts {
            memory: Some(memory),
            update: UpdateSpec::Gem(own),
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_space::{Key, Layout};

    fn random(n: usize, key: Key) -> Weights {
        let layout = Layout::new([("w".to_owned(), vec![n])]).expect("one tensor");
        let mut s = key.stream();
        Weights::from_vec(&layout, (0..n).map(|_| s.normal() as f32).collect()).expect("n values")
    }

    /// The KKT bound for this ridge: `⟨g̃, g_k⟩ ≥ −ε v_k`, so at least `−ε max v`.
    #[test]
    fn no_constraint_is_violated_beyond_the_ridge() {
        let settings = GemSettings {
            margin: 0.0,
            ridge: 1e-3,
        };
        for trial in 0..200 {
            let key = Key::new(trial, "gem");
            let mut g = random(12, key.sub("g"));
            let raw = g.clone();
            let constraints: Vec<Weights> = (0..5).map(|k| random(12, key.at(k))).collect();
            let changed = project(&mut g, &constraints, &settings);
            let violated = constraints.iter().any(|c| c.dot(&raw) < 0.0);
            assert_eq!(changed, violated);
            if !violated {
                assert_eq!(g.as_slice(), raw.as_slice());
            }
            for c in &constraints {
                assert!(c.dot(&g) > -1e-3 * 10.0, "trial {trial}: {}", c.dot(&g));
            }
        }
    }

    /// Against brute force: the best vertex over all active sets of two constraints.
    #[test]
    fn the_dual_program_is_solved() {
        for trial in 0..100 {
            let key = Key::new(trial, "dual");
            let mut s = key.stream();
            let (a, b, c) = (
                1.0 + s.uniform(),
                0.9 * s.uniform() - 0.45,
                1.0 + s.uniform(),
            );
            let p = [s.normal(), s.normal()];
            let bound = 0.2;
            let q = [a, b, b, c];
            let value = |v: [f64; 2]| {
                0.5 * (a * v[0] * v[0] + 2.0 * b * v[0] * v[1] + c * v[1] * v[1])
                    + p[0] * v[0]
                    + p[1] * v[1]
            };
            let det = a * c - b * b;
            let candidates = [
                [(b * p[1] - c * p[0]) / det, (b * p[0] - a * p[1]) / det],
                [bound, (-p[1] - b * bound) / c],
                [(-p[0] - b * bound) / a, bound],
                [bound, bound],
            ];
            let best = candidates
                .into_iter()
                .filter(|v| v.iter().all(|x| *x >= bound - 1e-12))
                .map(value)
                .fold(f64::INFINITY, f64::min);
            let found = solve(&q, &p, bound);
            assert!((value([found[0], found[1]]) - best).abs() < 1e-9);
        }
    }
}
