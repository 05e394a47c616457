//! Normalisation of columns, with its backward in two passes.
//!
//! `y = act(γ (x − μ) / √(σ² + ε) + β)` for every column of `x`; with the statistics of these very
//! rows, `dx = γ / √(σ² + ε) · (dz − mean(dz) − x̂ · mean(dz ⊙ x̂))`. Composed, it makes eight
//! matrices of the size of `x` on the way up and as many on the way down; here each direction
//! reads its operands twice and writes one.

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
use burn::tensor::{Tensor, TensorData};
use pulp::Arch;
use rayon::prelude::*;
use std::ops::Range;

/// Mean and variance (over `n`) of every column of `x`, outside any graph.
pub fn moments(x: &Tensor<2>) -> (Tensor<1>, Tensor<1>) {
    let [rows, columns] = x.dims();
    let device = x.device().without_autodiff();
    let (mean, variance) = crate::slices::read(x, |x| columns_of(x, rows, columns));
    let vector = |v: Vec<f32>| Tensor::from_data(TensorData::new(v, [columns]), &device);
    (vector(mean), vector(variance))
}

/// Where the statistics of a normalisation come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// Whether mean and variance are those of the rows themselves, so that gradients flow through
    /// them.
    pub of_these: bool,
    /// ε.
    pub eps: f32,
    /// What follows: nothing, or ReLU.
    pub relu: bool,
}

/// Normalises columns. Shapes: `x` `[n, c]`; `scale` γ, `shift` β, `mean` μ and `variance` σ²
/// `[c]`, the last two outside the graph.
pub fn batch_norm(
    x: Tensor<2>,
    scale: Tensor<1>,
    shift: Tensor<1>,
    mean: Tensor<1>,
    variance: Tensor<1>,
    norm: Norm,
) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::batch_norm_forward(
        x.into_dispatch(),
        scale.into_dispatch(),
        shift.into_dispatch(),
        mean.into_dispatch(),
        variance.into_dispatch(),
        norm,
    ))
}

fn row<B: Backend>(v: FloatTensor<B>) -> FloatTensor<B> {
    let n = v.shape().num_elements();
    B::float_reshape(v, [1, n].into())
}

fn inverse<B: Backend>(variance: FloatTensor<B>, norm: Norm) -> FloatTensor<B> {
    let shifted = B::float_add_scalar(row::<B>(variance), norm.eps.into());
    B::float_recip(B::float_sqrt(shifted))
}

pub(crate) fn composed_forward<B: Backend>(
    x: FloatTensor<B>,
    scale: FloatTensor<B>,
    shift: FloatTensor<B>,
    mean: FloatTensor<B>,
    variance: FloatTensor<B>,
    norm: Norm,
) -> FloatTensor<B> {
    let by = B::float_mul(inverse::<B>(variance, norm), row::<B>(scale));
    let centred = B::float_sub(x, row::<B>(mean));
    let z = B::float_add(B::float_mul(centred, by), row::<B>(shift));
    match norm.relu {
        true => B::relu(z),
        false => z,
    }
}

pub(crate) fn composed_backward<B: Backend>(
    x: FloatTensor<B>,
    scale: FloatTensor<B>,
    shift: FloatTensor<B>,
    mean: FloatTensor<B>,
    variance: FloatTensor<B>,
    dy: FloatTensor<B>,
    norm: Norm,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let [n, c] = x.shape().dims();
    let inverse = inverse::<B>(variance.clone(), norm);
    let hat = B::float_mul(
        B::float_sub(x.clone(), row::<B>(mean.clone())),
        inverse.clone(),
    );
    let dz = match norm.relu {
        true => {
            let y = composed_forward::<B>(x, scale.clone(), shift, mean, variance, norm);
            B::relu_backward(y, dy)
        }
        false => dy,
    };
    let by_shift = B::float_sum_dim(dz.clone(), 0);
    let by_scale = B::float_sum_dim(B::float_mul(dz.clone(), hat.clone()), 0);
    let through = match norm.of_these {
        true => {
            let each = |v: FloatTensor<B>| B::float_div_scalar(v, (n as f32).into());
            let along = B::float_mul(hat, each(by_scale.clone()));
            B::float_sub(B::float_sub(dz, each(by_shift.clone())), along)
        }
        false => dz,
    };
    let dx = B::float_mul(through, B::float_mul(inverse, row::<B>(scale)));
    let flat = |v| B::float_reshape(v, [c].into());
    (dx, flat(by_scale), flat(by_shift))
}

/// Rows that are summed in one piece, whatever the number of threads.
const PIECE: usize = 512;

/// Sums over rows, column by column: `each` adds a piece of rows to two sums a column.
fn sums(
    rows: usize,
    columns: usize,
    each: impl Fn(Range<usize>, &mut [f32], &mut [f32]) + Sync,
) -> (Vec<f64>, Vec<f64>) {
    let pieces: Vec<(Vec<f32>, Vec<f32>)> = (0..rows.div_ceil(PIECE))
        .into_par_iter()
        .map(|piece| {
            let (mut a, mut b) = (vec![0.0; columns], vec![0.0; columns]);
            let end = rows.min((piece + 1) * PIECE);
            each(piece * PIECE * columns..end * columns, &mut a, &mut b);
            (a, b)
        })
        .collect();
    let (mut a, mut b) = (vec![0.0; columns], vec![0.0; columns]);
    for (piece_a, piece_b) in pieces {
        let add = |to: &mut [f64], from: &[f32]| {
            to.iter_mut()
                .zip(from)
                .for_each(|(t, f)| *t += f64::from(*f));
        };
        add(&mut a, &piece_a);
        add(&mut b, &piece_b);
    }
    (a, b)
}

vectorised!(AddRows { x: &'a [f32], sum: &'a mut [f32] } {
    for x in x.chunks_exact(sum.len()) {
        sum.iter_mut().zip(x).for_each(|(s, x)| *s += x);
    }
});

vectorised!(AddSquares {
    x: &'a [f32],
    mean: &'a [f32],
    square: &'a mut [f32],
    rest: &'a mut [f32],
} {
    let c = mean.len();
    let (square, rest) = (&mut square[..c], &mut rest[..c]);
    for x in x.chunks_exact(c) {
        for k in 0..c {
            let d = x[k] - mean[k];
            square[k] += d * d;
            rest[k] += d;
        }
    }
});

vectorised!(Scale {
    x: &'a [f32],
    y: &'a mut [f32],
    a: &'a [f32],
    b: &'a [f32],
    relu: bool,
} {
    let c = a.len();
    let b = &b[..c];
    let least = if relu { 0.0 } else { f32::NEG_INFINITY };
    for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
        for k in 0..c {
            let z = x[k] * a[k] + b[k];
            // Unlike `max`, this lets what is not a number through.
            y[k] = if z < least { least } else { z };
        }
    }
});

/// What the gradient needs to know of every column.
struct Columns<'a> {
    a: &'a [f32],
    b: &'a [f32],
    mean: &'a [f32],
    inverse: &'a [f32],
    relu: bool,
}

vectorised!(AddGradients {
    x: &'a [f32],
    dy: &'a [f32],
    of: &'a Columns<'a>,
    by_shift: &'a mut [f32],
    by_scale: &'a mut [f32],
} {
    let c = of.a.len();
    let (a, b, mean, inverse) = (of.a, &of.b[..c], &of.mean[..c], &of.inverse[..c]);
    let (by_shift, by_scale) = (&mut by_shift[..c], &mut by_scale[..c]);
    for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
        for k in 0..c {
            let passes = !of.relu | (x[k] * a[k] + b[k] > 0.0);
            let dz = if passes { dy[k] } else { 0.0 };
            by_shift[k] += dz;
            by_scale[k] += dz * ((x[k] - mean[k]) * inverse[k]);
        }
    }
});

vectorised!(
/// `dx = a dz + p x + q`.
ToInput {
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
    of: &'a Columns<'a>,
    p: &'a [f32],
    q: &'a [f32],
} {
    let c = of.a.len();
    let (a, b, p, q) = (of.a, &of.b[..c], &p[..c], &q[..c]);
    let rows = x.chunks_exact(c).zip(dy.chunks_exact(c));
    for (dx, (x, dy)) in dx.chunks_exact_mut(c).zip(rows) {
        for k in 0..c {
            let passes = !of.relu | (x[k] * a[k] + b[k] > 0.0);
            let dz = if passes { dy[k] } else { 0.0 };
            dx[k] = a[k] * dz + (p[k] * x[k] + q[k]);
        }
    }
});

fn columns_of(x: &[f32], rows: usize, columns: usize) -> (Vec<f32>, Vec<f32>) {
    let n = rows.max(1) as f64;
    let arch = Arch::new();
    let (sum, _) = sums(rows, columns, |r, sum, _| {
        let x = &x[r];
        arch.dispatch(AddRows { x, sum });
    });
    let mean: Vec<f32> = sum.iter().map(|s| (s / n) as f32).collect();
    let (square, rest) = sums(rows, columns, |r, square, rest| {
        arch.dispatch(AddSquares {
            x: &x[r],
            mean: &mean,
            square,
            rest,
        });
    });
    // What rounding the mean left over.
    let each = square.iter().zip(&rest);
    let variance = each.map(|(s, r)| ((s - r * r / n) / n).max(0.0) as f32);
    let variance = variance.collect();
    (mean, variance)
}

/// A column's `z = a x + b`, and `1 / √(σ² + ε)`.
fn line(scale: &[f32], shift: &[f32], mean: &[f32], variance: &[f32], eps: f32) -> [Vec<f32>; 3] {
    let inverse: Vec<f32> = variance.iter().map(|v| 1.0 / (v + eps).sqrt()).collect();
    let a: Vec<f32> = inverse.iter().zip(scale).map(|(i, s)| i * s).collect();
    let b = (0..a.len()).map(|c| shift[c] - mean[c] * a[c]).collect();
    [a, b, inverse]
}

pub(crate) fn forward(
    x: FlexTensor,
    scale: FlexTensor,
    shift: FlexTensor,
    mean: FlexTensor,
    variance: FlexTensor,
    norm: Norm,
) -> FlexTensor {
    let shape: [usize; 2] = x.shape().dims();
    let piece = PIECE * shape[1].max(1);
    let [x, scale, shift, mean, variance] = [x, scale, shift, mean, variance].map(|t| dense(&t));
    let [a, b, _] = line(
        slice(&scale),
        slice(&shift),
        slice(&mean),
        slice(&variance),
        norm.eps,
    );
    let x = slice(&x);
    let mut y = vec![0.0f32; x.len()];
    y.par_chunks_mut(piece)
        .zip(x.par_chunks(piece))
        .for_each(|(y, x)| {
            Arch::new().dispatch(Scale {
                x,
                y,
                a: &a,
                b: &b,
                relu: norm.relu,
            });
        });
    tensor(y, shape)
}

pub(crate) fn backward(
    x: FlexTensor,
    scale: FlexTensor,
    shift: FlexTensor,
    mean: FlexTensor,
    variance: FlexTensor,
    dy: FlexTensor,
    norm: Norm,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let shape: [usize; 2] = x.shape().dims();
    let [n, c] = shape;
    let piece = PIECE * c.max(1);
    let [x, scale, shift, mean, variance, dy] =
        [x, scale, shift, mean, variance, dy].map(|t| dense(&t));
    let [a, b, inverse] = line(
        slice(&scale),
        slice(&shift),
        slice(&mean),
        slice(&variance),
        norm.eps,
    );
    let (x, dy, mean) = (slice(&x), slice(&dy), slice(&mean));
    let of = Columns {
        a: &a,
        b: &b,
        mean,
        inverse: &inverse,
        relu: norm.relu,
    };
    let (by_shift, by_scale) = sums(n, c, |r, by_shift, by_scale| {
        Arch::new().dispatch(AddGradients {
            x: &x[r.clone()],
            dy: &dy[r],
            of: &of,
            by_shift,
            by_scale,
        });
    });
    let (mut p, mut q) = (vec![0.0f32; c], vec![0.0f32; c]);
    if norm.of_these {
        for c in 0..c {
            let a = f64::from(a[c]) / n.max(1) as f64;
            let slope = -a * by_scale[c] * f64::from(inverse[c]);
            p[c] = slope as f32;
            q[c] = (-a * by_shift[c] - slope * f64::from(mean[c])) as f32;
        }
    }
    let mut dx = vec![0.0f32; x.len()];
    dx.par_chunks_mut(piece)
        .zip(x.par_chunks(piece).zip(dy.par_chunks(piece)))
        .for_each(|(dx, (x, dy))| {
            Arch::new().dispatch(ToInput {
                x,
                dy,
                dx,
                of: &of,
                p: &p,
                q: &q,
            });
        });
    let vector = |v: Vec<f64>| tensor(v.into_iter().map(|v| v as f32).collect(), [c]);
    (tensor(dx, shape), vector(by_scale), vector(by_shift))
}

#[derive(Debug)]
struct BatchNorm;

impl<B: FusedOps> Backward<B, 3> for BatchNorm {
    type State = ([FloatTensor<B>; 5], Norm);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ([x, scale, shift, mean, variance], norm) = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let (dx, by_scale, by_shift) =
            B::batch_norm_backward(x, scale, shift, mean, variance, dy, norm);
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
    mean: FloatTensor<Autodiff<B, C>>,
    variance: FloatTensor<Autodiff<B, C>>,
    norm: Norm,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = [x.node(), scale.node(), shift.node()];
    let all = [x, scale, shift, mean, variance].map(|t| t.into_primitive());
    let [x, scale, shift, mean, variance] = all.clone();
    match BatchNorm.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let y = B::batch_norm_forward(x, scale, shift, mean, variance, norm);
            prep.finish((all, norm), y)
        }
        OpsKind::UnTracked(prep) => {
            prep.finish(B::batch_norm_forward(x, scale, shift, mean, variance, norm))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slices::to_vec;
    use burn::tensor::{Device, activation};

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut s = seed;
        let mut next = || {
            s = s.wrapping_mul(1664525).wrapping_add(1013904223);
            (s >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    /// Values and gradients against the same in the engine's own operations, which differentiates
    /// through the statistics by itself.
    #[test]
    fn agrees_with_the_composed_version() {
        for (n, c) in [(2, 1), (7, 3), (1100, 33)] {
            for (of_these, relu) in [(true, false), (true, true), (false, true)] {
                let leaf = |values: Vec<f32>, shape: [usize; 2]| {
                    Tensor::<2>::from_data(TensorData::new(values, shape), &Device::flex())
                        .autodiff()
                        .require_grad()
                };
                let run = |fused: bool| {
                    let x = leaf(noise(n * c, 1), [c, n]);
                    let (g, b) = (leaf(noise(c, 2), [1, c]), leaf(noise(c, 3), [1, c]));
                    let xt = x.clone().transpose() * 3.0 + 2.0;
                    let (mean, variance) = moments(&xt);
                    let y = if fused {
                        let norm = Norm {
                            of_these,
                            eps: 1e-5,
                            relu,
                        };
                        let (g, b) = (g.clone().reshape([c]), b.clone().reshape([c]));
                        batch_norm(xt, g, b, mean, variance, norm)
                    } else {
                        let (mean, variance) = match of_these {
                            true => {
                                let mean = xt.clone().mean_dim(0);
                                let centred = xt.clone() - mean.clone();
                                (mean, (centred.clone() * centred).mean_dim(0))
                            }
                            false => {
                                let plain = |v: Tensor<1>| v.reshape([1, c]).autodiff();
                                (plain(mean), plain(variance))
                            }
                        };
                        let hat = (xt - mean) / (variance + 1e-5).sqrt();
                        let z = hat * g.clone() + b.clone();
                        if relu { activation::relu(z) } else { z }
                    };
                    let data = TensorData::new(noise(n * c, 4), [n, c]);
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
                        let near = (a - b).abs() <= 1e-4 * (1.0 + b.abs());
                        assert!(near, "{n} {c} {of_these} {relu} {what}: {a} and {b}");
                    }
                }
            }
        }
    }

    /// Against f64, where the mean is far from 0.
    #[test]
    fn moments_are_those_of_f64() {
        let (n, c) = (5000, 3);
        let values: Vec<f32> = noise(n * c, 9).iter().map(|v| 300.0 + v).collect();
        let x = Tensor::<2>::from_data(TensorData::new(values.clone(), [n, c]), &Device::flex());
        let (mean, variance) = moments(&x);
        for j in 0..c {
            let column = || values[j..].iter().step_by(c).map(|v| f64::from(*v));
            let m = column().sum::<f64>() / n as f64;
            let v = column().map(|x| (x - m) * (x - m)).sum::<f64>() / n as f64;
            assert!((f64::from(to_vec(&mean)[j]) - m).abs() < 1e-4);
            assert!((f64::from(to_vec(&variance)[j]) / v - 1.0).abs() < 1e-5);
        }
    }
}
