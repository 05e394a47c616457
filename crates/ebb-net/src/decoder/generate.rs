//! Text from a decoder, token by token.
//!
//! **What it does.** Reads all prompts side by side, then adds a token to every row that has not
//! ended, with the keys and values of everything before kept in a [`Cache`].
//! **Randomness** is keyed by (seed, example, position in the row): what is drawn for a row does
//! not depend on the rows beside it, and a text that was cut off goes on as it would have.

use super::processors::{Before, Processor, drawn, likeliest};
use super::{Cache, Decoder};
use crate::network::Pass;
use crate::{Error, Model, Result, Taps};
use burn::tensor::Tensor;
use ebb_kernels::slices;
use ebb_space::Key;
use std::ops::ControlFlow;

/// What a text begins with.
#[derive(Clone, Copy, Debug)]
pub struct Prompt<'a> {
    /// Which example this is: the randomness of its text hangs on it.
    pub example: u64,
    /// One token at least.
    pub tokens: &'a [u32],
}

/// How tokens are chosen from the processed logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The likeliest.
    Greedy,
    /// Drawn by probability.
    Sampled {
        /// The same seed gives the same texts.
        seed: u64,
    },
}

/// How texts are made.
#[derive(Debug)]
pub struct Generation {
    /// Tokens of a text at most.
    pub most: usize,
    /// Tokens that end a text; they are not part of it.
    pub stops: Vec<u32>,
    /// Applied to the logits in this order.
    pub processors: Vec<Box<dyn Processor>>,
    /// How a token is chosen then.
    pub choice: Choice,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// This token came.
    Stop(u32),
    /// The text is as long as it may be.
    Length,
    /// The context is full.
    Context,
    /// The caller said so.
    Caller,
}

/// A text and why it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Without the prompt and without the token that ended it.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub end: End,
}

impl Generation {
    /// The token after `before`, for `example`.
    ///
    /// # Errors
    /// [`Error::NotANumber`] when a logit is not a number or nothing is allowed any more.
    pub fn choose(&self, example: u64, before: Before, logits: &mut [f32]) -> Result<u32> {
        for processor in &self.processors {
            processor.apply(before, logits);
        }
        let position = before.prompt.len() + before.text.len();
        let id = match self.choice {
            Choice::Greedy => likeliest(logits),
            Choice::Sampled { seed } => {
                let key = Key::new(seed, "generate").at(example);
                drawn(logits, key.uniform(position as u64))
            }
        };
        id.ok_or_else(|| Error::NotANumber {
            reason: format!(
                "no token can be chosen at position {position} of example {example}: either a \
                 logit is NaN (a broken checkpoint or training run) or every token is forbidden"
            ),
        })
    }
}

/// A row that goes on.
struct Live {
    row: usize,
    text: Vec<u32>,
}

impl Decoder {
    /// A text for each of `prompts`, in their order.
    ///
    /// `each` hears of every token as soon as it is chosen, with the number of its prompt, and may
    /// end that text: streaming and stop strings live there.
    ///
    /// # Errors
    /// [`Error::Input`] for an empty prompt, an unknown token or a prompt longer than the context;
    /// [`Error::Weights`] when `model` is not of this decoder; [`Error::NotANumber`].
    pub fn generate(
        &self,
        model: &mut Model,
        prompts: &[Prompt],
        how: &Generation,
        mut each: impl FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Result<Vec<Generated>> {
        self.owns(model)?;
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        let device = model.device().clone();
        let rows: Vec<&[u32]> = prompts.iter().map(|p| p.tokens).collect();
        let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let shortest = rows.iter().map(|row| row.len()).min().unwrap_or(0);
        let steps = how.most.min(self.config.longest().saturating_sub(shortest));
        model.pass(&mut Taps::none(), |pass| {
            let mut cache = self.cache(rows.len(), longest + steps, &device);
            let mut features = self.extend_to_last(&rows, &mut cache, pass)?;
            let mut done: Vec<Option<Generated>> = vec![None; rows.len()];
            let mut live: Vec<Live> = (0..rows.len())
                .map(|row| Live {
                    row,
                    text: Vec::new(),
                })
                .collect();
            loop {
                // Rows that are full before a token is chosen for them.
                let full = |live: &Live, cache: &Cache, at: usize| match cache.lengths()[at] {
                    _ if live.text.len() >= how.most => Some(End::Length),
                    n if n >= self.config.longest() => Some(End::Context),
                    _ => None,
                };
                let mut ends: Vec<Option<End>> = live
                    .iter()
                    .enumerate()
                    .map(|(at, row)| full(row, &cache, at))
                    .collect();
                if ends.iter().any(Option::is_none) {
                    let logits = self.logits(features, pass);
                    let mut logits = slices::to_vec(&logits);
                    let logits = logits.chunks_exact_mut(self.config.vocabulary);
                    for ((live, logits), end) in live.iter_mut().zip(logits).zip(&mut ends) {
                        if end.is_some() {
                            continue;
                        }
                        let prompt = &prompts[live.row];
                        let before = Before {
                            prompt: prompt.tokens,
                            text: &live.text,
                        };
                        let id = how.choose(prompt.example, before, logits)?;
                        if how.stops.contains(&id) {
                            *end = Some(End::Stop(id));
                            continue;
                        }
                        live.text.push(id);
                        if each(live.row, id).is_break() {
                            *end = Some(End::Caller);
                        } else if live.text.len() >= how.most {
                            *end = Some(End::Length);
                        }
                    }
                }
                let on: Vec<usize> = (0..live.len()).filter(|&i| ends[i].is_none()).collect();
                if on.len() < live.len() {
                    let rows = std::mem::take(&mut live).into_iter().zip(ends);
                    for (row, end) in rows {
                        match end {
                            None => live.push(row),
                            Some(end) => {
                                let tokens = row.text;
                                done[row.row] = Some(Generated { tokens, end });
                            }
                        }
                    }
                    if live.is_empty() {
                        break;
                    }
                    cache = cache.select(&on)?;
                }
                let newest: Vec<&[u32]> = live
                    .iter()
                    .map(|row| &row.text[row.text.len() - 1..])
                    .collect();
                features = self.extend_to_last(&newest, &mut cache, pass)?;
            }
            Ok(done.into_iter().flatten().collect())
        })
    }

    /// [`Decoder::extend`], and of its result the last token of every row, `[rows, width]`.
    pub(super) fn extend_to_last(
        &self,
        chunk: &[&[u32]],
        cache: &mut Cache,
        pass: &mut Pass,
    ) -> Result<Tensor<2>> {
        if let Some(row) = chunk.iter().position(|row| row.is_empty()) {
            return Err(Error::Input {
                reason: format!(
                    "prompt {row} is empty: begin it with the token that begins a text"
                ),
            });
        }
        let features = self.extend(chunk, cache, pass)?;
        let width = self.config.width;
        let last = chunk.iter().enumerate().map(|(row, tokens)| {
            let at = [row..row + 1, tokens.len() - 1..tokens.len(), 0..width];
            features.clone().slice(at).reshape([1, width])
        });
        Ok(Tensor::cat(last.collect(), 0))
    }

    /// Whether `model` has this decoder's parameters.
    pub(super) fn owns(&self, model: &Model) -> Result<()> {
        let mine = self.layout.entries().iter();
        let its = model.network().layout().entries().iter();
        match mine
            .map(|e| (&e.path, &e.shape))
            .eq(its.map(|e| (&e.path, &e.shape)))
        {
            true => Ok(()),
            false => Err(Error::Weights {
                reason: "its parameters are not those of this decoder".to_owned(),
            }),
        }
    }
}
