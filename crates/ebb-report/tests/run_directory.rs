//! A run directory as the recorder writes it becomes a page, while it runs and when it is done.

use std::path::Path;

use ebb_record::{
    Column, Cost, Draft, Environment, Eval, ExperienceInfo, Record, RunDir, RunView, Start, Step,
    Summary, Verb,
};
use ebb_report::{Options, RunData, Status, render};
use ebb_space::{Layout, Weights};

const N: u64 = 200;

/// Correct answers of 200 on set `set` at `step`: the first set dips to 40 at step 11.
fn correct(set: usize, step: u64) -> u64 {
    match (set, step) {
        (0, 0) => 20,
        (0, 1..=10) => 180,
        (0, 11) => 40,
        (0, _) => 150,
        (_, 0..=10) => 10,
        (_, _) => 190,
    }
}

fn start(seed: u64) -> Record {
    let experience = |index: usize, name: &str| ExperienceInfo {
        index,
        name: name.into(),
        classes: vec![index as u32],
        train: 100,
        test: N as usize,
        sets: None,
    };
    Record::Start(Start {
        run: format!("er-{seed}"),
        recipe_hash: format!("hash {seed}"),
        recipe_id: "one recipe".into(),
        code_version: "0.1.0".into(),
        seed,
        method: "er".into(),
        stream: "two digits".into(),
        network: "MLP 4-2".into(),
        scenario: "class".into(),
        protocol: "two digits, class-incremental, test".into(),
        panel_protocol: "panel of 200".into(),
        accepted: vec!["a combination".into()],
        experiences: vec![experience(0, "zeros"), experience(1, "ones")],
        sets: Vec::new(),
    })
}

fn eval(step: u64, experience: usize, set: usize) -> Record {
    Record::Eval(Eval {
        step,
        experience,
        set,
        correct: correct(set, step),
        n: N,
        half: None,
    })
}

/// Two experiences of ten steps each; stops before its end if `finish` is false.
fn write(root: &Path, seed: u64, finish: bool) {
    let mut run = RunDir::create(root, "method = \"er\"\n", &Environment::default()).unwrap();
    let mut logs = run.logs().unwrap();
    let mut records = vec![start(seed)];
    for set in 0..2 {
        records.push(Record::Column(Column {
            after: -1,
            set,
            correct: correct(set, 0),
            n: N,
            loss: 2.3,
        }));
    }
    let layout = Layout::new([("w".to_string(), vec![2])]).unwrap();
    for experience in 0..2usize {
        let first = 10 * experience as u64;
        for step in first..=first + 10 {
            if step > first {
                let loss = 1.0 / step as f64;
                records.push(Record::Step(Step {
                    step,
                    experience,
                    loss,
                    lr: 0.1,
                    ..Step::default()
                }));
            }
            records.extend((0..2).map(|set| eval(step, experience, set)));
        }
        let after = experience as i32;
        for set in 0..2 {
            let correct = correct(set, first + 10);
            records.push(Record::Column(Column {
                after,
                set,
                correct,
                n: N,
                loss: 0.5,
            }));
        }
        if !finish && experience == 1 {
            records.truncate(records.len() - 2);
        }
        let last = experience == 1;
        if last && finish {
            records.push(Record::End(Cost {
                train_seconds: Some(2.5),
                steps: Some(20),
                ..Cost::default()
            }));
        }
        for record in records.drain(..) {
            logs.records.append(&record).unwrap();
        }
        if !last || finish {
            let draft = Draft {
                verb: Verb::Learn,
                step: first + 10,
                experience: Some(experience),
                milestone: true,
            };
            let state = run.begin_state(draft, &Weights::zeros(&layout)).unwrap();
            run.commit(state, &mut logs).unwrap();
        }
    }
    logs.records.flush().unwrap();
    if finish {
        let summary =
            Summary::from_records(&RunView::load(root).unwrap().records().unwrap()).unwrap();
        run.finish(logs, &summary).unwrap();
    }
}

#[test]
fn a_finished_run_is_shown_whole() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    write(&root, 3, true);
    let run = RunData::load(&root).unwrap();
    assert_eq!(run.status, Status::Finished);
    assert_eq!(
        (run.name.as_str(), run.seed, run.method.as_str()),
        ("er-3", 3, "er")
    );
    assert_eq!(
        run.matrix,
        [[Some(0.9), Some(0.05)], [Some(0.75), Some(0.95)]]
    );
    assert_eq!(run.initial, [Some(0.1), Some(0.05)]);
    assert_eq!(run.curves.starts, [0, 10]);
    assert_eq!(run.states.len(), 2);
    assert!(
        run.states[1].head && run.states[1].parent.as_deref() == Some(run.states[0].id.as_str())
    );
    let average = run
        .numbers
        .iter()
        .find(|n| n.name == "average_accuracy")
        .unwrap();
    assert!((average.value - 0.85).abs() < 1e-12);
    let html = render(std::slice::from_ref(&run), &Options::default());
    // Average accuracy, the dip of the first set and its step, the cost, what was accepted.
    for text in [
        "85.0<small>%",
        "<td>20.0</td>",
        "<td>11</td>",
        "2.50 s",
        "a combination",
        "method = &quot;er&quot;",
    ] {
        assert!(html.contains(text), "{text}");
    }
    for number in &run.numbers {
        assert!(
            html.contains(
                &number
                    .protocol
                    .split("; ")
                    .next()
                    .unwrap()
                    .replace('<', "&lt;")
            ),
            "{}",
            number.name
        );
    }
}

#[test]
fn a_run_that_is_not_done_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    write(&root, 3, false);
    let run = RunData::load(&root).unwrap();
    assert_eq!(
        run.status,
        Status::Unfinished("in experience 2 of 2, step 20".into())
    );
    assert_eq!(run.matrix[0], [Some(0.9), Some(0.05)]);
    let html = render(&[run], &Options::default());
    assert!(html.contains("Unfinished") && html.contains("in experience 2 of 2, step 20"));
}

#[test]
fn seeds_become_one_group_with_an_interval_over_seeds() {
    let dir = tempfile::tempdir().unwrap();
    let runs: Vec<RunData> = (0..3)
        .map(|seed| {
            let root = dir.path().join(format!("{seed}"));
            write(&root, seed, true);
            RunData::load(&root).unwrap()
        })
        .collect();
    let html = render(&runs, &Options::default());
    assert!(html.contains("seeds 0 to 2") && html.contains("over 3 seeds"));
    assert!(html.contains("95 % t interval over seeds"));
}

#[test]
fn a_directory_that_is_no_run_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(RunData::load(dir.path()).is_err());
}
