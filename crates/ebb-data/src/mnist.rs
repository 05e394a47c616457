//! MNIST: 60,000 training and 10,000 test images of 28x28 grey pixels.

use std::path::Path;
use std::sync::Arc;

use crate::dataset::{Dataset, Normalise, Pixels, Split};
use crate::fetch::{Source, write_atomically};
use crate::{Error, Result, idx};

/// A file as it was published.
pub(crate) struct File {
    pub name: &'static str,
    pub bytes: u64,
    md5: &'static str,
    blake3: &'static str,
}

/// The four files: training images and labels, test images and labels.
pub(crate) const FILES: [File; 4] = [
    File {
        name: "train-images-idx3-ubyte",
        bytes: 47_040_016,
        md5: "6bbc9ace898e44ae57da46a324031adb",
        blake3: "c6e6fd8c67d07c8a9b7bffa7dd0413ff4b8af241607b049b7721107f379df9fd",
    },
    File {
        name: "train-labels-idx1-ubyte",
        bytes: 60_008,
        md5: "a25bea736e30d166cdddb491f175f624",
        blake3: "8ebcfdf2fe191516f9cb37fceb75d2d19289d91ee92026534ed45e44144b5642",
    },
    File {
        name: "t10k-images-idx3-ubyte",
        bytes: 7_840_016,
        md5: "2646ac647ad5339dbf082846283269ea",
        blake3: "f8d502322cd9f186e155a74a3dff598ed56c1a7b5a5c8d312749ac47c4a2bec7",
    },
    File {
        name: "t10k-labels-idx1-ubyte",
        bytes: 10_008,
        md5: "27ae3e4e09519cfbb04c329615203637",
        blake3: "6d43ea317fa8f5851bb85404bb7358defd48b0294cf31f60cdcde8106fe2c3ad",
    },
];

/// The usual public mirrors of the four files, with `.gz` appended to each name.
pub(crate) const MIRRORS: [&str; 2] = [
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
];

/// Grey values over 255, then the mean and deviation that everyone uses.
pub(crate) const SCALE: Normalise = Normalise {
    divisor: 255.0,
    mean: 0.1307,
    std: 0.3081,
};

impl File {
    /// Whether these are the published bytes; if not, why not.
    pub fn check(&self, bytes: &[u8]) -> std::result::Result<(), String> {
        if bytes.len() as u64 != self.bytes {
            return Err(format!(
                "has {} bytes, published are {}",
                bytes.len(),
                self.bytes
            ));
        }
        let md5 = format!("{:x}", md5::compute(bytes));
        if md5 != self.md5 {
            return Err(format!("has the md5 {md5}, published is {}", self.md5));
        }
        Ok(())
    }
}

/// Reads MNIST from a folder with the four files. Every file is checked against the BLAKE3 of
/// the published bytes, which costs a tenth of what the published md5 would.
pub(crate) fn load(dir: &Path) -> Result<Split> {
    if let Some(file) = FILES.iter().find(|file| !dir.join(file.name).exists()) {
        return Err(Error::NotFetched {
            dataset: "mnist".into(),
            missing: file.name.into(),
            dir: dir.to_owned(),
        });
    }
    let part = |images: &File, labels: &File| {
        let pixels = read(dir, images, 3)?;
        let labels = read(dir, labels, 1)?;
        let labels = labels.data.iter().map(|l| u32::from(*l)).collect();
        Dataset::new(
            "mnist",
            [1, 28, 28],
            10,
            Pixels::U8(pixels.data),
            labels,
            SCALE,
        )
    };
    let [train_images, train_labels, test_images, test_labels] = &FILES;
    Ok(Split {
        train: Arc::new(part(train_images, train_labels)?),
        test: Arc::new(part(test_images, test_labels)?),
    })
}

fn read(dir: &Path, file: &File, rank: usize) -> Result<idx::Idx> {
    let path = dir.join(file.name);
    let idx = idx::read(&path, rank)?;
    let found = idx.blake3.to_hex();
    if found.as_str() != file.blake3 {
        return Err(Error::Checksum {
            path,
            dataset: "mnist".into(),
            algorithm: "BLAKE3",
            expected: file.blake3.into(),
            found: found.to_string(),
        });
    }
    Ok(idx)
}

/// Writes down what is in the folder and where it came from.
pub(crate) fn write_manifest(dir: &Path, source: &Source) -> Result<()> {
    let path = dir.join("manifest.json");
    if *source == Source::Cached && path.exists() {
        return Ok(());
    }
    let files: Vec<serde_json::Value> = FILES
        .iter()
        .map(|f| serde_json::json!({"name": f.name, "bytes": f.bytes, "md5": f.md5, "blake3": f.blake3}))
        .collect();
    let manifest = serde_json::json!({
        "format_version": 1,
        "dataset": "mnist",
        "source": source.to_string(),
        "files": files,
    });
    write_atomically(&path, format!("{manifest:#}\n").as_bytes())
}

/// The four idx files from the arrays of the well-known pickle of MNIST: three pairs of float
/// images in [0, 1) and integer labels, 50,000 + 10,000 training and 10,000 test records in the
/// usual order. Times 256 gives back the original bytes.
pub(crate) fn from_arrays(arrays: &[crate::fetch::Array]) -> Result<[Vec<u8>; 4]> {
    let bad = |why: String| Error::malformed("the pickle of MNIST", why);
    let found: Vec<String> = arrays
        .iter()
        .map(|a| format!("{}{:?}", a.dtype, a.shape))
        .collect();
    let expected = [
        "<f4[50000, 784]",
        "<i8[50000]",
        "<f4[10000, 784]",
        "<i8[10000]",
        "<f4[10000, 784]",
        "<i8[10000]",
    ];
    if found != expected {
        return Err(bad(format!("it holds {found:?}, expected {expected:?}")));
    }
    let images = |parts: &[usize], n: usize| {
        let mut bytes = Vec::with_capacity(n * 784);
        for part in parts {
            for float in arrays[*part].bytes.chunks_exact(4) {
                let value = f32::from_le_bytes([float[0], float[1], float[2], float[3]]) * 256.0;
                let is_byte =
                    (value.round() - value).abs() < 1e-3 && (0.0..256.0).contains(&value.round());
                if !is_byte {
                    return Err(bad(format!("the grey value {value}/256 is not a byte")));
                }
                bytes.push(value.round() as u8);
            }
        }
        Ok(idx::encode(&[n, 28, 28], &bytes))
    };
    let labels = |parts: &[usize], n: usize| {
        let mut bytes = Vec::with_capacity(n);
        for part in parts {
            for word in arrays[*part].bytes.chunks_exact(8) {
                if word[0] > 9 || word[1..] != [0; 7] {
                    return Err(bad("a label is not a digit".into()));
                }
                bytes.push(word[0]);
            }
        }
        Ok(idx::encode(&[n], &bytes))
    };
    Ok([
        images(&[0, 2], 60_000)?,
        labels(&[1, 3], 60_000)?,
        images(&[4], 10_000)?,
        labels(&[5], 10_000)?,
    ])
}
