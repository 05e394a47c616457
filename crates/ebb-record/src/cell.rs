//! Correct out of n, and intervals for sums and differences of such proportions.

use ebb_space::stats::proportion_ci_wilson;
use ebb_space::{Direction, Number, Unit};
use serde::{Deserialize, Serialize};

use crate::aggregate::OVER_EXAMPLES;
use crate::error::{Error, Result};

/// Level of every interval of this crate; part of each number's protocol.
pub const LEVEL: f64 = 0.95;

/// How many examples were answered correctly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Correct answers.
    pub correct: u64,
    /// Examples asked.
    pub n: u64,
}

impl Cell {
    /// `correct` of `n`.
    ///
    /// # Errors
    /// [`Error::Evaluation`] if there is no example, or more are correct than there are.
    pub fn new(correct: u64, n: u64) -> Result<Cell> {
        if n == 0 || correct > n {
            return Err(Error::Evaluation(format!(
                "{correct} correct of {n} examples"
            )));
        }
        Ok(Cell { correct, n })
    }

    /// The share of correct answers.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.n as f64
    }
}

/// A weighted sum `Σ c_j p_j` of proportions that becomes a [`Number`].
pub(crate) struct Contrast {
    terms: Vec<(f64, Cell)>,
}

impl Contrast {
    /// The mean of these proportions, each set counting the same.
    pub fn mean(cells: &[Cell]) -> Contrast {
        Contrast {
            terms: cells
                .iter()
                .map(|&c| (1.0 / cells.len() as f64, c))
                .collect(),
        }
    }

    /// The mean of the differences `a − b`.
    pub fn mean_difference(pairs: &[(Cell, Cell)]) -> Contrast {
        let share = 1.0 / pairs.len() as f64;
        Contrast {
            terms: pairs
                .iter()
                .flat_map(|&(a, b)| [(share, a), (-share, b)])
                .collect(),
        }
    }

    /// `Σ c_j p_j`, and its limits by variance recovery from each proportion's Wilson limits
    /// (Zou & Donner 2008; for one difference this is Newcombe's method 10, 1998). Proportions
    /// count as independent; where both sides of a difference are of the same examples, which
    /// agree more than that, the interval is too wide rather than too narrow.
    pub fn value_and_limits(&self) -> Result<(f64, f64, f64)> {
        let (mut value, mut down, mut up) = (0.0, 0.0, 0.0);
        for &(c, cell) in &self.terms {
            let p = cell.accuracy();
            let wilson = proportion_ci_wilson(cell.correct as usize, cell.n as usize, LEVEL)?;
            let (below, above) = (
                (c * (p - wilson.low)).powi(2),
                (c * (wilson.high - p)).powi(2),
            );
            value += c * p;
            down += if c > 0.0 { below } else { above };
            up += if c > 0.0 { above } else { below };
        }
        Ok((value, value - down.sqrt(), value + up.sqrt()))
    }

    /// How many distinct examples it rests on: the larger of the two sides.
    fn examples(&self) -> usize {
        let side = |positive: bool| {
            let side = self.terms.iter().filter(|(c, _)| (*c > 0.0) == positive);
            side.map(|(_, cell)| cell.n).sum::<u64>()
        };
        side(true).max(side(false)) as usize
    }

    /// The number with its interval over examples.
    pub fn number(&self, name: &str, direction: Direction, protocol: &str) -> Result<Number> {
        let (value, low, high) = self.value_and_limits()?;
        Ok(Number {
            name: name.into(),
            value,
            ci_low: Some(low),
            ci_high: Some(high),
            n: self.examples(),
            unit: Unit::Example,
            direction,
            protocol: format!("{protocol}{OVER_EXAMPLES}"),
        })
    }
}

/// A number without an interval, over `n` examples.
pub(crate) fn bare(
    name: String,
    value: f64,
    n: u64,
    direction: Direction,
    protocol: String,
) -> Number {
    let n = n as usize;
    Number {
        name,
        value,
        ci_low: None,
        ci_high: None,
        n,
        unit: Unit::Example,
        direction,
        protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_difference_is_newcombes_method_10() {
        // Newcombe, Statistics in Medicine 17 (1998), table II.
        for ((a, m), (b, n), low, high) in [
            ((56, 70), (48, 80), 0.0524, 0.3339),
            ((9, 10), (3, 10), 0.1705, 0.8090),
            ((10, 10), (0, 20), 0.6791, 1.0),
            ((0, 10), (0, 10), -0.2775, 0.2775),
        ] {
            let pair = (Cell::new(a, m).unwrap(), Cell::new(b, n).unwrap());
            let (value, l, h) = Contrast::mean_difference(&[pair])
                .value_and_limits()
                .unwrap();
            assert!((value - (a as f64 / m as f64 - b as f64 / n as f64)).abs() < 1e-12);
            assert!((l - low).abs() < 6e-5 && (h - high).abs() < 6e-5, "{l} {h}");
        }
    }

    #[test]
    fn the_interval_of_a_mean_shrinks_with_the_number_of_sets() {
        let one = Cell::new(80, 100).unwrap();
        let width = |k: usize| {
            let (_, low, high) = Contrast::mean(&vec![one; k]).value_and_limits().unwrap();
            high - low
        };
        assert!((width(1) / width(4) - 2.0).abs() < 1e-12);
        assert_eq!(Contrast::mean(&[one; 4]).examples(), 400);
    }

    #[test]
    fn impossible_counts_are_refused() {
        assert!(Cell::new(3, 2).is_err() && Cell::new(0, 0).is_err());
    }
}
