//! A decoder with everything that belongs to it.

use crate::error::{Error, Result};
use burn::tensor::Device;
use ebb_hub::{
    Adapter, AdapterConfig, ChatOptions, Folder, FolderWriter, Gguf, Message, Tensors, Tokenizer,
};
use ebb_net::{Decoder, DecoderConfig, Model, Stored};
use ebb_space::{Key, Weights};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Positions that a network is built for unless its context is shorter. Texts may be as long as
/// the context; this is the width of a row that is not said otherwise.
const POSITIONS: usize = 1024;

/// A decoder, its weights, its tokenizer and its chat template.
pub struct LanguageModel {
    /// The network's parts.
    pub decoder: Arc<Decoder>,
    /// The network with its weights.
    pub model: Model,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    config: Map<String, Value>,
    stops: Vec<u32>,
    origin: PathBuf,
}

impl LanguageModel {
    /// The model in a Hugging Face folder or a GGUF file, on the processor.
    ///
    /// # Errors
    /// As [`open_on`](Self::open_on).
    pub fn open(path: impl AsRef<Path>) -> Result<LanguageModel> {
        Self::open_on(path, &Device::flex())
    }

    /// The same on `device`.
    ///
    /// # Errors
    /// [`Error::NoModel`], [`Error::Hub`] for files that are missing, damaged or of a kind that is
    /// not read, [`Error::Net`] for an architecture that is not known.
    pub fn open_on(path: impl AsRef<Path>, device: &Device) -> Result<LanguageModel> {
        let path = path.as_ref();
        if path.is_dir() {
            let folder = Folder::open(path)?;
            let tokenizer = Tokenizer::open(path)?;
            let mut stops = ends(folder.config());
            if let Some(generation) = folder.generation_config()? {
                stops.extend(ends(&generation));
            }
            let config = folder.config().clone();
            Self::put_together(&folder, config, tokenizer, stops, device)
        } else if path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
        {
            let gguf = Gguf::open(path)?;
            let tokenizer = Tokenizer::from_gguf(&gguf)?;
            let config = gguf.config()?;
            let stops = ends(&config);
            Self::put_together(&gguf, config, tokenizer, stops, device)
        } else {
            Err(Error::NoModel {
                path: path.to_owned(),
            })
        }
    }

    /// Where the model called `name` is: one that `ebb data fetch` brought into `data_dir`, a
    /// folder, or a GGUF file.
    ///
    /// # Errors
    /// [`Error::Request`], which says how to get it.
    pub fn find(name: &str, data_dir: &Path) -> Result<PathBuf> {
        let known = ebb_data::models();
        if let Some(model) = known.iter().find(|model| model.name == name) {
            return model.path(data_dir).ok_or_else(|| {
                Error::Request(format!(
                    "the model {name} is not on this machine: `ebb data fetch {name}` brings it \
                     ({} MB)",
                    model.bytes / 1_000_000
                ))
            });
        }
        let path = PathBuf::from(name);
        match path.exists() {
            true => Ok(path),
            false => {
                let known: Vec<&str> = known.iter().map(|m| m.name).collect();
                Err(Error::Request(format!(
                    "there is no model `{name}`: give a folder with config.json and safetensors, \
                     a .gguf file, or one of {}",
                    known.join(", ")
                )))
            }
        }
    }

    /// A model with fresh weights, a pure function of `key`: `config` is a `config.json`, and rows
    /// have `positions` tokens unless said otherwise.
    ///
    /// # Errors
    /// [`Error::Net`] for a configuration that makes no network.
    pub fn fresh(
        config: Map<String, Value>,
        tokenizer: Tokenizer,
        positions: usize,
        key: Key,
        device: &Device,
    ) -> Result<LanguageModel> {
        let read = DecoderConfig::from_json(&Value::Object(config.clone()).to_string())?;
        let decoder = Arc::new(Decoder::new(read, positions)?);
        let eos = tokenizer.special().eos.as_deref();
        let stops = eos.and_then(|eos| tokenizer.id(eos)).into_iter().collect();
        Ok(LanguageModel {
            model: Model::new(decoder.clone(), key, device),
            decoder,
            tokenizer,
            config,
            stops,
            origin: PathBuf::new(),
        })
    }

    /// The same weights in a network whose rows have `positions` tokens unless said otherwise.
    ///
    /// # Errors
    /// [`Error::Net`] for more than its context.
    pub fn with_positions(mut self, positions: usize) -> Result<LanguageModel> {
        let decoder = Arc::new(Decoder::new(self.decoder.config().clone(), positions)?);
        self.model = self.model.with_network(decoder.clone())?;
        self.decoder = decoder;
        Ok(self)
    }

    fn put_together(
        files: &dyn Tensors,
        config: Map<String, Value>,
        tokenizer: Tokenizer,
        mut stops: Vec<u32>,
        device: &Device,
    ) -> Result<LanguageModel> {
        let read = DecoderConfig::from_json(&Value::Object(config.clone()).to_string())?;
        let positions = read.longest().min(POSITIONS);
        let decoder = Arc::new(Decoder::new(read, positions)?);
        if tokenizer.len() > decoder.config().vocabulary {
            return Err(Error::Request(format!(
                "the tokenizer of `{}` has {} tokens and the network {}: they belong to different \
                 models",
                files.path().display(),
                tokenizer.len(),
                decoder.config().vocabulary
            )));
        }
        // The fresh weights that a model begins with are replaced at once.
        let mut model = Model::new(decoder.clone(), Key::new(0, "replaced"), device);
        model.set_weights(&files.load(model.layout())?)?;
        let special = tokenizer.special().eos.as_deref();
        stops.extend(special.and_then(|eos| tokenizer.id(eos)));
        stops.sort_unstable();
        stops.dedup();
        Ok(LanguageModel {
            decoder,
            model,
            tokenizer,
            config,
            stops,
            origin: files.path().to_owned(),
        })
    }

    /// Adds what a PEFT adapter (LoRA) learned to the weights.
    ///
    /// # Errors
    /// [`Error::Hub`] when the folder holds no adapter, or one of another model.
    pub fn merge_adapter(&mut self, folder: impl AsRef<Path>) -> Result<()> {
        let adapter = Adapter::open(folder)?;
        let mut weights = self.model.merged_weights()?;
        adapter.merge_into(&mut weights)?;
        Ok(self.model.set_whole(&weights)?)
    }

    /// Writes what an adapter learned as a folder that PEFT loads; `base` is the model it belongs
    /// to, by the name that PEFT finds it under.
    ///
    /// # Errors
    /// [`Error::Request`] for a model without an adapter, [`Error::Net`] for one whose ranks answer
    /// the input, [`Error::Hub`] if the folder holds one already or cannot be written.
    pub fn save_adapter(&self, folder: impl AsRef<Path>, base: Option<&str>) -> Result<()> {
        let factors = self.model.adapter_factors()?;
        let Some(first) = factors.first() else {
            return Err(Error::Request(
                "the run trained no adapter: leave `--adapter` out to write the whole model".into(),
            ));
        };
        let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
        let modules: BTreeSet<String> = factors.iter().map(|f| last(&f.map.path)).collect();
        let alpha = f64::from(first.scale) * first.rank as f64;
        let mut config = AdapterConfig::new(first.rank, alpha, modules.iter().map(String::as_str));
        config.fan_in_fan_out = first.map.stored == Stored::InOut;
        config.base_model_name_or_path = base.map(str::to_owned);
        let factors = factors.into_iter();
        let factors = factors.map(|f| (f.map.path, f.map.inputs, f.down, f.up));
        Ok(Adapter::new(config, factors)?.write(folder)?)
    }

    /// Where it was read from.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// Tokens that end a text.
    pub fn stops(&self) -> &[u32] {
        &self.stops
    }

    /// Tokens of white space with the end of a line in it.
    ///
    /// # Errors
    /// [`Error::Hub`] when the tokenizer refuses one.
    pub fn line_ends(&self) -> Result<Vec<u32>> {
        let mut found = Vec::new();
        for id in 0..self.tokenizer.len() as u32 {
            let text = self.tokenizer.decode(&[id], true)?;
            if text.contains('\n') && text.trim().is_empty() {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// Writes a folder that `transformers` loads: configuration, weights in 32-bit floats,
    /// tokenizer.
    ///
    /// # Errors
    /// [`Error::Hub`] if the folder is there already or cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        self.save_weights(folder, &self.model.merged_weights()?)
    }

    /// The same with other weights of this network.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn save_weights(&self, folder: impl AsRef<Path>, weights: &Weights) -> Result<()> {
        let writer = FolderWriter::new(self.config.clone()).tokenizer(&self.tokenizer)?;
        Ok(writer.write(folder, weights)?)
    }

    /// Tokens of a prompt that is to be continued, as `transformers` reads it: with what the model
    /// puts around every text, and nothing more. An empty prompt is the start of a text.
    ///
    /// # Errors
    /// [`Error::Hub`] when the tokenizer refuses the text.
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        let tokens = self.tokenizer.encode(text, true)?;
        match tokens.is_empty() {
            true => self.begin(text),
            false => Ok(tokens),
        }
    }

    /// Tokens of a text with what the model puts around every text. Where that is nothing, the
    /// token that begins texts, or else the one that ends them, stands first, so that the first
    /// word is predicted too.
    ///
    /// # Errors
    /// [`Error::Hub`] when the tokenizer refuses the text.
    pub fn begin(&self, text: &str) -> Result<Vec<u32>> {
        let tokens = self.tokenizer.encode(text, true)?;
        let special = self.tokenizer.special();
        let first = special.bos.as_ref().or(special.eos.as_ref());
        let first = first.and_then(|token| self.tokenizer.id(token));
        Ok(match first {
            Some(first) if tokens.first() != Some(&first) => [&[first], &tokens[..]].concat(),
            _ => tokens,
        })
    }

    /// Tokens of a conversation up to where the assistant begins to speak.
    ///
    /// # Errors
    /// [`Error::Hub`] when the model has no chat template, or it refuses the messages.
    pub fn chat(&self, messages: &[Message]) -> Result<Vec<u32>> {
        let options = ChatOptions {
            add_generation_prompt: true,
            ..ChatOptions::default()
        };
        let text = self.tokenizer.chat()?.render(messages, &options)?;
        // The template writes the special tokens itself.
        Ok(self.tokenizer.encode(&text, false)?)
    }
}

/// `eos_token_id`: a number, or a list of them.
fn ends(config: &Map<String, Value>) -> Vec<u32> {
    let one = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match config.get("eos_token_id") {
        Some(Value::Array(list)) => list.iter().filter_map(one).collect(),
        Some(value) => one(value).into_iter().collect(),
        None => Vec::new(),
    }
}
