//! Compaction: the records, without the room of those that are gone, in files of a new generation.

use super::disk::Disk;
use super::head::Head;
use super::journal::{self, Part};
use super::lay::Batch;
use super::row::{self, MARK, Marks, ROW, Row};
use super::{Parts, State, Store};
use crate::{Error, Result};

/// What a compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Records that are in the store now.
    pub records: usize,
    /// Records whose bytes could not be read whole, and that are not.
    pub dropped: usize,
    /// Bytes of the files before.
    pub bytes_before: u64,
    /// Bytes of the files now.
    pub bytes_now: u64,
}

impl Store {
    /// Writes the records into new files, in the order of their slots, and overwrites and removes the
    /// old ones. Afterwards nothing of a deleted record is in any file of the store. Slots are new.
    /// Needs room for the store a second time; a crash leaves the old store or the new one.
    ///
    /// # Errors
    /// [`Error::Io`], after which the store is as before; [`Error::Unfinished`].
    pub fn compact(&mut self) -> Result<Compacted> {
        self.checkpoint()?;
        self.journal.grow(journal::ROOM)?; // one that was cut
        let bytes_before = self.file_bytes()?;
        let lost = self.state.damaged.values();
        let before = self.len() + lost.filter(|what| **what == Part::Rows.name()).count();
        let generation = self.head.generation + 1;
        let copied = self.copy_to(generation);
        let head = match copied {
            Ok(head) => head,
            Err(e) => {
                // Best effort: what is left is removed at the next opening. The first error matters.
                for part in Part::ALL {
                    let _ = std::fs::remove_file(Parts::path(&self.dir, part, generation));
                }
                return Err(e);
            }
        };
        // From here on, until all is read again, a failure leaves open which files are the store.
        self.unfinished = true;
        head.write(&self.dir)?;
        let mut parts = Parts::each(&head.shape, |part| {
            Disk::open(Parts::path(&self.dir, part, generation))
        })?;
        let state = State::read(&head, &parts)?;
        parts.remap()?;
        (self.head, self.parts, self.state) = (head, parts, state);
        self.weights = None;
        self.unfinished = false;
        self.sweep()?;
        Ok(Compacted {
            records: self.len(),
            dropped: before - self.len(),
            bytes_before,
            bytes_now: self.file_bytes()?,
        })
    }

    fn copy_to(&self, generation: u64) -> Result<Head> {
        let shape = self.head.shape;
        let parts = Parts::each(&shape, |part| {
            Disk::create(Parts::path(&self.dir, part, generation))
        })?;
        let sidecars = [
            (Part::Logits, shape.logits),
            (Part::Features, shape.features),
        ];
        let mut out: [Option<Batch<'_>>; 5] =
            std::array::from_fn(|part| parts.0[part].as_ref().map(Batch::new));
        let mut put = |part: Part, at: u64, bytes: &[u8]| match &mut out[part as usize] {
            Some(batch) => batch.add(at, bytes),
            None => Ok(()),
        };
        let (mut to, mut end) = (0u32, 0u64);
        let mut payload = Vec::new();
        for slot in 0..self.state.seats.len() as u32 {
            let Some(record) = self.whole_record(slot, &sidecars, &mut payload)? else {
                continue;
            };
            let extent = row::Extent {
                at: end,
                len: payload.len() as u32,
            };
            let row = Row {
                meta: record.row.meta,
                extent,
                check: row::check(to, &payload),
            };
            put(Part::Payload, end, &payload)?;
            end += payload.len() as u64;
            put(Part::Rows, u64::from(to) * ROW as u64, &row.encode(to))?;
            put(
                Part::Marks,
                u64::from(to) * MARK as u64,
                &record.marks.encode(to),
            )?;
            for (part, mut entry) in record.sidecars {
                row::seal(to, &mut entry);
                put(part, u64::from(to) * entry.len() as u64, &entry)?;
            }
            to += 1;
        }
        out.iter_mut().flatten().try_for_each(Batch::finish)?;
        parts.sync()?;
        Ok(Head {
            generation,
            slots: to,
            payload: end,
            seen: self.state.seen,
            room: self.journal.room(),
            ..self.head.clone()
        })
    }

    /// A record with all that belongs to it; `None` where there is none or not all of it can be read.
    fn whole_record(
        &self,
        slot: u32,
        sidecars: &[(Part, Option<u32>); 2],
        payload: &mut Vec<u8>,
    ) -> Result<Option<Record>> {
        let mut read = || -> Result<Record> {
            payload.clear();
            let row = self.row(slot)?;
            self.payload(slot, payload)?;
            let mut entries = Vec::new();
            for &(part, width) in sidecars {
                if let Some(width) = width {
                    entries.push((part, self.sidecar(part, width, slot)?));
                }
            }
            Ok(Record {
                row,
                // Damaged marks are as those of a new record.
                marks: self.marks(slot).unwrap_or_default(),
                sidecars: entries,
            })
        };
        match read() {
            Ok(record) => Ok(Some(record)),
            Err(Error::Vacant(_) | Error::Corrupt { .. } | Error::Truncated { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

struct Record {
    row: Row,
    marks: Marks,
    sidecars: Vec<(Part, Vec<u8>)>,
}
