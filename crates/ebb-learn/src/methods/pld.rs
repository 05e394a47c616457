//! Plackett-Luce distillation.
//!
//! **What it does.** Asks the network for one ranking, the true label first and then the order of
//! the network as it was before the experience, each choice counting as much as the old network
//! believed in what is chosen.
//! **Source.** "PLD: a choice-theoretic list-wise knowledge distillation", 2025 (card S165), where
//! teacher and student are two networks; here the teacher is the last experience's.
//! **Equation.** With logits `s`, the teacher's `t`, `q = softmax(t/τ)`, and π the label and then
//! the others by descending t: `L = λ Σ_k q_{π_k} [LSE(s_{π_k}, …, s_{π_K}) − s_{π_k}]`.
//! The first choice is the cross-entropy, so none is added. With `of = "old"` the ranking is that
//! of the classes of earlier experiences, beside `CE(new)`: then the label is not among the
//! teacher's classes, and the cross-entropy is the first choice, of weight 1.
//! **Use it** where classes come back in other domains; with new classes, `of = "old"`. **Not**
//! where the teacher is often wrong: its `q_y` also weighs the label's own choice.
//! **Stores** one copy of the weights. **Costs** one more forward pass a step.

use crate::methods::er::cross_entropy;
use crate::methods::{MethodCard, settings};
use crate::spec::{ClassesSpec, LossSpec, Parts, ReductionSpec, TermSpec};
use serde::{Deserialize, Serialize};

/// Which classes are ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Of {
    /// Those of the scenario, the label first.
    All,
    /// Those of earlier experiences, behind the cross-entropy.
    Old,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct PldSettings {
    /// Weight of the ranking, λ.
    lambda: f64,
    temperature: f64,
    /// Which classes are ranked: `all`, or the `old` ones beside the cross-entropy.
    of: Of,
}

impl Default for PldSettings {
    fn default() -> Self {
        Self {
            lambda: 1.0,
            temperature: 1.0,
            of: Of::All,
        }
    }
}

/// PLD in the table of methods.
pub const PLD: MethodCard = MethodCard {
    name: "pld",
    aliases: &["plackett-luce-distillation"],
    title: "Plackett-Luce distillation",
    source: "arXiv 2506.12542, 2025",
    card: "S165",
    family: "distillation",
    use_it: "classes come back in other domains; with new classes `of = \"old\"`",
    not_for: "teachers that are often wrong",
    stores: "one copy of the weights",
    costs: "one more forward pass a step",
    defaults: || settings(&PldSettings::default()),
    expand: |with, _| {
        let s: PldSettings = crate::methods::read(with)?;
        let ranking = TermSpec {
            loss: LossSpec::PlackettLuce,
            temperature: Some(s.temperature),
            classes: match s.of {
                Of::All => ClassesSpec::Scenario,
                Of::Old => ClassesSpec::Old,
            },
            ..cross_entropy("new", s.lambda)
        };
        let label = (s.of == Of::Old).then(|| cross_entropy("new", 1.0));
        Ok(Parts {
            term: label.into_iter().chain([ranking]).collect(),
            reduction: Some(ReductionSpec::SumOfMeans),
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use crate::methods::staging::{Taught, softmax, taught};

    /// `Σ_k q_{π_k} [LSE(tail) − s_{π_k}]` over `classes`, the label first if it is among them.
    fn ranking(s: &[f64], t: &[f64], label: usize, classes: &[usize]) -> f64 {
        let q = softmax(&classes.iter().map(|c| t[*c]).collect::<Vec<f64>>());
        let mut order: Vec<(usize, f64)> = classes.iter().copied().zip(q).collect();
        order.sort_by(|a, b| t[b.0].total_cmp(&t[a.0]));
        order.sort_by_key(|(c, _)| *c != label);
        let tail = |k: usize| {
            order[k..]
                .iter()
                .map(|(c, _)| s[*c].exp())
                .sum::<f64>()
                .ln()
        };
        let choices = order.iter().enumerate();
        choices.map(|(k, (c, q))| q * (tail(k) - s[*c])).sum()
    }

    #[test]
    fn the_loss_is_the_papers() {
        // The same classes in every experience: the ranking alone.
        let Taught { rows, total } = taught("pld", "domain", &[]);
        let of = |(s, t, y): &(Vec<f64>, Vec<f64>, usize)| {
            ranking(s, t, *y, &(0..s.len()).collect::<Vec<_>>())
        };
        let want = rows.iter().map(of).sum::<f64>() / rows.len() as f64;
        assert!((total - want).abs() < 1e-5, "{total} {want}");
        // New classes: the cross-entropy, then the old ones in the teacher's order.
        let Taught { rows, total } = taught("pld", "class", &[("with.of", "old")]);
        let of = |(s, t, y): &(Vec<f64>, Vec<f64>, usize)| {
            -softmax(s)[*y].ln() + ranking(s, t, *y, &[0, 1])
        };
        let want = rows.iter().map(of).sum::<f64>() / rows.len() as f64;
        assert!((total - want).abs() < 1e-5, "{total} {want}");
    }
}
