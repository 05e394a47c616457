//! Documents of plain text.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::jsonl::Bytes;
use super::not_utf8;
use crate::error::{Error, Result};
use crate::example::{Body, Place};

/// What parts the documents of a plain text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Break {
    /// Nothing: a file is one document.
    #[default]
    File,
    /// The end of each line.
    Line,
    /// One blank line or more.
    Blank,
    /// A line that is just this, such as `<|endoftext|>`.
    Marker(String),
}

pub(super) struct Documents {
    lines: Bytes,
    between: Break,
    done: bool,
}

impl Documents {
    pub fn open(path: &Path, between: Break) -> Result<Documents> {
        if matches!(&between, Break::Marker(marker) if marker.trim().is_empty()) {
            let what = "the marker between documents is empty: use blank lines instead";
            return Err(Error::Setting(what.into()));
        }
        Ok(Documents {
            lines: Bytes::open(path)?,
            between,
            done: false,
        })
    }

    /// The next document with the number of its first line, or nothing where there is no more.
    fn document(&mut self) -> Result<Option<(Place, String)>> {
        let mut text = String::new();
        let mut first = None;
        while let Some(line) = self.lines.next() {
            let line = line?;
            let line = std::str::from_utf8(&line).map_err(|e| self.lines.wrong(not_utf8(e)))?;
            let ends = match &self.between {
                Break::File => false,
                Break::Line => true,
                Break::Blank => line.trim().is_empty(),
                Break::Marker(marker) => line.trim() == marker.trim(),
            };
            if !ends || self.between == Break::Line {
                if first.is_none() && !line.trim().is_empty() {
                    first = Some(self.lines.places.at(self.lines.number));
                }
                text.push_str(line);
                text.push('\n');
            }
            if ends && first.is_some() {
                break;
            }
        }
        // Blank lines around a document say nothing about it; the indent of its first line may.
        let text = text.trim_end();
        let text = text.trim_start_matches('\n');
        Ok(first.map(|place| (place, text.to_owned())))
    }
}

impl Iterator for Documents {
    type Item = Result<(Place, Body)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let document = self.document();
        // What follows a damaged part of a text is not a document.
        self.done = document.is_err();
        let place = document.transpose()?;
        Some(place.map(|(place, text)| (place, Body::Document(text))))
    }
}
