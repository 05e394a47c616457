use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{At, Error, Result};
use crate::number::NumberType;
use crate::safetensors_file::SafetensorsFile;
use crate::tensors::{TensorInfo, Tensors, absent};

const CONFIG: &str = "config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// A Hugging Face folder: `config.json` and the tensors of `model.safetensors`, or of the shards
/// that `model.safetensors.index.json` lists. Tensors stay on the disk until they are read.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    config: Map<String, Value>,
    shards: Vec<SafetensorsFile>,
    tensors: Vec<TensorInfo>,
    /// Which shard holds a tensor.
    shard_of: BTreeMap<String, usize>,
}

impl Folder {
    /// Opens a folder and reads its configuration and the headers of its shards.
    ///
    /// # Errors
    /// [`Error::Missing`] without `config.json` or safetensors; [`Error::Damaged`] where a file
    /// cannot be read or the index contradicts the shards; [`Error::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Folder> {
        let path = path.as_ref();
        let config = object(&path.join(CONFIG))?.ok_or_else(|| {
            let what = format!("`{CONFIG}`: give the folder of a Hugging Face model");
            Error::missing(path, what)
        })?;
        let (shards, index) = shards(path)?;
        let mut found: BTreeMap<String, (usize, TensorInfo)> = BTreeMap::new();
        for (i, shard) in shards.iter().enumerate() {
            for info in shard.tensors() {
                if found.insert(info.name.clone(), (i, info.clone())).is_some() {
                    let what = format!("tensor `{}` is in two shards", info.name);
                    return Err(Error::damaged(path, what));
                }
            }
        }
        for (name, file) in &index {
            let holds = found
                .get(name)
                .and_then(|(i, _)| shards[*i].path().file_name());
            if holds.is_none_or(|holds| holds != file.as_str()) {
                let what = format!("the index says that `{file}` holds `{name}`, it does not");
                return Err(Error::damaged(&path.join(INDEX), what));
            }
        }
        let shard_of = found
            .iter()
            .map(|(name, (i, _))| (name.clone(), *i))
            .collect();
        let tensors = found.into_values().map(|(_, info)| info).collect();
        Ok(Folder {
            path: path.into(),
            config,
            shards,
            tensors,
            shard_of,
        })
    }

    /// `config.json`, as it stands.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// `generation_config.json`, where there is one.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is no JSON object; [`Error::Io`].
    pub fn generation_config(&self) -> Result<Option<Map<String, Value>>> {
        object(&self.path.join(GENERATION_CONFIG))
    }

    /// How a tensor is stored; `None` if there is none or its numbers are of another kind.
    pub fn number_type(&self, name: &str) -> Option<NumberType> {
        self.shards[*self.shard_of.get(name)?].number(name)
    }
}

impl Tensors for Folder {
    fn path(&self) -> &Path {
        &self.path
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn read_into(&self, name: &str, values: &mut [f32]) -> Result<()> {
        let shard = self
            .shard_of
            .get(name)
            .ok_or_else(|| absent(&self.path, name))?;
        self.shards[*shard].read_into(name, values)
    }

    fn read_range_into(&self, name: &str, from: usize, values: &mut [f32]) -> Result<()> {
        let shard = self
            .shard_of
            .get(name)
            .ok_or_else(|| absent(&self.path, name))?;
        self.shards[*shard].read_range_into(name, from, values)
    }
}

/// The files with tensors, and which tensor the index expects in which of them.
fn shards(path: &Path) -> Result<(Vec<SafetensorsFile>, BTreeMap<String, String>)> {
    let single = path.join(SINGLE);
    if single.is_file() {
        return Ok((vec![SafetensorsFile::open(&single)?], BTreeMap::new()));
    }
    let index_path = path.join(INDEX);
    let Some(index) = object(&index_path)? else {
        let pickled = path.join("pytorch_model.bin").exists();
        let advice = if pickled {
            ", only a pickled `pytorch_model.bin`, which can run code and is not read: save the \
             model again with `safe_serialization=True`"
        } else {
            ": give the folder of a Hugging Face model with its weights"
        };
        return Err(Error::missing(
            path,
            format!("`{SINGLE}` or `{INDEX}`{advice}"),
        ));
    };
    let map = index
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| {
            Error::damaged(&index_path, "it has no `weight_map` from tensors to files")
        })?;
    let mut index = BTreeMap::new();
    for (name, file) in map {
        // A file of this folder and no other: an index must not reach out of it.
        let file = file.as_str().filter(|f| {
            let mut parts = Path::new(f).components();
            matches!(parts.next(), Some(std::path::Component::Normal(_))) && parts.next().is_none()
        });
        let Some(file) = file else {
            let what = format!("its `weight_map` names no file of this folder for `{name}`");
            return Err(Error::damaged(&index_path, what));
        };
        index.insert(name.clone(), file.to_owned());
    }
    let mut files: Vec<&String> = index.values().collect();
    files.sort_unstable();
    files.dedup();
    let mut shards = Vec::with_capacity(files.len());
    for file in files {
        let shard = path.join(file);
        if !shard.is_file() {
            let what = format!("shard `{file}`, which its index lists: download the rest of it");
            return Err(Error::missing(path, what));
        }
        shards.push(SafetensorsFile::open(&shard)?);
    }
    Ok((shards, index))
}

/// A JSON object in a file; `None` if there is no such file.
pub(crate) fn object(path: &Path) -> Result<Option<Map<String, Value>>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).at("read", path),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| Error::damaged(path, format!("it is no JSON object ({e})")))
}
