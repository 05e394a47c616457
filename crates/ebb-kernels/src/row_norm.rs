//! Normalisation of rows, with its backward in one pass.
//!
//! `y = (o + w) ⊙ (x − μ) / √(σ² + ε) + b` for every row of `x`: a layer norm with the row's mean
//! and variance (Ba et al. 2016), an RMS norm with `μ = 0` and the mean square (Zhang & Sennrich
//! 2019). Composed, each makes as many tensors of the size of `x` as it has signs.

use crate::FusedOps;
use crate::linear::{dense, slice, tensor};
use crate::vectorised::vectorised;
use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, tensor::FloatTensor};
use burn::tensor::Tensor;
use pulp::Arch;
use rayon::prelude::*;

/// What kind of normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kind {
    /// Whether the mean is taken off (layer norm).
    pub centred: bool,
    /// ε.
    pub eps: f32,
    /// What the scale is added to.
    pub offset: f32,
}

/// Normalises rows. Shapes: `x` `[n, k]`, `scale` and `shift` `[k]`.
pub fn row_norm(x: Tensor<2>, scale: Tensor<1>, shift: Tensor<1>, kind: Kind) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::row_norm_forward(
        x.into_dispatch(),
        scale.into_dispatch(),
        shift.into_dispatch(),
        kind,
    ))
}

fn row<B: Backend>(v: FloatTensor<B>) -> FloatTensor<B> {
    let n = v.shape().num_elements();
    B::float_reshape(v, [1, n].into())
}

/// `x̂` and what it was divided by, inverted.
fn hat<B: Backend>(x: FloatTensor<B>, kind: Kind) -> (FloatTensor<B>, FloatTensor<B>) {
    let x = match kind.centred {
        true => B::float_sub(x.clone(), B::float_mean_dim(x, 1)),
        false => x,
    };
    let square = B::float_mean_dim(B::float_mul(x.clone(), x.clone()), 1);
    let root = B::float_sqrt(B::float_add_scalar(square, kind.eps.into()));
    let inverse = B::float_recip(root);
    (B::float_mul(x, inverse.clone()), inverse)
}

pub(crate) fn composed_forward<B: Backend>(
    x: FloatTensor<B>,
    scale: FloatTensor<B>,
    shift: FloatTensor<B>,
    kind: Kind,
) -> FloatTensor<B> {
    let scale = B::float_add_scalar(row::<B>(scale), kind.offset.into());
    let y = B::float_mul(hat::<B>(x, kind).0, scale);
    B::float_add(y, row::<B>(shift))
}

pub(crate) fn composed_backward<B: Backend>(
    x: FloatTensor<B>,
    scale: FloatTensor<B>,
    dy: FloatTensor<B>,
    kind: Kind,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let k = x.shape()[1];
    let (hat, inverse) = hat::<B>(x, kind);
    let flat = |v| B::float_reshape(B::float_sum_dim(v, 0), [k].into());
    let by_scale = flat(B::float_mul(dy.clone(), hat.clone()));
    let by_shift = flat(dy.clone());
    let scale = B::float_add_scalar(row::<B>(scale), kind.offset.into());
    let g = B::float_mul(dy, scale);
    let along = B::float_mean_dim(B::float_mul(g.clone(), hat.clone()), 1);
    let through = B::float_sub(g.clone(), B::float_mul(hat, along));
    let through = match kind.centred {
        true => B::float_sub(through, B::float_mean_dim(g, 1)),
        false => through,
    };
    (B::float_mul(through, inverse), by_scale, by_shift)
}

/// Sums that are kept side by side: the order of summation hangs on nothing else.
const LANES: usize = 32;

/// `Σ f(i)` over `0..n`.
#[inline(always)]
fn sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let whole = n / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        for (l, sum) in sums.iter_mut().enumerate() {
            *sum += f(at + l);
        }
    }
    let rest = (whole..n).fold(0.0f32, |sum, i| sum + f(i));
    sums.iter().fold(rest, |sum, v| sum + v)
}

/// Mean (0 where it stays) and inverse deviation of a row.
#[inline(always)]
fn statistics(x: &[f32], kind: Kind) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = match kind.centred {
        true => sum(x.len(), |i| x[i]) / n,
        false => 0.0,
    };
    let square = sum(x.len(), |i| (x[i] - mean) * (x[i] - mean)) / n;
    (mean, 1.0 / (square + kind.eps).sqrt())
}

vectorised!(Up {
    x: &'a [f32],
    scale: &'a [f32],
    shift: &'a [f32],
    kind: Kind,
    y: &'a mut [f32],
} {
    let k = scale.len();
    let shift = &shift[..k];
    for (y, x) in y.chunks_exact_mut(k).zip(x.chunks_exact(k)) {
        let (mean, inverse) = statistics(x, kind);
        for i in 0..k {
            y[i] = (x[i] - mean) * inverse * (kind.offset + scale[i]) + shift[i];
        }
    }
});

vectorised!(Down {
    x: &'a [f32],
    scale: &'a [f32],
    dy: &'a [f32],
    kind: Kind,
    dx: &'a mut [f32],
    by_scale: &'a mut [f32],
    by_shift: &'a mut [f32],
} {
    let k = scale.len();
    let (by_scale, by_shift) = (&mut by_scale[..k], &mut by_shift[..k]);
    let rows = x.chunks_exact(k).zip(dy.chunks_exact(k));
    for (dx, (x, dy)) in dx.chunks_exact_mut(k).zip(rows) {
        let (mean, inverse) = statistics(x, kind);
        let g = |i: usize| dy[i] * (kind.offset + scale[i]);
        let hat = |i: usize| (x[i] - mean) * inverse;
        let along = sum(k, |i| g(i) * hat(i)) / k as f32;
        let level = if kind.centred { sum(k, g) / k as f32 } else { 0.0 };
        for i in 0..k {
            let h = hat(i);
            by_scale[i] += dy[i] * h;
            by_shift[i] += dy[i];
            dx[i] = inverse * (g(i) - level - h * along);
        }
    }
});

/// Rows that are summed in one piece, whatever the number of threads.
const PIECE: usize = 64;

pub(crate) fn forward(
    x: FlexTensor,
    scale: FlexTensor,
    shift: FlexTensor,
    kind: Kind,
) -> FlexTensor {
    let shape: [usize; 2] = x.shape().dims();
    let [x, scale, shift] = [x, scale, shift].map(|t| dense(&t));
    let (x, scale, shift) = (slice(&x), slice(&scale), slice(&shift));
    let piece = PIECE * shape[1].max(1);
    let mut y = vec![0.0f32; x.len()];
    y.par_chunks_mut(piece)
        .zip(x.par_chunks(piece))
        .for_each(|(y, x)| {
            Arch::new().dispatch(Up {
                x,
                scale,
                shift,
                kind,
                y,
            });
        });
    tensor(y, shape)
}

pub(crate) fn backward(
    x: FlexTensor,
    scale: FlexTensor,
    dy: FlexTensor,
    kind: Kind,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let shape: [usize; 2] = x.shape().dims();
    let k = shape[1];
    let [x, scale, dy] = [x, scale, dy].map(|t| dense(&t));
    let (x, scale, dy) = (slice(&x), slice(&scale), slice(&dy));
    let piece = PIECE * k.max(1);
    let mut dx = vec![0.0f32; x.len()];
    let pieces: Vec<(Vec<f32>, Vec<f32>)> = dx
        .par_chunks_mut(piece)
        .zip(x.par_chunks(piece).zip(dy.par_chunks(piece)))
        .map(|(dx, (x, dy))| {
            let (mut by_scale, mut by_shift) = (vec![0.0; k], vec![0.0; k]);
            Arch::new().dispatch(Down {
                x,
                scale,
                dy,
                kind,
                dx,
                by_scale: &mut by_scale,
                by_shift: &mut by_shift,
            });
            (by_scale, by_shift)
        })
        .collect();
    let (mut by_scale, mut by_shift) = (vec![0.0f32; k], vec![0.0f32; k]);
    for (scale, shift) in pieces {
        by_scale.iter_mut().zip(scale).for_each(|(a, b)| *a += b);
        by_shift.iter_mut().zip(shift).for_each(|(a, b)| *a += b);
    }
    (
        tensor(dx, shape),
        tensor(by_scale, [k]),
        tensor(by_shift, [k]),
    )
}

#[derive(Debug)]
struct RowNorm;

impl<B: FusedOps> Backward<B, 3> for RowNorm {
    type State = (FloatTensor<B>, FloatTensor<B>, Kind);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, scale, kind) = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let (dx, by_scale, by_shift) = B::row_norm_backward(x, scale, dy, kind);
        for (parent, gradient) in ops.parents.into_iter().zip([dx, by_scale, by_shift]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

pub(crate) fn tracked<B: FusedOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    scale: FloatTensor<Autodiff<B, C>>,
    shift: FloatTensor<Autodiff<B, C>>,
    kind: Kind,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = [x.node(), scale.node(), shift.node()];
    let [x, scale, shift] = [x, scale, shift].map(|t| t.into_primitive());
    match RowNorm.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let y = B::row_norm_forward(x.clone(), scale.clone(), shift, kind);
            prep.finish((x, scale, kind), y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::row_norm_forward(x, scale, shift, kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slices::to_vec;
    use burn::tensor::{Device, TensorData};

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut s = seed;
        let mut next = || {
            s = s.wrapping_mul(1664525).wrapping_add(1013904223);
            (s >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    /// Values and gradients against the same in the engine's own operations.
    #[test]
    fn agrees_with_the_composed_version() {
        for (n, k) in [(1, 1), (5, 7), (130, 100)] {
            for centred in [false, true] {
                let kind = Kind {
                    centred,
                    eps: 1e-5,
                    offset: if centred { 0.0 } else { 1.0 },
                };
                let leaf = |values: Vec<f32>, shape: [usize; 2]| {
                    Tensor::<2>::from_data(TensorData::new(values, shape), &Device::flex())
                        .autodiff()
                        .require_grad()
                };
                let run = |fused: bool| {
                    let x = leaf(noise(n * k, 1), [k, n]);
                    let (g, b) = (leaf(noise(k, 2), [1, k]), leaf(noise(k, 3), [1, k]));
                    let xt = x.clone().transpose() * 3.0 + 2.0;
                    let y = if fused {
                        row_norm(xt, g.clone().reshape([k]), b.clone().reshape([k]), kind)
                    } else {
                        let xt = match centred {
                            true => xt.clone() - xt.mean_dim(1),
                            false => xt,
                        };
                        let square = (xt.clone() * xt.clone()).mean_dim(1);
                        let hat = xt / (square + 1e-5).sqrt();
                        hat * (g.clone() + kind.offset) + b.clone()
                    };
                    let data = TensorData::new(noise(n * k, 4), [n, k]);
                    let by = Tensor::<2>::from_data(data, &Device::flex());
                    let mut grads = (y.clone() * by).sum().backward();
                    [
                        to_vec(&y),
                        to_vec(&x.grad_remove(&mut grads).expect("a leaf")),
                        to_vec(&g.grad_remove(&mut grads).expect("a leaf")),
                        to_vec(&b.grad_remove(&mut grads).expect("a leaf")),
                    ]
                };
                for (what, (fused, composed)) in run(true).iter().zip(&run(false)).enumerate() {
                    for (a, b) in fused.iter().zip(composed) {
                        let near = (a - b).abs() <= 5e-5 * (1.0 + b.abs());
                        assert!(near, "{n} {k} {centred} {what}: {a} and {b}");
                    }
                }
            }
        }
    }
}
