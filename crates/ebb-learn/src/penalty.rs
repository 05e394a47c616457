//! Penalties in weight space: a gradient added in place, outside the graph.

use crate::error::Result;
use crate::oracle::Oracle;
use crate::seen::Seen;
use ebb_space::Weights;

/// What a penalty may look at after a step.
pub struct Stepped<'a> {
    /// The gradient of the task's loss alone, without any penalty.
    pub gradient: &'a Weights,
    /// The weights before the step.
    pub before: &'a Weights,
    /// The weights after it.
    pub after: &'a Weights,
}

/// An importance and what it pulls to, from the first experience's end on.
#[derive(Default)]
pub(crate) struct Anchored(pub Option<(Weights, Weights)>);

impl Anchored {
    /// Both by name, to be saved.
    pub(crate) fn state(&self) -> Vec<(String, &Weights)> {
        match &self.0 {
            Some((m, at)) => vec![("importance".into(), m), ("anchor".into(), at)],
            None => Vec::new(),
        }
    }

    /// Puts saved state back.
    pub(crate) fn restore(
        &mut self,
        names: &[String],
        load: &mut dyn FnMut(&str) -> Result<Weights>,
    ) -> Result<()> {
        self.0 = match names {
            [] => None,
            _ => Some((load("importance")?, load("anchor")?)),
        };
        Ok(())
    }
}

/// A quadratic that pulls later weights back.
pub trait Penalty: Send {
    /// The method's name.
    fn name(&self) -> &'static str;

    /// Whether there is anything to pull towards yet.
    fn active(&self) -> bool;

    /// Adds the penalty's gradient at `theta` to `gradient`, in one pass.
    fn add_gradient(&self, theta: &Weights, gradient: &mut Weights);

    /// The penalty at `theta`.
    fn value(&self, theta: &Weights) -> f64;

    /// Whether [`Penalty::observe`] wants to be called.
    fn observes(&self) -> bool {
        false
    }

    /// Looks at a step that was taken.
    fn observe(&mut self, _step: &Stepped) {}

    /// Measures what mattered in the experience that just ended.
    ///
    /// # Errors
    /// When a pass over the data fails.
    fn end_of_experience(&mut self, oracle: &mut Oracle, seen: &Seen) -> Result<()>;

    /// The state by name, to be saved.
    fn state(&self) -> Vec<(String, &Weights)>;

    /// Puts saved state back: `load` gives what was saved under a name.
    ///
    /// # Errors
    /// When a part is missing.
    fn restore(
        &mut self,
        names: &[String],
        load: &mut dyn FnMut(&str) -> Result<Weights>,
    ) -> Result<()>;
}
