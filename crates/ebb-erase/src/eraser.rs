//! What every eraser is.

use crate::error::{Error, Result};
use crate::subject::Subject;
use ebb_learn::optimizer::{Optimizer, OptimizerKind, OptimizerSettings};
use ebb_record::ledger::Claim;
use ebb_space::Weights;
use serde::{Deserialize, Serialize};

/// What an eraser has to have besides the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Needs {
    /// The records that are to go.
    pub forget: bool,
    /// Records that stay.
    pub retain: bool,
}

/// A way of taking records out of a model's weights.
pub trait Eraser {
    /// Its name in requests, certificates and results.
    fn name(&self) -> &'static str;

    /// What it claims to reach.
    fn claim(&self) -> Claim;

    /// What it has to have.
    fn needs(&self) -> Needs;

    /// Changes the model.
    ///
    /// # Errors
    /// When a pass fails, weights are no numbers, or the user stops; the run that the model came
    /// from is never touched.
    fn erase(&self, subject: &mut Subject) -> Result<()>;
}

/// Small steps on the weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Descent {
    /// Steps.
    pub steps: u64,
    /// Rate.
    pub lr: f64,
    /// Examples of each part a step.
    pub batch: usize,
    /// Optimizer.
    pub optimizer: OptimizerKind,
}

impl Default for Descent {
    fn default() -> Self {
        Self {
            steps: 50,
            lr: 0.01,
            batch: 64,
            optimizer: OptimizerKind::Sgd,
        }
    }
}

impl Descent {
    /// Steps along the gradients that `gradient` writes.
    ///
    /// # Errors
    /// Those of `gradient`, [`Error::Method`] for settings that make no step, [`Error::Diverged`].
    pub fn go(
        &self,
        method: &'static str,
        subject: &mut Subject,
        mut gradient: impl FnMut(&mut Subject, u64, &mut Weights) -> Result<()>,
    ) -> Result<()> {
        if self.batch == 0 || !(self.lr.is_finite() && self.lr > 0.0) {
            return Err(Error::Method {
                reason: format!("`{method}` needs a `batch` of at least 1 and an `lr` above 0"),
            });
        }
        let settings = OptimizerSettings {
            kind: self.optimizer,
            momentum: 0.0,
            nesterov: false,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
        };
        let layout = subject.oracle().model.layout().clone();
        let mut optimizer = Optimizer::new(settings, &layout);
        let mut g = Weights::zeros(&layout);
        for step in 0..self.steps {
            subject.go_on()?;
            gradient(subject, step, &mut g)?;
            optimizer.step(&mut subject.oracle().model, &g, self.lr);
        }
        match subject.oracle().model.weights().is_finite() {
            true => Ok(()),
            false => Err(Error::Diverged {
                method,
                steps: self.steps,
            }),
        }
    }
}
