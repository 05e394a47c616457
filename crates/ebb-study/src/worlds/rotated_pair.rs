//! Two regression tasks, the second a partial rotation of the first.
//!
//! **What it does.** Task 1 is `(X, y = Xw*)` with `X` of rank `d` in `p` dimensions; task 2 is
//! `(XO, y)`, where `O` turns a random `m`-dimensional subspace and leaves the rest. Both are learned
//! to the end by minimum-norm steps. How much of task 1 is then lost depends on the dissimilarity
//! `α = m/p` and the over-parameterisation `β = 1 − d/p`: it rises with `α` when `d` is near `p`, and
//! peaks half-way when `d` is small.
//! **Source.** Goldfarb et al., The joint effect of task similarity and overparameterization on
//! catastrophic forgetting, ICLR 2024 (card S041).
//! **Equations.** `w_1 = X⁺y`, `w_2 = w_1 + (XO)⁺(y − XOw_1)`, forgetting `‖Xw_2 − y‖²`. For `X` a
//! projection `P` this is `‖P Oᵀ (w_1 − P O w_1)‖²`, and relative to `‖Xw_1‖²` its mean tends to
//! `α²(1−α)²` as `β → 1` and is `2α` at `β = 0`. For `d = 1` it is exact (derived here):
//! `E[a²(1−a)²]` with `a = 1 − B(1−ρ)`, where `B ~ Beta(m/2, (p−m)/2)` is the part of `w_1` in the
//! subspace and `ρ` the first coordinate of a uniform direction in `R^m`.
//! **Use it** as an oracle for forecasts from similarity. Labels do not change with the rotation.
//! **Costs** two Gram–Schmidt bases a draw: O(p m²).

use ebb_space::{Direction, Key};

use super::linalg::{axpy, dot, haar_frame};
use super::{Check, Error, Finding, Result, deviation, largest, mean, number, smallest};

/// An orthogonal map of `R^p`: the identity off an `m`-dimensional subspace, Haar on it.
pub struct Rotation {
    /// Orthonormal basis of the subspace: m vectors of length p.
    basis: Vec<Vec<f64>>,
    /// What happens on it: m rows of length m.
    turn: Vec<Vec<f64>>,
}

impl Rotation {
    /// A random subspace and a random rotation of it (of O(m): with reflections).
    ///
    /// # Panics
    /// If `m > p`.
    pub fn keyed(key: Key, p: usize, m: usize) -> Rotation {
        Rotation {
            basis: haar_frame(&mut key.sub("basis").stream(), p, m),
            turn: haar_frame(&mut key.sub("turn").stream(), m, m),
        }
    }

    /// `O x`.
    pub fn apply(&self, x: &[f64]) -> Vec<f64> {
        let inside: Vec<f64> = self.basis.iter().map(|q| dot(q, x)).collect();
        let turned = self.turn.iter().map(|row| dot(row, &inside));
        self.replace(x, &inside, turned)
    }

    /// `Oᵀ x`.
    pub fn apply_transposed(&self, x: &[f64]) -> Vec<f64> {
        let inside: Vec<f64> = self.basis.iter().map(|q| dot(q, x)).collect();
        let mut turned = vec![0.0; inside.len()];
        for (row, &c) in self.turn.iter().zip(&inside) {
            axpy(&mut turned, c, row);
        }
        self.replace(x, &inside, turned.into_iter())
    }

    fn replace(&self, x: &[f64], inside: &[f64], turned: impl Iterator<Item = f64>) -> Vec<f64> {
        let mut out = x.to_vec();
        for ((q, c), t) in self.basis.iter().zip(inside).zip(turned) {
            axpy(&mut out, t - c, q);
        }
        out
    }
}

/// Forgetting relative to `‖Xw_1‖²` for `X` the projection on the first `d` coordinates and `w_1`
/// the first of them. Only the rotation is random, and turning `P` and `w_1` with it changes
/// nothing, so this loses no generality.
///
/// # Panics
/// If `d` is 0 or exceeds the dimension.
pub fn forgetting(rotation: &Rotation, p: usize, d: usize) -> f64 {
    assert!((1..=p).contains(&d), "rank {d} in {p} dimensions");
    let mut w1 = vec![0.0; p];
    w1[0] = 1.0;
    let turned = rotation.apply(&w1);
    let mut missing = w1;
    axpy(&mut missing[..d], -1.0, &turned[..d]);
    let change = rotation.apply_transposed(&missing);
    dot(&change[..d], &change[..d])
}

/// The limit of highly over-parameterised tasks, `β → 1`.
pub fn limit_overparameterised(alpha: f64) -> f64 {
    (alpha * (1.0 - alpha)).powi(2)
}

/// The value at the interpolation threshold, `β = 0`.
pub fn limit_threshold(alpha: f64) -> f64 {
    2.0 * alpha
}

/// The expected forgetting for rank 1, exactly.
///
/// # Panics
/// Unless `1 ≤ m ≤ p`.
pub fn expected_rank_one(p: usize, m: usize) -> f64 {
    assert!((1..=p).contains(&m), "a subspace of dimension {m} in {p}");
    let (p, m) = (p as f64, m as f64);
    // E B^k of Beta(m/2, (p−m)/2), and E (1−ρ)^k from E ρ² = 1/m, E ρ⁴ = 3/(m(m+2)).
    let b = |k: i32| {
        (0..k)
            .map(|j| (m + 2.0 * f64::from(j)) / (p + 2.0 * f64::from(j)))
            .product::<f64>()
    };
    let u = [
        0.0,
        1.0,
        1.0 + 1.0 / m,
        1.0 + 3.0 / m,
        1.0 + 6.0 / m + 3.0 / (m * (m + 2.0)),
    ];
    b(2) * u[2] - 2.0 * b(3) * u[3] + b(4) * u[4]
}

/// Measures forgetting over `draws` rotations (card: p = 100, d in {2, 25, 75, 97}, α in {.1, .25,
/// .5, .75, 1}, 200 draws). Controls: the identity in the place of the rotation has no peak, and
/// neither has a task pair near the interpolation threshold.
///
/// # Errors
/// [`Error::Sizes`] for fewer than 2 draws; otherwise none in practice.
pub fn study(seed: u64, draws: usize) -> Result<Finding> {
    const P: usize = 100;
    const RANKS: [usize; 6] = [1, 2, 25, 75, 97, P];
    const TURNED: [usize; 5] = [10, 25, 50, 75, 100];
    if draws < 2 {
        return Err(Error::Sizes(
            "a standard error needs at least 2 draws".into(),
        ));
    }
    let key = Key::new(seed, "S041");
    // samples[rank][alpha][draw]: all ranks meet the same rotations.
    let mut samples = vec![vec![Vec::with_capacity(draws); TURNED.len()]; RANKS.len()];
    for (a, &m) in TURNED.iter().enumerate() {
        for draw in 0..draws as u64 {
            let rotation = Rotation::keyed(key.at(m as u64).at(draw), P, m);
            for (d, &rank) in RANKS.iter().enumerate() {
                samples[d][a].push(forgetting(&rotation, P, rank));
            }
        }
    }
    let alpha = |a: usize| TURNED[a] as f64 / P as f64;
    let mut measured = Vec::new();
    for (d, rank) in RANKS.iter().enumerate() {
        for (a, sample) in samples[d].iter().enumerate() {
            let name = format!("forgetting, rank {rank}, dissimilarity {}", alpha(a));
            let protocol = "two regression tasks, p = 100, X a projection, relative to the signal; 95 % interval";
            measured.push(number(name, sample, Direction::Lower, protocol)?);
        }
    }
    let curve = |rank: usize| -> Vec<f64> {
        let d = RANKS
            .iter()
            .position(|&r| r == rank)
            .expect("the rank is measured");
        samples[d].iter().map(|sample| mean(sample)).collect()
    };
    // Where nothing is forgotten at all there is no peak: 0 over the smallest number is 0.
    let over = |curve: &[f64], others: &[usize]| {
        smallest(
            others
                .iter()
                .map(|&a| curve[2] / curve[a].max(f64::MIN_POSITIVE)),
        )
    };
    let ends = |curve: &[f64]| over(curve, &[0, 4]);
    let exact = |d: usize, theory: &dyn Fn(usize) -> f64| {
        largest((0..TURNED.len()).map(|a| deviation(&samples[d][a], theory(a))))
    };
    let identity = Rotation {
        basis: Vec::new(),
        turn: Vec::new(),
    };
    let still: Vec<f64> = TURNED.iter().map(|_| forgetting(&identity, P, 2)).collect();
    let peaked = |name: &str, curve: &[f64]| {
        Check::at_least(
            format!("{name}: forgetting half-way over forgetting at either end"),
            ends(curve),
            1.5,
        )
    };
    let near_threshold = curve(97);
    Ok(Finding {
        id: "S041".into(),
        claim:
            "forgetting peaks at half similarity when highly over-parameterised, and rises with \
                dissimilarity near the interpolation threshold"
                .into(),
        measured,
        expectations: vec![
            peaked("rank 2", &curve(2)),
            Check::above(
                "rank 2: forgetting half-way over the next highest",
                over(&curve(2), &[0, 1, 3, 4]),
                1.0,
            ),
            Check::above(
                "rank 97: smallest rise from one dissimilarity to the next",
                smallest(near_threshold.windows(2).map(|pair| pair[1] - pair[0])),
                0.0,
            ),
            Check::at_most(
                "rank 1 against the exact mean: largest deviation in standard errors",
                exact(0, &|a| expected_rank_one(P, TURNED[a])),
                3.0,
            ),
            Check::at_most(
                "rank p against 2α: largest deviation in standard errors",
                exact(5, &|a| limit_threshold(alpha(a))),
                3.0,
            ),
            Check::at_most(
                "rank 2 against α²(1−α)²: largest difference",
                largest(
                    curve(2)
                        .iter()
                        .enumerate()
                        .map(|(a, f)| (f - limit_overparameterised(alpha(a))).abs()),
                ),
                3.0 / P as f64,
            ),
        ],
        controls: vec![
            peaked("identity in the place of the rotation", &still),
            peaked("rank 97, near the interpolation threshold", &near_threshold),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worlds::linalg::{Cholesky, gram, normals, squared_distance};

    #[test]
    fn a_small_study_holds_and_its_controls_fail() {
        let finding = study(0, 60).unwrap();
        assert!(finding.holds(), "{finding:#?}");
    }

    #[test]
    fn a_rotation_is_orthogonal_and_its_transpose_undoes_it() {
        let key = Key::new(1, "rotation");
        let rotation = Rotation::keyed(key, 12, 5);
        let x = normals(&mut key.sub("x").stream(), 12);
        let turned = rotation.apply(&x);
        assert!((dot(&turned, &turned) - dot(&x, &x)).abs() < 1e-12);
        assert!(squared_distance(&rotation.apply_transposed(&turned), &x) < 1e-24);
        assert!(squared_distance(&turned, &x) > 0.1);
    }

    /// The published equations with a general X of full row rank and explicit pseudo-inverses,
    /// against the reduction for X = P: both see X only through its row space.
    #[test]
    fn the_reduction_agrees_with_the_equations_as_published() {
        let (p, d, m) = (9, 4, 6);
        let key = Key::new(2, "equations");
        let rotation = Rotation::keyed(key, p, m);
        // w + Aᵀ(AAᵀ)⁻¹(y − Aw), rows of A
        let learn = |w: &[f64], rows: &[Vec<f64>], y: &[f64]| {
            let missing: Vec<f64> = rows.iter().zip(y).map(|(a, y)| y - dot(a, w)).collect();
            let mut w = w.to_vec();
            for (a, c) in rows
                .iter()
                .zip(Cholesky::new(&gram(rows)).unwrap().solve(&missing))
            {
                axpy(&mut w, c, a);
            }
            w
        };
        // Rows span the first d coordinates.
        let mut stream = key.sub("x").stream();
        let x: Vec<Vec<f64>> = (0..d)
            .map(|_| [normals(&mut stream, d), vec![0.0; p - d]].concat())
            .collect();
        let mut truth = normals(&mut stream, p);
        (truth[0], truth[1], truth[2], truth[3]) = (1.0, 0.0, 0.0, 0.0);
        let y: Vec<f64> = x.iter().map(|x| dot(x, &truth)).collect();
        let w1 = learn(&vec![0.0; p], &x, &y);
        let rotated: Vec<Vec<f64>> = x.iter().map(|x| rotation.apply_transposed(x)).collect(); // rows of XO
        let w2 = learn(&w1, &rotated, &y);
        // ‖P(w_2 − w_1)‖²: with X = P this is ‖Xw_2 − y‖².
        let lost = squared_distance(&w2[..d], &w1[..d]);
        assert!((lost - forgetting(&rotation, p, d)).abs() < 1e-10);
    }

    #[test]
    fn the_exact_rank_one_mean_has_the_limits_as_its_own() {
        for m in [100_000, 250_000, 500_000, 1_000_000] {
            let alpha = m as f64 / 1e6;
            assert!(
                (expected_rank_one(1_000_000, m) - limit_overparameterised(alpha)).abs() < 2e-5
            );
        }
        // In one dimension O is ±1: nothing is lost, or a = −1 and all four units of (−1)²·2² are.
        assert!((expected_rank_one(1, 1) - 2.0).abs() < 1e-12);
    }
}
