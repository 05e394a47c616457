//! Fused operations with hand-written backward passes, in-place access to tensors, and the
//! inner loops of the optimizers.
//!
//! What is here exists because the composed version was measured to be slower or to fix the
//! bits later evidence rests on. Every operation has a composed fallback for devices other than
//! the CPU engine and a test against it.

pub mod gemm;
pub mod linear;
pub mod optim;
pub mod reduce;
pub mod seed;
pub mod slices;
pub mod swiglu;

pub use linear::{Activation, fused_linear};
pub use seed::seed;
pub use swiglu::swiglu;

use burn::backend::{Backend, backend_extension, tensor::FloatTensor};

/// The fused operations a backend may override. The bodies given here are composed from the
/// backend's own operations, so every device has them.
#[backend_extension(Flex, Autodiff)]
pub trait FusedOps: Backend {
    /// `act(x wᵀ + b)`: `x` is `[n, in]`, `w` holds `out * in` values row by row, `b` holds `out`.
    fn linear_forward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        act: Activation,
    ) -> FloatTensor<Self> {
        linear::composed_forward::<Self>(x, w, b, act)
    }

    /// The gradients `(dx, dw, db)` of [`FusedOps::linear_forward`] from its output `y` and the
    /// gradient `dy` of it. Where `wants_dx` is false the first is an empty tensor.
    fn linear_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        y: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        act: Activation,
        wants_dx: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        linear::composed_backward::<Self>(x, w, y, dy, act, wants_dx)
    }

    /// `g σ(g) ⊙ u`, all of one shape, `[n, k]`.
    fn swiglu_forward(g: FloatTensor<Self>, u: FloatTensor<Self>) -> FloatTensor<Self> {
        swiglu::composed_forward::<Self>(g, u)
    }

    /// The gradients `(dg, du)` of [`FusedOps::swiglu_forward`] from the gradient `dy` of its
    /// output.
    fn swiglu_backward(
        g: FloatTensor<Self>,
        u: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        swiglu::composed_backward::<Self>(g, u, dy)
    }

    /// A scalar zero whose gradient with respect to `z` is `g` (same shape as `z`).
    fn seed_gradient(z: FloatTensor<Self>, g: FloatTensor<Self>) -> FloatTensor<Self> {
        seed::zero_like::<Self>(z, g)
    }
}
