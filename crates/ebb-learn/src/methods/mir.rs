//! Maximally interfered retrieval.
//!
//! **What it does.** Of some candidates from the memory, replays those whose loss the step on the
//! new batch alone would raise most.
//! **Source.** Aljundi et al., NeurIPS 2019, "Online continual learning with maximally interfered
//! retrieval" (peers' protocol: 50 candidates).
//! **Equation.** With `θᵛ = θ − lr ∇L(new; θ)` take the `size` candidates of greatest
//! `s(x) = ℓ(x; θᵛ) − ℓ(x; θ)`.
//! **Use it** online, with a memory much larger than what is replayed a step. **Not** with Adam
//! in mind: the virtual step is plain gradient descent.
//! **Stores** the memory alone. **Costs** a gradient on the new batch and two forward passes over
//! the candidates a step, on top of experience replay.

use crate::batch::Collect;
use crate::error::Result;
use crate::methods::er::cross_entropy;
use crate::methods::{MethodCard, memory_and, settings_beside};
use crate::plugin::{Plugin, Scene};
use crate::spec::{KeepSpec, Parts, PluginSpec};
use ebb_data::Item;
use ebb_memory::Select;
use ebb_space::Weights;
use serde::{Deserialize, Serialize};

/// MIR's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct MirSettings {
    /// Records drawn uniformly from the memory, of which the most interfered are replayed.
    pub candidates: usize,
    /// Records replayed a step; 0: as many as the batch.
    pub size: usize,
}

impl Default for MirSettings {
    fn default() -> Self {
        Self {
            candidates: 50,
            size: 0,
        }
    }
}

/// The plugin.
pub struct Mir {
    settings: MirSettings,
    gradient: Option<Weights>,
}

impl Mir {
    /// A plugin with these settings.
    pub fn new(settings: MirSettings) -> Self {
        Self {
            settings,
            gradient: None,
        }
    }
}

/// The `size` indices of greatest `after − before`, the first of equals first.
pub fn most_interfered(before: &[f32], after: &[f32], size: usize) -> Vec<usize> {
    let rise = |i: &usize| f64::from(after[*i]) - f64::from(before[*i]);
    let mut order: Vec<usize> = (0..before.len()).collect();
    order.sort_by(|a, b| rise(b).total_cmp(&rise(a)));
    order.truncate(size);
    order
}

impl Plugin for Mir {
    fn name(&self) -> &'static str {
        "mir"
    }

    fn add_rows(&mut self, scene: &mut Scene, new: &[Item], collect: &mut Collect) -> Result<()> {
        let Some(replay) = scene.replay.as_deref().filter(|r| !r.memory.is_empty()) else {
            return Ok(());
        };
        let size = scene.size(self.settings.size);
        let n = self.settings.candidates.max(size);
        let drawn = replay.memory.draw("mir", Select::Uniform, n, scene.step)?;
        let slots = drawn.slots;
        let chosen = if slots.len() <= size {
            slots
        } else {
            let candidates = scene.batch_of_slots("candidates", &slots)?;
            let incoming = scene.batch_of("new", new);
            let now = scene.oracle.model.weights();
            let gradient = self.gradient.get_or_insert_with(|| now.zeros_like());
            let loss = scene.remembering;
            // The pass of the step itself is the one that running statistics count.
            let buffers = scene.oracle.model.buffers().clone();
            scene.oracle.gradient(loss, &incoming, None, gradient)?;
            scene.oracle.model.set_buffers(buffers)?;
            let before = scene.oracle.value(loss, &candidates)?.row_loss;
            let mut virtually = now.clone();
            virtually.axpy(-scene.lr as f32, gradient);
            scene.oracle.model.set_weights(&virtually)?;
            let after = scene.oracle.value(loss, &candidates)?.row_loss;
            scene.oracle.model.set_weights(&now)?;
            most_interfered(&before, &after, size)
                .into_iter()
                .map(|i| slots[i])
                .collect()
        };
        match scene.replay.as_deref() {
            Some(replay) => replay.add_slots(collect, "replay:mir", &chosen),
            None => Ok(()),
        }
    }
}

/// MIR in the table of methods.
pub const MIR: MethodCard = MethodCard {
    name: "mir",
    aliases: &["maximally-interfered-retrieval"],
    title: "Maximally interfered retrieval",
    source: "Aljundi et al., NeurIPS 2019",
    card: "S124",
    family: "replay",
    use_it: "online, with a memory much larger than what is replayed a step",
    not_for: "data that may not be kept",
    stores: "`capacity` examples",
    costs: "a second gradient on the batch and two forward passes over the candidates",
    defaults: || settings_beside(500, &MirSettings::default()),
    expand: |with, _| {
        let (memory, own) = memory_and(with, KeepSpec::Reservoir, 1)?;
        Ok(Parts {
            memory: Some(memory),
            term: vec![cross_entropy("new", 1.0), cross_entropy("replay:mir", 1.0)],
            plugin: vec![PluginSpec::Mir(own)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging::{self, softmax};
    use crate::oracle::Oracle;
    use ebb_space::{Key, Layout};

    /// On linear regression everything is in closed form: a step of size η on `½(wᵀx − y)²`
    /// changes the prediction at `x'` by `−η (wᵀx − y) xᵀx'`, and so its loss.
    #[test]
    fn the_choice_is_that_of_the_closed_form() {
        let mut s = Key::new(5, "mir").stream();
        let mut vector = || [s.normal(), s.normal(), s.normal()];
        let dot = |a: &[f64; 3], b: &[f64; 3]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let (w, x, y, eta) = (vector(), vector(), 0.7, 0.1);
        let memory: Vec<([f64; 3], f64)> =
            (0..20).map(|i| (vector(), f64::from(i) * 0.1)).collect();
        let residual = dot(&w, &x) - y;
        let layout = Layout::new([("w".to_owned(), vec![3])]).expect("one tensor");
        let narrow =
            |v: [f64; 3]| Weights::from_vec(&layout, v.map(|v| v as f32).to_vec()).expect("3");
        let (mut moved, gradient) = (narrow(w), narrow(x.map(|v| v * residual)));
        moved.axpy(-(eta as f32), &gradient);
        let loss = |w: &Weights, (x, y): &([f64; 3], f64)| {
            let z: f64 = w
                .as_slice()
                .iter()
                .zip(x)
                .map(|(w, x)| f64::from(*w) * x)
                .sum();
            (0.5 * (z - y) * (z - y)) as f32
        };
        let before: Vec<f32> = memory.iter().map(|m| loss(&narrow(w), m)).collect();
        let after: Vec<f32> = memory.iter().map(|m| loss(&moved, m)).collect();
        let mut rises: Vec<(f64, usize)> = memory
            .iter()
            .enumerate()
            .map(|(i, (x2, y2))| {
                let r = dot(&w, x2) - y2;
                let change = -eta * residual * dot(&x, x2);
                (r * change + 0.5 * change * change, i)
            })
            .collect();
        rises.sort_by(|a, b| b.0.total_cmp(&a.0));
        let want: Vec<usize> = rises.iter().take(5).map(|r| r.1).collect();
        assert_eq!(most_interfered(&before, &after, 5), want);
    }

    /// Of the records drawn, those come in whose cross-entropy rises most from `θ` to
    /// `θ − lr ∇CE(new)`, the greatest rise first, and the model stays where it was.
    #[test]
    fn the_rows_added_are_those_the_step_would_harm() {
        let mut s = staging::session("mir", "class", &[("train.lr", "0.5")]);
        staging::remember(&mut s, 0..2);
        staging::jolt(&mut s.oracle.model, 0.3);
        staging::act(&mut s, 2, |scene| {
            let new = scene.train()[..16].to_vec();
            let memory = &scene.replay.as_ref().expect("a memory").memory;
            let slots = memory.draw("mir", Select::Uniform, 20, scene.step);
            let slots = slots.expect("records").slots;
            let candidates = scene.batch_of_slots("all", &slots).expect("records");
            let losses = |oracle: &mut Oracle, at: &Weights| -> Vec<f64> {
                oracle.model.set_weights(at).expect("its layout");
                let z = oracle.forward(&candidates).0;
                let rows = z.chunks_exact(10).zip(&candidates.rows.labels);
                rows.map(|(z, y)| {
                    let z: Vec<f64> = z.iter().map(|v| f64::from(*v)).collect();
                    -softmax(&z)[*y as usize].ln()
                })
                .collect()
            };
            let theta = scene.oracle.model.weights();
            let before = losses(scene.oracle, &theta);
            let mut gradient = theta.zeros_like();
            let rows = scene.batch_of("new", &new);
            let done = (scene.oracle).gradient(scene.remembering, &rows, None, &mut gradient);
            done.expect("a gradient");
            let mut ahead = theta.clone();
            ahead.axpy(-0.5, &gradient);
            let after = losses(scene.oracle, &ahead);
            scene.oracle.model.set_weights(&theta).expect("its layout");
            let mut order: Vec<usize> = (0..20).collect();
            let rise = |i: usize| after[i] - before[i];
            order.sort_by(|a, b| rise(*b).total_cmp(&rise(*a)));
            let want: Vec<_> = order[..5].iter().map(|i| candidates.ids[*i]).collect();

            let mut mir = Mir::new(MirSettings {
                candidates: 20,
                size: 5,
            });
            let mut collect = Collect::default();
            collect.items(scene.stream, &new, scene.class_sets);
            mir.add_rows(scene, &new, &mut collect).expect("rows");
            assert_eq!(scene.oracle.model.weights().digest(), theta.digest());
            let batch = scene.finish(collect);
            assert_eq!(batch.ids[16..], want);
        });
    }
}
