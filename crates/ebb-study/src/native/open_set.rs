//! Open-set recognition and active queries beside continual learning.
//!
//! **Source.** Mundt et al., 2023 (card S210). A network learns a stream with a small memory, and
//! [`ebb_learn::openset`] is fitted to what the memory holds at the end. Then test images come
//! mixed with as many unknown ones: permuted, inverted, and handwritten digits of eight by eight
//! pixels, enlarged. **What is measured**, a value a seed:
//!
//! | arm | an image's strangeness | measures |
//! |---|---|---|
//! | `open` | its chance of being an outlier | AUROC for unknown images; useful queries |
//! | `entropy` | the entropy of the softmax | the same |
//! | `shifted` | as `open`, with the classes' means exchanged | AUROC |
//! | `extreme` | as `open`, the strangest first | useful queries |
//! | `random` | a draw | useful queries |
//!
//! Queries are the strangest images that would still be accepted with 95 % of the memory (of
//! `extreme`: the strangest of all); one is useful if it is a test image that the network gets
//! wrong, so that its label teaches something; measured is their share of those asked.
//! **Costs** a training run a seed.

use super::found::Found;
use crate::clause::Samples;
use crate::error::{Error, Result};
use crate::runner::{Ended, Options, Watch};
use crate::verdict::Verdict;
use ebb_data::{Item, Part};
use ebb_learn::openset::OpenSet;
use ebb_learn::seen::outputs;
use ebb_learn::{Around, Recipe, Session, Silent, learn_keeping};
use ebb_space::stats::{auroc, quantile};
use ebb_space::{Direction, ExampleId, Key};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Instant;

/// Test images, what they are, sets of unknown images, and an id of each of all these.
type Images = (Vec<f32>, Vec<Item>, Vec<Vec<f32>>, Vec<ExampleId>);

/// The arms that clauses may name.
pub const ARMS: &[&str] = &["entropy", "extreme", "open", "random", "shifted"];

/// What is trained, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The dataset, of square images.
    pub dataset: String,
    /// Training images of each of five tasks.
    pub per_experience: usize,
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// Learning rate of plain SGD.
    pub lr: f64,
    /// Rows a step.
    pub batch: usize,
    /// Passes over a task.
    pub epochs: u64,
    /// Images remembered.
    pub capacity: usize,
    /// Share of the largest distances that is fitted.
    pub tail: f64,
    /// Test images, and unknown ones of each kind.
    pub images: usize,
    /// Labels asked for.
    pub queries: usize,
}

/// An image as the network sees it.
struct Judged {
    features: Vec<f32>,
    logits: Vec<f32>,
}

impl Judged {
    /// The class it is taken for.
    fn answer(&self) -> u32 {
        let classes = 0..self.logits.len();
        let best = classes
            .rev()
            .max_by(|a, b| self.logits[*a].total_cmp(&self.logits[*b]));
        best.unwrap_or(0) as u32
    }

    fn entropy(&self) -> f64 {
        let top = self
            .logits
            .iter()
            .copied()
            .fold(f32::NEG_INFINITY, f32::max);
        let e: Vec<f64> = self
            .logits
            .iter()
            .map(|z| f64::from(z - top).exp())
            .collect();
        let sum: f64 = e.iter().sum();
        e.iter()
            .filter(|v| **v > 0.0)
            .map(|v| -v / sum * (v / sum).ln())
            .sum()
    }
}

/// What a seed gave: by arm and measure.
type Values = BTreeMap<(&'static str, &'static str), f64>;

pub(crate) fn run(
    spec: &Spec,
    seeds: &[u64],
    options: &Options,
    watch: &mut dyn Watch,
    verdict: &mut Verdict,
) -> Result<Samples> {
    if !(spec.tail > 0.0 && spec.tail <= 1.0) || spec.images == 0 || spec.queries == 0 {
        return Err(Error::Study {
            id: verdict.id.clone(),
            reason: "`tail` is a share, and there is at least one image and query".to_owned(),
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
            arm: "open".to_owned(),
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
        "{} in 5 tasks of {} images, MLP {:?}, memory {}; {} test images and as many of each unknown kind",
        spec.dataset, spec.per_experience, spec.hidden, spec.capacity, spec.images
    );
    let mut found = Found::new("er", protocol, seeds);
    for ((arm, name), values) in all {
        let what = match name {
            "auroc" => "AUROC for unknown images, mean over the three kinds",
            "useful" => "share of queries that are test images the network gets wrong",
            _ => "AUROC for this kind of unknown images",
        };
        found.add(arm, name, values, Direction::Higher, what);
    }
    let (samples, arms) = found.finish()?;
    verdict.arms = arms;
    Ok(samples)
}

impl Spec {
    fn recipe(&self, seed: u64) -> Result<Recipe> {
        let text = format!(
            "seed = {seed}\nmethod = \"er\"\nwith = {{ capacity = {} }}\n\
             [stream]\ndataset = \"{}\"\nsplit = 5\nscenario = \"class\"\n\
             per_experience = {}\nnormalise = \"raw\"\n\
             [network]\nkind = \"mlp\"\nhidden = {:?}\n\
             [train]\nlr = {:?}\nbatch = {}\nepochs = {}\n\
             [evaluate]\nevery = 0\noutcomes = false\n",
            self.capacity,
            self.dataset,
            self.per_experience,
            self.hidden,
            self.lr,
            self.batch,
            self.epochs
        );
        Ok(Recipe::parse(&text, &[])?)
    }

    fn seed(&self, seed: u64, options: &Options) -> Result<Values> {
        let failed = |source| match source {
            ebb_learn::Error::Interrupted { .. } => Error::Stopped,
            source => Error::Run {
                arm: "open".to_owned(),
                seed,
                source: Box::new(source),
            },
        };
        let session = Session::new(&self.recipe(seed)?, options.data_dir).map_err(failed)?;
        let mut around = Around {
            data_dir: options.data_dir,
            progress: &mut Silent,
            stop: options.stop,
        };
        let (_, mut session) = learn_keeping(session, None, &mut around).map_err(failed)?;
        let key = Key::new(seed, "open set");

        let mut kept = Vec::new();
        let mut labels = Vec::new();
        if let Some(replay) = &session.replay {
            let slots = replay.memory.slots_where(|_| true);
            replay
                .memory
                .gather(&slots, None, &mut kept)
                .map_err(|e| failed(e.into()))?;
            replay.memory.gather_labels(&slots, &mut labels);
        }
        let kept = judge(&mut session, &kept)?;
        let right: Vec<(&Judged, u32)> = kept
            .iter()
            .zip(labels)
            .filter(|(j, l)| j.answer() == *l)
            .collect();
        let features: Vec<f32> = right
            .iter()
            .flat_map(|(j, _)| &j.features)
            .copied()
            .collect();
        let labels: Vec<u32> = right.iter().map(|(_, l)| *l).collect();
        let width = features.len() / labels.len().max(1);
        let open = OpenSet::fit(&features, &labels, width.max(1), self.tail);
        let shifted = open.shifted();
        let strange = |set: &OpenSet, j: &Judged| set.outlier(&j.features, j.answer());

        let (known, items, unknown, ids) = self.images(&session, key, options)?;
        let known = judge(&mut session, &known)?;
        let unknown = unknown.iter().map(|x| judge(&mut session, x));
        let unknown: Vec<Vec<Judged>> = unknown.collect::<Result<_>>()?;
        let mut values = Values::new();
        for (arm, score) in [
            (
                "open",
                &(|j: &Judged| strange(&open, j)) as &dyn Fn(&Judged) -> f64,
            ),
            ("entropy", &Judged::entropy),
            ("shifted", &|j| strange(&shifted, j)),
        ] {
            let mut sum = 0.0;
            for (name, unknown) in ["permuted", "inverted", "digits"].iter().zip(&unknown) {
                let scores: Vec<f64> = known.iter().chain(unknown).map(score).collect();
                let is: Vec<bool> = (0..scores.len()).map(|i| i >= known.len()).collect();
                let area = auroc(&scores, &is)?;
                values.insert((arm, *name), area);
                sum += area;
            }
            values.insert((arm, "auroc"), sum / unknown.len() as f64);
        }
        // What 95 % of the memory would pass.
        let limit = |score: &dyn Fn(&Judged) -> f64| -> Result<f64> {
            let of: Vec<f64> = right.iter().map(|(j, _)| score(j)).collect();
            Ok(quantile(&of, 0.95)?)
        };
        let pool: Vec<&Judged> = known.iter().chain(unknown.iter().flatten()).collect();
        let useful = |i: usize| i < known.len() && pool[i].answer() != items[i].label;
        let ask = |score: &dyn Fn(usize) -> f64, limit: f64| {
            let all = (0..pool.len()).map(|i| (i, score(i)));
            let mut order: Vec<(usize, f64)> = all.filter(|(_, s)| *s <= limit).collect();
            // Ties (many are surely known or surely not) are broken by a draw.
            key.sub("ties").order(&mut order, |(i, _)| ids[*i].mix());
            order.sort_by(|a, b| b.1.total_cmp(&a.1));
            order.truncate(self.queries);
            let hits = order.iter().filter(|(i, _)| useful(*i)).count();
            hits as f64 / order.len().max(1) as f64
        };
        let outlier = |i: usize| strange(&open, pool[i]);
        let entropy = |i: usize| pool[i].entropy();
        let drawn = |i: usize| key.sub("random").uniform(ids[i].mix());
        let pass = limit(&|j| strange(&open, j))?;
        let sure = limit(&Judged::entropy)?;
        values.insert(("open", "useful"), ask(&outlier, pass));
        values.insert(("entropy", "useful"), ask(&entropy, sure));
        values.insert(("extreme", "useful"), ask(&outlier, f64::INFINITY));
        values.insert(("random", "useful"), ask(&drawn, f64::INFINITY));
        Ok(values)
    }

    /// Test images with their classes, and the three kinds of unknown ones.
    fn images(&self, session: &Session, key: Key, options: &Options) -> Result<Images> {
        let stream = &session.stream;
        let mut items: Vec<_> = stream
            .evals
            .iter()
            .flat_map(|e| e.items.iter().copied())
            .collect();
        key.sub("test").order(&mut items, |i| i.id.mix());
        items.truncate(self.images);
        let mut known = Vec::new();
        stream.gather(Part::Test, &items, &mut known);
        let width = stream.features();
        let order = key.sub("permuted").permutation(width);
        let rows = known.chunks_exact(width);
        let permuted = rows
            .flat_map(|row| order.iter().map(|i| row[*i as usize]))
            .collect();
        let inverted = known.iter().map(|v| 1.0 - v).collect();
        let small = "[stream]\ndataset = \"digits\"\nsplit = 1\nnormalise = \"raw\"\n";
        let small = Recipe::parse(small, &[])?
            .file()
            .stream
            .build(options.data_dir, 0)?;
        let mut others = small.experiences[0].train.to_vec();
        key.sub("digits").order(&mut others, |i| i.id.mix());
        others.truncate(self.images);
        let mut tiny = Vec::new();
        small.gather(Part::Train, &others, &mut tiny);
        let ([_, h, w], [_, _, from]) = (stream.shape(), small.shape());
        let enlarged = tiny.chunks_exact(small.features()).flat_map(|row| {
            (0..h * w).map(move |i| row[i / w * from / h * from + i % w * from / w])
        });
        let mut digits: Vec<f32> = enlarged.collect();
        digits.truncate(digits.len() / width * width);
        // What was made of an image is another view of it.
        let view = |view: u32| items.iter().map(move |i| i.id.with_view(view));
        let mut ids: Vec<ExampleId> = (0..3).flat_map(view).collect();
        ids.extend(others.iter().map(|i| i.id));
        Ok((known, items, vec![permuted, inverted, digits], ids))
    }
}

/// Features and logits of rows of inputs, in evaluation mode.
fn judge(session: &mut Session, x: &[f32]) -> Result<Vec<Judged>> {
    let (width, outputs) = (session.stream.features(), outputs(&session.stream));
    let mut all = Vec::new();
    for rows in x.chunks(256 * width) {
        let n = rows.len() / width;
        let features = session.oracle.activations("head.in", rows.to_vec(), n)?;
        let logits = session.oracle.logits(rows.to_vec(), n);
        let each = features.chunks_exact(features.len() / n);
        all.extend(each.zip(logits.chunks_exact(outputs)).map(|(f, z)| Judged {
            features: f.to_vec(),
            logits: z.to_vec(),
        }));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_entropies_of_known_logits() {
        let judged = |logits: &[f32]| Judged {
            features: Vec::new(),
            logits: logits.to_vec(),
        };
        let even = judged(&[1.0, 1.0, 1.0, 1.0]);
        assert!((even.entropy() - 4f64.ln()).abs() < 1e-12 && even.answer() == 0);
        let sure = judged(&[0.0, 900.0]);
        assert!(sure.entropy() < 1e-12 && sure.answer() == 1);
        let third = judged(&[0.0, 2f32.ln()]);
        let want = 3f64.ln() - 2.0 / 3.0 * 2f64.ln();
        assert!((third.entropy() - want).abs() < 1e-7);
    }
}
