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
//! counter of 4 bytes, and leave what was deleted in free pages and in the slack of live ones;
//! nothing short of rewriting the file removes it. Here a change costs its own bytes twice, and a
//! deletion is an overwrite where the bytes lie. What is given up: one form of record a store, one
//! user at a time, no queries. Measured beside SQLite and redb in `docs/evidence/store.md`.
//!
//! **Stores**, in memory, 32 bytes a record and room to grow; on disk 88, the payload, and `4 w + 12` for `w`
//! logits or features.

mod compact;
mod disk;
mod extents;
mod head;
mod index;
mod journal;
mod open;
mod race;
mod row;
mod shape;
#[cfg(test)]
mod tests;
mod weights;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use ebb_space::{ExampleId, Key};

use crate::draw::Draw;
use crate::record::{Lookup, Meta, Offer, Records, length};
use crate::{Error, Result};

use disk::Disk;
use extents::Extents;
use head::Head;
use index::{CELLS, Index};
use journal::{Change, Frame, Journal, Part};
use race::Race;
use row::{MARK, ROW, Row, Slot};
use shape::Inputs;
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

    fn remap(&mut self) -> Result<()> {
        self.0.iter_mut().flatten().try_for_each(Disk::remap)
    }
}

/// Bytes of one entry of a sidecar of `width` values: values, step, checksum.
fn stride(width: u32) -> usize {
    width as usize * 4 + 12
}

/// Journals are emptied at the latest when they are this long.
const LONGEST_JOURNAL: u64 = 16 << 20;

/// A frame's length is written in four bytes.
const LONGEST_FRAME: u64 = 2 << 30;

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

    /// Puts the records of an offer into the store, all or none; those that are in it already stay as
    /// they are, so an offer can be repeated when its acknowledgement was lost. Returns how many
    /// were new.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Payload`], [`Error::Sidecar`] for rows that do not fit the shape;
    /// [`Error::Io`], after which the store is as before; [`Error::Unfinished`].
    pub fn insert(&mut self, offer: &Offer<'_>, records: &Records<'_>) -> Result<usize> {
        let inputs = Inputs::Rows(records.inputs);
        self.enter(offer, inputs, records.logits, records.features)
    }

    /// The same for a store of [`Input::Bytes`].
    ///
    /// # Errors
    /// Those of [`insert`](Store::insert).
    pub fn insert_bytes(
        &mut self,
        offer: &Offer<'_>,
        inputs: &[&[u8]],
        logits: Option<&[f32]>,
        features: Option<&[f32]>,
    ) -> Result<usize> {
        self.enter(offer, Inputs::Bytes(inputs), logits, features)
    }

    fn enter(
        &mut self,
        offer: &Offer<'_>,
        inputs: Inputs<'_>,
        logits: Option<&[f32]>,
        features: Option<&[f32]>,
    ) -> Result<usize> {
        self.sound()?;
        let shape = self.head.shape;
        length("labels", offer.labels.len(), offer.ids.len())?;
        inputs.check(shape.input, offer.ids.len())?;
        let mut sidecars = Vec::new();
        for (part, width, values) in [
            (Part::Logits, shape.logits, logits),
            (Part::Features, shape.features, features),
        ] {
            if let Some(width) = width {
                let values = values.ok_or(Error::Sidecar {
                    what: part.name(),
                    why: "the store keeps them, the offer has none",
                })?;
                length(part.name(), values.len(), offer.ids.len() * width as usize)?;
                sidecars.push((part, width as usize, values));
            }
        }

        let mut new = Vec::with_capacity(offer.ids.len());
        let mut once = HashSet::with_capacity(offer.ids.len());
        for (row, id) in offer.ids.iter().enumerate() {
            if once.insert(id) && self.find(id)?.is_none() {
                new.push(row);
            }
        }
        let slots = self.vacant(new.len())?;
        let mut payload = Batch::new(self.parts.get(Part::Payload)?);
        let (mut extents, mut rows) = (Vec::new(), Vec::new());
        let mut bytes = Vec::new();
        let mut laid = Ok(());
        for (&row, &slot) in new.iter().zip(&slots) {
            bytes.clear();
            inputs.push(row, shape.unit(), &mut bytes);
            let extent = self.state.extents.take(bytes.len() as u32);
            extents.push(extent);
            rows.push(Row {
                meta: Meta {
                    id: offer.ids[row],
                    label: offer.labels[row],
                    experience: offer.experience,
                    task: offer.task,
                    step: offer.step,
                    arrival: self.state.seen + row as u64,
                },
                extent,
                check: row::check(slot, &bytes),
            });
            laid = payload.add(extent.at, &bytes);
            if laid.is_err() {
                break;
            }
        }
        let done = laid
            .and_then(|()| payload.finish())
            .and_then(|()| self.lay_sidecars(&sidecars, offer.step, &new, &slots))
            .and_then(|()| match self.safety {
                // It must be there before the journal says so.
                Safety::Power => self.parts.sync(),
                Safety::Process => Ok(()),
            })
            .and_then(|()| {
                let mut frame = Frame::new();
                let (mut row_run, mut mark_run) = (Run::new(Part::Rows), Run::new(Part::Marks));
                let marks = Marks::default();
                for (row, &slot) in rows.iter().zip(&slots) {
                    row_run.add(slot, &row.encode(slot), &mut frame);
                    mark_run.add(slot, &marks.encode(slot), &mut frame);
                }
                row_run.finish(&mut frame);
                mark_run.finish(&mut frame);
                self.commit(frame)
            });
        if let Err(e) = done {
            if !self.unfinished {
                self.state.extents.give_back(&extents);
            }
            return Err(e);
        }

        self.state.seen += offer.ids.len() as u64;
        for (row, &slot) in rows.iter().zip(&slots) {
            self.state.free.remove(&slot);
            let digest = row.meta.id.mix();
            match self.state.seats.get_mut(slot as usize) {
                Some(vacant) => *vacant = Seat::new(digest),
                None => self.state.seats.push(Seat::new(digest)),
            }
            self.state.index.insert(digest, slot, 0.0);
        }
        Ok(new.len())
    }

    /// The slots of the next `count` records: free ones, then new ones, ascending.
    fn vacant(&self, count: usize) -> Result<Vec<u32>> {
        let first = self.state.seats.len();
        let fresh = count.saturating_sub(self.state.free.len());
        let end = u32::try_from(first + fresh)
            .map_err(|_| Error::Config(format!("a store has at most {} slots", u32::MAX)))?;
        let free = self.state.free.iter().copied();
        Ok(free.chain(first as u32..end).take(count).collect())
    }

    /// Writes sidecars where nobody looks yet.
    fn lay_sidecars(
        &self,
        sidecars: &[(Part, usize, &[f32])],
        step: u64,
        new: &[usize],
        slots: &[u32],
    ) -> Result<()> {
        for &(part, width, values) in sidecars {
            let stride = stride(width as u32);
            let mut batch = Batch::new(self.parts.get(part)?);
            let mut entry = Vec::with_capacity(stride);
            for (&row, &slot) in new.iter().zip(slots) {
                entry.clear();
                encode_sidecar(slot, &values[row * width..][..width], step, &mut entry);
                batch.add(u64::from(slot) * stride as u64, &entry)?;
            }
            batch.finish()?;
        }
        Ok(())
    }

    /// Journals a change and makes it. An error before it is in the journal changes nothing.
    fn commit(&mut self, mut frame: Frame) -> Result<()> {
        if frame.changes().next().is_none() {
            return Ok(());
        }
        if frame.len() > LONGEST_FRAME {
            return Err(Error::Config(
                "a change of more than 2 GiB; cut the batch into smaller ones".into(),
            ));
        }
        if !self.journal.fits(&frame) {
            self.settle(frame.len())?;
        }
        let sync = self.safety == Safety::Power;
        if let Err(e) = self.journal.append(&mut frame, sync) {
            self.unfinished = self.journal.is_torn();
            return Err(e);
        }
        for change in frame.changes().flatten() {
            if let Err(e) = self.parts.apply(change) {
                self.unfinished = true;
                return Err(e);
            }
        }
        Ok(())
    }

    fn sound(&self) -> Result<()> {
        match self.unfinished {
            true => Err(Error::Unfinished(self.dir.clone())),
            false => Ok(()),
        }
    }

    /// Syncs all files and empties the journal, by overwriting it: afterwards nothing of a deleted record
    /// is left in any file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Unfinished`].
    pub fn checkpoint(&mut self) -> Result<()> {
        self.sound()?;
        self.settle(0)
    }

    /// The same, and makes the journal long enough for a frame of `needed` bytes.
    fn settle(&mut self, needed: u64) -> Result<()> {
        let room = self.journal.room();
        if self.journal.is_empty() && needed <= room {
            return Ok(());
        }
        self.parts.sync()?;
        let longer = match needed {
            0 => room,
            _ => needed.max((room * 4).min(LONGEST_JOURNAL)).max(room),
        };
        let head = Head {
            slots: self.state.seats.len() as u32,
            payload: self
                .state
                .extents
                .end
                .min(self.parts.get(Part::Payload)?.len()?),
            seen: self.state.seen,
            room,
            ..self.head.clone()
        };
        head.write(&self.dir)?;
        self.head = head;
        if let Err(e) = self.journal.empty() {
            self.unfinished = true;
            return Err(e);
        }
        self.parts.remap()?;
        let waiting = std::mem::take(&mut self.state.waiting);
        self.state.free.extend(waiting);
        self.state.extents.settle();
        if longer > room {
            self.journal.grow(longer)?;
            let head = Head {
                room: longer,
                ..self.head.clone()
            };
            head.write(&self.dir)?;
            self.head = head;
        }
        Ok(())
    }

    /// The slot of a record.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Corrupt`], [`Error::Truncated`].
    pub fn find(&self, id: &ExampleId) -> Result<Option<u32>> {
        for &slot in self.state.index.find(id.mix()) {
            if self.row(slot)?.meta.id == *id {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    /// What is known of a record.
    ///
    /// # Errors
    /// [`Error::Vacant`], [`Error::Io`], [`Error::Corrupt`], [`Error::Truncated`].
    pub fn meta(&self, slot: u32) -> Result<Meta> {
        let mut meta = self.row(slot)?.meta;
        let Shape {
            logits, features, ..
        } = self.head.shape;
        for (part, width) in [(Part::Logits, logits), (Part::Features, features)] {
            if let Some(width) = width {
                let entry = self.sidecar(part, width, slot)?;
                meta.step = meta.step.max(row::u64_at(&entry, width as usize * 4));
            }
        }
        Ok(meta)
    }

    /// Score, loss and counter of a record.
    ///
    /// # Errors
    /// [`Error::Vacant`]; [`Error::Corrupt`] if they were damaged and not set since.
    pub fn marks(&self, slot: u32) -> Result<Marks> {
        let seat = self.seat(slot)?;
        if let Some(what) = self.state.damaged.get(&slot) {
            return Err(self.corrupt(Part::Marks, format!("the {what} of slot {slot}")));
        }
        let score = self.state.index.score(seat.digest, slot);
        Ok(Marks {
            score: score.unwrap_or(f32::NEG_INFINITY),
            loss: seat.loss,
            count: seat.count,
        })
    }

    /// Appends the input of a record, as bytes (values are little-endian).
    ///
    /// # Errors
    /// Those of [`meta`](Store::meta).
    pub fn payload(&self, slot: u32, out: &mut Vec<u8>) -> Result<()> {
        let Row {
            meta,
            extent,
            check,
        } = self.row(slot)?;
        let disk = self.parts.get(Part::Payload)?;
        let (from, len) = (out.len(), extent.len as usize);
        if u64::from(extent.len) > shape::LONGEST {
            return Err(self.corrupt(Part::Rows, format!("the length of {}", meta.id)));
        }
        out.resize(from + len, 0);
        let read = disk.read(extent.at, &mut out[from..]).and_then(|()| {
            match row::check(slot, &out[from..]) == check {
                true => Ok(()),
                false => Err(self.corrupt(Part::Payload, format!("the input of {}", meta.id))),
            }
        });
        if read.is_err() {
            out.truncate(from);
        }
        read
    }

    /// Appends the inputs of `slots` to `out`, row after row. Codes are turned into values by
    /// `lookup`; `f32` inputs need none.
    ///
    /// # Errors
    /// [`Error::Payload`] if codes are kept and no lookup is given, or bytes are kept;
    /// [`Error::Length`] if its planes do not divide the input; those of [`payload`](Store::payload).
    pub fn gather(&self, slots: &[u32], lookup: Option<&Lookup>, out: &mut Vec<f32>) -> Result<()> {
        let refuse = |kept, what| Err(Error::Payload { kept, what });
        let mut bytes = Vec::new();
        for &slot in slots {
            bytes.clear();
            match (self.head.shape.input, lookup) {
                (Input::F32(_), _) => {
                    self.payload(slot, &mut bytes)?;
                    row::push_values(&bytes, out);
                }
                (Input::U8(_), Some(lookup)) => {
                    self.payload(slot, &mut bytes)?;
                    lookup.decode(&bytes, out)?;
                }
                (Input::U8(_), None) => return refuse("u8", "is gathered without a lookup"),
                (Input::Bytes, _) => {
                    return refuse("bytes", "is gathered as values; read each payload");
                }
            }
        }
        Ok(())
    }

    /// Appends the kept logits of `slots` to `out`, row after row.
    ///
    /// # Errors
    /// [`Error::Sidecar`] if the store keeps none; those of [`meta`](Store::meta).
    pub fn gather_logits(&self, slots: &[u32], out: &mut Vec<f32>) -> Result<()> {
        self.gather_sidecar(Part::Logits, self.head.shape.logits, slots, out)
    }

    /// Appends the kept features of `slots` to `out`, row after row.
    ///
    /// # Errors
    /// [`Error::Sidecar`] if the store keeps none; those of [`meta`](Store::meta).
    pub fn gather_features(&self, slots: &[u32], out: &mut Vec<f32>) -> Result<()> {
        self.gather_sidecar(Part::Features, self.head.shape.features, slots, out)
    }

    fn gather_sidecar(
        &self,
        part: Part,
        width: Option<u32>,
        slots: &[u32],
        out: &mut Vec<f32>,
    ) -> Result<()> {
        self.parts.get(part)?;
        let width = width.unwrap_or(0);
        for &slot in slots {
            self.seat(slot)?;
            let entry = self.sidecar(part, width, slot)?;
            row::push_values(&entry[..width as usize * 4], out);
        }
        Ok(())
    }

    /// Sets score, loss and counter of `slots`, all or none.
    ///
    /// # Errors
    /// [`Error::Length`]; [`Error::Vacant`]; [`Error::Weight`] for a score that is NaN or infinity;
    /// [`Error::Io`], after which all is as before; [`Error::Unfinished`].
    pub fn mark(&mut self, slots: &[u32], marks: &[Marks]) -> Result<()> {
        self.sound()?;
        length("marks", marks.len(), slots.len())?;
        let mut frame = Frame::new();
        for (&slot, marks) in slots.iter().zip(marks) {
            self.seat(slot)?;
            if marks.score.is_nan() || marks.score == f32::INFINITY {
                return Err(Error::Weight {
                    draw: "scores".into(),
                    id: self.row(slot)?.meta.id,
                    value: f64::from(marks.score),
                });
            }
            frame.write(
                Part::Marks,
                u64::from(slot) * MARK as u64,
                &marks.encode(slot),
            );
        }
        self.commit(frame)?;
        for (&slot, marks) in slots.iter().zip(marks) {
            let seat = &mut self.state.seats[slot as usize];
            seat.set(marks);
            let digest = seat.digest;
            self.state.index.set_score(digest, slot, marks.score);
            self.state.damaged.remove(&slot);
        }
        Ok(())
    }

    /// Replaces the sidecars of `slots` by newer ones, written at `step`, all or none; `None` leaves
    /// a sidecar as it is.
    ///
    /// # Errors
    /// [`Error::Sidecar`] for a sidecar that the store does not keep, [`Error::Length`],
    /// [`Error::Vacant`]; [`Error::Io`], after which all is as before; [`Error::Unfinished`].
    pub fn rewrite(
        &mut self,
        slots: &[u32],
        logits: Option<&[f32]>,
        features: Option<&[f32]>,
        step: u64,
    ) -> Result<()> {
        self.sound()?;
        let shape = self.head.shape;
        let mut frame = Frame::new();
        for (part, width, values) in [
            (Part::Logits, shape.logits, logits),
            (Part::Features, shape.features, features),
        ] {
            let Some(values) = values else { continue };
            self.parts.get(part)?;
            let width = width.unwrap_or(0) as usize;
            length(part.name(), values.len(), slots.len() * width)?;
            let mut entry = Vec::new();
            for (&slot, values) in slots.iter().zip(values.chunks_exact(width)) {
                self.seat(slot)?;
                entry.clear();
                encode_sidecar(slot, values, step, &mut entry);
                frame.write(part, u64::from(slot) * entry.len() as u64, &entry);
            }
        }
        self.commit(frame)
    }

    /// Deletes records, all or none, and overwrites their bytes where they lie. Returns how many there
    /// were. The journal names them until [`checkpoint`](Store::checkpoint) or
    /// [`compact`](Store::compact).
    ///
    /// # Errors
    /// [`Error::Io`], after which all is as before; [`Error::Unfinished`].
    pub fn delete(&mut self, ids: &[ExampleId]) -> Result<usize> {
        self.sound()?;
        let mut slots = Vec::with_capacity(ids.len());
        for id in ids {
            slots.extend(self.find(id)?);
        }
        self.remove(slots)
    }

    /// Deletes every view of a record. Reads the rows of all records. Returns how many there were.
    ///
    /// # Errors
    /// Those of [`delete`](Store::delete).
    pub fn delete_base(&mut self, id: &ExampleId) -> Result<usize> {
        self.sound()?;
        let mut slots = Vec::new();
        open::each_slot::<ROW>(self.parts.get(Part::Rows)?, |slot, bytes| {
            if let Slot::Live(row) = Row::decode(slot, bytes)
                && row.meta.id.same_base(id)
            {
                slots.push(slot);
            }
            Ok(())
        })?;
        self.remove(slots)
    }

    fn remove(&mut self, mut slots: Vec<u32>) -> Result<usize> {
        slots.sort_unstable();
        slots.dedup();
        let mut extents = Vec::with_capacity(slots.len());
        for &slot in &slots {
            extents.push(self.row(slot)?.extent);
        }
        extents.sort_unstable_by_key(|extent| extent.at);
        let mut frame = Frame::new();
        for run in extents.chunk_by(|a, b| a.at + u64::from(a.len) == b.at) {
            let len = run.iter().map(|extent| u64::from(extent.len)).sum();
            frame.zero(Part::Payload, run[0].at, len);
        }
        let shape = self.head.shape;
        for (part, stride) in [
            (Part::Rows, Some(ROW)),
            (Part::Marks, Some(MARK)),
            (Part::Logits, shape.logits.map(stride)),
            (Part::Features, shape.features.map(stride)),
        ] {
            let Some(stride) = stride.map(|stride| stride as u64) else {
                continue;
            };
            for run in slots.chunk_by(|a, b| a + 1 == *b) {
                frame.zero(part, u64::from(run[0]) * stride, run.len() as u64 * stride);
            }
        }
        if slots.is_empty() {
            return Ok(0);
        }
        self.commit(frame)?;
        for &slot in &slots {
            let seat = std::mem::replace(&mut self.state.seats[slot as usize], Seat::VACANT);
            self.state.index.remove(seat.digest, slot);
            self.state.damaged.remove(&slot);
        }
        self.state.waiting.extend(&slots);
        extents.into_iter().for_each(|e| self.state.extents.free(e));
        Ok(slots.len())
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

    fn seat(&self, slot: u32) -> Result<Seat> {
        let seat = self.state.seats.get(slot as usize);
        seat.copied()
            .filter(Seat::is_live)
            .ok_or(Error::Vacant(slot))
    }

    fn row(&self, slot: u32) -> Result<Row> {
        self.seat(slot)?;
        let mut bytes = [0; ROW];
        let disk = self.parts.get(Part::Rows)?;
        disk.read(u64::from(slot) * ROW as u64, &mut bytes)?;
        match Row::decode(slot, &bytes) {
            Slot::Live(row) => Ok(row),
            Slot::Free | Slot::Damaged => {
                Err(self.corrupt(Part::Rows, format!("the row of slot {slot}")))
            }
        }
    }

    /// Entry `slot` of a sidecar, checked.
    fn sidecar(&self, part: Part, width: u32, slot: u32) -> Result<Vec<u8>> {
        let mut entry = vec![0; stride(width)];
        let at = u64::from(slot) * entry.len() as u64;
        self.parts.get(part)?.read(at, &mut entry)?;
        match row::sealed(slot, &entry) {
            true => Ok(entry),
            false => Err(self.corrupt(part, format!("the {} of slot {slot}", part.name()))),
        }
    }

    fn corrupt(&self, part: Part, what: String) -> Error {
        Error::Corrupt {
            path: Parts::path(&self.dir, part, self.head.generation),
            what,
        }
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

fn encode_sidecar(slot: u32, values: &[f32], step: u64, entry: &mut Vec<u8>) {
    row::push_floats(values, entry);
    entry.extend_from_slice(&step.to_le_bytes());
    entry.extend_from_slice(&[0; 4]);
    row::seal(slot, entry);
}

/// Pieces that lie one behind the other are written at once.
struct Batch<'a> {
    disk: &'a Disk,
    at: u64,
    bytes: Vec<u8>,
}

impl<'a> Batch<'a> {
    fn new(disk: &'a Disk) -> Batch<'a> {
        Batch {
            disk,
            at: 0,
            bytes: Vec::new(),
        }
    }

    fn add(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        if self.at + self.bytes.len() as u64 != at || self.bytes.len() >= disk::PIECE {
            self.finish()?;
            self.at = at;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        let written = match self.bytes.is_empty() {
            true => Ok(()),
            false => self.disk.write(self.at, &self.bytes),
        };
        self.bytes.clear();
        written
    }
}

/// Entries of neighbouring slots are one change of a frame.
struct Run {
    part: Part,
    at: u64,
    bytes: Vec<u8>,
}

impl Run {
    fn new(part: Part) -> Run {
        Run {
            part,
            at: 0,
            bytes: Vec::new(),
        }
    }

    fn add(&mut self, slot: u32, entry: &[u8], frame: &mut Frame) {
        let at = u64::from(slot) * entry.len() as u64;
        if self.at + self.bytes.len() as u64 != at {
            self.finish(frame);
            self.at = at;
        }
        self.bytes.extend_from_slice(entry);
    }

    fn finish(&mut self, frame: &mut Frame) {
        if !self.bytes.is_empty() {
            frame.write(self.part, self.at, &self.bytes);
            self.bytes.clear();
        }
    }
}
