//! The largest of every 2x2 pixels of images with their channels last.
//!
//! `y[n, i, j, c] = max_{k, l ∈ {0, 1}} x[n, 2i + k, 2j + l, c]`; an odd line or column at the end
//! is left out. The gradient goes to the first of equals.

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

/// Max pooling. Shapes: `x` `[images · height · width, c]`, the result
/// `[images · (height / 2) · (width / 2), c]`.
pub fn max_pool(x: Tensor<2>, height: usize, width: usize) -> Tensor<2> {
    assert_eq!(
        x.dims()[0] % (height * width),
        0,
        "whole images of {height} x {width}"
    );
    Tensor::from_dispatch(Dispatch::max_pool_forward(x.into_dispatch(), height, width))
}

pub(crate) fn composed_forward<B: Backend>(
    x: FloatTensor<B>,
    height: usize,
    width: usize,
) -> FloatTensor<B> {
    let [rows, c] = x.shape().dims();
    let n = rows / (height * width);
    let x = B::float_reshape(x, [n, height, width, c].into());
    let x = B::float_permute(x, &[0, 3, 1, 2]);
    let y = B::max_pool2d(x, [2, 2], [2, 2], [0, 0], [1, 1], false);
    let y = B::float_permute(y, &[0, 2, 3, 1]);
    B::float_reshape(y, [n * (height / 2) * (width / 2), c].into())
}

/// The gradient is 1 where a pixel is the largest and none before it is.
pub(crate) fn composed_backward<B: Backend>(
    x: FloatTensor<B>,
    dy: FloatTensor<B>,
    height: usize,
    width: usize,
) -> FloatTensor<B> {
    let [rows, c] = x.shape().dims();
    let n = rows / (height * width);
    let x = B::float_reshape(x, [n, height, width, c].into());
    let x = B::float_permute(x, &[0, 3, 1, 2]);
    let dy = B::float_reshape(dy, [n, height / 2, width / 2, c].into());
    let dy = B::float_permute(dy, &[0, 3, 1, 2]);
    let (size, stride, none, one) = ([2, 2], [2, 2], [0, 0], [1, 1]);
    let int = burn::tensor::IntDType::I32;
    let found = B::max_pool2d_with_indices(x.clone(), size, stride, none, one, false, int);
    let dx =
        B::max_pool2d_with_indices_backward(x, size, stride, none, one, false, dy, found.indices);
    let dx = B::float_permute(dx.x_grad, &[0, 2, 3, 1]);
    B::float_reshape(dx, [rows, c].into())
}

/// The larger of two; unlike `max`, this lets what is not a number through.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

vectorised!(
/// One image.
Pool { x: &'a [f32], y: &'a mut [f32], line: usize, c: usize } {
    let out = line / (2 * c) * c;
    for (x, y) in x.chunks_exact(2 * line).zip(y.chunks_exact_mut(out)) {
        let (up, down) = x.split_at(line);
        let pairs = up.chunks_exact(2 * c).zip(down.chunks_exact(2 * c));
        for (y, (up, down)) in y.chunks_exact_mut(c).zip(pairs) {
            let ((a, b), (d, e)) = (up.split_at(c), down.split_at(c));
            for k in 0..c {
                y[k] = larger(larger(a[k], b[k]), larger(d[k], e[k]));
            }
        }
    }
});

vectorised!(
/// The gradient of one image.
Unpool { x: &'a [f32], dy: &'a [f32], dx: &'a mut [f32], line: usize, c: usize } {
    let out = line / (2 * c) * c;
    let lines = x.chunks_exact(2 * line).zip(dx.chunks_exact_mut(2 * line));
    for (dy, (x, dx)) in dy.chunks_exact(out).zip(lines) {
        let (up, down) = x.split_at(line);
        let (to_up, to_down) = dx.split_at_mut(line);
        let from = up.chunks_exact(2 * c).zip(down.chunks_exact(2 * c));
        let to = to_up
            .chunks_exact_mut(2 * c)
            .zip(to_down.chunks_exact_mut(2 * c));
        for (dy, ((up, down), (to_up, to_down))) in dy.chunks_exact(c).zip(from.zip(to)) {
            let ((a, b), (d, e)) = (up.split_at(c), down.split_at(c));
            let ((ta, tb), (td, te)) = (to_up.split_at_mut(c), to_down.split_at_mut(c));
            let (e, te) = (&e[..c], &mut te[..c]);
            let (b, tb) = (&b[..c], &mut tb[..c]);
            for k in 0..c {
                let (right, right_below) = (b[k] > a[k], e[k] > d[k]);
                let below = larger(d[k], e[k]) > larger(a[k], b[k]);
                ta[k] = if !below & !right { dy[k] } else { 0.0 };
                tb[k] = if !below & right { dy[k] } else { 0.0 };
                td[k] = if below & !right_below { dy[k] } else { 0.0 };
                te[k] = if below & right_below { dy[k] } else { 0.0 };
            }
        }
    }
});

pub(crate) fn forward(x: FlexTensor, height: usize, width: usize) -> FlexTensor {
    let [rows, c] = x.shape().dims();
    let x = dense(&x);
    let line = width * c;
    let out = (height / 2) * (width / 2);
    let n = rows / (height * width);
    let mut y = vec![0.0f32; n * out * c];
    if !y.is_empty() {
        y.par_chunks_mut(out * c)
            .zip(slice(&x).par_chunks(height * line))
            .for_each(|(y, x)| Arch::new().dispatch(Pool { x, y, line, c }));
    }
    tensor(y, [n * out, c])
}

pub(crate) fn backward(x: FlexTensor, dy: FlexTensor, height: usize, width: usize) -> FlexTensor {
    let [rows, c] = x.shape().dims();
    let (x, dy) = (dense(&x), dense(&dy));
    let line = width * c;
    let out = (height / 2) * (width / 2) * c;
    let mut dx = vec![0.0f32; rows * c];
    if out > 0 {
        let operands = slice(&x)
            .par_chunks(height * line)
            .zip(slice(&dy).par_chunks(out));
        dx.par_chunks_mut(height * line)
            .zip(operands)
            .for_each(|(dx, (x, dy))| Arch::new().dispatch(Unpool { x, dy, dx, line, c }));
    }
    tensor(dx, [rows, c])
}

#[derive(Debug)]
struct MaxPool;

impl<B: FusedOps> Backward<B, 1> for MaxPool {
    type State = (FloatTensor<B>, usize, usize);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, height, width) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |dy| {
            B::max_pool_backward(x, dy, height, width)
        });
    }
}

pub(crate) fn tracked<B: FusedOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    height: usize,
    width: usize,
) -> FloatTensor<Autodiff<B, C>> {
    match MaxPool.prepare::<C>([x.node()]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let x = x.into_primitive();
            let y = B::max_pool_forward(x.clone(), height, width);
            prep.finish((x, height, width), y)
        }
        OpsKind::UnTracked(prep) => {
            prep.finish(B::max_pool_forward(x.into_primitive(), height, width))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slices::to_vec;
    use burn::tensor::module::max_pool2d;
    use burn::tensor::ops::MaxPoolOptions;
    use burn::tensor::{Device, TensorData};

    /// Values and gradients against the engine's own pooling, with equals among the numbers, on
    /// odd sizes and a strided operand.
    #[test]
    fn agrees_with_the_composed_version() {
        for (n, h, w, c) in [(1, 2, 2, 1), (2, 4, 6, 3), (3, 5, 7, 17), (2, 3, 2, 32)] {
            let some = |count: usize, by: usize| -> Vec<f32> {
                (0..count).map(|i| (i * by % 5) as f32 - 2.0).collect()
            };
            let run = |fused: bool| {
                let data = TensorData::new(some(n * h * w * c, 7), [c, n * h * w]);
                let x = Tensor::<2>::from_data(data, &Device::flex())
                    .autodiff()
                    .require_grad();
                let xt = x.clone().transpose();
                let y = if fused {
                    max_pool(xt, h, w)
                } else {
                    let image = xt.reshape([n, h, w, c]).permute([0, 3, 1, 2]);
                    let options = MaxPoolOptions::new([2, 2]).with_stride([2, 2]);
                    let y = max_pool2d(image, options).permute([0, 2, 3, 1]);
                    y.reshape([n * (h / 2) * (w / 2), c])
                };
                let [rows, _] = y.dims();
                let data = TensorData::new(some(rows * c, 3), [rows, c]);
                let by = Tensor::<2>::from_data(data, &Device::flex());
                let mut grads = (y.clone() * by).sum().backward();
                [
                    to_vec(&y),
                    to_vec(&x.grad_remove(&mut grads).expect("a leaf")),
                ]
            };
            assert_eq!(run(true), run(false), "{n} {h} {w} {c}");
        }
    }
}
