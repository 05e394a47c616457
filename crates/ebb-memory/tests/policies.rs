//! The keep policies against their laws and against naive models.

mod common;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use common::{chi_square, id, kept, label, memory, offer, priority};
use ebb_memory::{Config, Error, Fill, Form, Keep, Memory, Offer, Records, Values};
use ebb_space::{ExampleId, Key};

fn range(n: std::ops::Range<u64>) -> Vec<u64> {
    n.collect()
}

/// The `k` of smallest priority.
fn smallest(key: Key, ns: impl IntoIterator<Item = u64>, k: usize) -> BTreeSet<u64> {
    let mut ns: Vec<u64> = ns.into_iter().collect();
    ns.sort_by_cached_key(|&n| priority(key, n));
    ns.dedup();
    ns.into_iter().take(k).collect()
}

/// Algorithm R after n records: each pair equally likely. And its step: record n enters with
/// probability k/n, in the place of a uniformly chosen record, whatever happened before.
#[test]
fn the_reservoir_is_equal_in_law_to_algorithm_r() {
    const KEYS: u64 = 12_000;
    let mut pairs = BTreeMap::<(u64, BTreeSet<u64>), u64>::new();
    let mut steps = [[0u64; 3]; 7]; // at record n: rejected, first replaced, second replaced
    let mut after_admission = [0u64; 2];
    for seed in 0..KEYS {
        let mut memory = memory(2, Keep::Reservoir, Key::new(seed, "law"));
        offer(&mut memory, &[0, 1], 0, 1);
        let mut admitted_before = false;
        for n in 2..7u64 {
            let before = kept(&memory);
            offer(&mut memory, &[n], 0, 1);
            let after = kept(&memory);
            let gone = before.iter().position(|old| !after.contains(old));
            steps[n as usize][gone.map_or(0, |position| 1 + position)] += 1;
            if n == 4 && admitted_before {
                after_admission[usize::from(gone.is_some())] += 1;
            }
            admitted_before = gone.is_some();
            *pairs.entry((n, after)).or_default() += 1;
        }
    }
    for n in 2..7u64 {
        let counts: Vec<u64> = pairs
            .range((n, BTreeSet::new())..(n + 1, BTreeSet::new()))
            .map(|(_, &c)| c)
            .collect();
        let subsets = ((n + 1) * n / 2) as usize;
        assert_eq!(counts.len(), subsets);
        chi_square(&counts, |_| KEYS as f64 / subsets as f64, "pairs kept");
        let admit = 2.0 / (n + 1) as f64;
        let law = [1.0 - admit, admit / 2.0, admit / 2.0];
        chi_square(
            &steps[n as usize],
            |i| KEYS as f64 * law[i],
            "rejections and replacements",
        );
    }
    let total = after_admission.iter().sum::<u64>() as f64;
    chi_square(
        &after_admission,
        |i| total * [0.6, 0.4][i],
        "admission after an admission",
    );
}

#[test]
fn inclusion_is_uniform_over_a_long_stream_offered_in_batches() {
    const KEYS: u64 = 2_000;
    let mut counts = [0u64; 60];
    for seed in 0..KEYS {
        let mut memory = memory(12, Keep::Reservoir, Key::new(seed, "inclusion"));
        offer(&mut memory, &range(0..60), 0, 7);
        kept(&memory).iter().for_each(|&n| counts[n as usize] += 1);
    }
    // Counts of a draw without replacement vary less than a multinomial's, by the factor 1 − k/n.
    let (share, spread) = (12.0 / 60.0, 1.0 - 12.0 / 60.0);
    let expected = KEYS as f64 * share;
    let scaled: Vec<u64> = counts
        .iter()
        .map(|&c| (expected + (c as f64 - expected) / f64::sqrt(spread)).round() as u64)
        .collect();
    chi_square(&scaled, |_| expected, "inclusion");
}

#[test]
fn filling_step_by_step_or_at_once_is_the_same_memory() {
    for seed in 0..20 {
        let key = Key::new(seed, "once");
        for keep in [Keep::Reservoir, Keep::Ring { per_task: 5 }] {
            let fill = |batch: usize| {
                let mut memory = memory(10, keep, key);
                offer(&mut memory, &range(0..50), 0, batch);
                offer(&mut memory, &range(50..83), 1, batch);
                let mut metas = memory.metas().to_vec();
                metas.sort_by_key(|meta| meta.arrival);
                (kept(&memory), metas, memory.seen())
            };
            let once = fill(1000);
            for batch in [1, 3, 10, 49] {
                assert_eq!(fill(batch), once, "{keep:?} in batches of {batch}");
            }
            if keep == Keep::Reservoir {
                assert_eq!(once.0, smallest(key, 0..83, 10));
            }
        }
    }
}

/// The promise on which exact erasure rests.
#[test]
fn removing_a_record_from_the_stream_leaves_every_other_decision() {
    for seed in 0..30 {
        let key = Key::new(seed, "removal");
        let gone = 17;
        let without = |ns: Vec<u64>| ns.into_iter().filter(|&n| n != gone).collect::<Vec<_>>();
        for keep in [
            Keep::Reservoir,
            Keep::ClassBalanced,
            Keep::ExperienceBalanced,
        ] {
            let (mut all, mut less) = (memory(10, keep, key), memory(10, keep, key));
            for (experience, ns) in [range(0..50), range(50..80), range(80..90)]
                .into_iter()
                .enumerate()
            {
                offer(&mut all, &ns, experience as u32, 4);
                offer(&mut less, &without(ns), experience as u32, 4);
                let (all, less) = (kept(&all), kept(&less));
                if all.contains(&gone) {
                    let stay = all
                        .difference(&[gone].into())
                        .copied()
                        .collect::<BTreeSet<_>>();
                    assert!(stay.is_subset(&less), "{keep:?}: {all:?} {less:?}");
                    assert_eq!(less.len(), all.len(), "one record moves up");
                } else {
                    assert_eq!(all, less, "{keep:?}");
                }
            }
        }
    }
}

/// After a deletion nothing that was turned away for good is let in, and what comes later makes the
/// memory the one that never saw the record.
#[test]
fn a_memory_heals_after_a_deletion_to_the_one_that_never_saw_the_record() {
    let mut healed = 0;
    for seed in 0..20 {
        let key = Key::new(seed, "heal");
        let mut memory = memory(8, Keep::Reservoir, key);
        offer(&mut memory, &range(0..40), 0, 4);
        let gone: Vec<u64> = kept(&memory).into_iter().take(2).collect();
        assert!(gone.iter().all(|&n| memory.delete(&id(n))));
        for end in (44..400).step_by(4) {
            offer(&mut memory, &range(end - 4..end), 1, 4);
            let never_saw = smallest(key, (0..end).filter(|n| !gone.contains(n)), 8);
            let now = kept(&memory);
            assert!(
                now.is_subset(&never_saw),
                "the vacancy is not for the latecomer"
            );
            if now.len() == 8 {
                assert_eq!(now, never_saw);
            }
        }
        healed += usize::from(memory.len() == 8);
    }
    assert!(healed >= 15, "{healed} of 20");
}

#[test]
fn shares_are_equal_with_the_remainder_first_and_shrink_to_a_prefix() {
    for seed in 0..20 {
        let key = Key::new(seed, "shares");
        let mut memory = memory(11, Keep::ExperienceBalanced, key);
        let mut experiences = Vec::new();
        for e in 0..6u32 {
            let ns = range(u64::from(e) * 40..u64::from(e + 1) * 40);
            offer(&mut memory, &ns, e, 1);
            experiences.push(ns);
            let n = experiences.len();
            for (e, ns) in experiences.iter().enumerate() {
                let share = 11 / n + usize::from(e < 11 % n);
                let now: BTreeSet<u64> = kept(&memory)
                    .into_iter()
                    .filter(|n| ns.contains(n))
                    .collect();
                assert_eq!(
                    now,
                    smallest(key, ns.iter().copied(), share),
                    "experience {e} of {n}"
                );
            }
        }
        assert_eq!(memory.len(), 11);
    }
}

#[test]
fn a_small_experience_leaves_room_and_more_experiences_than_capacity_keep_the_first() {
    let mut memory = memory(3, Keep::ExperienceBalanced, Key::new(0, "small"));
    offer(&mut memory, &[0], 0, 1);
    offer(&mut memory, &range(10..30), 1, 1);
    assert_eq!(
        memory.len(),
        2,
        "shares of 2 and 1, of which the first is half used"
    );
    for e in 2..5u32 {
        offer(
            &mut memory,
            &range(u64::from(e) * 100..u64::from(e) * 100 + 9),
            e,
            1,
        );
    }
    let experiences: BTreeSet<u32> = memory.metas().iter().map(|meta| meta.experience).collect();
    assert_eq!(experiences, [0, 1, 2].into());
}

#[test]
fn classes_have_equal_shares_of_all_their_records_over_recurring_experiences() {
    for seed in 0..20 {
        let key = Key::new(seed, "classes");
        let mut memory = memory(13, Keep::ClassBalanced, key);
        let mut seen = BTreeSet::new();
        let mut order: Vec<u32> = Vec::new();
        // Classes 3 and 4 come first; classes recur, and so do records.
        for (e, classes) in [vec![3, 4], vec![0, 3], vec![1], vec![2, 3, 4]]
            .into_iter()
            .enumerate()
        {
            let ns: Vec<u64> = (e as u64 * 20..e as u64 * 20 + 60)
                .filter(|&n| classes.contains(&label(n)))
                .collect();
            offer(&mut memory, &ns, e as u32, 1);
            seen.extend(ns);
            order.extend(
                classes
                    .iter()
                    .filter(|class| !order.contains(class))
                    .copied()
                    .collect::<Vec<_>>(),
            );
            for (index, &class) in order.iter().enumerate() {
                let share = 13 / order.len() + usize::from(index < 13 % order.len());
                let now: BTreeSet<u64> = kept(&memory)
                    .into_iter()
                    .filter(|&n| label(n) == class)
                    .collect();
                let of_class = seen.iter().copied().filter(|&n| label(n) == class);
                assert_eq!(
                    now,
                    smallest(key, of_class, share),
                    "class {class} after experience {e}"
                );
            }
        }
    }
}

#[test]
fn the_ring_holds_the_last_records_of_each_experience() {
    let mut stream = Key::new(0, "ring").stream();
    for _ in 0..30 {
        let mut memory = memory(12, Keep::Ring { per_task: 4 }, Key::new(1, "ring"));
        let mut rings: Vec<VecDeque<u64>> = Vec::new();
        for e in 0..3u64 {
            let ns: Vec<u64> = (0..30).map(|_| 100 * e + stream.below(12)).collect(); // records recur
            offer(&mut memory, &ns, e as u32, 1 + stream.below(9) as usize);
            let mut ring = VecDeque::new();
            for n in ns {
                ring.retain(|&old| old != n);
                ring.push_back(n);
                if ring.len() > 4 {
                    ring.pop_front();
                }
            }
            rings.push(ring);
            for (e, ring) in rings.iter().enumerate() {
                let slots = memory.slots_where(|meta| meta.experience == e as u32);
                let mut x = Vec::new();
                memory.gather(&slots, None, &mut x).unwrap();
                let order: Vec<u64> = x.chunks(2).map(|row| row[0] as u64).collect();
                assert_eq!(
                    order,
                    Vec::from(ring.clone()),
                    "in the order in which they came"
                );
            }
        }
        let ids = [id(900)];
        let more = Offer {
            ids: &ids,
            labels: &[0],
            experience: 3,
            task: 0,
            step: 0,
        };
        assert!(matches!(
            memory.plan(&more),
            Err(Error::RingFull {
                kept: 12,
                wanted: 1,
                ..
            })
        ));
    }
}

#[test]
fn capacity_holds_under_random_offers_and_deletions() {
    for keep in [
        Keep::Reservoir,
        Keep::ClassBalanced,
        Keep::ExperienceBalanced,
        Keep::Ring { per_task: 2 },
    ] {
        for seed in 0..15 {
            let mut stream = Key::new(seed, "random").stream();
            let mut memory = memory(10, keep, Key::new(seed, "memory"));
            for e in 0..5 {
                for _ in 0..4 {
                    let count = stream.below(25);
                    let ns: Vec<u64> = (0..count).map(|_| stream.below(200)).collect(); // repeats inside
                    offer(&mut memory, &ns, e, 1 + stream.below(30) as usize); // checks the capacity
                    kept(&memory);
                    for n in (0..3).map(|_| stream.below(200)) {
                        let (there, before) = (memory.find(&id(n)).is_some(), memory.len());
                        assert_eq!(
                            (memory.delete(&id(n)), memory.len()),
                            (there, before - usize::from(there))
                        );
                        assert!(memory.find(&id(n)).is_none());
                    }
                }
            }
        }
    }
}

#[test]
fn only_the_filling_of_the_policy_takes_batches() {
    let mut memory = memory(4, Keep::ClassBalanced, Key::new(0, "fill"));
    let ids = [id(0)];
    let offer = Offer {
        ids: &ids,
        labels: &[0],
        experience: 0,
        task: 0,
        step: 0,
    };
    assert_eq!(memory.fill(), Fill::Experience);
    assert_eq!(
        memory
            .offer(&offer, &Records::of(Values::F32(&[0.0, 0.0])))
            .unwrap(),
        0
    );
    assert!(memory.is_empty());
}

#[test]
fn misuse_is_refused_and_changes_nothing() {
    let key = Key::new(0, "misuse");
    let build = |capacity, keep| {
        Memory::new(
            Config {
                capacity,
                keep,
                form: common::FORM,
            },
            key,
        )
    };
    assert!(matches!(build(0, Keep::Reservoir), Err(Error::Config(_))));
    assert!(matches!(
        build(9, Keep::Ring { per_task: 0 }),
        Err(Error::Config(_))
    ));
    assert!(matches!(
        build(1 << 40, Keep::Reservoir),
        Err(Error::Config(_))
    ));
    let wide = Form {
        input: usize::MAX / 8,
        ..common::FORM
    };
    let wide = Memory::new(
        Config {
            capacity: 9,
            keep: Keep::Reservoir,
            form: wide,
        },
        key,
    );
    assert!(matches!(wide, Err(Error::TooLarge { capacity: 9, .. })));

    let mut memory = memory(4, Keep::Reservoir, key);
    let ids = [id(0), id(1)];
    let offer = Offer {
        ids: &ids,
        labels: &[0, 1],
        experience: 0,
        task: 0,
        step: 0,
    };
    let short = memory.offer(&offer, &Records::of(Values::F32(&[0.0; 3])));
    assert!(matches!(
        short,
        Err(Error::Length {
            what: "inputs",
            expected: 4,
            got: 3
        })
    ));
    let codes = memory.offer(&offer, &Records::of(Values::U8(&[0; 4])));
    assert!(matches!(codes, Err(Error::Payload { .. })));
    let labels = memory.plan(&Offer {
        labels: &[0],
        ..offer
    });
    assert!(matches!(labels, Err(Error::Length { what: "labels", .. })));
    assert!(memory.is_empty() && memory.seen() == 0);

    let stale = memory.plan(&offer).unwrap();
    memory
        .offer(&offer, &Records::of(Values::F32(&[0.0; 4])))
        .unwrap();
    assert!(matches!(
        memory.commit(stale, &Records::of(Values::F32(&[0.0; 4]))),
        Err(Error::StalePlan)
    ));
    assert!(matches!(
        memory.gather_logits(&[0], &mut Vec::new()),
        Err(Error::Sidecar { .. })
    ));
    assert_eq!(memory.len(), 2);
}

#[test]
fn what_is_chosen_is_what_is_kept() {
    let mut memory = memory(3, Keep::Chosen, Key::new(4, "chosen"));
    let ids: Vec<ExampleId> = (0..5).map(id).collect();
    let labels: Vec<u32> = (0..5).map(label).collect();
    let offer = Offer {
        ids: &ids,
        labels: &labels,
        experience: 0,
        task: 0,
        step: 0,
    };
    assert!(memory.plan(&offer).unwrap().admitted().is_empty());
    let mut take = |admit: &[u32], evict: &[u32]| {
        let plan = memory.plan_chosen(&offer, admit, evict)?;
        let row = |i: &u32| [*i as f32, -1.0];
        let rows: Vec<f32> = plan.admitted().iter().flat_map(row).collect();
        memory.commit(plan, &Records::of(Values::F32(&rows)))?;
        Ok::<_, Error>(kept(&memory))
    };
    assert_eq!(take(&[4, 1, 0], &[]).unwrap(), BTreeSet::from([0, 1, 4]));
    // Full; twice; not there; kept already; no such slot.
    for (admit, evict) in [
        (&[2][..], &[][..]),
        (&[2, 2], &[0, 1]),
        (&[9], &[0]),
        (&[4], &[0]),
        (&[2], &[7]),
    ] {
        assert!(
            matches!(take(admit, evict), Err(Error::Config(_))),
            "{admit:?} for {evict:?}"
        );
    }
    assert_eq!(take(&[2], &[1]).unwrap(), BTreeSet::from([0, 2, 4]));
    let twice = Offer {
        ids: &[id(7), id(8), id(7)],
        labels: &[0; 3],
        ..offer
    };
    let refused = memory.plan_chosen(&twice, &[0, 2], &[0, 1]).err();
    assert!(refused.is_some_and(|e| e.to_string().contains("named twice")));
    assert!(memory.plan_chosen(&twice, &[0, 1], &[0, 1]).is_ok());
}
