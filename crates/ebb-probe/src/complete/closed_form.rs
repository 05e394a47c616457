//! Matrix factorisation in closed form: fitted once, six unknowns for a new row.
//!
//! **What it does.** What [`super::factors`] learns anew for every row is learnt once from the train
//! rows: the examples' biases are their means, and their factors the leading singular directions of
//! what row and column means leave over. A new task is its own bias and five coordinates, by ridge
//! regression on its known columns.
//! **Source.** This project's form of card S000's matrix factorisation; not the paper's.
//! **Equation.** `R = z − μ − b_i − b_j = U S Vᵀ + noise`, `q_k = R ᵀu_k/√M`, so that a train task's
//! coordinates have variance 1. Then `(b, p) = argmin Σ_known (z_j − μ − b_j − b − p·q_j)²/σ² +
//! b²/τ² + |p|²`, with `σ²` the variance that the directions leave over and `τ²` that of the train
//! tasks' biases: the ridge is the prior that the train rows suggest, and nothing is tuned.
//! **Use it** for many examples, where it stays within 3 % of the error of [`super::factors`].
//! **Not** with a handful of train rows: then the directions are noise.
//! **Stores** six numbers an example. **Costs** a product `M × M × N` once; `12 N` operations a row.

use super::{Completer, Fitted, Known, finite};
use crate::error::Result;
use crate::linear::{gram, solve, spectrum};
use crate::table::{BLOCK, Table};
use ebb_kernels::gemm::{Mat, matmul};
use ebb_space::Key;

/// The settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedForm {
    /// Directions beyond the biases; fewer where there are few train rows.
    pub rank: usize,
}

impl Default for ClosedForm {
    fn default() -> Self {
        Self { rank: 5 }
    }
}

/// What train rows have in common.
pub struct Directions {
    /// `μ + b_j`.
    columns: Vec<f32>,
    /// `q`, direction by direction.
    directions: Vec<f32>,
    rank: usize,
    /// `σ²`.
    noise: f64,
    /// `τ²`.
    spread: f64,
}

impl ClosedForm {
    /// Fits the train rows.
    pub fn directions(&self, train: &Table) -> Directions {
        let (m, n) = (train.height(), train.width());
        let (rows, columns, mean) = train.means();
        let offsets: Vec<f32> = rows.iter().map(|r| (r - mean) as f32).collect();
        let columns: Vec<f32> = columns.iter().map(|c| *c as f32).collect();
        // The part of R that a block of columns holds.
        let residual = |from: usize, width: usize, block: &mut [f32]| {
            let columns = &columns[from..from + width];
            let rows = block.chunks_exact_mut(width).zip(train.iter());
            for ((to, row), offset) in rows.zip(&offsets) {
                let each = to.iter_mut().zip(&row[from..from + width]).zip(columns);
                each.for_each(|((to, z), c)| *to = z - c - offset);
            }
        };
        let (energy, vectors) = spectrum(&gram(m, n, residual), m);
        let rank = self.rank.min(m.saturating_sub(2)).min(n.saturating_sub(2));
        let scale = 1.0 / (m as f64).sqrt();
        let left: Vec<f32> = vectors[..rank]
            .iter()
            .flat_map(|u| u.iter().map(|u| (u * scale) as f32))
            .collect();
        let mut directions = vec![0.0; rank * n];
        let (mut block, mut product) = (vec![0.0; m * BLOCK], vec![0.0; rank * BLOCK]);
        for from in (0..n).step_by(BLOCK) {
            let width = BLOCK.min(n - from);
            residual(from, width, &mut block[..m * width]);
            let (left, block) = (Mat::new(&left, rank, m), Mat::new(&block, m, width));
            matmul(&mut product, left, block, false);
            for (k, q) in product[..rank * width].chunks_exact(width).enumerate() {
                directions[k * n + from..][..width].copy_from_slice(q);
            }
        }
        let free = m.saturating_sub(1 + rank) * n.saturating_sub(1 + rank);
        let all: f64 = energy.iter().sum();
        let noise = energy[rank..].iter().sum::<f64>() / free.max(1) as f64;
        let spread = offsets.iter().map(|o| f64::from(*o).powi(2)).sum::<f64>();
        // A world without noise still needs a regression that can be solved.
        let floor = 1e-9 * (all / (m * n) as f64) + f64::MIN_POSITIVE;
        Directions {
            columns,
            directions,
            rank,
            noise: noise.max(floor),
            spread: (spread / m.saturating_sub(1).max(1) as f64).max(f64::MIN_POSITIVE),
        }
    }
}

impl Directions {
    /// `b` and `p` of a new row.
    pub fn coordinates(&self, known: &Known) -> Vec<f64> {
        let (n, size) = (self.columns.len(), self.rank + 1);
        let mut normal = vec![0.0; size * size];
        let mut right = vec![0.0; size];
        normal[0] = self.noise / self.spread;
        (1..size).for_each(|k| normal[k * size + k] = self.noise);
        let mut x = vec![1.0; size];
        for (j, z) in known.iter() {
            (0..self.rank).for_each(|k| x[k + 1] = f64::from(self.directions[k * n + j]));
            let y = f64::from(z) - f64::from(self.columns[j]);
            for (a, xa) in x.iter().enumerate() {
                right[a] += xa * y;
                let row = normal[a * size..].iter_mut().zip(&x);
                row.for_each(|(s, xb)| *s += xa * xb);
            }
        }
        // The ridge makes it positive definite; numbers too large for that are caught as a
        // forecast that is not finite.
        solve(normal, right).unwrap_or_else(|| vec![f64::NAN; size])
    }

    /// The row that belongs to them.
    pub fn row(&self, coordinates: &[f64]) -> Vec<f32> {
        let n = self.columns.len();
        let mut row: Vec<f32> = self
            .columns
            .iter()
            .map(|c| c + coordinates[0] as f32)
            .collect();
        for (k, p) in coordinates[1..].iter().enumerate() {
            let p = *p as f32;
            let q = &self.directions[k * n..(k + 1) * n];
            row.iter_mut().zip(q).for_each(|(z, q)| *z += p * q);
        }
        row
    }
}

impl Completer for ClosedForm {
    fn name(&self) -> &'static str {
        "closed-form"
    }

    fn fit<'a>(&'a self, train: &'a Table, _: Key) -> Result<Box<dyn Fitted + 'a>> {
        Ok(Box::new(self.directions(train)))
    }
}

impl Fitted for Directions {
    fn complete(&self, known: &Known) -> Result<Vec<f32>> {
        finite(self.row(&self.coordinates(known)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::known_of;
    use super::super::{Additive, Factors};
    use super::*;
    use crate::table::tests::world;

    fn error(how: &dyn Completer, t: &Table, new: usize, known: &[usize]) -> f64 {
        let rows: Vec<usize> = (0..t.height()).filter(|i| *i != new).collect();
        let train = t.select(&rows).unwrap();
        let known = known_of(t, new, known);
        let row = how
            .fit(&train, Key::new(1, "fit"))
            .unwrap()
            .complete(&known)
            .unwrap();
        let each = row
            .iter()
            .zip(t.row(new))
            .map(|(a, b)| f64::from(a - b).powi(2));
        (each.sum::<f64>() / t.width() as f64).sqrt()
    }

    /// Without noise a new row of the same world is found exactly.
    #[test]
    fn a_world_without_noise_is_completed_exactly() {
        let t = world(24, 5000, 3, 0.0, 8);
        let known: Vec<usize> = (0..30).map(|i| 160 * i + 7).collect();
        let got = error(&ClosedForm { rank: 3 }, &t, 11, &known);
        assert!(got < 2e-3, "{got}");
    }

    /// The ridge against the same regression written out in f64 on the same directions.
    #[test]
    fn coordinates_are_those_of_the_written_out_regression() {
        let t = world(12, 300, 2, 0.3, 9);
        let d = ClosedForm { rank: 2 }.directions(&t);
        let known = known_of(&t, 3, &(0..40).map(|i| 7 * i).collect::<Vec<_>>());
        let at = d.coordinates(&known);
        // At the optimum the derivative by each unknown is 0.
        let n = t.width();
        let x = |j: usize| {
            [
                1.0,
                f64::from(d.directions[j]),
                f64::from(d.directions[n + j]),
            ]
        };
        for a in 0..3 {
            let pull = if a == 0 { at[0] / d.spread } else { at[a] };
            let slope: f64 = known
                .iter()
                .map(|(j, z)| {
                    let fit: f64 = x(j).iter().zip(&at).map(|(x, c)| x * c).sum();
                    (f64::from(z) - f64::from(d.columns[j]) - fit) * x(j)[a] / d.noise
                })
                .sum();
            assert!(
                (slope - pull).abs() < 1e-6 * (1.0 + pull.abs()),
                "{a}: {slope} {pull}"
            );
        }
    }

    /// `q` are the singular directions in f64, up to sign: their Gram matrix is diagonal and holds
    /// the singular values.
    #[test]
    fn directions_are_orthogonal_and_as_long_as_the_singular_values() {
        let (m, n) = (9, 6000);
        let t = world(m, n, 3, 0.2, 10);
        let (rows, columns, mean) = t.means();
        let mut g = vec![0.0; m * m];
        for (j, column) in columns.iter().enumerate() {
            let r: Vec<f64> = (0..m)
                .map(|i| f64::from(t.row(i)[j]) - rows[i] - column + mean)
                .collect();
            (0..m * m).for_each(|at| g[at] += r[at / m] * r[at % m]);
        }
        let (want, _) = spectrum(&g, m);
        let d = ClosedForm { rank: 4 }.directions(&t);
        for a in 0..4 {
            for b in 0..4 {
                let pairs = d.directions[a * n..(a + 1) * n]
                    .iter()
                    .zip(&d.directions[b * n..]);
                let dot: f64 = pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                let wanted = if a == b { want[a] / m as f64 } else { 0.0 };
                assert!(
                    (dot - wanted).abs() < 1e-4 * want[0] / m as f64,
                    "{a} {b} {dot}"
                );
            }
        }
    }

    #[test]
    fn with_noise_it_stays_near_the_descended_factors() {
        let t = world(40, 400, 2, 0.2, 12);
        let known: Vec<usize> = (0..30).map(|i| 13 * i).collect();
        let mean = |how: &dyn Completer| -> f64 {
            (0..6).map(|new| error(how, &t, new, &known)).sum::<f64>() / 6.0
        };
        let (fast, slow) = (mean(&ClosedForm::default()), mean(&Factors::default()));
        let additive = mean(&Additive::OFFLINE);
        assert!(
            fast < 1.03 * slow && fast < additive,
            "{fast} {slow} {additive}"
        );
    }
}
