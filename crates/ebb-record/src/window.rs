//! Windowed forgetting and plasticity: the largest change of accuracy within `w` evaluations.
//!
//! **Source.** De Lange et al., ICLR 2023 (card S098). **Equation.** For one evaluation set and
//! every window of `w` consecutive evaluations, `WF = max_{m<n} (A_m − A_n)` and
//! `WP = max_{m<n} (A_n − A_m)` inside it; the running maximum over all windows is kept.
//! **Costs** amortised constant time an evaluation and at most `w` values: a monotone deque holds
//! the candidates for the extreme of the window. A rise is measured from the *lowest* value of
//! the window; starting it from the running maximum, as published code does, misses rises that
//! begin at a later low (0.5, 0.2, 0.9 rises by 0.7, not by 0.4).

use std::collections::VecDeque;

/// Which change is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// From a value to a later lower one: windowed forgetting.
    Drop,
    /// From a value to a later higher one: windowed plasticity.
    Rise,
}

/// The largest change within any window seen so far.
#[derive(Clone, Debug)]
pub struct WindowedChange {
    change: Change,
    window: u64,
    seen: u64,
    /// (index, height), heights strictly falling: the front is the highest of the window. For a
    /// rise the heights are negated accuracies.
    candidates: VecDeque<(u64, f64)>,
    largest: f64,
}

impl WindowedChange {
    /// Looks at windows of `window` consecutive evaluations.
    ///
    /// # Panics
    /// If `window < 2`: a change needs two values.
    pub fn new(change: Change, window: usize) -> WindowedChange {
        assert!(
            window >= 2,
            "a window of {window} evaluations holds no change"
        );
        let candidates = VecDeque::new();
        WindowedChange {
            change,
            window: window as u64,
            seen: 0,
            candidates,
            largest: 0.0,
        }
    }

    /// The next evaluation.
    pub fn push(&mut self, accuracy: f64) {
        let height = match self.change {
            Change::Drop => accuracy,
            Change::Rise => -accuracy,
        };
        while self
            .candidates
            .back()
            .is_some_and(|&(_, lower)| lower <= height)
        {
            self.candidates.pop_back();
        }
        self.candidates.push_back((self.seen, height));
        self.seen += 1;
        while self
            .candidates
            .front()
            .is_some_and(|&(index, _)| index + self.window < self.seen)
        {
            self.candidates.pop_front();
        }
        let highest = self
            .candidates
            .front()
            .map_or(height, |&(_, highest)| highest);
        self.largest = self.largest.max(highest - height);
    }

    /// The largest change so far; 0 if there was none in this direction.
    pub fn largest(&self) -> f64 {
        self.largest
    }

    /// Number of evaluations pushed.
    pub fn evaluations(&self) -> u64 {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use ebb_space::Key;

    use super::*;

    fn streamed(change: Change, window: usize, series: &[f64]) -> f64 {
        let mut reducer = WindowedChange::new(change, window);
        series.iter().for_each(|&a| reducer.push(a));
        reducer.largest()
    }

    /// The definition, read literally.
    fn brute(change: Change, window: usize, series: &[f64]) -> f64 {
        let mut largest: f64 = 0.0;
        for n in 0..series.len() {
            for m in n.saturating_sub(window - 1)..n {
                largest = largest.max(match change {
                    Change::Drop => series[m] - series[n],
                    Change::Rise => series[n] - series[m],
                });
            }
        }
        largest
    }

    #[test]
    fn a_rise_starts_from_the_lowest_value() {
        assert_eq!(streamed(Change::Rise, 10, &[0.5, 0.2, 0.9]), 0.9 - 0.2);
        assert_eq!(streamed(Change::Drop, 10, &[0.5, 0.2, 0.9]), 0.5 - 0.2);
        assert_eq!(streamed(Change::Drop, 10, &[0.1, 0.2, 0.9]), 0.0);
    }

    #[test]
    fn a_window_counts_evaluations_and_forgets_the_older() {
        // The drop from 1 to 0 spans three evaluations.
        let series = [1.0, 0.5, 0.0, 0.0, 0.0];
        assert_eq!(streamed(Change::Drop, 2, &series), 0.5);
        assert_eq!(streamed(Change::Drop, 3, &series), 1.0);
    }

    #[test]
    fn streaming_equals_brute_force() {
        let mut random = Key::new(1, "windows").stream();
        for case in 0..300 {
            let length = random.below(120) as usize;
            // Few levels make ties, many make none.
            let levels = if case % 2 == 0 { 4 } else { 1 << 40 };
            let series: Vec<f64> = (0..length)
                .map(|_| random.below(levels) as f64 / levels as f64)
                .collect();
            for window in [2, 3, 10, 100] {
                for change in [Change::Drop, Change::Rise] {
                    let (fast, slow) = (
                        streamed(change, window, &series),
                        brute(change, window, &series),
                    );
                    assert_eq!(fast, slow, "{change:?} {window} {series:?}");
                }
            }
        }
    }

    #[test]
    fn memory_is_bounded_by_the_window() {
        let mut reducer = WindowedChange::new(Change::Drop, 10);
        (0..10_000).for_each(|i| reducer.push(-f64::from(i)));
        assert!(reducer.candidates.len() <= 10 && reducer.candidates.capacity() < 64);
    }
}
