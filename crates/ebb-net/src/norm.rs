//! Batch normalisation over channels.

use crate::network::{Mode, Pass};
use burn::tensor::{Tensor, TensorData};

/// Where a normalisation finds its four vectors.
#[derive(Debug)]
pub struct BatchNorm {
    /// Index of the scale among the parameters; the shift follows it.
    pub scale: usize,
    /// Path of the running mean.
    pub mean: String,
    /// Path of the running (n−1) variance.
    pub variance: String,
    /// Channels.
    pub channels: usize,
}

const EPS: f64 = 1e-5;
const MOMENTUM: f32 = 0.1;

impl BatchNorm {
    /// Normalises `x`, `[n, c, h, w]`: by the batch while training (and remembers a running
    /// mean), by the running statistics otherwise.
    pub fn forward(&self, x: Tensor<4>, pass: &mut Pass) -> Tensor<4> {
        let c = self.channels;
        let device = x.device().without_autodiff();
        let (mean, variance) = match pass.mode {
            Mode::Train { .. } => {
                let [n, _, h, w] = x.dims();
                let count = (n * h * w) as f32;
                let mean = x.clone().mean_dims(&[0, 2, 3]);
                let centred = x.clone() - mean.clone();
                let variance = (centred.clone() * centred).mean_dims(&[0, 2, 3]);
                // As the usual frameworks: biased for this batch, unbiased when remembered.
                let unbias = count / (count - 1.0).max(1.0);
                remember(pass, &self.mean, &mean, 1.0);
                remember(pass, &self.variance, &variance, unbias);
                (mean, variance)
            }
            Mode::Eval => {
                let stored = |path: &str, pass: &Pass| {
                    let values = pass.buffers.get(path).unwrap_or(&[]).to_vec();
                    Tensor::<4>::from_data(TensorData::new(values, [1, c, 1, 1]), &device)
                };
                (stored(&self.mean, pass), stored(&self.variance, pass))
            }
        };
        let scale = pass.param(self.scale).reshape([1, c, 1, 1]);
        let shift = pass.param(self.scale + 1).reshape([1, c, 1, 1]);
        (x - mean) * ((variance + EPS).sqrt().recip() * scale) + shift
    }
}

fn remember(pass: &mut Pass, path: &str, batch: &Tensor<4>, factor: f32) {
    ebb_kernels::slices::read(batch, |values| {
        if let Some(running) = pass.buffers.get_mut(path) {
            for (r, &v) in running.iter_mut().zip(values) {
                *r += MOMENTUM * (v * factor - *r);
            }
        }
    });
}
