//! What can only be seen from within: writes that fail at any byte, and draws beside their definition.

use std::path::Path;

use ebb_space::{ExampleId, Key};

use super::disk::fault;
use super::index::{Index, cell_of};
use super::race::Race;
use super::{Input, Marks, Safety, Shape, Store};
use crate::record::{Offer, Records, Values};
use crate::{Error, Result};

const SHAPE: Shape = Shape {
    input: Input::U8(30),
    logits: Some(2),
    features: None,
};

fn id(n: u64) -> ExampleId {
    ExampleId::of(&n.to_le_bytes(), 0)
}

/// Records `ns`, all values of `n` being `n + add`.
fn insert(store: &mut Store, ns: &[u64], add: u64) -> Result<usize> {
    let ids: Vec<ExampleId> = ns.iter().map(|&n| id(n)).collect();
    let labels = vec![0; ns.len()];
    let offer = Offer {
        ids: &ids,
        labels: &labels,
        experience: 0,
        task: 0,
        step: 0,
    };
    let codes: Vec<u8> = ns.iter().flat_map(|&n| [(n + add) as u8; 30]).collect();
    let logits: Vec<f32> = ns.iter().flat_map(|&n| [(n + add) as f32; 2]).collect();
    let records = Records {
        inputs: Values::U8(&codes),
        logits: Some(&logits),
        features: None,
    };
    store.insert(&offer, &records)
}

/// (n, codes, logits, count) of each record.
type Content = Vec<(u64, Vec<u8>, Vec<f32>, u32)>;

fn content(store: &Store) -> Content {
    let mut out = Content::new();
    for n in 0..40 {
        if let Some(slot) = store.find(&id(n)).unwrap() {
            let (mut codes, mut logits) = (Vec::new(), Vec::new());
            store.payload(slot, &mut codes).unwrap();
            store.gather_logits(&[slot], &mut logits).unwrap();
            out.push((n, codes, logits, store.marks(slot).unwrap().count));
        }
    }
    assert_eq!(out.len(), store.len());
    out
}

const STEPS: usize = 9;

/// A story in steps: each is a change of the content, or none.
fn step(store: &mut Store, step: usize) -> Result<()> {
    let slots = |store: &Store, ns: &[u64]| -> Result<Vec<u32>> {
        let found: Result<Vec<Option<u32>>> = ns.iter().map(|&n| store.find(&id(n))).collect();
        Ok(found?.into_iter().flatten().collect())
    };
    match step {
        0 => insert(store, &[0, 1, 2, 3, 4, 5, 6, 7], 0).map(drop),
        1 => {
            let slots = slots(store, &[1, 4, 6])?;
            let marks = [7, 8, 9].map(|count| Marks {
                count,
                ..Marks::default()
            });
            store.mark(&slots, &marks[..slots.len()])
        }
        2 => store.delete(&[id(1), id(2), id(7)]).map(drop),
        // The freed slots wait for the journal to be emptied, so these come behind.
        3 => insert(store, &[20, 21], 100).map(drop),
        4 => store.checkpoint(),
        5 => insert(store, &[1, 22, 23, 24], 50).map(drop),
        6 => {
            let slots = slots(store, &[22, 3])?;
            let logits: Vec<f32> = slots.iter().flat_map(|_| [-5.0, -6.0]).collect();
            store.rewrite(&slots, Some(&logits), None, 9)
        }
        7 => store.compact().map(drop),
        _ => store.delete(&[id(3), id(24)]).map(drop),
    }
}

/// After any number of bytes the disk is full, or the process dies: the store says so, goes on from
/// the state before or the state after, and is one of the two again when opened.
#[test]
fn a_write_that_fails_at_any_byte_loses_nothing() {
    let key = Key::new(1, "faults");
    let fresh = |dir: &Path| Store::create(dir, SHAPE, key, Safety::Process).unwrap();
    let truth: Vec<Content> = {
        let dir = tempfile::tempdir().unwrap();
        let mut store = fresh(dir.path());
        let mut truth = vec![content(&store)];
        for n in 0..STEPS {
            step(&mut store, n).unwrap();
            truth.push(content(&store));
        }
        truth
    };
    let (mut failed, mut after, mut unfinished) = (0, 0, 0);
    for which in 0..STEPS {
        // How many bytes the step writes.
        let cost = {
            let dir = tempfile::tempdir().unwrap();
            let mut store = fresh(dir.path());
            (0..which).for_each(|n| step(&mut store, n).unwrap());
            fault::allow(Some(u64::MAX));
            step(&mut store, which).unwrap();
            let left = fault::left().unwrap();
            fault::allow(None);
            u64::MAX - left
        };
        assert!(cost > 100);
        for bytes in (0..cost).step_by((cost as usize / 8).max(1)) {
            for dies in [false, true] {
                let dir = tempfile::tempdir().unwrap();
                let mut store = fresh(dir.path());
                (0..which).for_each(|n| step(&mut store, n).unwrap());
                let what = format!("step {which}, {bytes} of {cost} bytes, dies: {dies}");
                fault::allow(Some(bytes));
                let result = step(&mut store, which);
                if dies {
                    drop(store); // with the disk still full: nothing is put in order
                    fault::allow(None);
                } else {
                    fault::allow(None);
                    let full = matches!(result, Err(Error::Io { .. }));
                    assert!(full, "{what}: {result:?}");
                    if !store.unfinished {
                        assert_eq!(content(&store), truth[which], "{what}");
                        step(&mut store, which).unwrap();
                        assert_eq!(content(&store), truth[which + 1], "{what}");
                        continue;
                    }
                    unfinished += 1;
                    let again = store.checkpoint();
                    assert!(matches!(again, Err(Error::Unfinished(_))), "{what}");
                    drop(store);
                }
                failed += 1;
                let mut store = Store::open(dir.path(), key, Safety::Process).unwrap();
                let found = content(&store);
                let done = found == truth[which + 1];
                assert!(done || found == truth[which], "{what}: {found:?}");
                assert!(done || result.is_err(), "{what}: acknowledged and lost");
                after += usize::from(done && truth[which] != truth[which + 1]);
                if !done {
                    step(&mut store, which).unwrap();
                }
                for n in which + 1..STEPS {
                    step(&mut store, n).unwrap();
                    assert_eq!(content(&store), truth[n + 1], "{what}, then step {n}");
                }
                assert_eq!(store.damaged().count(), 0);
            }
        }
    }
    // Each of these happened, so the test saw what it is about.
    assert!(
        failed > 60 && after > 4 && unfinished > 4,
        "{failed} {after} {unfinished}"
    );
}

/// An index of `n` records in few cells, and their digests.
fn crowded(n: u64, cells: u64) -> (Index, Vec<u64>) {
    let digests: Vec<u64> = (0..n)
        .map(|i| {
            let digest = id(i).mix();
            (((digest >> 48) % cells) << 48) | digest & ((1 << 48) - 1)
        })
        .collect();
    let scores = digests.iter().map(|d| (d % 1000) as f32 / 100.0 - 5.0);
    let records = digests.iter().zip(0..).zip(scores);
    let index = Index::build(records.map(|((&d, slot), z)| (d, slot, z)));
    (index, digests)
}

/// Draws are the smallest of the numbers that the definition gives.
#[test]
fn a_draw_takes_the_smallest_numbers() {
    for (n, cells) in [(0, 1), (1, 1), (300, 3), (3000, 65_536), (40_000, 50)] {
        let (index, digests) = crowded(n, cells);
        for step in 0..20 {
            let race = Race::new(Key::new(3, "race").at(step));
            for temperature in [None, Some(0.2), Some(3.0)] {
                let weight = |score: f32| match temperature {
                    None => 1.0,
                    Some(t) => (f64::from(score) / t).exp(),
                };
                let mut all: Vec<(f64, u32)> = digests
                    .iter()
                    .zip(0u32..)
                    .map(|(&digest, slot)| {
                        let weight = weight(index.score(digest, slot).unwrap());
                        (-(-race.number(digest)).ln_1p() / weight, slot)
                    })
                    .collect();
                all.sort_by(|a, b| a.partial_cmp(b).unwrap());
                let total: f64 = index
                    .cells
                    .iter()
                    .flat_map(|c| &c.scores)
                    .map(|&z| weight(z))
                    .sum();
                let bounds: Vec<f64> = index
                    .cells
                    .iter()
                    .map(|cell| cell.scores.iter().map(|&z| weight(z)).fold(0.0, f64::max))
                    .collect();
                let top = bounds.iter().copied().fold(0.0, f64::max);
                for size in [1, 7, 200, 50_000] {
                    let found = race.first(
                        &index,
                        top,
                        |cell| bounds[cell],
                        weight,
                        (n as usize, total),
                        size,
                    );
                    assert_eq!(found.len(), size.min(n as usize));
                    let times: Vec<f64> = found.iter().map(|a| a.time).collect();
                    let smallest: Vec<f64> = all.iter().take(size).map(|a| a.0).collect();
                    assert_eq!(times, smallest, "{n} records, step {step}, {temperature:?}");
                }
            }
        }
    }
}

/// Critical value of chi-square at p = 1e-4 (Wilson and Hilferty).
fn critical(dof: f64) -> f64 {
    let spread = 2.0 / (9.0 * dof);
    dof * (1.0 - spread + 3.72 * spread.sqrt()).powi(3)
}

/// The number of each record is uniform, however many share its cell.
#[test]
fn numbers_are_uniform() {
    let (_, digests) = crowded(50, 2);
    let mut cells = [0f64; 100];
    let mut squares = 0.0;
    for step in 0..20_000 {
        let race = Race::new(Key::new(4, "uniform").at(step));
        // One record a step, so that the numbers are independent.
        let u = race.number(digests[step as usize % 50]);
        cells[(u * 100.0) as usize] += 1.0;
        squares += u * u;
    }
    let chi2: f64 = cells
        .iter()
        .map(|c| (c - 200.0) * (c - 200.0) / 200.0)
        .sum();
    assert!(chi2 < critical(99.0), "{chi2}");
    let mean = squares / 20_000.0; // 1/3, variance 4/45
    assert!(
        (mean - 1.0 / 3.0).abs() < 4.0 * (4.0 / 45.0 / 20_000f64).sqrt(),
        "{mean}"
    );
}

/// How far the chances of a first draw differ between crowded and less crowded cells: as much as follows
/// exactly from the definition, and no more than the formula of the header.
#[test]
fn crowded_cells_are_drawn_as_often_as_the_definition_says() {
    let (cells, sizes) = (1000u64, [10u64, 30]);
    let mut random = Key::new(5, "digests").stream();
    let mut records = Vec::new();
    for cell in 0..cells {
        for _ in 0..sizes[(cell % 2) as usize] {
            let digest = (cell * 64) << 48 | random.next_u64() >> 16;
            records.push((digest, records.len() as u32, 0.0));
        }
    }
    let index = Index::build(records.iter().copied());
    let n = records.len() as f64;

    // A cell of `s` is silent up to `u = x²` with probability `1 − x (1 − (1 − x)^s)`; the first of all
    // is in a cell of 30 with the integral of that cells' density times the silence of the others.
    let silent = |x: f64, s: u64| 1.0 - x * (1.0 - (1.0 - x).powi(s as i32));
    let steps = 200_000;
    let mut exact = 0.0;
    for i in 0..steps {
        let (x, next) = (
            f64::from(i) / f64::from(steps),
            f64::from(i + 1) / f64::from(steps),
        );
        let half = cells as i32 / 2;
        let both = |x: f64| silent(x, 10).powi(half) * silent(x, 30).powi(half);
        let (a, b) = (silent(x, 30), silent(next, 30));
        exact += f64::from(half) * (a - b) / ((a + b) / 2.0) * both((x + next) / 2.0);
    }

    let draws = 40_000;
    let mut crowded = 0;
    for step in 0..draws {
        let race = Race::new(Key::new(5, "first").at(step));
        let first = race.first(&index, 1.0, |_| 1.0, |_| 1.0, (n as usize, n), 1);
        crowded += u64::from((cell_of(first[0].digest) / 64) % 2 == 1);
    }
    let share = crowded as f64 / draws as f64;
    let error = (exact * (1.0 - exact) / draws as f64).sqrt();
    assert!(
        (share - exact).abs() < 4.0 * error,
        "{share} is not {exact}"
    );
    // 30 records where the mean is 20, and the record's own cell is 25 on average.
    let deviation = (exact / 0.75 - 1.0).abs();
    let bound = (30.0 - 20.0) / n.sqrt();
    assert!(
        deviation > 0.001 && deviation < bound,
        "{deviation}, {bound}"
    );
    assert!(
        (share - 0.75).abs() > 4.0 * error,
        "the test sees the difference"
    );
}
