//! Changes and deletions, each through the journal, and the checkpoint that empties it.

use ebb_space::ExampleId;

use super::head::Head;
use super::journal::{Frame, Part};
use super::lay::{encode_sidecar, stride};
use super::row::{MARK, Marks, ROW, Row, Slot};
use super::{Safety, Seat, Store, open};
use crate::record::length;
use crate::{Error, Result};

/// Journals are emptied at the latest when they are this long.
const LONGEST_JOURNAL: u64 = 16 << 20;

/// A frame's length is written in four bytes.
const LONGEST_FRAME: u64 = 2 << 30;

impl Store {
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

    /// Syncs all files and empties the journal, by overwriting it: afterwards nothing of a deleted record
    /// is left in any file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Unfinished`].
    pub fn checkpoint(&mut self) -> Result<()> {
        self.sound()?;
        self.settle(0)
    }

    /// Journals a change and makes it. An error before it is in the journal changes nothing.
    pub(super) fn commit(&mut self, mut frame: Frame) -> Result<()> {
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

    pub(super) fn sound(&self) -> Result<()> {
        match self.unfinished {
            true => Err(Error::Unfinished(self.dir.clone())),
            false => Ok(()),
        }
    }

    /// The same, and makes the journal long enough for a frame of `needed` bytes.
    pub(super) fn settle(&mut self, needed: u64) -> Result<()> {
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
        self.put_head(head)?;
        if let Err(e) = self.journal.empty() {
            self.unfinished = true;
            return Err(e);
        }
        self.parts.remap()?;
        let waiting = std::mem::take(&mut self.state.waiting);
        self.state.free.extend(waiting);
        self.state.extents.settle();
        if longer > room {
            match self.journal.grow(longer) {
                Ok(()) => self.put_head(Head {
                    room: longer,
                    ..self.head.clone()
                })?,
                // It serves as it is.
                Err(e) if is_full(&e) && needed <= room => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Replaces the head, unless the disk is full: the old one asks less of the files and is as true,
    /// and a deletion must be able to make room.
    fn put_head(&mut self, head: Head) -> Result<()> {
        match head.write(&self.dir) {
            Ok(()) => self.head = head,
            Err(e) if is_full(&e) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

fn is_full(e: &Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(e, Error::Io { source, .. }
        if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge))
}
