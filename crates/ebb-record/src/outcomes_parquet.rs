//! `outcomes.parquet`: the outcomes of a finished run, one row an example and evaluation.
//!
//! `evaluation` counts the evaluations; an example id is `base` (16 bytes), `occurrence`, `view`.

use std::path::Path;
use std::sync::Arc;

use ebb_space::ExampleId;
use parquet::data_type::{
    BoolType, FixedLenByteArray, FixedLenByteArrayType, FloatType, Int32Type, Int64Type,
};

use crate::columns::{ColumnFile, ColumnReader, SEGMENTS_KEY};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::outcomes::{OUTCOMES_VERSION, Outcomes};

const SCHEMA: &str = "message outcomes {
    REQUIRED INT32 evaluation;
    REQUIRED INT64 step;
    REQUIRED INT32 after;
    REQUIRED INT32 set (INTEGER(32,false));
    REQUIRED FIXED_LEN_BYTE_ARRAY(16) base;
    REQUIRED INT32 occurrence (INTEGER(32,false));
    REQUIRED INT32 view (INTEGER(32,false));
    REQUIRED FLOAT loss;
    REQUIRED BOOLEAN correct;
}";

/// A row group is closed at the first evaluation that brings it to this many rows.
const GROUP: usize = 1 << 20;

/// The rows of one row group.
#[derive(Default)]
struct Rows {
    evaluation: Vec<i32>,
    step: Vec<i64>,
    after: Vec<i32>,
    set: Vec<i32>,
    base: Vec<FixedLenByteArray>,
    occurrence: Vec<i32>,
    view: Vec<i32>,
    loss: Vec<f32>,
    correct: Vec<bool>,
}

impl Rows {
    fn push(&mut self, evaluation: i32, outcomes: &Outcomes) {
        let rows = self.loss.len() + outcomes.ids.len();
        self.evaluation.resize(rows, evaluation);
        self.step.resize(rows, outcomes.step as i64);
        self.after.resize(rows, outcomes.after);
        self.set.resize(rows, outcomes.set as i32);
        for id in outcomes.ids.iter() {
            self.base.push(id.base.to_vec().into());
            self.occurrence.push(id.occurrence as i32);
            self.view.push(id.view as i32);
        }
        self.loss.extend(&outcomes.loss);
        self.correct.extend(&outcomes.correct);
    }

    fn write(&mut self, out: &mut ColumnFile) -> Result<()> {
        let mut group = out.row_group()?;
        group.required::<Int32Type>(&self.evaluation)?;
        group.required::<Int64Type>(&self.step)?;
        group.required::<Int32Type>(&self.after)?;
        group.required::<Int32Type>(&self.set)?;
        group.required::<FixedLenByteArrayType>(&self.base)?;
        group.required::<Int32Type>(&self.occurrence)?;
        group.required::<Int32Type>(&self.view)?;
        group.required::<FloatType>(&self.loss)?;
        group.required::<BoolType>(&self.correct)?;
        *self = Rows::default();
        group.close()
    }
}

/// Writes `outcomes.parquet` atomically. `feed` hands over the evaluations one by one; an
/// evaluation of no examples leaves no row.
///
/// # Errors
/// [`Error::DiskFull`], [`Error::Io`], those of `feed`.
pub fn write_outcomes_parquet(
    disk: &Disk,
    path: &Path,
    segments: u32,
    feed: impl FnOnce(&mut dyn FnMut(Outcomes) -> Result<()>) -> Result<()>,
) -> Result<()> {
    disk.replace_with(path, 0, |file| {
        let pairs = [(SEGMENTS_KEY, segments.to_string())];
        let mut out = ColumnFile::create(file, path, SCHEMA, OUTCOMES_VERSION, &pairs)?;
        let (mut rows, mut evaluation) = (Rows::default(), 0);
        feed(&mut |outcomes| {
            rows.push(evaluation, &outcomes);
            evaluation += 1;
            if rows.loss.len() >= GROUP {
                rows.write(&mut out)
            } else {
                Ok(())
            }
        })?;
        if !rows.loss.is_empty() {
            rows.write(&mut out)?;
        }
        out.finish()
    })
}

/// Reads `outcomes.parquet`: the evaluations in their order, and how many segments it holds.
///
/// # Errors
/// [`Error::Io`], [`Error::Newer`], [`Error::Damaged`].
pub fn read_outcomes_parquet(path: &Path) -> Result<(Vec<Outcomes>, u32)> {
    let mut all = Vec::new();
    let segments = for_each_outcome_parquet(path, &mut |outcomes| {
        all.push(outcomes);
        Ok(())
    })?;
    Ok((all, segments))
}

/// The same, one evaluation at a time. Equal lists of ids are shared.
pub(crate) fn for_each_outcome_parquet(
    path: &Path,
    take: &mut dyn FnMut(Outcomes) -> Result<()>,
) -> Result<u32> {
    let reader = ColumnReader::open(path, SCHEMA, OUTCOMES_VERSION)?;
    let mut known: Vec<Arc<[ExampleId]>> = Vec::new();
    for index in 0..reader.row_groups() {
        let group = reader.row_group(index)?;
        let evaluation = group.required::<Int32Type>(0)?;
        let step = group.required::<Int64Type>(1)?;
        let after = group.required::<Int32Type>(2)?;
        let set = group.required::<Int32Type>(3)?;
        let base = group.required::<FixedLenByteArrayType>(4)?;
        let occurrence = group.required::<Int32Type>(5)?;
        let view = group.required::<Int32Type>(6)?;
        let loss = group.required::<FloatType>(7)?;
        let correct = group.required::<BoolType>(8)?;
        let mut begin = 0;
        // An evaluation never spans row groups.
        for same in evaluation.chunk_by(|a, b| a == b) {
            let rows = begin..begin + same.len();
            let id = |i: usize| -> Option<ExampleId> {
                let base = base[i].data().try_into().ok()?;
                Some(ExampleId {
                    base,
                    occurrence: occurrence[i] as u32,
                    view: view[i] as u32,
                })
            };
            let ids: Option<Vec<ExampleId>> = rows.clone().map(id).collect();
            let ids = ids.ok_or_else(|| Error::damaged(path, "an id of the wrong length"))?;
            let shared = known.iter().find(|list| ***list == *ids).cloned();
            let ids = shared.unwrap_or_else(|| {
                let list: Arc<[ExampleId]> = ids.into();
                known.push(list.clone());
                list
            });
            take(Outcomes {
                step: step[begin] as u64,
                after: after[begin],
                set: set[begin] as u32,
                ids,
                loss: loss[rows.clone()].to_vec(),
                correct: correct[rows.clone()].to_vec(),
            })?;
            begin = rows.end;
        }
    }
    reader.segments()
}

/// How many segments `outcomes.parquet` holds; 0 if there is no such file.
pub(crate) fn sealed_segments(path: &Path) -> Result<u32> {
    if !path.exists() {
        return Ok(0);
    }
    ColumnReader::open(path, SCHEMA, OUTCOMES_VERSION)?.segments()
}
