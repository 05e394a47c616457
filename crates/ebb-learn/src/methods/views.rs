//! View-batch: every new example in several views at once.
//!
//! **What it does.** Fills a step with `views` views of each of few examples instead of one view
//! of many, so that at equal cost an example comes back after `views` times as many steps. The
//! first view is nearly the example itself; the others are moved more, and are pulled towards what
//! the network says of the first.
//! **Source.** Kang et al., CVPR 2025, "Do your best and get enough rest for continual learning"
//! (card S071; 4 views, weight 1 there). Its pull starts after five epochs and its augmentations
//! are AutoAugment's; here it acts from the start, and views are shifted and turned images.
//! **Equation.** `L = CE(all views) + α mean_{i, j ≥ 2} KL(sg p(x_i¹) ‖ p(x_iʲ))`, with
//! `sg` a pass of its own in evaluation mode.
//! **Use it** on top of a method where an experience is passed over several times
//! (`[[plugin]] kind = "view-batch"`): divide `train.batch` and `train.epochs` by `views`, which
//! leaves the number of steps and the rows of each as they were. The rows are on `new:views`, so
//! terms on `new` and `all` have them; the pull is the term `logits-kl` on it. **Not** on images
//! whose pixels were permuted or recoloured (refused).
//! **Stores** nothing. **Costs** a forward pass over the first views a step.

use crate::batch::{Batch, Collect};
use crate::error::{Error, Result};
use crate::methods::er::cross_entropy;
use crate::methods::{MethodCard, settings, take};
use crate::plugin::{Plugin, Scene};
use crate::seen::{column, outputs};
use crate::spec::{LossSpec, Parts, PluginSpec, ReductionSpec, TermSpec};
use ebb_data::{Item, Move, Step};
use ebb_space::{Key, Reference};
use serde::{Deserialize, Serialize};

/// What its rows are on.
pub const SUPPORT: &str = "new:views";

/// View-batch's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct ViewBatchSettings {
    /// Views of an example in a step.
    pub views: u32,
    /// Pixels by which the first view is shifted at most, each way.
    pub weak_shift: u32,
    /// The same of the others.
    pub shift: u32,
    /// Degrees by which the others are turned at most, each way.
    pub degrees: f64,
    /// Move the first view as much as the others: a control that must not work.
    pub strong_first: bool,
}

impl Default for ViewBatchSettings {
    fn default() -> Self {
        Self {
            views: 4,
            weak_shift: 1,
            shift: 2,
            degrees: 15.0,
            strong_first: false,
        }
    }
}

impl ViewBatchSettings {
    /// How view `j` of an example is moved: `key` is that of the step, `id` of the example.
    fn movement(&self, j: u32, key: Key, id: u64) -> Move {
        let key = key.at(u64::from(j));
        let strong = j > 0 || self.strong_first;
        let shift = if strong { self.shift } else { self.weak_shift };
        let pixels = |name: &str| {
            let places = f64::from(2 * shift + 1);
            (key.sub(name).uniform(id) * places) as i32 - shift as i32
        };
        Move {
            degrees: match strong {
                true => self.degrees * (2.0 * key.sub("degrees").uniform(id) - 1.0),
                false => 0.0,
            },
            down: pixels("down"),
            right: pixels("right"),
        }
    }
}

/// The plugin.
pub struct ViewBatch {
    settings: ViewBatchSettings,
    /// The first views of the step under way.
    first: Vec<f32>,
}

impl ViewBatch {
    /// A plugin with these settings.
    pub fn new(settings: ViewBatchSettings) -> Self {
        Self {
            settings,
            first: Vec::new(),
        }
    }
}

impl Plugin for ViewBatch {
    fn name(&self) -> &'static str {
        "view-batch"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        let image = |s: &Step| !matches!(s, Step::Permute { .. } | Step::Recolour { .. });
        let mut steps = scene.stream.transforms.iter().flat_map(|t| t.steps());
        let reason = if self.settings.views == 0 {
            "the plugin `view-batch` needs `views` of at least 1"
        } else if !steps.all(image) {
            "the plugin `view-batch` shifts and turns images, which has no meaning where pixels \
             are permuted or recoloured: use a split, rotated or corrupted stream"
        } else {
            return Ok(());
        };
        Err(Error::Recipe {
            reason: reason.into(),
        })
    }

    fn add_rows(&mut self, scene: &mut Scene, new: &[Item], collect: &mut Collect) -> Result<()> {
        let (stream, s) = (scene.stream, &self.settings);
        let (shape, blank) = (stream.shape(), stream.transforms[0].blank());
        let features = stream.features();
        let key = scene.key.sub("view").at(scene.step);
        let plain = collect.x[..new.len() * features].to_vec();
        let images = || new.iter().zip(plain.chunks_exact(features.max(1)));
        self.first.clear();
        for (item, x) in images() {
            let id = item.id.mix();
            s.movement(0, key, id)
                .apply(shape, x, blank, &mut self.first);
        }
        collect.x[..self.first.len()].copy_from_slice(&self.first);
        if s.views < 2 || new.is_empty() {
            return Ok(());
        }
        collect.support(SUPPORT);
        for (item, x) in images() {
            let set = scene.class_sets.of(usize::from(item.task));
            for j in 1..s.views {
                let view = stream.transforms.len() as u32 + j;
                collect.row(item.id.with_view(view), column(stream, item), set);
                s.movement(j, key, item.id.mix())
                    .apply(shape, x, blank, &mut collect.x);
            }
        }
        Ok(())
    }

    fn before_step(&mut self, scene: &mut Scene, batch: &mut Batch) -> Result<()> {
        let pulls =
            |t: &ebb_space::Term| t.reference == Reference::StoredLogits && t.on.contains(SUPPORT);
        let support = batch.rows.supports.iter().position(|s| s == SUPPORT);
        let Some(support) = support.filter(|_| scene.objective.terms.iter().any(pulls)) else {
            return Ok(());
        };
        let width = outputs(scene.stream);
        let rows = self.first.len() / scene.stream.features().max(1);
        let said = scene.oracle.logits(std::mem::take(&mut self.first), rows);
        scene.oracle.meter.forward_rows += rows as u64;
        let n = batch.rows.len();
        let stored = batch
            .stored_logits
            .get_or_insert_with(|| vec![0.0; n * width]);
        let views = (0..n).filter(|i| usize::from(batch.rows.support[*i]) == support);
        for (place, row) in views.enumerate() {
            let example = place / (self.settings.views as usize - 1);
            stored[row * width..(row + 1) * width]
                .copy_from_slice(&said[example * width..(example + 1) * width]);
        }
        Ok(())
    }
}

/// View-batch in the table of methods.
pub const VIEW_BATCH: MethodCard = MethodCard {
    name: "view-batch",
    aliases: &[],
    title: "View-batch",
    source: "Kang et al., CVPR 2025",
    card: "S071",
    family: "plug-in",
    use_it: "on top of any method that passes over images several times: divide batch and epochs by `views`",
    not_for: "single passes, and streams that permute pixels",
    stores: "nothing",
    costs: "`views` rows an example, and a forward pass over the first of them",
    defaults: || {
        let mut table = settings(&ViewBatchSettings::default());
        table.insert("alpha".into(), 1.0.into());
        table
    },
    expand: |with, _| {
        let mut with = with.clone();
        let pull = TermSpec {
            loss: LossSpec::LogitsKl,
            ..cross_entropy(SUPPORT, take(&mut with, "alpha")?)
        };
        Ok(Parts {
            term: vec![cross_entropy("new", 1.0), pull],
            plugin: vec![PluginSpec::ViewBatch(crate::methods::read(&with)?)],
            reduction: Some(ReductionSpec::SumOfMeans),
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Moves fill their range evenly, differ from view to view, and depend on nothing but the
    /// step, the view and the example.
    #[test]
    fn moves_are_keyed_and_fill_their_range() {
        let s = ViewBatchSettings::default();
        let key = Key::new(1, "views");
        let n = 20_000u64;
        let mut down = [0u32; 5];
        let (mut sum, mut square) = (0.0, 0.0);
        for id in 0..n {
            let m = s.movement(2, key, id);
            assert_eq!(m, s.movement(2, key, id));
            down[(m.down + 2) as usize] += 1;
            sum += m.degrees / n as f64;
            square += m.degrees * m.degrees / n as f64;
            let weak = s.movement(0, key, id);
            assert!(weak.degrees == 0.0 && weak.down.abs() <= 1 && weak.right.abs() <= 1);
        }
        let fifth = n as f64 / 5.0;
        assert!(
            down.iter()
                .all(|c| (f64::from(*c) - fifth).abs() < 5.0 * fifth.sqrt())
        );
        // Uniform on ±15: mean 0, variance 15²/3.
        assert!(
            sum.abs() < 0.4 && (square / 75.0 - 1.0).abs() < 0.05,
            "{sum} {square}"
        );
        assert_ne!(s.movement(1, key, 5), s.movement(2, key, 5));
        assert_ne!(s.movement(1, key, 5), s.movement(1, key.at(1), 5));
        let strong = ViewBatchSettings {
            strong_first: true,
            ..s
        };
        assert!(strong.movement(0, key, 5).degrees != 0.0);
    }
}
