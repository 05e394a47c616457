//! Whether two texts are the same.

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
