//! Telling members from others by a score.
//!
//! **What it does.** The area under the ROC curve: the probability that a member scores above another
//! example, ties counting one half; and the true-positive rate at a false-positive rate that is stated.
//! **Source.** Interval of the area: Hanley & McNeil, Radiology 1982, with the variance taken at the
//! limits and not at the estimate (Newcombe, Statistics in Medicine 2006), so that it keeps a width at
//! an area of 1. Why the rate at few false alarms: Carlini et al., S&P 2022.
//! **Use it** with others of the members' kind that the model never saw. **Not** with others that are
//! easier or harder by themselves: a model trained without the members must come out at ½. The area is
//! a mean over all thresholds and can be ½ while a few records are named with certainty.

use super::bootstrap::Bootstrap;
use crate::stats::{Interval, auroc, check, check_level, normal_quantile};
use crate::{Error, Result};

/// Scores of members and of others; greater means rather a member.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores<'a> {
    /// One score a member.
    pub members: &'a [f64],
    /// One score another example.
    pub others: &'a [f64],
}

impl Scores<'_> {
    pub(super) fn check(&self) -> Result<()> {
        check(self.members, 1)?;
        check(self.others, 1)
    }

    /// Area under the curve, in [0, 1].
    pub(super) fn area(&self) -> Result<f64> {
        let scores = [self.members, self.others].concat();
        let members = self.members.len();
        let positive: Vec<bool> = (0..scores.len()).map(|i| i < members).collect();
        auroc(&scores, &positive)
    }

    /// Area under the ROC curve, in [0, 1], with its interval over examples at `level`.
    ///
    /// # Errors
    /// An empty group, a score that is not finite, a level outside (0, 1).
    pub fn auc(&self, level: f64) -> Result<Interval> {
        self.check()?;
        check_level(level)?;
        let value = self.area()?;
        let z = normal_quantile(0.5 + level / 2.0);
        let (m, n) = (self.members.len() as f64, self.others.len() as f64);
        // The estimate lies z standard errors from a limit, the error being that of the limit.
        let beyond =
            |limit: f64| (value - limit).abs() > z * hanley_mcneil_variance(limit, m, n).sqrt();
        Ok(Interval {
            value,
            low: edge(value, 0.0, beyond),
            high: edge(value, 1.0, beyond),
        })
    }

    /// Share of the members above the lowest threshold that at most a share `fpr` of the others pass,
    /// in [0, 1], with its bootstrap interval. The threshold is drawn again too. Nothing is
    /// interpolated: with fewer than `1/fpr` others no false alarm is allowed at all, and the rate is
    /// that at a false-positive rate of 0.
    ///
    /// # Errors
    /// An empty group, a score that is not finite, `fpr` outside [0, 1], a bad bootstrap.
    pub fn tpr_at(&self, fpr: f64, bootstrap: &Bootstrap) -> Result<Interval> {
        self.check()?;
        if !(0.0..=1.0).contains(&fpr) {
            return Err(Error::BadLevel(fpr));
        }
        // 0.29 · 100 is a little less than 29 in f64.
        let alarms = (fpr * self.others.len() as f64 + 1e-9) as usize;
        bootstrap.percentile(
            [self.members.len(), self.others.len()],
            |[members, others]| {
                let mut others: Vec<f64> = others.iter().map(|&i| self.others[i]).collect();
                others.sort_unstable_by(|a, b| b.total_cmp(a));
                let Some(&threshold) = others.get(alarms) else {
                    return 1.0;
                };
                let above = members.iter().filter(|&&i| self.members[i] > threshold);
                above.count() as f64 / members.len() as f64
            },
        )
    }
}

/// Variance of an area `a` over `m` members and `n` others, each class exponential.
fn hanley_mcneil_variance(a: f64, m: f64, n: f64) -> f64 {
    let (two_members, two_others) = (a / (2.0 - a), 2.0 * a * a / (1.0 + a));
    let square = a * a;
    let sum =
        a * (1.0 - a) + (m - 1.0) * (two_members - square) + (n - 1.0) * (two_others - square);
    (sum / (m * n)).max(0.0)
}

/// The last point from `inside` towards `end` before it is beyond, by bisection.
fn edge(inside: f64, end: f64, beyond: impl Fn(f64) -> bool) -> f64 {
    if !beyond(end) {
        return end;
    }
    let (mut inside, mut outside) = (inside, end);
    for _ in 0..60 {
        let middle = 0.5 * (inside + outside);
        match beyond(middle) {
            true => outside = middle,
            false => inside = middle,
        }
    }
    inside
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    fn drawn(name: &str, n: u64, shift: f64, grid: f64) -> Vec<f64> {
        let key = Key::new(0, name);
        let score = |i| ((key.normal(i) + shift) * grid).round() / grid;
        (0..n).map(score).collect()
    }

    fn bootstrap() -> Bootstrap {
        Bootstrap {
            level: 0.95,
            resamples: 400,
            key: Key::new(3, "roc"),
        }
    }

    #[test]
    fn the_area_is_the_share_of_pairs() {
        let (members, others) = (drawn("m", 90, 0.4, 4.0), drawn("o", 70, 0.0, 4.0));
        let mut wins = 0.0;
        for m in &members {
            for o in &others {
                wins += if m > o { 1.0 } else { f64::from(m == o) / 2.0 };
            }
        }
        let scores = Scores {
            members: &members,
            others: &others,
        };
        let auc = scores.auc(0.95).unwrap();
        assert!((auc.value - wins / 6300.0).abs() < 1e-13);
        assert!(auc.low < auc.value && auc.value < auc.high);
    }

    #[test]
    fn the_variance_by_hand() {
        // a = ½: Q1 = 1/3, Q2 = 1/3, so (¼ + (m + n − 2)/12)/mn = (m + n + 1)/12mn, Mann and Whitney's.
        assert!((hanley_mcneil_variance(0.5, 7.0, 4.0) - 12.0 / (12.0 * 28.0)).abs() < 1e-16);
        // a = ¾, m = 3, n = 2: (3/16 + 2 (3/5 − 9/16) + (9/14 − 9/16))/6 = 0.057217…
        let want = (0.1875 + 2.0 * 0.0375 + (9.0 / 14.0 - 0.5625)) / 6.0;
        assert!((hanley_mcneil_variance(0.75, 3.0, 2.0) - want).abs() < 1e-16);
    }

    #[test]
    fn a_perfect_attack_on_few_examples_keeps_an_interval() {
        let scores = Scores {
            members: &[2.0, 3.0, 4.0],
            others: &[0.0, 1.0],
        };
        let auc = scores.auc(0.95).unwrap();
        assert_eq!((auc.value, auc.high), (1.0, 1.0));
        assert!(auc.low < 0.6, "{auc:?}"); // five examples prove little
        let flipped = Scores {
            members: scores.others,
            others: scores.members,
        };
        let flipped = flipped.auc(0.95).unwrap();
        assert_eq!((flipped.value, flipped.low), (0.0, 0.0));
    }

    #[test]
    fn the_interval_covers_the_true_area() {
        // Normal scores a shift apart: the area is Φ(shift/√2).
        for (shift, area) in [(0.0, 0.5), (1.0, 0.760_249_9), (2.5, 0.961_450_2)] {
            let trials = 400;
            let held = (0..trials).filter(|trial| {
                let members = drawn(&format!("cover m {trial}"), 30, shift, 1e9);
                let others = drawn(&format!("cover o {trial}"), 40, 0.0, 1e9);
                let scores = Scores {
                    members: &members,
                    others: &others,
                };
                let auc = scores.auc(0.95).unwrap();
                auc.low <= area && area <= auc.high
            });
            let share = held.count() as f64 / f64::from(trials);
            assert!((0.92..=0.99).contains(&share), "{shift}: {share}");
        }
    }

    /// By the definition: of all thresholds that few enough others reach, the most members reached.
    fn brute(members: &[f64], others: &[f64], fpr: f64) -> f64 {
        let thresholds = members.iter().chain(others).chain([&f64::INFINITY]);
        let reach = |group: &[f64], t: f64| group.iter().filter(|s| **s >= t).count();
        thresholds
            .filter(|t| reach(others, **t) * 1000 <= (fpr * 1000.0).round() as usize * others.len())
            .map(|t| reach(members, *t) as f64 / members.len() as f64)
            .fold(0.0, f64::max)
    }

    #[test]
    fn the_rate_at_few_false_alarms_is_the_best_allowed() {
        let (members, others) = (drawn("m", 120, 1.0, 3.0), drawn("o", 100, 0.0, 3.0));
        let scores = Scores {
            members: &members,
            others: &others,
        };
        for fpr in [0.0, 0.001, 0.01, 0.05, 0.29, 0.5, 1.0] {
            let got = scores.tpr_at(fpr, &bootstrap()).unwrap();
            assert_eq!(got.value, brute(&members, &others, fpr), "{fpr}");
            assert!(got.low <= got.value && got.value <= got.high);
        }
        let twice = || scores.tpr_at(0.05, &bootstrap()).unwrap();
        assert_eq!(twice(), twice());
        assert!(scores.tpr_at(1.5, &bootstrap()).is_err());
        assert!(scores.tpr_at(f64::NAN, &bootstrap()).is_err());
    }

    #[test]
    fn what_is_no_score_is_refused() {
        let (good, bad, none): (&[f64], &[f64], &[f64]) = (&[0.0], &[f64::NAN], &[]);
        for (members, others) in [(good, none), (none, good), (good, bad), (bad, good)] {
            let scores = Scores { members, others };
            assert!(scores.auc(0.95).is_err() && scores.tpr_at(0.1, &bootstrap()).is_err());
        }
        let scores = Scores {
            members: good,
            others: good,
        };
        assert!(scores.auc(1.0).is_err());
        let none = Bootstrap {
            resamples: 0,
            ..bootstrap()
        };
        assert!(scores.tpr_at(0.1, &none).is_err());
    }
}
