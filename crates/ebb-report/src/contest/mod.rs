//! Groups of runs against one another: means over seeds, what each group cost, and tests over the
//! seeds that two groups share.
//!
//! Numbers that [`compare`] would set apart are refused here, with the reason. A seed decides the
//! initial weights, the order of the examples and every other draw, so that two groups under the
//! same seed are a matched pair, and their difference is free of what the seed did to both.

mod cost;
mod pair;
mod refusal;

use std::collections::{BTreeMap, BTreeSet};

use ebb_space::stats::holm;
use ebb_space::{Direction, Number, Unit};
use serde::Serialize;

pub use cost::{Costs, Dominated, Paid};
pub use pair::{Pair, Test, Verdict};
pub use refusal::Refusal;

use crate::compare::{self, Column, Metric};
use crate::data::{RunData, Status};
use crate::group::{self, Group};
use crate::protocol::definition;
use crate::{metric, recipe};

/// A run, and the group it was put into by name; without a name it is grouped by its recipe.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name of its group.
    pub group: Option<String>,
    /// The run.
    pub run: RunData,
}

/// What is asked of the groups.
#[derive(Clone, Debug)]
pub struct Question {
    /// The measures, by their names; one named twice counts once.
    pub metrics: Vec<String>,
    /// The group that the others are held against; by default fine-tuning, or else the first.
    pub against: Option<String>,
    /// Every pair, not only those with that group.
    pub all_pairs: bool,
    /// The level of the tests.
    pub alpha: f64,
}

/// What the groups came to.
#[derive(Clone, Debug, Serialize)]
pub struct Contest {
    /// Version of the format.
    pub format_version: u32,
    /// The level of the tests.
    pub alpha: f64,
    /// How many tests Holm's correction is over: all that are here.
    pub tests: usize,
    /// The group that costs and, unless every pair was asked for, differences are against.
    pub against: String,
    /// The groups in the order given.
    pub groups: Vec<Side>,
    /// What was measured, in the order asked.
    pub measures: Vec<Measure>,
    /// Runs that do not count.
    pub left_out: Vec<LeftOut>,
    /// What must be known to read the tables rightly.
    pub notes: Vec<String>,
}

/// One group.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// Its name, as given or made from what tells it apart.
    pub name: String,
    /// The method.
    pub method: String,
    /// Identities of its recipes without the seed: one, unless a name put several together.
    pub recipe_ids: Vec<String>,
    /// The runs that count.
    pub runs: Vec<String>,
    /// Their seeds, ascending.
    pub seeds: Vec<u64>,
    /// What a run of it costs.
    pub cost: Costs,
}

/// One measure of every group.
#[derive(Clone, Debug, Serialize)]
pub struct Measure {
    /// Its name.
    pub name: String,
    /// Which way is better.
    pub direction: Direction,
    /// What the intervals of the values are over.
    pub unit: Unit,
    /// The definition that holds for every value.
    pub protocol: String,
    /// One a group, in the order of the groups.
    pub values: Vec<Value>,
    /// The differences.
    pub pairs: Vec<Pair>,
    /// Groups that another one dominates by the point estimates.
    pub dominated: Vec<Dominated>,
}

/// What a group measured.
#[derive(Clone, Debug, Serialize)]
pub struct Value {
    /// The group.
    pub group: String,
    /// The mean over its seeds, or the number of its only run.
    pub number: Option<Number>,
    /// The values behind it.
    pub per_seed: BTreeMap<u64, f64>,
}

/// A run that does not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The run.
    pub run: String,
    /// Why not.
    pub reason: String,
}

/// Holds groups of runs against one another.
///
/// # Errors
/// A [`Refusal`] if there are fewer than two groups, if a name is ambiguous, unknown or covers
/// runs that differ in more than their recipe's wording, or if the numbers may not be compared.
pub fn contest(entries: &[Entry], question: &Question) -> Result<Contest, Box<Refusal>> {
    let (finished, mut left_out) = finished(entries);
    let groups = named_groups(&finished)?;
    for group in &groups {
        left_out.extend(group.set_aside.iter().map(|(run, reason)| LeftOut {
            run: run.name.clone(),
            reason: reason.clone(),
        }));
    }
    if groups.len() < 2 {
        let groups = groups.into_iter().map(|g| g.label).collect();
        return Err(Refusal::TooFew { groups, left_out }.into());
    }
    let baseline = baseline(&groups, question.against.as_deref())?;
    let metrics = compare::metrics(&groups);
    let mut measures = Vec::new();
    // A measure asked for twice is one measure, and one test of the correction.
    let mut asked = BTreeSet::new();
    let again = |name: &&String| asked.insert(metric::canonical(name));
    for name in question.metrics.iter().filter(again) {
        let column = column(&groups, &metrics, name)?;
        measures.push(measure(&groups, column, baseline, question.all_pairs));
    }
    let tests = correct(&mut measures, question.alpha);
    let costs = cost::costs(&groups, baseline);
    for measure in &mut measures {
        measure.dominated = cost::dominated(measure, &costs);
    }
    let notes = notes(&groups, &measures);
    Ok(Contest {
        format_version: 1,
        alpha: question.alpha,
        tests,
        against: groups[baseline].label.clone(),
        groups: groups.iter().zip(costs).map(side).collect(),
        measures,
        left_out,
        notes,
    })
}

fn finished(entries: &[Entry]) -> (Vec<&Entry>, Vec<LeftOut>) {
    let mut left_out = Vec::new();
    let finished = entries.iter().filter(|entry| match &entry.run.status {
        Status::Finished => true,
        Status::Unfinished(at) => {
            left_out.push(LeftOut {
                run: entry.run.name.clone(),
                reason: format!("unfinished: {at}"),
            });
            false
        }
    });
    (finished.collect(), left_out)
}

/// Runs under one name are one group; those without a name are grouped by their recipes.
fn named_groups<'a>(entries: &[&'a Entry]) -> Result<Vec<Group<'a>>, Box<Refusal>> {
    let mut members: Vec<(Option<&str>, Vec<&'a RunData>)> = Vec::new();
    for entry in entries {
        let name = entry.group.as_deref();
        let fits = |(other, runs): &&mut (Option<&str>, Vec<&RunData>)| match name {
            Some(_) => *other == name,
            None => other.is_none() && group::same_group(runs[0], &entry.run),
        };
        match members.iter_mut().find(fits) {
            Some((Some(name), runs)) => {
                one_experiment(name, runs, &entry.run)?;
                runs.push(&entry.run);
            }
            Some((None, runs)) => runs.push(&entry.run),
            None => members.push((name, vec![&entry.run])),
        }
    }
    let unnamed = members.iter().filter(|(name, _)| name.is_none());
    let unnamed: Vec<Vec<&RunData>> = unnamed.map(|(_, runs)| runs.clone()).collect();
    let mut made = group::labels(&unnamed).into_iter();
    let mut groups: Vec<Group> = Vec::new();
    for (name, runs) in members {
        let label = name.map_or_else(|| made.next().unwrap_or_default(), str::to_owned);
        if groups.iter().any(|g| g.label == label) {
            return Err(Refusal::NameTwice { name: label }.into());
        }
        groups.push(group::group(runs, label));
    }
    Ok(groups)
}

/// A name may put recipes together that are worded differently, but not two experiments.
fn one_experiment(name: &str, runs: &[&RunData], new: &RunData) -> Result<(), Box<Refusal>> {
    let mixes = |what: &str, other: &RunData, both: [String; 2]| {
        let [left, right] = both;
        Err(Refusal::NameMixes {
            name: name.to_owned(),
            what: what.to_owned(),
            runs: [other.name.clone(), new.name.clone()],
            are: [left, right],
        }
        .into())
    };
    for run in runs {
        if let Some((what, both)) = group::difference(run, new) {
            return mixes(what, run, both);
        }
        if run.seed == new.seed && run.recipe_id != new.recipe_id {
            let recipe = |r: &RunData| r.recipe_id.chars().take(8).collect();
            let what = format!("recipe under seed {}", run.seed);
            return mixes(&what, run, [recipe(run), recipe(new)]);
        }
    }
    Ok(())
}

/// The method that every other one is meant to beat.
const BASELINE: &str = "fine-tune";

fn baseline(groups: &[Group], asked: Option<&str>) -> Result<usize, Box<Refusal>> {
    let method = |name: &str| groups.iter().position(|g| g.first().method == name);
    let Some(asked) = asked else {
        return Ok(method(BASELINE).unwrap_or(0));
    };
    let label = groups.iter().position(|g| g.label == asked);
    let only = |g: &usize| {
        let like = groups.iter().filter(|h| h.first().method == asked);
        like.count() == 1 && groups[*g].first().method == asked
    };
    label.or_else(|| method(asked).filter(only)).ok_or_else(|| {
        let known = groups.iter().map(|g| g.label.clone()).collect();
        let asked = asked.to_owned();
        Refusal::NoSuchGroup { asked, known }.into()
    })
}

/// The one column that holds a measure, or why it is more than one.
fn column<'a>(
    groups: &[Group],
    metrics: &'a [Metric<'a>],
    name: &str,
) -> Result<&'a Column<'a>, Box<Refusal>> {
    let wanted = metric::canonical(name);
    let measured = |m: &&Metric| m.columns.iter().any(Column::has_values);
    let named = metrics
        .iter()
        .filter(|m| metric::canonical(m.name) == wanted);
    let mut columns = named.flat_map(|m| &m.columns).filter(|c| c.has_values());
    match (columns.next(), columns.next()) {
        (Some(first), Some(other)) => Err(refusal::apart(groups, first, other).into()),
        (Some(only), None) => Ok(only),
        (None, _) => Err(Refusal::NoSuchMetric {
            asked: name.to_owned(),
            known: metrics
                .iter()
                .filter(measured)
                .map(|m| metric::canonical(m.name))
                .collect(),
        }
        .into()),
    }
}

fn measure(groups: &[Group], column: &Column, baseline: usize, all_pairs: bool) -> Measure {
    let value = |(g, group): (usize, &Group)| {
        let number = column.entries[g].filter(|n| n.value.is_finite());
        Value {
            group: group.label.clone(),
            number: number.cloned(),
            per_seed: number.map_or_else(BTreeMap::new, |_| per_seed(group, column)),
        }
    };
    let values: Vec<Value> = groups.iter().enumerate().map(value).collect();
    // Against the baseline first; then, where all are asked for, the others in their order.
    let with_baseline = (0..groups.len()).filter(|g| *g != baseline);
    let mut pairs: Vec<(usize, usize)> = with_baseline.map(|g| (g, baseline)).collect();
    if all_pairs {
        let others: Vec<usize> = pairs.iter().map(|(g, _)| *g).collect();
        for (i, &b) in others.iter().enumerate() {
            pairs.extend(others[i + 1..].iter().map(|&a| (a, b)));
        }
    }
    Measure {
        name: column.name.to_owned(),
        direction: column.direction,
        unit: column.unit,
        protocol: definition(column.protocol),
        pairs: pairs
            .into_iter()
            .map(|(a, b)| pair::test(&values[a], &values[b]))
            .collect(),
        values,
        dominated: Vec::new(),
    }
}

/// The value of each run that the group's number is made of.
fn per_seed(group: &Group, column: &Column) -> BTreeMap<u64, f64> {
    let defined = definition(column.protocol);
    let counts = |n: &&Number| {
        n.name == column.name
            && n.direction == column.direction
            && n.value.is_finite()
            && definition(&n.protocol) == defined
    };
    let of_run = |run: &&RunData| Some((run.seed, run.numbers.iter().find(counts)?.value));
    group.runs.iter().filter_map(of_run).collect()
}

/// Corrects every p for all tests at once, and judges each pair. Returns the number of tests.
fn correct(measures: &mut [Measure], alpha: f64) -> usize {
    let mut tested: Vec<(Direction, &mut Pair)> = Vec::new();
    for measure in measures {
        let direction = measure.direction;
        let pairs = measure.pairs.iter_mut().filter(|pair| pair.p.is_some());
        tested.extend(pairs.map(|pair| (direction, pair)));
    }
    // A p is in [0, 1] by construction, which is all that Holm's correction asks for. It never
    // falls where another p rises, so corrected least values are the least corrected ones.
    let all = |of: fn(&Pair) -> Option<f64>| {
        let values: Vec<f64> = tested.iter().map(|(_, t)| of(t).unwrap_or(0.0)).collect();
        holm(&values).unwrap_or(values)
    };
    let (p, least) = (all(|t| t.p), all(|t| t.least_p));
    let n = tested.len();
    for ((direction, pair), (p, least)) in tested.into_iter().zip(p.into_iter().zip(least)) {
        pair.judge(direction, p, least, alpha);
    }
    n
}

fn side((group, cost): (&Group, Costs)) -> Side {
    let recipes: BTreeSet<&String> = group.runs.iter().map(|r| &r.recipe_id).collect();
    let seeds: BTreeSet<u64> = group.runs.iter().map(|r| r.seed).collect();
    Side {
        name: group.label.clone(),
        method: group.first().method.clone(),
        recipe_ids: recipes.into_iter().cloned().collect(),
        runs: group.runs.iter().map(|r| r.name.clone()).collect(),
        seeds: seeds.into_iter().collect(),
        cost,
    }
}

fn notes(groups: &[Group], measures: &[Measure]) -> Vec<String> {
    let mut notes = Vec::new();
    for group in groups {
        let recipes: BTreeSet<&String> = group.runs.iter().map(|r| &r.recipe_id).collect();
        if recipes.len() > 1 {
            let keys = recipe::keys_of(group.runs.iter().copied());
            notes.push(format!(
                "{} puts {} recipes together, so that its interval is over more than the seed{}",
                group.label,
                recipes.len(),
                listed(": they differ in ", &recipe::differing(keys.iter())),
            ));
        }
    }
    let keys = recipe::keys_of(groups.iter().map(Group::first));
    let mut differing = recipe::differing(keys.iter());
    differing.retain(|key| key == "stream" || key.starts_with("stream."));
    if !differing.is_empty() {
        notes.push(format!(
            "the recipes describe their streams differently{}: compare only if that is meant",
            listed(", in ", &differing)
        ));
    }
    for measure in measures {
        let short = |v: &&Value| {
            let runs = groups.iter().find(|g| g.label == v.group);
            runs.is_some_and(|g| v.per_seed.len() < g.runs.len())
        };
        for value in measure.values.iter().filter(short) {
            notes.push(match value.per_seed.len() {
                0 => format!("{} did not measure {}", value.group, measure.name),
                n => format!("{} measured {} in {n} runs only", value.group, measure.name),
            });
        }
    }
    let machine = |name: &str| {
        let value = |r: &RunData| r.environment.iter().find(|(n, _)| n == name).cloned();
        let runs = groups.iter().flat_map(|g| &g.runs);
        runs.map(|r| value(r)).collect::<BTreeSet<_>>().len() > 1
    };
    if machine("processor") || machine("threads") {
        notes.push(
            "the times are from different machines or numbers of threads: rows can be compared, \
             seconds cannot"
                .into(),
        );
    }
    notes
}

fn listed(before: &str, names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!("{before}{}", names.join(", ")),
    }
}
