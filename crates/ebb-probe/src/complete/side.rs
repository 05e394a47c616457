//! A forecast from scores that were made elsewhere: energies, counts, gradient products,
//! similarities.
//!
//! **What it does.** Puts a score of each example on the scale of the losses, through the known
//! columns of the new row.
//! **Source.** The comparators of card S000; S004, S042, S052 and S067 give scores.
//! **Equation.** `ẑ_ij = a + b s_j`, `(a, b)` the least squares over the known columns; `b = 0` where
//! the known scores do not vary.
//! **Use it** to ask whether a score of examples says anything that the matrix does not. **Not** as
//! a forecast of its own where the score knows nothing of the task.
//! **Stores** one number an example. **Costs** one pass over the scores.

use super::{Completer, Fitted, Known, finite};
use crate::error::{Error, Result};
use crate::table::Table;
use ebb_space::Key;

/// Scores of the examples, with a name for tables.
#[derive(Clone, Debug, PartialEq)]
pub struct SideScores {
    /// What they are.
    pub name: &'static str,
    /// One an example.
    pub scores: Vec<f64>,
}

impl Completer for SideScores {
    fn name(&self) -> &'static str {
        self.name
    }

    fn fit<'a>(&'a self, train: &'a Table, _: Key) -> Result<Box<dyn Fitted + 'a>> {
        if self.scores.len() != train.width() {
            let (n, width) = (self.scores.len(), train.width());
            let what = format!("{n} scores for {width} examples");
            return Err(Error::Shape(what));
        }
        Ok(Box::new(Scored(&self.scores)))
    }
}

struct Scored<'a>(&'a [f64]);

impl Fitted for Scored<'_> {
    fn complete(&self, known: &Known) -> Result<Vec<f32>> {
        let n = known.values().len() as f64;
        let pairs = || known.iter().map(|(j, z)| (self.0[j], f64::from(z)));
        let (s, z) = pairs().fold((0.0, 0.0), |(a, b), (s, z)| (a + s / n, b + z / n));
        let with = pairs().map(|(x, y)| (x - s) * (y - z)).sum::<f64>();
        let own = pairs().map(|(x, _)| (x - s).powi(2)).sum::<f64>();
        let slope = if own > 0.0 { with / own } else { 0.0 };
        let row = self.0.iter().map(|x| (z + slope * (x - s)) as f32);
        finite(row.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::known_of;
    use super::*;
    use crate::table::tests::table;

    #[test]
    fn a_line_is_found_and_a_constant_score_says_the_mean() {
        let t = table(1, 20, |_, j| 3.0 - 0.5 * (j as f64).sqrt());
        let known = known_of(&t, 0, &(0..11).collect::<Vec<_>>());
        let with = |scores: Vec<f64>| {
            let how = SideScores {
                name: "root",
                scores,
            };
            how.fit(&t, Key::new(0, "x"))
                .unwrap()
                .complete(&known)
                .unwrap()
        };
        let row = with((0..20).map(|j| f64::from(j).sqrt()).collect());
        assert!(row.iter().zip(t.row(0)).all(|(a, b)| (a - b).abs() < 1e-6));
        let flat = with(vec![1.0; 20]);
        let mean = known.values().iter().sum::<f32>() / 11.0;
        assert!(flat.iter().all(|z| (z - mean).abs() < 1e-6));
    }
}
