//! Lineage: which example ids reached which state, memory, statistic or adapter.
//!
//! `lineage.jsonl` is append-only and says two things: *the ids of this segment reached this
//! artifact*, and *this artifact was made from those*. A segment is a list of ids, written once
//! and named by its content, `lineage/HASH.ids`; one an experience is enough, however many states
//! it reached. What reached an artifact has reached everything made from it.
//!
//! A segment may hold more than what an artifact really met (a checkpoint in the middle of an
//! epoch): lineage errs towards reaching, which is the safe side for erasing.
//!
//! Layout of a segment, little-endian: `"EBBIDSC\n"`, version u32, zero u32, number of ids u64, then
//! the ids in ascending order: base (16 bytes), occurrence u32, view u32.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ebb_space::ExampleId;
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, TEMPORARY, entries};
use crate::error::{At, Error, Result, supported};
use crate::json::to_line;
use crate::log::AppendLog;
use crate::outcomes::{ID_BYTES, id_bytes, id_of};

/// The newest version of the lineage formats that this program reads.
pub const LINEAGE_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"EBBIDSC\n";
const HEADER: u64 = 24;

/// Something that examples reach.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Artifact {
    /// A model state, by id.
    State(String),
    /// A replay memory, by name.
    Memory(String),
    /// A statistic such as a Fisher diagonal or a prototype, by name.
    Statistic(String),
    /// An adapter, by name.
    Adapter(String),
}

impl fmt::Display for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = match self {
            Artifact::State(name) => ("state", name),
            Artifact::Memory(name) => ("memory", name),
            Artifact::Statistic(name) => ("statistic", name),
            Artifact::Adapter(name) => ("adapter", name),
        };
        write!(f, "{kind} {name}")
    }
}

/// How ids reached an artifact.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exposure {
    /// During which experience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experience: Option<usize>,
    /// In which epochs of it, first and last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<(u32, u32)>,
    /// Whether possibly only some of the segment had their turn yet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub part: bool,
}

/// One line of `lineage.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Entry {
    Format {
        format_version: u32,
    },
    Reached {
        artifact: Artifact,
        segment: String,
        #[serde(flatten)]
        exposure: Exposure,
    },
    Made {
        artifact: Artifact,
        from: Vec<Artifact>,
    },
}

/// The lineage of a run, in memory.
#[derive(Clone, Debug, Default)]
struct Graph {
    reached: Vec<(Artifact, String, Exposure)>,
    /// Artifact -> what was made from it.
    children: BTreeMap<Artifact, BTreeSet<Artifact>>,
}

/// The lineage of a run, to read.
#[derive(Clone, Debug)]
pub struct Lineage {
    segments: PathBuf,
    graph: Graph,
}

/// The lineage of a run, to append to.
#[derive(Debug)]
pub struct LineageWriter {
    log: AppendLog,
    disk: Disk,
    lineage: Lineage,
}

impl LineageWriter {
    /// A lineage in which nothing has reached anything.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Io`]; so for all methods here.
    pub fn create(path: &Path, segments: &Path, disk: Disk) -> Result<LineageWriter> {
        fs::create_dir_all(segments).writing(segments, 0)?;
        let line = to_line(
            path,
            &Entry::Format {
                format_version: LINEAGE_VERSION,
            },
        )?;
        let log = AppendLog::create(path, &line)?;
        let lineage = Lineage {
            segments: segments.into(),
            graph: Graph::default(),
        };
        lineage.sweep(&disk)?;
        Ok(LineageWriter { log, disk, lineage })
    }

    /// Goes on after the first `bytes` bytes of an existing lineage; what follows is cut, and the
    /// segments that only it named are removed.
    ///
    /// # Errors
    /// Also [`Error::Damaged`], [`Error::Newer`].
    pub fn resume(path: &Path, segments: &Path, bytes: u64, disk: Disk) -> Result<LineageWriter> {
        let lineage = Lineage {
            segments: segments.into(),
            graph: read_graph(path, Some(bytes))?,
        };
        let log = AppendLog::resume(path, bytes)?;
        lineage.sweep(&disk)?;
        Ok(LineageWriter { log, disk, lineage })
    }

    /// Stores a list of ids, in any order and with repetitions; returns the segment's name. A list
    /// that is stored already is not written again.
    ///
    /// # Errors
    /// See [`create`](LineageWriter::create).
    pub fn segment(&mut self, ids: &[ExampleId]) -> Result<String> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let mut hasher = blake3::Hasher::new_derive_key("ebbinghaus v1 lineage segment");
        for id in &ids {
            hasher.update(&id_bytes(id));
        }
        let name = crate::states::hex(&hasher.finalize().as_bytes()[..16]);
        let path = self.lineage.path(&name);
        if !path.exists() {
            let bytes = HEADER + (ids.len() * ID_BYTES) as u64;
            self.disk.replace_with(&path, bytes, |file| {
                let mut write = |part: &[u8]| file.write_all(part).writing(&path, bytes);
                write(MAGIC)?;
                write(&LINEAGE_VERSION.to_le_bytes())?;
                write(&[0; 4])?;
                write(&(ids.len() as u64).to_le_bytes())?;
                ids.iter().try_for_each(|id| write(&id_bytes(id)))
            })?;
        }
        Ok(name)
    }

    /// The ids of `segment` reached `artifact`.
    ///
    /// # Errors
    /// Also [`Error::Damaged`] if no such segment is stored.
    pub fn reach(&mut self, artifact: Artifact, segment: &str, exposure: Exposure) -> Result<()> {
        let path = self.lineage.path(segment);
        if !path.exists() {
            return Err(Error::damaged(
                &path,
                "the segment is not stored; store it before naming it",
            ));
        }
        self.append(Entry::Reached {
            artifact,
            segment: segment.into(),
            exposure,
        })
    }

    /// `artifact` was made from `from`: what reached those has reached it.
    ///
    /// # Errors
    /// See [`create`](LineageWriter::create).
    pub fn made(&mut self, artifact: Artifact, from: &[Artifact]) -> Result<()> {
        self.append(Entry::Made {
            artifact,
            from: from.to_vec(),
        })
    }

    fn append(&mut self, entry: Entry) -> Result<()> {
        let line = to_line(self.log.path(), &entry)?;
        self.log.append(&line)?;
        self.lineage.graph.take(entry);
        Ok(())
    }

    /// What has been written so far.
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Makes everything durable; returns the length to store in the state.
    ///
    /// # Errors
    /// See [`create`](LineageWriter::create).
    pub fn sync(&mut self) -> Result<u64> {
        self.log.sync()
    }

    /// Length with everything appended so far.
    pub fn bytes(&self) -> u64 {
        self.log.bytes()
    }
}

impl Lineage {
    /// Reads `lineage.jsonl`, leaving out a torn last line.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Newer`], [`Error::Io`]; so for all methods here.
    pub fn read(path: &Path, segments: &Path) -> Result<Lineage> {
        Ok(Lineage {
            segments: segments.into(),
            graph: read_graph(path, None)?,
        })
    }

    fn path(&self, segment: &str) -> PathBuf {
        self.segments.join(segment).with_extension("ids")
    }

    /// Removes segments that nothing names.
    fn sweep(&self, disk: &Disk) -> Result<()> {
        let named: BTreeSet<PathBuf> = self.graph.segments().map(|name| self.path(name)).collect();
        for path in entries(&self.segments)? {
            let ours = path
                .extension()
                .is_some_and(|e| e == "ids" || e == TEMPORARY);
            if ours && !named.contains(&path) {
                disk.remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Everything that exactly this id, view included, has reached: directly, or through what was
    /// made from it. Sorted. Whether a state's bytes are still there is for
    /// [`States`](crate::States) to say.
    ///
    /// # Errors
    /// See [`read`](Lineage::read).
    pub fn reached(&self, id: &ExampleId) -> Result<Vec<Artifact>> {
        self.reached_by(id, |found| found == id)
    }

    /// Everything that any view of this record has reached. Sorted.
    ///
    /// # Errors
    /// See [`read`](Lineage::read).
    pub fn reached_by_any_view(&self, id: &ExampleId) -> Result<Vec<Artifact>> {
        self.reached_by(&id.with_view(0), |found| found.same_base(id))
    }

    /// `first` is where matching ids begin in the order of ids.
    fn reached_by(
        &self,
        first: &ExampleId,
        fits: impl Fn(&ExampleId) -> bool,
    ) -> Result<Vec<Artifact>> {
        let mut holding = BTreeSet::new();
        for name in self.graph.segments().collect::<BTreeSet<_>>() {
            let path = self.path(name);
            let mut segment = Segment::open(&path)?;
            if segment
                .at_or_after(first)?
                .is_some_and(|found| fits(&found))
            {
                holding.insert(name);
            }
        }
        let direct = self
            .graph
            .reached
            .iter()
            .filter(|(_, segment, _)| holding.contains(segment.as_str()));
        let mut open: Vec<&Artifact> = direct.map(|(artifact, _, _)| artifact).collect();
        let mut all = BTreeSet::new();
        while let Some(artifact) = open.pop() {
            if all.insert(artifact) {
                open.extend(self.graph.children.get(artifact).into_iter().flatten());
            }
        }
        Ok(all.into_iter().cloned().collect())
    }

    /// Everything that any view of any of these records has reached, with those of the records,
    /// as given, that reached it.
    ///
    /// # Errors
    /// See [`read`](Lineage::read).
    pub fn reached_by_records(
        &self,
        records: &[ExampleId],
    ) -> Result<BTreeMap<Artifact, BTreeSet<ExampleId>>> {
        let holding = self.segments_with(records)?;
        let mut all: BTreeMap<Artifact, BTreeSet<ExampleId>> = BTreeMap::new();
        for (artifact, segment, _) in &self.graph.reached {
            if let Some(of) = holding.get(segment.as_str()) {
                all.entry(artifact.clone()).or_default().extend(of);
            }
        }
        let mut open: Vec<Artifact> = all.keys().cloned().collect();
        while let Some(artifact) = open.pop() {
            let of = all.get(&artifact).cloned().unwrap_or_default();
            for child in self.graph.children.get(&artifact).into_iter().flatten() {
                let known = all.entry(child.clone()).or_default();
                let before = known.len();
                known.extend(&of);
                if known.len() > before {
                    open.push(child.clone());
                }
            }
        }
        Ok(all)
    }

    /// The segments that list any view of any of these records, with those of the records, as
    /// given, that each lists.
    ///
    /// # Errors
    /// See [`read`](Lineage::read).
    pub fn segments_with(
        &self,
        records: &[ExampleId],
    ) -> Result<BTreeMap<&str, BTreeSet<ExampleId>>> {
        let mut holding: BTreeMap<&str, BTreeSet<ExampleId>> = BTreeMap::new();
        for name in self.graph.segments().collect::<BTreeSet<_>>() {
            let path = self.path(name);
            let mut segment = Segment::open(&path)?;
            for record in records {
                let found = segment.at_or_after(&record.with_view(0))?;
                if found.is_some_and(|found| found.same_base(record)) {
                    holding.entry(name).or_default().insert(*record);
                }
            }
        }
        Ok(holding)
    }

    /// Every id that reached `artifact`, directly or through what it was made from. Sorted.
    ///
    /// # Errors
    /// See [`read`](Lineage::read).
    pub fn examples(&self, artifact: &Artifact) -> Result<Vec<ExampleId>> {
        let mut sources = BTreeSet::from([artifact]);
        loop {
            let before = sources.len();
            for (parent, children) in &self.graph.children {
                if children.iter().any(|child| sources.contains(child)) {
                    sources.insert(parent);
                }
            }
            if sources.len() == before {
                break;
            }
        }
        let of = self
            .graph
            .reached
            .iter()
            .filter(|(artifact, _, _)| sources.contains(artifact));
        let mut ids = BTreeSet::new();
        for name in of
            .map(|(_, segment, _)| segment.as_str())
            .collect::<BTreeSet<_>>()
        {
            ids.extend(self.segment(name)?);
        }
        Ok(ids.into_iter().collect())
    }

    /// The ids of a segment, ascending.
    ///
    /// # Errors
    /// See [`read`](Lineage::read).
    pub fn segment(&self, name: &str) -> Result<Vec<ExampleId>> {
        Segment::open(&self.path(name))?.all()
    }

    /// The segments that reached `artifact` directly, with how. In the order written.
    pub fn direct(&self, artifact: &Artifact) -> Vec<(&str, &Exposure)> {
        let of = self
            .graph
            .reached
            .iter()
            .filter(|(to, _, _)| to == artifact);
        of.map(|(_, segment, exposure)| (segment.as_str(), exposure))
            .collect()
    }
}

impl Graph {
    fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Format { .. } => {}
            Entry::Reached {
                artifact,
                segment,
                exposure,
            } => {
                self.reached.push((artifact, segment, exposure));
            }
            Entry::Made { artifact, from } => {
                for parent in from {
                    self.children
                        .entry(parent)
                        .or_default()
                        .insert(artifact.clone());
                }
            }
        }
    }

    fn segments(&self) -> impl Iterator<Item = &str> {
        self.reached.iter().map(|(_, segment, _)| segment.as_str())
    }
}

/// Reads the first `bytes` bytes, or all whole lines.
fn read_graph(path: &Path, bytes: Option<u64>) -> Result<Graph> {
    let file = File::open(path).at("open", path)?;
    let length = file.metadata().at("inspect", path)?.len();
    let mut lines = BufReader::new(file.take(bytes.unwrap_or(length)));
    let mut graph = Graph::default();
    let mut text = Vec::new();
    for number in 1.. {
        text.clear();
        if lines.read_until(b'\n', &mut text).at("read", path)? == 0 {
            break;
        }
        let torn = text.last() != Some(&b'\n') || text.contains(&0);
        match serde_json::from_slice(&text) {
            Ok(Entry::Format { format_version }) => {
                supported(path, format_version, LINEAGE_VERSION)?
            }
            Ok(_) if number == 1 => return Err(Error::damaged(path, "it is not a lineage file")),
            Ok(entry) if !torn => graph.take(entry),
            _ if torn && bytes.is_none() && number > 1 => break,
            Ok(_) => return Err(Error::damaged(path, format!("line {number} is cut short"))),
            Err(e) => return Err(Error::damaged(path, format!("line {number}: {e}"))),
        }
    }
    Ok(graph)
}

/// A segment file.
struct Segment<'p> {
    path: &'p Path,
    file: File,
    ids: u64,
}

impl<'p> Segment<'p> {
    fn open(path: &'p Path) -> Result<Segment<'p>> {
        let mut file = File::open(path).at("open", path)?;
        let length = file.metadata().at("inspect", path)?.len();
        let mut header = [0; HEADER as usize];
        let read = length >= HEADER && {
            file.read_exact(&mut header).at("read", path)?;
            header[..8] == *MAGIC
        };
        if !read {
            return Err(Error::damaged(path, "it is not a lineage segment"));
        }
        let (mut version, mut ids) = ([0; 4], [0; 8]);
        version.copy_from_slice(&header[8..12]);
        ids.copy_from_slice(&header[16..]);
        supported(path, u32::from_le_bytes(version), LINEAGE_VERSION)?;
        let ids = u64::from_le_bytes(ids);
        if ids
            .checked_mul(ID_BYTES as u64)
            .and_then(|n| n.checked_add(HEADER))
            != Some(length)
        {
            return Err(Error::damaged(
                path,
                format!("it should hold {ids} ids but has {length} bytes"),
            ));
        }
        Ok(Segment { path, file, ids })
    }

    fn at(&mut self, index: u64) -> Result<ExampleId> {
        let mut bytes = [0; ID_BYTES];
        let place = SeekFrom::Start(HEADER + index * ID_BYTES as u64);
        self.file
            .seek(place)
            .and_then(|_| self.file.read_exact(&mut bytes))
            .at("read", self.path)?;
        Ok(id_of(&bytes))
    }

    /// The first id that is not below `id`, by bisection in the file.
    fn at_or_after(&mut self, id: &ExampleId) -> Result<Option<ExampleId>> {
        let (mut low, mut high) = (0, self.ids);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.at(middle)? < *id {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if low < self.ids {
            self.at(low).map(Some)
        } else {
            Ok(None)
        }
    }

    fn all(mut self) -> Result<Vec<ExampleId>> {
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes).at("read", self.path)?;
        Ok(bytes.as_chunks().0.iter().map(id_of).collect())
    }
}
