//! One number of several runs that differ in their seed: the mean, with an interval over seeds.

use ebb_space::stats::mean_ci_t;
use ebb_space::{Number, Unit};

use crate::cell::LEVEL;
use crate::error::{Error, Result};

/// Puts the same number of several runs together: the mean over seeds with Student's t interval
/// (none for one seed). The intervals over examples that the runs carry are not used: they say
/// nothing about seeds.
///
/// # Errors
/// [`Error::Mixed`] if there is no run, a seed occurs twice, a value is not finite, or name,
/// protocol, direction or unit differ.
pub fn over_seeds(runs: &[(u64, &Number)]) -> Result<Number> {
    let Some((_, first)) = runs.first() else {
        return Err(Error::Mixed("there is no run".into()));
    };
    let mut seeds: Vec<u64> = runs.iter().map(|(seed, _)| *seed).collect();
    seeds.sort_unstable();
    if let Some(twice) = seeds.windows(2).find(|w| w[0] == w[1]) {
        let seed = twice[0];
        return Err(Error::Mixed(format!(
            "seed {seed} occurs twice, and equal runs are one run"
        )));
    }
    for (seed, number) in runs {
        let name = &first.name;
        if matches!(number.unit, Unit::Seed | Unit::Run) {
            return Err(Error::Mixed(format!(
                "{name} of seed {seed} is itself taken over several runs"
            )));
        }
        if !number.value.is_finite() {
            return Err(Error::Mixed(format!(
                "{name} of seed {seed} is {}",
                number.value
            )));
        }
        let differs = |what, a: &dyn std::fmt::Debug, b: &dyn std::fmt::Debug| {
            Err(Error::Mixed(format!(
                "{name} has {what} {a:?} in one run and {b:?} in that of seed {seed}"
            )))
        };
        if number.name != *name {
            return differs("the name", name, &number.name);
        }
        if number.protocol != first.protocol {
            return differs("the protocol", &first.protocol, &number.protocol);
        }
        if number.direction != first.direction {
            return differs("the direction", &first.direction, &number.direction);
        }
        if number.unit != first.unit {
            return differs("the unit", &first.unit, &number.unit);
        }
    }
    // In the order of the seeds, so that the sum does not depend on the order of the arguments.
    let mut sorted = runs.to_vec();
    sorted.sort_by_key(|(seed, _)| *seed);
    let values: Vec<f64> = sorted.iter().map(|(_, number)| number.value).collect();
    let (value, limits) = match values[..] {
        [only] => (only, None),
        _ => {
            let interval = mean_ci_t(&values, LEVEL)?;
            (interval.value, Some((interval.low, interval.high)))
        }
    };
    let of_one_run = first
        .protocol
        .strip_suffix(OVER_EXAMPLES)
        .unwrap_or(&first.protocol);
    Ok(Number {
        name: first.name.clone(),
        value,
        ci_low: limits.map(|(low, _)| low),
        ci_high: limits.map(|(_, high)| high),
        n: runs.len(),
        unit: Unit::Seed,
        direction: first.direction,
        protocol: format!("{of_one_run}; 95 % t interval over seeds"),
    })
}

/// How the protocol of a number with an interval over examples ends.
pub(crate) const OVER_EXAMPLES: &str = "; 95 % interval over examples";

#[cfg(test)]
mod tests {
    use ebb_space::Direction;

    use super::*;

    fn number(value: f64) -> Number {
        Number {
            name: "average_accuracy".into(),
            value,
            ci_low: Some(0.0),
            ci_high: Some(1.0),
            n: 1000,
            unit: Unit::Example,
            direction: Direction::Higher,
            protocol: "mean over sets; 95 % interval over examples".into(),
        }
    }

    #[test]
    fn five_seeds_by_hand() {
        // Mean 3, standard deviation sqrt(2.5), t(0.975, 4) = 2.7764451051977987.
        let numbers: Vec<Number> = [1.0, 2.0, 3.0, 4.0, 5.0].map(number).to_vec();
        let runs: Vec<(u64, &Number)> = numbers
            .iter()
            .enumerate()
            .map(|(s, n)| (s as u64, n))
            .collect();
        let over = over_seeds(&runs).unwrap();
        let half = 2.776_445_105_197_798_7 * (2.5f64 / 5.0).sqrt();
        assert_eq!((over.value, over.n, over.unit), (3.0, 5, Unit::Seed));
        assert!((over.ci_low.unwrap() - (3.0 - half)).abs() < 1e-9);
        assert!((over.ci_high.unwrap() - (3.0 + half)).abs() < 1e-9);
        assert_eq!(over.protocol, "mean over sets; 95 % t interval over seeds");
        let reversed: Vec<_> = runs.iter().rev().copied().collect();
        assert_eq!(over_seeds(&reversed).unwrap(), over);
        assert_eq!(over_seeds(&runs[..1]).unwrap().ci_low, None);
    }

    #[test]
    fn what_must_not_be_mixed_is_refused() {
        let a = number(1.0);
        let refused = |b: Number| {
            matches!(over_seeds(&[(1, &a), (2, &b)]), Err(Error::Mixed(_)))
                && over_seeds(&[(1, &a)]).is_ok()
        };
        assert!(refused(Number {
            protocol: "other".into(),
            ..number(2.0)
        }));
        assert!(refused(Number {
            name: "other".into(),
            ..number(2.0)
        }));
        assert!(refused(Number {
            direction: Direction::Lower,
            ..number(2.0)
        }));
        assert!(refused(Number {
            unit: Unit::Step,
            ..number(2.0)
        }));
        assert!(refused(Number {
            unit: Unit::Seed,
            ..number(2.0)
        }));
        assert!(refused(number(f64::NAN)));
        assert!(matches!(
            over_seeds(&[(1, &a), (1, &a)]),
            Err(Error::Mixed(_))
        ));
        assert!(matches!(over_seeds(&[]), Err(Error::Mixed(_))));
    }
}
