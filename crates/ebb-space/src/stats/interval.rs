//! Confidence intervals.

use super::{check, check_level, mean, quantile, variance, welch_error};
use crate::special::{normal_quantile, t_quantile};
use crate::{Error, Key, Result};

/// An estimate with its two-sided confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The estimate.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Student's t interval of a mean, `x̄ ± t_{n−1} s/√n`.
///
/// # Errors
/// Fewer than two values, a value that is not finite, a level outside (0, 1).
pub fn mean_ci_t(sample: &[f64], level: f64) -> Result<Interval> {
    check(sample, 2)?;
    check_level(level)?;
    let n = sample.len() as f64;
    let half = t_quantile(0.5 + level / 2.0, n - 1.0) * (variance(sample) / n).sqrt();
    let value = mean(sample);
    Ok(Interval {
        value,
        low: value - half,
        high: value + half,
    })
}

/// Welch's t interval of a difference of two means, `x̄ − ȳ`, for independent samples of unequal
/// variances: the interval that belongs to [`welch`](super::welch).
///
/// # Errors
/// Fewer than two values in a sample, a value that is not finite, a level outside (0, 1), or no
/// variation at all.
pub fn difference_ci_welch(a: &[f64], b: &[f64], level: f64) -> Result<Interval> {
    check_level(level)?;
    let (squared_error, df) = welch_error(a, b)?;
    let half = t_quantile(0.5 + level / 2.0, df) * squared_error.sqrt();
    let value = mean(a) - mean(b);
    Ok(Interval {
        value,
        low: value - half,
        high: value + half,
    })
}

/// Wilson's score interval of a proportion `k/n`: never leaves [0, 1], and is honest at 0 and 1.
///
/// # Errors
/// `n` of 0, `k > n`, a level outside (0, 1).
pub fn proportion_ci_wilson(k: usize, n: usize, level: f64) -> Result<Interval> {
    check_level(level)?;
    if n == 0 || k > n {
        return Err(Error::BadProportion { k, n });
    }
    let z = normal_quantile(0.5 + level / 2.0);
    let (k, n) = (k as f64, n as f64);
    let p = k / n;
    let centre = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    // At the ends the formula is exact only up to rounding; the interval must hold the estimate.
    Ok(Interval {
        value: p,
        low: (centre - half).clamp(0.0, p),
        high: (centre + half).clamp(p, 1.0),
    })
}

/// Percentile bootstrap interval of any statistic (Efron 1979): `resamples` draws with
/// replacement under `key`. It is too short for fewer than some twenty values; prefer
/// [`mean_ci_t`] for the mean of a few seeds.
///
/// # Errors
/// Fewer than two values, a value that is not finite, a level outside (0, 1), no resamples.
pub fn bootstrap_ci(
    sample: &[f64],
    level: f64,
    resamples: usize,
    key: Key,
    statistic: impl Fn(&[f64]) -> f64,
) -> Result<Interval> {
    check(sample, 2)?;
    check_level(level)?;
    if resamples == 0 {
        return Err(Error::SampleTooSmall {
            needed: 1,
            found: 0,
        });
    }
    let mut stream = key.stream();
    let mut drawn = vec![0.0; sample.len()];
    let values: Vec<f64> = (0..resamples)
        .map(|_| {
            for x in &mut drawn {
                *x = sample[stream.below(sample.len() as u64) as usize];
            }
            statistic(&drawn)
        })
        .collect();
    let at = |q| quantile(&values, q);
    Ok(Interval {
        value: statistic(sample),
        low: at(0.5 - level / 2.0)?,
        high: at(0.5 + level / 2.0)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_matches_newcombe_1998_table_1() {
        for (k, n, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let got = proportion_ci_wilson(k, n, 0.95).unwrap();
            assert!(
                (got.low - low).abs() < 5.1e-5 && (got.high - high).abs() < 5.1e-5,
                "{got:?}"
            );
        }
        assert_eq!(proportion_ci_wilson(20, 20, 0.95).unwrap().high, 1.0);
        assert!(proportion_ci_wilson(0, 0, 0.95).is_err());
        assert!(proportion_ci_wilson(2, 1, 0.95).is_err());
    }

    #[test]
    fn t_interval_of_students_sleep_data() {
        // Differences of the two drugs; R: t.test(...)$conf.int = 0.7001142 2.4598858
        let d = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4];
        let got = mean_ci_t(&d, 0.95).unwrap();
        assert!((got.value - 1.58).abs() < 1e-12);
        assert!((got.low - 0.700_114_2).abs() < 1e-7 && (got.high - 2.459_885_8).abs() < 1e-7);
        assert_eq!(
            mean_ci_t(&[1.0], 0.95),
            Err(Error::SampleTooSmall {
                needed: 2,
                found: 1
            })
        );
        assert!(mean_ci_t(&[1.0, f64::NAN], 0.95).is_err());
        assert!(mean_ci_t(&[1.0, 2.0], 1.0).is_err());
    }

    #[test]
    fn welch_interval_of_students_sleep_data() {
        // R: t.test(extra ~ group, data = sleep)$conf.int = -3.3654832 0.2054832
        let a = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0];
        let b = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4];
        let got = difference_ci_welch(&a, &b, 0.95).unwrap();
        assert!((got.value + 1.58).abs() < 1e-12);
        assert!((got.low + 3.365_483_2).abs() < 1e-7 && (got.high - 0.205_483_2).abs() < 1e-7);
        assert_eq!(
            difference_ci_welch(&[1.0, 1.0], &[2.0, 2.0], 0.95),
            Err(Error::NoVariation)
        );
        assert!(difference_ci_welch(&a, &b[..1], 0.95).is_err());
        assert!(difference_ci_welch(&a, &b, 0.0).is_err());
    }

    #[test]
    fn bootstrap_of_a_mean_agrees_with_the_central_limit() {
        let key = Key::new(1, "bootstrap");
        let sample: Vec<f64> = (0..400).map(|i| key.normal(i)).collect();
        let got = bootstrap_ci(&sample, 0.9, 4000, key.sub("draws"), mean).unwrap();
        let se = (variance(&sample) * 399.0 / 400.0 / 400.0).sqrt();
        for (got, z) in [(got.low, -1.6449), (got.high, 1.6449)] {
            assert!(((got - mean(&sample)) / se - z).abs() < 0.12, "{got}");
        }
        assert_eq!(
            got,
            bootstrap_ci(&sample, 0.9, 4000, key.sub("draws"), mean).unwrap()
        );
    }
}
