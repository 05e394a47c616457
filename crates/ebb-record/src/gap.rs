//! The stability gap: what each switch of experience did to an earlier test set.
//!
//! **Source.** De Lange et al., ICLR 2023, with the three numbers a switch of card S098.
//! *Depth* = accuracy before the switch − the lowest accuracy during the next experience.
//! *Area* = `Σ max(0, before − A_n)`, each evaluation weighted by the steps since the last one.
//! *Recovery* = steps from the switch until, after the lowest point, accuracy is back within
//! 0.02 of the lower of its levels before the switch and at the end of the experience; 0 if it
//! never was further away.

use serde::{Deserialize, Serialize};

/// "Back" means within this much accuracy.
pub const RECOVERED_WITHIN: f64 = 0.02;

/// What one switch did to one earlier test set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// The experience that was switched to.
    pub experience: usize,
    /// The earlier test set.
    pub set: usize,
    /// Accuracy before the first step of the experience.
    pub before: f64,
    /// Lowest accuracy during the experience, including its start.
    pub lowest: f64,
    /// Accuracy at its end.
    pub end: f64,
    /// `before − lowest`, at least 0.
    pub depth: f64,
    /// Steps from the switch until recovered.
    pub recovery: u64,
    /// Accuracy lost, times steps.
    pub area: f64,
}

/// A gap while its experience trains.
#[derive(Clone, Debug)]
pub(crate) struct OpenGap {
    set: usize,
    start: u64,
    before: f64,
    /// Highest accuracies since the lowest point, rising, each with the step that first reached
    /// it; the first entry is the lowest point itself.
    heights: Vec<(u64, f64)>,
    last: (u64, f64),
    area: f64,
}

impl OpenGap {
    pub fn new(set: usize, start: u64, before: f64) -> OpenGap {
        let first = (start, before);
        OpenGap {
            set,
            start,
            before,
            heights: vec![first],
            last: first,
            area: 0.0,
        }
    }

    pub fn push(&mut self, step: u64, accuracy: f64) {
        let steps = (step - self.last.0) as f64;
        self.area += steps * (self.before - accuracy).max(0.0);
        self.last = (step, accuracy);
        if accuracy < self.heights[0].1 {
            self.heights.clear();
            self.heights.push(self.last);
        } else if accuracy > self.heights[self.heights.len() - 1].1 {
            self.heights.push(self.last);
        }
    }

    pub fn close(&self, experience: usize) -> Gap {
        let (end, lowest) = (self.last.1, self.heights[0].1);
        let level = self.before.min(end) - RECOVERED_WITHIN;
        let recovery = if lowest >= level {
            0
        } else {
            // Exists: the highest value since the lowest point is at least the end's.
            let back = self
                .heights
                .iter()
                .find(|&&(_, accuracy)| accuracy >= level);
            back.map_or(self.last.0, |&(step, _)| step) - self.start
        };
        Gap {
            experience,
            set: self.set,
            before: self.before,
            lowest,
            end,
            depth: (self.before - lowest).max(0.0),
            recovery,
            area: self.area,
        }
    }
}

#[cfg(test)]
mod tests {
    use ebb_space::Key;

    use super::*;

    fn gap(before: f64, series: &[f64]) -> Gap {
        let mut open = OpenGap::new(0, 100, before);
        for (i, &accuracy) in series.iter().enumerate() {
            open.push(101 + i as u64, accuracy);
        }
        open.close(1)
    }

    #[test]
    fn a_dip_by_hand() {
        let g = gap(0.9, &[0.5, 0.2, 0.6, 0.85, 0.80, 0.86]);
        assert_eq!((g.before, g.lowest, g.end), (0.9, 0.2, 0.86));
        assert!((g.depth - 0.7).abs() < 1e-12);
        // Level min(0.9, 0.86) − 0.02 = 0.84, first reached at the fourth step.
        assert_eq!(g.recovery, 4);
        assert!((g.area - (0.4 + 0.7 + 0.3 + 0.05 + 0.1 + 0.04)).abs() < 1e-12);
    }

    #[test]
    fn a_frozen_model_has_no_gap_and_a_collapse_without_return_recovers_at_its_own_level() {
        let frozen = gap(0.8, &[0.8; 5]);
        assert_eq!((frozen.depth, frozen.recovery, frozen.area), (0.0, 0, 0.0));
        // It ends at 0.3: the level is 0.28, reached when it climbs from 0.1.
        assert_eq!(gap(0.8, &[0.1, 0.2, 0.3]).recovery, 3);
        assert_eq!(gap(0.8, &[0.9, 0.95]).depth, 0.0);
    }

    #[test]
    fn recovery_equals_a_search_through_the_whole_series() {
        let mut random = Key::new(2, "gaps").stream();
        for _ in 0..300 {
            let before = random.below(11) as f64 / 10.0;
            let series: Vec<f64> = (0..1 + random.below(40))
                .map(|_| random.below(11) as f64 / 10.0)
                .collect();
            let all: Vec<f64> = std::iter::once(before)
                .chain(series.iter().copied())
                .collect();
            let lowest = all.iter().copied().fold(f64::INFINITY, f64::min);
            let at = all.iter().position(|&a| a == lowest).unwrap();
            let level = before.min(all[all.len() - 1]) - RECOVERED_WITHIN;
            let back = (at..all.len()).find(|&i| all[i] >= level).unwrap();
            let expected = if lowest >= level { 0 } else { back as u64 };
            assert_eq!(gap(before, &series).recovery, expected, "{all:?}");
        }
    }
}
