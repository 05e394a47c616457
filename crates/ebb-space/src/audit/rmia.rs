//! The robust membership attack: against records of the population.
//!
//! **What it does.** Asks of a record whether the model raised its probability, over what it is by
//! itself, more than it raised those of records nobody trained on; the share of such records that it
//! beats is the score. Works with a single reference model.
//! **Source.** Zarifzadeh, Liu & Shokri, *Low-cost high-power membership inference attacks*, ICML 2024
//! (card X17), offline form.
//! **Equation.** `Pr_z[ (p(x|θ)/p(x)) / (p(z|θ)/p(z)) > 1 ]` with `p(x) = (1+a)/2 · p_out(x) + (1−a)/2`.
//! **Use it** with few shadow models and a population of the records' kind. **Not** on probabilities of
//! whole texts, which vanish: take those per token.

use crate::{Error, Result};

/// What is known of one record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signal {
    /// Its probability (of the right answer) under the model that is audited, in [0, 1].
    pub target: f64,
    /// Its mean probability under models that never saw it, in [0, 1].
    pub out: f64,
}

/// The score of each record in [0, 1]; greater means rather a member. `a` in [0, 1] says how a record's
/// probability without it is extrapolated to that over all models: near 0.3 for images in the paper,
/// 1 where learning a record hardly moves it.
///
/// # Errors
/// No records or no population, a value outside [0, 1]; [`Error::NoVariation`] for a record whose
/// probability is 0 under every model, which `a = 1` allows.
pub fn rmia(records: &[Signal], population: &[Signal], a: f64) -> Result<Vec<f64>> {
    if !(0.0..=1.0).contains(&a) {
        return Err(Error::BadLevel(a));
    }
    if records.is_empty() || population.is_empty() {
        return Err(Error::SampleTooSmall {
            needed: 1,
            found: 0,
        });
    }
    let raised = |signal: &Signal| {
        for p in [signal.target, signal.out] {
            if !(0.0..=1.0).contains(&p) {
                return Err(Error::BadLevel(p));
            }
        }
        let ratio = signal.target / ((1.0 + a) / 2.0 * signal.out + (1.0 - a) / 2.0);
        match ratio.is_finite() {
            true => Ok(ratio),
            false => Err(Error::NoVariation),
        }
    };
    let mut beaten = population.iter().map(raised).collect::<Result<Vec<_>>>()?;
    beaten.sort_unstable_by(f64::total_cmp);
    let share = |x: f64| beaten.partition_point(|z| *z < x) as f64 / beaten.len() as f64;
    records.iter().map(|s| raised(s).map(share)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    fn signal(target: f64, out: f64) -> Signal {
        Signal { target, out }
    }

    #[test]
    fn the_share_of_the_population_beaten_pair_by_pair() {
        let key = Key::new(4, "rmia");
        let of = |name: &str, n: u64| -> Vec<Signal> {
            let key = key.sub(name);
            // A coarse grid, so that there are ties.
            let p = |i| (key.uniform(i) * 8.0).ceil() / 8.0;
            (0..n).map(|i| signal(p(2 * i), p(2 * i + 1))).collect()
        };
        let (records, population) = (of("x", 40), of("z", 60));
        for a in [0.0, 0.3, 1.0] {
            let got = rmia(&records, &population, a).unwrap();
            for (x, got) in records.iter().zip(got) {
                let p = |s: &Signal| (1.0 + a) / 2.0 * s.out + (1.0 - a) / 2.0;
                let beaten = population
                    .iter()
                    .filter(|z| x.target / p(x) > z.target / p(z));
                assert_eq!(got, beaten.count() as f64 / 60.0);
            }
        }
    }

    #[test]
    fn by_hand_and_apart_from_how_likely_a_record_is_anyway() {
        // a = 0.5: p(x) = ¾ out + ¼. Ratios of the population: 0.4/0.55 = 0.727, 0.9/0.925 = 0.973.
        let population = [signal(0.4, 0.4), signal(0.9, 0.9)];
        // 0.5/0.4 = 1.25 beats both; 0.95/0.9625 = 0.987 both; 0.3/0.4 = 0.75 one; 0.1/0.4 none.
        let records = [
            signal(0.5, 0.2),
            signal(0.95, 0.95),
            signal(0.3, 0.2),
            signal(0.1, 0.2),
        ];
        let got = rmia(&records, &population, 0.5).unwrap();
        assert_eq!(got, [1.0, 1.0, 0.5, 0.0]);
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        let good = [signal(0.5, 0.5)];
        for bad in [signal(1.1, 0.5), signal(0.5, -0.1), signal(f64::NAN, 0.5)] {
            assert!(rmia(&[bad], &good, 0.5).is_err() && rmia(&good, &[bad], 0.5).is_err());
        }
        assert!(rmia(&good, &[], 0.5).is_err() && rmia(&[], &good, 0.5).is_err());
        assert!(rmia(&good, &good, 1.1).is_err());
        assert_eq!(
            rmia(&[signal(0.0, 0.0)], &good, 1.0),
            Err(Error::NoVariation)
        );
    }
}
