//! Convolution of images with their channels last, with its backward in one operation.
//!
//! `y[n, i, j, o] = act(b[o] + Σ_{k, l, c} w[o, c, k, l] · x[n, s·i + k − p, s·j + l − p, c])`,
//! `p = kernel / 2`. Images are matrices `[images · height · width, channels]`, so that a channel's
//! statistics are a column's and what acts on single numbers needs to know no shape. The library's
//! own convolution unrolls every window in memory, which for few channels takes longer than the
//! products.

mod direct;

use crate::FusedOps;
use crate::linear::{Activation, dense, slice, tensor};
use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, tensor::FloatTensor};
use burn::tensor::Tensor;
use burn::tensor::ops::ConvOptions;

/// The shape of a convolution with as many zeros around an image as keep its size at stride 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Images.
    pub images: usize,
    /// Height of an image.
    pub height: usize,
    /// Width of an image.
    pub width: usize,
    /// Channels of an image.
    pub inputs: usize,
    /// Channels of the result.
    pub outputs: usize,
    /// Height and width of the window, odd.
    pub kernel: usize,
    /// Lines and columns from one window to the next.
    pub stride: usize,
}

impl Shape {
    /// Zeros on each side of an image.
    pub fn pad(&self) -> usize {
        self.kernel / 2
    }

    /// Height and width of the result.
    pub fn out(&self) -> [usize; 2] {
        [self.height, self.width].map(|n| (n + 2 * self.pad() - self.kernel) / self.stride + 1)
    }

    fn options(&self) -> ConvOptions<2> {
        ConvOptions::new([self.stride; 2], [self.pad(); 2], [1, 1], 1)
    }
}

/// Convolution. Shapes: `x` `[images · height · width, inputs]`, `w`
/// `[outputs · inputs · kernel²]` as the usual `[outputs, inputs, kernel, kernel]`, `b` `[outputs]`;
/// the result is `[images · out height · out width, outputs]`.
pub fn convolution(
    x: Tensor<2>,
    w: Tensor<1>,
    b: Tensor<1>,
    shape: Shape,
    act: Activation,
) -> Tensor<2> {
    let s = &shape;
    let window = s.inputs * s.kernel * s.kernel;
    assert_eq!(
        (x.dims(), w.dims(), b.dims()),
        (
            [s.images * s.height * s.width, s.inputs],
            [s.outputs * window],
            [s.outputs]
        ),
        "the operands of {s:?}"
    );
    assert!(s.kernel % 2 == 1 && s.stride > 0, "no such window: {s:?}");
    Tensor::from_dispatch(Dispatch::convolution_forward(
        x.into_dispatch(),
        w.into_dispatch(),
        b.into_dispatch(),
        shape,
        act,
    ))
}

/// `[n · h · w, c]` as the library has it, `[n, c, h, w]`.
fn channels_first<B: Backend>(x: FloatTensor<B>, n: usize, [h, w]: [usize; 2]) -> FloatTensor<B> {
    let c = x.shape()[1];
    B::float_permute(B::float_reshape(x, [n, h, w, c].into()), &[0, 3, 1, 2])
}

fn channels_last<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let [n, c, h, w] = x.shape().dims();
    B::float_reshape(B::float_permute(x, &[0, 2, 3, 1]), [n * h * w, c].into())
}

pub(crate) fn composed_forward<B: Backend>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    b: FloatTensor<B>,
    s: Shape,
    act: Activation,
) -> FloatTensor<B> {
    let x = channels_first::<B>(x, s.images, [s.height, s.width]);
    let w = B::float_reshape(w, [s.outputs, s.inputs, s.kernel, s.kernel].into());
    let z = channels_last::<B>(B::conv2d(x, w, Some(b), s.options()));
    match act {
        Activation::Identity => z,
        Activation::Relu => B::relu(z),
        Activation::Tanh => B::float_tanh(z),
    }
}

pub(crate) fn composed_backward<B: Backend>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    dz: FloatTensor<B>,
    s: Shape,
    wants_dx: bool,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let x = channels_first::<B>(x, s.images, [s.height, s.width]);
    let w = B::float_reshape(w, [s.outputs, s.inputs, s.kernel, s.kernel].into());
    let db = B::float_reshape(B::float_sum_dim(dz.clone(), 0), [s.outputs].into());
    let dz = channels_first::<B>(dz, s.images, s.out());
    let dx = match wants_dx {
        true => channels_last::<B>(B::conv2d_x_backward(
            x.clone(),
            w.clone(),
            dz.clone(),
            s.options(),
        )),
        false => B::float_zeros([0].into(), &dz.device(), dz.dtype().into()),
    };
    let size = w.shape().num_elements();
    let dw = B::conv2d_weight_backward(x, w, dz, s.options());
    (dx, B::float_reshape(dw, [size].into()), db)
}

pub(crate) fn forward(
    x: FlexTensor,
    w: FlexTensor,
    b: FlexTensor,
    s: Shape,
    act: Activation,
) -> FlexTensor {
    let (x, w, b) = (dense(&x), dense(&w), dense(&b));
    let relu = act == Activation::Relu;
    let mut y = direct::forward(&s, slice(&x), slice(&w), slice(&b), relu);
    if act == Activation::Tanh {
        y.iter_mut().for_each(|v| *v = v.tanh());
    }
    let [height, width] = s.out();
    tensor(y, [s.images * height * width, s.outputs])
}

pub(crate) fn backward(
    x: FlexTensor,
    w: FlexTensor,
    dz: FlexTensor,
    s: Shape,
    wants_dx: bool,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let (x, w, dz) = (dense(&x), dense(&w), dense(&dz));
    let (dw, db) = direct::by_weight(&s, slice(&x), slice(&dz));
    let dx = match wants_dx {
        true => tensor(
            direct::by_image(&s, slice(&w), slice(&dz)),
            [s.images * s.height * s.width, s.inputs],
        ),
        false => tensor(Vec::new(), [0]),
    };
    let (size, outputs) = (dw.len(), db.len());
    (dx, tensor(dw, [size]), tensor(db, [outputs]))
}

#[derive(Debug)]
struct Convolution;

impl<B: FusedOps> Backward<B, 3> for Convolution {
    type State = (
        FloatTensor<B>,
        FloatTensor<B>,
        Option<FloatTensor<B>>,
        Shape,
        Activation,
    );

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, w, y, shape, act) = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let dz = match y {
            Some(y) => B::by_pre_activation(y, dy, act),
            None => dy,
        };
        let [to_x, to_w, to_b] = ops.parents;
        let (dx, dw, db) = B::convolution_backward(x, w, dz, shape, to_x.is_some());
        for (parent, gradient) in [(to_x, dx), (to_w, dw), (to_b, db)] {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

pub(crate) fn tracked<B: FusedOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    w: FloatTensor<Autodiff<B, C>>,
    b: FloatTensor<Autodiff<B, C>>,
    shape: Shape,
    act: Activation,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = [x.node(), w.node(), b.node()];
    let (x, w, b) = (x.into_primitive(), w.into_primitive(), b.into_primitive());
    match Convolution.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let y = B::convolution_forward(x.clone(), w.clone(), b, shape, act);
            let kept = (act != Activation::Identity).then(|| y.clone());
            prep.finish((x, w, kept, shape, act), y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::convolution_forward(x, w, b, shape, act)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slices::to_vec;
    use burn::tensor::{Device, TensorData, module};

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut s = seed;
        let mut next = || {
            s = s.wrapping_mul(1664525).wrapping_add(1013904223);
            (s >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    fn leaf<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
            .autodiff()
            .require_grad()
    }

    /// (images, height, width, inputs, outputs, kernel, stride): few channels and many, sizes that
    /// fill no tile and no vector, both windows, both strides on odd and even sizes.
    const SHAPES: [[usize; 7]; 9] = [
        [1, 1, 1, 1, 1, 3, 1],
        [2, 5, 7, 1, 3, 3, 1],
        [3, 8, 8, 3, 32, 3, 1],
        [2, 6, 11, 8, 33, 3, 1],
        [9, 4, 9, 20, 40, 3, 1],
        [2, 8, 8, 16, 20, 3, 2],
        [2, 7, 9, 5, 6, 3, 2],
        [2, 8, 6, 16, 32, 1, 2],
        [2, 5, 5, 9, 10, 1, 1],
    ];

    fn shape([images, height, width, inputs, outputs, kernel, stride]: [usize; 7]) -> Shape {
        Shape {
            images,
            height,
            width,
            inputs,
            outputs,
            kernel,
            stride,
        }
    }

    /// Values and gradients against the engine's own convolution, from a strided operand.
    #[test]
    fn agrees_with_the_composed_version() {
        for of in SHAPES {
            for act in [Activation::Identity, Activation::Relu, Activation::Tanh] {
                let s = shape(of);
                let [h, w] = s.out();
                let pixels = s.images * s.height * s.width;
                let window = s.inputs * s.kernel * s.kernel;
                let run = |fused: bool| {
                    let x = leaf(noise(pixels * s.inputs, 1), [s.inputs, pixels]);
                    let weight = leaf(noise(s.outputs * window, 2), [s.outputs * window]);
                    let bias = leaf(noise(s.outputs, 3), [s.outputs]);
                    // Strided: the transpose is a view.
                    let xt = x.clone().transpose();
                    let y = if fused {
                        convolution(xt, weight.clone(), bias.clone(), s, act)
                    } else {
                        let image = xt.reshape([s.images, s.height, s.width, s.inputs]);
                        let filters = [s.outputs, s.inputs, s.kernel, s.kernel];
                        let z = module::conv2d(
                            image.permute([0, 3, 1, 2]),
                            weight.clone().reshape(filters),
                            Some(bias.clone()),
                            s.options(),
                        );
                        let z = z.permute([0, 2, 3, 1]);
                        let z = z.reshape([s.images * h * w, s.outputs]);
                        match act {
                            Activation::Identity => z,
                            Activation::Relu => burn::tensor::activation::relu(z),
                            Activation::Tanh => z.tanh(),
                        }
                    };
                    let [rows, columns] = y.dims();
                    let data = TensorData::new(noise(rows * columns, 4), [rows, columns]);
                    let by = Tensor::<2>::from_data(data, &Device::flex());
                    let mut grads = (y.clone() * by).sum().backward();
                    [
                        to_vec(&y),
                        to_vec(&x.grad_remove(&mut grads).expect("a leaf")),
                        to_vec(&weight.grad_remove(&mut grads).expect("a leaf")),
                        to_vec(&bias.grad_remove(&mut grads).expect("a leaf")),
                    ]
                };
                for (what, (fused, composed)) in run(true).iter().zip(&run(false)).enumerate() {
                    assert_eq!(fused.len(), composed.len());
                    for (a, b) in fused.iter().zip(composed) {
                        let near = (a - b).abs() <= 5e-5 * (1.0 + b.abs());
                        assert!(near, "{s:?} {act:?} {what}: {a} and {b}");
                    }
                }
            }
        }
    }

    /// Against the equation, in f64, and its gradients (it is linear in each operand).
    #[test]
    fn agrees_with_the_equation_in_f64() {
        for of in SHAPES {
            let s = shape(of);
            let [height, width] = s.out();
            let (xs, ws, bs) = (
                noise(s.images * s.height * s.width * s.inputs, 5),
                noise(s.outputs * s.inputs * s.kernel * s.kernel, 6),
                noise(s.outputs, 7),
            );
            let dys = noise(s.images * height * width * s.outputs, 8);
            let mut y = vec![0.0f64; dys.len()];
            let (mut dx, mut dw) = (vec![0.0f64; xs.len()], vec![0.0f64; ws.len()]);
            let mut db = vec![0.0f64; bs.len()];
            for at in 0..dys.len() {
                let (o, pixel) = (at % s.outputs, at / s.outputs);
                let (j, i) = (pixel % width, pixel / width % height);
                let n = pixel / width / height;
                y[at] += f64::from(bs[o]);
                db[o] += f64::from(dys[at]);
                for k in 0..s.kernel {
                    for l in 0..s.kernel {
                        let (p, q) = (i * s.stride + k, j * s.stride + l);
                        let (p, q) = (p.wrapping_sub(s.pad()), q.wrapping_sub(s.pad()));
                        if p >= s.height || q >= s.width {
                            continue;
                        }
                        for c in 0..s.inputs {
                            let from = ((n * s.height + p) * s.width + q) * s.inputs + c;
                            let by = ((o * s.inputs + c) * s.kernel + k) * s.kernel + l;
                            y[at] += f64::from(xs[from]) * f64::from(ws[by]);
                            dx[from] += f64::from(dys[at]) * f64::from(ws[by]);
                            dw[by] += f64::from(dys[at]) * f64::from(xs[from]);
                        }
                    }
                }
            }
            let found = direct::forward(&s, &xs, &ws, &bs, false);
            let (found_dw, found_db) = direct::by_weight(&s, &xs, &dys);
            let found_dx = direct::by_image(&s, &ws, &dys);
            for (found, want) in [(found, y), (found_dx, dx), (found_dw, dw), (found_db, db)] {
                assert_eq!(found.len(), want.len());
                for (a, b) in found.iter().zip(&want) {
                    assert!((f64::from(*a) - b).abs() < 3e-5, "{s:?}: {a} and {b}");
                }
            }
        }
    }

    #[test]
    fn one_thread_and_two_give_the_same_bits() {
        let s = shape([11, 6, 5, 9, 17, 3, 1]);
        let (x, dy) = (noise(11 * 30 * 9, 1), noise(11 * 30 * 17, 2));
        let (w, b) = (noise(17 * 81, 3), noise(17, 4));
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("a pool").install(|| {
                let (dw, db) = direct::by_weight(&s, &x, &dy);
                let y = direct::forward(&s, &x, &w, &b, true);
                (y, direct::by_image(&s, &w, &dy), dw, db)
            })
        };
        assert!(on(1) == on(2));
    }
}
