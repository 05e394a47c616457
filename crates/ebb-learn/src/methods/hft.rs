//! Half fine-tuning.
//!
//! **What it does.** At each new experience it freezes a random half of the weight matrices and a
//! random half of the vectors, another half each time, and trains the rest.
//! **Source.** Hui et al., 2024, "HFT: Half fine-tuning for large language models" (card S115).
//! The paper's categories are those of a transformer's blocks; here a category is the number of
//! dimensions of a tensor, and heads stay trainable, as embeddings and the language head do there.
//! **Equation.** `θ_i ← θ_i` for `i` in the frozen half: by selection, so that frozen means bit
//! for bit, whatever the optimizer's momentum and weight decay do. `by = "reset"` trains
//! everything and puts that half back at the end of the experience (the paper's half-reset).
//! **Use it** to keep more of a base model at no cost in memory. **Not** to judge by forgetting
//! alone: half the weights move, so compare at equal performance on the new task.
//! **Stores** a copy of the weights. **Costs** a copy of the frozen ones a step.

use crate::error::{Error, Result};
use crate::methods::{MethodCard, settings};
use crate::oracle::Oracle;
use crate::plugin::{Kept, Plugin, Scene};
use crate::spec::{Parts, PluginSpec};
use ebb_space::{Key, Layout, Mask, Weights};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What keeps a half as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Half {
    /// It is not trained.
    #[default]
    Freeze,
    /// It is trained, and put back at the end of the experience.
    Reset,
    /// Every weight is trained, and at the end of the experience the share is taken back from
    /// the whole change: a control without any selection.
    Shrink,
}

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
    /// What keeps the half as it was.
    pub by: Half,
}

impl Default for HftSettings {
    fn default() -> Self {
        Self {
            share: 0.5,
            always: vec!["head*".to_owned()],
            from: 1,
            by: Half::Freeze,
        }
    }
}

/// The plugin.
pub struct HalfFreeze {
    settings: HftSettings,
    /// The weights at the beginning of the experience, of what is put back at its end.
    start: Option<Weights>,
}

impl HalfFreeze {
    /// A plugin with these settings.
    pub fn new(settings: HftSettings) -> Self {
        Self {
            settings,
            start: None,
        }
    }
}

impl HalfFreeze {
    /// This experience's half.
    fn half(&self, scene: &Scene) -> Result<Mask> {
        let layout = scene.oracle.model.layout();
        let patterns: Vec<&str> = self.settings.always.iter().map(String::as_str).collect();
        let (always, unmatched) = Mask::from_globs(layout, &patterns);
        if let Some(pattern) = unmatched.first() {
            return Err(Error::no_such_path(pattern, layout));
        }
        let key = scene.key.sub("half").at(scene.experience as u64);
        Ok(half(layout, &always, self.settings.share, key))
    }
}

/// `share` of the tensors of each category (rounded to whole tensors), by smallest keyed draw, of
/// those outside of `always`.
pub fn half(layout: &Arc<Layout>, always: &Mask, share: f64, key: Key) -> Mask {
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
        match self.settings.by {
            Half::Freeze => {
                let half = self.half(scene)?;
                scene.freeze(half);
            }
            Half::Reset | Half::Shrink => self.start = Some(scene.oracle.model.weights()),
        }
        Ok(())
    }

    fn end_experience(&mut self, scene: &mut Scene) -> Result<()> {
        let Some(start) = self.start.take() else {
            return Ok(());
        };
        let mut weights = scene.oracle.model.weights();
        match self.settings.by {
            Half::Freeze => {}
            Half::Reset => self.half(scene)?.restore(&mut weights, &start),
            Half::Shrink => weights.lerp(self.settings.share as f32, &start),
        }
        scene.oracle.model.set_weights(&weights)?;
        Ok(())
    }

    fn keep(&self) -> Result<Kept> {
        let start = self.start.iter().map(|w| ("start".to_owned(), w.clone()));
        Ok(Kept::vectors(start.collect()))
    }

    fn restore(&mut self, mut kept: Kept, _oracle: &mut Oracle) -> Result<()> {
        self.start = kept.take("start");
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.start.as_ref().map_or(0, |w| 4 * w.layout().len()) as u64
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
    stores: "a copy of the weights",
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
