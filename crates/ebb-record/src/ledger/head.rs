//! How far a ledger had come.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Digest;
use crate::error::{Error, Result};

/// A point of a ledger: how many entries it had, `opened` included, and the hash of the last. Two
/// ledgers with one head are equal up to it. Written `COUNT-HASH`, also by serde.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Entries up to here.
    pub count: u64,
    /// The hash of the last of them.
    pub hash: Digest,
}

impl Head {
    /// Before the first entry.
    pub(crate) const EMPTY: Head = Head {
        count: 0,
        hash: Digest([0; 32]),
    };
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.count, self.hash)
    }
}

impl FromStr for Head {
    type Err = Error;

    /// # Errors
    /// [`Error::Unreadable`] for anything [`Display`](fmt::Display) would not have written.
    fn from_str(text: &str) -> Result<Head> {
        let read = || {
            let (count, hash) = text.split_once('-')?;
            Some(Head {
                count: count.parse().ok()?,
                hash: hash.parse().ok()?,
            })
        };
        // One head has one text.
        read()
            .filter(|head| head.count > 0 && head.to_string() == text)
            .ok_or_else(|| Error::unreadable("a head: COUNT-HASH", text))
    }
}

impl Serialize for Head {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Head {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
