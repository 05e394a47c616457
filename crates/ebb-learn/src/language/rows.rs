//! Rows of tokens: from signed ids to inputs, labels and masks, and back to outcomes.

use crate::batch::Batch;
use crate::evaluate::Outcome;
use crate::oracle::Oracle;
use burn::tensor::{Tensor, TensorData};
use ebb_data::{Item, Part, Stream};
use ebb_kernels::slices;
use ebb_net::{Model, Taps};
use ebb_space::{ExampleId, RowId, Rows};

/// One example's tokens: what is put in and what is to come out, up to the last that is learnt.
struct Line<'a> {
    signed: &'a [f32],
}

impl<'a> Line<'a> {
    fn new(signed: &'a [f32]) -> Self {
        let learnt = signed.iter().rposition(|s| *s >= 0.0);
        Self {
            signed: &signed[..learnt.map_or(0, |last| last + 1)],
        }
    }

    /// Tokens put in: all but the last.
    fn len(&self) -> usize {
        self.signed.len().saturating_sub(1)
    }

    fn inputs(&self) -> impl Iterator<Item = f32> + '_ {
        self.signed[..self.len()].iter().map(|s| id(*s))
    }

    /// What follows each of them, and whether it is learnt.
    fn targets(&self) -> impl Iterator<Item = (u32, bool)> + '_ {
        let after = self.signed.get(1..).unwrap_or_default();
        after.iter().map(|s| (id(*s) as u32, *s >= 0.0))
    }
}

fn id(signed: f32) -> f32 {
    match signed < 0.0 {
        true => -1.0 - signed,
        false => signed,
    }
}

/// Rows as wide as the longest of them, filled up with token 0.
fn inputs(lines: &[Line], model: &Model) -> (Tensor<2>, usize) {
    // A pass needs a token; what comes of it is masked.
    let longest = lines.iter().map(Line::len).max().unwrap_or(0).max(1);
    let mut values = Vec::with_capacity(lines.len() * longest);
    for line in lines {
        values.extend(line.inputs());
        values.resize(values.len() + longest - line.len(), 0.0);
    }
    let data = TensorData::new(values, [lines.len(), longest]);
    (Tensor::from_data(data, model.device()), longest)
}

/// Texts as what is put into a pass, and how many tokens each of them has there; what lies behind
/// them is filling.
pub(crate) fn inputs_of(signed: &[f32], model: &Model) -> (Tensor<2>, Vec<usize>) {
    let width = model.network().inputs();
    let lines: Vec<Line> = signed.chunks_exact(width).map(Line::new).collect();
    let lengths = lines.iter().map(Line::len).collect();
    (inputs(&lines, model).0, lengths)
}

/// A batch of examples, whose `rows` say one row each, as one with a row for each token.
pub(crate) fn expand(signed: &[f32], of: Rows, ids: Vec<ExampleId>, model: &Model) -> Batch {
    let width = model.network().inputs();
    let lines: Vec<Line> = signed.chunks_exact(width).map(Line::new).collect();
    let (x, longest) = inputs(&lines, model);
    let tokens = lines.len() * longest;
    let mut rows = Rows {
        ids: Vec::with_capacity(tokens),
        labels: Vec::with_capacity(tokens),
        support: Vec::with_capacity(tokens),
        supports: of.supports,
        weight: None,
        class_set: None,
        class_sets: Vec::new(),
        mask: None,
    };
    let mut mask = Vec::with_capacity(tokens);
    for (line, (id, support)) in lines.iter().zip(of.ids.iter().zip(&of.support)) {
        let filling = std::iter::repeat_n((0, false), longest - line.len());
        for (position, (label, learnt)) in (0u32..).zip(line.targets().chain(filling)) {
            rows.ids.push(RowId {
                example: id.example,
                position,
            });
            rows.labels.push(label);
            rows.support.push(*support);
            mask.push(learnt);
        }
    }
    rows.mask = Some(mask);
    Batch {
        x,
        rows,
        ids,
        stored_logits: None,
        stored_features: None,
        row_weights: None,
        shifts: None,
        prototypes: None,
        bands: None,
        entry: None,
    }
}

/// Numbers in the logits of one chunk of an evaluation, at most.
const BUDGET: usize = 1 << 24;

/// A text as the data holds it, in a row of `length`: a token that is learnt as its id, another as
/// `−1 − id`, and token 0, not learnt, behind the last.
pub fn signed(tokens: &[u32], learn: &[bool], length: usize) -> Vec<f32> {
    let sign = |(token, learn): (&u32, &bool)| match learn {
        true => *token as f32,
        false => -1.0 - *token as f32,
    };
    let mut row: Vec<f32> = tokens.iter().zip(learn).map(sign).collect();
    row.resize(length, -1.0);
    row
}

/// Outcomes of items.
pub(crate) fn evaluate(
    oracle: &mut Oracle,
    stream: &Stream,
    part: Part,
    items: &[Item],
) -> Vec<Outcome> {
    let mut signed = Vec::new();
    stream.gather(part, items, &mut signed);
    outcomes(oracle, &signed)
}

/// The probability that a model gives to any of `tokens` where texts learn something, the mean over
/// these places of every text (rows of [`signed`] ids): how much it leans towards saying them, whether
/// or not they fit (the output-token bias of card S038).
pub fn mass(oracle: &mut Oracle, signed: &[f32], tokens: &[u32]) -> Vec<f64> {
    let width = oracle.model.network().inputs();
    let outputs = oracle.model.network().outputs();
    let chunk = (BUDGET / (width * outputs).max(1)).clamp(1, 64);
    let mut found = Vec::with_capacity(signed.len() / width.max(1));
    for signed in signed.chunks(chunk * width) {
        let lines: Vec<Line> = signed.chunks_exact(width).map(Line::new).collect();
        let (x, longest) = inputs(&lines, &oracle.model);
        let logits = oracle.model.forward(x, &mut Taps::none()).logits;
        slices::read(&logits, |z| {
            for (line, z) in lines.iter().zip(z.chunks_exact(longest * outputs)) {
                let places = line.targets().zip(z.chunks_exact(outputs));
                let (mut sum, mut n) = (0.0, 0u32);
                for (_, z) in places.filter(|((_, learnt), _)| *learnt) {
                    let top = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let weight = |z: &f32| f64::from(z - top).exp();
                    let all: f64 = z.iter().map(weight).sum();
                    let of = tokens.iter().filter_map(|t| z.get(*t as usize));
                    sum += of.map(weight).sum::<f64>() / all;
                    n += 1;
                }
                found.push(sum / f64::from(n.max(1)));
            }
        });
    }
    found
}

/// Outcomes of texts, rows of [`signed`] ids one behind the other: the mean loss of their learnt
/// tokens, and whether each of these was the likeliest.
pub fn outcomes(oracle: &mut Oracle, signed: &[f32]) -> Vec<Outcome> {
    let width = oracle.model.network().inputs();
    let outputs = oracle.model.network().outputs();
    let chunk = (BUDGET / (width * outputs).max(1)).clamp(1, 64);
    let mut outcomes = Vec::with_capacity(signed.len() / width.max(1));
    for signed in signed.chunks(chunk * width) {
        let lines: Vec<Line> = signed.chunks_exact(width).map(Line::new).collect();
        let (x, longest) = inputs(&lines, &oracle.model);
        let logits = oracle.model.forward(x, &mut Taps::none()).logits;
        slices::read(&logits, |z| {
            for (line, z) in lines.iter().zip(z.chunks_exact(longest * outputs)) {
                let tokens = line.targets().zip(z.chunks_exact(outputs));
                let learnt = tokens.filter(|((_, learnt), _)| *learnt);
                let (mut loss, mut n, mut correct) = (0.0, 0u32, true);
                for ((label, _), z) in learnt {
                    let token = crate::evaluate::outcome(z, label as usize);
                    loss += f64::from(token.loss);
                    correct &= token.correct;
                    n += 1;
                }
                outcomes.push(Outcome {
                    loss: (loss / f64::from(n.max(1))) as f32,
                    correct: correct && n > 0,
                });
            }
        });
    }
    outcomes
}
