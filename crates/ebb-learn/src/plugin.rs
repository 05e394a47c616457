//! Plugins: parts of a method that act at the events of a run.
//!
//! Most methods are terms, draws, a penalty or an update, and need none. A plugin is for what
//! chooses rows with the help of gradients (MIR, GSS), makes rows itself (generative replay),
//! weighs them, answers in the network's place (nearest mean), or trains apart from the stream.
//! Events come in the order of [`Plugin`]'s methods; several plugins act in the recipe's order.

use crate::batch::{Batch, Collect};
use crate::error::{Error, Result};
use crate::optimizer::Optimizer;
use crate::oracle::{Oracle, PassResult};
use crate::replay::Replay;
use crate::seen::{ClassSets, outputs};
use crate::spec::RecipeFile;
use ebb_data::{Item, Part, Stream};
use ebb_hub::Tokenizer;
use ebb_space::{ExampleId, Key, Mask, Objective, Weights};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::sync::Arc;

/// What a plugin has at hand at an event.
pub struct Scene<'a> {
    /// Model, teacher and meter.
    pub oracle: &'a mut Oracle,
    /// The run's optimizer.
    pub optimizer: &'a mut Optimizer,
    /// The memory, if the recipe has one.
    pub replay: Option<&'a mut Replay>,
    /// What stays bit for bit as it is after each step, and how it is.
    pub frozen: &'a mut Option<(Mask, Weights)>,
    /// The stream.
    pub stream: &'a Arc<Stream>,
    /// The recipe.
    pub recipe: &'a RecipeFile,
    /// What competes in which rows.
    pub class_sets: &'a ClassSets,
    /// The objective of the experience.
    pub objective: &'a Objective,
    /// Cross-entropy alone, on every row of a batch.
    pub remembering: &'a Objective,
    /// The experience under way.
    pub experience: usize,
    /// Steps taken before this one, in the run.
    pub step: u64,
    /// The same in the experience.
    pub in_experience: u64,
    /// Steps of the experience.
    pub steps: u64,
    /// Steps of the run, as far as the recipe and the stream tell.
    pub total: u64,
    /// This step's learning rate (between steps, the recipe's).
    pub lr: f64,
    /// Text to tokens, where the run has a tokenizer.
    pub tokenizer: Option<&'a Tokenizer>,
    /// A key for the plugin's draws; make it of a purpose and a number, `sub` and `at`.
    pub key: Key,
}

impl Scene<'_> {
    /// The experience's training examples.
    pub fn train(&self) -> &[Item] {
        &self.stream.experiences[self.experience].train
    }

    /// A keyed sample of `n` texts (0: all) of the experiences before this one, as rows of signed
    /// ids.
    pub fn earlier_texts(&self, n: usize, key: Key) -> Vec<f32> {
        let before = &self.stream.experiences[..self.experience];
        let mut items: Vec<Item> = before
            .iter()
            .flat_map(|e| e.train.iter().copied())
            .collect();
        key.order(&mut items, |i| i.id.mix());
        items.truncate(if n == 0 { items.len() } else { n });
        let mut texts = Vec::new();
        self.stream.gather(Part::Train, &items, &mut texts);
        texts
    }

    /// Whether no experience follows.
    pub fn last(&self) -> bool {
        self.experience + 1 == self.stream.experiences.len()
    }

    /// Rows of a step that a setting gives; 0: as many as the batch.
    pub fn size(&self, set: usize) -> usize {
        match set {
            0 => self.recipe.train.batch,
            n => n,
        }
    }

    /// Training examples as one batch on the support `name`.
    pub fn batch_of(&self, name: &str, items: &[Item]) -> Batch {
        let mut collect = Collect::default();
        collect.support(name);
        collect.items(self.stream, items, self.class_sets);
        self.finish(collect)
    }

    /// Remembered records as one batch on the support `name`. Without a memory there are none.
    ///
    /// # Errors
    /// When the memory cannot be read.
    pub fn batch_of_slots(&self, name: &str, slots: &[u32]) -> Result<Batch> {
        let mut collect = Collect::default();
        collect.support(name);
        if let Some(replay) = &self.replay {
            replay.add_rows(&mut collect, slots)?;
        }
        Ok(self.finish(collect))
    }

    /// What was collected, as a batch.
    pub fn finish(&self, collect: Collect) -> Batch {
        collect.finish(
            &self.oracle.model,
            &self.class_sets.sets,
            outputs(self.stream),
        )
    }

    /// Freezes what `mask` names at the present weights, until the next call.
    pub fn freeze(&mut self, mask: Mask) {
        *self.frozen = Some((mask, self.oracle.model.weights()));
    }
}

/// What a plugin saves to go on exactly: named vectors and anything small.
#[derive(Default)]
pub struct Kept {
    /// Vectors by name. Names are parts of file names: letters, digits, `-` and `_`.
    pub vectors: Vec<(String, Weights)>,
    /// What is no vector of floats, by names of the same kind.
    pub bytes: Vec<(String, Vec<u8>)>,
    /// Anything small, as JSON.
    pub note: serde_json::Value,
}

impl Kept {
    /// Vectors and no note.
    pub fn vectors(vectors: Vec<(String, Weights)>) -> Self {
        Self {
            vectors,
            ..Self::default()
        }
    }

    /// The same with a note.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn with_note<T: Serialize>(mut self, note: &T) -> Result<Self> {
        self.note = serde_json::to_value(note).map_err(|e| unreadable(&e))?;
        Ok(self)
    }

    /// Takes out the vector called `name`.
    pub fn take(&mut self, name: &str) -> Option<Weights> {
        let at = self.vectors.iter().position(|(n, _)| n == name)?;
        Some(self.vectors.swap_remove(at).1)
    }

    /// Takes out the bytes called `name`.
    pub fn take_bytes(&mut self, name: &str) -> Option<Vec<u8>> {
        let at = self.bytes.iter().position(|(n, _)| n == name)?;
        Some(self.bytes.swap_remove(at).1)
    }

    /// The note.
    ///
    /// # Errors
    /// When it is not what the plugin writes.
    pub fn note<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_value(self.note.clone()).map_err(|e| unreadable(&e))
    }
}

/// What a state holds of a plugin is not of this network.
pub(crate) fn unfit(plugin: &str) -> Error {
    Error::Checkpoint {
        path: format!("what the plugin `{plugin}` kept").into(),
        reason: "it does not fit the recipe's network; start from a state before it".into(),
    }
}

fn unreadable(error: &serde_json::Error) -> Error {
    Error::Checkpoint {
        path: "a plugin's note".into(),
        reason: error.to_string(),
    }
}

/// A part of a method that acts at events. Every event has a default that does nothing.
pub trait Plugin: Send {
    /// Its name in records and lineage.
    fn name(&self) -> &'static str;

    /// Before the first step of an experience.
    ///
    /// # Errors
    /// When a pass fails; so for the events below.
    fn begin_experience(&mut self, _scene: &mut Scene) -> Result<()> {
        Ok(())
    }

    /// Adds rows to a step's batch, behind the new ones and the draws.
    ///
    /// # Errors
    /// When a pass fails or the memory cannot be read.
    fn add_rows(
        &mut self,
        _scene: &mut Scene,
        _new: &[Item],
        _collect: &mut Collect,
    ) -> Result<()> {
        Ok(())
    }

    /// Sees a step's batch before its gradient: sets weights, shifts and prototypes of its rows,
    /// or moves the model.
    ///
    /// # Errors
    /// When a pass fails.
    fn before_step(&mut self, _scene: &mut Scene, _batch: &mut Batch) -> Result<()> {
        Ok(())
    }

    /// Changes the objective of this step alone, once its batch stands: `to_mut` gives a copy of
    /// its own to it. [`Scene::objective`] stays that of the experience.
    ///
    /// # Errors
    /// When a pass fails.
    fn reshape(
        &mut self,
        _scene: &mut Scene,
        _batch: &Batch,
        _objective: &mut Cow<Objective>,
    ) -> Result<()> {
        Ok(())
    }

    /// Changes the gradient, before penalties, clipping and the optimizer.
    ///
    /// # Errors
    /// When a pass fails.
    fn change_gradient(
        &mut self,
        _scene: &mut Scene,
        _batch: &Batch,
        _pass: &PassResult,
        _gradient: &mut Weights,
    ) -> Result<()> {
        Ok(())
    }

    /// After the optimizer's step and the memory's offer.
    ///
    /// # Errors
    /// When a pass fails.
    fn after_step(&mut self, _scene: &mut Scene, _batch: &Batch, _pass: &PassResult) -> Result<()> {
        Ok(())
    }

    /// At the end of an experience, after the memory was filled and before penalties measure.
    ///
    /// # Errors
    /// When a pass fails.
    fn end_experience(&mut self, _scene: &mut Scene) -> Result<()> {
        Ok(())
    }

    /// Numbers of the step just taken, for its record.
    fn readings(&self) -> Vec<(String, f64)> {
        Vec::new()
    }

    /// The examples it keeps something of and trains on, where these are not the experiences'.
    fn sources(&self) -> Option<&[ExampleId]> {
        None
    }

    /// What it saves.
    ///
    /// # Errors
    /// When its note cannot be written.
    fn keep(&self) -> Result<Kept> {
        Ok(Kept::default())
    }

    /// Puts back what [`Plugin::keep`] saved; what it installed in the oracle too.
    ///
    /// # Errors
    /// When something is missing.
    fn restore(&mut self, _kept: Kept, _oracle: &mut Oracle) -> Result<()> {
        Ok(())
    }

    /// Bytes it keeps between steps.
    fn bytes(&self) -> u64 {
        0
    }
}
