//! Stochastic blurry boundaries (Si-Blurry, card S139): tasks of random sizes, of which some
//! classes belong to one task alone and the examples of others stray.
//!
//! `disjoint` of the classes, drawn and rounded down to a multiple of the tasks, are cut at random
//! into one list a task; so are the others, rounded down too (what is left over is not in the
//! stream). `strays` of all examples of the latter are taken from the tasks in random shares, and
//! each goes to a task by a draw of its own, with these shares as probabilities: the paper deals
//! exactly as many back as it took, here the amounts agree in expectation, so that without one
//! example the other strays go where they went. (Who is the last to stray may change with the
//! number of examples.) A task may get no class: it is left out.

use std::collections::BTreeSet;

use ebb_space::Key;

use super::mixture::Mixed;
use super::origin::Origins;
use super::sample::sample;
use super::{Item, StreamSpec};
use crate::{Error, Result};

pub(super) fn experiences(spec: &StreamSpec, origins: &Origins, key: Key) -> Result<Vec<Mixed>> {
    let (classes, tasks) = (origins.sets.len(), spec.n.unwrap_or(1));
    let disjoint = (spec.disjoint.unwrap_or(0.5) * classes as f64) as usize / tasks * tasks;
    let blurry = (classes - disjoint) / tasks * tasks;
    if disjoint + blurry == 0 {
        return Err(Error::stream(
            "n",
            format!("{tasks} tasks of {classes} classes: give at most as many tasks as classes"),
        ));
    }
    let order = key.sub("classes").permutation(classes);
    let (own, shared) = order[..disjoint + blurry].split_at(disjoint);
    let own = cut(own, &cuts(own.len(), tasks, key.sub("disjoint")));
    let shared = cut(shared, &cuts(shared.len(), tasks, key.sub("blurry")));
    let items = |classes: &[u32]| -> Vec<Item> {
        let sets = classes.iter().map(|c| &origins.sets[*c as usize].train);
        sets.flatten().copied().collect()
    };
    let mut shared: Vec<Vec<Item>> = shared.into_iter().map(items).collect();
    let all: usize = shared.iter().map(Vec::len).sum();
    let strays = (spec.strays.unwrap_or(0.1) * all as f64) as usize;
    // A task without such classes gives nothing and gets nothing.
    let givers: Vec<usize> = (0..tasks).filter(|t| !shared[*t].is_empty()).collect();
    let shares = shares(givers.len(), key.sub("amounts"));
    let places: Vec<usize> = shares
        .iter()
        .map(|c| (c * strays as f64) as usize)
        .collect();
    let amounts = lengths(&places, strays);
    let dealt = key.sub("dealt");
    let mut strayed = vec![Vec::new(); tasks];
    for (&task, amount) in givers.iter().zip(amounts) {
        // A task cannot give more than it has.
        let gone = sample(&shared[task], amount, key.sub("strays").at(task as u64));
        let rows: BTreeSet<u32> = gone.iter().map(|i| i.row).collect();
        shared[task].retain(|i| !rows.contains(&i.row));
        for item in gone {
            let draw = dealt.uniform(item.id.mix());
            strayed[givers[shares.partition_point(|c| *c <= draw)]].push(item);
        }
    }
    let mut experiences = Vec::new();
    let parts = own.into_iter().zip(shared).zip(strayed);
    for (task, ((classes, shared), strayed)) in parts.enumerate() {
        let mut train = items(classes);
        train.extend(shared);
        train.extend(strayed);
        if train.is_empty() {
            continue;
        }
        let mut of = vec![0; origins.sets.len()];
        train.iter().for_each(|i| of[i.label as usize] += 1);
        experiences.push(Mixed {
            name: format!("task {task}"),
            train,
            origins: of,
            test: None,
        });
    }
    Ok(experiences)
}

/// `parts − 1` sorted uniform places to cut `0..len` at; equal places leave a part empty.
fn cuts(len: usize, parts: usize, key: Key) -> Vec<usize> {
    let mut stream = key.stream();
    let mut cuts: Vec<usize> = (1..parts)
        .map(|_| stream.below(len as u64 + 1) as usize)
        .collect();
    cuts.sort_unstable();
    cuts
}

/// `parts − 1` sorted uniform places to cut the unit interval at.
fn shares(parts: usize, key: Key) -> Vec<f64> {
    let mut stream = key.stream();
    let mut cuts: Vec<f64> = (1..parts).map(|_| stream.uniform()).collect();
    cuts.sort_unstable_by(f64::total_cmp);
    cuts
}

fn lengths(cuts: &[usize], len: usize) -> Vec<usize> {
    let starts = std::iter::once(&0).chain(cuts);
    let ends = cuts.iter().chain(std::iter::once(&len));
    starts.zip(ends).map(|(a, b)| b - a).collect()
}

fn cut<'a>(list: &'a [u32], cuts: &[usize]) -> Vec<&'a [u32]> {
    let mut rest = list;
    let mut part = |n: usize| {
        let (head, tail) = rest.split_at(n);
        rest = tail;
        head
    };
    lengths(cuts, list.len())
        .into_iter()
        .map(&mut part)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Stream};
    use super::*;
    use std::collections::BTreeMap;

    fn stream(disjoint: f64, strays: f64, seed: u64) -> Stream {
        let spec = StreamSpec {
            dataset: "digits".into(),
            kind: Some(Kind::SiBlurry),
            n: Some(5),
            disjoint: Some(disjoint),
            strays: Some(strays),
            ..StreamSpec::default()
        };
        spec.build(std::path::Path::new("."), seed).expect("digits")
    }

    /// Experiences by which each class is met.
    fn homes(stream: &Stream) -> BTreeMap<u32, BTreeSet<usize>> {
        let mut homes: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
        for e in &stream.experiences {
            for i in e.train.iter() {
                homes.entry(i.label).or_default().insert(e.index);
            }
        }
        homes
    }

    #[test]
    fn every_example_is_met_once_and_class_totals_stay() {
        for seed in 0..20 {
            let stream = stream(0.5, 0.3, seed);
            let mut rows: Vec<u32> = stream.train_items().map(|i| i.row).collect();
            rows.sort_unstable();
            let all: Vec<u32> = (0..stream.train.labels.len() as u32).collect();
            assert_eq!(rows, all, "five and five classes: none is left over");
            for e in &stream.experiences {
                assert!(!e.train.is_empty());
                assert_eq!(e.origins.iter().sum::<usize>(), e.train.len());
            }
        }
    }

    #[test]
    fn disjoint_classes_have_one_home_and_the_others_stray() {
        let mut strayed = 0;
        for seed in 0..20 {
            let homes = homes(&stream(0.5, 0.3, seed));
            let many = homes.values().filter(|h| h.len() > 1).count();
            assert!(many <= 5, "five classes are disjoint");
            strayed += usize::from(many > 0);
            let sharp = self::homes(&stream(0.5, 0.0, seed));
            assert!(sharp.values().all(|h| h.len() == 1));
            let pure = self::homes(&stream(1.0, 0.5, seed));
            assert!(pure.values().all(|h| h.len() == 1));
        }
        assert!(strayed >= 18, "{strayed}");
    }

    /// The share that may stray bounds what lies outside of its class's main task.
    #[test]
    fn no_more_than_the_share_strays() {
        for seed in 0..20 {
            let pure = stream(0.0, 0.0, seed);
            let mixed = stream(0.0, 0.2, seed);
            let home: BTreeMap<u32, String> = (pure.experiences.iter())
                .flat_map(|e| e.classes.iter().map(|c| (*c, e.name.clone())))
                .collect();
            let away: usize = (mixed.experiences.iter())
                .map(|e| e.train.iter().filter(|i| home[&i.label] != e.name).count())
                .sum();
            let all = mixed.train_items().count();
            assert!(away as f64 <= 0.2 * all as f64, "{away} of {all}");
        }
    }

    #[test]
    fn task_sizes_are_random_and_classes_left_over_vanish() {
        let sizes = |seed| -> Vec<usize> {
            let s = stream(0.5, 0.1, seed);
            s.experiences.iter().map(|e| e.train.len()).collect()
        };
        let different: BTreeSet<Vec<usize>> = (0..10).map(sizes).collect();
        assert!(different.len() >= 9);
        assert!(
            (0..10).any(|s| sizes(s).len() < 5),
            "some task gets no class"
        );
        // 3 of 10 are disjoint, rounded down to 0 of 4 tasks; of 10 blurry ones 8 are dealt.
        let spec = StreamSpec {
            dataset: "digits".into(),
            kind: Some(Kind::SiBlurry),
            n: Some(4),
            disjoint: Some(0.3),
            ..StreamSpec::default()
        };
        let s = spec.build(std::path::Path::new("."), 1).expect("digits");
        assert_eq!(homes(&s).len(), 8);
    }

    /// Without one record the others stay where they are, but for those that stray in its place or
    /// no longer do: they are at home in one of the two streams.
    #[test]
    fn without_one_record_the_other_strays_go_where_they_went() {
        let spec = |strays| StreamSpec {
            dataset: "digits".into(),
            kind: Some(Kind::SiBlurry),
            n: Some(5),
            disjoint: Some(0.5),
            strays: Some(strays),
            ..StreamSpec::default()
        };
        let split = crate::load("digits", std::path::Path::new(".")).expect("digits");
        let tasks = |split: &crate::Split, strays, seed| -> BTreeMap<_, String> {
            let stream = spec(strays).build_on(split, seed).expect("digits");
            let of = stream.experiences.iter();
            of.flat_map(|e| e.train.iter().map(|i| (i.id, e.name.clone())))
                .collect()
        };
        for seed in 0..10 {
            let gone = 97 * seed as u32;
            let rest: Vec<u32> = (0..split.train.len() as u32)
                .filter(|r| *r != gone)
                .collect();
            let fewer = crate::Split {
                train: std::sync::Arc::new(split.train.select(&rest)),
                test: split.test.clone(),
            };
            let (before, after) = (tasks(&split, 0.3, seed), tasks(&fewer, 0.3, seed));
            let home = tasks(&split, 0.0, seed);
            assert_eq!(after.len() + 1, before.len());
            let moved: Vec<_> = after.iter().filter(|(id, to)| before[id] != **to).collect();
            assert!(moved.len() <= 6, "{} moved", moved.len());
            for (id, to) in moved {
                assert!(home[id] == before[id] || home[id] == *to);
            }
        }
    }

    #[test]
    fn cuts_cover_the_list() {
        let list: Vec<u32> = (0..10).collect();
        assert_eq!(lengths(&[2, 2, 7], 10), [2, 0, 5, 3]);
        let parts = cut(&list, &[2, 2, 7]);
        assert_eq!(parts.concat(), list);
        assert_eq!(parts[2], [2, 3, 4, 5, 6]);
    }
}
