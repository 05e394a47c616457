//! Nearest tasks: the additive forecast, corrected by what tasks that did alike left over.
//!
//! **What it does.** Tasks that changed the known examples as the new one did are trusted with the
//! unknown ones.
//! **Source.** Jin & Ren, NeurIPS 2025 (card S000); the estimator is the Surprise library's
//! `KNNBaseline` over rows (Koren 2010).
//! **Equation.** `ẑ_ij = bl_ij + Σ_v s_v (z_vj − bl_vj) / Σ_v s_v` over the 40 tasks of largest
//! `s_v = 1/(1 + MSD_v)`, `MSD_v` the mean squared difference over the known columns, `bl` the
//! additive fit ([`super::additive`], by default the offline one; the card leaves it open).
//! **Use it** where tasks come in families. **Not** with few known columns: with all `s_v` alike it
//! comes down to the additive forecast.
//! **Stores** nothing. **Costs** the additive fit, and one pass over the train rows.

use super::{Additive, Completer, Fitted, Known, finite};
use crate::error::Result;
use crate::table::Table;
use ebb_space::Key;

/// The settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbours {
    /// Tasks at most.
    pub nearest: usize,
    /// The forecast that is corrected.
    pub baseline: Additive,
}

impl Default for Neighbours {
    fn default() -> Self {
        Self {
            nearest: 40,
            baseline: Additive::OFFLINE,
        }
    }
}

impl Completer for Neighbours {
    fn name(&self) -> &'static str {
        "neighbours"
    }

    fn fit<'a>(&'a self, train: &'a Table, _: Key) -> Result<Box<dyn Fitted + 'a>> {
        Ok(Box::new(Rows { how: self, train }))
    }
}

struct Rows<'a> {
    how: &'a Neighbours,
    train: &'a Table,
}

impl Fitted for Rows<'_> {
    fn complete(&self, known: &Known) -> Result<Vec<f32>> {
        let base = self.how.baseline.biases(self.train, known);
        let mut near: Vec<(usize, f64)> = (0..self.train.height())
            .map(|v| (v, 1.0 / (1.0 + distance(self.train.row(v), known))))
            .collect();
        // Every train row has every column, so that the nearest are the same in each.
        near.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        near.truncate(self.how.nearest);
        let all: f64 = near.iter().map(|(_, s)| s).sum();
        let new = base.mean + base.rows[self.train.height()];
        let mut left = vec![0.0f64; self.train.width()];
        for (v, s) in near {
            let offset = base.mean + base.rows[v];
            let each = left.iter_mut().zip(self.train.row(v)).zip(&base.columns);
            each.for_each(|((l, z), c)| *l += s / all * (f64::from(*z) - offset - c));
        }
        let each = left.iter().zip(&base.columns);
        finite(each.map(|(l, c)| (new + c + l) as f32).collect())
    }
}

/// MSD over the known columns.
fn distance(row: &[f32], known: &Known) -> f64 {
    let squares = known.iter().map(|(j, z)| f64::from(z - row[j]).powi(2));
    squares.sum::<f64>() / known.values().len() as f64
}

#[cfg(test)]
mod tests {
    use super::super::tests::{known_of, surprise};
    use super::*;
    use crate::table::tests::table;

    #[test]
    fn the_surprise_library_comes_to_the_same_row() {
        let fixed = surprise();
        let how = Neighbours::default();
        let got = how.fit(&fixed.train, Key::new(0, "x")).unwrap();
        fixed.agree(
            &got.complete(&fixed.known).unwrap(),
            &fixed.neighbours,
            1e-5,
        );
    }

    /// One nearest task, the new one's twin: what the baseline left over is all of it.
    #[test]
    fn a_twin_is_copied() {
        let family = |i: usize, j: usize| if (i + j).is_multiple_of(2) { 1.0 } else { -1.0 };
        let t = table(5, 40, family);
        let train = t.select(&[0, 1, 2, 3]).unwrap();
        let known = known_of(&t, 4, &(0..12).collect::<Vec<_>>());
        let how = Neighbours {
            nearest: 1,
            ..Neighbours::default()
        };
        let row = how
            .fit(&train, Key::new(0, "x"))
            .unwrap()
            .complete(&known)
            .unwrap();
        let worst = row
            .iter()
            .zip(t.row(4))
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        // What is left is the penalised baseline's own error.
        assert!(worst < 0.15, "{worst}");
    }
}
