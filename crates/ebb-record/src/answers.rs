//! What became of answers: was their form forgotten, or what they say?
//!
//! A model that learns to answer in another form may still know what it no longer says as it was
//! asked to. Answers in the model's own words are therefore judged three times: word for word
//! (*exact*), by whether the truth stands in them at all (*shown*), and, whatever it wrote, by whether
//! the truth is likelier to it than other answers of the same set (*chosen*). What is no longer exact
//! but still shown was forgotten superficially, what is no longer shown essentially.
//!
//! Source: Chen et al., *SEFE: Superficial and Essential Forgetting Eliminator for Multimodal
//! Continual Instruction Tuning*, 2025 (card S036); a choice by likelihood is ours, since a truth that
//! stands nowhere in the answer may still be known.

use crate::curriculum::Curriculum;
use ebb_space::stats::mean_ci_t;
use ebb_space::{Direction, Number, Unit};
use serde::{Deserialize, Serialize};

/// Level of the intervals.
const LEVEL: f64 = 0.95;

/// One answer, judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub struct Judged {
    /// It is the truth, bar the space around it.
    pub exact: bool,
    /// The words of the truth stand in it, one behind the other (SQuAD's normal form).
    pub shown: bool,
    /// The truth is likelier than every other answer it was put beside; none where there is no other.
    pub chosen: Option<bool>,
}

impl From<Judged> for u8 {
    fn from(judged: Judged) -> u8 {
        let chosen = match judged.chosen {
            None => 0,
            Some(false) => 4,
            Some(true) => 12,
        };
        u8::from(judged.exact) | u8::from(judged.shown) << 1 | chosen
    }
}

impl From<u8> for Judged {
    fn from(code: u8) -> Judged {
        Judged {
            exact: code & 1 != 0,
            shown: code & 2 != 0,
            chosen: (code & 4 != 0).then_some(code & 8 != 0),
        }
    }
}

/// The answers to the same questions of one test set after an experience.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    /// The experience it was taken after, −1 before any learning.
    pub after: i32,
    /// The test set.
    pub set: usize,
    /// Each answer, in the order of the questions.
    pub judged: Vec<Judged>,
}

/// A share of the answers with what it is called.
type Share = (&'static str, fn(&Judged) -> Option<f64>);

const EXACT: Share = ("answers_exact", |j| Some(f64::from(u8::from(j.exact))));
const SHOWN: Share = ("answers_shown", |j| Some(f64::from(u8::from(j.shown))));
const CHOSEN: Share = ("answers_chosen", |j| {
    j.chosen.map(|c| f64::from(u8::from(c)))
});

/// What answers came to after experience `last`: shares over the sets seen, and how much of the
/// earlier ones was forgotten in which way since they were learnt.
pub(crate) fn numbers(answers: &[Answers], curriculum: &Curriculum, last: usize) -> Vec<Number> {
    let find = |after: usize, set: usize| {
        let mut all = answers.iter().rev();
        all.find(|a| usize::try_from(a.after) == Ok(after) && a.set == set)
    };
    let now: Vec<&Answers> = (curriculum.seen(last).into_iter())
        .filter_map(|set| find(last, set))
        .collect();
    let mut numbers: Vec<Number> = [EXACT, SHOWN, CHOSEN]
        .into_iter()
        .filter_map(|(name, share)| {
            let sample = now.iter().flat_map(|a| &a.judged).filter_map(share);
            number(
                name,
                "answers to the sets seen",
                Direction::Higher,
                sample.collect(),
            )
        })
        .collect();
    let pairs: Vec<(Judged, Judged)> = (curriculum.earlier(last).into_iter())
        .filter_map(|set| {
            let learnt = find(curriculum.last_visit(set, last)?, set)?;
            let now = find(last, set)?;
            (learnt.judged.len() == now.judged.len()).then(|| {
                learnt
                    .judged
                    .iter()
                    .copied()
                    .zip(now.judged.iter().copied())
            })
        })
        .flatten()
        .collect();
    let lost = |share: Share| {
        move |(then, now): &(Judged, Judged)| Some((share.1)(then)? - (share.1)(now)?)
    };
    let (exact, shown, chosen) = (lost(EXACT), lost(SHOWN), lost(CHOSEN));
    let essential: Vec<f64> = pairs.iter().filter_map(&shown).collect();
    let superficial = pairs
        .iter()
        .filter_map(|p| Some(exact(p)? - shown(p)?))
        .collect();
    let choice = pairs.iter().filter_map(&chosen).collect();
    let of = "answers to earlier sets, after each was learnt - at the end";
    numbers.extend(
        [
            ("forgetting_superficial", superficial),
            ("forgetting_essential", essential),
            ("forgetting_by_choice", choice),
        ]
        .into_iter()
        .filter_map(|(name, sample)| number(name, of, Direction::Lower, sample)),
    );
    numbers
}

/// The mean of a sample of answers; none of an empty one.
fn number(name: &str, of: &str, direction: Direction, sample: Vec<f64>) -> Option<Number> {
    if sample.is_empty() {
        return None;
    }
    let ci = mean_ci_t(&sample, LEVEL).ok();
    Some(Number {
        name: name.to_owned(),
        value: sample.iter().sum::<f64>() / sample.len() as f64,
        ci_low: ci.map(|ci| ci.low),
        ci_high: ci.map(|ci| ci.high),
        n: sample.len(),
        unit: Unit::Example,
        direction,
        protocol: format!("{of}; 95 % interval (t)"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(exact: bool, shown: bool, chosen: Option<bool>) -> Judged {
        Judged {
            exact,
            shown,
            chosen,
        }
    }

    #[test]
    fn a_judgement_comes_back_from_its_code() {
        for code in [0, 1, 2, 3, 4, 7, 12, 15] {
            assert_eq!(u8::from(Judged::from(code)), code);
        }
    }

    #[test]
    fn form_and_content_are_told_apart() {
        let right = judged(true, true, Some(true));
        let other_form = judged(false, true, Some(true));
        let gone = judged(false, false, Some(false));
        let of = |after, set, judged: Vec<Judged>| Answers { after, set, judged };
        // Of four, two are now said in another form, one is gone.
        let answers = [
            of(0, 0, vec![right; 4]),
            of(1, 0, vec![other_form, other_form, gone, right]),
            of(1, 1, vec![right, gone]),
        ];
        let all = numbers(&answers, &Curriculum::square(2), 1);
        let value = |name: &str| all.iter().find(|n| n.name == name).map(|n| n.value);
        assert_eq!(value("answers_exact"), Some(2.0 / 6.0));
        assert_eq!(value("answers_shown"), Some(4.0 / 6.0));
        assert_eq!(value("forgetting_superficial"), Some(0.5));
        assert_eq!(value("forgetting_essential"), Some(0.25));
        assert_eq!(value("forgetting_by_choice"), Some(0.25));
        // Without answers there is nothing to say.
        assert!(numbers(&[], &Curriculum::square(2), 1).is_empty());
    }
}
