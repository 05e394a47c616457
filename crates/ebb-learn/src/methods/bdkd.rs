//! Balanced divergences.
//!
//! **What it does.** Keeps the answers of the network as it was before the experience, by a forward
//! and a reverse KL that are mixed example by example: a network surer than its teacher is made to
//! cover, one less sure to seek.
//! **Source.** BD-KD: "Balancing the divergences for online knowledge distillation", 2022 (card
//! S175), where two networks teach each other. Here the teacher is the last experience's, and the
//! rule of the balance is the card's: the paper's constants are not public.
//! **Equation.** `L = CE(new) + λ T² mean [ω KL(q‖p) + (1 − ω) KL(p‖q)]` over the classes of
//! earlier experiences, with `ω = σ((H(q) − H(p))/κ)`, detached, and κ = ½ nat; `reversed` takes
//! `1 − ω` for `ω`: a control.
//! **Use it** as LwF, where calibration counts. **Not** where LwF does not do either.
//! **Stores** one copy of the weights. **Costs** one more forward pass a step.

use crate::methods::er::cross_entropy;
use crate::methods::{MethodCard, settings};
use crate::spec::{ClassesSpec, LossSpec, Parts, ReductionSpec, TermSpec};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct BdKdSettings {
    /// Weight of the two divergences, λ.
    lambda: f64,
    temperature: f64,
    /// Take `1 − ω` for `ω`: a control.
    reversed: bool,
}

impl Default for BdKdSettings {
    fn default() -> Self {
        Self {
            lambda: 1.0,
            temperature: 2.0,
            reversed: false,
        }
    }
}

/// BD-KD in the table of methods.
pub const BD_KD: MethodCard = MethodCard {
    name: "bd-kd",
    aliases: &["balanced-divergences"],
    title: "Balanced divergences",
    source: "arXiv 2212.12965, 2022",
    card: "S175",
    family: "distillation",
    use_it: "as LwF, where calibration counts",
    not_for: "experiences whose inputs say nothing of the old ones",
    stores: "one copy of the weights",
    costs: "one more forward pass a step",
    defaults: || settings(&BdKdSettings::default()),
    expand: |with, _| {
        let s: BdKdSettings = crate::methods::read(with)?;
        let keep = TermSpec {
            loss: match s.reversed {
                false => LossSpec::BalancedDistillation,
                true => LossSpec::BalancedDistillationReversed,
            },
            temperature: Some(s.temperature),
            classes: ClassesSpec::Old,
            ..cross_entropy("new", s.lambda)
        };
        Ok(Parts {
            term: vec![cross_entropy("new", 1.0), keep],
            reduction: Some(ReductionSpec::SumOfMeans),
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use crate::methods::staging::{Taught, softmax, taught};

    #[test]
    fn the_loss_is_the_cards() {
        for reversed in [false, true] {
            let flag = if reversed { "true" } else { "false" };
            let Taught { rows, total } = taught("bd-kd", "class", &[("with.reversed", flag)]);
            let tempered = |z: &[f64]| softmax(&[z[0] / 2.0, z[1] / 2.0]);
            let entropy = |p: &[f64]| -p.iter().map(|p| p * p.ln()).sum::<f64>();
            let kl = |a: &[f64], b: &[f64]| {
                let each = a.iter().zip(b).map(|(a, b)| a * (a / b).ln());
                each.sum::<f64>()
            };
            let of = |(s, t, y): &(Vec<f64>, Vec<f64>, usize)| {
                let (p, q) = (tempered(s), tempered(t));
                let omega = 1.0 / (1.0 + (-(entropy(&q) - entropy(&p)) / 0.5).exp());
                let omega = if reversed { 1.0 - omega } else { omega };
                let both = omega * kl(&q, &p) + (1.0 - omega) * kl(&p, &q);
                -softmax(s)[*y].ln() + 4.0 * both
            };
            let want = rows.iter().map(of).sum::<f64>() / rows.len() as f64;
            assert!((total - want).abs() < 1e-5, "{total} {want}");
        }
    }
}
