//! Images moved a little, for augmentation: turned about the centre, then shifted.

use super::rotate::Rotation;

/// A small move of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Move {
    /// Counter-clockwise, bilinear.
    pub degrees: f64,
    /// Whole pixels downwards.
    pub down: i32,
    /// Whole pixels to the right.
    pub right: i32,
}

impl Move {
    /// Appends the moved image of `shape` (channels, height, width); `blank` comes in from
    /// outside.
    ///
    /// # Panics
    /// If `values` has another size than `shape`.
    pub fn apply(&self, shape: [usize; 3], values: &[f32], blank: f32, out: &mut Vec<f32>) {
        let [channels, height, width] = shape;
        assert_eq!(
            values.len(),
            channels * height * width,
            "an image of {shape:?}"
        );
        let turned: Vec<f32>;
        let values = if self.degrees == 0.0 {
            values
        } else {
            // A rotation fills with zeros: measured from the blank, that is the blank.
            let over: Vec<f32> = values.iter().map(|v| v - blank).collect();
            let mut rotated = Vec::with_capacity(values.len());
            Rotation::new(height, width, self.degrees).apply(&over, &mut rotated);
            turned = rotated.into_iter().map(|v| v + blank).collect();
            &turned
        };
        for plane in values.chunks_exact((height * width).max(1)) {
            for row in 0..height as i64 {
                for column in 0..width as i64 {
                    let (r, c) = (row - i64::from(self.down), column - i64::from(self.right));
                    let inside = (0..height as i64).contains(&r) && (0..width as i64).contains(&c);
                    out.push(match inside {
                        true => plane[r as usize * width + c as usize],
                        false => blank,
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(m: Move, shape: [usize; 3], values: &[f32]) -> Vec<f32> {
        let mut out = vec![9.0];
        m.apply(shape, values, -1.0, &mut out);
        assert_eq!(out.remove(0), 9.0, "it appends");
        out
    }

    #[test]
    fn shifts_and_right_angles_are_exact() {
        let values: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let still = moved(Move::default(), [2, 2, 3], &values);
        assert_eq!(still, values);
        let m = Move {
            down: 1,
            right: -1,
            ..Move::default()
        };
        assert_eq!(
            moved(m, [2, 2, 3], &values),
            [
                -1.0, -1.0, -1.0, 1.0, 2.0, -1.0, -1.0, -1.0, -1.0, 7.0, 8.0, -1.0
            ]
        );
        let far = Move {
            right: 3,
            ..Move::default()
        };
        assert_eq!(moved(far, [2, 2, 3], &values), [-1.0; 12]);
        // A quarter turn to the left, and then one down.
        let m = Move {
            degrees: 90.0,
            down: 1,
            ..Move::default()
        };
        let square = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        assert_eq!(
            moved(m, [1, 3, 3], &square),
            [-1.0, -1.0, -1.0, 2.0, 5.0, 8.0, 1.0, 4.0, 7.0]
        );
    }

    #[test]
    fn what_comes_from_outside_is_blank() {
        let m = Move {
            degrees: 37.0,
            down: -2,
            right: 1,
        };
        assert_eq!(moved(m, [3, 5, 7], &[-1.0; 105]), [-1.0; 105]);
        // The sum over the blank is kept but for what leaves the image.
        let mut dot = vec![-1.0; 15 * 15];
        dot[7 * 15 + 9] = 1.0;
        let over: f32 = moved(m, [1, 15, 15], &dot).iter().map(|v| v + 1.0).sum();
        assert!((over - 2.0).abs() < 0.2, "{over}");
    }
}
