//! NoMUS: utility and a blind attack, half and half.
//!
//! **What it does.** Adds the accuracy on the task to how near the loss attack is to guessing.
//! **Source.** Choi & Na, *Towards machine unlearning benchmarks*, 2023 (card S196).
//! **Equation.** `NoMUS = ½ accuracy + ½ (1 − 2 |attack accuracy − ½|)`
//! **How to read it.** The tables of the paper print as 'MIA' the distance `|attack accuracy − ½|`,
//! not the accuracy. Whoever takes the distance from ½ of that column once more rewards the leak, and
//! ranks the untouched model (0.511) above retraining (0.289); read as here the published rows come
//! out (0.584 and 0.700). So [`Attack`] makes the caller say which of the two it is.
//! **Use it** to repeat published tables. **Not** to decide: it trades a leak for accuracy at a fixed
//! rate, and a retrained model, which is right by definition, loses what accuracy its data were worth.

use super::logistic::Logistic;
use crate::stats::{Interval, check, proportion_ci_wilson};
use crate::{Error, Key, Result};

/// What a membership attack reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Attack {
    /// Share of right answers, in [0, 1]; ½ is guessing.
    Accuracy(f64),
    /// Distance of that share from ½, in [0, ½]: the 'MIA' of published tables.
    Distance(f64),
}

/// NoMUS in [0, 1], of the accuracy on test examples of the task and an attack on the records.
///
/// # Errors
/// A share outside [0, 1], a distance outside [0, ½].
pub fn nomus(accuracy: f64, attack: Attack) -> Result<f64> {
    let distance = match attack {
        Attack::Accuracy(share) if (0.0..=1.0).contains(&share) => (share - 0.5).abs(),
        Attack::Distance(distance) if (0.0..=0.5).contains(&distance) => distance,
        Attack::Accuracy(bad) | Attack::Distance(bad) => return Err(Error::BadLevel(bad)),
    };
    if !(0.0..=1.0).contains(&accuracy) {
        return Err(Error::BadLevel(accuracy));
    }
    Ok(0.5 * accuracy + 0.5 * (1.0 - 2.0 * distance))
}

/// Accuracy of telling `records` from as many `unseen` examples by their losses: logistic regression,
/// cross-validated over `folds` that `key` decides, each example being judged by a fit without it.
/// With Wilson's interval at `level`, which takes the answers for independent.
///
/// # Errors
/// Groups of different sizes, fewer than two folds or fewer examples than folds, a loss that is not
/// finite, a level outside (0, 1).
pub fn loss_attack(
    records: &[f64],
    unseen: &[f64],
    folds: usize,
    level: f64,
    key: Key,
) -> Result<Interval> {
    check(records, folds.max(2))?;
    check(unseen, 1)?;
    if folds < 2 {
        return Err(Error::SampleTooSmall {
            needed: 2,
            found: folds,
        });
    }
    if unseen.len() != records.len() {
        return Err(Error::Length {
            what: "the list of unseen examples",
            expected: records.len(),
            found: unseen.len(),
        });
    }
    let n = records.len();
    let fold = |purpose: &str| -> Vec<usize> {
        let place = key.sub(purpose).permutation(n);
        place.iter().map(|p| *p as usize % folds).collect()
    };
    let (of_records, of_unseen) = (fold("records"), fold("unseen"));
    let mut right = 0;
    for held in 0..folds {
        let split = |values: &[f64], fold: &[usize]| -> (Vec<f64>, Vec<f64>) {
            let (mut out, mut kept) = (Vec::new(), Vec::new());
            for (value, fold) in values.iter().zip(fold) {
                match *fold == held {
                    true => out.push(*value),
                    false => kept.push(*value),
                }
            }
            (out, kept)
        };
        let (asked, members) = split(records, &of_records);
        let (asked_unseen, others) = split(unseen, &of_unseen);
        let fit = Logistic::fit(&members, &others)?;
        right += asked.iter().filter(|x| fit.is_member(**x)).count();
        right += asked_unseen.iter().filter(|x| !fit.is_member(**x)).count();
    }
    proportion_ci_wilson(right, 2 * n, level)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published rows: accuracy, 'MIA', NoMUS.
    const UNTOUCHED: (f64, f64, f64) = (0.5951, 0.2136, 0.5839);
    const RETRAINED: (f64, f64, f64) = (0.488, 0.0445, 0.6995);
    const SCRUB: (f64, f64, f64) = (0.5984, 0.1415, 0.6577);

    /// Defect 12 of the peers' code.
    #[test]
    fn nomus_ranks_retraining_above_the_untouched_model() {
        for (accuracy, mia, published) in [UNTOUCHED, RETRAINED, SCRUB] {
            let got = nomus(accuracy, Attack::Distance(mia)).unwrap();
            assert!((got - published).abs() < 1e-4, "{got} {published}");
            let same = nomus(accuracy, Attack::Accuracy(0.5 + mia)).unwrap();
            assert!((got - same).abs() < 1e-15);
            let worse_than_guessing = nomus(accuracy, Attack::Accuracy(0.5 - mia)).unwrap();
            assert!((got - worse_than_guessing).abs() < 1e-15);
        }
        let of = |(accuracy, mia, _)| nomus(accuracy, Attack::Distance(mia)).unwrap();
        assert!(of(RETRAINED) > of(SCRUB) && of(SCRUB) > of(UNTOUCHED));
        // The defective reading takes the printed distance for the attack's accuracy.
        let defective = |(accuracy, mia, _)| nomus(accuracy, Attack::Accuracy(mia)).unwrap();
        assert!((defective(UNTOUCHED) - 0.511_15).abs() < 1e-9);
        assert!((defective(RETRAINED) - 0.288_5).abs() < 1e-9);
    }

    #[test]
    fn shares_and_distances_have_their_ranges() {
        assert_eq!(nomus(1.0, Attack::Accuracy(0.5)), Ok(1.0));
        assert_eq!(nomus(0.0, Attack::Accuracy(1.0)), Ok(0.0));
        for attack in [
            Attack::Accuracy(1.1),
            Attack::Distance(0.6),
            Attack::Distance(-0.1),
            Attack::Accuracy(f64::NAN),
        ] {
            assert!(nomus(0.5, attack).is_err());
        }
        assert!(nomus(1.1, Attack::Accuracy(0.5)).is_err());
        assert!(nomus(f64::NAN, Attack::Accuracy(0.5)).is_err());
    }

    #[test]
    fn the_loss_attack_knows_a_gap_and_guesses_without_one() {
        let key = Key::new(7, "losses");
        let losses = |name: &str, shift: f64| -> Vec<f64> {
            (0..300).map(|i| key.sub(name).normal(i) + shift).collect()
        };
        let attack = |a: &[f64], b: &[f64]| loss_attack(a, b, 10, 0.95, key.sub("folds")).unwrap();
        let none = attack(&losses("a", 0.0), &losses("b", 0.0));
        assert!(none.low < 0.5 && 0.5 < none.high + 0.05, "{none:?}");
        // Two normals 2 apart are told with Φ(1) = 0.8413.
        let gap = attack(&losses("a", -2.0), &losses("b", 0.0));
        assert!(gap.low < 0.8413 && 0.8413 < gap.high, "{gap:?}");
        let apart = attack(&losses("a", -50.0), &losses("b", 0.0));
        assert_eq!(apart.value, 1.0);
        let folds = |a: &[f64], b: &[f64], folds| loss_attack(a, b, folds, 0.95, key).is_err();
        assert!(folds(&[1.0, 2.0], &[1.0], 2) && folds(&[1.0, 2.0], &[1.0, 2.0], 3));
        assert!(folds(&[1.0, 2.0], &[1.0, 2.0], 1) && folds(&[1.0, 2.0], &[1.0, 2.0], 0));
        assert!(folds(&[1.0, f64::NAN], &[1.0, 2.0], 2));
    }
}
