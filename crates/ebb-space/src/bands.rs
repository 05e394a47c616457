//! Bands: for each number of a row whether it was low, neutral or high when the row was kept, in two
//! bits, and the loss that is 0 as long as it stays there (GeRe, S160).
//!
//! A band is an interval: `(−∞, l_d]`, `[l_d, u_d]` or `[u_d, ∞)`, with the thresholds `l ≤ u` of
//! column d. The margin of h is how far it lies outside of its interval.

use crate::{Error, Result};

/// Numbers in a byte.
const EACH: usize = 4;
const LOW: u8 = 0;
const NEUTRAL: u8 = 1;
const HIGH: u8 = 2;

/// The borders between low, neutral and high, a pair a column.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds {
    low: Vec<f32>,
    high: Vec<f32>,
}

impl Thresholds {
    /// Borders `low ≤ high`, column by column.
    ///
    /// # Errors
    /// [`Error::Length`] when there are not as many of both, [`Error::BadThresholds`] when they are
    /// not in order.
    pub fn new(low: Vec<f32>, high: Vec<f32>) -> Result<Thresholds> {
        if low.len() != high.len() {
            return Err(Error::Length {
                what: "the upper thresholds",
                expected: low.len(),
                found: high.len(),
            });
        }
        let disordered = |(l, u): (&f32, &f32)| l > u || l.is_nan() || u.is_nan();
        match low.iter().zip(&high).position(disordered) {
            Some(column) => Err(Error::BadThresholds { column }),
            None => Ok(Thresholds { low, high }),
        }
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.low.len()
    }

    /// The lower borders.
    pub fn low(&self) -> &[f32] {
        &self.low
    }

    /// The upper borders.
    pub fn high(&self) -> &[f32] {
        &self.high
    }

    /// Bytes of a row's codes.
    pub fn stride(&self) -> usize {
        self.width().div_ceil(EACH)
    }

    /// Adds the codes of a row of numbers: low where `h ≤ l`, high where `h ≥ u`, else neutral.
    pub fn encode(&self, row: &[f32], codes: &mut Vec<u8>) {
        let borders = self.low.iter().zip(&self.high);
        let mut each = row.iter().zip(borders).map(|(h, (l, u))| {
            if h <= l {
                LOW
            } else if h >= u {
                HIGH
            } else {
                NEUTRAL
            }
        });
        for _ in 0..self.stride() {
            let four = (&mut each).take(EACH).enumerate();
            codes.push(four.fold(0, |byte, (k, code)| byte | code << (2 * k)));
        }
    }
}

/// The bands of the rows of a pass.
#[derive(Clone, Copy, Debug)]
pub struct Bands<'a> {
    thresholds: &'a Thresholds,
    codes: &'a [u8],
}

impl<'a> Bands<'a> {
    /// `codes` hold a row of [`Thresholds::encode`] for each row of the pass.
    pub fn new(thresholds: &'a Thresholds, codes: &'a [u8]) -> Bands<'a> {
        Bands { thresholds, codes }
    }

    /// Whether there is a row for each of `rows`, as wide as `cols`.
    pub(crate) fn fits(&self, rows: usize, cols: usize) -> Result<()> {
        let wrong = |what, expected, found| {
            Err(Error::Length {
                what,
                expected,
                found,
            })
        };
        let (width, stride) = (self.thresholds.width(), self.thresholds.stride());
        match (width == cols, self.codes.len() == rows * stride) {
            (false, _) => wrong("the thresholds of the bands", cols, width),
            (_, false) => wrong("the codes of the bands", rows * stride, self.codes.len()),
            _ => Ok(()),
        }
    }

    /// How far each number of row `i` lies above its band, or below it as a negative number.
    pub fn outside(&self, i: usize, row: &[f32]) -> impl Iterator<Item = f64> {
        let t = self.thresholds;
        let stride = t.stride();
        let codes = &self.codes[i * stride..(i + 1) * stride];
        let borders = t.low.iter().zip(&t.high);
        row.iter()
            .zip(borders)
            .enumerate()
            .map(move |(d, (h, (l, u)))| {
                let (h, l, u) = (f64::from(*h), f64::from(*l), f64::from(*u));
                match codes[d / EACH] >> (2 * (d % EACH)) & 3 {
                    LOW => (h - l).max(0.0),
                    HIGH => (h - u).min(0.0),
                    _ => (h - u).max(0.0) + (h - l).min(0.0),
                }
            })
    }
}

/// What of the rows of a pass lies outside of its bands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Violations {
    /// Sum of the margins.
    pub margin: f64,
    /// Numbers that lie outside.
    pub count: usize,
    /// Numbers looked at.
    pub of: usize,
}

impl Violations {
    /// Counts a row of [`Bands::outside`].
    pub fn add(&mut self, row: impl Iterator<Item = f64>) {
        for outside in row {
            self.of += 1;
            if outside != 0.0 {
                self.count += 1;
                self.margin += outside.abs();
            }
        }
    }

    /// The mean margin of the numbers that lie outside; 0 where none does.
    pub fn mean(&self) -> f64 {
        self.margin / self.count.max(1) as f64
    }

    /// The share of numbers that lie outside.
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.of.max(1) as f64
    }
}

/// The mean margin over the numbers outside, of the rows `members`, whose features `row` gives; its
/// gradient is written into `gradient`, a row of `cols` each.
pub(crate) fn margin<'a>(
    bands: &Bands,
    members: &[usize],
    cols: usize,
    row: impl Fn(usize) -> &'a [f32],
    gradient: &mut [f64],
) -> f64 {
    let mut found = Violations::default();
    for (&i, g) in members.iter().zip(gradient.chunks_exact_mut(cols)) {
        found.add(bands.outside(i, row(i)));
        let slopes = bands.outside(i, row(i)).zip(g);
        slopes.for_each(|(outside, g)| {
            *g = if outside == 0.0 {
                0.0
            } else {
                outside.signum()
            }
        });
    }
    let share = 1.0 / found.count.max(1) as f64;
    gradient.iter_mut().for_each(|g| *g *= share);
    found.mean()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    /// The published definition, with the kept activations in the place of codes.
    fn written_out(h0: &[f64], h: &[f64], lo: f64, hi: f64) -> f64 {
        let relu = |v: f64| v.max(0.0);
        let each = h0.iter().zip(h).map(|(&h0, &h)| {
            if h0 <= lo {
                relu(h - lo)
            } else if h0 >= hi {
                relu(hi - h)
            } else {
                relu(h - hi) + relu(lo - h)
            }
        });
        let (sum, n) = each.fold((0.0, 0), |(sum, n), v| (sum + v, n + i32::from(v != 0.0)));
        if n == 0 { 0.0 } else { sum / f64::from(n) }
    }

    fn numbers(name: &str, n: u64) -> Vec<f32> {
        let key = Key::new(2, name);
        (0..n).map(|i| key.normal(i) as f32).collect()
    }

    #[test]
    fn the_margin_and_its_gradient_are_those_of_the_definition() {
        // Widths that do and do not fill their bytes.
        for width in [1usize, 4, 7] {
            let (rows, lo, hi) = (5, -0.6f32, 0.4f32);
            let thresholds = Thresholds::new(vec![lo; width], vec![hi; width]).unwrap();
            let h0 = numbers("kept", (rows * width) as u64);
            let h = numbers("now", (rows * width) as u64);
            let mut codes = Vec::new();
            (h0.chunks(width)).for_each(|row| thresholds.encode(row, &mut codes));
            let bands = Bands::new(&thresholds, &codes);
            bands.fits(rows, width).unwrap();
            // Not all rows, and not in order.
            let members = [3, 0, 4];
            let of = |v: &[f32]| -> Vec<f64> {
                let rows = members.iter().flat_map(|i| &v[i * width..(i + 1) * width]);
                rows.map(|v| f64::from(*v)).collect()
            };
            let row = |i: usize| &h[i * width..(i + 1) * width];
            let mut gradient = vec![f64::NAN; 3 * width];
            let value = margin(&bands, &members, width, row, &mut gradient);
            let (kept, now) = (of(&h0), of(&h));
            let at = |now: &[f64]| written_out(&kept, now, f64::from(lo), f64::from(hi));
            assert!((value - at(&now)).abs() < 1e-12, "{value} {}", at(&now));
            for k in 0..3 * width {
                let moved = |by: f64| {
                    let mut now = now.clone();
                    now[k] += by;
                    at(&now)
                };
                let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                assert!((gradient[k] - slope).abs() < 1e-6, "{width} {k}");
            }
        }
    }

    #[test]
    fn what_was_kept_lies_in_its_own_band() {
        let h0 = numbers("kept", 600);
        // On a border, and with a column that never varied.
        let mut h0 = [h0, vec![-0.5, 0.5, 0.1]].concat();
        h0.extend([2.0; 3]);
        let thresholds = Thresholds::new(vec![-0.5, -0.5, 2.0], vec![0.5, 0.5, 2.0]).unwrap();
        let mut codes = Vec::new();
        (h0.chunks(3)).for_each(|row| thresholds.encode(row, &mut codes));
        assert_eq!(codes.len(), 202);
        let bands = Bands::new(&thresholds, &codes);
        let mut found = Violations::default();
        for (i, row) in h0.chunks(3).enumerate() {
            found.add(bands.outside(i, row));
        }
        assert_eq!((found.margin, found.count, found.of), (0.0, 0, 606));
        // No number outside: no mean over nothing.
        assert_eq!((found.mean(), found.rate()), (0.0, 0.0));
        let mut gradient = vec![1.0; 3];
        let value = margin(&bands, &[7], 3, |i| &h0[3 * i..3 * i + 3], &mut gradient);
        assert_eq!((value, gradient), (0.0, vec![0.0; 3]));
    }

    #[test]
    fn thresholds_and_codes_that_do_not_fit_are_refused() {
        assert!(Thresholds::new(vec![0.0; 2], vec![0.0]).is_err());
        for (l, u) in [(1.0, 0.5), (f32::NAN, 1.0)] {
            assert_eq!(
                Thresholds::new(vec![0.0, l], vec![0.0, u]),
                Err(Error::BadThresholds { column: 1 })
            );
        }
        let thresholds = Thresholds::new(vec![0.0; 5], vec![1.0; 5]).unwrap();
        let bands = Bands::new(&thresholds, &[0; 4]);
        assert!(bands.fits(2, 5).is_ok());
        assert!(bands.fits(3, 5).is_err() && bands.fits(2, 4).is_err());
    }
}
