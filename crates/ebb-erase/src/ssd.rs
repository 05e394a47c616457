//! Selective synaptic dampening.
//!
//! **What it does.** Shrinks every weight that matters far more for the records to be forgotten than for
//! all data, in proportion. There is no loop.
//! **Source.** Foster, Schoepf & Brintrup, *Fast machine unlearning without retraining through selective
//! synaptic dampening*, AAAI 2024 (card S015); label-free: the same authors, *Loss-free machine
//! unlearning*, 2024.
//! **Equation.** With importances `I` over all records learnt and over those to forget,
//! `θ ← θ · min(1, λ I_D / I_f)` where `I_f > α I_D`. `I` is the mean of squared gradients of each
//! example's cross-entropy (the published code squares the mean gradient of a batch, which hangs on its
//! size: `importance = "batched"`); label-free, the mean of `|∂‖z‖²|`.
//! **When to use it.** A class or a group that has weights of its own, when seconds count. **When not.**
//! Scattered records, which share their weights with all others; and never unmeasured: of ten classes of
//! CIFAR-10, two took most of the rest with them in the paper's own setting.
//! **Stores** nothing. **Costs** one backward pass over all that was learnt, and one over the rest.

use crate::eraser::{Eraser, Needs};
use crate::error::{Error, Result};
use crate::subject::Subject;
use ebb_data::Item;
use ebb_learn::fisher;
use ebb_record::ledger::Claim;
use ebb_space::{FisherKind, Objective, Reduction, Weights, presets};
use serde::{Deserialize, Serialize};

/// Which importance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Importance {
    /// Squared gradients of each example.
    #[default]
    PerExample,
    /// The squared mean gradient of each batch.
    Batched,
    /// Absolute gradients of the squared length of the outputs.
    LabelFree,
}

/// Selective synaptic dampening.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Ssd {
    /// How many times more a weight must matter to be dampened.
    pub alpha: f32,
    /// How much of the ratio is left of it.
    pub lambda: f32,
    /// Which importance.
    pub importance: Importance,
    /// Examples of a pass; of `batched` and `label-free`, those of a batch.
    pub batch: usize,
}

impl Default for Ssd {
    fn default() -> Self {
        Self {
            alpha: 10.0,
            lambda: 1.0,
            importance: Importance::PerExample,
            batch: 64,
        }
    }
}

impl Ssd {
    /// The mean importance of every weight for items.
    fn importance(&self, subject: &mut Subject, items: &[Item]) -> Result<Weights> {
        let sites = subject.oracle().model.linear_sites();
        let per_example = self.importance == Importance::PerExample;
        // Without the structure of linear layers, examples go one by one.
        let size = if per_example && sites.is_none() {
            1
        } else {
            self.batch
        };
        let mut total = Weights::zeros(subject.oracle().model.layout());
        let mut gradient = total.zeros_like();
        let lengths = Objective {
            terms: vec![presets::output_norm("all")],
            reduction: Reduction::MeanOverRows,
        };
        for items in items.chunks(size) {
            subject.go_on()?;
            let batch = subject.batch(items);
            let key = subject.key.sub("importance");
            let kind = match self.importance {
                Importance::PerExample => FisherKind::Empirical,
                Importance::Batched => FisherKind::Batched,
                Importance::LabelFree => {
                    subject.gradient(&lengths, items, &mut gradient)?;
                    total.add_abs(1.0, &gradient);
                    continue;
                }
            };
            let oracle = subject.oracle();
            fisher::add(oracle, &batch, kind, sites.as_deref(), key, &mut total)?;
        }
        let n = if per_example {
            items.len()
        } else {
            items.len().div_ceil(size)
        };
        total.scale(1.0 / n as f32);
        Ok(total)
    }
}

/// `θ · min(1, λ I_D / I_f)` where `I_f > α I_D`.
fn dampened(theta: f32, of_all: f32, of_forgotten: f32, alpha: f32, lambda: f32) -> f32 {
    match of_forgotten > alpha * of_all {
        true => theta * (lambda * of_all / of_forgotten).min(1.0),
        false => theta,
    }
}

impl Eraser for Ssd {
    fn name(&self) -> &'static str {
        match self.importance {
            Importance::LabelFree => "ssd-label-free",
            _ => "ssd",
        }
    }

    fn claim(&self) -> Claim {
        Claim::Approximate
    }

    fn needs(&self) -> Needs {
        Needs {
            forget: true,
            retain: true,
        }
    }

    fn erase(&self, subject: &mut Subject) -> Result<()> {
        let valid = self.alpha.is_finite() && self.alpha > 0.0 && self.lambda >= 0.0;
        if !valid || self.batch == 0 {
            return Err(Error::Method {
                reason:
                    "ssd needs an `alpha` above 0, a `lambda` of at least 0 and a `batch` of at \
                         least 1"
                        .into(),
            });
        }
        let all: Vec<Item> = [&subject.retain[..], &subject.forget].concat();
        let of_all = self.importance(subject, &all)?;
        let forget = subject.forget.clone();
        let of_forgotten = self.importance(subject, &forget)?;
        let mut theta = subject.oracle().model.weights();
        theta.zip_with_2(&of_all, &of_forgotten, |t, all, forgotten| {
            dampened(t, all, forgotten, self.alpha, self.lambda)
        });
        Ok(subject
            .oracle()
            .model
            .set_weights(&theta)
            .map_err(ebb_learn::Error::from)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_matters_far_more_is_dampened() {
        assert_eq!(dampened(2.0, 1.0, 10.0, 10.0, 1.0), 2.0);
        assert_eq!(dampened(2.0, 1.0, 20.0, 10.0, 1.0), 0.1);
        // Never enlarged, whatever lambda; 0 of 0 is left alone.
        assert_eq!(dampened(2.0, 1.0, 20.0, 10.0, 100.0), 2.0);
        assert_eq!(dampened(2.0, 0.0, 0.0, 10.0, 1.0), 2.0);
        assert_eq!(dampened(2.0, 0.0, 1.0, 10.0, 1.0), 0.0);
    }
}
