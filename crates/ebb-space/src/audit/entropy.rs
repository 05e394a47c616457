//! The entropy attack: is the model as sure of the records as of what it learnt?
//!
//! **What it does.** Learns from output entropies alone to tell retained training examples from test
//! examples, and asks it about the records: the share called members.
//! **Source.** Chundawat et al., *Can bad teaching induce forgetting?*, AAAI 2023; used by Foster,
//! Schoepf & Brintrup for SSD, AAAI 2024 (cards S015, X17).
//! **Equation.** `mean_f 1[ w H(p(x_f)) + b > 0 ]`, `(w, b)` by logistic regression, retained against
//! test; `H` in nats.
//! **Use it** beside the same share of a retrained model; that, and not 0, is the aim. **Not** alone:
//! where retained and test entropies are alike the share means nothing, and making the model unsure of
//! the records lowers it without removing anything.

use super::logistic::Logistic;
use super::outputs::distributions;
use crate::Result;
use crate::stats::{Interval, check, proportion_ci_wilson};

/// Entropy in nats of each row of `probabilities` (rows × classes).
///
/// # Errors
/// Rows that do not fit the classes or are no distributions.
pub fn entropies(probabilities: &[f64], classes: usize) -> Result<Vec<f64>> {
    let rows = distributions("the outputs", probabilities, classes)?;
    let surprise = |p: &f64| if *p > 0.0 { -p * p.ln() } else { 0.0 };
    Ok(rows.map(|row| row.iter().map(surprise).sum()).collect())
}

/// Share of the `records` that the attack calls members, in [0, 1], with Wilson's interval at `level`
/// (over records, the fit given). Each argument is a list of entropies, one an example.
///
/// # Errors
/// An empty list, a value that is not finite, a level outside (0, 1).
pub fn entropy_attack(
    retained: &[f64],
    test: &[f64],
    records: &[f64],
    level: f64,
) -> Result<Interval> {
    check(records, 1)?;
    let fit = Logistic::fit(retained, test)?;
    let called = records.iter().filter(|h| fit.is_member(**h)).count();
    proportion_ci_wilson(called, records.len(), level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropies_by_hand() {
        let got = entropies(&[0.5, 0.5, 0.0, 1.0, 0.25, 0.75], 2).unwrap();
        let want = [2f64.ln(), 0.0, 0.25 * 4f64.ln() - 0.75 * 0.75f64.ln()];
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-15));
        assert!(entropies(&[0.5, 0.5, 1.0], 2).is_err());
        assert!(entropies(&[0.5, 0.6], 2).is_err());
    }

    #[test]
    fn records_on_the_side_of_what_was_retained_are_called_members() {
        // Symmetric around 1, so the threshold is there.
        let (sure, unsure) = ([0.1, 0.3, 0.5], [1.5, 1.7, 1.9]);
        let got = entropy_attack(&sure, &unsure, &[0.2, 0.9, 1.1, 2.0], 0.95).unwrap();
        assert_eq!(got.value, 0.5);
        let got = entropy_attack(&sure, &unsure, &[0.0; 40], 0.95).unwrap();
        assert!(got.value == 1.0 && got.low > 0.9);
        for (a, b, c) in [
            (&[][..], &unsure[..], &sure[..]),
            (&sure, &[], &sure),
            (&sure, &unsure, &[]),
            (&sure, &unsure, &[f64::NAN]),
        ] {
            assert!(entropy_attack(a, b, c, 0.95).is_err());
        }
    }
}
