//! Forgetting from the divergence on the new task alone.
//!
//! **What it does.** Fits how much runs forgot to how far they moved from the base *on the new task's
//! inputs*, and forecasts other runs: no old example is asked.
//! **Source.** Shenfeld et al., 2025, "RL's razor" (card S052).
//! **Equation.** `κ = mean_x Σ_y π₀(y|x) ln(π₀(y|x)/π(y|x))`, probabilities no less than `10⁻¹⁰`;
//! `F ≈ b₁κ + b₂κ²` by least squares, without a constant: a model that did not move forgets nothing.
//! **Use it** across ways of training at one task. **Not** where new inputs do not touch what old ones
//! use: then `κ` grows and nothing is forgotten.
//! **Stores** two numbers. **Costs** a pass of both models over the new task.

use crate::error::{Error, Result};
use crate::linear::solve;

/// No probability counts as less.
const FLOOR: f64 = 1e-10;

/// `κ` from the logits of base and tuned model, rows of `width`.
///
/// # Errors
/// When the logits are not equally many whole rows.
pub fn divergence(base: &[f32], tuned: &[f32], width: usize) -> Result<f64> {
    if width == 0
        || base.is_empty()
        || base.len() != tuned.len()
        || !base.len().is_multiple_of(width)
    {
        return Err(Error::Shape(format!(
            "{} and {} logits in rows of {width}",
            base.len(),
            tuned.len()
        )));
    }
    let rows = base.chunks_exact(width).zip(tuned.chunks_exact(width));
    let each = rows.map(|(b, t)| {
        let (b, t) = (probabilities(b), probabilities(t));
        let terms = b.iter().zip(&t);
        terms
            .map(|(p, q)| p * (p.max(FLOOR) / q.max(FLOOR)).ln())
            .sum::<f64>()
    });
    Ok(each.sum::<f64>() / (base.len() / width) as f64)
}

fn probabilities(z: &[f32]) -> Vec<f64> {
    let top = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e: Vec<f64> = z.iter().map(|z| f64::from(z - top).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

/// `F ≈ b₁κ + b₂κ²`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DivergenceLaw {
    /// `b₁`.
    pub linear: f64,
    /// `b₂`.
    pub square: f64,
    /// `R²` on the runs it was fitted to, against their mean.
    pub r2: f64,
}

impl DivergenceLaw {
    /// Fits runs: `(κ, forgetting)`.
    ///
    /// # Errors
    /// Fewer than three runs, values that are not finite, or runs that all moved alike.
    pub fn fit(runs: &[(f64, f64)]) -> Result<DivergenceLaw> {
        if runs.len() < 3 || runs.iter().any(|(k, f)| !k.is_finite() || !f.is_finite()) {
            return Err(Error::Shape(
                "the law needs three runs or more, with finite divergence and forgetting".into(),
            ));
        }
        // In units of the largest divergence the two columns are of one size.
        let unit = runs.iter().map(|(k, _)| k.abs()).fold(0.0, f64::max);
        let sum = |f: &dyn Fn(f64, f64) -> f64| runs.iter().map(|(k, y)| f(k / unit, *y)).sum();
        let power = |n: i32| -> f64 { sum(&|k, _| k.powi(n)) };
        let normal = vec![power(2), power(3), power(3), power(4)];
        let b = solve(normal, vec![sum(&|k, y| k * y), sum(&|k, y| k * k * y)]);
        let b = b.filter(|b| unit > 0.0 && b.iter().all(|b| b.is_finite()));
        let b = b.ok_or(ebb_space::Error::NoVariation)?;
        let law = DivergenceLaw {
            linear: b[0] / unit,
            square: b[1] / (unit * unit),
            r2: 0.0,
        };
        let mean = runs.iter().map(|(_, f)| f).sum::<f64>() / runs.len() as f64;
        let left: f64 = runs
            .iter()
            .map(|(k, f)| (f - law.forecast(*k)).powi(2))
            .sum();
        let all: f64 = runs.iter().map(|(_, f)| (f - mean).powi(2)).sum();
        match all > 0.0 {
            true => Ok(DivergenceLaw {
                r2: 1.0 - left / all,
                ..law
            }),
            false => Err(ebb_space::Error::NoVariation.into()),
        }
    }

    /// The forgetting of a run that moved so far.
    pub fn forecast(&self, divergence: f64) -> f64 {
        divergence * (self.linear + self.square * divergence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergences_of_known_logits() {
        let ln = |p: f64| p.ln() as f32;
        let base = [ln(0.5), ln(0.5), ln(0.9), ln(0.1)];
        let tuned = [ln(0.25), ln(0.75), ln(0.9), ln(0.1)];
        let want = 0.5 * (0.5 * 2f64.ln() + 0.5 * (2.0f64 / 3.0).ln());
        assert!((divergence(&base, &tuned, 2).unwrap() - want).abs() < 1e-7);
        assert!(divergence(&base, &base, 2).unwrap().abs() < 1e-12);
        // A probability of 0 costs the floor and no more.
        let sure = divergence(&[0.0, 0.0], &[0.0, -1e30], 2).unwrap();
        assert!((sure - (0.5 * 0.5f64.ln() + 0.5 * (0.5 / FLOOR).ln())).abs() < 1e-6);
        assert!(divergence(&base, &tuned[..2], 2).is_err() && divergence(&[], &[], 2).is_err());
    }

    #[test]
    fn a_parabola_through_nothing_is_found() {
        let runs: Vec<(f64, f64)> = (1..8)
            .map(|i| f64::from(i) * 1e-3)
            .map(|k| (k, 3.0 * k - 40.0 * k * k))
            .collect();
        let law = DivergenceLaw::fit(&runs).unwrap();
        assert!(
            (law.linear - 3.0).abs() < 1e-8 && (law.square + 40.0).abs() < 1e-5,
            "{law:?}"
        );
        assert!(law.r2 > 1.0 - 1e-12 && law.forecast(0.0) == 0.0);
        assert!(DivergenceLaw::fit(&runs[..2]).is_err());
        assert!(DivergenceLaw::fit(&[(0.0, 1.0); 4]).is_err());
        assert!(DivergenceLaw::fit(&[(1.0, 1.0); 4]).is_err());
    }
}
