//! Which numbers may stand in one column: those with the same name, protocol, unit and stream.
//! Everything else is shown apart, with the reason.

use ebb_space::{Direction, Number, Unit};

use crate::group::Group;
use crate::metric;
use crate::protocol::definition;

/// One measure, in as many columns as its numbers need.
pub(crate) struct Metric<'a> {
    /// Name as the record has it.
    pub name: &'a str,
    /// Columns of comparable numbers.
    pub columns: Vec<Column<'a>>,
    /// Why there is more than one column.
    pub apart: Option<String>,
}

/// Numbers that may be compared with one another.
pub(crate) struct Column<'a> {
    pub name: &'a str,
    pub protocol: &'a str,
    pub unit: Unit,
    pub direction: Direction,
    pub stream: String,
    /// One entry a group, in the order of the groups.
    pub entries: Vec<Option<&'a Number>>,
}

impl Column<'_> {
    fn accepts(&self, number: &Number, stream: &str) -> bool {
        // As `Number::compare` has it, and the stream.
        self.protocol == number.protocol
            && self.unit == number.unit
            && self.direction == number.direction
            && self.stream == stream
    }

    /// Whether any group has a value here.
    pub fn has_values(&self) -> bool {
        self.entries.iter().flatten().any(|n| n.value.is_finite())
    }
}

/// Sorts the numbers of all groups into columns; metrics come in the order of first appearance,
/// the headline measures first.
pub(crate) fn metrics<'a>(groups: &'a [Group<'a>]) -> Vec<Metric<'a>> {
    let mut metrics: Vec<Metric<'a>> = Vec::new();
    for (g, group) in groups.iter().enumerate() {
        let stream = stream_of(group);
        for number in &group.numbers {
            let at = metrics
                .iter()
                .position(|m| m.name == number.name)
                .unwrap_or_else(|| {
                    metrics.push(Metric {
                        name: &number.name,
                        columns: Vec::new(),
                        apart: None,
                    });
                    metrics.len() - 1
                });
            let columns = &mut metrics[at].columns;
            // Two numbers of one group never overwrite one another.
            let free = |c: &Column| c.accepts(number, &stream) && c.entries[g].is_none();
            let at = columns.iter().position(free).unwrap_or_else(|| {
                columns.push(Column {
                    name: &number.name,
                    protocol: &number.protocol,
                    unit: number.unit,
                    direction: number.direction,
                    stream: stream.clone(),
                    entries: vec![None; groups.len()],
                });
                columns.len() - 1
            });
            columns[at].entries[g] = Some(number);
        }
    }
    for metric in &mut metrics {
        metric.apart = reason(&metric.columns);
    }
    let rank = |m: &Metric| {
        let name = metric::canonical(m.name);
        metric::HEADLINES
            .iter()
            .flat_map(|names| names.iter())
            .position(|n| *n == name)
            .unwrap_or(usize::MAX)
    };
    metrics.sort_by_key(rank);
    metrics
}

/// What a group learned, as far as comparison goes.
pub(crate) fn stream_of(group: &Group) -> String {
    let run = group.first();
    [run.stream.as_str(), run.scenario.as_str()].join(", ")
}

/// Why these columns may not be one.
fn reason(columns: &[Column]) -> Option<String> {
    let first = columns.first()?;
    if columns.len() < 2 {
        return None;
    }
    let mut why: Vec<String> = Vec::new();
    if columns.iter().any(|c| c.stream != first.stream) {
        why.push("the runs learned different streams".into());
    }
    let defined = definition(first.protocol);
    if columns.iter().any(|c| definition(c.protocol) != defined) {
        why.push("the numbers were taken under different protocols".into());
    }
    if let Some(other) = columns.iter().find(|c| c.unit != first.unit) {
        let units = (unit_words(first.unit), unit_words(other.unit));
        why.push(format!(
            "one interval is {} and another {}",
            units.0, units.1
        ));
    } else if why.is_empty() && columns.iter().any(|c| c.protocol != first.protocol) {
        why.push("their intervals are of different kinds".into());
    }
    if why.is_empty() {
        why.push("a run reports the number twice".into());
    }
    Some(why.join(", and "))
}

/// A unit in the words of an interval.
pub(crate) fn unit_words(unit: Unit) -> &'static str {
    match unit {
        Unit::Example => "over examples",
        Unit::Seed => "over seeds",
        Unit::Run => "over runs",
        Unit::Step => "over steps",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::RunData;
    use crate::group::groups;

    fn run(method: &str, seed: u64, protocol: &str, unit: Unit) -> RunData {
        RunData {
            method: method.into(),
            recipe_id: method.into(),
            seed,
            stream: "split".into(),
            numbers: vec![Number {
                name: "forgetting".into(),
                value: 0.25,
                ci_low: None,
                ci_high: None,
                n: 10,
                unit,
                direction: Direction::Lower,
                protocol: protocol.into(),
            }],
            ..RunData::default()
        }
    }

    #[test]
    fn equal_protocols_share_a_column() {
        let runs = [
            run("er", 0, "best minus last", Unit::Example),
            run("ewc", 0, "best minus last", Unit::Example),
        ];
        let groups = groups(&runs);
        let metrics = metrics(&groups);
        assert_eq!(metrics.len(), 1);
        assert_eq!(metrics[0].columns.len(), 1);
        assert!(metrics[0].columns[0].entries.iter().all(Option::is_some));
        assert!(metrics[0].apart.is_none());
    }

    #[test]
    fn different_protocols_are_refused_one_column() {
        let runs = [
            run("er", 0, "best minus last", Unit::Example),
            run("ewc", 0, "learned minus last", Unit::Example),
        ];
        let groups = groups(&runs);
        let metrics = metrics(&groups);
        assert_eq!(metrics[0].columns.len(), 2);
        assert_eq!(metrics[0].columns[0].entries.iter().flatten().count(), 1);
        assert!(
            metrics[0]
                .apart
                .as_deref()
                .is_some_and(|r| r.contains("protocols"))
        );
    }

    #[test]
    fn a_single_run_never_stands_beside_a_mean_over_seeds() {
        let p = "best minus last";
        let runs = [
            run("er", 0, p, Unit::Example),
            run("ewc", 0, p, Unit::Example),
            run("ewc", 1, p, Unit::Example),
        ];
        let groups = groups(&runs);
        let metrics = metrics(&groups);
        assert_eq!(metrics[0].columns.len(), 2);
        assert!(
            metrics[0]
                .apart
                .as_deref()
                .is_some_and(|r| r.contains("over seeds"))
        );
    }

    #[test]
    fn different_streams_are_refused_one_column() {
        let p = "best minus last";
        let mut other = run("ewc", 0, p, Unit::Example);
        other.stream = "permuted".into();
        let runs = [run("er", 0, p, Unit::Example), other];
        let groups = groups(&runs);
        let metrics = metrics(&groups);
        assert_eq!(metrics[0].columns.len(), 2);
        assert!(
            metrics[0]
                .apart
                .as_deref()
                .is_some_and(|r| r.contains("streams"))
        );
    }
}
