//! Names of tensors: from those of llama.cpp to those of `transformers`, and what was done to the
//! values on the way there.

use crate::gguf::Architecture;

/// How stored values differ from those that `transformers` has under the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Not at all.
    Same,
    /// Rows of a head stand in pairs (i, i + D/2), as rotary embeddings of neighbours want it.
    Rotary {
        /// How many heads the rows belong to.
        heads: usize,
    },
    /// All queries, then all keys, then all values, where `transformers` has the three of every
    /// head together.
    Fused {
        /// How many heads the rows belong to.
        heads: usize,
    },
    /// Outputs by inputs, where `transformers` has inputs by outputs.
    Transposed,
    /// One was added.
    PlusOne,
}

impl Change {
    /// Undoes the change: `stored` becomes `values`, of shape rows by columns as stored.
    pub(super) fn undo(self, stored: &[f32], rows: usize, columns: usize, values: &mut [f32]) {
        match self {
            Change::Same => values.copy_from_slice(stored),
            Change::PlusOne => {
                for (value, stored) in values.iter_mut().zip(stored) {
                    *value = stored - 1.0;
                }
            }
            Change::Transposed => {
                for (i, value) in values.iter_mut().enumerate() {
                    *value = stored[i % rows * columns + i / rows];
                }
            }
            Change::Rotary { heads } => {
                let d = rows / heads;
                gather_rows(stored, columns, values, |row| {
                    let (head, half, i) = (row / d, row % d / (d / 2), row % (d / 2));
                    head * d + 2 * i + half
                });
            }
            Change::Fused { heads } => {
                let d = rows / (3 * heads);
                gather_rows(stored, columns, values, |row| {
                    let (head, which, i) = (row / (3 * d), row % (3 * d) / d, row % d);
                    (which * heads + head) * d + i
                });
            }
        }
    }

    /// Whether this many rows can be what the change made.
    pub(super) fn fits(self, rows: usize) -> bool {
        match self {
            Change::Same | Change::PlusOne | Change::Transposed => true,
            Change::Rotary { heads } => shares(rows, heads, 2),
            Change::Fused { heads } => shares(rows, heads, 3),
        }
    }
}

/// Whether every head has the same number of rows, in so many parts, and at least one in each.
fn shares(rows: usize, heads: usize, parts: usize) -> bool {
    let all = heads.checked_mul(parts);
    all.is_some_and(|all| all > 0 && rows >= all && rows.is_multiple_of(all))
}

fn gather_rows(
    stored: &[f32],
    columns: usize,
    values: &mut [f32],
    source: impl Fn(usize) -> usize,
) {
    for (row, values) in values.chunks_exact_mut(columns.max(1)).enumerate() {
        let from = source(row) * columns;
        values.copy_from_slice(&stored[from..from + columns]);
    }
}

/// What becomes of a tensor of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is a parameter.
    Parameter(String, Change),
    /// It says how the model is configured, and is no parameter.
    Configuration,
}

/// The place of the tensor called `name`; `None` if models of this architecture have none such.
pub(super) fn place(
    architecture: Architecture,
    name: &str,
    heads: usize,
    key_value_heads: usize,
) -> Option<Place> {
    use Architecture::{Gemma3, Gpt2, GptNeoX, Llama, Qwen2, Qwen3};

    let (stem, kind) = name.rsplit_once('.')?;
    if stem == "rope_freqs" && kind == "weight" {
        return Some(Place::Configuration);
    }
    if kind != "weight" && kind != "bias" {
        return None;
    }
    let block = stem
        .strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'));
    let mut change = Change::Same;
    let module = match (architecture, block) {
        (Llama | Qwen2 | Qwen3 | Gemma3, None) => match stem {
            "token_embd" => "model.embed_tokens".to_owned(),
            "output_norm" => "model.norm".to_owned(),
            "output" => "lm_head".to_owned(),
            _ => return None,
        },
        (Gpt2, None) => match stem {
            "token_embd" => "transformer.wte".to_owned(),
            "position_embd" => "transformer.wpe".to_owned(),
            "output_norm" => "transformer.ln_f".to_owned(),
            "output" => "lm_head".to_owned(),
            _ => return None,
        },
        (GptNeoX, None) => match stem {
            "token_embd" => "gpt_neox.embed_in".to_owned(),
            "output_norm" => "gpt_neox.final_layer_norm".to_owned(),
            "output" => "embed_out".to_owned(),
            _ => return None,
        },
        (_, Some((layer, part))) => {
            // Only as the number is written: "01" would be a second name of layer 1.
            if layer.parse::<usize>().ok()?.to_string() != layer {
                return None;
            }
            match architecture {
                Llama | Qwen2 | Qwen3 | Gemma3 => {
                    let module = match (architecture, part) {
                        (_, "attn_norm") => "input_layernorm",
                        (_, "attn_q") => "self_attn.q_proj",
                        (_, "attn_k") => "self_attn.k_proj",
                        (_, "attn_v") => "self_attn.v_proj",
                        (_, "attn_output") => "self_attn.o_proj",
                        (Qwen3 | Gemma3, "attn_q_norm") => "self_attn.q_norm",
                        (Qwen3 | Gemma3, "attn_k_norm") => "self_attn.k_norm",
                        (_, "ffn_gate") => "mlp.gate_proj",
                        (_, "ffn_up") => "mlp.up_proj",
                        (_, "ffn_down") => "mlp.down_proj",
                        (Gemma3, "post_attention_norm") => "post_attention_layernorm",
                        (Gemma3, "ffn_norm") => "pre_feedforward_layernorm",
                        (Gemma3, "post_ffw_norm") => "post_feedforward_layernorm",
                        (_, "ffn_norm") => "post_attention_layernorm",
                        _ => return None,
                    };
                    if architecture == Llama && part == "attn_q" {
                        change = Change::Rotary { heads };
                    } else if architecture == Llama && part == "attn_k" {
                        let heads = key_value_heads;
                        change = Change::Rotary { heads };
                    }
                    format!("model.layers.{layer}.{module}")
                }
                Gpt2 => {
                    let module = match part {
                        "attn_norm" => "ln_1",
                        "attn_qkv" => "attn.c_attn",
                        "attn_output" => "attn.c_proj",
                        "ffn_norm" => "ln_2",
                        "ffn_up" => "mlp.c_fc",
                        "ffn_down" => "mlp.c_proj",
                        _ => return None,
                    };
                    if kind == "weight" && !part.ends_with("norm") {
                        change = Change::Transposed;
                    }
                    format!("transformer.h.{layer}.{module}")
                }
                GptNeoX => {
                    let module = match part {
                        "attn_norm" => "input_layernorm",
                        "attn_qkv" => "attention.query_key_value",
                        "attn_output" => "attention.dense",
                        "ffn_norm" => "post_attention_layernorm",
                        "ffn_up" => "mlp.dense_h_to_4h",
                        "ffn_down" => "mlp.dense_4h_to_h",
                        _ => return None,
                    };
                    if part == "attn_qkv" {
                        change = Change::Fused { heads };
                    }
                    format!("gpt_neox.layers.{layer}.{module}")
                }
            }
        }
    };
    if architecture == Gemma3 && stem.ends_with("norm") {
        change = Change::PlusOne;
    }
    Some(Place::Parameter(format!("{module}.{kind}"), change))
}
