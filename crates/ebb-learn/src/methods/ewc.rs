//! Elastic weight consolidation.
//!
//! **What it does.** After each experience it remembers where the weights are and how much each
//! of them mattered, and pulls later weights back in proportion.
//! **Source.** Kirkpatrick et al., PNAS 2017 (card S029); online form: Schwarz et al., 2018.
//! **Equation.** `L(θ) = L_new(θ) + λ/2 · Σ_k Σ_i F_k,i (θ_i − θ*_k,i)²`. Separate anchors
//! collapse: `Σ_k F_k(θ − θ*_k) = M θ − b` with `M = ΣF_k`, `b = ΣF_k θ*_k`, so they cost no more
//! than the online form, whose anchor is the newest weights and whose `M ← γM + F`.
//! **Use it** with known task boundaries and one head a task. **Not** alone on class-incremental
//! data: it cannot separate classes it never sees together (refused unless accepted by name).
//! **Stores** two vectors of the size of the weights.
//! **Costs** one fused multiply-add over the weights a step, and a Fisher pass an experience.

use crate::error::Result;
use crate::fisher::{FisherRequest, fisher};
use crate::methods::{MethodCard, settings};
use crate::oracle::Oracle;
use crate::penalty::{Anchored, Penalty};
use crate::seen::Seen;
use crate::spec::{Parts, PenaltySpec};
use ebb_space::{FisherKind, Weights};
use serde::{Deserialize, Serialize};

/// EWC's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct EwcSettings {
    /// Strength, in the ½-form of the equation. Values published without the ½ are doubled.
    pub lambda: f64,
    /// Which Fisher; their scales differ by orders of magnitude.
    pub fisher: FisherKind,
    /// Examples the Fisher is taken over; 0: all of the experience's.
    pub samples: usize,
    /// One anchor at the newest weights instead of one an experience.
    pub online: bool,
    /// What is kept of the old importance in the online form.
    pub gamma: f64,
    /// Shuffle the importance within each tensor: a control that must not work.
    pub permuted: bool,
}

impl Default for EwcSettings {
    fn default() -> Self {
        Self {
            lambda: 10.0,
            fisher: FisherKind::Exact,
            samples: 0,
            online: false,
            gamma: 1.0,
            permuted: false,
        }
    }
}

/// The penalty.
pub struct Ewc {
    settings: EwcSettings,
    /// `M = Σ F_k`, and `b = Σ F_k θ*_k` (separate) or the newest weights (online).
    kept: Anchored,
}

impl Ewc {
    /// Nothing remembered yet.
    pub fn new(settings: EwcSettings) -> Self {
        Self {
            settings,
            kept: Anchored::default(),
        }
    }

    /// Takes in an importance and the weights it belongs to.
    pub fn remember(&mut self, importance: &Weights, at: &Weights) {
        let (m, b) = self
            .kept
            .0
            .get_or_insert_with(|| (at.zeros_like(), at.zeros_like()));
        if self.settings.online {
            m.scale(self.settings.gamma as f32);
            m.axpy(1.0, importance);
            b.copy_from(at);
        } else {
            m.axpy(1.0, importance);
            b.add_product(1.0, importance, at);
        }
    }
}

impl Penalty for Ewc {
    fn name(&self) -> &'static str {
        "ewc"
    }

    fn active(&self) -> bool {
        self.kept.0.is_some() && self.settings.lambda != 0.0
    }

    fn add_gradient(&self, theta: &Weights, gradient: &mut Weights) {
        let Some((m, b)) = &self.kept.0 else { return };
        let lambda = self.settings.lambda as f32;
        if self.settings.online {
            gradient.add_product_of_difference(lambda, m, theta, b);
        } else {
            gradient.add_product(lambda, m, theta);
            gradient.axpy(-lambda, b);
        }
    }

    fn value(&self, theta: &Weights) -> f64 {
        let Some((m, b)) = &self.kept.0 else {
            return 0.0;
        };
        let half = 0.5 * self.settings.lambda;
        if self.settings.online {
            return half * theta.weighted_squared_distance(m, b);
        }
        // Σ F_k (θ − θ*_k)² up to the constant that the collapse drops.
        let mut square = theta.clone();
        square.mul_assign(theta);
        half * (square.dot(m) - 2.0 * theta.dot(b))
    }

    fn end_of_experience(&mut self, oracle: &mut Oracle, seen: &Seen) -> Result<()> {
        let request = FisherRequest {
            kind: self.settings.fisher,
            samples: self.settings.samples,
        };
        let mut importance = fisher(oracle, seen, &request)?;
        if self.settings.permuted {
            importance = importance.permuted_within_tensors(seen.key.sub("permuted Fisher"));
        }
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

/// EWC in the table of methods.
pub const EWC: MethodCard = MethodCard {
    name: "ewc",
    aliases: &["elastic-weight-consolidation"],
    title: "Elastic weight consolidation",
    source: "Kirkpatrick et al., PNAS 2017",
    card: "S029",
    family: "weight penalty",
    use_it: "known task boundaries and one head a task",
    not_for: "class-incremental streams on its own (refused unless accepted by name)",
    stores: "two vectors of the size of the weights",
    costs: "one fused multiply-add over the weights a step, a Fisher pass an experience",
    defaults: || settings(&EwcSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            penalty: vec![PenaltySpec::Ewc(crate::methods::read(with)?)],
            ..Parts::default()
        })
    },
};

/// Online EWC in the table of methods.
pub const ONLINE_EWC: MethodCard = MethodCard {
    name: "online-ewc",
    aliases: &["ewc++", "oewc"],
    title: "Online elastic weight consolidation",
    source: "Schwarz et al., ICML 2018",
    defaults: || settings(&online()),
    expand: |with, _| {
        let mut all = settings(&online());
        all.extend(with.clone());
        Ok(Parts {
            penalty: vec![PenaltySpec::Ewc(crate::methods::read(&all)?)],
            ..Parts::default()
        })
    },
    ..EWC
};

fn online() -> EwcSettings {
    EwcSettings {
        online: true,
        ..EwcSettings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_space::{Key, Layout};

    fn random(key: &str, positive: bool) -> Weights {
        let layout = Layout::new([("a".to_owned(), vec![3, 2]), ("b".to_owned(), vec![4])])
            .expect("two tensors");
        let mut w = Weights::zeros(&layout);
        let mut s = Key::new(3, key).stream();
        for v in w.as_mut_slice() {
            *v = s.normal() as f32;
            if positive {
                *v = v.abs();
            }
        }
        w
    }

    /// The gradient against finite differences of the published penalty, written out in f64
    /// with separate anchors.
    #[test]
    fn gradient_is_that_of_the_published_penalty() {
        for online in [false, true] {
            let anchors = [
                (random("f1", true), random("t1", false)),
                (random("f2", true), random("t2", false)),
            ];
            let mut ewc = Ewc::new(EwcSettings {
                lambda: 7.0,
                online,
                gamma: 0.9,
                ..EwcSettings::default()
            });
            for (f, t) in &anchors {
                ewc.remember(f, t);
            }
            let theta = random("theta", false);
            let mut gradient = theta.zeros_like();
            ewc.add_gradient(&theta, &mut gradient);
            let penalty = |theta: &[f64]| -> f64 {
                (0..theta.len())
                    .map(|i| {
                        let f = |k: usize| f64::from(anchors[k].0.as_slice()[i]);
                        let t = |k: usize| f64::from(anchors[k].1.as_slice()[i]);
                        if online {
                            3.5 * (0.9 * f(0) + f(1)) * (theta[i] - t(1)).powi(2)
                        } else {
                            3.5 * (0..2)
                                .map(|k| f(k) * (theta[i] - t(k)).powi(2))
                                .sum::<f64>()
                        }
                    })
                    .sum()
            };
            let at: Vec<f64> = theta.as_slice().iter().map(|v| f64::from(*v)).collect();
            for (i, g) in gradient.as_slice().iter().enumerate() {
                let (mut up, mut down) = (at.clone(), at.clone());
                up[i] += 1e-5;
                down[i] -= 1e-5;
                let exact = (penalty(&up) - penalty(&down)) / 2e-5;
                assert!((f64::from(*g) - exact).abs() < 1e-4 * (1.0 + exact.abs()));
            }
        }
    }

    /// `argmin ½h(θ−c)² + λ/2 F(θ−a)²` has the closed form `(hc + λFa)/(h + λF)`.
    #[test]
    fn gradient_descent_finds_the_closed_form() {
        let layout = Layout::new([("w".to_owned(), vec![1])]).expect("one tensor");
        let one = |v: f32| Weights::from_vec(&layout, vec![v]).expect("one value");
        let (h, c, f, a, lambda) = (2.0f32, 3.0f32, 0.5f32, -1.0f32, 4.0f32);
        let mut ewc = Ewc::new(EwcSettings {
            lambda: f64::from(lambda),
            ..EwcSettings::default()
        });
        ewc.remember(&one(f), &one(a));
        let mut theta = one(0.0);
        for _ in 0..400 {
            let mut g = one(h * (theta.as_slice()[0] - c));
            ewc.add_gradient(&theta, &mut g);
            theta.axpy(-0.1, &g);
        }
        let closed = (h * c + lambda * f * a) / (h + lambda * f);
        assert!((theta.as_slice()[0] - closed).abs() < 1e-5);
    }
}
