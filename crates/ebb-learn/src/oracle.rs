//! The gradient oracle: the gradient of any objective on any batch at any weights, with its
//! cost counted.
//!
//! A plain step makes one call; GEM, refresh learning or relearning attacks compose several.
//! Penalties and projections work on the returned weights, outside the graph.

use crate::batch::Batch;
use crate::error::{Error, Result};
use burn::tensor::{Gradients, Tensor, TensorData};
use ebb_kernels::{seed, slices};
use ebb_net::{Mode, Model, Output, Taps};
use ebb_space::{
    Bands, CarrierGrads, Inputs, Key, Objective, ObjectiveValue, References, View, Weights,
};
use serde::{Deserialize, Serialize};

/// What was computed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    /// Calls of the oracle.
    pub gradient_calls: u64,
    /// Rows through a forward pass, evaluation not counted.
    pub forward_rows: u64,
    /// Rows through a backward pass.
    pub backward_rows: u64,
}

/// What a call of the oracle yields besides the gradient.
pub struct PassResult {
    /// The objective's value, whole and by term.
    pub value: ObjectiveValue,
    /// `[rows, outputs]`, at the weights the gradient was taken at; empty for texts, and where the
    /// pass went in parts or was checkpointed.
    pub logits: Vec<f32>,
    /// `[rows, width]`, at the same weights; empty where no term looks at them.
    pub features: Vec<f32>,
}

/// A teacher's logits and features, where an objective asks for them.
type Taught = (Option<Vec<f32>>, Option<Vec<f32>>);

/// Classifies by features: nearest class mean, a posterior over classes.
pub trait Readout: Send {
    /// A score (log-probability up to a constant) for each row and output, `[rows, outputs]`, of
    /// `features`, `[rows, width]`. Outputs it knows nothing of get the least score there is,
    /// `f32::MIN`.
    fn scores(&self, features: &[f32], rows: usize, outputs: usize) -> Vec<f32>;
}

/// Changes an activation on its way whenever the model is asked to classify: what a method stores
/// and replays in another form than the network makes it.
pub trait Passage: Send {
    /// The tap it stands at.
    fn tap(&self) -> &str;

    /// Changes `rows` rows of activations.
    fn through(&self, activations: &mut [f32], rows: usize);
}

/// A model that answers with gradients.
pub struct Oracle {
    /// The model being trained.
    pub model: Model,
    /// The frozen model that distillation asks, if any.
    pub teacher: Option<Model>,
    /// What was computed so far.
    pub meter: Meter,
    /// What answers in the place of the logits when the model is asked to classify, if anything.
    pub readout: Option<Box<dyn Readout>>,
    /// Whether the teacher's logits are added to the model's when it is asked to classify.
    pub answers_with_teacher: bool,
    /// What stands inside the model when it is asked to classify, if anything.
    pub passage: Option<Box<dyn Passage>>,
    /// The key of this step's draws (dropout).
    pub key: Key,
    grads: CarrierGrads,
    /// The gradient of a part of a batch, kept from step to step.
    part: Option<Weights>,
    /// Examples in one pass of a gradient; none: all.
    micro_batch: Option<usize>,
    /// Whether the inputs of blocks alone are kept.
    checkpoint: bool,
}

impl Oracle {
    /// An oracle for `model`.
    pub fn new(model: Model, key: Key) -> Self {
        Self {
            model,
            teacher: None,
            readout: None,
            answers_with_teacher: false,
            passage: None,
            meter: Meter::default(),
            key,
            grads: CarrierGrads::default(),
            part: None,
            micro_batch: None,
            checkpoint: false,
        }
    }

    /// The same, whose gradients go through examples in parts of this size, and keep the inputs of
    /// blocks alone.
    pub fn in_parts(mut self, micro_batch: Option<usize>, checkpoint: bool) -> Self {
        (self.micro_batch, self.checkpoint) = (micro_batch, checkpoint);
        self
    }

    /// The gradient of `objective` on `batch`, at the model's weights or at `at`, written into
    /// `into`.
    ///
    /// # Errors
    /// When the objective cannot be evaluated on this batch, or is not finite.
    pub fn gradient(
        &mut self,
        objective: &Objective,
        batch: &Batch,
        at: Option<&Weights>,
        into: &mut Weights,
    ) -> Result<PassResult> {
        if let Some(size) = self.micro_batch.filter(|size| *size < batch.ids.len()) {
            return self.gradient_in_parts(objective, batch, at, size, into);
        }
        if self.checkpoint && at.is_none() && batch.entry.is_none() {
            return self.gradient_checkpointed(objective, batch, into);
        }
        let ids: Vec<u64> = batch.rows.ids.iter().map(|id| id.example).collect();
        let mode = Mode::Train {
            key: self.key,
            rows: &ids,
        };
        let (pass, _, _) = self.pass(objective, batch, at, mode, batch.taps(), into)?;
        Ok(pass)
    }

    /// The same by examples in parts of `size`. A part's means are over its own rows, so each of
    /// its terms is weighed by the share of rows that the part has of it.
    fn gradient_in_parts(
        &mut self,
        objective: &Objective,
        batch: &Batch,
        at: Option<&Weights>,
        size: usize,
        into: &mut Weights,
    ) -> Result<PassResult> {
        let n = batch.ids.len();
        let whole = objective.counts(&batch.rows);
        let mut gradient = self.part.take().unwrap_or_else(|| into.zeros_like());
        let mut all = PassResult {
            value: ObjectiveValue {
                total: 0.0,
                terms: vec![0.0; objective.terms.len()],
                row_loss: Vec::with_capacity(batch.rows.len()),
            },
            logits: Vec::new(),
            features: Vec::new(),
        };
        into.as_mut_slice().fill(0.0);
        for start in (0..n).step_by(size) {
            let part = batch.part(start..(start + size).min(n));
            let mut shared = objective.clone();
            let counts = objective.counts(&part.rows);
            for ((term, part), whole) in shared.terms.iter_mut().zip(counts).zip(&whole) {
                term.weight *= part as f64 / (*whole).max(1) as f64;
            }
            // A part of the size is one pass.
            let pass = self.gradient(&shared, &part, at, &mut gradient)?;
            into.axpy(1.0, &gradient);
            all.value.total += pass.value.total;
            let terms = all.value.terms.iter_mut().zip(pass.value.terms);
            terms.for_each(|(sum, value)| *sum += value);
            all.value.row_loss.extend(pass.value.row_loss);
        }
        self.part = Some(gradient);
        Ok(all)
    }

    /// The same with the activations of one block at a time.
    fn gradient_checkpointed(
        &mut self,
        objective: &Objective,
        batch: &Batch,
        into: &mut Weights,
    ) -> Result<PassResult> {
        let rows = batch.rows.len();
        let wants_features = objective.uses_features();
        let taught = self.ask_teacher(objective, batch);
        let (grads, device) = (&mut self.grads, self.model.device().clone());
        let mut value = None;
        let mut seed = |out: &Output| {
            let ([_, outputs], [_, width]) = (out.logits.dims(), out.features.dims());
            let features = wants_features.then(|| slices::read(&out.features, <[f32]>::to_vec));
            let seen = features.as_deref();
            slices::read(&out.logits, |logits| {
                let inputs = inputs(batch, (logits, outputs), (seen, width), &taught)?;
                value = Some(objective.evaluate(&inputs, grads)?);
                Ok(())
            })?;
            let tensor = |data: Vec<f32>, cols: usize| {
                Tensor::<2>::from_data(TensorData::new(data, [rows, cols]), &device)
            };
            let by_features = grads.features.take().map(|g| tensor(g, width));
            let by_logits = std::mem::take(&mut grads.logits);
            Ok((tensor(by_logits, outputs), by_features))
        };
        let seeded = self.model.checkpointed(batch.x.clone(), &mut seed, into);
        let (Some(seeded), Some(value)) = (seeded, value) else {
            return Err(Error::Recipe {
                reason: "`train.checkpoint` needs a network of blocks: leave it out".into(),
            });
        };
        seeded?;
        // The way up is gone twice.
        self.meter.forward_rows += rows as u64;
        self.count(rows);
        Ok(PassResult {
            value,
            logits: Vec::new(),
            features: Vec::new(),
        })
    }

    fn pass(
        &mut self,
        objective: &Objective,
        batch: &Batch,
        at: Option<&Weights>,
        mode: Mode,
        mut taps: Taps,
        into: &mut Weights,
    ) -> Result<(PassResult, Taps, Gradients)> {
        let rows = batch.rows.len();
        let wants_features = objective.uses_features();
        let taught = self.ask_teacher(objective, batch);
        let leaves = self.model.leaves(at);
        let out = self
            .model
            .forward_tracked(&leaves, batch.x.clone(), mode, &mut taps);
        let [_, outputs] = out.logits.dims();
        let [_, width] = out.features.dims();
        // Nobody keeps those of texts, which are many.
        let keeps = !self.model.network().tokens();
        let features = wants_features.then(|| slices::read(&out.features, <[f32]>::to_vec));
        let seen = features.as_deref();
        let (value, logits) = slices::read(&out.logits, |z| {
            let inputs = inputs(batch, (z, outputs), (seen, width), &taught)?;
            let value = objective.evaluate(&inputs, &mut self.grads)?;
            Ok::<_, Error>((value, if keeps { z.to_vec() } else { Vec::new() }))
        })?;
        let tensor = |data: Vec<f32>, cols: usize| {
            Tensor::<2>::from_data(TensorData::new(data, [rows, cols]), self.model.device())
        };
        let by_logits = std::mem::take(&mut self.grads.logits);
        let mut root = seed(out.logits, tensor(by_logits, outputs));
        if wants_features && let Some(g) = self.grads.features.take() {
            root = root + seed(out.features, tensor(g, width));
        }
        let mut gradients = root.backward();
        leaves.collect(&mut gradients, into);
        self.count(rows);
        let pass = PassResult {
            value,
            logits,
            features: features.unwrap_or_default(),
        };
        Ok((pass, taps, gradients))
    }

    fn count(&mut self, rows: usize) {
        self.meter.gradient_calls += 1;
        self.meter.forward_rows += rows as u64;
        self.meter.backward_rows += rows as u64;
    }

    /// The gradient of `objective` by the inputs of `batch`, `[rows, inputs]`, with the one by
    /// the weights in `into`; in evaluation mode, so that rows do not act on each other.
    ///
    /// # Errors
    /// As [`Oracle::gradient`], and in a network without a tap at its input.
    pub fn input_gradient(
        &mut self,
        objective: &Objective,
        batch: &Batch,
        into: &mut Weights,
    ) -> Result<(PassResult, Vec<f32>)> {
        let named = self.model.network().taps();
        let first = named.first().filter(|name| name.ends_with(".in"));
        let input = named.iter().find(|name| *name == "input").or(first);
        let input = input.ok_or_else(|| Error::Recipe {
            reason: "this network gives no gradient by its inputs, which the method needs; use \
                     an MLP or a plain CNN"
                .into(),
        })?;
        let taps = batch.taps().differentiate(input);
        let (pass, taps, mut gradients) =
            self.pass(objective, batch, None, Mode::Eval, taps, into)?;
        let width = self.model.network().inputs();
        let by_input = taps.gradient(input, &mut gradients).map_or_else(
            || vec![0.0; batch.rows.len() * width],
            |g| slices::to_vec(&g),
        );
        Ok((pass, by_input))
    }

    /// The activations at `taps` and the gradient of `objective` by them, `[rows, everything else]`
    /// each, in evaluation mode; the gradient by the weights comes into `into`.
    ///
    /// # Errors
    /// As [`Oracle::gradient`], and when the network has no such tap.
    pub fn tapped_gradients(
        &mut self,
        objective: &Objective,
        batch: &Batch,
        taps: &[String],
        into: &mut Weights,
    ) -> Result<Vec<(Vec<f32>, Vec<f32>)>> {
        let wanted = taps.iter().fold(batch.taps(), |wanted, name| {
            wanted.read(name).differentiate(name)
        });
        let (_, found, mut gradients) =
            self.pass(objective, batch, None, Mode::Eval, wanted, into)?;
        let both = |name: &String| {
            let values = found.value(name).map(slices::to_vec);
            let values = values.ok_or_else(|| no_such_tap(name, &self.model))?;
            // What the objective does not hang on has no gradient.
            let by = found.gradient(name, &mut gradients);
            let by = by.map_or_else(|| vec![0.0; values.len()], |g| slices::to_vec(&g));
            Ok((values, by))
        };
        taps.iter().map(both).collect()
    }

    /// The gradient of a function of a batch's logits, in evaluation mode: `f` gets the logits,
    /// `[rows, outputs]`, and gives its derivative by them.
    pub fn pull_back(
        &mut self,
        batch: &Batch,
        f: impl FnOnce(&[f32]) -> Vec<f32>,
        into: &mut Weights,
    ) {
        self.pull_back_by(batch, |out| out.logits, f, into);
    }

    /// The same for a function of the features, `[rows, width]`.
    pub fn pull_back_features(
        &mut self,
        batch: &Batch,
        f: impl FnOnce(&[f32]) -> Vec<f32>,
        into: &mut Weights,
    ) {
        self.pull_back_by(batch, |out| out.features, f, into);
    }

    fn pull_back_by(
        &mut self,
        batch: &Batch,
        part: fn(Output) -> Tensor<2>,
        f: impl FnOnce(&[f32]) -> Vec<f32>,
        into: &mut Weights,
    ) {
        let leaves = self.model.leaves(None);
        let mut taps = batch.taps();
        let out = self
            .model
            .forward_tracked(&leaves, batch.x.clone(), Mode::Eval, &mut taps);
        let part = part(out);
        let [rows, width] = part.dims();
        let derivative = TensorData::new(slices::read(&part, f), [rows, width]);
        let derivative = Tensor::<2>::from_data(derivative, self.model.device());
        let mut gradients = seed(part, derivative).backward();
        leaves.collect(&mut gradients, into);
        self.count(rows);
    }

    /// Logits and features of a batch in evaluation mode and without a graph, at the model's
    /// weights.
    pub fn forward(&mut self, batch: &Batch) -> (Vec<f32>, Vec<f32>) {
        let out = self.model.forward(batch.x.clone(), &mut batch.taps());
        self.meter.forward_rows += batch.rows.len() as u64;
        (slices::to_vec(&out.logits), slices::to_vec(&out.features))
    }

    /// Lets `f` look at the logits of a batch, `[rows, outputs]`, in evaluation mode and without a
    /// graph, where they lie.
    pub fn look<R>(&mut self, batch: &Batch, f: impl FnOnce(&[f32]) -> R) -> R {
        let out = self.model.forward(batch.x.clone(), &mut batch.taps());
        self.meter.forward_rows += batch.rows.len() as u64;
        slices::read(&out.logits, f)
    }

    /// The value of `objective` on a batch, in evaluation mode and without a gradient, at the
    /// model's weights.
    ///
    /// # Errors
    /// As [`Oracle::gradient`].
    pub fn value(&mut self, objective: &Objective, batch: &Batch) -> Result<ObjectiveValue> {
        Ok(self.evaluate(objective, batch)?.value)
    }

    /// The same with the logits.
    ///
    /// # Errors
    /// As [`Oracle::gradient`].
    pub fn evaluate(&mut self, objective: &Objective, batch: &Batch) -> Result<PassResult> {
        let taught = self.ask_teacher(objective, batch);
        let (logits, features) = self.forward(batch);
        let outputs = self.model.network().outputs();
        let width = features.len() / batch.rows.len().max(1);
        let seen = Some(features.as_slice());
        let inputs = inputs(batch, (&logits, outputs), (seen, width), &taught)?;
        let value = objective.evaluate(&inputs, &mut self.grads)?;
        Ok(PassResult {
            value,
            logits,
            features,
        })
    }

    /// The teacher's logits of a batch, if there is a teacher.
    pub fn teacher_logits(&mut self, batch: &Batch) -> Option<Vec<f32>> {
        let out = (self.teacher.as_mut()?).forward(batch.x.clone(), &mut batch.taps());
        self.meter.forward_rows += batch.rows.len() as u64;
        Some(slices::to_vec(&out.logits))
    }

    fn ask_teacher(&mut self, objective: &Objective, batch: &Batch) -> Taught {
        let Some(teacher) = self.teacher.as_mut().filter(|_| objective.uses_teacher()) else {
            return (None, None);
        };
        let out = teacher.forward(batch.x.clone(), &mut batch.taps());
        self.meter.forward_rows += batch.rows.len() as u64;
        let features = objective
            .uses_features()
            .then(|| slices::to_vec(&out.features));
        (Some(slices::to_vec(&out.logits)), features)
    }

    /// Logits of `x` (`rows x inputs`), in evaluation mode and without a graph.
    pub fn logits(&mut self, x: Vec<f32>, rows: usize) -> Vec<f32> {
        let x = self.model.input(x, rows);
        slices::to_vec(&self.model.forward(x, &mut Taps::none()).logits)
    }

    /// Logits and features of `x` (`rows x inputs`), in evaluation mode and without a graph.
    pub fn outputs(&mut self, x: Vec<f32>, rows: usize) -> (Vec<f32>, Vec<f32>) {
        let x = self.model.input(x, rows);
        let out = self.model.forward(x, &mut Taps::none());
        (slices::to_vec(&out.logits), slices::to_vec(&out.features))
    }

    /// What the model answers to `x` (`rows x inputs`), a score an output: its logits, or what
    /// the readout makes of its features.
    pub fn answers(&mut self, x: Vec<f32>, rows: usize) -> Vec<f32> {
        let x = self.model.input(x, rows);
        let mut taps = Taps::none();
        if let Some(passage) = &self.passage {
            let mut read = Taps::none().read(passage.tap());
            self.model.forward(x.clone(), &mut read);
            if let Some(found) = read.value(passage.tap()) {
                let [rows, width] = found.dims();
                let mut values = slices::to_vec(found);
                passage.through(&mut values, rows);
                let values = TensorData::new(values, [rows, width]);
                let values = Tensor::from_data(values, self.model.device());
                taps = taps.replace(passage.tap(), values);
            }
        }
        let out = self.model.forward(x.clone(), &mut taps);
        match &self.readout {
            None => {
                let mut logits = slices::to_vec(&out.logits);
                if let Some(teacher) = self.teacher.as_mut().filter(|_| self.answers_with_teacher) {
                    let theirs = teacher.forward(x, &mut Taps::none()).logits;
                    let add = |t: &[f32]| logits.iter_mut().zip(t).for_each(|(z, t)| *z += t);
                    slices::read(&theirs, add);
                }
                logits
            }
            Some(readout) => {
                let [_, outputs] = out.logits.dims();
                slices::read(&out.features, |f| readout.scores(f, rows, outputs))
            }
        }
    }

    /// What `x` (`rows x inputs`) becomes at a tap, in evaluation mode, `[rows, everything else]`.
    ///
    /// # Errors
    /// When the network has no such tap.
    pub fn activations(&mut self, tap: &str, x: Vec<f32>, rows: usize) -> Result<Vec<f32>> {
        let mut taps = Taps::none().read(tap);
        let x = self.model.input(x, rows);
        self.model.forward(x, &mut taps);
        self.meter.forward_rows += rows as u64;
        match taps.value(tap) {
            Some(found) => Ok(slices::to_vec(found)),
            None => Err(no_such_tap(tap, &self.model)),
        }
    }

    /// Freezes a copy of the model as it is as the teacher.
    pub fn freeze_teacher(&mut self) {
        self.teacher = Some(self.model.clone());
    }
}

/// A recipe named a tap that the network does not have.
pub(crate) fn no_such_tap(tap: &str, model: &Model) -> Error {
    Error::Recipe {
        reason: format!(
            "the network has no activation called `{tap}`; it has {}",
            model.network().taps().join(", ")
        ),
    }
}

/// What an objective looks at: a batch with its logits and features, of these widths.
fn inputs<'a>(
    batch: &'a Batch,
    (logits, outputs): (&'a [f32], usize),
    (features, width): (Option<&'a [f32]>, usize),
    (teacher_logits, teacher_features): &'a Taught,
) -> ebb_space::Result<Inputs<'a>> {
    let rows = batch.rows.len();
    Ok(Inputs {
        rows: &batch.rows,
        logits: View::new(logits, rows, outputs)?,
        features: view(features, rows, width)?,
        references: References {
            stored_logits: view(batch.stored_logits.as_deref(), rows, outputs)?,
            stored_features: view(batch.stored_features.as_deref(), rows, width)?,
            teacher_logits: view(teacher_logits.as_deref(), rows, outputs)?,
            teacher_features: view(teacher_features.as_deref(), rows, width)?,
            prototypes: view(batch.prototypes.as_deref(), rows, width)?,
            row_weights: batch.row_weights.as_deref(),
            shifts: view(batch.shifts.as_deref(), rows, outputs)?,
            bands: (batch.bands.as_ref()).map(|(t, codes)| Bands::new(t, codes)),
            ..References::default()
        },
    })
}

fn view(data: Option<&[f32]>, rows: usize, cols: usize) -> ebb_space::Result<Option<View<'_>>> {
    data.map(|d| View::new(d, rows, cols)).transpose()
}
