//! Half fine-tuning.
//!
//! **What it does.** At each new experience it freezes a random half of the weight matrices and a
//! random half of the vectors, another half each time, and trains the rest.
//! **Source.** Hui et al., 2024, "HFT: Half fine-tuning for large language models" (card S115).
//! The paper's categories are those of a transformer's blocks; here a category is the number of
//! dimensions of a tensor, and heads stay trainable, as embeddings and the language head do there.
//! **Equation.** `θ_i ← θ_i` for `i` in the frozen half: by selection, so that frozen means bit
//! for bit, whatever the optimizer's momentum and weight decay do.
//! **Use it** to keep more of a base model at no cost in memory. **Not** to judge by forgetting
//! alone: half the weights move, so compare at equal performance on the new task.
//! **Stores** the frozen values. **Costs** a copy of them a step.

use crate::error::{Error, Result};
use crate::methods::{MethodCard, settings};
use crate::plugin::{Plugin, Scene};
use crate::spec::{Parts, PluginSpec};
use ebb_space::{Key, Layout, Mask};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Half fine-tuning's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct HftSettings {
    /// Share of each category that is frozen.
    pub share: f64,
    /// Paths (with `*`) that are always trained.
    pub always: Vec<String>,
    /// The first experience with frozen tensors.
    pub from: usize,
}

impl Default for HftSettings {
    fn default() -> Self {
        Self {
            share: 0.5,
            always: vec!["head*".to_owned()],
            from: 1,
        }
    }
}

/// The plugin.
pub struct HalfFreeze {
    settings: HftSettings,
}

impl HalfFreeze {
    /// A plugin with these settings.
    pub fn new(settings: HftSettings) -> Self {
        Self { settings }
    }
}

/// `share` of the tensors of each category (rounded to whole tensors), by smallest keyed draw.
fn half(layout: &Arc<Layout>, always: &Mask, share: f64, key: Key) -> Mask {
    let mut categories: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (i, entry) in layout.entries().iter().enumerate() {
        if !entry.range.is_empty() && !always.contains(entry.range.start) {
            categories.entry(entry.shape.len()).or_default().push(i);
        }
    }
    let mut frozen = vec![false; layout.entries().len()];
    for tensors in categories.values_mut() {
        let count = (share * tensors.len() as f64).round() as usize;
        key.order(tensors, |i| *i as u64);
        for i in tensors.iter().take(count) {
            frozen[*i] = true;
        }
    }
    let chosen = |path: &str| layout.entries().iter().position(|e| e.path == path);
    Mask::from_paths(layout, |path| chosen(path).is_some_and(|i| frozen[i]))
}

impl Plugin for HalfFreeze {
    fn name(&self) -> &'static str {
        "half-freeze"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if scene.experience < self.settings.from {
            return Ok(());
        }
        let layout = scene.oracle.model.layout().clone();
        let patterns: Vec<&str> = self.settings.always.iter().map(String::as_str).collect();
        let (always, unmatched) = Mask::from_globs(&layout, &patterns);
        if let Some(pattern) = unmatched.first() {
            return Err(Error::no_such_path(pattern, &layout));
        }
        let key = scene.key.sub("half").at(scene.experience as u64);
        scene.freeze(half(&layout, &always, self.settings.share, key));
        Ok(())
    }
}

/// Half fine-tuning in the table of methods.
pub const HFT: MethodCard = MethodCard {
    name: "half-fine-tuning",
    aliases: &["hft"],
    title: "Half fine-tuning",
    source: "Hui et al., 2024",
    card: "S115",
    family: "frozen weights",
    use_it: "to keep more of a base model at no cost in memory",
    not_for: "class-incremental streams on its own",
    stores: "the frozen values",
    costs: "a copy of the frozen values a step",
    defaults: || settings(&HftSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            plugin: vec![PluginSpec::HalfFreeze(crate::methods::read(with)?)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_each_category_and_another_half_each_time() {
        let names = ["a", "b", "c", "d"];
        let entries = names.iter().flat_map(|n| {
            [
                (format!("{n}.weight"), vec![2, 3]),
                (format!("{n}.bias"), vec![2]),
            ]
        });
        let head = [("head.weight".to_owned(), vec![5, 2])];
        let layout = Layout::new(entries.chain(head)).expect("nine tensors");
        let (always, _) = Mask::from_globs(&layout, &["head*"]);
        let key = Key::new(1, "half");
        let mut met = std::collections::BTreeSet::new();
        for draw in 0..200 {
            let mask = half(&layout, &always, 0.5, key.at(draw));
            let frozen = |part: &str| {
                let of = layout.entries().iter().filter(|e| e.path.ends_with(part));
                of.filter(|e| mask.contains(e.range.start)).count()
            };
            assert_eq!((frozen("weight"), frozen("bias")), (2, 2));
            let head = layout
                .find("head.weight")
                .expect("it is there")
                .range
                .clone();
            assert!(head.clone().all(|i| !mask.contains(i)));
            met.insert(
                (0..layout.len())
                    .map(|i| mask.contains(i))
                    .collect::<Vec<_>>(),
            );
        }
        // Six ways to take two of four, for matrices and for vectors.
        assert_eq!(met.len(), 36);
    }
}
