//! The Weibull distribution, fitted to the tail of distances.

use super::check;
use crate::{Error, Result};

/// `P(X ≤ x) = 1 − exp(−(x/scale)^shape)` for `x ≥ 0`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weibull {
    /// Shape k.
    pub shape: f64,
    /// Scale λ.
    pub scale: f64,
}

impl Weibull {
    /// The maximum-likelihood fit. The shape is the root of
    /// `Σ xᵏ ln x / Σ xᵏ − 1/k − mean ln x`, which rises in `k`: Newton's steps, kept inside a
    /// bracket.
    ///
    /// # Errors
    /// [`Error::SampleTooSmall`] for fewer than 2 values, [`Error::SampleNotFinite`] for values
    /// that are not above 0, [`Error::NoVariation`] where all are the same.
    pub fn fit(sample: &[f64]) -> Result<Weibull> {
        check(sample, 2)?;
        if let Some(index) = sample.iter().position(|x| *x <= 0.0) {
            let value = sample[index];
            return Err(Error::SampleNotFinite { index, value });
        }
        let largest = sample.iter().copied().fold(0.0, f64::max);
        // Logarithms of values scaled to at most 1, so that no power overflows.
        let logs: Vec<f64> = sample.iter().map(|x| (x / largest).ln()).collect();
        let n = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / n;
        let spread = logs.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / n;
        if spread.sqrt() < 1e-9 {
            return Err(Error::NoVariation);
        }
        let slope = |k: f64| {
            let (mut s0, mut s1, mut s2) = (0.0, 0.0, 0.0);
            for l in &logs {
                let power = (k * l).exp();
                s0 += power;
                s1 += power * l;
                s2 += power * l * l;
            }
            let value = s1 / s0 - 1.0 / k - mean;
            (value, s2 / s0 - (s1 / s0).powi(2) + 1.0 / (k * k))
        };
        // ln X has the deviation π/(k√6): a first guess, and a bracket grown around it.
        let guess = std::f64::consts::PI / (6.0 * spread).sqrt();
        let (mut low, mut high) = (guess, guess);
        while slope(low).0 > 0.0 {
            low /= 2.0;
        }
        while slope(high).0 < 0.0 {
            high *= 2.0;
        }
        let mut k = guess;
        for _ in 0..200 {
            let (value, derivative) = slope(k);
            match value > 0.0 {
                true => high = k,
                false => low = k,
            }
            let newton = k - value / derivative;
            let next = match newton > low && newton < high {
                true => newton,
                false => 0.5 * (low + high),
            };
            if (next - k).abs() <= 1e-13 * k {
                break;
            }
            k = next;
        }
        let power = logs.iter().map(|l| (k * l).exp()).sum::<f64>() / n;
        Ok(Weibull {
            shape: k,
            scale: largest * power.powf(1.0 / k),
        })
    }

    /// `P(X ≤ x)`.
    pub fn cdf(&self, x: f64) -> f64 {
        match x > 0.0 {
            true => -(-(x / self.scale).powf(self.shape)).exp_m1(),
            false => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    fn draws(n: usize, shape: f64, scale: f64) -> Vec<f64> {
        let mut s = Key::new(6, "weibull").stream();
        let draw = |u: f64| scale * (-(-u).ln_1p()).powf(1.0 / shape);
        (0..n).map(|_| draw(s.uniform())).collect()
    }

    #[test]
    fn the_fit_finds_the_shape_and_scale_it_was_drawn_with() {
        for (shape, scale) in [(0.7, 3.0), (1.0, 0.2), (4.0, 10.0), (60.0, 0.5)] {
            let fit = Weibull::fit(&draws(40_000, shape, scale)).expect("a fit");
            // The shape's standard error is 0.78 k/√n, the scale's 1.05 λ/(k√n).
            assert!((fit.shape / shape - 1.0).abs() < 0.016, "{fit:?}");
            assert!(
                (fit.scale / scale - 1.0).abs() < 0.021 / shape.min(1.0),
                "{fit:?}"
            );
        }
    }

    #[test]
    fn no_neighbour_is_more_likely() {
        let sample = draws(25, 2.5, 0.3);
        let fit = Weibull::fit(&sample).expect("a fit");
        let likelihood = |k: f64, l: f64| -> f64 {
            let log = |x: &f64| (k / l).ln() + (k - 1.0) * (x / l).ln() - (x / l).powf(k);
            sample.iter().map(log).sum()
        };
        let best = likelihood(fit.shape, fit.scale);
        for (a, b) in [(1.01, 1.0), (0.99, 1.0), (1.0, 1.01), (1.0, 0.99)] {
            assert!(likelihood(a * fit.shape, b * fit.scale) < best);
        }
    }

    #[test]
    fn the_distribution_at_known_points() {
        let w = Weibull {
            shape: 1.0,
            scale: 2.0,
        };
        assert!((w.cdf(2.0 * 2f64.ln()) - 0.5).abs() < 1e-15);
        assert_eq!((w.cdf(0.0), w.cdf(-1.0)), (0.0, 0.0));
        assert!(Weibull::fit(&[0.3; 30]).is_err());
        assert!(Weibull::fit(&[0.3, 0.0]).is_err());
    }
}
