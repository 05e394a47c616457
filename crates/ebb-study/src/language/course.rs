//! Courses of training that are followed, and compared where they know as much of the new.

use super::learner::{Learner, Row};
use crate::error::{Error, Result};
use crate::runner::Options;
use ebb_space::{ExampleId, Key};
use ebb_text::Occurrences;
use std::sync::atomic::Ordering;

/// Does the work in a thread of the pool: from outside, every operation would be handed over to one.
pub(super) fn in_the_pool<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    rayon::scope(|_| work())
}

/// Steps on texts, and how often somebody looks.
pub(super) struct Course<'a> {
    pub rows: &'a [Row],
    pub steps: u64,
    pub batch: usize,
    /// Steps between two looks; the first is before the first step.
    pub every: u64,
    /// The order of the texts, another in each pass.
    pub key: Key,
}

/// Rows by ids of their own: equal texts must not come one behind the other, or a step would be one
/// text many times.
fn numbered(rows: &[Row]) -> Vec<(ExampleId, &Row)> {
    let mut occurrences = Occurrences::default();
    let number = |row: &Row| occurrences.number(row.id);
    let ids: Vec<ExampleId> = rows.iter().map(number).collect();
    ids.into_iter().zip(rows).collect()
}

/// Trains, and gives what `look` saw, look by look.
pub(super) fn follow<T>(
    learner: &mut Learner,
    course: &Course,
    options: &Options,
    mut look: impl FnMut(&mut Learner) -> Result<T>,
) -> Result<Vec<T>> {
    let mut seen = vec![look(learner)?];
    let rows = numbered(course.rows);
    let mut order: Vec<(ExampleId, &Row)> = Vec::new();
    let mut pass = 0;
    for step in 1..=course.steps {
        if options.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        if order.len() < course.batch.min(course.rows.len()) {
            order.clone_from(&rows);
            course.key.at(pass).order(&mut order, |(id, _)| id.mix());
            pass += 1;
        }
        let batch = order.split_off(order.len() - course.batch.min(order.len()));
        let batch: Vec<&Row> = batch.into_iter().map(|(_, row)| row).collect();
        learner.step(&batch)?;
        if step.is_multiple_of(course.every) || step == course.steps {
            seen.push(look(learner)?);
        }
    }
    Ok(seen)
}

/// The value of a course where what it has learnt first reaches `target` from below, linear between
/// two looks; none where it never does. A course is pairs of (what was learnt, value).
pub(super) fn at_equal(course: &[(f64, f64)], target: f64) -> Option<f64> {
    let first = course.first().filter(|(learnt, _)| *learnt >= target);
    first.map(|(_, value)| *value).or_else(|| {
        course.windows(2).find_map(|two| {
            let [(a, x), (b, y)] = [two[0], two[1]];
            (a < target && b >= target).then(|| x + (y - x) * (target - a) / (b - a))
        })
    })
}

/// The most that every one of these courses has learnt at some time.
pub(super) fn reached_by_all<'a>(courses: impl IntoIterator<Item = &'a Vec<(f64, f64)>>) -> f64 {
    let best = |course: &Vec<(f64, f64)>| {
        let learnt = course.iter().map(|(learnt, _)| *learnt);
        learnt.fold(f64::NEG_INFINITY, f64::max)
    };
    courses.into_iter().map(best).fold(f64::INFINITY, f64::min)
}

/// The mean.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_spread_over_a_pass() {
        let row = |text: usize| Row {
            id: ExampleId::of(&text.to_le_bytes(), 0),
            tokens: Vec::new(),
            given: 0,
        };
        let rows: Vec<Row> = (0..400).map(|i| row(i % 4)).collect();
        let mut order = numbered(&rows);
        Key::new(1, "spread").order(&mut order, |(id, _)| id.mix());
        let alike = order.windows(2).filter(|two| two[0].1.id == two[1].1.id);
        // A quarter of the neighbours by chance.
        assert!((60..140).contains(&alike.count()));
    }

    #[test]
    fn values_are_read_where_as_much_was_learnt() {
        let course = vec![(0.0, 5.0), (0.5, 4.0), (0.4, 3.0), (1.0, 0.0)];
        assert_eq!(at_equal(&course, 0.25), Some(4.5));
        // The first time counts.
        assert_eq!(at_equal(&course, 0.45), Some(4.1));
        let later = at_equal(&course, 0.7).map(|v| (v - 1.5).abs());
        assert!(later.is_some_and(|off| off < 1e-12));
        assert_eq!(at_equal(&course, -1.0), Some(5.0));
        assert_eq!(at_equal(&course, 1.1), None);
        let slow = vec![(0.0, 1.0), (0.8, 1.0)];
        assert_eq!(reached_by_all([&course, &slow]), 0.8);
    }
}
