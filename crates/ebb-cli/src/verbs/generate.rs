//! `ebb generate`: texts from a language model.

use crate::around::Around;
use crate::error::{Error, Result};
use crate::exit::Ended;
use crate::{language, out};
use ebb_lm::{LanguageModel, Message, Start, Text, Writing};
use serde::{Deserialize, Serialize};
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Let a language model write
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Generate {
    /// A model that `ebb data fetch` brought, a folder with config.json and safetensors, a
    /// .gguf file, or a run that trained one
    #[arg(value_name = "MODEL")]
    model: String,
    /// What the texts begin with; without any, standard input is one prompt
    #[arg(value_name = "PROMPT")]
    prompts: Vec<String>,
    /// Take each prompt as what a user says, in the model's own chat format
    #[arg(long)]
    chat: bool,
    /// What the chat's system message says
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// A JSONL file of prompts: {"prompt": …} or {"messages": […]} a line
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["prompts", "chat"])]
    input: Option<PathBuf>,
    /// Merge a PEFT adapter (LoRA) into the model first
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Tokens of a text at most
    #[arg(short = 'n', long, value_name = "N", default_value = "256")]
    max_tokens: usize,
    /// 0 takes the likeliest token; above, tokens are drawn, the more evenly the higher
    #[arg(short, long, value_name = "T", default_value = "0")]
    temperature: f64,
    /// Draw among the K likeliest
    #[arg(long, value_name = "K", default_value = "0", hide_default_value = true)]
    top_k: usize,
    /// Draw among the likeliest that together have the probability P
    #[arg(long, value_name = "P", default_value = "1", hide_default_value = true)]
    top_p: f64,
    /// Divide the logits of tokens that were used by this (1.2 to 1.5 end most repetition)
    #[arg(long, value_name = "X", default_value = "1", hide_default_value = true)]
    repetition_penalty: f64,
    /// Penalty decoding: the repetition penalty looks back this many tokens only
    #[arg(long, value_name = "N", requires = "repetition_penalty")]
    penalty_window: Option<usize>,
    /// Of penalty decoding: off the logit of the end, until a text has all its tokens
    #[arg(
        long,
        value_name = "X",
        default_value = "0",
        hide_default_value = true,
        requires = "penalty_window"
    )]
    length_penalty: f64,
    /// Off a token's logit for each time that the text has it
    #[arg(long, value_name = "X", default_value = "0", hide_default_value = true)]
    frequency_penalty: f64,
    /// Off the logit of each token that the text has
    #[arg(long, value_name = "X", default_value = "0", hide_default_value = true)]
    presence_penalty: f64,
    /// End a text where it says this; may be repeated
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// The same seed draws the same texts, whatever is written beside them
    #[arg(long, value_name = "N", default_value = "0")]
    seed: u64,
    /// Print JSON, and nothing else on standard output
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
A text that is written alone appears as it comes. Several prompts are written side by side, which
takes much less time than one after another.

Examples:
  ebb generate smollm2-135m 'The capital of France is' -n 20
  ebb generate smollm2-135m --chat 'Write a haiku about forgetting.' -t 0.7 --top-p 0.9
  ebb generate my-model/ -i prompts.jsonl --json > texts.json";

/// A line of `--input`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Prompt { prompt: String },
    Chat { messages: Vec<Message> },
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct Written {
    format_version: u32,
    model: String,
    prompt_tokens: usize,
    new_tokens: usize,
    seconds: f64,
    texts: Vec<Text>,
}

impl Generate {
    /// Does it.
    ///
    /// # Errors
    /// When the model or a prompt cannot be used.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        // A mistake in the file is told before the model is loaded.
        let lines = self.input.as_deref().map(read).transpose()?;
        let mut model = language::open(&self.model, self.adapter.as_deref(), around)?;
        let asked = match lines {
            Some(lines) => lines,
            None => self.said()?,
        };
        let starts = starts(&asked, &model)?;
        let how = Writing {
            most: self.max_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            repetition: self.repetition_penalty,
            frequency: self.frequency_penalty,
            presence: self.presence_penalty,
            penalty_window: self.penalty_window,
            length_penalty: self.length_penalty,
            stop: self.stop.clone(),
            seed: self.seed,
        };
        let streams = starts.len() == 1 && !self.json;
        let mut stdout = std::io::stdout();
        let since = Instant::now();
        let texts = model.write(&starts, &how, |_, piece| {
            if streams {
                // A reader that has left is found out when the end is printed.
                let _ = stdout.write_all(piece.as_bytes());
                let _ = stdout.flush();
            }
        })?;
        let seconds = since.elapsed().as_secs_f64();
        let new_tokens = texts.iter().map(|t| t.tokens.len()).sum();
        if self.json {
            out::json(&Written {
                format_version: 1,
                model: model.origin().display().to_string(),
                prompt_tokens: starts.iter().map(|s| s.tokens.len()).sum(),
                new_tokens,
                seconds,
                texts,
            })?;
            return Ok(Ended::Done);
        }
        match streams {
            true => out::print("\n")?,
            false => {
                let all: Vec<&str> = texts.iter().map(|t| t.text.trim_end()).collect();
                out::print(&all.join("\n---\n"))?;
            }
        }
        if std::io::stderr().is_terminal() {
            eprintln!(
                "{new_tokens} tokens, {:.1} a second",
                new_tokens as f64 / seconds
            );
        }
        Ok(Ended::Done)
    }

    /// What the command line or standard input asks.
    fn said(&self) -> Result<Vec<Line>> {
        let mut prompts = self.prompts.clone();
        if prompts.is_empty() {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|e| {
                Error::request(
                    format!("standard input cannot be read as text: {e}"),
                    "give the prompt behind the model's name",
                )
            })?;
            prompts.push(text.trim_end_matches('\n').to_owned());
        }
        let one = |prompt: String| match self.chat {
            true => {
                let system = self
                    .system
                    .iter()
                    .map(|s| Message::new("system", s.as_str()));
                let user = Message::new("user", prompt.as_str());
                Line::Chat {
                    messages: system.chain([user]).collect(),
                }
            }
            false => Line::Prompt { prompt },
        };
        Ok(prompts.into_iter().map(one).collect())
    }
}

/// The lines of an `--input` file.
fn read(path: &Path) -> Result<Vec<Line>> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    let one = |(i, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|e| {
            Error::request(
                format!("`{}`, line {}: {e}", path.display(), i + 1),
                "a line is {\"prompt\": \"…\"} or {\"messages\": [{\"role\": \"user\", \
                 \"content\": \"…\"}]}",
            )
        })
    };
    let lines: Vec<Line> = lines.map(one).collect::<Result<_>>()?;
    match lines.is_empty() {
        true => Err(Error::request(
            "there is no prompt",
            "the file of `--input` has a prompt a line",
        )),
        false => Ok(lines),
    }
}

/// What is asked, as the model reads it.
fn starts(asked: &[Line], model: &LanguageModel) -> Result<Vec<Start>> {
    let one = |(example, line): (u64, &Line)| {
        let tokens = match line {
            Line::Prompt { prompt } => model.prompt(prompt)?,
            Line::Chat { messages } => model.chat(messages)?,
        };
        Ok(Start { example, tokens })
    };
    (0u64..).zip(asked).map(one).collect()
}
