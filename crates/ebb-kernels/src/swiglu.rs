//! The gate of a feed-forward layer: `y = g σ(g) ⊙ u`, with its backward in one pass.
//!
//! Composed, it makes five tensors of the layer's inner width on the way up and as many on the way
//! down, one of them with a scalar exponential. Here each direction is one pass over its operands
//! with a vectorised exponential, on all threads.

use crate::FusedOps;
use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{Autodiff, Backend, Dispatch, tensor::FloatTensor};
use burn::tensor::Tensor;
use rayon::prelude::*;

/// `g σ(g) ⊙ u`, all of one shape.
pub fn swiglu(g: Tensor<2>, u: Tensor<2>) -> Tensor<2> {
    assert_eq!(
        g.dims(),
        u.dims(),
        "the gate has the shape of what it gates"
    );
    Tensor::from_dispatch(Dispatch::swiglu_forward(
        g.into_dispatch(),
        u.into_dispatch(),
    ))
}

pub(crate) fn composed_forward<B: Backend>(g: FloatTensor<B>, u: FloatTensor<B>) -> FloatTensor<B> {
    let open = B::float_mul(g.clone(), B::sigmoid(g));
    B::float_mul(open, u)
}

pub(crate) fn composed_backward<B: Backend>(
    g: FloatTensor<B>,
    u: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let s = B::sigmoid(g.clone());
    let open = B::float_mul(g.clone(), s.clone());
    let du = B::float_mul(dy.clone(), open.clone());
    // σ + g σ (1 − σ) = σ + gσ − gσ σ
    let rest = B::float_sub(open.clone(), B::float_mul(open, s.clone()));
    let slope = B::float_add(s, rest);
    (B::float_mul(B::float_mul(dy, u), slope), du)
}

/// Values that one thread takes at a time.
const PIECE: usize = 1 << 14;

pub(crate) fn forward(g: &[f32], u: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0f32; g.len()];
    let piece = |(y, (g, u)): (&mut [f32], (&[f32], &[f32]))| {
        pulp::Arch::new().dispatch(|| {
            for ((y, &g), &u) in y.iter_mut().zip(g).zip(u) {
                *y = g * sigmoid(g) * u;
            }
        });
    };
    let operands = g.par_chunks(PIECE).zip(u.par_chunks(PIECE));
    y.par_chunks_mut(PIECE).zip(operands).for_each(piece);
    y
}

pub(crate) fn backward(g: &[f32], u: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mut dg, mut du) = (vec![0.0f32; g.len()], vec![0.0f32; g.len()]);
    let operands = g.par_chunks(PIECE).zip(u.par_chunks(PIECE));
    let operands = operands.zip(dy.par_chunks(PIECE));
    let into = dg.par_chunks_mut(PIECE).zip(du.par_chunks_mut(PIECE));
    into.zip(operands).for_each(|((dg, du), ((g, u), dy))| {
        pulp::Arch::new().dispatch(|| {
            let into = dg.iter_mut().zip(du.iter_mut());
            for (((dg, du), (&g, &u)), &dy) in into.zip(g.iter().zip(u)).zip(dy) {
                let s = sigmoid(g);
                let open = g * s;
                *du = dy * open;
                *dg = dy * u * (s + open * (1.0 - s));
            }
        });
    });
    (dg, du)
}

#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `e^x` to about two units in the last place, without a branch. Beyond what an f32 holds it stays
/// at the smallest normal number, or at the largest power.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding and taking off 3·2²² rounds to a whole number.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.336_5, 88.722_8);
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let y = p * (r * r) + r + 1.0;
    // 2ⁿ in two factors, so that n = 128 does not overflow.
    let half = (n as i32) >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) as u32) << 23);
    y * power(half) * power(n as i32 - half)
}

#[derive(Debug)]
struct Swiglu;

impl<B: FusedOps> Backward<B, 2> for Swiglu {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (g, u) = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let (dg, du) = B::swiglu_backward(g, u, dy);
        for (parent, gradient) in ops.parents.into_iter().zip([dg, du]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

pub(crate) fn tracked<B: FusedOps, C: CheckpointStrategy>(
    g: FloatTensor<Autodiff<B, C>>,
    u: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = [g.node(), u.node()];
    let (g, u) = (g.into_primitive(), u.into_primitive());
    match Swiglu.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let y = B::swiglu_forward(g.clone(), u.clone());
            prep.finish((g, u), y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::swiglu_forward(g, u)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slices::to_vec;
    use burn::tensor::{Device, TensorData, activation};

    #[test]
    fn the_exponential_is_that_of_f64() {
        let mut worst = 0.0f64;
        let mut x = -87.0f32;
        while x < 88.5 {
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / want - 1.0).abs());
            x += 0.000_71;
        }
        assert!(worst < 3e-7, "{worst:e}");
        assert!(exp(-1e30) < 2e-38 && exp(1e30).is_finite());
        assert!((exp(f32::NAN)).is_nan());
    }

    /// Values and gradients against the composed form in the engine's own operations, on odd
    /// shapes and a strided operand, and against finite differences in f64.
    #[test]
    fn agrees_with_the_composed_version_and_with_f64() {
        let noise = |n: usize, seed: u32| -> Vec<f32> {
            let mut s = seed;
            let mut next = || {
                s = s.wrapping_mul(1664525).wrapping_add(1013904223);
                (s >> 8) as f32 / (1 << 22) as f32 - 2.0
            };
            (0..n).map(|_| next()).collect()
        };
        let leaf = |values: Vec<f32>, shape: [usize; 2]| {
            Tensor::<2>::from_data(TensorData::new(values, shape), &Device::flex())
                .autodiff()
                .require_grad()
        };
        for (n, k) in [(1, 1), (3, 7), (65, 300)] {
            let (gate, up, by) = (noise(n * k, 1), noise(n * k, 2), noise(n * k, 3));
            let run = |fused: bool| {
                // Strided: the transpose is a view.
                let (g, u) = (leaf(gate.clone(), [k, n]), leaf(up.clone(), [n, k]));
                let t = g.clone().transpose();
                let y = match fused {
                    true => swiglu(t, u.clone()),
                    false => activation::silu(t) * u.clone(),
                };
                let data = TensorData::new(by.clone(), [n, k]);
                let weight = Tensor::<2>::from_data(data, &Device::flex());
                let mut grads = (y.clone() * weight).sum().backward();
                [
                    to_vec(&y),
                    to_vec(&g.grad_remove(&mut grads).expect("a leaf")),
                    to_vec(&u.grad_remove(&mut grads).expect("a leaf")),
                ]
            };
            for (fused, composed) in run(true).iter().zip(&run(false)) {
                for (a, b) in fused.iter().zip(composed) {
                    assert!((a - b).abs() <= 2e-6 * (1.0 + b.abs()), "{a} and {b}");
                }
            }
        }
        let f = |g: f64, u: f64| g / (1.0 + (-g).exp()) * u;
        let (g, u, h) = (0.7, -1.3, 1e-6);
        let (dg, du) = backward(&[g as f32], &[u as f32], &[1.0]);
        let by = |up: f64, down: f64| (up - down) / (2.0 * h);
        assert!((f64::from(dg[0]) - by(f(g + h, u), f(g - h, u))).abs() < 1e-6);
        assert!((f64::from(du[0]) - by(f(g, u + h), f(g, u - h))).abs() < 1e-6);
    }
}
