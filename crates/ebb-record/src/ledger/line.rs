//! One line of the ledger, bound to the line before.

use serde::{Deserialize, Serialize};

use super::{Digest, Entry, Head};
use crate::error::{Error, Result};

/// The newest version of ledgers that this program reads.
pub const LEDGER_VERSION: u32 = 1;

/// The longest line, its end included. A longer one is not read.
pub const MAX_LINE: usize = 1 << 14;

const BEFORE_HASH: &[u8] = b",\"hash\":\"";
const AFTER_HASH: &[u8] = b"\"}\n";
const SEAL: usize = BEFORE_HASH.len() + 64 + AFTER_HASH.len();

#[derive(Serialize)]
struct Open<'a> {
    n: u64,
    at: u64,
    entry: &'a Entry,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    n: u64,
    at: u64,
    entry: Entry,
    #[serde(rename = "hash")]
    _hash: Digest,
}

/// Computes the hashes of a chain.
#[derive(Debug)]
pub(super) struct Chain(blake3::Hasher);

impl Chain {
    pub fn new() -> Chain {
        Chain(blake3::Hasher::new_derive_key("ebbinghaus v1 ledger entry"))
    }

    fn hash(&self, before: &Digest, body: &[u8]) -> Digest {
        let mut hasher = self.0.clone();
        hasher.update(&before.0).update(body);
        Digest(*hasher.finalize().as_bytes())
    }

    /// Writes the entry that follows `head` into `line`; returns the head after it.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if it could not be read again: longer than [`MAX_LINE`], or with a
    /// number that is not finite.
    pub fn write(&self, head: &Head, at: u64, entry: &Entry, line: &mut Vec<u8>) -> Result<Head> {
        let unwritable = |why: String| Error::unreadable("an entry of a ledger", &why);
        if let Entry::Note { values, .. } = entry
            && let Some((name, _)) = values.iter().find(|(_, value)| !value.is_finite())
        {
            return Err(unwritable(format!("`{name}` is not a finite number")));
        }
        line.clear();
        let n = head.count;
        serde_json::to_writer(&mut *line, &Open { n, at, entry })
            .map_err(|e| unwritable(e.to_string()))?;
        line.pop(); // the closing brace comes after the hash
        if line.len() + SEAL > MAX_LINE {
            return Err(unwritable(format!(
                "it has {} bytes, and {MAX_LINE} is the most",
                line.len() + SEAL
            )));
        }
        let hash = self.hash(&head.hash, line);
        line.extend_from_slice(BEFORE_HASH);
        line.extend_from_slice(&hash.hex());
        line.extend_from_slice(AFTER_HASH);
        Ok(Head { count: n + 1, hash })
    }

    /// Reads the line, end included, that should follow `head`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(
        &self,
        head: &Head,
        line: &[u8],
    ) -> std::result::Result<(u64, Entry, Head), String> {
        let shape = || "it is not a line of a ledger".to_owned();
        let at = line.len().checked_sub(SEAL).ok_or_else(shape)?;
        let (body, seal) = line.split_at(at);
        let hash = seal
            .strip_prefix(BEFORE_HASH)
            .and_then(|rest| rest.strip_suffix(AFTER_HASH))
            .and_then(Digest::from_hex)
            .ok_or_else(shape)?;
        if self.hash(&head.hash, body) != hash {
            return Err("its hash does not follow from it and the entry before".into());
        }
        // The bytes hang together; what they say is still not taken on trust.
        let parsed: Line = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        if parsed.n != head.count {
            return Err(format!("it is numbered {}", parsed.n));
        }
        if matches!(parsed.entry, Entry::Opened { .. }) != (head.count == 0) {
            return Err("a ledger begins with `opened`, and is opened once".into());
        }
        let count = head.count + 1;
        Ok((parsed.at, parsed.entry, Head { count, hash }))
    }
}

/// The version that the first line names, however else that version writes it.
pub(super) fn version_of(line: &[u8]) -> Option<u32> {
    let value: serde_json::Value = serde_json::from_slice(line).ok()?;
    let version = value.get("entry")?.get("opened")?.get("format_version")?;
    version.as_u64()?.try_into().ok()
}
