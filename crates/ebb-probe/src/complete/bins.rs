//! Damage counted by bin: where collateral damage lies, from what is rehearsed anyway (mix-cd).
//!
//! **What it does.** Keeps, for bins of examples that the base answers right, how many were rehearsed
//! and how many of these were wrong by then; a bin's share forecasts its examples.
//! **Source.** Bai, Yeh, Hsieh & Taly, Findings of NAACL 2025 (card S067). Smoothing and forgetting
//! are this project's choice, as the card says: a Beta(1, 1) prior, and counts that decay by 0.99 a
//! step.
//! **Equation.** `α_k = (d_k + 1)/(n_k + 2)`; every step `n, d ← 0.99 n, 0.99 d`; draws in proportion
//! to `α` of the bin, or to `α` alone where bins are alike in size.
//! **Use it** where storage is free and forward passes are not: it asks for none. **Not** with examples
//! that the base has wrong: they look damaged forever, and belong into no bin.
//! **Stores** two counters a bin. **Costs** nothing: what is counted are passes of training itself.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Counters of bins. Saved as it is, it goes on to the same bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DamageBins {
    /// The bin of each example; none: it is never rehearsed.
    bins: Vec<Option<u32>>,
    rehearsed: Vec<f64>,
    damaged: Vec<f64>,
    decay: f64,
}

impl DamageBins {
    /// Bins by quantiles of the loss under the base, of the examples that it answers right.
    ///
    /// # Errors
    /// When the lists differ in length, there is no bin, or a loss is not finite.
    pub fn by_loss(base_loss: &[f32], base_correct: &[bool], bins: usize) -> Result<DamageBins> {
        if base_loss.len() != base_correct.len() || bins == 0 {
            return Err(Error::Shape(format!(
                "{} losses and {} answers for {bins} bins",
                base_loss.len(),
                base_correct.len()
            )));
        }
        if let Some(loss) = base_loss.iter().find(|l| !l.is_finite()) {
            return Err(Error::Shape(format!("a loss is {loss}")));
        }
        let mut order: Vec<usize> = (0..base_loss.len()).filter(|j| base_correct[*j]).collect();
        order.sort_by(|a, b| base_loss[*a].total_cmp(&base_loss[*b]).then(a.cmp(b)));
        let mut of = vec![None; base_loss.len()];
        let count = order.len().max(1);
        for (rank, j) in order.into_iter().enumerate() {
            of[j] = Some((rank * bins / count) as u32);
        }
        Ok(DamageBins {
            bins: of,
            rehearsed: vec![0.0; bins],
            damaged: vec![0.0; bins],
            decay: 0.99,
        })
    }

    /// An example was rehearsed, and (before the step) answered so.
    pub fn observe(&mut self, example: usize, correct: bool) {
        if let Some(Some(bin)) = self.bins.get(example) {
            self.rehearsed[*bin as usize] += 1.0;
            self.damaged[*bin as usize] += f64::from(u8::from(!correct));
        }
    }

    /// A step is over: old counts fade.
    pub fn end_step(&mut self) {
        let counts = self.rehearsed.iter_mut().chain(&mut self.damaged);
        counts.for_each(|c| *c *= self.decay);
    }

    /// `α` of each bin.
    pub fn shares(&self) -> Vec<f64> {
        let each = self.damaged.iter().zip(&self.rehearsed);
        each.map(|(d, n)| (d + 1.0) / (n + 2.0)).collect()
    }

    /// A score of each example: `α` of its bin, 0 for those in none.
    pub fn scores(&self) -> Vec<f64> {
        let shares = self.shares();
        self.bins
            .iter()
            .map(|bin| bin.map_or(0.0, |k| shares[k as usize]))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_space::Key;

    #[test]
    fn bins_are_quantiles_of_what_the_base_has_right() {
        let loss: Vec<f32> = (0..12).map(|j| (11 - j) as f32).collect();
        let correct: Vec<bool> = (0..12).map(|j| j != 0 && j != 11).collect();
        let bins = DamageBins::by_loss(&loss, &correct, 5).unwrap();
        assert_eq!((bins.bins[0], bins.bins[11]), (None, None));
        assert_eq!(
            (bins.bins[10], bins.bins[9], bins.bins[1]),
            (Some(0), Some(0), Some(4))
        );
        assert!(DamageBins::by_loss(&loss, &correct[..3], 5).is_err());
        assert!(DamageBins::by_loss(&loss, &correct, 0).is_err());
    }

    /// Shares of a world in which they are known; and the counters against the sum written out.
    #[test]
    fn shares_come_to_the_rates_and_fade_as_they_say() {
        let loss: Vec<f32> = (0..100).map(|j| j as f32).collect();
        let mut bins = DamageBins::by_loss(&loss, &[true; 100], 4).unwrap();
        let key = Key::new(1, "damage");
        let (mut n, mut d) = (0.0, 0.0);
        for step in 0..2000u64 {
            for draw in 0..4 {
                let j = (key.at(draw).uniform(step) * 100.0) as usize;
                let rate = [0.1, 0.3, 0.5, 0.7][j / 25];
                let wrong = key.sub("wrong").at(draw).uniform(step) < rate;
                bins.observe(j, !wrong);
                if j / 25 == 3 {
                    n += 1.0;
                    d += f64::from(wrong);
                }
            }
            bins.end_step();
            (n, d) = (0.99 * n, 0.99 * d);
        }
        let shares = bins.shares();
        assert!((shares[3] - (d + 1.0) / (n + 2.0)).abs() < 1e-12);
        // About a hundred counts a bin are in memory: three deviations are 0.15.
        for (share, rate) in shares.iter().zip([0.1, 0.3, 0.5, 0.7]) {
            assert!((share - rate).abs() < 0.15, "{shares:?}");
        }
        assert_eq!(bins.scores()[99], shares[3]);
        let again: DamageBins =
            serde_json::from_str(&serde_json::to_string(&bins).unwrap()).unwrap();
        assert_eq!(again, bins);
    }
}
