//! The stream as the loop reads it: output columns, class sets, and batches of an experience.

use crate::batch::{Batch, Collect};
use crate::error::{Error, Result};
use crate::spec::LossClasses;
use ebb_data::{Item, Scenario, Stream};
use ebb_net::Model;
use ebb_space::Key;
use std::sync::Arc;

/// Which outputs compete in which rows.
///
/// In task-incremental streams set `t` is the head of task `t`. Otherwise set 0 holds the classes
/// the recipe lets compete (all, or those seen so far).
#[derive(Clone, Debug)]
pub struct ClassSets {
    /// The sets, over all outputs.
    pub sets: Vec<Vec<bool>>,
    by_task: bool,
    /// Every output competes everywhere, so that rows need no set at all.
    trivial: bool,
}

impl ClassSets {
    /// The sets that hold while experience `index` is trained.
    pub fn at(stream: &Stream, index: usize, classes: LossClasses) -> Self {
        let outputs = outputs(stream);
        if stream.scenario == Scenario::Task {
            return Self {
                sets: (0..stream.heads)
                    .map(|t| set(outputs, head(stream, t)))
                    .collect(),
                by_task: true,
                trivial: stream.heads == 1,
            };
        }
        let set = match classes {
            LossClasses::All | LossClasses::Batch => vec![true; outputs],
            LossClasses::Seen => set(outputs, seen_columns(stream, index + 1)),
        };
        Self {
            trivial: set.iter().all(|c| *c),
            sets: vec![set],
            by_task: false,
        }
    }

    /// The set of a row of task `task`; none where every output competes.
    pub fn of(&self, task: usize) -> Option<u16> {
        match (self.trivial, self.by_task) {
            (true, _) => None,
            (false, true) => Some(task as u16),
            (false, false) => Some(0),
        }
    }
}

fn set(outputs: usize, members: impl IntoIterator<Item = usize>) -> Vec<bool> {
    let mut set = vec![false; outputs];
    for c in members {
        set[c] = true;
    }
    set
}

/// Width of the logits: all heads side by side.
pub fn outputs(stream: &Stream) -> usize {
    stream.heads * stream.classes
}

/// The outputs of a head.
pub fn head(stream: &Stream, task: usize) -> std::ops::Range<usize> {
    task * stream.classes..(task + 1) * stream.classes
}

/// The outputs trained in the first `experiences` experiences.
pub fn seen_columns(stream: &Stream, experiences: usize) -> Vec<usize> {
    let mut columns: Vec<usize> = stream.experiences[..experiences]
        .iter()
        .flat_map(|e| {
            let start = head_of(stream, e.task);
            e.outputs.iter().map(move |o| start + *o as usize)
        })
        .collect();
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// The heads trained in the first `experiences` experiences.
pub fn seen_heads(stream: &Stream, experiences: usize) -> Vec<usize> {
    let mut heads: Vec<usize> = stream.experiences[..experiences]
        .iter()
        .map(|e| e.task)
        .collect();
    heads.sort_unstable();
    heads.dedup();
    heads
}

fn head_of(stream: &Stream, task: usize) -> usize {
    match stream.scenario {
        Scenario::Task => task * stream.classes,
        Scenario::Domain | Scenario::Class => 0,
    }
}

/// The output column of an item.
pub fn column(stream: &Stream, item: &Item) -> u32 {
    head_of(stream, usize::from(item.task)) as u32 + item.label
}

/// An experience that was just trained, for those who measure what mattered in it.
pub struct Seen<'a> {
    /// The stream.
    pub stream: &'a Arc<Stream>,
    /// Which experience.
    pub experience: usize,
    /// What competes in its rows.
    pub class_sets: &'a ClassSets,
    /// A key for draws made at the experience's end.
    pub key: Key,
}

impl Seen<'_> {
    /// The experience's training examples.
    pub fn train(&self) -> &[Item] {
        &self.stream.experiences[self.experience].train
    }

    /// A keyed sample of `n` of them (0: all), in stream order.
    pub fn sample(&self, n: usize) -> Vec<Item> {
        let mut items = self.train().to_vec();
        if n > 0 && n < items.len() {
            let key = self.key.sub("sample");
            let mut draws: Vec<u64> = items.iter().map(|i| key.draw(i.id.mix())).collect();
            let limit = *draws.select_nth_unstable(n - 1).1;
            items.retain(|i| key.draw(i.id.mix()) <= limit);
        }
        items
    }

    /// Training examples as one batch on the support `new`.
    pub fn batch(&self, model: &Model, items: &[Item]) -> Batch {
        let mut collect = Collect::default();
        collect.support("new");
        collect.items(self.stream, items, self.class_sets);
        collect.finish(model, &self.class_sets.sets, outputs(self.stream))
    }
}

/// Refuses a stream with an empty experience.
pub(crate) fn check(stream: &Stream) -> Result<()> {
    match stream.experiences.iter().find(|e| e.train.is_empty()) {
        Some(e) => Err(Error::EmptyExperience {
            index: e.index,
            name: e.name.clone(),
        }),
        None => Ok(()),
    }
}
