//! The straight line nearest to points.

use crate::{Error, Result};

/// `y = slope · x + intercept`, fitted by least squares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Rise of `y` for each unit of `x`.
    pub slope: f64,
    /// `y` at `x = 0`.
    pub intercept: f64,
    /// The share of the variance of `y` that the line explains; 0 where `y` does not vary.
    pub r_squared: f64,
}

impl Line {
    /// The line of least squares through points `(x, y)`.
    ///
    /// # Errors
    /// [`Error::SampleTooSmall`] for fewer than two points, [`Error::NoVariation`] where all have
    /// the same `x`, [`Error::SampleNotFinite`].
    pub fn fit(points: &[(f64, f64)]) -> Result<Line> {
        let (xs, ys): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
        super::check(&xs, 2)?;
        super::check(&ys, 2)?;
        let (x, y) = (super::mean(&xs), super::mean(&ys));
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        for (a, b) in points {
            xx += (a - x) * (a - x);
            xy += (a - x) * (b - y);
            yy += (b - y) * (b - y);
        }
        if xx == 0.0 {
            return Err(Error::NoVariation);
        }
        let slope = xy / xx;
        Ok(Line {
            slope,
            intercept: y - slope * x,
            r_squared: if yy > 0.0 { xy * xy / (xx * yy) } else { 0.0 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_lines() {
        let points: Vec<(f64, f64)> = (1..9)
            .map(|t| (f64::from(t), 3.0 - 0.5 * f64::from(t)))
            .collect();
        let line = Line::fit(&points).expect("a line");
        assert!((line.slope + 0.5).abs() < 1e-12 && (line.intercept - 3.0).abs() < 1e-12);
        assert!((line.r_squared - 1.0).abs() < 1e-12);
        // By hand: x̄ = 1, ȳ = 4/3, Sxx = 2, Sxy = 1, Syy = 2/3.
        let line = Line::fit(&[(0.0, 1.0), (1.0, 1.0), (2.0, 2.0)]).expect("a line");
        assert!((line.slope - 0.5).abs() < 1e-12 && (line.r_squared - 0.75).abs() < 1e-12);
        let flat = Line::fit(&[(1.0, 2.0), (2.0, 2.0)]).expect("a line");
        assert_eq!((flat.slope, flat.r_squared), (0.0, 0.0));
        assert!(Line::fit(&[(1.0, 2.0), (1.0, 3.0)]).is_err());
        assert!(Line::fit(&[(1.0, f64::NAN), (2.0, 3.0)]).is_err());
    }
}
