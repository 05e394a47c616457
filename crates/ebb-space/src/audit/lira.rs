//! The likelihood-ratio attack, example by example, from shadow models.
//!
//! **What it does.** For each record: would its score come rather from models that learnt it (and then
//! unlearnt it) or from models that never saw it? Each side is a normal distribution of this record's
//! own, fitted on shadow models.
//! **Source.** Carlini et al., *Membership inference attacks from first principles*, S&P 2022; against
//! unlearning (U-LiRA): Hayes et al., *Inexact unlearning needs more careful evaluations to avoid a
//! false sense of privacy*, 2024 (card X17).
//! **Equation.** `ln N(s; μ_with, σ²_with) − ln N(s; μ_without, σ²_without)`
//! **Use it** with shadow models made by the very procedure under audit, and with scores that are near
//! normal, such as [`log_odds`]. **Not** with the target among its own shadows. What the ratio finds
//! is a lower bound: an attack with more shadows may find more.

use crate::stats::{check, mean, variance};
use crate::{Error, Result};

/// Scores of one record under shadow models, one number a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shadows<'a> {
    /// Of models that learnt the record (and unlearnt it, where unlearning is audited).
    pub with: &'a [f64],
    /// Of models that never saw it.
    pub without: &'a [f64],
}

/// Whose spread the normal distributions have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Each record's own on each side: for some 32 shadow models a side or more. It is kept above a
    /// millionth of the pooled one, for records that all models score alike.
    PerRecord,
    /// One on each side for all records, pooled within them: for few shadow models.
    Pooled,
}

/// `ln(p/(1−p))` of the label's probability, from logits: without the rounding of `1 − p`, and near
/// normal over models.
///
/// # Errors
/// Fewer than two logits, one that is not finite, a label that has none.
pub fn log_odds(logits: &[f64], label: usize) -> Result<f64> {
    check(logits, 2)?;
    let Some(of_label) = logits.get(label) else {
        return Err(Error::BadIndex {
            what: "the label",
            index: label,
            len: logits.len(),
        });
    };
    let others = || (logits.iter().enumerate()).filter(|(i, _)| *i != label);
    let most = others().map(|(_, z)| *z).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = others().map(|(_, z)| (z - most).exp()).sum();
    Ok(of_label - most - sum.ln())
}

/// The log-likelihood ratio of each record; greater means rather a member.
///
/// # Errors
/// Another number of records than of shadows, fewer than two models on a side, a score that is not
/// finite; [`Error::NoVariation`] where no record's score varies between models.
pub fn lira(observed: &[f64], shadows: &[Shadows], spread: Spread) -> Result<Vec<f64>> {
    check(observed, 1)?;
    if shadows.len() != observed.len() {
        return Err(Error::Length {
            what: "the list of shadow scores",
            expected: observed.len(),
            found: shadows.len(),
        });
    }
    let with = side(shadows.iter().map(|s| s.with), spread)?;
    let without = side(shadows.iter().map(|s| s.without), spread)?;
    let pairs = observed.iter().zip(with.iter().zip(&without));
    Ok(pairs.map(|(s, (a, b))| a.ln(*s) - b.ln(*s)).collect())
}

struct Normal {
    mean: f64,
    variance: f64,
}

impl Normal {
    /// Log density but for the constant.
    fn ln(&self, x: f64) -> f64 {
        -0.5 * ((x - self.mean).powi(2) / self.variance + self.variance.ln())
    }
}

/// A normal distribution a record, of one side.
fn side<'a>(records: impl Iterator<Item = &'a [f64]>, spread: Spread) -> Result<Vec<Normal>> {
    let mut normals = Vec::new();
    let (mut squares, mut free) = (0.0, 0.0);
    for scores in records {
        check(scores, 2)?;
        let (mean, variance, df) = (mean(scores), variance(scores), (scores.len() - 1) as f64);
        squares += variance * df;
        free += df;
        normals.push(Normal { mean, variance });
    }
    let pooled = squares / free;
    if pooled.is_nan() || pooled <= 0.0 {
        return Err(Error::NoVariation);
    }
    for normal in &mut normals {
        normal.variance = match spread {
            Spread::PerRecord => normal.variance.max(1e-6 * pooled),
            Spread::Pooled => pooled,
        };
    }
    Ok(normals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;
    use crate::audit::Scores;

    #[test]
    fn two_records_by_hand() {
        // Record 0: with N(3, 2), without N(0, 2). Record 1: with N(1, 8), without N(1, 2).
        let shadows = [
            Shadows {
                with: &[2.0, 4.0],
                without: &[-1.0, 1.0],
            },
            Shadows {
                with: &[-1.0, 3.0],
                without: &[0.0, 2.0],
            },
        ];
        let got = lira(&[2.0, 5.0], &shadows, Spread::PerRecord).unwrap();
        // −(1/4) + (4/4) = ¾; −16/16 + 16/4 − ½ ln 4 = 3 − ln 2.
        assert!((got[0] - 0.75).abs() < 1e-15);
        assert!((got[1] - (3.0 - 2f64.ln())).abs() < 1e-14);
        // Pooled: with (2 + 8)/2 = 5, without 2. Record 0: −1/10 + 4/4 − ½ ln(5/2).
        let got = lira(&[2.0, 5.0], &shadows, Spread::Pooled).unwrap();
        assert!((got[0] - (0.9 - 0.5 * 2.5f64.ln())).abs() < 1e-14);
    }

    #[test]
    fn equal_spreads_give_the_line_through_the_middle() {
        // ln of the ratio of N(μ₁, σ²) to N(μ₀, σ²) is (μ₁ − μ₀)(s − (μ₁ + μ₀)/2)/σ².
        let shadows = [Shadows {
            with: &[4.0, 6.0],
            without: &[0.0, 2.0],
        }];
        for s in [-3.0, 3.0, 10.0] {
            let got = lira(&[s], &shadows, Spread::PerRecord).unwrap()[0];
            assert!((got - 4.0 * (s - 3.0) / 2.0).abs() < 1e-12);
        }
    }

    #[test]
    fn each_records_own_scale_finds_what_one_threshold_cannot() {
        // Records differ in difficulty by far more than membership moves a score. One threshold for
        // all reaches Φ(1.5/(20 √2)) = 0.5211; the ratio knows each record's place and nears
        // Φ(1.5/√2) = 0.8556.
        let key = Key::new(9, "lira");
        let (records, models) = (400u64, 64u64);
        let place = |r: u64| 20.0 * key.sub("place").normal(r);
        let score = |r: u64, side: &str, model: u64, shift: f64| {
            place(r) + shift + key.sub(side).at(model).normal(r)
        };
        let shadow = |r: u64, side: &str, shift: f64| -> Vec<f64> {
            (0..models).map(|m| score(r, side, m, shift)).collect()
        };
        let kept: Vec<[Vec<f64>; 2]> = (0..records)
            .map(|r| [shadow(r, "in", 1.5), shadow(r, "out", 0.0)])
            .collect();
        let shadows: Vec<Shadows> = kept
            .iter()
            .map(|[with, without]| Shadows { with, without })
            .collect();
        let member = |r: u64| r.is_multiple_of(2);
        let observed: Vec<f64> = (0..records)
            .map(|r| score(r, "target", 0, if member(r) { 1.5 } else { 0.0 }))
            .collect();
        let auc = |scores: &[f64]| {
            let of = |side: bool| -> Vec<f64> {
                let mine = (0..records).filter(|r| member(*r) == side);
                mine.map(|r| scores[r as usize]).collect()
            };
            let (members, others) = (of(true), of(false));
            let scores = Scores {
                members: &members,
                others: &others,
            };
            scores.auc(0.95).unwrap()
        };
        let blind = auc(&observed);
        assert!(
            blind.low < 0.5211 && 0.5211 < blind.high && blind.high < 0.7,
            "{blind:?}"
        );
        for spread in [Spread::PerRecord, Spread::Pooled] {
            let found = auc(&lira(&observed, &shadows, spread).unwrap());
            assert!(
                found.low < 0.8556 && 0.8556 < found.high,
                "{spread:?} {found:?}"
            );
        }
    }

    #[test]
    fn log_odds_keep_their_digits() {
        let p = [0.2f64, 0.5, 0.3];
        let logits = p.map(f64::ln);
        let got = log_odds(&logits, 0).unwrap();
        assert!((got - (0.2f64 / 0.8).ln()).abs() < 1e-15);
        // p = 1 to the last bit of f64, and still told apart.
        assert_eq!(log_odds(&[100.0, 0.0], 0), Ok(100.0));
        assert_eq!(log_odds(&[1000.0, 0.0], 0), Ok(1000.0));
        assert!(log_odds(&[0.0, 1.0], 2).is_err() && log_odds(&[0.0], 0).is_err());
        assert!(log_odds(&[0.0, f64::NAN], 0).is_err());
    }

    #[test]
    fn too_little_to_fit_is_refused() {
        let good = Shadows {
            with: &[0.0, 1.0],
            without: &[0.0, 1.0],
        };
        assert!(lira(&[0.0, 0.0], &[good], Spread::Pooled).is_err());
        assert!(lira(&[f64::NAN], &[good], Spread::Pooled).is_err());
        for with in [&[0.0][..], &[0.0, f64::INFINITY], &[2.0, 2.0]] {
            assert!(lira(&[0.0], &[Shadows { with, ..good }], Spread::PerRecord).is_err());
        }
        // One record that no model tells apart from itself does not stop the others.
        let same = Shadows {
            with: &[2.0, 2.0],
            without: &[0.0, 1.0],
        };
        let got = lira(&[0.0, 0.0], &[good, same], Spread::PerRecord).unwrap();
        assert!(got.iter().all(|x| x.is_finite()));
    }
}
