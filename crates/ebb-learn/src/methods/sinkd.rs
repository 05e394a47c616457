//! Sinkhorn distillation.
//!
//! **What it does.** Besides each example's old answer, keeps the answers of a batch together: the
//! least cost of carrying the network's answers to those of the network before the experience.
//! **Source.** SinKD: "Sinkhorn distance minimization for knowledge distillation", 2024 (card S189),
//! and its released code, where the teacher is another network; here it is the last experience's.
//! **Equation.** Over the classes of earlier experiences
//! `L = CE(new) + λ H(q_T, p_T) + β ⟨P, C⟩/b`, `H` the cross-entropy without `T²` (taken here as
//! the KL, which has its gradient), `C_ij = ‖p_i − q_j‖₁` at temperature 2, and P from 20 rounds of
//! normalisation of `e^{−C/0.1}`. The code has `(1 − α) CE + α H + 0.002 b ⟨P, C⟩/b` with α = 0.8;
//! divided by `1 − α`, so that the first experience is plain training, that is λ = 4 and β = 0.01 b,
//! by default for b = 64.
//! **Use it** where old and new answers overlap little. **Not** without the term of single rows
//! (`λ` above 0): transport may match one example with another.
//! **Stores** one copy of the weights. **Costs** one more forward pass a step, and 20 rounds over
//! the square of the batch.

use crate::methods::er::cross_entropy;
use crate::methods::{MethodCard, settings};
use crate::spec::{ClassesSpec, LossSpec, Parts, ReductionSpec, TermSpec};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct SinKdSettings {
    /// Weight of the distillation of single rows, λ.
    lambda: f64,
    /// Weight of the transport, β.
    beta: f64,
    temperature: f64,
}

impl Default for SinKdSettings {
    fn default() -> Self {
        Self {
            lambda: 4.0,
            beta: 0.64,
            temperature: 2.0,
        }
    }
}

/// SinKD in the table of methods.
pub const SINKD: MethodCard = MethodCard {
    name: "sinkd",
    aliases: &["sinkhorn-distillation"],
    title: "Sinkhorn distillation",
    source: "Cui et al., 2024",
    card: "S189",
    family: "distillation",
    use_it: "old and new answers overlap little",
    not_for: "use without its term of single rows (`lambda` above 0)",
    stores: "one copy of the weights",
    costs: "one more forward pass a step, and 20 rounds over the square of the batch",
    defaults: || settings(&SinKdSettings::default()),
    expand: |with, _| {
        let s: SinKdSettings = crate::methods::read(with)?;
        let old = |loss, weight, temperature| TermSpec {
            loss,
            temperature: Some(temperature),
            classes: ClassesSpec::Old,
            ..cross_entropy("new", weight)
        };
        // The library's distillation is multiplied by T².
        let square = s.temperature * s.temperature;
        Ok(Parts {
            term: vec![
                cross_entropy("new", 1.0),
                old(LossSpec::Distillation, s.lambda / square, s.temperature),
                old(LossSpec::Sinkhorn, s.beta, 2.0),
            ],
            reduction: Some(ReductionSpec::SumOfMeans),
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use crate::methods::staging::{Taught, softmax, taught};

    #[test]
    fn the_loss_is_the_papers() {
        let Taught { rows, total } = taught("sinkd", "class", &[("with.beta", "0.5")]);
        let n = rows.len();
        let halved = |z: &[f64]| softmax(&[z[0] / 2.0, z[1] / 2.0]);
        let p: Vec<Vec<f64>> = rows.iter().map(|r| halved(&r.0)).collect();
        let q: Vec<Vec<f64>> = rows.iter().map(|r| halved(&r.1)).collect();
        let cost = |i: usize, j: usize| -> f64 {
            p[i].iter().zip(&q[j]).map(|(a, b)| (a - b).abs()).sum()
        };
        let mut plan: Vec<Vec<f64>> = (0..n)
            .map(|i| (0..n).map(|j| (-cost(i, j) / 0.1).exp()).collect())
            .collect();
        for _ in 0..20 {
            for row in &mut plan {
                let sum: f64 = row.iter().sum();
                row.iter_mut().for_each(|x| *x /= sum);
            }
            for j in 0..n {
                let sum: f64 = plan.iter().map(|row| row[j]).sum();
                plan.iter_mut().for_each(|row| row[j] /= sum);
            }
        }
        let pairs = (0..n).flat_map(|i| (0..n).map(move |j| (i, j)));
        let carried: f64 = pairs.map(|(i, j)| plan[i][j] * cost(i, j)).sum();
        let mean = |of: &dyn Fn(usize) -> f64| (0..n).map(of).sum::<f64>() / n as f64;
        let label = mean(&|i| -softmax(&rows[i].0)[rows[i].2].ln());
        let kl = mean(&|i| {
            (q[i].iter().zip(&p[i]))
                .map(|(q, p)| q * (q / p).ln())
                .sum()
        });
        let want = label + 4.0 * kl + 0.5 * carried / n as f64;
        assert!((total - want).abs() < 1e-5, "{total} {want}");
    }
}
