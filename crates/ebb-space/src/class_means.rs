//! One against all on class means: what the rows of a class answer together.

use crate::bernoulli::{bernoulli, sigmoid};

/// The mean over the classes of `labels` of `v_c Σ_j BCE(z̄_cj, t̄_cj)`, and its gradient by `z`:
/// bars are means over the rows of class c, t the sigmoids of `r`, or without it the one-hot label,
/// and `v_c` the mean of `weights` (1 without them). Columns of −∞ take no part; they are the same
/// in all rows of a class.
pub(crate) fn class_means(
    z: &[f64],
    r: Option<&[f64]>,
    labels: &[u32],
    weights: Option<&[f64]>,
    gradient: &mut [f64],
) -> f64 {
    let n = labels.len();
    let k = z.len() / n;
    let mut classes = labels.to_vec();
    classes.sort_unstable();
    classes.dedup();
    let share = 1.0 / classes.len() as f64;
    gradient.fill(0.0);
    let mut value = 0.0;
    for &class in &classes {
        let own: Vec<usize> = (0..n).filter(|&i| labels[i] == class).collect();
        let mean =
            |of: &dyn Fn(usize) -> f64| own.iter().map(|&i| of(i)).sum::<f64>() / own.len() as f64;
        let v = weights.map_or(1.0, |weights| mean(&|i| weights[i]));
        let columns: Vec<usize> = (0..k)
            .filter(|&j| own.iter().all(|&i| z[i * k + j] > f64::NEG_INFINITY))
            .collect();
        let centre: Vec<f64> = columns.iter().map(|&j| mean(&|i| z[i * k + j])).collect();
        let target = |at: usize| match r {
            Some(r) => {
                let yes = mean(&|i| sigmoid(r[i * k + columns[at]]));
                (yes, 1.0 - yes)
            }
            None if columns[at] == class as usize => (1.0, 0.0),
            None => (0.0, 1.0),
        };
        let mut slopes = vec![0.0; centre.len()];
        value += share * v * bernoulli(&centre, target, &mut slopes);
        let of_row = share * v / own.len() as f64;
        for &i in &own {
            for (&j, slope) in columns.iter().zip(&slopes) {
                gradient[i * k + j] = of_row * slope;
            }
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    fn written_out(z: &[f64], r: Option<&[f64]>, labels: &[u32], weights: &[f64]) -> f64 {
        let (n, k) = (labels.len(), z.len() / labels.len());
        let ln_sigmoid = |x: f64| -(-x).exp().ln_1p();
        let of_class = |class: u32| -> f64 {
            let own: Vec<usize> = (0..n).filter(|i| labels[*i] == class).collect();
            let m = own.len() as f64;
            let v = own.iter().map(|i| weights[*i]).sum::<f64>() / m;
            let each = (0..k).filter(|j| *j != 2).map(|j| {
                let o = own.iter().map(|i| z[i * k + j]).sum::<f64>() / m;
                let t = match r {
                    Some(r) => own
                        .iter()
                        .map(|i| 1.0 / (1.0 + (-r[i * k + j]).exp()))
                        .sum(),
                    None => m * f64::from(u8::from(j == class as usize)),
                } / m;
                -(t * ln_sigmoid(o) + (1.0 - t) * ln_sigmoid(-o))
            });
            v * each.sum::<f64>()
        };
        [0, 1, 3].map(of_class).iter().sum::<f64>() / 3.0
    }

    /// Value and gradient against the sum written out; column 2 is masked.
    #[test]
    fn classes_answer_together() {
        let labels = [0, 3, 0, 1, 3, 0];
        let (n, k) = (labels.len(), 4);
        let key = Key::new(2, "class means");
        let mut z: Vec<f64> = (0..24).map(|i| 1.5 * key.normal(i)).collect();
        let mut r: Vec<f64> = (24..48).map(|i| 1.5 * key.normal(i)).collect();
        let weights: Vec<f64> = (48..54).map(|i| key.uniform(i)).collect();
        for i in 0..n {
            z[i * k + 2] = f64::NEG_INFINITY;
            r[i * k + 2] = f64::NEG_INFINITY;
        }
        for r in [None, Some(&r[..])] {
            let mut gradient = vec![f64::NAN; n * k];
            let found = class_means(&z, r, &labels, Some(&weights), &mut gradient);
            assert!((found - written_out(&z, r, &labels, &weights)).abs() < 1e-13);
            for j in 0..n * k {
                if z[j] == f64::NEG_INFINITY {
                    assert_eq!(gradient[j], 0.0);
                    continue;
                }
                let at = |step: f64| {
                    let mut z = z.clone();
                    z[j] += step;
                    written_out(&z, r, &labels, &weights)
                };
                let want = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!(
                    (gradient[j] - want).abs() < 1e-9,
                    "{j}: {} {want}",
                    gradient[j]
                );
            }
            let ones = class_means(&z, r, &labels, None, &mut gradient);
            assert!((ones - written_out(&z, r, &labels, &[1.0; 6])).abs() < 1e-13);
        }
    }
}
