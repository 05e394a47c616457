//! Relational experience replay.
//!
//! **What it does.** Pairs each new row with two replayed ones and lets a small network say, from
//! their three losses, how much each counts. That network learns from one step ahead: how the loss
//! on other remembered rows would change if a weight did.
//! **Source.** Wang et al., IEEE TMM 2024, "Relational experience replay" (card S069), and its
//! released code, on top of DER++.
//! **Equation.** `L = mean w₁ CE(x) + mean w₂ MSE(z(x'), z') + mean w₃ CE(x″)` with
//! `w = σ(C(relu(A u) + relu(B v)))`, u the three losses of a triple and v the lengths of its three
//! rows of logits. At each `every`-th step, with `θ' = θ − lr ∇L` and M the same two memory losses
//! on fresh draws: `∂M(θ')/∂w_i = −(lr/n) ∇M(θ')·∇ℓ_i(θ)`, the product taken for all rows at once
//! as `(ℓ_i(θ + εg) − ℓ_i(θ − εg))/2ε` along `g = ∇M(θ')`; then a step of Adam on A, B, C.
//! In the first experience and the first half of the others the weights are (1, α, β): DER++.
//! **Use it** with a small memory and several passes. **Not** without its controls: weights below 1
//! lower the learning rate too (`shuffled` keeps their mean and takes away which row has which).
//! **Stores** DER++'s memory and a network of some 180 numbers. **Costs** on top of DER++ a forward
//! pass a step with weights of the net, and two gradients and two forward passes every `every` steps.
//!
//! Departures: the step that is looked ahead of is on the rows of the one about to be taken, with the
//! net's own weights, which that one has not where they are fixed or `shuffled`; the passes that
//! weigh rows are in evaluation mode.

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::methods::er::{cross_entropy, draw};
use crate::methods::{MethodCard, memory_and, settings_beside};
use crate::oracle::Oracle;
use crate::plugin::{Kept, Plugin, Scene};
use crate::spec::{
    ClassesSpec, KeepSpec, LossSpec, Parts, PluginSpec, ReductionSpec, SelectSpec, TermSpec,
};
use ebb_kernels::optim;
use ebb_memory::Select;
use ebb_space::{Key, Layout, Normalisation, Objective, Reduction, Weights, presets};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Relational replay's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct RelationalSettings {
    /// The fixed weight of the stored logits.
    pub alpha: f64,
    /// The fixed weight of replayed labels.
    pub beta: f64,
    /// Hidden units of the network of weights.
    pub hidden: usize,
    /// Its learning rate, with Adam.
    pub rate: f64,
    /// Its weight decay, added to the gradient.
    pub decay: f64,
    /// Steps from one at which it learns to the next.
    pub every: u64,
    /// The share of an experience's steps with fixed weights.
    pub warm: f64,
    /// The triples of a step exchange their weights: a control that must not work.
    pub shuffled: bool,
}

impl Default for RelationalSettings {
    fn default() -> Self {
        Self {
            alpha: 0.2,
            beta: 0.5,
            hidden: 16,
            rate: 1e-3,
            decay: 1e-4,
            every: 5,
            warm: 0.5,
            shuffled: false,
        }
    }
}

/// What is known of a new row and its two replayed ones.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Triple {
    /// Where they stand in the batch.
    rows: [usize; 3],
    /// Their losses.
    losses: [f64; 3],
    /// Lengths of their logits.
    lengths: [f64; 3],
}

/// The network of weights.
struct WeightingNet {
    net: Weights,
    moments: [Weights; 2],
    steps: i32,
    hidden: usize,
}

/// Tensors of the network, in order.
fn layout(hidden: usize) -> Result<Arc<Layout>> {
    let entry = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
    Ok(Layout::new([
        entry("losses.weight", &[hidden, 3]),
        entry("losses.bias", &[hidden]),
        entry("lengths.weight", &[hidden, 3]),
        entry("lengths.bias", &[hidden]),
        entry("out.weight", &[3, hidden]),
        entry("out.bias", &[3]),
    ])?)
}

impl WeightingNet {
    /// Uniform within `±1/√fan_in`, as the engine's other layers.
    fn new(hidden: usize, key: Key) -> Result<Self> {
        let layout = layout(hidden)?;
        let mut net = Weights::zeros(&layout);
        for entry in layout.entries() {
            let fan_in = if entry.path.starts_with("out") {
                hidden
            } else {
                3
            };
            let bound = 1.0 / (fan_in as f64).sqrt();
            let key = key.sub(&entry.path);
            let values = net.as_mut_slice()[entry.range.clone()].iter_mut();
            (0..)
                .zip(values)
                .for_each(|(i, v)| *v = (bound * (2.0 * key.uniform(i) - 1.0)) as f32);
        }
        let moments = [net.zeros_like(), net.zeros_like()];
        Ok(Self {
            net,
            moments,
            steps: 0,
            hidden,
        })
    }

    /// The hidden units before their activation, of losses and of lengths, and the three weights.
    fn weigh(&self, t: &Triple) -> (Vec<[f64; 2]>, [f64; 3]) {
        let (h, w) = (self.hidden, self.net.as_slice());
        let side = |from: usize, input: &[f64; 3], i: usize| {
            let row = &w[from + 3 * i..from + 3 * i + 3];
            let dot: f64 = row.iter().zip(input).map(|(w, x)| f64::from(*w) * x).sum();
            dot + f64::from(w[from + 3 * h + i])
        };
        let units = (0..h).map(|i| [side(0, &t.losses, i), side(4 * h, &t.lengths, i)]);
        let units: Vec<[f64; 2]> = units.collect();
        let out = |k: usize| {
            let row = &w[8 * h + k * h..][..h];
            let relu = |u: &[f64; 2]| u[0].max(0.0) + u[1].max(0.0);
            let dot: f64 = row
                .iter()
                .zip(&units)
                .map(|(w, u)| f64::from(*w) * relu(u))
                .sum();
            1.0 / (1.0 + (-dot - f64::from(w[11 * h + k])).exp())
        };
        let weights = [out(0), out(1), out(2)];
        (units, weights)
    }

    /// Adds to `into` the gradient of a loss whose slopes by the three weights are `slopes`.
    fn pull_back(&self, t: &Triple, slopes: [f64; 3], into: &mut [f64]) {
        let (h, w) = (self.hidden, self.net.as_slice());
        let (units, weights) = self.weigh(t);
        for k in 0..3 {
            let before = slopes[k] * weights[k] * (1.0 - weights[k]);
            into[11 * h + k] += before;
            for (i, u) in units.iter().enumerate() {
                into[8 * h + k * h + i] += before * (u[0].max(0.0) + u[1].max(0.0));
                let through = before * f64::from(w[8 * h + k * h + i]);
                for (side, (from, input)) in
                    [(0, &t.losses), (4 * h, &t.lengths)].iter().enumerate()
                {
                    if u[side] > 0.0 {
                        for (c, x) in input.iter().enumerate() {
                            into[from + 3 * i + c] += through * x;
                        }
                        into[from + 3 * h + i] += through;
                    }
                }
            }
        }
    }

    /// A step of Adam with the decay in the gradient.
    fn learn(&mut self, gradient: &[f64], rate: f64, decay: f64) {
        self.steps = self.steps.saturating_add(1);
        let (beta1, beta2): (f64, f64) = (0.9, 0.999);
        let gradient: Vec<f32> = gradient.iter().map(|g| *g as f32).collect();
        let [m, v] = &mut self.moments;
        optim::adam(
            self.net.as_mut_slice(),
            &gradient,
            m.as_mut_slice(),
            v.as_mut_slice(),
            optim::AdamStep {
                lr: rate as f32,
                beta1: beta1 as f32,
                beta2: beta2 as f32,
                eps: 1e-8,
                l2: decay as f32,
                decoupled: 0.0,
                correction1: (1.0 - beta1.powi(self.steps)) as f32,
                correction2: (1.0 - beta2.powi(self.steps)) as f32,
            },
        );
    }
}

/// The rows of a support, in the order of the batch.
fn of_support(batch: &Batch, name: &str) -> Vec<usize> {
    let rows = &batch.rows;
    let is = |i: &usize| rows.supports[usize::from(rows.support[*i])] == name;
    (0..rows.len()).filter(is).collect()
}

/// Cross-entropy of row `i` within its class set.
fn label_loss(batch: &Batch, z: &[f32], i: usize) -> f64 {
    let set = batch.allowed(i);
    let competes = |c: &usize| set.is_none_or(|set| set[*c]);
    let of = || (0..z.len()).filter(competes).map(|c| f64::from(z[c]));
    let max = of().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = of().map(|v| (v - max).exp()).sum();
    max + sum.ln() - f64::from(z[batch.rows.labels[i] as usize])
}

/// Mean squared distance of row `i` to its stored logits.
fn logit_loss(batch: &Batch, z: &[f32], i: usize) -> f64 {
    let stored = batch.stored_logits.as_deref().unwrap_or_default();
    let row = stored.get(i * z.len()..(i + 1) * z.len()).unwrap_or(z);
    let squares = z
        .iter()
        .zip(row)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    squares.sum::<f64>() / z.len() as f64
}

/// The triples of a batch, as its logits have them; a row that lacks a partner is in none.
fn triples(batch: &Batch, logits: &[f32]) -> Vec<Triple> {
    let width = logits.len() / batch.rows.len().max(1);
    let z = |i: usize| &logits[i * width..(i + 1) * width];
    let [new, held, labelled] = ["new", "replay:a", "replay:b"].map(|name| of_support(batch, name));
    let rows = new.into_iter().zip(held).zip(labelled);
    rows.map(|((a, b), c)| {
        let length = |i: usize| {
            z(i).iter()
                .map(|v| f64::from(*v).powi(2))
                .sum::<f64>()
                .sqrt()
        };
        Triple {
            rows: [a, b, c],
            losses: [
                label_loss(batch, z(a), a),
                logit_loss(batch, z(b), b),
                label_loss(batch, z(c), c),
            ],
            lengths: [length(a), length(b), length(c)],
        }
    })
    .collect()
}

/// The plugin.
pub struct Relational {
    settings: RelationalSettings,
    weighting: Option<WeightingNet>,
}

impl Relational {
    /// A plugin with these settings.
    pub fn new(settings: RelationalSettings) -> Self {
        Self {
            settings,
            weighting: None,
        }
    }

    /// (1, α, β) for the rows of the three supports.
    fn fixed(&self, batch: &Batch) -> Vec<f32> {
        let names = batch.rows.supports.iter().map(|name| match name.as_str() {
            "replay:a" => self.settings.alpha as f32,
            "replay:b" => self.settings.beta as f32,
            _ => 1.0,
        });
        let of: Vec<f32> = names.collect();
        let rows = batch.rows.support.iter();
        rows.map(|s| of[usize::from(*s)]).collect()
    }
}

/// The row weights of a batch: the weighting net's for its triples, `fixed` for the others.
fn weighed(weighting: &WeightingNet, triples: &[Triple], fixed: &[f32]) -> Vec<f32> {
    let mut weights = fixed.to_vec();
    for t in triples {
        let (_, w) = weighting.weigh(t);
        t.rows
            .iter()
            .zip(w)
            .for_each(|(i, w)| weights[*i] = w as f32);
    }
    weights
}

/// The two losses on remembered rows that the weighting net learns from.
fn memory_loss() -> Objective {
    Objective {
        terms: vec![
            presets::logits_l2("replay:a", Normalisation::ElementMean),
            presets::cross_entropy("replay:b"),
        ],
        reduction: Reduction::SumOfMeans,
    }
}

/// The gradient by the weighting net's numbers of the loss on `memory` after the step on `batch`.
fn ahead(
    weighting: &WeightingNet,
    scene: &mut Scene,
    batch: &mut Batch,
    memory: &Batch,
    found: &[Triple],
    fixed: &[f32],
) -> Result<Vec<f64>> {
    let now = scene.oracle.model.weights();
    // The step ahead is one of a copy: running statistics stay as they are.
    let buffers = scene.oracle.model.buffers().clone();
    let mut gradient = now.zeros_like();
    batch.rows.weight = Some(weighed(weighting, found, fixed));
    (scene.oracle).gradient(scene.objective, batch, None, &mut gradient)?;
    let mut later = now.clone();
    later.axpy(-scene.lr as f32, &gradient);
    (scene.oracle).gradient(&memory_loss(), memory, Some(&later), &mut gradient)?;
    scene.oracle.model.set_buffers(buffers)?;
    // Every row's slope along it, by a difference short against the weights.
    let length = gradient.norm();
    let mut into = vec![0.0; weighting.net.as_slice().len()];
    if length == 0.0 {
        return Ok(into);
    }
    let epsilon = 0.01 / length;
    let along = |oracle: &mut Oracle, step: f64| -> Result<Vec<Triple>> {
        let mut there = now.clone();
        there.axpy(step as f32, &gradient);
        oracle.model.set_weights(&there)?;
        let logits = oracle.forward(batch).0;
        Ok(triples(batch, &logits))
    };
    let above = along(scene.oracle, epsilon)?;
    let below = along(scene.oracle, -epsilon)?;
    scene.oracle.model.set_weights(&now)?;
    let counts = ["new", "replay:a", "replay:b"].map(|name| of_support(batch, name).len() as f64);
    for ((t, above), below) in found.iter().zip(above).zip(below) {
        let slope = |k: usize| {
            let product = (above.losses[k] - below.losses[k]) / (2.0 * epsilon);
            -scene.lr * product / counts[k]
        };
        weighting.pull_back(t, [slope(0), slope(1), slope(2)], &mut into);
    }
    Ok(into)
}

impl Plugin for Relational {
    fn name(&self) -> &'static str {
        "relational"
    }

    fn before_step(&mut self, scene: &mut Scene, batch: &mut Batch) -> Result<()> {
        let fixed = self.fixed(batch);
        batch.rows.weight = Some(fixed.clone());
        if scene.experience == 0 {
            return Ok(());
        }
        let s = &self.settings;
        let warm = (scene.in_experience as f64) < s.warm * scene.steps as f64;
        let learns = (scene.in_experience + 1).is_multiple_of(s.every.max(1));
        if warm && !learns {
            return Ok(());
        }
        let logits = scene.oracle.forward(batch).0;
        let mut found = triples(batch, &logits);
        if self.weighting.is_none() {
            self.weighting = Some(WeightingNet::new(
                s.hidden,
                scene.key.sub("relational net"),
            )?);
        }
        let Some(weighting) = self.weighting.as_mut().filter(|_| !found.is_empty()) else {
            return Ok(());
        };
        if learns {
            let slots = |scene: &Scene, name: &str| -> Result<Vec<u32>> {
                let size = scene.recipe.train.batch;
                let Some(replay) = &scene.replay else {
                    return Ok(Vec::new());
                };
                let drawn = replay
                    .memory
                    .draw(name, Select::Uniform, size, scene.step)?;
                Ok(drawn.slots)
            };
            let (a, b) = (slots(scene, "ahead:a")?, slots(scene, "ahead:b")?);
            let mut collect = crate::batch::Collect::default();
            if let Some(replay) = scene.replay.as_deref() {
                replay.add_slots(&mut collect, "replay:a", &a)?;
                replay.add_slots(&mut collect, "replay:b", &b)?;
            }
            let memory = scene.finish(collect);
            let gradient = ahead(weighting, scene, batch, &memory, &found, &fixed)?;
            weighting.learn(&gradient, s.rate, s.decay);
        }
        if !warm && s.shuffled {
            // Who gets whose weights: drawn by who the new rows are.
            let key = scene.key.sub("relational shuffle").at(scene.step);
            let mut others = found.clone();
            key.order(&mut others, |t| batch.rows.ids[t.rows[0]].mix());
            let rows: Vec<[usize; 3]> = found.iter().map(|t| t.rows).collect();
            found = others;
            found
                .iter_mut()
                .zip(rows)
                .for_each(|(t, rows)| t.rows = rows);
        }
        batch.rows.weight = Some(match warm {
            true => fixed,
            false => weighed(weighting, &found, &fixed),
        });
        Ok(())
    }

    fn keep(&self) -> Result<Kept> {
        let Some(weighting) = &self.weighting else {
            return Ok(Kept::default());
        };
        let [m, v] = &weighting.moments;
        let named = [("net", &weighting.net), ("mean", m), ("square", v)];
        let vectors = named.map(|(name, w)| (name.to_owned(), w.clone()));
        Kept::vectors(vectors.to_vec()).with_note(&weighting.steps)
    }

    fn restore(&mut self, mut kept: Kept, _oracle: &mut Oracle) -> Result<()> {
        if kept.vectors.is_empty() {
            self.weighting = None;
            return Ok(());
        }
        let layout = layout(self.settings.hidden)?;
        let mut take = |name: &str| {
            let found = kept.take(name).map(Weights::into_vec).unwrap_or_default();
            Ok::<_, Error>(Weights::from_vec(&layout, found)?)
        };
        let (net, moments) = (take("net")?, [take("mean")?, take("square")?]);
        self.weighting = Some(WeightingNet {
            net,
            moments,
            steps: kept.note()?,
            hidden: self.settings.hidden,
        });
        Ok(())
    }

    fn bytes(&self) -> u64 {
        let numbers = |j: &WeightingNet| 3 * j.net.as_slice().len() as u64;
        self.weighting.as_ref().map_or(0, |j| 4 * numbers(j))
    }
}

/// Relational replay in the table of methods.
pub const RELATIONAL: MethodCard = MethodCard {
    name: "relational",
    aliases: &["rer", "relational-experience-replay"],
    title: "Relational experience replay",
    source: "Wang et al., IEEE TMM 2024",
    card: "S069",
    family: "replay",
    use_it: "a small memory and several passes",
    not_for: "claims without its controls: weights below 1 lower the learning rate too",
    stores: "`capacity` examples and their logits, and some 180 numbers",
    costs: "DER++'s rows, a forward pass a step, two gradients and two forward passes every `every` steps",
    defaults: || settings_beside(200, &RelationalSettings::default()),
    expand: |with, _| {
        let (memory, own) = memory_and(with, KeepSpec::Reservoir, 1)?;
        let whole = || draw(SelectSpec::Uniform, 0);
        Ok(Parts {
            memory: Some(memory),
            draw: BTreeMap::from([("a".to_owned(), whole()), ("b".to_owned(), whole())]),
            term: vec![
                cross_entropy("new", 1.0),
                TermSpec {
                    loss: LossSpec::LogitsL2,
                    classes: ClassesSpec::All,
                    ..cross_entropy("replay:a", 1.0)
                },
                cross_entropy("replay:b", 1.0),
            ],
            plugin: vec![PluginSpec::Relational(own)],
            reduction: Some(ReductionSpec::SumOfMeans),
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging;

    fn triple(seed: u64) -> Triple {
        let mut s = Key::new(seed, "triple").stream();
        let mut positive = || [s.normal().abs(), s.normal().abs(), s.normal().abs()];
        Triple {
            rows: [0, 1, 2],
            losses: positive(),
            lengths: positive(),
        }
    }

    /// The net written out, and its slopes by finite differences.
    #[test]
    fn the_net_is_the_published_one() {
        let weighting = WeightingNet::new(5, Key::new(4, "net")).expect("a layout");
        let of = |w: &[f64], t: &Triple| -> [f64; 3] {
            let (a, rest) = w.split_at(15);
            let (a0, rest) = rest.split_at(5);
            let (b, rest) = rest.split_at(15);
            let (b0, rest) = rest.split_at(5);
            let (c, c0) = rest.split_at(15);
            let line = |m: &[f64], i: usize, x: &[f64; 3]| {
                m[3 * i] * x[0] + m[3 * i + 1] * x[1] + m[3 * i + 2] * x[2]
            };
            let unit = |i: usize| {
                (line(a, i, &t.losses) + a0[i]).max(0.0) + (line(b, i, &t.lengths) + b0[i]).max(0.0)
            };
            [0, 1, 2].map(|k| {
                let z: f64 = (0..5).map(|i| c[5 * k + i] * unit(i)).sum::<f64>() + c0[k];
                1.0 / (1.0 + (-z).exp())
            })
        };
        let wide: Vec<f64> = weighting
            .net
            .as_slice()
            .iter()
            .map(|v| f64::from(*v))
            .collect();
        for seed in 0..5 {
            let t = triple(seed);
            let (found, want) = (weighting.weigh(&t).1, of(&wide, &t));
            assert!(found.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-12));
            let slopes = [0.3, -1.2, 0.7];
            let mut gradient = vec![0.0; wide.len()];
            weighting.pull_back(&t, slopes, &mut gradient);
            for j in 0..wide.len() {
                let at = |step: f64| {
                    let mut w = wide.clone();
                    w[j] += step;
                    of(&w, &t)
                        .iter()
                        .zip(slopes)
                        .map(|(w, s)| w * s)
                        .sum::<f64>()
                };
                let want = (at(1e-6) - at(-1e-6)) / 2e-6;
                assert!(
                    (gradient[j] - want).abs() < 1e-8,
                    "{j}: {} {want}",
                    gradient[j]
                );
            }
        }
    }

    /// The slope through the step ahead, without a tape, against the loss on the memory after
    /// whole steps made with other numbers in the net.
    #[test]
    fn the_step_ahead_is_differentiated() {
        let sets = [
            ("with.capacity", "40"),
            ("stream.split", "2"),
            ("train.lr", "0.3"),
        ];
        let mut s = staging::run(staging::session("relational", "class", &sets));
        staging::jolt(&mut s.oracle.model, 0.3);
        staging::act(&mut s, 1, |scene| {
            let pick = |from: u32| (from..from + 8).collect::<Vec<u32>>();
            let new = scene.train()[..8].to_vec();
            let draws: [(&str, &[u32]); 2] = [("replay:a", &pick(0)), ("replay:b", &pick(8))];
            let mut batch = staging::mixed(scene, &new, &draws);
            let draws: [(&str, &[u32]); 2] = [("replay:a", &pick(16)), ("replay:b", &pick(24))];
            let memory = staging::mixed(scene, &[], &draws);
            let weighting = WeightingNet::new(3, Key::new(2, "net")).expect("a layout");
            let fixed = vec![1.0; batch.rows.len()];
            let logits = scene.oracle.forward(&batch).0;
            let found = triples(&batch, &logits);
            assert_eq!(found.len(), 8);
            let gradient = ahead(&weighting, scene, &mut batch, &memory, &found, &fixed);
            let gradient = gradient.expect("a gradient");
            let now = scene.oracle.model.weights();
            let mut after = |net: Weights| {
                let weighting = WeightingNet {
                    moments: [net.zeros_like(), net.zeros_like()],
                    net,
                    steps: 0,
                    hidden: 3,
                };
                batch.rows.weight = Some(weighed(&weighting, &found, &fixed));
                let mut step = now.zeros_like();
                let done = (scene.oracle).gradient(scene.objective, &batch, None, &mut step);
                done.expect("a gradient");
                let mut later = now.clone();
                later.axpy(-scene.lr as f32, &step);
                scene.oracle.model.set_weights(&later).expect("its layout");
                let loss = scene.oracle.value(&memory_loss(), &memory);
                scene.oracle.model.set_weights(&now).expect("its layout");
                loss.expect("a value").total
            };
            let mut largest = 0.0f64;
            for j in 0..gradient.len() {
                let mut at = |step: f32| {
                    let mut net = weighting.net.clone();
                    net.as_mut_slice()[j] += step;
                    after(net)
                };
                let want = (at(2e-3) - at(-2e-3)) / 4e-3;
                let scale = gradient.iter().fold(0.0f64, |a, g| a.max(g.abs()));
                assert!(
                    (gradient[j] - want).abs() < 0.03 * scale,
                    "{j}: {} {want}",
                    gradient[j]
                );
                largest = largest.max(want.abs());
            }
            assert!(largest > 1e-3, "{largest}");
        });
    }

    /// With fixed weights to the end a run is one of DER++, whatever the weighting net learns beside it.
    #[test]
    fn it_is_der_plus_plus_until_the_weighting_net_speaks() {
        let end = |method: &str, more: (&str, &str)| {
            let sets = [
                ("with.capacity", "40"),
                ("with.alpha", "0.2"),
                ("with.beta", "0.5"),
                more,
            ];
            let s = staging::run(staging::session(method, "class", &sets));
            s.oracle.model.weights()
        };
        let plain = end("der++", ("with.replay", "0"));
        let apart = |other: &Weights| plain.squared_distance(other).sqrt() / plain.norm();
        let fixed = apart(&end("relational", ("with.warm", "1.0")));
        let weighed = apart(&end("relational", ("with.warm", "0.5")));
        assert!(fixed < 1e-4 && weighed > 1e-2, "{fixed} {weighed}");
    }
}
