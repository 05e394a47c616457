//! Language models in the loop, against the decoder asked text by text.

use ebb_learn::evaluate::evaluate;
use ebb_learn::objective::remembering;
use ebb_learn::seen::{ClassSets, Seen};
use ebb_learn::spec::LossClasses;
use ebb_learn::{
    Around, Error, Oracle, Recipe, Session, Silent, language, learn_keeping, resume, tune,
};
use ebb_space::{Key, Weights};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const TWO_WORLDS: &str = r#"
[stream]
dataset = "text"

[network]
kind = "decoder"
width = 16
layers = 2
heads = 2

[language]
length = 32

[[language.experience]]
name = "first"
world = { kind = "facts", people = 8, parts = 2, part = 0 }

[[language.experience]]
name = "second"
world = { kind = "facts", people = 8, parts = 2, part = 1, ask = "questions" }

[train]
optimizer = "adamw"
lr = 0.003
batch = 6
steps = 6
"#;

fn recipe(more: &str) -> Recipe {
    Recipe::parse(&format!("{more}\n{TWO_WORLDS}"), &[]).expect("a recipe")
}

fn with(sets: &[(&str, &str)]) -> Recipe {
    let sets: Vec<(String, String)> = sets
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    Recipe::parse(TWO_WORLDS, &sets).expect("a recipe")
}

fn session(recipe: &Recipe) -> Session {
    Session::new(recipe, &std::env::temp_dir()).expect("a session")
}

/// The tokens of a row of the data: what is put in, and what is learnt at which place.
fn tokens(signed: &[f32]) -> Vec<(u32, bool)> {
    let id = |s: &f32| match *s < 0.0 {
        true => ((-1.0 - *s) as u32, false),
        false => (*s as u32, true),
    };
    signed.iter().map(id).collect()
}

/// The loss of every learnt token of a text, from a pass of the text alone, unfilled.
fn by_hand(s: &mut Session, signed: &[f32]) -> Vec<f64> {
    let tokens = tokens(signed);
    let ids: Vec<u32> = tokens.iter().map(|(id, _)| *id).collect();
    let end = tokens.iter().rposition(|(_, learnt)| *learnt).expect("one") + 1;
    let model = &mut s.oracle.model;
    let x = burn::tensor::Tensor::<1>::from_floats(
        &ids[..end].iter().map(|id| *id as f32).collect::<Vec<_>>()[..],
        model.device(),
    );
    let logits = model
        .forward(x.reshape([1, end]), &mut ebb_net::Taps::none())
        .logits;
    let outputs = logits.dims()[1];
    let z: Vec<f32> = logits.into_data().try_to_vec().expect("floats");
    (1..end)
        .filter(|&at| tokens[at].1)
        .map(|at| {
            let row = &z[(at - 1) * outputs..at * outputs];
            let sum: f64 = row.iter().map(|v| f64::from(*v).exp()).sum();
            sum.ln() - f64::from(row[ids[at] as usize])
        })
        .collect()
}

fn batch_of(s: &Session, n: usize) -> ebb_learn::batch::Batch {
    let sets = ClassSets::at(&s.stream, 0, LossClasses::All);
    let seen = Seen {
        stream: &s.stream,
        experience: 0,
        class_sets: &sets,
        key: Key::new(0, ""),
    };
    seen.batch(&s.oracle.model, &seen.train()[..n])
}

/// A batch's loss is the mean over its learnt tokens, whatever fills the rows up, and so is that
/// of an evaluation by text.
#[test]
fn losses_are_those_of_every_text_alone() {
    let mut s = session(&recipe(""));
    let batch = batch_of(&s, 5);
    let value = s.oracle.value(&remembering(), &batch).expect("a value");
    let width = s.oracle.model.network().inputs();
    let items = s.stream.experiences[0].train[..5].to_vec();
    let mut signed = Vec::new();
    s.stream.gather(ebb_data::Part::Train, &items, &mut signed);
    let losses: Vec<Vec<f64>> = signed
        .chunks_exact(width)
        .map(|row| by_hand(&mut s, row))
        .collect();
    let all: Vec<f64> = losses.concat();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    assert!((value.total - mean).abs() < 1e-5, "{} {mean}", value.total);

    let stream = s.stream.clone();
    let items = stream.evals[1].items[..7].to_vec();
    let outcomes = evaluate(&mut s.oracle, &stream, &items);
    let mut signed = Vec::new();
    stream.gather(ebb_data::Part::Test, &items, &mut signed);
    for (row, outcome) in signed.chunks_exact(width).zip(outcomes) {
        let losses = by_hand(&mut s, row);
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        assert!((f64::from(outcome.loss) - mean).abs() < 1e-5);
    }
}

fn gradient(oracle: &mut Oracle, batch: &ebb_learn::batch::Batch) -> (f64, Weights) {
    let mut into = Weights::zeros(oracle.model.layout());
    let pass = oracle
        .gradient(&remembering(), batch, None, &mut into)
        .expect("a gradient");
    (pass.value.total, into)
}

/// In parts, and with the activations of one block at a time, the gradient is the same.
#[test]
fn parts_and_checkpoints_change_no_gradient() {
    let mut plain = session(&recipe(""));
    let batch = batch_of(&plain, 7);
    let (value, want) = gradient(&mut plain.oracle, &batch);
    for sets in [
        vec![("train.micro-batch", "3")],
        vec![("train.checkpoint", "true")],
        vec![("train.micro-batch", "2"), ("train.checkpoint", "true")],
    ] {
        let mut s = session(&with(&sets));
        let (other, found) = gradient(&mut s.oracle, &batch);
        assert!((value - other).abs() < 1e-6, "{sets:?}: {value} {other}");
        for ((entry, a), (_, b)) in want.iter().zip(found.iter()) {
            let difference: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            let norm: f64 = a.iter().map(|a| f64::from(*a).powi(2)).sum();
            assert!(
                difference.sqrt() <= 1e-5 * norm.sqrt() + 1e-9,
                "{sets:?} {}: {} of {}",
                entry.path,
                difference.sqrt(),
                norm.sqrt()
            );
        }
    }
}

fn run(recipe: &Recipe, out: Option<&Path>, stop: &AtomicBool) -> ebb_learn::Result<Session> {
    let temp = std::env::temp_dir();
    let mut around = Around {
        data_dir: &temp,
        progress: &mut Silent,
        stop,
    };
    let session = Session::new(recipe, &temp)?;
    learn_keeping(session, out, &mut around).map(|(_, session)| session)
}

/// The methods that make sense for texts run, and a run that was stopped goes on to the same bits.
#[test]
fn methods_run_on_texts_and_resume_exactly() {
    let go = AtomicBool::new(false);
    for method in [
        "method = \"finetune\"",
        "method = \"er\"\nwith = { capacity = 20 }",
        "method = \"ewc\"\nwith = { fisher = \"empirical\", samples = 8 }",
        "method = \"si\"",
        "method = \"lwf\"",
        "method = \"hft\"\nwith = { always = [\"model.embed_tokens*\"] }",
        "method = \"a-gem\"\naccept = [\"projection-with-momentum\"]",
        "method = \"refresh\"\nwith = { samples = 4 }",
        "method = \"zeroth-order\"",
        "method = \"reptile\"\nwith = { every = 2, epsilon = 0.5 }",
        "method = \"gere\"\nwith = { examples = 9, rows = 2 }",
        "method = \"gere\"\nwith = { examples = 9, rows = 2, hold = \"logits\", weight = 1.0 }",
        "method = \"joint\"",
        "method = \"cumulative\"",
        "method = \"l2\"",
        "method = \"gem\"\naccept = [\"projection-with-momentum\"]",
        "method = \"ssu\"\nwith = { samples = 4 }",
        "method = \"bottom-frozen\"",
        "method = \"attention-only\"",
        "method = \"gate-up-only\"",
        "method = \"language-neurons\"\nwith = { samples = 4 }",
        "method = \"chosen-blocks\"\nwith = { blocks = 1, samples = 4 }",
    ] {
        let recipe = recipe(method);
        let whole = run(&recipe, None, &go).unwrap_or_else(|e| panic!("{method}: {e}"));
        let weights = whole.oracle.model.weights();
        assert!(weights.is_finite(), "{method}");

        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run");
        let stop = AtomicBool::new(true);
        match run(&recipe, Some(&path), &stop) {
            Err(Error::Interrupted { .. }) => {}
            other => panic!("{method}: {:?}", other.map(|_| ()).err()),
        }
        stop.store(false, Ordering::Relaxed);
        let temp = std::env::temp_dir();
        let mut around = Around {
            data_dir: &temp,
            progress: &mut Silent,
            stop: &stop,
        };
        resume(&path, &mut around).unwrap_or_else(|e| panic!("{method}: {e}"));
        let mut model = language::of_run(&path, None, &temp).expect("the model of the run");
        let same = model.model.weights().as_slice() == weights.as_slice();
        assert!(same, "{method}: a stopped run came to other weights");
        // And it is a language model like every other.
        let start = ebb_lm::Start {
            example: 0,
            tokens: model.prompt("The home of").expect("tokens"),
        };
        let writing = ebb_lm::Writing {
            most: 3,
            ..Default::default()
        };
        let texts = model.write(&[start], &writing, |_, _| {}).expect("a text");
        assert!(texts[0].tokens.len() <= 3);
    }
}

/// Texts beside the experiences are held from the first step on, reach every state and the statistic
/// made of them, and a run that was stopped goes on to the same bits.
#[test]
fn generic_texts_are_replayed_and_held_where_they_were() {
    let recipe = recipe_with_generic_texts("bands");
    let go = AtomicBool::new(false);
    let dir = tempfile::tempdir().expect("a directory");
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let session = run(&recipe, Some(&whole), &go).expect("a run");
    let weights = session.oracle.model.weights();
    let generic: Vec<_> = session.stream.generic.iter().map(|i| i.id).collect();
    assert!(generic.len() > 20);
    assert_eq!(session.stream.evals.len(), 2);

    let view = ebb_record::RunView::load(&whole).expect("a run");
    let records = view.records().expect("records");
    let steps = records.iter().filter_map(|r| match r {
        ebb_record::Record::Step(s) => Some((s.terms["margin"], s.terms["violations"])),
        _ => None,
    });
    let steps: Vec<(f64, f64)> = steps.collect();
    assert_eq!(steps.len(), 12);
    // The self-test: up to rounding nothing lies outside at the first step; later some does.
    assert!(steps[0].0 < 1e-6 && steps[0].1 < 1e-3, "{:?}", steps[0]);
    assert!(
        steps[1..].iter().all(|(margin, _)| *margin > 1e-5),
        "{steps:?}"
    );

    let lineage = view.lineage().expect("a lineage");
    let statistic = ebb_record::Artifact::Statistic("gere".into());
    let mut reached = lineage.examples(&statistic).expect("examples");
    let mut set = generic;
    set.sort_unstable();
    reached.sort_unstable();
    assert_eq!(reached, set, "all of them fit into the set");
    let last = ebb_record::States::view(&whole.join("states")).expect("states");
    let last = ebb_record::Artifact::State(last.head().expect("a state").id.clone());
    let of_state = lineage.examples(&last).expect("examples");
    assert!(set.iter().all(|id| of_state.contains(id)));

    for at in [1, 5] {
        let stop = AtomicBool::new(false);
        let temp = std::env::temp_dir();
        let out = parts.with_extension(at.to_string());
        let mut around = Around {
            data_dir: &temp,
            progress: &mut StopAt(at, &stop),
            stop: &stop,
        };
        let session = Session::new(&recipe, &temp).expect("a session");
        let stopped = learn_keeping(session, Some(&out), &mut around);
        assert!(matches!(stopped, Err(Error::Interrupted { .. })));
        stop.store(false, Ordering::Relaxed);
        let mut around = Around {
            data_dir: &temp,
            progress: &mut Silent,
            stop: &stop,
        };
        resume(&out, &mut around).expect("the rest");
        let model = language::of_run(&out, None, &temp).expect("a model").model;
        assert_eq!(
            model.weights().digest(),
            weights.digest(),
            "stopped at {at}"
        );
    }
    // Generic texts that nothing replays are a mistake, and so is a text that measures nothing.
    for (change, said) in [
        ("method = \"er\"", "nothing replays"),
        (
            "method = \"gere\"\ntrain = { micro-batch = 2 }",
            "whole batches",
        ),
    ] {
        let message = Recipe::parse(&format!("{change}\n{}", generic_texts()), &[]);
        let message = message.expect_err(change).to_string();
        assert!(message.contains(said), "{message}");
    }
}

/// Asks for a stop after some steps.
struct StopAt<'a>(u64, &'a AtomicBool);

impl ebb_learn::Progress for StopAt<'_> {
    fn step(&mut self, step: u64, _: f64, _: usize) {
        if step == self.0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

/// Adapters, too, and those that were merged or kept before the stop are taken in again.
#[test]
fn adapters_resume_exactly_and_the_rest_keeps_its_bits() {
    let go = AtomicBool::new(false);
    for (method, turned) in [
        ("method = \"lora\"", 0),
        (
            "method = \"lora\"\nwith = { between = \"merge\", on = [\"*.q_proj\"] }",
            1,
        ),
        ("method = \"codyra\"\nwith = { threshold = 0.2 }", 1),
        ("method = \"selective-lora\"\nwith = { lambda = 50.0 }", 0),
        ("method = \"reg-lora\"", 1),
        ("method = \"mora\"\nwith = { top = 3, reserved = 1 }", 1),
        (
            "method = \"er\"\nwith = { capacity = 20 }\nadapter = { rank = 2 }",
            0,
        ),
        (
            "method = \"ewc\"\nwith = { fisher = \"empirical\", samples = 8 }\nadapter = {}",
            0,
        ),
        ("method = \"lwf\"\nadapter = { between = \"merge\" }", 1),
    ] {
        let recipe = recipe(method);
        let whole = run(&recipe, None, &go).unwrap_or_else(|e| panic!("{method}: {e}"));
        let weights = whole.oracle.model.weights();
        assert_eq!(whole.oracle.model.turned().len(), turned, "{method}");
        // Only linear maps of blocks were adapted.
        if method.starts_with("method = \"lora\"") {
            let merged = whole.oracle.model.merged_weights().expect("a matrix");
            let fresh = session(&recipe)
                .oracle
                .model
                .merged_weights()
                .expect("it adds 0");
            for (entry, values) in merged.iter() {
                let path = &entry.path;
                let same = Some(values) == fresh.get(path);
                let on = if turned == 1 { ".q_proj." } else { "_proj." };
                assert_eq!(same, !path.contains(on), "{method}: {path}");
            }
        }

        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run");
        let stop = AtomicBool::new(false);
        let temp = std::env::temp_dir();
        let mut around = Around {
            data_dir: &temp,
            progress: &mut StopAt(9, &stop),
            stop: &stop,
        };
        let stopped = learn_keeping(session(&recipe), Some(&path), &mut around);
        assert!(
            matches!(stopped, Err(Error::Interrupted { step: 9, .. })),
            "{method}"
        );
        stop.store(false, Ordering::Relaxed);
        let mut around = Around {
            data_dir: &temp,
            progress: &mut Silent,
            stop: &stop,
        };
        resume(&path, &mut around).unwrap_or_else(|e| panic!("{method}: {e}"));
        let mut model = language::of_run(&path, None, &temp).expect("the model of the run");
        let same = model.model.weights().as_slice() == weights.as_slice();
        assert!(same, "{method}: a stopped run came to other weights");
        let start = ebb_lm::Start {
            example: 0,
            tokens: model.prompt("The home of").expect("tokens"),
        };
        let texts = model.write(
            &[start],
            &ebb_lm::Writing {
                most: 3,
                ..Default::default()
            },
            |_, _| {},
        );
        assert!(texts.expect("a text")[0].tokens.len() <= 3);
    }
}

/// A run may begin with another's weights, and with experiences that those know already.
#[test]
fn a_run_goes_on_from_another() {
    let go = AtomicBool::new(false);
    let dir = tempfile::tempdir().expect("a directory");
    let base = dir.path().join("base");
    let first = run(&recipe("method = \"finetune\""), Some(&base), &go).expect("a run");
    let text = format!(
        "method = \"er\"\nwith = {{ capacity = 20 }}\nstart = {{ run = {:?}, learnt = 1 }}",
        base.display().to_string()
    );
    let with = recipe(&text);
    let begun = session(&with);
    let values = |model: &ebb_net::Model| model.weights().as_slice().to_vec();
    let base = values(&first.oracle.model);
    assert_eq!(values(&begun.oracle.model), base);
    let out = dir.path().join("more");
    let more = run(&with, Some(&out), &go).expect("a run");
    assert_eq!(more.position.step, 6, "the first experience takes no step");
    assert_ne!(values(&more.oracle.model), base);
    let again = language::of_run(&out, None, &std::env::temp_dir()).expect("its model");
    assert_eq!(values(&again.model), values(&more.oracle.model));
}

/// The two worlds, and a third beside them, without a table `train`.
fn generic_texts() -> String {
    let worlds = TWO_WORLDS.split("[train]").next().unwrap_or_default();
    format!(
        "{worlds}\n[language.generic]\nname = \"general\"\ndocuments = true\n\
         world = {{ kind = \"facts\", people = 10, seed = 5, ask = \"questions\" }}\n"
    )
}

fn recipe_with_generic_texts(hold: &str) -> Recipe {
    let text = format!(
        "method = \"gere\"\nwith = {{ rows = 3, hold = \"{hold}\" }}\n\
         train = {{ optimizer = \"adamw\", lr = 0.003, batch = 6, steps = 6 }}\n{}",
        generic_texts()
    );
    let sets = [("evaluate.every", "1"), ("evaluate.panel", "2")];
    let sets = sets.map(|(k, v)| (k.to_owned(), v.to_owned()));
    Recipe::parse(&text, &sets).expect("a recipe")
}

/// What is held out belongs to the data: runs with other seeds are measured on the same texts.
#[test]
fn every_seed_is_measured_on_the_same_texts() {
    let held = |seed: &str| {
        let world = "[{ name = 'a', world = { kind = 'facts', people = 40, ask = 'held-out' } }]";
        let s = session(&with(&[("seed", seed), ("language.experience", world)]));
        let ids: Vec<_> = s.stream.evals[0].items.iter().map(|i| i.id).collect();
        let learnt = &s.stream.experiences[0].train;
        assert!(learnt.iter().all(|i| !ids.contains(&i.id)));
        ids
    };
    assert_eq!(held("1"), held("2"));
}

/// A search looks at held-out texts of the first experiences.
#[test]
fn a_search_tunes_on_texts() {
    let search = tune::Search {
        text: TWO_WORLDS.to_owned(),
        sets: Vec::new(),
        grid: vec!["train.lr=0.000001,0.01".parse().expect("an axis")],
        rule: tune::Rule::Best {
            measure: "average_accuracy".into(),
        },
        first: Some(1),
        validation: 0.2,
        seeds: 1,
    };
    let temp = std::env::temp_dir();
    let options = tune::Options {
        data_dir: &temp,
        out: None,
        threads: 1,
        stop: &AtomicBool::new(false),
    };
    let found = tune::tune(&search, &options, &mut Silent).expect("a search");
    assert_eq!(found.trials.n_runs, 2);
}

/// Replay that displaces leaves every step as many rows, new and old: those of pictures can be
/// counted.
#[test]
fn displaced_rows_keep_a_step_as_large_as_it_was() {
    let go = AtomicBool::new(false);
    let rows = |displaces: Option<bool>| {
        let replay = displaces.map_or(String::new(), |displaces| {
            format!(
                "memory = {{ capacity = 500, keep = \"experience-balanced\" }}\n\
                 draw.old = {{ select = \"uniform\", size = 2, displaces = {displaces} }}\n"
            )
        });
        let text = format!(
            "{replay}[stream]\ndataset = \"digits\"\nsplit = 2\n[network]\nkind = \"mlp\"\nhidden = [8]\n\
             [train]\nbatch = 6\nsteps = 5\n"
        );
        let recipe = Recipe::parse(&text, &[]).expect("a recipe");
        let session = run(&recipe, None, &go).expect("a run");
        assert_eq!(session.new_rows(0), 6);
        assert_eq!(
            session.new_rows(1),
            if displaces == Some(true) { 4 } else { 6 }
        );
        session.oracle.meter.forward_rows
    };
    let alone = rows(None);
    assert_eq!(rows(Some(true)), alone);
    // The memory is empty in the first of two experiences of five steps.
    assert_eq!(rows(Some(false)), alone + 10);
    let message = Recipe::parse(
        TWO_WORLDS,
        &[
            (
                "memory".into(),
                "{ capacity = 9, keep = \"reservoir\" }".into(),
            ),
            (
                "draw.old".into(),
                "{ select = \"uniform\", size = 6, displaces = true }".into(),
            ),
        ],
    )
    .expect_err("nothing new is left")
    .to_string();
    assert!(message.contains("no new one is left"), "{message}");
}

/// A run goes on only with the texts it began with.
#[test]
fn changed_texts_are_noticed() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("texts.jsonl");
    let lines = |n: usize| -> String {
        let line = |i: usize| {
            format!(
                "{{\"prompt\": \"{i} and\", \"completion\": \" {}\"}}\n",
                i + 1
            )
        };
        (0..n).map(line).collect()
    };
    std::fs::write(&file, lines(40)).expect("written");
    let text = format!(
        "[stream]\ndataset = \"text\"\n[network]\nkind = \"decoder\"\nwidth = 8\nlayers = 1\n\
         heads = 1\n[language]\nlength = 8\n[[language.experience]]\nname = \"a\"\ntrain = [{:?}]\n\
         [train]\nbatch = 4\nsteps = 3\n",
        file
    );
    let recipe = Recipe::parse(&text, &[]).expect("a recipe");
    let path = dir.path().join("run");
    let stop = AtomicBool::new(true);
    assert!(run(&recipe, Some(&path), &stop).is_err());
    std::fs::write(&file, lines(39)).expect("written");
    let temp = std::env::temp_dir();
    let go = AtomicBool::new(false);
    let mut around = Around {
        data_dir: &temp,
        progress: &mut Silent,
        stop: &go,
    };
    let message = resume(&path, &mut around).expect_err("refused").to_string();
    assert!(message.contains("have changed"), "{message}");
    let message = language::of_run(&path, None, &temp)
        .map(|_| ())
        .expect_err("refused")
        .to_string();
    assert!(message.contains("have changed"), "{message}");
    std::fs::write(&file, lines(40)).expect("written");
    resume(&path, &mut around).expect("the texts are back");
}

/// Fields are called as the recipe says; what a file has in their place is said.
#[test]
fn fields_have_the_names_they_are_given() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("pairs.jsonl");
    let line = |i: usize| {
        format!(
            "{{\"question\": \"{i} and\", \"answer\": \" {}\"}}\n",
            i + 1
        )
    };
    std::fs::write(&file, (0..20).map(line).collect::<String>()).expect("written");
    let experience = format!("[{{ name = 'a', train = [{:?}] }}]", file);
    let of = |fields: &str| {
        let sets = [
            ("language.fields", fields),
            ("language.experience", &experience),
        ];
        Session::new(&with(&sets), dir.path())
    };
    let s = of("{ prompt = 'question', completion = 'answer' }").expect("a session");
    assert_eq!(s.stream.experiences[0].train.len(), 18);
    let message = of("{}").err().map(|e| e.to_string()).unwrap_or_default();
    assert!(message.contains("`question`, `answer`"), "{message}");
    assert!(message.contains("language.fields"), "{message}");
}

#[test]
fn what_makes_no_sense_for_texts_is_refused_with_a_reason() {
    for (change, said) in [
        (r#"method = "der++""#, "Ask a teacher instead"),
        (r#"method = "ewc""#, "empirical"),
        (r#"method = "mas""#, "use EWC"),
        (r#"method = "icarl""#, "no classes"),
        (r#"method = "gdumb""#, "fresh weights"),
        (r#"method = "mir""#, "works on classes"),
    ] {
        let message = Recipe::parse(&format!("{change}\n{TWO_WORLDS}"), &[])
            .expect_err(change)
            .to_string();
        assert!(message.contains(said), "{change}: {message}");
    }
    let set = |key: &str, value: &str| {
        Recipe::parse(TWO_WORLDS, &[(key.to_owned(), value.to_owned())]).map(|_| ())
    };
    for (key, value, said) in [
        ("network", "{ kind = \"mlp\" }", "kind `decoder`"),
        ("stream.dataset", "digits", "needs `stream.dataset"),
        ("stream.split", "2", "no setting but `dataset`"),
        ("language.length", "1", "at least 2"),
        ("language.experience", "[]", "no `experience`"),
        ("language.test-share", "1.0", "between 0 and 1"),
        ("train.classes", "seen", "leave `train.classes` out"),
        ("train.micro-batch", "0", "at least 1"),
        ("evaluate.forgetting-events", "true", "forgetting events"),
    ] {
        let message = set(key, value).expect_err(key).to_string();
        assert!(message.contains(said), "{key} = {value}: {message}");
    }
    // A text that does not fit is named when the run begins.
    let tight = with(&[("language.length", "4")]);
    let message = Session::new(&tight, &std::env::temp_dir())
        .err()
        .map(|e| e.to_string())
        .unwrap_or_default();
    assert!(message.contains("tokens"), "{message}");
}

/// What is learnt by heart is answered word for word; a model that then learns to answer in a sentence
/// still shows what it knows, and the numbers call that superficial. Nothing of it is drawn: the same
/// run with answers has the same weights.
#[test]
fn a_lost_form_is_told_from_lost_content() {
    let of = |more: &[(&str, &str)]| {
        let people = "people = 8, parts = 4, part = 0";
        let experience = |name: &str, form: &str| {
            format!(
                "{{ name = '{name}', form = '{form}', world = {{ kind = 'facts', {people} }} }}"
            )
        };
        // The same facts, in a word and in a sentence.
        let experiences = format!(
            "[{}, {}]",
            experience("words", "short"),
            experience("sentences", "sentence")
        );
        let mut sets = vec![
            ("language.experience", experiences.as_str()),
            ("language.length", "48"),
            ("network.width", "32"),
            ("train.steps", "400"),
            ("train.lr", "0.01"),
        ];
        sets.extend(more);
        let recipe = with(&sets);
        let stop = AtomicBool::new(false);
        let mut around = Around {
            data_dir: &std::env::temp_dir(),
            progress: &mut Silent,
            stop: &stop,
        };
        learn_keeping(session(&recipe), None, &mut around).expect("a run")
    };
    let (plain, mut without) = of(&[]);
    let (summary, mut asked) = of(&[("evaluate.answers", "6")]);
    assert!(plain.number("answers_exact").is_none());
    let value = |name: &str| {
        summary
            .number(name)
            .unwrap_or_else(|| panic!("{name}"))
            .value
    };
    // Both sets hold the same facts; six answers a set.
    assert_eq!(summary.number("answers_exact").map(|n| n.n), Some(12));
    assert!(value("answers_shown") >= value("answers_exact"));
    let all = value("forgetting_superficial") + value("forgetting_essential");
    let exact = summary.matrix[0][0].zip(summary.matrix[1][0]);
    let (learnt, last) = exact.expect("accuracies");
    assert!(learnt > 0.8, "{learnt}");
    // Six of the set stand for all of it.
    assert!(
        (all - (learnt - last)).abs() < 0.35,
        "{all} {learnt} {last}"
    );
    let weights = |s: &mut Session| s.oracle.model.weights();
    assert_eq!(
        weights(&mut without).as_slice(),
        weights(&mut asked).as_slice()
    );
}

#[test]
fn answers_need_prompts() {
    let sets = [
        ("evaluate.answers".to_owned(), "5".to_owned()),
        ("language.learn".to_owned(), "everything".to_owned()),
    ];
    let error = Recipe::parse(TWO_WORLDS, &sets).expect_err("no prompts");
    assert!(error.to_string().contains("evaluate.answers"), "{error}");
}
