//! Named draws against naive models and against their laws.

mod common;

use common::{chi_square, id, kept, memory, offer};
use ebb_memory::{Draw, Error, Keep, Memory, Meta, Select};
use ebb_space::Key;

fn filled(len: u64, key: Key) -> Memory {
    let mut memory = memory(len.max(1) as usize, Keep::Reservoir, key);
    offer(&mut memory, &(0..len).collect::<Vec<_>>(), 0, 64);
    memory
}

/// Record numbers behind a draw.
fn numbers(memory: &Memory, draw: &Draw) -> Vec<u64> {
    let mut x = Vec::new();
    memory.gather(&draw.slots, None, &mut x).unwrap();
    x.chunks(2).map(|row| row[0] as u64).collect()
}

/// All records in the keyed order.
fn naive_order(key: Key, len: u64) -> Vec<u64> {
    let mut order: Vec<u64> = (0..len).collect();
    order.sort_by_key(|&n| key.draw(id(n).mix()));
    order
}

#[test]
fn a_uniform_draw_is_the_smallest_of_the_keyed_order() {
    let key = Key::new(3, "draws");
    for len in [1, 2, 9, 64, 500, 3000] {
        let memory = filled(len, key);
        for size in [1, 2, 10, 128, 499, 5000] {
            for step in 0..5 {
                let draw = memory
                    .draw("replay:a", Select::Uniform, size, step)
                    .unwrap();
                let order = naive_order(key.sub("draw").sub("replay:a").at(step), len);
                assert_eq!(numbers(&memory, &draw), order[..size.min(len as usize)]);
                assert!(draw.probabilities.iter().all(|&p| p == 1.0 / len as f64));
            }
        }
    }
}

#[test]
fn uniform_draws_include_all_alike_and_names_are_independent() {
    let memory = filled(20, Key::new(4, "draws"));
    let (mut included, mut firsts) = (vec![0u64; 20], vec![0u64; 400]);
    const STEPS: u64 = 20_000;
    for step in 0..STEPS {
        let a = numbers(
            &memory,
            &memory.draw("replay:a", Select::Uniform, 5, step).unwrap(),
        );
        let b = numbers(
            &memory,
            &memory.draw("replay:b", Select::Uniform, 5, step).unwrap(),
        );
        a.iter().for_each(|&n| included[n as usize] += 1);
        firsts[(a[0] * 20 + b[0]) as usize] += 1;
    }
    let expected = STEPS as f64 * 5.0 / 20.0;
    // Without replacement: the variance is smaller by 1 − 5/20.
    let scaled: Vec<u64> = included
        .iter()
        .map(|&c| (expected + (c as f64 - expected) / 0.75f64.sqrt()).round() as u64)
        .collect();
    chi_square(&scaled, |_| expected, "inclusion");
    chi_square(
        &firsts,
        |_| STEPS as f64 / 400.0,
        "pairs of first draws under two names",
    );
}

#[test]
fn a_deleted_record_leaves_the_draws_of_the_others() {
    let key = Key::new(5, "draws");
    let (all, mut less) = (filled(200, key), filled(200, key));
    less.delete(&id(42));
    let weight = |meta: &Meta| 1.0 + f64::from(meta.label);
    let mut hits = 0;
    for step in 0..300 {
        for select in [Select::Uniform, Select::WeightedBy(&weight)] {
            let mut before = numbers(&all, &all.draw("a", select, 10, step).unwrap());
            let mut after = numbers(&less, &less.draw("a", select, 10, step).unwrap());
            if before.contains(&42) {
                hits += 1;
                before.retain(|&n| n != 42);
                after.pop(); // the eleventh moves up
            }
            assert_eq!(before, after);
        }
    }
    assert!(hits > 10);
}

/// Successive draws without replacement: P(i, then j) = w_i/W · w_j/(W − w_i).
#[test]
fn weighted_draws_follow_the_law_of_successive_sampling() {
    let memory = filled(4, Key::new(6, "draws"));
    let weight_of = [1.0, 2.0, 5.0, 0.0];
    let mut weights = vec![0.0; 4];
    for n in 0..4 {
        weights[memory.find(&id(n)).unwrap() as usize] = weight_of[n as usize];
    }
    const STEPS: u64 = 30_000;
    let mut counts = [0u64; 9];
    for step in 0..STEPS {
        let draw = memory
            .draw("w", Select::Weighted(&weights), 2, step)
            .unwrap();
        let n = numbers(&memory, &draw);
        counts[(n[0] * 3 + n[1]) as usize] += 1;
        for (&n, &p) in n.iter().zip(&draw.probabilities) {
            assert_eq!(p, weight_of[n as usize] / 8.0);
        }
    }
    let ordered: Vec<(usize, usize)> = (0..3)
        .flat_map(|i| (0..3).map(move |j| (i, j)))
        .filter(|(i, j)| i != j)
        .collect();
    let seen: Vec<u64> = ordered.iter().map(|&(i, j)| counts[i * 3 + j]).collect();
    assert_eq!(
        seen.iter().sum::<u64>(),
        STEPS,
        "weight 0 is never drawn, and nothing twice"
    );
    let law = |k: usize| {
        let (i, j) = ordered[k];
        STEPS as f64 * weight_of[i] / 8.0 * weight_of[j] / (8.0 - weight_of[i])
    };
    chi_square(&seen, law, "ordered pairs");
}

#[test]
fn equal_weights_are_a_uniform_law_and_scale_does_not_matter() {
    let memory = filled(10, Key::new(7, "draws"));
    let mut counts = [0u64; 10];
    for step in 0..10_000 {
        let ones = memory
            .draw("w", Select::Weighted(&[1.0; 10]), 3, step)
            .unwrap();
        let tiny = memory
            .draw("w", Select::WeightedBy(&|_| 2f64.powi(-600)), 3, step)
            .unwrap();
        assert_eq!(ones, tiny);
        counts[numbers(&memory, &ones)[0] as usize] += 1;
    }
    chi_square(&counts, |_| 1000.0, "first draws");
}

#[test]
fn fewer_records_than_asked_for_are_all_drawn() {
    let memory = filled(6, Key::new(8, "draws"));
    let all = memory.draw("a", Select::Uniform, 100, 0).unwrap();
    let mut n = numbers(&memory, &all);
    n.sort_unstable();
    assert_eq!(n, [0, 1, 2, 3, 4, 5]);
    let half = |meta: &Meta| f64::from(u8::from(meta.id != id(3)));
    assert_eq!(
        memory
            .draw("a", Select::WeightedBy(&half), 100, 0)
            .unwrap()
            .slots
            .len(),
        5
    );
    assert_eq!(
        memory.draw("a", Select::Uniform, 0, 0).unwrap(),
        Draw::default()
    );
    let empty = common::memory(6, Keep::Reservoir, Key::new(8, "draws"));
    assert_eq!(
        empty.draw("a", Select::Cycle { since: 0 }, 3, 7).unwrap(),
        Draw::default()
    );
}

#[test]
fn a_cycle_visits_each_record_once_a_pass_in_the_naive_order() {
    let key = Key::new(9, "draws");
    for (len, size) in [(10, 3), (7, 7), (64, 10), (500, 128), (5, 12)] {
        let memory = filled(len, key);
        let since = 1000;
        let mut visited = Vec::new();
        while visited.len() < 4 * len as usize {
            let step = since + (visited.len() / size) as u64;
            let draw = memory
                .draw("replay:a", Select::Cycle { since }, size, step)
                .unwrap();
            assert_eq!(draw.slots.len(), size, "a cycle never runs short");
            visited.extend(numbers(&memory, &draw));
        }
        let passes = key.sub("draw").sub("replay:a").at(since);
        for (pass, visited) in visited.chunks_exact(len as usize).enumerate() {
            assert_eq!(
                visited,
                naive_order(passes.at(pass as u64), len),
                "pass {pass} of {len} by {size}"
            );
        }
    }
}

#[test]
fn impossible_draws_are_refused() {
    let memory = filled(6, Key::new(10, "draws"));
    for value in [-1.0, f64::NAN, f64::INFINITY] {
        let weights = [1.0, 1.0, value, 1.0, 1.0, 1.0];
        let refused = memory.draw("w", Select::Weighted(&weights), 2, 0);
        let Err(Error::Weight { draw, id, .. }) = refused else {
            panic!("{value} is no weight")
        };
        assert_eq!((draw.as_str(), id), ("w", memory.metas()[2].id));
    }
    assert!(matches!(
        memory.draw("w", Select::Weighted(&[f64::MAX; 6]), 2, 0),
        Err(Error::Weight { .. })
    ));
    assert!(matches!(
        memory.draw("w", Select::Weighted(&[1.0; 5]), 2, 0),
        Err(Error::Length { .. })
    ));
    assert!(matches!(
        memory.draw("w", Select::Cycle { since: 5 }, 2, 4),
        Err(Error::CycleInFuture { .. })
    ));
    assert_eq!(kept(&memory).len(), 6);
}
