//! Detached factors on a row's loss: they scale its gradient and pass none themselves.

use crate::bernoulli::sigmoid;

/// A detached factor on each row's value.
#[derive(Clone, Copy, Debug)]
pub enum Weighting {
    /// [`References::row_weights`](crate::References::row_weights).
    PerRow,
    /// A function of the row's value so far.
    OfValue(fn(f64) -> f64),
    /// `F(N, x) = N x (1−x)^{N−1} / (1 − (1−x)^N)` with `x = e^{−value}`, the probability of the
    /// label. It turns the gradient of `−ln x` into that of `−ln(1 − (1−x)^N)`: of not being right
    /// once in N draws (DCO, S216). N = 1 changes nothing.
    Coverage {
        /// Number of draws N, at least 1.
        n: f64,
    },
    /// `ω = σ((H(q) − H(p))/κ)` with the entropies of the row's reference q and student p, as they
    /// are compared (BD-KD, S175): above ½ for a student that is surer than its teacher. A
    /// negative κ gives `1 − ω`.
    EntropyGap {
        /// Width κ in nats, not 0.
        kappa: f64,
    },
    /// `ω = L/(D + 1e-8)` with D the value of a loss of the whole batch and L what the terms before
    /// it that compare with labels came to: D counts as much as they do, however small it gets
    /// (GeRe, S160).
    AsLabels,
}

impl PartialEq for Weighting {
    fn eq(&self, other: &Weighting) -> bool {
        match (self, other) {
            (Weighting::PerRow, Weighting::PerRow) => true,
            (Weighting::OfValue(a), Weighting::OfValue(b)) => std::ptr::fn_addr_eq(*a, *b),
            (Weighting::Coverage { n: a }, Weighting::Coverage { n: b }) => a == b,
            (Weighting::EntropyGap { kappa: a }, Weighting::EntropyGap { kappa: b }) => a == b,
            (Weighting::AsLabels, Weighting::AsLabels) => true,
            _ => false,
        }
    }
}

impl Weighting {
    /// The factor where it depends on the value so far alone, else 1.
    pub(crate) fn of_value(self, value: f64) -> f64 {
        match self {
            Weighting::OfValue(of) => of(value),
            Weighting::Coverage { n } => coverage(n, value),
            Weighting::PerRow | Weighting::EntropyGap { .. } | Weighting::AsLabels => 1.0,
        }
    }
}

/// F(N, e^{−value}), with its digits at both ends: 1 for hopeless rows, 0 for sure ones.
fn coverage(n: f64, value: f64) -> f64 {
    let surest = 1.0 - 1e-12;
    let x = (-value).exp();
    let x = if x > surest { surest } else { x };
    if x == 0.0 {
        return 1.0;
    }
    let ln_miss = (-x).ln_1p();
    n * x * ((n - 1.0) * ln_miss).exp() / -(n * ln_miss).exp_m1()
}

/// σ((H(q) − H(p))/κ).
pub(crate) fn entropy_gap(kappa: f64, ln_p: &[f64], ln_q: &[f64]) -> f64 {
    sigmoid((entropy(ln_q) - entropy(ln_p)) / kappa)
}

fn entropy(ln: &[f64]) -> f64 {
    let each = |l: &f64| {
        let p = l.exp();
        if p > 0.0 { p * l } else { 0.0 }
    };
    -ln.iter().map(each).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_has_the_published_values_and_limits() {
        // Card S216, N = 16.
        for (x, want) in [(0.01f64, 0.93), (0.1, 0.40), (0.3, 0.02)] {
            assert!((coverage(16.0, -x.ln()) - want).abs() < 5e-3, "{x}");
        }
        for n in [1.0, 4.0, 64.0] {
            assert!((coverage(n, 800.0) - 1.0).abs() < 1e-12);
            assert!((coverage(n, 80.0) - 1.0).abs() < 1e-12);
            for value in [1e-3, 0.1, 1.0, 5.0] {
                let x = f64::exp(-value);
                let want = n * x * (1.0 - x).powf(n - 1.0) / (1.0 - (1.0 - x).powf(n));
                assert!((coverage(n, value) - want).abs() < 1e-12);
            }
        }
        assert!(coverage(16.0, 0.0) < 1e-100);
        assert!((coverage(1.0, 0.0) - 1.0).abs() < 1e-12);
        assert!(coverage(16.0, f64::NAN).is_nan());
    }

    #[test]
    fn the_entropy_gap_leans_to_covering_for_a_student_that_is_too_sure() {
        let ln = |p: &[f64]| p.iter().map(|p| p.ln()).collect::<Vec<f64>>();
        let (sure, unsure) = (ln(&[1.0, 0.0, 0.0]), ln(&[1.0 / 3.0; 3]));
        // H is 0 and ln 3: σ(ln 3 / 0.5) = 9/10.
        assert!((entropy_gap(0.5, &sure, &unsure) - 0.9).abs() < 1e-15);
        assert!((entropy_gap(-0.5, &sure, &unsure) - 0.1).abs() < 1e-15);
        assert!((entropy_gap(0.5, &unsure, &sure) - 0.1).abs() < 1e-15);
        assert_eq!(entropy_gap(0.5, &sure, &sure), 0.5);
    }
}
