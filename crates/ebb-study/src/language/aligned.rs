//! What going on with raw text in another language does to a model that was taught to answer.
//!
//! **Source.** Continual pre-training of aligned language models (card S089). A decoder learns
//! statements about people, then to answer questions about half of them in a few words and to end;
//! the other half is asked. Then it learns statements about other people in a language where every
//! word stands for another one, text behind text without an end. **What is measured**, a value a
//! seed, of greedy answers:
//!
//! | arm | is trained on the new text | measures |
//! |---|---|---|
//! | `aligned` | nothing | `facts`, `exact`, `ends`, `rep_4`, `loss` |
//! | `full` | everything | `facts`, `exact`, `ends`, `rep_4`, `loss`, `lost_facts`, `lost_ends` |
//! | `freeze_bottom`, `freeze_top` | all but the lower or the upper half of the blocks | the same |
//! | `attention`, `mlp` | the attention, or the feed-forward half, alone | the same |
//!
//! `facts` is the share of questions whose true answer is likelier than three others of its kind (as
//! benchmarks ask), `exact` of greedy answers that begin with it, `ends` of those that end within the
//! tokens they have, `rep_4` the share of four-grams that were there before, `loss` that of held-out
//! new text (nats a word). `lost_facts` and `lost_ends` are shares of what `aligned` has,
//! of facts above chance.

use super::course::{Course, follow, in_the_pool, mean};
use super::decoding::repeated;
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
pub const ARMS: &[&str] = &[
    "aligned",
    "attention",
    "freeze_bottom",
    "freeze_top",
    "full",
    "mlp",
];

/// What is trained, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The network, and how it learns at first.
    pub network: Small,
    /// People of the first language.
    pub people: usize,
    /// People of the other language.
    pub new_people: usize,
    /// Steps on statements in the first language.
    pub steps: u64,
    /// Steps on statements and questions with answers.
    pub align_steps: u64,
    /// Steps on raw text in the other language.
    pub new_steps: u64,
    /// Peak rate on the other language.
    pub new_lr: f64,
    /// Weight decay on the other language.
    pub weight_decay: f64,
    /// Tokens of an answer at most.
    pub tokens: usize,
    /// Questions that are asked.
    pub probes: usize,
}

/// Tokens of a text at most.
const LENGTH: usize = 48;

/// The token that ends a text.
const END: u32 = 0;

/// A question, what is to come, and the question with this answer and with others of its kind.
struct Asked {
    prompt: Vec<u32>,
    answer: Vec<u32>,
    choices: Vec<Row>,
}

/// Answers to choose from.
const CHOICES: usize = 4;

struct Texts {
    tokenizer: Tokenizer,
    statements: Vec<Row>,
    /// Statements and questions of the first half.
    alignment: Vec<Row>,
    asked: Vec<Asked>,
    raw: Vec<Row>,
    held: Vec<Row>,
}

/// What a model says.
#[derive(Clone, Copy)]
struct Said {
    facts: f64,
    exact: f64,
    ends: f64,
    rep_4: f64,
    loss: f64,
}

pub(crate) fn run(
    spec: &Spec,
    seeds: &[u64],
    options: &Options,
    watch: &mut dyn Watch,
    verdict: &mut Verdict,
) -> Result<Samples> {
    if spec.tokens < 4 || spec.probes == 0 {
        return Err(Error::Study {
            id: verdict.id.clone(),
            reason: "it needs questions and at least four tokens an answer".to_owned(),
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
        "decoder {} x {}, {} people, {}, {} and {} steps, answers of {} tokens",
        n.layers, n.width, spec.people, spec.steps, spec.align_steps, spec.new_steps, spec.tokens
    );
    let mut report = Found::new("aligned", protocol, seeds);
    for ((arm, name), values) in all {
        let what = match name {
            "facts" => "true answers that are likelier than three others",
            "exact" => "greedy answers that begin with the true one",
            "ends" => "answers that end",
            "rep_4" => "four-grams of answers that were there before",
            "lost_facts" => "share of the true answers, above chance, that is lost",
            "lost_ends" => "share of the ends that is lost",
            _ => "loss on held-out text in the other language",
        };
        report.add(arm, name, values, Direction::None, what);
    }
    let (samples, arms) = report.finish()?;
    verdict.arms = arms;
    Ok(samples)
}

fn body(example: &Example) -> (&str, &str) {
    match &example.body {
        Body::Completion { prompt, completion } => (prompt, completion),
        _ => ("", ""),
    }
}

fn texts(spec: &Spec, seed: u64) -> Result<Texts> {
    let world = FactWorld::new(spec.people + spec.new_people, seed);
    let world = world.map_err(ebb_learn::Error::from)?;
    let told = [Relation::Employer, Relation::Home, Relation::Invention];
    let mut facts = world.facts();
    facts.retain(|fact| told.contains(&fact.relation));
    let said: Vec<Vec<Example>> = facts.iter().map(|f| world.statements(f)).collect();
    let asked: Vec<Example> = facts.iter().map(|f| world.asked(f)).collect();
    let parts = said.iter().flatten().chain(&asked);
    let parts: Vec<&str> = parts.flat_map(|e| <[&str; 2]>::from(body(e))).collect();
    let tokenizer = Tokenizer::words(parts).map_err(ebb_learn::Error::from)?;
    let encode = |text: &str| {
        tokenizer
            .encode(text, false)
            .map_err(ebb_learn::Error::from)
    };
    let whole = |e: &Example| -> Result<Vec<u32>> {
        let (prompt, completion) = body(e);
        Ok(encode(&format!("{prompt}{completion}"))?)
    };
    let old = spec.people * told.len();
    let key = Key::new(seed, "aligned");

    let mut statements = Vec::new();
    for e in said[..old].iter().flatten() {
        statements.push(Row {
            id: e.id,
            tokens: whole(e)?,
            given: 1,
        });
    }
    // Statements go on being learnt beside the questions.
    let mut alignment = statements.clone();
    let mut questions = Vec::new();
    for (i, e) in asked[..old].iter().enumerate() {
        let (prompt, completion) = body(e);
        let (prompt, answer) = (encode(prompt)?, encode(completion)?);
        match i < old / 2 {
            true => {
                let given = prompt.len();
                let tokens = prompt.into_iter().chain(answer).chain([END]).collect();
                alignment.push(Row {
                    id: e.id,
                    tokens,
                    given,
                });
            }
            false => questions.push((i, e.id, prompt, answer)),
        }
    }
    key.sub("asked")
        .order(&mut questions, |(_, id, _, _)| id.mix());
    questions.truncate(spec.probes);
    let mut probes = Vec::with_capacity(questions.len());
    for (i, id, prompt, answer) in questions {
        // Facts lie person by person: others of a kind are so many apart.
        let mut others: Vec<Vec<u32>> = Vec::new();
        for e in asked[..old].iter().skip(i % told.len()).step_by(told.len()) {
            others.push(encode(body(e).1)?);
        }
        others.retain(|other| *other != answer);
        others.sort_unstable();
        others.dedup();
        let name = |other: &Vec<u32>| Example::document(format!("{other:?}")).id.mix();
        key.sub("choices").at(id.mix()).order(&mut others, name);
        let choice = |answer: &Vec<u32>| Row {
            id,
            tokens: prompt.iter().chain(answer).copied().collect(),
            given: prompt.len(),
        };
        let all = std::iter::once(&answer).chain(&others).take(CHOICES);
        let choices = all.map(choice).collect();
        probes.push(Asked {
            prompt,
            answer,
            choices,
        });
    }

    // Words stand for other words; the two special tokens for themselves.
    let order = key.sub("language").permutation(tokenizer.len() - 2);
    let other = |token: u32| match token {
        0 | 1 => token,
        word => order[word as usize - 2] + 2,
    };
    let mut stream = Vec::new();
    let mut new: Vec<&Example> = said[old..].iter().flatten().collect();
    key.sub("new order").order(&mut new, |e| e.id.mix());
    for e in new {
        stream.extend(whole(e)?.into_iter().map(other));
    }
    let pieces = stream.chunks_exact(LENGTH).map(|tokens| Row {
        id: Example::document(format!("{tokens:?}")).id,
        tokens: tokens.to_vec(),
        given: 1,
    });
    let mut raw: Vec<Row> = pieces.collect();
    let held = raw.split_off(raw.len() - raw.len() / 10);
    Ok(Texts {
        tokenizer,
        statements,
        alignment,
        asked: probes,
        raw,
        held,
    })
}

fn said(learner: &mut Learner, texts: &Texts, tokens: usize) -> Result<Said> {
    let prompts: Vec<&[u32]> = texts.asked.iter().map(|a| a.prompt.as_slice()).collect();
    let made = learner.goes_on(&prompts, tokens)?;
    let n = made.len().max(1) as f64;
    let (mut facts, mut exact, mut ends, mut reps) = (0, 0, 0, Vec::new());
    for (asked, made) in texts.asked.iter().zip(&made) {
        let end = made.iter().position(|t| *t == END);
        let text = &made[..end.unwrap_or(made.len())];
        exact += usize::from(text.starts_with(&asked.answer));
        let losses = learner.losses(&asked.choices.iter().collect::<Vec<_>>());
        // Of equals the truth does not win.
        facts += usize::from(losses[1..].iter().all(|other| losses[0] < *other));
        ends += usize::from(end.is_some());
        // A text that is too short repeats nothing.
        reps.push(repeated(text, 4).unwrap_or(0.0));
    }
    let held: Vec<&Row> = texts.held.iter().collect();
    Ok(Said {
        facts: facts as f64 / n,
        exact: exact as f64 / n,
        ends: ends as f64 / n,
        rep_4: mean(&reps),
        loss: mean(&learner.losses(&held)),
    })
}

fn one(
    spec: &Spec,
    seed: u64,
    options: &Options,
) -> Result<BTreeMap<(&'static str, &'static str), f64>> {
    let key = Key::new(seed, "aligned");
    let texts = texts(spec, seed)?;
    // Answers are written behind the longest question.
    let length = LENGTH.max(32 + spec.tokens);
    let mut base = Learner::new(&spec.network, &texts.tokenizer, length, seed)?;
    let batch = spec.network.batch;
    let learn = |learner: &mut Learner, rows: &[Row], steps: u64, what: &str| {
        let course = Course {
            rows,
            steps,
            batch,
            every: steps.max(1),
            key: key.sub(what),
        };
        follow(learner, &course, options, |_| Ok(())).map(|_| ())
    };
    learn(&mut base, &texts.statements, spec.steps, "statements")?;
    learn(&mut base, &texts.alignment, spec.align_steps, "alignment")?;
    let aligned = said(&mut base, &texts, spec.tokens)?;
    let layout = base.oracle().model.layout().clone();
    let places = places(base.oracle(), "S089")?;
    let n = blocks(&places);
    let but = |roles: &[Role]| Some(whole(&layout, &places, |p| !roles.contains(&p.role)));
    let half = |chosen: &dyn Fn(usize) -> bool| {
        let of = |p: &Place| p.block.is_some_and(chosen);
        Some(whole(&layout, &places, of))
    };
    let arms = [
        ("full", None),
        ("freeze_bottom", half(&|block| block < n / 2)),
        ("freeze_top", half(&|block| block >= n - n / 2)),
        ("attention", but(&[Role::Attention])),
        ("mlp", but(&[Role::Gate, Role::Up, Role::Down])),
    ];
    let mut found = BTreeMap::from([
        (("aligned", "facts"), aligned.facts),
        (("aligned", "exact"), aligned.exact),
        (("aligned", "ends"), aligned.ends),
        (("aligned", "rep_4"), aligned.rep_4),
        (("aligned", "loss"), aligned.loss),
    ]);
    for (arm, held) in arms {
        let mut learner = base.branch();
        learner.stage(spec.new_lr, spec.weight_decay);
        learner.hold(held);
        learn(&mut learner, &texts.raw, spec.new_steps, "raw")?;
        let now = said(&mut learner, &texts, spec.tokens)?;
        found.insert((arm, "facts"), now.facts);
        found.insert((arm, "exact"), now.exact);
        found.insert((arm, "ends"), now.ends);
        found.insert((arm, "rep_4"), now.rep_4);
        found.insert((arm, "loss"), now.loss);
        let chance = 1.0 / CHOICES as f64;
        let lost = 1.0 - (now.facts - chance) / (aligned.facts - chance);
        found.insert((arm, "lost_facts"), lost);
        found.insert((arm, "lost_ends"), 1.0 - now.ends / aligned.ends);
    }
    Ok(found)
}
