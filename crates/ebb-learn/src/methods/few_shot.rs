//! A test by a few examples: nearest class mean on features that do not move.
//!
//! **What it does.** From experience `from` on nothing is trained. Each later experience shows
//! `shots` examples a class, and the model answers by the nearest mean of their features: how well
//! can what was learned so far tell classes apart under conditions it never saw.
//! **Source.** Nearest class mean of prototypical networks (Snell et al., NeurIPS 2017); the test
//! of card S213.
//! **Equation.** `argmin_c ‖f(x) − μ_c‖²`, `μ_c` the mean of `f` over class `c`'s few examples.
//! **Use it** to compare representations. **Not** as a method: it stops learning.
//! **Stores** a mean a class. **Costs** a pass over the few examples an experience, instead of its
//! training (whose steps are taken and undone).

use crate::error::Result;
use crate::methods::remind::no_running_statistics;
use crate::oracle::{Oracle, Readout};
use crate::plugin::{Kept, Plugin, Scene};
use ebb_data::Item;
use ebb_space::{Layout, Mask, Weights};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// When the test begins, and by how many examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct FewShotSettings {
    /// The first experience that is a test.
    pub from: usize,
    /// Examples a class.
    pub shots: usize,
}

impl Default for FewShotSettings {
    fn default() -> Self {
        Self { from: 1, shots: 5 }
    }
}

/// The plugin.
pub struct FewShot {
    settings: FewShotSettings,
    /// Of each output met in the test under way, the mean features.
    means: BTreeMap<u32, Vec<f32>>,
}

impl FewShot {
    /// A plugin with these settings.
    pub fn new(settings: FewShotSettings) -> Self {
        Self {
            settings,
            means: BTreeMap::new(),
        }
    }
}

struct NearestMean(BTreeMap<u32, Vec<f32>>);

impl Readout for NearestMean {
    fn scores(&self, features: &[f32], rows: usize, outputs: usize) -> Vec<f32> {
        let mut scores = vec![f32::MIN; rows * outputs];
        let width = features.len() / rows.max(1);
        for (f, scores) in features
            .chunks_exact(width)
            .zip(scores.chunks_exact_mut(outputs))
        {
            for (c, mean) in &self.0 {
                let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
                scores[*c as usize] = -f.iter().zip(mean).map(square).sum::<f64>() as f32;
            }
        }
        scores
    }
}

/// `n` examples of each label, by smallest keyed draw.
pub(crate) fn few(items: &[Item], n: usize, key: ebb_space::Key) -> Vec<Item> {
    let mut order = items.to_vec();
    key.order(&mut order, |i| i.id.mix());
    let mut left: BTreeMap<u32, usize> = BTreeMap::new();
    order.retain(|item| {
        let taken = left.entry(item.label).or_default();
        *taken += 1;
        *taken <= n
    });
    order
}

/// The mean features of each label, `features` a row an item.
pub(crate) fn means(features: &[f32], labels: &[u32]) -> BTreeMap<u32, Vec<f32>> {
    let width = features.len() / labels.len().max(1);
    let mut sums: BTreeMap<u32, (Vec<f64>, usize)> = BTreeMap::new();
    for (f, label) in features.chunks_exact(width.max(1)).zip(labels) {
        let (sum, n) = sums.entry(*label).or_insert_with(|| (vec![0.0; width], 0));
        sum.iter_mut().zip(f).for_each(|(s, f)| *s += f64::from(*f));
        *n += 1;
    }
    let mean = |(sum, n): (Vec<f64>, usize)| sum.iter().map(|s| (s / n as f64) as f32).collect();
    sums.into_iter().map(|(c, all)| (c, mean(all))).collect()
}

impl Plugin for FewShot {
    fn name(&self) -> &'static str {
        "few-shot"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if scene.experience >= self.settings.from {
            no_running_statistics(&scene.oracle.model, "few-shot")?;
            let all = Mask::all(scene.oracle.model.layout());
            scene.freeze(all);
        }
        Ok(())
    }

    fn end_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if scene.experience < self.settings.from {
            return Ok(());
        }
        let key = scene.key.sub("shots").at(scene.experience as u64);
        let items = few(scene.train(), self.settings.shots, key);
        let batch = scene.batch_of("shots", &items);
        let (_, features) = scene.oracle.forward(&batch);
        self.means = means(&features, &batch.rows.labels);
        scene.oracle.readout = Some(Box::new(NearestMean(self.means.clone())));
        Ok(())
    }

    fn keep(&self) -> Result<Kept> {
        let entries = self
            .means
            .iter()
            .map(|(c, m)| (format!("{c}"), vec![m.len()]));
        let layout = Layout::new(entries)?;
        let values = self.means.values().flatten().copied().collect();
        let means = Weights::from_vec(&layout, values)?;
        Ok(Kept::vectors(vec![("means".into(), means)]))
    }

    fn restore(&mut self, mut kept: Kept, oracle: &mut Oracle) -> Result<()> {
        let kept = kept.take("means");
        let entry = |(e, v): (&ebb_space::Entry, &[f32])| Some((e.path.parse().ok()?, v.to_vec()));
        let network = oracle.model.network();
        let fits = |(c, mean): &(u32, Vec<f32>)| {
            (*c as usize) < network.outputs() && mean.len() == network.features()
        };
        let means = kept.iter().flat_map(|w| w.iter().filter_map(entry));
        self.means = means.filter(fits).collect();
        if !self.means.is_empty() {
            oracle.readout = Some(Box::new(NearestMean(self.means.clone())));
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.means.values().map(|m| 4 * m.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mean_answers() {
        let features = [0.0, 0.0, 2.0, 0.0, 10.0, 10.0, 9.0, 1.0];
        let means = means(&features, &[1, 1, 3, 0]);
        assert_eq!(means[&1], [1.0, 0.0]);
        assert_eq!(means[&3], [10.0, 10.0]);
        let scores = NearestMean(means).scores(&[1.0, 2.0], 1, 5);
        assert_eq!(scores, [-65.0, -4.0, f32::MIN, -145.0, f32::MIN]);
    }
}
