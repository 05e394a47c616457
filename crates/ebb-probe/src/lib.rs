//! What a model will forget, before it is trained.
//!
//! - [`Association`]: how much each of M tasks, learnt from one base, raised the loss of each of N
//!   upstream examples; [`Table`] is what completers work on.
//! - [`complete`]: forecasters behind one trait. A new task's row is filled in from a few of its
//!   columns; [`protocol`] says how well, [`conformal`] how surely, [`rank_probe()`] why it can be.
//! - [`replay`]: which examples to replay, drawn from a forecast.
//!
//! Floor 4: nothing here changes a user's model; what is trained is trained apart from it.

pub mod build;
pub mod complete;
pub mod conformal;
mod csv;
mod divergence_law;
mod error;
mod linear;
mod matrix;
mod parquet_file;
pub mod plan;
pub mod protocol;
mod rank_probe;
pub mod replay;
mod table;
pub mod tasks;

pub use complete::{Completer, Fitted, Known};
pub use divergence_law::{DivergenceLaw, divergence};
pub use error::{Error, Result};
pub use matrix::{Association, Kept};
pub use parquet_file::MATRIX_VERSION;
pub use rank_probe::{RankProbe, flips_by_rank, rank_probe};
pub use table::Table;
