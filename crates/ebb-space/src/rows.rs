//! Rows: what a forward pass yields, and what an objective is evaluated on.
//!
//! Classification has a row an example, language a row a token; nothing else differs.

use crate::{Bands, Error, Result};

/// A borrowed row-major matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View<'a> {
    /// `rows × cols` values.
    pub data: &'a [f32],
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
}

impl<'a> View<'a> {
    /// A view of `data` with `cols` columns.
    ///
    /// # Errors
    /// [`Error::Length`] if `data` is not `rows × cols` long.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Result<View<'a>> {
        let expected = rows.saturating_mul(cols);
        if data.len() != expected {
            return Err(Error::Length {
                what: "a matrix",
                expected,
                found: data.len(),
            });
        }
        Ok(View { data, rows, cols })
    }

    /// Row `i`.
    #[inline]
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }
}

/// Which row this is, wherever it stands in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId {
    /// [`ExampleId::mix`](crate::ExampleId::mix) of the example.
    pub example: u64,
    /// Place inside the example: 0 for classification, the token for language.
    pub position: u32,
}

impl RowId {
    /// A 64-bit digest, the `id` that [`Key::draw`](crate::Key::draw) takes.
    #[inline]
    pub fn mix(&self) -> u64 {
        crate::key::mix64(self.example ^ crate::key::mix64(u64::from(self.position) + 1))
    }
}

/// What a pass knows of each of its rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Who each row is.
    pub ids: Vec<RowId>,
    /// The label of each row; ignored by terms without a label.
    pub labels: Vec<u32>,
    /// The support of each row, as an index into `supports`.
    pub support: Vec<u16>,
    /// Names such as `new`, `replay:a`, `replay:b`.
    pub supports: Vec<String>,
    /// Rows with `false` take no part in any term and are not counted (padding, prompt tokens).
    pub mask: Option<Vec<bool>>,
    /// A factor on each row's loss in every term. It does not enter the count of a mean, so
    /// importance weights `1/(N p)` give the unbiased estimate.
    pub weight: Option<Vec<f32>>,
    /// The class set of each row, as an index into `class_sets`; `None` allows every class.
    pub class_set: Option<Vec<u16>>,
    /// Allowed classes: a task's head, the classes seen so far.
    pub class_sets: Vec<Vec<bool>>,
}

impl Rows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Checks that all lists agree, for outputs of `classes` columns.
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::BadIndex`], naming the list.
    pub fn validate(&self, classes: usize) -> Result<()> {
        let n = self.len();
        let length = |what, found: usize, expected: usize| {
            if found == expected {
                Ok(())
            } else {
                Err(Error::Length {
                    what,
                    expected,
                    found,
                })
            }
        };
        let indices = |what, list: &[u16], len: usize| match list.iter().max() {
            Some(&max) if usize::from(max) >= len => Err(Error::BadIndex {
                what,
                index: usize::from(max),
                len,
            }),
            _ => Ok(()),
        };
        length("the list of row ids", self.ids.len(), n)?;
        length("the list of supports of rows", self.support.len(), n)?;
        length("the row mask", self.mask.as_ref().map_or(n, Vec::len), n)?;
        length(
            "the list of row weights",
            self.weight.as_ref().map_or(n, Vec::len),
            n,
        )?;
        indices(
            "the list of supports of rows",
            &self.support,
            self.supports.len(),
        )?;
        if let Some(of_row) = &self.class_set {
            length("the list of class sets of rows", of_row.len(), n)?;
            indices(
                "the list of class sets of rows",
                of_row,
                self.class_sets.len(),
            )?;
        }
        self.class_sets
            .iter()
            .try_for_each(|set| length("a class set", set.len(), classes))
    }

    /// Whether row `i` takes part.
    #[inline]
    pub fn active(&self, i: usize) -> bool {
        self.mask.as_ref().is_none_or(|mask| mask[i])
    }
}

/// What rows are compared with, aligned with the rows of the pass. Rows outside a term's support
/// are never read and may hold anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct References<'a> {
    /// Logits stored when the example was kept.
    pub stored_logits: Option<View<'a>>,
    /// Features stored when the example was kept.
    pub stored_features: Option<View<'a>>,
    /// Logits of a frozen model on the same inputs.
    pub teacher_logits: Option<View<'a>>,
    /// Features of a frozen model on the same inputs.
    pub teacher_features: Option<View<'a>>,
    /// The class centre of each row.
    pub prototypes: Option<View<'a>>,
    /// ln q of each row's label under the distribution it was sampled from.
    pub stored_log_probs: Option<&'a [f32]>,
    /// For each row the classes its teacher knew, as an index into [`Rows::class_sets`].
    pub teacher_class_set: Option<&'a [u16]>,
    /// A term's own detached factor of each row, for [`Weighting::PerRow`](crate::Weighting).
    pub row_weights: Option<&'a [f32]>,
    /// An additive bias of each row's logits, for [`Shift::PerRow`](crate::Shift).
    pub shifts: Option<View<'a>>,
    /// The bands that the row's features were in when it was kept.
    pub bands: Option<Bands<'a>>,
}

/// All that an objective looks at.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// What is known of the rows.
    pub rows: &'a Rows,
    /// The network's logits, rows × classes.
    pub logits: View<'a>,
    /// The network's features, rows × width, if a term needs them.
    pub features: Option<View<'a>>,
    /// What the rows are compared with.
    pub references: References<'a>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_disagree_are_named() {
        let id = RowId {
            example: 1,
            position: 0,
        };
        let good = Rows {
            ids: vec![id; 2],
            labels: vec![0, 1],
            support: vec![0, 1],
            supports: vec!["new".into(), "replay".into()],
            mask: Some(vec![true, false]),
            weight: Some(vec![1.0, 2.0]),
            class_set: Some(vec![0, 0]),
            class_sets: vec![vec![true; 3]],
        };
        assert_eq!(good.validate(3), Ok(()));
        assert!(good.active(0) && !good.active(1));
        let bad: [fn(&mut Rows); 7] = [
            |r| r.ids.truncate(1),
            |r| r.support.push(0),
            |r| r.support[1] = 2,
            |r| r.mask = Some(vec![]),
            |r| r.weight = Some(vec![1.0]),
            |r| r.class_set = Some(vec![0, 1]),
            |r| r.class_sets[0].truncate(2),
        ];
        for spoil in bad {
            let mut rows = good.clone();
            spoil(&mut rows);
            assert!(rows.validate(3).is_err(), "{rows:?}");
        }
    }

    #[test]
    fn row_ids_mix_both_parts() {
        let mut seen: Vec<u64> = (0..100)
            .flat_map(|example| (0..100).map(move |position| RowId { example, position }.mix()))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 10_000);
    }
}
