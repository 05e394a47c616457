//! Balanced by class: every class seen has an equal share.
//!
//! **What it does.** After each experience the capacity is split equally among the classes seen so
//! far (the remainder goes to the first ones), and each class keeps the records of smallest
//! priority among those it has and those offered: a uniform sample of its records.
//! **Source.** The class-balanced buffers of class-incremental learning (iCaRL's quotas with a
//! random choice in the place of herding; Avalanche's `ClassBalancedBuffer`).
//! **Rule.** `share_c = ⌊capacity / classes⌋ + [c < capacity mod classes]`.
//! **Use it** in class- and task-incremental streams. **Not** when classes are unknown, or when a
//! class spans experiences whose inputs differ: then balance by experience.
//! **Stores** one priority a record. **Costs** a sort of the offered records an experience.

use crate::policy::{Decision, Group};
use crate::shares;
use crate::slab::{Entry, Slab};

pub(crate) fn decide(
    capacity: usize,
    kept: &Slab,
    offered: &[Entry],
    groups: &mut Vec<Group>,
) -> Decision {
    shares::decide(capacity, kept, offered, groups, |meta| meta.label)
}
