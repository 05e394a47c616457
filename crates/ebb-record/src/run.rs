//! The run directory: one directory holds all that a run was, is and left behind.
//!
//! ```text
//! recipe.toml       as resolved          records.jsonl     while running, then records.parquet
//! environment.json  machine, versions    outcomes.bin      while running, then outcomes.parquet
//! states/           chain and HEAD       lineage.jsonl     with lineage/*.ids
//! summary.json      when finished        run.lock          while a process writes
//! ```
//! A run is only what its HEAD covers: opening the logs cuts them back to where they were when
//! HEAD was committed, so that what is replayed after a crash is not recorded twice.

use std::fs;
use std::path::{Path, PathBuf};

use ebb_space::Weights;

use crate::disk::{Disk, Fault, entries, sweep};
use crate::environment::Environment;
use crate::error::{At, Error, Result, supported};
use crate::json::to_json;
use crate::lineage::{Artifact, LineageWriter};
use crate::lock::{LOCK, Lock};
use crate::log::Mark;
use crate::outcomes::OutcomeWriter;
use crate::outcomes_parquet::{for_each_outcome_parquet, write_outcomes_parquet};
use crate::records::{Record, RecordWriter, StateRecord};
use crate::records_parquet::{read_records_parquet, write_records_parquet};
use crate::states::{Draft, Keep, Marks, StateWriter, States};
use crate::summary::Summary;
use crate::{outcomes, outcomes_parquet, records, records_parquet};

/// The newest version of `recipe.toml` that this program reads.
pub const RECIPE_VERSION: u32 = 1;

pub(crate) const RECIPE: &str = "recipe.toml";
pub(crate) const ENVIRONMENT: &str = "environment.json";
pub(crate) const STATES: &str = "states";
pub(crate) const RECORDS: &str = "records.jsonl";
pub(crate) const RECORDS_PARQUET: &str = "records.parquet";
pub(crate) const OUTCOMES: &str = "outcomes.bin";
pub(crate) const OUTCOMES_PARQUET: &str = "outcomes.parquet";
pub(crate) const LINEAGE: &str = "lineage.jsonl";
pub(crate) const SEGMENTS: &str = "lineage";
pub(crate) const SUMMARY: &str = "summary.json";

const RECIPE_HEADER: &str = "# ebb recipe, format_version = ";

/// A run that this process writes.
#[derive(Debug)]
pub struct RunDir {
    root: PathBuf,
    disk: Disk,
    states: States,
    _lock: Lock,
}

/// The appending ends of a run's logs.
#[derive(Debug)]
pub struct Logs {
    /// What happened.
    pub records: RecordWriter,
    /// How each example was answered.
    pub outcomes: OutcomeWriter,
    /// Which examples reached what.
    pub lineage: LineageWriter,
}

impl Logs {
    fn marks(&self) -> Marks {
        Marks {
            records: Mark {
                segment: self.records.segment(),
                bytes: self.records.bytes(),
            },
            outcomes: Mark {
                segment: self.outcomes.segment(),
                bytes: self.outcomes.bytes(),
            },
            lineage: Mark {
                segment: 0,
                bytes: self.lineage.bytes(),
            },
        }
    }

    fn sync(&mut self) -> Result<Marks> {
        self.records.sync()?;
        self.outcomes.sync()?;
        self.lineage.sync()?;
        Ok(self.marks())
    }
}

impl RunDir {
    /// A new run in `root`, which is made if it is not there. `recipe` is the recipe as resolved,
    /// every default written out.
    ///
    /// # Errors
    /// [`Error::RunExists`] if the directory holds anything, [`Error::Locked`],
    /// [`Error::DiskFull`], [`Error::Io`].
    pub fn create(root: &Path, recipe: &str, environment: &Environment) -> Result<RunDir> {
        if root.exists() && !is_unstarted(root)? {
            return Err(Error::RunExists { path: root.into() });
        }
        fs::create_dir_all(root).writing(root, 0)?;
        let lock = Lock::take(root)?;
        sweep(root)?;
        let disk = Disk::default();
        let states = States::open(&root.join(STATES), disk.clone())?;
        let run = RunDir {
            root: root.into(),
            disk,
            states,
            _lock: lock,
        };
        let path = run.path(ENVIRONMENT);
        run.disk.replace(&path, &to_json(&path, environment)?)?;
        // The recipe last: a directory without one was never a run.
        let recipe = format!("{RECIPE_HEADER}{RECIPE_VERSION}\n{recipe}");
        run.disk.replace(&run.path(RECIPE), recipe.as_bytes())?;
        run.disk.sync_directory(crate::disk::parent(root))?;
        Ok(run)
    }

    /// Opens a run to go on with it, and sweeps what a crash left half-written.
    ///
    /// # Errors
    /// [`Error::NotARun`], [`Error::Locked`], [`Error::Newer`], [`Error::Damaged`], [`Error::Io`].
    pub fn open(root: &Path) -> Result<RunDir> {
        read_recipe(root)?;
        let lock = Lock::take(root)?;
        sweep(root)?;
        let disk = Disk::default();
        let states = States::open(&root.join(STATES), disk.clone())?;
        Ok(RunDir {
            root: root.into(),
            disk,
            states,
            _lock: lock,
        })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Writes files of this run atomically.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Sets or clears where a test of crash safety stops the program.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.disk.set_fault(fault);
    }

    /// The recipe as resolved.
    ///
    /// # Errors
    /// [`Error::NotARun`], [`Error::Newer`], [`Error::Io`].
    pub fn recipe(&self) -> Result<String> {
        read_recipe(&self.root)
    }

    /// The chain of states.
    pub fn states(&self) -> &States {
        &self.states
    }

    /// Opens the logs where HEAD left them, or empty if there is no state yet. What was appended
    /// after HEAD is cut: a resumed run will append it again. So drop the logs that are open
    /// before opening them anew.
    ///
    /// # Errors
    /// [`Error::Damaged`] if a log is shorter than HEAD says; [`Error::Newer`], [`Error::Io`].
    pub fn logs(&self) -> Result<Logs> {
        let marks = self.states.marks();
        let path = self.path(RECORDS);
        let sealed = records_parquet::sealed_segments(&self.path(RECORDS_PARQUET))?;
        let mark = marks.map(|marks| marks.records);
        let records = match self.place(&path, records::segment_of, sealed, mark)? {
            Place::Begin(segment) => RecordWriter::create(&path, segment)?,
            Place::After(bytes) => RecordWriter::resume(&path, bytes)?,
        };
        let path = self.path(OUTCOMES);
        let sealed = outcomes_parquet::sealed_segments(&self.path(OUTCOMES_PARQUET))?;
        let mark = marks.map(|marks| marks.outcomes);
        let outcomes = match self.place(&path, outcomes::segment_of, sealed, mark)? {
            Place::Begin(segment) => OutcomeWriter::create(&path, segment)?,
            Place::After(bytes) => OutcomeWriter::resume(&path, bytes)?,
        };
        let (path, segments, disk) = (self.path(LINEAGE), self.path(SEGMENTS), self.disk.clone());
        let lineage = match marks {
            None => LineageWriter::create(&path, &segments, disk)?,
            Some(marks) => LineageWriter::resume(&path, &segments, marks.lineage.bytes, disk)?,
        };
        self.disk.sync_directory(&self.root)?;
        Ok(Logs {
            records,
            outcomes,
            lineage,
        })
    }

    /// Where a log goes on, given how many segments were sealed and where HEAD saw it.
    fn place(
        &self,
        path: &Path,
        segment_of: impl Fn(&Path) -> Result<u32>,
        sealed: u32,
        mark: Option<Mark>,
    ) -> Result<Place> {
        let mut found = None;
        // A log that HEAD does not know may be cut short within its first line.
        if path.exists() && mark.is_some() {
            found = match segment_of(path) {
                Ok(segment) => Some(segment),
                Err(Error::Damaged { .. }) if mark.is_some_and(|mark| mark.segment < sealed) => {
                    None
                }
                Err(error) => return Err(error),
            };
        }
        if found.is_some_and(|segment| segment < sealed) {
            // It was sealed, and the crash came before it was removed.
            self.disk.remove_file(path)?;
            found = None;
        }
        match (mark, found) {
            (None, _) => Ok(Place::Begin(sealed)),
            (Some(mark), Some(segment)) if segment == mark.segment => Ok(Place::After(mark.bytes)),
            // HEAD lies in a sealed segment; what has begun since was never committed.
            (Some(mark), _) if mark.segment < sealed => Ok(Place::Begin(sealed)),
            _ => Err(Error::damaged(
                path,
                "it is missing or another than HEAD saw; restore it from a copy",
            )),
        }
    }

    /// Begins a state with these weights; nothing is visible before [`commit`](RunDir::commit).
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Io`].
    pub fn begin_state(&self, draft: Draft, weights: &Weights) -> Result<StateWriter> {
        self.states.begin(draft, weights)
    }

    /// Makes a state HEAD, together with everything logged so far: the logs are synced first, and
    /// a crash leaves the old HEAD with the old logs or the new with the new. The record of the
    /// state and its descent from its parent are appended here.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Io`]; the run is then where it was.
    pub fn commit(&mut self, mut state: StateWriter, logs: &mut Logs) -> Result<()> {
        let artifact = Artifact::State(state.id().into());
        if let Some(parent) = state.parent() {
            logs.lineage
                .made(artifact.clone(), &[Artifact::State(parent.into())])?;
        }
        let segments = logs.lineage.lineage().direct(&artifact);
        let mut reached: Vec<String> = segments.into_iter().map(|(name, _)| name.into()).collect();
        reached.sort_unstable();
        reached.dedup();
        state.reached(reached);
        let meta = state.meta();
        logs.records.append(&Record::State(StateRecord {
            id: meta.id.clone(),
            parent: meta.parent.clone(),
            verb: meta.verb,
            step: meta.step,
            experience: meta.experience,
            milestone: meta.milestone,
        }))?;
        let marks = logs.sync()?;
        self.states.commit(state, marks)
    }

    /// Removes the bytes of the states that the policy lets go; returns their ids.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn prune(&mut self, keep: Keep) -> Result<Vec<String>> {
        self.states.prune(keep)
    }

    /// Removes the bytes of one state for good.
    ///
    /// # Errors
    /// [`Error::PurgeHead`], [`Error::NoState`], [`Error::Io`].
    pub fn purge(&mut self, id: &str) -> Result<()> {
        self.states.purge(id)
    }

    /// Ends the run: seals the logs into Parquet and writes the summary. May be repeated after a
    /// crash, and a later verb may open the logs again.
    ///
    /// # Errors
    /// [`Error::Uncommitted`] if a log goes beyond HEAD; [`Error::DiskFull`], [`Error::Io`].
    pub fn finish(&mut self, logs: Logs, summary: &Summary) -> Result<()> {
        let (marks, now) = (self.states.marks().unwrap_or_default(), logs.marks());
        let records = covered(
            marks.records,
            now.records,
            logs.records.is_empty(),
            "records",
        )?;
        let outcomes = covered(
            marks.outcomes,
            now.outcomes,
            logs.outcomes.is_empty(),
            "outcomes",
        )?;
        covered(marks.lineage, now.lineage, false, "lines of lineage")?;
        drop(logs);
        if records == Covered::ByHead {
            self.seal_records()?;
        }
        if outcomes == Covered::ByHead {
            self.seal_outcomes()?;
        }
        self.disk.remove_file(&self.path(RECORDS))?;
        self.disk.remove_file(&self.path(OUTCOMES))?;
        let path = self.path(SUMMARY);
        let summary = Summary {
            finished: true,
            ..summary.clone()
        };
        self.disk.replace(&path, &to_json(&path, &summary)?)
    }

    fn seal_records(&self) -> Result<()> {
        let (from, to) = (self.path(RECORDS), self.path(RECORDS_PARQUET));
        let new = records::read_records(&from)?;
        let mut all = if to.exists() {
            read_records_parquet(&to)?.0
        } else {
            Vec::new()
        };
        all.extend(new.records);
        write_records_parquet(&self.disk, &to, &all, new.segment + 1)
    }

    fn seal_outcomes(&self) -> Result<()> {
        let (from, to) = (self.path(OUTCOMES), self.path(OUTCOMES_PARQUET));
        let segments = outcomes::segment_of(&from)? + 1;
        write_outcomes_parquet(&self.disk, &to, segments, |take| {
            if to.exists() {
                for_each_outcome_parquet(&to, take)?;
            }
            outcomes::for_each_outcome(&from, take)
        })
    }
}

/// Where a log goes on.
enum Place {
    /// As this segment, empty.
    Begin(u32),
    /// After so many bytes.
    After(u64),
}

/// Why nothing of a log is uncommitted.
#[derive(PartialEq)]
enum Covered {
    ByHead,
    /// Sealed earlier; it was begun again and nothing has been appended.
    BySealing,
}

fn covered(mark: Mark, now: Mark, empty: bool, what: &'static str) -> Result<Covered> {
    if mark == now {
        Ok(Covered::ByHead)
    } else if now.segment > mark.segment && empty {
        Ok(Covered::BySealing)
    } else {
        Err(Error::Uncommitted { what })
    }
}

/// Whether the directory holds nothing but the beginning of a run that never had a recipe.
fn is_unstarted(root: &Path) -> Result<bool> {
    let started = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let begun =
            [LOCK, ENVIRONMENT, "recipe.toml.tmp", "environment.json.tmp"].contains(&&*name);
        let empty = name == STATES && fs::read_dir(path).is_ok_and(|mut all| all.next().is_none());
        !(begun || empty)
    };
    Ok(!entries(root)?.iter().any(started))
}

/// The recipe of the run in `root`, without the line that carries its version.
pub(crate) fn read_recipe(root: &Path) -> Result<String> {
    let path = root.join(RECIPE);
    if !path.is_file() {
        return Err(Error::NotARun {
            path: root.into(),
            missing: RECIPE,
        });
    }
    let text = fs::read_to_string(&path).at("read", &path)?;
    let header = text.split_once('\n').and_then(|(first, rest)| {
        let version = first.strip_prefix(RECIPE_HEADER)?.trim().parse().ok()?;
        Some((version, rest))
    });
    let Some((version, recipe)) = header else {
        let what = format!("it does not begin with `{RECIPE_HEADER}{RECIPE_VERSION}`");
        return Err(Error::damaged(&path, what));
    };
    supported(&path, version, RECIPE_VERSION)?;
    Ok(recipe.into())
}
