//! A set of weights, and what may be done with it without arithmetic.

use std::ops::Range;
use std::sync::Arc;

use crate::weights::same_layout;
use crate::{Layout, Weights};

/// A set of elements of one [`Layout`]: tensor by tensor everything, nothing, or a bit each.
#[derive(Clone, Debug)]
pub struct Mask {
    layout: Arc<Layout>,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    None,
    All,
    /// Bit `i % 64` of word `i / 64` is element `i` of the tensor; unused bits are 0.
    Bits(Vec<u64>),
}

impl Mask {
    /// Every element.
    pub fn all(layout: &Arc<Layout>) -> Mask {
        Mask {
            layout: layout.clone(),
            parts: vec![Part::All; layout.entries().len()],
        }
    }

    /// No element.
    pub fn none(layout: &Arc<Layout>) -> Mask {
        Mask {
            layout: layout.clone(),
            parts: vec![Part::None; layout.entries().len()],
        }
    }

    /// The elements for which `chosen` holds. It is asked once for each index into the contiguous
    /// vector, in order.
    pub fn from_fn(layout: &Arc<Layout>, mut chosen: impl FnMut(usize) -> bool) -> Mask {
        let parts = layout.entries().iter().map(|entry| {
            let mut words = vec![0u64; entry.range.len().div_ceil(64)];
            for (bit, index) in entry.range.clone().enumerate() {
                words[bit / 64] |= u64::from(chosen(index)) << (bit % 64);
            }
            Part::of(words, entry.range.len())
        });
        Mask {
            layout: layout.clone(),
            parts: parts.collect(),
        }
    }

    /// Whole tensors, by their path.
    pub fn from_paths(layout: &Arc<Layout>, chosen: impl Fn(&str) -> bool) -> Mask {
        let part = |path: &str| if chosen(path) { Part::All } else { Part::None };
        let parts = layout.entries().iter().map(|entry| part(&entry.path));
        Mask {
            layout: layout.clone(),
            parts: parts.collect(),
        }
    }

    /// Whole tensors whose path matches one of `patterns`, where `*` stands for any characters
    /// and `?` for one. A pattern that matches nothing is returned, since it is a likely
    /// misspelling: refuse it where it came from.
    pub fn from_globs<'p>(layout: &Arc<Layout>, patterns: &[&'p str]) -> (Mask, Vec<&'p str>) {
        let mask = Mask::from_paths(layout, |path| patterns.iter().any(|p| glob(p, path)));
        let idle = |p: &&&str| !layout.entries().iter().any(|entry| glob(p, &entry.path));
        (mask, patterns.iter().filter(idle).copied().collect())
    }

    /// The layout.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Whether the element at `index` of the contiguous vector is in the set.
    ///
    /// # Panics
    /// If `index` lies outside the layout.
    pub fn contains(&self, index: usize) -> bool {
        assert!(
            index < self.layout.len(),
            "index {index} lies outside the layout"
        );
        let at = self
            .layout
            .entries()
            .partition_point(|entry| entry.range.end <= index);
        let bit = index - self.layout.entries()[at].range.start;
        match &self.parts[at] {
            Part::None => false,
            Part::All => true,
            Part::Bits(words) => words[bit / 64] >> (bit % 64) & 1 == 1,
        }
    }

    /// Number of elements in the set.
    pub fn count(&self) -> usize {
        let ones = |words: &[u64]| words.iter().map(|w| w.count_ones() as usize).sum();
        let each = self.parts.iter().zip(self.layout.entries());
        each.map(|(part, entry)| match part {
            Part::None => 0,
            Part::All => entry.range.len(),
            Part::Bits(words) => ones(words),
        })
        .sum()
    }

    /// Share of the elements in the set; 0 for an empty layout.
    pub fn fraction(&self) -> f64 {
        self.count() as f64 / self.layout.len().max(1) as f64
    }

    /// The other elements.
    #[must_use]
    pub fn complement(&self) -> Mask {
        let parts = self
            .parts
            .iter()
            .zip(self.layout.entries())
            .map(|(part, entry)| match part {
                Part::None => Part::All,
                Part::All => Part::None,
                Part::Bits(words) => {
                    let mut words: Vec<u64> = words.iter().map(|w| !w).collect();
                    trim(&mut words, entry.range.len());
                    Part::of(words, entry.range.len())
                }
            });
        Mask {
            layout: self.layout.clone(),
            parts: parts.collect(),
        }
    }

    /// The elements in both sets.
    #[must_use]
    pub fn and(&self, other: &Mask) -> Mask {
        same_layout(&self.layout, &other.layout);
        let both = self
            .parts
            .iter()
            .zip(&other.parts)
            .zip(self.layout.entries());
        let parts = both.map(|((a, b), entry)| match (a, b) {
            (Part::None, _) | (_, Part::None) => Part::None,
            (Part::All, part) | (part, Part::All) => part.clone(),
            (Part::Bits(a), Part::Bits(b)) => Part::of(
                a.iter().zip(b).map(|(a, b)| a & b).collect(),
                entry.range.len(),
            ),
        });
        Mask {
            layout: self.layout.clone(),
            parts: parts.collect(),
        }
    }

    /// The elements in either set.
    #[must_use]
    pub fn or(&self, other: &Mask) -> Mask {
        self.complement().and(&other.complement()).complement()
    }

    /// Gives `params` the value of `anchor` at every element of the set. Bits are copied, never
    /// computed with: NaN payloads and the sign of zero arrive as they were, and what is frozen
    /// stays bit-equal.
    ///
    /// # Panics
    /// If the layouts differ.
    pub fn restore(&self, params: &mut Weights, anchor: &Weights) {
        same_layout(&self.layout, params.layout());
        same_layout(&self.layout, anchor.layout());
        let anchor: &[u32] = bytemuck::cast_slice(anchor.as_slice());
        self.select(params, |at| anchor[at].iter());
    }

    /// Sets `gradient` to +0 at every element of the set.
    ///
    /// # Panics
    /// If the layouts differ.
    pub fn zero_gradient(&self, gradient: &mut Weights) {
        same_layout(&self.layout, gradient.layout());
        self.select(gradient, |_| std::iter::repeat(&0u32));
    }

    /// Replaces the bits of the chosen elements by those that `source` gives for a range.
    fn select<'a, I: Iterator<Item = &'a u32>>(
        &self,
        weights: &mut Weights,
        source: impl Fn(Range<usize>) -> I,
    ) {
        let values: &mut [u32] = bytemuck::cast_slice_mut(weights.as_mut_slice());
        for (part, entry) in self.parts.iter().zip(self.layout.entries()) {
            let mut new = source(entry.range.clone());
            let old = &mut values[entry.range.clone()];
            match part {
                Part::None => {}
                Part::All => old.iter_mut().zip(new).for_each(|(old, new)| *old = *new),
                Part::Bits(words) => {
                    for (old, word) in old.chunks_mut(64).zip(words) {
                        for (bit, (old, new)) in old.iter_mut().zip(&mut new).enumerate() {
                            let keep = (word >> bit & 1) as u32;
                            let take = 0u32.wrapping_sub(keep);
                            *old = (*old & !take) | (*new & take);
                        }
                    }
                }
            }
        }
    }
}

impl PartialEq for Mask {
    /// Equal sets over equal layouts, however they are stored.
    fn eq(&self, other: &Mask) -> bool {
        (Arc::ptr_eq(&self.layout, &other.layout) || self.layout == other.layout)
            && (self
                .parts
                .iter()
                .zip(&other.parts)
                .zip(self.layout.entries()))
            .all(|((a, b), entry)| a == b || entry.range.is_empty())
    }
}

impl Part {
    /// The shortest form, so that equal sets are equal values.
    fn of(words: Vec<u64>, len: usize) -> Part {
        let ones: usize = words.iter().map(|w| w.count_ones() as usize).sum();
        match ones {
            0 => Part::None,
            n if n == len => Part::All,
            _ => Part::Bits(words),
        }
    }
}

fn trim(words: &mut [u64], len: usize) {
    if let (Some(last), used @ 1..) = (words.last_mut(), len % 64) {
        *last &= (1 << used) - 1;
    }
}

/// Whether a text is of a pattern: `*` is any text, `?` any character.
///
/// In time O(pattern × text): on a mismatch, let the latest `*` swallow one more.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut i, mut j, mut star) = (0, 0, None);
    while j < t.len() {
        match p.get(i) {
            Some('*') => {
                star = Some((i, j));
                i += 1;
            }
            Some(&c) if c == '?' || c == t[j] => {
                i += 1;
                j += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    i = at + 1;
                    j = from + 1;
                }
                None => return false,
            },
        }
    }
    p[i..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    fn layout() -> Arc<Layout> {
        let shapes = [
            ("blocks.0.w", 130),
            ("blocks.0.b", 1),
            ("head.w", 64),
            ("empty", 0),
        ];
        Layout::new(shapes.map(|(path, n)| (path.to_string(), vec![n]))).unwrap()
    }

    fn strange(layout: &Arc<Layout>, name: &str) -> Weights {
        // Any bits at all: quiet and signalling NaN, infinities, subnormals, −0.
        let key = Key::new(0, name);
        let special = [0x7fa0_0001, 0xffc1_2345, 0x8000_0000, 0x7f80_0000, 1];
        let bits = |i: u64| {
            special
                .get(i as usize)
                .copied()
                .unwrap_or(key.draw(i) as u32)
        };
        let data = (0..layout.len() as u64)
            .map(|i| f32::from_bits(bits(i)))
            .collect();
        Weights::from_vec(layout, data).unwrap()
    }

    #[test]
    fn restoring_copies_bits_and_leaves_the_rest() {
        let l = layout();
        let key = Key::new(1, "mask");
        for mask in [
            Mask::from_fn(&l, |i| i < 5 || key.draw(i as u64).is_multiple_of(3)),
            Mask::all(&l),
            Mask::none(&l),
            Mask::from_paths(&l, |p| p == "head.w"),
        ] {
            let (before, anchor) = (strange(&l, "params"), strange(&l, "anchor"));
            let (mut restored, mut zeroed) = (before.clone(), before.clone());
            mask.restore(&mut restored, &anchor);
            mask.zero_gradient(&mut zeroed);
            for i in 0..l.len() {
                let bits = |w: &Weights| w.as_slice()[i].to_bits();
                let (source, zero) = if mask.contains(i) {
                    (&anchor, 0)
                } else {
                    (&before, bits(&before))
                };
                assert_eq!(bits(&restored), bits(source), "element {i}");
                assert_eq!(bits(&zeroed), zero, "element {i}");
            }
        }
    }

    #[test]
    fn sets_obey_their_algebra() {
        let l = layout();
        let even = Mask::from_fn(&l, |i| i % 2 == 0);
        let third = Mask::from_fn(&l, |i| i % 3 == 0);
        assert_eq!(even.and(&third), Mask::from_fn(&l, |i| i % 6 == 0));
        assert_eq!(
            even.or(&third),
            Mask::from_fn(&l, |i| i % 2 == 0 || i % 3 == 0)
        );
        assert_eq!(even.complement(), Mask::from_fn(&l, |i| i % 2 == 1));
        assert_eq!(even.or(&even.complement()).count(), l.len());
        assert_eq!(even.and(&even.complement()), Mask::none(&l));
        assert_eq!(even.count(), 98);
        assert_eq!(Mask::from_fn(&l, |i| i < 39).fraction(), 0.2);
        assert_eq!(Mask::from_fn(&l, |_| true).count(), Mask::all(&l).count());
    }

    #[test]
    fn globs_match_whole_paths_and_report_idle_patterns() {
        let l = layout();
        let (mask, idle) = Mask::from_globs(&l, &["blocks.*.w", "haed.*", "hea?.w"]);
        assert_eq!(
            mask,
            Mask::from_paths(&l, |p| p == "blocks.0.w" || p == "head.w")
        );
        assert_eq!(idle, ["haed.*"]);
        for (pattern, text, want) in [
            ("*", "", true),
            ("", "a", false),
            ("a*b*c", "axxbyybzc", true),
            ("a*b*c", "axxbyybz", false),
            ("**a", "ba", true),
            ("w", "w.b", false),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern} {text}");
        }
    }
}
