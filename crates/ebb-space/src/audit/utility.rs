//! Several shares as one: their harmonic mean.
//!
//! **What it does.** Model utility is the harmonic mean of nine shares: probability, ROUGE-L recall and
//! `max(0, 1 − truth ratio)`, each on the retained texts, on real authors and on facts of the world.
//! The H-mean is that of what was forgotten and what was kept.
//! **Source.** Maini et al., *TOFU*, 2024 (card X17); H-mean: Zhao et al., *Continual forgetting for
//! pre-trained vision models* (GS-LoRA), CVPR 2024 (card S019).
//! **Equation.** `n / Σ 1/x_i`; `H = 2 drop · retained / (drop + retained)`,
//! `drop = forgotten_before − forgotten_after`.
//! **Use it** to rank arms where each of the parts must hold: one zero makes it zero. **Not** in the
//! place of the parts; and H grows with the accuracy before, so compare it on one model only.

use crate::stats::check;
use crate::{Error, Result};

/// Harmonic mean of shares in [0, 1]; 0 where one of them is.
///
/// # Errors
/// No shares, or one outside [0, 1].
pub fn harmonic_mean(shares: &[f64]) -> Result<f64> {
    check(shares, 1)?;
    if let Some(&bad) = shares.iter().find(|x| !(0.0..=1.0).contains(*x)) {
        return Err(Error::BadLevel(bad));
    }
    // 1/0 is infinite, and n over it 0.
    let sum: f64 = shares.iter().map(|x| 1.0 / x).sum();
    Ok(shares.len() as f64 / sum)
}

/// H-mean in [0, 1] of accuracies: on the records `before` and `after`, and on what is `retained`
/// after. 0 where the records are answered no worse than before.
///
/// # Errors
/// An accuracy outside [0, 1].
pub fn h_mean(before: f64, after: f64, retained: f64) -> Result<f64> {
    check(&[before, after], 1)?;
    for share in [before, after] {
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::BadLevel(share));
        }
    }
    harmonic_mean(&[(before - after).max(0.0), retained])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // 3/(1/1 + 1/½ + 1/¼) = 3/7.
        assert_eq!(harmonic_mean(&[1.0, 0.5, 0.25]), Ok(3.0 / 7.0));
        assert_eq!(harmonic_mean(&[0.9, 0.0, 0.9]), Ok(0.0));
        assert_eq!(harmonic_mean(&[0.0]), Ok(0.0));
        assert!(harmonic_mean(&[]).is_err());
        assert!(harmonic_mean(&[0.5, -0.1]).is_err());
        assert!(harmonic_mean(&[0.5, 1.1]).is_err());
        assert!(harmonic_mean(&[f64::NAN]).is_err());
        // Nine shares of one model stay between the least and their mean.
        let nine = [0.9, 0.8, 0.6, 0.5, 0.7, 0.4, 0.6, 0.8, 0.5];
        let got = harmonic_mean(&nine).unwrap();
        assert!(0.4 < got && got < nine.iter().sum::<f64>() / 9.0);
    }

    #[test]
    fn h_rewards_forgetting_and_keeping_together() {
        // drop 0.8, retained 0.8: H = 0.8.
        assert!((h_mean(0.9, 0.1, 0.8).unwrap() - 0.8).abs() < 1e-15);
        // drop 0.6, retained 0.3: 0.36/0.9 = 0.4.
        assert!((h_mean(0.7, 0.1, 0.3).unwrap() - 0.4).abs() < 1e-15);
        assert_eq!(h_mean(0.9, 0.9, 0.9), Ok(0.0)); // untouched
        assert_eq!(h_mean(0.9, 0.0, 0.0), Ok(0.0)); // destroyed
        assert_eq!(h_mean(0.5, 0.8, 0.9), Ok(0.0)); // known better than before
        assert!(h_mean(1.2, 0.0, 0.5).is_err() && h_mean(0.5, -0.2, 0.5).is_err());
        assert!(h_mean(0.5, 0.2, 2.0).is_err() && h_mean(0.5, f64::NAN, 0.5).is_err());
    }
}
