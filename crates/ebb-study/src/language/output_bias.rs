//! Whether tuning the attention alone, or gate and up alone, teaches a narrow skill with less
//! drift, and whether the drift is a lean towards the skill's answers.
//!
//! **Source.** Teaching new skills (card S038). A decoder of gated blocks learns sentences of a small
//! grammar, then to count how often one word stands in a list. **What is measured**, a value a seed:
//!
//! | arm | is trained | measures |
//! |---|---|---|
//! | `full` | everything | `rise`, `bias`, `skill`, `last_skill`, `last_rise` |
//! | `attention` | the attention | the same |
//! | `gate_up` | gate and up | the same |
//! | `down` | the way down | the same |
//! | `mlp` | gate, up and down | the same |
//! | `random` | as large a share of the columns of every matrix as `attention` is: a control | the same |
//! | `checkpoints` | every look at every arm | `correlation` |
//! | `others` | the same with other words in the place of the numbers: a control | `correlation` |
//!
//! `rise` is what new sentences lose (nats a word) by the time that every arm counts as well as the
//! weakest at its best (`skill`); `bias` is the mass on number words in these sentences, which have
//! none, less that before. `correlation` is Spearman's between both.

use super::course::{Course, at_equal, follow, in_the_pool, mean, reached_by_all};
use super::learner::{Learner, Row, Small};
use super::sentences::{Sentence, row, tokenizer, vocabulary};
use crate::clause::Samples;
use crate::error::{Error, Result};
use crate::native::found::Found;
use crate::runner::{Ended, Options, Watch};
use crate::verdict::Verdict;
use ebb_hub::Tokenizer;
use ebb_learn::language::mass;
use ebb_learn::methods::ssu::{ColumnScore, SsuSettings};
use ebb_learn::places::{places, whole};
use ebb_net::Role;
use ebb_space::stats::{Alternative, spearman};
use ebb_space::{Direction, Key, Mask};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Instant;

/// The arms that clauses may name.
pub const ARMS: &[&str] = &[
    "attention",
    "checkpoints",
    "down",
    "full",
    "gate_up",
    "mlp",
    "others",
    "random",
];

/// Answers.
const NUMBERS: [&str; 6] = ["zero", "one", "two", "three", "four", "five"];
/// As many words of another kind.
const OTHERS: [&str; 6] = ["slowly", "quickly", "gladly", "sadly", "softly", "badly"];
/// What is counted, and what stands beside it.
const THINGS: [&str; 4] = ["dog", "cat", "fox", "crow"];
/// Words of a list.
const LIST: usize = 5;

/// What is trained, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The network, and how it learns sentences.
    pub network: Small,
    /// Steps on sentences.
    pub steps: u64,
    /// Steps on the skill.
    pub skill_steps: u64,
    /// Peak rate on the skill.
    pub skill_lr: f64,
    /// Weight decay on the skill.
    pub weight_decay: f64,
    /// Steps between two looks.
    pub every: u64,
    /// Sentences, and questions, that are looked at.
    pub probes: usize,
}

/// What a look sees.
#[derive(Clone, Copy)]
struct Look {
    skill: f64,
    loss: f64,
    bias: f64,
    others: f64,
}

pub(crate) fn run(
    spec: &Spec,
    seeds: &[u64],
    options: &Options,
    watch: &mut dyn Watch,
    verdict: &mut Verdict,
) -> Result<Samples> {
    if spec.every == 0 || spec.probes == 0 || spec.skill_steps < 3 * spec.every {
        return Err(Error::Study {
            id: verdict.id.clone(),
            reason: "it needs probes and at least three looks".to_owned(),
        });
    }
    let fixed = ["count", "in", "makes"].into_iter().chain(NUMBERS);
    let tokenizer = tokenizer(vocabulary().into_iter().chain(fixed))?;
    watch.ahead(seeds.len());
    let mut all: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for seed in seeds {
        let begun = Instant::now();
        let found = in_the_pool(|| one(spec, *seed, &tokenizer, options))?;
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
        "decoder {} x {}, {} steps of sentences, {} of counting",
        n.layers, n.width, spec.steps, spec.skill_steps
    );
    let mut report = Found::new("output-bias", protocol, seeds);
    for ((arm, name), values) in all {
        let what = match name {
            "rise" => "rise of the loss on new sentences where every arm counts as well",
            "bias" => "rise of the mass on number words in these sentences by then",
            "skill" => "right counts where arms are compared",
            "last_skill" => "right counts after the last step",
            "last_rise" => "rise of the loss on new sentences after the last step",
            _ => "Spearman of the rise of a mass with the rise of the loss, all looks at all arms",
        };
        report.add(arm, name, values, Direction::None, what);
    }
    let (samples, arms) = report.finish()?;
    verdict.arms = arms;
    Ok(samples)
}

/// A sentence, half of the time with a number where "some" stands.
fn told(key: Key, tokenizer: &Tokenizer) -> Result<Row> {
    let mut words = Sentence::new(key).words;
    let mut draw = key.sub("number").stream();
    if let Some(some) = words.iter_mut().find(|word| **word == "some")
        && draw.below(2) == 0
    {
        *some = NUMBERS[draw.below(NUMBERS.len() as u64) as usize];
    }
    row(&words, 1, tokenizer)
}

/// A question and its answer.
fn counted(key: Key, tokenizer: &Tokenizer) -> Result<Row> {
    let mut draw = key.stream();
    let [thing, others @ ..] = THINGS;
    let mut words = vec!["count", thing, "in"];
    // Every count is as likely as every other.
    let count = draw.below(NUMBERS.len() as u64) as usize;
    let mut list: Vec<usize> = (0..LIST).collect();
    key.sub("places").order(&mut list, |i| *i as u64);
    for at in 0..LIST {
        let here = list[..count].contains(&at);
        words.push(if here {
            thing
        } else {
            others[draw.below(3) as usize]
        });
    }
    words.extend(["makes", NUMBERS[count]]);
    let given = words.len() - 1;
    row(&words, given, tokenizer)
}

fn one(
    spec: &Spec,
    seed: u64,
    tokenizer: &Tokenizer,
    options: &Options,
) -> Result<BTreeMap<(&'static str, &'static str), f64>> {
    let key = Key::new(seed, "output bias");
    let batch = spec.network.batch;
    let many = |what: &str, n: usize, make: &dyn Fn(Key) -> Result<Row>| {
        let key = key.sub(what);
        (0..n as u64)
            .map(|i| make(key.at(i)))
            .collect::<Result<Vec<Row>>>()
    };
    let mut base = Learner::new(&spec.network, tokenizer, 13, seed)?;
    let text = many("text", spec.steps as usize * batch, &|k| told(k, tokenizer))?;
    let course = Course {
        rows: &text,
        steps: spec.steps,
        batch,
        every: spec.steps.max(1),
        key: key.sub("text order"),
    };
    follow(&mut base, &course, options, |_| Ok(()))?;
    let skill = many("skill", spec.skill_steps as usize * batch, &|k| {
        counted(k, tokenizer)
    })?;
    let asked = many("asked", spec.probes, &|k| counted(k, tokenizer))?;
    let sentence = |k: Key| row(&Sentence::new(k).words, 1, tokenizer);
    let probes = many("probes", spec.probes, &sentence)?;
    let (asked, probes): (Vec<&Row>, Vec<&Row>) = (asked.iter().collect(), probes.iter().collect());
    let signed = base.signed_all(&probes);
    let ids = |words: [&str; 6]| -> Vec<u32> {
        let id = |word: &str| tokenizer.id(&format!(" {word}"));
        words.into_iter().filter_map(id).collect()
    };
    let (numbers, others) = (ids(NUMBERS), ids(OTHERS));

    let layout = base.oracle().model.layout().clone();
    let places = places(base.oracle(), "S038")?;
    let but = |roles: &[Role]| whole(&layout, &places, |p| !roles.contains(&p.role));
    let in_blocks = whole(&layout, &places, |p| {
        p.block.is_some() && p.stored.is_some()
    });
    let attention = but(&[Role::Attention]);
    let share = attention.and(&in_blocks).count() as f64 / in_blocks.count().max(1) as f64;
    let settings = SsuSettings {
        share,
        score: ColumnScore::Random,
        ..SsuSettings::default()
    };
    let drawn = settings.shield(base.oracle(), &[], &[], key.sub("random"))?;
    let random = drawn.and(&in_blocks).or(&in_blocks.complement());
    let arms: [(&'static str, Option<Mask>); 6] = [
        ("full", None),
        ("attention", Some(attention)),
        ("gate_up", Some(but(&[Role::Gate, Role::Up]))),
        ("down", Some(but(&[Role::Down]))),
        ("mlp", Some(but(&[Role::Gate, Role::Up, Role::Down]))),
        ("random", Some(random)),
    ];
    let mut looks: BTreeMap<&str, Vec<Look>> = BTreeMap::new();
    for (arm, held) in arms {
        let mut learner = base.branch();
        learner.stage(spec.skill_lr, spec.weight_decay);
        learner.hold(held);
        let course = Course {
            rows: &skill,
            steps: spec.skill_steps,
            batch,
            every: spec.every,
            key: key.sub("skill order"),
        };
        let seen = follow(&mut learner, &course, options, |learner| {
            Ok(Look {
                skill: learner.right(&asked),
                loss: mean(&learner.losses(&probes)),
                bias: mean(&mass(learner.oracle(), &signed, &numbers)),
                others: mean(&mass(learner.oracle(), &signed, &others)),
            })
        })?;
        looks.insert(arm, seen);
    }
    let by = |value: fn(&Look) -> f64| -> BTreeMap<&'static str, Vec<(f64, f64)>> {
        let course = |seen: &Vec<Look>| seen.iter().map(|l| (l.skill, value(l))).collect();
        let arms = looks.iter().map(|(arm, seen)| (*arm, course(seen)));
        arms.collect()
    };
    let (losses, biases) = (by(|l| l.loss), by(|l| l.bias));
    let target = reached_by_all(losses.values());
    let mut found = BTreeMap::new();
    let (mut rises, mut of_numbers, mut of_others) = (Vec::new(), Vec::new(), Vec::new());
    for (arm, seen) in &looks {
        let (Some(first), Some(last)) = (seen.first(), seen.last()) else {
            continue;
        };
        let equal = |course: &[(f64, f64)]| at_equal(course, target).unwrap_or(f64::NAN);
        found.insert((*arm, "rise"), equal(&losses[arm]) - first.loss);
        found.insert((*arm, "bias"), equal(&biases[arm]) - first.bias);
        found.insert((*arm, "skill"), target);
        found.insert((*arm, "last_skill"), last.skill);
        found.insert((*arm, "last_rise"), last.loss - first.loss);
        for look in &seen[1..] {
            rises.push(look.loss - first.loss);
            of_numbers.push(look.bias - first.bias);
            of_others.push(look.others - first.others);
        }
    }
    for (arm, values) in [("checkpoints", of_numbers), ("others", of_others)] {
        let test = spearman(&values, &rises, Alternative::Greater)?;
        found.insert((arm, "correlation"), test.statistic);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_right_and_every_count_is_asked() {
        let fixed = ["count", "in", "makes"].into_iter().chain(NUMBERS);
        let tokenizer = tokenizer(vocabulary().into_iter().chain(fixed)).expect("a tokenizer");
        let mut met = [0; 6];
        for i in 0..300 {
            let row = counted(Key::new(i, "counted"), &tokenizer).expect("a row");
            assert_eq!((row.tokens.len(), row.given), (10, 9));
            let thing = row.tokens[1];
            let count = row.tokens[3..3 + LIST]
                .iter()
                .filter(|t| **t == thing)
                .count();
            let answer = tokenizer.token(row.tokens[9]).expect("a word");
            assert!(answer.ends_with(NUMBERS[count]), "{answer} {count}");
            met[count] += 1;
        }
        assert!(met.iter().all(|n| *n > 20), "{met:?}");
    }
}
