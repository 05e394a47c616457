//! The pictures of a run.
//!
//! [`render`] writes one HTML page that carries everything it needs: no network, no fonts from
//! elsewhere, complete without scripts, in light and dark, on paper and on a phone.
//! [`terminal_matrix`] and [`terminal_table`] write what `ebb learn` shows at its end;
//! [`matrix_svg`] draws the same result as a picture for a README.
//!
//! [`contest()`] tests groups of runs against one another over their seeds, and
//! [`terminal_contest`] writes what it found.
//!
//! Everything here reads [`RunData`] and computes nothing that a run did not measure, except
//! means, intervals and tests over seeds. Numbers taken under different protocols never share a
//! column.

mod colour;
mod compare;
mod contest;
mod data;
mod downsample;
mod escape;
mod format;
mod group;
mod heat;
mod metric;
mod page;
mod protocol;
mod recipe;
mod record;
mod sheet;
mod svg;
mod terminal;

pub use contest::{
    Contest, Costs, Dominated, Entry, LeftOut, Measure, Paid, Pair, Question, Refusal, Side, Test,
    Value, Verdict, contest,
};
pub use data::{Cost, Curves, Experience, RunData, StateLink, Status};
pub use heat::Heat;
pub use page::{Options, Theme, render};
pub use sheet::{Section, sheet};
pub use svg::matrix_svg;
pub use terminal::{Colour, Terminal, terminal_contest, terminal_matrix, terminal_table};
