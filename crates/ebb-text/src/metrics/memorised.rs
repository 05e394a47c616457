//! Learnt by heart: how much of a text the model would say by itself.
//!
//! **What it does.** Exact memorisation is the share of tokens that are the model's likeliest, each
//! given the true text before it. Extraction strength is the share of the text that greedy decoding
//! reproduces up to its end, given as little of its beginning as suffices.
//! **Source.** Tirumala et al., *Memorization without overfitting*, 2022; Carlini et al., *Extracting
//! training data from large language models*, 2021 (card X17).
//! **Equation.** `EM = 1/T Σ_t 1[argmax p(·|x_<t) = x_t]`; `ES = 1 − k/T`, `k` the least number of
//! tokens after which every one is the likeliest; 0 where the last is not.
//! **Use them** on texts that stood in training word for word. **Not** as proof that a fact is gone:
//! both see one wording. Exact memorisation is high for any predictable text; compare with a model that
//! never saw it.

use super::token::{Token, some};
use crate::Result;

/// Share of the tokens that are the likeliest, in [0, 1].
///
/// # Errors
/// No tokens.
pub fn exact_memorisation(text: &[Token]) -> Result<f64> {
    some(text)?;
    let right = text.iter().filter(|token| token.likeliest).count();
    Ok(right as f64 / text.len() as f64)
}

/// Share of the text that its beginning draws out, in [0, 1].
///
/// # Errors
/// No tokens.
pub fn extraction_strength(text: &[Token]) -> Result<f64> {
    some(text)?;
    let suffix = text
        .iter()
        .rev()
        .take_while(|token| token.likeliest)
        .count();
    Ok(suffix as f64 / text.len() as f64)
}
