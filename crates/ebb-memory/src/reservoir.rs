//! Reservoir: a uniform sample of everything seen so far.
//!
//! **What it does.** After `n` distinct records each subset of `capacity` of them is equally
//! likely to be the memory, with no knowledge of tasks. Filled at every step.
//! **Source.** Algorithm R, Vitter 1985, as in experience replay and DER; here in its keyed form
//! (bottom-k sampling): equal in law, and removing a record from the stream changes nothing else.
//! **Rule.** `p(x) = key.draw(id)`; the memory holds the `capacity` smallest `p`.
//! **Use it** on streams without boundaries. **Not** where rare classes must be present: its mix
//! is that of the stream.
//! **Stores** one priority a record. **Costs** one comparison a candidate, and two scans of the
//! records in a step that admits any.
//!
//! A record that comes again (a second epoch) is the same record: it stays as first written.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::policy::{Decision, Group};
use crate::slab::{Entry, Slab};

pub(crate) fn decide(
    capacity: usize,
    kept: &Slab,
    offered: &[Entry],
    groups: &mut Vec<Group>,
) -> Decision {
    if groups.is_empty() {
        groups.push(Group::new(0));
    }
    let group = &mut groups[0];
    let mut candidates: Vec<u32> = (0..offered.len() as u32)
        .filter(|&i| group.admits(offered[i as usize].priority))
        .collect();
    let mut decision = Decision::default();
    if candidates.is_empty() {
        return decision;
    }
    let slots = kept.slots_of(offered);
    candidates.retain(|&i| slots[i as usize].is_none());
    candidates
        .sort_unstable_by_key(|&i| (offered[i as usize].priority, offered[i as usize].meta.id));
    candidates.dedup_by_key(|i| offered[*i as usize].meta.id);

    // The best candidates fill the room; the others meet the worst records kept, best against
    // worst, until one is no better.
    let contested = candidates.split_off(candidates.len().min(capacity - kept.len));
    decision.admit = candidates;
    let worst = largest(kept.priorities(), contested.len());
    for (rank, i) in contested.into_iter().enumerate() {
        let priority = offered[i as usize].priority;
        match worst.get(rank) {
            Some(&(evicted, slot)) if priority < evicted => {
                group.turn_away(evicted);
                decision.evict.push(slot);
                decision.admit.push(i);
            }
            _ => {
                group.turn_away(priority);
                break;
            }
        }
    }
    decision
}

/// The `count` largest priorities with their slots, largest first.
fn largest(priorities: &[u64], count: usize) -> Vec<(u64, u32)> {
    if count == 0 {
        return Vec::new();
    }
    let mut heap = BinaryHeap::with_capacity(count + 1);
    let mut bar = 0;
    for (&priority, slot) in priorities.iter().zip(0u32..) {
        if heap.len() < count || priority > bar {
            heap.push(Reverse((priority, slot)));
            if heap.len() > count {
                heap.pop();
            }
            bar = heap.peek().map_or(0, |&Reverse((priority, _))| priority);
        }
    }
    heap.into_sorted_vec()
        .into_iter()
        .map(|Reverse(ranked)| ranked)
        .collect()
}
