//! Batch normalisation over channels.

use crate::images::Images;
use crate::network::{Mode, Pass};
use burn::tensor::{Tensor, TensorData};
use ebb_kernels::batch_norm::Norm;
use ebb_kernels::{batch_norm, moments};

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

const EPS: f32 = 1e-5;
const MOMENTUM: f32 = 0.1;

impl BatchNorm {
    /// Normalises each channel of `x`: by the batch while training (and remembers a running
    /// mean), by the running statistics otherwise. ReLU may follow.
    pub(crate) fn forward(&self, x: Images, relu: bool, pass: &mut Pass) -> Images {
        let c = self.channels;
        let device = x.pixels.device().without_autodiff();
        let training = matches!(pass.mode, Mode::Train { .. });
        let (mean, variance) = if training {
            let count = x.pixels.dims()[0] as f32;
            let (mean, variance) = moments(&x.pixels);
            // As the usual frameworks: biased for this batch, unbiased when remembered.
            let unbias = count / (count - 1.0).max(1.0);
            remember(pass, &self.mean, &mean, 1.0);
            remember(pass, &self.variance, &variance, unbias);
            (mean, variance)
        } else {
            let stored = |path: &str| {
                let values = pass.buffers.get(path).unwrap_or(&[]).to_vec();
                Tensor::<1>::from_data(TensorData::new(values, [c]), &device)
            };
            (stored(&self.mean), stored(&self.variance))
        };
        // Statistics are outside the graph, but what stands in it must be asked to.
        let [mean, variance] = [mean, variance].map(|v| match x.pixels.is_autodiff() {
            true => v.autodiff(),
            false => v,
        });
        let norm = Norm {
            of_these: training,
            eps: EPS,
            relu,
        };
        let (scale, shift) = (pass.param(self.scale), pass.param(self.scale + 1));
        let pixels = batch_norm(x.pixels.clone(), scale, shift, mean, variance, norm);
        x.with(pixels)
    }
}

fn remember(pass: &mut Pass, path: &str, batch: &Tensor<1>, factor: f32) {
    ebb_kernels::slices::read(batch, |values| {
        if let Some(running) = pass.buffers.get_mut(path) {
            for (r, &v) in running.iter_mut().zip(values) {
                *r += MOMENTUM * (v * factor - *r);
            }
        }
    });
}
