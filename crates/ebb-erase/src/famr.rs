//! Anchored forgetting: uniform answers, near the old weights.
//!
//! **What it does.** Makes answers to the records uniform while the weights stay close to where they were.
//! **Source.** *Train once, forget precisely: anchored optimization for efficient post-hoc unlearning*
//! (FAMR), 2025 (card S120); rate, steps and ρ are not published: ours are the card's to begin with.
//! **Equation.** `min_θ CE(uniform, f_θ(D_f)) + (ρ/2) ‖θ − θ*‖²`; to first order
//! `θ ≈ θ* − (H + ρ I)⁻¹ ∇L_f(θ*)`.
//! **When to use it.** Nothing that stays may be touched any more. **When not.** To pass for a retrained
//! model: one that never saw a class answers it by its nearest neighbour, and not uniformly, which a
//! membership attack may see.
//! **Stores** a copy of the weights. **A step costs** one backward pass on the records.

use crate::eraser::{Descent, Eraser, Needs};
use crate::error::Result;
use crate::subject::{Part, Subject};
use ebb_record::ledger::Claim;
use ebb_space::{Objective, Reduction, Reference, Term, presets};
use serde::{Deserialize, Serialize};

/// Anchored forgetting.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Famr {
    /// Strength of the anchor.
    pub rho: f32,
    /// Its steps.
    pub descent: Descent,
}

impl Default for Famr {
    fn default() -> Self {
        Self {
            rho: 0.1,
            descent: Descent::default(),
        }
    }
}

/// Cross-entropy of a uniform answer.
fn uniform() -> Objective {
    let term = Term {
        name: "uniform".into(),
        reference: Reference::Uniform,
        ..presets::cross_entropy("all")
    };
    Objective {
        terms: vec![term],
        reduction: Reduction::MeanOverRows,
    }
}

impl Eraser for Famr {
    fn name(&self) -> &'static str {
        "famr"
    }

    fn claim(&self) -> Claim {
        Claim::Approximate
    }

    fn needs(&self) -> Needs {
        Needs {
            forget: true,
            retain: false,
        }
    }

    fn erase(&self, subject: &mut Subject) -> Result<()> {
        let anchor = subject.oracle().model.weights();
        let objective = uniform();
        self.descent.go("famr", subject, |subject, step, g| {
            let forget = subject.draw(Part::Forget, self.descent.batch, step);
            subject.gradient(&objective, &forget, g)?;
            // g += ρ (θ − θ*)
            g.add_difference(self.rho, &subject.oracle().model.weights(), &anchor);
            Ok(())
        })
    }
}
