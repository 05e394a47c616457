//! Choosing hyper-parameters without seeing the future.
//!
//! **What it does.** Runs a recipe with every value of a grid on the first experiences of its
//! stream, measures on held-out training examples of these experiences, and keeps count of what
//! it tried. No test example and no later experience is read ([`first_experiences`]); the seeds
//! are none that the final runs have, the stream is theirs.
//!
//! **Rules.** [`Rule::Best`]: the whole grid, the best mean over the seeds; of equals the first
//! listed. Tuning on the first three experiences is the protocol of GEM (Lopez-Paz & Ranzato 2017)
//! and A-GEM (Chaudhry et al. 2019). [`Rule::StabilityDecay`]: the two phases of De Lange et al.
//! 2021 ("A continual learning survey"), as in FACIL (Masana et al. 2022):
//!
//! 1. *Maximal plasticity*: the recipe without its method (plain fine-tuning) with every value of
//!    the `train.` keys. `A*` is the best accuracy on the newest experience.
//! 2. *Stability decay*: with these values, the method at its largest strength, then the next
//!    smaller, until the newest experience's accuracy is at least `(1 − margin) A*`.
//!
//! FACIL goes through both at each experience anew, with the task given when it measures; a recipe
//! has one value for all experiences, so here they are gone through once, at the last experience
//! looked at, measured as the recipe's scenario does.
//!
//! **Use it** for every arm of a comparison, with grids of equal size.

mod grid;
mod side_by_side;
mod stream;
mod trials;

pub use grid::{Axis, best, crossed};
pub use side_by_side::side_by_side;
pub use stream::first_experiences;
pub use trials::{Chosen, Decay, Phase, TRIALS_VERSION, Trial, TrialRun, Trials};

use crate::error::{Error, Result};
use crate::learn::{Around, learn_session};
use crate::progress::Silent;
use crate::recipe::{Recipe, value_of};
use crate::session::Session;
use crate::spec::DataPlan;
use ebb_data::Stream;
use ebb_record::{AccuracyMatrix, Cell, Cost, Curriculum};
use ebb_space::Direction;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Experiences looked at unless told otherwise, as in GEM and A-GEM.
pub const FIRST: usize = 3;

/// Runs that one search may have.
const MOST_RUNS: usize = 100_000;

/// A search.
#[derive(Clone, Debug)]
pub struct Search {
    /// The recipe as written.
    pub text: String,
    /// Changes to it that hold in every trial.
    pub sets: Vec<(String, String)>,
    /// What is tried.
    pub grid: Vec<Axis>,
    /// How the choice is made.
    pub rule: Rule,
    /// Experiences looked at; none: [`FIRST`], or all of a shorter stream.
    pub first: Option<usize>,
    /// The share of their training examples held out to measure on.
    pub validation: f64,
    /// Runs of each trial.
    pub seeds: usize,
}

/// How the choice is made.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// The best of the whole grid.
    Best {
        /// A number of a run's summary, such as `average_accuracy`.
        measure: String,
    },
    /// The strongest method that leaves the newest experience learnable.
    StabilityDecay {
        /// The share of fine-tuning's accuracy that may be lost.
        margin: f64,
    },
}

/// What surrounds a search.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Where data is kept.
    pub data_dir: &'a Path,
    /// Where `trials.json` and `tuned.toml` go, and where an interrupted search goes on.
    pub out: Option<&'a Path>,
    /// Runs at a time; the result does not depend on it.
    pub threads: usize,
    /// Set by whoever wants it to stop.
    pub stop: &'a AtomicBool,
}

/// Watches a search. Every method has an empty default.
pub trait Watch {
    /// `runs` more runs are ahead.
    fn ahead(&mut self, _runs: usize) {}
    /// A run of `trial` ended; it has no value if it diverged.
    fn run(&mut self, _trial: &Trial, _seed: u64, _value: Option<f64>) {}
}

impl Watch for Silent {}

/// What a search came to.
#[derive(Clone, Debug)]
pub struct Found {
    /// Everything that was tried, and what was chosen.
    pub trials: Trials,
    /// The choice.
    pub chosen: Chosen,
    /// The recipe with the chosen values and its own seed.
    pub recipe: Recipe,
}

/// Makes a search.
///
/// # Errors
/// When a recipe of it is refused (before the first run), the data cannot be had, a run fails
/// other than by diverging, every trial of a rule diverges, or the user stops it.
pub fn tune(search: &Search, options: &Options, watch: &mut dyn Watch) -> Result<Found> {
    let file = search.recipe(&[])?.file().clone();
    let whole = match file.language {
        Some(_) => crate::language::open(&search.recipe(&[])?, options.data_dir)?.1,
        None => file.stream.build(options.data_dir, file.seed)?,
    };
    tune_on(search, &whole, options, watch)
}

/// The same on the recipe's stream at hand; only its first experiences are read.
///
/// # Errors
/// As [`tune`].
pub fn tune_on(
    search: &Search,
    whole: &Stream,
    options: &Options,
    watch: &mut dyn Watch,
) -> Result<Found> {
    let plan = Plan::new(search, whole)?;
    let shown = first_experiences(whole, plan.first, search.validation)?;
    let mut book = Book::open(&plan, whole.experiences.len(), shown, options)?;
    let chosen = match &search.rule {
        Rule::Best { .. } => best_of_grid(&plan, &mut book, watch)?,
        Rule::StabilityDecay { margin } => stability_decay(&plan, *margin, &mut book, watch)?,
    };
    let (sets, chosen) = chosen;
    let recipe = search.recipe(&sets)?;
    let found = book.close(chosen, recipe)?;
    if let Some(dir) = options.out {
        let path = dir.join("tuned.toml");
        ebb_record::Disk::default().replace(&path, found.tuned(&search.grid).as_bytes())?;
    }
    Ok(found)
}

impl Found {
    /// `tuned.toml`: the recipe with the chosen values, headed by how they were found.
    fn tuned(&self, grid: &[Axis]) -> String {
        let (t, chosen) = (&self.trials, &self.chosen);
        let mut lines = vec![
            format!(
                "Chosen by `ebb tune` with the rule {} from {} trials ({} runs, {} of them diverged).",
                t.rule, t.n_trials, t.n_runs, t.n_failed
            ),
            format!(
                "They saw the first {} of {} experiences: {} training examples, measured on {} others",
                t.first, t.experiences, t.train_examples, t.validation_examples
            ),
            "held out of the same experiences. No test example was read. Every trial: trials.json."
                .into(),
            format!("{}: {:.4}", t.measure, chosen.value),
        ];
        for axis in grid {
            let key = &axis.key;
            let value = chosen
                .settings
                .get(key)
                .map_or_else(String::new, Value::to_string);
            let edge = match chosen.at_edge.contains(key) {
                true => ", the edge of what was tried",
                false => "",
            };
            lines.push(format!(
                "{key} = {value} (of {}{edge})",
                axis.values.join(", ")
            ));
        }
        // A value may be written over several lines.
        let lines = lines.iter().flat_map(|line| line.lines());
        let mut text: String = lines.map(|line| format!("# {line}\n")).collect();
        text.push('\n');
        text + self.recipe.text()
    }
}

impl Search {
    fn recipe(&self, sets: &[(String, String)]) -> Result<Recipe> {
        let all = [&self.sets, sets].concat();
        Recipe::parse(&self.text, &all)
    }
}

fn refused<T>(reason: impl Into<String>) -> Result<T> {
    Err(Error::Tune {
        reason: reason.into(),
    })
}

/// A search that was checked.
struct Plan<'a> {
    search: &'a Search,
    recipe: Recipe,
    /// The recipe without its method.
    plain: String,
    first: usize,
    seeds: Vec<u64>,
    measure: &'a str,
}

/// One combination of values: its recipe for every seed.
struct Candidate {
    phase: Phase,
    sets: Vec<(String, String)>,
    recipes: Vec<Recipe>,
}

impl<'a> Plan<'a> {
    fn new(search: &'a Search, whole: &Stream) -> Result<Plan<'a>> {
        let recipe = search.recipe(&[])?;
        let n = whole.experiences.len();
        if n < 2 {
            return refused(
                "the stream has one experience: nothing comes after it, and to tune on it would be \
                 to tune on everything",
            );
        }
        if search.seeds == 0 {
            return refused("a search needs at least one seed");
        }
        let combinations = search.grid.iter().map(|axis| axis.values.len());
        let runs = combinations.fold(search.seeds, usize::saturating_mul);
        if runs > MOST_RUNS {
            return refused(format!(
                "the grid and the seeds make more than {MOST_RUNS} runs: take fewer values"
            ));
        }
        if search.grid.is_empty() {
            return refused("a search needs a grid: what is to be tried");
        }
        for (i, axis) in search.grid.iter().enumerate() {
            let key = axis.key.as_str();
            if search.grid[..i].iter().any(|other| other.key == key) {
                return refused(format!(
                    "the grid names `{key}` twice; list all of its values in one"
                ));
            }
            if key == "seed" || key == "stream" || key.starts_with("stream.") {
                return refused(format!(
                    "`{key}` is not for a search to choose: it decides what is learned from, not how"
                ));
            }
        }
        let measure = match &search.rule {
            Rule::Best { measure } => measure,
            Rule::StabilityDecay { .. } => "newest_accuracy",
        };
        let plan = Plan {
            plain: without_method(&recipe)?,
            first: search.first.unwrap_or(FIRST.min(n)),
            seeds: seeds(recipe.file().seed, search.seeds),
            recipe,
            search,
            measure,
        };
        if let Rule::StabilityDecay { margin } = search.rule {
            plan.check_decay(margin)?;
        }
        Ok(plan)
    }

    /// A combination's recipes, each of which must be one that can be run.
    fn candidate(&self, phase: Phase, sets: Vec<(String, String)>) -> Result<Candidate> {
        let (text, base) = match phase {
            Phase::Plasticity => (self.plain.as_str(), &[][..]),
            Phase::Grid | Phase::Stability => (self.search.text.as_str(), &self.search.sets[..]),
        };
        let mut all = [base, &sets].concat();
        // Nobody looks at these; evaluating at every step would be most of the time.
        let mut quiet = vec![("evaluate.outcomes", "false")];
        if at_the_end(self.measure) {
            quiet.push(("evaluate.every", "0"));
        }
        all.extend(quiet.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())));
        let recipe = |seed: &u64| {
            let seed = ("seed".to_owned(), seed.to_string());
            let recipe = Recipe::parse(text, &[&all[..], &[seed]].concat())?;
            match recipe.file().data {
                DataPlan::Sequential => Ok(recipe),
                DataPlan::Cumulative | DataPlan::Joint | DataPlan::Memory => refused(
                    "the recipe gathers its experiences (`data`), so nothing is forgotten and there \
                     is no first part of the stream to tune on",
                ),
            }
        };
        let recipes = self.seeds.iter().map(recipe).collect::<Result<_>>()?;
        Ok(Candidate {
            phase,
            sets,
            recipes,
        })
    }

    fn candidates(&self, phase: Phase, grid: &[Axis]) -> Result<Vec<Candidate>> {
        let sets = crossed(grid).into_iter();
        sets.map(|sets| self.candidate(phase, sets)).collect()
    }

    /// The keys of the two phases: those of training, and the one strength.
    fn phases(&self) -> (Vec<Axis>, Vec<Axis>) {
        let grid = self.search.grid.iter().cloned();
        grid.partition(|axis| axis.key.starts_with("train."))
    }

    fn check_decay(&self, margin: f64) -> Result<()> {
        if !(0.0..1.0).contains(&margin) {
            return refused(format!(
                "the margin is a share from 0 up to 1, it is {margin}"
            ));
        }
        if self.first < 2 {
            return refused(
                "stability decay weighs the newest experience against earlier ones: let it look at 2 or more",
            );
        }
        let (_, strengths) = self.phases();
        match &strengths[..] {
            [one] if one.numbers().is_some() => Ok(()),
            [one] => refused(format!(
                "`{}` is to decay, so its values are numbers",
                one.key
            )),
            others => refused(format!(
                "stability decay weakens one strength, such as with.lambda, beside keys that begin with `train.`; the grid has {}",
                match others {
                    [] => "none".to_owned(),
                    _ => others
                        .iter()
                        .map(|a| a.key.as_str())
                        .collect::<Vec<_>>()
                        .join(", "),
                }
            )),
        }
    }

    /// The axes whose chosen value lies at an end.
    fn edges(&self, sets: &[(String, String)]) -> Vec<String> {
        let at_edge = |axis: &&Axis| {
            let chosen = sets.iter().find(|(key, _)| *key == axis.key);
            chosen.is_some_and(|(_, value)| axis.at_edge(value))
        };
        let edges = self.search.grid.iter().filter(at_edge);
        edges.map(|axis| axis.key.clone()).collect()
    }
}

/// Seeds that are not the final runs': those count up from the recipe's own, these stay away.
fn seeds(own: u64, n: usize) -> Vec<u64> {
    const FAR: u64 = 1_000_000;
    // Half of that lies between them, whichever comes first; a search has fewer runs.
    let from = if own < FAR / 2 { FAR } else { 0 };
    (from..).take(n).collect()
}

/// The recipe as plain fine-tuning: what is learned from, with what network, and how it is
/// trained.
fn without_method(recipe: &Recipe) -> Result<String> {
    let unreadable = |e: toml::de::Error| Error::Recipe {
        reason: e.to_string(),
    };
    let mut table: toml::Table = toml::from_str(recipe.text()).map_err(unreadable)?;
    let kept = ["accept", "evaluate", "network", "seed", "stream", "train"];
    table.retain(|key, _| kept.contains(&key));
    table.insert("method".to_owned(), "fine-tune".into());
    Ok(table.to_string())
}

/// Whether a measure is taken at the ends of experiences alone, and so needs no panel.
fn at_the_end(measure: &str) -> bool {
    let mut matrix = AccuracyMatrix::new(Curriculum::square(2), "");
    for after in [None, Some(0), Some(1)] {
        for set in 0..2 {
            let cell = Cell::new(1, 2).and_then(|cell| matrix.set(after, set, cell));
            debug_assert!(cell.is_ok());
        }
    }
    matrix.numbers(1).iter().any(|n| n.name == measure)
}

fn best_of_grid(
    plan: &Plan,
    book: &mut Book,
    watch: &mut dyn Watch,
) -> Result<(Vec<(String, String)>, Chosen)> {
    let candidates = plan.candidates(Phase::Grid, &plan.search.grid)?;
    let at = book.run(&candidates, watch)?;
    let Some(won) = book.best(&at) else {
        return refused(format!(
            "every one of the {} trials diverged: try lower learning rates, or set train.clip",
            at.len()
        ));
    };
    let sets = candidates[won].sets.clone();
    let chosen = book.chosen(at[won], plan.edges(&sets), None);
    Ok((sets, chosen))
}

fn stability_decay(
    plan: &Plan,
    margin: f64,
    book: &mut Book,
    watch: &mut dyn Watch,
) -> Result<(Vec<(String, String)>, Chosen)> {
    let (training, strengths) = plan.phases();
    let plastic = plan.candidates(Phase::Plasticity, &training)?;
    // Largest first. Every recipe is read before the first run.
    let strength = &strengths[0];
    let mut values: Vec<(f64, &String)> = strength
        .numbers()
        .unwrap_or_default()
        .into_iter()
        .zip(&strength.values)
        .collect();
    values.sort_by(|a, b| b.0.total_cmp(&a.0));
    let stable = |training: &[(String, String)]| {
        let with = |(_, value): &(f64, &String)| {
            let own = (strength.key.clone(), (*value).clone());
            plan.candidate(Phase::Stability, [training, &[own]].concat())
        };
        values.iter().map(with).collect::<Result<Vec<_>>>()
    };
    for candidate in &plastic {
        stable(&candidate.sets)?;
    }
    let at = book.run(&plastic, watch)?;
    let Some(won) = book.best(&at) else {
        return refused(
            "fine-tuning diverged at every value of the grid: try lower learning rates, or set train.clip",
        );
    };
    let plasticity = book.value(at[won]).unwrap_or_default();
    let threshold = (1.0 - margin) * plasticity;
    let mut decay = Decay {
        plasticity,
        threshold,
        reached: false,
    };
    let mut weakest = None;
    for candidate in stable(&plastic[won].sets)? {
        let at = book.run(std::slice::from_ref(&candidate), watch)?[0];
        let Some(value) = book.value(at) else {
            continue;
        };
        decay.reached = value >= threshold;
        weakest = Some((at, candidate.sets));
        if decay.reached {
            break;
        }
    }
    let Some((at, sets)) = weakest else {
        return refused(format!(
            "the method diverged at every value of `{}`: try weaker ones",
            strength.key
        ));
    };
    let chosen = book.chosen(at, plan.edges(&sets), Some(decay));
    Ok((sets, chosen))
}

/// The trials of a search while it is made, on disk as soon as they end.
struct Book<'a> {
    trials: Trials,
    /// Those of earlier searches that have not come up in this one.
    earlier: Vec<Trial>,
    path: Option<PathBuf>,
    stream: Arc<Stream>,
    options: &'a Options<'a>,
}

impl<'a> Book<'a> {
    /// A new search, or one that goes on where it was stopped.
    fn open(plan: &Plan, n: usize, shown: Stream, options: &'a Options) -> Result<Book<'a>> {
        let (rule, margin) = match plan.search.rule {
            Rule::Best { .. } => ("best", None),
            Rule::StabilityDecay { margin } => ("stability-decay", Some(margin)),
        };
        let mut book = Book {
            trials: Trials {
                format_version: TRIALS_VERSION,
                code_version: env!("CARGO_PKG_VERSION").to_owned(),
                recipe_hash: plan.recipe.hash(),
                label: plan.recipe.label().to_owned(),
                rule: rule.to_owned(),
                measure: plan.measure.to_owned(),
                direction: None,
                margin,
                first: plan.first,
                experiences: n,
                validation: plan.search.validation,
                train_examples: shown.train_items().count(),
                validation_examples: shown.evals.iter().map(|set| set.items.len()).sum(),
                examples_hash: stream::fingerprint(&shown),
                seeds: plan.seeds.clone(),
                n_trials: 0,
                n_runs: 0,
                n_failed: 0,
                seconds: 0.0,
                cost: Cost::default(),
                chosen: None,
                trials: Vec::new(),
            },
            earlier: Vec::new(),
            path: None,
            stream: Arc::new(shown),
            options,
        };
        let Some(dir) = options.out else {
            return Ok(book);
        };
        std::fs::create_dir_all(dir).map_err(|source| Error::Io {
            path: dir.to_owned(),
            source,
        })?;
        let path = dir.join("trials.json");
        if path.exists() {
            let earlier = Trials::load(&path)?;
            if let Some(what) = book.trials.differs(&earlier) {
                return refused(format!(
                    "`{}` holds the trials of {what}: they stay as they are; take another place for this search",
                    path.display()
                ));
            }
            book.trials.direction = earlier.direction;
            book.earlier = earlier.trials;
        }
        book.path = Some(path);
        Ok(book)
    }

    /// Makes what runs of these are not made yet; gives back where their trials are.
    fn run(&mut self, candidates: &[Candidate], watch: &mut dyn Watch) -> Result<Vec<usize>> {
        let at: Vec<usize> = candidates.iter().map(|c| self.trial(c)).collect();
        let mut jobs: Vec<(usize, &Recipe)> = Vec::new();
        let mut asked = HashSet::new();
        for (at, candidate) in at.iter().zip(candidates) {
            let runs = &self.trials.trials[*at].runs;
            let open = |recipe: &&Recipe| runs.iter().all(|run| run.seed != recipe.file().seed);
            let recipes = candidate.recipes.iter().filter(open);
            // Two spellings of one value are one trial, and so its runs.
            let new = recipes.filter(|recipe| asked.insert((*at, recipe.file().seed)));
            jobs.extend(new.map(|recipe| (*at, recipe)));
        }
        watch.ahead(jobs.len());
        let (stream, options) = (self.stream.clone(), self.options);
        let measure = self.trials.measure.clone();
        let results = side_by_side(
            &jobs,
            options.threads,
            options.stop,
            |(_, recipe)| one(recipe, &stream, &measure, options),
            |i, seconds, (run, direction)| {
                let trial = &mut self.trials.trials[jobs[i].0];
                trial.runs.push(TrialRun {
                    seconds,
                    ..run.clone()
                });
                trial.runs.sort_by_key(|run| run.seed);
                watch.run(trial, run.seed, run.value);
                self.trials.direction = self.trials.direction.or(*direction);
                self.save()
            },
        );
        match results {
            Ok(Some(_)) => Ok(at),
            Ok(None) | Err(Error::Interrupted { .. }) => Err(Error::TuneStopped {
                runs: self.file().n_runs,
            }),
            Err(error) => Err(error),
        }
    }

    /// Where the trial of a candidate is, with what was run of it before.
    fn trial(&mut self, candidate: &Candidate) -> usize {
        let recipe_id = candidate.recipes[0].group();
        let same = |t: &Trial| t.phase == candidate.phase && t.recipe_id == recipe_id;
        // Two spellings of one value are one trial.
        if let Some(at) = self.trials.trials.iter().position(same) {
            return at;
        }
        let trial = match self.earlier.iter().position(same) {
            // An earlier search may have named fewer keys.
            Some(at) => Trial {
                settings: settings(&candidate.sets),
                ..self.earlier.remove(at)
            },
            None => Trial {
                phase: candidate.phase,
                settings: settings(&candidate.sets),
                recipe_id,
                value: None,
                runs: Vec::new(),
            },
        };
        self.trials.trials.push(trial);
        self.trials.trials.len() - 1
    }

    /// The mean over this search's seeds, if each of them has a value.
    fn value(&self, at: usize) -> Option<f64> {
        let values = self.values(at)?;
        Some(values.iter().sum::<f64>() / values.len() as f64)
    }

    fn values(&self, at: usize) -> Option<Vec<f64>> {
        let runs = &self.trials.trials[at].runs;
        let of = |seed: &u64| runs.iter().find(|run| run.seed == *seed)?.value;
        self.trials.seeds.iter().map(of).collect()
    }

    fn best(&self, at: &[usize]) -> Option<usize> {
        let sign = match self.trials.direction {
            Some(Direction::Lower) => -1.0,
            _ => 1.0,
        };
        let scores: Vec<Option<f64>> = at.iter().map(|at| Some(sign * self.value(*at)?)).collect();
        best(&scores)
    }

    fn chosen(&self, at: usize, at_edge: Vec<String>, decay: Option<Decay>) -> Chosen {
        let values = self.values(at).unwrap_or_default();
        Chosen {
            settings: self.trials.trials[at].settings.clone(),
            value: self.value(at).unwrap_or_default(),
            lowest: values.iter().copied().fold(f64::INFINITY, f64::min),
            highest: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            at_edge,
            decay,
        }
    }

    /// What is known by now: trials with a run, counted.
    fn file(&self) -> Trials {
        let mut file = self.trials.clone();
        for (at, trial) in file.trials.iter_mut().enumerate() {
            trial.value = self.value(at);
        }
        file.trials.retain(|trial| !trial.runs.is_empty());
        file.trials.extend(self.earlier.iter().cloned());
        file.count();
        file
    }

    fn save(&self) -> Result<()> {
        match &self.path {
            Some(path) => self.file().save(path),
            None => Ok(()),
        }
    }

    fn close(mut self, chosen: Chosen, recipe: Recipe) -> Result<Found> {
        self.trials.chosen = Some(chosen.clone());
        self.save()?;
        Ok(Found {
            trials: self.file(),
            chosen,
            recipe,
        })
    }
}

/// One run of a trial. That it diverged is an answer; every other failure ends the search.
fn one(
    recipe: &Recipe,
    stream: &Arc<Stream>,
    measure: &str,
    options: &Options,
) -> Result<(TrialRun, Option<Direction>)> {
    let session = Session::on_model(recipe, stream.clone(), options.data_dir)?;
    let mut around = Around {
        data_dir: options.data_dir,
        progress: &mut Silent,
        stop: options.stop,
    };
    let mut run = TrialRun {
        seed: recipe.file().seed,
        value: None,
        failed: None,
        seconds: 0.0,
        cost: None,
    };
    let summary = match learn_session(session, None, &mut around) {
        Ok(summary) => summary,
        Err(Error::Diverged {
            step,
            experience,
            term,
            ..
        }) => {
            run.failed = Some(format!(
                "it diverged at step {step}, in experience {}, in the term `{term}`",
                experience + 1
            ));
            return Ok((run, None));
        }
        Err(other) => return Err(other),
    };
    let Some(number) = summary.number(measure) else {
        let known: Vec<&str> = summary.numbers.iter().map(|n| n.name.as_str()).collect();
        return refused(format!(
            "a run of this recipe has no number `{measure}`; it has {}",
            known.join(", ")
        ));
    };
    match number.value.is_finite() {
        true => run.value = Some(number.value),
        false => run.failed = Some(format!("{measure} came out as {}", number.value)),
    }
    // The process' peak is not this run's.
    run.cost = Some(Cost {
        peak_rss_bytes: None,
        ..summary.cost
    });
    Ok((run, Some(number.direction)))
}

fn settings(sets: &[(String, String)]) -> Map<String, Value> {
    let json = |text: &String| serde_json::to_value(value_of(text)).unwrap_or(Value::Null);
    sets.iter().map(|(k, v)| (k.clone(), json(v))).collect()
}

#[cfg(test)]
mod tests;
