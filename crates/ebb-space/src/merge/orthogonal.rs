//! An adapter that starts across the one before it.
//!
//! **What it does.** Draws a new factor A each column of which stands orthogonal to the same
//! column of the last one.
//! **Source.** Staniszewski et al., 2024, "Low-rank continual personalization of diffusion models"
//! (card S086).
//! **Equation.** `a'_j = (I − â_j â_jᵀ) g_j / ‖(I − â_j â_jᵀ) g_j‖`, `â_j = a_j / ‖a_j‖`, `g_j` normal.
//! **Use it** for a second adapter that is trained with B = 0. Columns stand in the space of the
//! rank, and being orthogonal there is not being orthogonal in the space of inputs. What is
//! trained must then be added up as products: the sum of factors has `B' A + B A'` besides.
//! **Stores** nothing. **Costs** a normal draw an entry of A.
//!
//! Decided here: the card takes the last right-singular vector of the `1 × r` column, which is any
//! one of its `r − 1` orthogonal directions as the library has it; here it is a keyed draw.

use crate::{Error, Key, Result};

/// A factor A (`rank` by `inputs`) whose columns have length 1 and stand orthogonal to those of
/// `last`. A column of zeros has no direction to avoid.
///
/// # Errors
/// [`Error::BadMerge`] for a rank below 2, where nothing is orthogonal but 0, or a factor that is
/// no matrix of this rank.
pub fn orthogonal_columns(last: &[f32], rank: usize, key: Key) -> Result<Vec<f32>> {
    if rank < 2 || !last.len().is_multiple_of(rank) {
        let what = format!(
            "{} values are no factor of rank {rank} to start across: it needs a rank of at least 2",
            last.len()
        );
        return Err(Error::BadMerge(what));
    }
    let inputs = last.len() / rank;
    let mut fresh = vec![0.0; last.len()];
    for j in 0..inputs {
        let key = key.at(j as u64);
        let old: Vec<f64> = (0..rank).map(|k| f64::from(last[k * inputs + j])).collect();
        let mut new: Vec<f64> = (0..rank as u64).map(|k| key.normal(k)).collect();
        let square: f64 = old.iter().map(|v| v * v).sum();
        if square > 0.0 {
            // Twice: once leaves the rounding of a near-parallel draw.
            for _ in 0..2 {
                let along: f64 = old.iter().zip(&new).map(|(o, n)| o * n).sum::<f64>() / square;
                new.iter_mut().zip(&old).for_each(|(n, o)| *n -= along * o);
            }
        }
        let length = new.iter().map(|v| v * v).sum::<f64>().sqrt();
        for (k, v) in new.iter().enumerate() {
            fresh[k * inputs + j] = (v / length) as f32;
        }
    }
    Ok(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_unit_and_orthogonal() {
        let (rank, inputs) = (4, 9);
        let key = Key::new(2, "a");
        let mut last: Vec<f32> = (0..36).map(|i| key.normal(i) as f32).collect();
        (0..rank).for_each(|k| last[k * inputs + 3] = 0.0);
        let fresh = orthogonal_columns(&last, rank, Key::new(0, "start")).expect("a factor");
        for j in 0..inputs {
            let column = |a: &[f32]| -> Vec<f64> {
                (0..rank).map(|k| f64::from(a[k * inputs + j])).collect()
            };
            let (old, new) = (column(&last), column(&fresh));
            let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
            assert!((dot(&new, &new) - 1.0).abs() < 1e-6);
            assert!(dot(&old, &new).abs() < 1e-6 * dot(&old, &old).sqrt().max(1.0));
        }
        assert!(orthogonal_columns(&last, 1, key).is_err());
        assert!(orthogonal_columns(&last, 5, key).is_err());
    }
}
