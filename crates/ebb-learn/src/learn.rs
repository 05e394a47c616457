//! The loop.

use crate::batch::{Batch, Collect};
use crate::error::{Error, Result};
use crate::evaluate::{Outcome, evaluate, outcome};
use crate::objective::{asks, objective, remembering};
use crate::oracle::PassResult;
use crate::penalty::Stepped;
use crate::plugin::{Plugin, Scene};
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::recorder::Recorder;
use crate::replay::Offered;
use crate::schedule::Place;
use crate::seen::{ClassSets, Seen, outputs};
use crate::session::Session;
use crate::spec::{DataPlan, EndsSpec, LossClasses};
use crate::update::StepContext;
use ebb_data::{Item, Part};
use ebb_net::Model;
use ebb_record::{
    Answers, Artifact, Column, Consolidate, Cost, Draft, Eval, ExperienceInfo, Exposure, Keep,
    Note, Record, RunDir, RunView, Start, State, Step, Summary, Verb,
};
use ebb_space::{ExampleId, Objective, Reference, Weights};
use std::borrow::Cow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What surrounds a run.
pub struct Around<'a> {
    /// Where data is kept.
    pub data_dir: &'a Path,
    /// Who watches.
    pub progress: &'a mut dyn Progress,
    /// Set by whoever wants the run to save and stop.
    pub stop: &'a AtomicBool,
}

/// Runs a recipe, into a new run directory or (without one) in memory.
///
/// # Errors
/// When the recipe does not fit its data, training diverges, or the directory cannot be written.
pub fn learn(recipe: &Recipe, out: Option<&Path>, around: &mut Around) -> Result<Summary> {
    let session = Session::new(recipe, around.data_dir)?;
    learn_session(session, out, around)
}

/// Runs a session that is already built.
///
/// # Errors
/// As [`learn`].
pub fn learn_session(session: Session, out: Option<&Path>, around: &mut Around) -> Result<Summary> {
    learn_keeping(session, out, around).map(|(summary, _)| summary)
}

/// The same; the session comes back as it was at the end, for those who look into the model, the
/// memory or the forgetting events.
///
/// # Errors
/// As [`learn`].
pub fn learn_keeping(
    session: Session,
    out: Option<&Path>,
    around: &mut Around,
) -> Result<(Summary, Session)> {
    match out {
        None => begin(session, Recorder::in_memory(), "memory", around),
        Some(path) => {
            let environment = ebb_record::Environment::collect(versions(), threads());
            let dir = RunDir::create(path, session.recipe.text(), &environment)?;
            let recorder = Recorder::to_directory(dir)?;
            begin(session, recorder, &name_of(path), around)
        }
    }
}

/// Runs a session into a directory that was just created for it.
///
/// # Errors
/// As [`learn`].
pub fn learn_into(session: Session, dir: RunDir, around: &mut Around) -> Result<Summary> {
    let name = name_of(dir.root());
    let recorder = Recorder::to_directory(dir)?;
    begin(session, recorder, &name, around).map(|(summary, _)| summary)
}

/// Runs a session into a directory that was just created for it, beginning behind states of the run in
/// `from`: ends of experiences, in their order, that are what this recipe would have come to itself.
/// They become states of this run, measured on its own test sets. Where the two runs do not even begin
/// with the same weights, nothing is taken over.
///
/// # Errors
/// As [`learn`], and when the other run or its states cannot be read.
pub fn learn_from(
    session: Session,
    dir: RunDir,
    from: &Path,
    states: &[String],
    around: &mut Around,
) -> Result<Summary> {
    let name = name_of(dir.root());
    let other = RunView::load(from)?;
    let (records, kept) = (other.records()?, other.states()?);
    let mut run = Run::new(session, Recorder::to_directory(dir)?);
    run.start(&name)?;
    if kept.chain().first().map(|s| &s.weights_hash) == run.recorder.head_hash().as_ref() {
        let mut records = records.iter();
        for id in states {
            let until = |r: &&Record| !matches!(r, Record::State(s) if s.id == *id);
            for record in records.by_ref().take_while(until) {
                if matches!(record, Record::Step(_) | Record::Consolidate(_)) {
                    run.recorder.add(record.clone())?;
                }
            }
            run.adopt(&kept.checkout(id)?)?;
        }
    }
    run.go(around).map(|(summary, _)| summary)
}

/// Makes the model of a session, as something other than training left it, the one state of a run in a
/// directory that was just created for it, measured on every test set. All that the session's stream
/// would learn is said to have reached it.
///
/// # Errors
/// When the directory cannot be written.
pub fn found(mut session: Session, dir: RunDir, verb: Verb) -> Result<Summary> {
    let name = name_of(dir.root());
    let experiences = session.stream.experiences.len();
    session.position.experience = experiences;
    let mut run = Run::new(session, Recorder::to_directory(dir)?);
    (run.recorder).add(Record::Start(describe(&run.s, &name)))?;
    run.columns(experiences as i32 - 1)?;
    run.close()?;
    let last = experiences - 1;
    let stream = run.s.stream.clone();
    let ids: Vec<ExampleId> = stream.train_items().map(|i| i.id).collect();
    run.recorder.segment(last, || ids)?;
    run.commit(verb, Some(last), true)?;
    run.recorder.finish()
}

fn begin(
    session: Session,
    recorder: Recorder,
    name: &str,
    around: &mut Around,
) -> Result<(Summary, Session)> {
    let mut run = Run::new(session, recorder);
    run.start(name)?;
    run.go(around)
}

/// Goes on with a run that was stopped or killed, to the bits it would have come to.
///
/// # Errors
/// When the directory is no run or is damaged, or as [`learn`].
pub fn resume(path: &Path, around: &mut Around) -> Result<Summary> {
    resume_into(RunDir::open(path)?, around)
}

/// The same in a directory that is already open.
///
/// # Errors
/// As [`resume`].
pub fn resume_into(dir: RunDir, around: &mut Around) -> Result<Summary> {
    let recipe = Recipe::parse(&dir.recipe()?, &[])?;
    let mut session = Session::new(&recipe, around.data_dir)?;
    let head = dir.states().head().map(|s| s.id.clone());
    let Some(id) = head else {
        return learn_into(session, dir, around);
    };
    session.restore(&dir.states().checkout(&id)?)?;
    let run = Run::new(session, Recorder::to_directory(dir)?);
    run.go(around).map(|(summary, _)| summary)
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map_or_else(|| "run".into(), |n| n.to_string_lossy().into_owned())
}

/// Versions written into `environment.json`.
fn versions() -> std::collections::BTreeMap<String, String> {
    [
        ("ebbinghaus", env!("CARGO_PKG_VERSION")),
        ("engine", "burn 0.22.1 (flex)"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into()
}

fn threads() -> usize {
    rayon::current_num_threads()
}

/// One row's origin in a pass over an experience.
#[derive(Clone, Copy)]
enum Source {
    New(u32),
    Remembered(u32),
}

/// The experience under way.
#[derive(Clone, Copy)]
struct At<'a> {
    index: usize,
    steps: u64,
    total: u64,
    sets: &'a ClassSets,
    objective: &'a Objective,
    remembering: &'a Objective,
}

/// Lets every plugin act.
fn plugins(
    s: &mut Session,
    at: &At,
    lr: f64,
    mut act: impl FnMut(&mut dyn Plugin, &mut Scene) -> Result<()>,
) -> Result<()> {
    let mut scene = Scene {
        oracle: &mut s.oracle,
        optimizer: &mut s.optimizer,
        replay: s.replay.as_mut(),
        frozen: &mut s.frozen,
        stream: &s.stream,
        recipe: s.recipe.file(),
        class_sets: at.sets,
        objective: at.objective,
        remembering: at.remembering,
        experience: at.index,
        step: s.position.step,
        in_experience: s.position.in_experience,
        steps: at.steps,
        total: at.total,
        lr,
        tokenizer: s.speech.as_ref().map(|s| &s.tokenizer),
        key: s.key.sub("plugin"),
    };
    s.plugins
        .iter_mut()
        .try_for_each(|p| act(p.as_mut(), &mut scene))
}

/// A session at work.
struct Run {
    s: Session,
    recorder: Recorder,
    gradient: Weights,
    task_gradient: Option<Weights>,
    theta: Option<Weights>,
    after: Option<Weights>,
    sitting: Instant,
    train_seconds: f64,
}

impl Run {
    fn new(s: Session, recorder: Recorder) -> Self {
        let gradient = Weights::zeros(s.oracle.model.layout());
        let scratch = |wanted: bool| wanted.then(|| gradient.zeros_like());
        let observed = s.penalties.iter().any(|p| p.observes());
        Self {
            task_gradient: scratch(observed),
            theta: scratch(!s.penalties.is_empty()),
            after: scratch(observed),
            gradient,
            train_seconds: s.earlier.1,
            s,
            recorder,
            sitting: Instant::now(),
        }
    }

    fn seconds(&self) -> f64 {
        self.s.earlier.0 + self.sitting.elapsed().as_secs_f64()
    }

    /// What is written once, before the first step: what the run is, and what chance gives.
    fn start(&mut self, name: &str) -> Result<()> {
        self.recorder.add(Record::Start(describe(&self.s, name)))?;
        if self.evaluates_each() {
            self.columns(-1)?;
        }
        self.commit(Verb::Start, None, true)
    }

    /// Takes the end of an experience over from another run.
    fn adopt(&mut self, state: &State) -> Result<()> {
        self.s.adopt(state)?;
        self.train_seconds = self.s.earlier.1;
        let experience = state.meta().experience;
        if let Some(index) = experience.filter(|_| self.evaluates_each()) {
            self.columns(index as i32)?;
        }
        self.commit(Verb::Learn, experience, true)
    }

    /// The whole loop.
    fn go(mut self, around: &mut Around) -> Result<(Summary, Session)> {
        let experiences = self.s.stream.experiences.len();
        let total: u64 = (0..experiences).map(|e| self.planned_steps(e)).sum();
        around
            .progress
            .begin(experiences, self.s.position.step, total);
        while self.s.position.experience < experiences {
            let index = self.s.position.experience;
            let done = self.experience(index, total, around);
            done.map_err(|error| self.diverged(error, index))?;
        }
        around.progress.end();
        Ok((self.recorder.finish()?, self.s))
    }

    fn experience(&mut self, index: usize, total: u64, around: &mut Around) -> Result<()> {
        let stream = self.s.stream.clone();
        if self.s.position.in_experience == 0 && self.trains_on_memory() {
            self.start_from_memory(index)?;
        }
        let steps = self.steps_of(index);
        around
            .progress
            .experience(index, &stream.experiences[index].name, steps);
        let train = self.s.recipe.file().train.clone();
        let sets = ClassSets::at(&stream, index, train.classes);
        if let Some(replay) = &mut self.s.replay {
            replay.class_sets = sets.clone();
            replay.since = self.s.position.step - self.s.position.in_experience;
        }
        let objective = objective(self.s.recipe.file(), &stream, index);
        let remembering = remembering();
        let at = At {
            index,
            steps,
            total,
            sets: &sets,
            objective: &objective,
            remembering: &remembering,
        };
        if self.s.position.in_experience == 0 {
            self.begin_experience(&at)?;
        }
        while self.s.position.in_experience < steps {
            let order = self.order(index);
            let size = self.s.new_rows(index);
            let batches = order.len().div_ceil(size);
            for rows in order.chunks(size).skip(self.s.position.batch) {
                if self.s.position.in_experience >= steps {
                    break;
                }
                let s = self.s.position;
                let factor = train.schedule.at(Place {
                    experience: index,
                    within: (s.in_experience, steps),
                    overall: (s.step, total),
                });
                let begun = Instant::now();
                let loss = self.step(&at, rows, train.lr * factor)?;
                self.train_seconds += begun.elapsed().as_secs_f64();
                if self.s.position.batch == batches {
                    self.s.position.epoch += 1;
                    self.s.position.batch = 0;
                }
                around.progress.step(self.s.position.step, loss, rows.len());
                self.watch(index)?;
                if around.stop.load(Ordering::Relaxed) {
                    self.commit(Verb::Learn, Some(index), false)?;
                    let run = self
                        .recorder
                        .run()
                        .map(|(r, _)| r.root().display().to_string());
                    return Err(Error::Interrupted {
                        step: self.s.position.step,
                        run: run.unwrap_or_default(),
                    });
                }
                if self
                    .s
                    .position
                    .step
                    .is_multiple_of(self.s.recipe.file().save.checkpoint_every)
                    && self.s.position.in_experience < steps
                {
                    self.commit(Verb::Learn, Some(index), false)?;
                }
            }
        }
        self.end_experience(&at, around)
    }

    /// One step: draw, differentiate, penalise, move, remember.
    fn step(&mut self, at: &At, rows: &[Source], lr: f64) -> Result<f64> {
        let At {
            index,
            objective,
            remembering,
            ..
        } = *at;
        let step = self.s.position.step;
        self.s.oracle.key = self.s.key.sub("step").at(step);
        let (new, mut batch) = self.batch(at, rows, lr)?;
        plugins(&mut self.s, at, lr, |p, scene| {
            p.before_step(scene, &mut batch)
        })?;
        let mut objective = Cow::Borrowed(objective);
        plugins(&mut self.s, at, lr, |p, scene| {
            p.reshape(scene, &batch, &mut objective)
        })?;
        let objective = objective.as_ref();
        let mut context = StepContext {
            oracle: &mut self.s.oracle,
            objective,
            remembering,
            batch: &batch,
            replay: self.s.replay.as_ref(),
            experience: index,
            step,
            lr,
        };
        let pass = self.s.update.gradient(&mut context, &mut self.gradient)?;
        let gradient = &mut self.gradient;
        plugins(&mut self.s, at, lr, |p, scene| {
            p.change_gradient(scene, &batch, &pass, gradient)
        })?;
        self.descend(lr)?;
        self.remember(index, &new, &pass)?;
        plugins(&mut self.s, at, lr, |p, scene| {
            p.after_step(scene, &batch, &pass)
        })?;
        if self.s.recipe.file().evaluate.forgetting_events {
            self.count_events(&batch, new.len(), &pass);
        }
        let position = &mut self.s.position;
        position.step += 1;
        position.in_experience += 1;
        position.batch += 1;
        self.log_step(index, &pass, objective, lr)?;
        Ok(pass.value.total)
    }

    /// Penalties, clipping, the optimizer, and what stays frozen.
    fn descend(&mut self, lr: f64) -> Result<()> {
        let observed = self.task_gradient.is_some();
        let pulled = self.s.penalties.iter().any(|p| p.active());
        if let Some(theta) = self.theta.as_mut().filter(|_| observed || pulled) {
            self.s.oracle.model.copy_weights(theta);
            if let Some(task) = &mut self.task_gradient {
                task.copy_from(&self.gradient);
            }
            for p in &self.s.penalties {
                p.add_gradient(theta, &mut self.gradient);
            }
        }
        if let Some(longest) = self.s.recipe.file().train.clip {
            let norm = self.gradient.norm();
            if norm > longest {
                self.gradient.scale((longest / norm) as f32);
            }
        }
        self.s
            .optimizer
            .step(&mut self.s.oracle.model, &self.gradient, lr);
        if let Some((mask, anchor)) = &self.s.frozen {
            let mut weights = self.s.oracle.model.weights();
            mask.restore(&mut weights, anchor);
            self.s.oracle.model.set_weights(&weights)?;
        }
        if let (Some(gradient), Some(before), Some(after)) =
            (&self.task_gradient, &self.theta, &mut self.after)
        {
            self.s.oracle.model.copy_weights(after);
            let stepped = Stepped {
                gradient,
                before,
                after,
            };
            self.s
                .penalties
                .iter_mut()
                .for_each(|p| p.observe(&stepped));
        }
        Ok(())
    }

    /// The rows of a step: new ones (and what is mixed into them), then every draw.
    fn batch(&mut self, at: &At, rows: &[Source], lr: f64) -> Result<(Vec<Item>, Batch)> {
        let (stream, sets) = (self.s.stream.clone(), at.sets);
        let train = &stream.experiences[at.index].train;
        let mut new = Vec::with_capacity(rows.len());
        let mut slots = Vec::new();
        for row in rows {
            match row {
                Source::New(i) => new.push(train[*i as usize]),
                Source::Remembered(slot) => slots.push(*slot),
            }
        }
        let mut collect = Collect::default();
        collect.support("new");
        collect.items(&stream, &new, sets);
        if let Some(replay) = &self.s.replay {
            if self.trains_on_memory() {
                replay.add_rows(&mut collect, &slots)?;
            } else if let Some(name) = replay.concatenated() {
                replay.add_slots(&mut collect, &format!("replay:{name}"), &slots)?;
            }
            let train = &self.s.recipe.file().train;
            replay.add_draws(&mut collect, self.s.position.step, train.batch)?;
        }
        plugins(&mut self.s, at, lr, |p, scene| {
            p.add_rows(scene, &new, &mut collect)
        })?;
        let outputs = outputs(&stream);
        let batch = match self.s.recipe.file().train.classes {
            LossClasses::Batch => {
                let mut present = vec![false; outputs];
                collect
                    .labels()
                    .iter()
                    .for_each(|l| present[*l as usize] = true);
                collect.all_in_set(0);
                collect.finish(&self.s.oracle.model, &[present], outputs)
            }
            _ => collect.finish(&self.s.oracle.model, &sets.sets, outputs),
        };
        Ok((new, batch))
    }

    /// Offers the new rows to a memory that is filled at each step.
    fn remember(&mut self, index: usize, new: &[Item], pass: &PassResult) -> Result<()> {
        let step = self.s.position.step;
        match &mut self.s.replay {
            Some(replay) if replay.fills_each_step() => {
                let outputs = outputs(&self.s.stream);
                replay.offer(&Offered {
                    stream: &self.s.stream,
                    items: new,
                    // Texts keep no logits.
                    logits: pass.logits.get(..new.len() * outputs).unwrap_or(&[]),
                    features: &pass.features,
                    experience: index,
                    step,
                })
            }
            _ => Ok(()),
        }
    }

    fn count_events(&mut self, batch: &Batch, new: usize, pass: &PassResult) {
        let outputs = outputs(&self.s.stream);
        let rows = pass.logits.chunks_exact(outputs).zip(&batch.ids);
        for ((z, id), label) in rows.zip(&batch.rows.labels).take(new) {
            let margin = ebb_record::margin(z, *label);
            let o: Outcome = outcome(z, *label as usize);
            self.s.events.observe(*id, o.correct, margin);
        }
    }

    /// Keyed order of a pass: new rows, and the memory repeated until it is about as large.
    fn order(&self, index: usize) -> Vec<Source> {
        let train: &[Item] = match self.trains_on_memory() {
            true => &[],
            false => &self.s.stream.experiences[index].train,
        };
        let key = self
            .s
            .key
            .sub("order")
            .at(index as u64)
            .at(self.s.position.epoch);
        let mut order: Vec<(u64, Source)> = train
            .iter()
            .enumerate()
            .map(|(i, item)| (key.draw(item.id.mix()), Source::New(i as u32)))
            .collect();
        let mixed = self
            .s
            .replay
            .as_ref()
            .filter(|r| r.concatenated().is_some() || self.trains_on_memory());
        if let Some(replay) = mixed.filter(|r| !r.memory.is_empty()) {
            for repeat in 0..replay.repeats(train.len()) as u64 {
                let key = key.sub("remembered").at(repeat);
                order.extend(
                    replay
                        .memory
                        .metas()
                        .iter()
                        .enumerate()
                        .map(|(slot, m)| (key.draw(m.id.mix()), Source::Remembered(slot as u32))),
                );
            }
        }
        order.sort_unstable_by_key(|(draw, source)| {
            let place = match source {
                Source::New(i) => u64::from(*i),
                Source::Remembered(slot) => (1 << 32) | u64::from(*slot),
            };
            (*draw, place)
        });
        order.into_iter().map(|(_, source)| source).collect()
    }

    fn evaluates_each(&self) -> bool {
        self.s.recipe.file().evaluate.ends == EndsSpec::Each
    }

    fn trains_on_memory(&self) -> bool {
        self.s.recipe.file().data == DataPlan::Memory
    }

    /// Fills the memory and puts a fresh network in the place of the old one.
    fn start_from_memory(&mut self, index: usize) -> Result<()> {
        self.fill_memory(index)?;
        let key = self.s.key.sub("initialise").at(index as u64);
        let network = self.s.oracle.model.network().clone();
        let fresh = Model::new(network, key, &self.s.oracle.model.device().clone());
        self.s.oracle.model = fresh;
        self.s.optimizer.reset();
        Ok(())
    }

    /// Steps of the experience under way, for what the memory really holds.
    fn steps_of(&self, index: usize) -> u64 {
        let held = self.s.replay.as_ref().map_or(0, |r| r.memory.len());
        self.steps_with(index, held)
    }

    /// Steps of an experience as far as the recipe and the stream tell: what the learning rate's
    /// course over the whole run goes by, so that it is the same after a resume.
    fn planned_steps(&self, index: usize) -> u64 {
        let upto = index + usize::from(self.trains_on_memory());
        let seen = &self.s.stream.experiences[..upto];
        let seen: usize = seen.iter().map(|e| e.train.len()).sum();
        let capacity = self.s.replay.as_ref().map(|r| r.memory.config().capacity);
        self.steps_with(index, seen.min(capacity.unwrap_or(0)))
    }

    fn steps_with(&self, index: usize, held: usize) -> u64 {
        let file = self.s.recipe.file();
        let train = &file.train;
        if file
            .start
            .as_ref()
            .is_some_and(|start| index < start.learnt)
        {
            return 0;
        }
        if let Some(steps) = train.steps {
            return steps;
        }
        let new = self.s.stream.experiences[index].train.len();
        let rows = match &self.s.replay {
            _ if self.trains_on_memory() => held,
            Some(r) if r.concatenated().is_some() => new + r.repeats(new) * held,
            _ => new,
        };
        rows.div_ceil(self.s.new_rows(index)) as u64 * train.epochs as u64
    }

    fn begin_experience(&mut self, at: &At) -> Result<()> {
        let index = at.index;
        if index > 0 {
            if self.s.recipe.file().train.reset_optimizer {
                self.s.optimizer.reset();
            }
            if index == 1 && !self.s.recipe.file().train.freeze.is_empty() {
                let mask = self.s.freeze_mask()?;
                self.s.frozen = Some((mask, self.s.oracle.model.weights()));
            }
        }
        let lr = self.s.recipe.file().train.lr;
        plugins(&mut self.s, at, lr, |p, scene| p.begin_experience(scene))?;
        self.panel(index)
    }

    /// Per-iteration evaluation on the fixed panel.
    fn watch(&mut self, index: usize) -> Result<()> {
        let every = self.s.recipe.file().evaluate.every;
        if every > 0 && self.s.position.in_experience.is_multiple_of(every) {
            self.panel(index)?;
        }
        Ok(())
    }

    fn panel(&mut self, index: usize) -> Result<()> {
        if self.s.panels.is_empty() {
            return Ok(());
        }
        let step = self.s.position.step;
        for set in self.seen_sets(index) {
            let items = &self.s.panels[set];
            let outcomes = evaluate(&mut self.s.oracle, &self.s.stream, items);
            let count = |o: &[Outcome]| o.iter().filter(|o| o.correct).count() as u64;
            let half = outcomes.len() / 2;
            self.recorder.add(Record::Eval(Eval {
                step,
                experience: index,
                set,
                correct: count(&outcomes),
                n: outcomes.len() as u64,
                half: Some((count(&outcomes[..half]), half as u64)),
            }))?;
        }
        Ok(())
    }

    /// Test sets with training examples in the experiences up to `index`.
    fn seen_sets(&self, index: usize) -> Vec<usize> {
        (0..self.s.stream.evals.len())
            .filter(|set| {
                self.s.stream.experiences[..=index]
                    .iter()
                    .any(|e| e.origins[*set] > 0)
            })
            .collect()
    }

    fn end_experience(&mut self, at: &At, around: &mut Around) -> Result<()> {
        let At { index, sets, .. } = *at;
        let last = index + 1 == self.s.stream.experiences.len();
        let begun = Instant::now();
        if !self.trains_on_memory() {
            self.fill_memory(index)?;
        }
        let lr = self.s.recipe.file().train.lr;
        plugins(&mut self.s, at, lr, |p, scene| p.end_experience(scene))?;
        let stream = self.s.stream.clone();
        let seen = Seen {
            stream: &stream,
            experience: index,
            class_sets: sets,
            key: self.s.key.sub("consolidate").at(index as u64),
        };
        let mut done: Vec<&str> = self.s.plugins.iter().map(|p| p.name()).collect();
        if !last {
            for p in &mut self.s.penalties {
                p.end_of_experience(&mut self.s.oracle, &seen)?;
                done.push(p.name());
            }
            let key = self.s.key.sub("adapter").at(index as u64 + 1);
            if self.steps_of(index) > 0 && self.s.oracle.model.turn_adapter(key)? {
                // Its moments were those of the adapter that is gone.
                self.s.optimizer.reset();
                done.push("adapter");
            }
            if self.wants_teacher() {
                self.s.oracle.freeze_teacher();
                done.push("teacher");
            }
        }
        self.train_seconds += begun.elapsed().as_secs_f64();
        self.recorder.add(Record::Consolidate(Consolidate {
            experience: index,
            step: self.s.position.step,
            what: done.join(", "),
            seconds: begun.elapsed().as_secs_f64(),
            bytes: self.s.method_bytes(),
        }))?;
        if last || self.evaluates_each() {
            let accuracies = self.columns(index as i32)?;
            let seen_sets = self.seen_sets(index);
            let mean = seen_sets.iter().map(|s| accuracies[*s]).sum::<f64>()
                / seen_sets.len().max(1) as f64;
            around.progress.column(index, &accuracies, mean);
        }
        self.s.position.experience += 1;
        self.s.position.epoch = 0;
        self.s.position.batch = 0;
        self.s.position.in_experience = 0;
        if last {
            self.close()?;
        }
        self.commit(Verb::Learn, Some(index), true)
    }

    /// Fills a memory that is filled after each experience.
    fn fill_memory(&mut self, index: usize) -> Result<()> {
        let Some(replay) = self
            .s
            .replay
            .as_mut()
            .filter(|r| r.fills_after_experience())
        else {
            return Ok(());
        };
        let train = self.s.stream.experiences[index].train.clone();
        let form = replay.memory.config().form;
        // Logits and features, where the memory keeps them, are those of the finished experience.
        let (mut logits, mut features) = (Vec::new(), Vec::new());
        if form.logits.is_some() || form.features.is_some() {
            for chunk in train.chunks(256) {
                let mut x = Vec::new();
                self.s.stream.gather(Part::Train, chunk, &mut x);
                let (z, f) = self.s.oracle.outputs(x, chunk.len());
                logits.extend(z);
                features.extend(f);
            }
        }
        replay.offer(&Offered {
            stream: &self.s.stream,
            items: &train,
            logits: &logits,
            features: &features,
            experience: index,
            step: self.s.position.step,
        })
    }

    fn wants_teacher(&self) -> bool {
        let terms = &self.s.recipe.file().term;
        terms.iter().any(|t| asks(t, Reference::Teacher))
    }

    /// Evaluates every test set whole; returns the accuracies.
    fn columns(&mut self, after: i32) -> Result<Vec<f64>> {
        let stream = self.s.stream.clone();
        let step = self.s.position.step;
        let mut accuracies = Vec::with_capacity(stream.evals.len());
        for (set, test) in stream.evals.iter().enumerate() {
            let outcomes = evaluate(&mut self.s.oracle, &stream, &test.items);
            let n = outcomes.len();
            let correct: Vec<bool> = outcomes.iter().map(|o| o.correct).collect();
            let right = correct.iter().filter(|c| **c).count();
            let loss: Vec<f32> = outcomes.iter().map(|o| o.loss).collect();
            self.recorder.add(Record::Column(Column {
                after,
                set,
                correct: right as u64,
                n: n as u64,
                loss: loss.iter().map(|l| f64::from(*l)).sum::<f64>() / n.max(1) as f64,
            }))?;
            if self.s.recipe.file().evaluate.outcomes {
                let ids: Vec<ExampleId> = test.items.iter().map(|i| i.id).collect();
                self.recorder
                    .outcomes(step, after, set, &ids, &loss, &correct)?;
            }
            if let Some(speech) = &self.s.speech
                && self.s.recipe.file().evaluate.answers > 0
            {
                let most = self.s.recipe.file().evaluate.answers;
                let judged = speech.answers(&mut self.s.oracle, &stream, &test.items, most)?;
                if !judged.is_empty() {
                    self.recorder
                        .add(Record::Answers(Answers { after, set, judged }))?;
                }
            }
            accuracies.push(right as f64 / n.max(1) as f64);
        }
        Ok(accuracies)
    }

    fn log_step(
        &mut self,
        index: usize,
        pass: &PassResult,
        objective: &Objective,
        lr: f64,
    ) -> Result<()> {
        let position = self.s.position;
        let every = match self.s.recipe.file().evaluate.every {
            0 => 100,
            n => n,
        };
        if position.step != 1 && !position.step.is_multiple_of(every) {
            return Ok(());
        }
        let terms = objective
            .terms
            .iter()
            .zip(&pass.value.terms)
            .map(|(t, v)| (t.name.clone(), *v))
            .chain(self.s.plugins.iter().flat_map(|p| p.readings()))
            .collect();
        let seconds = self.seconds();
        self.recorder.add(Record::Step(Step {
            step: position.step,
            experience: index,
            epoch: position.epoch as usize,
            loss: pass.value.total,
            terms,
            lr,
            seconds,
        }))
    }

    /// The last records of a run.
    fn close(&mut self) -> Result<()> {
        if self.s.recipe.file().evaluate.forgetting_events && !self.s.events.is_empty() {
            let histories = self.s.events.histories();
            let n = histories.len() as f64;
            let share = |test: &dyn Fn(&ebb_record::History) -> bool| {
                histories.iter().filter(|(_, h)| test(h)).count() as f64 / n
            };
            let values = [
                ("examples", n),
                ("unforgettable", share(&|h| h.unforgettable())),
                (
                    "mean count",
                    histories
                        .iter()
                        .map(|(_, h)| f64::from(h.count()))
                        .sum::<f64>()
                        / n,
                ),
            ];
            self.recorder.add(Record::Note(Note {
                step: self.s.position.step,
                name: "forgetting events".into(),
                values: values.map(|(k, v)| (k.to_owned(), v)).into(),
            }))?;
        }
        let meter = self.s.oracle.meter;
        let cost = Cost {
            train_seconds: Some(self.train_seconds),
            total_seconds: Some(self.seconds()),
            steps: Some(self.s.position.step),
            forward_rows: Some(meter.forward_rows),
            backward_rows: Some(meter.backward_rows),
            gradient_calls: Some(meter.gradient_calls),
            memory_bytes: Some(self.s.method_bytes()),
            peak_rss_bytes: ebb_record::peak_rss_bytes(),
        };
        self.recorder.add(Record::End(cost))
    }

    /// Makes the present a state of the run: weights, everything needed to go on, and which
    /// examples reached it.
    fn commit(&mut self, verb: Verb, experience: Option<usize>, milestone: bool) -> Result<()> {
        let (seconds, train_seconds) = (self.seconds(), self.train_seconds);
        let stream = self.s.stream.clone();
        let segment = match experience {
            Some(e) => self.recorder.segment(e, || {
                stream.experiences[e].train.iter().map(|i| i.id).collect()
            })?,
            None => None,
        };
        let Some((run, logs)) = self.recorder.run() else {
            return Ok(());
        };
        let draft = Draft {
            verb,
            step: self.s.position.step,
            experience,
            milestone,
        };
        let mut state = run.begin_state(draft, &self.s.oracle.model.weights())?;
        self.s.save(&mut state, seconds, train_seconds)?;
        if let Some(segment) = segment {
            let exposure = Exposure {
                experience,
                epochs: Some((0, self.s.position.epoch as u32)),
                part: !milestone,
            };
            let mut reached = vec![Artifact::State(state.id().to_owned())];
            if self.s.replay.is_some() {
                reached.push(Artifact::Memory("memory".into()));
            }
            if milestone {
                reached.extend(
                    self.s
                        .penalties
                        .iter()
                        .map(|p| p.name())
                        .chain(
                            (self.s.plugins.iter())
                                .filter(|p| p.bytes() > 0 && p.sources().is_none())
                                .map(|p| p.name()),
                        )
                        .map(|name| Artifact::Statistic(name.into())),
                );
            }
            for artifact in reached {
                logs.lineage.reach(artifact, &segment, exposure.clone())?;
            }
            for plugin in &self.s.plugins {
                let Some(ids) = plugin.sources() else {
                    continue;
                };
                let segment = logs.lineage.segment(ids)?;
                let own = Artifact::Statistic(plugin.name().into());
                for artifact in [Artifact::State(state.id().to_owned()), own] {
                    logs.lineage.reach(artifact, &segment, exposure.clone())?;
                }
            }
        }
        run.commit(state, logs)?;
        let save = &self.s.recipe.file().save;
        run.prune(Keep {
            last: save.keep,
            milestones: save.experience_ends,
        })?;
        Ok(())
    }

    /// A loss that is not finite, wherever it was found: in the step's own pass or in one that a
    /// plugin, a penalty or the memory made.
    fn diverged(&self, error: Error, experience: usize) -> Error {
        match error {
            Error::Space(ebb_space::Error::NotFinite { term, .. }) => Error::Diverged {
                step: self.s.position.step,
                experience,
                lr: self.s.recipe.file().train.lr,
                term,
            },
            other => other,
        }
    }
}

/// What a run is, for those who read its records.
fn describe(s: &Session, name: &str) -> Start {
    let stream = &s.stream;
    let file = s.recipe.file();
    let scenario = match stream.scenario {
        ebb_data::Scenario::Task => "task",
        ebb_data::Scenario::Domain => "domain",
        ebb_data::Scenario::Class => "class",
    };
    let kind = stream.spec.kind.map_or("split", ebb_data::Kind::name);
    let words = match file.language {
        Some(_) => "texts".to_owned(),
        None => format!("{kind} {}, {scenario}-incremental", stream.spec.dataset),
    };
    let network = match &file.network {
        ebb_net::NetworkSpec::Mlp { hidden, .. } => format!("MLP {hidden:?}"),
        ebb_net::NetworkSpec::Cnn { channels, .. } => format!("CNN {channels:?}"),
        ebb_net::NetworkSpec::Resnet18 { width, .. } => format!("ResNet-18 width {width}"),
        ebb_net::NetworkSpec::TaskMlp { hidden, .. } => format!("task MLP {hidden:?}"),
        ebb_net::NetworkSpec::KeyValue { books, keys, .. } => {
            format!("key-value bottleneck {books} x {keys}")
        }
        ebb_net::NetworkSpec::Decoder { width, layers, .. } => {
            format!("decoder {layers} x {width}")
        }
        ebb_net::NetworkSpec::Pretrained { model } => name_of(Path::new(model)),
    };
    let test: usize = stream.evals.iter().map(|e| e.items.len()).sum();
    let protocol = format!("{words}; {} test sets, {test} examples", stream.evals.len());
    let panel = file.evaluate.panel;
    Start {
        run: name.to_owned(),
        recipe_hash: s.recipe.hash(),
        recipe_id: s.recipe.group(),
        code_version: env!("CARGO_PKG_VERSION").to_owned(),
        seed: file.seed,
        method: s.recipe.label().to_owned(),
        panel_protocol: format!(
            "{words}; fixed panel of {panel} a test set, every {}",
            match file.evaluate.every {
                1 => "step".to_owned(),
                n => format!("{n} steps"),
            }
        ),
        stream: words,
        network,
        scenario: scenario.to_owned(),
        protocol,
        accepted: file.accept.clone(),
        experiences: stream
            .experiences
            .iter()
            .map(|e| ExperienceInfo {
                index: e.index,
                name: e.name.clone(),
                classes: e.classes.clone(),
                train: e.train.len(),
                test: e.test.len(),
                sets: Some((0..e.origins.len()).filter(|k| e.origins[*k] > 0).collect()),
            })
            .collect(),
        sets: stream.evals.iter().map(|e| e.name.clone()).collect(),
    }
}
