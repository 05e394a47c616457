//! Plackett–Luce: a ranking as a sequence of choices, each a softmax over what is left.
//!
//! `PL(z; π, w) = Σ_k w_k [LSE(z_{π_k}, …, z_{π_K}) − z_{π_k}]`, convex in z and blind to a shift
//! of it. With all the weight on the first choice it is the cross-entropy, with two classes
//! Bradley–Terry, with equal weights ListMLE.

/// How much each choice of a ranking counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choices {
    /// As much as the teacher believes in the chosen class, `softmax(r/t)`: PLD (S165).
    TeacherMass {
        /// The teacher's temperature, above 0.
        t: f64,
    },
    /// All alike: ListMLE.
    Equal,
}

/// Reused buffers of [`plackett_luce`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranking {
    order: Vec<u32>,
    ln_w: Vec<f64>,
    tails: Vec<f64>,
}

/// The loss of the ranking "`first`, then the others by descending `r`", ties by index, and its
/// gradient `Σ_k w_k (softmax over the tail − e_{π_k})`, in O(K log K).
pub(crate) fn plackett_luce(
    z: &[f64],
    r: &[f64],
    first: Option<usize>,
    choices: Choices,
    s: &mut Ranking,
    gradient: &mut [f64],
) -> f64 {
    let Ranking { order, ln_w, tails } = s;
    order.clear();
    order.extend(0..z.len() as u32);
    // Adding 0 makes −0 a 0, so that the two tie.
    let teacher = |class: u32| r[class as usize] + 0.0;
    order.sort_unstable_by(|a, b| teacher(*b).total_cmp(&teacher(*a)).then(a.cmp(b)));
    if let Some(first) = first {
        let at = order.iter().position(|class| *class as usize == first);
        order[..=at.unwrap_or(0)].rotate_right(1);
    }
    ln_w.clear();
    match choices {
        Choices::Equal => ln_w.resize(z.len(), 0.0),
        Choices::TeacherMass { t } => {
            let whole = r.iter().fold(f64::NEG_INFINITY, |sum, r| add(sum, r / t));
            ln_w.extend(r.iter().map(|r| r / t - whole));
        }
    }
    // Backwards: the log-sum-exp of each tail.
    tails.clear();
    tails.resize(z.len(), 0.0);
    let (mut tail, mut value) = (f64::NEG_INFINITY, 0.0);
    for (place, &class) in order.iter().enumerate().rev() {
        let class = class as usize;
        tail = add(tail, z[class]);
        tails[place] = tail;
        value += ln_w[class].exp() * (tail - z[class]);
    }
    // Forwards: a class is in the tails of all choices up to its own.
    let mut before = f64::NEG_INFINITY; // ln Σ_{k so far} w_k e^{−tail_k}
    for (place, &class) in order.iter().enumerate() {
        let class = class as usize;
        before = add(before, ln_w[class] - tails[place]);
        gradient[class] = (z[class] + before).exp() - ln_w[class].exp();
    }
    value
}

/// `ln(e^a + e^b)`.
fn add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY {
        return high;
    }
    high + (low - high).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    fn random(name: &str, n: u64, scale: f64) -> Vec<f64> {
        let key = Key::new(11, name);
        (0..n).map(|i| scale * key.normal(i)).collect()
    }

    fn loss(z: &[f64], r: &[f64], first: Option<usize>, choices: Choices) -> (f64, Vec<f64>) {
        let mut gradient = vec![0.0; z.len()];
        let value = plackett_luce(z, r, first, choices, &mut Ranking::default(), &mut gradient);
        (value, gradient)
    }

    fn lse(z: impl Iterator<Item = f64>) -> f64 {
        z.map(f64::exp).sum::<f64>().ln()
    }

    const PLD: Choices = Choices::TeacherMass { t: 1.0 };

    #[test]
    fn it_is_the_weighted_sum_of_its_choices() {
        let (z, r) = ([0.5, -1.0, 2.0, 0.25], [1.0, 3.0, -0.5, 0.0]);
        let order = [3, 1, 0, 2]; // the label 3, then the teacher's 1 > 0 > 2
        for t in [0.5, 1.0, 4.0] {
            let sum = lse(r.iter().map(|r| r / t));
            let want: f64 = (0..4)
                .map(|k| {
                    let tail = lse(order[k..].iter().map(|&c| z[c]));
                    (r[order[k]] / t - sum).exp() * (tail - z[order[k]])
                })
                .sum();
            let (value, _) = loss(&z, &r, Some(3), Choices::TeacherMass { t });
            assert!((value - want).abs() < 1e-14, "{value} {want}");
        }
    }

    #[test]
    fn gradients_are_finite_differences_and_a_shift_changes_nothing() {
        for (n, scale) in [(1, 1.0), (2, 1.0), (5, 2.0), (12, 8.0)] {
            let (z, r) = (random("z", n, scale), random("r", n, scale));
            for choices in [PLD, Choices::TeacherMass { t: 3.0 }, Choices::Equal] {
                for first in [None, Some(0), Some(n as usize - 1)] {
                    let (value, gradient) = loss(&z, &r, first, choices);
                    assert!(value >= 0.0);
                    for j in 0..z.len() {
                        let at = |step: f64| {
                            let mut z = z.clone();
                            z[j] += step;
                            loss(&z, &r, first, choices).0
                        };
                        let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                        assert!((slope - gradient[j]).abs() < 1e-8, "{slope} {gradient:?}");
                    }
                    assert!(gradient.iter().sum::<f64>().abs() < 1e-12);
                    let far: Vec<f64> = z.iter().map(|z| z + 900.0).collect();
                    let (moved, same) = loss(&far, &r, first, choices);
                    assert!((moved - value).abs() < 1e-9 * value.max(1.0));
                    assert!(
                        same.iter()
                            .zip(&gradient)
                            .all(|(a, b)| (a - b).abs() < 1e-9)
                    );
                }
            }
        }
    }

    #[test]
    fn all_mass_on_the_label_is_cross_entropy_and_two_classes_are_bradley_terry() {
        let z = random("z", 6, 1.5);
        let mut r = random("r", 6, 1.0);
        r[4] = 60.0; // softmax mass 1 up to e⁻⁵⁷
        let (value, gradient) = loss(&z, &r, Some(4), PLD);
        let sum = lse(z.iter().copied());
        assert!((value - (sum - z[4])).abs() < 1e-14);
        for (j, g) in gradient.iter().enumerate() {
            assert!((g - ((z[j] - sum).exp() - f64::from(j == 4))).abs() < 1e-14);
        }
        let (value, _) = loss(&[0.7, -0.4], &[0.0, 5.0], Some(0), Choices::Equal);
        let sigmoid = 1.0 / (1.0 + f64::exp(-1.1));
        assert!((value + f64::ln(sigmoid)).abs() < 1e-15);
    }

    /// ListMLE is −ln of a probability: over all rankings they add up to one.
    #[test]
    fn equal_weights_are_the_log_probability_of_a_ranking() {
        let z = random("z", 4, 1.0);
        let mut total = 0.0;
        for code in 0..256usize {
            let rank = [code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6];
            if (0..4).any(|place| !rank.contains(&place)) {
                continue;
            }
            let r = rank.map(|place| -(place as f64));
            total += (-loss(&z, &r, None, Choices::Equal).0).exp();
        }
        assert!((total - 1.0).abs() < 1e-14, "{total}");
    }

    #[test]
    fn ties_go_by_index_and_the_label_goes_first() {
        let z = random("z", 5, 1.0);
        let tied = loss(&z, &[0.0, 1.0, -0.0, 1.0, 0.0], Some(2), Choices::Equal);
        // 2 first, then 1 before 3, then 0 before 4.
        let clear = loss(&z, &[2.0, 4.0, 0.0, 3.0, 1.0], Some(2), Choices::Equal);
        assert_eq!(tied, clear);
    }
}
