//! Forgetting events: how often a training example turns from right to wrong, and what that finds.
//!
//! **Source.** Toneva et al., ICLR 2019 (card S042). **What is measured**, a value a seed:
//!
//! | arm | trained on | measures |
//! |---|---|---|
//! | `noisy` | all, a share of labels flipped | how well the count tells flipped labels, beside the final loss and "never learned" |
//! | `full` | all | test accuracy, shares of learned and of unforgettable examples, agreement with another seed |
//! | `kept_forgotten` | without the share of lowest count | test accuracy |
//! | `kept_random` | without as many of each class, at random | test accuracy |
//!
//! Counts for the removal come from runs of their own, with seeds no arm has.
//! **Costs** one small training run an arm and seed.

use super::found::Found;
use crate::clause::Samples;
use crate::error::{Error, Result};
use crate::runner::{Ended, Options, Watch};
use crate::verdict::Verdict;
use ebb_data::{Item, Part, Stream};
use ebb_learn::evaluate::outcome;
use ebb_learn::seen::outputs;
use ebb_learn::{Around, Recipe, Session, Silent, learn_keeping};
use ebb_record::{ForgettingEvents, summed_counts};
use ebb_space::stats::{Alternative, auroc, spearman};
use ebb_space::{Direction, ExampleId, Key};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// The arms that clauses may name.
pub const ARMS: &[&str] = &["full", "kept_forgotten", "kept_random", "noisy"];

/// What is trained, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The dataset.
    pub dataset: String,
    /// Training examples, drawn once for all seeds.
    pub examples: usize,
    /// Passes over them.
    pub epochs: u64,
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// Learning rate of plain SGD.
    pub lr: f64,
    /// Rows a step.
    pub batch: usize,
    /// Share of labels flipped in the noisy arm.
    pub flipped: f64,
    /// Share of examples removed.
    pub removed: f64,
    /// Runs whose counts decide what is removed.
    pub counting_runs: u64,
}

/// The seed of what all runs share: which examples, which of them are flipped or removed.
const SHARED: u64 = 42;
/// Counting runs have seeds from here on.
const COUNTING: u64 = 1_000_000;

/// A run that was trained.
struct Trained {
    events: ForgettingEvents,
    accuracy: f64,
    /// Loss at the end, of each training example.
    losses: HashMap<ExampleId, f32>,
}

struct World<'a> {
    spec: &'a Spec,
    stream: Stream,
    options: &'a Options<'a>,
}

pub(crate) fn run(
    spec: &Spec,
    seeds: &[u64],
    options: &Options,
    watch: &mut dyn Watch,
    verdict: &mut Verdict,
) -> Result<Samples> {
    let shares = [spec.flipped, spec.removed];
    if shares.iter().any(|s| !(*s > 0.0 && *s < 1.0)) || spec.counting_runs == 0 || seeds.len() < 2
    {
        return Err(Error::Study {
            id: verdict.id.clone(),
            reason: "its shares lie between 0 and 1, with at least two seeds and one counting run"
                .to_owned(),
        });
    }
    let recipe = spec.recipe(0)?;
    let stream = recipe.file().stream.build(options.data_dir, SHARED)?;
    let world = World {
        spec,
        stream,
        options,
    };
    watch.ahead(seeds.len() * ARMS.len() + spec.counting_runs as usize);
    let (noisy_items, flipped) = world.flipped();
    let all = world.items().to_vec();

    let mut counting = Vec::new();
    for i in 0..spec.counting_runs {
        counting.push(world.watched("full", COUNTING + i, &all, watch, Some("counting"))?);
    }
    let events: Vec<&ForgettingEvents> = counting.iter().map(|t| &t.events).collect();
    let [kept_forgotten, kept_random] = world.kept(&summed_counts(&events)?);

    let train = |arm: &str, items: &[Item], watch: &mut dyn Watch| -> Result<Vec<Trained>> {
        seeds
            .iter()
            .map(|seed| world.watched(arm, *seed, items, watch, None))
            .collect()
    };
    let full = train("full", &all, watch)?;
    let noisy = train("noisy", &noisy_items, watch)?;
    let forgotten = train("kept_forgotten", &kept_forgotten, watch)?;
    let random = train("kept_random", &kept_random, watch)?;

    let protocol = format!(
        "{} {} examples, MLP {:?}, SGD {} batch {}, {} epochs",
        spec.dataset, spec.examples, spec.hidden, spec.lr, spec.batch, spec.epochs
    );
    let mut found = Found::new("fine-tune", protocol, seeds);
    for (arm, runs) in [
        ("full", &full),
        ("noisy", &noisy),
        ("kept_forgotten", &forgotten),
        ("kept_random", &random),
    ] {
        let accuracy = runs.iter().map(|t| t.accuracy).collect();
        found.add(
            arm,
            "accuracy",
            accuracy,
            Direction::Higher,
            "test accuracy",
        );
        found.events(arm, runs);
    }
    found.detection(&noisy, &flipped)?;
    found.agreement(&full)?;
    let (samples, arms) = found.finish()?;
    verdict.arms = arms;
    Ok(samples)
}

impl Spec {
    fn recipe(&self, seed: u64) -> Result<Recipe> {
        let classes: Vec<u32> = (0..10).collect();
        let text = format!(
            "seed = {seed}\n\
             method = \"fine-tune\"\n\
             [stream]\ndataset = \"{}\"\nkind = \"split\"\ngroups = [{classes:?}]\n\
             per_experience = {}\nseed = {SHARED}\n\
             [network]\nkind = \"mlp\"\nhidden = {:?}\n\
             [train]\nlr = {:?}\nbatch = {}\nepochs = {}\n\
             [evaluate]\nevery = 0\noutcomes = false\nforgetting-events = true\n",
            self.dataset, self.examples, self.hidden, self.lr, self.batch, self.epochs
        );
        Ok(Recipe::parse(&text, &[])?)
    }
}

impl World<'_> {
    fn items(&self) -> &[Item] {
        &self.stream.experiences[0].train
    }

    /// The training items with a share of labels moved to another class, and which they are.
    fn flipped(&self) -> (Vec<Item>, HashSet<ExampleId>) {
        let key = Key::new(SHARED, "flipped labels");
        let classes = self.stream.classes as u64;
        let mut ids = HashSet::new();
        let items = self
            .items()
            .iter()
            .map(|item| {
                let mut item = *item;
                if key.uniform(item.id.mix()) < self.spec.flipped {
                    let step = 1 + key.sub("to").draw(item.id.mix()) % (classes - 1);
                    item.label = ((u64::from(item.label) + step) % classes) as u32;
                    ids.insert(item.id);
                }
                item
            })
            .collect();
        (items, ids)
    }

    /// What is left without the share of lowest count, and without as many of each class at
    /// random. Ties are broken by a draw.
    fn kept(&self, counts: &[(ExampleId, u64)]) -> [Vec<Item>; 2] {
        let key = Key::new(SHARED, "removal");
        let count: HashMap<ExampleId, u64> = counts.iter().copied().collect();
        let mut order = self.items().to_vec();
        order.sort_by_key(|i| (count.get(&i.id).copied(), key.draw(i.id.mix())));
        let cut = (order.len() as f64 * self.spec.removed).round() as usize;
        let removed = &order[..cut];
        let mut left = vec![0usize; self.stream.classes];
        for item in removed {
            left[item.label as usize] += 1;
        }
        let mut random = self.items().to_vec();
        key.sub("random").order(&mut random, |i| i.id.mix());
        random.retain(|item| {
            let left = &mut left[item.label as usize];
            let goes = *left > 0;
            *left -= usize::from(goes);
            !goes
        });
        [order[cut..].to_vec(), random]
    }

    fn watched(
        &self,
        arm: &str,
        seed: u64,
        items: &[Item],
        watch: &mut dyn Watch,
        trial: Option<&str>,
    ) -> Result<Trained> {
        let begun = Instant::now();
        let failed = |e: Error| match e {
            Error::Learn(ebb_learn::Error::Interrupted { .. }) => Error::Stopped,
            Error::Learn(source) => Error::Run {
                arm: arm.to_owned(),
                seed,
                source: Box::new(source),
            },
            e => e,
        };
        let trained = self.train(items, seed).map_err(failed)?;
        watch.run(&Ended {
            arm: arm.to_owned(),
            seed,
            trial: trial.map(str::to_owned),
            seconds: begun.elapsed().as_secs_f64(),
            measured: BTreeMap::from([("accuracy".to_owned(), trained.accuracy)]),
        });
        Ok(trained)
    }

    /// Plain SGD with every presentation observed before its update.
    fn train(&self, items: &[Item], seed: u64) -> Result<Trained> {
        let recipe = self.spec.recipe(seed)?;
        let mut stream = self.stream.clone();
        stream.experiences[0].train = items.into();
        let session = Session::on(&recipe, Arc::new(stream))?;
        let mut around = Around {
            data_dir: self.options.data_dir,
            progress: &mut Silent,
            stop: self.options.stop,
        };
        let (summary, mut session) = learn_keeping(session, None, &mut around)?;
        let outputs = outputs(&session.stream);
        let mut losses = HashMap::new();
        for rows in items.chunks(256) {
            let mut x = Vec::new();
            session.stream.gather(Part::Train, rows, &mut x);
            let logits = session.oracle.logits(x, rows.len());
            for (item, z) in rows.iter().zip(logits.chunks_exact(outputs)) {
                losses.insert(item.id, outcome(z, item.label as usize).loss);
            }
        }
        let accuracy = summary.matrix.first().and_then(|row| *row.first()?);
        Ok(Trained {
            events: session.events,
            accuracy: accuracy.unwrap_or(f64::NAN),
            losses,
        })
    }
}

/// What is measured beside the accuracy.
impl Found<'_> {
    /// Shares of the training examples.
    fn events(&mut self, arm: &str, runs: &[Trained]) {
        let share = |test: &dyn Fn(&ebb_record::History) -> bool| -> Vec<f64> {
            runs.iter()
                .map(|t| {
                    let all = t.events.histories();
                    all.iter().filter(|(_, h)| test(h)).count() as f64 / all.len() as f64
                })
                .collect()
        };
        let learned = share(&|h| h.first_learned.is_some());
        let unforgettable = share(&|h| h.unforgettable());
        self.add(
            arm,
            "learned",
            learned,
            Direction::None,
            "share ever answered correctly",
        );
        self.add(
            arm,
            "unforgettable",
            unforgettable,
            Direction::None,
            "share learned and never forgotten",
        );
    }

    /// How well flipped labels are told by their count, and by simpler signs.
    fn detection(&mut self, noisy: &[Trained], flipped: &HashSet<ExampleId>) -> Result<()> {
        let (mut count, mut loss, mut never, mut learned) = (vec![], vec![], vec![], vec![]);
        for t in noisy {
            let all = t.events.histories();
            let positive: Vec<bool> = all.iter().map(|(id, _)| flipped.contains(id)).collect();
            let counts: Vec<f64> = all.iter().map(|(_, h)| f64::from(h.count())).collect();
            let losses: Vec<f64> = all.iter().map(|(id, _)| f64::from(t.losses[id])).collect();
            let nevers: Vec<f64> = all
                .iter()
                .map(|(_, h)| f64::from(u8::from(h.first_learned.is_none())))
                .collect();
            count.push(auroc(&counts, &positive)?);
            loss.push(auroc(&losses, &positive)?);
            never.push(auroc(&nevers, &positive)?);
            let kept: Vec<usize> = (0..all.len())
                .filter(|i| all[*i].1.first_learned.is_some())
                .collect();
            let scores: Vec<f64> = kept.iter().map(|i| counts[*i]).collect();
            let positive: Vec<bool> = kept.iter().map(|i| positive[*i]).collect();
            learned.push(auroc(&scores, &positive)?);
        }
        let up = Direction::Higher;
        self.add(
            "noisy",
            "auroc_count",
            count,
            up,
            "AUROC of the count for flipped labels",
        );
        self.add(
            "noisy",
            "auroc_loss",
            loss,
            up,
            "AUROC of the final loss for flipped labels",
        );
        self.add(
            "noisy",
            "auroc_never",
            never,
            up,
            "AUROC of never learned for flipped labels",
        );
        self.add(
            "noisy",
            "auroc_among_learned",
            learned,
            up,
            "AUROC of the count for flipped labels, learned examples only",
        );
        Ok(())
    }

    /// Rank correlation of the counts of each seed with those of the next: over the examples that
    /// the first of the two forgot; over those that either forgot; over all.
    ///
    /// Choosing examples by the sum of both counts ties one down where the other is 0: where most
    /// counts are 0 or 1 that correlation is negative even for counts that agree. Choosing by one
    /// seed alone has no such sign.
    fn agreement(&mut self, full: &[Trained]) -> Result<()> {
        let pairs: Vec<Vec<[f64; 2]>> = (0..full.len())
            .map(|i| {
                let (a, b) = (&full[i].events, &full[(i + 1) % full.len()].events);
                let count = |h: &ebb_record::History| f64::from(h.count());
                let both = |(id, h): &(ExampleId, _)| [count(h), b.get(id).map_or(0.0, count)];
                a.histories().iter().map(both).collect()
            })
            .collect();
        for (name, among, chosen) in [
            (
                "agreement",
                "over examples that the first forgot",
                &(|p: &[f64; 2]| p[0] > 0.0) as &dyn Fn(&[f64; 2]) -> bool,
            ),
            (
                "agreement_either",
                "over examples that either forgot",
                &|p| p[0] + p[1] > 0.0,
            ),
            ("agreement_all", "over all examples", &|_| true),
        ] {
            let values = pairs
                .iter()
                .map(|pairs| rank_correlation(pairs.iter().filter(|p| chosen(p))))
                .collect::<Result<Vec<f64>>>()?;
            let what = format!("Spearman of the counts of two seeds, {among}");
            self.add("full", name, values, Direction::None, &what);
        }
        Ok(())
    }
}

fn rank_correlation<'a>(pairs: impl Iterator<Item = &'a [f64; 2]>) -> Result<f64> {
    let (x, y): (Vec<f64>, Vec<f64>) = pairs.map(|p| (p[0], p[1])).unzip();
    Ok(spearman(&x, &y, Alternative::Greater)?.statistic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::atomic::AtomicBool;

    fn spec() -> Spec {
        Spec {
            dataset: "digits".into(),
            examples: 400,
            epochs: 3,
            hidden: vec![16],
            lr: 0.1,
            batch: 32,
            flipped: 0.1,
            removed: 0.4,
            counting_runs: 1,
        }
    }

    #[test]
    fn flips_and_removals_are_what_they_say() {
        let stop = AtomicBool::new(false);
        let options = Options {
            data_dir: Path::new("."),
            threads: 1,
            stop: &stop,
            kept: None,
        };
        let spec = spec();
        let stream = spec
            .recipe(0)
            .unwrap()
            .file()
            .stream
            .build(Path::new("."), SHARED)
            .unwrap();
        let world = World {
            spec: &spec,
            stream,
            options: &options,
        };
        let (noisy, flipped) = world.flipped();
        for (a, b) in world.items().iter().zip(&noisy) {
            assert_eq!(a.id, b.id);
            assert_eq!(a.label != b.label, flipped.contains(&a.id));
        }
        // 400 draws at 0.1: within five deviations.
        assert!(
            (flipped.len() as f64 - 40.0).abs() < 30.0,
            "{}",
            flipped.len()
        );

        // Counts that rise with the place: the first 160 go.
        let counts: Vec<(ExampleId, u64)> = world
            .items()
            .iter()
            .enumerate()
            .map(|(i, item)| (item.id, i as u64))
            .collect();
        let [kept, random] = world.kept(&counts);
        assert_eq!((kept.len(), random.len()), (240, 240));
        let gone: HashSet<_> = world.items()[..160].iter().map(|i| i.id).collect();
        assert!(kept.iter().all(|i| !gone.contains(&i.id)));
        let by_class = |items: &[Item]| {
            let mut n = [0; 10];
            items.iter().for_each(|i| n[i.label as usize] += 1);
            n
        };
        assert_eq!(
            by_class(&kept),
            by_class(&random),
            "the same class proportions"
        );
        assert_ne!(
            kept.iter().map(|i| i.id).collect::<HashSet<_>>(),
            random.iter().map(|i| i.id).collect::<HashSet<_>>()
        );
    }

    /// Counts of two seeds with one rate an example: rare events, rates that differ tenfold. They
    /// agree by construction, and choosing by either seed hides it.
    #[test]
    fn choosing_examples_by_either_seed_reverses_agreement() {
        let key = Key::new(5, "two seeds");
        let pairs: Vec<[f64; 2]> = (0..5000)
            .map(|i| {
                let rate = if i % 10 == 0 { 0.3 } else { 0.03 };
                let count = |seed: u64| {
                    let hits = (0..3).filter(|t| key.at(seed).at(*t).uniform(i) < rate);
                    hits.count() as f64
                };
                [count(0), count(1)]
            })
            .collect();
        let over = |chosen: &dyn Fn(&&[f64; 2]) -> bool| {
            rank_correlation(pairs.iter().filter(chosen)).unwrap()
        };
        assert!(over(&|_| true) > 0.1);
        assert!(over(&|p| p[0] > 0.0) > 0.1);
        assert!(over(&|p| p[0] + p[1] > 0.0) < -0.1);
    }

    #[test]
    fn detection_scores_a_perfect_and_a_useless_sign() {
        let id = |n: u32| ExampleId::of(&n.to_le_bytes(), 0);
        let mut events = ForgettingEvents::new();
        let mut losses = HashMap::new();
        for n in 0..20u32 {
            for t in 0..4 {
                // Flipped ones (0 to 4) fall twice, the others never; all are learned.
                events.observe(id(n), n >= 5 || t % 2 == 0, 0.0);
            }
            losses.insert(id(n), 1.0);
        }
        let trained = Trained {
            events,
            accuracy: 1.0,
            losses,
        };
        let mut found = Found::new("fine-tune", String::new(), &[1]);
        found
            .detection(&[trained], &(0..5).map(id).collect())
            .unwrap();
        let value = |name: &str| found.numbers[&("noisy".to_owned(), name.to_owned())][0].value;
        assert_eq!(value("auroc_count"), 1.0);
        assert_eq!(value("auroc_among_learned"), 1.0);
        assert_eq!(value("auroc_never"), 0.5);
        assert_eq!(value("auroc_loss"), 0.5);
    }
}
