//! `ebb compare`: groups of runs against one another, tested over their seeds.

use crate::around::Around;
use crate::error::{Error, Result};
use crate::exit::Ended;
use crate::{out, place};
use ebb_report::{Contest, Entry, LeftOut, Question, Refusal, RunData};
use ebb_space::glob;
use std::path::{Component, Path, PathBuf};

/// Compare methods over their seeds: means, costs, paired tests and a verdict for each pair
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Compare {
    /// Runs, folders that hold runs, or patterns such as 'runs/er*'; NAME=PATH names a group
    #[arg(value_name = "GROUP", required = true)]
    groups: Vec<PathBuf>,
    /// What to compare; may be repeated
    #[arg(
        long = "metric",
        value_name = "NAME",
        default_value = "average_accuracy"
    )]
    metrics: Vec<String>,
    /// The group that the others are held against; else fine-tune, else the first
    #[arg(long, value_name = "NAME")]
    against: Option<String>,
    /// Test every pair of groups, not only those with that one
    #[arg(long)]
    all_pairs: bool,
    /// The level at which a difference counts
    #[arg(long, value_name = "LEVEL", default_value_t = 0.05, value_parser = level)]
    alpha: f64,
    /// Print JSON: every value by seed, all digits
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Runs whose recipes differ in the seed alone are one group, wherever they lie. Two groups are
compared within the seeds that both have (exact sign-flip test), or by Welch's t test where they
share none; Holm's correction is over all tests shown. Five seeds cannot reach p = 0.05: learn
with at least six, and more for several pairs. Costs stand beside the means, because a method
that saw more rows or kept more bytes may owe its lead to them. Metrics: average_accuracy,
forgetting, bwt, min_acc, ...; the book's chapter on numbers defines them.

Examples:
  ebb learn --method fine-tune --seeds 8 -q        groups to compare
  ebb learn --method er --seeds 8 -q
  ebb learn --method er --set with.capacity=50 --seeds 8 -q
  ebb compare runs/*                               everything against fine-tuning
  ebb compare small=runs/er-2 large=runs/er-1      names of your own
  ebb compare runs/* --all-pairs --metric average_accuracy --metric forgetting
  ebb compare runs/er* runs/der* --against er --json | jq '.measures[].pairs[]'
  ebb report runs/* -o all.html                    the same groups as a page, with their curves";

/// A level between 0 and 1.
fn level(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(level) if level > 0.0 && level < 1.0 => Ok(level),
        _ => Err("it must lie between 0 and 1, such as 0.05".to_owned()),
    }
}

impl Compare {
    /// Does it.
    ///
    /// # Errors
    /// When runs cannot be read, or what they hold cannot be compared.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        let (entries, holding_none) = self.entries()?;
        let question = Question {
            metrics: self.metrics.clone(),
            against: self.against.clone(),
            all_pairs: self.all_pairs,
            alpha: self.alpha,
        };
        let compared = ebb_report::contest(&entries, &question);
        let mut contest = compared.map_err(|refusal| refused(*refusal, &holding_none))?;
        contest.left_out.splice(0..0, holding_none);
        if self.json {
            out::json(&contest)?;
        } else {
            self.print(&contest, around)?;
        }
        Ok(Ended::Done)
    }

    fn print(&self, contest: &Contest, around: &Around) -> Result<()> {
        let terminal = around.terminal();
        let mut text = ebb_report::terminal_contest(contest, &terminal);
        let paths: Vec<String> = self.groups.iter().map(|g| pattern(named(g).1)).collect();
        let command = format!("ebb report {} -o comparison.html", paths.join(" "));
        // A shell has made a pattern into many words: they are not worth repeating.
        if command.chars().count() + "next ".len() <= terminal.width {
            let about = "the same groups on one page, with their curves";
            text.push_str(&format!("\nnext {command}\n"));
            text.push_str(&format!("     {}\n", out::dim(&terminal, about)));
        }
        out::print(&text)
    }

    /// The runs with the names of their groups, each once, and the paths that hold no run.
    fn entries(&self) -> Result<(Vec<Entry>, Vec<LeftOut>)> {
        let mut places: Vec<(Option<String>, PathBuf)> = Vec::new();
        let mut none = Vec::new();
        for group in &self.groups {
            let (name, path) = named(group);
            for path in matching(path)? {
                // A pattern also finds what lies beside the runs, such as a report.
                let runs = match path.is_dir() {
                    true => place::find(&path)?,
                    false => Vec::new(),
                };
                if runs.is_empty() {
                    none.push(left_out(&path, "it is no run and holds none"));
                }
                for run in runs {
                    place_once(&mut places, name, run)?;
                }
            }
        }
        let mut entries = Vec::new();
        for (group, path) in places {
            match RunData::outline(&path) {
                Ok(mut run) => {
                    run.name = path.display().to_string();
                    entries.push(Entry { group, run });
                }
                Err(ebb_record::Error::NotBegun) => {
                    none.push(left_out(&path, "unfinished: it has not begun"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok((entries, none))
    }
}

fn left_out(path: &Path, reason: &str) -> LeftOut {
    LeftOut {
        run: path.display().to_string(),
        reason: reason.to_owned(),
    }
}

/// Adds a run under its group's name. A run that was given twice counts once; a name has
/// precedence over none.
fn place_once(
    places: &mut Vec<(Option<String>, PathBuf)>,
    name: Option<&str>,
    run: PathBuf,
) -> Result<()> {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let own = real(&run);
    let Some((other, _)) = places.iter_mut().find(|(_, path)| real(path) == own) else {
        places.push((name.map(str::to_owned), run));
        return Ok(());
    };
    match (other.as_deref(), name) {
        (Some(a), Some(b)) if a != b => Err(Error::request(
            format!("`{}` stands in two groups, `{a}` and `{b}`", run.display()),
            "give each run one name",
        )),
        (None, Some(name)) => {
            *other = Some(name.to_owned());
            Ok(())
        }
        _ => Ok(()),
    }
}

/// `NAME=PATH` as both; a path that is there as it stands has no name.
fn named(group: &Path) -> (Option<&str>, &Path) {
    let split = group.to_str().and_then(|text| text.split_once('='));
    match split {
        Some((name, path))
            if !name.is_empty()
                && !path.is_empty()
                && !name.contains(['/', '\\', '*', '?'])
                && !group.exists() =>
        {
            (Some(name), Path::new(path))
        }
        _ => (None, group),
    }
}

/// A path for a shell, its pattern left for the shell to expand.
fn pattern(path: &Path) -> String {
    let text = path.display().to_string();
    let fixed = text.replace(['*', '?'], "");
    match out::quoted(Path::new(&fixed)) == fixed {
        true => text,
        false => out::quoted(path),
    }
}

/// The paths that a pattern of `*` and `?` stands for, in the order of their names; a path without
/// either, or one that is there as it stands, stands for itself.
fn matching(path: &Path) -> Result<Vec<PathBuf>> {
    let missing = |what: String| {
        Error::request(
            what,
            "give directories that `ebb learn` wrote; `ebb runs` lists them",
        )
    };
    if path.exists() {
        return Ok(vec![path.to_owned()]);
    }
    let is_pattern = |part: &str| part.contains(['*', '?']);
    if !path.to_string_lossy().contains(['*', '?']) {
        return Err(missing(format!("there is no `{}`", path.display())));
    }
    let mut found = vec![PathBuf::new()];
    for part in path.components() {
        let text = part.as_os_str().to_string_lossy();
        found = match part {
            Component::Normal(_) if is_pattern(&text) => {
                found.iter().flat_map(|dir| below(dir, &text)).collect()
            }
            _ => found.iter().map(|dir| dir.join(part)).collect(),
        };
    }
    found.retain(|path| path.exists());
    match found.is_empty() {
        true => Err(missing(format!("nothing matches `{}`", path.display()))),
        false => Ok(found),
    }
}

/// What in a directory has a name of this pattern.
fn below(directory: &Path, pattern: &str) -> Vec<PathBuf> {
    let here = match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    };
    let entries = std::fs::read_dir(here).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name())
        .filter(|name| {
            let name = name.to_string_lossy();
            // As in a shell, what is hidden has to be asked for.
            (pattern.starts_with('.') || !name.starts_with('.')) && glob(pattern, &name)
        })
        .collect();
    names.sort();
    names.iter().map(|name| directory.join(name)).collect()
}

/// A refusal with what to do about it.
fn refused(mut refusal: Refusal, none: &[LeftOut]) -> Error {
    if let Refusal::TooFew { left_out, .. } = &mut refusal {
        left_out.splice(0..0, none.iter().cloned());
    }
    let remedy = match &refusal {
        Refusal::TooFew { .. } => {
            "add runs of another recipe: `ebb learn --method NAME --seeds 8` \
             makes some, `ebb runs` lists what there is, `ebb resume RUN` finishes a run"
                .to_owned()
        }
        Refusal::NameTwice { name } => format!("name them apart: `{name}=PATH other=PATH`"),
        Refusal::NameMixes { name, .. } => {
            format!("give each a name of its own, such as `{name}-1=PATH {name}-2=PATH`")
        }
        Refusal::NoSuchGroup { .. } => "`--against` takes one of these names".to_owned(),
        Refusal::NoSuchMetric { .. } => "`--metric` takes one of these names; those of the panel \
             need `evaluate.every` above 0 in the recipe"
            .to_owned(),
        Refusal::SingleRun { run, .. } => format!(
            "learn it with more seeds, `ebb learn {} --seeds 8`, or leave it out",
            out::quoted(Path::new(run))
        ),
        Refusal::Apart { .. } => "compare runs of one stream, evaluated alike; `joint`, which has \
             one experience, stands apart from the others, and `cumulative` does not; `ebb report` \
             shows both, apart"
            .to_owned(),
    };
    Error::request(refusal.to_string(), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_before_a_path() {
        let of = |text: &'static str| {
            let (name, path) = named(Path::new(text));
            (name, path.to_str().unwrap())
        };
        assert_eq!(of("er=runs/er-1"), (Some("er"), "runs/er-1"));
        assert_eq!(of("er=runs/lr=0.1"), (Some("er"), "runs/lr=0.1"));
        assert_eq!(of("runs/lr=0.1"), (None, "runs/lr=0.1"));
        assert_eq!(of("=runs"), (None, "=runs"));
        assert_eq!(of("runs/er*"), (None, "runs/er*"));
    }

    #[test]
    fn a_pattern_is_that_of_a_shell() {
        assert!(glob("er*", "er-1") && glob("er*", "er") && glob("*-?", "der++-1"));
        assert!(!glob("er*", "der-1") && !glob("er?", "er") && !glob("er", "er-1"));
        let dir = tempfile::tempdir().unwrap();
        for run in ["b/er-2", "b/er-1", "a/er-1", "a/.er-9", "a/der-1"] {
            std::fs::create_dir_all(dir.path().join(run)).unwrap();
        }
        let found = |pattern: &str| -> Vec<String> {
            let found = matching(&dir.path().join(pattern)).unwrap_or_default();
            let name = |p: &PathBuf| p.strip_prefix(dir.path()).unwrap().display().to_string();
            found.iter().map(name).collect()
        };
        assert_eq!(found("*/er*"), ["a/er-1", "b/er-1", "b/er-2"]);
        assert_eq!(found("b/er-?"), ["b/er-1", "b/er-2"]);
        assert_eq!(found("b"), ["b"]);
        assert!(found("c*").is_empty() && found("c").is_empty());
    }

    #[test]
    fn a_run_counts_once_and_under_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("er-1");
        std::fs::create_dir(&run).unwrap();
        let again = dir.path().join("er-1/../er-1");
        let mut places = Vec::new();
        place_once(&mut places, None, run.clone()).unwrap();
        place_once(&mut places, Some("er"), again.clone()).unwrap();
        place_once(&mut places, None, run.clone()).unwrap();
        assert_eq!(places, [(Some("er".to_owned()), run)]);
        assert!(place_once(&mut places, Some("other"), again).is_err());
    }

    #[test]
    fn a_level_lies_between_0_and_1() {
        assert_eq!(level("0.01"), Ok(0.01));
        assert!(level("0").is_err() && level("1").is_err() && level("NaN").is_err());
    }
}
