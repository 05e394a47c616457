//! Negative preference optimisation.
//!
//! **What it does.** Ascent that fades where an answer is forgotten already: each example is weighted by
//! how likely it still is beside what it was.
//! **Source.** Zhang, Lin, Bai & Mei, *Negative preference optimization: from catastrophic collapse to
//! effective unlearning*, 2024 (card X13).
//! **Equation.** `L_f = (2/β) mean log(1 + (p_θ/p_ref)^β) + α CE(D_r)`, whose gradient is that of ascent,
//! weighted by `2 r^β / (1 + r^β)` with `r = p_θ/p_ref`. For `β → 0` it is ascent. `p` is of a whole
//! example (the sum of its tokens' log-probabilities), `ref` the model as the run left it.
//! **When to use it.** Texts, and wherever ascent destroys the model. **When not.** As proof: what is made
//! unlikely can be relearnt in a few steps; measure it.
//! **Stores** a number an example. **A step costs** two backward passes and one forward.

use crate::eraser::{Descent, Eraser, Needs};
use crate::error::{Error, Result};
use crate::subject::{Part, Subject};
use crate::weighted;
use ebb_learn::objective::remembering;
use ebb_record::ledger::Claim;
use ebb_space::{ExampleId, Weights};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Negative preference optimisation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Npo {
    /// How fast the push fades.
    pub beta: f32,
    /// Weight of the loss on what stays.
    pub alpha: f32,
    /// Its steps.
    pub descent: Descent,
}

impl Default for Npo {
    fn default() -> Self {
        Self {
            beta: 0.1,
            alpha: 1.0,
            descent: Descent::default(),
        }
    }
}

/// `2 r^β / (1 + r^β)` for `ln r`.
fn fading(log_ratio: f32, beta: f32) -> f32 {
    2.0 / (1.0 + (-beta * log_ratio).exp())
}

impl Eraser for Npo {
    fn name(&self) -> &'static str {
        "npo"
    }

    fn claim(&self) -> Claim {
        Claim::Approximate
    }

    fn needs(&self) -> Needs {
        Needs {
            forget: true,
            retain: self.alpha != 0.0,
        }
    }

    fn erase(&self, subject: &mut Subject) -> Result<()> {
        if !(self.beta.is_finite() && self.beta > 0.0) {
            return Err(Error::Method {
                reason: "npo needs a `beta` above 0: gradient ascent is its limit at 0".into(),
            });
        }
        let forget = subject.forget.clone();
        let before: HashMap<ExampleId, f32> = forget
            .iter()
            .zip(weighted::nll(subject, &forget)?)
            .map(|(item, nll)| (item.id, nll))
            .collect();
        let (objective, size) = (remembering(), self.descent.batch);
        let mut other = Weights::zeros(subject.oracle().model.layout());
        self.descent.go("npo", subject, |subject, step, g| {
            let forget = subject.draw(Part::Forget, size, step);
            let was: Vec<f32> = forget.iter().map(|item| before[&item.id]).collect();
            let mut was = was.into_iter();
            weighted::gradient(subject, &forget, g, |nll| {
                // ln r = ln p − ln p_ref
                -fading(was.next().unwrap_or(nll) - nll, self.beta)
            })?;
            if self.alpha != 0.0 {
                let retain = subject.draw(Part::Retain, size, step);
                subject.gradient(&objective, &retain, &mut other)?;
                g.axpy(self.alpha, &other);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_is_the_derivative_of_the_loss() {
        // d/dx (2/β) ln(1 + e^(β x)) at x = ln r, against central differences in f64.
        let loss = |x: f64, beta: f64| 2.0 / beta * (1.0 + (beta * x).exp()).ln();
        for (x, beta) in [(0.0, 0.1), (-3.0, 0.5), (2.0, 1.0), (-40.0, 0.1)] {
            let h = 1e-5;
            let slope = (loss(x + h, beta) - loss(x - h, beta)) / (2.0 * h);
            assert!((f64::from(fading(x as f32, beta as f32)) - slope).abs() < 1e-5);
        }
        assert_eq!(fading(0.0, 0.1), 1.0);
    }
}
