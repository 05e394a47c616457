//! Linear worlds: tasks so simple that forgetting is known in closed form. They are the oracles
//! of trainers and forecasts.
//!
//! - [`gaussian_task`]: regression on Gaussian inputs (Lin et al., ICML 2023, card S059).
//! - [`rotated_pair`]: a regression and its partly rotated copy (Goldfarb et al., ICLR 2024, card
//!   S041).
//! - [`separable_world`]: classification tasks with one separator for all (Evron et al., ICML
//!   2023, card S095).

use ebb_space::Key;

use crate::{Error, Result};

/// A matrix of `f64`, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// `rows × cols` values.
    pub data: Vec<f64>,
}

impl Matrix {
    fn from_fn(rows: usize, cols: usize, mut value: impl FnMut(usize, usize) -> f64) -> Matrix {
        let data = (0..rows * cols)
            .map(|i| value(i / cols, i % cols))
            .collect();
        Matrix { rows, cols, data }
    }

    /// Independent standard normal entries.
    fn gaussian(rows: usize, cols: usize, key: Key) -> Matrix {
        let mut draws = key.stream();
        Matrix::from_fn(rows, cols, |_, _| draws.normal())
    }

    /// The entry in row `r` and column `c`.
    pub fn at(&self, r: usize, c: usize) -> f64 {
        self.data[r * self.cols + c]
    }

    /// Row `r`.
    pub fn row(&self, r: usize) -> &[f64] {
        &self.data[r * self.cols..(r + 1) * self.cols]
    }

    /// The transpose.
    #[must_use]
    pub fn transposed(&self) -> Matrix {
        Matrix::from_fn(self.cols, self.rows, |r, c| self.at(c, r))
    }

    /// `self · x`.
    ///
    /// # Panics
    /// If `x` has not one value a column.
    pub fn times(&self, x: &[f64]) -> Vec<f64> {
        assert_eq!(x.len(), self.cols, "a vector must have one value a column");
        (0..self.rows).map(|r| dot(self.row(r), x)).collect()
    }

    /// `self · other`.
    ///
    /// # Panics
    /// If `other` has not one row a column of `self`.
    #[must_use]
    pub fn product(&self, other: &Matrix) -> Matrix {
        assert_eq!(self.cols, other.rows, "inner sizes must agree");
        let other = other.transposed();
        Matrix::from_fn(self.rows, other.rows, |r, c| dot(self.row(r), other.row(c)))
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `cols` orthonormal columns of length `rows`, uniformly distributed (Haar): the Q of a Gaussian
/// matrix by Householder reflections, with each column's sign such that R has a positive
/// diagonal. Without that correction the signs, and so the distribution, would be wrong.
///
/// # Errors
/// [`Error::BadWorld`] if there are more columns than rows.
pub fn haar(rows: usize, cols: usize, key: Key) -> Result<Matrix> {
    if cols > rows {
        return Err(Error::BadWorld(format!(
            "{cols} directions cannot be orthogonal in {rows} dimensions"
        )));
    }
    // Columns are kept as rows here, so that a reflection walks along memory.
    let mut r = Matrix::gaussian(rows, cols, key).transposed();
    let mut reflectors: Vec<Vec<f64>> = Vec::with_capacity(cols);
    let mut signs = Vec::with_capacity(cols);
    for k in 0..cols {
        let column = &r.data[k * rows + k..(k + 1) * rows];
        let norm = dot(column, column).sqrt();
        let diagonal = if column[0] < 0.0 { norm } else { -norm };
        let mut v = column.to_vec();
        v[0] -= diagonal;
        for j in k..cols {
            reflect(&v, &mut r.data[j * rows + k..(j + 1) * rows]);
        }
        reflectors.push(v);
        signs.push(diagonal.signum());
    }
    let mut q = Matrix::from_fn(
        cols,
        rows,
        |column, row| if column == row { signs[column] } else { 0.0 },
    );
    for (k, v) in reflectors.iter().enumerate().rev() {
        for column in 0..cols {
            reflect(v, &mut q.data[column * rows + k..(column + 1) * rows]);
        }
    }
    Ok(q.transposed())
}

/// `x ← x − 2 v (v·x) / (v·v)`.
fn reflect(v: &[f64], x: &mut [f64]) {
    let square = dot(v, v);
    if square > 0.0 {
        let share = 2.0 * dot(v, x) / square;
        x.iter_mut().zip(v).for_each(|(x, v)| *x -= share * v);
    }
}

/// A linear regression task: `y = X w + noise`.
#[derive(Clone, Debug)]
pub struct RegressionTask {
    /// Inputs, a sample a row.
    pub x: Matrix,
    /// Targets.
    pub y: Vec<f64>,
    /// The weights behind the targets.
    pub truth: Vec<f64>,
}

/// The truths of `tasks` tasks with `width` weights each: expected squared norm 1, and expected
/// squared distance `2 (1 − similarity)` between any two.
///
/// # Errors
/// [`Error::BadWorld`] if the similarity is not between 0 and 1.
pub fn similar_truths(
    tasks: usize,
    width: usize,
    similarity: f64,
    key: Key,
) -> Result<Vec<Vec<f64>>> {
    if !(0.0..=1.0).contains(&similarity) {
        return Err(Error::BadWorld(format!(
            "a similarity of {similarity} is not between 0 and 1"
        )));
    }
    let shared = Matrix::gaussian(1, width, key.sub("shared"));
    let (common, own) = (
        (similarity / width as f64).sqrt(),
        ((1.0 - similarity) / width as f64).sqrt(),
    );
    Ok((0..tasks as u64)
        .map(|task| {
            let private = Matrix::gaussian(1, width, key.sub("own").at(task));
            shared
                .data
                .iter()
                .zip(&private.data)
                .map(|(s, p)| common * s + own * p)
                .collect()
        })
        .collect())
}

/// Samples of a task: `X` is `samples × truth.len()` with independent standard normal entries,
/// the noise on `y` normal with deviation `noise`. Learned one after another by minimum-distance
/// interpolation, such tasks obey (r = 1 − n/p)
/// `E L_i(t) = r L_i(t−1) + (1−r) ‖w*_t − w*_i‖² + n σ² / (p − n − 1)`, `L_i(t) = ‖w_t − w*_i‖²`.
///
/// # Errors
/// [`Error::BadWorld`] unless `1 ≤ samples` and `samples + 2 ≤ truth.len()`: beyond, the expected
/// error is infinite.
pub fn gaussian_task(
    truth: &[f64],
    samples: usize,
    noise: f64,
    key: Key,
) -> Result<RegressionTask> {
    if samples == 0 || samples + 2 > truth.len() {
        return Err(Error::BadWorld(format!(
            "{samples} samples of {} weights: give at least 1 and at most the weights minus 2",
            truth.len()
        )));
    }
    let x = Matrix::gaussian(samples, truth.len(), key.sub("inputs"));
    let mut draws = key.sub("noise").stream();
    let y = x
        .times(truth)
        .into_iter()
        .map(|y| y + noise * draws.normal())
        .collect();
    Ok(RegressionTask {
        x,
        y,
        truth: truth.to_vec(),
    })
}

/// Two regressions with the same targets, the inputs of the second rotated.
#[derive(Clone, Debug)]
pub struct RotatedPair {
    /// Inputs of the first task: `rank × width`, orthonormal rows.
    pub x: Matrix,
    /// The rotation `O`: `width × width`, the identity off a random subspace.
    pub rotation: Matrix,
    /// Inputs of the second task: `X O`.
    pub x_rotated: Matrix,
    /// Targets of both.
    pub y: Vec<f64>,
    /// The weights behind the targets of the first.
    pub truth: Vec<f64>,
}

/// A pair of tasks whose inputs span `rank` of `width` dimensions, the second turned by a uniform
/// rotation of `turned` random dimensions. With α = turned/width and β = 1 − rank/width, the
/// forgetting `‖X w_2 − y‖² / ‖y‖²` after learning both by minimum-distance interpolation tends to
/// `α² (1−α)²` as β → 1 and to `2α` as β → 0.
///
/// # Errors
/// [`Error::BadWorld`] unless `1 ≤ rank ≤ width` and `turned ≤ width`.
pub fn rotated_pair(width: usize, rank: usize, turned: usize, key: Key) -> Result<RotatedPair> {
    if rank == 0 || rank > width || turned > width {
        return Err(Error::BadWorld(format!(
            "rank {rank} and {turned} turned dimensions do not fit a width of {width}"
        )));
    }
    let x = haar(width, rank, key.sub("inputs"))?.transposed();
    let truth = Matrix::gaussian(1, width, key.sub("truth")).data;
    // O = I + Q (H − I) Qᵀ: H turns the subspace that Q spans, the rest stays.
    let q = haar(width, turned, key.sub("subspace"))?;
    let mut h = haar(turned, turned, key.sub("turn"))?;
    for k in 0..turned {
        h.data[k * turned + k] -= 1.0;
    }
    let mut rotation = q.product(&h).product(&q.transposed());
    for k in 0..width {
        rotation.data[k * width + k] += 1.0;
    }
    let x_rotated = x.product(&rotation);
    let y = x.times(&truth);
    Ok(RotatedPair {
        x,
        rotation,
        x_rotated,
        y,
        truth,
    })
}

/// A binary classification task.
#[derive(Clone, Debug)]
pub struct SeparableTask {
    /// Inputs, a point a row.
    pub x: Matrix,
    /// −1 or 1.
    pub y: Vec<f64>,
}

/// Tasks that one linear separator through the origin solves together.
#[derive(Clone, Debug)]
pub struct SeparableWorld {
    /// The tasks.
    pub tasks: Vec<SeparableTask>,
    /// Weights with `y (w · x) ≥ 1` on every point of every task: a witness, not the shortest.
    pub separator: Vec<f64>,
}

/// `tasks` tasks of `points` points in `width` dimensions: Gaussian points of expected squared
/// norm 1, those nearer than `margin` to the common separating plane moved out to it.
///
/// # Errors
/// [`Error::BadWorld`] unless there is at least one of each and the margin is above 0.
pub fn separable_world(
    tasks: usize,
    points: usize,
    width: usize,
    margin: f64,
    key: Key,
) -> Result<SeparableWorld> {
    if tasks == 0 || points == 0 || width == 0 || !(margin > 0.0 && margin.is_finite()) {
        return Err(Error::BadWorld(
            "give at least one task, point and dimension, and a margin above 0".into(),
        ));
    }
    let normal = haar(width, 1, key.sub("separator"))?.data;
    let tasks = (0..tasks as u64)
        .map(|task| {
            let mut x = Matrix::gaussian(points, width, key.sub("points").at(task));
            let mut y = Vec::with_capacity(points);
            for point in x.data.chunks_exact_mut(width) {
                point.iter_mut().for_each(|v| *v /= (width as f64).sqrt());
                let distance = dot(point, &normal);
                let side = if distance < 0.0 { -1.0 } else { 1.0 };
                let push = (margin - side * distance).max(0.0) * side;
                point
                    .iter_mut()
                    .zip(&normal)
                    .for_each(|(v, n)| *v += push * n);
                y.push(side);
            }
            SeparableTask { x, y }
        })
        .collect();
    // A hair more than 1/margin, so that rounding keeps every point on its side of the margin.
    let separator = normal.iter().map(|n| n / margin * (1.0 + 1e-9)).collect();
    Ok(SeparableWorld { tasks, separator })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_identity(m: &Matrix) {
        for r in 0..m.rows {
            for c in 0..m.cols {
                assert!((m.at(r, c) - f64::from(u8::from(r == c))).abs() < 1e-12);
            }
        }
    }

    /// The solution of `A x = b` for a symmetric positive definite `A`, by elimination.
    fn solve(a: &Matrix, b: &[f64]) -> Vec<f64> {
        let n = b.len();
        let (mut a, mut b) = (a.clone(), b.to_vec());
        for k in 0..n {
            for r in k + 1..n {
                let share = a.at(r, k) / a.at(k, k);
                for c in k..n {
                    a.data[r * n + c] -= share * a.at(k, c);
                }
                b[r] -= share * b[k];
            }
        }
        for k in (0..n).rev() {
            let known: f64 = (k + 1..n).map(|c| a.at(k, c) * b[c]).sum();
            b[k] = (b[k] - known) / a.at(k, k);
        }
        b
    }

    /// The nearest weights to `w` that interpolate the task.
    fn interpolate(w: &[f64], x: &Matrix, y: &[f64]) -> Vec<f64> {
        let miss: Vec<f64> = x.times(w).iter().zip(y).map(|(a, b)| b - a).collect();
        let back = x
            .transposed()
            .times(&solve(&x.product(&x.transposed()), &miss));
        w.iter().zip(back).map(|(w, b)| w + b).collect()
    }

    fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
    }

    #[test]
    fn haar_matrices_are_orthogonal_and_have_the_moments_of_the_trace() {
        for (rows, cols) in [(1, 1), (5, 5), (9, 4), (30, 1)] {
            let q = haar(rows, cols, Key::new(0, "h")).unwrap();
            assert_eq!((q.rows, q.cols), (rows, cols));
            assert_identity(&q.transposed().product(&q));
        }
        // Diaconis & Shahshahani: E tr^k of a uniform orthogonal matrix is 0, 1, 0, 3.
        let n = 4000;
        let mut moments = [0.0; 4];
        for draw in 0..n {
            let q = haar(8, 8, Key::new(1, "h").at(draw)).unwrap();
            let trace: f64 = (0..8).map(|i| q.at(i, i)).sum();
            for (k, moment) in moments.iter_mut().enumerate() {
                *moment += trace.powi(k as i32 + 1) / n as f64;
            }
        }
        for (got, (want, se)) in moments.iter().zip([
            (0.0, 1.0),
            (1.0, 2f64.sqrt()),
            (0.0, 15f64.sqrt()),
            (3.0, 96f64.sqrt()),
        ]) {
            assert!(
                (got - want).abs() < 4.0 * se / (n as f64).sqrt(),
                "{moments:?}"
            );
        }
        assert!(haar(2, 3, Key::new(0, "h")).is_err());
    }

    #[test]
    fn gaussian_tasks_obey_the_published_recursion() {
        let (width, samples, tasks, noise, draws) = (60, 20, 4, 0.3, 300);
        let truths = similar_truths(tasks, width, 0.3, Key::new(0, "t")).unwrap();
        let mut sums = vec![[0.0f64; 2]; tasks * tasks];
        for draw in 0..draws {
            let mut w = vec![0.0; width];
            for t in 0..tasks {
                let key = Key::new(1, "task").at(draw).at(t as u64);
                let task = gaussian_task(&truths[t], samples, noise, key).unwrap();
                w = interpolate(&w, &task.x, &task.y);
                for i in 0..tasks {
                    let error = squared_distance(&w, &truths[i]);
                    sums[t * tasks + i][0] += error / draws as f64;
                    sums[t * tasks + i][1] += error * error / draws as f64;
                }
            }
        }
        let (n, p) = (samples as f64, width as f64);
        let r = 1.0 - n / p;
        for i in 0..tasks {
            let mut expected = squared_distance(&vec![0.0; width], &truths[i]);
            for t in 0..tasks {
                expected = r * expected
                    + (1.0 - r) * squared_distance(&truths[t], &truths[i])
                    + n * noise * noise / (p - n - 1.0);
                let [mean, square] = sums[t * tasks + i];
                let se = ((square - mean * mean) / draws as f64).sqrt();
                assert!(
                    (mean - expected).abs() < 3.5 * se,
                    "L_{i}({t}): {mean} is not {expected} ± {se}"
                );
            }
        }
        assert!(gaussian_task(&truths[0], 59, 0.0, Key::new(0, "")).is_err());
    }

    #[test]
    fn truths_are_as_similar_as_asked() {
        let truths = similar_truths(2, 20_000, 0.75, Key::new(0, "t")).unwrap();
        assert!((dot(&truths[0], &truths[0]) - 1.0).abs() < 0.05);
        assert!((squared_distance(&truths[0], &truths[1]) - 0.5).abs() < 0.03);
        assert!(similar_truths(2, 3, 1.5, Key::new(0, "t")).is_err());
    }

    #[test]
    fn a_rotated_pair_turns_only_its_subspace_and_forgets_as_published() {
        let pair = rotated_pair(40, 3, 10, Key::new(0, "r")).unwrap();
        assert_identity(&pair.rotation.product(&pair.rotation.transposed()));
        assert_identity(&pair.x.product(&pair.x.transposed()));
        // O − I has rank 10: its squared norm is 2 (10 − tr H), and tr O = 30 + tr H.
        let trace: f64 = (0..40).map(|k| pair.rotation.at(k, k)).sum();
        let moved: f64 = (0..1600)
            .map(|i| (pair.rotation.data[i] - f64::from(u8::from(i % 41 == 0))).powi(2))
            .sum();
        assert!((moved - 2.0 * (10.0 - (trace - 30.0))).abs() < 1e-9);
        let still = rotated_pair(10, 2, 0, Key::new(0, "r")).unwrap();
        assert_identity(&still.rotation);

        // Far over-parameterised: α² (1−α)², highest in the middle.
        for (turned, alpha) in [(10, 0.125f64), (40, 0.5), (70, 0.875)] {
            let draws = 150;
            let mut mean = 0.0;
            for draw in 0..draws {
                let pair = rotated_pair(80, 1, turned, Key::new(2, "r").at(draw)).unwrap();
                let first = interpolate(&[0.0; 80], &pair.x, &pair.y);
                let second = interpolate(&first, &pair.x_rotated, &pair.y);
                mean += squared_distance(&pair.x.times(&second), &pair.y)
                    / dot(&pair.y, &pair.y)
                    / draws as f64;
            }
            let expected = alpha.powi(2) * (1.0 - alpha).powi(2);
            assert!(
                (mean - expected).abs() < 0.012,
                "{alpha}: {mean} is not {expected}"
            );
        }
        assert!(rotated_pair(3, 4, 0, Key::new(0, "r")).is_err());
    }

    #[test]
    fn one_separator_solves_all_tasks() {
        let world = separable_world(5, 10, 20, 0.1, Key::new(0, "s")).unwrap();
        let mut sides = 0.0;
        for task in &world.tasks {
            for (score, y) in task.x.times(&world.separator).iter().zip(&task.y) {
                assert!(score * y >= 1.0);
                sides += y;
            }
        }
        assert!(f64::abs(sides) < 30.0, "both sides occur");
        assert_ne!(world.tasks[0].x, world.tasks[1].x);
        assert!(separable_world(1, 1, 1, 0.0, Key::new(0, "s")).is_err());
    }
}
