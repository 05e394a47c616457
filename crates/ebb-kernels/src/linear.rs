//! The fused linear layer: `y = act(x wᵀ + b)` with its backward in one operation.
//!
//! Forward is one matrix product onto rows that already hold the bias, then the activation in
//! place. Backward computes `dz = dy ⊙ act'(y)` once and feeds three reductions through strided
//! views: `dw = dzᵀ x`, `dx = dz w`, `db = Σ_rows dz`. Nothing is transposed in memory, and `dx`
//! is not computed for the first layer.

use crate::FusedOps;
use crate::adapted;
use crate::attention::{self, Scores};
use crate::batch_norm::{self, Norm};
use crate::conv;
use crate::gelu;
use crate::gemm::{Mat, matmul, product_of};
use crate::pool;
use crate::rotary;
use crate::row_norm;
use crate::swiglu;
use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{Bytes, DType, Shape, Tensor};

/// Activations whose derivative follows from the output alone, so that the pre-activation need
/// not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// None.
    Identity,
    /// `max(0, z)`; derivative 0 at 0.
    Relu,
    /// `tanh z`.
    Tanh,
}

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// `[out, in]`, as nearly everybody does.
    OutIn,
    /// `[in, out]`, as GPT-2 does.
    InOut,
}

/// `act(x wᵀ + b)`. Shapes: `x` `[n, in]`, `w` `[out * in]` (row by row, `[out, in]`), `b`
/// `[out]`; the result is `[n, out]`.
pub fn fused_linear(x: Tensor<2>, w: Tensor<1>, b: Tensor<1>, act: Activation) -> Tensor<2> {
    fused_linear_of(x, w, b, act, Stored::OutIn)
}

/// The same with a weight that may be stored the other way round.
pub fn fused_linear_of(
    x: Tensor<2>,
    w: Tensor<1>,
    b: Tensor<1>,
    act: Activation,
    stored: Stored,
) -> Tensor<2> {
    let [_, inputs] = x.dims();
    let [outputs] = b.dims();
    assert_eq!(
        w.dims()[0],
        inputs * outputs,
        "the weight of a {inputs} -> {outputs} layer has {} values",
        inputs * outputs
    );
    Tensor::from_dispatch(Dispatch::linear_forward(
        x.into_dispatch(),
        w.into_dispatch(),
        b.into_dispatch(),
        act,
        stored,
    ))
}

/// The weight as `[out, in]`, a view.
pub(crate) fn weight_of(w: &[f32], inputs: usize, outputs: usize, stored: Stored) -> Mat<'_> {
    match stored {
        Stored::OutIn => Mat::new(w, outputs, inputs),
        Stored::InOut => Mat::new(w, inputs, outputs).t(),
    }
}

pub(crate) fn composed_weight<B: Backend>(
    w: FloatTensor<B>,
    inputs: usize,
    outputs: usize,
    stored: Stored,
) -> FloatTensor<B> {
    match stored {
        Stored::OutIn => B::float_reshape(w, [outputs, inputs].into()),
        Stored::InOut => B::float_swap_dims(B::float_reshape(w, [inputs, outputs].into()), 0, 1),
    }
}

pub(crate) fn composed_forward<B: Backend>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    b: FloatTensor<B>,
    act: Activation,
    stored: Stored,
) -> FloatTensor<B> {
    let (inputs, outputs) = (x.shape()[1], b.shape()[0]);
    let w = composed_weight::<B>(w, inputs, outputs, stored);
    let z = B::float_matmul(x, B::float_swap_dims(w, 0, 1));
    let z = B::float_add(z, B::float_reshape(b, [1, outputs].into()));
    match act {
        Activation::Identity => z,
        Activation::Relu => B::relu(z),
        Activation::Tanh => B::float_tanh(z),
    }
}

pub(crate) fn composed_by_pre_activation<B: Backend>(
    y: FloatTensor<B>,
    dy: FloatTensor<B>,
    act: Activation,
) -> FloatTensor<B> {
    match act {
        Activation::Identity => dy,
        Activation::Relu => B::relu_backward(y, dy),
        Activation::Tanh => {
            let square = B::float_mul(y.clone(), y);
            B::float_sub(dy.clone(), B::float_mul(dy, square))
        }
    }
}

pub(crate) fn composed_backward<B: Backend>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    y: FloatTensor<B>,
    dy: FloatTensor<B>,
    act: Activation,
    stored: Stored,
    [wants_dx, wants_dw, wants_db]: [bool; 3],
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (inputs, outputs) = (x.shape()[1], dy.shape()[1]);
    let dz = composed_by_pre_activation::<B>(y, dy, act);
    let turned = |t: FloatTensor<B>| B::float_swap_dims(t, 0, 1);
    let nothing = || B::float_zeros([0].into(), &dz.device(), dz.dtype().into());
    let dw = match (wants_dw, stored) {
        (false, _) => nothing(),
        (true, Stored::OutIn) => B::float_matmul(turned(dz.clone()), x),
        (true, Stored::InOut) => B::float_matmul(turned(x), dz.clone()),
    };
    let size = dw.shape().num_elements();
    let dw = B::float_reshape(dw, [size].into());
    let db = match wants_db {
        true => B::float_reshape(B::float_sum_dim(dz.clone(), 0), [outputs].into()),
        false => nothing(),
    };
    let dx = match wants_dx {
        true => {
            let w = composed_weight::<B>(w, inputs, outputs, stored);
            B::float_matmul(dz.clone(), w)
        }
        false => nothing(),
    };
    (dx, dw, db)
}

pub(crate) fn dense(t: &FlexTensor) -> FlexTensor {
    if t.as_slice::<f32>().is_some() {
        t.clone()
    } else {
        t.to_contiguous()
    }
}

pub(crate) fn slice(t: &FlexTensor) -> &[f32] {
    t.as_slice::<f32>()
        .unwrap_or_else(|| unreachable!("made dense before"))
}

pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(shape.into()),
        DType::F32,
    )
}

/// The sum of each column, rows added in their order.
pub(crate) fn column_sums(rows: &[f32], columns: usize) -> Vec<f32> {
    let mut sums = vec![0.0f32; columns];
    pulp::Arch::new().dispatch(|| {
        for row in rows.chunks_exact(columns.max(1)) {
            for (sum, &v) in sums.iter_mut().zip(row) {
                *sum += v;
            }
        }
    });
    sums
}

/// `dy ⊙ act'`, in place of `dy` unless somebody else still holds it.
fn by_pre_activation(y: &FlexTensor, dy: FlexTensor, act: Activation) -> FlexTensor {
    let mut dy = dense(&dy);
    if act == Activation::Identity {
        return dy;
    }
    let y = dense(y);
    let y = slice(&y);
    let start = dy.layout().start_offset();
    let dz = &mut dy.storage_mut::<f32>()[start..start + y.len()];
    pulp::Arch::new().dispatch(|| match act {
        Activation::Identity => {}
        Activation::Relu => {
            for (d, &y) in dz.iter_mut().zip(y) {
                *d = if y > 0.0 { *d } else { 0.0 };
            }
        }
        Activation::Tanh => {
            for (d, &y) in dz.iter_mut().zip(y) {
                *d -= *d * (y * y);
            }
        }
    });
    dy
}

impl FusedOps for Flex {
    fn by_pre_activation(y: FlexTensor, dy: FlexTensor, act: Activation) -> FlexTensor {
        by_pre_activation(&y, dy, act)
    }

    fn adapted_keeping(
        x: FlexTensor,
        w: FlexTensor,
        b: FlexTensor,
        down: FlexTensor,
        up: FlexTensor,
        scale: f32,
        stored: Stored,
    ) -> (FlexTensor, FlexTensor) {
        adapted::forward([x, w, b, down, up], scale, stored)
    }

    fn adapted_backward(
        x: FlexTensor,
        w: FlexTensor,
        down: FlexTensor,
        up: FlexTensor,
        u: FlexTensor,
        dy: FlexTensor,
        scale: f32,
        stored: Stored,
        wants: [bool; 5],
    ) -> (FlexTensor, FlexTensor, FlexTensor, FlexTensor, FlexTensor) {
        adapted::backward([x, w, down, up, u], dy, scale, stored, wants).into()
    }

    fn convolution_forward(
        x: FlexTensor,
        w: FlexTensor,
        b: FlexTensor,
        shape: conv::Shape,
        act: Activation,
    ) -> FlexTensor {
        conv::forward(x, w, b, shape, act)
    }

    fn batch_norm_forward(
        x: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        norm: Norm,
    ) -> FlexTensor {
        batch_norm::forward(x, scale, shift, mean, variance, norm)
    }

    fn batch_norm_backward(
        x: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        dy: FlexTensor,
        norm: Norm,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        batch_norm::backward(x, scale, shift, mean, variance, dy, norm)
    }

    fn attend_forward(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        mask: FlexTensor,
        scores: Scores,
    ) -> FlexTensor {
        attention::forward(q, k, v, mask, scores).0
    }

    fn attend_keeping(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        mask: FlexTensor,
        scores: Scores,
    ) -> (FlexTensor, FlexTensor) {
        attention::forward(q, k, v, mask, scores)
    }

    fn attend_backward(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        mask: FlexTensor,
        o: FlexTensor,
        kept: FlexTensor,
        d_o: FlexTensor,
        scores: Scores,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        attention::backward([q, k, v, mask, o, kept], d_o, scores)
    }

    fn rotary_forward(x: FlexTensor, cos: FlexTensor, sin: FlexTensor, back: bool) -> FlexTensor {
        rotary::forward(x, cos, sin, back)
    }

    fn gaussian_forward(x: FlexTensor, tanh: bool) -> FlexTensor {
        gelu::forward(x, tanh)
    }

    fn gaussian_backward(x: FlexTensor, dy: FlexTensor, tanh: bool) -> FlexTensor {
        gelu::backward(x, dy, tanh)
    }

    fn row_norm_forward(
        x: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        kind: row_norm::Kind,
    ) -> FlexTensor {
        row_norm::forward(x, scale, shift, kind)
    }

    fn row_norm_backward(
        x: FlexTensor,
        scale: FlexTensor,
        dy: FlexTensor,
        kind: row_norm::Kind,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        row_norm::backward(x, scale, dy, kind)
    }

    fn max_pool_forward(x: FlexTensor, height: usize, width: usize) -> FlexTensor {
        pool::forward(x, height, width)
    }

    fn max_pool_backward(x: FlexTensor, dy: FlexTensor, height: usize, width: usize) -> FlexTensor {
        pool::backward(x, dy, height, width)
    }

    fn convolution_backward(
        x: FlexTensor,
        w: FlexTensor,
        dz: FlexTensor,
        shape: conv::Shape,
        wants_dx: bool,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        conv::backward(x, w, dz, shape, wants_dx)
    }

    fn swiglu_forward(g: FlexTensor, u: FlexTensor) -> FlexTensor {
        let (g, u) = (dense(&g), dense(&u));
        let shape = [g.shape()[0], g.shape()[1]];
        tensor(swiglu::forward(slice(&g), slice(&u)), shape)
    }

    fn swiglu_backward(g: FlexTensor, u: FlexTensor, dy: FlexTensor) -> (FlexTensor, FlexTensor) {
        let (g, u, dy) = (dense(&g), dense(&u), dense(&dy));
        let shape = [g.shape()[0], g.shape()[1]];
        let (dg, du) = swiglu::backward(slice(&g), slice(&u), slice(&dy));
        (tensor(dg, shape), tensor(du, shape))
    }

    fn linear_forward(
        x: FlexTensor,
        w: FlexTensor,
        b: FlexTensor,
        act: Activation,
        stored: Stored,
    ) -> FlexTensor {
        let (x, w, b) = (dense(&x), dense(&w), dense(&b));
        let (n, inputs, outputs) = (x.shape()[0], x.shape()[1], b.shape()[0]);
        let mut y = Vec::with_capacity(n * outputs);
        for _ in 0..n {
            y.extend_from_slice(slice(&b));
        }
        let w = weight_of(slice(&w), inputs, outputs, stored);
        matmul(&mut y, Mat::new(slice(&x), n, inputs), w.t(), true);
        pulp::Arch::new().dispatch(|| match act {
            Activation::Identity => {}
            Activation::Relu => y.iter_mut().for_each(|v| *v = v.max(0.0)),
            Activation::Tanh => y.iter_mut().for_each(|v| *v = v.tanh()),
        });
        tensor(y, [n, outputs])
    }

    fn linear_backward(
        x: FlexTensor,
        w: FlexTensor,
        y: FlexTensor,
        dy: FlexTensor,
        act: Activation,
        stored: Stored,
        [wants_dx, wants_dw, wants_db]: [bool; 3],
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (x, w) = (dense(&x), dense(&w));
        let (n, inputs, outputs) = (x.shape()[0], x.shape()[1], dy.shape()[1]);
        let dy = by_pre_activation(&y, dy, act);
        let dz = slice(&dy);
        let dz_mat = Mat::new(dz, n, outputs);
        let x = Mat::new(slice(&x), n, inputs);
        let dw = match (wants_dw, stored) {
            (false, _) => Vec::new(),
            (true, Stored::OutIn) => product_of(dz_mat.t(), x),
            (true, Stored::InOut) => product_of(x.t(), dz_mat),
        };
        let db = match wants_db {
            true => column_sums(dz, outputs),
            false => Vec::new(),
        };
        let dx = if wants_dx {
            let w = weight_of(slice(&w), inputs, outputs, stored);
            tensor(product_of(dz_mat, w), [n, inputs])
        } else {
            tensor(Vec::new(), [0])
        };
        let vector = |values: Vec<f32>| {
            let size = values.len();
            tensor(values, [size])
        };
        (dx, vector(dw), vector(db))
    }
}

#[derive(Debug)]
struct Linear;

impl<B: FusedOps> Backward<B, 3> for Linear {
    type State = (
        FloatTensor<B>,
        FloatTensor<B>,
        FloatTensor<B>,
        Activation,
        Stored,
    );

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, w, y, act, stored) = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let wants = ops.parents.each_ref().map(Option::is_some);
        let (dx, dw, db) = B::linear_backward(x, w, y, dy, act, stored, wants);
        for (parent, gradient) in ops.parents.into_iter().zip([dx, dw, db]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: FusedOps, C: CheckpointStrategy> FusedOps for Autodiff<B, C> {
    fn linear_forward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        act: Activation,
        stored: Stored,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), w.node(), b.node()];
        let (x, w, b) = (x.into_primitive(), w.into_primitive(), b.into_primitive());
        match Linear.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::linear_forward(x.clone(), w.clone(), b, act, stored);
                // Without an activation the result is not needed again: it would only be held.
                let kept = match act {
                    Activation::Identity => x.clone(),
                    Activation::Relu | Activation::Tanh => y.clone(),
                };
                prep.finish((x, w, kept, act, stored), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::linear_forward(x, w, b, act, stored)),
        }
    }

    fn adapted_forward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        down: FloatTensor<Self>,
        up: FloatTensor<Self>,
        scale: f32,
        stored: Stored,
    ) -> FloatTensor<Self> {
        adapted::tracked::<B, C>([x, w, b, down, up], scale, stored)
    }

    fn convolution_forward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        shape: conv::Shape,
        act: Activation,
    ) -> FloatTensor<Self> {
        conv::tracked::<B, C>(x, w, b, shape, act)
    }

    fn batch_norm_forward(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        norm: Norm,
    ) -> FloatTensor<Self> {
        batch_norm::tracked::<B, C>(x, scale, shift, mean, variance, norm)
    }

    fn attend_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        scores: Scores,
    ) -> FloatTensor<Self> {
        attention::tracked::<B, C>(q, k, v, mask, scores)
    }

    fn rotary_forward(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        back: bool,
    ) -> FloatTensor<Self> {
        rotary::tracked::<B, C>(x, cos, sin, back)
    }

    fn gaussian_forward(x: FloatTensor<Self>, tanh: bool) -> FloatTensor<Self> {
        gelu::tracked::<B, C>(x, tanh)
    }

    fn row_norm_forward(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        kind: row_norm::Kind,
    ) -> FloatTensor<Self> {
        row_norm::tracked::<B, C>(x, scale, shift, kind)
    }

    fn max_pool_forward(x: FloatTensor<Self>, height: usize, width: usize) -> FloatTensor<Self> {
        pool::tracked::<B, C>(x, height, width)
    }

    fn swiglu_forward(g: FloatTensor<Self>, u: FloatTensor<Self>) -> FloatTensor<Self> {
        swiglu::tracked::<B, C>(g, u)
    }

    fn seed_gradient(z: FloatTensor<Self>, g: FloatTensor<Self>) -> FloatTensor<Self> {
        crate::seed::tracked::<B, C>(z, g)
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

    fn leaf<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
            .autodiff()
            .require_grad()
    }

    /// Values and gradients against the same function written with the engine's own operations.
    #[test]
    fn agrees_with_the_composed_version() {
        let acts = [Activation::Identity, Activation::Relu, Activation::Tanh];
        let ways = [Stored::OutIn, Stored::InOut];
        for (act, stored) in acts.into_iter().flat_map(|a| ways.map(|w| (a, w))) {
            for (n, inputs, outputs) in [(1, 1, 1), (5, 3, 7), (33, 65, 17)] {
                let run = |fused: bool| {
                    let x = leaf(noise(n * inputs, 1), [inputs, n]);
                    let w = leaf(noise(outputs * inputs, 2), [outputs * inputs]);
                    let b = leaf(noise(outputs, 3), [outputs]);
                    // A strided input: the transpose is a view.
                    let xt = x.clone().transpose();
                    let y = if fused {
                        fused_linear_of(xt, w.clone(), b.clone(), act, stored)
                    } else {
                        let wt = match stored {
                            Stored::OutIn => w.clone().reshape([outputs, inputs]).transpose(),
                            Stored::InOut => w.clone().reshape([inputs, outputs]),
                        };
                        let z = xt.matmul(wt) + b.clone().reshape([1, outputs]);
                        match act {
                            Activation::Identity => z,
                            Activation::Relu => burn::tensor::activation::relu(z),
                            Activation::Tanh => z.tanh(),
                        }
                    };
                    let weight = Tensor::<2>::from_data(
                        TensorData::new(noise(n * outputs, 4), [n, outputs]),
                        &Device::flex(),
                    );
                    let mut grads = (y.clone() * weight).sum().backward();
                    [
                        to_vec(&y),
                        to_vec(&x.grad_remove(&mut grads).expect("leaf")),
                        to_vec(&w.grad_remove(&mut grads).expect("leaf")),
                        to_vec(&b.grad_remove(&mut grads).expect("leaf")),
                    ]
                };
                for (fused, composed) in run(true).iter().zip(run(false).iter()) {
                    for (a, b) in fused.iter().zip(composed) {
                        assert!((a - b).abs() <= 2e-5 * (1.0 + b.abs()), "{a} and {b}");
                    }
                }
            }
        }
    }

    /// The gradient of the weights against finite differences of an f64 reference.
    #[test]
    fn agrees_with_finite_differences_in_f64() {
        let (n, inputs, outputs) = (4, 3, 2);
        let (x, w, b, g) = (
            noise(n * inputs, 5),
            noise(outputs * inputs, 6),
            noise(outputs, 7),
            noise(n * outputs, 8),
        );
        let loss = |w: &[f64]| -> f64 {
            let mut total = 0.0;
            for i in 0..n {
                for o in 0..outputs {
                    let z = f64::from(b[o])
                        + (0..inputs)
                            .map(|k| f64::from(x[i * inputs + k]) * w[o * inputs + k])
                            .sum::<f64>();
                    total += z.tanh() * f64::from(g[i * outputs + o]);
                }
            }
            total
        };
        let wt = leaf(w.clone(), [outputs * inputs]);
        let y = fused_linear(
            leaf(x.clone(), [n, inputs]),
            wt.clone(),
            leaf(b.clone(), [outputs]),
            Activation::Tanh,
        );
        let gt = Tensor::<2>::from_data(TensorData::new(g.clone(), [n, outputs]), &Device::flex());
        let mut grads = crate::seed(y, gt).backward();
        let dw = to_vec(&wt.grad_remove(&mut grads).expect("leaf"));
        let base: Vec<f64> = w.iter().map(|&v| f64::from(v)).collect();
        for (i, &d) in dw.iter().enumerate() {
            let h = 1e-6;
            let (mut up, mut down) = (base.clone(), base.clone());
            up[i] += h;
            down[i] -= h;
            let exact = (loss(&up) - loss(&down)) / (2.0 * h);
            assert!((f64::from(d) - exact).abs() < 1e-5, "{d} and {exact}");
        }
    }
}
