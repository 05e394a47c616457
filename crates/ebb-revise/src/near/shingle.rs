//! Texts with much the same words: MinHash with locality-sensitive hashing, then the exact
//! Jaccard similarity.
//!
//! A text is the set of its shingles, runs of [`WORDS`] words without case and punctuation. Two
//! sets agree in a MinHash with a probability that is their Jaccard similarity `s` (Broder 1997);
//! with `b` bands of `r` hashes a pair becomes a candidate with `1 − (1 − sʳ)ᵇ` (Leskovec,
//! Rajaraman & Ullman, *Mining of Massive Datasets*, 3.4). `r` is the largest for which a pair at
//! the threshold is missed by less than 1 in 100. Candidates are then compared exactly.

use std::collections::{BTreeSet, HashMap};

/// Words in a shingle; a shorter text is one shingle.
const WORDS: usize = 5;

/// Hashes in a signature.
const HASHES: usize = 128;

/// A pair at the threshold may be missed with this probability.
const MISSED: f64 = 0.01;

/// Finds the texts of a small set that are like a given one; the given ones may be many.
#[derive(Clone, Debug)]
pub struct MinHash {
    bands: usize,
    rows: usize,
    threshold: f64,
    permutations: Vec<(u64, u64)>,
    texts: Vec<String>,
    buckets: HashMap<(u32, u64), Vec<u32>>,
}

impl MinHash {
    /// An index of `texts` for similarities from `threshold` (in [0.1, 1]) on.
    pub fn new(texts: Vec<String>, threshold: f64) -> MinHash {
        let bands_of = |rows: usize| HASHES / rows;
        let misses = |rows: usize| missed(threshold, bands_of(rows), rows) > MISSED;
        let rows = (1..=HASHES).rev().find(|rows| !misses(*rows)).unwrap_or(1);
        let mut random = blake3::Hasher::new_derive_key("ebbinghaus v1 minhash").finalize_xof();
        let mut next = || {
            let mut bytes = [0; 8];
            random.fill(&mut bytes);
            u64::from_le_bytes(bytes)
        };
        let mut index = MinHash {
            bands: bands_of(rows),
            rows,
            threshold,
            permutations: (0..HASHES).map(|_| (next() | 1, next())).collect(),
            texts: Vec::new(),
            buckets: HashMap::new(),
        };
        for (number, text) in texts.iter().enumerate() {
            for key in index.keys(text) {
                index.buckets.entry(key).or_default().push(number as u32);
            }
        }
        index.texts = texts;
        index
    }

    /// The texts whose similarity with `text` reaches the threshold, with the similarity; by
    /// number. Each is missed with at most [`missed`](MinHash::missed) at the threshold, less
    /// above it; none is found that does not reach it.
    pub fn like(&self, text: &str) -> Vec<(usize, f64)> {
        let keys = self.keys(text);
        let candidates: BTreeSet<u32> = keys
            .iter()
            .filter_map(|key| self.buckets.get(key))
            .flatten()
            .copied()
            .collect();
        let exact = candidates.into_iter().map(|number| {
            let number = number as usize;
            (number, jaccard(&self.texts[number], text))
        });
        exact
            .filter(|(_, similarity)| *similarity >= self.threshold)
            .collect()
    }

    /// The probability that a pair exactly at the threshold is missed.
    pub fn missed(&self) -> f64 {
        missed(self.threshold, self.bands, self.rows)
    }

    fn keys(&self, text: &str) -> Vec<(u32, u64)> {
        let words = words(text);
        let mut least = [u64::MAX; HASHES];
        for shingle in shingles(&words) {
            let mut hasher = blake3::Hasher::new();
            for word in shingle {
                hasher.update(word.as_bytes()).update(&[0]);
            }
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
            let hash = u64::from_le_bytes(bytes);
            for (least, (a, b)) in least.iter_mut().zip(&self.permutations) {
                // The high bits of a product are mixed well, the low ones are not.
                *least = (*least).min(hash.wrapping_mul(*a).wrapping_add(*b) >> 16);
            }
        }
        let bands = least.chunks_exact(self.rows).take(self.bands).enumerate();
        let key = |(band, rows): (usize, &[u64])| {
            let mut hasher = blake3::Hasher::new();
            for value in rows {
                hasher.update(&value.to_le_bytes());
            }
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
            (band as u32, u64::from_le_bytes(bytes))
        };
        // A text without words has no shingles and is like nothing.
        match words.is_empty() {
            true => Vec::new(),
            false => bands.map(key).collect(),
        }
    }
}

fn missed(similarity: f64, bands: usize, rows: usize) -> f64 {
    (1.0 - similarity.powi(rows as i32)).powi(bands as i32)
}

/// The Jaccard similarity of the shingles of two texts, |A ∩ B| / |A ∪ B|; 0 if either has no
/// word.
pub fn jaccard(a: &str, b: &str) -> f64 {
    let (a, b) = (words(a), words(b));
    if a.is_empty() || b.is_empty() {
        return 0.0;
    }
    let a: BTreeSet<&[String]> = shingles(&a).collect();
    let b: BTreeSet<&[String]> = shingles(&b).collect();
    let common = a.intersection(&b).count();
    common as f64 / (a.len() + b.len() - common) as f64
}

/// Words without case and punctuation.
fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

fn shingles(words: &[String]) -> impl Iterator<Item = &[String]> {
    words.windows(WORDS.min(words.len()).max(1))
}

#[cfg(test)]
mod tests {
    use ebb_space::Key;

    use super::*;

    /// Texts with words of a small vocabulary, some of them with words exchanged.
    fn corpus(n: usize) -> Vec<String> {
        let mut random = Key::new(3, "shingles").stream();
        let mut texts: Vec<Vec<u64>> = Vec::new();
        for i in 0..n {
            let fresh = i % 4 == 0;
            let mut words = match fresh {
                true => (0..40 + random.below(60))
                    .map(|_| random.below(2000))
                    .collect(),
                false => texts[random.below(texts.len() as u64) as usize].clone(),
            };
            if !fresh {
                for _ in 0..random.below(8) {
                    let at = random.below(words.len() as u64) as usize;
                    words[at] = random.below(2000);
                }
            }
            texts.push(words);
        }
        let text = |words: &Vec<u64>| {
            words
                .iter()
                .map(|w| format!("w{w}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        texts.iter().map(text).collect()
    }

    /// The definition, written out over sets of joined words.
    fn brute_force(a: &str, b: &str) -> f64 {
        let set = |text: &str| -> BTreeSet<String> {
            let words: Vec<&str> = text.split(' ').collect();
            (0..words.len() - 4)
                .map(|i| words[i..i + 5].join(" "))
                .collect()
        };
        let (a, b) = (set(a), set(b));
        a.intersection(&b).count() as f64 / a.union(&b).count() as f64
    }

    #[test]
    fn finds_what_brute_force_finds_but_for_the_stated_share() {
        let texts = corpus(300);
        let exact: Vec<Vec<f64>> = texts
            .iter()
            .map(|a| texts.iter().map(|b| brute_force(a, b)).collect())
            .collect();
        for threshold in [0.3, 0.5, 0.8, 1.0] {
            let index = MinHash::new(texts.clone(), threshold);
            assert!(index.missed() <= MISSED, "{threshold}: {}", index.missed());
            let (mut pairs, mut missing) = (0, 0);
            for (i, text) in texts.iter().enumerate() {
                let found = index.like(text);
                let expected = exact[i].iter().copied().enumerate();
                let expected = expected.filter(|(_, similarity)| *similarity >= threshold);
                let mut found_pairs = found.iter().peekable();
                for (j, similarity) in expected {
                    pairs += 1;
                    match found_pairs.next_if(|(k, _)| *k == j) {
                        Some((_, s)) => assert_eq!(*s, similarity, "{i} {j}"),
                        None => missing += 1,
                    }
                }
                assert!(found_pairs.next().is_none(), "nothing else is found");
            }
            assert!(pairs > 300, "{pairs}");
            // Pairs lie at the threshold or above, where fewer are missed.
            assert!(
                f64::from(missing) <= MISSED * f64::from(pairs),
                "{missing} of {pairs}"
            );
        }
    }

    #[test]
    fn case_and_punctuation_do_not_matter_and_short_texts_are_compared_whole() {
        assert_eq!(jaccard("The cat, sat!", "the CAT sat"), 1.0);
        assert_eq!(jaccard("the cat sat", "the cat ran"), 0.0);
        assert_eq!(jaccard("", ""), 0.0);
        assert_eq!(jaccard("...", "the"), 0.0);
        // Six words have two shingles; one of three is shared.
        assert_eq!(jaccard("a b c d e f", "a b c d e g"), 1.0 / 3.0);
        let index = MinHash::new(vec!["The cat, sat!".into(), "?".into()], 0.8);
        assert_eq!(index.like("the cat sat"), [(0, 1.0)]);
        assert!(index.like("").is_empty() && index.like("!").is_empty());
    }
}
