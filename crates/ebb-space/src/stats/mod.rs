//! Statistics with intervals: what a claim about arms and seeds may rest on.
//!
//! Every function is deterministic: what cannot be enumerated is sampled under a fixed or given
//! [`Key`](crate::Key).

mod hypothesis;
mod interval;
mod line;
mod rank;
mod weibull;

pub use crate::special::{
    ln_gamma, normal_quantile, regularized_incomplete_beta, t_cdf, t_quantile,
};
pub use hypothesis::{Alternative, Test, holm, min_reachable_p, paired_sign_flip, paired_t, welch};
pub use interval::{Interval, bootstrap_ci, difference_ci_welch, mean_ci_t, proportion_ci_wilson};
pub use line::Line;
pub use rank::{auroc, quantile, ranks, spearman};
pub use weibull::Weibull;

use crate::{Error, Result};

/// The sample has at least `least` values, all finite.
pub(crate) fn check(sample: &[f64], least: usize) -> Result<()> {
    if sample.len() < least {
        return Err(Error::SampleTooSmall {
            needed: least,
            found: sample.len(),
        });
    }
    match sample.iter().position(|x| !x.is_finite()) {
        Some(index) => Err(Error::SampleNotFinite {
            index,
            value: sample[index],
        }),
        None => Ok(()),
    }
}

pub(crate) fn check_level(level: f64) -> Result<()> {
    if level > 0.0 && level < 1.0 {
        Ok(())
    } else {
        Err(Error::BadLevel(level))
    }
}

pub(crate) fn mean(sample: &[f64]) -> f64 {
    sample.iter().sum::<f64>() / sample.len() as f64
}

/// Unbiased variance by the two-pass formula.
pub(crate) fn variance(sample: &[f64]) -> f64 {
    let m = mean(sample);
    sample.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / (sample.len() - 1) as f64
}

/// Squared standard error of the difference of two means, and the degrees of freedom that Welch
/// gives it.
fn welch_error(a: &[f64], b: &[f64]) -> Result<(f64, f64)> {
    check(a, 2)?;
    check(b, 2)?;
    let (na, nb) = (a.len() as f64, b.len() as f64);
    let (va, vb) = (variance(a) / na, variance(b) / nb);
    if va + vb <= 0.0 {
        return Err(Error::NoVariation);
    }
    let df = (va + vb).powi(2) / (va * va / (na - 1.0) + vb * vb / (nb - 1.0));
    Ok((va + vb, df))
}
