use super::*;
use ebb_data::{Dataset, Pixels, Stream};
use std::collections::HashSet;
use std::sync::atomic::Ordering;

const ER: &str = "method = 'er'\nwith = { capacity = 30 }\nseed = 7\n\
    stream = { dataset = 'digits', split = 5, scenario = 'class' }\n\
    network = { kind = 'mlp', hidden = [16] }\n\
    train = { steps = 25, batch = 8 }\n";

fn search(text: &str, grid: &[&str]) -> Search {
    Search {
        text: text.to_owned(),
        sets: Vec::new(),
        grid: grid.iter().map(|g| g.parse().unwrap()).collect(),
        rule: Rule::Best {
            measure: "average_accuracy".into(),
        },
        first: Some(2),
        validation: 0.2,
        seeds: 2,
    }
}

fn stability(text: &str, grid: &[&str], margin: f64) -> Search {
    Search {
        rule: Rule::StabilityDecay { margin },
        ..search(text, grid)
    }
}

static GO: AtomicBool = AtomicBool::new(false);

fn options(out: Option<&Path>) -> Options<'_> {
    Options {
        data_dir: Path::new("."),
        out,
        threads: 2,
        stop: &GO,
    }
}

fn whole(text: &str) -> Stream {
    let recipe = Recipe::parse(text, &[]).unwrap();
    let (spec, seed) = (&recipe.file().stream, recipe.file().seed);
    spec.build(Path::new("."), seed).unwrap()
}

/// The last row of the accuracy matrix of one run, written out.
fn last_row(text: &str, sets: &[(&str, &str)], seed: u64, shown: &Stream) -> Vec<f64> {
    let mut all: Vec<(String, String)> = vec![("seed".into(), seed.to_string())];
    all.extend(sets.iter().map(|(k, v)| (k.to_string(), v.to_string())));
    let recipe = Recipe::parse(text, &all).unwrap();
    let mut around = Around {
        data_dir: Path::new("."),
        progress: &mut Silent,
        stop: &GO,
    };
    let session = Session::on(&recipe, Arc::new(shown.clone())).unwrap();
    let summary = learn_session(session, None, &mut around).unwrap();
    let row = summary.matrix.last().unwrap().iter();
    row.map(|accuracy| accuracy.unwrap()).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn untimed(mut trials: Trials) -> Trials {
    trials.seconds = 0.0;
    let runs = trials.trials.iter_mut().flat_map(|t| &mut t.runs);
    let costs = runs.filter_map(|run| {
        run.seconds = 0.0;
        run.cost.as_mut()
    });
    for cost in costs.chain([&mut trials.cost]) {
        (cost.train_seconds, cost.total_seconds) = (None, None);
    }
    trials
}

#[test]
fn the_winner_is_that_of_brute_force() {
    let grid = ["train.lr=0.001,0.05,0.2", "with.capacity=5,30"];
    let found = tune(&search(ER, &grid), &options(None), &mut Silent).unwrap();
    let shown = first_experiences(&whole(ER), 2, 0.2).unwrap();
    let mut best = (f64::NEG_INFINITY, 0);
    let mut at = 0;
    for lr in ["0.001", "0.05", "0.2"] {
        for capacity in ["5", "30"] {
            let sets = [("train.lr", lr), ("with.capacity", capacity)];
            let value =
                mean(&[1_000_000, 1_000_001].map(|seed| mean(&last_row(ER, &sets, seed, &shown))));
            let trial = &found.trials.trials[at];
            let difference = trial.value.unwrap() - value;
            assert!(difference.abs() < 1e-12, "{}", trial.words());
            if value > best.0 {
                best = (value, at);
            }
            at += 1;
        }
    }
    let won = &found.trials.trials[best.1];
    assert_eq!(found.chosen.settings, won.settings);
    assert_eq!(Some(found.chosen.value), won.value);
    let (low, high) = won.spread().unwrap();
    assert_eq!((found.chosen.lowest, found.chosen.highest), (low, high));
    assert_eq!((found.trials.n_trials, found.trials.n_runs), (6, 12));
    // Costs are those of the loop: 25 steps an experience.
    assert_eq!(found.trials.cost.steps, Some(12 * 2 * 25));
    // The recipe is the one that was given, but for what was chosen.
    let seed = found.recipe.file().seed;
    assert_eq!((seed, found.recipe.label()), (7, "er"));
    let lr = found.chosen.settings["train.lr"].as_f64();
    assert_eq!(Some(found.recipe.file().train.lr), lr);
    assert_eq!(found.recipe.file().evaluate.every, 10);
}

/// NaN in the place of every record that a search over the first two experiences must not read.
fn poisoned(whole: &Stream) -> Stream {
    let shown: HashSet<u32> = whole.experiences[..2]
        .iter()
        .flat_map(|e| e.train.iter().map(|i| i.row))
        .collect();
    let with_nan = |dataset: &Dataset, spare: &dyn Fn(u32) -> bool| {
        let Pixels::U8(bytes) = &dataset.pixels else {
            panic!("the digits are bytes")
        };
        let width = dataset.features();
        let value = |(at, byte): (usize, &u8)| match spare((at / width) as u32) {
            true => f32::from(*byte),
            false => f32::NAN,
        };
        let pixels: Vec<f32> = bytes.iter().enumerate().map(value).collect();
        Arc::new(Dataset {
            pixels: Pixels::F32(pixels.into()),
            ..dataset.clone()
        })
    };
    Stream {
        train: with_nan(&whole.train, &|row| shown.contains(&row)),
        test: with_nan(&whole.test, &|_| false),
        ..whole.clone()
    }
}

#[test]
fn later_experiences_and_test_examples_are_not_read() {
    // Unlike the rectifier, tanh lets a NaN through to the loss.
    let er = ER.replace("[16]", "[16], activation = { kind = 'tanh' }");
    let clean = whole(&er);
    let poison = poisoned(&clean);
    for search in [
        search(&er, &["train.lr=0.01,0.1"]),
        stability(&er, &["train.lr=0.01,0.1", "with.capacity=10,40"], 0.2),
    ] {
        let of = |stream: &Stream| {
            let found = tune_on(&search, stream, &options(None), &mut Silent).unwrap();
            untimed(found.trials)
        };
        let trials = of(&clean);
        assert!(trials.trials.iter().all(|t| t.failed().is_none()));
        assert_eq!(trials, of(&poison));
    }
    // The poison works where it is read.
    let recipe = Recipe::parse(&er, &[]).unwrap();
    let mut around = Around {
        data_dir: Path::new("."),
        progress: &mut Silent,
        stop: &GO,
    };
    let session = Session::on(&recipe, Arc::new(poison)).unwrap();
    let run = learn_session(session, None, &mut around);
    assert!(matches!(run, Err(Error::Diverged { experience: 2, .. })));
}

/// Counts runs, and stops the search when its second phase begins.
#[derive(Default)]
struct Counting<'a> {
    runs: usize,
    phases: usize,
    stop: Option<&'a AtomicBool>,
}

impl Watch for Counting<'_> {
    fn ahead(&mut self, _: usize) {
        self.phases += 1;
        if let (2, Some(stop)) = (self.phases, self.stop) {
            stop.store(true, Ordering::Relaxed);
        }
    }

    fn run(&mut self, _: &Trial, _: u64, _: Option<f64>) {
        self.runs += 1;
    }
}

fn text_of(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap()
}

#[test]
fn a_search_that_was_stopped_goes_on_to_the_same_trials() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let search = stability(ER, &["train.lr=0.01,0.05", "with.capacity=5,10"], 0.0);
    let once = tune(&search, &options(Some(&a)), &mut Silent).unwrap();
    let stop = AtomicBool::new(false);
    let mut counting = Counting {
        stop: Some(&stop),
        ..Counting::default()
    };
    let stopping = Options {
        stop: &stop,
        ..options(Some(&b))
    };
    let stopped = tune(&search, &stopping, &mut counting).unwrap_err();
    assert!(
        matches!(stopped, Error::TuneStopped { runs: 4 }),
        "{stopped}"
    );
    let kept = Trials::load(&b.join("trials.json")).unwrap();
    assert_eq!((kept.n_trials, kept.n_runs, kept.chosen), (2, 4, None));
    assert!(!b.join("tuned.toml").exists());
    let mut counting = Counting::default();
    let twice = tune(&search, &options(Some(&b)), &mut counting).unwrap();
    assert_eq!(counting.runs, once.trials.n_runs - 4);
    assert_eq!(untimed(once.trials), untimed(twice.trials));
    assert_eq!(text_of(&a, "tuned.toml"), text_of(&b, "tuned.toml"));
}

#[test]
fn runs_that_are_there_are_not_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let (out, file) = (options(Some(dir.path())), dir.path().join("trials.json"));
    let search = search(ER, &["train.lr=0.01,0.05,0.1"]);
    let once = tune(&search, &out, &mut Silent).unwrap();
    let before = text_of(dir.path(), "trials.json");
    // What is finished stays as it is, to the byte.
    let mut counting = Counting::default();
    tune(&search, &out, &mut counting).unwrap();
    assert_eq!(
        (counting.runs, text_of(dir.path(), "trials.json")),
        (0, before)
    );
    // As a kill in the second trial leaves it.
    let mut killed = once.trials.clone();
    killed.chosen = None;
    killed.trials.truncate(2);
    killed.trials[1].runs.truncate(1);
    killed.trials[1].value = None;
    killed.save(&file).unwrap();
    let twice = tune(&search, &out, &mut counting).unwrap();
    assert_eq!((counting.runs, twice.trials.n_runs), (3, 6));
    assert_eq!(untimed(once.trials), untimed(twice.trials));
    // Seeds may be added, too: the first two of three are there.
    let more = Search { seeds: 3, ..search };
    let mut counting = Counting::default();
    let thrice = tune(&more, &out, &mut counting).unwrap();
    assert_eq!((counting.runs, thrice.trials.n_runs), (3, 9));
}

#[test]
fn what_was_tried_before_is_counted_and_another_search_is_not_mixed_in() {
    let dir = tempfile::tempdir().unwrap();
    let out = options(Some(dir.path()));
    tune(&search(ER, &["train.lr=0.01,0.05"]), &out, &mut Silent).unwrap();
    let wider = search(ER, &["train.lr=0.05,0.1"]);
    let found = tune(&wider, &out, &mut Silent).unwrap();
    assert_eq!((found.trials.n_trials, found.trials.n_runs), (3, 6));
    let lr = |t: &Trial| t.settings["train.lr"].as_f64().unwrap();
    let lrs: Vec<f64> = found.trials.trials.iter().map(lr).collect();
    assert_eq!(lrs, [0.05, 0.1, 0.01]);
    let why = |search: &Search| tune(search, &out, &mut Silent).unwrap_err().to_string();
    let other = search(&ER.replace("seed = 7", "seed = 8"), &["train.lr=0.1"]);
    assert!(why(&other).contains("holds the trials of another recipe"));
    let other = Search {
        first: Some(3),
        ..wider.clone()
    };
    assert!(why(&other).contains("another number of experiences"));
    let other = Search {
        validation: 0.1,
        ..wider
    };
    assert!(why(&other).contains("other examples"));
}

#[test]
fn a_trial_that_diverges_is_recorded_and_cannot_win() {
    let dir = tempfile::tempdir().unwrap();
    let grid = ["train.lr=1e30,0.05"];
    let found = tune(&search(ER, &grid), &options(Some(dir.path())), &mut Silent).unwrap();
    let kept = Trials::load(&dir.path().join("trials.json")).unwrap();
    assert_eq!(kept, found.trials);
    assert_eq!((kept.n_trials, kept.n_runs, kept.n_failed), (2, 4, 2));
    let failed = &kept.trials[0];
    assert!(failed.failed().unwrap().contains("diverged at step"));
    assert_eq!(failed.value, None);
    assert_eq!(found.chosen.settings["train.lr"], 0.05);
    assert_eq!(found.chosen.at_edge, ["train.lr"]);
    // Where nothing is left there is no winner, and the record says why.
    let dir = tempfile::tempdir().unwrap();
    let all = search(ER, &["train.lr=1e30,1e25"]);
    let error = tune(&all, &options(Some(dir.path())), &mut Silent).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("every one of the 2 trials diverged")
    );
    let kept = Trials::load(&dir.path().join("trials.json")).unwrap();
    assert_eq!((kept.n_failed, kept.chosen), (4, None));
    assert!(!dir.path().join("tuned.toml").exists());
}

/// The distance to the old weights, from one that freezes them to none at all.
const L2: &str = "method = 'l2'\nstream = { dataset = 'digits', split = 5, scenario = 'domain' }\n\
    accept = ['penalty-alone-on-class-incremental']\n\
    network = { kind = 'mlp', hidden = [16] }\ntrain = { steps = 25, batch = 8 }\n";

#[test]
fn stability_decays_until_the_newest_experience_is_learned() {
    let lrs = ["0.001", "0.05"];
    let strengths = ["0.0", "10.0", "0.1", "1.0"];
    let grid = [
        format!("train.lr={}", lrs.join(",")),
        format!("with.beta={}", strengths.join(",")),
    ];
    let grid = [grid[0].as_str(), grid[1].as_str()];
    let shown = first_experiences(&whole(L2), 2, 0.2).unwrap();
    let newest = |text: &str, sets: &[(&str, &str)]| {
        let row = |seed| last_row(text, sets, seed, &shown)[1];
        mean(&[1_000_000, 1_000_001].map(row))
    };
    // The two phases by hand.
    let plain = L2.replace("'l2'", "'fine-tune'");
    let reached = lrs.map(|lr| newest(&plain, &[("train.lr", lr)]));
    assert!(reached[1] > reached[0] + 0.1, "{reached:?}");
    let of = |beta| newest(L2, &[("train.lr", lrs[1]), ("with.beta", beta)]);
    let by_strength = ["10.0", "1.0", "0.1", "0.0"].map(|beta| (beta, of(beta)));
    assert!(by_strength[0].1 < by_strength[3].1 - 0.1, "{by_strength:?}");
    for margin in [0.0, 0.02, 0.2, 0.9] {
        let search = stability(L2, &grid, margin);
        let found = tune(&search, &options(None), &mut Silent).unwrap();
        let decay = found.chosen.decay.unwrap();
        assert!((decay.plasticity - reached[1]).abs() < 1e-12);
        let threshold = (1.0 - margin) * reached[1];
        let first = by_strength.iter().position(|(_, v)| *v >= threshold);
        let taken = first.unwrap_or(3);
        assert_eq!(decay.reached, first.is_some(), "{margin}");
        let beta: f64 = by_strength[taken].0.parse().unwrap();
        assert_eq!(found.chosen.settings["with.beta"], beta, "{margin}");
        assert_eq!(found.chosen.settings["train.lr"], 0.05);
        assert!((found.chosen.value - by_strength[taken].1).abs() < 1e-12);
        // What was not needed was not run, and is not counted.
        assert_eq!(found.trials.n_trials, 2 + taken + 1, "{margin}");
        let plastic = |t: &&Trial| t.phase == Phase::Plasticity;
        assert_eq!(found.trials.trials.iter().filter(plastic).count(), 2);
    }
}

#[test]
fn what_is_better_lower_is_minimised() {
    let search = Search {
        rule: Rule::Best {
            measure: "forgetting".into(),
        },
        ..search(ER, &["train.lr=0.001,0.1", "with.capacity=2,40"])
    };
    let found = tune(&search, &options(None), &mut Silent).unwrap();
    let values = found.trials.trials.iter().map(|t| t.value.unwrap());
    let least = values.fold(f64::INFINITY, f64::min);
    assert_eq!(found.trials.direction, Some(Direction::Lower));
    assert_eq!(found.chosen.value, least);
}

#[test]
fn every_refusal_comes_before_the_first_run_and_says_what_to_do() {
    let why = |search: &Search| {
        let mut counting = Counting::default();
        let error = tune(search, &options(None), &mut counting).unwrap_err();
        assert_eq!(counting.runs, 0);
        error.to_string()
    };
    let lr = "train.lr=0.1,0.2";
    let one = ER.replace("split = 5", "split = 1");
    assert!(why(&search(&one, &[lr])).contains("the stream has one experience"));
    let many = Search {
        first: Some(6),
        ..search(ER, &[lr])
    };
    assert!(why(&many).contains("the first 1 to 5, not 6"));
    assert!(why(&search(ER, &["seed=1,2"])).contains("not for a search"));
    assert!(why(&search(ER, &["stream.split=2,5"])).contains("not for a search"));
    assert!(why(&search(ER, &[lr, lr])).contains("names `train.lr` twice"));
    assert!(why(&search(ER, &[])).contains("needs a grid"));
    assert!(why(&search(ER, &["with.lambda=1,2"])).contains("no parameter `lambda`"));
    assert!(why(&search(ER, &["train.batch=8,0"])).contains("`train.batch` must be at least 1"));
    let joint = ER
        .replace("'er'", "'joint'")
        .replace("with = { capacity = 30 }", "");
    assert!(why(&search(&joint, &[lr])).contains("gathers its experiences"));
    assert!(why(&stability(ER, &[lr], 0.2)).contains("weakens one strength"));
    let words = ["with.keep=reservoir,ring"];
    assert!(why(&stability(ER, &words, 0.2)).contains("its values are numbers"));
    let range = ["with.capacity=10,20"];
    assert!(why(&stability(ER, &range, 1.0)).contains("from 0 up to 1"));
}

#[test]
fn a_measure_that_no_run_has_is_named_with_those_that_are() {
    let search = Search {
        rule: Rule::Best {
            measure: "accuracy".into(),
        },
        ..search(ER, &["train.lr=0.1"])
    };
    let error = tune(&search, &options(None), &mut Silent).unwrap_err();
    assert!(error.to_string().contains("average_accuracy"), "{error}");
    assert!(at_the_end("forgetting") && !at_the_end("min_acc"));
}

#[test]
fn seeds_of_trials_are_no_seeds_of_runs() {
    assert_eq!(seeds(0, 2), [1_000_000, 1_000_001]);
    assert_eq!(seeds(1_000_000, 2), [0, 1]);
    // Runs count up from their own seed, so one just below must not be met either.
    assert_eq!(seeds(999_998, 2), [0, 1]);
}
