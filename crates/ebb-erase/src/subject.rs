//! A trained model with what it was trained on, divided into what is to go and what is to stay.

use crate::error::{Error, Result};
use ebb_data::Item;
use ebb_learn::batch::{Batch, Collect};
use ebb_learn::oracle::PassResult;
use ebb_learn::seen::{ClassSets, outputs};
use ebb_learn::{Oracle, Recipe, Session};
use ebb_record::RunView;
use ebb_space::{ExampleId, Key, Objective, Weights};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// A model to erase from.
pub struct Subject<'a> {
    /// The model, as the run left it, and the stream that it learnt.
    pub session: Session,
    /// Training items to be forgotten, in the stream's order.
    pub forget: Vec<Item>,
    /// All others.
    pub retain: Vec<Item>,
    class_sets: ClassSets,
    /// The root of every draw.
    pub key: Key,
    stop: &'a AtomicBool,
}

/// Which items are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Those to be forgotten.
    Forget,
    /// All others that were trained on.
    Retain,
}

impl<'a> Subject<'a> {
    /// The model of the finished run in `path`, from which the records that `gone` tells shall be
    /// erased.
    ///
    /// # Errors
    /// [`Error::Run`] for a run that is not finished, in which no such record was learnt, or whose
    /// records all are such.
    pub fn open(
        path: &Path,
        gone: &dyn Fn(&ExampleId) -> bool,
        data_dir: &Path,
        stop: &'a AtomicBool,
    ) -> Result<Subject<'a>> {
        let wrong = |reason: &str| Error::Run {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let view = RunView::load(path)?;
        let recipe = Recipe::parse(&view.recipe, &[])?;
        let states = view.states()?;
        let head = states.head().map(|head| head.id.clone());
        let head = head.ok_or_else(|| wrong("it has no state yet: let it learn first"))?;
        let mut session = Session::new(&recipe, data_dir)?;
        session.restore(&states.checkout(&head)?)?;
        Subject::of(session, gone, stop).map_err(|error| match error {
            Error::Method { reason } => wrong(&reason),
            other => other,
        })
    }

    /// The same for a session that is there already.
    ///
    /// # Errors
    /// [`Error::Method`] where nothing is to be forgotten, or nothing stays.
    pub fn of(
        session: Session,
        gone: &dyn Fn(&ExampleId) -> bool,
        stop: &'a AtomicBool,
    ) -> Result<Subject<'a>> {
        let wrong = |reason: &str| Error::Method {
            reason: reason.to_owned(),
        };
        let experiences = session.stream.experiences.len();
        if session.position.experience < experiences {
            return Err(wrong("it is not finished: `ebb resume` it first"));
        }
        let (forget, retain): (Vec<Item>, Vec<Item>) = session
            .stream
            .train_items()
            .copied()
            .partition(|i| gone(&i.id));
        if forget.is_empty() {
            return Err(wrong("none of the records was learnt in it"));
        }
        if retain.is_empty() {
            return Err(wrong(
                "all that it learnt is to be forgotten: remove the run instead",
            ));
        }
        let classes = session.recipe.file().train.classes;
        let class_sets = ClassSets::at(&session.stream, experiences - 1, classes);
        let key = Key::new(session.recipe.file().seed, "erase");
        Ok(Subject {
            session,
            forget,
            retain,
            class_sets,
            key,
            stop,
        })
    }

    /// The oracle that answers with the model.
    pub fn oracle(&mut self) -> &mut Oracle {
        &mut self.session.oracle
    }

    /// The items of a part.
    pub fn items(&self, part: Part) -> &[Item] {
        match part {
            Part::Forget => &self.forget,
            Part::Retain => &self.retain,
        }
    }

    /// Training items as one batch.
    pub fn batch(&self, items: &[Item]) -> Batch {
        let mut collect = Collect::default();
        collect.support("all");
        collect.items(&self.session.stream, items, &self.class_sets);
        let model = &self.session.oracle.model;
        collect.finish(model, &self.class_sets.sets, outputs(&self.session.stream))
    }

    /// The gradient of an objective on training items, at the model's weights.
    ///
    /// # Errors
    /// When the objective is not finite on them.
    pub fn gradient(
        &mut self,
        objective: &Objective,
        items: &[Item],
        into: &mut Weights,
    ) -> Result<PassResult> {
        let batch = self.batch(items);
        Ok(self
            .session
            .oracle
            .gradient(objective, &batch, None, into)?)
    }

    /// `n` items of a part for a step: a keyed pass over all of it, then the next.
    pub fn draw(&self, part: Part, n: usize, step: u64) -> Vec<Item> {
        let all = self.items(part);
        let n = n.min(all.len());
        let batches = all.len().div_ceil(n.max(1)) as u64;
        let name = match part {
            Part::Forget => "forget",
            Part::Retain => "retain",
        };
        let mut order: Vec<&Item> = all.iter().collect();
        let key = self.key.sub(name).at(step / batches);
        key.order(&mut order, |item| item.id.mix());
        let from = (step % batches) as usize * n;
        let to = (from + n).min(all.len());
        order[from..to].iter().map(|item| **item).collect()
    }

    /// Whether the user wants the work to stop.
    ///
    /// # Errors
    /// [`Error::Stopped`] if so.
    pub fn go_on(&self) -> Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Error::Stopped),
            false => Ok(()),
        }
    }
}
