//! Text for language models: from files or generators to rows of tokens, and from answers to
//! scores.
//!
//! - [`Reader`]: examples from JSONL, Parquet and plain text, one at a time. An [`Example`] is a
//!   document, a prompt with its completion, or a chat; its id depends on what it says alone.
//! - [`Encoder`]: an example as tokens, and which of them are learnt; [`pack`]: several sequences
//!   in one row, kept apart by positions and document numbers.
//! - [`worlds`]: generated tasks whose truth is known: facts, instructions, modular arithmetic.
//! - [`General`]: one frozen set of texts and questions that measures what a model could do before.
//! - [`Form`]: one question asked in several forms.
//! - [`metrics`]: exact match, ROUGE-L, perplexity; what was learnt by heart, membership, truth.
//!
//! ```
//! use ebb_text::metrics::normalised_match;
//! use ebb_text::worlds::FactWorld;
//!
//! let world = FactWorld::new(64, 7)?;
//! let facts = world.facts();
//! let learnt = world.examples(&facts); // statements of each fact
//! let asked = world.questions(&facts); // none of which stands among them
//! let question = asked.iter().find(|q| q.kind == "reversed").unwrap();
//! assert!(learnt.len() > 3 * facts.len());
//! assert!(normalised_match(question.truth(), &question.truth().to_uppercase()));
//! # Ok::<(), ebb_text::Error>(())
//! ```

mod encode;
mod error;
mod example;
mod form;
mod general;
pub mod metrics;
mod pack;
mod question;
mod read;
pub mod worlds;

pub use encode::{Encoder, Encoding, Learn, Sequence, TooLong};
pub use error::{Error, Result};
pub use example::{Body, Example, Occurrences, Place, Unit, shuffle};
pub use form::{Form, put_into};
pub use general::{General, Text, chance, likeliest};
pub use pack::{Fill, NO_EXAMPLE, Packed, pack};
pub use question::Question;
pub use read::{Break, Fields, Reader, Reading};
