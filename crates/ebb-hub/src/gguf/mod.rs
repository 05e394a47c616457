//! GGUF files.

mod blocks;
mod config;
mod names;
mod parse;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::mapped::Mapped;
use crate::tensors::{TensorInfo, Tensors, absent, same_length, within};
use names::{Change, Place};

pub use blocks::BlockType;
pub use parse::{MetaArray, MetaValue};

/// The kinds of model that are read from GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Architecture {
    Llama,
    Qwen2,
    Qwen3,
    Gemma3,
    Gpt2,
    GptNeoX,
}

impl Architecture {
    const ALL: [(&'static str, Architecture); 6] = [
        ("llama", Architecture::Llama),
        ("qwen2", Architecture::Qwen2),
        ("qwen3", Architecture::Qwen3),
        ("gemma3", Architecture::Gemma3),
        ("gpt2", Architecture::Gpt2),
        ("gptneox", Architecture::GptNeoX),
    ];
}

/// A GGUF file, mapped: its metadata, and its tensors under the names and in the layout that
/// `transformers` has for them. Blocks are dequantised when a tensor is read.
#[derive(Debug)]
pub struct Gguf {
    file: Mapped,
    metadata: BTreeMap<String, MetaValue>,
    architecture: Architecture,
    /// What `general.architecture` calls it, and with which the keys of the metadata begin.
    prefix: String,
    tensors: Vec<TensorInfo>,
    /// In the order of `tensors`.
    stored: Vec<Stored>,
    /// What each rotary frequency is divided by, where the file says so.
    rotary_factors: Option<Vec<f32>>,
}

#[derive(Debug)]
struct Stored {
    block: BlockType,
    range: Range<usize>,
    rows: usize,
    columns: usize,
    change: Change,
}

impl Gguf {
    /// Opens a file and checks its metadata and tensor table against its length.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another version, architecture, tensor or number type;
    /// [`Error::Damaged`] for a file that is cut short or contradicts itself; [`Error::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Gguf> {
        let file = Mapped::open(path.as_ref())?;
        let path = file.path();
        let parsed = parse::parse(path, &file)?;
        let metadata = parsed.metadata;
        let prefix = text(path, &metadata, "general.architecture")?.to_owned();
        let known = Architecture::ALL.iter().find(|(name, _)| *name == prefix);
        let Some(&(_, architecture)) = known else {
            let all = Architecture::ALL.map(|(name, _)| name).join(", ");
            let what = format!("it holds a model of the architecture `{prefix}`; {all} are read");
            return Err(Error::unsupported(path, what));
        };
        let heads = size(path, &metadata, &format!("{prefix}.attention.head_count"))?;
        let key_value_heads = match metadata.get(&format!("{prefix}.attention.head_count_kv")) {
            None => heads,
            Some(_) => size(
                path,
                &metadata,
                &format!("{prefix}.attention.head_count_kv"),
            )?,
        };

        let mut rotary_factors = None;
        let mut found: BTreeMap<String, (TensorInfo, Stored)> = BTreeMap::new();
        for line in parsed.table {
            let name = &line.name;
            let block = line.block.map_err(|kind| {
                let what = format!(
                    "tensor `{name}` is stored as {kind}; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, \
                     Q5_1, Q4_K, Q5_K and Q6_K are read: use a file of another quantisation"
                );
                Error::unsupported(path, what)
            })?;
            let range = place_in_file(path, name, block, &line.shape, parsed.data, line.offset)?;
            if range.end > file.len() {
                let what = format!(
                    "tensor `{name}` ends at byte {} and the file at byte {}",
                    range.end,
                    file.len()
                );
                return Err(Error::damaged(path, what));
            }
            let place = names::place(architecture, name, heads, key_value_heads);
            let Some(place) = place else {
                let what = format!("`{prefix}` models have no tensor `{name}` that is known here");
                return Err(Error::unsupported(path, what));
            };
            let (rows, columns) = match line.shape[..] {
                // A bias: one number in a row.
                [rows] => (rows, 1),
                [rows, columns] => (rows, columns),
                _ => {
                    let what = format!("tensor `{name}` has {} dimensions", line.shape.len());
                    return Err(Error::unsupported(path, what));
                }
            };
            let Place::Parameter(name, change) = place else {
                let mut factors = vec![0.0; rows * columns];
                block.decode(&file[range], &mut factors);
                rotary_factors = Some(factors);
                continue;
            };
            if !change.fits(rows) {
                let what = format!("`{name}` has {rows} rows, which its heads cannot share");
                return Err(Error::damaged(path, what));
            }
            let mut shape = line.shape;
            if change == Change::Transposed {
                shape.reverse();
            }
            let info = TensorInfo {
                name: name.clone(),
                shape,
            };
            let stored = Stored {
                block,
                range,
                rows,
                columns,
                change,
            };
            if found.insert(name.clone(), (info, stored)).is_some() {
                return Err(Error::damaged(
                    path,
                    format!("it has tensor `{name}` twice"),
                ));
            }
        }
        apart(path, found.values())?;
        let (tensors, stored) = found.into_values().unzip();
        Ok(Gguf {
            file,
            metadata,
            architecture,
            prefix,
            tensors,
            stored,
            rotary_factors,
        })
    }

    /// The metadata, by key.
    pub fn metadata(&self) -> &BTreeMap<String, MetaValue> {
        &self.metadata
    }

    /// How a tensor is stored.
    pub fn block_type(&self, name: &str) -> Option<BlockType> {
        let at = self
            .tensors
            .binary_search_by(|t| t.name.as_str().cmp(name))
            .ok()?;
        Some(self.stored[at].block)
    }

    /// The `config.json` of the model in this file.
    ///
    /// # Errors
    /// [`Error::Damaged`] where the metadata lack a size or contradict the tensors;
    /// [`Error::Unsupported`] for a scaling of rotary embeddings that is not known.
    pub fn config(&self) -> Result<Map<String, Value>> {
        config::config(self)
    }

    /// The chat template, where the file has one.
    pub fn chat_template(&self) -> Option<&str> {
        self.metadata.get("tokenizer.chat_template")?.as_str()
    }
}

impl Tensors for Gguf {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn read_into(&self, name: &str, values: &mut [f32]) -> Result<()> {
        let at = self.tensors.binary_search_by(|t| t.name.as_str().cmp(name));
        let at = at.map_err(|_| absent(self.path(), name))?;
        let stored = &self.stored[at];
        same_length(self.path(), &self.tensors[at], values)?;
        let bytes = &self.file[stored.range.clone()];
        if stored.change == Change::Same {
            stored.block.decode(bytes, values);
        } else {
            let mut whole = vec![0.0; values.len()];
            stored.block.decode(bytes, &mut whole);
            stored
                .change
                .undo(&whole, stored.rows, stored.columns, values);
        }
        Ok(())
    }

    fn has_ranges(&self, name: &str) -> bool {
        let at = self.tensors.binary_search_by(|t| t.name.as_str().cmp(name));
        at.is_ok_and(|at| self.stored[at].change == Change::Same)
    }

    fn read_range_into(&self, name: &str, from: usize, values: &mut [f32]) -> Result<()> {
        let at = self.tensors.binary_search_by(|t| t.name.as_str().cmp(name));
        let at = at.map_err(|_| absent(self.path(), name))?;
        let (info, stored) = (&self.tensors[at], &self.stored[at]);
        within(self.path(), info, from, values)?;
        let block = stored.block.values();
        let whole_blocks = from.is_multiple_of(block) && values.len().is_multiple_of(block);
        if stored.change == Change::Same && whole_blocks {
            let bytes = |values: usize| values / block * stored.block.bytes();
            let begin = stored.range.start + bytes(from);
            let range = begin..begin + bytes(values.len());
            stored.block.decode(&self.file[range.clone()], values);
            self.file.forget(range);
        } else {
            // What stands in another order is put in order whole.
            let mut whole = vec![0.0; info.values()];
            self.read_into(name, &mut whole)?;
            values.copy_from_slice(&whole[from..from + values.len()]);
            self.file.forget(stored.range.clone());
        }
        Ok(())
    }
}

/// Refuses tensors that share bytes: together they would be larger than the file.
fn apart<'a>(path: &Path, found: impl Iterator<Item = &'a (TensorInfo, Stored)>) -> Result<()> {
    let mut placed: Vec<_> = found
        .map(|(info, stored)| (&stored.range, &info.name))
        .filter(|(range, _)| !range.is_empty())
        .collect();
    placed.sort_unstable_by_key(|(range, _)| range.start);
    for pair in placed.windows(2) {
        if let [(first, name), (second, other)] = pair
            && first.end > second.start
        {
            let what = format!("tensors `{name}` and `{other}` lie in the same place");
            return Err(Error::damaged(path, what));
        }
    }
    Ok(())
}

/// Where the bytes of a tensor lie, from its shape and its offset in the data.
fn place_in_file(
    path: &Path,
    name: &str,
    block: BlockType,
    shape: &[usize],
    data: usize,
    offset: u64,
) -> Result<Range<usize>> {
    // Blocks do not cross rows.
    let columns = shape.last().copied().unwrap_or(1);
    if !columns.is_multiple_of(block.values()) {
        let what = format!("tensor `{name}` has rows of {columns} values, not of whole blocks");
        return Err(Error::damaged(path, what));
    }
    let place = || {
        let values = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        // Dequantised it must fit into memory too.
        values
            .checked_mul(size_of::<f32>())
            .filter(|&bytes| bytes <= isize::MAX as usize)?;
        let bytes = (values / block.values()).checked_mul(block.bytes())?;
        let start = data.checked_add(usize::try_from(offset).ok()?)?;
        Some(start..start.checked_add(bytes)?)
    };
    place().ok_or_else(|| {
        let what = format!("tensor `{name}` of shape {shape:?} is larger than any memory");
        Error::damaged(path, what)
    })
}

fn text<'a>(path: &Path, metadata: &'a BTreeMap<String, MetaValue>, key: &str) -> Result<&'a str> {
    let value = metadata.get(key).and_then(MetaValue::as_str);
    value.ok_or_else(|| Error::damaged(path, format!("its metadata have no text `{key}`")))
}

fn size(path: &Path, metadata: &BTreeMap<String, MetaValue>, key: &str) -> Result<usize> {
    let value = metadata.get(key).and_then(MetaValue::as_usize);
    value.ok_or_else(|| Error::damaged(path, format!("its metadata have no number `{key}`")))
}
