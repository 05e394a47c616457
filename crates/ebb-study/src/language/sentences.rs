//! Sentences of a small grammar, as many as anybody needs and hardly ever the same twice.

use super::learner::Row;
use crate::error::Result;
use ebb_hub::Tokenizer;
use ebb_space::{Key, Stream};
use ebb_text::Example;

const KINDS: [&[&str]; 6] = [ADJECTIVES, NOUNS, VERBS, PLACES, TIMES, MANNERS];

const ADJECTIVES: &[&str] = &[
    "old", "young", "tall", "small", "quiet", "loud", "green", "blue", "yellow", "grey", "happy",
    "tired", "clever", "brave", "lazy", "kind", "rich", "poor", "warm", "cold", "round", "thin",
    "heavy", "light", "strange", "famous", "hungry", "honest", "proud", "gentle",
];
const NOUNS: &[&str] = &[
    "baker",
    "farmer",
    "doctor",
    "singer",
    "sailor",
    "teacher",
    "painter",
    "driver",
    "hunter",
    "writer",
    "dog",
    "cat",
    "horse",
    "goat",
    "duck",
    "fox",
    "bear",
    "crow",
    "boy",
    "girl",
    "king",
    "queen",
    "judge",
    "nurse",
    "guard",
    "miner",
    "smith",
    "tailor",
    "monk",
    "clerk",
    "pilot",
    "cook",
    "thief",
    "uncle",
    "aunt",
    "guest",
    "child",
    "giant",
    "stranger",
    "neighbour",
];
const VERBS: &[&str] = &[
    "sees", "hears", "helps", "follows", "meets", "calls", "thanks", "greets", "finds", "loses",
    "paints", "feeds", "chases", "teaches", "trusts", "fears", "visits", "warns", "pays", "hides",
    "draws", "carries", "watches", "wakes", "asks", "answers", "blames", "praises", "leads",
    "copies",
];
const PLACES: &[&str] = &[
    "river", "bridge", "market", "church", "school", "harbour", "forest", "garden", "kitchen",
    "station", "castle", "mill", "tower", "field", "beach", "library", "stable", "cellar", "well",
    "gate",
];
const TIMES: &[&str] = &[
    "today",
    "yesterday",
    "tonight",
    "tomorrow",
    "early",
    "late",
    "often",
    "never",
    "always",
    "again",
    "soon",
    "once",
    "twice",
    "daily",
    "weekly",
    "rarely",
];
const MANNERS: &[&str] = &[
    "slowly", "quickly", "gladly", "sadly", "softly", "badly", "calmly", "firmly", "shyly",
    "boldly", "neatly", "kindly",
];

/// A word by itself, or one of a kind.
#[derive(Clone, Copy)]
enum Slot {
    Is(&'static str),
    Of(usize),
}

const FORMS: [&[Slot]; 3] = {
    use Slot::{Is, Of};
    [
        &[
            Is("the"),
            Of(0),
            Of(1),
            Of(2),
            Is("the"),
            Of(0),
            Of(1),
            Is("near"),
            Is("the"),
            Of(3),
            Of(4),
            Is("."),
        ],
        &[
            Of(4),
            Is("a"),
            Of(1),
            Of(5),
            Of(2),
            Is("the"),
            Of(1),
            Is("of"),
            Is("the"),
            Of(0),
            Of(3),
            Is("."),
        ],
        &[
            Is("at"),
            Is("the"),
            Of(3),
            Is("some"),
            Of(0),
            Of(1),
            Of(2),
            Of(4),
            Is("a"),
            Of(0),
            Of(1),
            Is("."),
        ],
    ]
};

/// A sentence, and of what its words are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sentence {
    form: usize,
    pub words: Vec<&'static str>,
}

fn word(kind: usize, draw: &mut Stream) -> &'static str {
    let words = KINDS[kind];
    words[draw.below(words.len() as u64) as usize]
}

impl Sentence {
    /// A sentence that `key` draws.
    pub fn new(key: Key) -> Sentence {
        let mut draw = key.stream();
        let form = draw.below(FORMS.len() as u64) as usize;
        Self::of(form, &mut draw)
    }

    fn of(form: usize, draw: &mut Stream) -> Sentence {
        let fill = |slot: &Slot| match slot {
            Slot::Is(word) => word,
            Slot::Of(kind) => word(*kind, draw),
        };
        Sentence {
            form,
            words: FORMS[form].iter().map(fill).collect(),
        }
    }

    /// Another sentence of the same form.
    pub fn unrelated(&self, key: Key) -> Sentence {
        Self::of(self.form, &mut key.stream())
    }

    /// The same with one word replaced by another of its kind.
    pub fn swapped(&self, key: Key) -> Sentence {
        let mut draw = key.stream();
        let slots: Vec<(usize, usize)> = FORMS[self.form]
            .iter()
            .enumerate()
            .filter_map(|(at, slot)| match slot {
                Slot::Of(kind) => Some((at, *kind)),
                Slot::Is(_) => None,
            })
            .collect();
        let (at, kind) = slots[draw.below(slots.len() as u64) as usize];
        let mut words = self.words.clone();
        while words[at] == self.words[at] {
            words[at] = word(kind, &mut draw);
        }
        Sentence {
            form: self.form,
            words,
        }
    }

    /// As many words of any kind in any order.
    pub fn gibberish(key: Key) -> Sentence {
        let mut draw = key.stream();
        let n = FORMS[0].len();
        let mut any = || {
            let kind = draw.below(KINDS.len() as u64) as usize;
            word(kind, &mut draw)
        };
        Sentence {
            form: 0,
            words: (0..n).map(|_| any()).collect(),
        }
    }
}

/// Every word of the grammar.
pub(super) fn vocabulary() -> Vec<&'static str> {
    let own = FORMS.iter().flat_map(|form| form.iter());
    let own = own.filter_map(|slot| match slot {
        Slot::Is(word) => Some(*word),
        Slot::Of(_) => None,
    });
    let mut words: Vec<&str> = KINDS.iter().flat_map(|k| k.iter().copied()).collect();
    words.extend(own);
    words.sort_unstable();
    words.dedup();
    words
}

/// A tokenizer of words with the space before them.
pub(super) fn tokenizer<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Tokenizer> {
    let spaced: Vec<String> = words.into_iter().map(|w| format!(" {w}")).collect();
    let made = Tokenizer::words(spaced.iter().map(String::as_str));
    Ok(made.map_err(ebb_learn::Error::from)?)
}

/// Words as a row, the first `given` of which are not predicted.
pub(super) fn row(words: &[&str], given: usize, tokenizer: &Tokenizer) -> Result<Row> {
    let text: String = words.iter().map(|w| format!(" {w}")).collect();
    let tokens = tokenizer.encode(&text, false);
    Ok(Row {
        id: Example::document(text).id,
        tokens: tokens.map_err(ebb_learn::Error::from)?,
        given,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foils_are_as_long_and_of_the_same_form() {
        let tokenizer = tokenizer(vocabulary()).expect("a tokenizer");
        for i in 0..50 {
            let key = Key::new(i, "sentences");
            let sentence = Sentence::new(key);
            let swapped = sentence.swapped(key.sub("swap"));
            let differ = sentence.words.iter().zip(&swapped.words);
            assert_eq!(differ.filter(|(a, b)| a != b).count(), 1);
            for other in [
                &sentence,
                &swapped,
                &sentence.unrelated(key.sub("other")),
                &Sentence::gibberish(key),
            ] {
                let row = row(&other.words, 1, &tokenizer).expect("a row");
                assert_eq!(row.tokens.len(), 12);
                // Neither the end of a text nor an unknown word.
                assert!(row.tokens.iter().all(|t| *t > 1), "{other:?}");
            }
        }
    }
}
