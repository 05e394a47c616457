//! Streams as a recipe describes them, on the embedded digits.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use ebb_data::{Error, Item, Part, Scenario, Split, Stream, StreamSpec, load};
use ebb_space::ExampleId;

fn spec(text: &str) -> StreamSpec {
    toml::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn build(text: &str) -> Stream {
    spec(text)
        .build(Path::new("."), 1)
        .unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn refusal(text: &str) -> String {
    match toml::from_str::<StreamSpec>(text) {
        Ok(spec) => spec
            .build(Path::new("/nowhere"), 1)
            .unwrap_err()
            .to_string(),
        Err(e) => e.to_string(),
    }
}

/// One of every kind and option.
const KINDS: [&str; 22] = [
    "dataset='digits'\nsplit=5",
    "dataset='digits'\nsplit=5\nscenario='task'\nclass_order='keyed'\nper_experience=100\ntest_per_experience=20",
    "dataset='digits'\nsplit=2\nscenario='domain'\nblurry=0.2",
    "dataset='digits'\nsplit=5\nscenario='task'\ngradual=0.3\nper_experience=150",
    "dataset='digits'\ngroups=[[7,1],[0,2,9]]\nscenario='domain'\nnormalise='raw'",
    "dataset='digits'\nkind='permuted'\nn=3\nper_experience=200",
    "dataset='digits'\nkind='permuted'\nn=3\nscenario='class'\nfirst_identity=false\npad=10",
    "dataset='digits'\nkind='permuted'\nn=3\nscenario='task'\nblurry=0.1",
    "dataset='digits'\nkind='rotated'\nn=4",
    "dataset='digits'\nkind='rotated'\nn=4\nangles='even'\nrange=[0.0,90.0]\nper_experience=300",
    "dataset='digits'\nkind='rotated'\ndegrees=[0.0,90.0,45.0]",
    "dataset='digits'\nkind='corrupted'\nper_experience=300",
    "dataset='digits'\nkind='corrupted'\nfirst_identity=false\ncorruptions=[{kind='blur',severity=5}]",
    "dataset='digits'\nkind='recoloured'\nn=3\npad=9",
    "dataset='digits'\nkind='recurring'\nn=30\nper_experience=100\nskew={factor=0.05,power=2.0}",
    "dataset='digits'\nkind='recurring'\nn=20\nclasses_per_task=3\nn_groups=4\nsecond_half='same'",
    "dataset='digits'\nkind='recurring'\nn=20\norder='cycle'\nrandom_fraction=0.2\nper_experience=90",
    "dataset='digits'\nkind='recurring'\nn=20\nsecond_half='disjoint'\nper_experience=90",
    "dataset='digits'\nkind='power-law'\nn=6\nper_experience=400",
    "dataset='digits'\nkind='power-law'\nsplit=5\nrecency='occurrence'\nrehearsal=0.3\nper_experience=150",
    "dataset='digits'\nkind='power-law'\nbase='rotated'\nn=6\nmixture='exponential'\nper_experience=200",
    "dataset='digits'\nkind='joint'\nsplit=5\nscenario='task'\nper_experience=100",
];

fn ids(items: &[Item]) -> HashSet<ExampleId> {
    items.iter().map(|item| item.id).collect()
}

/// The stream as it would have been had the record never been there.
fn without(split: &Split, gone: &ExampleId) -> Split {
    Split {
        train: Arc::new(split.train.without(|id| id.same_base(gone))),
        test: split.test.clone(),
    }
}

#[test]
fn removing_a_record_leaves_every_other_draw_as_it_was() {
    let split = load("digits", Path::new(".")).unwrap();
    for text in KINDS {
        let before = build(text);
        // A record that the stream uses, and one from the other end of the data.
        let used: Vec<ExampleId> = before.train_items().map(|item| item.id).collect();
        for gone in [used[used.len() / 2], split.train.ids[7]] {
            let after = spec(text).build_on(&without(&split, &gone), 1).unwrap();
            assert_eq!(before.experiences.len(), after.experiences.len());
            let (mut removed, mut came) = (0, 0);
            for (a, b) in before.experiences.iter().zip(&after.experiences) {
                let (had, has) = (ids(&a.train), ids(&b.train));
                assert!(has.iter().all(|id| !id.same_base(&gone)), "{text}");
                // Everything else is still there ...
                let lost: Vec<_> = had
                    .difference(&has)
                    .filter(|id| !id.same_base(&gone))
                    .collect();
                assert!(
                    lost.is_empty(),
                    "{text}: {} other examples left {}",
                    lost.len(),
                    a.name
                );
                removed += had.iter().filter(|id| id.same_base(&gone)).count();
                came += has.difference(&had).count();
                assert_eq!((&a.name, a.task), (&b.name, b.task));
                assert_eq!(ids(&a.test), ids(&b.test), "{text}");
                // Labels, heads and inputs of those that stay are what they were.
                for item in b.train.iter().take(40) {
                    if let Some(old) = a.train.iter().find(|old| old.id == item.id) {
                        assert_eq!((old.label, old.task), (item.label, item.task));
                        let (mut x, mut y) = (vec![], vec![]);
                        before.gather(Part::Train, &[*old], &mut x);
                        after.gather(Part::Train, &[*item], &mut y);
                        assert_eq!(x, y, "{text}");
                    }
                }
            }
            // ... and at most the next in line came in, where the number is given.
            assert!(came <= removed, "{text}: {came} came for {removed}");
            if before.spec.per_experience.is_none() {
                assert_eq!(came, 0, "{text}");
            }
        }
    }
}

#[test]
fn every_kind_is_consistent() {
    for text in KINDS {
        let stream = build(text);
        let again = build(text);
        assert_eq!(
            stream.spec.n.unwrap(),
            if text.contains("kind='joint'") {
                5
            } else {
                stream.experiences.len()
            }
        );
        for (experience, twin) in stream.experiences.iter().zip(&again.experiences) {
            assert_eq!(
                experience.train, twin.train,
                "the same seed gives the same stream"
            );
            assert_eq!(
                experience.origins.iter().sum::<usize>(),
                experience.train.len()
            );
            assert_eq!(experience.origins.len(), stream.evals.len());
            assert_eq!(
                ids(&experience.train).len(),
                experience.train.len(),
                "{text}: no example twice"
            );
            for item in experience.train.iter() {
                assert!(
                    (item.label as usize) < stream.classes && usize::from(item.task) < stream.heads
                );
                assert!(stream.train.ids[item.row as usize].same_base(&item.id));
                assert!((item.id.view as usize) < stream.transforms.len());
            }
        }
        let mut x = vec![];
        let items = &stream.experiences[stream.experiences.len() - 1].test;
        stream.gather(Part::Test, &items[..10], &mut x);
        assert_eq!(x.len(), 10 * stream.features());
        assert_eq!(stream.features(), stream.shape().iter().product::<usize>());
        assert!(x.iter().all(|v| v.is_finite()));
        let pinned = spec(&format!("{text}\nseed=1"))
            .build(Path::new("."), 2)
            .unwrap();
        assert_eq!(pinned.experiences[0].train, stream.experiences[0].train);
    }
}

#[test]
fn resolving_writes_out_every_default_and_survives_toml() {
    for text in KINDS {
        let resolved = spec(text).resolved().unwrap();
        assert_eq!(resolved, resolved.resolved().unwrap(), "{text}");
        let written = toml::to_string(&resolved).unwrap();
        assert_eq!(spec(&written), resolved, "{written}");
        assert!(
            written.contains("kind = ")
                && written.contains("scenario = ")
                && written.contains("divisor = ")
        );
        assert!(!written.contains("split = "), "{written}");
        // Built from either, the stream is the same.
        let (a, b) = (build(text), build(&written));
        assert_eq!(a.spec, b.spec);
        for (a, b) in a.experiences.iter().zip(&b.experiences) {
            assert_eq!(a.train, b.train);
        }
    }
    let written = toml::to_string(
        &spec("dataset='digits'\nkind='power-law'\nper_experience=500")
            .resolved()
            .unwrap(),
    )
    .unwrap();
    for line in [
        "base = \"permuted\"",
        "n = 10",
        "mixture = \"power-law\"",
        "exponent = 1.0",
        "recency = \"introduction\"",
        "first_identity = true",
    ] {
        assert!(written.contains(line), "{line} is missing in:\n{written}");
    }
}

#[test]
fn the_three_scenarios_label_as_the_field_does() {
    for (scenario, classes, heads) in [("task", 2, 5), ("domain", 2, 1), ("class", 10, 1)] {
        let stream = build(&format!("dataset='digits'\nsplit=5\nscenario='{scenario}'"));
        assert_eq!((stream.classes, stream.heads), (classes, heads));
        for (k, experience) in stream.experiences.iter().enumerate() {
            assert_eq!(experience.classes, [2 * k as u32, 2 * k as u32 + 1]);
            assert_eq!(stream.evals[k].name, format!("{}-{}", 2 * k, 2 * k + 1));
            for (part, items) in [
                (&stream.train, &experience.train),
                (&stream.test, &experience.test),
            ] {
                let of_classes = part.labels.iter().filter(|l| **l as usize / 2 == k).count();
                assert_eq!(items.len(), of_classes);
                for item in items.iter() {
                    let class = part.labels[item.row as usize];
                    let expected = match stream.scenario {
                        Scenario::Task => (class % 2, k),
                        Scenario::Domain => (class % 2, 0),
                        Scenario::Class => (class, 0),
                    };
                    assert_eq!((item.label, usize::from(item.task)), expected);
                }
            }
        }
    }
    for (scenario, classes, heads) in [("task", 10, 3), ("domain", 10, 1), ("class", 30, 1)] {
        let stream = build(&format!(
            "dataset='digits'\nkind='permuted'\nn=3\nscenario='{scenario}'"
        ));
        assert_eq!((stream.classes, stream.heads), (classes, heads));
        let item = stream.experiences[2].train[0];
        let class = stream.train.labels[item.row as usize];
        let label = if scenario == "class" {
            20 + class
        } else {
            class
        };
        assert_eq!(
            (item.label, usize::from(item.task)),
            (label, if heads == 3 { 2 } else { 0 })
        );
    }
}

#[test]
fn groups_and_class_orders_are_kept() {
    let stream = build("dataset='digits'\ngroups=[[7,1],[0,2,9]]\nscenario='domain'");
    assert_eq!(stream.classes, 3);
    assert_eq!(stream.experiences[1].classes, [0, 2, 9]);
    let seven = stream.experiences[0]
        .train
        .iter()
        .find(|i| stream.train.labels[i.row as usize] == 7);
    assert_eq!(
        seven.unwrap().label,
        0,
        "labels count in the order of the group"
    );
    let keyed = build("dataset='digits'\nsplit=5\nclass_order='keyed'");
    let mut classes: Vec<u32> = keyed
        .experiences
        .iter()
        .flat_map(|e| e.classes.clone())
        .collect();
    assert_ne!(classes, (0..10).collect::<Vec<u32>>());
    classes.sort_unstable();
    assert_eq!(classes, (0..10).collect::<Vec<u32>>());
}

#[test]
fn views_are_what_their_transforms_make_of_the_record() {
    let stream =
        build("dataset='digits'\nkind='rotated'\ndegrees=[0.0,90.0,180.0]\nnormalise='raw'");
    let x = |k: usize| {
        let mut x = vec![];
        stream.gather(Part::Train, &stream.experiences[k].train[..5], &mut x);
        x
    };
    let (upright, quarter, half) = (x(0), x(1), x(2));
    for record in 0..5 {
        for (row, column) in (0..8).flat_map(|r| (0..8).map(move |c| (r, c))) {
            let at = |x: &[f32], r: usize, c: usize| x[record * 64 + r * 8 + c];
            assert_eq!(at(&quarter, row, column), at(&upright, column, 7 - row));
            assert_eq!(at(&half, row, column), at(&upright, 7 - row, 7 - column));
        }
    }
    // One record, three views, one base.
    let [a, b] = [0, 1].map(|k: usize| stream.experiences[k].train[0].id);
    assert!(a.same_base(&b) && a != b);

    let stream = build("dataset='digits'\nkind='permuted'\nn=3");
    let views: Vec<u32> = stream
        .experiences
        .iter()
        .map(|e| e.train[0].id.view)
        .collect();
    assert_eq!(views, [0, 1, 2], "the identity is the record itself");
    // Test sets go through the transform of their experience, too.
    for (k, experience) in stream.experiences.iter().enumerate() {
        assert!(experience.test.iter().all(|item| item.id.view == k as u32));
    }
}

#[test]
fn angles_are_even_or_drawn_within_the_range() {
    let name = |stream: &Stream| {
        stream
            .evals
            .iter()
            .map(|e| e.name.clone())
            .collect::<Vec<_>>()
    };
    let even = build("dataset='digits'\nkind='rotated'\nn=4\nangles='even'\nrange=[0.0,90.0]");
    assert_eq!(name(&even), ["0.0°", "30.0°", "60.0°", "90.0°"]);
    let keyed =
        build("dataset='digits'\nkind='rotated'\nn=200\nper_experience=1\ntest_per_experience=1");
    let angles: Vec<f64> = name(&keyed)
        .iter()
        .map(|n| n.trim_end_matches('°').parse().unwrap())
        .collect();
    let mean = angles.iter().sum::<f64>() / 200.0;
    assert!(angles.iter().all(|a| (0.0..=180.0).contains(a)) && (mean - 90.0).abs() < 15.0);
}

#[test]
fn blurry_boundaries_move_the_share_that_was_asked_for() {
    let stream = build("dataset='digits'\nkind='permuted'\nn=4\nblurry=0.3");
    let (mut moved, mut all) = (0, 0);
    for (k, experience) in stream.experiences.iter().enumerate() {
        all += experience.train.len();
        moved += experience.train.len() - experience.origins[k];
        assert!(
            experience.origins.iter().all(|n| *n > 50),
            "every other experience gives some"
        );
    }
    assert!((moved as f64 / all as f64 - 0.3).abs() < 0.025);
    assert_eq!(all, 4 * stream.train.len());
    assert!(
        stream
            .evals
            .iter()
            .all(|e| e.items.len() == stream.test.len()),
        "test sets stay pure"
    );

    // A time uniform in [0, 1) moved by a normal of deviation s crosses one given end with
    // chance s/√(2π) while s is small; the ends of the stream lose nothing.
    let stream = build("dataset='digits'\nkind='permuted'\nn=4\ngradual=0.2");
    for (k, experience) in stream.experiences.iter().enumerate() {
        let stayed = experience.origins[k] as f64 / stream.train.len() as f64;
        let ends = if k == 0 || k == 3 { 1.0 } else { 2.0 };
        let crossed = ends * 0.2 / (2.0 * std::f64::consts::PI).sqrt();
        assert!((stayed - (1.0 - crossed)).abs() < 0.035, "{stayed}");
        assert!(
            experience
                .origins
                .iter()
                .enumerate()
                .all(|(j, n)| j.abs_diff(k) <= 1 || *n == 0)
        );
    }
}

#[test]
fn classes_recur_and_go() {
    let stream = build(
        "dataset='digits'\nkind='recurring'\nn=200\nper_experience=20\nsecond_half='removed'",
    );
    assert_eq!(stream.evals.len(), 10);
    let seen = |range: std::ops::Range<usize>| -> HashSet<u32> {
        stream.experiences[range]
            .iter()
            .flat_map(|e| e.classes.clone())
            .collect()
    };
    assert_eq!((seen(0..100).len(), seen(100..200).len()), (10, 5));
    for experience in &stream.experiences {
        assert_eq!((experience.classes.len(), experience.train.len()), (2, 20));
        assert_eq!(experience.test.len(), stream.test.len());
        assert_eq!(experience.outputs, experience.classes);
    }
    // A class that comes back shows other examples.
    let of_three = |e: &ebb_data::Experience| {
        e.train
            .iter()
            .filter(|i| i.label == 3)
            .map(|i| i.id)
            .collect::<HashSet<_>>()
    };
    let met: Vec<_> = stream
        .experiences
        .iter()
        .map(of_three)
        .filter(|s| !s.is_empty())
        .collect();
    assert!(met.len() > 10 && met[0] != met[1]);

    let stream = build("dataset='digits'\nkind='recurring'\nn=40\nsecond_half='disjoint'");
    let half = |range: std::ops::Range<usize>| -> HashSet<u32> {
        stream.experiences[range]
            .iter()
            .flat_map(|e| e.classes.clone())
            .collect()
    };
    assert!(half(0..20).is_disjoint(&half(20..40)));

    let stream = build("dataset='digits'\nkind='recurring'\nn=40\ngroups=[[0,1],[4,9]]");
    let names: HashSet<&str> = stream.experiences.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, HashSet::from(["0-1", "4-9"]));
}

#[test]
fn power_law_phases_hold_what_they_say() {
    let stream =
        build("dataset='digits'\nkind='power-law'\nbase='permuted'\nn=10\nper_experience=1000");
    let last = &stream.experiences[9];
    let sum: f64 = (1..=10).map(|age| 1.0 / f64::from(age)).sum();
    for (i, n) in last.origins.iter().enumerate() {
        assert!((*n as f64 - 1000.0 / (10 - i) as f64 / sum).abs() < 1.0);
        // The counts are those of the items, told apart by their views.
        assert_eq!(
            last.train
                .iter()
                .filter(|item| item.id.view as usize == i)
                .count(),
            *n
        );
    }
    assert_eq!(stream.experiences[0].origins[0], 1000);
    let greedy = "dataset='digits'\nkind='power-law'\nsplit=5\nper_experience=5000";
    assert!(
        refusal(greedy).contains("needs 5000 examples of task 0"),
        "{}",
        refusal(greedy)
    );
}

#[test]
fn joint_has_all_examples_and_a_test_set_for_each_part() {
    let joint = build("dataset='digits'\nkind='joint'\nsplit=5\nscenario='task'");
    let parts = build("dataset='digits'\nsplit=5\nscenario='task'");
    assert_eq!(
        (joint.experiences.len(), joint.evals.len(), joint.heads),
        (1, 5, 5)
    );
    assert_eq!(joint.experiences[0].train.len(), joint.train.len());
    assert_eq!(ids(&joint.experiences[0].test).len(), joint.test.len());
    let mut expected: Vec<Item> = parts.train_items().copied().collect();
    let mut got = joint.experiences[0].train.to_vec();
    expected.sort_by_key(|item| item.row);
    got.sort_by_key(|item| item.row);
    assert_eq!(got, expected, "each item keeps its label and head");
}

#[test]
fn what_cannot_work_is_refused_with_the_reason() {
    for (text, words) in [
        ("dataset='digits'\nsplits=5", vec!["splits"]),
        (
            "dataset='digits'\nkind='splitt'",
            vec!["splitt", "power-law"],
        ),
        ("dataset='digits'\nsplit='five'", vec!["five"]),
        (
            "dataset='digits'\nnormalise='imagenet'",
            vec!["\"raw\"", "divisor"],
        ),
        (
            "dataset='digits'\nsplit=3",
            vec!["10 classes", "evenly", "1, 2, 5, 10", "groups"],
        ),
        ("dataset='digits'\nsplit=0", vec!["1 to 65535"]),
        (
            "dataset='digits'\nkind='permuted'\nsplit=5",
            vec!["permuted", "n = 5"],
        ),
        (
            "dataset='digits'\nsplit=5\ndegrees=[1.0]",
            vec!["degrees", "split", "rotated"],
        ),
        (
            "dataset='digits'\nkind='rotated'\ndegrees=[1.0]\nn=3",
            vec!["n = 3", "1 experiences of degrees"],
        ),
        (
            "dataset='digits'\nkind='rotated'\ndegrees=[1.0]\nangles='even'",
            vec!["angles", "degrees"],
        ),
        (
            "dataset='digits'\nkind='rotated'\nrange=[90.0,0.0]",
            vec!["range"],
        ),
        (
            "dataset='digits'\nsplit=5\nblurry=1.0",
            vec!["blurry", "below 1"],
        ),
        (
            "dataset='digits'\nsplit=5\nblurry=0.1\ngradual=0.1",
            vec!["gradual", "blurry"],
        ),
        (
            "dataset='digits'\nkind='power-law'",
            vec!["per_experience", "phase"],
        ),
        (
            "dataset='digits'\nkind='power-law'\nblurry=0.1",
            vec!["blurry", "power-law"],
        ),
        (
            "dataset='digits'\nkind='power-law'\nbase='recurring'",
            vec!["recurring", "cannot be combined"],
        ),
        (
            "dataset='digits'\nkind='power-law'\nblock=5",
            vec!["block", "introduction"],
        ),
        (
            "dataset='digits'\nkind='power-law'\nrate=0.5",
            vec!["rate", "exponential"],
        ),
        (
            "dataset='digits'\nkind='power-law'\nper_experience=9\nrehearsal=1.0",
            vec!["rehearsal", "below 1"],
        ),
        (
            "dataset='digits'\nkind='recurring'\nscenario='task'",
            vec!["scenario", "class"],
        ),
        (
            "dataset='digits'\nkind='recurring'\nclasses_per_task=11",
            vec!["11", "10"],
        ),
        (
            "dataset='digits'\nkind='recurring'\nclasses_per_task=6\nsecond_half='removed'\nn=4",
            vec!["5 classes are left"],
        ),
        (
            "dataset='digits'\nkind='recurring'\ngroups=[[1,1]]",
            vec!["[1, 1]", "different"],
        ),
        (
            "dataset='digits'\nkind='recurring'\nskew={factor=1.0,power=1.0}",
            vec!["skew", "no chance"],
        ),
        (
            "dataset='digits'\nkind='corrupted'\ncorruptions=[{kind='blur',severity=9}]",
            vec!["severity", "9"],
        ),
        (
            "dataset='digits'\ngroups=[[1],[1]]",
            vec!["class 1", "recurring"],
        ),
        (
            "dataset='digits'\ngroups=[[1],[12]]",
            vec!["no class 12", "0 to 9"],
        ),
        (
            "dataset='digits'\ngroups=[[1],[]]",
            vec!["at least one class"],
        ),
        (
            "dataset='digits'\nper_experience=0",
            vec!["per_experience", "0 examples"],
        ),
        ("dataset='digits'\npad=4", vec!["8x8", "4x4"]),
        (
            "dataset='mnst'\nsplit=5",
            vec!["mnst", "digits, mnist", "safetensors"],
        ),
        (
            "dataset='mnist'\nsplit=5",
            vec!["mnist is not in", "ebb data fetch mnist"],
        ),
        (
            "dataset='none.safetensors'\nsplit=5",
            vec!["none.safetensors"],
        ),
    ] {
        let message = refusal(text);
        for word in words {
            assert!(
                message.contains(word),
                "{text}: \"{word}\" is missing in: {message}"
            );
        }
    }
}

#[test]
fn an_empty_experience_is_an_error_that_names_it() {
    let split = load("digits", Path::new(".")).unwrap();
    let threes = split.train.labels.clone();
    let no_threes: HashSet<ExampleId> = split
        .train
        .ids
        .iter()
        .zip(&threes)
        .filter(|(_, l)| **l == 3)
        .map(|(id, _)| *id)
        .collect();
    let less = Split {
        train: Arc::new(split.train.without(|id| no_threes.contains(id))),
        test: split.test.clone(),
    };
    let error = spec("dataset='digits'\ngroups=[[1],[3]]")
        .build_on(&less, 0)
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::EmptyExperience {
                index: 1,
                part: "training",
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("experience 1 (3) has no training example")
    );
}
