//! Named draws: which records are rehearsed at a step, and how likely each was.
//!
//! Every record has a keyed number for (name, step); a draw takes the smallest. Two draws of
//! different names are independent; the same name and step give the same records again; and taking
//! one record out of the memory changes no other record's number.

use std::ops::Range;

use ebb_space::Key;

use crate::record::Meta;
use crate::slab::Slab;
use crate::{Error, Result};

/// How a draw chooses.
#[derive(Clone, Copy)]
pub enum Select<'a> {
    /// All records alike, without replacement.
    Uniform,
    /// With these weights, one a slot, without replacement: each next record comes with probability
    /// proportional to its weight among those left. Weight 0 is never drawn.
    Weighted(&'a [f64]),
    /// The same with weights computed from what is known of a record.
    WeightedBy(&'a dyn Fn(&Meta) -> f64),
    /// Pass after pass over the whole memory, each pass in a new keyed order, as a shuffling data
    /// loader that starts again when it is exhausted. Step `since` begins the first pass, and step
    /// `s` draws the places `(s − since)·size ..` of the passes put end to end; nothing is stored.
    /// Meant for a memory that does not change between `since` and the step.
    Cycle {
        /// The step of the first batch, as a rule the first step of the experience.
        since: u64,
    },
}

/// A draw's result, in the keyed order (not in the order of slots).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draw {
    /// Slots drawn; valid until the memory changes.
    pub slots: Vec<u32>,
    /// For each, the probability that one single draw picks it: `1 / len`, or `w / Σw`. (The chance
    /// to be among `size` drawn is `min(1, size / len)` for a uniform draw; for a weighted one it
    /// lies below `size · w / Σw`, and close to it where that is small.)
    pub probabilities: Vec<f64>,
}

/// Draws `size` records; all of them if there are no more (a cycle goes on into its next pass
/// instead, so it repeats records then).
pub(crate) fn draw(
    key: Key,
    slab: &Slab,
    name: &str,
    select: Select<'_>,
    size: usize,
    step: u64,
) -> Result<Draw> {
    if slab.len == 0 || size == 0 {
        return Ok(Draw::default());
    }
    let key = key.sub(name);
    match select {
        Select::Uniform => Ok(equally_likely(
            slab.len,
            places(key.at(step), slab, 0..size.min(slab.len)),
        )),
        Select::Weighted(weights) => {
            crate::record::length("weights of a draw", weights.len(), slab.len)?;
            weighted(key.at(step), slab, name, |slot| weights[slot], size)
        }
        Select::WeightedBy(weight) => weighted(
            key.at(step),
            slab,
            name,
            |slot| weight(&slab.metas[slot]),
            size,
        ),
        Select::Cycle { since } => {
            let Some(steps) = step.checked_sub(since) else {
                return Err(Error::CycleInFuture {
                    draw: name.to_owned(),
                    since,
                    step,
                });
            };
            Ok(cycle(
                key.at(since),
                slab,
                u128::from(steps) * size as u128,
                size,
            ))
        }
    }
}

fn equally_likely(len: usize, slots: Vec<u32>) -> Draw {
    let probabilities = vec![1.0 / len as f64; slots.len()];
    Draw {
        slots,
        probabilities,
    }
}

fn cycle(key: Key, slab: &Slab, start: u128, size: usize) -> Draw {
    let mut slots = Vec::with_capacity(size);
    let (mut pass, mut from) = (
        (start / slab.len as u128) as u64,
        (start % slab.len as u128) as usize,
    );
    while slots.len() < size {
        let to = slab.len.min(from + size - slots.len());
        slots.extend(places(key.at(pass), slab, from..to));
        (pass, from) = (pass.wrapping_add(1), 0);
    }
    equally_likely(slab.len, slots)
}

/// The slots at places `range` of the keyed order.
///
/// The numbers are uniform, so the record at place `r` has a number near `r / len`: one pass picks
/// out a narrow window that almost surely holds the range, and only the window is sorted.
fn places(key: Key, slab: &Slab, range: Range<usize>) -> Vec<u32> {
    let window = Window::around(&range, slab.len);
    places_from(window, key, slab, range)
}

/// The same with a first guess at the window; a guess that misses costs a full sort.
fn places_from(window: Window, key: Key, slab: &Slab, range: Range<usize>) -> Vec<u32> {
    let mut found = window.collect(key, slab.mixes());
    if found.before > range.start || found.before + found.inside.len() < range.end {
        found = Window::ALL.collect(key, slab.mixes());
    }
    let order = |&(number, slot): &(u64, u32)| (number, slab.metas[slot as usize].id);
    found.inside.sort_unstable_by_key(order);
    let inside = &found.inside[range.start - found.before..range.end - found.before];
    inside.iter().map(|&(_, slot)| slot).collect()
}

/// Numbers from `low` to `high`, both included.
struct Window {
    low: u64,
    high: u64,
}

struct Found {
    before: usize,
    inside: Vec<(u64, u32)>,
}

impl Window {
    const ALL: Window = Window {
        low: 0,
        high: u64::MAX,
    };

    /// Wide enough to hold `range` with five standard deviations to spare on each side.
    fn around(range: &Range<usize>, len: usize) -> Window {
        let n = len as f64;
        let spare = |place: usize| {
            let p = place as f64 / n;
            5.0 * (n * p * (1.0 - p) + 1.0).sqrt() + 5.0
        };
        // `as u64` saturates, at 0 and at `u64::MAX`.
        let number = |place: f64| (place / n * 2f64.powi(64)) as u64;
        Window {
            low: number(range.start as f64 - spare(range.start)),
            high: number(range.end as f64 + spare(range.end)),
        }
    }

    fn collect(&self, key: Key, mixes: &[u64]) -> Found {
        let mut found = Found {
            before: 0,
            inside: Vec::new(),
        };
        let mut numbers = [0; BLOCK];
        let width = self.high - self.low;
        for (mixes, start) in mixes.chunks(BLOCK).zip((0u32..).step_by(BLOCK)) {
            let numbers = &mut numbers[..mixes.len()];
            draws(key, mixes, numbers);
            if self.low > 0 {
                found.before += numbers.iter().filter(|&&number| number < self.low).count();
            }
            for (&number, slot) in numbers.iter().zip(start..) {
                if number.wrapping_sub(self.low) <= width {
                    found.inside.push((number, slot));
                }
            }
        }
        found
    }
}

const BLOCK: usize = 256;

/// `key.draw` of each digest.
#[inline(always)]
fn draws_plain(key: Key, mixes: &[u64], numbers: &mut [u64]) {
    for (number, &mix) in numbers.iter_mut().zip(mixes) {
        *number = key.draw(mix);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
fn draws_wide(key: Key, mixes: &[u64], numbers: &mut [u64]) {
    draws_plain(key, mixes, numbers);
}

/// `key.draw` of each digest, with 64-bit vector multiplication where the processor has it: the
/// same integers, about four times as fast.
pub(crate) fn draws(key: Key, mixes: &[u64], numbers: &mut [u64]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
        // SAFETY: the processor has the features that the function asks for.
        return unsafe { draws_wide(key, mixes, numbers) };
    }
    draws_plain(key, mixes, numbers);
}

/// Exponential races (Efraimidis & Spirakis 2006): record `i` arrives at `−ln(1 − u_i) / w_i`, and
/// the first `size` arrivals are successive draws without replacement.
fn weighted(
    key: Key,
    slab: &Slab,
    name: &str,
    weight: impl Fn(usize) -> f64,
    size: usize,
) -> Result<Draw> {
    let mut total = 0.0;
    let mut racers: Vec<(f64, u32)> = Vec::with_capacity(slab.len);
    let mut weights = Vec::with_capacity(slab.len);
    let refuse = |slot: usize, value: f64| Error::Weight {
        draw: name.to_owned(),
        id: slab.metas[slot].id,
        value,
    };
    for (slot, &mix) in slab.mixes().iter().enumerate() {
        let w = weight(slot);
        if !(w.is_finite() && w >= 0.0) {
            return Err(refuse(slot, w));
        }
        total += w;
        weights.push(w);
        if w > 0.0 {
            racers.push((-(1.0 - key.uniform(mix)).ln() / w, slot as u32));
        }
    }
    if !total.is_finite() {
        return Err(refuse(slab.len - 1, total));
    }
    let arrival = |a: &(f64, u32), b: &(f64, u32)| {
        a.0.total_cmp(&b.0).then_with(|| {
            slab.metas[a.1 as usize]
                .id
                .cmp(&slab.metas[b.1 as usize].id)
        })
    };
    if size < racers.len() {
        racers.select_nth_unstable_by(size, arrival);
        racers.truncate(size);
    }
    racers.sort_unstable_by(arrival);
    let slots: Vec<u32> = racers.iter().map(|&(_, slot)| slot).collect();
    let probabilities = slots
        .iter()
        .map(|&slot| weights[slot as usize] / total)
        .collect();
    Ok(Draw {
        slots,
        probabilities,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Form, Payload, Records, Values};
    use crate::slab::Entry;
    use ebb_space::ExampleId;

    fn slab(len: usize) -> Slab {
        let form = Form {
            input: 1,
            payload: Payload::U8,
            logits: None,
            features: None,
        };
        let mut slab = Slab::new(len, form).unwrap();
        for n in 0..len {
            let id = ExampleId::of(&n.to_le_bytes(), 0);
            let entry = Entry {
                meta: Meta { id, ..Meta::BLANK },
                mix: id.mix(),
                priority: 0,
            };
            slab.push(&entry, &Records::of(Values::U8(&[0])), 0);
        }
        slab
    }

    #[test]
    fn any_window_finds_the_same_places_as_a_full_sort() {
        for len in [1, 2, 63, 64, 65, 300] {
            let slab = slab(len);
            let key = Key::new(len as u64, "places");
            let mut all: Vec<u32> = (0..len as u32).collect();
            all.sort_by_key(|&slot| key.draw(slab.mixes[slot as usize]));
            for start in (0..=len).step_by(1 + len / 20) {
                for end in (start..=len).step_by(1 + len / 20) {
                    assert_eq!(
                        places(key, &slab, start..end),
                        all[start..end],
                        "{start}..{end} of {len}"
                    );
                    for (low, high) in [
                        (0, 0),
                        (u64::MAX, u64::MAX),
                        (1 << 62, 3 << 62),
                        (0, u64::MAX),
                    ] {
                        let window = Window { low, high };
                        assert_eq!(places_from(window, key, &slab, start..end), all[start..end]);
                    }
                }
            }
        }
    }
}
