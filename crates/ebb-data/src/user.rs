//! A user's own data in a safetensors file.

use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::dataset::{Dataset, Normalise, Pixels, Split};
use crate::{Error, Result};

/// Reads the tensors `x` (`f32` or `u8`; `[n, d]`, `[n, h, w]` or `[n, c, h, w]`) and `y` (`u8`,
/// `i32` or `i64`; `[n]`, classes counted from 0) of a safetensors file. `x_test` and `y_test`
/// are the test set; without them a fifth of each class is split off by
/// [`Dataset::split_by_class`]. Bytes are divided by 255, floats are taken as they are.
///
/// # Errors
/// A missing tensor, a wrong type or shape, and what [`Dataset::validate`] finds, each named.
pub fn from_safetensors(path: &Path) -> Result<Split> {
    let name = path.display().to_string();
    let bad = |why: String| Error::malformed(name.clone(), why);
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| bad(e.to_string()))?;
    let tensor = |tensor: &str| {
        file.tensor(tensor).map_err(|_| {
            let names = file.names().join(", ");
            bad(format!(
                "it has no tensor {tensor}, only {names}; name the inputs x and the labels y"
            ))
        })
    };

    let part = |x_name: &str, y_name: &str| {
        let (x, y) = (tensor(x_name)?, tensor(y_name)?);
        let shape = match x.shape() {
            [_, d] => [1, 1, *d],
            [_, h, w] => [1, *h, *w],
            [_, c, h, w] => [*c, *h, *w],
            other => {
                return Err(bad(format!(
                    "{x_name} has the shape {other:?}; expected [n, d], [n, h, w] or [n, c, h, w]"
                )));
            }
        };
        if y.shape() != [x.shape()[0]] {
            return Err(bad(format!(
                "{x_name} has {} records, so {y_name} must have the shape [{}]; it has {:?}",
                x.shape()[0],
                x.shape()[0],
                y.shape()
            )));
        }
        let (pixels, divisor) = pixels(&x).ok_or_else(|| {
            bad(format!(
                "{x_name} has the type {:?}; expected F32 or U8",
                x.dtype()
            ))
        })?;
        let labels = labels(&y, y_name).map_err(bad)?;
        Ok((shape, pixels, labels, Normalise::raw(divisor)))
    };

    let (shape, pixels, labels, scale) = part("x", "y")?;
    let given = if file.tensor("x_test").is_ok() || file.tensor("y_test").is_ok() {
        Some(part("x_test", "y_test")?)
    } else {
        None
    };
    let highest = labels
        .iter()
        .chain(given.iter().flat_map(|g| &g.2))
        .max()
        .copied()
        .unwrap_or(0);
    let classes = highest as usize + 1;
    if classes > 65_536 {
        return Err(bad(format!(
            "the label {highest} is too high: count the classes from 0"
        )));
    }
    let train = Dataset::new(&name, shape, classes, pixels, labels, scale)?;
    let Some((test_shape, pixels, labels, test_scale)) = given else {
        return train.split_by_class(0.2);
    };
    if test_shape != shape || test_scale != scale {
        return Err(bad(format!(
            "x_test must have the shape and type of x: {test_shape:?} is not {shape:?}, or bytes are mixed with floats"
        )));
    }
    let test = Dataset::new(&name, shape, classes, pixels, labels, scale)?;
    Ok(Split {
        train: Arc::new(train),
        test: Arc::new(test),
    })
}

fn pixels(x: &TensorView) -> Option<(Pixels, f32)> {
    match x.dtype() {
        Dtype::U8 => Some((Pixels::U8(x.data().into()), 255.0)),
        Dtype::F32 => {
            let floats = x
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            Some((Pixels::F32(floats.collect()), 1.0))
        }
        _ => None,
    }
}

fn labels(y: &TensorView, name: &str) -> std::result::Result<Vec<u32>, String> {
    let wide = |width: usize| {
        y.data().chunks_exact(width).map(move |b| {
            let sign = if b[width - 1] & 0x80 != 0 { 0xff } else { 0 };
            let mut word = [sign; 8];
            word[..width].copy_from_slice(b);
            i64::from_le_bytes(word)
        })
    };
    let words: Vec<i64> = match y.dtype() {
        Dtype::U8 => y.data().iter().map(|b| i64::from(*b)).collect(),
        Dtype::I32 => wide(4).collect(),
        Dtype::I64 => wide(8).collect(),
        other => {
            return Err(format!(
                "{name} has the type {other:?}; expected U8, I32 or I64"
            ));
        }
    };
    words
        .iter()
        .enumerate()
        .map(|(row, label)| {
            u32::try_from(*label).map_err(|_| {
                format!("{name} has the label {label} at record {row}; labels count from 0")
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) -> Result<Split> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.safetensors");
        let views = tensors
            .iter()
            .map(|(n, t, s, b)| (*n, TensorView::new(*t, s.clone(), b).unwrap()));
        std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        from_safetensors(&path)
    }

    fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
        values.into_iter().flat_map(f32::to_le_bytes).collect()
    }

    #[test]
    fn every_shape_and_label_type_is_read() {
        let i64s: Vec<u8> = (0..10i64).flat_map(|l| (l % 2).to_le_bytes()).collect();
        let i32s: Vec<u8> = (0..10i32).flat_map(|l| (l % 2).to_le_bytes()).collect();
        let u8s: Vec<u8> = (0..10u8).map(|l| l % 2).collect();
        for (labels, dtype) in [(i64s, Dtype::I64), (i32s, Dtype::I32), (u8s, Dtype::U8)] {
            for (shape, expected) in [
                (vec![10, 6], [1, 1, 6]),
                (vec![10, 2, 3], [1, 2, 3]),
                (vec![10, 3, 2, 1], [3, 2, 1]),
            ] {
                let x = floats((0..60).map(|v| v as f32));
                let split = write(&[
                    ("x", Dtype::F32, shape, x),
                    ("y", dtype, vec![10], labels.clone()),
                ])
                .unwrap();
                assert_eq!(split.train.shape, expected);
                assert_eq!(
                    (split.train.len(), split.test.len(), split.train.classes),
                    (8, 2, 2)
                );
            }
        }
    }

    #[test]
    fn a_given_test_set_is_kept() {
        let split = write(&[
            ("x", Dtype::U8, vec![3, 2], vec![0, 255, 1, 1, 2, 2]),
            ("y", Dtype::U8, vec![3], vec![0, 1, 0]),
            ("x_test", Dtype::U8, vec![1, 2], vec![9, 9]),
            ("y_test", Dtype::U8, vec![1], vec![4]),
        ])
        .unwrap();
        assert_eq!(
            (split.train.len(), split.test.len(), split.test.classes),
            (3, 1, 5)
        );
        assert_eq!(split.train.scale, Normalise::raw(255.0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let x = || ("x", Dtype::F32, vec![2, 2], floats([0.0, 1.0, 2.0, 3.0]));
        let y = |labels: [i64; 2]| {
            (
                "y",
                Dtype::I64,
                vec![2],
                labels.iter().flat_map(|l| l.to_le_bytes()).collect(),
            )
        };
        let nan = (
            "x",
            Dtype::F32,
            vec![2, 2],
            floats([0.0, 1.0, f32::NAN, 3.0]),
        );
        for (tensors, words) in [
            (vec![x()], ["no tensor y", "only x"]),
            (vec![x(), y([0, -1])], ["label -1", "record 1"]),
            (vec![x(), y([0, 1 << 40])], ["1099511627776", "record 1"]),
            (vec![x(), y([0, 70_000])], ["70000", "too high"]),
            (
                vec![x(), ("y", Dtype::F32, vec![2], floats([0.0, 1.0]))],
                ["F32", "I64"],
            ),
            (
                vec![x(), ("y", Dtype::U8, vec![1], vec![0])],
                ["2 records", "[1]"],
            ),
            (
                vec![("x", Dtype::U8, vec![2], vec![0, 1]), y([0, 1])],
                ["[2]", "[n, d]"],
            ),
            (
                vec![
                    ("x", Dtype::I32, vec![1, 2], vec![0; 8]),
                    ("y", Dtype::U8, vec![1], vec![0]),
                ],
                ["I32", "F32 or U8"],
            ),
            (vec![nan, y([0, 1])], ["NaN", "record 1"]),
            (vec![x(), y([0, 1])], ["too few", "x_test"]),
        ] {
            let message = write(&tensors).unwrap_err().to_string();
            for word in words {
                assert!(message.contains(word), "{word} is missing in: {message}");
            }
        }
    }
}
