//! A run that is stopped at any point goes on to the same records, outcomes and states.

use std::fs;
use std::process::Command;
use std::time::Duration;

use ebb_record::{Error, Fault, Operation, RunDir, RunView};

use super::states::{commit, draft, names};
use super::*;

const STEPS: u64 = 60;
const EVERY: u64 = 10;

/// Trains to the end from wherever HEAD is, with a state every ten steps.
fn go_on(run: &mut RunDir, pace: Duration) {
    let mut logs = run.logs().unwrap();
    let mut at = match run.states().head() {
        Some(head) => head.step,
        None => {
            logs.records.append(&start(1)).unwrap();
            commit(run, &mut logs, 0, true);
            0
        }
    };
    while at < STEPS {
        for step in at..at + EVERY {
            train(&mut logs, step..step + 1);
            std::thread::sleep(pace);
        }
        at += EVERY;
        commit(run, &mut logs, at, at == STEPS);
    }
}

/// What must not depend on how often a run was stopped.
fn fingerprint(root: &Path) -> (Vec<Record>, String, Vec<String>) {
    let view = RunView::load(root).unwrap();
    let outcomes = format!("{:?}", view.outcomes().unwrap());
    let chain = view
        .states()
        .unwrap()
        .chain()
        .iter()
        .map(|state| state.id.clone())
        .collect();
    (view.records().unwrap(), outcomes, chain)
}

#[test]
fn killed_at_any_moment_it_resumes_to_the_same_run() {
    // The child is this test, told where to write.
    if let Ok(root) = std::env::var("EBB_TEST_CHILD") {
        let root = Path::new(&root);
        let mut run = if root.join("recipe.toml").exists() {
            RunDir::open(root).unwrap()
        } else {
            new_run(root)
        };
        go_on(&mut run, Duration::from_micros(300));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    go_on(&mut new_run(&whole), Duration::ZERO);
    let expected = fingerprint(&whole);
    assert_eq!(expected.0.len() as u64, 2 + 2 * STEPS + STEPS / EVERY);

    let root = dir.path().join("killed");
    let mut random = Key::new(std::process::id().into(), "kills").stream();
    let mut kills = 0;
    loop {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "crash::killed_at_any_moment_it_resumes_to_the_same_run",
                "--nocapture",
            ])
            .env("EBB_TEST_CHILD", &root)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(
            3000 + random.below(12_000 + 2_000 * kills),
        ));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        assert!(kills < 200, "it never comes to its end");
    }
    println!("killed {kills} times");
    assert!(kills > 0);
    assert_eq!(fingerprint(&root), expected);
}

#[test]
fn stopped_within_a_commit_head_is_the_old_one_or_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let (mut old, mut new, mut stops) = (0, 0, 0);
    let operations = [
        Operation::Write,
        Operation::Sync,
        Operation::Rename,
        Operation::SyncDirectory,
        Operation::Remove,
    ];
    for after in operations {
        for skip in 0..6 {
            let root = dir.path().join(format!("{after:?}{skip}"));
            let mut run = new_run(&root);
            let mut logs = run.logs().unwrap();
            logs.records.append(&start(1)).unwrap();
            let first = commit(&mut run, &mut logs, 0, true);
            train(&mut logs, 0..3);
            run.set_fault(Some(Fault {
                after,
                path_ends_with: String::new(),
                skip,
                abort: false,
            }));
            let second = || -> ebb_record::Result<()> {
                let mut state = run.begin_state(draft(3, true), &weights(3))?;
                state.file("optimizer.json", b"{}")?;
                run.commit(state, &mut logs)
            };
            match { second }() {
                Ok(()) => {}
                Err(Error::Fault { .. }) => stops += 1,
                Err(other) => panic!("{other}"),
            }
            drop((run, logs));

            let mut run = RunDir::open(&root).unwrap();
            let head = run.states().head().unwrap().clone();
            run.states()
                .checkout(&head.id)
                .unwrap()
                .weights(&layout())
                .unwrap();
            // Nothing half-written is left, and nothing that HEAD does not reach.
            let mut expected: std::collections::BTreeSet<String> = run
                .states()
                .chain()
                .iter()
                .map(|state| state.id.clone())
                .collect();
            expected.extend(["HEAD".into(), "chain.jsonl".into()]);
            assert_eq!(names(&root), expected);
            let logs = run.logs().unwrap();
            drop(logs);
            let records = RunView::load(&root).unwrap().records().unwrap().len();
            if head.id == first {
                old += 1;
                assert_eq!(records, 2, "the start and the first state");
            } else {
                new += 1;
                assert_eq!((head.step, records), (3, 2 + 6 + 1));
            }
            // And it goes on.
            go_on_from(&mut run);
        }
    }
    // Four files, two renames and three directories: as many places to stop.
    assert_eq!((old + new, stops), (30, 13));
    assert!(old >= 10 && new >= 10, "{old} old, {new} new");
}

fn go_on_from(run: &mut RunDir) {
    let mut logs = run.logs().unwrap();
    let before = run.states().chain().len();
    commit(run, &mut logs, 50, true);
    assert_eq!(run.states().chain().len(), before + 1);
}

#[test]
fn stopped_within_the_very_first_commit_the_run_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    for (after, path_ends_with) in [
        (Operation::Rename, ""),
        (Operation::SyncDirectory, ""),
        (Operation::Sync, "HEAD.tmp"),
    ] {
        let root = dir.path().join(format!("{after:?}{path_ends_with}"));
        let mut run = new_run(&root);
        let mut logs = run.logs().unwrap();
        let fault = Fault {
            after,
            path_ends_with: path_ends_with.into(),
            skip: 0,
            abort: false,
        };
        run.set_fault(Some(fault));
        let state = run.begin_state(draft(0, true), &weights(0)).unwrap();
        assert!(matches!(
            run.commit(state, &mut logs),
            Err(Error::Fault { .. })
        ));
        drop((run, logs));
        let mut run = RunDir::open(&root).unwrap();
        assert!(run.states().head().is_none() && run.states().chain().is_empty());
        go_on(&mut run, Duration::ZERO);
    }
}

#[test]
fn stopped_while_being_created_a_directory_can_be_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    drop(new_run(&root));
    // As a kill between the environment and the recipe leaves it.
    fs::rename(root.join("recipe.toml"), root.join("recipe.toml.tmp")).unwrap();
    assert!(matches!(RunDir::open(&root), Err(Error::NotARun { .. })));
    drop(new_run(&root));
    assert!(!root.join("recipe.toml.tmp").exists());
}

#[test]
fn stopped_while_purging_the_bytes_go_at_the_next_opening() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    let mut run = new_run(&root);
    let mut logs = run.logs().unwrap();
    let first = commit(&mut run, &mut logs, 0, true);
    commit(&mut run, &mut logs, 1, true);
    run.set_fault(Some(Fault {
        after: Operation::Rename,
        path_ends_with: String::new(),
        skip: 0,
        abort: false,
    }));
    assert!(matches!(run.purge(&first), Err(Error::Fault { .. })));
    drop((run, logs));
    let run = RunDir::open(&root).unwrap();
    assert!(!run.states().is_kept(&first));
    assert!(names(&root).iter().all(|name| !name.contains(&first)));
}

#[test]
fn files_are_synced_before_they_are_renamed() {
    // Stopping after the first sync must leave only the temporary name.
    let dir = tempfile::tempdir().unwrap();
    let disk = ebb_record::Disk::default();
    let path = dir.path().join("file");
    disk.replace(&path, b"old").unwrap();
    for (after, expected) in [
        (Operation::Write, &b"old"[..]),
        (Operation::Sync, b"old"),
        (Operation::Rename, b"new"),
        (Operation::SyncDirectory, b"new"),
    ] {
        disk.replace(&path, b"old").unwrap();
        disk.set_fault(Some(Fault {
            after,
            path_ends_with: String::new(),
            skip: 0,
            abort: false,
        }));
        assert!(matches!(
            disk.replace(&path, b"new"),
            Err(Error::Fault { .. })
        ));
        assert_eq!(fs::read(&path).unwrap(), expected, "{after:?}");
        disk.set_fault(None);
    }
}
