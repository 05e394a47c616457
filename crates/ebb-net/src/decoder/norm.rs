//! Normalisation over the last dimension.

use super::config::NormKind;
use super::linear::{Around, Parameters, Start};
use crate::network::Pass;
use burn::tensor::Tensor;
use ebb_kernels::row_norm;
use ebb_kernels::row_norm::Kind;

/// `(offset + w) ⊙ x / √(mean x² + ε)`; a layer norm takes the mean off `x` first and adds a bias
/// at the end.
#[derive(Debug)]
pub(crate) struct Norm {
    scale: usize,
    shift: Option<usize>,
    offset: f32,
    epsilon: f64,
    width: usize,
    around: Around,
}

impl Norm {
    /// The norm at `path` over `width` values.
    pub fn new(
        parameters: &mut Parameters,
        path: &str,
        width: usize,
        kind: NormKind,
        epsilon: f64,
    ) -> Self {
        let offset = match kind {
            NormKind::Rms { offset } => offset,
            NormKind::Layer => 0.0,
        };
        let start = Start::Constant(1.0 - offset);
        let scale = parameters.add(format!("{path}.weight"), &[width], start);
        let shift = (kind == NormKind::Layer)
            .then(|| parameters.add(format!("{path}.bias"), &[width], Start::Constant(0.0)));
        Self {
            scale,
            shift,
            offset,
            epsilon,
            width,
            around: Around::new(path),
        }
    }

    /// Normalises the last dimension of `x`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>, pass: &mut Pass) -> Tensor<D> {
        let x = pass.taps.at(&self.around.input, x);
        let shape = x.dims();
        let rows = shape.iter().take(D - 1).product();
        let kind = Kind {
            centred: self.shift.is_some(),
            eps: self.epsilon as f32,
            offset: self.offset,
        };
        let none = || Tensor::zeros([self.width], &x.device().without_autodiff());
        let shift = self.shift.map_or_else(none, |shift| pass.param(shift));
        let scale = pass.param(self.scale);
        let y = row_norm(x.reshape([rows, self.width]), scale, shift, kind).reshape(shape);
        pass.taps.at(&self.around.output, y)
    }

    pub fn taps(&self) -> Vec<String> {
        self.around.names().to_vec()
    }
}
