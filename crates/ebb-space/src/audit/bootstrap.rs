//! The bootstrap over the examples of two groups.
//!
//! **What it does.** Draws members among members and others among others, with replacement, and
//! computes the measure again. **Source.** Efron, 1979. **Not** for fewer than some twenty examples a
//! group, and not across seeds: it says how the measure varies with the examples, for this one model.

use crate::stats::{Interval, check_level, quantile};
use crate::{Error, Key, Result};

/// How an interval over examples is drawn: the same three numbers give the same interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bootstrap {
    /// Level of the interval, in (0, 1).
    pub level: f64,
    /// How often the examples are drawn again; 1000 does for 95 %.
    pub resamples: usize,
    /// Decides the draws.
    pub key: Key,
}

impl Bootstrap {
    /// Percentile interval of `statistic`, which gets the places drawn in each group. `sizes` are at
    /// least 1.
    pub(super) fn percentile(
        &self,
        sizes: [usize; 2],
        statistic: impl Fn([&[usize]; 2]) -> f64,
    ) -> Result<Interval> {
        let all: [Vec<usize>; 2] = sizes.map(|n| (0..n).collect());
        let value = statistic([&all[0], &all[1]]);
        let values = self.values(sizes, statistic)?;
        let at = |q| quantile(&values, q);
        // A skewed statistic can lie outside of its own draws; an interval holds its estimate.
        Ok(Interval {
            value,
            low: at(0.5 - self.level / 2.0)?.min(value),
            high: at(0.5 + self.level / 2.0)?.max(value),
        })
    }

    /// The value that `statistic` stays below in a share `level` of the draws.
    pub(super) fn quantile(
        &self,
        sizes: [usize; 2],
        statistic: impl Fn([&[usize]; 2]) -> f64,
    ) -> Result<f64> {
        quantile(&self.values(sizes, statistic)?, self.level)
    }

    fn values(
        &self,
        sizes: [usize; 2],
        statistic: impl Fn([&[usize]; 2]) -> f64,
    ) -> Result<Vec<f64>> {
        check_level(self.level)?;
        if self.resamples == 0 {
            return Err(Error::SampleTooSmall {
                needed: 1,
                found: 0,
            });
        }
        let mut drawn = sizes.map(|n| vec![0; n]);
        let values = (0..self.resamples as u64).map(|resample| {
            let mut stream = self.key.at(resample).stream();
            for group in &mut drawn {
                let n = group.len() as u64;
                group
                    .iter_mut()
                    .for_each(|place| *place = stream.below(n) as usize);
            }
            statistic([&drawn[0], &drawn[1]])
        });
        Ok(values.collect())
    }
}
