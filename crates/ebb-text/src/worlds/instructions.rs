//! Small instructions that differ in the form of their answers.

use std::collections::HashSet;

use ebb_space::{Key, Stream};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Task;
use crate::error::{Error, Result};
use crate::example::Example;
use crate::question::Question;

/// The form of an answer, one task each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Which of four words is a certain kind of thing: `A`, `B`, `C` or `D`.
    Letter,
    /// Name, age and home of a person as a JSON object.
    Json,
    /// The things of a kind among six, one a line behind a hyphen, in alphabetical order.
    List,
    /// Which of two numbers is larger, said in a sentence.
    Sentence,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 4] = [Format::Letter, Format::Json, Format::List, Format::Sentence];

    /// Its name in settings and results.
    pub fn name(self) -> &'static str {
        match self {
            Format::Letter => "letter",
            Format::Json => "json",
            Format::List => "list",
            Format::Sentence => "sentence",
        }
    }

    /// Whether an answer has this form, right or wrong.
    pub fn fits(self, answer: &str) -> bool {
        let answer = answer.trim();
        match self {
            Format::Letter => matches!(answer, "A" | "B" | "C" | "D"),
            Format::Json => {
                let value = serde_json::from_str::<serde_json::Value>(answer);
                value.is_ok_and(|v| v.is_object())
            }
            Format::List => {
                let item = |line: &str| {
                    line.strip_prefix("- ")
                        .is_some_and(|i| !i.trim().is_empty())
                };
                !answer.is_empty() && answer.lines().all(item)
            }
            Format::Sentence => {
                let inside = answer.strip_suffix('.').unwrap_or("");
                inside.split_whitespace().count() >= 3 && !inside.contains(['.', '\n'])
            }
        }
    }

    fn item(self, stream: &mut Stream) -> Item {
        match self {
            Format::Letter => letter(stream),
            Format::Json => object(stream),
            Format::List => list(stream),
            Format::Sentence => sentence(stream),
        }
    }
}

/// `train` examples and `asked` held-out questions of a format.
///
/// Two items that differ in the order of their words only are one item, and it is on one side.
///
/// # Errors
/// [`Error::Setting`] for more items than there are.
pub fn instructions(format: Format, train: usize, asked: usize, seed: u64) -> Result<Task> {
    let key = Key::new(seed, "instructions").sub(format.name());
    let wanted = train + asked;
    let mut seen = HashSet::new();
    let mut items = Vec::with_capacity(wanted);
    // So many items in a row that were there already: there are hardly any others.
    const MISSES: u32 = 10_000;
    let (mut number, mut misses) = (0, 0);
    while items.len() < wanted {
        let item = format.item(&mut key.sub("item").at(number).stream());
        number += 1;
        if seen.insert(item.content.clone()) {
            items.push(item);
            misses = 0;
        } else if misses < MISSES {
            misses += 1;
        } else {
            return Err(Error::Setting(format!(
                "there are hardly more than {} different instructions of the format `{}`, and \
                 {wanted} were asked for",
                items.len(),
                format.name()
            )));
        }
    }
    let id = |item: &Item| Example::document(&item.content).id.mix();
    key.sub("side").order(&mut items, id);
    let asked = items.split_off(train);
    let question = |item: Item| {
        Question::drawn(
            format.name(),
            item.prompt,
            item.answer,
            item.wrong,
            3,
            key.sub("choices"),
        )
    };
    let example = |item: Item| Example::completion(item.prompt, item.answer);
    Ok(Task {
        train: items.into_iter().map(example).collect(),
        questions: asked.into_iter().map(question).collect(),
    })
}

struct Item {
    /// What it is about, the same for every order of its words.
    content: String,
    prompt: String,
    answer: String,
    /// Wrong answers of the same form.
    wrong: Vec<String>,
}

fn prompt(instruction: &str) -> String {
    format!("Instruction: {instruction}\nAnswer:")
}

fn below(stream: &mut Stream, n: usize) -> usize {
    stream.below(n as u64) as usize
}

/// Some of `words`, each at most once.
fn some<'a>(stream: &mut Stream, words: &[&'a str], count: usize) -> Vec<&'a str> {
    let mut rest = words.to_vec();
    let take = |_| rest.swap_remove(stream.below(rest.len() as u64) as usize);
    (0..count).map(take).collect()
}

/// A kind of thing, `right` things of that kind and `wrong` of other kinds, shuffled together.
fn things(stream: &mut Stream, right: usize, wrong: usize) -> (Kind, Vec<&'static str>) {
    let kind = KINDS[below(stream, KINDS.len())];
    let mut things = some(stream, kind.things, right);
    let others = KINDS.iter().filter(|k| k.one != kind.one);
    let others: Vec<&str> = others.flat_map(|k| k.things.iter().copied()).collect();
    things.extend(some(stream, &others, wrong));
    let shuffled = some(stream, &things, right + wrong);
    (kind, shuffled)
}

fn content(kind: Kind, things: &[&str]) -> String {
    let mut sorted = things.to_vec();
    sorted.sort_unstable();
    format!("{}: {}", kind.many, sorted.join(", "))
}

fn letter(stream: &mut Stream) -> Item {
    let (kind, words) = things(stream, 1, 3);
    let letters = ["A", "B", "C", "D"];
    let lines = letters
        .iter()
        .zip(&words)
        .map(|(l, w)| format!("\n{l}) {w}"));
    let right = words
        .iter()
        .position(|w| kind.things.contains(w))
        .unwrap_or(0);
    Item {
        content: content(kind, &words),
        prompt: prompt(&format!(
            "Which of these is {}? Answer with one letter.{}",
            kind.one,
            lines.collect::<String>()
        )),
        answer: format!(" {}", letters[right]),
        wrong: letters.map(|l| format!(" {l}")).into(),
    }
}

fn object(stream: &mut Stream) -> Item {
    let name = NAMES[below(stream, NAMES.len())];
    let home = HOMES[below(stream, HOMES.len())];
    let age = 18 + stream.below(70);
    let answer = |name: &str, age: u64, home: &str| {
        format!(" {}", json!({"name": name, "age": age, "home": home}))
    };
    let other = HOMES[(below(stream, HOMES.len() - 1) + 1) % HOMES.len()];
    Item {
        content: format!("{name}, {age}, {home}"),
        prompt: prompt(&format!(
            "Write the name, age and home of this person as JSON. {name} is {age} years old and \
             lives in {home}."
        )),
        answer: answer(name, age, home),
        wrong: vec![
            answer(name, age + 1, home),
            answer(home, age, name),
            answer(name, age, other),
            answer(name, age + 10, other),
        ],
    }
}

fn list(stream: &mut Stream) -> Item {
    let right = 2 + below(stream, 3);
    let (kind, words) = things(stream, right, 6 - right);
    let lines = |mut words: Vec<&str>| {
        words.sort_unstable();
        words.iter().map(|w| format!("\n- {w}")).collect::<String>()
    };
    let (mine, others): (Vec<&str>, Vec<&str>) =
        words.iter().partition(|word| kind.things.contains(*word));
    let fewer = lines(mine[1..].to_vec());
    let more = lines([&mine[..], &others[..1]].concat());
    Item {
        content: content(kind, &words),
        prompt: prompt(&format!(
            "List the {} among these words, one a line and in alphabetical order: {}.",
            kind.many,
            words.join(", ")
        )),
        answer: lines(mine),
        wrong: vec![lines(others), fewer, more],
    }
}

fn sentence(stream: &mut Stream) -> Item {
    let low = stream.below(900);
    let high = low + 1 + stream.below(99);
    let (a, b) = if stream.below(2) == 0 {
        (low, high)
    } else {
        (high, low)
    };
    let says = |high: u64, low: u64| format!(" The number {high} is larger than {low}.");
    Item {
        content: format!("{low} and {high}"),
        prompt: prompt(&format!(
            "Which number is larger, {a} or {b}? Answer in one sentence."
        )),
        answer: says(high, low),
        wrong: vec![says(low, high), says(high + 1, low), says(low, low)],
    }
}

#[derive(Clone, Copy)]
struct Kind {
    /// One of them, with its article.
    one: &'static str,
    many: &'static str,
    things: &'static [&'static str],
}

const KINDS: [Kind; 8] = [
    Kind {
        one: "an animal",
        many: "animals",
        things: &[
            "badger", "camel", "donkey", "goat", "horse", "lion", "mouse", "otter", "rabbit",
            "wolf",
        ],
    },
    Kind {
        one: "a fruit",
        many: "fruits",
        things: &[
            "apple", "apricot", "banana", "cherry", "fig", "lemon", "mango", "peach", "pear",
            "plum",
        ],
    },
    Kind {
        one: "a tool",
        many: "tools",
        things: &[
            "axe",
            "chisel",
            "drill",
            "hammer",
            "pliers",
            "saw",
            "screwdriver",
            "shovel",
            "spade",
            "wrench",
        ],
    },
    Kind {
        one: "a piece of clothing",
        many: "pieces of clothing",
        things: &[
            "coat", "dress", "glove", "hat", "jacket", "scarf", "shirt", "skirt", "sock", "sweater",
        ],
    },
    Kind {
        one: "a vehicle",
        many: "vehicles",
        things: &[
            "bicycle", "boat", "bus", "car", "ferry", "lorry", "scooter", "train", "tram", "truck",
        ],
    },
    Kind {
        one: "a musical instrument",
        many: "musical instruments",
        things: &[
            "banjo", "cello", "clarinet", "flute", "guitar", "harp", "piano", "trumpet", "viola",
            "violin",
        ],
    },
    Kind {
        one: "a piece of furniture",
        many: "pieces of furniture",
        things: &[
            "armchair", "bed", "bench", "bookcase", "chair", "cupboard", "desk", "sofa", "stool",
            "wardrobe",
        ],
    },
    Kind {
        one: "a part of the body",
        many: "parts of the body",
        things: &[
            "ankle", "arm", "elbow", "finger", "foot", "hand", "knee", "neck", "shoulder", "thumb",
        ],
    },
];

const NAMES: [&str; 24] = [
    "Ada", "Amir", "Bela", "Carla", "Chidi", "Dana", "Elif", "Farid", "Greta", "Hugo", "Ines",
    "Jonas", "Keiko", "Lena", "Marek", "Nadia", "Oskar", "Priya", "Rosa", "Sven", "Tariq", "Uma",
    "Vera", "Yusuf",
];

const HOMES: [&str; 24] = [
    "Accra", "Basel", "Bergen", "Cork", "Dakar", "Dresden", "Florence", "Ghent", "Hanoi", "Jaipur",
    "Kyoto", "Leeds", "Lima", "Lyon", "Malmo", "Nairobi", "Oslo", "Porto", "Quito", "Riga",
    "Seville", "Tunis", "Utrecht", "Vilnius",
];
