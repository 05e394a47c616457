//! Whether freezing the columns that old texts use keeps them, at equal loss on new texts.
//!
//! **Source.** Source-shielded updates (card S017), beside half fine-tuning (card S115); blocks that
//! turn the stream (card S027). A decoder
//! learns the bytes of statements about some people, then of statements about others with every
//! letter replaced by another. **What is measured**, a value a seed:
//!
//! | arm | is trained | measures |
//! |---|---|---|
//! | `full` | everything | `rise`, `gain`, `last_rise`, `last_new` |
//! | `half` | a random half of the matrices and of the vectors | the same |
//! | `ssu`, `wanda` | all but the columns that the old texts use most, by either score | the same |
//! | `random` | all but as many random columns | the same |
//! | `blocks` | the blocks that turn the stream of the new texts most, and nothing else (card S027) | the same |
//! | `random_blocks` | as many random blocks | the same |
//!
//! `rise` is what held-out old statements lose (nats a byte) by the time that held-out new ones
//! have come down to the loss that every arm reaches; `gain` is how far that is below where they
//! began. `last_rise` and `last_new` are read after the last step. The embedding, which is the head
//! too, is trained where columns or tensors are frozen, and held where blocks are chosen.

use super::course::{Course, at_equal, follow, in_the_pool, mean, reached_by_all};
use super::learner::{Learner, Row, Small};
use crate::clause::Samples;
use crate::error::{Error, Result};
use crate::native::found::Found;
use crate::runner::{Ended, Options, Watch};
use crate::verdict::Verdict;
use ebb_hub::Tokenizer;
use ebb_learn::methods::chosen_blocks::{ChosenBlocksSettings, turns};
use ebb_learn::methods::hft;
use ebb_learn::methods::ssu::{ColumnScore, SsuSettings};
use ebb_learn::places::{places, whole};
use ebb_space::{Direction, Key, Mask};
use ebb_text::worlds::FactWorld;
use ebb_text::{Body, Example};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Instant;

/// The arms that clauses may name.
pub const ARMS: &[&str] = &[
    "blocks",
    "full",
    "half",
    "random",
    "random_blocks",
    "ssu",
    "wanda",
];

/// What is trained, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The network, and how it learns the old texts.
    pub network: Small,
    /// People of either world.
    pub people: usize,
    /// Tokens of a text at most.
    pub length: usize,
    /// Steps on old texts.
    pub steps: u64,
    /// Steps on new texts.
    pub new_steps: u64,
    /// Peak rate on new texts.
    pub new_lr: f64,
    /// Weight decay on new texts.
    pub weight_decay: f64,
    /// Steps between two looks.
    pub every: u64,
    /// What is compared, of the arms above.
    pub arms: Vec<String>,
    /// Share of the columns that is frozen.
    #[serde(default)]
    pub share: f64,
    /// Blocks that are trained.
    #[serde(default)]
    pub blocks: usize,
    /// Old texts that scores look at.
    pub samples: usize,
    /// Held-out texts of either world that are looked at.
    pub probes: usize,
}

/// Learnt texts and held-out ones.
struct Texts {
    learnt: Vec<Row>,
    held: Vec<Row>,
}

pub(crate) fn run(
    spec: &Spec,
    seeds: &[u64],
    options: &Options,
    watch: &mut dyn Watch,
    verdict: &mut Verdict,
) -> Result<Samples> {
    let known = spec.arms.iter().all(|arm| ARMS.contains(&arm.as_str()));
    if spec.every == 0 || spec.probes == 0 || spec.arms.is_empty() || !known {
        return Err(Error::Study {
            id: verdict.id.clone(),
            reason: format!("it needs looks, probes and `arms` of {}", ARMS.join(", ")),
        });
    }
    let tokenizer = Tokenizer::bytes().map_err(ebb_learn::Error::from)?;
    watch.ahead(seeds.len());
    let mut all: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for seed in seeds {
        let begun = Instant::now();
        let found = in_the_pool(|| one(spec, *seed, &tokenizer, options))?;
        let measured = (found.iter()).map(|((arm, name), v)| (format!("{arm}.{name}"), *v));
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
        "decoder {} x {}, bytes, {} people, {} and {} steps",
        n.layers, n.width, spec.people, spec.steps, spec.new_steps
    );
    let mut report = Found::new("shield", protocol, seeds);
    for ((arm, name), values) in all {
        let what = match name {
            "rise" => {
                "rise of the loss on held-out old texts where new ones cost as much in every arm"
            }
            "gain" => "fall of the loss on held-out new texts by then",
            "last_rise" => "rise of the loss on held-out old texts after the last step",
            _ => "loss on held-out new texts after the last step",
        };
        report.add(arm, name, values, Direction::Lower, what);
    }
    let (samples, arms) = report.finish()?;
    verdict.arms = arms;
    Ok(samples)
}

fn one(
    spec: &Spec,
    seed: u64,
    tokenizer: &Tokenizer,
    options: &Options,
) -> Result<BTreeMap<(&'static str, &'static str), f64>> {
    let key = Key::new(seed, "shield");
    let old = texts(spec, 2 * seed, None, tokenizer)?;
    let new = texts(spec, 2 * seed + 1, Some(key.sub("cipher")), tokenizer)?;
    let mut base = Learner::new(&spec.network, tokenizer, spec.length, seed)?;
    let course = |rows, steps, what: &str| Course {
        rows,
        steps,
        batch: spec.network.batch,
        every: spec.every,
        key: key.sub(what),
    };
    let first = Course {
        every: spec.steps.max(1),
        ..course(&old.learnt, spec.steps, "old")
    };
    follow(&mut base, &first, options, |_| Ok(()))?;
    let mut arms = Vec::new();
    for arm in ARMS
        .iter()
        .filter(|arm| spec.arms.iter().any(|a| a == *arm))
    {
        arms.push((*arm, held(spec, arm, &mut base, [&old, &new], key)?));
    }
    let mut courses = BTreeMap::new();
    for (arm, held) in arms {
        let mut learner = base.branch();
        learner.stage(spec.new_lr, spec.weight_decay);
        learner.hold(held);
        let course = course(&new.learnt, spec.new_steps, "new");
        let seen = follow(&mut learner, &course, options, |learner| {
            let loss = |rows: &Vec<Row>, learner: &mut Learner| {
                mean(&learner.losses(&rows.iter().collect::<Vec<_>>()))
            };
            // Less loss is more learnt.
            Ok((-loss(&new.held, learner), loss(&old.held, learner)))
        })?;
        courses.insert(arm, seen);
    }
    let target = reached_by_all(courses.values());
    let mut found = BTreeMap::new();
    for (arm, course) in courses {
        let (Some((begun, before)), Some((last_new, last_old))) = (course.first(), course.last())
        else {
            continue;
        };
        let value = at_equal(&course, target).unwrap_or(f64::NAN);
        found.insert((arm, "rise"), value - before);
        found.insert((arm, "gain"), target - begun);
        found.insert((arm, "last_rise"), last_old - before);
        found.insert((arm, "last_new"), -last_new);
    }
    Ok(found)
}

/// What an arm holds of a model.
fn held(
    spec: &Spec,
    arm: &str,
    base: &mut Learner,
    [old, new]: [&Texts; 2],
    key: Key,
) -> Result<Option<Mask>> {
    let layout = base.oracle().model.layout().clone();
    let shown = |texts: &Texts| {
        let shown: Vec<&Row> = texts.learnt.iter().take(spec.samples).collect();
        base.signed_all(&shown)
    };
    let (old, new) = (shown(old), shown(new));
    let score = match arm {
        "ssu" => ColumnScore::SquaredInput,
        "wanda" => ColumnScore::Wanda,
        "random" => ColumnScore::Random,
        "half" => {
            let (always, _) = Mask::from_globs(&layout, &["*embed*"]);
            return Ok(Some(hft::half(
                &layout,
                &always,
                spec.share,
                key.sub("half"),
            )));
        }
        "blocks" | "random_blocks" => {
            let settings = ChosenBlocksSettings {
                blocks: spec.blocks,
                random: arm == "random_blocks",
                ..ChosenBlocksSettings::default()
            };
            let turns = turns(base.oracle(), &new)?;
            let chosen = settings.choose(&turns, key.sub("blocks"));
            let places = places(base.oracle(), "S027")?;
            return Ok(Some(whole(&layout, &places, |place| {
                !place.block.is_some_and(|block| chosen[block])
            })));
        }
        _ => return Ok(None),
    };
    let settings = SsuSettings {
        share: spec.share,
        score,
        ..SsuSettings::default()
    };
    let mask = settings.shield(base.oracle(), &old, &[], key.sub("columns"))?;
    Ok(Some(mask))
}

/// Statements about a world of people, in plain letters or in others.
fn texts(spec: &Spec, world: u64, cipher: Option<Key>, tokenizer: &Tokenizer) -> Result<Texts> {
    let world = FactWorld::new(spec.people, world).map_err(ebb_learn::Error::from)?;
    let letters = cipher.map(|key| key.permutation(26));
    let letter = |c: char| -> char {
        let Some(letters) = &letters else {
            return c;
        };
        let turn = |first: u8| char::from(first + letters[usize::from(c as u8 - first)] as u8);
        match c {
            'a'..='z' => turn(b'a'),
            'A'..='Z' => turn(b'A'),
            c => c,
        }
    };
    let (mut learnt, mut held) = (Vec::new(), Vec::new());
    let out = Key::new(0, "held out");
    for example in world.examples(&world.facts()) {
        let Body::Completion { prompt, completion } = &example.body else {
            continue;
        };
        let text: String = format!("{prompt}{completion}")
            .chars()
            .map(letter)
            .collect();
        let mut tokens = tokenizer
            .encode(&text, false)
            .map_err(ebb_learn::Error::from)?;
        tokens.truncate(spec.length);
        let row = Row {
            id: Example::document(text).id,
            tokens,
            given: 1,
        };
        match out.uniform(row.id.mix()) < 0.1 {
            true => held.push(row),
            false => learnt.push(row),
        }
    }
    out.sub("probes").order(&mut held, |row| row.id.mix());
    held.truncate(spec.probes);
    out.sub("learnt").order(&mut learnt, |row| row.id.mix());
    Ok(Texts { learnt, held })
}
