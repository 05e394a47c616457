//! General samples replay with the threshold margin (GeRe).
//!
//! **What it does.** A fixed set of general examples is replayed beside everything that is learned,
//! and their features are held in the band (low, neutral or high, for each number) in which they
//! were in the model as it began.
//! **Source.** Zhang et al., 2025, "GeRe: towards efficient anti-forgetting in continual learning of
//! LLM via general samples replay" (card S160), and its released code, which shuffles the set into the
//! data and keeps the features themselves; here a step gets `rows` of the set, drawn anew, and two
//! bits a number are kept. The features are what the last map reads: behind the final norm.
//! **Equation.** With m_d and s_d mean and deviation of feature d over the set's learnt tokens and
//! `[l, u] = [m_d − s_d, m_d + s_d]`, an h that was at h₀ has the margin `max(0, h − l)` if
//! `h₀ ≤ l`, `max(0, u − h)` if `h₀ ≥ u`, else `max(0, h − u) + max(0, l − h)`;
//! `L = (CE(new) + CE(generic))/2 + w · mean of the margins that are not 0`,
//! `w` a number or `"dynamic"`: `(CE(new) + CE(generic))/2 / (mean margin + 1e-8)`, a constant for
//! the gradient. Before there is a set, `L = CE(new)`.
//! **Use it** with a pre-trained model and texts like those it was trained on
//! (`[language.generic]`); without them the first experience stands for the pre-training, and
//! `examples` of it are the set. **Not** to keep what the set does not show.
//! **Stores** two bits for each feature of each token of the set; with `hold = "features"` or
//! `"logits"` 32 bits for each number. **Costs** `rows` on top of the batch, and two passes over
//! the set once.

use crate::batch::{Batch, Collect};
use crate::error::Result;
use crate::methods::er::cross_entropy;
use crate::methods::{MethodCard, read, settings};
use crate::oracle::{Oracle, PassResult};
use crate::plugin::{Kept, Plugin, Scene, unfit};
use crate::spec::{LossSpec, Parts, PluginSpec, ReductionSpec, TermSpec};
use ebb_data::Item;
use ebb_space::{
    Bands, ExampleId, Key, Layout, Objective, Reference, Thresholds, Violations, Weights,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The support of the set's rows.
pub const SUPPORT: &str = "generic";

/// Numbers in the logits of one chunk of the passes over the set, at most.
const BUDGET: usize = 1 << 24;

/// What of the set is held where it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// The bands of its features.
    #[default]
    Bands,
    /// Its features themselves.
    Features,
    /// Its logits.
    Logits,
    /// Nothing: its labels are learnt again, and that is all.
    Labels,
}

/// The numbers of the plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct GereSettings {
    /// Examples of the set, drawn from those there are.
    pub examples: usize,
    /// Rows of it beside each batch; 0: as many as the batch.
    pub rows: usize,
    /// What of it is held.
    pub hold: Hold,
    /// Give each token the bands of another: a control that must not work.
    pub permuted: bool,
}

impl Default for GereSettings {
    fn default() -> Self {
        Self {
            examples: 1000,
            rows: 2,
            hold: Hold::Bands,
            permuted: false,
        }
    }
}

/// What was kept of the set's rows, example by example.
enum Values {
    Nothing,
    Bands(Arc<Thresholds>, Vec<u8>),
    /// Features or logits.
    Numbers(Vec<f32>),
}

/// The set as it was in the model that began.
struct Store {
    ids: Vec<ExampleId>,
    /// Rows of each example.
    rows: Vec<usize>,
    /// The first of them, and how many, by [`ExampleId::mix`].
    places: BTreeMap<u64, (usize, usize)>,
    values: Values,
}

impl Store {
    fn new(ids: Vec<ExampleId>, rows: Vec<usize>, values: Values) -> Self {
        let mut first = 0;
        let place = |(id, n): (&ExampleId, &usize)| {
            first += n;
            (id.mix(), (first - n, *n))
        };
        let places = ids.iter().zip(&rows).map(place).collect();
        Self {
            ids,
            rows,
            places,
            values,
        }
    }

    /// Where each row of the set in a batch is kept: the batch's row, and the store's.
    fn met<'a>(&'a self, batch: &'a Batch) -> impl Iterator<Item = (usize, usize)> + 'a {
        let own = batch.rows.supports.iter().position(|s| s == SUPPORT);
        let rows = batch.rows.ids.iter().zip(&batch.rows.support).enumerate();
        let rows = rows.filter(move |(_, (_, support))| Some(usize::from(**support)) == own);
        rows.filter_map(|(i, (id, _))| {
            let (first, n) = self.places.get(&id.example)?;
            let position = id.position as usize;
            (position < *n).then_some((i, first + position))
        })
    }
}

/// What is saved of a store beside its vectors and codes.
#[derive(Serialize, Deserialize)]
struct Saved {
    ids: Vec<ExampleId>,
    rows: Vec<usize>,
}

/// The plugin.
pub struct Gere {
    settings: GereSettings,
    store: Option<Store>,
    /// The set's examples, found again after a resume.
    set: Vec<Item>,
    /// What of the last step's rows lay outside of its bands.
    outside: Option<Violations>,
}

impl Gere {
    /// A plugin with these settings.
    pub fn new(settings: GereSettings) -> Self {
        Self {
            settings,
            store: None,
            set: Vec::new(),
            outside: None,
        }
    }

    /// The set: the stream's generic examples, or without any those of the first experience, in
    /// keyed order.
    fn choose(&mut self, scene: &Scene) {
        let stream = scene.stream;
        let all = match stream.generic.is_empty() {
            true => &stream.experiences[0].train,
            false => &stream.generic,
        };
        self.set = all.to_vec();
        let key = scene.key.sub("generic set");
        key.order(&mut self.set, |item| item.id.mix());
        self.set.truncate(self.settings.examples);
    }

    /// The set as the model answers to it now.
    fn measure(&self, scene: &mut Scene) -> Result<Store> {
        let mut rows = Vec::with_capacity(self.set.len());
        let mut active = Vec::new();
        let mut numbers = Vec::new();
        let mut moments = Moments::default();
        let hold = self.settings.hold;
        self.pass(scene, |seen| {
            rows.push(seen.active.len());
            active.extend_from_slice(seen.active);
            match hold {
                Hold::Labels => {}
                Hold::Features => numbers.extend_from_slice(seen.features),
                Hold::Logits => numbers.extend_from_slice(seen.logits),
                Hold::Bands => {
                    let width = seen.features.len() / seen.active.len().max(1);
                    let each = seen.features.chunks_exact(width.max(1)).zip(seen.active);
                    each.filter(|(_, active)| **active)
                        .for_each(|(row, _)| moments.add(row));
                }
            }
        })?;
        let values = match hold {
            Hold::Labels => Values::Nothing,
            Hold::Features | Hold::Logits => Values::Numbers(numbers),
            Hold::Bands => {
                let thresholds = moments.thresholds()?;
                let mut codes = Vec::with_capacity(active.len() * thresholds.stride());
                let width = thresholds.width();
                // A second pass, so that the features of the whole set need never lie in memory.
                self.pass(scene, |seen| {
                    let each = seen.features.chunks_exact(width.max(1));
                    each.for_each(|row| thresholds.encode(row, &mut codes));
                })?;
                if self.settings.permuted {
                    let key = scene.key.sub("permuted bands");
                    codes = permuted(&codes, thresholds.stride(), &active, key);
                }
                Values::Bands(Arc::new(thresholds), codes)
            }
        };
        let ids = self.set.iter().map(|item| item.id).collect();
        Ok(Store::new(ids, rows, values))
    }

    /// Shows the set to the model, in evaluation, and each example to `f`.
    fn pass(&self, scene: &mut Scene, mut f: impl FnMut(Shown)) -> Result<()> {
        let network = scene.oracle.model.network();
        let each = if network.tokens() {
            network.inputs()
        } else {
            1
        };
        let chunk = (BUDGET / (each * network.outputs()).max(1)).clamp(1, 256);
        for items in self.set.chunks(chunk) {
            let batch = scene.batch_of(SUPPORT, items);
            let (logits, features) = scene.oracle.forward(&batch);
            // All examples have as many rows, the shorter ones filled up.
            let each = batch.rows.len() / items.len();
            let active: Vec<bool> = (0..batch.rows.len())
                .map(|i| batch.rows.active(i))
                .collect();
            let examples = active.chunks_exact(each).enumerate();
            for (e, active) in examples {
                let n = active.iter().rposition(|a| *a).map_or(0, |last| last + 1);
                let own = |values: &'_ [f32]| {
                    let width = values.len() / batch.rows.len();
                    e * each * width..(e * each + n) * width
                };
                f(Shown {
                    active: &active[..n],
                    logits: &logits[own(&logits)],
                    features: &features[own(&features)],
                });
            }
        }
        Ok(())
    }
}

/// An example of the set: its rows up to the last that is learnt, whether they are, and what the
/// model made of them.
struct Shown<'a> {
    active: &'a [bool],
    logits: &'a [f32],
    features: &'a [f32],
}

/// Sums for mean and deviation, column by column.
#[derive(Default)]
struct Moments {
    n: u64,
    sum: Vec<f64>,
    square: Vec<f64>,
}

impl Moments {
    fn add(&mut self, row: &[f32]) {
        self.n += 1;
        self.sum.resize(row.len(), 0.0);
        self.square.resize(row.len(), 0.0);
        for ((sum, square), v) in self.sum.iter_mut().zip(&mut self.square).zip(row) {
            let v = f64::from(*v);
            *sum += v;
            *square += v * v;
        }
    }

    /// One deviation below and above the mean. The deviation is that of the rows at hand (over n).
    fn thresholds(&self) -> Result<Thresholds> {
        let n = self.n.max(1) as f64;
        let border = |sign: f64| -> Vec<f32> {
            let each = self.sum.iter().zip(&self.square).map(|(sum, square)| {
                let mean = sum / n;
                let deviation = (square / n - mean * mean).max(0.0).sqrt();
                (mean + sign * deviation) as f32
            });
            each.collect()
        };
        Ok(Thresholds::new(border(-1.0), border(1.0))?)
    }
}

/// The codes of the active rows, `stride` bytes each, changed among them.
fn permuted(codes: &[u8], stride: usize, active: &[bool], key: Key) -> Vec<u8> {
    let own: Vec<usize> = (0..active.len()).filter(|i| active[*i]).collect();
    let mut from = own.clone();
    key.order(&mut from, |i| *i as u64);
    let mut changed = codes.to_vec();
    for (to, from) in own.into_iter().zip(from) {
        let row = &codes[from * stride..(from + 1) * stride];
        changed[to * stride..(to + 1) * stride].copy_from_slice(row);
    }
    changed
}

impl Plugin for Gere {
    fn name(&self) -> &'static str {
        "gere"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        let from = usize::from(scene.stream.generic.is_empty());
        if scene.experience >= from && self.store.is_none() {
            self.choose(scene);
            self.store = Some(self.measure(scene)?);
        }
        Ok(())
    }

    fn add_rows(&mut self, scene: &mut Scene, _: &[Item], collect: &mut Collect) -> Result<()> {
        if self.store.is_none() {
            return Ok(());
        }
        if self.set.is_empty() {
            self.choose(scene);
        }
        // Each step draws for itself, by id: taking an example away changes no other's draws.
        let key = scene.key.sub("generic rows").at(scene.step);
        let mut drawn: Vec<(u64, &Item)> =
            (self.set.iter().map(|item| (key.draw(item.id.mix()), item))).collect();
        let rows = scene.size(self.settings.rows).min(drawn.len());
        if rows < drawn.len() {
            drawn.select_nth_unstable_by_key(rows, |(draw, _)| *draw);
            drawn.truncate(rows);
        }
        drawn.sort_unstable_by_key(|(draw, _)| *draw);
        let items: Vec<Item> = drawn.into_iter().map(|(_, item)| *item).collect();
        collect.support(SUPPORT);
        collect.items(scene.stream, &items, scene.class_sets);
        Ok(())
    }

    fn before_step(&mut self, _: &mut Scene, batch: &mut Batch) -> Result<()> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        let n = batch.rows.len();
        match &store.values {
            Values::Nothing => {}
            Values::Bands(thresholds, kept) => {
                let stride = thresholds.stride();
                let mut codes = vec![0; n * stride];
                for (i, row) in store.met(batch) {
                    let kept = &kept[row * stride..(row + 1) * stride];
                    codes[i * stride..(i + 1) * stride].copy_from_slice(kept);
                }
                batch.bands = Some((thresholds.clone(), codes));
            }
            Values::Numbers(kept) => {
                let all: usize = store.rows.iter().sum();
                let width = kept.len() / all.max(1);
                let logits = self.settings.hold == Hold::Logits;
                // A memory may have put those of its own rows there.
                let given = match logits {
                    true => batch.stored_logits.take(),
                    false => batch.stored_features.take(),
                };
                let mut values = given.unwrap_or_else(|| vec![0.0; n * width]);
                for (i, row) in store.met(batch) {
                    let kept = &kept[row * width..(row + 1) * width];
                    values[i * width..(i + 1) * width].copy_from_slice(kept);
                }
                match logits {
                    true => batch.stored_logits = Some(values),
                    false => batch.stored_features = Some(values),
                }
            }
        }
        Ok(())
    }

    fn reshape(
        &mut self,
        _: &mut Scene,
        batch: &Batch,
        objective: &mut Cow<Objective>,
    ) -> Result<()> {
        if batch.rows.supports.iter().any(|s| s == SUPPORT) {
            let terms = objective.to_mut().terms.iter_mut();
            let labels = terms.filter(|term| term.reference == Reference::Label);
            labels.for_each(|term| term.weight *= 0.5);
        }
        Ok(())
    }

    fn after_step(&mut self, scene: &mut Scene, batch: &Batch, pass: &PassResult) -> Result<()> {
        self.outside = None;
        // A checkpointed pass keeps no features.
        let (Some(store), Some((thresholds, codes)), false) =
            (&self.store, &batch.bands, pass.features.is_empty())
        else {
            return Ok(());
        };
        let width = scene.oracle.model.network().features();
        let bands = Bands::new(thresholds, codes);
        let mut outside = Violations::default();
        for (i, _) in store.met(batch).filter(|(i, _)| batch.rows.active(*i)) {
            outside.add(bands.outside(i, &pass.features[i * width..(i + 1) * width]));
        }
        self.outside = Some(outside);
        Ok(())
    }

    fn readings(&self) -> Vec<(String, f64)> {
        let each = |o: &Violations| [("margin", o.mean()), ("violations", o.rate())];
        let all = self.outside.iter().flat_map(each);
        all.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn keep(&self) -> Result<Kept> {
        let Some(store) = &self.store else {
            return Ok(Kept::default());
        };
        let vector = |name: &str, parts: &[(&str, &[f32])]| {
            let shapes = parts.iter().map(|(n, v)| ((*n).to_owned(), vec![v.len()]));
            let data = parts.iter().flat_map(|(_, v)| v.iter().copied());
            let weights = Weights::from_vec(&Layout::new(shapes)?, data.collect())?;
            Ok::<_, ebb_space::Error>((name.to_owned(), weights))
        };
        let mut kept = Kept::default();
        match &store.values {
            Values::Nothing => {}
            Values::Bands(thresholds, codes) => {
                let borders = [("low", thresholds.low()), ("high", thresholds.high())];
                kept.vectors.push(vector("thresholds", &borders)?);
                kept.bytes.push(("codes".to_owned(), codes.clone()));
            }
            Values::Numbers(numbers) => kept.vectors.push(vector("values", &[("", numbers)])?),
        }
        kept.with_note(&Saved {
            ids: store.ids.clone(),
            rows: store.rows.clone(),
        })
    }

    fn restore(&mut self, mut kept: Kept, oracle: &mut Oracle) -> Result<()> {
        if kept.note.is_null() {
            return Ok(());
        }
        let Saved { ids, rows } = kept.note()?;
        let all: usize = rows.iter().sum();
        let network = oracle.model.network();
        let misfit = || unfit("gere");
        let values = match self.settings.hold {
            Hold::Labels => Values::Nothing,
            Hold::Bands => {
                let borders = kept.take("thresholds").ok_or_else(misfit)?;
                let border = |name: &str| borders.get(name).map(<[f32]>::to_vec);
                let (low, high) = (border("low"), border("high"));
                let (low, high) = (low.ok_or_else(misfit)?, high.ok_or_else(misfit)?);
                let thresholds = Thresholds::new(low, high)?;
                let codes = kept.take_bytes("codes").ok_or_else(misfit)?;
                let fits = thresholds.width() == network.features()
                    && codes.len() == all * thresholds.stride();
                if !fits {
                    return Err(misfit());
                }
                Values::Bands(Arc::new(thresholds), codes)
            }
            hold => {
                let numbers = kept.take("values").ok_or_else(misfit)?.into_vec();
                let width = match hold {
                    Hold::Logits => network.outputs(),
                    _ => network.features(),
                };
                if numbers.len() != all * width || ids.len() != rows.len() {
                    return Err(misfit());
                }
                Values::Numbers(numbers)
            }
        };
        self.store = Some(Store::new(ids, rows, values));
        Ok(())
    }

    fn sources(&self) -> Option<&[ExampleId]> {
        self.store.as_ref().map(|store| &store.ids[..])
    }

    fn bytes(&self) -> u64 {
        let of = |store: &Store| match &store.values {
            Values::Nothing => 0,
            Values::Bands(thresholds, codes) => codes.len() + 8 * thresholds.width(),
            Values::Numbers(numbers) => 4 * numbers.len(),
        };
        self.store.as_ref().map_or(0, of) as u64
    }
}

/// The strength of what is held.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Strength {
    Fixed(f64),
    Named(Named),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Named {
    /// As large as the loss at labels.
    Dynamic,
}

/// What a recipe says of the whole method.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct MethodSettings {
    examples: usize,
    rows: usize,
    hold: Hold,
    permuted: bool,
    /// The factor w, or `"dynamic"`.
    weight: Strength,
    /// Divides the logits, where they are held.
    temperature: f64,
}

impl Default for MethodSettings {
    fn default() -> Self {
        let s = GereSettings::default();
        Self {
            examples: s.examples,
            rows: s.rows,
            hold: s.hold,
            permuted: s.permuted,
            weight: Strength::Fixed(100.0),
            temperature: 2.0,
        }
    }
}

fn parts(s: &MethodSettings) -> Parts {
    let held = match s.hold {
        Hold::Bands => Some(LossSpec::ThresholdMargin),
        Hold::Features => Some(LossSpec::StoredFeaturesL2),
        Hold::Logits => Some(LossSpec::LogitsKl),
        Hold::Labels => None,
    };
    let held = held.map(|loss| TermSpec {
        weight: match s.weight {
            Strength::Fixed(w) => w,
            Strength::Named(Named::Dynamic) => 1.0,
        },
        balanced: s.weight == Strength::Named(Named::Dynamic),
        temperature: (s.hold == Hold::Logits).then_some(s.temperature),
        ..TermSpec::new(SUPPORT, loss)
    });
    let labels = ["new", SUPPORT].map(|on| cross_entropy(on, 1.0));
    Parts {
        term: labels.into_iter().chain(held).collect(),
        plugin: vec![PluginSpec::Gere(GereSettings {
            examples: s.examples,
            rows: s.rows,
            hold: s.hold,
            permuted: s.permuted,
        })],
        reduction: Some(ReductionSpec::SumOfMeans),
        ..Parts::default()
    }
}

/// GeRe in the table of methods.
pub const GERE: MethodCard = MethodCard {
    name: "gere",
    aliases: &["general-samples-replay"],
    title: "General samples replay with the threshold margin",
    source: "Zhang et al., 2025",
    card: "S160",
    family: "replay",
    use_it: "fine-tuning a pre-trained model of which texts like its own are at hand",
    not_for: "what the general examples do not show",
    stores: "two bits for each feature of each token of `examples` examples",
    costs: "`rows` rows on top of the batch",
    defaults: || settings(&MethodSettings::default()),
    expand: |with, _| Ok(parts(&read(with)?)),
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging::{self, softmax};
    use crate::session::Session;

    /// A step's batch as the loop makes it, and what its objective comes to.
    fn step(s: &mut Session, plugin: &mut Gere) -> (Batch, PassResult, Objective) {
        staging::act(s, 1, |scene| {
            plugin.begin_experience(scene).expect("it begins");
            let new = scene.train()[..7].to_vec();
            let mut collect = Collect::default();
            collect.support("new");
            collect.items(scene.stream, &new, scene.class_sets);
            plugin.add_rows(scene, &new, &mut collect).expect("rows");
            let mut batch = scene.finish(collect);
            plugin.before_step(scene, &mut batch).expect("references");
            let mut objective = Cow::Borrowed(scene.objective);
            let reshaped = plugin.reshape(scene, &batch, &mut objective);
            reshaped.expect("nothing to fail at");
            let pass = scene.oracle.evaluate(&objective, &batch).expect("a value");
            plugin.after_step(scene, &batch, &pass).expect("readings");
            (batch, pass, objective.into_owned())
        })
    }

    fn plugin(hold: Hold, permuted: bool) -> Gere {
        Gere::new(GereSettings {
            examples: 30,
            rows: 5,
            hold,
            permuted,
        })
    }

    fn session(hold: &str, weight: &str) -> Session {
        let sets = [("with.hold", hold), ("with.weight", weight)];
        staging::session("gere", "domain", &sets)
    }

    fn reading(plugin: &Gere, name: &str) -> f64 {
        let all = plugin.readings();
        all.into_iter()
            .find(|(n, _)| n == name)
            .expect("it is read")
            .1
    }

    fn cross_entropies(batch: &Batch, logits: &[f32], rows: std::ops::Range<usize>) -> f64 {
        let width = logits.len() / batch.rows.len();
        let each = rows.clone().map(|i| {
            let z: Vec<f64> = (logits[i * width..(i + 1) * width].iter())
                .map(|v| f64::from(*v))
                .collect();
            -softmax(&z)[batch.rows.labels[i] as usize].ln()
        });
        each.sum::<f64>() / rows.len() as f64
    }

    /// In the model that began nothing lies outside of its band; a model that moved away has the
    /// loss of the paper, written out in f64 on the features that both have.
    #[test]
    fn the_loss_is_that_of_the_paper() {
        for weight in ["100.0", "dynamic"] {
            let mut s = session("bands", weight);
            let mut gere = plugin(Hold::Bands, false);
            let (batch, pass, objective) = step(&mut s, &mut gere);
            assert_eq!(batch.ids.len(), 12);
            assert_eq!(objective.terms.len(), 3);
            assert_eq!(
                (pass.value.terms[2], reading(&gere, "violations")),
                (0.0, 0.0)
            );

            // The set's features then.
            let set = gere.set.clone();
            let wide = |values: Vec<f32>| -> Vec<Vec<f64>> {
                let width = values.len() / set.len();
                let rows = values.chunks_exact(width);
                rows.map(|row| row.iter().map(|v| f64::from(*v)).collect())
                    .collect()
            };
            let shown = |s: &mut Session| {
                let features = staging::act(s, 1, |scene| {
                    let batch = scene.batch_of("any", &set);
                    scene.oracle.forward(&batch).1
                });
                wide(features)
            };
            let h0 = shown(&mut s);
            staging::jolt(&mut s.oracle.model, 0.4);
            let h = shown(&mut s);
            let (batch, pass, _) = step(&mut s, &mut gere);
            let place = |i: usize| set.iter().position(|item| item.id == batch.ids[i]);
            let met: Vec<usize> = (7..12).map(|i| place(i).expect("of the set")).collect();
            let (mut sum, mut count) = (0.0, 0usize);
            for d in 0..h0[0].len() {
                let n = h0.len() as f64;
                let mean = h0.iter().map(|row| row[d]).sum::<f64>() / n;
                let square = h0.iter().map(|row| (row[d] - mean).powi(2));
                let s = (square.sum::<f64>() / n).sqrt();
                let (lo, hi) = (mean - s, mean + s);
                for &e in &met {
                    let (h0, h) = (h0[e][d], h[e][d]);
                    let out = if h0 <= lo {
                        (h - lo).max(0.0)
                    } else if h0 >= hi {
                        (hi - h).max(0.0)
                    } else {
                        (h - hi).max(0.0) + (lo - h).max(0.0)
                    };
                    sum += out;
                    count += usize::from(out > 0.0);
                }
            }
            assert!(count > 3, "the model moved too little to test anything");
            let margin = sum / count as f64;
            let labels = 0.5
                * (cross_entropies(&batch, &pass.logits, 0..7)
                    + cross_entropies(&batch, &pass.logits, 7..12));
            let want = match weight {
                "dynamic" => labels + labels / (margin + 1e-8) * margin,
                _ => labels + 100.0 * margin,
            };
            let found = pass.value.total;
            assert!(
                (found - want).abs() < 2e-5 * want,
                "{weight}: {found} {want}"
            );
            assert!((reading(&gere, "margin") - margin).abs() < 1e-5);
            let rate = count as f64 / (5 * h0[0].len()) as f64;
            assert!((reading(&gere, "violations") - rate).abs() < 1e-12);
        }
    }

    /// The comparators hold what they say: nothing at first, and something once the model moved.
    #[test]
    fn features_and_logits_are_held_too() {
        for (name, hold) in [("features", Hold::Features), ("logits", Hold::Logits)] {
            let mut s = session(name, "1.0");
            let mut gere = plugin(hold, false);
            let (_, pass, _) = step(&mut s, &mut gere);
            assert!(pass.value.terms[2].abs() < 1e-9, "{name}");
            staging::jolt(&mut s.oracle.model, 0.4);
            let (_, pass, _) = step(&mut s, &mut gere);
            assert!(pass.value.terms[2] > 1e-3, "{name}");
        }
        let mut s = session("labels", "1.0");
        let (batch, pass, _) = step(&mut s, &mut plugin(Hold::Labels, false));
        assert_eq!(pass.value.terms.len(), 2);
        let want = cross_entropies(&batch, &pass.logits, 7..12) / 2.0;
        assert!((pass.value.terms[1] - want).abs() < 1e-6);
    }

    /// The control keeps every code and gives it to another row.
    #[test]
    fn permuted_bands_are_those_of_other_rows() {
        let codes: Vec<u8> = (0..40).collect();
        let active: Vec<bool> = (0..20).map(|i| i % 5 != 0).collect();
        let changed = permuted(&codes, 2, &active, Key::new(3, "permuted"));
        let rows = |codes: &[u8]| codes.chunks(2).map(<[u8]>::to_vec).collect::<Vec<_>>();
        let (before, after) = (rows(&codes), rows(&changed));
        let moved = (0..20).filter(|i| before[*i] != after[*i]).count();
        assert!(moved > 10 && (0..20).step_by(5).all(|i| before[i] == after[i]));
        let mut sorted = after.clone();
        sorted.sort();
        assert_eq!(sorted, before);
        // It is no longer true of the model that began.
        let mut gere = plugin(Hold::Bands, true);
        let (_, pass, _) = step(&mut session("bands", "1.0"), &mut gere);
        assert!(pass.value.terms[2] > 0.0 && reading(&gere, "violations") > 0.1);
    }

    /// A step's rows are drawn by id: without one example the others are drawn as before.
    #[test]
    fn an_example_less_changes_no_other_draw() {
        let mut s = session("bands", "1.0");
        let mut gere = plugin(Hold::Bands, false);
        let (batch, ..) = step(&mut s, &mut gere);
        let drawn = batch.ids[7..].to_vec();
        gere.set.retain(|item| item.id != drawn[2]);
        let (batch, ..) = step(&mut s, &mut gere);
        let now = &batch.ids[7..];
        assert_eq!(now.len(), 5);
        let others = [drawn[0], drawn[1], drawn[3], drawn[4]];
        assert_eq!(now[..4], others);
    }
}
