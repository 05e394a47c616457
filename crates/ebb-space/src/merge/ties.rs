//! TIES: trim, elect a sign, merge what agrees.
//!
//! **What it does.** Keeps of each task vector its largest entries, decides for each entry which
//! sign has more weight behind it, and takes the mean of the kept values with that sign: small
//! changes and changes that contradict the majority no longer dilute the others.
//! **Source.** Yadav et al., NeurIPS 2023, "TIES-Merging: resolving interference when merging
//! models".
//! **Equation.** `τ̂_t = τ_t` where `|τ_t|` is among the largest `density` of its tensor, else 0;
//! `γ = sgn Σ_t w_t τ̂_t`; `τ = Σ_{t ∈ A} w_t τ̂_t / Σ_{t ∈ A} w_t` with
//! `A = {t : sgn τ̂_t = γ ≠ 0}`.
//! **Use it** for three models or more of one base that were trained on different tasks. **Not**
//! for one model (it only trims), nor for adapters whose products have nothing to trim.
//! **Stores** nothing. **Costs** a selection in each tensor of each task, and two passes over the
//! entries.
//!
//! Decided here: trimming is tensor by tensor (as mergekit has it; the paper's code trims the
//! whole vector at once), so that tensors can stream; of equal magnitudes at the border all are
//! kept (as in the paper's code); where the kept values cancel to exactly 0 the merged entry is 0.

use super::{BLOCK, Piece, Task};

/// The least magnitude among the largest `⌈density · n⌉` of a tensor's `n`; 0 for an empty one.
/// NaN counts as the largest, so that it is not lost.
pub fn least_kept(tau: &[f32], density: f64) -> f32 {
    let n = tau.len();
    let kept = ((density * n as f64).ceil() as usize).min(n);
    if kept == 0 {
        return 0.0;
    }
    // Without their sign, floats are ordered as their bits are.
    let mut magnitudes: Vec<u32> = tau.iter().map(|v| v.abs().to_bits()).collect();
    let (_, least, _) = magnitudes.select_nth_unstable(n - kept);
    f32::from_bits(*least)
}

pub(super) fn ties(tasks: &[Task], piece: &Piece<'_>, out: &mut [f32]) {
    assert_eq!(tasks.len(), piece.least.len(), "a threshold for each task");
    let mut kept = vec![0.0; tasks.len() * BLOCK];
    for (b, out) in out.chunks_mut(BLOCK).enumerate() {
        let rows = kept.chunks_exact_mut(BLOCK);
        for ((row, tau), least) in rows.zip(piece.taus).zip(piece.least) {
            for (kept, &tau) in row.iter_mut().zip(&tau[b * BLOCK..][..out.len()]) {
                let small = tau.abs() < *least;
                *kept = if small { 0.0 } else { f64::from(tau) };
            }
        }
        let agreed = agreeing(tasks, &kept);
        for (out, (sum, weight)) in out.iter_mut().zip(agreed.sums.iter().zip(&agreed.weights)) {
            *out = if *weight > 0.0 {
                (sum / weight) as f32
            } else {
                0.0
            };
        }
    }
}

/// What agrees with the elected sign, of a block.
pub(super) struct Agreed {
    pub sums: [f64; BLOCK],
    pub weights: [f64; BLOCK],
}

/// Elects the sign of each entry of a block by the weighted sum of `kept` (a row of [`BLOCK`]
/// entries for each task), and adds up what agrees with it.
pub(super) fn agreeing(tasks: &[Task], kept: &[f64]) -> Agreed {
    let mut mass = [0.0f64; BLOCK];
    for (task, row) in tasks.iter().zip(kept.chunks_exact(BLOCK)) {
        for (mass, kept) in mass.iter_mut().zip(row) {
            *mass += task.weight * kept;
        }
    }
    let mut agreed = Agreed {
        sums: [0.0; BLOCK],
        weights: [0.0; BLOCK],
    };
    for (task, row) in tasks.iter().zip(kept.chunks_exact(BLOCK)) {
        let places = agreed.sums.iter_mut().zip(&mut agreed.weights);
        for ((kept, mass), (sum, weight)) in row.iter().zip(&mass).zip(places) {
            let value = task.weight * kept;
            let same = value * mass;
            // NaN agrees with everything: it must be seen in the result.
            let agrees = same > 0.0 || same.is_nan();
            *sum += if agrees { value } else { 0.0 };
            *weight += if agrees { task.weight } else { 0.0 };
        }
    }
    agreed
}

#[cfg(test)]
mod tests {
    use super::super::Rule;
    use super::super::tests::{random, tasks};
    use super::*;
    use crate::{Layout, Weights};

    #[test]
    fn a_case_worked_by_hand() {
        let l = Layout::new([("w".into(), vec![6])]).expect("paths");
        let w = |v: [f32; 6]| Weights::from_vec(&l, v.to_vec()).expect("six");
        // Half of six is kept: 3.0, -2.0, 1.5 / 4.0, -3.0, 2.5 / 1.0, 0.9, -0.8.
        let a = w([3.0, -2.0, 1.5, 0.1, -0.2, 0.0]);
        let b = w([-1.0, -3.0, 4.0, 0.5, 2.5, 0.3]);
        let c = w([-0.8, 0.9, 0.2, 1.0, 0.1, 0.0]);
        let rule = Rule::Ties { density: 0.5 };
        // 3.0 + 0 − 0.8 > 0: 3.0 alone. −2 − 3 + 0.9 < 0: the mean of −2 and −3. 1.5 and 4.0
        // agree. 1.0 alone. 2.5 alone. Nothing.
        let want = [3.0, -2.5, 2.75, 1.0, 2.5, 0.0];
        let found = rule
            .merged(&tasks(&[1.0; 3]), &[&a, &b, &c])
            .expect("merged");
        assert_eq!(found.as_slice(), want);
        // With weights 1, 1, 8 the first entry is 3 − 6.4 < 0, and the second −5 + 7.2 > 0.
        let want = [-0.8, 0.9, 2.75, 1.0, 2.5, 0.0];
        let found = rule.merged(&tasks(&[1.0, 1.0, 8.0]), &[&a, &b, &c]);
        assert_eq!(found.expect("merged").as_slice(), want);
        // An exact draw of both signs leaves the base.
        let opposite = w([-3.0, 2.0, -1.5, -0.1, 0.2, 0.0]);
        let found = rule.merged(&tasks(&[1.0; 2]), &[&a, &opposite]);
        assert_eq!(found.expect("merged").as_slice(), [0.0; 6]);
    }

    /// The paper's three steps on whole vectors, one after another, by sorting.
    #[test]
    fn it_is_the_papers_procedure() {
        let l = Layout::new([("w".into(), vec![1300])]).expect("paths");
        let taus: Vec<Weights> = (0..5).map(|i| random(&l, &format!("{i}"))).collect();
        let weights = [1.0, 0.5, 2.0, 1.0, 0.25];
        let density = 0.2;
        let trimmed: Vec<Vec<f64>> = taus
            .iter()
            .map(|tau| {
                let mut order: Vec<usize> = (0..l.len()).collect();
                let size = |i: &usize| tau.as_slice()[*i].abs();
                order.sort_by(|i, j| size(j).total_cmp(&size(i)));
                let mut kept = vec![0.0; l.len()];
                for &i in &order[..260] {
                    kept[i] = f64::from(tau.as_slice()[i]);
                }
                kept
            })
            .collect();
        let all: Vec<&Weights> = taus.iter().collect();
        let found = Rule::Ties { density }.merged(&tasks(&weights), &all);
        let found = found.expect("merged");
        for i in 0..l.len() {
            let of = || trimmed.iter().zip(weights).map(|(t, w)| (t[i], w));
            let mass: f64 = of().map(|(t, w)| w * t).sum();
            let agree = || of().filter(|(t, _)| t * mass > 0.0);
            let (sum, weight) = agree().fold((0.0, 0.0), |(s, v), (t, w)| (s + w * t, v + w));
            let want = if weight > 0.0 { sum / weight } else { 0.0 };
            assert!((f64::from(found.as_slice()[i]) - want).abs() < 1e-6, "{i}");
        }
    }

    #[test]
    fn thresholds_keep_at_least_the_share() {
        assert_eq!(least_kept(&[], 0.5), 0.0);
        assert_eq!(least_kept(&[1.0, -3.0, 2.0], 0.01), 3.0);
        assert_eq!(least_kept(&[1.0, -3.0, 2.0], 0.34), 2.0);
        assert_eq!(least_kept(&[1.0, -3.0, 2.0], 1.0), 1.0);
        assert!(least_kept(&[1.0, f32::NAN, 2.0], 0.3).is_nan());
    }
}
