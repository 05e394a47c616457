//! The general ability set.

use serde::Deserialize;

use crate::metrics::Likelihood;
use crate::question::Question;

/// A text that is scored by its likelihood.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Text {
    /// What it is called.
    pub name: String,
    /// Where it comes from: `written` or `austen`.
    pub source: String,
    /// What it says; at least a hundred words.
    pub text: String,
}

/// A frozen set of texts and questions for what a model could do before it was taught anything
/// else.
///
/// Nothing in here is to be learnt from. A new set is a new version: scores of different versions
/// are different numbers. Where it comes from, and its licences, stand in
/// `data/general-v1/LICENSES.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct General {
    /// The texts.
    pub texts: Vec<Text>,
    /// The questions, kind by kind. A choice continues the prompt as it stands: the right one
    /// should be the likeliest.
    pub questions: Vec<Question>,
    version: &'static str,
    hash: String,
}

const TEXTS: &str = include_str!("../data/general-v1/texts.jsonl");
const QUESTIONS: &str = include_str!("../data/general-v1/questions.jsonl");

#[derive(Deserialize)]
struct Row {
    kind: String,
    prompt: String,
    choices: Vec<String>,
    answer: usize,
}

impl General {
    /// The first version, `general-v1`.
    pub fn v1() -> General {
        let texts = TEXTS
            .lines()
            .map(|line| serde_json::from_str(line).expect("a text"));
        let question = |line: &str| {
            let row: Row = serde_json::from_str(line).expect("a question");
            Question::new(row.kind, row.prompt, row.choices, row.answer)
        };
        let mut hasher = blake3::Hasher::new_derive_key("ebbinghaus v1 general ability set");
        for file in [TEXTS, QUESTIONS] {
            hasher.update(&(file.len() as u64).to_le_bytes());
            hasher.update(file.as_bytes());
        }
        General {
            texts: texts.collect(),
            questions: QUESTIONS.lines().map(question).collect(),
            version: "general-v1",
            hash: hasher.finalize().to_hex().to_string(),
        }
    }

    /// The name of the version, which every score carries.
    pub fn version(&self) -> &'static str {
        self.version
    }

    /// BLAKE3 of all that is in it, in hex.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The kinds of questions, in their order.
    pub fn kinds(&self) -> Vec<&str> {
        let mut kinds: Vec<&str> = self.questions.iter().map(|q| q.kind.as_str()).collect();
        kinds.dedup();
        kinds
    }

    /// The questions of one kind.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Question> {
        self.questions.iter().filter(move |q| q.kind == kind)
    }

    /// The share of a kind's questions that a guess answers: the mean of one over the number of
    /// choices. Not a number for a kind that is not there.
    pub fn chance(&self, kind: &str) -> f64 {
        chance(self.of_kind(kind))
    }
}

/// The share of questions that a guess answers: the mean of one over the number of choices. Not a
/// number for none.
pub fn chance<'a>(questions: impl Iterator<Item = &'a Question>) -> f64 {
    let (sum, n) = questions.fold((0.0, 0.0), |(sum, n), question| {
        (sum + 1.0 / question.choices.len() as f64, n + 1.0)
    });
    sum / n
}

/// Which choice is the likeliest; of equals the first. `None` for no choices or where one has no
/// likelihood that is a number.
///
/// Choices differ in length, and a long one is unlikely for that alone: per byte of the choice is
/// the usual remedy, and what the published benchmarks call the normalised accuracy.
pub fn likeliest(choices: &[Likelihood], per_byte: bool) -> Option<usize> {
    let score = |choice: &Likelihood| match per_byte {
        true => choice.log_likelihood / choice.bytes as f64,
        false => choice.log_likelihood,
    };
    let mut best: Option<(usize, f64)> = None;
    for (i, choice) in choices.iter().enumerate() {
        let score = score(choice);
        if score.is_nan() {
            return None;
        }
        if best.is_none_or(|(_, most)| score > most) {
            best = Some((i, score));
        }
    }
    best.map(|(i, _)| i)
}
