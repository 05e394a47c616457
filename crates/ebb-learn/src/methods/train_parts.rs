//! Attention only, or gate and up only.
//!
//! **What it does.** Trains one kind of matrices in every block and holds everything else: the
//! attention, or the way up of the feed-forward half with its gate, whatever the network's family
//! calls them.
//! **Source.** Zhu et al., 2025, "How to teach large multimodal models new skills" (card S038):
//! what writes to the residual stream through the way down shifts the distribution of output
//! tokens, and much of what seems forgotten is that shift.
//! **Equation.** `θ_i ← θ_i` for every `i` outside of the parts, bit for bit.
//! **Use it** to teach a narrow skill to a model that knows much. **Not** from fresh weights, and
//! not to compare by steps: what learns slower forgets less (compare at equal skill).
//! **Decided here**: biases go with their matrices; of a network without a gate, `gate-up-only`
//! trains the way up; embedding, head and norms are held.
//! **Stores** a copy of the weights. **Costs** a copy of the frozen values a step.

use crate::error::Result;
use crate::methods::{MethodCard, settings};
use crate::places::{places, whole};
use crate::plugin::{Plugin, Scene};
use crate::spec::{Parts, PluginSpec};
use ebb_net::Role;
use serde::{Deserialize, Serialize};

/// A kind of matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Queries, keys, values and the attention's output.
    Attention,
    /// What opens the way up.
    Gate,
    /// The way up.
    Up,
    /// The way down.
    Down,
}

impl Part {
    /// What such a parameter is for.
    pub fn role(self) -> Role {
        match self {
            Part::Attention => Role::Attention,
            Part::Gate => Role::Gate,
            Part::Up => Role::Up,
            Part::Down => Role::Down,
        }
    }
}

/// What is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct TrainPartsSettings {
    /// The kinds of matrices that are trained.
    pub parts: Vec<Part>,
    /// The first experience in which nothing else is: 0 for a model that is trained already.
    pub from: usize,
}

impl Default for TrainPartsSettings {
    fn default() -> Self {
        Self {
            parts: vec![Part::Attention],
            from: 1,
        }
    }
}

/// The plugin.
pub struct TrainParts {
    settings: TrainPartsSettings,
}

impl TrainParts {
    /// A plugin with these settings.
    pub fn new(settings: TrainPartsSettings) -> Self {
        Self { settings }
    }
}

impl Plugin for TrainParts {
    fn name(&self) -> &'static str {
        "train-parts"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if scene.experience < self.settings.from {
            return Ok(());
        }
        let places = places(scene.oracle, "train-parts")?;
        let parts = &self.settings.parts;
        let held = whole(scene.oracle.model.layout(), &places, |place| {
            !parts.iter().any(|part| part.role() == place.role)
        });
        scene.freeze(held);
        Ok(())
    }
}

fn expand(with: &toml::Table, parts: &[Part]) -> Result<Parts> {
    let mut with = with.clone();
    let from = crate::methods::take(&mut with, "from")?;
    let settings = TrainPartsSettings {
        parts: parts.to_vec(),
        from,
    };
    // What is left is no parameter of theirs.
    crate::methods::read::<Nothing>(&with)?;
    Ok(Parts {
        plugin: vec![PluginSpec::TrainParts(settings)],
        ..Parts::default()
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn from() -> toml::Table {
    let mut table = settings(&TrainPartsSettings::default());
    table.remove("parts");
    table
}

/// Attention only in the table of methods.
pub const ATTENTION_ONLY: MethodCard = MethodCard {
    name: "attention-only",
    aliases: &[],
    title: "Attention only",
    source: "Zhu et al., 2025",
    card: "S038",
    family: "frozen weights",
    use_it: "to teach a narrow skill to a model that knows much",
    not_for: "fresh weights; networks without blocks of attention (refused)",
    stores: "a copy of the weights",
    costs: "a copy of the frozen values a step",
    defaults: from,
    expand: |with, _| expand(with, &[Part::Attention]),
};

/// Gate and up only in the table of methods.
pub const GATE_UP_ONLY: MethodCard = MethodCard {
    name: "gate-up-only",
    title: "Gate and up only",
    expand: |with, _| expand(with, &[Part::Gate, Part::Up]),
    ..ATTENTION_ONLY
};
