//! Texts from a model.

use crate::error::{Error, Result};
use crate::model::LanguageModel;
use ebb_hub::Tokenizer;
use ebb_net::decoder::processors::{Frequency, Presence, Repetition, Temperature, TopK, TopP};
use ebb_net::decoder::{Choice, End, Generation, PenaltyDecoding, Processor, Prompt};
use serde::Serialize;
use std::ops::ControlFlow;

/// How texts are made. Every setting that says nothing changes nothing.
#[derive(Clone, Debug)]
pub struct Writing {
    /// Tokens of a text at most.
    pub most: usize,
    /// 0: always the likeliest token; above, tokens are drawn, the more evenly the higher it is.
    pub temperature: f64,
    /// Draws among this many of the likeliest; 0: among all.
    pub top_k: usize,
    /// Draws among the likeliest that together have this probability; 1: among all.
    pub top_p: f64,
    /// Divides the logits of tokens that stand in prompt or text; 1: leaves them.
    pub repetition: f64,
    /// Off the logit of a token for each time it stands in the text.
    pub frequency: f64,
    /// Off the logit of every token that stands in the text.
    pub presence: f64,
    /// Penalty decoding (card S085), with its window in tokens, in the place of `repetition`. Tokens
    /// that end a text or a line are spared.
    pub penalty_window: Option<usize>,
    /// Off the logit of the tokens that end a text, while it has fewer than `most`; of penalty
    /// decoding alone.
    pub length_penalty: f64,
    /// Texts that end a text; they are not part of it.
    pub stop: Vec<String>,
    /// The same seed draws the same texts.
    pub seed: u64,
}

impl Default for Writing {
    fn default() -> Self {
        Self {
            most: 256,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            repetition: 1.0,
            frequency: 0.0,
            presence: 0.0,
            penalty_window: None,
            length_penalty: 0.0,
            stop: Vec::new(),
            seed: 0,
        }
    }
}

impl Writing {
    /// What it does to the logits, in order: penalties, temperature, then what is cut off.
    fn processors(&self, model: &LanguageModel) -> Result<Vec<Box<dyn Processor>>> {
        let mut all: Vec<Box<dyn Processor>> = Vec::new();
        match self.penalty_window {
            Some(window) => all.extend(
                PenaltyDecoding {
                    penalty: self.repetition,
                    window,
                    exempt: [model.stops(), &model.line_ends()?].concat(),
                    ends: model.stops().to_vec(),
                    target: self.most,
                    length_penalty: self.length_penalty,
                }
                .processors()?,
            ),
            None if self.repetition != 1.0 => all.push(Box::new(Repetition::new(self.repetition)?)),
            None => {}
        }
        if self.frequency != 0.0 {
            all.push(Box::new(Frequency::new(self.frequency)?));
        }
        if self.presence != 0.0 {
            all.push(Box::new(Presence::new(self.presence)?));
        }
        if self.temperature != 0.0 {
            all.push(Box::new(Temperature::new(self.temperature)?));
        }
        if self.top_k > 0 {
            all.push(Box::new(TopK::new(self.top_k)?));
        }
        if self.top_p != 1.0 {
            all.push(Box::new(TopP::new(self.top_p)?));
        }
        Ok(all)
    }
}

/// What a text begins with.
#[derive(Clone, Debug)]
pub struct Start {
    /// Which example it is: what is drawn for it hangs on this and not on its neighbours.
    pub example: u64,
    /// Its tokens.
    pub tokens: Vec<u32>,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// The model ended it.
    End,
    /// A stop text came.
    Stop,
    /// It is as long as it may be.
    Length,
    /// The context is full.
    Context,
}

/// A text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Text {
    /// What was written.
    pub text: String,
    /// Its tokens; with a stop text, those too that it consists of.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub ended: Ended,
}

/// Tokens on their way to being text: a character may need several.
#[derive(Default)]
struct Unfolding {
    tokens: Vec<u32>,
    /// Tokens before this one are told and no longer looked at.
    from: usize,
    /// Tokens before this one are told.
    told: usize,
}

impl Unfolding {
    /// What is certain to follow by now.
    fn next(&mut self, tokenizer: &Tokenizer, token: u32) -> Result<String> {
        self.tokens.push(token);
        let old = tokenizer.decode(&self.tokens[self.from..self.told], false)?;
        let new = tokenizer.decode(&self.tokens[self.from..], false)?;
        // An unfinished character shows as the replacement character.
        if new.len() <= old.len() || new.ends_with('\u{fffd}') || !new.starts_with(&old) {
            return Ok(String::new());
        }
        (self.from, self.told) = (self.told, self.tokens.len());
        Ok(new[old.len()..].to_owned())
    }
}

impl LanguageModel {
    /// A text behind each of `starts`, in their order. `each` hears of every piece as soon as it
    /// is certain, with the number of its text.
    ///
    /// # Errors
    /// [`Error::Request`] for settings that contradict each other, [`Error::Net`] for a start that
    /// is empty or longer than the context, or logits that are no numbers.
    pub fn write(
        &mut self,
        starts: &[Start],
        how: &Writing,
        mut each: impl FnMut(usize, &str),
    ) -> Result<Vec<Text>> {
        if how.temperature == 0.0 && (how.top_k > 0 || how.top_p != 1.0) {
            return Err(Error::Request(
                "the likeliest token is always taken at temperature 0, so there is nothing to cut \
                 off: set a temperature above 0, or leave top-k and top-p out"
                    .into(),
            ));
        }
        let generation = Generation {
            most: how.most,
            stops: self.stops().to_vec(),
            processors: how.processors(self)?,
            choice: match how.temperature == 0.0 {
                true => Choice::Greedy,
                false => Choice::Sampled { seed: how.seed },
            },
        };
        let prompts: Vec<Prompt> = starts
            .iter()
            .map(|start| Prompt {
                example: start.example,
                tokens: &start.tokens,
            })
            .collect();
        let mut rows: Vec<(Unfolding, String)> = Vec::new();
        rows.resize_with(starts.len(), Default::default);
        let (tokenizer, decoder) = (&self.tokenizer, self.decoder.clone());
        let mut failed = None;
        let made = decoder.generate(&mut self.model, &prompts, &generation, |row, token| {
            let (unfolding, text) = &mut rows[row];
            let piece = match unfolding.next(tokenizer, token) {
                Ok(piece) => piece,
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            };
            if piece.is_empty() {
                return ControlFlow::Continue(());
            }
            // A stop text may begin in what was told before.
            let from = text.len();
            text.push_str(&piece);
            match first_stop(text, from, &how.stop) {
                Some(at) => {
                    text.truncate(at);
                    ControlFlow::Break(())
                }
                None => {
                    each(row, &piece);
                    ControlFlow::Continue(())
                }
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let text = |(made, (_, text)): (ebb_net::decoder::Generated, (Unfolding, String))| {
            let ended = match made.end {
                End::Stop(_) => Ended::End,
                End::Caller => Ended::Stop,
                End::Length => Ended::Length,
                End::Context => Ended::Context,
            };
            // What was not told for want of a last byte is left as the tokenizer has it.
            let text = match ended {
                Ended::Stop => text,
                _ => self.tokenizer.decode(&made.tokens, false)?,
            };
            Ok(Text {
                text,
                tokens: made.tokens,
                ended,
            })
        };
        made?.into_iter().zip(rows).map(text).collect()
    }
}

/// Where the first of `stops` begins that ends at or behind `from`.
fn first_stop(text: &str, from: usize, stops: &[String]) -> Option<usize> {
    let found = stops
        .iter()
        .filter(|stop| !stop.is_empty())
        .filter_map(|stop| {
            let mut start = from.saturating_sub(stop.len().saturating_sub(1));
            while !text.is_char_boundary(start) {
                start -= 1;
            }
            text[start..].find(stop.as_str()).map(|at| start + at)
        });
    found.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_text_is_found_across_pieces() {
        let stops = ["END".to_owned(), String::new()];
        assert_eq!(first_stop("one EN", 4, &stops), None);
        assert_eq!(first_stop("one END", 6, &stops), Some(4));
        assert_eq!(first_stop("END, told before", 10, &stops), None);
        assert_eq!(first_stop("größe END", 4, &["ße".to_owned()]), Some(4));
    }
}
