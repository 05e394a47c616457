//! Relevance mapping.
//!
//! **What it does.** Every task learns a relevance map over the shared weights, pushed to 0 or 1;
//! a weight that is relevant to an earlier task stays as it is, bit for bit. What tasks share is
//! learned, not imposed.
//! **Source.** Kaushik et al., 2021, "Understanding catastrophic forgetting and remembering in
//! continual learning with optimal relevance mapping" (card S039).
//! **Equation.** Task `t` reads `σ(β(A_t − ½)) ⊙ W`, in evaluation rounded. In the last part of an
//! experience `A_t ← 0` where `R_t ≤ certain` or `R_t |W| ≤ least`; `W` is put back after each
//! step wherever an earlier `A_k > 0`. Without a task's number the most confident head answers:
//! on class-incremental streams with `network.tasks` equal to the number of experiences.
//! **Use it** with the network `task-mlp`, where the task is known or easily told apart. **Not**
//! with weight decay, which draws saturated maps to 0 (under Adam within a few steps), and not on
//! streams longer than the weights last: nothing wins them back.
//! **Deviation.** The paper's networks have normalisation a task; here the biases are a task's own.
//! Pruning happens every `every` steps and at the end, not once an epoch.
//! **Stores** a map a task (in the network). **Costs** a product of map and weights a step, and in
//! evaluation a pass a task.

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::methods::er::cross_entropy;
use crate::methods::{MethodCard, settings};
use crate::oracle::{Oracle, PassResult};
use crate::plugin::{Kept, Plugin, Scene};
use crate::spec::{ClassesSpec, Parts, PluginSpec, TermSpec};
use crate::task_path;
use ebb_net::NetworkSpec;
use ebb_net::TaskWeights;
use ebb_space::{Mask, Weights};
use serde::{Deserialize, Serialize};

/// Relevance mapping's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct RelevanceSettings {
    /// Share of an experience's steps before the first pruning.
    pub from: f64,
    /// Steps between prunings.
    pub every: u64,
    /// Relevance up to which a weight is pruned.
    pub certain: f64,
    /// Relevant weight up to which it is pruned.
    pub least: f64,
    /// Factor on the gradient of the map, which must move further than the weights.
    pub gain: f64,
}

impl Default for RelevanceSettings {
    fn default() -> Self {
        Self {
            from: 0.4,
            every: 50,
            certain: 0.999_999,
            least: 1e-5,
            gain: 1.0,
        }
    }
}

/// The plugin.
pub struct Relevance {
    settings: RelevanceSettings,
    /// Tasks that were trained.
    done: Vec<usize>,
    /// The task under way.
    task: usize,
}

impl Relevance {
    /// A plugin with these settings.
    pub fn new(settings: RelevanceSettings) -> Self {
        Self {
            settings,
            done: Vec::new(),
            task: 0,
        }
    }

    /// What is other tasks' own, and weights that trained ones among them find relevant.
    fn pinned(&self, weights: &Weights) -> Mask {
        let layout = weights.layout();
        let mut relevant = vec![false; layout.len()];
        for (l, shared) in shared(weights) {
            for k in self.done.iter().filter(|k| **k != self.task) {
                let map = weights.get(&map_path(l, *k)).unwrap_or_default();
                let places = relevant[shared.clone()].iter_mut().zip(map);
                places.for_each(|(place, a)| *place |= *a > 0.0);
            }
        }
        let pinned = Mask::from_fn(layout, |i| relevant[i]);
        pinned.or(&task_path::of_others(layout, self.task))
    }

    fn prune(&self, scene: &mut Scene) -> Result<()> {
        let beta = sharpness(&scene.recipe.network);
        let mut weights = scene.oracle.model.weights();
        prune(&mut weights, self.task, beta, &self.settings)?;
        scene.oracle.model.set_weights(&weights)?;
        Ok(())
    }
}

fn sharpness(network: &NetworkSpec) -> f64 {
    match network {
        NetworkSpec::TaskMlp {
            weights: TaskWeights::Relevance { sharpness },
            ..
        } => *sharpness,
        _ => 1.0,
    }
}

fn map_path(layer: usize, task: usize) -> String {
    format!("layers.{layer}.relevance.{task}")
}

/// The shared weights of each hidden layer.
fn shared(weights: &Weights) -> Vec<(usize, std::ops::Range<usize>)> {
    let of = |l: usize| Some((l, weights.layout().find(&format!("layers.{l}.weight"))?));
    let found = (0..).map_while(of);
    found.map(|(l, entry)| (l, entry.range.clone())).collect()
}

/// Takes out of the map of `task` what is not certain or does nothing.
fn prune(weights: &mut Weights, task: usize, beta: f64, s: &RelevanceSettings) -> Result<()> {
    for (l, range) in shared(weights) {
        let shared = weights.as_slice()[range].to_vec();
        let map = weights.get_mut(&map_path(l, task)).unwrap_or_default();
        for (a, w) in map.iter_mut().zip(shared) {
            let r = 1.0 / (1.0 + (-beta * (f64::from(*a) - 0.5)).exp());
            if r <= s.certain || r * f64::from(w.abs()) <= s.least {
                *a = 0.0;
            }
        }
        if map.iter().all(|a| *a == 0.0) {
            return Err(Error::Recipe {
                reason: format!(
                    "no weight of layer {l} is relevant to task {task} any more; let it learn \
                     longer, raise `gain`, or lower `certain`"
                ),
            });
        }
    }
    Ok(())
}

impl Plugin for Relevance {
    fn name(&self) -> &'static str {
        "relevance"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        self.task = task_path::begin(scene, "rmn")?;
        let weights = scene.oracle.model.weights();
        if weights.get(&map_path(0, self.task)).is_none() {
            return Err(Error::Recipe {
                reason: "`rmn` needs network.weights = { kind = \"relevance\" }".into(),
            });
        }
        let pinned = self.pinned(&weights);
        scene.freeze(pinned);
        Ok(())
    }

    fn change_gradient(
        &mut self,
        _: &mut Scene,
        _: &Batch,
        _: &PassResult,
        gradient: &mut Weights,
    ) -> Result<()> {
        let gain = self.settings.gain as f32;
        let mut layer = 0;
        while let Some(g) = gradient.get_mut(&map_path(layer, self.task)) {
            g.iter_mut().for_each(|g| *g *= gain);
            layer += 1;
        }
        Ok(())
    }

    fn after_step(&mut self, scene: &mut Scene, _: &Batch, _: &PassResult) -> Result<()> {
        let taken = scene.in_experience + 1;
        let begun = taken as f64 >= self.settings.from * scene.steps as f64;
        match begun && taken.is_multiple_of(self.settings.every.max(1)) {
            true => self.prune(scene),
            false => Ok(()),
        }
    }

    fn end_experience(&mut self, scene: &mut Scene) -> Result<()> {
        self.prune(scene)?;
        self.done.push(self.task);
        Ok(())
    }

    fn keep(&self) -> Result<Kept> {
        Kept::default().with_note(&(&self.done, self.task))
    }

    fn restore(&mut self, kept: Kept, _: &mut Oracle) -> Result<()> {
        (self.done, self.task) = kept.note()?;
        Ok(())
    }
}

/// Cross-entropy of the new rows among the classes of their own task.
pub(crate) fn own_task() -> TermSpec {
    TermSpec {
        classes: ClassesSpec::New,
        ..cross_entropy("new", 1.0)
    }
}

/// Relevance mapping in the table of methods.
pub const RMN: MethodCard = MethodCard {
    name: "rmn",
    aliases: &["relevance-mapping"],
    title: "Relevance mapping",
    source: "Kaushik et al., 2021",
    card: "S039",
    family: "task-owned parameters",
    use_it: "the network `task-mlp`, where the task is known or easily told apart",
    not_for: "streams longer than the weights last",
    stores: "a map over the weights a task, in the network",
    costs: "a product of map and weights a step; in evaluation a pass a task",
    defaults: || settings(&RelevanceSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            term: vec![own_task()],
            plugin: vec![PluginSpec::Relevance(crate::methods::read(with)?)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging::{answers, session, train};
    use ebb_space::Layout;

    const NETWORK: (&str, &str) = ("network", "{ kind = 'task-mlp', hidden = [12, 9] }");

    /// `σ(100 (A − ½)) > 0.999999` asks for `A > ½ + ln(999999)/100 = 0.6382`.
    #[test]
    fn pruning_by_hand() {
        let layout = Layout::new([
            ("layers.0.weight".to_owned(), vec![1, 5]),
            ("layers.0.relevance.0".to_owned(), vec![1, 5]),
        ]);
        let values = [[0.3, 0.3, -1e-6, -0.3, 0.0], [0.638, 0.6383, 0.9, 0.7, 0.9]];
        let mut w = Weights::from_vec(&layout.expect("two"), values.concat()).expect("ten");
        let settings = RelevanceSettings::default();
        prune(&mut w, 0, 100.0, &settings).expect("two are left");
        let map = w.get("layers.0.relevance.0").expect("it is there");
        assert_eq!(map, [0.0, 0.6383, 0.0, 0.7, 0.0]);
    }

    #[test]
    fn a_finished_task_answers_bit_for_bit_as_before_whatever_comes_later() {
        for optimizer in ["sgd", "adam"] {
            let sets = [
                NETWORK,
                ("train.optimizer", optimizer),
                ("train.lr", if optimizer == "sgd" { "0.5" } else { "0.01" }),
                (
                    "train.weight-decay",
                    if optimizer == "sgd" { "0.001" } else { "0" },
                ),
            ];
            let mut s = session("rmn", "task", &sets);
            let mut rmn = Relevance::new(RelevanceSettings::default());
            let before = answers(&mut s, 0);
            train(&mut s, &mut rmn, 0, 40);
            let first = answers(&mut s, 0);
            assert_ne!(first, before);
            for experience in 1..5 {
                train(&mut s, &mut rmn, experience, 40);
                assert_eq!(answers(&mut s, 0), first, "{optimizer} after {experience}");
            }
        }
    }
}
