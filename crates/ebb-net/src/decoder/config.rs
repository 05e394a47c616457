//! What a decoder is made of, and how a checkpoint's `config.json` says it.
//!
//! Both spellings of the rotary settings are read: `rope_theta` with `rope_scaling` (up to version
//! 4 of `transformers`) and `rope_parameters` (from version 5). What a file leaves out is what the
//! configuration class of its family assumes.

use super::rope::{Rotary, Scaling};
use crate::{Error, Result};
use serde::Deserialize;

/// The parts a decoder is put together from. Change it to build a relative of a known network.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Whose names the parameters have.
    pub names: Names,
    /// Tokens there are.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Units within a feed-forward layer.
    pub inner: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, a divisor of `heads`.
    pub key_value_heads: usize,
    /// Values of a head.
    pub head_width: usize,
    /// Positions the network was made for.
    pub context: usize,
    /// What differs from block to block, first to last.
    pub blocks: Vec<Block>,
    /// The function within a feed-forward layer.
    pub nonlinearity: Nonlinearity,
    /// How the stream is normalised.
    pub norm: NormKind,
    /// ε under the root of every norm.
    pub epsilon: f64,
    /// Whether queries and keys are normalised head by head.
    pub query_key_norm: bool,
    /// Whether what a block's halves answer is normalised before it is added (Gemma).
    pub output_norms: bool,
    /// Whether attention and feed-forward layer read the same stream (GPT-NeoX).
    pub parallel: bool,
    /// Which linear layers have a bias.
    pub biases: Biases,
    /// Whether a learned vector is added at each position (GPT-2).
    pub learned_positions: bool,
    /// Whether the last layer is the embedding again.
    pub tied: bool,
    /// What an embedding is multiplied with.
    pub embedding_scale: f64,
    /// `c · tanh(s / c)` on attention scores.
    pub score_cap: Option<f64>,
    /// `c · tanh(z / c)` on logits.
    pub logit_cap: Option<f64>,
    /// Standard deviation of fresh weights.
    pub initial_deviation: f64,
}

/// What differs from block to block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block {
    /// A query sees the last so many positions, its own among them; all of them without.
    pub window: Option<usize>,
    /// Rotary positions, if it has any.
    pub rotary: Option<Rotary>,
    /// What a product of query and key is multiplied with.
    pub scale: f64,
}

/// Whose parameter names and layer shapes a checkpoint has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// `model.layers.0.self_attn.q_proj.weight`; a gated feed-forward layer.
    Llama,
    /// `transformer.h.0.attn.c_attn.weight`, stored `[in, out]`.
    Gpt2,
    /// `gpt_neox.layers.0.attention.query_key_value.weight`, head by head.
    GptNeoX,
}

/// How a norm is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormKind {
    /// `(offset + w) ⊙ x / √(mean x² + ε)`.
    Rms {
        /// 0, or 1 where the weight is a difference from 1 (Gemma).
        offset: f32,
    },
    /// `w ⊙ (x − mean x) / √(var x + ε) + b`.
    Layer,
}

/// The function within a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonlinearity {
    /// `z σ(z)`.
    Silu,
    /// `z Φ(z)`.
    Gelu,
    /// The same through its usual approximation with tanh.
    GeluTanh,
    /// `max(0, z)`.
    Relu,
}

/// Which linear layers have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Biases {
    /// Those to queries, keys and values.
    pub query_key_value: bool,
    /// The one behind the attention.
    pub attention_output: bool,
    /// Those of the feed-forward layer.
    pub mlp: bool,
}

/// The model types [`DecoderConfig::from_json`] reads.
pub const MODEL_TYPES: [&str; 7] = [
    "llama",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
];

/// No size is larger; products of two sizes cannot overflow then.
const LARGEST: usize = 1 << 30;

/// More layers than any network has.
const MOST_LAYERS: usize = 10_000;

/// The fields of `config.json` that say what the network computes.
#[derive(Deserialize)]
struct Raw {
    vocab_size: usize,
    #[serde(alias = "n_embd")]
    hidden_size: usize,
    #[serde(alias = "n_inner")]
    intermediate_size: Option<usize>,
    #[serde(alias = "n_layer")]
    num_hidden_layers: usize,
    #[serde(alias = "n_head")]
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    #[serde(alias = "n_positions")]
    max_position_embeddings: Option<usize>,
    #[serde(alias = "activation_function")]
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    #[serde(alias = "layer_norm_eps", alias = "layer_norm_epsilon")]
    rms_norm_eps: Option<f64>,
    initializer_range: Option<f64>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    use_parallel_residual: Option<bool>,
    scale_attn_weights: Option<bool>,
    scale_attn_by_inverse_layer_idx: Option<bool>,
    add_cross_attention: Option<bool>,
    use_bidirectional_attention: Option<bool>,
    use_sliding_window: Option<bool>,
    sliding_window: Option<usize>,
    sliding_window_pattern: Option<usize>,
    _sliding_window_pattern: Option<usize>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    query_pre_attn_scalar: Option<f64>,
    final_logit_softcapping: Option<f64>,
    attn_logit_softcapping: Option<f64>,
    rope_theta: Option<f64>,
    rotary_emb_base: Option<f64>,
    rope_local_base_freq: Option<f64>,
    partial_rotary_factor: Option<f64>,
    rotary_pct: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRopes>,
}

/// One rotary setting for all layers, or one for each type of layer.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawRopes {
    ByLayer {
        full_attention: Box<RawRope>,
        sliding_attention: Box<RawRope>,
    },
    One(Box<RawRope>),
}

#[derive(Clone, Default, Deserialize)]
struct RawRope {
    rope_type: Option<String>,
    r#type: Option<String>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    attention_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    truncate: Option<bool>,
}

fn refuse<T>(reason: impl Into<String>) -> Result<T> {
    Err(Error::Spec {
        reason: reason.into(),
    })
}

fn wanted<T>(value: Option<T>, field: &str) -> Result<T> {
    value.ok_or_else(|| Error::Spec {
        reason: format!("`config.json` has no `{field}`, which this architecture needs"),
    })
}

impl DecoderConfig {
    /// Reads the text of a checkpoint's `config.json`.
    ///
    /// # Errors
    /// [`Error::Spec`] for text that is not JSON, a `model_type` not in [`MODEL_TYPES`], a missing
    /// field, or a network this crate would compute wrongly.
    pub fn from_json(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Kind {
            model_type: Option<String>,
        }
        let unreadable = |e: serde_json::Error| Error::Spec {
            reason: format!("`config.json` cannot be read: {e}"),
        };
        let kind: Kind = serde_json::from_str(text).map_err(unreadable)?;
        let kind = wanted(kind.model_type, "model_type")?;
        if kind == "gemma3" {
            return refuse(
                "`gemma3` is the network with a vision part; take a checkpoint of its text part \
                 (`gemma3_text`, such as the 270M and 1B sizes)",
            );
        }
        if !MODEL_TYPES.contains(&kind.as_str()) {
            return refuse(format!(
                "the architecture `{kind}` is not known; the known ones are {}",
                MODEL_TYPES.join(", ")
            ));
        }
        let raw: Raw = serde_json::from_str(text).map_err(unreadable)?;
        let config = raw.lower(&kind)?;
        config.check()?;
        Ok(config)
    }

    /// The most tokens a row may have: the context, or what a dynamic base stretches it to.
    pub fn longest(&self) -> usize {
        let stretched = |block: &Block| match block.rotary?.scaling {
            Scaling::Dynamic { factor, context } => Some((factor * context as f64) as usize),
            _ => None,
        };
        let stretched = self.blocks.iter().filter_map(stretched).min();
        stretched.unwrap_or(self.context).max(self.context)
    }

    /// Refuses what makes no network.
    ///
    /// # Errors
    /// [`Error::Spec`] with the first thing that does not fit.
    pub fn check(&self) -> Result<()> {
        let sizes = [
            ("the vocabulary", self.vocabulary),
            ("the width", self.width),
            ("the feed-forward layer", self.inner),
            ("the number of heads", self.heads),
            ("the number of key heads", self.key_value_heads),
            ("the width of a head", self.head_width),
            ("the context", self.context),
            ("the number of layers", self.blocks.len()),
        ];
        if let Some((what, _)) = sizes.iter().find(|(_, n)| *n == 0) {
            return refuse(format!("{what} must not be 0"));
        }
        if let Some((what, n)) = sizes.iter().find(|(_, n)| *n > LARGEST) {
            return refuse(format!("{what} is {n}, which no machine can hold"));
        }
        if !self.heads.is_multiple_of(self.key_value_heads) {
            return refuse(format!(
                "{} query heads cannot be shared evenly by {} key heads",
                self.heads, self.key_value_heads
            ));
        }
        if self.names != Names::Llama
            && (self.key_value_heads != self.heads || self.query_key_norm || self.output_norms)
        {
            return refuse(
                "GPT-2 and GPT-NeoX have one key head a query head and no norms within a block's \
                 halves",
            );
        }
        for cap in [self.score_cap, self.logit_cap].into_iter().flatten() {
            if !(cap.is_finite() && cap > 0.0) {
                return refuse(format!("a soft cap must be above 0, it is {cap}"));
            }
        }
        for block in &self.blocks {
            block.check(self.head_width)?;
        }
        Ok(())
    }
}

impl Block {
    fn check(&self, head_width: usize) -> Result<()> {
        if self.window == Some(0) {
            return refuse("a window must hold one position at least");
        }
        let Some(rotary) = self.rotary else {
            return Ok(());
        };
        let (width, theta) = (rotary.width, rotary.theta);
        if width == 0 || width % 2 == 1 || width > head_width {
            return refuse(format!(
                "rotary positions turn an even number of a head's {head_width} values, not {width}"
            ));
        }
        if !(theta.is_finite() && theta > 1.0) {
            return refuse(format!("`rope_theta` must be above 1, it is {theta}"));
        }
        let (factor, fits) = match rotary.scaling {
            Scaling::None => (1.0, true),
            Scaling::Linear { factor } => (factor, true),
            Scaling::Dynamic { factor, context } => (factor, context > 0 && width > 2),
            Scaling::Llama3 {
                factor,
                low,
                high,
                context,
            } => (factor, context > 0 && low < high),
            Scaling::Yarn {
                factor,
                fast,
                slow,
                context,
                magnitude,
                ..
            } => {
                let fits = context > 0 && slow > 0.0 && slow < fast && magnitude.is_finite();
                (factor, fits)
            }
        };
        if !(fits && factor.is_finite() && factor >= 1.0) {
            return refuse(format!(
                "this rotary scaling makes no sense: {:?}",
                rotary.scaling
            ));
        }
        Ok(())
    }
}

impl Raw {
    fn lower(&self, kind: &str) -> Result<DecoderConfig> {
        if self.num_hidden_layers > MOST_LAYERS {
            return refuse(format!(
                "`num_hidden_layers` is {}; is the file damaged?",
                self.num_hidden_layers
            ));
        }
        if self.add_cross_attention == Some(true) {
            return refuse("cross-attention is for encoder-decoder networks; this is a decoder");
        }
        if self.use_bidirectional_attention == Some(true) {
            return refuse("`use_bidirectional_attention` makes an encoder; this is a decoder");
        }
        let gemma = kind.starts_with("gemma");
        let names = match kind {
            "gpt2" => Names::Gpt2,
            "gpt_neox" => Names::GptNeoX,
            _ => Names::Llama,
        };
        let heads = self.num_attention_heads;
        let head_width = match (names, self.head_dim) {
            (Names::Llama, Some(d)) => d,
            // The class assumes these widths whatever the others are.
            (Names::Llama, None) if gemma => 256,
            (Names::Llama, None) if kind == "qwen3" => 128,
            _ if heads > 0 && self.hidden_size.is_multiple_of(heads) => self.hidden_size / heads,
            _ => {
                return refuse(format!(
                    "a width of {} cannot be shared evenly by {heads} heads",
                    self.hidden_size
                ));
            }
        };
        if kind == "gemma3_text" && self.attn_logit_softcapping.is_some() {
            return refuse(
                "`attn_logit_softcapping` belongs to Gemma 2; `transformers` ignores it in Gemma \
                 3, so this file says two things: remove the field",
            );
        }
        let bias = self.attention_bias;
        let biases = match kind {
            "qwen2" => [true, false, false],
            "gpt2" => [true; 3],
            "gpt_neox" => [bias.unwrap_or(true), bias.unwrap_or(true), true],
            _ => {
                let bias = bias.unwrap_or(false);
                [
                    bias,
                    bias,
                    kind == "llama" && self.mlp_bias.unwrap_or(false),
                ]
            }
        };
        // Gemma's first files have a `hidden_act` that nobody reads.
        let function = match gemma {
            true => &self.hidden_activation,
            false => &self.hidden_act,
        };
        let nonlinearity = match (function.as_deref(), kind) {
            (Some("silu" | "swish"), _) => Nonlinearity::Silu,
            (Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast"), _) => Nonlinearity::GeluTanh,
            (Some("gelu"), _) => Nonlinearity::Gelu,
            (Some("relu"), _) => Nonlinearity::Relu,
            (Some(other), _) => {
                return refuse(format!(
                    "the activation `{other}` is not known; known are silu, gelu, gelu_new, \
                     gelu_pytorch_tanh and relu"
                ));
            }
            (None, "gpt_neox") => Nonlinearity::Gelu,
            (None, "gpt2" | "gemma2" | "gemma3_text") => Nonlinearity::GeluTanh,
            (None, _) => Nonlinearity::Silu,
        };
        let inner = match (self.intermediate_size, kind) {
            (None, "gpt2") => 4 * self.hidden_size,
            (inner, _) => wanted(inner, "intermediate_size")?,
        };
        let context = wanted(self.max_position_embeddings, "max_position_embeddings")?;
        let norm = match names {
            Names::Llama => NormKind::Rms {
                offset: if gemma { 1.0 } else { 0.0 },
            },
            Names::Gpt2 | Names::GptNeoX => NormKind::Layer,
        };
        let epsilon = match kind {
            "gpt2" | "gpt_neox" => 1e-5,
            _ => 1e-6,
        };
        let sliding = self.sliding(kind)?;
        let blocks = sliding
            .into_iter()
            .enumerate()
            .map(|(i, window)| {
                let rotary = match names {
                    Names::Gpt2 => None,
                    _ => Some(self.rotary(kind, window.is_some(), head_width, context)?),
                };
                let scale = self.scale(kind, head_width, i);
                Ok(Block {
                    window,
                    rotary,
                    scale,
                })
            })
            .collect::<Result<_>>()?;
        Ok(DecoderConfig {
            names,
            vocabulary: self.vocab_size,
            width: self.hidden_size,
            inner,
            heads,
            key_value_heads: match names {
                Names::Llama => self.num_key_value_heads.unwrap_or(heads),
                _ => heads,
            },
            head_width,
            context,
            blocks,
            nonlinearity,
            norm,
            epsilon: self.rms_norm_eps.unwrap_or(epsilon),
            query_key_norm: matches!(kind, "qwen3" | "gemma3_text"),
            output_norms: gemma,
            parallel: kind == "gpt_neox" && self.use_parallel_residual.unwrap_or(true),
            biases: Biases {
                query_key_value: biases[0],
                attention_output: biases[1],
                mlp: biases[2],
            },
            learned_positions: kind == "gpt2",
            tied: self.tie_word_embeddings.unwrap_or(gemma || kind == "gpt2"),
            embedding_scale: if gemma {
                (self.hidden_size as f64).sqrt()
            } else {
                1.0
            },
            score_cap: self.attn_logit_softcapping,
            logit_cap: self.final_logit_softcapping,
            initial_deviation: self.initializer_range.unwrap_or(0.02),
        })
    }

    /// α of block `i`.
    fn scale(&self, kind: &str, head_width: usize, i: usize) -> f64 {
        let usual = (head_width as f64).powf(-0.5);
        match kind {
            "gemma2" | "gemma3_text" => self.query_pre_attn_scalar.unwrap_or(256.0).powf(-0.5),
            "gpt2" => {
                let scale = match self.scale_attn_weights {
                    Some(false) => 1.0,
                    _ => usual,
                };
                match self.scale_attn_by_inverse_layer_idx {
                    Some(true) => scale / (i + 1) as f64,
                    _ => scale,
                }
            }
            _ => usual,
        }
    }

    /// The window of every block.
    fn sliding(&self, kind: &str) -> Result<Vec<Option<usize>>> {
        let layers = self.num_hidden_layers;
        let window = match kind {
            "qwen2" | "qwen3" if self.use_sliding_window == Some(true) => {
                self.sliding_window.or(Some(4096))
            }
            "gemma2" | "gemma3_text" => self.sliding_window.or(Some(4096)),
            _ => None,
        };
        let Some(window) = window else {
            return Ok(vec![None; layers]);
        };
        if let Some(types) = &self.layer_types {
            if types.len() != layers {
                return refuse(format!(
                    "`layer_types` names {} layers of {layers}",
                    types.len()
                ));
            }
            return types
                .iter()
                .map(|t| match t.as_str() {
                    "full_attention" => Ok(None),
                    "sliding_attention" => Ok(Some(window)),
                    other => refuse(format!("the layer type `{other}` is not known")),
                })
                .collect();
        }
        let pattern = self.sliding_window_pattern;
        let pattern = pattern.or(self._sliding_window_pattern).unwrap_or(6);
        let slides = |i: usize| match kind {
            "gemma2" => i.is_multiple_of(2),
            "gemma3_text" => !(i + 1).is_multiple_of(pattern),
            _ => i >= self.max_window_layers.unwrap_or(28),
        };
        Ok((0..layers).map(|i| slides(i).then_some(window)).collect())
    }

    /// The rotary positions of a block with or without a window.
    fn rotary(
        &self,
        kind: &str,
        slides: bool,
        head_width: usize,
        context: usize,
    ) -> Result<Rotary> {
        let gemma3 = kind == "gemma3_text";
        let rope = match &self.rope_parameters {
            Some(RawRopes::ByLayer {
                full_attention,
                sliding_attention,
            }) => match slides {
                true => sliding_attention.as_ref().clone(),
                false => full_attention.as_ref().clone(),
            },
            Some(RawRopes::One(rope)) => rope.as_ref().clone(),
            // Gemma 3 stretches the layers that see everything, not those with a window.
            None if gemma3 && slides => RawRope {
                rope_theta: self.rope_local_base_freq,
                ..RawRope::default()
            },
            None => self.rope_scaling.clone().unwrap_or_default(),
        };
        let old_theta = self
            .rotary_emb_base
            .or(self.rope_theta)
            .filter(|_| !(gemma3 && slides));
        let assumed = if gemma3 && !slides { 1e6 } else { 1e4 };
        let share = rope
            .partial_rotary_factor
            .or(self.rotary_pct)
            .or(self.partial_rotary_factor)
            .unwrap_or(if kind == "gpt_neox" { 0.25 } else { 1.0 });
        Ok(Rotary {
            width: (head_width as f64 * share) as usize,
            theta: rope.rope_theta.or(old_theta).unwrap_or(assumed),
            scaling: rope.scaling(context)?,
        })
    }
}

impl RawRope {
    fn scaling(&self, context: usize) -> Result<Scaling> {
        let factor = || wanted(self.factor, "rope_scaling.factor");
        let first_context = || {
            wanted(
                self.original_max_position_embeddings,
                "original_max_position_embeddings",
            )
        };
        Ok(
            match self
                .rope_type
                .as_ref()
                .or(self.r#type.as_ref())
                .map(String::as_str)
            {
                None | Some("default") => Scaling::None,
                Some("linear") => Scaling::Linear { factor: factor()? },
                Some("dynamic") => Scaling::Dynamic {
                    factor: factor()?,
                    context,
                },
                Some("llama3") => Scaling::Llama3 {
                    factor: factor()?,
                    low: wanted(self.low_freq_factor, "low_freq_factor")?,
                    high: wanted(self.high_freq_factor, "high_freq_factor")?,
                    context: first_context()?,
                },
                Some("yarn") => {
                    let first = self.original_max_position_embeddings.unwrap_or(context);
                    let factor = match self.factor {
                        Some(factor) => factor,
                        None => context as f64 / first_context()?.max(1) as f64,
                    };
                    Scaling::Yarn {
                        factor,
                        fast: self.beta_fast.unwrap_or(32.0),
                        slow: self.beta_slow.unwrap_or(1.0),
                        context: first,
                        truncate: self.truncate.unwrap_or(true),
                        magnitude: self.magnitude(factor),
                    }
                }
                Some(other) => {
                    return refuse(format!(
                        "the rotary scaling `{other}` is not known; known are default, linear, \
                     dynamic, llama3 and yarn"
                    ));
                }
            },
        )
    }

    /// YaRN's factor on sines and cosines: `0.1 m ln s + 1`, or a quotient of two of them.
    fn magnitude(&self, factor: f64) -> f64 {
        let at = |m: f64| match factor <= 1.0 {
            true => 1.0,
            false => 0.1 * m * factor.ln() + 1.0,
        };
        let both = self.mscale.zip(self.mscale_all_dim);
        let inferred = match both.filter(|(a, b)| *a != 0.0 && *b != 0.0) {
            Some((above, below)) => at(above) / at(below),
            None => at(1.0),
        };
        self.attention_factor.unwrap_or(inferred)
    }
}
