//! `ebb study`: published findings as claims that can fail.

use crate::around::Around;
use crate::error::{Error, Result};
use crate::exit::Ended;
use crate::out::{self, Table};
use crate::watch::RunsWatch;
use crate::{exit, interrupt};
use ebb_report::Terminal;
use ebb_study::study::Plan;
use ebb_study::{Kept, Options, Study as Claim, Verdict};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Reproduce published findings: arms times seeds, and a verdict that can fail
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Study {
    #[command(subcommand)]
    verb: StudyVerb,
}

const AFTER_HELP: &str = "\
A study names a claim, the arms that test it, what must hold and what must not hold in its place.
Its verdict is written as ID.json. `run` exits with 0 if every claim holds, 1 if one does not, 2 on
an error. `check` exits with 0 also where a recorded failure is found again, 1 on a change.

Examples:
  ebb study list
  ebb study show S029
  ebb study run S029 S123
  ebb study run --fast -o verdicts --json | jq '.[] | {id, holds, p_value}'
  ebb study check --fast           what continuous integration runs

A study of arms that is stopped goes on where it was: runs that ended are kept in the data directory,
for every study that asks for the same run of the same code; runs on files of your own are not.";

#[derive(clap::Subcommand)]
enum StudyVerb {
    /// List the studies, their recorded verdicts, and which of those are stale
    List {
        #[command(flatten)]
        evidence: Evidence,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one: claim, source, arms, what must hold and what must not
    Show {
        /// Its id, or a study file
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        evidence: Evidence,
    },
    /// Run studies and write their verdicts
    Run {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        evidence: Evidence,
        /// Run every run, also those that ended in an earlier study
        #[arg(long)]
        anew: bool,
        /// Print the verdicts as a JSON list, and nothing else on standard output
        #[arg(long)]
        json: bool,
    },
    /// Run studies and compare with the recorded verdicts, which stay as they are
    Check {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        evidence: Evidence,
    },
    /// Carry stale verdicts over to this code: the first seed of every arm, run again, must give
    /// the recorded values bit for bit
    Confirm {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        evidence: Evidence,
    },
    /// Print the table of reference rows as Markdown, from the recorded verdicts
    Table {
        #[command(flatten)]
        evidence: Evidence,
    },
}

/// Which studies.
#[derive(clap::Args)]
struct Which {
    /// Their ids, or study files
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Every study
    #[arg(long, conflicts_with_all = ["ids", "fast"])]
    all: bool,
    /// Those that take seconds
    #[arg(long, conflicts_with = "ids")]
    fast: bool,
}

/// Where verdicts lie.
#[derive(clap::Args)]
struct Evidence {
    /// Where verdicts lie
    #[arg(
        short = 'o',
        long = "out",
        value_name = "DIR",
        default_value = "docs/evidence"
    )]
    dir: PathBuf,
}

impl Which {
    fn studies(&self) -> Result<Vec<Claim>> {
        match (self.all, self.fast) {
            (false, false) if self.ids.is_empty() => Err(Error::request(
                "no study is named",
                "give ids (`ebb study list` lists them), --fast or --all",
            )),
            (false, false) => self.ids.iter().map(|id| find(id)).collect(),
            (all, _) => {
                let mut studies = ebb_study::catalogue()?;
                studies.retain(|s| all || s.fast);
                Ok(studies)
            }
        }
    }
}

/// The study in a file, or the one of that id.
fn find(id: &str) -> Result<Claim> {
    let path = Path::new(id);
    match path.extension().is_some_and(|e| e == "toml") {
        true => Ok(ebb_study::catalogue::read(path)?),
        false => Ok(ebb_study::find(id)?),
    }
}

impl Study {
    /// Does it.
    ///
    /// # Errors
    /// When a study cannot be read or a run of it fails. A claim that does not hold is no error.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        match &self.verb {
            StudyVerb::List { evidence, json } => list(&evidence.dir, *json, &around.terminal()),
            StudyVerb::Show { id, evidence } => show(id, &evidence.dir, &around.terminal()),
            StudyVerb::Run {
                which,
                evidence,
                anew,
                json,
            } => run(&which.studies()?, &evidence.dir, *anew, *json, around),
            StudyVerb::Check { which, evidence } => check(&which.studies()?, &evidence.dir, around),
            StudyVerb::Confirm { which, evidence } => {
                confirm(&which.studies()?, &evidence.dir, around)
            }
            StudyVerb::Table { evidence } => table(&evidence.dir),
        }
    }
}

/// How a study stands.
#[derive(Serialize)]
struct Row {
    id: String,
    title: String,
    fast: bool,
    holds: Option<bool>,
    stale: Option<String>,
    wall_seconds: Option<f64>,
}

fn rows(studies: &[Claim], evidence: &Path) -> Result<Vec<Row>> {
    let standing = ebb_study::list(studies, evidence)?;
    let row = |s: ebb_study::Standing| Row {
        id: s.id,
        title: s.title,
        fast: s.fast,
        holds: s.committed.as_ref().map(|c| c.holds),
        wall_seconds: s.committed.as_ref().map(|c| c.wall_seconds),
        stale: s.committed.and_then(|c| c.stale),
    };
    Ok(standing.into_iter().map(row).collect())
}

fn list(evidence: &Path, json: bool, terminal: &Terminal) -> Result<Ended> {
    let rows = rows(&ebb_study::catalogue()?, evidence)?;
    if json {
        out::json(&rows)?;
        return Ok(Ended::Done);
    }
    let mut table = Table::new(&["study", "verdict", ">seconds", "stale", "about"]);
    for row in &rows {
        table.row([
            row.id.clone(),
            row.holds.map_or("–", verdict_word).to_owned(),
            row.wall_seconds
                .map_or_else(|| "–".into(), |s| format!("{s:.0}")),
            row.stale.clone().unwrap_or_default(),
            format!("{}{}", row.title, if row.fast { " (fast)" } else { "" }),
        ]);
    }
    out::print(&table.text(terminal))?;
    Ok(Ended::Done)
}

fn verdict_word(holds: bool) -> &'static str {
    if holds { "holds" } else { "does not hold" }
}

fn show(id: &str, evidence: &Path, terminal: &Terminal) -> Result<Ended> {
    let study = find(id)?;
    let mut text = out::bold(terminal, &format!("{}: {}", study.id, study.title)) + "\n\n";
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!(
                "{} {value}\n",
                out::dim(terminal, &format!("{name:<10}"))
            ));
        }
    };
    line("claim", study.claim.clone());
    line("source", study.source.clone());
    let seeds: Vec<String> = study.seeds.iter().map(u64::to_string).collect();
    line("seeds", seeds.join(", "));
    line("budget", format!("{:.0} s on two cores", study.budget_s));
    for row in rows(std::slice::from_ref(&study), evidence)? {
        let stale = row
            .stale
            .map_or_else(String::new, |why| format!(", but {why} since"));
        let word = row
            .holds
            .map(|holds| format!("{}{stale}", verdict_word(holds)));
        line("verdict", word.unwrap_or_else(|| "none yet".into()));
    }
    for (name, arm) in study.plan.arms().into_iter().flatten() {
        line("arm", format!("{name}: {}", arm.about));
    }
    let claims = match &study.plan {
        Plan::Arms(arms) => Some(&arms.claims),
        Plan::Native(_, claims) => Some(claims),
        Plan::Reference(reference) => {
            for (name, row) in &reference.rows {
                line(
                    "row",
                    match (&row.published, row.at_least) {
                        (Some(theirs), _) => format!(
                            "{name}: published {:.2} ± {:.2}, {} runs",
                            theirs.mean, theirs.sd, theirs.n
                        ),
                        (None, bar) => format!("{name}: at least {}", bar.unwrap_or_default()),
                    },
                );
            }
            None
        }
    };
    for (name, clause) in claims.iter().flat_map(|c| &c.expect) {
        line("expects", format!("{name}: {}", clause.text()));
    }
    for (name, control) in claims.iter().flat_map(|c| &c.controls) {
        line(
            "control",
            format!("{name}: must not hold: {}", control.about),
        );
    }
    for note in &study.notes {
        line("note", note.clone());
    }
    out::print(&text)?;
    Ok(Ended::Done)
}

/// Calls `each` with what a study needs around it.
fn around<T>(
    around: &Around,
    kept: Option<&Kept>,
    each: impl FnOnce(&Options, &mut RunsWatch) -> T,
) -> T {
    let data_dir = around.data_dir_or_here();
    let options = Options {
        data_dir: &data_dir,
        threads: around.threads(),
        stop: interrupt::flag(),
        kept,
    };
    each(&options, &mut RunsWatch::new())
}

fn run(
    studies: &[Claim],
    evidence: &Path,
    anew: bool,
    json: bool,
    setting: &Around,
) -> Result<Ended> {
    let terminal = setting.terminal();
    let kept = Kept::at(setting.data_dir_or_here().join("study-runs"));
    let kept = (!anew).then_some(&kept);
    let mut verdicts = Vec::new();
    let mut failed = None;
    for study in studies {
        let result = around(setting, kept, |options, watch| {
            watch.begin(&study.id, &study.title);
            ebb_study::run(study, options, watch)
        });
        match result {
            Ok(verdict) => {
                let path = verdict.save(evidence)?;
                if !json {
                    out::print(&verdict_text(&verdict, &path, &terminal))?;
                }
                verdicts.push(verdict);
            }
            Err(ebb_study::Error::Stopped) => return Err(ebb_study::Error::Stopped.into()),
            // One that cannot be run does not keep the others from their verdicts.
            Err(error) => {
                if let Some(earlier) = failed.replace(Error::from(error)) {
                    exit::print(&earlier);
                }
            }
        }
    }
    if json {
        out::json(&verdicts)?;
    }
    match failed {
        Some(error) => Err(error),
        None if verdicts.iter().all(|v| v.holds) => Ok(Ended::Done),
        None => Ok(Ended::DoesNotHold),
    }
}

/// Four decimals, or what of a small value would be lost in them.
fn figure(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-3 {
        format!("{value:.1e}")
    } else {
        format!("{value:.4}")
    }
}

/// A verdict for people: each clause with its value, then the answer.
fn verdict_text(verdict: &Verdict, path: &Path, terminal: &Terminal) -> String {
    let mut text = format!("{}\n", verdict.claim);
    let mark = |good: bool| if good { "✓" } else { "✗" };
    for judged in &verdict.expected {
        let p = judged
            .p
            .map_or_else(String::new, |p| format!(", p = {p:.4}"));
        text.push_str(&format!(
            "  {} {}: {}  ({}{p})\n",
            mark(judged.holds),
            judged.name,
            judged.clause,
            judged.value.map_or_else(
                || "a run diverged".into(),
                |v| format!("measured {}", figure(v))
            )
        ));
    }
    for arm in verdict.arms.iter().filter(|arm| !arm.diverged.is_empty()) {
        let seeds: Vec<String> = arm.diverged.iter().map(u64::to_string).collect();
        text.push_str(&format!(
            "  – arm {} diverged with seed {}\n",
            arm.name,
            seeds.join(", ")
        ));
    }
    for row in &verdict.rows {
        text.push_str(&format!(
            "  {} {}: published {:.2}, here {:.2} ± {:.2}, tolerance {:.2}\n",
            mark(row.holds),
            row.name,
            row.theirs
                .map_or(row.at_least.unwrap_or_default(), |t| t.mean),
            row.ours.mean,
            row.ours.half_width(),
            row.tolerance
        ));
    }
    for control in &verdict.controls {
        let word = if control.holds {
            "holds, and must not"
        } else {
            "does not hold, as it must"
        };
        text.push_str(&format!(
            "  {} control {}: {word}\n",
            mark(!control.holds),
            control.name
        ));
    }
    let answer = format!("{} {}", verdict.id, verdict_word(verdict.holds));
    text.push_str(&format!(
        "{}  {}\n",
        out::bold(terminal, &answer),
        out::dim(
            terminal,
            &format!(
                "{} seed{}, {:.0} s, {}",
                verdict.n_seeds,
                if verdict.n_seeds == 1 { "" } else { "s" },
                verdict.wall_seconds,
                out::quoted(path)
            )
        )
    ));
    text
}

fn check(studies: &[Claim], evidence: &Path, setting: &Around) -> Result<Ended> {
    let checked = around(setting, None, |options, watch| {
        ebb_study::check(studies, evidence, options, watch)
    })?;
    let mut table = Table::new(&["study", "recorded", "now", ""]);
    for c in &checked {
        table.row([
            c.id.clone(),
            c.before.map_or("–", verdict_word).to_owned(),
            match &c.now {
                Ok(verdict) => verdict_word(verdict.holds).to_owned(),
                Err(error) => error.to_string(),
            },
            if c.failed() { "CHANGED" } else { "" }.to_owned(),
        ]);
    }
    out::print(&table.text(&setting.terminal()))?;
    let errors = checked.iter().filter(|c| c.now.is_err()).count();
    match errors {
        0 if checked.iter().any(|c| c.failed()) => Ok(Ended::DoesNotHold),
        0 => Ok(Ended::Done),
        n => Err(Error::request(
            format!("{n} of {} studies could not be run", checked.len()),
            "`ebb study run ID` says why",
        )),
    }
}

fn confirm(studies: &[Claim], evidence: &Path, setting: &Around) -> Result<Ended> {
    use ebb_study::confirm::Outcome;
    let mut table = Table::new(&["study", "found"]);
    let mut all = true;
    for study in studies {
        let path = ebb_study::verdict::path_of(evidence, &study.id);
        let found = if !path.exists() {
            all = false;
            "no verdict yet: `ebb study run`".to_owned()
        } else {
            let verdict = Verdict::load(&path)?;
            let outcome = around(setting, None, |options, watch| {
                watch.begin(&study.id, &study.title);
                ebb_study::confirm(study, &verdict, options, watch)
            })?;
            match outcome {
                Outcome::Fresh => "fresh already".to_owned(),
                Outcome::Same(verdict) => {
                    verdict.save(evidence)?;
                    let compared = verdict.confirmed.as_ref().map(|c| (c.runs, c.values));
                    let (runs, values) = compared.unwrap_or_default();
                    format!("confirmed: {runs} runs, {values} values, the same bits")
                }
                Outcome::RunAgain(why) => {
                    all = false;
                    format!("run it again: {why}")
                }
            }
        };
        table.row([study.id.clone(), found]);
    }
    out::print(&table.text(&setting.terminal()))?;
    Ok(if all { Ended::Done } else { Ended::DoesNotHold })
}

fn table(evidence: &Path) -> Result<Ended> {
    let mut verdicts = Vec::new();
    for study in ebb_study::catalogue()? {
        let path = ebb_study::verdict::path_of(evidence, &study.id);
        if path.exists() {
            verdicts.push(Verdict::load(&path)?);
        }
    }
    out::print(&ebb_study::reference_table(&verdicts))?;
    Ok(Ended::Done)
}
