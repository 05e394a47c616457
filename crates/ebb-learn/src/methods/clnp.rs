//! Continual learning by pruning of units.
//!
//! **What it does.** Trains with a pull towards sparse weights, calls the hidden units a task
//! really uses active, freezes everything that could influence them, and lets later tasks use and
//! train the rest.
//! **Source.** Golkar et al., 2019, "Continual learning via neural pruning" (card S047).
//! **Equation.** `L + α Σ|W|`. After a task the units with the lowest mean activity are silenced,
//! layer after layer, as many as cost at most the share `margin` of accuracy (graceful
//! forgetting). With the active units `A`, frozen is what comes into `A`; what of it comes from
//! outside of `A` is 0. Free weights are drawn anew.
//! **Use it** on perceptrons with a head a task. **Not** with activations, normalised weights or
//! heads in which one unit's answer hangs on the others (refused), and not
//! where the task is unknown at test time. Zero forgetting is by bits: an old task loses `margin`
//! once and nothing after.
//! **Deviation.** Accuracy is measured on a keyed sample of the task's own training examples, and
//! the margin is spent evenly over the layers.
//! **Stores** a byte a unit. **Costs** a copy of the frozen values a step; some ten evaluations of
//! the sample a layer and task.

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::evaluate::outcome;
use crate::methods::{MethodCard, settings};
use crate::oracle::{Oracle, PassResult};
use crate::plugin::{Kept, Plugin, Scene, unfit};
use crate::seen::Seen;
use crate::spec::{Parts, PluginSpec};
use ebb_kernels::slices;
use ebb_net::{Taps, Units};
use ebb_space::{Mask, Weights};
use serde::{Deserialize, Serialize};

/// CLNP's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct ClnpSettings {
    /// `α`, the pull of every weight towards 0.
    pub l1: f64,
    /// Accuracy a task may lose to win units back.
    pub margin: f64,
    /// Training examples that activity and accuracy are measured on.
    pub samples: usize,
}

impl Default for ClnpSettings {
    fn default() -> Self {
        Self {
            l1: 1e-4,
            margin: 0.01,
            samples: 1000,
        }
    }
}

/// The plugin.
pub struct Clnp {
    settings: ClnpSettings,
    /// Units that some task uses, layer by layer.
    active: Vec<Vec<bool>>,
}

impl Clnp {
    /// A plugin with these settings.
    pub fn new(settings: ClnpSettings) -> Self {
        Self {
            settings,
            active: Vec::new(),
        }
    }

    /// What influences active units, and the heads of the tasks so far.
    fn frozen(&self, units: &Units, scene: &Scene) -> Mask {
        let layout = scene.oracle.model.layout();
        let earlier = &scene.stream.experiences[..scene.experience];
        let heads = Mask::from_paths(layout, |path| {
            earlier
                .iter()
                .any(|e| path.starts_with(&format!("heads.{}.", e.task)))
        });
        units.incoming(|l, j| self.active[l][j]).or(&heads)
    }

    /// Chooses the units of the task that ends, and cuts all others off.
    fn choose(&mut self, scene: &mut Scene, units: &Units) -> Result<()> {
        let seen = Seen {
            stream: scene.stream,
            experience: scene.experience,
            class_sets: scene.class_sets,
            key: scene.key.sub("clnp").at(scene.experience as u64),
        };
        let batch = seen.batch(&scene.oracle.model, &seen.sample(self.settings.samples));
        let activity = activity(scene.oracle, &batch, units);
        let full = accuracy(scene.oracle, &batch);
        let trained = scene.oracle.model.weights();
        let layers = activity.len();
        let mut active: Vec<Vec<bool>> = activity.iter().map(|a| vec![true; a.len()]).collect();
        for (l, activity) in activity.iter().enumerate() {
            let mut free: Vec<usize> = (0..activity.len())
                .filter(|j| !self.active[l][*j])
                .collect();
            free.sort_by(|a, b| activity[*a].total_cmp(&activity[*b]));
            let spent = self.settings.margin * (l + 1) as f64 / layers as f64;
            let mut fits = |silent: usize| -> Result<bool> {
                let kept = mark(&active, l, &free[..silent]);
                let weights = cut_off(&trained, units, &kept);
                scene.oracle.model.set_weights(&weights)?;
                Ok(accuracy(scene.oracle, &batch) >= full - spent)
            };
            // The most silent units that fit, by halving: as if accuracy only fell with them.
            let (mut low, mut high) = (0, free.len());
            while low < high {
                let middle = (low + high).div_ceil(2);
                match fits(middle)? {
                    true => low = middle,
                    false => high = middle - 1,
                }
            }
            active = mark(&active, l, &free[..low]);
        }
        let weights = cut_off(&trained, units, &active);
        scene.oracle.model.set_weights(&weights)?;
        self.active = active;
        Ok(())
    }
}

/// `active` without the units `silent` of layer `l`.
fn mark(active: &[Vec<bool>], l: usize, silent: &[usize]) -> Vec<Vec<bool>> {
    let mut marked = active.to_vec();
    silent.iter().for_each(|j| marked[l][*j] = false);
    marked
}

/// The weights with what leads out of units that are not active at 0.
fn cut_off(weights: &Weights, units: &Units, active: &[Vec<bool>]) -> Weights {
    let silenced = units.outgoing(|l, j| !active[l][j]);
    let mut cut = weights.clone();
    silenced.zero_gradient(&mut cut);
    cut
}

/// Mean absolute activity of every hidden unit over a batch.
fn activity(oracle: &mut Oracle, batch: &Batch, units: &Units) -> Vec<Vec<f64>> {
    let name = |l: usize| format!("layers.{l}.out");
    let widths: Vec<usize> = units.widths().collect();
    let taps = (0..widths.len()).fold(Taps::none(), |taps, l| taps.read(name(l)));
    let mut taps = taps;
    oracle.model.forward(batch.x.clone(), &mut taps);
    oracle.meter.forward_rows += batch.rows.len() as u64;
    let of = |(l, width): (usize, &usize)| {
        let values = taps.value(&name(l)).map(slices::to_vec).unwrap_or_default();
        let mut sums = vec![0.0; *width];
        for row in values.chunks_exact(*width) {
            sums.iter_mut()
                .zip(row)
                .for_each(|(s, a)| *s += f64::from(a.abs()));
        }
        sums.iter()
            .map(|s| s / batch.rows.len().max(1) as f64)
            .collect()
    };
    widths.iter().enumerate().map(of).collect()
}

/// Share of rows whose label has the largest output, among those that compete.
fn accuracy(oracle: &mut Oracle, batch: &Batch) -> f64 {
    let (logits, _) = oracle.forward(batch);
    let outputs = oracle.model.network().outputs();
    let right = |(i, z): (usize, &[f32])| {
        let label = batch.rows.labels[i] as usize;
        let allowed = batch.allowed(i);
        let competes = |c: &usize| allowed.is_none_or(|set| set[*c]);
        let competing: Vec<usize> = (0..outputs).filter(competes).collect();
        let values: Vec<f32> = competing.iter().map(|c| z[*c]).collect();
        let label = competing.iter().position(|c| *c == label);
        label.is_some_and(|label| outcome(&values, label).correct)
    };
    let rows = logits.chunks_exact(outputs).enumerate();
    rows.filter(|row| right(*row)).count() as f64 / batch.rows.len().max(1) as f64
}

impl Plugin for Clnp {
    fn name(&self) -> &'static str {
        "clnp"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if scene.stream.heads < 2 {
            return Err(Error::Recipe {
                reason: "`clnp` needs a head a task: set stream.scenario = \"task\"".into(),
            });
        }
        let units = Units::of(scene.oracle.model.layout())?;
        if self.active.is_empty() {
            self.active = units.widths().map(|n| vec![false; n]).collect();
        }
        if scene.experience == 0 {
            return Ok(());
        }
        let frozen = self.frozen(&units, scene);
        let key = scene.key.sub("redraw").at(scene.experience as u64);
        let (mut fresh, _) = scene.oracle.model.network().initialise(key);
        frozen.restore(&mut fresh, &scene.oracle.model.weights());
        scene.oracle.model.set_weights(&fresh)?;
        scene.optimizer.reset();
        scene.freeze(frozen);
        Ok(())
    }

    fn change_gradient(
        &mut self,
        scene: &mut Scene,
        _: &Batch,
        _: &PassResult,
        gradient: &mut Weights,
    ) -> Result<()> {
        let alpha = self.settings.l1 as f32;
        let weights = scene.oracle.model.weights();
        for (entry, values) in weights.iter().filter(|(e, _)| e.path.ends_with(".weight")) {
            let Some(g) = gradient.get_mut(&entry.path) else {
                continue;
            };
            for (g, w) in g.iter_mut().zip(values).filter(|(_, w)| **w != 0.0) {
                *g += alpha * w.signum();
            }
        }
        Ok(())
    }

    fn end_experience(&mut self, scene: &mut Scene) -> Result<()> {
        let units = Units::of(scene.oracle.model.layout())?;
        self.choose(scene, &units)
    }

    fn keep(&self) -> Result<Kept> {
        Kept::default().with_note(&self.active)
    }

    fn restore(&mut self, kept: Kept, oracle: &mut Oracle) -> Result<()> {
        self.active = kept.note()?;
        let layout = oracle.model.layout();
        let fits = |(l, layer): (usize, &Vec<bool>)| {
            let bias = layout.find(&format!("layers.{l}.bias"));
            bias.is_some_and(|e| e.range.len() == layer.len())
        };
        match self.active.iter().enumerate().all(fits) {
            true => Ok(()),
            false => Err(unfit("clnp")),
        }
    }

    fn bytes(&self) -> u64 {
        self.active.iter().map(|layer| layer.len() as u64).sum()
    }
}

/// CLNP in the table of methods.
pub const CLNP: MethodCard = MethodCard {
    name: "clnp",
    aliases: &["neural-pruning"],
    title: "Continual learning by pruning of units",
    source: "Golkar et al., 2019",
    card: "S047",
    family: "frozen weights",
    use_it: "perceptrons with a head a task, where nothing may be forgotten",
    not_for: "answers without the task's number; streams longer than the units last",
    stores: "a byte a unit",
    costs: "a copy of the frozen values a step; evaluations of a sample after each task",
    defaults: || settings(&ClnpSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            plugin: vec![PluginSpec::Clnp(crate::methods::read(with)?)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging::{act, answers, session, train};

    fn active(clnp: &Clnp) -> Vec<usize> {
        let count = |layer: &Vec<bool>| layer.iter().filter(|a| **a).count();
        clnp.active.iter().map(count).collect()
    }

    #[test]
    fn a_finished_task_answers_bit_for_bit_as_before_and_free_units_only_fall() {
        let sets = [
            ("network.hidden", "[30, 20]"),
            ("train.lr", "0.2"),
            ("train.momentum", "0.9"),
            ("train.weight-decay", "0.001"),
        ];
        let mut s = session("clnp", "task", &sets);
        let mut clnp = Clnp::new(ClnpSettings {
            l1: 1e-3,
            margin: 0.05,
            samples: 100,
        });
        train(&mut s, &mut clnp, 0, 60);
        let (first, mut used) = (answers(&mut s, 0), active(&clnp));
        assert!(used[0] < 30 && used[1] < 20, "{used:?}");
        for experience in 1..4 {
            let before = clnp.active.clone();
            train(&mut s, &mut clnp, experience, 60);
            assert_eq!(answers(&mut s, 0), first, "after {experience}");
            let pairs = before.concat().into_iter().zip(clnp.active.concat());
            assert!(pairs.into_iter().all(|(old, now)| now || !old));
            assert!(active(&clnp) >= used);
            used = active(&clnp);
        }
    }

    /// One hidden layer: units 0, 1 and 2 say 1, 2 and a tenth whatever they see. Unit 0 is read
    /// by the more frequent of the two classes and beats the bias of the other; the others are
    /// not read. By activity 2 goes first, and then 0 would, but that one decides the answer.
    #[test]
    fn the_silent_units_by_hand() {
        let sets = [("network.hidden", "[3]"), ("network.activation", "relu")];
        let mut s = session("clnp", "task", &sets);
        let mut clnp = Clnp::new(ClnpSettings {
            margin: 0.0,
            samples: 0,
            ..ClnpSettings::default()
        });
        let train = s.stream.experiences[0].train.clone();
        let ones = train.iter().filter(|item| item.label == 1).count();
        assert_ne!(2 * ones, train.len(), "one of two classes is more frequent");
        let frequent = usize::from(2 * ones > train.len());
        let mut w = s.oracle.model.weights();
        w.fill(0.0);
        let bias = w.get_mut("layers.0.bias").expect("a bias");
        bias.copy_from_slice(&[1.0, 2.0, 0.1]);
        w.get_mut("heads.0.weight").expect("a head")[3 * frequent] = 1.0;
        w.get_mut("heads.0.bias").expect("a head")[1 - frequent] = 0.5;
        s.oracle.model.set_weights(&w).expect("its own");
        act(&mut s, 0, |scene| {
            clnp.begin_experience(scene).expect("it begins");
            let units = Units::of(scene.oracle.model.layout()).expect("a perceptron");
            let batch = scene.batch_of("new", &scene.train()[..10]);
            let found = activity(scene.oracle, &batch, &units).concat();
            let want = [1.0, 2.0, 0.1];
            assert!(found.iter().zip(want).all(|(f, w)| (f - w).abs() < 1e-6));
            clnp.choose(scene, &units).expect("a choice");
        });
        assert_eq!(clnp.active, [vec![true, true, false]]);
    }
}
