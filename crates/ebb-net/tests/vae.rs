//! The autoencoder against its definition in f64, and what it can learn.

use burn::tensor::Device;
use ebb_kernels::optim::{AdamStep, adam};
use ebb_net::{Init, Taps, Vae, VaeSpec};
use ebb_space::{Key, Weights};

fn tiny() -> Vae {
    let spec = VaeSpec {
        hidden: vec![5, 4],
        latent: 3,
        init: Init::Xavier,
    };
    Vae::new(&spec, 6, Key::new(1, "vae"), &Device::flex()).expect("a valid autoencoder")
}

fn grey(n: usize, purpose: &str) -> Vec<f32> {
    let mut s = Key::new(2, purpose).stream();
    (0..n).map(|_| s.uniform() as f32).collect()
}

/// `w x + b` of the layer at `name`, in f64.
fn dense(w: &Weights, data: &[f64], name: &str, x: &[f64]) -> Vec<f64> {
    let of = |part: &str| {
        let entry = w.layout().find(&format!("{name}.{part}")).expect("a layer");
        &data[entry.range.clone()]
    };
    let rows = of("weight").chunks(x.len()).zip(of("bias"));
    rows.map(|(row, b)| b + row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>())
        .collect()
}

fn relu(x: Vec<f64>) -> Vec<f64> {
    x.into_iter().map(|v| v.max(0.0)).collect()
}

/// Both parts of the loss written out, at weights `data` of the layout of `w`.
fn reference(w: &Weights, data: &[f64], x: &[f32], key: Key, rows: &[u64]) -> (f64, f64) {
    let (mut reconstruction, mut kl) = (0.0, 0.0);
    for (x, &row) in x.chunks(6).zip(rows) {
        let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        let h = relu(dense(w, data, "encoder.0", &x));
        let h = relu(dense(w, data, "encoder.1", &h));
        let code = dense(w, data, "latent", &h);
        let (mean, log_variance) = code.split_at(3);
        let draw = |i: usize| key.sub("latent").at(row).normal(i as u64);
        let z: Vec<f64> = (0..3)
            .map(|i| mean[i] + (log_variance[i] / 2.0).exp() * draw(i))
            .collect();
        let h = relu(dense(w, data, "decoder.0", &z));
        let h = relu(dense(w, data, "decoder.1", &h));
        for (y, x) in dense(w, data, "output", &h).iter().zip(&x) {
            let p = 1.0 / (1.0 + (-y).exp());
            reconstruction -= x * p.ln() + (1.0 - x) * (1.0 - p).ln();
        }
        for i in 0..3 {
            let variance = log_variance[i].exp();
            kl += 0.5 * (mean[i] * mean[i] + variance - 1.0 - variance.ln());
        }
    }
    let n = rows.len() as f64;
    (reconstruction / n, kl / n)
}

/// Every component of the gradient against central differences of the loss in f64.
#[test]
fn loss_and_gradient_are_those_of_the_definition() {
    let mut vae = tiny();
    // Away from the prior, so that each term counts.
    vae.model_mut().update(|i, values| {
        let mut s = Key::new(3, "move").at(i as u64).stream();
        values
            .iter_mut()
            .for_each(|v| *v += 0.4 * s.normal() as f32);
    });
    let w = vae.model().weights();
    let base: Vec<f64> = w.as_slice().iter().map(|&v| f64::from(v)).collect();
    let (x, rows, key) = (grey(4 * 6, "x"), [7, 3, 11, 4], Key::new(5, "step"));
    let mut gradient = w.zeros_like();
    let loss = vae
        .loss_and_gradient(x.clone(), key, &rows, &mut gradient)
        .expect("fits");
    let (reconstruction, kl) = reference(&w, &base, &x, key, &rows);
    assert!(
        (loss.reconstruction - reconstruction).abs() < 1e-5,
        "{loss:?}"
    );
    assert!((loss.kl - kl).abs() < 1e-5 && kl > 0.05, "{loss:?}, {kl}");
    for (i, &g) in gradient.as_slice().iter().enumerate() {
        let at = |h: f64| {
            let mut data = base.clone();
            data[i] += h;
            let (reconstruction, kl) = reference(&w, &data, &x, key, &rows);
            reconstruction + kl
        };
        let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
        assert!((f64::from(g) - slope).abs() < 2e-5, "{i}: {g} and {slope}");
    }
}

#[test]
fn noise_belongs_to_the_step_and_the_example() {
    let mut vae = tiny();
    let (x, key) = (grey(3 * 6, "x"), Key::new(5, "step"));
    let turned = [&x[12..], &x[..12]].concat();
    let mut g = vae.model().weights().zeros_like();
    let mut loss = |x: &[f32], key, rows: &[u64]| {
        let loss = vae.loss_and_gradient(x.to_vec(), key, rows, &mut g);
        loss.expect("fits").reconstruction
    };
    let first = loss(&x, key, &[1, 2, 3]);
    assert_eq!(first, loss(&x, key, &[1, 2, 3]));
    assert!((first - loss(&turned, key, &[3, 1, 2])).abs() < 1e-6);
    assert!((first - loss(&x, key, &[3, 1, 2])).abs() > 1e-6);
    assert!((first - loss(&x, Key::new(6, "step"), &[1, 2, 3])).abs() > 1e-6);
}

#[test]
fn samples_are_a_function_of_the_key() {
    let mut vae = tiny();
    let key = Key::new(4, "replay");
    let eight = vae.sample(8, key);
    assert_eq!(eight.len(), 8 * 6);
    assert!(eight.iter().all(|p| (0.0..=1.0).contains(p)));
    assert_eq!(eight, vae.clone().sample(8, key));
    // A draw's latents do not depend on how many are drawn.
    for (a, b) in eight.iter().zip(vae.sample(3, key)) {
        assert!((a - b).abs() < 1e-6);
    }
    assert_ne!(eight, vae.sample(8, Key::new(5, "replay")));
    assert!(vae.sample(0, key).is_empty());
}

/// An encoded mean is what evaluation decodes, and what is no input is refused.
#[test]
fn encoding_gives_both_halves_of_the_code() {
    let mut vae = tiny();
    let x = grey(2 * 6, "x");
    let w = vae.model().weights();
    let data: Vec<f64> = w.as_slice().iter().map(|&v| f64::from(v)).collect();
    let (mean, log_variance) = vae.encode(x.clone(), 2).expect("fits");
    for (row, x) in x.chunks(6).enumerate() {
        let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        let h = relu(dense(&w, &data, "encoder.0", &x));
        let h = relu(dense(&w, &data, "encoder.1", &h));
        let code = dense(&w, &data, "latent", &h);
        let halves = mean[row * 3..][..3]
            .iter()
            .chain(&log_variance[row * 3..][..3]);
        for (found, exact) in halves.zip(code) {
            assert!((f64::from(*found) - exact).abs() < 1e-5);
        }
    }
    assert_eq!(vae.decode(mean, 2).expect("fits").len(), 2 * 6);
    let model = vae.model_mut();
    for name in model.network().taps() {
        let mut taps = Taps::none().read(name.as_str());
        let x = model.input(grey(2 * 6, "x"), 2);
        model.forward(x, &mut taps);
        assert!(taps.value(&name).is_some(), "`{name}` was never met");
    }
    let e = vae.decode(vec![0.0; 4], 2).expect_err("4 are not 2 x 3");
    assert!(e.to_string().contains("rows of 3"), "{e}");
    let e = vae.encode(vec![-0.42; 6], 1).expect_err("normalised");
    assert!(e.to_string().contains("normalisation"), "{e}");
    let e = vae.encode(vec![f32::NAN; 6], 1).expect_err("no number");
    assert!(e.to_string().contains("NaN"), "{e}");
    // What rounding did is mended.
    vae.encode(vec![1.000_000_2; 6], 1).expect("1, rounded");
    let none = VaeSpec {
        latent: 0,
        ..VaeSpec::default()
    };
    let e = Vae::new(&none, 6, Key::new(0, ""), &Device::flex()).expect_err("no latents");
    assert!(e.to_string().contains("at least one unit"), "{e}");
}

/// Two equally frequent patterns, each the other's complement. Without using the latents the loss
/// is 8 ln 2; their entropy, ln 2, is the least that any model can reach.
#[test]
fn it_learns_a_mixture_of_two_patterns() {
    let spec = VaeSpec {
        hidden: vec![32],
        latent: 2,
        init: Init::FanIn,
    };
    let mut vae = Vae::new(&spec, 8, Key::new(1, "vae"), &Device::flex()).expect("valid");
    let pattern = [1.0f32, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0];
    let rows: Vec<u64> = (0..64).collect();
    let x: Vec<f32> = rows
        .iter()
        .flat_map(|r| pattern.map(|p| if r % 2 == 0 { p } else { 1.0 - p }))
        .collect();
    let mut g = vae.model().weights().zeros_like();
    let (mut m, mut v) = (g.zeros_like(), g.zeros_like());
    let mut last = Vec::new();
    for step in 1..=600i32 {
        let key = Key::new(7, "step").at(step as u64);
        let loss = vae
            .loss_and_gradient(x.clone(), key, &rows, &mut g)
            .expect("fits");
        let settings = AdamStep {
            lr: 1e-2,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            l2: 0.0,
            decoupled: 0.0,
            correction1: 1.0 - 0.9f32.powi(step),
            correction2: 1.0 - 0.999f32.powi(step),
        };
        let layout = g.layout().clone();
        vae.model_mut().update(|i, p| {
            let at = layout.entries()[i].range.clone();
            let (m, v) = (
                &mut m.as_mut_slice()[at.clone()],
                &mut v.as_mut_slice()[at.clone()],
            );
            adam(p, &g.as_slice()[at], m, v, settings);
        });
        if step > 500 {
            last.push(loss.reconstruction + loss.kl);
        }
    }
    let mean = last.iter().sum::<f64>() / last.len() as f64;
    let ln2 = std::f64::consts::LN_2;
    assert!((0.99 * ln2..2.0 * ln2).contains(&mean), "{mean} nats");
    // Most draws are one of the two, and both come.
    let (mut even, mut odd) = (0, 0);
    for draw in vae.sample(200, Key::new(9, "replay")).chunks(8) {
        let distance = |sign: bool| {
            let pairs = draw.iter().zip(pattern);
            let apart = pairs.map(|(d, p)| (d - if sign { p } else { 1.0 - p }).abs());
            apart.fold(0.0f32, f32::max)
        };
        even += usize::from(distance(true) < 0.3);
        odd += usize::from(distance(false) < 0.3);
    }
    assert!(
        even > 50 && odd > 50 && even + odd > 160,
        "{even} and {odd}"
    );
}
