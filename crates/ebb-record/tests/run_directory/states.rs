use std::fs;
use std::path::PathBuf;

use ebb_record::{Draft, Error, Keep, Logs, RunDir, RunView, State, Verb, WEIGHTS};

use super::*;

pub fn draft(step: u64, milestone: bool) -> Draft {
    Draft {
        verb: Verb::Learn,
        step,
        experience: Some(0),
        milestone,
    }
}

pub fn commit(run: &mut RunDir, logs: &mut Logs, step: u64, milestone: bool) -> String {
    let mut state = run
        .begin_state(draft(step, milestone), &weights(step))
        .unwrap();
    state
        .file("optimizer.json", format!("{{\"step\":{step}}}").as_bytes())
        .unwrap();
    let id = state.id().to_string();
    run.commit(state, logs).unwrap();
    id
}

fn checkout(run: &RunDir, id: &str) -> State {
    run.states().checkout(id).unwrap()
}

#[test]
fn states_form_a_chain_whose_ids_do_not_depend_on_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let chain = |name: &str, checkpoints: &[u64]| {
        let root = dir.path().join(name);
        let mut run = new_run(&root);
        let mut logs = run.logs().unwrap();
        let first = commit(&mut run, &mut logs, 0, true);
        for &step in checkpoints {
            commit(&mut run, &mut logs, step, false);
        }
        let second = commit(&mut run, &mut logs, 10, true);
        assert_eq!(
            run.states().get(&second).unwrap().parent.as_deref(),
            Some(first.as_str())
        );
        (first, second)
    };
    let undisturbed = chain("a", &[]);
    assert_eq!(chain("b", &[3, 7, 10]), undisturbed);
    assert_ne!(undisturbed.0, undisturbed.1);
    assert_eq!(undisturbed.0.len(), 32);
}

#[test]
fn a_state_holds_what_was_put_in_and_is_whole_when_reopened() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    let mut run = new_run(&root);
    let mut logs = run.logs().unwrap();
    let mut state = run.begin_state(draft(5, true), &weights(5)).unwrap();
    let memory = state.directory("memory").unwrap();
    fs::write(memory.join("rows.bin"), b"rows").unwrap();
    state
        .weights(
            "fisher.safetensors",
            &[("at/", &weights(1)), ("f/", &weights(2))],
        )
        .unwrap();
    for bad in ["state.json", "../up", "a/b", "", "..", "."] {
        assert!(
            matches!(state.file(bad, b""), Err(Error::BadName { .. })),
            "{bad}"
        );
    }
    let id = state.id().to_string();
    run.commit(state, &mut logs).unwrap();
    drop((run, logs));

    let run = RunDir::open(&root).unwrap();
    let head = run.states().head().unwrap();
    assert_eq!(
        (head.id.as_str(), head.step, head.verb),
        (id.as_str(), 5, Verb::Learn)
    );
    assert_eq!(
        head.files.keys().collect::<Vec<_>>(),
        ["fisher.safetensors", "memory/rows.bin", WEIGHTS]
    );
    let state = checkout(&run, &id);
    assert_eq!(
        state.weights(&layout()).unwrap().as_slice(),
        weights(5).as_slice()
    );
    assert_eq!(state.bytes("memory/rows.bin").unwrap(), b"rows");
    // Where an unfinished state was dropped there is nothing.
    drop(run.begin_state(draft(6, true), &weights(6)).unwrap());
    assert_eq!(
        names(&root),
        vec!["HEAD".to_string(), id, "chain.jsonl".into()]
            .into_iter()
            .collect()
    );
}

/// What lies in `states/`.
pub fn names(root: &Path) -> std::collections::BTreeSet<String> {
    let all = fs::read_dir(root.join("states")).unwrap();
    all.map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn head_file(run: &RunDir, name: &str) -> PathBuf {
    let id = &run.states().head().unwrap().id;
    run.root().join("states").join(id).join(name)
}

#[test]
fn damage_to_a_state_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = new_run(&dir.path().join("run"));
    let mut logs = run.logs().unwrap();
    let id = commit(&mut run, &mut logs, 5, true);
    let path = head_file(&run, WEIGHTS);
    let whole = fs::read(&path).unwrap();
    let problem = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        run.states().checkout(&id).unwrap_err().to_string()
    };
    let text = problem(&whole[..whole.len() - 1]);
    assert!(
        text.contains("weights.safetensors") && text.contains("were saved"),
        "{text}"
    );
    let mut flipped = whole.clone();
    flipped[whole.len() - 3] ^= 1;
    assert!(problem(&flipped).contains("its bytes have changed"));
    fs::remove_file(&path).unwrap();
    assert!(matches!(run.states().checkout(&id), Err(Error::Io { .. })));
    assert!(matches!(
        run.states().checkout("unheard"),
        Err(Error::NoState { .. })
    ));
}

#[test]
fn keeping_pruning_and_purging() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    let mut run = new_run(&root);
    let mut logs = run.logs().unwrap();
    let milestone = commit(&mut run, &mut logs, 0, true);
    let mut checkpoints = Vec::new();
    for step in 1..=4 {
        checkpoints.push(commit(&mut run, &mut logs, step, false));
    }
    let gone = run
        .prune(Keep {
            last: 2,
            milestones: true,
        })
        .unwrap();
    assert_eq!(gone, checkpoints[..2]);
    assert!(run.states().is_kept(&milestone) && run.states().is_kept(&checkpoints[2]));
    assert!(matches!(
        run.states().checkout(&gone[0]),
        Err(Error::NoState { .. })
    ));
    // The chain still knows them.
    assert_eq!(run.states().chain().len(), 5);

    run.purge(&milestone).unwrap();
    run.purge(&milestone).unwrap();
    assert!(!root.join("states").join(&milestone).exists());
    let head = &checkpoints[3];
    assert!(matches!(run.purge(head), Err(Error::PurgeHead { .. })));
    assert_eq!(
        run.prune(Keep {
            last: 0,
            milestones: false
        })
        .unwrap(),
        [checkpoints[2].clone()]
    );
    drop((run, logs));
    let run = RunDir::open(&root).unwrap();
    assert_eq!(
        (run.states().chain().len(), &run.states().head().unwrap().id),
        (5, head)
    );
    checkout(&run, head);
}

#[test]
fn the_same_state_twice_is_one_and_only_the_logs_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    let mut run = new_run(&root);
    let mut logs = run.logs().unwrap();
    let first = commit(&mut run, &mut logs, 3, false);
    let before = run.states().marks().unwrap();
    logs.records.append(&step(3, 0)).unwrap();
    assert_eq!(commit(&mut run, &mut logs, 3, false), first);
    assert_eq!(run.states().chain().len(), 1);
    assert!(run.states().marks().unwrap().records > before.records);
}

#[test]
fn a_head_that_lies_is_refused_and_nothing_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    let mut run = new_run(&root);
    let mut logs = run.logs().unwrap();
    logs.records.append(&start(1)).unwrap();
    let id = commit(&mut run, &mut logs, 1, true);
    commit(&mut run, &mut logs, 2, true);
    drop((run, logs));
    let head = root.join("states/HEAD");
    let text = fs::read_to_string(&head).unwrap();
    let open = || RunDir::open(&root).unwrap_err().to_string();

    fs::write(
        &head,
        text.replace("\"format_version\": 1", "\"format_version\": 2"),
    )
    .unwrap();
    assert!(open().contains("format version 2"));
    fs::write(&head, &text[..text.len() / 2]).unwrap();
    assert!(open().contains("HEAD` is damaged"));
    fs::remove_file(&head).unwrap();
    assert!(open().contains("it is missing, though states were committed"));
    fs::write(&head, &text).unwrap();
    let chain = root.join("states/chain.jsonl");
    let lines = fs::read(&chain).unwrap();
    fs::write(&chain, &lines[..lines.len() - 9]).unwrap();
    assert!(open().contains("shorter than HEAD says"));
    fs::write(&chain, &lines).unwrap();
    assert!(root.join("states").join(&id).exists());
    assert_eq!(RunDir::open(&root).unwrap().states().chain().len(), 2);
    assert_eq!(
        RunView::load(&root)
            .unwrap()
            .states()
            .unwrap()
            .chain()
            .len(),
        2
    );
}
