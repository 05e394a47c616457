//! Erasers beside models that never saw what they erase.
//!
//! **Source.** The bed of the unlearning cards (S015, S078, S120, X11 to X17): a small network on
//! digits, from which a class, or records drawn at random, are to go. **What is measured**, a value a
//! seed (a mean over the classes, where classes go):
//!
//! | measure | of |
//! |---|---|
//! | `forget` | accuracy on what was to go: test images of the class, or the records themselves |
//! | `retain` | accuracy on test images of all that stays |
//! | `worst` | the lowest `retain` of the classes |
//! | `attack` | how well the loss tells the records from test images of their kind (area under the curve) |
//! | `relearnt` | `forget` after ten steps on the records alone |
//! | `quantised` | `forget` with weights of 4 bits a tensor, to the nearest |
//! | `probe` | how well the features tell the class from the others, along the difference of their means (area under the curve); of classes alone |
//! | `seconds` | of erasing; of `retrained`, of training |
//!
//! `untouched` is the model as it is, `retrained` one trained without the records, and `masked` the
//! trivial arm: the logit of the class is lowered out of reach, which meets any accuracy and erases
//! nothing. `ssd_head` dampens the last layer alone, `ssd_random` as many weights drawn at random.
//!
//! **Equal tuning.** Each eraser's settings are the ones of its grid that, on other records of the same
//! kind of a model of a seed of its own, leave the lowest `forget` (of records: the least distance of the
//! attack from one half) among those that lose at most two points of `retain`; the one that loses least
//! where all lose more.

use super::found::Found;
use crate::clause::Samples;
use crate::error::{Error, Result};
use crate::runner::{Ended, Options, Watch};
use crate::verdict::Verdict;
use ebb_data::{Item, Part as Data};
use ebb_erase::{Descent, Method, Part, Subject};
use ebb_learn::evaluate::evaluate_part;
use ebb_learn::objective::remembering;
use ebb_learn::{Around, Recipe, Session, Silent, learn_keeping};
use ebb_space::stats::auroc;
use ebb_space::{Direction, ExampleId, Key, Weights};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// The arms that clauses may name.
pub const ARMS: &[&str] = &[
    "ascent",
    "famr",
    "fine_tune",
    "grad_diff",
    "iau",
    "masked",
    "npo",
    "retrained",
    "ssd",
    "ssd_head",
    "ssd_label_free",
    "ssd_random",
    "untouched",
];

/// What is trained, and what is to go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The dataset, of images of ten classes.
    dataset: String,
    /// Training images.
    examples: usize,
    /// Widths of the hidden layers.
    hidden: Vec<usize>,
    /// Rate of Adam.
    lr: f64,
    /// Rows a step.
    batch: usize,
    /// Passes.
    epochs: u64,
    /// What goes: classes one by one, or a share of the records.
    classes: Vec<u32>,
    /// The share of records that go, where no classes do.
    #[serde(default)]
    share: f64,
    /// The seed of the model that settings are chosen on.
    tuning_seed: u64,
    /// Settings to choose from, by arm: a table of a method each.
    arms: BTreeMap<String, Vec<toml::Table>>,
}

/// What of a model is looked at.
const MEASURES: &[(&str, Direction, &str)] = &[
    ("forget", Direction::Lower, "accuracy on what was to go"),
    (
        "retain",
        Direction::Higher,
        "accuracy on test images of all that stays",
    ),
    (
        "worst",
        Direction::Higher,
        "the lowest of these over the classes",
    ),
    (
        "attack",
        Direction::Lower,
        "records told from test images of their kind by their loss",
    ),
    (
        "relearnt",
        Direction::Lower,
        "accuracy on what was to go after ten steps on it",
    ),
    (
        "quantised",
        Direction::Lower,
        "accuracy on what was to go with weights of 4 bits",
    ),
    (
        "probe",
        Direction::Lower,
        "the class told from others along the difference of mean features",
    ),
    ("seconds", Direction::Lower, "of erasing"),
];

/// What is to go from one model.
#[derive(Clone, Copy)]
enum Request {
    Class(u32),
    Share(f64, Key),
}

impl Request {
    fn gone(&self, session: &Session) -> BTreeSet<ExampleId> {
        let stream = &session.stream;
        let is = |i: &&Item| match self {
            Request::Class(class) => stream.train.labels[i.row as usize] == *class,
            Request::Share(share, key) => key.uniform(i.id.mix()) < *share,
        };
        stream.train_items().filter(is).map(|i| i.id).collect()
    }
}

type Values = BTreeMap<&'static str, f64>;

pub(crate) fn run(
    spec: &Spec,
    seeds: &[u64],
    options: &Options,
    watch: &mut dyn Watch,
    verdict: &mut Verdict,
) -> Result<Samples> {
    let wrong = |reason: String| Error::Study {
        id: verdict.id.clone(),
        reason,
    };
    if let Some(unknown) = spec.arms.keys().find(|a| !ARMS.contains(&a.as_str())) {
        return Err(wrong(format!("there is no arm `{unknown}`")));
    }
    if spec.classes.is_empty() != (spec.share > 0.0 && spec.share < 1.0) {
        return Err(wrong(
            "either `classes` go or a `share` between 0 and 1".into(),
        ));
    }
    watch.ahead(seeds.len());
    let chosen = spec.tuned(options)?;
    let told: Vec<String> = chosen
        .iter()
        .map(|(arm, (_, table))| format!("{arm}: {}", table.to_string().replace('\n', " ").trim()))
        .collect();
    verdict
        .notes
        .push(format!("Settings chosen: {}.", told.join("; ")));
    let mut all: BTreeMap<(String, &str), Vec<f64>> = BTreeMap::new();
    for seed in seeds {
        let begun = Instant::now();
        let values = spec.seed(*seed, &chosen, options)?;
        let mut measured: BTreeMap<String, f64> = BTreeMap::new();
        for (arm, values) in values {
            for (name, value) in values {
                measured.insert(format!("{arm}.{name}"), value);
                all.entry((arm.clone(), name)).or_default().push(value);
            }
        }
        watch.run(&Ended {
            arm: "ssd".to_owned(),
            seed: *seed,
            trial: None,
            seconds: begun.elapsed().as_secs_f64(),
            measured,
        });
    }
    let goes = match spec.classes.is_empty() {
        false => format!("one of {} classes goes, mean over them", spec.classes.len()),
        true => format!("{} of the records go", spec.share),
    };
    let protocol = format!(
        "{} {} images, MLP {:?}, Adam {} batch {}, {} epochs; {goes}",
        spec.dataset, spec.examples, spec.hidden, spec.lr, spec.batch, spec.epochs
    );
    let mut found = Found::new("fine-tune", protocol, seeds);
    for ((arm, name), values) in all {
        let known = MEASURES.iter().find(|m| m.0 == name);
        let (direction, what) = known.map_or((Direction::Lower, name), |m| (m.1, m.2));
        found.add(&arm, name, values, direction, what);
    }
    let (samples, arms) = found.finish()?;
    verdict.arms = arms;
    Ok(samples)
}

impl Spec {
    fn recipe(&self, seed: u64) -> Result<Recipe> {
        let text = format!(
            "seed = {seed}\nmethod = \"fine-tune\"\n\
             [stream]\ndataset = \"{}\"\nsplit = 1\nscenario = \"class\"\nper_experience = {}\nseed = 1\n\
             [network]\nkind = \"mlp\"\nhidden = {:?}\n\
             [train]\noptimizer = \"adam\"\nlr = {:?}\nbatch = {}\nepochs = {}\n\
             [evaluate]\nevery = 0\noutcomes = false\n",
            self.dataset, self.examples, self.hidden, self.lr, self.batch, self.epochs,
        );
        Ok(Recipe::parse(&text, &[])?)
    }

    /// A model trained on all, or on all but some records, and how long that took.
    fn train(
        &self,
        seed: u64,
        without: Option<&BTreeSet<ExampleId>>,
        options: &Options,
    ) -> Result<(Weights, f64)> {
        let failed = |source| match source {
            ebb_learn::Error::Interrupted { .. } => Error::Stopped,
            source => Error::Run {
                arm: "retrained".to_owned(),
                seed,
                source: Box::new(source),
            },
        };
        let recipe = self.recipe(seed)?;
        let mut stream = recipe.file().stream.build(options.data_dir, seed)?;
        if let Some(gone) = without {
            // Of a class nothing is left to learn; its test images stay to be measured on.
            stream.experiences[0].train = (stream.experiences[0]
                .train
                .iter()
                .filter(|i| !gone.contains(&i.id))
                .copied())
            .collect();
        }
        let session = Session::on(&recipe, Arc::new(stream)).map_err(failed)?;
        let mut around = Around {
            data_dir: options.data_dir,
            progress: &mut Silent,
            stop: options.stop,
        };
        let begun = Instant::now();
        let (_, session) = learn_keeping(session, None, &mut around).map_err(failed)?;
        Ok((
            session.oracle.model.weights(),
            begun.elapsed().as_secs_f64(),
        ))
    }

    /// A model to erase from: these weights, and all data divided by the request.
    fn subject<'a>(
        &self,
        seed: u64,
        weights: &Weights,
        gone: &BTreeSet<ExampleId>,
        options: &'a Options,
    ) -> Result<Subject<'a>> {
        let recipe = self.recipe(seed)?;
        let mut session = Session::new(&recipe, options.data_dir)?;
        session.position.experience = 1;
        session
            .oracle
            .model
            .set_weights(weights)
            .map_err(ebb_learn::Error::from)?;
        Ok(Subject::of(session, &|id| gone.contains(id), options.stop)?)
    }

    /// Of every arm the settings that do best on other records.
    fn tuned(&self, options: &Options) -> Result<BTreeMap<String, (Option<Method>, toml::Table)>> {
        let seed = self.tuning_seed;
        let (weights, _) = self.train(seed, None, options)?;
        let request = match self.classes.last() {
            // Which class it is hangs on nothing that is judged.
            Some(class) => Request::Class((class + 3) % 10),
            None => Request::Share(self.share, Key::new(seed, "tuning")),
        };
        let session = Session::new(&self.recipe(seed)?, options.data_dir)?;
        let gone = request.gone(&session);
        let mut subject = self.subject(seed, &weights, &gone, options)?;
        let before = measure(&mut subject, request)?["retain"];
        let mut chosen = BTreeMap::new();
        for (arm, grid) in &self.arms {
            let mut best: Option<((bool, f64), toml::Table)> = None;
            for table in grid {
                let method = method(arm, table)?;
                let mut subject = self.subject(seed, &weights, &gone, options)?;
                let values = erased(arm, method.as_ref(), &mut subject, request, None)
                    .and_then(|()| measure(&mut subject, request));
                let Ok(values) = values else { continue };
                let lost = before - values["retain"];
                let left = match request {
                    Request::Class(_) => values["forget"],
                    Request::Share(..) => (values["attack"] - 0.5).abs(),
                };
                // Those that keep the model come first, by what is left; the others by what they lose.
                let rank = match lost <= 0.02 {
                    true => (false, left),
                    false => (true, lost),
                };
                if best.as_ref().is_none_or(|(b, _)| rank < *b) {
                    best = Some((rank, table.clone()));
                }
            }
            let table = best
                .map(|(_, t)| t)
                .or_else(|| grid.first().cloned())
                .unwrap_or_default();
            chosen.insert(arm.clone(), (method(arm, &table)?, table));
        }
        Ok(chosen)
    }

    fn seed(
        &self,
        seed: u64,
        chosen: &BTreeMap<String, (Option<Method>, toml::Table)>,
        options: &Options,
    ) -> Result<BTreeMap<String, Values>> {
        let (weights, _) = self.train(seed, None, options)?;
        let session = Session::new(&self.recipe(seed)?, options.data_dir)?;
        let requests: Vec<Request> = match self.classes.is_empty() {
            false => self.classes.iter().map(|c| Request::Class(*c)).collect(),
            true => vec![Request::Share(self.share, Key::new(seed, "erased"))],
        };
        let mut sums: BTreeMap<String, Values> = BTreeMap::new();
        for request in &requests {
            let gone = request.gone(&session);
            let retrained = self.train(seed, Some(&gone), options)?;
            let own = ["untouched", "retrained", "masked"].map(str::to_owned);
            for arm in own.iter().chain(chosen.keys()) {
                if arm == "masked" && self.classes.is_empty() {
                    continue;
                }
                let start = match arm.as_str() {
                    "retrained" => &retrained.0,
                    _ => &weights,
                };
                let mut subject = self.subject(seed, start, &gone, options)?;
                let begun = Instant::now();
                let method = chosen.get(arm).and_then(|(m, _)| m.as_ref());
                erased(
                    arm,
                    method,
                    &mut subject,
                    *request,
                    Some(Key::new(seed, "random")),
                )?;
                let seconds = match arm.as_str() {
                    "retrained" => retrained.1,
                    _ => begun.elapsed().as_secs_f64(),
                };
                let mut values = measure(&mut subject, *request)?;
                values.insert("seconds", seconds);
                let worst = values["retain"];
                let sum = sums.entry(arm.clone()).or_default();
                for (name, value) in values {
                    *sum.entry(name).or_default() += value / requests.len() as f64;
                }
                let lowest = sum.entry("worst").or_insert(worst);
                *lowest = lowest.min(worst);
            }
        }
        Ok(sums)
    }
}

/// The method that an arm uses with these settings.
fn method(arm: &str, table: &toml::Table) -> Result<Option<Method>> {
    let name = match arm {
        "ssd_head" | "ssd_random" | "ssd_label_free" => "ssd",
        "ascent" => "grad-diff",
        "grad_diff" => "grad-diff",
        "fine_tune" => "fine-tune",
        "untouched" | "retrained" | "masked" => return Ok(None),
        name => name,
    };
    let mut sets: Vec<(String, String)> = table
        .iter()
        .map(|(k, v)| (k.clone(), v.to_string()))
        .collect();
    match arm {
        "ssd_label_free" => sets.push(("importance".into(), "\"label-free\"".into())),
        "ascent" => sets.push(("alpha".into(), "0.0".into())),
        _ => {}
    }
    Ok(Some(Method::parse(name, &sets)?))
}

/// Does to a model what an arm does.
fn erased(
    arm: &str,
    method: Option<&Method>,
    subject: &mut Subject,
    request: Request,
    key: Option<Key>,
) -> Result<()> {
    let before = subject.oracle().model.weights();
    if let (Some(method), _) = (method, arm) {
        method.eraser().erase(subject)?;
    }
    let mut after = subject.oracle().model.weights();
    match (arm, request) {
        ("masked", Request::Class(class)) => {
            // The bias of the class in the last layer.
            let bias = after
                .layout()
                .entries()
                .iter()
                .rfind(|e| e.shape.len() == 1);
            if let Some(at) = bias.map(|e| e.range.start + class as usize) {
                after.as_mut_slice()[at] = -1e4;
            }
        }
        ("ssd_head", _) => {
            // What stands before the last layer stays as it was.
            let entries = after.layout().entries().to_vec();
            let head = entries.len().saturating_sub(2);
            for entry in &entries[..head] {
                let range = entry.range.clone();
                after.as_mut_slice()[range.clone()].copy_from_slice(&before.as_slice()[range]);
            }
        }
        ("ssd_random", _) => {
            // The same factors on other weights of the same tensor.
            let factors: Vec<f32> = after
                .as_slice()
                .iter()
                .zip(before.as_slice())
                .map(|(a, b)| if *b == 0.0 { 1.0 } else { a / b })
                .collect();
            let mut of = after.zeros_like();
            of.as_mut_slice().copy_from_slice(&factors);
            let shuffled = of.permuted_within_tensors(key.unwrap_or(Key::new(0, "random")));
            after.copy_from(&before);
            after.mul_assign(&shuffled);
        }
        _ => return Ok(()),
    }
    subject
        .oracle()
        .model
        .set_weights(&after)
        .map_err(ebb_learn::Error::from)?;
    Ok(())
}

/// What is left in a model; it is as it was afterwards.
fn measure(subject: &mut Subject, request: Request) -> Result<Values> {
    let stream = subject.session.stream.clone();
    let test = stream.evals[0].items.clone();
    let is_gone = |i: &&Item| match request {
        Request::Class(class) => stream.test.labels[i.row as usize] == class,
        Request::Share(..) => false,
    };
    let (of_class, others): (Vec<Item>, Vec<Item>) = test.iter().partition(is_gone);
    let records: Vec<Item> = subject.forget.iter().take(2000).copied().collect();
    let (data, target) = match request {
        Request::Class(_) => (Data::Test, of_class.clone()),
        Request::Share(..) => (Data::Train, records.clone()),
    };
    let share = |subject: &mut Subject, data: Data, items: &[Item]| {
        let outcomes = evaluate_part(subject.oracle(), &stream, data, items);
        let right = outcomes.iter().filter(|o| o.correct).count();
        right as f64 / outcomes.len().max(1) as f64
    };
    let mut values = Values::new();
    values.insert("forget", share(subject, data, &target));
    values.insert("retain", share(subject, Data::Test, &others));
    let alike = match request {
        Request::Class(_) => &of_class,
        Request::Share(..) => &others,
    };
    let members = evaluate_part(subject.oracle(), &stream, Data::Train, &records);
    let strangers = evaluate_part(subject.oracle(), &stream, Data::Test, alike);
    let scores: Vec<f64> = members
        .iter()
        .chain(&strangers)
        .map(|o| -f64::from(o.loss))
        .collect();
    let positive: Vec<bool> = (0..scores.len()).map(|i| i < members.len()).collect();
    values.insert("attack", auroc(&scores, &positive)?);
    if let Request::Class(_) = request {
        values.insert("probe", probe(subject, &of_class, &others)?);
    }
    let before = subject.oracle().model.weights();
    let mut coarse = before.clone();
    quantise(&mut coarse, 4);
    subject
        .oracle()
        .model
        .set_weights(&coarse)
        .map_err(ebb_learn::Error::from)?;
    values.insert("quantised", share(subject, data, &target));
    subject
        .oracle()
        .model
        .set_weights(&before)
        .map_err(ebb_learn::Error::from)?;
    let steps = Descent {
        steps: 10,
        lr: 0.01,
        ..Descent::default()
    };
    let objective = remembering();
    steps.go("relearning", subject, |subject, step, g| {
        let items = subject.draw(Part::Forget, steps.batch, step);
        subject.gradient(&objective, &items, g)?;
        Ok(())
    })?;
    values.insert("relearnt", share(subject, data, &target));
    subject
        .oracle()
        .model
        .set_weights(&before)
        .map_err(ebb_learn::Error::from)?;
    Ok(values)
}

/// Rounds every tensor to `2^bits - 1` levels that lie evenly about 0.
fn quantise(weights: &mut Weights, bits: u32) {
    let ranges: Vec<_> = weights
        .layout()
        .entries()
        .iter()
        .map(|e| e.range.clone())
        .collect();
    let levels = ((1u32 << (bits - 1)) - 1) as f32;
    for range in ranges {
        let tensor = &mut weights.as_mut_slice()[range];
        let most = tensor.iter().fold(0.0f32, |m, w| m.max(w.abs()));
        if most > 0.0 {
            let step = most / levels;
            tensor
                .iter_mut()
                .for_each(|w| *w = (*w / step).round() * step);
        }
    }
}

/// How well features tell test images of a class from others, along the difference of their means over
/// training images.
fn probe(subject: &mut Subject, of_class: &[Item], others: &[Item]) -> Result<f64> {
    let stream = subject.session.stream.clone();
    let mean_of = |subject: &mut Subject, data: Data, items: &[Item]| {
        let mut rows = Vec::new();
        for items in items.chunks(256) {
            let mut x = Vec::new();
            stream.gather(data, items, &mut x);
            let (_, features) = subject.oracle().outputs(x, items.len());
            let width = features.len() / items.len().max(1);
            rows.extend(features.chunks_exact(width.max(1)).map(<[f32]>::to_vec));
        }
        rows
    };
    let mean = |rows: &[Vec<f32>]| -> Vec<f64> {
        let width = rows.first().map_or(0, Vec::len);
        let sum = |k: usize| rows.iter().map(|r| f64::from(r[k])).sum::<f64>();
        (0..width)
            .map(|k| sum(k) / rows.len().max(1) as f64)
            .collect()
    };
    let first = |items: &[Item]| items.iter().take(2000).copied().collect::<Vec<_>>();
    let (forget, retain) = (first(&subject.forget), first(&subject.retain));
    let a = mean(&mean_of(subject, Data::Train, &forget));
    let b = mean(&mean_of(subject, Data::Train, &retain));
    let along = |row: &Vec<f32>| -> f64 {
        row.iter()
            .zip(a.iter().zip(&b))
            .map(|(x, (a, b))| f64::from(*x) * (a - b))
            .sum()
    };
    let inside = mean_of(subject, Data::Test, of_class);
    let outside = mean_of(subject, Data::Test, others);
    let scores: Vec<f64> = inside.iter().chain(&outside).map(along).collect();
    let positive: Vec<bool> = (0..scores.len()).map(|i| i < inside.len()).collect();
    Ok(auroc(&scores, &positive)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_space::Layout;

    #[test]
    fn four_bits_are_fifteen_levels() {
        let layout = Layout::new([("w".to_owned(), vec![4])]).expect("a layout");
        let values = vec![0.7, -0.7, 0.06, 0.04];
        let mut weights = Weights::from_vec(&layout, values).expect("weights");
        quantise(&mut weights, 4);
        let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
        let got = weights.as_slice();
        assert!(near(got[0], 0.7) && near(got[1], -0.7) && near(got[2], 0.1) && near(got[3], 0.0));
    }

    #[test]
    fn every_arm_is_a_method_or_none() {
        for arm in ARMS {
            let none = ["untouched", "retrained", "masked"].contains(arm);
            assert_eq!(
                method(arm, &toml::Table::new()).expect("an arm").is_none(),
                none
            );
        }
    }
}
