//! Tests of a hypothesis.

use super::{check, mean, variance, welch_error};
use crate::special::t_cdf;
use crate::{Error, Key, Result};

/// Which deviation from "no difference" counts as evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alternative {
    /// The difference (or correlation) is positive.
    Greater,
    /// It is negative.
    Less,
    /// It is not zero.
    TwoSided,
}

/// The outcome of a test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Test {
    /// The statistic: t, or Spearman's ρ.
    pub statistic: f64,
    /// Degrees of freedom, where the test has them.
    pub df: Option<f64>,
    /// Probability, without an effect, of a statistic at least as extreme.
    pub p: f64,
}

/// Up to this many pairs all sign patterns are enumerated.
const EXACT_PAIRS: usize = 30;
/// Sign patterns drawn beyond that.
const DRAWN_PATTERNS: u64 = 100_000;

/// Paired sign-flip permutation test of `Σ dᵢ = 0` (Fisher 1935): the share of the `2ⁿ` sign
/// patterns whose sum is at least as extreme as the one observed. Exact for up to 30 pairs; for
/// more, `(1 + hits)/(1 + 100 000)` over patterns drawn under a fixed key.
///
/// # Errors
/// No differences, or one that is not finite.
pub fn paired_sign_flip(differences: &[f64], alternative: Alternative) -> Result<f64> {
    check(differences, 1)?;
    let observed: f64 = differences.iter().sum();
    // Patterns that tie with the observed sum must count as ties in spite of rounding.
    let slack = 1e-12 * differences.iter().map(|d| d.abs()).sum::<f64>();
    let up = observed - slack; // a sum is extreme upwards from here,
    let down = observed + slack; // and downwards from here
    let far = observed.abs() - slack;
    if differences.len() <= EXACT_PAIRS {
        // Every sum is one of the left half plus one of the right half.
        let (left, right) = differences.split_at(differences.len() / 2);
        let left = signed_sums(left);
        let mut right = signed_sums(right);
        right.sort_unstable_by(f64::total_cmp);
        let at_least = |bound: f64| -> u64 {
            let count = |l: &f64| right.len() - right.partition_point(|r| l + r < bound);
            left.iter().map(|l| count(l) as u64).sum()
        };
        let at_most = |bound: f64| -> u64 {
            left.iter()
                .map(|l| right.partition_point(|r| l + r <= bound) as u64)
                .sum()
        };
        let all = left.len() as u64 * right.len() as u64;
        let hits = match alternative {
            Alternative::Greater => at_least(up),
            Alternative::Less => at_most(down),
            Alternative::TwoSided if far <= 0.0 => all,
            Alternative::TwoSided => at_least(far) + at_most(-far),
        };
        return Ok(hits as f64 / all as f64);
    }
    let mut stream = Key::new(0, "paired sign flip").stream();
    let mut hits = 0u64;
    for _ in 0..DRAWN_PATTERNS {
        let mut sum = 0.0;
        for group in differences.chunks(64) {
            let signs = stream.next_u64();
            for (bit, d) in group.iter().enumerate() {
                sum += if signs >> bit & 1 == 1 { *d } else { -d };
            }
        }
        hits += u64::from(match alternative {
            Alternative::Greater => sum >= up,
            Alternative::Less => sum <= down,
            Alternative::TwoSided => sum.abs() >= far,
        });
    }
    Ok((1 + hits) as f64 / (1 + DRAWN_PATTERNS) as f64)
}

/// All `2ⁿ` signed sums of a few numbers.
fn signed_sums(numbers: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0];
    for d in numbers {
        sums = sums.iter().flat_map(|s| [s + d, s - d]).collect();
    }
    sums
}

/// The least p that [`paired_sign_flip`] can return for `n` pairs: a study whose level lies below
/// it cannot succeed, whatever it measures.
pub fn min_reachable_p(n: usize, alternative: Alternative) -> f64 {
    if n > EXACT_PAIRS {
        return 1.0 / (1 + DRAWN_PATTERNS) as f64;
    }
    let extreme = if alternative == Alternative::TwoSided {
        2.0
    } else {
        1.0
    };
    (extreme / (1u64 << n) as f64).min(1.0)
}

/// Student's paired t test of `E d = 0`.
///
/// # Errors
/// Fewer than two differences, one that is not finite, or no variation at all.
pub fn paired_t(differences: &[f64], alternative: Alternative) -> Result<Test> {
    check(differences, 2)?;
    let n = differences.len() as f64;
    t_test(
        mean(differences),
        variance(differences) / n,
        n - 1.0,
        alternative,
    )
}

/// Welch's t test of `E a = E b` for independent samples of unequal variances.
///
/// # Errors
/// Fewer than two values in a sample, one that is not finite, or no variation at all.
pub fn welch(a: &[f64], b: &[f64], alternative: Alternative) -> Result<Test> {
    let (squared_error, df) = welch_error(a, b)?;
    t_test(mean(a) - mean(b), squared_error, df, alternative)
}

fn t_test(difference: f64, variance: f64, df: f64, alternative: Alternative) -> Result<Test> {
    if variance <= 0.0 {
        return Err(Error::NoVariation);
    }
    let t = difference / variance.sqrt();
    let p = match alternative {
        Alternative::Greater => t_cdf(-t, df),
        Alternative::Less => t_cdf(t, df),
        Alternative::TwoSided => 2.0 * t_cdf(-t.abs(), df),
    };
    Ok(Test {
        statistic: t,
        df: Some(df),
        p,
    })
}

/// Holm's step-down adjustment of several p values, in the order given: rejecting those at or
/// below α keeps the chance of any false rejection at α.
///
/// # Errors
/// A value outside [0, 1].
pub fn holm(p: &[f64]) -> Result<Vec<f64>> {
    if let Some(&bad) = p.iter().find(|p| !(0.0..=1.0).contains(*p)) {
        return Err(Error::BadLevel(bad));
    }
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&i, &j| p[i].total_cmp(&p[j]));
    let mut adjusted = vec![0.0; p.len()];
    let mut running = 0.0f64;
    for (place, &i) in order.iter().enumerate() {
        running = running.max((p.len() - place) as f64 * p[i]).min(1.0);
        adjusted[i] = running;
    }
    Ok(adjusted)
}

#[cfg(test)]
mod tests {
    use super::Alternative::{Greater, Less, TwoSided};
    use super::*;

    /// Darwin's plants, in eighths of an inch; Fisher, The Design of Experiments, section 21.
    const DARWIN: [f64; 15] = [
        49., -67., 8., 16., 6., 23., 28., 41., 14., 29., 56., 24., 75., 60., -48.,
    ];

    #[test]
    fn fishers_own_example() {
        assert_eq!(paired_sign_flip(&DARWIN, Greater).unwrap(), 863.0 / 32768.0);
        assert_eq!(
            paired_sign_flip(&DARWIN, TwoSided).unwrap(),
            1726.0 / 32768.0
        );
        let negated = DARWIN.map(|d| -d);
        assert_eq!(paired_sign_flip(&negated, Less).unwrap(), 863.0 / 32768.0);
    }

    #[test]
    fn enumeration_over_all_patterns_agrees_with_ties_and_zeros() {
        let d = [0.1, 0.2, 0.3, 0.0, -0.1, 0.3, 0.7]; // 0.1 + 0.2 ≠ 0.3 in f64
        let tenths = [1, 2, 3, 0, -1, 3, 7];
        let observed: i32 = tenths.iter().sum();
        for alternative in [Greater, Less, TwoSided] {
            let hits = (0..128u32).filter(|bits| {
                let sign = |i: usize| if bits >> i & 1 == 1 { 1 } else { -1 };
                let sum: i32 = tenths.iter().enumerate().map(|(i, d)| sign(i) * d).sum();
                match alternative {
                    Greater => sum >= observed,
                    Less => sum <= observed,
                    TwoSided => sum.abs() >= observed.abs(),
                }
            });
            let want = hits.count() as f64 / 128.0;
            assert_eq!(
                paired_sign_flip(&d, alternative).unwrap(),
                want,
                "{alternative:?}"
            );
        }
        assert_eq!(paired_sign_flip(&[0.0, 0.0], TwoSided).unwrap(), 1.0);
        assert_eq!(paired_sign_flip(&[1.0, -1.0], TwoSided).unwrap(), 1.0);
    }

    #[test]
    fn the_least_p_is_reached_by_unanimous_differences() {
        for n in [1, 2, 5, 8, 20, 30] {
            let d: Vec<f64> = (1..=n).map(|i| i as f64).collect();
            for alternative in [Greater, TwoSided] {
                let p = paired_sign_flip(&d, alternative).unwrap();
                assert_eq!(p, min_reachable_p(n, alternative), "{n}");
            }
        }
        assert_eq!(min_reachable_p(5, Greater), 0.03125);
    }

    #[test]
    fn beyond_enumeration_the_drawn_p_meets_the_normal_limit() {
        let key = Key::new(8, "many pairs");
        let d: Vec<f64> = (0..200).map(|i| key.normal(i) + 0.1).collect();
        let z = d.iter().sum::<f64>() / d.iter().map(|d| d * d).sum::<f64>().sqrt();
        let limit = t_cdf(-z, 1e9);
        let p = paired_sign_flip(&d, Greater).unwrap();
        assert!((p - limit).abs() < 0.01 * limit.sqrt(), "{p} {limit}");
    }

    #[test]
    fn t_tests_match_r_on_students_sleep_data() {
        let a = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0];
        let b = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4];
        let d: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
        let paired = paired_t(&d, TwoSided).unwrap();
        assert!((paired.statistic + 4.0621).abs() < 5e-5 && (paired.p - 0.002833).abs() < 5e-7);
        let welch = welch(&a, &b, TwoSided).unwrap();
        assert!((welch.statistic + 1.8608).abs() < 5e-5);
        assert!((welch.df.unwrap() - 17.776).abs() < 5e-4 && (welch.p - 0.07939).abs() < 5e-6);
        let less = paired_t(&d, Less).unwrap();
        assert!((2.0 * less.p - paired.p).abs() < 1e-15);
        assert!((less.p + paired_t(&d, Greater).unwrap().p - 1.0).abs() < 1e-14);
        assert_eq!(paired_t(&[1.0, 1.0], TwoSided), Err(Error::NoVariation));
    }

    #[test]
    fn holm_by_hand() {
        let got = holm(&[0.01, 0.04, 0.03, 0.005, 0.9]).unwrap();
        let want = [0.04, 0.09, 0.09, 0.025, 0.9];
        assert!(
            got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-15),
            "{got:?}"
        );
        assert!(holm(&[1.5]).is_err() && holm(&[f64::NAN]).is_err());
        assert!(holm(&[]).unwrap().is_empty());
    }
}
