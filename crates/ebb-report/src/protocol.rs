//! What all protocols on a page have in common is said once; each number then says the rest.

use crate::compare::Metric;

/// Between the parts of a protocol.
const SEPARATOR: &str = "; ";

/// The parts of the protocols of a page that are said once.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Parts of every protocol.
    common: Vec<String>,
    /// What the intervals are: part of the numbers that have one, which say so themselves.
    intervals: Vec<String>,
}

impl Shared {
    /// Of all columns of a page.
    pub fn of(metrics: &[Metric]) -> Shared {
        Shared::between(metrics.iter().flat_map(|m| &m.columns).map(|c| c.protocol))
    }

    pub fn between<'a>(protocols: impl Iterator<Item = &'a str>) -> Shared {
        let all: Vec<Vec<&str>> = protocols.map(parts).collect();
        let mut shared = Shared::default();
        for part in all.iter().flatten().filter(|p| is_interval(p)) {
            if !shared.intervals.iter().any(|p| p == part) {
                shared.intervals.push(part.to_string());
            }
        }
        if let Some((first, others)) = all.split_first() {
            let everywhere =
                |part: &&&str| !is_interval(part) && others.iter().all(|p| p.contains(part));
            shared.common = first
                .iter()
                .filter(everywhere)
                .map(|p| p.to_string())
                .collect();
        }
        shared
    }

    /// What holds for every number; empty if nothing does.
    pub fn common(&self) -> String {
        self.common.join(SEPARATOR)
    }

    /// What the intervals are; empty if there are none.
    pub fn intervals(&self) -> String {
        self.intervals.join(SEPARATOR)
    }

    /// What a protocol says beyond it.
    pub fn rest(&self, protocol: &str) -> String {
        let own = |part: &&str| !is_interval(part) && !self.common.iter().any(|p| p == part);
        parts(protocol)
            .into_iter()
            .filter(own)
            .collect::<Vec<_>>()
            .join(SEPARATOR)
    }
}

/// A protocol without what it says of its interval.
pub(crate) fn definition(protocol: &str) -> String {
    parts(protocol)
        .into_iter()
        .filter(|p| !is_interval(p))
        .collect::<Vec<_>>()
        .join(SEPARATOR)
}

/// What a protocol's definition says that another one's does not.
pub(crate) fn beyond(protocol: &str, other: &str) -> String {
    let other = parts(other);
    let own = |part: &&str| !is_interval(part) && !other.contains(part);
    parts(protocol)
        .into_iter()
        .filter(own)
        .collect::<Vec<_>>()
        .join(SEPARATOR)
}

fn parts(protocol: &str) -> Vec<&str> {
    protocol.split(SEPARATOR).collect()
}

/// `95 % interval over examples`
fn is_interval(part: &str) -> bool {
    part.contains('%') && part.contains("interval over")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_parts_are_said_once_and_the_rest_stays_apart() {
        let all = [
            "best minus last; after 4; mnist, test; 95 % interval over examples",
            "learned minus last; after 4; mnist, test; 95 % interval over examples",
            "lowest; mnist, test; panel of 500",
        ];
        let shared = Shared::between(all.into_iter());
        assert_eq!(shared.common(), "mnist, test");
        assert_eq!(shared.intervals(), "95 % interval over examples");
        assert_eq!(shared.rest(all[0]), "best minus last; after 4");
        assert_eq!(shared.rest(all[1]), "learned minus last; after 4");
        assert_eq!(shared.rest(all[2]), "lowest; panel of 500");
    }

    #[test]
    fn one_protocol_is_all_shared_and_none_shares_nothing() {
        let one = Shared::between(["a; b"].into_iter());
        assert_eq!(
            (one.common().as_str(), one.rest("a; b").as_str()),
            ("a; b", "")
        );
        assert_eq!(Shared::between(std::iter::empty()).common(), "");
        assert_eq!(Shared::between(["a", "b"].into_iter()).rest("b"), "b");
    }
}
