//! Forgetting-prioritised fine-tuning: FPF and k-FPF.
//!
//! **What it does.** Trains without replay, and then (FPF: once, at the end; k-FPF: `times` times,
//! evenly spaced whatever the boundaries) fine-tunes on the memory only the layers that move most
//! when the task changes.
//! **Source.** Zhao et al., ICML 2023, "Does continual learning equally forget all parameters?"
//! (card S084), which has no public code; the window of the measurement is ours.
//! **Equation.** A layer's sensitivity is its mean absolute change a step in the half experience
//! after a switch, over that in the half before it, averaged over the switches so far:
//! `s_ℓ = mean_t ‖θ_ℓ(t, ½) − θ_ℓ(t, 0)‖₁ / ‖θ_ℓ(t, 0) − θ_ℓ(t−1, ½)‖₁`. On the most sensitive
//! ones: `steps` steps of SGD, the rate falling along half a cosine, on class-balanced draws from
//! the memory, of `CE + α ‖z − z_stored‖²/k` with k outputs.
//! **Use it** where replaying at every step is too dear, alone or on top of any method with a
//! memory (`[[plugin]] kind = "fpf"`). **Not** with a memory of some tens: it overfits.
//! **Stores** the memory and one copy of the weights. **Costs** `times · steps` gradients a run.

use crate::error::{Error, Result};
use crate::methods::{MethodCard, memory_and, settings_beside};
use crate::optimizer::{Optimizer, OptimizerKind, OptimizerSettings};
use crate::oracle::{Oracle, PassResult};
use crate::plugin::{Kept, Plugin, Scene};
use crate::spec::{KeepSpec, Parts, PluginSpec};
use ebb_memory::{Meta, Select};
use ebb_space::{Layout, Mask, Normalisation, Objective, Reduction, Weights, presets};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// FPF's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct FpfSettings {
    /// Fine-tunings in a run, evenly spaced over its steps, the last at its end.
    pub times: u64,
    /// Steps of each.
    pub steps: u64,
    /// The rate each begins with; 0: the recipe's.
    pub lr: f64,
    /// Remembered rows a step; 0: as many as the batch.
    pub batch: usize,
    /// Paths (with `*`) that are fine-tuned; left empty: the most sensitive layers.
    pub on: Vec<String>,
    /// Their share of all layers, at least one.
    pub share: f64,
    /// Weight of the distance to the logits stored with the records (k-FPF-KD).
    pub alpha: f64,
    /// Fine-tune as many parameters drawn at random: a control that must not work.
    pub random: bool,
}

impl Default for FpfSettings {
    fn default() -> Self {
        Self {
            times: 1,
            steps: 200,
            lr: 0.0,
            batch: 0,
            on: Vec::new(),
            share: 0.25,
            alpha: 0.0,
            random: false,
        }
    }
}

/// How much more each layer moves behind a switch than before it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sensitivity {
    /// Change a step in the second half of the last experience, by layer.
    within: Vec<f64>,
    /// Sum of the ratios so far, and how many there are, by layer.
    ratios: Vec<(f64, u32)>,
}

/// Mean absolute change of each layer, a step.
fn change(now: &Weights, before: &Weights, steps: u64) -> Vec<f64> {
    let mut moved = now.clone();
    moved.axpy(-1.0, before);
    moved
        .by_layer()
        .map(|l| l.abs_sum / l.len.max(1) as f64 / steps.max(1) as f64)
        .collect()
}

impl Sensitivity {
    fn after_a_switch(&mut self, behind: &[f64]) {
        self.ratios.resize(behind.len(), (0.0, 0));
        for ((ratio, behind), within) in self.ratios.iter_mut().zip(behind).zip(&self.within) {
            // What does not move within a task, such as the head of a later one, has no ratio.
            if *within > 0.0 {
                ratio.0 += behind / within;
                ratio.1 += 1;
            }
        }
    }

    /// The most sensitive layers: `share` of all, at least one, but only measured ones.
    fn top(&self, share: f64) -> Vec<usize> {
        let mean = |i: &usize| self.ratios[*i].0 / f64::from(self.ratios[*i].1);
        let measured = |i: &usize| self.ratios[*i].1 > 0;
        let mut order: Vec<usize> = (0..self.ratios.len()).filter(measured).collect();
        order.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
        order.truncate(((share * self.ratios.len() as f64).round() as usize).max(1));
        order
    }
}

/// Whether a fine-tuning is due after step `done` of `total`; the last one waits for the end.
fn due(done: u64, total: u64, times: u64) -> bool {
    let passed = |step: u64| u128::from(step) * u128::from(times) / u128::from(total.max(1));
    done < total && passed(done) > passed(done.saturating_sub(1))
}

/// Each record's weight in a draw that meets all classes alike.
fn balanced(metas: &[Meta]) -> Vec<f64> {
    let mut sizes: BTreeMap<u32, f64> = BTreeMap::new();
    for m in metas {
        *sizes.entry(m.label).or_default() += 1.0;
    }
    metas.iter().map(|m| 1.0 / sizes[&m.label]).collect()
}

/// The plugin.
pub struct Fpf {
    settings: FpfSettings,
    /// The weights at the beginning of the half experience under way.
    anchor: Option<Weights>,
    sensitivity: Sensitivity,
}

impl Fpf {
    /// A plugin with these settings.
    pub fn new(settings: FpfSettings) -> Self {
        Self {
            settings,
            anchor: None,
            sensitivity: Sensitivity::default(),
        }
    }

    /// What is fine-tuned; nothing before a switch was measured.
    fn chosen(&self, scene: &Scene) -> Result<Mask> {
        let layout = scene.oracle.model.layout().clone();
        let mask = if self.settings.on.is_empty() {
            self.most_sensitive(&layout)
        } else {
            let patterns: Vec<&str> = self.settings.on.iter().map(String::as_str).collect();
            let (mask, unmatched) = Mask::from_globs(&layout, &patterns);
            if let Some(pattern) = unmatched.first() {
                return Err(Error::no_such_path(pattern, &layout));
            }
            mask
        };
        let mask = match self.settings.random {
            false => mask,
            true => {
                let key = scene.key.sub("fpf random");
                let mut draws = Weights::zeros(&layout);
                for (i, d) in draws.as_mut_slice().iter_mut().enumerate() {
                    *d = key.uniform(i as u64) as f32;
                }
                draws.top_k(mask.count())
            }
        };
        Ok(match &*scene.frozen {
            None => mask,
            Some((frozen, _)) => mask.and(&frozen.complement()),
        })
    }

    fn most_sensitive(&self, layout: &Arc<Layout>) -> Mask {
        let zeros = Weights::zeros(layout);
        let names: Vec<String> = zeros.by_layer().map(|l| l.name.to_owned()).collect();
        let top = self.sensitivity.top(self.settings.share);
        Mask::from_paths(layout, |path| {
            let layer = path.rsplit_once('.').map_or(path, |(layer, _)| layer);
            top.iter().any(|i| names[*i] == layer)
        })
    }

    fn fine_tune(&mut self, scene: &mut Scene) -> Result<()> {
        let s = self.settings.clone();
        let chosen = self.chosen(scene)?;
        let Some(memory) = scene.replay.as_deref().map(|r| &r.memory) else {
            return Ok(());
        };
        if memory.is_empty() || chosen.count() == 0 {
            return Ok(());
        }
        let weights = balanced(memory.metas());
        let others = chosen.complement();
        let size = scene.size(s.batch);
        let lr = match s.lr {
            0.0 => scene.recipe.train.lr,
            lr => lr,
        };
        let mut terms = vec![presets::cross_entropy("memory")];
        if s.alpha > 0.0 {
            terms.push(presets::logits_l2("memory", Normalisation::ElementMean).weighted(s.alpha));
        }
        let objective = Objective {
            terms,
            reduction: Reduction::SumOfMeans,
        };
        let before = scene.oracle.model.weights();
        let mut gradient = before.zeros_like();
        let plain = OptimizerSettings {
            kind: OptimizerKind::Sgd,
            momentum: 0.0,
            nesterov: false,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
        };
        let mut optimizer = Optimizer::new(plain, before.layout());
        let step_key = scene.oracle.key;
        for i in 0..s.steps {
            let number = scene.step * s.steps + i;
            let slots = match scene.replay.as_deref() {
                Some(r) => r
                    .memory
                    .draw("fpf", Select::Weighted(&weights), size, number)?,
                None => break,
            };
            let batch = scene.batch_of_slots("memory", &slots.slots)?;
            scene.oracle.key = scene.key.sub("fpf").at(number);
            scene
                .oracle
                .gradient(&objective, &batch, None, &mut gradient)?;
            others.zero_gradient(&mut gradient);
            let turn = std::f64::consts::PI * i as f64 / s.steps as f64;
            let lr = lr * 0.5 * (1.0 + turn.cos());
            optimizer.step(&mut scene.oracle.model, &gradient, lr);
        }
        scene.oracle.key = step_key;
        // Sensitivity is about the stream: what fine-tuning moved does not count.
        if let Some(anchor) = &mut self.anchor {
            anchor.add_difference(1.0, &scene.oracle.model.weights(), &before);
        }
        Ok(())
    }
}

impl Plugin for Fpf {
    fn name(&self) -> &'static str {
        "fpf"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        // A path that names nothing is said before the training, not after it.
        self.chosen(scene).map(drop)
    }

    fn after_step(
        &mut self,
        scene: &mut Scene,
        _batch: &crate::batch::Batch,
        _pass: &PassResult,
    ) -> Result<()> {
        if scene.in_experience + 1 == scene.steps / 2 {
            let now = scene.oracle.model.weights();
            if let Some(anchor) = self.anchor.as_ref().filter(|_| scene.experience > 0) {
                let behind = change(&now, anchor, scene.steps / 2);
                self.sensitivity.after_a_switch(&behind);
            }
            self.anchor = Some(now);
        }
        if due(scene.step + 1, scene.total, self.settings.times) {
            self.fine_tune(scene)?;
        }
        Ok(())
    }

    fn end_experience(&mut self, scene: &mut Scene) -> Result<()> {
        let now = scene.oracle.model.weights();
        if let Some(anchor) = &self.anchor {
            self.sensitivity.within = change(&now, anchor, scene.steps - scene.steps / 2);
        }
        self.anchor = Some(now);
        if scene.last() {
            self.fine_tune(scene)?;
        }
        Ok(())
    }

    fn keep(&self) -> Result<Kept> {
        let anchor = self.anchor.iter().map(|a| ("anchor".to_owned(), a.clone()));
        Kept::vectors(anchor.collect()).with_note(&self.sensitivity)
    }

    fn restore(&mut self, mut kept: Kept, _oracle: &mut Oracle) -> Result<()> {
        self.sensitivity = kept.note()?;
        self.anchor = kept.take("anchor");
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.anchor.as_ref().map_or(0, |a| 4 * a.layout().len()) as u64
    }
}

fn defaults(times: u64) -> toml::Table {
    let own = FpfSettings {
        times,
        ..FpfSettings::default()
    };
    settings_beside(500, &own)
}

fn expand(with: &toml::Table) -> Result<Parts> {
    let (memory, own) = memory_and(with, KeepSpec::Reservoir, 1)?;
    Ok(Parts {
        memory: Some(memory),
        plugin: vec![PluginSpec::Fpf(own)],
        ..Parts::default()
    })
}

/// FPF in the table of methods.
pub const FPF: MethodCard = MethodCard {
    name: "fpf",
    aliases: &["forgetting-prioritised-fine-tuning"],
    title: "Forgetting-prioritised fine-tuning",
    source: "Zhao et al., ICML 2023",
    card: "S084",
    family: "replay",
    use_it: "replaying at every step is too dear, or on top of a method with a memory",
    not_for: "a memory of some tens: it overfits",
    stores: "`capacity` examples, one copy of the weights",
    costs: "`times` x `steps` gradients a run",
    defaults: || defaults(1),
    expand: |with, _| expand(with),
};

/// k-FPF in the table of methods.
pub const K_FPF: MethodCard = MethodCard {
    name: "k-fpf",
    aliases: &[],
    title: "Forgetting-prioritised fine-tuning, k times",
    use_it: "replaying at every step is too dear and the model is asked before the end",
    defaults: || defaults(3),
    ..FPF
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging;
    use ebb_space::ExampleId;

    fn layout() -> Arc<Layout> {
        let entries = [
            ("a.weight", 4),
            ("a.bias", 2),
            ("b.weight", 3),
            ("c.weight", 1),
        ];
        let entries = entries.map(|(n, k)| (n.to_owned(), vec![k]));
        Layout::new(entries).expect("four tensors")
    }

    /// Three layers that move by known amounts: the ratios by hand.
    #[test]
    fn sensitivity_by_hand() {
        let layout = layout();
        let w = |a: f32, b: f32, c: f32| {
            let v = [a, a, -a, a, a, -a, b, -b, b, c];
            Weights::from_vec(&layout, v.to_vec()).expect("ten values")
        };
        // The second half of a task of 7 steps (4 of them) moves a by 4, b by 2, c not at all.
        let mut s = Sensitivity {
            within: change(&w(5.0, 3.0, 1.0), &w(1.0, 1.0, 1.0), 4),
            ratios: Vec::new(),
        };
        assert_eq!(s.within, [1.0, 0.5, 0.0]);
        // Behind the switch 3 steps move a by 3, b by 6, c by 9.
        let behind = change(&w(8.0, 9.0, 10.0), &w(5.0, 3.0, 1.0), 3);
        assert_eq!(behind, [1.0, 2.0, 3.0]);
        s.after_a_switch(&behind);
        assert_eq!(s.ratios, [(1.0, 1), (4.0, 1), (0.0, 0)]);
        assert_eq!(
            s.top(0.25),
            [1],
            "the layer without a ratio is never chosen"
        );
        // A second switch: a by 9 a step, b by 1, so a has 1 and 9, b has 4 and 2.
        s.after_a_switch(&[9.0, 1.0, 5.0]);
        assert_eq!(s.top(0.34), [0]);
        assert_eq!(s.top(1.0), [0, 1]);
        let mut plugin = Fpf::new(FpfSettings::default());
        assert_eq!(
            plugin.most_sensitive(&layout).count(),
            0,
            "nothing measured"
        );
        plugin.sensitivity = s;
        let mask = plugin.most_sensitive(&layout);
        assert!((0..10).all(|i| mask.contains(i) == (i < 6)));
    }

    #[test]
    fn fine_tunings_are_evenly_spaced_and_the_last_is_at_the_end() {
        let during =
            |total, times| -> Vec<u64> { (1..=total).filter(|s| due(*s, total, times)).collect() };
        assert_eq!(during(100, 1), [0u64; 0]);
        assert_eq!(during(100, 4), [25, 50, 75]);
        assert_eq!(during(10, 3), [4, 7]);
        assert_eq!(during(3, 3), [1, 2]);
    }

    /// The draw's weights give every class the same share, whatever the memory holds of it.
    #[test]
    fn classes_are_met_alike() {
        let meta = |i: u64, label: u32| Meta {
            id: ExampleId::of(&i.to_le_bytes(), label),
            label,
            experience: 0,
            task: 0,
            step: 0,
            arrival: i,
        };
        let metas: Vec<Meta> = (0..50).map(|i| meta(i, u32::from(i % 10 == 0))).collect();
        let weights = balanced(&metas);
        let of = |label: u32| -> f64 {
            let each = metas.iter().zip(&weights);
            each.filter(|(m, _)| m.label == label).map(|(_, w)| w).sum()
        };
        assert!((of(0) - 1.0).abs() < 1e-12 && (of(1) - 1.0).abs() < 1e-12);
    }

    /// One step is `−lr g` of a balanced draw's cross-entropy on the layers named and nothing
    /// elsewhere; many lower the loss of the memory. A path that names nothing is said at once.
    #[test]
    fn fine_tuning_descends_on_the_memory() {
        let mut s = staging::session("fpf", "class", &[("with.capacity", "60")]);
        staging::remember(&mut s, 0..2);
        staging::jolt(&mut s.oracle.model, 0.3);
        let fpf = |steps: u64, on: &str| {
            Fpf::new(FpfSettings {
                steps,
                lr: 0.2,
                batch: 30,
                on: vec![on.to_owned()],
                ..FpfSettings::default()
            })
        };
        staging::act(&mut s, 2, |scene| {
            let theta = scene.oracle.model.weights();
            let memory = &scene.replay.as_ref().expect("a memory").memory;
            let held: Vec<u32> = (0..memory.len() as u32).collect();
            let weights = balanced(memory.metas());
            let drawn = memory.draw("fpf", Select::Weighted(&weights), 30, scene.step);
            let batch = scene.batch_of_slots("all", &drawn.expect("records").slots);
            let mut g = theta.zeros_like();
            let loss = scene.remembering;
            let done = (scene.oracle).gradient(loss, &batch.expect("rows"), None, &mut g);
            done.expect("a gradient");
            fpf(1, "head*").fine_tune(scene).expect("a step");
            let moved = scene.oracle.model.weights();
            for entry in theta.layout().entries() {
                for i in entry.range.clone() {
                    let step = match entry.path.starts_with("head") {
                        true => -0.2 * g.as_slice()[i],
                        false => 0.0,
                    };
                    let found = moved.as_slice()[i] - theta.as_slice()[i];
                    assert!(
                        (found - step).abs() < 1e-6,
                        "{}: {found} {step}",
                        entry.path
                    );
                }
            }
            assert!(g.norm() > 1e-2);
            let all = scene.batch_of_slots("all", &held).expect("rows");
            let value = |scene: &mut Scene| {
                let value = scene.oracle.value(scene.remembering, &all);
                value.expect("a value").total
            };
            let before = value(scene);
            fpf(50, "head*").fine_tune(scene).expect("steps");
            let after = value(scene);
            assert!(after < 0.8 * before, "{before} {after}");
            let refused = fpf(1, "nosuch").begin_experience(scene);
            assert!(refused.expect_err("no path").to_string().contains("nosuch"));
        });
    }
}
