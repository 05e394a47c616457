//! The same recipe and seed give the same bits: with one thread or two, alone or beside another
//! run, stopped and resumed or not.

use ebb_data::Stream;
use ebb_learn::{Around, Error, Progress, Recipe, Session, Silent, learn_session, resume};
use ebb_record::States;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn recipe(method: &str, sets: &[(&str, &str)]) -> Recipe {
    let text = format!(
        "method = \"{method}\"\naccept = [\"penalty-alone-on-class-incremental\"]\n\
         [stream]\ndataset = \"digits\"\nsplit = 5\nscenario = \"class\"\n\
         [network]\nkind = \"mlp\"\nhidden = [40, 30]\ndropout = 0.1\n\
         [train]\nbatch = 16\nlr = 0.05\nepochs = 1\n[save]\ncheckpoint-every = 31\n\
         [evaluate]\nevery = 5\npanel = 40\n"
    );
    let sets: Vec<(String, String)> = sets
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect();
    Recipe::parse(&text, &sets).expect("a valid recipe")
}

fn run(
    recipe: &Recipe,
    out: Option<&Path>,
    stop: &AtomicBool,
    watch: &mut dyn Progress,
) -> ebb_learn::Result<ebb_record::Summary> {
    let dir = std::env::temp_dir();
    let session = Session::new(recipe, &dir)?;
    let mut around = Around {
        data_dir: &dir,
        progress: watch,
        stop,
    };
    learn_session(session, out, &mut around)
}

fn hash_of(run: &Path) -> String {
    let states = States::view(&run.join("states")).expect("states");
    states.head().expect("a head").weights_hash.clone()
}

/// Asks for a stop after some steps.
struct StopAt<'a>(u64, &'a AtomicBool);

impl Progress for StopAt<'_> {
    fn step(&mut self, step: u64, _: f64, _: usize) {
        if step == self.0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

/// Examples of the first experience, as a list for a recipe.
fn plan() -> String {
    let stream = recipe("fine-tune", &[]).file().stream.clone();
    let stream = stream.build(Path::new("."), 0).expect("a stream");
    let ids = stream.experiences[0].train[..20].iter();
    let ids: Vec<String> = ids.map(|i| format!("\"{}\"", i.id)).collect();
    format!("[{}]", ids.join(", "))
}

#[test]
fn a_stopped_run_resumes_to_the_same_bits() {
    let methods = [
        (
            "der++",
            vec![("train.optimizer", "adam"), ("train.lr", "0.002")],
        ),
        ("si", vec![("train.momentum", "0.9")]),
        ("online-ewc", vec![("train.clip", "1.0")]),
        ("lwf", vec![("train.schedule.warmup", "9")]),
        ("er", vec![("evaluate.forgetting-events", "true")]),
        ("l2", vec![("train.freeze", "[\"layers.0.weight\"]")]),
        ("rehearsal", vec![("with.capacity", "60")]),
        ("gem", vec![("with.capacity", "20")]),
        ("a-gem", vec![("with.capacity", "20")]),
        (
            "mir",
            vec![("with.capacity", "60"), ("with.candidates", "20")],
        ),
        (
            "hft",
            vec![("train.momentum", "0.9"), ("train.weight-decay", "0.01")],
        ),
        (
            "gdumb",
            vec![("with.capacity", "60"), ("train.epochs", "8")],
        ),
        ("mas", vec![("with.of", "batch"), ("with.batch", "50")]),
        ("fdr", vec![("with.steps", "one")]),
        (
            "fdr",
            vec![("with.steps", "two"), ("train.momentum", "0.9")],
        ),
        (
            "gss",
            vec![("with.capacity", "60"), ("with.gate", "example")],
        ),
        ("hal", vec![("with.through", "both"), ("with.ascent", "5")]),
        ("hft", vec![("with.by", "reset")]),
        (
            "refresh",
            vec![("with.rate", "0.01"), ("train.momentum", "0.9")],
        ),
        (
            "k-fpf",
            vec![
                ("with.capacity", "60"),
                ("with.steps", "7"),
                ("with.alpha", "0.5"),
                ("with.times", "6"),
            ],
        ),
        ("zeroth-order", vec![("with.queries", "2")]),
        ("view-batch", vec![("train.batch", "8")]),
        (
            "icarl",
            vec![("with.capacity", "60"), ("train.momentum", "0.9")],
        ),
        ("dgr", vec![("with.hidden", "[20]"), ("with.latent", "5")]),
        (
            "dgr",
            vec![
                ("with.hidden", "[20]"),
                ("with.latent", "5"),
                ("with.targets", "soft"),
                ("with.size", "7"),
            ],
        ),
        ("centre", vec![("stream.scenario", "domain")]),
        ("mat", vec![("train.momentum", "0.9"), ("with.epochs", "2")]),
        (
            "hpcr",
            vec![
                ("with.capacity", "60"),
                ("network.head", "{ kind = 'cosine', scale = 11.1 }"),
            ],
        ),
        ("prd", vec![("network.head", "prototypes")]),
        (
            "relational",
            vec![("with.capacity", "60"), ("with.every", "2")],
        ),
        ("hfc", vec![("with.capacity", "60")]),
        ("rehearsal-kd", vec![("with.capacity", "60")]),
        ("gpm", vec![("with.samples", "50")]),
        (
            "cuber",
            vec![("with.samples", "50"), ("with.strong", "0.1")],
        ),
        (
            "remind",
            vec![
                ("with.books", "8"),
                ("with.centres", "16"),
                ("with.capacity", "120"),
                ("with.mixup", "0.1"),
                ("with.decay", "0.7"),
                ("train.momentum", "0.9"),
            ],
        ),
        (
            "sharp",
            vec![
                ("with.keep", "10"),
                ("with.phases", "4"),
                ("with.recent", "1"),
            ],
        ),
        (
            "key-value",
            vec![
                (
                    "network",
                    "{ kind = \"key-value\", books = 8, keys = 16, width = 4 }",
                ),
                ("train.optimizer", "adagrad"),
                ("with.samples", "200"),
            ],
        ),
        ("mvp", vec![("with.capacity", "60")]),
        (
            "protocl",
            vec![("with.capacity", "60"), ("with.refresh", "13")],
        ),
        (
            "reptile",
            vec![
                ("with.every", "7"),
                ("with.epsilon", "0.4"),
                ("train.momentum", "0.9"),
            ],
        ),
        (
            "gere",
            vec![
                ("with.examples", "50"),
                ("with.rows", "3"),
                ("network.dropout", "0.0"),
            ],
        ),
        (
            "gere",
            vec![("with.hold", "features"), ("with.weight", "1.0")],
        ),
        (
            "quantile-risk",
            vec![("with.capacity", "60"), ("with.environments", "2")],
        ),
    ];
    let planned = plan();
    let methods = methods.into_iter().chain([(
        "planned",
        vec![("with.ids", planned.as_str()), ("with.per", "3")],
    )]);
    for (method, sets) in methods {
        let recipe = recipe(method, &sets);
        let dir = tempfile::tempdir().expect("a directory");
        let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
        let never = AtomicBool::new(false);
        let first = run(&recipe, Some(&whole), &never, &mut Silent).expect("a run");
        // Stopped three times, in different experiences.
        let stop = AtomicBool::new(false);
        let stopped = run(&recipe, Some(&parts), &stop, &mut StopAt(11, &stop));
        assert!(
            matches!(stopped, Err(Error::Interrupted { step: 11, .. })),
            "{method}"
        );
        for at in [40, 77] {
            let stop = AtomicBool::new(false);
            let mut around = Around {
                data_dir: dir.path(),
                progress: &mut StopAt(at, &stop),
                stop: &stop,
            };
            let e = resume(&parts, &mut around);
            assert!(matches!(e, Err(Error::Interrupted { .. })), "{method}");
        }
        let mut around = Around {
            data_dir: dir.path(),
            progress: &mut Silent,
            stop: &never,
        };
        let second = resume(&parts, &mut around).expect("the rest");
        assert_eq!(hash_of(&whole), hash_of(&parts), "{method}");
        assert_eq!(first.matrix, second.matrix, "{method}");
        assert_eq!(
            first.curves, second.curves,
            "{method}: no record missing or double"
        );
        assert_eq!(
            first.cost.gradient_calls, second.cost.gradient_calls,
            "{method}"
        );
        assert_eq!(first.numbers.len(), second.numbers.len());
        let notes = |run: &Path| {
            let records = ebb_record::RunView::load(run).and_then(|v| v.records());
            let note = |r: &ebb_record::Record| matches!(r, ebb_record::Record::Note(_));
            let records = records.expect("records");
            records.into_iter().filter(note).collect::<Vec<_>>()
        };
        assert_eq!(notes(&whole), notes(&parts), "{method}: forgetting events");
    }
}

/// GDumb sees nothing but its memory: five experiences of `min(60, seen)` records, eight passes.
#[test]
fn gdumb_trains_on_nothing_but_the_memory() {
    let recipe = recipe("gdumb", &[("with.capacity", "60"), ("train.epochs", "8")]);
    let never = AtomicBool::new(false);
    let summary = run(&recipe, None, &never, &mut Silent).expect("a run");
    assert_eq!(summary.cost.backward_rows, Some(5 * 8 * 60));
    assert_eq!(summary.cost.steps, Some(5 * 8 * 4));
}

#[test]
fn threads_and_neighbours_change_no_bit() {
    // Wide enough that the products run on several threads.
    let recipe = recipe(
        "er",
        &[
            ("network.hidden", "[400, 400]"),
            ("train.batch", "128"),
            ("train.epochs", "4"),
        ],
    );
    let never = AtomicBool::new(false);
    let dir = tempfile::tempdir().expect("a directory");
    let on = |threads: usize, name: &str| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a pool");
        let path = dir.path().join(name);
        let before = worker_seconds(&pool);
        pool.install(|| run(&recipe, Some(&path), &never, &mut Silent))
            .expect("a run");
        let busy: Vec<f64> = worker_seconds(&pool)
            .iter()
            .zip(before)
            .map(|(a, b)| a - b)
            .collect();
        (hash_of(&path), busy)
    };
    let (one, _) = on(1, "one");
    let (two, busy) = on(2, "two");
    assert_eq!(one, two, "one thread and two");
    assert!(
        busy.iter().all(|s| *s > 0.0),
        "both threads worked: {busy:?}"
    );
    // Two runs at the same time in one process.
    let beside: Vec<String> = std::thread::scope(|scope| {
        let start = |name: &'static str| {
            let (recipe, never, path) = (&recipe, &never, dir.path().join(name));
            scope.spawn(move || {
                run(recipe, Some(&path), never, &mut Silent).expect("a run");
                hash_of(&path)
            })
        };
        let threads = [start("left"), start("right")];
        threads.map(|t| t.join().expect("no panic")).to_vec()
    });
    assert!(beside.iter().all(|hash| *hash == one), "beside another run");
}

/// Processor seconds of each worker of a pool (0 where the system does not say).
fn worker_seconds(pool: &rayon::ThreadPool) -> Vec<f64> {
    pool.broadcast(|_| {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let nanos: f64 = text
            .split_whitespace()
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(1.0);
        nanos / 1e9
    })
}

/// Frozen means bit-equal, under an optimizer with weight decay and momentum.
#[test]
fn frozen_parameters_keep_their_bits() {
    let recipe = recipe(
        "fine-tune",
        &[
            ("train.freeze", "[\"layers.*\"]"),
            ("train.optimizer", "adamw"),
            ("train.weight-decay", "0.1"),
            ("train.lr", "0.01"),
        ],
    );
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("run");
    run(&recipe, Some(&path), &AtomicBool::new(false), &mut Silent).expect("a run");
    let states = States::view(&path.join("states")).expect("states");
    let ends: Vec<&ebb_record::StateMeta> = states
        .chain()
        .iter()
        .filter(|s| s.milestone && s.step > 0)
        .collect();
    let layout = Session::new(&recipe, dir.path())
        .expect("a session")
        .oracle
        .model
        .layout()
        .clone();
    let load = |id: &str| {
        states
            .checkout(id)
            .expect("kept")
            .weights(&layout)
            .expect("weights")
    };
    let (first, last) = (load(&ends[0].id), load(&ends[ends.len() - 1].id));
    for (entry, values) in first.iter() {
        let now = last.get(&entry.path).expect("the same layout");
        let same = values
            .iter()
            .zip(now)
            .all(|(a, b)| a.to_bits() == b.to_bits());
        assert_eq!(same, entry.path.starts_with("layers."), "{}", entry.path);
    }
}

/// Removing one record leaves every other record's place and draws as they were: the runs are
/// equal until the first batch the record is in.
#[test]
fn removing_a_record_changes_nothing_before_it_is_met() {
    let recipe = recipe("er", &[("train.epochs", "1"), ("evaluate.every", "1")]);
    let whole = ebb_data::load("digits", &std::env::temp_dir()).expect("embedded");
    let all = Session::new(&recipe, &std::env::temp_dir()).expect("a session");
    let last_experience = &all.stream.experiences[4];
    let gone = last_experience.train[5].id;
    let less = ebb_data::Split {
        train: Arc::new(whole.train.without(|id| id.same_base(&gone))),
        test: whole.test.clone(),
    };
    let seed = recipe.file().seed;
    let stream: Stream = recipe
        .file()
        .stream
        .build_on(&less, seed)
        .expect("a stream");
    let without = Session::on(&recipe, Arc::new(stream)).expect("a session");
    let curves = |session: Session| {
        let dir = std::env::temp_dir();
        let mut around = Around {
            data_dir: &dir,
            progress: &mut Silent,
            stop: &AtomicBool::new(false),
        };
        learn_session(session, None, &mut around).expect("a run")
    };
    let (a, b) = (curves(all), curves(without));
    assert_eq!(a.matrix[..4], b.matrix[..4], "equal until its experience");
}
