//! Gradients by finite differences, taps, and layers with a memory or a draw.

use burn::tensor::{Device, Tensor, TensorData};
use ebb_kernels::{seed, slices};
use ebb_net::{ActivationKind, HeadKind, Init, Mode, Model, NetworkSpec, Taps, TaskWeights};
use ebb_space::{Key, Weights};

fn mlp(activation: ActivationKind) -> NetworkSpec {
    NetworkSpec::Mlp {
        hidden: vec![6, 5],
        activation,
        standardise: false,
        head: HeadKind::Linear,
        dropout: 0.0,
        init: Init::FanIn,
    }
}

fn noise(n: usize, key: Key) -> Vec<f32> {
    let mut s = key.stream();
    (0..n).map(|_| s.normal() as f32).collect()
}

fn model(spec: &NetworkSpec, shape: [usize; 3], outputs: usize) -> Model {
    let network = spec.build(shape, outputs).expect("a valid network");
    Model::new(network, Key::new(1, "test"), &Device::flex())
}

/// The gradient of `Σ logits ⊙ g` at all parameters.
fn gradient(model: &mut Model, x: &[f32], g: &[f32], mode: Mode, taps: &mut Taps) -> Weights {
    let outputs = model.network().outputs();
    let n = g.len() / outputs;
    let leaves = model.leaves(None);
    let x = model.input(x.to_vec(), n);
    let out = model.forward_tracked(&leaves, x, mode, taps);
    let g = Tensor::<2>::from_data(TensorData::new(g.to_vec(), [n, outputs]), model.device());
    let mut grads = seed(out.logits, g).backward();
    let mut w = Weights::zeros(model.layout());
    leaves.collect(&mut grads, &mut w);
    w
}

fn value(model: &mut Model, x: &[f32], g: &[f32], mode: Mode) -> f64 {
    let n = g.len() / model.network().outputs();
    let leaves = model.leaves(None);
    let x = model.input(x.to_vec(), n);
    let out = model.forward_tracked(&leaves, x, mode, &mut Taps::none());
    slices::read(&out.logits, |z| {
        z.iter()
            .zip(g)
            .map(|(z, g)| f64::from(*z) * f64::from(*g))
            .sum()
    })
}

/// Directional derivative along the gradient itself, and along a random direction.
fn check_by_differences(spec: &NetworkSpec, shape: [usize; 3], mode: Mode, tolerance: f64) {
    let mut m = model(spec, shape, 4);
    let inputs = shape.iter().product::<usize>();
    let x = noise(6 * inputs, Key::new(2, "x"));
    let g = noise(6 * 4, Key::new(3, "g"));
    let start = m.weights();
    let grad = gradient(&mut m, &x, &g, mode, &mut Taps::none());
    for direction in [grad.clone(), random_like(&grad)] {
        let expected = grad.dot(&direction) / direction.norm();
        let h = 2e-3 / direction.norm();
        let mut at = |s: f64| {
            let mut w = start.clone();
            w.axpy((s * h) as f32, &direction);
            m.set_weights(&w).expect("the same layout");
            value(&mut m, &x, &g, mode)
        };
        // Fourth order, so that the step can be large enough for f32.
        let d = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / 12.0 / 2e-3;
        let scale = grad.norm().max(1e-3);
        assert!(
            (d - expected).abs() / scale < tolerance,
            "{spec:?}: by differences {d}, by the graph {expected}, gradient norm {scale}"
        );
    }
}

fn random_like(w: &Weights) -> Weights {
    let mut r = w.zeros_like();
    let values = noise(w.as_slice().len(), Key::new(9, "direction"));
    r.as_mut_slice().copy_from_slice(&values);
    r
}

#[test]
fn gradients_agree_with_finite_differences() {
    let rows: Vec<u64> = (0..6).collect();
    let train = Mode::Train {
        key: Key::new(5, "dropout"),
        rows: &rows,
    };
    for activation in [
        ActivationKind::Tanh,
        ActivationKind::Elephant { a: 0.5, d: 4.0 },
        ActivationKind::Ash {
            alpha: 3.0,
            z_k: 0.5,
        },
        ActivationKind::Sigmoid,
    ] {
        check_by_differences(&mlp(activation), [1, 3, 3], Mode::Eval, 2e-3);
    }
    // Kinked functions: a step may cross a kink, so the bound is wider.
    for activation in [
        ActivationKind::Relu,
        ActivationKind::HardAsh {
            alpha: 3.0,
            z_k: 0.5,
        },
        ActivationKind::KWinners { share: 0.5 },
    ] {
        check_by_differences(&mlp(activation), [1, 3, 3], Mode::Eval, 2e-2);
    }
    let dropped = NetworkSpec::Mlp {
        hidden: vec![8],
        activation: ActivationKind::Tanh,
        standardise: false,
        head: HeadKind::Linear,
        dropout: 0.4,
        init: Init::He,
    };
    check_by_differences(&dropped, [1, 3, 3], train, 2e-3);
    for (norm, depth, hidden) in [(false, 1, 5), (true, 1, 5), (true, 2, 0), (false, 2, 3)] {
        let cnn = NetworkSpec::Cnn {
            channels: vec![3, 4],
            depth,
            hidden,
            norm,
            head: HeadKind::Linear,
            dropout: 0.0,
            init: Init::He,
        };
        for mode in [Mode::Eval, train] {
            check_by_differences(&cnn, [2, 8, 8], mode, 3e-2);
        }
    }
    let resnet = NetworkSpec::Resnet18 {
        width: 2,
        head: HeadKind::Linear,
        init: Init::He,
    };
    check_by_differences(&resnet, [1, 8, 8], Mode::Eval, 3e-2);
    let factors = TaskWeights::Factors {
        first: 3,
        step: 2,
        reuse: true,
    };
    for weights in [TaskWeights::Relevance { sharpness: 3.0 }, factors] {
        let tasks = NetworkSpec::TaskMlp {
            hidden: vec![8, 7],
            weights,
            tasks: 2,
            init: Init::He,
        };
        check_by_differences(&tasks, [1, 3, 3], train, 3e-2);
    }
    for learn in [false, true] {
        let (scale, activation) = (4.0, ActivationKind::Tanh);
        let cosine = NetworkSpec::Mlp {
            hidden: vec![6, 5],
            activation,
            standardise: true,
            head: HeadKind::Cosine { scale, learn },
            dropout: 0.0,
            init: Init::FanIn,
        };
        check_by_differences(&cosine, [1, 3, 3], Mode::Eval, 2e-3);
    }
}

/// The gradient at `input` along itself and along a random direction, by differences.
#[test]
fn the_gradient_of_the_input_agrees_with_finite_differences() {
    let smooth = mlp(ActivationKind::Tanh);
    let cnn = NetworkSpec::Cnn {
        channels: vec![3, 4],
        depth: 1,
        hidden: 5,
        norm: true,
        head: HeadKind::Cosine {
            scale: 3.0,
            learn: false,
        },
        dropout: 0.0,
        init: Init::He,
    };
    let resnet = NetworkSpec::Resnet18 {
        width: 2,
        head: HeadKind::Linear,
        init: Init::He,
    };
    for (spec, shape, tolerance) in [
        (smooth, [1, 3, 3], 1e-3),
        (cnn, [2, 8, 8], 3e-2),
        (resnet, [1, 8, 8], 3e-2),
    ] {
        let mut m = model(&spec, shape, 4);
        let inputs = m.network().inputs();
        let x = noise(3 * inputs, Key::new(2, "x"));
        let g = noise(3 * 4, Key::new(3, "g"));
        let plain = gradient(&mut m, &x, &g, Mode::Eval, &mut Taps::none());
        let mut taps = Taps::none().differentiate("input");
        let leaves = m.leaves(None);
        let input = m.input(x.clone(), 3);
        let out = m.forward_tracked(&leaves, input, Mode::Eval, &mut taps);
        let start = Tensor::<2>::from_data(TensorData::new(g.clone(), [3, 4]), m.device());
        let mut grads = seed(out.logits, start).backward();
        let at_input = taps.gradient("input", &mut grads).expect("asked for");
        assert_eq!(at_input.dims(), [3, inputs]);
        let at_input = slices::to_vec(&at_input);
        let mut w = Weights::zeros(m.layout());
        leaves.collect(&mut grads, &mut w);
        assert_eq!(w.as_slice(), plain.as_slice(), "asking changes nothing");
        let norm = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let random = noise(x.len(), Key::new(8, "direction"));
        for direction in [&at_input, &random] {
            let pairs = at_input.iter().zip(direction.iter());
            let along: f64 = pairs.map(|(a, d)| f64::from(*a) * f64::from(*d)).sum();
            let expected = along / norm(direction);
            let h = 2e-3;
            let mut at = |s: f64| {
                let step = (s * h / norm(direction)) as f32;
                let moved: Vec<f32> = x.iter().zip(direction).map(|(x, d)| x + step * d).collect();
                value(&mut m, &moved, &g, Mode::Eval)
            };
            let found = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / 12.0 / h;
            let scale = norm(&at_input);
            assert!(scale > 1e-3, "{spec:?}: nothing depends on the input");
            assert!(
                (found - expected).abs() / scale < tolerance,
                "{spec:?}: by differences {found}, by the graph {expected}, norm {scale}"
            );
        }
    }
}

/// Logits of a cosine head from its features and weights, written out.
#[test]
fn a_cosine_head_sees_angles_only() {
    let spec = |learn| NetworkSpec::Mlp {
        hidden: vec![7],
        activation: ActivationKind::Tanh,
        standardise: false,
        head: HeadKind::Cosine { scale: 6.0, learn },
        dropout: 0.0,
        init: Init::FanIn,
    };
    let x = noise(5 * 9, Key::new(2, "x"));
    for (learn, paths) in [
        (false, vec!["heads.0.weight", "heads.1.weight"]),
        (
            true,
            vec![
                "heads.0.weight",
                "heads.0.scale",
                "heads.1.weight",
                "heads.1.scale",
            ],
        ),
    ] {
        let network = spec(learn).build_heads([1, 3, 3], 3, 2).expect("two heads");
        assert!(network.linear_sites().is_none(), "no linear layer");
        let mut m = Model::new(network, Key::new(1, "test"), &Device::flex());
        let layout = m.layout().clone();
        let found: Vec<&str> = layout.entries()[2..]
            .iter()
            .map(|e| e.path.as_str())
            .collect();
        assert_eq!(found, paths);
        let mut w = m.weights();
        // The length of a class's weights must not matter.
        if let Some(row) = w.get_mut("heads.1.weight") {
            row[..7].iter_mut().for_each(|v| *v *= 50.0);
        }
        if let Some(scale) = w.get_mut("heads.1.scale") {
            assert_eq!(scale, [6.0], "starts at the scale of the recipe");
            scale[0] = 2.0;
        }
        m.set_weights(&w).expect("the same layout");
        let input = m.input(x.clone(), 5);
        let out = m.forward(input, &mut Taps::none());
        let (f, z) = (slices::to_vec(&out.features), slices::to_vec(&out.logits));
        let norm = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        for (f, z) in f.chunks(7).zip(z.chunks(6)) {
            for (class, z) in z.iter().enumerate() {
                let rows = w
                    .get(&format!("heads.{}.weight", class / 3))
                    .expect("a head");
                let row = &rows[class % 3 * 7..][..7];
                let dot: f64 = f
                    .iter()
                    .zip(row)
                    .map(|(f, w)| f64::from(*f) * f64::from(*w))
                    .sum();
                let scale = if learn && class >= 3 { 2.0 } else { 6.0 };
                let expected = scale * dot / norm(f) / norm(row);
                assert!(
                    (f64::from(*z) - expected).abs() < 1e-5,
                    "{z} and {expected}"
                );
            }
        }
    }
}

/// Standardised weights: what they are is their rows less the mean, over the length.
#[test]
fn standardised_weights_are_used_with_mean_0_and_length_1() {
    let mut m = model(
        &NetworkSpec::Mlp {
            hidden: vec![6],
            activation: ActivationKind::Relu,
            standardise: true,
            head: HeadKind::Linear,
            dropout: 0.0,
            init: Init::He,
        },
        [1, 3, 3],
        4,
    );
    assert!(m.network().linear_sites().is_none());
    let w = m.weights();
    let x = noise(2 * 9, Key::new(2, "x"));
    let mut taps = Taps::none().read("layers.0.pre");
    let input = m.input(x.clone(), 2);
    m.forward(input, &mut taps);
    let pre = slices::to_vec(taps.value("layers.0.pre").expect("asked for"));
    let weight = w.get("layers.0.weight").expect("a layer");
    for (x, pre) in x.chunks(9).zip(pre.chunks(6)) {
        for (row, pre) in weight.chunks(9).zip(pre) {
            let mean = row.iter().map(|w| f64::from(*w)).sum::<f64>() / 9.0;
            let centred: Vec<f64> = row.iter().map(|w| f64::from(*w) - mean).collect();
            let length = centred.iter().map(|w| w * w).sum::<f64>().sqrt();
            let dot: f64 = centred.iter().zip(x).map(|(w, x)| w * f64::from(*x)).sum();
            assert!((dot / length - f64::from(*pre)).abs() < 1e-5, "{pre}");
        }
    }
}

#[test]
fn a_tap_reads_replaces_and_differentiates() {
    let mut m = model(&mlp(ActivationKind::Relu), [1, 3, 3], 4);
    let x = noise(5 * 9, Key::new(2, "x"));
    let g = noise(5 * 4, Key::new(3, "g"));
    let plain = gradient(&mut m, &x, &g, Mode::Eval, &mut Taps::none());
    // Asking takes the fused layer apart; the bits stay.
    let mut taps = Taps::none()
        .read("layers.1.in")
        .differentiate("layers.1.pre");
    let leaves = m.leaves(None);
    let input = m.input(x.clone(), 5);
    let out = m.forward_tracked(&leaves, input, Mode::Eval, &mut taps);
    let gt = Tensor::<2>::from_data(TensorData::new(g.clone(), [5, 4]), m.device());
    let mut grads = seed(out.logits, gt).backward();
    let delta = slices::to_vec(
        &taps
            .gradient("layers.1.pre", &mut grads)
            .expect("asked for"),
    );
    let mut w = Weights::zeros(m.layout());
    leaves.collect(&mut grads, &mut w);
    assert_eq!(w.as_slice(), plain.as_slice(), "a tap changes nothing");
    // dW = δᵀ a, computed by hand from what the taps gave.
    let a = slices::to_vec(taps.value("layers.1.in").expect("asked for"));
    let dw = plain.get("layers.1.weight").expect("a layer");
    for o in 0..5 {
        for i in 0..6 {
            let by_hand: f64 = (0..5)
                .map(|n| f64::from(delta[n * 5 + o]) * f64::from(a[n * 6 + i]))
                .sum();
            assert!((by_hand - f64::from(dw[o * 6 + i])).abs() < 1e-5);
        }
    }
    // A replaced activation decides what follows.
    let zeros = Tensor::<2>::zeros([5, 5], m.device());
    let input = m.input(x, 5);
    let out = m.forward(input, &mut Taps::none().replace("layers.1.out", zeros));
    let bias = m.weights().get("head.bias").expect("a head").to_vec();
    for row in slices::to_vec(&out.logits).chunks(4) {
        assert_eq!(row, bias);
    }
}

#[test]
fn every_name_a_network_gives_is_a_tap() {
    let specs = [
        (mlp(ActivationKind::Relu), [1, 3, 3]),
        (
            NetworkSpec::Cnn {
                channels: vec![2],
                depth: 1,
                hidden: 3,
                norm: true,
                head: HeadKind::Linear,
                dropout: 0.0,
                init: Init::He,
            },
            [1, 4, 4],
        ),
        (
            NetworkSpec::Cnn {
                channels: vec![2, 3],
                depth: 2,
                hidden: 0,
                norm: false,
                head: HeadKind::Linear,
                dropout: 0.0,
                init: Init::He,
            },
            [3, 4, 4],
        ),
        (
            NetworkSpec::Resnet18 {
                width: 1,
                head: HeadKind::Linear,
                init: Init::He,
            },
            [1, 8, 8],
        ),
        (
            NetworkSpec::TaskMlp {
                hidden: vec![3],
                weights: TaskWeights::default(),
                tasks: 2,
                init: Init::He,
            },
            [1, 3, 3],
        ),
    ];
    for (spec, shape) in specs {
        let mut m = model(&spec, shape, 2);
        let names = m.network().taps();
        assert_eq!(names[0], "input");
        let x = m.input(noise(2 * m.network().inputs(), Key::new(0, "x")), 2);
        let plain = m.forward(x.clone(), &mut Taps::none());
        let plain = slices::to_vec(&plain.logits);
        for name in names {
            let mut taps = Taps::none().read(name.as_str());
            let out = m.forward(x.clone(), &mut taps);
            assert!(taps.value(&name).is_some(), "`{name}` was never met");
            assert_eq!(slices::to_vec(&out.logits), plain, "reading `{name}`");
        }
    }
}

#[test]
fn dropout_depends_on_the_example_and_not_on_its_neighbours() {
    let spec = NetworkSpec::Mlp {
        hidden: vec![50],
        activation: ActivationKind::Relu,
        standardise: false,
        head: HeadKind::Linear,
        dropout: 0.5,
        init: Init::He,
    };
    let mut m = model(&spec, [1, 3, 3], 2);
    let x = noise(3 * 9, Key::new(2, "x"));
    let key = Key::new(4, "step");
    let mut run = |rows: &[u64], x: &[f32]| {
        let leaves = m.leaves(None);
        let input = m.input(x.to_vec(), rows.len());
        let mut taps = Taps::none().read("layers.0.out");
        m.forward_tracked(&leaves, input, Mode::Train { key, rows }, &mut taps);
        slices::to_vec(taps.value("layers.0.out").expect("asked for"))
    };
    let all = run(&[10, 11, 12], &x);
    let without = run(&[10, 12], &[&x[..9], &x[18..]].concat());
    assert_eq!(all[..50], without[..50]);
    assert_eq!(all[100..], without[50..]);
}

#[test]
fn batch_norm_normalises_and_remembers() {
    let spec = NetworkSpec::Cnn {
        channels: vec![3],
        depth: 1,
        hidden: 2,
        norm: true,
        head: HeadKind::Linear,
        dropout: 0.0,
        init: Init::He,
    };
    let mut m = model(&spec, [1, 4, 4], 2);
    let x = noise(10 * 16, Key::new(2, "x"));
    let rows: Vec<u64> = (0..10).collect();
    let mode = Mode::Train {
        key: Key::new(0, ""),
        rows: &rows,
    };
    let leaves = m.leaves(None);
    let input = m.input(x.clone(), 10);
    let mut taps = Taps::none().read("blocks.0.pre");
    m.forward_tracked(&leaves, input, mode, &mut taps);
    let z = slices::to_vec(taps.value("blocks.0.pre").expect("asked for"));
    for c in 0..3 {
        let channel: Vec<f64> = (0..10)
            .flat_map(|n| z[n * 48 + c * 16..][..16].iter().map(|v| f64::from(*v)))
            .collect();
        let mean = channel.iter().sum::<f64>() / 160.0;
        let var = channel.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 160.0;
        assert!(
            mean.abs() < 1e-5 && (var - 1.0).abs() < 1e-3,
            "{mean} {var}"
        );
    }
    let remembered = m
        .buffers()
        .get("blocks.0.norm.running_mean")
        .expect("a norm");
    assert!(remembered.iter().any(|v| *v != 0.0));
    let before = m.buffers().clone();
    let input = m.input(x, 10);
    m.forward(input, &mut Taps::none());
    assert_eq!(
        before.as_slice(),
        m.buffers().as_slice(),
        "evaluation remembers nothing"
    );
}

#[test]
fn a_clone_is_a_deep_copy_and_updates_are_in_place() {
    let mut m = model(&mlp(ActivationKind::Relu), [1, 2, 2], 2);
    let copy = m.clone();
    let before = copy.weights();
    m.update(|_, values| values.iter_mut().for_each(|v| *v += 1.0));
    assert_eq!(copy.weights().as_slice(), before.as_slice());
    assert!((m.weights().as_slice()[0] - before.as_slice()[0] - 1.0).abs() < 1e-6);
}

#[test]
fn a_network_that_cannot_be_says_why() {
    let zero = NetworkSpec::Mlp {
        hidden: vec![0],
        activation: ActivationKind::Relu,
        standardise: false,
        head: HeadKind::Linear,
        dropout: 0.0,
        init: Init::FanIn,
    };
    let e = zero.build([1, 2, 2], 2).expect_err("no units");
    assert!(e.to_string().contains("at least one unit"), "{e}");
    let deep = NetworkSpec::Cnn {
        channels: vec![4; 9],
        depth: 1,
        hidden: 5,
        norm: false,
        head: HeadKind::Linear,
        dropout: 0.0,
        init: Init::He,
    };
    let e = deep.build([1, 8, 8], 2).expect_err("halved away");
    assert!(e.to_string().contains("halving blocks"), "{e}");
}

/// Several heads are one wide head with other names: the same weights give the same bits.
#[test]
fn heads_stand_side_by_side() {
    let spec = mlp(ActivationKind::Relu);
    let network = spec.build_heads([1, 3, 3], 2, 3).expect("three heads");
    let mut many = Model::new(network, Key::new(1, "test"), &Device::flex());
    let mut wide = model(&spec, [1, 3, 3], 6);
    let from = many.weights();
    let mut to = wide.weights();
    for (entry, values) in from.iter() {
        match entry.path.strip_prefix("heads.") {
            None => to
                .get_mut(&entry.path)
                .expect("shared")
                .copy_from_slice(values),
            Some(rest) => {
                let (t, part) = rest.split_once('.').expect("heads.t.part");
                let t: usize = t.parse().expect("a number");
                let all = to.get_mut(&format!("head.{part}")).expect("the wide head");
                all[t * values.len()..][..values.len()].copy_from_slice(values);
            }
        }
    }
    wide.set_weights(&to).expect("the same layout");
    let x = noise(4 * 9, Key::new(2, "x"));
    let a = many
        .forward(many.input(x.clone(), 4), &mut Taps::none())
        .logits;
    let b = wide.forward(wide.input(x, 4), &mut Taps::none()).logits;
    for (a, b) in slices::to_vec(&a).iter().zip(slices::to_vec(&b)) {
        assert!((a - b).abs() < 1e-6);
    }
}
