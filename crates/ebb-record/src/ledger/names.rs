//! Names of records that only the holder of a key can compute.

use std::path::Path;

use ebb_space::ExampleId;

use super::{Digest, RequestId};
use crate::error::Result;
use crate::secret::Secret;

const KIND: &str = "record-names";

/// The key under which a ledger names records.
///
/// An [`ExampleId`] is a hash that anybody who holds the record can compute; a ledger with such
/// ids in it would tell whether a record was in it. These names are keyed BLAKE3: without the key
/// they cannot be told from noise, and once the key is destroyed nobody can tell whose they were.
/// The key lives in a file of its own, outside of every run and ledger.
#[derive(Debug)]
pub struct NameKey(Secret);

impl NameKey {
    /// Draws a new key from the system and writes it to `path`, which only its owner may read.
    ///
    /// # Errors
    /// [`Error::Secret`](crate::Error::Secret) if something is there already, or if the path lies
    /// within a run or a ledger; [`Error::Io`](crate::Error::Io).
    pub fn create(path: &Path) -> Result<NameKey> {
        Secret::create(path, KIND).map(NameKey)
    }

    /// Reads the key at `path`.
    ///
    /// # Errors
    /// [`Error::Secret`](crate::Error::Secret) if others may read it, if it lies within a run or a
    /// ledger, or if it is another thing; [`Error::Io`](crate::Error::Io).
    pub fn load(path: &Path) -> Result<NameKey> {
        Secret::load(path, KIND).map(NameKey)
    }

    /// Overwrites the key at `path` and removes it: the names made with it become unlinkable.
    /// Copies elsewhere, and blocks that the disk has moved, are not reached.
    ///
    /// # Errors
    /// See [`load`](NameKey::load): what is no such key is left alone.
    pub fn destroy(path: &Path) -> Result<()> {
        Secret::destroy(path, KIND)
    }

    /// The name of a record, whatever view of it is given.
    pub fn record(&self, id: &ExampleId) -> Digest {
        self.keyed("record", &[&id.base, &id.occurrence.to_le_bytes()])
    }

    /// The name of a text: of an authority, of a file.
    pub fn text(&self, text: &str) -> Digest {
        self.keyed("text", &[text.as_bytes()])
    }

    /// The name of a request, by its bytes and when it came.
    pub fn request(&self, bytes: &[u8], at: u64) -> RequestId {
        let digest = self.keyed("request", &[&at.to_le_bytes(), bytes]);
        let mut id = [0; 16];
        id.copy_from_slice(&digest.0[..16]);
        RequestId(id)
    }

    /// What a ledger keeps to know its key again.
    pub fn check(&self) -> Digest {
        self.keyed("check", &[])
    }

    fn keyed(&self, what: &str, parts: &[&[u8]]) -> Digest {
        let mut hasher = blake3::Hasher::new_keyed(self.0.bytes());
        // No two of the purposes begin alike, and at most the last part has no fixed length.
        hasher.update(what.as_bytes()).update(&[0]);
        for part in parts {
            hasher.update(part);
        }
        Digest(*hasher.finalize().as_bytes())
    }
}
