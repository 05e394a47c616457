//! Studies of language models with code of their own.

pub mod acquisition;
pub mod decoding;
pub mod few_shot;
mod learner;
mod sentences;

pub use learner::Small;
