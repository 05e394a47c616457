//! Log-likelihood over tokens and bytes.

/// Log-likelihood that was summed over texts, and over how much.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Likelihood {
    /// The sum of the natural logarithms of the probabilities of the tokens.
    pub log_likelihood: f64,
    /// How many tokens were predicted.
    pub tokens: u64,
    /// How many bytes of UTF-8 they stand for.
    pub bytes: u64,
}

impl Likelihood {
    /// With another text.
    pub fn add(&mut self, other: Likelihood) {
        self.log_likelihood += other.log_likelihood;
        self.tokens += other.tokens;
        self.bytes += other.bytes;
    }

    /// `exp(−Σ ln p / tokens)`: comparable between models of one tokenizer only. Not a number for
    /// no tokens.
    pub fn perplexity(&self) -> f64 {
        (-self.log_likelihood / self.tokens as f64).exp()
    }

    /// `−Σ log₂ p / bytes`: comparable between tokenizers. Not a number for no bytes.
    pub fn bits_per_byte(&self) -> f64 {
        -self.log_likelihood / (std::f64::consts::LN_2 * self.bytes as f64)
    }
}
