//! Arithmetic modulo a number.

use ebb_space::Key;
use serde::{Deserialize, Serialize};

use super::Task;
use crate::error::{Error, Result};
use crate::example::Example;
use crate::question::Question;

/// What is done with two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// `a + b`.
    Add,
    /// `a − b`.
    Subtract,
    /// `a · b`.
    Multiply,
    /// The `c` with `c · b = a`; the modulus must be a prime, and `b` is never 0.
    Divide,
}

/// All of `a op b mod p`, parted into what is learnt and what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Modular {
    /// The modulus `p`, from 2 to 1000.
    pub modulus: u32,
    /// The operation.
    pub operation: Operation,
    /// Which share of the pairs is learnt.
    pub train: f64,
    /// Which pairs these are.
    pub seed: u64,
}

impl Modular {
    /// The result for `a` and `b`.
    fn result(&self, a: u32, b: u32) -> u32 {
        let p = self.modulus;
        match self.operation {
            Operation::Add => (a + b) % p,
            Operation::Subtract => (a + p - b) % p,
            Operation::Multiply => a * b % p,
            // Fermat: b^(p-2) is the inverse of b modulo a prime.
            Operation::Divide => a * power(b, p - 2, p) % p,
        }
    }

    /// Examples `a op b mod p = c` and the held-out questions. Where the order of two numbers does
    /// not matter, both orders are on the same side.
    ///
    /// # Errors
    /// [`Error::Setting`] for a modulus or share out of range.
    pub fn task(&self) -> Result<Task> {
        let p = self.modulus;
        if !(2..=1000).contains(&p) {
            return Err(Error::Setting(format!(
                "a modulus is from 2 to 1000, not {p}"
            )));
        }
        if self.operation == Operation::Divide && (2..p).any(|d| p.is_multiple_of(d)) {
            return Err(Error::Setting(format!(
                "{p} is no prime, so not every number divides modulo it: take a prime or another \
                 operation"
            )));
        }
        if !(0.0..=1.0).contains(&self.train) {
            return Err(Error::Setting(format!(
                "the share to learn is from 0 to 1, not {}",
                self.train
            )));
        }
        let (sign, commutes, from) = match self.operation {
            Operation::Add => ('+', true, 0),
            Operation::Subtract => ('-', false, 0),
            Operation::Multiply => ('*', true, 0),
            Operation::Divide => ('/', false, 1),
        };
        let key = Key::new(self.seed, "modular");
        let side = key.sub("side");
        let mut task = Task::default();
        for (a, b) in (0..p).flat_map(|a| (from..p).map(move |b| (a, b))) {
            let (low, high) = if commutes {
                (a.min(b), a.max(b))
            } else {
                (a, b)
            };
            let prompt = format!("{a} {sign} {b} mod {p} =");
            let truth = format!(" {}", self.result(a, b));
            if side.uniform(u64::from(low) << 32 | u64::from(high)) < self.train {
                task.train.push(Example::completion(prompt, truth));
            } else {
                let others = (0..p).map(|c| format!(" {c}"));
                let question =
                    Question::drawn("modular", prompt, truth, others, 3, key.sub("choices"));
                task.questions.push(question);
            }
        }
        Ok(task)
    }
}

fn power(base: u32, exponent: u32, p: u32) -> u32 {
    let (mut result, mut base, mut exponent) = (1 % p, base % p, exponent);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result * base % p;
        }
        base = base * base % p;
        exponent >>= 1;
    }
    result
}
