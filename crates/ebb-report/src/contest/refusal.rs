//! Why groups are not compared.

use ebb_space::Unit;

use super::LeftOut;
use crate::compare::{Column, unit_words};
use crate::group::Group;
use crate::metric;
use crate::protocol::beyond;

/// Why groups are not compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There are not two groups.
    #[error(
        "{}{}",
        match groups.as_slice() {
            [] => "there is no finished run to compare".to_owned(),
            names => format!("`{}` is one group, and it takes two to compare", names.join("`, `")),
        },
        left_out.iter().map(|l| format!("; left out: {} ({})", l.run, l.reason)).collect::<String>()
    )]
    TooFew {
        /// The groups there are.
        groups: Vec<String>,
        /// The runs that do not count.
        left_out: Vec<LeftOut>,
    },
    /// Two groups have one name.
    #[error("two groups are called `{name}`")]
    NameTwice {
        /// The name.
        name: String,
    },
    /// One name covers two experiments.
    #[error(
        "`{name}` is two experiments: the {what} is {} in {} and {} in {}",
        are[0], runs[0], are[1], runs[1]
    )]
    NameMixes {
        /// The name.
        name: String,
        /// What differs.
        what: String,
        /// Two runs in which it does.
        runs: [String; 2],
        /// How each of them has it.
        are: [String; 2],
    },
    /// There is no such group.
    #[error("there is no group `{asked}`; there are: {}", known.join(", "))]
    NoSuchGroup {
        /// The name asked for.
        asked: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// No run has measured that.
    #[error("no run has measured `{asked}`; measured were: {}", known.join(", "))]
    NoSuchMetric {
        /// The measure asked for.
        asked: String,
        /// The measures there are.
        known: Vec<String>,
    },
    /// A single run beside groups of several.
    #[error(
        "`{single}` is a single run and `{group}` is not: the intervals of their {metric} are \
         {} and {}, which answer different questions",
        unit_words(units[0]), unit_words(units[1])
    )]
    SingleRun {
        /// The measure.
        metric: String,
        /// The group of one run.
        single: String,
        /// Its run.
        run: String,
        /// The group of several.
        group: String,
        /// What the intervals of each are over.
        units: [Unit; 2],
    },
    /// The numbers are of different streams or protocols.
    #[error(
        "{metric} of `{}` and of `{}` cannot be compared: the {what} differ: `{}` and `{}`",
        groups[0], groups[1], are[0], are[1]
    )]
    Apart {
        /// The measure.
        metric: String,
        /// What differs.
        what: &'static str,
        /// Two groups in which it does.
        groups: [String; 2],
        /// How each of them has it.
        are: [String; 2],
    },
}

/// Why two columns of one measure are not one.
pub(super) fn apart(groups: &[Group], first: &Column, other: &Column) -> Refusal {
    let both = [first, other];
    let group = |column: &Column| {
        let has = |g: &usize| column.entries[*g].is_some();
        (0..groups.len()).find(has).unwrap_or(0)
    };
    let who = both.map(group);
    let names = who.map(|g| groups[g].label.clone());
    let metric = metric::canonical(first.name);
    let refuse = |what, are| Refusal::Apart {
        metric: metric.clone(),
        what,
        groups: names.clone(),
        are,
    };
    let definitions = [
        beyond(first.protocol, other.protocol),
        beyond(other.protocol, first.protocol),
    ];
    if first.stream != other.stream {
        refuse("streams", both.map(|c| c.stream.clone()))
    } else if definitions.iter().any(|d| !d.is_empty()) {
        refuse("protocols", definitions)
    } else if first.unit != other.unit {
        let single = usize::from(groups[who[0]].runs.len() > 1);
        Refusal::SingleRun {
            metric,
            single: names[single].clone(),
            run: groups[who[single]].first().name.clone(),
            group: names[1 - single].clone(),
            units: [both[single].unit, both[1 - single].unit],
        }
    } else {
        refuse("protocols", both.map(|c| c.protocol.to_owned()))
    }
}
