//! Layer scaling after training, for one model and for merges.
//!
//! **Source.** Wang et al., ICLR 2025 (card S153). A deep perceptron learns digits, and is then
//! fine-tuned three times from there: on inverted, turned and noisy digits, with its head frozen.
//! What was changed is scaled by depth, or merged. **What is measured**, a value a seed:
//!
//! | arm | factors of the change | measures |
//! |---|---|---|
//! | `start` | 0 | accuracy on the new digits (`target`) and the plain ones (`control`) |
//! | `tuned` | 1 | the same, as in the next four |
//! | `lines` | from α in the first layer to 1 in the last | |
//! | `default` | the same with α = 0, which needs no validation | |
//! | `uniform` | α everywhere | |
//! | `reversed` | from 1 in the first layer to α in the last | |
//! | `sum`, `ties` | one factor for the merge of all three | accuracy on all three (`merged`) and the plain digits |
//! | `sum_lines`, `ties_lines` | α by LiNeS's rule, to α + β in the last layer | the same |
//! | `sum_reversed`, `ties_reversed` | from α + β to α | the same |
//!
//! `target` and `control` are means over the three fine-tuned models. Each α is the one with the
//! best `control` among those that keep 99 % of the fine-tuned `target`; each factor and β of a
//! merge is the one with the best `merged`; all of them out of eleven, on validation images that no
//! measure sees. **Costs** four training runs a seed, and some hundred evaluations.

use super::found::Found;
use crate::clause::Samples;
use crate::error::{Error, Result};
use crate::runner::{Ended, Options, Watch};
use crate::verdict::Verdict;
use ebb_data::{Dataset, Part, Pixels, Stream};
use ebb_learn::seen::outputs;
use ebb_learn::{Around, Oracle, Recipe, Session, Silent, learn_keeping};
use ebb_space::merge::{Ramp, Rule, Task, merge_alpha, task_vector};
use ebb_space::{Direction, Key, Mask, Weights};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// The arms that clauses may name.
pub const ARMS: &[&str] = &[
    "default",
    "lines",
    "reversed",
    "start",
    "sum",
    "sum_lines",
    "sum_reversed",
    "ties",
    "ties_lines",
    "ties_reversed",
    "tuned",
    "uniform",
];

/// What is trained, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The dataset, of images.
    pub dataset: String,
    /// Training images of each of the four runs.
    pub examples: usize,
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// Learning rate of SGD.
    pub lr: f64,
    /// Its momentum.
    pub momentum: f64,
    /// Longest gradient.
    pub clip: f64,
    /// Rows a step.
    pub batch: usize,
    /// Passes over the plain images.
    pub epochs: u64,
    /// Passes over each of the others.
    pub tuning_epochs: u64,
    /// Angle of the turned images.
    pub degrees: f64,
    /// Severity of the noise, 1 to 5.
    pub severity: u8,
    /// What TIES keeps.
    pub density: f64,
    /// Test images that α and β are chosen on.
    pub validation: usize,
    /// Other test images that are measured on.
    pub test: usize,
}

/// Images of one kind, for choosing and for measuring.
struct Images {
    validation: (Vec<f32>, Vec<u32>),
    test: (Vec<f32>, Vec<u32>),
}

/// Which of the two.
type Of = fn(&Images) -> &(Vec<f32>, Vec<u32>);

/// Factors of the first and of the last layer, of a number that is chosen.
type Ends = fn(f64) -> (f64, f64);

/// What a seed gave: by arm and measure.
type Values = BTreeMap<(&'static str, &'static str), f64>;

/// The kinds of images that are tuned to.
const KINDS: [&str; 3] = ["inverted", "turned", "noisy"];
/// Steps of a grid from 0 to 1.
const STEPS: u32 = 10;
/// What a scaled model keeps of the fine-tuned one's accuracy on its target.
const KEPT: f64 = 0.99;

pub(crate) fn run(
    spec: &Spec,
    seeds: &[u64],
    options: &Options,
    watch: &mut dyn Watch,
    verdict: &mut Verdict,
) -> Result<Samples> {
    if spec.validation == 0 || spec.test == 0 || spec.hidden.len() < 2 {
        return Err(Error::Study {
            id: verdict.id.clone(),
            reason: "it needs images to validate and to test on, and two layers".to_owned(),
        });
    }
    watch.ahead(seeds.len());
    let mut all: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for seed in seeds {
        let begun = Instant::now();
        let values = spec.seed(*seed, options)?;
        let measured = values
            .iter()
            .map(|((arm, name), v)| (format!("{arm}.{name}"), *v));
        watch.run(&Ended {
            arm: "lines".to_owned(),
            seed: *seed,
            trial: None,
            seconds: begun.elapsed().as_secs_f64(),
            measured: measured.collect(),
        });
        for (key, value) in values {
            all.entry(key).or_default().push(value);
        }
    }
    let protocol = format!(
        "{} {} images, MLP {:?}, SGD {} with momentum {} clipped at {} batch {}, {} epochs and {} of tuning; {} test images, {} for choosing",
        spec.dataset,
        spec.examples,
        spec.hidden,
        spec.lr,
        spec.momentum,
        spec.clip,
        spec.batch,
        spec.epochs,
        spec.tuning_epochs,
        spec.test,
        spec.validation
    );
    let mut found = Found::new("fine-tune", protocol, seeds);
    for ((arm, name), values) in all {
        let (direction, what) = match name {
            "target" => (
                Direction::Higher,
                "accuracy on the images tuned to, mean over three models",
            ),
            "control" => (Direction::Higher, "accuracy on the plain images"),
            "merged" => (
                Direction::Higher,
                "accuracy of one model on the three kinds, mean",
            ),
            "alpha" => (
                Direction::Lower,
                "the α that was chosen, mean over three models",
            ),
            _ => (Direction::Lower, "the factor or β that was chosen"),
        };
        found.add(arm, name, values, direction, what);
    }
    let (samples, arms) = found.finish()?;
    verdict.arms = arms;
    Ok(samples)
}

impl Spec {
    fn recipe(&self, stream: &str, epochs: u64, seed: u64) -> Result<Recipe> {
        let text = format!(
            "seed = {seed}\nmethod = \"fine-tune\"\n\
             [stream]\ndataset = \"{}\"\nscenario = \"domain\"\nper_experience = {}\n{stream}\n\
             [network]\nkind = \"mlp\"\nhidden = {:?}\n\
             [train]\nlr = {:?}\nmomentum = {:?}\nclip = {:?}\nbatch = {}\nepochs = {epochs}\n\
             [evaluate]\nevery = 0\noutcomes = false\n",
            self.dataset, self.examples, self.hidden, self.lr, self.momentum, self.clip, self.batch,
        );
        Ok(Recipe::parse(&text, &[])?)
    }

    /// Trains on the images of one kind, from `start` or from fresh weights.
    fn train(
        &self,
        kind: &'static str,
        seed: u64,
        start: Option<&Weights>,
        options: &Options,
    ) -> Result<Session> {
        let failed = |source| match source {
            ebb_learn::Error::Interrupted { .. } => Error::Stopped,
            source => Error::Run {
                arm: kind.to_owned(),
                seed,
                source: Box::new(source),
            },
        };
        let stream = match kind {
            "turned" => format!("kind = \"rotated\"\ndegrees = [{:?}]", self.degrees),
            "noisy" => format!(
                "kind = \"corrupted\"\nfirst_identity = false\n\
                 corruptions = [{{ kind = \"gaussian-noise\", severity = {} }}]",
                self.severity
            ),
            _ => "split = 1".to_owned(),
        };
        let epochs = match start {
            None => self.epochs,
            Some(_) => self.tuning_epochs,
        };
        let recipe = self.recipe(&stream, epochs, seed)?;
        let mut stream = recipe.file().stream.build(options.data_dir, seed)?;
        if kind == "inverted" {
            stream.train = Arc::new(inverted(&stream.train));
            stream.test = Arc::new(inverted(&stream.test));
        }
        let mut session = Session::on(&recipe, Arc::new(stream)).map_err(failed)?;
        if let Some(start) = start {
            let set = session.oracle.model.set_weights(start);
            set.map_err(|e| failed(e.into()))?;
            let head = Mask::from_paths(start.layout(), |path| path.starts_with("head"));
            session.frozen = Some((head, start.clone()));
        }
        let mut around = Around {
            data_dir: options.data_dir,
            progress: &mut Silent,
            stop: options.stop,
        };
        let (_, session) = learn_keeping(session, None, &mut around).map_err(failed)?;
        Ok(session)
    }

    /// Test images of a stream; the same ones, seen otherwise, of every kind.
    fn images(&self, stream: &Stream, key: Key) -> Images {
        let mut items = stream.evals[0].items.to_vec();
        key.sub("test")
            .order(&mut items, |i| i.id.with_view(0).mix());
        let part = |items: &[ebb_data::Item]| {
            let mut x = Vec::new();
            stream.gather(Part::Test, items, &mut x);
            (x, items.iter().map(|i| i.label).collect())
        };
        let (first, rest) = items.split_at(self.validation.min(items.len()));
        Images {
            validation: part(first),
            test: part(&rest[..self.test.min(rest.len())]),
        }
    }

    fn seed(&self, seed: u64, options: &Options) -> Result<Values> {
        let key = Key::new(seed, "layer scaling");
        let plain = self.train("plain", seed, None, options)?;
        let start = plain.oracle.model.weights();
        let control = self.images(&plain.stream, key);
        let outputs = outputs(&plain.stream);
        let (mut taus, mut targets) = (Vec::new(), Vec::new());
        for kind in KINDS {
            let tuned = self.train(kind, seed, Some(&start), options)?;
            taus.push(task_vector(&tuned.oracle.model.weights(), &start));
            targets.push(self.images(&tuned.stream, key));
        }
        let mut world = World {
            oracle: plain.oracle,
            outputs,
            start,
            targets,
            control,
        };
        let mut values = Values::new();
        world.single(&taus, &mut values)?;
        world.merges(&taus, self.density, &mut values)?;
        Ok(values)
    }
}

/// Trained networks of a seed, and images to measure them on.
struct World {
    oracle: Oracle,
    outputs: usize,
    start: Weights,
    targets: Vec<Images>,
    control: Images,
}

impl World {
    /// Puts `θ0 + λ τ` into the network.
    fn set(&mut self, tau: &Weights, ramp: &Ramp) -> Result<()> {
        let mut theta = tau.clone();
        ramp.scale(&mut theta);
        theta.axpy(1.0, &self.start);
        let set = self.oracle.model.set_weights(&theta);
        set.map_err(|e| ebb_learn::Error::from(e).into())
    }

    /// Accuracy of the network as it stands.
    fn accuracy(&mut self, on: Option<usize>, of: Of) -> f64 {
        let images = on.map_or(&self.control, |target| &self.targets[target]);
        let (x, labels) = of(images);
        let width = x.len() / labels.len().max(1);
        let mut right = 0;
        for (x, labels) in x.chunks(256 * width.max(1)).zip(labels.chunks(256)) {
            let logits = self.oracle.logits(x.to_vec(), labels.len());
            for (z, label) in logits.chunks_exact(self.outputs).zip(labels) {
                let best = (0..z.len()).rev().max_by(|a, b| z[*a].total_cmp(&z[*b]));
                right += usize::from(best == Some(*label as usize));
            }
        }
        right as f64 / labels.len().max(1) as f64
    }

    /// `λ = first` in the first layer and outside of layers, `last` in the last.
    fn ramp(&self, first: f64, last: f64) -> Ramp {
        let entries = self.start.layout().entries();
        Ramp::new(first, last - first, entries.iter().map(|e| e.path.as_str()))
    }

    /// One fine-tuned model at a time.
    fn single(&mut self, taus: &[Weights], values: &mut Values) -> Result<()> {
        let mut add = |arm, name, value: f64| {
            *values.entry((arm, name)).or_insert(0.0) += value / KINDS.len() as f64;
        };
        for (target, tau) in taus.iter().enumerate() {
            self.set(tau, &self.ramp(1.0, 1.0))?;
            let least = KEPT * self.accuracy(Some(target), |i| &i.validation);
            for (arm, first, last) in [
                ("start", 0.0, 0.0),
                ("tuned", 1.0, 1.0),
                ("default", 0.0, 1.0),
            ] {
                self.set(tau, &self.ramp(first, last))?;
                add(arm, "target", self.accuracy(Some(target), |i| &i.test));
                add(arm, "control", self.accuracy(None, |i| &i.test));
            }
            let families: [(&str, Ends); 3] = [
                ("lines", |alpha| (alpha, 1.0)),
                ("uniform", |alpha| (alpha, alpha)),
                ("reversed", |alpha| (1.0, alpha)),
            ];
            for (arm, ends) in families {
                // α = 1 leaves the model as it is, so that there always is one.
                let (mut chosen, mut best) = (1.0, f64::NEG_INFINITY);
                for step in (0..=STEPS).rev() {
                    let alpha = f64::from(step) / f64::from(STEPS);
                    let (first, last) = ends(alpha);
                    self.set(tau, &self.ramp(first, last))?;
                    let kept = self.accuracy(Some(target), |i| &i.validation) >= least;
                    let control = self.accuracy(None, |i| &i.validation);
                    if kept && control > best {
                        (chosen, best) = (alpha, control);
                    }
                }
                let (first, last) = ends(chosen);
                self.set(tau, &self.ramp(first, last))?;
                add(arm, "target", self.accuracy(Some(target), |i| &i.test));
                add(arm, "control", self.accuracy(None, |i| &i.test));
                add(arm, "alpha", chosen);
            }
        }
        Ok(())
    }

    /// All fine-tuned models in one.
    fn merges(&mut self, taus: &[Weights], density: f64, values: &mut Values) -> Result<()> {
        let tasks: Vec<Task> = KINDS
            .iter()
            .map(|kind| Task {
                name: (*kind).to_owned(),
                weight: 1.0,
            })
            .collect();
        let taus: Vec<&Weights> = taus.iter().collect();
        let sum = Rule::Sum.merged(&tasks, &taus)?;
        let ties = Rule::Ties { density }.merged(&tasks, &taus)?;
        let l1 = |w: &Weights| w.by_layer().map(|layer| layer.abs_sum).sum::<f64>();
        for (merged, arms) in [
            (&sum, ["sum", "sum_lines", "sum_reversed"]),
            (&ties, ["ties", "ties_lines", "ties_reversed"]),
        ] {
            let alpha = merge_alpha(l1(&sum), l1(merged), tasks.len());
            let families: [&dyn Fn(f64) -> (f64, f64); 3] = [
                &|factor| (factor, factor),
                &|beta| (alpha, alpha + beta),
                &|beta| (alpha + beta, alpha),
            ];
            for (arm, ends) in arms.into_iter().zip(families) {
                let (mut chosen, mut best) = (0.0, f64::NEG_INFINITY);
                for step in 0..=STEPS {
                    let factor = f64::from(step) / f64::from(STEPS);
                    let (first, last) = ends(factor);
                    self.set(merged, &self.ramp(first, last))?;
                    let found = self.on_all(|i| &i.validation);
                    if found > best {
                        (chosen, best) = (factor, found);
                    }
                }
                let (first, last) = ends(chosen);
                self.set(merged, &self.ramp(first, last))?;
                values.insert((arm, "merged"), self.on_all(|i| &i.test));
                values.insert((arm, "control"), self.accuracy(None, |i| &i.test));
                values.insert((arm, "chosen"), chosen);
            }
        }
        Ok(())
    }

    fn on_all(&mut self, of: Of) -> f64 {
        let each = (0..KINDS.len()).map(|target| self.accuracy(Some(target), of));
        each.sum::<f64>() / KINDS.len() as f64
    }
}

/// White for black.
fn inverted(dataset: &Dataset) -> Dataset {
    let full = dataset.scale.divisor;
    let pixels = match &dataset.pixels {
        Pixels::U8(bytes) => Pixels::U8(bytes.iter().map(|b| u8::MAX - b).collect()),
        Pixels::F32(values) => Pixels::F32(values.iter().map(|v| full - v).collect()),
    };
    Dataset {
        pixels,
        ..dataset.clone()
    }
}
