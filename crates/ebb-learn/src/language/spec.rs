//! The table `language` of a recipe: texts in the place of pictures.

use ebb_text::worlds::{Format, Modular, Operation};
use ebb_text::{Fields, Form, Learn, TooLong};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The name of a stream whose experiences are texts.
pub const TEXT: &str = "text";

/// What a stream of text is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LanguageSpec {
    /// Tokens of a row at most. A row is one example, or a piece of a document.
    #[serde(default = "length")]
    pub length: usize,
    /// Which tokens of prompts and chats are learnt.
    #[serde(default)]
    pub learn: Learn,
    /// What happens to longer texts.
    #[serde(default)]
    pub too_long: TooLong,
    /// Whether texts end with the token that ends them.
    #[serde(default = "yes")]
    pub end: bool,
    /// What the fields of records (JSONL, Parquet) are called.
    #[serde(default, skip_serializing_if = "usual")]
    pub fields: Fields,
    /// How text becomes tokens where the network begins without a tokenizer.
    #[serde(default)]
    pub tokens: Tokens,
    /// The share of an experience's texts that is held out to measure on, where it names no test
    /// of its own.
    #[serde(default = "tenth")]
    pub test_share: f64,
    /// The share of an experience's texts to learn from that is asked in other forms than its own
    /// (answer style diversification, card S036).
    #[serde(default, skip_serializing_if = "none_of_it")]
    pub diversify: f64,
    /// Texts that are no experience, and are replayed beside all of them (`gere`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generic: Option<TextExperience>,
    /// The experiences, in the order of learning.
    #[serde(default)]
    pub experience: Vec<TextExperience>,
}

fn length() -> usize {
    128
}

fn usual(fields: &Fields) -> bool {
    *fields == Fields::default()
}

fn none_of_it(share: &f64) -> bool {
    *share == 0.0
}

fn yes() -> bool {
    true
}

fn tenth() -> f64 {
    0.1
}

/// How text becomes tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tokens {
    /// A token for each word in the texts of all experiences: their vocabulary is known from the
    /// start.
    #[default]
    Words,
    /// A token for each byte.
    Bytes,
}

/// The texts of one experience.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TextExperience {
    /// Its name for people.
    pub name: String,
    /// Files to learn from: `.jsonl`, `.parquet`, `.txt` or `.md`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub train: Vec<PathBuf>,
    /// Files to measure on; without any, a share of the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<PathBuf>,
    /// A generated task, in the place of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub world: Option<WorldSpec>,
    /// Prompts and their completions become one text, all of which is learnt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub documents: bool,
    /// Prompts and their completions are asked in this form, to learn from and to measure on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<Form>,
    /// Every letter is replaced by another, as this seed has it: the same texts in another
    /// language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cipher: Option<u64>,
}

/// A generated task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum WorldSpec {
    /// Who works where, lives where and invented what.
    Facts {
        /// People in the world.
        people: usize,
        /// Which world.
        #[serde(default)]
        seed: u64,
        /// The facts are dealt by their subjects into so many parts,
        #[serde(default = "one")]
        parts: usize,
        /// of which this one is learnt, from 0.
        #[serde(default)]
        part: usize,
        /// What changed later, in the place of what was true at first.
        #[serde(default)]
        changed: bool,
        /// What is measured.
        #[serde(default)]
        ask: Asked,
    },
    /// Questions whose answers have a certain form.
    Instructions {
        /// The form.
        format: Format,
        /// Examples to learn from.
        train: usize,
        /// Questions to measure on.
        test: usize,
        /// Which ones.
        #[serde(default)]
        seed: u64,
    },
    /// Arithmetic modulo a number.
    Modular {
        /// The number.
        modulus: u32,
        /// The operation.
        operation: Operation,
        /// The share of pairs that is learnt.
        #[serde(default = "half")]
        train: f64,
        /// Which ones.
        #[serde(default)]
        seed: u64,
    },
}

fn one() -> usize {
    1
}

fn half() -> f64 {
    0.5
}

impl WorldSpec {
    /// The arithmetic it stands for, if it is one.
    pub(super) fn modular(&self) -> Option<Modular> {
        match self {
            WorldSpec::Modular {
                modulus,
                operation,
                train,
                seed,
            } => Some(Modular {
                modulus: *modulus,
                operation: *operation,
                train: *train,
                seed: *seed,
            }),
            _ => None,
        }
    }
}

/// What is measured of a world of facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asked {
    /// The statements that are learnt: what is remembered.
    #[default]
    Statements,
    /// Statements in words that were not learnt, and questions.
    Questions,
    /// A share of the statements, which is held out.
    HeldOut,
}
