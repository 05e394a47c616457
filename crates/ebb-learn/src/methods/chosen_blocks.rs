//! Blocks chosen by how much they turn the stream.
//!
//! **What it does.** Before a new experience it measures how far each block turns the hidden state
//! of the new texts, trains the blocks that turn it most, and holds everything else.
//! **Source.** Choi & Gazeley, 2024, "LLM-ADE: adaptive data engineering for continued
//! pre-training" (card S027).
//! **Equation.** `d_l = E (1/π) arccos(h_lᵀ h_{l+1} / |h_l| |h_{l+1}|)` at the last token of a text,
//! `h_l` being what block `l` reads.
//! **Use it** to go on with a new corpus at little cost. **Not** where all of the network has to
//! change. **Deviation.** The paper also puts copies that answer 0 behind the chosen blocks and
//! trains those; here the blocks themselves are trained and none is added, since a network that
//! grows in the middle of a run is another network.
//! **Stores** a copy of the weights. **Costs** a forward pass over samples an experience, and a
//! copy of the frozen values a step.

use crate::error::Result;
use crate::language;
use crate::methods::{MethodCard, settings};
use crate::oracle::{Oracle, no_such_tap};
use crate::places::{blocks, places, whole};
use crate::plugin::{Plugin, Scene};
use crate::scores::highest;
use crate::spec::{Parts, PluginSpec};
use ebb_data::Part;
use ebb_kernels::slices;
use ebb_net::{Place, Taps};
use ebb_space::Key;
use serde::{Deserialize, Serialize};

/// Which blocks are trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct ChosenBlocksSettings {
    /// How many.
    pub blocks: usize,
    /// Texts that are looked at; 0: all.
    pub samples: usize,
    /// As many by a draw: a control.
    pub random: bool,
    /// The first experience in which the others are held: 0 for a model that is trained already.
    pub from: usize,
}

impl Default for ChosenBlocksSettings {
    fn default() -> Self {
        Self {
            blocks: 2,
            samples: 200,
            random: false,
            from: 1,
        }
    }
}

/// The name of block `number`.
fn name(places: &[Place], number: usize) -> Option<String> {
    let inside = places.iter().find(|p| p.block == Some(number))?;
    let part = format!(".{number}.");
    let at = inside.module.find(&part)?;
    Some(inside.module[..at + part.len() - 1].to_owned())
}

/// How far each block turns what it reads, at the last token of each of these texts (rows of
/// signed ids): 0 not at all, 1 into its opposite.
///
/// # Errors
/// When the network has no blocks.
pub fn turns(oracle: &mut Oracle, texts: &[f32]) -> Result<Vec<f64>> {
    let places = places(oracle, "chosen-blocks")?;
    let names = (0..blocks(&places)).filter_map(|l| name(&places, l));
    let around: Vec<[String; 2]> = names
        .map(|name| [format!("{name}.in"), format!("{name}.out")])
        .collect();
    let width = oracle.model.network().inputs();
    let mut sums = vec![0.0; around.len()];
    for part in texts.chunks(width * 16) {
        let (x, lengths) = language::inputs_of(part, &oracle.model);
        let [rows, positions] = x.dims();
        let mut taps = around.iter().flatten().fold(Taps::none(), |t, n| t.read(n));
        oracle.model.forward(x, &mut taps);
        oracle.meter.forward_rows += (rows * positions) as u64;
        for (names, sum) in around.iter().zip(&mut sums) {
            let mut read = Vec::with_capacity(2);
            for name in names {
                let found = taps.value(name);
                let found = found.ok_or_else(|| no_such_tap(name, &oracle.model))?;
                read.push(slices::to_vec(found));
            }
            let channels = read[0].len() / (rows * positions).max(1);
            for (row, length) in lengths.iter().enumerate() {
                let at = (row * positions + length.saturating_sub(1)) * channels;
                *sum += turn(&read[0][at..at + channels], &read[1][at..at + channels]);
            }
        }
    }
    let n = (texts.len() / width.max(1)).max(1) as f64;
    sums.iter_mut().for_each(|sum| *sum /= n);
    Ok(sums)
}

/// The angle between two vectors, in half turns; 0 where one of them is 0.
fn turn(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    match lengths > 0.0 {
        true => (dot(a, b) / lengths).clamp(-1.0, 1.0).acos() / std::f64::consts::PI,
        false => 0.0,
    }
}

impl ChosenBlocksSettings {
    /// Which blocks are trained, by how far they turn.
    pub fn choose(&self, turns: &[f64], key: Key) -> Vec<bool> {
        let draws = || (0..turns.len() as u64).map(|l| key.uniform(l)).collect();
        let scores: Vec<f64> = if self.random { draws() } else { turns.to_vec() };
        // Half a block more, so that no rounding takes one away.
        let share = (self.blocks as f64 + 0.5) / turns.len().max(1) as f64;
        highest(&scores, share.min(1.0))
    }
}

/// The plugin.
pub struct ChosenBlocks {
    settings: ChosenBlocksSettings,
}

impl ChosenBlocks {
    /// A plugin with these settings.
    pub fn new(settings: ChosenBlocksSettings) -> Self {
        Self { settings }
    }
}

impl Plugin for ChosenBlocks {
    fn name(&self) -> &'static str {
        "chosen-blocks"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if scene.experience < self.settings.from {
            return Ok(());
        }
        let key = scene.key.sub("chosen-blocks").at(scene.experience as u64);
        let mut items = scene.train().to_vec();
        key.sub("texts").order(&mut items, |i| i.id.mix());
        if self.settings.samples > 0 {
            items.truncate(self.settings.samples);
        }
        let mut texts = Vec::new();
        scene.stream.gather(Part::Train, &items, &mut texts);
        let turns = turns(scene.oracle, &texts)?;
        let chosen = self.settings.choose(&turns, key.sub("random"));
        let places = places(scene.oracle, "chosen-blocks")?;
        let held = whole(scene.oracle.model.layout(), &places, |place| {
            !place.block.is_some_and(|block| chosen[block])
        });
        scene.freeze(held);
        Ok(())
    }
}

/// Chosen blocks in the table of methods.
pub const CHOSEN_BLOCKS: MethodCard = MethodCard {
    name: "chosen-blocks",
    aliases: &["llm-ade"],
    title: "Blocks that turn the stream most",
    source: "Choi & Gazeley, 2024",
    card: "S027",
    family: "frozen weights",
    use_it: "to go on with a new corpus at little cost",
    not_for: "networks without blocks (refused)",
    stores: "a copy of the weights",
    costs: "a forward pass over samples an experience, a copy of the frozen values a step",
    defaults: || settings(&ChosenBlocksSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            plugin: vec![PluginSpec::ChosenBlocks(crate::methods::read(with)?)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_angles_in_half_turns() {
        assert!((turn(&[1.0, 0.0], &[0.0, 2.0]) - 0.5).abs() < 1e-12);
        assert!((turn(&[1.0, 1.0], &[1.0, 0.0]) - 0.25).abs() < 1e-9);
        assert_eq!(turn(&[1.0, 2.0], &[0.0, 0.0]), 0.0);
        // Rounding must not leave the domain of the arc cosine.
        assert!(turn(&[0.1, 0.7, 0.3], &[0.1, 0.7, 0.3]) < 1e-7);
        assert!((turn(&[0.1, 0.7], &[-0.2, -1.4]) - 1.0).abs() < 1e-7);
        let two = ChosenBlocksSettings::default();
        let chosen = two.choose(&[0.1, 0.3, 0.2], Key::new(0, ""));
        assert_eq!(chosen, [false, true, true]);
    }
}
