//! Heterogeneous forgetting compensation.
//!
//! **What it does.** Old classes forget at different speeds: it weighs each row's loss by how large
//! its own error is beside those of its group (the new classes, or the classes of one earlier
//! experience), and leans to the old ones as their share grows.
//! **Source.** Dong et al., ICCV 2023, "Heterogeneous forgetting compensation for class-incremental
//! learning" (card S068), and its released code: the losses of it. Its vision transformer with a
//! token a task is no part of this.
//! **Equation.** With C classes seen, z the share of old ones, and the row's error
//! `a = ln(1 + |p_y − 1|^z)`, `r = a / mean of its group`:
//! new rows `w = (1−z) clip(r, ½, 1)`, `v = 0.8 z`; old rows `w = √(1−z) clip(r, ½, 1.2)`,
//! `v = z clip(r, ½, 1.2)`;
//! `L = mean w BCE(o, y) + mean v BCE(o, s) + ½ mean_c v̄_c BCE(ō_c, s̄_c)`,
//! s the one-hot label with the sigmoids of the last experience's network at the old classes, bars
//! the means over the rows of a class, means also over the C classes. In the first experience
//! `BCE(o, y)` alone.
//! **Use it** with a memory that holds few of some classes. **Not** outside class-incremental
//! streams, nor where an experience meets an old class again, nor with a memory that is filled at
//! each step (all refused). Terms that a recipe adds stay beside these.
//! **Stores** `capacity` examples and one copy of the weights. **Costs** the replayed rows on top of
//! the batch, and two more forward passes: the teacher's, and one for the weights.

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::methods::er::{cross_entropy, draw};
use crate::methods::{MethodCard, settings};
use crate::plugin::{Plugin, Scene};
use crate::seen::{column, outputs};
use crate::spec::{
    ClassesSpec, KeepSpec, LossSpec, MemorySpec, Parts, PluginSpec, SelectSpec, TermSpec,
};
use ebb_data::{Scenario, Stream};
use ebb_space::{
    Classes, Combinator, Divergence, Objective, Reduction, Reference, Support, Term, Weighting,
    presets,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// What rows are weighed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// Their own errors.
    #[default]
    Rows,
    /// Their group alone, as if each error were its group's mean: a control.
    Groups,
    /// Nothing, `w = v = 1`: what the method is compared with.
    Nothing,
}

/// Compensation's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct CompensationSettings {
    /// The weight of the relation between class means.
    pub relation: f64,
    /// What rows are weighed by.
    pub by: By,
}

impl Default for CompensationSettings {
    fn default() -> Self {
        Self {
            relation: 0.5,
            by: By::Rows,
        }
    }
}

/// The classes of an experience and of those before it.
struct Shares {
    /// The experience they are of.
    experience: usize,
    /// Of each output, the experience that brought it in.
    group: Vec<Option<usize>>,
    /// Outputs of earlier experiences.
    old: Vec<bool>,
    /// Outputs that came in with this one.
    new: Vec<bool>,
    /// Their number together, C.
    seen: f64,
    /// The share of old ones, z.
    z: f64,
}

impl Shares {
    fn at(stream: &Stream, experience: usize) -> Self {
        let mut group = vec![None; outputs(stream)];
        // Class-incremental streams have one head, so outputs are columns.
        for (e, of) in stream.experiences[..=experience].iter().enumerate() {
            for c in &of.outputs {
                let group = &mut group[*c as usize];
                *group = group.or(Some(e));
            }
        }
        let is = |test: &dyn Fn(usize) -> bool| group.iter().map(|g| g.is_some_and(test)).collect();
        let old: Vec<bool> = is(&|e| e < experience);
        let new: Vec<bool> = is(&|e| e == experience);
        let count = |set: &[bool]| set.iter().filter(|c| **c).count() as f64;
        let seen = count(&old) + count(&new);
        Self {
            experience,
            z: count(&old) / seen,
            seen,
            group,
            old,
            new,
        }
    }

    /// `w` of every row, of its logits.
    fn weights(&self, labels: &[u32], logits: &[f32], by: By) -> Vec<f32> {
        let width = self.group.len();
        let error = |(y, row): (&u32, &[f32])| {
            let of = |c: usize| f64::from(row[c]);
            let seen = || (0..width).filter(|c| self.group[*c].is_some());
            let max = seen().map(of).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = seen().map(|c| (of(c) - max).exp()).sum();
            let p = (of(*y as usize) - max).exp() / sum;
            (p - 1.0).abs().powf(self.z).ln_1p()
        };
        let errors: Vec<f64> = labels
            .iter()
            .zip(logits.chunks_exact(width))
            .map(error)
            .collect();
        let group = |i: usize| self.group[labels[i] as usize];
        // Of each group the sum of its errors, and its rows.
        let mut sums: BTreeMap<Option<usize>, (f64, f64)> = BTreeMap::new();
        for (i, error) in errors.iter().enumerate() {
            let (sum, count) = sums.entry(group(i)).or_default();
            *sum += error;
            *count += 1.0;
        }
        let weight = |i: usize| {
            // A group without any error has rows that are all alike.
            let (sum, count) = sums[&group(i)];
            let r = match (by, sum / count) {
                (By::Nothing, _) => return 1.0,
                (By::Groups, _) | (By::Rows, 0.0) => 1.0,
                (By::Rows, mean) => errors[i] / mean,
            };
            match group(i) == Some(self.experience) {
                true => (1.0 - self.z) * r.clamp(0.5, 1.0),
                false => (1.0 - self.z).sqrt() * r.clamp(0.5, 1.2),
            }
        };
        (0..labels.len()).map(|i| weight(i) as f32).collect()
    }
}

/// The plugin.
pub struct Compensation {
    settings: CompensationSettings,
    shares: Option<Shares>,
}

impl Compensation {
    /// A plugin with these settings.
    pub fn new(settings: CompensationSettings) -> Self {
        Self {
            settings,
            shares: None,
        }
    }

    /// The classes of the experience under way, made where they are not those of the last call.
    fn shares(&mut self, scene: &Scene) -> &Shares {
        let kept = self.shares.take();
        let kept = kept.filter(|s| s.experience == scene.experience);
        let new = || Shares::at(scene.stream, scene.experience);
        self.shares.insert(kept.unwrap_or_else(new))
    }
}

/// Whether some experience has examples of a class that came in with an earlier one.
fn meets_again(stream: &Stream) -> bool {
    let mut old = vec![false; outputs(stream)];
    stream.experiences.iter().any(|e| {
        let again = e.train.iter().any(|i| old[column(stream, i) as usize]);
        e.outputs.iter().for_each(|c| old[*c as usize] = true);
        again
    })
}

/// One against all at the classes `of`, with the label's answers or the teacher's.
fn answers(on: &str, reference: Reference, of: &[bool], weight: f64) -> Term {
    presets::bernoulli(on, reference)
        .with(Combinator::Mask(Classes::Only(of.to_vec())))
        .weighted(weight)
}

impl Plugin for Compensation {
    fn name(&self) -> &'static str {
        "compensation"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        let each_step = scene.replay.as_ref().is_none_or(|r| r.fills_each_step());
        let reason = if scene.stream.scenario != Scenario::Class {
            "forgetting is compensated by classes old and new, which only a class-incremental \
             stream has: set stream.scenario = \"class\""
        } else if each_step {
            "the compensation takes replayed rows for old ones: it needs a memory that is filled \
             after each experience, memory.keep = \"class-balanced\" or \"experience-balanced\""
        } else if meets_again(scene.stream) {
            "the compensation takes the new rows for new classes, and in this stream an experience \
             has examples of a class that came before: use stream.split"
        } else if scene.objective.reduction != Reduction::MeanOverRows {
            "the compensation's losses are means over all rows: leave train.reduction out, or set \
             it to \"mean-over-rows\""
        } else {
            return Ok(());
        };
        Err(Error::Recipe {
            reason: reason.into(),
        })
    }

    fn before_step(&mut self, scene: &mut Scene, batch: &mut Batch) -> Result<()> {
        if scene.experience > 0 {
            let (logits, _) = scene.oracle.forward(batch);
            let by = self.settings.by;
            let labels = &batch.rows.labels;
            let weights = self.shares(scene).weights(labels, &logits, by);
            batch.row_weights = Some(weights);
        }
        Ok(())
    }

    fn reshape(
        &mut self,
        scene: &mut Scene,
        batch: &Batch,
        objective: &mut Cow<Objective>,
    ) -> Result<()> {
        let (relation, by) = (self.settings.relation, self.settings.by);
        let Shares {
            old, new, seen, z, ..
        } = self.shares(scene);
        let (seen, z) = (*seen, *z);
        let all: Vec<bool> = old.iter().zip(new).map(|(a, b)| *a || *b).collect();
        let terms = &mut objective.to_mut().terms;
        // What the long form says of the answers is said anew; other terms stay.
        terms.retain(|t| !matches!(t.divergence, Divergence::Bernoulli));
        let labels = answers("all", Reference::Label, &all, 1.0 / seen);
        if scene.experience == 0 {
            terms.push(labels);
            return Ok(());
        }
        let weighed = |term: Term| term.with(Combinator::Weight(Weighting::PerRow));
        terms.push(weighed(labels));
        // v is the same for all new rows, and w z/√(1−z) for the others.
        let rows = &batch.rows;
        let classes: BTreeSet<u32> = rows.labels.iter().copied().collect();
        let v = match by {
            By::Nothing => [1.0, 1.0],
            By::Rows | By::Groups => [0.8 * z, z / (1.0 - z).sqrt()],
        };
        for (on, v) in [("new", v[0]), ("replay", v[1])] {
            let by_row = |term: Term| if on == "new" { term } else { weighed(term) };
            let support = Support::from(on);
            let own_rows = (0..rows.len())
                .filter(|i| support.contains(&rows.supports[usize::from(rows.support[*i])]));
            let labels: Vec<u32> = own_rows.map(|i| rows.labels[i]).collect();
            let own_classes: BTreeSet<&u32> = labels.iter().collect();
            // The mean over all classes of the batch, not over these rows.
            let share = own_classes.len() as f64 / classes.len() as f64;
            let among = rows.len() as f64 / labels.len().max(1) as f64;
            let relation = relation * v * share * among / seen;
            for (reference, set) in [(Reference::Label, new), (Reference::Teacher, old)] {
                terms.push(by_row(answers(on, reference, set, v / seen)));
                let mask = Combinator::Mask(Classes::Only(set.clone()));
                let means = presets::class_means(on, reference).with(mask);
                terms.push(by_row(means.weighted(relation)));
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct HfcSettings {
    capacity: usize,
    replay: usize,
    relation: f64,
    by: By,
}

impl Default for HfcSettings {
    fn default() -> Self {
        Self {
            capacity: 500,
            replay: 0,
            relation: 0.5,
            by: By::Rows,
        }
    }
}

/// HFC in the table of methods.
pub const HFC: MethodCard = MethodCard {
    name: "hfc",
    aliases: &["forgetting-compensation"],
    title: "Heterogeneous forgetting compensation",
    source: "Dong et al., ICCV 2023",
    card: "S068",
    family: "replay",
    use_it: "class-incremental streams whose old classes are unequally remembered",
    not_for: "other streams, and memories filled at each step (both refused)",
    stores: "`capacity` examples and one copy of the weights",
    costs: "the replayed rows on top of the batch, and two more forward passes",
    defaults: || settings(&HfcSettings::default()),
    expand: |with, _| {
        let s: HfcSettings = crate::methods::read(with)?;
        // What the plugin makes of these depends on the experience and the batch.
        let answers = |loss, classes| TermSpec {
            loss,
            classes,
            ..cross_entropy("all", 1.0)
        };
        Ok(Parts {
            memory: Some(MemorySpec {
                capacity: s.capacity,
                keep: KeepSpec::ClassBalanced,
            }),
            draw: BTreeMap::from([("a".to_owned(), draw(SelectSpec::Uniform, s.replay))]),
            term: vec![
                answers(LossSpec::Bernoulli, ClassesSpec::Scenario),
                answers(LossSpec::BernoulliDistillation, ClassesSpec::Old),
            ],
            plugin: vec![PluginSpec::Compensation(CompensationSettings {
                relation: s.relation,
                by: s.by,
            })],
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

    fn bce(o: f64, t: f64) -> f64 {
        let ln_sigmoid = |x: f64| -(-x).exp().ln_1p();
        -(t * ln_sigmoid(o) + (1.0 - t) * ln_sigmoid(-o))
    }

    /// The released code's three losses, written out in f64 in the third experience of the digits:
    /// two groups of old classes and the new one.
    #[test]
    fn the_loss_is_the_released_codes() {
        let mut s = staging::session("hfc", "class", &[("with.capacity", "40")]);
        s.oracle.freeze_teacher();
        staging::jolt(&mut s.oracle.model, 0.5);
        staging::remember(&mut s, 0..2);
        for by in [By::Rows, By::Groups, By::Nothing] {
            staging::act(&mut s, 2, |scene| {
                let slots: Vec<u32> = (0..40).step_by(3).collect();
                let new = scene.train()[..9].to_vec();
                let mut batch = staging::mixed(scene, &new, &[("replay:a", &slots)]);
                let mut plugin = Compensation::new(CompensationSettings { relation: 0.5, by });
                plugin.begin_experience(scene).expect("it fits");
                plugin.before_step(scene, &mut batch).expect("weights");
                let mut objective = Cow::Borrowed(scene.objective);
                let done = plugin.reshape(scene, &batch, &mut objective);
                done.expect("nothing to fail at");
                objective.validate().expect("terms that fit");
                let found = scene.oracle.value(&objective, &batch).expect("a value");

                let (n, c) = (batch.rows.len(), 6);
                let wide = |z: Vec<f32>| -> Vec<Vec<f64>> {
                    let width = z.len() / n;
                    z.chunks(width)
                        .map(|r| r[..c].iter().map(|v| f64::from(*v)).collect())
                        .collect()
                };
                let o = wide(scene.oracle.forward(&batch).0);
                let teacher = scene.oracle.teacher.as_mut().expect("frozen");
                let said = teacher.forward(batch.x.clone(), &mut Taps::none()).logits;
                let said = wide(slices::to_vec(&said));
                let y = |i: usize| batch.rows.labels[i] as usize;
                let z = 4.0 / 6.0f64;
                let a = |i: usize| (1.0 + (softmax(&o[i])[y(i)] - 1.0).abs().powf(z)).ln();
                let group = |i: usize| y(i) / 2;
                let ratio = |i: usize| {
                    if by == By::Groups {
                        return 1.0;
                    }
                    let own: Vec<usize> = (0..n).filter(|j| group(*j) == group(i)).collect();
                    a(i) / (own.iter().map(|j| a(*j)).sum::<f64>() / own.len() as f64)
                };
                let w = |i: usize| match group(i) {
                    _ if by == By::Nothing => 1.0,
                    2 => (1.0 - z) * ratio(i).clamp(0.5, 1.0),
                    _ => (1.0 - z).sqrt() * ratio(i).clamp(0.5, 1.2),
                };
                let v = |i: usize| match group(i) {
                    _ if by == By::Nothing => 1.0,
                    2 => 0.8 * z,
                    _ => z * ratio(i).clamp(0.5, 1.2),
                };
                let label = |i: usize, j: usize| f64::from(u8::from(y(i) == j));
                let soft = |i: usize, j: usize| match j {
                    0..4 => 1.0 / (1.0 + (-said[i][j]).exp()),
                    _ => label(i, j),
                };
                let cells = (n * c) as f64;
                let pairs = || (0..n).flat_map(|i| (0..c).map(move |j| (i, j)));
                let first = pairs().map(|(i, j)| w(i) * bce(o[i][j], label(i, j)));
                let second = pairs().map(|(i, j)| v(i) * bce(o[i][j], soft(i, j)));
                let mut want = (first.sum::<f64>() + second.sum::<f64>()) / cells;
                let present: Vec<usize> = (0..c).filter(|k| (0..n).any(|i| y(i) == *k)).collect();
                assert!(present.len() > 4);
                for k in &present {
                    let own: Vec<usize> = (0..n).filter(|i| y(*i) == *k).collect();
                    let mean = |of: &dyn Fn(usize) -> f64| {
                        own.iter().map(|i| of(*i)).sum::<f64>() / own.len() as f64
                    };
                    let each = (0..c).map(|j| bce(mean(&|i| o[i][j]), mean(&|i| soft(i, j))));
                    want += 0.5 * mean(&v) * each.sum::<f64>() / (present.len() * c) as f64;
                }
                assert!((found.total - want).abs() < 2e-5, "{} {want}", found.total);
                let apart = (0..n).any(|i| (ratio(i) - 1.0).abs() > 0.05);
                assert_eq!(apart, by != By::Groups, "rows differ");
            });
        }
        staging::act(&mut s, 0, |scene| {
            let batch = scene.batch_of("new", &scene.train()[..9]);
            let mut objective = Cow::Borrowed(scene.objective);
            let mut plugin = Compensation::new(CompensationSettings::default());
            let done = plugin.reshape(scene, &batch, &mut objective);
            done.expect("nothing to fail at");
            let found = scene.oracle.value(&objective, &batch).expect("a value");
            let z = scene.oracle.forward(&batch).0;
            let rows = z.chunks(10).zip(&batch.rows.labels);
            let each = rows.flat_map(|(z, y)| {
                (0..2).map(move |j| bce(f64::from(z[j]), f64::from(u8::from(*y as usize == j))))
            });
            let want = each.sum::<f64>() / 18.0;
            assert!((found.total - want).abs() < 1e-5, "{} {want}", found.total);
        });
    }

    /// A term that the recipe adds stays beside the method's; a class that comes back and another
    /// mean are refused before the first step.
    #[test]
    fn other_terms_stay_and_other_streams_are_refused() {
        let begin = |sets: &[(&str, &str)]| {
            let mut s = staging::session("hfc", "class", sets);
            staging::act(&mut s, 0, |scene| {
                let mut plugin = Compensation::new(CompensationSettings::default());
                plugin.begin_experience(scene).map(|()| {
                    let batch = scene.batch_of("new", &scene.train()[..9]);
                    let mut objective = Cow::Borrowed(scene.objective);
                    let done = plugin.reshape(scene, &batch, &mut objective);
                    done.expect("nothing to fail at");
                    let names = objective.terms.iter().map(|t| t.name.clone());
                    names.collect::<Vec<_>>().join(" ")
                })
            })
        };
        assert_eq!(begin(&[]).expect("it fits"), "bernoulli");
        let with = begin(&[(
            "term",
            "[{ on = 'new', loss = 'confidence', weight = 0.1 }]",
        )]);
        assert!(with.expect("it fits").ends_with(" bernoulli"));
        for (set, said) in [
            (("stream.blurry", "0.2"), "came before"),
            (("train.reduction", "sum-of-means"), "mean-over-rows"),
        ] {
            let refused = begin(&[set]).expect_err("refused").to_string();
            assert!(refused.contains(said), "{refused}");
        }
    }
}
