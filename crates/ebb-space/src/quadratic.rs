//! Weight-space penalties: one quadratic `½ δᵀMδ` in δ = θ − anchor, with different M.
//!
//! EWC, online EWC, SI, MAS, L2-SP, KFAC and rank-1 penalties differ in M and in how M is
//! measured, not in what is done with it. The ½ is always here: a paper's coefficient without one
//! is doubled (MAS's `λ Σ Ω δ²` has `M = 2λ diag Ω`).

use crate::weights::reduce;
use crate::{Error, Layout, Mask, Result, Weights};

/// A positive semi-definite matrix M over a space of weights, in one of its cheap forms.
#[derive(Clone, Debug)]
pub enum Quadratic {
    /// `β I`: L2 to the anchor. No memory.
    Identity(f64),
    /// `β` on the elements of a set, 0 elsewhere, as for attention blocks alone.
    Masked(f64, Mask),
    /// `diag(m)`: EWC, SI, MAS. One value a weight.
    Diag(Weights),
    /// A sum of Kronecker products a layer: KFAC. `in² + out²` a layer and pair.
    Kron(Kron),
    /// `Σ_k s_k u_k u_kᵀ`: the top directions of per-example gradients. r values a weight.
    LowRank(LowRank),
}

impl Quadratic {
    /// `½ δᵀMδ`
    ///
    /// # Panics
    /// Here and below: if the layouts differ.
    pub fn value(&self, delta: &Weights) -> f64 {
        match self {
            Quadratic::Identity(beta) => 0.5 * beta * delta.dot(delta),
            Quadratic::Masked(beta, mask) => {
                let inside = restricted(delta, mask);
                0.5 * beta * inside.dot(&inside)
            }
            Quadratic::Diag(m) => {
                m.same_space(delta);
                0.5 * reduce([m.as_slice(), delta.as_slice()], |[m, d]| m * (d * d))
            }
            Quadratic::Kron(kron) => kron.value(delta),
            Quadratic::LowRank(low) => {
                let each = low.directions.iter().zip(&low.scales);
                each.map(|(u, s)| 0.5 * s * u.dot(delta).powi(2)).sum()
            }
        }
    }

    /// `g ← g + scale · Mδ`
    pub fn add_gradient(&self, scale: f32, delta: &Weights, gradient: &mut Weights) {
        match self {
            Quadratic::Identity(beta) => gradient.axpy(scale * *beta as f32, delta),
            Quadratic::Masked(beta, mask) => {
                gradient.axpy(scale * *beta as f32, &restricted(delta, mask));
            }
            Quadratic::Diag(m) => gradient.add_product(scale, m, delta),
            Quadratic::Kron(kron) => kron.add_gradient(scale, delta, gradient),
            Quadratic::LowRank(low) => {
                for (u, s) in low.directions.iter().zip(&low.scales) {
                    gradient.axpy((f64::from(scale) * s * u.dot(delta)) as f32, u);
                }
            }
        }
    }

    /// `M ← γM + other`, exactly: Kronecker pairs and directions are appended, not approximated.
    ///
    /// # Errors
    /// [`Error::QuadraticKinds`] if the two are of different kinds or over different layers or
    /// sets.
    pub fn accumulate(&mut self, other: &Quadratic, gamma: f64) -> Result<()> {
        match (self, other) {
            (Quadratic::Identity(a), Quadratic::Identity(b)) => *a = gamma * *a + b,
            (Quadratic::Masked(a, on), Quadratic::Masked(b, also)) if on == also => {
                *a = gamma * *a + b;
            }
            (Quadratic::Diag(a), Quadratic::Diag(b)) => {
                let gamma = gamma as f32;
                a.zip_with(b, |a, b| gamma * a + b);
            }
            (Quadratic::Kron(a), Quadratic::Kron(b)) => a.accumulate(b, gamma)?,
            (Quadratic::LowRank(a), Quadratic::LowRank(b)) => {
                a.scales.iter_mut().for_each(|s| *s *= gamma);
                a.scales.extend(&b.scales);
                a.directions.extend(b.directions.iter().cloned());
            }
            _ => return Err(Error::QuadraticKinds),
        }
        Ok(())
    }

    /// Bytes of M's values; the anchor is not counted.
    pub fn bytes(&self) -> usize {
        let floats = |w: &Weights| size_of_val(w.as_slice());
        match self {
            Quadratic::Identity(_) => size_of::<f64>(),
            Quadratic::Masked(_, mask) => size_of::<f64>() + mask.layout().len().div_ceil(8),
            Quadratic::Diag(m) => floats(m),
            Quadratic::Kron(kron) => {
                let pairs = kron.blocks.iter().flat_map(|block| &block.pairs);
                pairs
                    .map(|pair| (pair.a.len() + pair.g.len()) * size_of::<f32>())
                    .sum()
            }
            Quadratic::LowRank(low) => {
                low.directions.iter().map(floats).sum::<usize>()
                    + low.scales.len() * size_of::<f64>()
            }
        }
    }
}

fn restricted(delta: &Weights, mask: &Mask) -> Weights {
    let mut inside = delta.clone();
    mask.complement().zero_gradient(&mut inside);
    inside
}

/// `Σ_k s_k u_k u_kᵀ`
#[derive(Clone, Debug, Default)]
pub struct LowRank {
    directions: Vec<Weights>,
    scales: Vec<f64>,
}

impl LowRank {
    /// `s u uᵀ`
    pub fn rank_one(u: Weights, s: f64) -> LowRank {
        LowRank {
            directions: vec![u],
            scales: vec![s],
        }
    }

    /// Number of directions.
    pub fn rank(&self) -> usize {
        self.scales.len()
    }
}

/// Kronecker-factored curvature: for each linear layer `Σ_t G_t ⊗ A_t`.
#[derive(Clone, Debug, Default)]
pub struct Kron {
    blocks: Vec<Block>,
}

#[derive(Clone, Debug)]
struct Block {
    weight: String,
    bias: Option<String>,
    outs: usize,
    /// Columns of the weight, plus one if there is a bias.
    ins: usize,
    pairs: Vec<Pair>,
}

/// One Kronecker pair: `½⟨ΔW, G ΔW A⟩`.
#[derive(Clone, Debug, PartialEq)]
struct Pair {
    /// `E[ā āᵀ]`, ins × ins, symmetric.
    a: Vec<f32>,
    /// `E[g gᵀ]`, outs × outs, symmetric.
    g: Vec<f32>,
}

impl Kron {
    /// Adds the layer whose weight (first axis: outputs; the rest: inputs) and bias have these
    /// paths, with `a = E[ā āᵀ]` over its inputs (the bias's 1 comes last) and `g = E[g gᵀ]` over
    /// the gradients at its outputs, both row-major.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`], or [`Error::Length`] for a factor of the wrong size.
    pub fn layer(
        mut self,
        layout: &Layout,
        weight: &str,
        bias: Option<&str>,
        a: Vec<f32>,
        g: Vec<f32>,
    ) -> Result<Kron> {
        let find = |path: &str| {
            layout
                .find(path)
                .ok_or_else(|| Error::NoSuchTensor(path.to_string()))
        };
        let outs = find(weight)?.shape.first().copied().unwrap_or(1);
        let ins =
            find(weight)?.range.len().checked_div(outs).unwrap_or(0) + usize::from(bias.is_some());
        let length = |what, found: usize, expected: usize| {
            if found == expected {
                Ok(())
            } else {
                Err(Error::Length {
                    what,
                    expected,
                    found,
                })
            }
        };
        if let Some(bias) = bias {
            length("a layer's bias", find(bias)?.range.len(), outs)?;
        }
        length("the input factor of a Kronecker pair", a.len(), ins * ins)?;
        length(
            "the output factor of a Kronecker pair",
            g.len(),
            outs * outs,
        )?;
        let (weight, bias) = (weight.to_string(), bias.map(String::from));
        self.blocks.push(Block {
            weight,
            bias,
            outs,
            ins,
            pairs: vec![Pair { a, g }],
        });
        Ok(self)
    }

    /// Joins the pairs of each layer into one, to bound the memory: `A₁ + A₂/π`, `G₁ + πG₂` with
    /// `π = √(tr G₁ tr A₂ / (tr G₂ tr A₁))`, then G divided by the number of pairs. A sum of
    /// Kronecker products is not one, so this is an approximation; without the division its cross
    /// terms would make T equal tasks count T² instead of T.
    pub fn collapse(&mut self) {
        for block in &mut self.blocks {
            let count = block.pairs.len() as f32;
            let (outs, ins) = (block.outs, block.ins);
            let joined = block
                .pairs
                .drain(..)
                .reduce(|first, next| first.patched(&next, outs, ins));
            block.pairs.extend(joined.map(|pair| Pair {
                g: pair.g.iter().map(|g| g / count).collect(),
                ..pair
            }));
        }
    }

    fn accumulate(&mut self, other: &Kron, gamma: f64) -> Result<()> {
        let same = |a: &Block, b: &Block| (&a.weight, &a.bias) == (&b.weight, &b.bias);
        let each = || self.blocks.iter().zip(&other.blocks);
        if self.blocks.len() != other.blocks.len() || !each().all(|(a, b)| same(a, b)) {
            return Err(Error::QuadraticKinds);
        }
        for (mine, theirs) in self.blocks.iter_mut().zip(&other.blocks) {
            let factors = mine.pairs.iter_mut().flat_map(|pair| &mut pair.g);
            factors.for_each(|g| *g *= gamma as f32);
            mine.pairs.extend(theirs.pairs.iter().cloned());
        }
        Ok(())
    }

    fn value(&self, delta: &Weights) -> f64 {
        let mut gradient = delta.zeros_like();
        self.add_gradient(1.0, delta, &mut gradient);
        0.5 * delta.dot(&gradient)
    }

    fn add_gradient(&self, scale: f32, delta: &Weights, gradient: &mut Weights) {
        delta.same_space(gradient);
        for block in &self.blocks {
            let (outs, ins) = (block.outs, block.ins);
            let columns = ins - usize::from(block.bias.is_some());
            let get = |path: &str| {
                delta
                    .get(path)
                    .unwrap_or_else(|| panic!("a Kronecker layer's `{path}` is not in this layout"))
            };
            // ΔW with the bias as its last column.
            let mut d = Vec::with_capacity(outs * ins);
            for o in 0..outs {
                d.extend_from_slice(&get(&block.weight)[o * columns..(o + 1) * columns]);
                d.extend(block.bias.as_deref().map(|bias| get(bias)[o]));
            }
            let mut sum = vec![0.0; outs * ins];
            for pair in &block.pairs {
                let right = product(&d, &pair.a, ins);
                let both = product(&pair.g, &right, outs);
                sum.iter_mut().zip(both).for_each(|(s, b)| *s += b);
            }
            let mut add = |path: &str, place: &dyn Fn(usize) -> usize| {
                let Some(target) = gradient.get_mut(path) else {
                    return;
                };
                target
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, g)| *g += scale * sum[place(i)]);
            };
            add(&block.weight, &|i| i / columns * ins + i % columns);
            if let Some(bias) = &block.bias {
                add(bias, &|o| o * ins + columns);
            }
        }
    }
}

impl Pair {
    fn patched(&self, next: &Pair, outs: usize, ins: usize) -> Pair {
        let trace =
            |m: &[f32], n: usize| m.iter().step_by(n + 1).map(|&v| f64::from(v)).sum::<f64>();
        let ratio = trace(&self.g, outs) * trace(&next.a, ins)
            / (trace(&next.g, outs) * trace(&self.a, ins));
        // A factor without trace is zero, and any balance serves.
        let pi = if ratio.is_finite() && ratio > 0.0 {
            ratio.sqrt() as f32
        } else {
            1.0
        };
        Pair {
            a: self
                .a
                .iter()
                .zip(&next.a)
                .map(|(a, b)| a + b / pi)
                .collect(),
            g: self
                .g
                .iter()
                .zip(&next.g)
                .map(|(a, b)| a + pi * b)
                .collect(),
        }
    }
}

/// `x y` with `x` of `inner` columns, row-major.
fn product(x: &[f32], y: &[f32], inner: usize) -> Vec<f32> {
    let columns = y.len() / inner;
    let mut out = vec![0.0; x.len() / inner * columns];
    for (x, out) in x.chunks_exact(inner).zip(out.chunks_exact_mut(columns)) {
        for (x, y) in x.iter().zip(y.chunks_exact(columns)) {
            out.iter_mut().zip(y).for_each(|(out, y)| *out += x * y);
        }
    }
    out
}

/// `Σ_t ½ (θ − a_t)ᵀ diag(m_t) (θ − a_t)` over any number of anchors in the memory of one:
/// `M̄ = Σ m_t`, `b = Σ m_t a_t`, and the gradient is `M̄θ − b`. (The joint anchor b/M̄ is
/// undefined where M̄ is 0, so it is never formed.)
#[derive(Clone, Debug)]
pub struct AnchoredSum {
    matrix: Weights,
    linear: Weights,
    constant: f64,
}

impl AnchoredSum {
    /// No anchor yet.
    pub fn new(like: &Weights) -> AnchoredSum {
        AnchoredSum {
            matrix: like.zeros_like(),
            linear: like.zeros_like(),
            constant: 0.0,
        }
    }

    /// Adds an anchor with its importance.
    pub fn add(&mut self, anchor: &Weights, importance: &Weights) {
        self.matrix.axpy(1.0, importance);
        self.linear.add_product(1.0, importance, anchor);
        self.constant += reduce([importance.as_slice(), anchor.as_slice()], |[m, a]| {
            m * (a * a)
        });
    }

    /// The sum of all penalties at θ.
    pub fn value(&self, theta: &Weights) -> f64 {
        self.matrix.same_space(theta);
        let parts = [
            self.matrix.as_slice(),
            self.linear.as_slice(),
            theta.as_slice(),
        ];
        0.5 * (reduce(parts, |[m, b, t]| (m * t - 2.0 * b) * t) + self.constant)
    }

    /// `g ← g + scale (M̄θ − b)`, in one pass.
    pub fn add_gradient(&self, scale: f32, theta: &Weights, gradient: &mut Weights) {
        gradient.same_space(theta);
        let (m, b) = (self.matrix.as_slice(), self.linear.as_slice());
        let each = gradient
            .as_mut_slice()
            .iter_mut()
            .zip(m)
            .zip(theta.as_slice())
            .zip(b);
        for (((g, &m), &t), &b) in each {
            *g += scale * (m * t - b);
        }
    }

    /// `M̄`, the diagonal of the sum.
    pub fn matrix(&self) -> &Weights {
        &self.matrix
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;
    use std::sync::Arc;

    fn layout() -> Arc<Layout> {
        Layout::new([
            ("l.weight".into(), vec![3, 2, 2]),
            ("l.bias".into(), vec![3]),
            ("free".into(), vec![4]),
        ])
        .unwrap()
    }

    fn random(layout: &Arc<Layout>, name: &str) -> Weights {
        let key = Key::new(4, name);
        let data = (0..layout.len() as u64)
            .map(|i| key.normal(i) as f32)
            .collect();
        Weights::from_vec(layout, data).unwrap()
    }

    /// `B Bᵀ` of random B: symmetric and positive definite.
    fn spd(name: &str, n: usize) -> Vec<f32> {
        let key = Key::new(6, name);
        let b = |i: usize, j: usize| key.normal((i * n + j) as u64) as f32;
        (0..n * n)
            .map(|at| (0..n).map(|k| b(at / n, k) * b(at % n, k)).sum())
            .collect()
    }

    fn kron(name: &str) -> Kron {
        let (a, g) = (spd(&format!("{name} a"), 5), spd(&format!("{name} g"), 3));
        Kron::default()
            .layer(&layout(), "l.weight", Some("l.bias"), a, g)
            .unwrap()
    }

    fn all() -> Vec<Quadratic> {
        let l = layout();
        let mut positive = random(&l, "m");
        positive.map_in_place(f32::abs);
        let mut low = Quadratic::LowRank(LowRank::rank_one(random(&l, "u"), 0.7));
        low.accumulate(
            &Quadratic::LowRank(LowRank::rank_one(random(&l, "w"), 1.3)),
            0.5,
        )
        .unwrap();
        vec![
            Quadratic::Identity(0.3),
            Quadratic::Masked(2.0, Mask::from_fn(&l, |i| i % 3 == 0)),
            Quadratic::Diag(positive),
            Quadratic::Kron(kron("one")),
            low,
        ]
    }

    fn gradient(q: &Quadratic, delta: &Weights) -> Weights {
        let mut g = delta.zeros_like();
        q.add_gradient(1.0, delta, &mut g);
        g
    }

    fn close(a: &Weights, b: &Weights, tolerance: f32) -> bool {
        a.as_slice()
            .iter()
            .zip(b.as_slice())
            .all(|(a, b)| (a - b).abs() <= tolerance * b.abs().max(1.0))
    }

    #[test]
    fn gradients_are_finite_differences_of_values() {
        let delta = random(&layout(), "delta");
        for q in all() {
            let g = gradient(&q, &delta);
            for i in 0..delta.as_slice().len() {
                let at = |step: f32| {
                    let mut moved = delta.clone();
                    moved.as_mut_slice()[i] += step;
                    let step = f64::from(moved.as_slice()[i]) - f64::from(delta.as_slice()[i]);
                    (q.value(&moved), step)
                };
                // A quadratic has no third derivative: only rounding is left.
                let ((high, up), (low, down)) = (at(0.25), at(-0.25));
                let slope = (high - low) / (up - down);
                let got = f64::from(g.as_slice()[i]);
                assert!(
                    (slope - got).abs() < 1e-5 * slope.abs().max(1.0),
                    "{q:?} {i}: {slope} {got}"
                );
            }
        }
    }

    #[test]
    fn kronecker_blocks_are_the_dense_product() {
        // ½ Σ G_{oo'} A_{ii'} D_{oi} D_{o'i'} written out, with the bias as the last column.
        let (delta, kron) = (random(&layout(), "delta"), kron("one"));
        let pair = &kron.blocks[0].pairs[0];
        let d = |o: usize, i: usize| {
            f64::from(if i < 4 {
                delta.get("l.weight").unwrap()[o * 4 + i]
            } else {
                delta.get("l.bias").unwrap()[o]
            })
        };
        let mut want = 0.0;
        for (o, p) in (0..9).map(|at| (at / 3, at % 3)) {
            for (i, j) in (0..25).map(|at| (at / 5, at % 5)) {
                want += 0.5
                    * f64::from(pair.g[o * 3 + p])
                    * f64::from(pair.a[i * 5 + j])
                    * d(o, i)
                    * d(p, j);
            }
        }
        let got = Quadratic::Kron(kron).value(&delta);
        assert!((got - want).abs() < 1e-5 * want.abs(), "{got} {want}");
    }

    #[test]
    fn accumulating_adds_values_exactly_and_kinds_do_not_mix() {
        let (delta, l) = (random(&layout(), "delta"), layout());
        let others = [
            Quadratic::Identity(1.1),
            Quadratic::Masked(0.4, Mask::from_fn(&l, |i| i % 3 == 0)),
            Quadratic::Diag(random(&l, "other")),
            Quadratic::Kron(kron("two")),
            Quadratic::LowRank(LowRank::rank_one(random(&l, "third"), 2.0)),
        ];
        for (mut q, other) in all().into_iter().zip(&others) {
            let want = 0.9 * q.value(&delta) + other.value(&delta);
            q.accumulate(other, 0.9).unwrap();
            assert!(
                (q.value(&delta) - want).abs() < 1e-5 * want.abs().max(1.0),
                "{q:?}"
            );
        }
        let mut q = Quadratic::Identity(1.0);
        assert_eq!(q.accumulate(&others[2], 1.0), Err(Error::QuadraticKinds));
        let bytes: Vec<usize> = all().iter().map(Quadratic::bytes).collect();
        assert_eq!(bytes, [8, 8 + 3, 19 * 4, (25 + 9) * 4, 2 * 19 * 4 + 16]);
        let bad = Kron::default().layer(&l, "l.weight", None, spd("a", 5), spd("g", 3));
        assert!(matches!(bad, Err(Error::Length { .. })));
        let bad = Kron::default().layer(&l, "nothing", None, vec![], vec![]);
        assert!(matches!(bad, Err(Error::NoSuchTensor(_))));
    }

    #[test]
    fn identity_iii_patched_kfac_counts_t_equal_tasks_as_t_squared_unless_divided() {
        let delta = random(&layout(), "delta");
        let one = Quadratic::Kron(kron("one")).value(&delta);
        let pair = kron("one").blocks[0].pairs[0].clone();
        let tasks = 5;
        let undivided = (1..tasks).fold(pair.clone(), |sum, _| sum.patched(&pair, 3, 5));
        let (a, g) = (undivided.a, undivided.g);
        let bare = Kron::default()
            .layer(&layout(), "l.weight", Some("l.bias"), a, g)
            .unwrap();
        let ratio = Quadratic::Kron(bare).value(&delta) / one;
        assert!((ratio - 25.0).abs() < 1e-4, "T² = 25: {ratio}");
        let mut kept = kron("one");
        for _ in 1..tasks {
            kept.accumulate(&kron("one"), 1.0).unwrap();
        }
        let exact = Quadratic::Kron(kept.clone()).value(&delta) / one;
        kept.collapse();
        let collapsed = Quadratic::Kron(kept.clone()).value(&delta) / one;
        assert_eq!(kept.blocks[0].pairs.len(), 1);
        assert!(
            (exact - 5.0).abs() < 1e-4 && (collapsed - 5.0).abs() < 1e-4,
            "{exact} {collapsed}"
        );
    }

    #[test]
    fn identity_ii_any_number_of_anchors_collapses_into_one_sum() {
        let l = layout();
        let theta = random(&l, "theta");
        let mut sum = AnchoredSum::new(&theta);
        let (mut value, mut want) = (0.0, theta.zeros_like());
        for task in 0..3 {
            let anchor = random(&l, &format!("anchor {task}"));
            let mut importance = random(&l, &format!("importance {task}"));
            // Some weights matter to no task: the joint anchor is undefined there.
            importance.map_in_place(|m| if m < 0.0 { 0.0 } else { m });
            importance.as_mut_slice()[3] = 0.0;
            let mut delta = theta.clone();
            delta.axpy(-1.0, &anchor);
            let q = Quadratic::Diag(importance.clone());
            value += q.value(&delta);
            q.add_gradient(1.0, &delta, &mut want);
            sum.add(&anchor, &importance);
        }
        let mut got = theta.zeros_like();
        sum.add_gradient(1.0, &theta, &mut got);
        assert!(close(&got, &want, 1e-5));
        assert!((sum.value(&theta) - value).abs() < 1e-5 * value);
        assert_eq!((got.as_slice()[3], sum.matrix().as_slice()[3]), (0.0, 0.0));
    }

    #[test]
    fn identity_i_path_integral_on_a_separable_quadratic_is_its_curvature() {
        // L = ½ Σ H (θ − θ*)²; θ follows the gradient flow to the optimum, and SI's
        // v = ω/Δθ² with ω = −∫ g dθ tends to H/2, so M = 2cv = H at c = 1: EWC's curvature.
        let curvature = [0.25f64, 1.0, 3.5];
        let start = [2.0f64, -1.0, 0.5];
        let (mut distance, mut omega) = (start, [0.0; 3]);
        let step = 1e-3;
        for _ in 0..100_000 {
            for i in 0..3 {
                let decay = (-curvature[i] * step).exp(); // the flow, exactly
                let mid = curvature[i] * distance[i] * (-curvature[i] * step / 2.0).exp();
                omega[i] -= mid * (distance[i] * decay - distance[i]);
                distance[i] *= decay;
            }
        }
        let m: Vec<f32> = (0..3)
            .map(|i| (2.0 * omega[i] / start[i].powi(2)) as f32)
            .collect();
        for (m, h) in m.iter().zip(curvature) {
            assert!((f64::from(*m) - h).abs() < 1e-5 * h, "{m} {h}");
        }
        // The penalty is then the loss itself, at any point.
        let l = Layout::new([("x".into(), vec![3])]).unwrap();
        let delta = Weights::from_vec(&l, vec![0.3, -2.0, 1.5]).unwrap();
        let loss: f64 = (delta.as_slice().iter().zip(curvature))
            .map(|(d, h)| 0.5 * h * f64::from(*d).powi(2))
            .sum();
        let penalty = Quadratic::Diag(Weights::from_vec(&l, m).unwrap()).value(&delta);
        assert!((penalty - loss).abs() < 1e-5 * loss);
    }

    #[test]
    fn identity_iv_kl_between_gaussians_of_one_variance_is_the_diagonal() {
        let (mean, sigma) = ([0.4f64, -1.2], [0.5f64, 2.0]);
        // KL(N(μ, σ²) ‖ N(0, σ²)) by quadrature, dimension by dimension.
        let kl: f64 = (mean.iter().zip(&sigma))
            .map(|(mean, sigma)| {
                let density = |x: f64, m: f64| {
                    (-0.5 * ((x - m) / sigma).powi(2)).exp()
                        / (sigma * std::f64::consts::TAU.sqrt())
                };
                let dx = sigma * 1e-3;
                (-12_000..=12_000)
                    .map(|i| mean + f64::from(i) * dx)
                    .map(|x| density(x, *mean) * (density(x, *mean) / density(x, 0.0)).ln() * dx)
                    .sum::<f64>()
            })
            .sum();
        let l = Layout::new([("x".into(), vec![2])]).unwrap();
        let precision =
            Weights::from_vec(&l, sigma.map(|s| (1.0 / (s * s)) as f32).to_vec()).unwrap();
        let delta = Weights::from_vec(&l, mean.map(|m| m as f32).to_vec()).unwrap();
        assert!((Quadratic::Diag(precision).value(&delta) - kl).abs() < 1e-6 * kl);
    }
}
