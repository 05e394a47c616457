//! What a run leaves behind, and how it is read again.
//!
//! - **Metrics**, pure and streaming: [`AccuracyMatrix`], [`Panel`] (per-iteration evaluation),
//!   [`ForgettingEvents`]; every result is a [`Number`](ebb_space::Number) that says which
//!   definition it is. [`over_seeds`] puts the same number of several runs together.
//! - **The run directory**: [`RunDir`] to write, [`RunView`] to read; [`Record`]s and per-example
//!   [`Outcomes`] in append-only logs, sealed into Parquet when the run ends.
//! - **States**: a chain of model states with an atomic HEAD, and the **lineage** of which
//!   example reached which of them.
//! - **The [`ledger`]** of what was asked to be forgotten: append-only, chained, without content.
//!
//! No training happens here. What a crash, a full disk or a damaged file can do is part of every
//! contract: a run is what its HEAD covers, and HEAD moves by an atomic rename.

mod aggregate;
mod answers;
mod cell;
mod columns;
mod curriculum;
mod disk;
mod environment;
mod error;
mod events;
mod gap;
mod json;
pub mod ledger;
mod lineage;
mod lock;
mod log;
mod matrix;
mod number_text;
mod outcomes;
mod outcomes_parquet;
mod panel;
mod records;
mod records_parquet;
mod replay;
mod run;
mod secret;
mod states;
mod summary;
mod tensors;
mod view;
mod window;

pub use aggregate::over_seeds;
pub use answers::{Answers, Judged};
pub use cell::{Cell, LEVEL};
pub use columns::{ColumnFile, ColumnReader, RowGroup, RowGroupColumns};
pub use curriculum::Curriculum;
pub use disk::{Disk, Fault, Operation};
pub use environment::{ENVIRONMENT_VERSION, Environment, peak_rss_bytes};
pub use error::{Error, Result, TensorProblem};
pub use events::{ForgettingEvents, History, margin, summed_counts};
pub use gap::{Gap, RECOVERED_WITHIN};
pub use lineage::{Artifact, Exposure, LINEAGE_VERSION, Lineage, LineageWriter};
pub use log::Mark;
pub use matrix::{AccuracyMatrix, MeanOver, Peak};
pub use outcomes::{OUTCOMES_VERSION, OutcomeWriter, Outcomes, read_outcomes};
pub use outcomes_parquet::{read_outcomes_parquet, write_outcomes_parquet};
pub use panel::{Answer, LCA_LIMIT, Panel, WINDOWS};
pub use records::{
    Column, Consolidate, Cost, Eval, ExperienceInfo, Note, RECORDS_VERSION, Record, RecordWriter,
    Records, Start, StateRecord, Step, read_records,
};
pub use records_parquet::{read_records_parquet, write_records_parquet};
pub use replay::Replay;
pub use run::{Logs, RECIPE_VERSION, RunDir};
pub use secret::Secret;
pub use states::{
    Draft, FileMeta, Keep, Marks, STATES_VERSION, State, StateMeta, StateWriter, States, Verb,
    WEIGHTS,
};
pub use summary::{Curves, SUMMARY_VERSION, Summary};
pub use tensors::{
    WEIGHTS_VERSION, load_all, load_groups, load_weights, read_weights_metadata, save_groups,
    save_weights,
};
pub use view::RunView;
pub use window::{Change, WindowedChange};
