//! Centralising: scattered adapters are folded back into the weights they came from.
//!
//! **What it does.** After several adapters were trained from one centre (on shards of the new
//! data, or from several starts), the centre moves by the mean of what they learned; they are
//! thrown away, and the next data set starts from the new centre.
//! **Source.** "Weight factorization and centralization for continual learning in speech
//! recognition", 2025 (card S091); only its merge rule stands here.
//! **Equation.** `θ_c ← θ_c + η Σ_k w_k ΔW_k / Σ_k w_k` with `ΔW_k = B_k A_k`.
//! **Use it** between data sets, with η = 1; the mean of K adapters is shorter than each of them,
//! so that a comparison at equal gain needs η up to K. **Not** factor by factor.
//! **Stores** nothing. **Costs** a multiply-add an entry and adapter.
//!
//! Decided here (the card leaves number, rule and schedule open): the mean of the products, with
//! one step size, of the adapters since the last time.

use super::{Rule, Task};
use crate::{Result, Weights};

/// Moves `centre` by `step` times the weighted mean of `updates`.
///
/// # Errors
/// [`Error::BadMerge`](crate::Error::BadMerge) without an update, or for weights that are not
/// above 0.
///
/// # Panics
/// If layouts differ.
pub fn centralise(
    centre: &mut Weights,
    tasks: &[Task],
    updates: &[&Weights],
    step: f64,
) -> Result<()> {
    let mean = Rule::Mean.merged(tasks, updates)?;
    centre.axpy(step as f32, &mean);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{random, tasks};
    use super::*;
    use crate::Layout;

    #[test]
    fn the_centre_moves_by_the_mean_and_back() {
        let l = Layout::new([("w".into(), vec![700])]).expect("paths");
        let start = random(&l, "centre");
        let (a, b) = (random(&l, "a"), random(&l, "b"));
        let two = tasks(&[1.0, 3.0]);
        let mut centre = start.clone();
        centralise(&mut centre, &two, &[&a, &b], 0.5).expect("moved");
        for i in 0..l.len() {
            let at = |w: &Weights| f64::from(w.as_slice()[i]);
            let want = at(&start) + 0.5 * (0.25 * at(&a) + 0.75 * at(&b));
            assert!((at(&centre) - want).abs() < 1e-6);
        }
        centralise(&mut centre, &two, &[&a, &b], -0.5).expect("moved");
        assert!(centre.squared_distance(&start).sqrt() < 1e-6 * start.norm());
        assert!(centralise(&mut centre, &[], &[], 1.0).is_err());
    }
}
