//! The claim of the unified framework (Wang et al., ICLR 2024, card S075) as a test: EWC, LwF,
//! DER, DER++ and replay, as points of one objective, have the gradients of their own published
//! formulas, here written out with the engine's differentiable operations. So have losses of whole
//! batches (SinKD, supervised contrast, PRD, PCR).

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};
use ebb_learn::batch::{Batch, Collect};
use ebb_learn::methods::ewc::{Ewc, EwcSettings};
use ebb_learn::oracle::Oracle;
use ebb_learn::penalty::Penalty;
use ebb_net::{ActivationKind, HeadKind, Init, Mode, Model, NetworkSpec, Taps};
use ebb_space::{
    Classes, Combinator, ExampleId, Key, Normalisation, Objective, Reduction, Reference, Weights,
    presets,
};

const CLASSES: usize = 4;
const NEW: usize = 6;
const OLD: usize = 5;

fn model(seed: u64) -> Model {
    let spec = NetworkSpec::Mlp {
        hidden: vec![8, 7],
        activation: ActivationKind::Tanh,
        standardise: false,
        head: HeadKind::Linear,
        dropout: 0.0,
        init: Init::He,
    };
    let network = spec.build([1, 3, 3], CLASSES).expect("a network");
    Model::new(network, Key::new(seed, "unified"), &Device::flex())
}

fn stored() -> Vec<f32> {
    let mut s = Key::new(3, "stored").stream();
    (0..OLD * CLASSES).map(|_| s.normal() as f32).collect()
}

fn batch(model: &Model, second_draw: bool) -> Batch {
    let mut c = Collect::default();
    let mut s = Key::new(2, "x").stream();
    let mut rows = |c: &mut Collect, n: usize, from: u64| {
        for i in 0..n as u64 {
            let id = ExampleId::of(&(from + i).to_le_bytes(), 0);
            c.row(id, ((from + i) % CLASSES as u64) as u32, None);
            c.x.extend((0..9).map(|_| s.normal() as f32));
        }
    };
    c.support("new");
    rows(&mut c, NEW, 0);
    c.support("replay:a");
    rows(&mut c, OLD, 100);
    c.stored_logits = vec![0.0; NEW * CLASSES];
    c.stored_logits.extend(stored());
    if second_draw {
        c.support("replay:b");
        rows(&mut c, OLD, 201);
    }
    c.finish(model, &[], CLASSES)
}

/// The gradient of a loss written with the engine's operations on the logits.
fn published(model: &mut Model, batch: &Batch, loss: impl Fn(Tensor<2>) -> Tensor<1>) -> Weights {
    published_of(model, batch, |logits, _| loss(logits))
}

/// The same of logits and features.
fn published_of(
    model: &mut Model,
    batch: &Batch,
    loss: impl Fn(Tensor<2>, Tensor<2>) -> Tensor<1>,
) -> Weights {
    let leaves = model.leaves(None);
    let out = model.forward_tracked(&leaves, batch.x.clone(), Mode::Eval, &mut Taps::none());
    let mut grads = loss(out.logits, out.features).backward();
    let mut w = Weights::zeros(model.layout());
    leaves.collect(&mut grads, &mut w);
    w
}

fn cross_entropy(z: Tensor<2>, labels: &[u32]) -> Tensor<1> {
    let n = labels.len();
    let index: Vec<i32> = labels.iter().map(|l| *l as i32).collect();
    let index = Tensor::<2, Int>::from_data(TensorData::new(index, [n, 1]), &Device::flex());
    -log_softmax(z, 1).gather(1, index).mean()
}

fn agree(found: &Weights, expected: &Weights) {
    let scale = expected.norm();
    assert!(scale > 1e-3, "a gradient of 0 agrees with everything");
    let distance = found.squared_distance(expected).sqrt();
    assert!(
        distance < 1e-6 * (1.0 + scale),
        "{distance} apart, norm {scale}"
    );
}

fn by_algebra(m: &Model, batch: &Batch, objective: &Objective) -> Weights {
    let mut oracle = Oracle::new(m.clone(), Key::new(0, "none"));
    oracle.teacher = Some(model(77));
    let mut w = Weights::zeros(m.layout());
    oracle
        .gradient(objective, batch, None, &mut w)
        .expect("a gradient");
    w
}

#[test]
fn replay_is_cross_entropy_over_the_joined_batch() {
    let mut m = model(1);
    let b = batch(&m, false);
    let objective = Objective {
        terms: vec![presets::cross_entropy("all")],
        reduction: Reduction::MeanOverRows,
    };
    let labels = b.rows.labels.clone();
    let own = published(&mut m, &b, |z| cross_entropy(z, &labels));
    agree(&by_algebra(&m, &b, &objective), &own);
}

#[test]
fn der_and_der_plus_plus_are_two_and_three_terms() {
    let (alpha, beta) = (0.7, 0.4);
    let mut m = model(1);
    let b = batch(&m, true);
    let mut terms = vec![
        presets::cross_entropy("new"),
        presets::logits_l2("replay:a", Normalisation::ElementMean).weighted(alpha),
    ];
    let labels = b.rows.labels.clone();
    let target = Tensor::<2>::from_data(TensorData::new(stored(), [OLD, CLASSES]), &Device::flex());
    let der = |z: Tensor<2>| {
        let new = z.clone().slice([0..NEW, 0..CLASSES]);
        let old = z.slice([NEW..NEW + OLD, 0..CLASSES]);
        let away = old - target.clone();
        cross_entropy(new, &labels[..NEW]) + (away.clone() * away).mean() * alpha
    };
    let own = published(&mut m, &b, der);
    let sum = |terms: &[ebb_space::Term]| Objective {
        terms: terms.to_vec(),
        reduction: Reduction::SumOfMeans,
    };
    agree(&by_algebra(&m, &b, &sum(&terms)), &own);
    terms.push(presets::cross_entropy("replay:b").weighted(beta));
    let own = published(&mut m, &b, |z| {
        let second = z.clone().slice([NEW + OLD..NEW + 2 * OLD, 0..CLASSES]);
        der(z) + cross_entropy(second, &labels[NEW + OLD..]) * beta
    });
    agree(&by_algebra(&m, &b, &sum(&terms)), &own);
}

#[test]
fn lwf_is_a_tempered_divergence_from_the_frozen_model_over_the_old_classes() {
    let t = 2.0;
    let mut m = model(1);
    let mut teacher = model(77);
    let b = batch(&m, false);
    let old = vec![true, true, false, false];
    let keep = presets::distillation("new", Reference::Teacher, t)
        .with(Combinator::Mask(Classes::Only(old)));
    let objective = Objective {
        terms: vec![presets::cross_entropy("new"), keep],
        reduction: Reduction::SumOfMeans,
    };
    let labels = b.rows.labels.clone();
    let zt = teacher.forward(b.x.clone(), &mut Taps::none()).logits;
    let own = published(&mut m, &b, |z| {
        let new = z.clone().slice([0..NEW, 0..CLASSES]);
        let old = z.slice([0..NEW, 0..2]) / t;
        let q = softmax(zt.clone().slice([0..NEW, 0..2]) / t, 1);
        // KL(q ‖ p) up to the entropy of q, which has no gradient.
        let kl = -(q * log_softmax(old, 1)).sum_dim(1).mean();
        cross_entropy(new, &labels[..NEW]) + kl * (t * t)
    });
    agree(&by_algebra(&m, &b, &objective), &own);
}

fn alone(term: ebb_space::Term) -> Objective {
    Objective {
        terms: vec![term],
        reduction: Reduction::SumOfMeans,
    }
}

fn constant(rows: usize, cols: usize, of: impl Fn(usize, usize) -> f32) -> Tensor<2> {
    let data: Vec<f32> = (0..rows * cols).map(|i| of(i / cols, i % cols)).collect();
    Tensor::<2>::from_data(TensorData::new(data, [rows, cols]), &Device::flex())
}

/// SinKD's loop on the kernel, differentiated by the engine through all its rounds.
#[test]
fn sinkhorn_has_the_gradient_of_the_published_loop() {
    let mut m = model(1);
    let b = batch(&m, false);
    let zt = model(77).forward(b.x.clone(), &mut Taps::none()).logits;
    let tempered = |z: Tensor<2>| softmax(z.slice([0..NEW, 0..CLASSES]) / 2.0, 1);
    let own = published(&mut m, &b, |z| {
        let p = tempered(z).reshape([NEW, 1, CLASSES]);
        let q = tempered(zt.clone()).reshape([1, NEW, CLASSES]);
        let cost = (p - q).abs().sum_dim(2).reshape([NEW, NEW]);
        let mut plan = (cost.clone() / -0.1).exp();
        for _ in 0..20 {
            plan = plan.clone() / plan.sum_dim(1);
            plan = plan.clone() / plan.sum_dim(0);
        }
        (plan * cost).sum() / NEW as f32
    });
    agree(
        &by_algebra(&m, &b, &alone(presets::sinkhorn("new", 2.0))),
        &own,
    );
}

#[test]
fn supervised_contrast_trains_the_features() {
    let (n, t) = (NEW + OLD, 0.5);
    let mut m = model(1);
    let b = batch(&m, false);
    let labels = b.rows.labels.clone();
    let alike = |i: usize, j: usize| i != j && labels[i] == labels[j];
    let positives = constant(n, n, |i, j| {
        let number = (0..n).filter(|&j| alike(i, j)).count();
        f32::from(u8::from(alike(i, j))) / number.max(1) as f32
    });
    let own = published_of(&mut m, &b, |_, features| {
        let unit = features.clone() / (features.clone() * features).sum_dim(1).sqrt();
        let itself = constant(n, n, |i, j| if i == j { -1e9 } else { 0.0 });
        let s = unit.clone().matmul(unit.transpose()) / t + itself;
        -(positives.clone() * log_softmax(s, 1)).sum() / n as f32
    });
    let found = by_algebra(&m, &b, &alone(presets::sup_con("all", t)));
    agree(&found, &own);
}

#[test]
fn the_prototype_relation_and_proxy_contrast_are_softmaxes_along_the_batch() {
    let n = NEW + OLD;
    let mut m = model(1);
    let b = batch(&m, false);
    // PRD: KL to the teacher along the rows, the mean over the old classes.
    let zt = model(77).forward(b.x.clone(), &mut Taps::none()).logits;
    let old = |z: Tensor<2>| z.slice([0..n, 0..2]);
    let own = published(&mut m, &b, |z| {
        let (q, ln_p) = (softmax(old(zt.clone()), 0), log_softmax(old(z), 0));
        -(q * ln_p).sum() / 2.0
    });
    let mask = Combinator::Mask(Classes::Only(vec![true, true, false, false]));
    let relation = presets::prototype_relation("all", 1.0).with(mask);
    agree(&by_algebra(&m, &b, &alone(relation)), &own);
    // PCR: every row against the proxies of all rows' labels, its own label's rows positive.
    let labels = b.rows.labels.clone();
    let proxies = constant(CLASSES, n, |c, j| {
        f32::from(u8::from(labels[j] as usize == c))
    });
    let positives = constant(n, n, |i, j| {
        let number = labels.iter().filter(|l| **l == labels[i]).count();
        f32::from(u8::from(labels[i] == labels[j])) / number as f32
    });
    let own = published(&mut m, &b, |z| {
        let s = z.matmul(proxies.clone()) / 0.5;
        -(positives.clone() * log_softmax(s, 1)).sum() / n as f32
    });
    agree(
        &by_algebra(&m, &b, &alone(presets::proxy_contrast("all", 0.5))),
        &own,
    );
}

#[test]
fn ewc_is_a_quadratic_in_weight_space() {
    let m = model(1);
    let (theta, anchor, mut importance) = (m.weights(), model(5).weights(), model(6).weights());
    importance.map_in_place(f32::abs);
    let lambda = 11.0;
    let mut ewc = Ewc::new(EwcSettings {
        lambda,
        ..EwcSettings::default()
    });
    ewc.remember(&importance, &anchor);
    let mut found = theta.zeros_like();
    ewc.add_gradient(&theta, &mut found);
    let n = theta.as_slice().len();
    let tensor = |w: &Weights| {
        Tensor::<1>::from_data(TensorData::new(w.as_slice().to_vec(), [n]), &Device::flex())
    };
    let leaf = tensor(&theta).autodiff().require_grad();
    let away = leaf.clone() - tensor(&anchor);
    let penalty = (tensor(&importance) * away.clone() * away).sum() * (lambda / 2.0);
    let mut grads = penalty.backward();
    let own = ebb_kernels::slices::to_vec(&leaf.grad_remove(&mut grads).expect("a leaf"));
    let own = Weights::from_vec(theta.layout(), own).expect("the same layout");
    let distance = found.squared_distance(&own).sqrt();
    assert!(distance < 1e-6 * own.norm(), "{distance}");
}
