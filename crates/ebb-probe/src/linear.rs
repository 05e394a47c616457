//! The little linear algebra that forecasts need.
//!
//! A matrix here has few rows (tasks) and many columns (examples), so that its singular values and
//! left singular vectors are those of the small `M × M` matrix `A Aᵀ`: products over the columns,
//! and one symmetric eigenproblem of M, for which [`ebb_space::symmetric_eigen`] is there already.
//! A library of dense decompositions (faer) would add minutes to a build and gain nothing: at
//! M = 100 the eigenproblem takes milliseconds and the products have the speed of our kernels.

use crate::table::BLOCK;
use ebb_kernels::gemm::{Mat, matmul};
use ebb_space::symmetric_eigen;

/// `A Aᵀ` of an `m × n` matrix, `m × m`: products of blocks of columns in f32, their sum in f64.
/// `fill` writes the columns from its first argument on into the block, `m` rows as wide as the
/// second says, so that a centred matrix never stands in memory as a whole.
pub(crate) fn gram(m: usize, n: usize, mut fill: impl FnMut(usize, usize, &mut [f32])) -> Vec<f64> {
    let mut sum = vec![0.0f64; m * m];
    let mut part = vec![0.0f32; m * m];
    let mut block = vec![0.0f32; m * BLOCK];
    for from in (0..n).step_by(BLOCK) {
        let width = BLOCK.min(n - from);
        let block = &mut block[..m * width];
        fill(from, width, block);
        let block = Mat::new(block, m, width);
        matmul(&mut part, block, block.t(), false);
        sum.iter_mut()
            .zip(&part)
            .for_each(|(s, p)| *s += f64::from(*p));
    }
    sum
}

/// The eigenvalues of a Gram matrix, largest first and none below 0, and its eigenvectors, a row
/// each.
pub(crate) fn spectrum(gram: &[f64], m: usize) -> (Vec<f64>, Vec<Vec<f64>>) {
    let (values, vectors) = symmetric_eigen(gram, m);
    let rows = vectors.chunks_exact(m).rev().map(<[f64]>::to_vec);
    (
        values.iter().rev().map(|v| v.max(0.0)).collect(),
        rows.collect(),
    )
}

/// Solves `A x = b` for a symmetric positive definite `n × n` matrix by Cholesky; none if it is
/// not positive definite.
pub(crate) fn solve(mut a: Vec<f64>, mut b: Vec<f64>) -> Option<Vec<f64>> {
    let n = b.len();
    for j in 0..n {
        for i in j..n {
            let dot: f64 = (0..j).map(|k| a[i * n + k] * a[j * n + k]).sum();
            let left = a[i * n + j] - dot;
            if i == j {
                if left <= 0.0 || !left.is_finite() {
                    return None;
                }
                a[j * n + j] = left.sqrt();
            } else {
                a[i * n + j] = left / a[j * n + j];
            }
        }
    }
    for i in 0..n {
        let dot: f64 = (0..i).map(|k| a[i * n + k] * b[k]).sum();
        b[i] = (b[i] - dot) / a[i * n + i];
    }
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|k| a[k * n + i] * b[k]).sum();
        b[i] = (b[i] - dot) / a[i * n + i];
    }
    Some(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::world;

    #[test]
    fn gram_matches_f64_and_its_spectrum_the_trace() {
        let (m, n) = (7, 9001);
        let t = world(m, n, 2, 0.3, 1);
        let g = gram(m, n, |from, width, block| {
            let rows = block.chunks_exact_mut(width).zip(t.iter());
            rows.for_each(|(to, row)| to.copy_from_slice(&row[from..from + width]));
        });
        for i in 0..m {
            for j in 0..m {
                let rows = t.row(i).iter().zip(t.row(j));
                let want: f64 = rows.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                assert!((g[i * m + j] - want).abs() < 1e-6 * n as f64, "{want}");
            }
        }
        let (values, vectors) = spectrum(&g, m);
        let trace: f64 = (0..m).map(|i| g[i * m + i]).sum();
        assert!((values.iter().sum::<f64>() - trace).abs() < 1e-8 * trace);
        assert!(values.is_sorted_by(|a, b| a >= b) && vectors.len() == m);
    }

    #[test]
    fn solve_undoes_a_product() {
        let a = vec![4.0, 1.0, 0.5, 1.0, 3.0, -0.2, 0.5, -0.2, 2.0];
        let x = [1.0, -2.0, 3.0];
        let b: Vec<f64> = (0..3)
            .map(|i| (0..3).map(|j| a[i * 3 + j] * x[j]).sum())
            .collect();
        let got = solve(a, b).unwrap();
        assert!(got.iter().zip(x).all(|(g, x)| (g - x).abs() < 1e-14));
        assert!(solve(vec![1.0, 2.0, 2.0, 1.0], vec![0.0, 0.0]).is_none());
    }
}
