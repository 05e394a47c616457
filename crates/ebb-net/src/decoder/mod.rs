//! One decoder for the Llama, Qwen, Gemma, GPT-2 and GPT-NeoX families.
//!
//! **What it does.** A [`DecoderConfig`] (read from a checkpoint's `config.json`) lists the parts;
//! [`Decoder`] puts them together. Parameters have the checkpoint's own paths and shapes, so a
//! file of weights is read and written without translation.
//!
//! **A decoder is a [`Network`]**, not a trait beside it. The methods of this project ask a
//! network for a layout, a forward pass and taps, and none of that differs here:
//! - A row of `x` is a sequence of token ids as f32 (exact up to 2²⁴; larger vocabularies are
//!   refused). [`Decoder::tokens`] checks them; a pass has nobody to report to.
//! - A pass takes rows of any length up to [`DecoderConfig::longest`]; [`Network::inputs`] is the
//!   length the decoder was built for, which is what `Model::input` shapes values to.
//! - Logits and features have one row *for each position*: `[rows * positions, vocabulary]`, in
//!   the order of the tokens, so that a loss over rows is a loss over tokens.
//! - Taps are named after the checkpoint's modules, `{module}.in` and `{module}.out`, and see
//!   `[positions, width]` in a row. Within an attention there are also `queries`, `keys`,
//!   `values`, `scores` (before the mask) and `pattern` (after the softmax),
//!   `[heads, positions, ...]` in a row. The tap `input` holds the ids: they can be read and
//!   replaced, but have no gradient; take the gradient at the embedding's `out` instead.
//! - Rows are filled on the right: a causal position never sees what follows, so no mask is
//!   needed, and what is computed at the filling is to be ignored.
//!
//! Text is made by [`Decoder::generate`] and judged by [`Decoder::choices`] and
//! [`Decoder::losses`]; both keep keys and values in a [`Cache`].
//!
//! Dropout named in a `config.json` is not drawn: training passes equal evaluation passes.

pub mod cache;
pub mod config;
pub mod generate;
pub mod processors;
pub mod rope;
pub mod score;

mod attention;
mod checkpoint;
mod linear;
mod mlp;
mod norm;
mod place;

pub use cache::Cache;
pub use config::{Biases, Block, DecoderConfig, MODEL_TYPES, Names, Nonlinearity, NormKind};
pub use generate::{Choice, End, Generated, Generation, Prompt};
pub use place::{Place, Role};
pub use processors::{PenaltyDecoding, Processor};
pub use rope::{Rotary, Scaling};
pub use score::{Question, Scored};

use crate::adapter::LinearMap;
use crate::network::{Network, Output, Pass, Seed, Seeded};
use crate::params::Params;
use crate::{Error, Result};
use attention::{Attention, Inside, Projection};
use burn::tensor::{Device, Tensor, TensorData};
use cache::KeysValues;
use ebb_kernels::Stored;
use ebb_space::{Key, Layout, Weights};
use linear::{Around, Linear, Parameters, Start};
use mlp::Mlp;
use norm::Norm;
use rope::Rotation;
use std::sync::Arc;

/// A decoder-only transformer.
#[derive(Debug)]
pub struct Decoder {
    config: DecoderConfig,
    positions: usize,
    layout: Arc<Layout>,
    buffers: Arc<Layout>,
    starts: Vec<Start>,
    embedding: usize,
    embedded: String,
    position_table: Option<usize>,
    blocks: Vec<DecoderBlock>,
    norm: Norm,
    head: Linear,
}

#[derive(Debug)]
struct DecoderBlock {
    before_attention: Norm,
    attention: Attention,
    after_attention: Option<Norm>,
    before_mlp: Norm,
    mlp: Mlp,
    after_mlp: Option<Norm>,
    parallel: bool,
    around: Around,
}

/// Several documents in one row.
///
/// Both lists have a value for each token, row by row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packing {
    /// The token's position within its document.
    pub positions: Vec<u32>,
    /// Which document it belongs to; a token sees those of its own document only.
    pub documents: Vec<u32>,
}

/// Ids are carried as f32.
const MOST_TOKENS: usize = 1 << 24;

impl Decoder {
    /// The decoder of `config`, for rows of `positions` tokens.
    ///
    /// # Errors
    /// [`Error::Spec`] for a configuration that makes no network, or more positions than its
    /// context.
    pub fn new(config: DecoderConfig, positions: usize) -> Result<Self> {
        config.check()?;
        let refuse = |reason: String| Err(Error::Spec { reason });
        if config.vocabulary > MOST_TOKENS {
            return refuse(format!(
                "a vocabulary of {} tokens is more than the {MOST_TOKENS} an f32 can tell apart",
                config.vocabulary
            ));
        }
        let most = config.longest();
        if positions == 0 || positions > most {
            return refuse(format!(
                "rows of {positions} tokens do not fit a context of {most}"
            ));
        }
        let c = &config;
        let mut parameters = Parameters::default();
        let paths = Paths::of(c.names);
        let table = format!("{}.weight", paths.embedding);
        let embedding = parameters.add(table, &[c.vocabulary, c.width], Start::Normal);
        let position_table = c.learned_positions.then(|| {
            let path = format!("{}.weight", paths.positions);
            parameters.add(path, &[c.context, c.width], Start::Normal)
        });
        let blocks = (0..c.blocks.len())
            .map(|i| paths.block(&mut parameters, c, i))
            .collect();
        let norm = Norm::new(&mut parameters, paths.norm, c.width, c.norm, c.epsilon);
        let shape = [c.width, c.vocabulary];
        let head = match c.tied {
            true => Linear::tied(embedding, paths.head, shape),
            false => Linear::new(&mut parameters, paths.head, shape, false, Stored::OutIn),
        };
        Ok(Self {
            positions,
            layout: Layout::new(parameters.entries)?,
            buffers: Layout::new([])?,
            starts: parameters.starts,
            embedding,
            embedded: format!("{}.out", paths.embedding),
            position_table,
            blocks,
            norm,
            head,
            config,
        })
    }

    /// What it is made of.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Checks `rows` of token ids and makes them the input of a pass, `[rows, longest row]`;
    /// shorter rows are filled with `fill` on the right.
    ///
    /// # Errors
    /// [`Error::Input`] when there is no token, an id is not in the vocabulary, or a row is longer
    /// than the context.
    pub fn tokens(&self, rows: &[&[u32]], fill: u32, device: &Device) -> Result<Tensor<2>> {
        let refuse = |reason: String| Err(Error::Input { reason });
        let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        if longest == 0 {
            return refuse("there is not a single token".to_owned());
        }
        let most = self.config.longest();
        if longest > most {
            return refuse(format!(
                "a row has {longest} tokens and the context holds {most}: cut it or split it"
            ));
        }
        let known = |id: u32| (id as usize) < self.config.vocabulary;
        let ids = rows.iter().flat_map(|row| row.iter());
        if let Some(id) = ids.chain([&fill]).find(|&&id| !known(id)) {
            return refuse(format!(
                "the token {id} is not in the vocabulary of {}: is this the network's own \
                 tokenizer?",
                self.config.vocabulary
            ));
        }
        let mut values = Vec::with_capacity(rows.len() * longest);
        for row in rows {
            values.extend(row.iter().map(|&id| id as f32));
            values.resize(values.len() + longest - row.len(), fill as f32);
        }
        let data = TensorData::new(values, [rows.len(), longest]);
        Ok(Tensor::from_data(data, device))
    }

    /// The forward pass of `x`, `[rows, positions]`, whose rows hold several documents each.
    ///
    /// # Errors
    /// [`Error::Input`] when `packing` is for another number of tokens, or a position is beyond the
    /// context.
    pub fn forward_packed(
        &self,
        x: Tensor<2>,
        packing: &Packing,
        pass: &mut Pass,
    ) -> Result<Output> {
        let [rows, positions] = x.dims();
        let refuse = |reason: String| Err(Error::Input { reason });
        let tokens = rows * positions;
        if packing.positions.len() != tokens || packing.documents.len() != tokens {
            return refuse(format!(
                "{tokens} tokens come with {} positions and {} documents",
                packing.positions.len(),
                packing.documents.len()
            ));
        }
        let last = packing.positions.iter().max().copied().unwrap_or(0) as usize;
        let most = self.config.longest();
        if last >= most {
            return refuse(format!("position {last} is beyond the context of {most}"));
        }
        let documents = Some(packing.documents.as_slice());
        Ok(self.run(x, &packing.positions, documents, pass))
    }

    /// `positions` are those of one row that all rows share, or of every row.
    fn run(
        &self,
        x: Tensor<2>,
        positions: &[u32],
        documents: Option<&[u32]>,
        pass: &mut Pass,
    ) -> Output {
        let [rows, length] = x.dims();
        let c = &self.config;
        let features = self.read(x, positions, documents, pass);
        let logits = self.head.forward(features.clone(), pass);
        let logits = self.cap(logits.reshape([rows * length, c.vocabulary]));
        Output {
            logits: by_row(rows, pass, "logits", logits),
            features: features.reshape([rows * length, c.width]),
        }
    }

    /// Everything before the last layer, `[rows, positions, width]`.
    fn read(
        &self,
        x: Tensor<2>,
        positions: &[u32],
        documents: Option<&[u32]>,
        pass: &mut Pass,
    ) -> Tensor<3> {
        let length = x.dims()[1];
        let device = x.device().without_autodiff();
        let kinds = positions.len() / length.max(1);
        let mut stream = self.embed(x, positions, pass);

        let mut shared = Shared::default();
        for (block, is) in self.blocks.iter().zip(&self.config.blocks) {
            let (mask, rotation) = shared.of(is, length, (positions, kinds), documents, &device);
            stream = block.forward(stream, rotation, mask, None, pass);
        }
        self.norm.forward(stream, pass)
    }

    /// The stream before the first block: `x` holds ids, `[rows, positions]`.
    fn embed(&self, x: Tensor<2>, positions: &[u32], pass: &mut Pass) -> Tensor<3> {
        let [rows, length] = x.dims();
        let c = &self.config;
        let device = x.device().without_autodiff();
        let kinds = positions.len() / length.max(1);
        let ids = pass
            .taps
            .at("input", x)
            .inner()
            .int()
            .reshape([rows * length]);
        let table = pass.param(self.embedding).reshape([c.vocabulary, c.width]);
        let embedded = table.select(0, ids).reshape([rows, length, c.width]);
        let embedded = match c.embedding_scale {
            1.0 => embedded,
            scale => embedded * scale,
        };
        let stream = pass.taps.at(&self.embedded, embedded);
        let Some(table) = self.position_table else {
            return stream;
        };
        let table = pass.param(table).reshape([c.context, c.width]);
        let at: Vec<i64> = positions.iter().map(|&p| i64::from(p)).collect();
        let at = Tensor::from_data(TensorData::new(at, [positions.len()]), &device);
        stream + table.select(0, at).reshape([kinds, length, c.width])
    }

    fn cap(&self, logits: Tensor<2>) -> Tensor<2> {
        match self.config.logit_cap {
            Some(cap) => (logits / cap).tanh() * cap,
            None => logits,
        }
    }
}

/// Masks and rotations, which blocks of one kind share.
#[derive(Default)]
struct Shared {
    masks: Vec<(Option<usize>, Tensor<4>)>,
    rotations: Vec<(Rotary, Rotation)>,
}

impl Shared {
    /// Those of a block, for rows of `length` tokens at positions of so many kinds.
    fn of(
        &mut self,
        block: &Block,
        length: usize,
        (positions, kinds): (&[u32], usize),
        documents: Option<&[u32]>,
        device: &Device,
    ) -> (&Tensor<4>, Option<&Rotation>) {
        let window = block.window.filter(|&w| w < length);
        let mask = find_or_add(&mut self.masks, window, || {
            visible(length, window, documents, device)
        });
        let rotation = block.rotary.map(|rotary| {
            let turn = || rotary.at(positions, kinds, device);
            find_or_add(&mut self.rotations, rotary, turn)
        });
        let rotation = rotation.map(|at| &self.rotations[at].1);
        (&self.masks[mask].1, rotation)
    }
}

/// A tap on `[rows * positions, width]` that keeps the rows of the input apart.
fn by_row(rows: usize, pass: &mut Pass, name: &str, x: Tensor<2>) -> Tensor<2> {
    let [tokens, width] = x.dims();
    let x = x.reshape([rows, tokens / rows.max(1), width]);
    pass.taps.at(name, x).reshape([tokens, width])
}

/// The place of `key` in `list`; what is not there yet is made and added.
fn find_or_add<K: PartialEq, V>(list: &mut Vec<(K, V)>, key: K, make: impl FnOnce() -> V) -> usize {
    match list.iter().position(|(k, _)| *k == key) {
        Some(at) => at,
        None => {
            list.push((key, make()));
            list.len() - 1
        }
    }
}

/// 0 where a query (third dimension) sees a key (fourth), −∞ elsewhere.
fn visible(
    length: usize,
    window: Option<usize>,
    documents: Option<&[u32]>,
    device: &Device,
) -> Tensor<4> {
    let window = window.unwrap_or(length);
    let rows = documents.map_or(1, |d| d.len() / length.max(1));
    let mut values = Vec::with_capacity(rows * length * length);
    for row in 0..rows {
        let same = |q: usize, k: usize| {
            documents.is_none_or(|d| d[row * length + q] == d[row * length + k])
        };
        for q in 0..length {
            values.extend(
                (0..length).map(|k| match k <= q && q - k < window && same(q, k) {
                    true => 0.0,
                    false => f32::NEG_INFINITY,
                }),
            );
        }
    }
    Tensor::from_data(TensorData::new(values, [rows, 1, length, length]), device)
}

impl DecoderBlock {
    fn forward(
        &self,
        x: Tensor<3>,
        rotation: Option<&Rotation>,
        mask: &Tensor<4>,
        past: Option<(&mut KeysValues, usize)>,
        pass: &mut Pass,
    ) -> Tensor<3> {
        let x = pass.taps.at(&self.around.input, x);
        let normed = self.before_attention.forward(x.clone(), pass);
        let attended = self.attention.forward(normed, rotation, mask, past, pass);
        let attended = normed_if(&self.after_attention, attended, pass);
        // A parallel block's second half reads what its first half read.
        let after = x.clone() + attended.clone();
        let read = if self.parallel { x } else { after.clone() };
        let normed = self.before_mlp.forward(read, pass);
        let answer = self.mlp.forward(normed, pass);
        let answer = normed_if(&self.after_mlp, answer, pass);
        pass.taps.at(&self.around.output, after + answer)
    }

    fn linears(&self) -> Vec<&Linear> {
        [self.attention.linears(), self.mlp.linears()].concat()
    }

    fn taps(&self) -> Vec<String> {
        let [input, output] = self.around.names();
        std::iter::once(input)
            .chain(self.before_attention.taps())
            .chain(self.attention.taps())
            .chain(self.after_attention.iter().flat_map(Norm::taps))
            .chain(self.before_mlp.taps())
            .chain(self.mlp.taps())
            .chain(self.after_mlp.iter().flat_map(Norm::taps))
            .chain([output])
            .collect()
    }
}

fn normed_if(norm: &Option<Norm>, x: Tensor<3>, pass: &mut Pass) -> Tensor<3> {
    match norm {
        Some(norm) => norm.forward(x, pass),
        None => x,
    }
}

/// The names checkpoints of one kind use.
struct Paths {
    embedding: &'static str,
    positions: &'static str,
    layers: &'static str,
    norm: &'static str,
    head: &'static str,
    attention: &'static str,
    attention_output: &'static str,
    before_attention: &'static str,
    before_mlp: &'static str,
    up: &'static str,
    down: &'static str,
    stored: Stored,
}

impl Paths {
    fn of(names: Names) -> Self {
        match names {
            Names::Llama => Paths {
                embedding: "model.embed_tokens",
                positions: "model.embed_positions",
                layers: "model.layers",
                norm: "model.norm",
                head: "lm_head",
                attention: "self_attn",
                attention_output: "o_proj",
                before_attention: "input_layernorm",
                before_mlp: "post_attention_layernorm",
                up: "up_proj",
                down: "down_proj",
                stored: Stored::OutIn,
            },
            Names::Gpt2 => Paths {
                embedding: "transformer.wte",
                positions: "transformer.wpe",
                layers: "transformer.h",
                norm: "transformer.ln_f",
                head: "lm_head",
                attention: "attn",
                attention_output: "c_proj",
                before_attention: "ln_1",
                before_mlp: "ln_2",
                up: "c_fc",
                down: "c_proj",
                stored: Stored::InOut,
            },
            Names::GptNeoX => Paths {
                embedding: "gpt_neox.embed_in",
                positions: "gpt_neox.embed_positions",
                layers: "gpt_neox.layers",
                norm: "gpt_neox.final_layer_norm",
                head: "embed_out",
                attention: "attention",
                attention_output: "dense",
                before_attention: "input_layernorm",
                before_mlp: "post_attention_layernorm",
                up: "dense_h_to_4h",
                down: "dense_4h_to_h",
                stored: Stored::OutIn,
            },
        }
    }

    fn block(&self, parameters: &mut Parameters, c: &DecoderConfig, i: usize) -> DecoderBlock {
        let at = format!("{}.{i}", self.layers);
        let norm = |parameters: &mut Parameters, name: &str| {
            let path = format!("{at}.{name}");
            Norm::new(parameters, &path, c.width, c.norm, c.epsilon)
        };
        let before_attention = norm(parameters, self.before_attention);
        let attention = self.attention(parameters, c, &at, &c.blocks[i]);
        // With norms on both sides of the halves, the usual name of the second one before is the
        // name of the first one after.
        let (after_attention, before_mlp) = match c.output_norms {
            true => (Some(self.before_mlp), "pre_feedforward_layernorm"),
            false => (None, self.before_mlp),
        };
        let after_attention = after_attention.map(|name| norm(parameters, name));
        let before_mlp = norm(parameters, before_mlp);
        let mlp = self.mlp(parameters, c, &format!("{at}.mlp"));
        let after_mlp = c
            .output_norms
            .then(|| norm(parameters, "post_feedforward_layernorm"));
        DecoderBlock {
            before_attention,
            attention,
            after_attention,
            before_mlp,
            mlp,
            after_mlp,
            parallel: c.parallel,
            around: Around::new(&at),
        }
    }

    fn attention(
        &self,
        parameters: &mut Parameters,
        c: &DecoderConfig,
        block: &str,
        is: &Block,
    ) -> Attention {
        let at = format!("{block}.{}", self.attention);
        let [queries, keys] = [c.heads, c.key_value_heads].map(|h| h * c.head_width);
        let bias = c.biases.query_key_value;
        let mut linear = |name: &str, shape: [usize; 2], bias: bool| {
            Linear::new(
                parameters,
                &format!("{at}.{name}"),
                shape,
                bias,
                self.stored,
            )
        };
        let all = [c.width, queries + 2 * keys];
        let projection = match c.names {
            Names::Llama => Projection::Separate(Box::new([
                linear("q_proj", [c.width, queries], bias),
                linear("k_proj", [c.width, keys], bias),
                linear("v_proj", [c.width, keys], bias),
            ])),
            Names::Gpt2 => Projection::Stacked(linear("c_attn", all, bias)),
            Names::GptNeoX => Projection::ByHead(linear("query_key_value", all, bias)),
        };
        let shape = [queries, c.width];
        let output = linear(self.attention_output, shape, c.biases.attention_output);
        let norms = c.query_key_norm.then(|| {
            ["q_norm", "k_norm"].map(|name| {
                let path = format!("{at}.{name}");
                Norm::new(parameters, &path, c.head_width, c.norm, c.epsilon)
            })
        });
        Attention {
            projection,
            norms,
            output,
            heads: c.heads,
            key_value_heads: c.key_value_heads,
            head_width: c.head_width,
            scale: is.scale,
            cap: c.score_cap,
            around: Around::new(&at),
            inside: Inside::new(&at),
        }
    }

    fn mlp(&self, parameters: &mut Parameters, c: &DecoderConfig, at: &str) -> Mlp {
        let mut linear = |name: &str, shape: [usize; 2]| {
            let path = format!("{at}.{name}");
            Linear::new(parameters, &path, shape, c.biases.mlp, self.stored)
        };
        let gate = (c.names == Names::Llama).then(|| linear("gate_proj", [c.width, c.inner]));
        Mlp {
            gate,
            up: linear(self.up, [c.width, c.inner]),
            down: linear(self.down, [c.inner, c.width]),
            nonlinearity: c.nonlinearity,
            around: Around::new(at),
        }
    }
}

impl Network for Decoder {
    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn buffers(&self) -> &Arc<Layout> {
        &self.buffers
    }

    /// Weights from `N(0, σ²)` with the configuration's σ, scales of norms 1, biases 0.
    fn initialise(&self, key: Key) -> (Weights, Weights) {
        let mut weights = Weights::zeros(&self.layout);
        let deviation = self.config.initial_deviation;
        for (entry, start) in self.layout.entries().iter().zip(&self.starts) {
            let values = &mut weights.as_mut_slice()[entry.range.clone()];
            match start {
                Start::Constant(value) => values.fill(*value),
                Start::Normal => {
                    let mut stream = key.sub(&entry.path).stream();
                    let mut draw = || (deviation * stream.normal()) as f32;
                    values.iter_mut().for_each(|v| *v = draw());
                }
            }
        }
        (weights, Weights::zeros(&self.buffers))
    }

    fn forward(&self, x: Tensor<2>, pass: &mut Pass) -> Output {
        let positions: Vec<u32> = (0..x.dims()[1] as u32).collect();
        self.run(x, &positions, None, pass)
    }

    fn inputs(&self) -> usize {
        self.positions
    }

    fn outputs(&self) -> usize {
        self.config.vocabulary
    }

    fn features(&self) -> usize {
        self.config.width
    }

    fn tokens(&self) -> bool {
        true
    }

    fn places(&self) -> Vec<Place> {
        self.places_of(&self.layout)
    }

    fn checkpointed(
        &self,
        x: Tensor<2>,
        params: &Params,
        seed: Seed,
        collect: &mut dyn FnMut(usize, Tensor<1>),
    ) -> Option<Seeded> {
        Some(checkpoint::pass(self, x, params, seed, collect))
    }

    /// Those of the blocks.
    fn linear_maps(&self) -> Vec<LinearMap> {
        let linears = self.blocks.iter().flat_map(DecoderBlock::linears);
        linears.map(|linear| linear.map(&self.layout)).collect()
    }

    fn taps(&self) -> Vec<String> {
        ["input".to_owned(), self.embedded.clone()]
            .into_iter()
            .chain(self.blocks.iter().flat_map(DecoderBlock::taps))
            .chain(self.norm.taps())
            .chain(self.head.taps())
            .chain(["logits".to_owned()])
            .collect()
    }
}
