//! Losses of all rows of a support together: their value is one number, and each row's gradient
//! depends on the others.

use crate::bands::margin;
use crate::class_means::class_means;
use crate::contrast::{Likeness, Relatives, contrast, relation};
use crate::row::{Prepared, RowScratch, Source, log_softmax};
use crate::sinkhorn::{Transport, sinkhorn};
use crate::term::{Carrier, Combinator, Reference};
use crate::{Error, Result, Weighting};

/// What is measured over the active rows of a support at once. Each is a mean, so that its size
/// does not grow with the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BatchLoss {
    /// Entropic transport of the student's probability rows to the reference's, `⟨P, C⟩/n` with
    /// `C_ij = ‖p_i − q_j‖₁` (SinKD, S189). It may match one example with another: never use it
    /// without a loss of single rows.
    Sinkhorn {
        /// Width ε of the kernel `e^{−C/ε}`, above 0.
        epsilon: f64,
        /// Rounds of row and column normalisation, at least 1; the gradient goes through them.
        rounds: u32,
    },
    /// How like the rows' features are, as a softmax over the other rows of `cos(φ_i, φ_j)/t`. Its
    /// cross-entropy against labels is the supervised contrastive loss; against stored or a
    /// teacher's features it keeps their likenesses (HPCR's SCD, S131).
    Contrast {
        /// Temperature of the similarities, above 0.
        t: f64,
    },
    /// For each class how it ranks the rows: the mean over classes of the KL between softmaxes of
    /// a column of logits along the batch (PRD, S128).
    Relation,
    /// What the rows of a class answer together: the mean over classes of one against all between
    /// the means of their logits and of their answers, those of labels or a teacher's sigmoids
    /// (HFC, S068). A class counts by the mean of its rows' factors, where
    /// [`Weighting::PerRow`](crate::Weighting) gives them some.
    ClassMeans,
    /// How far the features lie outside of the bands they were in, the mean over those numbers that
    /// lie outside and no others (GeRe, S160). It jumps as numbers come in: watch
    /// [`Violations::rate`](crate::Violations::rate) beside it.
    Margin,
}

impl BatchLoss {
    /// Why it cannot be had of this carrier and reference, or with its own numbers.
    pub(crate) fn refuses(self, carrier: Carrier, reference: Reference) -> Option<&'static str> {
        use Reference as R;
        match self {
            BatchLoss::Sinkhorn { epsilon, rounds } => match (carrier, reference) {
                (Carrier::Probs, R::StoredLogits | R::Teacher) => {
                    let ok = epsilon > 0.0 && epsilon.is_finite() && rounds > 0;
                    (!ok).then_some("transport needs ε > 0 and at least one round")
                }
                _ => Some("transport needs the carrier probs, and stored logits or a teacher"),
            },
            BatchLoss::Contrast { t } => match (carrier, reference) {
                (Carrier::Features, R::Label | R::StoredFeatures | R::Teacher) => {
                    let ok = t > 0.0 && t.is_finite();
                    (!ok).then_some("the temperature of a contrast must be positive")
                }
                _ => Some(
                    "contrast needs the carrier features, and labels, stored features or a teacher",
                ),
            },
            BatchLoss::Relation => match (carrier, reference) {
                (Carrier::Logits, R::StoredLogits | R::Teacher) => None,
                _ => Some("the relation needs the carrier logits, and stored logits or a teacher"),
            },
            BatchLoss::Margin => match (carrier, reference) {
                (Carrier::Features, R::Bands) => None,
                _ => Some("the threshold margin needs the carrier features, and bands"),
            },
            BatchLoss::ClassMeans => match (carrier, reference) {
                (Carrier::Logits, R::Label | R::StoredLogits | R::Teacher) => None,
                _ => Some(
                    "class means need the carrier logits, and labels, stored logits or a teacher",
                ),
            },
        }
    }
}

/// Reused buffers: matrices of the batch's rows and all columns, without those masked.
#[derive(Clone, Debug, Default)]
pub(crate) struct BatchScratch {
    /// The transformed carrier.
    a: Vec<f64>,
    /// The transformed reference.
    b: Vec<f64>,
    labels: Vec<u32>,
    gradient: Vec<f64>,
    transport: Transport,
    likeness: Likeness,
}

impl Prepared<'_> {
    /// The value of `loss` on the rows `s.members` after the combinators; adds `coefficient` times
    /// its gradient to their slices of `out`.
    pub fn batch(
        &self,
        loss: BatchLoss,
        coefficient: f64,
        s: &mut RowScratch,
        out: &mut [f32],
    ) -> Result<f64> {
        let RowScratch {
            lists,
            labels,
            members,
            batch,
            allowed: buffer,
            row,
            ..
        } = s;
        let weight = &self.inputs.rows.weight;
        if (weight.as_ref()).is_some_and(|weight| members.iter().any(|&i| weight[i] != 1.0)) {
            return Err(Error::BadTerm {
                term: self.term.name.clone(),
                why: "the rows have weights, but this is a loss of the whole batch: use one of single rows, or no weights",
            });
        }
        let BatchScratch {
            a,
            b,
            labels: own_labels,
            gradient,
            transport,
            likeness,
        } = batch;
        let (n, cols) = (members.len(), self.carrier.cols);
        if cols == 0 {
            return Ok(0.0);
        }
        // What a masked entry is: no mass, or a logit of −∞.
        let masked = match loss {
            BatchLoss::Relation | BatchLoss::ClassMeans => f64::NEG_INFINITY,
            BatchLoss::Sinkhorn { .. } | BatchLoss::Contrast { .. } | BatchLoss::Margin => 0.0,
        };
        for matrix in [&mut *a, &mut *b] {
            matrix.clear();
            matrix.resize(n * cols, masked);
        }
        own_labels.clear();
        let mut chain = 1.0;
        for (at, &i) in members.iter().enumerate() {
            let allowed = self.allowed(i, lists, labels, buffer)?;
            chain = self.load(i, allowed, labels, row);
            for value in row.z.iter().chain(&row.r) {
                self.finite(i, *value)?;
            }
            if let BatchLoss::Sinkhorn { .. } = loss {
                log_softmax(&row.z, &mut row.ln_p);
                self.reference_distribution(None, row.z.len(), &row.r, &mut row.ln_q);
                row.z
                    .iter_mut()
                    .zip(&row.ln_p)
                    .for_each(|(p, ln)| *p = ln.exp());
                row.r
                    .iter_mut()
                    .zip(&row.ln_q)
                    .for_each(|(q, ln)| *q = ln.exp());
            }
            for (matrix, row) in [(&mut *a, &row.z), (&mut *b, &row.r)] {
                let into = &mut matrix[at * cols..(at + 1) * cols];
                match allowed {
                    None => into[..row.len()].copy_from_slice(row),
                    Some(list) => (list.iter().zip(row)).for_each(|(&c, v)| into[c as usize] = *v),
                }
            }
            own_labels.push(self.inputs.rows.labels[i]);
        }
        gradient.clear();
        gradient.resize(n * cols, 0.0);
        let raw = match loss {
            BatchLoss::Sinkhorn { epsilon, rounds } => {
                let value = sinkhorn(a, b, n, epsilon, rounds as usize, transport, gradient);
                // Through the softmax.
                for (g, p) in gradient.chunks_exact_mut(cols).zip(a.chunks_exact(cols)) {
                    let mean: f64 = g.iter().zip(p).map(|(g, p)| g * p).sum();
                    g.iter_mut().zip(p).for_each(|(g, p)| *g = p * (*g - mean));
                }
                value
            }
            BatchLoss::Contrast { t } => {
                let relatives = match self.reference {
                    Source::Rows(_) => Relatives::Features(b),
                    _ => Relatives::Labels(own_labels),
                };
                contrast(a, relatives, n, t, likeness, gradient)
            }
            BatchLoss::Relation => relation(a, b, n, gradient),
            BatchLoss::ClassMeans => {
                let answers = matches!(self.reference, Source::Rows(_)).then_some(&b[..]);
                let by_row = |c: &Combinator| *c == Combinator::Weight(Weighting::PerRow);
                let by_row = self.term.combinators.iter().any(by_row);
                let given = self.inputs.references.row_weights.filter(|_| by_row);
                let of_row = |w: &[f32]| members.iter().map(|&i| f64::from(w[i])).collect();
                let factors: Option<Vec<f64>> = given.map(of_row);
                class_means(a, answers, own_labels, factors.as_deref(), gradient)
            }
            BatchLoss::Margin => match &self.reference {
                Source::Bands(bands) => {
                    margin(bands, members, cols, |i| self.carrier.row(i), gradient)
                }
                _ => unreachable!("found when the term was prepared"),
            },
        };
        // Whichever row is to blame, it is one of these.
        let raw = self.finite(members[0], raw)?;
        let (value, slope) = self.combine(raw, |weighting, value| match weighting {
            Weighting::AsLabels => self.at_labels / (value + 1e-8),
            of_value => of_value.of_value(value),
        });
        let (value, slope) = (
            self.finite(members[0], value)?,
            self.finite(members[0], slope)?,
        );
        if slope != 0.0 {
            let c = coefficient * slope * chain;
            for (&i, g) in members.iter().zip(gradient.chunks_exact(cols)) {
                let out = &mut out[i * cols..(i + 1) * cols];
                out.iter_mut()
                    .zip(g)
                    .for_each(|(out, g)| *out += (c * g) as f32);
            }
        }
        Ok(value)
    }
}
