//! Reading a ledger, and saying whether it is the one that was written.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::line::{Chain, LEDGER_VERSION, MAX_LINE, version_of};
use super::{Digest, ENTRIES, Entry, HEAD, Head};
use crate::error::{At, Error, Result, supported};

/// What a ledger came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The last whole entry that hangs together with all before it.
    pub head: Head,
    /// Up to where the directory says that it was acknowledged.
    pub acknowledged: Head,
    /// Up to where a head from outside fixes every entry; `None` if none was given. Only to here
    /// is a rewrite ruled out.
    pub fixed: Option<u64>,
    /// Bytes after the last whole entry: a crash left them.
    pub torn_bytes: u64,
}

/// What is wrong with a ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// An entry does not follow from the one before it.
    #[error(
        "entry {entry} is not what was written: {why}. This or an entry before it was changed, \
         taken out, put in or moved"
    )]
    Changed {
        /// Its number.
        entry: u64,
        /// What does not fit.
        why: String,
    },
    /// Entries are missing at the end.
    #[error("it ends after {found} entries where {known} were acknowledged: its tail was cut")]
    Cut {
        /// Entries that are there.
        found: u64,
        /// Entries that the head knows.
        known: u64,
    },
    /// It hangs together and is another ledger.
    #[error(
        "its entry {entry} has another hash than the head: the ledger was written anew, or the \
         head belongs to another ledger"
    )]
    Rewritten {
        /// The number of the head's last entry.
        entry: u64,
    },
    /// The file `head` is missing or is no head.
    #[error("its file `head` {0}")]
    Head(&'static str),
}

/// A head with the length of the file at it: what the file `head` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub head: Head,
    pub bytes: u64,
}

impl Mark {
    pub fn text(&self) -> String {
        let Head { count, hash } = self.head;
        format!("ebb-ledger-head 1 {count} {} {hash}\n", self.bytes)
    }

    /// # Errors
    /// [`Error::Ledger`] if it is not there or not as it was written; [`Error::Newer`],
    /// [`Error::Io`].
    pub fn read(directory: &Path) -> Result<Mark> {
        let path = directory.join(HEAD);
        let bad = |why| Error::Ledger {
            path: directory.into(),
            problem: Problem::Head(why),
        };
        let file = match File::open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(bad("is missing")),
            other => other.at("open", &path)?,
        };
        let mut text = String::new();
        let read = file.take(256).read_to_string(&mut text);
        if read.is_err() {
            return Err(bad("is not as it was written"));
        }
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let ["ebb-ledger-head", version, count, bytes, hash] = words[..] else {
            return Err(bad("is not as it was written"));
        };
        let mark = || {
            Some(Mark {
                head: Head {
                    count: count.parse().ok()?,
                    hash: hash.parse().ok()?,
                },
                bytes: bytes.parse().ok()?,
            })
        };
        match (version, mark()) {
            ("1", Some(mark)) if mark.text() == text => Ok(mark),
            ("1", _) => Err(bad("is not as it was written")),
            (newer, _) => match newer.parse() {
                Ok(found) if found > 1 => supported(&path, found, 1).and(Err(bad("is newer"))),
                _ => Err(bad("is not as it was written")),
            },
        }
    }
}

/// How far a file hangs together.
pub(super) struct Scan {
    pub head: Head,
    pub bytes: u64,
    /// Why it ends there, unless the file does.
    pub fault: Option<String>,
    pub rest: u64,
    /// The hash of the last entry, and the length of the file, at the counts asked for.
    pub points: Vec<Option<(Digest, u64)>>,
}

/// Reads entries for as long as they follow from one another, noting where `counts` are.
pub(super) fn scan(
    directory: &Path,
    counts: &[u64],
    mut take: impl FnMut(u64, u64, Entry) -> Result<()>,
) -> Result<Scan> {
    let path = directory.join(ENTRIES);
    let file = File::open(&path).at("open", &path)?;
    let length = file.metadata().at("inspect", &path)?.len();
    // What is appended meanwhile is not looked at.
    let mut reader = BufReader::with_capacity(1 << 18, file.take(length));
    let chain = Chain::new();
    let mut scan = Scan {
        head: Head::EMPTY,
        bytes: 0,
        fault: None,
        rest: 0,
        points: vec![None; counts.len()],
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut reader).take(MAX_LINE as u64);
        let read = limited.read_until(b'\n', &mut line).at("read", &path)?;
        if read == 0 {
            break;
        }
        if line.last() != Some(&b'\n') {
            let why = match read == MAX_LINE {
                true => "its line is longer than any that is written",
                false => "its line has no end",
            };
            scan.fault = Some(why.into());
            break;
        }
        match chain.read(&scan.head, &line) {
            Ok((at, entry, head)) => {
                if let Entry::Opened { format_version, .. } = &entry {
                    supported(&path, *format_version, LEDGER_VERSION)?;
                }
                take(scan.head.count, at, entry)?;
                scan.head = head;
                scan.bytes += line.len() as u64;
                for (point, count) in scan.points.iter_mut().zip(counts) {
                    if *count == head.count {
                        *point = Some((head.hash, scan.bytes));
                    }
                }
            }
            Err(why) => {
                if let Some(version) = version_of(&line).filter(|_| scan.head.count == 0) {
                    supported(&path, version, LEDGER_VERSION)?;
                }
                scan.fault = Some(why);
                break;
            }
        }
    }
    scan.rest = length.saturating_sub(scan.bytes);
    Ok(scan)
}

/// Holds a scan against the file `head` and a head from outside.
pub(super) fn judge(
    directory: &Path,
    scan: &Scan,
    mark: &Mark,
    outside: Option<&Head>,
) -> Result<Checked> {
    let problem = |problem| Error::Ledger {
        path: directory.into(),
        problem,
    };
    let known = [Some(&mark.head), outside];
    for (head, point) in known.into_iter().flatten().zip(&scan.points) {
        match point {
            Some((hash, _)) if *hash == head.hash => {}
            Some(_) => {
                return Err(problem(Problem::Rewritten {
                    entry: head.count.saturating_sub(1),
                }));
            }
            None => {
                let found = scan.head.count;
                return Err(problem(match &scan.fault {
                    // A file that is too short was cut, be it within an entry.
                    Some(why) if scan.bytes + scan.rest >= mark.bytes => Problem::Changed {
                        entry: found,
                        why: why.clone(),
                    },
                    _ => Problem::Cut {
                        found,
                        known: head.count,
                    },
                }));
            }
        }
    }
    if scan.points.first() != Some(&Some((mark.head.hash, mark.bytes))) {
        let why = "gives another length than its entries have";
        return Err(problem(Problem::Head(why)));
    }
    Ok(Checked {
        head: scan.head,
        acknowledged: mark.head,
        fixed: outside.map(|head| head.count),
        torn_bytes: scan.rest,
    })
}

/// Checks every byte of the ledger in `directory`, and that it is the one that `outside` belongs
/// to. Takes no lock and changes nothing. A crash's torn tail is no error; see [`Checked`].
///
/// # Errors
/// [`Error::Ledger`] says what was done to it; [`Error::Newer`], [`Error::Io`].
pub fn verify(directory: &Path, outside: Option<&Head>) -> Result<Checked> {
    // The head first: entries that are appended meanwhile do not make it wrong.
    let mark = Mark::read(directory)?;
    let mut counts = vec![mark.head.count];
    counts.extend(outside.map(|head| head.count));
    let scan = scan(directory, &counts, |_, _, _| Ok(()))?;
    judge(directory, &scan, &mark, outside)
}

/// Reads every entry with its number and time, oldest first, and checks the ledger as
/// [`verify`] does. Entries are handed out before the check is complete.
///
/// # Errors
/// Those of [`verify`], and those of `take`.
pub fn for_each(
    directory: &Path,
    take: impl FnMut(u64, u64, Entry) -> Result<()>,
) -> Result<Checked> {
    let mark = Mark::read(directory)?;
    let scan = scan(directory, &[mark.head.count], take)?;
    judge(directory, &scan, &mark, None)
}
