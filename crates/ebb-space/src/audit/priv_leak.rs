//! PrivLeak: is the attack as blind as on a model that never saw the records?
//!
//! **What it does.** Compares a membership attack on the unlearned model with the same attack on a
//! model trained without the records, relative to the latter.
//! **Source.** Shi et al., *MUSE: machine unlearning six-way evaluation*, 2024 (card X17), with Min-K
//! of 40 %; the sign is that of its program, whose areas have the others as positives.
//! **Equation.** `100 (A_u − A_r)/A_r` with `A = 1 − AUC`, the AUC having members as positives.
//! **Sign.** Below 0: the records are still told from others (too little was removed). Above 0: they
//! score lower than records never seen (too much, which gives them away too). 0 is best, and −100 is
//! an attack that is never wrong.
//! **Use it** with the same examples, in the same order, under both models. **Not** as a share of
//! anything: it depends on how hard the others are, through `A_r`.

use super::bootstrap::Bootstrap;
use super::roc::Scores;
use crate::stats::Interval;
use crate::{Error, Result};

/// PrivLeak in per cent, with its interval over examples; an example is drawn for both models at once.
///
/// # Errors
/// Groups of other sizes under the two models, an empty one, a score that is not finite, a bad
/// bootstrap; [`Error::NoVariation`] where the attack on the retrained model is never wrong, in a
/// resample even: there is nothing to be relative to.
pub fn priv_leak(unlearned: Scores, retrained: Scores, bootstrap: &Bootstrap) -> Result<Interval> {
    unlearned.check()?;
    retrained.check()?;
    for (what, a, b) in [
        (
            "the retrained model's members",
            unlearned.members,
            retrained.members,
        ),
        (
            "the retrained model's others",
            unlearned.others,
            retrained.others,
        ),
    ] {
        if a.len() != b.len() {
            return Err(Error::Length {
                what,
                expected: a.len(),
                found: b.len(),
            });
        }
    }
    let sizes = [unlearned.members.len(), unlearned.others.len()];
    let leak = |[members, others]: [&[usize]; 2]| {
        let blindness = |scores: Scores| {
            let of = |s: &[f64], places: &[usize]| -> Vec<f64> {
                places.iter().map(|&i| s[i]).collect()
            };
            let (members, others) = (of(scores.members, members), of(scores.others, others));
            let drawn = Scores {
                members: &members,
                others: &others,
            };
            drawn.area().map_or(f64::NAN, |auc| 1.0 - auc)
        };
        let (u, r) = (blindness(unlearned), blindness(retrained));
        100.0 * (u - r) / r
    };
    match bootstrap.percentile(sizes, leak) {
        Err(Error::SampleNotFinite { .. }) => Err(Error::NoVariation),
        Ok(interval) if !interval.value.is_finite() => Err(Error::NoVariation),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    fn bootstrap() -> Bootstrap {
        Bootstrap {
            level: 0.95,
            resamples: 200,
            key: Key::new(1, "leak"),
        }
    }

    fn leak(unlearned: [&[f64]; 2], retrained: [&[f64]; 2]) -> Result<Interval> {
        let of = |[members, others]: [_; 2]| Scores { members, others };
        priv_leak(of(unlearned), of(retrained), &bootstrap())
    }

    #[test]
    fn its_sign_says_too_little_or_too_much() {
        let key = Key::new(2, "scores");
        let scores = |at: u64, shift: f64| -> Vec<f64> {
            (0..60).map(|i| key.at(at).normal(i) + shift).collect()
        };
        let (others, blind) = (scores(0, 0.0), scores(1, 0.0));
        let known = leak([&scores(1, 2.0), &others], [&blind, &others]).unwrap();
        assert!(known.high < 0.0 && known.low >= -100.0, "{known:?}");
        let scorned = leak([&scores(1, -2.0), &others], [&blind, &others]).unwrap();
        assert!(scorned.low > 0.0, "{scorned:?}");
        let alike = leak([&blind, &others], [&blind, &others]).unwrap();
        assert_eq!((alike.low, alike.value, alike.high), (0.0, 0.0, 0.0));
    }

    #[test]
    fn by_hand() {
        // Unlearned: 3 of 4 pairs won, A = ¼. Retrained: 2 of 4, A = ½. 100 (¼ − ½)/½ = −50.
        let got = leak([&[1.0, 3.0], &[0.0, 2.0]], [&[1.0, 1.0], &[0.0, 2.0]]);
        // With so few a resample can be without an error; the value alone then stands in a bigger one.
        assert_eq!(got, Err(Error::NoVariation));
        let many = |of: &[f64]| of.repeat(20);
        let got = leak(
            [&many(&[1.0, 3.0]), &many(&[0.0, 2.0])],
            [&many(&[1.0, 1.0]), &many(&[0.0, 2.0])],
        );
        assert!((got.unwrap().value + 50.0).abs() < 1e-12);
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        assert!(leak([&[1.0], &[0.0]], [&[1.0, 2.0], &[0.0]]).is_err());
        assert!(leak([&[1.0], &[0.0]], [&[1.0], &[0.0, 0.0]]).is_err());
        assert!(leak([&[f64::NAN], &[0.0]], [&[1.0], &[0.0]]).is_err());
        assert_eq!(
            leak([&[1.0], &[0.0]], [&[1.0], &[0.0]]),
            Err(Error::NoVariation)
        );
    }
}
