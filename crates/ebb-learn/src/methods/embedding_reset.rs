//! Active and temporary forgetting of embeddings.
//!
//! **What it does.** Draws the embedding table anew every so many steps, with its moments, so that
//! nothing can be kept in it and the network has to work out from the context what a token does.
//! Resets that end early ("temporary") let it store frequent tokens as well from then on.
//! **Source.** Anand et al., 2024, "Dual process learning: controlling use of in-context vs.
//! in-weights strategies with weight forgetting" (card S083).
//! **Equation.** `E ← fresh, m_E ← 0, v_E ← 0` after step `k, 2k, 3k, …` up to step `until`.
//! **Use it** from fresh weights, where tokens will come that were never seen. **Not** on a model
//! whose embeddings know something, nor where the head is the embedding (refused): a new table
//! would be a new head.
//! **Stores** nothing. **Costs** a draw of fresh weights every `k` steps.

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::methods::{MethodCard, settings};
use crate::oracle::PassResult;
use crate::places::places;
use crate::plugin::{Plugin, Scene};
use crate::spec::{Parts, PluginSpec};
use ebb_net::{Model, Place, Role};
use ebb_space::Key;
use serde::{Deserialize, Serialize};

/// When embeddings are drawn anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct EmbeddingResetSettings {
    /// Steps between two draws.
    pub every: u64,
    /// The last step of the run after which they are; 0: they never end.
    pub until: u64,
}

impl Default for EmbeddingResetSettings {
    fn default() -> Self {
        Self {
            every: 100,
            until: 0,
        }
    }
}

impl EmbeddingResetSettings {
    /// Whether the table is drawn anew when so many steps were taken.
    pub fn due(&self, steps: u64) -> bool {
        steps > 0 && steps.is_multiple_of(self.every) && (self.until == 0 || steps <= self.until)
    }
}

/// The number of the embedding in the layout.
///
/// # Errors
/// Where the head is the same table.
pub fn embedding(places: &[Place]) -> Result<usize> {
    let at = |role: Role| places.iter().position(|p| p.role == role);
    match (at(Role::Embedding), at(Role::Head)) {
        (Some(embedding), Some(_)) => Ok(embedding),
        _ => Err(Error::Recipe {
            reason: "`embedding-reset` needs a head of its own beside the embedding: set \
                     network.tied = false"
                .into(),
        }),
    }
}

/// Draws the parameter at `index` anew.
pub fn redraw(model: &mut Model, index: usize, key: Key) {
    let (fresh, _) = model.network().initialise(key);
    let range = fresh.layout().entries()[index].range.clone();
    model.update(|i, values| {
        if i == index {
            values.copy_from_slice(&fresh.as_slice()[range.clone()]);
        }
    });
}

/// The plugin.
pub struct EmbeddingReset {
    settings: EmbeddingResetSettings,
}

impl EmbeddingReset {
    /// A plugin with these settings.
    pub fn new(settings: EmbeddingResetSettings) -> Self {
        Self { settings }
    }
}

impl Plugin for EmbeddingReset {
    fn name(&self) -> &'static str {
        "embedding-reset"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        embedding(&places(scene.oracle, "embedding-reset")?).map(|_| ())
    }

    fn after_step(&mut self, scene: &mut Scene, _: &Batch, _: &PassResult) -> Result<()> {
        let taken = scene.step + 1;
        if self.settings.due(taken) {
            let at = embedding(&places(scene.oracle, "embedding-reset")?)?;
            let key = scene.key.sub("embedding-reset").at(taken);
            redraw(&mut scene.oracle.model, at, key);
            scene.optimizer.reset_tensor(at);
        }
        Ok(())
    }
}

/// Embedding resets in the table of methods.
pub const EMBEDDING_RESET: MethodCard = MethodCard {
    name: "embedding-reset",
    aliases: &["active-forgetting", "temporary-forgetting"],
    title: "Active and temporary forgetting",
    source: "Anand et al., 2024",
    card: "S083",
    family: "forgetting on purpose",
    use_it: "from fresh weights, where tokens will come that were never seen",
    not_for: "models whose embeddings know something; tied heads (refused)",
    stores: "nothing",
    costs: "a draw of fresh weights every so many steps",
    defaults: || settings(&EmbeddingResetSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            plugin: vec![PluginSpec::EmbeddingReset(crate::methods::read(with)?)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::{Optimizer, OptimizerKind};
    use crate::spec::TrainSpec;
    use burn::tensor::Device;
    use ebb_net::NetworkSpec;
    use ebb_space::Weights;

    /// After a reset the table and its moments are those of a network that was never trained,
    /// and nothing else has moved.
    #[test]
    fn a_reset_table_is_as_fresh_as_its_moments() {
        let config = NetworkSpec::Decoder {
            width: 8,
            layers: 1,
            heads: 2,
            inner: None,
            tied: false,
        };
        let config = config.decoder_config(11, 6).expect("a decoder");
        let config = serde_json::Value::Object(config).to_string();
        let config = ebb_net::DecoderConfig::from_json(&config).expect("a configuration");
        let network = std::sync::Arc::new(ebb_net::Decoder::new(config, 6).expect("a network"));
        let mut model = Model::new(network, Key::new(1, "start"), &Device::flex());
        let at = embedding(&model.network().places()).expect("an embedding");
        let settings = TrainSpec {
            optimizer: OptimizerKind::Adamw,
            ..TrainSpec::default()
        };
        let mut optimizer = Optimizer::new(settings.optimizer_settings(), model.layout());
        let mut gradient = Weights::zeros(model.layout());
        gradient.fill(0.5);
        optimizer.step(&mut model, &gradient, 0.1);
        let before = model.weights();
        redraw(&mut model, at, Key::new(1, "start"));
        optimizer.reset_tensor(at);
        let after = model.weights();
        let (fresh, _) = model.network().initialise(Key::new(1, "start"));
        for (i, (entry, now)) in after.iter().enumerate() {
            let want = if i == at { &fresh } else { &before };
            assert_eq!(want.get(&entry.path), Some(now), "{}", entry.path);
            assert_eq!(optimizer.steps()[i], u64::from(i != at));
            for (_, moment) in optimizer.state() {
                let still = moment.get(&entry.path).expect("its moment");
                assert_eq!(still.iter().all(|m| *m == 0.0), i == at, "{}", entry.path);
            }
        }
        let every = EmbeddingResetSettings { every: 3, until: 7 };
        let due: Vec<u64> = (0..20).filter(|t| every.due(*t)).collect();
        assert_eq!(due, [3, 6]);
    }
}
