//! The diagonal Fisher of a trained experience, in each of the forms the field uses.
//!
//! Where every parameter sits in a linear layer, one backward pass a label gives the exact sum of
//! squared per-example gradients: with `δ` at a layer's output and `a` at its input, the
//! example's gradient is `δ aᵀ`, so the sum of squares is `(δ∘δ)ᵀ (a∘a)`, one matrix product.
//! Other networks go example by example. Passes run in evaluation mode.

use crate::batch::Batch;
use crate::error::Result;
use crate::oracle::Oracle;
use crate::seen::Seen;
use burn::tensor::{Tensor, TensorData};
use ebb_kernels::gemm::{Mat, matmul};
use ebb_kernels::{seed, slices};
use ebb_net::{LinearSite, Mode, Taps};
use ebb_space::{
    FisherKind, FisherScratch, Key, View, Weights, accumulate_linear_diagonal, seed_gradient,
};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct FisherRequest {
    /// Which Fisher.
    pub kind: FisherKind,
    /// Examples it is averaged over; 0: all of the experience's.
    pub samples: usize,
}

/// Rows of one pass.
const CHUNK: usize = 256;

/// The diagonal of the Fisher over the experience's training examples, averaged over them
/// (`batched`: over the batches of 256).
///
/// # Errors
/// When a pass fails.
pub fn fisher(oracle: &mut Oracle, seen: &Seen, request: &FisherRequest) -> Result<Weights> {
    let chosen = seen.sample(request.samples);
    let sites = oracle.model.linear_sites();
    let by_rows = request.kind.per_example() && sites.is_none();
    let chunk = if by_rows { 1 } else { CHUNK };
    let mut total = Weights::zeros(oracle.model.layout());
    for items in chosen.chunks(chunk) {
        let batch = seen.batch(&oracle.model, items);
        add(
            oracle,
            &batch,
            request.kind,
            sites.as_deref(),
            seen.key,
            &mut total,
        )?;
    }
    let n = if request.kind.per_example() {
        chosen.len()
    } else {
        chosen.len().div_ceil(CHUNK)
    };
    total.scale(1.0 / n.max(1) as f32);
    Ok(total)
}

/// Adds one batch's squared gradients to `total`. Without `sites` the gradient of the whole
/// batch is squared, so a per-example kind must come with one example.
pub fn add(
    oracle: &mut Oracle,
    batch: &Batch,
    kind: FisherKind,
    sites: Option<&[LinearSite]>,
    key: Key,
    total: &mut Weights,
) -> Result<()> {
    let outputs = oracle.model.network().outputs();
    let rows = batch.rows.len();
    let mut scratch = FisherScratch::default();
    let (mut choices, mut delta) = (Vec::new(), Vec::new());
    let mut gradient = total.zeros_like();
    for pass in 0..kind.passes(outputs) {
        let mut taps = Taps::none();
        let per_row = sites.filter(|_| kind.per_example());
        for site in per_row.unwrap_or_default() {
            taps = taps.read(&site.input).differentiate(&site.output);
        }
        let leaves = oracle.model.leaves(None);
        let out = oracle
            .model
            .forward_tracked(&leaves, batch.x.clone(), Mode::Eval, &mut taps);
        slices::read(&out.logits, |z| -> Result<()> {
            let z = View::new(z, rows, outputs)?;
            kind.choose(
                pass,
                z,
                &batch.rows,
                key.sub("Fisher label"),
                &mut scratch,
                &mut choices,
            )?;
            Ok(seed_gradient(
                &choices,
                z,
                &batch.rows,
                &mut scratch,
                &mut delta,
            )?)
        })?;
        if choices.iter().all(|c| c.weight == 0.0) {
            continue;
        }
        let start = Tensor::<2>::from_data(
            TensorData::new(delta.clone(), [rows, outputs]),
            oracle.model.device(),
        );
        let mut gradients = seed(out.logits, start).backward();
        oracle.meter.gradient_calls += 1;
        oracle.meter.forward_rows += rows as u64;
        oracle.meter.backward_rows += rows as u64;
        match per_row {
            None => {
                leaves.collect(&mut gradients, &mut gradient);
                total.add_square(1.0, &gradient);
            }
            Some(sites) => {
                for site in sites {
                    let (Some(input), Some(delta)) = (
                        taps.value(&site.input),
                        taps.gradient(&site.output, &mut gradients),
                    ) else {
                        continue;
                    };
                    slices::read(input, |a| {
                        slices::read(&delta, |d| add_site(site, d, a, total));
                    });
                }
            }
        }
    }
    Ok(())
}

fn add_site(site: &LinearSite, delta: &[f32], input: &[f32], total: &mut Weights) {
    let (ins, outs) = (site.inputs, site.outputs);
    if site.positions == 1 {
        let rows = delta.len() / outs;
        let d2: Vec<f32> = delta.iter().map(|v| v * v).collect();
        let a2: Vec<f32> = input.iter().map(|v| v * v).collect();
        if let Some(w) = total.get_mut(&site.weight) {
            let d2 = Mat::new(&d2, rows, outs).t();
            matmul(w, d2, Mat::new(&a2, rows, ins), true);
        }
        if let Some(b) = site.bias.as_deref().and_then(|path| total.get_mut(path)) {
            for row in d2.chunks_exact(outs) {
                b.iter_mut().zip(row).for_each(|(b, d)| *b += d);
            }
        }
        return;
    }
    let mut bias = vec![0.0; outs];
    if let Some(w) = total.get_mut(&site.weight) {
        accumulate_linear_diagonal(w, Some(&mut bias), delta, input, site.positions, 1.0);
    }
    if let Some(b) = site.bias.as_deref().and_then(|path| total.get_mut(path)) {
        b.iter_mut().zip(&bias).for_each(|(b, v)| *b += v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Collect;
    use burn::tensor::Device;
    use ebb_net::{ActivationKind, HeadKind, Init, Model, NetworkSpec};
    use ebb_space::ExampleId;

    fn oracle(spec: &NetworkSpec) -> Oracle {
        let network = spec.build([1, 4, 4], 3).expect("a network");
        let model = Model::new(network, Key::new(1, "fisher test"), &Device::flex());
        Oracle::new(model, Key::new(2, "draws"))
    }

    fn batch(model: &Model, rows: std::ops::Range<u64>) -> Batch {
        let mut c = Collect::default();
        c.support("new");
        for i in rows {
            c.row(ExampleId::of(&i.to_le_bytes(), 0), (i % 3) as u32, None);
            let mut s = Key::new(i, "x").stream();
            c.x.extend((0..16).map(|_| s.normal() as f32));
        }
        c.finish(model, &[], 3)
    }

    /// One backward pass for all examples against the loop over examples, for every kind that is
    /// per example, on an MLP; and `batched` against the square of the mean gradient.
    #[test]
    fn one_pass_equals_the_loop_over_examples() {
        let spec = NetworkSpec::Mlp {
            hidden: vec![7, 5],
            activation: ActivationKind::Tanh,
            standardise: false,
            head: HeadKind::Linear,
            dropout: 0.0,
            init: Init::He,
        };
        let mut o = oracle(&spec);
        let sites = o.model.network().linear_sites().expect("all linear");
        let key = Key::new(5, "labels");
        for kind in FisherKind::ALL.into_iter().filter(|k| k.per_example()) {
            let mut at_once = Weights::zeros(o.model.layout());
            let all = batch(&o.model, 0..9);
            add(&mut o, &all, kind, Some(&sites), key, &mut at_once).expect("a pass");
            let mut one_by_one = at_once.zeros_like();
            for i in 0..9 {
                let one = batch(&o.model, i..i + 1);
                add(&mut o, &one, kind, None, key, &mut one_by_one).expect("a pass");
            }
            for (a, b) in at_once.as_slice().iter().zip(one_by_one.as_slice()) {
                assert!(
                    (a - b).abs() <= 1e-5 * (1e-3 + b.abs()),
                    "{kind:?}: {a} {b}"
                );
            }
            assert!(at_once.norm() > 0.0);
        }
    }

    /// The exact Fisher is the expectation of the sampled one: the average over every label,
    /// weighted by its probability, of squared gradients by finite differences in the loss.
    #[test]
    fn the_exact_fisher_agrees_with_finite_differences() {
        let spec = NetworkSpec::Mlp {
            hidden: vec![4],
            activation: ActivationKind::Tanh,
            standardise: false,
            head: HeadKind::Linear,
            dropout: 0.0,
            init: Init::He,
        };
        let mut o = oracle(&spec);
        let sites = o.model.network().linear_sites().expect("all linear");
        let one = batch(&o.model, 0..1);
        let x = slices::to_vec(&one.x);
        let mut exact = Weights::zeros(o.model.layout());
        let key = Key::new(0, "");
        add(
            &mut o,
            &one,
            FisherKind::Exact,
            Some(&sites),
            key,
            &mut exact,
        )
        .expect("a pass");
        let start = o.model.weights();
        let mut log_p = |w: &Weights| -> Vec<f64> {
            o.model.set_weights(w).expect("its own layout");
            let z: Vec<f64> = o
                .logits(x.clone(), 1)
                .iter()
                .map(|v| f64::from(*v))
                .collect();
            let sum = z.iter().map(|v| v.exp()).sum::<f64>().ln();
            z.iter().map(|v| v - sum).collect()
        };
        let p: Vec<f64> = log_p(&start).iter().map(|l| l.exp()).collect();
        for i in (0..start.as_slice().len()).step_by(7) {
            let h = 1e-2f32;
            let (mut up, mut down) = (start.clone(), start.clone());
            up.as_mut_slice()[i] += h;
            down.as_mut_slice()[i] -= h;
            let (up, down) = (log_p(&up), log_p(&down));
            let by_hand: f64 = (0..3)
                .map(|y| p[y] * ((up[y] - down[y]) / (2.0 * f64::from(h))).powi(2))
                .sum();
            let found = f64::from(exact.as_slice()[i]);
            assert!(
                (found - by_hand).abs() < 2e-3 * (0.1 + by_hand),
                "{found} {by_hand}"
            );
        }
    }

    /// Networks with other layers go example by example; norm layers in evaluation mode.
    #[test]
    fn a_convolutional_network_goes_example_by_example() {
        let spec = NetworkSpec::Cnn {
            channels: vec![2],
            depth: 1,
            hidden: 3,
            norm: true,
            head: HeadKind::Linear,
            dropout: 0.5,
            init: Init::He,
        };
        let mut o = oracle(&spec);
        let buffers = o.model.buffers().clone();
        let mut f = Weights::zeros(o.model.layout());
        for i in 0..3 {
            let one = batch(&o.model, i..i + 1);
            let key = Key::new(0, "");
            add(&mut o, &one, FisherKind::Empirical, None, key, &mut f).expect("a pass");
        }
        assert!(f.norm() > 0.0 && f.is_finite());
        assert_eq!(buffers.as_slice(), o.model.buffers().as_slice());
    }
}
