//! SIGKILL at twenty moments: a run that is killed and resumed comes to the bits, the records
//! and the outcomes of one that was not, and repeats at most one checkpoint interval each time.
//!
//! Half of the kills come from outside at a keyed moment; the other half happen inside a
//! checkpoint: while a file of a state is written, before it is synced, and between the rename
//! of a state and the sync of its directory.

use ebb_learn::{Around, Progress, Recipe, Session, learn_into, resume_into};
use ebb_record::{Environment, Fault, Operation, Record, RunDir, RunView, States};
use ebb_space::Key;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const INTERVAL: u64 = 23;

fn recipe() -> Recipe {
    let text = format!(
        "method = \"der++\"\n[stream]\ndataset = \"digits\"\nsplit = 5\nscenario = \"class\"\n\
         [network]\nkind = \"mlp\"\nhidden = [64, 64]\n\
         [train]\noptimizer = \"adam\"\nlr = 0.002\nbatch = 8\nepochs = 2\n\
         [save]\ncheckpoint-every = {INTERVAL}\n[evaluate]\nevery = 4\npanel = 40\n"
    );
    Recipe::parse(&text, &[]).expect("a valid recipe")
}

/// Counts steps into a file that survives the process, and slows it down a little, so that an
/// outside kill finds it at work.
struct Count(PathBuf, u64);

impl Progress for Count {
    fn begin(&mut self, _: usize, step: u64, _: u64) {
        self.1 = step;
        let _ = std::fs::write(&self.0, step.to_string());
    }
    fn step(&mut self, step: u64, _: f64, _: usize) {
        let _ = std::fs::write(&self.0, step.to_string());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The child: goes on with the run (or begins it), with a fault set if it is told to.
#[test]
fn child() {
    let Ok(path) = std::env::var("EBB_TEST_RUN") else {
        return;
    };
    let path = PathBuf::from(path);
    let recipe = recipe();
    let counted = path.with_extension("step");
    let never = AtomicBool::new(false);
    let mut around = Around {
        data_dir: &std::env::temp_dir(),
        progress: &mut Count(counted, 0),
        stop: &never,
    };
    let begun = path.join("recipe.toml").exists();
    let dir = if begun {
        RunDir::open(&path).expect("a run to go on with")
    } else {
        let environment = Environment::collect(Default::default(), 1);
        RunDir::create(&path, recipe.text(), &environment).expect("a new run")
    };
    if let Ok(fault) = std::env::var("EBB_TEST_FAULT") {
        dir.set_fault(Some(
            faults()[fault.parse::<usize>().expect("a number")].clone(),
        ));
    }
    if begun {
        resume_into(dir, &mut around).expect("the rest");
    } else {
        let session = Session::new(&recipe, &std::env::temp_dir()).expect("a session");
        learn_into(session, dir, &mut around).expect("a run");
    }
}

/// Moments inside a checkpoint.
fn faults() -> Vec<Fault> {
    [
        (Operation::Write, "weights.safetensors", 1),
        (Operation::Write, "progress.json", 2),
        (Operation::Rename, "", 3),
        (Operation::Sync, "optimizer.safetensors", 1),
        (Operation::Rename, "HEAD", 2),
        (Operation::SyncDirectory, "", 9),
        (Operation::Sync, "", 5),
        (Operation::Rename, "", 4),
        (Operation::Write, "state.json", 2),
        (Operation::Remove, "", 0),
    ]
    .map(|(after, ending, skip)| Fault {
        after,
        path_ends_with: ending.to_owned(),
        skip,
        abort: true,
    })
    .into()
}

fn start(path: &Path, fault: Option<usize>) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command
        .args(["child", "--exact", "--nocapture"])
        .env("EBB_TEST_RUN", path)
        .stdout(Stdio::null());
    if let Ok(errors) = std::fs::File::create(path.with_extension("stderr")) {
        command.stderr(errors);
    }
    if let Some(fault) = fault {
        command.env("EBB_TEST_FAULT", fault.to_string());
    }
    command.spawn().expect("a child")
}

fn step_reached(path: &Path) -> u64 {
    std::fs::read_to_string(path.with_extension("step"))
        .ok()
        .and_then(|t| t.parse().ok())
        .unwrap_or(0)
}

fn saved_step(path: &Path) -> u64 {
    States::view(&path.join("states"))
        .ok()
        .and_then(|s| s.head().map(|h| h.step))
        .unwrap_or(0)
}

/// What must not differ: every record but its clock readings, and every outcome.
fn contents(path: &Path) -> (Vec<Record>, Vec<ebb_record::Outcomes>, String) {
    let view = RunView::load(path).expect("a finished run");
    let mut records = view.records().expect("records");
    // Which checkpoints were made on the way depends on where the kills fell; nothing else may.
    records.retain(|r| !matches!(r, Record::State(s) if !s.milestone));
    for record in &mut records {
        match record {
            Record::Step(s) => s.seconds = 0.0,
            Record::Consolidate(c) => c.seconds = 0.0,
            Record::End(c) => {
                c.train_seconds = None;
                c.total_seconds = None;
                c.peak_rss_bytes = None;
            }
            Record::Start(s) => s.run = String::new(),
            _ => {}
        }
    }
    let states = view.states().expect("states");
    let hash = states.head().expect("a head").weights_hash.clone();
    (records, view.outcomes().expect("outcomes"), hash)
}

#[test]
fn twenty_kills_change_no_bit() {
    let dir = tempfile::tempdir().expect("a directory");
    let whole = dir.path().join("whole");
    assert!(start(&whole, None).wait().expect("a child").success());
    let expected = contents(&whole);
    let key = Key::new(20, "kills");
    let mut kills = 0;
    let mut inside = 0;
    let mut run = 0;
    // A run cannot be killed more often than it lasts, so there are several.
    while kills < 20 {
        let path = dir.path().join(format!("killed-{run}"));
        run += 1;
        loop {
            let fault = (kills % 2 == 1).then(|| (kills / 2) % faults().len());
            let before = saved_step(&path);
            let mut child = start(&path, fault);
            let patience = match fault {
                // Until the fault kills it.
                Some(_) => Duration::from_secs(60),
                None => Duration::from_millis(60 + key.draw(kills as u64) % 400),
            };
            let begun = Instant::now();
            let status = loop {
                if let Some(status) = child.try_wait().expect("a child") {
                    break Some(status);
                }
                if begun.elapsed() > patience {
                    child.kill().expect("SIGKILL");
                    child.wait().expect("a child");
                    break None;
                }
                std::thread::sleep(Duration::from_millis(2));
            };
            if status.is_some_and(|s| s.success()) {
                break;
            }
            assert!(
                status.is_none() || fault.is_some(),
                "a child that nobody killed failed: {status:?}\n{}",
                std::fs::read_to_string(path.with_extension("stderr")).unwrap_or_default()
            );
            kills += 1;
            inside += usize::from(status.is_some());
            let (reached, kept) = (step_reached(&path), saved_step(&path));
            assert!(
                kept >= before,
                "HEAD never goes back: {kept} after {before}"
            );
            assert!(
                reached <= kept + INTERVAL,
                "kill {kills}: {reached} steps taken, {kept} saved: more than one interval is repeated"
            );
            if kills >= 20 {
                assert!(start(&path, None).wait().expect("a child").success());
                break;
            }
        }
        let found = contents(&path);
        assert_eq!(found.2, expected.2, "the weights");
        assert_eq!(found.0.len(), expected.0.len(), "records missing or double");
        assert_eq!(found.0, expected.0, "the records");
        assert_eq!(found.1, expected.1, "the outcomes");
    }
    assert!(inside >= 8, "only {inside} kills fell inside a checkpoint");
    println!("20 kills over {run} runs, {inside} inside a checkpoint");
}
