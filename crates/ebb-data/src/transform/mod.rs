//! What happens to a record on its way into the network.
//!
//! Steps act on raw values (so a padded pixel is a raw zero, as in the field's loaders);
//! normalisation comes last. A [`Transform`] is prepared once for one shape and normalisation:
//! bytes become floats through a table of 256 entries, permutations and padding through one
//! table of indices, rotations through four weighted taps a pixel.

mod corrupt;
mod moved;
mod rotate;

use std::sync::Arc;

use ebb_space::{ExampleId, Key};

pub use corrupt::Corruption;
pub use moved::Move;

use crate::dataset::{Dataset, Normalise, Pixels};
use crate::{Error, Result};
use rotate::Rotation;

/// One step of a transform.
#[derive(Clone, Debug)]
pub enum Step {
    /// Surrounds the image with zeros to `to` × `to`, centred (the odd line goes below and right).
    Pad {
        /// The new height and width.
        to: usize,
    },
    /// Value `i` comes from place `order[i]`, over all channels × height × width.
    Permute {
        /// A permutation of the features.
        order: Arc<[u32]>,
    },
    /// Turns the image counter-clockwise about its centre: bilinear, zeros from outside, the
    /// size kept. Multiples of 90 degrees of a square image are exact.
    Rotate {
        /// The angle.
        degrees: f64,
    },
    /// Damages the image; the damage is drawn from the key and the record's id.
    Corrupt {
        /// The kind of damage.
        kind: Corruption,
        /// 1 (mild) to 5 (severe).
        severity: u8,
        /// The root of the draws.
        key: Key,
    },
    /// Makes a grey image a coloured one of three channels: 0 becomes `paper`, full scale
    /// becomes `ink`, linear in between. White paper and black ink is the negative.
    Recolour {
        /// Red, green and blue of a full-scale value, each 0 to 1.
        ink: [f32; 3],
        /// Red, green and blue of a zero.
        paper: [f32; 3],
    },
}

/// A prepared chain of steps. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Transform(Arc<Plan>);

#[derive(Debug)]
struct Plan {
    view: u32,
    steps: Vec<Step>,
    input: [usize; 3],
    output: [usize; 3],
    scale: Normalise,
    table: [f32; 256],
    route: Route,
}

#[derive(Debug)]
enum Route {
    /// Values go through as they are.
    Copy,
    /// Values only change their places.
    Index(Vec<u32>),
    /// Values change.
    Stages(Vec<Stage>),
}

#[derive(Debug)]
enum Stage {
    Index(Vec<u32>),
    Rotate(Rotation),
    Corrupt {
        corruption: corrupt::Prepared,
        shape: [usize; 3],
    },
    Recolour {
        ink: [f32; 3],
        paper: [f32; 3],
    },
}

/// The index of a value that comes from nowhere: a raw zero.
const BLANK: u32 = u32::MAX;

/// Buffers that [`Transform::write`] reuses from record to record.
#[derive(Default)]
pub(crate) struct Scratch {
    values: Vec<f32>,
    next: Vec<f32>,
}

impl Transform {
    /// Prepares `steps` for records of `shape` (channels, height, width). `view` is the number
    /// that enters the ids of what comes out; 0 is the record itself.
    ///
    /// # Errors
    /// [`Error::BadStream`] for a step that does not fit the shape it meets.
    pub fn new(
        shape: [usize; 3],
        scale: Normalise,
        steps: Vec<Step>,
        view: u32,
    ) -> Result<Transform> {
        scale.check()?;
        let mut output = shape;
        let mut stages: Vec<Stage> = vec![];
        for step in &steps {
            let stage = prepare(step, &mut output, scale.divisor)?;
            match (stages.last_mut(), &stage) {
                (Some(Stage::Index(first)), Stage::Index(second)) => {
                    *first = compose(first, second)
                }
                _ => stages.push(stage),
            }
        }
        let route = match stages.pop() {
            None => Route::Copy,
            Some(Stage::Index(index)) if stages.is_empty() => Route::Index(index),
            Some(last) => {
                stages.push(last);
                Route::Stages(stages)
            }
        };
        let table = std::array::from_fn(|byte| scale.apply(byte as f32));
        Ok(Transform(Arc::new(Plan {
            view,
            steps,
            input: shape,
            output,
            scale,
            table,
            route,
        })))
    }

    /// The records of `dataset` as they are, normalised.
    ///
    /// # Errors
    /// [`Error::BadStream`] if the dataset's normalisation is unusable.
    pub fn identity(dataset: &Dataset) -> Result<Transform> {
        Transform::new(dataset.shape, dataset.scale, vec![], 0)
    }

    /// The number that enters the ids: 0 for the record itself.
    pub fn view(&self) -> u32 {
        self.0.view
    }

    /// The steps, in order.
    pub fn steps(&self) -> &[Step] {
        &self.0.steps
    }

    /// Channels, height and width of what comes out.
    pub fn shape(&self) -> [usize; 3] {
        self.0.output
    }

    /// What a raw zero becomes: the value of what lies outside of an image.
    pub fn blank(&self) -> f32 {
        self.0.scale.apply(0.0)
    }

    /// How raw values become those of the network's input.
    pub fn scale(&self) -> Normalise {
        self.0.scale
    }

    /// Number of values that come out of a record.
    pub fn features(&self) -> usize {
        self.0.output.iter().product()
    }

    /// Appends one transformed record.
    pub(crate) fn write(
        &self,
        dataset: &Dataset,
        row: usize,
        scratch: &mut Scratch,
        out: &mut Vec<f32>,
    ) {
        let plan = &*self.0;
        assert_eq!(
            plan.input, dataset.shape,
            "the transform was made for another shape"
        );
        let features = dataset.features();
        let range = row * features..(row + 1) * features;
        let scale = plan.scale;
        match (&plan.route, &dataset.pixels) {
            (Route::Copy, Pixels::U8(raw)) => {
                out.extend(raw[range].iter().map(|byte| plan.table[usize::from(*byte)]));
            }
            (Route::Copy, Pixels::F32(raw)) => {
                out.extend(raw[range].iter().map(|value| scale.apply(*value)));
            }
            (Route::Index(index), Pixels::U8(raw)) => {
                let raw = &raw[range];
                out.extend(index.iter().map(|i| plan.table[usize::from(at(raw, *i))]));
            }
            (Route::Index(index), Pixels::F32(raw)) => {
                let raw = &raw[range];
                out.extend(index.iter().map(|i| scale.apply(at(raw, *i))));
            }
            (Route::Stages(stages), pixels) => {
                let Scratch { values, next } = scratch;
                values.clear();
                match pixels {
                    Pixels::U8(raw) => values.extend(raw[range].iter().map(|b| f32::from(*b))),
                    Pixels::F32(raw) => values.extend_from_slice(&raw[range]),
                }
                for stage in stages {
                    next.clear();
                    stage.apply(&dataset.ids[row], scale.divisor, values, next);
                    std::mem::swap(values, next);
                }
                out.extend(values.iter().map(|value| scale.apply(*value)));
            }
        }
    }
}

/// A value by its index; a blank is zero.
#[inline(always)]
fn at<T: Copy + Default>(raw: &[T], index: u32) -> T {
    raw.get(index as usize).copied().unwrap_or_default()
}

/// One table for two changes of places, `first` then `second`.
fn compose(first: &[u32], second: &[u32]) -> Vec<u32> {
    second
        .iter()
        .map(|i| first.get(*i as usize).copied().unwrap_or(BLANK))
        .collect()
}

fn prepare(step: &Step, shape: &mut [usize; 3], full: f32) -> Result<Stage> {
    let [channels, height, width] = *shape;
    match step {
        Step::Pad { to } => {
            if *to < height || *to < width || *to > 4096 {
                return Err(Error::stream(
                    "pad",
                    format!("records of {height}x{width} cannot be padded to {to}x{to}"),
                ));
            }
            let (top, left) = ((to - height) / 2, (to - width) / 2);
            let mut index = vec![BLANK; channels * to * to];
            for channel in 0..channels {
                for row in 0..height {
                    for column in 0..width {
                        index[(channel * to + top + row) * to + left + column] =
                            ((channel * height + row) * width + column) as u32;
                    }
                }
            }
            *shape = [channels, *to, *to];
            Ok(Stage::Index(index))
        }
        Step::Permute { order } => {
            let features = channels * height * width;
            let mut seen = vec![false; features];
            let valid = order.len() == features
                && order.iter().all(|i| {
                    seen.get_mut(*i as usize)
                        .is_some_and(|seen| !std::mem::replace(seen, true))
                });
            if !valid {
                return Err(Error::stream(
                    "permuted",
                    format!("the order is no permutation of {features} values"),
                ));
            }
            Ok(Stage::Index(order.to_vec()))
        }
        Step::Rotate { degrees } => {
            if !degrees.is_finite() {
                return Err(Error::stream("degrees", format!("{degrees} is no angle")));
            }
            Ok(Stage::Rotate(Rotation::new(height, width, *degrees)))
        }
        Step::Corrupt {
            kind,
            severity,
            key,
        } => {
            let corruption = corrupt::Prepared::new(*kind, *severity, *key, full)?;
            Ok(Stage::Corrupt {
                corruption,
                shape: *shape,
            })
        }
        Step::Recolour { ink, paper } => {
            if channels != 1 {
                return Err(Error::stream(
                    "recoloured",
                    format!("only grey images can be recoloured; these have {channels} channels"),
                ));
            }
            if !ink.iter().chain(paper).all(|c| (0.0..=1.0).contains(c)) {
                return Err(Error::stream("recoloured", "colours lie between 0 and 1"));
            }
            *shape = [3, height, width];
            Ok(Stage::Recolour {
                ink: *ink,
                paper: *paper,
            })
        }
    }
}

impl Stage {
    /// Appends the record `values` after this stage to `out`; `full` is the raw full scale.
    fn apply(&self, id: &ExampleId, full: f32, values: &[f32], out: &mut Vec<f32>) {
        match self {
            Stage::Index(index) => out.extend(index.iter().map(|i| at(values, *i))),
            Stage::Rotate(rotation) => rotation.apply(values, out),
            Stage::Corrupt { corruption, shape } => corruption.apply(id, *shape, values, out),
            Stage::Recolour { ink, paper } => {
                for (ink, paper) in ink.iter().zip(paper) {
                    out.extend(values.iter().map(|v| paper * full + (ink - paper) * v));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two records of 4x4 bytes, raw scale.
    fn dataset() -> Dataset {
        let values: Vec<u8> = (0..32).map(|v| v * 7).collect();
        let scale = Normalise::raw(255.0);
        Dataset::new(
            "t",
            [1, 4, 4],
            2,
            Pixels::U8(values.into()),
            vec![0, 1],
            scale,
        )
        .unwrap()
    }

    fn raw(dataset: &Dataset, steps: Vec<Step>, row: u32) -> Vec<f32> {
        let transform = Transform::new(dataset.shape, dataset.scale, steps, 1).unwrap();
        let mut out = vec![];
        dataset.gather(&[row], &transform, &mut out);
        assert_eq!(out.len(), transform.features());
        out.iter().map(|v| v * 255.0).collect()
    }

    #[test]
    fn normalisation_is_the_loaders_formula_to_the_bit() {
        let mut dataset = dataset();
        dataset.scale = Normalise {
            divisor: 255.0,
            mean: 0.1307,
            std: 0.3081,
        };
        let mut out = vec![9.0];
        dataset.gather(&[1, 0], &Transform::identity(&dataset).unwrap(), &mut out);
        assert_eq!(out[0], 9.0, "gather appends");
        let expected = |byte: u8| (f32::from(byte) / 255.0 - 0.1307) / 0.3081;
        assert_eq!(
            out[1..17],
            std::array::from_fn::<_, 16, _>(|i| expected((16 + i as u8) * 7))
        );
        assert_eq!(
            out[17..],
            std::array::from_fn::<_, 16, _>(|i| expected(i as u8 * 7))
        );

        // Floats take the same way.
        let floats: Arc<[f32]> = (0..32).map(|v| (v * 7) as f32).collect();
        let same = Dataset {
            pixels: Pixels::F32(floats),
            ..dataset.clone()
        };
        let order: Arc<[u32]> = Key::new(0, "p").permutation(36).into();
        for steps in [
            vec![],
            vec![Step::Pad { to: 6 }, Step::Permute { order }],
            vec![Step::Rotate { degrees: 20.0 }],
        ] {
            let transform = Transform::new([1, 4, 4], dataset.scale, steps, 0).unwrap();
            let (mut a, mut b) = (vec![], vec![]);
            dataset.gather(&[0, 1], &transform, &mut a);
            same.gather(&[0, 1], &transform, &mut b);
            assert_eq!(a, b);
        }
    }

    #[test]
    fn padding_is_a_raw_zero_around_the_centred_image() {
        let mut dataset = dataset();
        dataset.scale = Normalise {
            divisor: 255.0,
            mean: 0.1,
            std: 0.2752,
        };
        let transform =
            Transform::new([1, 4, 4], dataset.scale, vec![Step::Pad { to: 7 }], 0).unwrap();
        assert_eq!(transform.shape(), [1, 7, 7]);
        let mut out = vec![];
        dataset.gather(&[1], &transform, &mut out);
        let zero = (0.0f32 - 0.1) / 0.2752;
        for row in 0..7 {
            for column in 0..7 {
                let inside = (1..5).contains(&row) && (1..5).contains(&column);
                let expected = if inside {
                    ((16 + (row - 1) * 4 + column - 1) as f32 * 7.0 / 255.0 - 0.1) / 0.2752
                } else {
                    zero
                };
                assert_eq!(out[row * 7 + column], expected);
            }
        }
    }

    #[test]
    fn a_permutation_is_undone_by_its_inverse() {
        let dataset = dataset();
        let order: Arc<[u32]> = Key::new(3, "p").permutation(16).into();
        let mut inverse = vec![0; 16];
        for (i, from) in order.iter().enumerate() {
            inverse[*from as usize] = i as u32;
        }
        let there = raw(
            &dataset,
            vec![Step::Permute {
                order: order.clone(),
            }],
            1,
        );
        let plain = raw(&dataset, vec![], 1);
        for (i, from) in order.iter().enumerate() {
            assert_eq!(there[i], plain[*from as usize]);
        }
        let back = vec![
            Step::Permute { order },
            Step::Permute {
                order: inverse.into(),
            },
        ];
        assert_eq!(raw(&dataset, back, 1), plain);
    }

    #[test]
    fn colours_interpolate_between_paper_and_ink() {
        let dataset = dataset();
        let step = Step::Recolour {
            ink: [1.0, 0.5, 0.0],
            paper: [0.0, 0.0, 1.0],
        };
        let out = raw(&dataset, vec![step], 1);
        for i in 0..16 {
            let grey = ((16 + i) * 7) as f32;
            for (got, want) in [
                (out[i], grey),
                (out[16 + i], grey / 2.0),
                (out[32 + i], 255.0 - grey),
            ] {
                assert!((got - want).abs() < 1e-3);
            }
        }
    }

    #[test]
    fn stages_of_every_kind_chain() {
        let dataset = dataset();
        let key = Key::new(0, "c");
        let steps = vec![
            Step::Pad { to: 6 },
            Step::Rotate { degrees: 90.0 },
            Step::Corrupt {
                kind: Corruption::Contrast,
                severity: 1,
                key,
            },
            Step::Recolour {
                ink: [1.0; 3],
                paper: [0.0; 3],
            },
        ];
        assert_eq!(raw(&dataset, steps, 0).len(), 3 * 36);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let message = |steps| {
            let scale = Normalise::raw(1.0);
            Transform::new([1, 4, 4], scale, steps, 0)
                .unwrap_err()
                .to_string()
        };
        assert!(message(vec![Step::Pad { to: 3 }]).contains("4x4 cannot be padded to 3x3"));
        assert!(
            message(vec![Step::Permute {
                order: vec![0; 16].into()
            }])
            .contains("no permutation")
        );
        assert!(message(vec![Step::Rotate { degrees: f64::NAN }]).contains("no angle"));
        let recolour = || Step::Recolour {
            ink: [1.0; 3],
            paper: [0.0; 3],
        };
        assert!(message(vec![recolour(), recolour()]).contains("3 channels"));
        let zero = Normalise {
            divisor: 1.0,
            mean: 0.0,
            std: 0.0,
        };
        assert!(Transform::new([1, 1, 1], zero, vec![], 0).is_err());
    }
}
