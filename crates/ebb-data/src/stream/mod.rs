//! Streams of experiences.

mod blurry;
mod build;
mod mixture;
mod origin;
mod power_law;
mod recurring;
mod resolve;
mod sample;
mod si_blurry;
mod spec;

use std::sync::Arc;

use crate::error::{Error, Result};
use ebb_space::ExampleId;
use serde::{Deserialize, Serialize};

pub use spec::{
    Angles, ClassOrder, CorruptionSpec, Kind, Mixture, NamedScale, Recency, Scale, SecondHalf,
    Skew, StreamSpec, TaskOrder,
};

use crate::dataset::Dataset;
use crate::transform::Transform;

/// What the network is told at test time (van de Ven & Tolias 2019).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// Which task it is: a head a task, labels counted within the task.
    Task,
    /// Nothing, and it need not find out: one head, labels counted within the task.
    Domain,
    /// Nothing, and it must tell all classes of all tasks apart: one head with all of them.
    Class,
}

/// Which of the two datasets of a stream a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// To learn from.
    Train,
    /// To measure on.
    Test,
}

/// One example as an experience shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its record in the dataset.
    pub row: u32,
    /// Its label as the network sees it: an output of its head.
    pub label: u32,
    /// Its head.
    pub task: u16,
    /// Its identity; `id.view` is the number of its transform in [`Stream::transforms`].
    pub id: ExampleId,
}

/// A stretch of the stream.
#[derive(Clone, Debug)]
pub struct Experience {
    /// Its number, from 0.
    pub index: usize,
    /// Its name for people.
    pub name: String,
    /// Its head. With blurry boundaries, rehearsal in the stream or a joint stream the items
    /// know better: each carries its own.
    pub task: usize,
    /// The dataset's classes among its training items, sorted.
    pub classes: Vec<u32>,
    /// The network's outputs (within a head) among its training items, sorted.
    pub outputs: Vec<u32>,
    /// What is learned from.
    pub train: Arc<[Item]>,
    /// What it is measured on. Of a recurring stream: all classes; see [`Stream::evals`].
    pub test: Arc<[Item]>,
    /// How many of the training items belong to each of [`Stream::evals`]: the actual counts of
    /// a mixed stream.
    pub origins: Vec<usize>,
}

/// A test set: a column of the accuracy matrix.
#[derive(Clone, Debug)]
pub struct EvalSet {
    /// Its name for people.
    pub name: String,
    /// Its head.
    pub task: usize,
    /// Its items, rows of the test dataset.
    pub items: Arc<[Item]>,
}

/// A built stream: two datasets and the experiences that refer to them.
#[derive(Clone, Debug)]
pub struct Stream {
    /// What it was built from, every default written out.
    pub spec: StreamSpec,
    /// The records to learn from.
    pub train: Arc<Dataset>,
    /// The records to measure on.
    pub test: Arc<Dataset>,
    /// What the network is told at test time.
    pub scenario: Scenario,
    /// In the order of learning.
    pub experiences: Vec<Experience>,
    /// Training examples that belong to no experience: what is replayed beside all of them.
    pub generic: Arc<[Item]>,
    /// The test sets. One an experience, in the same order, except: of a recurring stream one a
    /// class, of a joint stream one for each experience that was joined.
    pub evals: Vec<EvalSet>,
    /// The transforms by the view numbers of the items' ids.
    pub transforms: Vec<Transform>,
    /// Outputs of a head.
    pub classes: usize,
    /// Number of heads.
    pub heads: usize,
}

impl Stream {
    /// Channels, height and width of the network's input.
    pub fn shape(&self) -> [usize; 3] {
        self.transform_in_use().shape()
    }

    /// Number of values of the network's input.
    pub fn features(&self) -> usize {
        self.transform_in_use().features()
    }

    /// The stream as it would be had the records that `gone` tells never been in it: every other item
    /// stays where it is, and no other takes the place of one that is gone. Labels keep their numbers,
    /// also those of a class of which nothing is left.
    ///
    /// # Errors
    /// [`Error::EmptyExperience`] where nothing would be left to learn from or to measure on.
    pub fn without(mut self, gone: impl Fn(&ExampleId) -> bool) -> Result<Stream> {
        let left = |items: &Arc<[Item]>| -> Arc<[Item]> {
            match items.iter().any(|i| gone(&i.id)) {
                true => items.iter().filter(|i| !gone(&i.id)).copied().collect(),
                false => items.clone(),
            }
        };
        for e in &mut self.experiences {
            let (train, test) = (left(&e.train), left(&e.test));
            for (items, part) in [(&train, "training"), (&test, "test")] {
                if items.is_empty() {
                    return Err(Error::EmptyExperience {
                        index: e.index,
                        name: e.name.clone(),
                        part,
                        why: "all of its records are to be left out: leave the experience out of \
                              the recipe"
                            .into(),
                    });
                }
            }
            if train.len() < e.train.len() {
                let there = |values: &mut Vec<u32>, of: &dyn Fn(&Item) -> u32| {
                    values.retain(|v| train.iter().any(|i| of(i) == *v));
                };
                let labels = &self.train.labels;
                there(&mut e.classes, &|i| labels[i.row as usize]);
                there(&mut e.outputs, &|i| i.label);
            }
            (e.train, e.test) = (train, test);
        }
        self.generic = left(&self.generic);
        for (index, set) in self.evals.iter_mut().enumerate() {
            set.items = left(&set.items);
            if set.items.is_empty() {
                return Err(Error::EmptyExperience {
                    index,
                    name: set.name.clone(),
                    part: "test",
                    why: "all of its records are to be left out".into(),
                });
            }
        }
        Ok(self)
    }

    fn transform_in_use(&self) -> &Transform {
        // All transforms in use have one output shape: the builder asserts it.
        let view = self.evals[0].items[0].id.view;
        &self.transforms[view as usize]
    }

    /// Appends the network's input for `items`, row by row: `items.len() × features()` values.
    ///
    /// # Panics
    /// If an item does not belong to this stream.
    pub fn gather(&self, part: Part, items: &[Item], out: &mut Vec<f32>) {
        let dataset = match part {
            Part::Train => &self.train,
            Part::Test => &self.test,
        };
        out.reserve(items.len() * self.features());
        let mut scratch = Default::default();
        for item in items {
            let transform = &self.transforms[item.id.view as usize];
            transform.write(dataset, item.row as usize, &mut scratch, out);
        }
    }

    /// The training items of all experiences, in order.
    pub fn train_items(&self) -> impl Iterator<Item = &Item> {
        self.experiences
            .iter()
            .flat_map(|experience| experience.train.iter())
    }
}
