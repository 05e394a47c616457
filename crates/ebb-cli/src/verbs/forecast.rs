//! `ebb forecast`: the association matrix, and how well its rows are filled in.

use crate::around::Around;
use crate::error::{Error, Result};
use crate::exit::Ended;
use crate::interrupt;
use crate::out::{self, Table};
use crate::recipes::Source;
use crate::verbs::learn::assignment;
use ebb_learn::Silent;
use ebb_probe::build::{Event, Request, Shard, build, read_matrix};
use ebb_probe::complete::{
    Additive, ClosedForm, ColumnMean, Completer, Factors, LogisticAdditive, LogisticFactors,
    Neighbours, USUAL_KNOWN,
};
use ebb_probe::protocol::{FlipScore, Protocol, Split};
use ebb_probe::{Association, RankProbe, flips_by_rank, rank_probe};
use ebb_report::Heat;
use ebb_space::Key;
use ebb_space::stats::mean_ci_t;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Measure which examples tasks make a model forget, and how well that can be forecast
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Forecast {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Build(Build),
    Show(Show),
    Score(Score),
}

const AFTER_HELP: &str = "\
A matrix is a folder that `build` filled, a Parquet file, or a CSV file: either `task,example,z` a
line, or `example` and then a column a task; `base_loss` may be a column of both.

Examples:
  ebb forecast build tasks.toml -o matrix --base-set train.epochs=5
  ebb forecast build tasks.toml -o matrix --shard 1/2     beside another with --shard 2/2
  ebb forecast show matrix --svg matrix.svg
  ebb forecast score matrix --known 30";

/// Learn each task from one base, and measure the base's examples after each
#[derive(clap::Args)]
struct Build {
    /// A recipe: its first experience is the base's, each later one a task
    #[arg(value_name = "RECIPE")]
    recipe: String,
    /// The folder; one that was begun is gone on with
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Examples of the first experience that are measured
    #[arg(long, value_name = "N", default_value_t = 2000)]
    examples: usize,
    /// Change a value of the recipe; may be repeated
    #[arg(short, long = "set", value_name = "KEY=VALUE", value_parser = assignment)]
    sets: Vec<(String, String)>,
    /// Change a value while the base is trained, and not for the tasks; may be repeated
    #[arg(long = "base-set", value_name = "KEY=VALUE", value_parser = assignment)]
    base_sets: Vec<(String, String)>,
    /// Do the tasks of one part, so that several programs share a folder
    #[arg(long, value_name = "I/N", value_parser = shard, default_value = "1/1")]
    shard: Shard,
    /// Print JSON, and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

/// How low the rank of a matrix is, and the matrix as a picture
#[derive(clap::Args)]
struct Show {
    /// The matrix
    #[arg(value_name = "MATRIX")]
    matrix: PathBuf,
    /// Also fit which answers turn wrong, which takes a while
    #[arg(long)]
    flips: bool,
    /// Write the picture here, as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print JSON, and nothing else on standard output
    #[arg(long)]
    json: bool,
}

/// How well rows are filled in from a few of their columns
#[derive(clap::Args)]
struct Score {
    /// The matrix
    #[arg(value_name = "MATRIX")]
    matrix: PathBuf,
    /// Examples known of a test task
    #[arg(long, value_name = "N", default_value_t = USUAL_KNOWN)]
    known: usize,
    /// Draws of them
    #[arg(long, value_name = "N", default_value_t = 10)]
    repeats: usize,
    /// Test tasks, drawn; a sixth of all unless said
    #[arg(long, value_name = "N", conflicts_with = "test")]
    tests: Option<usize>,
    /// A test task by name; may be repeated
    #[arg(long, value_name = "TASK")]
    test: Vec<String>,
    /// Forecast which answers turn wrong, and not losses
    #[arg(long)]
    flips: bool,
    /// Leave out the forecasts that are fitted anew for each task
    #[arg(long)]
    fast: bool,
    /// The seed of every draw
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print JSON, and nothing else on standard output
    #[arg(long)]
    json: bool,
}

fn shard(text: &str) -> Result<Shard, String> {
    let parts = text.split_once('/');
    let numbers = parts.and_then(|(i, n)| Some((i.trim().parse().ok()?, n.trim().parse().ok()?)));
    match numbers {
        Some((index, of)) if 0 < index && index <= of => Ok(Shard { index, of }),
        _ => Err("it must look like 1/4: the first of four parts".to_owned()),
    }
}

impl Forecast {
    /// Does it.
    ///
    /// # Errors
    /// When a matrix cannot be measured, read or forecast.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        match &self.what {
            What::Build(verb) => verb.run(around),
            What::Show(verb) => verb.run(around),
            What::Score(verb) => verb.run(around),
        }
    }
}

#[derive(Serialize)]
struct BuiltJson<'a> {
    folder: &'a Path,
    tasks: usize,
    done: usize,
    examples: Option<usize>,
    mean_rise: Option<f64>,
}

impl Build {
    fn run(&self, around: &Around) -> Result<Ended> {
        let source = Source::find(Some(&self.recipe))?;
        let request = Request {
            recipe: source.recipe(None, &self.sets)?,
            base_sets: self.base_sets.clone(),
            examples: self.examples,
        };
        let data_dir = around.data_dir_or_here();
        let mut surroundings = ebb_learn::Around {
            data_dir: &data_dir,
            progress: &mut Silent,
            stop: interrupt::flag(),
        };
        let mut watch = |event: Event| {
            if self.quiet {
                return;
            }
            match event {
                Event::Base(None) => eprintln!("base: there already"),
                Event::Base(Some(seconds)) => eprintln!("base: {seconds:.1} s"),
                Event::Task {
                    index,
                    of,
                    name,
                    mean,
                    seconds,
                } => {
                    let took = seconds.map_or("there already".into(), |s| format!("{s:.1} s"));
                    eprintln!("task {index}/{of} {name}: mean rise {mean:+.4}, {took}");
                }
            }
        };
        let built = build(
            &request,
            &self.out,
            self.shard,
            &mut surroundings,
            &mut watch,
        )?;
        let matrix = built.matrix.as_ref();
        if self.json {
            out::json(&BuiltJson {
                folder: &self.out,
                tasks: built.of,
                done: built.done,
                examples: matrix.map(|m| m.examples.len()),
                mean_rise: matrix.map(mean),
            })?;
            return Ok(Ended::Done);
        }
        let place = out::quoted(&self.out);
        let text = match matrix {
            None => format!(
                "{} of {} tasks are measured; the others are left to other parts\n",
                built.done, built.of
            ),
            Some(m) => format!(
                "{} tasks x {} examples, mean rise in loss {:+.4}\n\nmatrix  {place}\n\
                 next    ebb forecast show {place}\n        ebb forecast score {place}\n",
                m.tasks.len(),
                m.examples.len(),
                mean(m)
            ),
        };
        out::print(&text)?;
        Ok(Ended::Done)
    }
}

fn mean(matrix: &Association) -> f64 {
    let finite = || matrix.z.iter().filter(|z| z.is_finite());
    finite().map(|z| f64::from(*z)).sum::<f64>() / finite().count().max(1) as f64
}

/// The matrix without gaps; what was left out is said on standard error.
fn whole(path: &Path) -> Result<Association> {
    let matrix = read_matrix(path)?;
    let (whole, kept) = matrix.without_gaps()?;
    let gone = matrix.examples.len() - kept.columns.len();
    if gone > 0 {
        eprintln!("{gone} examples lack a value for some task and are left out");
    }
    Ok(whole)
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    probe: RankProbe,
    /// F1 of the fit of flips, by rank.
    flips: Vec<f64>,
}

impl Show {
    fn run(&self, around: &Around) -> Result<Ended> {
        let matrix = whole(&self.matrix)?;
        let probe = rank_probe(&matrix.losses()?, Key::new(0, "rank probe"))?;
        let heat = |bins| Heat::new(&matrix.tasks, &matrix.z, bins);
        if let Some(path) = &self.svg {
            let svg = heat(180).svg("Rise in loss, tasks by examples");
            std::fs::write(path, svg).map_err(|source| Error::Io {
                action: "write",
                path: path.clone(),
                source,
            })?;
        }
        let flips = match self.flips {
            true => flips_by_rank(&matrix.flips()?.0, 5, Key::new(0, "rank probe")),
            false => Vec::new(),
        };
        if self.json {
            out::json(&Shown { probe, flips })?;
            return Ok(Ended::Done);
        }
        let terminal = around.terminal();
        let mut table = Table::new(&["fit", ">R2"]);
        for (name, r2) in [
            ("means of tasks", probe.row_means),
            ("means of examples", probe.column_means),
            ("additive", probe.additive),
        ] {
            table.row([name.to_owned(), format!("{r2:.3}")]);
        }
        for (at, r2) in probe.r2.iter().enumerate() {
            table.row([format!("rank {}", at + 1), format!("{r2:.3}")]);
        }
        for (at, f1) in flips.iter().enumerate() {
            table.row([format!("flips, rank {}: F1", at + 1), format!("{f1:.3}")]);
        }
        let bins = terminal.width.saturating_sub(28).clamp(16, 120);
        out::print(&format!(
            "{}\n{}\n{} tasks x {} examples, {} of them in the probe\n",
            heat(bins).text(),
            table.text(&terminal),
            matrix.tasks.len(),
            matrix.examples.len(),
            probe.examples
        ))?;
        Ok(Ended::Done)
    }
}

#[derive(Serialize)]
struct Scored {
    completer: &'static str,
    measure: &'static str,
    mean: f64,
    ci_low: Option<f64>,
    ci_high: Option<f64>,
    repeats: Vec<f64>,
}

#[derive(Serialize)]
struct Scores<'a> {
    tasks: usize,
    examples: usize,
    known: usize,
    test: Vec<&'a str>,
    scores: Vec<Scored>,
}

impl Score {
    fn run(&self, around: &Around) -> Result<Ended> {
        let matrix = whole(&self.matrix)?;
        let table = match self.flips {
            false => matrix.losses()?,
            true => matrix.flips()?.0,
        };
        let key = Key::new(self.seed, "forecast score");
        let split = match self.test.is_empty() {
            true => {
                let tests = self.tests.unwrap_or((table.height() / 6).max(1));
                Split::at_random(&table, tests, key.sub("split"))?
            }
            false => {
                let named = self.test.iter().map(|name| {
                    matrix.task(name).ok_or_else(|| {
                        Error::request(
                            format!("the matrix has no task `{name}`"),
                            format!("its tasks are {}", matrix.tasks.join(", ")),
                        )
                    })
                });
                Split::of(&table, named.collect::<Result<Vec<usize>>>()?)?
            }
        };
        let protocol = Protocol {
            known: self.known,
            repeats: self.repeats.max(1),
        };
        let scores = match self.flips {
            false => self.losses(&table, &split, protocol, key)?,
            true => self.turned(&table, &split, protocol, key)?,
        };
        if self.json {
            out::json(&Scores {
                tasks: table.height(),
                examples: table.width(),
                known: self.known,
                test: split
                    .test
                    .iter()
                    .map(|i| matrix.tasks[*i].as_str())
                    .collect(),
                scores,
            })?;
            return Ok(Ended::Done);
        }
        let mut shown = Table::new(&["forecast", "measure", ">value", ">95 % interval"]);
        for s in &scores {
            let interval = match (s.ci_low, s.ci_high) {
                (Some(low), Some(high)) => format!("{low:.4} to {high:.4}"),
                _ => "–".to_owned(),
            };
            shown.row([
                s.completer.to_owned(),
                s.measure.to_owned(),
                format!("{:.4}", s.mean),
                interval,
            ]);
        }
        out::print(&format!(
            "{}\n{} test tasks from {} train tasks; {} of {} examples known; intervals over {} draws of them\n",
            shown.text(&around.terminal()),
            split.test.len(),
            split.train.len(),
            self.known,
            table.width(),
            protocol.repeats
        ))?;
        Ok(Ended::Done)
    }

    fn losses(
        &self,
        table: &ebb_probe::Table,
        split: &Split,
        protocol: Protocol,
        key: Key,
    ) -> Result<Vec<Scored>> {
        let (closed, neighbours) = (ClosedForm::default(), Neighbours::default());
        let (factors, sgd, als) = (Factors::default(), Additive::OFFLINE, Additive::ONLINE);
        let mut all: Vec<&dyn Completer> = vec![&ColumnMean, &als, &closed];
        if !self.fast {
            all.extend([&sgd as &dyn Completer, &neighbours, &factors]);
        }
        all.into_iter()
            .map(|completer| {
                let rmse = protocol.losses(table, split, completer, key)?;
                Ok(scored(completer.name(), "RMSE", rmse))
            })
            .collect()
    }

    fn turned(
        &self,
        table: &ebb_probe::Table,
        split: &Split,
        protocol: Protocol,
        key: Key,
    ) -> Result<Vec<Scored>> {
        let (factors, additive) = (LogisticFactors::default(), LogisticAdditive::default());
        let mut scores = Vec::new();
        for completer in [&additive as &dyn Completer, &factors] {
            let flips = protocol.flips(table, split, completer, key)?;
            for (measure, of) in MEASURES {
                let repeats = flips.iter().map(of).collect();
                scores.push(scored(completer.name(), measure, repeats));
            }
        }
        Ok(scores)
    }
}

/// A measure of forecasts of flips.
type Measure = (&'static str, fn(&FlipScore) -> f64);

const MEASURES: [Measure; 4] = [
    ("F1", |f| f.f1),
    ("precision", |f| f.precision),
    ("recall", |f| f.recall),
    ("AUC", |f| f.auc),
];

fn scored(completer: &'static str, measure: &'static str, repeats: Vec<f64>) -> Scored {
    let interval = mean_ci_t(&repeats, 0.95).ok();
    Scored {
        completer,
        measure,
        mean: repeats.iter().sum::<f64>() / repeats.len() as f64,
        ci_low: interval.map(|i| i.low),
        ci_high: interval.map(|i| i.high),
        repeats,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_a_part_of_a_whole() {
        assert_eq!(shard("2/3"), Ok(Shard { index: 2, of: 3 }));
        for text in ["", "3", "0/2", "3/2", "a/b", "1/"] {
            assert!(shard(text).is_err(), "{text}");
        }
    }
}
