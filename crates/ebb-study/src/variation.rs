//! Streams as a study shows them to an arm: whole, in part, or as a sham.

use ebb_data::{EvalSet, Item, Scenario, Stream};
use ebb_learn::tune::first_experiences;
use ebb_space::Key;
use serde::{Deserialize, Serialize};

/// Share of the training examples that trials are measured on, as of `ebb tune` unless told otherwise.
pub const HELD_OUT: f64 = 0.1;

/// What an arm sees of the stream that its recipe describes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variation {
    /// All of it.
    #[default]
    Whole,
    /// What a trial of tuning may look at, which is no arm's to ask for: the training examples of
    /// its first experiences, [`HELD_OUT`] of them held out to measure on. No test example and no
    /// later experience is in it.
    #[serde(skip)]
    First(usize),
    /// Its first experiences alone, on their own test sets: what a trial of tuning may look at where
    /// what is learnt is measured on the very examples it is learnt from.
    #[serde(skip)]
    Begin(usize),
    /// Its last experiences alone, on all test sets: a model that never saw the others.
    Last(usize),
    /// Switches at which nothing changes: every experience is a random part of the whole
    /// mixture, and so is every test set. What is left of a switch is the reset of the loader.
    Sham,
}

impl Variation {
    /// The stream as the arm sees it.
    ///
    /// # Errors
    /// When the stream has no such part; the text says why.
    pub fn of(self, stream: Stream, key: Key) -> Result<Stream, String> {
        let n = stream.experiences.len();
        match self {
            Variation::Whole => Ok(stream),
            Variation::Last(k) if k == 0 || k > n => Err(format!(
                "the last {k} of {n} experiences are no part of the stream"
            )),
            Variation::First(k) => {
                first_experiences(&stream, k, HELD_OUT).map_err(|e| e.to_string())
            }
            Variation::Begin(k) => begin(stream, k),
            Variation::Last(k) => Ok(last(stream, k)),
            Variation::Sham => sham(stream, key),
        }
    }
}

fn begin(mut stream: Stream, k: usize) -> Result<Stream, String> {
    let n = stream.experiences.len();
    if k == 0 || k > n || stream.evals.len() != n {
        return Err(format!(
            "the first {k} of {n} experiences with a test set each are no part of the stream"
        ));
    }
    stream.experiences.truncate(k);
    stream.evals.truncate(k);
    for e in &mut stream.experiences {
        e.origins.truncate(k);
    }
    Ok(stream)
}

fn last(mut stream: Stream, k: usize) -> Stream {
    let cut = stream.experiences.len() - k;
    stream.experiences.drain(..cut);
    for (index, e) in stream.experiences.iter_mut().enumerate() {
        e.index = index;
    }
    stream
}

fn sham(mut stream: Stream, key: Key) -> Result<Stream, String> {
    if stream.scenario == Scenario::Task {
        return Err("a sham switch needs one head for all experiences".to_owned());
    }
    let n = stream.experiences.len();
    let train: Vec<Item> = stream.train_items().copied().collect();
    let test: Vec<Item> = stream
        .evals
        .iter()
        .flat_map(|e| e.items.iter().copied())
        .collect();
    let parts = deal(train, n, key.sub("sham train"));
    let tests = deal(test, n, key.sub("sham test"));
    let labels = |items: &[Item]| {
        let mut labels: Vec<u32> = items.iter().map(|i| i.label).collect();
        labels.sort_unstable();
        labels.dedup();
        labels
    };
    stream.evals = tests
        .iter()
        .enumerate()
        .map(|(i, items)| EvalSet {
            name: format!("part {i}"),
            task: 0,
            items: items.as_slice().into(),
        })
        .collect();
    for (i, (e, items)) in stream.experiences.iter_mut().zip(parts).enumerate() {
        let mut classes: Vec<u32> = items
            .iter()
            .map(|item| stream.train.labels[item.row as usize])
            .collect();
        classes.sort_unstable();
        classes.dedup();
        e.name = format!("part {i}");
        e.task = 0;
        e.classes = classes;
        e.outputs = labels(&items);
        e.origins = (0..n)
            .map(|s| if s == i { items.len() } else { 0 })
            .collect();
        e.test = tests[i].as_slice().into();
        e.train = items.into();
    }
    match stream
        .experiences
        .iter()
        .all(|e| !e.train.is_empty() && !e.test.is_empty())
    {
        true => Ok(stream),
        false => Err("it has too few examples to be dealt out".to_owned()),
    }
}

/// Deals items out in equal parts, in an order drawn by id.
fn deal(mut items: Vec<Item>, parts: usize, key: Key) -> Vec<Vec<Item>> {
    key.order(&mut items, |item| item.id.mix());
    let mut dealt = vec![Vec::with_capacity(items.len() / parts + 1); parts];
    for (i, item) in items.into_iter().enumerate() {
        dealt[i % parts].push(item);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_data::StreamSpec;
    use std::collections::HashSet;

    fn stream() -> Stream {
        let spec = StreamSpec {
            dataset: "digits".into(),
            split: Some(5),
            ..StreamSpec::default()
        };
        spec.build(std::path::Path::new("."), 0).unwrap()
    }

    fn key() -> Key {
        Key::new(3, "variation")
    }

    #[test]
    fn the_first_experiences_know_nothing_of_the_later_ones() {
        let whole = stream();
        let part = Variation::First(2).of(whole.clone(), key()).unwrap();
        assert_eq!((part.experiences.len(), part.evals.len()), (2, 2));
        assert!(part.experiences.iter().all(|e| e.origins.len() == 2));
        assert_eq!(part.classes, whole.classes);
        let ids = |items: &[Item]| -> HashSet<_> { items.iter().map(|i| i.id).collect() };
        let shown: HashSet<_> = (whole.experiences[..2].iter())
            .flat_map(|e| ids(&e.train))
            .collect();
        for e in &part.experiences {
            assert!(ids(&e.train).is_disjoint(&ids(&e.test)));
            assert!(
                ids(&e.train)
                    .union(&ids(&e.test))
                    .all(|i| shown.contains(i))
            );
        }
        assert!(Variation::First(6).of(whole, key()).is_err());
    }

    #[test]
    fn the_last_experiences_are_measured_on_everything() {
        let part = Variation::Last(1).of(stream(), key()).unwrap();
        assert_eq!((part.experiences.len(), part.evals.len()), (1, 5));
        assert_eq!(part.experiences[0].classes, [8, 9]);
        assert_eq!(part.experiences[0].index, 0);
    }

    #[test]
    fn a_sham_switch_changes_nothing_but_the_examples() {
        let whole = stream();
        let sham = Variation::Sham.of(whole.clone(), key()).unwrap();
        let ids = |s: &Stream| -> HashSet<_> { s.train_items().map(|i| i.id).collect() };
        assert_eq!(ids(&whole), ids(&sham), "the same examples");
        assert_eq!(
            sham.train_items().count(),
            whole.train_items().count(),
            "each once"
        );
        for (i, e) in sham.experiences.iter().enumerate() {
            assert_eq!(
                e.classes,
                (0..10).collect::<Vec<u32>>(),
                "all classes in each"
            );
            let own: Vec<usize> = (0..5).filter(|s| e.origins[*s] > 0).collect();
            assert_eq!(
                own,
                [i],
                "one test set each, so that the others are earlier ones"
            );
        }
        let tests: usize = sham.evals.iter().map(|e| e.items.len()).sum();
        assert_eq!(
            tests,
            whole.evals.iter().map(|e| e.items.len()).sum::<usize>()
        );
    }
}
