//! What a store of pages (redb) writes for small changes and keeps of what was deleted, and whether
//! features are better read through a memory map.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use redb::{Database, ReadableDatabase, TableDefinition};
use serde_json::{Value, json};

use crate::Outcome;
use crate::ours::Ours;
use crate::work::{Peer, SIZE, id, input, key};

const N: u64 = 100_000;
const INPUTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("inputs");
const MARKS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("marks");

/// 100,000 records, synced batches: bytes handed to the file system, seconds, and what a scan finds of
/// deleted inputs.
pub fn measure(dir: &Path) -> Outcome<Value> {
    let (one, two) = (dir.join("redb"), dir.join("ebb"));
    fs::create_dir_all(&one)?;
    fs::create_dir_all(&two)?;
    let mut db = Database::create(one.join("records.redb"))?;
    let mut store = Ours::open(&two, true)?;
    let gone: Vec<u64> = (0..N).filter(|n| n % 10 == 3).collect();
    let batches = |act: &mut dyn FnMut(u64) -> Outcome<()>, count: u64| -> Outcome<Value> {
        let (since, before) = (Instant::now(), written()?);
        (0..count).try_for_each(act)?;
        Ok(json!({ "seconds": since.elapsed().as_secs_f64(), "bytes": written()? - before }))
    };
    let some = |step: u64| -> Vec<u64> {
        let mut random = key().sub("pages").at(step).stream();
        (0..SIZE).map(|_| random.below(N)).collect()
    };
    let ids = |ns: &[u64]| -> Vec<_> { ns.iter().map(|&n| id(n)).collect() };

    let redb = json!({
        "insert": batches(&mut |batch| {
            let change = db.begin_write()?;
            {
                let mut inputs = change.open_table(INPUTS)?;
                let mut marks = change.open_table(MARKS)?;
                for n in batch * 1000..(batch + 1) * 1000 {
                    inputs.insert(&id(n).base[..], &input(n)[..])?;
                    marks.insert(&id(n).base[..], &[0; 12][..])?;
                }
            }
            Ok(change.commit()?)
        }, N / 1000)?,
        "update": batches(&mut |step| {
            let change = db.begin_write()?;
            {
                let mut marks = change.open_table(MARKS)?;
                for n in some(step) {
                    marks.insert(&id(n).base[..], &[step as u8; 12][..])?;
                }
            }
            Ok(change.commit()?)
        }, 100)?,
        "delete": batches(&mut |_| {
            let change = db.begin_write()?;
            {
                let mut inputs = change.open_table(INPUTS)?;
                let mut marks = change.open_table(MARKS)?;
                for &n in &gone {
                    inputs.remove(&id(n).base[..])?;
                    marks.remove(&id(n).base[..])?;
                }
            }
            Ok(change.commit()?)
        }, 1)?,
        "found_after_delete": found(&one, &gone)?,
        "compact": batches(&mut |_| Ok(db.compact().map(drop)?), 1)?,
        "found_after_compaction": found(&one, &gone)?,
        "left": db.begin_read()?.open_table(INPUTS).map(|t| {
            redb::ReadableTableMetadata::len(&t).unwrap_or(0)
        })?,
    });
    drop(db);
    let ebb = json!({
        "insert": batches(&mut |batch| store.insert(batch * 1000..(batch + 1) * 1000), N / 1000)?,
        "update": batches(&mut |step| {
            let handles = some(step);
            store.mark(&handles, &[0.5; SIZE])
        }, 100)?,
        "delete": batches(&mut |_| store.delete(&ids(&gone)), 1)?,
        "found_after_delete": found(&two, &gone)?,
        "compact": batches(&mut |_| store.compact(), 1)?,
        "found_after_compaction": found(&two, &gone)?,
    });
    Ok(json!({ "records": N, "deleted": gone.len(), "redb": redb, "ebb": ebb }))
}

/// Bytes that this process wrote so far.
fn written() -> Outcome<u64> {
    let text = fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    Ok(line.ok_or("no wchar")?.parse()?)
}

/// How many of the deleted inputs stand in some file, by their first 16 bytes.
fn found(dir: &Path, gone: &[u64]) -> Outcome<usize> {
    let plants: std::collections::HashSet<[u8; 16]> = gone
        .iter()
        .map(|&n| {
            let mut head = [0; 16];
            head.copy_from_slice(&input(n)[..16]);
            head
        })
        .collect();
    let mut seen = std::collections::HashSet::new();
    for entry in fs::read_dir(dir)? {
        let bytes = fs::read(entry?.path())?;
        seen.extend(
            bytes
                .array_windows::<16>()
                .filter(|w| plants.contains(*w))
                .copied(),
        );
    }
    Ok(seen.len())
}

/// Random rows of 512 values, read at their places and through a map, from a file that is in the page
/// cache.
pub fn features(dir: &Path) -> Outcome<Value> {
    let (rows, width) = (200_000u64, 512 * 4);
    let path = dir.join("features");
    let mut file = File::create(&path)?;
    for n in 0..rows {
        file.write_all(&[n as u8; 512 * 4])?;
    }
    drop(file);
    let file = File::open(&path)?;
    // SAFETY: nothing else writes the file.
    let map = unsafe { memmap2::Mmap::map(&file)? };
    let reads = 200_000;
    let row = |read: u64| key().sub("rows").draw(read) % rows;
    let mut out = vec![0u8; width];
    let mut turns = Vec::new();
    let mut sum = 0u64;
    for _ in 0..5 {
        let since = Instant::now();
        for read in 0..reads {
            file.read_exact_at(&mut out, row(read) * width as u64)?;
            sum += u64::from(out[7]);
        }
        let placed = since.elapsed().as_secs_f64() * 1e9 / reads as f64;
        let since = Instant::now();
        for read in 0..reads {
            let at = row(read) as usize * width;
            out.copy_from_slice(&map[at..at + width]);
            sum += u64::from(out[7]);
        }
        let mapped = since.elapsed().as_secs_f64() * 1e9 / reads as f64;
        turns.push(json!({ "read_ns": placed, "mapped_ns": mapped }));
    }
    Ok(json!({ "rows": rows, "width": 512, "turns": turns, "check": sum }))
}
