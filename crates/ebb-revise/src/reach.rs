//! What records reached: the states, memories, statistics, teachers, adapters and files of a run
//! that hold them, name them, or were influenced by them.
//!
//! [`Traces::gather`] reads a run directory, [`reach`] judges what was read. Every file of the
//! directory is judged; one that is of no known kind is `unknown`, never passed over. Lineage errs
//! towards reaching, and so does this: a teacher or a penalty in a state that was influenced
//! counts as influenced, though it may be older than the record.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ebb_record::{Artifact, RunView, StateMeta};
use ebb_space::ExampleId;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::scan::Needles;

/// What sort of thing holds records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The weights of a state, its buffers and where it stood.
    State,
    /// A replay memory.
    Memory,
    /// A Fisher diagonal, an anchor, a prototype: what a penalty or a plugin keeps.
    Statistic,
    /// A frozen earlier self.
    Teacher,
    /// An adapter.
    Adapter,
    /// The optimizer's moments.
    Optimizer,
    /// How examples were answered, by id.
    Outcomes,
    /// What happened, in numbers.
    Records,
    /// Which ids reached what.
    Lineage,
    /// A page or picture made from the run.
    Report,
    /// Something kept to save work.
    Cache,
    /// What a crash left half-written.
    Leftover,
    /// The run's recipe, machine, lock or ledger: written without looking at records.
    Setting,
    /// A file of no kind that is known here.
    Unknown,
}

/// How records are in something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Their ids stand in it; in a memory, so does their content.
    Holds,
    /// It names a list of ids that they are in; the name follows from the ids.
    Names,
    /// It was computed from them.
    Influenced,
    /// Nobody can tell from here: look at it.
    Unknown,
}

/// A file of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Its path in the run directory.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Those of the records whose ids stand in it.
    pub ids: BTreeSet<ExampleId>,
}

/// What a run directory tells about some records.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    /// The records, as they were asked for.
    pub records: Vec<ExampleId>,
    /// Every state there ever was, oldest first.
    pub states: Vec<StateMeta>,
    /// By lineage: what they reached, and which of them did.
    pub reached: BTreeMap<Artifact, BTreeSet<ExampleId>>,
    /// Names of the lineage segments that list them.
    pub segments: BTreeMap<String, BTreeSet<ExampleId>>,
    /// Every file, sorted by path.
    pub files: Vec<Trace>,
}

/// A file that holds records, names them, or was influenced.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Holder {
    /// Its path in the run directory.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// How the records are in it.
    pub how: How,
    /// Of which state it is a part.
    pub state: Option<String>,
    /// How many of the records, where that is known.
    pub records: u64,
    /// Its length.
    pub bytes: u64,
}

/// What records reached in one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Reach {
    /// How many records were asked for.
    pub asked: u64,
    /// How many of them reached something or stand somewhere.
    pub found: u64,
    /// What lineage says, with how many of the records, and whether its bytes are still there
    /// (known of states alone).
    pub artifacts: Vec<(Artifact, u64, Option<bool>)>,
    /// The files, sorted by path.
    pub holders: Vec<Holder>,
    /// The newest state that none of them reached, if its bytes are still there.
    pub clean: Option<String>,
}

impl Traces {
    /// Reads a run directory for the sake of these records. Every byte of every file is read.
    ///
    /// # Errors
    /// [`Error::Run`] if the run cannot be read, [`Error::Io`].
    pub fn gather(root: &Path, records: &[ExampleId]) -> Result<Traces> {
        let run = RunView::load(root)?;
        let lineage = root.join("lineage.jsonl");
        let (mut reached, mut segments) = (BTreeMap::new(), BTreeMap::new());
        if lineage.exists() {
            let lineage = run.lineage()?;
            reached = lineage.reached_by_records(records)?;
            let with = lineage.segments_with(records)?;
            segments = with
                .into_iter()
                .map(|(name, of)| (name.to_owned(), of))
                .collect();
        }
        let needles = Needles::new(records);
        let mut files = Vec::new();
        walk(root, Path::new(""), &mut |path, bytes| {
            let full = root.join(path);
            let at = |action| {
                let path = full.clone();
                move |source| Error::Io {
                    action,
                    path,
                    source,
                }
            };
            let file = File::open(&full).map_err(at("open"))?;
            let ids = needles.find(file).map_err(at("read"))?;
            let path = path.to_owned();
            files.push(Trace { path, bytes, ids });
            Ok(())
        })?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        // Columns are compressed: their ids are read, not scanned.
        let sealed = Path::new("outcomes.parquet");
        if let Some(trace) = files.iter_mut().find(|trace| trace.path == sealed) {
            let mut asked: BTreeMap<[u8; 16], Vec<ExampleId>> = BTreeMap::new();
            for record in records {
                asked.entry(record.base).or_default().push(*record);
            }
            let outcomes = run.outcomes()?;
            let mut lists = BTreeSet::new();
            for outcomes in &outcomes {
                // Evaluations share their lists of ids.
                if lists.insert(outcomes.ids.as_ptr()) {
                    let of = outcomes.ids.iter().filter_map(|id| asked.get(&id.base));
                    trace.ids.extend(of.flatten());
                }
            }
        }
        Ok(Traces {
            records: records.to_vec(),
            states: run.states()?.chain().to_vec(),
            reached,
            segments,
            files,
        })
    }
}

fn walk(root: &Path, below: &Path, take: &mut impl FnMut(&Path, u64) -> Result<()>) -> Result<()> {
    let directory = root.join(below);
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io {
            action: "list",
            path,
            source,
        }
    };
    for entry in fs::read_dir(&directory).map_err(at(&directory))? {
        let entry = entry.map_err(at(&directory))?;
        let path = below.join(entry.file_name());
        // What a link leads to is not of this run; the link itself has no content.
        let meta = entry.metadata().map_err(at(&entry.path()))?;
        if meta.is_dir() {
            walk(root, &path, take)?;
        } else if meta.is_file() {
            take(&path, meta.len())?;
        }
    }
    Ok(())
}

/// Judges every file of a run for the sake of the records.
pub fn reach(traces: &Traces) -> Reach {
    let influenced: BTreeSet<&str> = traces
        .reached
        .keys()
        .filter_map(|artifact| match artifact {
            Artifact::State(id) => Some(id.as_str()),
            _ => None,
        })
        .collect();
    let of_state = |id: &str| {
        let artifact = Artifact::State(id.to_owned());
        traces
            .reached
            .get(&artifact)
            .map_or(0, |of| of.len() as u64)
    };
    let all = traces
        .reached
        .values()
        .flatten()
        .collect::<BTreeSet<_>>()
        .len() as u64;
    let mut holders = Vec::new();
    for trace in &traces.files {
        let (kind, state) = kind_of(&trace.path);
        let from = match &state {
            Some(id) => of_state(id),
            None => all,
        };
        let listed = trace.ids.len() as u64;
        let names = names(&trace.path, traces);
        let (how, records) = match kind {
            Kind::Unknown | Kind::Leftover if listed == 0 => (How::Unknown, 0),
            _ if listed > 0 => (How::Holds, listed),
            Kind::Setting => continue,
            Kind::Lineage if names > 0 => (How::Names, names),
            Kind::Lineage => continue,
            _ if from > 0 => (How::Influenced, from),
            _ => continue,
        };
        holders.push(Holder {
            path: trace.path.clone(),
            kind,
            how,
            state,
            records,
            bytes: trace.bytes,
        });
    }
    let kept = |id: &str| {
        let file = Path::new("states").join(id).join("state.json");
        traces.files.iter().any(|trace| trace.path == file)
    };
    let artifacts = traces.reached.iter().map(|(artifact, of)| {
        let kept = match artifact {
            Artifact::State(id) => Some(kept(id)),
            _ => None,
        };
        (artifact.clone(), of.len() as u64, kept)
    });
    let clean = traces.states.iter().rev().map(|state| state.id.as_str());
    let clean = clean
        .filter(|id| !influenced.contains(id))
        .find(|id| kept(id));
    let mut found: BTreeSet<&ExampleId> = traces.reached.values().flatten().collect();
    found.extend(traces.files.iter().flat_map(|trace| &trace.ids));
    Reach {
        asked: traces.records.len() as u64,
        found: found.len() as u64,
        artifacts: artifacts.collect(),
        holders,
        clean: clean.map(str::to_owned),
    }
}

/// How many of the records are in segments that a file of the lineage or the chain names.
fn names(path: &Path, traces: &Traces) -> u64 {
    let of: BTreeSet<&ExampleId> = match path.to_str() {
        Some("lineage.jsonl") => traces.segments.values().flatten().collect(),
        Some("states/chain.jsonl") => {
            let named = traces.states.iter().flat_map(|state| &state.reached);
            named
                .filter_map(|name| traces.segments.get(name))
                .flatten()
                .collect()
        }
        _ => {
            let mut parts = path.iter().filter_map(|part| part.to_str());
            let (Some("states"), Some(id), Some("state.json")) =
                (parts.next(), parts.next(), parts.next())
            else {
                return 0;
            };
            let state = traces.states.iter().find(|state| state.id == id);
            let named = state.into_iter().flat_map(|state| &state.reached);
            named
                .filter_map(|name| traces.segments.get(name))
                .flatten()
                .collect()
        }
    };
    of.len() as u64
}

/// What a file of a run is, and of which state; by its place, as `docs/src/run-directory.md` says.
fn kind_of(path: &Path) -> (Kind, Option<String>) {
    let parts: Vec<&str> = path
        .iter()
        .map(|part| part.to_str().unwrap_or(""))
        .collect();
    let ends = |name: &str, ending: &str| name.len() > ending.len() && name.ends_with(ending);
    let leftover = |part: &&str| ends(part, ".tmp") || ends(part, ".partial");
    if parts.iter().any(leftover) {
        return (Kind::Leftover, None);
    }
    let kind = match parts[..] {
        ["recipe.toml" | "environment.json" | "run.lock"] | ["states", "HEAD"] => Kind::Setting,
        ["ledger", "entries.jsonl" | "head" | "run.lock"] => Kind::Setting,
        ["records.jsonl" | "records.parquet" | "summary.json"] => Kind::Records,
        ["outcomes.bin" | "outcomes.parquet"] => Kind::Outcomes,
        ["lineage.jsonl"] | ["states", "chain.jsonl"] => Kind::Lineage,
        ["lineage", name] if ends(name, ".ids") => Kind::Lineage,
        ["states", id, ..] if parts.len() > 2 => {
            return (kind_in_state(&parts[2..]), Some(id.to_owned()));
        }
        ["cache", _, ..] => Kind::Cache,
        [name] if [".html", ".svg", ".md"].iter().any(|e| ends(name, e)) => Kind::Report,
        _ => Kind::Unknown,
    };
    (kind, None)
}

fn kind_in_state(parts: &[&str]) -> Kind {
    match parts {
        ["state.json"] => Kind::Lineage,
        ["memory", "memory.bin"] => Kind::Memory,
        ["events.json"] => Kind::Outcomes,
        ["progress.json" | "weights.safetensors" | "buffers.safetensors"] => Kind::State,
        [name] if name.starts_with("frozen") => Kind::State,
        [name] if name.starts_with("optimizer") => Kind::Optimizer,
        [name] if name.starts_with("teacher") => Kind::Teacher,
        [name] if name.starts_with("adapter-") => Kind::Adapter,
        [name] if name.starts_with("penalty-") || name.starts_with("plugin-") => Kind::Statistic,
        _ => Kind::Unknown,
    }
}
