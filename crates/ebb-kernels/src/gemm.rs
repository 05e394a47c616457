//! Matrix products on strided slices.

use gemm::Parallelism;
use rayon::prelude::*;
use std::mem::MaybeUninit;

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

    /// `rows` lines of `cols` numbers, each line `row_stride` after the one before.
    ///
    /// # Panics
    /// When they do not lie inside the slice.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        let mat = Self {
            data,
            rows,
            cols,
            row_stride,
            col_stride: 1,
        };
        assert!(mat.fits(), "{rows} lines of {cols} do not lie in the slice");
        mat
    }

    /// A line of a matrix whose lines are dense.
    pub(crate) fn line(&self, row: usize) -> &'a [f32] {
        debug_assert_eq!(self.col_stride, 1);
        &self.data[row * self.row_stride..][..self.cols]
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
const HALVE_FROM: usize = 1 << 22;
/// From here on the product is large enough for the library's own splitting to pay.
const SPREAD_FROM: usize = 1 << 27;

/// `dst = a b` (row-major), or `dst += a b` when `accumulate`.
///
/// The order of summation depends on the shapes alone, never on the number of threads.
///
/// # Panics
/// When the shapes do not agree or `dst` is too short.
pub fn matmul(dst: &mut [f32], a: Mat, b: Mat, accumulate: bool) {
    multiply(numbers(dst), a, b, accumulate);
}

/// `a b`, row-major, in memory that nobody cleared before.
///
/// # Panics
/// When the shapes do not agree.
pub fn product_of(a: Mat, b: Mat) -> Vec<f32> {
    let size = a.rows * b.cols;
    let mut product = Vec::with_capacity(size);
    multiply(&mut product.spare_capacity_mut()[..size], a, b, false);
    // SAFETY: without `accumulate` every number was written.
    unsafe { product.set_len(size) };
    product
}

/// Numbers as a place for numbers. Only numbers are written there by this module.
fn numbers(dst: &mut [f32]) -> &mut [MaybeUninit<f32>] {
    // SAFETY: the types have one layout, and nothing uninitialised is ever written.
    unsafe { std::slice::from_raw_parts_mut(dst.as_mut_ptr().cast(), dst.len()) }
}

/// Writes all of `dst`; reads it where it accumulates, and there it must hold numbers.
fn multiply(dst: &mut [MaybeUninit<f32>], a: Mat, b: Mat, accumulate: bool) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(k, b.rows, "inner dimensions differ: {k} and {}", b.rows);
    assert!(dst.len() >= m * n, "the product needs {} values", m * n);
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            dst[..m * n].fill(MaybeUninit::new(0.0));
        }
        return;
    }
    if reads_weights_once(&a, &b) {
        match m {
            1 => few_rows::<1>(dst, a, b, accumulate),
            2 => few_rows::<2>(dst, a, b, accumulate),
            3 => few_rows::<3>(dst, a, b, accumulate),
            _ => few_rows::<4>(dst, a, b, accumulate),
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

/// Rows that are few beside the weights they meet.
const FEW: usize = 4;
/// Weights whose reading takes longer than what is computed with them.
const MANY_WEIGHTS: usize = 1 << 19;

/// Whether a few dense rows meet the transpose of many dense ones, as when a language model writes:
/// the time is that of reading the weights, and packing them would read them twice.
fn reads_weights_once(a: &Mat, b: &Mat) -> bool {
    a.rows <= FEW && a.col_stride == 1 && b.row_stride == 1 && b.rows * b.cols >= MANY_WEIGHTS
}

/// Columns that one thread takes at a time.
const COLUMNS: usize = 64;
/// Sums that are kept side by side: the order of summation hangs on nothing else.
const LANES: usize = 32;

/// The product of `M` rows, column by column: each column of `b` is read once, where it lies.
fn few_rows<const M: usize>(dst: &mut [MaybeUninit<f32>], a: Mat, b: Mat, accumulate: bool) {
    let (k, n) = (a.cols, b.cols);
    assert!(a.fits() && b.fits());
    let rows: [&[f32]; M] = std::array::from_fn(|i| &a.data[i * a.row_stride..][..k]);
    let column = |j: usize| &b.data[j * b.col_stride..][..k];
    let some = |from: usize| {
        let columns = from..(from + COLUMNS).min(n);
        let mut found = [[0.0f32; M]; COLUMNS];
        let lists = columns.clone().map(column);
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") {
            for (found, column) in found.iter_mut().zip(lists) {
                // SAFETY: the processor has it.
                *found = unsafe { dots_wide(rows, column) };
            }
            return (columns, found);
        }
        for (found, column) in found.iter_mut().zip(lists) {
            *found = rows.map(|row| dot(row, column));
        }
        (columns, found)
    };
    let starts: Vec<usize> = (0..n).step_by(COLUMNS).collect();
    let pieces: Vec<_> = starts.into_par_iter().map(some).collect();
    for (columns, found) in pieces {
        for (j, found) in columns.zip(found) {
            for (i, value) in found.into_iter().enumerate() {
                let to = &mut dst[i * n + j];
                let value = match accumulate {
                    // SAFETY: where it accumulates there are numbers.
                    true => (unsafe { to.assume_init_read() }) + value,
                    false => value,
                };
                to.write(value);
            }
        }
    }
}

/// The inner products of `M` vectors with one as long, on 512-bit vectors.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn dots_wide<const M: usize>(rows: [&[f32]; M], column: &[f32]) -> [f32; M] {
    use std::arch::x86_64::{
        _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_reduce_add_ps, _mm512_setzero_ps,
    };
    assert!(rows.iter().all(|row| row.len() == column.len()));
    let blocks = column.len() / LANES;
    let mut sums = [[_mm512_setzero_ps(); 2]; M];
    for at in 0..blocks {
        let half = |list: &[f32], half: usize| {
            // SAFETY: every list has `blocks` blocks of two halves of 16 numbers.
            unsafe { _mm512_loadu_ps(list.as_ptr().add(at * LANES + half * LANES / 2)) }
        };
        let b = [half(column, 0), half(column, 1)];
        for (sums, row) in sums.iter_mut().zip(rows) {
            sums[0] = _mm512_fmadd_ps(half(row, 0), b[0], sums[0]);
            sums[1] = _mm512_fmadd_ps(half(row, 1), b[1], sums[1]);
        }
    }
    let rest = blocks * LANES;
    let mut found = [0.0; M];
    for ((found, sums), row) in found.iter_mut().zip(sums).zip(rows) {
        let tail = row[rest..].iter().zip(&column[rest..]);
        let tail: f32 = tail.map(|(a, b)| a * b).fold(0.0, |sum, v| sum + v);
        *found = _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1])) + tail;
    }
    found
}

/// The inner product of two vectors, in `LANES` sums side by side.
fn dot(row: &[f32], column: &[f32]) -> f32 {
    pulp::Arch::new().dispatch(|| {
        let mut sums = [0.0f32; LANES];
        let (blocks, rest) = column.as_chunks::<LANES>();
        let (of, row_rest) = row.as_chunks::<LANES>();
        for (row, block) in of.iter().zip(blocks) {
            for l in 0..LANES {
                sums[l] += row[l] * block[l];
            }
        }
        let tail = row_rest
            .iter()
            .zip(rest)
            .fold(0.0f32, |sum, (a, b)| sum + a * b);
        sums.iter().fold(0.0f32, |sum, v| sum + v) + tail
    })
}

fn product(
    dst: &mut [MaybeUninit<f32>],
    a: Mat,
    b: Mat,
    accumulate: bool,
    parallelism: Parallelism,
) {
    run(dst, b.cols, a, b, accumulate, 1.0, parallelism);
}

/// `dst = scale · a b` on this thread, or `dst += scale · a b`, into lines that lie `stride` apart.
///
/// # Panics
/// When the shapes do not agree or `dst` is too short.
pub(crate) fn product_into(
    dst: &mut [f32],
    stride: usize,
    a: Mat,
    b: Mat,
    accumulate: bool,
    scale: f32,
) {
    let dst = numbers(dst);
    run(dst, stride, a, b, accumulate, scale, Parallelism::None);
}

fn run(
    dst: &mut [MaybeUninit<f32>],
    stride: usize,
    a: Mat,
    b: Mat,
    accumulate: bool,
    scale: f32,
    parallelism: Parallelism,
) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    if m == 0 || n == 0 {
        return;
    }
    assert!(a.fits() && b.fits() && k == b.rows && stride >= n);
    assert!(dst.len() >= (m - 1) * stride + n, "the product needs room");
    // SAFETY: the assertions bound every access; `dst` is exclusive, and read only where it
    // accumulates.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr().cast(),
            1,
            stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
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
            // Few rows and many weights.
            (1, 1030, 517),
            (2, 1030, 517),
            (3, 700, 800),
            (4, 517, 1030),
        ] {
            let (a, b) = (noise(m * k, 1), noise(n * k, 2));
            let mut c = vec![1.0; m * n];
            matmul(&mut c, Mat::new(&a, m, k), Mat::new(&b, n, k).t(), true);
            let plain = product_of(Mat::new(&a, m, k), Mat::new(&b, n, k).t());
            for (c, plain) in c.iter().zip(&plain) {
                assert!((c - 1.0 - plain).abs() < 1e-3);
            }
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
