//! Finding and reading, every byte against its checksum.

use ebb_space::ExampleId;

use super::journal::Part;
use super::lay::stride;
use super::row::{self, Marks, ROW, Row, Slot};
use super::{Input, Parts, Seat, Shape, Store, shape};
use crate::record::{Lookup, Meta};
use crate::{Error, Result};

impl Store {
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

    pub(super) fn row(&self, slot: u32) -> Result<Row> {
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
    pub(super) fn sidecar(&self, part: Part, width: u32, slot: u32) -> Result<Vec<u8>> {
        let mut entry = vec![0; stride(width)];
        let at = u64::from(slot) * entry.len() as u64;
        self.parts.get(part)?.read(at, &mut entry)?;
        match row::sealed(slot, &entry) {
            true => Ok(entry),
            false => Err(self.corrupt(part, format!("the {} of slot {slot}", part.name()))),
        }
    }

    pub(super) fn seat(&self, slot: u32) -> Result<Seat> {
        let seat = self.state.seats.get(slot as usize);
        seat.copied()
            .filter(Seat::is_live)
            .ok_or(Error::Vacant(slot))
    }

    pub(super) fn corrupt(&self, part: Part, what: String) -> Error {
        Error::Corrupt {
            path: Parts::path(&self.dir, part, self.head.generation),
            what,
        }
    }
}
