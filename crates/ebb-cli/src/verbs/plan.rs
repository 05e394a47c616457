//! `ebb plan`: what a fine-tuning would make a model forget, and what to replay against it.

use crate::around::Around;
use crate::error::{Error, Result};
use crate::exit::Ended;
use crate::interrupt;
use crate::out::{self, Table};
use crate::recipes::Source;
use crate::verbs::learn::assignment;
use ebb_learn::Silent;
use ebb_probe::build::{Folder, Request, read_description, read_matrix};
use ebb_probe::complete::USUAL_KNOWN;
use ebb_probe::plan::{Ask, Budget, Interval, Plan as Made, plan_task};
use ebb_probe::replay::TEMPERATURE;
use ebb_report::{Section, sheet};
use std::path::{Path, PathBuf};

/// Forecast what a fine-tuning would make a model forget, and what to replay
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Plan {
    /// A recipe: the base's experience first, the new task last
    #[arg(value_name = "RECIPE")]
    recipe: String,
    /// The folder that `ebb forecast build` filled
    #[arg(long, value_name = "DIR")]
    matrix: PathBuf,
    /// Write plan.json and plan.html here
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// The most that the mean loss of the matrix's examples may rise
    #[arg(allow_hyphen_values = true, long, value_name = "RISE")]
    budget: Option<f64>,
    /// Examples measured after the new task
    #[arg(long, value_name = "N", default_value_t = USUAL_KNOWN)]
    known: usize,
    /// The level of the intervals
    #[arg(long, value_name = "LEVEL", default_value_t = 0.9)]
    level: f64,
    /// New rows for each replayed one
    #[arg(long, value_name = "N", default_value_t = 32)]
    per: usize,
    /// Temperature of the weights: a lower one replays fewer examples more surely
    #[arg(long, value_name = "T", default_value_t = TEMPERATURE)]
    temperature: f64,
    /// Change a value of the recipe; may be repeated
    #[arg(short, long = "set", value_name = "KEY=VALUE", value_parser = assignment)]
    sets: Vec<(String, String)>,
    /// Print the plan as JSON, and nothing else on standard output
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
The new task is learnt once, without replay; a few examples are measured, and the others forecast.
The exit code is 1 where a budget was given and the forecast does not keep it for sure.

Examples:
  ebb plan new.toml --matrix matrix --budget 0.05 -o plans/new
  ebb learn new.toml --plan plans/new/plan.json --matrix matrix
  ebb audit --forecast runs/planned-1 --matrix matrix";

/// Opens the folder of a matrix with its base.
///
/// # Errors
/// When it is none, or its recipe cannot be used.
pub fn open(folder: &Path, around: &Around) -> Result<Folder> {
    let description = read_description(folder)?;
    let source = Source::find(Some(&folder.to_string_lossy()))?;
    let request = Request {
        recipe: source.recipe(None, &[])?,
        base_sets: description.base_sets,
        examples: description.examples.len(),
    };
    let data_dir = around.data_dir_or_here();
    let mut surroundings = ebb_learn::Around {
        data_dir: &data_dir,
        progress: &mut Silent,
        stop: interrupt::flag(),
    };
    Ok(Folder::open(
        &request,
        folder,
        &mut surroundings,
        &mut |_| {},
    )?)
}

impl Plan {
    /// Does it.
    ///
    /// # Errors
    /// When matrix or recipe cannot be used, or training fails.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        let source = Source::find(Some(&self.recipe))?;
        let recipe = source.recipe(None, &self.sets)?;
        let matrix = read_matrix(&self.matrix)?;
        let folder = open(&self.matrix, around)?;
        let ask = Ask {
            known: self.known,
            level: self.level,
            budget: self.budget,
            per: self.per,
            temperature: self.temperature,
            seed: recipe.file().seed,
        };
        let data_dir = around.data_dir_or_here();
        let mut surroundings = ebb_learn::Around {
            data_dir: &data_dir,
            progress: &mut Silent,
            stop: interrupt::flag(),
        };
        let plan = plan_task(&folder, &matrix, &recipe, &ask, &mut surroundings)?;
        let io = |action: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io {
                action,
                path,
                source,
            }
        };
        std::fs::create_dir_all(&self.out).map_err(io("make", &self.out))?;
        let (json, html) = (self.out.join("plan.json"), self.out.join("plan.html"));
        plan.write(&json)?;
        std::fs::write(&html, page(&plan)).map_err(io("write", &html))?;
        match self.json {
            true => out::json(&plan)?,
            false => out::print(&self.text(&plan, &json, around))?,
        }
        Ok(match plan.budget {
            Some((_, Budget::Unsure | Budget::Broken)) => Ended::DoesNotHold,
            _ => Ended::Done,
        })
    }

    fn text(&self, plan: &Made, json: &Path, around: &Around) -> String {
        let mut table = Table::new(&[
            "guarded",
            ">examples",
            ">loss now",
            ">mean rise",
            ">interval",
            ">95th percentile",
            ">interval",
        ]);
        for g in &plan.guarded {
            table.row([
                g.name.clone(),
                g.examples.to_string(),
                g.base_loss
                    .map_or_else(|| "–".to_owned(), |l| format!("{l:.4}")),
                format!("{:+.4}", g.mean.value),
                between(g.mean),
                format!("{:+.4}", g.p95.value),
                between(g.p95),
            ]);
        }
        let mut text = format!("{}\n{}\n", table.text(&around.terminal()), price(plan));
        if let Some(verdict) = verdict(plan) {
            text += &format!("{verdict}\n");
        }
        let place = out::quoted(json);
        text + &format!(
            "\nplan  {place}\nnext  ebb learn {} --plan {place} --matrix {}\n",
            out::quoted(Path::new(&self.recipe)),
            out::quoted(&self.matrix)
        )
    }
}

fn between(i: Interval) -> String {
    format!("{:+.4} to {:+.4}", i.low, i.high)
}

fn price(plan: &Made) -> String {
    format!(
        "replay {} examples, one for {} new rows: {:.1} % more rows; the draw chose among an \
         effective {:.0}",
        plan.replay.len(),
        plan.per,
        100.0 * plan.price,
        plan.effective_size
    )
}

fn verdict(plan: &Made) -> Option<String> {
    let (limit, budget) = plan.budget?;
    Some(match budget {
        Budget::Kept => format!("budget {limit:+.4}: kept, the whole interval lies within it"),
        Budget::Unsure => {
            format!("budget {limit:+.4}: not sure, the interval reaches beyond it: replay, or hold")
        }
        Budget::Broken => {
            format!("budget {limit:+.4}: broken without replay, the whole interval lies beyond it")
        }
    })
}

fn page(plan: &Made) -> String {
    let strings = |of: &[&str]| of.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let guarded = plan.guarded.iter().map(|g| {
        vec![
            g.name.clone(),
            g.examples.to_string(),
            g.base_loss
                .map_or_else(|| "–".to_owned(), |l| format!("{l:.4}")),
            format!("{:+.4}", g.mean.value),
            between(g.mean),
            format!("{:+.4}", g.p95.value),
            between(g.p95),
        ]
    });
    let at_risk = plan.at_risk.iter().map(|a| {
        vec![
            a.example.clone(),
            a.base_loss
                .map_or_else(|| "–".to_owned(), |l| format!("{l:.4}")),
            format!("{:+.4}", a.rise.value),
            between(a.rise),
        ]
    });
    let replay = plan.replay.iter().enumerate();
    let level = 100.0 * plan.level;
    let sections = [
        Section {
            title: "Guarded examples".into(),
            about: format!(
                "Forecast without replay. Intervals of {level:.0} % from {} tasks that the forecast \
                 was not fitted to; it was fitted to {}, and {} examples of the new task were \
                 measured. They hold for tasks like those of the matrix.",
                plan.tasks.1,
                plan.tasks.0,
                plan.known.len()
            ),
            columns: strings(&[
                "set",
                "examples",
                "loss now",
                "mean rise",
                "interval",
                "95th percentile",
                "interval",
            ]),
            rows: guarded.collect(),
        },
        Section {
            title: "Replay".into(),
            about: price(plan) + ".",
            columns: Vec::new(),
            rows: Vec::new(),
        },
        Section {
            title: "Most at risk".into(),
            about: String::new(),
            columns: strings(&["example", "loss now", "rise", "interval"]),
            rows: at_risk.collect(),
        },
        Section {
            title: "Replayed, in this order".into(),
            about: String::new(),
            columns: strings(&["", "example"]),
            rows: replay
                .map(|(k, id)| vec![(k + 1).to_string(), id.to_string()])
                .collect(),
        },
    ];
    let lead = verdict(plan).unwrap_or_else(|| "No budget was given.".to_owned());
    sheet(&format!("Plan for {}", plan.task), &lead, &sections)
}
