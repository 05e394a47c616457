//! Gradient-based sample selection, the greedy form.
//!
//! **What it does.** Keeps the examples whose gradients point apart: a new one takes the place of
//! one that resembles others more, and only where it points away from what is kept.
//! **Source.** Aljundi et al., NeurIPS 2019, "Gradient based sample selection for online continual
//! learning", algorithm 2; the gate by batches is that of its public codes (peers' protocol).
//! **Equation.** `c(x) = 1 + max_j cos(∇ℓ(x), ∇ℓ(M_j))` over `compared` random `M_j` of the memory,
//! each the mean over `rows` records. While there is room everything enters. In a full memory an
//! example with `c < 1` picks the record `i` with probability `C_i / ΣC` and replaces it with
//! probability `C_i / (C_i + c)`. With `gate = "batch"` the score of the whole batch's mean gradient
//! decides whether its examples are looked at, and is theirs while there is room.
//! **Use it** online and without boundaries. **Not** with noisy labels: their gradients point
//! furthest apart.
//! **Stores** `capacity` examples and a score each. **Costs** on top of experience replay one
//! gradient evaluation a step on the batch and the `compared · rows` records, if every parameter
//! sits in a linear layer; otherwise one for each of these rows.
//!
//! Departures: the `M_j` are drawn once a step; an example that is kept already is not offered
//! again; the first batch has the score 0.1, as in the public codes.

use crate::batch::{Batch, Collect};
use crate::error::{Error, Result};
use crate::methods::er::{cross_entropy, draw};
use crate::methods::{MethodCard, memory_and, settings_beside, take};
use crate::oracle::{Oracle, PassResult};
use crate::per_example::Gram;
use crate::plugin::{Kept, Plugin, Scene};
use crate::replay::Offered;
use crate::spec::{KeepSpec, Parts, PluginSpec, ReductionSpec, SelectSpec};
use ebb_data::Item;
use ebb_memory::Select;
use ebb_space::{Key, Layout, Weights};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What must point away before an example may replace another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// The example's gradient, as in the paper.
    Example,
    /// The batch's, as in the public codes.
    Batch,
}

/// GSS's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct GssSettings {
    /// Gradients of the memory that a new one is compared with.
    pub compared: usize,
    /// Records behind each of them.
    pub rows: usize,
    /// What must point away.
    pub gate: Gate,
}

impl Default for GssSettings {
    fn default() -> Self {
        Self {
            compared: 10,
            rows: 1,
            gate: Gate::Batch,
        }
    }
}

/// The score of a batch that meets an empty memory.
const FIRST: f32 = 0.1;

/// The plugin.
pub struct Gss {
    settings: GssSettings,
    /// The new examples of the step under way.
    new: Vec<Item>,
    /// `C`, by the digest of a record's id.
    scores: BTreeMap<u64, f32>,
}

/// A place in the memory while a batch is offered.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Slot {
    id: u64,
    score: f32,
    /// Which of the offered examples is in it, if one is.
    taken_by: Option<u32>,
}

/// The scores of the examples offered in a step.
struct Scores {
    batch: f32,
    each: Vec<f32>,
}

impl Gss {
    /// A plugin with these settings.
    pub fn new(settings: GssSettings) -> Self {
        Self {
            settings,
            new: Vec::new(),
            scores: BTreeMap::new(),
        }
    }

    /// `c` of the offered examples and of their mean gradient.
    fn scores(&self, scene: &mut Scene, offered: &[Item]) -> Result<Scores> {
        let Some(replay) = scene.replay.as_deref().filter(|r| !r.memory.is_empty()) else {
            return Ok(Scores {
                batch: FIRST,
                each: vec![FIRST; offered.len()],
            });
        };
        let size = self.settings.compared * self.settings.rows;
        let drawn = (replay.memory).draw("gss", Select::Uniform, size, scene.step)?;
        let mut collect = Collect::default();
        replay.add_slots(&mut collect, "memory", &drawn.slots)?;
        collect.support("new");
        collect.items(scene.stream, offered, scene.class_sets);
        let batch = scene.finish(collect);
        scores(scene.oracle, &batch, drawn.slots.len(), self.settings.rows)
    }

    /// The memory's slots after `offered` were met, one after the other.
    fn select(
        &self,
        mut slots: Vec<Slot>,
        capacity: usize,
        offered: &[u64],
        scores: &Scores,
        key: Key,
    ) -> Vec<Slot> {
        for (i, (id, own)) in offered.iter().zip(&scores.each).enumerate() {
            let gate = match self.settings.gate {
                Gate::Example => *own,
                Gate::Batch => scores.batch,
            };
            let entry = |score| Slot {
                id: *id,
                score,
                taken_by: Some(i as u32),
            };
            if slots.len() < capacity {
                slots.push(entry(gate));
            } else if gate < 1.0
                && let Some(slot) = replaced(&slots, *own, key.at(*id))
            {
                slots[slot] = entry(*own);
            }
        }
        slots
    }
}

/// `1 + max cos` of every row behind the first `held` of `batch`, and of all of them together, to
/// the first `held` in groups of `rows`. What is left of the last group does not count, unless it
/// is the only one.
fn scores(oracle: &mut Oracle, batch: &Batch, held: usize, rows: usize) -> Result<Scores> {
    let gram = Gram::of(oracle, batch)?;
    let records: Vec<usize> = (0..held).collect();
    let mut groups: Vec<Vec<usize>> = records.chunks(rows).map(<[usize]>::to_vec).collect();
    if held > rows {
        groups.retain(|g| g.len() == rows);
    }
    let score = |of: &[usize]| (1.0 + gram.nearest(of, &groups)).max(0.0) as f32;
    let new: Vec<usize> = (held..batch.rows.len()).collect();
    Ok(Scores {
        batch: score(&new),
        each: new.iter().map(|i| score(&[*i])).collect(),
    })
}

/// The slot that an example of score `c` takes, if it takes one: slot `i` is picked with
/// probability `C_i / ΣC`, by a race of keyed exponentials, and is taken with `C_i / (C_i + c)`.
fn replaced(slots: &[Slot], c: f32, key: Key) -> Option<usize> {
    let race = key.sub("candidate");
    let arrival = |s: &Slot| -(1.0 - race.uniform(s.id)).ln() / f64::from(s.score);
    let racers = slots.iter().enumerate().filter(|(_, s)| s.score > 0.0);
    let (slot, picked) = racers.min_by(|(_, a), (_, b)| arrival(a).total_cmp(&arrival(b)))?;
    let share = f64::from(picked.score) / f64::from(picked.score + c);
    (key.sub("take").uniform(picked.id) < share).then_some(slot)
}

impl Plugin for Gss {
    fn name(&self) -> &'static str {
        "gss"
    }

    fn add_rows(&mut self, _: &mut Scene, new: &[Item], _: &mut Collect) -> Result<()> {
        self.new = new.to_vec();
        Ok(())
    }

    fn after_step(&mut self, scene: &mut Scene, _: &Batch, _: &PassResult) -> Result<()> {
        let Some(memory) = scene.replay.as_deref().map(|r| &r.memory) else {
            return Ok(());
        };
        let mut offered = std::mem::take(&mut self.new);
        offered.retain(|item| memory.find(&item.id).is_none());
        if offered.is_empty() {
            return Ok(());
        }
        let capacity = memory.config().capacity;
        let kept = memory.metas().iter().map(|m| m.id.mix());
        let kept: Vec<Slot> = kept
            .map(|id| Slot {
                id,
                score: self.scores.get(&id).copied().unwrap_or(FIRST),
                taken_by: None,
            })
            .collect();
        let before = kept.len();
        let scores = self.scores(scene, &offered)?;
        let ids: Vec<u64> = offered.iter().map(|i| i.id.mix()).collect();
        let key = scene.key.sub("gss").at(scene.step);
        let slots = self.select(kept, capacity, &ids, &scores, key);
        if slots.iter().all(|s| s.taken_by.is_none()) {
            return Ok(());
        }
        self.scores = slots.iter().map(|s| (s.id, s.score)).collect();
        let mut evict: Vec<u32> = (0..before as u32)
            .filter(|s| slots[*s as usize].taken_by.is_some())
            .collect();
        let mut admit: Vec<u32> = slots.iter().filter_map(|s| s.taken_by).collect();
        admit.sort_unstable();
        // The memory takes the records of one task at a time.
        let (stream, experience, step) = (scene.stream, scene.experience, scene.step);
        let mut start = 0;
        for items in offered.chunk_by(|a, b| a.task == b.task) {
            let end = start + items.len() as u32;
            let of_these = admit.iter().filter(|i| (start..end).contains(*i));
            let admit: Vec<u32> = of_these.map(|i| i - start).collect();
            let leave: Vec<u32> = evict.drain(..admit.len().min(evict.len())).collect();
            if let Some(replay) = scene.replay.as_deref_mut().filter(|_| !admit.is_empty()) {
                let offered = Offered {
                    stream,
                    items,
                    logits: &[],
                    features: &[],
                    experience,
                    step,
                };
                replay.take_in(&offered, &admit, &leave)?;
            }
            start = end;
        }
        Ok(())
    }

    fn keep(&self) -> Result<Kept> {
        let scores: Vec<f32> = self.scores.values().copied().collect();
        let ids: Vec<u64> = self.scores.keys().copied().collect();
        let layout = Layout::new([("score".to_owned(), vec![scores.len()])])?;
        let scores = Weights::from_vec(&layout, scores)?;
        Kept::vectors(vec![("scores".to_owned(), scores)]).with_note(&ids)
    }

    fn restore(&mut self, mut kept: Kept, _: &mut Oracle) -> Result<()> {
        let ids: Vec<u64> = kept.note()?;
        let scores = kept.take("scores").map_or_else(Vec::new, Weights::into_vec);
        if ids.len() != scores.len() {
            return Err(Error::Checkpoint {
                path: "a plugin's note".into(),
                reason: format!("it names {} records for {} scores", ids.len(), scores.len()),
            });
        }
        self.scores = ids.into_iter().zip(scores).collect();
        Ok(())
    }

    fn bytes(&self) -> u64 {
        12 * self.scores.len() as u64
    }
}

/// GSS in the table of methods.
pub const GSS: MethodCard = MethodCard {
    name: "gss",
    aliases: &["gss-greedy", "gradient-based-sample-selection"],
    title: "Gradient-based sample selection",
    source: "Aljundi et al., NeurIPS 2019",
    card: "S124",
    family: "replay",
    use_it: "online, without boundaries, with a small memory",
    not_for: "noisy labels, whose gradients point furthest apart",
    stores: "`capacity` examples and a score each",
    costs: "the replayed rows, and a gradient on the batch and `compared * rows` records",
    defaults: || {
        let mut table = settings_beside(300, &GssSettings::default());
        table.insert("replay".into(), 0.into());
        table
    },
    expand: |with, _| {
        let mut with = with.clone();
        let replay = take(&mut with, "replay")?;
        let (memory, own) = memory_and(&with, KeepSpec::Chosen, 1)?;
        Ok(Parts {
            memory: Some(memory),
            draw: BTreeMap::from([("a".to_owned(), draw(SelectSpec::Uniform, replay))]),
            term: vec![cross_entropy("all", 1.0)],
            reduction: Some(ReductionSpec::MeanOverRows),
            plugin: vec![PluginSpec::Gss(own)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging;

    fn slots(scores: &[f32]) -> Vec<Slot> {
        let slot = |(id, score): (u64, &f32)| Slot {
            id,
            score: *score,
            taken_by: None,
        };
        (100..).zip(scores).map(slot).collect()
    }

    /// Slot i is taken with probability `C_i / ΣC · C_i / (C_i + c)`: a chi-square test over keys.
    #[test]
    fn records_are_replaced_with_the_published_probabilities() {
        let (scores, c) = ([0.2f32, 1.0, 0.0, 1.8, 0.6], 0.7f32);
        let slots = slots(&scores);
        let trials = 40_000u64;
        let mut taken = [0.0f64; 6];
        for t in 0..trials {
            let at = replaced(&slots, c, Key::new(1, "replaced").at(t)).unwrap_or(5);
            taken[at] += 1.0;
        }
        let sum: f32 = scores.iter().sum();
        let mut want = [0.0f64; 6];
        for (w, s) in want.iter_mut().zip(scores) {
            *w = f64::from(s / sum * s / (s + c)) * trials as f64;
        }
        want[5] = trials as f64 - want.iter().sum::<f64>();
        assert_eq!(taken[2], 0.0);
        let chi2: f64 = (0..6)
            .filter(|i| *i != 2)
            .map(|i| (taken[i] - want[i]).powi(2) / want[i])
            .sum();
        assert!(chi2 < 23.5, "{chi2} at 4 degrees of freedom"); // p = 1e-4
    }

    /// Filling, the gates, and an example that takes the place of one of its own batch.
    #[test]
    fn a_batch_is_met_one_example_after_the_other() {
        let gss = |gate| {
            Gss::new(GssSettings {
                gate,
                ..GssSettings::default()
            })
        };
        let met = |gate, batch: f32, each: [f32; 3], capacity| {
            let scores = Scores {
                batch,
                each: each.to_vec(),
            };
            let key = Key::new(3, "met");
            gss(gate).select(slots(&[1.5, 1.9]), capacity, &[7, 8, 9], &scores, key)
        };
        let taken = |slots: &[Slot]| slots.iter().map(|s| s.taken_by).collect::<Vec<_>>();
        // Room for all: they enter with the score of the gate.
        let all = met(Gate::Batch, 1.7, [0.1, 0.2, 0.3], 9);
        assert_eq!(taken(&all), [None, None, Some(0), Some(1), Some(2)]);
        assert!(all[2..].iter().all(|s| s.score == 1.7));
        let all = met(Gate::Example, 1.7, [0.1, 0.2, 0.3], 9);
        assert_eq!(all[3].score, 0.2);
        // A full memory whose batch does not point away stays as it is.
        assert_eq!(taken(&met(Gate::Batch, 1.0, [0.0; 3], 2)), [None, None]);
        let some = met(Gate::Example, 0.0, [1.0, 0.0, 1.2], 2);
        assert!(taken(&some).contains(&Some(1)) && some.iter().any(|s| s.taken_by.is_none()));
        // Score 0 takes what it picks and is never picked: both old ones leave.
        let gone = met(Gate::Batch, 0.5, [0.0; 3], 2);
        assert!(gone.iter().all(|s| s.taken_by.is_some() && s.score == 0.0));
    }

    /// The scores against gradients of the objective, taken and compared one at a time.
    #[test]
    fn scores_are_cosines_of_gradients() {
        let mut s = staging::session("gss", "class", &[]);
        staging::act(&mut s, 0, |scene| {
            let items = scene.train()[..9].to_vec();
            let batch = scene.batch_of("all", &items);
            let loss = scene.remembering;
            let mut gradient = |rows: std::ops::Range<usize>| {
                let mut g = Weights::zeros(scene.oracle.model.layout());
                let part = batch.part(rows);
                scene
                    .oracle
                    .gradient(loss, &part, None, &mut g)
                    .expect("a gradient");
                g
            };
            // Five records in groups of two: the fifth does not count.
            let (groups, all) = ([gradient(0..2), gradient(2..4)], gradient(5..9));
            let each: Vec<Weights> = (5..9).map(|i| gradient(i..i + 1)).collect();
            let score = |g: &Weights| {
                let cosines = groups.iter().map(|m| m.dot(g) / (m.norm() * g.norm()));
                1.0 + cosines.fold(f64::MIN, f64::max)
            };
            let found = scores(scene.oracle, &batch, 5, 2).expect("scores");
            let near = |a: f32, b: f64| (f64::from(a) - b).abs() < 1e-5;
            assert!(near(found.batch, score(&all)));
            assert_eq!(found.each.len(), 4);
            for (a, g) in found.each.iter().zip(&each) {
                assert!(near(*a, score(g)));
            }
        });
    }
}
