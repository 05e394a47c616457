//! Going on with what stays: the simplest eraser.
//!
//! **What it does.** Trains on what stays and hopes that the rest fades.
//! **Source.** A baseline of every comparison (card S015's among them).
//! **Equation.** `min_θ CE(D_r)`.
//! **When to use it.** As a baseline. **When not.** To erase: what is not contradicted stays.
//! **Stores** nothing. **A step costs** one backward pass.

use crate::eraser::{Descent, Eraser, Needs};
use crate::error::Result;
use crate::subject::{Part, Subject};
use ebb_learn::objective::remembering;
use ebb_record::ledger::Claim;
use serde::{Deserialize, Serialize};

/// Going on with what stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct FineTune {
    /// Its steps.
    pub descent: Descent,
}

impl Eraser for FineTune {
    fn name(&self) -> &'static str {
        "fine-tune"
    }

    fn claim(&self) -> Claim {
        Claim::Approximate
    }

    fn needs(&self) -> Needs {
        Needs {
            forget: false,
            retain: true,
        }
    }

    fn erase(&self, subject: &mut Subject) -> Result<()> {
        let objective = remembering();
        self.descent.go("fine-tune", subject, |subject, step, g| {
            let retain = subject.draw(Part::Retain, self.descent.batch, step);
            subject.gradient(&objective, &retain, g)?;
            Ok(())
        })
    }
}
