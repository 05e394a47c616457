//! Weight space: `path -> flat tensor`, stored as one contiguous vector.
//!
//! A model's parameters, a gradient, a Fisher diagonal, a task vector and an importance score are
//! all [`Weights`] over one [`Layout`]. Element-wise operations are single passes over the
//! memory. Reductions run in f64 in one fixed order (blocks of 4096 values, 8 lanes in a block),
//! so their bits depend on neither threads nor instruction set.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::{Error, Key, Mask, Result};

/// One named tensor of a [`Layout`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Dotted path, such as `layers.0.weight`.
    pub path: String,
    /// Shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Where its values lie in the contiguous vector.
    pub range: Range<usize>,
}

/// The names, shapes and order of the tensors of one space.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    entries: Vec<Entry>,
    by_path: HashMap<String, usize>,
    len: usize,
}

impl Layout {
    /// A layout with these tensors, in this order.
    ///
    /// # Errors
    /// [`Error::DuplicatePath`], [`Error::ShapeOverflow`].
    pub fn new(entries: impl IntoIterator<Item = (String, Vec<usize>)>) -> Result<Arc<Layout>> {
        let mut layout = Layout {
            entries: Vec::new(),
            by_path: HashMap::new(),
            len: 0,
        };
        for (path, shape) in entries {
            let end = shape
                .iter()
                .try_fold(1usize, |n, &d| n.checked_mul(d))
                .and_then(|n| n.checked_add(layout.len))
                .filter(|&end| end <= isize::MAX as usize / size_of::<f32>())
                .ok_or_else(|| Error::ShapeOverflow(path.clone()))?;
            if layout
                .by_path
                .insert(path.clone(), layout.entries.len())
                .is_some()
            {
                return Err(Error::DuplicatePath(path));
            }
            layout.entries.push(Entry {
                path,
                shape,
                range: layout.len..end,
            });
            layout.len = end;
        }
        Ok(Arc::new(layout))
    }

    /// The tensors in storage order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Number of values of all tensors together.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no value at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The tensor called `path`.
    pub fn find(&self, path: &str) -> Option<&Entry> {
        self.by_path.get(path).map(|&i| &self.entries[i])
    }
}

/// A vector of weight space. It owns its values: never a view into a network that trains.
///
/// # Panics
/// Operations on several vectors panic if their layouts differ: mixing spaces is a defect of the
/// caller, not a property of its input.
#[derive(Clone, Debug)]
pub struct Weights {
    layout: Arc<Layout>,
    data: Vec<f32>,
}

/// Sums of one layer: the tensors whose paths agree up to the last dot.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer<'a> {
    /// The path before the last dot; a path without a dot is its own layer.
    pub name: &'a str,
    /// Number of values.
    pub len: usize,
    /// Sum of the values.
    pub sum: f64,
    /// Sum of the absolute values.
    pub abs_sum: f64,
    /// Euclidean norm.
    pub norm: f64,
}

impl Weights {
    /// All zeros.
    pub fn zeros(layout: &Arc<Layout>) -> Weights {
        Weights {
            layout: layout.clone(),
            data: vec![0.0; layout.len()],
        }
    }

    /// These values, in the order of the layout.
    ///
    /// # Errors
    /// [`Error::Length`] if there are too many or too few.
    pub fn from_vec(layout: &Arc<Layout>, data: Vec<f32>) -> Result<Weights> {
        if data.len() != layout.len() {
            let (expected, found) = (layout.len(), data.len());
            return Err(Error::Length {
                what: "a weight vector",
                expected,
                found,
            });
        }
        Ok(Weights {
            layout: layout.clone(),
            data,
        })
    }

    /// Zeros over the same layout.
    #[must_use]
    pub fn zeros_like(&self) -> Weights {
        Weights::zeros(&self.layout)
    }

    /// The layout.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// All values in storage order.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }

    /// All values in storage order, to change.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The values without the layout.
    pub fn into_vec(self) -> Vec<f32> {
        self.data
    }

    /// The values of the tensor called `path`.
    pub fn get(&self, path: &str) -> Option<&[f32]> {
        self.layout
            .find(path)
            .map(|entry| &self.data[entry.range.clone()])
    }

    /// The values of the tensor called `path`, to change.
    pub fn get_mut(&mut self, path: &str) -> Option<&mut [f32]> {
        let range = self.layout.find(path)?.range.clone();
        Some(&mut self.data[range])
    }

    /// Every tensor with its values.
    pub fn iter(&self) -> impl Iterator<Item = (&Entry, &[f32])> {
        self.layout
            .entries
            .iter()
            .map(|entry| (entry, &self.data[entry.range.clone()]))
    }

    /// Sets every value to `value`.
    pub fn fill(&mut self, value: f32) {
        self.data.fill(value);
    }

    /// `a ← x`
    pub fn copy_from(&mut self, x: &Weights) {
        self.same_space(x);
        self.data.copy_from_slice(&x.data);
    }

    /// `a ← s a`
    pub fn scale(&mut self, s: f32) {
        self.map_in_place(|a| a * s);
    }

    /// `a ← a + s x`
    pub fn axpy(&mut self, s: f32, x: &Weights) {
        self.zip_with(x, |a, x| a + s * x);
    }

    /// `a ← a + s (x − y)`
    pub fn add_difference(&mut self, s: f32, x: &Weights, y: &Weights) {
        self.zip_with_2(x, y, |a, x, y| a + s * (x - y));
    }

    /// `a ← a + s f⊙x`
    pub fn add_product(&mut self, s: f32, f: &Weights, x: &Weights) {
        self.zip_with_2(f, x, |a, f, x| a + s * (f * x));
    }

    /// `a ← a + s f⊙(x − y)`, the gradient of `s/2 Σ f (x − y)²` by `x`.
    pub fn add_product_of_difference(&mut self, s: f32, f: &Weights, x: &Weights, y: &Weights) {
        self.same_space(f);
        self.same_space(x);
        self.same_space(y);
        for (((a, &f), &x), &y) in self.data.iter_mut().zip(&f.data).zip(&x.data).zip(&y.data) {
            *a += s * (f * (x - y));
        }
    }

    /// `a ← a + s x⊙x`
    pub fn add_square(&mut self, s: f32, x: &Weights) {
        self.zip_with(x, |a, x| a + s * (x * x));
    }

    /// `a ← a + s |x|`
    pub fn add_abs(&mut self, s: f32, x: &Weights) {
        self.zip_with(x, |a, x| a + s * x.abs());
    }

    /// `a ← a ⊙ x`
    pub fn mul_assign(&mut self, x: &Weights) {
        self.zip_with(x, |a, x| a * x);
    }

    /// `a ← (1 − t) a + t b`
    pub fn lerp(&mut self, t: f32, b: &Weights) {
        let keep = 1.0 - t;
        self.zip_with(b, |a, b| keep * a + t * b);
    }

    /// `a ← op(a, x)` at every element.
    pub fn zip_with(&mut self, x: &Weights, op: impl Fn(f32, f32) -> f32) {
        self.same_space(x);
        for (a, &x) in self.data.iter_mut().zip(&x.data) {
            *a = op(*a, x);
        }
    }

    /// `a ← op(a, x, y)` at every element.
    pub fn zip_with_2(&mut self, x: &Weights, y: &Weights, op: impl Fn(f32, f32, f32) -> f32) {
        self.same_space(x);
        self.same_space(y);
        for ((a, &x), &y) in self.data.iter_mut().zip(&x.data).zip(&y.data) {
            *a = op(*a, x, y);
        }
    }

    /// `a ← op(a)` at every element.
    pub fn map_in_place(&mut self, op: impl Fn(f32) -> f32) {
        for a in &mut self.data {
            *a = op(*a);
        }
    }

    /// `Σ a`
    pub fn sum(&self) -> f64 {
        reduce([&self.data], |[a]| a)
    }

    /// `Σ a x`
    pub fn dot(&self, x: &Weights) -> f64 {
        self.same_space(x);
        reduce([&self.data, &x.data], |[a, x]| a * x)
    }

    /// `√Σ a²`
    pub fn norm(&self) -> f64 {
        reduce([&self.data], |[a]| a * a).sqrt()
    }

    /// `Σ (a − y)²`
    pub fn squared_distance(&self, y: &Weights) -> f64 {
        self.same_space(y);
        reduce([&self.data, &y.data], |[a, y]| (a - y) * (a - y))
    }

    /// `Σ f (a − y)²`
    pub fn weighted_squared_distance(&self, f: &Weights, y: &Weights) -> f64 {
        self.same_space(f);
        self.same_space(y);
        reduce([&self.data, &f.data, &y.data], |[a, f, y]| {
            f * ((a - y) * (a - y))
        })
    }

    /// Sums layer by layer, in the order in which layers first occur. A layer's tensors need not
    /// be neighbours.
    pub fn by_layer(&self) -> impl Iterator<Item = Layer<'_>> {
        let mut place: HashMap<&str, usize> = HashMap::new();
        let mut layers: Vec<Layer<'_>> = Vec::new();
        for (entry, values) in self.iter() {
            let name = entry
                .path
                .rsplit_once('.')
                .map_or(&*entry.path, |(layer, _)| layer);
            let at = *place.entry(name).or_insert(layers.len());
            if at == layers.len() {
                layers.push(Layer {
                    name,
                    len: 0,
                    sum: 0.0,
                    abs_sum: 0.0,
                    norm: 0.0,
                });
            }
            let layer = &mut layers[at];
            layer.len += values.len();
            layer.sum += reduce([values], |[a]| a);
            layer.abs_sum += reduce([values], |[a]| a.abs());
            layer.norm += reduce([values], |[a]| a * a); // squared until all parts are in
        }
        layers.into_iter().map(|layer| Layer {
            norm: layer.norm.sqrt(),
            ..layer
        })
    }

    /// The `q`-quantile of all values, linear between order statistics (type 7, the default of
    /// NumPy and R). NaN counts as the smallest value. `q` is clamped to [0, 1].
    ///
    /// # Panics
    /// On an empty vector.
    pub fn quantile(&self, q: f64) -> f32 {
        assert!(!self.data.is_empty(), "an empty vector has no quantile");
        let mut order: Vec<u32> = self.data.iter().map(|&a| rank(a)).collect();
        let at = q.clamp(0.0, 1.0) * (order.len() - 1) as f64;
        let (low, part) = (at.floor() as usize, at.fract());
        let (_, &mut below, above) = order.select_nth_unstable(low);
        let below = f64::from(unrank(below));
        match above.iter().min() {
            Some(&above) if part > 0.0 => {
                (below + part * (f64::from(unrank(above)) - below)) as f32
            }
            _ => below as f32,
        }
    }

    /// The `k` greatest values (all of them if there are fewer). Of equal values the earlier ones
    /// are taken; NaN counts as the smallest value, and −0 as equal to 0.
    pub fn top_k(&self, k: usize) -> Mask {
        let n = self.data.len();
        if k >= n {
            return Mask::all(&self.layout);
        }
        if k == 0 {
            return Mask::none(&self.layout);
        }
        let mut order: Vec<u32> = self.data.iter().map(|&a| rank(a)).collect();
        let (_, &mut least, above) = order.select_nth_unstable(n - k);
        let mut ties = k - above.iter().filter(|&&r| r > least).count();
        Mask::from_fn(&self.layout, |i| {
            let r = rank(self.data[i]);
            let take_tie = r == least && ties > 0;
            ties -= usize::from(take_tie);
            r > least || take_tie
        })
    }

    /// Whether no value is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        // Blocks without an early exit inside vectorise; a bad value is the rare case.
        self.data
            .chunks(BLOCK)
            .all(|block| block.iter().fold(true, |ok, a| ok & a.is_finite()))
    }

    /// BLAKE3 of every path, shape and value (little-endian bytes, so NaN payloads and signs of
    /// zero count).
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("ebbinghaus v1 weights digest");
        let length = |n: usize| (n as u64).to_le_bytes();
        hasher.update(&length(self.layout.entries.len()));
        for (entry, values) in self.iter() {
            hasher.update(&length(entry.path.len()));
            hasher.update(entry.path.as_bytes());
            hasher.update(&length(entry.shape.len()));
            for &d in &entry.shape {
                hasher.update(&length(d));
            }
            if cfg!(target_endian = "little") {
                hasher.update(bytemuck::cast_slice(values));
            } else {
                for value in values {
                    hasher.update(&value.to_le_bytes());
                }
            }
        }
        *hasher.finalize().as_bytes()
    }

    /// The same values, shuffled inside each tensor: the control that keeps a score's
    /// distribution and destroys its meaning. The draw depends on the key and the path alone.
    ///
    /// # Panics
    /// If a tensor has 2^32 values or more.
    #[must_use]
    pub fn permuted_within_tensors(&self, key: Key) -> Weights {
        let mut shuffled = Vec::with_capacity(self.data.len());
        for (entry, values) in self.iter() {
            let order = key.sub(&entry.path).permutation(values.len());
            shuffled.extend(order.iter().map(|&i| values[i as usize]));
        }
        Weights {
            layout: self.layout.clone(),
            data: shuffled,
        }
    }

    pub(crate) fn same_space(&self, other: &Weights) {
        same_layout(&self.layout, &other.layout);
    }
}

pub(crate) fn same_layout(a: &Arc<Layout>, b: &Arc<Layout>) {
    assert!(
        Arc::ptr_eq(a, b) || a.entries == b.entries,
        "two weight vectors with different layouts were combined"
    );
}

const BLOCK: usize = 4096;
const LANES: usize = 8;

/// `Σ_i term(x_i)` over `N` equally long slices, in f64 and in one fixed order: within a block,
/// lane `j` sums the elements `j, j + 8, …`; lanes are added as a tree; blocks one after another.
#[inline]
pub(crate) fn reduce<const N: usize>(x: [&[f32]; N], term: impl Fn([f64; N]) -> f64) -> f64 {
    let n = x[0].len();
    assert!(
        x.iter().all(|x| x.len() == n),
        "reductions need slices of one length"
    );
    let mut total = 0.0;
    for start in (0..n).step_by(BLOCK) {
        let block = x.map(|x| &x[start..(start + BLOCK).min(n)]);
        let full = block[0].len() / LANES * LANES;
        let mut lanes = [0.0f64; LANES];
        for i in (0..full).step_by(LANES) {
            let group = block.map(|b| &b[i..i + LANES]);
            for (j, lane) in lanes.iter_mut().enumerate() {
                *lane += term(group.map(|g| f64::from(g[j])));
            }
        }
        for (j, lane) in lanes.iter_mut().enumerate().take(block[0].len() - full) {
            *lane += term(block.map(|b| f64::from(b[full + j])));
        }
        let [a, b, c, d, e, f, g, h] = lanes;
        total += ((a + b) + (c + d)) + ((e + f) + (g + h));
    }
    total
}

/// Order-preserving integer of a float, with NaN at the bottom and −0 at 0.
fn rank(a: f32) -> u32 {
    if a.is_nan() {
        return 0;
    }
    let bits = (a + 0.0).to_bits();
    if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    }
}

fn unrank(rank: u32) -> f32 {
    match rank {
        0 => f32::NAN,
        r if r >> 31 == 1 => f32::from_bits(r & !(1 << 31)),
        r => f32::from_bits(!r),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Arc<Layout> {
        Layout::new([
            ("a.weight".into(), vec![113, 91]),
            ("a.bias".into(), vec![113]),
            ("scale".into(), vec![]),
            ("b.weight".into(), vec![0, 5]),
            ("b.bias".into(), vec![3]),
        ])
        .unwrap()
    }

    fn random(layout: &Arc<Layout>, name: &str) -> Weights {
        let key = Key::new(11, name);
        let data = (0..layout.len() as u64)
            .map(|i| key.normal(i) as f32)
            .collect();
        Weights::from_vec(layout, data).unwrap()
    }

    #[test]
    fn layouts_refuse_what_cannot_be_addressed() {
        let twice = Layout::new([("a".into(), vec![1]), ("a".into(), vec![2])]);
        assert_eq!(twice, Err(Error::DuplicatePath("a".into())));
        let huge = Layout::new([("a".into(), vec![usize::MAX, 2])]);
        assert_eq!(huge, Err(Error::ShapeOverflow("a".into())));
        let huge = Layout::new([("a".into(), vec![1]), ("b".into(), vec![usize::MAX])]);
        assert_eq!(huge, Err(Error::ShapeOverflow("b".into())));
        let l = layout();
        assert_eq!(l.len(), 113 * 91 + 113 + 1 + 3);
        assert_eq!(l.find("b.bias").unwrap().range, l.len() - 3..l.len());
        assert!(l.find("b").is_none());
        assert!(Weights::from_vec(&l, vec![0.0; 3]).is_err());
    }

    #[test]
    fn fused_operations_match_f64_formulas() {
        let l = layout();
        let (a, f, x, y) = (
            random(&l, "a"),
            random(&l, "f"),
            random(&l, "x"),
            random(&l, "y"),
        );
        let s = 0.37f32;
        type Op = fn(&mut Weights, f32, &Weights, &Weights, &Weights);
        type Formula = fn(f64, f64, f64, f64, f64) -> f64;
        let cases: [(&str, Op, Formula); 9] = [
            ("scale", |a, s, _, _, _| a.scale(s), |a, s, _, _, _| s * a),
            (
                "axpy",
                |a, s, _, x, _| a.axpy(s, x),
                |a, s, _, x, _| a + s * x,
            ),
            (
                "difference",
                |a, s, _, x, y| a.add_difference(s, x, y),
                |a, s, _, x, y| a + s * (x - y),
            ),
            (
                "product",
                |a, s, f, x, _| a.add_product(s, f, x),
                |a, s, f, x, _| a + s * f * x,
            ),
            (
                "product of difference",
                |a, s, f, x, y| a.add_product_of_difference(s, f, x, y),
                |a, s, f, x, y| a + s * f * (x - y),
            ),
            (
                "square",
                |a, s, _, x, _| a.add_square(s, x),
                |a, s, _, x, _| a + s * x * x,
            ),
            (
                "abs",
                |a, s, _, x, _| a.add_abs(s, x),
                |a, s, _, x, _| a + s * x.abs(),
            ),
            (
                "mul",
                |a, _, _, x, _| a.mul_assign(x),
                |a, _, _, x, _| a * x,
            ),
            (
                "lerp",
                |a, s, _, x, _| a.lerp(s, x),
                |a, s, _, x, _| (1.0 - s) * a + s * x,
            ),
        ];
        for (name, op, formula) in cases {
            let mut got = a.clone();
            op(&mut got, s, &f, &x, &y);
            for i in 0..l.len() {
                let at = |w: &Weights| f64::from(w.data[i]);
                let want = formula(at(&a), f64::from(s), at(&f), at(&x), at(&y));
                let size = 1.0
                    + at(&a).abs()
                    + (at(&f).abs() + 1.0) * (at(&x).abs() + at(&y).abs() + at(&x).powi(2));
                assert!(
                    (f64::from(got.data[i]) - want).abs() < 3e-7 * size,
                    "{name} at {i}"
                );
            }
        }
    }

    #[test]
    fn reductions_match_exact_sums_and_keep_their_order() {
        let l = Layout::new([("x".into(), vec![3 * BLOCK + 13])]).unwrap();
        // Integers below 2^10: products and sums are exact in f64, in any order.
        let whole = |name: &str| {
            let key = Key::new(0, name);
            let data = (0..l.len() as u64)
                .map(|i| (key.draw(i) % 2001) as f32 - 1000.0)
                .collect();
            Weights::from_vec(&l, data).unwrap()
        };
        let (a, f, y) = (whole("a"), whole("f"), whole("y"));
        let exact = |term: &dyn Fn(i64, i64, i64) -> i64| -> f64 {
            let each = a.data.iter().zip(&f.data).zip(&y.data);
            each.map(|((&a, &f), &y)| term(a as i64, f as i64, y as i64))
                .sum::<i64>() as f64
        };
        assert_eq!(a.sum(), exact(&|a, _, _| a));
        assert_eq!(a.dot(&y), exact(&|a, _, y| a * y));
        assert_eq!(a.norm(), exact(&|a, _, _| a * a).sqrt());
        assert_eq!(a.squared_distance(&y), exact(&|a, _, y| (a - y) * (a - y)));
        assert_eq!(
            a.weighted_squared_distance(&f, &y),
            exact(&|a, f, y| f * (a - y) * (a - y))
        );
        // The order itself is part of the contract: a hard-to-add vector, added by hand.
        let hard: Vec<f32> = (0..10)
            .map(|i| if i % 2 == 0 { 1e30 } else { 1.0 / (i as f32) })
            .collect();
        let h: Vec<f64> = hard.iter().map(|&v| f64::from(v)).collect();
        let lanes = [h[0] + h[8], h[1] + h[9], h[2], h[3], h[4], h[5], h[6], h[7]];
        let want = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]))
            + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
        assert_eq!(reduce([&hard], |[a]| a).to_bits(), want.to_bits());
    }

    #[test]
    fn layers_join_their_tensors() {
        let l = Layout::new([
            ("a.w".into(), vec![2]),
            ("solo".into(), vec![1]),
            ("a.b".into(), vec![1]),
        ])
        .unwrap();
        let w = Weights::from_vec(&l, vec![3.0, -4.0, 7.0, 12.0]).unwrap();
        let layers: Vec<_> = w.by_layer().collect();
        assert_eq!(
            layers,
            [
                Layer {
                    name: "a",
                    len: 3,
                    sum: 11.0,
                    abs_sum: 19.0,
                    norm: 13.0
                },
                Layer {
                    name: "solo",
                    len: 1,
                    sum: 7.0,
                    abs_sum: 7.0,
                    norm: 7.0
                },
            ]
        );
    }

    #[test]
    fn quantiles_are_numpys() {
        let l = Layout::new([("x".into(), vec![5])]).unwrap();
        let w = Weights::from_vec(&l, vec![3.0, -1.0, 10.0, 2.0, -0.0]).unwrap();
        // numpy.quantile([3, -1, 10, 2, 0], [0, .1, .25, .5, .9, 1])
        for (q, want) in [
            (0.0, -1.0),
            (0.1, -0.6),
            (0.25, 0.0),
            (0.5, 2.0),
            (0.9, 7.2),
            (1.0, 10.0),
        ] {
            assert!((w.quantile(q) - want).abs() < 1e-6, "{q}");
        }
    }

    #[test]
    fn top_k_matches_a_full_sort_with_ties_to_the_earlier() {
        let l = Layout::new([("x".into(), vec![700]), ("y".into(), vec![301])]).unwrap();
        let key = Key::new(1, "ties");
        let mut data: Vec<f32> = (0..1001).map(|i| (key.draw(i) % 7) as f32 - 3.0).collect();
        data[5] = f32::NAN;
        data[900] = f32::NAN;
        data[17] = -0.0;
        let w = Weights::from_vec(&l, data.clone()).unwrap();
        let mut order: Vec<usize> = (0..1001).collect();
        let value = |i: usize| {
            if data[i].is_nan() {
                -9.0
            } else {
                data[i] + 0.0
            }
        };
        order.sort_by(|&i, &j| value(j).partial_cmp(&value(i)).unwrap());
        for k in [0, 1, 63, 64, 65, 500, 998, 999, 1000, 1001, 2000] {
            let mask = w.top_k(k);
            let mut want = vec![false; 1001];
            order.iter().take(k).for_each(|&i| want[i] = true);
            assert_eq!(
                (0..1001).map(|i| mask.contains(i)).collect::<Vec<_>>(),
                want,
                "k = {k}"
            );
        }
    }

    #[test]
    fn one_bad_value_is_seen() {
        let mut w = random(&layout(), "w");
        assert!(w.is_finite());
        let last = w.data.len() - 1;
        w.data[last] = f32::NEG_INFINITY;
        assert!(!w.is_finite());
    }

    #[test]
    fn digests_see_paths_shapes_and_bits() {
        let of = |path: &str, shape: Vec<usize>, data: Vec<f32>| {
            let l = Layout::new([(path.to_string(), shape)]).unwrap();
            Weights::from_vec(&l, data).unwrap().digest()
        };
        let base = of("a", vec![2, 1], vec![0.0, 1.0]);
        assert_eq!(base, of("a", vec![2, 1], vec![0.0, 1.0]));
        assert_ne!(base, of("b", vec![2, 1], vec![0.0, 1.0]));
        assert_ne!(base, of("a", vec![1, 2], vec![0.0, 1.0]));
        assert_ne!(base, of("a", vec![2, 1], vec![-0.0, 1.0]));
    }

    #[test]
    fn permuting_keeps_each_tensors_values_and_is_keyed_by_path() {
        let w = random(&layout(), "w");
        let p = w.permuted_within_tensors(Key::new(3, "control"));
        assert_ne!(w.digest(), p.digest());
        for ((_, before), (_, after)) in w.iter().zip(p.iter()) {
            let sorted = |v: &[f32]| {
                let mut v = v.to_vec();
                v.sort_by(f32::total_cmp);
                v
            };
            assert_eq!(sorted(before), sorted(after));
        }
        let same = before_after_correlation(w.get("a.weight").unwrap(), p.get("a.weight").unwrap());
        assert!(same.abs() < 0.05, "{same}"); // 5 standard errors of 10283 pairs
    }

    fn before_after_correlation(a: &[f32], b: &[f32]) -> f64 {
        reduce([a, b], |[a, b]| a * b) / reduce([a], |[a]| a * a)
    }

    #[test]
    #[should_panic(expected = "different layouts")]
    fn spaces_do_not_mix() {
        let other = Layout::new([("z".into(), vec![1])]).unwrap();
        random(&layout(), "w").axpy(1.0, &Weights::zeros(&other));
    }
}
