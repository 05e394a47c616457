//! Low-rank adapters, as PEFT writes them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ebb_space::Weights;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{At, Error, Result};
use crate::folder::object;
use crate::number::NumberType;
use crate::safetensors_file::{self, SafetensorsFile};
use crate::write::{pretty, put};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
/// What PEFT puts before the name of every module.
const PREFIX: &str = "base_model.model.";

/// What `adapter_config.json` says that changes what an adapter computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterConfig {
    /// Rank of the pairs.
    pub r: usize,
    /// α: the update is `α/r · B A`.
    pub lora_alpha: f64,
    /// Whether it is `α/√r · B A`.
    #[serde(default)]
    pub use_rslora: bool,
    /// Whether the weights of the base are inputs by outputs, as GPT-2's are.
    #[serde(default)]
    pub fan_in_fan_out: bool,
    /// Ends of the names of the adapted modules, or one regular expression.
    pub target_modules: Value,
    /// The model that it adapts, where it says so.
    #[serde(default)]
    pub base_model_name_or_path: Option<String>,
    /// An α of their own for modules whose name ends so.
    #[serde(default)]
    pub alpha_pattern: Map<String, Value>,
    /// Everything else, kept as it stands.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl AdapterConfig {
    /// A configuration for the modules whose names end in one of these.
    pub fn new<'a>(r: usize, alpha: f64, modules: impl IntoIterator<Item = &'a str>) -> Self {
        AdapterConfig {
            r,
            lora_alpha: alpha,
            use_rslora: false,
            fan_in_fan_out: false,
            target_modules: modules.into_iter().collect(),
            base_model_name_or_path: None,
            alpha_pattern: Map::new(),
            more: Map::new(),
        }
    }
}

/// The two factors of one module's update.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Rank.
    pub rank: usize,
    /// Inputs of the module.
    pub inputs: usize,
    /// Outputs of the module.
    pub outputs: usize,
    /// `rank` by `inputs`.
    pub a: Vec<f32>,
    /// `outputs` by `rank`.
    pub b: Vec<f32>,
    /// What the product is multiplied by.
    pub scale: f32,
}

impl Pair {
    /// `scale · B A`, `outputs` by `inputs`, summed in f64.
    pub fn update(&self) -> Vec<f32> {
        let mut update = Vec::with_capacity(self.outputs * self.inputs);
        let mut row = vec![0.0f64; self.inputs];
        for b in self.b.chunks_exact(self.rank.max(1)) {
            row.fill(0.0);
            for (&b, a) in b.iter().zip(self.a.chunks_exact(self.inputs.max(1))) {
                for (sum, &a) in row.iter_mut().zip(a) {
                    *sum += f64::from(b) * f64::from(a);
                }
            }
            update.extend(row.iter().map(|sum| (f64::from(self.scale) * sum) as f32));
        }
        update
    }
}

/// A LoRA adapter: `W ← W + α/r · B A` for some modules of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    config: AdapterConfig,
    /// By module, such as `model.layers.0.self_attn.q_proj`.
    pairs: BTreeMap<String, Pair>,
}

impl Adapter {
    /// An adapter of these factors `(A, B)`, by module; their scale follows from the
    /// configuration.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where a factor does not have the shape that `inputs` and the other
    /// factor give it, or the rank is 0.
    pub fn new(
        config: AdapterConfig,
        factors: impl IntoIterator<Item = (String, usize, Vec<f32>, Vec<f32>)>,
    ) -> Result<Adapter> {
        let mut pairs = BTreeMap::new();
        for (module, inputs, a, b) in factors {
            let rank = a.len().checked_div(inputs).unwrap_or(0);
            if rank == 0 || a.len() != rank * inputs || b.len() % rank != 0 {
                let what = format!(
                    "`{module}`: {} values of A and {} of B are no factors for {inputs} inputs",
                    a.len(),
                    b.len()
                );
                return Err(Error::Mismatch(what));
            }
            let scale = scale(&config, &module, rank)?;
            let outputs = b.len() / rank;
            let pair = Pair {
                rank,
                inputs,
                outputs,
                a,
                b,
                scale,
            };
            pairs.insert(module, pair);
        }
        Ok(Adapter { config, pairs })
    }

    /// Whether this is the folder of an adapter.
    pub fn is_in(folder: impl AsRef<Path>) -> bool {
        folder.as_ref().join(CONFIG).is_file()
    }

    /// Reads the folder that `PeftModel.save_pretrained` writes.
    ///
    /// # Errors
    /// [`Error::Missing`] without one of its two files; [`Error::Unsupported`] for another kind
    /// of adapter than plain LoRA on linear modules; [`Error::Damaged`], [`Error::Io`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Adapter> {
        let folder = folder.as_ref();
        let config_path = folder.join(CONFIG);
        let config = object(&config_path)?.ok_or_else(|| {
            Error::missing(
                folder,
                format!("`{CONFIG}`: give the folder of a PEFT adapter"),
            )
        })?;
        plain_lora(&config_path, &config)?;
        let config: AdapterConfig = serde_json::from_value(Value::Object(config))
            .map_err(|e| Error::damaged(&config_path, e.to_string()))?;

        let path = folder.join(TENSORS);
        if !path.is_file() {
            let what = format!("`{TENSORS}`: save the adapter with `safe_serialization=True`");
            return Err(Error::missing(folder, what));
        }
        let file = SafetensorsFile::open(&path)?;
        let shapes: BTreeMap<&str, &[usize]> = file
            .tensors()
            .map(|t| (t.name.as_str(), &t.shape[..]))
            .collect();
        let read = |name: &str, values: usize| {
            let mut out = vec![0.0; values];
            file.read_into(name, &mut out).map(|()| out)
        };
        let mut factors = Vec::new();
        for (&a_name, shape) in &shapes {
            let module = a_name.strip_prefix(PREFIX);
            let Some(module) = module.and_then(|m| m.strip_suffix(".lora_A.weight")) else {
                let is_b = a_name.ends_with(".lora_B.weight")
                    && shapes.contains_key(a_name.replace(".lora_B.", ".lora_A.").as_str());
                if is_b {
                    continue;
                }
                let what = format!(
                    "it holds `{a_name}`; only pairs `{PREFIX}MODULE.lora_A.weight` and \
                     `lora_B.weight` of linear modules are read"
                );
                return Err(Error::unsupported(&path, what));
            };
            let b_name = format!("{PREFIX}{module}.lora_B.weight");
            let (&[rank, inputs], Some(&&[outputs, columns])) = (*shape, shapes.get(&*b_name))
            else {
                let what = format!("`{module}` has no pair of matrices");
                return Err(Error::damaged(&path, what));
            };
            if rank == 0 || rank != columns {
                let what = format!("`{module}`: A has rank {rank} and B has rank {columns}");
                return Err(Error::damaged(&path, what));
            }
            let (a, b) = (read(a_name, rank * inputs)?, read(&b_name, outputs * rank)?);
            factors.push((module.to_owned(), inputs, a, b));
        }
        if factors.is_empty() {
            return Err(Error::damaged(&path, "it holds no pair"));
        }
        Adapter::new(config, factors)
    }

    /// Writes a folder that `PeftModel.from_pretrained` loads.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is an adapter already; [`Error::Io`].
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let path = folder.join(TENSORS);
        if path.exists() || folder.join(CONFIG).exists() {
            return Err(Error::Exists {
                path: folder.into(),
            });
        }
        fs::create_dir_all(folder).at("create", folder)?;
        let named: Vec<(String, [usize; 2], &[f32])> = self
            .pairs
            .iter()
            .flat_map(|(module, pair)| {
                let name = |factor: &str| format!("{PREFIX}{module}.{factor}.weight");
                [
                    (name("lora_A"), [pair.rank, pair.inputs], &pair.a[..]),
                    (name("lora_B"), [pair.outputs, pair.rank], &pair.b[..]),
                ]
            })
            .collect();
        let tensors = named
            .iter()
            .map(|(name, shape, values)| (&**name, &shape[..], *values));
        safetensors_file::write(&path, NumberType::F32, &[], tensors)?;

        let config = serde_json::to_value(&self.config);
        let Ok(Value::Object(mut config)) = config else {
            return Err(Error::Mismatch(
                "the adapter's configuration is no JSON object".into(),
            ));
        };
        for (key, value) in [
            ("peft_type", Value::from("LORA")),
            ("task_type", Value::from("CAUSAL_LM")),
            ("bias", Value::from("none")),
        ] {
            config.entry(key).or_insert(value);
        }
        put(&folder.join(CONFIG), &pretty(&config))
    }

    /// What the adapter was configured with.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// The factors, by module.
    pub fn pairs(&self) -> &BTreeMap<String, Pair> {
        &self.pairs
    }

    /// Whether it belongs to a model whose tensors have these shapes.
    ///
    /// # Errors
    /// [`Error::Mismatch`] naming the first module that the model does not have, or has in another
    /// shape.
    pub(crate) fn fits<'s>(&self, shape: impl Fn(&str) -> Option<&'s [usize]>) -> Result<()> {
        for (module, pair) in &self.pairs {
            let name = format!("{module}.weight");
            let expected = if self.config.fan_in_fan_out {
                [pair.inputs, pair.outputs]
            } else {
                [pair.outputs, pair.inputs]
            };
            let found = shape(&name);
            if found != Some(&expected) {
                let what = format!(
                    "the adapter belongs to another model: it changes `{name}` of shape \
                     {expected:?}, the model has {found:?}"
                );
                return Err(Error::Mismatch(what));
            }
        }
        Ok(())
    }

    /// Adds every update to the weights of its module.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where the model has no such module or one of another shape; the
    /// weights are unchanged then.
    pub fn merge_into(&self, weights: &mut Weights) -> Result<()> {
        let layout = weights.layout();
        self.fits(|name| layout.find(name).map(|entry| &entry.shape[..]))?;
        for (module, pair) in &self.pairs {
            let update = pair.update();
            let Some(values) = weights.get_mut(&format!("{module}.weight")) else {
                continue;
            };
            if self.config.fan_in_fan_out {
                for (i, value) in values.iter_mut().enumerate() {
                    *value += update[i % pair.outputs * pair.inputs + i / pair.outputs];
                }
            } else {
                for (value, update) in values.iter_mut().zip(update) {
                    *value += update;
                }
            }
        }
        Ok(())
    }
}

/// `α/r`, or `α/√r`, with the α of this module.
fn scale(config: &AdapterConfig, module: &str, rank: usize) -> Result<f32> {
    let mut alpha = config.lora_alpha;
    for (end, value) in &config.alpha_pattern {
        let plain = end
            .chars()
            .all(|c| c.is_alphanumeric() || "._-".contains(c));
        let Some(value) = value.as_f64().filter(|_| plain) else {
            let what = format!(
                "`alpha_pattern` has `{end}`: only ends of modules' names with numbers are read"
            );
            return Err(Error::Mismatch(what));
        };
        if module == end || module.ends_with(&format!(".{end}")) {
            alpha = value;
            break;
        }
    }
    let rank = rank as f64;
    let divisor = if config.use_rslora { rank.sqrt() } else { rank };
    Ok((alpha / divisor) as f32)
}

/// Refuses what would compute something else than `W + α/r B A`.
fn plain_lora(path: &Path, config: &Map<String, Value>) -> Result<()> {
    let is_set = |key: &str| match config.get(key) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(values)) => !values.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(_) => true,
    };
    let refuse = |what: String| Err(Error::unsupported(path, what));
    match config.get("peft_type").and_then(Value::as_str) {
        Some("LORA") => {}
        other => return refuse(format!("it is an adapter of type {other:?}; LORA is read")),
    }
    if config.get("bias").is_some_and(|bias| bias != "none") {
        return refuse("it trains biases: only adapters with `bias = \"none\"` are read".into());
    }
    let others = [
        "use_dora",
        "modules_to_save",
        "lora_bias",
        "trainable_token_indices",
        "use_qalora",
    ];
    match others.into_iter().find(|key| is_set(key)) {
        Some(key) => refuse(format!(
            "it uses `{key}`, which is not read: merge it with PEFT first"
        )),
        None => Ok(()),
    }
}
