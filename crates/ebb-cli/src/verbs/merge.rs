//! `ebb merge`: models and adapters into one, or adapters into one file and back.

use crate::around::Around;
use crate::error::{Error, Result};
use crate::exit::Ended;
use crate::out::{self, Table};
use crate::{interrupt, watch};
use ebb_hub::merge::{Merge as Merging, Summary};
use ebb_hub::{Adapter, Bundle, BundleSummary};
use ebb_lm::LanguageModel;
use ebb_report::Terminal;
use ebb_space::Key;
use ebb_space::merge::Rule;
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Merge models or adapters that come from one base, without training
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Merge {
    /// The base, and what was made from it: folders, .gguf files, names of `ebb data`, and, except
    /// the base, folders of PEFT adapters (LoRA). With --reversible adapters alone, with --extract
    /// the one file
    #[arg(value_name = "BASE SOURCE", required = true)]
    models: Vec<String>,
    /// What makes one task vector of several
    #[arg(short, long, value_enum, default_value_t = Method::Mean)]
    method: Method,
    /// A weight for all sources, or one for each, with commas between
    #[arg(
        long,
        value_name = "W",
        value_delimiter = ',',
        allow_hyphen_values = true,
        default_value = "1"
    )]
    weight: Vec<f64>,
    /// Share of the entries that ties keeps (0.2) or that dare keeps in expectation (0.5)
    #[arg(long, value_name = "SHARE")]
    density: Option<f64>,
    /// Scale what is merged by depth: ALPHA in the first block and outside of blocks, ALPHA + BETA
    /// in the last. BETA is 1 - ALPHA if left out
    #[arg(long, value_name = "ALPHA[,BETA]", value_delimiter = ',')]
    layers: Option<Vec<f64>>,
    /// Seed of what dare draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Keep adapters in one file, in common bases of P directions, from which each can be rebuilt
    #[arg(
        long,
        value_name = "P",
        conflicts_with_all = ["method", "weight", "density", "layers", "seed", "extract"]
    )]
    reversible: Option<usize>,
    /// Rebuild this adapter from such a file
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["method", "weight", "density", "layers", "seed"]
    )]
    extract: Option<String>,
    /// The folder to write, or with --reversible the file; it must not be there yet
    #[arg(short, long, value_name = "OUT")]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
A task vector is what a source has changed of its base. An adapter's is the product of its factors.

  mean           their weighted mean
  sum            their weighted sum (task arithmetic; a negative weight takes a task away)
  ties           each one's largest entries; where signs differ, the heavier side's mean
  dare           each one's entries dropped at random, the rest scaled up; the sum
  dare-ties      the same with the sign elected as ties does
  max-magnitude  entry by entry the largest change

--layers 0.5 alone is LiNeS for one model: what was learned stays, and most of what was forgotten
comes back. For a merge it takes both numbers; the summary prints the ALPHA that LiNeS gives it.
The folder holds what `ebb export` writes: config.json, 32-bit floats, tokenizer, chat template.

Examples:
  ebb merge smollm2-135m poems-lora code-lora -o both
  ebb merge base tuned-a tuned-b tuned-c --method ties --density 0.2 -o merged
  ebb merge base tuned --layers 0.2 -o remembers
  ebb merge base tuned --method sum --weight -0.5 -o less
  ebb merge --reversible 2 lora-* -o all.safetensors
  ebb merge --extract lora-3 all.safetensors -o lora-3-again";

/// What makes one task vector of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Method {
    Mean,
    Sum,
    Ties,
    Dare,
    DareTies,
    MaxMagnitude,
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct Written<'a, S> {
    format_version: u32,
    out: &'a Path,
    seconds: f64,
    peak_rss_bytes: Option<u64>,
    #[serde(flatten)]
    summary: S,
}

impl Merge {
    /// Does it.
    ///
    /// # Errors
    /// When sources do not fit, cannot be read, or the output not be written.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        let begun = Instant::now();
        if let Some(name) = &self.extract {
            return self.rebuild(begun, name);
        }
        if let Some(p) = self.reversible {
            return self.keep_together(begun, p, around);
        }
        let rule = self.rule()?;
        let [base, sources @ ..] = &self.models[..] else {
            return Err(Error::request(
                "there is no base",
                "give a base and its sources",
            ));
        };
        if sources.is_empty() {
            return Err(Error::request(
                format!("there is nothing to merge into `{base}`"),
                "give models or adapters that were made from it behind it",
            ));
        }
        let data_dir = around.data_dir_or_here();
        let find = |name: &String| LanguageModel::find(name, &data_dir);
        let weights = self.weights(sources.len())?;
        let paths = sources.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let sources: Vec<(PathBuf, f64)> = paths.into_iter().zip(weights).collect();
        let mut merge = Merging::open(&find(base)?, &sources, rule).map_err(hub)?;
        if let Some((alpha, beta)) = self.ramp(sources.len())? {
            merge = merge.layers(alpha, beta).map_err(hub)?;
        }
        let bar = watch::Numbers::new(merge.parameters(), self.json);
        let stop = interrupt::flag();
        let summary = merge
            .write(&self.out, &|done| {
                bar.more(done);
                match stop.load(Ordering::Relaxed) {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            })
            .map_err(hub)?;
        drop(bar);
        self.tell(begun, &summary, || {
            told(&summary, &self.out, &around.terminal())
        })
    }

    fn rule(&self) -> Result<Rule> {
        let key = Key::new(self.seed, "merge");
        let density = |default| self.density.unwrap_or(default);
        let rule = match self.method {
            Method::Mean => Rule::Mean,
            Method::Sum => Rule::Sum,
            Method::Ties => Rule::Ties {
                density: density(0.2),
            },
            Method::Dare => Rule::Dare {
                density: density(0.5),
                key,
            },
            Method::DareTies => Rule::DareTies {
                density: density(0.5),
                key,
            },
            Method::MaxMagnitude => Rule::MaxMagnitude,
        };
        let dense = matches!(rule, Rule::Mean | Rule::Sum | Rule::MaxMagnitude);
        if dense && self.density.is_some() {
            return Err(Error::request(
                "this method keeps every entry and has no density",
                "leave --density out, or choose ties, dare or dare-ties",
            ));
        }
        Ok(rule)
    }

    fn weights(&self, sources: usize) -> Result<Vec<f64>> {
        match self.weight.len() {
            1 => Ok(vec![self.weight[0]; sources]),
            n if n == sources => Ok(self.weight.clone()),
            n => Err(Error::request(
                format!("there are {n} weights for {sources} sources"),
                "give one for all, or one for each in their order",
            )),
        }
    }

    fn ramp(&self, sources: usize) -> Result<Option<(f64, f64)>> {
        match self.layers.as_deref() {
            None => Ok(None),
            Some([alpha, beta]) => Ok(Some((*alpha, *beta))),
            Some([alpha]) if sources == 1 => Ok(Some((*alpha, 1.0 - alpha))),
            Some(_) => Err(Error::request(
                "`--layers` takes one number for one source, or two numbers",
                "give ALPHA,BETA: merge once without, and take the ALPHA that the summary prints",
            )),
        }
    }

    fn keep_together(&self, begun: Instant, p: usize, around: &Around) -> Result<Ended> {
        let folders: Vec<&Path> = self.models.iter().map(Path::new).collect();
        for folder in &folders {
            if !Adapter::is_in(folder) {
                return Err(Error::request(
                    format!("`{}` is no folder of an adapter", folder.display()),
                    "--reversible takes PEFT adapters alone, without their base",
                ));
            }
        }
        if self.out.exists() {
            return Err(hub(ebb_hub::Error::Exists {
                path: self.out.clone(),
            }));
        }
        let (bundle, summary) = Bundle::of(&folders, p).map_err(hub)?;
        bundle.write(&self.out).map_err(hub)?;
        self.tell(begun, &summary, || {
            held(&summary, &self.out, &around.terminal())
        })
    }

    fn rebuild(&self, begun: Instant, name: &str) -> Result<Ended> {
        let [file] = &self.models[..] else {
            return Err(Error::request(
                format!(
                    "there are {} files to rebuild `{name}` from",
                    self.models.len()
                ),
                "give the one file that --reversible wrote",
            ));
        };
        let bundle = Bundle::open(file).map_err(hub)?;
        let adapter = bundle.extract(name).map_err(hub)?;
        adapter.write(&self.out).map_err(hub)?;
        let modules = adapter.pairs().len();
        self.tell(
            begun,
            &serde_json::json!({ "name": name, "modules": modules }),
            || {
                let folder = self.out.display();
                format!("wrote the factors of {modules} modules of `{name}` into {folder}")
            },
        )
    }

    fn tell(
        &self,
        begun: Instant,
        summary: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<Ended> {
        if self.json {
            out::json(&Written {
                format_version: 1,
                out: &self.out,
                seconds: begun.elapsed().as_secs_f64(),
                peak_rss_bytes: ebb_record::peak_rss_bytes(),
                summary,
            })?;
        } else {
            out::print(&text())?;
        }
        Ok(Ended::Done)
    }
}

fn hub(error: ebb_hub::Error) -> Error {
    Error::Language(error.into())
}

fn told(summary: &Summary, folder: &Path, terminal: &Terminal) -> String {
    let mut table = Table::new(&["source", ">weight", ">|tau|", ">of the base", ">cosines"]);
    for (i, source) in summary.sources.iter().enumerate() {
        let others = (0..i).map(|j| format!("{:.3}", summary.cosines[i][j]));
        table.row([
            source.name.clone(),
            format!("{}", source.weight),
            format!("{:.4}", source.norm),
            format!("{:.4} %", 100.0 * source.norm / summary.base_norm),
            others.collect::<Vec<_>>().join(" "),
        ]);
    }
    format!(
        "{}\nsign conflicts  {:.1} % of the entries that a source changes\n\
         merged          |tau| {:.4}; LiNeS's alpha for this merge is {:.3}\n\n\
         wrote {} parameters in {} blocks into {}",
        table.text(terminal),
        100.0 * summary.sign_conflicts,
        summary.merged_norm,
        summary.lines_alpha,
        summary.parameters,
        summary.blocks,
        folder.display()
    )
}

fn held(summary: &BundleSummary, file: &Path, terminal: &Terminal) -> String {
    let mut table = Table::new(&["adapter", ">error", ">cut to the same storage"]);
    for adapter in &summary.adapters {
        table.row([
            adapter.name.clone(),
            format!("{:.4}", adapter.error),
            format!("{:.4}", adapter.rival_error),
        ]);
    }
    format!(
        "{}\nwrote {} numbers, {:.0} % of the adapters' own {}, into {}\n\
         {:.2} directions a position on average; below {:.2} they save something\n\
         error: |rebuilt - own| / |own| of the products. Beside it that of each adapter cut by \
         itself to rank {}",
        table.text(terminal),
        summary.values,
        100.0 * summary.values as f64 / summary.separate_values.max(1) as f64,
        summary.separate_values,
        file.display(),
        summary.directions,
        summary.break_even,
        summary.rival_rank,
    )
}
