//! `ebb bench speed`: steps of perceptrons, convolutional networks and language models, beside
//! PyTorch.

use super::{gemm_rate, median, refused, show, timed};
use crate::error::Result;
use crate::exit::Ended;
use crate::out;
use ebb_hub::Tokenizer;
use ebb_learn::batch::{Batch, Collect};
use ebb_learn::objective::remembering;
use ebb_learn::optimizer::{Optimizer, OptimizerKind, OptimizerSettings};
use ebb_learn::{Oracle, language};
use ebb_lm::LanguageModel;
use ebb_net::decoder::{Choice, Generation, Prompt};
use ebb_net::{AdapterSpec, Decoder, Device, Model, NetworkSpec};
use ebb_space::{ExampleId, Key, Weights};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

/// Measure training steps and language models, alone or beside PyTorch
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Speed {
    /// A Python with torch and transformers to run beside, in turns
    #[arg(long, value_name = "PYTHON")]
    against: Option<PathBuf>,
    /// Where the peers' scripts lie
    #[arg(long, value_name = "DIR", default_value = "benches/peers")]
    peers: PathBuf,
    /// What is measured
    #[arg(long, value_enum, value_name = "TASK", value_delimiter = ',',
          default_values_t = Task::ALL)]
    task: Vec<Task>,
    /// Turns; medians over them are printed
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Measure one task within this process, and print one line of JSON
    #[arg(long, hide = true)]
    here: bool,
    /// Write the figures here as Markdown, and beside it as JSON
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Random inputs and random weights, 32-bit floats. A task is a process of its own, so that the peak of
its memory is its own; its first passes warm up and are not counted.

  mlp32, mlp128   784-400-400-10, a step of SGD
  cnn             six 3x3 convolutions with batch norm on 32x32x3, batch 32, a step of SGD
  small           a decoder, 6 blocks, 256 wide, 8 texts of 128 tokens, 8,192 words, a step of AdamW
  forward, backward, adamw, checkpoint, lean, lora, lora-lean, decode
                  a decoder of SmolLM2-135M's shape, two texts of 256 tokens

Examples:
  ebb bench speed
  ebb bench speed --against venv/bin/python --write docs/evidence/speed.md
  ebb bench speed --task cnn,forward";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Task {
    /// A perceptron, 32 rows
    Mlp32,
    /// The same, 128 rows
    Mlp128,
    /// A convolutional network
    Cnn,
    /// A small decoder
    Small,
    /// All logits
    Forward,
    /// The gradient of the mean cross-entropy of every next token
    Backward,
    /// The same and a step of AdamW
    Adamw,
    /// The same with the activations of one block at a time
    Checkpoint,
    /// The gradient alone, with the activations of one block at a time
    Lean,
    /// An adapter of rank 16 beside every linear map, with AdamW
    Lora,
    /// The same with the activations of one block at a time
    LoraLean,
    /// Greedy, two texts, 192 tokens given and 64 written, a cache of keys and values
    Decode,
}

impl Task {
    const ALL: [Task; 12] = [
        Task::Mlp32,
        Task::Mlp128,
        Task::Cnn,
        Task::Small,
        Task::Forward,
        Task::Backward,
        Task::Adamw,
        Task::Checkpoint,
        Task::Lean,
        Task::Lora,
        Task::LoraLean,
        Task::Decode,
    ];

    fn name(self) -> &'static str {
        match self {
            Task::Mlp32 => "mlp32",
            Task::Mlp128 => "mlp128",
            Task::Cnn => "cnn",
            Task::Small => "small",
            Task::Forward => "forward",
            Task::Backward => "backward",
            Task::Adamw => "adamw",
            Task::Checkpoint => "checkpoint",
            Task::Lean => "lean",
            Task::Lora => "lora",
            Task::LoraLean => "lora-lean",
            Task::Decode => "decode",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Task::Mlp32 => "MLP 784-400-400-10, batch 32, SGD",
            Task::Mlp128 => "the same, batch 128",
            Task::Cnn => "CNN, 6 convolutions with batch norm, 32x32, batch 32, SGD",
            Task::Small => "decoder 6 x 256, 8 x 128 tokens, AdamW",
            Task::Forward => "SmolLM2-135M's shape, 2 x 256 tokens: forward",
            Task::Backward => "forward + backward",
            Task::Adamw => "forward + backward + AdamW",
            Task::Checkpoint => "the same, activations of one block at a time",
            Task::Lean => "forward + backward, activations of one block at a time",
            Task::Lora => "LoRA of rank 16 on every linear map (beside PEFT), AdamW",
            Task::LoraLean => "the same, activations of one block at a time",
            Task::Decode => "greedy decoding with a cache",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Task::Mlp32 | Task::Mlp128 | Task::Cnn => "steps/s",
            _ => "tokens/s",
        }
    }

    /// What PyTorch is measured beside it.
    fn theirs(self) -> &'static str {
        match self {
            Task::Checkpoint => "adamw",
            Task::Lean => "backward",
            Task::LoraLean => "lora",
            other => other.name(),
        }
    }

    fn script(self) -> &'static str {
        match self {
            Task::Mlp32 | Task::Mlp128 | Task::Cnn | Task::Small => "torch_speed.py",
            _ => "torch_decoder.py",
        }
    }

    /// Passes of which the median is taken.
    fn repeats(self) -> usize {
        match self {
            Task::Mlp32 | Task::Mlp128 => 500,
            Task::Cnn => 50,
            Task::Small => 7,
            _ => 3,
        }
    }

    /// Operations of the products alone, in 10⁹: of a step, or for decoding of all tokens. A
    /// gradient by the inputs of the first layer is not needed.
    fn gflop(self) -> f64 {
        // Weights that meet every token, and the products of attention, of which half are seen.
        let decoder = |weights: f64, layers: f64, width: f64, rows: f64, t: f64| {
            2.0 * rows * t * (weights + layers * width * t)
        };
        let small = 6.0 * 12.0 * 256.0 * 256.0 + 256.0 * 8192.0;
        let large = 30.0 * 576.0 * (2.0 * 576.0 + 2.0 * 192.0 + 3.0 * 1536.0) + 576.0 * 49152.0;
        let large = |rows, t| decoder(large, 30.0, 576.0, rows, t);
        let (first, rest) = (784.0 * 400.0, 400.0 * 400.0 + 400.0 * 10.0);
        let mlp = 2.0 * (2.0 * first + 3.0 * rest);
        let convolution =
            |size: f64, inputs: f64, outputs: f64| size * size * inputs * outputs * 9.0;
        let cnn = 2.0 * 2.0 * convolution(32.0, 3.0, 32.0)
            + 2.0
                * 3.0
                * (convolution(32.0, 32.0, 32.0)
                    + convolution(16.0, 32.0, 64.0)
                    + convolution(16.0, 64.0, 64.0)
                    + convolution(8.0, 64.0, 128.0)
                    + convolution(8.0, 128.0, 128.0));
        // Two thin products a map and direction, and two for the gradients: 6 n r (in + out).
        let widths = 30.0 * (4.0 * 576.0 + 2.0 * (576.0 + 192.0) + 3.0 * (576.0 + 1536.0));
        let low_rank = 6.0 * 512.0 * 16.0 * widths;
        1e-9 * match self {
            Task::Mlp32 => 32.0 * mlp,
            Task::Mlp128 => 128.0 * mlp,
            Task::Cnn => 32.0 * cnn,
            Task::Small => 3.0 * decoder(small, 6.0, 256.0, 8.0, 128.0),
            Task::Forward => large(2.0, 256.0),
            Task::Backward | Task::Adamw => 3.0 * large(2.0, 256.0),
            Task::Checkpoint | Task::Lean => 4.0 * large(2.0, 256.0),
            // No gradient of the weights, and the adapter's own products.
            Task::Lora => 2.0 * large(2.0, 256.0) + low_rank,
            Task::LoraLean => 3.0 * large(2.0, 256.0) + low_rank,
            Task::Decode => large(2.0, 256.0) - large(2.0, 193.0),
        }
    }
}

/// One process.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Run {
    system: String,
    task: String,
    median_s: f64,
    /// Steps or tokens a second.
    rate: f64,
    peak_mb: f64,
}

#[derive(Serialize)]
struct Figures {
    format_version: u32,
    command: String,
    cpu: Option<String>,
    threads: usize,
    gemm_gflops: f64,
    runs: Vec<(Task, Run)>,
}

impl Speed {
    /// Measures and prints.
    ///
    /// # Errors
    /// When a process cannot be started or fails.
    pub fn run(&self) -> Result<Ended> {
        if self.here {
            for task in &self.task {
                out::print(&serde_json::to_string(&one(*task)?).unwrap_or_default())?;
            }
            return Ok(Ended::Done);
        }
        let me = std::env::current_exe().map_err(|e| refused("find", "this program", e))?;
        let mut runs = Vec::new();
        for _ in 0..self.rounds.max(1) {
            for &task in &self.task {
                let mut ours = Command::new(&me);
                ours.args(["bench", "speed", "--here", "--task", task.name()]);
                runs.push((task, read(&mut ours)?));
                // What was measured beside the plain step serves the checkpointed one.
                if let Some(python) = self
                    .against
                    .as_ref()
                    .filter(|_| task.theirs() == task.name())
                {
                    let mut theirs = Command::new(python);
                    theirs
                        .arg(self.peers.join(task.script()))
                        .args([task.theirs(), &task.repeats().to_string()]);
                    runs.push((task, read(&mut theirs)?));
                }
            }
        }
        let environment = ebb_record::Environment::collect(Default::default(), 0);
        let python = match self.against {
            Some(_) => " --against python",
            None => "",
        };
        let figures = Figures {
            format_version: 1,
            command: format!("ebb bench speed{python} --rounds {}", self.rounds),
            cpu: environment.cpu,
            threads: environment.threads_available,
            gemm_gflops: gemm_rate(),
            runs,
        };
        show(
            &figures,
            &figures.markdown(&self.task),
            self.write.as_deref(),
            self.json,
        )?;
        Ok(Ended::Done)
    }
}

fn read(command: &mut Command) -> Result<Run> {
    let (_, json) = timed(command)?;
    serde_json::from_value(json).map_err(|e| {
        crate::error::Error::request(
            format!("what a process printed is no measurement: {e}"),
            "run it by hand to see all it says",
        )
    })
}

impl Figures {
    fn markdown(&self, tasks: &[Task]) -> String {
        let mut text = format!(
            "# Speed beside PyTorch\n\nRandom inputs and weights, 32-bit floats; each figure is the \
             median over turns of a process's median. Ratios are ours over theirs, of times and of \
             memory: less is better. The roof is a product of two 1024-cubes, {:.0} GFLOP/s here; \
             its share is that of the products that a step cannot do without.\n\n\
             Made by `{}` on {} threads of {}.\n\n\
             | task | ebb | PyTorch | time, ratio | turns | of the roof | peak MB | PyTorch's | memory, ratio |\n\
             |---|---|---|---|---|---|---|---|---|\n",
            self.gemm_gflops,
            self.command,
            self.threads,
            self.cpu.as_deref().unwrap_or("an unknown processor"),
        );
        for &task in tasks {
            let of = |ours: bool, what: fn(&Run) -> f64| -> Vec<f64> {
                let name = if ours { task.name() } else { task.theirs() };
                let own = |(_, r): &&(Task, Run)| (r.system == "ebb") == ours && r.task == name;
                self.runs.iter().filter(own).map(|(_, r)| what(r)).collect()
            };
            let (speed, theirs) = (of(true, |r| r.rate), of(false, |r| r.rate));
            let turns: Vec<f64> = speed.iter().zip(&theirs).map(|(a, b)| b / a).collect();
            let (memory, beside) = (
                median(of(true, |r| r.peak_mb)),
                median(of(false, |r| r.peak_mb)),
            );
            let roof = task.gflop() / median(of(true, |r| r.median_s)) / self.gemm_gflops;
            let low = turns.iter().copied().fold(f64::INFINITY, f64::min);
            let high = turns.iter().copied().fold(0.0, f64::max);
            let (words, unit) = (task.words(), task.unit());
            let ours = format!("{:.0} {unit}", median(speed));
            let _ = match turns.is_empty() {
                true => writeln!(
                    text,
                    "| {words} | {ours} | | | | {:.0} % | {memory:.0} | | |",
                    100.0 * roof
                ),
                false => writeln!(
                    text,
                    "| {words} | {ours} | {:.0} | {:.2} | {low:.2} to {high:.2} | {:.0} % | \
                     {memory:.0} | {beside:.0} | {:.2} |",
                    median(theirs),
                    median(turns),
                    100.0 * roof,
                    memory / beside
                ),
            };
        }
        text
    }
}

const SMALL: &str = r#"{"model_type": "gpt2", "activation_function": "gelu", "n_embd": 256,
    "n_head": 8, "n_layer": 6, "n_positions": 129, "vocab_size": 8192,
    "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "tie_word_embeddings": false}"#;
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
    oracle: Oracle,
    rows: Vec<Vec<u32>>,
}

/// One task, in this process.
fn one(task: Task) -> Result<Run> {
    let median_s = match task {
        Task::Mlp32 | Task::Mlp128 | Task::Cnn => classifier(task)?,
        _ => language_model(task)?,
    };
    let units = match task {
        Task::Mlp32 | Task::Mlp128 | Task::Cnn => 1,
        Task::Small => 8 * 128,
        Task::Decode => ROWS * (MADE - 1),
        _ => ROWS * POSITIONS,
    };
    Ok(Run {
        system: "ebb".into(),
        task: task.name().into(),
        median_s,
        rate: units as f64 / median_s,
        peak_mb: ebb_record::peak_rss_bytes().map_or(f64::NAN, |b| b as f64 / 1024.0 / 1024.0),
    })
}

/// The median of what `step` takes, once it is warm.
fn warm(task: Task, mut step: impl FnMut() -> Result<f64>) -> Result<f64> {
    let repeats = task.repeats();
    for _ in 0..(repeats / 10).max(1) {
        step()?;
    }
    let seconds = (0..repeats).map(|_| step());
    Ok(median(seconds.collect::<Result<Vec<f64>>>()?))
}

/// A step of the gradient and of the optimizer.
fn train(
    oracle: &mut Oracle,
    batch: &Batch,
    gradient: &mut Weights,
    optimizer: Option<&mut Optimizer>,
    lr: f64,
) -> Result<f64> {
    let begun = Instant::now();
    oracle.gradient(&remembering(), batch, None, gradient)?;
    if let Some(optimizer) = optimizer {
        optimizer.step(&mut oracle.model, gradient, lr);
    }
    Ok(begun.elapsed().as_secs_f64())
}

fn settings(kind: OptimizerKind) -> OptimizerSettings {
    OptimizerSettings {
        kind,
        momentum: 0.0,
        nesterov: false,
        betas: [0.9, 0.999],
        eps: 1e-8,
        weight_decay: match kind {
            OptimizerKind::Adamw => 0.01,
            _ => 0.0,
        },
    }
}

fn classifier(task: Task) -> Result<f64> {
    let (text, shape, rows) = match task {
        Task::Cnn => (
            "kind = 'cnn'\nchannels = [32, 64, 128]\ndepth = 2\nhidden = 0\nnorm = true",
            [3, 32, 32],
            32,
        ),
        Task::Mlp32 => ("kind = 'mlp'\nhidden = [400, 400]", [1, 28, 28], 32),
        _ => ("kind = 'mlp'\nhidden = [400, 400]", [1, 28, 28], 128),
    };
    let spec: NetworkSpec = toml::from_str(text).map_err(|e| {
        crate::error::Error::request(format!("the network cannot be read: {e}"), "report it")
    })?;
    let key = Key::new(0, "bench");
    let network = spec.build(shape, 10).map_err(ebb_learn::Error::from)?;
    let mut oracle = Oracle::new(Model::new(network, key, &Device::flex()), key);
    let mut draws = key.sub("inputs").stream();
    let mut collect = Collect::default();
    collect.support("new");
    for row in 0..rows {
        collect.row(ExampleId::of(b"", row), draws.below(10) as u32, None);
    }
    let inputs = rows as usize * shape.iter().product::<usize>();
    collect.x = (0..inputs).map(|_| draws.normal() as f32).collect();
    let batch = collect.finish(&oracle.model, &[], 10);
    let layout = oracle.model.layout().clone();
    let mut gradient = Weights::zeros(&layout);
    let mut optimizer = Optimizer::new(settings(OptimizerKind::Sgd), &layout);
    warm(task, || {
        train(
            &mut oracle,
            &batch,
            &mut gradient,
            Some(&mut optimizer),
            0.01,
        )
    })
}

fn language_model(task: Task) -> Result<f64> {
    let mut bench = Bench::new(task)?;
    let layout = bench.oracle.model.layout().clone();
    let trains = !matches!(task, Task::Forward | Task::Decode);
    let mut gradient = trains.then(|| Weights::zeros(&layout));
    let steps = !matches!(task, Task::Backward | Task::Lean);
    let mut optimizer =
        (trains && steps).then(|| Optimizer::new(settings(OptimizerKind::Adamw), &layout));
    warm(task, || match (task, &mut gradient) {
        (Task::Decode, _) => bench.decode(),
        (_, None) => Ok(bench.forward()),
        (_, Some(gradient)) => {
            let batch = bench.batch();
            train(
                &mut bench.oracle,
                &batch,
                gradient,
                optimizer.as_mut(),
                1e-5,
            )
        }
    })
}

impl Bench {
    fn new(task: Task) -> Result<Self> {
        let (config, rows, positions) = match task {
            Task::Small => (SMALL, 8, 128),
            _ => (CONFIG, ROWS, POSITIONS),
        };
        let config = serde_json::from_str(config).unwrap_or_default();
        let tokenizer = Tokenizer::bytes().map_err(ebb_lm::Error::from)?;
        let key = Key::new(0, "bench");
        let fresh = LanguageModel::fresh(config, tokenizer, positions + 1, key, &Device::flex())?;
        let vocabulary = fresh.decoder.config().vocabulary as u64;
        let mut ids = key.sub("tokens").stream();
        let mut row = || {
            (0..positions)
                .map(|_| ids.below(vocabulary) as u32)
                .collect()
        };
        let mut model = fresh.model;
        if matches!(task, Task::Lora | Task::LoraLean) {
            let spec = AdapterSpec {
                rank: 16,
                ..AdapterSpec::default()
            };
            let part = model.train_part(&[], Some(&spec), key);
            part.map_err(ebb_learn::Error::from)?;
        }
        let lean = matches!(task, Task::Checkpoint | Task::Lean | Task::LoraLean);
        Ok(Self {
            rows: (0..rows).map(|_| row()).collect(),
            decoder: fresh.decoder,
            oracle: Oracle::new(model, key).in_parts(None, lean),
        })
    }

    /// Texts one token longer than what is put in, so that every position has a label.
    fn batch(&self) -> Batch {
        let mut collect = Collect::default();
        collect.support("new");
        for row in &self.rows {
            collect.row(ExampleId::of(b"", 0), 0, None);
            let tokens = [row.as_slice(), &row[..1]].concat();
            let learn = vec![true; tokens.len()];
            let signed = language::signed(&tokens, &learn, tokens.len());
            collect.x.extend(signed);
        }
        let outputs = self.decoder.config().vocabulary;
        collect.finish(&self.oracle.model, &[], outputs)
    }

    /// Seconds for all logits.
    fn forward(&mut self) -> f64 {
        let batch = self.batch();
        let begun = Instant::now();
        self.oracle.look(&batch, |z| std::hint::black_box(z[0]));
        begun.elapsed().as_secs_f64()
    }

    /// Seconds from the first token made to the last.
    fn decode(&mut self) -> Result<f64> {
        let given = POSITIONS - MADE;
        let prompts: Vec<Prompt> = (0u64..)
            .zip(&self.rows)
            .map(|(example, row)| Prompt {
                example,
                tokens: &row[..given],
            })
            .collect();
        let how = Generation {
            most: MADE,
            stops: Vec::new(),
            processors: Vec::new(),
            choice: Choice::Greedy,
        };
        let mut times = Vec::with_capacity(ROWS * MADE);
        let each = |_: usize, _: u32| {
            times.push(Instant::now());
            ControlFlow::Continue(())
        };
        let model = &mut self.oracle.model;
        let made = self.decoder.generate(model, &prompts, &how, each);
        made.map_err(ebb_lm::Error::from)?;
        match (times.get(ROWS - 1), times.last()) {
            (Some(first), Some(last)) => Ok(last.duration_since(*first).as_secs_f64()),
            _ => Ok(f64::NAN),
        }
    }
}
