//! The `config.json` that the metadata of a GGUF file amount to.

use std::f64::consts::TAU;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::gguf::{Architecture, Gguf, MetaValue, size, text};
use crate::tensors::Tensors;

pub(super) fn config(gguf: &Gguf) -> Result<Map<String, Value>> {
    use Architecture::{Gemma3, Gpt2, GptNeoX, Llama, Qwen2, Qwen3};

    let keys = Keys(gguf);
    let mut config = Map::new();
    let mut set = |key: &str, value: Value| {
        config.insert(key.to_owned(), value);
    };
    let (class, model_type) = match gguf.architecture {
        Llama => ("LlamaForCausalLM", "llama"),
        Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
        Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
        Gemma3 => ("Gemma3ForCausalLM", "gemma3_text"),
        Gpt2 => ("GPT2LMHeadModel", "gpt2"),
        GptNeoX => ("GPTNeoXForCausalLM", "gpt_neox"),
    };
    set("architectures", json!([class]));
    set("model_type", json!(model_type));

    let hidden = keys.size("embedding_length")?;
    let layers = keys.size("block_count")?;
    let heads = keys.size("attention.head_count")?;
    let inner = keys.size("feed_forward_length")?;
    let positions = keys.size("context_length")?;
    let (embedding, head) = match gguf.architecture {
        Gpt2 => ("transformer.wte.weight", "lm_head.weight"),
        GptNeoX => ("gpt_neox.embed_in.weight", "embed_out.weight"),
        _ => ("model.embed_tokens.weight", "lm_head.weight"),
    };
    let Some([vocabulary, _]) = gguf.find(embedding).map(|t| &t.shape[..]) else {
        return Err(Error::damaged(gguf.path(), "it has no embedding of tokens"));
    };
    set("vocab_size", json!(vocabulary));
    set("tie_word_embeddings", json!(gguf.find(head).is_none()));
    for (key, token) in [
        ("bos_token_id", "tokenizer.ggml.bos_token_id"),
        ("eos_token_id", "tokenizer.ggml.eos_token_id"),
        ("pad_token_id", "tokenizer.ggml.padding_token_id"),
    ] {
        if let Some(id) = gguf.metadata.get(token).and_then(MetaValue::as_usize) {
            set(key, json!(id));
        }
    }
    set("torch_dtype", json!("float32"));

    if gguf.architecture == Gpt2 {
        set("n_embd", json!(hidden));
        set("n_layer", json!(layers));
        set("n_head", json!(heads));
        set("n_inner", json!(inner));
        set("n_positions", json!(positions));
        set("n_ctx", json!(positions));
        set(
            "layer_norm_epsilon",
            json!(keys.float("attention.layer_norm_epsilon")?),
        );
        set("activation_function", json!("gelu_new"));
        return Ok(config);
    }
    set("hidden_size", json!(hidden));
    set("num_hidden_layers", json!(layers));
    set("num_attention_heads", json!(heads));
    set("intermediate_size", json!(inner));
    set("max_position_embeddings", json!(positions));
    if heads == 0 {
        return Err(Error::damaged(
            gguf.path(),
            "its model has no attention heads",
        ));
    }
    if gguf.architecture == GptNeoX {
        let rotary = keys.size("rope.dimension_count")?;
        set(
            "rotary_pct",
            json!(rotary as f64 * heads as f64 / hidden as f64),
        );
        set(
            "rotary_emb_base",
            json!(keys.float_or("rope.freq_base", 10_000.0)),
        );
        set(
            "layer_norm_eps",
            json!(keys.float("attention.layer_norm_epsilon")?),
        );
        set("hidden_act", json!("gelu"));
        let parallel = keys
            .get("use_parallel_residual")
            .and_then(MetaValue::as_bool);
        set("use_parallel_residual", json!(parallel.unwrap_or(true)));
        return Ok(config);
    }

    let key_value_heads = keys
        .optional_size("attention.head_count_kv")
        .unwrap_or(heads);
    let head = keys
        .optional_size("attention.key_length")
        .unwrap_or(hidden / heads);
    let base = keys.float_or("rope.freq_base", 10_000.0);
    set("num_key_value_heads", json!(key_value_heads));
    set("head_dim", json!(head));
    set("rope_theta", json!(base));
    set(
        "rms_norm_eps",
        json!(keys.float("attention.layer_norm_rms_epsilon")?),
    );
    match gguf.architecture {
        Llama | Qwen3 => {
            set("hidden_act", json!("silu"));
            let biased = |part: &str| {
                let name = format!("model.layers.0.{part}.bias");
                json!(gguf.find(&name).is_some())
            };
            set("attention_bias", biased("self_attn.q_proj"));
            if gguf.architecture == Llama {
                set("mlp_bias", biased("mlp.up_proj"));
            }
        }
        Gemma3 => {
            set("hidden_activation", json!("gelu_pytorch_tanh"));
            set(
                "sliding_window",
                json!(keys.size("attention.sliding_window")?),
            );
            let local = keys.float_or("rope.freq_base_swa", 10_000.0);
            set("rope_local_base_freq", json!(local));
            // Not in the metadata: every published size divides by the width of a head, except
            // the one of 62 layers.
            let scalar = if layers == 62 { hidden / heads } else { head };
            set("query_pre_attn_scalar", json!(scalar));
            set("sliding_window_pattern", json!(6));
        }
        _ => set("hidden_act", json!("silu")),
    }
    if let Some(scaling) = scaling(gguf, head, base)? {
        set("rope_scaling", scaling);
    }
    Ok(config)
}

/// How rotary frequencies are stretched.
fn scaling(gguf: &Gguf, head: usize, base: f64) -> Result<Option<Value>> {
    if let Some(factors) = &gguf.rotary_factors {
        return llama3(gguf, factors, head, base).map(Some);
    }
    let keys = Keys(gguf);
    let key = keys.name("rope.scaling.type");
    if !gguf.metadata.contains_key(&key) {
        return Ok(None);
    }
    match text(gguf.path(), &gguf.metadata, &key)? {
        "none" => Ok(None),
        "linear" => {
            let factor = keys.float("rope.scaling.factor")?;
            Ok(Some(json!({ "rope_type": "linear", "factor": factor })))
        }
        "yarn" => {
            let factor = keys.float("rope.scaling.factor")?;
            let original = keys.size("rope.scaling.original_context_length")?;
            Ok(Some(json!({
                "rope_type": "yarn",
                "factor": factor,
                "original_max_position_embeddings": original,
            })))
        }
        other => {
            let what = format!("its rotary embeddings are scaled by `{other}`, which is not known");
            Err(Error::unsupported(gguf.path(), what))
        }
    }
}

/// Llama 3 divides each frequency by a factor of its own. The file has the factors and not where
/// they come from; every published model took 1, 4 and 8192, and the factors tell whether this
/// one did.
fn llama3(gguf: &Gguf, factors: &[f32], head: usize, base: f64) -> Result<Value> {
    let (low, high, original) = (1.0, 4.0, 8192.0);
    let largest = f64::from(factors.iter().copied().fold(1.0, f32::max));
    let expected = |i: usize| {
        let wavelength = TAU * base.powf(2.0 * i as f64 / head as f64);
        let smooth = ((original / wavelength - low) / (high - low)).clamp(0.0, 1.0);
        1.0 / ((1.0 - smooth) / largest + smooth)
    };
    let agrees = |(i, &factor): (usize, &f32)| (f64::from(factor) / expected(i) - 1.0).abs() < 1e-3;
    if 2 * factors.len() != head || !factors.iter().enumerate().all(agrees) {
        let what = "its rotary factors are not those of Llama 3: use the Hugging Face folder of \
                    the model";
        return Err(Error::unsupported(gguf.path(), what));
    }
    Ok(json!({
        "rope_type": "llama3",
        "factor": largest,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original as usize,
    }))
}

/// The metadata that begin with the name of the architecture.
struct Keys<'a>(&'a Gguf);

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.0.prefix)
    }

    fn get(&self, key: &str) -> Option<&MetaValue> {
        self.0.metadata.get(&self.name(key))
    }

    fn size(&self, key: &str) -> Result<usize> {
        size(self.0.path(), &self.0.metadata, &self.name(key))
    }

    fn optional_size(&self, key: &str) -> Option<usize> {
        self.get(key).and_then(MetaValue::as_usize)
    }

    fn float_or(&self, key: &str, default: f64) -> f64 {
        self.get(key)
            .map_or(default, |v| v.as_f64().map_or(default, shortest))
    }

    fn float(&self, key: &str) -> Result<f64> {
        let value = self
            .get(key)
            .and_then(MetaValue::as_f64)
            .filter(|v| v.is_finite())
            .map(shortest);
        let missing = || {
            let what = format!("its metadata have no number `{}`", self.name(key));
            Error::damaged(self.0.path(), what)
        };
        value.ok_or_else(missing)
    }
}

/// The decimal number that a person wrote: 0.00001, where its nearest `f32` widened is
/// 0.000009999999747.
fn shortest(value: f64) -> f64 {
    let narrow = value as f32;
    if f64::from(narrow) != value {
        return value;
    }
    narrow.to_string().parse().unwrap_or(value)
}
