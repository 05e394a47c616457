//! How good a text is: exact match, ROUGE-L, perplexity.

/// Whether the texts are the same, bar the space around them.
pub fn exact_match(answer: &str, truth: &str) -> bool {
    answer.trim() == truth.trim()
}

/// Whether the texts are the same under [`normalise`].
pub fn normalised_match(answer: &str, truth: &str) -> bool {
    normalise(answer) == normalise(truth)
}

/// An answer as SQuAD compares it: lower case, without ASCII punctuation and the articles, words
/// parted by single spaces.
///
/// Source: Rajpurkar et al., *SQuAD: 100,000+ Questions for Machine Comprehension of Text*, 2016,
/// with the rules of its evaluation program.
pub fn normalise(text: &str) -> String {
    let lower = text.to_lowercase();
    let words: String = lower
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    // Articles go where they stand as words; in `a-b` they stand so no more once the hyphen went.
    let words = words.split_whitespace();
    let kept: Vec<&str> = words
        .filter(|w| !matches!(*w, "a" | "an" | "the"))
        .collect();
    kept.join(" ")
}

/// Whether the words of `truth` stand in `answer`, one behind the other, under [`normalise`]; never
/// for a truth without a word.
pub fn shows(answer: &str, truth: &str) -> bool {
    let (answer, truth) = (normalise(answer), normalise(truth));
    !truth.is_empty() && format!(" {answer} ").contains(&format!(" {truth} "))
}

/// What ROUGE-L finds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rouge {
    /// The share of the answer's words that are in the longest common subsequence.
    pub precision: f64,
    /// The share of the truth's words that are in it.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
}

/// ROUGE-L of an answer, without stemming: the longest common subsequence of words.
///
/// A word is a run of the letters `a` to `z` and digits in the lower-case text, as in the package
/// `rouge_score`. Source: Lin, *ROUGE: A Package for Automatic Evaluation of Summaries*, 2004.
pub fn rouge_l(answer: &str, truth: &str) -> Rouge {
    let (answer, truth) = (words(answer), words(truth));
    let common = longest_common_subsequence(&answer, &truth) as f64;
    if common == 0.0 {
        return Rouge::default();
    }
    let (precision, recall) = (common / answer.len() as f64, common / truth.len() as f64);
    Rouge {
        precision,
        recall,
        f1: 2.0 * precision * recall / (precision + recall),
    }
}

fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit());
    words.filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

fn longest_common_subsequence(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = match x == y {
                true => diagonal + 1,
                false => above.max(row[j]),
            };
            diagonal = above;
        }
    }
    row[b.len()]
}

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
