//! Two groups, one measure: the difference, its interval and its test.

use ebb_record::LEVEL;
use ebb_space::Direction;
use ebb_space::stats::{
    Alternative, Interval, difference_ci_welch, mean_ci_t, min_reachable_p, paired_sign_flip, welch,
};
use serde::Serialize;

use super::Value;

/// The difference `a − b` of two groups.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// The first group.
    pub a: String,
    /// The second group.
    pub b: String,
    /// Seeds that both have, ascending.
    pub seeds: Vec<u64>,
    /// How many seeds of each the difference rests on.
    pub n: [usize; 2],
    /// The test; none where there are too few seeds for any.
    pub test: Option<Test>,
    /// The mean difference.
    pub difference: Option<f64>,
    /// Lower end of its 95 % interval.
    pub ci_low: Option<f64>,
    /// Upper end of its 95 % interval.
    pub ci_high: Option<f64>,
    /// Two-sided p.
    pub p: Option<f64>,
    /// The least p that the test can give with so many seeds, whatever they measure.
    pub least_p: Option<f64>,
    /// p after Holm's correction over all tests.
    pub p_holm: Option<f64>,
    /// The least that it can be.
    pub least_p_holm: Option<f64>,
    /// What it comes to.
    pub verdict: Verdict,
}

/// How a difference is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    /// The paired sign-flip permutation test over the seeds that both groups have; the interval
    /// is Student's, of the differences.
    SignFlip,
    /// Welch's unpaired t test, where the groups do not share two seeds; the interval is Welch's.
    Welch,
}

/// What a difference comes to at the level of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The first group is better.
    Better,
    /// The first group is worse.
    Worse,
    /// They differ in a measure of which neither way is better.
    Differs,
    /// They measured the same in every seed.
    Same,
    /// The test does not decide.
    Undecided,
    /// There is no test.
    NotTested,
}

/// Seeds that a test needs on either side.
const LEAST: usize = 2;

pub(super) fn test(a: &Value, b: &Value) -> Pair {
    let both = |seed: &&u64| b.per_seed.contains_key(seed);
    let seeds: Vec<u64> = a.per_seed.keys().filter(both).copied().collect();
    let mut pair = Pair {
        a: a.group.clone(),
        b: b.group.clone(),
        n: [a.per_seed.len(), b.per_seed.len()],
        seeds,
        test: None,
        difference: None,
        ci_low: None,
        ci_high: None,
        p: None,
        least_p: None,
        p_holm: None,
        least_p_holm: None,
        verdict: Verdict::NotTested,
    };
    let [x, y] = [a, b].map(|v| v.per_seed.values().copied().collect::<Vec<f64>>());
    if pair.seeds.len() >= LEAST || pair.n == [1, 1] && pair.seeds.len() == 1 {
        let difference = |seed: &u64| a.per_seed[seed] - b.per_seed[seed];
        let differences: Vec<f64> = pair.seeds.iter().map(difference).collect();
        pair.n = [differences.len(); 2];
        pair.difference = mean(&differences);
        if differences.len() >= LEAST {
            pair.test = Some(Test::SignFlip);
            pair.set_interval(mean_ci_t(&differences, LEVEL).ok());
            pair.p = paired_sign_flip(&differences, Alternative::TwoSided).ok();
            let least = min_reachable_p(differences.len(), Alternative::TwoSided);
            pair.least_p = Some(least);
            if differences.iter().all(|d| *d == 0.0) {
                pair.verdict = Verdict::Same;
            }
        }
    } else {
        pair.difference = mean(&x).zip(mean(&y)).map(|(x, y)| x - y);
        // Where neither group varies there is nothing to measure a difference by.
        if let Ok(found) = welch(&x, &y, Alternative::TwoSided) {
            pair.test = Some(Test::Welch);
            pair.set_interval(difference_ci_welch(&x, &y, LEVEL).ok());
            pair.p = Some(found.p);
            pair.least_p = Some(0.0);
        }
    }
    pair
}

fn mean(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / n)
}

impl Pair {
    fn set_interval(&mut self, interval: Option<Interval>) {
        self.ci_low = interval.map(|i| i.low);
        self.ci_high = interval.map(|i| i.high);
    }

    /// Whether the test could decide at this level, if the seeds were unanimous.
    pub fn can_decide(&self, alpha: f64) -> bool {
        self.least_p_holm.is_some_and(|least| least <= alpha)
    }

    /// Whether the verdict is that the groups differ.
    pub fn decided(&self) -> bool {
        matches!(
            self.verdict,
            Verdict::Better | Verdict::Worse | Verdict::Differs
        )
    }

    /// Whether the interval holds a difference of nothing.
    pub(crate) fn holds_nothing(&self) -> bool {
        let limits = self.ci_low.zip(self.ci_high);
        limits.is_some_and(|(low, high)| low <= 0.0 && high >= 0.0)
    }

    pub(super) fn judge(&mut self, direction: Direction, p_holm: f64, least: f64, alpha: f64) {
        self.p_holm = Some(p_holm);
        self.least_p_holm = Some(least);
        if self.verdict == Verdict::Same {
            return;
        }
        let above = self.difference.is_some_and(|d| d > 0.0);
        self.verdict = match (p_holm <= alpha, direction) {
            (false, _) => Verdict::Undecided,
            (true, Direction::None) => Verdict::Differs,
            (true, Direction::Higher) if above => Verdict::Better,
            (true, Direction::Lower) if !above => Verdict::Better,
            (true, _) => Verdict::Worse,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn value(group: &str, per_seed: &[(u64, f64)]) -> Value {
        Value {
            group: group.into(),
            number: None,
            per_seed: per_seed.iter().copied().collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn shared_seeds_are_paired_and_the_others_do_not_count() {
        let a = value("a", &[(1, 0.5), (2, 0.7), (3, 0.6), (9, 0.0)]);
        let b = value("b", &[(2, 0.4), (1, 0.4), (3, 0.4), (5, 1.0)]);
        let pair = test(&a, &b);
        assert_eq!(
            (pair.test, pair.seeds.as_slice(), pair.n),
            (Some(Test::SignFlip), &[1, 2, 3][..], [3, 3])
        );
        // 0.1, 0.3, 0.2: mean 0.2, s = 0.1, t(0.975, 2) = 4.302653.
        assert!((pair.difference.unwrap() - 0.2).abs() < 1e-12);
        assert!((pair.ci_low.unwrap() - (0.2 - 4.302_653 * 0.1 / 3f64.sqrt())).abs() < 1e-6);
        // All eight sign patterns; only the two unanimous ones are as extreme.
        assert_eq!((pair.p, pair.least_p), (Some(0.25), Some(0.25)));
    }

    #[test]
    fn without_shared_seeds_the_test_is_welchs() {
        // Student's sleep data as two independent groups; R: t = -1.8608, p-value = 0.07939.
        let a = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0];
        let b = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4];
        let seeds =
            |from: u64, v: &[f64]| -> Vec<(u64, f64)> { (from..).zip(v.iter().copied()).collect() };
        // One seed in common is not enough to pair.
        for from in [10, 9] {
            let pair = test(&value("a", &seeds(0, &a)), &value("b", &seeds(from, &b)));
            assert_eq!((pair.test, pair.n), (Some(Test::Welch), [10, 10]));
            assert!((pair.p.unwrap() - 0.07939).abs() < 5e-6);
            assert!((pair.ci_high.unwrap() - 0.205_483_2).abs() < 1e-7);
            assert_eq!(pair.least_p, Some(0.0));
        }
    }

    #[test]
    fn one_seed_or_no_variation_is_not_tested() {
        let one = |seed, v| value("x", &[(seed, v)]);
        for other in [0, 1] {
            let pair = test(&one(0, 0.5), &one(other, 0.25));
            assert_eq!(
                (pair.test, pair.p, pair.difference),
                (None, None, Some(0.25))
            );
            assert_eq!(pair.verdict, Verdict::NotTested);
        }
        let flat = test(
            &value("a", &[(0, 1.0), (1, 1.0)]),
            &value("b", &[(2, 0.5), (3, 0.5)]),
        );
        assert_eq!(
            (flat.test, flat.p, flat.difference),
            (None, None, Some(0.5))
        );
        let none = test(&one(0, 0.5), &value("b", &[]));
        assert_eq!((none.test, none.difference), (None, None));
    }

    #[test]
    fn the_direction_decides_what_is_better() {
        let judged = |a: f64, direction, p| {
            let mut pair = test(
                &value("a", &[(0, a), (1, 2.0 * a)]),
                &value("b", &[(0, 0.0), (1, 0.0)]),
            );
            pair.judge(direction, p, 0.01, 0.05);
            pair.verdict
        };
        assert_eq!(judged(0.1, Direction::Higher, 0.05), Verdict::Better);
        assert_eq!(judged(-0.1, Direction::Higher, 0.05), Verdict::Worse);
        assert_eq!(judged(0.1, Direction::Lower, 0.05), Verdict::Worse);
        assert_eq!(judged(-0.1, Direction::Lower, 0.05), Verdict::Better);
        assert_eq!(judged(0.1, Direction::None, 0.05), Verdict::Differs);
        assert_eq!(judged(0.1, Direction::Higher, 0.051), Verdict::Undecided);
        assert_eq!(judged(0.0, Direction::Higher, 1.0), Verdict::Same);
    }
}
