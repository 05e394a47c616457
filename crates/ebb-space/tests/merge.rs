//! What balancing is for: adapters of one origin whose factors were mixed, as trainings from
//! different starts mix them, and adapters that have nothing in common.

use ebb_space::Key;
use ebb_space::merge::{Factors, Shared};

const RANK: usize = 4;
const MODELS: usize = 6;
const INPUTS: usize = 30;
const OUTPUTS: usize = 20;

fn draws(n: usize, scale: f64, key: Key) -> Vec<f64> {
    (0..n as u64).map(|i| scale * key.normal(i)).collect()
}

/// `x R` and `y R⁻ᵀ` for a rotation and a stretch R, which leave the product as it is.
fn mixed(a: Vec<f64>, b: Vec<f64>, key: Key) -> Factors {
    let (mut a, mut b) = (a, b);
    for step in 0..12u64 {
        let i = (key.draw(3 * step) % RANK as u64) as usize;
        let j = (i + 1 + (key.draw(3 * step + 1) % (RANK as u64 - 1)) as usize) % RANK;
        let (sin, cos) = (std::f64::consts::TAU * key.uniform(3 * step + 2)).sin_cos();
        for row in a.chunks_exact_mut(RANK).chain(b.chunks_exact_mut(RANK)) {
            (row[i], row[j]) = (cos * row[i] - sin * row[j], sin * row[i] + cos * row[j]);
        }
    }
    let stretch = 1.0 + key.uniform(99);
    a.iter_mut().for_each(|v| *v *= stretch);
    b.iter_mut().for_each(|v| *v /= stretch);
    Factors::of_positions(RANK, a, b)
}

/// Mean relative error of the products rebuilt from `p` directions a position.
fn error(models: &[Factors], p: u8) -> f64 {
    let a: Vec<&[f64]> = models.iter().map(|m| m.positions().0).collect();
    let b: Vec<&[f64]> = models.iter().map(|m| m.positions().1).collect();
    let a = Shared::of(&a, RANK, vec![p; INPUTS]);
    let b = Shared::of(&b, RANK, vec![p; OUTPUTS]);
    let each = models.iter().enumerate().map(|(i, model)| {
        let rebuilt = Factors::of_positions(RANK, a.rebuild(i), b.rebuild(i));
        model.relative_error(&rebuilt)
    });
    each.sum::<f64>() / models.len() as f64
}

fn balanced(models: &[Factors]) -> Vec<Factors> {
    let mut all: Vec<Factors> = models.iter().map(|m| m.balanced().0).collect();
    let first = all[0].clone();
    all.iter_mut().for_each(|m| m.align_signs(&first));
    all
}

/// Adapters `apart` from a common one.
fn family(apart: f64) -> Vec<Factors> {
    let key = Key::new(0, "family");
    // Components of different strength, as trained ones have.
    let fade = |mut x: Vec<f64>| {
        for row in x.chunks_exact_mut(RANK) {
            (0..RANK).for_each(|k| row[k] *= 0.6f64.powi(k as i32));
        }
        x
    };
    let a = fade(draws(INPUTS * RANK, 1.0, key.sub("a")));
    let b = fade(draws(OUTPUTS * RANK, 1.0, key.sub("b")));
    (0..MODELS as u64)
        .map(|i| {
            let own = key.at(i);
            let near = |x: &[f64], key: Key| -> Vec<f64> {
                let noise = draws(x.len(), apart, key);
                x.iter().zip(noise).map(|(x, n)| x + n).collect()
            };
            mixed(
                near(&a, own.sub("a")),
                near(&b, own.sub("b")),
                own.sub("mix"),
            )
        })
        .collect()
}

#[test]
fn adapters_of_one_origin_need_balancing_to_show_it() {
    let models = family(0.02);
    let (raw, own) = (error(&models, 1), error(&balanced(&models), 1));
    assert!(own < 0.25 * raw, "balanced {own}, as they are {raw}");
    // p (r + n) + r = 14 values a position for six adapters; rank 2 of each takes 12, and loses what
    // they share.
    let cut: f64 = balanced(&models)
        .iter()
        .map(|m| m.relative_error(&m.cut(2)))
        .sum::<f64>()
        / MODELS as f64;
    assert!(own < cut, "common bases {own}, cut {cut}");
}

#[test]
fn adapters_that_have_nothing_in_common_are_better_cut() {
    let models: Vec<Factors> = (0..MODELS as u64)
        .map(|i| {
            let key = Key::new(i, "stranger");
            Factors::of_positions(
                RANK,
                draws(INPUTS * RANK, 1.0, key.sub("a")),
                draws(OUTPUTS * RANK, 1.0, key.sub("b")),
            )
        })
        .collect();
    let balanced = balanced(&models);
    let shared = error(&balanced, 1);
    let cut: f64 = balanced
        .iter()
        .map(|m| m.relative_error(&m.cut(2)))
        .sum::<f64>()
        / MODELS as f64;
    assert!(cut < shared, "common bases {shared}, cut {cut}");
}
