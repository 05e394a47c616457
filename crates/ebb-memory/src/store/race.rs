//! Draws that visit few records, and still give each record a number of its own.
//!
//! **What it does.** Every record has a keyed number, uniform on [0, 1), that depends on (name,
//! step, example id) and on nothing else; a draw takes the smallest. Were the numbers unrelated,
//! finding the smallest would mean computing all. So each is made of two: that of the record's cell,
//! `c`, which it shares with the few records whose digests begin with the same 16 bits, and one of
//! its own, `r`:
//!
//! `u = max(c, r)²`, and `P(u < ε) = P(c < √ε) · P(r < √ε) = ε`.
//!
//! Records below `ε` lie in the share `√ε` of the cells, and only those are opened.
//!
//! **Weights.** Exponential races (Efraimidis & Spirakis 2006): record `i` arrives at
//! `t = −ln(1 − u) / w`, and the first arrivals are successive draws without replacement. Since
//! `t ≥ u / w`, a cell none of whose weights exceeds `w` is passed over while `c² > θ w`.
//!
//! **What is exact and what is not.** Each record's number is exactly uniform, so the chance that it
//! arrives before a given time is exact. Numbers of records in one cell depend on each other through
//! `c`: of `n` records drawn uniformly, the chance that one is among the first `k` is off by a share of
//! about `(s − n / 65,536) / √(n k)` for one in a cell of `s`. Cells differ by `√(n / 65,536)`, so that
//! comes to `1 / (256 √k)`, one standard deviation: 0.4 % for a draw of one, 0.03 % for 128, at any `n`.
//!
//! **Costs.** 65,536 cell numbers and about `√(n k)` record numbers, some half a nanosecond each.
//! A tree of sums draws in `O(log n)`, but there taking one record out re-deals the choices of the
//! others; here it cannot, and with `n` at ten million the two take about the same time.

use ebb_space::Key;

use super::index::{Cell, Index};
use crate::draw::draws;

/// The numbers of a draw.
#[derive(Clone, Copy)]
pub(crate) struct Race {
    cell: Key,
    own: Key,
}

/// A record that was drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Arrival {
    pub time: f64,
    pub digest: u64,
    pub slot: u32,
    pub weight: f64,
    /// Its own number, apart from its cell's.
    own: u64,
}

const BLOCK: usize = 256;

impl Race {
    /// The numbers under the key of a name and a step.
    pub fn new(key: Key) -> Race {
        Race {
            cell: key.sub("cell"),
            own: key.sub("own"),
        }
    }

    /// The number of a record: the definition, which `first` must agree with.
    #[cfg(test)]
    pub fn number(&self, digest: u64) -> f64 {
        let cell = self.cell.uniform(super::index::cell_of(digest) as u64);
        cell.max(self.own.uniform(digest)).powi(2)
    }

    /// The `size` first arrivals (fewer if fewer have a weight), in their order. `bound(i)` is at
    /// least every weight in cell `i` and at most `top`, `weight(score)` that of a record; `positive` records have a
    /// weight above 0, and `total` is about the sum of weights.
    pub fn first(
        &self,
        index: &Index,
        top: f64,
        bound: impl Fn(usize) -> f64,
        weight: impl Fn(f32) -> f64,
        (positive, total): (usize, f64),
        size: usize,
    ) -> Vec<Arrival> {
        let size = size.min(positive);
        if size == 0 {
            return Vec::new();
        }
        // How many arrive by then is at most `horizon · total` on average.
        let wanted = size as f64 + 4.0 * (size as f64).sqrt() + 4.0;
        let mut horizon = wanted / total;
        loop {
            let mut found = self.by(index, top, &bound, &weight, horizon);
            if found.len() >= size {
                found.sort_unstable_by(|a, b| a.order(b));
                found.truncate(size);
                return found;
            }
            // Heavy records arrive long before the horizon and leave room for others.
            horizon *= (1.5 * wanted / (found.len() as f64 + 1.0)).clamp(2.0, 64.0);
        }
    }

    /// All that arrive up to `horizon`.
    fn by(
        &self,
        index: &Index,
        top: f64,
        bound: &impl Fn(usize) -> f64,
        weight: &impl Fn(f32) -> f64,
        horizon: f64,
    ) -> Vec<Arrival> {
        let mut open = Vec::new();
        let mut numbers = [0; 64];
        let limit = ceiling((horizon * top).sqrt());
        for (word, &occupied) in index.occupied.iter().enumerate() {
            let first = word * 64;
            let mut low = 0;
            if occupied.count_ones() > 16 {
                let ids: [u64; 64] = std::array::from_fn(|i| (first + i) as u64);
                draws(self.cell, &ids, &mut numbers);
                for (bit, &number) in numbers.iter().enumerate() {
                    low |= u64::from(number <= limit) << bit;
                }
            } else {
                for bit in bits(occupied) {
                    numbers[bit] = self.cell.draw((first + bit) as u64);
                    low |= u64::from(numbers[bit] <= limit) << bit;
                }
            }
            for bit in bits(occupied & low) {
                // `t ≤ horizon` needs `u ≤ horizon · w`.
                let (root, bound) = (unit(numbers[bit]), bound(first + bit));
                if bound > 0.0 && root * root <= horizon * bound {
                    open.push((first + bit, root, bound));
                }
            }
        }
        // Cells lie far apart: a loop that does nothing but touch them waits for many at once.
        let touched = open.iter().map(|&(i, ..)| index.cells[i].digests.first());
        std::hint::black_box(touched.flatten().fold(0, |all, digest| all ^ digest));
        let mut found = Vec::new();
        for (i, root, bound) in open {
            self.within(&index.cells[i], root, horizon, bound, weight, &mut found);
        }
        found
    }

    /// Those of one cell, whose number is `root`.
    fn within(
        &self,
        cell: &Cell,
        root: f64,
        horizon: f64,
        bound: f64,
        weight: &impl Fn(f32) -> f64,
        found: &mut Vec<Arrival>,
    ) {
        let limit = ceiling((horizon * bound).sqrt());
        let mut numbers = [0; BLOCK];
        for (block, digests) in cell.digests.chunks(BLOCK).enumerate() {
            let numbers = &mut numbers[..digests.len()];
            draws(self.own, digests, numbers);
            for (j, &own) in numbers.iter().enumerate().filter(|n| *n.1 <= limit) {
                let at = block * BLOCK + j;
                let weight = weight(cell.scores[at]);
                let u = root.max(unit(own)).powi(2);
                let time = -(-u).ln_1p() / weight;
                if weight > 0.0 && time <= horizon {
                    found.push(Arrival {
                        time,
                        digest: digests[j],
                        slot: cell.slots[at],
                        weight,
                        own,
                    });
                }
            }
        }
    }
}

/// Places of the bits that are set.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = word.trailing_zeros() as usize;
        word &= word.wrapping_sub(1);
        (place < 64).then_some(place)
    })
}

impl Arrival {
    /// By time. Records of one cell arrive together when the cell's number is the larger, and then
    /// their own numbers decide.
    pub fn order(&self, other: &Arrival) -> std::cmp::Ordering {
        self.time
            .total_cmp(&other.time)
            .then((self.own, self.digest, self.slot).cmp(&(other.own, other.digest, other.slot)))
    }
}

/// The number in [0, 1) that `Key::uniform` makes of these bits.
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Bits whose number is at least `share`; `as` saturates.
fn ceiling(share: f64) -> u64 {
    ((share * 2f64.powi(64)) as u64).saturating_add(1 << 12)
}
