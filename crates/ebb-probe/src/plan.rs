//! A plan for a fine-tuning: what it would make the model forget, and what to replay against it.
//!
//! The new task is learnt once, without replay, from the base of a matrix, and a few of the
//! matrix's examples are measured. The closed form fills in the others; tasks of the matrix that it
//! was not fitted to say how sure that is; and the replay set is drawn by the forecast. What is
//! forecast is the loss *without* replay: the price of doing nothing.

use crate::build::{Folder, way};
use crate::complete::{ClosedForm, Completer, Fitted, Known};
use crate::conformal::{example_half_width, fewest, half_width};
use crate::error::{Error, Result};
use crate::matrix::Association;
use crate::protocol::known_columns;
use crate::replay::{draw, effective_size, weights};
use crate::table::Table;
use crate::tasks::{fine_tune, measure, task_stream};
use ebb_data::{Item, Stream};
use ebb_learn::{Around, Recipe, Session};
use ebb_space::stats::quantile;
use ebb_space::{ExampleId, Key};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// The newest version of `plan.json` that this program reads.
pub const PLAN_VERSION: u32 = 1;
/// Examples listed as most at risk.
const LISTED: usize = 50;

/// What a plan is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Examples measured after the new task.
    pub known: usize,
    /// The level of the intervals.
    pub level: f64,
    /// The most that the mean loss may rise, if there is such a limit.
    pub budget: Option<f64>,
    /// New rows for each replayed one.
    pub per: usize,
    /// `T` of the weights.
    pub temperature: f64,
    /// The seed of the draws.
    pub seed: u64,
}

impl Ask {
    fn key(&self) -> Key {
        Key::new(self.seed, "plan")
    }
}

/// A number with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The forecast.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// A set of examples that must not be forgotten.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guarded {
    /// Its name.
    pub name: String,
    /// How many there are.
    pub examples: usize,
    /// Their mean loss under the base; none where nobody measured it.
    pub base_loss: Option<f64>,
    /// Mean rise in loss.
    pub mean: Interval,
    /// The 95th percentile of the rises.
    pub p95: Interval,
}

/// An example that is forecast to be forgotten.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AtRisk {
    /// Who it is.
    pub example: String,
    /// Its loss under the base; none where nobody measured it.
    pub base_loss: Option<f32>,
    /// The rise in its loss.
    pub rise: Interval,
}

/// What a budget comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Budget {
    /// The whole interval lies within it.
    Kept,
    /// The interval reaches beyond it: not sure enough to go without replay.
    Unsure,
    /// The whole interval lies beyond it.
    Broken,
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of the format.
    pub format_version: u32,
    /// Version of the program.
    pub code_version: String,
    /// The way of fine-tuning it holds for.
    pub way: String,
    /// BLAKE3 of the base's weights.
    pub base: String,
    /// The new task's name.
    pub task: String,
    /// Tasks that the forecast was fitted to, and tasks that its intervals come from.
    pub tasks: (usize, usize),
    /// The level of the intervals.
    pub level: f64,
    /// The seed of its draws.
    pub seed: u64,
    /// What was measured: examples, and the rise in their loss.
    pub known: Vec<(String, f32)>,
    /// Sets of examples: all of the matrix, then its parts.
    pub guarded: Vec<Guarded>,
    /// The examples most at risk, the worst first.
    pub at_risk: Vec<AtRisk>,
    /// Half the width of an example's interval.
    pub half_width: f64,
    /// What to replay, in order.
    pub replay: Vec<ExampleId>,
    /// New rows for each replayed one.
    pub per: usize,
    /// `T` of the weights.
    pub temperature: f64,
    /// Among how many examples the draw really chose.
    pub effective_size: f64,
    /// The limit on the mean rise, and what it comes to without replay.
    pub budget: Option<(f64, Budget)>,
    /// Seconds of the fine-tuning that was measured, 0 where it was measured elsewhere.
    pub seconds: f64,
    /// Rows that the replay adds, as a share of the task's own.
    pub price: f64,
}

/// Plans from a matrix and what is known of the new task. `sets` name parts of the matrix's
/// examples; `replayable` says who may be replayed, and `rows` how many rows the task has.
///
/// # Errors
/// When the matrix has gaps or too few tasks, or too little is known.
pub fn plan(
    matrix: &Association,
    task: &str,
    known: &Known,
    sets: &[(String, Vec<usize>)],
    replayable: &[Option<ExampleId>],
    rows: usize,
    ask: &Ask,
) -> Result<Plan> {
    if ask.per == 0 {
        return Err(Error::Request(
            "one replayed row for 0 new ones is no rate".into(),
        ));
    }
    let table = matrix.losses()?;
    let calibration = fewest(ask.level).max(table.height() / 4);
    let split = calibrated(&table, calibration, ask)?;
    let train = table.select(&split.1)?;
    let how = ClosedForm::default();
    let fitted = how.fit(&train, ask.key())?;
    let forecast = fitted.complete(known)?;
    let errors = calibration_rows(&table, &split.0, known, fitted.as_ref())?;
    let half = example_half_width(&unseen(&errors, known), ask.level)?;

    let everything: Vec<usize> = (0..table.width()).collect();
    let all = [("all".to_owned(), everything)];
    let guarded = all.iter().chain(sets).filter(|(_, of)| !of.is_empty());
    let guarded: Vec<Guarded> = guarded
        .map(|(name, of)| guard(matrix, name, of, &forecast, &errors, ask.level))
        .collect::<Result<_>>()?;

    let weighed = weights(&forecast, ask.temperature)?;
    let ids = table.column_ids();
    let pool: Vec<usize> = (0..table.width())
        .filter(|j| replayable[*j].is_some())
        .collect();
    // Weights that underflow stay drawable, after all others.
    let of_pool: Vec<f64> = pool.iter().map(|j| weighed[*j].max(1e-300)).collect();
    let pool_ids: Vec<u64> = pool.iter().map(|j| ids[*j]).collect();
    let size = (rows / ask.per).clamp(1, pool.len().max(1));
    let drawn = draw(&of_pool, &pool_ids, size, ask.key().sub("replay"))?;
    let replay: Vec<ExampleId> = drawn.iter().filter_map(|k| replayable[pool[*k]]).collect();

    let mut order: Vec<usize> = (0..table.width()).collect();
    order.sort_by(|a, b| forecast[*b].total_cmp(&forecast[*a]).then(a.cmp(b)));
    let at_risk = order.iter().take(LISTED).map(|j| AtRisk {
        example: matrix.examples[*j].clone(),
        base_loss: matrix.base_loss.get(*j).copied(),
        rise: around(f64::from(forecast[*j]), half),
    });
    let mean = guarded[0].mean;
    Ok(Plan {
        format_version: PLAN_VERSION,
        code_version: env!("CARGO_PKG_VERSION").to_owned(),
        way: matrix.recipe.clone(),
        base: matrix.base.clone(),
        task: task.to_owned(),
        tasks: (split.1.len(), split.0.len()),
        level: ask.level,
        seed: ask.seed,
        known: known
            .iter()
            .map(|(j, z)| (matrix.examples[j].clone(), z))
            .collect(),
        at_risk: at_risk.collect(),
        half_width: half,
        price: replay.len() as f64 / rows.max(1) as f64,
        replay,
        per: ask.per,
        temperature: ask.temperature,
        effective_size: effective_size(&of_pool),
        budget: ask.budget.map(|limit| (limit, verdict(mean, limit))),
        guarded,
        seconds: 0.0,
    })
}

fn verdict(mean: Interval, limit: f64) -> Budget {
    match (mean.high <= limit, mean.low > limit) {
        (true, _) => Budget::Kept,
        (_, true) => Budget::Broken,
        _ => Budget::Unsure,
    }
}

fn around(value: f64, half: f64) -> Interval {
    Interval {
        value,
        low: value - half,
        high: value + half,
    }
}

/// Calibration rows and fitted rows, drawn by the tasks' ids.
fn calibrated(table: &Table, calibration: usize, ask: &Ask) -> Result<(Vec<usize>, Vec<usize>)> {
    let mut rows: Vec<usize> = (0..table.height()).collect();
    ask.key()
        .sub("calibration")
        .order(&mut rows, |i| table.row_ids()[*i]);
    let fitted = rows.split_off(calibration.min(rows.len()));
    if fitted.len() < 3 {
        return Err(Error::Split(format!(
            "{} tasks leave {} to fit when {calibration} are set aside for intervals of {}: ask for \
             a lower level, or measure more tasks",
            table.height(),
            fitted.len(),
            ask.level
        )));
    }
    Ok((rows, fitted))
}

/// Truth and forecast of each calibration row.
fn calibration_rows(
    table: &Table,
    rows: &[usize],
    known: &Known,
    fitted: &dyn Fitted,
) -> Result<Vec<(Vec<f32>, Vec<f32>)>> {
    let each = rows.iter().map(|i| {
        let truth = table.row(*i);
        let values = known.columns().iter().map(|j| truth[*j]).collect();
        let known = Known::new(known.columns().to_vec(), values, truth.len())?;
        Ok((truth.to_vec(), fitted.complete(&known)?))
    });
    each.collect()
}

fn unseen(rows: &[(Vec<f32>, Vec<f32>)], known: &Known) -> Vec<Vec<f32>> {
    let of_row = |(truth, forecast): &(Vec<f32>, Vec<f32>)| {
        let errors = truth.iter().zip(forecast).map(|(z, f)| z - f).enumerate();
        let unseen = errors.filter(|(j, _)| known.columns().binary_search(j).is_err());
        unseen.map(|(_, e)| e).collect()
    };
    rows.iter().map(of_row).collect()
}

fn guard(
    matrix: &Association,
    name: &str,
    of: &[usize],
    forecast: &[f32],
    calibration: &[(Vec<f32>, Vec<f32>)],
    level: f64,
) -> Result<Guarded> {
    let pick = |row: &[f32]| of.iter().map(|j| f64::from(row[*j])).collect::<Vec<f64>>();
    let mean = |row: &[f32]| pick(row).iter().sum::<f64>() / of.len() as f64;
    let high = |row: &[f32]| quantile(&pick(row), 0.95);
    let means: Vec<f64> = calibration.iter().map(|(z, f)| mean(z) - mean(f)).collect();
    let highs = calibration.iter().map(|(z, f)| Ok(high(z)? - high(f)?));
    let highs: Vec<f64> = highs.collect::<Result<_>>()?;
    let base = &matrix.base_loss;
    Ok(Guarded {
        name: name.to_owned(),
        examples: of.len(),
        base_loss: (!base.is_empty()).then(|| mean(base)),
        mean: around(mean(forecast), half_width(&means, level)?),
        p95: around(high(forecast)?, half_width(&highs, level)?),
    })
}

/// The base's training examples by their ids.
fn by_id(stream: &Stream) -> HashMap<ExampleId, Item> {
    let items = stream.experiences[0].train.iter();
    items.map(|i| (i.id, *i)).collect()
}

/// Learns the last experience of `recipe` from the base of `folder`, measures `ask.known` of the
/// matrix's examples, and plans.
///
/// # Errors
/// When the recipe fine-tunes in another way or its first experience lacks the matrix's examples,
/// training fails, or as [`plan`].
pub fn plan_task(
    folder: &Folder,
    matrix: &Association,
    recipe: &Recipe,
    ask: &Ask,
    surroundings: &mut Around,
) -> Result<Plan> {
    matrix.check_made_with(&way(recipe)?, &folder.base_hash())?;
    let session = Session::new(recipe, surroundings.data_dir)?;
    let stream = session.stream.clone();
    let task = stream.experiences.len() - 1;
    if task == 0 {
        return Err(Error::Request(
            "a plan needs the base's experience first and the new task after it: the recipe has one \
             experience"
                .into(),
        ));
    }
    let items = by_id(&stream);
    let ids: Vec<Option<ExampleId>> = matrix.examples.iter().map(|e| e.parse().ok()).collect();
    let items: Vec<Option<Item>> = ids.iter().map(|id| items.get(&(*id)?).copied()).collect();
    let table = matrix.losses()?;
    let columns = known_columns(&table, ask.known, ask.key().sub("known"))?;
    let measured: Vec<Item> = columns
        .iter()
        .map(|j| {
            items[*j].ok_or_else(|| {
                Error::Request(format!(
                    "the recipe's first experience has no example `{}`, which the matrix measured: \
                     begin with the experience that the matrix's base has learnt",
                    matrix.examples[*j]
                ))
            })
        })
        .collect::<Result<_>>()?;
    let begun = Instant::now();
    let of_task = Arc::new(task_stream(&stream, task, &measured));
    let mut tuned = fine_tune(recipe, of_task, &folder.base, surroundings)?;
    let after = measure(&mut tuned, &measured);
    let values = columns.iter().zip(&after);
    let values = values.map(|(j, o)| o.loss - matrix.base_loss[*j]).collect();
    let known = Known::new(columns, values, table.width())?;
    let steps = tuned.position.step as usize;
    let rows = steps * recipe.file().train.batch;

    // Of pictures, each class is a set of its own.
    let mut sets: Vec<(String, Vec<usize>)> = Vec::new();
    if stream.classes <= 20 && !session.oracle.model.network().tokens() {
        sets = (0..stream.classes)
            .map(|c| (format!("class {c}"), Vec::new()))
            .collect();
        for (j, item) in items.iter().enumerate() {
            if let Some(item) = item {
                sets[item.label as usize].1.push(j);
            }
        }
    }
    let replayable: Vec<Option<ExampleId>> = items.iter().map(|i| i.map(|i| i.id)).collect();
    let name = &stream.experiences[task].name;
    let made = plan(matrix, name, &known, &sets, &replayable, rows, ask)?;
    Ok(Plan {
        seconds: begun.elapsed().as_secs_f64(),
        ..made
    })
}

impl Plan {
    /// Reads a plan.
    ///
    /// # Errors
    /// When the file cannot be read, is no plan, or one of a newer program.
    pub fn read(path: &Path) -> Result<Plan> {
        let bytes = std::fs::read(path).map_err(|source| Error::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        let damaged = |what: String| Error::Damaged {
            path: path.to_owned(),
            what,
        };
        let plan: Plan = serde_json::from_slice(&bytes)
            .map_err(|e| damaged(format!("it is no plan of `ebb plan` ({e})")))?;
        match plan.format_version > PLAN_VERSION {
            false => Ok(plan),
            true => Err(damaged(format!(
                "it has format version {}, this program reads up to {PLAN_VERSION}: use a newer one",
                plan.format_version
            ))),
        }
    }

    /// Writes it, in the place of a file that is there.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).map_err(|e| Error::Damaged {
            path: path.to_owned(),
            what: e.to_string(),
        })?;
        Ok(ebb_record::Disk::default().replace(path, &json)?)
    }

    /// What a recipe is changed by to replay as planned.
    pub fn sets(&self) -> Vec<(String, String)> {
        let ids: Vec<String> = self.replay.iter().map(|id| format!("\"{id}\"")).collect();
        vec![
            ("with.ids".to_owned(), format!("[{}]", ids.join(", "))),
            ("with.per".to_owned(), self.per.to_string()),
        ]
    }
}

/// How a forecast fared against a run that learnt its task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Audit {
    /// The task.
    pub task: String,
    /// Examples scored: neither known to the forecast nor replayed.
    pub examples: usize,
    /// Mean rise as forecast, without replay.
    pub forecast: Interval,
    /// Mean rise as measured.
    pub measured: f64,
    /// Root of the mean squared error of the forecast.
    pub rmse: f64,
    /// The same of the mean over the matrix's tasks, which asks nothing of the new one.
    pub rmse_means: f64,
    /// Share of the examples inside their interval.
    pub coverage: f64,
    /// The level of the intervals.
    pub level: f64,
}

/// Scores a plan's forecast by losses measured after its task, one an example of the matrix.
/// Examples that were known or replayed do not count.
///
/// # Errors
/// When the matrix is not the plan's.
pub fn audit(matrix: &Association, plan: &Plan, after: &[f32]) -> Result<Audit> {
    matrix.check_made_with(&plan.way, &plan.base)?;
    let table = matrix.losses()?;
    let places: HashMap<&str, usize> = (matrix.examples.iter().enumerate())
        .map(|(j, e)| (e.as_str(), j))
        .collect();
    let (mut columns, mut values) = (Vec::new(), Vec::new());
    for (example, z) in &plan.known {
        let j = places.get(example.as_str());
        columns.push(*j.ok_or_else(|| {
            Error::Request(format!(
                "the matrix has no example `{example}`: it is another one"
            ))
        })?);
        values.push(*z);
    }
    let known = Known::new(columns, values, table.width())?;
    let ask = Ask {
        known: known.values().len(),
        level: plan.level,
        budget: None,
        per: plan.per,
        temperature: plan.temperature,
        seed: plan.seed,
    };
    let (_, fitted) = calibrated(&table, plan.tasks.1, &ask)?;
    let train = table.select(&fitted)?;
    let forecast = ClosedForm::default()
        .fit(&train, ask.key())?
        .complete(&known)?;
    let means = table.column_means();
    let mut counts = vec![true; table.width()];
    known.columns().iter().for_each(|j| counts[*j] = false);
    let replayed = plan
        .replay
        .iter()
        .filter_map(|id| places.get(id.to_string().as_str()).copied());
    replayed.for_each(|j| counts[j] = false);
    let scored: Vec<usize> = (0..table.width()).filter(|j| counts[*j]).collect();
    if scored.is_empty() || after.len() != table.width() || matrix.base_loss.is_empty() {
        return Err(Error::Request(
            "nothing can be scored: every example was known or replayed, or the matrix holds no \
             losses of the base"
                .into(),
        ));
    }
    let truth = |j: usize| f64::from(after[j] - matrix.base_loss[j]);
    let n = scored.len() as f64;
    let mean = |of: &dyn Fn(usize) -> f64| scored.iter().map(|j| of(*j)).sum::<f64>() / n;
    let errors = |of: &dyn Fn(usize) -> f64| mean(&|j| (of(j) - truth(j)).powi(2)).sqrt();
    let inside = |j: usize| (f64::from(forecast[j]) - truth(j)).abs() <= plan.half_width;
    let all = plan.guarded.first().map(|g| g.mean);
    let half = all.map_or(f64::NAN, |i| (i.high - i.low) / 2.0);
    Ok(Audit {
        task: plan.task.clone(),
        examples: scored.len(),
        forecast: around(mean(&|j| f64::from(forecast[j])), half),
        measured: mean(&truth),
        rmse: errors(&|j| f64::from(forecast[j])),
        rmse_means: errors(&|j| means[j]),
        coverage: scored.iter().filter(|j| inside(**j)).count() as f64 / n,
        level: plan.level,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::world;

    fn matrix(t: &Table) -> Association {
        let id = |j: usize| ExampleId::of(&(j as u64).to_le_bytes(), 0).to_string();
        Association {
            recipe: "r".repeat(64),
            base: "b".repeat(64),
            tasks: (0..t.height()).map(|i| format!("task {i}")).collect(),
            examples: (0..t.width()).map(id).collect(),
            base_loss: vec![0.5; t.width()],
            base_correct: vec![],
            z: t.values().to_vec(),
            wrong: vec![],
        }
    }

    fn ask() -> Ask {
        Ask {
            known: 30,
            level: 0.9,
            budget: Some(0.0),
            per: 32,
            temperature: 0.1,
            seed: 1,
        }
    }

    #[test]
    fn a_plan_lists_the_worst_draws_them_and_keeps_its_promise() {
        let t = world(41, 600, 2, 0.1, 21);
        let train = t.select(&(0..40).collect::<Vec<_>>()).unwrap();
        let m = matrix(&train);
        let columns: Vec<usize> = (0..30).map(|i| 20 * i).collect();
        let values = columns.iter().map(|j| t.row(40)[*j]).collect();
        let known = Known::new(columns, values, 600).unwrap();
        let ids: Vec<Option<ExampleId>> = m.examples.iter().map(|e| e.parse().ok()).collect();
        let sets = vec![("first".to_owned(), (0..100).collect::<Vec<_>>())];
        let made = plan(&m, "new", &known, &sets, &ids, 60 * 32, &ask()).unwrap();
        assert_eq!((made.replay.len(), made.tasks), (60, (30, 10)));
        assert!((made.price - 1.0 / 32.0).abs() < 1e-12);
        assert_eq!(made.guarded.len(), 2);
        // The forecast finds the worst: of the true top tenth most of the list is.
        let truth = |e: &str| t.row(40)[m.examples.iter().position(|x| x == e).unwrap()];
        let mut sorted = t.row(40).to_vec();
        sorted.sort_by(f32::total_cmp);
        let high = made
            .at_risk
            .iter()
            .filter(|a| truth(&a.example) > sorted[540])
            .count();
        assert!(high > 40, "{high}");
        let drawn: f32 = made
            .replay
            .iter()
            .map(|id| truth(&id.to_string()))
            .sum::<f32>()
            / 60.0;
        let mean = t.row(40).iter().sum::<f32>() / 600.0;
        assert!(drawn > mean + 0.5, "{drawn} {mean}");
        // It comes back from its file, and an audit with the truth agrees with it.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.json");
        made.write(&path).unwrap();
        assert_eq!(Plan::read(&path).unwrap(), made);
        let after: Vec<f32> = t.row(40).iter().map(|z| z + 0.5).collect();
        let got = audit(&m, &made, &after).unwrap();
        assert!(
            got.rmse < 0.5 * got.rmse_means && got.coverage > 0.8,
            "{got:?}"
        );
        assert!((got.forecast.value - got.measured).abs() < 0.1, "{got:?}");
        std::fs::write(&path, "{}").unwrap();
        assert!(Plan::read(&path).is_err());
    }

    #[test]
    fn a_budget_is_judged_by_the_whole_interval() {
        let interval = |low, high| Interval {
            value: 0.5,
            low,
            high,
        };
        assert_eq!(verdict(interval(0.1, 0.2), 0.2), Budget::Kept);
        assert_eq!(verdict(interval(0.1, 0.3), 0.2), Budget::Unsure);
        assert_eq!(verdict(interval(0.21, 0.3), 0.2), Budget::Broken);
    }

    #[test]
    fn too_few_tasks_for_the_level_are_refused() {
        let t = world(11, 60, 1, 0.1, 2);
        let m = matrix(&t);
        let known = Known::new((0..12).collect(), t.row(0)[..12].to_vec(), 60).unwrap();
        let ids = vec![None; 60];
        let error = plan(&m, "new", &known, &[], &ids, 100, &ask()).unwrap_err();
        assert!(matches!(error, Error::Split(_)), "{error}");
    }
}
