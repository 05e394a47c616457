//! How far an input is from what was learned (OpenMax; card S210).
//!
//! Of each class, the mean of its correctly classified examples' features and a Weibull
//! distribution of the largest distances `1 − cos` to it. The distribution at an input's distance
//! to the mean of the class it is taken for is its chance of being an outlier: a continual learner
//! may reject it, ask for its label, or leave it out of what it replays.
//! **Source.** Bendale & Boult, CVPR 2016; Mundt et al., 2023, "A wholistic view of continual
//! learning with deep neural networks", who take the latent space of an autoencoder.

use ebb_space::stats::Weibull;
use std::collections::BTreeMap;

/// Fewest distances a Weibull is fitted to; with fewer the distances themselves are the
/// distribution.
const FEWEST: usize = 20;

/// The classes, each with its distances.
#[derive(Clone, Debug)]
pub struct OpenSet {
    classes: BTreeMap<u32, Class>,
}

#[derive(Clone, Debug)]
struct Class {
    mean: Vec<f64>,
    tail: Tail,
}

#[derive(Clone, Debug)]
enum Tail {
    Fitted(Weibull),
    /// Sorted.
    Counted(Vec<f64>),
}

/// `1 − cos`; 1 where one of them has no length.
fn distance(row: &[f32], mean: &[f64]) -> f64 {
    let (mut rr, mut mm, mut rm) = (0.0, 0.0, 0.0);
    for (r, m) in row.iter().zip(mean) {
        let r = f64::from(*r);
        rr += r * r;
        mm += m * m;
        rm += r * m;
    }
    match rr * mm > 0.0 {
        true => (1.0 - rm / (rr * mm).sqrt()).max(0.0),
        false => 1.0,
    }
}

impl OpenSet {
    /// Of rows of features of `width` values with their classes, correctly classified ones alone;
    /// `tail` is the share of the largest distances that is fitted, of at least twenty. Of rows
    /// without features nothing is known.
    pub fn fit(features: &[f32], labels: &[u32], width: usize, tail: f64) -> OpenSet {
        let mut rows: BTreeMap<u32, Vec<&[f32]>> = BTreeMap::new();
        for (row, label) in features.chunks_exact(width.max(1)).zip(labels) {
            rows.entry(*label).or_default().push(row);
        }
        let class = |rows: Vec<&[f32]>| {
            let mut mean = vec![0.0; width];
            for row in &rows {
                let each = mean.iter_mut().zip(*row);
                each.for_each(|(m, v)| *m += f64::from(*v) / rows.len() as f64);
            }
            let mut distances: Vec<f64> = rows.iter().map(|r| distance(r, &mean)).collect();
            distances.sort_by(f64::total_cmp);
            let count = ((tail * rows.len() as f64).ceil() as usize).max(FEWEST);
            let largest = &distances[distances.len().saturating_sub(count)..];
            let tail = match Weibull::fit(largest) {
                Ok(fit) if largest.len() >= FEWEST => Tail::Fitted(fit),
                _ => Tail::Counted(distances),
            };
            Class { mean, tail }
        };
        OpenSet {
            classes: rows.into_iter().map(|(c, rows)| (c, class(rows))).collect(),
        }
    }

    /// The chance that a row taken for `class` is an outlier; 1 for a class nothing is known of.
    pub fn outlier(&self, row: &[f32], class: u32) -> f64 {
        let Some(known) = self.classes.get(&class) else {
            return 1.0;
        };
        let d = distance(row, &known.mean);
        match &known.tail {
            Tail::Fitted(weibull) => weibull.cdf(d),
            Tail::Counted(all) => {
                let below = all.partition_point(|other| *other < d);
                below as f64 / (all.len() + 1) as f64
            }
        }
    }

    /// The same with the classes' means dealt to other classes: a control in which the distance
    /// says nothing of the class. With one class there is no other, and nothing changes.
    #[must_use]
    pub fn shifted(&self) -> OpenSet {
        let names: Vec<u32> = self.classes.keys().copied().collect();
        let others = self.classes.values().cycle().skip(1);
        OpenSet {
            classes: names.into_iter().zip(others.cloned()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebb_space::Key;

    /// Rows around two directions, `n` of each.
    fn rows(n: usize, purpose: &str) -> (Vec<f32>, Vec<u32>) {
        let mut s = Key::new(8, purpose).stream();
        let mut features = Vec::new();
        let mut labels = Vec::new();
        for i in 0..2 * n {
            let class = i % 2;
            for j in 0..4 {
                let on = if j == class { 1.0 } else { 0.0 };
                features.push((on + 0.1 * s.normal()) as f32);
            }
            labels.push(class as u32);
        }
        (features, labels)
    }

    #[test]
    fn few_known_rows_are_outliers_and_foreign_ones_are() {
        let (features, labels) = rows(400, "known");
        let set = OpenSet::fit(&features, &labels, 4, 0.05);
        let (fresh, classes) = rows(400, "fresh");
        let of_fresh = fresh.chunks_exact(4).zip(&classes);
        let rejected = of_fresh
            .filter(|(row, c)| set.outlier(row, **c) > 0.5)
            .count();
        // Half of the tail of 5 % lies beyond its median.
        assert!((5..=45).contains(&rejected), "{rejected} of 800");
        for (row, class) in [([0.0, 0.0, 1.0, 0.0], 0), ([0.0, 1.0, 0.0, 0.0], 0)] {
            assert!(set.outlier(&row, class) > 0.999);
        }
        assert!(set.outlier(&[1.0, 0.0, 0.0, 0.0], 0) < 1e-3);
        assert_eq!(set.outlier(&[1.0, 0.0, 0.0, 0.0], 7), 1.0);
        // With the means exchanged it is the known that are far.
        assert!(set.shifted().outlier(&[1.0, 0.0, 0.0, 0.0], 0) > 0.999);
    }

    #[test]
    fn too_few_for_a_fit_are_counted() {
        let (features, labels) = rows(9, "few");
        let set = OpenSet::fit(&features, &labels, 4, 0.05);
        let far = set.outlier(&[0.0, 0.0, 0.0, 1.0], 0);
        assert_eq!(far, 0.9, "beyond nine of nine");
        let none = OpenSet::fit(&[], &[0, 1], 0, 0.05);
        assert_eq!(
            none.outlier(&[], 0),
            1.0,
            "without features nothing is known"
        );
        // Ties cannot be fitted either.
        let same = OpenSet::fit(&[1.0, 2.0].repeat(50), &[0; 50], 2, 0.5);
        assert!(same.outlier(&[1.0, 2.0], 0) < 0.5);
    }
}
