//! The last layer: one head, or one a task.
//!
//! Paths: `head.weight`, `head.bias`, or `heads.{t}.weight`, `heads.{t}.bias` where there are
//! several. Taps: `head.in` (the features), `head.out` (all outputs side by side), and with
//! several heads `heads.{t}.out`.

use crate::init::Init;
use crate::network::{LinearSite, Output, Pass};
use burn::tensor::Tensor;
use ebb_kernels::{Activation, fused_linear};
use ebb_space::{Key, Weights};

/// The linear maps from features to outputs.
#[derive(Debug)]
pub(crate) struct Heads {
    /// Index of the first weight among the parameters.
    first: usize,
    names: Vec<String>,
    features: usize,
    /// Outputs of one head.
    width: usize,
}

impl Heads {
    /// `count` heads of `width` outputs on `features` features; their parameters begin at index
    /// `first`.
    pub fn new(first: usize, count: usize, features: usize, width: usize) -> Self {
        let names = match count {
            0 | 1 => vec!["head".to_owned()],
            _ => (0..count).map(|t| format!("heads.{t}")).collect(),
        };
        Self {
            first,
            names,
            features,
            width,
        }
    }

    /// Paths and shapes.
    pub fn entries(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        self.names.iter().flat_map(|name| {
            [
                (format!("{name}.weight"), vec![self.width, self.features]),
                (format!("{name}.bias"), vec![self.width]),
            ]
        })
    }

    /// Fresh weights.
    pub fn initialise(&self, weights: &mut Weights, key: Key, init: Init) {
        for name in &self.names {
            let (w, b) = (format!("{name}.weight"), format!("{name}.bias"));
            init.fill(weights, key, &w, Some(&b), self.features, self.width);
        }
    }

    /// All heads side by side, `[rows, heads * width]`.
    pub fn forward(&self, features: Tensor<2>, pass: &mut Pass) -> Output {
        let features = pass.taps.at("head.in", features);
        let mut outputs: Vec<Tensor<2>> = (0..self.names.len())
            .map(|t| {
                let (w, b) = (self.first + 2 * t, self.first + 2 * t + 1);
                let (w, b) = (pass.param(w), pass.param(b));
                fused_linear(features.clone(), w, b, Activation::Identity)
            })
            .collect();
        let logits = if outputs.len() == 1 {
            outputs.remove(0)
        } else {
            for (output, name) in outputs.iter_mut().zip(&self.names) {
                if pass.taps.is_empty() {
                    break;
                }
                *output = pass.taps.at(&format!("{name}.out"), output.clone());
            }
            Tensor::cat(outputs, 1)
        };
        let logits = pass.taps.at("head.out", logits);
        Output { logits, features }
    }

    /// All outputs.
    pub fn outputs(&self) -> usize {
        self.names.len() * self.width
    }

    /// As per-example statistics see them.
    pub fn sites(&self) -> impl Iterator<Item = LinearSite> {
        self.names.iter().map(|name| LinearSite {
            weight: format!("{name}.weight"),
            bias: Some(format!("{name}.bias")),
            input: "head.in".to_owned(),
            output: format!("{name}.out"),
            inputs: self.features,
            outputs: self.width,
            positions: 1,
        })
    }

    /// Names of the taps.
    pub fn taps(&self) -> Vec<String> {
        let mut taps = vec!["head.in".to_owned()];
        if self.names.len() > 1 {
            taps.extend(self.names.iter().map(|name| format!("{name}.out")));
        }
        taps.push("head.out".to_owned());
        taps
    }
}
