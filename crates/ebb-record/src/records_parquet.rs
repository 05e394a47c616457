//! `records.parquet`: the records of a finished run as columns, in their order.
//!
//! Evaluations stand wholly in columns; every other record also stands in `json`, so that nothing
//! is lost. `experience` of a `column` record is the experience it was taken after, -1 before any
//! learning; `value` is the accuracy of an evaluation.

use std::path::Path;

use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int32Type, Int64Type};

use crate::columns::{ColumnFile, ColumnReader, Optional, SEGMENTS_KEY};
use crate::disk::Disk;
use crate::error::{At, Error, Result};
use crate::records::{Column, Eval, RECORDS_VERSION, Record};

const SCHEMA: &str = "message records {
    REQUIRED BYTE_ARRAY kind (STRING);
    OPTIONAL INT64 step;
    OPTIONAL INT32 experience;
    OPTIONAL INT32 set;
    OPTIONAL INT64 correct;
    OPTIONAL INT64 n;
    OPTIONAL INT64 half_correct;
    OPTIONAL INT64 half_n;
    OPTIONAL DOUBLE loss;
    OPTIONAL DOUBLE value;
    OPTIONAL BYTE_ARRAY json (STRING);
}";

/// Rows of one row group: bounds what is held encoded in memory.
const GROUP: usize = 1 << 16;

/// What a record puts into the columns.
#[derive(Default)]
struct Row {
    kind: &'static str,
    step: Option<u64>,
    experience: Option<i32>,
    set: Option<usize>,
    counts: Option<(u64, u64)>,
    half: Option<(u64, u64)>,
    loss: Option<f64>,
    json: bool,
}

fn row(record: &Record) -> Row {
    let told = |kind| Row {
        kind,
        json: true,
        ..Row::default()
    };
    match record {
        Record::Format { .. } => told("format"),
        Record::Start(_) => told("start"),
        Record::Step(s) => Row {
            step: Some(s.step),
            experience: Some(s.experience as i32),
            loss: Some(s.loss),
            ..told("step")
        },
        Record::Eval(e) => Row {
            kind: "eval",
            step: Some(e.step),
            experience: Some(e.experience as i32),
            set: Some(e.set),
            counts: Some((e.correct, e.n)),
            half: e.half,
            ..Row::default()
        },
        Record::Column(c) => Row {
            kind: "column",
            experience: Some(c.after),
            set: Some(c.set),
            counts: Some((c.correct, c.n)),
            loss: Some(c.loss),
            ..Row::default()
        },
        Record::Answers(a) => Row {
            experience: Some(a.after),
            set: Some(a.set),
            ..told("answers")
        },
        Record::Consolidate(c) => Row {
            step: Some(c.step),
            experience: Some(c.experience as i32),
            ..told("consolidate")
        },
        Record::State(s) => Row {
            step: Some(s.step),
            experience: s.experience.map(|e| e as i32),
            ..told("state")
        },
        Record::Note(n) => Row {
            step: Some(n.step),
            ..told("note")
        },
        Record::End(cost) => Row {
            step: cost.steps,
            ..told("end")
        },
    }
}

/// Writes `records` as `records.parquet`, atomically.
///
/// # Errors
/// [`Error::DiskFull`], [`Error::Io`].
pub fn write_records_parquet(
    disk: &Disk,
    path: &Path,
    records: &[Record],
    segments: u32,
) -> Result<()> {
    disk.replace_with(path, 0, |file| {
        let pairs = [(SEGMENTS_KEY, segments.to_string())];
        let mut out = ColumnFile::create(file, path, SCHEMA, RECORDS_VERSION, &pairs)?;
        for records in records.chunks(GROUP) {
            let rows: Vec<Row> = records.iter().map(row).collect();
            let json = |(record, row): (&Record, &Row)| -> Result<Option<ByteArray>> {
                if !row.json {
                    return Ok(None);
                }
                let text = serde_json::to_vec(record).map_err(std::io::Error::from);
                Ok(Some(text.at("encode a record for", path)?.into()))
            };
            let json: Vec<_> = records.iter().zip(&rows).map(json).collect::<Result<_>>()?;
            let accuracy = |&(correct, n): &(u64, u64)| correct as f64 / n as f64;

            let mut group = out.row_group()?;
            let kinds: Vec<ByteArray> = rows.iter().map(|row| row.kind.into()).collect();
            group.required::<ByteArrayType>(&kinds)?;
            group.optional::<Int64Type>(&column(&rows, |r| r.step.map(|v| v as i64)))?;
            group.optional::<Int32Type>(&column(&rows, |r| r.experience))?;
            group.optional::<Int32Type>(&column(&rows, |r| r.set.map(|v| v as i32)))?;
            group.optional::<Int64Type>(&column(&rows, |r| r.counts.map(|c| c.0 as i64)))?;
            group.optional::<Int64Type>(&column(&rows, |r| r.counts.map(|c| c.1 as i64)))?;
            group.optional::<Int64Type>(&column(&rows, |r| r.half.map(|c| c.0 as i64)))?;
            group.optional::<Int64Type>(&column(&rows, |r| r.half.map(|c| c.1 as i64)))?;
            group.optional::<DoubleType>(&column(&rows, |r| r.loss))?;
            group.optional::<DoubleType>(&column(&rows, |r| r.counts.as_ref().map(accuracy)))?;
            group.optional::<ByteArrayType>(&column(&json, Clone::clone))?;
            group.close()?;
        }
        out.finish()
    })
}

fn column<R, T>(rows: &[R], value: impl Fn(&R) -> Option<T>) -> Optional<T> {
    let mut column = Optional::new();
    rows.iter().for_each(|row| column.push(value(row)));
    column
}

/// Reads `records.parquet`: the records in their order, and how many segments it holds.
///
/// # Errors
/// [`Error::Io`], [`Error::Newer`], [`Error::Damaged`].
pub fn read_records_parquet(path: &Path) -> Result<(Vec<Record>, u32)> {
    let reader = ColumnReader::open(path, SCHEMA, RECORDS_VERSION)?;
    let mut records = Vec::new();
    for index in 0..reader.row_groups() {
        let group = reader.row_group(index)?;
        let kind = group.required::<ByteArrayType>(0)?;
        let step = group.optional::<Int64Type>(1)?;
        let experience = group.optional::<Int32Type>(2)?;
        let set = group.optional::<Int32Type>(3)?;
        let correct = group.optional::<Int64Type>(4)?;
        let n = group.optional::<Int64Type>(5)?;
        let half_correct = group.optional::<Int64Type>(6)?;
        let half_n = group.optional::<Int64Type>(7)?;
        let loss = group.optional::<DoubleType>(8)?;
        let json = group.optional::<ByteArrayType>(10)?;
        for i in 0..group.rows {
            let record = || {
                if let Some(json) = &json[i] {
                    return serde_json::from_slice(json.data()).ok();
                }
                let (set, correct, n) = (set[i]? as usize, correct[i]? as u64, n[i]? as u64);
                match kind[i].data() {
                    b"eval" => Some(Record::Eval(Eval {
                        step: step[i]? as u64,
                        experience: experience[i]? as usize,
                        set,
                        correct,
                        n,
                        half: half_correct[i]
                            .zip(half_n[i])
                            .map(|(c, n)| (c as u64, n as u64)),
                    })),
                    b"column" => {
                        let (after, loss) = (experience[i]?, loss[i]?);
                        Some(Record::Column(Column {
                            after,
                            set,
                            correct,
                            n,
                            loss,
                        }))
                    }
                    _ => None,
                }
            };
            let what =
                || Error::damaged(path, format!("row {i} of row group {index} is no record"));
            records.push(record().ok_or_else(what)?);
        }
    }
    Ok((records, reader.segments()?))
}

/// How many segments `records.parquet` holds; 0 if there is no such file.
pub(crate) fn sealed_segments(path: &Path) -> Result<u32> {
    if !path.exists() {
        return Ok(0);
    }
    ColumnReader::open(path, SCHEMA, RECORDS_VERSION)?.segments()
}
