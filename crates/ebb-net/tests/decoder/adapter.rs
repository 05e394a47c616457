//! Low-rank updates against networks whose weights have them merged, and against finite
//! differences.

use crate::checkpoint::{Fixture, furthest};
use burn::tensor::{Tensor, TensorData};
use ebb_kernels::{seed, slices};
use ebb_net::{AdapterSpec, Between, Error, Gate, Mode, Model, Taps};
use ebb_space::{Key, Weights};

const FAMILIES: [&str; 4] = ["llama-tied", "qwen3", "gpt2", "gpt-neox"];

fn spec(gate: Gate) -> AdapterSpec {
    let answers = matches!(gate, Gate::Answers { .. });
    AdapterSpec {
        rank: 3,
        gate,
        between: if answers {
            Between::Keep
        } else {
            Between::Merge
        },
        ..AdapterSpec::default()
    }
}

fn gates() -> [Gate; 4] {
    [
        Gate::Open,
        Gate::Ranks,
        Gate::Switch {
            threshold: 0.1,
            start: 0.2,
        },
        Gate::Answers {
            top: 2,
            temperature: 0.5,
            reserved: 0,
            shuffled: false,
        },
    ]
}

fn noise(n: usize, of: &str) -> Vec<f32> {
    let mut stream = Key::new(1, of).stream();
    (0..n).map(|_| stream.normal() as f32).collect()
}

/// The trained values moved away from where they begin: B is no longer 0.
fn moved(model: &mut Model, by: &str) {
    let mut weights = model.weights();
    let n = weights.as_slice().len();
    let add = noise(n, by);
    (weights.as_mut_slice().iter_mut().zip(add)).for_each(|(w, d)| *w += 0.05 * d);
    model.set_weights(&weights).expect("its own");
}

fn ids(fixture: &Fixture, model: &Model) -> Tensor<2> {
    let ids = fixture.tensor("ids");
    let rows = ids.len() / 14;
    Tensor::from_data(TensorData::new(ids, [rows, 14]), model.device())
}

fn logits(model: &mut Model, x: &Tensor<2>) -> Vec<f32> {
    slices::to_vec(&model.forward(x.clone(), &mut Taps::none()).logits)
}

/// The sum of logits times fixed numbers, and its gradient.
fn pulled(model: &mut Model, x: &Tensor<2>) -> (f64, Weights) {
    let leaves = model.leaves(None);
    let out = model.forward_tracked(&leaves, x.clone(), Mode::Eval, &mut Taps::none());
    let shape = out.logits.dims();
    let by = noise(shape[0] * shape[1], "by logits");
    let value = slices::read(&out.logits, |z| {
        z.iter()
            .zip(&by)
            .map(|(z, g)| f64::from(*z) * f64::from(*g))
            .sum()
    });
    let by = Tensor::<2>::from_data(TensorData::new(by, shape), model.device());
    let mut gradients = seed(out.logits, by).backward();
    let mut into = Weights::zeros(model.layout());
    leaves.collect(&mut gradients, &mut into);
    (value, into)
}

#[test]
fn a_fresh_adapter_changes_no_bit_and_a_merged_one_answers_as_before() {
    for name in FAMILIES {
        let fixture = Fixture::open(name);
        for gate in gates() {
            let mut model = fixture.model(&fixture.config);
            let x = ids(&fixture, &model);
            let before = logits(&mut model, &x);
            let base = model.weights();
            let key = Key::new(3, "adapter");
            model
                .train_part(&[], Some(&spec(gate)), key)
                .expect("it fits");
            assert!(model.layout().len() < base.layout().len());
            assert_eq!(logits(&mut model, &x), before, "{name} {gate:?}");
            moved(&mut model, "an experience");
            let adapted = logits(&mut model, &x);
            assert!(furthest(&adapted, &before) > 1e-3, "{name} {gate:?}");
            let trained = model.weights();
            let merged = model.merged_weights();
            assert!(model.turn_adapter(key.at(1)).expect("it can"));
            assert_eq!(model.turned().len(), 1);
            if let Gate::Answers { .. } = gate {
                // Kept ranks go on answering, and what depends on the input is no matrix.
                assert!(matches!(merged, Err(Error::Weights { .. })));
                moved(&mut model, "another");
            } else {
                let mut whole = fixture.model(&fixture.config);
                whole
                    .set_weights(&merged.expect("it is one"))
                    .expect("all of it");
                for answer in [logits(&mut whole, &x), logits(&mut model, &x)] {
                    assert!(furthest(&answer, &adapted) < 2e-4, "{name} {gate:?}");
                }
            }
            // A state is what was trained before and what is trained now, on the base.
            let mut again = fixture.model(&fixture.config);
            again
                .train_part(&[], Some(&spec(gate)), key)
                .expect("it fits");
            again.take_in(trained).expect("its own");
            again.set_weights(&model.weights()).expect("its own");
            assert_eq!(logits(&mut again, &x), logits(&mut model, &x));
        }
    }
}

/// Of every gate, against finite differences of f32 forward passes; the base gets no gradient.
#[test]
fn gradients_are_those_of_finite_differences() {
    let fixture = Fixture::open("llama-tied");
    for mut gate in gates() {
        // With all ranks acting, none drops out on the way.
        if let Gate::Answers { top, .. } = &mut gate {
            *top = 6;
        }
        let mut model = fixture.model(&fixture.config);
        let x = ids(&fixture, &model);
        let base = model.weights();
        let key = Key::new(3, "adapter");
        model
            .train_part(&[], Some(&spec(gate)), key)
            .expect("it fits");
        moved(&mut model, "an experience");
        if let Gate::Answers { .. } = gate {
            model.turn_adapter(key.at(1)).expect("kept");
            moved(&mut model, "another");
        }
        let theta = model.weights();
        let (_, gradient) = pulled(&mut model, &x);
        let direction = noise(theta.as_slice().len(), "direction");
        let along: f64 = (gradient.as_slice().iter().zip(&direction))
            .map(|(g, d)| f64::from(*g) * f64::from(*d))
            .sum();
        // Switches have no derivative by themselves: only what is continuous is moved.
        let is_switch = |path: &str| matches!(gate, Gate::Switch { .. }) && path.ends_with("gate");
        let mut exact = 0.0;
        let mut straight = 0.0;
        for entry in theta.layout().entries() {
            if is_switch(&entry.path) {
                let range = entry.range.clone();
                let of = gradient.as_slice()[range.clone()]
                    .iter()
                    .zip(&direction[range]);
                straight += of.map(|(g, d)| f64::from(*g) * f64::from(*d)).sum::<f64>();
            }
        }
        let h = 1e-3f32;
        for (sign, at) in [(1.0, h), (-1.0, -h)] {
            let mut there = theta.clone();
            for entry in theta.layout().entries() {
                if !is_switch(&entry.path) {
                    for i in entry.range.clone() {
                        there.as_mut_slice()[i] += at * direction[i];
                    }
                }
            }
            model.set_weights(&there).expect("its own");
            exact += sign * pulled(&mut model, &x).0 / (2.0 * f64::from(h));
        }
        let found = along - straight;
        assert!(
            (found - exact).abs() <= 2e-2 * exact.abs().max(1.0),
            "{gate:?}: {found} and {exact}"
        );
        assert_eq!(
            fixture.model(&fixture.config).weights().as_slice(),
            base.as_slice()
        );
    }
}

/// A closed switch adds nothing and still feels what it would add if it were open.
#[test]
fn a_switch_passes_its_gradient_straight() {
    let fixture = Fixture::open("llama-tied");
    let gate = Gate::Switch {
        threshold: 0.1,
        start: 0.2,
    };
    let mut model = fixture.model(&fixture.config);
    let x = ids(&fixture, &model);
    let before = logits(&mut model, &x);
    model
        .train_part(&[], Some(&spec(gate)), Key::new(3, "adapter"))
        .expect("it fits");
    moved(&mut model, "an experience");
    let mut weights = model.weights();
    let paths: Vec<_> = (weights.layout().entries().iter())
        .filter(|e| e.path.ends_with("lora_gate"))
        .map(|e| e.range.start)
        .collect();
    // All closed but the first, which is held to what the derivative by it says.
    for at in &paths {
        weights.as_mut_slice()[*at] = 0.05;
    }
    model.set_weights(&weights).expect("its own");
    assert_eq!(logits(&mut model, &x), before);
    let (closed, gradient) = pulled(&mut model, &x);
    let slope = f64::from(gradient.as_slice()[paths[0]]);
    assert!(slope.abs() > 1e-3);
    let others = (weights.layout().entries().iter()).filter(|e| !e.path.ends_with("lora_gate"));
    for entry in others {
        assert!(
            gradient.as_slice()[entry.range.clone()]
                .iter()
                .all(|g| *g == 0.0)
        );
    }
    // A small share of the first map's update, by its own scale: the derivative at 0.
    let layout = weights.layout().clone();
    let path = &layout.entries()[layout
        .entries()
        .iter()
        .position(|e| e.range.start == paths[0])
        .expect("it")]
    .path;
    let up = path.replace("lora_gate", "lora_B.weight");
    let range = layout.find(&up).expect("its B").range.clone();
    let share = 1e-2f32;
    for i in range {
        weights.as_mut_slice()[i] *= share;
    }
    weights.as_mut_slice()[paths[0]] = 0.2;
    model.set_weights(&weights).expect("its own");
    let (open, _) = pulled(&mut model, &x);
    let exact = (open - closed) / f64::from(share);
    assert!(
        (slope - exact).abs() < 5e-2 * exact.abs().max(1.0),
        "{slope} and {exact}"
    );
}

/// Blocks computed twice give the same gradient of a part.
#[test]
fn a_part_is_checkpointed_as_the_whole_is() {
    let fixture = Fixture::open("qwen3");
    let parts: [(&[&str], Option<AdapterSpec>); 3] = [
        (&[], Some(spec(Gate::Ranks))),
        (&["model.layers.1.*"], None),
        (&["model.norm.weight"], Some(spec(Gate::Open))),
    ];
    for (only, adapter) in parts {
        let mut model = fixture.model(&fixture.config);
        let x = ids(&fixture, &model);
        let only: Vec<String> = only.iter().map(|p| (*p).to_owned()).collect();
        model
            .train_part(&only, adapter.as_ref(), Key::new(3, "adapter"))
            .expect("it fits");
        moved(&mut model, "an experience");
        let (_, plain) = pulled(&mut model, &x);
        assert!(plain.norm() > 1e-3);
        let device = model.device().clone();
        let mut by = |out: &ebb_net::Output| {
            let shape = out.logits.dims();
            let by = noise(shape[0] * shape[1], "by logits");
            Ok((Tensor::from_data(TensorData::new(by, shape), &device), None))
        };
        let mut twice = plain.zeros_like();
        let done = model.checkpointed(x, &mut by, &mut twice);
        done.expect("it has blocks").expect("a seed");
        assert!(furthest(plain.as_slice(), twice.as_slice()) < 1e-4);
    }
}

/// What is trained alone has the gradient it has among all, and the rest does not move.
#[test]
fn a_part_has_the_gradient_it_has_in_the_whole() {
    let fixture = Fixture::open("gpt2");
    let mut model = fixture.model(&fixture.config);
    let x = ids(&fixture, &model);
    let (_, all) = pulled(&mut model, &x);
    model
        .train_part(&["*.attn.*".to_owned()], None, Key::new(3, "part"))
        .expect("it fits");
    let (_, part) = pulled(&mut model, &x);
    assert!(!part.layout().is_empty() && part.layout().len() < all.layout().len());
    for entry in part.layout().entries() {
        let range = all
            .layout()
            .find(&entry.path)
            .expect("of the network")
            .range
            .clone();
        let (a, b) = (
            &part.as_slice()[entry.range.clone()],
            &all.as_slice()[range],
        );
        assert!(furthest(a, b) < 1e-5, "{}", entry.path);
    }
}

#[test]
fn what_cannot_be_adapted_is_refused_with_what_there_is() {
    let fixture = Fixture::open("llama-tied");
    let mut model = fixture.model(&fixture.config);
    let key = Key::new(3, "adapter");
    let mut refused = |only: &[&str], spec: Option<AdapterSpec>| {
        let only: Vec<String> = only.iter().map(|p| (*p).to_owned()).collect();
        let e = model
            .train_part(&only, spec.as_ref(), key)
            .expect_err("wrong");
        e.to_string()
    };
    let on = |pattern: &str| AdapterSpec {
        on: vec![pattern.to_owned()],
        ..AdapterSpec::default()
    };
    let said = refused(&[], Some(on("*.qproj")));
    assert!(
        said.contains("*.qproj") && said.contains("self_attn.q_proj"),
        "{said}"
    );
    let said = refused(&["model.layer.*"], None);
    assert!(
        said.contains("model.layer.*") && said.contains("embed_tokens"),
        "{said}"
    );
    let nothing = AdapterSpec {
        rank: 0,
        ..AdapterSpec::default()
    };
    assert!(refused(&[], Some(nothing)).contains("rank"));
}
