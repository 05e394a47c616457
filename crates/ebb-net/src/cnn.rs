//! A small convolutional network: blocks of 3x3 convolutions, each with optional batch norm and
//! ReLU, and 2x2 max pooling behind a block; then one hidden linear layer, or the mean over what
//! pixels are left, and the head.
//!
//! Paths: `blocks.{i}.conv.weight` `[out, in, 3, 3]`, `blocks.{i}.conv.bias`, `blocks.{i}.norm.*`
//! (`blocks.{i}.{j}.*` where a block has several convolutions), `hidden.weight`, `hidden.bias`, and
//! the heads'. Taps: `input`, `blocks.{i}.in`, `blocks.{i}.pre` (or `blocks.{i}.{j}.pre`),
//! `blocks.{i}.out`, `hidden.in` and `hidden.out` (or `mean.out`), and the heads'.

use crate::activation::dropout;
use crate::heads::{HeadPlan, Heads};
use crate::images::Images;
use crate::init::Init;
use crate::network::{Network, Output, Pass};
use crate::norm::BatchNorm;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use ebb_kernels::{Activation, fused_linear};
use ebb_space::{Key, Layout, Weights};
use std::sync::Arc;

/// A convolution with what follows it up to its ReLU.
#[derive(Debug)]
struct Layer {
    /// `blocks.{i}` or `blocks.{i}.{j}`.
    name: String,
    /// Index of its weight among the parameters; the bias follows it.
    weight: usize,
    inputs: usize,
    outputs: usize,
    norm: Option<BatchNorm>,
}

impl Layer {
    fn forward(&self, x: Images, pass: &mut Pass) -> Images {
        let (w, b) = (pass.param(self.weight), pass.param(self.weight + 1));
        let pre = format!("{}.pre", self.name);
        let apart = pass.taps.wants(&pre);
        let act = match self.norm.is_none() && !apart {
            true => Activation::Relu,
            false => Activation::Identity,
        };
        let z = x.convolve(w, b, [3, 1], act);
        let z = match &self.norm {
            Some(norm) => norm.forward(z, !apart, pass),
            None => z,
        };
        if !apart {
            return z;
        }
        let z = z.at(&pre, pass);
        let y = relu(z.pixels.clone());
        z.with(y)
    }
}

/// The small convolutional network.
#[derive(Debug)]
pub struct Cnn {
    layout: Arc<Layout>,
    buffers: Arc<Layout>,
    shape: [usize; 3],
    blocks: Vec<Vec<Layer>>,
    /// Units of the hidden layer; 0: none, the mean over pixels in its place.
    hidden: usize,
    flat: usize,
    heads: Heads,
    dropout: f64,
    init: Init,
}

impl Cnn {
    /// `shape` = channels, height, width of an input; `channels` of each block, which has `depth`
    /// convolutions; `hidden` units, or 0 for the mean over pixels; `norm` puts batch
    /// normalisation behind each convolution.
    pub fn new(
        shape: [usize; 3],
        channels: &[usize],
        depth: usize,
        hidden: usize,
        heads: HeadPlan,
        norm: bool,
        dropout: f64,
        init: Init,
    ) -> crate::Result<Self> {
        let halvings = channels.len();
        let (height, width) = (shape[1] >> halvings, shape[2] >> halvings);
        if halvings == 0 || channels.contains(&0) || height == 0 || width == 0 || depth == 0 {
            return Err(crate::Error::Spec {
                reason: format!(
                    "{halvings} halving blocks do not fit inputs of {} x {}; use fewer channels \
                     entries, none of them 0, and a depth of at least 1",
                    shape[1], shape[2]
                ),
            });
        }
        heads.check()?;
        let last = channels[halvings - 1];
        let flat = last * height * width;
        let mut entries = Vec::new();
        let mut running = Vec::new();
        let mut blocks = Vec::new();
        let mut inputs = shape[0];
        for (i, &outputs) in channels.iter().enumerate() {
            let mut block = Vec::new();
            for j in 0..depth {
                let name = match depth {
                    1 => format!("blocks.{i}"),
                    _ => format!("blocks.{i}.{j}"),
                };
                let weight = entries.len();
                entries.push((format!("{name}.conv.weight"), vec![outputs, inputs, 3, 3]));
                entries.push((format!("{name}.conv.bias"), vec![outputs]));
                let norm = norm.then(|| {
                    let of = |what: &str| format!("{name}.norm.{what}");
                    let norm = BatchNorm {
                        scale: entries.len(),
                        mean: of("running_mean"),
                        variance: of("running_var"),
                        channels: outputs,
                    };
                    entries.push((of("weight"), vec![outputs]));
                    entries.push((of("bias"), vec![outputs]));
                    running.push((norm.mean.clone(), vec![outputs]));
                    running.push((norm.variance.clone(), vec![outputs]));
                    norm
                });
                block.push(Layer {
                    name,
                    weight,
                    inputs,
                    outputs,
                    norm,
                });
                inputs = outputs;
            }
            blocks.push(block);
        }
        if hidden > 0 {
            entries.push(("hidden.weight".into(), vec![hidden, flat]));
            entries.push(("hidden.bias".into(), vec![hidden]));
        }
        let features = if hidden > 0 { hidden } else { last };
        let heads = Heads::new(entries.len(), features, heads);
        entries.extend(heads.entries());
        Ok(Self {
            layout: Layout::new(entries)?,
            buffers: Layout::new(running)?,
            shape,
            blocks,
            hidden,
            flat,
            heads,
            dropout,
            init,
        })
    }
}

impl Network for Cnn {
    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn buffers(&self) -> &Arc<Layout> {
        &self.buffers
    }

    fn initialise(&self, key: Key) -> (Weights, Weights) {
        let mut weights = Weights::zeros(&self.layout);
        let mut buffers = Weights::zeros(&self.buffers);
        for layer in self.blocks.iter().flatten() {
            let of = |what: &str| format!("{}.{what}", layer.name);
            let (w, b) = (of("conv.weight"), of("conv.bias"));
            let (fan_in, fan_out) = (layer.inputs * 9, layer.outputs * 9);
            self.init
                .fill(&mut weights, key, &w, Some(&b), fan_in, fan_out);
            if let Some(scale) = weights.get_mut(&of("norm.weight")) {
                scale.fill(1.0);
            }
            if let Some(variance) = buffers.get_mut(&of("norm.running_var")) {
                variance.fill(1.0);
            }
        }
        if self.hidden > 0 {
            let (w, b) = ("hidden.weight", Some("hidden.bias"));
            self.init
                .fill(&mut weights, key, w, b, self.flat, self.hidden);
        }
        self.heads.initialise(&mut weights, key, self.init);
        (weights, buffers)
    }

    fn forward(&self, x: Tensor<2>, pass: &mut Pass) -> Output {
        let mut h = Images::of_rows(pass.taps.at("input", x), self.shape);
        for (i, block) in self.blocks.iter().enumerate() {
            h = h.at(&format!("blocks.{i}.in"), pass);
            for layer in block {
                h = layer.forward(h, pass);
            }
            h = h.halve().at(&format!("blocks.{i}.out"), pass);
        }
        let (h, name) = match self.hidden {
            0 => (h.mean(), "mean.out"),
            _ => {
                let flat = pass.taps.at("hidden.in", h.into_rows());
                let last = self.blocks.iter().flatten().next_back();
                let next = last.map_or(0, |l| l.weight + if l.norm.is_some() { 4 } else { 2 });
                let (w, b) = (pass.param(next), pass.param(next + 1));
                (fused_linear(flat, w, b, Activation::Relu), "hidden.out")
            }
        };
        let h = dropout(h, self.dropout, name, pass.mode);
        let h = pass.taps.at(name, h);
        self.heads.forward(h, pass)
    }

    fn inputs(&self) -> usize {
        self.shape.iter().product()
    }

    fn outputs(&self) -> usize {
        self.heads.outputs()
    }

    fn features(&self) -> usize {
        self.heads.features()
    }

    fn taps(&self) -> Vec<String> {
        let blocks = self.blocks.iter().enumerate().flat_map(|(i, block)| {
            let around = ["in", "out"].map(|at| format!("blocks.{i}.{at}"));
            let [before, behind] = around;
            let within = block.iter().map(|layer| format!("{}.pre", layer.name));
            std::iter::once(before).chain(within).chain([behind])
        });
        let tail: &[&str] = match self.hidden {
            0 => &["mean.out"],
            _ => &["hidden.in", "hidden.out"],
        };
        let tail = tail.iter().map(|name| (*name).to_owned());
        std::iter::once("input".to_owned())
            .chain(blocks)
            .chain(tail)
            .chain(self.heads.taps())
            .collect()
    }
}
