//! Studies of language models with code of their own.

pub mod acquisition;
pub mod aligned;
pub mod alignment;
mod course;
pub mod decoding;
pub mod dual_process;
pub mod few_shot;
mod learner;
pub mod neurons;
pub mod output_bias;
mod sentences;
pub mod shield;

pub use learner::Small;
