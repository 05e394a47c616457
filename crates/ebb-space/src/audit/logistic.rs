//! Logistic regression on one number, by Newton's method in f64.
//!
//! **Equation.** `min_{w,b} Σ_i c_i ln(1 + e^(−y_i (w x_i + b))) + ½ w²`, with `c_i` such that both
//! classes weigh the same, and half of the examples each. The quadratic term keeps the slope finite
//! where the classes do not overlap; these are the defaults of the usual libraries.

use crate::Result;
use crate::stats::{check, mean};

/// A fitted curve.
pub(super) struct Logistic {
    slope: f64,
    intercept: f64,
}

impl Logistic {
    /// Fits members (1) against others (0).
    ///
    /// # Errors
    /// An empty class, or a value that is not finite.
    pub(super) fn fit(members: &[f64], others: &[f64]) -> Result<Logistic> {
        check(members, 1)?;
        check(others, 1)?;
        let half = (members.len() + others.len()) as f64 / 2.0;
        let (c1, c0) = (half / members.len() as f64, half / others.len() as f64);
        // Around the mean the two parameters hardly depend on each other.
        let centre = 0.5 * (mean(members) + mean(others));
        let points: Vec<(f64, f64, f64)> = (members.iter().map(|x| (x - centre, 1.0, c1)))
            .chain(others.iter().map(|x| (x - centre, -1.0, c0)))
            .collect();
        let loss = |w: f64, b: f64| {
            let each = points
                .iter()
                .map(|(x, y, c)| c * softplus(-y * (w * x + b)));
            each.sum::<f64>() + 0.5 * w * w
        };
        let (mut w, mut b) = (0.0, 0.0);
        let mut now = loss(w, b);
        // Convex, and every step lowers it: ten steps are usual.
        for _ in 0..200 {
            let (mut gw, mut gb, mut hww, mut hwb, mut hbb) = (w, 0.0, 1.0, 0.0, 0.0);
            for (x, y, c) in &points {
                let miss = sigmoid(-y * (w * x + b));
                let bend = c * miss * (1.0 - miss);
                gw -= c * y * miss * x;
                gb -= c * y * miss;
                hww += bend * x * x;
                hwb += bend * x;
                hbb += bend;
            }
            let det = hww * hbb - hwb * hwb;
            let (sw, sb) = ((hbb * gw - hwb * gb) / det, (hww * gb - hwb * gw) / det);
            let lower = (0..50).map(|k| 0.5f64.powi(k)).find_map(|t| {
                let (w, b) = (w - t * sw, b - t * sb);
                let at = loss(w, b);
                (at < now).then_some((w, b, at))
            });
            let Some(lower) = lower else { break };
            (w, b, now) = lower;
        }
        Ok(Logistic {
            slope: w,
            intercept: b - w * centre,
        })
    }

    /// Whether `x` is rather a member's.
    pub(super) fn is_member(&self, x: f64) -> bool {
        self.slope * x + self.intercept > 0.0
    }
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f64) -> f64 {
    match x >= 0.0 {
        true => 1.0 / (1.0 + (-x).exp()),
        false => x.exp() / (1.0 + x.exp()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    /// Least value of a convex function, by thirds.
    fn lowest(mut low: f64, mut high: f64, f: &dyn Fn(f64) -> f64) -> f64 {
        for _ in 0..200 {
            let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
            match f(a) < f(b) {
                true => high = b,
                false => low = a,
            }
        }
        0.5 * (low + high)
    }

    #[test]
    fn the_fit_is_the_minimum_that_a_search_finds() {
        let key = Key::new(6, "logistic");
        let overlapping: Vec<f64> = (0..30).map(|i| key.normal(i) + 0.8).collect();
        let around: Vec<f64> = (30..50).map(|i| key.normal(i)).collect();
        for (members, others) in [
            (overlapping.as_slice(), around.as_slice()),
            (&[3.0, 4.0], &[0.0, 1.0, 1.5]), // no overlap
            (&[1.0, 1.0], &[1.0]),           // nothing to tell
        ] {
            let half = (members.len() + others.len()) as f64 / 2.0;
            let loss = |w: f64, b: f64| {
                let of = |xs: &[f64], y: f64| {
                    let each = xs.iter().map(|x| (1.0 + (-y * (w * x + b)).exp()).ln());
                    each.sum::<f64>() * half / xs.len() as f64
                };
                of(members, 1.0) + of(others, -1.0) + 0.5 * w * w
            };
            let best = |w: f64| lowest(-20.0, 20.0, &|b| loss(w, b));
            let w = lowest(-10.0, 10.0, &|w| loss(w, best(w)));
            let fit = Logistic::fit(members, others).unwrap();
            assert!((fit.slope - w).abs() < 1e-6, "{} {w}", fit.slope);
            assert!((fit.intercept - best(w)).abs() < 1e-6);
            // Sharper than the search: the gradient, by differences, is nothing.
            let slope = |dw: f64, db: f64| {
                let at = |s: f64| loss(fit.slope + s * dw, fit.intercept + s * db);
                (at(1e-5) - at(-1e-5)) / 2e-5
            };
            assert!(slope(1.0, 0.0).abs() < 1e-8 && slope(0.0, 1.0).abs() < 1e-8);
        }
    }

    #[test]
    fn classes_weigh_the_same_whatever_their_size() {
        let (few, many) = ([1.0], [-1.0; 50]);
        let fit = Logistic::fit(&few, &many).unwrap();
        assert!(fit.intercept.abs() < 1e-9 && fit.slope > 1.0);
        assert!(fit.is_member(0.1) && !fit.is_member(-0.1));
        assert!(Logistic::fit(&[], &few).is_err());
        assert!(Logistic::fit(&[f64::NAN], &few).is_err());
        // Far from 0, and huge.
        let fit = Logistic::fit(&[1e9 + 1.0], &[1e9 - 1.0]).unwrap();
        assert!(fit.is_member(1e9 + 0.5) && !fit.is_member(1e9 - 0.5));
        let fit = Logistic::fit(&[1e12], &[-1e12]).unwrap();
        assert!(fit.is_member(1e11) && !fit.is_member(-1e11));
    }
}
