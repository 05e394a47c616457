//! Every change of the run directory goes through here: files appear whole or not at all.
//!
//! A replacement is: write `NAME.tmp` beside it, sync the file, rename, sync the directory. After
//! a crash at any point the name holds the old bytes or the new ones. [`Fault`] lets a test stop
//! the program between two of these operations.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{At, Error, Result};

/// The ending of everything half-written; swept when a run is opened.
pub(crate) const TEMPORARY: &str = "tmp";

/// One step of a change on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Bytes were handed to the operating system.
    Write,
    /// A file was synced.
    Sync,
    /// A file or directory was renamed into place.
    Rename,
    /// A directory was synced.
    SyncDirectory,
    /// A file or directory was removed.
    Remove,
}

/// Where a test stops the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// After this operation...
    pub after: Operation,
    /// ...on a path that ends in this text (empty: any path)...
    pub path_ends_with: String,
    /// ...having let this many such operations pass.
    pub skip: usize,
    /// Whether to end the process without any cleaning up, as a kill would, or to return
    /// [`Error::Fault`].
    pub abort: bool,
}

/// Writes files so that a crash leaves the old one or the new one. Clones share one [`Fault`].
#[derive(Clone, Debug, Default)]
pub struct Disk {
    fault: Arc<Mutex<Planned>>,
}

#[derive(Debug, Default)]
struct Planned {
    fault: Option<Fault>,
    /// After a fault the program counts as dead: it must not clean up after itself.
    dead: bool,
}

impl Disk {
    /// Sets or clears the point where the program stops; for tests of crash safety.
    pub fn set_fault(&self, fault: Option<Fault>) {
        *self.planned() = Planned { fault, dead: false };
    }

    fn planned(&self) -> MutexGuard<'_, Planned> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a fault has stopped the program.
    pub(crate) fn is_dead(&self) -> bool {
        self.planned().dead
    }

    fn done(&self, operation: Operation, path: &Path) -> Result<()> {
        let mut planned = self.planned();
        let Some(fault) = planned.fault.as_mut() else {
            return Ok(());
        };
        let path_fits = path.to_string_lossy().ends_with(&fault.path_ends_with);
        if fault.after != operation || !path_fits {
            return Ok(());
        }
        if fault.skip > 0 {
            fault.skip -= 1;
            return Ok(());
        }
        if fault.abort {
            std::process::abort();
        }
        *planned = Planned {
            fault: None,
            dead: true,
        };
        Err(Error::Fault {
            operation,
            path: path.into(),
        })
    }

    /// Replaces the file at `path` by `bytes`.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Io`]; the old file is then still there.
    pub fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.replace_with(path, bytes.len() as u64, |file| {
            file.write_all(bytes).writing(path, bytes.len() as u64)
        })
    }

    /// Replaces the file at `path` by what `write` writes, about `bytes` bytes.
    ///
    /// # Errors
    /// Those of `write`, [`Error::DiskFull`], [`Error::Io`]; the old file is then still there.
    pub fn replace_with(
        &self,
        path: &Path,
        bytes: u64,
        write: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
    ) -> Result<()> {
        let temporary = temporary(path);
        let written = self.write_new(&temporary, bytes, write);
        if written.is_err() && !self.is_dead() {
            // The half-written file is what fills the disk; a failure here changes nothing.
            let _ = fs::remove_file(&temporary);
        }
        written?;
        self.rename(&temporary, path)
    }

    /// Writes and syncs a file whose name nobody looks at yet.
    pub(crate) fn write_new(
        &self,
        path: &Path,
        bytes: u64,
        write: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
    ) -> Result<()> {
        let file = File::create(path).writing(path, bytes)?;
        let mut file = BufWriter::with_capacity(1 << 16, file);
        write(&mut file)?;
        let file = file
            .into_inner()
            .map_err(|e| e.into_error())
            .writing(path, bytes)?;
        self.done(Operation::Write, path)?;
        file.sync_all().writing(path, bytes)?;
        self.done(Operation::Sync, path)
    }

    /// Renames into place and syncs the directory.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).writing(to, 0)?;
        self.done(Operation::Rename, to)?;
        self.sync_directory(parent(to))
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync_directory(&self, path: &Path) -> Result<()> {
        // Elsewhere a directory cannot be opened, and renames are durable without it.
        #[cfg(unix)]
        File::open(path)
            .and_then(|d| d.sync_all())
            .writing(path, 0)?;
        self.done(Operation::SyncDirectory, path)
    }

    /// Removes a file if it is there.
    pub(crate) fn remove_file(&self, path: &Path) -> Result<()> {
        match fs::remove_file(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.at("remove", path)?,
        }
        self.done(Operation::Remove, path)
    }

    /// Removes a directory for good: first its name, so that it is never seen half-empty.
    pub(crate) fn remove_directory(&self, path: &Path) -> Result<()> {
        let doomed = temporary(path);
        if doomed.exists() {
            fs::remove_dir_all(&doomed).at("remove", &doomed)?;
        }
        self.rename(path, &doomed)?;
        fs::remove_dir_all(&doomed).at("remove", &doomed)?;
        self.done(Operation::Remove, path)?;
        self.sync_directory(parent(path))
    }
}

/// `NAME` -> `NAME.tmp`, in the same directory, so that a rename stays within one file system.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".");
    name.push(TEMPORARY);
    path.with_file_name(name)
}

/// The directory that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

/// Removes everything half-written directly below `directory`.
pub(crate) fn sweep(directory: &Path) -> Result<()> {
    for path in entries(directory)? {
        if path.extension().is_some_and(|e| e == TEMPORARY) {
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.at("remove the leftover", &path)?;
        }
    }
    Ok(())
}

/// The paths in a directory, sorted.
pub(crate) fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(directory)
        .and_then(|all| {
            all.map(|e| e.map(|e| e.path()))
                .collect::<std::io::Result<Vec<_>>>()
        })
        .at("list", directory)?;
    paths.sort();
    Ok(paths)
}
