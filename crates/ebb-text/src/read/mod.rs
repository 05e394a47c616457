//! Examples from files, one at a time.

mod jsonl;
mod parquet;
mod plain;

use std::path::Path;
use std::sync::Arc;

use ebb_hub::Message;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::example::{Body, Example, Occurrences, Place, Unit};

pub use plain::Break;

/// What the fields of a record are called.
///
/// A record has messages, or a prompt and a completion, or a text; other fields are left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Fields {
    /// A list of `{"role": ..., "content": ...}`.
    pub messages: String,
    /// What is given.
    pub prompt: String,
    /// What is learnt.
    pub completion: String,
    /// A document.
    pub text: String,
}

impl Default for Fields {
    fn default() -> Fields {
        Fields {
            messages: "messages".into(),
            prompt: "prompt".into(),
            completion: "completion".into(),
            text: "text".into(),
        }
    }
}

/// How to read files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The fields of records (JSONL, Parquet).
    pub fields: Fields,
    /// What parts the documents of plain text.
    pub documents: Break,
}

/// The examples of one file, read as they are asked for.
///
/// A record that is wrong is an error that names its line or row; the records after it can still
/// be read.
pub struct Reader {
    records: Box<dyn Iterator<Item = Result<(Place, Body)>>>,
    seen: Occurrences,
}

impl Reader {
    /// Opens a file by the ending of its name: `.jsonl` or `.ndjson`, `.parquet`, `.txt` or `.md`.
    ///
    /// Equal records are numbered within the file. Give all files of one dataset to
    /// [`Reader::open_all`], or their equal records get equal ids.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] for another ending or a file that is not what it says.
    pub fn open(path: impl AsRef<Path>, reading: &Reading) -> Result<Reader> {
        let path = path.as_ref();
        Ok(Reader {
            records: records(path, reading)?,
            seen: Occurrences::default(),
        })
    }

    /// The examples of several files, one after another, as one dataset.
    ///
    /// # Errors
    /// As [`Reader::open`], of the first file at once and of each other when its turn comes.
    pub fn open_all<P: AsRef<Path>>(
        paths: impl IntoIterator<Item = P>,
        reading: &Reading,
    ) -> Result<Reader> {
        let mut paths = paths.into_iter().map(|p| p.as_ref().to_owned());
        let first = match paths.next() {
            Some(path) => records(&path, reading)?,
            None => return Err(Error::Setting("no file was named".into())),
        };
        let rest: Vec<_> = paths.collect();
        let reading = reading.clone();
        let rest = rest.into_iter().flat_map(move |path| {
            records(&path, &reading).unwrap_or_else(|e| Box::new(std::iter::once(Err(e))))
        });
        Ok(Reader {
            records: Box::new(first.chain(rest)),
            seen: Occurrences::default(),
        })
    }
}

impl Iterator for Reader {
    type Item = Result<Example>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.records.next()?;
        Some(record.map(|(place, body)| {
            let example = Example::new(body);
            Example {
                id: self.seen.number(example.id),
                place: Some(place),
                ..example
            }
        }))
    }
}

type Records = Box<dyn Iterator<Item = Result<(Place, Body)>>>;

fn records(path: &Path, reading: &Reading) -> Result<Records> {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    match ending.to_ascii_lowercase().as_str() {
        "jsonl" | "ndjson" => Ok(Box::new(jsonl::Lines::open(path, reading.fields.clone())?)),
        "parquet" => Ok(Box::new(parquet::Rows::open(path, reading.fields.clone())?)),
        "txt" | "md" => Ok(Box::new(plain::Documents::open(
            path,
            reading.documents.clone(),
        )?)),
        "json" => Err(Error::File {
            path: path.into(),
            what: "one JSON value cannot be read as a stream: write one object a line, as \
                   `.jsonl` (`jq -c '.[]' data.json > data.jsonl`)"
                .into(),
        }),
        _ => Err(Error::File {
            path: path.into(),
            what: "its name should end in .jsonl, .parquet, .txt or .md, which says how it is \
                   read"
                .into(),
        }),
    }
}

/// Where records of one file stand.
#[derive(Clone)]
struct Places {
    file: Arc<Path>,
    unit: Unit,
}

impl Places {
    fn new(path: &Path, unit: Unit) -> Places {
        Places {
            file: path.into(),
            unit,
        }
    }

    fn at(&self, number: u64) -> Place {
        Place {
            file: self.file.clone(),
            unit: self.unit,
            number,
        }
    }
}

/// What a record says, or what is wrong with it.
fn body(record: &Map<String, Value>, fields: &Fields) -> std::result::Result<Body, String> {
    // A null is what a column of a table has where a record of lines has no field.
    let get = |name: &str| record.get(name).filter(|value| !value.is_null());
    let text = |name: &str| match get(name) {
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(format!("`{name}` is {}, not a text", kind(other))),
        None => Ok(None),
    };
    let messages = get(&fields.messages);
    let either = [&fields.prompt, &fields.completion].map(|name| get(name).is_some());
    let forms = [
        messages.is_some(),
        either.contains(&true),
        get(&fields.text).is_some(),
    ];
    if forms.iter().filter(|&&is| is).count() > 1 {
        return Err(format!(
            "it is of more than one form: keep `{}`, or `{}` and `{}`, or `{}`",
            fields.messages, fields.prompt, fields.completion, fields.text
        ));
    }
    if let Some(value) = messages {
        return chat(value, &fields.messages).map(Body::Chat);
    }
    if let Some(text) = text(&fields.text)? {
        return match text.trim().is_empty() {
            true => Err(format!("`{}` is empty: remove the record", fields.text)),
            false => Ok(Body::Document(text)),
        };
    }
    match (text(&fields.prompt)?, text(&fields.completion)?) {
        (Some(_), Some(completion)) if completion.trim().is_empty() => Err(format!(
            "`{}` is empty, so there is nothing to learn from it: remove the record or fill it in",
            fields.completion
        )),
        (Some(prompt), Some(completion)) => Ok(Body::Completion { prompt, completion }),
        (Some(_), None) => Err(missing(record, &[&fields.completion])),
        (None, Some(_)) => Err(missing(record, &[&fields.prompt])),
        (None, None) => {
            let one_of = [&fields.messages, &fields.prompt, &fields.text].map(String::as_str);
            Err(missing(record, &one_of))
        }
    }
}

/// Which field is missing, and which are there instead.
fn missing(record: &Map<String, Value>, wanted: &[&str]) -> String {
    let list = |names: Vec<&str>| names.join("`, `");
    let there: Vec<&str> = record.keys().take(12).map(String::as_str).collect();
    let one = if wanted.len() > 1 { "none of " } else { "no " };
    let there = match there.is_empty() {
        true => "it has no fields at all".to_owned(),
        false => format!("it has `{}`", list(there)),
    };
    format!(
        "it has {one}`{}` ({there}): rename its fields, or say what they are \
         called (`language.fields` in a recipe)",
        list(wanted.to_vec())
    )
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn chat(value: &Value, name: &str) -> std::result::Result<Vec<Message>, String> {
    let Value::Array(turns) = value else {
        return Err(format!(
            "`{name}` is {}, not a list of {{\"role\", \"content\"}}",
            kind(value)
        ));
    };
    let read = |(i, turn): (usize, &Value)| {
        serde_json::from_value::<Message>(without_nulls(turn))
            .map_err(|e| format!("turn {} of `{name}` is no message ({e})", i + 1))
    };
    let turns = turns.iter().enumerate().map(read);
    let turns = turns.collect::<std::result::Result<Vec<_>, _>>()?;
    let mut answers = turns
        .iter()
        .enumerate()
        .filter(|(_, t)| t.role == "assistant");
    let mut any = false;
    for (i, turn) in &mut answers {
        any = true;
        if is_empty(&turn.content) && turn.more.is_empty() {
            return Err(format!(
                "turn {} of `{name}` is an empty answer, so there is nothing to learn from it: \
                 remove the record or fill it in",
                i + 1
            ));
        }
    }
    match any {
        true => Ok(turns),
        false => Err(format!(
            "`{name}` has no turn of the role `assistant`, so there is nothing to learn from it"
        )),
    }
}

fn is_empty(content: &Value) -> bool {
    match content {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(parts) => parts.is_empty(),
        _ => false,
    }
}

/// A turn without the fields that a table has for other turns.
fn without_nulls(turn: &Value) -> Value {
    let Value::Object(turn) = turn else {
        return turn.clone();
    };
    let fields = turn.iter().filter(|(_, value)| !value.is_null());
    Value::Object(fields.map(|(k, v)| (k.clone(), v.clone())).collect())
}

/// Why bytes are not text.
fn not_utf8(error: std::str::Utf8Error) -> String {
    format!(
        "byte {} of it is not UTF-8: save the file as UTF-8 (`iconv -f LATIN1 -t UTF-8`)",
        error.valid_up_to() + 1
    )
}
