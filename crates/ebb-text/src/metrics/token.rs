//! What a model says of each token that counts.
//!
//! **What it does.** Reads everything the measures need from the logits once: the token's log
//! probability, the mean and variance of the log probability under the model's own distribution, and
//! whether the token is the likeliest. Positions without a target (prompt, padding) are never read.
//! **Equation.** `ln p_v = z_v − ln Σ_u e^{z_u}`, `μ = Σ_v p_v ln p_v`, `σ² = Σ_v p_v (ln p_v − μ)²`, in
//! f64. A number added to all logits of a position changes nothing.

use crate::{Error, Result};

/// A token that counts, as a model saw it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token {
    /// Natural logarithm of its probability.
    pub log_p: f64,
    /// Mean of the log probability of a token drawn from the model.
    pub mean: f64,
    /// Variance of the same.
    pub variance: f64,
    /// Whether no other token is likelier; of equals the first in the vocabulary.
    pub likeliest: bool,
}

/// The tokens that count. `logits` are `[positions × vocabulary]`; `targets[t]` is the token that the
/// logits at `t` predict, or none where nothing counts. A logit may be −∞ (a token that is ruled out).
///
/// # Errors
/// Sizes that do not fit, a target outside the vocabulary, a position that counts whose logits have no
/// finite softmax or rule its target out. Other positions may hold anything.
pub fn tokens(logits: &[f32], vocabulary: usize, targets: &[Option<u32>]) -> Result<Vec<Token>> {
    let rows = positions(logits, vocabulary, targets.len())?;
    let counted = rows.zip(targets).enumerate();
    counted
        .filter_map(|(at, (row, target))| target.map(|target| (at, row, target as usize)))
        .map(|(at, row, target)| {
            if target >= vocabulary {
                return Err(Error::Measure(format!(
                    "the target at position {at} is {target} and the vocabulary has {vocabulary} \
                     tokens: mark what does not count as no target"
                )));
            }
            let ln_p = log_softmax(row, at)?;
            if !ln_p[target].is_finite() {
                return Err(Error::Measure(format!(
                    "the target at position {at} has the probability 0: it was ruled out by a mask"
                )));
            }
            let mean = expected(&ln_p, |ln_p| ln_p);
            Ok(Token {
                log_p: ln_p[target],
                mean,
                variance: expected(&ln_p, |ln_p| (ln_p - mean) * (ln_p - mean)),
                likeliest: row[..target].iter().all(|z| *z < row[target])
                    && row[target..].iter().all(|z| *z <= row[target]),
            })
        })
        .collect()
}

/// Rows of logits, one for each of `count` positions.
pub(super) fn positions(
    logits: &[f32],
    vocabulary: usize,
    count: usize,
) -> Result<std::slice::ChunksExact<'_, f32>> {
    match vocabulary.checked_mul(count) {
        Some(size) if size == logits.len() && vocabulary > 0 => Ok(logits.chunks_exact(vocabulary)),
        _ => Err(Error::Measure(format!(
            "{} logits are not {count} positions of {vocabulary} tokens each: check the shapes",
            logits.len()
        ))),
    }
}

pub(super) fn log_softmax(row: &[f32], at: usize) -> Result<Vec<f64>> {
    let most = row.iter().fold(f32::NEG_INFINITY, |m, z| m.max(*z));
    let shifted = row.iter().map(|z| f64::from(*z) - f64::from(most));
    let sum: f64 = shifted.clone().map(f64::exp).sum();
    if !sum.is_finite() {
        return Err(Error::Measure(format!(
            "the logits at position {at} have no softmax (NaN, or all infinite): find where they \
             diverged first"
        )));
    }
    let ln_sum = sum.ln();
    Ok(shifted.map(|z| z - ln_sum).collect())
}

/// `Σ_v p_v f(ln p_v)`, without the tokens of probability 0.
fn expected(ln_p: &[f64], f: impl Fn(f64) -> f64) -> f64 {
    let possible = ln_p.iter().filter(|ln_p| ln_p.is_finite());
    possible.map(|ln_p| ln_p.exp() * f(*ln_p)).sum()
}

/// Mean loss of a text over its tokens, `−1/n Σ ln p`, in nats.
///
/// # Errors
/// No tokens.
pub fn loss(text: &[Token]) -> Result<f64> {
    some(text)?;
    Ok(-text.iter().map(|token| token.log_p).sum::<f64>() / text.len() as f64)
}

/// Mean over texts of each text's own mean loss: every text counts the same, however long.
///
/// # Errors
/// No texts, or one without tokens.
pub fn mean_loss<T: AsRef<[Token]>>(texts: &[T]) -> Result<f64> {
    if texts.is_empty() {
        return Err(Error::Measure("there are no texts".into()));
    }
    let losses = texts.iter().map(|text| loss(text.as_ref()));
    Ok(losses.sum::<Result<f64>>()? / texts.len() as f64)
}

/// There is a token.
pub(super) fn some(text: &[Token]) -> Result<()> {
    match text.is_empty() {
        true => Err(Error::Measure(
            "no token of the text counts: leave it out, or give it targets".into(),
        )),
        false => Ok(()),
    }
}
