//! Starting a backward pass from a gradient computed outside the graph.
//!
//! The algebra of losses computes value and gradient at the logits (or features) by closed
//! form, on the host. `seed` hands that gradient to the graph: a scalar whose derivative with
//! respect to `z` is exactly `g`, moved and not copied.

use crate::FusedOps;
use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind, unary},
};
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, tensor::FloatTensor};
use burn::tensor::Tensor;

/// A scalar zero whose gradient with respect to `z` is `g`. Shapes: `z` and `g` `[n, k]`.
pub fn seed(z: Tensor<2>, g: Tensor<2>) -> Tensor<1> {
    assert_eq!(z.dims(), g.dims(), "a gradient has the shape of its tensor");
    Tensor::from_dispatch(Dispatch::seed_gradient(
        z.into_dispatch(),
        g.into_dispatch(),
    ))
}

pub(crate) fn zero_like<B: Backend>(z: FloatTensor<B>, _g: FloatTensor<B>) -> FloatTensor<B> {
    B::float_zeros([1].into(), &z.device(), z.dtype().into())
}

#[derive(Debug)]
struct Seed;

impl<B: Backend> Backward<B, 1> for Seed {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let g = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |_| g);
    }
}

pub(crate) fn tracked<B: FusedOps, C: CheckpointStrategy>(
    z: FloatTensor<Autodiff<B, C>>,
    g: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let zero = zero_like::<B>(z.primitive().clone(), z.primitive().clone());
    match Seed.prepare::<C>([z.node()]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(g.into_primitive(), zero),
        OpsKind::UnTracked(prep) => prep.finish(zero),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slices::to_vec;
    use burn::tensor::Device;

    #[test]
    fn the_gradient_is_the_one_given() {
        let device = Device::flex();
        let x = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0]], &device)
            .autodiff()
            .require_grad();
        let z = x.clone() * 2.0;
        let g = Tensor::<2>::from_floats([[1.0, -1.0], [0.5, 0.0]], &device);
        let mut grads = seed(z, g).backward();
        let dx = x.grad_remove(&mut grads).expect("x is a leaf");
        assert_eq!(to_vec(&dx), [2.0, -2.0, 1.0, 0.0]);
    }
}
