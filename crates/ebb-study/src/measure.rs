//! Measures: the numbers a study takes from each run.
//!
//! Most are numbers of the run's summary, by their name. The others are defined here, where a
//! card asks for something that only makes sense next to a second arm.

use ebb_data::Stream;
use ebb_record::Summary;
use ebb_space::stats::Line;
use ebb_space::{Direction, Number, Unit};
use serde::{Deserialize, Serialize};

/// What a study measures under a name of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Measure {
    /// A number of the run's summary, or what it cost.
    Number {
        /// Its name there, such as `average_accuracy`, or one of [`COSTS`].
        name: String,
    },
    /// Mean accuracy over all test sets after the last experience, trained or not.
    AllSets,
    /// The same, in points a experience: the least-squares slope of the mean over all test sets
    /// through the last `rows` experiences.
    Slope {
        /// Experiences it runs over.
        rows: usize,
    },
    /// Accuracy on one test set after the last experience.
    Set {
        /// Its number.
        set: usize,
    },
    /// Lowest accuracy on a test set after the last experience, of the sets that were trained.
    WorstSet,
    /// min-ACC as seen from the ends of experiences alone: mean over earlier sets of the lowest
    /// row since the set was trained. Never below the per-iteration one but by panel noise.
    BoundaryMinAcc,
    /// Mean over switches and earlier sets of `accuracy before − lowest accuracy after`
    /// (card S098).
    GapDepth,
    /// Mean over the classes that are not trained any more in the second half of the stream of
    /// their accuracy at its middle minus that `after` experiences later (card S121).
    AbandonedDrop {
        /// Experiences after the middle.
        after: usize,
    },
    /// Lowest accuracy on the sets of an experience right after training it, over all
    /// experiences: whether each new one was learned at all.
    LearnedAtLeast,
    /// Mean cross-entropy over all test sets after the last experience: it rises where a network is
    /// sure and wrong.
    TestLoss,
    /// The same turned round, so that more is better: what a coefficient is chosen by.
    LogLikelihood,
    /// Mean cross-entropy over one test set after the last experience; of texts, the mean over
    /// their texts.
    SetLoss {
        /// Its number.
        set: usize,
    },
    /// Standard deviation of the accuracies on all test sets but those of the last experience, after
    /// it: how unequally is forgotten.
    Spread,
    /// Mean over the experiences from number `from` on of the accuracy on what each trains, right
    /// after it.
    LearnedFrom {
        /// The first of them.
        from: usize,
    },
    /// Mean over experiences of the cross-entropy on what each trains, right after it: what was
    /// learned, beside what was retained of it (`test-loss`).
    LearnedLoss,
    /// Mean over earlier test sets of the cross-entropy after the last experience minus the lowest
    /// after any: never negative (card S145).
    LossForgetting,
}

/// What a run cost, by name; times differ from machine to machine and are no measures.
pub const COSTS: [&str; 3] = ["backward_rows", "forward_rows", "method_bytes"];

impl Measure {
    /// What an expression means by a name that the study does not define.
    pub fn named(name: &str) -> Measure {
        Measure::Number {
            name: name.to_owned(),
        }
    }

    /// The measure of one run, called `name`.
    ///
    /// # Errors
    /// Why the run has no such number.
    pub fn take(&self, name: &str, run: &Summary, stream: &Stream) -> Result<Number, String> {
        let (value, direction, definition) = match self {
            Measure::Number { name: wanted } if COSTS.contains(&wanted.as_str()) => {
                let (value, definition) = cost(wanted, run)?;
                (value, Direction::Lower, definition.to_owned())
            }
            Measure::Number { name: wanted } => {
                let number = run.number(wanted).ok_or_else(|| {
                    let known: Vec<&str> = run.numbers.iter().map(|n| n.name.as_str()).collect();
                    format!("a run of this recipe has {}", known.join(", "))
                })?;
                return Ok(Number {
                    name: name.to_owned(),
                    ..number.clone()
                });
            }
            Measure::AllSets => (
                mean(last(run)?),
                Direction::Higher,
                "mean over all test sets after the last experience".to_owned(),
            ),
            Measure::Slope { rows } => (
                slope(run, *rows)?,
                Direction::Higher,
                format!(
                    "slope an experience of the mean over all test sets, last {rows} experiences"
                ),
            ),
            Measure::Set { set } => (
                last(run)?
                    .get(*set)
                    .copied()
                    .ok_or_else(|| no_set(*set, run))?,
                Direction::Higher,
                format!("test set {set} after the last experience"),
            ),
            Measure::WorstSet => (
                worst_set(run, stream)?,
                Direction::Higher,
                "lowest accuracy on a trained test set after the last experience".to_owned(),
            ),
            Measure::BoundaryMinAcc => (
                boundary_min_acc(run, stream)?,
                Direction::Higher,
                "mean over earlier sets of the lowest end of an experience since trained"
                    .to_owned(),
            ),
            Measure::GapDepth => (
                gap_depth(run)?,
                Direction::Lower,
                "mean over switches and earlier sets of (accuracy before - lowest after)"
                    .to_owned(),
            ),
            Measure::AbandonedDrop { after } => (
                abandoned_drop(run, stream, *after)?,
                Direction::Lower,
                format!(
                    "mean over abandoned classes of (accuracy at the middle - {after} experiences later)"
                ),
            ),
            Measure::LearnedAtLeast => (
                learned_at_least(run, stream)?,
                Direction::Higher,
                "lowest accuracy on what an experience trains, at its end".to_owned(),
            ),
            Measure::TestLoss => (
                test_loss(run)?,
                Direction::Lower,
                "mean cross-entropy over all test sets after the last experience".to_owned(),
            ),
            Measure::LogLikelihood => (
                -test_loss(run)?,
                Direction::Higher,
                "mean log-likelihood over all test sets after the last experience".to_owned(),
            ),
            Measure::SetLoss { set } => (
                run.losses
                    .get(*set)
                    .copied()
                    .flatten()
                    .ok_or_else(|| format!("test set {set} has no finite loss"))?,
                Direction::Lower,
                format!("mean cross-entropy on test set {set} after the last experience"),
            ),
            Measure::Spread => (
                spread(run, stream)?,
                Direction::Lower,
                "standard deviation over the earlier test sets after the last experience"
                    .to_owned(),
            ),
            Measure::LearnedFrom { from } => (
                learned(run, stream).and_then(|all| match all.get(*from..) {
                    None | Some([]) => Err(format!("there is no experience {from}")),
                    Some(late) => Ok(mean(late.to_vec())),
                })?,
                Direction::Higher,
                format!("mean accuracy on what an experience trains, at its end, from {from} on"),
            ),
            Measure::LearnedLoss => (
                learned_loss(run, stream)?,
                Direction::Lower,
                "mean cross-entropy on what an experience trains, at its end".to_owned(),
            ),
            Measure::LossForgetting => (
                loss_forgetting(run, stream)?,
                Direction::Lower,
                "mean over earlier test sets of (last cross-entropy - lowest one)".to_owned(),
            ),
        };
        if !value.is_finite() {
            return Err(format!("it came out as {value}"));
        }
        Ok(Number {
            name: name.to_owned(),
            value,
            ci_low: None,
            ci_high: None,
            n: run.set_sizes.iter().flatten().sum::<u64>() as usize,
            unit: Unit::Example,
            direction,
            protocol: format!("{definition}; {}", run.protocol),
        })
    }
}

/// A cost of a run, and what it counts.
fn cost(name: &str, run: &Summary) -> Result<(f64, &'static str), String> {
    let (value, definition) = match name {
        "backward_rows" => (
            run.cost.backward_rows,
            "rows that went backward through the network",
        ),
        "forward_rows" => (
            run.cost.forward_rows,
            "rows that went forward through the network, evaluation not counted",
        ),
        _ => (
            run.cost.memory_bytes,
            "bytes kept for the method at the end: memory, penalties, teacher",
        ),
    };
    let value = value.ok_or_else(|| "the run recorded no costs".to_owned())?;
    Ok((value as f64, definition))
}

fn mean(values: Vec<f64>) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn no_set(set: usize, run: &Summary) -> String {
    format!("there is no test set {set}, only {}", run.sets.len())
}

/// A row of the matrix, whole.
fn row(run: &Summary, experience: usize) -> Result<Vec<f64>, String> {
    let row = run.matrix.get(experience).ok_or_else(|| {
        format!(
            "experience {experience} of {} was not run",
            run.matrix.len()
        )
    })?;
    row.iter()
        .copied()
        .collect::<Option<Vec<f64>>>()
        .ok_or_else(|| format!("a test set was not evaluated after experience {experience}"))
}

fn last(run: &Summary) -> Result<Vec<f64>, String> {
    match run.matrix.len() {
        0 => Err("the run has no experience".to_owned()),
        n => row(run, n - 1),
    }
}

fn worst_set(run: &Summary, stream: &Stream) -> Result<f64, String> {
    let row = last(run)?;
    let trained = (0..stream.experiences.len()).flat_map(|e| trains(stream, e));
    Ok(trained.map(|s| row[s]).fold(f64::INFINITY, f64::min))
}

fn slope(run: &Summary, rows: usize) -> Result<f64, String> {
    let n = run.matrix.len();
    if rows < 2 || rows > n {
        return Err(format!(
            "a slope over {rows} of {n} experiences has no meaning"
        ));
    }
    let values = (n - rows..n)
        .map(|i| Ok((i as f64, mean(row(run, i)?))))
        .collect::<Result<Vec<(f64, f64)>, String>>()?;
    Ok(Line::fit(&values).map_err(|e| e.to_string())?.slope)
}

/// Which sets each experience trains.
fn trains(stream: &Stream, experience: usize) -> Vec<usize> {
    let origins = &stream.experiences[experience].origins;
    (0..origins.len()).filter(|s| origins[*s] > 0).collect()
}

fn boundary_min_acc(run: &Summary, stream: &Stream) -> Result<f64, String> {
    let experiences = stream.experiences.len();
    let trained = |set: usize| {
        (0..experiences)
            .rev()
            .find(|e| trains(stream, *e).contains(&set))
    };
    let mut lowest = Vec::new();
    for set in 0..stream.evals.len() {
        let Some(since) = trained(set).filter(|e| e + 1 < experiences) else {
            continue;
        };
        let mut low = f64::INFINITY;
        for experience in since + 1..experiences {
            low = low.min(row(run, experience)?[set]);
        }
        lowest.push(low);
    }
    match lowest.is_empty() {
        true => Err("it needs an earlier set".to_owned()),
        false => Ok(mean(lowest)),
    }
}

fn gap_depth(run: &Summary) -> Result<f64, String> {
    match run.gaps.is_empty() {
        true => Err("no gap was recorded: set `evaluate.every`".to_owned()),
        false => Ok(mean(run.gaps.iter().map(|g| g.depth).collect())),
    }
}

fn abandoned_drop(run: &Summary, stream: &Stream, after: usize) -> Result<f64, String> {
    let n = stream.experiences.len();
    let half = n.div_ceil(2);
    let trained = |set: usize, range: std::ops::Range<usize>| {
        range.into_iter().any(|e| trains(stream, e).contains(&set))
    };
    let abandoned: Vec<usize> = (0..stream.evals.len())
        .filter(|s| trained(*s, 0..half) && !trained(*s, half..n))
        .collect();
    if abandoned.is_empty() {
        return Err("every class comes back: set `stream.second_half = \"removed\"`".to_owned());
    }
    let (before, later) = (row(run, half - 1)?, row(run, half - 1 + after)?);
    Ok(mean(
        abandoned.iter().map(|s| before[*s] - later[*s]).collect(),
    ))
}

fn test_loss(run: &Summary) -> Result<f64, String> {
    let losses: Option<Vec<f64>> = run.losses.iter().copied().collect();
    match losses.filter(|l| !l.is_empty()) {
        Some(losses) => Ok(mean(losses)),
        None => Err("a test set has no finite loss".to_owned()),
    }
}

/// The losses on all test sets after an experience.
fn losses(run: &Summary, experience: usize) -> Result<&[Option<f64>], String> {
    let row = run.loss_rows.get(experience).map(Vec::as_slice);
    row.ok_or_else(|| format!("nothing was measured after experience {experience}"))
}

fn loss_of(row: &[Option<f64>], set: usize) -> Result<f64, String> {
    let loss = row.get(set).copied().flatten();
    loss.ok_or_else(|| format!("test set {set} has no finite loss"))
}

fn learned_loss(run: &Summary, stream: &Stream) -> Result<f64, String> {
    let own = |experience: usize| -> Result<f64, String> {
        let row = losses(run, experience)?;
        let own = trains(stream, experience).into_iter();
        let own: Result<Vec<f64>, String> = own.map(|set| loss_of(row, set)).collect();
        own.map(mean)
    };
    let all: Result<Vec<f64>, String> = (0..stream.experiences.len()).map(own).collect();
    all.map(mean)
}

fn loss_forgetting(run: &Summary, stream: &Stream) -> Result<f64, String> {
    let last = stream.experiences.len() - 1;
    let newest = trains(stream, last);
    let rows: Result<Vec<&[Option<f64>]>, String> = (0..=last).map(|e| losses(run, e)).collect();
    let rows = rows?;
    let earlier = (0..stream.evals.len()).filter(|set| !newest.contains(set));
    let risen = |set: usize| -> Result<f64, String> {
        let least = rows.iter().filter_map(|row| loss_of(row, set).ok());
        Ok(loss_of(rows[last], set)? - least.fold(f64::INFINITY, f64::min))
    };
    let risen: Result<Vec<f64>, String> = earlier.map(risen).collect();
    match risen? {
        none if none.is_empty() => Err("it needs an earlier test set".to_owned()),
        risen => Ok(mean(risen)),
    }
}

/// Deviation over the earlier sets, which are all there are: the population's, divided by their number.
fn spread(run: &Summary, stream: &Stream) -> Result<f64, String> {
    let newest = trains(stream, stream.experiences.len() - 1);
    let row = last(run)?;
    let earlier: Vec<f64> = (0..row.len())
        .filter(|s| !newest.contains(s))
        .map(|s| row[s])
        .collect();
    if earlier.len() < 2 {
        return Err("it needs two earlier sets".to_owned());
    }
    let centre = mean(earlier.clone());
    let squares = earlier.into_iter().map(|a| (a - centre).powi(2));
    Ok(mean(squares.collect()).sqrt())
}

fn learned_at_least(run: &Summary, stream: &Stream) -> Result<f64, String> {
    Ok((learned(run, stream)?.into_iter()).fold(f64::INFINITY, f64::min))
}

/// Mean accuracy on the sets that each experience trains, right after it.
fn learned(run: &Summary, stream: &Stream) -> Result<Vec<f64>, String> {
    let own = |experience: usize| -> Result<f64, String> {
        let row = row(run, experience)?;
        let own = trains(stream, experience).into_iter().map(|s| row[s]);
        Ok(mean(own.collect()))
    };
    (0..stream.experiences.len()).map(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_data::StreamSpec;
    use ebb_record::{Cost, Gap};

    fn stream() -> Stream {
        let spec = StreamSpec {
            dataset: "digits".into(),
            split: Some(3),
            groups: None,
            n: None,
            class_order: None,
            ..StreamSpec::default()
        };
        // Ten classes do not go into three; name the groups.
        let spec = StreamSpec {
            split: None,
            groups: Some(vec![vec![0, 1], vec![2, 3], vec![4, 5]]),
            ..spec
        };
        spec.build(std::path::Path::new("."), 0).unwrap()
    }

    fn run(rows: &[[f64; 3]]) -> Summary {
        Summary {
            matrix: rows
                .iter()
                .map(|r| r.iter().copied().map(Some).collect())
                .collect(),
            sets: vec!["a".into(), "b".into(), "c".into()],
            set_sizes: vec![Some(10); 3],
            losses: vec![Some(0.5), Some(1.0), Some(3.0)],
            loss_rows: [[0.25, 4.0, 4.0], [0.75, 0.5, 4.0], [0.5, 1.0, 3.0]]
                .map(|row| row.map(Some).to_vec())
                .to_vec(),
            protocol: "by hand".into(),
            numbers: vec![Number {
                name: "average_accuracy".into(),
                value: 0.5,
                ci_low: None,
                ci_high: None,
                n: 30,
                unit: Unit::Example,
                direction: Direction::Higher,
                protocol: "mean".into(),
            }],
            ..Summary::default()
        }
    }

    const ROWS: &[[f64; 3]] = &[[0.9, 0.1, 0.2], [0.4, 0.8, 0.3], [0.6, 0.5, 1.0]];

    fn value(measure: &Measure) -> f64 {
        measure.take("m", &run(ROWS), &stream()).unwrap().value
    }

    #[test]
    fn measures_by_hand() {
        assert_eq!(value(&Measure::named("average_accuracy")), 0.5);
        assert!((value(&Measure::AllSets) - 0.7).abs() < 1e-12);
        assert_eq!(value(&Measure::Set { set: 1 }), 0.5);
        // Means 0.4, 0.5, 0.7: slope 0.15.
        assert!((value(&Measure::Slope { rows: 3 }) - 0.15).abs() < 1e-12);
        // Set 0 has its lowest end at 0.4, set 1 at 0.5; set 2 was trained last.
        assert!((value(&Measure::BoundaryMinAcc) - 0.45).abs() < 1e-12);
        assert_eq!(value(&Measure::LearnedAtLeast), 0.8);
        // 0.25, 0.5 and 3 at their ends; sets 0 and 1 rose by 0.25 and 0.5.
        assert_eq!(value(&Measure::LearnedLoss), 1.25);
        assert_eq!(value(&Measure::LossForgetting), 0.375);
        assert_eq!(value(&Measure::LogLikelihood), -1.5);
        assert_eq!(value(&Measure::TestLoss), 1.5);
        assert_eq!(value(&Measure::SetLoss { set: 1 }), 1.0);
        // 0.6 and 0.5, the third set being the newest.
        assert!((value(&Measure::Spread) - 0.05).abs() < 1e-12);
        assert_eq!(value(&Measure::LearnedFrom { from: 1 }), 0.9);
        assert_eq!(value(&Measure::WorstSet), 0.5);
    }

    #[test]
    fn costs_are_measures_by_their_names() {
        let summary = Summary {
            cost: Cost {
                forward_rows: Some(70),
                backward_rows: Some(50),
                memory_bytes: Some(4096),
                ..Cost::default()
            },
            ..run(ROWS)
        };
        let take = |name: &str| Measure::named(name).take(name, &summary, &stream());
        let values = COSTS.map(|name| take(name).unwrap().value);
        assert_eq!(values, [50.0, 70.0, 4096.0]);
        assert_eq!(take("method_bytes").unwrap().direction, Direction::Lower);
        let without = Measure::named("backward_rows").take("m", &run(ROWS), &stream());
        assert!(without.unwrap_err().contains("no costs"));
    }

    #[test]
    fn gaps_are_averaged() {
        let gap = |depth| Gap {
            experience: 1,
            set: 0,
            before: 0.9,
            lowest: 0.9 - depth,
            end: 0.8,
            depth,
            recovery: 3,
            area: 1.0,
        };
        let summary = Summary {
            gaps: vec![gap(0.2), gap(0.4)],
            ..run(ROWS)
        };
        let depth = Measure::GapDepth
            .take("depth", &summary, &stream())
            .unwrap();
        assert!((depth.value - 0.3).abs() < 1e-12 && depth.name == "depth");
        assert!(depth.protocol.ends_with("by hand"));
    }

    #[test]
    fn abandoned_classes_are_those_of_the_first_half_alone() {
        let mut stream = stream();
        // Experience 0 trains set 0, experiences 1 and 2 train set 1; half of three is two.
        stream.experiences[0].origins = vec![5, 0, 0];
        stream.experiences[1].origins = vec![0, 5, 0];
        stream.experiences[2].origins = vec![0, 5, 0];
        let drop = Measure::AbandonedDrop { after: 1 };
        let value = drop.take("m", &run(ROWS), &stream).unwrap().value;
        assert!((value - (0.4 - 0.6)).abs() < 1e-12);
        stream.experiences[2].origins = vec![5, 5, 0];
        assert!(
            drop.take("m", &run(ROWS), &stream)
                .unwrap_err()
                .contains("comes back")
        );
    }

    #[test]
    fn what_a_run_does_not_have_is_said() {
        let take = |m: Measure| m.take("m", &run(ROWS), &stream()).unwrap_err();
        assert!(take(Measure::named("bwt")).contains("average_accuracy"));
        assert!(take(Measure::GapDepth).contains("evaluate.every"));
        assert!(take(Measure::Set { set: 9 }).contains("no test set 9"));
        assert!(take(Measure::Slope { rows: 9 }).contains("no meaning"));
    }
}
