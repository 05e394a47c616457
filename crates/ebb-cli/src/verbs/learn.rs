//! `ebb learn`: trains on one experience after the other.

use crate::around::Around;
use crate::error::{Error, Result};
use crate::exit::Ended;
use crate::place::{Reserved, is_run};
use crate::recipes::{SHIPPED, Source};
use crate::show::{self, Finished};
use crate::verbs::plan::open;
use crate::watch::Watch;
use crate::{interrupt, out};
use ebb_learn::{Recipe, Session, learn_session};
use ebb_probe::build::way;
use ebb_probe::plan::Plan;
use ebb_probe::tasks::task_session;
use ebb_record::{Record, RunView, States};
use ebb_report::Colour;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

/// Learn task after task, and record what is kept and what is forgotten
#[derive(clap::Args)]
#[command(after_help = after_help())]
pub struct Learn {
    /// A recipe: a TOML file, a run directory, or the name of one that comes with `ebb`
    #[arg(value_name = "RECIPE")]
    recipe: Option<String>,
    /// Write the run here instead of runs/METHOD-N; it must not be there yet
    #[arg(short, long, value_name = "RUN")]
    out: Option<PathBuf>,
    /// Put another method in the place of the recipe's own; `ebb methods` lists them
    #[arg(short, long, value_name = "NAME")]
    method: Option<String>,
    /// Change a value of the recipe; may be repeated
    #[arg(short, long = "set", value_name = "KEY=VALUE", value_parser = assignment)]
    sets: Vec<(String, String)>,
    /// Replay what a plan of `ebb plan` says, from the base of its matrix
    #[arg(long, value_name = "FILE", requires = "matrix", conflicts_with_all = ["method", "seeds"])]
    plan: Option<PathBuf>,
    /// The folder of the plan's matrix
    #[arg(long, value_name = "DIR", requires = "plan")]
    matrix: Option<PathBuf>,
    /// The seed of every draw
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: Option<u64>,
    /// Repeat over so many seeds, each into RUN/seed-K
    #[arg(long, value_name = "N")]
    seeds: Option<NonZeroU32>,
    /// Print the recipe with every default written out, and do nothing else
    #[arg(long)]
    print_recipe: bool,
    /// Print the summary as JSON, and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// No progress and no picture: print the run directory alone
    #[arg(short, long)]
    quiet: bool,
}

/// The recipes that come with the program, then the examples.
fn after_help() -> String {
    let mut text = "Recipes that come with ebb:\n".to_owned();
    for (i, recipe) in SHIPPED.iter().enumerate() {
        let default = if i == 0 { "(default) " } else { "" };
        text.push_str(&format!(
            "  {:<20} {default}{}\n",
            recipe.name, recipe.about
        ));
    }
    text + "  Those on MNIST need `ebb data fetch mnist` once.\n\n" + EXAMPLES
}

const EXAMPLES: &str = "\
Examples:
  ebb learn                                  learn the digits, see what replay saves
  ebb learn --method fine-tune               and what is lost without it
  ebb learn --method er --set with.capacity=50 --seeds 5
  ebb learn split-mnist-er --set evaluate.every=0 -o runs/fast
  ebb learn --print-recipe > mine.toml       every key that a recipe may have
  ebb learn new.toml --plan plan.json --matrix matrix   replay what is forecast to be forgotten
  ebb learn mine.toml --set train.lr=0.05 --json | jq .numbers

Ctrl-C saves and stops; `ebb resume RUN` goes on from there, to the same bits.";

/// `a.b=c`.
pub fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("it must look like train.lr=0.05".to_owned()),
    }
}

impl Learn {
    /// Does it.
    ///
    /// # Errors
    /// When the recipe cannot be used, training diverges or is interrupted, or the run cannot be
    /// written.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        let source = Source::find(self.recipe.as_deref())?;
        let recipe = self.recipe(&source, self.seed)?;
        if self.print_recipe {
            out::print(recipe.text())?;
            return Ok(Ended::Done);
        }
        let reserved = match &self.out {
            Some(_) => None,
            None => Some(Reserved::new(recipe.label())?),
        };
        let place = match (&self.out, &reserved) {
            (Some(out), _) => out.as_path(),
            (None, Some(reserved)) => reserved.path(),
            (None, None) => Path::new(crate::place::RUNS),
        };
        let result = match self.seeds {
            None => self.one(&recipe, place, around),
            Some(seeds) => self.several(&source, &recipe, seeds, place, around),
        };
        if let Some(reserved) = reserved.filter(|_| result.is_ok()) {
            reserved.keep();
        }
        result?;
        Ok(Ended::Done)
    }

    fn recipe(&self, source: &Source, seed: Option<u64>) -> Result<Recipe> {
        let mut sets = self.sets.clone();
        sets.extend(seed.map(|seed| ("seed".to_owned(), seed.to_string())));
        let Some(plan) = &self.plan else {
            return source.recipe(self.method.as_deref(), &sets);
        };
        let plan = Plan::read(plan)?;
        // The forecast holds for the way in which the matrix's tasks were learnt.
        let plain = source.recipe(None, &sets)?;
        if way(&plain)? != plan.way {
            return Err(Error::Probe(ebb_probe::Error::OtherRecipe {
                matrix: plan.way,
                asked: way(&plain)?,
            }));
        }
        sets.extend(plan.sets());
        source.recipe(Some("planned"), &sets)
    }

    /// The run's session at the beginning of the planned task, with the base of the matrix.
    fn planned(&self, recipe: &Recipe, around: &Around) -> Result<Option<Session>> {
        let (Some(plan), Some(matrix)) = (&self.plan, &self.matrix) else {
            return Ok(None);
        };
        let plan = Plan::read(plan)?;
        let folder = open(matrix, around)?;
        if folder.base_hash() != plan.base {
            return Err(Error::Probe(ebb_probe::Error::OtherBase {
                matrix: folder.base_hash(),
                asked: plan.base,
            }));
        }
        let session = Session::new(recipe, &around.data_dir_or_here())?;
        if session.stream.experiences.len() != 2 {
            return Err(Error::request(
                "a planned run has two experiences: the base's, and the new task",
                "leave the others out of the recipe's stream",
            ));
        }
        Ok(Some(task_session(recipe, session.stream, &folder.base)?))
    }

    fn one(&self, recipe: &Recipe, place: &Path, around: &Around) -> Result<()> {
        let run = self.learn(recipe, place, "", around)?;
        match (self.json, self.quiet) {
            (true, _) => show::json(&run),
            (false, true) => out::print(&out::quoted(place)),
            (false, false) => self.picture(&[run], place, recipe, around),
        }
    }

    fn several(
        &self,
        source: &Source,
        first: &Recipe,
        seeds: NonZeroU32,
        place: &Path,
        around: &Around,
    ) -> Result<()> {
        let from = first.file().seed;
        let last = from.saturating_add(u64::from(seeds.get() - 1));
        let mut runs = Vec::new();
        for seed in from..=last {
            let recipe = self.recipe(source, Some(seed))?;
            let directory = place.join(format!("seed-{seed}"));
            let run = self.learn(&recipe, &directory, &format!("seed {seed}: "), around);
            runs.push(run.map_err(|error| self.with_rest(error, seed, last, place))?);
        }
        match (self.json, self.quiet) {
            (true, _) => show::json_of_seeds(place, &runs),
            (false, true) => out::print(&out::quoted(place)),
            (false, false) => self.picture(&runs, place, first, around),
        }
    }

    fn learn(
        &self,
        recipe: &Recipe,
        directory: &Path,
        name: &str,
        around: &Around,
    ) -> Result<Finished> {
        let terminal = around.terminal();
        let colour = terminal.colour != Colour::None;
        let mut watch = Watch::new(self.quiet, colour, name);
        // A refusal because something is there already is no failure of the run that is there.
        let free = !is_run(directory);
        let planned = self.planned(recipe, around)?;
        let data_dir = around.data_dir_or_here();
        let mut surroundings = ebb_learn::Around {
            data_dir: &data_dir,
            progress: &mut watch,
            stop: interrupt::flag(),
        };
        let result = match planned {
            None => ebb_learn::learn(recipe, Some(directory), &mut surroundings),
            Some(session) => learn_session(session, Some(directory), &mut surroundings),
        };
        if let Some(plan) = self.plan.as_ref().filter(|_| is_run(directory)) {
            Plan::read(plan)?.write(&directory.join("plan.json"))?;
        }
        drop(watch);
        if let (Err(ebb_learn::Error::Recipe { .. }), true) = (&result, free) {
            discard_unbegun(directory);
        }
        let summary = result.map_err(|source| match free && is_run(directory) {
            false => Error::from(source),
            true => Error::InRun {
                run: directory.to_owned(),
                source: Box::new(source.into()),
                then: None,
            },
        })?;
        Ok(Finished {
            directory: directory.to_owned(),
            summary,
        })
    }

    /// Says how to get the seeds that an interruption left out.
    fn with_rest(&self, error: Error, seed: u64, last: u64, place: &Path) -> Error {
        match error {
            Error::InRun { run, source, .. } if seed < last => Error::InRun {
                run,
                source,
                then: Some(format!(
                    "for the seeds after it, the same command with `--seed {} --seeds {} -o {}`",
                    seed + 1,
                    last - seed,
                    out::quoted(place)
                )),
            },
            other => other,
        }
    }

    /// The picture, where it lies, and what to do next.
    fn picture(
        &self,
        runs: &[Finished],
        place: &Path,
        recipe: &Recipe,
        around: &Around,
    ) -> Result<()> {
        let terminal = around.terminal();
        let mut text = show::picture(runs, &terminal)?;
        let place = out::quoted(place);
        text.push_str(&format!("\nrun  {}\n", out::bold(&terminal, &place)));
        let mut next = vec![(
            format!("ebb report {place} --open"),
            "the whole story on one page",
        )];
        if self.out.is_none() && recipe.label() != "fine-tune" {
            let asked = self.recipe.as_deref().map(Path::new).map(out::quoted);
            let asked = asked.map_or_else(String::new, |name| format!(" {name}"));
            next.push((
                format!("ebb learn{asked} --method fine-tune"),
                "the same without a remedy",
            ));
        }
        if self.out.is_none() {
            next.push((
                format!("ebb report {}/* --open", crate::place::RUNS),
                "every run side by side",
            ));
        }
        let width = next
            .iter()
            .map(|(c, _)| c.chars().count())
            .max()
            .unwrap_or(0);
        for (i, (command, about)) in next.iter().enumerate() {
            let word = if i == 0 { "next" } else { "    " };
            let about = out::dim(&terminal, about);
            text.push_str(&format!("{word} {command:<width$}  {about}\n"));
        }
        out::print(&text)
    }
}

/// Removes the folder of a run that its own recipe kept from beginning: nothing was learned in it,
/// and going on would meet the same recipe.
fn discard_unbegun(directory: &Path) {
    let states = RunView::load(directory).and_then(|run| run.states());
    let unbegun = |states: &States| states.chain().len() <= 1 && !learned(directory);
    if states.as_ref().is_ok_and(unbegun) {
        // If it cannot be removed, the message says that it is there.
        let _ = std::fs::remove_dir_all(directory);
    }
}

/// Whether its records hold anything learned, or cannot be read.
fn learned(directory: &Path) -> bool {
    let records = RunView::load(directory).and_then(|run| run.records());
    records.map_or(true, |records| {
        let of_learning =
            |record: &Record| matches!(record, Record::Step(_) | Record::Consolidate(_));
        records.iter().any(of_learning)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_has_a_key() {
        let pair = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
        assert_eq!(assignment("train.lr=0.1"), pair("train.lr", "0.1"));
        assert_eq!(assignment(" a = b=c"), pair("a", "b=c"));
        assert!(assignment("=3").is_err() && assignment("train.lr").is_err());
    }
}
