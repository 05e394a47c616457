//! How a record's fixed parts lie on disk: little-endian, each with a checksum that covers its slot,
//! so that bytes in the wrong place are damage too. A free slot is all zeros.

use ebb_space::ExampleId;

use crate::record::Meta;

/// Bytes of a row.
pub(crate) const ROW: usize = 72;
/// Bytes of marks.
pub(crate) const MARK: usize = 16;

const LIVE: u16 = 1;

/// What stands in `rows` for one record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Row {
    pub meta: Meta,
    pub extent: Extent,
    /// Checksum of the payload.
    pub check: u32,
}

/// Where a payload lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub at: u64,
    pub len: u32,
}

/// What is known of a record that changes while it is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Marks {
    /// Logarithm of its weight: at temperature `T` the weight is `exp(score / T)`. Minus infinity:
    /// never drawn by scores.
    pub score: f32,
    /// Its loss when it was last measured; NaN until then.
    pub loss: f32,
    /// A counter of the user's: rehearsals, forgetting events.
    pub count: u32,
}

impl Default for Marks {
    /// Score 0, loss NaN, count 0.
    fn default() -> Marks {
        Marks {
            score: 0.0,
            loss: f32::NAN,
            count: 0,
        }
    }
}

/// What was found in a slot.
pub(crate) enum Slot<T> {
    Free,
    Live(T),
    Damaged,
}

/// CRC-32 of `bytes` in slot `slot`.
pub(crate) fn check(slot: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&slot.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

impl Row {
    pub fn encode(&self, slot: u32) -> [u8; ROW] {
        let Meta {
            id,
            label,
            experience,
            task,
            step,
            arrival,
        } = self.meta;
        let mut out = [0; ROW];
        out[..16].copy_from_slice(&id.base);
        out[16..20].copy_from_slice(&id.occurrence.to_le_bytes());
        out[20..24].copy_from_slice(&id.view.to_le_bytes());
        out[24..28].copy_from_slice(&label.to_le_bytes());
        out[28..32].copy_from_slice(&experience.to_le_bytes());
        out[32..34].copy_from_slice(&task.to_le_bytes());
        out[34..36].copy_from_slice(&LIVE.to_le_bytes());
        out[36..44].copy_from_slice(&step.to_le_bytes());
        out[44..52].copy_from_slice(&arrival.to_le_bytes());
        out[52..60].copy_from_slice(&self.extent.at.to_le_bytes());
        out[60..64].copy_from_slice(&self.extent.len.to_le_bytes());
        out[64..68].copy_from_slice(&self.check.to_le_bytes());
        seal(slot, &mut out);
        out
    }

    pub fn decode(slot: u32, bytes: &[u8; ROW]) -> Slot<Row> {
        if bytes == &[0; ROW] {
            return Slot::Free;
        }
        if !sealed(slot, bytes) {
            return Slot::Damaged;
        }
        let mut base = [0; 16];
        base.copy_from_slice(&bytes[..16]);
        Slot::Live(Row {
            meta: Meta {
                id: ExampleId {
                    base,
                    occurrence: u32_at(bytes, 16),
                    view: u32_at(bytes, 20),
                },
                label: u32_at(bytes, 24),
                experience: u32_at(bytes, 28),
                task: u32_at(bytes, 32) as u16,
                step: u64_at(bytes, 36),
                arrival: u64_at(bytes, 44),
            },
            extent: Extent {
                at: u64_at(bytes, 52),
                len: u32_at(bytes, 60),
            },
            check: u32_at(bytes, 64),
        })
    }
}

impl Marks {
    pub(crate) fn encode(&self, slot: u32) -> [u8; MARK] {
        let mut out = [0; MARK];
        out[..4].copy_from_slice(&self.score.to_le_bytes());
        out[4..8].copy_from_slice(&self.loss.to_le_bytes());
        out[8..12].copy_from_slice(&self.count.to_le_bytes());
        seal(slot, &mut out);
        out
    }

    pub(crate) fn decode(slot: u32, bytes: &[u8; MARK]) -> Slot<Marks> {
        if bytes == &[0; MARK] {
            return Slot::Free;
        }
        if !sealed(slot, bytes) {
            return Slot::Damaged;
        }
        Slot::Live(Marks {
            score: f32::from_bits(u32_at(bytes, 0)),
            loss: f32::from_bits(u32_at(bytes, 4)),
            count: u32_at(bytes, 8),
        })
    }
}

/// Writes the checksum of what stands before it into the last four bytes.
pub(crate) fn seal(slot: u32, bytes: &mut [u8]) {
    let (body, tail) = bytes.split_at_mut(bytes.len() - 4);
    tail.copy_from_slice(&check(slot, body).to_le_bytes());
}

/// Whether the last four bytes are the checksum of the others.
pub(crate) fn sealed(slot: u32, bytes: &[u8]) -> bool {
    let (body, tail) = bytes.split_at(bytes.len() - 4);
    check(slot, body).to_le_bytes() == tail
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Appends values as they lie on disk.
pub(crate) fn push_floats(values: &[f32], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

/// Appends the values that `bytes` are.
pub(crate) fn push_values(bytes: &[u8], out: &mut Vec<f32>) {
    out.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)));
}
