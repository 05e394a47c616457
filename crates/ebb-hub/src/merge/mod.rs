//! Merging models in files: tensor by tensor, so that memory stays near one model.
//!
//! A base, and what was made from it: models of the same shape, or adapters. A [`Merge`] is checked
//! when it is put together; [`Merge::write`] streams it into a folder. Pieces of tensors are merged
//! side by side and written where they belong, so that the result does not depend on the number of
//! threads.

mod fit;
mod source;
mod tally;

use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use ebb_space::merge::{Piece, Ramp, Rule, Task, least_kept, merge_alpha};
use rayon::prelude::*;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::tensors::TensorInfo;
use crate::write::Pieces;
use source::{Files, Source};
use tally::Tally;

/// Values of a piece: all sources' pieces together stay in the last cache.
const PIECE: usize = 1 << 16;

/// What is merged, and how.
pub struct Merge {
    base: Files,
    tasks: Vec<Task>,
    sources: Vec<Source>,
    rule: Rule,
    ramp: Option<Ramp>,
    tensors: Vec<TensorInfo>,
}

/// What a merge did.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Numbers of the model.
    pub parameters: usize,
    /// Blocks, of what its paths say.
    pub blocks: usize,
    /// `‖θ0‖`.
    pub base_norm: f64,
    /// The sources, in their order.
    pub sources: Vec<SourceSummary>,
    /// Cosines between their task vectors.
    pub cosines: Vec<Vec<f64>>,
    /// Of the entries that a source changes, the share that sources pull in both directions.
    pub sign_conflicts: f64,
    /// `‖τ‖` of the merged task vector, before the layers are scaled.
    pub merged_norm: f64,
    /// The α that LiNeS gives a merge: `‖Σ τ_t‖₁ / (T ‖τ‖₁)`.
    pub lines_alpha: f64,
}

/// A source of a merge.
#[derive(Clone, Debug, Serialize)]
pub struct SourceSummary {
    /// What it is called.
    pub name: String,
    /// Its weight.
    pub weight: f64,
    /// `‖τ_t‖`.
    pub norm: f64,
}

impl Merge {
    /// A merge of these sources, each with its weight, into the model at `base`.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for sources that were not made from such a base, and for what no rule
    /// merges; those of opening folders, adapters and GGUF files.
    pub fn open(base: &Path, sources: &[(PathBuf, f64)], rule: Rule) -> Result<Merge> {
        let names = names(sources.iter().map(|(path, _)| path.as_path()))?;
        let weights = sources.iter().map(|(_, weight)| *weight);
        let tasks: Vec<Task> = names
            .into_iter()
            .zip(weights)
            .map(|(name, weight)| Task { name, weight })
            .collect();
        rule.check(&tasks)
            .map_err(|e| Error::Mismatch(e.to_string()))?;
        let base = Files::open(base)?;
        let tensors = fit::tensors(&base);
        let tokenizer = base.tokenizer()?;
        let mut opened = Vec::with_capacity(sources.len());
        for (path, _) in sources {
            let source = Source::open(path)?;
            fit::check(&base, tokenizer.as_ref(), &tensors, &source, path)?;
            opened.push(source);
        }
        Ok(Merge {
            base,
            tasks,
            sources: opened,
            rule,
            ramp: None,
            tensors,
        })
    }

    /// Scales what is merged by depth: α in the first block and outside of blocks, α + β in the
    /// last.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where no path has the number of a block, or a number is not finite.
    pub fn layers(mut self, alpha: f64, beta: f64) -> Result<Merge> {
        let paths = self.tensors.iter().map(|t| t.name.as_str());
        let ramp = Ramp::new(alpha, beta, paths);
        if !alpha.is_finite() || !beta.is_finite() {
            let what = format!("{alpha} and {beta} are no factors for layers");
            return Err(Error::Mismatch(what));
        }
        if ramp.blocks() == 0 {
            let what = "no tensor of the model has the number of a block in its name, so that its \
                        layers cannot be scaled by depth";
            return Err(Error::Mismatch(what.into()));
        }
        self.ramp = Some(ramp);
        Ok(self)
    }

    /// Numbers of the model, which progress is counted in.
    pub fn parameters(&self) -> usize {
        self.tensors.iter().map(TensorInfo::values).sum()
    }

    /// Writes the merged model with the base's configuration, tokenizer and chat template: all of
    /// it, or nothing. `each` hears how many numbers are done, from several threads, and may stop
    /// it.
    ///
    /// # Errors
    /// [`Error::Exists`] if `to` is there and not empty; [`Error::Stopped`];
    /// [`Error::Tensor`] where a tensor cannot be read, or holds what is no number; [`Error::Io`].
    pub fn write(
        &self,
        to: &Path,
        each: &(dyn Fn(usize) -> ControlFlow<()> + Sync),
    ) -> Result<Summary> {
        let tally = self
            .base
            .writer()?
            .write_pieces(to, &self.tensors, |pieces| self.stream(pieces, each))?;
        let root = |i: usize| tally.dots[i * self.tasks.len() + i].sqrt();
        let sources = self
            .tasks
            .iter()
            .enumerate()
            .map(|(i, task)| SourceSummary {
                name: task.name.clone(),
                weight: task.weight,
                norm: root(i),
            });
        let cosine = |i: usize, j: usize| {
            let dot = tally.dots[i * self.tasks.len() + j];
            let both = root(i) * root(j);
            if both > 0.0 { dot / both } else { 0.0 }
        };
        let all = 0..self.tasks.len();
        let paths = self.tensors.iter().map(|t| t.name.as_str());
        Ok(Summary {
            parameters: self.parameters(),
            blocks: Ramp::new(1.0, 0.0, paths).blocks(),
            base_norm: tally.base_square.sqrt(),
            sources: sources.collect(),
            cosines: all
                .clone()
                .map(|i| all.clone().map(|j| cosine(i, j)).collect())
                .collect(),
            sign_conflicts: tally.conflicts as f64 / tally.changed.max(1) as f64,
            merged_norm: tally.merged_square.sqrt(),
            lines_alpha: merge_alpha(tally.sum_abs, tally.merged_abs, self.tasks.len()),
        })
    }

    fn stream(
        &self,
        pieces: &Pieces,
        each: &(dyn Fn(usize) -> ControlFlow<()> + Sync),
    ) -> Result<Tally> {
        let least = self.least()?;
        let work: Vec<(usize, Range<usize>)> = (0..self.tensors.len())
            .flat_map(|tensor| self.ranges(tensor).map(move |range| (tensor, range)))
            .collect();
        let tallies: Result<Vec<Tally>> = work
            .par_iter()
            .map_init(Buffers::default, |buffers, (tensor, range)| {
                let tally = self.piece(*tensor, range.clone(), &least, buffers, pieces)?;
                match each(range.len()) {
                    ControlFlow::Continue(()) => Ok(tally),
                    ControlFlow::Break(()) => Err(Error::Stopped),
                }
            })
            .collect();
        // In the order of the tensors, whoever was first.
        let mut all = Tally::new(self.tasks.len());
        tallies?.iter().for_each(|tally| all.add(tally));
        Ok(all)
    }

    /// For TIES, the least magnitude it keeps, tensor by tensor and source by source.
    fn least(&self) -> Result<Vec<f32>> {
        let Rule::Ties { density } = self.rule else {
            return Ok(Vec::new());
        };
        let all = self.tensors.len() * self.sources.len();
        (0..all)
            .into_par_iter()
            .map(|at| {
                let (tensor, source) = (at / self.sources.len(), at % self.sources.len());
                let source = &self.sources[source];
                let info = &self.tensors[tensor];
                if !source.changes(&info.name) {
                    return Ok(0.0);
                }
                let mut tau = vec![0.0; info.values()];
                let mut base = Vec::new();
                let mut scratch = Vec::new();
                for range in self.ranges(tensor) {
                    let tau = &mut tau[range.clone()];
                    if source.needs_base() {
                        base.resize(range.len(), 0.0);
                        self.base.read(&info.name, range.start, &mut base)?;
                    }
                    source.tau(info, range.start, &base, tau, &mut scratch)?;
                }
                Ok(least_kept(&tau, density))
            })
            .collect()
    }

    /// How a tensor is cut: into rows, so that the product of an adapter's factors is.
    fn ranges(&self, tensor: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let info = &self.tensors[tensor];
        let all = info.values();
        let row = match info.shape[..] {
            [] | [_] => 1,
            [rows, ..] => all / rows.max(1),
        };
        let has_ranges = self.base.has_ranges(&info.name)
            && self.sources.iter().all(|s| s.has_ranges(&info.name));
        let step = match has_ranges {
            true => (PIECE / row.max(1)).max(1) * row.max(1),
            false => all.max(1),
        };
        (0..all)
            .step_by(step)
            .map(move |from| from..(from + step).min(all))
    }

    fn piece(
        &self,
        tensor: usize,
        range: Range<usize>,
        least: &[f32],
        buffers: &mut Buffers,
        pieces: &Pieces,
    ) -> Result<Tally> {
        let info = &self.tensors[tensor];
        let (n, len) = (self.sources.len(), range.len());
        buffers.resize(n, len);
        let Buffers {
            base,
            taus,
            merged,
            scratch,
        } = buffers;
        self.base.read(&info.name, range.start, base)?;
        let mut tally = Tally::new(n);
        tally.base(base);
        if self.sources.iter().any(|source| source.changes(&info.name)) {
            for (source, tau) in self.sources.iter().zip(taus.chunks_exact_mut(len)) {
                source.tau(info, range.start, base, tau, scratch)?;
            }
            let slices: Vec<&[f32]> = taus.chunks_exact(len).collect();
            let least = least.get(tensor * n..(tensor + 1) * n).unwrap_or_default();
            let piece = Piece {
                path: &info.name,
                from: range.start,
                taus: &slices,
                least,
            };
            self.rule.merge(&self.tasks, &piece, merged);
            tally.merged(&self.tasks, taus, merged);
            let factor = self.ramp.map_or(1.0, |ramp| ramp.factor(&info.name));
            for (base, merged) in base.iter_mut().zip(&*merged) {
                *base = (f64::from(*base) + factor * f64::from(*merged)) as f32;
            }
        }
        if !(tally.base_square + tally.merged_square).is_finite() {
            let what = "it holds a value that is no finite number, or a source does: nothing was \
                        written";
            return Err(Error::tensor(self.base.path(), &info.name, what));
        }
        pieces.put(tensor, range.start, base)?;
        Ok(tally)
    }
}

/// What a thread works in.
#[derive(Default)]
struct Buffers {
    base: Vec<f32>,
    /// A row a source.
    taus: Vec<f32>,
    merged: Vec<f32>,
    scratch: Vec<f64>,
}

impl Buffers {
    fn resize(&mut self, sources: usize, len: usize) {
        self.base.resize(len, 0.0);
        self.taus.resize(sources * len, 0.0);
        self.merged.resize(len, 0.0);
    }
}

/// What sources are called: the last part of their paths, or the whole where that is not unique.
///
/// # Errors
/// [`Error::Mismatch`] for a path that is given twice.
pub(crate) fn names<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<Vec<String>> {
    let paths: Vec<&Path> = paths.collect();
    let short = |path: &Path| {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    let mut names = Vec::with_capacity(paths.len());
    for (i, path) in paths.iter().enumerate() {
        if paths[..i].contains(path) {
            let what = format!("`{}` is given twice", path.display());
            return Err(Error::Mismatch(what));
        }
        let own = short(path);
        let alone = paths.iter().filter(|other| short(other) == own).count() == 1;
        let whole = path.to_string_lossy().into_owned();
        names.push(own.filter(|_| alone).unwrap_or(whole));
    }
    Ok(names)
}
