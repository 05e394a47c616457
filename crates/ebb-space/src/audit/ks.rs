//! Forget quality: are two models' answers to the records distributed alike?
//!
//! **What it does.** Kolmogorov's and Smirnov's distance `D` between the truth ratios (or any score)
//! that the unlearned model gives the records and those that a model trained without them gives.
//! **Source.** Maini et al., *TOFU: a task of fictitious unlearning*, 2024 (card X17), who publish the
//! p-value. Exact p: the share of all arrangements of the pooled values whose distance is as great, by
//! counting lattice paths, ties included (Schröer & Trenkler, Comput. Stat. Data Anal. 1995); for large
//! samples Kolmogorov's limit (Smirnov 1948).
//! **Equation.** `D = sup_x |F_unlearned(x) − F_retrained(x)|`
//! **Use it** with `D` and its interval: those say how far apart, whatever the sample's size. **Not**
//! with p alone: a great p of few records is no evidence that the models are alike, and a small one of
//! many may stand for a `D` nobody minds. A D near 0 needs the interval's upper end to be small.

use super::bootstrap::Bootstrap;
use crate::Result;
use crate::stats::{Interval, check};

/// How far apart two samples are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ForgetQuality {
    /// Greatest distance of the two distribution functions, in [0, 1]; 0 is best. Its interval is as
    /// wide as the difference of the functions strays anywhere in the bootstrap, since the distances of
    /// resamples themselves are too great: it holds at 0 too, and is rather too wide elsewhere.
    pub d: Interval,
    /// Probability of a distance as great if both came from one distribution.
    pub p: f64,
    /// Whether p is exact, given the values; otherwise it is the limit for large samples.
    pub exact: bool,
}

/// Up to this many cells of the lattice, p is exact.
const EXACT_CELLS: usize = 10_000_000;

/// Two-sample comparison of the scores that two models give the records.
///
/// # Errors
/// An empty sample, a value that is not finite, a bad bootstrap.
pub fn forget_quality(
    unlearned: &[f64],
    retrained: &[f64],
    bootstrap: &Bootstrap,
) -> Result<ForgetQuality> {
    check(unlearned, 1)?;
    check(retrained, 1)?;
    let sorted = |sample: &[f64]| {
        let mut sample = sample.to_vec();
        sample.sort_unstable_by(f64::total_cmp);
        sample
    };
    let (a, b) = (sorted(unlearned), sorted(retrained));
    let (m, n) = (a.len(), b.len());
    let jumps = jumps(&a, &b);
    // An integer, so that equal distances are equal.
    let apart = |(i, j): &(usize, usize)| (*i as i128 * n as i128 - *j as i128 * m as i128).abs();
    let steps = jumps.iter().map(apart).max().unwrap_or(0);
    let d = steps as f64 / (m as f64 * n as f64);
    let exact = m.checked_mul(n).is_some_and(|cells| cells <= EXACT_CELLS);
    let p = match exact {
        true => exact_p(m, n, &jumps, steps as i64),
        false => limit_p(d * (m as f64 / (m as f64 + n as f64) * n as f64).sqrt()),
    };
    let reach = bootstrap.quantile([m, n], |[i, j]| {
        let (f, g) = (moved(m, i), moved(n, j));
        let strayed = jumps.iter().map(|(i, j)| (f[*i] - g[*j]).abs());
        strayed.fold(0.0, f64::max)
    })?;
    let d = Interval {
        value: d,
        low: (d - reach).max(0.0),
        high: (d + reach).min(1.0),
    };
    Ok(ForgetQuality { d, p, exact })
}

/// How many values of either sorted sample are at most `x`, for each `x` that occurs.
fn jumps(a: &[f64], b: &[f64]) -> Vec<(usize, usize)> {
    let (mut i, mut j) = (0, 0);
    let mut jumps = Vec::new();
    while i < a.len() || j < b.len() {
        let next = |s: &[f64], at: usize| s.get(at).copied().unwrap_or(f64::INFINITY);
        let x = next(a, i).min(next(b, j));
        i += a[i..].iter().take_while(|v| **v <= x).count();
        j += b[j..].iter().take_while(|v| **v <= x).count();
        jumps.push((i, j));
    }
    jumps
}

/// For `k` in `0..=n`: the share of the drawn places below `k`, less the share of all.
fn moved(n: usize, drawn: &[usize]) -> Vec<f64> {
    let mut counts = vec![0i64; n + 1];
    for &place in drawn {
        counts[place + 1] += 1;
    }
    let mut below = 0;
    (counts.iter().enumerate())
        .map(|(k, count)| {
            below += count;
            (below - k as i64) as f64 / n as f64
        })
        .collect()
}

/// The share of the arrangements of the pooled values that come as far apart as `steps`.
fn exact_p(m: usize, n: usize, jumps: &[(usize, usize)], steps: i64) -> f64 {
    if steps == 0 {
        return 1.0;
    }
    // Within a run of equal values the distribution functions jump at once: only its end counts.
    let mut last = vec![false; m + n + 1];
    jumps.iter().for_each(|(i, j)| last[i + j] = true);
    let far = |i: usize, j: usize| {
        last[i + j] && (i as i64 * n as i64 - j as i64 * m as i64).abs() >= steps
    };
    // touched[j] of row i: of the orders of i values of the one and j of the other, the share that came
    // so far. All terms are positive, so that the smallest p keep their digits.
    let mut touched = vec![0.0f64; n + 1];
    for i in 0..=m {
        for j in 0..=n {
            touched[j] = if far(i, j) {
                1.0
            } else if i + j == 0 {
                0.0
            } else {
                let left = if j > 0 { touched[j - 1] } else { 0.0 };
                let (i, j, up) = (i as f64, j as f64, touched[j]);
                (i * up + j * left) / (i + j)
            };
        }
    }
    touched[n].min(1.0)
}

/// `2 Σ_k (−1)^(k−1) e^(−2 k² λ²)`.
fn limit_p(lambda: f64) -> f64 {
    // Below this the sum is 1 to the last bit and converges slowly.
    if lambda < 0.2 {
        return 1.0;
    }
    let term = |k: i32| {
        let sign = if k % 2 == 1 { 2.0 } else { -2.0 };
        sign * (-2.0 * f64::from(k * k) * lambda * lambda).exp()
    };
    (1..=30).map(term).sum::<f64>().clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    fn bootstrap(resamples: usize) -> Bootstrap {
        Bootstrap {
            level: 0.95,
            resamples,
            key: Key::new(5, "ks"),
        }
    }

    fn drawn(name: &str, n: u64, shift: f64, grid: f64) -> Vec<f64> {
        let key = Key::new(0, name);
        let value = |i| ((key.normal(i) + shift) * grid).round() / grid;
        (0..n).map(value).collect()
    }

    /// The distance over all points of both samples, by its definition.
    fn brute(a: &[f64], b: &[f64]) -> f64 {
        let below =
            |s: &[f64], x: f64| s.iter().filter(|v| **v <= x).count() as f64 / s.len() as f64;
        let points = a.iter().chain(b);
        points
            .map(|x| (below(a, *x) - below(b, *x)).abs())
            .fold(0.0, f64::max)
    }

    #[test]
    fn the_distance_is_that_over_all_points() {
        for (m, n, shift, grid) in [(13, 8, 0.0, 1e9), (40, 55, 0.5, 2.0), (1, 9, -1.0, 1.0)] {
            let (a, b) = (drawn("a", m, shift, grid), drawn("b", n, 0.0, grid));
            let got = forget_quality(&a, &b, &bootstrap(50)).unwrap();
            assert!((got.d.value - brute(&a, &b)).abs() < 1e-15, "{got:?}");
            assert!(got.d.low <= got.d.value && got.d.value <= got.d.high);
        }
    }

    #[test]
    fn exact_p_is_the_share_of_all_arrangements() {
        // Every choice of which of the pooled values are `a`'s, ties among them.
        for (m, grid) in [(4, 1e9), (5, 2.0), (3, 1.0), (2, 1e9)] {
            let (a, b) = (drawn("a", m, 0.7, grid), drawn("b", 9 - m, 0.0, grid));
            let pooled = [a.clone(), b.clone()].concat();
            let observed = brute(&a, &b);
            let (mut hits, mut all) = (0, 0);
            for bits in 0u32..1 << 9 {
                if u64::from(bits.count_ones()) != m {
                    continue;
                }
                let side = |one: u32| -> Vec<f64> {
                    let of = |i: &usize| bits >> i & 1 == one;
                    (0..9).filter(of).map(|i| pooled[i]).collect()
                };
                all += 1;
                hits += i32::from(brute(&side(1), &side(0)) >= observed - 1e-12);
            }
            let got = forget_quality(&a, &b, &bootstrap(1)).unwrap();
            let want = f64::from(hits) / f64::from(all);
            assert!(got.exact && (got.p - want).abs() < 1e-14, "{got:?} {want}");
        }
    }

    #[test]
    fn samples_apart_have_the_smallest_p_of_all() {
        // Two of the C(2n, n) arrangements; n = 20: 2/137846528820.
        let a: Vec<f64> = (0..20).map(f64::from).collect();
        let b: Vec<f64> = (100..120).map(f64::from).collect();
        let got = forget_quality(&a, &b, &bootstrap(10)).unwrap();
        assert_eq!(got.d.value, 1.0);
        assert!((got.p / (2.0 / 137_846_528_820.0) - 1.0).abs() < 1e-12);
        let same = forget_quality(&a, &a, &bootstrap(10)).unwrap();
        assert_eq!((same.d.value, same.p), (0.0, 1.0));
    }

    #[test]
    fn the_limit_meets_the_exact_p_and_published_quantiles() {
        // Smirnov's table: the 5 % point is 1.3581, the 1 % point 1.6276.
        assert!((limit_p(1.3581) - 0.05).abs() < 5e-6);
        assert!((limit_p(1.6276) - 0.01).abs() < 2e-6);
        assert!((limit_p(0.2) - 1.0).abs() < 1e-12);
        let (a, b) = (drawn("a", 2500, 0.05, 1e9), drawn("b", 3000, 0.0, 1e9));
        let got = forget_quality(&a, &b, &bootstrap(1)).unwrap();
        let limit = limit_p(got.d.value * (7.5e6f64 / 5500.0).sqrt());
        assert!(got.exact && (got.p - limit).abs() < 0.02, "{got:?} {limit}");
        let (a, b) = (drawn("a", 4000, 0.05, 1e9), drawn("b", 3000, 0.0, 1e9));
        assert!(!forget_quality(&a, &b, &bootstrap(1)).unwrap().exact);
    }

    #[test]
    fn the_interval_covers_the_true_distance() {
        // Normal samples a shift apart: D = 2 Φ(shift/2) − 1.
        for (shift, d) in [
            (0.0, 0.0),
            (0.05, 0.019_946_7),
            (0.2, 0.079_655_7),
            (0.5, 0.197_412_7),
            (1.5, 0.546_745_3),
            (3.0, 0.866_385_6),
        ] {
            let trials = 400;
            let held = (0..trials).filter(|trial| {
                let a = drawn(&format!("cover a {trial}"), 80, shift, 1e9);
                let b = drawn(&format!("cover b {trial}"), 60, 0.0, 1e9);
                let got = forget_quality(&a, &b, &bootstrap(300)).unwrap().d;
                got.low <= d && d <= got.high
            });
            let share = held.count() as f64 / f64::from(trials);
            // At least the level; three standard errors of 400 trials are 0.033.
            assert!(share >= 0.917, "{shift}: {share}");
        }
    }

    #[test]
    fn what_is_no_sample_is_refused() {
        assert!(forget_quality(&[], &[1.0], &bootstrap(1)).is_err());
        assert!(forget_quality(&[1.0], &[f64::NAN], &bootstrap(1)).is_err());
        assert!(forget_quality(&[1.0], &[1.0], &bootstrap(0)).is_err());
    }
}
