//! `ebb tune`: chooses hyper-parameters on the first experiences alone.

use crate::around::Around;
use crate::error::{Error, Result};
use crate::exit::Ended;
use crate::interrupt;
use crate::out::{self, Table};
use crate::recipes::Source;
use crate::verbs::learn::assignment;
use crate::watch::RunsWatch;
use ebb_learn::tune::{Axis, Found, Options, Phase, Rule, Search, Trial};
use ebb_report::Terminal;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// Choose hyper-parameters on the first experiences, without seeing later ones or a test example
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Tune {
    /// A recipe: a TOML file, a run directory, or the name of one that comes with `ebb`
    #[arg(value_name = "RECIPE")]
    recipe: Option<String>,
    /// What to try of a key: KEY=VALUE,VALUE,… or KEY=LOW..HIGH:N (N values in equal ratios); may
    /// be repeated
    #[arg(short, long = "grid", value_name = "KEY=VALUES", required = true)]
    grid: Vec<Axis>,
    /// How many experiences it may look at [default: 3, or all of a shorter stream]
    #[arg(long, value_name = "N")]
    first: Option<usize>,
    /// How the choice is made
    #[arg(long, value_name = "RULE", default_value = "best")]
    rule: RuleName,
    /// The number that `best` looks at, of `ebb learn --json` [default: average_accuracy]
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,
    /// The share of fine-tuning's accuracy that `stability-decay` lets go [default: 0.2]
    #[arg(long, value_name = "SHARE")]
    margin: Option<f64>,
    /// Runs of each trial; their seeds are none that the recipe's runs will have
    #[arg(long, value_name = "N", default_value = "1")]
    seeds: NonZeroUsize,
    /// The share of the training examples held out to measure on
    #[arg(long, value_name = "SHARE", default_value = "0.1")]
    validation: f64,
    /// Put another method in the place of the recipe's own; `ebb methods` lists them
    #[arg(short, long, value_name = "NAME")]
    method: Option<String>,
    /// Change a value of the recipe; may be repeated
    #[arg(short, long = "set", value_name = "KEY=VALUE", value_parser = assignment)]
    sets: Vec<(String, String)>,
    /// Write trials.json and tuned.toml here; a search that was stopped goes on here
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print every trial as JSON, and nothing else on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum RuleName {
    /// The whole grid; the best mean over the seeds
    Best,
    /// Two phases: the `train.` keys by fine-tuning, then the largest strength that costs the
    /// newest experience no more than the margin
    #[value(alias = "facil")]
    StabilityDecay,
}

const AFTER_HELP: &str = "\
Every trial learns the first experiences from a part of their training examples and is measured on
the rest. Test examples and later experiences are not there to be read. All trials are counted, also
those that diverged.

Examples:
  ebb tune --grid train.lr=0.01,0.03,0.1 --grid with.capacity=50,100 -o tuned
  ebb learn tuned/tuned.toml
  ebb tune mine.toml --method ewc --grid with.lambda=1..1e4:5 --seeds 3 -o tuned-ewc
  ebb tune mine.toml --method lwf --rule stability-decay --margin 0.1 \\
      --grid train.lr=0.01,0.03,0.1 --grid with.lambda=16..0.25:7 -o tuned-lwf";

impl Tune {
    /// Does it.
    ///
    /// # Errors
    /// When the recipe cannot be used, a run fails other than by diverging, all trials diverge, or
    /// the user stops it.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        let source = Source::find(self.recipe.as_deref())?;
        // Read as `ebb learn` does, for the same errors; the search reads it again with each value.
        let recipe = source.recipe(self.method.as_deref(), &self.sets)?;
        let search = Search {
            text: source.text().to_owned(),
            sets: source.changes(self.method.as_deref(), &self.sets)?,
            grid: self.grid.clone(),
            rule: self.rule()?,
            first: self.first,
            validation: self.validation,
            seeds: self.seeds.get(),
        };
        let mut watch = RunsWatch::new();
        watch.begin("tune", recipe.label());
        let found = ebb_learn::tune::tune(
            &search,
            &Options {
                data_dir: &around.data_dir_or_here(),
                out: self.out.as_deref(),
                threads: around.threads(),
                stop: interrupt::flag(),
            },
            &mut watch,
        );
        drop(watch);
        let found = found.map_err(|source| self.stopped(source))?;
        match self.json {
            true => out::json(&found.trials)?,
            false => out::print(&self.text(&found, &around.terminal()))?,
        }
        Ok(Ended::Done)
    }

    fn rule(&self) -> Result<Rule> {
        match (self.rule, &self.metric, self.margin) {
            (RuleName::Best, _, Some(_)) => Err(Error::request(
                "`--margin` belongs to the rule stability-decay",
                "add --rule stability-decay, or leave --margin out",
            )),
            (RuleName::StabilityDecay, Some(_), _) => Err(Error::request(
                "the rule stability-decay looks at the newest experience's accuracy, and `--metric` at something else",
                "leave --metric out, or take --rule best",
            )),
            (RuleName::Best, metric, None) => Ok(Rule::Best {
                measure: metric.clone().unwrap_or_else(|| "average_accuracy".into()),
            }),
            (RuleName::StabilityDecay, None, margin) => Ok(Rule::StabilityDecay {
                margin: margin.unwrap_or(0.2),
            }),
        }
    }

    /// What to do after an interruption.
    fn stopped(&self, source: ebb_learn::Error) -> Error {
        match (&source, &self.out) {
            (ebb_learn::Error::TuneStopped { .. }, Some(out)) => Error::InRun {
                run: out.clone(),
                source: Box::new(source.into()),
                then: Some("they are kept: the same command goes on from there".into()),
            },
            _ => source.into(),
        }
    }

    fn text(&self, found: &Found, terminal: &Terminal) -> String {
        let (t, chosen) = (&found.trials, &found.chosen);
        let mut text = out::bold(terminal, &format!("{}, rule {}", t.label, t.rule));
        text.push_str(&format!(
            "  the first {} of {} experiences; {} training examples to learn from, {} to measure on\n\n",
            t.first, t.experiences, t.train_examples, t.validation_examples
        ));
        let mut table = Table::new(&["", "trial", ">value", "over seeds", ">seconds"]);
        for trial in &t.trials {
            let won = trial.settings == chosen.settings && trial.phase != Phase::Plasticity;
            table.row([
                if won { "*" } else { "" }.to_owned(),
                described(trial),
                number(trial.value),
                spread(trial),
                format!("{:.1}", trial.runs.iter().map(|r| r.seconds).sum::<f64>()),
            ]);
        }
        text.push_str(&table.text(terminal));
        text.push_str(&format!(
            "\n{} trials, {} runs, {} diverged, {:.1} s in all\n",
            t.n_trials, t.n_runs, t.n_failed, t.seconds
        ));
        let settings: Vec<String> = chosen
            .settings
            .iter()
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        text.push_str(&format!(
            "chosen  {}: {} {:.4}{}\n",
            out::bold(terminal, &settings.join(", ")),
            t.measure,
            chosen.value,
            match t.seeds.len() {
                1 => "; one seed says nothing about the spread".to_owned(),
                n => format!(
                    ", {:.4} to {:.4} over {n} seeds",
                    chosen.lowest, chosen.highest
                ),
            }
        ));
        for line in notes(found) {
            text.push_str(&format!("        {line}\n"));
        }
        match &self.out {
            Some(dir) => {
                let tuned = out::quoted(&dir.join("tuned.toml"));
                text.push_str(&format!(
                    "\nwritten {tuned}, {}\nnext    ebb learn {tuned}\n",
                    out::quoted(&dir.join("trials.json"))
                ));
            }
            None => text.push_str(&format!("\nnext    {}\n", self.next(found))),
        }
        text
    }

    /// The command that learns with what was chosen.
    fn next(&self, found: &Found) -> String {
        let mut words = vec!["ebb learn".to_owned()];
        words.extend(self.recipe.as_deref().map(|r| out::quoted(Path::new(r))));
        words.extend(self.method.iter().map(|m| format!("--method {m}")));
        let mut set = |text: String| words.push(format!("--set {}", out::quoted(Path::new(&text))));
        self.sets.iter().for_each(|(k, v)| set(format!("{k}={v}")));
        let chosen = &found.chosen.settings;
        chosen.iter().for_each(|(k, v)| set(format!("{k}={v}")));
        words.join(" ")
    }
}

/// A trial in words; a phase of its own is named.
fn described(trial: &Trial) -> String {
    let words = match (trial.words(), trial.phase) {
        (words, Phase::Plasticity) if words.is_empty() => "fine-tuning".to_owned(),
        (words, Phase::Plasticity) => format!("fine-tuning, {words}"),
        (words, Phase::Grid | Phase::Stability) => words,
    };
    match trial.failed() {
        Some(why) => format!("{words}: {why}"),
        None => words,
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |v| format!("{v:.4}"))
}

fn spread(trial: &Trial) -> String {
    match trial.spread() {
        Some((low, high)) if trial.runs.len() > 1 => format!("{low:.4} to {high:.4}"),
        _ => String::new(),
    }
}

/// What a reader should know before using what was chosen.
fn notes(found: &Found) -> Vec<String> {
    let (t, chosen) = (&found.trials, &found.chosen);
    let mut notes = Vec::new();
    if let Some(decay) = chosen.decay {
        notes.push(format!(
            "fine-tuning reaches {:.4} on the newest experience; asked for was {:.4} and {}",
            decay.plasticity,
            decay.threshold,
            match decay.reached {
                true => "this is the largest strength that keeps it",
                false => "no strength keeps it: the smallest was taken",
            }
        ));
    }
    for key in &chosen.at_edge {
        notes.push(format!(
            "{key} lies at the edge of its grid: a wider grid might choose another"
        ));
    }
    if t.first == t.experiences {
        notes.push("these are all experiences of the stream: no later one is left unseen".into());
    }
    notes
}
