//! SHARP: replay of recent hidden activations above units that come of age.
//!
//! **What it does.** While an experience is trained, fewer and fewer units of each hidden layer
//! are chosen, those most active on it; connections into them from units outside are cut. At its
//! end they are mature: their incoming weights are frozen for good, and every other unit starts
//! anew. Hidden activations of the last experiences are replayed, and classes are told by the
//! nearest of a few features of each, compared on the units that were mature when they were kept.
//! **Source.** Gurbuz et al., 2023, "SHARP: Sparsity and hidden activation replay" (card S137),
//! without its growth of new connections and its pruning at the start.
//! **Equation.** Supervised contrast of the features over new rows and replayed activations; in
//! phase `p` of `P` a layer's choice is the smallest set of its young units whose mean activity
//! sums to the share `1 − (1 − coverage) p/(P−1)` of all young ones'.
//! **Use it** where old data may be kept for a short time alone. **Not** on streams longer than
//! the units last: what is mature learns no more.
//! **Stores** `keep` activations of a byte a unit for each class of the last experiences, and
//! `long` features of each class ever seen. **Costs** the rows replayed above the tap, a copy of the frozen weights a step.

use crate::batch::{Batch, Collect, Entry};
use crate::error::{Error, Result};
use crate::methods::er::cross_entropy;
use crate::methods::{MethodCard, memory_and, settings_beside};
use crate::oracle::{Oracle, Readout, no_such_tap};
use crate::plugin::{Kept, Plugin, Scene, unfit};
use crate::seen::column;
use crate::spec::{KeepSpec, LossSpec, Parts, PluginSpec, TermSpec};
use burn::tensor::{Tensor, TensorData};
use ebb_data::{Item, Part};
use ebb_memory::{Offer, Payload, Records, Select, Values};
use ebb_net::{Model, Taps};
use ebb_space::{ExampleId, Layout, Mask, Weights};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The rows it adds.
pub const SUPPORT: &str = "replay:sharp";

/// SHARP's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct SharpSettings {
    /// The hidden layer (of a perceptron, from 0) whose activations are replayed.
    pub layer: usize,
    /// Activations kept of each class.
    pub keep: usize,
    /// Experiences before the present one whose activations are kept.
    pub recent: usize,
    /// Records replayed a step; 0: as many as the batch.
    pub replay: usize,
    /// Whether units are chosen and come of age; without it, plain replay of activations.
    pub mature: bool,
    /// Phases of an experience.
    pub phases: u64,
    /// Share of the young units' activity that is chosen in the last phase.
    pub coverage: f64,
    /// Features kept of each class for good.
    pub long: usize,
    /// Nearest features that vote.
    pub neighbours: usize,
}

impl Default for SharpSettings {
    fn default() -> Self {
        Self {
            layer: 0,
            keep: 50,
            recent: 2,
            replay: 0,
            mature: true,
            phases: 10,
            coverage: 0.6,
            long: 25,
            neighbours: 5,
        }
    }
}

impl SharpSettings {
    fn tap(&self) -> String {
        out(self.layer)
    }

    /// What the memory holds in the place of an input.
    ///
    /// # Errors
    /// When the network has no such layer.
    pub fn payload(&self, model: &mut Model) -> Result<(usize, Payload)> {
        match model.shape_at(&self.tap()).as_deref() {
            Some([units]) => Ok((*units, Payload::U8)),
            _ => Err(no_such_tap(&self.tap(), model)),
        }
    }
}

fn out(layer: usize) -> String {
    format!("layers.{layer}.out")
}

/// Widths of the hidden layers.
fn widths(layout: &Layout) -> Vec<usize> {
    let width = |i| {
        layout
            .find(&format!("layers.{i}.bias"))
            .map(|e| e.range.len())
    };
    (0..).map_while(width).collect()
}

/// Codes of one class: `value = low + code · step`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Affine {
    low: f32,
    step: f32,
}

impl Affine {
    fn fit(values: &[f32]) -> Self {
        let low = values.iter().copied().fold(f32::INFINITY, f32::min);
        let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let step = (high - low) / 255.0;
        Self { low, step }
    }

    fn encode(self, value: f32) -> u8 {
        match self.step > 0.0 {
            true => ((value - self.low) / self.step).round().clamp(0.0, 255.0) as u8,
            false => 0,
        }
    }

    fn decode(self, code: u8) -> f32 {
        self.low + f32::from(code) * self.step
    }
}

/// Features of a class, and the units they are compared on.
#[derive(Clone)]
struct Known {
    features: Vec<f32>,
    on: Vec<bool>,
}

/// Votes of the nearest.
#[derive(Clone)]
struct Nearest {
    classes: BTreeMap<u32, Known>,
    neighbours: usize,
}

/// `|a/|a| − b/|b||²` over the units `on`; vectors of length 0 stay so.
fn distance(a: &[f32], b: &[f32], on: &[bool]) -> f64 {
    let (mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0);
    for ((a, b), _) in a.iter().zip(b).zip(on).filter(|(_, on)| **on) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        aa += a * a;
        bb += b * b;
        ab += a * b;
    }
    let unit = |s: f64| if s > 0.0 { 1.0 } else { 0.0 };
    let cosine = if aa * bb > 0.0 {
        ab / (aa * bb).sqrt()
    } else {
        0.0
    };
    unit(aa) + unit(bb) - 2.0 * cosine
}

impl Readout for Nearest {
    fn scores(&self, features: &[f32], rows: usize, outputs: usize) -> Vec<f32> {
        let width = features.len() / rows.max(1);
        let mut scores = vec![f32::MIN; rows * outputs];
        for (row, scores) in features
            .chunks_exact(width)
            .zip(scores.chunks_exact_mut(outputs))
        {
            let mut all = Vec::new();
            for (class, known) in &self.classes {
                let each = known.features.chunks_exact(width);
                all.extend(each.map(|f| (distance(row, f, &known.on), *class as usize)));
            }
            all.sort_by(|a, b| a.0.total_cmp(&b.0));
            // A vote each, and of equal counts the nearest first: distances lie in [0, 4].
            for (d, class) in &all {
                let s = &mut scores[*class];
                *s = s.max(-(*d as f32) / 8.0);
            }
            for (_, class) in all.iter().take(self.neighbours) {
                scores[*class] += 1.0;
            }
        }
        scores
    }
}

/// The smallest set of young units, the most active first, whose activity sums to `share` of all
/// young ones'.
fn choose(activity: &[f64], mature: &[bool], share: f64) -> Vec<bool> {
    let mut young: Vec<usize> = (0..activity.len()).filter(|i| !mature[*i]).collect();
    young.sort_by(|a, b| activity[*b].total_cmp(&activity[*a]));
    let wanted = share * young.iter().map(|i| activity[*i]).sum::<f64>();
    let mut chosen = vec![false; activity.len()];
    let mut sum = 0.0;
    for i in young {
        if sum >= wanted || activity[i] <= 0.0 {
            break;
        }
        sum += activity[i];
        chosen[i] = true;
    }
    chosen
}

/// The plugin.
pub struct Sharp {
    settings: SharpSettings,
    /// Of each hidden layer.
    mature: Vec<Vec<bool>>,
    /// The choice of the phase.
    chosen: Vec<Vec<bool>>,
    codes: BTreeMap<u32, Affine>,
    known: BTreeMap<u32, Known>,
    pending: Option<(usize, Vec<f32>)>,
}

#[derive(Serialize, Deserialize)]
struct Note {
    mature: Vec<Vec<bool>>,
    chosen: Vec<Vec<bool>>,
    codes: Vec<(u32, Affine)>,
    known: Vec<(u32, Vec<bool>)>,
}

impl Sharp {
    /// A plugin with these settings.
    pub fn new(settings: SharpSettings) -> Self {
        Self {
            settings,
            mature: Vec::new(),
            chosen: Vec::new(),
            codes: BTreeMap::new(),
            known: BTreeMap::new(),
            pending: None,
        }
    }

    fn either(&self, layer: usize) -> Vec<bool> {
        let both = self.mature[layer].iter().zip(&self.chosen[layer]);
        both.map(|(a, b)| *a || *b).collect()
    }

    /// Chooses the phase's units, cuts what leads into them from outside, and freezes the cuts and
    /// what is mature.
    fn choose(&mut self, scene: &mut Scene, share: f64) -> Result<()> {
        let layout = scene.oracle.model.layout().clone();
        let widths = widths(&layout);
        if self.mature.is_empty() {
            self.mature = widths.iter().map(|w| vec![false; *w]).collect();
        }
        let mut items = scene.train().to_vec();
        let key = scene.key.sub("sharp").sub("activity");
        key.order(&mut items, |i| i.id.mix());
        items.truncate(256);
        let mut x = Vec::new();
        scene.stream.gather(Part::Train, &items, &mut x);
        self.chosen.clear();
        for (layer, width) in widths.iter().enumerate() {
            let found = scene
                .oracle
                .activations(&out(layer), x.clone(), items.len())?;
            let mut activity = vec![0f64; *width];
            for row in found.chunks_exact(*width) {
                let sums = activity.iter_mut().zip(row);
                sums.for_each(|(s, v)| *s += f64::from(v.abs()));
            }
            self.chosen
                .push(choose(&activity, &self.mature[layer], share));
        }
        let mut weights = scene.oracle.model.weights();
        let mut frozen = vec![false; layout.len()];
        for layer in 0..widths.len() {
            let (kept, below) = (self.either(layer), layer.checked_sub(1));
            let below = below.map(|l| self.either(l));
            self.mark(&layout, layer, &mut frozen);
            let Some((below, entry)) = below.zip(layout.find(&format!("layers.{layer}.weight")))
            else {
                continue;
            };
            for (unit, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
                for (input, _) in below.iter().enumerate().filter(|(_, kept)| !**kept) {
                    let at = entry.range.start + unit * below.len() + input;
                    weights.as_mut_slice()[at] = 0.0;
                    frozen[at] = true;
                }
            }
        }
        scene.oracle.model.set_weights(&weights)?;
        scene.freeze(Mask::from_fn(&layout, |i| frozen[i]));
        Ok(())
    }

    /// Marks what leads into the mature units of a layer.
    fn mark(&self, layout: &Layout, layer: usize, frozen: &mut [bool]) {
        for part in ["weight", "bias"] {
            let Some(entry) = layout.find(&format!("layers.{layer}.{part}")) else {
                continue;
            };
            let each = entry.range.len() / self.mature[layer].len();
            for (unit, _) in self.mature[layer].iter().enumerate().filter(|(_, m)| **m) {
                let start = entry.range.start + unit * each;
                frozen[start..start + each].fill(true);
            }
        }
    }

    /// The chosen come of age, all others start anew.
    fn grow_up(&mut self, scene: &mut Scene) -> Result<()> {
        for layer in 0..self.mature.len() {
            self.mature[layer] = self.either(layer);
            self.chosen[layer].fill(false);
        }
        let layout = scene.oracle.model.layout().clone();
        let mut frozen = vec![false; layout.len()];
        for layer in 0..self.mature.len() {
            self.mark(&layout, layer, &mut frozen);
        }
        let key = scene
            .key
            .sub("sharp")
            .sub("anew")
            .at(scene.experience as u64);
        let (fresh, _) = scene.oracle.model.network().initialise(key);
        let mut weights = scene.oracle.model.weights();
        for entry in (layout.entries().iter()).filter(|e| e.path.starts_with("layers.")) {
            for i in entry.range.clone().filter(|i| !frozen[*i]) {
                weights.as_mut_slice()[i] = fresh.as_slice()[i];
            }
        }
        scene.oracle.model.set_weights(&weights)?;
        scene.freeze(Mask::from_fn(&layout, |i| frozen[i]));
        Ok(())
    }

    /// Puts this experience's activations in the place of those that are too old.
    fn store(&mut self, scene: &mut Scene) -> Result<()> {
        let s = &self.settings;
        let key = scene.key.sub("sharp").sub("stored");
        let mut items = scene.train().to_vec();
        key.order(&mut items, |i| i.id.mix());
        let mut classes: BTreeMap<u32, Vec<Item>> = BTreeMap::new();
        for item in items {
            let of = classes.entry(column(scene.stream, &item)).or_default();
            if of.len() < s.keep && of.iter().all(|i| i.id != item.id) {
                of.push(item);
            }
        }
        let experience = scene.experience;
        let old = |e: u32| e as usize + s.recent < experience;
        let Some(replay) = scene.replay.as_deref_mut() else {
            return Ok(());
        };
        // What comes again is stored anew.
        let again = |label| classes.contains_key(&label);
        let evict = (replay.memory).slots_where(|m| old(m.experience) || again(m.label));
        let nobody = Offer {
            ids: &[],
            labels: &[],
            experience: experience as u32,
            task: 0,
            step: scene.step,
        };
        let plan = replay.memory.plan_chosen(&nobody, &[], &evict)?;
        replay.memory.commit(plan, &Records::of(Values::U8(&[])))?;
        for (label, items) in classes {
            let mut x = Vec::new();
            scene.stream.gather(Part::Train, &items, &mut x);
            // Units that have just started anew are stored as they are: masked, they would tell
            // replayed rows from new ones.
            let found = scene.oracle.activations(&s.tap(), x, items.len())?;
            let affine = Affine::fit(&found);
            self.codes.insert(label, affine);
            let codes: Vec<u8> = found.iter().map(|v| affine.encode(*v)).collect();
            let ids: Vec<ExampleId> = items.iter().map(|i| i.id).collect();
            let offer = Offer {
                ids: &ids,
                labels: &vec![label; ids.len()],
                task: items.first().map_or(0, |i| i.task),
                ..nobody
            };
            let all: Vec<u32> = (0..ids.len() as u32).collect();
            if let Some(replay) = scene.replay.as_deref_mut() {
                let plan = replay.memory.plan_chosen(&offer, &all, &[])?;
                (replay.memory).commit(plan, &Records::of(Values::U8(&codes)))?;
            }
        }
        Ok(())
    }

    /// Activations of slots, as they were stored.
    fn decode(&self, scene: &Scene, slots: &[u32]) -> Vec<f32> {
        let mut values = Vec::new();
        if let Some(replay) = scene.replay.as_deref() {
            for slot in slots {
                let label = replay.memory.metas()[*slot as usize].label;
                if let (Values::U8(codes), Some(affine)) =
                    (replay.memory.input(*slot), self.codes.get(&label))
                {
                    values.extend(codes.iter().map(|c| affine.decode(*c)));
                }
            }
        }
        values
    }

    /// Refreshes the features of every class whose activations are still kept.
    fn know(&mut self, scene: &mut Scene) {
        let Some(replay) = scene.replay.as_deref() else {
            return;
        };
        let mut classes: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for slot in replay.memory.slots_where(|_| true) {
            let label = replay.memory.metas()[slot as usize].label;
            classes.entry(label).or_default().push(slot);
        }
        for (label, mut slots) in classes {
            slots.truncate(self.settings.long);
            let values = self.decode(scene, &slots);
            let model = &mut scene.oracle.model;
            let blank = model.input(
                vec![0.0; slots.len() * model.network().inputs()],
                slots.len(),
            );
            let values = tensor(values, slots.len(), model);
            let mut taps = Taps::none().replace(self.settings.tap(), values);
            let out = model.forward(blank, &mut taps);
            scene.oracle.meter.forward_rows += slots.len() as u64;
            let features = ebb_kernels::slices::to_vec(&out.features);
            let width = features.len() / slots.len().max(1);
            let on = match (self.settings.mature, self.mature.last()) {
                (true, Some(mature)) => mature.clone(),
                _ => vec![true; width],
            };
            self.known.insert(label, Known { features, on });
        }
    }

    fn install(&self, oracle: &mut Oracle) {
        oracle.readout = (!self.known.is_empty()).then(|| {
            Box::new(Nearest {
                classes: self.known.clone(),
                neighbours: self.settings.neighbours,
            }) as Box<dyn Readout>
        });
    }
}

fn tensor(values: Vec<f32>, rows: usize, model: &Model) -> Tensor<2> {
    let width = values.len() / rows.max(1);
    Tensor::from_data(TensorData::new(values, [rows, width]), model.device())
}

impl Plugin for Sharp {
    fn name(&self) -> &'static str {
        "sharp"
    }

    fn add_rows(&mut self, scene: &mut Scene, new: &[Item], collect: &mut Collect) -> Result<()> {
        self.pending = None;
        let Some(replay) = scene.replay.as_deref().filter(|r| !r.memory.is_empty()) else {
            return Ok(());
        };
        if collect.len() != new.len() {
            return Err(Error::Recipe {
                reason: "the plugin `sharp` keeps activations, which a `draw` cannot replay as \
                         inputs: take the draws out"
                    .into(),
            });
        }
        let size = scene.size(self.settings.replay);
        let drawn = (replay.memory).draw("sharp", Select::Uniform, size, scene.step)?;
        collect.support(SUPPORT);
        for slot in &drawn.slots {
            let m = &replay.memory.metas()[*slot as usize];
            let set = replay.class_sets.of(usize::from(m.task));
            collect.row(m.id, m.label, set);
        }
        let width = scene.oracle.model.network().inputs();
        collect.x.resize(collect.len() * width, 0.0);
        self.pending = Some((new.len(), self.decode(scene, &drawn.slots)));
        Ok(())
    }

    fn before_step(&mut self, scene: &mut Scene, batch: &mut Batch) -> Result<()> {
        let phases = self.settings.phases.max(1);
        let begins = |p: u64| p * scene.steps / phases == scene.in_experience;
        if let Some(phase) = (0..phases)
            .rev()
            .find(|p| self.settings.mature && begins(*p))
        {
            let course = phase as f64 / (phases - 1).max(1) as f64;
            self.choose(scene, 1.0 - (1.0 - self.settings.coverage) * course)?;
        }
        if let Some((first, values)) = self.pending.take() {
            let rows = batch.rows.len() - first;
            batch.entry = Some(Entry {
                tap: self.settings.tap(),
                first,
                values: tensor(values, rows, &scene.oracle.model),
            });
        }
        Ok(())
    }

    fn end_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if self.settings.mature {
            self.grow_up(scene)?;
        }
        self.store(scene)?;
        self.know(scene);
        self.install(scene.oracle);
        Ok(())
    }

    fn keep(&self) -> Result<Kept> {
        let mut vectors = Vec::new();
        for (class, known) in &self.known {
            let shape = vec![known.features.len()];
            let layout = Layout::new([("features".to_owned(), shape)])?;
            let features = Weights::from_vec(&layout, known.features.clone())?;
            vectors.push((format!("class-{class}"), features));
        }
        Kept::vectors(vectors).with_note(&Note {
            mature: self.mature.clone(),
            chosen: self.chosen.clone(),
            codes: self.codes.iter().map(|(c, a)| (*c, *a)).collect(),
            known: self.known.iter().map(|(c, k)| (*c, k.on.clone())).collect(),
        })
    }

    fn restore(&mut self, mut kept: Kept, oracle: &mut Oracle) -> Result<()> {
        let note: Note = kept.note()?;
        let widths = widths(oracle.model.layout());
        let fits = |lists: &[Vec<bool>]| {
            lists.is_empty() || lists.iter().map(Vec::len).eq(widths.iter().copied())
        };
        if !fits(&note.mature) || !fits(&note.chosen) {
            return Err(unfit("sharp"));
        }
        (self.mature, self.chosen) = (note.mature, note.chosen);
        self.codes = note.codes.into_iter().collect();
        for (class, on) in note.known {
            let features = kept.take(&format!("class-{class}"));
            let features = features.map_or_else(Vec::new, Weights::into_vec);
            self.known.insert(class, Known { features, on });
        }
        self.install(oracle);
        Ok(())
    }

    fn bytes(&self) -> u64 {
        let known = self.known.values();
        let long: usize = known.map(|k| 4 * k.features.len() + k.on.len() / 8).sum();
        (long + 8 * self.codes.len()) as u64
    }
}

/// SHARP in the table of methods.
pub const SHARP: MethodCard = MethodCard {
    name: "sharp",
    aliases: &["activation-replay"],
    title: "Sparsity and hidden activation replay",
    source: "Gurbuz et al., 2023",
    card: "S137",
    family: "feature replay",
    use_it: "old data that may be kept for a short time alone; perceptrons",
    not_for: "streams longer than the units last",
    stores: "`keep` activations a class of the last experiences, `long` features of each class",
    costs: "the replayed rows above the tap, a copy of the frozen weights a step",
    defaults: || settings_beside(2000, &SharpSettings::default()),
    expand: |with, _| {
        let (memory, own) = memory_and(with, KeepSpec::Chosen, 1)?;
        let contrast = TermSpec {
            loss: LossSpec::SupCon,
            temperature: Some(0.1),
            ..cross_entropy("all", 1.0)
        };
        Ok(Parts {
            memory: Some(memory),
            // The nearest features answer: the head is not trained.
            term: vec![cross_entropy("new", 0.0), contrast],
            plugin: vec![PluginSpec::Sharp(own)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging::{act, session};
    use ebb_space::Key;

    #[test]
    fn codes_are_within_half_a_step_and_constants_are_exact() {
        let mut s = Key::new(2, "affine").stream();
        let values: Vec<f32> = (0..500).map(|_| s.normal() as f32).collect();
        let affine = Affine::fit(&values);
        for v in values {
            let back = affine.decode(affine.encode(v));
            assert!((back - v).abs() <= 0.501 * affine.step, "{v} {back}");
        }
        let flat = Affine::fit(&[0.3, 0.3]);
        assert_eq!(flat.decode(flat.encode(0.3)), 0.3);
    }

    #[test]
    fn the_choice_is_the_smallest_that_covers() {
        let activity = [1.0, 5.0, 3.0, 9.0, 0.0, 2.0];
        let mature = [false, false, false, true, false, false];
        let chosen = |share| {
            let chosen = choose(&activity, &mature, share);
            (0..6).filter(|i| chosen[*i]).collect::<Vec<_>>()
        };
        // Of the young 11: 5, then 8, then 10, then 11.
        assert_eq!(chosen(0.45), [1]);
        assert_eq!(chosen(0.7), [1, 2]);
        assert_eq!(chosen(0.9), [1, 2, 5]);
        assert_eq!(chosen(1.0), [0, 1, 2, 5]);
    }

    #[test]
    fn the_nearest_vote_on_the_units_of_their_class() {
        let known = |features: &[f32], on| Known {
            features: features.to_vec(),
            on,
        };
        let readout = Nearest {
            classes: BTreeMap::from([
                (
                    0,
                    known(&[1.0, 0.0, 9.0, 2.0, 0.1, 9.0], vec![true, true, false]),
                ),
                (2, known(&[0.0, 1.0, 0.0], vec![true, true, true])),
            ]),
            neighbours: 2,
        };
        // Without its third unit the query is the first class's direction.
        let s = readout.scores(&[3.0, 0.0, -5.0, 0.0, 2.0, 0.1], 2, 3);
        assert!(s[0] > 1.9 && s[2] < 0.0 && s[1] == f32::MIN, "{s:?}");
        // Two votes for the near class are one and one where it has one feature alone: the nearer.
        assert!(s[5] > s[3] && s[4] == f32::MIN, "{s:?}");
        let angle = distance(&[2.0, 0.0], &[0.0, 3.0], &[true, true]);
        assert!((angle - 2.0).abs() < 1e-12);
    }

    /// Whatever happens to all that is not frozen, mature units answer old inputs as before.
    #[test]
    fn mature_units_never_change() {
        let mut s = session("sharp", "class", &[]);
        let mut plugin = Sharp::new(SharpSettings {
            phases: 1,
            coverage: 0.4,
            ..SharpSettings::default()
        });
        let items: Vec<Item> = s.stream.experiences[0].train[..20].to_vec();
        act(&mut s, 0, |scene| {
            plugin.choose(scene, 0.4)?;
            plugin.end_experience(scene)
        })
        .expect("an experience");
        let on = plugin.mature.last().expect("two layers").clone();
        assert!(on.contains(&true) && on.contains(&false));
        let features = |s: &mut crate::session::Session| {
            act(s, 0, |scene| {
                let batch = scene.batch_of("new", &items);
                scene.oracle.forward(&batch).1
            })
        };
        let before = features(&mut s);
        let (mask, anchor) = s.frozen.as_ref().expect("frozen");
        let mut moved = anchor.clone();
        let mut noise = Key::new(9, "noise").stream();
        moved.map_in_place(|v| v);
        for v in moved.as_mut_slice() {
            *v += noise.normal() as f32;
        }
        mask.restore(&mut moved, anchor);
        s.oracle.model.set_weights(&moved).expect("one layout");
        let after = features(&mut s);
        let pairs = before.iter().zip(&after).zip(on.iter().cycle());
        for ((a, b), on) in pairs {
            assert_eq!(a.to_bits() == b.to_bits(), *on, "{a} {b}");
        }
        // What was kept of the class lies on those units alone.
        assert!(plugin.known.values().all(|k| k.on == on));
    }
}
