//! What is left of the records in a model, and what it still can.
//!
//! A model from which records were erased should be to them what a model is that never saw them: as good
//! and as bad as on other examples of their kind, no better known than those, and no faster relearnt. All
//! of it is measured on the model itself and, where it can be had, on models that were trained without
//! the records: the *oracle*. One number alone proves nothing: a destroyed model forgets too.
//!
//! Sources: gaps to retraining, loss attack and relearning as in the cards X17, S015 and S032.

use crate::eraser::Descent;
use crate::error::Result;
use crate::subject::{Part, Subject};
use ebb_data::{Item, Part as Data};
use ebb_learn::Oracle;
use ebb_learn::evaluate::{Outcome, evaluate_part};
use ebb_learn::objective::remembering;
use ebb_space::audit::Scores;
use ebb_space::stats::mean_ci_t;
use ebb_space::{Direction, Number, Unit};
use serde::Serialize;
use std::collections::BTreeMap;

/// Level of the intervals.
const LEVEL: f64 = 0.95;
/// Items of a set that are looked at.
const MOST: usize = 2000;

/// How the records are relearnt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Relearning {
    /// Small steps on the records alone.
    pub descent: Descent,
}

impl Default for Relearning {
    fn default() -> Self {
        Self {
            descent: Descent {
                steps: 10,
                ..Descent::default()
            },
        }
    }
}

/// Everything measured of a model: `forget_accuracy`, `forget_loss`, the same of `retain` and of `test`
/// (test examples of the kinds that stay, since a class that goes takes its own with it), `attack_auc` (how well the loss tells the records from test examples of their kind) and
/// `relearnt_accuracy`. The model is as it was afterwards.
///
/// # Errors
/// When a pass fails.
pub fn left(subject: &mut Subject, relearning: &Relearning) -> Result<Vec<Number>> {
    let stream = subject.session.stream.clone();
    let forget = sample(subject, &subject.forget);
    let retain = sample(subject, &subject.retain);
    let all: Vec<Item> = stream
        .evals
        .iter()
        .flat_map(|e| e.items.iter().copied())
        .collect();
    let (gone, stays) = (kinds(&subject.forget), kinds(&subject.retain));
    let test: Vec<Item> = all
        .iter()
        .filter(|t| !is_whole(&gone, &stays, &kind(t)))
        .copied()
        .collect();
    let test = sample(subject, &test);
    let alike: Vec<Item> = all
        .iter()
        .filter(|t| gone.contains_key(&kind(t)))
        .copied()
        .collect();
    let alike = sample(subject, &alike);
    let mut numbers = Vec::new();
    let oracle = subject.oracle();
    let mut of = |oracle: &mut Oracle, name: &str, data: Data, items: &[Item]| {
        let outcomes = evaluate_part(oracle, &stream, data, items);
        numbers.push(accuracy(&format!("{name}_accuracy"), &outcomes));
        numbers.push(loss(&format!("{name}_loss"), &outcomes));
        outcomes
    };
    let members = of(oracle, "forget", Data::Train, &forget);
    of(oracle, "retain", Data::Train, &retain);
    of(oracle, "test", Data::Test, &test);
    let others = evaluate_part(oracle, &stream, Data::Test, &alike);
    numbers.extend(attack(&members, &others));
    let before = oracle.model.weights();
    let objective = remembering();
    let batch = relearning.descent.batch;
    relearning
        .descent
        .go("relearning", subject, |subject, step, g| {
            let items = subject.draw(Part::Forget, batch, step);
            subject.gradient(&objective, &items, g)?;
            Ok(())
        })?;
    let oracle = subject.oracle();
    let again = evaluate_part(oracle, &stream, Data::Train, &forget);
    numbers.push(accuracy("relearnt_accuracy", &again));
    oracle
        .model
        .set_weights(&before)
        .map_err(ebb_learn::Error::from)?;
    Ok(numbers)
}

/// What records are alike in: their head and label.
pub(crate) type Kind = (u16, u32);

fn kind(item: &Item) -> Kind {
    (item.task, item.label)
}

/// How many items of each kind there are.
pub(crate) fn kinds(items: &[Item]) -> BTreeMap<Kind, usize> {
    let mut counts = BTreeMap::new();
    items
        .iter()
        .for_each(|i| *counts.entry(kind(i)).or_default() += 1);
    counts
}

/// Whether (nearly) all records of a kind are to go.
pub(crate) fn is_whole(
    gone: &BTreeMap<Kind, usize>,
    stays: &BTreeMap<Kind, usize>,
    kind: &Kind,
) -> bool {
    let count = |of: &BTreeMap<Kind, usize>| of.get(kind).copied().unwrap_or(0) as f64;
    count(gone) > 0.0 && count(gone) >= 0.9 * (count(gone) + count(stays))
}

/// At most [`MOST`] items, decided by their ids.
fn sample(subject: &Subject, items: &[Item]) -> Vec<Item> {
    let mut items = items.to_vec();
    subject
        .key
        .sub("measured")
        .order(&mut items, |i| i.id.mix());
    items.truncate(MOST);
    items
}

fn mean(name: &str, sample: &[f64], direction: Direction, protocol: &str) -> Number {
    let ci = mean_ci_t(sample, LEVEL).ok();
    Number {
        name: name.to_owned(),
        value: sample.iter().sum::<f64>() / sample.len().max(1) as f64,
        ci_low: ci.map(|ci| ci.low),
        ci_high: ci.map(|ci| ci.high),
        n: sample.len(),
        unit: Unit::Example,
        direction,
        protocol: format!("{protocol}; 95 % interval (t)"),
    }
}

fn accuracy(name: &str, outcomes: &[Outcome]) -> Number {
    let right: Vec<f64> = outcomes
        .iter()
        .map(|o| f64::from(u8::from(o.correct)))
        .collect();
    mean(
        name,
        &right,
        Direction::Higher,
        "share of examples answered rightly",
    )
}

fn loss(name: &str, outcomes: &[Outcome]) -> Number {
    let losses: Vec<f64> = outcomes.iter().map(|o| f64::from(o.loss)).collect();
    mean(name, &losses, Direction::Lower, "mean cross-entropy")
}

/// The area under the curve of telling `members` from `others` by a lower loss; none where one of them is
/// empty or a loss is no number.
fn attack(members: &[Outcome], others: &[Outcome]) -> Option<Number> {
    let scores = |of: &[Outcome]| of.iter().map(|o| -f64::from(o.loss)).collect::<Vec<_>>();
    let (inside, outside) = (scores(members), scores(others));
    let scores = Scores {
        members: &inside,
        others: &outside,
    };
    let auc = scores.auc(LEVEL).ok()?;
    Some(Number {
        name: "attack_auc".into(),
        value: auc.value,
        ci_low: Some(auc.low),
        ci_high: Some(auc.high),
        n: members.len().min(others.len()),
        unit: Unit::Example,
        direction: Direction::Lower,
        protocol: "records told from test examples of their kind by a lower loss, area under the \
                   curve; 95 % interval (Hanley & McNeil)"
            .into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(losses: &[f32]) -> Vec<Outcome> {
        let outcome = |loss: &f32| Outcome {
            loss: *loss,
            correct: *loss < 1.0,
        };
        losses.iter().map(outcome).collect()
    }

    #[test]
    fn an_attack_on_known_losses() {
        let auc = |a: &[f32], b: &[f32]| attack(&of(a), &of(b)).map(|n| n.value);
        assert_eq!(auc(&[0.1, 0.2], &[1.0, 2.0]), Some(1.0));
        assert_eq!(auc(&[1.0, 2.0], &[1.0, 2.0]), Some(0.5));
        assert_eq!(auc(&[0.1, 3.0], &[1.0, 2.0]), Some(0.5));
        assert_eq!(auc(&[], &[1.0]), None);
        assert_eq!(auc(&[f32::NAN], &[1.0]), None);
    }
}
