//! The multi-layer perceptron.
//!
//! Paths: `layers.{i}.weight`, `layers.{i}.bias`, and the heads'. Taps: `input`, `layers.{i}.in`,
//! `layers.{i}.pre`, `layers.{i}.out`, and the heads'.

use crate::activation::{ActivationKind, dropout};
use crate::adapter::LinearMap;
use crate::heads::{HeadPlan, Heads, unit_rows};
use crate::init::Init;
use crate::network::{LinearSite, Network, Output, Pass};
use burn::tensor::Tensor;
use ebb_kernels::{Activation, Stored, fused_linear};
use ebb_space::{Key, Layout, Weights};
use std::sync::Arc;

/// A perceptron with equal activations behind its hidden layers.
#[derive(Debug)]
pub struct Mlp {
    layout: Arc<Layout>,
    buffers: Arc<Layout>,
    widths: Vec<usize>,
    activation: ActivationKind,
    standardise: bool,
    dropout: f64,
    init: Init,
    names: Vec<Names>,
    heads: Heads,
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
    /// `widths` = inputs and hidden layers. With `standardise` a hidden unit's weights are used
    /// with mean 0 and length 1, whatever they are (card S088).
    pub fn new(
        widths: &[usize],
        heads: HeadPlan,
        activation: ActivationKind,
        standardise: bool,
        dropout: f64,
        init: Init,
    ) -> crate::Result<Self> {
        if widths.is_empty() || widths.contains(&0) || heads.outputs == 0 {
            return Err(crate::Error::Spec {
                reason: format!("every layer needs at least one unit, the widths are {widths:?}"),
            });
        }
        if !(0.0..1.0).contains(&dropout) {
            return Err(crate::Error::Spec {
                reason: format!("dropout must lie in [0, 1), it is {dropout}"),
            });
        }
        activation.check()?;
        heads.check()?;
        let names: Vec<Names> = (0..widths.len() - 1)
            .map(|i| Names {
                weight: format!("layers.{i}.weight"),
                bias: format!("layers.{i}.bias"),
                input: format!("layers.{i}.in"),
                pre: format!("layers.{i}.pre"),
                out: format!("layers.{i}.out"),
            })
            .collect();
        let heads = Heads::new(2 * names.len(), widths[widths.len() - 1], heads);
        let hidden = names.iter().enumerate().flat_map(|(i, n)| {
            [
                (n.weight.clone(), vec![widths[i + 1], widths[i]]),
                (n.bias.clone(), vec![widths[i + 1]]),
            ]
        });
        let layout = Layout::new(hidden.chain(heads.entries()))?;
        Ok(Self {
            layout,
            buffers: Layout::new([])?,
            widths: widths.to_vec(),
            activation,
            standardise,
            dropout,
            init,
            names,
            heads,
        })
    }

    /// The weight of hidden layer `i` as it is used, flat.
    fn weight(&self, i: usize, pass: &Pass) -> Tensor<1> {
        let w = pass.param(2 * i);
        if !self.standardise {
            return w;
        }
        let (inputs, outputs) = (self.widths[i], self.widths[i + 1]);
        let w = w.reshape([outputs, inputs]);
        let centred = w.clone() - w.mean_dim(1);
        unit_rows(centred).reshape([outputs * inputs])
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
        self.heads.initialise(&mut weights, key, self.init);
        (weights, Weights::zeros(&self.buffers))
    }

    fn forward(&self, x: Tensor<2>, pass: &mut Pass) -> Output {
        let mut h = pass.taps.at("input", x);
        for (i, n) in self.names.iter().enumerate() {
            h = pass.taps.at(&n.input, h);
            let (w, b) = (self.weight(i, pass), pass.param(2 * i + 1));
            // A tap between the product and its activation takes the fused pair apart.
            h = match self.activation.fused() {
                Some(act) if !pass.taps.wants(&n.pre) && !pass.adapts(2 * i) => {
                    fused_linear(h, w, b, act)
                }
                _ => {
                    let z = match pass.adapts(2 * i) {
                        true => pass.linear(
                            h,
                            2 * i,
                            Some(2 * i + 1),
                            self.widths[i + 1],
                            Stored::OutIn,
                        ),
                        false => fused_linear(h, w, b, Activation::Identity),
                    };
                    self.activation.apply(pass.taps.at(&n.pre, z))
                }
            };
            h = dropout(h, self.dropout, &n.out, pass.mode);
            h = pass.taps.at(&n.out, h);
        }
        self.heads.forward(h, pass)
    }

    fn inputs(&self) -> usize {
        self.widths[0]
    }

    fn outputs(&self) -> usize {
        self.heads.outputs()
    }

    fn features(&self) -> usize {
        self.heads.features()
    }

    fn taps(&self) -> Vec<String> {
        let layers = self.names.iter();
        std::iter::once("input".to_owned())
            .chain(layers.flat_map(|n| [n.input.clone(), n.pre.clone(), n.out.clone()]))
            .chain(self.heads.taps())
            .collect()
    }

    /// The hidden layers, unless their weights are standardised.
    fn linear_maps(&self) -> Vec<LinearMap> {
        if self.standardise {
            return Vec::new();
        }
        let layers = self.widths.windows(2).enumerate();
        layers
            .map(|(i, w)| LinearMap {
                path: format!("layers.{i}"),
                weight: 2 * i,
                inputs: w[0],
                outputs: w[1],
                stored: Stored::OutIn,
            })
            .collect()
    }

    fn linear_sites(&self) -> Option<Vec<LinearSite>> {
        let heads = self.heads.sites().filter(|_| !self.standardise)?;
        let sites = self.names.iter().zip(self.widths.windows(2));
        Some(
            sites
                .map(|(n, w)| LinearSite {
                    weight: n.weight.clone(),
                    bias: Some(n.bias.clone()),
                    input: n.input.clone(),
                    output: n.pre.clone(),
                    inputs: w[0],
                    outputs: w[1],
                    positions: 1,
                })
                .chain(heads)
                .collect(),
        )
    }
}
