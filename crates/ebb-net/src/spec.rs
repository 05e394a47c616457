//! Networks described in a recipe.

use crate::activation::ActivationKind;
use crate::cnn::Cnn;
use crate::decoder::{Decoder, DecoderConfig};
use crate::heads::{HeadKind, HeadPlan};
use crate::init::Init;
use crate::key_value::KeyValue;
use crate::mlp::Mlp;
use crate::network::Network;
use crate::resnet::ResNet;
use crate::task_mlp::{TaskMlp, TaskWeights};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A network as a recipe describes it. Inputs and outputs follow from the stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum NetworkSpec {
    /// Multi-layer perceptron.
    Mlp {
        /// Widths of the hidden layers.
        #[serde(default = "two_hundreds")]
        hidden: Vec<usize>,
        /// Behind each hidden layer.
        #[serde(default, with = "crate::word_or_table")]
        activation: ActivationKind,
        /// Uses a hidden unit's weights with mean 0 and length 1.
        #[serde(default)]
        standardise: bool,
        /// From the last hidden layer to the outputs.
        #[serde(default, with = "crate::word_or_table")]
        head: HeadKind,
        /// Share of hidden units dropped while training.
        #[serde(default)]
        dropout: f64,
        /// How the weights start.
        #[serde(default)]
        init: Init,
    },
    /// Small convolutional network.
    Cnn {
        /// Channels of each halving block.
        #[serde(default = "cnn_channels")]
        channels: Vec<usize>,
        /// Convolutions of each block.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        depth: usize,
        /// Units of the hidden linear layer; 0: none, the mean over pixels in its place.
        #[serde(default = "cnn_hidden")]
        hidden: usize,
        /// Batch normalisation behind each convolution.
        #[serde(default)]
        norm: bool,
        /// From the last hidden layer to the outputs.
        #[serde(default, with = "crate::word_or_table")]
        head: HeadKind,
        /// Share of hidden units dropped while training.
        #[serde(default)]
        dropout: f64,
        /// How the weights start.
        #[serde(default)]
        init: Init,
    },
    /// ResNet-18.
    Resnet18 {
        /// Channels of the first stage: 64 is the standard, 20 the reduced form.
        #[serde(default = "resnet_width")]
        width: usize,
        /// From the pooled features to the outputs.
        #[serde(default, with = "crate::word_or_table")]
        head: HeadKind,
        /// How the weights start.
        #[serde(default = "he")]
        init: Init,
    },
    /// A perceptron whose shared weights every task reads in its own way.
    TaskMlp {
        /// Widths of the hidden layers.
        #[serde(default = "two_hundreds")]
        hidden: Vec<usize>,
        /// How a task reads the shared weights.
        #[serde(default)]
        weights: TaskWeights,
        /// Tasks that share the outputs of one head evenly; where there is a head a task, those.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        tasks: usize,
        /// How the weights start.
        #[serde(default)]
        init: Init,
    },
    /// A discrete key-value bottleneck on fixed random features.
    KeyValue {
        /// Codebooks.
        #[serde(default = "key_value_books")]
        books: usize,
        /// Keys of each.
        #[serde(default = "key_value_keys")]
        keys: usize,
        /// Values of a key.
        #[serde(default = "key_value_width")]
        width: usize,
        /// Fixed random units before them; 0: the inputs themselves.
        #[serde(default)]
        features: usize,
    },
    /// A decoder for text, of the Llama family, from fresh weights.
    Decoder {
        /// Width of the residual stream.
        #[serde(default = "decoder_width")]
        width: usize,
        /// Blocks.
        #[serde(default = "decoder_layers")]
        layers: usize,
        /// Attention heads, a divisor of the width.
        #[serde(default = "decoder_heads")]
        heads: usize,
        /// Units within a feed-forward layer; left out: three times the width.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        inner: Option<usize>,
        /// Whether the head is the embedding.
        #[serde(default = "yes", skip_serializing_if = "is_yes")]
        tied: bool,
    },
    /// A language model with its weights: a name that `ebb data fetch` knows, a folder, or a GGUF
    /// file.
    Pretrained {
        /// Where it is.
        model: String,
    },
}

fn decoder_width() -> usize {
    128
}

fn decoder_layers() -> usize {
    4
}

fn decoder_heads() -> usize {
    4
}

fn yes() -> bool {
    true
}

fn is_yes(yes: &bool) -> bool {
    *yes
}

fn one() -> usize {
    1
}

fn is_one(n: &usize) -> bool {
    *n == 1
}

fn key_value_books() -> usize {
    64
}

fn key_value_keys() -> usize {
    128
}

fn key_value_width() -> usize {
    8
}

fn two_hundreds() -> Vec<usize> {
    vec![100, 100]
}

fn cnn_channels() -> Vec<usize> {
    vec![32, 64]
}

fn cnn_hidden() -> usize {
    128
}

fn resnet_width() -> usize {
    20
}

fn he() -> Init {
    Init::He
}

impl Default for NetworkSpec {
    fn default() -> Self {
        NetworkSpec::Mlp {
            hidden: two_hundreds(),
            activation: ActivationKind::default(),
            standardise: false,
            head: HeadKind::default(),
            dropout: 0.0,
            init: Init::default(),
        }
    }
}

impl NetworkSpec {
    /// Whether it reads and writes text.
    pub fn is_language(&self) -> bool {
        matches!(
            self,
            NetworkSpec::Decoder { .. } | NetworkSpec::Pretrained { .. }
        )
    }

    /// The `config.json` of a decoder that is trained from fresh weights, for a vocabulary and a
    /// context of these sizes; none for other networks.
    pub fn decoder_config(
        &self,
        vocabulary: usize,
        context: usize,
    ) -> Option<serde_json::Map<String, serde_json::Value>> {
        let NetworkSpec::Decoder {
            width,
            layers,
            heads,
            inner,
            tied,
        } = self
        else {
            return None;
        };
        let numbers = [
            ("vocab_size", vocabulary),
            ("max_position_embeddings", context),
            ("hidden_size", *width),
            ("intermediate_size", inner.unwrap_or(3 * width)),
            ("num_hidden_layers", *layers),
            ("num_attention_heads", *heads),
            ("num_key_value_heads", *heads),
        ];
        let mut config: serde_json::Map<String, serde_json::Value> = numbers
            .into_iter()
            .map(|(key, n)| (key.to_owned(), n.into()))
            .collect();
        config.insert("model_type".into(), "llama".into());
        config.insert("architectures".into(), vec!["LlamaForCausalLM"].into());
        config.insert("hidden_act".into(), "silu".into());
        config.insert("rms_norm_eps".into(), 1e-5.into());
        config.insert("rope_theta".into(), 10000.0.into());
        config.insert("tie_word_embeddings".into(), (*tied).into());
        Some(config)
    }

    /// Builds the architecture for inputs of `shape` (channels, height, width) with one head of
    /// `outputs` outputs.
    ///
    /// # Errors
    /// When the numbers make no network.
    pub fn build(&self, shape: [usize; 3], outputs: usize) -> crate::Result<Arc<dyn Network>> {
        self.build_heads(shape, outputs, 1)
    }

    /// The same with `heads` heads of `outputs` outputs each.
    ///
    /// # Errors
    /// When the numbers make no network.
    pub fn build_heads(
        &self,
        shape: [usize; 3],
        outputs: usize,
        heads: usize,
    ) -> crate::Result<Arc<dyn Network>> {
        let plan = |head: &HeadKind| HeadPlan {
            count: heads,
            outputs,
            kind: *head,
        };
        Ok(match self {
            NetworkSpec::Mlp {
                hidden,
                activation,
                standardise,
                head,
                dropout,
                init,
            } => {
                let mut widths = vec![shape.iter().product()];
                widths.extend(hidden);
                Arc::new(Mlp::new(
                    &widths,
                    plan(head),
                    *activation,
                    *standardise,
                    *dropout,
                    *init,
                )?)
            }
            NetworkSpec::Cnn {
                channels,
                depth,
                hidden,
                norm,
                head,
                dropout,
                init,
            } => Arc::new(Cnn::new(
                shape,
                channels,
                *depth,
                *hidden,
                plan(head),
                *norm,
                *dropout,
                *init,
            )?),
            NetworkSpec::Resnet18 { width, head, init } => {
                Arc::new(ResNet::new(shape, *width, plan(head), *init)?)
            }
            NetworkSpec::TaskMlp {
                hidden,
                weights,
                tasks,
                init,
            } => {
                let mut widths = vec![shape.iter().product()];
                widths.extend(hidden);
                let (tasks, width) = match (heads, *tasks) {
                    (0 | 1, tasks) if tasks == 0 || !outputs.is_multiple_of(tasks) => {
                        return Err(crate::Error::Spec {
                            reason: format!(
                                "{outputs} outputs cannot be shared evenly by {tasks} tasks; set \
                                 `tasks` to the number of experiences"
                            ),
                        });
                    }
                    (0 | 1, tasks) => (tasks, outputs / tasks),
                    _ => (heads, outputs),
                };
                Arc::new(TaskMlp::new(&widths, tasks, width, *weights, *init)?)
            }
            NetworkSpec::Decoder { .. } => {
                let [_, _, positions] = shape;
                let config = self.decoder_config(outputs, positions).unwrap_or_default();
                let config = serde_json::Value::Object(config).to_string();
                Arc::new(Decoder::new(DecoderConfig::from_json(&config)?, positions)?)
            }
            NetworkSpec::Pretrained { model } => {
                return Err(crate::Error::Spec {
                    reason: format!(
                        "`{model}` is a language model: it goes with a stream of text (dataset = \
                         \"text\" and a table `language`)"
                    ),
                });
            }
            NetworkSpec::KeyValue {
                books,
                keys,
                width,
                features,
            } => Arc::new(KeyValue::new(
                shape.iter().product(),
                *features,
                [*books, *keys, *width],
                heads * outputs,
            )?),
        })
    }
}
