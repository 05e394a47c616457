//! Who stays: the policies by name, and what they share.
//!
//! Every kept record has a *priority*, the keyed draw of its id. All policies but the ring keep,
//! in each of their groups, the records of smallest priority. A group also remembers its *bar*:
//! the smallest priority it ever turned away. A record at or above the bar is never admitted, so
//! after a deletion the group is still exactly the smallest of all that were offered and not
//! deleted, and a vacancy waits for a record that would have been kept without the deleted one.

use serde::{Deserialize, Serialize};

use crate::slab::{Entry, Slab};
use crate::{Result, class_balanced, experience_balanced, reservoir, ring};

/// Which records a memory keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Keep {
    /// A uniform sample of all records seen, filled at every step.
    Reservoir,
    /// Equal shares for the classes seen, filled after each experience.
    ClassBalanced,
    /// Equal shares for the experiences seen, filled after each experience.
    ExperienceBalanced,
    /// The last `per_task` records of each experience, filled at every step (GEM).
    Ring {
        /// Records kept of each experience.
        per_task: usize,
    },
    /// Those its user names, by [`Memory::plan_chosen`](crate::Memory::plan_chosen): what a
    /// method selects by gradients or features.
    Chosen,
}

/// When a policy takes offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// With every training batch.
    Step,
    /// Once, at the end of an experience, with all of its records.
    Experience,
    /// When its user says so.
    Chosen,
}

impl Keep {
    /// When this policy takes offers. The two fillings are different algorithms.
    pub fn fill(self) -> Fill {
        match self {
            Keep::Reservoir | Keep::Ring { .. } => Fill::Step,
            Keep::ClassBalanced | Keep::ExperienceBalanced => Fill::Experience,
            Keep::Chosen => Fill::Chosen,
        }
    }
}

/// A group of records that share some capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    /// The class or the experience; 0 where there is one group only.
    pub name: u32,
    /// The smallest priority ever turned away; `None` while everything was kept.
    pub bar: Option<u64>,
}

impl Group {
    pub fn new(name: u32) -> Group {
        Group { name, bar: None }
    }

    pub fn admits(&self, priority: u64) -> bool {
        self.bar.is_none_or(|bar| priority < bar)
    }

    pub fn turn_away(&mut self, priority: u64) {
        self.bar = Some(self.bar.map_or(priority, |bar| bar.min(priority)));
    }
}

/// What a policy decided.
#[derive(Default)]
pub(crate) struct Decision {
    /// Slots whose records leave.
    pub evict: Vec<u32>,
    /// Indices of the offered records that enter.
    pub admit: Vec<u32>,
}

/// Asks the policy. `groups` is its state, changed as if the decision were carried out.
pub(crate) fn decide(
    keep: Keep,
    capacity: usize,
    kept: &Slab,
    offered: &[Entry],
    groups: &mut Vec<Group>,
) -> Result<Decision> {
    Ok(match keep {
        Keep::Reservoir => reservoir::decide(capacity, kept, offered, groups),
        Keep::ClassBalanced => class_balanced::decide(capacity, kept, offered, groups),
        Keep::ExperienceBalanced => experience_balanced::decide(capacity, kept, offered, groups),
        Keep::Ring { per_task } => return ring::decide(per_task, capacity, kept, offered),
        Keep::Chosen => Decision::default(),
    })
}
