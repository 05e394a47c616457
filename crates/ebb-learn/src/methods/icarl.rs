//! iCaRL: incremental classifier and representation learning.
//!
//! **What it does.** Keeps, of every class, the examples whose mean follows the class mean best,
//! trains on them beside the new data with one sigmoid a class, the old ones towards the model
//! before, and answers with the class whose exemplars lie nearest on average.
//! **Source.** Rebuffi et al., CVPR 2017, "iCaRL: Incremental classifier and representation
//! learning" (peers' protocol).
//! **Equation.** Over new and remembered rows, with σ the sigmoid and g the model before:
//! `L = −Σ_{new c} [1_{y=c} ln σ(z_c) + 1_{y≠c} ln(1 − σ(z_c))]
//!      −Σ_{old c} [σ(g_c) ln σ(z_c) + (1 − σ(g_c)) ln(1 − σ(z_c))]`.
//! With φ the features at length 1 and μ the mean of a class's φ at length 1, its exemplars are
//! `p_k = argmin_x ‖μ − (φ(x) + Σ_{j<k} φ(p_j)) / k‖`, each example once; of n classes each has the
//! first `⌊capacity/n⌋`. The answer is `argmin_c ‖φ(x) − μ_c‖` with μ_c of the exemplars.
//! **Use it** where classes come in groups, each once, and some examples may be kept. **Not** on
//! domain-incremental streams: the exemplars of a class that comes again are chosen anew.
//! **Stores** `capacity` examples, a copy of the weights and a mean a class. **Costs** the
//! remembered rows, a forward pass of the model before, and an experience a forward pass over its
//! examples and the choice, `O(capacity/n · examples · features)` a class.
//!
//! Exemplars are chosen at the end of an experience, so the nearest mean answers at the ends alone;
//! on the way (the panel) the network's own outputs do.

use crate::error::{Error, Result};
use crate::methods::er::draw;
use crate::methods::{MethodCard, memory_and, settings_beside};
use crate::oracle::{Oracle, Readout};
use crate::plugin::{Kept, Plugin, Scene};
use crate::replay::{Offered, Replay};
use crate::seen::column;
use crate::spec::{
    ClassesSpec, KeepSpec, LossSpec, Parts, PluginSpec, ReductionSpec, SelectSpec, TermSpec,
};
use ebb_data::Item;
use ebb_space::{Layout, Weights};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What answers at the ends of experiences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The class with the nearest mean of exemplars.
    NearestMean,
    /// The network's own outputs (the paper's "hybrid 1").
    Outputs,
}

/// The numbers of the plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct HerdingSettings {
    /// What answers.
    pub answer: Answer,
}

impl Default for HerdingSettings {
    fn default() -> Self {
        Self {
            answer: Answer::NearestMean,
        }
    }
}

/// The plugin.
pub struct Herding {
    settings: HerdingSettings,
    /// `μ_c` by output, while it answers.
    means: Means,
}

type Means = BTreeMap<u32, Vec<f32>>;

/// Rows of one forward pass.
const CHUNK: usize = 256;

impl Herding {
    /// A plugin with these settings.
    pub fn new(settings: HerdingSettings) -> Self {
        Self {
            settings,
            means: Means::new(),
        }
    }

    fn answer(&self, oracle: &mut Oracle) {
        oracle.readout = (!self.means.is_empty()).then(|| {
            Box::new(NearestMean {
                means: self.means.clone(),
            }) as Box<dyn Readout>
        });
    }
}

/// Classifies by the nearest of some means of unit features.
struct NearestMean {
    means: Means,
}

impl Readout for NearestMean {
    fn scores(&self, features: &[f32], rows: usize, outputs: usize) -> Vec<f32> {
        let width = features.len() / rows.max(1);
        let mut scores = vec![f32::MIN; rows * outputs];
        for (row, scores) in features
            .chunks_exact(width.max(1))
            .zip(scores.chunks_exact_mut(outputs))
        {
            let mut unit = row.to_vec();
            normalise(&mut unit);
            for (class, mean) in &self.means {
                let pairs = unit.iter().zip(mean);
                let far: f64 = pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum();
                scores[*class as usize] = -far as f32;
            }
        }
        scores
    }
}

/// Brings a vector to length 1; zero stays zero.
fn normalise(x: &mut [f32]) {
    let norm = (x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>()).sqrt();
    if norm > 0.0 {
        x.iter_mut()
            .for_each(|v| *v = (f64::from(*v) / norm) as f32);
    }
}

/// The mean of rows, at length 1.
fn mean(rows: &[f32], width: usize) -> Vec<f32> {
    let mut sum = vec![0.0f64; width];
    for row in rows.chunks_exact(width) {
        (sum.iter_mut().zip(row)).for_each(|(s, v)| *s += f64::from(*v));
    }
    let n = (rows.len() / width).max(1) as f64;
    let mut mean: Vec<f32> = sum.iter().map(|s| (s / n) as f32).collect();
    normalise(&mut mean);
    mean
}

/// The first `m` rows of unit `features` by herding, in the order of choice; of equals the first.
pub fn herd(features: &[f32], width: usize, m: usize) -> Vec<usize> {
    let mean = mean(features, width);
    let rows: Vec<&[f32]> = features.chunks_exact(width).collect();
    let squares: Vec<f32> = rows.iter().map(|row| dot(row, row)).collect();
    // k (μ_k − μ) without the row to come: what it has to undo.
    let mut excess = vec![0.0f64; width];
    let mut left: Vec<usize> = (0..rows.len()).collect();
    let mut order = Vec::with_capacity(m.min(rows.len()));
    while order.len() < m && !left.is_empty() {
        (excess.iter_mut().zip(&mean)).for_each(|(e, m)| *e -= f64::from(*m));
        let pull: Vec<f32> = excess.iter().map(|e| *e as f32).collect();
        // ‖φ + e‖² without ‖e‖², which all share.
        let distance = |i: usize| squares[i] + 2.0 * dot(rows[i], &pull);
        let mut best = (0, f32::INFINITY);
        for (at, i) in left.iter().enumerate() {
            let d = distance(*i);
            if d < best.1 {
                best = (at, d);
            }
        }
        let chosen = left.remove(best.0);
        (excess.iter_mut().zip(rows[chosen])).for_each(|(e, v)| *e += f64::from(*v));
        order.push(chosen);
    }
    order
}

/// A dot product in eight lanes, always in the same order.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = (a8.remainder().iter().zip(b8.remainder()))
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in a8.zip(b8) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// Unit features of training examples.
fn features(scene: &mut Scene, items: &[Item]) -> Vec<f32> {
    let mut features = Vec::new();
    for items in items.chunks(CHUNK) {
        let batch = scene.batch_of("exemplars", items);
        features.extend(scene.oracle.forward(&batch).1);
    }
    unit_rows(features, items.len())
}

fn unit_rows(mut features: Vec<f32>, rows: usize) -> Vec<f32> {
    let width = (features.len() / rows.max(1)).max(1);
    features.chunks_exact_mut(width).for_each(normalise);
    features
}

/// The slots of each output's exemplars, in the order of choice.
fn exemplars(replay: &Replay) -> BTreeMap<u32, Vec<u32>> {
    let mut slots: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for slot in replay.memory.slots_where(|_| true) {
        let label = replay.memory.metas()[slot as usize].label;
        slots.entry(label).or_default().push(slot);
    }
    slots
}

/// Makes room and takes in the exemplars of the experience's classes.
fn choose(scene: &mut Scene) -> Result<()> {
    let (stream, experience, step) = (scene.stream.clone(), scene.experience, scene.step);
    let mut classes: BTreeMap<u32, Vec<Item>> = BTreeMap::new();
    let mut met = BTreeSet::new();
    // An example may occur twice where earlier experiences are mixed in.
    for item in scene.train().iter().filter(|i| met.insert(i.id.mix())) {
        let class = classes.entry(column(&stream, item)).or_default();
        class.push(*item);
    }
    let Some(replay) = scene.replay.as_deref_mut() else {
        return Ok(());
    };
    let kept = exemplars(replay);
    let seen: BTreeSet<u32> = kept.keys().chain(classes.keys()).copied().collect();
    let capacity = replay.memory.config().capacity;
    let share = capacity / seen.len().max(1);
    if share == 0 {
        return Err(Error::Recipe {
            reason: format!(
                "herding keeps as many exemplars of every class, and a memory of {capacity} has \
                 no room for {} classes: raise memory.capacity",
                seen.len()
            ),
        });
    }
    let leaves = |(class, slots): (&u32, &Vec<u32>)| {
        let stay = if classes.contains_key(class) {
            0
        } else {
            share
        };
        slots.iter().skip(stay).copied().collect::<Vec<u32>>()
    };
    let evict: Vec<u32> = kept.iter().flat_map(leaves).collect();
    let none = Offered {
        stream: &stream,
        items: &[],
        logits: &[],
        features: &[],
        experience,
        step,
    };
    replay.take_in(&none, &[], &evict)?;
    for items in classes.values() {
        let features = features(scene, items);
        let order = herd(&features, features.len() / items.len(), share);
        let chosen: Vec<Item> = order.into_iter().map(|i| items[i]).collect();
        // The memory takes the records of one task at a time; their order is that of choice.
        for items in chosen.chunk_by(|a, b| a.task == b.task) {
            if let Some(replay) = scene.replay.as_deref_mut() {
                let all: Vec<u32> = (0..items.len() as u32).collect();
                replay.take_in(&Offered { items, ..none }, &all, &[])?;
            }
        }
    }
    Ok(())
}

/// The mean of every class's exemplars, at the present weights.
fn means(scene: &mut Scene) -> Result<Means> {
    let slots = scene.replay.as_deref().map(exemplars).unwrap_or_default();
    let mut means = Means::new();
    for (class, slots) in slots {
        let mut features = Vec::new();
        for slots in slots.chunks(CHUNK) {
            let batch = scene.batch_of_slots("exemplars", slots)?;
            features.extend(scene.oracle.forward(&batch).1);
        }
        let width = features.len() / slots.len();
        means.insert(class, mean(&unit_rows(features, slots.len()), width));
    }
    Ok(means)
}

impl Plugin for Herding {
    fn name(&self) -> &'static str {
        "herding"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        self.means.clear();
        self.answer(scene.oracle);
        Ok(())
    }

    fn end_experience(&mut self, scene: &mut Scene) -> Result<()> {
        choose(scene)?;
        if self.settings.answer == Answer::NearestMean {
            self.means = means(scene)?;
            self.answer(scene.oracle);
        }
        Ok(())
    }

    fn keep(&self) -> Result<Kept> {
        let classes: Vec<u32> = self.means.keys().copied().collect();
        let Some(width) = self.means.values().next().map(Vec::len) else {
            return Kept::default().with_note(&classes);
        };
        let layout = Layout::new([("means".to_owned(), vec![classes.len(), width])])?;
        let means = Weights::from_vec(&layout, self.means.values().flatten().copied().collect())?;
        Kept::vectors(vec![("means".to_owned(), means)]).with_note(&classes)
    }

    fn restore(&mut self, mut kept: Kept, oracle: &mut Oracle) -> Result<()> {
        let classes: Vec<u32> = kept.note()?;
        let means = kept.take("means").map_or_else(Vec::new, Weights::into_vec);
        let width = means.len() / classes.len().max(1);
        if means.len() != width * classes.len() || (width == 0 && !classes.is_empty()) {
            return Err(Error::Checkpoint {
                path: "a plugin's note".into(),
                reason: format!(
                    "{} values are no means of {} classes",
                    means.len(),
                    classes.len()
                ),
            });
        }
        let rows = means.chunks_exact(width.max(1)).map(<[f32]>::to_vec);
        self.means = classes.into_iter().zip(rows).collect();
        self.answer(oracle);
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.means.values().map(|m| 4 * m.len() as u64).sum()
    }
}

/// iCaRL in the table of methods.
pub const ICARL: MethodCard = MethodCard {
    name: "icarl",
    aliases: &["nearest-mean-of-exemplars"],
    title: "Incremental classifier and representation learning",
    source: "Rebuffi et al., CVPR 2017",
    card: "S124",
    family: "replay",
    use_it: "class-incremental streams with known boundaries whose classes come once",
    not_for: "domain-incremental streams, data that may not be kept",
    stores: "`capacity` examples, a copy of the weights and a mean a class",
    costs: "the remembered rows, a forward pass of the model before, and the choice of exemplars",
    defaults: || settings_beside(2000, &HerdingSettings::default()),
    expand: |with, _| {
        let (memory, own) = memory_and(with, KeepSpec::Chosen, 1)?;
        let over = |loss, classes| TermSpec {
            classes,
            ..TermSpec::new("all", loss)
        };
        Ok(Parts {
            memory: Some(memory),
            draw: BTreeMap::from([("exemplars".to_owned(), draw(SelectSpec::Union, 0))]),
            term: vec![
                over(LossSpec::Bernoulli, ClassesSpec::New),
                over(LossSpec::BernoulliDistillation, ClassesSpec::Old),
            ],
            reduction: Some(ReductionSpec::MeanOverRows),
            plugin: vec![PluginSpec::Herding(own)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::evaluate;
    use crate::methods::staging;
    use ebb_space::Key;

    fn unit(rows: usize, width: usize) -> Vec<f32> {
        let key = Key::new(4, "herd");
        let x = (0..rows * width).map(|i| key.normal(i as u64) as f32 + 0.3);
        unit_rows(x.collect(), rows)
    }

    /// Against the definition, written out in f64: at every choice the whole mean of every
    /// candidate set is formed anew.
    #[test]
    fn herding_is_greedy_by_the_definition() {
        let (n, width) = (60, 11);
        let x = unit(n, width);
        let row = |i: usize| x[i * width..(i + 1) * width].iter().map(|v| f64::from(*v));
        let mut mu = vec![0.0; width];
        (0..n).for_each(|i| mu.iter_mut().zip(row(i)).for_each(|(m, v)| *m += v));
        let length = mu.iter().map(|m: &f64| m * m).sum::<f64>().sqrt();
        mu.iter_mut().for_each(|m| *m /= length);
        let mut chosen: Vec<usize> = Vec::new();
        for k in 1..=25 {
            let far = |i: usize| {
                let mut mean = vec![0.0; width];
                for j in chosen.iter().chain([&i]) {
                    mean.iter_mut().zip(row(*j)).for_each(|(m, v)| *m += v);
                }
                let pairs = mean.iter().zip(&mu);
                pairs
                    .map(|(m, mu)| (m / f64::from(k) - mu).powi(2))
                    .sum::<f64>()
            };
            let left = (0..n).filter(|i| !chosen.contains(i));
            let best = left.min_by(|a, b| far(*a).total_cmp(&far(*b)));
            chosen.push(best.expect("some are left"));
        }
        assert_eq!(herd(&x, width, 25), chosen);
        // What herding is for: its first few have a better mean than as many at random.
        let of = |rows: &[usize]| {
            let picked: Vec<f32> = (rows.iter())
                .flat_map(|i| x[i * width..(i + 1) * width].to_vec())
                .collect();
            let mean = mean(&picked, width);
            mean.iter()
                .zip(&mu)
                .map(|(a, b)| (f64::from(*a) - b).powi(2))
                .sum::<f64>()
        };
        assert!(of(&chosen[..6]) < of(&[0, 1, 2, 3, 4, 5]));
        assert_eq!(herd(&x, width, 100).len(), n);
    }

    #[test]
    fn the_nearest_mean_answers() {
        let means = Means::from([(1, vec![1.0, 0.0]), (3, vec![0.0, 1.0])]);
        let scores = NearestMean { means }.scores(&[5.0, 0.0, 3.0, 4.0], 2, 4);
        // Unit features (1, 0) and (0.6, 0.8); squared distances 0 and 2, 0.8 and 0.4.
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-6, "{a} {b}");
        assert_eq!((scores[0], scores[2]), (f32::MIN, f32::MIN));
        near(scores[1], 0.0);
        near(scores[3], -2.0);
        near(scores[5], -0.8);
        near(scores[7], -0.4);
    }

    /// Two experiences by hand: shares, their prefixes, and the answers of evaluation.
    #[test]
    fn exemplars_are_prefixes_of_their_herding_and_their_means_answer() {
        let mut s = staging::session("icarl", "class", &[("with.capacity", "41")]);
        let mut plugin = Herding::new(HerdingSettings::default());
        let firsts = |s: &crate::session::Session| -> BTreeMap<u32, Vec<u64>> {
            let replay = s.replay.as_ref().expect("a memory");
            let id = |slot: &u32| replay.memory.metas()[*slot as usize].id.mix();
            let ids = |slots: Vec<u32>| slots.iter().map(id).collect();
            exemplars(replay)
                .into_iter()
                .map(|(c, slots)| (c, ids(slots)))
                .collect()
        };
        staging::act(&mut s, 0, |scene| plugin.end_experience(scene)).expect("a choice");
        let before = firsts(&s);
        assert_eq!(before.values().map(Vec::len).collect::<Vec<_>>(), [20, 20]);
        let by_hand = staging::act(&mut s, 0, |scene| {
            let items: Vec<Item> = (scene.train().iter().copied())
                .filter(|i| column(scene.stream, i) == 1)
                .collect();
            let x = features(scene, &items);
            let order = herd(&x, x.len() / items.len(), 20);
            order
                .iter()
                .map(|i| items[*i].id.mix())
                .collect::<Vec<u64>>()
        });
        assert_eq!(before[&1], by_hand);
        staging::act(&mut s, 1, |scene| plugin.end_experience(scene)).expect("a choice");
        let after = firsts(&s);
        assert_eq!(after.values().map(Vec::len).collect::<Vec<_>>(), [10; 4]);
        assert_eq!(after[&0], before[&0][..10]);
        assert_eq!(after[&1], before[&1][..10]);
        // Evaluation asks the means: never an output without exemplars.
        let (stream, means) = (s.stream.clone(), plugin.means.clone());
        let test = &stream.evals[1].items;
        let answered = evaluate(&mut s.oracle, &stream, test);
        let mut x = Vec::new();
        stream.gather(ebb_data::Part::Test, test, &mut x);
        let scores = s.oracle.answers(x, test.len());
        assert_eq!(means.len(), 4);
        for ((item, outcome), z) in test.iter().zip(answered).zip(scores.chunks_exact(10)) {
            let best = (0..10).fold(0, |b, c| if z[c] > z[b] { c } else { b });
            assert!(best < 4);
            assert_eq!(outcome.correct, best as u32 == column(&stream, item));
        }
        // Kept and put back, it answers the same.
        let kept = plugin.keep().expect("kept");
        let mut again = Herding::new(HerdingSettings::default());
        s.oracle.readout = None;
        again.restore(kept, &mut s.oracle).expect("restored");
        assert_eq!(again.means, means);
        assert!(s.oracle.readout.is_some());
    }
}
