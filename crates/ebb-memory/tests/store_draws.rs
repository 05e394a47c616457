//! Draws from the store: their probabilities against exact ones, and who depends on whom.

mod model;

use std::collections::BTreeMap;
use std::path::Path;

use ebb_memory::{By, Input, Marks, Offer, Records, Safety, Shape, Store, Values};
use ebb_space::{ExampleId, Key};
use model::drawn;

const SHAPE: Shape = Shape {
    input: Input::U8(1),
    logits: None,
    features: None,
};

fn id(n: u64) -> ExampleId {
    ExampleId::of(&n.to_le_bytes(), 0)
}

fn store(dir: &Path, ns: impl Iterator<Item = u64>) -> Store {
    let key = Key::new(1, "draws");
    let mut store = Store::create(dir, SHAPE, key, Safety::Process).unwrap();
    let ids: Vec<ExampleId> = ns.map(id).collect();
    let offer = Offer {
        ids: &ids,
        labels: &vec![0; ids.len()],
        experience: 0,
        task: 0,
        step: 0,
    };
    let codes = vec![0; ids.len()];
    store
        .insert(&offer, &Records::of(Values::U8(&codes)))
        .unwrap();
    store
}

fn score(store: &mut Store, n: u64, score: f32) {
    let slot = store.find(&id(n)).unwrap().unwrap();
    let marks = Marks {
        score,
        ..Marks::default()
    };
    store.mark(&[slot], &[marks]).unwrap();
}

/// Fails where counts differ from `draws · p` at p < 1e-4 (Wilson and Hilferty's critical value).
fn chi_square(counts: &BTreeMap<Vec<u64>, u64>, exact: &BTreeMap<Vec<u64>, f64>, draws: u64) {
    assert!(counts.keys().all(|set| exact.contains_key(set)));
    let chi2: f64 = exact
        .iter()
        .map(|(set, p)| {
            let (expected, got) = (
                p * draws as f64,
                counts.get(set).copied().unwrap_or(0) as f64,
            );
            assert!(expected > 5.0, "too few draws to test {set:?}");
            (got - expected).powi(2) / expected
        })
        .sum();
    let dof = (exact.len() - 1) as f64;
    let spread = 2.0 / (9.0 * dof);
    let critical = dof * (1.0 - spread + 3.72 * spread.sqrt()).powi(3);
    assert!(
        chi2 < critical,
        "chi-square {chi2:.1} over {critical:.1}, {dof} degrees of freedom"
    );
}

/// The exact probabilities of ordered draws of `size` without replacement, each next one by weight.
fn successive(weights: &[f64], size: usize) -> BTreeMap<Vec<u64>, f64> {
    let mut open = vec![(Vec::new(), 1.0)];
    for _ in 0..size {
        let mut longer = Vec::new();
        for (taken, p) in open {
            let left: f64 = (0..weights.len())
                .filter(|i| !taken.contains(&(*i as u64)))
                .map(|i| weights[i])
                .sum();
            for (i, w) in weights.iter().enumerate() {
                if !taken.contains(&(i as u64)) && *w > 0.0 {
                    longer.push(([&taken[..], &[i as u64]].concat(), p * w / left));
                }
            }
        }
        open = longer;
    }
    open.into_iter().collect()
}

fn counted(store: &mut Store, by: By, size: usize, draws: u64, of: u64) -> BTreeMap<Vec<u64>, u64> {
    let number: BTreeMap<ExampleId, u64> = (0..of).map(|n| (id(n), n)).collect();
    let mut counts = BTreeMap::new();
    for step in 0..draws {
        let drawn = drawn(store, "replay:a", by, size, step);
        let numbers = drawn.iter().map(|id| number[id]).collect();
        *counts.entry(numbers).or_insert(0) += 1;
    }
    counts
}

#[test]
fn uniform_and_weighted_draws_have_their_exact_probabilities() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path(), 0..7);
    let draws = 40_000;
    let counts = counted(&mut store, By::Uniform, 3, draws, 7);
    chi_square(&counts, &successive(&[1.0; 7], 3), draws);

    let scores = [0.0, 1.0, -1.0, 0.5, f32::NEG_INFINITY, 2.0, 0.5];
    for (n, &z) in scores.iter().enumerate() {
        score(&mut store, n as u64, z);
    }
    for temperature in [1.0, 2.5] {
        let weights: Vec<f64> = scores
            .iter()
            .map(|&z| (f64::from(z) / temperature).exp())
            .collect();
        let by = By::Scores { temperature };
        for size in [1, 2] {
            let counts = counted(&mut store, by, size, draws, 7);
            chi_square(&counts, &successive(&weights, size), draws);
        }
        // What is said of a draw is the exact probability of its first place.
        let total: f64 = weights.iter().sum();
        let draw = store.draw("replay:a", by, 9, 3).unwrap();
        assert_eq!(draw.slots.len(), 6, "weight 0 is never drawn");
        for (&slot, p) in draw.slots.iter().zip(&draw.probabilities) {
            let n = (0..7)
                .find(|&n| id(n) == store.meta(slot).unwrap().id)
                .unwrap();
            assert!((p - weights[n as usize] / total).abs() < 1e-12);
        }
    }
    let draw = store.draw("replay:a", By::Uniform, 2, 3).unwrap();
    assert_eq!(draw.probabilities, [1.0 / 7.0; 2]);
}

/// 20,000 records: how often each tenth is drawn, by weights over six orders of magnitude.
#[test]
fn many_records_are_drawn_by_their_weights() {
    let dir = tempfile::tempdir().unwrap();
    let n = 20_000u64;
    let mut store = store(dir.path(), 0..n);
    let z = |i: u64| Key::new(2, "scores").normal(i) as f32 * 3.0;
    let slots: Vec<u32> = (0..n)
        .map(|i| store.find(&id(i)).unwrap().unwrap())
        .collect();
    let marks: Vec<Marks> = (0..n)
        .map(|i| Marks {
            score: z(i),
            ..Marks::default()
        })
        .collect();
    store.mark(&slots, &marks).unwrap();
    let mut order: Vec<u64> = (0..n).collect();
    order.sort_by(|&a, &b| z(a).total_cmp(&z(b)));
    let total: f64 = (0..n).map(|i| f64::from(z(i)).exp()).sum();
    let mut exact = BTreeMap::new();
    let mut group = BTreeMap::new();
    // Groups of equal probability, about: the light records are many, the heavy ones few.
    let mut sum = 0.0;
    for &i in &order {
        let which = (sum / total * 10.0) as u64;
        group.insert(id(i), which);
        let p = f64::from(z(i)).exp() / total;
        *exact.entry(vec![which]).or_insert(0.0) += p;
        sum += p * total;
    }
    let draws = 3000;
    let mut counts = BTreeMap::new();
    for step in 0..draws {
        for id in drawn(
            &mut store,
            "replay:a",
            By::Scores { temperature: 1.0 },
            1,
            step,
        ) {
            *counts.entry(vec![group[&id]]).or_insert(0) += 1;
        }
    }
    chi_square(&counts, &exact, draws);
}

/// What exact erasure rests on: without a record, every draw is as it was but for that record.
#[test]
fn a_draw_does_not_depend_on_the_records_that_it_does_not_hold() {
    let root = tempfile::tempdir().unwrap();
    let n = 3000u64;
    let mut whole = store(&root.path().join("whole"), 0..n);
    // One was never there, and came in another order; one was deleted; one was deleted and compacted.
    let mut never = store(
        &root.path().join("never"),
        (0..n).rev().filter(|&i| i != 77),
    );
    let mut deleted = store(&root.path().join("deleted"), 0..n);
    deleted.delete(&[id(77)]).unwrap();
    let mut compacted = store(&root.path().join("compacted"), 0..n);
    compacted.delete(&[id(77)]).unwrap();
    compacted.compact().unwrap();
    for (i, z) in [(5, 2.0), (6, -3.0), (1000, 4.0), (2999, f32::NEG_INFINITY)] {
        for store in [&mut whole, &mut never, &mut deleted, &mut compacted] {
            score(store, i, z);
        }
    }
    score(&mut whole, 77, 9.0); // heavy: it is in nearly every weighted draw
    let mut held = 0;
    for by in [By::Uniform, By::Scores { temperature: 1.3 }] {
        for step in 0..300 {
            let mut expected = drawn(&mut whole, "a", by, 41, step);
            held += usize::from(expected.contains(&id(77)));
            expected.retain(|drawn| *drawn != id(77));
            for store in [&mut never, &mut deleted, &mut compacted] {
                let without = drawn(store, "a", by, 41, step);
                assert_eq!(without[..expected.len()], expected, "step {step}");
            }
        }
    }
    assert!(held > 200, "{held}");
}

#[test]
fn names_and_steps_are_independent_and_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path(), 0..1000);
    let mut a = |name: &str, step| drawn(&mut store, name, By::Uniform, 100, step);
    let first = a("a", 1);
    assert_eq!(first, a("a", 1));
    let shared = |x: &[ExampleId], y: &[ExampleId]| x.iter().filter(|id| y.contains(id)).count();
    // 10 on average, with a standard deviation of 2.8.
    for other in [a("b", 1), a("a", 2)] {
        assert!((1..25).contains(&shared(&first, &other)));
    }
    // The longer draw begins with the shorter.
    let long = drawn(&mut store, "a", By::Uniform, 5000, 1);
    assert_eq!((long.len(), &long[..100]), (1000, &first[..]));
}
