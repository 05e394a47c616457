//! The appending end.

use std::path::{Path, PathBuf};

use super::check::{Mark, judge, scan};
use super::line::{Chain, LEDGER_VERSION};
use super::{Digest, ENTRIES, Entry, HEAD, Head, NameKey, is_ledger};
use crate::disk::{Disk, Fault, sweep};
use crate::error::{At, Error, Result};
use crate::lock::Lock;
use crate::log::AppendLog;

/// A ledger that this process writes.
#[derive(Debug)]
pub struct Ledger {
    directory: PathBuf,
    log: AppendLog,
    chain: Chain,
    /// With what is not acknowledged yet.
    next: Head,
    acknowledged: Head,
    names: Digest,
    line: Vec<u8>,
    disk: Disk,
    _lock: Lock,
}

impl Ledger {
    /// A new ledger in `directory`, which is made if it is not there, whose records `key` names.
    /// `at` is the time, in seconds since 1970.
    ///
    /// # Errors
    /// [`Error::RunExists`] if a ledger is there already, [`Error::Locked`], [`Error::DiskFull`],
    /// [`Error::Io`].
    pub fn create(directory: &Path, key: &NameKey, at: u64) -> Result<Ledger> {
        std::fs::create_dir_all(directory).writing(directory, 0)?;
        let lock = Lock::take(directory)?;
        if is_ledger(directory) {
            return Err(Error::RunExists {
                path: directory.into(),
            });
        }
        let disk = Disk::default();
        let chain = Chain::new();
        let mut line = Vec::new();
        let opened = Entry::Opened {
            format_version: LEDGER_VERSION,
            names: key.check(),
        };
        let next = chain.write(&Head::EMPTY, at, &opened, &mut line)?;
        let log = AppendLog::create(&directory.join(ENTRIES), &line)?;
        let mut ledger = Ledger {
            directory: directory.into(),
            log,
            chain,
            next,
            acknowledged: Head::EMPTY,
            names: key.check(),
            line,
            disk,
            _lock: lock,
        };
        ledger.commit()?;
        ledger.disk.sync_directory(crate::disk::parent(directory))?;
        Ok(ledger)
    }

    /// Opens a ledger to go on with it. Every byte is checked first. What a crash left after the
    /// acknowledged entries is kept where it is whole, and cut where it is torn.
    ///
    /// # Errors
    /// [`Error::Ledger`] if acknowledged entries are not what was written: nothing is changed
    /// then. [`Error::Locked`], [`Error::Newer`], [`Error::DiskFull`], [`Error::Io`].
    pub fn open(directory: &Path) -> Result<Ledger> {
        let lock = Lock::take(directory)?;
        let mark = Mark::read(directory)?;
        let mut names = Head::EMPTY.hash;
        let scan = scan(directory, &[mark.head.count], |_, _, entry| {
            if let Entry::Opened { names: of, .. } = entry {
                names = of;
            }
            Ok(())
        })?;
        judge(directory, &scan, &mark, None)?;
        sweep(directory)?;
        let log = AppendLog::resume(&directory.join(ENTRIES), scan.bytes)?;
        let mut ledger = Ledger {
            directory: directory.into(),
            log,
            chain: Chain::new(),
            next: scan.head,
            acknowledged: mark.head,
            names,
            line: Vec::new(),
            disk: Disk::default(),
            _lock: lock,
        };
        ledger.commit()?;
        Ok(ledger)
    }

    /// Appends an entry at the time `at`, in seconds since 1970; returns its number. It counts
    /// once [`commit`](Ledger::commit) has returned; many entries may share one.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if the entry cannot stand in a ledger; [`Error::DiskFull`],
    /// [`Error::Io`]: open the ledger again.
    pub fn append(&mut self, at: u64, entry: &Entry) -> Result<u64> {
        if matches!(entry, Entry::Opened { .. }) {
            return Err(Error::unreadable("an entry", "a ledger is opened once"));
        }
        let next = self.chain.write(&self.next, at, entry, &mut self.line)?;
        self.log.append(&self.line)?;
        let n = self.next.count;
        self.next = next;
        Ok(n)
    }

    /// Makes everything appended durable and returns the head to keep elsewhere.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Io`]: what was not acknowledged may be lost; open it again.
    pub fn commit(&mut self) -> Result<Head> {
        if self.next != self.acknowledged {
            let bytes = self.log.sync()?;
            let mark = Mark {
                head: self.next,
                bytes,
            };
            let path = self.directory.join(HEAD);
            self.disk.replace(&path, mark.text().as_bytes())?;
            self.acknowledged = self.next;
        }
        Ok(self.acknowledged)
    }

    /// The last acknowledged head.
    pub fn head(&self) -> Head {
        self.acknowledged
    }

    /// Whether `key` is the one that names this ledger's records: names under another one could
    /// never be proven.
    pub fn is_named_by(&self, key: &NameKey) -> bool {
        self.names == key.check()
    }

    /// Sets or clears where a test of crash safety stops the program.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.disk.set_fault(fault);
    }
}
