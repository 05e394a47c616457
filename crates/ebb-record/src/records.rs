//! The records of a run: `records.jsonl`, one JSON object a line, tagged by `kind`.
//!
//! The file is append-only. At a checkpoint it is synced and its length stored in the state; a
//! resumed run cuts it back to that length, so that after a kill no record is missing or double.
//! A last line that was not fully written is known by its missing line end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::answers::Answers;
use crate::error::{At, Error, Result, supported};
use crate::json::version_of;
use crate::log::AppendLog;
use crate::number_text;

/// The newest version of `records.jsonl` and `records.parquet` that this program reads.
pub const RECORDS_VERSION: u32 = 1;

/// One record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// The first line of a file, written by the log itself.
    Format {
        /// Version of the format.
        format_version: u32,
        /// How many times the run had been finished before.
        segment: u32,
    },
    /// What the run is.
    Start(Start),
    /// A training step, every so many steps.
    Step(Step),
    /// The panel of one test set during training.
    Eval(Eval),
    /// A whole test set after an experience.
    Column(Column),
    /// Answers in the model's own words to one test set after an experience.
    Answers(Answers),
    /// The work at the end of an experience.
    Consolidate(Consolidate),
    /// A model state was made.
    State(StateRecord),
    /// Anything else worth keeping, such as gradient norms.
    Note(Note),
    /// The run came to its end, having cost this.
    End(Cost),
}

/// What the run is: enough to read its records without its recipe.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Start {
    /// Name of the run.
    pub run: String,
    /// BLAKE3 of the recipe as resolved.
    pub recipe_hash: String,
    /// The same without the seed: runs that agree in it are one group.
    pub recipe_id: String,
    /// Version of the program.
    pub code_version: String,
    /// The seed.
    pub seed: u64,
    /// The method in the field's words.
    pub method: String,
    /// The stream in words.
    pub stream: String,
    /// The network in words.
    pub network: String,
    /// `task`, `domain` or `class`.
    pub scenario: String,
    /// What test accuracies are of: becomes part of the protocol of every number.
    pub protocol: String,
    /// What panel accuracies are of, where it differs (its size, its draw).
    pub panel_protocol: String,
    /// Combinations refused by default and accepted by name.
    pub accepted: Vec<String>,
    /// The experiences in order.
    pub experiences: Vec<ExperienceInfo>,
    /// Names of the test sets; empty if there is one for each experience.
    pub sets: Vec<String>,
}

/// One experience of the stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExperienceInfo {
    /// Its place, from 0.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// The classes it brings.
    pub classes: Vec<u32>,
    /// Number of training examples.
    pub train: usize,
    /// Number of test examples.
    pub test: usize,
    /// The test sets it trains; `None` is the one of its own index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sets: Option<Vec<usize>>,
}

/// A training step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Updates made, this one included.
    pub step: u64,
    /// The experience in training.
    pub experience: usize,
    /// The epoch within it.
    pub epoch: usize,
    /// The loss before the update.
    #[serde(with = "number_text")]
    pub loss: f64,
    /// Its terms by name.
    #[serde(default, with = "number_text::map")]
    pub terms: BTreeMap<String, f64>,
    /// The learning rate.
    #[serde(with = "number_text")]
    pub lr: f64,
    /// Seconds since the run started, over all its sittings.
    #[serde(with = "number_text")]
    pub seconds: f64,
}

/// The panel of one test set during training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Eval {
    /// Updates made when it was taken.
    pub step: u64,
    /// The experience in training.
    pub experience: usize,
    /// The test set.
    pub set: usize,
    /// Correct answers.
    pub correct: u64,
    /// Examples of the panel.
    pub n: u64,
    /// Correct answers on the fixed half that finds the worst step, and its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half: Option<(u64, u64)>,
}

/// A whole test set after an experience.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// After which experience; -1 is the random initialisation.
    pub after: i32,
    /// The test set.
    pub set: usize,
    /// Correct answers.
    pub correct: u64,
    /// Examples.
    pub n: u64,
    /// Mean loss.
    #[serde(with = "number_text")]
    pub loss: f64,
}

/// The work at the end of an experience.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Consolidate {
    /// The experience.
    pub experience: usize,
    /// Updates made by then.
    pub step: u64,
    /// What was done, in the method's words (`fisher exact`).
    pub what: String,
    /// Seconds it took.
    #[serde(with = "number_text")]
    pub seconds: f64,
    /// Bytes that the method holds afterwards.
    pub bytes: u64,
}

/// A model state was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateRecord {
    /// Its id.
    pub id: String,
    /// What it was made from.
    pub parent: Option<String>,
    /// What made it.
    pub verb: crate::states::Verb,
    /// Updates made by then.
    pub step: u64,
    /// The experience in training, where there was one.
    #[serde(default)]
    pub experience: Option<usize>,
    /// Whether it ends an experience or another verb; otherwise it is a checkpoint on the way.
    #[serde(default)]
    pub milestone: bool,
}

/// Anything else worth keeping.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// Updates made by then.
    pub step: u64,
    /// What is noted.
    pub name: String,
    /// Its values by name.
    #[serde(default, with = "number_text::map")]
    pub values: BTreeMap<String, f64>,
}

/// What the run has cost, over all its sittings; `None` where it was not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// Seconds spent in training, without evaluation and saving.
    pub train_seconds: Option<f64>,
    /// Seconds in all.
    pub total_seconds: Option<f64>,
    /// Updates made.
    pub steps: Option<u64>,
    /// Rows that went forward through the network.
    pub forward_rows: Option<u64>,
    /// Rows that went backward.
    pub backward_rows: Option<u64>,
    /// Calls of the gradient oracle.
    pub gradient_calls: Option<u64>,
    /// Bytes of the replay memory and of what the method stores.
    pub memory_bytes: Option<u64>,
    /// Peak resident set of the process in bytes.
    pub peak_rss_bytes: Option<u64>,
}

/// Appends records.
#[derive(Debug)]
pub struct RecordWriter {
    log: AppendLog,
    segment: u32,
    header_bytes: u64,
    line: Vec<u8>,
}

impl RecordWriter {
    /// A new file that holds only its format line.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::DiskFull`]; so for all methods here.
    pub fn create(path: &Path, segment: u32) -> Result<RecordWriter> {
        let line = header(path, segment)?;
        let log = AppendLog::create(path, &line)?;
        Ok(RecordWriter {
            log,
            segment,
            header_bytes: line.len() as u64,
            line,
        })
    }

    /// Goes on after the first `bytes` bytes of an existing file; what follows is cut.
    ///
    /// # Errors
    /// Also [`Error::Damaged`] if the file is shorter or `bytes` is no line end, and
    /// [`Error::Newer`].
    pub fn resume(path: &Path, bytes: u64) -> Result<RecordWriter> {
        let segment = segment_of(path)?;
        if !ends_a_line(path, bytes)? {
            let what =
                format!("byte {bytes}, where the last state left it, is not the end of a line");
            return Err(Error::damaged(path, what));
        }
        let log = AppendLog::resume(path, bytes)?;
        let line = header(path, segment)?;
        Ok(RecordWriter {
            log,
            segment,
            header_bytes: line.len() as u64,
            line,
        })
    }

    /// Goes on after the last whole line; a torn line is cut. Returns how many bytes it had.
    ///
    /// # Errors
    /// Also [`Error::Damaged`], [`Error::Newer`].
    pub fn repair(path: &Path) -> Result<(RecordWriter, u64)> {
        let read = read_records(path)?;
        Ok((
            RecordWriter::resume(path, read.whole_bytes)?,
            read.torn_bytes,
        ))
    }

    /// Appends one record. It reaches other processes within about a second, and the disk at the
    /// next [`sync`](RecordWriter::sync).
    ///
    /// # Errors
    /// See [`create`](RecordWriter::create).
    pub fn append(&mut self, record: &Record) -> Result<()> {
        self.line.clear();
        write_line(&mut self.line, record, self.log.path())?;
        self.log.append(&self.line)
    }

    /// Makes all records durable; returns the length to store in the state.
    ///
    /// # Errors
    /// See [`create`](RecordWriter::create).
    pub fn sync(&mut self) -> Result<u64> {
        self.log.sync()
    }

    /// Lets other processes see all records.
    ///
    /// # Errors
    /// See [`create`](RecordWriter::create).
    pub fn flush(&mut self) -> Result<()> {
        self.log.flush()
    }

    /// Length with everything appended so far.
    pub fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// The segment this file is.
    pub fn segment(&self) -> u32 {
        self.segment
    }

    /// Whether nothing was ever appended.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes() == self.header_bytes
    }
}

fn header(path: &Path, segment: u32) -> Result<Vec<u8>> {
    let mut line = Vec::with_capacity(512);
    write_line(
        &mut line,
        &Record::Format {
            format_version: RECORDS_VERSION,
            segment,
        },
        path,
    )?;
    Ok(line)
}

/// Whether the byte before `end` is a line end. A file that is shorter is left to the log.
fn ends_a_line(path: &Path, end: u64) -> Result<bool> {
    let mut file = File::open(path).at("open", path)?;
    let mut last = [b'\n'];
    if end <= file.metadata().at("inspect", path)?.len() {
        file.seek(SeekFrom::Start(end.saturating_sub(1)))
            .at("read", path)?;
        file.read_exact(&mut last).at("read", path)?;
    }
    Ok(end > 0 && last == [b'\n'])
}

fn write_line(line: &mut Vec<u8>, record: &Record, path: &Path) -> Result<()> {
    serde_json::to_writer(&mut *line, record)
        .map_err(std::io::Error::from)
        .at("encode a record for", path)?;
    line.push(b'\n');
    Ok(())
}

/// What a records file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Records {
    /// The records after the format line.
    pub records: Vec<Record>,
    /// The segment the file is.
    pub segment: u32,
    /// Bytes of whole lines.
    pub whole_bytes: u64,
    /// Bytes of a last line that was not fully written; 0 in a sound file.
    pub torn_bytes: u64,
}

/// Reads `records.jsonl`, leaving out a torn last line.
///
/// # Errors
/// [`Error::Io`], [`Error::Newer`], [`Error::Damaged`] naming the line.
pub fn read_records(path: &Path) -> Result<Records> {
    let file = File::open(path).at("open", path)?;
    let mut lines = BufReader::with_capacity(1 << 16, file);
    let mut read = Records {
        records: Vec::new(),
        segment: 0,
        whole_bytes: 0,
        torn_bytes: 0,
    };
    let mut line = Vec::new();
    let mut number = 0usize;
    loop {
        line.clear();
        let length = lines.read_until(b'\n', &mut line).at("read", path)? as u64;
        if length == 0 {
            break;
        }
        number += 1;
        let record = if line.last() == Some(&b'\n') {
            parse(&line)
        } else {
            Err("cut short".into())
        };
        match record {
            Ok(Record::Format {
                format_version,
                segment,
            }) => {
                supported(path, format_version, RECORDS_VERSION)?;
                read.segment = segment;
            }
            Ok(_) if number == 1 => return Err(Error::damaged(path, NO_FORMAT)),
            Ok(record) => read.records.push(record),
            Err(why) => {
                // A newer program may also write kinds that this one cannot parse.
                if number == 1 {
                    check_version(path, &line)?;
                }
                // A crash may leave one line half-written or, after a loss of power, as zeros.
                if line.last() == Some(&b'\n') && !line.contains(&0) {
                    return Err(Error::damaged(path, format!("line {number}: {why}")));
                }
                let rest = std::io::copy(&mut lines, &mut std::io::sink()).at("read", path)?;
                read.torn_bytes = length + rest;
                break;
            }
        }
        read.whole_bytes += length;
    }
    if read.whole_bytes == 0 {
        return Err(Error::damaged(path, NO_FORMAT));
    }
    Ok(read)
}

const NO_FORMAT: &str =
    "it does not begin with a `format` record; it is not a records file of this program";

fn parse(line: &[u8]) -> std::result::Result<Record, String> {
    serde_json::from_slice(line).map_err(|e| e.to_string())
}

/// The segment number of a file, from its first line.
pub(crate) fn segment_of(path: &Path) -> Result<u32> {
    let file = File::open(path).at("open", path)?;
    let mut line = Vec::new();
    BufReader::new(file)
        .read_until(b'\n', &mut line)
        .at("read", path)?;
    check_version(path, &line)?;
    match parse(&line) {
        Ok(Record::Format { segment, .. }) => Ok(segment),
        _ => Err(Error::damaged(path, NO_FORMAT)),
    }
}

fn check_version(path: &Path, line: &[u8]) -> Result<()> {
    // A line without a version is for the caller to refuse.
    version_of(line).map_or(Ok(()), |version| supported(path, version, RECORDS_VERSION))
}
