//! One safetensors file, mapped.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use crate::error::{At, Error, Result};
use crate::mapped::Mapped;
use crate::number::NumberType;
use crate::tensors::{TensorInfo, absent, same_length};

#[derive(Debug)]
pub(crate) struct SafetensorsFile {
    bytes: Mapped,
    tensors: BTreeMap<String, Stored>,
}

#[derive(Debug)]
struct Stored {
    info: TensorInfo,
    number: std::result::Result<NumberType, String>,
    /// Where its bytes lie in the file.
    range: Range<usize>,
}

impl SafetensorsFile {
    /// Reads the header; the library checks it against the length of the file.
    pub fn open(path: &Path) -> Result<SafetensorsFile> {
        let bytes = Mapped::open(path)?;
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| {
            Error::damaged(path, format!("it is not a whole safetensors file ({e})"))
        })?;
        // Eight bytes say how long the header is.
        let data = header.saturating_add(8);
        let mut tensors = BTreeMap::new();
        for (name, info) in metadata.tensors() {
            let (from, to) = info.data_offsets;
            let range = data.saturating_add(from)..data.saturating_add(to);
            if range.start > range.end || range.end > bytes.len() {
                return Err(Error::damaged(
                    path,
                    format!("tensor `{name}` lies outside of it"),
                ));
            }
            let number = match info.dtype {
                Dtype::F32 => Ok(NumberType::F32),
                Dtype::F16 => Ok(NumberType::F16),
                Dtype::BF16 => Ok(NumberType::BF16),
                other => Err(format!("{other:?}")),
            };
            let shape = info.shape.clone();
            let stored = Stored {
                info: TensorInfo {
                    name: name.clone(),
                    shape,
                },
                number,
                range,
            };
            tensors.insert(name, stored);
        }
        Ok(SafetensorsFile { bytes, tensors })
    }

    pub fn path(&self) -> &Path {
        self.bytes.path()
    }

    /// Sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values().map(|stored| &stored.info)
    }

    pub fn number(&self, name: &str) -> Option<NumberType> {
        self.tensors.get(name)?.number.clone().ok()
    }

    pub fn read_into(&self, name: &str, values: &mut [f32]) -> Result<()> {
        let path = self.path();
        let stored = self.tensors.get(name).ok_or_else(|| absent(path, name))?;
        same_length(path, &stored.info, values)?;
        let number = stored.number.as_ref().map_err(|found| {
            let what = format!(
                "it is stored as {found}; F32, F16 and BF16 are read: save the model in one of them"
            );
            Error::tensor(path, name, what)
        })?;
        let bytes = &self.bytes[stored.range.clone()];
        if bytes.len() != values.len() * number.bytes() {
            return Err(Error::damaged(
                path,
                format!("tensor `{name}` contradicts its shape"),
            ));
        }
        number.decode(bytes, values);
        Ok(())
    }
}

/// Writes a file that `transformers` and `peft` load: they want `format = "pt"` in its metadata.
pub(crate) fn write<'a>(
    path: &Path,
    number: NumberType,
    tensors: impl Iterator<Item = (&'a str, &'a [usize], &'a [f32])> + Clone,
) -> Result<()> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut begin = 0;
    for (name, shape, values) in tensors.clone() {
        let end = begin + values.len() * number.bytes();
        let dtype = number.safetensors_name();
        let info = json!({ "dtype": dtype, "shape": shape, "data_offsets": [begin, end] });
        header.insert(name.into(), info);
        begin = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');

    let file = std::fs::File::create_new(path).at("create", path)?;
    let mut out = std::io::BufWriter::new(file);
    let mut put = |part: &[u8]| out.write_all(part).at("write", path);
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    let mut buffer = Vec::new();
    for (_, _, values) in tensors {
        for part in values.chunks(1 << 14) {
            buffer.clear();
            number.encode(part, &mut buffer);
            put(&buffer)?;
        }
    }
    let file = out
        .into_inner()
        .map_err(|e| e.into_error())
        .at("write", path)?;
    file.sync_all().at("write", path)
}
