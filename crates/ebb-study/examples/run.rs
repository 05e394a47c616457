//! Runs studies by id and writes their verdicts: `cargo run --release -p ebb-study --example run
//! -- S029 R01`, with `--out DIR` (none is written without) and `--threads N`. With `--table`
//! it writes the reference table from the verdicts in DIR, with `--list` it says how they stand. A
//! path ending in `.toml` is a file.

use ebb_study::{Ended, Options, Verdict, Watch};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

struct Lines {
    left: usize,
}

impl Watch for Lines {
    fn ahead(&mut self, runs: usize) {
        self.left = runs;
    }

    fn run(&mut self, run: &Ended) {
        self.left -= 1;
        let values: Vec<String> = run
            .measured
            .iter()
            .map(|(k, v)| format!("{k} {v:.4}"))
            .collect();
        let trial = run
            .trial
            .as_ref()
            .map_or(String::new(), |t| format!(" [{t}]"));
        eprintln!(
            "  {:3} left  {} seed {}{trial}  {:.1} s  {}",
            self.left,
            run.arm,
            run.seed,
            run.seconds,
            values.join("  ")
        );
    }

    fn note(&mut self, text: &str) {
        eprintln!("  {text}");
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut ids = Vec::new();
    let mut out: Option<PathBuf> = None;
    let mut threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (mut table, mut list) = (false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--out" => out = arguments.next().map(PathBuf::from),
            "--threads" => threads = arguments.next().unwrap_or_default().parse()?,
            "--table" => table = true,
            "--list" => list = true,
            _ => ids.push(argument),
        }
    }
    let data_dir = ebb_data::data_dir()?;
    let stop = AtomicBool::new(false);
    let options = Options {
        data_dir: &data_dir,
        threads,
        stop: &stop,
        kept: None,
    };
    for id in &ids {
        let study = match id.ends_with(".toml") {
            true => ebb_study::catalogue::read(Path::new(id))?,
            false => ebb_study::find(id)?,
        };
        eprintln!("{} {}", study.id, study.title);
        let verdict = ebb_study::run(&study, &options, &mut Lines { left: 0 })?;
        show(&verdict);
        if let Some(dir) = &out {
            println!("  written to {}", verdict.save(dir)?.display());
        }
    }
    if let (true, Some(dir)) = (list, &out) {
        for standing in ebb_study::list(&ebb_study::catalogue()?, dir)? {
            println!("{standing:?}");
        }
    }
    if let (true, Some(dir)) = (table, &out) {
        let mut verdicts = Vec::new();
        for study in ebb_study::catalogue()? {
            let path = ebb_study::verdict::path_of(dir, &study.id);
            if path.exists() {
                verdicts.push(Verdict::load(&path)?);
            }
        }
        std::fs::write(
            dir.join("reference-tables.md"),
            ebb_study::reference_table(&verdicts),
        )?;
    }
    Ok(())
}

fn show(verdict: &Verdict) {
    let holds = |b: bool| if b { "holds" } else { "does not hold" };
    println!(
        "{} {} in {:.0} s (budget {:.0} s)",
        verdict.id,
        holds(verdict.holds),
        verdict.wall_seconds,
        verdict.budget_seconds
    );
    for arm in &verdict.arms {
        for n in &arm.measured {
            println!(
                "  {:<14} {:<26} {:8.4}  [{:.4}, {:.4}]",
                arm.name,
                n.name,
                n.value,
                n.ci_low.unwrap_or(f64::NAN),
                n.ci_high.unwrap_or(f64::NAN)
            );
        }
    }
    let line = |c: &ebb_study::clause::Judged| {
        let p = c.p.map_or(String::new(), |p| format!(", p = {p:.4}"));
        let value = c
            .value
            .map_or("undecided".to_owned(), |v| format!("{v:.4}"));
        println!("  {}: {} ({value}{p}) {}", c.name, c.clause, holds(c.holds));
    };
    verdict.expected.iter().for_each(line);
    for control in &verdict.controls {
        println!("  control {}: {}", control.name, holds(control.holds));
        control.clauses.iter().for_each(line);
    }
    for row in &verdict.rows {
        println!(
            "  {}: theirs {:.2}, ours {:.2} [{:.2}, {:.2}], tolerance {:.2}: {}",
            row.name,
            row.theirs
                .map_or(row.at_least.unwrap_or_default(), |t| t.mean),
            row.ours.mean,
            row.ours.ci_low,
            row.ours.ci_high,
            row.tolerance,
            row.because
        );
    }
    if let Some(tuning) = &verdict.tuning {
        println!("  tuned by {} trials", tuning.trials);
        for (arm, tuned) in &tuning.arms {
            println!(
                "    {arm}: {:?}{}",
                tuned.chosen,
                if tuned.at_edge { " (at an edge)" } else { "" }
            );
        }
    }
}
