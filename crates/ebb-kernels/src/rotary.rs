//! Rotary positions: pairs of values turn by an angle a position.
//!
//! `y_i = x_i cos − x_{i+h} sin`, `y_{i+h} = x_{i+h} cos + x_i sin` for `i < h`, the rest stays (Su
//! et al. 2021, halves against each other). The gradient turns back. Composed, it makes eight
//! tensors.

use crate::FusedOps;
use crate::linear::{dense, slice, tensor};
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

/// Turns `x`, `[rows, positions, heads, width]`, by `cos` and `sin`,
/// `[rows or 1, 1, positions, half]`, which are outside the graph; `half` is at most half the width.
pub fn rotary(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    let ([rows, positions, _, width], [tables, _, each, half]) = (x.dims(), cos.dims());
    assert!(
        sin.dims() == cos.dims() && each == positions && (tables == 1 || tables == rows),
        "angles {:?} for {:?}",
        cos.dims(),
        x.dims()
    );
    assert!(2 * half <= width, "{half} pairs of {width} values");
    Tensor::from_dispatch(Dispatch::rotary_forward(
        x.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
        false,
    ))
}

pub(crate) fn composed<B: Backend>(
    x: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
    back: bool,
) -> FloatTensor<B> {
    let ([rows, positions, heads, width], [_, _, _, half]): ([usize; 4], [usize; 4]) =
        (x.shape().dims(), cos.shape().dims());
    let part = |from: usize, to: usize| {
        let all = [0..rows, 0..positions, 0..heads, from..to];
        B::float_slice(x.clone(), &all.map(Into::into))
    };
    let by_position = |t: FloatTensor<B>| B::float_swap_dims(t, 1, 2);
    let (cos, sin) = (by_position(cos), by_position(sin));
    let sin = if back { B::float_neg(sin) } else { sin };
    let (a, b) = (part(0, half), part(half, 2 * half));
    let turn = |a: &FloatTensor<B>, by: &FloatTensor<B>| B::float_mul(a.clone(), by.clone());
    let mut parts = vec![
        B::float_sub(turn(&a, &cos), turn(&b, &sin)),
        B::float_add(turn(&b, &cos), turn(&a, &sin)),
    ];
    if width > 2 * half {
        parts.push(part(2 * half, width));
    }
    B::float_cat(parts, 3)
}

vectorised!(
/// The heads of one position.
Turn { x: &'a [f32], y: &'a mut [f32], cos: &'a [f32], sin: &'a [f32], sign: f32, width: usize } {
    let half = cos.len();
    let sin = &sin[..half];
    for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        let (a, rest) = x.split_at(half);
        let (b, rest) = rest.split_at(half);
        let (to_a, to_rest) = y.split_at_mut(half);
        let (to_b, to_rest) = to_rest.split_at_mut(half);
        for i in 0..half {
            let s = sign * sin[i];
            to_a[i] = a[i] * cos[i] - b[i] * s;
            to_b[i] = b[i] * cos[i] + a[i] * s;
        }
        to_rest.copy_from_slice(rest);
    }
});

pub(crate) fn forward(x: FlexTensor, cos: FlexTensor, sin: FlexTensor, back: bool) -> FlexTensor {
    let [x, cos, sin] = [x, cos, sin].map(|t| dense(&t));
    let shape: [usize; 4] = x.shape().dims();
    let [_, positions, heads, width] = shape;
    let [tables, _, _, half]: [usize; 4] = cos.shape().dims();
    let (x, cos, sin) = (slice(&x), slice(&cos), slice(&sin));
    let line = heads * width;
    let sign = if back { -1.0 } else { 1.0 };
    let mut y = vec![0.0f32; x.len()];
    if line > 0 {
        y.par_chunks_mut(line)
            .zip(x.par_chunks(line))
            .enumerate()
            .with_min_len(32)
            .for_each(|(at, (y, x))| {
                let table = if tables == 1 { at % positions } else { at };
                let of = table * half..(table + 1) * half;
                Arch::new().dispatch(Turn {
                    x,
                    y,
                    cos: &cos[of.clone()],
                    sin: &sin[of],
                    sign,
                    width,
                });
            });
    }
    tensor(y, shape)
}

#[derive(Debug)]
struct Rotary;

impl<B: FusedOps> Backward<B, 1> for Rotary {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (cos, sin) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |dy| {
            B::rotary_forward(dy, cos, sin, true)
        });
    }
}

pub(crate) fn tracked<B: FusedOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    cos: FloatTensor<Autodiff<B, C>>,
    sin: FloatTensor<Autodiff<B, C>>,
    back: bool,
) -> FloatTensor<Autodiff<B, C>> {
    let node = x.node();
    let [x, cos, sin] = [x, cos, sin].map(|t| t.into_primitive());
    let y = B::rotary_forward(x, cos.clone(), sin.clone(), back);
    match Rotary.prepare::<C>([node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((cos, sin), y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slices::to_vec;
    use burn::tensor::{Device, TensorData};

    /// Values by hand and in f64; the gradient of `y · d` is `d` turned back.
    #[test]
    fn pairs_turn_and_gradients_turn_back() {
        let (rows, positions, heads, width, half) = (2, 5, 3, 7, 2);
        let some = |n: usize, by: usize| -> Vec<f32> {
            (0..n).map(|i| (i * by % 17) as f32 / 8.0 - 1.0).collect()
        };
        for tables in [1, rows] {
            let angles = some(tables * positions * half, 5);
            let table = |f: fn(f32) -> f32| {
                let values: Vec<f32> = angles.iter().map(|a| f(*a)).collect();
                let data = TensorData::new(values, [tables, 1, positions, half]);
                Tensor::<4>::from_data(data, &Device::flex()).autodiff()
            };
            let n = rows * positions * heads * width;
            let (values, by) = (some(n, 3), some(n, 7));
            let leaf = |values: &[f32]| {
                let data = TensorData::new(values.to_vec(), [rows, positions, heads, width]);
                Tensor::<4>::from_data(data, &Device::flex())
            };
            let x = leaf(&values).autodiff().require_grad();
            let y = rotary(x.clone(), table(f32::cos), table(f32::sin));
            let mut grads = (y.clone() * leaf(&by)).sum().backward();
            let dx = to_vec(&x.grad_remove(&mut grads).expect("a leaf"));
            for (at, (y, dx)) in to_vec(&y).iter().zip(dx).enumerate() {
                let (i, position) = (at % width, at / width / heads % positions);
                let row = if tables == 1 {
                    0
                } else {
                    at / width / heads / positions
                };
                let head = at - i;
                let pair = |of: &[f32], sign: f64| {
                    if i >= 2 * half {
                        return f64::from(of[at]);
                    }
                    let angle = f64::from(angles[(row * positions + position) * half + i % half]);
                    let (a, b) = (
                        f64::from(of[head + i % half]),
                        f64::from(of[head + i % half + half]),
                    );
                    let (sin, cos) = (sign * angle.sin(), angle.cos());
                    if i < half {
                        a * cos - b * sin
                    } else {
                        b * cos + a * sin
                    }
                };
                assert!((f64::from(*y) - pair(&values, 1.0)).abs() < 1e-6);
                assert!((f64::from(dx) - pair(&by, -1.0)).abs() < 1e-6);
            }
        }
    }
}
