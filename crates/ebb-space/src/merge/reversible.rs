//! Reversible merging: several adapters in common bases, from which each can be rebuilt.
//!
//! **What it does.** At each position of a module's factors (an input's column of A, an output's
//! row of B) the r-vectors of the n adapters are replaced by their mean, p common directions, and p
//! coefficients an adapter. No adapter is lost in the merge, and which one serves is chosen later.
//! **Source.** RMM, "Reversible model merging for low-rank weights", 2025 (card S127).
//! **Equation.** `X = [x_1 … x_n]`, `X_c = X − μ1ᵀ`, M the first p left singular vectors of `X_c`,
//! `C = Mᵀ X_c`; `x̂_i = μ + M c_i`, which minimises `‖X − μ1ᵀ − M C‖_F`.
//! **Use it** for many adapters of one origin. **Not** for a few: `p (r + n) + r` values a position
//! take the place of `r n`, so that `p < r (n − 1) / (r + n)` is needed to save anything; nor without
//! a look at its rival, each adapter cut by itself to the same storage ([`Factors::cut`]).
//! **Stores** `p (r + n) + r` values a position. **Costs** an eigenvalue problem of size
//! `min(r, n)` a position.
//!
//! Decided here: factors are balanced first and get the signs of the first adapter's components,
//! since r-vectors of adapters that were trained from different starts are not otherwise
//! comparable; and p is an average: [`split`] gives each position as many directions as its error
//! is worth, at the storage of p everywhere. `p = min(r, n − 1)` everywhere is exact.

use crate::eigen::symmetric_eigen;

/// Directions weaker than this share of the position's strongest are rounding.
const ROUNDING: f64 = 1e-24;

/// The positions of one factor of several adapters, in common bases.
#[derive(Clone, Debug, PartialEq)]
pub struct Shared {
    rank: usize,
    models: usize,
    /// Directions of each position.
    counts: Vec<u8>,
    /// `rank` values a position.
    means: Vec<f32>,
    /// `rank` values a direction, position by position.
    directions: Vec<f32>,
    /// `models` values a direction.
    coefficients: Vec<f32>,
}

/// Squared singular values of the centred r-vectors of each position, `min(rank, n − 1)` a position,
/// the greatest first. A model is `positions × rank` values.
///
/// # Panics
/// If the models have different lengths.
pub fn spectrum(models: &[&[f64]], rank: usize) -> Vec<f64> {
    let mut all = Vec::new();
    let most = most(models.len(), rank);
    for position in 0..positions(models, rank) {
        let (values, _) = decomposed(&Centred::of(models, rank, position));
        all.extend(values.iter().take(most));
    }
    all
}

/// How many directions each position gets, of a budget of values to store, so that the sum of the
/// squared errors is least: the strongest directions of all, until they have spent it. A part is
/// one factor: its spectrum, how many directions a position has there, and what one costs.
pub fn split(parts: &[(&[f64], usize, usize)], budget: usize) -> Vec<Vec<u8>> {
    let mut counts: Vec<Vec<u8>> = parts
        .iter()
        .map(|(values, most, _)| vec![0; values.len().checked_div(*most).unwrap_or(0)])
        .collect();
    let mut order: Vec<(f64, usize, usize)> = Vec::new();
    for (part, (values, most, cost)) in parts.iter().enumerate() {
        for (at, value) in values.iter().enumerate() {
            let strongest = values[at / most * most];
            if *value > ROUNDING * strongest {
                order.push((value / *cost as f64, part, at));
            }
        }
    }
    // Of equal worth the earlier: a position's directions come in their order.
    order.sort_by(|x, y| y.0.total_cmp(&x.0).then((x.1, x.2).cmp(&(y.1, y.2))));
    let mut spent = 0;
    for (_, part, at) in order {
        let (_, most, cost) = parts[part];
        if spent + cost > budget {
            break;
        }
        spent += cost;
        counts[part][at / most] += 1;
    }
    counts
}

impl Shared {
    /// The models' r-vectors with `counts` directions at each position.
    ///
    /// # Panics
    /// If the models have different lengths, or there is not one count a position.
    pub fn of(models: &[&[f64]], rank: usize, counts: Vec<u8>) -> Shared {
        let n = models.len();
        assert_eq!(counts.len(), positions(models, rank), "a count a position");
        let (mut means, mut directions, mut coefficients) = (Vec::new(), Vec::new(), Vec::new());
        for (position, &count) in counts.iter().enumerate() {
            let centred = Centred::of(models, rank, position);
            means.extend(centred.mean.iter().map(|&v| v as f32));
            let (_, basis) = decomposed(&centred);
            for direction in basis.chunks_exact(rank).take(usize::from(count)) {
                directions.extend(direction.iter().map(|&v| v as f32));
                let along = |x: &[f64]| x.iter().zip(direction).map(|(x, m)| x * m).sum::<f64>();
                coefficients.extend(centred.rows.chunks_exact(rank).map(|x| along(x) as f32));
            }
        }
        Shared {
            rank,
            models: n,
            counts,
            means,
            directions,
            coefficients,
        }
    }

    /// From what was stored; `None` if the lengths contradict each other.
    pub fn from_parts(
        rank: usize,
        models: usize,
        counts: Vec<u8>,
        means: Vec<f32>,
        directions: Vec<f32>,
        coefficients: Vec<f32>,
    ) -> Option<Shared> {
        let all: usize = counts.iter().map(|&c| usize::from(c)).sum();
        let fits = counts.len().checked_mul(rank) == Some(means.len())
            && all.checked_mul(rank) == Some(directions.len())
            && all.checked_mul(models) == Some(coefficients.len());
        fits.then_some(Shared {
            rank,
            models,
            counts,
            means,
            directions,
            coefficients,
        })
    }

    /// Directions of each position, means, directions and coefficients.
    pub fn parts(&self) -> (&[u8], &[f32], &[f32], &[f32]) {
        (
            &self.counts,
            &self.means,
            &self.directions,
            &self.coefficients,
        )
    }

    /// How many values it stores, without the counts.
    pub fn values(&self) -> usize {
        self.means.len() + self.directions.len() + self.coefficients.len()
    }

    /// The r-vectors of one model.
    ///
    /// # Panics
    /// If there is no such model.
    pub fn rebuild(&self, model: usize) -> Vec<f64> {
        assert!(model < self.models, "model {model} of {}", self.models);
        let mut rebuilt: Vec<f64> = self.means.iter().map(|&v| f64::from(v)).collect();
        let directions = self.directions.chunks_exact(self.rank);
        let mut stored = directions.zip(self.coefficients.chunks_exact(self.models));
        for (x, &count) in rebuilt.chunks_exact_mut(self.rank).zip(&self.counts) {
            for (direction, coefficients) in stored.by_ref().take(usize::from(count)) {
                for (x, m) in x.iter_mut().zip(direction) {
                    *x += f64::from(coefficients[model]) * f64::from(*m);
                }
            }
        }
        rebuilt
    }
}

/// How many directions hold everything.
fn most(models: usize, rank: usize) -> usize {
    rank.min(models.saturating_sub(1)).min(usize::from(u8::MAX))
}

fn positions(models: &[&[f64]], rank: usize) -> usize {
    let first = models.first().map_or(0, |m| m.len());
    assert!(
        rank > 0 && models.iter().all(|m| m.len() == first),
        "models of one length"
    );
    first / rank
}

/// The r-vectors of one position.
struct Centred {
    rank: usize,
    mean: Vec<f64>,
    /// A row a model.
    rows: Vec<f64>,
}

impl Centred {
    fn of(models: &[&[f64]], rank: usize, position: usize) -> Centred {
        let at = position * rank..(position + 1) * rank;
        let mut mean = vec![0.0; rank];
        for model in models {
            for (mean, x) in mean.iter_mut().zip(&model[at.clone()]) {
                *mean += x / models.len() as f64;
            }
        }
        let centre = |model: &&[f64]| -> Vec<f64> {
            let x = model[at.clone()].iter().zip(&mean);
            x.map(|(x, mean)| x - mean).collect()
        };
        Centred {
            rank,
            rows: models.iter().flat_map(centre).collect(),
            mean,
        }
    }
}

/// Squared singular values, the greatest first, and orthonormal directions as rows.
fn decomposed(centred: &Centred) -> (Vec<f64>, Vec<f64>) {
    let (r, n) = (centred.rank, centred.rows.len() / centred.rank);
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    if r <= n {
        let mut scatter = vec![0.0; r * r];
        for row in centred.rows.chunks_exact(r) {
            for (scatter, x) in scatter.chunks_exact_mut(r).zip(row) {
                scatter.iter_mut().zip(row).for_each(|(s, y)| *s += x * y);
            }
        }
        let (values, vectors) = symmetric_eigen(&scatter, r);
        let descending = vectors.rchunks_exact(r).flatten().copied().collect();
        return (
            values.into_iter().rev().map(|v| v.max(0.0)).collect(),
            descending,
        );
    }
    let rows: Vec<&[f64]> = centred.rows.chunks_exact(r).collect();
    let gram: Vec<f64> = (0..n * n)
        .map(|at| dot(rows[at / n], rows[at % n]))
        .collect();
    let (values, vectors) = symmetric_eigen(&gram, n);
    let mut basis: Vec<f64> = Vec::with_capacity(n * r);
    for vector in vectors.rchunks_exact(n) {
        let mut direction = vec![0.0; r];
        for (row, v) in rows.iter().zip(vector) {
            direction
                .iter_mut()
                .zip(*row)
                .for_each(|(d, x)| *d += v * x);
        }
        // Weak directions lean on strong ones by rounding.
        for _ in 0..2 {
            for earlier in basis.chunks_exact(r) {
                let along = dot(&direction, earlier);
                direction
                    .iter_mut()
                    .zip(earlier)
                    .for_each(|(d, e)| *d -= along * e);
            }
        }
        let length = dot(&direction, &direction).sqrt();
        let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
        basis.extend(direction.iter().map(|d| d * scale));
    }
    (
        values.into_iter().rev().map(|v| v.max(0.0)).collect(),
        basis,
    )
}

#[cfg(test)]
mod tests {
    use super::super::Factors;
    use super::super::factors::tests::{dense, random};
    use super::*;
    use crate::Key;

    fn draws(n: usize, name: &str) -> Vec<f64> {
        let key = Key::new(4, name);
        (0..n as u64).map(|i| key.normal(i)).collect()
    }

    fn square_error(models: &[&[f64]], shared: &Shared) -> f64 {
        let of = |(i, model): (usize, &&[f64])| -> f64 {
            let rebuilt = shared.rebuild(i);
            rebuilt
                .iter()
                .zip(*model)
                .map(|(x, y)| (x - y).powi(2))
                .sum()
        };
        models.iter().enumerate().map(of).sum()
    }

    #[test]
    fn the_bases_are_optimal_and_their_error_is_what_the_spectrum_says() {
        // Fewer models than the rank, and more.
        for (n, rank) in [(4, 6), (9, 5)] {
            let models: Vec<Vec<f64>> = (0..n)
                .map(|i| draws(7 * rank, &format!("{n} {i}")))
                .collect();
            let models: Vec<&[f64]> = models.iter().map(Vec::as_slice).collect();
            let most = most(n, rank);
            let spectrum = spectrum(&models, rank);
            assert_eq!(spectrum.len(), 7 * most);
            for p in 0..=most {
                let shared = Shared::of(&models, rank, vec![p as u8; 7]);
                let positions = spectrum.chunks_exact(most);
                let left: f64 = positions.map(|s| s[p..].iter().sum::<f64>()).sum();
                let found = square_error(&models, &shared);
                assert!(
                    (found - left).abs() < 1e-5 * (1.0 + left),
                    "{n} {p}: {found} {left}"
                );
                let stored = 7 * (p * (rank + n) + rank);
                assert_eq!(shared.values(), stored);
                // No other orthonormal basis is better: those of unrelated vectors.
                for round in 0..20 {
                    let other: Vec<Vec<f64>> = (0..n)
                        .map(|i| draws(7 * rank, &format!("other {round} {i}")))
                        .collect();
                    let other: Vec<&[f64]> = other.iter().map(Vec::as_slice).collect();
                    let mut theirs = 0.0;
                    for position in 0..7 {
                        let (_, basis) = decomposed(&Centred::of(&other, rank, position));
                        let own = Centred::of(&models, rank, position);
                        for x in own.rows.chunks_exact(rank) {
                            let dot = |m: &[f64]| x.iter().zip(m).map(|(x, m)| x * m).sum::<f64>();
                            let held: f64 = basis
                                .chunks_exact(rank)
                                .take(p)
                                .map(|m| dot(m).powi(2))
                                .sum();
                            theirs += x.iter().map(|x| x * x).sum::<f64>() - held;
                        }
                    }
                    assert!(theirs >= left - 1e-9, "{n} {p}");
                }
            }
        }
    }

    #[test]
    fn all_directions_are_exact_and_one_model_is_its_mean() {
        for (n, rank) in [(3, 8), (8, 3), (1, 4)] {
            let each: Vec<Factors> = (0..n)
                .map(|i| random(rank, 10, 6, &format!("{n} {i}")).balanced().0)
                .collect();
            let b: Vec<&[f64]> = each.iter().map(|f| f.positions().1).collect();
            let a: Vec<&[f64]> = each.iter().map(|f| f.positions().0).collect();
            let p = most(n, rank) as u8;
            let (a, b) = (
                Shared::of(&a, rank, vec![p; 10]),
                Shared::of(&b, rank, vec![p; 6]),
            );
            for (i, before) in each.iter().enumerate() {
                let after = Factors::of_positions(rank, a.rebuild(i), b.rebuild(i));
                let worst = dense(before)
                    .iter()
                    .zip(dense(&after))
                    .fold(0.0f64, |m, (x, y)| m.max((x - y).abs()));
                assert!(worst < 1e-5, "{n} models of rank {rank}: {worst}");
            }
        }
    }

    #[test]
    fn a_budget_goes_where_the_error_is() {
        let models: Vec<Vec<f64>> = (0..6)
            .map(|i| {
                let mut x = draws(20 * 4, &format!("{i}"));
                // The last half of the positions hardly differ.
                x[40..].iter_mut().for_each(|v| *v *= 0.01);
                x
            })
            .collect();
        let models: Vec<&[f64]> = models.iter().map(Vec::as_slice).collect();
        let (values, most) = (spectrum(&models, 4), most(6, 4));
        let cost = 4 + 6;
        let counts = split(&[(&values, most, cost)], 20 * 2 * cost).remove(0);
        assert_eq!(counts.iter().map(|&c| usize::from(c)).sum::<usize>(), 40);
        assert!(counts[..10].iter().all(|c| *c == 4), "{counts:?}");
        let even = square_error(&models, &Shared::of(&models, 4, vec![2; 20]));
        let split_up = square_error(&models, &Shared::of(&models, 4, counts));
        assert!(split_up < 0.01 * even, "{split_up} {even}");
        // What is no direction is never taken, whatever the budget.
        let same = [models[0], models[0]];
        let flat = spectrum(&same, 4);
        let none = split(&[(&flat, 1, 6)], usize::MAX / 2);
        assert_eq!(none, [vec![0; 20]]);
    }

    #[test]
    fn stored_parts_come_back_or_are_refused() {
        let models: Vec<Vec<f64>> = (0..3).map(|i| draws(8, &format!("{i}"))).collect();
        let models: Vec<&[f64]> = models.iter().map(Vec::as_slice).collect();
        let shared = Shared::of(&models, 4, vec![1, 2]);
        let (counts, means, directions, coefficients) = shared.parts();
        let again = |rank, models, counts: &[u8]| {
            let [m, d, c] = [means, directions, coefficients].map(<[f32]>::to_vec);
            Shared::from_parts(rank, models, counts.to_vec(), m, d, c)
        };
        assert_eq!(again(4, 3, counts).as_ref(), Some(&shared));
        for (rank, models, counts) in [(5, 3, &[1, 2][..]), (4, 2, &[1, 2]), (4, 3, &[2, 2])] {
            assert_eq!(again(rank, models, counts), None);
        }
        assert_eq!(again(usize::MAX, 3, counts), None);
    }
}
