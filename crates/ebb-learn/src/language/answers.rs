//! Answers in the model's own words: whether a form was forgotten, or what it holds (card S036).

use super::rows::{outcomes, signed};
use crate::error::Result;
use crate::oracle::Oracle;
use ebb_data::{Item, Part, Stream};
use ebb_hub::Tokenizer;
use ebb_lm::LanguageModel;
use ebb_net::decoder::{Choice, Generation, Prompt};
use ebb_net::{Decoder, Model};
use ebb_record::Judged;
use ebb_space::Key;
use ebb_text::metrics::{exact_match, shows};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Answers that are written side by side.
const SIDE_BY_SIDE: usize = 32;
/// Tokens an answer may have: twice those of the truth, for other forms, and these.
const ROOM: usize = 24;
/// Other answers of its set that a truth is put beside.
const OTHERS: usize = 3;

/// What a language model has besides its weights.
pub struct Speech {
    /// The network's parts.
    pub decoder: Arc<Decoder>,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// Tokens that end a text.
    pub stops: Vec<u32>,
}

/// A question of a test set.
struct Asked {
    prompt: Vec<u32>,
    truth: Vec<u32>,
    /// The truth as text.
    text: String,
}

impl Speech {
    /// The two parts of a language model.
    pub fn of(language: LanguageModel) -> (Speech, Model) {
        let stops = language.stops().to_vec();
        let speech = Speech {
            decoder: language.decoder,
            tokenizer: language.tokenizer,
            stops,
        };
        (speech, language.model)
    }

    /// Asks `most` questions of a test set and judges the answers. The questions are the same each
    /// time, whatever the seed; texts without a prompt are no questions.
    ///
    /// # Errors
    /// When a token is no text, or a logit no number.
    pub(crate) fn answers(
        &self,
        oracle: &mut Oracle,
        stream: &Stream,
        items: &[Item],
        most: usize,
    ) -> Result<Vec<Judged>> {
        let all = self.questions(oracle, stream, items)?;
        let key = Key::new(0, "answers");
        let mut order: Vec<usize> = (0..all.len()).collect();
        key.order(&mut order, |i| items[all[*i].0].id.mix());
        order.truncate(most);
        let asked: Vec<&Asked> = order.iter().map(|i| &all[*i].1).collect();
        let chosen: Vec<Option<bool>> = (order.iter())
            .map(|i| self.chosen(oracle, &all, *i, key.sub("others")))
            .collect();
        let mut judged = Vec::with_capacity(asked.len());
        for (asked, chosen) in asked.chunks(SIDE_BY_SIDE).zip(chosen.chunks(SIDE_BY_SIDE)) {
            let answers = self.write(oracle, asked)?;
            for ((answer, asked), chosen) in answers.iter().zip(asked).zip(chosen) {
                judged.push(Judged {
                    exact: exact_match(answer, &asked.text),
                    shown: exact_match(answer, &asked.text) || shows(answer, &asked.text),
                    chosen: *chosen,
                });
            }
        }
        Ok(judged)
    }

    /// The questions among test items, with the place of each.
    fn questions(
        &self,
        oracle: &Oracle,
        stream: &Stream,
        items: &[Item],
    ) -> Result<Vec<(usize, Asked)>> {
        let mut values = Vec::new();
        stream.gather(Part::Test, items, &mut values);
        let mut all = Vec::new();
        for (i, row) in values
            .chunks_exact(oracle.model.network().inputs())
            .enumerate()
        {
            let given = row.iter().take_while(|s| **s < 0.0).count();
            let prompt: Vec<u32> = row[..given].iter().map(|s| (-1.0 - s) as u32).collect();
            let learnt = row[given..].iter().take_while(|s| **s >= 0.0);
            let truth: Vec<u32> = learnt.map(|s| *s as u32).collect();
            let text = self.tokenizer.decode(&truth, false)?;
            let asks = !self.tokenizer.decode(&prompt, false)?.trim().is_empty();
            if asks && !text.trim().is_empty() {
                let asked = Asked {
                    prompt,
                    truth,
                    text,
                };
                all.push((i, asked));
            }
        }
        Ok(all)
    }

    /// Whether the truth of a question is likelier behind it, by its mean log-likelihood a token, than
    /// other answers of the set.
    fn chosen(
        &self,
        oracle: &mut Oracle,
        all: &[(usize, Asked)],
        question: usize,
        key: Key,
    ) -> Option<bool> {
        let asked = &all[question].1;
        let mut others: Vec<usize> = (0..all.len()).collect();
        key.at(question as u64).order(&mut others, |i| *i as u64);
        let mut choices: Vec<&Asked> = vec![asked];
        for other in others.iter().map(|i| &all[*i].1) {
            if choices.len() <= OTHERS && choices.iter().all(|c| c.text != other.text) {
                choices.push(other);
            }
        }
        if choices.len() < 2 {
            return None;
        }
        let width = oracle.model.network().inputs();
        let mut rows = Vec::with_capacity(choices.len() * width);
        for choice in choices {
            let tokens = [&asked.prompt[..], &choice.truth[..]].concat();
            let learn: Vec<bool> = (0..tokens.len()).map(|i| i >= asked.prompt.len()).collect();
            if tokens.len() > width {
                return None;
            }
            rows.extend(signed(&tokens, &learn, width));
        }
        let losses = outcomes(oracle, &rows);
        Some(losses[1..].iter().all(|other| losses[0].loss < other.loss))
    }

    /// What the model writes behind questions, always the likeliest token.
    fn write(&self, oracle: &mut Oracle, asked: &[&Asked]) -> Result<Vec<String>> {
        let prompt = |asked: &&'_ Asked| asked.prompt.clone();
        let prompts: Vec<Vec<u32>> = asked.iter().map(prompt).collect();
        // Nothing is drawn, so it does not matter which examples these are.
        let prompts: Vec<Prompt> = (prompts.iter())
            .map(|tokens| Prompt { example: 0, tokens })
            .collect();
        let room: Vec<usize> = asked.iter().map(|a| 2 * a.truth.len() + ROOM).collect();
        let how = Generation {
            most: room.iter().copied().max().unwrap_or(0),
            stops: self.stops.clone(),
            processors: Vec::new(),
            choice: Choice::Greedy,
        };
        let mut written = vec![0; asked.len()];
        let texts = (self.decoder).generate(&mut oracle.model, &prompts, &how, |row, _| {
            written[row] += 1;
            match written[row] < room[row] {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
        let text = |t: &ebb_net::decoder::Generated| Ok(self.tokenizer.decode(&t.tokens, false)?);
        texts.iter().map(text).collect()
    }
}
