//! Saving and loading: one file, replaced atomically, checked to the last byte.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `EBBMEMRY` |
//! | 4 | format version |
//! | 4 | length of the header |
//! | 8 | length of the file |
//! | … | header: JSON (settings, policy state, record count, a fingerprint of the key) |
//! | … | ids, labels, experiences, tasks, steps, arrivals, inputs, logits, features: each a column |
//! | 32 | BLAKE3 of everything before |
//!
//! Numbers are little-endian. Digests and priorities follow from the ids and the key, and are
//! computed anew. The key itself is not written: a memory is loaded with the key of its run.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use ebb_space::{ExampleId, Key};
use serde::{Deserialize, Serialize};

use crate::memory::{Config, Memory};
use crate::policy::{Group, Keep};
use crate::record::{Form, Meta, Payload};
use crate::slab::Bulk;
use crate::{Error, Result};

/// Name of the file inside the memory's directory.
pub const FILE_NAME: &str = "memory.bin";
/// Version of the format written by this crate.
pub const FORMAT_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"EBBMEMRY";
const PRELUDE: usize = 24;
const DIGEST: usize = 32;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format_version: u32,
    capacity: usize,
    keep: Keep,
    form: Form,
    records: usize,
    seen: u64,
    groups: Vec<Group>,
    /// A draw that only the right key reproduces.
    key: u64,
}

impl Memory {
    /// Writes the memory into `dir` (created if need be), replacing what was saved there before in
    /// one atomic step, and returns the BLAKE3 of its content. After [`load`](Memory::load) the
    /// memory goes on exactly as this one does.
    ///
    /// # Errors
    /// [`Error::Io`]; what was saved before is then untouched.
    pub fn save(&self, dir: &Path) -> Result<[u8; 32]> {
        let at = |action, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io {
                action,
                path,
                source,
            }
        };
        fs::create_dir_all(dir).map_err(at("create", dir))?;
        let (path, partial) = (
            dir.join(FILE_NAME),
            dir.join(format!("{FILE_NAME}.partial")),
        );
        let write = || -> io::Result<[u8; 32]> {
            let (mut file, digest) = self.encode_hashed(File::create(&partial)?)?;
            file.write_all(&digest)?;
            file.sync_all()?;
            fs::rename(&partial, &path)?;
            Ok(digest)
        };
        let digest = write().map_err(|source| {
            // Best effort: the error that matters is the first one.
            let _ = fs::remove_file(&partial);
            Error::Io {
                action: "write",
                path: path.clone(),
                source,
            }
        })?;
        sync_directory(dir).map_err(at("sync", dir))?;
        Ok(digest)
    }

    /// The BLAKE3 that [`save`](Memory::save) would return: equal for memories that hold the same
    /// records in the same slots and will decide alike.
    pub fn digest(&self) -> [u8; 32] {
        self.encode_hashed(io::sink())
            .expect("writing to nowhere does not fail")
            .1
    }

    /// Reads the memory saved in `dir`, under the key it was built with.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NotAMemory`], [`Error::Version`], [`Error::Truncated`],
    /// [`Error::Corrupt`] and [`Error::OtherKey`] say what is wrong with the file;
    /// [`Error::TooLarge`].
    pub fn load(dir: &Path, key: Key) -> Result<Memory> {
        let path = dir.join(FILE_NAME);
        let bytes = fs::read(&path).map_err(|source| Error::Io {
            action: "read",
            path: path.clone(),
            source,
        })?;
        decode(&bytes, &path, key)
    }

    /// Encodes into `out` and returns it with the BLAKE3 of what was written.
    fn encode_hashed<W: Write>(&self, out: W) -> io::Result<(W, [u8; 32])> {
        let hashing = Hashing {
            inner: out,
            hasher: blake3::Hasher::new(),
        };
        // The buffer stands before the hasher, which is fast on large pieces only.
        let mut out = io::BufWriter::with_capacity(1 << 18, hashing);
        self.encode(&mut out)?;
        let Hashing { inner, hasher } = out.into_inner()?;
        Ok((inner, *hasher.finalize().as_bytes()))
    }

    fn encode(&self, out: &mut impl Write) -> io::Result<()> {
        let Config {
            capacity,
            keep,
            form,
        } = self.config;
        let header = Header {
            format_version: FORMAT_VERSION,
            capacity,
            keep,
            form,
            records: self.len(),
            seen: self.seen,
            groups: self.groups.clone(),
            key: fingerprint(self.keys.keep),
        };
        let header = serde_json::to_vec(&header)?;
        let total = PRELUDE + header.len() + self.len() * saved_bytes(&form) + DIGEST;
        out.write_all(MAGIC)?;
        out.write_all(&FORMAT_VERSION.to_le_bytes())?;
        out.write_all(&(header.len() as u32).to_le_bytes())?;
        out.write_all(&(total as u64).to_le_bytes())?;
        out.write_all(&header)?;
        let metas = self.metas();
        for id in metas.iter().map(|meta| meta.id) {
            out.write_all(&id.base)?;
            out.write_all(&id.occurrence.to_le_bytes())?;
            out.write_all(&id.view.to_le_bytes())?;
        }
        write_column(out, metas.iter().map(|meta| meta.label.to_le_bytes()))?;
        write_column(out, metas.iter().map(|meta| meta.experience.to_le_bytes()))?;
        write_column(out, metas.iter().map(|meta| meta.task.to_le_bytes()))?;
        write_column(out, metas.iter().map(|meta| meta.step.to_le_bytes()))?;
        write_column(out, metas.iter().map(|meta| meta.arrival.to_le_bytes()))?;
        match &self.slab.inputs {
            Bulk::F32(column) => write_floats(out, &column[..self.len() * form.input])?,
            Bulk::U8(column) => out.write_all(&column[..self.len() * form.input])?,
        }
        write_floats(
            out,
            &self.slab.logits[..self.len() * form.logits.unwrap_or(0)],
        )?;
        write_floats(
            out,
            &self.slab.features[..self.len() * form.features.unwrap_or(0)],
        )
    }
}

fn decode(bytes: &[u8], path: &Path, key: Key) -> Result<Memory> {
    let corrupt = |what: &str| Error::Corrupt {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    let truncated = |expected: u64| Error::Truncated {
        path: path.to_owned(),
        expected,
        got: bytes.len() as u64,
    };

    if !bytes.starts_with(MAGIC) {
        let cut = MAGIC.starts_with(bytes);
        return Err(if cut {
            truncated((PRELUDE + DIGEST) as u64)
        } else {
            Error::NotAMemory(path.to_owned())
        });
    }
    let mut reader = Reader { bytes, at: 8 };
    let prelude = (|| Some((reader.u32()?, reader.u32()?, reader.u64()?)))();
    let Some((version, header_len, total)) = prelude else {
        return Err(truncated((PRELUDE + DIGEST) as u64));
    };
    if version != FORMAT_VERSION {
        return Err(Error::Version {
            path: path.to_owned(),
            found: version,
            known: FORMAT_VERSION,
        });
    }
    if (bytes.len() as u64) < total {
        return Err(truncated(total));
    }
    let Some(body) = bytes
        .len()
        .checked_sub(DIGEST)
        .filter(|&body| body >= PRELUDE)
    else {
        return Err(corrupt("it is shorter than its own frame"));
    };
    if blake3::hash(&bytes[..body]).as_bytes()[..] != bytes[body..] {
        return Err(corrupt("its checksum does not match"));
    }

    // The bytes are those that were written; what they say is still not taken on trust.
    reader.bytes = &bytes[..body];
    let header = reader
        .take(header_len as usize)
        .ok_or_else(|| corrupt("its header is cut short"))?;
    let header: Header =
        serde_json::from_slice(header).map_err(|error| corrupt(&format!("its header: {error}")))?;
    let Header {
        capacity,
        keep,
        form,
        records,
        seen,
        groups,
        key: written,
        ..
    } = header;
    if capacity < records || records.checked_mul(saved_bytes(&form)) != Some(body - reader.at) {
        return Err(corrupt(
            "its columns have not the size that its header says",
        ));
    }
    let mut memory = Memory::new(
        Config {
            capacity,
            keep,
            form,
        },
        key,
    )?;
    if fingerprint(memory.keys.keep) != written {
        return Err(Error::OtherKey(path.to_owned()));
    }
    memory.groups = groups;
    memory.seen = seen;
    reader
        .fill(&mut memory, records)
        .ok_or_else(|| corrupt("its columns are cut short"))?;
    for slot in 0..records {
        let mix = memory.slab.metas[slot].id.mix();
        memory.slab.mixes[slot] = mix;
        memory.slab.priorities[slot] = memory.keys.keep.draw(mix);
    }
    let mut ids: Vec<ExampleId> = memory.metas().iter().map(|meta| meta.id).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(corrupt("it holds a record twice"));
    }
    Ok(memory)
}

/// A number that only the right key reproduces.
pub(crate) fn fingerprint(key: Key) -> u64 {
    key.sub("fingerprint").draw(0)
}

/// Bytes a record takes in the file; saturating, since the form may come from a file.
fn saved_bytes(form: &Form) -> usize {
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
        .saturating_add(24 + 4 + 4 + 2 + 8 + 8)
}

fn write_column<const N: usize>(
    out: &mut impl Write,
    values: impl Iterator<Item = [u8; N]>,
) -> io::Result<()> {
    for value in values {
        out.write_all(&value)?;
    }
    Ok(())
}

fn write_floats(out: &mut impl Write, values: &[f32]) -> io::Result<()> {
    let mut block = [0; 4096];
    for values in values.chunks(block.len() / 4) {
        for (bytes, value) in block.chunks_exact_mut(4).zip(values) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        out.write_all(&block[..values.len() * 4])?;
    }
    Ok(())
}

/// Makes a rename in `dir` durable. Directories cannot be opened for this everywhere.
pub(crate) fn sync_directory(dir: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(dir)?.sync_all()
    } else {
        Ok(())
    }
}

struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let slice = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(slice)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn floats(&mut self, out: &mut [f32]) -> Option<()> {
        let bytes = self.take(out.len() * 4)?;
        for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*bytes);
        }
        Some(())
    }

    /// Reads the columns of `records` records into an empty memory.
    fn fill(&mut self, memory: &mut Memory, records: usize) -> Option<()> {
        let slab = &mut memory.slab;
        slab.len = records;
        slab.metas.resize(records, Meta::BLANK);
        let metas: &mut [Meta] = &mut slab.metas[..records];
        for meta in metas.iter_mut() {
            meta.id = ExampleId {
                base: self.array()?,
                occurrence: self.u32()?,
                view: self.u32()?,
            };
        }
        for meta in metas.iter_mut() {
            meta.label = self.u32()?;
        }
        for meta in metas.iter_mut() {
            meta.experience = self.u32()?;
        }
        for meta in metas.iter_mut() {
            meta.task = u16::from_le_bytes(self.array()?);
        }
        for meta in metas.iter_mut() {
            meta.step = self.u64()?;
        }
        for meta in metas.iter_mut() {
            meta.arrival = self.u64()?;
        }
        let width = slab.form.input;
        match &mut slab.inputs {
            Bulk::F32(column) => self.floats(&mut column[..records * width])?,
            Bulk::U8(column) => {
                column[..records * width].copy_from_slice(self.take(records * width)?)
            }
        }
        self.floats(&mut slab.logits[..records * slab.form.logits.unwrap_or(0)])?;
        self.floats(&mut slab.features[..records * slab.form.features.unwrap_or(0)])
    }
}
