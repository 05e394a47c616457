//! Incremental rank updates.
//!
//! **What it does.** Every hidden weight is a sum of rank-1 factors. A new task adds a few and
//! learns its own shares of all factors so far, its biases and its head; the factors and shares
//! of earlier tasks stay as they are, bit for bit.
//! **Source.** Hyder et al., ECCV 2022, "Incremental task learning with incremental rank updates"
//! (card S099).
//! **Equation.** Task `t` reads `W_t = Σ_{k < r_t} s_{t,k} u_k v_kᵀ`, `r_t = first + t · step`.
//! Factors start orthonormal, the shares of old ones at 0, of new ones at 1.
//! **Use it** with the network `task-mlp` where the task is known; it grows by a few per cent of a
//! network a task. **Not** without the task's number at test time.
//! **Stores** the factors and what each task owns (in the network). **Costs** less than the full
//! products in training, and in evaluation a pass a task.

use crate::error::{Error, Result};
use crate::methods::rmn::own_task;
use crate::methods::{MethodCard, settings};
use crate::plugin::{Plugin, Scene};
use crate::spec::{Parts, PluginSpec};
use crate::task_path;
use ebb_net::{NetworkSpec, TaskWeights};
use ebb_space::{Layout, Mask};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// Incremental rank updates have no numbers but the network's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct RankSettings {}

/// The plugin.
pub struct Rank;

impl Rank {
    /// A plugin.
    pub fn new(_: RankSettings) -> Self {
        Self
    }
}

/// Everything but what `task` owns and the factors it adds, which are `own`.
fn others(layout: &Arc<Layout>, task: usize, own: &Range<usize>) -> Mask {
    let mut frozen = vec![true; layout.len()];
    for entry in layout.entries() {
        let range = match (task_path::owner(&entry.path), entry.shape[..].last()) {
            (Some(owner), _) if owner == task => entry.range.clone(),
            (None, Some(width)) => {
                let start = entry.range.start;
                start + own.start * width..start + own.end * width
            }
            _ => continue,
        };
        frozen[range].fill(false);
    }
    Mask::from_fn(layout, |i| frozen[i])
}

impl Plugin for Rank {
    fn name(&self) -> &'static str {
        "rank"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        let task = task_path::begin(scene, "rank-update")?;
        let NetworkSpec::TaskMlp {
            weights: TaskWeights::Factors { first, step, .. },
            ..
        } = scene.recipe.network
        else {
            return Err(Error::Recipe {
                reason: "`rank-update` needs network.weights = { kind = \"factors\" }".into(),
            });
        };
        let own = match task {
            0 => 0..first,
            t => first + (t - 1) * step..first + t * step,
        };
        let frozen = others(scene.oracle.model.layout(), task, &own);
        scene.freeze(frozen);
        Ok(())
    }
}

/// Incremental rank updates in the table of methods.
pub const RANK_UPDATE: MethodCard = MethodCard {
    name: "rank-update",
    aliases: &["incremental-rank"],
    title: "Incremental rank updates",
    source: "Hyder et al., ECCV 2022",
    card: "S099",
    family: "task-owned parameters",
    use_it: "the network `task-mlp` with factors, where the task is known",
    not_for: "answers without the task's number",
    stores: "rank-1 factors and a share of each a task, in the network",
    costs: "less than the full products; in evaluation a pass a task",
    defaults: || settings(&RankSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            term: vec![own_task()],
            plugin: vec![PluginSpec::Rank(crate::methods::read(with)?)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging::{act, answers, session, train};

    const NETWORK: &str =
        "{ kind = 'task-mlp', hidden = [12, 9], weights = { kind = 'factors', first = 3 } }";

    fn start(optimizer: &str) -> crate::session::Session {
        let lr = if optimizer == "sgd" { "0.3" } else { "0.01" };
        let sets = [
            ("network", NETWORK),
            ("train.optimizer", optimizer),
            ("train.lr", lr),
        ];
        session("rank-update", "task", &sets)
    }

    #[test]
    fn a_finished_task_answers_bit_for_bit_as_before_whatever_comes_later() {
        for optimizer in ["sgd", "adam"] {
            let mut s = start(optimizer);
            let before = answers(&mut s, 0);
            train(&mut s, &mut Rank, 0, 30);
            let first = answers(&mut s, 0);
            assert_ne!(first, before);
            for experience in 1..5 {
                train(&mut s, &mut Rank, experience, 30);
                assert_eq!(answers(&mut s, 0), first, "{optimizer} after {experience}");
            }
        }
    }

    /// Old factors' shares start at 0 and learn all the same, for the factors are not 0. Of the
    /// factors only the new one moves: by hand, row 3 of `left` and `right` for the second task.
    #[test]
    fn a_later_task_learns_its_shares_of_old_factors_and_its_own_factor() {
        let mut s = start("sgd");
        train(&mut s, &mut Rank, 0, 5);
        let before = s.oracle.model.weights();
        let shares = "layers.0.share.1";
        assert_eq!(before.get(shares), Some(&[0.0, 0.0, 0.0, 1.0][..]));
        act(&mut s, 1, |scene| {
            let batch = scene.batch_of("new", &scene.train()[..16]);
            let mut g = before.zeros_like();
            Rank.begin_experience(scene).expect("it begins");
            let pass = scene.oracle.gradient(scene.objective, &batch, None, &mut g);
            pass.expect("a gradient");
            let g = g.get(shares).expect("it is there");
            assert!(g.iter().all(|g| g.abs() > 1e-7), "{g:?}");
        });
        train(&mut s, &mut Rank, 1, 5);
        let after = s.oracle.model.weights();
        for ((entry, a), (_, b)) in before.iter().zip(after.iter()) {
            let moved: Vec<usize> = (0..a.len()).filter(|i| a[*i] != b[*i]).collect();
            match entry.path.as_str() {
                path if path.contains("left") || path.contains("right") => {
                    let width = entry.shape[1];
                    assert!(
                        !moved.is_empty() && moved.iter().all(|i| i / width == 3),
                        "{path}"
                    );
                }
                path => assert_eq!(
                    task_path::owner(path) == Some(1),
                    !moved.is_empty(),
                    "{path}"
                ),
            }
        }
    }

    /// The card's sizes: ten tasks of 784-256-256-10, 11 factors and 4 more a task. Per hidden
    /// layer 47 (in + out) numbers of factors; per task 256 + 256 biases, 2,570 of the head and
    /// twice 11 + 4t shares.
    #[test]
    fn ten_tasks_take_four_per_cent_of_ten_networks() {
        let text =
            "kind = 'task-mlp'\nhidden = [256, 256]\nweights = { kind = 'factors', step = 4 }";
        let spec: NetworkSpec = toml::from_str(text).expect("a network");
        let network = spec.build_heads([1, 28, 28], 10, 10).expect("it fits");
        let shares: usize = (0..10).map(|t| 2 * (11 + 4 * t)).sum();
        let want = 47 * (784 + 256 + 256 + 256) + 10 * (512 + 2570) + shares;
        assert_eq!(network.layout().len(), want);
        let separate = 10 * (784 * 256 + 256 * 256 + 512 + 2570);
        assert!((want as f64) < 0.04 * f64::from(separate));
    }
}
