//! Matrix factorisation: the additive forecast and a few directions on top.
//!
//! **What it does.** Learns, together with the biases, factors of tasks and of examples by
//! stochastic gradient descent over every known value.
//! **Source.** Jin & Ren, NeurIPS 2025 (card S000), whose code calls it SVD; the estimator is the
//! Surprise library's `SVD` (Funk 2006).
//! **Equation.** `ẑ_ij = μ + b_i + b_j + p_i·q_j`; for a known value, in order and row by row, with
//! `e = z − ẑ`: `b_i += η(e − λb_i)`, `b_j += η(e − λb_j)`, `p_i += η(e q_j − λp_i)`,
//! `q_j += η(e p_i − λq_j)`, both with the old values. `p, q ~ N(0, 0.001²)`.
//! **Use it** as the reference. **Not** for many examples: every new row fits all of them anew.
//! [`super::closed_form`] does the same in one product.
//! **Stores** nothing. **Costs** about 30 operations a known value and pass, a thousand passes.

use super::additive::mean;
use super::{Completer, Fitted, Known, finite};
use crate::error::Result;
use crate::table::Table;
use ebb_space::Key;

/// The most factors; fewer leave the rest at 0.
pub const LANES: usize = 8;

/// The settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factors {
    /// Factors, at most [`LANES`].
    pub factors: usize,
    /// Passes.
    pub epochs: usize,
    /// `η`.
    pub lr: f64,
    /// `λ`.
    pub ridge: f64,
    /// Deviation of the factors at the start.
    pub init: f64,
}

impl Default for Factors {
    fn default() -> Self {
        Self {
            factors: 5,
            epochs: 1000,
            lr: 0.005,
            ridge: 0.0,
            init: 0.001,
        }
    }
}

type Lanes = [f64; LANES];

/// Biases and factors, the new row's last.
pub(super) struct State {
    mean: f64,
    rows: Vec<(f64, Lanes)>,
    columns: Vec<(f64, Lanes)>,
}

impl Factors {
    /// Biases of 0 and factors drawn by who the tasks and examples are.
    fn begin(&self, train: &Table, known: &Known, key: Key) -> State {
        let draw = |key: Key, id: u64| {
            let mut lanes = [0.0; LANES];
            let used = lanes.iter_mut().take(self.factors).enumerate();
            used.for_each(|(f, lane)| *lane = self.init * key.at(f as u64).normal(id));
            (0.0, lanes)
        };
        let mut rows: Vec<(f64, Lanes)> = (train.row_ids().iter())
            .map(|id| draw(key.sub("task"), *id))
            .collect();
        rows.push(draw(key.sub("new task"), 0));
        let columns = train.column_ids().iter();
        State {
            mean: mean(train, known),
            rows,
            columns: columns.map(|id| draw(key.sub("example"), *id)).collect(),
        }
    }

    pub(super) fn descend(&self, train: &Table, known: &Known, state: &mut State) {
        let how = self;
        pulp::Arch::new().dispatch(Descent {
            how,
            train,
            known,
            state,
        });
    }
}

/// The passes, compiled for every kind of vector: a step's lanes are one register or two.
struct Descent<'a> {
    how: &'a Factors,
    train: &'a Table,
    known: &'a Known,
    state: &'a mut State,
}

impl pulp::WithSimd for Descent<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Factors { lr, ridge, .. } = *self.how;
        let State {
            mean,
            rows,
            columns,
        } = self.state;
        let mean = *mean;
        let Some((new, old)) = rows.split_last_mut() else {
            return;
        };
        for _ in 0..self.how.epochs {
            for (row, values) in old.iter_mut().zip(self.train.iter()) {
                // The row's own numbers stay in registers.
                let mut own = *row;
                for (column, z) in columns.iter_mut().zip(values) {
                    step(&mut own, column, f64::from(*z) - mean, lr, ridge);
                }
                *row = own;
            }
            for (j, z) in self.known.iter() {
                step(new, &mut columns[j], f64::from(z) - mean, lr, ridge);
            }
        }
    }
}

/// One known value, its mean taken off.
#[inline(always)]
fn step((b, p): &mut (f64, Lanes), (c, q): &mut (f64, Lanes), z: f64, lr: f64, ridge: f64) {
    let error = z - (*b + *c + dot(p, q));
    *b += lr * (error - ridge * *b);
    *c += lr * (error - ridge * *c);
    for (p, q) in p.iter_mut().zip(q) {
        let (old_p, old_q) = (*p, *q);
        *p += lr * (error * old_q - ridge * old_p);
        *q += lr * (error * old_p - ridge * old_q);
    }
}

/// Summed by halves, in an order that no vector width changes.
#[inline(always)]
fn dot(p: &Lanes, q: &Lanes) -> f64 {
    let m: Lanes = std::array::from_fn(|l| p[l] * q[l]);
    let four: [f64; 4] = std::array::from_fn(|l| m[l] + m[l + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

impl State {
    /// The new row.
    fn forecast(&self) -> Vec<f32> {
        let (b, p) = self.rows[self.rows.len() - 1];
        let each = self
            .columns
            .iter()
            .map(|(c, q)| (self.mean + b + c + dot(&p, q)) as f32);
        each.collect()
    }
}

impl Completer for Factors {
    fn name(&self) -> &'static str {
        "factors"
    }

    fn fit<'a>(&'a self, train: &'a Table, key: Key) -> Result<Box<dyn Fitted + 'a>> {
        if self.factors > LANES {
            let what = format!("{} factors where at most {LANES} are", self.factors);
            return Err(crate::Error::Request(what));
        }
        Ok(Box::new(Rows {
            how: self,
            train,
            key,
        }))
    }
}

struct Rows<'a> {
    how: &'a Factors,
    train: &'a Table,
    key: Key,
}

impl Fitted for Rows<'_> {
    fn complete(&self, known: &Known) -> Result<Vec<f32>> {
        let mut state = self.how.begin(self.train, known, self.key);
        self.how.descend(self.train, known, &mut state);
        finite(state.forecast())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{known_of, surprise};
    use super::*;
    use crate::table::tests::world;

    /// From the library's own first factors, the library's own numbers.
    #[test]
    fn the_surprise_library_comes_to_the_same_row() {
        let fixed = surprise();
        let how = Factors::default();
        let lanes = |five: &[f64]| {
            let mut lanes = [0.0; LANES];
            lanes[..5].copy_from_slice(five);
            (0.0, lanes)
        };
        let mut state = State {
            mean: mean(&fixed.train, &fixed.known),
            rows: fixed.p.chunks_exact(5).map(lanes).collect(),
            columns: fixed.q.chunks_exact(5).map(lanes).collect(),
        };
        how.descend(&fixed.train, &fixed.known, &mut state);
        fixed.agree(&state.forecast(), &fixed.factors, 1e-4);
    }

    /// A world of rank 2 over its biases is filled in far beyond what biases can.
    #[test]
    fn it_finds_directions_that_biases_cannot() {
        let t = world(30, 200, 2, 0.02, 5);
        let train = t.select(&(0..29).collect::<Vec<_>>()).unwrap();
        let known = known_of(&t, 29, &(0..60).map(|i| 3 * i).collect::<Vec<_>>());
        let error = |how: &dyn Completer| -> f64 {
            let row = how
                .fit(&train, Key::new(1, "fit"))
                .unwrap()
                .complete(&known)
                .unwrap();
            let each = row
                .iter()
                .zip(t.row(29))
                .map(|(a, b)| f64::from(a - b).powi(2));
            (each.sum::<f64>() / 200.0).sqrt()
        };
        let additive = super::super::Additive::OFFLINE;
        let (factors, additive) = (error(&Factors::default()), error(&additive));
        assert!(factors < 0.3 * additive, "{factors} {additive}");
    }

    #[test]
    fn a_column_that_goes_leaves_the_factors_of_the_others() {
        let t = world(4, 20, 1, 0.1, 6);
        let known = known_of(&t, 0, &(0..12).collect::<Vec<_>>());
        let how = Factors::default();
        let all = how.begin(&t, &known, Key::new(0, "fit"));
        let less = t.select_columns(&(0..19).collect::<Vec<_>>()).unwrap();
        let less = how.begin(&less, &known, Key::new(0, "fit"));
        assert_eq!(all.columns[..19], less.columns);
    }
}
