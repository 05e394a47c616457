//! Experiences made of the items of several origins.

use super::Item;
use super::origin::Origins;

/// An experience in the making.
pub(super) struct Mixed {
    pub name: String,
    pub train: Vec<Item>,
    /// How many of the items are of each origin.
    pub origins: Vec<usize>,
    /// The origin that it is measured on; none means all of them.
    pub test: Option<usize>,
}

impl Mixed {
    /// All origins as one experience.
    pub fn joint(origins: &Origins) -> Mixed {
        Mixed {
            name: "joint".into(),
            train: origins
                .sets
                .iter()
                .flat_map(|set| set.train.iter().copied())
                .collect(),
            origins: origins.sets.iter().map(|set| set.train.len()).collect(),
            test: None,
        }
    }
}
