//! Sequences side by side in rows of one length.

use std::collections::{BTreeMap, HashMap};

use ebb_space::{ExampleId, Key};

use crate::encode::Sequence;
use crate::error::{Error, Result};

/// In [`Packed::examples`], a token that fills a row up.
pub const NO_EXAMPLE: u32 = u32::MAX;

/// Which sequences share a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Each has a row of its own, in the order given.
    OneEach,
    /// In the order given: a row is closed when the next sequence does not fit.
    InOrder,
    /// The longest first, each into the fullest row that has room; the rows are then shuffled. All
    /// of it follows the ids under the key, not the order given.
    Best(Key),
}

/// Rows of `length` tokens, each of one sequence or several, filled up on the right.
///
/// Every list has a value for each token, row by row. `positions` and `documents` are what a
/// decoder takes to keep the sequences of a row apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Tokens of a row.
    pub length: usize,
    /// Token ids.
    pub tokens: Vec<u32>,
    /// The token that comes next in the same sequence; behind the last, the padding token.
    pub targets: Vec<u32>,
    /// Whether the target is learnt; never behind the last token of a sequence.
    pub learn: Vec<bool>,
    /// The position within the sequence, from 0.
    pub positions: Vec<u32>,
    /// Which sequence of the row, from 0; what fills the row up has the number after the last.
    pub documents: Vec<u32>,
    /// Whose token: an index of [`Packed::ids`], or [`NO_EXAMPLE`].
    pub examples: Vec<u32>,
    /// The examples, each once, in the order in which they come.
    pub ids: Vec<ExampleId>,
}

impl Packed {
    /// How many rows.
    pub fn rows(&self) -> usize {
        self.tokens.len() / self.length.max(1)
    }

    /// How many targets are learnt.
    pub fn learnt(&self) -> usize {
        self.learn.iter().filter(|&&l| l).count()
    }

    /// The share of tokens that belong to a sequence.
    pub fn used(&self) -> f64 {
        let used = self.examples.iter().filter(|&&e| e != NO_EXAMPLE).count();
        used as f64 / self.tokens.len().max(1) as f64
    }
}

/// Packs sequences into rows of `length`, filled up with the token `pad`.
///
/// # Errors
/// [`Error::Row`] for a sequence that is longer than a row or empty.
pub fn pack(sequences: &[Sequence], length: usize, pad: u32, fill: Fill) -> Result<Packed> {
    let misfit = |s: &&Sequence| s.tokens.is_empty() || s.tokens.len() > length;
    if let Some(sequence) = sequences.iter().find(misfit) {
        return Err(Error::Row {
            id: sequence.id,
            tokens: sequence.tokens.len(),
            length,
        });
    }
    let rows = match fill {
        Fill::OneEach => sequences.iter().map(|s| vec![s]).collect(),
        Fill::InOrder => in_order(sequences, length),
        Fill::Best(key) => best(sequences, length, key),
    };
    let mut packed = Packed {
        length,
        ..Packed::default()
    };
    let mut numbers = HashMap::new();
    for row in rows {
        packed.push(&row, pad, &mut numbers);
    }
    Ok(packed)
}

impl Packed {
    fn push(&mut self, row: &[&Sequence], pad: u32, numbers: &mut HashMap<ExampleId, u32>) {
        for (document, sequence) in row.iter().enumerate() {
            let example = *numbers.entry(sequence.id).or_insert_with(|| {
                self.ids.push(sequence.id);
                self.ids.len() as u32 - 1
            });
            let n = sequence.tokens.len();
            self.tokens.extend(&sequence.tokens);
            self.targets.extend(&sequence.tokens[1..]);
            self.targets.push(pad);
            self.learn.extend(&sequence.learn[1..]);
            self.learn.push(false);
            self.positions.extend(0..n as u32);
            self.documents
                .resize(self.documents.len() + n, document as u32);
            self.examples.resize(self.examples.len() + n, example);
        }
        let used: usize = row.iter().map(|s| s.tokens.len()).sum();
        let empty = self.length - used;
        let end = self.tokens.len() + empty;
        self.tokens.resize(end, pad);
        self.targets.resize(end, pad);
        self.learn.resize(end, false);
        self.positions.extend(0..empty as u32);
        self.documents.resize(end, row.len() as u32);
        self.examples.resize(end, NO_EXAMPLE);
    }
}

fn in_order(sequences: &[Sequence], length: usize) -> Vec<Vec<&Sequence>> {
    let mut rows: Vec<Vec<&Sequence>> = Vec::new();
    let mut free = 0;
    for sequence in sequences {
        let n = sequence.tokens.len();
        match rows.last_mut() {
            Some(row) if n <= free => row.push(sequence),
            _ => {
                rows.push(vec![sequence]);
                free = length;
            }
        }
        free -= n;
    }
    rows
}

fn best(sequences: &[Sequence], length: usize, key: Key) -> Vec<Vec<&Sequence>> {
    let order = key.sub("order");
    let mut sorted: Vec<&Sequence> = sequences.iter().collect();
    sorted.sort_by_cached_key(|s| {
        let n = s.tokens.len();
        (std::cmp::Reverse(n), order.draw(s.id.mix()), s.piece)
    });
    let mut rows: Vec<Vec<&Sequence>> = Vec::new();
    // Rows that have so many tokens free, the oldest last to be taken.
    let mut free: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for sequence in sorted {
        let n = sequence.tokens.len();
        let fitting = free.range(n..).next().map(|(&room, _)| room);
        let (row, room) = match fitting.and_then(|room| Some((free.get_mut(&room)?.pop()?, room))) {
            Some((row, room)) => {
                if free.get(&room).is_some_and(Vec::is_empty) {
                    free.remove(&room);
                }
                (row, room)
            }
            None => {
                rows.push(Vec::new());
                (rows.len() - 1, length)
            }
        };
        rows[row].push(sequence);
        if room > n {
            free.entry(room - n).or_default().push(row);
        }
    }
    let shuffle = key.sub("rows");
    rows.sort_by_cached_key(|row| {
        let first = row[0];
        (shuffle.draw(first.id.mix()), first.piece)
    });
    rows
}
