//! The embedded digits (see `assets/README.md` for their origin and licence).

use std::io::Read;
use std::sync::Arc;

use crate::dataset::{Dataset, Normalise, Pixels, Split};
use crate::{Error, Result};

pub(crate) const RECORDS: usize = 1797;
/// A fifth of each class, rounded.
pub(crate) const TEST_RECORDS: usize = 359;
const FEATURES: usize = 64;

/// Grey values over 16, then the mean and deviation of all records.
pub(crate) const SCALE: Normalise = Normalise {
    divisor: 16.0,
    mean: 0.3053,
    std: 0.3760,
};

/// Unpacks the records and splits them by [`Dataset::split_by_class`].
pub(crate) fn load() -> Result<Split> {
    let packed: &[u8] = include_bytes!("../assets/digits.bin.gz");
    let mut bytes = Vec::with_capacity(RECORDS * (FEATURES + 1));
    flate2::read::GzDecoder::new(packed)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::malformed("digits.bin.gz", e.to_string()))?;
    if bytes.len() != RECORDS * (FEATURES + 1) {
        return Err(Error::malformed(
            "digits.bin.gz",
            format!("it unpacks to {} bytes", bytes.len()),
        ));
    }
    let labels = bytes
        .split_off(RECORDS * FEATURES)
        .into_iter()
        .map(u32::from)
        .collect();
    let pixels = Pixels::U8(Arc::from(bytes));
    Dataset::new("digits", [1, 8, 8], 10, pixels, labels, SCALE)?.split_by_class(0.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_records_are_the_published_ones() {
        let split = load().unwrap();
        assert_eq!(
            (split.train.len(), split.test.len()),
            (RECORDS - TEST_RECORDS, TEST_RECORDS)
        );
        // Class counts of scikit-learn's `load_digits`.
        let published = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180];
        for (class, count) in published.iter().enumerate() {
            let of = |d: &Dataset| d.labels.iter().filter(|l| **l == class as u32).count();
            assert_eq!(of(&split.train) + of(&split.test), *count);
            assert_eq!(of(&split.test), (*count as f64 * 0.2).round() as usize);
        }
        // The sum of all grey values of `load_digits().data`.
        let sum = |d: &Dataset| match &d.pixels {
            Pixels::U8(p) => p.iter().map(|p| u64::from(*p)).sum::<u64>(),
            Pixels::F32(_) => 0,
        };
        assert_eq!(sum(&split.train) + sum(&split.test), 561_718);
        // The first record of the published file, a zero.
        let mut zero = vec![0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0];
        zero.extend([
            0, 3, 15, 2, 0, 11, 8, 0, 0, 4, 12, 0, 0, 8, 8, 0, 0, 5, 8, 0, 0, 9, 8, 0,
        ]);
        zero.extend([
            0, 4, 11, 0, 1, 12, 7, 0, 0, 2, 14, 5, 10, 12, 0, 0, 0, 0, 6, 13, 10, 0, 0, 0,
        ]);
        let id = ebb_space::ExampleId::of(&zero, 0);
        assert_eq!(
            split
                .train
                .ids
                .iter()
                .chain(&split.test.ids)
                .filter(|i| **i == id)
                .count(),
            1
        );
    }

    #[test]
    fn the_default_normalisation_is_that_of_the_data() {
        let split = load().unwrap();
        let pixels: Vec<f64> = [&split.train, &split.test]
            .iter()
            .flat_map(|d| match &d.pixels {
                Pixels::U8(p) => p.iter().map(|p| f64::from(*p) / 16.0).collect::<Vec<_>>(),
                Pixels::F32(_) => vec![],
            })
            .collect();
        let mean = pixels.iter().sum::<f64>() / pixels.len() as f64;
        let std =
            (pixels.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / pixels.len() as f64).sqrt();
        assert!(
            (mean - f64::from(SCALE.mean)).abs() < 5e-5
                && (std - f64::from(SCALE.std)).abs() < 6e-5
        );
    }
}
