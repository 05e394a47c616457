//! Ring: the last records of each experience.
//!
//! **What it does.** Keeps the last `per_task` distinct records seen of every experience; a record
//! that comes again counts as newly seen and is written anew. Filled at every step.
//! **Source.** GEM, Lopez-Paz & Ranzato 2017 (card S087).
//! **Rule.** `memory_e = last per_task of the records of experience e`.
//! **Use it** with GEM and A-GEM as published. **Not** as a sample of the experience: it holds only
//! its end.
//! **Stores** nothing besides the records. **Costs** a scan of the records a step.

use crate::policy::Decision;
use crate::slab::{Entry, Slab};
use crate::{Error, Result};

pub(crate) fn decide(
    per_task: usize,
    capacity: usize,
    kept: &Slab,
    offered: &[Entry],
) -> Result<Decision> {
    let mut decision = Decision::default();
    let Some(experience) = offered.first().map(|entry| entry.meta.experience) else {
        return Ok(decision);
    };

    // The last `per_task` distinct ones of the batch itself.
    for i in (0..offered.len() as u32).rev() {
        if decision.admit.len() == per_task {
            break;
        }
        let id = offered[i as usize].meta.id;
        if decision
            .admit
            .iter()
            .all(|&j| offered[j as usize].meta.id != id)
        {
            decision.admit.push(i);
        }
    }
    // What comes again leaves its old slot; then the oldest leave, until the rest fits.
    let slots = kept.slots_of(offered);
    let again: Vec<u32> = decision
        .admit
        .iter()
        .filter_map(|&i| slots[i as usize])
        .collect();
    let mut stay: Vec<u32> = (0..kept.len as u32)
        .filter(|&slot| {
            kept.metas[slot as usize].experience == experience && !again.contains(&slot)
        })
        .collect();
    stay.sort_unstable_by_key(|&slot| kept.metas[slot as usize].arrival);
    let excess = (stay.len() + decision.admit.len()).saturating_sub(per_task);
    let leaving = again.len() + excess;

    let after = kept.len - leaving + decision.admit.len();
    if after > capacity {
        let wanted = stay.len() - excess + decision.admit.len();
        return Err(Error::RingFull {
            experience,
            kept: after - wanted,
            wanted,
            capacity,
        });
    }
    decision.evict = again;
    decision.evict.extend_from_slice(&stay[..excess]);
    Ok(decision)
}
