//! Learning task after task without forgetting.
//!
//! A [`Recipe`] says what; [`learn`] does it; [`resume`] goes on after a stop or a kill, to the
//! same bits. Methods are points of one algebra: terms in output space ([`ebb_space::Objective`]),
//! quadratics in weight space ([`penalty::Penalty`]), a memory, an update rule
//! ([`update::Update`]) over the gradient [`Oracle`], and [plugins](plugin::Plugin) for the rest.

pub mod batch;
mod error;
pub mod evaluate;
pub mod fisher;
pub mod language;
mod learn;
pub mod methods;
pub mod objective;
pub mod openset;
pub mod optimizer;
pub mod oracle;
pub mod penalty;
pub mod per_example;
pub mod places;
pub mod plugin;
pub mod progress;
pub mod recipe;
mod recorder;
pub mod replay;
pub mod schedule;
pub mod scores;
pub mod seen;
pub mod session;
pub mod spec;
mod task_path;
pub mod tune;
pub mod update;
pub mod without;

pub use error::{Error, Result};
pub use learn::{
    Around, found, learn, learn_from, learn_into, learn_keeping, learn_session, resume, resume_into,
};
pub use methods::MethodCard;
pub use oracle::Oracle;
pub use progress::{Progress, Silent};
pub use recipe::Recipe;
pub use session::Session;
