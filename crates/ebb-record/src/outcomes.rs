//! Per-example outcomes: at each evaluation the loss and the correctness of every example, by id.
//!
//! While a run goes on they are blocks in `outcomes.bin`, append-only and cut back on resume as
//! the records are. A list of ids is written once and later evaluations of the same examples
//! refer to it, so that one more outcome costs 33 bits.
//!
//! Layout, little-endian: `"EBBOUTC\n"`, version u32, segment u32; then blocks of
//! `kind u32, payload length u32, checksum u64 (BLAKE3 of kind and payload), payload`.
//! Payload of kind 1 (ids): 24 bytes an id: base, occurrence u32, view u32. Of kind 2 (outcomes):
//! step u64, after i32, set u32, number of the id list u32, n u32, n losses f32, n bits.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use ebb_space::ExampleId;

use crate::error::{At, Error, Result, supported};
use crate::log::AppendLog;

/// The newest version of the outcomes formats that this program reads.
pub const OUTCOMES_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"EBBOUTC\n";
const HEADER: usize = 16;
const BLOCK_HEADER: usize = 16;
const IDS: u32 = 1;
const OUTCOMES: u32 = 2;
pub(crate) const ID_BYTES: usize = 24;
/// No block is larger: a length beyond it is damage, not a reason to allocate.
const LARGEST: u32 = 1 << 30;

/// One evaluation of one test set.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcomes {
    /// Updates made when it was taken.
    pub step: u64,
    /// After which experience; -1 is the random initialisation.
    pub after: i32,
    /// The test set.
    pub set: u32,
    /// The examples.
    pub ids: Arc<[ExampleId]>,
    /// The loss of each.
    pub loss: Vec<f32>,
    /// Whether each was answered correctly.
    pub correct: Vec<bool>,
}

pub(crate) fn id_bytes(id: &ExampleId) -> [u8; ID_BYTES] {
    let mut bytes = [0; ID_BYTES];
    bytes[..16].copy_from_slice(&id.base);
    bytes[16..20].copy_from_slice(&id.occurrence.to_le_bytes());
    bytes[20..].copy_from_slice(&id.view.to_le_bytes());
    bytes
}

pub(crate) fn id_of(bytes: &[u8; ID_BYTES]) -> ExampleId {
    let (mut base, mut occurrence, mut view) = ([0; 16], [0; 4], [0; 4]);
    base.copy_from_slice(&bytes[..16]);
    occurrence.copy_from_slice(&bytes[16..20]);
    view.copy_from_slice(&bytes[20..]);
    let (occurrence, view) = (u32::from_le_bytes(occurrence), u32::from_le_bytes(view));
    ExampleId {
        base,
        occurrence,
        view,
    }
}

/// Appends evaluations.
#[derive(Debug)]
pub struct OutcomeWriter {
    log: AppendLog,
    segment: u32,
    /// Digest of an id list -> its number.
    lists: HashMap<blake3::Hash, u32>,
    payload: Vec<u8>,
}

impl OutcomeWriter {
    /// A new file without evaluations.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::DiskFull`]; so for all methods here.
    pub fn create(path: &Path, segment: u32) -> Result<OutcomeWriter> {
        let mut header = MAGIC.to_vec();
        header.extend(OUTCOMES_VERSION.to_le_bytes());
        header.extend(segment.to_le_bytes());
        let log = AppendLog::create(path, &header)?;
        Ok(OutcomeWriter {
            log,
            segment,
            lists: HashMap::new(),
            payload: Vec::new(),
        })
    }

    /// Goes on after the first `bytes` bytes of an existing file; what follows is cut.
    ///
    /// # Errors
    /// Also [`Error::Damaged`] if the file is shorter or `bytes` is no end of a block, and
    /// [`Error::Newer`].
    pub fn resume(path: &Path, bytes: u64) -> Result<OutcomeWriter> {
        let mut blocks = Blocks::open(path)?;
        let mut lists = HashMap::new();
        while blocks.position < bytes
            && let Some(kind) = blocks.next()?
        {
            if kind == IDS {
                let number = lists.len() as u32;
                lists.insert(blake3::hash(&blocks.payload), number);
            }
        }
        if blocks.position != bytes && blocks.file_bytes >= bytes {
            let what =
                format!("byte {bytes}, where the last state left it, is not the end of a block");
            return Err(Error::damaged(path, what));
        }
        let log = AppendLog::resume(path, bytes)?;
        Ok(OutcomeWriter {
            log,
            segment: blocks.segment,
            lists,
            payload: Vec::new(),
        })
    }

    /// Appends the outcomes of one evaluation of test set `set`, made after experience `after`
    /// (-1: random initialisation) and `step` updates.
    ///
    /// # Errors
    /// Also [`Error::Evaluation`] if the slices differ in length.
    pub fn append(
        &mut self,
        step: u64,
        after: i32,
        set: u32,
        ids: &[ExampleId],
        loss: &[f32],
        correct: &[bool],
    ) -> Result<()> {
        if ids.len() != loss.len()
            || ids.len() != correct.len()
            || ids.len() > LARGEST as usize / 32
        {
            let (i, l, c) = (ids.len(), loss.len(), correct.len());
            return Err(Error::Evaluation(format!(
                "{i} ids, {l} losses and {c} outcomes"
            )));
        }
        self.payload.clear();
        self.payload.extend(ids.iter().flat_map(id_bytes));
        let digest = blake3::hash(&self.payload);
        let list = match self.lists.get(&digest) {
            Some(&list) => list,
            None => {
                self.block(IDS)?;
                let list = self.lists.len() as u32;
                self.lists.insert(digest, list);
                list
            }
        };
        self.payload.clear();
        self.payload.extend(step.to_le_bytes());
        self.payload.extend(after.to_le_bytes());
        for word in [set, list, ids.len() as u32] {
            self.payload.extend(word.to_le_bytes());
        }
        self.payload
            .extend(loss.iter().flat_map(|l| l.to_le_bytes()));
        let bits = |eight: &[bool]| {
            eight
                .iter()
                .enumerate()
                .fold(0, |b, (i, &c)| b | u8::from(c) << i)
        };
        self.payload.extend(correct.chunks(8).map(bits));
        self.block(OUTCOMES)
    }

    fn block(&mut self, kind: u32) -> Result<()> {
        let mut header = [0; BLOCK_HEADER];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[4..8].copy_from_slice(&(self.payload.len() as u32).to_le_bytes());
        header[8..].copy_from_slice(&checksum(kind, &self.payload));
        self.log.append(&header)?;
        self.log.append(&self.payload)
    }

    /// Makes all evaluations durable; returns the length to store in the state.
    ///
    /// # Errors
    /// See [`create`](OutcomeWriter::create).
    pub fn sync(&mut self) -> Result<u64> {
        self.log.sync()
    }

    /// Length with everything appended so far.
    pub fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// The segment this file is.
    pub fn segment(&self) -> u32 {
        self.segment
    }

    /// Whether nothing was ever appended.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes() == HEADER as u64
    }
}

fn checksum(kind: u32, payload: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&kind.to_le_bytes()).update(payload);
    let mut sum = [0; 8];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    sum
}

/// Reads block after block.
struct Blocks<'p> {
    path: &'p Path,
    file: BufReader<File>,
    file_bytes: u64,
    /// After the last whole block.
    position: u64,
    segment: u32,
    payload: Vec<u8>,
}

impl<'p> Blocks<'p> {
    fn open(path: &'p Path) -> Result<Blocks<'p>> {
        let file = File::open(path).at("open", path)?;
        let file_bytes = file.metadata().at("inspect", path)?.len();
        let mut file = BufReader::with_capacity(1 << 16, file);
        let mut header = [0; HEADER];
        let whole = file_bytes >= HEADER as u64;
        if whole {
            file.read_exact(&mut header).at("read", path)?;
        }
        if !whole || header[..8] != *MAGIC {
            return Err(Error::damaged(
                path,
                "it is not an outcomes file of this program",
            ));
        }
        supported(path, word(&header, 8), OUTCOMES_VERSION)?;
        let (position, segment) = (HEADER as u64, word(&header, 12));
        Ok(Blocks {
            path,
            file,
            file_bytes,
            position,
            segment,
            payload: Vec::new(),
        })
    }

    /// The kind of the next whole block, its payload in `self.payload`; `None` at the end or
    /// where the last block was cut short.
    fn next(&mut self) -> Result<Option<u32>> {
        let left = self.file_bytes - self.position;
        if left < BLOCK_HEADER as u64 {
            return Ok(None);
        }
        let mut header = [0; BLOCK_HEADER];
        self.file.read_exact(&mut header).at("read", self.path)?;
        let (kind, length) = (word(&header, 0), word(&header, 4));
        let end = BLOCK_HEADER as u64 + u64::from(length);
        if header == [0; BLOCK_HEADER] || (length <= LARGEST && end > left) {
            return Ok(None);
        }
        let damaged =
            |what: &str, at: u64| Err(Error::damaged(self.path, format!("{what} at byte {at}")));
        if length > LARGEST {
            return damaged("impossible block length", self.position);
        }
        self.payload.resize(length as usize, 0);
        self.file
            .read_exact(&mut self.payload)
            .at("read", self.path)?;
        if checksum(kind, &self.payload) != header[8..] {
            return damaged("wrong checksum of the block", self.position);
        }
        self.position += end;
        Ok(Some(kind))
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// Reads `outcomes.bin`, leaving out a last block that was cut short.
///
/// # Errors
/// [`Error::Io`], [`Error::Newer`], [`Error::Damaged`].
pub fn read_outcomes(path: &Path) -> Result<Vec<Outcomes>> {
    let mut all = Vec::new();
    for_each_outcome(path, |outcomes| {
        all.push(outcomes);
        Ok(())
    })?;
    Ok(all)
}

/// The same, one evaluation at a time.
pub(crate) fn for_each_outcome(
    path: &Path,
    mut take: impl FnMut(Outcomes) -> Result<()>,
) -> Result<()> {
    let mut blocks = Blocks::open(path)?;
    let mut lists: Vec<Arc<[ExampleId]>> = Vec::new();
    while let Some(kind) = blocks.next()? {
        let payload = &blocks.payload;
        let damaged =
            |what: &str| Error::damaged(path, format!("{what} before byte {}", blocks.position));
        match kind {
            IDS if payload.len() % ID_BYTES == 0 => {
                lists.push(payload.as_chunks().0.iter().map(id_of).collect());
            }
            OUTCOMES if payload.len() >= 24 => {
                let mut step = [0; 8];
                step.copy_from_slice(&payload[..8]);
                let n = word(payload, 20) as usize;
                let ids = lists
                    .get(word(payload, 16) as usize)
                    .ok_or_else(|| damaged("unknown list of ids"))?;
                if ids.len() != n || payload.len() != 24 + 4 * n + n.div_ceil(8) {
                    return Err(damaged("outcomes that do not fit their ids"));
                }
                let (losses, bits) = payload[24..].split_at(4 * n);
                take(Outcomes {
                    step: u64::from_le_bytes(step),
                    after: word(payload, 8) as i32,
                    set: word(payload, 12),
                    ids: ids.clone(),
                    loss: losses
                        .as_chunks()
                        .0
                        .iter()
                        .map(|b| f32::from_le_bytes(*b))
                        .collect(),
                    correct: (0..n).map(|i| bits[i / 8] >> (i % 8) & 1 == 1).collect(),
                })?;
            }
            _ => return Err(damaged("a block of unknown kind")),
        }
    }
    Ok(())
}

/// The segment number of a file, from its header.
pub(crate) fn segment_of(path: &Path) -> Result<u32> {
    Ok(Blocks::open(path)?.segment)
}
