//! Runs of one recipe under several seeds, drawn as one.

use ebb_record::over_seeds;
use ebb_space::Number;

use crate::data::{Cost, RunData, Status, finite};
use crate::{metric, recipe};

/// Runs that differ in their seed alone.
pub(crate) struct Group<'a> {
    /// Short name, unique on the page.
    pub label: String,
    /// The runs that count, in the order given.
    pub runs: Vec<&'a RunData>,
    /// Runs that do not count, with the reason.
    pub set_aside: Vec<(&'a RunData, String)>,
    /// Mean accuracy after experience `i` on set `j`, over the runs that have it.
    pub matrix: Vec<Vec<Option<f64>>>,
    /// Mean accuracy before learning.
    pub initial: Vec<Option<f64>>,
    /// One number a (name, protocol): the run's own, or the mean over seeds.
    pub numbers: Vec<Number>,
    /// Accuracy against step.
    pub curves: MeanCurves,
}

/// Per-iteration accuracy of a group.
#[derive(Default)]
pub(crate) struct MeanCurves {
    /// Steps at which every run was evaluated.
    pub steps: Vec<u64>,
    /// Mean over the runs; `None` where one of them has no value.
    pub mean: Vec<Vec<Option<f64>>>,
    /// Lowest of the runs.
    pub low: Vec<Vec<Option<f64>>>,
    /// Highest of the runs.
    pub high: Vec<Vec<Option<f64>>>,
    /// First step of each experience.
    pub starts: Vec<u64>,
}

/// The lowest point of a curve after its own experience has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lowest {
    pub step: u64,
    pub accuracy: f64,
}

impl<'a> Group<'a> {
    /// Whether test set `j` was taught by experience `i` or one before it.
    pub fn learned_by(&self, i: usize, j: usize) -> bool {
        (0..=i).any(|e| self.first().teaches(e, j))
    }

    /// Lowest accuracy on set `j` while other experiences trained after it had been taught.
    pub fn lowest(&self, j: usize) -> Option<Lowest> {
        let curves = &self.curves;
        let counts = |step: u64| {
            // Steps count updates: the update that made `step` belongs to the experience that
            // had begun before it.
            let begun = curves.starts.iter().filter(|s| **s < step).count();
            begun > 1 && self.learned_by(begun - 2, j) && !self.first().teaches(begun - 1, j)
        };
        curves
            .steps
            .iter()
            .zip(curves.mean.get(j)?)
            .filter(|(step, _)| counts(**step))
            .filter_map(|(&step, &v)| finite(v).map(|accuracy| Lowest { step, accuracy }))
            .min_by(|a, b| a.accuracy.total_cmp(&b.accuracy))
    }

    /// Index of the first evaluation at which set `j` was being taught. A set that no experience
    /// teaches has no "before" (0); one that is not taught yet is all before.
    pub fn begins(&self, j: usize) -> usize {
        let (run, curves) = (self.first(), &self.curves);
        match (0..run.experiences.len()).find(|&k| run.teaches(k, j)) {
            Some(k) if !curves.starts.is_empty() => {
                let taught = curves.starts.get(k).copied().unwrap_or(u64::MAX);
                curves.steps.partition_point(|&step| step < taught)
            }
            _ => 0,
        }
    }

    /// The last measured accuracy on set `j` while learning.
    pub fn last(&self, j: usize) -> Option<f64> {
        self.curves
            .mean
            .get(j)?
            .iter()
            .rev()
            .find_map(|&v| finite(v))
    }

    /// The run that stands for the group where all runs agree (method, stream, recipe).
    pub fn first(&self) -> &'a RunData {
        self.runs[0]
    }

    /// The seeds that count, in words: `seed 3`, `seeds 0 to 4`, `seeds 1, 5, 9`.
    pub fn seeds(&self) -> String {
        let mut seeds: Vec<u64> = self.runs.iter().map(|r| r.seed).collect();
        seeds.sort_unstable();
        match seeds.as_slice() {
            [one] => format!("seed {one}"),
            [first, .., last] if seeds.len() > 2 && last - first == seeds.len() as u64 - 1 => {
                format!("seeds {first} to {last}")
            }
            _ => {
                let list: Vec<String> = seeds.iter().map(u64::to_string).collect();
                format!("seeds {}", list.join(", "))
            }
        }
    }

    /// The first of `names` that the group has a number for; one with an interval comes first.
    pub fn number(&self, names: &[&str]) -> Option<&Number> {
        let of = |name: &&str| {
            let named = |n: &&Number| metric::canonical(&n.name) == *name && n.value.is_finite();
            self.numbers.iter().find(named)
        };
        let found = || names.iter().filter_map(of);
        found()
            .find(|n| n.ci_low.is_some())
            .or_else(|| found().next())
    }

    /// Value of one cost over the runs: mean, lowest, highest.
    pub fn cost(&self, of: impl Fn(&Cost) -> Option<f64>) -> Option<[f64; 3]> {
        let values: Vec<f64> = self
            .runs
            .iter()
            .filter_map(|r| finite(of(&r.cost)))
            .collect();
        if values.is_empty() {
            return None;
        }
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Some([mean(&values), low, high])
    }
}

/// Mean over the sets of the experiences learned so far.
pub(crate) fn mean_seen(group: &Group, row: &[Option<f64>], i: usize) -> Option<f64> {
    let seen = row
        .iter()
        .enumerate()
        .filter(|(j, _)| group.learned_by(i, *j));
    let seen: Option<Vec<f64>> = seen.map(|(_, &v)| finite(v)).collect();
    seen.filter(|s| !s.is_empty())
        .map(|s| s.iter().sum::<f64>() / s.len() as f64)
}

/// Sorts runs into groups, in the order of their first run.
pub(crate) fn groups(runs: &[RunData]) -> Vec<Group<'_>> {
    let mut members: Vec<Vec<&RunData>> = Vec::new();
    for run in runs {
        match members.iter_mut().find(|m| same_group(m[0], run)) {
            Some(group) => group.push(run),
            None => members.push(vec![run]),
        }
    }
    let labels = labels(&members);
    members
        .into_iter()
        .zip(labels)
        .map(|(runs, label)| group(runs, label))
        .collect()
}

pub(crate) fn same_group(a: &RunData, b: &RunData) -> bool {
    a.recipe_id == b.recipe_id && difference(a, b).is_none()
}

/// What two runs differ in besides their recipes' identity: what it is, and how each has it.
pub(crate) fn difference(a: &RunData, b: &RunData) -> Option<(&'static str, [String; 2])> {
    let sets = |r: &RunData| {
        let (taught, tested) = (r.experiences.len(), r.sets.len());
        format!("{taught} experiences, {tested} test sets")
    };
    let texts = [
        ("method", [&a.method, &b.method]),
        ("stream", [&a.stream, &b.stream]),
        ("scenario", [&a.scenario, &b.scenario]),
        ("network", [&a.network, &b.network]),
    ];
    let text = texts.into_iter().find(|(_, [a, b])| a != b);
    match text {
        Some((what, both)) => Some((what, both.map(String::clone))),
        None if a.experiences != b.experiences || a.sets != b.sets => {
            Some(("course", [sets(a), sets(b)]))
        }
        None => None,
    }
}

/// The method, and as much more as is needed to tell the groups apart.
pub(crate) fn labels(members: &[Vec<&RunData>]) -> Vec<String> {
    let words: [fn(&RunData) -> String; 3] = [
        |r| r.scenario.clone(),
        |r| r.network.clone(),
        |r| r.stream.clone(),
    ];
    let of_members = |part: fn(&RunData) -> String| members.iter().map(|m| part(m[0])).collect();
    let mut labels: Vec<String> = members.iter().map(|m| m[0].method.clone()).collect();
    for word in words {
        add(&mut labels, of_members(word));
    }
    let settings = settings(members, &labels);
    add(&mut labels, settings);
    add(
        &mut labels,
        of_members(|r| format!("recipe {}", r.recipe_id.chars().take(8).collect::<String>())),
    );
    labels
}

/// Adds to each label the part of its own, where it tells it from another of the same label.
fn add(labels: &mut [String], parts: Vec<String>) {
    let before = labels.to_vec();
    for (i, label) in labels.iter_mut().enumerate() {
        let mut twins = (0..before.len()).filter(|&k| k != i && before[k] == before[i]);
        if !parts[i].is_empty() && twins.any(|k| parts[k] != parts[i]) {
            *label = format!("{label} · {}", parts[i]);
        }
    }
}

/// More settings than this in a label would hide the method.
const SETTINGS: usize = 2;

/// What each recipe sets otherwise than the others of the same label, if that is soon said.
fn settings(members: &[Vec<&RunData>], labels: &[String]) -> Vec<String> {
    let all = recipe::keys_of(members.iter().map(|m| m[0]));
    let of = |i: usize| {
        let alike = (0..all.len()).filter(|&k| labels[k] == labels[i]);
        let keys = recipe::differing(alike.map(|k| &all[k]));
        if keys.len() > SETTINGS {
            return String::new();
        }
        // `memory.capacity` is said as `capacity`, where that is not two things.
        let short = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        let name = |key: &String| match keys.iter().filter(|k| short(k) == short(key)).count() {
            1 => short(key),
            _ => key.clone(),
        };
        let set = |key: &String| Some(format!("{}={}", name(key), all[i].get(key)?));
        keys.iter().filter_map(set).collect::<Vec<_>>().join(", ")
    };
    (0..all.len()).map(of).collect()
}

pub(crate) fn group<'a>(all: Vec<&'a RunData>, label: String) -> Group<'a> {
    let any_finished = all.iter().any(|r| r.status == Status::Finished);
    let mut runs: Vec<&RunData> = Vec::new();
    let mut set_aside = Vec::new();
    for run in all {
        if any_finished && run.status != Status::Finished {
            set_aside.push((
                run,
                "unfinished: it would pull the mean of the finished runs".into(),
            ));
        } else if let Some(twin) = runs.iter().find(|r| r.seed == run.seed) {
            set_aside.push((
                run,
                format!(
                    "same recipe and seed as {}: not an independent run",
                    twin.name
                ),
            ));
        } else {
            runs.push(run);
        }
    }
    Group {
        matrix: mean_grid(&runs, |r| &r.matrix),
        initial: mean_row(
            &runs
                .iter()
                .map(|r| r.initial.as_slice())
                .collect::<Vec<_>>(),
        ),
        numbers: numbers(&runs),
        curves: mean_curves(&runs),
        label,
        runs,
        set_aside,
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn mean_row(rows: &[&[Option<f64>]]) -> Vec<Option<f64>> {
    let width = rows.iter().map(|r| r.len()).max().unwrap_or(0);
    (0..width)
        .map(|j| {
            let values: Vec<f64> = rows.iter().filter_map(|r| finite(*r.get(j)?)).collect();
            (!values.is_empty()).then(|| mean(&values))
        })
        .collect()
}

fn mean_grid<'a>(
    runs: &[&'a RunData],
    grid: impl Fn(&'a RunData) -> &'a Vec<Vec<Option<f64>>>,
) -> Vec<Vec<Option<f64>>> {
    let grids: Vec<_> = runs.iter().map(|&r| grid(r)).collect();
    let height = grids.iter().map(|g| g.len()).max().unwrap_or(0);
    (0..height)
        .map(|i| {
            mean_row(
                &grids
                    .iter()
                    .filter_map(|g| g.get(i).map(Vec::as_slice))
                    .collect::<Vec<_>>(),
            )
        })
        .collect()
}

/// The numbers of a single run as they are; of several, the mean with its interval over seeds.
fn numbers(runs: &[&RunData]) -> Vec<Number> {
    if let [only] = runs {
        return only.numbers.clone();
    }
    let like = |a: &Number, b: &Number| {
        a.name == b.name
            && a.protocol == b.protocol
            && a.unit == b.unit
            && a.direction == b.direction
    };
    let mut kinds: Vec<&Number> = Vec::new();
    for number in runs
        .iter()
        .flat_map(|r| &r.numbers)
        .filter(|n| n.value.is_finite())
    {
        if !kinds.iter().any(|k| like(k, number)) {
            kinds.push(number);
        }
    }
    let over = |kind: &&Number| {
        let of_run = |r: &&RunData| {
            let found = r
                .numbers
                .iter()
                .find(|n| like(n, kind) && n.value.is_finite());
            found.map(|n| (r.seed, n.clone()))
        };
        let values: Vec<(u64, Number)> = runs.iter().filter_map(of_run).collect();
        let values: Vec<(u64, &Number)> = values.iter().map(|(seed, n)| (*seed, n)).collect();
        // Refused only if the run's number is itself a mean over runs: it then stays with its run.
        over_seeds(&values).ok()
    };
    kinds.iter().filter_map(over).collect()
}

fn mean_curves(runs: &[&RunData]) -> MeanCurves {
    let Some(first) = runs.first() else {
        return MeanCurves::default();
    };
    // Index of each common step in each run; runs of one recipe nearly always share all of them.
    let common: Vec<(u64, Vec<usize>)> = first
        .curves
        .steps
        .iter()
        .filter_map(|&step| {
            let at = runs
                .iter()
                .map(|r| r.curves.steps.binary_search(&step).ok());
            Some((step, at.collect::<Option<Vec<usize>>>()?))
        })
        .collect();
    let sets = runs.iter().map(|r| r.curves.sets.len()).max().unwrap_or(0);
    let over = |fold: &dyn Fn(&[f64]) -> f64| -> Vec<Vec<Option<f64>>> {
        (0..sets)
            .map(|j| {
                common
                    .iter()
                    .map(|(_, at)| {
                        let values = runs
                            .iter()
                            .zip(at)
                            .map(|(r, &k)| finite(*r.curves.sets.get(j)?.get(k)?));
                        values.collect::<Option<Vec<f64>>>().map(|v| fold(&v))
                    })
                    .collect()
            })
            .collect()
    };
    let same_starts = runs.iter().all(|r| r.curves.starts == first.curves.starts);
    MeanCurves {
        mean: over(&mean),
        low: over(&|v| v.iter().copied().fold(f64::INFINITY, f64::min)),
        high: over(&|v| v.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        steps: common.into_iter().map(|(step, _)| step).collect(),
        starts: if same_starts {
            first.curves.starts.clone()
        } else {
            Vec::new()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Curves, Experience};
    use ebb_space::{Direction, Unit};

    fn number(value: f64, protocol: &str) -> Number {
        Number {
            name: "average_accuracy".into(),
            value,
            ci_low: None,
            ci_high: None,
            n: 100,
            unit: Unit::Example,
            direction: Direction::Higher,
            protocol: protocol.into(),
        }
    }

    fn run(method: &str, seed: u64, value: f64) -> RunData {
        RunData {
            name: format!("{method}-{seed}"),
            method: method.into(),
            seed,
            recipe_id: method.into(),
            matrix: vec![vec![Some(value), None]],
            numbers: vec![number(value, "p")],
            ..RunData::default()
        }
    }

    #[test]
    fn seeds_become_a_mean_with_a_student_interval() {
        let runs = [run("er", 0, 0.1), run("er", 1, 0.2), run("er", 2, 0.3)];
        let groups = groups(&runs);
        assert_eq!(groups.len(), 1);
        let n = &groups[0].numbers[0];
        // t(0.975, 2) = 4.302653, s = 0.1, half width = 4.302653 * 0.1 / sqrt(3).
        assert!((n.value - 0.2).abs() < 1e-12);
        assert!((n.ci_high.unwrap() - 0.2 - 0.248_413_8).abs() < 1e-6);
        assert_eq!((n.n, n.unit), (3, Unit::Seed));
        assert!((groups[0].matrix[0][0].unwrap() - 0.2).abs() < 1e-12);
        assert_eq!(groups[0].matrix[0][1], None);
        assert_eq!(groups[0].seeds(), "seeds 0 to 2");
    }

    #[test]
    fn a_repeated_seed_and_an_unfinished_run_do_not_count() {
        let mut unfinished = run("er", 2, 0.9);
        unfinished.status = Status::Unfinished("after step 10".into());
        let runs = [
            run("er", 0, 0.1),
            run("er", 0, 0.1),
            unfinished,
            run("er", 1, 0.3),
        ];
        let groups = groups(&runs);
        assert_eq!(groups[0].runs.len(), 2);
        assert_eq!(groups[0].set_aside.len(), 2);
        assert!((groups[0].numbers[0].value - 0.2).abs() < 1e-12);
    }

    #[test]
    fn one_name_with_two_protocols_stays_two_numbers() {
        let mut a = run("er", 0, 0.1);
        a.numbers.push(number(0.5, "q"));
        let runs = [a, run("er", 1, 0.3)];
        let numbers = &groups(&runs)[0].numbers;
        assert_eq!(
            numbers
                .iter()
                .map(|n| (n.protocol.as_str(), n.n))
                .collect::<Vec<_>>(),
            [
                ("p; 95 % t interval over seeds", 2),
                ("q; 95 % t interval over seeds", 1)
            ]
        );
    }

    #[test]
    fn labels_say_what_tells_the_groups_apart() {
        let mut wide = run("er", 0, 0.1);
        wide.network = "MLP wide".into();
        let mut other = run("er", 0, 0.1);
        other.recipe_id = "0123456789".into();
        let runs = [run("ewc", 0, 0.1), wide, other];
        let labels: Vec<String> = groups(&runs).into_iter().map(|g| g.label).collect();
        assert_eq!(labels[0], "ewc");
        assert!(labels[1].contains("MLP wide"), "{labels:?}");
        assert_ne!(labels[1], labels[2]);
    }

    #[test]
    fn one_method_with_other_settings_is_told_by_them() {
        let with = |recipe_id: &str, recipe: &str| RunData {
            recipe_id: recipe_id.into(),
            recipe: recipe.into(),
            ..run("er", 0, 0.1)
        };
        let label = |a: RunData, b: RunData| -> Vec<String> {
            let runs = [a, b];
            groups(&runs).into_iter().map(|g| g.label).collect()
        };
        let small = "seed = 1\n[memory]\ncapacity = 50\nkeep = \"ring\"";
        let large = "seed = 2\n[memory]\ncapacity = 500\nkeep = \"ring\"";
        assert_eq!(
            label(with("a", small), with("b", large)),
            ["er · capacity=50", "er · capacity=500"]
        );
        let terms = |a: f64, b: f64| format!("[[term]]\nweight = {a:?}\n[[term]]\nweight = {b:?}");
        assert_eq!(
            label(with("a", &terms(1.0, 0.5)), with("b", &terms(0.5, 1.0)))[0],
            "er · term.0.weight=1.0, term.1.weight=0.5"
        );
        // Three settings are too many for a label, and a text that is no recipe has none.
        let far = "[memory]\ncapacity = 5\nkeep = \"all\"\n[train]\nlr = 1.0";
        assert_eq!(
            label(with("a", small), with("b", far)),
            ["er · recipe a", "er · recipe b"]
        );
        assert_eq!(
            label(with("a", "="), with("b", "=")),
            ["er · recipe a", "er · recipe b"]
        );
    }

    /// Four experiences of two steps; set 0 is taught by the first and again by the third.
    #[test]
    fn the_lowest_point_is_sought_while_others_train() {
        let values = |v: [f64; 9]| v.iter().map(|&x| Some(x)).collect::<Vec<_>>();
        let mut run = run("er", 0, 0.1);
        run.experiences = vec![Experience::named("a"); 4];
        run.experiences[2].teaches = Some(vec![0]);
        run.curves = Curves {
            steps: (0..9).collect(),
            sets: vec![
                values([0.1, 0.5, 0.9, 0.6, 0.7, 0.2, 0.9, 0.8, 0.8]),
                values([0.0, 0.0, 0.0, 0.5, 0.9, 0.4, 0.5, 0.6, 0.3]),
            ],
            starts: vec![0, 2, 4, 6],
        };
        let runs = [run];
        let group = &groups(&runs)[0];
        // Step 5 is lower, but there the set itself is in training again.
        assert_eq!(
            group.lowest(0),
            Some(Lowest {
                step: 3,
                accuracy: 0.6
            })
        );
        assert_eq!(
            group.lowest(1),
            Some(Lowest {
                step: 8,
                accuracy: 0.3
            })
        );
        assert_eq!(group.lowest(3), None);
        assert_eq!(group.last(1), Some(0.3));
    }
}
