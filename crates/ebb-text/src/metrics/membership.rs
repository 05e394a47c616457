//! Was this text learnt? Scores of one model, or of two.
//!
//! **What it does.** Four scores of a text, **greater meaning rather learnt** (some programs print the
//! same with the other sign): its least likely tokens (Min-K), the same against what the model expected
//! there (Min-K++), its loss for how well it compresses (zlib), its loss against another model's.
//! **Source.** Min-K: Shi et al., *Detecting pretraining data from large language models*, 2024.
//! Min-K++: Zhang et al., 2024. zlib and reference: Carlini et al., *Extracting training data from large
//! language models*, 2021 (card X17).
//! **Equation.** `mean of the lowest ⌊kT⌋ of ln p_t` (at least one); the same of `(ln p_t − μ_t)/σ_t`
//! with `σ² ≥ 10⁻⁶`; `−loss / zlib bytes`; `loss_reference − loss`. Losses are means over tokens.
//! **Use them** through an area under the curve, with other texts of the same kind, length and time, and
//! beside a model that never saw either. **Not** to say of one text that it was learnt.

use super::token::{Token, loss, some};
use crate::{Error, Result};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use std::io::{Write, sink};

/// The least variance that Min-K++ divides by.
const LEAST_VARIANCE: f64 = 1e-6;

/// Min-K: mean log probability of the least likely tokens, a `share` in (0, 1] of all and at least one.
/// 0.2 is usual, PrivLeak takes 0.4.
///
/// # Errors
/// No tokens, a share outside (0, 1].
pub fn min_k(text: &[Token], share: f64) -> Result<f64> {
    lowest(text, share, |token| token.log_p)
}

/// Min-K++: the same of log probabilities that are standardised by mean and variance of the log
/// probability under the model's own distribution.
///
/// # Errors
/// No tokens, a share outside (0, 1].
pub fn min_k_plus_plus(text: &[Token], share: f64) -> Result<f64> {
    lowest(text, share, |token| {
        (token.log_p - token.mean) / token.variance.max(LEAST_VARIANCE).sqrt()
    })
}

fn lowest(text: &[Token], share: f64, score: impl Fn(&Token) -> f64) -> Result<f64> {
    some(text)?;
    if !(share > 0.0 && share <= 1.0) {
        return Err(Error::Measure(format!(
            "a share of {share} of the tokens means nothing: give one above 0 and at most 1"
        )));
    }
    let mut scores: Vec<f64> = text.iter().map(score).collect();
    scores.sort_unstable_by(f64::total_cmp);
    // 0.29 · 100 is a little less than 29 in f64.
    let kept = ((share * scores.len() as f64 + 1e-9) as usize).max(1);
    Ok(scores[..kept].iter().sum::<f64>() / kept as f64)
}

/// Minus the loss over the size of `said` (the text of the tokens) after zlib at its usual level, in
/// nats a byte. From some 80 bytes of prose on the size is that of the usual zlib to a byte or two; a
/// shorter text may come out up to a tenth larger.
///
/// # Errors
/// No tokens.
pub fn zlib_ratio(text: &[Token], said: &str) -> Result<f64> {
    Ok(-loss(text)? / compressed(said) as f64)
}

/// Bytes of the text after zlib: at least the 8 of its frame.
fn compressed(text: &str) -> u64 {
    let mut encoder = ZlibEncoder::new(sink(), Compression::default());
    // Writing into a sink cannot fail.
    let written = (encoder.write_all(text.as_bytes())).and_then(|()| encoder.try_finish());
    debug_assert!(written.is_ok());
    encoder.total_out()
}

/// How much lower the loss is than that of a reference model, in nats a token. The reference may have
/// another tokenizer only if both losses are per byte, which these are not: use one tokenizer.
///
/// # Errors
/// No tokens, or another number under the reference.
pub fn against_reference(text: &[Token], reference: &[Token]) -> Result<f64> {
    if text.len() != reference.len() {
        return Err(Error::Measure(format!(
            "{} tokens count under the model and {} under the reference: use one tokenizer and the \
             same targets",
            text.len(),
            reference.len()
        )));
    }
    Ok(loss(reference)? - loss(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_zlib() {
        // Python: len(zlib.compress(text)).
        let times = "It was the best of times, it was the worst of times, it was the age of wisdom, \
                     it was the age of foolishness, it was the epoch of belief, it was the epoch of \
                     incredulity.";
        for (text, bytes) in [("", 8), ("a", 9), (times, 88)] {
            assert!(compressed(text).abs_diff(bytes) <= 2, "{text}");
        }
        // No prose: zlib needs 17.
        assert!(compressed(&"a".repeat(1000)) < 25);
    }
}
