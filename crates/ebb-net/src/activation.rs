//! Activation functions, and keyed dropout.

use crate::network::Mode;
use crate::word_or_table::{Word, nothing_else};
use burn::tensor::{Tensor, TensorData, activation};
use ebb_kernels::slices;
use serde::{Deserialize, Serialize};

/// The activation behind a hidden layer.
///
/// Where a function has a kink or a jump, the gradient is that of one side: of ReLU at 0 it is 0;
/// of hard ASH, at the ends of both clips, that of the inside; of k winners, the winners count as
/// given and a tie is no matter of the gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum ActivationKind {
    /// `max(0, z)`.
    #[default]
    #[serde(deserialize_with = "nothing_else")]
    Relu,
    /// `tanh z`.
    #[serde(deserialize_with = "nothing_else")]
    Tanh,
    /// `1 / (1 + e^−z)`.
    #[serde(deserialize_with = "nothing_else")]
    Sigmoid,
    /// `1 / (1 + |z/a|^d)`: a bell with a flat top and flat tails, so that an update at `x`
    /// changes the function near `x` alone (card S058).
    Elephant {
        /// Half width of the bell, 0.16 by default.
        #[serde(default = "elephant_a")]
        a: f64,
        /// Steepness, at least 2: 4 for classification (the default), 8 for regression.
        #[serde(default = "elephant_d")]
        d: f64,
    },
    /// `z · σ(α(z − m − z_k s))` with the mean `m` and deviation `s` of the layer's own units,
    /// sample by sample (card S088).
    Ash {
        /// Steepness of the gate, 3 by default.
        #[serde(default = "ash_alpha")]
        alpha: f64,
        /// Deviations above the mean at which the gate opens, 2.3 by default.
        #[serde(default = "ash_z_k")]
        z_k: f64,
    },
    /// `clip(z, 0, 2) · clip((α(z − m − z_k s) + 3)/6, 0, 1)` (card S088).
    HardAsh {
        /// Steepness of the gate, 3 by default.
        #[serde(default = "ash_alpha")]
        alpha: f64,
        /// Deviations above the mean at which the gate opens, 2.3 by default.
        #[serde(default = "ash_z_k")]
        z_k: f64,
    },
    /// `z` for the units with the largest `z` of a row, 0 for the others. Exactly
    /// `⌈share · units⌉` of them win; of equal ones those that come first.
    KWinners {
        /// Share of the units that win, 0.064 by default (64 of 1000, as card S088 compares).
        #[serde(default = "winning_share")]
        share: f64,
    },
}

fn elephant_a() -> f64 {
    0.16
}

fn elephant_d() -> f64 {
    4.0
}

fn ash_alpha() -> f64 {
    3.0
}

fn ash_z_k() -> f64 {
    2.3
}

fn winning_share() -> f64 {
    0.064
}

impl Word for ActivationKind {
    fn word(&self) -> Option<&'static str> {
        match self {
            ActivationKind::Relu => Some("relu"),
            ActivationKind::Tanh => Some("tanh"),
            ActivationKind::Sigmoid => Some("sigmoid"),
            _ => None,
        }
    }
}

impl ActivationKind {
    /// The activation of `z`, `[rows, units]`.
    pub fn apply(self, z: Tensor<2>) -> Tensor<2> {
        match self {
            ActivationKind::Relu => activation::relu(z),
            ActivationKind::Tanh => z.tanh(),
            ActivationKind::Sigmoid => activation::sigmoid(z),
            ActivationKind::Elephant { a, d } => {
                // Where |z/a|^d reaches 1e16 the bell is 0 to f32 and its slope too; beyond, the
                // power would overflow.
                let edge = 1e16f64.powf(1.0 / d);
                let u = (z / a).clamp(-edge, edge);
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
            ActivationKind::KWinners { share } => {
                let mask = winners(&z, share);
                z * mask
            }
        }
    }

    /// Whether the numbers make a function.
    pub(crate) fn check(self) -> crate::Result<()> {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let (fits, rule) = match self {
            ActivationKind::Relu | ActivationKind::Tanh | ActivationKind::Sigmoid => (true, ""),
            // Below 2 the slope at 0 does not exist.
            ActivationKind::Elephant { a, d } => (
                positive(a) && d.is_finite() && d >= 2.0,
                "`elephant` needs `a` above 0 and `d` of at least 2",
            ),
            ActivationKind::Ash { alpha, z_k } | ActivationKind::HardAsh { alpha, z_k } => (
                positive(alpha) && z_k.is_finite(),
                "`ash` and `hard-ash` need `alpha` above 0 and a finite `z_k`",
            ),
            ActivationKind::KWinners { share } => (
                positive(share) && share <= 1.0,
                "`k-winners` needs a `share` above 0 and at most 1",
            ),
        };
        if fits {
            return Ok(());
        }
        Err(crate::Error::Spec {
            reason: format!("{rule}, not {self:?}"),
        })
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

/// `α(z − m − z_k s)` with mean and deviation (over n, as in the reference) over the units of
/// each row. The gradient flows through both statistics.
fn above_mean(z: Tensor<2>, alpha: f64, z_k: f64) -> Tensor<2> {
    let centred = z.clone() - z.mean_dim(1);
    let variance = (centred.clone() * centred.clone()).mean_dim(1);
    // The root's slope at 0 is infinite: a layer of equal units would give NaN.
    let deviation = (variance + 1e-12).sqrt();
    (centred - deviation * z_k) * alpha
}

/// 1 at the `⌈share · units⌉` largest values of each row, 0 elsewhere.
fn winners(z: &Tensor<2>, share: f64) -> Tensor<2> {
    let [n, units] = z.dims();
    // 0.55 · 100 is a little above 55 in floating point.
    let k = ((share * units as f64 - 1e-9).ceil() as usize).clamp(1, units.max(1));
    let mut mask = vec![0.0f32; n * units];
    let mut order = Vec::with_capacity(units);
    slices::read(z, |z| {
        let rows = z.chunks_exact(units.max(1));
        for (z, mask) in rows.zip(mask.chunks_exact_mut(units.max(1))) {
            order.clear();
            order.extend(0..units);
            if k < units {
                order.select_nth_unstable_by(k, |&a, &b| z[b].total_cmp(&z[a]).then(a.cmp(&b)));
            }
            for &unit in &order[..k] {
                mask[unit] = 1.0;
            }
        }
    });
    let device = z.device().without_autodiff();
    Tensor::from_data(TensorData::new(mask, [n, units]), &device)
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
