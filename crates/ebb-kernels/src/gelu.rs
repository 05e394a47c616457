//! The Gaussian error linear unit, with its backward in one pass.
//!
//! `y = x Φ(x)`, and its approximation `y = x σ(2u)`, `u = √(2/π) (x + 0.044715 x³)` (Hendrycks &
//! Gimpel 2016). Composed, each makes several tensors of the layer's inner width and calls a scalar
//! error function or hyperbolic tangent a value.

use crate::FusedOps;
use crate::linear::{dense, slice, tensor};
use crate::swiglu::{exp, sigmoid};
use crate::vectorised::vectorised;
use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind, unary},
};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, tensor::FloatTensor};
use burn::tensor::Tensor;
use pulp::Arch;
use rayon::prelude::*;

/// `x Φ(x)`, or with `tanh` its approximation by that.
pub fn gelu(x: Tensor<2>, tanh: bool) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::gaussian_forward(x.into_dispatch(), tanh))
}

/// √(2/π).
const SLOPE: f32 = 0.797_884_6;
const CUBE: f32 = 0.044_715;

pub(crate) fn composed_forward<B: Backend>(x: FloatTensor<B>, tanh: bool) -> FloatTensor<B> {
    let open = composed_open::<B>(x.clone(), tanh);
    B::float_mul(x, open)
}

/// Φ(x), or its approximation.
fn composed_open<B: Backend>(x: FloatTensor<B>, tanh: bool) -> FloatTensor<B> {
    let by = |t: FloatTensor<B>, v: f32| B::float_mul_scalar(t, v.into());
    if tanh {
        let square = B::float_mul(x.clone(), x.clone());
        let stretch = B::float_add_scalar(by(square, CUBE), 1.0f32.into());
        return B::sigmoid(by(B::float_mul(x, stretch), 2.0 * SLOPE));
    }
    let erf = B::float_erf(by(x, std::f32::consts::FRAC_1_SQRT_2));
    by(B::float_add_scalar(erf, 1.0f32.into()), 0.5)
}

pub(crate) fn composed_backward<B: Backend>(
    x: FloatTensor<B>,
    dy: FloatTensor<B>,
    tanh: bool,
) -> FloatTensor<B> {
    let by = |t: FloatTensor<B>, v: f32| B::float_mul_scalar(t, v.into());
    let open = composed_open::<B>(x.clone(), tanh);
    let square = B::float_mul(x.clone(), x.clone());
    let slope = if tanh {
        let inner = B::float_add_scalar(by(square, 3.0 * CUBE), 1.0f32.into());
        let rest = B::float_sub(open.clone(), B::float_mul(open.clone(), open.clone()));
        by(B::float_mul(rest, inner), 2.0 * SLOPE)
    } else {
        by(B::float_exp(by(square, -0.5)), 0.5 * SLOPE)
    };
    let slope = B::float_add(open, B::float_mul(x, slope));
    B::float_mul(dy, slope)
}

/// The error function to within 5e-7 (four units in the last place near ±1): a ratio of
/// polynomials, as vector libraries have it; beyond ±3.9 it is ±1 to that.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-3.925_4, 3.925_4);
    let s = x * x;
    let p = -2.726_142_3e-10;
    let p = p * s + 2.770_681_4e-8;
    let p = p * s + -2.101_024e-6;
    let p = p * s + -5.692_506_5e-5;
    let p = p * s + -7.349_906_3e-4;
    let p = p * s + -2.954_6e-3;
    let p = p * s + -1.609_603_3e-2;
    let q = -1.456_607_2e-5;
    let q = q * s + -2.133_740_6e-4;
    let q = q * s + -1.682_827e-3;
    let q = q * s + -7.373_329e-3;
    let q = q * s + -1.426_474e-2;
    x * p / q
}

/// Φ(x) or its approximation, and the derivative of `y`.
#[inline(always)]
fn open_and_slope(x: f32, tanh: bool) -> (f32, f32) {
    if tanh {
        let open = sigmoid(2.0 * SLOPE * x * (1.0 + CUBE * x * x));
        let inner = 2.0 * SLOPE * (1.0 + 3.0 * CUBE * x * x);
        return (open, open + x * open * (1.0 - open) * inner);
    }
    let open = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
    (open, open + x * (0.5 * SLOPE) * exp(-0.5 * x * x))
}

vectorised!(Up { x: &'a [f32], y: &'a mut [f32], tanh: bool } {
    if tanh {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * open_and_slope(x, true).0;
        }
    } else {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * open_and_slope(x, false).0;
        }
    }
});

vectorised!(Down { x: &'a [f32], dy: &'a [f32], dx: &'a mut [f32], tanh: bool } {
    let all = dx.iter_mut().zip(x.iter().zip(dy));
    if tanh {
        for (dx, (&x, &dy)) in all {
            *dx = dy * open_and_slope(x, true).1;
        }
    } else {
        for (dx, (&x, &dy)) in all {
            *dx = dy * open_and_slope(x, false).1;
        }
    }
});

/// Values that one thread takes at a time.
const PIECE: usize = 1 << 14;

pub(crate) fn forward(x: FlexTensor, tanh: bool) -> FlexTensor {
    let x = dense(&x);
    let shape: [usize; 2] = x.shape().dims();
    let x = slice(&x);
    let mut y = vec![0.0f32; x.len()];
    y.par_chunks_mut(PIECE)
        .zip(x.par_chunks(PIECE))
        .for_each(|(y, x)| Arch::new().dispatch(Up { x, y, tanh }));
    tensor(y, shape)
}

pub(crate) fn backward(x: FlexTensor, dy: FlexTensor, tanh: bool) -> FlexTensor {
    let (x, dy) = (dense(&x), dense(&dy));
    let shape: [usize; 2] = x.shape().dims();
    let (x, dy) = (slice(&x), slice(&dy));
    let mut dx = vec![0.0f32; x.len()];
    dx.par_chunks_mut(PIECE)
        .zip(x.par_chunks(PIECE).zip(dy.par_chunks(PIECE)))
        .for_each(|(dx, (x, dy))| Arch::new().dispatch(Down { x, dy, dx, tanh }));
    tensor(dx, shape)
}

#[derive(Debug)]
struct Gelu;

impl<B: FusedOps> Backward<B, 1> for Gelu {
    type State = (FloatTensor<B>, bool);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, tanh) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |dy| {
            B::gaussian_backward(x, dy, tanh)
        });
    }
}

pub(crate) fn tracked<B: FusedOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    tanh: bool,
) -> FloatTensor<Autodiff<B, C>> {
    match Gelu.prepare::<C>([x.node()]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let x = x.into_primitive();
            prep.finish((x.clone(), tanh), B::gaussian_forward(x, tanh))
        }
        OpsKind::UnTracked(prep) => prep.finish(B::gaussian_forward(x.into_primitive(), tanh)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slices::to_vec;
    use burn::tensor::{Device, TensorData};

    /// erf by its series, in f64: enough terms for |x| ≤ 4.
    fn erf_of_f64(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..120 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn the_error_function_is_that_of_f64() {
        let mut x = -4.0f32;
        while x < 4.0 {
            let want = erf_of_f64(f64::from(x));
            assert!(
                (f64::from(erf(x)) - want).abs() < 5e-7,
                "{x}: {} {want}",
                erf(x)
            );
            x += 0.001_3;
        }
        assert!((erf(50.0) - 1.0).abs() < 5e-7 && (erf(-50.0) + 1.0).abs() < 5e-7);
        assert!(erf(f32::NAN).is_nan());
    }

    /// Values against f64 and gradients against its differences, on a strided operand.
    #[test]
    fn values_and_gradients_are_those_of_f64() {
        for tanh in [false, true] {
            let f = |x: f64| match tanh {
                true => {
                    let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                    0.5 * x * (1.0 + u.tanh())
                }
                false => 0.5 * x * (1.0 + erf_of_f64(x / 2f64.sqrt())),
            };
            let (n, k) = (37, 31);
            let values: Vec<f32> = (0..n * k).map(|i| i as f32 * 0.008 - 4.6).collect();
            let data = TensorData::new(values.clone(), [k, n]);
            let x = Tensor::<2>::from_data(data, &Device::flex())
                .autodiff()
                .require_grad();
            let y = gelu(x.clone().transpose(), tanh).transpose();
            let mut grads = y.clone().sum().backward();
            let dx = to_vec(&x.grad_remove(&mut grads).expect("a leaf"));
            for ((v, y), d) in values.iter().zip(to_vec(&y)).zip(dx) {
                let v = f64::from(*v);
                let slope = (f(v + 1e-5) - f(v - 1e-5)) / 2e-5;
                assert!((f64::from(y) - f(v)).abs() < 2e-6, "{tanh} {v}");
                assert!(
                    (f64::from(d) - slope).abs() < 3e-6,
                    "{tanh} {v}: {d} {slope}"
                );
            }
        }
    }
}
