//! ROUGE-L: the words that two texts have in common, in their order.

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
