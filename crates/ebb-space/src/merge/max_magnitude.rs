//! The larger of the changes, weight by weight.
//!
//! **What it does.** Keeps of each entry the change whose magnitude is largest.
//! **Source.** Staniszewski et al., 2024, "Low-rank continual personalization of diffusion models"
//! (card S086).
//! **Equation.** `τ_i = w_t τ_{t,i}` with `t = argmax |w_t τ_{t,i}|`.
//! **Use it** to carry adapters through a sequence with one model kept: `τ_prev` against `τ_new`,
//! and again. **Not** for many tasks: the norm grows with each (a ramp as LiNeS has it helps).
//! **Stores** nothing. **Costs** a comparison an entry and task.
//!
//! Decided here: of equal magnitudes the earlier task's stays.

use super::{Piece, Task};

pub(super) fn max_magnitude(tasks: &[Task], piece: &Piece<'_>, out: &mut [f32]) {
    out.fill(0.0);
    for (task, tau) in tasks.iter().zip(piece.taus) {
        for (out, &tau) in out.iter_mut().zip(*tau) {
            let value = (task.weight * f64::from(tau)) as f32;
            // NaN takes the place of a number and keeps it.
            let smaller = value.abs() <= out.abs() || out.is_nan();
            *out = if smaller { *out } else { value };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Rule;
    use super::super::tests::{random, tasks};
    use crate::Layout;

    #[test]
    fn the_largest_change_stays_and_the_order_of_three_does_not_matter() {
        let l = Layout::new([("w".into(), vec![700])]).expect("paths");
        let [a, b, c] = ["a", "b", "c"].map(|name| random(&l, name));
        let rule = Rule::MaxMagnitude;
        let merged = rule
            .merged(&tasks(&[1.0; 3]), &[&a, &b, &c])
            .expect("merged");
        for (i, found) in merged.as_slice().iter().enumerate() {
            let of = [&a, &b, &c].map(|w| w.as_slice()[i]);
            let largest = of.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            assert!(of.contains(found) && found.abs() == largest);
        }
        // One after another, as a sequence of adapters comes.
        let two = rule.merged(&tasks(&[1.0; 2]), &[&a, &b]).expect("merged");
        let then = rule.merged(&tasks(&[1.0; 2]), &[&two, &c]).expect("merged");
        assert_eq!(then.as_slice(), merged.as_slice());
    }
}
