//! Regularised low-rank adaptation (RegLoRA).
//!
//! **What it does.** It remembers where earlier adapters changed the weights most, and keeps later
//! adapters small exactly there.
//! **Source.** Chen et al., 2025, "SEFE: Superficial and essential forgetting eliminator for
//! multimodal continual instruction tuning" (card S036; its other half, answers in other styles, is a
//! matter of the data).
//! **Equation.** `L + λ Σ_maps mean over (i, j) ∈ ∪_k I_k of |(B A)_ij|`, `I_k` the `share` of entries
//! of `|B_k A_k|` that were largest after experience k; adapters are merged. λ is large since the mean
//! is over many entries; α/r is not part of it. A position that two experiences chose counts once
//! (the reference counts it twice).
//! **Use it** for tasks in a row that write into the same facts. **Not** for very many: every
//! experience adds positions, until all of the matrix is held.
//! **Stores** the adapters that were merged; positions are found again from them. **Costs** two
//! products of length `rank` a position and step; `B A` is never made.

use crate::batch::Batch;
use crate::error::Result;
use crate::methods::lora::LoraSettings;
use crate::methods::{MethodCard, read, settings, take};
use crate::oracle::{Oracle, PassResult};
use crate::plugin::{Kept, Plugin, Scene};
use crate::spec::{Parts, PluginSpec};
use ebb_net::{Between, Gate};
use ebb_space::{Entry, Key, Layout, Weights};
use serde::{Deserialize, Serialize};

/// RegLoRA's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct KeyElementsSettings {
    /// λ.
    pub lambda: f64,
    /// Share of a matrix's entries that an experience holds.
    pub share: f64,
    /// As many entries anywhere in the place of the largest: a control.
    pub shuffled: bool,
}

impl Default for KeyElementsSettings {
    fn default() -> Self {
        Self {
            lambda: 2500.0,
            share: 0.02,
            shuffled: false,
        }
    }
}

/// The two factors of a map's update in the trained space.
struct Factors {
    down: Entry,
    up: Entry,
    inputs: usize,
    rank: usize,
}

/// Every map's factors.
fn factors(layout: &Layout) -> Vec<Factors> {
    let pair = |down: &Entry| {
        let path = down.path.strip_suffix(".lora_A.weight")?;
        let up = layout.find(&format!("{path}.lora_B.weight"))?.clone();
        Some(Factors {
            inputs: *down.shape.get(1)?,
            rank: *down.shape.first()?,
            down: down.clone(),
            up,
        })
    };
    layout.entries().iter().filter_map(pair).collect()
}

impl Factors {
    /// `(B A)_ij`.
    fn at(&self, values: &[f32], (i, j): (usize, usize)) -> f64 {
        let (a, b) = (
            &values[self.down.range.clone()],
            &values[self.up.range.clone()],
        );
        (0..self.rank)
            .map(|k| f64::from(b[i * self.rank + k]) * f64::from(a[k * self.inputs + j]))
            .sum()
    }

    /// The `share` of positions with the largest `|B A|`, the first of equal ones first.
    fn largest(&self, values: &[f32], share: f64) -> Vec<u32> {
        self.first(share, |p| {
            let v = self.at(values, (p / self.inputs, p % self.inputs));
            v.abs() as f32
        })
    }

    /// The `share` of positions with the highest scores.
    fn first(&self, share: f64, score: impl Fn(usize) -> f32) -> Vec<u32> {
        let size = self.up.shape[0] * self.inputs;
        let count = (share * size as f64).round() as usize;
        let mut all: Vec<(f32, u32)> = (0..size).map(|p| (score(p), p as u32)).collect();
        let order = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if count < all.len() {
            all.select_nth_unstable_by(count, order);
            all.truncate(count);
        }
        all.into_iter().map(|(_, p)| p).collect()
    }

    /// Adds the gradient of `λ mean |(B A)_ij|` over `positions`.
    fn add_gradient(&self, lambda: f64, positions: &[u32], theta: &[f32], g: &mut [f32]) {
        let each = lambda / positions.len().max(1) as f64;
        for &p in positions {
            let (i, j) = (p as usize / self.inputs, p as usize % self.inputs);
            let v = self.at(theta, (i, j));
            if v == 0.0 {
                continue;
            }
            let pull = (each * v.signum()) as f32;
            let (down, up) = (self.down.range.start, self.up.range.start);
            for k in 0..self.rank {
                let (a, b) = (down + k * self.inputs + j, up + i * self.rank + k);
                g[b] += pull * theta[a];
                g[a] += pull * theta[b];
            }
        }
    }
}

/// The plugin.
pub struct KeyElements {
    settings: KeyElementsSettings,
    /// The positions held in each map, ascending.
    positions: Vec<Vec<u32>>,
    /// Adapters looked at so far.
    turns: u64,
}

impl KeyElements {
    /// A plugin with these settings.
    pub fn new(settings: KeyElementsSettings) -> Self {
        Self {
            settings,
            positions: Vec::new(),
            turns: 0,
        }
    }

    /// Holds where this adapter is large, too.
    fn hold(&mut self, adapter: &Weights) {
        let maps = factors(adapter.layout());
        self.positions.resize(maps.len(), Vec::new());
        let share = self.settings.share;
        let key = Key::new(self.turns, "key elements");
        self.turns += 1;
        for (map, held) in maps.iter().zip(&mut self.positions) {
            let key = key.sub(&map.down.path);
            held.extend(match self.settings.shuffled {
                true => map.first(share, |p| key.uniform(p as u64) as f32),
                false => map.largest(adapter.as_slice(), share),
            });
            held.sort_unstable();
            held.dedup();
        }
    }
}

impl Plugin for KeyElements {
    fn name(&self) -> &'static str {
        "key-elements"
    }

    fn change_gradient(
        &mut self,
        scene: &mut Scene,
        _: &Batch,
        _: &PassResult,
        gradient: &mut Weights,
    ) -> Result<()> {
        if self.positions.is_empty() {
            return Ok(());
        }
        let theta = scene.oracle.model.weights();
        for (map, held) in factors(theta.layout()).iter().zip(&self.positions) {
            let g = gradient.as_mut_slice();
            map.add_gradient(self.settings.lambda, held, theta.as_slice(), g);
        }
        Ok(())
    }

    fn end_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if scene.steps > 0 {
            self.hold(&scene.oracle.model.weights());
        }
        Ok(())
    }

    fn restore(&mut self, _: Kept, oracle: &mut Oracle) -> Result<()> {
        (self.positions, self.turns) = (Vec::new(), 0);
        for adapter in oracle.model.turned() {
            self.hold(adapter);
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.positions.iter().map(|p| 4 * p.len() as u64).sum()
    }
}

/// RegLoRA in the table of methods.
pub const REG_LORA: MethodCard = MethodCard {
    name: "reg-lora",
    aliases: &["sefe"],
    title: "Regularised low-rank adaptation",
    source: "Chen et al., 2025",
    card: "S036",
    family: "adapter",
    use_it: "for tasks in a row on a pretrained model that write into the same facts",
    not_for: "very many tasks: in the end every entry is held",
    stores: "the adapters that were merged, and positions",
    costs: "two products of length `rank` a held position and step",
    defaults: || {
        let mut table = settings(&LoraSettings {
            between: Between::Merge,
            ..LoraSettings::default()
        });
        table.extend(settings(&KeyElementsSettings::default()));
        table
    },
    expand: |with, _| {
        let mut with = with.clone();
        let elements = KeyElementsSettings {
            lambda: take(&mut with, "lambda")?,
            share: take(&mut with, "share")?,
            shuffled: take(&mut with, "shuffled")?,
        };
        Ok(Parts {
            adapter: Some(read::<LoraSettings>(&with)?.adapter(Gate::Open)),
            plugin: vec![PluginSpec::KeyElements(elements)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Two maps, 3 x 4 and 2 x 4, rank 2.
    fn adapter(seed: u64) -> Weights {
        let entries = [
            ("p.lora_A.weight", vec![2, 4]),
            ("p.lora_B.weight", vec![3, 2]),
            ("q.lora_A.weight", vec![2, 4]),
            ("q.lora_B.weight", vec![2, 2]),
        ];
        let layout = Layout::new(entries.map(|(p, s)| (p.to_owned(), s))).expect("four");
        let mut weights = Weights::zeros(&layout);
        let mut stream = Key::new(seed, "adapter").stream();
        let values = weights.as_mut_slice().iter_mut();
        values.for_each(|v| *v = stream.normal() as f32);
        weights
    }

    #[test]
    fn the_gradient_is_that_of_the_written_out_penalty() {
        let mut plugin = KeyElements::new(KeyElementsSettings {
            lambda: 3.0,
            share: 0.25,
            shuffled: false,
        });
        plugin.hold(&adapter(1));
        plugin.hold(&adapter(2));
        let theta = adapter(3);
        let maps = factors(theta.layout());
        assert!(
            plugin.positions[0].len() > 3,
            "two quarters of twelve, some of them the same"
        );
        let penalty = |values: &[f32]| -> f64 {
            let of = |(map, held): (&Factors, &Vec<u32>)| {
                let entry = |p: &u32| {
                    let at = (*p as usize / map.inputs, *p as usize % map.inputs);
                    map.at(values, at).abs()
                };
                held.iter().map(entry).sum::<f64>() / held.len() as f64
            };
            3.0 * maps.iter().zip(&plugin.positions).map(of).sum::<f64>()
        };
        let mut gradient = theta.zeros_like();
        for (map, held) in maps.iter().zip(&plugin.positions) {
            map.add_gradient(3.0, held, theta.as_slice(), gradient.as_mut_slice());
        }
        for i in 0..theta.as_slice().len() {
            let h = 1e-3;
            let (mut up, mut down) = (theta.as_slice().to_vec(), theta.as_slice().to_vec());
            up[i] += h;
            down[i] -= h;
            let exact = (penalty(&up) - penalty(&down)) / f64::from(up[i] - down[i]);
            let found = f64::from(gradient.as_slice()[i]);
            assert!((found - exact).abs() < 1e-3, "{i}: {found} and {exact}");
        }
    }

    #[test]
    fn the_largest_entries_of_the_product_are_held() {
        let theta = adapter(4);
        let map = &factors(theta.layout())[0];
        let mut all: Vec<(f64, u32)> = (0..12)
            .map(|p| {
                (
                    map.at(theta.as_slice(), (p as usize / 4, p as usize % 4))
                        .abs(),
                    p,
                )
            })
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut want: Vec<u32> = all.iter().take(3).map(|(_, p)| *p).collect();
        let mut found = map.largest(theta.as_slice(), 0.25);
        want.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, want);
    }
}
