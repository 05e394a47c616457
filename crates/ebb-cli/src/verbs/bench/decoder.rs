//! `ebb bench decoder`: a decoder of SmolLM2-135M's shape, beside PyTorch and `transformers`.

use super::{median, refused, show, timed};
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
use ebb_net::{Decoder, Device};
use ebb_space::{ExampleId, Key, Weights};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

/// Measure a language model of SmolLM2-135M's shape: reading, training, writing
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct DecoderBench {
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
    /// Measure one task within this process, so often, and print one line of JSON
    #[arg(long, value_name = "N", hide = true)]
    here: Option<usize>,
    /// Write the figures here as Markdown, and beside it as JSON
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Random weights of SmolLM2-135M's shape, 32-bit floats, two texts of 256 tokens. A task is a process
of its own, so that the peak of its memory is its own; its first pass warms up and is not counted.

Examples:
  ebb bench decoder
  ebb bench decoder --against venv/bin/python --write docs/evidence/decoder.md
  ebb bench decoder --task forward,decode";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Task {
    /// All logits
    Forward,
    /// The gradient of the mean cross-entropy of every next token
    Backward,
    /// The same and a step of AdamW
    Adamw,
    /// The same with the activations of one block at a time
    Checkpoint,
    /// Greedy, two texts, 192 tokens given and 64 written, a cache of keys and values
    Decode,
}

impl Task {
    const ALL: [Task; 5] = [
        Task::Forward,
        Task::Backward,
        Task::Adamw,
        Task::Checkpoint,
        Task::Decode,
    ];

    fn name(self) -> &'static str {
        match self {
            Task::Forward => "forward",
            Task::Backward => "backward",
            Task::Adamw => "adamw",
            Task::Checkpoint => "checkpoint",
            Task::Decode => "decode",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Task::Forward => "forward",
            Task::Backward => "forward + backward",
            Task::Adamw => "forward + backward + AdamW",
            Task::Checkpoint => "the same, activations of one block at a time",
            Task::Decode => "greedy decoding with a cache",
        }
    }

    /// What PyTorch is measured beside it.
    fn theirs(self) -> &'static str {
        match self {
            Task::Checkpoint => "adamw",
            other => other.name(),
        }
    }
}

/// One process.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Run {
    system: String,
    task: String,
    median_s: f64,
    tokens_per_s: f64,
    peak_mb: f64,
}

#[derive(Serialize)]
struct Figures {
    format_version: u32,
    command: String,
    cpu: Option<String>,
    threads: usize,
    runs: Vec<(Task, Run)>,
}

impl DecoderBench {
    /// Measures and prints.
    ///
    /// # Errors
    /// When a process cannot be started or fails.
    pub fn run(&self) -> Result<Ended> {
        if let Some(repeats) = self.here {
            for task in &self.task {
                out::print(&serde_json::to_string(&one(*task, repeats)?).unwrap_or_default())?;
            }
            return Ok(Ended::Done);
        }
        let me = std::env::current_exe().map_err(|e| refused("find", "this program", e))?;
        let mut runs = Vec::new();
        for _ in 0..self.rounds.max(1) {
            for &task in &self.task {
                let mut ours = Command::new(&me);
                ours.args(["bench", "decoder", "--here", "3", "--task", task.name()]);
                runs.push((task, read(&mut ours)?));
                // What was measured beside the plain step serves the checkpointed one.
                if let Some(python) = self
                    .against
                    .as_ref()
                    .filter(|_| task.theirs() == task.name())
                {
                    let mut theirs = Command::new(python);
                    theirs
                        .arg(self.peers.join("torch_decoder.py"))
                        .args([task.theirs(), "3"]);
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
            command: format!("ebb bench decoder{python} --rounds {}", self.rounds),
            cpu: environment.cpu,
            threads: environment.threads_available,
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
            "# A decoder beside PyTorch\n\nSmolLM2-135M's shape with random weights, 32-bit floats, \
             two texts of 256 tokens; each figure is the median over turns of a process's median. \
             Ratios are ours over theirs: of times and of memory, less is better.\n\n\
             Made by `{}` on {} threads of {}.\n\n\
             | task | tokens/s | PyTorch's | time, ratio | turns | peak MB | PyTorch's | memory, ratio |\n\
             |---|---|---|---|---|---|---|---|\n",
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
            let (speed, theirs) = (of(true, |r| r.tokens_per_s), of(false, |r| r.tokens_per_s));
            let turns: Vec<f64> = speed.iter().zip(&theirs).map(|(a, b)| b / a).collect();
            let (memory, beside) = (
                median(of(true, |r| r.peak_mb)),
                median(of(false, |r| r.peak_mb)),
            );
            let low = turns.iter().copied().fold(f64::INFINITY, f64::min);
            let high = turns.iter().copied().fold(0.0, f64::max);
            let _ = match turns.is_empty() {
                true => writeln!(
                    text,
                    "| {} | {:.0} | | | | {memory:.0} | | |",
                    task.words(),
                    median(speed)
                ),
                false => writeln!(
                    text,
                    "| {} | {:.0} | {:.0} | {:.2} | {low:.2} to {high:.2} | {memory:.0} | \
                     {beside:.0} | {:.2} |",
                    task.words(),
                    median(speed),
                    median(theirs),
                    median(turns),
                    memory / beside
                ),
            };
        }
        text
    }
}

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
fn one(task: Task, repeats: usize) -> Result<Run> {
    let mut bench = Bench::new(task == Task::Checkpoint)?;
    let layout = bench.oracle.model.layout().clone();
    let trains = !matches!(task, Task::Forward | Task::Decode);
    let mut gradient = trains.then(|| Weights::zeros(&layout));
    let settings = OptimizerSettings {
        kind: OptimizerKind::Adamw,
        momentum: 0.0,
        nesterov: false,
        betas: [0.9, 0.999],
        eps: 1e-8,
        weight_decay: 0.01,
    };
    let steps = matches!(task, Task::Adamw | Task::Checkpoint);
    let mut optimizer = steps.then(|| Optimizer::new(settings, &layout));
    let mut seconds = Vec::with_capacity(repeats);
    for repeat in 0..=repeats {
        let s = match (task, &mut gradient) {
            (Task::Decode, _) => bench.decode()?,
            (_, None) => bench.forward(),
            (_, Some(gradient)) => {
                let batch = bench.batch();
                let begun = Instant::now();
                bench
                    .oracle
                    .gradient(&remembering(), &batch, None, gradient)?;
                if let Some(optimizer) = &mut optimizer {
                    optimizer.step(&mut bench.oracle.model, gradient, 1e-5);
                }
                begun.elapsed().as_secs_f64()
            }
        };
        // The first one warms up.
        if repeat > 0 {
            seconds.push(s);
        }
    }
    let tokens = match task {
        Task::Decode => ROWS * (MADE - 1),
        _ => ROWS * POSITIONS,
    };
    let median_s = median(seconds);
    Ok(Run {
        system: "ebb".into(),
        task: task.name().into(),
        median_s,
        tokens_per_s: tokens as f64 / median_s,
        peak_mb: ebb_record::peak_rss_bytes().map_or(f64::NAN, |b| b as f64 / 1024.0 / 1024.0),
    })
}

impl Bench {
    fn new(checkpoint: bool) -> Result<Self> {
        let config = serde_json::from_str(CONFIG).unwrap_or_default();
        let tokenizer = Tokenizer::bytes().map_err(ebb_lm::Error::from)?;
        let key = Key::new(0, "bench");
        let fresh = LanguageModel::fresh(config, tokenizer, POSITIONS + 1, key, &Device::flex())?;
        let vocabulary = fresh.decoder.config().vocabulary as u64;
        let mut ids = key.sub("tokens").stream();
        let mut row = || {
            (0..POSITIONS)
                .map(|_| ids.below(vocabulary) as u32)
                .collect()
        };
        Ok(Self {
            rows: (0..ROWS).map(|_| row()).collect(),
            decoder: fresh.decoder,
            oracle: Oracle::new(fresh.model, key).in_parts(None, checkpoint),
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
            let signed = language::signed(&tokens, &learn, POSITIONS + 1);
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
