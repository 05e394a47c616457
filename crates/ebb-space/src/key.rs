//! Keyed randomness.
//!
//! Every draw is a pure function of (seed, purpose, number, id), never of how many draws came
//! before it. Removing an example then leaves the draws of all the others as they were, which
//! exact erasure needs; and a resumed run needs no generator state.

use crate::special::normal_quantile;

/// A 128-bit key: the root of one independent family of draws.
///
/// ```
/// use ebb_space::Key;
/// let order = Key::new(7, "order").at(3); // seed 7, purpose "order", epoch 3
/// assert_eq!(order.draw(42), Key::new(7, "order").at(3).draw(42));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64, u64);

/// Stafford's 13th variant of the 64-bit finaliser of MurmurHash3 (the one of SplitMix64): a
/// bijection in which every input bit flips every output bit with probability close to one half.
#[inline(always)]
pub(crate) const fn mix64(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Key {
    /// The root key of `seed` for `purpose`.
    pub fn new(seed: u64, purpose: &str) -> Key {
        let mut hasher = blake3::Hasher::new_derive_key("ebbinghaus v1 key: seed and purpose");
        hasher.update(&seed.to_le_bytes());
        hasher.update(purpose.as_bytes());
        Key::from_hash(&hasher)
    }

    /// The child key of this key for `purpose`.
    #[must_use]
    #[allow(clippy::should_implement_trait)] // a sub-key; nobody subtracts keys
    pub fn sub(self, purpose: &str) -> Key {
        self.child(b'n', purpose.as_bytes())
    }

    /// The child key of this key with number `n` (an epoch, a step, an experience).
    #[must_use]
    pub fn at(self, n: u64) -> Key {
        self.child(b'#', &n.to_le_bytes())
    }

    /// The strong 64-bit draw of `id` under this key. For one key it is a bijection of `id`, so
    /// different ids never tie.
    #[inline]
    pub fn draw(self, id: u64) -> u64 {
        mix64(mix64(id ^ self.0).wrapping_add(self.1))
    }

    /// A uniform number in [0, 1) with 53 random bits.
    #[inline]
    pub fn uniform(self, id: u64) -> f64 {
        unit(self.draw(id))
    }

    /// A standard normal number: the normal quantile of a 52-bit uniform at the centre of its
    /// cell, so the tails end at ±8.2.
    #[inline]
    pub fn normal(self, id: u64) -> f64 {
        normal(self.draw(id))
    }

    /// A sequential generator, for consumers without ids, such as initialisers.
    pub fn stream(self) -> Stream {
        Stream { key: self, next: 0 }
    }

    /// A uniform random permutation of `0..n` (Fisher–Yates).
    ///
    /// # Panics
    /// If `n` does not fit in `u32`.
    pub fn permutation(self, n: usize) -> Vec<u32> {
        let end = u32::try_from(n).expect("a permutation has at most 2^32 - 1 elements");
        let mut order: Vec<u32> = (0..end).collect();
        let mut stream = self.stream();
        for i in (1..n).rev() {
            order.swap(i, stream.below(i as u64 + 1) as usize);
        }
        order
    }

    /// Sorts `items` by (draw of the id, id): a shuffle in which taking one item away leaves the
    /// order of the others as it was. Items with equal ids keep their order.
    pub fn order<T>(self, items: &mut [T], id: impl Fn(&T) -> u64) {
        // For one key the draw is injective, so the draw alone decides exactly as (draw, id).
        items.sort_by_cached_key(|item| self.draw(id(item)));
    }

    fn child(self, tag: u8, name: &[u8]) -> Key {
        let mut hasher = blake3::Hasher::new_derive_key("ebbinghaus v1 key: child");
        hasher.update(&self.0.to_le_bytes());
        hasher.update(&self.1.to_le_bytes());
        hasher.update(&[tag]);
        hasher.update(name);
        Key::from_hash(&hasher)
    }

    fn from_hash(hasher: &blake3::Hasher) -> Key {
        let hash = hasher.finalize();
        let half = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&hash.as_bytes()[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        Key(half(0), half(8))
    }
}

/// A sequential generator over one [`Key`]: the draws of 0, 1, 2, …
#[derive(Clone, Debug)]
pub struct Stream {
    key: Key,
    next: u64,
}

impl Stream {
    /// 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let bits = self.key.draw(self.next);
        self.next = self.next.wrapping_add(1);
        bits
    }

    /// A uniform number in [0, 1) with 53 random bits.
    #[inline]
    pub fn uniform(&mut self) -> f64 {
        unit(self.next_u64())
    }

    /// A standard normal number.
    #[inline]
    pub fn normal(&mut self) -> f64 {
        normal(self.next_u64())
    }

    /// A uniform integer in `0..n` without bias (Lemire 2019).
    ///
    /// # Panics
    /// If `n` is 0.
    #[inline]
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "below(0) has no value to draw");
        let mut wide = u128::from(self.next_u64()) * u128::from(n);
        if (wide as u64) < n {
            let reject_under = n.wrapping_neg() % n;
            while (wide as u64) < reject_under {
                wide = u128::from(self.next_u64()) * u128::from(n);
            }
        }
        (wide >> 64) as u64
    }
}

#[inline]
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

#[inline]
fn normal(bits: u64) -> f64 {
    // 52 bits, so that adding one half is exact and neither 0 nor 1 can appear.
    normal_quantile(((bits >> 12) as f64 + 0.5) * (1.0 / (1u64 << 52) as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_numbers_and_seeds_are_separate_and_names_never_meet_numbers() {
        let root = Key::new(0, "a");
        let n = 0x6161_6161_6161_6161u64; // the bytes of "aaaaaaaa"
        let keys = [
            root,
            Key::new(1, "a"),
            Key::new(0, "b"),
            root.sub("a"),
            root.sub("aaaaaaaa"),
            root.at(0),
            root.at(1),
            root.at(n),
            root.at(0).at(1),
            root.at(1).at(0),
        ];
        for (i, a) in keys.iter().enumerate() {
            for b in &keys[i + 1..] {
                assert_ne!(a, b);
                assert_ne!(a.draw(5), b.draw(5));
            }
        }
    }

    #[test]
    fn draws_are_frozen() {
        // Recorded states and memories rest on these bits: a change here breaks every old run.
        let key = Key::new(42, "order").at(3).sub("x");
        assert_eq!(key.draw(7), FROZEN_DRAW);
        assert_eq!(key.permutation(8), FROZEN_PERMUTATION);
    }
    const FROZEN_DRAW: u64 = 6_574_525_194_604_542_074;
    const FROZEN_PERMUTATION: [u32; 8] = [7, 0, 2, 4, 6, 5, 3, 1];

    #[test]
    fn one_flipped_input_bit_flips_half_of_the_output() {
        let key = Key::new(1, "avalanche");
        for bit in 0..64 {
            let flipped: u32 = (0..256)
                .map(|id| (key.draw(id) ^ key.draw(id ^ (1 << bit))).count_ones())
                .sum();
            let share = f64::from(flipped) / (256.0 * 64.0);
            assert!((share - 0.5).abs() < 0.02, "bit {bit}: {share}"); // 5 sigma = 0.02
        }
    }

    #[test]
    fn uniform_passes_a_chi_square_and_normal_has_its_four_moments() {
        let key = Key::new(2, "moments");
        let n = 200_000u64;
        let mut cells = [0.0f64; 64];
        let mut moments = [0.0f64; 4];
        for id in 0..n {
            cells[(key.uniform(id) * 64.0) as usize] += 1.0;
            let z = key.sub("z").normal(id);
            for (power, moment) in moments.iter_mut().enumerate() {
                *moment += z.powi(power as i32 + 1) / n as f64;
            }
        }
        let expected = n as f64 / 64.0;
        let chi2: f64 = cells
            .iter()
            .map(|c| (c - expected).powi(2) / expected)
            .sum();
        assert!(
            (20.0..120.0).contains(&chi2),
            "chi-square {chi2} with 63 degrees of freedom"
        );
        // Standard errors: 1, sqrt 2, sqrt 15, sqrt 96 over sqrt n; bounds at five of them.
        for (got, (want, se)) in moments.iter().zip([
            (0.0, 1.0),
            (1.0, 2f64.sqrt()),
            (0.0, 15f64.sqrt()),
            (3.0, 96f64.sqrt()),
        ]) {
            assert!(
                (got - want).abs() < 5.0 * se / (n as f64).sqrt(),
                "{moments:?}"
            );
        }
    }

    #[test]
    fn below_is_uniform_and_permutations_are_too() {
        let mut stream = Key::new(3, "below").stream();
        let mut counts = [0u32; 6];
        for _ in 0..60_000 {
            counts[stream.below(6) as usize] += 1;
        }
        let chi2: f64 = counts
            .iter()
            .map(|&c| (f64::from(c) - 1e4).powi(2) / 1e4)
            .sum();
        assert!(chi2 < 25.7, "{counts:?}"); // p = 1e-4 with 5 degrees of freedom
        let mut seen = std::collections::HashMap::new();
        for n in 0..24_000 {
            *seen
                .entry(Key::new(4, "perm").at(n).permutation(4))
                .or_insert(0u32) += 1;
        }
        assert_eq!(seen.len(), 24);
        let chi2: f64 = seen
            .values()
            .map(|&c| (f64::from(c) - 1e3).powi(2) / 1e3)
            .sum();
        assert!(chi2 < 55.0, "{chi2}"); // p = 2e-4 with 23 degrees of freedom
    }

    #[test]
    fn a_removed_item_leaves_the_order_of_the_others() {
        let key = Key::new(5, "order");
        let mut all: Vec<u64> = (0..500).collect();
        key.order(&mut all, |x| *x);
        let mut less: Vec<u64> = (0..500).rev().filter(|x| *x != 77).collect();
        key.order(&mut less, |x| *x);
        all.retain(|x| *x != 77);
        assert_eq!(all, less);
    }
}
