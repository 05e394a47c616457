//! Recognition, recall and retention of texts that were seen a few times.
//!
//! **Source.** Few-shot memories in language models, 2023 (card S060). A decoder is trained on
//! sentences of a small grammar; then it sees a set of new ones one to three times, and then other
//! text again. **What is measured**, a value a seed:
//!
//! | arm | what the model saw | measures |
//! |---|---|---|
//! | `before` | no sentence of the set | `recognition`, `recognition_hard`, `recall`, `rouge` |
//! | `once`, `twice`, `thrice` | the set so often | the same |
//! | `gibberish` | as many strings of random words, three times | the same, of these strings |
//! | `other` | as many other sentences, three times | the same, of the set: a control |
//! | `after_N` | the set three times, then N steps of other text | the same |
//! | `decay` | | how well `a + b log t` and `a + b t` fit the recall over these N, `r2_log`, `r2_line` |
//!
//! *Recognition*: the share of pairs in which the sentence has a lower loss than its foil; the foil
//! is another sentence of the same form, or (`hard`) the same with one word replaced. *Recall*: the
//! share whose second half the model says word by word when given the first half; *rouge* is
//! ROUGE-L of that half alone. The rate of learning the set is the best of a few, found for each
//! number of exposures with seeds that no arm has.

use super::learner::{Learner, Row, Small};
use super::sentences::{Sentence, row, tokenizer, vocabulary};
use crate::clause::Samples;
use crate::error::{Error, Result};
use crate::native::found::Found;
use crate::runner::{Ended, Options, Watch};
use crate::verdict::Verdict;
use ebb_hub::Tokenizer;
use ebb_space::stats::Line;
use ebb_space::{Direction, Key};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// The arms that clauses may name.
pub const ARMS: &[&str] = &[
    "after_10",
    "after_100",
    "after_1000",
    "after_3",
    "after_30",
    "after_300",
    "before",
    "decay",
    "gibberish",
    "once",
    "other",
    "thrice",
    "twice",
];

/// Steps of other text after which the set is asked again.
const AFTER: [(u64, &str); 6] = [
    (3, "after_3"),
    (10, "after_10"),
    (30, "after_30"),
    (100, "after_100"),
    (300, "after_300"),
    (1000, "after_1000"),
];
const EXPOSURES: [(usize, &str); 3] = [(1, "once"), (2, "twice"), (3, "thrice")];
/// Tokens of a sentence at most: a word may be several.
const LENGTH: usize = 32;
/// Rates are chosen with seeds from here on.
const TUNING: u64 = 1_000_000;

/// What is trained, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// A language model that is there already, in the place of one from fresh weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The network, and how it learns text; of a model that is there, how alone.
    pub network: Small,
    /// Steps before the set.
    pub steps: u64,
    /// Sentences in the set.
    pub set: usize,
    /// Sentences a step while the set is learnt.
    pub set_batch: usize,
    /// Steps of other text that are followed, at most.
    #[serde(default = "thousand")]
    pub follow: u64,
    /// Rates that the set may be learnt at.
    pub set_lr: Vec<f64>,
    /// Seeds of their own that the rate is chosen with.
    pub tuning_seeds: u64,
}

fn thousand() -> u64 {
    1000
}

/// Rows of a set with their foils.
struct Asked {
    rows: Vec<Row>,
    unrelated: Vec<Row>,
    swapped: Vec<Row>,
}

/// What a model was asked.
#[derive(Clone, Copy, Default)]
struct Memory {
    recognition: f64,
    recognition_hard: f64,
    recall: f64,
    rouge: f64,
}

struct World<'a> {
    spec: &'a Spec,
    tokenizer: Tokenizer,
    options: &'a Options<'a>,
    /// What every seed begins with, if that is one model.
    model: Option<Learner>,
}

pub(crate) fn run(
    spec: &Spec,
    seeds: &[u64],
    options: &Options,
    watch: &mut dyn Watch,
    verdict: &mut Verdict,
) -> Result<Samples> {
    if spec.set == 0 || spec.set_batch == 0 || spec.set_lr.is_empty() || spec.tuning_seeds == 0 {
        return Err(Error::Study {
            id: verdict.id.clone(),
            reason: "it needs a set, batches and at least one rate".to_owned(),
        });
    }
    let (model, tokenizer) = match &spec.model {
        None => (None, tokenizer(vocabulary())?),
        Some(name) => {
            let (data, net) = (options.data_dir, &spec.network);
            let (learner, tokenizer) = Learner::pretrained(name, net, LENGTH, 0, data)?;
            (Some(learner), tokenizer)
        }
    };
    let world = World {
        spec,
        tokenizer,
        options,
        model,
    };
    watch.ahead(seeds.len() + 1);
    let rates = world.rates(watch)?;
    let mut found: BTreeMap<&str, Vec<Memory>> = BTreeMap::new();
    let mut fits = [Vec::new(), Vec::new()];
    for seed in seeds {
        let begun = Instant::now();
        let all = world.seed(*seed, &rates)?;
        let curve: Vec<(f64, f64)> = AFTER
            .iter()
            .filter_map(|(steps, arm)| Some((*steps as f64, all.get(arm)?.recall)))
            .collect();
        let log: Vec<(f64, f64)> = curve.iter().map(|(t, r)| (t.ln(), *r)).collect();
        for (found, points) in fits.iter_mut().zip([&log, &curve]) {
            found.push(Line::fit(points)?.r_squared);
        }
        watch.run(&Ended {
            arm: "thrice".to_owned(),
            seed: *seed,
            trial: None,
            seconds: begun.elapsed().as_secs_f64(),
            measured: BTreeMap::from([("recall".to_owned(), all["thrice"].recall)]),
        });
        for (arm, memory) in all {
            found.entry(arm).or_default().push(memory);
        }
    }
    let n = &spec.network;
    let model = match &spec.model {
        Some(model) => model.clone(),
        None => format!("decoder {} x {}", n.layers, n.width),
    };
    let protocol = format!(
        "{model}, {} steps of {} sentences, a set of {}",
        spec.steps, n.batch, spec.set
    );
    let mut report = Found::new("few-shot", protocol, seeds);
    for (arm, memories) in &found {
        let mut add = |name: &str, of: fn(&Memory) -> f64, what: &str| {
            let values = memories.iter().map(of).collect();
            report.add(arm, name, values, Direction::None, what);
        };
        let pairs = "share of pairs with the lower loss on the sentence of the set";
        add("recognition", |m| m.recognition, pairs);
        let hard = "the same, the foil being the sentence with one word replaced";
        add("recognition_hard", |m| m.recognition_hard, hard);
        add(
            "recall",
            |m| m.recall,
            "share of second halves said exactly",
        );
        add("rouge", |m| m.rouge, "ROUGE-L of the second half");
    }
    let [log, line] = fits;
    let higher = Direction::Higher;
    report.add("decay", "r2_log", log, higher, "R² of a + b log t");
    report.add("decay", "r2_line", line, higher, "R² of a + b t");
    let (samples, arms) = report.finish()?;
    verdict.arms = arms;
    let said = rates
        .iter()
        .zip(EXPOSURES)
        .map(|(lr, (_, arm))| format!("{arm} {lr}"));
    let said: Vec<String> = said.collect();
    verdict.notes.push(format!(
        "Rates chosen on seeds of their own: {}.",
        said.join(", ")
    ));
    Ok(samples)
}

impl World<'_> {
    fn learner(&self, seed: u64) -> Result<Learner> {
        let mut learner = match &self.model {
            Some(model) => model.branch(),
            None => Learner::new(&self.spec.network, &self.tokenizer, LENGTH, seed)?,
        };
        self.text(&mut learner, Key::new(seed, "text"), 0..self.spec.steps)?;
        Ok(learner)
    }

    /// Steps of text that nobody asks about.
    fn text(&self, learner: &mut Learner, key: Key, steps: std::ops::Range<u64>) -> Result<()> {
        for step in steps {
            if self.options.stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            let key = key.at(step);
            let rows: Vec<Row> = (0..self.spec.network.batch as u64)
                .map(|i| self.row(&Sentence::new(key.at(i))))
                .collect::<Result<_>>()?;
            learner.step(&rows.iter().collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn row(&self, sentence: &Sentence) -> Result<Row> {
        row(&sentence.words, 1, &self.tokenizer)
    }

    /// A set and its foils, of sentences or of random words.
    fn asked(&self, key: Key, sentences: bool) -> Result<Asked> {
        let of: Vec<Sentence> = (0..self.spec.set as u64)
            .map(|i| match sentences {
                true => Sentence::new(key.at(i)),
                false => Sentence::gibberish(key.at(i)),
            })
            .collect();
        let foils = |foil: &dyn Fn(&Sentence, Key) -> Sentence, name: &str| {
            let key = key.sub(name);
            let rows = (0u64..)
                .zip(&of)
                .map(|(i, s)| self.row(&foil(s, key.at(i))));
            rows.collect::<Result<Vec<Row>>>()
        };
        let unrelated: &dyn Fn(&Sentence, Key) -> Sentence = match sentences {
            true => &|s, key| s.unrelated(key),
            false => &|_, key| Sentence::gibberish(key),
        };
        Ok(Asked {
            unrelated: foils(unrelated, "unrelated")?,
            swapped: foils(&|s, key| s.swapped(key), "swapped")?,
            rows: of.iter().map(|s| self.row(s)).collect::<Result<_>>()?,
        })
    }

    /// The set, `times` over, each time in another order.
    fn study(
        &self,
        learner: &mut Learner,
        rows: &[Row],
        times: usize,
        lr: f64,
        key: Key,
    ) -> Result<()> {
        let usual = learner.rate(lr);
        for pass in 0..times as u64 {
            let mut order: Vec<&Row> = rows.iter().collect();
            key.at(pass).order(&mut order, |row| row.id.mix());
            for batch in order.chunks(self.spec.set_batch) {
                learner.step(batch)?;
            }
        }
        learner.rate(usual);
        Ok(())
    }

    fn ask(&self, learner: &mut Learner, asked: &Asked) -> Result<Memory> {
        let of =
            |rows: &[Row], learner: &mut Learner| learner.losses(&rows.iter().collect::<Vec<_>>());
        let seen = of(&asked.rows, learner);
        let lower = |foils: Vec<f64>| {
            let points = seen.iter().zip(&foils).map(|(seen, foil)| {
                let order = seen.partial_cmp(foil);
                match order {
                    Some(std::cmp::Ordering::Less) => 1.0,
                    Some(std::cmp::Ordering::Equal) => 0.5,
                    _ => 0.0,
                }
            });
            points.sum::<f64>() / foils.len() as f64
        };
        let (unrelated, swapped) = (of(&asked.unrelated, learner), of(&asked.swapped, learner));
        let half = |row: &Row| row.tokens.len() / 2;
        let prompts: Vec<&[u32]> = asked.rows.iter().map(|r| &r.tokens[..half(r)]).collect();
        let rest = asked.rows.iter().map(|r| r.tokens.len() - half(r)).max();
        let said = learner.goes_on(&prompts, rest.unwrap_or(0))?;
        let (mut exact, mut rouge) = (0, 0.0);
        for (row, said) in asked.rows.iter().zip(&said) {
            let truth = &row.tokens[half(row)..];
            let said = &said[..said.len().min(truth.len())];
            exact += usize::from(said == truth);
            let text = |tokens: &[u32]| {
                let text = self.tokenizer.decode(tokens, true);
                text.map_err(ebb_learn::Error::from)
            };
            rouge += ebb_text::metrics::rouge_l(&text(said)?, &text(truth)?).f1;
        }
        let n = asked.rows.len() as f64;
        Ok(Memory {
            recognition: lower(unrelated),
            recognition_hard: lower(swapped),
            recall: exact as f64 / n,
            rouge: rouge / n,
        })
    }

    /// The rate for each number of exposures: the one of most recall and recognition together.
    fn rates(&self, watch: &mut dyn Watch) -> Result<Vec<f64>> {
        let begun = Instant::now();
        let mut scores = vec![vec![0.0; self.spec.set_lr.len()]; EXPOSURES.len()];
        for seed in TUNING..TUNING + self.spec.tuning_seeds {
            let learner = self.learner(seed)?;
            let key = Key::new(seed, "set");
            let asked = self.asked(key, true)?;
            for ((times, _), scores) in EXPOSURES.iter().zip(&mut scores) {
                for (lr, score) in self.spec.set_lr.iter().zip(scores) {
                    let mut learner = learner.branch();
                    self.study(&mut learner, &asked.rows, *times, *lr, key)?;
                    let memory = self.ask(&mut learner, &asked)?;
                    *score += memory.recall + memory.recognition_hard;
                }
            }
        }
        let best = |scores: &Vec<f64>| {
            let rates = self.spec.set_lr.iter().zip(scores);
            let best = rates.max_by(|a, b| a.1.total_cmp(b.1));
            best.map_or(self.spec.network.lr, |(lr, _)| *lr)
        };
        let chosen = scores.iter().map(best).collect();
        watch.run(&Ended {
            arm: "thrice".to_owned(),
            seed: TUNING,
            trial: Some("rates".to_owned()),
            seconds: begun.elapsed().as_secs_f64(),
            measured: BTreeMap::new(),
        });
        Ok(chosen)
    }

    fn seed(&self, seed: u64, rates: &[f64]) -> Result<BTreeMap<&'static str, Memory>> {
        let mut learner = self.learner(seed)?;
        let key = Key::new(seed, "set");
        let asked = self.asked(key, true)?;
        let mut all = BTreeMap::from([("before", self.ask(&mut learner, &asked)?)]);
        let most = rates[EXPOSURES.len() - 1];

        let strings = self.asked(key.sub("gibberish"), false)?;
        let mut branch = learner.branch();
        self.study(&mut branch, &strings.rows, 3, most, key)?;
        all.insert("gibberish", self.ask(&mut branch, &strings)?);

        let others = self.asked(key.sub("other"), true)?;
        let mut branch = learner.branch();
        self.study(&mut branch, &others.rows, 3, most, key)?;
        all.insert("other", self.ask(&mut branch, &asked)?);

        for ((times, arm), lr) in EXPOSURES.into_iter().zip(rates) {
            let mut branch = learner.branch();
            self.study(&mut branch, &asked.rows, times, *lr, key)?;
            all.insert(arm, self.ask(&mut branch, &asked)?);
            if times < 3 {
                continue;
            }
            let text = Key::new(seed, "later text");
            let mut done = 0;
            for (steps, arm) in AFTER {
                if steps > self.spec.follow {
                    break;
                }
                self.text(&mut branch, text, done..steps)?;
                done = steps;
                all.insert(arm, self.ask(&mut branch, &asked)?);
            }
        }
        Ok(all)
    }
}
