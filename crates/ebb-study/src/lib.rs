//! Studies: published findings as claims that can fail.
//!
//! A study file names a claim, the arms that test it (recipes), the seeds, what must hold and
//! what must *not* hold in its place. [`run`] runs arms times seeds in memory and gives a
//! [`Verdict`]; [`list`] says how the committed ones stand, [`check`] reruns them. A result that
//! contradicts its paper is a verdict like any other.
//!
//! | module | what it holds |
//! |---|---|
//! | [`study`] | the file, checked in one place |
//! | [`clause`] | the little language of expectations, with exact paired tests |
//! | [`measure`], [`variation`] | what is taken from a run, what an arm is shown of its stream |
//! | [`runner`] | arms times seeds, tuning by one rule for all arms |
//! | [`reference`](mod@reference), [`table`] | rows of published tables and the rule between them and ours |
//! | [`verdict`], [`catalogue`](mod@catalogue) | what is written, what is stale, what changed |
//! | [`confirm`](mod@confirm) | carrying a verdict over to newer code that gives the same bits |
//! | [`Kept`] | runs that ended, so that a study that was stopped goes on |
//! | [`native`], [`worlds`], [`language`] | studies with code of their own |

pub mod catalogue;
pub mod clause;
pub mod confirm;
mod error;
mod kept;
pub mod language;
pub mod measure;
pub mod native;
pub mod reference;
pub mod runner;
pub mod study;
pub mod table;
pub mod variation;
pub mod verdict;
pub mod worlds;

pub use catalogue::{Checked, Standing, catalogue, check, find, list, read_dir};
pub use confirm::confirm;
pub use error::{Error, Result};
pub use kept::Kept;
pub use runner::{Ended, Options, Unwatched, Watch, run};
pub use study::Study;
pub use table::reference_table;
pub use verdict::{VERDICT_VERSION, Verdict};
