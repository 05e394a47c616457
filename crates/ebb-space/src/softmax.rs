//! The softmax in f32: the hot loop of training, with the same bits on every machine.

use crate::weights::reduce;

/// `e^x` for every value, in place, to a relative error of 2e-7; `x` must not exceed about 88.
/// Below −87.3 the result is 0; NaN stays NaN. Plain arithmetic that vectorises.
#[inline]
fn exp_in_place(values: &mut [f32]) {
    // Cody–Waite reduction x = n ln 2 + r, |r| ≤ ln2/2, then a polynomial (Cephes `expf`).
    const MAGIC: f32 = 12_582_912.0; // 1.5·2^23: adding it rounds to an integer
    const LN2_HIGH: f32 = 0.693_359_4; // 355/512, exact in 9 bits, so that n·LN2_HIGH is exact
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const LOWEST: f32 = -87.3;
    for value in values {
        let x = if *value < LOWEST { LOWEST } else { *value };
        let shifted = x * std::f32::consts::LOG2_E + MAGIC;
        let n = shifted - MAGIC;
        let r = (x - n * LN2_HIGH) - n * LN2_LOW;
        let mut poly = 1.987_569_1e-4;
        for c in [
            1.398_2e-3,
            8.333_452e-3,
            4.166_579_6e-2,
            1.666_666_5e-1,
            5e-1,
        ] {
            poly = poly * r + c;
        }
        let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
        let exp = ((poly * (r * r) + r) + 1.0) * scale;
        *value = if *value < LOWEST { 0.0 } else { exp };
    }
}

/// `e^{z − max z}` of a row into `exps`, and its (maximum, sum). Dividing `exps` by the sum gives
/// the softmax; `ln(sum) + max` is the log-sum-exp. A NaN or +∞ makes the sum NaN.
pub(crate) fn exps(z: &[f32], exps: &mut [f32]) -> (f32, f64) {
    let max = z
        .iter()
        .fold(f32::NEG_INFINITY, |max, &z| if z > max { z } else { max });
    for (e, &z) in exps.iter_mut().zip(z) {
        *e = z - max;
    }
    exp_in_place(exps);
    (max, reduce([exps], |[e]| e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_match_f64_to_two_ulp() {
        let mut worst = 0.0f64;
        let mut x = -87.25f32;
        while x < 88.0 {
            let mut got = [x];
            exp_in_place(&mut got);
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(got[0]) / want - 1.0).abs());
            x += 0.000_37;
        }
        assert!(worst < 2e-7, "{worst}");
        let mut odd = [0.0, -0.0, -100.0, f32::NEG_INFINITY, f32::NAN];
        exp_in_place(&mut odd);
        assert_eq!(odd[..4], [1.0, 1.0, 0.0, 0.0]);
        assert!(odd[4].is_nan());
    }

    #[test]
    fn bad_logits_are_not_hidden() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut e = [0.0; 3];
            assert!(exps(&[1.0, bad, 2.0], &mut e).1.is_nan());
        }
        let mut e = [0.0; 2];
        assert!(exps(&[f32::NEG_INFINITY; 2], &mut e).1.is_nan());
        let (max, sum) = exps(&[1e30, -1e30], &mut e);
        assert_eq!((max, sum, e), (1e30, 1.0, [1.0, 0.0]));
    }
}
