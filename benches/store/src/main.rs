//! Measures the store on disk beside SQLite, turn by turn, and writes `store.md` and `store.json`.
//!
//! ```text
//! cargo run --release --manifest-path benches/store/Cargo.toml -- [--records N] [--rounds R] [--out DIR] [--dir DIR]
//!     [--large 10000000] [--reverb PYTHON]
//! cargo run --release --manifest-path benches/store/Cargo.toml -- page [--out DIR]
//! ```
//! `page` writes `store.md` anew from the `store.json` that is there.
//! Each turn is a process of its own; the folder of a turn is removed when it ends.

mod ours;
mod page;
mod pages;
mod sqlite;
mod work;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "worker") {
        let [_, system, phase, records, dir] = &args[..] else {
            return Err("worker SYSTEM PHASE RECORDS DIR".into());
        };
        let figures = work::phase(system, phase, records.parse()?, Path::new(dir))?;
        println!("{figures}");
        return Ok(());
    }
    let option = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).cloned()
    };
    let records: u64 = option("--records").map_or(Ok(1_000_000), |n| n.parse())?;
    let rounds: usize = option("--rounds").map_or(Ok(3), |n| n.parse())?;
    let scratch = option("--dir").map_or_else(|| env::temp_dir().join("ebb-store"), PathBuf::from);
    let out = option("--out").map_or_else(|| PathBuf::from("docs/evidence"), PathBuf::from);

    if args.first().is_some_and(|arg| arg == "page") {
        let all = serde_json::from_slice(&fs::read(out.join("store.json"))?)?;
        return Ok(fs::write(out.join("store.md"), page::write(&all))?);
    }
    // Where the files lie on this machine is nobody's business.
    let said = ["--records", "--rounds", "--large"]
        .map(|name| option(name).map(|v| format!(" {name} {v}")));
    let said = said.into_iter().flatten().collect::<String>();
    let mut all = json!({
        "format_version": 1,
        "command": format!("cargo run --release --manifest-path benches/store/Cargo.toml --{said}"),
        "cpu": cpu(),
        "threads": std::thread::available_parallelism()?.get(),
        "work": work::describe(records),
        "rounds": turns(&["ebb", "sqlite"], records, rounds, &scratch)?,
    });
    if let Some(large) = option("--large") {
        all["large"] = json!({
            "work": work::describe(large.parse()?),
            "rounds": turns(&["ebb", "sqlite"], large.parse()?, 1, &scratch)?,
        });
    }
    all["pages"] = pages::measure(&fresh(&scratch)?)?;
    all["features"] = pages::features(&fresh(&scratch)?)?;
    if let Some(python) = option("--reverb") {
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../peers/reverb_store.py");
        let made = Command::new(python).arg(script).arg("50000").output()?;
        all["reverb"] = last_json(&made.stdout)?;
        all["beside_reverb"] = one(&["ebb"], 50_000, &scratch)?;
    }
    fs::remove_dir_all(&scratch)?;
    fs::write(
        out.join("store.json"),
        serde_json::to_string_pretty(&all)? + "\n",
    )?;
    fs::write(out.join("store.md"), page::write(&all))?;
    Ok(())
}

/// Every system in turn, `rounds` times.
fn turns(systems: &[&str], records: u64, rounds: usize, scratch: &Path) -> Outcome<Value> {
    let rounds: Outcome<Vec<Value>> = (0..rounds)
        .map(|_| one(systems, records, scratch))
        .collect();
    Ok(Value::Array(rounds?))
}

fn one(systems: &[&str], records: u64, scratch: &Path) -> Outcome<Value> {
    let mut round = json!({});
    for system in systems {
        let mut figures = json!({});
        let dir = fresh(scratch)?;
        for phase in ["fill", "open", "synced"] {
            let part = if phase == "synced" {
                fresh(scratch)?
            } else {
                dir.clone()
            };
            let made = Command::new(env::current_exe()?)
                .args(["worker", system, phase, &records.to_string()])
                .arg(&part)
                .output()?;
            if !made.status.success() {
                return Err(format!("{system}: {}", String::from_utf8_lossy(&made.stderr)).into());
            }
            let found = last_json(&made.stdout)?;
            for (name, value) in found.as_object().into_iter().flatten() {
                figures[name] = value.clone();
            }
        }
        eprintln!("{system}, {records} records: {figures}");
        round[*system] = figures;
    }
    Ok(round)
}

fn last_json(out: &[u8]) -> Outcome<Value> {
    let text = String::from_utf8_lossy(out);
    let line = text.lines().last().ok_or("nothing was said")?;
    Ok(serde_json::from_str(line)?)
}

/// An empty folder, and no other.
fn fresh(scratch: &Path) -> Outcome<PathBuf> {
    if scratch.exists() {
        fs::remove_dir_all(scratch)?;
    }
    let dir = scratch.join("store");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn cpu() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    line.map_or("unknown".into(), |name| {
        name.trim_matches([' ', '\t', ':']).into()
    })
}
