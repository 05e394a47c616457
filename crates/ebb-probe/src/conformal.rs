//! How sure a forecast is: intervals that new tasks fall into as often as they say.
//!
//! **What it does.** Forecasts tasks whose rows are known and that the fit has not seen, and takes
//! from their errors how wide an interval must be.
//! **Source.** Split conformal prediction (Papadopoulos et al. 2002; Lei et al. 2018) for one number
//! a task; for every example of a task the hierarchical form (Lee, Barber & Willett 2023), since
//! tasks are exchangeable and the examples within one are not independent.
//! **Equation.** One number a task: `v̂ ± q`, `q` the `⌈(n+1)(1−α)⌉`-th smallest of the `n` errors
//! `|v − v̂|`. Every example: `ẑ_j ± q`, `q` the `1 − α` quantile of all errors where each task weighs
//! `1/(n+1)`, divided among its examples, and `1/(n+1)` stands at infinity.
//! **Use it** with calibration tasks that are like the new one. **Not** for tasks of another kind: then
//! the promise is void, and only a measurement helps.
//! **Stores** one number. **Costs** the forecasts of the calibration tasks.

use crate::error::{Error, Result};

/// The fewest tasks for which an interval of this level is finite.
pub fn fewest(level: f64) -> usize {
    // n + 1 ≥ 1/α; a little less than 1/α, so that 0.9 needs 9 in spite of rounding.
    ((1.0 / (1.0 - level) - 1e-9).ceil() as usize)
        .saturating_sub(1)
        .max(1)
}

fn check(rows: usize, level: f64) -> Result<()> {
    if !(level > 0.0 && level < 1.0) {
        return Err(ebb_space::Error::BadLevel(level).into());
    }
    if rows < fewest(level) {
        return Err(Error::FewCalibration {
            rows,
            needed: fewest(level),
            level,
        });
    }
    Ok(())
}

/// Half the width of the interval of one number a task, from the errors of calibration tasks.
///
/// # Errors
/// [`Error::FewCalibration`], or a level outside (0, 1).
pub fn half_width(errors: &[f64], level: f64) -> Result<f64> {
    check(errors.len(), level)?;
    let mut sorted: Vec<f64> = errors.iter().map(|e| e.abs()).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = ((errors.len() + 1) as f64 * level - 1e-9).ceil() as usize;
    Ok(sorted[rank.clamp(1, errors.len()) - 1])
}

/// Half the width of the interval of an example of a new task, from the errors of every example of
/// the calibration tasks, a list a task.
///
/// # Errors
/// As [`half_width`], and when a task has no example.
pub fn example_half_width(errors: &[Vec<f32>], level: f64) -> Result<f64> {
    check(errors.len(), level)?;
    let whole = 1.0 / (errors.len() + 1) as f64;
    let mut all: Vec<(f32, f64)> = Vec::new();
    for task in errors {
        if task.is_empty() {
            return Err(Error::Shape("a calibration task has no example".into()));
        }
        let weight = whole / task.len() as f64;
        all.extend(task.iter().map(|e| (e.abs(), weight)));
    }
    all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let mut mass = 0.0;
    for (error, weight) in &all {
        mass += weight;
        if mass >= level - 1e-9 {
            return Ok(f64::from(*error));
        }
    }
    // Rounding alone: the check above has left enough mass.
    Ok(all.last().map_or(0.0, |(error, _)| f64::from(*error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::complete::{ClosedForm, Completer, Known};
    use crate::protocol::known_columns;
    use crate::table::tests::world;
    use ebb_space::Key;

    #[test]
    fn ranks_are_those_of_the_definition() {
        let errors: Vec<f64> = (1..=9).map(|e| -f64::from(e)).collect();
        assert_eq!(half_width(&errors, 0.9).unwrap(), 9.0); // ⌈10 · 0.9⌉ = 9
        assert_eq!(half_width(&errors, 0.8).unwrap(), 8.0);
        assert_eq!(half_width(&errors, 0.05).unwrap(), 1.0);
        assert_eq!(
            (fewest(0.9), fewest(0.8), fewest(0.95), fewest(0.5)),
            (9, 4, 19, 1)
        );
        assert!(matches!(
            half_width(&errors[..8], 0.9),
            Err(Error::FewCalibration {
                rows: 8,
                needed: 9,
                ..
            })
        ));
        assert!(half_width(&errors, 1.0).is_err() && half_width(&errors, 0.0).is_err());
        // With one example a task the two are one rule.
        let each: Vec<Vec<f32>> = errors.iter().map(|e| vec![*e as f32]).collect();
        for level in [0.1, 0.5, 0.8, 0.9] {
            assert_eq!(
                example_half_width(&each, level).unwrap(),
                half_width(&errors, level).unwrap()
            );
        }
        // A task with many examples weighs no more than one with few.
        let mut lopsided = vec![vec![5.0f32]; 8];
        lopsided.push(vec![1.0; 1000]);
        assert_eq!(example_half_width(&lopsided, 0.5).unwrap(), 5.0);
    }

    /// The coverage over 300 worlds: of the mean of a new row, and of its entries.
    #[test]
    fn new_tasks_fall_into_the_intervals_as_often_as_they_say() {
        let level = 0.8;
        let (mut means, mut entries, worlds) = (0.0, 0.0, 300u64);
        for seed in 0..worlds {
            let t = world(22, 60, 2, 0.5, 1000 + seed);
            let train = t.select(&(0..12).collect::<Vec<_>>()).unwrap();
            let how = ClosedForm::default();
            let fitted = how.fit(&train, Key::new(0, "fit")).unwrap();
            let known = known_columns(&t, 15, Key::new(seed, "known")).unwrap();
            let errors = |i: usize| -> Vec<f32> {
                let values = known.iter().map(|j| t.row(i)[*j]).collect();
                let row = fitted
                    .complete(&Known::new(known.clone(), values, 60).unwrap())
                    .unwrap();
                (0..60)
                    .filter(|j| !known.contains(j))
                    .map(|j| t.row(i)[j] - row[j])
                    .collect()
            };
            let mean = |e: &[f32]| f64::from(e.iter().sum::<f32>()) / e.len() as f64;
            let calibration: Vec<Vec<f32>> = (12..21).map(errors).collect();
            let of_means: Vec<f64> = calibration.iter().map(|e| mean(e)).collect();
            let new = errors(21);
            means += f64::from(mean(&new).abs() <= half_width(&of_means, level).unwrap());
            let half = example_half_width(&calibration, level).unwrap() as f32;
            entries += new.iter().filter(|e| e.abs() <= half).count() as f64 / new.len() as f64;
        }
        let (means, entries) = (means / worlds as f64, entries / worlds as f64);
        // At least the level, at most 1/(n+1) above it; three deviations of the mean of 300.
        let slack = 3.0 * (level * (1.0 - level) / worlds as f64).sqrt();
        assert!(
            (level - slack..level + 0.1 + slack).contains(&means),
            "{means}"
        );
        assert!(
            (level - slack..level + 0.1 + slack).contains(&entries),
            "{entries}"
        );
    }
}
