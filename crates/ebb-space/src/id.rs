//! The identity of an example.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::key::mix64;
use crate::{Error, Result};

/// Who an example is: a keyed BLAKE3 of content and label, which of several equal records it is,
/// and which view of the record (the transform's number; 0 is the record itself).
///
/// Written `<32 hex digits>-<occurrence>-<view>`, also by serde.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ExampleId {
    /// BLAKE3 of label and content under this project's key, cut to 128 bits.
    pub base: [u8; 16],
    /// Number among equal records of one dataset, from 0: two people may hold equal records.
    pub occurrence: u32,
    /// Transform id; 0 is the untransformed record.
    pub view: u32,
}

impl ExampleId {
    /// The id of the first record with this content and label, seen as it is.
    pub fn of(content: &[u8], label: u32) -> ExampleId {
        let mut hasher = blake3::Hasher::new_derive_key("ebbinghaus v1 example id");
        hasher.update(&label.to_le_bytes());
        hasher.update(content);
        let mut base = [0; 16];
        base.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        ExampleId {
            base,
            occurrence: 0,
            view: 0,
        }
    }

    /// The same record as the `occurrence`-th of its equals.
    #[must_use]
    pub fn with_occurrence(self, occurrence: u32) -> ExampleId {
        ExampleId { occurrence, ..self }
    }

    /// The same record through the transform numbered `view`.
    #[must_use]
    pub fn with_view(self, view: u32) -> ExampleId {
        ExampleId { view, ..self }
    }

    /// Whether both are views of one record: deleting a record deletes all of them.
    pub fn same_base(&self, other: &ExampleId) -> bool {
        self.base == other.base && self.occurrence == other.occurrence
    }

    /// A 64-bit digest, the `id` that [`Key::draw`](crate::Key::draw) takes.
    #[inline]
    pub fn mix(&self) -> u64 {
        let base = u128::from_le_bytes(self.base);
        let tail = u64::from(self.occurrence) << 32 | u64::from(self.view);
        // The base is a hash already; the tail is not, and must not cancel against it.
        mix64((base as u64) ^ mix64((base >> 64) as u64 ^ mix64(tail ^ 0x9e37_79b9_7f4a_7c15)))
    }
}

impl fmt::Display for ExampleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Big-endian reading of the bytes prints them in order.
        write!(
            f,
            "{:032x}-{}-{}",
            u128::from_be_bytes(self.base),
            self.occurrence,
            self.view
        )
    }
}

impl FromStr for ExampleId {
    type Err = Error;

    /// # Errors
    /// [`Error::BadExampleId`] for anything [`Display`](fmt::Display) would not have written.
    fn from_str(text: &str) -> Result<ExampleId> {
        let read = || {
            let mut parts = text.split('-');
            let base = u128::from_str_radix(parts.next()?, 16).ok()?.to_be_bytes();
            let occurrence = parts.next()?.parse().ok()?;
            let view = parts.next()?.parse().ok()?;
            Some(ExampleId {
                base,
                occurrence,
                view,
            })
        };
        // Only the canonical spelling: one id must not have two texts.
        read()
            .filter(|id| id.to_string() == text)
            .ok_or_else(|| Error::BadExampleId(text.chars().take(80).collect()))
    }
}

impl Serialize for ExampleId {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ExampleId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_only_the_canonical_spelling_is_read() {
        let id = ExampleId::of(b"\x00 content", 7)
            .with_occurrence(2)
            .with_view(u32::MAX);
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<ExampleId>(&json).unwrap(), id);
        let zero = "00112233445566778899aabbccddeeff-0-0";
        assert_eq!(zero.parse::<ExampleId>().unwrap().base[1], 0x11);
        for bad in [
            "",
            "-",
            "00112233445566778899aabbccddeeff",
            "00112233445566778899aabbccddeeff-0",
            "00112233445566778899aabbccddeeff-0-0-0",
            "00112233445566778899aabbccddeeff-+1-0",
            "00112233445566778899aabbccddeeff-01-0",
            "00112233445566778899AABBCCDDEEFF-0-0",
            "+0112233445566778899aabbccddeeff-0-0",
            "0112233445566778899aabbccddeeff-0-0",
            "00112233445566778899aabbccddeeff-0-4294967296",
            "é0112233445566778899aabbccddeeff-0-0",
        ] {
            assert!(
                matches!(bad.parse::<ExampleId>(), Err(Error::BadExampleId(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn label_content_occurrence_and_view_all_matter() {
        let a = ExampleId::of(b"x", 0);
        assert_ne!(a.base, ExampleId::of(b"x", 1).base);
        assert_ne!(a.base, ExampleId::of(b"y", 0).base);
        assert!(a.same_base(&a.with_view(9)));
        assert!(!a.same_base(&a.with_occurrence(1)));
        let mut mixes: Vec<u64> = (0..100)
            .flat_map(|o| (0..100).map(move |v| a.with_occurrence(o).with_view(v).mix()))
            .collect();
        mixes.sort_unstable();
        mixes.dedup();
        assert_eq!(mixes.len(), 10_000);
    }
}
