//! The chain of model states.
//!
//! `states/ID/` holds one state; `states/chain.jsonl` every state there ever was; `states/HEAD`
//! names the present one, how long the chain is, and how far the logs were. A state is written
//! under a temporary name, synced, renamed; its line is appended to the chain; then HEAD moves by
//! an atomic rename. That rename is the commit: before it the run is where it was, after it the
//! state is whole. What a crash leaves between is swept at the next opening.
//!
//! Milestones are the ends of experiences and of every other verb; between them, checkpoints make
//! a long experience resumable. The parent of a state is the last milestone, so that ids do not
//! depend on when checkpoints happened to be made: runs with equal bits have equal ids.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ebb_space::{Layout, Weights};
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, entries, sweep, temporary};
use crate::error::{At, Error, Result};
use crate::json::{parse_json, read_json, to_json, to_line};
use crate::log::Mark;
use crate::tensors::{SafeTensorsFile, load_weights};

/// The newest version of states that this program reads.
pub const STATES_VERSION: u32 = 1;

/// The file with the weights in every state.
pub const WEIGHTS: &str = "weights.safetensors";

const HEAD: &str = "HEAD";
const CHAIN: &str = "chain.jsonl";
const META: &str = "state.json";

/// What made a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// The initialisation, or a model brought from outside.
    Start,
    /// Training.
    Learn,
    /// Changing facts.
    Edit,
    /// Erasing.
    Forget,
    /// Merging models.
    Merge,
}

impl Verb {
    /// The word it is written as.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Start => "start",
            Verb::Learn => "learn",
            Verb::Edit => "edit",
            Verb::Forget => "forget",
            Verb::Merge => "merge",
        }
    }
}

/// A state to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draft {
    /// What makes it.
    pub verb: Verb,
    /// Updates made by then.
    pub step: u64,
    /// The experience in training, where there is one.
    pub experience: Option<usize>,
    /// Whether it ends an experience or another verb; otherwise it is a checkpoint on the way.
    pub milestone: bool,
}

/// What is known of a state, also after its bytes were removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateMeta {
    /// Version of the format.
    pub format_version: u32,
    /// BLAKE3 of parent, verb, kind, step and weights, 32 hex digits.
    pub id: String,
    /// The milestone it was made from.
    pub parent: Option<String>,
    /// What made it.
    pub verb: Verb,
    /// Whether it ends an experience or another verb.
    pub milestone: bool,
    /// Updates made by then.
    pub step: u64,
    /// The experience in training, where there was one.
    pub experience: Option<usize>,
    /// [`Weights::digest`] in hex.
    pub weights_hash: String,
    /// Lineage segments of the example ids that reached it since its parent.
    pub reached: Vec<String>,
    /// Its files by path within the state, without `state.json`.
    pub files: BTreeMap<String, FileMeta>,
}

/// A file of a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMeta {
    /// Its length.
    pub bytes: u64,
    /// Its BLAKE3 in hex.
    pub blake3: String,
}

/// How far the logs of a run were when a state was committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// `records.jsonl`.
    pub records: Mark,
    /// `outcomes.bin`.
    pub outcomes: Mark,
    /// `lineage.jsonl`.
    pub lineage: Mark,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Head {
    format_version: u32,
    id: String,
    chain_bytes: u64,
    marks: Marks,
}

/// Which states keep their bytes; HEAD always does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The last so many states.
    pub last: usize,
    /// And all milestones.
    pub milestones: bool,
}

impl Default for Keep {
    fn default() -> Keep {
        Keep {
            last: 2,
            milestones: true,
        }
    }
}

impl Keep {
    /// Which of `kept`, oldest first, may go when HEAD is `head`.
    pub fn surplus<'s>(&self, kept: &[&'s StateMeta], head: &str) -> Vec<&'s str> {
        let old = &kept[..kept.len().saturating_sub(self.last)];
        let goes = |state: &&&StateMeta| state.id != head && !(self.milestones && state.milestone);
        old.iter()
            .filter(goes)
            .map(|state| state.id.as_str())
            .collect()
    }
}

/// The states of one run.
#[derive(Debug)]
pub struct States {
    directory: PathBuf,
    disk: Disk,
    chain: Vec<StateMeta>,
    head: Option<Head>,
}

impl States {
    /// Opens the states of a run for writing and sweeps what a crash left behind.
    ///
    /// # Errors
    /// [`Error::Damaged`] if HEAD, the chain or the state that HEAD names is not readable;
    /// [`Error::Newer`], [`Error::Io`].
    pub(crate) fn open(directory: &Path, disk: Disk) -> Result<States> {
        fs::create_dir_all(directory).writing(directory, 0)?;
        sweep(directory)?;
        let states = States {
            disk,
            ..States::view(directory)?
        };
        match &states.head {
            Some(head) => {
                let chain = directory.join(CHAIN);
                let file = OpenOptions::new()
                    .write(true)
                    .open(&chain)
                    .at("open", &chain)?;
                file.set_len(head.chain_bytes).at("cut", &chain)?;
            }
            None => states.disk.remove_file(&directory.join(CHAIN))?,
        }
        for path in entries(directory)? {
            let id = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && !states.chain.iter().any(|state| state.id == id) {
                states.disk.remove_directory(&path)?;
            }
        }
        Ok(states)
    }

    /// The states of a run, to read; nothing on disk is changed.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Newer`], [`Error::Io`].
    pub fn view(directory: &Path) -> Result<States> {
        let mut states = States {
            directory: directory.into(),
            disk: Disk::default(),
            chain: Vec::new(),
            head: None,
        };
        let (head_path, chain_path) = (directory.join(HEAD), directory.join(CHAIN));
        let chain = if chain_path.exists() {
            fs::read(&chain_path).at("read", &chain_path)?
        } else {
            Vec::new()
        };
        if !head_path.exists() {
            // A crash in the first commit leaves at most its own line.
            if chain.iter().filter(|&&byte| byte == b'\n').count() > 1 {
                return Err(Error::damaged(
                    &head_path,
                    "it is missing, though states were committed",
                ));
            }
            return Ok(states);
        }
        let head: Head = read_json(&head_path, STATES_VERSION)?;
        let committed = usize::try_from(head.chain_bytes)
            .ok()
            .and_then(|n| chain.get(..n));
        let committed =
            committed.ok_or_else(|| Error::damaged(&chain_path, "it is shorter than HEAD says"))?;
        for line in committed.split_inclusive(|&byte| byte == b'\n') {
            states
                .chain
                .push(parse_json(&chain_path, line, STATES_VERSION)?);
        }
        if !states.chain.iter().any(|state| state.id == head.id) {
            return Err(Error::damaged(
                &chain_path,
                format!("it does not know HEAD, `{}`", head.id),
            ));
        }
        if !directory.join(&head.id).join(META).is_file() {
            return Err(Error::damaged(
                &head_path,
                format!("it names state `{}`, which is not there", head.id),
            ));
        }
        states.head = Some(head);
        Ok(states)
    }

    /// Every state there ever was, oldest first, also those without bytes.
    pub fn chain(&self) -> &[StateMeta] {
        &self.chain
    }

    /// The present state; `None` before the first commit.
    pub fn head(&self) -> Option<&StateMeta> {
        self.get(&self.head.as_ref()?.id)
    }

    /// How far the logs were when HEAD was committed.
    pub fn marks(&self) -> Option<Marks> {
        Some(self.head.as_ref()?.marks)
    }

    /// The state called `id`.
    pub fn get(&self, id: &str) -> Option<&StateMeta> {
        self.chain.iter().rfind(|state| state.id == id)
    }

    /// Whether the bytes of a state are still there.
    pub fn is_kept(&self, id: &str) -> bool {
        self.get(id).is_some() && self.directory.join(id).join(META).is_file()
    }

    /// The last milestone: the parent of what comes next.
    fn parent(&self) -> Option<String> {
        let head = self.head()?;
        if head.milestone {
            Some(head.id.clone())
        } else {
            head.parent.clone()
        }
    }

    /// Begins a state with these weights. Nothing is visible before it is committed.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Io`].
    pub(crate) fn begin(&self, draft: Draft, weights: &Weights) -> Result<StateWriter> {
        let parent = self.parent();
        let digest = weights.digest();
        let id = state_id(parent.as_deref(), draft, &digest);
        let directory = temporary(&self.directory.join(&id));
        if directory.exists() {
            fs::remove_dir_all(&directory).at("remove the leftover", &directory)?;
        }
        fs::create_dir(&directory).writing(&directory, 0)?;
        let meta = StateMeta {
            format_version: STATES_VERSION,
            id,
            parent,
            verb: draft.verb,
            milestone: draft.milestone,
            step: draft.step,
            experience: draft.experience,
            weights_hash: hex(&digest),
            reached: Vec::new(),
            files: BTreeMap::new(),
        };
        let mut writer = StateWriter {
            directory,
            disk: self.disk.clone(),
            meta,
            committed: false,
        };
        writer.weights(WEIGHTS, &[("", weights)])?;
        Ok(writer)
    }

    /// Makes a written state HEAD.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Io`]; HEAD is then where it was.
    pub(crate) fn commit(&mut self, mut writer: StateWriter, marks: Marks) -> Result<()> {
        let meta = writer.seal()?;
        let place = self.directory.join(&meta.id);
        if place.exists() {
            // The same bits made by the same steps: only how far the logs are is new.
            fs::remove_dir_all(&writer.directory).at("remove the leftover", &writer.directory)?;
        } else {
            self.disk.rename(&writer.directory, &place)?;
        }
        writer.committed = true;
        let mut chain_bytes = self.head.as_ref().map_or(0, |head| head.chain_bytes);
        let known = self.get(&meta.id).is_some();
        if !known {
            chain_bytes = self.extend_chain(chain_bytes, &meta)?;
        }
        let head = Head {
            format_version: STATES_VERSION,
            id: meta.id.clone(),
            chain_bytes,
            marks,
        };
        let path = self.directory.join(HEAD);
        self.disk.replace(&path, &to_json(&path, &head)?)?;
        self.head = Some(head);
        if !known {
            self.chain.push(meta);
        }
        Ok(())
    }

    fn extend_chain(&self, chain_bytes: u64, meta: &StateMeta) -> Result<u64> {
        let path = self.directory.join(CHAIN);
        let line = to_line(&path, meta)?;
        let bytes = line.len() as u64;
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .append(true)
            .open(&path)
            .writing(&path, bytes)?;
        // An attempt that did not reach HEAD may have left its line.
        file.set_len(chain_bytes).at("cut", &path)?;
        (&file).write_all(&line).writing(&path, bytes)?;
        file.sync_all().writing(&path, bytes)?;
        Ok(chain_bytes + bytes)
    }

    /// Opens a state to read, having checked the length and hash of every file in it.
    ///
    /// # Errors
    /// [`Error::NoState`], [`Error::Damaged`] naming the file, [`Error::Io`].
    pub fn checkout(&self, id: &str) -> Result<State> {
        let missing = |why| Error::NoState { id: id.into(), why };
        let meta = self
            .get(id)
            .ok_or_else(|| missing("no state of this run had this id"))?;
        let directory = self.directory.join(id);
        if !self.is_kept(id) {
            return Err(missing("its bytes were removed"));
        }
        for (name, expected) in &meta.files {
            let path = directory.join(name);
            let found = file_meta(&path)?;
            if found.bytes != expected.bytes {
                let what = format!(
                    "it has {} bytes where {} were saved; use another state or a copy",
                    found.bytes, expected.bytes
                );
                return Err(Error::damaged(&path, what));
            }
            if found != *expected {
                return Err(Error::damaged(
                    &path,
                    "its bytes have changed; use another state or a copy",
                ));
            }
        }
        Ok(State {
            meta: meta.clone(),
            directory,
        })
    }

    /// Removes the bytes of a state for good; that it was stays in the chain.
    ///
    /// # Errors
    /// [`Error::PurgeHead`], [`Error::NoState`], [`Error::Io`].
    pub fn purge(&mut self, id: &str) -> Result<()> {
        if self.head.as_ref().is_some_and(|head| head.id == id) {
            return Err(Error::PurgeHead { id: id.into() });
        }
        if self.get(id).is_none() {
            return Err(Error::NoState {
                id: id.into(),
                why: "no state of this run had this id",
            });
        }
        if self.is_kept(id) {
            self.disk.remove_directory(&self.directory.join(id))
        } else {
            Ok(())
        }
    }

    /// Removes the bytes of the states that the policy lets go; returns their ids.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn prune(&mut self, keep: Keep) -> Result<Vec<String>> {
        let Some(head) = &self.head else {
            return Ok(Vec::new());
        };
        let kept: Vec<&StateMeta> = self
            .chain
            .iter()
            .filter(|state| self.is_kept(&state.id))
            .collect();
        let gone: Vec<String> = keep
            .surplus(&kept, &head.id)
            .into_iter()
            .map(String::from)
            .collect();
        gone.iter().try_for_each(|id| self.purge(id))?;
        Ok(gone)
    }
}

/// A state being written. Dropped without a commit, it leaves nothing.
#[derive(Debug)]
pub struct StateWriter {
    directory: PathBuf,
    disk: Disk,
    meta: StateMeta,
    committed: bool,
}

impl StateWriter {
    /// The id it will have.
    pub fn id(&self) -> &str {
        &self.meta.id
    }

    /// The milestone it is made from.
    pub fn parent(&self) -> Option<&str> {
        self.meta.parent.as_deref()
    }

    /// What will be known of it.
    pub fn meta(&self) -> &StateMeta {
        &self.meta
    }

    /// Adds a file.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::DiskFull`], [`Error::Io`]; so for the methods below.
    pub fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.place(name)?;
        let length = bytes.len() as u64;
        self.disk.write_new(&path, length, |file| {
            file.write_all(bytes).writing(&path, length)
        })
    }

    /// Adds a safetensors file of weight vectors, told apart by prefixes of their paths.
    ///
    /// # Errors
    /// See [`file`](StateWriter::file).
    pub fn weights(&mut self, name: &str, groups: &[(&str, &Weights)]) -> Result<()> {
        let path = self.place(name)?;
        let file = SafeTensorsFile::new(groups, &BTreeMap::new());
        self.disk
            .write_new(&path, file.bytes(), |out| file.write(&path, out))
    }

    /// Adds a directory for a part that saves itself, such as the memory; what is in it when the
    /// state is committed belongs to the state.
    ///
    /// # Errors
    /// See [`file`](StateWriter::file).
    pub fn directory(&mut self, name: &str) -> Result<PathBuf> {
        let path = self.place(name)?;
        fs::create_dir_all(&path).writing(&path, 0)?;
        Ok(path)
    }

    /// Names the lineage segments that reached it.
    pub(crate) fn reached(&mut self, segments: Vec<String>) {
        self.meta.reached = segments;
    }

    fn place(&self, name: &str) -> Result<PathBuf> {
        let plain = Path::new(name).file_name().is_some_and(|file| file == name);
        if !plain || name == META {
            return Err(Error::BadName { name: name.into() });
        }
        Ok(self.directory.join(name))
    }

    /// Syncs everything, writes what is known of it, and returns that.
    fn seal(&mut self) -> Result<StateMeta> {
        let mut files = BTreeMap::new();
        self.collect(&self.directory, &mut files)?;
        self.meta.files = files;
        let path = self.directory.join(META);
        let json = to_json(&path, &self.meta)?;
        let length = json.len() as u64;
        self.disk.write_new(&path, length, |file| {
            file.write_all(&json).writing(&path, length)
        })?;
        self.disk.sync_directory(&self.directory)?;
        Ok(self.meta.clone())
    }

    fn collect(&self, directory: &Path, files: &mut BTreeMap<String, FileMeta>) -> Result<()> {
        for path in entries(directory)? {
            if path.is_dir() {
                self.collect(&path, files)?;
                self.disk.sync_directory(&path)?;
                continue;
            }
            File::open(&path)
                .and_then(|file| file.sync_all())
                .writing(&path, 0)?;
            let within = path.strip_prefix(&self.directory).unwrap_or(&path);
            let parts: Vec<_> = within.iter().map(|part| part.to_string_lossy()).collect();
            files.insert(parts.join("/"), file_meta(&path)?);
        }
        Ok(())
    }
}

impl Drop for StateWriter {
    fn drop(&mut self) {
        if !self.committed && !self.disk.is_dead() {
            // What remains is swept when the run is opened next.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// A state whose files were checked.
#[derive(Clone, Debug)]
pub struct State {
    meta: StateMeta,
    directory: PathBuf,
}

impl State {
    /// What is known of it.
    pub fn meta(&self) -> &StateMeta {
        &self.meta
    }

    /// Where a file or directory of it lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.path(name);
        fs::read(&path).at("read", &path)
    }

    /// The weights.
    ///
    /// # Errors
    /// [`Error::Tensor`], [`Error::Damaged`], [`Error::Io`].
    pub fn weights(&self, expected: &Arc<Layout>) -> Result<Weights> {
        let path = self.path(WEIGHTS);
        let weights = load_weights(&path, expected)?;
        if hex(&weights.digest()) != self.meta.weights_hash {
            return Err(Error::damaged(
                &path,
                "its weights are not those the state was made with",
            ));
        }
        Ok(weights)
    }
}

/// Equal histories have equal ids.
fn state_id(parent: Option<&str>, draft: Draft, weights: &[u8; 32]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("ebbinghaus v1 state id");
    hasher.update(parent.unwrap_or("").as_bytes()).update(b"\n");
    hasher.update(draft.verb.name().as_bytes()).update(b"\n");
    hasher.update(&[u8::from(draft.milestone)]);
    hasher.update(&draft.step.to_le_bytes()).update(weights);
    hex(&hasher.finalize().as_bytes()[..16])
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn file_meta(path: &Path) -> Result<FileMeta> {
    let mut file = File::open(path).at("open", path)?;
    let mut hasher = blake3::Hasher::new();
    let bytes = std::io::copy(&mut file, &mut hasher).at("read", path)?;
    Ok(FileMeta {
        bytes,
        blake3: hasher.finalize().to_hex().to_string(),
    })
}
