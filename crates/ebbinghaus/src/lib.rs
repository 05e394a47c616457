//! Learning task after task without forgetting, as a library.
//!
//! Each module is one crate of the workspace; `ARCHITECTURE.md` says which stands on which.
//! Start with [`learn`]: a [`Recipe`](learn::Recipe) says what, [`learn::learn()`] does it.
//!
//! ```
//! use ebbinghaus::learn::{Around, Recipe, Silent, learn};
//! use std::{path::Path, sync::atomic::AtomicBool};
//!
//! // Five pairs of digits, one pair after the other; 50 old examples are kept and rehearsed.
//! let recipe = Recipe::parse(
//!     r#"
//!     method = "er"
//!     with = { capacity = 50 }
//!     stream = { dataset = "digits", split = 5, scenario = "class" }
//!     train = { steps = 60 }
//!     "#,
//!     &[],
//! )?;
//! let summary = learn(
//!     &recipe,
//!     None, // or a directory to keep the run in
//!     &mut Around {
//!         data_dir: Path::new("data"), // the digits are embedded: nothing is read here
//!         progress: &mut Silent,
//!         stop: &AtomicBool::new(false),
//!     },
//! )?;
//! // matrix[i][j]: accuracy on pair j after learning pair i.
//! let last = &summary.matrix[4];
//! assert!(last[0] > Some(0.3), "the first pair is still known: {last:?}");
//! // Every number carries its interval, its sample and its protocol.
//! let accuracy = summary.number("average_accuracy").unwrap();
//! println!("{:.3} [{:.3?}, {:.3?}]", accuracy.value, accuracy.ci_low, accuracy.ci_high);
//! # Ok::<(), ebbinghaus::learn::Error>(())
//! ```

pub use ebb_data as data;
pub use ebb_erase as erase;
pub use ebb_hub as hub;
pub use ebb_kernels as kernels;
pub use ebb_learn as learn;
pub use ebb_lm as lm;
pub use ebb_memory as memory;
pub use ebb_net as net;
pub use ebb_probe as probe;
pub use ebb_record as record;
pub use ebb_report as report;
pub use ebb_revise as revise;
pub use ebb_space as space;
pub use ebb_study as study;
pub use ebb_text as text;

/// Compiles and runs what the README shows.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
