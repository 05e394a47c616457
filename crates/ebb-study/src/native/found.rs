//! What a native study found, arm by arm.

use crate::clause::{Sample, Samples};
use crate::error::Result;
use crate::verdict::ArmReport;
use ebb_record::over_seeds;
use ebb_space::{Direction, Number, Unit};
use std::collections::BTreeMap;

/// Measures of arms, a value a seed.
pub(crate) struct Found<'a> {
    method: &'static str,
    protocol: String,
    seeds: &'a [u64],
    pub(crate) numbers: BTreeMap<(String, String), Vec<Number>>,
}

impl<'a> Found<'a> {
    pub fn new(method: &'static str, protocol: String, seeds: &'a [u64]) -> Self {
        Self {
            method,
            protocol,
            seeds,
            numbers: BTreeMap::new(),
        }
    }

    pub fn add(
        &mut self,
        arm: &str,
        name: &str,
        values: Vec<f64>,
        direction: Direction,
        what: &str,
    ) {
        let numbers = values
            .into_iter()
            .map(|value| Number {
                name: name.to_owned(),
                value,
                ci_low: None,
                ci_high: None,
                n: 1,
                unit: Unit::Example,
                direction,
                protocol: format!("{what}; {}", self.protocol),
            })
            .collect();
        self.numbers
            .insert((arm.to_owned(), name.to_owned()), numbers);
    }

    pub fn finish(self) -> Result<(Samples, Vec<ArmReport>)> {
        let mut samples = Samples::new();
        let mut arms: BTreeMap<String, ArmReport> = BTreeMap::new();
        for ((arm, name), numbers) in self.numbers {
            let values: Vec<f64> = numbers.iter().map(|n| n.value).collect();
            let runs: Vec<(u64, &Number)> = self.seeds.iter().copied().zip(&numbers).collect();
            let report = arms.entry(arm.clone()).or_insert_with(|| ArmReport {
                name: arm.clone(),
                about: String::new(),
                method: self.method.to_owned(),
                recipe: String::new(),
                train_seconds: 0.0,
                diverged: Vec::new(),
                measured: Vec::new(),
                per_seed: BTreeMap::new(),
            });
            report.measured.push(over_seeds(&runs)?);
            report.per_seed.insert(name.clone(), values.clone());
            let protocol = numbers[0].protocol.clone();
            samples.insert((arm, name), Sample { values, protocol });
        }
        Ok((samples, arms.into_values().collect()))
    }
}
