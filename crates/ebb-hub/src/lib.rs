//! Language models in and out, without a runtime of another language.
//!
//! - [`Folder`]: a Hugging Face folder (`config.json`, safetensors in one file or in shards),
//!   memory-mapped; [`FolderWriter`] writes one that `transformers` loads.
//! - [`Gguf`]: a GGUF file, its metadata, and its tensors dequantised under their Hugging Face
//!   names, with the configuration that belongs to them.
//! - [`Tokenizer`]: from `tokenizer.json`, or built from the vocabulary of a GGUF file;
//!   [`ChatTemplate`]: the Jinja template that turns messages into a prompt.
//! - [`Adapter`]: low-rank adapters as PEFT writes them.
//! - [`merge`]: several of these into one, piece by piece; [`Bundle`]: several adapters in common
//!   bases.
//!
//! Both kinds of model are [`Tensors`]: named values, converted to `f32` on load. Everything
//! that is read comes from outside, so every length is checked before it is believed.

mod adapter;
mod bundle;
mod chat;
mod error;
mod folder;
mod gguf;
mod made;
mod mapped;
pub mod merge;
mod number;
mod safetensors_file;
mod tensors;
mod tokenizer;
mod write;

pub use adapter::{Adapter, AdapterConfig, Pair};
pub use bundle::{Bundle, BundleSummary, HeldAdapter};
pub use chat::{ChatOptions, ChatTemplate, Message};
pub use error::{Error, Result};
pub use folder::Folder;
pub use gguf::{BlockType, Gguf, MetaArray, MetaValue};
pub use number::NumberType;
pub use tensors::{TensorInfo, Tensors};
pub use tokenizer::{SpecialTokens, Tokenizer};
pub use write::{FolderWriter, Pieces};
