//! Where records lie: dense columns, allocated once.
//!
//! Slots `0..len` are in use and everything behind them is zero. A record that leaves is
//! overwritten, by its successor or by zeros, and since no column ever moves, no copy of it stays
//! behind in freed memory. Pages that no record has reached cost no physical memory.

use crate::record::{Form, Meta, Payload, Records, Values};
use crate::{Error, Result};
use ebb_space::ExampleId;

/// The input column.
pub(crate) enum Bulk {
    F32(Vec<f32>),
    U8(Vec<u8>),
}

/// The columns of a memory.
pub(crate) struct Slab {
    pub form: Form,
    pub len: usize,
    pub inputs: Bulk,
    pub logits: Vec<f32>,
    pub features: Vec<f32>,
    /// As long as `len` ever was; reserved for the whole capacity, so that it never moves either.
    pub metas: Vec<Meta>,
    /// `metas[i].id.mix()`, apart because every draw reads all of them.
    pub mixes: Vec<u64>,
    /// The keep priority of each record, apart because every eviction reads all of them.
    pub priorities: Vec<u64>,
}

/// A record on its way in.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub meta: Meta,
    pub mix: u64,
    pub priority: u64,
}

impl Slab {
    pub fn new(capacity: usize, form: Form) -> Result<Slab> {
        let record_bytes = record_bytes(&form);
        let too_large = Error::TooLarge {
            capacity,
            record_bytes,
        };
        let Some(total) = capacity.checked_mul(record_bytes) else {
            return Err(too_large);
        };
        // Asked first, since a refused `vec!` aborts; `vec!` of zeros costs no page until used.
        if Vec::<u8>::new().try_reserve_exact(total).is_err() {
            return Err(too_large);
        }
        Ok(Slab {
            form,
            len: 0,
            inputs: match form.payload {
                Payload::F32 => Bulk::F32(vec![0.0; capacity * form.input]),
                Payload::U8 => Bulk::U8(vec![0; capacity * form.input]),
            },
            logits: vec![0.0; capacity * form.logits.unwrap_or(0)],
            features: vec![0.0; capacity * form.features.unwrap_or(0)],
            metas: Vec::with_capacity(capacity),
            mixes: vec![0; capacity],
            priorities: vec![0; capacity],
        })
    }

    pub fn metas(&self) -> &[Meta] {
        &self.metas[..self.len]
    }

    pub fn mixes(&self) -> &[u64] {
        &self.mixes[..self.len]
    }

    pub fn priorities(&self) -> &[u64] {
        &self.priorities[..self.len]
    }

    /// The slot of `id`, whose mix is `mix`.
    pub fn find(&self, id: &ExampleId, mix: u64) -> Option<u32> {
        let mixes = self.mixes().iter().enumerate();
        mixes
            .filter(|&(_, &m)| m == mix)
            .map(|(slot, _)| slot)
            .find(|&slot| self.metas[slot].id == *id)
            .map(|s| s as u32)
    }

    /// For each of `entries` its slot, if it is kept: one pass over the records, which a small
    /// filter of hashed bits keeps from searching the entries for each of them.
    pub fn slots_of(&self, entries: &[Entry]) -> Vec<Option<u32>> {
        let mut slots = vec![None; entries.len()];
        let mut sorted: Vec<(u64, u32)> = entries.iter().map(|entry| entry.mix).zip(0..).collect();
        sorted.sort_unstable();
        let words = entries.len().next_power_of_two().max(16); // 64 bits or more an entry
        let mut filter = vec![0u64; words];
        let place = |mix: u64| ((mix >> 6) as usize & (words - 1), 1u64 << (mix & 63));
        for &(mix, _) in &sorted {
            let (word, bit) = place(mix);
            filter[word] |= bit;
        }
        for (&mix, slot) in self.mixes().iter().zip(0u32..) {
            let (word, bit) = place(mix);
            if filter[word] & bit != 0 {
                let same = &sorted[sorted.partition_point(|entry| entry.0 < mix)..];
                for &(_, i) in same.iter().take_while(|entry| entry.0 == mix) {
                    if entries[i as usize].meta.id == self.metas[slot as usize].id {
                        slots[i as usize] = Some(slot);
                    }
                }
            }
        }
        slots
    }

    /// Puts row `row` of `records` (already checked against the form) into `slot`.
    pub fn write(&mut self, slot: usize, entry: &Entry, records: &Records<'_>, row: usize) {
        debug_assert!(slot < self.len, "slot {slot} of {}", self.len);
        self.metas[slot] = entry.meta;
        self.mixes[slot] = entry.mix;
        self.priorities[slot] = entry.priority;
        match (&mut self.inputs, records.inputs) {
            (Bulk::F32(column), Values::F32(values)) => {
                copy_row(column, slot, values, row, self.form.input)
            }
            (Bulk::U8(column), Values::U8(codes)) => {
                copy_row(column, slot, codes, row, self.form.input)
            }
            _ => unreachable!("rows are checked against the form before they are written"),
        }
        for (column, width, values) in [
            (&mut self.logits, self.form.logits, records.logits),
            (&mut self.features, self.form.features, records.features),
        ] {
            if let (Some(width), Some(values)) = (width, values) {
                copy_row(column, slot, values, row, width);
            }
        }
    }

    /// Appends a record.
    pub fn push(&mut self, entry: &Entry, records: &Records<'_>, row: usize) {
        assert!(
            self.len < self.mixes.len(),
            "a policy never admits more than the capacity"
        );
        self.len += 1;
        if self.metas.len() < self.len {
            self.metas.push(Meta::BLANK);
        }
        self.write(self.len - 1, entry, records, row);
    }

    /// Removes a record: the last one takes its slot, and the last slot becomes zero.
    pub fn remove(&mut self, slot: usize) {
        assert!(slot < self.len, "slot {slot} of {} records", self.len);
        let last = self.len - 1;
        match &mut self.inputs {
            Bulk::F32(column) => move_row(column, self.form.input, slot, last),
            Bulk::U8(column) => move_row(column, self.form.input, slot, last),
        }
        move_row(&mut self.logits, self.form.logits.unwrap_or(0), slot, last);
        move_row(
            &mut self.features,
            self.form.features.unwrap_or(0),
            slot,
            last,
        );
        self.metas[slot] = self.metas[last];
        self.metas[last] = Meta::BLANK;
        move_row(&mut self.mixes, 1, slot, last);
        move_row(&mut self.priorities, 1, slot, last);
        self.len = last;
    }
}

/// Bytes of one record over all columns.
pub(crate) fn record_bytes(form: &Form) -> usize {
    let value = match form.payload {
        Payload::F32 => 4,
        Payload::U8 => 1,
    };
    let sidecars = form
        .logits
        .unwrap_or(0)
        .saturating_add(form.features.unwrap_or(0));
    form.input
        .saturating_mul(value)
        .saturating_add(sidecars.saturating_mul(4))
        .saturating_add(size_of::<Meta>() + 2 * size_of::<u64>())
}

fn copy_row<T: Copy>(column: &mut [T], slot: usize, values: &[T], row: usize, width: usize) {
    column[slot * width..][..width].copy_from_slice(&values[row * width..][..width]);
}

fn move_row<T: Copy + Default>(column: &mut [T], width: usize, to: usize, from: usize) {
    column.copy_within(from * width..(from + 1) * width, to * width);
    column[from * width..][..width].fill(T::default());
}
