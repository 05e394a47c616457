//! Insertion: inputs and sidecars are laid where no row points yet, and the rows, which make them
//! records, come through the journal.

use std::collections::HashSet;

use super::journal::{Frame, Part};
use super::lay::{Batch, Run, encode_sidecar, stride};
use super::row::{self, Marks, Row};
use super::shape::Inputs;
use super::{Safety, Seat, Store};
use crate::record::{Meta, Offer, Records, length};
use crate::{Error, Result};

impl Store {
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

    /// The same for a store of [`Input::Bytes`](super::Input::Bytes).
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
                Safety::Power => self.parts.sync_laid(),
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
}
