//! GDumb: greedy sampler and dumb learner.
//!
//! **What it does.** Keeps a class-balanced memory and nothing else; whenever it is asked, a
//! fresh network is trained on the memory alone.
//! **Source.** Prabhu et al., ECCV 2020, "GDumb: A simple approach that questions our progress in
//! continual learning" (peers' protocol). The paper keeps the first records of each class up to
//! its share; here it is a uniform sample of them.
//! **Equation.** `θ_t = argmin_θ mean CE(M_t)` from a fresh start, `M_t` balanced over the classes.
//! **Use it** as the control of every method with a memory: what does training on the stream add?
//! **Not** where the stream is far larger than the memory and its knowledge must be kept.
//! **Stores** `capacity` examples. **Costs** nothing on the stream, and `epochs` passes over the
//! memory an experience.

use crate::methods::{MethodCard, settings};
use crate::spec::{DataPlan, KeepSpec, MemorySpec, Parts};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct GdumbSettings {
    capacity: usize,
}

impl Default for GdumbSettings {
    fn default() -> Self {
        Self { capacity: 500 }
    }
}

/// GDumb in the table of methods.
pub const GDUMB: MethodCard = MethodCard {
    name: "gdumb",
    aliases: &["greedy-sampler"],
    title: "Greedy sampler and dumb learner",
    source: "Prabhu et al., ECCV 2020",
    card: "S124",
    family: "baseline",
    use_it: "the control of every method with a memory: what does training on the stream add?",
    not_for: "streams far larger than the memory whose knowledge must be kept",
    stores: "`capacity` examples",
    costs: "nothing on the stream, `train.epochs` passes over the memory an experience",
    defaults: || settings(&GdumbSettings::default()),
    expand: |with, _| {
        let s: GdumbSettings = crate::methods::read(with)?;
        Ok(Parts {
            data: DataPlan::Memory,
            memory: Some(MemorySpec {
                capacity: s.capacity,
                keep: KeepSpec::ClassBalanced,
            }),
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use crate::methods::staging;
    use ebb_net::Model;

    /// What is there at the end is a fresh network of the last experience's key, trained on the
    /// memory alone: nothing of the first experience's weights, bit for bit.
    #[test]
    fn the_network_is_trained_afresh_on_the_memory() {
        let sets = [
            ("with.capacity", "40"),
            ("stream.split", "2"),
            ("train.epochs", "3"),
        ];
        let mut s = staging::run(staging::session("gdumb", "class", &sets));
        let (key, found) = (s.key, s.oracle.model.weights());
        staging::act(&mut s, 1, |scene| {
            let (network, device) = {
                let model = &scene.oracle.model;
                (model.network().clone(), model.device().clone())
            };
            scene.oracle.model = Model::new(network, key.sub("initialise").at(1), &device);
            let replay = scene.replay.as_ref().expect("a memory");
            let ids: Vec<u64> = (replay.memory.metas().iter()).map(|m| m.id.mix()).collect();
            assert_eq!(ids.len(), 40);
            let mut gradient = found.zeros_like();
            for epoch in 0..3 {
                let order = key.sub("order").at(1).at(epoch).sub("remembered").at(0);
                let mut slots: Vec<u32> = (0..40).collect();
                order.order(&mut slots, |slot| ids[*slot as usize]);
                for slots in slots.chunks(16) {
                    let batch = scene.batch_of_slots("new", slots).expect("records");
                    let done =
                        (scene.oracle).gradient(scene.objective, &batch, None, &mut gradient);
                    done.expect("a gradient");
                    scene
                        .optimizer
                        .step(&mut scene.oracle.model, &gradient, 0.1);
                }
            }
            assert_eq!(scene.oracle.model.weights().digest(), found.digest());
        });
    }
}
