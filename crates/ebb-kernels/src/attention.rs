//! Attention with grouped queries that keeps no matrix of positions by positions.
//!
//! `o = softmax(cap(α q kᵀ) + mask) v`, `cap(s) = c tanh(s / c)`. A tile of queries at a time meets
//! the keys that it sees at all; what is kept for the way down is the logarithm of each query's sum
//! of exponentials (Dao et al. 2022). The gradient computes the tiles again.

use crate::FusedOps;
use crate::gemm::{Mat, product_into};
use crate::linear::{dense, slice, tensor};
use crate::swiglu::exp;
use crate::vectorised::vectorised;
use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{FloatDType, Tensor};
use pulp::Arch;
use rayon::prelude::*;
use std::ops::Range;

/// How scores are made of products.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// α.
    pub scale: f32,
    /// c, above which scores saturate; none: they do not.
    pub cap: Option<f32>,
}

/// Attention. Shapes: `q` `[rows, positions, heads, width]`, `k` and `v`
/// `[rows, keys, groups, width]` where `groups` divides `heads` and query head `h` reads key head
/// `h / (heads / groups)`; `mask` `[rows or 1, 1, positions, keys]` is added to the scores, outside
/// the graph. The result has the shape of `q`.
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: Tensor<4>,
    scores: Scores,
) -> Tensor<4> {
    let ([rows, positions, heads, width], [_, keys, groups, _]) = (q.dims(), k.dims());
    assert!(
        k.dims() == [rows, keys, groups, width] && v.dims() == k.dims(),
        "keys {:?} and values {:?} for queries {:?}",
        k.dims(),
        v.dims(),
        q.dims()
    );
    assert_eq!(heads % groups, 0, "{heads} heads in {groups} groups");
    let [masks, _, lines, columns] = mask.dims();
    assert!(
        (masks == 1 || masks == rows) && [lines, columns] == [positions, keys],
        "a mask {:?} for {rows} rows, {positions} positions and {keys} keys",
        mask.dims()
    );
    Tensor::from_dispatch(Dispatch::attend_forward(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        mask.into_dispatch(),
        scores,
    ))
}

/// Heads next to rows, one group a matrix: `[rows · groups, heads a group · positions, width]`.
fn stacked<B: Backend>(x: FloatTensor<B>, groups: usize) -> FloatTensor<B> {
    let [rows, positions, heads, width] = x.shape().dims();
    let x = B::float_permute(x, &[0, 2, 1, 3]);
    let each = heads / groups * positions;
    B::float_reshape(x, [rows, groups, each, width].into())
}

fn unstacked<B: Backend>(x: FloatTensor<B>, positions: usize) -> FloatTensor<B> {
    let [rows, groups, each, width] = x.shape().dims();
    let heads = groups * each / positions;
    let x = B::float_reshape(x, [rows, heads, positions, width].into());
    B::float_permute(x, &[0, 2, 1, 3])
}

fn transposed<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_swap_dims(x, 2, 3)
}

/// The pattern, `[rows, groups, heads a group · positions, keys]`, and the derivative of the cap.
fn composed_pattern<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    mask: FloatTensor<B>,
    scores: Scores,
) -> (FloatTensor<B>, Option<FloatTensor<B>>) {
    let ([rows, positions, heads, _], [_, keys, groups, _]) = (q.shape().dims(), k.shape().dims());
    let products = B::float_matmul(
        B::float_mul_scalar(stacked::<B>(q, groups), scores.scale.into()),
        transposed::<B>(stacked::<B>(k, groups)),
    );
    let (s, slope) = match scores.cap {
        Some(c) => {
            let t = B::float_tanh(B::float_div_scalar(products, c.into()));
            let square = B::float_mul(t.clone(), t.clone());
            let slope = B::float_add_scalar(B::float_neg(square), 1.0f32.into());
            (B::float_mul_scalar(t, c.into()), Some(slope))
        }
        None => (products, None),
    };
    let s = B::float_reshape(s, [rows, heads, positions, keys].into());
    let s = B::float_add(s, mask);
    let p = B::softmax(s, 3);
    let each = heads / groups * positions;
    (
        B::float_reshape(p, [rows, groups, each, keys].into()),
        slope,
    )
}

pub(crate) fn composed_forward<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    mask: FloatTensor<B>,
    scores: Scores,
) -> FloatTensor<B> {
    let ([_, positions, _, _], [_, _, groups, _]): ([usize; 4], [usize; 4]) =
        (q.shape().dims(), k.shape().dims());
    let (p, _) = composed_pattern::<B>(q, k, mask, scores);
    unstacked::<B>(B::float_matmul(p, stacked::<B>(v, groups)), positions)
}

pub(crate) fn composed_backward<B: Backend>(
    [q, k, v, mask, d_o]: [FloatTensor<B>; 5],
    scores: Scores,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let ([_, positions, _, _], [_, keys, groups, _]): ([usize; 4], [usize; 4]) =
        (q.shape().dims(), k.shape().dims());
    let (p, slope) = composed_pattern::<B>(q.clone(), k.clone(), mask, scores);
    let [q, k, v, d_o] = [q, k, v, d_o].map(|x| stacked::<B>(x, groups));
    let dv = B::float_matmul(transposed::<B>(p.clone()), d_o.clone());
    let dp = B::float_matmul(d_o, transposed::<B>(v));
    let level = B::float_sum_dim(B::float_mul(p.clone(), dp.clone()), 3);
    let ds = B::float_mul(p, B::float_sub(dp, level));
    let ds = match slope {
        Some(slope) => B::float_mul(ds, slope),
        None => ds,
    };
    let ds = B::float_mul_scalar(ds, scores.scale.into());
    let dq = B::float_matmul(ds.clone(), k);
    let dk = B::float_matmul(transposed::<B>(ds), q);
    (
        unstacked::<B>(dq, positions),
        unstacked::<B>(dk, keys),
        unstacked::<B>(dv, keys),
    )
}

/// Queries that meet keys at a time.
const TILE: usize = 64;

/// The numbers of one call.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    positions: usize,
    keys: usize,
    heads: usize,
    groups: usize,
    width: usize,
    masks: usize,
}

impl Sizes {
    fn of(q: &FlexTensor, k: &FlexTensor, mask: &FlexTensor) -> Self {
        let ([rows, positions, heads, width], [_, keys, groups, _]) =
            (q.shape().dims(), k.shape().dims());
        Self {
            rows,
            positions,
            keys,
            heads,
            groups,
            width,
            masks: mask.shape()[0],
        }
    }

    /// Query heads of a group.
    fn each(&self) -> usize {
        self.heads / self.groups
    }

    /// Every row's groups, of which one is one piece of work.
    fn pieces(&self) -> Vec<(usize, usize)> {
        let groups = 0..self.groups;
        let of = |row: usize| groups.clone().map(move |group| (row, group));
        (0..self.rows).flat_map(of).collect()
    }

    fn tiles(&self) -> impl Iterator<Item = Range<usize>> {
        let all = self.positions;
        (0..all)
            .step_by(TILE)
            .map(move |at| at..(at + TILE).min(all))
    }

    /// A head of queries, positions `of`.
    fn queries<'a>(&self, x: &'a [f32], row: usize, head: usize, of: &Range<usize>) -> Mat<'a> {
        let line = self.heads * self.width;
        let from = (row * self.positions + of.start) * line + head * self.width;
        Mat::strided(&x[from..], of.len(), self.width, line)
    }

    /// A head of keys or values, keys `of`.
    fn keys<'a>(&self, x: &'a [f32], row: usize, group: usize, of: &Range<usize>) -> Mat<'a> {
        let line = self.groups * self.width;
        let from = (row * self.keys + of.start) * line + group * self.width;
        Mat::strided(&x[from..], of.len(), self.width, line)
    }

    fn mask<'a>(&self, mask: &'a [f32], row: usize, query: usize) -> &'a [f32] {
        let row = if self.masks == 1 { 0 } else { row };
        &mask[(row * self.positions + query) * self.keys..][..self.keys]
    }

    /// From the first to the last key that a query of every tile sees, by row of the mask.
    fn seen(&self, mask: &[f32]) -> Vec<Vec<Range<usize>>> {
        let of = |row: usize, queries: Range<usize>| {
            let (mut first, mut last) = (self.keys, 0);
            for query in queries {
                let line = self.mask(mask, row, query);
                let open = |m: &f32| *m > f32::NEG_INFINITY;
                if let Some(at) = line.iter().position(open) {
                    first = first.min(at);
                    last = last.max(line.iter().rposition(open).map_or(0, |at| at + 1));
                }
            }
            first.min(last)..last
        };
        let row = |row: usize| self.tiles().map(|queries| of(row, queries)).collect();
        (0..self.masks).map(row).collect()
    }
}

/// What `exp` gives for less than this is no number of an f32's usual range; here it is 0.
const LEAST: f32 = -87.0;

vectorised!(
/// Scores of one query become exponentials of what they are above their greatest; both numbers
/// that follow for the query are written to `found`: the greatest and the sum.
Softmax { s: &'a mut [f32], mask: &'a [f32], cap: Option<f32>, found: &'a mut (f32, f32) } {
    if let Some(c) = cap {
        s.iter_mut().for_each(|s| *s = c * (*s / c).tanh());
    }
    let n = s.len();
    let mask = &mask[..n];
    let mut most = [f32::NEG_INFINITY; 16];
    let whole = n / 16 * 16;
    for at in (0..whole).step_by(16) {
        for l in 0..16 {
            let v = s[at + l] + mask[at + l];
            s[at + l] = v;
            most[l] = if v > most[l] { v } else { most[l] };
        }
    }
    let mut greatest = f32::NEG_INFINITY;
    for i in whole..n {
        s[i] += mask[i];
        greatest = greatest.max(s[i]);
    }
    greatest = most.iter().fold(greatest, |a, b| a.max(*b));
    let level = if greatest > f32::NEG_INFINITY { greatest } else { 0.0 };
    let mut sums = [0.0f32; 16];
    for at in (0..whole).step_by(16) {
        for l in 0..16 {
            let d = s[at + l] - level;
            let e = if d < LEAST { 0.0 } else { exp(d) };
            s[at + l] = e;
            sums[l] += e;
        }
    }
    let mut sum = sums.iter().sum::<f32>();
    for s in &mut s[whole..] {
        let d = *s - level;
        *s = if d < LEAST { 0.0 } else { exp(d) };
        sum += *s;
    }
    *found = (level, sum);
});

vectorised!(
/// Scores of one query become its pattern, as the logarithm of the sum says; `slope` the
/// derivative of the cap where there is one.
Pattern {
    s: &'a mut [f32],
    slope: &'a mut [f32],
    mask: &'a [f32],
    cap: Option<f32>,
    log_sum: f32,
} {
    if let Some(c) = cap {
        for (s, slope) in s.iter_mut().zip(slope.iter_mut()) {
            let t = (*s / c).tanh();
            *slope = 1.0 - t * t;
            *s = c * t;
        }
    }
    for (s, mask) in s.iter_mut().zip(mask) {
        let d = *s + mask - log_sum;
        *s = if d < LEAST { 0.0 } else { exp(d) };
    }
});

vectorised!(
/// `ds = α p ⊙ (dp − level) ⊙ slope`, in the place of `dp`.
Down { dp: &'a mut [f32], p: &'a [f32], slope: Option<&'a [f32]>, level: f32, scale: f32 } {
    match slope {
        None => {
            for (d, p) in dp.iter_mut().zip(p) {
                *d = scale * (p * (*d - level));
            }
        }
        Some(slope) => {
            for (d, (p, slope)) in dp.iter_mut().zip(p.iter().zip(slope)) {
                *d = scale * (p * (*d - level)) * slope;
            }
        }
    }
});

vectorised!(Divide { x: &'a mut [f32], by: f32 } {
    let by = 1.0 / by;
    x.iter_mut().for_each(|x| *x *= by);
});

/// The result and each query's logarithm of its sum, `[rows, groups, heads a group, positions]`.
pub(crate) fn forward(
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    mask: FlexTensor,
    scores: Scores,
) -> (FlexTensor, FlexTensor) {
    let [q, k, v, mask] = [q, k, v, mask].map(|t| dense(&t));
    let z = Sizes::of(&q, &k, &mask);
    let (q, k, v, mask) = (slice(&q), slice(&k), slice(&v), slice(&mask));
    let seen = z.seen(mask);
    let (each, line) = (z.each(), z.each() * z.width);
    let pieces: Vec<(Vec<f32>, Vec<f32>)> = z
        .pieces()
        .into_par_iter()
        .map(|(row, group)| {
            let mut out = vec![0.0f32; z.positions * line];
            let mut log_sums = vec![0.0f32; each * z.positions];
            let mut s = vec![0.0f32; TILE * z.keys];
            let arch = Arch::new();
            let ranges = &seen[if z.masks == 1 { 0 } else { row }];
            for (queries, keys) in z.tiles().zip(ranges) {
                let n = keys.len();
                let (k, v) = (z.keys(k, row, group, keys), z.keys(v, row, group, keys));
                for h in 0..each {
                    let q = z.queries(q, row, group * each + h, &queries);
                    product_into(&mut s, n, q, k.t(), false, scores.scale);
                    let mut sums = [1.0f32; TILE];
                    for (i, query) in queries.clone().enumerate() {
                        let mut found = (0.0, 0.0);
                        arch.dispatch(Softmax {
                            s: &mut s[i * n..][..n],
                            mask: &z.mask(mask, row, query)[keys.clone()],
                            cap: scores.cap,
                            found: &mut found,
                        });
                        sums[i] = found.1;
                        log_sums[h * z.positions + query] = found.0 + found.1.ln();
                    }
                    let to = &mut out[queries.start * line + h * z.width..];
                    let p = Mat::new(&s, queries.len(), n);
                    product_into(to, line, p, v, false, 1.0);
                    for (i, sum) in sums[..queries.len()].iter().enumerate() {
                        let x = &mut to[i * line..][..z.width];
                        // A query that sees nothing says nothing.
                        let by = if *sum > 0.0 { *sum } else { 1.0 };
                        arch.dispatch(Divide { x, by });
                    }
                }
            }
            (out, log_sums)
        })
        .collect();
    let mut all = vec![0.0f32; z.rows * z.positions * z.heads * z.width];
    let mut log_sums = Vec::with_capacity(z.rows * z.heads * z.positions);
    for ((row, group), (out, sums)) in z.pieces().into_iter().zip(pieces) {
        spread(&mut all, &out, z.positions, [row, group, z.groups], line);
        log_sums.extend(sums);
    }
    (
        tensor(all, [z.rows, z.positions, z.heads, z.width]),
        tensor(log_sums, [z.rows, z.groups, each, z.positions]),
    )
}

/// Puts one group's lines among those of the others.
fn spread(
    all: &mut [f32],
    one: &[f32],
    positions: usize,
    [row, group, groups]: [usize; 3],
    line: usize,
) {
    for (at, from) in one.chunks_exact(line.max(1)).enumerate() {
        let to = ((row * positions + at) * groups + group) * line;
        all[to..][..line].copy_from_slice(from);
    }
}

/// The gradients by queries, keys and values.
pub(crate) fn backward(
    operands: [FlexTensor; 6],
    d_o: FlexTensor,
    scores: Scores,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let [q, k, v, mask, o, log_sums] = operands.map(|t| dense(&t));
    let d_o = dense(&d_o);
    let z = Sizes::of(&q, &k, &mask);
    let (q, k, v, mask) = (slice(&q), slice(&k), slice(&v), slice(&mask));
    let (o, log_sums, d_o) = (slice(&o), slice(&log_sums), slice(&d_o));
    let seen = z.seen(mask);
    let (each, line) = (z.each(), z.each() * z.width);
    let pieces: Vec<[Vec<f32>; 3]> = z
        .pieces()
        .into_par_iter()
        .map(|(row, group)| {
            let mut dq = vec![0.0f32; z.positions * line];
            let [mut dk, mut dv] = [(); 2].map(|()| vec![0.0f32; z.keys * z.width]);
            let [mut p, mut dp] = [(); 2].map(|()| vec![0.0f32; TILE * z.keys]);
            let mut slope = vec![
                0.0f32;
                if scores.cap.is_some() {
                    TILE * z.keys
                } else {
                    0
                }
            ];
            let arch = Arch::new();
            let ranges = &seen[if z.masks == 1 { 0 } else { row }];
            for (queries, keys) in z.tiles().zip(ranges) {
                let n = keys.len();
                let (k, v) = (z.keys(k, row, group, keys), z.keys(v, row, group, keys));
                for h in 0..each {
                    let head = group * each + h;
                    let q = z.queries(q, row, head, &queries);
                    let d = z.queries(d_o, row, head, &queries);
                    let o = z.queries(o, row, head, &queries);
                    product_into(&mut p, n, q, k.t(), false, scores.scale);
                    product_into(&mut dp, n, d, v.t(), false, 1.0);
                    for (i, query) in queries.clone().enumerate() {
                        let at = ((row * z.groups + group) * each + h) * z.positions + query;
                        let lines = i * n..(i + 1) * n;
                        let bent = scores.cap.is_some();
                        let slopes = if bent { lines.clone() } else { 0..0 };
                        arch.dispatch(Pattern {
                            s: &mut p[lines.clone()],
                            slope: &mut slope[slopes.clone()],
                            mask: &z.mask(mask, row, query)[keys.clone()],
                            cap: scores.cap,
                            log_sum: log_sums[at],
                        });
                        let level = d.line(i).iter().zip(o.line(i));
                        let level = level.fold(0.0f32, |sum, (a, b)| sum + a * b);
                        arch.dispatch(Down {
                            dp: &mut dp[lines.clone()],
                            p: &p[lines],
                            slope: bent.then_some(&slope[slopes]),
                            level,
                            scale: scores.scale,
                        });
                    }
                    let (p, ds) = (
                        Mat::new(&p, queries.len(), n),
                        Mat::new(&dp, queries.len(), n),
                    );
                    let to = &mut dq[queries.start * line + h * z.width..];
                    product_into(to, line, ds, k, false, 1.0);
                    let from = keys.start * z.width;
                    product_into(&mut dk[from..], z.width, ds.t(), q, true, 1.0);
                    product_into(&mut dv[from..], z.width, p.t(), d, true, 1.0);
                }
            }
            [dq, dk, dv]
        })
        .collect();
    let mut dq = vec![0.0f32; z.rows * z.positions * z.heads * z.width];
    let [mut dk, mut dv] = [(); 2].map(|()| vec![0.0f32; z.rows * z.keys * z.groups * z.width]);
    for ((row, group), [q, k, v]) in z.pieces().into_iter().zip(pieces) {
        let place = [row, group, z.groups];
        spread(&mut dq, &q, z.positions, place, line);
        spread(&mut dk, &k, z.keys, place, z.width);
        spread(&mut dv, &v, z.keys, place, z.width);
    }
    let by_keys = [z.rows, z.keys, z.groups, z.width];
    (
        tensor(dq, [z.rows, z.positions, z.heads, z.width]),
        tensor(dk, by_keys),
        tensor(dv, by_keys),
    )
}

#[derive(Debug)]
struct Attention;

impl<B: FusedOps> Backward<B, 3> for Attention {
    type State = ([FloatTensor<B>; 6], Scores);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ([q, k, v, mask, o, kept], scores) = ops.state;
        let d_o = grads.consume::<B>(&ops.node);
        let (dq, dk, dv) = B::attend_backward(q, k, v, mask, o, kept, d_o, scores);
        for (parent, gradient) in ops.parents.into_iter().zip([dq, dk, dv]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

pub(crate) fn tracked<B: FusedOps, C: CheckpointStrategy>(
    q: FloatTensor<Autodiff<B, C>>,
    k: FloatTensor<Autodiff<B, C>>,
    v: FloatTensor<Autodiff<B, C>>,
    mask: FloatTensor<Autodiff<B, C>>,
    scores: Scores,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = [q.node(), k.node(), v.node()];
    let [q, k, v, mask] = [q, k, v, mask].map(|t| t.into_primitive());
    match Attention.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (o, sums) =
                B::attend_keeping(q.clone(), k.clone(), v.clone(), mask.clone(), scores);
            prep.finish(([q, k, v, mask, o.clone(), sums], scores), o)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::attend_forward(q, k, v, mask, scores)),
    }
}

/// Nothing is kept by devices that compute the pattern anew.
pub(crate) fn composed_keeping<B: FusedOps>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    mask: FloatTensor<B>,
    scores: Scores,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let nothing = B::float_zeros([0].into(), &q.device(), FloatDType::F32);
    (B::attend_forward(q, k, v, mask, scores), nothing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slices::to_vec;
    use burn::tensor::{Device, TensorData, activation};

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut s = seed;
        let mut next = || {
            s = s.wrapping_mul(1664525).wrapping_add(1013904223);
            (s >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    fn leaf(values: Vec<f32>, shape: [usize; 4]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
            .autodiff()
            .require_grad()
    }

    /// Values and gradients against the equation in the engine's own operations: groups, caps,
    /// windows, a mask a row, tiles that are not full, more keys than queries, strided operands.
    #[test]
    fn agrees_with_the_composed_version() {
        for (rows, t, s, h, g, d, window, cap, masks) in [
            (1, 1, 1, 1, 1, 2, 9, None, 1),
            (2, 7, 7, 4, 2, 3, 99, None, 1),
            (2, 130, 130, 3, 3, 8, 99, None, 2),
            (1, 100, 100, 2, 1, 5, 20, Some(0.7), 1),
            (2, 5, 70, 6, 3, 4, 999, Some(2.0), 2),
        ] {
            let scores = Scores { scale: 1.3, cap };
            let mut mask = Vec::new();
            for row in 0..masks {
                for i in 0..t {
                    // What lies ahead is hidden, and what lies too far back; one row hides a key
                    // more.
                    let at = s - t + i;
                    let hides =
                        |j: usize| j > at || j + window < at || (row == 1 && j == 1 && at > 1);
                    mask.extend((0..s).map(|j| if hides(j) { f32::NEG_INFINITY } else { 0.0 }));
                }
            }
            let mask =
                Tensor::<4>::from_data(TensorData::new(mask, [masks, 1, t, s]), &Device::flex());
            let run = |fused: bool| {
                // Strided: heads and positions in the other order.
                let q = leaf(noise(rows * t * h * d, 1), [rows, h, t, d]);
                let k = leaf(noise(rows * s * g * d, 2), [rows, g, s, d]);
                let v = leaf(noise(rows * s * g * d, 3), [rows, g, s, d]);
                let o = if fused {
                    let [q, k, v] = [&q, &k, &v].map(|x| x.clone().swap_dims(1, 2));
                    attention(q, k, v, mask.clone().autodiff(), scores)
                } else {
                    let repeat = |x: &Tensor<4>| {
                        x.clone()
                            .reshape([rows, g, 1, s * d])
                            .repeat_dim(2, h / g)
                            .reshape([rows, h, s, d])
                    };
                    let z = q.clone().matmul(repeat(&k).swap_dims(2, 3)) * 1.3;
                    let z = match cap {
                        Some(c) => (z / c).tanh() * c,
                        None => z,
                    };
                    let p = activation::softmax(z + mask.clone().autodiff(), 3);
                    p.matmul(repeat(&v)).swap_dims(1, 2)
                };
                let shape = [rows, t, h, d];
                let data = TensorData::new(noise(rows * t * h * d, 4), shape);
                let by = Tensor::<4>::from_data(data, &Device::flex());
                let mut grads = (o.clone() * by).sum().backward();
                [
                    to_vec(&o),
                    to_vec(&q.grad_remove(&mut grads).expect("a leaf")),
                    to_vec(&k.grad_remove(&mut grads).expect("a leaf")),
                    to_vec(&v.grad_remove(&mut grads).expect("a leaf")),
                ]
            };
            for (what, (fused, composed)) in run(true).iter().zip(&run(false)).enumerate() {
                assert_eq!(fused.len(), composed.len());
                for (a, b) in fused.iter().zip(composed) {
                    let near = (a - b).abs() <= 2e-5 * (1.0 + b.abs());
                    assert!(near, "{t} {s} {h} {g} {what}: {a} and {b}");
                }
            }
        }
    }

    #[test]
    fn one_thread_and_two_give_the_same_bits() {
        let z = [2, 70, 4, 8];
        let [q, k, v, d] = [1, 2, 3, 4].map(|seed| tensor(noise(2 * 70 * 32, seed), z));
        let hidden = |i: usize| {
            if i % 70 > i / 70 {
                f32::NEG_INFINITY
            } else {
                0.0
            }
        };
        let mask = tensor((0..70 * 70).map(hidden).collect(), [1, 1, 70, 70]);
        let scores = Scores {
            scale: 0.5,
            cap: None,
        };
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("a pool").install(|| {
                let (o, sums) = forward(q.clone(), k.clone(), v.clone(), mask.clone(), scores);
                let operands = [&q, &k, &v, &mask, &o, &sums].map(Clone::clone);
                let (a, b, c) = backward(operands, d.clone(), scores);
                [o, a, b, c].map(|t| slice(&t).to_vec())
            })
        };
        assert!(on(1) == on(2));
    }
}
