//! A continuation beside the true one.
//!
//! **What it does.** Compares what a model says after a prefix with how the text goes on: word for word
//! (strict), or up to a few edits (loose).
//! **Source.** Levenshtein, 1966; as a measure of memorisation: Merullo et al., *From memorization to
//! reasoning in the spectrum of loss curvature*, 2025 (card S177).
//! **Equation.** `similarity = 1 − lev/L`, `L` the longer length; loose where it is at least 0.75.
//! **Use it** on greedy continuations of fixed prefixes (48 to 64 tokens on the card). **Not** on texts
//! whose continuation anybody would guess.

/// The least similarity of a loose match.
pub const LOOSE: f64 = 0.75;

/// How a continuation compares with the true one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Continuation {
    /// Whether they are the same.
    pub strict: bool,
    /// 1 less the edits over the longer length, in [0, 1]; 1 for two that are empty.
    pub similarity: f64,
}

impl Continuation {
    /// Compares tokens (or characters). Time is the product of the lengths.
    pub fn compare<T: PartialEq>(said: &[T], truth: &[T]) -> Continuation {
        let longer = said.len().max(truth.len());
        let edits = levenshtein(said, truth) as f64;
        Continuation {
            strict: said == truth,
            similarity: if longer == 0 {
                1.0
            } else {
                1.0 - edits / longer as f64
            },
        }
    }

    /// Whether they are the same up to a quarter of edits.
    pub fn loose(&self) -> bool {
        self.similarity >= LOOSE
    }
}

/// The least number of insertions, deletions and replacements.
fn levenshtein<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition, over every way to edit.
    fn brute(a: &[u8], b: &[u8]) -> usize {
        let ([x, a_rest @ ..], [y, b_rest @ ..]) = (a, b) else {
            return a.len() + b.len();
        };
        let replaced = brute(a_rest, b_rest) + usize::from(x != y);
        replaced.min(1 + brute(a_rest, b)).min(1 + brute(a, b_rest))
    }

    #[test]
    fn edits_are_the_least_of_all_ways() {
        let key = ebb_space::Key::new(0, "levenshtein");
        for at in 0..60 {
            let mut stream = key.at(at).stream();
            let mut text = || -> Vec<u8> {
                let length = stream.below(7);
                (0..length).map(|_| stream.below(3) as u8).collect()
            };
            let (a, b) = (text(), text());
            assert_eq!(levenshtein(&a, &b), brute(&a, &b), "{a:?} {b:?}");
        }
        assert_eq!(levenshtein(b"kitten", b"sitting"), 3);
    }

    #[test]
    fn strict_and_loose() {
        let of = |said: &str, truth: &str| {
            let found = Continuation::compare(said.as_bytes(), truth.as_bytes());
            (found.strict, found.loose(), found.similarity)
        };
        assert_eq!(of("abcd", "abcd"), (true, true, 1.0));
        assert_eq!(of("abcx", "abcd"), (false, true, 0.75));
        assert_eq!(of("abxx", "abcd"), (false, false, 0.5));
        assert_eq!(of("", "abcd"), (false, false, 0.0));
        assert_eq!(of("abcdefgh", "abcd"), (false, false, 0.5));
        assert_eq!(of("", ""), (true, true, 1.0));
    }
}
