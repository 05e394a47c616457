//! Forgetting events: how often each training example went from right to wrong.
//!
//! **Source.** Toneva et al., ICLR 2019 (card S042). **Equation.** At each presentation `t`, on
//! the forward pass before the update, `c_t` says whether the example was answered correctly;
//! `count = #{t : c_t = 1, c_{t+1} = 0}`, and for an example never correct the number of its
//! presentations, the largest count there can be. Unforgettable = learned and count 0.
//! **Use it** where examples recur; on a one-pass stream nothing is presented twice.
//! **Stores** about 70 bytes an example; **costs** one hash look-up a presentation.

use std::collections::HashMap;

use ebb_space::stats::mean_ci_t;
use ebb_space::{Direction, ExampleId, Number, Unit};

use crate::aggregate::OVER_EXAMPLES;
use crate::cell::{Cell, Contrast, LEVEL};
use crate::error::{Error, Result};

/// The presentations of one example, reduced.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct History {
    /// How often it was presented.
    pub presentations: u32,
    /// Times it went from right to wrong.
    pub events: u32,
    /// Its first correct presentation, from 0; `None` if it was never correct.
    pub first_learned: Option<u32>,
    /// One after its last wrong presentation; 0 if it was never wrong.
    pub settled: u32,
    /// Whether the last presentation was correct.
    pub correct: bool,
    /// Margin at the last presentation: logit of the label − the largest other logit.
    pub margin: f32,
    /// Smallest margin since it was first learned.
    pub lowest_margin: Option<f32>,
}

impl History {
    /// The forgetting count, as published: presentations if it was never learned.
    pub fn count(&self) -> u32 {
        if self.first_learned.is_some() {
            self.events
        } else {
            self.presentations
        }
    }

    /// Learned and never forgotten.
    pub fn unforgettable(&self) -> bool {
        self.first_learned.is_some() && self.events == 0
    }
}

/// `logit(label) − max` of the others; positive exactly when the answer is correct and unique.
/// NaN if `label` is not an index of `logits` or there is no other class.
pub fn margin(logits: &[f32], label: u32) -> f32 {
    let label = label as usize;
    let others = logits
        .iter()
        .enumerate()
        .filter(|(class, _)| *class != label);
    let rival = others.map(|(_, &logit)| logit).fold(f32::NAN, f32::max);
    logits.get(label).map_or(f32::NAN, |own| own - rival)
}

/// Histories of all examples of one run, reduced as the presentations come.
#[derive(Clone, Debug, Default)]
pub struct ForgettingEvents {
    of: HashMap<ExampleId, History>,
}

impl ForgettingEvents {
    /// Nothing presented yet.
    pub fn new() -> ForgettingEvents {
        ForgettingEvents::default()
    }

    /// One presentation of one example, before the update it takes part in.
    pub fn observe(&mut self, id: ExampleId, correct: bool, margin: f32) {
        let history = self.of.entry(id).or_insert(History {
            presentations: 0,
            events: 0,
            first_learned: None,
            settled: 0,
            correct: false,
            margin,
            lowest_margin: None,
        });
        let now = history.presentations;
        history.presentations += 1;
        history.margin = margin;
        if correct {
            history.first_learned.get_or_insert(now);
        } else {
            history.events += u32::from(history.correct);
            history.settled = now + 1;
        }
        if history.first_learned.is_some() {
            history.lowest_margin =
                Some(history.lowest_margin.map_or(margin, |low| low.min(margin)));
        }
        history.correct = correct;
    }

    /// The history of one example.
    pub fn get(&self, id: &ExampleId) -> Option<&History> {
        self.of.get(id)
    }

    /// Number of examples presented.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Whether nothing was presented.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Histories as [`histories`](ForgettingEvents::histories) gave them.
    pub fn from_histories(histories: Vec<(ExampleId, History)>) -> ForgettingEvents {
        let mut events = ForgettingEvents::new();
        events.of.extend(histories);
        events
    }

    /// All histories, by id.
    pub fn histories(&self) -> Vec<(ExampleId, History)> {
        let mut all: Vec<_> = self
            .of
            .iter()
            .map(|(id, history)| (*id, *history))
            .collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    /// Share of unforgettable examples, with its Wilson interval.
    ///
    /// # Errors
    /// [`Error::Undefined`] if nothing was presented; so for the mean below.
    pub fn unforgettable_share(&self, protocol: &str) -> Result<Number> {
        let name = "unforgettable_share";
        self.some(name)?;
        let correct = self.of.values().filter(|h| h.unforgettable()).count() as u64;
        let share = Contrast::mean(&[Cell {
            correct,
            n: self.of.len() as u64,
        }]);
        share.number(
            name,
            Direction::None,
            &format!("examples learned and never forgotten; {protocol}"),
        )
    }

    /// Mean forgetting count, with a t interval over examples (two at least).
    ///
    /// # Errors
    /// [`Error::Undefined`], [`Error::Space`] for a single example.
    pub fn mean_count(&self, protocol: &str) -> Result<Number> {
        let name = "forgetting_events";
        self.some(name)?;
        // By id: the order of a hash map must not reach the sum.
        let counts: Vec<f64> = self
            .histories()
            .iter()
            .map(|(_, h)| f64::from(h.count()))
            .collect();
        let interval = mean_ci_t(&counts, LEVEL)?;
        Ok(Number {
            name: name.into(),
            value: interval.value,
            ci_low: Some(interval.low),
            ci_high: Some(interval.high),
            n: counts.len(),
            unit: Unit::Example,
            direction: Direction::Lower,
            protocol: format!(
                "falls from right to wrong between presentations, never learned = all presentations; \
                 {protocol}{OVER_EXAMPLES}"
            ),
        })
    }

    fn some(&self, name: &str) -> Result<()> {
        if self.is_empty() {
            return Err(Error::undefined(name, "no example was presented"));
        }
        Ok(())
    }
}

/// Counts summed over runs of the same data (several seeds), ascending by count and then by id:
/// the order in which examples may be dropped. An example missing in a run is refused.
///
/// # Errors
/// [`Error::Mixed`] if the runs did not present the same examples.
pub fn summed_counts(runs: &[&ForgettingEvents]) -> Result<Vec<(ExampleId, u64)>> {
    let Some(first) = runs.first() else {
        return Ok(Vec::new());
    };
    let mut sums = Vec::with_capacity(first.len());
    for id in first.of.keys() {
        let mut sum = 0;
        for run in runs {
            let history = run.get(id).filter(|_| run.len() == first.len());
            let history = history.ok_or_else(|| {
                Error::Mixed(format!(
                    "not every run presented the same examples, such as {id}"
                ))
            })?;
            sum += u64::from(history.count());
        }
        sums.push((*id, sum));
    }
    sums.sort_unstable_by_key(|&(id, sum)| (sum, id));
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use ebb_space::Key;

    use super::*;

    fn id(n: u32) -> ExampleId {
        ExampleId::of(&n.to_le_bytes(), 0)
    }

    fn fed(series: &[bool]) -> History {
        let mut events = ForgettingEvents::new();
        for (i, &c) in series.iter().enumerate() {
            events.observe(id(0), c, i as f32 - 1.0);
        }
        *events.get(&id(0)).unwrap()
    }

    #[test]
    fn histories_by_hand() {
        let h = fed(&[false, true, false, true, true, false, true]);
        assert_eq!(
            (h.presentations, h.events, h.first_learned, h.settled),
            (7, 2, Some(1), 6)
        );
        assert_eq!((h.margin, h.lowest_margin), (5.0, Some(0.0)));
        let never = fed(&[false; 4]);
        assert_eq!(
            (never.count(), never.first_learned, never.settled),
            (4, None, 4)
        );
        assert!(!never.unforgettable() && never.lowest_margin.is_none());
        let always = fed(&[true; 3]);
        assert_eq!(
            (always.count(), always.settled, always.unforgettable()),
            (0, 0, true)
        );
    }

    #[test]
    fn counts_equal_the_definition_on_random_series() {
        let mut random = Key::new(3, "events").stream();
        for _ in 0..200 {
            let series: Vec<bool> = (0..1 + random.below(30))
                .map(|_| random.below(2) == 1)
                .collect();
            let falls = series.windows(2).filter(|w| w[0] && !w[1]).count();
            let expected = if series.contains(&true) {
                falls
            } else {
                series.len()
            };
            assert_eq!(fed(&series).count() as usize, expected, "{series:?}");
            let settled = series.iter().rposition(|c| !c).map_or(0, |i| i + 1);
            assert_eq!(fed(&series).settled as usize, settled);
        }
    }

    #[test]
    fn numbers_and_sums_over_seeds() {
        let mut a = ForgettingEvents::new();
        for n in 0..4 {
            a.observe(id(n), true, 1.0);
            a.observe(id(n), n != 0, 1.0);
        }
        let share = a.unforgettable_share("digits").unwrap();
        assert_eq!((share.value, share.n), (0.75, 4));
        // Wilson at 3 of 4: 0.3006 to 0.9544.
        assert!((share.ci_low.unwrap() - 0.3006).abs() < 1e-4);
        assert!((share.ci_high.unwrap() - 0.9544).abs() < 1e-4);
        assert_eq!(a.mean_count("digits").unwrap().value, 0.25);
        let sums = summed_counts(&[&a, &a]).unwrap();
        assert_eq!(sums[3], (id(0), 2));
        assert!(sums[..3].iter().all(|(_, sum)| *sum == 0));
        a.observe(id(9), true, 0.0);
        let b = ForgettingEvents::new();
        assert!(matches!(summed_counts(&[&a, &b]), Err(Error::Mixed(_))));
        assert!(b.unforgettable_share("").is_err());
    }

    #[test]
    fn margins_compare_with_the_best_rival() {
        assert_eq!(margin(&[1.0, 3.0, 2.0], 1), 1.0);
        assert_eq!(margin(&[1.0, 3.0, 2.0], 0), -2.0);
        assert!(margin(&[1.0], 0).is_nan() && margin(&[1.0, 2.0], 7).is_nan());
    }
}
