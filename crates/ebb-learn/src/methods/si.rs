//! Synaptic intelligence.
//!
//! **What it does.** Credits each weight, step by step, with its share of the fall of the loss,
//! and pulls later weights back in proportion to that credit.
//! **Source.** Zenke et al., ICML 2017 (compared in card S029's family; objective.md 0.4).
//! **Equation.** `ω_i = −Σ_steps g_i Δθ_i` with the gradient of the task's loss alone;
//! `Ω_i += max(0, ω_i) / ((Δ_i)² + ξ)` at an experience's end, `Δ_i` its total change;
//! penalty `c Σ_i Ω_i (θ_i − θ*_i)²` with one anchor.
//! **Use it** as EWC, where a Fisher pass is too dear. **Not** alone on class-incremental data
//! (refused unless accepted by name); with momentum or Adam the path integral credits the
//! optimizer's memory too.
//! **Stores** four vectors of the size of the weights.
//! **Costs** two fused passes over the weights a step.

use crate::error::Result;
use crate::methods::{MethodCard, settings};
use crate::oracle::Oracle;
use crate::penalty::{Penalty, Stepped};
use crate::seen::Seen;
use crate::spec::{Parts, PenaltySpec};
use ebb_space::Weights;
use serde::{Deserialize, Serialize};

/// SI's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct SiSettings {
    /// Strength `c` of `c Σ Ω (θ − θ*)²` (no ½).
    pub c: f64,
    /// Damping `ξ`.
    pub damping: f64,
    /// Set negative credits to 0, as the paper does; some published code does not.
    pub clamp: bool,
}

impl Default for SiSettings {
    fn default() -> Self {
        Self {
            c: 1.0,
            damping: 0.1,
            clamp: true,
        }
    }
}

/// The penalty.
pub struct Si {
    settings: SiSettings,
    /// `ω` of the experience under way, and the weights it began with.
    path: Option<(Weights, Weights)>,
    /// `Ω` and the anchor.
    kept: Option<(Weights, Weights)>,
}

impl Si {
    /// Nothing credited yet.
    pub fn new(settings: SiSettings) -> Self {
        Self {
            settings,
            path: None,
            kept: None,
        }
    }

    fn consolidate(&mut self, now: &Weights) {
        let Some((omega, start)) = self.path.take() else {
            return;
        };
        let (xi, clamp) = (self.settings.damping as f32, self.settings.clamp);
        let mut change = now.clone();
        change.axpy(-1.0, &start);
        let mut credit = omega;
        credit.zip_with(&change, |w, d| {
            let w = if clamp { w.max(0.0) } else { w };
            w / (d * d + xi)
        });
        match &mut self.kept {
            Some((importance, anchor)) => {
                importance.axpy(1.0, &credit);
                anchor.copy_from(now);
            }
            None => self.kept = Some((credit, now.clone())),
        }
    }
}

impl Penalty for Si {
    fn name(&self) -> &'static str {
        "si"
    }

    fn active(&self) -> bool {
        self.kept.is_some() && self.settings.c != 0.0
    }

    fn add_gradient(&self, theta: &Weights, gradient: &mut Weights) {
        if let Some((importance, anchor)) = &self.kept {
            let c = 2.0 * self.settings.c as f32;
            gradient.add_product_of_difference(c, importance, theta, anchor);
        }
    }

    fn value(&self, theta: &Weights) -> f64 {
        self.kept.as_ref().map_or(0.0, |(importance, anchor)| {
            self.settings.c * theta.weighted_squared_distance(importance, anchor)
        })
    }

    fn observes(&self) -> bool {
        true
    }

    /// `ω ← ω − g ⊙ (θ_after − θ_before)`.
    fn observe(&mut self, step: &Stepped) {
        let (omega, _) = self
            .path
            .get_or_insert_with(|| (step.before.zeros_like(), step.before.clone()));
        omega.add_product_of_difference(-1.0, step.gradient, step.after, step.before);
    }

    fn end_of_experience(&mut self, oracle: &mut Oracle, _seen: &Seen) -> Result<()> {
        let now = oracle.model.weights();
        self.consolidate(&now);
        Ok(())
    }

    fn state(&self) -> Vec<(String, &Weights)> {
        let mut state = Vec::new();
        if let Some((omega, start)) = &self.path {
            state.push(("omega".to_owned(), omega));
            state.push(("start".to_owned(), start));
        }
        if let Some((importance, anchor)) = &self.kept {
            state.push(("importance".to_owned(), importance));
            state.push(("anchor".to_owned(), anchor));
        }
        state
    }

    fn restore(
        &mut self,
        names: &[String],
        load: &mut dyn FnMut(&str) -> Result<Weights>,
    ) -> Result<()> {
        let has = |name: &str| names.iter().any(|n| n == name);
        self.path = match has("omega") {
            true => Some((load("omega")?, load("start")?)),
            false => None,
        };
        self.kept = match has("importance") {
            true => Some((load("importance")?, load("anchor")?)),
            false => None,
        };
        Ok(())
    }
}

/// SI in the table of methods.
pub const SI: MethodCard = MethodCard {
    name: "si",
    aliases: &["synaptic-intelligence"],
    title: "Synaptic intelligence",
    source: "Zenke et al., ICML 2017",
    card: "S029",
    family: "weight penalty",
    use_it: "as EWC, where a Fisher pass is too dear",
    not_for: "class-incremental streams on its own (refused unless accepted by name)",
    stores: "four vectors of the size of the weights",
    costs: "two fused passes over the weights a step",
    defaults: || settings(&SiSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            penalty: vec![PenaltySpec::Si(crate::methods::read(with)?)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_space::Layout;

    /// On a separable quadratic under gradient flow to its minimum, `ω_i` is the loss that
    /// falls along coordinate `i` and `Ω_i = H_ii / 2` (objective.md 0.4, identity i).
    #[test]
    fn importance_on_a_quadratic_is_half_its_curvature() {
        let layout = Layout::new([("w".to_owned(), vec![3])]).expect("one tensor");
        let h = [0.5f32, 2.0, 7.0];
        let mut theta = Weights::from_vec(&layout, vec![1.0, -2.0, 0.5]).expect("three values");
        let mut si = Si::new(SiSettings {
            c: 1.0,
            damping: 0.0,
            clamp: true,
        });
        // Small steps stand in for the flow; the slowest direction decays as exp(−0.5 t).
        let lr = 1e-3;
        for _ in 0..20_000 {
            let before = theta.clone();
            let mut gradient = theta.clone();
            for (g, h) in gradient.as_mut_slice().iter_mut().zip(h) {
                *g *= h;
            }
            theta.axpy(-lr, &gradient);
            si.observe(&Stepped {
                gradient: &gradient,
                before: &before,
                after: &theta,
            });
        }
        si.consolidate(&theta);
        let (importance, _) = si.kept.as_ref().expect("consolidated");
        for (omega, h) in importance.as_slice().iter().zip(h) {
            assert!(
                (omega - h / 2.0).abs() < 0.01 * h,
                "{omega} and {}",
                h / 2.0
            );
        }
        // ½ δᵀ M δ with M = 2cΩ = H: the penalty is the quadratic itself.
        let mut away = theta.clone();
        away.as_mut_slice()[2] += 1.0;
        assert!((si.value(&away) - 3.5).abs() < 0.05);
    }
}
