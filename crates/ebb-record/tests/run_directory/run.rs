use std::fs;

use ebb_record::{Artifact, Error, Exposure, Fault, Operation, Replay, RunDir, RunView, Summary};

use super::states::commit;
use super::*;

#[test]
fn a_run_is_never_overwritten_and_what_is_no_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("deep/run");
    drop(new_run(&root));
    let text = RunDir::create(&root, "", &environment())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("never overwrites") && text.contains("ebb resume"),
        "{text}"
    );
    let other = dir.path().join("photos");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("cat.jpg"), "cat").unwrap();
    assert!(matches!(
        RunDir::create(&other, "", &environment()),
        Err(Error::RunExists { .. })
    ));
    assert!(matches!(RunDir::open(&other), Err(Error::NotARun { .. })));
    assert!(matches!(
        RunView::load(&dir.path().join("none")),
        Err(Error::NotARun { .. })
    ));
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
    // An empty directory will do.
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    new_run(&empty);
}

#[test]
fn the_recipe_and_the_environment_come_back_and_newer_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    drop(new_run(&root));
    assert_eq!(RunDir::open(&root).unwrap().recipe().unwrap(), "seed = 1\n");
    let path = root.join("recipe.toml");
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "# ebb recipe, format_version = 1\nseed = 1\n"
    );
    fs::write(&path, "# ebb recipe, format_version = 2\n").unwrap();
    assert!(matches!(
        RunDir::open(&root),
        Err(Error::Newer { found: 2, .. })
    ));
    fs::write(&path, "seed = 1\n").unwrap();
    assert!(matches!(RunDir::open(&root), Err(Error::Damaged { .. })));
}

#[test]
fn two_writers_are_refused_and_readers_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    let run = new_run(&root);
    let mut logs = run.logs().unwrap();
    logs.records.append(&start(1)).unwrap();
    logs.records.flush().unwrap();
    let text = RunDir::open(&root).unwrap_err().to_string();
    assert!(
        text.contains(&format!("in use by process {}", std::process::id())),
        "{text}"
    );
    RunView::load(&root).unwrap();
    drop((run, logs));
    RunDir::open(&root).unwrap();
}

/// Two experiences with everything recorded, and the last state committed after the end.
fn whole_run(root: &Path) -> (RunDir, Logs) {
    let mut run = new_run(root);
    let mut logs = run.logs().unwrap();
    logs.records.append(&start(2)).unwrap();
    (0..2).for_each(|set| logs.records.append(&column(-1, set, 10)).unwrap());
    for experience in 0..2usize {
        let begin = experience as u64 * 3;
        for n in begin..=begin + 3 {
            for set in 0..=experience {
                let correct = if set == experience {
                    20 + 25 * (n - begin)
                } else {
                    [90, 30, 60, 70][(n - begin) as usize]
                };
                logs.records
                    .append(&eval(n, experience, set, correct))
                    .unwrap();
            }
        }
        for set in 0..2 {
            let correct = [[95, 12], [70, 93]][experience][set];
            logs.records
                .append(&column(experience as i32, set, correct))
                .unwrap();
            let ids: Vec<ExampleId> = (0..9).map(|n| id(n + 100 * set as u32)).collect();
            logs.outcomes
                .append(
                    begin + 3,
                    experience as i32,
                    set as u32,
                    &ids,
                    &[0.5; 9],
                    &[true; 9],
                )
                .unwrap();
        }
        if experience == 1 {
            logs.records.append(&end(6)).unwrap();
        }
        commit(&mut run, &mut logs, begin + 3, true);
    }
    (run, logs)
}

#[test]
fn a_finished_run_is_sealed_and_reads_as_it_did_while_running() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    let (mut run, mut logs) = whole_run(&root);
    logs.records.flush().unwrap();
    let running = RunView::load(&root).unwrap();
    let summary = Summary::of(Replay::of(&running.records().unwrap()).unwrap());
    run.finish(logs, &summary).unwrap();
    drop(run);

    let view = RunView::load(&root).unwrap();
    assert_eq!(view.summary, running.summary);
    assert!(view.summary.finished);
    assert_eq!(view.records().unwrap(), running.records().unwrap());
    assert_eq!(view.outcomes().unwrap(), running.outcomes().unwrap());
    let mut files: Vec<String> = fs::read_dir(&root)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(
        files,
        [
            "environment.json",
            "lineage",
            "lineage.jsonl",
            "outcomes.parquet",
            "recipe.toml",
            "records.parquet",
            "run.lock",
            "states",
            "summary.json",
        ]
    );
    assert_eq!(
        Summary::load(&root.join("summary.json")).unwrap(),
        view.summary
    );
}

#[test]
fn the_summary_has_the_numbers_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    drop(whole_run(&root));
    let summary = RunView::load(&root).unwrap().summary;
    let is = |name: &str, expected: f64| {
        let number = summary.number(name).unwrap_or_else(|| panic!("{name}"));
        assert!(
            (number.value - expected).abs() < 1e-12,
            "{number:?}, expected {expected}"
        );
        assert!(number.protocol.contains("test sets"), "{}", number.protocol);
    };
    assert_eq!(
        summary.matrix,
        [[Some(0.95), Some(0.12)], [Some(0.70), Some(0.93)]]
    );
    assert_eq!(summary.initial, [Some(0.10), Some(0.10)]);
    assert_eq!(
        (summary.set_sizes.clone(), summary.experiences.clone()),
        (vec![Some(100); 2], vec!["e0".to_string(), "e1".into()])
    );
    is("average_accuracy", (0.70 + 0.93) / 2.0);
    is("forgetting", 0.25);
    is("bwt", -0.25);
    is("fwt", 0.02);
    is("min_acc", 0.30);
    is("wc_acc", (0.95 + 0.30) / 2.0);
    // Correct answers are halved, rounding down: the worst half is that of 30 of 100.
    is("min_acc_split", 15.0 / 50.0);
    is("gap_depth", 0.60);
    assert_eq!(summary.curves.starts, [0, 3]);
    assert_eq!(summary.curves.sets[0][4], Some(0.90));
    assert_eq!(summary.curves.sets[1][0], None);
    assert_eq!(summary.gaps.len(), 1);
    assert_eq!(summary.states.len(), 2);
    assert_eq!(summary.head.as_deref(), Some(summary.states[1].id.as_str()));
    assert_eq!((summary.cost.steps, summary.finished), (Some(6), true));
}

#[test]
fn a_finished_run_can_go_on_and_finish_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    let (mut run, logs) = whole_run(&root);
    let summary = Summary::default();
    run.finish(logs, &summary).unwrap();
    let first = RunView::load(&root).unwrap().records().unwrap();

    let mut logs = run.logs().unwrap();
    assert_eq!((logs.records.segment(), logs.outcomes.segment()), (1, 1));
    logs.records.append(&step(7, 1)).unwrap();
    logs.records.flush().unwrap();
    assert!(!RunView::load(&root).unwrap().summary.finished);
    // Not committed: a crash here takes the run back to where it was finished.
    drop((run, logs));
    let mut run = RunDir::open(&root).unwrap();
    let mut logs = run.logs().unwrap();
    assert_eq!(RunView::load(&root).unwrap().records().unwrap(), first);
    assert!(matches!(
        {
            logs.records.append(&step(7, 1)).unwrap();
            run.finish(logs, &summary)
        },
        Err(Error::Uncommitted { what: "records" })
    ));

    let mut logs = run.logs().unwrap();
    logs.records.append(&step(7, 1)).unwrap();
    logs.outcomes
        .append(7, 1, 0, &[id(0)], &[0.0], &[true])
        .unwrap();
    commit(&mut run, &mut logs, 7, true);
    run.finish(logs, &summary).unwrap();
    // Finishing once more changes nothing.
    let logs = run.logs().unwrap();
    run.finish(logs, &summary).unwrap();
    let view = RunView::load(&root).unwrap();
    let records = view.records().unwrap();
    assert_eq!(records[..first.len()], first);
    assert_eq!(records.len(), first.len() + 2);
    assert_eq!(records[first.len()], step(7, 1));
    assert_eq!(view.outcomes().unwrap().len(), 5);
}

#[test]
fn a_crash_while_finishing_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let (mut run, logs) = whole_run(&whole);
    let summary = Summary {
        run: "x".into(),
        ..Summary::default()
    };
    run.finish(logs, &summary).unwrap();
    let expected = RunView::load(&whole).unwrap();

    let operations = [
        Operation::Write,
        Operation::Sync,
        Operation::Rename,
        Operation::SyncDirectory,
        Operation::Remove,
    ];
    let mut crashes = 0;
    for after in operations {
        for skip in 0..4 {
            let root = dir.path().join(format!("{after:?}{skip}"));
            let (mut run, logs) = whole_run(&root);
            run.set_fault(Some(Fault {
                after,
                path_ends_with: String::new(),
                skip,
                abort: false,
            }));
            crashes += u32::from(run.finish(logs, &summary).is_err());
            drop(run);
            // While it lies there, nothing is missing.
            assert_eq!(
                RunView::load(&root).unwrap().records().unwrap(),
                expected.records().unwrap()
            );
            let mut run = RunDir::open(&root).unwrap();
            let logs = run.logs().unwrap();
            run.finish(logs, &summary).unwrap();
            let view = RunView::load(&root).unwrap();
            assert_eq!(
                view.records().unwrap(),
                expected.records().unwrap(),
                "{after:?} {skip}"
            );
            assert_eq!(
                view.outcomes().unwrap(),
                expected.outcomes().unwrap(),
                "{after:?} {skip}"
            );
            assert_eq!(view.summary, expected.summary);
            let left: Vec<_> = fs::read_dir(&root)
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .collect();
            assert!(
                left.iter()
                    .all(|name| !name.to_string_lossy().ends_with(".tmp")),
                "{left:?}"
            );
        }
    }
    assert!(crashes >= 14, "{crashes}");
}

#[test]
fn a_state_knows_its_examples_through_the_lineage() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    let mut run = new_run(&root);
    let mut logs = run.logs().unwrap();
    let first = commit(&mut run, &mut logs, 0, true);
    let segment = logs.lineage.segment(&[id(1), id(2)]).unwrap();
    let state = run
        .begin_state(states::draft(4, true), &weights(4))
        .unwrap();
    let second = state.id().to_string();
    let exposure = Exposure {
        experience: Some(0),
        epochs: Some((0, 0)),
        part: false,
    };
    logs.lineage
        .reach(Artifact::State(second.clone()), &segment, exposure)
        .unwrap();
    run.commit(state, &mut logs).unwrap();
    let third = commit(&mut run, &mut logs, 9, true);
    drop((run, logs));
    let view = RunView::load(&root);
    assert!(
        view.is_err(),
        "without a start record there is nothing to report"
    );
    let run = RunDir::open(&root).unwrap();
    assert_eq!(run.states().get(&second).unwrap().reached, [segment]);
    let logs = run.logs().unwrap();
    let lineage = logs.lineage.lineage();
    let mut expected = vec![Artifact::State(second), Artifact::State(third.clone())];
    expected.sort();
    assert_eq!(lineage.reached(&id(1)).unwrap(), expected);
    assert_eq!(lineage.examples(&Artifact::State(first)).unwrap(), []);
    assert_eq!(lineage.examples(&Artifact::State(third)).unwrap().len(), 2);
}

#[test]
fn a_newer_summary_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("summary.json");
    let summary = Summary {
        format_version: 1,
        run: "x".into(),
        ..Summary::default()
    };
    summary.save(&path).unwrap();
    assert_eq!(Summary::load(&path).unwrap(), summary);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        text.replace("\"format_version\": 1", "\"format_version\": 3"),
    )
    .unwrap();
    assert!(matches!(
        Summary::load(&path),
        Err(Error::Newer {
            found: 3,
            supported: 1,
            ..
        })
    ));
    fs::write(&path, "{}").unwrap();
    assert!(matches!(Summary::load(&path), Err(Error::Damaged { .. })));
}

#[test]
fn long_curves_are_thinned_but_not_where_the_gap_is() {
    use ebb_record::Curves;
    let n = 20_000usize;
    let curves = Curves {
        steps: (0..n as u64).collect(),
        sets: vec![(0..n).map(|k| Some(k as f64)).collect()],
        experiences: (0..n).map(|k| k / 5000).collect(),
        starts: vec![0, 5000, 10_000, 15_000],
    };
    let thin = curves.thinned();
    assert!(thin.steps.len() < 5000, "{}", thin.steps.len());
    assert!((5000..5128).all(|step| thin.steps.contains(&step)));
    assert_eq!(thin.steps.last(), Some(&19_999));
    assert!(
        thin.steps
            .iter()
            .zip(&thin.sets[0])
            .all(|(&step, &value)| value == Some(step as f64))
    );
    assert_eq!(thin.thinned(), thin.thinned());
}
