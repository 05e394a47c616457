//! The multi-layer perceptron.
//!
//! Paths: `layers.{i}.weight`, `layers.{i}.bias`, `head.weight`, `head.bias`. Taps:
//! `layers.{i}.in`, `layers.{i}.pre`, `layers.{i}.out`, `head.in`, `head.out`.

use crate::activation::{ActivationKind, dropout};
use crate::init::Init;
use crate::network::{LinearSite, Network, Output, Pass};
use burn::tensor::Tensor;
use ebb_kernels::{Activation, fused_linear};
use ebb_space::{Key, Layout, Weights};
use std::sync::Arc;

/// A perceptron with equal activations behind its hidden layers.
#[derive(Debug)]
pub struct Mlp {
    layout: Arc<Layout>,
    buffers: Arc<Layout>,
    widths: Vec<usize>,
    activation: ActivationKind,
    dropout: f64,
    init: Init,
    names: Vec<Names>,
}

#[derive(Debug)]
struct Names {
    weight: String,
    bias: String,
    input: String,
    pre: String,
    out: String,
}

impl Mlp {
    /// `widths` = inputs, hidden layers, outputs.
    pub fn new(
        widths: &[usize],
        activation: ActivationKind,
        dropout: f64,
        init: Init,
    ) -> crate::Result<Self> {
        if widths.len() < 2 || widths.contains(&0) {
            return Err(crate::Error::Spec {
                reason: format!("every layer needs at least one unit, the widths are {widths:?}"),
            });
        }
        if !(0.0..1.0).contains(&dropout) {
            return Err(crate::Error::Spec {
                reason: format!("dropout must lie in [0, 1), it is {dropout}"),
            });
        }
        let last = widths.len() - 2;
        let names: Vec<Names> = (0..=last)
            .map(|i| {
                let prefix = if i == last {
                    "head".to_owned()
                } else {
                    format!("layers.{i}")
                };
                Names {
                    weight: format!("{prefix}.weight"),
                    bias: format!("{prefix}.bias"),
                    input: format!("{prefix}.in"),
                    pre: format!("{prefix}.pre"),
                    out: format!("{prefix}.out"),
                }
            })
            .collect();
        let layout = Layout::new(names.iter().enumerate().flat_map(|(i, n)| {
            [
                (n.weight.clone(), vec![widths[i + 1], widths[i]]),
                (n.bias.clone(), vec![widths[i + 1]]),
            ]
        }))?;
        Ok(Self {
            layout,
            buffers: Layout::new([])?,
            widths: widths.to_vec(),
            activation,
            dropout,
            init,
            names,
        })
    }
}

impl Network for Mlp {
    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn buffers(&self) -> &Arc<Layout> {
        &self.buffers
    }

    fn initialise(&self, key: Key) -> (Weights, Weights) {
        let mut weights = Weights::zeros(&self.layout);
        for (n, w) in self.names.iter().zip(self.widths.windows(2)) {
            self.init
                .fill(&mut weights, key, &n.weight, Some(&n.bias), w[0], w[1]);
        }
        (weights, Weights::zeros(&self.buffers))
    }

    fn forward(&self, x: Tensor<2>, pass: &mut Pass) -> Output {
        let last = self.names.len() - 1;
        let mut h = x;
        for (i, n) in self.names[..last].iter().enumerate() {
            h = pass.taps.at(&n.input, h);
            let (w, b) = (pass.param(2 * i), pass.param(2 * i + 1));
            // A tap between the product and its activation takes the fused pair apart.
            h = match self.activation.fused() {
                Some(act) if !pass.taps.wants(&n.pre) => fused_linear(h, w, b, act),
                _ => {
                    let z = fused_linear(h, w, b, Activation::Identity);
                    self.activation.apply(pass.taps.at(&n.pre, z))
                }
            };
            h = dropout(h, self.dropout, &n.out, pass.mode);
            h = pass.taps.at(&n.out, h);
        }
        let n = &self.names[last];
        let features = pass.taps.at(&n.input, h);
        let logits = fused_linear(
            features.clone(),
            pass.param(2 * last),
            pass.param(2 * last + 1),
            Activation::Identity,
        );
        let logits = pass.taps.at(&n.out, logits);
        Output { logits, features }
    }

    fn inputs(&self) -> usize {
        self.widths[0]
    }

    fn outputs(&self) -> usize {
        self.widths[self.widths.len() - 1]
    }

    fn taps(&self) -> Vec<String> {
        let last = self.names.len() - 1;
        self.names
            .iter()
            .enumerate()
            .flat_map(|(i, n)| {
                let pre = (i < last).then(|| n.pre.clone());
                [Some(n.input.clone()), pre, Some(n.out.clone())]
            })
            .flatten()
            .collect()
    }

    fn linear_sites(&self) -> Option<Vec<LinearSite>> {
        let last = self.names.len() - 1;
        let sites = self.names.iter().zip(self.widths.windows(2)).enumerate();
        Some(
            sites
                .map(|(i, (n, w))| LinearSite {
                    weight: n.weight.clone(),
                    bias: Some(n.bias.clone()),
                    input: n.input.clone(),
                    output: if i == last {
                        n.out.clone()
                    } else {
                        n.pre.clone()
                    },
                    inputs: w[0],
                    outputs: w[1],
                    positions: 1,
                })
                .collect(),
        )
    }
}
