//! A small convolutional network: blocks of 3x3 convolution, optional batch norm, ReLU and 2x2
//! max pooling, then one hidden linear layer and the head.
//!
//! Paths: `blocks.{i}.conv.weight` `[out, in, 3, 3]`, `blocks.{i}.conv.bias`, `blocks.{i}.norm.*`,
//! `hidden.weight`, `hidden.bias`, and the heads'. Taps: `input`, `blocks.{i}.in`, `blocks.{i}.pre`,
//! `blocks.{i}.out`, `hidden.in`, `hidden.out`, and the heads'.

use crate::activation::dropout;
use crate::heads::{HeadPlan, Heads};
use crate::init::Init;
use crate::network::{Network, Output, Pass};
use crate::norm::BatchNorm;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::module::{conv2d, max_pool2d};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use ebb_kernels::{Activation, fused_linear};
use ebb_space::{Key, Layout, Weights};
use std::sync::Arc;

/// The small convolutional network.
#[derive(Debug)]
pub struct Cnn {
    layout: Arc<Layout>,
    buffers: Arc<Layout>,
    shape: [usize; 3],
    channels: Vec<usize>,
    norms: Vec<BatchNorm>,
    hidden: usize,
    flat: usize,
    heads: Heads,
    dropout: f64,
    init: Init,
}

impl Cnn {
    /// `shape` = channels, height, width of an input; `channels` of each block; `norm` puts
    /// batch normalisation behind each convolution.
    pub fn new(
        shape: [usize; 3],
        channels: &[usize],
        hidden: usize,
        heads: HeadPlan,
        norm: bool,
        dropout: f64,
        init: Init,
    ) -> crate::Result<Self> {
        let blocks = channels.len();
        let (height, width) = (shape[1] >> blocks, shape[2] >> blocks);
        if blocks == 0 || channels.contains(&0) || height == 0 || width == 0 || hidden == 0 {
            return Err(crate::Error::Spec {
                reason: format!(
                    "{blocks} halving blocks do not fit inputs of {} x {}; use fewer channels entries",
                    shape[1], shape[2]
                ),
            });
        }
        heads.check()?;
        let flat = channels[blocks - 1] * height * width;
        let mut entries = Vec::new();
        let mut running = Vec::new();
        let mut norms = Vec::new();
        let mut input = shape[0];
        for (i, &c) in channels.iter().enumerate() {
            entries.push((format!("blocks.{i}.conv.weight"), vec![c, input, 3, 3]));
            entries.push((format!("blocks.{i}.conv.bias"), vec![c]));
            if norm {
                norms.push(BatchNorm {
                    scale: entries.len(),
                    mean: format!("blocks.{i}.norm.running_mean"),
                    variance: format!("blocks.{i}.norm.running_var"),
                    channels: c,
                });
                entries.push((format!("blocks.{i}.norm.weight"), vec![c]));
                entries.push((format!("blocks.{i}.norm.bias"), vec![c]));
                running.push((format!("blocks.{i}.norm.running_mean"), vec![c]));
                running.push((format!("blocks.{i}.norm.running_var"), vec![c]));
            }
            input = c;
        }
        entries.push(("hidden.weight".into(), vec![hidden, flat]));
        entries.push(("hidden.bias".into(), vec![hidden]));
        let heads = Heads::new(entries.len(), hidden, heads);
        entries.extend(heads.entries());
        Ok(Self {
            layout: Layout::new(entries)?,
            buffers: Layout::new(running)?,
            shape,
            channels: channels.to_vec(),
            norms,
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
        let mut input = self.shape[0];
        for (i, &c) in self.channels.iter().enumerate() {
            let (w, b) = (
                format!("blocks.{i}.conv.weight"),
                format!("blocks.{i}.conv.bias"),
            );
            self.init
                .fill(&mut weights, key, &w, Some(&b), input * 9, c * 9);
            if let Some(scale) = weights.get_mut(&format!("blocks.{i}.norm.weight")) {
                scale.fill(1.0);
            }
            if let Some(variance) = buffers.get_mut(&format!("blocks.{i}.norm.running_var")) {
                variance.fill(1.0);
            }
            input = c;
        }
        let (w, b) = ("hidden.weight", Some("hidden.bias"));
        self.init
            .fill(&mut weights, key, w, b, self.flat, self.hidden);
        self.heads.initialise(&mut weights, key, self.init);
        (weights, buffers)
    }

    fn forward(&self, x: Tensor<2>, pass: &mut Pass) -> Output {
        let [n, _] = x.dims();
        let x = pass.taps.at("input", x);
        let mut h = x.reshape([n, self.shape[0], self.shape[1], self.shape[2]]);
        let mut next = 0;
        let mut input = self.shape[0];
        for (i, &c) in self.channels.iter().enumerate() {
            h = pass.taps.at(&format!("blocks.{i}.in"), h);
            let weight = pass.param(next).reshape([c, input, 3, 3]);
            let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
            h = conv2d(h, weight, Some(pass.param(next + 1)), options);
            next += 2;
            if let Some(norm) = self.norms.get(i) {
                h = norm.forward(h, pass);
                next += 2;
            }
            h = relu(pass.taps.at(&format!("blocks.{i}.pre"), h));
            h = max_pool2d(h, MaxPoolOptions::new([2, 2]).with_stride([2, 2]));
            h = pass.taps.at(&format!("blocks.{i}.out"), h);
            input = c;
        }
        let flat = pass.taps.at("hidden.in", h.reshape([n, self.flat]));
        let h = fused_linear(
            flat,
            pass.param(next),
            pass.param(next + 1),
            Activation::Relu,
        );
        let h = dropout(h, self.dropout, "hidden.out", pass.mode);
        let h = pass.taps.at("hidden.out", h);
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
        let blocks = (0..self.channels.len())
            .flat_map(|i| ["in", "pre", "out"].map(|at| format!("blocks.{i}.{at}")));
        let tail = ["hidden.in", "hidden.out"].map(str::to_owned);
        std::iter::once("input".to_owned())
            .chain(blocks)
            .chain(tail)
            .chain(self.heads.taps())
            .collect()
    }
}
