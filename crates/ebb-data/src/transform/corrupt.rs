//! Damage to an image, drawn from a key and the record's id: the same record is always damaged
//! in the same way, and no other record has a part in it.
//!
//! Strengths follow ImageNet-C (Hendrycks & Dietterich 2019), blur that of its small-image form
//! CIFAR-10-C; occlusion is ours. Values are clamped to the raw range afterwards.

use ebb_space::{ExampleId, Key};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A kind of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Corruption {
    /// Adds normal noise of .08, .12, .18, .26 or .38 of full scale to each value.
    GaussianNoise,
    /// Sets each value with chance .03, .06, .09, .17 or .27 to zero or full scale.
    SaltPepper,
    /// Gaussian blur with a deviation of .4, .6, .7, .8 or 1 pixel.
    Blur,
    /// Shrinks differences from the image's mean to .4, .3, .2, .1 or .05 of what they were.
    Contrast,
    /// Blanks a square of .2, .3, .4, .5 or .6 of the shorter side, at a drawn place.
    Occlusion,
}

impl Corruption {
    /// All kinds.
    pub const ALL: [Corruption; 5] = [
        Corruption::GaussianNoise,
        Corruption::SaltPepper,
        Corruption::Blur,
        Corruption::Contrast,
        Corruption::Occlusion,
    ];

    /// The name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Corruption::GaussianNoise => "gaussian-noise",
            Corruption::SaltPepper => "salt-pepper",
            Corruption::Blur => "blur",
            Corruption::Contrast => "contrast",
            Corruption::Occlusion => "occlusion",
        }
    }

    fn strengths(self) -> [f64; 5] {
        match self {
            Corruption::GaussianNoise => [0.08, 0.12, 0.18, 0.26, 0.38],
            Corruption::SaltPepper => [0.03, 0.06, 0.09, 0.17, 0.27],
            Corruption::Blur => [0.4, 0.6, 0.7, 0.8, 1.0],
            Corruption::Contrast => [0.4, 0.3, 0.2, 0.1, 0.05],
            Corruption::Occlusion => [0.2, 0.3, 0.4, 0.5, 0.6],
        }
    }
}

/// A corruption with its strength looked up.
#[derive(Debug)]
pub(super) struct Prepared {
    kind: Corruption,
    strength: f64,
    key: Key,
    full: f32,
    /// Of a blur: the weights from the centre outwards.
    kernel: Vec<f32>,
}

impl Prepared {
    /// `full` is the raw value of full scale.
    pub fn new(kind: Corruption, severity: u8, key: Key, full: f32) -> Result<Prepared> {
        if !(1..=5).contains(&severity) {
            return Err(Error::stream(
                "severity",
                format!("{severity} is not between 1 and 5"),
            ));
        }
        let strength = kind.strengths()[usize::from(severity) - 1];
        let reach = (4.0 * strength).ceil() as usize;
        let bell = |k: usize| (-(k as f64 / strength).powi(2) / 2.0).exp();
        let sum = bell(0) + 2.0 * (1..=reach).map(bell).sum::<f64>();
        let kernel = match kind {
            Corruption::Blur => (0..=reach).map(|k| (bell(k) / sum) as f32).collect(),
            _ => vec![],
        };
        Ok(Prepared {
            kind,
            strength,
            key: key.sub(kind.name()),
            full,
            kernel,
        })
    }

    /// Appends the damaged image.
    pub fn apply(&self, id: &ExampleId, shape: [usize; 3], values: &[f32], out: &mut Vec<f32>) {
        let key = self.key.at(id.mix());
        let full = self.full;
        match self.kind {
            Corruption::GaussianNoise => {
                let sigma = self.strength as f32 * full;
                out.extend(values.iter().zip(0..).map(|(value, place)| {
                    (value + sigma * key.normal(place) as f32).clamp(0.0, full)
                }));
            }
            Corruption::SaltPepper => {
                out.extend(values.iter().zip(0..).map(|(value, place)| {
                    let u = key.uniform(place);
                    if u >= self.strength {
                        *value
                    } else if u < self.strength / 2.0 {
                        0.0
                    } else {
                        full
                    }
                }));
            }
            Corruption::Blur => self.blur(shape, values, out),
            Corruption::Contrast => {
                let kept = self.strength as f32;
                for plane in values.chunks_exact(shape[1] * shape[2]) {
                    let sum: f64 = plane.iter().map(|v| f64::from(*v)).sum();
                    let mean = (sum / plane.len() as f64) as f32;
                    out.extend(
                        plane
                            .iter()
                            .map(|v| ((v - mean) * kept + mean).clamp(0.0, full)),
                    );
                }
            }
            Corruption::Occlusion => {
                let [_, height, width] = shape;
                let side = (self.strength * height.min(width) as f64).round().max(1.0) as usize;
                let mut draws = key.stream();
                let top = draws.below((height - side + 1) as u64) as usize;
                let left = draws.below((width - side + 1) as u64) as usize;
                let start = out.len();
                out.extend_from_slice(values);
                for plane in out[start..].chunks_exact_mut(height * width) {
                    for row in plane.chunks_exact_mut(width).skip(top).take(side) {
                        row[left..left + side].fill(0.0);
                    }
                }
            }
        }
    }

    /// Separable, with the border repeated outwards.
    fn blur(&self, [_, height, width]: [usize; 3], values: &[f32], out: &mut Vec<f32>) {
        let mut lines = vec![0.0; height * width];
        for plane in values.chunks_exact(height * width) {
            for row in 0..height {
                let line = &plane[row * width..(row + 1) * width];
                for column in 0..width {
                    lines[row * width + column] = self.tap(column, width, |i| line[i]);
                }
            }
            for row in 0..height {
                for column in 0..width {
                    out.push(self.tap(row, height, |i| lines[i * width + column]));
                }
            }
        }
    }

    fn tap(&self, at: usize, len: usize, value: impl Fn(usize) -> f32) -> f32 {
        let sides = |k: usize| value(at.saturating_sub(k)) + value((at + k).min(len - 1));
        let far: f32 = (1..self.kernel.len())
            .map(|k| self.kernel[k] * sides(k))
            .sum();
        self.kernel[0] * value(at) + far
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> ExampleId {
        ExampleId::of(&[n], 0)
    }

    fn apply(
        kind: Corruption,
        severity: u8,
        of: u8,
        shape: [usize; 3],
        values: &[f32],
    ) -> Vec<f32> {
        let mut out = vec![];
        let prepared = Prepared::new(kind, severity, Key::new(1, "c"), 255.0).unwrap();
        prepared.apply(&id(of), shape, values, &mut out);
        out
    }

    #[test]
    fn damage_belongs_to_the_record() {
        let values = vec![100.0; 3 * 64];
        for kind in Corruption::ALL {
            let once = apply(kind, 3, 1, [3, 8, 8], &values);
            assert_eq!(once.len(), 192);
            assert_eq!(once, apply(kind, 3, 1, [3, 8, 8], &values));
            let drawn = !matches!(kind, Corruption::Blur | Corruption::Contrast);
            assert_eq!(
                drawn,
                (2..8).any(|n| once != apply(kind, 3, n, [3, 8, 8], &values))
            );
        }
    }

    #[test]
    fn noise_has_the_published_strength() {
        let shape = [1, 200, 200];
        let values = vec![127.5; 40_000];
        for (severity, sigma) in [(1, 0.08), (2, 0.12)] {
            // At these strengths the clamp is beyond four deviations.
            let out = apply(Corruption::GaussianNoise, severity, 1, shape, &values);
            let square: f64 = out
                .iter()
                .map(|v| ((f64::from(*v) - 127.5) / 255.0).powi(2))
                .sum();
            assert!(((square / 4e4).sqrt() / sigma - 1.0).abs() < 0.02);
        }
        for (severity, share) in [(1, 0.03), (5, 0.27)] {
            let out = apply(Corruption::SaltPepper, severity, 1, shape, &values);
            let salt = out.iter().filter(|v| **v == 255.0).count() as f64 / 4e4;
            let pepper = out.iter().filter(|v| **v == 0.0).count() as f64 / 4e4;
            let error = 4.0 * (share / 2.0 / 4e4f64).sqrt();
            assert!((salt - share / 2.0).abs() < error && (pepper - share / 2.0).abs() < error);
        }
    }

    #[test]
    fn blur_spreads_a_point_into_the_bell_curve_and_keeps_constants() {
        let mut point = vec![0.0; 21 * 21];
        point[10 * 21 + 10] = 100.0;
        let out = apply(Corruption::Blur, 5, 1, [1, 21, 21], &point);
        for (dy, dx) in [(0, 0), (1, 0), (0, 2), (2, 1)] {
            let expected =
                100.0 / (2.0 * std::f64::consts::PI) * (-((dy * dy + dx * dx) as f64) / 2.0).exp();
            let got = f64::from(out[(10 + dy) * 21 + 10 - dx]);
            assert!((got - expected).abs() < 1e-4, "{got} {expected}");
        }
        let flat = apply(Corruption::Blur, 5, 1, [2, 4, 4], &[50.0; 32]);
        assert!(flat.iter().all(|v| (v - 50.0).abs() < 1e-4));
    }

    #[test]
    fn contrast_shrinks_about_the_mean_and_occlusion_blanks_a_square() {
        let values: Vec<f32> = (0..100).map(|v| v as f32).collect();
        let out = apply(Corruption::Contrast, 1, 1, [1, 10, 10], &values);
        assert!((out[0] - (49.5 - 0.4 * 49.5)).abs() < 1e-4);
        let out = apply(Corruption::Occlusion, 4, 1, [1, 10, 10], &[7.0; 100]);
        let blank: Vec<usize> = (0..100).filter(|i| out[*i] == 0.0).collect();
        assert_eq!(blank.len(), 25);
        let first = blank[0];
        assert!(
            blank
                .iter()
                .enumerate()
                .all(|(k, i)| *i == first + k / 5 * 10 + k % 5)
        );
    }

    #[test]
    fn severities_are_one_to_five() {
        for severity in [0, 6] {
            let error =
                Prepared::new(Corruption::Blur, severity, Key::new(0, ""), 1.0).unwrap_err();
            assert!(error.to_string().contains("between 1 and 5"));
        }
    }
}
