//! Records with labels and stable ids.

use std::collections::HashMap;
use std::sync::Arc;

use ebb_space::{ExampleId, Key};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::transform::Transform;
use crate::{Error, Result};

/// The raw values of all records, one record after another, each channel by channel and row by
/// row.
#[derive(Clone, Debug)]
pub enum Pixels {
    /// Bytes, such as grey values.
    U8(Arc<[u8]>),
    /// Floats.
    F32(Arc<[f32]>),
}

impl Pixels {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Pixels::U8(values) => values.len(),
            Pixels::F32(values) => values.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// `(x / divisor − mean) / std`, in this order and in `f32`, as the field's loaders do it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalise {
    /// The raw value that becomes 1: 255 for bytes.
    pub divisor: f32,
    /// Subtracted after the division.
    pub mean: f32,
    /// Divided by at the end.
    pub std: f32,
}

impl Normalise {
    /// Raw values over `divisor`, nothing more: 0 to 1 for grey values.
    pub const fn raw(divisor: f32) -> Normalise {
        Normalise {
            divisor,
            mean: 0.0,
            std: 1.0,
        }
    }

    /// The normalised value.
    #[inline]
    pub fn apply(&self, raw: f32) -> f32 {
        self.from_unit(raw / self.divisor)
    }

    /// The raw value over `divisor` behind a normalised one: 0 to 1, up to rounding, for grey
    /// values. Generators that draw from [0, 1] work in these.
    #[inline]
    pub fn to_unit(&self, normalised: f32) -> f32 {
        normalised * self.std + self.mean
    }

    /// The normalised value of a raw value over `divisor`.
    #[inline]
    pub fn from_unit(&self, unit: f32) -> f32 {
        (unit - self.mean) / self.std
    }

    pub(crate) fn check(&self) -> Result<()> {
        let usable = |x: f32| x.is_finite() && x > 0.0;
        if usable(self.divisor) && usable(self.std) && self.mean.is_finite() {
            return Ok(());
        }
        Err(Error::stream(
            "normalise",
            "divisor and std must be above 0, and all three finite",
        ))
    }
}

/// Labelled records of one shape.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Its name in a recipe.
    pub name: String,
    /// Channels, height, width.
    pub shape: [usize; 3],
    /// Number of classes; labels are below it.
    pub classes: usize,
    /// Raw values, `len() × features()`.
    pub pixels: Pixels,
    /// The class of each record.
    pub labels: Vec<u32>,
    /// The id of each record, its occurrence counted among equal records in order of appearance.
    pub ids: Vec<ExampleId>,
    /// How raw values become the network's input.
    pub scale: Normalise,
}

/// A dataset in two parts.
#[derive(Clone, Debug)]
pub struct Split {
    /// To learn from.
    pub train: Arc<Dataset>,
    /// To measure on.
    pub test: Arc<Dataset>,
}

impl Dataset {
    /// A dataset with its ids computed (BLAKE3 of the raw bytes and the label; floats as
    /// little-endian bytes), validated.
    ///
    /// # Errors
    /// What [`validate`](Dataset::validate) finds.
    pub fn new(
        name: &str,
        shape: [usize; 3],
        classes: usize,
        pixels: Pixels,
        labels: Vec<u32>,
        scale: Normalise,
    ) -> Result<Dataset> {
        let mut dataset = Dataset {
            name: name.into(),
            shape,
            classes,
            pixels,
            labels,
            ids: vec![],
            scale,
        };
        dataset.validate_values()?;
        dataset.ids = dataset.compute_ids();
        Ok(dataset)
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Raw values in a record: channels × height × width.
    pub fn features(&self) -> usize {
        self.shape.iter().product()
    }

    /// Appends the transformed, normalised records `rows` to `out`, row by row:
    /// `rows.len() × transform.features()` values.
    ///
    /// # Panics
    /// If a row is out of range, or the transform was made for another shape.
    pub fn gather(&self, rows: &[u32], transform: &Transform, out: &mut Vec<f32>) {
        out.reserve(rows.len() * transform.features());
        let mut scratch = Default::default();
        for row in rows {
            transform.write(self, *row as usize, &mut scratch, out);
        }
    }

    /// Finds values that cannot be learned from.
    ///
    /// # Errors
    /// [`Error::BadData`]: sizes that do not fit, no record, a label out of range, or a NaN or
    /// infinite value, named with its record and position and their count.
    pub fn validate(&self) -> Result<()> {
        self.validate_values()?;
        if self.ids.len() != self.len() {
            return Err(self.bad(format!("{} ids for {} records", self.ids.len(), self.len())));
        }
        Ok(())
    }

    fn validate_values(&self) -> Result<()> {
        let features = self.features();
        if self.is_empty() || features == 0 {
            return Err(self.bad("it holds no values".into()));
        }
        if Some(self.pixels.len()) != self.len().checked_mul(features) {
            return Err(self.bad(format!(
                "{} values do not make {} records of {:?}",
                self.pixels.len(),
                self.len(),
                self.shape
            )));
        }
        if let Some(row) = self.labels.iter().position(|l| *l as usize >= self.classes) {
            return Err(self.bad(format!(
                "record {row} has the label {}, and there are {} classes (0 to {})",
                self.labels[row],
                self.classes,
                self.classes.saturating_sub(1)
            )));
        }
        if let Pixels::F32(values) = &self.pixels
            && let Some(first) = values.iter().position(|v| !v.is_finite())
        {
            let count = values.iter().filter(|v| !v.is_finite()).count();
            let [_, height, width] = self.shape;
            let (record, at) = (first / features, first % features);
            return Err(self.bad(format!(
                "record {record} (label {}) has the value {} at channel {}, row {}, column {}; {count} of {} values are not finite: replace them or leave these records out",
                self.labels[record],
                values[first],
                at / (height * width),
                at / width % height,
                at % width,
                values.len()
            )));
        }
        Ok(())
    }

    fn bad(&self, what: String) -> Error {
        Error::BadData {
            dataset: self.name.clone(),
            what,
        }
    }

    fn compute_ids(&self) -> Vec<ExampleId> {
        let features = self.features();
        let of = |(row, label): (usize, &u32)| {
            let range = row * features..(row + 1) * features;
            match &self.pixels {
                Pixels::U8(values) => ExampleId::of(&values[range], *label),
                Pixels::F32(values) => {
                    let bytes: Vec<u8> =
                        values[range].iter().flat_map(|v| v.to_le_bytes()).collect();
                    ExampleId::of(&bytes, *label)
                }
            }
        };
        let mut ids: Vec<ExampleId> = self
            .labels
            .par_iter()
            .enumerate()
            .with_min_len(256)
            .map(of)
            .collect();
        let mut seen: HashMap<[u8; 16], u32> = HashMap::with_capacity(ids.len());
        for id in &mut ids {
            let next = seen.entry(id.base).or_insert(0);
            *id = id.with_occurrence(*next);
            *next += 1;
        }
        ids
    }

    /// The records `rows`, with the ids that they have here.
    ///
    /// # Panics
    /// If a row is out of range.
    #[must_use]
    pub fn select(&self, rows: &[u32]) -> Dataset {
        fn pick<T: Copy + Default>(values: &[T], rows: &[u32], features: usize) -> Arc<[T]> {
            let mut out: Arc<[T]> =
                std::iter::repeat_n(T::default(), rows.len() * features).collect();
            let body = Arc::get_mut(&mut out).expect("nobody else holds a new allocation");
            for (to, row) in body.chunks_exact_mut(features.max(1)).zip(rows) {
                to.copy_from_slice(&values[*row as usize * features..][..features]);
            }
            out
        }
        let features = self.features();
        Dataset {
            name: self.name.clone(),
            shape: self.shape,
            classes: self.classes,
            pixels: match &self.pixels {
                Pixels::U8(values) => Pixels::U8(pick(values, rows, features)),
                Pixels::F32(values) => Pixels::F32(pick(values, rows, features)),
            },
            labels: rows.iter().map(|row| self.labels[*row as usize]).collect(),
            ids: rows.iter().map(|row| self.ids[*row as usize]).collect(),
            scale: self.scale,
        }
    }

    /// The dataset without the records for which `drop` holds, as if they had never been there:
    /// every draw of every other record stays as it was.
    #[must_use]
    pub fn without(&self, drop: impl Fn(&ExampleId) -> bool) -> Dataset {
        let rows: Vec<u32> = (0..self.len() as u32)
            .filter(|row| !drop(&self.ids[*row as usize]))
            .collect();
        self.select(&rows)
    }

    /// Splits off a test set: of each class the `share` (rounded) with the smallest keyed draws.
    /// The key is fixed, so that a split belongs to the data and never to the seed of a run.
    /// Both parts keep the order of the records.
    ///
    /// # Errors
    /// [`Error::BadData`] if a part would be empty.
    pub fn split_by_class(&self, share: f64) -> Result<Split> {
        let key = Key::new(0, "test split");
        let mut is_test = vec![false; self.len()];
        for class in 0..self.classes as u32 {
            let mut rows: Vec<usize> = (0..self.len())
                .filter(|r| self.labels[*r] == class)
                .collect();
            key.order(&mut rows, |row| self.ids[*row].mix());
            let test = (rows.len() as f64 * share).round() as usize;
            for row in &rows[..test.min(rows.len())] {
                is_test[*row] = true;
            }
        }
        let part = |test: bool| {
            let rows: Vec<u32> = (0..self.len() as u32)
                .filter(|row| is_test[*row as usize] == test)
                .collect();
            Arc::new(self.select(&rows))
        };
        let split = Split {
            train: part(false),
            test: part(true),
        };
        if split.train.is_empty() || split.test.is_empty() {
            return Err(self.bad(format!(
                "{} records are too few to split off a test set; give a test set of your own (x_test, y_test)",
                self.len()
            )));
        }
        Ok(split)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(values: Vec<f32>, labels: Vec<u32>, classes: usize) -> Result<Dataset> {
        let shape = [1, 2, 2];
        Dataset::new(
            "mine",
            shape,
            classes,
            Pixels::F32(values.into()),
            labels,
            Normalise::raw(1.0),
        )
    }

    #[test]
    fn a_normalised_value_goes_back_to_the_unit_interval() {
        let scale = Normalise {
            divisor: 255.0,
            mean: 0.1307,
            std: 0.3081,
        };
        for raw in 0..=255u8 {
            let normalised = scale.apply(f32::from(raw));
            let unit = scale.to_unit(normalised);
            assert!((unit - f32::from(raw) / 255.0).abs() < 1e-6, "{raw}");
            assert!((scale.from_unit(unit) - normalised).abs() < 1e-6, "{raw}");
        }
    }

    #[test]
    fn equal_records_are_told_apart_by_order_of_appearance() {
        let a = [1.0, 2.0, 3.0, 4.0];
        let b = [0.0; 4];
        let values = [a, b, a, a, b].concat();
        let dataset = floats(values, vec![0, 0, 0, 1, 0], 2).unwrap();
        let bytes: Vec<u8> = a.iter().flat_map(|v: &f32| v.to_le_bytes()).collect();
        assert_eq!(dataset.ids[0], ExampleId::of(&bytes, 0));
        assert_eq!(dataset.ids[2], dataset.ids[0].with_occurrence(1));
        assert_eq!(dataset.ids[3], ExampleId::of(&bytes, 1)); // another label, another record
        assert_eq!(dataset.ids[4], dataset.ids[1].with_occurrence(1));
        // Taking the first of two equals away leaves the name of the second.
        let less = dataset.without(|id| *id == dataset.ids[0]);
        assert_eq!(less.ids, dataset.ids[1..]);
        assert_eq!(less.labels, [0, 0, 1, 0]);
        assert!(less.validate().is_ok());
    }

    #[test]
    fn what_is_not_finite_is_named() {
        let mut values = vec![0.5; 12];
        values[6] = f32::NAN;
        values[9] = f32::INFINITY;
        let message = floats(values, vec![0, 1, 0], 2).unwrap_err().to_string();
        for word in [
            "mine",
            "record 1 (label 1)",
            "NaN",
            "channel 0, row 1, column 0",
            "2 of 12",
        ] {
            assert!(message.contains(word), "{word} is missing in: {message}");
        }
    }

    #[test]
    fn sizes_and_labels_are_checked() {
        let message = |r: Result<Dataset>| r.unwrap_err().to_string();
        assert!(message(floats(vec![0.0; 8], vec![0, 2], 2)).contains("record 1 has the label 2"));
        assert!(
            message(floats(vec![0.0; 7], vec![0, 1], 2)).contains("7 values do not make 2 records")
        );
        assert!(message(floats(vec![], vec![], 2)).contains("no values"));
    }

    #[test]
    fn a_split_by_class_is_stratified_and_survives_a_removal() {
        let values: Vec<f32> = (0..400).map(|v| v as f32).collect();
        let labels: Vec<u32> = (0..100).map(|r| r % 4).collect();
        let all = floats(values, labels, 4).unwrap();
        let split = all.split_by_class(0.2).unwrap();
        for class in 0..4 {
            assert_eq!(split.test.labels.iter().filter(|l| **l == class).count(), 5);
        }
        let gone = split.train.ids[7];
        let again = all.without(|id| *id == gone).split_by_class(0.2).unwrap();
        assert_eq!(again.test.ids, split.test.ids);
        assert_eq!(again.train.len() + 1, split.train.len());
    }
}
