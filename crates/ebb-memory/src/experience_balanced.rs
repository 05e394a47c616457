//! Balanced by experience: every experience has an equal share.
//!
//! **What it does.** After experience `t` the capacity is split equally among experiences `1..=t`
//! (the remainder goes to the first ones). Each keeps the first `share` records of its own keyed
//! random order, so that a shrinking share drops the end of that order and never chooses anew.
//! **Source.** Avalanche's `ExperienceBalancedBuffer(adaptive_size=True)` and the naive rehearsal
//! of Hsu et al. 2018 (arXiv 1810.12488).
//! **Rule.** `share_e = ⌊capacity / t⌋ + [e < capacity mod t]`.
//! **Use it** when boundaries are known; it is what the published rehearsal rows use. **Not** on
//! streams without boundaries, nor with more experiences than capacity: the last ones get nothing.
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
    shares::decide(capacity, kept, offered, groups, |meta| meta.experience)
}
