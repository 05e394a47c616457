//! Memorisation-aware training.
//!
//! **What it does.** Gives the model, as a fixed bias on its logits, what networks that never saw an
//! example already say of it, so that the trained part must explain the rest and gains nothing from
//! a rule of thumb plus memorised exceptions.
//! **Source.** "The pitfalls of memorization: when memorization hurts generalization", 2024 (card
//! S101); held-out predictions by cross-risk training, Pezeshki et al. 2023.
//! **Equation.** Two networks are each trained on a half of the experience, drawn by key; at every
//! step the label of a row becomes what the *other* network says of it, of confidence c, with chance
//! `(c − 1/K) K/(K−1)`. With o the held-out logits, `P_i = softmax(o_i/τ)`,
//! `M_ab = mean_i P_i[a] 1[y_i = b]` and `M_b|a = M_ab / Σ_b M_ab`:
//! `L = CE(z_i + ln(P_i M_·|· + 10⁻⁶), y_i)`; in use z stands alone.
//! **Use it** where a spurious feature is easier than the rule and holds for most examples. **Not**
//! where held-out predictions are simply good: what they know is taken out of the training signal.
//! **Stores** a bias an example and output, of one experience. **Costs** two trainings on half of the
//! experience, of `epochs` passes, before each experience.
//!
//! The bias is made once of the whole experience; the paper's code forms M anew in each batch.

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::methods::er::cross_entropy;
use crate::methods::{MethodCard, settings};
use crate::optimizer::Optimizer;
use crate::oracle::Oracle;
use crate::plugin::{Kept, Plugin, Scene};
use crate::seen::outputs;
use crate::spec::{LossSpec, Parts, PluginSpec, TermSpec};
use ebb_data::Item;
use ebb_net::Model;
use ebb_space::{Key, Layout, Weights};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The numbers of the plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct MatSettings {
    /// `τ`, the temperature of held-out predictions.
    pub tau: f64,
    /// Passes that the held-out networks are trained for.
    pub epochs: usize,
    /// Learning rate of theirs; 0: as `train.lr`.
    pub lr: f64,
    /// A control: the biases are dealt anew, and about one example keeps its own.
    pub permuted: bool,
}

impl Default for MatSettings {
    fn default() -> Self {
        Self {
            tau: 0.1,
            epochs: 1,
            lr: 0.0,
            permuted: false,
        }
    }
}

/// The chance that a label becomes a held-out prediction of confidence `c` among `k` classes.
pub fn flip_chance(c: f64, k: usize) -> f64 {
    let k = k as f64;
    ((c - 1.0 / k) * k / (k - 1.0)).clamp(0.0, 1.0)
}

/// `ln(P_i M_·|· + 10⁻⁶)` of held-out logits, `[rows, outputs]`. Logits of `−∞` are no classes.
pub fn biases(held_out: &[f64], labels: &[u32], outputs: usize, tau: f64) -> Vec<f64> {
    let softmax = |o: &[f64]| -> Vec<f64> {
        let max = o.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let e: Vec<f64> = o.iter().map(|v| ((v - max) / tau).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.into_iter().map(|e| e / sum).collect()
    };
    let p: Vec<Vec<f64>> = held_out.chunks_exact(outputs).map(softmax).collect();
    let mut given = vec![vec![0.0; outputs]; outputs];
    for (p, label) in p.iter().zip(labels) {
        for (row, p) in given.iter_mut().zip(p) {
            row[*label as usize] += p;
        }
    }
    for row in &mut given {
        let sum: f64 = row.iter().sum();
        // A class that is never predicted weighs nothing below.
        if sum > 0.0 {
            row.iter_mut().for_each(|m| *m /= sum);
        }
    }
    let bias = |p: &[f64], b: usize| {
        let says: f64 = p.iter().zip(&given).map(|(p, row)| p * row[b]).sum();
        (says + 1e-6).ln()
    };
    let each = p
        .iter()
        .map(|p| (0..outputs).map(|b| bias(p, b)).collect::<Vec<f64>>());
    each.flatten().collect()
}

/// The plugin.
pub struct Mat {
    settings: MatSettings,
    /// The bias of each training example of the experience, by the digest of its id.
    biases: BTreeMap<u64, Vec<f32>>,
}

/// Rows of one forward pass.
const CHUNK: usize = 256;

impl Mat {
    /// A plugin with these settings.
    pub fn new(settings: MatSettings) -> Self {
        Self {
            settings,
            biases: BTreeMap::new(),
        }
    }

    /// Held-out logits of the experience's examples, `[rows, outputs]`, those of classes that do not
    /// compete at `−∞`.
    fn held_out(&self, scene: &mut Scene, items: &[Item], key: Key) -> Result<Vec<f64>> {
        let side = |item: &Item| usize::from(key.sub("half").uniform(item.id.mix()) < 0.5);
        let model = &scene.oracle.model;
        let (network, device) = (model.network().clone(), model.device().clone());
        let mut halves = [0u64, 1].map(|half| {
            let key = key.sub("network").at(half);
            Oracle::new(Model::new(network.clone(), key, &device), key)
        });
        let mut optimizers = [0, 1].map(|_| {
            let settings = scene.recipe.train.optimizer_settings();
            Optimizer::new(settings, network.layout())
        });
        let lr = if self.settings.lr > 0.0 {
            self.settings.lr
        } else {
            scene.recipe.train.lr
        };
        let mut gradient = Weights::zeros(network.layout());
        let mut order = items.to_vec();
        let mut step = 0;
        for epoch in 0..self.settings.epochs as u64 {
            key.sub("order").at(epoch).order(&mut order, |i| i.id.mix());
            for rows in order.chunks(scene.recipe.train.batch) {
                step += 1;
                let flip = key.sub("flip").at(step);
                let mut mine = [Vec::new(), Vec::new()];
                rows.iter().for_each(|item| mine[side(item)].push(*item));
                // What the other half says, before either moves.
                let mut batches = Vec::new();
                for (half, items) in mine.iter().enumerate().filter(|(_, i)| !i.is_empty()) {
                    let mut batch = scene.batch_of("all", items);
                    let (z, _) = halves[1 - half].forward(&batch);
                    flip_labels(&mut batch, &z, flip);
                    batches.push((half, batch));
                }
                for (half, batch) in batches {
                    halves[half].key = flip.at(half as u64);
                    let loss = scene.remembering;
                    halves[half].gradient(loss, &batch, None, &mut gradient)?;
                    optimizers[half].step(&mut halves[half].model, &gradient, lr);
                }
            }
        }
        let mut logits = Vec::new();
        for items in items.chunks(CHUNK) {
            let batch = scene.batch_of("all", items);
            let answers = [0, 1].map(|half: usize| halves[half].forward(&batch).0);
            let outputs = answers[0].len() / items.len();
            for (i, item) in items.iter().enumerate() {
                let allowed = batch.allowed(i);
                let z = &answers[1 - side(item)][i * outputs..][..outputs];
                logits.extend(z.iter().enumerate().map(|(c, z)| {
                    match allowed.is_none_or(|set| set[c]) {
                        true => f64::from(*z),
                        false => f64::NEG_INFINITY,
                    }
                }));
            }
        }
        for half in &halves {
            let (all, own) = (&mut scene.oracle.meter, half.meter);
            all.gradient_calls += own.gradient_calls;
            all.forward_rows += own.forward_rows;
            all.backward_rows += own.backward_rows;
        }
        Ok(logits)
    }
}

/// Puts what held-out logits say in the place of labels, by chance.
fn flip_labels(batch: &mut Batch, logits: &[f32], key: Key) {
    let rows = batch.rows.len();
    let outputs = logits.len() / rows.max(1);
    for i in 0..rows {
        let z = &logits[i * outputs..][..outputs];
        let allowed = batch.allowed(i);
        let competing = (0..outputs).filter(|c| allowed.is_none_or(|set| set[*c]));
        let competing: Vec<usize> = competing.collect();
        let Some(best) = (competing.iter().copied()).reduce(|a, b| if z[b] > z[a] { b } else { a })
        else {
            continue;
        };
        let sum: f64 = (competing.iter())
            .map(|c| f64::from(z[*c] - z[best]).exp())
            .sum();
        let chance = flip_chance(1.0 / sum, competing.len());
        if key.uniform(batch.ids[i].mix()) < chance {
            batch.rows.labels[i] = best as u32;
        }
    }
}

impl Plugin for Mat {
    fn name(&self) -> &'static str {
        "memorisation-aware"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        let key = scene.key.sub("mat").at(scene.experience as u64);
        let items = scene.train().to_vec();
        let logits = self.held_out(scene, &items, key)?;
        let outputs = outputs(scene.stream);
        let labels: Vec<u32> = items
            .iter()
            .map(|i| crate::seen::column(scene.stream, i))
            .collect();
        let biases = biases(&logits, &labels, outputs, self.settings.tau);
        let mut owners: Vec<u64> = items.iter().map(|i| i.id.mix()).collect();
        if self.settings.permuted {
            key.sub("permuted").order(&mut owners, |id| *id);
        }
        let rows = biases.chunks_exact(outputs);
        let rows = rows.map(|row| row.iter().map(|b| *b as f32).collect());
        self.biases = owners.into_iter().zip(rows).collect();
        Ok(())
    }

    fn before_step(&mut self, scene: &mut Scene, batch: &mut Batch) -> Result<()> {
        let outputs = outputs(scene.stream);
        let mut shifts = vec![0.0; batch.rows.len() * outputs];
        for (shift, id) in shifts.chunks_exact_mut(outputs).zip(&batch.ids) {
            if let Some(bias) = self.biases.get(&id.mix()) {
                shift.copy_from_slice(bias);
            }
        }
        batch.shifts = Some(shifts);
        Ok(())
    }

    fn keep(&self) -> Result<Kept> {
        let ids: Vec<u64> = self.biases.keys().copied().collect();
        let Some(outputs) = self.biases.values().next().map(Vec::len) else {
            return Kept::default().with_note(&ids);
        };
        let layout = Layout::new([("bias".to_owned(), vec![ids.len(), outputs])])?;
        let biases = self.biases.values().flatten().copied().collect();
        let biases = Weights::from_vec(&layout, biases)?;
        Kept::vectors(vec![("biases".to_owned(), biases)]).with_note(&ids)
    }

    fn restore(&mut self, mut kept: Kept, oracle: &mut Oracle) -> Result<()> {
        let ids: Vec<u64> = kept.note()?;
        let biases = kept.take("biases").map_or_else(Vec::new, Weights::into_vec);
        let outputs = oracle.model.network().outputs();
        if biases.len() != outputs * ids.len() {
            return Err(Error::Checkpoint {
                path: "a plugin's note".into(),
                reason: format!(
                    "it names {} examples for {} biases",
                    ids.len(),
                    biases.len()
                ),
            });
        }
        let rows = biases.chunks_exact(outputs).map(<[f32]>::to_vec);
        self.biases = ids.into_iter().zip(rows).collect();
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.biases.values().map(|b| 8 + 4 * b.len() as u64).sum()
    }
}

/// Memorisation-aware training in the table of methods.
pub const MAT: MethodCard = MethodCard {
    name: "mat",
    aliases: &["memorisation-aware-training"],
    title: "Memorisation-aware training",
    source: "The pitfalls of memorization, 2024",
    card: "S101",
    family: "objective",
    use_it: "a spurious feature is easier than the rule and holds for most examples",
    not_for: "data where held-out predictions are simply good",
    stores: "a bias an example and output, of one experience",
    costs: "two trainings on half of each experience before it",
    defaults: || settings(&MatSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            term: vec![TermSpec {
                loss: LossSpec::ShiftedCrossEntropy,
                ..cross_entropy("new", 1.0)
            }],
            plugin: vec![PluginSpec::MemorisationAware(crate::methods::read(with)?)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging;

    #[test]
    fn labels_flip_as_often_as_the_prediction_is_sure() {
        assert_eq!(flip_chance(0.5, 2), 0.0);
        assert_eq!(flip_chance(1.0, 10), 1.0);
        assert!((flip_chance(0.55, 10) - 0.5).abs() < 1e-12);
        // Over keys, on a batch: a row of confidence 0.9 among two flips with chance 0.8.
        let mut s = staging::session("fine-tune", "task", &[]);
        staging::act(&mut s, 0, |scene| {
            let items: Vec<Item> = (scene.train().iter().copied())
                .filter(|i| i.label == 0)
                .take(20)
                .collect();
            let logits: Vec<f32> = (0..20 * 10)
                .map(|i| if i % 10 == 1 { 9.0f32.ln() } else { 0.0 })
                .collect();
            let mut flipped = 0;
            for trial in 0..500 {
                let mut batch = scene.batch_of("all", &items);
                flip_labels(&mut batch, &logits, Key::new(trial, "flip"));
                flipped += batch.rows.labels.iter().filter(|l| **l == 1).count();
                assert!(batch.rows.labels.iter().all(|l| *l < 2)); // the row's own head
            }
            let deviation = (10_000.0f64 * 0.8 * 0.2).sqrt();
            assert!(
                (flipped as f64 - 8_000.0).abs() < 4.0 * deviation,
                "{flipped}"
            );
        });
    }

    /// A spurious rule that is right for 9 in 10: the bias says so, whatever the example's label.
    #[test]
    fn the_bias_is_what_the_rule_says_of_the_label() {
        let (n, right) = (200usize, 180usize);
        // The held-out networks say class i % 2, surely; labels agree for the first 180.
        let says = |i: usize| i % 2;
        let label = |i: usize| if i < right { says(i) } else { 1 - says(i) };
        let held_out: Vec<f64> = (0..n)
            .flat_map(|i| [0, 1].map(|c| if c == says(i) { 50.0 } else { 0.0 }))
            .collect();
        let labels: Vec<u32> = (0..n).map(|i| label(i) as u32).collect();
        let b = biases(&held_out, &labels, 2, 0.1);
        for i in 0..n {
            let p = [0, 1].map(|c| b[2 * i + c].exp());
            assert!((p[says(i)] - 0.9).abs() < 1e-5 && (p[1 - says(i)] - 0.1).abs() < 1e-5);
        }
        // With no logits to choose by, it is how often each label occurs; a class that does not
        // compete says nothing and is said nothing of.
        let flat: Vec<f64> = (0..4).flat_map(|_| [1.0, 1.0, f64::NEG_INFINITY]).collect();
        let b = biases(&flat, &[0, 0, 0, 1], 3, 0.1);
        for row in b.chunks_exact(3) {
            let p: Vec<f64> = row.iter().map(|b| b.exp()).collect();
            assert!((p[0] - 0.75).abs() < 1e-5 && (p[1] - 0.25).abs() < 1e-5 && p[2] < 2e-6);
        }
    }

    /// `CE(z + b, y)` on the new rows, written out; held-out logits come from the other half.
    #[test]
    fn the_loss_is_the_equation() {
        let mut s = staging::session("mat", "class", &[]);
        let mut plugin = Mat::new(MatSettings::default());
        staging::act(&mut s, 0, |scene| {
            plugin.begin_experience(scene).expect("held-out networks");
            assert_eq!(plugin.biases.len(), scene.train().len());
            let items = scene.train()[..7].to_vec();
            let mut batch = scene.batch_of("new", &items);
            plugin.before_step(scene, &mut batch).expect("shifts");
            let (z, _) = scene.oracle.forward(&batch);
            let mut want = 0.0;
            for (i, item) in items.iter().enumerate() {
                let b = &plugin.biases[&item.id.mix()];
                let z: Vec<f64> = (z[i * 10..][..10].iter().zip(b))
                    .map(|(z, b)| f64::from(*z) + f64::from(*b))
                    .collect();
                let lse = z.iter().map(|v| v.exp()).sum::<f64>().ln();
                want += (lse - z[batch.rows.labels[i] as usize]) / 7.0;
            }
            let value = scene
                .oracle
                .evaluate(scene.objective, &batch)
                .expect("a pass");
            assert!((value.value.total - want).abs() < 1e-5);
        });
        let kept = plugin.keep().expect("kept");
        let mut again = Mat::new(MatSettings::default());
        again.restore(kept, &mut s.oracle).expect("restored");
        assert_eq!(again.biases, plugin.biases);
    }
}
