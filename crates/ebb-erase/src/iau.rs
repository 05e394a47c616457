//! Influence approximation: one step that undoes what the records did.
//!
//! **What it does.** Taking a record away is like adding its negative: one step along the mean gradient of
//! what stays minus that of the records.
//! **Source.** *Efficient machine unlearning via influence approximation* (IAU), 2025 (card S078). Its
//! third part, a penalty on gradients while training, belongs to training and is not here.
//! **Equation.** `g = ∇CE(D_r) − ∇CE(D_f)`, means over each set, and `θ ← θ − η g`; the published code
//! steps by Adam, whose first step is `η sign(g)` (`optimizer = "adam"`, the default).
//! **When to use it.** A few records of many, when a pass over all data can be afforded. **When not.**
//! Whole classes: one step is small.
//! **Stores** nothing. **Costs** one backward pass over all that was learnt.

use crate::eraser::{Descent, Eraser, Needs};
use crate::error::Result;
use crate::subject::Subject;
use ebb_data::Item;
use ebb_learn::objective::remembering;
use ebb_learn::optimizer::OptimizerKind;
use ebb_record::ledger::Claim;
use ebb_space::Weights;
use serde::{Deserialize, Serialize};

/// Influence approximation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Iau {
    /// Length of the step.
    pub lr: f64,
    /// What makes a step of the gradient.
    pub optimizer: OptimizerKind,
}

impl Default for Iau {
    fn default() -> Self {
        Self {
            lr: 0.001,
            optimizer: OptimizerKind::Adam,
        }
    }
}

/// Adds the mean gradient of cross-entropy over items.
fn add_mean(subject: &mut Subject, items: &[Item], s: f32, into: &mut Weights) -> Result<()> {
    let mut part = into.zeros_like();
    for chunk in items.chunks(256) {
        subject.go_on()?;
        subject.gradient(&remembering(), chunk, &mut part)?;
        into.axpy(s * chunk.len() as f32 / items.len() as f32, &part);
    }
    Ok(())
}

impl Eraser for Iau {
    fn name(&self) -> &'static str {
        "iau"
    }

    fn claim(&self) -> Claim {
        Claim::Approximate
    }

    fn needs(&self) -> Needs {
        Needs {
            forget: true,
            retain: true,
        }
    }

    fn erase(&self, subject: &mut Subject) -> Result<()> {
        let one = Descent {
            steps: 1,
            lr: self.lr,
            batch: 1,
            optimizer: self.optimizer,
        };
        one.go("iau", subject, |subject, _, g| {
            let (retain, forget) = (subject.retain.clone(), subject.forget.clone());
            g.fill(0.0);
            add_mean(subject, &retain, 1.0, g)?;
            add_mean(subject, &forget, -1.0, g)
        })
    }
}
