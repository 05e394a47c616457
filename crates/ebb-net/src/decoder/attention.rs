//! Causal attention with grouped queries.
//!
//! **Equation.** `softmax(cap(α q kᵀ) + mask) v` with `cap(s) = c · tanh(s / c)` where a network
//! caps its scores. Query heads that share a key head are stacked along the positions, so that no
//! key and no value is repeated in memory.

use super::cache::KeysValues;
use super::linear::{Around, Linear};
use super::norm::Norm;
use super::rope::Rotation;
use crate::network::Pass;
use burn::tensor::{Tensor, activation};
use ebb_kernels::attention;
use ebb_kernels::attention::Scores;

/// How queries, keys and values come from the input.
#[derive(Debug)]
pub(crate) enum Projection {
    /// A layer each.
    Separate(Box<[Linear; 3]>),
    /// One layer; all queries first, then all keys, then all values.
    Stacked(Linear),
    /// One layer; query, key and value of the first head, then of the second, and so on.
    ByHead(Linear),
}

/// The attention half of a block.
#[derive(Debug)]
pub(crate) struct Attention {
    pub projection: Projection,
    /// Of queries and of keys, head by head.
    pub norms: Option<[Norm; 2]>,
    pub output: Linear,
    pub heads: usize,
    pub key_value_heads: usize,
    pub head_width: usize,
    /// α, what a product of query and key is multiplied with.
    pub scale: f64,
    /// c, above which scores saturate.
    pub cap: Option<f64>,
    pub around: Around,
    pub inside: Inside,
}

/// The names of the taps within an attention.
#[derive(Debug)]
pub(crate) struct Inside {
    pub queries: String,
    pub keys: String,
    pub values: String,
    pub scores: String,
    pub pattern: String,
}

impl Inside {
    pub fn new(path: &str) -> Self {
        let name = |what: &str| format!("{path}.{what}");
        Self {
            queries: name("queries"),
            keys: name("keys"),
            values: name("values"),
            scores: name("scores"),
            pattern: name("pattern"),
        }
    }
}

impl Attention {
    pub fn linears(&self) -> Vec<&Linear> {
        let projections: Vec<&Linear> = match &self.projection {
            Projection::Separate(three) => three.iter().collect(),
            Projection::Stacked(one) | Projection::ByHead(one) => vec![one],
        };
        projections.into_iter().chain([&self.output]).collect()
    }

    /// `x` is `[rows, positions, width]`; `mask` is 0 where a query sees a key and −∞ where not,
    /// `[rows or 1, 1, positions, keys]`. With a `past`, this pass's keys and values go there, from
    /// the given slot on, and queries meet all that lie there.
    pub fn forward(
        &self,
        x: Tensor<3>,
        rotation: Option<&Rotation>,
        mask: &Tensor<4>,
        past: Option<(&mut KeysValues, usize)>,
        pass: &mut Pass,
    ) -> Tensor<3> {
        let [rows, positions, _] = x.dims();
        let (h, d) = (self.heads, self.head_width);
        let x = pass.taps.at(&self.around.input, x);
        let [mut q, mut k, v] = self.project(x, pass);
        if let Some([of_q, of_k]) = &self.norms {
            q = of_q.forward(q, pass);
            k = of_k.forward(k, pass);
        }
        if let Some(rotation) = rotation {
            q = rotation.apply(q);
            k = rotation.apply(k);
        }
        let mut named = |name: &str, t: Tensor<4>| match pass.taps.wants(name) {
            true => pass.taps.at(name, t.swap_dims(1, 2)).swap_dims(1, 2),
            false => t,
        };
        let q = named(&self.inside.queries, q);
        let k = named(&self.inside.keys, k);
        let v = named(&self.inside.values, v);
        let whole = [&self.inside.scores, &self.inside.pattern];
        let seen = match past.is_some() || whole.iter().any(|name| pass.taps.wants(name)) {
            true => {
                let [q, k, v] = [q, k, v].map(|t| t.swap_dims(1, 2));
                self.by_scores([q, k, v], mask, past, pass)
            }
            false => {
                let scores = Scores {
                    scale: self.scale as f32,
                    cap: self.cap.map(|c| c as f32),
                };
                let mask = match q.is_autodiff() {
                    true => mask.clone().autodiff(),
                    false => mask.clone(),
                };
                attention(q, k, v, mask, scores)
            }
        };
        let seen = seen.reshape([rows, positions, h * d]);
        let y = self.output.forward(seen, pass);
        pass.taps.at(&self.around.output, y)
    }

    /// The same with all scores in memory, where somebody looks at them or keys were kept. Takes
    /// `[rows, heads, positions, head width]`, gives `[rows, positions, heads, head width]`.
    fn by_scores(
        &self,
        [q, k, v]: [Tensor<4>; 3],
        mask: &Tensor<4>,
        past: Option<(&mut KeysValues, usize)>,
        pass: &mut Pass,
    ) -> Tensor<4> {
        let [rows, h, positions, d] = q.dims();
        let g = self.key_value_heads;
        let [k, v] = match past {
            Some((past, at)) => past.add(at, k, v),
            None => [k, v],
        };
        let keys = k.dims()[2];
        let stacked = (q * self.scale).reshape([rows, g, h / g * positions, d]);
        let scores = stacked.matmul(k.swap_dims(2, 3));
        let scores = scores.reshape([rows, h, positions, keys]);
        let scores = match self.cap {
            Some(c) => (scores / c).tanh() * c,
            None => scores,
        };
        let scores = pass.taps.at(&self.inside.scores, scores);
        let pattern = activation::softmax(scores + mask.clone(), 3);
        let pattern = pass.taps.at(&self.inside.pattern, pattern);
        pattern
            .reshape([rows, g, h / g * positions, keys])
            .matmul(v)
            .reshape([rows, h, positions, d])
            .swap_dims(1, 2)
    }

    /// Queries, keys and values, `[rows, positions, heads, head width]` each.
    fn project(&self, x: Tensor<3>, pass: &mut Pass) -> [Tensor<4>; 3] {
        let [rows, positions, _] = x.dims();
        let (h, g, d) = (self.heads, self.key_value_heads, self.head_width);
        let split = |t: Tensor<3>, heads: usize| t.reshape([rows, positions, heads, d]);
        match &self.projection {
            Projection::Separate(layers) => {
                let [of_q, of_k, of_v] = layers.as_ref();
                let q = of_q.forward(x.clone(), pass);
                let k = of_k.forward(x.clone(), pass);
                let v = of_v.forward(x, pass);
                [split(q, h), split(k, g), split(v, g)]
            }
            Projection::Stacked(layer) => {
                let all = layer.forward(x, pass);
                [0, h, h + g]
                    .map(|first| (first, if first == 0 { h } else { g }))
                    .map(|(first, heads)| split(all.clone().narrow(2, first * d, heads * d), heads))
            }
            Projection::ByHead(layer) => {
                let all = layer.forward(x, pass);
                let all = all.reshape([rows, positions, h, 3 * d]);
                [0, d, 2 * d].map(|first| all.clone().narrow(3, first, d))
            }
        }
    }

    pub fn taps(&self) -> Vec<String> {
        let [input, output] = self.around.names();
        let projections = match &self.projection {
            Projection::Separate(layers) => layers.iter().flat_map(Linear::taps).collect(),
            Projection::Stacked(layer) | Projection::ByHead(layer) => layer.taps(),
        };
        let norms = self.norms.iter().flatten().flat_map(Norm::taps);
        let i = &self.inside;
        let inside = [&i.queries, &i.keys, &i.values, &i.scores, &i.pattern];
        std::iter::once(input)
            .chain(projections)
            .chain(norms)
            .chain(inside.into_iter().cloned())
            .chain(self.output.taps())
            .chain([output])
            .collect()
    }
}
