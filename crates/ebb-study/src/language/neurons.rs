//! Whether training the neurons that languages need keeps what was learnt of other languages.
//!
//! **Source.** Language-aware neurons (card S025). A decoder learns sentences of a small grammar in a
//! base language and in three others that have a word of their own for every word, and to translate
//! the first two into the base; then it learns to translate the third. **What is measured**, a value
//! a seed:
//!
//! | arm | is trained | measures |
//! |---|---|---|
//! | `full` | everything | `before`, `rise`, `gain`, `last_new`, `last_rise` |
//! | `aware` | the neurons that all pairs need, and those that the third needs above the others | the same |
//! | `random` | as many random neurons: a control | the same |
//! | `neurons` | all neurons, and nothing else | the same |
//!
//! `rise` is what held-out translations of the first two pairs lose (nats a word) by the time that
//! those of the third have come down to the loss that every arm reaches; `gain` is how far that is
//! below where they began; `before` is the loss on the first two before the third.

use super::course::{Course, at_equal, follow, in_the_pool, mean, reached_by_all};
use super::learner::{Learner, Row, Small};
use super::sentences::{Sentence, row, tokenizer, vocabulary};
use crate::clause::Samples;
use crate::error::{Error, Result};
use crate::native::found::Found;
use crate::runner::{Ended, Options, Watch};
use crate::verdict::Verdict;
use ebb_hub::Tokenizer;
use ebb_learn::methods::language_neurons::{LanguageNeuronsSettings, Neurons};
use ebb_space::{Direction, Key};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Instant;

/// The arms that clauses may name.
pub const ARMS: &[&str] = &["aware", "full", "neurons", "random"];

/// Languages beside the base.
const LANGUAGES: usize = 3;

/// What is trained, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The network, and how it learns at first.
    pub network: Small,
    /// Steps on sentences and the first two pairs.
    pub steps: u64,
    /// Steps on the third pair.
    pub new_steps: u64,
    /// Peak rate on the third pair.
    pub new_lr: f64,
    /// Weight decay on the third pair.
    pub weight_decay: f64,
    /// Steps between two looks.
    pub every: u64,
    /// Share of the neurons that is trained.
    pub share: f64,
    /// Translations of each pair that scores look at.
    pub samples: usize,
    /// Held-out translations of each pair that are looked at.
    pub probes: usize,
}

pub(crate) fn run(
    spec: &Spec,
    seeds: &[u64],
    options: &Options,
    watch: &mut dyn Watch,
    verdict: &mut Verdict,
) -> Result<Samples> {
    if spec.every == 0 || spec.probes == 0 || spec.samples == 0 {
        return Err(Error::Study {
            id: verdict.id.clone(),
            reason: "it needs looks, probes and samples".to_owned(),
        });
    }
    let words = vocabulary();
    let foreign: Vec<String> = (0..LANGUAGES)
        .flat_map(|l| words.iter().map(move |w| said(w, l)))
        .collect();
    let all = words
        .iter()
        .copied()
        .chain(foreign.iter().map(String::as_str));
    let tokenizer = tokenizer(all.chain(["means"]))?;
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
        "decoder {} x {}, {} and {} steps",
        n.layers, n.width, spec.steps, spec.new_steps
    );
    let mut report = Found::new("language-neurons", protocol, seeds);
    for ((arm, name), values) in all {
        let what = match name {
            "before" => "loss on the first two pairs before the third",
            "rise" => {
                "rise of the loss on the first two pairs where the third costs as much in every arm"
            }
            "gain" => "fall of the loss on the third pair by then",
            "last_rise" => "rise of the loss on the first two pairs after the last step",
            _ => "loss on the third pair after the last step",
        };
        report.add(arm, name, values, Direction::Lower, what);
    }
    let (samples, arms) = report.finish()?;
    verdict.arms = arms;
    Ok(samples)
}

/// A word of the base in a language: a word that is a sign stays as it is.
fn said(word: &str, language: usize) -> String {
    match word.chars().all(char::is_alphabetic) {
        true => format!("{word}{}", ["a", "o", "u"][language % LANGUAGES].repeat(2)),
        false => word.to_owned(),
    }
}

/// A sentence in a language (none: the base), or with `translated` its translation behind it, which
/// alone is predicted then.
fn sentence(key: Key, language: Option<usize>, translated: bool, t: &Tokenizer) -> Result<Row> {
    let base = Sentence::new(key).words;
    let Some(language) = language else {
        return row(&base, 1, t);
    };
    let theirs: Vec<String> = base.iter().map(|w| said(w, language)).collect();
    let mut words: Vec<&str> = theirs.iter().map(String::as_str).collect();
    if !translated {
        return row(&words, 1, t);
    }
    words.push("means");
    let given = words.len();
    words.extend(base);
    row(&words, given, t)
}

fn one(
    spec: &Spec,
    seed: u64,
    tokenizer: &Tokenizer,
    options: &Options,
) -> Result<BTreeMap<(&'static str, &'static str), f64>> {
    let key = Key::new(seed, "language neurons");
    let batch = spec.network.batch;
    let pairs = |what: &str, language: usize, n: usize| -> Result<Vec<Row>> {
        let key = key.sub(what).at(language as u64);
        (0..n as u64)
            .map(|i| sentence(key.at(i), Some(language), true, tokenizer))
            .collect()
    };
    // A third are sentences in any language, the rest translations of the first two pairs.
    let first: Vec<Row> = (0..spec.steps * batch as u64)
        .map(|i| {
            let key = key.sub("first").at(i);
            match i % 6 {
                0 => sentence(key, None, false, tokenizer),
                1 => sentence(key, Some((i / 6) as usize % LANGUAGES), false, tokenizer),
                n => sentence(key, Some(n as usize % 2), true, tokenizer),
            }
        })
        .collect::<Result<_>>()?;
    let mut base = Learner::new(&spec.network, tokenizer, 26, seed)?;
    let course = Course {
        rows: &first,
        steps: spec.steps,
        batch,
        every: spec.steps.max(1),
        key: key.sub("first order"),
    };
    follow(&mut base, &course, options, |_| Ok(()))?;

    let neurons = Neurons::of(base.oracle())?;
    let mut theta = Vec::with_capacity(LANGUAGES);
    for language in 0..LANGUAGES {
        let shown = pairs("samples", language, spec.samples)?;
        let shown = base.signed_all(&shown.iter().collect::<Vec<_>>());
        theta.push(neurons.awareness(base.oracle(), &shown)?);
    }
    let settings = |random| LanguageNeuronsSettings {
        share: spec.share,
        random,
        ..LanguageNeuronsSettings::default()
    };
    let chosen = |random| settings(random).choose(&theta, key.sub("random"));
    let arms = [
        ("full", None),
        ("aware", Some(neurons.all_but(&chosen(false)))),
        ("random", Some(neurons.all_but(&chosen(true)))),
        ("neurons", Some(neurons.all_but(&vec![true; neurons.len()]))),
    ];
    let new = pairs("new", 2, spec.new_steps as usize * batch)?;
    let held = pairs("held", 2, spec.probes)?;
    let mut old = pairs("held", 0, spec.probes)?;
    old.extend(pairs("held", 1, spec.probes)?);
    let (held, old): (Vec<&Row>, Vec<&Row>) = (held.iter().collect(), old.iter().collect());
    let mut courses = BTreeMap::new();
    for (arm, mask) in arms {
        let mut learner = base.branch();
        learner.stage(spec.new_lr, spec.weight_decay);
        learner.hold(mask);
        let course = Course {
            rows: &new,
            steps: spec.new_steps,
            batch,
            every: spec.every,
            key: key.sub("new order"),
        };
        let seen = follow(&mut learner, &course, options, |learner| {
            // Less loss is more learnt.
            Ok((-mean(&learner.losses(&held)), mean(&learner.losses(&old))))
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
        found.insert((arm, "before"), *before);
        found.insert((arm, "rise"), value - before);
        found.insert((arm, "gain"), target - begun);
        found.insert((arm, "last_rise"), last_old - before);
        found.insert((arm, "last_new"), -last_new);
    }
    Ok(found)
}
