//! Fused operations with hand-written backward passes, in-place access to tensors, and the
//! inner loops of the optimizers.
//!
//! What is here exists because the composed version was measured to be slower or to fix the
//! bits later evidence rests on. Every operation has a composed fallback for devices other than
//! the CPU engine and a test against it.

pub mod adapted;
pub mod attention;
pub mod batch_norm;
pub mod conv;
pub mod gelu;
pub mod gemm;
pub mod linear;
pub mod optim;
pub mod pool;
pub mod reduce;
pub mod rotary;
pub mod row_norm;
pub mod seed;
pub mod slices;
pub mod swiglu;
mod vectorised;

pub use adapted::adapted_linear;
pub use attention::attention;
pub use batch_norm::{batch_norm, moments};
pub use conv::convolution;
pub use gelu::gelu;
pub use linear::{Activation, Stored, fused_linear, fused_linear_of};
pub use pool::max_pool;
pub use rotary::rotary;
pub use row_norm::row_norm;
pub use seed::seed;
pub use swiglu::swiglu;

#[cfg(test)]
mod fallbacks;

use burn::backend::{Backend, backend_extension, tensor::FloatTensor};

/// The fused operations a backend may override. The bodies given here are composed from the
/// backend's own operations, so every device has them.
#[backend_extension(Flex, Autodiff)]
pub trait FusedOps: Backend {
    /// `act(x wᵀ + b)`: `x` is `[n, in]`, `w` holds `out * in` values as `stored`, `b` holds `out`.
    fn linear_forward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        act: Activation,
        stored: Stored,
    ) -> FloatTensor<Self> {
        linear::composed_forward::<Self>(x, w, b, act, stored)
    }

    /// The gradients `(dx, dw, db)` of [`FusedOps::linear_forward`] from its output `y` and the
    /// gradient `dy` of it; `y` is not looked at without an activation. What is not wanted is an
    /// empty tensor.
    fn linear_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        y: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        act: Activation,
        stored: Stored,
        wants: [bool; 3],
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        linear::composed_backward::<Self>(x, w, y, dy, act, stored, wants)
    }

    /// The layer of [`adapted_linear`].
    fn adapted_forward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        down: FloatTensor<Self>,
        up: FloatTensor<Self>,
        scale: f32,
        stored: Stored,
    ) -> FloatTensor<Self> {
        Self::adapted_keeping(x, w, b, down, up, scale, stored).0
    }

    /// The same, and `scale x Aᵀ`, which its gradient needs.
    fn adapted_keeping(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        down: FloatTensor<Self>,
        up: FloatTensor<Self>,
        scale: f32,
        stored: Stored,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        adapted::composed::<Self>([x, w, b, down, up], scale, stored)
    }

    /// Its gradients by `x`, `w`, `b`, `down` and `up` from the gradient `dy` of its output and
    /// what was kept. What is not wanted is an empty tensor.
    // The macro reads the types as they stand here.
    #[allow(clippy::type_complexity)]
    fn adapted_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        down: FloatTensor<Self>,
        up: FloatTensor<Self>,
        u: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        scale: f32,
        stored: Stored,
        wants: [bool; 5],
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        let kept = [x, w, down, up, u];
        adapted::composed_backward::<Self>(kept, dy, scale, stored, wants).into()
    }

    /// `dy ⊙ act'`, where `act'` follows from the output `y`.
    fn by_pre_activation(
        y: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        act: Activation,
    ) -> FloatTensor<Self> {
        linear::composed_by_pre_activation::<Self>(y, dy, act)
    }

    /// The convolution of [`convolution`].
    fn convolution_forward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        shape: conv::Shape,
        act: Activation,
    ) -> FloatTensor<Self> {
        conv::composed_forward::<Self>(x, w, b, shape, act)
    }

    /// Its gradients `(dx, dw, db)` from the gradient `dz` before the activation. Where `wants_dx`
    /// is false the first is an empty tensor.
    fn convolution_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        dz: FloatTensor<Self>,
        shape: conv::Shape,
        wants_dx: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        conv::composed_backward::<Self>(x, w, dz, shape, wants_dx)
    }

    /// The normalisation of [`batch_norm`](batch_norm()).
    fn batch_norm_forward(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        norm: batch_norm::Norm,
    ) -> FloatTensor<Self> {
        batch_norm::composed_forward::<Self>(x, scale, shift, mean, variance, norm)
    }

    /// Its gradients by `x`, scale and shift from the gradient `dy` of its output.
    fn batch_norm_backward(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        norm: batch_norm::Norm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        batch_norm::composed_backward::<Self>(x, scale, shift, mean, variance, dy, norm)
    }

    /// The attention of [`attention`](attention()).
    fn attend_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        scores: attention::Scores,
    ) -> FloatTensor<Self> {
        attention::composed_forward::<Self>(q, k, v, mask, scores)
    }

    /// The same, and what its gradient needs beside operands and result.
    fn attend_keeping(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        scores: attention::Scores,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        attention::composed_keeping::<Self>(q, k, v, mask, scores)
    }

    /// Its gradients by queries, keys and values from the gradient `d_o` of its output `o`
    /// and what was kept.
    fn attend_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        o: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        d_o: FloatTensor<Self>,
        scores: attention::Scores,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _ = (o, kept);
        attention::composed_backward::<Self>([q, k, v, mask, d_o], scores)
    }

    /// The rotation of [`rotary`](rotary()), or `back`.
    fn rotary_forward(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        back: bool,
    ) -> FloatTensor<Self> {
        rotary::composed::<Self>(x, cos, sin, back)
    }

    /// `x Φ(x)`, or with `tanh` its approximation.
    fn gaussian_forward(x: FloatTensor<Self>, tanh: bool) -> FloatTensor<Self> {
        gelu::composed_forward::<Self>(x, tanh)
    }

    /// Its gradient from the gradient `dy` of its output.
    fn gaussian_backward(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        tanh: bool,
    ) -> FloatTensor<Self> {
        gelu::composed_backward::<Self>(x, dy, tanh)
    }

    /// The normalisation of [`row_norm`](row_norm()).
    fn row_norm_forward(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        kind: row_norm::Kind,
    ) -> FloatTensor<Self> {
        row_norm::composed_forward::<Self>(x, scale, shift, kind)
    }

    /// Its gradients by `x`, scale and shift from the gradient `dy` of its output.
    fn row_norm_backward(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        kind: row_norm::Kind,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        row_norm::composed_backward::<Self>(x, scale, dy, kind)
    }

    /// The pooling of [`max_pool`].
    fn max_pool_forward(x: FloatTensor<Self>, height: usize, width: usize) -> FloatTensor<Self> {
        pool::composed_forward::<Self>(x, height, width)
    }

    /// Its gradient from the gradient `dy` of its output.
    fn max_pool_backward(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        height: usize,
        width: usize,
    ) -> FloatTensor<Self> {
        pool::composed_backward::<Self>(x, dy, height, width)
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
