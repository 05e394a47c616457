//! f-divergences: three scalar functions of ℓ = ln(p/q) serve every use.
//!
//! Convention: p is the student, q the reference, u = p/q, and `D(p‖q) = Σ q f(u)` with f
//! normalised so that `f(1) = f'(1) = 0`; then every value `f(u)` is at least 0. ℓ is clamped to
//! ±20 before any exponential.

use crate::bernoulli::softplus;
use crate::{Error, Result};

/// Bound on |ℓ|: probabilities further apart than `e²⁰ ≈ 5e8` count as that far apart.
pub const LOG_RATIO_LIMIT: f64 = 20.0;

/// The generator f of an f-divergence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Generator {
    /// KL(p‖q): mode-seeking.
    ReverseKl,
    /// KL(q‖p): mass-covering; with one-hot q this is the cross-entropy.
    ForwardKl,
    /// Jensen–Shannon, `½KL(p‖m) + ½KL(q‖m)` with `m = (p+q)/2`.
    JensenShannon,
    /// `b KL(q‖m) + (1−b) KL(p‖m)` with `m = bq + (1−b)p`, for 0 < b < 1.
    SkewJensenShannon {
        /// Weight of q.
        b: f64,
    },
    /// Amari's α family: 0 is the reverse KL, 1 the forward KL, ½ four times squared Hellinger,
    /// −1 Pearson, 2 Neyman.
    Alpha {
        /// Any finite number.
        alpha: f64,
    },
    /// `2 Σ (√p − √q)²`, which is four times the squared Hellinger distance.
    Hellinger,
    /// `½ Σ (p−q)²/q`.
    Pearson,
    /// `½ Σ (p−q)²/p`.
    Neyman,
    /// `KL(q‖λq + (1−λ)p)`, for 0 ≤ λ < 1.
    SkewForwardKl {
        /// Weight of q in the mixture.
        lambda: f64,
    },
    /// Reverse plus forward KL.
    Jeffreys,
    /// Total variation, `½ Σ |p−q|`.
    TotalVariation,
}

impl Generator {
    /// The parameter, if there is one, is in its range.
    ///
    /// # Errors
    /// [`Error::BadGenerator`].
    pub fn validate(self) -> Result<()> {
        let (ok, range) = match self {
            Generator::SkewJensenShannon { b } => (b > 0.0 && b < 1.0, "0 < b < 1"),
            Generator::SkewForwardKl { lambda } => ((0.0..1.0).contains(&lambda), "0 <= λ < 1"),
            Generator::Alpha { alpha } => (alpha.is_finite(), "α finite"),
            _ => (true, ""),
        };
        if ok {
            Ok(())
        } else {
            Err(Error::BadGenerator {
                generator: format!("{self:?}"),
                range,
            })
        }
    }

    /// The α member, with its limits named.
    fn canonical(self) -> Generator {
        match self {
            Generator::Alpha { alpha: 0.0 } => Generator::ReverseKl,
            Generator::Alpha { alpha: 1.0 } => Generator::ForwardKl,
            Generator::Hellinger => Generator::Alpha { alpha: 0.5 },
            Generator::Neyman => Generator::Alpha { alpha: 2.0 },
            Generator::Pearson => Generator::Alpha { alpha: -1.0 },
            other => other,
        }
    }

    /// f(u) at u = e^ℓ; at least 0.
    pub fn f(self, l: f64) -> f64 {
        let l = clamp(l);
        let e = l.exp_m1(); // u − 1
        let u = 1.0 + e;
        let value = match self.canonical() {
            Generator::ReverseKl => u * l - e,
            Generator::ForwardKl => e - l,
            // ½[u ln u − (u+1) ln((u+1)/2)], in the form whose large parts do not cancel.
            Generator::JensenShannon if l > 0.0 => {
                0.5 * ((u + 1.0) * (std::f64::consts::LN_2 - (-l).exp().ln_1p()) - l)
            }
            Generator::JensenShannon => 0.5 * (u * l - (u + 1.0) * (e / 2.0).ln_1p()),
            Generator::SkewJensenShannon { b } => {
                let m = 1.0 + (1.0 - b) * e;
                (1.0 - b) * u * l - m * ((1.0 - b) * e).ln_1p()
            }
            // Two forms of one function: each keeps its digits towards one of the limits 0 and 1.
            Generator::Alpha { alpha } if alpha < 0.5 => {
                (u * (-alpha * l).exp_m1() / alpha + e) / (alpha - 1.0)
            }
            Generator::Alpha { alpha } => {
                (e - ((1.0 - alpha) * l).exp_m1() / (1.0 - alpha)) / alpha
            }
            Generator::SkewForwardKl { lambda } => {
                let e = (1.0 - lambda) * e;
                e - e.ln_1p()
            }
            Generator::Jeffreys => e * l,
            Generator::TotalVariation => 0.5 * e.abs(),
            Generator::Hellinger | Generator::Pearson | Generator::Neyman => {
                unreachable!("canonical")
            }
        };
        // Rounding may leave −1e-17 near u = 1. (`max` would hide a NaN.)
        if value < 0.0 { 0.0 } else { value }
    }

    /// f1 = f'(u) at u = e^ℓ.
    pub fn f1(self, l: f64) -> f64 {
        let l = clamp(l);
        let e = l.exp_m1();
        match self.canonical() {
            Generator::ReverseKl => l,
            Generator::ForwardKl => -(-l).exp_m1(),
            Generator::JensenShannon => 0.5 * (std::f64::consts::LN_2 - softplus(-l)),
            Generator::SkewJensenShannon { b } => (1.0 - b) * (l - ((1.0 - b) * e).ln_1p()),
            Generator::Alpha { alpha } => -(-alpha * l).exp_m1() / alpha,
            Generator::SkewForwardKl { lambda } => {
                let c = 1.0 - lambda;
                c * (c * e) / (1.0 + c * e)
            }
            Generator::Jeffreys => l - (-l).exp_m1(),
            Generator::TotalVariation if l == 0.0 => 0.0,
            Generator::TotalVariation => 0.5 * l.signum(),
            Generator::Hellinger | Generator::Pearson | Generator::Neyman => {
                unreachable!("canonical")
            }
        }
    }

    /// h = df1/dℓ = u f''(u) at u = e^ℓ; total variation has none.
    pub fn h(self, l: f64) -> Option<f64> {
        let l = clamp(l);
        let u = l.exp();
        Some(match self.canonical() {
            Generator::ReverseKl => 1.0,
            Generator::ForwardKl => (-l).exp(),
            Generator::JensenShannon => 0.5 / (u + 1.0),
            Generator::SkewJensenShannon { b } => b * (1.0 - b) / (b + (1.0 - b) * u),
            Generator::Alpha { alpha } => (-alpha * l).exp(),
            Generator::SkewForwardKl { lambda } => {
                let (c, m) = (1.0 - lambda, lambda + (1.0 - lambda) * u);
                c * c * u / (m * m)
            }
            Generator::Jeffreys => 1.0 + (-l).exp(),
            Generator::TotalVariation => return None,
            Generator::Hellinger | Generator::Pearson | Generator::Neyman => {
                unreachable!("canonical")
            }
        })
    }

    /// f''(1): near q, `D ≈ ½ f''(1) δᵀFδ` with F the Fisher information. Total variation has none.
    pub fn second(self) -> Option<f64> {
        self.h(0.0)
    }

    /// Whether D stays finite where q is 0 and p is not, as against one-hot labels.
    pub fn finite_at_zero_reference(self) -> bool {
        match self.canonical() {
            Generator::ReverseKl | Generator::Jeffreys => false,
            Generator::Alpha { alpha } => alpha > 0.0,
            _ => true,
        }
    }

    /// Use (2), reference-sampled: the value f(u) at one outcome x ~ q, and its slope by ln p(x),
    /// which is u f1(u). Beyond |ℓ| = 20 the value goes on along its tangent, so that the
    /// gradient does not vanish where rehearsal is needed most.
    pub fn sampled(self, l: f64) -> (f64, f64) {
        let inside = clamp(l);
        let slope = inside.exp() * self.f1(inside);
        (self.f(inside) + (l - inside) * slope, slope)
    }

    /// Use (1), exact over K outcomes: returns D(p‖q) and writes `∂D/∂z_j = p_j (f1(u_j) − Σ p f1)`
    /// for p = softmax(z). Takes log-probabilities of both; −∞ in `ln_q` is a probability of 0.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn exact(self, ln_p: &[f64], ln_q: &[f64], gradient: &mut [f64]) -> f64 {
        assert!(
            ln_p.len() == ln_q.len() && ln_p.len() == gradient.len(),
            "lengths differ"
        );
        if self.canonical() == Generator::ForwardKl {
            return forward_kl(ln_p, ln_q, gradient).0;
        }
        let (mut value, mut mean) = (0.0, 0.0);
        for ((&lp, &lq), g) in ln_p.iter().zip(ln_q).zip(gradient.iter_mut()) {
            // Equal log-probabilities include two of −∞, whose difference is no number.
            let (p, l) = (lp.exp(), if lp == lq { 0.0 } else { lp - lq });
            let f1 = self.f1(l);
            // Where ℓ is cut off the greater of p and q keeps its full mass.
            let q = if l > LOG_RATIO_LIMIT {
                p * (-LOG_RATIO_LIMIT).exp()
            } else {
                lq.exp()
            };
            value += q * self.f(l);
            mean += p * f1;
            *g = f1;
        }
        for (&lp, g) in ln_p.iter().zip(gradient) {
            *g = lp.exp() * (*g - mean);
        }
        value
    }
}

/// KL(q‖p) with its gradient `p Σq − q` by the logits of p, without any clamp; and the entropy of
/// q. This one function is the forward KL, the Bregman divergence of log-sum-exp on logits and,
/// with the entropy added, the cross-entropy against soft targets (which need not sum to one).
pub(crate) fn forward_kl(ln_p: &[f64], ln_q: &[f64], gradient: &mut [f64]) -> (f64, f64) {
    let (mut value, mut entropy, mut mass) = (0.0, 0.0, 0.0);
    for ((&lp, &lq), g) in ln_p.iter().zip(ln_q).zip(gradient.iter_mut()) {
        let q = lq.exp();
        if q > 0.0 {
            value += q * (lq - lp);
            entropy -= q * lq;
            mass += q;
        }
        *g = -q;
    }
    for (&lp, g) in ln_p.iter().zip(gradient) {
        *g += mass * lp.exp();
    }
    (value, entropy)
}

fn clamp(l: f64) -> f64 {
    l.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    fn all() -> Vec<Generator> {
        let mut list = vec![
            Generator::ReverseKl,
            Generator::ForwardKl,
            Generator::JensenShannon,
            Generator::Hellinger,
            Generator::Pearson,
            Generator::Neyman,
            Generator::Jeffreys,
            Generator::TotalVariation,
        ];
        list.extend([0.1, 0.5, 0.9].map(|b| Generator::SkewJensenShannon { b }));
        list.extend([0.0, 0.1, 0.7].map(|lambda| Generator::SkewForwardKl { lambda }));
        list.extend(
            [-1.0, 0.0, 1e-6, 0.2, 0.5, 0.8, 1.0 - 1e-6, 1.0, 2.0]
                .map(|alpha| Generator::Alpha { alpha }),
        );
        list
    }

    /// The published definitions, written out over two distributions.
    fn definition(g: Generator, p: &[f64], q: &[f64]) -> f64 {
        let kl =
            |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * (a / b).ln()).sum() };
        let mix = |b: f64| -> Vec<f64> {
            p.iter()
                .zip(q)
                .map(|(p, q)| b * q + (1.0 - b) * p)
                .collect()
        };
        let sum = |term: &dyn Fn(f64, f64) -> f64| -> f64 {
            p.iter().zip(q).map(|(&p, &q)| term(p, q)).sum()
        };
        match g {
            Generator::ReverseKl => kl(p, q),
            Generator::ForwardKl => kl(q, p),
            Generator::JensenShannon => 0.5 * kl(p, &mix(0.5)) + 0.5 * kl(q, &mix(0.5)),
            Generator::SkewJensenShannon { b } => b * kl(q, &mix(b)) + (1.0 - b) * kl(p, &mix(b)),
            Generator::Alpha { alpha } if alpha.abs() < 1e-9 => kl(p, q),
            Generator::Alpha { alpha } if (alpha - 1.0).abs() < 1e-9 => kl(q, p),
            Generator::Alpha { alpha } => {
                (1.0 - sum(&|p, q| p.powf(1.0 - alpha) * q.powf(alpha))) / (alpha * (1.0 - alpha))
            }
            Generator::Hellinger => 2.0 * sum(&|p, q| (p.sqrt() - q.sqrt()).powi(2)),
            Generator::Pearson => 0.5 * sum(&|p, q| (p - q).powi(2) / q),
            Generator::Neyman => 0.5 * sum(&|p, q| (p - q).powi(2) / p),
            Generator::SkewForwardKl { lambda } => kl(q, &mix(lambda)),
            Generator::Jeffreys => kl(p, q) + kl(q, p),
            Generator::TotalVariation => 0.5 * sum(&|p, q| (p - q).abs()),
        }
    }

    fn log_softmax(z: &[f64]) -> Vec<f64> {
        let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = max + z.iter().map(|z| (z - max).exp()).sum::<f64>().ln();
        z.iter().map(|z| z - lse).collect()
    }

    fn random(name: &str, n: u64, scale: f64) -> Vec<f64> {
        let key = Key::new(5, name);
        (0..n).map(|i| scale * key.normal(i)).collect()
    }

    fn exp(ln: &[f64]) -> Vec<f64> {
        ln.iter().map(|l| l.exp()).collect()
    }

    #[test]
    fn generators_are_normalised_and_nonnegative() {
        for g in all() {
            assert_eq!((g.f(0.0), g.f1(0.0)), (0.0, 0.0), "{g:?}");
            for i in -250..=250 {
                assert!(g.f(f64::from(i) / 10.0) >= 0.0, "{g:?} at {i}");
            }
            assert!(g.f(f64::NAN).is_nan() && g.f1(f64::NAN).is_nan(), "{g:?}");
        }
    }

    #[test]
    fn f1_is_the_derivative_of_f_by_u_and_h_that_of_f1_by_l() {
        for g in all() {
            for l in [-6.0, -2.0, -0.3, 0.2, 1.0, 4.0, 9.0] {
                let step = 1e-5;
                let slope = |of: &dyn Fn(f64) -> f64| (of(l + step) - of(l - step)) / (2.0 * step);
                let df = slope(&|l| g.f(l)) / f64::exp(l); // df/du = (df/dl)/u
                let f1 = g.f1(l);
                assert!(
                    (df - f1).abs() < 1e-6 * f1.abs().max(1.0),
                    "{g:?} at {l}: {df} {f1}"
                );
                if let Some(h) = g.h(l) {
                    let df1 = slope(&|l| g.f1(l));
                    assert!(
                        (df1 - h).abs() < 1e-7 * h.abs().max(1.0),
                        "{g:?} at {l}: {df1} {h}"
                    );
                }
            }
        }
        assert_eq!(Generator::TotalVariation.h(0.3), None);
    }

    #[test]
    fn second_derivatives_at_one_are_the_tables() {
        for (g, want) in [
            (Generator::ReverseKl, 1.0),
            (Generator::ForwardKl, 1.0),
            (Generator::JensenShannon, 0.25),
            (Generator::SkewJensenShannon { b: 0.1 }, 0.09),
            (Generator::Alpha { alpha: 0.3 }, 1.0),
            (Generator::Hellinger, 1.0),
            (Generator::Pearson, 1.0),
            (Generator::Neyman, 1.0),
            (Generator::SkewForwardKl { lambda: 0.1 }, 0.81),
            (Generator::Jeffreys, 2.0),
        ] {
            assert!((g.second().unwrap() - want).abs() < 1e-15, "{g:?}");
        }
        assert_eq!(Generator::TotalVariation.second(), None);
    }

    #[test]
    fn values_are_the_definitions_and_gradients_their_finite_differences() {
        let z = random("z", 7, 1.5);
        let ln_q = log_softmax(&random("q", 7, 1.5));
        let q = exp(&ln_q);
        for g in all() {
            let mut gradient = vec![0.0; 7];
            let value = g.exact(&log_softmax(&z), &ln_q, &mut gradient);
            let want = definition(g, &exp(&log_softmax(&z)), &q);
            // α within 1e-6 of a limit: the written-out definition itself loses six digits.
            assert!(
                (value - want).abs() < 2e-10 * want.max(1.0),
                "{g:?}: {value} {want}"
            );
            for j in 0..7 {
                let at = |step: f64| {
                    let mut z = z.clone();
                    z[j] += step;
                    g.exact(&log_softmax(&z), &ln_q, &mut [0.0; 7])
                };
                let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!(
                    (slope - gradient[j]).abs() < 1e-8,
                    "{g:?} by z{j}: {slope} {}",
                    gradient[j]
                );
            }
        }
    }

    #[test]
    fn far_apart_distributions_stay_finite_with_the_greater_mass_kept() {
        let ln_p = [-1e-30, -60.0, -80.0];
        let ln_q = [-90.0, -1e-30, f64::NEG_INFINITY];
        for g in all() {
            let mut gradient = [0.0; 3];
            let value = g.exact(&ln_p, &ln_q, &mut gradient);
            assert!(value.is_finite() && value > 0.0, "{g:?}: {value}");
            assert!(gradient.iter().all(|g| g.is_finite()), "{g:?}");
        }
        let tv = Generator::TotalVariation.exact(&ln_p, &ln_q, &mut [0.0; 3]);
        assert!((tv - 1.0).abs() < 1e-8);
        // Jensen–Shannon is at most ln 2.
        let js = Generator::JensenShannon.exact(&ln_p, &ln_q, &mut [0.0; 3]);
        assert!((js - std::f64::consts::LN_2).abs() < 1e-7, "{js}");
    }

    #[test]
    fn one_hot_references_follow_the_definitions() {
        let ln_p = log_softmax(&random("z", 5, 1.0));
        let p = exp(&ln_p);
        let mut ln_q = [f64::NEG_INFINITY; 5];
        ln_q[2] = 0.0;
        let mut gradient = [0.0; 5];
        // The clamp leaves e⁻²⁰·20 = 4e-8 of the mass unaccounted for.
        for (g, want) in [
            (Generator::ForwardKl, -ln_p[2]),
            (Generator::TotalVariation, 1.0 - p[2]),
            (Generator::Hellinger, 4.0 - 4.0 * p[2].sqrt()),
            (
                Generator::Neyman,
                0.5 * ((1.0 - p[2]).powi(2) / p[2] + 1.0 - p[2]),
            ),
        ] {
            let got = g.exact(&ln_p, &ln_q, &mut gradient);
            assert!((got - want).abs() < 2e-4, "{g:?}: {got} {want}");
            assert!(g.finite_at_zero_reference());
        }
        assert!(!Generator::Pearson.finite_at_zero_reference());
    }

    #[test]
    fn use_7_every_divergence_is_half_f2_times_the_fisher_form_nearby() {
        let z = random("z", 6, 1.0);
        let delta: Vec<f64> = random("delta", 6, 1e-3);
        let q = exp(&log_softmax(&z));
        let mean: f64 = q.iter().zip(&delta).map(|(q, d)| q * d).sum();
        let form: f64 = q
            .iter()
            .zip(&delta)
            .map(|(q, d)| q * (d - mean).powi(2))
            .sum();
        let moved: Vec<f64> = z.iter().zip(&delta).map(|(z, d)| z + d).collect();
        for g in all().into_iter().filter(|g| g.second().is_some()) {
            let d = g.exact(&log_softmax(&moved), &log_softmax(&z), &mut [0.0; 6]);
            let ratio = d / (0.5 * g.second().unwrap() * form);
            assert!((ratio - 1.0).abs() < 3e-3, "{g:?}: {ratio}");
        }
    }

    #[test]
    fn use_2_has_the_exact_mean_and_slope() {
        let (z, ln_q) = (random("z", 6, 1.0), log_softmax(&random("q", 6, 1.0)));
        let ln_p = log_softmax(&z);
        for g in all() {
            let mut exact = [0.0; 6];
            let value = g.exact(&ln_p, &ln_q, &mut exact);
            // Expectation over x ~ q by enumeration; ∇ ln p(x) by z is e_x − p.
            let (mut mean, mut gradient) = (0.0, [0.0; 6]);
            for x in 0..6 {
                let (f, slope) = g.sampled(ln_p[x] - ln_q[x]);
                mean += ln_q[x].exp() * f;
                for (j, gj) in gradient.iter_mut().enumerate() {
                    *gj += ln_q[x].exp() * slope * (f64::from(j == x) - ln_p[j].exp());
                }
            }
            assert!((mean - value).abs() < 1e-12, "{g:?}");
            assert!(
                gradient
                    .iter()
                    .zip(&exact)
                    .all(|(a, b)| (a - b).abs() < 1e-12),
                "{g:?}"
            );
            // Past the clamp: a straight line, not a plateau.
            let (near, slope) = g.sampled(-20.0);
            let (far, same) = g.sampled(-23.0);
            assert!(
                (far - (near - 3.0 * slope)).abs() < 1e-9 && slope == same,
                "{g:?}"
            );
        }
    }

    #[test]
    fn trap_c_loss_form_kernels_on_policy_do_not_do_what_their_names_say() {
        // E over x ~ p, by enumeration, of what autograd makes of k(u) with p's own samples:
        // E[k'(ln u) ∇ln p].
        let (ln_p, ln_q) = (
            log_softmax(&random("z", 5, 1.0)),
            log_softmax(&random("q", 5, 1.0)),
        );
        let through = |derivative: &dyn Fn(f64) -> f64| -> Vec<f64> {
            (0..5)
                .map(|j| {
                    (0..5)
                        .map(|x| {
                            let score = f64::from(j == x) - ln_p[j].exp();
                            ln_p[x].exp() * derivative(ln_p[x] - ln_q[x]) * score
                        })
                        .sum()
                })
                .collect()
        };
        let exact = |g: Generator| {
            let mut gradient = vec![0.0; 5];
            g.exact(&ln_p, &ln_q, &mut gradient);
            gradient
        };
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        let k1 = through(&|_| 1.0); // ln u
        let k2 = through(&|l| l); // ½ (ln u)²
        let k3 = through(&|l| 1.0 - f64::exp(-l)); // 1/u + ln u − 1
        assert!(close(&k1, &[0.0; 5]));
        assert!(close(&k2, &exact(Generator::ReverseKl)));
        assert!(close(&k3, &exact(Generator::ForwardKl)));
        assert!(!close(&k3, &exact(Generator::ReverseKl)));
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        for g in [
            Generator::SkewJensenShannon { b: 0.0 },
            Generator::SkewJensenShannon { b: f64::NAN },
            Generator::SkewForwardKl { lambda: 1.0 },
            Generator::Alpha {
                alpha: f64::INFINITY,
            },
        ] {
            assert!(matches!(g.validate(), Err(Error::BadGenerator { .. })));
        }
        all().into_iter().for_each(|g| g.validate().unwrap());
    }
}
