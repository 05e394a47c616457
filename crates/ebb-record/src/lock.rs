//! One writer a run. The lock is the operating system's and ends with the process, however it
//! ends; the process id in the file is for the message, and for file systems without locks.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{At, Error, Result};

pub(crate) const LOCK: &str = "run.lock";

#[derive(Serialize, Deserialize)]
struct Holder {
    format_version: u32,
    pid: u32,
}

/// Held for as long as the run is open for writing.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock of the run in `root`. A lock left behind by a process that is gone is taken
    /// over.
    pub fn take(root: &Path) -> Result<Lock> {
        let path = root.join(LOCK);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).writing(&path, 0)?;
        let held = |pid| {
            Err(Error::Locked {
                path: root.into(),
                pid,
            })
        };
        let holder = holder(&mut file);
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return held(holder.unwrap_or(0)),
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {
                // A holder empties the file when it is done, so a living one still holds it.
                if let Some(pid) = holder.filter(|&pid| alive(pid)) {
                    return held(pid);
                }
            }
            Err(TryLockError::Error(e)) => return Err(e).at("lock", &path),
        }
        let mut lock = Lock { file };
        // The id is for messages: a full disk must not keep anyone from opening the run.
        let _ = lock.write_holder();
        Ok(lock)
    }

    fn write_holder(&mut self) -> std::io::Result<()> {
        let text = serde_json::to_vec(&Holder {
            format_version: 1,
            pid: std::process::id(),
        })?;
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(&text)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The system releases the lock in any case; an uncleared pid is then known as stale. But
        // closing is not enough if a child process is just being started with the open file.
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

/// The process that the file names.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    Some(serde_json::from_str::<Holder>(&text).ok()?.pid)
}

/// Whether a process of this id runs; where that cannot be asked, it is taken to.
fn alive(pid: u32) -> bool {
    let processes = Path::new("/proc");
    !processes.join("self").exists() || processes.join(pid.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_names_its_holder_and_a_stale_one_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        // A process that has ended.
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let stale = Holder {
            format_version: 1,
            pid: child.id(),
        };
        std::fs::write(dir.path().join(LOCK), serde_json::to_vec(&stale).unwrap()).unwrap();
        assert!(!alive(child.id()) && alive(std::process::id()));

        let lock = Lock::take(dir.path()).unwrap();
        let refused = Lock::take(dir.path());
        assert!(matches!(refused, Err(Error::Locked { pid, .. }) if pid == std::process::id()));
        drop(lock);
        Lock::take(dir.path()).unwrap();
    }
}
