//! Whether what is lost at the start of a new task is what was known, or how to answer.
//!
//! **Source.** Spurious forgetting (card S092). A decoder learns statements about people, and to
//! answer questions about half of them; the other half is asked ("old"). Then it learns to answer
//! questions about people it never heard of, by heart. **What is measured**, a value a seed:
//!
//! | arm | in the new task | measures |
//! |---|---|---|
//! | `sequential` | everything is trained | `before`, `early_drop`, `after`, `kept`, `new` |
//! | `frozen` | all but the embedding and the lower half of the blocks | `after`, `kept`, `new` |
//! | `top` | all but as many blocks from the top, a control | the same |
//! | `recovered` | `sequential`, then questions about the first half of the old people | `share`, `accuracy` |
//! | `absent` | `sequential`, then questions about other people whom no text names, asked about still others of them: a control | the same |
//!
//! Accuracies are shares of answers that are right in every word, on old people whose questions
//! were never learnt; of `absent`, on people of whom nothing was ever learnt. `early_drop` is what
//! is lost after a tenth of the steps. `kept` is read where every arm answers as many new questions
//! as the weakest at its best (`new`). `share` is the part of the loss that comes back.

use super::course::{Course, at_equal, follow, in_the_pool, reached_by_all};
use super::learner::{Learner, Row, Small};
use crate::clause::Samples;
use crate::error::{Error, Result};
use crate::native::found::Found;
use crate::runner::{Ended, Options, Watch};
use crate::verdict::Verdict;
use ebb_hub::Tokenizer;
use ebb_learn::places::{blocks, places, whole};
use ebb_net::{Place, Role};
use ebb_space::{Direction, Key};
use ebb_text::worlds::{FactWorld, Relation};
use ebb_text::{Body, Example};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Instant;

/// The arms that clauses may name.
pub const ARMS: &[&str] = &["absent", "frozen", "recovered", "sequential", "top"];

/// What is trained, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The network, and how it learns at first.
    pub network: Small,
    /// People whom statements are about; questions are learnt about the first half of them.
    pub old: usize,
    /// People of the new task.
    pub new: usize,
    /// People of whom no text speaks; an even number.
    pub absent: usize,
    /// Steps on statements and questions.
    pub steps: u64,
    /// Steps of the new task.
    pub new_steps: u64,
    /// Steps that recover.
    pub recovery_steps: u64,
    /// Peak rate after the first stage.
    pub new_lr: f64,
    /// Weight decay after the first stage.
    pub weight_decay: f64,
    /// Steps between two looks.
    pub every: u64,
}

/// Tokens of a text at most.
const LENGTH: usize = 32;

/// Texts of some people.
struct People {
    statements: Vec<Row>,
    questions: Vec<Row>,
}

pub(crate) fn run(
    spec: &Spec,
    seeds: &[u64],
    options: &Options,
    watch: &mut dyn Watch,
    verdict: &mut Verdict,
) -> Result<Samples> {
    if spec.old < 4 || spec.new == 0 || spec.absent < 2 || spec.every == 0 || spec.new_steps < 10 {
        return Err(Error::Study {
            id: verdict.id.clone(),
            reason: "it needs old, new and absent people, ten new steps and looks".to_owned(),
        });
    }
    watch.ahead(seeds.len());
    let mut all: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for seed in seeds {
        let begun = Instant::now();
        let found = in_the_pool(|| one(spec, *seed, options))?;
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
        "decoder {} x {}, {} old people, {} new, {} and {} steps",
        n.layers, n.width, spec.old, spec.new, spec.steps, spec.new_steps
    );
    let mut report = Found::new("alignment", protocol, seeds);
    for ((arm, name), values) in all {
        let what = match name {
            "before" => "right answers about old people before the new task",
            "early_drop" => "what is lost of it after a tenth of the new task's steps",
            "after" => "right answers about old people after the new task",
            "kept" => "right answers about old people where all arms answer as many new questions",
            "new" => "new questions answered where arms are compared",
            "share" => "part of the lost answers that came back",
            _ => "right answers after the steps that recover",
        };
        report.add(arm, name, values, Direction::None, what);
    }
    let (samples, arms) = report.finish()?;
    verdict.arms = arms;
    Ok(samples)
}

/// The people of a seed, in groups that share nobody.
fn groups(spec: &Spec, seed: u64) -> Result<(Tokenizer, [People; 5])> {
    let sizes = [
        spec.old / 2,
        spec.old - spec.old / 2,
        spec.new,
        spec.absent / 2,
        spec.absent - spec.absent / 2,
    ];
    let world = FactWorld::new(sizes.iter().sum(), seed).map_err(ebb_learn::Error::from)?;
    let told = [Relation::Employer, Relation::Home, Relation::Invention];
    let mut facts = world.facts();
    facts.retain(|fact| told.contains(&fact.relation));
    let texts: Vec<(Vec<Example>, Example)> = facts
        .iter()
        .map(|fact| (world.statements(fact), world.asked(fact)))
        .collect();
    let every = texts
        .iter()
        .flat_map(|(said, asked)| said.iter().chain([asked]));
    let parts = every.filter_map(|example| match &example.body {
        Body::Completion { prompt, completion } => Some([prompt.as_str(), completion.as_str()]),
        _ => None,
    });
    let parts: Vec<&str> = parts.flatten().collect();
    let tokenizer = Tokenizer::words(parts).map_err(ebb_learn::Error::from)?;
    let mut rest = texts.as_slice();
    let mut groups = Vec::with_capacity(sizes.len());
    for size in sizes {
        let (now, later) = rest.split_at(size * told.len());
        rest = later;
        let said = now.iter().flat_map(|(said, _)| said);
        let said = said
            .map(|e| row(e, &tokenizer, false))
            .collect::<Result<_>>()?;
        let asked = now.iter().map(|(_, e)| row(e, &tokenizer, true));
        groups.push(People {
            statements: said,
            questions: asked.collect::<Result<_>>()?,
        });
    }
    let groups = groups.try_into();
    let groups = groups.map_err(|_| Error::Study {
        id: "S092".to_owned(),
        reason: "there are five groups of people".to_owned(),
    })?;
    Ok((tokenizer, groups))
}

/// A prompt and its completion; with `answer`, the completion alone is predicted.
fn row(example: &Example, tokenizer: &Tokenizer, answer: bool) -> Result<Row> {
    let Body::Completion { prompt, completion } = &example.body else {
        return Ok(Row {
            id: example.id,
            tokens: Vec::new(),
            given: 0,
        });
    };
    let encode = |text: &str| {
        tokenizer
            .encode(text, false)
            .map_err(ebb_learn::Error::from)
    };
    let mut tokens = encode(prompt)?;
    let given = if answer { tokens.len() } else { 1 };
    tokens.extend(encode(completion)?);
    tokens.truncate(LENGTH);
    Ok(Row {
        id: example.id,
        tokens,
        given,
    })
}

fn one(
    spec: &Spec,
    seed: u64,
    options: &Options,
) -> Result<BTreeMap<(&'static str, &'static str), f64>> {
    let key = Key::new(seed, "alignment");
    let (tokenizer, [shown, old, new, absent, still_absent]) = groups(spec, seed)?;
    let mut base = Learner::new(&spec.network, &tokenizer, LENGTH, seed)?;
    let batch = spec.network.batch;
    let first: Vec<Row> = [&shown.statements, &old.statements, &shown.questions]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    let course = Course {
        rows: &first,
        steps: spec.steps,
        batch,
        every: spec.steps.max(1),
        key: key.sub("first"),
    };
    follow(&mut base, &course, options, |_| Ok(()))?;
    let asked: Vec<&Row> = old.questions.iter().collect();
    let newly: Vec<&Row> = new.questions.iter().collect();
    let before = base.right(&asked);

    let layout = base.oracle().model.layout().clone();
    let places = places(base.oracle(), "S092")?;
    let half = blocks(&places) / 2;
    let bottom = |place: &Place| match place.block {
        Some(block) => block < half,
        None => matches!(place.role, Role::Embedding | Role::Positions),
    };
    let top = |place: &Place| {
        place
            .block
            .is_some_and(|block| block >= blocks(&places) - half)
    };
    let arms = [
        ("sequential", None),
        ("frozen", Some(whole(&layout, &places, bottom))),
        ("top", Some(whole(&layout, &places, top))),
    ];
    let mut courses = BTreeMap::new();
    let mut lost = None;
    for (arm, held) in arms {
        let mut learner = base.branch();
        learner.stage(spec.new_lr, spec.weight_decay);
        learner.hold(held);
        let course = Course {
            rows: &new.questions,
            steps: spec.new_steps,
            batch,
            every: spec.every,
            key: key.sub("new"),
        };
        let seen = follow(&mut learner, &course, options, |learner| {
            Ok((learner.right(&newly), learner.right(&asked)))
        })?;
        courses.insert(arm, seen);
        if arm == "sequential" {
            lost = Some(learner);
        }
    }
    let target = reached_by_all(courses.values());
    let mut found = BTreeMap::new();
    let mut after = before;
    for (arm, course) in &courses {
        let kept = at_equal(course, target).unwrap_or(f64::NAN);
        let last = course.last().map_or(f64::NAN, |(_, old)| *old);
        found.insert((*arm, "kept"), kept);
        found.insert((*arm, "new"), target);
        found.insert((*arm, "after"), last);
        if *arm == "sequential" {
            let early = (spec.new_steps / 10 / spec.every) as usize;
            let early = course.get(early).map_or(f64::NAN, |(_, old)| *old);
            found.insert((*arm, "before"), before);
            found.insert((*arm, "early_drop"), before - early);
            after = last;
        }
    }
    let Some(lost) = lost else {
        return Ok(found);
    };
    for (arm, learnt, asked) in [
        ("recovered", &shown, &old),
        ("absent", &absent, &still_absent),
    ] {
        let mut learner = lost.branch();
        learner.stage(spec.new_lr, spec.weight_decay);
        let course = Course {
            rows: &learnt.questions,
            steps: spec.recovery_steps,
            batch,
            every: spec.recovery_steps.max(1),
            key: key.sub("recovery"),
        };
        follow(&mut learner, &course, options, |_| Ok(()))?;
        let accuracy = learner.right(&asked.questions.iter().collect::<Vec<_>>());
        found.insert((arm, "accuracy"), accuracy);
        found.insert((arm, "share"), (accuracy - after) / (before - after));
    }
    Ok(found)
}
