//! An append-only file that can be cut back to where a checkpoint left it.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{At, Error, Result};

/// How far a log had come when a state was committed.
///
/// A log is sealed into Parquet when a run finishes; what comes later is its next segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// How many times the log had been sealed before.
    pub segment: u32,
    /// Length of this segment in bytes.
    pub bytes: u64,
}

/// Readers of a running log are at most this far behind.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// The appending end. Bytes reach the operating system every second, or 64 KiB; they are synced
/// only by [`sync`](AppendLog::sync), at a checkpoint.
#[derive(Debug)]
pub(crate) struct AppendLog {
    file: BufWriter<File>,
    path: PathBuf,
    bytes: u64,
    flushed: Instant,
    /// A write failed and may have left a part of its bytes: nothing may follow them.
    broken: bool,
}

impl AppendLog {
    /// A new log that begins with `header`; what was there before is dropped.
    pub fn create(path: &Path, header: &[u8]) -> Result<AppendLog> {
        let file = File::create(path).writing(path, header.len() as u64)?;
        let mut log = AppendLog::at(file, path, 0);
        log.append(header)?;
        log.sync()?;
        Ok(log)
    }

    /// Goes on after the first `bytes` bytes; what follows them was never committed and is cut.
    pub fn resume(path: &Path, bytes: u64) -> Result<AppendLog> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .at("open", path)?;
        let length = file.metadata().at("inspect", path)?.len();
        if length < bytes {
            let what = format!(
                "it has {length} bytes, but the last state was saved when it had {bytes}; restore \
                 the file from a copy, or start the run again in a new directory"
            );
            return Err(Error::damaged(path, what));
        }
        file.set_len(bytes).at("cut", path)?;
        file.sync_all().writing(path, bytes)?;
        file.seek(SeekFrom::End(0)).at("read", path)?;
        Ok(AppendLog::at(file, path, bytes))
    }

    fn at(file: File, path: &Path, bytes: u64) -> AppendLog {
        let file = BufWriter::with_capacity(1 << 16, file);
        AppendLog {
            file,
            path: path.into(),
            bytes,
            flushed: Instant::now(),
            broken: false,
        }
    }

    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let length = bytes.len() as u64;
        self.write(length, |file| file.write_all(bytes))?;
        self.bytes += length;
        if self.flushed.elapsed() >= FLUSH_EVERY {
            self.flush()?;
        }
        Ok(())
    }

    /// Hands everything to the operating system, where other processes see it.
    pub fn flush(&mut self) -> Result<()> {
        self.write(self.file.buffer().len() as u64, BufWriter::flush)?;
        self.flushed = Instant::now();
        Ok(())
    }

    /// Makes everything durable and says how long the log is.
    pub fn sync(&mut self) -> Result<u64> {
        self.flush()?;
        self.write(0, |file| file.get_ref().sync_all())?;
        Ok(self.bytes)
    }

    fn write(
        &mut self,
        length: u64,
        write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
    ) -> Result<()> {
        if self.broken {
            let earlier =
                std::io::Error::other("an earlier write to it failed; open the run again");
            return Err(earlier).writing(&self.path, length);
        }
        let written = write(&mut self.file);
        self.broken = written.is_err();
        written.writing(&self.path, length)
    }

    /// Bytes appended so far, synced or not.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}
