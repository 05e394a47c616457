//! Runs arms times seeds, in memory, and judges them.
//!
//! Runs are independent and each is small, so they are spread over threads, one thread a run.
//! Results do not depend on it: kernels sum in a fixed order, and samples are put together by
//! arm and seed, never by who finished first.

use crate::clause::{Sample, Samples};
use crate::error::{Error, Result};
use crate::kept::{Done, Kept};
use crate::measure::Measure;
use crate::native;
use crate::reference::{Ours, Row, RowSpec, Rule};
use crate::study::{Arm, Arms, Claims, Plan, Reference, Study, Tune};
use crate::variation::Variation;
use crate::verdict::{
    ArmReport, ControlReport, Tuned, Tuning, VERDICT_VERSION, Verdict, code_hash,
    code_hash_of_arms, recipe_hash,
};
use ebb_data::{Split, Stream};
use ebb_learn::spec::DataPlan;
use ebb_learn::tune::{Axis, best, crossed, side_by_side};
use ebb_learn::{Around, Recipe, Session, Silent, learn_keeping, learn_session};
use ebb_record::over_seeds;
use ebb_space::{Direction, Key, Number, Weights};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What surrounds a study.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Where data is kept.
    pub data_dir: &'a Path,
    /// Runs at a time.
    pub threads: usize,
    /// Set by whoever wants it to stop.
    pub stop: &'a AtomicBool,
    /// Where runs that ended are kept and looked up; none: every run is run.
    pub kept: Option<&'a Kept>,
}

/// Watches a study. Every method has an empty default.
pub trait Watch {
    /// `runs` more runs are ahead.
    fn ahead(&mut self, _runs: usize) {}
    /// A run ended.
    fn run(&mut self, _run: &Ended) {}
    /// Something worth a line.
    fn note(&mut self, _text: &str) {}
}

/// Nobody watches.
pub struct Unwatched;

impl Watch for Unwatched {}

/// A run that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Its arm.
    pub arm: String,
    /// Its seed.
    pub seed: u64,
    /// Whether it was a trial for a coefficient, and of which values.
    pub trial: Option<String>,
    /// What it took.
    pub seconds: f64,
    /// Its measures, by name; none of a run that diverged.
    pub measured: BTreeMap<String, f64>,
}

/// A run to do.
struct Job<'a> {
    arm: &'a str,
    of: &'a Arm,
    seed: u64,
    sets: Vec<(String, String)>,
    variation: Variation,
    trial: Option<String>,
    measures: &'a BTreeMap<String, Measure>,
}

/// Runs a study.
///
/// # Errors
/// When a run fails, a measure does not exist or the user stops it. A claim that does not hold is
/// a verdict.
pub fn run(study: &Study, options: &Options, watch: &mut dyn Watch) -> Result<Verdict> {
    let begun = Instant::now();
    let before = options.kept.map_or(0.0, Kept::spared);
    let mut verdict = Verdict {
        format_version: VERDICT_VERSION,
        id: study.id.clone(),
        title: study.title.clone(),
        claim: study.claim.clone(),
        source: study.source.clone(),
        holds: false,
        notes: study.notes.clone(),
        arms: Vec::new(),
        expected: Vec::new(),
        controls: Vec::new(),
        rows: Vec::new(),
        measured: Vec::new(),
        tuning: None,
        n_seeds: study.seeds.len(),
        p_value: None,
        wall_seconds: 0.0,
        budget_seconds: study.budget_s,
        code_hash: code_hash(study).to_owned(),
        recipe_hash: recipe_hash(study),
        confirmed: None,
    };
    match &study.plan {
        Plan::Arms(arms) => by_arms(study, arms, options, watch, &mut verdict)?,
        Plan::Reference(reference) => {
            by_reference(study, reference, options, watch, &mut verdict)?;
        }
        Plan::Native(world, claims) => {
            let samples = native::run(world, study, options, watch, &mut verdict)?;
            judge(claims, &samples, &mut verdict)?;
        }
    }
    conclude(&mut verdict);
    // What it takes to run it, whether or not its runs were run now.
    let spared = options.kept.map_or(0.0, |k| k.spared() - before) / options.threads.max(1) as f64;
    verdict.wall_seconds = begun.elapsed().as_secs_f64() + spared;
    if verdict.over_budget() {
        watch.note(&format!(
            "{} took {:.0} s, its budget is {:.0} s",
            study.id, verdict.wall_seconds, study.budget_s
        ));
    }
    Ok(verdict)
}

fn by_arms(
    study: &Study,
    arms: &Arms,
    options: &Options,
    watch: &mut dyn Watch,
    verdict: &mut Verdict,
) -> Result<()> {
    let streams = Streams::new(options.data_dir);
    let chosen = match &arms.tune {
        None => BTreeMap::new(),
        Some(tune) => {
            let tuning = tune_arms(arms, tune, &streams, options, watch)?;
            let chosen = tuning
                .arms
                .iter()
                .map(|(arm, t)| (arm.clone(), pairs(&t.chosen)))
                .collect();
            verdict.tuning = Some(tuning);
            chosen
        }
    };
    let wanted = wanted(arms);
    let jobs: Vec<Job> = arms
        .arms
        .iter()
        .flat_map(|(name, arm)| {
            let sets: &[(String, String)] = chosen.get(name).map_or(&[], Vec::as_slice);
            let measures = &wanted[name];
            study.seeds.iter().map(move |seed| Job {
                arm: name,
                of: arm,
                seed: *seed,
                sets: sets.to_vec(),
                variation: arm.variation,
                trial: None,
                measures,
            })
        })
        .collect();
    let done = execute(&jobs, &streams, options, watch)?;
    for (name, arm) in &arms.arms {
        let runs = jobs.iter().zip(&done).filter(|(job, _)| job.arm == name);
        let runs: Vec<(u64, &Option<Done>)> = runs.map(|(job, d)| (job.seed, d)).collect();
        let report = report(name, arm, &runs)?;
        if !report.diverged.is_empty() {
            watch.note(&format!(
                "{name} diverged with the seeds {:?}",
                report.diverged
            ));
        }
        verdict.arms.push(report);
    }
    let samples = samples(arms, &verdict.arms, study.seeds.len());
    judge(&arms.claims, &samples, verdict)
}

/// What clauses are judged by: the values of each arm, one a seed; no numbers if a run diverged.
fn samples(arms: &Arms, reports: &[ArmReport], seeds: usize) -> Samples {
    let wanted = wanted(arms);
    let mut samples = Samples::new();
    for report in reports {
        for measure in wanted.get(&report.name).into_iter().flat_map(|w| w.keys()) {
            let whole = report.measured.iter().find(|n| n.name == *measure);
            samples.insert(
                (report.name.clone(), measure.clone()),
                Sample {
                    values: match report.per_seed.get(measure) {
                        Some(values) => values.clone(),
                        None => vec![f64::NAN; seeds],
                    },
                    protocol: whole.map_or_else(String::new, |n| n.protocol.clone()),
                },
            );
        }
    }
    samples
}

/// Whether the present judges find in the recorded values of a verdict what it says. Values of a
/// study with code of its own are judged as it runs.
pub(crate) fn judged_alike(study: &Study, verdict: &Verdict) -> bool {
    let mut again = Verdict {
        expected: Vec::new(),
        controls: Vec::new(),
        rows: Vec::new(),
        ..verdict.clone()
    };
    let judged = match &study.plan {
        Plan::Arms(arms) => {
            let samples = samples(arms, &verdict.arms, study.seeds.len());
            judge(&arms.claims, &samples, &mut again)
        }
        Plan::Reference(reference) => rows(reference, &verdict.arms).map(|rows| again.rows = rows),
        Plan::Native(..) => return true,
    };
    conclude(&mut again);
    judged.is_ok() && again == *verdict
}

/// What the judged parts come to together.
fn conclude(verdict: &mut Verdict) {
    verdict.holds = verdict.rows.iter().all(|r| r.holds)
        && verdict.expected.iter().all(|c| c.holds)
        && !verdict.controls.iter().any(|c| c.holds || c.undecided);
    let tests = verdict.expected.iter().filter_map(|c| c.p);
    verdict.p_value = tests.reduce(f64::max);
}

/// Judges what is expected and what must not be found.
fn judge(claims: &Claims, samples: &Samples, verdict: &mut Verdict) -> Result<()> {
    for (name, clause) in &claims.expect {
        verdict.expected.push(clause.judge(name, samples)?);
    }
    for (name, control) in &claims.controls {
        let clauses = control
            .clauses
            .iter()
            .map(|(name, clause)| clause.judge(name, samples))
            .collect::<Result<Vec<_>>>()?;
        verdict.controls.push(ControlReport {
            name: name.clone(),
            about: control.about.clone(),
            holds: clauses.iter().all(|c| c.holds),
            undecided: clauses.iter().any(|c| c.value.is_none()),
            clauses,
        });
    }
    Ok(())
}

fn pairs(sets: &BTreeMap<String, String>) -> Vec<(String, String)> {
    sets.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// The measures of each arm: those reported for all, and those its clauses name.
fn wanted(arms: &Arms) -> BTreeMap<String, BTreeMap<String, Measure>> {
    let controls = arms
        .claims
        .controls
        .values()
        .flat_map(|c| c.clauses.iter().map(|(_, c)| c));
    let named: BTreeSet<(String, String)> = arms
        .claims
        .expect
        .values()
        .chain(controls)
        .flat_map(|c| c.names())
        .collect();
    let measure = |name: &str| {
        let own = arms.measures.get(name).cloned();
        (name.to_owned(), own.unwrap_or_else(|| Measure::named(name)))
    };
    arms.arms
        .keys()
        .map(|arm| {
            let asked = named
                .iter()
                .filter(|(a, _)| a == arm)
                .map(|(_, m)| m.as_str());
            let all = arms.report.iter().map(String::as_str).chain(asked);
            (arm.clone(), all.map(measure).collect())
        })
        .collect()
}

fn report(name: &str, arm: &Arm, runs: &[(u64, &Option<Done>)]) -> Result<ArmReport> {
    let done: Vec<(u64, &Done)> = runs
        .iter()
        .filter_map(|(seed, d)| Some((*seed, d.as_ref()?)))
        .collect();
    let diverged = runs
        .iter()
        .filter(|(_, d)| d.is_none())
        .map(|(seed, _)| *seed)
        .collect();
    let first = done.first().map(|(_, d)| *d);
    let mut report = ArmReport {
        name: name.to_owned(),
        about: arm.about.clone(),
        method: first.map_or_else(String::new, |d| d.method.clone()),
        recipe: first.map_or_else(String::new, |d| d.group.clone()),
        train_seconds: done.iter().map(|(_, d)| d.train_seconds).sum::<f64>()
            / done.len().max(1) as f64,
        diverged,
        measured: Vec::new(),
        per_seed: BTreeMap::new(),
    };
    // A mean over the seeds that happened to survive would flatter the arm.
    let Some(first) = first.filter(|_| report.diverged.is_empty()) else {
        return Ok(report);
    };
    for measure in first.numbers.keys() {
        let numbers: Vec<(u64, &Number)> = done
            .iter()
            .map(|(seed, d)| (*seed, &d.numbers[measure]))
            .collect();
        report.measured.push(over_seeds(&numbers)?);
        let values = numbers.iter().map(|(_, n)| n.value).collect();
        report.per_seed.insert(measure.clone(), values);
    }
    Ok(report)
}

/// Chooses coefficients: the same rule for every arm. Trials see no test example and no later
/// experience.
fn tune_arms(
    arms: &Arms,
    tune: &Tune,
    streams: &Streams,
    options: &Options,
    watch: &mut dyn Watch,
) -> Result<Tuning> {
    let measure = arms
        .measures
        .get(&tune.maximise)
        .cloned()
        .unwrap_or_else(|| Measure::named(&tune.maximise));
    let measures = BTreeMap::from([(tune.maximise.clone(), measure)]);
    let grids: BTreeMap<&String, Vec<Axis>> = tune
        .grid
        .iter()
        .map(|(arm, grid)| (arm, axes(grid)))
        .collect();
    let mut candidates: Vec<(&String, BTreeMap<String, String>)> = Vec::new();
    for (arm, axes) in &grids {
        let sets = crossed(axes).into_iter();
        candidates.extend(sets.map(|sets| (*arm, sets.into_iter().collect())));
    }
    let jobs: Vec<Job> = candidates
        .iter()
        .flat_map(|(arm, sets)| {
            let measures = &measures;
            tune.seeds.iter().map(move |seed| Job {
                arm,
                of: &arms.arms[*arm],
                seed: *seed,
                sets: pairs(sets),
                variation: match tune.own_tests {
                    true => Variation::Begin(tune.experiences),
                    false => Variation::First(tune.experiences),
                },
                trial: Some(words(sets)),
                measures,
            })
        })
        .collect();
    let done = execute(&jobs, streams, options, watch)?;
    let mut tuned: BTreeMap<String, Tuned> = BTreeMap::new();
    for ((arm, sets), runs) in candidates.iter().zip(done.chunks(tune.seeds.len())) {
        let mut score = Some(0.0);
        for run in runs {
            score = match run {
                Some(done) => {
                    let number = &done.numbers[&tune.maximise];
                    let sign = match number.direction {
                        Direction::Lower => -1.0,
                        Direction::Higher | Direction::None => 1.0,
                    };
                    score.map(|s| s + sign * number.value / tune.seeds.len() as f64)
                }
                None => None,
            };
        }
        let entry = tuned.entry((*arm).clone()).or_insert_with(|| Tuned {
            chosen: BTreeMap::new(),
            tried: Vec::new(),
            at_edge: false,
        });
        entry.tried.push((sets.clone(), score));
    }
    for (arm, entry) in &mut tuned {
        // Grids are written from weak to strong, so of equals the weakest.
        let scores: Vec<Option<f64>> = entry.tried.iter().map(|(_, score)| *score).collect();
        let Some(i) = best(&scores) else {
            return Err(Error::NoMeasure {
                arm: arm.clone(),
                measure: tune.maximise.clone(),
                reason: "every trial diverged".to_owned(),
            });
        };
        entry.chosen = entry.tried[i].0.clone();
        entry.at_edge = grids[arm]
            .iter()
            .any(|axis| axis.at_edge(&entry.chosen[&axis.key]));
        watch.note(&format!("{arm}: {}", words(&entry.chosen)));
    }
    Ok(Tuning {
        rule: format!(
            "for every arm the value with the {} {} on {} of the first {} experiences, seeds {:?}",
            if tune.own_tests { "best" } else { "highest" },
            tune.maximise,
            if tune.own_tests {
                "the test sets"
            } else {
                "held-out training examples"
            },
            tune.experiences,
            tune.seeds
        ),
        trials: jobs.len(),
        arms: tuned,
    })
}

fn words(sets: &BTreeMap<String, String>) -> String {
    let each: Vec<String> = sets.iter().map(|(k, v)| format!("{k} = {v}")).collect();
    each.join(", ")
}

/// A grid as the search of one recipe has it.
fn axes(grid: &BTreeMap<String, Vec<toml::Value>>) -> Vec<Axis> {
    grid.iter()
        .map(|(key, values)| Axis {
            key: key.clone(),
            values: values.iter().map(toml::Value::to_string).collect(),
        })
        .collect()
}

fn by_reference(
    study: &Study,
    reference: &Reference,
    options: &Options,
    watch: &mut dyn Watch,
    verdict: &mut Verdict,
) -> Result<()> {
    let streams = Streams::new(options.data_dir);
    let mut wanted: BTreeMap<&String, BTreeMap<String, Measure>> = BTreeMap::new();
    for row in reference.rows.values() {
        let measure = row.measure.as_ref().unwrap_or(&reference.measure);
        for arm in [Some(&row.arm), row.zero.as_ref()].into_iter().flatten() {
            wanted
                .entry(arm)
                .or_default()
                .insert(measure.clone(), Measure::named(measure));
        }
    }
    let mut runs: BTreeMap<String, Vec<(u64, Option<Done>)>> = BTreeMap::new();
    let mut seeds: BTreeMap<&String, Vec<u64>> = wanted
        .keys()
        .map(|arm| (*arm, study.seeds.clone()))
        .collect();
    let first = study.seeds.len();
    loop {
        let jobs: Vec<Job> = seeds
            .iter()
            .flat_map(|(arm, seeds)| {
                let measures = &wanted[*arm];
                let of = &reference.arms[*arm];
                seeds.iter().map(move |seed| Job {
                    arm,
                    of,
                    seed: *seed,
                    sets: Vec::new(),
                    variation: of.variation,
                    trial: None,
                    measures,
                })
            })
            .collect();
        let done = execute(&jobs, &streams, options, watch)?;
        for (job, done) in jobs.iter().zip(done) {
            runs.entry(job.arm.to_owned())
                .or_default()
                .push((job.seed, done));
        }
        // Only an interval that is too wide asks for more, whatever it says.
        seeds = BTreeMap::new();
        for row in reference.rows.values() {
            let measure = row.measure.as_ref().unwrap_or(&reference.measure);
            let ours = ours(&row.arm, &runs[&row.arm], measure)?;
            let have = ours.values.len();
            let open = ours.half_width() > reference.half_width && have < reference.most_seeds;
            if open && !ours.hopeless(reference.most_seeds, reference.half_width) {
                let next = study.seeds.iter().max().copied().unwrap_or_default() + 1;
                let from = next + (have - first) as u64;
                let more = first.min(reference.most_seeds - have) as u64;
                for arm in [Some(&row.arm), row.zero.as_ref()].into_iter().flatten() {
                    let added: Vec<u64> = (from..from + more)
                        .filter(|s| runs[arm].iter().all(|(known, _)| known != s))
                        .collect();
                    seeds.insert(arm, added);
                }
            }
        }
        if seeds.is_empty() {
            break;
        }
    }
    for (arm, runs) in &runs {
        let runs: Vec<(u64, &Option<Done>)> = runs.iter().map(|(s, d)| (*s, d)).collect();
        verdict.n_seeds = verdict.n_seeds.max(runs.len());
        verdict.arms.push(report(arm, &reference.arms[arm], &runs)?);
    }
    verdict.rows = rows(reference, &verdict.arms)?;
    Ok(())
}

/// Judges the rows by the values of each arm.
fn rows(reference: &Reference, reports: &[ArmReport]) -> Result<Vec<Row>> {
    let rule = Rule {
        slack: reference.slack,
        half_width: reference.half_width,
    };
    let judged = |(name, row): (&String, &RowSpec)| {
        let measure = row.measure.as_ref().unwrap_or(&reference.measure);
        let ours = |arm: &String| {
            let report = reports.iter().find(|r| r.name == *arm);
            match report.and_then(|r| r.per_seed.get(measure)) {
                Some(values) => in_percent(values),
                None => Err(Error::NoMeasure {
                    arm: arm.clone(),
                    measure: measure.clone(),
                    reason: "it has no values: a run of it diverged".to_owned(),
                }),
            }
        };
        let zero = row.zero.as_ref().map(ours).transpose()?;
        Ok(rule.judge(name, row, ours(&row.arm)?, zero))
    };
    reference.rows.iter().map(judged).collect()
}

fn in_percent(values: &[f64]) -> Result<Ours> {
    let values: Vec<f64> = values.iter().map(|v| 100.0 * v).collect();
    Ok(Ours::of(&values)?)
}

/// Chooses the coefficients of a study again, if it has some to choose.
pub(crate) fn tuned_again(
    study: &Study,
    options: &Options,
    watch: &mut dyn Watch,
) -> Result<Option<Tuning>> {
    let Plan::Arms(arms) = &study.plan else {
        return Ok(None);
    };
    let streams = Streams::new(options.data_dir);
    let tune = arms.tune.as_ref();
    tune.map(|tune| tune_arms(arms, tune, &streams, options, watch))
        .transpose()
}

/// What a repeated run gave: its arm, and its measures by name, none if it diverged.
pub(crate) type Repeated = (String, Option<BTreeMap<String, f64>>);

/// Runs the first seed of every arm that `verdict` reports, with the coefficients it chose.
pub(crate) fn first_seeds(
    study: &Study,
    verdict: &Verdict,
    options: &Options,
    watch: &mut dyn Watch,
) -> Result<Vec<Repeated>> {
    let Some(arms) = study.plan.arms() else {
        return Ok(Vec::new());
    };
    let own = match &study.plan {
        Plan::Arms(arms) => arms.measures.clone(),
        Plan::Reference(_) | Plan::Native(..) => BTreeMap::new(),
    };
    let measure = |name: &String| {
        let known = own.get(name).cloned();
        (name.clone(), known.unwrap_or_else(|| Measure::named(name)))
    };
    let reported: Vec<(&ArmReport, &Arm, BTreeMap<String, Measure>)> = verdict
        .arms
        .iter()
        .filter_map(|report| {
            let measures = report.per_seed.keys().map(measure).collect();
            Some((report, arms.get(&report.name)?, measures))
        })
        .collect();
    let chosen = |arm: &str| {
        let tuned = verdict.tuning.as_ref().and_then(|t| t.arms.get(arm));
        tuned.map_or_else(Vec::new, |t| pairs(&t.chosen))
    };
    let jobs: Vec<Job> = reported
        .iter()
        .flat_map(|(report, arm, measures)| {
            study.seeds.iter().take(1).map(|seed| Job {
                arm: &report.name,
                of: arm,
                seed: *seed,
                sets: chosen(&report.name),
                variation: arm.variation,
                trial: None,
                measures,
            })
        })
        .collect();
    let done = execute(&jobs, &Streams::new(options.data_dir), options, watch)?;
    let values = |d: Done| d.numbers.into_iter().map(|(k, n)| (k, n.value)).collect();
    Ok(jobs
        .iter()
        .zip(done)
        .map(|(job, d)| (job.arm.to_owned(), d.map(values)))
        .collect())
}

/// The runs of an arm, in percent.
fn ours(arm: &str, runs: &[(u64, Option<Done>)], measure: &str) -> Result<Ours> {
    let mut values = Vec::with_capacity(runs.len());
    for (seed, done) in runs {
        let done = done.as_ref().ok_or_else(|| Error::NoMeasure {
            arm: arm.to_owned(),
            measure: measure.to_owned(),
            reason: format!("it diverged with seed {seed}"),
        })?;
        values.push(done.numbers[measure].value);
    }
    in_percent(&values)
}

/// Streams and datasets, built once and shared by the runs that read them.
struct Streams<'a> {
    data_dir: &'a Path,
    splits: Mutex<HashMap<String, Arc<Split>>>,
    built: Mutex<HashMap<String, Slot>>,
    starts: Mutex<HashMap<String, Started>>,
}

/// Weights that whoever comes first trains.
type Started = Arc<Mutex<Option<Arc<Weights>>>>;

/// A stream that is built by whoever comes first.
type Slot = Arc<Mutex<Option<Arc<Stream>>>>;

impl<'a> Streams<'a> {
    fn new(data_dir: &'a Path) -> Self {
        Self {
            data_dir,
            splits: Mutex::default(),
            built: Mutex::default(),
            starts: Mutex::default(),
        }
    }

    /// What a recipe's run comes to, run by whoever asks first.
    fn start(&self, recipe: &Recipe, options: &Options) -> ebb_learn::Result<Arc<Weights>> {
        let slot = {
            let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
            starts.entry(recipe.hash()).or_default().clone()
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(weights) = &*slot {
            return Ok(weights.clone());
        }
        let mut around = Around {
            data_dir: options.data_dir,
            progress: &mut Silent,
            stop: options.stop,
        };
        let session = Session::new(recipe, options.data_dir)?;
        let (_, session) = learn_keeping(session, None, &mut around)?;
        let weights = session.oracle.model.merged_weights()?;
        Ok(slot.insert(Arc::new(weights)).clone())
    }

    fn split(&self, name: &str) -> Result<Arc<Split>> {
        let mut splits = self.splits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(split) = splits.get(name) {
            return Ok(split.clone());
        }
        let split = Arc::new(ebb_data::load(name, self.data_dir)?);
        splits.insert(name.to_owned(), split.clone());
        Ok(split)
    }

    /// The stream of a recipe as `variation` shows it.
    fn get(&self, recipe: &Recipe, variation: Variation) -> Result<Arc<Stream>> {
        let (spec, seed) = (&recipe.file().stream, recipe.file().seed);
        let text = toml::to_string(spec).unwrap_or_default();
        let slot = {
            let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
            built
                .entry(format!("{seed} {variation:?} {text}"))
                .or_default()
                .clone()
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = &*slot {
            return Ok(stream.clone());
        }
        let whole = spec.build_on(&*self.split(&spec.dataset)?, seed)?;
        let stream = variation
            .of(whole, Key::new(seed, "study variation"))
            .map_err(|reason| Error::Study {
                id: format!("{variation:?}"),
                reason,
            })?;
        Ok(slot.insert(Arc::new(stream)).clone())
    }
}

/// Runs jobs, `options.threads` at a time, and gives them back in their order; none for one that
/// diverged, which is an answer. Every other failure ends the study.
fn execute(
    jobs: &[Job],
    streams: &Streams,
    options: &Options,
    watch: &mut dyn Watch,
) -> Result<Vec<Option<Done>>> {
    watch.ahead(jobs.len());
    let results = side_by_side(
        jobs,
        options.threads,
        options.stop,
        |job| one_or_kept(job, streams, options),
        |i, seconds, (done, took): &(Option<Done>, Option<f64>)| {
            let seconds = took.unwrap_or(seconds);
            let numbers = done.iter().flat_map(|d| &d.numbers);
            watch.run(&Ended {
                arm: jobs[i].arm.to_owned(),
                seed: jobs[i].seed,
                trial: jobs[i].trial.clone(),
                seconds,
                measured: numbers.map(|(k, n)| (k.clone(), n.value)).collect(),
            });
            Ok(())
        },
    )?;
    let results = results.ok_or(Error::Stopped)?;
    Ok(results.into_iter().map(|(done, _)| done).collect())
}

/// A run, and the seconds it took if it is one that was kept.
fn one_or_kept(
    job: &Job,
    streams: &Streams,
    options: &Options,
) -> Result<(Option<Done>, Option<f64>)> {
    let recipe = recipe(job)?;
    let start = job.of.start(job.seed).transpose();
    let start = start.map_err(|source| failed(job, source))?;
    let kept = options.kept.and_then(|kept| {
        let code = code_hash_of_arms(recipe.file().language.is_some());
        let start = start.as_ref();
        let path = kept.path(code, &recipe, start, job.variation, job.measures)?;
        Some((kept, path))
    });
    if let Some((done, seconds)) = kept.as_ref().and_then(|(kept, path)| kept.get(path)) {
        return Ok((done, Some(seconds)));
    }
    let begun = Instant::now();
    let done = match one(job, recipe, start.as_ref(), streams, options) {
        Err(e) if diverged(&e) => None,
        other => Some(other?),
    };
    if let Some((kept, path)) = kept {
        let written = kept.put(&path, &done, begun.elapsed().as_secs_f64());
        written.map_err(|source| Error::Io { path, source })?;
    }
    Ok((done, None))
}

fn diverged(error: &Error) -> bool {
    matches!(error, Error::Run { source, .. } if matches!(**source, ebb_learn::Error::Diverged { .. }))
}

fn failed(job: &Job, source: ebb_learn::Error) -> Error {
    match source {
        ebb_learn::Error::Interrupted { .. } => Error::Stopped,
        source => Error::Run {
            arm: job.arm.to_owned(),
            seed: job.seed,
            source: Box::new(source),
        },
    }
}

fn recipe(job: &Job) -> Result<Recipe> {
    let recipe = job.of.recipe(job.seed, &job.sets);
    recipe.map_err(|source| failed(job, source))
}

fn one(
    job: &Job,
    recipe: Recipe,
    start: Option<&Recipe>,
    streams: &Streams,
    options: &Options,
) -> Result<Done> {
    let failed = |source| failed(job, source);
    let texts = recipe.file().language.is_some();
    let gathers = matches!(recipe.file().data, DataPlan::Cumulative | DataPlan::Joint);
    if gathers && job.variation != Variation::Whole {
        return Err(Error::Study {
            id: job.arm.to_owned(),
            reason: "an arm that gathers its experiences is shown all of them".to_owned(),
        });
    }
    let mut session = match texts || gathers {
        true => {
            let key = Key::new(job.seed, "study variation");
            let show = |stream| {
                let shown = job.variation.of(stream, key);
                shown.map_err(|reason| ebb_learn::Error::Recipe { reason })
            };
            Session::showing(&recipe, options.data_dir, show).map_err(failed)?
        }
        false => {
            let stream = streams.get(&recipe, job.variation)?;
            Session::on(&recipe, stream).map_err(failed)?
        }
    };
    if let Some(start) = start {
        let weights = streams.start(start, options).map_err(failed)?;
        session.begin_with(&weights).map_err(failed)?;
    }
    let stream = session.stream.clone();
    let mut around = Around {
        data_dir: options.data_dir,
        progress: &mut Silent,
        stop: options.stop,
    };
    let summary = learn_session(session, None, &mut around).map_err(failed)?;
    let mut numbers = BTreeMap::new();
    for (name, measure) in job.measures {
        let number = measure
            .take(name, &summary, &stream)
            .map_err(|reason| Error::NoMeasure {
                arm: job.arm.to_owned(),
                measure: name.clone(),
                reason,
            })?;
        numbers.insert(name.clone(), number);
    }
    Ok(Done {
        numbers,
        train_seconds: summary.cost.train_seconds.unwrap_or_default(),
        method: summary.method,
        group: recipe.group(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUNED: &str = r#"
id = "S901"
title = "A tuned rate"
claim = "Fine-tuning learns"
source = "a test"
budget_s = 60
seeds = 2
[base]
stream = { dataset = "digits", split = 2, per_experience = 60 }
network = { kind = "mlp", hidden = [8] }
train = { batch = 16 }
evaluate = { every = 0 }
[arm.plain.set]
method = "fine-tune"
[tune]
experiences = 2
seeds = [100]
maximise = "average_accuracy"
grid = { plain = { "train.lr" = [0.01, 0.1] } }
[expect]
learns = "plain.average_accuracy > 0"
"#;

    /// A study that is stopped and run again takes the runs that ended, and only those of the same
    /// recipe.
    #[test]
    fn runs_that_ended_are_kept() {
        struct Count(usize);
        impl Watch for Count {
            fn run(&mut self, run: &Ended) {
                self.0 += usize::from(run.seconds < 1e6);
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let stop = AtomicBool::new(false);
        let with = |kept: &Kept, text: &str| {
            let options = Options {
                data_dir: Path::new("."),
                threads: 1,
                stop: &stop,
                kept: Some(kept),
            };
            let mut watch = Count(0);
            let study = Study::parse("tuned", text).unwrap();
            (run(&study, &options, &mut watch).unwrap(), watch.0)
        };
        let kept = Kept::at(folder.path());
        let (first, ran) = with(&kept, TUNED);
        assert_eq!((ran, kept.spared()), (4, 0.0));
        let files = || std::fs::read_dir(folder.path()).unwrap().flatten();
        assert_eq!(files().count(), 4);
        // Marks what is kept, so that what is taken from it shows; one is spoilt, as by a full disk.
        for (i, file) in files().enumerate() {
            let text = std::fs::read_to_string(file.path()).unwrap();
            let mut entry: serde_json::Value = serde_json::from_str(&text).unwrap();
            entry["seconds"] = 1e6.into();
            let text = if i == 0 {
                "{".into()
            } else {
                entry.to_string()
            };
            std::fs::write(file.path(), text).unwrap();
        }
        let kept = Kept::at(folder.path());
        let (second, ran) = with(&kept, TUNED);
        assert_eq!((ran, kept.spared()), (1, 3e6));
        assert_eq!(first.measured, second.measured);
        assert!(second.wall_seconds > 3e6);
        let (_, ran) = with(&kept, &TUNED.replace("hidden = [8]", "hidden = [9]"));
        assert_eq!(ran, 4);
    }

    #[test]
    fn another_test_set_changes_no_trial() {
        let study = Study::parse("tuned", TUNED).unwrap();
        let Plan::Arms(arms) = &study.plan else {
            panic!("arms were given")
        };
        let options = Options {
            data_dir: Path::new("."),
            threads: 1,
            stop: &AtomicBool::new(false),
            kept: None,
        };
        let tune = arms.tune.as_ref().unwrap();
        let streams = || Streams::new(options.data_dir);
        let trials =
            |streams: &Streams| tune_arms(arms, tune, streams, &options, &mut Unwatched).unwrap();
        let clean = trials(&streams());
        let mut split = Split::clone(&streams().split("digits").unwrap());
        let other: Vec<u32> = (0..split.test.len() as u32).rev().collect();
        split.test = Arc::new(split.train.select(&other));
        let poisoned = streams();
        let known = HashMap::from([("digits".to_owned(), Arc::new(split))]);
        *poisoned.splits.lock().unwrap() = known;
        let poisoned = trials(&poisoned);
        assert_eq!(clean.trials, 2);
        assert_eq!(clean, poisoned);
    }
}
