//! The part of a stream that a search may look at.

use crate::error::{Error, Result};
use ebb_data::{EvalSet, Experience, Item, Stream};
use ebb_space::{ExampleId, Key};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The first experiences of a stream, a share of their training examples held out to measure on.
///
/// No other example is in it: its datasets are copies of the records shown, so that no test
/// example and no example of a later experience can be read, whatever reads the stream. Its test
/// sets are the held-out examples, one set an experience.
///
/// A record is held out in every experience, under every view and with all records that equal it,
/// so that nothing measured was ever trained. The share is taken of each class by keyed draws;
/// the key is fixed, as the split belongs to the data and not to a run.
///
/// # Errors
/// When the stream has fewer experiences, or too few examples to hold some out.
pub fn first_experiences(whole: &Stream, first: usize, share: f64) -> Result<Stream> {
    let wrong = |reason: String| Err(Error::Tune { reason });
    let n = whole.experiences.len();
    if first == 0 || first > n {
        return wrong(format!(
            "the stream has {n} experiences, so the search can look at the first 1 to {n}, not {first}"
        ));
    }
    if !(share > 0.0 && share < 1.0) {
        return wrong(format!(
            "the share held out to measure on lies between 0 and 1, it is {share}"
        ));
    }
    let shown = &whole.experiences[..first];
    let held = held_out(whole, shown, share);
    let (mut train, mut test) = (Records::default(), Records::default());
    let mut experiences = Vec::with_capacity(first);
    let mut evals = Vec::with_capacity(first);
    for (index, e) in shown.iter().enumerate() {
        let (measured, learned): (Vec<Item>, Vec<Item>) = e
            .train
            .iter()
            .partition(|item| held.contains(&record(item)));
        if measured.is_empty() || learned.is_empty() {
            return wrong(format!(
                "experience {} (`{}`) has {} training examples, too few to hold a share of {share} \
                 out: take another share or more examples",
                index + 1,
                e.name,
                e.train.len()
            ));
        }
        let classes = learned.iter().map(|i| whole.train.labels[i.row as usize]);
        let classes = sorted(classes.collect());
        let outputs = sorted(learned.iter().map(|i| i.label).collect());
        let measured: Arc<[Item]> = measured.iter().map(|i| test.take(i)).collect();
        experiences.push(Experience {
            index,
            name: e.name.clone(),
            task: e.task,
            classes,
            outputs,
            origins: (0..first)
                .map(|set| if set == index { learned.len() } else { 0 })
                .collect(),
            train: learned.iter().map(|i| train.take(i)).collect(),
            test: measured.clone(),
        });
        evals.push(EvalSet {
            name: e.name.clone(),
            task: e.task,
            items: measured,
        });
    }
    let generic = whole.generic.iter().map(|i| train.take(i)).collect();
    Ok(Stream {
        spec: whole.spec.clone(),
        generic,
        train: Arc::new(whole.train.select(&train.rows)),
        test: Arc::new(whole.train.select(&test.rows)),
        scenario: whole.scenario,
        experiences,
        evals,
        transforms: whole.transforms.clone(),
        classes: whole.classes,
        heads: whole.heads,
    })
}

/// BLAKE3 of which examples are learned from and measured on, in order.
pub(super) fn fingerprint(shown: &Stream) -> String {
    let mut hasher = blake3::Hasher::new();
    for e in &shown.experiences {
        for (part, items) in [(0u8, &e.train), (1, &e.test)] {
            hasher.update(&[part]);
            for item in items.iter() {
                hasher.update(&item.id.base);
                for number in [item.id.occurrence, item.id.view, item.label] {
                    hasher.update(&number.to_le_bytes());
                }
            }
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// An example as content alone: without its view, and one with its equals.
fn record(item: &Item) -> ExampleId {
    item.id.with_view(0).with_occurrence(0)
}

/// Of each class the share with the smallest draws: at least one record, and never all.
fn held_out(whole: &Stream, shown: &[Experience], share: f64) -> HashSet<ExampleId> {
    let mut classes: HashMap<u32, HashSet<ExampleId>> = HashMap::new();
    for item in shown.iter().flat_map(|e| e.train.iter()) {
        let class = whole.train.labels[item.row as usize];
        classes.entry(class).or_default().insert(record(item));
    }
    let key = Key::new(0, "validation split");
    let of_class = |records: HashSet<ExampleId>| {
        let mut records: Vec<ExampleId> = records.into_iter().collect();
        records.sort_unstable_by_key(|id| (key.draw(id.mix()), *id));
        let n = records.len();
        let held = ((n as f64 * share).round() as usize).max(1).min(n - 1);
        records.truncate(held);
        records
    };
    classes.into_values().flat_map(of_class).collect()
}

fn sorted(mut values: Vec<u32>) -> Vec<u32> {
    values.sort_unstable();
    values.dedup();
    values
}

/// Records on their way into a dataset of their own.
#[derive(Default)]
struct Records {
    /// Their rows in the dataset they come from.
    rows: Vec<u32>,
    /// Where each of these went.
    places: HashMap<u32, u32>,
}

impl Records {
    /// The item, pointing to its record's new place.
    fn take(&mut self, item: &Item) -> Item {
        let next = self.rows.len() as u32;
        let row = *self.places.entry(item.row).or_insert(next);
        if row == next {
            self.rows.push(item.row);
        }
        Item { row, ..*item }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_data::{Part, StreamSpec};
    use std::path::Path;

    fn stream(text: &str) -> Stream {
        let spec: StreamSpec = toml::from_str(text).unwrap();
        spec.build(Path::new("."), 3).unwrap()
    }

    fn ids<'a>(items: impl IntoIterator<Item = &'a Item>) -> HashSet<ExampleId> {
        items.into_iter().map(|i| i.id).collect()
    }

    #[test]
    fn what_is_shown_are_the_first_training_examples_each_on_one_side() {
        let whole = stream("dataset = 'digits'\nsplit = 5\nscenario = 'class'");
        let shown = first_experiences(&whole, 2, 0.1).unwrap();
        assert_eq!((shown.experiences.len(), shown.evals.len()), (2, 2));
        let learned = ids(shown.train_items());
        let measured = ids(shown.evals.iter().flat_map(|e| e.items.iter()));
        assert!(learned.is_disjoint(&measured));
        let both: HashSet<_> = learned.union(&measured).copied().collect();
        let first = &whole.experiences[..2];
        assert_eq!(both, ids(first.iter().flat_map(|e| e.train.iter())));
        // No record besides these is there at all.
        assert_eq!(shown.train.len() + shown.test.len(), both.len());
        // A tenth of each class, rounded.
        for class in 0..4 {
            let of = |labels: &[u32]| labels.iter().filter(|l| **l == class).count();
            let (held, left) = (of(&shown.test.labels), of(&shown.train.labels));
            assert_eq!(held, ((held + left) as f64 * 0.1).round() as usize);
        }
        // Each item still shows what it showed.
        let gathered = |s: &Stream, part, items: &[Item]| {
            let mut x = Vec::new();
            s.gather(part, items, &mut x);
            x
        };
        for (e, old) in shown.experiences.iter().zip(first) {
            let of = |id: ExampleId| *old.train.iter().find(|i| i.id == id).unwrap();
            let train: Vec<Item> = e.train.iter().map(|i| of(i.id)).collect();
            let test: Vec<Item> = e.test.iter().map(|i| of(i.id)).collect();
            assert_eq!(
                gathered(&shown, Part::Train, &e.train),
                gathered(&whole, Part::Train, &train)
            );
            assert_eq!(
                gathered(&shown, Part::Test, &e.test),
                gathered(&whole, Part::Train, &test)
            );
        }
    }

    #[test]
    fn a_record_is_held_out_under_every_view_and_in_every_experience() {
        for text in [
            "dataset = 'digits'\nkind = 'permuted'\nn = 4",
            "dataset = 'digits'\nkind = 'recurring'\nn = 6\nper_experience = 200",
        ] {
            let whole = stream(text);
            let shown = first_experiences(&whole, 3, 0.2).unwrap();
            let learned: HashSet<_> = shown.train_items().map(record).collect();
            let measured = shown.evals.iter().flat_map(|e| e.items.iter());
            assert!(measured.clone().all(|i| !learned.contains(&record(i))));
            let share = measured.count() as f64 / shown.train_items().count() as f64;
            assert!((0.15..0.35).contains(&share), "a fifth to four: {share}");
        }
    }

    #[test]
    fn what_cannot_be_shown_is_refused() {
        let whole = stream("dataset = 'digits'\nsplit = 5\nscenario = 'class'");
        let why = |first, share| {
            let error = first_experiences(&whole, first, share).unwrap_err();
            error.to_string()
        };
        assert!(why(6, 0.1).contains("the first 1 to 5, not 6"));
        assert!(why(0, 0.1).contains("not 0"));
        assert!(why(2, 1.0).contains("between 0 and 1"));
        assert!(why(2, f64::NAN).contains("between 0 and 1"));
    }
}
