//! How low the rank of a matrix is: why a row can be filled in from a few columns.
//!
//! **What it does.** Says how much of the matrix few directions explain, and how much of that row
//! and column means explain alone.
//! **Source.** Jin & Ren, NeurIPS 2025 (card S000).
//! **Equation.** Uncentred singular values of `Z`;
//! `R²(r) = 1 − mean((Z − Z_r)²)/mean((Z − mean Z)²)`, the same for the best additive fit and for the
//! row and the column means.
//! **Use it** before trusting a forecast: an entrywise shuffled copy of the matrix must score low.
//! **Not** as proof that new rows can be forecast; that is what [`crate::protocol`] measures.
//! **Stores** nothing. **Costs** a product `M × M × N` over at most 10,000 examples.

use crate::complete::LogisticFactors;
use crate::error::Result;
use crate::linear::{gram, spectrum};
use crate::table::Table;
use ebb_space::Key;
use serde::Serialize;

/// Examples looked at, at most.
pub const SAMPLE: usize = 10_000;
/// Ranks looked at.
pub const RANKS: usize = 10;

/// What the probe found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankProbe {
    /// Tasks.
    pub tasks: usize,
    /// Examples looked at.
    pub examples: usize,
    /// Singular values, largest first.
    pub singular_values: Vec<f64>,
    /// `R²` of rank 1, 2, …
    pub r2: Vec<f64>,
    /// `R²` of `μ + b_i + b_j`.
    pub additive: f64,
    /// `R²` of the mean of each task.
    pub row_means: f64,
    /// `R²` of the mean of each example.
    pub column_means: f64,
}

/// Probes a table; of more than 10_000 examples a keyed sample.
///
/// # Errors
/// When nothing varies in it.
pub fn rank_probe(table: &Table, key: Key) -> Result<RankProbe> {
    let sample;
    let table = match table.width() > SAMPLE {
        false => table,
        true => {
            let mut columns: Vec<usize> = (0..table.width()).collect();
            key.order(&mut columns, |j| table.column_ids()[*j]);
            columns.truncate(SAMPLE);
            columns.sort_unstable();
            sample = table.select_columns(&columns)?;
            &sample
        }
    };
    let (m, n) = (table.height(), table.width());
    let (rows, columns, mean) = table.means();
    let squares = |of: &[f64]| of.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    let (by_row, by_column) = (n as f64 * squares(&rows), m as f64 * squares(&columns));
    let all: f64 = table
        .iter()
        .map(|row| {
            row.iter()
                .map(|z| (f64::from(*z) - mean).powi(2))
                .sum::<f64>()
        })
        .sum();
    if all <= 0.0 {
        return Err(ebb_space::Error::NoVariation.into());
    }
    let g = gram(m, n, |from, width, block| {
        let rows = block.chunks_exact_mut(width).zip(table.iter());
        rows.for_each(|(to, row)| to.copy_from_slice(&row[from..from + width]));
    });
    let (energy, _) = spectrum(&g, m);
    let ranks = 1..=RANKS.min(m).min(n);
    Ok(RankProbe {
        tasks: m,
        examples: n,
        singular_values: energy.iter().take(n).map(|e| e.sqrt()).collect(),
        r2: ranks
            .map(|r| 1.0 - energy[r..].iter().sum::<f64>() / all)
            .collect(),
        additive: (by_row + by_column) / all,
        row_means: by_row / all,
        column_means: by_column / all,
    })
}

/// F1 of the flips that logistic factorisations of rank 1, 2, … say at a chance of ½, fitted to
/// the whole table.
pub fn flips_by_rank(table: &Table, ranks: usize, key: Key) -> Vec<f64> {
    let of_rank = |rank: usize| {
        let how = LogisticFactors {
            rank,
            ..LogisticFactors::default()
        };
        let logits = how.fitted(table, key.at(rank as u64));
        let mut counts = crate::protocol::Counts::default();
        let each = logits.iter().zip(table.values());
        each.for_each(|(logit, y)| counts.add(*logit > 0.0, *y > 0.5));
        counts.f1()
    };
    (1..=ranks).map(of_rank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::{table, world};

    #[test]
    fn a_table_of_rank_two_is_found_to_be_one() {
        let t = table(6, 30, |i, j| {
            let (i, j) = (i as f64, j as f64);
            (i - 2.0) * (j * 0.1).sin() + 3.0 * (i * 0.7).cos() * j / 30.0
        });
        let probe = rank_probe(&t, Key::new(0, "p")).unwrap();
        assert!(probe.r2[0] < 0.999 && probe.r2[1] > 1.0 - 1e-5, "{probe:?}");
        assert!(probe.singular_values[2] < 1e-3 * probe.singular_values[0]);
    }

    /// Additive: the two-way table of the textbook.
    #[test]
    fn additive_shares_are_those_of_an_analysis_of_variance() {
        let t = table(2, 2, |i, j| [[1.0, 2.0], [3.0, 6.0]][i][j]);
        let probe = rank_probe(&t, Key::new(0, "p")).unwrap();
        // Total 14; rows 9, columns 4, interaction 1.
        assert!((probe.row_means - 9.0 / 14.0).abs() < 1e-12);
        assert!((probe.column_means - 4.0 / 14.0).abs() < 1e-12);
        assert!((probe.additive - 13.0 / 14.0).abs() < 1e-12);
    }

    #[test]
    fn noise_has_no_rank_and_a_sample_says_what_the_whole_says() {
        let noise = table(48, 2000, |i, j| {
            Key::new(1, "noise").at(i as u64).normal(j as u64)
        });
        let probe = rank_probe(&noise, Key::new(0, "p")).unwrap();
        // The card: about 0.08 at rank 3.
        assert!((0.05..0.11).contains(&probe.r2[2]), "{:?}", probe.r2);
        let wide = world(10, 30_000, 2, 0.5, 3);
        let sampled = rank_probe(&wide, Key::new(0, "p")).unwrap();
        let other = rank_probe(&wide, Key::new(1, "p")).unwrap();
        assert_eq!(sampled.examples, SAMPLE);
        assert!((sampled.r2[2] - other.r2[2]).abs() < 0.02);
        assert!(rank_probe(&table(3, 3, |_, _| 1.0), Key::new(0, "p")).is_err());
    }
}
