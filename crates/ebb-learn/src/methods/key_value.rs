//! Discrete key-value bottleneck.
//!
//! **What it does.** Before the first experience it puts the keys of a `key-value` network where
//! its fixed projections of unlabelled inputs lie, by k-means in each codebook, and leaves them
//! there for good. Training then moves the values that a batch fetches, and no others.
//! **Source.** Träuble et al., ICML 2023, "Discrete key-value bottleneck" (card S209). Its keys
//! follow an exponential average with dead codes put anew; k-means is that at its fixed point.
//! **Equation.** `logits = 1/C Σ_c v_{c,k_c}`, `k_c = argmin_k ‖P_c f(x) − key_{c,k}‖²`.
//! **Use it** without task boundaries, on frozen features. **Not** with keys of the first classes
//! alone: later ones then share what they fetch (`from = "first"` shows it).
//! **Stores** the keys, as part of the network. **Costs** the distances to all keys, forward only.

use crate::error::{Error, Result};
use crate::methods::{MethodCard, settings};
use crate::plugin::{Plugin, Scene};
use crate::spec::{Parts, PluginSpec};
use ebb_data::{Item, Part};
use ebb_space::k_means;
use serde::{Deserialize, Serialize};

/// Whose inputs the keys are put among.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum From {
    /// Those of the whole stream, without their labels.
    #[default]
    Stream,
    /// Those of the first experience.
    First,
}

/// The keys' numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct KeysSettings {
    /// Whose inputs.
    pub from: From,
    /// How many of them.
    pub samples: usize,
    /// Rounds of k-means.
    pub rounds: usize,
}

impl Default for KeysSettings {
    fn default() -> Self {
        Self {
            from: From::Stream,
            samples: 5000,
            rounds: 10,
        }
    }
}

/// The plugin.
pub struct Keys {
    settings: KeysSettings,
}

impl Keys {
    /// A plugin with these settings.
    pub fn new(settings: KeysSettings) -> Self {
        Self { settings }
    }
}

impl Plugin for Keys {
    fn name(&self) -> &'static str {
        "keys"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if scene.experience > 0 {
            return Ok(());
        }
        let key = scene.key.sub("keys");
        let mut buffers = scene.oracle.model.buffers().clone();
        let sizes = |path: &str| buffers.layout().find(path).map(|e| e.shape.clone());
        let (Some(keys), Some(projection)) = (sizes("keys"), sizes("projection.weight")) else {
            return Err(Error::Recipe {
                reason: "the plugin `keys` puts the keys of a key-value network in their places: \
                         use network = { kind = \"key-value\" }"
                    .into(),
            });
        };
        let (all, width) = (projection[0], keys[1]);
        let books = all / width;
        let each = keys[0] / books;
        let mut items: Vec<Item> = match self.settings.from {
            From::Stream => scene.stream.train_items().copied().collect(),
            From::First => scene.train().to_vec(),
        };
        key.sub("sample").order(&mut items, |i| i.id.mix());
        items.dedup_by_key(|i| i.id.mix());
        items.truncate(self.settings.samples);
        let ids: Vec<u64> = items.iter().map(|i| i.id.mix()).collect();
        let mut found = Vec::new();
        for chunk in items.chunks(256) {
            let mut x = Vec::new();
            scene.stream.gather(Part::Train, chunk, &mut x);
            found.extend(scene.oracle.activations("projection.out", x, chunk.len())?);
        }
        let Some(places) = buffers.get_mut("keys") else {
            return Ok(());
        };
        for book in 0..books {
            let rows = found.chunks_exact(all);
            let points: Vec<f32> = rows
                .flat_map(|row| &row[book * width..][..width])
                .copied()
                .collect();
            let key = key.at(book as u64);
            let centres = k_means(&points, &ids, width, each, self.settings.rounds, key)?;
            places[book * each * width..][..centres.len()].copy_from_slice(&centres);
        }
        scene.oracle.model.set_buffers(buffers)?;
        Ok(())
    }
}

/// The bottleneck in the table of methods.
pub const KEY_VALUE: MethodCard = MethodCard {
    name: "key-value",
    aliases: &["discrete-key-value-bottleneck", "dkvb"],
    title: "Discrete key-value bottleneck",
    source: "Träuble et al., ICML 2023",
    card: "S209",
    family: "sparse update",
    use_it: "no task boundaries, frozen features; needs network = { kind = \"key-value\" }",
    not_for: "keys of the first classes alone",
    stores: "the keys, in the network",
    costs: "the distances to all keys, forward only",
    defaults: || settings(&KeysSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            plugin: vec![PluginSpec::Keys(crate::methods::read(with)?)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging::{act, session};

    const NETWORK: &str = "{ kind = \"key-value\", books = 6, keys = 12, width = 4 }";

    /// Put among the inputs, each book's keys are nearer to them than random ones; a step moves
    /// the fetched values alone, and the keys not at all.
    #[test]
    fn keys_lie_among_the_inputs_and_stay() {
        let sets = [("with.samples", "300"), ("network", NETWORK)];
        let mut s = session("key-value", "class", &sets);
        let mut plugin = Keys::new(KeysSettings {
            samples: 300,
            ..KeysSettings::default()
        });
        let lost = |s: &mut crate::session::Session| {
            act(s, 0, |scene| {
                let items: Vec<Item> = scene.stream.train_items().take(400).copied().collect();
                let mut x = Vec::new();
                scene.stream.gather(Part::Train, &items, &mut x);
                let z = scene.oracle.activations("projection.out", x, 400);
                let z = z.expect("the tap is there");
                let keys = scene.oracle.model.buffers().get("keys").expect("keys");
                let parts = z.chunks_exact(4).enumerate();
                let lost = parts.map(|(i, p)| ebb_space::nearest(&keys[i % 6 * 48..][..48], p).1);
                lost.sum::<f32>()
            })
        };
        let random = lost(&mut s);
        act(&mut s, 0, |scene| plugin.begin_experience(scene)).expect("keys");
        assert!(lost(&mut s) < 0.5 * random);
        let before = (s.oracle.model.weights(), s.oracle.model.buffers().clone());
        act(&mut s, 0, |scene| {
            let items = scene.train()[..3].to_vec();
            let batch = scene.batch_of("new", &items);
            let mut gradient = before.0.zeros_like();
            let loss = scene.remembering;
            scene.oracle.gradient(loss, &batch, None, &mut gradient)?;
            scene
                .optimizer
                .step(&mut scene.oracle.model, &gradient, 0.1);
            Ok::<_, Error>(())
        })
        .expect("a step");
        let after = s.oracle.model.weights();
        let rows = |w: &ebb_space::Weights| -> Vec<Vec<f32>> {
            w.as_slice().chunks_exact(10).map(<[f32]>::to_vec).collect()
        };
        let pairs = rows(&before.0).into_iter().zip(rows(&after));
        let moved = pairs.filter(|(a, b)| a != b).count();
        assert!((6..=18).contains(&moved), "{moved} of 72 values moved");
        assert_eq!(s.oracle.model.buffers().as_slice(), before.1.as_slice());
    }
}
