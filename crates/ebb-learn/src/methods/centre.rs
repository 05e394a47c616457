//! Centre loss regularisation.
//!
//! **What it does.** Learns a centre of the features of each class on the first domain; from then on
//! centres and classifier stand still, and every later domain's features are drawn to the same
//! centres, so that the old decision boundaries stay valid.
//! **Source.** "Center loss regularization for continual learning", arXiv 2110.11314 (card S035);
//! the centres' step is that of Wen et al., ECCV 2016.
//! **Equation.** `L = CE(W φ(x) + b, y) + λ/2 · ‖φ(x) − c_y‖²/d` with d features. In the first
//! experience, with the n_j rows of class j in the batch,
//! `c_j ← c_j − α Σ_{y_i=j} (c_j − φ_i) / (1 + n_j)`, from 0; after it c, W and b are fixed and the
//! gradient of φ counts `rate`.
//! **Use it** where every experience has the same classes and looks different. **Not** elsewhere
//! (refused): a new class has no centre and would meet a classifier that stands still.
//! **Stores** a mean a class, and from the second experience on a copy of the weights, of which the
//! classifier is put back after each step. **Costs** a forward pass a step in the first experience,
//! nothing after it.
//!
//! The card leaves λ, α and the rate open. With plain or momentum SGD `rate` is the ratio of the
//! learning rates; Adam does not see the size of a gradient, so lower its learning rate instead.

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::methods::er::cross_entropy;
use crate::methods::{MethodCard, settings, take};
use crate::oracle::{Oracle, PassResult};
use crate::plugin::{Kept, Plugin, Scene};
use crate::seen::outputs;
use crate::spec::{LossSpec, Parts, PluginSpec, TermSpec};
use ebb_data::Scenario;
use ebb_space::{Layout, Mask, Weights};
use serde::{Deserialize, Serialize};

/// The numbers of the plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct CentreSettings {
    /// `α`, the step of a centre.
    pub alpha: f64,
    /// What the gradient counts from the second experience on.
    pub rate: f64,
}

impl Default for CentreSettings {
    fn default() -> Self {
        Self {
            alpha: 0.5,
            rate: 0.1,
        }
    }
}

/// The plugin.
pub struct Centres {
    settings: CentreSettings,
    /// `c`, row after row, one for every output.
    centres: Vec<f32>,
}

impl Centres {
    /// A plugin with these settings.
    pub fn new(settings: CentreSettings) -> Self {
        Self {
            settings,
            centres: Vec::new(),
        }
    }
}

/// One step of every centre that has rows among `features`.
fn follow(centres: &mut [f32], features: &[f32], labels: &[u32], alpha: f64) {
    let width = features.len() / labels.len().max(1);
    let classes = centres.chunks_exact_mut(width.max(1));
    for (class, centre) in (0u32..).zip(classes) {
        let rows = || {
            let all = labels.iter().zip(features.chunks_exact(width));
            all.filter(|(label, _)| **label == class)
                .map(|(_, row)| row)
        };
        let share = alpha / (1 + rows().count()) as f64;
        for (k, c) in centre.iter_mut().enumerate() {
            let apart: f64 = rows().map(|row| f64::from(*c) - f64::from(row[k])).sum();
            *c = (f64::from(*c) - share * apart) as f32;
        }
    }
}

impl Plugin for Centres {
    fn name(&self) -> &'static str {
        "centres"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if scene.stream.scenario != Scenario::Domain {
            return Err(Error::Recipe {
                reason: "the plugin `centres` keeps one centre a class and the classifier as the \
                         first experience left them, so every experience needs the same classes: \
                         use stream.scenario = \"domain\""
                    .into(),
            });
        }
        if scene.experience == 1 {
            let layout = scene.oracle.model.layout().clone();
            let mut mask = Mask::from_paths(&layout, |path| path.starts_with("head"));
            if let Some((already, _)) = &*scene.frozen {
                mask = mask.or(already);
            }
            scene.freeze(mask);
        }
        Ok(())
    }

    fn before_step(&mut self, scene: &mut Scene, batch: &mut Batch) -> Result<()> {
        let learned = (scene.experience == 0).then(|| scene.oracle.forward(batch).1);
        let labels = &batch.rows.labels;
        if let Some(features) = &learned {
            let width = features.len() / labels.len().max(1);
            self.centres.resize(width * outputs(scene.stream), 0.0);
        }
        let width = self.centres.len() / outputs(scene.stream);
        let of = |label: &u32| &self.centres[*label as usize * width..][..width];
        batch.prototypes = Some(labels.iter().flat_map(of).copied().collect());
        if let Some(features) = &learned {
            follow(&mut self.centres, features, labels, self.settings.alpha);
        }
        Ok(())
    }

    fn change_gradient(
        &mut self,
        scene: &mut Scene,
        _: &Batch,
        _: &PassResult,
        gradient: &mut Weights,
    ) -> Result<()> {
        if scene.experience > 0 {
            gradient.scale(self.settings.rate as f32);
        }
        Ok(())
    }

    fn keep(&self) -> Result<Kept> {
        if self.centres.is_empty() {
            return Ok(Kept::default());
        }
        let layout = Layout::new([("centres".to_owned(), vec![self.centres.len()])])?;
        let centres = Weights::from_vec(&layout, self.centres.clone())?;
        Ok(Kept::vectors(vec![("centres".to_owned(), centres)]))
    }

    fn restore(&mut self, mut kept: Kept, _: &mut Oracle) -> Result<()> {
        let centres = kept.take("centres");
        self.centres = centres.map_or_else(Vec::new, Weights::into_vec);
        Ok(())
    }

    fn bytes(&self) -> u64 {
        4 * self.centres.len() as u64
    }
}

/// Centre loss in the table of methods.
pub const CENTRE: MethodCard = MethodCard {
    name: "centre",
    aliases: &["centre-loss", "center-loss", "clr"],
    title: "Centre loss regularisation",
    source: "arXiv 2110.11314, 2021",
    card: "S035",
    family: "distillation",
    use_it: "domain-incremental streams where nothing may be stored",
    not_for: "streams whose classes change (refused)",
    stores: "a mean of features a class and one copy of the weights",
    costs: "a forward pass a step in the first experience",
    defaults: || {
        let mut table = settings(&CentreSettings::default());
        table.insert("lambda".into(), 0.1.into());
        table
    },
    expand: |with, _| {
        let mut with = with.clone();
        let near = TermSpec {
            weight: take(&mut with, "lambda")?,
            ..TermSpec::new("new", LossSpec::Centre)
        };
        Ok(Parts {
            term: vec![cross_entropy("new", 1.0), near],
            plugin: vec![PluginSpec::Centres(crate::methods::read(&with)?)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging;

    /// The card's step by hand: class 0 has two rows, class 2 one, class 1 none.
    #[test]
    fn centres_follow_their_rows() {
        let mut centres = [1.0f32, -1.0, 4.0, 4.0, 0.0, 0.0];
        let features = [3.0f32, 0.0, 5.0, 6.0, 1.0, 1.0];
        follow(&mut centres, &features, &[0, 2, 0], 0.5);
        // c_0 − ½ [(1−3) + (1−1), (−1−0) + (−1−1)]/3, and c_2 − ½ [0−5, 0−6]/2.
        let want = [1.0 + 1.0 / 3.0, -1.0 + 0.5, 4.0, 4.0, 1.25, 1.5];
        for (c, want) in centres.iter().zip(want) {
            assert!((f64::from(*c) - want).abs() < 1e-6, "{centres:?}");
        }
    }

    /// `CE + λ/2 ‖φ − c_y‖²/d`, written out; and what stands still from the second experience on.
    #[test]
    fn the_loss_is_the_equation_and_later_domains_leave_centres_and_head() {
        let sets = [("with.lambda", "0.7"), ("with.rate", "0.25")];
        let mut s = staging::session("centre", "domain", &sets);
        let mut plugin = Centres::new(CentreSettings {
            rate: 0.25,
            ..CentreSettings::default()
        });
        let first = staging::act(&mut s, 0, |scene| {
            plugin.begin_experience(scene).expect("the same classes");
            let items = scene.train()[..12].to_vec();
            for _ in 0..3 {
                let mut batch = scene.batch_of("new", &items);
                plugin.before_step(scene, &mut batch).expect("centres");
            }
            plugin.centres.clone()
        });
        assert!(scene_has_moved(&first));
        staging::act(&mut s, 1, |scene| {
            plugin.begin_experience(scene).expect("the same classes");
            let items = scene.train()[..9].to_vec();
            let mut batch = scene.batch_of("new", &items);
            plugin.before_step(scene, &mut batch).expect("centres");
            assert_eq!(plugin.centres, first);
            let (z, phi) = scene.oracle.forward(&batch);
            let d = phi.len() / 9;
            let k = z.len() / 9;
            let mut want = 0.0;
            for (i, y) in batch.rows.labels.iter().enumerate() {
                let z: Vec<f64> = z[i * k..][..k].iter().map(|v| f64::from(*v)).collect();
                let lse = z.iter().map(|v| v.exp()).sum::<f64>().ln();
                let centre = &first[*y as usize * d..][..d];
                let pairs = phi[i * d..][..d].iter().zip(centre);
                let far: f64 = pairs.map(|(a, c)| f64::from(a - c).powi(2)).sum();
                want += lse - z[*y as usize] + 0.35 * far / d as f64;
            }
            let value = scene
                .oracle
                .evaluate(scene.objective, &batch)
                .expect("a pass");
            assert!((value.value.total - want / 9.0).abs() < 1e-5);
            let mut gradient = scene.oracle.model.weights();
            let before = gradient.clone();
            let changed = plugin.change_gradient(scene, &batch, &value, &mut gradient);
            changed.expect("a rate");
            assert_eq!(gradient.norm(), 0.25 * before.norm());
            let (mask, _) = scene.frozen.as_ref().expect("a frozen head");
            for (i, path) in scene.oracle.model.layout().entries().iter().enumerate() {
                let at = scene.oracle.model.layout().entries()[i].range.start;
                assert_eq!(mask.contains(at), path.path.starts_with("head"));
            }
        });
        let mut other = staging::session("centre", "class", &[]);
        let refused = staging::act(&mut other, 0, |scene| plugin.begin_experience(scene));
        assert!(
            refused
                .expect_err("new classes")
                .to_string()
                .contains("domain")
        );
    }

    fn scene_has_moved(centres: &[f32]) -> bool {
        centres.iter().any(|c| *c != 0.0)
    }
}
