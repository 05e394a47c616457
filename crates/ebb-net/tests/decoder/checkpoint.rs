//! Tiny random checkpoints with what `transformers` answers, made by `fixtures/decoder/make.py`.

use burn::tensor::Device;
use ebb_kernels::slices;
use ebb_net::{Decoder, DecoderConfig, Model, Network, Taps};
use ebb_space::{Key, Weights};
use safetensors::SafeTensors;
use std::sync::Arc;

/// All of them.
pub const NAMES: [&str; 9] = [
    "llama",
    "llama-tied",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "gpt2",
    "gpt-neox",
    "gpt-neox-sequential",
];

/// A checkpoint and what `transformers` answers.
pub struct Fixture {
    bytes: Vec<u8>,
    pub config: DecoderConfig,
}

pub const ROWS: usize = 2;
pub const POSITIONS: usize = 14;

impl Fixture {
    pub fn open(name: &str) -> Self {
        let at = format!(
            "{}/tests/fixtures/decoder/{name}.safetensors",
            env!("CARGO_MANIFEST_DIR")
        );
        let bytes = std::fs::read(&at).expect("the fixture is in the repository");
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("safetensors");
        let text = &header.metadata().as_ref().expect("metadata")["config"];
        let config = DecoderConfig::from_json(text).expect("a known network");
        Self { bytes, config }
    }

    pub fn tensor(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.bytes).expect("safetensors");
        let view = file.tensor(name).unwrap_or_else(|_| panic!("no {name}"));
        let value = |b: &[u8]| {
            let four = b.try_into().expect("four bytes");
            match view.dtype() {
                safetensors::Dtype::I32 => i32::from_le_bytes(four) as f32,
                _ => f32::from_le_bytes(four),
            }
        };
        view.data().chunks_exact(4).map(value).collect()
    }

    /// The checkpoint's parameters in a network of `config`.
    pub fn model(&self, config: &DecoderConfig) -> Model {
        let decoder = Decoder::new(config.clone(), POSITIONS).expect("a network");
        let mut weights = Weights::zeros(decoder.layout());
        for entry in decoder.layout().clone().entries() {
            let values = self.tensor(&entry.path);
            weights
                .get_mut(&entry.path)
                .expect("its own")
                .copy_from_slice(&values);
        }
        let mut model = Model::new(Arc::new(decoder), Key::new(0, "unused"), &Device::flex());
        model.set_weights(&weights).expect("its own");
        model
    }

    /// The same with the decoder in hand.
    pub fn both(&self, config: &DecoderConfig) -> (Decoder, Model) {
        let decoder = Decoder::new(config.clone(), POSITIONS).expect("a network");
        (decoder, self.model(config))
    }

    /// The tokens of a row.
    pub fn ids(&self, row: usize) -> Vec<u32> {
        let row = row * POSITIONS..(row + 1) * POSITIONS;
        self.tensor("ids")[row]
            .iter()
            .map(|&id| id as u32)
            .collect()
    }

    pub fn logits(&self, config: &DecoderConfig) -> Vec<f32> {
        let mut model = self.model(config);
        let x = model.input(self.tensor("ids"), ROWS);
        slices::to_vec(&model.forward(x, &mut Taps::none()).logits)
    }

    /// How far the logits are from the expected ones when the network is changed.
    pub fn moved(&self, change: impl FnOnce(&mut DecoderConfig)) -> f32 {
        let mut config = self.config.clone();
        change(&mut config);
        assert_ne!(config, self.config, "nothing was switched off");
        furthest(&self.logits(&config), &self.tensor("logits"))
    }
}

pub fn furthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |m, d| if d.is_nan() { f32::NAN } else { m.max(d) })
}

pub fn norm(v: impl Iterator<Item = f32>) -> f64 {
    v.map(|v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt()
}
