//! Planned replay: a fixed list of earlier examples, one for so many new ones.
//!
//! **What it does.** Shows earlier examples that a plan has chosen, in the plan's order, at an even
//! rate; when the list is through it begins again.
//! **Source.** Jin & Ren, NeurIPS 2025 (card S000), which replays one example for 32 new ones
//! (8 for instruction models), chosen by what is forecast to be forgotten. Who is replayed is the
//! plan's business (`ebb plan` writes one).
//! **Equation.** Before new row `n` of an experience, replayed are the first `⌊n/per⌋` of
//! `ids, ids, …`; the loss is the mean over new and replayed rows together.
//! **Use it** with a plan, where upstream examples may be kept. **Not** without one: an empty list
//! is plain fine-tuning.
//! **Stores** the list. **Costs** `1/per` of a step's rows.

use crate::batch::Collect;
use crate::error::{Error, Result};
use crate::methods::er::cross_entropy;
use crate::methods::{MethodCard, read, settings};
use crate::plugin::{Plugin, Scene};
use crate::spec::{Parts, PluginSpec};
use ebb_data::{Item, Stream};
use ebb_space::ExampleId;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The rows it adds.
pub const SUPPORT: &str = "replay:planned";

/// The plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct PlannedSettings {
    /// Examples of earlier experiences, in the order of their replay.
    pub ids: Vec<ExampleId>,
    /// New rows for each replayed one.
    pub per: usize,
    /// The first experience in which it replays.
    pub from: usize,
}

impl Default for PlannedSettings {
    fn default() -> Self {
        Self {
            ids: Vec::new(),
            per: 32,
            from: 1,
        }
    }
}

/// The plugin.
pub struct Planned {
    settings: PlannedSettings,
    /// The plan's examples as the stream has them; found when they are first needed.
    items: Vec<Item>,
}

impl Planned {
    /// A plugin with this plan.
    pub fn new(settings: PlannedSettings) -> Self {
        Self {
            settings,
            items: Vec::new(),
        }
    }

    fn find(&mut self, stream: &Stream, experience: usize) -> Result<()> {
        let earlier = stream.experiences[..experience].iter();
        let items = earlier.flat_map(|e| e.train.iter().map(|i| (i.id, *i)));
        let items: HashMap<ExampleId, Item> = items.collect();
        let found = self.settings.ids.iter().map(|id| {
            items.get(id).copied().ok_or_else(|| Error::Recipe {
                reason: format!(
                    "the plan replays `{id}`, which is no training example of an earlier \
                     experience: use the stream that the plan was made for"
                ),
            })
        });
        self.items = found.collect::<Result<_>>()?;
        Ok(())
    }
}

/// Which of an endless list are replayed before rows `from..to`.
fn due(from: usize, to: usize, per: usize) -> std::ops::Range<usize> {
    from / per..to / per
}

impl Plugin for Planned {
    fn name(&self) -> &'static str {
        "planned"
    }

    fn add_rows(&mut self, scene: &mut Scene, new: &[Item], collect: &mut Collect) -> Result<()> {
        let PlannedSettings { ids, per, from } = &self.settings;
        if ids.is_empty() || scene.experience < *from {
            return Ok(());
        }
        if *per == 0 {
            return Err(Error::Recipe {
                reason: "the plugin `planned` needs `per` of at least 1".into(),
            });
        }
        let before = scene.in_experience as usize * scene.recipe.train.batch;
        let due = due(before, before + new.len(), *per);
        if self.items.is_empty() {
            self.find(scene.stream, scene.experience)?;
        }
        let n = self.items.len();
        let items: Vec<Item> = due.map(|k| self.items[k % n]).collect();
        collect.support(SUPPORT);
        collect.items(scene.stream, &items, scene.class_sets);
        Ok(())
    }
}

/// Planned replay in the table of methods.
pub const PLANNED: MethodCard = MethodCard {
    name: "planned",
    aliases: &["targeted-replay"],
    title: "Planned replay of what is forecast to be forgotten",
    source: "Jin & Ren, NeurIPS 2025",
    card: "S000",
    family: "replay",
    use_it: "with a plan of `ebb plan`, which fills in `ids`",
    not_for: "data that may not be kept; without a plan it is plain fine-tuning",
    stores: "the ids of the plan",
    costs: "1/`per` of a step's rows",
    defaults: || settings(&PlannedSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            term: vec![cross_entropy("all", 1.0)],
            plugin: vec![PluginSpec::Planned(read(with)?)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Around, Recipe, Session, Silent, learn_session};
    use std::path::Path;
    use std::sync::atomic::AtomicBool;

    /// Steps of 10 rows at one for 32: the fourth step replays the first, and none is left out or
    /// shown twice however the rows are cut into steps.
    #[test]
    fn every_place_of_the_list_is_due_once() {
        for size in [1, 7, 10, 32, 100] {
            let all: Vec<usize> = (0..40)
                .flat_map(|s| due(s * size, (s + 1) * size, 32))
                .collect();
            assert_eq!(all, (0..40 * size / 32).collect::<Vec<_>>());
        }
        assert_eq!((due(0, 10, 32), due(30, 40, 32)), (0..0, 0..1));
    }

    fn learn(ids: &[ExampleId]) -> crate::Result<ebb_record::Summary> {
        let ids: Vec<String> = ids.iter().map(|id| format!("\"{id}\"")).collect();
        let text = format!(
            "method = \"planned\"\nwith = {{ ids = [{}], per = 2 }}\n\
             stream = {{ dataset = \"digits\", split = 5 }}\ntrain = {{ steps = 40 }}\n",
            ids.join(", ")
        );
        let session = Session::new(&Recipe::parse(&text, &[])?, Path::new("."))?;
        let mut around = Around {
            data_dir: Path::new("."),
            progress: &mut Silent,
            stop: &AtomicBool::new(false),
        };
        learn_session(session, None, &mut around)
    }

    #[test]
    fn the_first_pair_is_kept_by_replaying_it_and_a_stranger_is_refused() {
        let text = "stream = { dataset = \"digits\", split = 5 }\n";
        let recipe = Recipe::parse(text, &[]).unwrap();
        let stream = recipe.file().stream.build(Path::new("."), 0).unwrap();
        let ids: Vec<ExampleId> = stream.experiences[0].train[..60]
            .iter()
            .map(|i| i.id)
            .collect();
        let kept = learn(&ids).unwrap().matrix[4][0].unwrap();
        let lost = learn(&[]).unwrap().matrix[4][0].unwrap();
        assert!(kept > 0.6 && lost < 0.2, "{kept} {lost}");
        let stranger = ExampleId::of(b"nobody", 0);
        let error = learn(&[stranger]).unwrap_err().to_string();
        assert!(
            error.contains("the stream that the plan was made for"),
            "{error}"
        );
    }
}
