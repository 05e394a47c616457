//! Gradients example by example, in evaluation mode.
//!
//! Where every parameter sits in a linear layer, an example's gradient there is `δ aᵀ`, with `δ`
//! at the layer's output and `a` at its input. One backward pass gives both for every row, so
//! sums of functions of per-example gradients and their inner products need no pass an example.
//! Other networks go example by example.

use crate::batch::Batch;
use crate::error::Result;
use crate::oracle::Oracle;
use burn::tensor::{Tensor, TensorData};
use ebb_kernels::gemm::{Mat, matmul};
use ebb_kernels::{seed, slices};
use ebb_net::{LinearSite, Mode, Taps};
use ebb_space::{FisherKind, FisherScratch, Key, Rows, View, Weights, seed_gradient};

/// Calls `visit` with every linear layer, and `δ` (`[rows, outputs]`) and `a` (`[rows, inputs]`)
/// of all rows there, where `by_logits` makes the derivative by the logits from the logits, a row
/// by itself. Returns whether it did: not in a network with other layers.
///
/// # Errors
/// Those of `by_logits`.
pub fn layers(
    oracle: &mut Oracle,
    batch: &Batch,
    by_logits: impl FnOnce(&[f32]) -> Result<Vec<f32>>,
    mut visit: impl FnMut(&LinearSite, &[f32], &[f32]),
) -> Result<bool> {
    let sites = oracle.model.linear_sites();
    let Some(sites) = sites.filter(|s| s.iter().all(|s| s.positions == 1)) else {
        return Ok(false);
    };
    let mut taps = Taps::none();
    for site in &sites {
        taps = taps.read(&site.input).differentiate(&site.output);
    }
    let leaves = oracle.model.leaves(None);
    let out = oracle
        .model
        .forward_tracked(&leaves, batch.x.clone(), Mode::Eval, &mut taps);
    let shape = out.logits.dims();
    let start = TensorData::new(slices::read(&out.logits, by_logits)?, shape);
    let start = Tensor::<2>::from_data(start, oracle.model.device());
    let mut gradients = seed(out.logits, start).backward();
    oracle.meter.gradient_calls += 1;
    oracle.meter.forward_rows += shape[0] as u64;
    oracle.meter.backward_rows += shape[0] as u64;
    for site in &sites {
        if let (Some(input), Some(delta)) = (
            taps.value(&site.input),
            taps.gradient(&site.output, &mut gradients),
        ) {
            slices::read(input, |a| slices::read(&delta, |d| visit(site, d, a)));
        }
    }
    Ok(true)
}

/// Calls `visit` with the gradient of each row in turn: a pass an example, in any network.
///
/// # Errors
/// Those of `by_logits`.
pub fn one_by_one(
    oracle: &mut Oracle,
    batch: &Batch,
    by_logits: impl FnOnce(&[f32]) -> Result<Vec<f32>>,
    mut visit: impl FnMut(&Weights),
) -> Result<()> {
    let (logits, _) = oracle.forward(batch);
    let starts = by_logits(&logits)?;
    let outputs = oracle.model.network().outputs();
    let mut gradient = Weights::zeros(oracle.model.layout());
    for (i, start) in starts.chunks_exact(outputs).enumerate() {
        oracle.pull_back(&batch.part(i..i + 1), |_| start.to_vec(), &mut gradient);
        visit(&gradient);
    }
    Ok(())
}

/// The derivative of each row's cross-entropy at its label by its logits.
fn at_labels(rows: &Rows, logits: &[f32]) -> Result<Vec<f32>> {
    let (n, kind) = (rows.len(), FisherKind::Empirical);
    let z = View::new(logits, n, logits.len() / n.max(1))?;
    let mut scratch = FisherScratch::default();
    let (mut labels, mut delta) = (Vec::new(), Vec::new());
    // The labels are the true ones: no draw is made with the key.
    let key = Key::new(0, "");
    kind.choose(0, z, rows, key, &mut scratch, &mut labels)?;
    seed_gradient(&labels, z, rows, &mut scratch, &mut delta)?;
    Ok(delta)
}

/// The inner products `⟨g_i, g_j⟩` of the cross-entropy gradients of a batch's rows.
pub struct Gram {
    rows: usize,
    products: Vec<f64>,
}

impl Gram {
    /// Those of `batch`: one backward pass where every parameter sits in a linear layer, by
    /// `⟨δ aᵀ, δ' a'ᵀ⟩ = ⟨δ, δ'⟩ ⟨a, a'⟩`, and otherwise one and a kept gradient a row.
    ///
    /// # Errors
    /// When a label lies outside its row's classes or the logits are not finite.
    pub fn of(oracle: &mut Oracle, batch: &Batch) -> Result<Gram> {
        let n = batch.rows.len();
        let mut products = vec![0.0; n * n];
        let (mut outer, mut inner) = (vec![0.0; n * n], vec![0.0; n * n]);
        let start = |z: &[f32]| at_labels(&batch.rows, z);
        let linear = layers(oracle, batch, start, |site, delta, input| {
            let (d, a) = (
                Mat::new(delta, n, site.outputs),
                Mat::new(input, n, site.inputs),
            );
            matmul(&mut outer, d, d.t(), false);
            matmul(&mut inner, a, a.t(), false);
            let bias = f64::from(u8::from(site.bias.is_some()));
            for ((p, d), a) in products.iter_mut().zip(&outer).zip(&inner) {
                *p += f64::from(*d) * (f64::from(*a) + bias);
            }
        })?;
        if !linear {
            let mut gradients: Vec<Weights> = Vec::with_capacity(n);
            one_by_one(oracle, batch, start, |g| gradients.push(g.clone()))?;
            for (i, a) in gradients.iter().enumerate() {
                for (j, b) in gradients.iter().enumerate().skip(i) {
                    let product = a.dot(b);
                    products[i * n + j] = product;
                    products[j * n + i] = product;
                }
            }
        }
        Ok(Gram { rows: n, products })
    }

    /// The greatest cosine between the mean gradient of rows `a` and those of `groups` of rows; 0
    /// where one of the two is 0.
    pub fn nearest(&self, a: &[usize], groups: &[Vec<usize>]) -> f64 {
        let own = self.product(a, a);
        let cosine = |group: &Vec<usize>| {
            let norms = (own * self.product(group, group)).sqrt();
            if norms > 0.0 {
                self.product(a, group) / norms
            } else {
                0.0
            }
        };
        groups.iter().map(cosine).fold(-1.0, f64::max)
    }

    /// The inner product of the summed gradients of rows `a` and of rows `b`.
    fn product(&self, a: &[usize], b: &[usize]) -> f64 {
        let row = |i: &usize| -> f64 { b.iter().map(|j| self.products[i * self.rows + j]).sum() };
        a.iter().map(row).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Collect;
    use burn::tensor::Device;
    use ebb_net::{ActivationKind, HeadKind, Init, Model, NetworkSpec};
    use ebb_space::{ExampleId, Objective, Reduction, presets};

    /// Against gradients taken row by row of the objective, on networks with and without other
    /// layers, with two heads and with sets of classes.
    #[test]
    fn inner_products_are_those_of_gradients_taken_one_at_a_time() {
        let mlp = NetworkSpec::Mlp {
            hidden: vec![7, 5],
            activation: ActivationKind::Tanh,
            dropout: 0.0,
            init: Init::He,
            standardise: false,
            head: HeadKind::default(),
        };
        let cnn = NetworkSpec::Cnn {
            channels: vec![2],
            depth: 1,
            hidden: 3,
            norm: false,
            dropout: 0.0,
            init: Init::He,
            head: HeadKind::default(),
        };
        let cross_entropy = Objective {
            terms: vec![presets::cross_entropy("all")],
            reduction: Reduction::MeanOverRows,
        };
        for spec in [mlp, cnn] {
            let network = spec.build_heads([1, 4, 4], 2, 2).expect("a network");
            let model = Model::new(network, Key::new(1, "gram"), &Device::flex());
            let mut c = Collect::default();
            c.support("all");
            for i in 0..6u64 {
                let head = (i % 2) as u16;
                let label = u32::from(head) * 2 + (i / 2 % 2) as u32;
                c.row(ExampleId::of(&i.to_le_bytes(), 0), label, Some(head));
                let mut s = Key::new(i, "x").stream();
                c.x.extend((0..16).map(|_| s.normal() as f32));
            }
            let heads = [
                vec![true, true, false, false],
                vec![false, false, true, true],
            ];
            let batch = c.finish(&model, &heads, 4);
            let mut oracle = Oracle::new(model, Key::new(2, "draws"));
            let gradients: Vec<Weights> = (0..6)
                .map(|i| {
                    let mut g = Weights::zeros(oracle.model.layout());
                    let one = batch.part(i..i + 1);
                    oracle
                        .gradient(&cross_entropy, &one, None, &mut g)
                        .expect("a gradient");
                    g
                })
                .collect();
            let gram = Gram::of(&mut oracle, &batch).expect("products");
            for i in 0..6 {
                for j in 0..6 {
                    let want = gradients[i].dot(&gradients[j]);
                    let found = gram.products[6 * i + j];
                    assert!(
                        (found - want).abs() < 1e-5 * (1.0 + want.abs()),
                        "{found} {want}"
                    );
                }
            }
            let sum = |rows: &[usize]| {
                let mut all = gradients[0].zeros_like();
                rows.iter().for_each(|i| all.axpy(1.0, &gradients[*i]));
                all
            };
            let groups = [vec![3, 5], vec![4], vec![1, 2, 4]];
            let a = sum(&[0, 1, 2]);
            let cosine = |g: &Vec<usize>| a.dot(&sum(g)) / (a.norm() * sum(g).norm());
            let want = groups.iter().map(cosine).fold(f64::MIN, f64::max);
            assert!((gram.nearest(&[0, 1, 2], &groups) - want).abs() < 1e-5);
        }
    }
}
