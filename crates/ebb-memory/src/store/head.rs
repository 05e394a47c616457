//! The file `head`: what the store is, and how long its files were when they were last synced.
//! Replaced atomically, so that it is always one whole version of itself.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Shape;
use super::disk::{Disk, failed};
use super::row::u32_at;
use crate::{Error, Result};

/// Version of the format written by this crate.
pub(crate) const FORMAT: u32 = 1;
pub(crate) const NAME: &str = "head";
const MAGIC: &[u8; 8] = b"EBBSTORE";
/// No head is longer: a file that says so is none.
const LIMIT: u64 = 1 << 16;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    pub format_version: u32,
    pub shape: Shape,
    /// A draw that only the right key reproduces.
    pub key: u64,
    /// Number in the names of the files; a compaction writes the next.
    pub generation: u64,
    /// Bytes of the journal.
    pub room: u64,
    /// Slots in use, free ones below included.
    pub slots: u32,
    /// Bytes of the payload file.
    pub payload: u64,
    /// Records ever offered.
    pub seen: u64,
}

impl Head {
    /// Writes it beside the old one, syncs, and renames.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let json = serde_json::to_vec(self).map_err(|e| {
            let e = io::Error::other(e);
            failed("write", &dir.join(NAME), e)
        })?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&json);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        let (path, partial) = (dir.join(NAME), dir.join("head.partial"));
        let disk = Disk::create(partial.clone())?;
        disk.write(0, &bytes)?;
        disk.sync()?;
        fs::rename(&partial, &path).map_err(|e| failed("replace", &path, e))?;
        crate::file::sync_directory(dir).map_err(|e| failed("sync", dir, e))
    }

    pub fn read(dir: &Path) -> Result<Head> {
        let path = dir.join(NAME);
        let not_a_store = || Error::NotAStore(dir.to_owned());
        let bytes = match fs::metadata(&path) {
            Ok(meta) if meta.len() > LIMIT => return Err(not_a_store()),
            Ok(_) => fs::read(&path).map_err(|e| failed("read", &path, e))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(not_a_store()),
            Err(e) => return Err(failed("read", &path, e)),
        };
        if bytes.len() < 16 || bytes[..8] != MAGIC[..] {
            return Err(not_a_store());
        }
        let found = u32_at(&bytes, 8);
        let corrupt = |what: String| Error::Corrupt {
            path: path.clone(),
            what,
        };
        let (body, check) = bytes.split_at(bytes.len() - 4);
        if crc32fast::hash(body).to_le_bytes() != check {
            return Err(corrupt("its checksum does not match".into()));
        }
        if found != FORMAT {
            return Err(Error::Version {
                path,
                found,
                known: FORMAT,
            });
        }
        serde_json::from_slice(&body[12..]).map_err(|e| corrupt(format!("its content: {e}")))
    }
}
