//! Relations between the rows of a batch: how like each other their features are, and which rows
//! each class prefers.

/// What the likeness of two rows is compared with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Relatives<'a> {
    /// Rows of the same label are alike, all as much: supervised contrast.
    Labels(&'a [u32]),
    /// As like as they are in these features.
    Features(&'a [f64]),
}

/// Reused buffers of [`contrast`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Likeness {
    unit: Vec<f64>,
    norm: Vec<f64>,
    other: Vec<f64>,
    /// One anchor's similarities, then its slopes by them.
    s: Vec<f64>,
    q: Vec<f64>,
}

/// The mean over anchors i of `−Σ_{j≠i} q_ij ln p_ij`, where `p_i = softmax_{j≠i}(u_i·u_j/t)` with
/// rows u of length one; and its gradient by the `n` rows of `features`.
///
/// q is `1/|P(i)|` on the other rows of i's label (SupCon, summed outside the logarithm; an anchor
/// without such rows costs nothing but is counted), or the softmax of the reference's similarities.
pub(crate) fn contrast(
    features: &[f64],
    relatives: Relatives<'_>,
    n: usize,
    t: f64,
    scratch: &mut Likeness,
    gradient: &mut [f64],
) -> f64 {
    let d = features.len() / n;
    let Likeness {
        unit,
        norm,
        other,
        s,
        q,
    } = scratch;
    normalise(features, d, unit, norm);
    let unit = &unit[..];
    gradient.fill(0.0);
    let row = |i: usize| &unit[i * d..(i + 1) * d];
    let mut value = 0.0;
    for i in 0..n {
        q.clear();
        match relatives {
            Relatives::Labels(labels) => {
                let alike = |j: usize| j != i && labels[j] == labels[i];
                let number = (0..n).filter(|&j| alike(j)).count();
                if number == 0 {
                    continue;
                }
                q.extend((0..n).map(|j| f64::from(u8::from(alike(j))) / number as f64));
            }
            Relatives::Features(reference) => {
                if i == 0 {
                    normalise(reference, d, other, s);
                }
                let of = |j: usize| &other[j * d..(j + 1) * d];
                q.extend((0..n).map(|j| dot(of(i), of(j)) / t));
                let lse = lse_without(i, q);
                q.iter_mut().for_each(|q| *q = (*q - lse).exp());
                q[i] = 0.0;
            }
        }
        s.clear();
        s.extend((0..n).map(|j| dot(row(i), row(j)) / t));
        let lse = lse_without(i, s);
        for j in (0..n).filter(|&j| j != i) {
            let ln_p = s[j] - lse;
            if q[j] > 0.0 {
                value -= q[j] * ln_p;
            }
            let slope = (ln_p.exp() - q[j]) / t; // ∂/∂(u_i·u_j)
            for c in 0..d {
                gradient[i * d + c] += slope * unit[j * d + c];
                gradient[j * d + c] += slope * unit[i * d + c];
            }
        }
    }
    // Through the normalisation: ∂u/∂φ = (1 − uuᵀ)/‖φ‖. Where φ is 0 it points nowhere.
    let mean = 1.0 / n as f64;
    for ((g, u), norm) in gradient
        .chunks_exact_mut(d)
        .zip(unit.chunks_exact(d))
        .zip(norm)
    {
        let along = dot(g, u);
        let scale = if *norm > 0.0 { mean / *norm } else { 0.0 };
        g.iter_mut()
            .zip(u)
            .for_each(|(g, u)| *g = scale * (*g - along * u));
    }
    mean * value
}

/// The mean over columns c of `KL(q_c ‖ p_c)`, where `p_c` is the softmax of column c of `z` over
/// the `n` rows and `q_c` that of `r`; and its gradient by `z`. Entries of −∞ take no part, nor do
/// columns of nothing else.
pub(crate) fn relation(z: &[f64], r: &[f64], n: usize, gradient: &mut [f64]) -> f64 {
    let k = z.len() / n;
    let lse = |x: &[f64], c: usize| {
        let column = || (0..n).map(|i| x[i * k + c]);
        let max = column().fold(f64::NEG_INFINITY, f64::max);
        max + column().map(|x| (x - max).exp()).sum::<f64>().ln()
    };
    let used = |c: usize| (0..n).any(|i| z[i * k + c] > f64::NEG_INFINITY);
    let columns = (0..k).filter(|&c| used(c)).count();
    let mean = 1.0 / columns.max(1) as f64;
    gradient.fill(0.0);
    let mut value = 0.0;
    for c in (0..k).filter(|&c| used(c)) {
        let (of_z, of_r) = (lse(z, c), lse(r, c));
        for at in (0..n).map(|i| i * k + c) {
            let (ln_p, ln_q) = (z[at] - of_z, r[at] - of_r);
            let q = ln_q.exp();
            if q > 0.0 {
                value += q * (ln_q - ln_p);
            }
            gradient[at] = mean * (ln_p.exp() - q);
        }
    }
    mean * value
}

fn normalise(rows: &[f64], d: usize, unit: &mut Vec<f64>, norms: &mut Vec<f64>) {
    unit.clear();
    norms.clear();
    for row in rows.chunks_exact(d) {
        let norm = dot(row, row).sqrt();
        norms.push(norm);
        let scale = if norm == 0.0 { 0.0 } else { 1.0 / norm };
        unit.extend(row.iter().map(|x| x * scale));
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The log-sum-exp of all entries but number `i`; −∞ where there are none.
fn lse_without(i: usize, s: &[f64]) -> f64 {
    let others = || s[..i].iter().chain(&s[i + 1..]);
    let max = others().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
    if max == f64::NEG_INFINITY {
        return max;
    }
    max + others().map(|s| (s - max).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    fn random(name: &str, n: usize, scale: f64) -> Vec<f64> {
        let key = Key::new(9, name);
        (0..n as u64).map(|i| scale * key.normal(i)).collect()
    }

    fn loss(features: &[f64], relatives: Relatives<'_>, n: usize, t: f64) -> (f64, Vec<f64>) {
        let mut gradient = vec![f64::NAN; features.len()];
        let value = contrast(
            features,
            relatives,
            n,
            t,
            &mut Likeness::default(),
            &mut gradient,
        );
        (value, gradient)
    }

    fn cosine(x: &[f64], d: usize, i: usize, j: usize) -> f64 {
        let (a, b) = (&x[i * d..(i + 1) * d], &x[j * d..(j + 1) * d]);
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    /// Khosla et al. 2020, equation 2, written out.
    fn sup_con(x: &[f64], labels: &[u32], d: usize, t: f64) -> f64 {
        let n = labels.len();
        let each = |i: usize| {
            let below: f64 = (0..n)
                .filter(|a| *a != i)
                .map(|a| (cosine(x, d, i, a) / t).exp())
                .sum();
            let positives: Vec<usize> = (0..n)
                .filter(|p| *p != i && labels[*p] == labels[i])
                .collect();
            let terms = positives
                .iter()
                .map(|&p| ((cosine(x, d, i, p) / t).exp() / below).ln());
            -terms.sum::<f64>() / positives.len().max(1) as f64
        };
        (0..n).map(each).sum::<f64>() / n as f64
    }

    /// The cross-entropy between rows of similarities, diagonal removed, written out.
    fn similarity(x: &[f64], y: &[f64], n: usize, d: usize, t: f64) -> f64 {
        let p = |x: &[f64], i: usize, j: usize| {
            let e = |j: usize| (cosine(x, d, i, j) / t).exp();
            e(j) / (0..n).filter(|a| *a != i).map(e).sum::<f64>()
        };
        let each = |i: usize| -> f64 {
            let others = (0..n).filter(|j| *j != i);
            -others.map(|j| p(y, i, j) * p(x, i, j).ln()).sum::<f64>()
        };
        (0..n).map(each).sum::<f64>() / n as f64
    }

    fn differences(x: &[f64], of: impl Fn(&[f64]) -> f64) -> Vec<f64> {
        (0..x.len())
            .map(|j| {
                let at = |step: f64| {
                    let mut x = x.to_vec();
                    x[j] += step;
                    of(&x)
                };
                (at(1e-5) - at(-1e-5)) / 2e-5
            })
            .collect()
    }

    fn agree(got: &[f64], want: &[f64], what: &str) {
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 2e-8, "{what}: {got} {want}");
        }
    }

    #[test]
    fn labels_give_the_supervised_contrastive_loss() {
        for (labels, d, t) in [
            (vec![0, 1, 0, 1, 0], 3, 0.5),
            (vec![2, 2], 4, 0.1),
            (vec![0, 1, 2, 1, 3, 1, 0], 5, 0.1), // 2 and 3 stand alone
            (vec![4, 4, 4, 4], 2, 1.0),
        ] {
            let n = labels.len();
            let x = random("x", n * d, 1.3);
            let (value, gradient) = loss(&x, Relatives::Labels(&labels), n, t);
            let want = sup_con(&x, &labels, d, t);
            assert!((value - want).abs() < 1e-12, "{value} {want}");
            agree(
                &gradient,
                &differences(&x, |x| sup_con(x, &labels, d, t)),
                "SupCon",
            );
            // The length of a row does not matter: no gradient along it.
            for (g, x) in gradient.chunks(d).zip(x.chunks(d)) {
                assert!(dot(g, x).abs() < 1e-12);
            }
        }
    }

    /// Two classes collapsed onto opposite points: `ln((m−1) e^{1/t} + m e^{−1/t}) − 1/t` for m
    /// rows each, where no row can move to do better.
    #[test]
    fn collapsed_classes_have_a_closed_form() {
        let m = 3;
        let labels = [0, 0, 0, 1, 1, 1];
        let x: Vec<f64> = labels
            .iter()
            .flat_map(|l| if *l == 0 { [2.0, 0.0] } else { [-0.5, 0.0] })
            .collect();
        let (value, gradient) = loss(&x, Relatives::Labels(&labels), 6, 0.5);
        let (near, far) = (f64::exp(2.0), f64::exp(-2.0));
        let want = (f64::from(m - 1) * near + f64::from(m) * far).ln() - 2.0;
        assert!((value - want).abs() < 1e-14, "{value} {want}");
        assert!(gradient.iter().all(|g| g.abs() < 1e-14));
    }

    #[test]
    fn features_give_the_cross_entropy_of_similarities() {
        let (n, d) = (6, 3);
        let (x, y) = (random("x", n * d, 1.0), random("y", n * d, 2.0));
        for t in [0.09, 0.5] {
            let (value, gradient) = loss(&x, Relatives::Features(&y), n, t);
            let want = similarity(&x, &y, n, d, t);
            assert!((value - want).abs() < 1e-11 * want, "{value} {want}");
            let slopes = differences(&x, |x| similarity(x, &y, n, d, t));
            for (got, want) in gradient.iter().zip(&slopes) {
                assert!(
                    (got - want).abs() < 1e-7 * want.abs().max(1.0),
                    "{got} {want}"
                );
            }
            // Turning and stretching all rows alike is no change: the teacher's own are a minimum.
            let turned: Vec<f64> = y
                .chunks(3)
                .flat_map(|r| [-3.0 * r[1], 3.0 * r[0], 3.0 * r[2]])
                .collect();
            let (_, still) = loss(&turned, Relatives::Features(&y), n, t);
            assert!(still.iter().all(|g| g.abs() < 1e-12));
        }
    }

    #[test]
    fn a_row_alone_or_without_direction_is_no_trouble() {
        let (value, gradient) = loss(&[1.0, 2.0], Relatives::Labels(&[0]), 1, 0.1);
        assert_eq!((value, gradient), (0.0, vec![0.0; 2]));
        let (value, gradient) = loss(&[1.0, 2.0], Relatives::Features(&[0.5, 1.0]), 1, 0.1);
        assert_eq!((value, gradient), (0.0, vec![0.0; 2]));
        let x = [1.0, 0.0, 0.0, 0.0, 0.6, 0.8];
        let (value, gradient) = loss(&x, Relatives::Labels(&[0, 0, 0]), 3, 0.1);
        assert!(value.is_finite() && gradient.iter().all(|g| g.is_finite()));
        assert_eq!(gradient[2..4], [0.0; 2]);
    }

    #[test]
    fn the_relation_is_a_softmax_over_the_batch_for_each_column() {
        let (n, k) = (5, 4);
        let (mut z, mut r) = (random("z", n * k, 1.5), random("r", n * k, 1.5));
        // Row 2 may not use columns 0 and 3; nobody may use column 3.
        for i in 0..n {
            z[i * k + 3] = f64::NEG_INFINITY;
            r[i * k + 3] = f64::NEG_INFINITY;
        }
        z[2 * k] = f64::NEG_INFINITY;
        r[2 * k] = f64::NEG_INFINITY;
        let written_out = |z: &[f64]| -> f64 {
            let rows = |c: usize| (0..n).filter(move |i| c != 0 || *i != 2);
            let p = |x: &[f64], i: usize, c: usize| {
                x[i * k + c].exp() / rows(c).map(|i| x[i * k + c].exp()).sum::<f64>()
            };
            let kl = |c: usize| -> f64 {
                rows(c)
                    .map(|i| p(&r, i, c) * (p(&r, i, c) / p(z, i, c)).ln())
                    .sum()
            };
            (0..3).map(kl).sum::<f64>() / 3.0
        };
        let mut gradient = vec![f64::NAN; n * k];
        let value = relation(&z, &r, n, &mut gradient);
        assert!((value - written_out(&z)).abs() < 1e-13);
        for j in 0..n * k {
            if z[j] == f64::NEG_INFINITY {
                assert_eq!(gradient[j], 0.0);
                continue;
            }
            let at = |step: f64| {
                let mut z = z.clone();
                z[j] += step;
                written_out(&z)
            };
            let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!(
                (slope - gradient[j]).abs() < 1e-9,
                "{slope} {}",
                gradient[j]
            );
        }
        // What all rows have in common does not count: a prototype may grow.
        let moved: Vec<f64> = r
            .iter()
            .enumerate()
            .map(|(j, r)| r + (j % k) as f64)
            .collect();
        assert!(relation(&moved, &r, n, &mut gradient).abs() < 1e-14);
        assert!(gradient.iter().all(|g| g.abs() < 1e-15));
    }
}
