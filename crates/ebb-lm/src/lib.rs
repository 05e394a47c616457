//! Language models put together.
//!
//! - [`LanguageModel`]: a decoder, its weights, its tokenizer and its chat template, out of a
//!   Hugging Face folder or a GGUF file, and back into a folder.
//! - [`Writing`]: how texts are made from it, one after another or side by side.
//! - [`score`]: how well it knows texts and answers questions, with intervals.

mod error;
mod model;
pub mod score;
mod write;

pub use ebb_hub::Message;
pub use error::{Error, Result};
pub use model::LanguageModel;
pub use write::{Ended, Start, Text, Writing};
