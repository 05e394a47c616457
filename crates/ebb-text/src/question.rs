//! A question whose truth is known.

use ebb_space::{ExampleId, Key};

use crate::example::Example;

/// A prompt and the texts that may follow it, one of which is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who it is: prompt and truth.
    pub id: ExampleId,
    /// What it asks for: results are reported for each kind.
    pub kind: String,
    /// What is given.
    pub prompt: String,
    /// Continuations of the prompt, with the space that parts them from it.
    pub choices: Vec<String>,
    /// Which choice is right.
    pub answer: usize,
}

impl Question {
    /// A question with its right choice at `answer`.
    ///
    /// # Panics
    /// If there is no such choice.
    pub fn new(
        kind: impl Into<String>,
        prompt: impl Into<String>,
        choices: Vec<String>,
        answer: usize,
    ) -> Question {
        let prompt = prompt.into();
        let id = Example::completion(&prompt, &choices[answer]).id;
        Question {
            id,
            kind: kind.into(),
            prompt,
            choices,
            answer,
        }
    }

    /// A question whose wrong choices are taken, as many as `wrong` says, from `others`, and
    /// shuffled with the right one; keyed by the question's id.
    pub(crate) fn drawn(
        kind: &str,
        prompt: String,
        truth: String,
        others: impl IntoIterator<Item = String>,
        wrong: usize,
        key: Key,
    ) -> Question {
        let id = Example::completion(&prompt, &truth).id;
        let key = key.at(id.mix());
        let mut others: Vec<String> = others.into_iter().filter(|o| *o != truth).collect();
        others.sort_unstable();
        others.dedup();
        let mut stream = key.stream();
        let mut choices = vec![truth];
        for _ in 0..wrong.min(others.len()) {
            let at = stream.below(others.len() as u64) as usize;
            choices.push(others.swap_remove(at));
        }
        let answer = stream.below(choices.len() as u64) as usize;
        choices.swap(0, answer);
        Question {
            id,
            kind: kind.to_owned(),
            prompt,
            choices,
            answer,
        }
    }

    /// The right choice.
    pub fn truth(&self) -> &str {
        &self.choices[self.answer]
    }
}
