//! The accuracy matrix `R[i][j]`: correct answers on test set `j` after experience `i`, and the
//! metrics that read it. Where the field uses one name for several definitions, the definition
//! is an option in the type and stands in the number's name and protocol.
//!
//! **Sources.** Lopez-Paz & Ranzato 2017 (card S087): average accuracy, BWT, FWT. Chaudhry et
//! al. 2018 and card S124: forgetting as the fall from the best earlier row. Riemer et al. 2019:
//! learning accuracy. De Lange et al. 2023 (card S098): the fall since the set was trained.

use ebb_space::{Direction, Number};
use serde::{Deserialize, Serialize};

use crate::cell::{Cell, Contrast};
use crate::curriculum::Curriculum;
use crate::error::{Error, Result};

/// What a mean over test sets counts equally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeanOver {
    /// Each test set, whatever its size: the field's habit.
    Sets,
    /// Each example.
    Examples,
}

/// From which level forgetting is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peak {
    /// `max_{i<k} R[i][j] − R[k][j]` (Chaudhry et al. 2018): negative where the last row is best.
    ExcludingLast,
    /// `max_{i≤k} R[i][j] − R[k][j]`: never negative.
    IncludingLast,
    /// `A(E_j, f_|T_j|) − A(E_j, f_|T_k|)`, the level when the set was last trained (card S098):
    /// the negative of BWT.
    AtLearning,
}

/// Accuracy after each experience, as counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccuracyMatrix {
    curriculum: Curriculum,
    protocol: String,
    initial: Vec<Option<Cell>>,
    rows: Vec<Vec<Option<Cell>>>,
}

impl AccuracyMatrix {
    /// An empty matrix. `protocol` says what the accuracies are of (stream, scenario, how test
    /// logits are masked): it becomes part of every number's protocol.
    pub fn new(curriculum: Curriculum, protocol: impl Into<String>) -> AccuracyMatrix {
        let empty = vec![None; curriculum.sets()];
        let rows = vec![empty.clone(); curriculum.experiences()];
        AccuracyMatrix {
            curriculum,
            protocol: protocol.into(),
            initial: empty,
            rows,
        }
    }

    /// Records the answers on `set` after experience `after`; `None` is the random
    /// initialisation, before any learning.
    ///
    /// # Errors
    /// [`Error::Evaluation`] if the matrix has no such row or column.
    pub fn set(&mut self, after: Option<usize>, set: usize, cell: Cell) -> Result<()> {
        let row = match after {
            None => Some(&mut self.initial),
            Some(i) => self.rows.get_mut(i),
        };
        let (rows, sets) = (self.curriculum.experiences(), self.curriculum.sets());
        let slot = row.and_then(|row| row.get_mut(set)).ok_or_else(|| {
            Error::Evaluation(format!(
                "set {set} after experience {after:?} of a matrix of {rows} experiences and {sets} sets"
            ))
        })?;
        *slot = Some(Cell::new(cell.correct, cell.n)?);
        Ok(())
    }

    /// Which experience trains which set.
    pub fn curriculum(&self) -> &Curriculum {
        &self.curriculum
    }

    /// The answers on `set` after experience `after`, `None` being before any learning.
    pub fn get(&self, after: Option<usize>, set: usize) -> Option<Cell> {
        let row = match after {
            None => &self.initial,
            Some(i) => self.rows.get(i)?,
        };
        *row.get(set)?
    }

    /// `[i][j]`: accuracies after each experience.
    pub fn accuracies(&self) -> Vec<Vec<Option<f64>>> {
        let row = |row: &Vec<Option<Cell>>| row.iter().map(|c| c.map(|c| c.accuracy())).collect();
        self.rows.iter().map(row).collect()
    }

    /// `[j]`: accuracies before any learning.
    pub fn initial_accuracies(&self) -> Vec<Option<f64>> {
        self.initial
            .iter()
            .map(|c| c.map(|c| c.accuracy()))
            .collect()
    }

    /// The last experience after which anything was evaluated.
    pub fn last(&self) -> Option<usize> {
        self.rows
            .iter()
            .rposition(|row| row.iter().any(Option::is_some))
    }

    fn cell(&self, metric: &str, after: Option<usize>, set: usize) -> Result<Cell> {
        self.get(after, set).ok_or_else(|| {
            let when = after.map_or("at initialisation".into(), |i| {
                format!("after experience {i}")
            });
            Error::undefined(metric, format!("test set {set} was not evaluated {when}"))
        })
    }

    fn describe(&self, definition: &str, k: usize) -> String {
        format!(
            "{definition}; after experience {}; {}",
            k + 1,
            self.protocol
        )
    }

    /// The sets a metric runs over, refusing an empty mean.
    fn some(metric: &str, sets: Vec<usize>, need: &str) -> Result<Vec<usize>> {
        if sets.is_empty() {
            return Err(Error::undefined(metric, format!("it needs {need}")));
        }
        Ok(sets)
    }

    /// Average accuracy over the sets seen so far: `ACC_k = mean_{j≤k} R[k][j]`.
    ///
    /// # Errors
    /// [`Error::Undefined`] if one of them was not evaluated; so for all metrics here.
    pub fn average_accuracy(&self, k: usize, over: MeanOver) -> Result<Number> {
        let (name, definition) = match over {
            MeanOver::Sets => ("average_accuracy", "mean over seen sets, each set alike"),
            MeanOver::Examples => (
                "average_accuracy_examples",
                "mean over seen sets, each example alike",
            ),
        };
        let sets = Self::some(name, self.curriculum.seen(k), "one trained set")?;
        let cells: Vec<Cell> = sets
            .iter()
            .map(|&j| self.cell(name, Some(k), j))
            .collect::<Result<_>>()?;
        let contrast = match over {
            MeanOver::Sets => Contrast::mean(&cells),
            MeanOver::Examples => {
                let (correct, n) = cells
                    .iter()
                    .fold((0, 0), |(c, n), x| (c + x.correct, n + x.n));
                Contrast::mean(&[Cell { correct, n }])
            }
        };
        contrast.number(name, Direction::Higher, &self.describe(definition, k))
    }

    /// Average incremental accuracy: the mean of `ACC_i` for `i ≤ k`, each with the sets seen by
    /// then (card S124).
    ///
    /// # Errors
    /// [`Error::Undefined`].
    pub fn average_incremental_accuracy(&self, k: usize) -> Result<Number> {
        let name = "average_incremental_accuracy";
        let rows: Vec<Number> = (0..=k)
            .map(|i| self.average_accuracy(i, MeanOver::Sets))
            .collect::<Result<_>>()?;
        let value = rows.iter().map(|row| row.value).sum::<f64>() / rows.len() as f64;
        // Rows repeat examples, so they are not independent samples: no interval.
        let n = rows[k].n as u64;
        let definition = self.describe("mean over rows of the mean over seen sets", k);
        Ok(crate::cell::bare(
            name.into(),
            value,
            n,
            Direction::Higher,
            definition,
        ))
    }

    /// Accuracy on the sets trained last, after their training: a frozen network fails here.
    ///
    /// # Errors
    /// [`Error::Undefined`].
    pub fn newest_accuracy(&self, k: usize) -> Result<Number> {
        let name = "newest_accuracy";
        let sets = Self::some(name, self.curriculum.trains(k).to_vec(), "a trained set")?;
        let cells: Vec<Cell> = sets
            .iter()
            .map(|&j| self.cell(name, Some(k), j))
            .collect::<Result<_>>()?;
        let definition = self.describe("the sets trained last", k);
        Contrast::mean(&cells).number(name, Direction::Higher, &definition)
    }

    /// Forgetting: mean over earlier sets of `peak − R[k][j]`.
    ///
    /// The interval takes the row of the peak as given; that a maximum was chosen is not in it.
    ///
    /// # Errors
    /// [`Error::Undefined`], so where there is no earlier set.
    pub fn forgetting(&self, k: usize, peak: Peak) -> Result<Number> {
        let (name, definition) = match peak {
            Peak::ExcludingLast => (
                "forgetting",
                "mean over earlier sets of (maximum over rows excluding the last - last row)",
            ),
            Peak::IncludingLast => (
                "forgetting_including_last",
                "mean over earlier sets of (maximum over rows including the last - last row)",
            ),
            Peak::AtLearning => (
                "forgetting_at_learning",
                "mean over earlier sets of (row after the set was trained - last row)",
            ),
        };
        let sets = Self::some(name, self.curriculum.earlier(k), "an earlier set")?;
        let mut pairs = Vec::with_capacity(sets.len());
        for j in sets {
            let now = self.cell(name, Some(k), j)?;
            let top = match peak {
                Peak::AtLearning => self.at_last_visit(name, j, k)?,
                Peak::ExcludingLast => self.highest(name, j, k)?,
                Peak::IncludingLast => {
                    let before = self.highest(name, j, k)?;
                    if before.accuracy() >= now.accuracy() {
                        before
                    } else {
                        now
                    }
                }
            };
            pairs.push((top, now));
        }
        let contrast = Contrast::mean_difference(&pairs);
        contrast.number(name, Direction::Lower, &self.describe(definition, k))
    }

    /// The best of the rows before `k` for set `j`, the earliest of equals.
    fn highest(&self, metric: &str, j: usize, k: usize) -> Result<Cell> {
        let rows = (0..k).filter_map(|i| self.get(Some(i), j));
        let best = rows.reduce(|best, c| {
            if c.accuracy() > best.accuracy() {
                c
            } else {
                best
            }
        });
        best.ok_or_else(|| {
            Error::undefined(
                metric,
                format!("test set {j} was not evaluated before experience {k}"),
            )
        })
    }

    fn at_last_visit(&self, metric: &str, j: usize, k: usize) -> Result<Cell> {
        let visit = self
            .curriculum
            .last_visit(j, k)
            .ok_or_else(|| Error::undefined(metric, format!("test set {j} was never trained")))?;
        self.cell(metric, Some(visit), j)
    }

    /// Backward transfer: `mean_{j<k} (R[k][j] − R[j][j])`, `R[j][j]` after the last training of
    /// `j`.
    ///
    /// # Errors
    /// [`Error::Undefined`].
    pub fn backward_transfer(&self, k: usize) -> Result<Number> {
        let name = "bwt";
        let sets = Self::some(name, self.curriculum.earlier(k), "an earlier set")?;
        let pairs: Vec<(Cell, Cell)> = sets
            .iter()
            .map(|&j| {
                Ok((
                    self.cell(name, Some(k), j)?,
                    self.at_last_visit(name, j, k)?,
                ))
            })
            .collect::<Result<_>>()?;
        let definition = "mean over earlier sets of (last row - row after the set was trained)";
        let definition = self.describe(definition, k);
        Contrast::mean_difference(&pairs).number(name, Direction::Higher, &definition)
    }

    /// Forward transfer: `mean_{j>0} (R[j−1][j] − b_j)`, the accuracy just before `j` is first
    /// trained against that at random initialisation.
    ///
    /// # Errors
    /// [`Error::Undefined`], so where the initial row was not evaluated.
    pub fn forward_transfer(&self, k: usize) -> Result<Number> {
        let name = "fwt";
        let later = |&j: &usize| self.curriculum.first_visit(j).is_some_and(|v| v > 0);
        let sets = self.curriculum.seen(k).into_iter().filter(later).collect();
        let mut pairs = Vec::new();
        for j in Self::some(name, sets, "a set that is not trained first")? {
            let visit = self.curriculum.first_visit(j).unwrap_or_default();
            pairs.push((
                self.cell(name, visit.checked_sub(1), j)?,
                self.cell(name, None, j)?,
            ));
        }
        let definition =
            "mean over later sets of (row before the set was trained - random initialisation)";
        let definition = self.describe(definition, k);
        Contrast::mean_difference(&pairs).number(name, Direction::Higher, &definition)
    }

    /// Forward transfer in its newer meaning (card S124): `mean_{j>0} (R[j][j] − ã_j)` with `ã_j`
    /// the accuracy of a fresh model trained on set `j` alone (`isolated[j]`).
    ///
    /// # Errors
    /// [`Error::Undefined`].
    pub fn forward_transfer_from_isolated(&self, k: usize, isolated: &[Cell]) -> Result<Number> {
        let name = "fwt_isolated";
        let later = |&j: &usize| self.curriculum.first_visit(j).is_some_and(|v| v > 0);
        let sets = self.curriculum.seen(k).into_iter().filter(later).collect();
        let mut pairs = Vec::new();
        for j in Self::some(name, sets, "a set that is not trained first")? {
            let alone = isolated.get(j).ok_or_else(|| {
                Error::undefined(name, format!("no isolated accuracy was given for set {j}"))
            })?;
            pairs.push((self.cell(name, self.curriculum.first_visit(j), j)?, *alone));
        }
        let definition = "mean over later sets of (row after the set was trained - a fresh model on that set alone)";
        let definition = self.describe(definition, k);
        Contrast::mean_difference(&pairs).number(name, Direction::Higher, &definition)
    }

    /// Intransigence (card S124): `a*_k − R[k][k]`, `joint` being the accuracy on the newest set
    /// of a model trained jointly on all sets up to it.
    ///
    /// # Errors
    /// [`Error::Undefined`] unless the experience trains exactly one set.
    pub fn intransigence(&self, k: usize, joint: Cell) -> Result<Number> {
        let name = "intransigence";
        let &[set] = self.curriculum.trains(k) else {
            return Err(Error::undefined(
                name,
                "it needs an experience that trains one set",
            ));
        };
        let pair = (joint, self.cell(name, Some(k), set)?);
        let definition = self.describe("joint training - the set trained last", k);
        Contrast::mean_difference(&[pair]).number(name, Direction::Lower, &definition)
    }

    /// Learning accuracy: `mean_{j≤k} R[j][j]`, each set right after it was first trained.
    ///
    /// # Errors
    /// [`Error::Undefined`].
    pub fn learning_accuracy(&self, k: usize) -> Result<Number> {
        let name = "learning_accuracy";
        let sets = Self::some(name, self.curriculum.seen(k), "a trained set")?;
        let cells: Vec<Cell> = sets
            .iter()
            .map(|&j| self.cell(name, self.curriculum.first_visit(j), j))
            .collect::<Result<_>>()?;
        let definition = self.describe(
            "mean over seen sets of the row after the set was first trained",
            k,
        );
        Contrast::mean(&cells).number(name, Direction::Higher, &definition)
    }

    /// Every metric of this matrix that has a value after experience `k` and needs no other run.
    pub fn numbers(&self, k: usize) -> Vec<Number> {
        let all = [
            self.average_accuracy(k, MeanOver::Sets),
            self.average_accuracy(k, MeanOver::Examples),
            self.average_incremental_accuracy(k),
            self.newest_accuracy(k),
            self.learning_accuracy(k),
            self.forgetting(k, Peak::ExcludingLast),
            self.forgetting(k, Peak::IncludingLast),
            self.forgetting(k, Peak::AtLearning),
            self.backward_transfer(k),
            self.forward_transfer(k),
        ];
        all.into_iter().filter_map(Result::ok).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows after each experience, in hundredths; the initial row is 10 %.
    fn matrix() -> AccuracyMatrix {
        let mut m = AccuracyMatrix::new(Curriculum::square(3), "hand");
        let rows = [[90, 20, 15], [60, 95, 30], [70, 80, 85]];
        for j in 0..3 {
            m.set(None, j, Cell::new(10, 100).unwrap()).unwrap();
            for (i, row) in rows.iter().enumerate() {
                m.set(Some(i), j, Cell::new(row[j], 100).unwrap()).unwrap();
            }
        }
        m
    }

    fn close(number: Result<Number>, expected: f64) -> Number {
        let number = number.unwrap();
        assert!(
            (number.value - expected).abs() < 1e-12,
            "{number:?}, expected {expected}"
        );
        number
    }

    #[test]
    fn all_metrics_of_a_matrix_by_hand() {
        let m = matrix();
        close(
            m.average_accuracy(2, MeanOver::Sets),
            (0.70 + 0.80 + 0.85) / 3.0,
        );
        close(m.average_accuracy(0, MeanOver::Sets), 0.90);
        let aia = (0.90 + (0.60 + 0.95) / 2.0 + (0.70 + 0.80 + 0.85) / 3.0) / 3.0;
        close(m.average_incremental_accuracy(2), aia);
        let f = close(
            m.forgetting(2, Peak::ExcludingLast),
            ((0.90 - 0.70) + (0.95 - 0.80)) / 2.0,
        );
        assert_eq!(
            (f.direction, f.n, f.name.as_str()),
            (Direction::Lower, 200, "forgetting")
        );
        assert!(f.ci_low.unwrap() < f.value && f.value < f.ci_high.unwrap());
        let bwt = ((0.70 - 0.90) + (0.80 - 0.95)) / 2.0;
        close(m.backward_transfer(2), bwt);
        close(m.forgetting(2, Peak::AtLearning), -bwt);
        close(m.forward_transfer(2), ((0.20 - 0.10) + (0.30 - 0.10)) / 2.0);
        close(m.learning_accuracy(2), (0.90 + 0.95 + 0.85) / 3.0);
        close(m.newest_accuracy(2), 0.85);
        let alone: Vec<Cell> = [90, 90, 90].map(|c| Cell::new(c, 100).unwrap()).to_vec();
        close(
            m.forward_transfer_from_isolated(2, &alone),
            ((0.95 - 0.90) + (0.85 - 0.90)) / 2.0,
        );
        close(m.intransigence(2, alone[2]), 0.05);
        assert_eq!(m.numbers(2).len(), 10);
    }

    #[test]
    fn the_definitions_of_forgetting_differ_where_the_last_row_is_best_or_a_later_row_beat_learning()
     {
        let mut m = matrix();
        m.set(Some(2), 0, Cell::new(99, 100).unwrap()).unwrap();
        close(
            m.forgetting(2, Peak::ExcludingLast),
            ((0.90 - 0.99) + 0.15) / 2.0,
        );
        close(m.forgetting(2, Peak::IncludingLast), 0.15 / 2.0);
        m.set(Some(1), 0, Cell::new(95, 100).unwrap()).unwrap();
        m.set(Some(2), 0, Cell::new(70, 100).unwrap()).unwrap();
        close(m.forgetting(2, Peak::ExcludingLast), (0.25 + 0.15) / 2.0);
        close(m.forgetting(2, Peak::AtLearning), (0.20 + 0.15) / 2.0);
        let protocol = |p| m.forgetting(2, p).unwrap().protocol;
        assert_ne!(protocol(Peak::ExcludingLast), protocol(Peak::IncludingLast));
    }

    #[test]
    fn means_over_sets_and_over_examples_differ_with_unequal_sets() {
        let mut m = AccuracyMatrix::new(Curriculum::square(2), "");
        m.set(Some(1), 0, Cell::new(10, 10).unwrap()).unwrap();
        m.set(Some(1), 1, Cell::new(0, 30).unwrap()).unwrap();
        close(m.average_accuracy(1, MeanOver::Sets), 0.5);
        close(m.average_accuracy(1, MeanOver::Examples), 0.25);
    }

    #[test]
    fn recurring_sets_count_from_their_latest_visit() {
        // Sets 0, 1, 0, 1: after the last, set 0 was last trained by experience 2.
        let trains = vec![vec![0], vec![1], vec![0], vec![1]];
        let mut m = AccuracyMatrix::new(Curriculum::new(2, trains).unwrap(), "");
        for (i, row) in [[80, 0], [30, 80], [90, 40], [60, 95]].iter().enumerate() {
            for (j, &c) in row.iter().enumerate() {
                m.set(Some(i), j, Cell::new(c, 100).unwrap()).unwrap();
            }
        }
        close(m.backward_transfer(3), 0.60 - 0.90);
        close(m.learning_accuracy(3), (0.80 + 0.80) / 2.0);
        close(m.forgetting(3, Peak::ExcludingLast), 0.90 - 0.60);
    }

    #[test]
    fn what_was_not_measured_has_no_value_and_says_why() {
        let m = matrix();
        let text = m
            .forgetting(0, Peak::ExcludingLast)
            .unwrap_err()
            .to_string();
        assert_eq!(
            text,
            "forgetting has no value here: it needs an earlier set"
        );
        let empty = AccuracyMatrix::new(Curriculum::square(2), "");
        let text = empty
            .average_accuracy(1, MeanOver::Sets)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("test set 0 was not evaluated after experience 1"),
            "{text}"
        );
        assert!(empty.numbers(1).is_empty() && empty.last().is_none());
        assert!(
            AccuracyMatrix::new(Curriculum::square(2), "")
                .set(Some(2), 0, Cell::new(1, 1).unwrap())
                .is_err()
        );
    }
}
