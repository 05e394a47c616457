//! Statistics of ranks.

use super::{Alternative, Test, check};
use crate::{Error, Key, Result};

/// The `q`-quantile of a sample, linear between order statistics (type 7, the default of NumPy
/// and R).
///
/// # Errors
/// An empty sample, a value that is not finite, `q` outside [0, 1].
pub fn quantile(sample: &[f64], q: f64) -> Result<f64> {
    check(sample, 1)?;
    if !(0.0..=1.0).contains(&q) {
        return Err(Error::BadLevel(q));
    }
    let mut sorted = sample.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = q * (sorted.len() - 1) as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    let high = sorted[(low + 1).min(sorted.len() - 1)];
    Ok(sorted[low] + part * (high - sorted[low]))
}

/// Ranks from 1, ties sharing the mean of their places.
pub fn ranks(sample: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..sample.len()).collect();
    order.sort_by(|&i, &j| sample[i].total_cmp(&sample[j]));
    let mut ranks = vec![0.0; sample.len()];
    let mut start = 0;
    for tied in order.chunk_by(|&i, &j| sample[i] == sample[j]) {
        let rank = start as f64 + (tied.len() + 1) as f64 / 2.0;
        tied.iter().for_each(|&i| ranks[i] = rank);
        start += tied.len();
    }
    ranks
}

/// Up to this many pairs all permutations are enumerated.
const EXACT_PAIRS: usize = 8;
/// Permutations drawn beyond that.
const DRAWN_PERMUTATIONS: u64 = 20_000;

/// Spearman's rank correlation with its permutation p: exact for up to 8 pairs; for more,
/// `(1 + hits)/(1 + 20 000)` over permutations drawn under a fixed key.
///
/// # Errors
/// Samples of different lengths or of fewer than 3 pairs, a value that is not finite, a sample
/// without variation.
pub fn spearman(x: &[f64], y: &[f64], alternative: Alternative) -> Result<Test> {
    check(x, 3)?;
    check(y, 3)?;
    if x.len() != y.len() {
        return Err(Error::Length {
            what: "the second sample",
            expected: x.len(),
            found: y.len(),
        });
    }
    let centred = |sample: &[f64]| -> Vec<f64> {
        let middle = (sample.len() + 1) as f64 / 2.0;
        ranks(sample).into_iter().map(|r| r - middle).collect()
    };
    let (x, mut y) = (centred(x), centred(y));
    let dot = |y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let size = (dot(&x) * y.iter().map(|y| y * y).sum::<f64>()).sqrt();
    if size <= 0.0 {
        return Err(Error::NoVariation);
    }
    let observed = dot(&y);
    // Centred ranks are multiples of 1/2, so products are multiples of 1/4 and sums are exact.
    let extreme = |dot: f64| match alternative {
        Alternative::Greater => dot >= observed,
        Alternative::Less => dot <= observed,
        Alternative::TwoSided => dot.abs() >= observed.abs(),
    };
    let p = if y.len() <= EXACT_PAIRS {
        let (mut hits, mut all) = (0u64, 0u64);
        each_permutation(&mut y, &mut |y| {
            hits += u64::from(extreme(dot(y)));
            all += 1;
        });
        hits as f64 / all as f64
    } else {
        let mut stream = Key::new(0, "spearman").stream();
        let mut hits = 0u64;
        for _ in 0..DRAWN_PERMUTATIONS {
            for i in (1..y.len()).rev() {
                y.swap(i, stream.below(i as u64 + 1) as usize);
            }
            hits += u64::from(extreme(dot(&y)));
        }
        (1 + hits) as f64 / (1 + DRAWN_PERMUTATIONS) as f64
    };
    Ok(Test {
        statistic: observed / size,
        df: None,
        p,
    })
}

/// Heap's algorithm, without recursion.
fn each_permutation(items: &mut [f64], visit: &mut impl FnMut(&[f64])) {
    let mut counters = vec![0; items.len()];
    visit(items);
    let mut i = 1;
    while i < items.len() {
        if counters[i] < i {
            items.swap(if i % 2 == 0 { 0 } else { counters[i] }, i);
            visit(items);
            counters[i] += 1;
            i = 1;
        } else {
            counters[i] = 0;
            i += 1;
        }
    }
}

/// Area under the ROC curve: the probability that a positive scores above a negative, ties
/// counting one half (the Mann–Whitney form).
///
/// # Errors
/// Lengths that differ, a score that is not finite, or one class only.
pub fn auroc(scores: &[f64], positive: &[bool]) -> Result<f64> {
    check(scores, 2)?;
    if scores.len() != positive.len() {
        let (expected, found) = (scores.len(), positive.len());
        return Err(Error::Length {
            what: "the list of positives",
            expected,
            found,
        });
    }
    let positives = positive.iter().filter(|p| **p).count() as f64;
    let negatives = scores.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return Err(Error::NoVariation);
    }
    let ranks = ranks(scores);
    let sum: f64 = ranks
        .iter()
        .zip(positive)
        .filter(|(_, p)| **p)
        .map(|(r, _)| r)
        .sum();
    Ok((sum - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_share_ties() {
        assert_eq!(
            ranks(&[3.0, 1.0, 3.0, -2.0, 3.0]),
            [4.0, 2.0, 4.0, 1.0, 4.0]
        );
        assert_eq!(ranks(&[0.0, -0.0]), [1.5, 1.5]);
    }

    #[test]
    fn spearman_matches_published_and_closed_values() {
        // IQ against hours of television, the usual textbook table: rho = −29/165.
        let iq = [106., 100., 86., 101., 99., 103., 97., 113., 112., 110.];
        let tv = [7., 27., 2., 50., 28., 29., 20., 12., 6., 17.];
        let got = spearman(&iq, &tv, Alternative::TwoSided).unwrap();
        assert!((got.statistic + 29.0 / 165.0).abs() < 1e-12);
        assert!((got.p - 0.6272).abs() < 0.015, "{got:?}"); // t approximation: 0.6272
        let up: Vec<f64> = (0..7).map(f64::from).collect();
        let got = spearman(&up, &up, Alternative::Greater).unwrap();
        assert_eq!((got.statistic, got.p), (1.0, 1.0 / 5040.0));
        let down: Vec<f64> = up.iter().map(|x| -x).collect();
        assert_eq!(
            spearman(&up, &down, Alternative::TwoSided).unwrap().p,
            2.0 / 5040.0
        );
        // n = 4, rho = 0.8: the identity and three neighbours of it among 24 (Kendall's tables).
        let got = spearman(&[1., 2., 3., 4.], &[1., 2., 4., 3.], Alternative::Greater).unwrap();
        assert!((got.statistic - 0.8).abs() < 1e-15 && (got.p - 4.0 / 24.0).abs() < 1e-15);
        assert_eq!(
            spearman(&up, &[1.0; 7], Alternative::Less),
            Err(Error::NoVariation)
        );
    }

    #[test]
    fn auroc_matches_the_count_of_pairs() {
        let key = Key::new(0, "auroc");
        let scores: Vec<f64> = (0..300).map(|i| (key.draw(i) % 23) as f64).collect();
        let positive: Vec<bool> = (0..300)
            .map(|i| key.draw(1000 + i).is_multiple_of(3))
            .collect();
        let (mut wins, mut pairs) = (0.0, 0.0);
        for (s, _) in scores.iter().zip(&positive).filter(|(_, p)| **p) {
            for (t, _) in scores.iter().zip(&positive).filter(|(_, p)| !**p) {
                pairs += 1.0;
                wins += if s > t { 1.0 } else { f64::from(s == t) / 2.0 };
            }
        }
        assert!((auroc(&scores, &positive).unwrap() - wins / pairs).abs() < 1e-14);
        assert_eq!(auroc(&[1.0, 2.0, 3.0], &[false, false, true]), Ok(1.0));
        assert!(auroc(&[1.0, 2.0], &[true, true]).is_err());
    }

    #[test]
    fn quantiles_are_type_7() {
        let x = [10.0, 20.0, 40.0, 0.0];
        for (q, want) in [
            (0.0, 0.0),
            (0.25, 7.5),
            (0.5, 15.0),
            (0.9, 34.0),
            (1.0, 40.0),
        ] {
            assert_eq!(quantile(&x, q), Ok(want));
        }
        assert!(quantile(&x, -0.1).is_err() && quantile(&[], 0.5).is_err());
    }
}
