//! DARE: drop and rescale, then sum.
//!
//! **What it does.** Drops most entries of each task vector at random and scales the rest up, so
//! that the sum of several collides less and is right in expectation.
//! **Source.** Yu et al., ICML 2024, "Language models are super Mario: absorbing abilities from
//! homologous models as a free lunch".
//! **Equation.** `τ̃_t = m_t ⊙ τ_t / d` with `m_t ~ Bernoulli(d)`, `d = 1 − p` the density;
//! `τ = Σ_t w_t τ̃_t`. With a sign elected as TIES does, from the `τ̃_t`:
//! `τ = Σ_{t ∈ A} w_t τ̃_t`.
//! **Use it** for models whose changes are small and redundant, as supervised fine-tuning of large
//! ones leaves them. **Not** after a long training: what is dropped is missed.
//! **Stores** nothing; a draw hangs on task, tensor and entry. **Costs** a draw an entry and task.
//!
//! Decided here: DARE's drop takes the place of TIES's trim, and what agrees is summed and not
//! averaged (both as mergekit has them): the mean over the few that a draw kept would undo the
//! expectation.

use super::ties::agreeing;
use super::{BLOCK, Piece, Task};
use crate::Key;

pub(super) fn dare(tasks: &[Task], piece: &Piece<'_>, density: f64, key: Key, out: &mut [f32]) {
    let draws = draws(tasks, piece.path, key);
    let mut kept = [0.0f64; BLOCK];
    for (b, out) in out.chunks_mut(BLOCK).enumerate() {
        let mut sums = [0.0f64; BLOCK];
        for ((task, tau), key) in tasks.iter().zip(piece.taus).zip(&draws) {
            let tau = &tau[b * BLOCK..][..out.len()];
            drop_and_rescale(tau, piece.from + b * BLOCK, density, *key, &mut kept);
            for (sum, kept) in sums.iter_mut().zip(&kept) {
                *sum += task.weight * kept;
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = sum as f32;
        }
    }
}

pub(super) fn dare_ties(
    tasks: &[Task],
    piece: &Piece<'_>,
    density: f64,
    key: Key,
    out: &mut [f32],
) {
    let draws = draws(tasks, piece.path, key);
    let mut kept = vec![0.0; tasks.len() * BLOCK];
    for (b, out) in out.chunks_mut(BLOCK).enumerate() {
        let rows = kept.chunks_exact_mut(BLOCK);
        for ((row, tau), key) in rows.zip(piece.taus).zip(&draws) {
            let tau = &tau[b * BLOCK..][..out.len()];
            drop_and_rescale(tau, piece.from + b * BLOCK, density, *key, row);
        }
        let agreed = agreeing(tasks, &kept);
        for (out, sum) in out.iter_mut().zip(agreed.sums) {
            *out = sum as f32;
        }
    }
}

fn draws(tasks: &[Task], path: &str, key: Key) -> Vec<Key> {
    let of = |task: &Task| key.sub(&task.name).sub(path);
    tasks.iter().map(of).collect()
}

/// `m τ / density`, for entries that begin at `from` of their tensor.
fn drop_and_rescale(tau: &[f32], from: usize, density: f64, key: Key, kept: &mut [f64]) {
    for ((i, &tau), kept) in (from as u64..).zip(tau).zip(kept) {
        let stays = key.uniform(i) < density;
        *kept = if stays { f64::from(tau) / density } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::super::Rule;
    use super::super::tests::{random, tasks};
    use super::*;
    use crate::{Layout, Weights};

    #[test]
    fn it_is_unbiased_over_keys_and_keeps_its_share() {
        let l = Layout::new([("w".into(), vec![600])]).expect("paths");
        let (a, b) = (random(&l, "a"), random(&l, "b"));
        let (tasks, density, rounds) = (tasks(&[1.0, -0.5]), 0.25, 4000);
        let mut sums = vec![0.0f64; l.len()];
        let mut kept = 0;
        for round in 0..rounds {
            let key = Key::new(round, "dare");
            let one = Rule::Dare { density, key };
            let found = one.merged(&tasks, &[&a, &b]).expect("merged");
            for (sum, v) in sums.iter_mut().zip(found.as_slice()) {
                *sum += f64::from(*v);
            }
            let alone = one.merged(&tasks[..1], &[&a]).expect("merged");
            for (v, a) in alone.as_slice().iter().zip(a.as_slice()) {
                assert!(*v == 0.0 || *v == a / 0.25);
                kept += usize::from(*v != 0.0);
            }
        }
        let n = (rounds as usize * l.len()) as f64;
        // Five standard errors of a share.
        let se = (density * (1.0 - density) / n).sqrt();
        assert!((kept as f64 / n - density).abs() < 5.0 * se);
        for (i, sum) in sums.iter().enumerate() {
            let at = |w: &Weights| f64::from(w.as_slice()[i]);
            let want = at(&a) - 0.5 * at(&b);
            // Variance of m τ / d is τ² (1 − d) / d.
            let variance = 3.0 * (at(&a).powi(2) + 0.25 * at(&b).powi(2));
            let se = (variance / rounds as f64).sqrt();
            assert!((sum / rounds as f64 - want).abs() < 5.0 * se + 1e-6, "{i}");
        }
    }

    #[test]
    fn all_kept_is_the_sum_and_draws_hang_on_names() {
        let l = Layout::new([("w".into(), vec![600]), ("v".into(), vec![600])]).expect("paths");
        let (a, b) = (random(&l, "a"), random(&l, "b"));
        let key = Key::new(3, "dare");
        let two = tasks(&[1.0, 2.0]);
        let all = Rule::Dare { density: 1.0, key };
        let sum = Rule::Sum.merged(&two, &[&a, &b]).expect("merged");
        let found = all.merged(&two, &[&a, &b]).expect("merged");
        assert_eq!(found.as_slice(), sum.as_slice());
        // A task draws the same whether it comes first or second, and otherwise in another tensor.
        let half = Rule::Dare { density: 0.5, key };
        let swapped: Vec<Task> = two.iter().rev().cloned().collect();
        let one = half.merged(&two, &[&a, &b]).expect("merged");
        let other = half.merged(&swapped, &[&b, &a]).expect("merged");
        assert_eq!(one.as_slice(), other.as_slice());
        let ones = Weights::from_vec(&l, vec![1.0; l.len()]).expect("as long");
        let drawn = half.merged(&two[..1], &[&ones]).expect("merged");
        assert_ne!(drawn.get("w"), drawn.get("v"));
    }

    #[test]
    fn with_signs_only_what_agrees_is_summed() {
        let l = Layout::new([("w".into(), vec![3])]).expect("paths");
        let w = |v: [f32; 3]| Weights::from_vec(&l, v.to_vec()).expect("three");
        let (a, b, c) = (
            w([1.0, -2.0, 1.0]),
            w([2.0, 1.0, -1.0]),
            w([-1.0, 0.5, 0.0]),
        );
        let rule = Rule::DareTies {
            density: 1.0,
            key: Key::new(0, "dare"),
        };
        let found = rule
            .merged(&tasks(&[1.0; 3]), &[&a, &b, &c])
            .expect("merged");
        assert_eq!(found.as_slice(), [3.0, -2.0, 0.0]);
    }
}
