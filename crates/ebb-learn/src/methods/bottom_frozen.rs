//! Embeddings and bottom blocks frozen.
//!
//! **What it does.** From the second experience on, the embedding and the lowest blocks stay as
//! they are; the rest learns.
//! **Source.** Zheng et al., ICLR 2025, "Spurious forgetting in continual learning of language
//! models" (card S092): much of what is lost in the first steps of a new task is how to answer,
//! not what to answer, and those steps move the bottom.
//! **Equation.** `θ_i ← θ_i` for `i` in the embedding and in blocks `0 .. n`, bit for bit.
//! **Use it** for tasks that ask for new facts in a known form. **Not** where the input itself
//! changes: the bottom cannot follow. A tied head is the embedding, and is frozen with it.
//! **Stores** a copy of the weights. **Costs** a copy of the frozen values a step.

use crate::error::Result;
use crate::methods::{MethodCard, settings};
use crate::places::{blocks, places, whole};
use crate::plugin::{Plugin, Scene};
use crate::spec::{Parts, PluginSpec};
use ebb_net::Role;
use serde::{Deserialize, Serialize};

/// What is frozen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct BottomFrozenSettings {
    /// Blocks, from the lowest; 0: half of them.
    pub blocks: usize,
    /// The first experience in which they are: 0 for a model that is trained already.
    pub from: usize,
}

impl Default for BottomFrozenSettings {
    fn default() -> Self {
        Self { blocks: 0, from: 1 }
    }
}

/// The plugin.
pub struct BottomFrozen {
    settings: BottomFrozenSettings,
}

impl BottomFrozen {
    /// A plugin with these settings.
    pub fn new(settings: BottomFrozenSettings) -> Self {
        Self { settings }
    }
}

impl Plugin for BottomFrozen {
    fn name(&self) -> &'static str {
        "bottom-frozen"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if scene.experience < self.settings.from {
            return Ok(());
        }
        let places = places(scene.oracle, "bottom-frozen")?;
        let below = match self.settings.blocks {
            0 => blocks(&places) / 2,
            n => n,
        };
        let bottom = whole(scene.oracle.model.layout(), &places, |place| {
            match place.block {
                Some(block) => block < below,
                None => matches!(place.role, Role::Embedding | Role::Positions),
            }
        });
        scene.freeze(bottom);
        Ok(())
    }
}

/// Frozen bottom blocks in the table of methods.
pub const BOTTOM_FROZEN: MethodCard = MethodCard {
    name: "bottom-frozen",
    aliases: &[],
    title: "Embeddings and bottom blocks frozen",
    source: "Zheng et al., ICLR 2025",
    card: "S092",
    family: "frozen weights",
    use_it: "for tasks that ask for new facts in a known form",
    not_for: "texts in another language or alphabet",
    stores: "a copy of the weights",
    costs: "a copy of the frozen values a step",
    defaults: || settings(&BottomFrozenSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            plugin: vec![PluginSpec::BottomFrozen(crate::methods::read(with)?)],
            ..Parts::default()
        })
    },
};
