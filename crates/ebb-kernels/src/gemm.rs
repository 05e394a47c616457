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
}

/// Products below this many multiply-adds run on one thread: waking a second costs more.
const PARALLEL_FROM: usize = 1 << 22;

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
    let parallelism = if m * n * k >= PARALLEL_FROM {
        Parallelism::Rayon(0)
    } else {
        Parallelism::None
    };
    // SAFETY: the asserts above and in `Mat::new` bound every access; `dst` is exclusive.
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
        for (m, n, k) in [(1, 1, 1), (3, 7, 5), (20, 100, 784), (129, 33, 65)] {
            let (a, b) = (noise(m * k, 1), noise(n * k, 2));
            let mut c = vec![1.0; m * n];
            matmul(&mut c, Mat::new(&a, m, k), Mat::new(&b, n, k).t(), true);
            for i in 0..m {
                for j in 0..n {
                    let exact: f64 = 1.0
                        + (0..k)
                            .map(|l| f64::from(a[i * k + l]) * f64::from(b[j * k + l]))
                            .sum::<f64>();
                    assert!((f64::from(c[i * n + j]) - exact).abs() < 1e-4);
                }
            }
        }
    }
}
