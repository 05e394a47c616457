//! Equal shares for groups of records, the smallest priorities first.

use crate::policy::{Decision, Group};
use crate::record::Meta;
use crate::slab::{Entry, Slab};

/// Share number `index` of `capacity` split among `groups`: equal, the remainder to the first.
pub(crate) fn equal_share(capacity: usize, groups: usize, index: usize) -> usize {
    capacity / groups + usize::from(index < capacity % groups)
}

/// Gives each group, old or new, its equal share. Since a group keeps a prefix of its own keyed
/// order, a share that shrinks evicts the end of that prefix and nothing else.
pub(crate) fn decide(
    capacity: usize,
    kept: &Slab,
    offered: &[Entry],
    groups: &mut Vec<Group>,
    name: impl Fn(&Meta) -> u32,
) -> Decision {
    // New groups of one experience come in the order of their names, not of the records.
    let mut new: Vec<u32> = offered
        .iter()
        .map(|entry| name(&entry.meta))
        .filter(|name| groups.iter().all(|group| group.name != *name))
        .collect();
    new.sort_unstable();
    new.dedup();
    groups.extend(new.into_iter().map(Group::new));

    let slots = kept.slots_of(offered);
    let count = groups.len();
    let mut decision = Decision::default();
    for (index, group) in groups.iter_mut().enumerate() {
        let share = equal_share(capacity, count, index);
        let old = (0..kept.len).filter(|&slot| name(&kept.metas[slot]) == group.name);
        let old = old.map(|slot| Member {
            priority: kept.priorities[slot],
            id: kept.metas[slot].id,
            seat: Seat::Kept(slot as u32),
        });
        let fresh = offered
            .iter()
            .zip(0..)
            .filter(|(entry, _)| name(&entry.meta) == group.name && group.admits(entry.priority));
        let fresh = fresh.map(|(entry, i)| Member {
            priority: entry.priority,
            id: entry.meta.id,
            seat: Seat::Offered(i),
        });
        let mut members: Vec<Member> = old.chain(fresh).collect();
        members.sort_unstable_by_key(|m| (m.priority, m.id, m.seat));
        // A record offered again, or twice, is one record: its seat in the memory comes first.
        members.dedup_by_key(|m| m.id);

        let mut seats = 0;
        for member in members {
            match member.seat {
                Seat::Offered(i) if seats < share => {
                    // Kept already as a member of another group: it stays there.
                    if slots[i as usize].is_none() {
                        decision.admit.push(i);
                        seats += 1;
                    }
                }
                Seat::Kept(_) if seats < share => seats += 1,
                Seat::Kept(slot) => {
                    decision.evict.push(slot);
                    group.turn_away(member.priority);
                }
                Seat::Offered(_) => group.turn_away(member.priority),
            }
        }
    }
    decision
}

struct Member {
    priority: u64,
    id: ebb_space::ExampleId,
    seat: Seat,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Seat {
    Kept(u32),
    Offered(u32),
}
