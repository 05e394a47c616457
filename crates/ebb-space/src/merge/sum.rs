//! Sums and means of task vectors: task arithmetic.
//!
//! **What it does.** Adds up what the trainings changed, each with a weight.
//! **Source.** Ilharco et al., ICLR 2023, "Editing models with task arithmetic"; the mean is
//! Wortsman et al., 2022, "Model soups".
//! **Equation.** `τ = Σ_t w_t τ_t`, or `Σ_t w_t τ_t / Σ_t w_t`.
//! **Use it** first: it has nothing to choose but the weights; a negative one takes a task away.
//! **Not** with weights of 1 for many tasks that change the same entries: the sum overshoots.
//! **Stores** nothing. **Costs** a multiply-add an entry and task.

use super::{BLOCK, Piece, Task};

pub(super) fn sum(tasks: &[Task], piece: &Piece<'_>, out: &mut [f32]) {
    scaled(tasks, piece, 1.0, out);
}

pub(super) fn mean(tasks: &[Task], piece: &Piece<'_>, out: &mut [f32]) {
    let all: f64 = tasks.iter().map(|task| task.weight).sum();
    scaled(tasks, piece, 1.0 / all, out);
}

fn scaled(tasks: &[Task], piece: &Piece<'_>, scale: f64, out: &mut [f32]) {
    let mut sums = [0.0f64; BLOCK];
    for (b, out) in out.chunks_mut(BLOCK).enumerate() {
        let sums = &mut sums[..out.len()];
        sums.fill(0.0);
        for (task, tau) in tasks.iter().zip(piece.taus) {
            for (sum, &tau) in sums.iter_mut().zip(&tau[b * BLOCK..]) {
                *sum += task.weight * f64::from(tau);
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = (*sum * scale) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Rule;
    use super::super::tests::{random, tasks};
    use crate::Layout;

    #[test]
    fn sums_and_means_are_those_of_f64() {
        let l = Layout::new([("w".into(), vec![1201])]).expect("paths");
        let taus = [random(&l, "a"), random(&l, "b"), random(&l, "c")];
        let weights = [0.3, -1.0, 2.0];
        let all: Vec<_> = taus.iter().collect();
        let sum = Rule::Sum.merged(&tasks(&weights), &all).expect("merged");
        let weights = [0.3, 1.0, 2.0];
        let mean = Rule::Mean.merged(&tasks(&weights), &all).expect("merged");
        for i in 0..l.len() {
            let [a, b, c] = [0, 1, 2].map(|t: usize| f64::from(taus[t].as_slice()[i]));
            assert_eq!(sum.as_slice()[i], (0.3 * a - b + 2.0 * c) as f32);
            let want = (0.3 * a + b + 2.0 * c) / 3.3;
            assert!((f64::from(mean.as_slice()[i]) - want).abs() < 1e-7 * want.abs().max(1.0));
        }
    }
}
