//! The rows of a Parquet file.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::{Map, Value};

use super::{Fields, Places, body};
use crate::error::{At, Error, Result};
use crate::example::{Body, Place, Unit};

pub(super) struct Rows {
    rows: RowIter<'static>,
    places: Places,
    number: u64,
    fields: Fields,
    done: bool,
}

impl Rows {
    pub fn open(path: &Path, fields: Fields) -> Result<Rows> {
        let file = File::open(path).at("open", path)?;
        let open = || {
            let reader = SerializedFileReader::new(file)?;
            let schema = reader.metadata().file_metadata().schema();
            let wanted = [
                &fields.messages,
                &fields.prompt,
                &fields.completion,
                &fields.text,
            ];
            let is_wanted = |name: &str| wanted.iter().any(|w| *w == name);
            let columns = schema.get_fields().iter();
            let (used, other): (Vec<_>, Vec<_>) = columns
                .cloned()
                .partition(|column| is_wanted(column.name()));
            if used.is_empty() {
                let other: Vec<&str> = other.iter().take(12).map(|c| c.name()).collect();
                return Ok(Err(format!(
                    "it has no column `{}`, `{}` or `{}` (it has `{}`): rename its columns, or \
                     say what they are called (`language.fields` in a recipe)",
                    fields.messages,
                    fields.prompt,
                    fields.text,
                    other.join("`, `")
                )));
            }
            // Columns that nobody asked for are not even decompressed.
            let used = Type::group_type_builder(schema.name())
                .with_fields(used)
                .build()?;
            RowIter::from_file_into(Box::new(reader))
                .project(Some(used))
                .map(Ok)
        };
        let rows = guarded(open).map_err(|e| failed(path, &e))?;
        let rows = rows.map_err(|what| Error::File {
            path: path.into(),
            what,
        })?;
        Ok(Rows {
            rows,
            places: Places::new(path, Unit::Row),
            number: 0,
            fields,
            done: false,
        })
    }

    fn record(&mut self) -> Option<Result<Body>> {
        let row = guarded(|| self.rows.next().transpose());
        let record = match row {
            Ok(None) => return None,
            Ok(Some(row)) => object(row),
            Err(e) => {
                // The reader cannot tell where the next row begins.
                self.done = true;
                self.number += 1;
                return Some(Err(Error::Record {
                    place: self.places.at(self.number),
                    what: reason(&e),
                }));
            }
        };
        self.number += 1;
        let place = self.places.at(self.number);
        let body = record.and_then(|record| body(&record, &self.fields));
        Some(body.map_err(|what| Error::Record { place, what }))
    }
}

impl Iterator for Rows {
    type Item = Result<(Place, Body)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let body = self.record()?;
        let place = self.places.at(self.number);
        Some(body.map(|body| (place, body)))
    }
}

/// The library answers some damaged files with a panic: here that is an error like any other.
fn guarded<T>(
    read: impl FnOnce() -> std::result::Result<T, ParquetError>,
) -> std::result::Result<T, ParquetError> {
    let panicked = |_| Err(ParquetError::General("the library gave up on it".into()));
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(panicked)
}

fn failed(path: &Path, error: &ParquetError) -> Error {
    Error::File {
        path: path.into(),
        what: format!("it is no Parquet file that can be used: {}", reason(error)),
    }
}

fn reason(error: &ParquetError) -> String {
    let message = error.to_string();
    if message.contains("BYTE_ARRAY as String") {
        return "a text in it is not UTF-8: write the column again as UTF-8".into();
    }
    if message.contains("not installed") || message.contains("Disabled feature") {
        return format!(
            "its compression is not read here ({message}): write it with Snappy, Gzip or none"
        );
    }
    message
}

fn object(row: Row) -> std::result::Result<Map<String, Value>, String> {
    let columns = row.into_columns().into_iter();
    columns
        .map(|(name, field)| Ok((name, value(field)?)))
        .collect()
}

fn value(field: Field) -> std::result::Result<Value, String> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(b) => b.into(),
        Field::Byte(n) => n.into(),
        Field::Short(n) => n.into(),
        Field::Int(n) => n.into(),
        Field::Long(n) => n.into(),
        Field::UByte(n) => n.into(),
        Field::UShort(n) => n.into(),
        Field::UInt(n) => n.into(),
        Field::ULong(n) => n.into(),
        Field::Float(x) => x.into(),
        Field::Double(x) => x.into(),
        Field::Str(text) => text.into(),
        // Some writers leave out that a column is text.
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data())
            .map_err(|_| "a text in it is not UTF-8: write the column again as UTF-8".to_owned())?
            .into(),
        Field::Group(row) => Value::Object(object(row)?),
        Field::ListInternal(list) => {
            let items = list.elements().iter().cloned();
            Value::Array(items.map(value).collect::<std::result::Result<_, _>>()?)
        }
        Field::MapInternal(map) => {
            let entries = map.entries().iter().cloned();
            let pair = |(key, item): (Field, Field)| match key {
                Field::Str(key) => Ok((key, value(item)?)),
                other => Err(format!("a map in it has the key {other}, which is no text")),
            };
            Value::Object(entries.map(pair).collect::<std::result::Result<_, _>>()?)
        }
        other => return Err(format!("the value {other} has a type that no text has")),
    })
}
