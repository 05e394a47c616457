//! Which classes a row may use: its class sets as sorted lists, so that the arithmetic runs on
//! allowed classes alone and what lies outside gets probability 0 and gradient 0 exactly.

use crate::{Error, Result, Rows};

/// The class sets of a batch as sorted lists of classes, in one reused allocation.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClassLists {
    classes: Vec<u32>,
    ends: Vec<usize>,
}

impl ClassLists {
    /// Reads the sets of `rows`.
    ///
    /// # Errors
    /// [`Error::EmptyClassSet`].
    pub fn rebuild(&mut self, rows: &Rows) -> Result<()> {
        self.classes.clear();
        self.ends.clear();
        for (index, set) in rows.class_sets.iter().enumerate() {
            let start = self.classes.len();
            self.classes.extend(
                (0u32..)
                    .zip(set)
                    .filter(|(_, allowed)| **allowed)
                    .map(|(c, _)| c),
            );
            if self.classes.len() == start {
                return Err(Error::EmptyClassSet(index));
            }
            self.ends.push(self.classes.len());
        }
        Ok(())
    }

    /// The classes of set `index`.
    pub fn list(&self, index: usize) -> &[u32] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.classes[start..self.ends[index]]
    }

    /// The classes that row `i` may use; `None` for all of them.
    pub fn of_row<'a>(&'a self, rows: &Rows, i: usize) -> Option<&'a [u32]> {
        rows.class_set
            .as_ref()
            .map(|sets| self.list(usize::from(sets[i])))
    }
}

/// How often each class occurs among the labels of a pass, over its active rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct LabelCounts {
    /// n_c, of each class.
    pub of: Vec<f64>,
    /// ln n_c.
    pub ln: Vec<f64>,
    /// Their sum.
    pub total: f64,
}

impl LabelCounts {
    /// Counts the labels of `rows`, of outputs with `cols` columns.
    ///
    /// # Errors
    /// The first row whose label has no column.
    pub fn rebuild(&mut self, rows: &Rows, cols: usize) -> Result<(), usize> {
        self.of.clear();
        self.of.resize(cols, 0.0);
        self.total = 0.0;
        for i in (0..rows.len()).filter(|&i| rows.active(i)) {
            let count = self.of.get_mut(rows.labels[i] as usize).ok_or(i)?;
            *count += 1.0;
            self.total += 1.0;
        }
        self.ln.clear();
        self.ln.extend(self.of.iter().map(|n| n.ln()));
        Ok(())
    }
}

/// Where `label` stands among the allowed classes of a row with `cols` columns.
pub(crate) fn place(label: u32, allowed: Option<&[u32]>, cols: usize) -> Option<usize> {
    match allowed {
        None => Some(label as usize).filter(|&label| label < cols),
        Some(list) => list.binary_search(&label).ok(),
    }
}
