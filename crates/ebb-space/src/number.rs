//! Numbers that carry their meaning, and refuse to be compared across meanings.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A measured value with its interval, its sample and its protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Number {
    /// What was measured, such as `forgetting`.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Lower end of the interval, where there is one.
    pub ci_low: Option<f64>,
    /// Upper end of the interval, where there is one.
    pub ci_high: Option<f64>,
    /// Size of the sample the interval is over, counted in `unit`.
    pub n: usize,
    /// What the sample consists of.
    pub unit: Unit,
    /// Which way is better.
    pub direction: Direction,
    /// Everything else that must agree before two numbers may be compared: which data, which
    /// variant of the measure, which level of the interval.
    pub protocol: String,
}

/// What an interval is over. Intervals over examples (of one run) and over seeds (of a group of
/// runs) answer different questions and are never mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Examples of one run.
    Example,
    /// Seeds: runs that differ in their seed alone.
    Seed,
    /// Runs that differ in more than the seed.
    Run,
    /// Steps of one run.
    Step,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Greater values are better.
    Higher,
    /// Smaller values are better.
    Lower,
    /// Neither.
    None,
}

/// What a comparison of two numbers found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// `a − b`.
    pub difference: f64,
    /// Whether `a` is better: `None` without a direction, or if they are equal.
    pub better: Option<bool>,
    /// Whether the two intervals do not touch: `None` where one is missing. Intervals that touch
    /// do not prove equality; for paired runs use a paired test.
    pub apart: Option<bool>,
}

impl Number {
    /// Compares `self` with `other`.
    ///
    /// # Errors
    /// [`Error::NotComparable`] if name, unit, direction or protocol differ, or a value is NaN.
    pub fn compare(&self, other: &Number) -> Result<Comparison> {
        let refuse = |what: &'static str, a: String, b: String| {
            Err(Error::NotComparable {
                what,
                left: a,
                right: b,
            })
        };
        if self.name != other.name {
            return refuse("measures", self.name.clone(), other.name.clone());
        }
        if self.protocol != other.protocol {
            return refuse("protocols", self.protocol.clone(), other.protocol.clone());
        }
        if self.unit != other.unit {
            return refuse(
                "units",
                format!("{:?}", self.unit),
                format!("{:?}", other.unit),
            );
        }
        if self.direction != other.direction {
            let text = |d| format!("{d:?}");
            return refuse("directions", text(self.direction), text(other.direction));
        }
        if self.value.is_nan() || other.value.is_nan() {
            return refuse("values", self.value.to_string(), other.value.to_string());
        }
        let difference = self.value - other.value;
        let better = match self.direction {
            Direction::Higher if self.value != other.value => Some(self.value > other.value),
            Direction::Lower if self.value != other.value => Some(self.value < other.value),
            _ => None,
        };
        let interval = |n: &Number| Some((n.ci_low?, n.ci_high?));
        let apart = (interval(self).zip(interval(other)))
            .map(|((a_low, a_high), (b_low, b_high))| a_low > b_high || b_low > a_high);
        Ok(Comparison {
            difference,
            better,
            apart,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: f64) -> Number {
        Number {
            name: "forgetting".into(),
            value,
            ci_low: Some(value - 0.1),
            ci_high: Some(value + 0.1),
            n: 8,
            unit: Unit::Seed,
            direction: Direction::Lower,
            protocol: "mnist split 5; max minus last; 95 %".into(),
        }
    }

    #[test]
    fn like_is_compared_with_like_only() {
        let (a, b) = (number(0.25), number(0.5));
        let found = a.compare(&b).unwrap();
        assert_eq!(
            found,
            Comparison {
                difference: -0.25,
                better: Some(true),
                apart: Some(true)
            }
        );
        assert_eq!(number(0.375).compare(&b).unwrap().apart, Some(false));
        assert_eq!(
            a.compare(&Number {
                ci_low: None,
                ..b.clone()
            })
            .unwrap()
            .apart,
            None
        );
        assert_eq!(a.compare(&a).unwrap().better, None);
        for other in [
            Number {
                name: "accuracy".into(),
                ..b.clone()
            },
            Number {
                protocol: "another".into(),
                ..b.clone()
            },
            Number {
                unit: Unit::Example,
                ..b.clone()
            },
            Number {
                direction: Direction::Higher,
                ..b.clone()
            },
            Number {
                value: f64::NAN,
                ..b.clone()
            },
        ] {
            assert!(
                matches!(a.compare(&other), Err(Error::NotComparable { .. })),
                "{other:?}"
            );
        }
    }

    #[test]
    fn the_written_form_is_stable() {
        let json = serde_json::to_string(&number(0.5)).unwrap();
        assert_eq!(
            json,
            "{\"name\":\"forgetting\",\"value\":0.5,\"ci_low\":0.4,\"ci_high\":0.6,\"n\":8,\
             \"unit\":\"seed\",\"direction\":\"lower\",\
             \"protocol\":\"mnist split 5; max minus last; 95 %\"}"
        );
        assert_eq!(serde_json::from_str::<Number>(&json).unwrap(), number(0.5));
    }
}
