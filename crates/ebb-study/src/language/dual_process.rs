//! Whether a network that forgets its embeddings works from the context, and one that forgets them
//! for a time both ways.
//!
//! **Source.** Dual process learning (card S083). Sentences such as `the X is Y .` or `Y is the X .`
//! are followed by one of both words, and the answer is which it was: the noun or the adjective.
//! Most words are always one of them; the place tells as well. **What is measured**, a value a seed:
//!
//! | arm | the embedding is drawn anew | measures |
//! |---|---|---|
//! | `plain` | never | `unseen`, `head`, `tail`, `usual` |
//! | `active` | every so many steps, to the end | the same |
//! | `temporary` | every so many steps, for a time | the same |
//!
//! `unseen` is the share of right answers about words that were never learnt, with fresh embeddings.
//! `head` and `tail` are the share of answers that go by a word's usual role where its place is the
//! other one, of frequent and of rare words; `usual` the right answers where both agree.

use super::course::{Course, follow, in_the_pool};
use super::learner::{Learner, Row, Small};
use super::sentences::{row, tokenizer};
use crate::clause::Samples;
use crate::error::{Error, Result};
use crate::native::found::Found;
use crate::runner::{Ended, Options, Watch};
use crate::verdict::Verdict;
use ebb_hub::Tokenizer;
use ebb_learn::methods::embedding_reset::EmbeddingResetSettings;
use ebb_space::{Direction, Key, Stream};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Instant;

/// The arms that clauses may name.
pub const ARMS: &[&str] = &["active", "plain", "temporary"];

/// What is trained, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The network, and how it learns; its head must be its own.
    pub network: Small,
    /// Nouns and adjectives together.
    pub words: usize,
    /// Words that are never learnt.
    pub unseen: usize,
    /// Zipf's exponent of how often words are met.
    pub exponent: f64,
    /// Steps.
    pub steps: u64,
    /// Steps between two draws of the embedding.
    pub every: u64,
    /// Steps after which the temporary arm draws no more.
    pub until: u64,
    /// Questions of each kind that are looked at.
    pub probes: usize,
    /// Weight decay.
    pub weight_decay: f64,
}

const ROLES: [&str; 2] = ["noun", "adjective"];

/// One word in so many has no usual role.
const AMBIGUOUS: usize = 10;

struct Words {
    names: Vec<String>,
    /// Running sums of Zipf's weights.
    sums: Vec<f64>,
}

impl Words {
    fn new(spec: &Spec) -> Self {
        let names = (0..spec.words + spec.unseen)
            .map(|i| format!("w{i}"))
            .collect();
        let mut sum = 0.0;
        let weight = |rank: usize| ((rank + 1) as f64).powf(-spec.exponent);
        let sums = (0..spec.words).map(|rank| {
            sum += weight(rank);
            sum
        });
        Self {
            sums: sums.collect(),
            names,
        }
    }

    fn ambiguous(word: usize) -> bool {
        word % AMBIGUOUS == AMBIGUOUS - 1
    }

    /// The usual role of a word.
    fn role(word: usize) -> usize {
        word % 2
    }

    /// A word for a place, as often as Zipf says.
    fn draw(&self, role: usize, draw: &mut Stream) -> usize {
        let all = self.sums.last().copied().unwrap_or(1.0);
        loop {
            let at = draw.uniform() * all;
            let word = self.sums.partition_point(|sum| *sum <= at);
            let word = word.min(self.sums.len() - 1);
            if Self::ambiguous(word) || Self::role(word) == role {
                return word;
            }
        }
    }

    /// A sentence with these words in the places of noun and adjective, a question for one of
    /// them, and this answer.
    fn asked(
        &self,
        words: [usize; 2],
        asked: usize,
        answer: usize,
        form: u64,
        t: &Tokenizer,
    ) -> Result<Row> {
        let [noun, adjective] = words.map(|w| self.names[w].as_str());
        let mut said = match form {
            0 => vec!["the", noun, "is", adjective, "."],
            _ => vec![adjective, "is", "the", noun, "."],
        };
        said.extend([self.names[words[asked]].as_str(), "was", ROLES[answer]]);
        let given = said.len() - 1;
        row(&said, given, t)
    }
}

pub(crate) fn run(
    spec: &Spec,
    seeds: &[u64],
    options: &Options,
    watch: &mut dyn Watch,
    verdict: &mut Verdict,
) -> Result<Samples> {
    if spec.network.tied || spec.words < 40 || spec.unseen < 2 || spec.every == 0 {
        return Err(Error::Study {
            id: verdict.id.clone(),
            reason: "it needs `tied = false`, 40 words, two unseen ones and an `every`".to_owned(),
        });
    }
    let words = Words::new(spec);
    let fixed = ["the", "is", ".", "was"].into_iter().chain(ROLES);
    let tokenizer = tokenizer(fixed.chain(words.names.iter().map(String::as_str)))?;
    watch.ahead(seeds.len());
    let mut all: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for seed in seeds {
        let begun = Instant::now();
        let found = in_the_pool(|| one(spec, *seed, &words, &tokenizer, options))?;
        let measured = found
            .iter()
            .map(|((arm, name), v)| (format!("{arm}.{name}"), *v));
        watch.run(&Ended {
            arm: "all".to_owned(),
            seed: *seed,
            trial: None,
            seconds: begun.elapsed().as_secs_f64(),
            measured: measured.collect(),
        });
        for (name, value) in found {
            all.entry(name).or_default().push(value);
        }
    }
    let n = &spec.network;
    let protocol = format!(
        "decoder {} x {}, {} words, {} steps, a draw every {}",
        n.layers, n.width, spec.words, spec.steps, spec.every
    );
    let mut report = Found::new("dual-process", protocol, seeds);
    for ((arm, name), values) in all {
        let what = match name {
            "unseen" => "right answers about words that were never learnt",
            "head" => "answers by the usual role against the place, frequent words",
            "tail" => "answers by the usual role against the place, rare words",
            _ => "right answers where role and place agree",
        };
        report.add(arm, name, values, Direction::None, what);
    }
    let (samples, arms) = report.finish()?;
    verdict.arms = arms;
    Ok(samples)
}

fn one(
    spec: &Spec,
    seed: u64,
    words: &Words,
    tokenizer: &Tokenizer,
    options: &Options,
) -> Result<BTreeMap<(&'static str, &'static str), f64>> {
    let key = Key::new(seed, "dual process");
    let usual = |key: Key| {
        let mut draw = key.stream();
        let both = [words.draw(0, &mut draw), words.draw(1, &mut draw)];
        let asked = draw.below(2) as usize;
        words.asked(both, asked, asked, draw.below(2), tokenizer)
    };
    let many = |what: &str, n: usize, make: &dyn Fn(Key) -> Result<Row>| {
        let key = key.sub(what);
        (0..n as u64)
            .map(|i| make(key.at(i)))
            .collect::<Result<Vec<Row>>>()
    };
    let unseen = |key: Key| {
        let mut draw = key.stream();
        let first = draw.below(spec.unseen as u64) as usize;
        let second = (first + 1 + draw.below(spec.unseen as u64 - 1) as usize) % spec.unseen;
        let both = [first, second].map(|w| spec.words + w);
        let asked = draw.below(2) as usize;
        words.asked(both, asked, asked, draw.below(2), tokenizer)
    };
    // The word that is asked for stands in the place of the other role; the answer is its own.
    let switched = |from: usize, to: usize| {
        move |key: Key| {
            let mut draw = key.stream();
            let asked = draw.below(2) as usize;
            let mut both = [words.draw(0, &mut draw), words.draw(1, &mut draw)];
            both[asked] = loop {
                let word = from + draw.below((to - from) as u64) as usize;
                if Words::role(word) != asked && !Words::ambiguous(word) {
                    break word;
                }
            };
            words.asked(both, asked, 1 - asked, draw.below(2), tokenizer)
        }
    };
    let n = spec.probes;
    let probes = [
        ("unseen", many("unseen", n, &unseen)?),
        ("head", many("head", n, &switched(0, spec.words / 10))?),
        (
            "tail",
            many("tail", n, &switched(spec.words / 2, spec.words))?,
        ),
        ("usual", many("usual", n, &usual)?),
    ];
    let batch = spec.network.batch;
    let learnt = many("learnt", spec.steps as usize * batch, &usual)?;
    let fresh: Vec<u32> = words.names[spec.words..]
        .iter()
        .filter_map(|w| tokenizer.id(&format!(" {w}")))
        .collect();
    let resets = |until| EmbeddingResetSettings {
        every: spec.every,
        until,
    };
    let mut found = BTreeMap::new();
    for (arm, resets) in [
        ("plain", None),
        ("active", Some(resets(0))),
        ("temporary", Some(resets(spec.until))),
    ] {
        let mut learner = Learner::new(&spec.network, tokenizer, 8, seed)?;
        learner.stage(spec.network.lr, spec.weight_decay);
        let course = Course {
            rows: &learnt,
            steps: spec.steps,
            batch,
            every: spec.every,
            key: key.sub("order"),
        };
        let mut step = 0;
        follow(&mut learner, &course, options, |learner| {
            // What was learnt since the last draw is looked at before there is another.
            if let Some(resets) = &resets
                && resets.due(step)
                && step < spec.steps
            {
                learner.reset_embedding(key.sub("draw").at(step))?;
            }
            step += spec.every;
            Ok(())
        })?;
        learner.fresh_rows(&fresh, key.sub("fresh"))?;
        for (name, rows) in &probes {
            let right = learner.right(&rows.iter().collect::<Vec<_>>());
            found.insert((arm, *name), right);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_in_their_places_as_often_as_zipf_says() {
        let network = Small {
            width: 8,
            layers: 1,
            heads: 1,
            lr: 0.1,
            warmup: 1,
            batch: 1,
            tied: false,
        };
        let spec = Spec {
            network,
            words: 100,
            unseen: 4,
            exponent: 1.5,
            steps: 1,
            every: 1,
            until: 1,
            probes: 1,
            weight_decay: 0.0,
        };
        let words = Words::new(&spec);
        let mut draw = Key::new(3, "words").stream();
        let n = 20_000;
        let nouns: Vec<usize> = (0..n).map(|_| words.draw(0, &mut draw)).collect();
        assert!((nouns.iter()).all(|w| *w < 100 && (w % 2 == 0 || w % 10 == 9)));
        // Of the words that may be nouns, the first has this share.
        let weight = |rank: usize| ((rank + 1) as f64).powf(-1.5);
        let all: f64 = (0..100)
            .filter(|w| w % 2 == 0 || w % 10 == 9)
            .map(weight)
            .sum();
        let first = nouns.iter().filter(|w| **w == 0).count() as f64 / f64::from(n);
        assert!((first - 1.0 / all).abs() < 0.015, "{first} {}", 1.0 / all);

        let fixed = ["the", "is", ".", "was"].into_iter().chain(ROLES);
        let names = words.names.iter().map(String::as_str);
        let tokenizer = tokenizer(fixed.chain(names)).expect("a tokenizer");
        let said = |form| {
            let row = words.asked([2, 1], 1, 1, form, &tokenizer).expect("a row");
            let words = row.tokens.iter().filter_map(|t| tokenizer.token(*t));
            let words: Vec<String> = words.map(|w| w.replace(['Ġ', ' '], "")).collect();
            (words.join(" "), row.given)
        };
        assert_eq!(said(0), ("the w2 is w1 . w1 was adjective".to_owned(), 7));
        assert_eq!(said(1), ("w1 is the w2 . w1 was adjective".to_owned(), 7));
    }
}
