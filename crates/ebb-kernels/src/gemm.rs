//! Matrix products on strided slices.

use gemm::Parallelism;

/// A strided view of a matrix inside a slice.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// A row-major `rows x cols` matrix.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert!(
            data.len() >= rows * cols,
            "a {rows} x {cols} matrix needs {} values, the slice has {}",
            rows * cols,
            data.len()
        );
        Self {
            data,
            rows,
            cols,
            row_stride: cols,
            col_stride: 1,
        }
    }

    /// The transpose, as a view.
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// Rows `from..to`, as a view.
    fn rows(self, from: usize, to: usize) -> Self {
        Self {
            data: &self.data[(from * self.row_stride).min(self.data.len())..],
            rows: to - from,
            ..self
        }
    }

    /// Whether every element lies inside the slice.
    fn fits(&self) -> bool {
        let last = |n: usize, stride: usize| n.saturating_sub(1) * stride;
        self.rows * self.cols == 0
            || last(self.rows, self.row_stride) + last(self.cols, self.col_stride) < self.data.len()
    }
}

/// Products of fewer multiply-adds run on one thread: waking a second costs more.
const HALVE_FROM: usize = 1 << 23;
/// From here on the product is large enough for the library's own splitting to pay.
const SPREAD_FROM: usize = 1 << 27;

/// `dst = a b` (row-major), or `dst += a b` when `accumulate`.
///
/// The order of summation depends on the shapes alone, never on the number of threads.
///
/// # Panics
/// When the shapes do not agree or `dst` is too short.
pub fn matmul(dst: &mut [f32], a: Mat, b: Mat, accumulate: bool) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(k, b.rows, "inner dimensions differ: {k} and {}", b.rows);
    assert!(dst.len() >= m * n, "the product needs {} values", m * n);
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            dst[..m * n].fill(0.0);
        }
        return;
    }
    let work = m * n * k;
    if work >= SPREAD_FROM {
        product(&mut dst[..m * n], a, b, accumulate, Parallelism::Rayon(0));
    } else if work >= HALVE_FROM && m > 1 {
        // The library splits products of this size in a way that gains nothing on two threads;
        // two halves of the rows do. Halves, however many threads there are: the shapes decide.
        let half = m.div_ceil(2).next_multiple_of(8).min(m);
        let (upper, lower) = dst[..m * n].split_at_mut(half * n);
        rayon::join(
            || product(upper, a.rows(0, half), b, accumulate, Parallelism::None),
            || product(lower, a.rows(half, m), b, accumulate, Parallelism::None),
        );
    } else {
        product(&mut dst[..m * n], a, b, accumulate, Parallelism::None);
    }
}

fn product(dst: &mut [f32], a: Mat, b: Mat, accumulate: bool, parallelism: Parallelism) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    if m == 0 {
        return;
    }
    assert!(a.fits() && b.fits() && dst.len() >= m * n);
    // SAFETY: the assertion bounds every access; `dst` is exclusive.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut s = seed;
        (0..n)
            .map(|_| {
                s = s.wrapping_mul(1664525).wrapping_add(1013904223);
                (s >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    #[test]
    fn agrees_with_f64_on_odd_strided_shapes() {
        for (m, n, k) in [
            (1, 1, 1),
            (3, 7, 5),
            (20, 100, 784),
            (129, 33, 65),
            (257, 101, 785),
            (601, 602, 603),
        ] {
            let (a, b) = (noise(m * k, 1), noise(n * k, 2));
            let mut c = vec![1.0; m * n];
            matmul(&mut c, Mat::new(&a, m, k), Mat::new(&b, n, k).t(), true);
            for i in 0..m {
                for j in 0..n {
                    let exact: f64 = 1.0
                        + (0..k)
                            .map(|l| f64::from(a[i * k + l]) * f64::from(b[j * k + l]))
                            .sum::<f64>();
                    assert!((f64::from(c[i * n + j]) - exact).abs() < 1e-3);
                }
            }
        }
    }
}
