//! Rotation about the centre, as a table of four weighted taps a pixel.

/// A rotation prepared for one height and width.
#[derive(Debug)]
pub(super) struct Rotation {
    pixels: usize,
    /// For each pixel, where its value comes from and with which weights. Taps outside the image
    /// have weight 0.
    taps: Vec<([u32; 4], [f32; 4])>,
}

impl Rotation {
    /// Counter-clockwise by `degrees`, bilinear, zeros from outside.
    pub fn new(height: usize, width: usize, degrees: f64) -> Rotation {
        let (sin, cos) = degrees.to_radians().sin_cos();
        // Right angles have exact sines, so that they only move values.
        let snap = |x: f64| {
            if (x - x.round()).abs() < 1e-12 {
                x.round()
            } else {
                x
            }
        };
        let (sin, cos) = (snap(sin), snap(cos));
        let centre = ((height as f64 - 1.0) / 2.0, (width as f64 - 1.0) / 2.0);
        let mut taps = Vec::with_capacity(height * width);
        for row in 0..height {
            for column in 0..width {
                // Rows grow downwards: this turns the place clockwise, hence the image counter-clockwise.
                let (dy, dx) = (row as f64 - centre.0, column as f64 - centre.1);
                let y = centre.0 + dx * sin + dy * cos;
                let x = centre.1 + dx * cos - dy * sin;
                let (y0, x0) = (y.floor(), x.floor());
                let (fy, fx) = (y - y0, x - x0);
                let mut index = [0; 4];
                let mut weight = [0.0; 4];
                let corners = [
                    (0.0, 0.0, (1.0 - fy) * (1.0 - fx)),
                    (0.0, 1.0, (1.0 - fy) * fx),
                    (1.0, 0.0, fy * (1.0 - fx)),
                    (1.0, 1.0, fy * fx),
                ];
                for (tap, (down, right, share)) in corners.into_iter().enumerate() {
                    let (y, x) = (y0 + down, x0 + right);
                    if (0.0..height as f64).contains(&y) && (0.0..width as f64).contains(&x) {
                        index[tap] = (y as usize * width + x as usize) as u32;
                        weight[tap] = share as f32;
                    }
                }
                taps.push((index, weight));
            }
        }
        Rotation {
            pixels: height * width,
            taps,
        }
    }

    /// Appends the turned image, channel by channel.
    pub fn apply(&self, values: &[f32], out: &mut Vec<f32>) {
        for plane in values.chunks_exact(self.pixels) {
            out.extend(self.taps.iter().map(|(index, weight)| {
                let tap = |k: usize| weight[k] * plane[index[k] as usize];
                (tap(0) + tap(1)) + (tap(2) + tap(3))
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(values: &[f32], height: usize, width: usize, degrees: f64) -> Vec<f32> {
        let mut out = vec![];
        Rotation::new(height, width, degrees).apply(values, &mut out);
        out
    }

    #[test]
    fn right_angles_are_exact() {
        for n in [1, 4, 5, 28] {
            let values: Vec<f32> = (0..2 * n * n).map(|v| (v as f32).sin()).collect();
            let at = |c: usize, row: usize, column: usize| values[(c * n + row) * n + column];
            for degrees in [0.0, 90.0, 180.0, 270.0, 360.0, -90.0, 450.0] {
                let turned = turn(&values, n, n, degrees);
                for c in 0..2 {
                    for row in 0..n {
                        for column in 0..n {
                            // What numpy's `rot90` puts there.
                            let expected = match (degrees as i32).rem_euclid(360) {
                                0 => at(c, row, column),
                                90 => at(c, column, n - 1 - row),
                                180 => at(c, n - 1 - row, n - 1 - column),
                                _ => at(c, n - 1 - column, row),
                            };
                            assert_eq!(turned[(c * n + row) * n + column], expected, "{degrees}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_linear_ramp_is_turned_exactly_inside() {
        // Bilinear interpolation is exact for a + b x + c y: an oracle at any angle.
        let n = 21;
        let centre = 10.0;
        let values: Vec<f32> = (0..n * n)
            .map(|i| 3.0 + 0.5 * (i % n) as f32 - 0.25 * (i / n) as f32)
            .collect();
        for degrees in [10.0, 33.3, 45.0, 123.0] {
            let turned = turn(&values, n, n, degrees);
            let (sin, cos) = f64::to_radians(degrees).sin_cos();
            for row in 4..n - 4 {
                for column in 4..n - 4 {
                    let (up, right) = (centre - row as f64, column as f64 - centre);
                    // The point that a counter-clockwise turn brings here.
                    let (from_right, from_up) = (right * cos + up * sin, up * cos - right * sin);
                    if from_right.abs().max(from_up.abs()) < 9.0 {
                        let expected =
                            3.0 + 0.5 * (centre + from_right) - 0.25 * (centre - from_up);
                        assert!((f64::from(turned[row * n + column]) - expected).abs() < 1e-4);
                    }
                }
            }
        }
    }

    #[test]
    fn outside_is_zero() {
        let turned = turn(&[1.0; 64], 8, 8, 45.0);
        assert_eq!(
            (turned[0], turned[7], turned[56], turned[63]),
            (0.0, 0.0, 0.0, 0.0)
        );
        assert!((turned[3 * 8 + 3] - 1.0).abs() < 1e-6);
        // An oblong image turned by 90 degrees leaves its sides empty.
        let turned = turn(&[1.0; 15], 3, 5, 90.0);
        assert_eq!(turned[..5], [0.0, 1.0, 1.0, 1.0, 0.0]);
    }
}
