//! One JSON object a line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::{Map, Value};

use super::{Fields, Places, body, not_utf8};
use crate::error::{At, Error, Result};
use crate::example::{Body, Place, Unit};

/// A line is held whole; one longer than this is no line of a dataset.
const LONGEST: u64 = 1 << 28;

/// Lines of bytes with their numbers, without the byte-order mark and the line's end.
pub(super) struct Bytes {
    file: BufReader<File>,
    pub places: Places,
    pub number: u64,
    done: bool,
}

impl Bytes {
    pub fn open(path: &Path) -> Result<Bytes> {
        let file = File::open(path).at("open", path)?;
        Ok(Bytes {
            file: BufReader::with_capacity(1 << 16, file),
            places: Places::new(path, Unit::Line),
            number: 0,
            done: false,
        })
    }

    pub fn wrong(&self, what: impl Into<String>) -> Error {
        Error::Record {
            place: self.places.at(self.number),
            what: what.into(),
        }
    }
}

impl Iterator for Bytes {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let mut line = Vec::new();
        let mut limited = (&mut self.file).take(LONGEST);
        let read = limited.read_until(b'\n', &mut line);
        match read.at("read", &self.places.file) {
            Ok(0) => return None,
            Ok(_) => self.number += 1,
            Err(e) => {
                self.done = true;
                return Some(Err(e));
            }
        }
        if line.len() as u64 == LONGEST && line.last() != Some(&b'\n') {
            self.done = true;
            return Some(Err(
                self.wrong("the line is longer than 256 MiB: is this the right file?")
            ));
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        if self.number == 1 && line.starts_with("\u{feff}".as_bytes()) {
            line.drain(..3);
        }
        Some(Ok(line))
    }
}

pub(super) struct Lines {
    lines: Bytes,
    fields: Fields,
}

impl Lines {
    pub fn open(path: &Path, fields: Fields) -> Result<Lines> {
        let lines = Bytes::open(path)?;
        Ok(Lines { lines, fields })
    }

    fn record(&self, line: &[u8]) -> Result<Body> {
        let wrong = |what: String| self.lines.wrong(what);
        let text = std::str::from_utf8(line).map_err(|e| wrong(not_utf8(e)))?;
        let record: Map<String, Value> = match serde_json::from_str(text) {
            Ok(Value::Object(record)) => Ok(record),
            Ok(other) => Err(wrong(format!(
                "it is {}, and should be an object such as {{\"prompt\": ..., \"completion\": ...}}",
                super::kind(&other)
            ))),
            // The message ends in a place of its own, whose line is always 1.
            Err(e) => {
                let message = e.to_string();
                let reason = message.split(" at line ").next().unwrap_or(&message);
                Err(wrong(format!(
                    "it is not valid JSON ({reason} at column {})",
                    e.column()
                )))
            }
        }?;
        body(&record, &self.fields).map_err(wrong)
    }
}

impl Iterator for Lines {
    type Item = Result<(Place, Body)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = match self.lines.next()? {
                Ok(line) => line,
                Err(e) => return Some(Err(e)),
            };
            if !line.iter().all(u8::is_ascii_whitespace) {
                let place = self.lines.places.at(self.lines.number);
                return Some(self.record(&line).map(|body| (place, body)));
            }
        }
    }
}
