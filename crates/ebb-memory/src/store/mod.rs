//! The replay store on disk: crash-safe, with deletion that leaves no byte in its files.
//!
//! **What it does.** Keeps records (an input of values, codes or bytes; logits, features, score,
//! loss, a counter) in a folder, finds them by id, changes the sidecars without touching the
//! inputs, draws by name and step as [`Memory`](crate::Memory) does, and deletes by id.
//!
//! **How it lies.** Dense files in which a record's place follows from its slot, and a small journal
//! through which every change goes whole before it is made in place. Opening reads rows and marks (88
//! bytes a record), never payloads.
//!
//! **Why not an embedded database.** `redb` and its kin copy a page of 4 KiB for a changed
//! counter of 4 bytes, and leave what was deleted in free pages and in the slack of live ones; some of
//! it outlives even the compaction. Here a change costs its own bytes twice, and a
//! deletion is an overwrite where the bytes lie. What is given up: one form of record a store, one
//! user at a time, no queries. Measured beside SQLite and redb in `docs/evidence/store.md`.
//!
//! **Stores**, in memory, 32 bytes a record and room to grow; on disk 88, the payload, and `4 w + 12` for `w`
//! logits or features.

mod change;
mod compact;
mod disk;
mod extents;
mod head;
mod index;
mod insert;
mod journal;
mod lay;
mod open;
mod race;
mod read;
mod row;
mod shape;
#[cfg(test)]
mod tests;
mod weights;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use ebb_space::Key;

use crate::draw::Draw;
use crate::{Error, Result};

use disk::Disk;
use extents::Extents;
use head::Head;
use index::{CELLS, Index};
use journal::{Change, Journal, Part};
use race::Race;
use weights::Weights;

pub use compact::Compacted;
pub use row::Marks;
pub use shape::{Input, Shape};

/// What an acknowledged change survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// The end of the process, at any moment. A power cut may take the changes since the last
    /// [`Store::checkpoint`] with it.
    Process,
    /// A power cut too: every change is synced before it is acknowledged.
    Power,
}

/// How a draw from a store chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum By {
    /// All records alike, without replacement.
    Uniform,
    /// Without replacement, each next record with probability proportional to `exp(score / T)` among
    /// those left. Weights `w` of one's own are scores `ln w` at `T = 1`.
    Scores {
        /// The temperature `T`, above 0.
        temperature: f64,
    },
}

/// A replay store on disk.
///
/// Slots hold until the record is deleted or the store is compacted; every function that takes them
/// answers [`Error::Vacant`] for one that holds no record.
///
/// ```
/// use ebb_memory::{By, Input, Offer, Safety, Shape, Store};
/// use ebb_space::{ExampleId, Key};
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("store");
/// let shape = Shape { input: Input::Bytes, logits: None, features: None };
/// let mut store = Store::create(&dir, shape, Key::new(0, "store"), Safety::Process)?;
/// let texts: [&[u8]; 2] = [b"to be", b"or not"];
/// let ids = texts.map(|text| ExampleId::of(text, 0));
/// let offer = Offer { ids: &ids, labels: &[0, 0], experience: 0, task: 0, step: 0 };
/// store.insert_bytes(&offer, &texts, None, None)?;
/// let draw = store.draw("replay:a", By::Uniform, 1, 7)?;
/// assert_eq!(draw.probabilities, [0.5]);
/// store.delete(&ids[..1])?;
/// store.compact()?;
/// # Ok::<(), ebb_memory::Error>(())
/// ```
pub struct Store {
    dir: PathBuf,
    /// Held as long as the store is open.
    _lock: File,
    safety: Safety,
    key: Key,
    head: Head,
    parts: Parts,
    journal: Journal,
    state: State,
    weights: Option<Weights>,
    /// A change is in the journal and not whole in place, or the journal takes no more.
    unfinished: bool,
}

/// What is in memory of the records.
struct State {
    index: Index,
    seats: Vec<Seat>,
    /// Slots that take the next records.
    free: BTreeSet<u32>,
    /// Slots freed since the journal was last emptied.
    waiting: Vec<u32>,
    extents: Extents,
    /// Slots whose bytes are not those that were written, and which of them.
    damaged: BTreeMap<u32, &'static str>,
    /// Records ever offered.
    seen: u64,
}

/// What is in memory of a slot.
#[derive(Clone, Copy)]
struct Seat {
    digest: u64,
    loss: f32,
    count: u32,
}

impl Seat {
    /// Its loss is a NaN that no record has.
    const VACANT: Seat = Seat {
        digest: 0,
        loss: f32::from_bits(u32::MAX),
        count: 0,
    };

    /// That of a new record.
    fn new(digest: u64) -> Seat {
        let Marks { loss, count, .. } = Marks::default();
        Seat {
            digest,
            loss,
            count,
        }
    }

    fn is_live(&self) -> bool {
        self.loss.to_bits() != Seat::VACANT.loss.to_bits()
    }

    fn set(&mut self, marks: &Marks) {
        let loss = marks.loss;
        self.loss = if loss.is_nan() { f32::NAN } else { loss };
        self.count = marks.count;
    }
}

/// The files of one generation, by [`Part`]; a sidecar that the shape lacks has none.
struct Parts([Option<Disk>; 5]);

impl Parts {
    fn path(dir: &Path, part: Part, generation: u64) -> PathBuf {
        dir.join(format!("{}.{generation}", part.name()))
    }

    /// Opens or makes each file of `shape`.
    fn each(shape: &Shape, file: impl Fn(Part) -> Result<Disk>) -> Result<Parts> {
        let mut parts = Parts([const { None }; 5]);
        for part in Part::ALL {
            if (part != Part::Logits || shape.logits.is_some())
                && (part != Part::Features || shape.features.is_some())
            {
                parts.0[part as usize] = Some(file(part)?);
            }
        }
        Ok(parts)
    }

    fn get(&self, part: Part) -> Result<&Disk> {
        self.0[part as usize].as_ref().ok_or(Error::Sidecar {
            what: part.name(),
            why: "this store does not keep them; name them in its shape",
        })
    }

    /// Whether a change begins within its file, or where it ends; a length from a journal is not
    /// taken on trust.
    fn reaches(&self, change: Change<'_>) -> Result<bool> {
        Ok(match change {
            Change::Write(part, at, _) => at <= self.get(part)?.len()?,
            Change::Zero(part, at, len) => {
                let end = at.checked_add(len);
                end.is_some_and(|end| {
                    self.get(part)
                        .is_ok_and(|d| d.len().is_ok_and(|l| end <= l))
                })
            }
        })
    }

    fn apply(&self, change: Change<'_>) -> Result<()> {
        match change {
            Change::Write(part, at, bytes) => self.get(part)?.write(at, bytes),
            Change::Zero(part, at, len) => self.get(part)?.zero(at, len),
        }
    }

    fn sync(&self) -> Result<()> {
        self.0.iter().flatten().try_for_each(Disk::sync)
    }

    /// Syncs what is written past the journal.
    fn sync_laid(&self) -> Result<()> {
        let laid = [Part::Payload, Part::Logits, Part::Features];
        let disks = laid
            .iter()
            .filter_map(|&part| self.0[part as usize].as_ref());
        disks.into_iter().try_for_each(Disk::sync)
    }

    fn remap(&mut self) -> Result<()> {
        self.0.iter_mut().flatten().try_for_each(Disk::remap)
    }
}

impl Store {
    /// Number of records.
    pub fn len(&self) -> usize {
        self.state.index.len
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the records look like.
    pub fn shape(&self) -> Shape {
        self.head.shape
    }

    /// Records offered so far.
    pub fn seen(&self) -> u64 {
        self.state.seen
    }

    /// Slots whose bytes were found damaged when the store was opened, and in which file. A record with
    /// a damaged row is not known any more; one with damaged marks is, and is not drawn by scores
    /// until its marks are set.
    pub fn damaged(&self) -> impl Iterator<Item = (u32, &'static str)> + '_ {
        self.state.damaged.iter().map(|(&slot, &what)| (slot, what))
    }

    /// Bytes in memory: the index, what is kept of each slot, the sums of weights.
    pub fn resident_bytes(&self) -> usize {
        let state = &self.state;
        state.index.bytes()
            + state.seats.capacity() * size_of::<Seat>()
            + (state.free.len() + state.waiting.len()) * 8
            + self.weights.as_ref().map_or(0, Weights::bytes)
    }

    /// Bytes of all files.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn file_bytes(&self) -> Result<u64> {
        let parts = self.parts.0.iter().flatten().map(Disk::len);
        parts
            .sum::<Result<u64>>()
            .map(|sum| sum + self.journal.room())
    }

    /// Draws records by name for a step: `size` of them, or all that can be drawn if there are no
    /// more. The same name and step give the same records again, and taking one record out of the
    /// store changes no other record's number. See [`By`] and [`Draw`].
    ///
    /// Takes time in `√(size · records)`. Numbers of records in one of 65,536 groups depend a little on
    /// each other: how likely a record is to be drawn differs from what the draw says by a share of
    /// about `1 / (256 √size)`, 0.4 % for a draw of one and 0.03 % for 128.
    ///
    /// A new temperature costs a pass over all scores. A loss or counter that is to weigh goes into the
    /// score.
    ///
    /// # Errors
    /// [`Error::Config`] for a temperature that is none.
    pub fn draw(&mut self, name: &str, by: By, size: usize, step: u64) -> Result<Draw> {
        let race = Race::new(self.key.sub(name).at(step));
        let index = &mut self.state.index;
        let (found, total) = match by {
            By::Uniform => {
                let n = index.len;
                let found = race.first(index, 1.0, |_| 1.0, |_| 1.0, (n, n as f64), size);
                (found, n as f64)
            }
            By::Scores { temperature } => {
                if !(temperature.is_finite() && temperature > 0.0) {
                    return Err(Error::Config(format!(
                        "a draw at temperature {temperature}; it is a number above 0"
                    )));
                }
                let changed = index.changed();
                let changed = changed.into_iter().map(|cell| cell as usize);
                let weights = match &mut self.weights {
                    Some(weights) if weights.temperature() == temperature => {
                        weights.follow(index, changed);
                        weights
                    }
                    other => {
                        let weights = other.insert(Weights::new(temperature));
                        weights.follow(index, 0..CELLS);
                        weights
                    }
                };
                let (positive, total) = weights.total();
                let weight = |score| weights.weight(score);
                let bound = |cell: usize| weights.bounds[cell];
                let found =
                    race.first(index, weights.top(), bound, weight, (positive, total), size);
                (found, total)
            }
        };
        Ok(Draw {
            slots: found.iter().map(|arrival| arrival.slot).collect(),
            probabilities: found.iter().map(|arrival| arrival.weight / total).collect(),
        })
    }
}

impl Drop for Store {
    /// Empties the journal, so that the next opening need not carry it out.
    fn drop(&mut self) {
        if !self.unfinished {
            // What cannot be done now is done when the store is opened.
            let _ = self.settle(0);
        }
    }
}
