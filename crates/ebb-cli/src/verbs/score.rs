//! `ebb score`: how well a language model knows texts and answers questions.

use crate::around::Around;
use crate::error::{Error, Result};
use crate::exit::Ended;
use crate::language;
use crate::out::{self, Table};
use ebb_lm::score::{Scores, Set, score};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::path::PathBuf;

/// Measure what a language model can do
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Score {
    /// A model that `ebb data fetch` brought, a folder with config.json and safetensors, a
    /// .gguf file, or a run that trained one
    #[arg(value_name = "MODEL")]
    model: String,
    /// A set that comes with the program
    #[arg(
        long,
        value_name = "NAME",
        default_value = "general-v1",
        conflicts_with = "file"
    )]
    set: String,
    /// A JSONL file of your own: {"prompt": …, "choices": […], "answer": 0, "kind": …},
    /// {"prompt": …, "completion": …} or {"text": …} a line
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Merge a PEFT adapter (LoRA) into the model first
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// The first N questions of each kind, the first N texts and tasks
    #[arg(long, value_name = "N")]
    first: Option<usize>,
    /// Print JSON with every question and text, and nothing else on standard output
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
A question is scored by the likelihood of each choice behind the prompt; a text by its own; of a
prompt with a completion, the answer is written and compared (exact match, ROUGE-L). The intervals
(95 %) are over questions, texts or tasks. Scores of different sets, or of different
versions of one, are different numbers.

Examples:
  ebb score smollm2-135m
  ebb score my-model/ --json > scores.json
  ebb score my-model/ --file questions.jsonl";

#[derive(Serialize)]
struct Scored<'a> {
    model: String,
    #[serde(flatten)]
    scores: &'a Scores,
}

impl Score {
    /// Does it.
    ///
    /// # Errors
    /// When the model or the set cannot be used.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        let mut set = match &self.file {
            None => Set::named(&self.set)?,
            Some(path) => Set::open(path)?,
        };
        match self.first {
            Some(0) => {
                return Err(Error::request(
                    "`--first 0` leaves nothing to measure",
                    "give at least 1, or leave it out",
                ));
            }
            Some(n) => set.first(n),
            None => {}
        }
        let mut model = language::open(&self.model, self.adapter.as_deref(), around)?;
        let bar = ProgressBar::new(0).with_style(
            ProgressStyle::with_template("{bar:30} {pos}/{len} {eta}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        let scores = score(&mut model, &set, &mut |done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        });
        bar.finish_and_clear();
        let scores = scores?;
        if self.json {
            out::json(&Scored {
                model: model.origin().display().to_string(),
                scores: &scores,
            })?;
            return Ok(Ended::Done);
        }
        let mut table = Table::new(&["measure", ">value", ">95 % interval", ">n", ">chance"]);
        for number in &scores.numbers {
            let percent = number.name.starts_with("accuracy") || number.name.ends_with("_match");
            let show = |v: f64| match percent {
                true => format!("{:.1} %", 100.0 * v),
                false => format!("{v:.3}"),
            };
            let interval = match (number.ci_low, number.ci_high) {
                (Some(low), Some(high)) => format!("{} to {}", show(low), show(high)),
                _ => "–".to_owned(),
            };
            let chance = scores.chance.iter().find(|(name, _)| *name == number.name);
            table.row([
                number.name.clone(),
                show(number.value),
                interval,
                number.n.to_string(),
                chance.map_or_else(|| "–".to_owned(), |(_, v)| show(*v)),
            ]);
        }
        let text = table.text(&around.terminal());
        out::print(&format!(
            "{} ({})\n\n{text}",
            scores.set,
            &scores.set_hash[..12]
        ))?;
        Ok(Ended::Done)
    }
}
