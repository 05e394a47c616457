//! Evaluation: fixed, padded chunks, so that no batch size a user sets reaches a kernel.

use crate::language;
use crate::oracle::Oracle;
use crate::seen::{column, head, outputs};
use ebb_data::{Item, Part, Scenario, Stream};

/// Rows of an evaluation chunk; the last chunk of a set is padded with zeros.
const CHUNK: usize = 256;

/// One example's outcome.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Cross-entropy, over the outputs that compete; of a text, the mean over what it learns.
    pub loss: f32,
    /// Whether the largest of them was the label's; of a text, at every token it learns.
    pub correct: bool,
}

/// Outcomes of test items.
///
/// In task-incremental streams an item's head is given and its outputs compete; otherwise all do.
pub fn evaluate(oracle: &mut Oracle, stream: &Stream, items: &[Item]) -> Vec<Outcome> {
    evaluate_part(oracle, stream, Part::Test, items)
}

/// The same of items of either part of the data.
pub fn evaluate_part(
    oracle: &mut Oracle,
    stream: &Stream,
    part: Part,
    items: &[Item],
) -> Vec<Outcome> {
    if oracle.model.network().tokens() {
        return language::evaluate(oracle, stream, part, items);
    }
    let width = oracle.model.network().inputs();
    let outputs = outputs(stream);
    let mut outcomes = Vec::with_capacity(items.len());
    for chunk in items.chunks(CHUNK) {
        let mut x = Vec::with_capacity(CHUNK * width);
        stream.gather(part, chunk, &mut x);
        x.resize(CHUNK * width, 0.0);
        let logits = oracle.answers(x, CHUNK);
        for (item, z) in chunk.iter().zip(logits.chunks_exact(outputs)) {
            let competing = match stream.scenario {
                Scenario::Task => head(stream, usize::from(item.task)),
                Scenario::Domain | Scenario::Class => 0..outputs,
            };
            let label = column(stream, item) as usize - competing.start;
            outcomes.push(outcome(&z[competing], label));
        }
    }
    outcomes
}

/// The outcome of one row of logits.
pub fn outcome(z: &[f32], label: usize) -> Outcome {
    let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = z.iter().map(|v| f64::from(v - max).exp()).sum();
    let loss = (f64::from(max) + sum.ln() - f64::from(z[label])) as f32;
    // The first of equal maxima, so that a constant answer is not right everywhere.
    let argmax = z.iter().position(|v| *v == max);
    Outcome {
        loss,
        correct: argmax == Some(label),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_of_known_logits() {
        let o = outcome(&[0.0, (3.0f32).ln()], 1);
        assert!(o.correct && (o.loss - (4.0f32 / 3.0).ln()).abs() < 1e-6);
        let tie = outcome(&[1.0, 1.0], 1);
        assert!(!tie.correct && (tie.loss - (2.0f32).ln()).abs() < 1e-6);
        assert!(!outcome(&[f32::NAN, f32::NAN], 0).correct);
    }
}
