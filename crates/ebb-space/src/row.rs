//! One row of a term: its value and its gradient, in f64, over the allowed classes alone.

use crate::batch::BatchScratch;
use crate::bernoulli::{bernoulli, sigmoid};
use crate::bregman::squared;
use crate::classes::{ClassLists, LabelCounts, place};
use crate::divergence::forward_kl;
use crate::ranking::{Ranking, plackett_luce};
use crate::softmax::exps;
use crate::term::{Carrier, Classes, Combinator, Divergence, Estimator, Reference};
use crate::term::{Shift, Target, Term};
use crate::weighting::entropy_gap;
use crate::{
    Bands, Bregman, Error, Generator, Inputs, Key, Normalisation, Result, RowId, View, Weighting,
};

/// Reused buffers of an evaluation.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowScratch {
    pub lists: ClassLists,
    /// The labels of the pass, for a term that counts them.
    pub labels: LabelCounts,
    /// The rows of a batch loss.
    pub members: Vec<usize>,
    pub batch: BatchScratch,
    pub allowed: Vec<u32>,
    pub row: RowBuffers,
    z32: Vec<f32>,
    e32: Vec<f32>,
}

/// What is known of one row, over its allowed classes.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowBuffers {
    /// The transformed carrier.
    pub z: Vec<f64>,
    /// The transformed reference.
    pub r: Vec<f64>,
    pub ln_p: Vec<f64>,
    pub ln_q: Vec<f64>,
    /// n_c/n, where labels are counted.
    share: Vec<f64>,
    ranking: Ranking,
    /// ∂value/∂z.
    gradient: Vec<f64>,
}

/// A term on its way through the rows of one batch: what it needs was found and fits.
pub(crate) struct Prepared<'a> {
    pub term: &'a Term,
    pub inputs: &'a Inputs<'a>,
    pub carrier: View<'a>,
    pub reference: Source<'a>,
    /// What the terms at labels before this one came to.
    pub at_labels: f64,
}

pub(crate) enum Source<'a> {
    Nothing,
    Rows(View<'a>),
    LogProbs(&'a [f32]),
    Bands(Bands<'a>),
}

impl<'a> Prepared<'a> {
    /// # Errors
    /// A term whose choices do not fit together, or a reference that is missing or misshapen.
    pub fn new(term: &'a Term, inputs: &'a Inputs<'a>) -> Result<Prepared<'a>> {
        term.validate()?;
        let missing = |what: &'static str| Error::MissingInput {
            term: term.name.clone(),
            what,
        };
        let refs = &inputs.references;
        let on_features = term.carrier == Carrier::Features;
        let carrier = if on_features {
            inputs
                .features
                .ok_or_else(|| missing("the network's features"))?
        } else {
            inputs.logits
        };
        let like_carrier = |view: Option<View<'a>>, what: &'static str| {
            let view = view.ok_or_else(|| missing(what))?;
            if (view.rows, view.cols) != (carrier.rows, carrier.cols) {
                return Err(Error::Length {
                    what,
                    expected: carrier.data.len(),
                    found: view.data.len(),
                });
            }
            Ok(view)
        };
        let a_row = |list: Option<&'a [f32]>, what: &'static str| {
            let list = list.ok_or_else(|| missing(what))?;
            if list.len() != carrier.rows {
                return Err(Error::Length {
                    what,
                    expected: carrier.rows,
                    found: list.len(),
                });
            }
            Ok(list)
        };
        let reference = match term.reference {
            Reference::Label | Reference::Uniform | Reference::Zero => Source::Nothing,
            Reference::StoredLogits => {
                Source::Rows(like_carrier(refs.stored_logits, "stored logits")?)
            }
            Reference::StoredFeatures => {
                Source::Rows(like_carrier(refs.stored_features, "stored features")?)
            }
            Reference::Teacher if on_features => {
                Source::Rows(like_carrier(refs.teacher_features, "a teacher's features")?)
            }
            Reference::Teacher => {
                Source::Rows(like_carrier(refs.teacher_logits, "a teacher's logits")?)
            }
            Reference::Prototype => {
                Source::Rows(like_carrier(refs.prototypes, "class prototypes")?)
            }
            Reference::Bands => {
                let bands = refs
                    .bands
                    .ok_or_else(|| missing("the bands of kept rows"))?;
                bands.fits(carrier.rows, carrier.cols)?;
                Source::Bands(bands)
            }
            Reference::StoredLogProbs => {
                Source::LogProbs(a_row(refs.stored_log_probs, "stored log-probabilities")?)
            }
        };
        for combinator in &term.combinators {
            match combinator {
                Combinator::Weight(Weighting::PerRow) => {
                    a_row(refs.row_weights, "the term's row weights")?;
                }
                Combinator::Shift(Shift::PerRow) => {
                    like_carrier(refs.shifts, "the shift of each row's logits")?;
                }
                Combinator::Shift(Shift::PerClass(b)) if b.len() != carrier.cols => {
                    let (expected, found) = (carrier.cols, b.len());
                    return Err(Error::Length {
                        what: "the shift of the logits",
                        expected,
                        found,
                    });
                }
                Combinator::Mask(Classes::Only(set)) | Combinator::Known(set)
                    if set.len() != carrier.cols =>
                {
                    let (expected, found) = (carrier.cols, set.len());
                    return Err(Error::Length {
                        what: "a term's class mask",
                        expected,
                        found,
                    });
                }
                Combinator::Mask(Classes::Set(set))
                    if usize::from(*set) >= inputs.rows.class_sets.len() =>
                {
                    let (index, len) = (usize::from(*set), inputs.rows.class_sets.len());
                    return Err(Error::BadIndex {
                        what: "a term's class mask",
                        index,
                        len,
                    });
                }
                Combinator::Mask(Classes::Teacher) => {
                    let what = "the classes each row's teacher knew";
                    let of_row = refs.teacher_class_set.ok_or_else(|| missing(what))?;
                    if of_row.len() != carrier.rows {
                        let (expected, found) = (carrier.rows, of_row.len());
                        return Err(Error::Length {
                            what,
                            expected,
                            found,
                        });
                    }
                    let (max, len) = (of_row.iter().max(), inputs.rows.class_sets.len());
                    if let Some(&index) = max.filter(|max| usize::from(**max) >= len) {
                        return Err(Error::BadIndex {
                            what,
                            index: index.into(),
                            len,
                        });
                    }
                }
                _ => {}
            }
        }
        Ok(Prepared {
            term,
            inputs,
            carrier,
            reference,
            at_labels: 0.0,
        })
    }

    /// The value of row `i` before the value-side combinators, and the contribution after them;
    /// adds `coefficient · ∂contribution/∂carrier` to the row's slice `out` of the gradient.
    pub fn row(
        &self,
        i: usize,
        coefficient: f64,
        s: &mut RowScratch,
        out: &mut [f32],
    ) -> Result<(f64, f64)> {
        let RowScratch {
            lists,
            labels,
            allowed: buffer,
            ..
        } = s;
        let allowed = self.allowed(i, lists, labels, buffer)?;
        if self.term.is_plain_cross_entropy() {
            let at = self.label_place(i, allowed)?;
            let z = gather(self.carrier.row(i), allowed, &mut s.z32);
            s.e32.resize(z.len(), 0.0);
            let (max, sum) = exps(z, &mut s.e32);
            let raw = self.finite(i, sum.ln() + (f64::from(max) - f64::from(z[at])))?;
            let (value, slope) = self.wrap(i, raw, &s.row)?;
            if slope != 0.0 {
                let c = coefficient * slope;
                let scale = (c / sum) as f32;
                match allowed {
                    None => out
                        .iter_mut()
                        .zip(&s.e32)
                        .for_each(|(g, e)| *g += scale * e),
                    Some(list) => (list.iter().zip(&s.e32))
                        .for_each(|(&class, e)| out[class as usize] += scale * e),
                }
                out[self.inputs.rows.labels[i] as usize] -= c as f32;
            }
            return Ok((raw, value));
        }
        let b = &mut s.row;
        let chain = self.load(i, allowed, labels, b);
        let label = self.label(i, allowed)?;
        let raw = self.finite(i, self.compare(i, label, b))?;
        let (value, slope) = self.wrap(i, raw, b)?;
        if slope != 0.0 {
            let c = coefficient * slope * chain;
            match allowed {
                None => out
                    .iter_mut()
                    .zip(&b.gradient)
                    .for_each(|(g, d)| *g += (c * d) as f32),
                Some(list) => (list.iter().zip(&b.gradient))
                    .for_each(|(&class, d)| out[class as usize] += (c * d) as f32),
            }
        }
        Ok((raw, value))
    }

    /// Fills `b` with row `i` over the allowed classes, its carrier and its reference transformed;
    /// returns ∂(transformed carrier)/∂carrier.
    pub fn load(
        &self,
        i: usize,
        allowed: Option<&[u32]>,
        labels: &LabelCounts,
        b: &mut RowBuffers,
    ) -> f64 {
        let RowBuffers { z, r, share, .. } = b;
        widen(self.carrier.row(i), allowed, z);
        r.clear();
        match self.reference {
            Source::Rows(view) => widen(view.row(i), allowed, r),
            _ if self.term.reference == Reference::Zero => r.resize(z.len(), 0.0),
            _ => {}
        }
        if self.term.squared() == Some(Normalisation::LabelMean) {
            share.clear();
            let of = |class: usize| labels.of[class] / labels.total;
            match allowed {
                None => share.extend((0..z.len()).map(of)),
                Some(list) => share.extend(list.iter().map(|&class| of(class as usize))),
            }
        }
        let mut chain = 1.0;
        for combinator in &self.term.combinators {
            match combinator {
                Combinator::Temper { t, .. } => {
                    chain /= t;
                    z.iter_mut().chain(&mut *r).for_each(|v| *v /= t);
                }
                Combinator::Shift(shift) => match (shift, self.inputs.references.shifts) {
                    (Shift::PerClass(bias), _) => {
                        add(z, allowed, |class| f64::from(bias[class]));
                    }
                    (Shift::PerRow, Some(view)) => {
                        let bias = view.row(i);
                        add(z, allowed, |class| f64::from(bias[class]));
                    }
                    (Shift::PerRow, None) => unreachable!("found when the term was prepared"),
                    (Shift::BatchCounts, _) => add(z, allowed, |class| labels.ln[class]),
                },
                Combinator::Known(set) => add(r, allowed, |class| match set[class] {
                    true => 0.0,
                    false => f64::NEG_INFINITY,
                }),
                Combinator::Scramble(key) => {
                    let label = place(self.inputs.rows.labels[i], allowed, self.carrier.cols);
                    scramble(r, label, *key, self.inputs.rows.ids[i]);
                }
                _ => {}
            }
        }
        chain
    }

    /// D and its gradient by the transformed carrier.
    fn compare(&self, i: usize, label: Option<usize>, b: &mut RowBuffers) -> f64 {
        let term = self.term;
        let RowBuffers {
            z,
            r,
            ln_p,
            ln_q,
            share,
            ranking,
            gradient,
        } = b;
        gradient.clear();
        gradient.resize(z.len(), 0.0);
        match (term.carrier, term.divergence) {
            (Carrier::Logits | Carrier::Features, Divergence::Bregman(Bregman::Squared(scale))) => {
                return squared(z, r, scale, share, gradient);
            }
            (_, Divergence::Bernoulli) if r.is_empty() => {
                let one_hot = |class| {
                    if Some(class) == label {
                        (1.0, 0.0)
                    } else {
                        (0.0, 1.0)
                    }
                };
                return bernoulli(z, one_hot, gradient);
            }
            (_, Divergence::Bernoulli) => {
                let soft = |class: usize| (sigmoid(r[class]), sigmoid(-r[class]));
                return bernoulli(z, soft, gradient);
            }
            (_, Divergence::PlackettLuce(choices)) => {
                return plackett_luce(z, r, label, choices, ranking, gradient);
            }
            _ => {}
        }
        log_softmax(z, ln_p);
        self.reference_distribution(label, z.len(), r, ln_q);
        match (term.estimator, term.divergence) {
            (Estimator::ReferenceSampled, Divergence::F(generator)) => {
                let at = label.unwrap_or_default();
                let lq = match self.reference {
                    Source::LogProbs(stored) => f64::from(stored[i]),
                    _ => ln_q[at],
                };
                let (value, slope) = generator.sampled(ln_p[at] - lq);
                gradient
                    .iter_mut()
                    .zip(&*ln_p)
                    .for_each(|(g, lp)| *g = -slope * lp.exp());
                gradient[at] += slope;
                value
            }
            (Estimator::LocalQuadratic, Divergence::F(generator)) => {
                let curvature = generator.second().unwrap_or_default();
                let each = || {
                    z.iter()
                        .zip(&*r)
                        .zip(&*ln_q)
                        .map(|((z, r), lq)| (z - r, lq.exp()))
                };
                let mean: f64 = each().map(|(d, q)| q * d).sum();
                let mut value = 0.0;
                for (g, (d, q)) in gradient.iter_mut().zip(each()) {
                    *g = curvature * q * (d - mean);
                    value += 0.5 * *g * (d - mean);
                }
                value
            }
            (_, Divergence::F(generator)) => generator.exact(ln_p, ln_q, gradient),
            (_, Divergence::Bregman(Bregman::LogSumExp)) => {
                Generator::ForwardKl.exact(ln_p, ln_q, gradient)
            }
            (_, Divergence::CrossEntropy) => {
                let (kl, entropy) = forward_kl(ln_p, ln_q, gradient);
                kl + entropy
            }
            (_, Divergence::Bregman(Bregman::Squared(scale))) => {
                // On probabilities: through the softmax.
                z.iter_mut().zip(&*ln_p).for_each(|(z, lp)| *z = lp.exp());
                ln_q.iter_mut().for_each(|q| *q = q.exp());
                let value = squared(z, ln_q, scale, share, gradient);
                let mean: f64 = z.iter().zip(&*gradient).map(|(p, g)| p * g).sum();
                gradient
                    .iter_mut()
                    .zip(&*z)
                    .for_each(|(g, p)| *g = p * (*g - mean));
                value
            }
            (_, Divergence::Bernoulli | Divergence::PlackettLuce(_) | Divergence::Batch(_)) => {
                unreachable!("returned above, or evaluated over the batch")
            }
        }
    }

    /// ln q over the allowed classes, after the targets.
    pub fn reference_distribution(
        &self,
        label: Option<usize>,
        n: usize,
        r: &[f64],
        ln_q: &mut Vec<f64>,
    ) {
        match (&self.reference, self.term.reference) {
            (Source::Rows(_), _) => log_softmax(r, ln_q),
            (_, Reference::Uniform) => {
                ln_q.clear();
                ln_q.resize(n, -(n as f64).ln());
            }
            _ => {
                ln_q.clear();
                ln_q.resize(n, f64::NEG_INFINITY);
                if let Some(at) = label {
                    ln_q[at] = 0.0;
                }
            }
        }
        for combinator in &self.term.combinators {
            match combinator {
                Combinator::Target(Target::Smooth(e)) => ln_q
                    .iter_mut()
                    .for_each(|lq| *lq = ((1.0 - e) * lq.exp() + e / n as f64).ln()),
                Combinator::Target(Target::Amplify(gamma)) => {
                    for (class, lq) in ln_q.iter_mut().enumerate() {
                        let one = f64::from(Some(class) == label);
                        *lq = ((lq.exp() + one).powf(*gamma) - one).ln();
                    }
                }
                _ => {}
            }
        }
    }

    /// What the value-side combinators and the row's weight make of the raw value, and the slope
    /// by it.
    fn wrap(&self, i: usize, raw: f64, b: &RowBuffers) -> Result<(f64, f64)> {
        let (mut value, mut slope) = self.combine(raw, |weighting, value| match weighting {
            Weighting::PerRow => {
                let weights = self.inputs.references.row_weights;
                weights.map_or(1.0, |weights| f64::from(weights[i]))
            }
            Weighting::EntropyGap { kappa } => entropy_gap(kappa, &b.ln_p, &b.ln_q),
            of_value => of_value.of_value(value),
        });
        if let Some(weight) = &self.inputs.rows.weight {
            value *= f64::from(weight[i]);
            slope *= f64::from(weight[i]);
        }
        self.finite(i, slope)?;
        Ok((self.finite(i, value)?, slope))
    }

    /// The value-side combinators alone; `weigh` gives the factor of a weighting at the value so
    /// far.
    pub fn combine(&self, raw: f64, weigh: impl Fn(Weighting, f64) -> f64) -> (f64, f64) {
        let (mut value, mut slope) = (raw, 1.0);
        for combinator in &self.term.combinators {
            let factor = match combinator {
                Combinator::Scale(c) => *c,
                Combinator::Temper { t, squared: true } => t * t,
                Combinator::Weight(weighting) => weigh(*weighting, value),
                Combinator::Gate(tau) => {
                    (value, slope) = if value > *tau {
                        (value - tau, slope)
                    } else {
                        (0.0, 0.0)
                    };
                    continue;
                }
                Combinator::Root => {
                    value = (2.0 * value).sqrt();
                    slope = if value > 0.0 { slope / value } else { 0.0 };
                    continue;
                }
                _ => continue,
            };
            value *= factor;
            slope *= factor;
        }
        (value, slope)
    }

    /// The classes that row `i` may use; `None` for all of them.
    pub fn allowed<'b>(
        &'b self,
        i: usize,
        lists: &'b ClassLists,
        labels: &'b LabelCounts,
        buffer: &'b mut Vec<u32>,
    ) -> Result<Option<&'b [u32]>> {
        let mut masks = self.term.combinators.iter().filter_map(|c| match c {
            Combinator::Mask(Classes::Row) => lists.of_row(self.inputs.rows, i).map(Mask::List),
            Combinator::Mask(Classes::Teacher) => (self.inputs.references.teacher_class_set)
                .map(|sets| Mask::List(lists.list(usize::from(sets[i])))),
            Combinator::Mask(Classes::Set(set)) => Some(Mask::List(lists.list(usize::from(*set)))),
            Combinator::Mask(Classes::Only(set)) => Some(Mask::Flags(set)),
            Combinator::Shift(Shift::BatchCounts) => Some(Mask::Counts(&labels.of)),
            _ => None,
        });
        let Some(first) = masks.next() else {
            return Ok(None);
        };
        let second = masks.next();
        if let (Mask::List(list), None) = (&first, &second) {
            return Ok(Some(list)); // the usual case: a list that exists already
        }
        buffer.clear();
        match first {
            Mask::List(list) => buffer.extend_from_slice(list),
            Mask::Flags(set) => {
                buffer.extend((0u32..).zip(set).filter(|(_, ok)| **ok).map(|(c, _)| c))
            }
            Mask::Counts(of) => {
                buffer.extend((0u32..).zip(of).filter(|(_, n)| **n > 0.0).map(|(c, _)| c))
            }
        }
        for mask in second.into_iter().chain(masks) {
            buffer.retain(|class| match &mask {
                Mask::List(list) => list.binary_search(class).is_ok(),
                Mask::Flags(set) => set[*class as usize],
                Mask::Counts(of) => of[*class as usize] > 0.0,
            });
        }
        if buffer.is_empty() {
            return Err(Error::NoClassLeft {
                term: self.term.name.clone(),
                row: i,
            });
        }
        Ok(Some(buffer))
    }

    /// Where the row's label stands among the allowed classes, for terms that look at it.
    fn label(&self, i: usize, allowed: Option<&[u32]>) -> Result<Option<usize>> {
        let amplifies = |c: &Combinator| matches!(c, Combinator::Target(Target::Amplify(_)));
        let may_be_masked = match self.term.divergence {
            Divergence::Bernoulli => self.term.reference == Reference::Label,
            Divergence::PlackettLuce(_) => true,
            _ => false,
        };
        if may_be_masked {
            self.label_place(i, None)?; // it must be a class at all
            return Ok(place(
                self.inputs.rows.labels[i],
                allowed,
                self.carrier.cols,
            ));
        }
        let needed = self.term.reference == Reference::Label
            || self.term.estimator == Estimator::ReferenceSampled
            || self.term.combinators.iter().any(amplifies);
        needed.then(|| self.label_place(i, allowed)).transpose()
    }

    fn label_place(&self, i: usize, allowed: Option<&[u32]>) -> Result<usize> {
        let label = self.inputs.rows.labels[i];
        place(label, allowed, self.carrier.cols).ok_or_else(|| Error::LabelOutsideClassSet {
            term: self.term.name.clone(),
            row: i,
            label,
        })
    }

    pub fn finite(&self, i: usize, value: f64) -> Result<f64> {
        if value.is_finite() {
            Ok(value)
        } else {
            Err(Error::NotFinite {
                term: self.term.name.clone(),
                row: i,
            })
        }
    }
}

enum Mask<'a> {
    List(&'a [u32]),
    Flags(&'a [bool]),
    Counts(&'a [f64]),
}

/// The allowed classes of a row in f64.
fn widen(row: &[f32], allowed: Option<&[u32]>, into: &mut Vec<f64>) {
    into.clear();
    match allowed {
        None => into.extend(row.iter().map(|&v| f64::from(v))),
        Some(list) => into.extend(list.iter().map(|&class| f64::from(row[class as usize]))),
    }
}

/// Adds a bias by class.
fn add(z: &mut [f64], allowed: Option<&[u32]>, bias: impl Fn(usize) -> f64) {
    match allowed {
        None => (0..).zip(z).for_each(|(class, z)| *z += bias(class)),
        Some(list) => (list.iter().zip(z)).for_each(|(&class, z)| *z += bias(class as usize)),
    }
}

/// Permutes `r` but for place `label`, as the key draws it for row `id` (Fisher–Yates).
fn scramble(r: &mut [f64], label: Option<usize>, key: Key, id: RowId) {
    let others = r.len() - usize::from(label.is_some());
    let place = |n: usize| n + usize::from(label.is_some_and(|label| n >= label));
    for n in (1..others).rev() {
        let draw = RowId {
            example: id.mix(),
            position: n as u32,
        };
        let with = key.draw(draw.mix()) % (n as u64 + 1);
        r.swap(place(n), place(with as usize));
    }
}

fn gather<'a>(row: &'a [f32], allowed: Option<&[u32]>, buffer: &'a mut Vec<f32>) -> &'a [f32] {
    let Some(list) = allowed else { return row };
    buffer.clear();
    buffer.extend(list.iter().map(|&class| row[class as usize]));
    buffer
}

pub(crate) fn log_softmax(z: &[f64], out: &mut Vec<f64>) {
    let max = z
        .iter()
        .fold(f64::NEG_INFINITY, |max, &z| if z > max { z } else { max });
    let lse = max + z.iter().map(|z| (z - max).exp()).sum::<f64>().ln();
    out.clear();
    out.extend(z.iter().map(|z| z - lse));
}
