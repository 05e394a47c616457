//! Language-aware neurons.
//!
//! **What it does.** Asks of every feed-forward neuron how much the loss on each language would
//! change without it, and trains only the neurons that all of them need and those that the new one
//! needs above the others. A neuron is a row of gate and up and a column of down.
//! **Source.** Zhu et al., ACL 2024, "LANDeRMT: detecting and routing language-aware neurons for
//! selectively finetuning LLMs to machine translation" (card S025).
//! **Equation.** `Θ_i(p) = E_{x ∈ p} |Σ_t h_i ∂L/∂h_i|`, divided by its sum over `i` so that corpora
//! of other sizes and losses count alike. Of a budget of `share · n` neurons, the share `general`
//! goes to the highest `min_p Θ_i(p)`, the rest to the highest `Θ_i(new) − max_{p ≠ new} Θ_i(p)`.
//! **Use it** where experiences are languages or domains that share what they know. **Not** for
//! new facts in a known language, which need neurons that nobody uses yet.
//! **Decided here**, where the card leaves it open: the two rules above in the place of its
//! thresholds; everything but these neurons is held, embeddings too; no gate is put between
//! general and specific neurons at run time, since it would be another network.
//! **Stores** a copy of the weights. **Costs** a forward and a backward pass over samples of all
//! languages an experience, and a copy of the frozen values a step.

use crate::error::Result;
use crate::methods::{MethodCard, settings};
use crate::oracle::Oracle;
use crate::places::places;
use crate::plugin::{Plugin, Scene};
use crate::scores::{column, highest, taylor};
use crate::spec::{Parts, PluginSpec};
use ebb_data::{Item, Part};
use ebb_net::{Place, Role};
use ebb_space::{Key, Layout, Mask};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which neurons are trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct LanguageNeuronsSettings {
    /// Share of all neurons that is trained.
    pub share: f64,
    /// Share of these that is general.
    pub general: f64,
    /// Texts of each language that are looked at; 0: all.
    pub samples: usize,
    /// As many neurons by a draw: a control.
    pub random: bool,
}

impl Default for LanguageNeuronsSettings {
    fn default() -> Self {
        Self {
            share: 0.3,
            general: 0.5,
            samples: 200,
            random: false,
        }
    }
}

/// The neurons of a network: the taps at which they fire, in the order of the blocks, and which
/// of its parameters are theirs.
pub struct Neurons {
    layout: Arc<Layout>,
    places: Vec<Place>,
    taps: Vec<String>,
    /// Neurons at each tap, and the number of the first.
    counts: Vec<(usize, usize)>,
    /// Blocks in the order of the taps.
    blocks: BTreeMap<usize, usize>,
}

impl Neurons {
    /// Those of a model.
    ///
    /// # Errors
    /// When its network is not made of blocks.
    pub fn of(oracle: &Oracle) -> Result<Self> {
        let places = places(oracle, "language-neurons")?;
        let layout = oracle.model.layout().clone();
        let (mut taps, mut counts, mut blocks) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut first = 0;
        for (place, entry) in places.iter().zip(layout.entries()) {
            if let (Role::Down, Some(stored), Some(block)) = (place.role, place.stored, place.block)
            {
                let n = match stored {
                    ebb_kernels::Stored::OutIn => entry.shape[1],
                    ebb_kernels::Stored::InOut => entry.shape[0],
                };
                blocks.insert(block, taps.len());
                taps.push(format!("{}.in", place.module));
                counts.push((first, n));
                first += n;
            }
        }
        Ok(Self {
            layout,
            places,
            taps,
            counts,
            blocks,
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.counts.iter().map(|(_, n)| n).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `Θ` of texts (rows of signed ids), summing to 1.
    ///
    /// # Errors
    /// When a pass fails.
    pub fn awareness(&self, oracle: &mut Oracle, texts: &[f32]) -> Result<Vec<f64>> {
        let mut theta = taylor(oracle, texts, &self.taps)?.concat();
        let sum: f64 = theta.iter().sum();
        if sum > 0.0 {
            theta.iter_mut().for_each(|t| *t /= sum);
        }
        Ok(theta)
    }

    /// Every parameter but those of the chosen neurons.
    pub fn all_but(&self, chosen: &[bool]) -> Mask {
        let mut trained = vec![false; self.layout.len()];
        for (place, entry) in self.places.iter().zip(self.layout.entries()) {
            let block = place.block.and_then(|block| self.blocks.get(&block));
            let Some((first, n)) = block.map(|at| self.counts[*at]) else {
                continue;
            };
            let len = entry.range.len();
            // The neuron that element `i` belongs to.
            let of = |i: usize| -> Option<usize> {
                match (place.role, place.stored) {
                    (Role::Down, Some(stored)) => Some(column(i, n, len / n, stored)),
                    (Role::Gate | Role::Up, Some(stored)) => {
                        let inputs = len / n;
                        Some(match stored {
                            ebb_kernels::Stored::OutIn => i / inputs,
                            ebb_kernels::Stored::InOut => i % n,
                        })
                    }
                    (Role::Gate | Role::Up, None) => Some(i),
                    _ => None,
                }
            };
            for (i, trained) in trained[entry.range.clone()].iter_mut().enumerate() {
                *trained = of(i).is_some_and(|neuron| chosen[first + neuron]);
            }
        }
        Mask::from_fn(&self.layout, |i| !trained[i])
    }
}

impl LanguageNeuronsSettings {
    /// The neurons to train for the last of these languages, by each language's awareness.
    pub fn choose(&self, theta: &[Vec<f64>], key: Key) -> Vec<bool> {
        let Some((new, old)) = theta.split_last() else {
            return Vec::new();
        };
        let n = new.len();
        let budget = (self.share * n as f64).floor();
        if self.random {
            let draws: Vec<f64> = (0..n as u64).map(|i| key.uniform(i)).collect();
            return highest(&draws, self.share);
        }
        let least = |i: usize| theta.iter().map(|t| t[i]).fold(f64::INFINITY, f64::min);
        let common: Vec<f64> = (0..n).map(least).collect();
        let general = (self.general * budget).floor();
        let mut chosen = highest(&common, general / n.max(1) as f64);
        let most = |i: usize| old.iter().map(|t| t[i]).fold(0.0, f64::max);
        let own = |i: usize| match chosen[i] {
            // It has its place already.
            true => f64::NEG_INFINITY,
            false => new[i] - most(i),
        };
        let own: Vec<f64> = (0..n).map(own).collect();
        let specific = highest(&own, (budget - general) / n.max(1) as f64);
        chosen.iter_mut().zip(specific).for_each(|(c, s)| *c |= s);
        chosen
    }
}

/// The plugin.
pub struct LanguageNeurons {
    settings: LanguageNeuronsSettings,
}

impl LanguageNeurons {
    /// A plugin with these settings.
    pub fn new(settings: LanguageNeuronsSettings) -> Self {
        Self { settings }
    }
}

impl Plugin for LanguageNeurons {
    fn name(&self) -> &'static str {
        "language-neurons"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if scene.experience == 0 {
            return Ok(());
        }
        let neurons = Neurons::of(scene.oracle)?;
        let key = scene.key.sub("language-neurons");
        let mut theta = Vec::with_capacity(scene.experience + 1);
        for experience in &scene.stream.experiences[..=scene.experience] {
            let mut items: Vec<Item> = experience.train.to_vec();
            key.sub("texts").order(&mut items, |i| i.id.mix());
            if self.settings.samples > 0 {
                items.truncate(self.settings.samples);
            }
            let mut texts = Vec::new();
            scene.stream.gather(Part::Train, &items, &mut texts);
            theta.push(neurons.awareness(scene.oracle, &texts)?);
        }
        let key = key.sub("random").at(scene.experience as u64);
        let chosen = self.settings.choose(&theta, key);
        scene.freeze(neurons.all_but(&chosen));
        Ok(())
    }
}

/// Language-aware neurons in the table of methods.
pub const LANGUAGE_NEURONS: MethodCard = MethodCard {
    name: "language-neurons",
    aliases: &["landermt"],
    title: "Language-aware neurons",
    source: "Zhu et al., ACL 2024",
    card: "S025",
    family: "frozen weights",
    use_it: "for experiences that are languages or domains",
    not_for: "new facts in a known language; networks without feed-forward blocks (refused)",
    stores: "a copy of the weights",
    costs: "a backward pass over samples of all languages an experience, a copy of the frozen \
            values a step",
    defaults: || settings(&LanguageNeuronsSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            plugin: vec![PluginSpec::LanguageNeurons(crate::methods::read(with)?)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn general_neurons_serve_all_and_specific_ones_the_new_language_alone() {
        let settings = LanguageNeuronsSettings {
            share: 0.5,
            general: 0.5,
            ..LanguageNeuronsSettings::default()
        };
        let theta = [
            vec![0.3, 0.4, 0.0, 0.0, 0.2, 0.1, 0.0, 0.0],
            vec![0.3, 0.0, 0.4, 0.0, 0.0, 0.2, 0.1, 0.0],
        ];
        // Four of eight: the least of both is highest at 0 (0.3) and 5 (0.1); the new language is
        // ahead at 2 (0.4) and 6 (0.1).
        let chosen = settings.choose(&theta, Key::new(0, ""));
        let of: Vec<usize> = (0..8).filter(|i| chosen[*i]).collect();
        assert_eq!(of, [0, 2, 5, 6]);
        let random = LanguageNeuronsSettings {
            random: true,
            ..settings
        };
        let drawn = random.choose(&theta, Key::new(0, ""));
        assert_eq!(drawn.iter().filter(|c| **c).count(), 4);
    }
}
