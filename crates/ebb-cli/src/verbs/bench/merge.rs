//! `ebb bench merge`: models and adapters merged, beside mergekit.

use super::{median, refused, show, timed};
use crate::around::Around;
use crate::error::{Error, Result};
use crate::exit::Ended;
use ebb_hub::{Adapter, AdapterConfig, Folder, FolderWriter, Tensors};
use ebb_lm::LanguageModel;
use ebb_space::{Key, Weights};
use serde::Serialize;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Measure merging, alone or beside mergekit
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Merge {
    /// The model that is the base
    #[arg(long, value_name = "MODEL", default_value = "smollm2-135m")]
    base: String,
    /// A Python with mergekit to run beside, in turns
    #[arg(long, value_name = "PYTHON")]
    against: Option<PathBuf>,
    /// Where the peers' scripts lie
    #[arg(long, value_name = "DIR", default_value = "benches/peers")]
    peers: PathBuf,
    /// Turns; medians over them are printed
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Write the figures here as Markdown, and beside it as JSON
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
The sum of ten adapters of rank 16 on every linear map, with drawn factors, and TIES of three models
with drawn changes, in 32-bit floats. A merge is a process of its own.

Examples:
  ebb bench merge
  ebb bench merge --against venv/bin/python --write docs/evidence/merge.md";

const ADAPTERS: usize = 10;
const MODELS: usize = 3;
const RANK: usize = 16;
const DENSITY: f64 = 0.2;

/// What is merged, our name of how, mergekit's, and words.
const TASKS: [(&str, &str, &str, &str); 2] = [
    ("adapter", "sum", "task_arithmetic", "10 adapters, sum"),
    ("model", "ties", "ties", "3 models, TIES"),
];

/// One process.
#[derive(Clone, Debug, Serialize)]
struct Run {
    system: &'static str,
    task: &'static str,
    /// From the start of the process to its end.
    process_s: f64,
    /// Without what it loads before it begins.
    merge_s: f64,
    peak_mb: f64,
}

#[derive(Serialize)]
struct Figures {
    format_version: u32,
    command: String,
    cpu: Option<String>,
    threads: usize,
    base_mb: f64,
    runs: Vec<Run>,
    /// How far their merged model is from ours, over the length of the merged change.
    apart: Vec<(&'static str, f64)>,
}

impl Merge {
    /// Measures and prints.
    ///
    /// # Errors
    /// When the base is not there, or a process cannot be started or fails.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        let place = tempfile::tempdir().map_err(|e| refused("make", "a temporary folder", e))?;
        let place = place.path();
        let found = LanguageModel::find(&self.base, &around.data_dir_or_here())?;
        let base = place.join("base");
        LanguageModel::open(found)?.save(&base)?;
        let folder = Folder::open(&base).map_err(hub)?;
        let weights = folder.load_all().map_err(hub)?;
        for i in 0..ADAPTERS {
            adapter(&weights, i, &base)?
                .write(place.join(format!("adapter-{i}")))
                .map_err(hub)?;
        }
        for i in 0..MODELS {
            let mut tuned = weights.clone();
            let key = Key::new(i as u64, "bench: a model");
            for (at, value) in (0..).zip(tuned.as_mut_slice()) {
                *value += 1e-3 * (key.uniform(at) - 0.5) as f32;
            }
            FolderWriter::new(folder.config().clone())
                .companions_of(&base)
                .write(place.join(format!("model-{i}")), &tuned)
                .map_err(hub)?;
        }
        let base_mb = weights.layout().len() as f64 * 4.0 / 1_048_576.0;
        drop(weights);

        let (mut runs, mut apart) = (Vec::new(), Vec::new());
        for round in 0..self.rounds.max(1) {
            for task in TASKS {
                let out = place.join("ours");
                runs.push(ours(task, place, &out)?);
                if let Some(python) = &self.against {
                    let theirs = place.join("theirs");
                    runs.push(self.theirs(python, task, place, &theirs)?);
                    if round == 0 {
                        apart.push((task.3, distance(&base, &out, &theirs)?));
                    }
                    remove(&theirs)?;
                    remove(&place.join("cache"))?;
                }
                remove(&out)?;
            }
        }
        let environment = ebb_record::Environment::collect(Default::default(), 0);
        let against = self.against.as_ref().map_or("", |_| " --against python");
        let figures = Figures {
            format_version: 1,
            command: format!("ebb bench merge{against} --rounds {}", self.rounds),
            cpu: environment.cpu,
            threads: environment.threads_available,
            base_mb,
            runs,
            apart,
        };
        let text = figures.markdown();
        show(&figures, &text, self.write.as_deref(), self.json)?;
        Ok(Ended::Done)
    }

    fn theirs(
        &self,
        python: &Path,
        task: (&str, &str, &'static str, &'static str),
        place: &Path,
        out: &Path,
    ) -> Result<Run> {
        let cache = place.join("cache");
        fs::create_dir_all(&cache).map_err(|e| refused("make", &cache, e))?;
        let mut command = Command::new(python);
        command
            .arg(self.peers.join("mergekit_merge.py"))
            .args([task.2, &DENSITY.to_string()])
            .args([&place.join("base"), out, &cache])
            .args(sources(task.0, place))
            .env("HF_HUB_OFFLINE", "1");
        let (process_s, json) = timed(&mut command)?;
        let number = |key: &str| json[key].as_f64().unwrap_or(f64::NAN);
        Ok(Run {
            system: "mergekit",
            task: task.3,
            process_s,
            merge_s: number("seconds"),
            peak_mb: number("peak_mb"),
        })
    }
}

fn hub(error: ebb_hub::Error) -> Error {
    Error::Language(error.into())
}

fn remove(folder: &Path) -> Result<()> {
    match folder.exists() {
        true => fs::remove_dir_all(folder).map_err(|e| refused("remove", folder, e)),
        false => Ok(()),
    }
}

fn sources(kind: &str, place: &Path) -> Vec<PathBuf> {
    let n = if kind == "adapter" { ADAPTERS } else { MODELS };
    (0..n).map(|i| place.join(format!("{kind}-{i}"))).collect()
}

/// Drawn factors for every linear map in the blocks.
fn adapter(weights: &Weights, number: usize, base: &Path) -> Result<Adapter> {
    let key = Key::new(number as u64, "bench: an adapter");
    let mut ends: Vec<&str> = Vec::new();
    let mut factors = Vec::new();
    for entry in weights.layout().entries() {
        let module = entry.path.strip_suffix(".weight").unwrap_or_default();
        let ([outputs, inputs], Some(end)) = (&entry.shape[..], module.strip_suffix("_proj"))
        else {
            continue;
        };
        let end = &module[end.rfind('.').map_or(0, |dot| dot + 1)..];
        if !ends.contains(&end) {
            ends.push(end);
        }
        let draw = |n: usize, key: Key| -> Vec<f32> {
            (0..n as u64).map(|i| 0.02 * key.normal(i) as f32).collect()
        };
        let key = key.sub(module);
        let (a, b) = (
            draw(RANK * inputs, key.sub("a")),
            draw(RANK * outputs, key.sub("b")),
        );
        factors.push((module.to_owned(), *inputs, a, b));
    }
    let mut config = AdapterConfig::new(RANK, 2.0 * RANK as f64, ends);
    config.base_model_name_or_path = Some(base.display().to_string());
    Adapter::new(config, factors).map_err(hub)
}

fn ours(task: (&str, &str, &str, &'static str), place: &Path, out: &Path) -> Result<Run> {
    let ebb = std::env::current_exe().map_err(|e| refused("find", "this program", e))?;
    let mut command = Command::new(ebb);
    command
        .arg("merge")
        .arg(place.join("base"))
        .args(sources(task.0, place))
        .args(["--method", task.1, "--json", "-o"])
        .arg(out);
    if task.1 == "ties" {
        command.args(["--density", &DENSITY.to_string()]);
    }
    let (process_s, json) = timed(&mut command)?;
    let number = |key: &str| json[key].as_f64().unwrap_or(f64::NAN);
    Ok(Run {
        system: "ebb",
        task: task.3,
        process_s,
        merge_s: number("seconds"),
        peak_mb: number("peak_rss_bytes") / 1_048_576.0,
    })
}

/// `‖θ_a − θ_b‖ / ‖θ_a − θ0‖`, tensor by tensor.
fn distance(base: &Path, ours: &Path, theirs: &Path) -> Result<f64> {
    let open = |path: &Path| Folder::open(path).map_err(hub);
    let (base, ours, theirs) = (open(base)?, open(ours)?, open(theirs)?);
    let (mut apart, mut change) = (0.0, 0.0);
    for info in ours.tensors() {
        let read = |from: &Folder| from.read(&info.name).map_err(hub);
        let each = read(&ours)?
            .into_iter()
            .zip(read(&theirs)?)
            .zip(read(&base)?);
        for ((a, b), zero) in each {
            apart += f64::from(a - b).powi(2);
            change += f64::from(a - zero).powi(2);
        }
    }
    Ok((apart / change).sqrt())
}

impl Figures {
    fn markdown(&self) -> String {
        let mut text = format!(
            "# Merging beside mergekit\n\nSmolLM2-135M in 32-bit floats ({:.0} MB): ten adapters of rank \
             {RANK} on every linear map of its blocks, and three models with changes everywhere; \
             drawn numbers. TIES keeps {DENSITY} of each tensor. Both systems read the same files in turn and \
             write a folder in 32-bit floats. Medians of whole processes over turns, with the lowest and \
             highest; \"merge\" is without what a process loads before it begins. mergekit 0.1.5 writes the \
             base with each adapter in it to the disk first. Peak memory is what the system counts as \
             resident.\n\nMade by `{}` on {} threads of {}.\n\n\
             | merge | system | process s | turns | merge s | peak MB | process, ratio | memory, ratio | apart |\n\
             |---|---|---|---|---|---|---|---|---|\n",
            self.base_mb,
            self.command,
            self.threads,
            self.cpu.as_deref().unwrap_or("an unknown processor"),
        );
        for (_, _, _, task) in TASKS {
            for system in ["ebb", "mergekit"] {
                let of = |system: &str, what: fn(&Run) -> f64| -> Vec<f64> {
                    let own = |r: &&Run| r.system == system && r.task == task;
                    self.runs.iter().filter(own).map(what).collect()
                };
                let process = of(system, |r| r.process_s);
                if process.is_empty() {
                    continue;
                }
                let low = process.iter().copied().fold(f64::INFINITY, f64::min);
                let high = process.iter().copied().fold(0.0, f64::max);
                let memory = median(of(system, |r| r.peak_mb));
                let apart = self.apart.iter().find(|(name, _)| *name == task);
                let beside = match apart.filter(|_| system == "mergekit") {
                    None => " | | ".to_owned(),
                    Some((_, apart)) => format!(
                        "{:.1} | {:.1} | {apart:.1e}",
                        median(process.clone()) / median(of("ebb", |r| r.process_s)),
                        memory / median(of("ebb", |r| r.peak_mb)),
                    ),
                };
                let _ = writeln!(
                    text,
                    "| {task} | {system} | {:.2} | {low:.2} to {high:.2} | {:.2} | {memory:.0} | {beside} |",
                    median(process),
                    median(of(system, |r| r.merge_s)),
                );
            }
        }
        text += "\nRatios are mergekit's over ours: above 1 `ebb` needs less. \"Apart\" is the distance of the two \
                 merged models over the length of the merged change.\n";
        text
    }
}
