//! How a gradient becomes a step.

use crate::batch::Batch;
use crate::error::Result;
use crate::oracle::{Oracle, PassResult};
use crate::replay::Replay;
use ebb_space::{Objective, Weights};

/// What an update rule has at hand at a step.
pub struct StepContext<'a> {
    /// Answers with gradients.
    pub oracle: &'a mut Oracle,
    /// The objective of the experience.
    pub objective: &'a Objective,
    /// Cross-entropy alone, for gradients on remembered rows.
    pub remembering: &'a Objective,
    /// New and replayed rows.
    pub batch: &'a Batch,
    /// The memory, if the recipe has one.
    pub replay: Option<&'a Replay>,
    /// Experience under way.
    pub experience: usize,
    /// Step of the run.
    pub step: u64,
    /// Its learning rate.
    pub lr: f64,
}

impl StepContext<'_> {
    /// Earlier experiences with something in memory.
    pub fn earlier_experiences(&self) -> Vec<usize> {
        self.replay.map_or_else(Vec::new, |r| {
            (0..self.experience).filter(|e| r.holds(*e)).collect()
        })
    }

    /// Everything the memory holds of `experience`.
    ///
    /// # Errors
    /// When the memory cannot be read.
    pub fn whole_memory_of(&self, experience: usize) -> Result<Batch> {
        match self.replay {
            Some(r) => r.batch_of(experience, &self.oracle.model),
            None => unreachable!("asked for an experience that `earlier_experiences` named"),
        }
    }

    /// `size` rows of the memory's earlier experiences, drawn by `name`; none while it is empty.
    ///
    /// # Errors
    /// When the memory cannot be read.
    pub fn memory_batch(&self, name: &str, size: usize) -> Result<Option<Batch>> {
        match self.replay {
            Some(r) => r.sample(name, size, self.step, self.experience, &self.oracle.model),
            None => Ok(None),
        }
    }
}

/// A rule that turns an objective and a batch into a gradient.
pub trait Update: Send {
    /// Writes the direction to step against into `gradient`.
    ///
    /// # Errors
    /// When a pass fails.
    fn gradient(&mut self, step: &mut StepContext, gradient: &mut Weights) -> Result<PassResult>;
}

/// The gradient of the objective: one call of the oracle.
pub struct Plain;

impl Update for Plain {
    fn gradient(&mut self, step: &mut StepContext, gradient: &mut Weights) -> Result<PassResult> {
        step.oracle
            .gradient(step.objective, step.batch, None, gradient)
    }
}
