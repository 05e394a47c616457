//! Merging: several fine-tuned models, or adapters, into one, without training.
//!
//! A task vector is what a training changed, `τ_t = θ_t − θ0`. A [`Rule`] makes one of several,
//! `τ`, and the merged model is `θ0 + λ ⊙ τ` with λ = 1 or LiNeS's [`Ramp`] over the blocks. An
//! adapter's task vector is its product `B A`; adapters are never merged factor by factor, since
//! `ΣB · ΣA` is not `Σ BA`.
//!
//! | rule | merged entry |
//! |---|---|
//! | [`Rule::Sum`] | `Σ_t w_t τ_t` (task arithmetic) |
//! | [`Rule::Mean`] | `Σ_t w_t τ_t / Σ_t w_t` |
//! | [`Rule::Ties`] | mean of what is large and agrees with the elected sign |
//! | [`Rule::Dare`] | the sum of what a draw keeps, scaled up |
//! | [`Rule::DareTies`] | the sum of what a draw keeps and agrees with the elected sign |
//! | [`Rule::MaxMagnitude`] | the `w_t τ_t` that is largest |
//!
//! Beside the rules: [`centralise`] folds adapters back into the weights they came from,
//! [`orthogonal_columns`] starts an adapter across an earlier one, and [`Shared`] keeps several
//! adapters in common bases from which each can be rebuilt.
//!
//! Every sum is in f64. Rules act on pieces of tensors, so that a large model streams through.

mod centre;
mod dare;
mod factors;
mod lines;
mod max_magnitude;
mod orthogonal;
mod reversible;
mod sum;
mod ties;

pub use centre::centralise;
pub use factors::Factors;
pub use lines::{Ramp, block_of, merge_alpha};
pub use orthogonal::orthogonal_columns;
pub use reversible::{Shared, spectrum, split};
pub use ties::least_kept;

use crate::{Error, Key, Result, Weights};

/// Values that are merged at a time: few enough to stay in the first cache.
const BLOCK: usize = 512;

/// How task vectors become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// `Σ w τ`.
    Sum,
    /// `Σ w τ / Σ w`.
    Mean,
    /// Trim, elect a sign, mean of those that agree.
    Ties {
        /// Share of each tensor's entries that is kept, the largest.
        density: f64,
    },
    /// Drop at random, scale up, sum.
    Dare {
        /// Chance of an entry to be kept.
        density: f64,
        /// Root of the draws.
        key: Key,
    },
    /// Drop at random, scale up, elect a sign, sum of those that agree.
    DareTies {
        /// Chance of an entry to be kept.
        density: f64,
        /// Root of the draws.
        key: Key,
    },
    /// The entry whose magnitude is largest.
    MaxMagnitude,
}

/// Whose task vector it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Its name, which keys what is drawn for it.
    pub name: String,
    /// Its weight.
    pub weight: f64,
}

/// The same part of one tensor in every task vector.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The tensor's path, which keys what is drawn for it.
    pub path: &'a str,
    /// Where in the tensor the piece begins.
    pub from: usize,
    /// A slice for each task.
    pub taus: &'a [&'a [f32]],
    /// The least magnitude that [`Rule::Ties`] keeps of this tensor, for each task, as
    /// [`least_kept`] finds it; of other rules empty.
    pub least: &'a [f32],
}

impl Rule {
    /// Whether these tasks can be merged by this rule.
    ///
    /// # Errors
    /// [`Error::BadMerge`] without a task, for a density that is no share, for weights that are
    /// not finite, or that a mean cannot divide by.
    pub fn check(&self, tasks: &[Task]) -> Result<()> {
        let refuse = |what: String| Err(Error::BadMerge(what));
        if tasks.is_empty() {
            return refuse("there is nothing to merge: give at least one task vector".into());
        }
        if let Rule::Ties { density } | Rule::Dare { density, .. } | Rule::DareTies { density, .. } =
            self
            && !(*density > 0.0 && *density <= 1.0)
        {
            return refuse(format!(
                "the density {density} is no share: give one above 0 and at most 1"
            ));
        }
        if let Some(task) = tasks.iter().find(|task| !task.weight.is_finite()) {
            return refuse(format!("the weight of `{}` is {}", task.name, task.weight));
        }
        let divides = matches!(self, Rule::Mean | Rule::Ties { .. });
        let positive = |task: &Task| task.weight > 0.0;
        if divides && !tasks.iter().all(positive) {
            return refuse("a mean needs weights above 0: to take a task away, use the sum".into());
        }
        Ok(())
    }

    /// Merges a piece into `out`.
    ///
    /// # Panics
    /// If slices have different lengths, or there is not one for each task.
    pub fn merge(&self, tasks: &[Task], piece: &Piece<'_>, out: &mut [f32]) {
        assert_eq!(tasks.len(), piece.taus.len(), "a slice for each task");
        assert!(
            piece.taus.iter().all(|tau| tau.len() == out.len()),
            "task vectors of one length"
        );
        match *self {
            Rule::Sum => sum::sum(tasks, piece, out),
            Rule::Mean => sum::mean(tasks, piece, out),
            Rule::Ties { .. } => ties::ties(tasks, piece, out),
            Rule::Dare { density, key } => dare::dare(tasks, piece, density, key, out),
            Rule::DareTies { density, key } => dare::dare_ties(tasks, piece, density, key, out),
            Rule::MaxMagnitude => max_magnitude::max_magnitude(tasks, piece, out),
        }
    }

    /// The merged task vector, tensor by tensor.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    ///
    /// # Panics
    /// If layouts differ, or there is not one task vector for each task.
    pub fn merged(&self, tasks: &[Task], taus: &[&Weights]) -> Result<Weights> {
        self.check(tasks)?;
        assert_eq!(tasks.len(), taus.len(), "a task vector for each task");
        taus.iter().for_each(|tau| taus[0].same_space(tau));
        let mut merged = taus[0].zeros_like();
        let layout = merged.layout().clone();
        for entry in layout.entries() {
            let slices: Vec<&[f32]> = taus
                .iter()
                .map(|tau| &tau.as_slice()[entry.range.clone()])
                .collect();
            let least: Vec<f32> = match *self {
                Rule::Ties { density } => {
                    slices.iter().map(|tau| least_kept(tau, density)).collect()
                }
                _ => Vec::new(),
            };
            let piece = Piece {
                path: &entry.path,
                from: 0,
                taus: &slices,
                least: &least,
            };
            self.merge(
                tasks,
                &piece,
                &mut merged.as_mut_slice()[entry.range.clone()],
            );
        }
        Ok(merged)
    }
}

/// `θ − θ0`.
///
/// # Panics
/// If the layouts differ.
pub fn task_vector(theta: &Weights, base: &Weights) -> Weights {
    let mut tau = theta.clone();
    tau.axpy(-1.0, base);
    tau
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layout;
    use std::sync::Arc;

    pub(super) fn tasks(weights: &[f64]) -> Vec<Task> {
        let task = |(i, &weight): (usize, &f64)| Task {
            name: format!("task {i}"),
            weight,
        };
        weights.iter().enumerate().map(task).collect()
    }

    pub(super) fn random(layout: &Arc<Layout>, name: &str) -> Weights {
        let key = Key::new(5, name);
        let data = (0..layout.len() as u64).map(|i| key.normal(i) as f32);
        Weights::from_vec(layout, data.collect()).expect("as long as the layout")
    }

    #[test]
    fn merge_then_unmerge_gives_the_base_back() {
        // Neither a whole number of blocks nor one block.
        let l = Layout::new([("a.w".into(), vec![37, 41]), ("b".into(), vec![3])]).expect("paths");
        let base = random(&l, "base");
        let taus: Vec<Weights> = (0..3).map(|i| random(&l, &format!("tau {i}"))).collect();
        let taus: Vec<&Weights> = taus.iter().collect();
        let key = Key::new(0, "dare");
        for rule in [
            Rule::Sum,
            Rule::Mean,
            Rule::Ties { density: 0.3 },
            Rule::Dare { density: 0.3, key },
            Rule::DareTies { density: 0.3, key },
            Rule::MaxMagnitude,
        ] {
            let tau = rule
                .merged(&tasks(&[0.5, 1.0, 2.0]), &taus)
                .expect("merged");
            let mut theta = base.clone();
            theta.axpy(1.0, &tau);
            let apart = task_vector(&theta, &base).squared_distance(&tau).sqrt();
            assert!(apart <= 1e-6 * tau.norm(), "{rule:?}: {apart}");
            theta.axpy(-1.0, &tau);
            let apart = theta.squared_distance(&base).sqrt();
            assert!(apart <= 1e-6 * base.norm(), "{rule:?}: {apart}");
            // One task alone, all of it kept, is that task.
            if !matches!(
                rule,
                Rule::Dare { .. } | Rule::DareTies { .. } | Rule::Ties { .. }
            ) {
                let alone = rule.merged(&tasks(&[1.0]), &taus[..1]).expect("merged");
                assert_eq!(alone.as_slice(), taus[0].as_slice(), "{rule:?}");
            }
        }
    }

    #[test]
    fn pieces_of_a_tensor_are_merged_as_the_whole() {
        let l = Layout::new([("a.w".into(), vec![1500])]).expect("paths");
        let taus: Vec<Weights> = (0..4).map(|i| random(&l, &format!("tau {i}"))).collect();
        let (tasks, key) = (tasks(&[1.0, 0.5, 2.0, 1.0]), Key::new(1, "dare"));
        for rule in [
            Rule::Ties { density: 0.2 },
            Rule::Dare { density: 0.4, key },
            Rule::DareTies { density: 0.4, key },
            Rule::Mean,
        ] {
            let all: Vec<&Weights> = taus.iter().collect();
            let whole = rule.merged(&tasks, &all).expect("merged");
            let least: Vec<f32> = match rule {
                Rule::Ties { density } => taus
                    .iter()
                    .map(|t| least_kept(t.as_slice(), density))
                    .collect(),
                _ => Vec::new(),
            };
            let mut parts = vec![0.0; 1500];
            for (from, out) in [0, 100, 1337].iter().zip([0..100, 100..1337, 1337..1500]) {
                let slices: Vec<&[f32]> = taus.iter().map(|t| &t.as_slice()[out.clone()]).collect();
                let piece = Piece {
                    path: "a.w",
                    from: *from,
                    taus: &slices,
                    least: &least,
                };
                rule.merge(&tasks, &piece, &mut parts[out]);
            }
            assert_eq!(whole.as_slice(), parts, "{rule:?}");
        }
    }

    #[test]
    fn what_cannot_be_merged_is_refused() {
        let key = Key::new(0, "dare");
        for (rule, weights) in [
            (Rule::Sum, &[][..]),
            (Rule::Sum, &[f64::NAN]),
            (Rule::Mean, &[1.0, 0.0]),
            (Rule::Ties { density: 0.5 }, &[1.0, -1.0]),
            (Rule::Ties { density: 0.0 }, &[1.0]),
            (Rule::Dare { density: 1.5, key }, &[1.0]),
            (
                Rule::DareTies {
                    density: f64::NAN,
                    key,
                },
                &[1.0],
            ),
        ] {
            let refused = rule.check(&tasks(weights));
            assert!(matches!(refused, Err(Error::BadMerge(_))), "{rule:?}");
        }
        assert_eq!(Rule::Sum.check(&tasks(&[1.0, -1.0])), Ok(()));
    }
}
