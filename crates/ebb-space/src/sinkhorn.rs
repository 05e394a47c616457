//! Entropic optimal transport between two batches of probability rows (SinKD, S189).
//!
//! The cost of matching student row i with teacher row j is `C_ij = ‖p_i − q_j‖₁`. The plan P
//! comes from the kernel `e^{−C/ε}` by rounds of row and column normalisation, and the loss is
//! the mean cost `⟨P, C⟩/n`. Its gradient is that of this very number, through all rounds (the
//! published code differentiates the same way): the envelope gradient, which holds P fixed, would
//! be exact for `⟨P, C⟩ − εH(P)` only.

/// Reused buffers of [`sinkhorn`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Transport {
    cost: Vec<f64>,
    /// Potentials of the rows and of the columns after each round: `ln P = −C/ε + f + g`.
    f: Vec<f64>,
    g: Vec<f64>,
    /// ∂/∂cost.
    by_cost: Vec<f64>,
    by_f: Vec<f64>,
    by_g: Vec<f64>,
    top: Vec<f64>,
}

/// `⟨P, C⟩/n` between the n rows of `p` and of `q`, and its gradient by `p`.
pub(crate) fn sinkhorn(
    p: &[f64],
    q: &[f64],
    n: usize,
    epsilon: f64,
    rounds: usize,
    s: &mut Transport,
    gradient: &mut [f64],
) -> f64 {
    let k = p.len() / n;
    let Transport {
        cost,
        f,
        g,
        by_cost,
        by_f,
        by_g,
        top,
    } = s;
    cost.clear();
    for a in p.chunks_exact(k) {
        let distance = |b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum() };
        cost.extend(q.chunks_exact(k).map(distance));
    }

    f.clear();
    g.clear();
    g.resize(n, 0.0); // before the first round
    for round in 0..rounds {
        let last = round * n;
        for row in cost.chunks_exact(n) {
            let ln = row.iter().zip(&g[last..]).map(|(c, g)| g - c / epsilon);
            let max = ln.clone().fold(f64::NEG_INFINITY, f64::max);
            f.push(-max - ln.map(|l| (l - max).exp()).sum::<f64>().ln());
        }
        // The columns, row by row: their greatest entries, then their sums.
        top.clear();
        top.resize(n, f64::NEG_INFINITY);
        for (row, f) in cost.chunks_exact(n).zip(&f[last..]) {
            (top.iter_mut().zip(row)).for_each(|(top, c)| *top = top.max(f - c / epsilon));
        }
        g.resize(last + 2 * n, 0.0);
        let sums = &mut g[last + n..];
        for (row, f) in cost.chunks_exact(n).zip(&f[last..]) {
            for ((sum, c), top) in sums.iter_mut().zip(row).zip(&*top) {
                *sum += (f - c / epsilon - top).exp();
            }
        }
        (sums.iter_mut().zip(&*top)).for_each(|(g, top)| *g = -top - g.ln());
    }

    // The value, and its slopes by the cost, by ln P and so by the last potentials.
    let mean = 1.0 / n as f64;
    by_cost.clear();
    by_f.clear();
    by_f.resize(n, 0.0);
    by_g.clear();
    by_g.resize(n, 0.0);
    let mut value = 0.0;
    let (f_last, g_last) = (&f[(rounds - 1) * n..], &g[rounds * n..]);
    for (i, row) in cost.chunks_exact(n).enumerate() {
        for (j, c) in row.iter().enumerate() {
            let plan = mean * (f_last[i] + g_last[j] - c / epsilon).exp();
            let by_ln = plan * c;
            value += by_ln;
            by_cost.push(plan - by_ln / epsilon);
            by_f[i] += by_ln;
            by_g[j] += by_ln;
        }
    }
    // Back through the rounds. `g_j = −LSE_i(f_i − C_ij/ε)` has the slopes −(softmax over i), and
    // the softmax is the plan after that half-round; the same for f.
    for round in (0..rounds).rev() {
        let (f, before, after) = (&f[round * n..], &g[round * n..], &g[(round + 1) * n..]);
        for (i, row) in cost.chunks_exact(n).enumerate() {
            for (j, c) in row.iter().enumerate() {
                let pull = by_g[j] * (f[i] + after[j] - c / epsilon).exp();
                by_f[i] -= pull;
                by_cost[i * n + j] += pull / epsilon;
            }
        }
        by_g.fill(0.0);
        for (i, row) in cost.chunks_exact(n).enumerate() {
            for (j, c) in row.iter().enumerate() {
                let pull = by_f[i] * (f[i] + before[j] - c / epsilon).exp();
                by_g[j] -= pull;
                by_cost[i * n + j] += pull / epsilon;
            }
        }
        by_f.fill(0.0);
    }

    gradient.fill(0.0);
    for ((a, out), by) in p
        .chunks_exact(k)
        .zip(gradient.chunks_exact_mut(k))
        .zip(by_cost.chunks_exact(n))
    {
        for (b, by) in q.chunks_exact(k).zip(by) {
            for ((a, b), out) in a.iter().zip(b).zip(&mut *out) {
                // |a − b| has slope 0 at 0, as in the published code.
                *out += by * f64::from(i8::from(a > b) - i8::from(a < b));
            }
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    /// n probability rows of k.
    fn rows(name: &str, n: usize, k: usize, scale: f64) -> Vec<f64> {
        let key = Key::new(3, name);
        let z: Vec<f64> = (0..n * k)
            .map(|i| (scale * key.normal(i as u64)).exp())
            .collect();
        z.chunks_exact(k)
            .flat_map(|row| row.iter().map(|e| e / row.iter().sum::<f64>()))
            .collect()
    }

    fn loss(p: &[f64], q: &[f64], n: usize, epsilon: f64, rounds: usize) -> (f64, Vec<f64>) {
        let mut gradient = vec![f64::NAN; p.len()];
        let mut s = Transport::default();
        let value = sinkhorn(p, q, n, epsilon, rounds, &mut s, &mut gradient);
        // Buffers that were used for something larger change nothing.
        let (p2, q2) = (rows("p2", n + 3, 4, 1.0), rows("q2", n + 3, 4, 1.0));
        let mut sink = vec![0.0; p2.len()];
        sinkhorn(&p2, &q2, n + 3, 0.2, rounds + 2, &mut s, &mut sink);
        let again = sinkhorn(p, q, n, epsilon, rounds, &mut s, &mut gradient);
        assert_eq!(value, again);
        (value, gradient)
    }

    fn l1(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum()
    }

    /// The published loop on the kernel itself, outside the log domain.
    fn published(p: &[f64], q: &[f64], n: usize, epsilon: f64, rounds: usize) -> f64 {
        let k = p.len() / n;
        let cost = |i: usize, j: usize| l1(&p[i * k..(i + 1) * k], &q[j * k..(j + 1) * k]);
        let mut plan: Vec<Vec<f64>> = (0..n)
            .map(|i| (0..n).map(|j| (-cost(i, j) / epsilon).exp()).collect())
            .collect();
        for _ in 0..rounds {
            for row in &mut plan {
                let sum: f64 = row.iter().sum();
                row.iter_mut().for_each(|x| *x /= sum);
            }
            for j in 0..n {
                let sum: f64 = plan.iter().map(|row| row[j]).sum();
                plan.iter_mut().for_each(|row| row[j] /= sum);
            }
        }
        let total: f64 = (0..n)
            .flat_map(|i| (0..n).map(move |j| (i, j)))
            .map(|(i, j)| plan[i][j] * cost(i, j))
            .sum();
        total / n as f64
    }

    #[test]
    fn it_is_the_published_loop() {
        for (n, k, epsilon, rounds) in [
            (1, 3, 0.1, 20),
            (4, 3, 0.1, 20),
            (7, 5, 0.5, 1),
            (6, 10, 0.05, 40),
        ] {
            let (p, q) = (rows("p", n, k, 1.5), rows("q", n, k, 1.5));
            let want = published(&p, &q, n, epsilon, rounds);
            let (value, _) = loss(&p, &q, n, epsilon, rounds);
            assert!((value - want).abs() < 1e-12, "{value} {want}");
        }
    }

    #[test]
    fn gradients_go_through_every_round() {
        for (n, k, epsilon, rounds) in [
            (1, 4, 0.1, 20),
            (2, 3, 0.1, 20),
            (5, 4, 0.1, 20),
            (5, 4, 0.3, 1),
            (3, 6, 1.0, 2),
        ] {
            let (p, q) = (rows("p", n, k, 1.0), rows("q", n, k, 1.0));
            let (_, gradient) = loss(&p, &q, n, epsilon, rounds);
            for j in 0..p.len() {
                let at = |step: f64| {
                    let mut p = p.clone();
                    p[j] += step;
                    published(&p, &q, n, epsilon, rounds)
                };
                let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
                assert!(
                    (slope - gradient[j]).abs() < 1e-7,
                    "{n} {k}: {slope} {}",
                    gradient[j]
                );
            }
        }
    }

    /// With two rows the converged plan is known: `a/(1−a) = e^{−(C₁₁ + C₂₂ − C₁₂ − C₂₁)/2ε}`.
    #[test]
    fn two_rows_have_a_closed_form() {
        let (p, q) = (rows("p", 2, 4, 1.0), rows("q", 2, 4, 1.0));
        let c = |i: usize, j: usize| l1(&p[4 * i..4 * i + 4], &q[4 * j..4 * j + 4]);
        let (straight, crossed) = (c(0, 0) + c(1, 1), c(0, 1) + c(1, 0));
        let a = 1.0 / (1.0 + f64::exp((straight - crossed) / (2.0 * 0.2)));
        let want = 0.5 * (a * straight + (1.0 - a) * crossed);
        let (value, _) = loss(&p, &q, 2, 0.2, 200);
        assert!((value - want).abs() < 1e-12, "{value} {want}");
    }

    /// The limits: a plan that does not care, and one that finds the best matching, which is at
    /// most the row-wise cost (twice the mean total variation) and 0 for shuffled rows.
    #[test]
    fn wide_and_narrow_kernels() {
        let (n, k) = (4, 5);
        let (p, q) = (rows("p", n, k, 1.0), rows("q", n, k, 1.0));
        let all: f64 = p
            .chunks_exact(k)
            .flat_map(|a| q.chunks_exact(k).map(move |b| l1(a, b)))
            .sum();
        let (value, _) = loss(&p, &q, n, 1e9, 5);
        assert!((value - all / 16.0).abs() < 1e-8);
        let row_wise: f64 = p
            .chunks_exact(k)
            .zip(q.chunks_exact(k))
            .map(|(a, b)| l1(a, b))
            .sum();
        let (value, _) = loss(&p, &q, n, 0.002, 4000);
        assert!(value <= row_wise / 4.0 + 1e-9);
        let shuffled: Vec<f64> = [2, 0, 3, 1]
            .iter()
            .flat_map(|&i| p[i * k..(i + 1) * k].iter().copied())
            .collect();
        let (value, _) = loss(&shuffled, &p, n, 0.002, 100);
        assert!(value.abs() < 1e-12, "{value}");
    }
}
