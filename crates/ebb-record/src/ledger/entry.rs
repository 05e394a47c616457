//! What a ledger can say. No field takes free text, so that nothing erased can slip in.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Digest;
use crate::error::{Error, Result};

/// One thing that happened to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Entry {
    /// The first entry of every ledger, and of no other place.
    Opened {
        /// Version of the format.
        format_version: u32,
        /// [`NameKey::check`](super::NameKey::check) of the key that names its records.
        names: Digest,
    },
    /// A request came in.
    Submitted {
        /// Which.
        request: RequestId,
        /// Why.
        ground: Ground,
        /// By when it must be done, in seconds since 1970.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        deadline: Option<u64>,
        /// On whose authority, under the key of names.
        authority: Digest,
    },
    /// It will not be done, or not for these records.
    Refused {
        /// Which.
        request: RequestId,
        /// Why not.
        because: Refusal,
        /// How many of its records; 0 where nothing matched.
        records: u64,
    },
    /// How it will be done.
    Planned {
        /// Which.
        request: RequestId,
        /// The records it reaches.
        records: Records,
        /// By what.
        method: Word,
        /// What that claims.
        claim: Claim,
    },
    /// The work began.
    Started {
        /// Which.
        request: RequestId,
    },
    /// A phase of the work ended.
    PhaseDone {
        /// Which.
        request: RequestId,
        /// The phase.
        phase: Word,
    },
    /// The model changed.
    Erased {
        /// Which.
        request: RequestId,
        /// Hash of the weights before.
        before: Digest,
        /// Hash of the weights after.
        after: Digest,
    },
    /// What was left was measured.
    Verified {
        /// Which.
        request: RequestId,
        /// Hash of the report.
        report: Digest,
        /// Whether every test was passed.
        passed: bool,
        /// Whether models retrained without the records were at hand.
        oracle: bool,
    },
    /// Bytes were removed.
    Purged {
        /// Which.
        request: RequestId,
        /// Of what kind.
        what: Word,
        /// How many of them.
        artifacts: u64,
        /// How many bytes.
        bytes: u64,
        /// Merkle root over their names, under the key.
        root: Digest,
    },
    /// A certificate was signed.
    Certified {
        /// Which.
        request: RequestId,
        /// Hash of the certificate.
        certificate: Digest,
    },
    /// Anything else, in names and numbers.
    Note {
        /// What.
        name: Word,
        /// Its numbers, all finite.
        values: BTreeMap<Word, f64>,
    },
}

/// Records without their names: how many, and the root over the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Records {
    /// How many.
    pub count: u64,
    /// [`Merkle::root`](super::Merkle::root) over their names.
    pub root: Digest,
}

/// Why records are to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ground {
    /// A person asked.
    Person,
    /// A licence was withdrawn.
    Licence,
    /// They were planted to do harm.
    Poisoned,
    /// Their labels are wrong.
    WrongLabel,
    /// Another one; its words stand in the request.
    Other,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// No record matched.
    NothingMatched,
    /// The deadline had passed when it came in.
    DeadlinePast,
    /// A law asks that the records be kept.
    RequiredByLaw,
}

/// What a method of erasing claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Claim {
    /// The model is one that was never trained on the records.
    Exact,
    /// It behaves much like one.
    Approximate,
    /// It no longer says what it still knows.
    Suppress,
}

/// A plain word: 1 to 64 of `a-z`, `0-9`, `-`, `.` and `+`. Names of methods, phases and kinds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word(String);

impl Word {
    /// # Errors
    /// [`Error::Unreadable`] for any other text.
    pub fn new(text: &str) -> Result<Word> {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-.+".contains(&c);
        if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
            return Ok(Word(text.into()));
        }
        Err(Error::unreadable(
            "a plain word (1 to 64 of a-z, 0-9, '-', '.', '+')",
            text,
        ))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a request, 128 bits under the key of names: 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RequestId(pub [u8; 16]);

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Word {
    type Err = Error;

    fn from_str(text: &str) -> Result<Word> {
        Word::new(text)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::states::hex(&self.0))
    }
}

impl FromStr for RequestId {
    type Err = Error;

    /// # Errors
    /// [`Error::Unreadable`] for anything but 32 lower-case hex digits.
    fn from_str(text: &str) -> Result<RequestId> {
        u128::from_str_radix(text, 16)
            .map(|number| RequestId(number.to_be_bytes()))
            .ok()
            .filter(|id| id.to_string() == text)
            .ok_or_else(|| Error::unreadable("a request: 32 lower-case hex digits", text))
    }
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
