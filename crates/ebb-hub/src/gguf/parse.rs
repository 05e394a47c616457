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
    /// A list.
    Array(MetaArray),
}

/// A list of the metadata: its values are all of one type, and are kept as tightly, for a
/// vocabulary has a hundred thousand of them.
#[derive(Clone, Debug, PartialEq)]
pub enum MetaArray {
    /// Unsigned integers.
    Unsigned(Vec<u64>),
    /// Signed integers.
    Signed(Vec<i64>),
    /// 32 or 64 bits.
    Float(Vec<f64>),
    /// True or false.
    Bool(Vec<bool>),
    /// UTF-8.
    Text(Vec<String>),
    /// Lists of lists.
    Array(Vec<MetaArray>),
}

impl MetaArray {
    /// How many values there are.
    pub fn len(&self) -> usize {
        match self {
            MetaArray::Unsigned(values) => values.len(),
            MetaArray::Signed(values) => values.len(),
            MetaArray::Float(values) => values.len(),
            MetaArray::Bool(values) => values.len(),
            MetaArray::Text(values) => values.len(),
            MetaArray::Array(values) => values.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values, if they are texts.
    pub fn texts(&self) -> Option<&[String]> {
        match self {
            MetaArray::Text(values) => Some(values),
            _ => None,
        }
    }

    /// The values, if they are numbers of any kind. Integers beyond 2^53 are rounded.
    pub fn numbers(&self) -> Option<Vec<f64>> {
        match self {
            MetaArray::Unsigned(values) => Some(values.iter().map(|&v| v as f64).collect()),
            MetaArray::Signed(values) => Some(values.iter().map(|&v| v as f64).collect()),
            MetaArray::Float(values) => Some(values.clone()),
            _ => None,
        }
    }
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
    pub fn as_array(&self) -> Option<&MetaArray> {
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
        let value = input.value(kind, &key)?;
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

    fn boolean(&mut self, what: &str) -> Result<bool> {
        match self.array(what)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(self.damaged(format!("`{what}` is {other}, neither true nor false"))),
        }
    }

    fn value(&mut self, kind: u32, key: &str) -> Result<MetaValue> {
        Ok(match kind {
            0 => MetaValue::Unsigned(u8::from_le_bytes(self.array(key)?).into()),
            1 => MetaValue::Signed(i8::from_le_bytes(self.array(key)?).into()),
            2 => MetaValue::Unsigned(u16::from_le_bytes(self.array(key)?).into()),
            3 => MetaValue::Signed(i16::from_le_bytes(self.array(key)?).into()),
            4 => MetaValue::Unsigned(self.u32(key)?.into()),
            5 => MetaValue::Signed(i32::from_le_bytes(self.array(key)?).into()),
            6 => MetaValue::Float(f32::from_le_bytes(self.array(key)?).into()),
            7 => MetaValue::Bool(self.boolean(key)?),
            8 => MetaValue::Text(self.text(key)?),
            9 => MetaValue::Array(self.list(key, 0)?),
            10 => MetaValue::Unsigned(self.u64(key)?),
            11 => MetaValue::Signed(i64::from_le_bytes(self.array(key)?)),
            12 => MetaValue::Float(f64::from_le_bytes(self.array(key)?)),
            other => return Err(self.unknown_type(key, other)),
        })
    }

    fn list(&mut self, key: &str, depth: u32) -> Result<MetaArray> {
        if depth == DEEPEST_ARRAY {
            return Err(self.damaged(format!("`{key}` is a list of lists of lists of lists")));
        }
        let kind = self.u32(key)?;
        // What one value takes in the file, at least.
        let bytes = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            other => return Err(self.unknown_type(key, other)),
        };
        let len = self.u64(key)?;
        let left = self.bytes.len() - self.at;
        // No more is set aside than the file can fill.
        let Some(len) = usize::try_from(len).ok().filter(|&len| len <= left / bytes) else {
            let what = format!("`{key}` is a list of {len} values and {left} bytes are left");
            return Err(self.damaged(what));
        };
        Ok(match kind {
            0 => {
                MetaArray::Unsigned(self.many(len, |i| i.array(key).map(|[v]: [u8; 1]| v.into()))?)
            }
            1 => {
                MetaArray::Signed(self.many(len, |i| Ok(i8::from_le_bytes(i.array(key)?).into()))?)
            }
            2 => {
                let read = |i: &mut Self| Ok(u16::from_le_bytes(i.array(key)?).into());
                MetaArray::Unsigned(self.many(len, read)?)
            }
            3 => {
                let read = |i: &mut Self| Ok(i16::from_le_bytes(i.array(key)?).into());
                MetaArray::Signed(self.many(len, read)?)
            }
            4 => MetaArray::Unsigned(self.many(len, |i| i.u32(key).map(u64::from))?),
            5 => {
                let read = |i: &mut Self| Ok(i32::from_le_bytes(i.array(key)?).into());
                MetaArray::Signed(self.many(len, read)?)
            }
            6 => {
                let read = |i: &mut Self| Ok(f32::from_le_bytes(i.array(key)?).into());
                MetaArray::Float(self.many(len, read)?)
            }
            7 => MetaArray::Bool(self.many(len, |i| i.boolean(key))?),
            8 => MetaArray::Text(self.many(len, |i| i.text(key))?),
            9 => MetaArray::Array(self.many(len, |i| i.list(key, depth + 1))?),
            10 => MetaArray::Unsigned(self.many(len, |i| i.u64(key))?),
            11 => MetaArray::Signed(self.many(len, |i| i.array(key).map(i64::from_le_bytes))?),
            _ => MetaArray::Float(self.many(len, |i| i.array(key).map(f64::from_le_bytes))?),
        })
    }

    fn many<T>(&mut self, len: usize, read: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut values = Vec::with_capacity(len);
        for _ in 0..len {
            values.push(read(self)?);
        }
        Ok(values)
    }

    fn unknown_type(&self, key: &str, kind: u32) -> Error {
        self.damaged(format!("`{key}` is of type {kind}, there are 0 to 12"))
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
