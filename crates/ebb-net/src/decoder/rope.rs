//! Rotary positions: every head's query and key turn by angles that grow with the position.
//!
//! **Equation.** With `d` rotated values and frequencies `f_i = θ^(−2i/d)`, the pair
//! `(x_i, x_{i+d/2})` turns by `p · f_i` at position `p`: the first half of a head against the
//! second ("rotate half"), which is how checkpoints in the Hugging Face format are stored.
//! Neighbours `(x_2i, x_2i+1)` would be another network.
//! **Sources.** Su et al., 2021; linear interpolation: Chen et al., 2023; dynamic base: the "NTK"
//! rule as `transformers` writes it; Llama 3.1's bands: its model card; YaRN: Peng et al., 2023.

use burn::tensor::{Device, Tensor, TensorData};
use ebb_kernels::rotary;
use std::f64::consts::PI;

/// How the frequencies stretch beyond the length a network was trained at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// `f / factor`.
    Linear {
        /// How many times longer.
        factor: f64,
    },
    /// A larger `θ` once a sequence is longer than `context`.
    Dynamic {
        /// How many times longer.
        factor: f64,
        /// Positions at which the base begins to grow.
        context: usize,
    },
    /// Low frequencies divided, high ones kept, a ramp between.
    Llama3 {
        /// How many times longer.
        factor: f64,
        /// Turns within `context` under which a frequency is divided.
        low: f64,
        /// Turns within `context` above which a frequency is kept.
        high: f64,
        /// Positions of the first training.
        context: usize,
    },
    /// The same by index of the frequency, and longer queries and keys.
    Yarn {
        /// How many times longer.
        factor: f64,
        /// Turns within `context` above which a frequency is kept.
        fast: f64,
        /// Turns within `context` under which a frequency is divided.
        slow: f64,
        /// Positions of the first training.
        context: usize,
        /// Whether the ends of the ramp are whole indices.
        truncate: bool,
        /// What sines and cosines are multiplied with.
        magnitude: f64,
    },
}

/// Rotary positions of one kind of layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotary {
    /// Values of a head that turn, an even number; the others stay.
    pub width: usize,
    /// The base `θ`.
    pub theta: f64,
    /// How it stretches.
    pub scaling: Scaling,
}

impl Rotary {
    /// Angles per position for a sequence whose last position is `positions - 1`.
    ///
    /// Rounded to f32 where `transformers` rounds: a checkpoint was trained with those angles.
    pub fn frequencies(&self, positions: usize) -> Vec<f32> {
        let d = self.width as f64;
        let theta = match self.scaling {
            Scaling::Dynamic { factor, context } if positions > context => {
                let stretch = factor * positions as f64 / context as f64 - (factor - 1.0);
                self.theta * stretch.powf(d / (d - 2.0))
            }
            _ => self.theta,
        };
        let plain = (0..self.width / 2).map(|i| theta.powf(-2.0 * i as f64 / d));
        let scaled = plain.enumerate().map(|(i, f)| match self.scaling {
            Scaling::None | Scaling::Dynamic { .. } => f,
            Scaling::Linear { factor } => f / factor,
            Scaling::Llama3 {
                factor,
                low,
                high,
                context,
            } => {
                let turns = context as f64 * f / (2.0 * PI);
                let keep = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                keep * f + (1.0 - keep) * f / factor
            }
            Scaling::Yarn {
                factor,
                fast,
                slow,
                context,
                truncate,
                ..
            } => {
                let index = |turns: f64| {
                    d * (context as f64 / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln())
                };
                let (first, last) = match truncate {
                    true => (index(fast).floor(), index(slow).ceil()),
                    false => (index(fast), index(slow)),
                };
                let (first, mut last) = (first.max(0.0), last.min(d - 1.0));
                if first == last {
                    last += 0.001;
                }
                let divide = ((i as f64 - first) / (last - first)).clamp(0.0, 1.0);
                (1.0 - divide) * f + divide * f / factor
            }
        });
        scaled.map(|f| f as f32).collect()
    }

    /// The rotation of tokens at `positions` (`rows` of equal length); the furthest one decides how
    /// far a dynamic base grows.
    pub(crate) fn at(&self, positions: &[u32], rows: usize, device: &Device) -> Rotation {
        let longest = positions.iter().max().map_or(0, |&p| p as usize + 1);
        self.at_lengths(positions, &vec![longest; rows], device)
    }

    /// The same where row `i` is `lengths[i]` tokens long.
    pub(crate) fn at_lengths(
        &self,
        positions: &[u32],
        lengths: &[usize],
        device: &Device,
    ) -> Rotation {
        let magnitude = match self.scaling {
            Scaling::Yarn { magnitude, .. } => magnitude as f32,
            _ => 1.0,
        };
        let each = positions.len() / lengths.len().max(1);
        let mut angles = Vec::with_capacity(positions.len() * self.width / 2);
        for (row, &length) in positions.chunks(each.max(1)).zip(lengths) {
            let frequencies = self.frequencies(length);
            let of = |&p: &u32| frequencies.iter().map(move |&f| p as f32 * f);
            angles.extend(row.iter().flat_map(of));
        }
        let table = |f: fn(f32) -> f32| {
            let values: Vec<f32> = angles.iter().map(|&a| f(a) * magnitude).collect();
            let shape = [lengths.len(), 1, each, self.width / 2];
            Tensor::from_data(TensorData::new(values, shape), device)
        };
        Rotation {
            cos: table(f32::cos),
            sin: table(f32::sin),
        }
    }
}

/// Cosines and sines of one pass, `[rows or 1, 1, positions, width / 2]`.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rotation {
    /// Turns `x`, `[rows, positions, heads, head width]`.
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let [cos, sin] = [&self.cos, &self.sin].map(|t| match x.is_autodiff() {
            true => t.clone().autodiff(),
            false => t.clone(),
        });
        rotary(x, cos, sin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(width: usize, theta: f64) -> Rotary {
        Rotary {
            width,
            theta,
            scaling: Scaling::None,
        }
    }

    #[test]
    fn a_product_of_turned_vectors_depends_on_their_distance_alone() {
        let device = Device::flex();
        let rotary = plain(4, 100.0);
        let vector = |v: [f32; 6]| Tensor::<1>::from_floats(v, &device).reshape([1usize, 1, 1, 6]);
        let (q, k) = (
            vector([1.0, -2.0, 0.5, 3.0, 1.5, -1.0]),
            vector([0.3, 1.0, -1.0, 2.0, 0.2, 0.7]),
        );
        let product = |p: u32, r: u32| {
            let turned = |x: &Tensor<4>, p: u32| rotary.at(&[p], 1, &device).apply(x.clone());
            (turned(&q, p) * turned(&k, r)).sum().into_scalar::<f32>()
        };
        let [near, same, far] = [product(3, 1), product(12, 10), product(12, 1)];
        assert!((near - same).abs() < 1e-5, "{near} {same}");
        assert!((near - far).abs() > 0.1, "{near} {far}");
        let untouched = rotary.at(&[7], 1, &device).apply(q.clone());
        let rest = ebb_kernels::slices::to_vec(&untouched);
        assert_eq!(rest[4..], [1.5, -1.0], "what is not rotated stays");
    }

    #[test]
    fn the_bands_of_llama_3_are_kept_blended_and_divided() {
        let rotary = Rotary {
            scaling: Scaling::Llama3 {
                factor: 8.0,
                low: 1.0,
                high: 4.0,
                context: 32,
            },
            ..plain(8, 50.0)
        };
        let (f, g) = (plain(8, 50.0).frequencies(1), rotary.frequencies(1));
        assert_eq!(g[0], f[0]);
        assert!(g[1] < f[1] && g[1] > f[1] / 8.0);
        assert_eq!(g[3], f[3] / 8.0);
    }

    #[test]
    fn a_dynamic_base_grows_with_the_sequence_only() {
        let rotary = Rotary {
            scaling: Scaling::Dynamic {
                factor: 2.0,
                context: 16,
            },
            ..plain(8, 100.0)
        };
        assert_eq!(rotary.frequencies(16), plain(8, 100.0).frequencies(16));
        assert!(rotary.frequencies(64)[3] < rotary.frequencies(16)[3]);
    }
}
