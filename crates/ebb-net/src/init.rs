//! Keyed initialisers. The engine's own draw from a process-wide generator, so two runs in one
//! process would disturb each other; these are pure functions of a key and a path.

use ebb_space::{Key, Weights};
use serde::{Deserialize, Serialize};

/// How weights start. Biases follow the scheme's own rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// `U(±1/√fan_in)` for weights and biases: what PyTorch's layers do.
    #[default]
    FanIn,
    /// `U(±√(6/(fan_in+fan_out)))`, biases 0 (Glorot & Bengio 2010).
    Xavier,
    /// `N(0, 2/fan_in)`, biases 0 (He et al. 2015).
    He,
}

impl Init {
    /// Fills the weight at `path` and, if given, its bias.
    pub fn fill(
        self,
        weights: &mut Weights,
        key: Key,
        path: &str,
        bias: Option<&str>,
        fan_in: usize,
        fan_out: usize,
    ) {
        let fan = fan_in.max(1) as f64;
        let bound = match self {
            Init::FanIn => (1.0 / fan).sqrt(),
            Init::Xavier => (6.0 / (fan + fan_out as f64)).sqrt(),
            Init::He => (2.0 / fan).sqrt(),
        };
        draw(weights, key, path, |stream| match self {
            Init::He => bound * stream.normal(),
            Init::FanIn | Init::Xavier => bound * (2.0 * stream.uniform() - 1.0),
        });
        if let (Some(bias), Init::FanIn) = (bias, self) {
            draw(weights, key, bias, |stream| {
                bound * (2.0 * stream.uniform() - 1.0)
            });
        }
    }
}

/// Draws every value of `path` from the stream keyed by that path.
fn draw(
    weights: &mut Weights,
    key: Key,
    path: &str,
    mut value: impl FnMut(&mut ebb_space::Stream) -> f64,
) {
    let mut stream = key.sub(path).stream();
    if let Some(values) = weights.get_mut(path) {
        for v in values {
            *v = value(&mut stream) as f32;
        }
    }
}
