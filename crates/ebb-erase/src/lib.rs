//! What takes records out of a trained model, and measures whether they are gone.
//!
//! - [`exact`]: the run as it would have been without them, from the last state they had not reached.
//! - [`Method`]: erasers that change the weights: selective dampening, ascent, preference, anchored
//!   forgetting, influence. Each says what it needs and what it claims.
//! - [`plan`]: each method tried on other records first, and what to do.
//! - [`left()`]: what is left of the records in a model; [`equivalent`]: beside models that never saw them.
//! - [`office`]: the road of a request, from what was asked to a signed certificate.
//!
//! No run is ever changed: what was erased from becomes a new run, and the old one is removed when that is
//! done.

pub mod equivalence;
mod eraser;
mod error;
pub mod exact;
mod famr;
mod fine_tune;
mod grad_diff;
mod iau;
pub mod left;
mod method;
mod npo;
pub mod office;
pub mod plan;
mod ssd;
mod subject;
mod weighted;

pub use equivalence::{Equivalence, equivalent};
pub use eraser::{Descent, Eraser, Needs};
pub use error::{Error, Result};
pub use famr::Famr;
pub use fine_tune::FineTune;
pub use grad_diff::GradDiff;
pub use iau::Iau;
pub use left::{Relearning, left};
pub use method::{METHODS, Method};
pub use npo::Npo;
pub use ssd::{Importance, Ssd};
pub use subject::{Part, Subject};
