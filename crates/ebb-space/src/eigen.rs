//! Eigenvalues of small dense symmetric matrices in f64.

/// The eigenvalues of the symmetric `n × n` matrix `a` (row-major) in ascending order, and its
/// orthonormal eigenvectors as the rows of the second value.
///
/// Householder reduction to tridiagonal form, then implicit QL (EISPACK's `tred2` and `tql2`).
///
/// # Panics
/// If `a` does not have `n²` values.
pub fn symmetric_eigen(a: &[f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    assert!(a.len() == n * n, "a symmetric matrix is square");
    if n == 0 {
        return (Vec::new(), Vec::new());
    }
    // Rows of `v` become eigenvectors: both routines work on the transpose of the classical
    // layout, so that their inner loops run along memory.
    let mut v = a.to_vec();
    let (mut d, mut e) = (vec![0.0; n], vec![0.0; n]);
    tridiagonalise(&mut v, &mut d, &mut e, n);
    implicit_ql(&mut v, &mut d, &mut e, n);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| d[i].total_cmp(&d[j]));
    let values = order.iter().map(|&i| d[i]).collect();
    let vectors = order
        .iter()
        .flat_map(|&i| v[i * n..(i + 1) * n].iter().copied())
        .collect();
    (values, vectors)
}

/// On return `d` is the diagonal, `e[1..]` the subdiagonal, and row `j` of `v` is column `j` of
/// the orthogonal transformation.
fn tridiagonalise(v: &mut [f64], d: &mut [f64], e: &mut [f64], n: usize) {
    // v[j * n + i] is element (i, j) of the classical V.
    for j in 0..n {
        d[j] = v[j * n + n - 1];
    }
    for i in (1..n).rev() {
        let scale: f64 = d[..i].iter().map(|d| d.abs()).sum();
        let mut h = 0.0;
        if scale == 0.0 {
            e[i] = d[i - 1];
            for j in 0..i {
                d[j] = v[j * n + i - 1];
                v[j * n + i] = 0.0;
                v[i * n + j] = 0.0;
            }
        } else {
            for dk in &mut d[..i] {
                *dk /= scale;
                h += *dk * *dk;
            }
            let f = d[i - 1];
            let g = if f > 0.0 { -h.sqrt() } else { h.sqrt() };
            e[i] = scale * g;
            h -= f * g;
            d[i - 1] = f - g;
            e[..i].fill(0.0);
            for j in 0..i {
                let f = d[j];
                v[i * n + j] = f;
                let mut g = e[j] + v[j * n + j] * f;
                for k in j + 1..i {
                    g += v[j * n + k] * d[k];
                    e[k] += v[j * n + k] * f;
                }
                e[j] = g;
            }
            let mut f = 0.0;
            for j in 0..i {
                e[j] /= h;
                f += e[j] * d[j];
            }
            let hh = f / (h + h);
            for j in 0..i {
                e[j] -= hh * d[j];
            }
            for j in 0..i {
                let (f, g) = (d[j], e[j]);
                for k in j..i {
                    v[j * n + k] -= f * e[k] + g * d[k];
                }
                d[j] = v[j * n + i - 1];
                v[j * n + i] = 0.0;
            }
        }
        d[i] = h;
    }
    for i in 0..n - 1 {
        v[i * n + n - 1] = v[i * n + i];
        v[i * n + i] = 1.0;
        let h = d[i + 1];
        if h != 0.0 {
            for k in 0..=i {
                d[k] = v[(i + 1) * n + k] / h;
            }
            for j in 0..=i {
                let g: f64 = (0..=i).map(|k| v[(i + 1) * n + k] * v[j * n + k]).sum();
                for k in 0..=i {
                    v[j * n + k] -= g * d[k];
                }
            }
        }
        for k in 0..=i {
            v[(i + 1) * n + k] = 0.0;
        }
    }
    for j in 0..n {
        d[j] = v[j * n + n - 1];
        v[j * n + n - 1] = 0.0;
    }
    v[(n - 1) * n + n - 1] = 1.0;
    e[0] = 0.0;
}

fn implicit_ql(v: &mut [f64], d: &mut [f64], e: &mut [f64], n: usize) {
    e.rotate_left(1);
    e[n - 1] = 0.0;
    let (mut f, mut largest) = (0.0, 0.0f64);
    for l in 0..n {
        largest = largest.max(d[l].abs() + e[l].abs());
        let mut m = l;
        while m + 1 < n && e[m].abs() > f64::EPSILON * largest {
            m += 1;
        }
        // Sixty sweeps are twenty times what a well-behaved matrix takes.
        for _ in 0..60 {
            if m <= l || e[l].abs() <= f64::EPSILON * largest {
                break;
            }
            let g = d[l];
            let mut p = (d[l + 1] - g) / (2.0 * e[l]);
            let r = if p < 0.0 { -p.hypot(1.0) } else { p.hypot(1.0) };
            d[l] = e[l] / (p + r);
            d[l + 1] = e[l] * (p + r);
            let next = d[l + 1];
            let h = g - d[l];
            d[l + 2..].iter_mut().for_each(|d| *d -= h);
            f += h;
            p = d[m];
            let (mut c, mut c2, mut c3) = (1.0, 1.0, 1.0);
            let (mut s, mut s2) = (0.0, 0.0);
            let after = e[l + 1];
            for i in (l..m).rev() {
                c3 = c2;
                c2 = c;
                s2 = s;
                let g = c * e[i];
                let h = c * p;
                let r = p.hypot(e[i]);
                e[i + 1] = s * r;
                s = e[i] / r;
                c = p / r;
                p = c * d[i] - s * g;
                d[i + 1] = h + s * (c * g + s * d[i]);
                let (low, high) = v.split_at_mut((i + 1) * n);
                for (a, b) in low[i * n..].iter_mut().zip(&mut high[..n]) {
                    let h = *b;
                    *b = s * *a + c * h;
                    *a = c * *a - s * h;
                }
            }
            p = -s * s2 * c3 * after * e[l] / next;
            e[l] = s * p;
            d[l] = c * p;
        }
        d[l] += f;
        e[l] = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    fn check(a: &[f64], n: usize) -> Vec<f64> {
        let (values, vectors) = symmetric_eigen(a, n);
        let scale = a.iter().fold(1e-300f64, |m, a| m.max(a.abs()));
        let vector = |i: usize| &vectors[i * n..(i + 1) * n];
        for (i, value) in values.iter().enumerate() {
            for r in 0..n {
                let av: f64 = (0..n).map(|c| a[r * n + c] * vector(i)[c]).sum();
                assert!((av - value * vector(i)[r]).abs() < 1e-12 * scale * n as f64);
            }
            for j in 0..n {
                let dot: f64 = vector(i).iter().zip(vector(j)).map(|(a, b)| a * b).sum();
                assert!((dot - f64::from(i == j)).abs() < 1e-12);
            }
        }
        assert!(values.is_sorted());
        values
    }

    #[test]
    fn random_degenerate_and_closed_form_matrices() {
        for n in [1, 2, 3, 10, 61] {
            let key = Key::new(n as u64, "eigen");
            let mut a = vec![0.0; n * n];
            for i in 0..n {
                for j in 0..=i {
                    let v = key.normal((i * n + j) as u64);
                    (a[i * n + j], a[j * n + i]) = (v, v);
                }
            }
            check(&a, n);
        }
        assert_eq!(check(&[0.0; 16], 4), [0.0; 4]);
        // Rank one: u uᵀ with |u|² = 30.
        let u = [1.0, 2.0, 3.0, 4.0];
        let a: Vec<f64> = (0..16).map(|at| u[at / 4] * u[at % 4]).collect();
        assert!((check(&a, 4)[3] - 30.0).abs() < 1e-12);
        // The path graph's Laplacian: 2 − 2 cos(πk/n).
        let n = 20;
        let mut a = vec![0.0; n * n];
        for i in 0..n - 1 {
            a[i * n + i] += 1.0;
            a[(i + 1) * n + i + 1] += 1.0;
            a[i * n + i + 1] = -1.0;
            a[(i + 1) * n + i] = -1.0;
        }
        for (k, value) in check(&a, n).iter().enumerate() {
            let want = 2.0 - 2.0 * (std::f64::consts::PI * k as f64 / n as f64).cos();
            assert!((value - want).abs() < 1e-13);
        }
    }
}
