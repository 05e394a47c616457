//! Where the methods stand in the field's taxonomy.
//!
//! Wang, Zhang, Su & Zhu, "A comprehensive survey of continual learning", TPAMI 2024 (card S124):
//! five approaches, each with the directions named here. Families of this table that the survey has
//! no place for stand below the five.

use super::{ALL, MethodCard};

/// An approach of the survey and its directions, each with the families that belong to it.
pub type Approach = (
    &'static str,
    &'static [(&'static str, &'static [&'static str])],
);

/// The survey's approaches, then what lies outside of them.
pub const APPROACHES: &[Approach] = &[
    (
        "regularisation",
        &[
            ("weight regularisation", &["weight penalty"]),
            ("function regularisation", &["distillation"]),
        ],
    ),
    (
        "replay",
        &[
            ("experience replay", &["replay"]),
            ("generative replay", &["generative replay"]),
            ("feature replay", &["feature replay"]),
        ],
    ),
    (
        "optimisation",
        &[
            ("gradient projection", &["projection"]),
            (
                "loss landscape and other steps",
                &["update", "averaged weights"],
            ),
        ],
    ),
    (
        "representation",
        &[("classifiers on features", &["classifier"])],
    ),
    (
        "architecture",
        &[
            (
                "parameter allocation",
                &["frozen weights", "task-owned parameters"],
            ),
            ("modular networks", &["sparse update", "adapter"]),
        ],
    ),
    (
        "outside the survey's five",
        &[
            ("baselines", &["baseline"]),
            ("on top of any method", &["plug-in"]),
            ("another loss of the task", &["objective"]),
            ("adapting without labels", &["test-time adaptation"]),
            ("forgetting on purpose", &["forgetting on purpose"]),
        ],
    ),
];

/// The methods of a direction, in the order of the table.
pub fn methods(families: &'static [&'static str]) -> impl Iterator<Item = &'static MethodCard> {
    ALL.iter().filter(|m| families.contains(&m.family))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_one_place() {
        for method in ALL {
            let directions = APPROACHES.iter().flat_map(|(_, directions)| *directions);
            let places = directions.filter(|(_, families)| families.contains(&method.family));
            assert_eq!(places.count(), 1, "{}: {}", method.name, method.family);
        }
    }
}
