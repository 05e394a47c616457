//! Every composed fallback, run on the CPU engine, against that engine's own kernel.

use crate::attention::{self, Scores};
use crate::batch_norm::{self, Norm};
use crate::conv::{self, Shape};
use crate::linear::{self, Activation, Stored, slice, tensor};
use crate::{FusedOps, adapted, gelu, pool, rotary, row_norm, swiglu};
use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};

fn noise(shape: &[usize], seed: u32) -> FlexTensor {
    let mut s = seed;
    let mut next = || {
        s = s.wrapping_mul(1664525).wrapping_add(1013904223);
        (s >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let values = (0..shape.iter().product()).map(|_| next()).collect();
    tensor(values, shape.to_vec())
}

fn same<const N: usize>(what: &str, fused: [FlexTensor; N], composed: [FlexTensor; N]) {
    for (at, (a, b)) in fused.into_iter().zip(composed).enumerate() {
        let (a, b) = (a.to_contiguous(), b.to_contiguous());
        assert_eq!(
            a.shape().num_elements(),
            b.shape().num_elements(),
            "{what} {at}"
        );
        for (a, b) in slice(&a).iter().zip(slice(&b)) {
            let near = (a - b).abs() <= 1e-4 * (1.0 + b.abs());
            assert!(near, "{what} {at}: {a} and {b}");
        }
    }
}

#[test]
fn fallbacks_are_the_kernels() {
    let acts = [Activation::Identity, Activation::Relu, Activation::Tanh];
    for (act, stored) in acts
        .into_iter()
        .flat_map(|a| [(a, Stored::OutIn), (a, Stored::InOut)])
    {
        let (x, w, b) = (noise(&[5, 7], 1), noise(&[21], 2), noise(&[3], 3));
        let y = Flex::linear_forward(x.clone(), w.clone(), b.clone(), act, stored);
        let other = linear::composed_forward::<Flex>(x.clone(), w.clone(), b, act, stored);
        same("linear", [y.clone()], [other]);
        let dy = noise(&[5, 3], 4);
        let all = (x.clone(), w.clone(), y.clone(), dy.clone());
        let (a, b, c) = Flex::linear_backward(all.0, all.1, all.2, all.3, act, stored, [true; 3]);
        let (d, e, f) =
            linear::composed_backward::<Flex>(x, w, y.clone(), dy.clone(), act, stored, [true; 3]);
        same("linear, back", [a, b, c], [d, e, f]);
        let dz = Flex::by_pre_activation(y.clone(), dy.clone(), act);
        let other = linear::composed_by_pre_activation::<Flex>(y, dy, act);
        same("activation", [dz], [other]);
    }

    for stored in [Stored::OutIn, Stored::InOut] {
        let (x, w, b) = (noise(&[5, 7], 1), noise(&[21], 2), noise(&[3], 3));
        let (down, up, dy) = (noise(&[14], 5), noise(&[6], 6), noise(&[5, 3], 4));
        let of = || [&x, &w, &b, &down, &up].map(Clone::clone);
        let (y, u) = adapted::forward(of(), 0.5, stored);
        let (other, v) = adapted::composed::<Flex>(of(), 0.5, stored);
        same("adapted", [y, u.clone()], [other, v]);
        let kept = || [&x, &w, &down, &up, &u].map(Clone::clone);
        for wants in [[true; 5], [true, false, false, true, true]] {
            let back = adapted::backward(kept(), dy.clone(), 0.5, stored, wants);
            let other = adapted::composed_backward::<Flex>(kept(), dy.clone(), 0.5, stored, wants);
            same("adapted, back", back, other);
        }
    }

    let (g, u, dy) = (noise(&[4, 9], 1), noise(&[4, 9], 2), noise(&[4, 9], 3));
    let y = Flex::swiglu_forward(g.clone(), u.clone());
    same(
        "gate",
        [y],
        [swiglu::composed_forward::<Flex>(g.clone(), u.clone())],
    );
    let (a, b) = Flex::swiglu_backward(g.clone(), u.clone(), dy.clone());
    let (c, d) = swiglu::composed_backward::<Flex>(g, u, dy);
    same("gate, back", [a, b], [c, d]);

    for cap in [None, Some(0.8)] {
        let scores = Scores { scale: 0.7, cap };
        let q = noise(&[2, 5, 6, 4], 1);
        let [k, v] = [2, 3].map(|seed| noise(&[2, 5, 3, 4], seed));
        let hidden = |i: usize| {
            if i % 5 > i / 5 {
                f32::NEG_INFINITY
            } else {
                0.0
            }
        };
        let mask = tensor((0..25).map(hidden).collect(), [1, 1, 5, 5]);
        let d_o = noise(&[2, 5, 6, 4], 4);
        let all = || (q.clone(), k.clone(), v.clone(), mask.clone());
        let (a, b, c, d) = all();
        let (o, kept) = Flex::attend_keeping(a, b, c, d, scores);
        let (a, b, c, d) = all();
        let other = attention::composed_forward::<Flex>(a, b, c, d, scores);
        same("attention", [o.clone()], [other]);
        let (a, b, c, d) = all();
        let fused = Flex::attend_backward(a, b, c, d, o, kept, d_o.clone(), scores);
        let (a, b, c, d) = all();
        let other = attention::composed_backward::<Flex>([a, b, c, d, d_o], scores);
        same(
            "attention, back",
            [fused.0, fused.1, fused.2],
            [other.0, other.1, other.2],
        );
    }

    let (x, cos, sin) = (
        noise(&[2, 3, 4, 7], 1),
        noise(&[2, 1, 3, 2], 2),
        noise(&[2, 1, 3, 2], 3),
    );
    for back in [false, true] {
        let y = Flex::rotary_forward(x.clone(), cos.clone(), sin.clone(), back);
        let other = rotary::composed::<Flex>(x.clone(), cos.clone(), sin.clone(), back);
        same("rotation", [y], [other]);
    }

    let (x, dy) = (noise(&[6, 11], 1), noise(&[6, 11], 2));
    for tanh in [false, true] {
        let y = Flex::gaussian_forward(x.clone(), tanh);
        same(
            "gelu",
            [y],
            [gelu::composed_forward::<Flex>(x.clone(), tanh)],
        );
        let dx = Flex::gaussian_backward(x.clone(), dy.clone(), tanh);
        let other = gelu::composed_backward::<Flex>(x.clone(), dy.clone(), tanh);
        same("gelu, back", [dx], [other]);
    }

    for (centred, offset) in [(true, 0.0), (false, 1.0)] {
        let kind = row_norm::Kind {
            centred,
            eps: 1e-5,
            offset,
        };
        let (scale, shift) = (noise(&[11], 3), noise(&[11], 4));
        let y = Flex::row_norm_forward(x.clone(), scale.clone(), shift.clone(), kind);
        let other = row_norm::composed_forward::<Flex>(x.clone(), scale.clone(), shift, kind);
        same("row norm", [y], [other]);
        let (a, b, c) = Flex::row_norm_backward(x.clone(), scale.clone(), dy.clone(), kind);
        let other = row_norm::composed_backward::<Flex>(x.clone(), scale, dy.clone(), kind);
        same("row norm, back", [a, b, c], [other.0, other.1, other.2]);
    }

    for (stride, act) in [1, 1, 2].into_iter().zip(acts) {
        let s = Shape {
            images: 2,
            height: 6,
            width: 5,
            inputs: 4,
            outputs: 9,
            kernel: 3,
            stride,
        };
        let (x, w, b) = (noise(&[60, 4], 1), noise(&[4 * 9 * 9], 2), noise(&[9], 3));
        let y = Flex::convolution_forward(x.clone(), w.clone(), b.clone(), s, act);
        let rows = y.shape()[0];
        let other = conv::composed_forward::<Flex>(x.clone(), w.clone(), b, s, act);
        same("convolution", [y], [other]);
        let dz = noise(&[rows, 9], 4);
        let (a, b, c) = Flex::convolution_backward(x.clone(), w.clone(), dz.clone(), s, true);
        let (d, e, f) = conv::composed_backward::<Flex>(x, w, dz, s, true);
        same("convolution, back", [a, b, c], [d, e, f]);
    }

    for (of_these, relu) in [(true, true), (true, false), (false, true)] {
        let norm = Norm {
            of_these,
            eps: 1e-5,
            relu,
        };
        let x = noise(&[12, 5], 1);
        let [scale, shift, mean] = [2, 3, 4].map(|seed| noise(&[5], seed));
        let variance = tensor(vec![0.5, 1.0, 2.0, 0.1, 0.3], [5]);
        let all = || {
            (
                x.clone(),
                scale.clone(),
                shift.clone(),
                mean.clone(),
                variance.clone(),
            )
        };
        let (a, b, c, d, e) = all();
        let y = Flex::batch_norm_forward(a, b, c, d, e, norm);
        let (a, b, c, d, e) = all();
        let other = batch_norm::composed_forward::<Flex>(a, b, c, d, e, norm);
        same("batch norm", [y], [other]);
        let dy = noise(&[12, 5], 6);
        let (a, b, c, d, e) = all();
        let fused = Flex::batch_norm_backward(a, b, c, d, e, dy.clone(), norm);
        let (a, b, c, d, e) = all();
        let other = batch_norm::composed_backward::<Flex>(a, b, c, d, e, dy, norm);
        same(
            "batch norm, back",
            [fused.0, fused.1, fused.2],
            [other.0, other.1, other.2],
        );
    }

    let (x, dy) = (noise(&[2 * 5 * 4, 3], 1), noise(&[2 * 2 * 2, 3], 2));
    let y = Flex::max_pool_forward(x.clone(), 5, 4);
    same(
        "pooling",
        [y],
        [pool::composed_forward::<Flex>(x.clone(), 5, 4)],
    );
    let dx = Flex::max_pool_backward(x.clone(), dy.clone(), 5, 4);
    same(
        "pooling, back",
        [dx],
        [pool::composed_backward::<Flex>(x, dy, 5, 4)],
    );
}
