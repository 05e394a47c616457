//! Whether a model is as if it had been trained without the records.
//!
//! Models that were trained without them, with other seeds, say what is usual: the *oracle*. A measure of
//! the erased model is equivalent to theirs when the difference to their mean lies within a margin that
//! was stated before, with its interval: two one-sided tests at 5 % (Schuirmann 1987), here as a 90 %
//! interval of the difference between one value and the mean of n, `x − μ ± t_{n−1} s √(1 + 1/n)`. That a
//! difference is not significant proves nothing; a wide interval fails.

use crate::error::Result;
use ebb_space::Number;
use ebb_space::stats::t_quantile;
use serde::{Deserialize, Serialize};

/// One measure beside the oracle's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Equivalence {
    /// What was measured.
    pub name: String,
    /// The erased model's value.
    pub value: f64,
    /// The mean of the models trained without the records.
    pub oracle: f64,
    /// Their standard deviation.
    pub spread: f64,
    /// How many they are.
    pub models: usize,
    /// Lower end of the 90 % interval of the difference.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// The margin.
    pub margin: f64,
    /// Whether the interval lies within the margin.
    pub holds: bool,
}

/// Compares a measure with those of at least two models that never saw the records.
///
/// # Errors
/// Fewer than two models, or a value that is not finite.
pub fn equivalent(number: &Number, oracle: &[f64], margin: f64) -> Result<Equivalence> {
    // Refuses what is too small or no number.
    ebb_space::stats::mean_ci_t(oracle, 0.9)?;
    let n = oracle.len() as f64;
    let mean = oracle.iter().sum::<f64>() / n;
    let variance = oracle.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = t_quantile(0.95, n - 1.0) * (variance * (1.0 + 1.0 / n)).sqrt();
    let difference = number.value - mean;
    Ok(Equivalence {
        name: number.name.clone(),
        value: number.value,
        oracle: mean,
        spread: variance.sqrt(),
        models: oracle.len(),
        low: difference - half,
        high: difference + half,
        margin,
        holds: difference - half > -margin && difference + half < margin,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_space::{Direction, Unit};

    fn number(value: f64) -> Number {
        Number {
            name: "forget_accuracy".into(),
            value,
            ci_low: None,
            ci_high: None,
            n: 1,
            unit: Unit::Example,
            direction: Direction::Higher,
            protocol: String::new(),
        }
    }

    #[test]
    fn equivalence_has_to_be_shown() {
        let oracle = [0.50, 0.52, 0.48, 0.51, 0.49];
        let near = equivalent(&number(0.51), &oracle, 0.1).expect("numbers");
        // t_{0.95, 4} = 2.1318, s = 0.015811, √1.2
        let half = 2.131_846_786 * 0.015_811_388 * 1.2f64.sqrt();
        assert!((near.high - (0.01 + half)).abs() < 1e-6, "{near:?}");
        assert!(near.holds);
        assert!(
            !equivalent(&number(0.65), &oracle, 0.1)
                .expect("numbers")
                .holds
        );
        // The same difference beside models that scatter shows nothing.
        let wide = [0.2, 0.8, 0.4, 0.6, 0.5];
        assert!(
            !equivalent(&number(0.51), &wide, 0.1)
                .expect("numbers")
                .holds
        );
        assert!(equivalent(&number(0.5), &[0.5], 0.1).is_err());
    }
}
