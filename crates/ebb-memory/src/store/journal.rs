//! The journal: changes are written here, whole, before they are made in place.
//!
//! A frame is `magic, number, length, checksum of the body, checksum of these 20 bytes; body; end
//! mark`, and its body a list of plain writes ("these bytes at this place of this file", "so many
//! zeros"), so that carrying a frame out twice does no harm. A frame whose end mark is missing was
//! being written when the process died: nothing of it was acknowledged, and it is dropped. A frame
//! with an end mark and a wrong checksum is damage, and is refused.
//!
//! The file is as long as its room from the start and is emptied by overwriting, so that what it held
//! is gone from it, and no frame needs the file system to find a block.

use std::path::PathBuf;

use super::disk::Disk;
use super::row::{u32_at, u64_at};
use crate::{Error, Result};

const MAGIC: u32 = 0x4a42_4245; // "EBBJ"
const END: u32 = 0x444e_4521; // "!END"
const HEADER: usize = 24;

/// Which file a change is made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Rows,
    Marks,
    Logits,
    Features,
    Payload,
}

impl Part {
    pub const ALL: [Part; 5] = [
        Part::Rows,
        Part::Marks,
        Part::Logits,
        Part::Features,
        Part::Payload,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Part::Rows => "rows",
            Part::Marks => "marks",
            Part::Logits => "logits",
            Part::Features => "features",
            Part::Payload => "payload",
        }
    }
}

/// A change in place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Change<'a> {
    Write(Part, u64, &'a [u8]),
    Zero(Part, u64, u64),
}

/// Changes that are made together or not at all.
#[derive(Default)]
pub(crate) struct Frame {
    /// Room for the header, then the body.
    bytes: Vec<u8>,
}

impl Frame {
    pub fn new() -> Frame {
        Frame {
            bytes: vec![0; HEADER],
        }
    }

    pub fn write(&mut self, part: Part, at: u64, bytes: &[u8]) {
        self.head(part as u8, at, bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    pub fn zero(&mut self, part: Part, at: u64, len: u64) {
        if len > 0 {
            self.head(part as u8 | ZERO, at, len);
        }
    }

    fn head(&mut self, tag: u8, at: u64, len: u64) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(&at.to_le_bytes());
        self.bytes.extend_from_slice(&len.to_le_bytes());
    }

    pub fn changes(&self) -> Changes<'_> {
        Changes(&self.bytes[HEADER..])
    }

    /// Bytes it takes in the journal.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64 + 4
    }
}

const ZERO: u8 = 0x80;

/// The changes of a body, in their order; ends early, after an `Err`, where they make no sense.
pub(crate) struct Changes<'a>(&'a [u8]);

impl<'a> Iterator for Changes<'a> {
    type Item = std::result::Result<Change<'a>, ()>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let change = self.parse().ok_or(());
        if change.is_err() {
            self.0 = &[];
        }
        Some(change)
    }
}

impl<'a> Changes<'a> {
    fn parse(&mut self) -> Option<Change<'a>> {
        let (head, rest) = self.0.split_at_checked(17)?;
        let part = *Part::ALL.get(usize::from(head[0] & !ZERO))?;
        let (at, len) = (u64_at(head, 1), u64_at(head, 9));
        if head[0] & ZERO != 0 {
            self.0 = rest;
            return Some(Change::Zero(part, at, len));
        }
        let (bytes, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(Change::Write(part, at, bytes))
    }
}

pub(crate) struct Journal {
    disk: Disk,
    /// Length of the file.
    room: u64,
    /// Bytes in use, from the start.
    used: u64,
    /// Number of the next frame.
    next: u64,
    /// A part of a frame could not be taken back.
    torn: bool,
}

/// Bytes of a new journal.
pub(crate) const ROOM: u64 = 1 << 20;

impl Journal {
    pub fn create(path: PathBuf) -> Result<Journal> {
        let disk = Disk::create(path)?;
        disk.zero(0, ROOM)?;
        disk.sync()?;
        Ok(Journal {
            disk,
            room: ROOM,
            used: 0,
            next: 0,
            torn: false,
        })
    }

    /// Opens a journal that should be `room` bytes long, and returns the bodies of its frames; with
    /// `lenient` those before the first damage.
    pub fn open(path: PathBuf, room: u64, lenient: bool) -> Result<(Journal, Vec<Vec<u8>>)> {
        let disk = Disk::open(path)?;
        let len = disk.len()?;
        if len < room && !lenient {
            return Err(Error::Truncated {
                path: disk.path().to_owned(),
                expected: room,
                got: len,
            });
        }
        let mut journal = Journal {
            disk,
            room: len,
            used: 0,
            next: 0,
            torn: false,
        };
        let mut bodies = Vec::new();
        loop {
            match journal.next_body() {
                Ok(Some(body)) => bodies.push(body),
                Ok(None) => break,
                Err(_) if lenient => break,
                Err(e) => return Err(e),
            }
        }
        // What a torn frame left, or an emptying that was cut short, lies behind.
        journal.used = journal.last_nonzero()?;
        Ok((journal, bodies))
    }

    fn next_body(&mut self) -> Result<Option<Vec<u8>>> {
        let at = self.used;
        if self.room - at < (HEADER + 4) as u64 {
            return Ok(None);
        }
        let mut header = [0; HEADER];
        self.disk.read(at, &mut header)?;
        // An entry begins with a byte that is not zero. Where there were entries, emptying has begun,
        // which takes the first byte first: all of them are in place.
        if header[0] == 0 {
            return Ok(None);
        }
        let damaged = |what: &str| Error::Corrupt {
            path: self.disk.path().to_owned(),
            what: format!("{what}, at byte {at}"),
        };
        let whole = crc32fast::hash(&header[..20]) == u32_at(&header, 20);
        if !whole {
            // Torn while its first bytes were written: then nothing stands behind it.
            return match self.zero_from(at + HEADER as u64)? {
                true => Ok(None),
                false => Err(damaged(
                    "the head of a journal entry is not what was written",
                )),
            };
        }
        let (number, len) = (u64_at(&header, 4), u64::from(u32_at(&header, 12)));
        let end = at + HEADER as u64 + len;
        if u32_at(&header, 0) != MAGIC || (at > 0 && number != self.next) || end + 4 > self.room {
            return Err(damaged("a journal entry does not follow the one before"));
        }
        let mut body = vec![0; len as usize + 4];
        self.disk.read(at + HEADER as u64, &mut body)?;
        let mark = u32_at(&body, len as usize);
        body.truncate(len as usize);
        if mark != END {
            // Torn: the mark's last bytes are missing, and so is all that would stand behind it.
            let begun = (0..4).any(|bytes| mark == END & ((1 << (8 * bytes)) - 1));
            return match begun && self.zero_from(end + 4)? {
                true => Ok(None),
                false => Err(damaged("a journal entry does not end as it was written")),
            };
        }
        if crc32fast::hash(&body) != u32_at(&header, 16) || Changes(&body).any(|c| c.is_err()) {
            return Err(damaged("a journal entry is not what was written"));
        }
        (self.used, self.next) = (end + 4, number + 1);
        Ok(Some(body))
    }

    fn zero_from(&self, at: u64) -> Result<bool> {
        Ok(self.nonzero_since(at)?.is_none())
    }

    fn last_nonzero(&self) -> Result<u64> {
        Ok(self.nonzero_since(self.used)?.unwrap_or(self.used))
    }

    /// The end of the last byte at or after `at` that is not zero.
    fn nonzero_since(&self, mut at: u64) -> Result<Option<u64>> {
        let mut last = None;
        let mut piece = vec![0; super::disk::PIECE];
        while at < self.room {
            let len = (self.room - at).min(piece.len() as u64) as usize;
            self.disk.read(at, &mut piece[..len])?;
            if let Some(found) = piece[..len].iter().rposition(|&byte| byte != 0) {
                last = Some(at + found as u64 + 1);
            }
            at += len as u64;
        }
        Ok(last)
    }

    /// The changes of a body that `open` returned.
    pub fn changes(body: &[u8]) -> Changes<'_> {
        Changes(body)
    }

    pub fn room(&self) -> u64 {
        self.room
    }

    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Whether nothing can be appended any more.
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// Whether `frame` finds room.
    pub fn fits(&self, frame: &Frame) -> bool {
        self.used + frame.len() <= self.room
    }

    /// Writes a frame; when this returns it survives the process, and with `sync` the machine.
    pub fn append(&mut self, frame: &mut Frame, sync: bool) -> Result<()> {
        debug_assert!(self.fits(frame), "the store makes room first");
        let bytes = &mut frame.bytes;
        let body = bytes.len() - HEADER;
        let check = crc32fast::hash(&bytes[HEADER..]);
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.next.to_le_bytes());
        bytes[12..16].copy_from_slice(&(body as u32).to_le_bytes());
        bytes[16..20].copy_from_slice(&check.to_le_bytes());
        let head = crc32fast::hash(&bytes[..20]);
        bytes[20..24].copy_from_slice(&head.to_le_bytes());
        bytes.extend_from_slice(&END.to_le_bytes());
        let len = bytes.len() as u64;
        let mut written = self.disk.write(self.used, bytes);
        bytes.truncate(len as usize - 4);
        if written.is_ok() && sync {
            written = self.disk.sync();
        }
        if written.is_err() {
            // A part of a frame must not lie under the next one.
            self.torn = self.disk.zero(self.used, len).is_err();
            return written;
        }
        self.used += len;
        self.next += 1;
        Ok(())
    }

    /// Overwrites all entries. What they say must be in place, and synced, before.
    pub fn empty(&mut self) -> Result<()> {
        // Cut short, its first entries are gone and the others no longer count.
        self.torn = true;
        self.disk.zero(0, self.used)?;
        self.disk.sync()?;
        (self.used, self.torn) = (0, false);
        Ok(())
    }

    /// Makes the (empty) journal at least `room` bytes long.
    pub fn grow(&mut self, room: u64) -> Result<()> {
        if room > self.room {
            self.disk.zero(self.room, room - self.room)?;
            self.disk.sync()?;
            self.room = room;
        }
        Ok(())
    }
}
