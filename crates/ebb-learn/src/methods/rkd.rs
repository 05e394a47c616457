//! Rehearsal with distillation at two levels.
//!
//! **What it does.** Beside replayed examples it keeps the features and the answers of the network
//! as it was before the experience, each on the replayed rows alone or on all rows, and weighs the
//! two by how much is old.
//! **Source.** Cappellazzo et al., Interspeech 2023, "An investigation of the combination of
//! rehearsal and knowledge distillation in continual learning for spoken language understanding"
//! (card S076), and its released code. There the memory is shuffled into the data and chosen by
//! herding; here it holds random examples in equal shares by class, drawn at each step.
//! **Equation.** With a the share of old classes among those seen and m that of replayed rows in
//! the batch, a term on all rows has the weight `w = ln(1 + a)`, one on replayed rows `w = √m`:
//! `L = (1 − w_f) CE(all) + w_f mean (φ − φ')² + w_p T²/C_old mean KL(p'_T ‖ p_T)`,
//! the second mean over rows and features, the third over the C_old old classes. Without the
//! features' term the factor of the cross-entropy is `1 − w_p`.
//! **Use it** with a small memory. **Not** in domain-incremental streams, where every class is old
//! and `a` is 1.
//! **Stores** `capacity` examples and one copy of the weights. **Costs** the replayed rows on top
//! of the batch, and one more forward pass.

use crate::batch::Batch;
use crate::error::Result;
use crate::methods::er::{cross_entropy, draw};
use crate::methods::{MethodCard, settings};
use crate::plugin::{Plugin, Scene};
use crate::seen::seen_columns;
use crate::spec::{
    ClassesSpec, KeepSpec, LossSpec, MemorySpec, Parts, PluginSpec, ReductionSpec, SelectSpec,
    TermSpec,
};
use ebb_space::{Carrier, Objective, Reference, Support, Term};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Where something is distilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Where {
    /// Nowhere.
    None,
    /// On the replayed rows.
    Memory,
    /// On all rows.
    All,
}

impl Where {
    fn rows(self) -> Option<&'static str> {
        match self {
            Where::None => None,
            Where::Memory => Some("replay"),
            Where::All => Some("all"),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct RkdSettings {
    capacity: usize,
    replay: usize,
    /// Rows whose features are held: `none`, those of the `memory`, or `all`.
    features: Where,
    /// Rows whose answers are held.
    answers: Where,
    temperature: f64,
}

impl Default for RkdSettings {
    fn default() -> Self {
        Self {
            capacity: 500,
            replay: 0,
            features: Where::Memory,
            answers: Where::All,
            temperature: 1.0,
        }
    }
}

/// The plugin has no numbers: its weights follow from the stream and the batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct TwoLevelsSettings {}

/// The plugin.
pub struct TwoLevels;

impl Plugin for TwoLevels {
    fn name(&self) -> &'static str {
        "two-levels"
    }

    fn reshape(
        &mut self,
        scene: &mut Scene,
        batch: &Batch,
        objective: &mut Cow<Objective>,
    ) -> Result<()> {
        if scene.experience == 0 {
            return Ok(());
        }
        let old = seen_columns(scene.stream, scene.experience).len() as f64;
        let seen = seen_columns(scene.stream, scene.experience + 1).len() as f64;
        let replayed = |support: &u16| {
            Support::from("replay").contains(&batch.rows.supports[usize::from(*support)])
        };
        let rows = batch.rows.len().max(1) as f64;
        let share = batch.rows.support.iter().filter(|s| replayed(s)).count() as f64 / rows;
        let weight = |term: &Term| match term.on.contains("new") {
            true => (1.0 + old / seen).ln(),
            false => share.sqrt(),
        };
        let width = scene.oracle.model.network().features() as f64;
        let terms = &mut objective.to_mut().terms;
        // What the cross-entropy gives up: to the features, or else to the answers.
        let (mut to_features, mut to_answers) = (None, None);
        for term in terms
            .iter_mut()
            .filter(|t| t.reference == Reference::Teacher)
        {
            let w = weight(term);
            term.weight *= w;
            if term.carrier == Carrier::Features {
                // The loss is half a sum of squares, the released code's their mean.
                term.weight *= 2.0 / width;
                to_features = Some(w);
            } else {
                term.weight /= old;
                to_answers = Some(w);
            }
        }
        let given = to_features.or(to_answers).unwrap_or(0.0);
        let labels = terms.iter_mut().filter(|t| t.reference == Reference::Label);
        labels.for_each(|t| t.weight *= 1.0 - given);
        Ok(())
    }
}

/// Rehearsal with distillation at two levels in the table of methods.
pub const REHEARSAL_KD: MethodCard = MethodCard {
    name: "rehearsal-kd",
    aliases: &["two-level-distillation"],
    title: "Rehearsal with distillation of features and answers",
    source: "Cappellazzo et al., Interspeech 2023",
    card: "S076",
    family: "replay",
    use_it: "a small memory and known boundaries",
    not_for: "domain-incremental streams, where every class is old",
    stores: "`capacity` examples and one copy of the weights",
    costs: "the replayed rows on top of the batch, and one more forward pass",
    defaults: || settings(&RkdSettings::default()),
    expand: |with, _| {
        let s: RkdSettings = crate::methods::read(with)?;
        let features = s.features.rows().map(|on| TermSpec {
            loss: LossSpec::FeaturesL2,
            ..cross_entropy(on, 1.0)
        });
        let answers = s.answers.rows().map(|on| TermSpec {
            loss: LossSpec::Distillation,
            temperature: Some(s.temperature),
            classes: ClassesSpec::Old,
            ..cross_entropy(on, 1.0)
        });
        Ok(Parts {
            memory: Some(MemorySpec {
                capacity: s.capacity,
                keep: KeepSpec::ClassBalanced,
            }),
            draw: BTreeMap::from([("a".to_owned(), draw(SelectSpec::Uniform, s.replay))]),
            term: std::iter::once(cross_entropy("all", 1.0))
                .chain(features)
                .chain(answers)
                .collect(),
            plugin: vec![PluginSpec::TwoLevels(TwoLevelsSettings {})],
            reduction: Some(ReductionSpec::SumOfMeans),
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging::{self, softmax};
    use ebb_kernels::slices;
    use ebb_net::Taps;

    /// All nine places, with and without replayed rows, against the released code's sum written out
    /// in f64 on logits and features of model and teacher.
    #[test]
    fn the_loss_is_the_released_codes() {
        let places = ["none", "memory", "all"];
        let grid = places.iter().flat_map(|f| places.map(|a| (*f, a)));
        for (features, answers) in grid {
            let sets = [
                ("with.features", features),
                ("with.answers", answers),
                ("with.temperature", "2.0"),
                ("with.capacity", "24"),
            ];
            let mut s = staging::session("rehearsal-kd", "class", &sets);
            s.oracle.freeze_teacher();
            staging::jolt(&mut s.oracle.model, 0.3);
            // Two experiences' worth of records in the memory.
            staging::remember(&mut s, 0..2);
            for m in [0usize, 5] {
                staging::act(&mut s, 2, |scene| {
                    let slots: Vec<u32> = (0..m as u32).collect();
                    let new = scene.train()[..7].to_vec();
                    let batch = staging::mixed(scene, &new, &[("replay:a", &slots)]);
                    let mut objective = Cow::Borrowed(scene.objective);
                    let done = TwoLevels.reshape(scene, &batch, &mut objective);
                    done.expect("nothing to fail at");
                    let found = scene.oracle.value(&objective, &batch).expect("a value");

                    let n = 7 + m;
                    let wide = |z: Vec<f32>| -> Vec<Vec<f64>> {
                        let width = z.len() / n;
                        z.chunks(width)
                            .map(|r| r.iter().map(|v| f64::from(*v)).collect())
                            .collect()
                    };
                    let (z, f) = scene.oracle.forward(&batch);
                    let (z, f) = (wide(z), wide(f));
                    let teacher = scene.oracle.teacher.as_mut().expect("frozen");
                    let said = teacher.forward(batch.x.clone(), &mut Taps::none());
                    let (zt, ft) = (
                        wide(slices::to_vec(&said.logits)),
                        wide(slices::to_vec(&said.features)),
                    );
                    let ce = (0..n).map(|i| -softmax(&z[i])[batch.rows.labels[i] as usize].ln());
                    let ce = ce.sum::<f64>() / n as f64;
                    let mse = |rows: std::ops::Range<usize>| {
                        let count = (rows.len() * f[0].len()) as f64;
                        let pairs = rows.flat_map(|i| f[i].iter().zip(&ft[i]));
                        pairs.map(|(a, b)| (a - b).powi(2)).sum::<f64>() / count
                    };
                    let kd = |rows: std::ops::Range<usize>| {
                        let count = (rows.len() * 4) as f64;
                        let each = rows.map(|i| {
                            let half =
                                |z: &[f64]| z[..4].iter().map(|v| v / 2.0).collect::<Vec<_>>();
                            let (p, q) = (softmax(&half(&z[i])), softmax(&half(&zt[i])));
                            q.iter().zip(&p).map(|(q, p)| q * (q / p).ln()).sum::<f64>()
                        });
                        4.0 * each.sum::<f64>() / count
                    };
                    let (of_all, of_memory) =
                        ((1.0f64 + 4.0 / 6.0).ln(), (m as f64 / n as f64).sqrt());
                    let mut want = match features {
                        "memory" if m > 0 => of_memory * mse(7..n) + (1.0 - of_memory) * ce,
                        "all" => of_all * mse(0..n) + (1.0 - of_all) * ce,
                        _ => ce,
                    };
                    let both = features != "none";
                    let added = match answers {
                        "memory" if m > 0 => Some((of_memory, kd(7..n))),
                        "all" => Some((of_all, kd(0..n))),
                        _ => None,
                    };
                    if let Some((w, kd)) = added {
                        want = if both { want } else { (1.0 - w) * want } + w * kd;
                    }
                    let place = format!("{features} {answers} {m}");
                    assert!(
                        (found.total - want).abs() < 1e-5,
                        "{place}: {} {want}",
                        found.total
                    );
                });
            }
        }
    }
}
