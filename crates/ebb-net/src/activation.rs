//! Activation functions, and keyed dropout.

use crate::network::Mode;
use burn::tensor::{Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};

/// The activation behind a hidden layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum ActivationKind {
    /// `max(0, z)`.
    #[default]
    Relu,
    /// `tanh z`.
    Tanh,
    /// `1 / (1 + |z/a|^d)`: a bell with a flat top and flat tails, so that an update at `x`
    /// changes the function near `x` alone (card S058).
    Elephant {
        /// Half width of the bell.
        a: f64,
        /// Steepness; 4 for classification, 8 for regression.
        d: f64,
    },
    /// `z · σ(α(z − m − z_k s))` with the mean `m` and deviation `s` of the layer's own units,
    /// sample by sample (card S088).
    Ash {
        /// Steepness of the gate, 3 by default.
        alpha: f64,
        /// Deviations above the mean at which the gate opens, 2.3 by default.
        z_k: f64,
    },
    /// `clip(z, 0, 2) · clip((α(z − m − z_k s) + 3)/6, 0, 1)` (card S088).
    HardAsh {
        /// Steepness of the gate, 3 by default.
        alpha: f64,
        /// Deviations above the mean at which the gate opens, 2.3 by default.
        z_k: f64,
    },
}

impl ActivationKind {
    /// The activation of `z`, `[rows, units]`.
    pub fn apply(self, z: Tensor<2>) -> Tensor<2> {
        match self {
            ActivationKind::Relu => activation::relu(z),
            ActivationKind::Tanh => z.tanh(),
            ActivationKind::Elephant { a, d } => {
                // |z/a| is clamped so that its power stays finite in f32.
                let u = (z / a).clamp(-1e4, 1e4);
                ((u.clone() * u).powf_scalar(d / 2.0) + 1.0).recip()
            }
            ActivationKind::Ash { alpha, z_k } => {
                let gate = activation::sigmoid(above_mean(z.clone(), alpha, z_k));
                z * gate
            }
            ActivationKind::HardAsh { alpha, z_k } => {
                let gate = ((above_mean(z.clone(), alpha, z_k) + 3.0) / 6.0).clamp(0.0, 1.0);
                z.clamp(0.0, 2.0) * gate
            }
        }
    }

    /// The fused form, if the kernels have one.
    pub(crate) fn fused(self) -> Option<ebb_kernels::Activation> {
        match self {
            ActivationKind::Relu => Some(ebb_kernels::Activation::Relu),
            ActivationKind::Tanh => Some(ebb_kernels::Activation::Tanh),
            _ => None,
        }
    }
}

/// `α(z − m − z_k s)` with mean and (n−1)-deviation over the units of each row. The gradient
/// flows through both statistics.
fn above_mean(z: Tensor<2>, alpha: f64, z_k: f64) -> Tensor<2> {
    let units = z.dims()[1].max(2) as f64;
    let centred = z.clone() - z.mean_dim(1);
    let variance = (centred.clone() * centred.clone()).sum_dim(1) / (units - 1.0);
    // The root's slope at 0 is infinite: a layer of equal units would give NaN.
    let deviation = (variance + 1e-12).sqrt();
    (centred - deviation * z_k) * alpha
}

/// Dropout keyed by `(key, layer, example, unit)`: what one example loses does not depend on
/// which others are in its batch.
pub fn dropout(x: Tensor<2>, rate: f64, layer: &str, mode: Mode) -> Tensor<2> {
    let Mode::Train { key, rows } = mode else {
        return x;
    };
    if rate <= 0.0 {
        return x;
    }
    let [n, width] = x.dims();
    let key = key.sub(layer);
    let scale = (1.0 / (1.0 - rate)) as f32;
    let mut mask = Vec::with_capacity(n * width);
    for &row in rows.iter().take(n) {
        let row = key.at(row);
        mask.extend(
            (0..width as u64).map(|unit| if row.uniform(unit) < rate { 0.0 } else { scale }),
        );
    }
    let device = x.device().without_autodiff();
    x * Tensor::<2>::from_data(TensorData::new(mask, [n, width]), &device)
}
