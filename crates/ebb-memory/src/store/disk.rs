//! A file read and written at places, with errors that name it.
//!
//! What was there when the store was opened or last synced is read through a memory map, which takes
//! a random row of 512 features in little more than half the time (`docs/evidence/store.md`); what
//! came since, and all writing, goes through the file, so that a full disk is an error. A
//! disk that fails to deliver a mapped page ends the process, as does cutting the file while it is open:
//! the lock keeps out those who ask for it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::{Error, Result};

/// Bytes of one piece of a long copy or overwrite.
pub(crate) const PIECE: usize = 1 << 20;

pub(crate) struct Disk {
    file: File,
    path: PathBuf,
    map: Option<Mmap>,
}

impl Disk {
    /// A new, empty file; what stood there is cut off.
    pub fn create(path: PathBuf) -> Result<Disk> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        Disk::with(&options, "create", path)
    }

    pub fn open(path: PathBuf) -> Result<Disk> {
        Disk::with(OpenOptions::new().read(true).write(true), "open", path)
    }

    fn with(options: &OpenOptions, action: &'static str, path: PathBuf) -> Result<Disk> {
        match options.open(&path) {
            Ok(file) => Ok(Disk {
                file,
                path,
                map: None,
            }),
            Err(source) => Err(failed(action, &path, source)),
        }
    }

    /// Reads through a map from now on, as far as the file now reaches.
    pub fn remap(&mut self) -> Result<()> {
        let len = self.len()?;
        if self.map.as_ref().map_or(0, |map| map.len() as u64) != len {
            // SAFETY: the file is written through this `Disk` alone, whose borrows keep writing and
            // reading apart; nobody else shortens it while the store holds its lock.
            let map = match len {
                0 => Ok(None),
                _ => unsafe { Mmap::map(&self.file) }.map(Some),
            };
            self.map = map.map_err(|e| failed("map", &self.path, e))?;
        }
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn len(&self) -> Result<u64> {
        let meta = self.file.metadata();
        Ok(meta.map_err(|e| failed("measure", &self.path, e))?.len())
    }

    /// Fills `bytes` from place `at`.
    ///
    /// # Errors
    /// [`Error::Truncated`] where the file ends before.
    pub fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        let mapped = self.map.as_ref().zip(usize::try_from(at).ok());
        let end = |from: usize| from.checked_add(bytes.len());
        if let Some(there) = mapped.and_then(|(map, from)| map.get(from..end(from)?)) {
            bytes.copy_from_slice(there);
            return Ok(());
        }
        match read_exact_at(&self.file, bytes, at) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(Error::Truncated {
                path: self.path.clone(),
                expected: at.saturating_add(bytes.len() as u64),
                got: self.len()?,
            }),
            Err(e) => Err(failed("read", &self.path, e)),
        }
    }

    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        #[cfg(test)]
        let (bytes, granted) = fault::grant(bytes);
        let written = write_all_at(&self.file, bytes, at);
        #[cfg(test)]
        let written = written.and(granted);
        written.map_err(|e| failed("write", &self.path, e))
    }

    /// Overwrites with zeros, where the bytes lie.
    pub fn zero(&self, at: u64, len: u64) -> Result<()> {
        let zeros = vec![0; PIECE.min(usize::try_from(len).unwrap_or(PIECE))];
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(PIECE as u64);
            self.write(at + done, &zeros[..piece as usize])?;
            done += piece;
        }
        Ok(())
    }

    pub fn sync(&self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|e| failed("sync", &self.path, e))
    }

    /// Overwrites all of the file, syncs that, and removes it.
    pub fn shred(path: &Path) -> Result<()> {
        let disk = Disk::open(path.to_owned())?;
        disk.zero(0, disk.len()?)?;
        disk.sync()?;
        fs::remove_file(path).map_err(|e| failed("remove", path, e))
    }
}

pub(crate) fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                bytes = &mut bytes[n..];
                at += n as u64;
            }
        }
    }
    Ok(())
}

#[cfg(windows)]
fn write_all_at(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, at)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => {
                bytes = &bytes[n..];
                at += n as u64;
            }
        }
    }
    Ok(())
}

/// A disk that is full, or a process that dies, after so many bytes.
#[cfg(test)]
pub(crate) mod fault {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// From now on this thread may write so many bytes; `None`: as many as it likes.
    pub fn allow(bytes: Option<u64>) {
        LEFT.set(bytes);
    }

    /// What is left of the allowance.
    pub fn left() -> Option<u64> {
        LEFT.get()
    }

    pub(super) fn grant(bytes: &[u8]) -> (&[u8], io::Result<()>) {
        match LEFT.get() {
            Some(left) if left < bytes.len() as u64 => {
                LEFT.set(Some(0));
                let full = Err(io::ErrorKind::StorageFull.into());
                (&bytes[..left as usize], full)
            }
            Some(left) => {
                LEFT.set(Some(left - bytes.len() as u64));
                (bytes, Ok(()))
            }
            None => (bytes, Ok(())),
        }
    }
}
