//! LiNeS: layer scaling after training.
//!
//! **What it does.** Shrinks what a training changed in early blocks and keeps it in late ones,
//! linearly in depth: general ability, which sits early, comes back; the new task, which sits
//! late, stays.
//! **Source.** Wang et al., ICLR 2025, "LiNeS: post-training layer scaling prevents forgetting and
//! enhances model merging" (card S153).
//! **Equation.** `θ = θ0 + Σ_l λ_l τ_l` with `λ_l = α + β l/(L−1)` for blocks `l = 0 … L−1`, and α
//! for what stands in no block (embeddings, the last norm, the head). One model: `β = 1 − α`. A
//! merge of T tasks: `α = ‖Σ_t τ_t‖₁ / (T ‖τ‖₁)` with τ the merged task vector, and β searched.
//! **Use it** on a fine-tuned model that forgot, with α between 0 and 0.5 (0 needs no data to
//! choose it), and on top of any merge. **Not** where what was learned sits early: new words, a
//! new kind of input.
//! **Stores** nothing. **Costs** a multiplication an entry, once.
//!
//! Decided here: a block's number is the first part of a path that is a whole number
//! (`model.layers.11.mlp.up_proj.weight` is block 11); one block alone counts as the last one.

use crate::Weights;

/// The number of the block that a path belongs to.
pub fn block_of(path: &str) -> Option<usize> {
    path.split('.').find_map(|part| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| part.parse().ok()).flatten()
    })
}

/// How much of a change is kept at each depth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    alpha: f64,
    beta: f64,
    blocks: usize,
}

impl Ramp {
    /// From `alpha` in the first block (and outside of all blocks) to `alpha + beta` in the last.
    pub fn new<'a>(alpha: f64, beta: f64, paths: impl IntoIterator<Item = &'a str>) -> Ramp {
        let last = paths.into_iter().filter_map(block_of).max();
        Ramp {
            alpha,
            beta,
            blocks: last.map_or(0, |last| last.saturating_add(1)),
        }
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// λ of a tensor.
    pub fn factor(&self, path: &str) -> f64 {
        match block_of(path) {
            None => self.alpha,
            Some(_) if self.blocks <= 1 => self.alpha + self.beta,
            Some(l) => self.alpha + self.beta * l as f64 / (self.blocks - 1) as f64,
        }
    }

    /// `τ_l ← λ_l τ_l`.
    pub fn scale(&self, tau: &mut Weights) {
        let layout = tau.layout().clone();
        for entry in layout.entries() {
            let factor = self.factor(&entry.path) as f32;
            for value in &mut tau.as_mut_slice()[entry.range.clone()] {
                *value *= factor;
            }
        }
    }
}

/// The α of a merge: `‖Σ_t τ_t‖₁ / (T ‖τ‖₁)`, which is `1/T` for the sum and 1 for the mean. 0 where
/// nothing is merged.
pub fn merge_alpha(sum_norm: f64, merged_norm: f64, tasks: usize) -> f64 {
    if merged_norm > 0.0 && tasks > 0 {
        sum_norm / (merged_norm * tasks as f64)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::Rule;
    use super::super::tests::{random, tasks};
    use super::*;
    use crate::Layout;

    #[test]
    fn blocks_are_numbers_and_not_parts_of_numbers() {
        for (path, block) in [
            ("model.layers.1.self_attn.q_proj.weight", Some(1)),
            ("model.layers.11.self_attn.q_proj.weight", Some(11)),
            ("transformer.h.3.mlp.c_fc.weight", Some(3)),
            ("layers.2.experts.7.w1.weight", Some(2)),
            ("model.embed_tokens.weight", None),
            ("layer1.weight", None),
            ("head..weight", None),
            ("a.99999999999999999999999.weight", None),
        ] {
            assert_eq!(block_of(path), block, "{path}");
        }
    }

    #[test]
    fn the_ends_of_the_ramp_and_its_middle() {
        let paths = ["embed", "b.0.w", "b.1.w", "b.2.w", "b.3.w", "b.4.w", "norm"];
        let ramp = Ramp::new(0.25, 0.75, paths);
        assert_eq!(ramp.blocks(), 5);
        let factors = paths.map(|path| ramp.factor(path));
        assert_eq!(factors, [0.25, 0.25, 0.4375, 0.625, 0.8125, 1.0, 0.25]);
        // α = 1 and β = 0: nothing is scaled.
        let l = Layout::new(paths.map(|path| (path.to_owned(), vec![5]))).expect("paths");
        let tau = random(&l, "tau");
        let mut same = tau.clone();
        Ramp::new(1.0, 0.0, paths).scale(&mut same);
        assert_eq!(same.as_slice(), tau.as_slice());
        let mut scaled = tau.clone();
        ramp.scale(&mut scaled);
        for (path, factor) in paths.iter().zip(factors) {
            let each = scaled.get(path).expect("there").iter();
            for (found, before) in each.zip(tau.get(path).expect("there")) {
                assert_eq!(*found, before * factor as f32);
            }
        }
        // One block, and none.
        assert_eq!(Ramp::new(0.0, 1.0, ["b.0.w", "head"]).factor("b.0.w"), 1.0);
        assert_eq!(Ramp::new(0.5, 0.5, ["embed"]).factor("embed"), 0.5);
    }

    #[test]
    fn the_alpha_of_a_merge_is_one_over_tasks_for_the_sum() {
        let l = Layout::new([("b.0.w".into(), vec![300])]).expect("paths");
        let taus: Vec<Weights> = (0..4).map(|i| random(&l, &format!("{i}"))).collect();
        let all: Vec<&Weights> = taus.iter().collect();
        let l1 = |w: &Weights| w.by_layer().map(|layer| layer.abs_sum).sum::<f64>();
        let sum = Rule::Sum.merged(&tasks(&[1.0; 4]), &all).expect("merged");
        let mean = Rule::Mean.merged(&tasks(&[1.0; 4]), &all).expect("merged");
        assert!((merge_alpha(l1(&sum), l1(&sum), 4) - 0.25).abs() < 1e-12);
        assert!((merge_alpha(l1(&sum), l1(&mean), 4) - 1.0).abs() < 1e-6);
        assert_eq!(merge_alpha(0.0, 0.0, 4), 0.0);
    }
}
