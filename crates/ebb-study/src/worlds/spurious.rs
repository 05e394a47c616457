//! A rule, a spurious feature that is easier, and noise to memorise the exceptions by.
//!
//! **What it does.** Binary classification by a linear model. One coordinate is the label, a larger
//! one agrees with it for most examples, and many small ones are noise in which every exception can
//! be remembered. Plain training takes the spurious feature and memorises; with the bias of
//! memorisation-aware training (MAT) the rule is what is left to learn.
//! **Source.** The pitfalls of memorization: when memorization hurts generalization, 2024 (card
//! S101): its first example.
//! **Equations.** `y = ±1`, `a = y` with probability ρ and else `−y`,
//! `x = (y, B a, ε)` with `ε ~ N(0, σ² I)`; `s(x) = w·x` from `w = 0` by full-batch gradient descent on
//! `mean ln(1 + e^{−y (s + β)})`, `β = b[+] − b[−]` MAT's bias, 0 in plain training.
//! **Costs** one product with the Gram matrix an epoch: gradient descent from 0 stays in the span of
//! the examples.

use ebb_learn::methods::mat::{biases, flip_chance};
use ebb_space::{Direction, Key};
use rayon::prelude::*;

use super::linalg::{axpy, dot, gram};
use super::{Check, Error, Finding, Result, mean, number, smallest};

/// The sizes of a world.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Training examples, and as many of each group to validate on.
    pub examples: usize,
    /// Noise coordinates.
    pub noise: usize,
    /// `B`, the scale of the spurious feature; that of the rule is 1.
    pub spurious: f64,
    /// `ρ`, how often it agrees with the label.
    pub agrees: f64,
    /// `σ`.
    pub deviation: f64,
    /// Learning rate.
    pub lr: f64,
    /// Epochs, of every training.
    pub epochs: u64,
    /// `τ` of the bias.
    pub tau: f64,
}

/// The card's.
const CARD: Sizes = Sizes {
    examples: 1000,
    noise: 1800,
    spurious: 5.0,
    agrees: 0.9,
    deviation: 0.5,
    lr: 1e-2,
    epochs: 1000,
    tau: 0.1,
};

/// Validation accuracy where the spurious feature misleads, and where it helps.
#[derive(Clone, Copy, Debug)]
struct Accuracy {
    minority: f64,
    majority: f64,
}

/// Training examples with their Gram matrix.
struct World {
    sizes: Sizes,
    x: Vec<Vec<f64>>,
    y: Vec<f64>,
    gram: Vec<Vec<f64>>,
    key: Key,
}

fn example(sizes: &Sizes, key: Key, agrees: bool) -> (Vec<f64>, f64) {
    let y = if key.sub("label").uniform(0) < 0.5 {
        1.0
    } else {
        -1.0
    };
    let a = if agrees { y } else { -y };
    let mut noise = key.sub("noise").stream();
    let mut x = vec![y, sizes.spurious * a];
    x.extend((0..sizes.noise).map(|_| sizes.deviation * noise.normal()));
    (x, y)
}

impl World {
    fn keyed(sizes: Sizes, key: Key) -> World {
        let of = |i: usize| {
            let key = key.sub("train").at(i as u64);
            example(&sizes, key, key.sub("group").uniform(0) < sizes.agrees)
        };
        let (x, y): (Vec<Vec<f64>>, Vec<f64>) = (0..sizes.examples).map(of).unzip();
        World {
            sizes,
            gram: gram(&x),
            x,
            y,
            key,
        }
    }

    /// `K α`: what a model with these coefficients says of every training example.
    fn scores(&self, alpha: &[f64]) -> Vec<f64> {
        self.gram.iter().map(|row| dot(row, alpha)).collect()
    }

    /// Coefficients of `w = Σ α_i x_i` after training on all examples with biases β.
    fn train(&self, beta: &[f64]) -> Vec<f64> {
        let mut alpha = vec![0.0; self.y.len()];
        let rate = self.sizes.lr / self.y.len() as f64;
        for _ in 0..self.sizes.epochs {
            let scores = self.scores(&alpha);
            for (i, a) in alpha.iter_mut().enumerate() {
                *a += rate * pull(self.y[i], scores[i] + beta[i]);
            }
        }
        alpha
    }

    /// Scores of every example by the model that was trained on the other half.
    fn held_out(&self) -> Vec<f64> {
        let n = self.y.len();
        let key = self.key.sub("held out");
        let half: Vec<usize> = (0..n as u64)
            .map(|i| usize::from(key.sub("half").uniform(i) < 0.5))
            .collect();
        let mut alphas = [vec![0.0; n], vec![0.0; n]];
        for epoch in 0..self.sizes.epochs {
            let scores = [0, 1].map(|h: usize| self.scores(&alphas[h]));
            let flip = key.sub("flip").at(epoch);
            for (h, alpha) in alphas.iter_mut().enumerate() {
                let size = half.iter().filter(|x| **x == h).count().max(1);
                let rate = self.sizes.lr / size as f64;
                for i in (0..n).filter(|i| half[*i] == h) {
                    let other = scores[1 - h][i];
                    let sure = 1.0 / (1.0 + (-other.abs()).exp());
                    let y = if flip.uniform(i as u64) < flip_chance(sure, 2) {
                        other.signum()
                    } else {
                        self.y[i]
                    };
                    alpha[i] += rate * pull(y, scores[h][i]);
                }
            }
        }
        let scores = alphas.map(|alpha| self.scores(&alpha));
        (0..n).map(|i| scores[1 - half[i]][i]).collect()
    }

    /// MAT's biases for held-out scores.
    fn beta(&self, held_out: &[f64]) -> Vec<f64> {
        let logits: Vec<f64> = held_out.iter().flat_map(|s| [0.0, *s]).collect();
        let labels: Vec<u32> = self.y.iter().map(|y| u32::from(*y > 0.0)).collect();
        let both = biases(&logits, &labels, 2, self.sizes.tau);
        both.chunks_exact(2).map(|b| b[1] - b[0]).collect()
    }

    fn validate(&self, alpha: &[f64]) -> Accuracy {
        let mut w = vec![0.0; self.x[0].len()];
        for (a, x) in alpha.iter().zip(&self.x) {
            axpy(&mut w, *a, x);
        }
        let accuracy = |group: &str, agrees: bool| {
            let right = (0..self.sizes.examples).filter(|i| {
                let key = self.key.sub(group).at(*i as u64);
                let (x, y) = example(&self.sizes, key, agrees);
                y * dot(&w, &x) > 0.0
            });
            right.count() as f64 / self.sizes.examples as f64
        };
        Accuracy {
            minority: accuracy("minority", false),
            majority: accuracy("majority", true),
        }
    }
}

/// The negative gradient of `ln(1 + e^{−y s})` by s.
fn pull(y: f64, s: f64) -> f64 {
    y / (1.0 + (y * s).exp())
}

/// Plain training, MAT, and MAT with the biases of other examples.
fn compare(sizes: Sizes, key: Key) -> [Accuracy; 3] {
    let world = World::keyed(sizes, key);
    let plain = world.train(&vec![0.0; sizes.examples]);
    let held_out = world.held_out();
    let aware = world.train(&world.beta(&held_out));
    let order = key.sub("permuted").permutation(sizes.examples);
    let others: Vec<f64> = order.iter().map(|i| held_out[*i as usize]).collect();
    let sham = world.train(&world.beta(&others));
    [plain, aware, sham].map(|alpha| world.validate(&alpha))
}

/// The card's first demonstration.
///
/// # Errors
/// [`Error::Sizes`] for fewer than 2 draws; otherwise none in practice.
pub fn study(seed: u64, draws: usize) -> Result<Finding> {
    if draws < 2 {
        return Err(Error::Sizes(
            "a standard error needs at least 2 draws".into(),
        ));
    }
    let key = Key::new(seed, "S101");
    let found: Vec<[Accuracy; 3]> = (0..draws as u64)
        .into_par_iter()
        .map(|draw| compare(CARD, key.at(draw)))
        .collect();
    let sample =
        |of: &dyn Fn(&[Accuracy; 3]) -> f64| -> Vec<f64> { found.iter().map(of).collect() };
    let protocol = "linear model, 1000 examples, 1800 noise coordinates, spurious scale 5 right for 90 %, 1000 epochs; 95 % interval";
    let mut measured = Vec::new();
    for (arm, name) in ["plain", "MAT", "MAT with biases of other examples"]
        .into_iter()
        .enumerate()
    {
        for (group, of) in [
            ("minority", &sample(&|f| f[arm].minority)),
            ("majority", &sample(&|f| f[arm].majority)),
        ] {
            let name = format!("{name}: accuracy on the {group}");
            measured.push(number(name, of, Direction::Higher, protocol)?);
        }
    }
    let gain = |arm: usize| sample(&move |f| f[arm].minority - f[0].minority);
    let gains = |arm: usize| {
        Check::at_least(
            "mean gain in accuracy on the minority",
            mean(&gain(arm)),
            0.20,
        )
    };
    Ok(Finding {
        id: "S101".into(),
        claim: "a bias by held-out predictions lets a linear model learn the rule behind a \
                spurious feature"
            .into(),
        measured,
        expectations: vec![
            gains(1),
            Check::above(
                "smallest gain in accuracy on the minority",
                smallest(gain(1)),
                0.0,
            ),
            Check::at_most(
                "mean loss in accuracy on the majority",
                mean(&sample(&|f| f[0].majority - f[1].majority)),
                0.05,
            ),
        ],
        controls: vec![gains(2)],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Sizes = Sizes {
        examples: 40,
        noise: 12,
        epochs: 30,
        lr: 0.05,
        ..CARD
    };

    /// Coefficients of examples against descent on the weights themselves.
    #[test]
    fn descent_in_the_span_is_descent_on_the_weights() {
        let world = World::keyed(SMALL, Key::new(1, "span"));
        let beta: Vec<f64> = (0..40).map(|i| 0.1 * f64::from(i) - 2.0).collect();
        let alpha = world.train(&beta);
        let mut found = vec![0.0; 14];
        for (a, x) in alpha.iter().zip(&world.x) {
            axpy(&mut found, *a, x);
        }
        let loss = |w: &[f64]| {
            let each = world.x.iter().zip(&world.y).zip(&beta);
            let of = each.map(|((x, y), b)| (-y * (dot(w, x) + b)).exp().ln_1p());
            of.sum::<f64>() / 40.0
        };
        let mut w = vec![0.0; 14];
        for _ in 0..30 {
            let at = w.clone();
            for k in 0..14 {
                let moved = |h: f64| {
                    let mut v = at.clone();
                    v[k] += h;
                    loss(&v)
                };
                w[k] -= 0.05 * (moved(1e-5) - moved(-1e-5)) / 2e-5;
            }
        }
        for (a, b) in found.iter().zip(&w) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }

    #[test]
    fn examples_are_as_described() {
        let sizes = Sizes {
            examples: 4000,
            noise: 3,
            ..CARD
        };
        let groups = (0..4000u64).map(|i| {
            let key = Key::new(0, "group").at(i);
            let (x, y) = example(&sizes, key, i % 2 == 0);
            assert_eq!(x[0], y);
            assert_eq!(x[1], if i % 2 == 0 { 5.0 * y } else { -5.0 * y });
            (x[2].powi(2) + x[3].powi(2) + x[4].powi(2), y)
        });
        let (squares, labels): (Vec<f64>, Vec<f64>) = groups.unzip();
        assert!((mean(&squares) - 0.75).abs() < 4.0 * 0.25 * (6.0f64 / 4000.0).sqrt());
        assert!(mean(&labels).abs() < 4.0 / 4000.0f64.sqrt());
        assert!(matches!(study(0, 1), Err(Error::Sizes(_))));
    }
}
