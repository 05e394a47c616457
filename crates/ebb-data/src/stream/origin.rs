//! The pure experiences that a stream is made of: a split of the classes, or all classes seen
//! through a transform each.

use ebb_space::Key;

use super::sample::sample;
use super::{Angles, ClassOrder, Item, Kind, Scenario, StreamSpec};
use crate::dataset::{Dataset, Normalise, Split};
use crate::transform::{Step, Transform};
use crate::{Error, Result};

/// The origins of a stream and the network that they need.
pub(super) struct Origins {
    pub sets: Vec<Origin>,
    /// By view number.
    pub transforms: Vec<Transform>,
    /// Outputs of a head.
    pub classes: usize,
    pub heads: usize,
}

/// A set of records that belong together.
pub(super) struct Origin {
    pub name: String,
    pub task: usize,
    pub train: Vec<Item>,
    pub test: Vec<Item>,
}

impl Origins {
    pub fn new(spec: &StreamSpec, split: &Split, scale: Normalise, key: Key) -> Result<Origins> {
        let pad: Vec<Step> = spec.pad.map(|to| Step::Pad { to }).into_iter().collect();
        let base = Transform::new(split.train.shape, scale, pad.clone(), 0)?;
        Ok(match spec.origin_kind() {
            Kind::Split => {
                let groups = class_groups(spec, split, key)?;
                by_class(spec, split, base, &groups, key)
            }
            Kind::Recurring | Kind::SiBlurry => {
                let single: Vec<Vec<u32>> =
                    (0..split.train.classes as u32).map(|c| vec![c]).collect();
                let mut origins = by_class(spec, split, base, &single, key);
                for (class, set) in origins.sets.iter_mut().enumerate() {
                    set.name = format!("class {class}");
                    set.task = 0;
                }
                origins
            }
            _ => by_transform(spec, split, base, pad, scale, key)?,
        })
    }
}

impl Origin {
    /// Keeps as many examples as the recipe allows: the `index`-th origin's own draw.
    fn limited(mut self, spec: &StreamSpec, index: usize, key: Key) -> Origin {
        // A recurring stream draws anew for every task, a power law for every phase.
        let pool = matches!(spec.kind, Some(Kind::Recurring | Kind::PowerLaw));
        let key = |purpose| key.sub(purpose).at(index as u64);
        if let Some(n) = spec.per_experience.filter(|_| !pool) {
            self.train = sample(&self.train, n, key("per experience"));
        }
        if let Some(n) = spec.test_per_experience {
            self.test = sample(&self.test, n, key("test per experience"));
        }
        self
    }
}

/// The classes of each experience of a split.
fn class_groups(spec: &StreamSpec, split: &Split, key: Key) -> Result<Vec<Vec<u32>>> {
    let classes = split.train.classes;
    if let Some(groups) = &spec.groups {
        let mut seen = vec![false; classes];
        for class in groups.iter().flatten() {
            match seen.get_mut(*class as usize) {
                None => {
                    return Err(Error::stream(
                        "groups",
                        format!(
                            "there is no class {class}; the dataset has 0 to {}",
                            classes - 1
                        ),
                    ));
                }
                Some(true) => {
                    return Err(Error::stream(
                        "groups",
                        format!(
                            "class {class} is in two groups; classes that come back make a stream of kind \"recurring\""
                        ),
                    ));
                }
                Some(seen) => *seen = true,
            }
        }
        if groups.is_empty() || groups.iter().any(Vec::is_empty) {
            return Err(Error::stream(
                "groups",
                "every experience needs at least one class",
            ));
        }
        return Ok(groups.clone());
    }
    let n = spec.n.unwrap_or(1);
    if !classes.is_multiple_of(n) {
        let divisors: Vec<String> = (1..=classes)
            .filter(|n| classes.is_multiple_of(*n))
            .map(|n| n.to_string())
            .collect();
        return Err(Error::stream(
            "split",
            format!(
                "{classes} classes cannot be dealt evenly to {n} experiences; take {}, or name the classes of each with groups = [[0, 1, 2], [3, 4]]",
                divisors.join(", ")
            ),
        ));
    }
    let order: Vec<u32> = match spec.class_order {
        Some(ClassOrder::Keyed) => key.sub("class order").permutation(classes),
        _ => (0..classes as u32).collect(),
    };
    Ok(order.chunks(classes / n).map(<[u32]>::to_vec).collect())
}

fn by_class(
    spec: &StreamSpec,
    split: &Split,
    base: Transform,
    groups: &[Vec<u32>],
    key: Key,
) -> Origins {
    let scenario = spec.scenario.unwrap_or(Scenario::Class);
    let classes = split.train.classes;
    // Of each class: its experience and its label there.
    let mut place: Vec<Option<(usize, u32)>> = vec![None; classes];
    for (experience, group) in groups.iter().enumerate() {
        for (label, class) in (0..).zip(group) {
            place[*class as usize] = Some((experience, label));
        }
    }
    let deal = |dataset: &Dataset| {
        let mut sets = vec![vec![]; groups.len()];
        for ((row, class), id) in (0..).zip(&dataset.labels).zip(&dataset.ids) {
            let Some((experience, label)) = place.get(*class as usize).copied().flatten() else {
                continue;
            };
            let (label, task) = match scenario {
                Scenario::Task => (label, experience),
                Scenario::Domain => (label, 0),
                Scenario::Class => (*class, 0),
            };
            sets[experience].push(Item {
                row,
                label,
                task: task as u16,
                id: *id,
            });
        }
        sets
    };
    let heads = if scenario == Scenario::Task {
        groups.len()
    } else {
        1
    };
    let sets = groups
        .iter()
        .zip(deal(&split.train).into_iter().zip(deal(&split.test)))
        .enumerate()
        .map(|(index, (group, (train, test)))| {
            let name = group
                .iter()
                .map(u32::to_string)
                .collect::<Vec<_>>()
                .join("-");
            let task = if heads > 1 { index } else { 0 };
            Origin {
                name,
                task,
                train,
                test,
            }
            .limited(spec, index, key)
        })
        .collect();
    let width = match scenario {
        Scenario::Class => classes,
        _ => groups.iter().map(Vec::len).max().unwrap_or(1),
    };
    Origins {
        sets,
        transforms: vec![base],
        classes: width,
        heads,
    }
}

fn by_transform(
    spec: &StreamSpec,
    split: &Split,
    base: Transform,
    pad: Vec<Step>,
    scale: Normalise,
    key: Key,
) -> Result<Origins> {
    let scenario = spec.scenario.unwrap_or(Scenario::Domain);
    let n = spec.n.unwrap_or(1);
    let classes = split.train.classes;
    let features = base.features();
    let mut transforms = vec![base];
    let mut sets = Vec::with_capacity(n);
    for (index, (name, step)) in steps(spec, n, features, key).into_iter().enumerate() {
        let view = match step {
            None => 0,
            Some(step) => {
                let view = transforms.len() as u32;
                let steps = pad.iter().cloned().chain([step]).collect();
                transforms.push(Transform::new(split.train.shape, scale, steps, view)?);
                view
            }
        };
        let items = |dataset: &Dataset| {
            (0..)
                .zip(&dataset.labels)
                .zip(&dataset.ids)
                .map(|((row, class), id)| {
                    let (label, task) = match scenario {
                        Scenario::Task => (*class, index),
                        Scenario::Domain => (*class, 0),
                        Scenario::Class => ((index * classes) as u32 + class, 0),
                    };
                    Item {
                        row,
                        label,
                        task: task as u16,
                        id: id.with_view(view),
                    }
                })
                .collect()
        };
        let task = if scenario == Scenario::Task { index } else { 0 };
        let (train, test) = (items(&split.train), items(&split.test));
        // Limited at once: many experiences of many records each would not fit together.
        sets.push(
            Origin {
                name,
                task,
                train,
                test,
            }
            .limited(spec, index, key),
        );
    }
    let (width, heads) = match scenario {
        Scenario::Task => (classes, n),
        Scenario::Domain => (classes, 1),
        Scenario::Class => (classes * n, 1),
    };
    Ok(Origins {
        sets,
        transforms,
        classes: width,
        heads,
    })
}

/// The name of each experience and what happens to its records; nothing for the identity.
fn steps(spec: &StreamSpec, n: usize, features: usize, key: Key) -> Vec<(String, Option<Step>)> {
    let kind = spec.origin_kind();
    let identity = |index: usize| index == 0 && spec.first_identity == Some(true);
    match kind {
        Kind::Permuted => (0..n)
            .map(|index| {
                if identity(index) {
                    return ("identity".into(), None);
                }
                let order = key
                    .sub("permutation")
                    .at(index as u64)
                    .permutation(features);
                (
                    format!("permutation {index}"),
                    Some(Step::Permute {
                        order: order.into(),
                    }),
                )
            })
            .collect(),
        Kind::Rotated => angles(spec, n, key)
            .into_iter()
            .map(|degrees| (format!("{degrees:.1}°"), Some(Step::Rotate { degrees })))
            .collect(),
        Kind::Corrupted => {
            let listed = spec.corruptions.iter().flatten().map(|c| {
                let step = Step::Corrupt {
                    kind: c.kind,
                    severity: c.severity,
                    key: key.sub("corruption").at(u64::from(c.severity)),
                };
                (format!("{} {}", c.kind.name(), c.severity), Some(step))
            });
            let clean = (spec.first_identity == Some(true)).then(|| ("clean".into(), None));
            clean.into_iter().chain(listed).collect()
        }
        _ => (0..n)
            .map(|index| {
                let (ink, paper) = if identity(index) {
                    ([1.0; 3], [0.0; 3])
                } else {
                    colours(key.sub("colours").at(index as u64))
                };
                (
                    format!("colours {index}"),
                    Some(Step::Recolour { ink, paper }),
                )
            })
            .collect(),
    }
}

fn angles(spec: &StreamSpec, n: usize, key: Key) -> Vec<f64> {
    if let Some(degrees) = &spec.degrees {
        return degrees.clone();
    }
    let [low, high] = spec.range.unwrap_or([0.0, 180.0]);
    let key = key.sub("angle");
    (0..n)
        .map(|index| match spec.angles {
            Some(Angles::Even) => low + (high - low) * index as f64 / (n - 1).max(1) as f64,
            _ => low + (high - low) * key.uniform(index as u64),
        })
        .collect()
}

/// A bright ink of a drawn hue on a paper of the opposite hue, at most half as bright.
fn colours(key: Key) -> ([f32; 3], [f32; 3]) {
    let hue = key.uniform(0);
    let brightness = 0.5 * key.uniform(1) as f32;
    (pure(hue), pure(hue + 0.5).map(|c| c * brightness))
}

/// The fully saturated colour of a hue, counted in turns.
fn pure(hue: f64) -> [f32; 3] {
    [0.0, 2.0, 4.0].map(|shift| {
        let sixths = (hue * 6.0 + shift).rem_euclid(6.0);
        ((sixths - 3.0).abs() - 1.0).clamp(0.0, 1.0) as f32
    })
}
