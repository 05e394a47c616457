//! Header, metadata and tensor table.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::gguf::blocks::BlockType;

/// A value of the metadata. Integers and floats are widened; no width of the format loses.
#[derive(Clone, Debug, PartialEq)]
pub enum MetaValue {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// 32 or 64 bits.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// UTF-8.
    Text(String),
    /// Values of one type.
    Array(Vec<MetaValue>),
}

impl MetaValue {
    /// A number that is an integer and not negative.
    pub fn as_usize(&self) -> Option<usize> {
        match *self {
            MetaValue::Unsigned(v) => usize::try_from(v).ok(),
            MetaValue::Signed(v) => usize::try_from(v).ok(),
            _ => None,
        }
    }

    /// Any number.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            MetaValue::Unsigned(v) => Some(v as f64),
            MetaValue::Signed(v) => Some(v as f64),
            MetaValue::Float(v) => Some(v),
            _ => None,
        }
    }

    /// A truth value.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            MetaValue::Bool(v) => Some(v),
            _ => None,
        }
    }

    /// A text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            MetaValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A list.
    pub fn as_array(&self) -> Option<&[MetaValue]> {
        match self {
            MetaValue::Array(values) => Some(values),
            _ => None,
        }
    }
}

/// A line of the tensor table.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub name: String,
    /// Slowest first; the file has it the other way round.
    pub shape: Vec<usize>,
    /// The type, or what the type is called that is not read.
    pub block: std::result::Result<BlockType, String>,
    /// From the start of the data.
    pub offset: u64,
}

#[derive(Debug)]
pub(super) struct Parsed {
    pub metadata: BTreeMap<String, MetaValue>,
    pub table: Vec<Line>,
    /// Where the data start in the file.
    pub data: usize,
}

/// More of either than any model has; a file that claims more lies.
const MOST_DIMENSIONS: u32 = 4;
const DEEPEST_ARRAY: u32 = 4;
const LONGEST_ARRAY: u64 = 1 << 24;

pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Parsed> {
    let mut input = Input { path, bytes, at: 0 };
    if input.take(4, "magic")? != b"GGUF" {
        return Err(Error::unsupported(
            path,
            "it is no GGUF file: give a file ending in `.gguf`",
        ));
    }
    let version = input.u32("version")?;
    match version {
        2 | 3 => {}
        1 => {
            let what = "it is of GGUF version 1, of August 2023: convert the model again";
            return Err(Error::unsupported(path, what));
        }
        _ if version.swap_bytes() < 256 => {
            let what = "it is a big-endian GGUF file: convert the model for little-endian machines";
            return Err(Error::unsupported(path, what));
        }
        _ => {
            let what = format!("it is of GGUF version {version}, this program reads 2 and 3");
            return Err(Error::unsupported(path, what));
        }
    }
    let tensors = input.u64("number of tensors")?;
    let entries = input.u64("number of metadata entries")?;

    let mut metadata = BTreeMap::new();
    for _ in 0..entries {
        let key = input.text("a metadata key")?;
        let kind = input.u32(&key)?;
        let value = input.value(kind, &key, 0)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(input.damaged(format!("its metadata have `{key}` twice")));
        }
    }
    let mut table = Vec::new();
    for _ in 0..tensors {
        let line = input.line()?;
        table.push(line);
    }
    let alignment = match metadata.get("general.alignment") {
        None => 32,
        Some(value) => value
            .as_usize()
            .filter(|a| a.is_power_of_two())
            .ok_or_else(|| {
                input.damaged(format!("its alignment is {value:?}, not a power of two"))
            })?,
    };
    let data = input
        .at
        .checked_next_multiple_of(alignment)
        .ok_or_else(|| input.damaged(format!("its alignment is {alignment}")))?;
    Ok(Parsed {
        metadata,
        table,
        data,
    })
}

struct Input<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn damaged(&self, what: impl Into<String>) -> Error {
        Error::damaged(self.path, what)
    }

    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8]> {
        let end = self
            .at
            .checked_add(len)
            .filter(|&end| end <= self.bytes.len());
        let Some(end) = end else {
            let (at, all) = (self.at, self.bytes.len());
            return Err(self.damaged(format!(
                "`{what}` at byte {at} needs {len} bytes and the file has {all} in all"
            )));
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn text(&mut self, what: &str) -> Result<String> {
        let len = self.u64(what)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let bytes = self.take(len, what)?;
        let text = str::from_utf8(bytes);
        text.map(str::to_owned)
            .map_err(|e| self.damaged(format!("`{what}` is not UTF-8 ({e})")))
    }

    fn value(&mut self, kind: u32, key: &str, depth: u32) -> Result<MetaValue> {
        Ok(match kind {
            0 => MetaValue::Unsigned(u8::from_le_bytes(self.array(key)?).into()),
            1 => MetaValue::Signed(i8::from_le_bytes(self.array(key)?).into()),
            2 => MetaValue::Unsigned(u16::from_le_bytes(self.array(key)?).into()),
            3 => MetaValue::Signed(i16::from_le_bytes(self.array(key)?).into()),
            4 => MetaValue::Unsigned(self.u32(key)?.into()),
            5 => MetaValue::Signed(i32::from_le_bytes(self.array(key)?).into()),
            6 => MetaValue::Float(f32::from_le_bytes(self.array(key)?).into()),
            7 => match self.array(key)? {
                [0] => MetaValue::Bool(false),
                [1] => MetaValue::Bool(true),
                [other] => {
                    return Err(self.damaged(format!("`{key}` is {other}, neither true nor false")));
                }
            },
            8 => MetaValue::Text(self.text(key)?),
            9 if depth < DEEPEST_ARRAY => {
                let kind = self.u32(key)?;
                let len = self.u64(key)?;
                if len > LONGEST_ARRAY {
                    return Err(self.damaged(format!("`{key}` is a list of {len} values")));
                }
                // Nothing is set aside for what the file claims: it is read until it ends.
                let mut values = Vec::new();
                for _ in 0..len {
                    values.push(self.value(kind, key, depth + 1)?);
                }
                MetaValue::Array(values)
            }
            9 => return Err(self.damaged(format!("`{key}` is a list of lists of lists"))),
            10 => MetaValue::Unsigned(self.u64(key)?),
            11 => MetaValue::Signed(i64::from_le_bytes(self.array(key)?)),
            12 => MetaValue::Float(f64::from_le_bytes(self.array(key)?)),
            other => {
                return Err(self.damaged(format!("`{key}` is of type {other}, there are 0 to 12")));
            }
        })
    }

    fn line(&mut self) -> Result<Line> {
        let name = self.text("a tensor's name")?;
        let dimensions = self.u32(&name)?;
        if dimensions > MOST_DIMENSIONS {
            let what =
                format!("tensor `{name}` has {dimensions} dimensions, at most 4 are possible");
            return Err(self.damaged(what));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = self.u64(&name)?;
            let size = usize::try_from(size)
                .map_err(|_| self.damaged(format!("tensor `{name}` has {size} values in a row")))?;
            shape.insert(0, size);
        }
        let block = BlockType::from_id(self.u32(&name)?);
        let offset = self.u64(&name)?;
        Ok(Line {
            name,
            shape,
            block,
            offset,
        })
    }
}
