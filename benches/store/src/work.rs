//! The work that every system does.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Instant;

use ebb_space::{ExampleId, Key};
use serde_json::{Value, json};

use crate::Outcome;

/// Bytes of an input.
pub const INPUT: usize = 64;
/// Logits of a record.
pub const LOGITS: usize = 10;
/// Records of a batch of insertions or deletions.
pub const BATCH: u64 = 1000;
/// Records of a draw, and of a batch of updates.
pub const SIZE: usize = 128;

/// A system with records `0..n`. A handle is what it finds a record by fastest.
pub trait Peer {
    fn insert(&mut self, ns: std::ops::Range<u64>) -> Outcome<()>;
    fn mark(&mut self, handles: &[u64], scores: &[f32]) -> Outcome<()>;
    fn rewrite(&mut self, handles: &[u64], logits: &[f32]) -> Outcome<()>;
    /// Handles of `SIZE` records; their inputs are appended to `inputs`.
    fn uniform(&mut self, step: u64, inputs: &mut Vec<u8>) -> Outcome<Vec<u64>>;
    fn weighted(&mut self, step: u64, inputs: &mut Vec<u8>) -> Outcome<Vec<u64>>;
    fn lookup(&mut self, id: &ExampleId, input: &mut Vec<u8>) -> Outcome<()>;
    fn delete(&mut self, ids: &[ExampleId]) -> Outcome<()>;
    fn compact(&mut self) -> Outcome<()>;
    fn file_bytes(&self) -> Outcome<u64>;
}

/// Made once: what is measured is not the making of keys.
pub fn key() -> Key {
    static KEY: LazyLock<Key> = LazyLock::new(|| Key::new(0, "store bench"));
    *KEY
}

/// Cheap, so that hashing contents is not what is measured.
pub fn id(n: u64) -> ExampleId {
    let mut base = [0; 16];
    base[..8].copy_from_slice(&key().draw(n).to_le_bytes());
    base[8..].copy_from_slice(&n.to_le_bytes());
    ExampleId {
        base,
        occurrence: 0,
        view: 0,
    }
}

pub fn input(n: u64) -> [u8; INPUT] {
    let mut out = [0; INPUT];
    for (word, i) in out.chunks_exact_mut(8).zip(1u64..) {
        word.copy_from_slice(&key().draw(i << 56 | n).to_le_bytes());
    }
    out
}

/// Logarithms of weights: standard normal.
fn scores(key: Key, ns: impl Iterator<Item = u64>) -> Vec<f32> {
    ns.map(|n| key.normal(n) as f32).collect()
}

pub fn describe(records: u64) -> Value {
    json!({
        "records": records, "input_bytes": INPUT, "logits": LOGITS, "batch": BATCH, "size": SIZE,
    })
}

fn open(system: &str, dir: &Path, records: u64, synced: bool) -> Outcome<Box<dyn Peer>> {
    Ok(match system {
        "ebb" => Box::new(crate::ours::Ours::open(dir, synced)?),
        "sqlite" => Box::new(crate::sqlite::Sqlite::open(dir, records, synced)?),
        other => return Err(format!("no system {other}").into()),
    })
}

pub fn phase(system: &str, phase: &str, n: u64, dir: &Path) -> Outcome<Value> {
    match phase {
        "fill" => fill(system, n, dir),
        "open" => reopen(system, n, dir),
        "synced" => synced(system, dir),
        other => Err(format!("no phase {other}").into()),
    }
}

fn rate(count: u64, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}

fn fill(system: &str, n: u64, dir: &Path) -> Outcome<Value> {
    let mut peer = open(system, dir, n, false)?;
    let mut out = json!({});
    let since = Instant::now();
    for first in (0..n).step_by(BATCH as usize) {
        peer.insert(first..(first + BATCH).min(n))?;
    }
    out["inserts_per_s"] = rate(n, since).into();

    // Handles are 0.. in order of insertion in both systems.
    let since = Instant::now();
    for first in (0..n).step_by(BATCH as usize) {
        let handles: Vec<u64> = (first..(first + BATCH).min(n)).collect();
        peer.mark(&handles, &scores(key(), handles.iter().copied()))?;
    }
    out["scores_in_order_per_s"] = rate(n, since).into();

    let draws = 200;
    let mut inputs = Vec::new();
    let since = Instant::now();
    for step in 0..draws {
        inputs.clear();
        let drawn = peer.uniform(step, &mut inputs)?;
        assert_eq!((drawn.len(), inputs.len()), (SIZE, SIZE * INPUT));
    }
    out["uniform_draws_per_s"] = rate(draws, since).into();
    let since = Instant::now();
    peer.weighted(0, &mut inputs)?;
    out["first_weighted_draw_s"] = since.elapsed().as_secs_f64().into();
    let since = Instant::now();
    let mut mean = 0.0;
    for step in 0..draws {
        inputs.clear();
        let drawn = peer.weighted(step, &mut inputs)?;
        assert_eq!((drawn.len(), inputs.len()), (SIZE, SIZE * INPUT));
        mean += drawn.iter().map(|&h| key().normal(h)).sum::<f64>();
    }
    out["weighted_draws_per_s"] = rate(draws, since).into();
    // Weights exp(z), z standard normal: the mean of z among the drawn is 1.
    out["mean_score_drawn"] = (mean / (draws as usize * SIZE) as f64).into();

    let updates = 200;
    let some = |step: u64| -> Vec<u64> {
        let mut random = key().sub("some").at(step).stream();
        (0..SIZE).map(|_| random.below(n)).collect()
    };
    let since = Instant::now();
    for step in 0..updates {
        let handles = some(step);
        peer.mark(&handles, &scores(key().at(step), handles.iter().copied()))?;
    }
    out["score_updates_per_s"] = rate(updates * SIZE as u64, since).into();
    let since = Instant::now();
    for step in 0..updates {
        let logits = [step as f32; SIZE * LOGITS];
        peer.rewrite(&some(step), &logits)?;
    }
    out["logit_updates_per_s"] = rate(updates * SIZE as u64, since).into();
    let since = Instant::now();
    for step in 0..updates {
        inputs.clear();
        let drawn = peer.weighted(1000 + step, &mut inputs)?;
        peer.mark(&drawn, &scores(key().at(step), drawn.iter().copied()))?;
        peer.rewrite(&drawn, &[step as f32; SIZE * LOGITS])?;
    }
    out["replay_steps_per_s"] = rate(updates, since).into();

    let lookups = 20_000;
    let mut random = key().sub("lookups").stream();
    let since = Instant::now();
    for _ in 0..lookups {
        let n = random.below(n);
        inputs.clear();
        peer.lookup(&id(n), &mut inputs)?;
        assert_eq!(inputs, input(n));
    }
    out["lookups_per_s"] = rate(lookups, since).into();
    Ok(out)
}

fn reopen(system: &str, n: u64, dir: &Path) -> Outcome<Value> {
    let before = resident()?;
    let since = Instant::now();
    let mut peer = open(system, dir, n, false)?;
    let mut out = json!({ "open_s": since.elapsed().as_secs_f64() });
    out["resident_bytes_open"] = (resident()?.saturating_sub(before)).into();
    let bytes = peer.file_bytes()?;
    out["file_bytes"] = bytes.into();
    out["file_bytes_per_record"] = (bytes as f64 / n as f64).into();
    let mut inputs = Vec::new();
    for step in 0..20 {
        peer.uniform(step, &mut inputs)?;
        peer.weighted(step, &mut inputs)?;
        inputs.clear();
    }
    let drawn = resident()?.saturating_sub(before);
    out["resident_bytes_drawing"] = drawn.into();
    out["resident_bytes_per_record"] = (drawn as f64 / n as f64).into();

    let gone = n / 100;
    let mut random = key().sub("gone").stream();
    let since = Instant::now();
    for _ in (0..gone).step_by(BATCH as usize) {
        let ids: Vec<ExampleId> = (0..BATCH.min(gone)).map(|_| id(random.below(n))).collect();
        peer.delete(&ids)?;
    }
    out["deletes_per_s"] = rate(gone, since).into();
    let since = Instant::now();
    peer.compact()?;
    out["compaction_s"] = since.elapsed().as_secs_f64().into();
    out["file_bytes_compacted"] = peer.file_bytes()?.into();
    Ok(out)
}

/// Every change synced: what a power cut must not take either.
fn synced(system: &str, dir: &Path) -> Outcome<Value> {
    let n = 50_000;
    let mut peer = open(system, dir, n, true)?;
    let mut out = json!({});
    let since = Instant::now();
    for first in (0..n).step_by(BATCH as usize) {
        peer.insert(first..first + BATCH)?;
    }
    out["synced_inserts_per_s"] = rate(n, since).into();
    let since = Instant::now();
    let batches = 100;
    for step in 0..batches {
        let mut random = key().sub("synced").at(step).stream();
        let handles: Vec<u64> = (0..SIZE).map(|_| random.below(n)).collect();
        peer.mark(&handles, &scores(key().at(step), handles.iter().copied()))?;
    }
    out["synced_update_batches_per_s"] = rate(batches, since).into();
    Ok(out)
}

/// Resident memory of this process, without the pages of files, which the system takes back at will.
fn resident() -> Outcome<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.ok_or("no RssAnon")?.parse::<u64>()? * 1024)
}
