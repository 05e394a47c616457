//! Classes that come back again and again in many short tasks.
//!
//! **Source.** SCoLe, Lesort et al. 2023 (card S121): each task draws `m` classes without
//! replacement, with equal or skewed chances; or the groups take turns. After half of the stream
//! classes may go for good.

use ebb_space::Key;

use super::mixture::Mixed;
use super::origin::Origins;
use super::sample::sample;
use super::{Item, SecondHalf, StreamSpec, TaskOrder};
use crate::{Error, Result};

/// More groups than this are not enumerated.
const MOST_GROUPS: usize = 100_000;

pub(super) fn experiences(spec: &StreamSpec, origins: &Origins, key: Key) -> Result<Vec<Mixed>> {
    let classes = origins.sets.len();
    let tasks = spec.n.unwrap_or(1);
    let size = spec.classes_per_task.unwrap_or(2);
    if size > classes {
        return Err(Error::stream(
            "classes_per_task",
            format!("a task of {size} classes cannot be drawn from {classes}"),
        ));
    }
    let shares = shares(spec, classes, key.sub("skew"))?;
    let groups = groups(spec, classes, size, key.sub("groups"))?;
    // Half of the classes, drawn: those that go, or those of the first half.
    let drawn = key.sub("half").permutation(classes);
    let chosen: Vec<u32> = drawn[..classes / 2].to_vec();
    let allowed = |task: usize, class: u32| {
        let late = 2 * task >= tasks;
        match spec.second_half {
            Some(SecondHalf::Removed) => !late || !chosen.contains(&class),
            Some(SecondHalf::Disjoint) => chosen.contains(&class) != late,
            _ => true,
        }
    };

    let items_key = key.sub("examples");
    (0..tasks)
        .map(|task| {
            let open = |class| allowed(task, class);
            let mut drawn = draw(spec, task, size, &shares, &groups, &open, key.sub("tasks"))?;
            drawn.sort_unstable();
            let pool: Vec<Item> = drawn
                .iter()
                .flat_map(|class| origins.sets[*class as usize].train.iter().copied())
                .collect();
            let train = sample(
                &pool,
                spec.per_experience.unwrap_or(pool.len()),
                items_key.at(task as u64),
            );
            let mut counts = vec![0; classes];
            for item in &train {
                counts[item.label as usize] += 1;
            }
            let name = drawn
                .iter()
                .map(u32::to_string)
                .collect::<Vec<_>>()
                .join("-");
            Ok(Mixed {
                name,
                train,
                origins: counts,
                test: None,
            })
        })
        .collect()
}

/// The chance of each class.
fn shares(spec: &StreamSpec, classes: usize, key: Key) -> Result<Vec<f64>> {
    let Some(skew) = spec.skew else {
        return Ok(vec![1.0 / classes as f64; classes]);
    };
    let normalised = |shares: Vec<f64>| {
        let sum: f64 = shares.iter().sum();
        shares.into_iter().map(|p| p / sum).collect::<Vec<f64>>()
    };
    let c = classes as f64;
    let linear: Vec<f64> = (0..classes)
        .map(|class| (1.0 - class as f64 * skew.factor) / c)
        .collect();
    if linear.iter().any(|p| *p <= 0.0) {
        return Err(Error::stream(
            "skew",
            format!(
                "a factor of {} gives some of the {classes} classes no chance; take less than {}",
                skew.factor,
                1.0 / (c - 1.0)
            ),
        ));
    }
    let skewed = normalised(
        normalised(linear)
            .into_iter()
            .map(|p| p.powf(skew.power))
            .collect(),
    );
    Ok(key
        .permutation(classes)
        .into_iter()
        .map(|place| skewed[place as usize])
        .collect())
}

/// The groups that may form a task; none if every group may.
fn groups(
    spec: &StreamSpec,
    classes: usize,
    size: usize,
    key: Key,
) -> Result<Option<Vec<Vec<u32>>>> {
    if let Some(groups) = &spec.groups {
        for group in groups {
            let mut sorted = group.clone();
            sorted.sort_unstable();
            sorted.dedup();
            if sorted.len() != size || sorted.iter().any(|class| *class as usize >= classes) {
                return Err(Error::stream(
                    "groups",
                    format!(
                        "{group:?} are not {size} different classes out of 0 to {}",
                        classes - 1
                    ),
                ));
            }
        }
        if groups.is_empty() {
            return Err(Error::stream(
                "groups",
                "an empty list allows no task; leave it out to allow all",
            ));
        }
        return Ok(Some(groups.clone()));
    }
    if let Some(n) = spec.n_groups {
        let mut all = combinations(classes, size)
            .filter(|all| all.len() >= n && n > 0)
            .ok_or_else(|| {
                Error::stream(
                    "n_groups",
                    format!("{n} groups of {size} out of {classes} classes cannot be drawn"),
                )
            })?;
        let order = key.permutation(all.len());
        return Ok(Some(
            order[..n]
                .iter()
                .map(|place| std::mem::take(&mut all[*place as usize]))
                .collect(),
        ));
    }
    if spec.order == Some(TaskOrder::Cycle) {
        let order: Vec<u32> = (0..classes as u32).collect();
        return Ok(Some(
            order.chunks_exact(size).map(<[u32]>::to_vec).collect(),
        ));
    }
    Ok(None)
}

/// All groups of `size` out of `classes` classes in lexicographic order, if they are not too many.
fn combinations(classes: usize, size: usize) -> Option<Vec<Vec<u32>>> {
    let mut all = vec![vec![]];
    for _ in 0..size {
        let mut longer = vec![];
        for group in &all {
            let from = group.last().map_or(0, |last| last + 1);
            longer.extend((from..classes as u32).map(|class| [&group[..], &[class]].concat()));
            if longer.len() > MOST_GROUPS {
                return None;
            }
        }
        all = longer;
    }
    Some(all)
}

/// The classes of one task.
fn draw(
    spec: &StreamSpec,
    task: usize,
    size: usize,
    shares: &[f64],
    groups: &Option<Vec<Vec<u32>>>,
    allowed: &dyn Fn(u32) -> bool,
    key: Key,
) -> Result<Vec<u32>> {
    let mut draws = key.at(task as u64).stream();
    let Some(groups) = groups else {
        // One after another, each in proportion to its chance among those that are left.
        let mut left: Vec<u32> = (0..shares.len() as u32)
            .filter(|class| allowed(*class))
            .collect();
        if left.len() < size {
            return Err(Error::stream(
                "second_half",
                format!(
                    "{} classes are left after half of the stream, too few for tasks of {size}",
                    left.len()
                ),
            ));
        }
        return Ok((0..size)
            .map(|_| {
                let weights = left.iter().map(|class| shares[*class as usize]);
                left.remove(pick(weights.collect(), draws.uniform()))
            })
            .collect());
    };
    let open: Vec<&Vec<u32>> = groups
        .iter()
        .filter(|group| group.iter().all(|class| allowed(*class)))
        .collect();
    if open.is_empty() {
        return Err(Error::stream(
            "second_half",
            "no allowed group of classes is left in one half of the stream; allow more groups",
        ));
    }
    let random = draws.uniform() < spec.random_fraction.unwrap_or(0.0);
    if spec.order == Some(TaskOrder::Cycle) && !random {
        return Ok(open[task % open.len()].clone());
    }
    // A group is as likely as its classes together.
    let weights = open
        .iter()
        .map(|group| group.iter().map(|class| shares[*class as usize]).product());
    Ok(open[pick(weights.collect(), draws.uniform())].clone())
}

/// The place at which the running sum of the weights passes the share `u` of their sum.
pub(super) fn pick(weights: Vec<f64>, u: f64) -> usize {
    let target = u * weights.iter().sum::<f64>();
    let mut sum = 0.0;
    let place = weights.iter().position(|weight| {
        sum += weight;
        target < sum
    });
    place.unwrap_or(weights.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Skew};
    use super::*;

    fn spec() -> StreamSpec {
        let spec = StreamSpec {
            dataset: "digits".into(),
            kind: Some(Kind::Recurring),
            ..Default::default()
        };
        spec.resolved().unwrap()
    }

    #[test]
    fn the_skew_is_the_published_formula() {
        let skew = Some(Skew {
            factor: 0.05,
            power: 2.0,
        });
        let spec = StreamSpec { skew, ..spec() };
        let mut got = shares(&spec, 10, Key::new(0, "s")).unwrap();
        got.sort_by(f64::total_cmp);
        // p_c = 1/C - c f/C, normalised, squared, normalised, written out.
        let p: Vec<f64> = (0..10).map(|c| 0.1 - 0.1 * f64::from(c) * 0.05).collect();
        let sum: f64 = p.iter().map(|p| p * p).sum();
        let mut expected: Vec<f64> = p.iter().map(|p| p * p / sum).collect();
        expected.reverse();
        for (got, expected) in got.iter().zip(&expected) {
            assert!((got - expected).abs() < 1e-12);
        }
        let too_much = StreamSpec {
            skew: Some(Skew {
                factor: 0.2,
                power: 1.0,
            }),
            ..spec
        };
        assert!(
            shares(&too_much, 10, Key::new(0, "s"))
                .unwrap_err()
                .to_string()
                .contains("0.11")
        );
    }

    #[test]
    fn classes_are_drawn_in_proportion() {
        let spec = spec();
        let shares = [0.5, 0.3, 0.15, 0.05];
        let mut first = [0.0; 4];
        let mut either = [0.0; 4];
        let n = 40_000;
        for task in 0..n {
            let drawn = draw(&spec, task, 2, &shares, &None, &|_| true, Key::new(1, "d")).unwrap();
            first[drawn[0] as usize] += 1.0 / n as f64;
            assert_ne!(drawn[0], drawn[1]);
            for class in drawn {
                either[class as usize] += 1.0 / n as f64;
            }
        }
        for a in 0..4 {
            assert!((first[a] - shares[a]).abs() < 0.012);
            // Drawn second: after each other class, in proportion to what that one left.
            let second: f64 = (0..4)
                .filter(|b| *b != a)
                .map(|b| shares[b] * shares[a] / (1.0 - shares[b]))
                .sum();
            assert!((either[a] - shares[a] - second).abs() < 0.012);
        }
    }

    #[test]
    fn groups_are_all_those_that_can_be() {
        assert_eq!(
            combinations(4, 2).unwrap(),
            [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
        );
        assert_eq!(combinations(10, 3).unwrap().len(), 120);
        assert_eq!(combinations(100, 50), None);
    }

    #[test]
    fn groups_take_turns() {
        let spec = StreamSpec {
            order: Some(TaskOrder::Cycle),
            random_fraction: Some(0.0),
            ..spec()
        };
        let groups = groups(&spec, 10, 2, Key::new(0, "g")).unwrap();
        let task = |t| {
            draw(
                &spec,
                t,
                2,
                &[0.1; 10],
                &groups,
                &|_| true,
                Key::new(0, "d"),
            )
            .unwrap()
        };
        assert_eq!(
            [task(0), task(1), task(4), task(5)],
            [[0, 1], [2, 3], [8, 9], [0, 1]]
        );
        let half = StreamSpec {
            random_fraction: Some(0.5),
            ..spec.clone()
        };
        let off = (0..2000)
            .filter(|t| {
                draw(
                    &half,
                    *t,
                    2,
                    &[0.1; 10],
                    &groups,
                    &|_| true,
                    Key::new(0, "d"),
                )
                .unwrap()
                    != task(*t)
            })
            .count();
        // Half are drawn, and one draw in five hits the group whose turn it is.
        assert!((off as f64 / 2000.0 - 0.4).abs() < 0.04);
    }
}
