//! The last layer: one head, or one a task.
//!
//! Paths: `head.weight`, `head.bias`, or `heads.{t}.weight`, `heads.{t}.bias` where there are
//! several; a cosine head has no bias, and `head.scale` where its scale is learned. Taps:
//! `head.in` (the features), `head.out` (all outputs side by side), and with several heads
//! `heads.{t}.out`.

use crate::init::Init;
use crate::network::{LinearSite, Output, Pass};
use crate::word_or_table::{Word, nothing_else};
use burn::tensor::Tensor;
use ebb_kernels::{Activation, fused_linear};
use ebb_space::{Key, Weights};
use serde::{Deserialize, Serialize};

/// How a head turns features `f` into the output of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum HeadKind {
    /// `w·f + b`.
    #[default]
    #[serde(deserialize_with = "nothing_else")]
    Linear,
    /// `s · w·f / (|w| |f|)`: neither the length of the features nor that of a class's weights
    /// says anything, so that new classes are not favoured by larger weights.
    Cosine {
        /// `s`, or where it starts if it is learned; 10 by default.
        #[serde(default = "cosine_scale")]
        scale: f64,
        /// Whether `s` is a parameter.
        #[serde(default)]
        learn: bool,
    },
    /// `w·f / |w|`: the nearest prototype in angle, whose score grows with the features' length.
    #[serde(deserialize_with = "nothing_else")]
    Prototypes,
}

fn cosine_scale() -> f64 {
    10.0
}

impl Word for HeadKind {
    fn word(&self) -> Option<&'static str> {
        match self {
            HeadKind::Linear => Some("linear"),
            HeadKind::Prototypes => Some("prototypes"),
            HeadKind::Cosine { .. } => None,
        }
    }
}

/// What follows the last hidden layer.
#[derive(Clone, Copy, Debug)]
pub struct HeadPlan {
    /// Number of heads.
    pub count: usize,
    /// Outputs of each.
    pub outputs: usize,
    /// Of which kind they are.
    pub kind: HeadKind,
}

impl HeadPlan {
    pub(crate) fn check(&self) -> crate::Result<()> {
        match self.kind {
            HeadKind::Cosine { scale, .. } if !(scale.is_finite() && scale > 0.0) => {
                Err(crate::Error::Spec {
                    reason: format!("a cosine head needs a `scale` above 0, it is {scale}"),
                })
            }
            _ => Ok(()),
        }
    }
}

/// The maps from features to outputs.
#[derive(Debug)]
pub(crate) struct Heads {
    /// Index of the first weight among the parameters.
    first: usize,
    names: Vec<String>,
    features: usize,
    /// Outputs of one head.
    width: usize,
    kind: HeadKind,
}

impl Heads {
    /// The heads of `plan` on `features` features; their parameters begin at index `first`.
    pub fn new(first: usize, features: usize, plan: HeadPlan) -> Self {
        let names = match plan.count {
            0 | 1 => vec!["head".to_owned()],
            count => (0..count).map(|t| format!("heads.{t}")).collect(),
        };
        Self {
            first,
            names,
            features,
            width: plan.outputs,
            kind: plan.kind,
        }
    }

    /// Paths and shapes.
    pub fn entries(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        self.names.iter().flat_map(|name| {
            let weight = (format!("{name}.weight"), vec![self.width, self.features]);
            let second = match self.kind {
                HeadKind::Linear => Some((format!("{name}.bias"), vec![self.width])),
                HeadKind::Cosine { learn: true, .. } => Some((format!("{name}.scale"), vec![1])),
                HeadKind::Cosine { learn: false, .. } | HeadKind::Prototypes => None,
            };
            std::iter::once(weight).chain(second)
        })
    }

    /// Fresh weights.
    pub fn initialise(&self, weights: &mut Weights, key: Key, init: Init) {
        for name in &self.names {
            let (w, b) = (format!("{name}.weight"), format!("{name}.bias"));
            init.fill(weights, key, &w, Some(&b), self.features, self.width);
            if let HeadKind::Cosine { scale, .. } = self.kind
                && let Some(values) = weights.get_mut(&format!("{name}.scale"))
            {
                values.fill(scale as f32);
            }
        }
    }

    /// All heads side by side, `[rows, heads * width]`.
    pub fn forward(&self, features: Tensor<2>, pass: &mut Pass) -> Output {
        let features = pass.taps.at("head.in", features);
        let mut outputs = self.outputs_of(&features, pass);
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

    fn outputs_of(&self, features: &Tensor<2>, pass: &Pass) -> Vec<Tensor<2>> {
        let heads = 0..self.names.len();
        match self.kind {
            HeadKind::Linear => heads
                .map(|t| {
                    let at = self.first + 2 * t;
                    let (w, b) = (pass.param(at), pass.param(at + 1));
                    fused_linear(features.clone(), w, b, Activation::Identity)
                })
                .collect(),
            HeadKind::Prototypes => heads
                .map(|t| self.along(features.clone(), pass.param(self.first + t)))
                .collect(),
            HeadKind::Cosine { scale, learn } => {
                let f = unit_rows(features.clone());
                heads
                    .map(|t| {
                        let at = self.first + if learn { 2 * t } else { t };
                        let cos = self.along(f.clone(), pass.param(at));
                        if learn {
                            cos * pass.param(at + 1).reshape([1, 1])
                        } else {
                            cos * scale
                        }
                    })
                    .collect()
            }
        }
    }

    /// `f·w/|w|` for every class.
    fn along(&self, f: Tensor<2>, w: Tensor<1>) -> Tensor<2> {
        let none = Tensor::zeros([self.width], &f.device().without_autodiff());
        let w = unit_rows(w.reshape([self.width, self.features]));
        let w = w.reshape([self.width * self.features]);
        fused_linear(f, w, none, Activation::Identity)
    }

    /// Width of what they read.
    pub fn features(&self) -> usize {
        self.features
    }

    /// All outputs.
    pub fn outputs(&self) -> usize {
        self.names.len() * self.width
    }

    /// As per-example statistics see them, if the heads are linear.
    pub fn sites(&self) -> Option<impl Iterator<Item = LinearSite>> {
        let site = |name: &String| LinearSite {
            weight: format!("{name}.weight"),
            bias: Some(format!("{name}.bias")),
            input: "head.in".to_owned(),
            output: format!("{name}.out"),
            inputs: self.features,
            outputs: self.width,
            positions: 1,
        };
        (self.kind == HeadKind::Linear).then(|| self.names.iter().map(site))
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

/// Rows of length 1. A row of zeros stays one; the constant bounds the slope there by 1e4 and is
/// below f32's resolution for rows longer than 0.3.
pub(crate) fn unit_rows(x: Tensor<2>) -> Tensor<2> {
    let length = ((x.clone() * x.clone()).sum_dim(1) + 1e-8).sqrt();
    x / length
}
