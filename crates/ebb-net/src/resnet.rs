//! ResNet-18 for small images: a 3x3 stem, four stages of two basic blocks (the later three
//! halve the image), average pooling and the head. Width is configurable; 64 is the standard,
//! 20 the reduced form common in continual learning.
//!
//! Paths: `stem.*`, `stages.{s}.{b}.{conv1,norm1,conv2,norm2,short,shortnorm}.*`, and the heads'.
//! Taps: `input`, `stem.out`, `stages.{s}.{b}.out`, and the heads'.

use crate::heads::{HeadPlan, Heads};
use crate::images::Images;
use crate::init::Init;
use crate::network::{Network, Output, Pass};
use crate::norm::BatchNorm;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use ebb_kernels::Activation;
use ebb_space::{Key, Layout, Weights};
use std::sync::Arc;

/// A convolution without bias and the batch norm behind it.
#[derive(Debug)]
struct ConvNorm {
    weight: usize,
    path: String,
    shape: [usize; 4],
    stride: usize,
    norm: BatchNorm,
}

impl ConvNorm {
    fn forward(&self, x: Images, relu: bool, pass: &mut Pass) -> Images {
        let none = Tensor::zeros([self.shape[0]], &x.pixels.device());
        let weight = pass.param(self.weight);
        let window = [self.shape[2], self.stride];
        let z = x.convolve(weight, none, window, Activation::Identity);
        self.norm.forward(z, relu, pass)
    }
}

#[derive(Debug)]
struct Block {
    name: String,
    first: ConvNorm,
    second: ConvNorm,
    short: Option<ConvNorm>,
}

/// ResNet-18.
#[derive(Debug)]
pub struct ResNet {
    layout: Arc<Layout>,
    buffers: Arc<Layout>,
    shape: [usize; 3],
    stem: ConvNorm,
    blocks: Vec<Block>,
    heads: Heads,
    init: Init,
}

/// Collects names and shapes while the network is laid out.
#[derive(Default)]
struct Plan {
    params: Vec<(String, Vec<usize>)>,
    buffers: Vec<(String, Vec<usize>)>,
}

impl Plan {
    fn conv_norm(
        &mut self,
        conv: &str,
        norm: &str,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
    ) -> ConvNorm {
        let weight = self.params.len();
        let shape = [outputs, inputs, kernel, kernel];
        let path = format!("{conv}.weight");
        self.params.push((path.clone(), shape.to_vec()));
        self.params.push((format!("{norm}.weight"), vec![outputs]));
        self.params.push((format!("{norm}.bias"), vec![outputs]));
        let (mean, variance) = (
            format!("{norm}.running_mean"),
            format!("{norm}.running_var"),
        );
        self.buffers.push((mean.clone(), vec![outputs]));
        self.buffers.push((variance.clone(), vec![outputs]));
        ConvNorm {
            weight,
            path,
            shape,
            stride,
            norm: BatchNorm {
                scale: weight + 1,
                mean,
                variance,
                channels: outputs,
            },
        }
    }
}

impl ResNet {
    /// `shape` = channels, height, width of an input (at least 8 x 8).
    pub fn new(
        shape: [usize; 3],
        width: usize,
        heads: HeadPlan,
        init: Init,
    ) -> crate::Result<Self> {
        if width == 0 || shape[1] < 8 || shape[2] < 8 {
            return Err(crate::Error::Spec {
                reason: format!(
                    "a ResNet-18 needs a width above 0 and inputs of at least 8 x 8, not {} x {}",
                    shape[1], shape[2]
                ),
            });
        }
        heads.check()?;
        let mut plan = Plan::default();
        let stem = plan.conv_norm("stem.conv", "stem.norm", shape[0], width, 3, 1);
        let mut blocks = Vec::new();
        let mut inputs = width;
        for stage in 0..4 {
            let outputs = width << stage;
            for b in 0..2 {
                let stride = if stage > 0 && b == 0 { 2 } else { 1 };
                let name = format!("stages.{stage}.{b}");
                let at = |part: &str| format!("{name}.{part}");
                let first = plan.conv_norm(&at("conv1"), &at("norm1"), inputs, outputs, 3, stride);
                let second = plan.conv_norm(&at("conv2"), &at("norm2"), outputs, outputs, 3, 1);
                let short = (stride != 1 || inputs != outputs).then(|| {
                    plan.conv_norm(&at("short"), &at("shortnorm"), inputs, outputs, 1, stride)
                });
                blocks.push(Block {
                    name,
                    first,
                    second,
                    short,
                });
                inputs = outputs;
            }
        }
        let heads = Heads::new(plan.params.len(), inputs, heads);
        plan.params.extend(heads.entries());
        Ok(Self {
            layout: Layout::new(plan.params)?,
            buffers: Layout::new(plan.buffers)?,
            shape,
            stem,
            blocks,
            heads,
            init,
        })
    }

    fn convolutions(&self) -> impl Iterator<Item = &ConvNorm> {
        let blocks = self.blocks.iter().flat_map(|b| {
            [Some(&b.first), Some(&b.second), b.short.as_ref()]
                .into_iter()
                .flatten()
        });
        std::iter::once(&self.stem).chain(blocks)
    }
}

impl Network for ResNet {
    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn buffers(&self) -> &Arc<Layout> {
        &self.buffers
    }

    fn initialise(&self, key: Key) -> (Weights, Weights) {
        let mut weights = Weights::zeros(&self.layout);
        let mut buffers = Weights::zeros(&self.buffers);
        for c in self.convolutions() {
            let area = c.shape[2] * c.shape[3];
            let (fan_in, fan_out) = (c.shape[1] * area, c.shape[0] * area);
            self.init
                .fill(&mut weights, key, &c.path, None, fan_in, fan_out);
            let scale = self.layout.entries()[c.norm.scale].path.clone();
            if let Some(values) = weights.get_mut(&scale) {
                values.fill(1.0);
            }
            if let Some(values) = buffers.get_mut(&c.norm.variance) {
                values.fill(1.0);
            }
        }
        self.heads.initialise(&mut weights, key, self.init);
        (weights, buffers)
    }

    fn forward(&self, x: Tensor<2>, pass: &mut Pass) -> Output {
        let x = Images::of_rows(pass.taps.at("input", x), self.shape);
        let mut h = self.stem.forward(x, true, pass).at("stem.out", pass);
        for block in &self.blocks {
            let main = block.first.forward(h.clone(), true, pass);
            let main = block.second.forward(main, false, pass);
            let short = match &block.short {
                Some(conv) => conv.forward(h, false, pass),
                None => h,
            };
            let sum = relu(main.pixels.clone() + short.pixels);
            h = main.with(sum).at(&format!("{}.out", block.name), pass);
        }
        self.heads.forward(h.mean(), pass)
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
        let blocks = self.blocks.iter().map(|b| format!("{}.out", b.name));
        ["input", "stem.out"]
            .map(str::to_owned)
            .into_iter()
            .chain(blocks)
            .chain(self.heads.taps())
            .collect()
    }
}
