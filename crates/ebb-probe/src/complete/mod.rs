//! Forecasters behind one trait: train rows are there in full, of a new row a few columns are
//! known, and the others are filled in. One file each.
//!
//! | file | forecast | fits |
//! |---|---|---|
//! | [`additive`] | `μ + b_i + b_j` | for each row anew, by SGD or alternating least squares |
//! | [`factors`] | `μ + b_i + b_j + p_i·q_j` | for each row anew, by SGD |
//! | [`neighbours`] | the additive one, corrected by tasks that did alike | for each row anew |
//! | [`logistic`] | `σ(w_i·h_j)` and `σ(a_i + b_j)`, of flips | for each row anew, by gradient ascent |
//! | [`closed_form`] | `μ + b_i + b_j + p_i·q_j` | once; a new row takes six unknowns |
//! | [`column_mean`] | the mean over the train rows | once; a new row takes nothing |
//! | [`side`] | `a + b·s_j` of scores from elsewhere | two unknowns a row |
//!
//! [`energy`] and [`bins`] give scores for [`side`].

pub mod additive;
pub mod bins;
pub mod closed_form;
pub mod column_mean;
pub mod energy;
pub mod factors;
pub mod logistic;
pub mod neighbours;
pub mod side;

pub use additive::Additive;
pub use closed_form::ClosedForm;
pub use column_mean::ColumnMean;
pub use factors::Factors;
pub use logistic::{LogisticAdditive, LogisticFactors};
pub use neighbours::Neighbours;
pub use side::SideScores;

use crate::error::{Error, Result};
use crate::table::Table;
use ebb_space::Key;

/// The fewest known columns that a row is filled in from.
pub const FEWEST_KNOWN: usize = 10;
/// How many columns of a new row are measured, where nobody says otherwise.
pub const USUAL_KNOWN: usize = 30;

/// What is known of a new row: some of its columns, in rising order.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    columns: Vec<usize>,
    values: Vec<f32>,
}

impl Known {
    /// The `values` of the `columns` of a table of `width` columns.
    ///
    /// # Errors
    /// [`Error::FewKnown`] for fewer than [`FEWEST_KNOWN`]; [`Error::BadKnown`] when the columns
    /// do not rise or do not exist, or a value is not finite.
    pub fn new(columns: Vec<usize>, values: Vec<f32>, width: usize) -> Result<Known> {
        if columns.len() != values.len() {
            let what = format!("{} examples with {} values", columns.len(), values.len());
            return Err(Error::BadKnown(what));
        }
        if columns.len() < FEWEST_KNOWN {
            return Err(Error::FewKnown {
                known: columns.len(),
                needed: FEWEST_KNOWN,
            });
        }
        if !columns.is_sorted_by(|a, b| a < b) || columns.last().is_some_and(|c| *c >= width) {
            return Err(Error::BadKnown(format!(
                "the examples' numbers must rise and lie below {width}"
            )));
        }
        if let Some(value) = values.iter().find(|v| !v.is_finite()) {
            return Err(Error::BadKnown(format!("a value is {value}")));
        }
        Ok(Known { columns, values })
    }

    /// Which columns.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Their values.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Columns and values.
    pub fn iter(&self) -> impl Iterator<Item = (usize, f32)> {
        self.columns
            .iter()
            .copied()
            .zip(self.values.iter().copied())
    }
}

/// A way to fill in rows.
pub trait Completer: Sync {
    /// Its name in tables.
    fn name(&self) -> &'static str;

    /// Learns what the train rows have in common; what must be learnt with the new row is learnt
    /// when that is there.
    ///
    /// # Errors
    /// When the rows do not admit it.
    fn fit<'a>(&'a self, train: &'a Table, key: Key) -> Result<Box<dyn Fitted + 'a>>;
}

/// A completer that has seen its train rows.
pub trait Fitted: Sync {
    /// The whole row (a logit a column where the table is one of flips).
    ///
    /// # Errors
    /// When the fit does not come to finite numbers.
    fn complete(&self, known: &Known) -> Result<Vec<f32>>;
}

/// Refuses a row that went to infinity.
fn finite(row: Vec<f32>) -> Result<Vec<f32>> {
    match row.iter().position(|v| !v.is_finite()) {
        None => Ok(row),
        Some(at) => Err(Error::BadKnown(format!(
            "the fit diverged: its forecast for example {at} is {}",
            row[at]
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some columns of a row, as known.
    pub(super) fn known_of(table: &Table, row: usize, columns: &[usize]) -> Known {
        let values = columns.iter().map(|j| table.row(row)[*j]).collect();
        Known::new(columns.to_vec(), values, table.width()).unwrap()
    }

    /// A fixed table, and what the Surprise library makes of its last row.
    #[derive(serde::Deserialize)]
    struct Numbers {
        rows: usize,
        columns: usize,
        z: Vec<f32>,
        known: Vec<usize>,
        additive_sgd: Vec<f64>,
        additive_als: Vec<f64>,
        factors: Vec<f64>,
        neighbours: Vec<f64>,
        p: Vec<f64>,
        q: Vec<f64>,
    }

    pub(super) struct Surprise {
        pub train: Table,
        pub known: Known,
        pub additive_sgd: Vec<f64>,
        pub additive_als: Vec<f64>,
        pub factors: Vec<f64>,
        pub neighbours: Vec<f64>,
        pub p: Vec<f64>,
        pub q: Vec<f64>,
    }

    /// Written by `tests/surprise_numbers.py`, which says how; scikit-surprise 1.1.5.
    pub(super) fn surprise() -> Surprise {
        let numbers: Numbers =
            serde_json::from_str(include_str!("../../tests/surprise.json")).unwrap();
        let (m, n) = (numbers.rows, numbers.columns);
        let ids = |count: usize| (0..count as u64).collect();
        let table = Table::new(ids(m), ids(n), numbers.z).unwrap();
        Surprise {
            train: table.select(&(0..m - 1).collect::<Vec<_>>()).unwrap(),
            known: known_of(&table, m - 1, &numbers.known),
            additive_sgd: numbers.additive_sgd,
            additive_als: numbers.additive_als,
            factors: numbers.factors,
            neighbours: numbers.neighbours,
            p: numbers.p,
            q: numbers.q,
        }
    }

    impl Surprise {
        pub(super) fn agree(&self, got: &[f32], want: &[f64], within: f64) {
            assert_eq!(got.len(), want.len());
            for (j, (g, w)) in got.iter().zip(want).enumerate() {
                assert!((f64::from(*g) - w).abs() < within, "{j}: {g} for {w}");
            }
        }
    }

    #[test]
    fn what_cannot_be_known_is_refused() {
        let known = |columns: Vec<usize>, value: f32| {
            let values = vec![value; columns.len()];
            Known::new(columns, values, 100)
        };
        assert!(known((0..10).collect(), 1.0).is_ok());
        let few = known((0..9).collect(), 1.0);
        assert!(matches!(
            few,
            Err(Error::FewKnown {
                known: 9,
                needed: 10
            })
        ));
        assert!(known((91..101).collect(), 1.0).is_err());
        assert!(known((0..10).rev().collect(), 1.0).is_err());
        assert!(known(vec![5; 12], 1.0).is_err());
        assert!(known((0..10).collect(), f32::INFINITY).is_err());
        assert!(Known::new((0..10).collect(), vec![0.0; 11], 100).is_err());
    }
}
