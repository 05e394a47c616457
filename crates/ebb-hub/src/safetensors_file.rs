//! One safetensors file, mapped.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use crate::error::{At, Error, Result};
use crate::mapped::Mapped;
use crate::number::NumberType;
use crate::tensors::{TensorInfo, absent, same_length, within};

#[derive(Debug)]
pub(crate) struct SafetensorsFile {
    bytes: Mapped,
    tensors: BTreeMap<String, Stored>,
    notes: HashMap<String, String>,
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
        Ok(SafetensorsFile {
            bytes,
            tensors,
            notes: metadata.metadata().clone().unwrap_or_default(),
        })
    }

    /// A text of its metadata.
    pub fn note(&self, key: &str) -> Option<&str> {
        self.notes.get(key).map(String::as_str)
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
        let stored = self.stored(name)?;
        same_length(self.path(), &stored.info, values)?;
        self.decode(stored, 0, values).map(|_| ())
    }

    /// Reads some values, and lets go of the pages that they lie in.
    pub fn read_range_into(&self, name: &str, from: usize, values: &mut [f32]) -> Result<()> {
        let stored = self.stored(name)?;
        within(self.path(), &stored.info, from, values)?;
        let range = self.decode(stored, from, values)?;
        self.bytes.forget(range);
        Ok(())
    }

    fn stored(&self, name: &str) -> Result<&Stored> {
        let stored = self.tensors.get(name);
        stored.ok_or_else(|| absent(self.path(), name))
    }

    /// The values from `from` on, and where their bytes are.
    fn decode(&self, stored: &Stored, from: usize, values: &mut [f32]) -> Result<Range<usize>> {
        let (path, name) = (self.path(), &stored.info.name);
        let number = stored.number.as_ref().map_err(|found| {
            let what = format!(
                "it is stored as {found}; F32, F16 and BF16 are read: save the model in one of them"
            );
            Error::tensor(path, name, what)
        })?;
        if stored.range.len() != stored.info.values() * number.bytes() {
            return Err(Error::damaged(
                path,
                format!("tensor `{name}` contradicts its shape"),
            ));
        }
        let begin = stored.range.start + from * number.bytes();
        let range = begin..begin + values.len() * number.bytes();
        number.decode(&self.bytes[range.clone()], values);
        Ok(range)
    }
}

/// A file that `transformers` and `peft` load, laid out to be filled in any order and from several
/// threads.
#[derive(Debug)]
pub(crate) struct Laid {
    path: PathBuf,
    number: NumberType,
    /// Where the bytes of each tensor begin.
    begins: Vec<u64>,
}

impl Laid {
    /// Writes the header, with `notes` in its metadata, and reserves the length.
    pub fn new<'a>(
        path: &Path,
        number: NumberType,
        notes: &[(&str, String)],
        tensors: impl Iterator<Item = (&'a str, &'a [usize])>,
    ) -> Result<Laid> {
        // They want `format = "pt"` in its metadata.
        let mut metadata = Map::new();
        metadata.insert("format".into(), "pt".into());
        for (key, value) in notes {
            metadata.insert((*key).into(), value.clone().into());
        }
        let mut header = Map::new();
        header.insert("__metadata__".into(), metadata.into());
        let mut ends = vec![0];
        for (name, shape) in tensors {
            let begin = ends.last().copied().unwrap_or(0);
            let end = begin + shape.iter().product::<usize>() * number.bytes();
            let dtype = number.safetensors_name();
            let info = json!({ "dtype": dtype, "shape": shape, "data_offsets": [begin, end] });
            header.insert(name.into(), info);
            ends.push(end);
        }
        let mut header = Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let data = 8 + header.len() as u64;
        let mut file = File::create_new(path).at("create", path)?;
        let length = (header.len() as u64).to_le_bytes();
        let all = data + ends.last().map_or(0, |end| *end as u64);
        file.write_all(&length)
            .and_then(|()| file.write_all(&header))
            .and_then(|()| file.set_len(all))
            .at("write", path)?;
        Ok(Laid {
            path: path.into(),
            number,
            begins: ends.iter().map(|begin| data + *begin as u64).collect(),
        })
    }

    /// Writes values of tensor number `tensor`, from its value `from` on.
    pub fn put(&self, tensor: usize, from: usize, values: &[f32]) -> Result<()> {
        let path = &self.path;
        // A handle of its own: writers on other threads have other places.
        let mut file = OpenOptions::new().write(true).open(path).at("open", path)?;
        let place = self.begins[tensor] + (from * self.number.bytes()) as u64;
        file.seek(SeekFrom::Start(place)).at("write", path)?;
        let mut buffer = Vec::new();
        for part in values.chunks(1 << 16) {
            buffer.clear();
            self.number.encode(part, &mut buffer);
            file.write_all(&buffer).at("write", path)?;
        }
        Ok(())
    }

    /// Waits until it is on the disk.
    pub fn finish(&self) -> Result<()> {
        let file = File::open(&self.path).at("open", &self.path)?;
        file.sync_all().at("write", &self.path)
    }
}

/// Writes a whole file.
pub(crate) fn write<'a>(
    path: &Path,
    number: NumberType,
    notes: &[(&str, String)],
    tensors: impl Iterator<Item = (&'a str, &'a [usize], &'a [f32])> + Clone,
) -> Result<()> {
    let shapes = tensors.clone().map(|(name, shape, _)| (name, shape));
    let file = Laid::new(path, number, notes, shapes)?;
    for (i, (_, _, values)) in tensors.enumerate() {
        file.put(i, 0, values)?;
    }
    file.finish()
}
