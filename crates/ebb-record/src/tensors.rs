//! Weights in safetensors files.
//!
//! The tensors stand in the order of the layout, so that a file is a header and then the weights'
//! memory as it is (little-endian); equal weights give equal bytes. A file may hold several
//! weight vectors (momentum, importance), told apart by a prefix of their paths.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use ebb_space::{Layout, Weights};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use crate::disk::Disk;
use crate::error::{At, Error, Result, TensorProblem, supported};

/// The newest version of our weights files that this program reads.
pub const WEIGHTS_VERSION: u32 = 1;

const VERSION_KEY: &str = "format_version";

/// Writes `weights` to `path`, atomically, with `metadata` in the header.
///
/// # Errors
/// [`Error::DiskFull`], [`Error::Io`].
pub fn save_weights(
    path: &Path,
    weights: &Weights,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    save_groups(&Disk::default(), path, &[("", weights)], metadata)
}

/// Writes several weight vectors to one file: the tensor `p` of the group called `g` gets the
/// name `g` followed by `p`.
///
/// # Errors
/// [`Error::DiskFull`], [`Error::Io`].
pub fn save_groups(
    disk: &Disk,
    path: &Path,
    groups: &[(&str, &Weights)],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let file = SafeTensorsFile::new(groups, metadata);
    disk.replace_with(path, file.bytes(), |out| file.write(path, out))
}

/// A file before it is written: its header, and where its values are.
pub(crate) struct SafeTensorsFile<'a> {
    header: Vec<u8>,
    groups: &'a [(&'a str, &'a Weights)],
}

impl<'a> SafeTensorsFile<'a> {
    pub fn new(groups: &'a [(&'a str, &'a Weights)], metadata: &BTreeMap<String, String>) -> Self {
        let mut metadata = metadata.clone();
        metadata.insert(VERSION_KEY.into(), WEIGHTS_VERSION.to_string());
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!(metadata));
        let mut begin = 0usize;
        for (prefix, weights) in groups {
            for entry in weights.layout().entries() {
                let (from, to) = (begin + 4 * entry.range.start, begin + 4 * entry.range.end);
                let info =
                    json!({ "dtype": "F32", "shape": entry.shape, "data_offsets": [from, to] });
                header.insert(format!("{prefix}{}", entry.path), info);
            }
            begin += 4 * weights.layout().len();
        }
        let mut header = Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        SafeTensorsFile { header, groups }
    }

    pub fn bytes(&self) -> u64 {
        let values: usize = self
            .groups
            .iter()
            .map(|(_, weights)| weights.layout().len())
            .sum();
        (8 + self.header.len() + 4 * values) as u64
    }

    pub fn write(&self, path: &Path, out: &mut impl Write) -> Result<()> {
        let mut write = |part: &[u8]| out.write_all(part).writing(path, self.bytes());
        write(&(self.header.len() as u64).to_le_bytes())?;
        write(&self.header)?;
        let mut buffer = Vec::with_capacity(4 << 14);
        for (_, weights) in self.groups {
            for values in weights.as_slice().chunks(1 << 14) {
                buffer.clear();
                buffer.extend(values.iter().flat_map(|v| v.to_le_bytes()));
                write(&buffer)?;
            }
        }
        Ok(())
    }
}

/// Reads weights of this layout.
///
/// # Errors
/// [`Error::Tensor`] naming the first tensor that is missing, extra, of another shape or type, or
/// not finite; [`Error::Damaged`] for a file cut short; [`Error::Newer`], [`Error::Io`].
pub fn load_weights(path: &Path, expected: &Arc<Layout>) -> Result<Weights> {
    let mut loaded = load_groups(path, &[("", expected)])?;
    Ok(loaded.swap_remove(0))
}

/// Reads several weight vectors, written by [`save_groups`] under the same prefixes.
///
/// # Errors
/// As [`load_weights`].
pub fn load_groups(path: &Path, groups: &[(&str, &Arc<Layout>)]) -> Result<Vec<Weights>> {
    let bytes = fs::read(path).at("read", path)?;
    groups_of(path, &open(path, &bytes)?, groups)
}

fn groups_of(
    path: &Path,
    tensors: &SafeTensors,
    groups: &[(&str, &Arc<Layout>)],
) -> Result<Vec<Weights>> {
    let mut wanted = BTreeSet::new();
    let mut loaded = Vec::with_capacity(groups.len());
    for (prefix, layout) in groups {
        let mut weights = Weights::zeros(layout);
        for entry in layout.entries() {
            let name = format!("{prefix}{}", entry.path);
            let values = &mut weights.as_mut_slice()[entry.range.clone()];
            read_into(path, tensors, &name, &entry.shape, values)?;
            wanted.insert(name);
        }
        loaded.push(weights);
    }
    let mut names = tensors.names();
    names.sort_unstable();
    if let Some(extra) = names.into_iter().find(|name| !wanted.contains(*name)) {
        return Err(tensor(path, extra, TensorProblem::Extra));
    }
    Ok(loaded)
}

/// The metadata of a weights file.
///
/// # Errors
/// [`Error::Damaged`], [`Error::Newer`], [`Error::Io`].
pub fn read_weights_metadata(path: &Path) -> Result<BTreeMap<String, String>> {
    let bytes = fs::read(path).at("read", path)?;
    open(path, &bytes)?;
    Ok(metadata(path, &bytes)?.into_iter().collect())
}

/// Reads every tensor of a file, in the order of the file, for those who wrote it and know
/// what is in it.
///
/// # Errors
/// [`Error::Damaged`](crate::Error) for a file that is none, and for tensors that are not finite
/// numbers of 32 bits.
pub fn load_all(path: &Path) -> Result<Weights> {
    let bytes = fs::read(path).at("read", path)?;
    let tensors = open(path, &bytes)?;
    let mut found: Vec<(String, Vec<usize>, usize)> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, view.shape().to_vec(), view.data().as_ptr() as usize))
        .collect();
    found.sort_by(|a, b| (a.2, &a.0).cmp(&(b.2, &b.0)));
    let entries = found.into_iter().map(|(name, shape, _)| (name, shape));
    let layout = Layout::new(entries).map_err(|e| Error::damaged(path, e.to_string()))?;
    Ok(groups_of(path, &tensors, &[("", &layout)])?.swap_remove(0))
}

fn open<'b>(path: &Path, bytes: &'b [u8]) -> Result<SafeTensors<'b>> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| {
        let what = format!("it is not a whole safetensors file ({e}); use another state or copy");
        Error::damaged(path, what)
    })?;
    // Files of other programs carry no version and are read as they are.
    let version = metadata(path, bytes)?
        .remove(VERSION_KEY)
        .and_then(|v| v.parse().ok());
    supported(path, version.unwrap_or(WEIGHTS_VERSION), WEIGHTS_VERSION)?;
    Ok(tensors)
}

fn metadata(path: &Path, bytes: &[u8]) -> Result<HashMap<String, String>> {
    let (_, header) = SafeTensors::read_metadata(bytes)
        .map_err(|e| Error::damaged(path, format!("its header cannot be read ({e})")))?;
    Ok(header.metadata().clone().unwrap_or_default())
}

fn tensor(path: &Path, tensor: &str, problem: TensorProblem) -> Error {
    Error::Tensor {
        path: path.into(),
        tensor: tensor.into(),
        problem,
    }
}

fn read_into(
    path: &Path,
    tensors: &SafeTensors,
    name: &str,
    shape: &[usize],
    values: &mut [f32],
) -> Result<()> {
    let refuse = |problem| Err(tensor(path, name, problem));
    let Ok(found) = tensors.tensor(name) else {
        return refuse(TensorProblem::Missing {
            expected: shape.into(),
        });
    };
    if found.dtype() != Dtype::F32 {
        return refuse(TensorProblem::Type {
            found: format!("{:?}", found.dtype()),
        });
    }
    if found.shape() != shape {
        let (expected, found) = (shape.into(), found.shape().into());
        return refuse(TensorProblem::Shape { expected, found });
    }
    // The header was checked against the data, so the lengths agree.
    for (value, bytes) in values.iter_mut().zip(found.data().as_chunks().0) {
        *value = f32::from_le_bytes(*bytes);
    }
    if let Some(index) = values.iter().position(|v| !v.is_finite()) {
        return refuse(TensorProblem::NotFinite {
            index,
            value: values[index].to_string(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights() -> Weights {
        let entries = [
            ("a.weight", vec![2, 3]),
            ("a.bias", vec![3]),
            ("scale", vec![]),
        ];
        let layout = Layout::new(entries.map(|(p, s)| (p.to_string(), s))).unwrap();
        let values = (0..10).map(|i| i as f32 - 4.5).collect();
        Weights::from_vec(&layout, values).unwrap()
    }

    fn layout_of(entries: &[(&str, &[usize])]) -> Arc<Layout> {
        Layout::new(entries.iter().map(|(p, s)| (p.to_string(), s.to_vec()))).unwrap()
    }

    #[test]
    fn bits_survive_and_other_readers_agree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        let mut w = weights();
        w.as_mut_slice()[0] = -0.0;
        w.as_mut_slice()[1] = f32::MIN_POSITIVE / 2.0;
        let note = BTreeMap::from([("made by".to_string(), "a test".to_string())]);
        save_weights(&path, &w, &note).unwrap();
        let back = load_weights(&path, w.layout()).unwrap();
        let bits = |w: &Weights| w.as_slice().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(&w));
        assert_eq!(read_weights_metadata(&path).unwrap()["made by"], "a test");
        let bytes = fs::read(&path).unwrap();
        let read = SafeTensors::deserialize(&bytes).unwrap();
        let bias = read.tensor("a.bias").unwrap();
        assert_eq!(
            bias.data(),
            [1.5f32, 2.5, 3.5].map(f32::to_le_bytes).concat()
        );
        // Equal weights, equal bytes.
        save_weights(&path, &w, &note).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn a_file_written_by_the_safetensors_library_in_its_own_order_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        let w = weights();
        let data: Vec<(String, Vec<usize>, Vec<u8>)> = w
            .iter()
            .map(|(e, v)| {
                (
                    e.path.clone(),
                    e.shape.clone(),
                    v.iter().flat_map(|x| x.to_le_bytes()).collect(),
                )
            })
            .collect();
        let views = data.iter().map(|(name, shape, bytes)| {
            (
                name,
                safetensors::tensor::TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
            )
        });
        fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        assert_eq!(
            load_weights(&path, w.layout()).unwrap().as_slice(),
            w.as_slice()
        );
    }

    #[test]
    fn groups_keep_their_prefixes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("o.safetensors");
        let (m, mut v) = (weights(), weights());
        v.scale(2.0);
        save_groups(
            &Disk::default(),
            &path,
            &[("m/", &m), ("v/", &v)],
            &BTreeMap::new(),
        )
        .unwrap();
        let back = load_groups(&path, &[("v/", v.layout()), ("m/", m.layout())]).unwrap();
        assert_eq!(
            (back[0].as_slice(), back[1].as_slice()),
            (v.as_slice(), m.as_slice())
        );
        let problem = load_groups(&path, &[("m/", m.layout())])
            .unwrap_err()
            .to_string();
        assert!(
            problem.contains("tensor `v/a.bias`: the network has no such tensor"),
            "{problem}"
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        let w = weights();
        save_weights(&path, &w, &BTreeMap::new()).unwrap();
        let problem = |entries: &[(&str, &[usize])]| {
            load_weights(&path, &layout_of(entries))
                .unwrap_err()
                .to_string()
        };
        let has = |text: String, part: &str| assert!(text.contains(part), "{text}");
        has(
            problem(&[("a.weight", &[3, 2]), ("a.bias", &[3]), ("scale", &[])]),
            "tensor `a.weight`: shape [2, 3] where the network needs [3, 2]",
        );
        has(
            problem(&[("b.weight", &[7])]),
            "tensor `b.weight`: the file does not have it",
        );
        has(
            problem(&[("a.bias", &[3])]),
            "tensor `a.weight`: the network has no such tensor",
        );

        let mut bad = w.clone();
        bad.get_mut("a.bias").unwrap()[1] = f32::NAN;
        save_weights(&path, &bad, &BTreeMap::new()).unwrap();
        has(
            load_weights(&path, w.layout()).unwrap_err().to_string(),
            "tensor `a.bias`: element 1 is NaN",
        );

        save_weights(&path, &w, &BTreeMap::new()).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let error = load_weights(&path, w.layout()).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{length}: {error}");
        }
        let mut newer = whole.clone();
        let key = br#""format_version":""#;
        let at = newer
            .windows(key.len())
            .position(|part| part == key)
            .unwrap()
            + key.len();
        newer[at] = b'9';
        fs::write(&path, newer).unwrap();
        let error = load_weights(&path, w.layout()).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Newer {
                    found: 9,
                    supported: 1,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn bytes_from_anywhere_give_an_error_and_never_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        let w = weights();
        save_weights(&path, &w, &BTreeMap::new()).unwrap();
        let whole = fs::read(&path).unwrap();
        let header = whole.len() - 40;
        for at in 0..header {
            for flip in [1u8, 0x20, 0x80] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                fs::write(&path, &bytes).unwrap();
                // Some flips rename a metadata key and are harmless.
                let _ = load_weights(&path, w.layout());
            }
        }
    }

    #[test]
    fn a_whole_file_is_read_in_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        save_weights(&path, &weights(), &BTreeMap::new()).unwrap();
        let read = load_all(&path).unwrap();
        assert_eq!(read.as_slice(), weights().as_slice());
        let paths = |w: &Weights| w.iter().map(|(e, _)| e.path.clone()).collect::<Vec<_>>();
        assert_eq!(paths(&read), paths(&weights()));
        std::fs::write(&path, b"no tensors").unwrap();
        assert!(load_all(&path).is_err());
    }
}
