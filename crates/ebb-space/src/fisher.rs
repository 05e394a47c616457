//! The Fisher information, under its six names.
//!
//! Papers and their code mean different things by "the Fisher", and the scales differ by orders
//! of magnitude: the choice is always named. This file holds the part that needs no network:
//! which label each row is differentiated at, the gradient at the logits that seeds the backward
//! pass, and the exact squared per-example gradient of a linear map.

use serde::{Deserialize, Serialize};

use crate::classes::{ClassLists, place};
use crate::softmax::exps;
use crate::{Error, Key, Result, Rows, View};

/// Which diagonal Fisher: which labels the log-likelihood is differentiated at, and what is
/// squared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FisherKind {
    /// `E_x Σ_y p(y|x) (∂ln p(y|x))²`: every class, one backward pass a class.
    #[serde(rename = "exact")]
    Exact,
    /// One label drawn from p(y|x): unbiased for the exact one.
    #[serde(rename = "sampled-label")]
    Sampled,
    /// The most probable label.
    #[serde(rename = "predicted-label")]
    Predicted,
    /// The true label ("empirical Fisher"): near zero where the model fits.
    #[serde(rename = "empirical")]
    Empirical,
    /// The square of a batch's mean gradient at the true labels: not a Fisher, but what much code
    /// computes; it shrinks with the batch size.
    #[serde(rename = "batched")]
    Batched,
    /// The empirical one with each example weighted by its p(true label), as in a widely used
    /// benchmark suite.
    #[serde(rename = "p-true-weighted")]
    PTrueWeighted,
}

/// One term of a row's Fisher: `weight · (∂ln p(label))²`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The label differentiated at.
    pub label: u32,
    /// The factor on the squared gradient.
    pub weight: f32,
}

/// Reused buffers of the functions of this file.
#[derive(Clone, Debug, Default)]
pub struct FisherScratch {
    lists: ClassLists,
    z: Vec<f32>,
    e: Vec<f32>,
}

impl FisherKind {
    /// All six.
    pub const ALL: [FisherKind; 6] = [
        FisherKind::Exact,
        FisherKind::Sampled,
        FisherKind::Predicted,
        FisherKind::Empirical,
        FisherKind::Batched,
        FisherKind::PTrueWeighted,
    ];

    /// Backward passes a batch needs, for `classes` classes.
    pub fn passes(self, classes: usize) -> usize {
        if self == FisherKind::Exact {
            classes
        } else {
            1
        }
    }

    /// Whether gradients are squared example by example. If not ([`Batched`](Self::Batched)), the
    /// seeded gradients are summed over the batch and the sum is squared.
    pub fn per_example(self) -> bool {
        self != FisherKind::Batched
    }

    /// The label and weight of every row in backward pass number `pass` of
    /// [`passes`](Self::passes). Rows take part as [`Rows::active`] says and use their class set;
    /// a row that has no part in this pass gets weight 0. The weights hold no `1/n`, except that
    /// those of `Batched` are `1/n²` (n active rows), so that the squared sum of seeded gradients
    /// is the squared mean. [`Rows::weight`] is not used.
    ///
    /// # Errors
    /// Lists that disagree; a label that a row's class set excludes, for kinds that use labels;
    /// [`Error::NotFinite`] logits.
    pub fn choose(
        self,
        pass: usize,
        logits: View<'_>,
        rows: &Rows,
        key: Key,
        scratch: &mut FisherScratch,
        choices: &mut Vec<Choice>,
    ) -> Result<()> {
        scratch.begin(logits, rows)?;
        let active = (0..rows.len()).filter(|&i| rows.active(i)).count() as f32;
        choices.clear();
        for i in 0..rows.len() {
            let label = rows.labels[i];
            if !rows.active(i) {
                choices.push(Choice { label, weight: 0.0 });
                continue;
            }
            let RowSoftmax { allowed, e, sum } = scratch.row(logits, rows, i)?;
            let class = |at: usize| allowed.map_or(at as u32, |list| list[at]);
            let own = || {
                place(label, allowed, logits.cols).ok_or(Error::LabelOutsideClassSet {
                    term: "the Fisher".into(),
                    row: i,
                    label,
                })
            };
            let choice = match self {
                FisherKind::Exact => {
                    let place = place(pass as u32, allowed, logits.cols);
                    let weight = place.map_or(0.0, |at| (f64::from(e[at]) / sum) as f32);
                    Choice {
                        label: pass as u32,
                        weight,
                    }
                }
                FisherKind::Sampled => {
                    let aim = key.uniform(rows.ids[i].mix()) * sum;
                    Choice {
                        label: class(inverse_cdf(e, aim)),
                        weight: 1.0,
                    }
                }
                FisherKind::Predicted => Choice {
                    label: class(first_max(e)),
                    weight: 1.0,
                },
                FisherKind::Empirical => own().map(|_| Choice { label, weight: 1.0 })?,
                FisherKind::Batched => own().map(|_| Choice {
                    label,
                    weight: 1.0 / (active * active),
                })?,
                FisherKind::PTrueWeighted => own().map(|at| Choice {
                    label,
                    weight: (f64::from(e[at]) / sum) as f32,
                })?,
            };
            choices.push(choice);
        }
        Ok(())
    }
}

/// The gradient at the logits that seeds the backward pass of these choices:
/// `√weight · (softmax − e_label)` a row, the gradient of `−ln p(label)`. Its square carries the
/// weight, so the caller only squares and adds. Classes outside a row's set get exactly 0.
///
/// # Errors
/// As [`FisherKind::choose`].
pub fn seed_gradient(
    choices: &[Choice],
    logits: View<'_>,
    rows: &Rows,
    scratch: &mut FisherScratch,
    delta: &mut Vec<f32>,
) -> Result<()> {
    scratch.begin(logits, rows)?;
    if choices.len() != rows.len() {
        let (expected, found) = (rows.len(), choices.len());
        return Err(Error::Length {
            what: "the list of choices",
            expected,
            found,
        });
    }
    delta.clear();
    delta.resize(logits.data.len(), 0.0);
    for (i, choice) in choices
        .iter()
        .enumerate()
        .filter(|(_, choice)| choice.weight != 0.0)
    {
        let RowSoftmax { allowed, e, sum } = scratch.row(logits, rows, i)?;
        let root = f64::from(choice.weight).sqrt();
        let scale = (root / sum) as f32;
        let out = &mut delta[i * logits.cols..(i + 1) * logits.cols];
        match allowed {
            None => out.iter_mut().zip(e).for_each(|(d, e)| *d = scale * e),
            Some(list) => {
                list.iter()
                    .zip(e)
                    .for_each(|(&class, e)| out[class as usize] = scale * e);
            }
        }
        match place(choice.label, allowed, logits.cols) {
            Some(_) => out[choice.label as usize] -= root as f32,
            None => {
                let (term, label) = ("the Fisher".into(), choice.label);
                return Err(Error::LabelOutsideClassSet {
                    term,
                    row: i,
                    label,
                });
            }
        }
    }
    Ok(())
}

impl FisherScratch {
    fn begin(&mut self, logits: View<'_>, rows: &Rows) -> Result<()> {
        rows.validate(logits.cols)?;
        if logits.rows != rows.len() {
            let (expected, found) = (rows.len(), logits.rows);
            return Err(Error::Length {
                what: "the logits' rows",
                expected,
                found,
            });
        }
        self.lists.rebuild(rows)
    }

    /// The softmax of row `i` over its allowed classes.
    fn row(&mut self, logits: View<'_>, rows: &Rows, i: usize) -> Result<RowSoftmax<'_>> {
        let z = logits.row(i);
        let allowed = self.lists.of_row(rows, i);
        let z = match allowed {
            None => z,
            Some(list) => {
                self.z.clear();
                self.z.extend(list.iter().map(|&class| z[class as usize]));
                &self.z
            }
        };
        self.e.resize(z.len(), 0.0);
        let (_, sum) = exps(z, &mut self.e);
        if !sum.is_finite() {
            return Err(Error::NotFinite {
                term: "the Fisher".into(),
                row: i,
            });
        }
        Ok(RowSoftmax {
            allowed,
            e: &self.e,
            sum,
        })
    }
}

struct RowSoftmax<'a> {
    /// The classes that `e` is over; `None` for all.
    allowed: Option<&'a [u32]>,
    /// Probabilities times `sum`.
    e: &'a [f32],
    sum: f64,
}

/// The first class at which the running sum exceeds `aim`. Rounding may leave `aim` at the total:
/// then the last class of positive weight.
fn inverse_cdf(e: &[f32], aim: f64) -> usize {
    let mut sum = 0.0;
    let mut last = 0;
    for (class, &e) in e.iter().enumerate() {
        sum += f64::from(e);
        if sum > aim {
            return class;
        }
        if e > 0.0 {
            last = class;
        }
    }
    last
}

fn first_max(e: &[f32]) -> usize {
    (0..e.len()).fold(0, |best, at| if e[at] > e[best] { at } else { best })
}

/// Adds `scale · Σ_examples (∂L_example/∂W)²` of a linear map `y = W x + b` to `acc_w` (out × in,
/// row-major) and `acc_b` (out), exactly, from what a backward pass leaves behind: `delta`
/// (examples·positions × out), the gradients at y, and `input` (examples·positions × in). The
/// lengths determine out, in and the number of rows.
///
/// With `positions` of 1 an example's gradient is `δ xᵀ`, so the sum of squares is
/// `(δ∘δ)ᵀ (x∘x)`: a caller with a matrix product at hand may square both matrices and call that
/// instead. Where a layer is used at several positions of an example (convolution, tokens) the
/// gradients of the positions are summed *before* squaring, which no single product does.
///
/// # Panics
/// If the lengths fit no linear map, or the rows are not whole examples.
pub fn accumulate_linear_diagonal(
    acc_w: &mut [f32],
    acc_b: Option<&mut [f32]>,
    delta: &[f32],
    input: &[f32],
    positions: usize,
    scale: f32,
) {
    assert!(
        !acc_w.is_empty() && positions > 0,
        "a linear map needs weights and a position"
    );
    // delta·input = rows² · out · in
    let rows = (delta.len() * input.len() / acc_w.len()).isqrt();
    if rows == 0 {
        assert!(
            delta.is_empty() && input.is_empty(),
            "the lengths fit no linear map"
        );
        return;
    }
    let (outs, ins) = (delta.len() / rows, input.len() / rows);
    assert!(
        rows * outs == delta.len() && rows * ins == input.len() && outs * ins == acc_w.len(),
        "the lengths fit no linear map"
    );
    assert!(
        rows.is_multiple_of(positions),
        "the rows are not whole examples"
    );
    if let Some(acc_b) = acc_b {
        assert!(acc_b.len() == outs, "acc_b has one value an output");
        let mut sum = vec![0.0f32; outs];
        for example in delta.chunks_exact(positions * outs) {
            sum.fill(0.0);
            for position in example.chunks_exact(outs) {
                sum.iter_mut().zip(position).for_each(|(s, d)| *s += d);
            }
            acc_b
                .iter_mut()
                .zip(&sum)
                .for_each(|(acc, s)| *acc += scale * (s * s));
        }
    }
    if positions == 1 {
        squares_of_products(acc_w, delta, input, scale, outs, ins);
    } else {
        squares_of_sums(acc_w, delta, input, positions, scale, outs, ins);
    }
}

/// `acc_w += scale (δ∘δ)ᵀ (x∘x)`, four examples a sweep so that `acc_w` is touched a quarter as
/// often.
fn squares_of_products(
    acc_w: &mut [f32],
    delta: &[f32],
    input: &[f32],
    scale: f32,
    outs: usize,
    ins: usize,
) {
    let (deltas, inputs) = (delta.chunks_exact(4 * outs), input.chunks_exact(4 * ins));
    let rest = deltas
        .remainder()
        .chunks_exact(outs)
        .zip(inputs.remainder().chunks_exact(ins));
    for (delta, input) in deltas.zip(inputs) {
        let (x01, x23) = input.split_at(2 * ins);
        let ((x0, x1), (x2, x3)) = (x01.split_at(ins), x23.split_at(ins));
        for (o, acc) in acc_w.chunks_exact_mut(ins).enumerate() {
            let d: [f32; 4] = std::array::from_fn(|example| delta[example * outs + o]);
            if d == [0.0; 4] {
                continue; // a unit that none of them used, as is common after a ReLU
            }
            let [w0, w1, w2, w3] = d.map(|d| scale * (d * d));
            for ((((acc, x0), x1), x2), x3) in acc.iter_mut().zip(x0).zip(x1).zip(x2).zip(x3) {
                *acc += (w0 * (x0 * x0) + w1 * (x1 * x1)) + (w2 * (x2 * x2) + w3 * (x3 * x3));
            }
        }
    }
    for (delta, x) in rest {
        for (d, acc) in delta.iter().zip(acc_w.chunks_exact_mut(ins)) {
            let w = scale * (d * d);
            acc.iter_mut()
                .zip(x)
                .for_each(|(acc, x)| *acc += w * (x * x));
        }
    }
}

/// `acc_w += scale Σ_examples (Σ_positions δ xᵀ)²`, one output row at a time.
fn squares_of_sums(
    acc_w: &mut [f32],
    delta: &[f32],
    input: &[f32],
    positions: usize,
    scale: f32,
    outs: usize,
    ins: usize,
) {
    let mut gradient = vec![0.0f32; ins];
    let examples = delta
        .chunks_exact(positions * outs)
        .zip(input.chunks_exact(positions * ins));
    for (delta, input) in examples {
        for (o, acc) in acc_w.chunks_exact_mut(ins).enumerate() {
            gradient.fill(0.0);
            for (position, x) in input.chunks_exact(ins).enumerate() {
                let d = delta[position * outs + o];
                if d != 0.0 {
                    gradient.iter_mut().zip(x).for_each(|(g, x)| *g += d * x);
                }
            }
            acc.iter_mut()
                .zip(&gradient)
                .for_each(|(acc, g)| *acc += scale * (g * g));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RowId;

    fn random(name: &str, n: usize) -> Vec<f32> {
        let key = Key::new(3, name);
        (0..n as u64).map(|i| key.normal(i) as f32).collect()
    }

    fn rows(n: usize, classes: u32) -> Rows {
        Rows {
            ids: (0..n as u64)
                .map(|example| RowId {
                    example,
                    position: 0,
                })
                .collect(),
            labels: (0..n as u32).map(|i| i % classes).collect(),
            support: vec![0; n],
            supports: vec!["new".into()],
            ..Rows::default()
        }
    }

    fn softmax(z: &[f32]) -> Vec<f64> {
        let e: Vec<f64> = z.iter().map(|&z| f64::from(z).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.into_iter().map(|e| e / sum).collect()
    }

    #[test]
    fn linear_diagonals_are_the_loop_over_examples() {
        for (examples, positions, outs, ins) in [
            (11, 1, 5, 7),
            (4, 1, 3, 1),
            (1, 1, 1, 4),
            (6, 3, 4, 5),
            (2, 9, 1, 3),
            (3, 2, 2, 2),
        ] {
            let n = examples * positions;
            let mut delta = random("delta", n * outs);
            delta.iter_mut().step_by(3).for_each(|d| *d = 0.0);
            let input = random("input", n * ins);
            let (mut w, mut b) = (random("w", outs * ins), random("b", outs));
            let (mut want_w, mut want_b): (Vec<f64>, Vec<f64>) = (
                w.iter().map(|&v| f64::from(v)).collect(),
                b.iter().map(|&v| f64::from(v)).collect(),
            );
            for example in 0..examples {
                let at = |position: usize| example * positions + position;
                for o in 0..outs {
                    let d = |p: usize| f64::from(delta[at(p) * outs + o]);
                    want_b[o] += 0.25 * (0..positions).map(d).sum::<f64>().powi(2);
                    for i in 0..ins {
                        let g = |p: usize| d(p) * f64::from(input[at(p) * ins + i]);
                        want_w[o * ins + i] += 0.25 * (0..positions).map(g).sum::<f64>().powi(2);
                    }
                }
            }
            accumulate_linear_diagonal(&mut w, Some(&mut b), &delta, &input, positions, 0.25);
            let close = |got: &[f32], want: &[f64]| {
                got.iter()
                    .zip(want)
                    .all(|(g, w)| (f64::from(*g) - w).abs() < 2e-6 * w.abs().max(1.0))
            };
            assert!(
                close(&w, &want_w) && close(&b, &want_b),
                "{examples} {positions} {outs} {ins}"
            );
        }
    }

    #[test]
    fn an_empty_batch_adds_nothing() {
        let mut w = [1.0; 6];
        accumulate_linear_diagonal(&mut w, None, &[], &[], 1, 1.0);
        assert_eq!(w, [1.0; 6]);
    }

    /// The diagonal Fisher at the logits themselves: Σ_choices weight·(softmax − e)².
    fn at_logits(kind: FisherKind, z: &[f32], rows: &Rows, classes: usize) -> Vec<f64> {
        let logits = View::new(z, rows.len(), classes).unwrap();
        let (mut scratch, mut choices, mut delta) = Default::default();
        let mut sum = vec![0.0; z.len()];
        for pass in 0..kind.passes(classes) {
            let key = Key::new(0, "labels");
            kind.choose(pass, logits, rows, key, &mut scratch, &mut choices)
                .unwrap();
            seed_gradient(&choices, logits, rows, &mut scratch, &mut delta).unwrap();
            sum.iter_mut()
                .zip(&delta)
                .for_each(|(s, d)| *s += f64::from(*d).powi(2));
        }
        sum
    }

    #[test]
    fn each_kind_has_its_closed_form_at_the_logits() {
        let (n, k) = (6, 4);
        let (z, rows) = (random("z", n * k), rows(n, k as u32));
        for kind in FisherKind::ALL {
            let got = at_logits(kind, &z, &rows, k);
            for i in 0..n {
                let p = softmax(&z[i * k..(i + 1) * k]);
                let y = rows.labels[i] as usize;
                let top = (0..k).max_by(|&a, &b| p[a].total_cmp(&p[b])).unwrap();
                for j in 0..k {
                    let square = |y: usize| (p[j] - f64::from(y == j)).powi(2);
                    let want = match kind {
                        FisherKind::Exact => p[j] * (1.0 - p[j]), // Σ_y p_y (p_j − 1_{y=j})²
                        FisherKind::Predicted => square(top),
                        FisherKind::Empirical => square(y),
                        FisherKind::Batched => square(y) / (n * n) as f64,
                        FisherKind::PTrueWeighted => p[y] * square(y),
                        FisherKind::Sampled => {
                            // Whichever label was drawn, it is one of the four squares.
                            let got = got[i * k + j];
                            (0..k)
                                .map(square)
                                .min_by(|a, b| (a - got).abs().total_cmp(&(b - got).abs()))
                                .unwrap()
                        }
                    };
                    assert!(
                        (got[i * k + j] - want).abs() < 1e-6,
                        "{kind:?} row {i} class {j}"
                    );
                }
            }
        }
    }

    #[test]
    fn sampled_labels_follow_p_and_depend_on_the_id_alone() {
        let z = [1.0f32, 0.0, -1.0];
        let n = 30_000;
        let repeated: Vec<f32> = (0..n).flat_map(|_| z).collect();
        let mut rows = rows(n, 3);
        let logits = View::new(&repeated, n, 3).unwrap();
        let (mut scratch, mut choices) = Default::default();
        let key = Key::new(9, "labels");
        FisherKind::Sampled
            .choose(0, logits, &rows, key, &mut scratch, &mut choices)
            .unwrap();
        let p = softmax(&z);
        for class in 0..3u32 {
            let share = choices.iter().filter(|c| c.label == class).count() as f64 / n as f64;
            assert!((share - p[class as usize]).abs() < 5.0 * (0.25 / n as f64).sqrt());
        }
        let first = choices.clone();
        rows.ids.reverse();
        FisherKind::Sampled
            .choose(0, logits, &rows, key, &mut scratch, &mut choices)
            .unwrap();
        choices.reverse();
        assert_eq!(first, choices);
    }

    #[test]
    fn class_sets_confine_labels_and_gradients_and_masked_rows_vanish() {
        let k = 4;
        let z = random("z", 2 * k);
        let mut rows = rows(2, 2);
        rows.class_sets = vec![vec![false, true, true, false], vec![true; 4]];
        rows.class_set = Some(vec![0, 1]);
        rows.mask = Some(vec![true, false]);
        rows.labels = vec![2, 0];
        for kind in FisherKind::ALL {
            let got = at_logits(kind, &z, &rows, k);
            assert_eq!((got[0], got[3]), (0.0, 0.0), "{kind:?}");
            assert!(got[1] > 0.0 && got[4..] == [0.0; 4], "{kind:?}");
        }
        let p = softmax(&z[1..3]);
        let exact = at_logits(FisherKind::Exact, &z, &rows, k);
        assert!((exact[1] - p[0] * (1.0 - p[0])).abs() < 1e-6);
        rows.labels[0] = 3;
        let logits = View::new(&z, 2, k).unwrap();
        let (mut scratch, mut choices) = Default::default();
        let refused = FisherKind::Empirical.choose(
            0,
            logits,
            &rows,
            Key::new(0, ""),
            &mut scratch,
            &mut choices,
        );
        assert!(matches!(
            refused,
            Err(Error::LabelOutsideClassSet {
                row: 0,
                label: 3,
                ..
            })
        ));
    }

    #[test]
    fn names_are_the_recipes() {
        let names: Vec<String> = FisherKind::ALL
            .iter()
            .map(|k| serde_json::to_string(k).unwrap())
            .collect();
        let want = [
            "exact",
            "sampled-label",
            "predicted-label",
            "empirical",
            "batched",
            "p-true-weighted",
        ];
        assert_eq!(names, want.map(|name| format!("\"{name}\"")));
    }
}
