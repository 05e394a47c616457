//! The run directory under everything that happens to one: resuming, crashing at every point,
//! damage, a full disk, newer formats, two processes.

mod crash;
mod disk_full;
mod lineage;
mod logs;
mod run;
mod states;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ebb_record::{
    Column, Cost, Environment, Eval, ExperienceInfo, Logs, Record, RunDir, Start, Step,
};
use ebb_space::{ExampleId, Key, Layout, Weights};

fn environment() -> Environment {
    Environment::collect(BTreeMap::from([("ebb".into(), "test".into())]), 1)
}

fn new_run(root: &Path) -> RunDir {
    RunDir::create(root, "seed = 1\n", &environment()).unwrap()
}

fn layout() -> Arc<Layout> {
    let entries = [("a.weight", vec![4, 3]), ("a.bias", vec![3])];
    Layout::new(entries.map(|(path, shape)| (path.to_string(), shape))).unwrap()
}

/// Weights as some training would have them after `step` updates.
fn weights(step: u64) -> Weights {
    let mut random = Key::new(step, "weights").stream();
    let layout = layout();
    let values = (0..layout.len()).map(|_| random.normal() as f32).collect();
    Weights::from_vec(&layout, values).unwrap()
}

fn id(n: u32) -> ExampleId {
    ExampleId::of(&n.to_le_bytes(), 0)
}

fn start(experiences: usize) -> Record {
    Record::Start(Start {
        run: "test".into(),
        seed: 1,
        protocol: "test sets".into(),
        experiences: (0..experiences)
            .map(|index| ExperienceInfo {
                index,
                name: format!("e{index}"),
                ..Default::default()
            })
            .collect(),
        ..Start::default()
    })
}

fn step(step: u64, experience: usize) -> Record {
    let terms = BTreeMap::from([("cross-entropy".into(), 0.5), ("penalty".into(), 1.0 / 3.0)]);
    let (loss, seconds) = (5.0 / 6.0, 0.25 * step as f64);
    Record::Step(Step {
        step,
        experience,
        epoch: 0,
        loss,
        terms,
        lr: 0.1,
        seconds,
    })
}

fn eval(step: u64, experience: usize, set: usize, correct: u64) -> Record {
    let half = Some((correct / 2, 50));
    Record::Eval(Eval {
        step,
        experience,
        set,
        correct,
        n: 100,
        half,
    })
}

fn column(after: i32, set: usize, correct: u64) -> Record {
    Record::Column(Column {
        after,
        set,
        correct,
        n: 100,
        loss: 0.125,
    })
}

fn end(steps: u64) -> Record {
    Record::End(Cost {
        steps: Some(steps),
        train_seconds: Some(1.5),
        ..Cost::default()
    })
}

/// What a training run does between two states: a step a time, each recorded.
fn train(logs: &mut Logs, steps: std::ops::Range<u64>) {
    for n in steps {
        logs.records.append(&step(n + 1, 0)).unwrap();
        logs.records.append(&eval(n + 1, 0, 0, n % 100)).unwrap();
        let ids: Vec<ExampleId> = (0..5).map(id).collect();
        let loss = [n as f32, f32::NAN, f32::INFINITY, -0.0, 1.0];
        logs.outcomes
            .append(
                n + 1,
                0,
                0,
                &ids,
                &loss,
                &[true, false, n % 2 == 0, true, true],
            )
            .unwrap();
    }
}
