//! Linear worlds: learners simple enough that their forgetting is known exactly.
//!
//! | file | card | what is known |
//! |---|---|---|
//! | [`minimum_norm`] | S059 | the expected error on every task after every task |
//! | [`rotated_pair`] | S041 | forgetting against similarity, in both limits and exactly for rank 1 |
//! | [`sequential_bayes`] | S188 | exact posteriors, passed on from task to task |
//! | [`max_margin`] | S095 | each task is a projection; the distance to a joint solution never rises |
//! | [`spurious`] | S101 | the rule, what is easier than it, and what can be memorised |
//! | [`ideal`] | S034 | a learner that keeps every minimiser of its tasks never forgets |
//!
//! They stand on their own: `f64`, no network, no files. Each has a `study` that measures the
//! claims of its card with intervals, next to controls that must *not* hold, and serves as an
//! oracle for whoever forecasts or measures forgetting.

pub mod ideal;
pub(crate) mod linalg;
pub mod max_margin;
pub mod minimum_norm;
pub mod rotated_pair;
pub mod sequential_bayes;
pub mod spurious;

use ebb_space::{Direction, Number, Unit, stats};
use serde::{Deserialize, Serialize};

/// What can go wrong in a linear world.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sizes asked for make no world.
    #[error("this world cannot be built: {0}")]
    Sizes(String),
    /// A Gram matrix is singular.
    #[error("the samples of one task are linearly dependent; use fewer samples or more dimensions")]
    Singular,
    /// A projection or a Newton iteration did not come to rest.
    #[error("{0} did not converge; the tasks may not be separable")]
    NoConvergence(&'static str),
    /// A statistic refused its sample.
    #[error(transparent)]
    Statistics(#[from] ebb_space::Error),
}

/// A result of a linear world.
pub type Result<T> = std::result::Result<T, Error>;

/// What a study of a linear world found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Card id, such as `S059`.
    pub id: String,
    /// What is claimed.
    pub claim: String,
    /// What was measured, each with its interval over independent draws of the world.
    pub measured: Vec<Number>,
    /// What must hold.
    pub expectations: Vec<Check>,
    /// What must not hold: the same tests on something that lacks the claimed cause.
    pub controls: Vec<Check>,
}

/// One test of a finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What is tested.
    pub name: String,
    /// The rule, in words.
    pub rule: String,
    /// The value that the rule is about.
    pub value: f64,
    /// Whether the rule holds.
    pub holds: bool,
}

impl Finding {
    /// Whether every expectation holds and no control does.
    pub fn holds(&self) -> bool {
        self.expectations.iter().all(|check| check.holds)
            && !self.controls.iter().any(|check| check.holds)
    }
}

impl Check {
    fn at_most(name: impl Into<String>, value: f64, bound: f64) -> Check {
        Check {
            name: name.into(),
            rule: format!("at most {bound}"),
            value,
            holds: value <= bound,
        }
    }

    fn at_least(name: impl Into<String>, value: f64, bound: f64) -> Check {
        Check {
            name: name.into(),
            rule: format!("at least {bound}"),
            value,
            holds: value >= bound,
        }
    }

    fn above(name: impl Into<String>, value: f64, bound: f64) -> Check {
        Check {
            name: name.into(),
            rule: format!("above {bound}"),
            value,
            holds: value > bound,
        }
    }
}

/// Mean of independent draws with its 95 % interval (Student's t).
fn number(
    name: impl Into<String>,
    sample: &[f64],
    direction: Direction,
    protocol: &str,
) -> Result<Number> {
    let interval = stats::mean_ci_t(sample, 0.95)?;
    Ok(Number {
        name: name.into(),
        value: mean(sample),
        ci_low: Some(interval.low),
        ci_high: Some(interval.high),
        n: sample.len(),
        unit: Unit::Run,
        direction,
        protocol: protocol.to_owned(),
    })
}

fn mean(sample: &[f64]) -> f64 {
    sample.iter().sum::<f64>() / sample.len() as f64
}

/// Standard error of the mean of independent draws.
fn standard_error(sample: &[f64]) -> f64 {
    let (n, mean) = (sample.len() as f64, mean(sample));
    (sample.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt()
}

/// How many standard errors the mean of a sample lies from its theory.
fn deviation(sample: &[f64], theory: f64) -> f64 {
    ((mean(sample) - theory) / standard_error(sample)).abs()
}

/// The largest of some values; NaN if one of them is, so that no bound holds for it.
fn largest(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::NEG_INFINITY, |a, b| {
        if a.is_nan() || b.is_nan() {
            f64::NAN
        } else {
            a.max(b)
        }
    })
}

/// The smallest of some values; NaN if one of them is.
fn smallest(values: impl IntoIterator<Item = f64>) -> f64 {
    -largest(values.into_iter().map(|x| -x))
}
