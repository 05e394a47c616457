use std::fs;
use std::path::{Path, PathBuf};

use ebb_space::Weights;
use serde_json::{Map, Value, json};

use crate::error::{At, Error, Result};
use crate::folder::INDEX;
use crate::number::NumberType;
use crate::safetensors_file::Laid;
use crate::tensors::TensorInfo;
use crate::tokenizer::Tokenizer;

/// What of a tokenizer and of generation is carried over as it is.
const COMPANIONS: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
];

/// Writes a Hugging Face folder that `transformers` loads.
///
/// ```no_run
/// # fn f(weights: &ebb_space::Weights) -> ebb_hub::Result<()> {
/// let base = ebb_hub::Folder::open("SmolLM2-135M")?;
/// ebb_hub::FolderWriter::new(base.config().clone())
///     .companions_of("SmolLM2-135M")
///     .write("SmolLM2-135M-tuned", weights)
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct FolderWriter {
    config: Map<String, Value>,
    number: NumberType,
    shard_bytes: usize,
    companions: Option<PathBuf>,
    texts: Vec<(String, String)>,
}

impl FolderWriter {
    /// A folder with this `config.json`; its number type is set to the one that is written, for
    /// a loader that believes another would round the weights.
    pub fn new(config: Map<String, Value>) -> FolderWriter {
        FolderWriter {
            config,
            number: NumberType::F32,
            // What `transformers` of this time uses for its own shards.
            shard_bytes: 5_000_000_000,
            companions: None,
            texts: Vec::new(),
        }
    }

    /// How numbers are stored; F32 if not said.
    #[must_use]
    pub fn number_type(mut self, number: NumberType) -> FolderWriter {
        self.number = number;
        self
    }

    /// The most bytes of tensors in one file, except that a tensor is never split; 5 GB if not
    /// said.
    #[must_use]
    pub fn shard_bytes(mut self, bytes: usize) -> FolderWriter {
        self.shard_bytes = bytes;
        self
    }

    /// Copies the tokenizer, the chat template and the generation config of this folder.
    #[must_use]
    pub fn companions_of(mut self, folder: impl Into<PathBuf>) -> FolderWriter {
        self.companions = Some(folder.into());
        self
    }

    /// Adds a file with this text; it takes the place of a companion of the same name.
    #[must_use]
    pub fn text(mut self, name: impl Into<String>, text: impl Into<String>) -> FolderWriter {
        self.texts.push((name.into(), text.into()));
        self
    }

    /// Adds this tokenizer and its chat template, as [`Tokenizer::files`] spells them.
    ///
    /// # Errors
    /// [`Error::Tokenize`].
    pub fn tokenizer(mut self, tokenizer: &Tokenizer) -> Result<FolderWriter> {
        for (name, text) in tokenizer.files()? {
            self = self.text(name, text);
        }
        Ok(self)
    }

    /// Writes the folder: all of it, or nothing.
    ///
    /// # Errors
    /// [`Error::Exists`] if `path` is there and not empty; [`Error::Io`].
    pub fn write(&self, path: impl AsRef<Path>, weights: &Weights) -> Result<()> {
        let tensors: Vec<TensorInfo> = weights
            .iter()
            .map(|(entry, _)| TensorInfo {
                name: entry.path.clone(),
                shape: entry.shape.clone(),
            })
            .collect();
        self.write_pieces(path, &tensors, |pieces| {
            let mut each = weights.iter().enumerate();
            each.try_for_each(|(i, (_, values))| pieces.put(i, 0, values))
        })
    }

    /// The same with tensors that `fill` puts in piece by piece, in any order and from several
    /// threads.
    ///
    /// # Errors
    /// As [`write`](Self::write), and those of `fill`: nothing is left of the folder then.
    pub fn write_pieces<T>(
        &self,
        path: impl AsRef<Path>,
        tensors: &[TensorInfo],
        fill: impl FnOnce(&Pieces) -> Result<T>,
    ) -> Result<T> {
        let path = path.as_ref();
        if fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) || path.is_file() {
            return Err(Error::Exists { path: path.into() });
        }
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).at("create", parent)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let draft = parent.join(format!(".{name}.unfinished-{}", std::process::id()));
        fs::create_dir(&draft).at("create", &draft)?;
        let written = self.fill(&draft, tensors, fill).and_then(|given| {
            // An empty folder gives way.
            fs::rename(&draft, path).at("create", path)?;
            Ok(given)
        });
        if written.is_err() {
            // What stopped the writing is the error to tell, not what stops the tidying up.
            let _ = fs::remove_dir_all(&draft);
        }
        written
    }

    fn fill<T>(
        &self,
        folder: &Path,
        tensors: &[TensorInfo],
        fill: impl FnOnce(&Pieces) -> Result<T>,
    ) -> Result<T> {
        let mut config = self.config.clone();
        let key = if config.contains_key("dtype") {
            "dtype"
        } else {
            "torch_dtype"
        };
        config.insert(key.into(), self.number.torch_name().into());
        put(&folder.join("config.json"), &pretty(&config))?;

        if let Some(from) = &self.companions {
            for name in COMPANIONS {
                let source = from.join(name);
                if source.is_file() && !self.texts.iter().any(|(own, _)| own == name) {
                    let text = fs::read(&source).at("read", &source)?;
                    put(&folder.join(name), &text)?;
                }
            }
        }
        for (name, text) in &self.texts {
            put(&folder.join(name), text.as_bytes())?;
        }
        let pieces = self.lay_out(folder, tensors)?;
        let given = fill(&pieces)?;
        pieces.shards.iter().try_for_each(Laid::finish)?;
        Ok(given)
    }

    /// Files with room for all tensors.
    fn lay_out(&self, folder: &Path, tensors: &[TensorInfo]) -> Result<Pieces> {
        let mut shards = vec![Vec::new()];
        let (mut in_shard, mut total) = (0, 0);
        let mut places = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let bytes = tensor.values() * self.number.bytes();
            if in_shard > 0 && in_shard + bytes > self.shard_bytes {
                shards.push(Vec::new());
                in_shard = 0;
            }
            in_shard += bytes;
            total += bytes;
            let at = shards.len() - 1;
            places.push((at, shards[at].len()));
            shards[at].push((tensor.name.as_str(), tensor.shape.as_slice()));
        }
        let single = shards.len() == 1;
        let name = |i: usize| match single {
            true => "model.safetensors".to_owned(),
            false => format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len()),
        };
        let laid = shards.iter().enumerate().map(|(i, shard)| {
            let tensors = shard.iter().copied();
            Laid::new(&folder.join(name(i)), self.number, &[], tensors)
        });
        let laid: Vec<Laid> = laid.collect::<Result<_>>()?;
        if !single {
            let mut map = Map::new();
            for (i, shard) in shards.iter().enumerate() {
                for (tensor, _) in shard {
                    map.insert((*tensor).to_owned(), name(i).into());
                }
            }
            let mut index = Map::new();
            index.insert("metadata".into(), json!({ "total_size": total }));
            index.insert("weight_map".into(), map.into());
            put(&folder.join(INDEX), &pretty(&index))?;
        }
        Ok(Pieces {
            shards: laid,
            places,
        })
    }
}

/// Tensors of a folder that is being written.
#[derive(Debug)]
pub struct Pieces {
    shards: Vec<Laid>,
    /// In which file a tensor is, and at which place of it.
    places: Vec<(usize, usize)>,
}

impl Pieces {
    /// Writes values of the tensor with this number, from its value `from` on.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn put(&self, tensor: usize, from: usize, values: &[f32]) -> Result<()> {
        let (shard, at) = self.places[tensor];
        self.shards[shard].put(at, from, values)
    }
}

pub(crate) fn pretty(object: &Map<String, Value>) -> Vec<u8> {
    format!("{:#}\n", Value::Object(object.clone())).into_bytes()
}

pub(crate) fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).at("write", path)
}
