//! Phases that mix each new task with the earlier ones, as life does.
//!
//! **Source.** Gandhi et al. 2024 (card S074): the chance of meeting a task again falls as a
//! power of the time since it was met. **Equation.** Task `i` has the weight
//! `(t − i + 1)^(−d)` in phase `t`; or, by last occurrence, (time since it last occurred)^(−d).
//! The controls rehearse the same number of examples in every phase and share them out otherwise.
//!
//! Counts are expected counts rounded with one draw a phase, so that each is right on average
//! and their sum is exact. Which records are met is drawn by id from all records of the task.

use ebb_space::Key;

use super::mixture::Mixed;
use super::origin::Origins;
use super::recurring::pick;
use super::sample::sample;
use super::{Mixture, Recency, StreamSpec};
use crate::{Error, Result};

pub(super) fn experiences(spec: &StreamSpec, origins: &Origins, key: Key) -> Result<Vec<Mixed>> {
    let pools: Vec<usize> = origins.sets.iter().map(|set| set.train.len()).collect();
    let phase = spec.per_experience.unwrap_or(0);
    let items_key = key.sub("examples");
    counts(spec, pools.len(), phase, key.sub("counts"))
        .into_iter()
        .enumerate()
        .map(|(t, counts)| {
            let mut train = Vec::with_capacity(phase);
            for (i, n) in counts.iter().enumerate() {
                if *n > pools[i] {
                    return Err(Error::stream(
                        "per_experience",
                        format!("phase {t} needs {n} examples of task {i}, which has {}; give at most {}", pools[i], phase * pools[i] / n),
                    ));
                }
                let key = items_key.at(t as u64).at(i as u64);
                train.extend(sample(&origins.sets[i].train, *n, key));
            }
            Ok(Mixed { name: origins.sets[t].name.clone(), train, origins: counts, test: Some(t) })
        })
        .collect()
}

/// How many examples of each task each phase has.
fn counts(spec: &StreamSpec, tasks: usize, phase: usize, key: Key) -> Vec<Vec<usize>> {
    let mixture = spec.mixture.unwrap_or(Mixture::PowerLaw);
    let exponent = spec.exponent.unwrap_or(1.0);
    let by_occurrence = spec.recency == Some(Recency::Occurrence);
    // The power law itself, which also sets the number of rehearsed examples of the controls.
    let law = if by_occurrence {
        occurrences(spec, tasks, phase, exponent, key.sub("occurrences"))
    } else {
        let weight = |age: usize| (age as f64).powf(-exponent);
        match spec.rehearsal {
            None => (0..tasks)
                .map(|t| {
                    let weights = (0..=t).map(|i| weight(t - i + 1)).collect();
                    padded(rounded(phase, weights, key.uniform(t as u64)), tasks)
                })
                .collect(),
            Some(_) => shared_out(tasks, phase, |t| budget(spec, t, phase, key), weight, key),
        }
    };
    let rehearsed = |t: usize| phase - law[t][t];
    match mixture {
        Mixture::PowerLaw => law,
        Mixture::Uniform => shared_out(tasks, phase, rehearsed, |_| 1.0, key),
        Mixture::Exponential => {
            let rate = spec.rate.unwrap_or(1.0);
            // Age counts from 2 here: the factor that all share would underflow first.
            shared_out(
                tasks,
                phase,
                rehearsed,
                |age| (-rate * (age as f64 - 2.0)).exp(),
                key,
            )
        }
        Mixture::MostRecent => shared_out(
            tasks,
            phase,
            rehearsed,
            |age| if age == 2 { 1.0 } else { 0.0 },
            key,
        ),
        Mixture::None => shared_out(tasks, phase, |_| 0, |_| 1.0, key),
    }
}

/// The rehearsed examples of phase `t` under a given share.
fn budget(spec: &StreamSpec, t: usize, phase: usize, key: Key) -> usize {
    let share = spec.rehearsal.unwrap_or(0.0);
    if t == 0 {
        0
    } else {
        (share * phase as f64 + key.sub("budget").uniform(t as u64)).floor() as usize
    }
}

/// In phase `t`, `rehearsed(t)` examples go to the earlier tasks in proportion to their weights
/// by age, the rest to the new one.
fn shared_out(
    tasks: usize,
    phase: usize,
    rehearsed: impl Fn(usize) -> usize,
    weight: impl Fn(usize) -> f64,
    key: Key,
) -> Vec<Vec<usize>> {
    (0..tasks)
        .map(|t| {
            let n = if t == 0 { 0 } else { rehearsed(t) };
            let weights = (0..t).map(|i| weight(t - i + 1)).collect();
            let mut counts = rounded(n, weights, key.uniform(t as u64));
            counts.push(phase - n);
            padded(counts, tasks)
        })
        .collect()
}

/// By last occurrence: blocks of one task each, drawn one after another.
fn occurrences(
    spec: &StreamSpec,
    tasks: usize,
    phase: usize,
    exponent: f64,
    key: Key,
) -> Vec<Vec<usize>> {
    let block = spec.block.unwrap_or(10);
    let mut now = 0u64;
    let mut last: Vec<u64> = vec![];
    let mut all = Vec::with_capacity(tasks);
    for t in 0..tasks {
        let mut counts = vec![0; tasks];
        // The newest task enters at age 1.
        now += 1;
        last.push(now - 1);
        let old = spec.rehearsal.map(|_| budget(spec, t, phase, key));
        let (mut new_left, mut old_left) = match old {
            None => (0, phase),
            Some(old) => (phase - old, old),
        };
        let blocks = |n: usize| n.div_ceil(block);
        let (new_blocks, old_blocks) = (blocks(new_left), blocks(old_left));
        for b in 0..new_blocks + old_blocks {
            // Rehearsal is spread evenly over the phase.
            let all_blocks = new_blocks + old_blocks;
            let rehearses = (b + 1) * old_blocks / all_blocks > b * old_blocks / all_blocks;
            let (task, left) = if rehearses {
                let candidates = if old.is_some() { t } else { t + 1 };
                let weights = last[..candidates]
                    .iter()
                    .map(|l| ((now - l) as f64).powf(-exponent));
                (pick(weights.collect(), key.uniform(now)), &mut old_left)
            } else {
                (t, &mut new_left)
            };
            let size = block.min(*left);
            *left -= size;
            counts[task] += size;
            last[task] = now;
            now += 1;
        }
        all.push(counts);
    }
    all
}

/// Shares `n` out in proportion to the weights: the running sum of what is expected is rounded
/// up from one drawn point on, so that each count is right on average and the sum is exact.
fn rounded(n: usize, weights: Vec<f64>, u: f64) -> Vec<usize> {
    let sum: f64 = weights.iter().sum();
    let mut running = 0.0;
    let mut given = 0;
    let last = weights.len();
    (1..)
        .zip(weights)
        .map(|(place, weight)| {
            running += weight;
            let until = if place == last {
                n
            } else {
                ((running / sum * n as f64 + u).floor() as usize).min(n)
            };
            let count = until - given;
            given = until;
            count
        })
        .collect()
}

fn padded(mut counts: Vec<usize>, tasks: usize) -> Vec<usize> {
    counts.resize(tasks, 0);
    counts
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    fn spec(change: impl FnOnce(&mut StreamSpec)) -> StreamSpec {
        let mut spec = StreamSpec {
            dataset: "digits".into(),
            kind: Some(Kind::PowerLaw),
            per_experience: Some(1000),
            ..Default::default()
        };
        change(&mut spec);
        spec.resolved().unwrap()
    }

    #[test]
    fn the_newest_task_has_the_published_share() {
        for (exponent, share) in [(0.5, 0.20), (1.0, 0.34), (2.0, 0.65)] {
            let spec = spec(|s| s.exponent = Some(exponent));
            let counts = counts(&spec, 10, 100_000, Key::new(0, "p"));
            assert!(
                (counts[9][9] as f64 / 1e5 - share).abs() < 0.006,
                "{exponent}"
            );
            // And all of them follow the law.
            let sum: f64 = (1..=10).map(|age| f64::from(age).powf(-exponent)).sum();
            for (i, n) in counts[9].iter().enumerate() {
                let expected = 1e5 * ((10 - i) as f64).powf(-exponent) / sum;
                assert!((*n as f64 - expected).abs() < 1.0);
            }
        }
    }

    #[test]
    fn rounding_is_exact_in_sum_and_right_on_average() {
        let weights = [0.013, 1.0, 0.3, 0.0, 2.2];
        let sum: f64 = weights.iter().sum();
        let key = Key::new(0, "r");
        let mut mean = [0.0; 5];
        let trials = 20_000;
        for trial in 0..trials {
            let counts = rounded(7, weights.to_vec(), key.uniform(trial));
            assert_eq!(counts.iter().sum::<usize>(), 7);
            for (i, n) in counts.iter().enumerate() {
                let expected = 7.0 * weights[i] / sum;
                assert!((*n as f64 - expected).abs() < 1.0);
                mean[i] += *n as f64 / trials as f64;
            }
        }
        for i in 0..5 {
            assert!((mean[i] - 7.0 * weights[i] / sum).abs() < 0.015);
        }
        assert_eq!(rounded(0, vec![], 0.5), [0usize; 0]);
    }

    #[test]
    fn every_mixture_rehearses_as_many_examples() {
        use Mixture::{Exponential, MostRecent, PowerLaw, Uniform};
        for recency in [Recency::Introduction, Recency::Occurrence] {
            for rehearsal in [None, Some(0.1), Some(0.3)] {
                let of = |mixture| {
                    let spec = spec(|s| {
                        s.mixture = Some(mixture);
                        s.recency = Some(recency);
                        s.rehearsal = rehearsal;
                    });
                    counts(&spec, 8, 995, Key::new(3, "m"))
                };
                let law = of(PowerLaw);
                for (t, counts) in law.iter().enumerate() {
                    assert_eq!(counts.iter().sum::<usize>(), 995);
                    assert!(
                        counts[t + 1..].iter().all(|n| *n == 0),
                        "no task before its time"
                    );
                    if let Some(share) = rehearsal.filter(|_| t > 0) {
                        assert!((995.0 - counts[t] as f64 - share * 995.0).abs() < 1.0);
                    }
                }
                for mixture in [Uniform, Exponential, MostRecent] {
                    for (t, counts) in of(mixture).iter().enumerate() {
                        assert_eq!(counts[t], law[t][t], "{mixture:?}");
                        assert_eq!(counts.iter().sum::<usize>(), 995);
                    }
                }
                assert!(
                    of(Mixture::None)
                        .iter()
                        .enumerate()
                        .all(|(t, counts)| counts[t] == 995)
                );
                let recent = of(MostRecent);
                assert_eq!(recent[5][4], 995 - law[5][5]);
                let uniform = &of(Uniform)[5];
                let spread =
                    uniform[..5].iter().max().unwrap() - uniform[..5].iter().min().unwrap();
                assert!(spread <= 1);
                let exponential = &of(Exponential)[5];
                let ratio = exponential[4] as f64 / exponential[3].max(1) as f64;
                if recency == Recency::Introduction && rehearsal.is_none() {
                    assert!((ratio - 1f64.exp()).abs() < 0.1, "{ratio}");
                }
            }
        }
    }

    #[test]
    fn by_occurrence_recent_tasks_come_back_and_all_stay_possible() {
        let spec = spec(|s| {
            s.recency = Some(Recency::Occurrence);
            s.rehearsal = Some(0.5);
            s.block = Some(1);
        });
        let mut total = [0; 4];
        for seed in 0..50 {
            let counts = counts(&spec, 5, 400, Key::new(seed, "o"));
            for (sum, n) in total.iter_mut().zip(&counts[4]) {
                *sum += n;
            }
        }
        assert_eq!(total.iter().sum::<usize>(), 50 * 200);
        assert!(total.iter().all(|n| *n > 500), "{total:?}");
        // With exponent 0 age has no meaning and all are equal.
        let flat = StreamSpec {
            exponent: Some(0.0),
            ..spec
        };
        let mut total = [0.0; 4];
        for seed in 0..50 {
            for (sum, n) in total
                .iter_mut()
                .zip(&counts(&flat, 5, 400, Key::new(seed, "o"))[4])
            {
                *sum += *n as f64;
            }
        }
        assert!(
            total.iter().all(|n| (n / 2500.0 - 1.0).abs() < 0.08),
            "{total:?}"
        );
    }
}
