//! Objectives against formulas written out in f64 and against finite differences.

use ebb_space::presets::{
    balanced_distillation, bernoulli, coverage, cpr, cross_entropy, distillation, fdr, feature_l2,
    feature_margin, logits_l2, lwf, ofa, output_norm, padded_distillation, plackett_luce,
    prototype_relation, proxy_contrast, proxy_distillation, similarity_distillation, sinkhorn,
    smoothed_cross_entropy, sup_con, threshold_margin,
};
use ebb_space::{
    Bands, BatchLoss, Bregman, Carrier, CarrierGrads, Choices, Classes, Combinator, Divergence,
    Error, Estimator, Generator, Inputs, Key, Normalisation, Objective, ObjectiveValue, Reduction,
    Reference, References, RowId, Rows, Shift, Target, Term, Thresholds, View, Weighting,
};

/// A batch: 3 new rows, 2 of `replay:a`, 2 of `replay:b`, one of them masked.
struct Batch {
    rows: Rows,
    z: Vec<f32>,
    stored: Vec<f32>,
    teacher: Vec<f32>,
    features: Vec<f32>,
    stored_features: Vec<f32>,
    log_probs: Vec<f32>,
    shifts: Vec<f32>,
    row_weights: Vec<f32>,
    teacher_set: Vec<u16>,
    /// Those of the stored features.
    thresholds: Thresholds,
    codes: Vec<u8>,
}

const N: usize = 7;
const K: usize = 5;
const WIDTH: usize = 3;

/// Multiples of 2⁻⁸, so that finite differences perturb them exactly.
fn random(name: &str, n: usize) -> Vec<f32> {
    let key = Key::new(1, name);
    (0..n as u64)
        .map(|i| (key.normal(i) * 256.0).round() as f32 / 256.0)
        .collect()
}

impl Batch {
    fn new() -> Batch {
        let rows = Rows {
            ids: (0..N as u64)
                .map(|example| RowId {
                    example,
                    position: 0,
                })
                .collect(),
            labels: vec![0, 1, 2, 1, 2, 3, 2],
            support: vec![0, 0, 0, 1, 1, 2, 2],
            supports: ["new", "replay:a", "replay:b"].map(String::from).to_vec(),
            mask: Some(vec![true, true, true, true, true, true, false]),
            weight: None,
            class_set: None,
            class_sets: vec![
                vec![true; 5],
                vec![true, true, true, false, false],
                vec![false, true, true, true, true],
            ],
        };
        let stored_features = random("stored features", N * WIDTH);
        let thresholds = Thresholds::new(vec![-0.7; WIDTH], vec![0.3; WIDTH]).unwrap();
        let mut codes = Vec::new();
        (stored_features.chunks(WIDTH)).for_each(|row| thresholds.encode(row, &mut codes));
        Batch {
            rows,
            thresholds,
            codes,
            z: random("z", N * K),
            stored: random("stored", N * K),
            teacher: random("teacher", N * K),
            features: random("features", N * WIDTH),
            stored_features,
            log_probs: random("log probs", N)
                .iter()
                .map(|v| -v.abs() - 0.1)
                .collect(),
            shifts: random("shifts", N * K),
            row_weights: random("row weights", N),
            teacher_set: vec![1, 2, 1, 0, 1, 2, 0],
        }
    }

    fn evaluate(
        &self,
        objective: &Objective,
        grads: &mut CarrierGrads,
    ) -> Result<ObjectiveValue, Error> {
        let view = |data, cols| View {
            data,
            rows: N,
            cols,
        };
        objective.evaluate(
            &Inputs {
                rows: &self.rows,
                logits: view(&self.z, K),
                features: Some(view(&self.features, WIDTH)),
                references: References {
                    stored_logits: Some(view(&self.stored, K)),
                    stored_features: Some(view(&self.stored_features, WIDTH)),
                    teacher_logits: Some(view(&self.teacher, K)),
                    teacher_features: Some(view(&self.stored_features, WIDTH)),
                    prototypes: Some(view(&self.stored_features, WIDTH)),
                    stored_log_probs: Some(&self.log_probs),
                    teacher_class_set: Some(&self.teacher_set),
                    row_weights: Some(&self.row_weights),
                    shifts: Some(view(&self.shifts, K)),
                    bands: Some(Bands::new(&self.thresholds, &self.codes)),
                },
            },
            grads,
        )
    }

    fn one(&self, term: Term) -> (f64, CarrierGrads) {
        let objective = Objective {
            terms: vec![term],
            reduction: Reduction::SumOfMeans,
        };
        let mut grads = CarrierGrads::default();
        let value = self.evaluate(&objective, &mut grads).unwrap();
        assert_eq!(value.total, value.terms[0]);
        (value.total, grads)
    }
}

fn softmax(z: &[f32], t: f64) -> Vec<f64> {
    let e: Vec<f64> = z.iter().map(|&z| (f64::from(z) / t).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.into_iter().map(|e| e / sum).collect()
}

fn row(data: &[f32], i: usize) -> &[f32] {
    &data[i * K..(i + 1) * K]
}

/// The mean over `rows` of a formula.
fn mean(rows: &[usize], of: impl Fn(usize) -> f64) -> f64 {
    rows.iter().map(|&i| of(i)).sum::<f64>() / rows.len() as f64
}

fn close(got: f64, want: f64, tolerance: f64, what: &str) {
    assert!(
        (got - want).abs() <= tolerance * want.abs().max(1.0),
        "{what}: {got} against {want}"
    );
}

fn kl(a: &[f64], b: &[f64]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| if *a > 0.0 { a * (a / b).ln() } else { 0.0 })
        .sum()
}

const REPLAY: [usize; 3] = [3, 4, 5];
const ALL: [usize; 6] = [0, 1, 2, 3, 4, 5];

#[test]
fn presets_are_their_published_formulas() {
    let b = Batch::new();
    let p = |i| softmax(row(&b.z, i), 1.0);
    let y = |i: usize| b.rows.labels[i] as usize;
    let square = |x: &[f32], y: &[f32]| -> f64 {
        x.iter()
            .zip(y)
            .map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2))
            .sum()
    };
    let distance = |i| square(row(&b.z, i), row(&b.stored, i));
    let value = |term: Term| b.one(term).0;

    let ce = |i: usize| -p(i)[y(i)].ln();
    close(
        value(cross_entropy("all")),
        mean(&ALL, ce),
        1e-7,
        "cross-entropy",
    );
    close(
        value(cross_entropy("replay")),
        mean(&REPLAY, ce),
        1e-7,
        "experience replay",
    );
    close(
        value(cross_entropy("replay:a")),
        mean(&[3, 4], ce),
        1e-7,
        "one draw",
    );

    let half = |i| 0.5 * distance(i);
    close(
        value(logits_l2("replay", Normalisation::HalfSum)),
        mean(&REPLAY, half),
        1e-12,
        "DER, paper",
    );
    // The public code's mean_squared_error over the replayed batch × classes.
    let mse = mean(&REPLAY, |i| distance(i) / K as f64);
    close(
        value(logits_l2("replay", Normalisation::ElementMean)),
        mse,
        1e-12,
        "DER, code",
    );

    let soft = |i| {
        4.0 * kl(
            &softmax(row(&b.teacher, i), 2.0),
            &softmax(row(&b.z, i), 2.0),
        )
    };
    close(
        value(distillation("all", Reference::Teacher, 2.0)),
        mean(&ALL, soft),
        1e-12,
        "distillation",
    );
    let old = |i: usize| {
        4.0 * kl(
            &softmax(&row(&b.teacher, i)[..3], 2.0),
            &softmax(&row(&b.z, i)[..3], 2.0),
        )
    };
    let set = || Classes::Only(vec![true, true, true, false, false]);
    close(
        value(lwf("new", set())),
        mean(&[0, 1, 2], old),
        1e-12,
        "LwF",
    );
    close(
        value(lwf("new", Classes::Set(1))),
        mean(&[0, 1, 2], old),
        1e-12,
        "LwF by set",
    );

    let norm = |i| {
        let q = softmax(row(&b.stored, i), 1.0);
        p(i).iter()
            .zip(&q)
            .map(|(p, q)| (p - q).powi(2))
            .sum::<f64>()
            .sqrt()
    };
    close(value(fdr("replay")), mean(&REPLAY, norm), 1e-12, "FDR");

    let entropy = |i| -p(i).iter().map(|p| p * p.ln()).sum::<f64>();
    close(
        value(cpr("new")),
        (K as f64).ln() - mean(&[0, 1, 2], entropy),
        1e-12,
        "CPR",
    );

    let features = |i: usize| {
        let at = i * WIDTH..(i + 1) * WIDTH;
        0.5 * square(&b.features[at.clone()], &b.stored_features[at])
    };
    for reference in [
        Reference::StoredFeatures,
        Reference::Teacher,
        Reference::Prototype,
    ] {
        let got = value(feature_l2("replay", reference, Normalisation::HalfSum));
        close(got, mean(&REPLAY, features), 1e-12, "features");
    }

    let smooth = |i: usize| {
        -(0..K)
            .map(|j| (0.9 * f64::from(j == y(i)) + 0.02) * p(i)[j].ln())
            .sum::<f64>()
    };
    close(
        value(smoothed_cross_entropy("all", 0.1)),
        mean(&ALL, smooth),
        1e-12,
        "smoothing",
    );
}

#[test]
fn ofa_strengthens_the_label_and_gamma_one_is_plain_distillation() {
    let mut b = Batch::new();
    let p = |b: &Batch, i| softmax(row(&b.z, i), 1.0);
    let (plain, grads) = b.one(ofa("all", 1.0));
    let soft = mean(&ALL, |i| {
        let q = softmax(row(&b.teacher, i), 1.0);
        -q.iter().zip(p(&b, i)).map(|(q, p)| q * p.ln()).sum::<f64>()
    });
    close(plain, soft, 1e-12, "γ = 1");
    let (_, kd) = b.one(distillation("all", Reference::Teacher, 1.0));
    assert!(
        grads
            .logits
            .iter()
            .zip(&kd.logits)
            .all(|(a, b)| (a - b).abs() < 1e-7)
    );
    // The card's numbers at γ = 1.5: q_y = 0.6 → 1.02, and q_j = 0.2 → 0.09 for the others.
    let q = [0.6f32, 0.2, 0.1, 0.06, 0.04];
    b.teacher[..K].copy_from_slice(&q.map(f32::ln));
    b.rows.mask = Some((0..N).map(|i| i == 0).collect());
    let (value, _) = b.one(ofa("new", 1.5));
    let lp: Vec<f64> = p(&b, 0).iter().map(|p| p.ln()).collect();
    let t = [
        1.6f64.powf(1.5) - 1.0,
        0.2f64.powf(1.5),
        0.1f64.powf(1.5),
        0.06f64.powf(1.5),
        0.04f64.powf(1.5),
    ];
    assert!((t[0] - 1.02).abs() < 5e-3 && (t[1] - 0.09).abs() < 1e-3);
    close(
        value,
        -t.iter().zip(&lp).map(|(t, l)| t * l).sum::<f64>(),
        1e-7,
        "γ = 1.5",
    );
}

/// Fourth-order central differences of the evaluated total by every logit and feature.
fn differences(b: &mut Batch, objective: &Objective, step: f32) -> (Vec<f64>, Vec<f64>) {
    let mut grads = CarrierGrads::default();
    let mut sweep = |pick: fn(&mut Batch) -> &mut Vec<f32>| -> Vec<f64> {
        (0..pick(b).len())
            .map(|j| {
                let mut at = |steps: f32| {
                    let old = pick(b)[j];
                    pick(b)[j] = old + steps * step;
                    let total = b.evaluate(objective, &mut grads).unwrap().total;
                    pick(b)[j] = old;
                    total
                };
                (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * f64::from(step))
            })
            .collect()
    };
    (sweep(|b| &mut b.z), sweep(|b| &mut b.features))
}

fn generators() -> [Generator; 12] {
    [
        Generator::ReverseKl,
        Generator::ForwardKl,
        Generator::JensenShannon,
        Generator::SkewJensenShannon { b: 0.3 },
        Generator::Alpha { alpha: 0.2 },
        Generator::Alpha { alpha: 1.3 },
        Generator::Hellinger,
        Generator::Pearson,
        Generator::Neyman,
        Generator::SkewForwardKl { lambda: 0.1 },
        Generator::Jeffreys,
        Generator::TotalVariation,
    ]
}

#[test]
fn gradients_are_the_finite_differences_of_the_value() {
    let mut b = Batch::new();
    b.rows.class_set = Some(vec![1, 2, 1, 0, 1, 2, 0]);
    b.rows.weight = Some(vec![1.0, 0.5, 2.0, 0.0, 1.5, 1.0, 3.0]);
    let f = |g, reference| Term::new("f", "all", Carrier::Probs, Divergence::F(g), reference);
    let bregman = |carrier, kind, reference| {
        Term::new(
            "bregman",
            "replay",
            carrier,
            Divergence::Bregman(kind),
            reference,
        )
    };
    let half = Bregman::Squared(Normalisation::HalfSum);
    let each = Bregman::Squared(Normalisation::ElementMean);
    let mut terms: Vec<Term> = Vec::new();
    for g in generators() {
        terms.push(f(g, Reference::StoredLogits).with(Combinator::Temper {
            t: 1.5,
            squared: true,
        }));
        terms.push(f(g, Reference::Uniform).with(Combinator::Mask(Classes::Teacher)));
        let smooth = Combinator::Target(Target::Smooth(0.2));
        terms.push(
            f(g, Reference::Label)
                .with(Combinator::Mask(Classes::Row))
                .with(smooth),
        );
        for reference in [Reference::StoredLogProbs, Reference::Teacher] {
            terms.push(Term {
                estimator: Estimator::ReferenceSampled,
                ..f(g, reference)
            });
        }
        if g.second().is_some() {
            terms.push(Term {
                estimator: Estimator::LocalQuadratic,
                ..f(g, Reference::Teacher).with(Combinator::Temper {
                    t: 2.0,
                    squared: false,
                })
            });
        }
    }
    let shifted = cross_entropy("all").with(Combinator::Shift(Shift::PerRow));
    let per_class = Combinator::Shift(Shift::PerClass(vec![0.5, -1.0, 0.25, 0.0, 2.0]));
    terms.extend([
        shifted.clone(),
        shifted
            .clone()
            .with(Combinator::Temper {
                t: 0.5,
                squared: true,
            })
            .with(per_class),
        shifted.clone().with(Combinator::Gate(0.4)),
        shifted
            .clone()
            .with(Combinator::Scale(3.0))
            .with(Combinator::Gate(2.0))
            .weighted(-0.7),
        shifted.with(Combinator::Weight(Weighting::PerRow)),
        smoothed_cross_entropy("new", 0.1),
        ofa("all", 1.4),
        logits_l2("replay:a", Normalisation::HalfSum).with(Combinator::Root),
        logits_l2("replay", Normalisation::ElementMean)
            .with(Combinator::Mask(Classes::Row))
            .with(Combinator::Mask(Classes::Only(vec![
                true, true, true, true, false,
            ]))),
        bregman(Carrier::Logits, Bregman::LogSumExp, Reference::Teacher)
            .with(Combinator::Mask(Classes::Row)),
        bregman(Carrier::Probs, half, Reference::Label),
        bregman(Carrier::Probs, each, Reference::Uniform).with(Combinator::Mask(Classes::Set(1))),
        fdr("all"),
        cpr("new"),
        lwf("all", Classes::Teacher),
        feature_l2("all", Reference::Prototype, Normalisation::ElementMean),
        feature_l2("replay", Reference::Teacher, Normalisation::HalfSum)
            .with(Combinator::Gate(0.3)),
    ]);
    let half_logits = |reference| bregman(Carrier::Logits, half, reference);
    let temper = |t, squared| Combinator::Temper { t, squared };
    let set = |classes: [bool; K]| Combinator::Mask(Classes::Only(classes.to_vec()));
    terms.extend([
        bernoulli("all", Reference::Label).with(Combinator::Mask(Classes::Row)),
        bernoulli("all", Reference::Label).with(set([false, false, true, true, true])),
        bernoulli("all", Reference::Teacher)
            .with(temper(2.0, true))
            .with(Combinator::Mask(Classes::Teacher)),
        bernoulli("replay", Reference::StoredLogits).with(Combinator::Gate(0.5)),
        plackett_luce("all", Choices::TeacherMass { t: 1.0 }),
        plackett_luce("all", Choices::TeacherMass { t: 4.0 })
            .with(Combinator::Mask(Classes::Teacher))
            .with(temper(0.7, false)),
        plackett_luce("all", Choices::Equal)
            .with(set([false, true, true, false, true]))
            .with(Combinator::Scramble(Key::new(4, "scramble"))),
        proxy_contrast("all", 0.5),
        proxy_contrast("replay", 1.0).weighted(0.3),
        proxy_distillation("replay"),
        half_logits(Reference::Zero).with(temper(2.0, true)),
        output_norm("all").with(Combinator::Mask(Classes::Row)),
        bregman(Carrier::Features, half, Reference::Zero),
        feature_margin("all", Reference::Prototype, 0.8),
    ]);
    // Wide steps, for the cross-entropy's arithmetic in f32.
    agree_with_differences(&mut b, terms, 1.0 / 128.0);
}

/// The same for losses of the whole batch, whose rows have no weights.
#[test]
fn gradients_of_batch_losses_are_finite_differences() {
    let mut b = Batch::new();
    b.rows.class_set = Some(vec![1, 2, 1, 0, 1, 2, 0]);
    let transport = |epsilon, rounds| Term {
        divergence: Divergence::Batch(BatchLoss::Sinkhorn { epsilon, rounds }),
        ..sinkhorn("all", 2.0)
    };
    let mut terms = vec![
        transport(0.5, 20),
        transport(0.25, 3).with(Combinator::Mask(Classes::Row)),
        transport(0.5, 5)
            .with(Combinator::Target(Target::Smooth(0.2)))
            .with(Combinator::Gate(0.1))
            .weighted(-1.5),
        Term {
            reference: Reference::StoredLogits,
            on: "replay".into(),
            ..sinkhorn("", 2.0)
        },
        sup_con("all", 0.5),
        sup_con("all", 0.2).with(Combinator::Root),
        sup_con("replay:a", 0.1),
        similarity_distillation("all", Reference::Teacher, 0.5),
        similarity_distillation("replay", Reference::StoredFeatures, 0.4)
            .with(Combinator::Scale(2.0)),
        prototype_relation("all", 1.0),
        prototype_relation("new", 2.0)
            .with(Combinator::Mask(Classes::Row))
            .with(Combinator::Shift(Shift::PerRow)),
        prototype_relation("all", 1.0).with(Combinator::Mask(Classes::Only(vec![
            true, true, false, false, false,
        ]))),
        threshold_margin("all"),
        threshold_margin("replay").weighted(30.0),
    ];
    let squared = terms[0]
        .clone()
        .with(Combinator::Weight(Weighting::OfValue(|_| 3.0)));
    terms.push(squared);
    // Narrow ones, so that none crosses a kink of the transport's L1 cost.
    agree_with_differences(&mut b, terms, 1.0 / 4096.0);
}

/// A term that is weighed to be as large as the labels' is so, and its direction is its own.
#[test]
fn a_balanced_term_is_as_large_as_the_loss_at_labels() {
    let b = Batch::new();
    let balanced = threshold_margin("replay").with(Combinator::Weight(Weighting::AsLabels));
    let labels = [cross_entropy("new"), cross_entropy("replay").weighted(0.5)];
    let objective = Objective {
        terms: [
            &labels[..],
            &[distillation("all", Reference::Teacher, 2.0), balanced],
        ]
        .concat(),
        reduction: Reduction::SumOfMeans,
    };
    let mut grads = CarrierGrads::default();
    let value = b.evaluate(&objective, &mut grads).unwrap();
    let at_labels = value.terms[0] + value.terms[1];
    close(value.terms[3], at_labels, 1e-6, "the balanced term");
    let (margin, alone) = b.one(threshold_margin("replay"));
    let pairs = grads
        .features
        .unwrap()
        .into_iter()
        .zip(alone.features.unwrap());
    for (got, of_margin) in pairs {
        let want = at_labels / (margin + 1e-8) * f64::from(of_margin);
        close(f64::from(got), want, 1e-6, "its gradient");
    }
}

fn agree_with_differences(b: &mut Batch, terms: Vec<Term>, step: f32) {
    for term in terms {
        let objective = Objective {
            terms: vec![term],
            reduction: Reduction::MeanOverRows,
        };
        let mut grads = CarrierGrads::default();
        b.evaluate(&objective, &mut grads).unwrap();
        let (by_z, by_features) = differences(b, &objective, step);
        let term = &objective.terms[0];
        for (got, want) in grads.logits.iter().zip(&by_z) {
            close(f64::from(*got), *want, 2e-6, &format!("{term:?}"));
        }
        assert_eq!(grads.features.is_some(), objective.uses_features());
        let silent = vec![0.0; N * WIDTH];
        for (got, want) in grads
            .features
            .as_ref()
            .unwrap_or(&silent)
            .iter()
            .zip(&by_features)
        {
            close(
                f64::from(*got),
                *want,
                2e-6,
                &format!("{term:?} by features"),
            );
        }
        // The masked row, row 6, has no part in anything.
        assert!(grads.logits[6 * K..].iter().all(|g| *g == 0.0), "{term:?}");
    }
}

#[test]
fn the_fast_cross_entropy_is_forward_kl_against_one_hot_in_f64() {
    let (n, k) = (64, 37);
    let key = Key::new(2, "fast");
    let z: Vec<f32> = (0..n * k)
        .map(|i| 4.0 * key.normal(i as u64) as f32)
        .collect();
    let sets: Vec<Vec<bool>> = (0..4)
        .map(|s| {
            (0..k)
                .map(|c| s == 0 || !key.draw((1000 + s * 100 + c) as u64).is_multiple_of(3))
                .collect()
        })
        .collect();
    let set_of: Vec<u16> = (0..n).map(|i| (i % 4) as u16).collect();
    let label = |i: usize| (0..k).cycle().skip(i).find(|&c| sets[i % 4][c]).unwrap() as u32;
    let rows = Rows {
        ids: vec![
            RowId {
                example: 0,
                position: 0
            };
            n
        ],
        labels: (0..n).map(label).collect(),
        support: vec![0; n],
        supports: vec!["new".into()],
        class_set: Some(set_of),
        class_sets: sets.clone(),
        ..Rows::default()
    };
    for masked in [true, false] {
        let mut term = cross_entropy("new");
        if !masked {
            term.combinators.clear();
        }
        let inputs = Inputs {
            rows: &rows,
            logits: View::new(&z, n, k).unwrap(),
            features: None,
            references: References::default(),
        };
        let objective = Objective {
            terms: vec![term],
            reduction: Reduction::SumOfMeans,
        };
        let mut grads = CarrierGrads::default();
        let value = objective.evaluate(&inputs, &mut grads).unwrap();
        let mut total = 0.0;
        for i in 0..n {
            let classes: Vec<usize> = (0..k).filter(|&c| !masked || sets[i % 4][c]).collect();
            let lse = classes
                .iter()
                .map(|&c| f64::from(z[i * k + c]).exp())
                .sum::<f64>()
                .ln();
            let ln_p: Vec<f64> = classes
                .iter()
                .map(|&c| f64::from(z[i * k + c]) - lse)
                .collect();
            let at = classes
                .iter()
                .position(|&c| c == rows.labels[i] as usize)
                .unwrap();
            let ln_q: Vec<f64> = (0..classes.len())
                .map(|c| if c == at { 0.0 } else { f64::NEG_INFINITY })
                .collect();
            let mut gradient = vec![0.0; classes.len()];
            let loss = Generator::ForwardKl.exact(&ln_p, &ln_q, &mut gradient);
            assert!(
                (loss + ln_p[at]).abs() < 1e-12,
                "FKL against one-hot is the cross-entropy"
            );
            close(f64::from(value.row_loss[i]), loss, 3e-7, "row loss");
            total += loss / n as f64;
            for c in 0..k {
                let got = grads.logits[i * k + c];
                match classes.iter().position(|&class| class == c) {
                    Some(at) => close(f64::from(got) * n as f64, gradient[at], 3e-7, "gradient"),
                    None => assert_eq!(
                        got.to_bits(),
                        0,
                        "outside the set the gradient is exactly 0"
                    ),
                }
            }
        }
        close(value.total, total, 1e-7, "total");
    }
}

#[test]
fn the_fast_path_and_the_general_one_agree_under_every_wrapper() {
    let mut b = Batch::new();
    b.rows.class_set = Some(vec![1, 2, 1, 0, 1, 2, 0]);
    b.rows.weight = Some(vec![1.0, 0.5, 2.0, 0.0, 1.5, 1.0, 3.0]);
    for wrapper in [
        Combinator::Scale(1.0),
        Combinator::Scale(-2.5),
        Combinator::Gate(0.7),
        Combinator::Root,
        Combinator::Weight(Weighting::PerRow),
        Combinator::Weight(Weighting::OfValue(|v| v * v)),
        Combinator::Mask(Classes::Only(vec![true, true, true, true, false])),
    ] {
        let fast = cross_entropy("all").with(wrapper).weighted(0.3);
        // A shift by nothing leaves the fast path.
        let general = fast
            .clone()
            .with(Combinator::Shift(Shift::PerClass(vec![0.0; K])));
        let ((a, ga), (c, gc)) = (b.one(fast), b.one(general));
        close(a, c, 1e-6, "value");
        for (a, c) in ga.logits.iter().zip(&gc.logits) {
            close(f64::from(*a), f64::from(*c), 1e-6, "gradient");
        }
    }
}

#[test]
fn kl_is_one_thing_as_f_and_as_bregman() {
    let b = Batch::new();
    let f = Term::new(
        "",
        "all",
        Carrier::Probs,
        Divergence::F(Generator::ForwardKl),
        Reference::Teacher,
    );
    let lse = Divergence::Bregman(Bregman::LogSumExp);
    let bregman = Term::new("", "all", Carrier::Logits, lse, Reference::Teacher);
    let ((a, ga), (c, gc)) = (b.one(f), b.one(bregman));
    assert_eq!((a.to_bits(), ga.logits), (c.to_bits(), gc.logits));
    // And both are LSE(z) − LSE(r) − ⟨softmax r, z − r⟩, the definition of the divergence.
    let lse = |v: &[f32]| v.iter().map(|&v| f64::from(v).exp()).sum::<f64>().ln();
    let definition = mean(&ALL, |i| {
        let (z, r) = (row(&b.z, i), row(&b.teacher, i));
        let inner: f64 = (softmax(r, 1.0).iter().zip(z).zip(r))
            .map(|((q, z), r)| q * (f64::from(*z) - f64::from(*r)))
            .sum();
        lse(z) - lse(r) - inner
    });
    close(a, definition, 1e-12, "B_LSE");
}

#[test]
fn reductions_are_as_defined_and_empty_supports_are_zero() {
    let mut b = Batch::new();
    let objective = |reduction| Objective {
        terms: vec![
            cross_entropy("new"),
            cross_entropy("replay:b").weighted(0.5),
            Term {
                name: "idle".into(),
                ..fdr("replay:c")
            },
        ],
        reduction,
    };
    let y = |i: usize| b.rows.labels[i] as usize;
    let ce: Vec<f64> = (0..N)
        .map(|i| -softmax(row(&b.z, i), 1.0)[y(i)].ln())
        .collect();
    let mut grads = CarrierGrads::default();
    // Rows 3, 4 are on no term and row 6 is masked: N = 4.
    let pooled = b
        .evaluate(&objective(Reduction::MeanOverRows), &mut grads)
        .unwrap();
    close(
        pooled.terms[0],
        (ce[0] + ce[1] + ce[2]) / 4.0,
        1e-7,
        "new, pooled",
    );
    close(pooled.terms[1], 0.5 * ce[5] / 4.0, 1e-7, "replay, pooled");
    assert_eq!(pooled.terms[2].to_bits(), 0.0f64.to_bits());
    let means = b
        .evaluate(&objective(Reduction::SumOfMeans), &mut grads)
        .unwrap();
    close(
        means.terms[0],
        (ce[0] + ce[1] + ce[2]) / 3.0,
        1e-7,
        "new, by term",
    );
    close(means.terms[1], 0.5 * ce[5], 1e-7, "replay, by term");
    assert_eq!(means.total, means.terms.iter().sum::<f64>());
    // Row losses are the raw values, whatever the weight; rows without a label term have none.
    for (i, (got, want)) in means.row_loss.iter().zip(&ce).enumerate() {
        match i {
            0..=2 | 5 => close(f64::from(*got), *want, 1e-6, "row loss"),
            _ => assert!(got.is_nan()),
        }
    }
    // Row weights multiply and do not enter the count.
    b.rows.weight = Some(vec![2.0, 0.0, 1.0, 9.0, 9.0, 4.0, 9.0]);
    let weighted = b
        .evaluate(&objective(Reduction::SumOfMeans), &mut grads)
        .unwrap();
    close(
        weighted.terms[0],
        (2.0 * ce[0] + ce[2]) / 3.0,
        1e-7,
        "weighted",
    );
    close(weighted.terms[1], 2.0 * ce[5], 1e-7, "weighted");
    // Nothing to do at all.
    b.rows.mask = Some(vec![false; N]);
    let nothing = b
        .evaluate(&objective(Reduction::MeanOverRows), &mut grads)
        .unwrap();
    assert_eq!((nothing.total, nothing.terms), (0.0, vec![0.0; 3]));
    assert!(grads.logits.iter().all(|g| g.to_bits() == 0));
}

#[test]
fn cross_entropy_on_new_and_replay_pools_into_one_mean() {
    let b = Batch::new();
    let of = |terms| Objective {
        terms,
        reduction: Reduction::MeanOverRows,
    };
    let (mut joint, mut parts) = (CarrierGrads::default(), CarrierGrads::default());
    let one = b
        .evaluate(&of(vec![cross_entropy("all")]), &mut joint)
        .unwrap();
    let two = of(vec![cross_entropy("new"), cross_entropy("replay")]);
    let two = b.evaluate(&two, &mut parts).unwrap();
    close(two.total, one.total, 1e-15, "pooled");
    assert_eq!(joint.logits, parts.logits);
}

#[test]
fn closed_gates_have_no_gradient_and_open_ones_the_whole() {
    let b = Batch::new();
    let (_, open) = b.one(cross_entropy("all"));
    let losses: Vec<f64> = ALL
        .iter()
        .map(|&i| -softmax(row(&b.z, i), 1.0)[b.rows.labels[i] as usize].ln())
        .collect();
    let tau = 1.0;
    assert!(losses.iter().any(|l| *l < tau) && losses.iter().any(|l| *l > tau));
    let (value, gated) = b.one(cross_entropy("all").with(Combinator::Gate(tau)));
    close(
        value,
        mean(&ALL, |i| (losses[i] - tau).max(0.0)),
        1e-7,
        "gate",
    );
    for (i, loss) in losses.iter().enumerate() {
        let want = if *loss > tau {
            row(&open.logits, i).to_vec()
        } else {
            vec![0.0; K]
        };
        assert_eq!(row(&gated.logits, i), want);
    }
}

#[test]
fn detached_weights_multiply_the_gradient_and_pass_none_themselves() {
    let b = Batch::new();
    // DCO: F(N, x) = N x (1−x)^{N−1} / (1 − (1−x)^N) with x = e^{−CE}; the loss it comes from is
    // −ln(1 − (1−x)^N), whose gradient is F · ∇CE.
    fn dco(loss: f64) -> f64 {
        let (n, x) = (16.0, (-loss).exp());
        n * x * (1.0 - x).powf(n - 1.0) / (1.0 - (1.0 - x).powf(n))
    }
    let (_, got) = b.one(cross_entropy("all").with(Combinator::Weight(Weighting::OfValue(dco))));
    let (_, preset) = b.one(coverage("all", 16.0));
    for (a, c) in got.logits.iter().zip(&preset.logits) {
        close(f64::from(*c), f64::from(*a), 1e-6, "coverage");
    }
    assert_eq!(
        b.one(coverage("all", 1.0)).1.logits,
        b.one(cross_entropy("all")).1.logits
    );
    for i in ALL {
        let y = b.rows.labels[i] as usize;
        let loss = |z: &[f32]| -(1.0 - (1.0 - softmax(z, 1.0)[y]).powi(16)).ln();
        for j in 0..K {
            let at = |step: f32| {
                let mut z = row(&b.z, i).to_vec();
                z[j] += step;
                loss(&z)
            };
            let want = (at(1.0 / 512.0) - at(-1.0 / 512.0)) * 256.0 / ALL.len() as f64;
            close(f64::from(row(&got.logits, i)[j]), want, 2e-5, "DCO");
        }
    }
}

#[test]
fn one_against_all_divides_the_classes_between_label_and_teacher() {
    let b = Batch::new();
    let sigmoid = |x: f32| 1.0 / (1.0 + (-f64::from(x)).exp());
    let term = |t: f64, p: f64| -(t * p.ln() + (1.0 - t) * (1.0 - p).ln());
    let old = |j: usize| j < 2;
    // iCaRL: the label's answer for new classes, the old model's for old ones, in one sum.
    let whole = mean(&ALL, |i| {
        (0..K)
            .map(|j| {
                let label = f64::from(u8::from(b.rows.labels[i] as usize == j));
                let t = if old(j) {
                    sigmoid(row(&b.teacher, i)[j])
                } else {
                    label
                };
                term(t, sigmoid(row(&b.z, i)[j]))
            })
            .sum()
    });
    let mask =
        |keep: bool| Combinator::Mask(Classes::Only((0..K).map(|j| old(j) == keep).collect()));
    // Rows 0, 1 and 3 have labels among the old classes: all their new targets are 0.
    let (at_labels, _) = b.one(bernoulli("all", Reference::Label).with(mask(false)));
    let (to_teacher, _) = b.one(bernoulli("all", Reference::Teacher).with(mask(true)));
    close(at_labels + to_teacher, whole, 1e-12, "iCaRL");
    // One class alone is the softmax of (z, 0).
    let only = Combinator::Mask(Classes::Only(vec![true, false, false, false, false]));
    let (value, _) = b.one(bernoulli("all", Reference::Label).with(only));
    let two = mean(&ALL, |i| {
        let p = softmax(&[row(&b.z, i)[0], 0.0], 1.0);
        -p[usize::from(b.rows.labels[i] != 0)].ln()
    });
    close(value, two, 1e-12, "one class");
}

#[test]
fn a_masked_label_leaves_the_teachers_order() {
    let mut b = Batch::new();
    b.rows.labels = vec![4; N];
    let mask = || Combinator::Mask(Classes::Only(vec![true, true, true, false, false]));
    let ranked = || plackett_luce("all", Choices::TeacherMass { t: 1.0 }).with(mask());
    let (value, _) = b.one(ranked());
    for i in ALL {
        let r = &row(&b.teacher, i)[..3];
        b.rows.labels[i] = (0..3).max_by(|&x, &y| r[x].total_cmp(&r[y])).unwrap() as u32;
    }
    assert_eq!(value, b.one(ranked()).0);
}

/// The published formula, `−t² Σ_j q_j ln p_j` with q padded with zeros, up to the entropy of q.
#[test]
fn padding_gives_unknown_classes_no_probability() {
    let mut b = Batch::new();
    b.rows.class_set = None;
    let (t, known) = (2.0, 3);
    let padded: Vec<bool> = (0..K).map(|c| c < known).collect();
    let term = padded_distillation("all", padded, t);
    let (value, grads) = b.one(term);
    let q = |i: usize| softmax(&row(&b.teacher, i)[..known], t);
    let p = |i: usize| softmax(row(&b.z, i), t);
    let want = mean(&ALL, |i| {
        let pairs = q(i).into_iter().zip(p(i));
        t * t * pairs.map(|(q, p)| q * (q / p).ln()).sum::<f64>()
    });
    close(value, want, 1e-6, "padded distillation");
    for i in ALL {
        for c in 0..K {
            let q = q(i).get(c).copied().unwrap_or(0.0);
            let want = t * (p(i)[c] - q) / ALL.len() as f64;
            close(
                f64::from(grads.logits[i * K + c]),
                want,
                1e-6,
                "its gradient",
            );
        }
    }
}

/// PCR as its code has it: every row against the proxies of all rows' labels.
#[test]
fn proxy_contrast_is_a_softmax_over_the_rows_of_the_batch() {
    let mut b = Batch::new();
    let t = 0.5;
    let pcr = |z: &[f32]| {
        mean(&ALL, |i| {
            let s = |j: usize| f64::from(row(z, i)[b.rows.labels[j] as usize]) / t;
            let below: f64 = ALL.iter().map(|&j| s(j).exp()).sum();
            let positives = ALL
                .iter()
                .filter(|&&j| b.rows.labels[j] == b.rows.labels[i]);
            let of: Vec<f64> = positives.map(|&j| (s(j).exp() / below).ln()).collect();
            -of.iter().sum::<f64>() / of.len() as f64
        })
    };
    let (value, grads) = b.one(proxy_contrast("all", t));
    let own = |i: usize| {
        let label = b.rows.labels[i];
        f64::ln(ALL.iter().filter(|&&j| b.rows.labels[j] == label).count() as f64)
    };
    close(value + mean(&ALL, own), pcr(&b.z), 1e-12, "PCR");
    for (j, got) in grads.logits.iter().enumerate() {
        let at = |step: f32| {
            let mut z = b.z.clone();
            z[j] += step;
            pcr(&z)
        };
        let step = 1.0 / 128.0;
        let slope = (8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step)))
            / (12.0 * f64::from(step));
        close(f64::from(*got), slope, 2e-6, "PCR by logits");
        // Class 4 is in no active row.
        assert!(j % K != 4 || got.to_bits() == 0);
    }
    // On a part of the batch it is still the batch's proxies that compete.
    let (part, _) = b.one(proxy_contrast("replay:b", t));
    let s = |c: usize| f64::from(row(&b.z, 5)[c]) / t;
    let below = s(0).exp() + 2.0 * s(1).exp() + 2.0 * s(2).exp() + s(3).exp();
    close(part, -(s(3).exp() / below).ln(), 1e-12, "part");
    // PCD: the mean over rows and the batch's labels, as columns.
    let pcd = mean(&REPLAY, |i| {
        let square = |j: &usize| {
            let c = b.rows.labels[*j] as usize;
            (f64::from(row(&b.z, i)[c]) - f64::from(row(&b.stored, i)[c])).powi(2)
        };
        ALL.iter().map(square).sum::<f64>() / 6.0
    });
    close(b.one(proxy_distillation("replay")).0, pcd, 1e-12, "PCD");
    b.rows.labels[1] = 7;
    let objective = Objective {
        terms: vec![proxy_contrast("replay", t)],
        reduction: Reduction::SumOfMeans,
    };
    assert!(matches!(
        b.evaluate(&objective, &mut CarrierGrads::default()),
        Err(Error::LabelOutsideClassSet {
            row: 1,
            label: 7,
            ..
        })
    ));
}

#[test]
fn the_balance_of_divergences_is_detached() {
    let b = Batch::new();
    let (t, kappa) = (2.0, 0.5);
    let balanced = Objective {
        terms: balanced_distillation("all", t, kappa).to_vec(),
        reduction: Reduction::SumOfMeans,
    };
    let mut grads = CarrierGrads::default();
    let value = b.evaluate(&balanced, &mut grads).unwrap();
    let entropy = |p: &[f64]| -p.iter().map(|p| p * p.ln()).sum::<f64>();
    let omega = |i: usize| {
        let (p, q) = (softmax(row(&b.z, i), t), softmax(row(&b.teacher, i), t));
        1.0 / (1.0 + ((entropy(&p) - entropy(&q)) / kappa).exp())
    };
    assert!(ALL.iter().any(|&i| omega(i) > 0.5) && ALL.iter().any(|&i| omega(i) < 0.5));
    let want = mean(&ALL, |i| {
        let (p, q) = (softmax(row(&b.z, i), t), softmax(row(&b.teacher, i), t));
        t * t * (omega(i) * kl(&q, &p) + (1.0 - omega(i)) * kl(&p, &q))
    });
    close(value.total, want, 1e-12, "BD-KD");
    // The gradient is that of the two divergences with ω as it stands.
    let plain = |generator| {
        let divergence = Divergence::F(generator);
        let term = Term {
            divergence,
            ..distillation("all", Reference::Teacher, t)
        };
        b.one(term).1.logits
    };
    let (forward, reverse) = (plain(Generator::ForwardKl), plain(Generator::ReverseKl));
    for i in ALL {
        for j in i * K..(i + 1) * K {
            let want = omega(i) * f64::from(forward[j]) + (1.0 - omega(i)) * f64::from(reverse[j]);
            close(f64::from(grads.logits[j]), want, 1e-7, "detached");
        }
    }
    // Turned round, the weights change places; with an endless width both are ½: Jeffreys/2.
    let total = |kappa: f64| {
        let terms = balanced_distillation("all", t, kappa).to_vec();
        let objective = Objective {
            terms,
            ..balanced.clone()
        };
        b.evaluate(&objective, &mut CarrierGrads::default())
            .unwrap()
            .total
    };
    let jeffreys = Term {
        divergence: Divergence::F(Generator::Jeffreys),
        ..distillation("all", Reference::Teacher, t)
    };
    close(
        total(kappa) + total(-kappa),
        b.one(jeffreys.clone()).0,
        1e-12,
        "both ways",
    );
    close(total(1e12), 0.5 * b.one(jeffreys).0, 1e-10, "fixed");
}

#[test]
fn batch_losses_are_their_formulas_on_the_active_rows_of_their_support() {
    let mut b = Batch::new();
    b.rows.class_set = Some(vec![1, 2, 1, 0, 1, 2, 0]);
    // The relation, over the rows that may use a class.
    let row_sets = [[0, 1, 2].as_slice(), &[1, 2, 3, 4], &[0, 1, 2]];
    let uses = |i: usize, c: usize| row_sets[i].contains(&c);
    let p = |z: &[f32], i: usize, c: usize| {
        let e = |i: usize| f64::from(row(z, i)[c]).exp();
        e(i) / (0..3).filter(|&i| uses(i, c)).map(e).sum::<f64>()
    };
    let relation = (0..K)
        .map(|c| {
            let rows = (0..3).filter(|&i| uses(i, c));
            let (q, p): (Vec<f64>, Vec<f64>) =
                rows.map(|i| (p(&b.teacher, i, c), p(&b.z, i, c))).unzip();
            kl(&q, &p)
        })
        .sum::<f64>()
        / K as f64;
    let by_row = prototype_relation("new", 1.0).with(Combinator::Mask(Classes::Row));
    let (value, grads) = b.one(by_row.clone());
    close(value, relation, 1e-12, "relation");
    for (j, got) in grads.logits.iter().enumerate() {
        let used = j / K < 3 && uses(j / K, j % K);
        assert!(used || got.to_bits() == 0, "{j}");
    }
    // Transport with one row is the L1 distance: twice the total variation.
    let tv = Term {
        divergence: Divergence::F(Generator::TotalVariation),
        ..distillation("replay:b", Reference::Teacher, 2.0)
    };
    let (transport, by_rows) = (b.one(sinkhorn("replay:b", 2.0)), b.one(tv));
    close(transport.0, 2.0 * by_rows.0 / 4.0, 1e-9, "one row");
    // A batch loss counts as the value of each of its rows.
    for (reduction, share) in [
        (Reduction::SumOfMeans, 1.0),
        (Reduction::MeanOverRows, 3.0 / 5.0),
    ] {
        let objective = Objective {
            terms: vec![by_row.clone().weighted(0.5), cross_entropy("replay:a")],
            reduction,
        };
        b.rows.class_set = Some(vec![1, 2, 1, 0, 1, 2, 0]);
        let value = b
            .evaluate(&objective, &mut CarrierGrads::default())
            .unwrap();
        close(value.terms[0], 0.5 * share * relation, 1e-12, "reduced");
        assert!(value.row_loss[0].is_nan() && !value.row_loss[3].is_nan());
    }
    // Where the rows stand changes nothing, but rows of their own weight cannot be served.
    let (all, _) = b.one(sup_con("all", 0.3));
    b.features.swap(0, 3 * WIDTH);
    b.features.swap(1, 3 * WIDTH + 1);
    b.features.swap(2, 3 * WIDTH + 2);
    b.rows.labels.swap(0, 3);
    close(b.one(sup_con("all", 0.3)).0, all, 1e-12, "order");
    let objective = |term| Objective {
        terms: vec![term],
        reduction: Reduction::SumOfMeans,
    };
    let mut grads = CarrierGrads::default();
    b.rows.weight = Some(vec![1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0]);
    assert!(
        b.evaluate(&objective(sup_con("new", 0.3)), &mut grads)
            .is_ok()
    );
    let refused = b.evaluate(&objective(sup_con("all", 0.3)), &mut grads);
    assert!(matches!(refused, Err(Error::BadTerm { .. })));
    b.rows.weight = None;
    b.z[4 * K] = f32::NAN;
    for term in [prototype_relation("all", 1.0), sinkhorn("all", 2.0)] {
        let failed = b.evaluate(&objective(term), &mut grads);
        assert!(matches!(failed, Err(Error::NotFinite { row: 4, .. })));
    }
}

#[test]
fn scrambled_teachers_keep_their_numbers_and_lose_their_places() {
    let mut b = Batch::new();
    b.rows.mask = None;
    let key = Key::new(8, "scramble");
    let squares = |b: &Batch, term: Term| b.one(term).0;
    let half = |reference| Term {
        reference,
        ..logits_l2("all", Normalisation::HalfSum)
    };
    let scrambled = half(Reference::Teacher).with(Combinator::Scramble(key));
    // ‖z − πr‖² with z = 0 is ‖r‖² for any π; against z at the label alone it shows the label kept.
    let z = std::mem::replace(&mut b.z, vec![0.0; N * K]);
    close(
        squares(&b, scrambled.clone()),
        squares(&b, half(Reference::Teacher)),
        1e-12,
        "length",
    );
    for i in 0..N {
        b.z[i * K + b.rows.labels[i] as usize] = 1.0;
    }
    close(
        squares(&b, scrambled.clone()),
        squares(&b, half(Reference::Teacher)),
        1e-12,
        "label",
    );
    b.z = z;
    let value = squares(&b, scrambled.clone());
    assert!((value - squares(&b, half(Reference::Teacher))).abs() > 1e-3);
    // The draw belongs to the row, wherever it stands.
    for data in [&mut b.z, &mut b.teacher] {
        data.rotate_left(K);
    }
    b.rows.labels.rotate_left(1);
    b.rows.ids.rotate_left(1);
    close(squares(&b, scrambled), value, 1e-12, "order");
}

#[test]
fn what_cannot_be_evaluated_says_why() {
    let objective = |term| Objective {
        terms: vec![term],
        reduction: Reduction::SumOfMeans,
    };
    let mut grads = CarrierGrads::default();
    let fail = |b: &Batch, term: Term, grads: &mut CarrierGrads| -> Error {
        b.evaluate(&objective(term), grads).unwrap_err()
    };
    let mut b = Batch::new();
    b.rows.labels[4] = 9;
    assert!(matches!(
        fail(&b, cross_entropy("all"), &mut grads),
        Error::LabelOutsideClassSet {
            row: 4,
            label: 9,
            ..
        }
    ));
    let mut b = Batch::new();
    b.rows.class_set = Some(vec![1; N]);
    assert!(matches!(
        fail(&b, cross_entropy("all"), &mut grads),
        Error::LabelOutsideClassSet {
            row: 5,
            label: 3,
            ..
        }
    ));
    for bad in [f32::NAN, f32::INFINITY] {
        let mut b = Batch::new();
        b.z[3 * K + 1] = bad;
        for term in [
            cross_entropy("replay"),
            cpr("all"),
            fdr("replay"),
            distillation("replay", Reference::Teacher, 2.0),
            logits_l2("replay", Normalisation::HalfSum),
        ] {
            let name = term.name.clone();
            assert_eq!(
                fail(&b, term, &mut grads),
                Error::NotFinite { term: name, row: 3 }
            );
        }
        // Rows outside the support are not read.
        assert!(
            b.evaluate(&objective(cross_entropy("new")), &mut grads)
                .is_ok()
        );
    }
    let b = Batch::new();
    let no_class = cross_entropy("new")
        .with(Combinator::Mask(Classes::Set(1)))
        .with(Combinator::Mask(Classes::Only(vec![
            false, false, false, true, true,
        ])));
    assert!(matches!(
        fail(&b, no_class, &mut grads),
        Error::NoClassLeft { row: 0, .. }
    ));
    let short = cross_entropy("new").with(Combinator::Mask(Classes::Only(vec![true; 2])));
    assert!(matches!(fail(&b, short, &mut grads), Error::Length { .. }));
    let far = cross_entropy("new").with(Combinator::Mask(Classes::Set(7)));
    assert!(matches!(fail(&b, far, &mut grads), Error::BadIndex { .. }));
    let on_policy = Term {
        estimator: Estimator::OnPolicy,
        ..distillation("new", Reference::Teacher, 1.0)
    };
    assert!(matches!(
        fail(&b, on_policy, &mut grads),
        Error::EstimatorUnavailable { .. }
    ));
    let mut empty = Batch::new();
    empty.rows.class_sets[0] = vec![false; K];
    assert!(matches!(
        fail(&empty, cross_entropy("new"), &mut grads),
        Error::EmptyClassSet(0)
    ));

    // A reference that was not given is an error where it is needed, and no matter where it is not.
    let inputs = Inputs {
        rows: &b.rows,
        logits: View::new(&b.z, N, K).unwrap(),
        features: None,
        references: References::default(),
    };
    let missing =
        objective(logits_l2("replay", Normalisation::HalfSum)).evaluate(&inputs, &mut grads);
    assert!(matches!(missing, Err(Error::MissingInput { .. })));
    let missing = objective(feature_l2(
        "new",
        Reference::Teacher,
        Normalisation::HalfSum,
    ));
    assert!(matches!(
        missing.evaluate(&inputs, &mut grads),
        Err(Error::MissingInput { .. })
    ));
    let idle = objective(logits_l2("replay:c", Normalisation::HalfSum));
    assert_eq!(idle.evaluate(&inputs, &mut grads).unwrap().total, 0.0);
}
