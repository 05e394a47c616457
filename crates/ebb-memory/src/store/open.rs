//! Creating and opening: the lock, the journal carried out, and what of the records is in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::path::Path;

use ebb_space::Key;

use super::disk::{self, Disk, failed};
use super::extents::Extents;
use super::head::{self, Head};
use super::index::Index;
use super::journal::{self, Journal, Part};
use super::lay::stride;
use super::row::{MARK, Marks, ROW, Row, Slot};
use super::{Parts, Safety, Seat, Shape, State, Store};
use crate::{Error, Result};

const LOCK: &str = "lock";
const JOURNAL: &str = "journal";

impl Store {
    /// A new store in `dir`, which is made, or is empty. Its draws follow `key`.
    ///
    /// # Errors
    /// [`Error::Config`] for a width of 0; [`Error::NotEmpty`]; [`Error::Locked`]; [`Error::Io`].
    pub fn create(dir: &Path, shape: Shape, key: Key, safety: Safety) -> Result<Store> {
        shape.check()?;
        fs::create_dir_all(dir).map_err(|e| failed("create", dir, e))?;
        let mut entries = fs::read_dir(dir).map_err(|e| failed("read", dir, e))?;
        if entries.next().is_some() {
            return Err(Error::NotEmpty(dir.to_owned()));
        }
        let lock = locked(dir)?;
        let head = Head {
            format_version: head::FORMAT,
            shape,
            key: crate::file::fingerprint(key),
            generation: 0,
            room: journal::ROOM,
            slots: 0,
            payload: 0,
            seen: 0,
        };
        Parts::each(&shape, |part| Disk::create(Parts::path(dir, part, 0)))?;
        Journal::create(dir.join(JOURNAL))?;
        head.write(dir)?;
        Store::assemble(dir, lock, key, safety, false)
    }

    /// Opens a store, with the key it was made with. Carries out what its journal says; reads 88 bytes
    /// a record, and no payload.
    ///
    /// A damaged row or marks do not keep the others from being read: see
    /// [`damaged`](Store::damaged).
    ///
    /// # Errors
    /// [`Error::NotAStore`], [`Error::Version`], [`Error::OtherKey`], [`Error::Truncated`] for a file
    /// that is cut short, [`Error::Corrupt`] for a damaged head or journal, [`Error::Locked`],
    /// [`Error::Io`].
    pub fn open(dir: &Path, key: Key, safety: Safety) -> Result<Store> {
        Head::read(dir)?;
        Store::assemble(dir, locked(dir)?, key, safety, false)
    }

    /// Opens what is left of a store whose files were cut short or whose journal is damaged: records
    /// whose bytes are gone answer with an error, the others are whole. Changes behind the damage in
    /// the journal are lost. [`compact`](Store::compact) then makes it a sound store.
    ///
    /// # Errors
    /// Those of [`open`](Store::open) but for the cut file and the damaged journal.
    pub fn salvage(dir: &Path, key: Key, safety: Safety) -> Result<Store> {
        Head::read(dir)?;
        Store::assemble(dir, locked(dir)?, key, safety, true)
    }

    pub(super) fn assemble(
        dir: &Path,
        lock: File,
        key: Key,
        safety: Safety,
        lenient: bool,
    ) -> Result<Store> {
        let head = Head::read(dir)?;
        if crate::file::fingerprint(key) != head.key {
            return Err(Error::OtherKey(dir.to_owned()));
        }
        head.shape.check()?;
        let mut parts = Parts::each(&head.shape, |part| {
            Disk::open(Parts::path(dir, part, head.generation))
        })?;
        let (journal, bodies) = Journal::open(dir.join(JOURNAL), head.room, lenient)?;
        if !lenient {
            whole(&head, &parts)?;
        }
        for change in bodies
            .iter()
            .flat_map(|body| Journal::changes(body))
            .flatten()
        {
            match parts.reaches(change)? {
                true => parts.apply(change)?,
                false if lenient => {}
                false => {
                    return Err(Error::Corrupt {
                        path: dir.join(JOURNAL),
                        what: "it changes what is not there".into(),
                    });
                }
            }
        }
        let state = State::read(&head, &parts)?;
        parts.remap()?;
        let mut store = Store {
            dir: dir.to_owned(),
            _lock: lock,
            safety,
            key: key.sub("draw"),
            head,
            parts,
            journal,
            state,
            weights: None,
            unfinished: false,
        };
        store.sweep()?;
        store.settle(0)?;
        Ok(store)
    }

    /// Removes what an interrupted compaction left: the files of another generation.
    pub(super) fn sweep(&self) -> Result<()> {
        let entries = fs::read_dir(&self.dir).map_err(|e| failed("read", &self.dir, e))?;
        for entry in entries {
            let path = entry.map_err(|e| failed("read", &self.dir, e))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some((part, generation)) = name.and_then(|name| name.rsplit_once('.')) else {
                continue;
            };
            let ours = Part::ALL.iter().any(|p| p.name() == part);
            let other = generation
                .parse::<u64>()
                .is_ok_and(|g| g != self.head.generation);
            if ours && other {
                Disk::shred(&path)?;
            }
        }
        Ok(())
    }
}

/// The lock, taken; it goes when the file is closed, also by a kill.
fn locked(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    let file = options.open(&path).map_err(|e| failed("open", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Locked(dir.to_owned())),
        Err(fs::TryLockError::Error(e)) => Err(failed("lock", &path, e)),
    }
}

/// Refuses files that are shorter than they were when they were last synced.
fn whole(head: &Head, parts: &Parts) -> Result<()> {
    let slots = u64::from(head.slots);
    for (part, expected) in [
        (Part::Rows, slots * ROW as u64),
        (Part::Marks, slots * MARK as u64),
        (
            Part::Logits,
            slots * head.shape.logits.map_or(0, |w| stride(w) as u64),
        ),
        (
            Part::Features,
            slots * head.shape.features.map_or(0, |w| stride(w) as u64),
        ),
        (Part::Payload, head.payload),
    ] {
        if expected > 0 {
            let disk = parts.get(part)?;
            let got = disk.len()?;
            if got < expected {
                return Err(Error::Truncated {
                    path: disk.path().to_owned(),
                    expected,
                    got,
                });
            }
        }
    }
    Ok(())
}

/// Shows every whole entry of `N` bytes of a file to `seen`, in order.
pub(super) fn each_slot<const N: usize>(
    disk: &Disk,
    mut seen: impl FnMut(u32, &[u8; N]) -> Result<()>,
) -> Result<()> {
    let slots = u32::try_from(disk.len()? / N as u64).unwrap_or(u32::MAX);
    let many = (disk::PIECE / N) as u32;
    let mut piece = vec![0; disk::PIECE];
    let mut slot = 0;
    while slot < slots {
        let count = many.min(slots - slot);
        let bytes = &mut piece[..count as usize * N];
        disk.read(u64::from(slot) * N as u64, bytes)?;
        for entry in bytes.as_chunks().0 {
            seen(slot, entry)?;
            slot += 1;
        }
    }
    Ok(())
}

impl State {
    /// Reads rows and marks.
    pub(super) fn read(head: &Head, parts: &Parts) -> Result<State> {
        let rows = parts.get(Part::Rows)?;
        let slots = rows.len()? / ROW as u64;
        let too_large = |_| Error::TooLarge {
            capacity: slots as usize,
            record_bytes: size_of::<Seat>(),
        };
        let mut seats: Vec<Seat> = Vec::new();
        seats
            .try_reserve_exact(usize::try_from(slots).unwrap_or(usize::MAX))
            .map_err(too_large)?;
        let mut damaged = BTreeMap::new();
        let mut free = BTreeSet::new();
        let (mut seen, mut end, mut taken) = (head.seen, 0, 0);
        each_slot::<ROW>(rows, |slot, bytes| {
            seats.push(match Row::decode(slot, bytes) {
                Slot::Live(row) => {
                    seen = seen.max(row.meta.arrival.saturating_add(1));
                    end = end.max(row.extent.at.saturating_add(u64::from(row.extent.len)));
                    taken += u64::from(row.extent.len);
                    Seat::new(row.meta.id.mix())
                }
                Slot::Free => {
                    free.insert(slot);
                    Seat::VACANT
                }
                Slot::Damaged => {
                    damaged.insert(slot, Part::Rows.name());
                    Seat::VACANT
                }
            });
            Ok(())
        })?;
        let mut scores = vec![f32::NEG_INFINITY; seats.len()];
        let mut marked = 0;
        each_slot::<MARK>(parts.get(Part::Marks)?, |slot, bytes| {
            let at = slot as usize;
            match (seats.get_mut(at), Marks::decode(slot, bytes)) {
                (Some(seat), Slot::Live(marks)) if seat.is_live() => {
                    scores[at] = marks.score;
                    seat.set(&marks);
                }
                (Some(seat), _) if seat.is_live() => {
                    damaged.insert(slot, Part::Marks.name());
                }
                _ => {}
            }
            marked = slot + 1;
            Ok(())
        })?;
        let unmarked = seats.iter().zip(0u32..).skip(marked as usize);
        for (_, slot) in unmarked.filter(|(seat, _)| seat.is_live()) {
            damaged.insert(slot, Part::Marks.name());
        }

        let live = seats.iter().zip(&scores).zip(0u32..);
        let live = live.filter(|((seat, _), _)| seat.is_live());
        let index = Index::build(live.map(|((seat, &score), slot)| (seat.digest, slot, score)));
        let any_row_lost = damaged.values().any(|what| *what == Part::Rows.name());
        let extents = if any_row_lost || taken >= end {
            // Whose bytes lie between is not known, or nobody's do.
            let file = parts.get(Part::Payload)?.len()?;
            Extents::ending(if any_row_lost { end.max(file) } else { end })
        } else {
            let mut live = Vec::new();
            each_slot::<ROW>(rows, |slot, bytes| {
                if let Slot::Live(row) = Row::decode(slot, bytes) {
                    live.push(row.extent);
                }
                Ok(())
            })?;
            Extents::between(live, end, head.shape.unit())
        };
        Ok(State {
            index,
            seats,
            free,
            waiting: Vec::new(),
            extents,
            damaged,
            seen,
        })
    }
}
