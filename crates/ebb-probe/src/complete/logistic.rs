//! Forecasts of flips: logistic matrix factorisation, and its additive form.
//!
//! **What they do.** Give each example's chance of turning from right to wrong.
//! **Source.** Jin & Ren, NeurIPS 2025 (card S000).
//! **Equation.** `P = σ(W H)` of rank 5, ascended on the observed entries `O`:
//! `H += η(Wᵀ(Y − O∘P) − νH)`, `W += η((Y − O∘P)Hᵀ − νW)`, both from one `P` and the old `W` and
//! `H` (the card leaves the order open); `η = 10⁻³`, `ν = 0.1`, 5,000 times, `W, H ~ N(0, 0.005²)`.
//! Additive: `σ(a_i + b_j)`, `a, b ~ N(0, 1)`, ascended in the same way (the card gives the start
//! alone). A flip is forecast where the logit is above 0.
//! **Use them** on tables of 0 and 1. **Not** for many examples: every row fits all of them anew.
//! **Store** nothing. **Cost** `4r` operations and an exponential an entry and pass.

use super::{Completer, Fitted, Known, finite};
use crate::error::Result;
use crate::table::Table;
use ebb_space::Key;

/// `η`, `ν` and how often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ascent {
    /// `η`.
    pub rate: f32,
    /// `ν`.
    pub decay: f32,
    /// Steps.
    pub steps: usize,
}

impl Default for Ascent {
    fn default() -> Self {
        Self {
            rate: 1e-3,
            decay: 0.1,
            steps: 5000,
        }
    }
}

/// `σ(w_i·h_j)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogisticFactors {
    /// Rank.
    pub rank: usize,
    /// Deviation of the factors at the start.
    pub init: f64,
    /// How it is ascended.
    pub ascent: Ascent,
}

impl Default for LogisticFactors {
    fn default() -> Self {
        Self {
            rank: 5,
            init: 0.005,
            ascent: Ascent::default(),
        }
    }
}

/// `σ(a_i + b_j)`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LogisticAdditive {
    /// How it is ascended.
    pub ascent: Ascent,
}

/// Logits `Σ_k w_ik h_kj`, some of the factors held at 1.
struct State {
    /// A row a task, the new one last; `rank` numbers each.
    w: Vec<f32>,
    /// A row a factor, `width` numbers each.
    h: Vec<f32>,
    rank: usize,
    width: usize,
    /// Factor of `w` that stays 1 (its `h` is the example's bias), and the other way round.
    additive: bool,
}

impl State {
    fn new(rank: usize, init: f64, additive: bool, train: &Table, key: Key) -> State {
        let draw = |what: &str, k: usize, id: u64| -> f32 {
            // Additive: factor 0 is (a_i, 1), factor 1 is (1, b_j).
            match (additive, what, k) {
                (true, "task", 1) | (true, "example", 0) => 1.0,
                _ => (init * key.sub(what).at(k as u64).normal(id)) as f32,
            }
        };
        let new = Key::new(0, "new task").draw(0);
        let tasks = train.row_ids().iter().chain([&new]);
        let w = tasks.flat_map(|id| (0..rank).map(move |k| (k, *id)));
        let h = (0..rank).flat_map(|k| train.column_ids().iter().map(move |id| (k, *id)));
        State {
            w: w.map(|(k, id)| draw("task", k, id)).collect(),
            h: h.map(|(k, id)| draw("example", k, id)).collect(),
            rank,
            width: train.width(),
            additive,
        }
    }

    fn logits(&self, row: usize, out: &mut [f32]) {
        out.fill(0.0);
        let w = &self.w[row * self.rank..][..self.rank];
        for (w, h) in w.iter().zip(self.h.chunks_exact(self.width)) {
            out.iter_mut().zip(h).for_each(|(z, h)| *z += w * h);
        }
    }

    fn ascend(&mut self, train: &Table, known: &Known, how: Ascent) {
        let (m, n, rank) = (train.height(), self.width, self.rank);
        let mut left = vec![0.0f32; n];
        let mut by_h = vec![0.0f32; rank * n];
        let mut by_w = vec![0.0f32; (m + 1) * rank];
        for _ in 0..how.steps {
            by_h.fill(0.0);
            for (i, y) in train.iter().enumerate() {
                self.logits(i, &mut left);
                left.iter_mut()
                    .zip(y)
                    .for_each(|(z, y)| *z = y - sigmoid(*z));
                for k in 0..rank {
                    let w = self.w[i * rank + k];
                    let to = &mut by_h[k * n..(k + 1) * n];
                    to.iter_mut().zip(&left).for_each(|(g, l)| *g += w * l);
                    by_w[i * rank + k] = dot(&left, &self.h[k * n..(k + 1) * n]);
                }
            }
            by_w[m * rank..].fill(0.0);
            for (j, y) in known.iter() {
                let logit: f32 = (0..rank)
                    .map(|k| self.w[m * rank + k] * self.h[k * n + j])
                    .sum();
                let left = y - sigmoid(logit);
                for k in 0..rank {
                    by_h[k * n + j] += self.w[m * rank + k] * left;
                    by_w[m * rank + k] += self.h[k * n + j] * left;
                }
            }
            let Ascent { rate, decay, .. } = how;
            for (k, (h, g)) in self
                .h
                .chunks_exact_mut(n)
                .zip(by_h.chunks_exact(n))
                .enumerate()
            {
                if self.additive && k == 0 {
                    continue;
                }
                let each = h.iter_mut().zip(g);
                each.for_each(|(h, g)| *h += rate * (g - decay * *h));
            }
            for (at, (w, g)) in self.w.iter_mut().zip(&by_w).enumerate() {
                if !(self.additive && at % rank == 1) {
                    *w += rate * (g - decay * *w);
                }
            }
        }
    }
}

/// Sums eight lanes, so that the compiler may use them.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (a8, b8) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a8.0.iter().zip(b8.0) {
        (0..8).for_each(|l| lanes[l] += a[l] * b[l]);
    }
    let tail: f32 = a8.1.iter().zip(b8.1).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + tail
}

/// `1/(1 + e^{−z})` to 3·10⁻⁷, in operations that vectorise: the exponential by its integer and a
/// polynomial of its fraction (Cephes' `expf`).
#[inline]
fn sigmoid(z: f32) -> f32 {
    let x = (-z).clamp(-87.0, 87.0);
    let n = (x * std::f32::consts::LOG2_E + 12_582_912.0) - 12_582_912.0;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4f32;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let e = p * r * r + r + 1.0;
    let power = f32::from_bits((((n as i32) + 127) << 23) as u32);
    1.0 / (1.0 + e * power)
}

struct Rows<'a> {
    rank: usize,
    init: f64,
    additive: bool,
    ascent: Ascent,
    train: &'a Table,
    key: Key,
}

impl Fitted for Rows<'_> {
    fn complete(&self, known: &Known) -> Result<Vec<f32>> {
        let mut state = State::new(self.rank, self.init, self.additive, self.train, self.key);
        state.ascend(self.train, known, self.ascent);
        let mut row = vec![0.0; self.train.width()];
        state.logits(self.train.height(), &mut row);
        finite(row)
    }
}

impl Completer for LogisticFactors {
    fn name(&self) -> &'static str {
        "logistic-factors"
    }

    fn fit<'a>(&'a self, train: &'a Table, key: Key) -> Result<Box<dyn Fitted + 'a>> {
        Ok(Box::new(Rows {
            rank: self.rank,
            init: self.init,
            additive: false,
            ascent: self.ascent,
            train,
            key,
        }))
    }
}

impl LogisticFactors {
    /// The logits of the train rows themselves, for the rank probe.
    pub fn fitted(&self, table: &Table, key: Key) -> Vec<f32> {
        let none = Known {
            columns: Vec::new(),
            values: Vec::new(),
        };
        let mut state = State::new(self.rank, self.init, false, table, key);
        state.ascend(table, &none, self.ascent);
        let mut all = vec![0.0; table.values().len()];
        let rows = all.chunks_exact_mut(table.width()).enumerate();
        rows.for_each(|(i, row)| state.logits(i, row));
        all
    }
}

impl Completer for LogisticAdditive {
    fn name(&self) -> &'static str {
        "logistic-additive"
    }

    fn fit<'a>(&'a self, train: &'a Table, key: Key) -> Result<Box<dyn Fitted + 'a>> {
        Ok(Box::new(Rows {
            rank: 2,
            init: 1.0,
            additive: true,
            ascent: self.ascent,
            train,
            key,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::known_of;
    use super::*;
    use crate::table::tests::table;

    fn flips(m: usize, n: usize) -> Table {
        let key = Key::new(4, "flips");
        table(m, n, |i, j| {
            let a = key.sub("row").normal(i as u64) + key.sub("column").normal(j as u64);
            f64::from(key.at(i as u64).uniform(j as u64) < 1.0 / (1.0 + (-a).exp()))
        })
    }

    #[test]
    fn the_sigmoid_is_the_sigmoid() {
        for i in -2000..=2000 {
            let z = i as f32 * 0.05;
            let want = 1.0 / (1.0 + (-f64::from(z)).exp());
            assert!((f64::from(sigmoid(z)) - want).abs() < 3e-7, "{z}");
        }
        assert!(sigmoid(f32::MAX) == 1.0 && sigmoid(f32::MIN) < 1e-37);
    }

    /// The same ascent written out in f64, entry by entry.
    fn reference(state: &State, train: &Table, known: &Known, how: Ascent) -> Vec<f64> {
        let (m, n, r) = (train.height() + 1, state.width, state.rank);
        let mut w: Vec<f64> = state.w.iter().map(|v| f64::from(*v)).collect();
        let mut h: Vec<f64> = state.h.iter().map(|v| f64::from(*v)).collect();
        let mut seen = vec![None; m * n];
        (0..(m - 1) * n).for_each(|at| seen[at] = Some(f64::from(train.values()[at])));
        known
            .iter()
            .for_each(|(j, y)| seen[(m - 1) * n + j] = Some(f64::from(y)));
        for _ in 0..how.steps {
            let (old_w, old_h) = (w.clone(), h.clone());
            let left: Vec<f64> = (0..m * n)
                .map(|at| {
                    let z: f64 = (0..r)
                        .map(|k| old_w[at / n * r + k] * old_h[k * n + at % n])
                        .sum();
                    seen[at].map_or(0.0, |y| y - 1.0 / (1.0 + (-z).exp()))
                })
                .collect();
            let (rate, decay) = (f64::from(how.rate), f64::from(how.decay));
            for k in 0..r {
                for j in 0..n {
                    let g: f64 = (0..m).map(|i| old_w[i * r + k] * left[i * n + j]).sum();
                    if !(state.additive && k == 0) {
                        h[k * n + j] += rate * (g - decay * old_h[k * n + j]);
                    }
                }
                for i in 0..m {
                    let g: f64 = (0..n).map(|j| left[i * n + j] * old_h[k * n + j]).sum();
                    if !(state.additive && k == 1) {
                        w[i * r + k] += rate * (g - decay * old_w[i * r + k]);
                    }
                }
            }
        }
        let last = (m - 1) * r;
        (0..n)
            .map(|j| (0..r).map(|k| w[last + k] * h[k * n + j]).sum())
            .collect()
    }

    #[test]
    fn both_forms_are_the_ascent_written_out() {
        let t = flips(7, 50);
        let train = t.select(&[0, 1, 2, 3, 4, 5]).unwrap();
        let known = known_of(&t, 6, &(0..20).map(|i| 2 * i).collect::<Vec<_>>());
        let how = Ascent {
            rate: 5e-3,
            decay: 0.1,
            steps: 300,
        };
        for (rank, init, additive) in [(3, 0.3, false), (2, 1.0, true)] {
            let mut state = State::new(rank, init, additive, &train, Key::new(2, "fit"));
            let want = reference(&state, &train, &known, how);
            state.ascend(&train, &known, how);
            let mut got = vec![0.0; 50];
            state.logits(6, &mut got);
            for (g, w) in got.iter().zip(&want) {
                assert!(
                    (f64::from(*g) - w).abs() < 2e-4 * (1.0 + w.abs()),
                    "{g} {w}"
                );
            }
        }
    }

    /// The additive form is held to its form: differences between examples do not depend on the
    /// task.
    #[test]
    fn the_additive_form_adds() {
        let t = flips(6, 40);
        let how = LogisticAdditive {
            ascent: Ascent {
                rate: 0.01,
                decay: 0.0,
                steps: 500,
            },
        };
        let mut state = State::new(2, 1.0, true, &t, Key::new(0, "fit"));
        let none = Known {
            columns: vec![],
            values: vec![],
        };
        state.ascend(&t, &none, how.ascent);
        let row = |i: usize| {
            let mut row = vec![0.0; 40];
            state.logits(i, &mut row);
            row
        };
        let (a, b) = (row(0), row(3));
        let apart: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
        assert!(apart.iter().all(|d| (d - apart[0]).abs() < 1e-5));
        // At the optimum every row's chances add up to its flips.
        let chances: f32 = a.iter().map(|z| sigmoid(*z)).sum();
        let flips: f32 = t.row(0).iter().sum();
        assert!((chances - flips).abs() < 1.0, "{chances} {flips}");
    }
}
