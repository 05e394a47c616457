//! Which bytes of the payload file are free.

use std::collections::BTreeMap;

use super::row::Extent;

/// Free room. Payloads go where one of the same length was, else to the end: payloads of one width
/// always find a hole, texts wait for a compaction.
#[derive(Default)]
pub(crate) struct Extents {
    /// Where the next payload goes that fits no hole.
    pub end: u64,
    holes: BTreeMap<u32, Vec<u64>>,
    /// Freed, and still named by the journal: an earlier entry would overwrite what goes there.
    waiting: Vec<Extent>,
}

impl Extents {
    /// No free room before `end`.
    pub fn ending(end: u64) -> Extents {
        Extents {
            end,
            ..Extents::default()
        }
    }

    /// The room between payloads that lie at `live` and end before `end`; with a `unit` all are that
    /// long, and a gap is as many holes as went into it.
    pub fn between(mut live: Vec<Extent>, end: u64, unit: Option<u32>) -> Extents {
        let mut extents = Extents::ending(end);
        live.sort_unstable_by_key(|extent| extent.at);
        let mut at = 0;
        for extent in live {
            extents.gap(at, extent.at, unit);
            at = at.max(extent.at + u64::from(extent.len));
        }
        extents.gap(at, end, unit);
        extents
    }

    fn gap(&mut self, mut from: u64, to: u64, unit: Option<u32>) {
        while from < to {
            let room = u32::try_from(to - from).unwrap_or(u32::MAX);
            let len = unit.unwrap_or(room).min(room);
            self.holes.entry(len).or_default().push(from);
            from += u64::from(len);
        }
    }

    pub fn take(&mut self, len: u32) -> Extent {
        if let Some(holes) = self.holes.get_mut(&len)
            && let Some(at) = holes.pop()
        {
            if holes.is_empty() {
                self.holes.remove(&len);
            }
            return Extent { at, len };
        }
        let at = self.end;
        self.end += u64::from(len);
        Extent { at, len }
    }

    /// Undoes the latest takings, the last first.
    pub fn give_back(&mut self, taken: &[Extent]) {
        for extent in taken.iter().rev() {
            if extent.at + u64::from(extent.len) == self.end {
                self.end = extent.at;
            } else if extent.len > 0 {
                self.holes.entry(extent.len).or_default().push(extent.at);
            }
        }
    }

    /// Frees an extent from the next [`settle`](Extents::settle) on.
    pub fn free(&mut self, extent: Extent) {
        if extent.len > 0 {
            self.waiting.push(extent);
        }
    }

    /// The journal is empty.
    pub fn settle(&mut self) {
        for Extent { at, len } in std::mem::take(&mut self.waiting) {
            self.holes.entry(len).or_default().push(at);
        }
    }
}
