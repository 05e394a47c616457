//! How likely a decoder finds given tokens.
//!
//! **Equation.** `ln p(t_i | t_<i) = z_i[t_i] − ln Σ_v exp z_i[v]`, summed in f64, in nats.
//! **Costs** one block of logits at a time, `[chunk, vocabulary]`, however long the rows are.

use super::Decoder;
use crate::network::Pass;
use crate::{Error, Model, Result, Taps};
use burn::tensor::Tensor;
use ebb_kernels::slices;

/// A prompt and what could follow it.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// One token at least.
    pub prompt: &'a [u32],
    /// One token at least each.
    pub choices: &'a [&'a [u32]],
}

/// How likely a choice is after its prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// `ln p` of each of its tokens, in nats.
    pub log_probabilities: Vec<f64>,
    /// Whether each of its tokens is the likeliest at its place: greedy decoding would write it.
    pub greedy: bool,
}

impl Scored {
    /// `ln p` of the whole choice, in nats.
    pub fn log_likelihood(&self) -> f64 {
        self.log_probabilities.iter().sum()
    }
}

/// Logits held at a time: 16 MiB.
const BLOCK: usize = 1 << 22;
/// Rows read at a time.
const ROWS: usize = 16;
/// Tokens of windows read at a time.
const TOKENS: usize = 2048;

impl Decoder {
    /// Scores every choice of every question, in their order.
    ///
    /// A prompt is read once, whatever the number of its choices.
    ///
    /// # Errors
    /// [`Error::Input`] for an empty prompt or choice, an unknown token, or a prompt that does not
    /// fit the context together with its longest choice; [`Error::Weights`] when `model` is not of
    /// this decoder.
    pub fn choices(&self, model: &mut Model, questions: &[Question]) -> Result<Vec<Vec<Scored>>> {
        self.owns(model)?;
        let empty = |q: &Question| q.choices.iter().any(|c| c.is_empty());
        if let Some(i) = questions.iter().position(empty) {
            return Err(Error::Input {
                reason: format!("question {i} has an empty choice"),
            });
        }
        let mut scored = Vec::with_capacity(questions.len());
        let mut rest = questions;
        while !rest.is_empty() {
            // As many questions as have `ROWS` choices together, one at least.
            let mut rows = 0;
            let fits = |q: &&Question| {
                rows += q.choices.len();
                rows <= ROWS
            };
            let n = rest.iter().take_while(fits).count().max(1);
            let (now, later) = rest.split_at(n);
            scored.extend(self.choices_together(model, now)?);
            rest = later;
        }
        Ok(scored)
    }

    fn choices_together(
        &self,
        model: &mut Model,
        questions: &[Question],
    ) -> Result<Vec<Vec<Scored>>> {
        let device = model.device().clone();
        let prompts: Vec<&[u32]> = questions.iter().map(|q| q.prompt).collect();
        let choices: Vec<(usize, &[u32])> = questions
            .iter()
            .enumerate()
            .flat_map(|(i, q)| q.choices.iter().map(move |&c| (i, c)))
            .collect();
        let longest = |rows: &mut dyn Iterator<Item = usize>| rows.max().unwrap_or(0);
        let slots = longest(&mut prompts.iter().map(|p| p.len()))
            + longest(&mut choices.iter().map(|(_, c)| c.len()));
        let mut flat = model.pass(&mut Taps::none(), |pass| {
            let mut cache = self.cache(prompts.len(), slots, &device);
            let last = self.extend_to_last(&prompts, &mut cache, pass)?;
            let mut scored = Vec::with_capacity(choices.len());
            for part in choices.chunks(ROWS) {
                let owners: Vec<usize> = part.iter().map(|(owner, _)| *owner).collect();
                // The last token of a choice is predicted and never read.
                let read: Vec<&[u32]> = part.iter().map(|(_, c)| &c[..c.len() - 1]).collect();
                let behind = match read.iter().any(|r| !r.is_empty()) {
                    true => {
                        let mut branches = cache.select(&owners)?;
                        Some(self.extend(&read, &mut branches, pass)?)
                    }
                    false => None,
                };
                // The first token of a choice is predicted where the prompt ends.
                let width = self.config.width;
                let mut features = Vec::new();
                let mut targets = Vec::new();
                for (row, (owner, choice)) in part.iter().enumerate() {
                    features.push(last.clone().slice([*owner..*owner + 1, 0..width]));
                    if let Some(behind) = behind.as_ref().filter(|_| choice.len() > 1) {
                        let at = [row..row + 1, 0..choice.len() - 1, 0..width];
                        let behind = behind.clone().slice(at);
                        features.push(behind.reshape([choice.len() - 1, width]));
                    }
                    targets.extend_from_slice(choice);
                }
                let found = self.log_probabilities(Tensor::cat(features, 0), &targets, pass)?;
                let mut found = found.into_iter();
                scored.extend(part.iter().map(|(_, choice)| {
                    let of: Vec<(f64, bool)> = found.by_ref().take(choice.len()).collect();
                    Scored {
                        greedy: of.iter().all(|(_, likeliest)| *likeliest),
                        log_probabilities: of.into_iter().map(|(l, _)| l).collect(),
                    }
                }));
            }
            Ok::<_, Error>(scored.into_iter())
        })?;
        Ok(questions
            .iter()
            .map(|q| flat.by_ref().take(q.choices.len()).collect())
            .collect())
    }

    /// `−ln p` of every token of `text` but the first, in nats.
    ///
    /// Windows of `window` tokens move on by `stride`; a token is scored once, in the first window
    /// that holds it, so that all but the first window's tokens have `window − stride` tokens of
    /// context at least. With `stride = window − 1` every token is read about once.
    ///
    /// # Errors
    /// [`Error::Input`] for an unknown token, a text of fewer than two tokens, a window beyond the
    /// context, or a stride that is 0 or does not leave a token of context; [`Error::Weights`] when
    /// `model` is not of this decoder.
    pub fn losses(
        &self,
        model: &mut Model,
        text: &[u32],
        window: usize,
        stride: usize,
    ) -> Result<Vec<f64>> {
        self.owns(model)?;
        let refuse = |reason: String| Err(Error::Input { reason });
        if text.len() < 2 {
            return refuse(format!(
                "a text of {} tokens has nothing to predict",
                text.len()
            ));
        }
        if stride == 0 || stride >= window {
            return refuse(format!(
                "windows of {window} tokens cannot move on by {stride}: the stride lies between 1 \
                 and the window less one"
            ));
        }
        let device = model.device().clone();
        let windows = windows(text.len(), window, stride);
        let mut losses = Vec::with_capacity(text.len() - 1);
        // The last window may be shorter: it is read alone.
        let (whole, last) = windows.split_at(windows.len() - 1);
        let together = (TOKENS / window).max(1);
        for part in whole.chunks(together).chain([last]) {
            let rows: Vec<&[u32]> = part.iter().map(|w| &text[w.from..w.to]).collect();
            let x = self.tokens(&rows, 0, &device)?;
            let length = x.dims()[1];
            let positions: Vec<u32> = (0..length as u32).collect();
            let found = model.pass(&mut Taps::none(), |pass| {
                let features = self.read(x, &positions, None, pass);
                let width = self.config.width;
                let wanted = part.iter().enumerate().map(|(row, w)| {
                    // What stands at `i` predicts `i + 1`.
                    let at = w.score - 1 - w.from..w.to - 1 - w.from;
                    let n = at.len();
                    let of = features.clone().slice([row..row + 1, at, 0..width]);
                    of.reshape([n, width])
                });
                let wanted = Tensor::cat(wanted.collect(), 0);
                let targets: Vec<u32> = part
                    .iter()
                    .flat_map(|w| &text[w.score..w.to])
                    .copied()
                    .collect();
                self.log_probabilities(wanted, &targets, pass)
            })?;
            losses.extend(found.into_iter().map(|(l, _)| -l));
        }
        Ok(losses)
    }

    /// `ln p` of the target behind each of `features`, `[n, width]`, and whether it is the
    /// likeliest token there.
    fn log_probabilities(
        &self,
        features: Tensor<2>,
        targets: &[u32],
        pass: &mut Pass,
    ) -> Result<Vec<(f64, bool)>> {
        let vocabulary = self.config.vocabulary;
        if let Some(id) = targets.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(Error::Input {
                reason: format!("the token {id} is not in the vocabulary of {vocabulary}"),
            });
        }
        let chunk = (BLOCK / vocabulary).max(1);
        let mut found = Vec::with_capacity(targets.len());
        let mut at = 0;
        for targets in targets.chunks(chunk) {
            let part = features.clone().narrow(0, at, targets.len());
            let logits = self.logits(part, pass);
            slices::read(&logits, |logits| {
                let rows = logits.chunks_exact(vocabulary).zip(targets);
                found.extend(rows.map(|(z, &id)| log_probability(z, id as usize)));
            });
            at += targets.len();
        }
        Ok(found)
    }
}

/// `ln softmax(z)[id]`, and whether no logit is larger.
fn log_probability(z: &[f32], id: usize) -> (f64, bool) {
    let largest = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted = |z: f32| f64::from(z) - f64::from(largest);
    let total: f64 = z.iter().map(|&z| shifted(z).exp()).sum();
    (shifted(z[id]) - total.ln(), z[id] == largest)
}

/// Tokens `from..to` are read, those from `score` on are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    from: usize,
    to: usize,
    score: usize,
}

/// The windows of a text, at least one; all but the last have the same length.
fn windows(tokens: usize, window: usize, stride: usize) -> Vec<Window> {
    let mut windows = Vec::new();
    let (mut from, mut score) = (0, 1);
    loop {
        let to = (from + window).min(tokens);
        windows.push(Window { from, to, score });
        if to == tokens {
            return windows;
        }
        (from, score) = (from + stride, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_score_every_token_once_with_the_context_they_promise() {
        for (tokens, window, stride) in [(2, 8, 3), (8, 8, 7), (9, 8, 7), (50, 8, 3), (50, 7, 6)] {
            let windows = windows(tokens, window, stride);
            let scored: Vec<usize> = windows.iter().flat_map(|w| w.score..w.to).collect();
            assert_eq!(scored, (1..tokens).collect::<Vec<_>>());
            for w in &windows[1..] {
                assert!(w.score - w.from >= window - stride);
            }
            let whole = &windows[..windows.len() - 1];
            assert!(whole.iter().all(|w| w.to - w.from == window));
        }
    }
}
