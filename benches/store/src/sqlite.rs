//! SQLite, as one would use it for this: integer keys in order of insertion, an index on the id,
//! a write-ahead log, and deleted bytes overwritten.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use ebb_space::ExampleId;
use rusqlite::{Connection, params};

use crate::Outcome;
use crate::work::{INPUT, LOGITS, Peer, SIZE, id, input, key};

pub struct Sqlite {
    db: Connection,
    dir: PathBuf,
    records: u64,
    /// Larger than all weights: known to the user, who set them.
    heaviest: f64,
}

impl Sqlite {
    pub fn open(dir: &Path, records: u64, synced: bool) -> Outcome<Sqlite> {
        let db = Connection::open(dir.join("records.db"))?;
        let synchronous = if synced { "FULL" } else { "NORMAL" };
        db.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};
             PRAGMA secure_delete = ON; PRAGMA cache_size = -262144;
             PRAGMA wal_autocheckpoint = 16384;
             CREATE TABLE IF NOT EXISTS record (
                 n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, label INTEGER, experience INTEGER,
                 task INTEGER, step INTEGER, input BLOB, logits BLOB, score REAL, loss REAL,
                 count INTEGER);"
        ))?;
        // About the largest of so many normal scores; a few heavier ones would only be drawn less.
        let top: f64 = if records > 1_000_000 { 5.6 } else { 5.2 };
        let heaviest = top.exp();
        Ok(Sqlite {
            db,
            dir: dir.to_owned(),
            records,
            heaviest,
        })
    }
}

fn blob(id: &ExampleId) -> [u8; 24] {
    let mut out = [0; 24];
    out[..16].copy_from_slice(&id.base);
    out[16..20].copy_from_slice(&id.occurrence.to_le_bytes());
    out[20..].copy_from_slice(&id.view.to_le_bytes());
    out
}

impl Peer for Sqlite {
    fn insert(&mut self, ns: std::ops::Range<u64>) -> Outcome<()> {
        let logits = [0u8; LOGITS * 4];
        let change = self.db.transaction()?;
        {
            let mut insert = change.prepare_cached(
                "INSERT INTO record VALUES (?, ?, 0, 0, 0, 0, ?, ?, 0.0, NULL, 0)",
            )?;
            for n in ns {
                insert.execute(params![n as i64, blob(&id(n)), input(n), logits])?;
            }
        }
        Ok(change.commit()?)
    }

    fn mark(&mut self, handles: &[u64], scores: &[f32]) -> Outcome<()> {
        let change = self.db.transaction()?;
        {
            let mut update = change
                .prepare_cached("UPDATE record SET score = ?, loss = 1.0, count = 1 WHERE n = ?")?;
            for (&n, &score) in handles.iter().zip(scores) {
                update.execute(params![f64::from(score), n as i64])?;
            }
        }
        Ok(change.commit()?)
    }

    fn rewrite(&mut self, handles: &[u64], logits: &[f32]) -> Outcome<()> {
        let change = self.db.transaction()?;
        {
            let mut update =
                change.prepare_cached("UPDATE record SET logits = ?, step = 1 WHERE n = ?")?;
            for (&n, logits) in handles.iter().zip(logits.chunks_exact(LOGITS)) {
                let bytes: Vec<u8> = logits.iter().flat_map(|v| v.to_le_bytes()).collect();
                update.execute(params![bytes, n as i64])?;
            }
        }
        Ok(change.commit()?)
    }

    /// Random keys, each once: the fastest way while the keys are dense.
    fn uniform(&mut self, step: u64, inputs: &mut Vec<u8>) -> Outcome<Vec<u64>> {
        let mut random = key().sub("uniform").at(step).stream();
        let mut select = self
            .db
            .prepare_cached("SELECT input FROM record WHERE n = ?")?;
        let (mut drawn, mut once) = (Vec::new(), HashSet::new());
        while drawn.len() < SIZE {
            let n = random.below(self.records);
            if once.insert(n) {
                let mut rows = select.query([n as i64])?;
                if let Some(row) = rows.next()? {
                    inputs.extend_from_slice(row.get_ref(0)?.as_blob()?);
                    drawn.push(n);
                }
            }
        }
        Ok(drawn)
    }

    /// Random keys, accepted with probability weight / heaviest, each once: exact, and far faster
    /// than sorting the table by a random key.
    fn weighted(&mut self, step: u64, inputs: &mut Vec<u8>) -> Outcome<Vec<u64>> {
        let mut random = key().sub("weighted").at(step).stream();
        let mut select = self
            .db
            .prepare_cached("SELECT score, input FROM record WHERE n = ?")?;
        let (mut drawn, mut once) = (Vec::new(), HashSet::new());
        while drawn.len() < SIZE {
            let n = random.below(self.records);
            let level = random.uniform() * self.heaviest;
            let mut rows = select.query([n as i64])?;
            if let Some(row) = rows.next()?
                && row.get::<_, f64>(0)?.exp() > level
                && once.insert(n)
            {
                inputs.extend_from_slice(row.get_ref(1)?.as_blob()?);
                drawn.push(n);
            }
        }
        Ok(drawn)
    }

    fn lookup(&mut self, id: &ExampleId, input: &mut Vec<u8>) -> Outcome<()> {
        let mut select = self
            .db
            .prepare_cached("SELECT input FROM record WHERE id = ?")?;
        let mut rows = select.query([blob(id)])?;
        let row = rows.next()?.ok_or("lost")?;
        input.extend_from_slice(row.get_ref(0)?.as_blob()?);
        assert_eq!(input.len(), INPUT);
        Ok(())
    }

    fn delete(&mut self, ids: &[ExampleId]) -> Outcome<()> {
        let change = self.db.transaction()?;
        {
            let mut delete = change.prepare_cached("DELETE FROM record WHERE id = ?")?;
            for id in ids {
                delete.execute([blob(id)])?;
            }
        }
        Ok(change.commit()?)
    }

    fn compact(&mut self) -> Outcome<()> {
        Ok(self
            .db
            .execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")?)
    }

    fn file_bytes(&self) -> Outcome<u64> {
        let mut sum = 0;
        for entry in fs::read_dir(&self.dir)? {
            sum += entry?.metadata()?.len();
        }
        Ok(sum)
    }
}
