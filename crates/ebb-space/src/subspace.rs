//! A linear subspace: directions to stay in, or to stay out of.
//!
//! Orthogonal-gradient and gradient-projection methods keep the span of what old data uses and
//! project new gradients off it.

use crate::eigen::symmetric_eigen;
use crate::{Error, Result};

/// A subspace of `dim` dimensions, as an orthonormal basis in f64.
#[derive(Clone, Debug, PartialEq)]
pub struct Subspace {
    dim: usize,
    /// rank × dim, row-major.
    basis: Vec<f64>,
}

/// How much of the new vectors a subspace is extended by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Extent {
    /// All of their span. A vector whose remainder is below 1e-6 of its own length adds nothing:
    /// that is what the f32 of its values leaves undecided.
    All,
    /// As few new directions, the strongest first, as make the subspace hold this share of the
    /// vectors' squared lengths, what it held before included (GPM's criterion). Between 0 and 1.
    Energy(f64),
}

/// Relative to the length a vector had, not to its remainder, which is rounding alone once the
/// span is full.
const UNDECIDED: f64 = 1e-6;

impl Subspace {
    /// The subspace {0} of a space of `dim` dimensions.
    pub fn new(dim: usize) -> Subspace {
        Subspace {
            dim,
            basis: Vec::new(),
        }
    }

    /// A subspace from its stored basis (rank × dim, row-major).
    ///
    /// # Errors
    /// [`Error::Length`], or [`Error::NotOrthonormal`].
    pub fn from_basis(dim: usize, basis: Vec<f64>) -> Result<Subspace> {
        if dim == 0 || !basis.len().is_multiple_of(dim) {
            let expected = basis.len().next_multiple_of(dim.max(1));
            return Err(Error::Length {
                what: "a basis",
                expected,
                found: basis.len(),
            });
        }
        let subspace = Subspace { dim, basis };
        for (i, a) in subspace.rows().enumerate() {
            for (j, b) in subspace.rows().enumerate().take(i + 1) {
                let off = (dot(a, b) - f64::from(i == j)).abs();
                if off.is_nan() || off > 1e-9 {
                    return Err(Error::NotOrthonormal {
                        first: j,
                        second: i,
                    });
                }
            }
        }
        Ok(subspace)
    }

    /// Dimensions of the space around it.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Its own dimensions.
    pub fn rank(&self) -> usize {
        self.basis.len().checked_div(self.dim).unwrap_or(0)
    }

    /// The orthonormal basis, rank × dim, row-major.
    pub fn basis(&self) -> &[f64] {
        &self.basis
    }

    /// Replaces each row of `v` (any number of rows of `dim` values) by its projection onto the
    /// subspace.
    ///
    /// # Panics
    /// Here and below: if `v` is not whole rows.
    pub fn project_on(&self, v: &mut [f32]) {
        self.project(v, |_, inside| inside);
    }

    /// Replaces each row of `v` by what the subspace does not hold of it.
    pub fn project_off(&self, v: &mut [f32]) {
        self.project(v, |whole, inside| whole - inside);
    }

    /// Extends the subspace by `vectors` (n × dim, row-major); returns the number of new
    /// directions.
    ///
    /// # Errors
    /// [`Error::Length`] if they are not whole rows, [`Error::SampleNotFinite`], or
    /// [`Error::BadLevel`] for an energy outside [0, 1].
    pub fn extend(&mut self, vectors: &[f32], extent: Extent) -> Result<usize> {
        if self.dim == 0 || !vectors.len().is_multiple_of(self.dim) {
            let expected = vectors.len().next_multiple_of(self.dim.max(1));
            return Err(Error::Length {
                what: "the vectors of a subspace",
                expected,
                found: vectors.len(),
            });
        }
        if let Some(index) = vectors.iter().position(|v| !v.is_finite()) {
            return Err(Error::SampleNotFinite {
                index,
                value: vectors[index].into(),
            });
        }
        let before = self.rank();
        let wide: Vec<f64> = vectors.iter().map(|&v| f64::from(v)).collect();
        match extent {
            Extent::All => {
                for v in wide.chunks_exact(self.dim) {
                    self.push(v.to_vec(), dot(v, v).sqrt());
                }
            }
            Extent::Energy(share) => {
                if !(0.0..=1.0).contains(&share) {
                    return Err(Error::BadLevel(share));
                }
                self.push_strongest(wide, share);
            }
        }
        Ok(self.rank() - before)
    }

    fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.basis.chunks_exact(self.dim.max(1))
    }

    fn project(&self, v: &mut [f32], keep: impl Fn(f64, f64) -> f64) {
        assert!(
            self.dim > 0 && v.len().is_multiple_of(self.dim),
            "rows of {} values",
            self.dim
        );
        let mut inside = vec![0.0; self.dim];
        for row in v.chunks_exact_mut(self.dim) {
            inside.fill(0.0);
            for b in self.rows() {
                let c: f64 = b.iter().zip(&*row).map(|(b, v)| b * f64::from(*v)).sum();
                inside.iter_mut().zip(b).for_each(|(i, b)| *i += c * b);
            }
            row.iter_mut()
                .zip(&inside)
                .for_each(|(v, i)| *v = keep(f64::from(*v), *i) as f32);
        }
    }

    /// Adds one vector by modified Gram–Schmidt, twice ("twice is enough"): after the second pass
    /// the basis is orthonormal to rounding however small the remainder was.
    fn push(&mut self, mut v: Vec<f64>, size: f64) {
        if self.rank() == self.dim {
            return;
        }
        for _ in 0..2 {
            for b in self.rows() {
                let c = dot(b, &v);
                v.iter_mut().zip(b).for_each(|(v, b)| *v -= c * b);
            }
        }
        let left = dot(&v, &v).sqrt();
        if left > UNDECIDED * size {
            self.basis.extend(v.iter().map(|v| v / left));
        }
    }

    /// Adds the leading right singular vectors of the remainders of `rows`.
    fn push_strongest(&mut self, mut rows: Vec<f64>, share: f64) {
        let dim = self.dim;
        let total = dot(&rows, &rows);
        for v in rows.chunks_exact_mut(dim) {
            for b in self.rows() {
                let c = dot(b, v);
                v.iter_mut().zip(b).for_each(|(v, b)| *v -= c * b);
            }
        }
        let left = dot(&rows, &rows);
        let n = rows.len() / dim;
        // The smaller of the two Gram matrices has the same nonzero eigenvalues.
        let by_rows = n <= dim;
        let size = n.min(dim);
        let mut gram = vec![0.0; size * size];
        if by_rows {
            for (i, a) in rows.chunks_exact(dim).enumerate() {
                for (j, b) in rows.chunks_exact(dim).enumerate().take(i + 1) {
                    let value = dot(a, b);
                    (gram[i * size + j], gram[j * size + i]) = (value, value);
                }
            }
        } else {
            for v in rows.chunks_exact(dim) {
                for (a, line) in v.iter().zip(gram.chunks_exact_mut(dim)) {
                    line.iter_mut().zip(v).for_each(|(g, b)| *g += a * b);
                }
            }
        }
        let (values, vectors) = symmetric_eigen(&gram, size);
        let mut held = total - left;
        for (value, u) in values.iter().zip(vectors.chunks_exact(size.max(1))).rev() {
            // Energies below the square of the undecided length are rounding.
            if held >= share * total || *value <= UNDECIDED * UNDECIDED * total {
                break;
            }
            let direction = if by_rows {
                let mut v = vec![0.0; dim];
                for (u, row) in u.iter().zip(rows.chunks_exact(dim)) {
                    v.iter_mut().zip(row).for_each(|(v, r)| *v += u * r);
                }
                v
            } else {
                u.to_vec()
            };
            let size = dot(&direction, &direction).sqrt();
            self.push(direction, size);
            held += value;
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    fn random(name: &str, n: usize) -> Vec<f32> {
        let key = Key::new(7, name);
        (0..n as u64).map(|i| key.normal(i) as f32).collect()
    }

    fn orthonormal(s: &Subspace) -> bool {
        let worst = s.rows().enumerate().flat_map(|(i, a)| {
            s.rows()
                .enumerate()
                .map(move |(j, b)| (dot(a, b) - f64::from(i == j)).abs())
        });
        worst.fold(0.0, f64::max) < 1e-13
    }

    #[test]
    fn spans_are_exact_in_spite_of_dependent_and_nearly_dependent_vectors() {
        let dim = 30;
        let mut s = Subspace::new(dim);
        let first = random("first", 4 * dim);
        assert_eq!(s.extend(&first, Extent::All), Ok(4));
        // Sums of old vectors add nothing; a small new part does.
        let mut sum: Vec<f32> = (0..dim).map(|i| first[i] + 0.5 * first[dim + i]).collect();
        assert_eq!(s.extend(&sum, Extent::All), Ok(0));
        sum[3] += 1e-3;
        assert_eq!(s.extend(&sum, Extent::All), Ok(1));
        assert!(orthonormal(&s));
        s.extend(&random("rest", 40 * dim), Extent::All).unwrap();
        assert_eq!((s.rank(), orthonormal(&s)), (dim, true));
        assert_eq!(s.extend(&random("more", dim), Extent::All), Ok(0));
        let mut v = random("v", dim);
        s.project_off(&mut v);
        assert!(v.iter().all(|v| v.abs() < 1e-6));
    }

    #[test]
    fn projections_split_a_vector_and_repeat_to_themselves() {
        let dim = 24;
        let mut s = Subspace::new(dim);
        s.extend(&random("basis", 7 * dim), Extent::All).unwrap();
        let v = random("v", 3 * dim);
        let (mut on, mut off) = (v.clone(), v.clone());
        s.project_on(&mut on);
        s.project_off(&mut off);
        for ((v, on), off) in v.iter().zip(&on).zip(&off) {
            assert!((v - on - off).abs() < 1e-6);
        }
        for (on, off) in on.chunks(dim).zip(off.chunks(dim)) {
            let dot: f64 = on
                .iter()
                .zip(off)
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum();
            assert!(dot.abs() < 1e-5);
            let outside = s.rows().map(|b| {
                b.iter()
                    .zip(off)
                    .map(|(b, v)| b * f64::from(*v))
                    .sum::<f64>()
            });
            assert!(outside.fold(0.0, |m: f64, d| m.max(d.abs())) < 1e-6);
        }
        let mut twice = on.clone();
        s.project_on(&mut twice);
        assert!(twice.iter().zip(&on).all(|(a, b)| (a - b).abs() < 1e-6));
        // A space that holds nothing takes everything off nothing.
        let mut untouched = v.clone();
        Subspace::new(dim).project_off(&mut untouched);
        assert_eq!(untouched, v);
    }

    #[test]
    fn energy_keeps_the_fewest_strongest_directions() {
        // Rows with known singular values 4, 3, 2, 1 along known axes, wide and tall.
        for (n, dim) in [(6usize, 10usize), (40, 10)] {
            let mut left = Subspace::new(n);
            left.extend(&random("left", 4 * n), Extent::All).unwrap();
            let mut right = Subspace::new(dim);
            right
                .extend(&random("right", 4 * dim), Extent::All)
                .unwrap();
            let mut x = vec![0.0f32; n * dim];
            for (k, (u, v)) in left.rows().zip(right.rows()).enumerate() {
                let sigma = 4.0 - k as f64;
                for (at, x) in x.iter_mut().enumerate() {
                    *x += (sigma * u[at / dim] * v[at % dim]) as f32;
                }
            }
            // Squared: 16, 9, 4, 1 of 30.
            for (share, want) in [(0.0, 0), (0.5, 1), (0.55, 2), (0.9, 3), (0.97, 4), (1.0, 4)] {
                let mut s = Subspace::new(dim);
                assert_eq!(s.extend(&x, Extent::Energy(share)), Ok(want), "{n} {share}");
                assert!(orthonormal(&s));
                for (found, axis) in s.rows().zip(right.rows()) {
                    assert!((dot(found, axis).abs() - 1.0).abs() < 1e-6);
                }
            }
            // What is held already counts: with the first axis in, 16/30 is there for nothing.
            let mut s = Subspace::new(dim);
            s.extend(&x, Extent::Energy(0.5)).unwrap();
            assert_eq!(s.extend(&x, Extent::Energy(0.53)), Ok(0));
            assert_eq!(s.extend(&x, Extent::Energy(0.8)), Ok(1));
        }
    }

    #[test]
    fn stored_bases_are_checked() {
        let mut s = Subspace::new(5);
        s.extend(&random("basis", 10), Extent::All).unwrap();
        assert_eq!(Subspace::from_basis(5, s.basis().to_vec()), Ok(s.clone()));
        let mut bad = s.basis().to_vec();
        bad[0] += 1e-3;
        assert!(matches!(
            Subspace::from_basis(5, bad),
            Err(Error::NotOrthonormal { .. })
        ));
        assert!(matches!(
            Subspace::from_basis(5, vec![f64::NAN; 5]),
            Err(Error::NotOrthonormal { .. })
        ));
        assert!(matches!(
            Subspace::from_basis(5, vec![0.0; 6]),
            Err(Error::Length { .. })
        ));
        assert!(s.extend(&[0.0; 6], Extent::All).is_err());
        assert!(s.extend(&[f32::NAN; 5], Extent::All).is_err());
        assert_eq!(
            s.extend(&[1.0; 5], Extent::Energy(1.5)),
            Err(Error::BadLevel(1.5))
        );
        assert_eq!(s.extend(&[], Extent::Energy(0.5)), Ok(0));
        assert_eq!(s.extend(&[0.0; 5], Extent::All), Ok(0));
    }
}
