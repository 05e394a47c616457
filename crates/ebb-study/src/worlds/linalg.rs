//! The little dense linear algebra that the linear worlds need, in `f64`.

use ebb_space::Stream;

use super::{Error, Result};

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Four partial sums, so that the loop vectorises in a fixed order.
    let (a, b) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let mut sums = [0.0; 4];
    for (x, y) in a.0.iter().zip(b.0) {
        for lane in 0..4 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    let rest: f64 = a.1.iter().zip(b.1).map(|(x, y)| x * y).sum();
    (sums[0] + sums[2]) + (sums[1] + sums[3]) + rest
}

/// y ← y + s x
pub(crate) fn axpy(y: &mut [f64], s: f64, x: &[f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += s * x;
    }
}

pub(crate) fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

pub(crate) fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

pub(crate) fn cosine(a: &[f64], b: &[f64]) -> f64 {
    dot(a, b) / (norm(a) * norm(b))
}

/// `n` standard normal numbers.
pub(crate) fn normals(stream: &mut Stream, n: usize) -> Vec<f64> {
    (0..n).map(|_| stream.normal()).collect()
}

/// The matrix of inner products of `rows`.
pub(crate) fn gram(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    rows.iter()
        .map(|a| rows.iter().map(|b| dot(a, b)).collect())
        .collect()
}

/// The factor `L` of a symmetric positive definite `A = L Lᵀ`.
pub(crate) struct Cholesky {
    /// Row `i` holds `L[i][..=i]`.
    rows: Vec<Vec<f64>>,
}

impl Cholesky {
    /// Factors `a`, of which the lower triangle is read.
    ///
    /// # Errors
    /// [`Error::Singular`] if a pivot is not positive beyond rounding.
    pub fn new(a: &[Vec<f64>]) -> Result<Cholesky> {
        let mut rows: Vec<Vec<f64>> = Vec::with_capacity(a.len());
        for (i, a) in a.iter().enumerate() {
            let mut row = Vec::with_capacity(i + 1);
            for (j, done) in rows.iter().enumerate() {
                row.push((a[j] - dot(&row, &done[..j])) / done[j]);
            }
            let pivot = a[i] - dot(&row, &row);
            if pivot.is_nan() || pivot <= 1e-14 * a[i] {
                return Err(Error::Singular);
            }
            row.push(pivot.sqrt());
            rows.push(row);
        }
        Ok(Cholesky { rows })
    }

    /// Solves `A x = b`.
    pub fn solve(&self, b: &[f64]) -> Vec<f64> {
        let mut x: Vec<f64> = Vec::with_capacity(b.len());
        for (row, b) in self.rows.iter().zip(b) {
            x.push((b - dot(&row[..x.len()], &x)) / row[x.len()]);
        }
        for i in (0..x.len()).rev() {
            x[i] /= self.rows[i][i];
            let (head, tail) = x.split_at_mut(i);
            axpy(head, -tail[0], &self.rows[i][..i]);
        }
        x
    }
}

/// `count` orthonormal vectors in `R^n`, distributed as the first columns of a Haar orthogonal
/// matrix: Gram–Schmidt (twice, for accuracy) on normal vectors is a QR factorisation whose `R` has
/// a positive diagonal, which is the sign fix that Haar measure needs.
pub(crate) fn haar_frame(stream: &mut Stream, n: usize, count: usize) -> Vec<Vec<f64>> {
    assert!(
        count <= n,
        "{count} orthonormal vectors do not fit in {n} dimensions"
    );
    let mut frame: Vec<Vec<f64>> = Vec::with_capacity(count);
    while frame.len() < count {
        let mut v = normals(stream, n);
        let before = norm(&v);
        for _ in 0..2 {
            for q in &frame {
                let along = dot(q, &v);
                axpy(&mut v, -along, q);
            }
        }
        let length = norm(&v);
        // In the span of the others but for rounding: never seen, and another vector does as well.
        if length > 1e-10 * before {
            v.iter_mut().for_each(|x| *x /= length);
            frame.push(v);
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_space::Key;

    #[test]
    fn cholesky_solves_a_hilbert_system_and_refuses_a_singular_one() {
        let hilbert: Vec<Vec<f64>> = (0..6)
            .map(|i| (0..6).map(|j| 1.0 / f64::from(i + j + 1)).collect())
            .collect();
        // The inverse of a Hilbert matrix has integer entries; its first row for n = 6:
        let first = [36.0, -630.0, 3360.0, -7560.0, 7560.0, -2772.0];
        let mut e = [0.0; 6];
        e[0] = 1.0;
        let x = Cholesky::new(&hilbert).unwrap().solve(&e);
        for (x, want) in x.iter().zip(first) {
            assert!((x - want).abs() < 1e-6 * f64::abs(want), "{x} {want}");
        }
        let singular = vec![vec![1.0, 2.0], vec![2.0, 4.0]];
        assert!(matches!(Cholesky::new(&singular), Err(Error::Singular)));
        assert!(matches!(
            Cholesky::new(&[vec![f64::NAN]]),
            Err(Error::Singular)
        ));
    }

    #[test]
    fn a_haar_frame_is_orthonormal_and_has_haar_moments() {
        let n = 5;
        let mut traces = Vec::new();
        for draw in 0..4000 {
            let q = haar_frame(&mut Key::new(0, "haar").at(draw).stream(), n, n);
            for (i, a) in q.iter().enumerate() {
                for (j, b) in q.iter().enumerate() {
                    let want = f64::from(u8::from(i == j));
                    assert!((dot(a, b) - want).abs() < 1e-13);
                }
            }
            traces.push((0..n).map(|i| q[i][i]).sum::<f64>());
        }
        // On O(n): E tr = 0, E tr² = 1, E tr⁴ = 3 (Diaconis and Shahshahani). Without the sign fix
        // the diagonal leans to one side.
        let moment = |k: i32| traces.iter().map(|t| t.powi(k)).sum::<f64>() / traces.len() as f64;
        assert!(moment(1).abs() < 0.08, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.12, "{}", moment(2));
        assert!((moment(4) - 3.0).abs() < 0.8, "{}", moment(4));
    }
}
