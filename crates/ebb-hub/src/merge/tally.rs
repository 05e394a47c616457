//! What a merge says of its task vectors, added up piece by piece.

use ebb_space::merge::Task;

/// Values whose products are added up in f32 before they enter an f64 sum.
const SHORT: usize = 4096;
/// Values of a row that are looked at together.
const BLOCK: usize = 512;

/// Sums over entries.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    sources: usize,
    /// Inner products of task vectors, sources by sources.
    pub dots: Vec<f64>,
    /// Entries that a source changes.
    pub changed: u64,
    /// Those that sources pull in both directions.
    pub conflicts: u64,
    /// `‖Σ τ_t‖₁`.
    pub sum_abs: f64,
    pub merged_abs: f64,
    pub merged_square: f64,
    pub base_square: f64,
}

impl Tally {
    pub fn new(sources: usize) -> Tally {
        Tally {
            sources,
            dots: vec![0.0; sources * sources],
            changed: 0,
            conflicts: 0,
            sum_abs: 0.0,
            merged_abs: 0.0,
            merged_square: 0.0,
            base_square: 0.0,
        }
    }

    pub fn add(&mut self, other: &Tally) {
        for (dot, other) in self.dots.iter_mut().zip(&other.dots) {
            *dot += other;
        }
        self.changed += other.changed;
        self.conflicts += other.conflicts;
        self.sum_abs += other.sum_abs;
        self.merged_abs += other.merged_abs;
        self.merged_square += other.merged_square;
        self.base_square += other.base_square;
    }

    /// A piece of the base.
    pub fn base(&mut self, base: &[f32]) {
        self.base_square += squares(base);
    }

    /// The same piece of every task vector (a row each) and of what was made of them.
    pub fn merged(&mut self, tasks: &[Task], taus: &[f32], merged: &[f32]) {
        let len = merged.len();
        self.merged_square += squares(merged);
        self.merged_abs += lanes(merged, f64::abs);
        self.dots(taus, len);
        let mut block = [[0.0f32; BLOCK]; 3];
        for from in (0..len).step_by(BLOCK) {
            let n = BLOCK.min(len - from);
            let [low, high, sum] = &mut block;
            low[..n].fill(0.0);
            high[..n].fill(0.0);
            sum[..n].fill(0.0);
            for (task, tau) in tasks.iter().zip(taus.chunks_exact(len)) {
                let sign = if task.weight < 0.0 { -1.0 } else { 1.0 };
                let places = low.iter_mut().zip(&mut *high).zip(&mut *sum);
                for (((low, high), sum), &tau) in places.zip(&tau[from..from + n]) {
                    let value = sign * tau;
                    *low = if value < *low { value } else { *low };
                    *high = if value > *high { value } else { *high };
                    *sum += tau;
                }
            }
            for (low, high) in low[..n].iter().zip(&high[..n]) {
                self.changed += u64::from(*low < 0.0 || *high > 0.0);
                self.conflicts += u64::from(*low < 0.0 && *high > 0.0);
            }
            self.sum_abs += lanes(&sum[..n], f64::abs);
        }
    }

    fn dots(&mut self, taus: &[f32], len: usize) {
        let n = self.sources;
        for (i, tau) in taus.chunks_exact(len).enumerate() {
            self.dots[i * n + i] += squares(tau);
        }
        if n < 2 {
            return;
        }
        let mut short = vec![0.0f32; n * n];
        for from in (0..len).step_by(SHORT) {
            let k = SHORT.min(len - from);
            let rows = &taus[from..];
            assert!(rows.len() >= (n - 1) * len + k, "a row a source");
            // SAFETY: the rows of the first factor begin `len` apart and have `k` values, as the
            // columns of the second do; the product is n by n.
            unsafe {
                gemm::gemm(
                    n,
                    n,
                    k,
                    short.as_mut_ptr(),
                    1,
                    n as isize,
                    false,
                    rows.as_ptr(),
                    1,
                    len as isize,
                    rows.as_ptr(),
                    len as isize,
                    1,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            }
            for (at, short) in short.iter().enumerate() {
                if at / n != at % n {
                    self.dots[at] += f64::from(*short);
                }
            }
        }
    }
}

fn squares(x: &[f32]) -> f64 {
    lanes(x, |v| v * v)
}

/// `Σ term(x)` in f64, in an order that does not depend on the processor.
fn lanes(x: &[f32], term: impl Fn(f64) -> f64) -> f64 {
    let (groups, rest) = x.as_chunks::<8>();
    let mut sums = [0.0f64; 8];
    for group in groups {
        for (sum, v) in sums.iter_mut().zip(group) {
            *sum += term(f64::from(*v));
        }
    }
    let rest: f64 = rest.iter().map(|v| term(f64::from(*v))).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_space::Key;

    #[test]
    fn sums_are_those_of_f64() {
        let (n, len) = (3, 5000);
        let key = Key::new(0, "tally");
        let mut taus: Vec<f32> = (0..(n * len) as u64)
            .map(|i| key.normal(i) as f32)
            .collect();
        taus.iter_mut().step_by(3).for_each(|v| *v = 0.0);
        let merged: Vec<f32> = taus[..len].iter().map(|v| 0.5 * v).collect();
        let task = |weight: f64| Task {
            name: String::new(),
            weight,
        };
        let weights = [1.0, 1.0, -1.0];
        let mut tally = Tally::new(n);
        tally.merged(&weights.map(task), &taus, &merged);
        let row = |i: usize| &taus[i * len..(i + 1) * len];
        for i in 0..n {
            for j in 0..n {
                let pairs = row(i).iter().zip(row(j));
                let want: f64 = pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                assert!((tally.dots[i * n + j] - want).abs() < 1e-2, "{i} {j}");
            }
        }
        let (mut changed, mut conflicts, mut sum_abs) = (0, 0, 0.0);
        for e in 0..len {
            let of = |i: usize| f64::from(row(i)[e]) * weights[i];
            let all = [of(0), of(1), of(2)];
            changed += u64::from(all.iter().any(|v| *v != 0.0));
            conflicts += u64::from(all.iter().any(|v| *v > 0.0) && all.iter().any(|v| *v < 0.0));
            sum_abs += (0..n).map(|i| f64::from(row(i)[e])).sum::<f64>().abs();
        }
        assert_eq!((tally.changed, tally.conflicts), (changed, conflicts));
        assert!((tally.sum_abs - sum_abs).abs() < 1e-6 * sum_abs);
        assert!((tally.merged_square - 0.25 * tally.dots[0]).abs() < 1e-9 * tally.dots[0]);
        let mut twice = Tally::new(n);
        twice.add(&tally);
        twice.add(&tally);
        assert_eq!(twice.dots[1], 2.0 * tally.dots[1]);
    }
}
