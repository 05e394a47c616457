//! Which examples to replay: draws weighted by what is forecast to be forgotten.
//!
//! **What it does.** Draws examples without replacement, the more likely the more their loss is
//! forecast to rise.
//! **Source.** Jin & Ren, NeurIPS 2025 (card S000).
//! **Equation.** `w_j = softmax_j(ẑ_j/T)`; the draw takes the smallest of `E_j/w_j`, `E_j` exponential
//! and keyed by the example's id (Efraimidis & Spirakis 2006), which is drawing one after the other
//! with probabilities in proportion to the weights of those left.
//! **Use it** with `T = 0.1` for losses of instruction models; the choice of `T` belongs to the
//! spread of `ẑ`: with a deviation far below `T` the draw is uniform, far above it a few examples
//! take everything. [`effective_size`] says which.
//! **Stores** nothing. **Costs** one pass over the examples.

use crate::error::{Error, Result};
use ebb_space::Key;

/// The card's temperature.
pub const TEMPERATURE: f64 = 0.1;

/// `softmax(ẑ/T)`.
///
/// # Errors
/// When the temperature is not above 0, or a forecast is not finite.
pub fn weights(forecast: &[f32], temperature: f64) -> Result<Vec<f64>> {
    if !(temperature > 0.0 && temperature.is_finite()) {
        return Err(Error::Weights(format!("the temperature is {temperature}")));
    }
    if let Some(z) = forecast.iter().find(|z| !z.is_finite()) {
        return Err(Error::Weights(format!("a forecast is {z}")));
    }
    let top = forecast.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let each = forecast
        .iter()
        .map(|z| (f64::from(z - top) / temperature).exp());
    let raw: Vec<f64> = each.collect();
    let sum: f64 = raw.iter().sum();
    Ok(raw.iter().map(|w| w / sum).collect())
}

/// Among how many examples a draw with these weights really chooses: `(Σw)²/Σw²`.
pub fn effective_size(weights: &[f64]) -> f64 {
    let (sum, squares) = weights
        .iter()
        .fold((0.0, 0.0), |(s, q), w| (s + w, q + w * w));
    if squares > 0.0 {
        sum * sum / squares
    } else {
        0.0
    }
}

/// `size` examples without replacement, in the order in which they are drawn. `ids` are those of the
/// examples; a weight of 0 is never drawn.
///
/// # Errors
/// When a weight is no weight, or fewer than `size` can be drawn.
pub fn draw(weights: &[f64], ids: &[u64], size: usize, key: Key) -> Result<Vec<usize>> {
    if weights.len() != ids.len() {
        let what = format!("{} weights for {} examples", weights.len(), ids.len());
        return Err(Error::Weights(what));
    }
    if let Some(w) = weights.iter().find(|w| !(**w >= 0.0 && w.is_finite())) {
        return Err(Error::Weights(format!("a weight is {w}")));
    }
    let possible = (0..ids.len()).filter(|j| weights[*j] > 0.0);
    // ln E − ln w: weights far below the others keep their order, where E/w overflows.
    let mut order: Vec<(f64, usize)> = possible
        .map(|j| {
            let e = -(1.0 - key.uniform(ids[j])).ln();
            (e.ln() - weights[j].ln(), j)
        })
        .collect();
    if order.len() < size {
        return Err(Error::Weights(format!(
            "{size} are asked for and {} have a weight above 0",
            order.len()
        )));
    }
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    Ok(order[..size].iter().map(|(_, j)| *j).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_the_softmax() {
        let w = weights(&[0.0, 0.1 * 3f32.ln(), -1e30], 0.1).unwrap();
        assert!((w[0] - 0.25).abs() < 1e-6 && (w[1] - 0.75).abs() < 1e-6 && w[2] == 0.0);
        assert!((effective_size(&w) - 1.6).abs() < 1e-5);
        assert!((effective_size(&[0.25; 4]) - 4.0).abs() < 1e-12);
        assert!(weights(&[0.0], 0.0).is_err() && weights(&[f32::NAN], 1.0).is_err());
    }

    /// Two of three, one after the other: the chance of each pair in closed form.
    #[test]
    fn draws_without_replacement_have_their_chances() {
        let w = [0.5, 0.3, 0.2];
        let n = 40_000u64;
        let mut counts = [[0.0f64; 3]; 3];
        for seed in 0..n {
            let got = draw(&w, &[10, 20, 30], 2, Key::new(seed, "draw")).unwrap();
            counts[got[0]][got[1]] += 1.0 / n as f64;
        }
        for (a, row) in counts.iter().enumerate() {
            for (b, share) in row.iter().enumerate() {
                let want = if a == b {
                    0.0
                } else {
                    w[a] * w[b] / (1.0 - w[a])
                };
                assert!((share - want).abs() < 0.011, "{a} {b}: {share} {want}");
            }
        }
    }

    #[test]
    fn an_example_that_goes_leaves_the_order_of_the_others() {
        let key = Key::new(3, "draw");
        let ids: Vec<u64> = (0..50).collect();
        let w: Vec<f64> = ids.iter().map(|i| 1.0 + *i as f64).collect();
        let all = draw(&w, &ids, 50, key).unwrap();
        let less = draw(&w[1..], &ids[1..], 49, key).unwrap();
        let kept: Vec<usize> = all.into_iter().filter(|j| *j != 0).map(|j| j - 1).collect();
        assert_eq!(kept, less);
        assert!(draw(&w, &ids, 51, key).is_err() && draw(&[0.0], &[1], 1, key).is_err());
        assert!(draw(&[-1.0], &[1], 1, key).is_err());
    }
}
