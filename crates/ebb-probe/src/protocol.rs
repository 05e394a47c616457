//! How good a forecast is: card S000's protocol.
//!
//! Rows are split into train and test tasks. A repeat draws the columns that are known, the same
//! for every test row; each test row is filled in on its own from the train rows and those columns;
//! and what is scored are the other columns alone, pooled over all test rows.
//!
//! The reference draws its known columns with replacement, so that slightly fewer are known; here
//! they are drawn without, by the examples' ids: an example that goes leaves the others' draws.

use crate::complete::{Completer, Known};
use crate::error::{Error, Result};
use crate::table::Table;
use ebb_space::Key;
use ebb_space::stats::auroc;
use rayon::prelude::*;
use serde::Serialize;

/// Train rows and test rows of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Split {
    /// Rows that are there in full.
    pub train: Vec<usize>,
    /// Rows that are forecast.
    pub test: Vec<usize>,
}

impl Split {
    /// `test` rows drawn by their ids.
    ///
    /// # Errors
    /// When no row is left on one side.
    pub fn at_random(table: &Table, test: usize, key: Key) -> Result<Split> {
        let mut rows: Vec<usize> = (0..table.height()).collect();
        key.order(&mut rows, |i| table.row_ids()[*i]);
        Self::of(table, rows.into_iter().take(test))
    }

    /// These test rows; the others train.
    ///
    /// # Errors
    /// As [`Split::at_random`].
    pub fn of(table: &Table, test: impl IntoIterator<Item = usize>) -> Result<Split> {
        let mut test: Vec<usize> = test.into_iter().collect();
        test.sort_unstable();
        test.dedup();
        let train: Vec<usize> = (0..table.height()).filter(|i| !test.contains(i)).collect();
        if test.is_empty() || train.len() < 2 || test.iter().any(|i| *i >= table.height()) {
            return Err(Error::Split(format!(
                "{} tasks with {} of them to be forecast; at least one, and two others",
                table.height(),
                test.len()
            )));
        }
        Ok(Split { train, test })
    }
}

/// The columns that are known under `key`, in rising order.
///
/// # Errors
/// When the table has no more columns than are to be known.
pub fn known_columns(table: &Table, known: usize, key: Key) -> Result<Vec<usize>> {
    if known >= table.width() {
        return Err(Error::BadKnown(format!(
            "{known} of {} examples known leave none to forecast",
            table.width()
        )));
    }
    let mut columns: Vec<usize> = (0..table.width()).collect();
    let draw = |j: &usize| key.draw(table.column_ids()[*j]);
    columns.select_nth_unstable_by_key(known, draw);
    columns.truncate(known);
    columns.sort_unstable();
    Ok(columns)
}

/// Forecasts of the test rows, each a whole row.
pub struct Forecasts {
    /// The columns that were known.
    pub known: Vec<usize>,
    /// A row for each test row of the split.
    pub rows: Vec<Vec<f32>>,
}

/// Fills in every test row from the columns `known`. With `permuted` the values of the known
/// columns change places: a control, in which they carry no information beyond their mean.
///
/// # Errors
/// As the completer's, and when too little is known.
pub fn forecast(
    table: &Table,
    split: &Split,
    completer: &dyn Completer,
    known: &[usize],
    permuted: bool,
    key: Key,
) -> Result<Forecasts> {
    let train = table.select(&split.train)?;
    let fitted = completer.fit(&train, key.sub("fit"))?;
    let rows: Result<Vec<Vec<f32>>> = split
        .test
        .par_iter()
        .map(|i| {
            let row = table.row(*i);
            let mut values: Vec<f32> = known.iter().map(|j| row[*j]).collect();
            if permuted {
                let order = key
                    .sub("permuted")
                    .at(table.row_ids()[*i])
                    .permutation(values.len());
                values = order.iter().map(|k| values[*k as usize]).collect();
            }
            fitted.complete(&Known::new(known.to_vec(), values, table.width())?)
        })
        .collect();
    Ok(Forecasts {
        known: known.to_vec(),
        rows: rows?,
    })
}

impl Forecasts {
    /// Forecasts and truths of the columns that were not known, over all test rows.
    pub fn unseen<'a>(
        &'a self,
        table: &'a Table,
        split: &'a Split,
    ) -> impl Iterator<Item = (f32, f32)> + 'a {
        let mut known = vec![false; table.width()];
        self.known.iter().for_each(|j| known[*j] = true);
        let rows = self.rows.iter().zip(&split.test);
        rows.flat_map(move |(row, i)| {
            let pairs: Vec<(f32, f32)> = (row.iter().zip(table.row(*i)).zip(&known))
                .filter(|(_, known)| !**known)
                .map(|((forecast, truth), _)| (*forecast, *truth))
                .collect();
            pairs
        })
    }

    /// Root of the mean squared error over the unseen columns of all test rows.
    pub fn rmse(&self, table: &Table, split: &Split) -> f64 {
        let (mut sum, mut n) = (0.0, 0.0);
        for (forecast, truth) in self.unseen(table, split) {
            sum += (f64::from(forecast) - f64::from(truth)).powi(2);
            n += 1.0;
        }
        (sum / n).sqrt()
    }

    /// Scores of logits against flips, over the unseen columns of all test rows.
    ///
    /// # Errors
    /// When there is no flip among them, or nothing else.
    pub fn flips(&self, table: &Table, split: &Split) -> Result<FlipScore> {
        let (logits, flips): (Vec<f64>, Vec<bool>) = self
            .unseen(table, split)
            .map(|(logit, y)| (f64::from(logit), y > 0.5))
            .unzip();
        let mut counts = Counts::default();
        let each = logits.iter().zip(&flips);
        each.for_each(|(logit, y)| counts.add(*logit > 0.0, *y));
        Ok(FlipScore {
            f1: counts.f1(),
            precision: counts.precision(),
            recall: counts.recall(),
            auc: auroc(&logits, &flips)?,
        })
    }
}

/// How forecasts of flips fared.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FlipScore {
    /// Harmonic mean of precision and recall.
    pub f1: f64,
    /// Share of the flips forecast that came.
    pub precision: f64,
    /// Share of the flips that came that were forecast.
    pub recall: f64,
    /// Area under the ROC curve.
    pub auc: f64,
}

/// Hits and misses. Undefined shares are 0: nothing forecast is no success.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    hit: f64,
    false_alarm: f64,
    missed: f64,
}

impl Counts {
    pub fn add(&mut self, forecast: bool, came: bool) {
        match (forecast, came) {
            (true, true) => self.hit += 1.0,
            (true, false) => self.false_alarm += 1.0,
            (false, true) => self.missed += 1.0,
            (false, false) => {}
        }
    }

    pub fn precision(&self) -> f64 {
        self.hit / (self.hit + self.false_alarm).max(1.0)
    }

    pub fn recall(&self) -> f64 {
        self.hit / (self.hit + self.missed).max(1.0)
    }

    pub fn f1(&self) -> f64 {
        2.0 * self.hit / (2.0 * self.hit + self.false_alarm + self.missed).max(1.0)
    }
}

/// What is repeated how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Protocol {
    /// Columns known of a test row.
    pub known: usize,
    /// Draws of them.
    pub repeats: usize,
}

impl Default for Protocol {
    fn default() -> Self {
        Self {
            known: crate::complete::USUAL_KNOWN,
            repeats: 10,
        }
    }
}

impl Protocol {
    /// RMSE of each repeat.
    ///
    /// # Errors
    /// As [`forecast`].
    pub fn losses(
        &self,
        table: &Table,
        split: &Split,
        completer: &dyn Completer,
        key: Key,
    ) -> Result<Vec<f64>> {
        self.each(table, split, completer, key, |f| Ok(f.rmse(table, split)))
    }

    /// Scores of each repeat, of a table of flips.
    ///
    /// # Errors
    /// As [`forecast`] and [`Forecasts::flips`].
    pub fn flips(
        &self,
        table: &Table,
        split: &Split,
        completer: &dyn Completer,
        key: Key,
    ) -> Result<Vec<FlipScore>> {
        self.each(table, split, completer, key, |f| f.flips(table, split))
    }

    fn each<T>(
        &self,
        table: &Table,
        split: &Split,
        completer: &dyn Completer,
        key: Key,
        score: impl Fn(&Forecasts) -> Result<T>,
    ) -> Result<Vec<T>> {
        (0..self.repeats as u64)
            .map(|repeat| {
                let known = known_columns(table, self.known, key.sub("known").at(repeat))?;
                let key = key.sub("repeat").at(repeat);
                score(&forecast(table, split, completer, &known, false, key)?)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::complete::{Additive, ClosedForm, ColumnMean, SideScores};
    use crate::table::tests::{table, world};

    #[test]
    fn only_unseen_columns_of_test_rows_are_scored() {
        let t = table(4, 20, |i, j| if i == 3 && j < 10 { 1000.0 } else { 1.0 });
        let split = Split::of(&t, [3]).unwrap();
        let known: Vec<usize> = (0..10).collect();
        let got = forecast(&t, &split, &ColumnMean, &known, false, Key::new(0, "p")).unwrap();
        // What is known is wrong by 999 and does not count.
        assert_eq!(got.rmse(&t, &split), 0.0);
        assert_eq!(got.unseen(&t, &split).count(), 10);
    }

    #[test]
    fn scores_of_flips_are_those_of_a_table_of_four() {
        let t = table(3, 14, |i, j| f64::from(i == 2 && [10, 11].contains(&j)));
        let split = Split::of(&t, [2]).unwrap();
        let forecasts = Forecasts {
            known: (0..10).collect(),
            rows: vec![(0..14).map(|j| if j >= 11 { 1.0 } else { -1.0 }).collect()],
        };
        // Unseen: 10 missed, 11 hit, 12 and 13 false alarms.
        let got = forecasts.flips(&t, &split).unwrap();
        assert!((got.precision - 1.0 / 3.0).abs() < 1e-12 && (got.recall - 0.5).abs() < 1e-12);
        assert!((got.f1 - 0.4).abs() < 1e-12 && (got.auc - 0.25).abs() < 1e-12);
    }

    #[test]
    fn known_columns_are_drawn_by_id_and_without_replacement() {
        let t = world(3, 500, 0, 0.1, 2);
        let key = Key::new(1, "known");
        let all = known_columns(&t, 30, key).unwrap();
        assert!(all.len() == 30 && all.is_sorted_by(|a, b| a < b));
        assert_ne!(all, known_columns(&t, 30, key.at(1)).unwrap());
        // Without a column that is not known, the same ones.
        let gone = (0..500).find(|j| !all.contains(j)).unwrap();
        let left: Vec<usize> = (0..500).filter(|j| *j != gone).collect();
        let less = t.select_columns(&left).unwrap();
        let same = known_columns(&less, 30, key).unwrap();
        let ids =
            |t: &Table, of: &[usize]| of.iter().map(|j| t.column_ids()[*j]).collect::<Vec<_>>();
        assert_eq!(ids(&t, &all), ids(&less, &same));
        assert!(known_columns(&t, 500, key).is_err());
    }

    #[test]
    fn the_protocol_prefers_what_knows_more_and_permuted_values_lose_it() {
        let t = world(30, 400, 2, 0.1, 4);
        let split = Split::at_random(&t, 6, Key::new(0, "split")).unwrap();
        assert_eq!((split.train.len(), split.test.len()), (24, 6));
        let protocol = Protocol {
            known: 30,
            repeats: 3,
        };
        let score = |how: &dyn Completer| -> f64 {
            protocol
                .losses(&t, &split, how, Key::new(1, "p"))
                .unwrap()
                .iter()
                .sum()
        };
        let (closed, additive, mean) = (
            score(&ClosedForm::default()),
            score(&Additive::ONLINE),
            score(&ColumnMean),
        );
        assert!(
            closed < additive && additive < mean,
            "{closed} {additive} {mean}"
        );
        let known = known_columns(&t, 30, Key::new(1, "k")).unwrap();
        let with = |permuted| {
            let how = ClosedForm::default();
            let got = forecast(&t, &split, &how, &known, permuted, Key::new(0, "p"));
            got.unwrap().rmse(&t, &split)
        };
        assert!(with(true) > 2.0 * with(false));
        // A perfect score of the examples is found out.
        let truth = SideScores {
            name: "truth",
            scores: t.row(split.test[0]).iter().map(|z| f64::from(*z)).collect(),
        };
        let one = Split::of(&t, [split.test[0]]).unwrap();
        assert!(protocol.losses(&t, &one, &truth, Key::new(0, "p")).unwrap()[0] < 1e-5);
    }

    #[test]
    fn impossible_splits_are_refused() {
        let t = world(3, 40, 0, 0.1, 2);
        assert!(Split::of(&t, []).is_err() && Split::of(&t, [3]).is_err());
        assert!(Split::of(&t, [0, 1]).is_err() && Split::of(&t, [0]).is_ok());
    }
}
