//! Outputs of two networks on the records, beside each other.
//!
//! **What it does.** ZRF: how near the outputs are to those of a network that never learnt anything
//! (1: alike, 0: nothing in common). Activation distance: how far they are from those of a network
//! trained without the records (0 is best, √2 the most).
//! **Source.** ZRF: Chundawat et al., *Can bad teaching induce forgetting?*, AAAI 2023. Activation
//! distance: Golatkar, Achille & Soatto, *Eternal sunshine of the spotless net*, CVPR 2020, on outputs
//! as Chundawat et al. take it (card X17).
//! **Equation.** `ZRF = 1 − mean_x JS(f(x), f_random(x))`, `JS = ½ KL(p‖m) + ½ KL(q‖m)`, `m = (p+q)/2`,
//! in bits, so that it fills [0, 1] (in nats a ZRF could not come below 1 − ln 2);
//! `mean_x ‖f(x) − f_retrained(x)‖₂`.
//! **Use** activation distance where a retrained network is to be had, with a second one for scale:
//! two retrained networks differ too. **Not** ZRF as an aim: a network trained without a class is sure
//! of its lookalikes and far from random; compare with a retrained one's ZRF.

use crate::stats::{Interval, mean_ci_t};
use crate::{Error, Result};

/// Rows of `classes` values each that are probabilities and sum to 1, to the rounding of f32.
pub(super) fn distributions<'a>(
    what: &'static str,
    values: &'a [f64],
    classes: usize,
) -> Result<std::slice::ChunksExact<'a, f64>> {
    let rows = values.chunks_exact(classes.max(1));
    if classes == 0 || !rows.remainder().is_empty() {
        return Err(Error::Length {
            what,
            expected: values.len() / classes.max(1) * classes,
            found: values.len(),
        });
    }
    for (row, values) in rows.clone().enumerate() {
        let proper = values.iter().all(|p| *p >= 0.0 && p.is_finite());
        let sum = match proper {
            true => values.iter().sum(),
            false => f64::NAN,
        };
        if !(0.999..=1.001).contains(&sum) {
            return Err(Error::BadDistribution { what, row, sum });
        }
    }
    Ok(rows)
}

/// Jensen–Shannon divergence of two distributions in bits, in [0, 1].
fn jensen_shannon(p: &[f64], q: &[f64]) -> f64 {
    let part = |a: f64, m: f64| if a > 0.0 { a * (a / m).log2() } else { 0.0 };
    let both = p.iter().zip(q).map(|(&p, &q)| {
        let m = 0.5 * (p + q);
        0.5 * (part(p, m) + part(q, m))
    });
    both.sum::<f64>().clamp(0.0, 1.0)
}

/// ZRF of the outputs of `model` and of a network at its random initialisation, on the same records in
/// the same order: `[records × classes]` probabilities each. With a t interval over records.
///
/// # Errors
/// Outputs of different sizes, or that are no distributions; fewer than two records; a bad level.
pub fn zrf(model: &[f64], random: &[f64], classes: usize, level: f64) -> Result<Interval> {
    over_rows(model, random, classes, level, |p, q| {
        1.0 - jensen_shannon(p, q)
    })
}

/// Mean Euclidean distance of the outputs of two models on the same records in the same order, with a
/// t interval over records.
///
/// # Errors
/// Outputs of different sizes, or that are no distributions; fewer than two records; a bad level.
pub fn activation_distance(
    model: &[f64],
    retrained: &[f64],
    classes: usize,
    level: f64,
) -> Result<Interval> {
    over_rows(model, retrained, classes, level, |p, q| {
        let squares = p.iter().zip(q).map(|(p, q)| (p - q) * (p - q));
        squares.sum::<f64>().sqrt()
    })
}

fn over_rows(
    model: &[f64],
    other: &[f64],
    classes: usize,
    level: f64,
    measure: impl Fn(&[f64], &[f64]) -> f64,
) -> Result<Interval> {
    if model.len() != other.len() {
        return Err(Error::Length {
            what: "the outputs of the other network",
            expected: model.len(),
            found: other.len(),
        });
    }
    let rows = distributions("the model's outputs", model, classes)?;
    let others = distributions("the other network's outputs", other, classes)?;
    let each: Vec<f64> = rows.zip(others).map(|(p, q)| measure(p, q)).collect();
    mean_ci_t(&each, level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Generator, Key};

    /// Defect 6 of the peers' code: a reversed KL divergence with a mean over elements in its place.
    #[test]
    fn zrf_is_one_minus_a_true_jensen_shannon_divergence() {
        // p = (1, 0), q = (½, ½), so m = (¾, ¼): ½ log₂(4/3) + ½ (½ log₂(2/3) + ½ log₂ 2).
        let (p, q) = ([1.0, 0.0], [0.5, 0.5]);
        let want = 0.5 * (4f64 / 3.0).log2() + 0.25 * (2f64 / 3.0).log2() + 0.25;
        assert!((want - 0.311_278_124_459_132_84).abs() < 1e-15);
        assert!((jensen_shannon(&p, &q) - want).abs() < 1e-15);
        assert_eq!(jensen_shannon(&p, &q), jensen_shannon(&q, &p));
        let twice = |row: [f64; 2]| [row, row].concat();
        let got = zrf(&twice(p), &twice(q), 2, 0.95).unwrap();
        assert!((got.value - (1.0 - want)).abs() < 1e-15);
        let defective = {
            let m = [0.75f64, 0.25];
            let kl: f64 = m.iter().zip(q).map(|(m, q)| m * (m / q).ln()).sum();
            1.0 - kl / 2.0
        };
        assert!((got.value - defective).abs() > 0.2);
        // It fills its range.
        assert_eq!(
            zrf(&twice([1.0, 0.0]), &twice([0.0, 1.0]), 2, 0.95)
                .unwrap()
                .value,
            0.0
        );
        assert_eq!(zrf(&twice(p), &twice(p), 2, 0.95).unwrap().value, 1.0);
    }

    #[test]
    fn the_divergence_is_that_of_the_loss_terms() {
        let key = Key::new(3, "js");
        let row = |at: u64| -> Vec<f64> {
            let raw: Vec<f64> = (0..5).map(|i| key.at(at).normal(i).exp()).collect();
            let sum: f64 = raw.iter().sum();
            raw.iter().map(|x| x / sum).collect()
        };
        for at in 0..20 {
            let (p, q) = (row(2 * at), row(2 * at + 1));
            let ln = |row: &[f64]| -> Vec<f64> { row.iter().map(|x| x.ln()).collect() };
            let nats = Generator::JensenShannon.exact(&ln(&p), &ln(&q), &mut [0.0; 5]);
            let got = jensen_shannon(&p, &q) * std::f64::consts::LN_2;
            assert!((got - nats).abs() < 1e-12, "{got} {nats}");
        }
    }

    #[test]
    fn activation_distance_by_hand() {
        // Rows at distance √2 and 0.5: √(0.3² + 0.4² + …) with (0.6, 0.4, 0) and (0.3, 0.4, 0.3): √0.18.
        let a = [1.0, 0.0, 0.0, 0.6, 0.4, 0.0];
        let b = [0.0, 1.0, 0.0, 0.3, 0.4, 0.3];
        let got = activation_distance(&a, &b, 3, 0.95).unwrap();
        let want = 0.5 * (2f64.sqrt() + 0.18f64.sqrt());
        assert!((got.value - want).abs() < 1e-15);
        assert_eq!(activation_distance(&a, &a, 3, 0.95).unwrap().value, 0.0);
    }

    #[test]
    fn what_is_no_distribution_is_refused() {
        let good = [0.5, 0.5, 1.0, 0.0];
        assert!(zrf(&good, &good[..2], 2, 0.95).is_err());
        assert!(zrf(&good, &good, 3, 0.95).is_err());
        assert!(zrf(&good, &good, 0, 0.95).is_err());
        for bad in [
            [0.5, 0.6, 1.0, 0.0],
            [2.0, -1.0, 1.0, 0.0],
            [f64::NAN, 0.5, 1.0, 0.0],
        ] {
            let at = |e: Result<Interval>| matches!(e, Err(Error::BadDistribution { row: 0, .. }));
            assert!(at(zrf(&bad, &good, 2, 0.95)) && at(zrf(&good, &bad, 2, 0.95)));
        }
    }
}
