//! The product of two thin factors, and its forms.
//!
//! **What it does.** Holds `B A` as its factors; gives them the one form that belongs to the
//! product and not to how it was trained (balanced), and cuts them to a lower rank.
//! **Source.** The singular value decomposition; cutting is optimal by Eckart and Young, 1936. It
//! is the trivial rival of [`Shared`](super::Shared) (card S127).
//! **Equation.** With `B A = U S Vᵀ`: `B' = U √S`, `A' = √S Vᵀ`; cut: the first k columns and rows.
//! **Use it** before adapters are compared or stored together: `B R` and `R⁻¹ A` are the same
//! product for every invertible R. **Not** to merge: factors of different adapters still do not
//! add up.
//! **Stores** the factors in f64. **Costs** three eigenvalue problems of the size of the rank, and
//! `r²` multiply-adds a row.
//!
//! The decomposition goes through Gram matrices of the rank's size. They square the condition:
//! components below 1e-8 of the largest are not told apart from one another, which moves the
//! product by less than that.

use crate::eigen::symmetric_eigen;
use crate::{Error, Result};

/// `B A` of rank r at most, for `inputs` and `outputs`.
#[derive(Clone, Debug, PartialEq)]
pub struct Factors {
    rank: usize,
    inputs: usize,
    outputs: usize,
    /// `Aᵀ`, inputs by rank.
    a: Vec<f64>,
    /// Outputs by rank.
    b: Vec<f64>,
}

/// Components weaker than this share of the strongest are rounding.
const ROUNDING: f64 = 1e-10;

impl Factors {
    /// `scale · B A`, of `a` (rank by inputs) and `b` (outputs by rank).
    ///
    /// # Errors
    /// [`Error::BadMerge`] for factors that do not have this rank, or a rank of 0.
    pub fn new(rank: usize, scale: f64, a: &[f32], b: &[f32]) -> Result<Factors> {
        if rank == 0 || !a.len().is_multiple_of(rank) || !b.len().is_multiple_of(rank) {
            let what = format!(
                "{} values of A and {} of B are no factors of rank {rank}",
                a.len(),
                b.len()
            );
            return Err(Error::BadMerge(what));
        }
        let inputs = a.len() / rank;
        let transposed = (0..inputs).flat_map(|i| (0..rank).map(move |k| (i, k)));
        Ok(Factors {
            rank,
            inputs,
            outputs: b.len() / rank,
            a: transposed
                .map(|(i, k)| f64::from(a[k * inputs + i]))
                .collect(),
            b: b.iter().map(|&v| scale * f64::from(v)).collect(),
        })
    }

    /// Factors from a vector of `rank` values for each input, and for each output.
    ///
    /// # Panics
    /// If a side has no whole number of such vectors.
    pub fn of_positions(rank: usize, a: Vec<f64>, b: Vec<f64>) -> Factors {
        assert!(
            rank > 0 && a.len().is_multiple_of(rank) && b.len().is_multiple_of(rank),
            "vectors of one rank"
        );
        Factors {
            rank,
            inputs: a.len() / rank,
            outputs: b.len() / rank,
            a,
            b,
        }
    }

    /// Its rank, at most.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Inputs of the product.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Outputs of the product.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// A vector of rank values for each input, and then for each output.
    pub fn positions(&self) -> (&[f64], &[f64]) {
        (&self.a, &self.b)
    }

    /// A (rank by inputs) and B (outputs by rank).
    pub fn to_f32(&self) -> (Vec<f32>, Vec<f32>) {
        let at = |k: usize| (0..self.inputs).map(move |i| (i, k));
        let a = (0..self.rank).flat_map(at);
        (
            a.map(|(i, k)| self.a[i * self.rank + k] as f32).collect(),
            self.b.iter().map(|&v| v as f32).collect(),
        )
    }

    /// The inner product of two products, from their factors.
    ///
    /// # Panics
    /// If they have different inputs or outputs.
    pub fn dot(&self, other: &Factors) -> f64 {
        assert!(
            self.inputs == other.inputs && self.outputs == other.outputs,
            "products of one shape"
        );
        let a = gram(&self.a, self.rank, &other.a, other.rank);
        let b = gram(&self.b, self.rank, &other.b, other.rank);
        a.iter().zip(&b).map(|(a, b)| a * b).sum()
    }

    /// The norm of the product.
    pub fn norm(&self) -> f64 {
        self.dot(self).max(0.0).sqrt()
    }

    /// The norm of the difference of two products, over the norm of this one (0 where both are 0).
    /// What is below 1e-8 is rounding.
    pub fn relative_error(&self, other: &Factors) -> f64 {
        let square = self.dot(self);
        let apart = (square + other.dot(other) - 2.0 * self.dot(other)).max(0.0);
        match apart > 0.0 {
            true => (apart / square).sqrt(),
            false => 0.0,
        }
    }

    /// The same product as `U √S` and `√S Vᵀ`, the strongest component first, and its singular
    /// values.
    pub fn balanced(&self) -> (Factors, Vec<f64>) {
        let r = self.rank;
        // B = P Vbᵀ and Aᵀ = Q Vaᵀ, with orthogonal columns of P and Q.
        let (p, s_b, v_b) = decomposed(&self.b, r);
        let (q, s_a, v_a) = decomposed(&self.a, r);
        // B A = P K Qᵀ with K = Vbᵀ Va; between orthonormal columns it is M = Sb K Sa.
        let k = gram(&transposed(&v_b, r), r, &transposed(&v_a, r), r);
        let m: Vec<f64> = (0..r * r)
            .map(|at| s_b[at / r] * k[at] * s_a[at % r])
            .collect();
        let (_, s, v) = decomposed(&m, r);
        // B' = P (K Sa V) S^-½ and A'ᵀ = Ua V S^½ with Q = Ua Sa: their product is P K Qᵀ for every
        // orthonormal V, so that what rounding makes of weak directions cannot harm it.
        let (mut to_b, mut to_a) = (vec![0.0; r * r], vec![0.0; r * r]);
        for j in (0..r).filter(|&j| s[j] > ROUNDING * s[0]) {
            for i in 0..r {
                let along: f64 = (0..r).map(|l| k[i * r + l] * s_a[l] * v[j * r + l]).sum();
                to_b[i * r + j] = along / s[j].sqrt();
                if s_a[i] > 0.0 {
                    to_a[i * r + j] = v[j * r + i] * s[j].sqrt() / s_a[i];
                }
            }
        }
        let balanced = Factors {
            a: times(&q, &to_a, r),
            b: times(&p, &to_b, r),
            ..*self
        };
        (balanced, s)
    }

    /// Signs of components as those of `first`: a singular vector may come with either.
    ///
    /// # Panics
    /// If the two have different shapes.
    pub fn align_signs(&mut self, first: &Factors) {
        let r = self.rank;
        assert!(
            r == first.rank && self.a.len() == first.a.len() && self.b.len() == first.b.len(),
            "factors of one shape"
        );
        for k in 0..r {
            let own = self.a.iter().chain(&self.b).skip(k).step_by(r);
            let theirs = first.a.iter().chain(&first.b).skip(k).step_by(r);
            if own.zip(theirs).map(|(x, y)| x * y).sum::<f64>() < 0.0 {
                let all = self.a.iter_mut().chain(&mut self.b);
                all.skip(k).step_by(r).for_each(|v| *v = -*v);
            }
        }
    }

    /// The first `rank` components; of balanced factors the best approximation of that rank.
    #[must_use]
    pub fn cut(&self, rank: usize) -> Factors {
        let keep = rank.clamp(1, self.rank);
        let first = |m: &[f64]| -> Vec<f64> {
            let rows = m.chunks_exact(self.rank);
            rows.flat_map(|row| &row[..keep]).copied().collect()
        };
        Factors::of_positions(keep, first(&self.a), first(&self.b))
    }
}

/// `xᵀ y`, of matrices with rows of `p` and `q` values.
fn gram(x: &[f64], p: usize, y: &[f64], q: usize) -> Vec<f64> {
    let mut gram = vec![0.0; p * q];
    for (x, y) in x.chunks_exact(p).zip(y.chunks_exact(q)) {
        for (row, x) in gram.chunks_exact_mut(q).zip(x) {
            for (sum, y) in row.iter_mut().zip(y) {
                *sum += x * y;
            }
        }
    }
    gram
}

/// `x w`, of rows of `r` values and a square matrix.
fn times(x: &[f64], w: &[f64], r: usize) -> Vec<f64> {
    let mut product = vec![0.0; x.len()];
    for (row, x) in product.chunks_exact_mut(r).zip(x.chunks_exact(r)) {
        for (w, x) in w.chunks_exact(r).zip(x) {
            for (sum, w) in row.iter_mut().zip(w) {
                *sum += x * w;
            }
        }
    }
    product
}

fn transposed(m: &[f64], r: usize) -> Vec<f64> {
    (0..m.len()).map(|at| m[at % r * r + at / r]).collect()
}

/// `x = (x V) Vᵀ`: the orthogonal columns of `x V`, their lengths from the longest, and V's columns
/// as rows.
fn decomposed(x: &[f64], r: usize) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (_, ascending) = symmetric_eigen(&gram(x, r, x, r), r);
    let v: Vec<f64> = ascending.rchunks_exact(r).flatten().copied().collect();
    let xv = times(x, &transposed(&v, r), r);
    let mut squares = vec![0.0; r];
    for row in xv.chunks_exact(r) {
        for (square, v) in squares.iter_mut().zip(row) {
            *square += v * v;
        }
    }
    (xv, squares.iter().map(|s: &f64| s.sqrt()).collect(), v)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::Key;

    pub fn random(rank: usize, inputs: usize, outputs: usize, name: &str) -> Factors {
        let key = Key::new(9, name);
        let draw = |n: usize, key: Key| -> Vec<f32> {
            (0..n as u64).map(|i| key.normal(i) as f32).collect()
        };
        let a = draw(rank * inputs, key.sub("a"));
        let b = draw(rank * outputs, key.sub("b"));
        Factors::new(rank, 0.5, &a, &b).expect("factors")
    }

    /// Outputs by inputs, entry by entry.
    pub fn dense(f: &Factors) -> Vec<f64> {
        let mut all = Vec::new();
        for b in f.b.chunks_exact(f.rank) {
            for a in f.a.chunks_exact(f.rank) {
                all.push(a.iter().zip(b).map(|(a, b)| a * b).sum());
            }
        }
        all
    }

    fn norm(v: &[f64]) -> f64 {
        v.iter().map(|v| v * v).sum::<f64>().sqrt()
    }

    fn apart(x: &[f64], y: &[f64]) -> f64 {
        norm(&x.iter().zip(y).map(|(x, y)| x - y).collect::<Vec<_>>()) / norm(x)
    }

    #[test]
    fn balancing_keeps_the_product_and_gives_its_singular_values() {
        let mut plain = random(5, 13, 11, "plain");
        // A component that is nearly nothing, and one that is nothing.
        plain
            .b
            .iter_mut()
            .skip(3)
            .step_by(5)
            .for_each(|v| *v *= 1e-9);
        plain.a.iter_mut().skip(4).step_by(5).for_each(|v| *v = 0.0);
        let (balanced, s) = plain.balanced();
        let product = dense(&plain);
        assert!(apart(&product, &dense(&balanced)) < 1e-8);
        // AᵀA and BᵀB are both S.
        for (m, what) in [(&balanced.a, "A"), (&balanced.b, "B")] {
            for (at, found) in gram(m, 5, m, 5).iter().enumerate() {
                let want = if at / 5 == at % 5 { s[at / 5] } else { 0.0 };
                assert!(
                    (found - want).abs() < 1e-7 * s[0],
                    "{what} {at}: {found} {want}"
                );
            }
        }
        // The eigenvalues of the dense Gram matrix are their squares.
        let mut square = vec![0.0; 13 * 13];
        for row in product.chunks_exact(13) {
            for i in 0..13 {
                (0..13).for_each(|j| square[i * 13 + j] += row[i] * row[j]);
            }
        }
        let (values, _) = symmetric_eigen(&square, 13);
        for (s, value) in s.iter().zip(values.iter().rev()) {
            assert!((s * s - value).abs() < 1e-9 * values[12], "{s} {value}");
        }
    }

    #[test]
    fn cutting_is_eckart_youngs() {
        let (balanced, s) = random(6, 20, 17, "cut").balanced();
        let whole = dense(&balanced);
        let square: f64 = s.iter().map(|s| s * s).sum();
        for k in 1..=6 {
            let lost: f64 = s[k..].iter().map(|s| s * s).sum();
            let found = apart(&whole, &dense(&balanced.cut(k)));
            assert!((found - (lost / square).sqrt()).abs() < 1e-9, "{k}");
            let told = balanced.relative_error(&balanced.cut(k));
            assert!((told - found).abs() < 2e-8, "{k}: {told} {found}");
        }
    }

    #[test]
    fn inner_products_are_those_of_the_products() {
        let (x, y) = (random(3, 8, 7, "x"), random(2, 8, 7, "y"));
        let want: f64 = dense(&x).iter().zip(&dense(&y)).map(|(x, y)| x * y).sum();
        assert!((x.dot(&y) - want).abs() < 1e-10);
        assert!((x.norm() - norm(&dense(&x))).abs() < 1e-10);
        let mut turned = x.clone();
        turned
            .a
            .iter_mut()
            .chain(&mut turned.b)
            .for_each(|v| *v = -*v);
        turned.align_signs(&x);
        assert_eq!(turned, x);
        let (a, b) = x.to_f32();
        assert_eq!(
            Factors::new(3, 1.0, &a, &b).expect("factors").to_f32(),
            (a, b)
        );
        assert!(Factors::new(0, 1.0, &[], &[]).is_err());
        assert!(Factors::new(2, 1.0, &[1.0; 3], &[1.0; 4]).is_err());
    }
}
