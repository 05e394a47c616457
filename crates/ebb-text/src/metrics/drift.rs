//! How far a model has moved from another one, on the same text.
//!
//! **What it does.** The divergence of the model's next-token distributions from the reference's, over
//! the positions that count. **Equation.** `mean_t KL(p_reference(·|x_<t) ‖ p_model(·|x_<t))`, in nats.
//! **Use it** on texts that are to be kept, with the model before as reference: utility can be equal
//! while everything else about the answers changed. **Not** on what is to be forgotten, where moving
//! is the aim.

use super::token::{log_softmax, positions};
use crate::{Error, Result};

/// Mean divergence over the positions where `counts` says so. Both logits are
/// `[positions × vocabulary]`; other positions may hold anything.
///
/// # Errors
/// Sizes that do not fit, no position that counts, logits without a softmax, a token that the model
/// rules out and the reference does not.
pub fn drift(reference: &[f32], model: &[f32], vocabulary: usize, counts: &[bool]) -> Result<f64> {
    let before = positions(reference, vocabulary, counts.len())?;
    let after = positions(model, vocabulary, counts.len())?;
    let counted = before.zip(after).zip(counts).enumerate();
    let (mut sum, mut n) = (0.0, 0u64);
    for (at, ((before, after), _)) in counted.filter(|(_, (_, counts))| **counts) {
        let (p, q) = (log_softmax(before, at)?, log_softmax(after, at)?);
        let possible = p.iter().zip(&q).filter(|(p, _)| p.is_finite());
        let divergence: f64 = possible.map(|(p, q)| p.exp() * (p - q)).sum();
        if !divergence.is_finite() {
            return Err(Error::Measure(format!(
                "at position {at} the model rules out a token that the reference does not: their \
                 divergence is infinite"
            )));
        }
        sum += divergence;
        n += 1;
    }
    match n {
        0 => Err(Error::Measure("no position counts".into())),
        n => Ok(sum / n as f64),
    }
}
