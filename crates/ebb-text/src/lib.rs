//! Text for language models: from files or generators to rows of tokens, and from answers to
//! scores.
//!
//! - [`Reader`]: examples from JSONL, Parquet and plain text, one at a time. An [`Example`] is a
//!   document, a prompt with its completion, or a chat; its id depends on what it says alone.
//! - [`Encoder`]: an example as tokens, and which of them are learnt; [`pack`]: several sequences
//!   in one row, kept apart by positions and document numbers.
//! - [`worlds`]: generated tasks whose truth is known: facts, instructions, modular arithmetic.
//! - [`metrics`]: exact match, ROUGE-L, perplexity.

mod encode;
mod error;
mod example;
pub mod metrics;
mod pack;
mod question;
mod read;
pub mod worlds;

pub use encode::{Encoder, Encoding, Learn, Sequence, TooLong};
pub use error::{Error, Result};
pub use example::{Body, Example, Occurrences, Place, Unit, shuffle};
pub use pack::{Fill, NO_EXAMPLE, Packed, pack};
pub use question::Question;
pub use read::{Break, Fields, Reader, Reading};
