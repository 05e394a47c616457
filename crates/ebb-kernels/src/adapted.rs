//! A linear layer with a low-rank update beside it: `y = x wᵀ + b + s (x Aᵀ) Bᵀ`.
//!
//! The update is added where the layer's own product lies, so that neither `w + s B A` nor a second
//! `[n, out]` is ever made. Backward computes the gradients that somebody asked for: with a frozen
//! weight that is two thirds of a layer's products, and what is kept for it is `x` and `x Aᵀ`.

use crate::FusedOps;
use crate::gemm::{Mat, matmul, product_of};
use crate::linear::{
    Activation, Stored, column_sums, composed_forward, composed_weight, dense, slice, tensor,
    weight_of,
};
use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, tensor::FloatTensor};
use burn::tensor::Tensor;

/// `x wᵀ + b + scale (x Aᵀ) Bᵀ`. Shapes: `x` `[n, in]`, `w` `[out * in]` as `stored`, `b` `[out]`,
/// `down` (A) `[rank * in]` and `up` (B) `[out * rank]`, row by row; the result is `[n, out]`.
///
/// # Panics
/// When the shapes do not agree.
pub fn adapted_linear(
    x: Tensor<2>,
    w: Tensor<1>,
    b: Tensor<1>,
    down: Tensor<1>,
    up: Tensor<1>,
    scale: f32,
    stored: Stored,
) -> Tensor<2> {
    let ([_, inputs], [outputs]) = (x.dims(), b.dims());
    let rank = down.dims()[0] / inputs.max(1);
    assert_eq!(w.dims()[0], inputs * outputs, "the weight's size");
    assert_eq!(down.dims()[0], inputs * rank, "the size of A");
    assert_eq!(up.dims()[0], outputs * rank, "the size of B");
    Tensor::from_dispatch(Dispatch::adapted_forward(
        x.into_dispatch(),
        w.into_dispatch(),
        b.into_dispatch(),
        down.into_dispatch(),
        up.into_dispatch(),
        scale,
        stored,
    ))
}

/// What backward starts from: `x`, `w`, A, B, and `scale x Aᵀ`.
type Kept<B> = [FloatTensor<B>; 5];

pub(crate) fn composed<B: Backend>(
    [x, w, b, down, up]: [FloatTensor<B>; 5],
    scale: f32,
    stored: Stored,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (inputs, outputs) = (x.shape()[1], b.shape()[0]);
    let rank = down.shape()[0] / inputs.max(1);
    let a = B::float_reshape(down, [rank, inputs].into());
    let u = B::float_matmul(x.clone(), B::float_swap_dims(a, 0, 1));
    let u = B::float_mul_scalar(u, scale.into());
    let up = B::float_reshape(up, [outputs, rank].into());
    let more = B::float_matmul(u.clone(), B::float_swap_dims(up, 0, 1));
    let y = composed_forward::<B>(x, w, b, Activation::Identity, stored);
    (B::float_add(y, more), u)
}

pub(crate) fn composed_backward<B: Backend>(
    [x, w, down, up, u]: Kept<B>,
    dy: FloatTensor<B>,
    scale: f32,
    stored: Stored,
    wants: [bool; 5],
) -> [FloatTensor<B>; 5] {
    let nothing = B::float_zeros([0].into(), &dy.device(), dy.dtype().into());
    let (inputs, outputs) = (x.shape()[1], dy.shape()[1]);
    let rank = u.shape()[1];
    let turned = |t: FloatTensor<B>| B::float_swap_dims(t, 0, 1);
    let flat = |t: FloatTensor<B>, n: usize| B::float_reshape(t, [n].into());
    let a = B::float_reshape(down, [rank, inputs].into());
    let up = B::float_reshape(up, [outputs, rank].into());
    let du = B::float_mul_scalar(B::float_matmul(dy.clone(), up), scale.into());
    let dx = || {
        let w = composed_weight::<B>(w, inputs, outputs, stored);
        let dx = B::float_matmul(dy.clone(), w);
        B::float_add(dx, B::float_matmul(du.clone(), a))
    };
    let dx = wants[0].then(dx);
    let dw = || {
        let dw = match stored {
            Stored::OutIn => B::float_matmul(turned(dy.clone()), x.clone()),
            Stored::InOut => B::float_matmul(turned(x.clone()), dy.clone()),
        };
        flat(dw, outputs * inputs)
    };
    let dw = wants[1].then(dw);
    let db = wants[2].then(|| flat(B::float_sum_dim(dy.clone(), 0), outputs));
    let da = wants[3].then(|| flat(B::float_matmul(turned(du), x), rank * inputs));
    let dup = wants[4].then(|| flat(B::float_matmul(turned(dy), u), outputs * rank));
    [dx, dw, db, da, dup].map(|found| found.unwrap_or_else(|| nothing.clone()))
}

/// The result, and `scale x Aᵀ`.
pub(crate) fn forward(
    [x, w, b, down, up]: [FlexTensor; 5],
    scale: f32,
    stored: Stored,
) -> (FlexTensor, FlexTensor) {
    let [x, w, b, down, up] = [x, w, b, down, up].map(|t| dense(&t));
    let (n, inputs, outputs) = (x.shape()[0], x.shape()[1], b.shape()[0]);
    let rank = down.shape()[0] / inputs.max(1);
    let mut y = Vec::with_capacity(n * outputs);
    for _ in 0..n {
        y.extend_from_slice(slice(&b));
    }
    let x = Mat::new(slice(&x), n, inputs);
    let w = weight_of(slice(&w), inputs, outputs, stored);
    matmul(&mut y, x, w.t(), true);
    let mut u = product_of(x, Mat::new(slice(&down), rank, inputs).t());
    u.iter_mut().for_each(|u| *u *= scale);
    let by = Mat::new(slice(&up), outputs, rank).t();
    matmul(&mut y, Mat::new(&u, n, rank), by, true);
    (tensor(y, [n, outputs]), tensor(u, [n, rank]))
}

pub(crate) fn backward(
    kept: [FlexTensor; 5],
    dy: FlexTensor,
    scale: f32,
    stored: Stored,
    wants: [bool; 5],
) -> [FlexTensor; 5] {
    let [x, w, down, up, u] = kept.map(|t| dense(&t));
    let dy = dense(&dy);
    let (n, inputs, outputs, rank) = (x.shape()[0], x.shape()[1], dy.shape()[1], u.shape()[1]);
    let by_y = Mat::new(slice(&dy), n, outputs);
    let x = Mat::new(slice(&x), n, inputs);
    let a = Mat::new(slice(&down), rank, inputs);
    let mut du = product_of(by_y, Mat::new(slice(&up), outputs, rank));
    du.iter_mut().for_each(|d| *d *= scale);
    let by_u = Mat::new(&du, n, rank);
    let dx = wants[0].then(|| {
        let mut dx = product_of(by_y, weight_of(slice(&w), inputs, outputs, stored));
        matmul(&mut dx, by_u, a, true);
        tensor(dx, [n, inputs])
    });
    let dw = wants[1].then(|| {
        let dw = match stored {
            Stored::OutIn => product_of(by_y.t(), x),
            Stored::InOut => product_of(x.t(), by_y),
        };
        tensor(dw, [outputs * inputs])
    });
    let db = wants[2].then(|| tensor(column_sums(slice(&dy), outputs), [outputs]));
    let da = wants[3].then(|| tensor(product_of(by_u.t(), x), [rank * inputs]));
    let u = Mat::new(slice(&u), n, rank);
    let dup = wants[4].then(|| tensor(product_of(by_y.t(), u), [outputs * rank]));
    [dx, dw, db, da, dup].map(|found| found.unwrap_or_else(|| tensor(Vec::new(), [0])))
}

#[derive(Debug)]
struct Adapted;

impl<B: FusedOps> Backward<B, 5> for Adapted {
    type State = (Kept<B>, f32, Stored);

    fn backward(self, ops: Ops<Self::State, 5>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (kept, scale, stored) = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let wants = ops.parents.each_ref().map(Option::is_some);
        let [x, w, down, up, u] = kept;
        let found = B::adapted_backward(x, w, down, up, u, dy, scale, stored, wants);
        let found: [FloatTensor<B>; 5] = found.into();
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

pub(crate) fn tracked<B: FusedOps, C: CheckpointStrategy>(
    operands: [FloatTensor<Autodiff<B, C>>; 5],
    scale: f32,
    stored: Stored,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = operands.each_ref().map(|t| t.node());
    let [x, w, b, down, up] = operands.map(|t| t.into_primitive());
    match Adapted.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (x_, w_, down_, up_) = (x.clone(), w.clone(), down.clone(), up.clone());
            let (y, u) = B::adapted_keeping(x_, w_, b, down_, up_, scale, stored);
            prep.finish(([x, w, down, up, u], scale, stored), y)
        }
        OpsKind::UnTracked(prep) => {
            prep.finish(B::adapted_forward(x, w, b, down, up, scale, stored))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slices::to_vec;
    use burn::tensor::{Device, TensorData};

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut s = seed;
        (0..n)
            .map(|_| {
                s = s.wrapping_mul(1664525).wrapping_add(1013904223);
                (s >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    /// Values and all gradients against a layer whose weight is `w + s B A`, with frozen operands
    /// or without.
    #[test]
    fn is_the_layer_with_the_merged_weight() {
        for (n, inputs, outputs, rank) in [(1, 1, 1, 1), (5, 3, 7, 2), (33, 65, 17, 4)] {
            for (stored, frozen) in [(Stored::OutIn, true), (Stored::InOut, false)] {
                let run = |fused: bool| {
                    let flex = Device::flex();
                    let leaf = |values: Vec<f32>| {
                        let size = values.len();
                        let data = TensorData::new(values, [size]);
                        let t = Tensor::<1>::from_data(data, &flex).autodiff();
                        (t, size)
                    };
                    let trained = |n, seed| leaf(noise(n, seed)).0.require_grad();
                    let held = |n, seed| match frozen {
                        true => leaf(noise(n, seed)).0,
                        false => trained(n, seed),
                    };
                    let x = trained(n * inputs, 1);
                    let w = held(outputs * inputs, 2);
                    let b = held(outputs, 3);
                    let (a, up) = (trained(rank * inputs, 4), trained(outputs * rank, 5));
                    // A strided input: the transpose is a view.
                    let rows = x.clone().reshape([inputs, n]).transpose();
                    let y = if fused {
                        let (w, b) = (w.clone(), b.clone());
                        adapted_linear(rows, w, b, a.clone(), up.clone(), 0.5, stored)
                    } else {
                        let wt = match stored {
                            Stored::OutIn => w.clone().reshape([outputs, inputs]).transpose(),
                            Stored::InOut => w.clone().reshape([inputs, outputs]),
                        };
                        let more = (up.clone().reshape([outputs, rank]))
                            .matmul(a.clone().reshape([rank, inputs]));
                        let w = wt + more.transpose() * 0.5;
                        rows.matmul(w) + b.clone().reshape([1, outputs])
                    };
                    let by = Tensor::<2>::from_data(
                        TensorData::new(noise(n * outputs, 6), [n, outputs]),
                        &flex,
                    );
                    let mut grads = (y.clone() * by).sum().backward();
                    let mut found = vec![to_vec(&y)];
                    for leaf in [&x, &w, &b, &a, &up] {
                        found.extend(leaf.grad_remove(&mut grads).map(|g| to_vec(&g)));
                    }
                    found
                };
                let (fused, composed) = (run(true), run(false));
                assert_eq!(fused.len(), if frozen { 4 } else { 6 });
                for (fused, composed) in fused.iter().zip(&composed) {
                    assert_eq!(fused.len(), composed.len());
                    for (a, b) in fused.iter().zip(composed) {
                        assert!((a - b).abs() <= 3e-5 * (1.0 + b.abs()), "{a} and {b}");
                    }
                }
            }
        }
    }
}
