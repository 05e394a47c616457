//! An objective: a sum of terms, evaluated on the rows of a pass with exact gradients by the
//! logits and the features. The network's backward pass is only seeded with them.

use crate::row::{Prepared, RowScratch};
use crate::term::{Carrier, Divergence, Reference, Term};
use crate::{Error, Inputs, Result, Rows};

/// A sum of terms.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// The terms.
    pub terms: Vec<Term>,
    /// How rows become one number.
    pub reduction: Reduction,
}

/// How the rows of several terms become one number. Papers differ, and it matters: with ten new
/// and thirty replayed rows the first weighs a replayed row as a new one, the second a third of
/// it. `D_k(i)` is term k's wrapped value at row i, times the row's weight; S_k are the active
/// rows of its support.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reduction {
    /// `Σ_k w_k Σ_{i∈S_k} D_k(i) / N`, with N the number of active rows that at least one term is
    /// on: cross-entropy on `new` and on `replay` is then the mean over the joined batch.
    MeanOverRows,
    /// `Σ_k w_k Σ_{i∈S_k} D_k(i) / |S_k|`: each term is a mean of its own.
    SumOfMeans,
}

/// The gradients of an objective, and the buffers of its evaluation: keep one and pass it to
/// every call, and nothing is allocated in the loop over rows.
#[derive(Clone, Debug, Default)]
pub struct CarrierGrads {
    /// ∂total/∂logits, rows × classes.
    pub logits: Vec<f32>,
    /// ∂total/∂features, rows × width, if a term looks at features.
    pub features: Option<Vec<f32>>,
    scratch: RowScratch,
    /// For each term, for each support, whether the term is on it.
    on: Vec<bool>,
}

/// What an objective came to.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectiveValue {
    /// The objective.
    pub total: f64,
    /// Each term's share of it, weight and reduction included: they add up to the total. A term
    /// without rows has exactly 0.
    pub terms: Vec<f64>,
    /// For each row the value, before any value-side combinator or weight, of the first term that
    /// compares it with its label; NaN for rows without such a term.
    pub row_loss: Vec<f32>,
}

impl Objective {
    /// Whether a term looks at the network's features.
    pub fn uses_features(&self) -> bool {
        self.terms
            .iter()
            .any(|term| term.carrier == Carrier::Features)
    }

    /// Whether a term asks a frozen model.
    pub fn uses_teacher(&self) -> bool {
        self.terms
            .iter()
            .any(|term| term.reference == Reference::Teacher)
    }

    /// Over how many rows of a batch each term's mean is taken.
    pub fn counts(&self, rows: &Rows) -> Vec<usize> {
        let on = |term: &Term, i: usize| {
            term.on
                .contains(&rows.supports[usize::from(rows.support[i])])
        };
        let active = || (0..rows.len()).filter(|&i| rows.active(i));
        let own = |term: &Term| active().filter(|&i| on(term, i)).count();
        match self.reduction {
            Reduction::SumOfMeans => self.terms.iter().map(own).collect(),
            Reduction::MeanOverRows => {
                let any = |i: &usize| self.terms.iter().any(|term| on(term, *i));
                vec![active().filter(any).count(); self.terms.len()]
            }
        }
    }

    /// Whether every term makes sense on its own.
    ///
    /// # Errors
    /// As [`Term::validate`].
    pub fn validate(&self) -> Result<()> {
        self.terms.iter().try_for_each(Term::validate)
    }

    /// The value of the objective on a pass; its gradients are left in `grads`.
    ///
    /// A term without active rows contributes exactly 0, and its references may be missing.
    ///
    /// # Errors
    /// A term that makes no sense, inputs that are missing or disagree in shape, a label outside
    /// its class set, or a loss that is not finite.
    pub fn evaluate(
        &self,
        inputs: &Inputs<'_>,
        grads: &mut CarrierGrads,
    ) -> Result<ObjectiveValue> {
        let rows = inputs.rows;
        let n = rows.len();
        let cols = inputs.logits.cols;
        rows.validate(cols)?;
        let same_rows = |what: &'static str, found: usize| {
            if found == n {
                Ok(())
            } else {
                Err(Error::Length {
                    what,
                    expected: n,
                    found,
                })
            }
        };
        same_rows("the logits' rows", inputs.logits.rows)?;
        same_rows(
            "the features' rows",
            inputs.features.map_or(n, |view| view.rows),
        )?;

        let CarrierGrads {
            logits,
            features,
            scratch,
            on,
        } = grads;
        logits.clear();
        logits.resize(n * cols, 0.0);
        let width = inputs.features.map_or(0, |view| view.cols);
        if self.uses_features() {
            let features = features.get_or_insert_default();
            features.clear();
            features.resize(n * width, 0.0);
        } else {
            *features = None;
        }
        scratch.lists.rebuild(rows)?;
        on.clear();
        for term in &self.terms {
            on.extend(rows.supports.iter().map(|name| term.on.contains(name)));
        }
        let supports = rows.supports.len();
        let is_on = |term: usize, i: usize| on[term * supports + usize::from(rows.support[i])];
        let active = || (0..n).filter(|&i| rows.active(i));
        let pooled = active()
            .filter(|&i| (0..self.terms.len()).any(|k| is_on(k, i)))
            .count();

        let mut value = ObjectiveValue {
            total: 0.0,
            terms: Vec::with_capacity(self.terms.len()),
            row_loss: vec![f32::NAN; n],
        };
        for (k, term) in self.terms.iter().enumerate() {
            let own = || active().filter(|&i| is_on(k, i));
            let count = match self.reduction {
                Reduction::MeanOverRows => pooled,
                Reduction::SumOfMeans => own().count(),
            };
            if own().next().is_none() {
                term.validate()?;
                value.terms.push(0.0);
                continue;
            }
            let earlier = self.terms.iter().zip(&value.terms);
            let at_labels = earlier.filter(|(term, _)| term.is_at_labels());
            let prepared = Prepared {
                at_labels: at_labels.map(|(_, value)| value).sum(),
                ..Prepared::new(term, inputs)?
            };
            let (out, cols) = match (term.carrier, features.as_mut()) {
                (Carrier::Features, Some(features)) => (features, width),
                _ => (&mut *logits, cols),
            };
            let coefficient = term.weight / count as f64;
            if term.counts_labels() {
                let counted = scratch.labels.rebuild(rows, inputs.logits.cols);
                counted.map_err(|row| Error::LabelOutsideClassSet {
                    term: term.name.clone(),
                    row,
                    label: rows.labels[row],
                })?;
            }
            if let Divergence::Batch(loss) = term.divergence {
                scratch.members.clear();
                scratch.members.extend(own());
                // The loss counts as the value of each of its rows.
                let coefficient = coefficient * scratch.members.len() as f64;
                let wrapped = prepared.batch(loss, coefficient, scratch, out)?;
                value.terms.push(coefficient * wrapped);
                continue;
            }
            let mut sum = 0.0;
            for i in own() {
                let out = &mut out[i * cols..(i + 1) * cols];
                let (raw, wrapped) = prepared.row(i, coefficient, scratch, out)?;
                sum += wrapped;
                if term.is_at_labels() && value.row_loss[i].is_nan() {
                    value.row_loss[i] = raw as f32;
                }
            }
            value.terms.push(coefficient * sum);
        }
        value.total = value.terms.iter().sum();
        Ok(value)
    }
}
