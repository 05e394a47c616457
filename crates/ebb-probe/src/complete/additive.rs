//! The additive forecast: how destructive the task is, plus how fragile the example is.
//!
//! **What it does.** Fits a number a task and a number an example; a new task's number comes from
//! its known columns.
//! **Source.** Jin & Ren, NeurIPS 2025 (card S000); both fits as in the Surprise library's baseline
//! estimates (Koren 2010).
//! **Equation.** `ẑ_ij = μ + b_i + b_j`, `μ` the mean of everything known. *Offline*: SGD on
//! `(z − ẑ)² + λ(b_i² + b_j²)`, known values in order, row by row. *Online*: alternating
//! `b_j = Σ_i (z_ij − μ − b_i)/(10 + n_j)` and `b_i = Σ_j (z_ij − μ − b_j)/(15 + n_i)`.
//! **Use it** as the baseline that a forecast must beat, and in [`super::neighbours`]. **Not** where
//! tasks harm different examples: it gives every task one ranking.
//! **Stores** nothing. **Costs** two operations a known value and pass.

use super::{Completer, Fitted, Known, finite};
use crate::error::Result;
use crate::table::{Table, blocked_sum};
use ebb_space::Key;

/// How the numbers are fitted. The two come to different ones: the second shrinks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Additive {
    /// Passes of stochastic gradient descent.
    Sgd {
        /// Passes.
        epochs: usize,
        /// Learning rate.
        lr: f64,
        /// `λ`.
        ridge: f64,
    },
    /// Alternating least squares.
    Als {
        /// Passes.
        epochs: usize,
        /// Added to the count of an example's values.
        column: f64,
        /// Added to the count of a task's values.
        row: f64,
    },
}

impl Additive {
    /// The card's offline fit.
    pub const OFFLINE: Additive = Additive::Sgd {
        epochs: 1000,
        lr: 0.005,
        ridge: 0.02,
    };
    /// The card's online fit.
    pub const ONLINE: Additive = Additive::Als {
        epochs: 100,
        column: 10.0,
        row: 15.0,
    };

    /// Fits the train rows and the new row, which comes last.
    pub(super) fn biases(&self, train: &Table, known: &Known) -> Biases {
        match *self {
            Additive::Sgd { epochs, lr, ridge } => sgd(train, known, epochs, lr, ridge),
            Additive::Als {
                epochs,
                column,
                row,
            } => als(train, known, epochs, column, row),
        }
    }
}

/// `μ`, `b_i` with the new row's last, `b_j`.
pub(super) struct Biases {
    pub mean: f64,
    pub rows: Vec<f64>,
    pub columns: Vec<f64>,
}

/// The mean of every known value.
pub(super) fn mean(train: &Table, known: &Known) -> f64 {
    let values = blocked_sum(train.values()) + blocked_sum(known.values());
    values / (train.values().len() + known.values().len()) as f64
}

fn sgd(train: &Table, known: &Known, epochs: usize, lr: f64, ridge: f64) -> Biases {
    let mean = mean(train, known);
    let mut rows = vec![0.0; train.height() + 1];
    let mut columns = vec![0.0; train.width()];
    let step = |row: &mut f64, column: &mut f64, z: f32| {
        let error = f64::from(z) - (mean + *row + *column);
        *row += lr * (error - ridge * *row);
        *column += lr * (error - ridge * *column);
    };
    for _ in 0..epochs {
        let (new, old) = rows.split_last_mut().expect("the new row is there");
        for (row, values) in old.iter_mut().zip(train.iter()) {
            let of_row = columns.iter_mut().zip(values);
            of_row.for_each(|(column, z)| step(row, column, *z));
        }
        known
            .iter()
            .for_each(|(j, z)| step(new, &mut columns[j], z));
    }
    Biases {
        mean,
        rows,
        columns,
    }
}

fn als(train: &Table, known: &Known, epochs: usize, column: f64, row: f64) -> Biases {
    let mean = mean(train, known);
    let (m, n) = (train.height(), train.width());
    let mut rows = vec![0.0; m + 1];
    let mut columns = vec![0.0; n];
    let mut counts = vec![m as f64; n];
    known.columns().iter().for_each(|j| counts[*j] += 1.0);
    for _ in 0..epochs {
        columns.fill(0.0);
        for (b, values) in rows.iter().zip(train.iter()) {
            let each = columns.iter_mut().zip(values);
            each.for_each(|(c, z)| *c += f64::from(*z) - mean - b);
        }
        known
            .iter()
            .for_each(|(j, z)| columns[j] += f64::from(z) - mean - rows[m]);
        let each = columns.iter_mut().zip(&counts);
        each.for_each(|(c, n)| *c /= column + n);
        for (b, values) in rows.iter_mut().zip(train.iter()) {
            let left = columns
                .iter()
                .zip(values)
                .map(|(c, z)| f64::from(*z) - mean - c);
            *b = left.sum::<f64>() / (row + n as f64);
        }
        let left = known.iter().map(|(j, z)| f64::from(z) - mean - columns[j]);
        rows[m] = left.sum::<f64>() / (row + known.values().len() as f64);
    }
    Biases {
        mean,
        rows,
        columns,
    }
}

impl Biases {
    /// The new row.
    pub fn forecast(&self) -> Vec<f32> {
        let offset = self.mean + self.rows[self.rows.len() - 1];
        self.columns.iter().map(|c| (offset + c) as f32).collect()
    }
}

impl Completer for Additive {
    fn name(&self) -> &'static str {
        match self {
            Additive::Sgd { .. } => "additive",
            Additive::Als { .. } => "additive-als",
        }
    }

    fn fit<'a>(&'a self, train: &'a Table, _: Key) -> Result<Box<dyn Fitted + 'a>> {
        Ok(Box::new(Rows { how: self, train }))
    }
}

struct Rows<'a> {
    how: &'a Additive,
    train: &'a Table,
}

impl Fitted for Rows<'_> {
    fn complete(&self, known: &Known) -> Result<Vec<f32>> {
        finite(self.how.biases(self.train, known).forecast())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{known_of, surprise};
    use super::*;
    use crate::table::tests::world;

    /// Without a penalty, and with every value known, the least squares are in closed form: means
    /// of rows and of columns.
    #[test]
    fn both_fits_come_to_the_closed_form_without_a_penalty() {
        let t = world(6, 14, 1, 0.2, 3);
        let train = t.select(&[0, 1, 2, 3, 4]).unwrap();
        let known = known_of(&t, 5, &(0..14).collect::<Vec<_>>());
        let (rows, columns, mean) = t.means();
        for how in [
            Additive::Sgd {
                epochs: 20_000,
                lr: 0.001,
                ridge: 0.0,
            },
            Additive::Als {
                epochs: 100,
                column: 0.0,
                row: 0.0,
            },
        ] {
            let got = how
                .fit(&train, Key::new(0, "x"))
                .unwrap()
                .complete(&known)
                .unwrap();
            for (j, got) in got.iter().enumerate() {
                let want = rows[5] + columns[j] - mean;
                assert!(
                    (f64::from(*got) - want).abs() < 2e-3,
                    "{how:?} {j}: {got} {want}"
                );
            }
        }
    }

    #[test]
    fn both_fits_are_those_of_the_surprise_library() {
        let fixed = surprise();
        for (how, want) in [
            (Additive::OFFLINE, &fixed.additive_sgd),
            (Additive::ONLINE, &fixed.additive_als),
        ] {
            let got = how.fit(&fixed.train, Key::new(0, "x")).unwrap();
            let got = got.complete(&fixed.known).unwrap();
            fixed.agree(&got, want, 1e-5);
        }
    }
}
