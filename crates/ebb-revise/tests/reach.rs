//! Reach, on a run directory made by hand with the program's own writers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use ebb_record::{Artifact, Draft, Environment, Exposure, Logs, Record, RunDir, Start, Verb};
use ebb_revise::{How, Kind, Reach, Trace, Traces, reach};
use ebb_space::{ExampleId, Layout, Weights};

fn id(n: u32) -> ExampleId {
    ExampleId::of(&n.to_le_bytes(), 0)
}

/// What a memory's file looks like from outside: ids among other bytes.
fn memory_of(ids: &[ExampleId]) -> Vec<u8> {
    let mut bytes = b"EBBMEMRY".to_vec();
    for id in ids {
        bytes.extend(id.base);
        bytes.extend([0; 8]);
    }
    bytes
}

fn commit(run: &mut RunDir, logs: &mut Logs, step: u64, reached: &[u32], memory: &[u32]) -> String {
    let layout = Layout::new([("w".to_owned(), vec![2])]).unwrap();
    let weights = Weights::from_vec(&layout, vec![step as f32, 1.0]).unwrap();
    let draft = Draft {
        verb: if step == 0 { Verb::Start } else { Verb::Learn },
        step,
        experience: None,
        milestone: true,
    };
    let mut state = run.begin_state(draft, &weights).unwrap();
    let name = state.id().to_owned();
    if !reached.is_empty() {
        let ids: Vec<ExampleId> = reached.iter().map(|n| id(*n)).collect();
        let segment = logs.lineage.segment(&ids).unwrap();
        for artifact in [
            Artifact::State(name.clone()),
            Artifact::Memory("memory".into()),
            Artifact::Statistic("ewc".into()),
        ] {
            logs.lineage
                .reach(artifact, &segment, Exposure::default())
                .unwrap();
        }
    }
    for file in [
        "optimizer.safetensors",
        "penalty-0-ewc.safetensors",
        "teacher.safetensors",
        "adapter-0.safetensors",
    ] {
        state.weights(file, &[("", &weights)]).unwrap();
    }
    state.file("progress.json", b"{}").unwrap();
    state
        .file("events.json", format!("[\"{}\"]", id(7)).as_bytes())
        .unwrap();
    let ids: Vec<ExampleId> = memory.iter().map(|n| id(*n)).collect();
    fs::write(
        state.directory("memory").unwrap().join("memory.bin"),
        memory_of(&ids),
    )
    .unwrap();
    run.commit(state, logs).unwrap();
    name
}

/// Three states: the start; one that records 0 to 4 reached, with 1 in its memory; one that 5 to
/// 9 reached besides, with 6 in its memory.
fn a_run(root: &Path) -> [String; 3] {
    let environment = Environment::collect(BTreeMap::new(), 1);
    let mut run = RunDir::create(root, "seed = 1\n", &environment).unwrap();
    let mut logs = run.logs().unwrap();
    logs.records
        .append(&Record::Start(Start::default()))
        .unwrap();
    let start = commit(&mut run, &mut logs, 0, &[], &[]);
    let test: Vec<ExampleId> = (20..23).map(id).collect();
    logs.outcomes
        .append(1, 0, 0, &test, &[0.5; 3], &[true; 3])
        .unwrap();
    let one = commit(&mut run, &mut logs, 1, &[0, 1, 2, 3, 4], &[1]);
    let two = commit(&mut run, &mut logs, 2, &[5, 6, 7, 8, 9], &[6]);
    fs::write(root.join("report.html"), "<html></html>").unwrap();
    fs::write(root.join("notes.xyz"), "whatever").unwrap();
    fs::write(root.join("recipe.toml.tmp"), "seed").unwrap();
    fs::create_dir_all(root.join("cache/features")).unwrap();
    fs::write(root.join("cache/features/0.bin"), id(3).base).unwrap();
    [start, one, two]
}

fn of(root: &Path, records: &[ExampleId]) -> Reach {
    reach(&Traces::gather(root, records).unwrap())
}

/// Path -> how, with the states' ids replaced by their numbers.
fn hows(reach: &Reach, states: &[String; 3]) -> BTreeMap<String, (Kind, How)> {
    let short = |path: &Path| {
        let mut text = path.to_str().unwrap().to_owned();
        for (n, id) in states.iter().enumerate() {
            text = text.replace(id, &n.to_string());
        }
        text
    };
    reach
        .holders
        .iter()
        .map(|h| (short(&h.path), (h.kind, h.how)))
        .collect()
}

#[test]
fn a_record_of_the_last_experience_reached_the_last_state_alone() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    let states = a_run(&root);
    let reach = of(&root, &[id(6)]);
    assert_eq!((reach.asked, reach.found), (1, 1));
    assert_eq!(reach.clean.as_deref(), Some(states[1].as_str()));
    let artifacts: BTreeSet<String> = reach
        .artifacts
        .iter()
        .map(|(a, _, _)| a.to_string())
        .collect();
    let expected = [
        format!("state {}", states[2]),
        "memory memory".into(),
        "statistic ewc".into(),
    ];
    assert_eq!(artifacts, BTreeSet::from(expected));
    let segments: Vec<_> = fs::read_dir(root.join("lineage"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    let holding: Vec<_> = segments
        .iter()
        .filter(|path| fs::read(path).unwrap().windows(16).any(|w| w == id(6).base))
        .collect();
    assert_eq!((segments.len(), holding.len()), (2, 1));
    let segment = format!(
        "lineage/{}",
        holding[0].file_name().unwrap().to_str().unwrap()
    );
    let expected = BTreeMap::from([
        ("cache/features/0.bin", (Kind::Cache, How::Influenced)),
        (&segment[..], (Kind::Lineage, How::Holds)),
        ("lineage.jsonl", (Kind::Lineage, How::Names)),
        ("notes.xyz", (Kind::Unknown, How::Unknown)),
        ("outcomes.bin", (Kind::Outcomes, How::Influenced)),
        ("recipe.toml.tmp", (Kind::Leftover, How::Unknown)),
        ("records.jsonl", (Kind::Records, How::Influenced)),
        ("report.html", (Kind::Report, How::Influenced)),
        (
            "states/2/adapter-0.safetensors",
            (Kind::Adapter, How::Influenced),
        ),
        ("states/2/events.json", (Kind::Outcomes, How::Influenced)),
        ("states/2/memory/memory.bin", (Kind::Memory, How::Holds)),
        (
            "states/2/optimizer.safetensors",
            (Kind::Optimizer, How::Influenced),
        ),
        (
            "states/2/penalty-0-ewc.safetensors",
            (Kind::Statistic, How::Influenced),
        ),
        ("states/2/progress.json", (Kind::State, How::Influenced)),
        ("states/2/state.json", (Kind::Lineage, How::Names)),
        (
            "states/2/teacher.safetensors",
            (Kind::Teacher, How::Influenced),
        ),
        (
            "states/2/weights.safetensors",
            (Kind::State, How::Influenced),
        ),
        ("states/chain.jsonl", (Kind::Lineage, How::Names)),
    ]);
    let found = hows(&reach, &states);
    let found: BTreeMap<&str, (Kind, How)> = found.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    assert_eq!(found, expected);
}

#[test]
fn an_early_record_reached_everything_that_was_made_later_and_ids_are_found_wherever_they_stand() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    let states = a_run(&root);
    // A view counts as its record.
    let reach = of(&root, &[id(3).with_view(2), id(1)]);
    assert_eq!((reach.asked, reach.found), (2, 2));
    assert_eq!(reach.clean.as_deref(), Some(states[0].as_str()));
    let found = hows(&reach, &states);
    assert_eq!(found["cache/features/0.bin"], (Kind::Cache, How::Holds));
    assert_eq!(
        found["states/1/memory/memory.bin"],
        (Kind::Memory, How::Holds)
    );
    // It left the memory later, which learnt from it nevertheless.
    assert_eq!(
        found["states/2/memory/memory.bin"],
        (Kind::Memory, How::Influenced)
    );
    assert!(!found.keys().any(|path| path.starts_with("states/0/")));
    for (artifact, records, kept) in &reach.artifacts {
        assert_eq!(*records, 2, "{artifact}");
        assert_eq!(
            *kept,
            matches!(artifact, Artifact::State(_)).then_some(true)
        );
    }
    let counts: BTreeMap<&Path, u64> = reach
        .holders
        .iter()
        .map(|h| (h.path.as_path(), h.records))
        .collect();
    assert_eq!(counts[Path::new("cache/features/0.bin")], 1);
    assert_eq!(counts[Path::new("lineage.jsonl")], 2);

    // By id in a state's file of events, though in no state's lineage before it.
    let found = hows(&of(&root, &[id(7)]), &states);
    assert_eq!(found["states/0/events.json"], (Kind::Outcomes, How::Holds));
}

#[test]
fn test_examples_are_found_in_outcomes_open_and_sealed_and_strangers_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    let states = a_run(&root);
    let found = hows(&of(&root, &[id(21)]), &states);
    assert_eq!(found["outcomes.bin"], (Kind::Outcomes, How::Holds));
    let mut run = RunDir::open(&root).unwrap();
    let logs = run.logs().unwrap();
    run.finish(logs, &Default::default()).unwrap();
    drop(run);
    let found = hows(&of(&root, &[id(21)]), &states);
    assert_eq!(found["outcomes.parquet"], (Kind::Outcomes, How::Holds));
    assert!(!found.contains_key("outcomes.bin") && !found.contains_key("records.parquet"));
    assert_eq!(
        hows(&of(&root, &[id(6)]), &states)["summary.json"],
        (Kind::Records, How::Influenced)
    );

    let stranger = of(&root, &[id(1000)]);
    assert_eq!((stranger.asked, stranger.found), (1, 0));
    assert!(stranger.artifacts.is_empty());
    let unknown: Vec<&Path> = stranger.holders.iter().map(|h| h.path.as_path()).collect();
    // Opening the run swept what was half-written.
    assert_eq!(unknown, [Path::new("notes.xyz")]);
    assert_eq!(stranger.clean.as_deref(), Some(states[2].as_str()));
}

#[test]
fn a_state_whose_bytes_are_gone_is_said_to_be_gone_and_is_not_clean() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    let states = a_run(&root);
    for state in &states[..2] {
        fs::remove_dir_all(root.join("states").join(state)).unwrap();
    }
    let reach = of(&root, &[id(3)]);
    assert_eq!(reach.clean, None);
    let kept: BTreeMap<String, Option<bool>> = reach
        .artifacts
        .iter()
        .map(|(a, _, kept)| (a.to_string(), *kept))
        .collect();
    assert_eq!(kept[&format!("state {}", states[1])], Some(false));
    assert_eq!(kept[&format!("state {}", states[2])], Some(true));
}

/// What it judges is a value: no directory is needed.
#[test]
fn judging_is_a_function_of_the_traces() {
    let trace = |path: &str, ids: &[ExampleId]| Trace {
        path: path.into(),
        bytes: 1,
        ids: ids.iter().copied().collect(),
    };
    let mut traces = Traces {
        records: vec![id(1)],
        files: vec![
            trace("states/ab/memory/memory.bin.partial", &[]),
            trace("states/ab/new-thing.bin", &[]),
            trace("ledger/entries.jsonl", &[]),
            trace("recipe.toml", &[id(1)]),
            trace("states/HEAD", &[]),
        ],
        ..Traces::default()
    };
    let found = |traces: &Traces| -> Vec<(Kind, How)> {
        reach(traces)
            .holders
            .iter()
            .map(|h| (h.kind, h.how))
            .collect()
    };
    let expected = [
        (Kind::Leftover, How::Unknown),
        (Kind::Unknown, How::Unknown),
        // A setting that names a record is no longer only a setting.
        (Kind::Setting, How::Holds),
    ];
    assert_eq!(found(&traces), expected);
    assert_eq!(reach(&traces).found, 1);
    traces.files.clear();
    assert_eq!(reach(&traces).found, 0);
}
