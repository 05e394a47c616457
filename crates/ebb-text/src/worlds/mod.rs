//! Generated tasks whose truth is known.
//!
//! Everything is a pure function of the seed and of what it is about, so that a world is the same
//! on every machine and needs no file.

mod facts;
mod instructions;
mod modular;

pub use facts::{Fact, FactWorld, Relation, YEARS};
pub use instructions::{Format, instructions};
pub use modular::{Modular, Operation};

use crate::example::Example;
use crate::question::Question;

/// What is learnt, and the held-out questions about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Task {
    /// Prompts and completions.
    pub train: Vec<Example>,
    /// Questions that stand in no example.
    pub questions: Vec<Question>,
}
