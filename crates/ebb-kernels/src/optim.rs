//! The inner loops of the optimizers: one pass over a parameter, in place.
//!
//! Every loop is elementwise, so its result depends neither on threads nor on the instruction
//! set that runs it. Large parameters are gone through in pieces, on all threads.

use rayon::prelude::*;

/// Values of a piece: enough for a thread to be worth waking, few enough to share evenly.
const PIECE: usize = 1 << 16;

/// Calls `f` with pieces of the lists that lie beside each other.
fn in_pieces<const N: usize>(
    p: &mut [f32],
    g: &[f32],
    state: [&mut [f32]; N],
    f: impl Fn(&mut [f32], &[f32], [&mut [f32]; N]) + Sync,
) {
    if p.len() <= 2 * PIECE {
        return f(p, g, state);
    }
    let mut pieces = Vec::with_capacity(p.len() / PIECE + 1);
    let mut rest = (p, g, state);
    while !rest.0.is_empty() {
        let n = PIECE.min(rest.0.len());
        let (p, later_p) = rest.0.split_at_mut(n);
        let (g, later_g) = rest.1.split_at(n);
        let mut now = [const { None }; N];
        let mut later = [const { None }; N];
        for ((state, now), later) in rest.2.into_iter().zip(&mut now).zip(&mut later) {
            let (a, b) = state.split_at_mut(n);
            (*now, *later) = (Some(a), Some(b));
        }
        let filled = |lists: [Option<_>; N]| lists.map(Option::unwrap_or_default);
        pieces.push((p, g, filled(now)));
        rest = (later_p, later_g, filled(later));
    }
    pieces
        .into_par_iter()
        .for_each(|(p, g, state)| f(p, g, state));
}

/// `p ← p − lr (g + wd p)`.
pub fn sgd(p: &mut [f32], g: &[f32], lr: f32, wd: f32) {
    in_pieces(p, g, [], |p, g, []| {
        pulp::Arch::new().dispatch(|| {
            if wd == 0.0 {
                for (p, &g) in p.iter_mut().zip(g) {
                    *p -= lr * g;
                }
            } else {
                for (p, &g) in p.iter_mut().zip(g) {
                    *p -= lr * (g + wd * *p);
                }
            }
        });
    });
}

/// `m ← μ m + (g + wd p)`, `p ← p − lr m` (Nesterov: `p ← p − lr (g + wd p + μ m)`).
pub fn momentum(
    p: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    lr: f32,
    mu: f32,
    wd: f32,
    nesterov: bool,
) {
    in_pieces(p, g, [m], |p, g, [m]| {
        pulp::Arch::new().dispatch(|| {
            for ((p, &g), m) in p.iter_mut().zip(g).zip(m.iter_mut()) {
                let g = g + wd * *p;
                *m = mu * *m + g;
                let step = if nesterov { g + mu * *m } else { *m };
                *p -= lr * step;
            }
        });
    });
}

/// What an Adam step needs besides the arrays.
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Weight decay added to the gradient (Adam).
    pub l2: f32,
    /// Weight decay applied to the weight itself (AdamW).
    pub decoupled: f32,
    /// `1 − beta1^t`.
    pub correction1: f32,
    /// `1 − beta2^t`.
    pub correction2: f32,
}

/// Adam and AdamW: `m ← β₁m + (1−β₁)g`, `v ← β₂v + (1−β₂)g²`,
/// `p ← p(1 − lr·wd) − lr · (m/c₁) / (√(v/c₂) + ε)`.
pub fn adam(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], s: AdamStep) {
    let step = s.lr / s.correction1;
    let root = 1.0 / s.correction2.sqrt();
    let keep = 1.0 - s.lr * s.decoupled;
    let (one1, one2) = (1.0 - s.beta1, 1.0 - s.beta2);
    in_pieces(p, g, [m, v], |p, g, [m, v]| {
        pulp::Arch::new().dispatch(|| {
            for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m.iter_mut()).zip(v.iter_mut()) {
                let g = g + s.l2 * *p;
                *m = s.beta1 * *m + one1 * g;
                *v = s.beta2 * *v + one2 * (g * g);
                *p = keep * *p - step * *m / (v.sqrt() * root + s.eps);
            }
        });
    });
}

/// Adagrad: `v ← v + g²`, `p ← p − lr g / (√v + ε)`.
pub fn adagrad(p: &mut [f32], g: &[f32], v: &mut [f32], lr: f32, eps: f32, wd: f32) {
    in_pieces(p, g, [v], |p, g, [v]| {
        pulp::Arch::new().dispatch(|| {
            for ((p, &g), v) in p.iter_mut().zip(g).zip(v.iter_mut()) {
                let g = g + wd * *p;
                *v += g * g;
                *p -= lr * g / (v.sqrt() + eps);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In pieces or whole, the same bits.
    #[test]
    fn pieces_change_nothing() {
        let n = 3 * PIECE + 77;
        let values = |seed: usize| -> Vec<f32> {
            let of = |i: usize| ((i * 7919 + seed * 104729) % 1009) as f32 / 504.5 - 1.0;
            (0..n).map(of).collect()
        };
        let (mut p, g, mut m) = (values(1), values(2), values(3));
        let (mut q, mut mq) = (p.clone(), m.clone());
        momentum(&mut p, &g, &mut m, 0.1, 0.9, 0.01, true);
        for (i, g) in g.iter().enumerate() {
            let one = i..i + 1;
            momentum(
                &mut q[one.clone()],
                &[*g],
                &mut mq[one],
                0.1,
                0.9,
                0.01,
                true,
            );
        }
        assert_eq!((p, m), (q, mq));
    }

    /// Three steps of Adam written out in f64 (Kingma & Ba 2015, algorithm 1).
    #[test]
    fn adam_follows_its_paper() {
        let gradient = |p: f64| 2.0 * p - 1.0;
        let (b1, b2, lr, eps) = (0.9f64, 0.999f64, 0.1f64, 1e-8f64);
        let (mut p, mut m, mut v) = (2.0f64, 0.0f64, 0.0f64);
        let (mut q, mut qm, mut qv) = ([2.0f32], [0.0f32], [0.0f32]);
        for t in 1..=3 {
            let g = gradient(p);
            m = b1 * m + (1.0 - b1) * g;
            v = b2 * v + (1.0 - b2) * g * g;
            p -= lr * (m / (1.0 - b1.powi(t))) / ((v / (1.0 - b2.powi(t))).sqrt() + eps);
            let step = AdamStep {
                lr: lr as f32,
                beta1: b1 as f32,
                beta2: b2 as f32,
                eps: eps as f32,
                l2: 0.0,
                decoupled: 0.0,
                correction1: (1.0 - b1.powi(t)) as f32,
                correction2: (1.0 - b2.powi(t)) as f32,
            };
            let g = [gradient(f64::from(q[0])) as f32];
            adam(&mut q, &g, &mut qm, &mut qv, step);
            assert!(
                (f64::from(q[0]) - p).abs() < 1e-5,
                "step {t}: {} and {p}",
                q[0]
            );
        }
    }

    #[test]
    fn momentum_follows_the_published_recursion() {
        let (mut p, mut m) = ([1.0f32], [0.0f32]);
        momentum(&mut p, &[0.5], &mut m, 0.1, 0.9, 0.0, false);
        momentum(&mut p, &[0.5], &mut m, 0.1, 0.9, 0.0, false);
        // velocities 0.5 and 0.95
        assert!((p[0] - (1.0 - 0.05 - 0.095)).abs() < 1e-7);
        let (mut p, mut m) = ([1.0f32], [0.0f32]);
        momentum(&mut p, &[0.5], &mut m, 0.1, 0.9, 0.0, true);
        assert!((p[0] - (1.0 - 0.1 * (0.5 + 0.45))).abs() < 1e-7);
    }

    #[test]
    fn decoupled_decay_shrinks_the_weight_and_not_the_moments() {
        let (mut p, mut m, mut v) = ([1.0f32], [0.0f32], [0.0f32]);
        let step = AdamStep {
            lr: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            l2: 0.0,
            decoupled: 0.5,
            correction1: 0.1,
            correction2: 0.001,
        };
        adam(&mut p, &[0.0], &mut m, &mut v, step);
        assert!((p[0] - 0.95).abs() < 1e-7);
        assert_eq!((m[0], v[0]), (0.0, 0.0));
    }
}
