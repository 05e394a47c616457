//! REMIND: replay of compressed features.
//!
//! **What it does.** Trains the whole network on the first experience, then freezes what lies
//! below a tap, and keeps and replays activations of that tap in the place of inputs, each as a
//! few bytes by product quantisation.
//! **Source.** Hayes et al., ECCV 2020, "REMIND your neural network to prevent catastrophic
//! forgetting" (card S070). Its random crops of the feature map are left out.
//! **Equation.** With `x̂ = decode(encode(G(x)))` a step descends on
//! `mean over new and old of CE(F(x̂), y)`, where of two batches of old ones
//! `x̂ = λ x̂₁ + (1−λ) x̂₂`, `λ ~ Beta(α, α)`. New examples and test inputs go through the
//! quantiser too, so that old and new lie in one space.
//! **Use it** where bytes are short and the first experience says enough of the inputs to fit
//! features and codebooks on. **Not** where later data need other features.
//! **Stores** `books` bytes an example and position of the map (`books = 0`: the features as they
//! are), and codebooks of 1 kB a channel. **Costs** the rows replayed, and the new ones up to the
//! tap once more.

use crate::batch::{Batch, Collect, Entry};
use crate::error::{Error, Result};
use crate::methods::er::cross_entropy;
use crate::methods::{MethodCard, memory_and, settings_beside};
use crate::oracle::{Oracle, PassResult, Passage, no_such_tap};
use crate::plugin::{Kept, Plugin, Scene};
use crate::seen::column;
use crate::spec::{KeepSpec, Parts, PluginSpec};
use burn::tensor::{Tensor, TensorData};
use ebb_data::{Item, Part};
use ebb_memory::{Offer, Payload, ProductQuantiser, Records, Select, Values};
use ebb_net::Model;
use ebb_space::{ExampleId, Key, Layout, Mask, Weights};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The rows it adds.
pub const SUPPORT: &str = "replay:remind";

/// REMIND's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct RemindSettings {
    /// The tap whose activations are kept.
    pub at: String,
    /// Paths (with `*`) of what lies below it, frozen after the first experience.
    pub below: Vec<String>,
    /// Codebooks a position of the map; 0 keeps the features as they are.
    pub books: usize,
    /// Centres of a codebook, at most 256.
    pub centres: usize,
    /// Examples of the first experience the codebooks are fitted to.
    pub samples: usize,
    /// Rounds of k-means.
    pub rounds: usize,
    /// Records replayed a step.
    pub replay: usize,
    /// `α` of the mixture of two replayed records; 0 mixes none.
    pub mixup: f64,
    /// Factor on the step's size for every hundred examples of the new example's class met so
    /// far, down to a hundredth; 1 leaves it alone.
    pub decay: f64,
}

impl Default for RemindSettings {
    fn default() -> Self {
        Self {
            at: "layers.0.out".to_owned(),
            below: vec!["layers.0.*".to_owned()],
            books: 20,
            centres: 256,
            samples: 2000,
            rounds: 20,
            replay: 50,
            mixup: 0.0,
            decay: 1.0,
        }
    }
}

impl RemindSettings {
    /// What the memory holds in the place of an input.
    ///
    /// # Errors
    /// When the network has no such tap, or its channels cannot be divided.
    pub fn payload(&self, model: &mut Model) -> Result<(usize, Payload)> {
        no_running_statistics(model, "remind")?;
        let (channels, sites) = shape(&self.at, model)?;
        match self.books {
            0 => Ok((channels * sites, Payload::F32)),
            n if channels.is_multiple_of(n) => Ok((n * sites, Payload::U8)),
            n => Err(Error::Recipe {
                reason: format!(
                    "`books = {n}` does not divide the {channels} channels of `{}`",
                    self.at
                ),
            }),
        }
    }
}

/// Refuses networks whose frozen layers would move all the same.
///
/// # Errors
/// When the network has running statistics.
pub(crate) fn no_running_statistics(model: &Model, method: &str) -> Result<()> {
    match model.buffers().layout().is_empty() {
        true => Ok(()),
        false => Err(Error::Recipe {
            reason: format!(
                "`{method}` rests on layers that stand still, and this network's running \
                 statistics move with every step: take one without batch normalisation"
            ),
        }),
    }
}

/// Channels and positions at a tap.
fn shape(tap: &str, model: &mut Model) -> Result<(usize, usize)> {
    match model.shape_at(tap).as_deref() {
        Some([channels, positions @ ..]) => Ok((*channels, positions.iter().product())),
        _ => Err(no_such_tap(tap, model)),
    }
}

/// The codebooks at a map of `sites` positions, each quantised on its own.
#[derive(Clone)]
struct Codec {
    quantiser: Option<ProductQuantiser>,
    sites: usize,
}

impl Codec {
    /// Rows of `[channels, sites]` as rows of `[sites, channels]`, or back.
    fn turned(values: &[f32], from: usize, to: usize) -> Vec<f32> {
        let rows = values.chunks_exact(from * to);
        let turn = |row| (0..from * to).map(move |i| (i / from, i % from, row));
        rows.flat_map(turn)
            .map(|(t, f, row): (usize, usize, &[f32])| row[f * to + t])
            .collect()
    }

    fn encode(&self, q: &ProductQuantiser, activations: &[f32]) -> Vec<u8> {
        let channels = q.books() * q.part();
        let mut codes = Vec::new();
        q.encode(&Self::turned(activations, channels, self.sites), &mut codes);
        codes
    }

    fn decode(&self, q: &ProductQuantiser, codes: &[u8]) -> Vec<f32> {
        let mut vectors = Vec::new();
        q.decode(codes, &mut vectors);
        Self::turned(&vectors, self.sites, q.books() * q.part())
    }

    /// What the upper layers see of activations.
    fn through(&self, activations: Vec<f32>) -> Vec<f32> {
        match &self.quantiser {
            None => activations,
            Some(q) => self.decode(q, &self.encode(q, &activations)),
        }
    }
}

struct Recoded {
    tap: String,
    codec: Codec,
}

impl Passage for Recoded {
    fn tap(&self) -> &str {
        &self.tap
    }

    fn through(&self, activations: &mut [f32], _rows: usize) {
        let back = self.codec.through(activations.to_vec());
        activations.copy_from_slice(&back);
    }
}

/// The plugin.
pub struct Remind {
    settings: RemindSettings,
    /// From the end of the first experience on.
    codec: Option<Codec>,
    /// Examples met of each class.
    met: BTreeMap<u32, u64>,
    /// The step's new examples and the old activations.
    pending: Option<(Vec<Item>, Vec<f32>)>,
    /// Factors of mixed rows.
    factors: Vec<f32>,
}

impl Remind {
    /// A plugin with these settings.
    pub fn new(settings: RemindSettings) -> Self {
        Self {
            settings,
            codec: None,
            met: BTreeMap::new(),
            pending: None,
            factors: Vec::new(),
        }
    }

    fn install(&self, oracle: &mut Oracle) {
        oracle.passage = self.codec.clone().map(|codec| {
            Box::new(Recoded {
                tap: self.settings.at.clone(),
                codec,
            }) as Box<dyn Passage>
        });
    }

    /// The activations of training examples.
    fn activations(&self, scene: &mut Scene, items: &[Item]) -> Result<Vec<f32>> {
        let mut all = Vec::new();
        for chunk in items.chunks(256) {
            let mut x = Vec::new();
            scene.stream.gather(Part::Train, chunk, &mut x);
            all.extend(
                scene
                    .oracle
                    .activations(&self.settings.at, x, chunk.len())?,
            );
        }
        Ok(all)
    }

    fn fit(&mut self, scene: &mut Scene) -> Result<()> {
        let s = &self.settings;
        let key = scene.key.sub("remind");
        let (channels, sites) = shape(&s.at, &mut scene.oracle.model)?;
        let mut items = scene.train().to_vec();
        key.sub("sample").order(&mut items, |i| i.id.mix());
        items.truncate(s.samples);
        let quantiser = match s.books {
            0 => None,
            books => {
                let found = self.activations(scene, &items)?;
                let vectors = Codec::turned(&found, channels, sites);
                let place = key.sub("place");
                let ids: Vec<u64> = (items.iter())
                    .flat_map(|i| (0..sites as u64).map(|s| place.at(s).draw(i.id.mix())))
                    .collect();
                let key = key.sub("codebooks");
                let (centres, rounds) = (s.centres, s.rounds);
                Some(ProductQuantiser::fit(
                    &vectors, &ids, channels, books, centres, rounds, key,
                )?)
            }
        };
        self.codec = Some(Codec { quantiser, sites });
        let patterns: Vec<&str> = s.below.iter().map(String::as_str).collect();
        let layout = scene.oracle.model.layout();
        let (mask, unmatched) = Mask::from_globs(layout, &patterns);
        if let Some(pattern) = unmatched.first() {
            return Err(Error::no_such_path(pattern, layout));
        }
        scene.freeze(mask);
        self.install(scene.oracle);
        Ok(())
    }

    /// Takes in what is new of `items`; at capacity a drawn record of the largest class leaves.
    fn take_in(&self, scene: &mut Scene, items: &[Item]) -> Result<()> {
        let (Some(codec), Some(replay)) = (&self.codec, scene.replay.as_deref()) else {
            return Ok(());
        };
        let memory = &replay.memory;
        let mut items = items.to_vec();
        items.retain(|i| memory.find(&i.id).is_none());
        if items.is_empty() {
            return Ok(());
        }
        let mut known = std::collections::BTreeSet::new();
        items.retain(|i| known.insert(i.id.mix()));
        let held = memory.metas().iter().map(|m| (m.label, m.id.mix()));
        let label = |i: &Item| column(scene.stream, i);
        let offered = items.iter().map(|i| (label(i), i.id.mix()));
        let all: Vec<(u32, u64)> = held.chain(offered).collect();
        let key = scene.key.sub("remind").sub("leaves");
        let leaves = surplus(&all, memory.config().capacity, key);
        let stays = |i: &usize| leaves.binary_search(i).is_err();
        let first = memory.len();
        let admitted: Vec<usize> = (first..all.len()).filter(stays).collect();
        let evict: Vec<u32> = (leaves.iter().filter(|i| **i < first))
            .map(|i| *i as u32)
            .collect();
        let admit: Vec<u32> = admitted.iter().map(|i| (i - first) as u32).collect();
        let chosen: Vec<Item> = admitted.iter().map(|i| items[i - first]).collect();
        let activations = self.activations(scene, &chosen)?;
        let ids: Vec<ExampleId> = items.iter().map(|i| i.id).collect();
        let labels: Vec<u32> = all[first..].iter().map(|(label, _)| *label).collect();
        let offer = Offer {
            ids: &ids,
            labels: &labels,
            experience: scene.experience as u32,
            task: items.first().map_or(0, |i| i.task),
            step: scene.step,
        };
        let Some(replay) = scene.replay.as_deref_mut() else {
            return Ok(());
        };
        let plan = replay.memory.plan_chosen(&offer, &admit, &evict)?;
        let codes;
        let inputs = match &codec.quantiser {
            None => Values::F32(&activations),
            Some(q) => {
                codes = codec.encode(q, &activations);
                Values::U8(&codes)
            }
        };
        replay.memory.commit(plan, &Records::of(inputs))?;
        Ok(())
    }
}

/// Which of `(class, id)` leave, ascending, so that `capacity` stay: one of the largest class at a
/// time (the first of equal ones), by largest draw. Within a class it is a uniform choice.
fn surplus(all: &[(u32, u64)], capacity: usize, key: Key) -> Vec<usize> {
    let mut leaves = Vec::new();
    if all.len() <= capacity {
        return leaves;
    }
    let mut classes: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (i, (class, _)) in all.iter().enumerate() {
        classes.entry(*class).or_default().push(i);
    }
    for members in classes.values_mut() {
        key.order(members, |i| all[*i].1);
    }
    while all.len() - leaves.len() > capacity {
        let largest = classes.values_mut().rev().max_by_key(|m| m.len());
        leaves.extend(largest.and_then(Vec::pop));
    }
    leaves.sort_unstable();
    leaves
}

/// A draw of Beta(α, α), as `U/(U+V)` of two powers of uniform numbers with a sum of at most 1
/// (Jöhnk 1964).
fn beta(alpha: f64, key: Key) -> f64 {
    let mut stream = key.stream();
    loop {
        let u = stream.uniform().powf(1.0 / alpha);
        let v = stream.uniform().powf(1.0 / alpha);
        if u + v <= 1.0 && u + v > 0.0 {
            return u / (u + v);
        }
    }
}

impl Plugin for Remind {
    fn name(&self) -> &'static str {
        "remind"
    }

    fn add_rows(&mut self, scene: &mut Scene, new: &[Item], collect: &mut Collect) -> Result<()> {
        self.pending = None;
        self.factors.clear();
        let Some(codec) = &self.codec else {
            return Ok(());
        };
        if collect.len() != new.len() {
            return Err(Error::Recipe {
                reason: "the plugin `remind` keeps features, which a `draw` cannot replay as \
                         inputs: take the draws out"
                    .into(),
            });
        }
        let mut old = Vec::new();
        if let Some(replay) = scene.replay.as_deref().filter(|r| !r.memory.is_empty()) {
            let s = &self.settings;
            let memory = &replay.memory;
            let batches = if s.mixup > 0.0 { 2 } else { 1 };
            let drawn = memory.draw("remind", Select::Uniform, batches * s.replay, scene.step)?;
            let rows = drawn.slots.iter().map(|slot| match memory.input(*slot) {
                Values::F32(values) => Ok(values.to_vec()),
                Values::U8(codes) => match &codec.quantiser {
                    Some(q) => q.check(codes).map(|()| codec.decode(q, codes)),
                    None => Ok(Vec::new()),
                },
            });
            let rows = rows.collect::<ebb_memory::Result<Vec<Vec<f32>>>>()?;
            // A mixture of two examples is a row for each label, both with the mixed features.
            let pairs = if s.mixup > 0.0 { rows.len() / 2 } else { 0 };
            let key = scene.key.sub("remind").sub("mixup").at(scene.step);
            collect.support(SUPPORT);
            for (i, slot) in drawn.slots.iter().enumerate() {
                let m = &memory.metas()[*slot as usize];
                if pairs == 0 {
                    old.extend_from_slice(&rows[i]);
                    self.factors.push(1.0);
                } else if i < 2 * pairs {
                    let (a, b) = (i % pairs, i % pairs + pairs);
                    let first = memory.metas()[drawn.slots[a] as usize].id.mix();
                    let share = beta(s.mixup, key.at(first)) as f32;
                    let mixed = rows[a].iter().zip(&rows[b]);
                    old.extend(mixed.map(|(a, b)| share * a + (1.0 - share) * b));
                    self.factors.push(if i == a { share } else { 1.0 - share });
                } else {
                    continue;
                }
                let set = replay.class_sets.of(usize::from(m.task));
                collect.row(m.id, m.label, set);
            }
            let width = scene.oracle.model.network().inputs();
            // They enter at the tap; below it there is nothing to see.
            collect.x.resize(collect.len() * width, 0.0);
        }
        self.pending = Some((new.to_vec(), old));
        Ok(())
    }

    fn before_step(&mut self, scene: &mut Scene, batch: &mut Batch) -> Result<()> {
        let (Some(codec), Some((new, old))) = (&self.codec, &self.pending) else {
            return Ok(());
        };
        let mut values = codec.through(self.activations(scene, new)?);
        values.extend_from_slice(old);
        let rows = batch.rows.len();
        let data = TensorData::new(values, [rows, old_width(codec, scene, &self.settings)?]);
        batch.entry = Some(Entry {
            tap: self.settings.at.clone(),
            first: 0,
            values: Tensor::from_data(data, scene.oracle.model.device()),
        });
        if self.settings.mixup > 0.0 {
            // A mixture has two rows and counts once in the mean.
            let examples = new.len() + self.factors.len() / 2;
            let scale = rows as f32 / examples.max(1) as f32;
            let ones = std::iter::repeat_n(1.0, new.len());
            let weights = ones.chain(self.factors.iter().copied());
            batch.rows.weight = Some(weights.map(|w| scale * w).collect());
        }
        Ok(())
    }

    fn change_gradient(
        &mut self,
        _scene: &mut Scene,
        batch: &Batch,
        _pass: &PassResult,
        gradient: &mut Weights,
    ) -> Result<()> {
        let Some((new, _)) = self.pending.as_ref().filter(|_| self.settings.decay < 1.0) else {
            return Ok(());
        };
        // The rate belongs to the new example's class: 0.1 · decay^⌊n/100⌋ in the paper.
        let labels = &batch.rows.labels[..new.len()];
        let factor = |label: &u32| {
            let met = self.met.get(label).copied().unwrap_or(0);
            self.settings.decay.powf((met / 100) as f64).max(0.01)
        };
        let mean = labels.iter().map(factor).sum::<f64>() / labels.len().max(1) as f64;
        gradient.scale(mean as f32);
        Ok(())
    }

    fn after_step(&mut self, scene: &mut Scene, batch: &Batch, _pass: &PassResult) -> Result<()> {
        let Some((new, _)) = self.pending.take() else {
            return Ok(());
        };
        for label in &batch.rows.labels[..new.len()] {
            *self.met.entry(*label).or_default() += 1;
        }
        for items in new.chunk_by(|a, b| a.task == b.task) {
            self.take_in(scene, items)?;
        }
        Ok(())
    }

    fn end_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if self.codec.is_some() {
            return Ok(());
        }
        self.fit(scene)?;
        let items = scene.train().to_vec();
        for items in items.chunk_by(|a, b| a.task == b.task) {
            self.take_in(scene, items)?;
        }
        Ok(())
    }

    fn keep(&self) -> Result<Kept> {
        let mut vectors = Vec::new();
        if let Some(q) = self.codec.as_ref().and_then(|c| c.quantiser.as_ref()) {
            let entry = (
                "centres".to_owned(),
                vec![q.books(), q.centres().len() / q.books()],
            );
            let layout = Layout::new([entry])?;
            let centres = Weights::from_vec(&layout, q.centres().to_vec())?;
            vectors.push(("codebooks".to_owned(), centres));
        }
        let met: Vec<(u32, u64)> = self.met.iter().map(|(c, n)| (*c, *n)).collect();
        Kept::vectors(vectors).with_note(&(self.codec.is_some(), met))
    }

    fn restore(&mut self, mut kept: Kept, oracle: &mut Oracle) -> Result<()> {
        let (fitted, met): (bool, Vec<(u32, u64)>) = kept.note()?;
        self.met = met.into_iter().collect();
        if fitted {
            let (channels, sites) = shape(&self.settings.at, &mut oracle.model)?;
            let (books, count) = (self.settings.books, self.settings.centres);
            let quantiser = kept.take("codebooks").map(|w| {
                let centres = w.into_vec();
                ProductQuantiser::from_centres(centres, books, channels / books.max(1), count)
            });
            let quantiser = quantiser.transpose()?;
            self.codec = Some(Codec { quantiser, sites });
        }
        self.install(oracle);
        Ok(())
    }

    fn bytes(&self) -> u64 {
        let quantiser = self.codec.as_ref().and_then(|c| c.quantiser.as_ref());
        quantiser.map_or(0, |q| q.bytes() as u64)
    }
}

/// Values of a row at the tap.
fn old_width(codec: &Codec, scene: &mut Scene, settings: &RemindSettings) -> Result<usize> {
    Ok(match &codec.quantiser {
        Some(q) => q.books() * q.part() * codec.sites,
        None => {
            let (channels, sites) = shape(&settings.at, &mut scene.oracle.model)?;
            channels * sites
        }
    })
}

/// REMIND in the table of methods.
pub const REMIND: MethodCard = MethodCard {
    name: "remind",
    aliases: &["feature-replay"],
    title: "Replay of product-quantised features",
    source: "Hayes et al., ECCV 2020",
    card: "S070",
    family: "feature replay",
    use_it: "few bytes, and a first experience that says enough of the inputs",
    not_for: "later data that need other features than the first",
    stores: "`books` bytes an example and position, codebooks of 1 kB a channel",
    costs: "the replayed rows, and the new ones up to the tap once more",
    defaults: || settings_beside(2000, &RemindSettings::default()),
    expand: |with, _| {
        let (memory, own) = memory_and(with, KeepSpec::Chosen, 1)?;
        Ok(Parts {
            memory: Some(memory),
            term: vec![cross_entropy("new", 1.0), cross_entropy(SUPPORT, 1.0)],
            plugin: vec![PluginSpec::Remind(own)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging::{act, session};

    #[test]
    fn a_map_is_quantised_position_by_position() {
        // Two channels, three positions; the books hold the halves of the positions' vectors.
        let centres = vec![1.0, 2.0, 3.0, 10.0, 20.0, 30.0];
        let q = ProductQuantiser::from_centres(centres, 2, 1, 3).expect("books");
        let codec = Codec {
            quantiser: Some(q.clone()),
            sites: 3,
        };
        let map = [1.1, 2.9, 2.2, 19.0, 9.0, 31.0];
        assert_eq!(codec.encode(&q, &map), [0, 1, 2, 0, 1, 2]);
        assert_eq!(
            codec.through(map.to_vec()),
            [1.0, 3.0, 2.0, 20.0, 10.0, 30.0]
        );
    }

    #[test]
    fn the_largest_class_gives_way() {
        let all: Vec<(u32, u64)> = (0..60).map(|i| (u32::from(i >= 50), i)).collect();
        let key = Key::new(7, "leaves");
        let left = surplus(&all, 16, key);
        let stay: Vec<usize> = (0..60).filter(|i| !left.contains(i)).collect();
        let of = |c| stay.iter().filter(|i| all[**i].0 == c).count();
        assert_eq!((of(0), of(1)), (8, 8));
    }

    #[test]
    fn mixing_shares_have_the_moments_of_a_beta() {
        for alpha in [0.1, 0.5, 1.0] {
            let draws: Vec<f64> = (0..20_000)
                .map(|i| beta(alpha, Key::new(3, "beta").at(i)))
                .collect();
            let mean = draws.iter().sum::<f64>() / 2e4;
            let variance = draws.iter().map(|d| (d - 0.5).powi(2)).sum::<f64>() / 2e4;
            assert!((mean - 0.5).abs() < 0.02, "{alpha}: {mean}");
            let want = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!((variance - want).abs() < 0.01, "{alpha}: {variance}");
        }
    }

    /// With features as they are, the gradient above the tap is that of the inputs themselves,
    /// and there is none below it.
    #[test]
    fn replayed_features_teach_what_their_inputs_would() {
        let sets = [
            ("with.books", "0"),
            ("with.replay", "6"),
            ("with.capacity", "40"),
        ];
        let mut s = session("remind", "class", &sets);
        let mut plugin = Remind::new(RemindSettings {
            books: 0,
            replay: 6,
            ..RemindSettings::default()
        });
        act(&mut s, 0, |scene| plugin.end_experience(scene)).expect("fitted");
        let gradients = act(&mut s, 1, |scene| {
            let new: Vec<Item> = scene.train()[..5].to_vec();
            let mut collect = Collect::default();
            collect.support("new");
            for item in &new {
                collect.row(item.id, column(scene.stream, item), None);
            }
            scene.stream.gather(Part::Train, &new, &mut collect.x);
            plugin.add_rows(scene, &new, &mut collect)?;
            let mut batch = scene.finish(collect);
            plugin.before_step(scene, &mut batch)?;
            let first = &scene.stream.experiences[0].train;
            let of = |id: &ExampleId| first.iter().chain(&new).find(|i| i.id == *id).copied();
            let items: Vec<Item> = batch.ids.iter().filter_map(of).collect();
            assert_eq!(items.len(), 11);
            let plain = scene.batch_of("all", &items);
            let layout = scene.oracle.model.layout().clone();
            let mut both = [Weights::zeros(&layout), Weights::zeros(&layout)];
            let loss = scene.remembering;
            scene.oracle.gradient(loss, &batch, None, &mut both[0])?;
            scene.oracle.gradient(loss, &plain, None, &mut both[1])?;
            Ok::<_, Error>(both)
        });
        let [entered, plain] = gradients.expect("two gradients");
        for (entry, values) in entered.iter() {
            if entry.path.starts_with("layers.0") {
                assert!(values.iter().all(|v| *v == 0.0), "{}", entry.path);
            } else {
                let want = plain.get(&entry.path).expect("one layout");
                let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
                assert!(values.iter().zip(want).all(close), "{}", entry.path);
            }
        }
    }
}
