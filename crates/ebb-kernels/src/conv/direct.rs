//! The loops of the convolution, on slices, channels last.
//!
//! One image at a time is laid out with its border in a buffer that stays in the cache; a tile of
//! pixels times two vectors of channels then stays in registers while the window is summed. Each
//! number is one chain of fused multiply-adds in a fixed order, whatever the width of the vectors
//! and the number of threads.

use super::Shape;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Vectors of channels in a tile.
const V: usize = 2;
/// Channels below which the window is laid out pixel by pixel, so that tiles are full.
const FEW: usize = 8;
/// Parts of a batch whose gradients are summed apart, then in order.
const PARTS: usize = 8;

/// An image with its border, as the loops walk through it.
struct Walk {
    /// Numbers of the laid-out image.
    size: usize,
    /// From one line of results to the next, and from one result to the next.
    line: usize,
    step: usize,
    /// Where each position of the window begins, from a result's first number on.
    offsets: Vec<usize>,
    /// Numbers of a position, side by side.
    depth: usize,
}

/// What a buffer holds before it is summed.
#[derive(Clone, Copy)]
struct Source {
    height: usize,
    width: usize,
    channels: usize,
    /// Lines and columns from one number to the next in the bordered image: more than one where
    /// gradients of a strided convolution are spread out.
    spread: usize,
    border: usize,
    /// Of the bordered image.
    lines: usize,
    columns: usize,
    kernel: usize,
    stride: usize,
    out: [usize; 2],
}

impl Source {
    /// The image of a forward pass.
    fn of(s: &Shape) -> Self {
        let pad = s.pad();
        Self {
            height: s.height,
            width: s.width,
            channels: s.inputs,
            spread: 1,
            border: pad,
            lines: s.height + 2 * pad,
            columns: s.width + 2 * pad,
            kernel: s.kernel,
            stride: s.stride,
            out: s.out(),
        }
    }

    /// The gradient of its result, spread out so that the gradient of the image is a convolution
    /// with stride 1.
    fn of_gradient(s: &Shape) -> Self {
        let [height, width] = s.out();
        Self {
            height,
            width,
            channels: s.outputs,
            spread: s.stride,
            stride: 1,
            out: [s.height, s.width],
            ..Self::of(s)
        }
    }

    /// Whether every result has its whole window laid out.
    fn by_window(&self) -> bool {
        self.channels < FEW && self.kernel > 1
    }

    fn walk(&self) -> Walk {
        let positions = self.kernel * self.kernel;
        if self.by_window() {
            let depth = positions * self.channels;
            return Walk {
                size: self.out[0] * self.out[1] * depth,
                line: self.out[1] * depth,
                step: depth,
                offsets: vec![0],
                depth,
            };
        }
        let at = |k: usize| (k / self.kernel * self.columns + k % self.kernel) * self.channels;
        Walk {
            size: self.lines * self.columns * self.channels,
            line: self.stride * self.columns * self.channels,
            step: self.stride * self.channels,
            offsets: (0..positions).map(at).collect(),
            depth: self.channels,
        }
    }

    /// Lays an image out; what lies beside it in `into` is zero and stays so.
    fn lay(&self, image: &[f32], into: &mut [f32]) {
        let c = self.channels;
        if !self.by_window() {
            for y in 0..self.height {
                let line = &image[y * self.width * c..][..self.width * c];
                let start = ((self.border + y * self.spread) * self.columns + self.border) * c;
                if self.spread == 1 {
                    into[start..start + line.len()].copy_from_slice(line);
                    continue;
                }
                for (x, pixel) in line.chunks_exact(c).enumerate() {
                    into[start + x * self.spread * c..][..c].copy_from_slice(pixel);
                }
            }
            return;
        }
        let mut windows = into.chunks_exact_mut(self.kernel * self.kernel * c);
        for y in 0..self.out[0] {
            for (x, window) in (0..self.out[1]).zip(&mut windows) {
                for ky in 0..self.kernel {
                    for kx in 0..self.kernel {
                        let to = &mut window[(ky * self.kernel + kx) * c..][..c];
                        let (py, px) = (y * self.stride + ky, x * self.stride + kx);
                        let place = |p: usize, size: usize| {
                            let q = p.checked_sub(self.border)?;
                            (q % self.spread == 0 && q / self.spread < size)
                                .then_some(q / self.spread)
                        };
                        match (place(py, self.height), place(px, self.width)) {
                            (Some(sy), Some(sx)) => {
                                to.copy_from_slice(&image[(sy * self.width + sx) * c..][..c]);
                            }
                            _ => to.fill(0.0),
                        }
                    }
                }
            }
        }
    }
}

/// The result of a convolution, `[images, out height, out width, outputs]`.
pub(super) fn forward(s: &Shape, x: &[f32], w: &[f32], bias: &[f32], relu: bool) -> Vec<f32> {
    let positions = s.kernel * s.kernel;
    let weight = |k: usize, c: usize, o: usize| w[(o * s.inputs + c) * positions + k];
    run(&Source::of(s), x, s.outputs, &weight, bias, relu)
}

/// The gradient by the image, from that by the result.
pub(super) fn by_image(s: &Shape, w: &[f32], dy: &[f32]) -> Vec<f32> {
    let positions = s.kernel * s.kernel;
    // What a number of the image gave to results is gathered by the window turned round.
    let weight =
        |k: usize, o: usize, c: usize| w[(o * s.inputs + c) * positions + positions - 1 - k];
    let bias = vec![0.0; s.inputs];
    run(&Source::of_gradient(s), dy, s.inputs, &weight, &bias, false)
}

fn run(
    source: &Source,
    x: &[f32],
    outputs: usize,
    weight: &(dyn Fn(usize, usize, usize) -> f32 + Sync),
    bias: &[f32],
    relu: bool,
) -> Vec<f32> {
    struct Run<'a> {
        source: &'a Source,
        x: &'a [f32],
        outputs: usize,
        weight: &'a (dyn Fn(usize, usize, usize) -> f32 + Sync),
        bias: &'a [f32],
        relu: bool,
    }
    impl WithSimd for Run<'_> {
        type Output = Vec<f32>;

        fn with_simd<S: Simd>(self, _: S) -> Vec<f32> {
            let Self {
                source, outputs, ..
            } = self;
            let block = V * S::F32_LANES;
            let blocks = outputs.div_ceil(block);
            let rows = source.kernel * source.kernel * source.channels;
            let mut packed = vec![0.0; blocks * rows * block];
            for o in 0..outputs {
                let into = &mut packed[o / block * rows * block + o % block..];
                for row in 0..rows {
                    let (k, c) = (row / source.channels, row % source.channels);
                    into[row * block] = (self.weight)(k, c, o);
                }
            }
            let mut bias = self.bias.to_vec();
            bias.resize(blocks * block, 0.0);
            let walk = source.walk();
            let (from, to) = (
                source.height * source.width * source.channels,
                source.out[0] * source.out[1] * outputs,
            );
            let mut y = vec![0.0; self.x.len() / from * to];
            y.par_chunks_exact_mut(to)
                .zip(self.x.par_chunks_exact(from))
                .for_each_init(
                    || vec![0.0; walk.size],
                    |laid, (y, x)| {
                        source.lay(x, laid);
                        Arch::new().dispatch(Image {
                            walk: &walk,
                            laid,
                            packed: &packed,
                            bias: &bias,
                            out: source.out,
                            outputs,
                            relu: self.relu,
                            y,
                        });
                    },
                );
            y
        }
    }
    Arch::new().dispatch(Run {
        source,
        x,
        outputs,
        weight,
        bias,
        relu,
    })
}

/// One image of a forward pass.
struct Image<'a> {
    walk: &'a Walk,
    laid: &'a [f32],
    /// `[block of channels][window][channels of a block]`.
    packed: &'a [f32],
    bias: &'a [f32],
    out: [usize; 2],
    outputs: usize,
    relu: bool,
    y: &'a mut [f32],
}

impl WithSimd for Image<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // 8 x 2 sums of 512 bits, or 6 x 2 of 256, fill the registers.
        match S::F32_LANES {
            16 => self.tiles::<S, 8>(simd),
            _ => self.tiles::<S, 6>(simd),
        }
    }
}

impl Image<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const M: usize>(mut self, simd: S) {
        let block = V * S::F32_LANES;
        let rows = self.walk.offsets.len() * self.walk.depth;
        for first in (0..self.outputs).step_by(block) {
            let packed = &self.packed[first / block * rows * block..][..rows * block];
            let (weights, _) = S::as_simd_f32s(packed);
            for y in 0..self.out[0] {
                let mut x = 0;
                while x + M <= self.out[1] {
                    self.tile::<S, M>(simd, weights, first, y, x);
                    x += M;
                }
                match self.out[1] - x {
                    0 => {}
                    1 => self.tile::<S, 1>(simd, weights, first, y, x),
                    2 => self.tile::<S, 2>(simd, weights, first, y, x),
                    3 => self.tile::<S, 3>(simd, weights, first, y, x),
                    4 => self.tile::<S, 4>(simd, weights, first, y, x),
                    5 => self.tile::<S, 5>(simd, weights, first, y, x),
                    6 => self.tile::<S, 6>(simd, weights, first, y, x),
                    _ => self.tile::<S, 7>(simd, weights, first, y, x),
                }
            }
        }
    }

    /// `M` results side by side, of a block of channels.
    #[inline(always)]
    fn tile<S: Simd, const M: usize>(
        &mut self,
        simd: S,
        weights: &[S::f32s],
        first: usize,
        y: usize,
        x: usize,
    ) {
        let Walk {
            line, step, depth, ..
        } = *self.walk;
        let block = V * S::F32_LANES;
        let (bias, _) = S::as_simd_f32s(&self.bias[first..][..block]);
        let mut sums = [[bias[0], bias[1]]; M];
        let start = y * line + x * step;
        for (offset, weights) in self
            .walk
            .offsets
            .iter()
            .zip(weights.chunks_exact(depth * V))
        {
            let pixels: [&[f32]; M] =
                std::array::from_fn(|m| &self.laid[start + offset + m * step..][..depth]);
            let weights = &weights.as_chunks::<V>().0[..depth];
            for c in 0..depth {
                let w = weights[c];
                for m in 0..M {
                    let value = simd.splat_f32s(pixels[m][c]);
                    for v in 0..V {
                        sums[m][v] = simd.mul_add_f32s(value, w[v], sums[m][v]);
                    }
                }
            }
        }
        if self.relu {
            let zero = simd.splat_f32s(0.0);
            for sum in &mut sums {
                *sum = sum.map(|v| simd.max_f32s(v, zero));
            }
        }
        let here = block.min(self.outputs - first);
        let at = (y * self.out[1] + x) * self.outputs + first;
        for (m, sums) in sums.iter().enumerate() {
            let to = &mut self.y[at + m * self.outputs..][..here];
            store::<S>(to, sums);
        }
    }
}

/// Writes as many numbers as there is room for.
#[inline(always)]
fn store<S: Simd>(to: &mut [f32], values: &[S::f32s; V]) {
    let (whole, _) = S::as_mut_simd_f32s(to);
    if let [a, b] = whole {
        (*a, *b) = (values[0], values[1]);
        return;
    }
    for (v, to) in to.chunks_mut(S::F32_LANES).enumerate() {
        let mut one = [0.0f32; 64];
        S::as_mut_simd_f32s(&mut one).0[0] = values[v];
        to.copy_from_slice(&one[..to.len()]);
    }
}

/// The gradients by weight, `[outputs, inputs, kernel, kernel]`, and by bias.
pub(super) fn by_weight(s: &Shape, x: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
    struct Run<'a>(&'a Shape, &'a [f32], &'a [f32]);
    impl WithSimd for Run<'_> {
        type Output = (Vec<f32>, Vec<f32>);

        fn with_simd<S: Simd>(self, _: S) -> Self::Output {
            let Run(s, x, dy) = self;
            let source = Source::of(s);
            let walk = source.walk();
            let [height, width] = source.out;
            let (from, to) = (s.height * s.width * s.inputs, height * width * s.outputs);
            let rows = s.kernel * s.kernel * s.inputs;
            let padded = s.outputs.next_multiple_of(V * S::F32_LANES);
            let each = s.images.div_ceil(PARTS).max(1);
            let parts: Vec<(Vec<f32>, Vec<f32>)> = x
                .par_chunks(each * from)
                .zip(dy.par_chunks(each * to))
                .map(|(x, dy)| {
                    let mut laid = vec![0.0; walk.size];
                    let mut wide = vec![
                        0.0;
                        if padded == s.outputs {
                            0
                        } else {
                            height * width * padded
                        }
                    ];
                    let mut sums = vec![0.0; rows * padded];
                    let mut bias = vec![0.0; padded];
                    for (x, dy) in x.chunks_exact(from).zip(dy.chunks_exact(to)) {
                        source.lay(x, &mut laid);
                        let dy = match padded == s.outputs {
                            true => dy,
                            false => {
                                let lines = wide.chunks_exact_mut(padded);
                                for (to, from) in lines.zip(dy.chunks_exact(s.outputs)) {
                                    to[..s.outputs].copy_from_slice(from);
                                }
                                &wide
                            }
                        };
                        Arch::new().dispatch(Outer {
                            walk: &walk,
                            laid: &laid,
                            dy,
                            out: source.out,
                            padded,
                            sums: &mut sums,
                            bias: &mut bias,
                        });
                    }
                    (sums, bias)
                })
                .collect();
            let mut all = parts.into_iter();
            let (mut sums, mut bias) = all
                .next()
                .unwrap_or_else(|| (vec![0.0; rows * padded], vec![0.0; padded]));
            for (more, more_bias) in all {
                sums.iter_mut().zip(more).for_each(|(a, b)| *a += b);
                bias.iter_mut().zip(more_bias).for_each(|(a, b)| *a += b);
            }
            bias.truncate(s.outputs);
            let positions = s.kernel * s.kernel;
            let mut dw = vec![0.0; s.outputs * rows];
            for (o, dw) in dw.chunks_exact_mut(rows).enumerate() {
                for (c, dw) in dw.chunks_exact_mut(positions).enumerate() {
                    for (k, dw) in dw.iter_mut().enumerate() {
                        *dw = sums[(k * s.inputs + c) * padded + o];
                    }
                }
            }
            (dw, bias)
        }
    }
    Arch::new().dispatch(Run(s, x, dy))
}

/// One image's share of the gradient by the weights: sums of products over its pixels.
struct Outer<'a> {
    walk: &'a Walk,
    laid: &'a [f32],
    /// `[out height, out width, padded]`.
    dy: &'a [f32],
    out: [usize; 2],
    padded: usize,
    /// `[window, padded]`.
    sums: &'a mut [f32],
    bias: &'a mut [f32],
}

impl WithSimd for Outer<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.tiles::<S, 8>(simd),
            _ => self.tiles::<S, 6>(simd),
        }
    }
}

impl Outer<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const M: usize>(mut self, simd: S) {
        let vectors = self.padded / S::F32_LANES;
        let (dy, _) = S::as_simd_f32s(self.dy);
        let (bias, _) = S::as_mut_simd_f32s(self.bias);
        for pixel in dy.chunks_exact(vectors) {
            for (sum, &d) in bias.iter_mut().zip(pixel) {
                *sum = simd.add_f32s(*sum, d);
            }
        }
        let depth = self.walk.depth;
        for first in (0..vectors).step_by(V) {
            for (k, offset) in self.walk.offsets.iter().enumerate() {
                let mut c = 0;
                let mut next = |m: usize| {
                    c += m;
                    (offset + c - m, (k * depth + c - m) * vectors + first)
                };
                for _ in 0..depth / M {
                    let (offset, to) = next(M);
                    self.tile::<S, M>(simd, dy, first, offset, to);
                }
                let rest = depth % M;
                let (offset, to) = next(rest);
                match rest {
                    0 => {}
                    1 => self.tile::<S, 1>(simd, dy, first, offset, to),
                    2 => self.tile::<S, 2>(simd, dy, first, offset, to),
                    3 => self.tile::<S, 3>(simd, dy, first, offset, to),
                    4 => self.tile::<S, 4>(simd, dy, first, offset, to),
                    5 => self.tile::<S, 5>(simd, dy, first, offset, to),
                    6 => self.tile::<S, 6>(simd, dy, first, offset, to),
                    _ => self.tile::<S, 7>(simd, dy, first, offset, to),
                }
            }
        }
    }

    /// `M` rows of the gradient, from the channels at `offset` on, into the vectors from `to` on.
    #[inline(always)]
    fn tile<S: Simd, const M: usize>(
        &mut self,
        simd: S,
        dy: &[S::f32s],
        first: usize,
        offset: usize,
        to: usize,
    ) {
        let vectors = self.padded / S::F32_LANES;
        let [height, width] = self.out;
        let mut sums = [[simd.splat_f32s(0.0); V]; M];
        for y in 0..height {
            let line = &self.laid[y * self.walk.line + offset..];
            let dy = &dy[y * width * vectors + first..];
            for x in 0..width {
                let pixel = &line[x * self.walk.step..][..M];
                let d = &dy[x * vectors..][..V];
                for m in 0..M {
                    let value = simd.splat_f32s(pixel[m]);
                    for v in 0..V {
                        sums[m][v] = simd.mul_add_f32s(value, d[v], sums[m][v]);
                    }
                }
            }
        }
        let (all, _) = S::as_mut_simd_f32s(self.sums);
        for (m, sums) in sums.iter().enumerate() {
            for (to, &sum) in all[to + m * vectors..][..V].iter_mut().zip(sums) {
                *to = simd.add_f32s(*to, sum);
            }
        }
    }
}
