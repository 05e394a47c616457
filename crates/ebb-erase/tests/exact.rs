//! Learning again without records, against learning from scratch without them.

use ebb_data::{Item, Stream};
use ebb_erase::{Method, Relearning, Subject, exact, left};
use ebb_learn::without::list;
use ebb_learn::{Around, Recipe, Session, Silent, found, learn};
use ebb_record::ledger::NameKey;
use ebb_record::{Environment, RunDir, RunView, Verb};
use ebb_space::ExampleId;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const DIGITS: &str = r#"
stream = { dataset = "digits", split = 5, per_experience = 60, seed = 1 }
network = { kind = "mlp", hidden = [16] }
train = { optimizer = "adam", lr = 0.003, batch = 16, epochs = 2 }
evaluate = { every = 0 }
"#;

const TEXTS: &str = r#"
stream = { dataset = "text" }
network = { kind = "decoder", width = 16, layers = 1, heads = 2 }
train = { optimizer = "adamw", lr = 0.003, batch = 6, epochs = 1 }
[language]
length = 32
tokens = "bytes"
length = 96
[[language.experience]]
name = "first"
world = { kind = "facts", people = 8, parts = 4, part = 0 }
[[language.experience]]
name = "second"
world = { kind = "facts", people = 8, parts = 4, part = 1 }
"#;

static STOP: AtomicBool = AtomicBool::new(false);

/// Where data would lie, if any were needed.
fn nowhere() -> PathBuf {
    std::env::temp_dir()
}

fn stream_of(recipe: &Recipe) -> std::sync::Arc<Stream> {
    Session::new(recipe, &nowhere()).expect("a session").stream
}

/// The recipe, passing over records; the list and the key lie in `dir`.
fn without(text: &str, ids: &[ExampleId], dir: &Path) -> Recipe {
    let (names, key) = (dir.join("names"), dir.join("key"));
    let keys = match key.exists() {
        true => NameKey::load(&key).expect("a key"),
        false => NameKey::create(&key).expect("a key"),
    };
    let named: BTreeSet<_> = ids.iter().map(|id| keys.record(id)).collect();
    std::fs::write(&names, list(&named)).expect("written");
    let quoted = |path: &Path| format!("'{}'", path.display());
    let sets = [("without.names", &names), ("without.key", &key)];
    let sets: Vec<(String, String)> = sets
        .iter()
        .map(|(k, path)| ((*k).to_owned(), quoted(path)))
        .collect();
    Recipe::parse(text, &sets).expect("a recipe")
}

/// Learns, learns again without `ids`, and from scratch without them; returns the steps taken over.
fn exactly(text: &str, choose: impl Fn(&Stream) -> Vec<ExampleId>) -> u64 {
    let dir = tempfile::tempdir().expect("a directory");
    let (run, again) = (dir.path().join("run"), dir.path().join("again"));
    let data = nowhere();
    let mut silent = Silent;
    let mut around = Around {
        data_dir: &data,
        progress: &mut silent,
        stop: &STOP,
    };
    let recipe = Recipe::parse(text, &[]).expect("a recipe");
    learn(&recipe, Some(&run), &mut around).expect("a run");
    let ids = choose(&stream_of(&recipe));
    let route = exact::route(&run, &ids).expect("a route");
    let recipe = without(text, &ids, dir.path());
    let environment = Environment::collect(Default::default(), 1);
    let into = RunDir::create(&again, recipe.text(), &environment).expect("a directory");
    let summary = exact::retrain(&run, &route, into, &mut around).expect("a run");
    assert!(summary.finished);
    let states = RunView::load(&again)
        .expect("a run")
        .states()
        .expect("states");
    let hash = &states.head().expect("a state").weights_hash;
    let scratch = exact::from_scratch(&recipe, &mut around).expect("a run");
    assert_eq!(*hash, scratch, "{text}");
    let old = RunView::load(&run)
        .expect("a run")
        .states()
        .expect("states");
    assert_ne!(*hash, old.head().expect("a state").weights_hash, "{text}");
    // Nothing that reached the new run is one of them.
    let lineage = RunView::load(&again)
        .expect("a run")
        .lineage()
        .expect("lineage");
    for id in &ids {
        assert!(lineage.reached_by_any_view(id).expect("read").is_empty());
    }
    route.kept_steps
}

fn of_experience(stream: &Stream, e: usize, n: usize) -> Vec<ExampleId> {
    let items: &[Item] = &stream.experiences[e].train;
    items.iter().step_by(7).take(n).map(|i| i.id).collect()
}

#[test]
fn learning_again_is_learning_without() {
    for method in [
        "fine-tune",
        "er",
        "der++",
        "ewc",
        "si",
        "lwf",
        "a-gem",
        "gdumb",
        "mas",
    ] {
        // In the domain scenario penalties make sense alone.
        let mut digits = DIGITS.replace("split = 5", "split = 5, scenario = \"domain\"");
        if method == "a-gem" {
            digits = digits.replace("adam", "sgd");
        }
        let text = format!("method = \"{method}\"\n{digits}");
        let kept = exactly(&text, |stream| of_experience(stream, 2, 3));
        assert!(kept > 0 || method == "gdumb", "{method}");
    }
}

#[test]
fn the_first_experience_leaves_nothing_to_take_over() {
    let text = format!("method = \"er\"\n{DIGITS}");
    assert_eq!(exactly(&text, |stream| of_experience(stream, 0, 1)), 0);
}

#[test]
fn a_rate_over_the_whole_run_is_begun_anew() {
    let text = format!(
        "method = \"fine-tune\"\n{DIGITS}\n[train.schedule]\ncourse = \"cosine\"\nrewarm = false\n"
    );
    let text = text.replace(
        "train = { optimizer = \"adam\", lr = 0.003, batch = 16, epochs = 2 }",
        "train.optimizer = \"adam\"\ntrain.lr = 0.003\ntrain.batch = 1\ntrain.epochs = 1",
    );
    assert_eq!(exactly(&text, |stream| of_experience(stream, 3, 1)), 0);
}

#[test]
fn texts_too() {
    let kept = exactly(
        &format!(
            "method = \"er\"\n{}",
            TEXTS.replacen("length = 32\n", "", 1)
        ),
        |s| of_experience(s, 1, 2),
    );
    assert!(kept > 0);
}

/// Every eraser, on a class: what it says it is, and a model that still works and knows the class less.
#[test]
fn erasers_lower_what_is_known_of_a_class() {
    let text = format!(
        "method = \"fine-tune\"\n{}",
        DIGITS
            .replace("split = 5", "kind = \"joint\", base = \"split\", n = 5")
            .replace("per_experience = 60", "per_experience = 120")
            .replace("epochs = 2", "epochs = 30")
    );
    let dir = tempfile::tempdir().expect("a directory");
    let run = dir.path().join("run");
    let data = nowhere();
    let mut around = Around {
        data_dir: &data,
        progress: &mut Silent,
        stop: &STOP,
    };
    let recipe = Recipe::parse(&text, &[]).expect("a recipe");
    learn(&recipe, Some(&run), &mut around).expect("a run");
    let stream = stream_of(&recipe);
    let threes: BTreeSet<ExampleId> = stream
        .train_items()
        .filter(|i| stream.train.labels[i.row as usize] == 3)
        .map(|i| i.id)
        .collect();
    let gone = |id: &ExampleId| threes.contains(id);
    let measure = |method: Option<Method>| {
        let mut subject = Subject::open(&run, &gone, &data, &STOP).expect("a subject");
        if let Some(method) = &method {
            method.eraser().erase(&mut subject).expect("erased");
        }
        let before = subject.oracle().model.weights();
        let numbers = left(&mut subject, &Relearning::default()).expect("numbers");
        let after = subject.oracle().model.weights();
        assert_eq!(
            before.as_slice(),
            after.as_slice(),
            "measuring changes nothing"
        );
        let value = |name: &str| {
            let found = numbers.iter().find(|n| n.name == name);
            found.unwrap_or_else(|| panic!("{name}")).value
        };
        (value("forget_accuracy"), value("retain_accuracy"))
    };
    let (known, usable) = measure(None);
    assert!(known > 0.9 && usable > 0.9, "{known} {usable}");
    for (name, sets) in [
        ("ssd", vec![("alpha", "5")]),
        ("grad-diff", vec![("descent.lr", "0.1"), ("ceiling", "3.0")]),
        ("npo", vec![("descent.lr", "0.3"), ("beta", "1")]),
        ("famr", vec![("descent.lr", "0.3"), ("rho", "0.01")]),
    ] {
        let sets: Vec<_> = sets
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let (forget, retain) = measure(Some(Method::parse(name, &sets).expect("an eraser")));
        assert!(forget < 0.5, "{name}: {forget}");
        assert!(retain > 0.5, "{name}: {retain}");
    }
    // Going on with the others is no eraser: the control.
    let (forget, _) = measure(Some(Method::parse("fine-tune", &[]).expect("an eraser")));
    assert!(forget > 0.5, "{forget}");
    // What an eraser left becomes a run of its own.
    let mut subject = Subject::open(&run, &gone, &data, &STOP).expect("a subject");
    let ssd = Method::parse("ssd", &[]).expect("an eraser");
    ssd.eraser().erase(&mut subject).expect("erased");
    let ids: Vec<ExampleId> = threes.iter().copied().collect();
    let recipe = without(&text, &ids, dir.path());
    let mut session = Session::new(&recipe, &data).expect("a session");
    session
        .begin_with(&subject.oracle().model.weights())
        .expect("the same network");
    let out = dir.path().join("erased");
    let environment = Environment::collect(Default::default(), 1);
    let into = RunDir::create(&out, recipe.text(), &environment).expect("a directory");
    let summary = found(session, into, Verb::Forget).expect("a run");
    assert!(summary.finished && summary.matrix.len() == 1);
    let view = RunView::load(&out).expect("a run");
    let head = view
        .states()
        .expect("states")
        .head()
        .expect("a state")
        .clone();
    assert_eq!(head.verb, Verb::Forget);
    let lineage = view.lineage().expect("lineage");
    assert!(
        lineage
            .reached_by_any_view(&ids[0])
            .expect("read")
            .is_empty()
    );
}

/// Passing over a record is refused where its key or its list cannot be read: the run would learn it.
#[test]
fn a_list_that_is_missing_stops_the_run() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = format!("method = \"er\"\n{DIGITS}");
    let stream = stream_of(&Recipe::parse(&text, &[]).expect("a recipe"));
    let recipe = without(&text, &of_experience(&stream, 0, 1), dir.path());
    assert!(Session::new(&recipe, &nowhere()).is_ok());
    std::fs::remove_file(dir.path().join("names")).expect("removed");
    let error = Session::new(&recipe, &nowhere()).err().expect("an error");
    assert!(error.to_string().contains("must not"), "{error}");
}
