//! What a network is: names, shapes and a forward pass.

use crate::adapter::{self, LinearMap};
use crate::decoder::Place;
use crate::params::Params;
use crate::taps::Taps;
use burn::tensor::Tensor;
use ebb_kernels::{Activation, Stored, fused_linear_of};
use ebb_space::{Key, Layout, Weights};
use std::sync::Arc;

/// How a pass treats layers that behave differently while training.
#[derive(Clone, Copy)]
pub enum Mode<'a> {
    /// Dropout is drawn (keyed by example), batch statistics are used and remembered.
    Train {
        /// The key of this step's draws.
        key: Key,
        /// The example behind each row.
        rows: &'a [u64],
    },
    /// Nothing is drawn, stored statistics are used.
    Eval,
}

/// What a forward pass yields.
pub struct Output {
    /// `[rows, outputs]`.
    pub logits: Tensor<2>,
    /// The input of the last layer, `[rows, width]`.
    pub features: Tensor<2>,
}

/// Makes the gradients by logits and features from what a pass yields.
pub type Seed<'a> =
    &'a mut dyn FnMut(&Output) -> Result<(Tensor<2>, Option<Tensor<2>>), ebb_space::Error>;

/// Whether a pass could be seeded.
pub type Seeded = Result<(), ebb_space::Error>;

/// One pass through a network: its parameters, what is tapped, and the mode.
pub struct Pass<'a> {
    /// The network's parameters.
    pub params: &'a Params,
    /// Running statistics; training passes update them.
    pub buffers: &'a mut Weights,
    /// The activations asked for.
    pub taps: &'a mut Taps,
    /// Training or evaluation.
    pub mode: Mode<'a>,
}

impl Pass<'_> {
    /// The parameter at `index`, flat.
    pub fn param(&self, index: usize) -> Tensor<1> {
        self.params.get(index)
    }

    /// Whether a low-rank update stands beside the weight at `weight` of the layout.
    pub fn adapts(&self, weight: usize) -> bool {
        self.params.bank(weight).is_some()
    }

    /// `x wᵀ + b` for `x` `[n, in]` and the weight at `weight` of the layout, with the low-rank
    /// update that stands beside it, if one does. Without a bias, `b` is zeros.
    pub fn linear(
        &self,
        x: Tensor<2>,
        weight: usize,
        bias: Option<usize>,
        outputs: usize,
        stored: Stored,
    ) -> Tensor<2> {
        let w = self.param(weight);
        let none = || Tensor::zeros([outputs], &x.device().without_autodiff());
        let b = bias.map_or_else(none, |b| self.param(b));
        match self.params.bank(weight) {
            None => fused_linear_of(x, w, b, Activation::Identity, stored),
            Some(bank) => {
                let training = matches!(self.mode, Mode::Train { .. });
                adapter::forward(bank, x, w, b, training)
            }
        }
    }
}

/// A linear layer as per-example statistics see it.
///
/// Its input is tapped at `input` (`[rows, positions * in]`) and its result before the
/// activation at `output` (`[rows, positions * out]`).
#[derive(Clone, Debug)]
pub struct LinearSite {
    /// Path of the weight, `[out, in]`.
    pub weight: String,
    /// Path of the bias, `[out]`.
    pub bias: Option<String>,
    /// Name of the tap before the layer.
    pub input: String,
    /// Name of the tap behind it, before the activation.
    pub output: String,
    /// Input width.
    pub inputs: usize,
    /// Output width.
    pub outputs: usize,
    /// Positions a row has.
    pub positions: usize,
}

/// An architecture: parameters by path, shapes by path, and a forward pass with taps.
pub trait Network: Send + Sync + std::fmt::Debug {
    /// Paths and shapes of the parameters.
    fn layout(&self) -> &Arc<Layout>;

    /// Paths and shapes of the running statistics (not trained by gradient).
    fn buffers(&self) -> &Arc<Layout>;

    /// Fresh parameters and statistics; a pure function of the key.
    fn initialise(&self, key: Key) -> (Weights, Weights);

    /// The forward pass of `x`, `[rows, inputs]`.
    fn forward(&self, x: Tensor<2>, pass: &mut Pass) -> Output;

    /// Values of an input row.
    fn inputs(&self) -> usize;

    /// Outputs of the last layer (all heads side by side).
    fn outputs(&self) -> usize;

    /// Width of the features.
    fn features(&self) -> usize;

    /// Every activation's name, in the order a pass meets them. The first is `input`:
    /// differentiating it gives the gradient with respect to `x`.
    fn taps(&self) -> Vec<String>;

    /// Whether a row of `x` is a sequence of token ids; logits and features have a row for each
    /// token then, in their order.
    fn tokens(&self) -> bool {
        false
    }

    /// What each parameter is for, in the order of the layout; nothing in networks that are not
    /// made of blocks of attention and feed-forward layers.
    fn places(&self) -> Vec<Place> {
        Vec::new()
    }

    /// A forward and a backward pass that keep the inputs of blocks alone and compute what lies
    /// within a second time. `seed` makes the gradient by logits and, where it is wanted, by
    /// features from the output, and may fail; `collect` gets gradients by the number of their
    /// trained tensor, some more than once, and adds them up. Networks that cannot do it
    /// answer `None` and call nothing.
    fn checkpointed(
        &self,
        _x: Tensor<2>,
        _params: &Params,
        _seed: Seed,
        _collect: &mut dyn FnMut(usize, Tensor<1>),
    ) -> Option<Seeded> {
        None
    }

    /// The linear maps that a low-rank update may stand beside.
    fn linear_maps(&self) -> Vec<LinearMap> {
        Vec::new()
    }

    /// The linear layers, if they hold *all* parameters; otherwise per-example statistics go
    /// example by example.
    fn linear_sites(&self) -> Option<Vec<LinearSite>> {
        None
    }
}
