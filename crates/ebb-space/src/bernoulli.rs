//! One-against-all: every class is a yes-or-no question of its own, answered by a sigmoid.

/// `−Σ_j [t_j ln σ(z_j) + (1−t_j) ln(1 − σ(z_j))]` with gradient `σ(z_j) − t_j`. `target` gives for
/// class j the pair `(t_j, 1 − t_j)`, each with its own digits.
pub(crate) fn bernoulli(
    z: &[f64],
    target: impl Fn(usize) -> (f64, f64),
    gradient: &mut [f64],
) -> f64 {
    let mut value = 0.0;
    for (j, (z, g)) in z.iter().zip(gradient).enumerate() {
        let (yes, no) = target(j);
        value += yes * softplus(-z) + no * softplus(*z);
        *g = no * sigmoid(*z) - yes * sigmoid(-z);
    }
    value
}

/// `1/(1 + e^{−x})`, without overflow.
pub(crate) fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x >= 0.0 {
        1.0 / (1.0 + e)
    } else {
        e / (1.0 + e)
    }
}

/// `ln(1 + e^x)`, without overflow. (`max` alone would hide a NaN.)
pub(crate) fn softplus(x: f64) -> f64 {
    let above = if x < 0.0 { 0.0 } else { x };
    above + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_logarithm_of_a_product_of_coin_flips() {
        let z = [0.3, -1.7, 2.2, 0.0];
        let t = [1.0, 0.25, 0.0, 0.5];
        let mut gradient = [0.0; 4];
        let value = bernoulli(&z, |j| (t[j], 1.0 - t[j]), &mut gradient);
        let likelihood: f64 = (0..4)
            .map(|j| {
                let p = 1.0 / (1.0 + f64::exp(-z[j]));
                p.powf(t[j]) * (1.0 - p).powf(1.0 - t[j])
            })
            .product();
        assert!((value + likelihood.ln()).abs() < 1e-13);
        for j in 0..4 {
            let p = 1.0 / (1.0 + f64::exp(-z[j]));
            assert!((gradient[j] - (p - t[j])).abs() < 1e-15);
        }
    }

    #[test]
    fn far_logits_keep_their_digits() {
        let mut gradient = [0.0; 2];
        // A sure and right answer costs e⁻⁴⁰, not 0 or noise; a sure and wrong one its logit.
        let right = bernoulli(&[40.0], |_| (1.0, 0.0), &mut gradient);
        assert!((right / f64::exp(-40.0) - 1.0).abs() < 1e-12);
        assert!((gradient[0] / -f64::exp(-40.0) - 1.0).abs() < 1e-12);
        let wrong = bernoulli(
            &[800.0, -800.0],
            |j| [(0.0, 1.0), (1.0, 0.0)][j],
            &mut gradient,
        );
        assert_eq!((wrong, gradient), (1600.0, [1.0, -1.0]));
        assert!(bernoulli(&[f64::NAN], |_| (1.0, 0.0), &mut gradient).is_nan());
    }
}
