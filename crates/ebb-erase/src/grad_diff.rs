//! Gradient ascent, alone or beside descent on what stays.
//!
//! **What it does.** Raises the loss on the records to be forgotten; with `retain`, lowers it on others in
//! the same step, which keeps the model usable.
//! **Source.** Ascent: Jang et al., *Knowledge unlearning for mitigating privacy risks in language
//! models*, 2023 (card X11); both: Liu, Liu & Stone, *Continual learning and private unlearning*, CoLLAs
//! 2022, GradDiff in TOFU, Maini et al. 2024 (card X12).
//! **Equation.** `min_θ −γ CE(D_f) + α CE(D_r)`, and ascent on an example ends where its loss reaches
//! `ceiling` (the bounded form of card S019): plain ascent has no end and takes everything with it.
//! **When to use it.** As the baseline that others are measured by. **When not.** Without a ceiling or few
//! steps.
//! **Stores** nothing. **A step costs** two backward passes.

use crate::eraser::{Descent, Eraser, Needs};
use crate::error::Result;
use crate::subject::{Part, Subject};
use crate::weighted;
use ebb_learn::objective::remembering;
use ebb_record::ledger::Claim;
use serde::{Deserialize, Serialize};

/// Ascent on what is to be forgotten, descent on what stays.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct GradDiff {
    /// Weight of the ascent.
    pub gamma: f32,
    /// Weight of the descent; 0: ascent alone.
    pub alpha: f32,
    /// Loss of an example above which it is pushed no further; `inf`: no end, as published.
    pub ceiling: f32,
    /// Its steps.
    pub descent: Descent,
}

impl Default for GradDiff {
    fn default() -> Self {
        Self {
            gamma: 1.0,
            alpha: 1.0,
            ceiling: 5.0,
            descent: Descent::default(),
        }
    }
}

impl Eraser for GradDiff {
    fn name(&self) -> &'static str {
        match self.alpha == 0.0 {
            true => "gradient-ascent",
            false => "grad-diff",
        }
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
        let (objective, size) = (remembering(), self.descent.batch);
        let mut other = ebb_space::Weights::zeros(subject.oracle().model.layout());
        self.descent.go(self.name(), subject, |subject, step, g| {
            let forget = subject.draw(Part::Forget, size, step);
            weighted::gradient(subject, &forget, g, |nll| {
                if nll < self.ceiling { -self.gamma } else { 0.0 }
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
