use std::path::Path;
use std::sync::Arc;

use ebb_space::{Layout, Weights};

use crate::error::{Error, Result};

/// Name and shape of a tensor of a model file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name that `transformers` gives it, such as `model.norm.weight`.
    pub name: String,
    /// Its shape, the slowest dimension first.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// Number of values.
    pub fn values(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Named tensors that lie in files and are converted to `f32` when they are read.
pub trait Tensors {
    /// Where they lie, for messages.
    fn path(&self) -> &Path;

    /// Every tensor, sorted by name.
    fn tensors(&self) -> &[TensorInfo];

    /// Reads one tensor.
    ///
    /// # Errors
    /// [`Error::Tensor`] if there is none of this name or `values` has another length.
    fn read_into(&self, name: &str, values: &mut [f32]) -> Result<()>;

    /// Reads `values.len()` values of a tensor, from the one at `from` on. What was read need not
    /// stay in memory.
    ///
    /// # Errors
    /// [`Error::Tensor`] if there is none of this name, or not so many values.
    fn read_range_into(&self, name: &str, from: usize, values: &mut [f32]) -> Result<()>;

    /// Whether a part of the tensor costs a part of its time.
    fn has_ranges(&self, _name: &str) -> bool {
        true
    }

    /// The tensor called `name`.
    fn find(&self, name: &str) -> Option<&TensorInfo> {
        let tensors = self.tensors();
        let at = tensors
            .binary_search_by(|t| t.name.as_str().cmp(name))
            .ok()?;
        tensors.get(at)
    }

    /// Reads one tensor into memory of its own.
    ///
    /// # Errors
    /// [`Error::Tensor`] if there is none of this name.
    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let info = self.find(name).ok_or_else(|| absent(self.path(), name))?;
        let mut values = vec![0.0; info.values()];
        self.read_into(name, &mut values)?;
        Ok(values)
    }

    /// Reads the tensors of `layout`, by name; others stay where they are.
    ///
    /// # Errors
    /// [`Error::Tensor`] naming the first that is missing or of another shape.
    fn load(&self, layout: &Arc<Layout>) -> Result<Weights> {
        let mut weights = Weights::zeros(layout);
        for entry in layout.entries() {
            let path = &entry.path;
            let info = self.find(path).ok_or_else(|| absent(self.path(), path))?;
            if info.shape != entry.shape {
                let what = format!(
                    "it has the shape {:?} and the model needs {:?}: the configuration belongs to \
                     another model",
                    info.shape, entry.shape
                );
                return Err(Error::tensor(self.path(), path, what));
            }
            self.read_into(path, &mut weights.as_mut_slice()[entry.range.clone()])?;
        }
        Ok(weights)
    }

    /// Reads everything, sorted by name.
    ///
    /// # Errors
    /// [`Error::Tensor`], [`Error::Damaged`].
    fn load_all(&self) -> Result<Weights> {
        let entries = self.tensors().iter().cloned();
        let layout = Layout::new(entries.map(|t| (t.name, t.shape)))
            .map_err(|e| Error::damaged(self.path(), e.to_string()))?;
        self.load(&layout)
    }
}

pub(crate) fn absent(path: &Path, name: &str) -> Error {
    Error::tensor(
        path,
        name,
        "there is no such tensor: the files belong to another model",
    )
}

/// Refuses a range that reaches out of a tensor.
pub(crate) fn within(path: &Path, info: &TensorInfo, from: usize, values: &[f32]) -> Result<()> {
    let end = from.checked_add(values.len());
    if end.is_some_and(|end| end <= info.values()) {
        return Ok(());
    }
    let what = format!(
        "it has {} values and {} from {from} on were asked for",
        info.values(),
        values.len()
    );
    Err(Error::tensor(path, &info.name, what))
}

pub(crate) fn same_length(path: &Path, info: &TensorInfo, values: &[f32]) -> Result<()> {
    if values.len() == info.values() {
        return Ok(());
    }
    let what = format!(
        "it has {} values and {} were asked for",
        info.values(),
        values.len()
    );
    Err(Error::tensor(path, &info.name, what))
}
