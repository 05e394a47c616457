//! How fast a decoder of SmolLM2-135M's shape is, with random weights.
//!
//!     cargo run --release -p ebb-net --example decoder -- TASK [REPEATS]
//!
//! TASK is `forward` or `backward` (forward and backward, 2 x 256 tokens) or `decode` (greedy, two
//! rows, 192 tokens given and 64 made; the reading of the prompts is not counted). Prints one line
//! of JSON. `benches/peers/torch_decoder.py` does the same with PyTorch and `transformers`; a
//! process does one task, so that its peak memory is that task's.

use burn::tensor::{Device, Tensor, TensorData};
use ebb_kernels::{seed, slices};
use ebb_net::decoder::{Choice, Generation, Prompt};
use ebb_net::{Decoder, DecoderConfig, Mode, Model, Network, Taps};
use ebb_space::{Key, Weights};
use std::error::Error;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONFIG: &str = r#"{"model_type": "llama", "hidden_act": "silu", "hidden_size": 576,
    "initializer_range": 0.0417, "intermediate_size": 1536, "max_position_embeddings": 8192,
    "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
    "rms_norm_eps": 1e-05, "rope_theta": 100000, "tie_word_embeddings": true,
    "vocab_size": 49152}"#;
const ROWS: usize = 2;
const POSITIONS: usize = 256;
const MADE: usize = 64;

struct Bench {
    decoder: Arc<Decoder>,
    model: Model,
    rows: Vec<Vec<u32>>,
}

impl Bench {
    fn new() -> Result<Self, Box<dyn Error>> {
        let decoder = Arc::new(Decoder::new(DecoderConfig::from_json(CONFIG)?, POSITIONS)?);
        let key = Key::new(0, "bench");
        let model = Model::new(decoder.clone(), key, &Device::flex());
        let vocabulary = decoder.outputs() as u64;
        let mut ids = key.sub("tokens").stream();
        let rows = (0..ROWS)
            .map(|_| {
                (0..POSITIONS)
                    .map(|_| ids.below(vocabulary) as u32)
                    .collect()
            })
            .collect();
        Ok(Self {
            decoder,
            model,
            rows,
        })
    }

    fn input(&self) -> Result<Tensor<2>, Box<dyn Error>> {
        let rows: Vec<&[u32]> = self.rows.iter().map(Vec::as_slice).collect();
        Ok(self.decoder.tokens(&rows, 0, self.model.device())?)
    }

    /// Seconds for all logits.
    fn forward(&mut self) -> Result<f64, Box<dyn Error>> {
        let x = self.input()?;
        let start = Instant::now();
        let out = self.model.forward(x, &mut Taps::none());
        black_box(slices::read(&out.logits, |z| z[0]));
        Ok(start.elapsed().as_secs_f64())
    }

    /// Seconds for the gradient of the mean cross-entropy of every next token.
    fn backward(&mut self, into: &mut Weights) -> Result<f64, Box<dyn Error>> {
        let x = self.input()?;
        let start = Instant::now();
        let leaves = self.model.leaves(None);
        let out = self
            .model
            .forward_tracked(&leaves, x, Mode::Eval, &mut Taps::none());
        let shape = out.logits.dims();
        let g = self.loss_gradient(slices::to_vec(&out.logits));
        let g = Tensor::from_data(TensorData::new(g, shape), self.model.device());
        let mut gradients = seed(out.logits, g).backward();
        leaves.collect(&mut gradients, into);
        Ok(start.elapsed().as_secs_f64())
    }

    /// `(softmax(z) − onehot) / n` in the place of `z`; 0 where nothing follows.
    fn loss_gradient(&self, mut z: Vec<f32>) -> Vec<f32> {
        let n = (ROWS * (POSITIONS - 1)) as f32;
        let places = z.chunks_exact_mut(self.decoder.outputs());
        for (i, z) in places.enumerate() {
            let (row, at) = (i / POSITIONS, i % POSITIONS);
            let Some(&next) = self.rows[row].get(at + 1) else {
                z.fill(0.0);
                continue;
            };
            let largest = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            z.iter_mut().for_each(|z| *z = (*z - largest).exp());
            let total: f32 = z.iter().sum();
            z.iter_mut().for_each(|z| *z /= total * n);
            z[next as usize] -= 1.0 / n;
        }
        z
    }

    /// Seconds from the first token made to the last.
    fn decode(&mut self) -> Result<f64, Box<dyn Error>> {
        let prompts: Vec<Prompt> = self
            .rows
            .iter()
            .zip(0..)
            .map(|(row, example)| Prompt {
                example,
                tokens: &row[..POSITIONS - MADE],
            })
            .collect();
        let how = Generation {
            most: MADE,
            stops: Vec::new(),
            processors: Vec::new(),
            choice: Choice::Greedy,
        };
        let mut times = Vec::with_capacity(ROWS * MADE);
        let each = |_, _| {
            times.push(Instant::now());
            ControlFlow::Continue(())
        };
        self.decoder
            .generate(&mut self.model, &prompts, &how, each)?;
        match (times.get(ROWS - 1), times.last()) {
            (Some(first), Some(last)) => Ok(last.duration_since(*first).as_secs_f64()),
            _ => Err("no token was made".into()),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let task = arguments.next().unwrap_or_default();
    let repeats: usize = arguments.next().map_or(Ok(3), |n| n.parse())?;
    let mut bench = Bench::new()?;
    let mut gradient = match task.as_str() {
        "backward" => Some(Weights::zeros(bench.model.layout())),
        _ => None,
    };
    let tokens = match task.as_str() {
        "forward" | "backward" => ROWS * POSITIONS,
        "decode" => ROWS * (MADE - 1),
        _ => return Err("say which task: forward, backward or decode".into()),
    };
    let mut seconds = Vec::with_capacity(repeats);
    // The first one warms up.
    for repeat in 0..=repeats {
        let s = match (task.as_str(), &mut gradient) {
            ("decode", _) => bench.decode()?,
            (_, Some(gradient)) => bench.backward(gradient)?,
            (_, None) => bench.forward()?,
        };
        if repeat > 0 {
            seconds.push(s);
        }
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN);
    let line = serde_json::json!({
        "system": "ebb",
        "task": task,
        "rows": ROWS,
        "positions": POSITIONS,
        "repeats": repeats,
        "median_s": median,
        "tokens_per_s": tokens as f64 / median,
        "peak_mb": peak_mb(),
    });
    println!("{line}");
    Ok(())
}

/// The most memory this process has held, where the system says so.
fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
