//! Activations against their closed forms, and how recipes write them.

use burn::tensor::{Device, Tensor, TensorData};
use ebb_kernels::{seed, slices};
use ebb_net::{ActivationKind, HeadKind, NetworkSpec};
use ebb_space::Key;

/// Values at one row `z`, and the gradient there of `Σ g y`.
fn run(kind: ActivationKind, z: &[f32], g: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let device = Device::flex();
    let row = |values: &[f32]| TensorData::new(values.to_vec(), [1, values.len()]);
    let leaf = Tensor::<2>::from_data(row(z), &device)
        .autodiff()
        .require_grad();
    let y = kind.apply(leaf.clone());
    let values = slices::to_vec(&y);
    let mut gradients = seed(y, Tensor::from_data(row(g), &device)).backward();
    let gradient = leaf.grad_remove(&mut gradients).expect("a leaf");
    (values, slices::to_vec(&gradient))
}

fn noise(n: usize, purpose: &str) -> Vec<f32> {
    let mut s = Key::new(1, purpose).stream();
    (0..n).map(|_| s.normal() as f32).collect()
}

fn close(a: f32, b: f64, what: &str) {
    let bound = 2e-5 * (1.0 + b.abs());
    assert!((f64::from(a) - b).abs() < bound, "{what}: {a} and {b}");
}

fn logistic(t: f64) -> f64 {
    1.0 / (1.0 + (-t).exp())
}

/// A function of one unit and its derivative, in f64.
type Pair = fn(f64) -> (f64, f64);

/// `h = 1/(1 + |z/a|^d)` and `h' = −(d/a) |z/a|^{d−1} sign(z) h²`, as card S058 has them.
fn elephant(z: f64, a: f64, d: f64) -> (f64, f64) {
    let h = 1.0 / (1.0 + (z / a).abs().powf(d));
    let slope = if z == 0.0 {
        0.0
    } else {
        -(d / a) * (z / a).abs().powf(d - 1.0) * z.signum() * h * h
    };
    (h, slope)
}

#[test]
fn functions_of_one_unit_agree_with_their_closed_forms() {
    let kinds: [(ActivationKind, Pair); 6] = [
        (ActivationKind::Relu, |z| (z.max(0.0), f64::from(z > 0.0))),
        (ActivationKind::Tanh, |z| (z.tanh(), 1.0 - z.tanh().powi(2))),
        (ActivationKind::Sigmoid, |z| {
            (logistic(z), logistic(z) * logistic(-z))
        }),
        (ActivationKind::Elephant { a: 0.16, d: 4.0 }, |z| {
            elephant(z, 0.16, 4.0)
        }),
        (ActivationKind::Elephant { a: 1.5, d: 8.0 }, |z| {
            elephant(z, 1.5, 8.0)
        }),
        (ActivationKind::Elephant { a: 0.02, d: 2.0 }, |z| {
            elephant(z, 0.02, 2.0)
        }),
    ];
    // The far ends: nothing overflows.
    let mut z = vec![0.0, 1e-3, -1e-3, 60.0, -60.0, 1e6, -1e6, 3e18, -3e18];
    z.extend(noise(50, "z"));
    let g = noise(z.len(), "g");
    for (kind, function) in kinds {
        let (values, gradient) = run(kind, &z, &g);
        for i in 0..z.len() {
            let (h, slope) = function(f64::from(z[i]));
            close(values[i], h, &format!("{kind:?} at {}", z[i]));
            // The bell's slope is up to d/a: relative to it.
            let unit = match kind {
                ActivationKind::Elephant { a, d } => d / a,
                _ => 1.0,
            };
            let (found, exact) = (
                f64::from(gradient[i]) / unit,
                slope * f64::from(g[i]) / unit,
            );
            close(found as f32, exact, &format!("{kind:?}' at {}", z[i]));
        }
    }
}

/// ASH and hard ASH in f64, as card S088 has them.
fn ash(z: &[f64], alpha: f64, z_k: f64, hard: bool) -> Vec<f64> {
    let n = z.len() as f64;
    let mean = z.iter().sum::<f64>() / n;
    let deviation = (z.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
    let each = z.iter().map(|&v| {
        let t = alpha * (v - mean - z_k * deviation);
        if hard {
            v.clamp(0.0, 2.0) * ((t + 3.0) / 6.0).clamp(0.0, 1.0)
        } else {
            v * logistic(t)
        }
    });
    each.collect()
}

/// The gradient flows through mean and deviation: all of it against central differences in f64.
#[test]
fn gates_above_the_mean_agree_with_their_closed_forms() {
    for (alpha, z_k, hard) in [(3.0, 2.3, false), (3.0, 0.4, true), (1.5, -0.3, true)] {
        let kind = match hard {
            true => ActivationKind::HardAsh { alpha, z_k },
            false => ActivationKind::Ash { alpha, z_k },
        };
        let (z, g) = (noise(40, "z"), noise(40, "g"));
        let (values, gradient) = run(kind, &z, &g);
        let at: Vec<f64> = z.iter().map(|&v| f64::from(v)).collect();
        let exact = ash(&at, alpha, z_k, hard);
        let total = |z: &[f64]| -> f64 {
            let y = ash(z, alpha, z_k, hard);
            y.iter().zip(&g).map(|(y, &g)| y * f64::from(g)).sum()
        };
        for i in 0..z.len() {
            close(values[i], exact[i], &format!("{kind:?} at {}", z[i]));
            let moved = |h: f64| {
                let mut z = at.clone();
                z[i] += h;
                total(&z)
            };
            let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            close(gradient[i], slope, &format!("{kind:?}' at {}", z[i]));
        }
    }
    // Equal units have no deviation, and no infinite slope.
    let flat = ActivationKind::Ash {
        alpha: 3.0,
        z_k: 2.3,
    };
    let (values, gradient) = run(flat, &[0.7; 8], &[1.0; 8]);
    assert!(values.iter().chain(&gradient).all(|v| v.is_finite()));
}

/// At the ends of a clip the gradient is that of the inside, as the documentation says.
#[test]
fn kinks_take_the_documented_side() {
    let open = ActivationKind::HardAsh {
        alpha: 3.0,
        z_k: -9.0, // every gate is open, and flat
    };
    let (values, gradient) = run(open, &[0.0, 2.0, -0.1, 2.1, 1.0], &[1.0; 5]);
    assert_eq!(values, [0.0, 2.0, 0.0, 2.0, 1.0]);
    assert_eq!(gradient, [1.0, 1.0, 0.0, 0.0, 1.0]);
    let (_, gradient) = run(ActivationKind::Relu, &[0.0, -0.0, 1.0], &[1.0; 3]);
    assert_eq!(gradient, [0.0, 0.0, 1.0]);
}

#[test]
fn the_largest_units_win() {
    let z = [0.5, -1.0, 3.0, 0.5, 2.0, -4.0, 0.5, 0.1];
    let half = ActivationKind::KWinners { share: 0.5 };
    let g = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    let (values, gradient) = run(half, &z, &g);
    // Of the three equal to 0.5 the first two come in.
    assert_eq!(values, [0.5, 0.0, 3.0, 0.5, 2.0, 0.0, 0.0, 0.0]);
    assert_eq!(gradient, [1.0, 0.0, 3.0, 4.0, 5.0, 0.0, 0.0, 0.0]);
    // A share of less than one unit is one unit; winners keep their sign; all may win.
    let (values, _) = run(ActivationKind::KWinners { share: 1e-9 }, &z, &g);
    assert_eq!(values, [0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let (values, _) = run(half, &[-3.0, -1.0, -2.0, -4.0], &g[..4]);
    assert_eq!(values, [0.0, -1.0, -2.0, 0.0]);
    let (values, _) = run(ActivationKind::KWinners { share: 1.0 }, &z, &g);
    assert_eq!(values, z);
}

fn parse(text: &str) -> Result<NetworkSpec, String> {
    toml::from_str(text).map_err(|e| e.to_string())
}

#[test]
fn recipes_write_choices_as_a_word_or_a_table() {
    let read = |choice: &str| match parse(&format!("kind = 'mlp'\nactivation = {choice}")) {
        Ok(NetworkSpec::Mlp { activation, .. }) => activation,
        other => panic!("{choice}: {other:?}"),
    };
    let ash = ActivationKind::HardAsh {
        alpha: 3.0,
        z_k: 2.3,
    };
    let cases = [
        ("'relu'", ActivationKind::Relu),
        ("{ kind = 'relu' }", ActivationKind::Relu),
        ("'tanh'", ActivationKind::Tanh),
        ("'sigmoid'", ActivationKind::Sigmoid),
        ("'hard-ash'", ash),
        ("{ kind = 'hard-ash', alpha = 3.0 }", ash),
        ("'elephant'", ActivationKind::Elephant { a: 0.16, d: 4.0 }),
        (
            "{ kind = 'elephant', a = 0.5, d = 8 }",
            ActivationKind::Elephant { a: 0.5, d: 8.0 },
        ),
        ("'k-winners'", ActivationKind::KWinners { share: 0.064 }),
    ];
    for (written, meant) in cases {
        assert_eq!(read(written), meant, "{written}");
    }
    let heads = [
        ("'linear'", HeadKind::Linear),
        (
            "{ kind = 'cosine', scale = 5.0, learn = true }",
            HeadKind::Cosine {
                scale: 5.0,
                learn: true,
            },
        ),
        (
            "'cosine'",
            HeadKind::Cosine {
                scale: 10.0,
                learn: false,
            },
        ),
    ];
    for (written, meant) in heads {
        for kind in ["mlp", "cnn", "resnet18"] {
            let spec = parse(&format!("kind = '{kind}'\nhead = {written}")).expect(written);
            let (NetworkSpec::Mlp { head, .. }
            | NetworkSpec::Cnn { head, .. }
            | NetworkSpec::Resnet18 { head, .. }) = spec
            else {
                panic!("a network with a head");
            };
            assert_eq!(head, meant, "{written}");
        }
    }
}

/// What is written back is read as the same, and is a word where a word is enough.
#[test]
fn written_choices_are_read_as_the_same() {
    for choice in [
        "'relu'",
        "'tanh'",
        "'sigmoid'",
        "'elephant'",
        "'ash'",
        "'hard-ash'",
        "'k-winners'",
    ] {
        for head in ["'linear'", "{ kind = 'cosine', learn = true }"] {
            let text = format!("kind = 'mlp'\nactivation = {choice}\nhead = {head}");
            let spec = parse(&text).expect(choice);
            let written = toml::to_string(&spec).expect("a spec is TOML");
            assert_eq!(parse(&written).as_ref(), Ok(&spec), "{written}");
        }
    }
    let written = toml::to_string(&NetworkSpec::default()).expect("a spec is TOML");
    assert!(written.contains("activation = \"relu\""), "{written}");
    assert!(written.contains("head = \"linear\""), "{written}");
}

#[test]
fn what_is_no_activation_is_refused() {
    for (choice, why) in [
        ("'rely'", "rely"),
        ("{ kind = 'relu', alpha = 3.0 }", "alpha"),
        ("{ kind = 'hard-ash', beta = 3.0 }", "beta"),
        ("{ alpha = 3.0 }", "kind"),
        ("3", "a name, or a table with `kind`"),
    ] {
        let e = parse(&format!("kind = 'mlp'\nactivation = {choice}")).expect_err(choice);
        assert!(e.contains(why), "{choice}: {e}");
    }
    for (key, why) in [
        ("activation = { kind = 'elephant', d = 1.0 }", "at least 2"),
        ("activation = { kind = 'elephant', a = 0.0 }", "above 0"),
        ("activation = { kind = 'ash', alpha = -1.0 }", "above 0"),
        (
            "activation = { kind = 'k-winners', share = 1.5 }",
            "at most 1",
        ),
        ("head = { kind = 'cosine', scale = 0.0 }", "above 0"),
    ] {
        let spec = parse(&format!("kind = 'mlp'\n{key}")).expect(key);
        let e = spec.build([1, 2, 2], 2).expect_err(key).to_string();
        assert!(e.contains(why), "{key}: {e}");
    }
}
