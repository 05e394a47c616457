//! Does the model still believe it? Answers beside wrong answers.
//!
//! **What it does.** The probability of an answer, freed of its length; the same as a share of several
//! options; and the truth ratio, how likely wrong answers are beside a right one in other words.
//! **Source.** Maini et al., *TOFU: a task of fictitious unlearning*, 2024 (card X17).
//! **Equation.** `p(a|q)^(1/|a|)`; `R = mean_i p(wrong_i|q)^(1/|wrong_i|) / p(right|q)^(1/|right|)`. The
//! paper's mean is arithmetic, that of the usual program geometric: [`TruthMean`] names which.
//! **Use** `min(R, 1/R)` on what is to be forgotten (1: wrong is as likely as right) and `max(0, 1 − R)`
//! on what is to be kept. **Not** the first as a proof: a model that is unsure of everything has it too.
//! A truth ratio says nothing without that of a retrained model ([`ebb_space::audit::forget_quality`]).

use super::token::{Token, loss};
use crate::{Error, Result};

/// How the probabilities of several wrong answers become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TruthMean {
    /// Their sum over their number, as in the paper: the likeliest decides.
    Arithmetic,
    /// The exponential of minus their mean loss, as in the usual program: the unlikeliest counts too.
    Geometric,
}

/// `p(answer|question)^(1/tokens)`, in (0, 1].
///
/// # Errors
/// No tokens.
pub fn probability(answer: &[Token]) -> Result<f64> {
    Ok((-loss(answer)?).exp())
}

/// The right answer's [`probability`] as a share of that of all options, in [0, 1].
///
/// # Errors
/// An answer without tokens.
pub fn probability_among<T: AsRef<[Token]>>(right: &[Token], wrong: &[T]) -> Result<f64> {
    let right = loss(right)?;
    // Relative to the right answer: both may vanish, and their ratio does not.
    let wrong = wrong
        .iter()
        .map(|answer| Ok((right - loss(answer.as_ref())?).exp()));
    Ok(1.0 / (1.0 + wrong.sum::<Result<f64>>()?))
}

/// The truth ratio `R` of wrong answers and a right one, at least 0; infinite where it exceeds f64.
///
/// # Errors
/// No wrong answer, or an answer without tokens.
pub fn truth_ratio<T: AsRef<[Token]>>(
    right: &[Token],
    wrong: &[T],
    mean: TruthMean,
) -> Result<f64> {
    if wrong.is_empty() {
        return Err(Error::Measure("a truth ratio needs a wrong answer".into()));
    }
    let right = loss(right)?;
    let gaps = wrong
        .iter()
        .map(|answer| Ok(right - loss(answer.as_ref())?));
    let gaps = gaps.collect::<Result<Vec<f64>>>()?;
    let n = gaps.len() as f64;
    Ok(match mean {
        TruthMean::Arithmetic => gaps.iter().map(|gap| gap.exp()).sum::<f64>() / n,
        TruthMean::Geometric => (gaps.iter().sum::<f64>() / n).exp(),
    })
}

/// `min(R, 1/R)` in [0, 1]: 1 where wrong answers are as likely as the right one.
pub fn as_likely(truth_ratio: f64) -> f64 {
    truth_ratio.min(1.0 / truth_ratio)
}

/// `max(0, 1 − R)` in [0, 1]: 1 where wrong answers are impossible.
pub fn truthful(truth_ratio: f64) -> f64 {
    (1.0 - truth_ratio).max(0.0)
}
