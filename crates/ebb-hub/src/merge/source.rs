//! Where task vectors come from: models and adapters.

use std::path::Path;

use serde_json::{Map, Value};

use crate::adapter::{Adapter, Pair};
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::gguf::Gguf;
use crate::tensors::{TensorInfo, Tensors};
use crate::tokenizer::Tokenizer;
use crate::write::FolderWriter;

/// A model in a folder or in a GGUF file.
pub(super) enum Files {
    Folder(Folder),
    Gguf(Box<Gguf>),
}

impl Files {
    pub fn open(path: &Path) -> Result<Files> {
        match path.is_dir() {
            true => Folder::open(path).map(Files::Folder),
            false => Gguf::open(path).map(|gguf| Files::Gguf(Box::new(gguf))),
        }
    }

    pub fn tensors(&self) -> &dyn Tensors {
        match self {
            Files::Folder(folder) => folder,
            Files::Gguf(gguf) => &**gguf,
        }
    }

    pub fn path(&self) -> &Path {
        self.tensors().path()
    }

    pub fn read(&self, name: &str, from: usize, values: &mut [f32]) -> Result<()> {
        self.tensors().read_range_into(name, from, values)
    }

    pub fn has_ranges(&self, name: &str) -> bool {
        self.tensors().has_ranges(name)
    }

    pub fn config(&self) -> Result<Map<String, Value>> {
        match self {
            Files::Folder(folder) => Ok(folder.config().clone()),
            Files::Gguf(gguf) => gguf.config(),
        }
    }

    /// The tokenizer; a folder need not have one.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>> {
        match self {
            Files::Folder(_) => tokenizer_in(self.path()),
            Files::Gguf(gguf) => Tokenizer::from_gguf(gguf).map(Some),
        }
    }

    /// What writes a model like this one.
    pub fn writer(&self) -> Result<FolderWriter> {
        let writer = FolderWriter::new(self.config()?);
        match self {
            Files::Folder(_) => Ok(writer.companions_of(self.path())),
            Files::Gguf(gguf) => writer.tokenizer(&Tokenizer::from_gguf(gguf)?),
        }
    }
}

pub(super) fn tokenizer_in(folder: &Path) -> Result<Option<Tokenizer>> {
    match folder.join("tokenizer.json").is_file() {
        true => Tokenizer::open(folder).map(Some),
        false => Ok(None),
    }
}

/// What was made from the base.
pub(super) enum Source {
    Model(Files),
    Adapter(Adapter),
}

impl Source {
    pub fn open(path: &Path) -> Result<Source> {
        if Adapter::is_in(path) {
            Adapter::open(path).map(Source::Adapter)
        } else {
            Files::open(path).map(Source::Model)
        }
    }

    pub fn has_ranges(&self, name: &str) -> bool {
        match self {
            Source::Model(files) => files.has_ranges(name),
            Source::Adapter(_) => true,
        }
    }

    /// Whether its task vector is made by subtracting the base.
    pub fn needs_base(&self) -> bool {
        matches!(self, Source::Model(_))
    }

    /// Whether it may change this tensor.
    pub fn changes(&self, tensor: &str) -> bool {
        match self {
            Source::Model(_) => true,
            Source::Adapter(adapter) => pair_of(adapter, tensor).is_some(),
        }
    }

    /// Its task vector from value `from` of a tensor on; `base` is the base there.
    pub fn tau(
        &self,
        info: &TensorInfo,
        from: usize,
        base: &[f32],
        tau: &mut [f32],
        scratch: &mut Vec<f64>,
    ) -> Result<()> {
        match self {
            Source::Model(files) => {
                files.read(&info.name, from, tau)?;
                for (tau, base) in tau.iter_mut().zip(base) {
                    *tau -= base;
                }
            }
            Source::Adapter(adapter) => match pair_of(adapter, &info.name) {
                None => tau.fill(0.0),
                Some(pair) => {
                    let inputs_first = adapter.config().fan_in_fan_out;
                    product(pair, inputs_first, from, tau, scratch)?;
                }
            },
        }
        Ok(())
    }
}

fn pair_of<'a>(adapter: &'a Adapter, tensor: &str) -> Option<&'a Pair> {
    adapter.pairs().get(tensor.strip_suffix(".weight")?)
}

/// Whole rows of `scale · B A` from value `from` on, summed in f64; of its transpose where the
/// model has inputs first.
fn product(
    pair: &Pair,
    inputs_first: bool,
    from: usize,
    out: &mut [f32],
    scratch: &mut Vec<f64>,
) -> Result<()> {
    let (r, inputs, outputs) = (pair.rank, pair.inputs, pair.outputs);
    let columns = if inputs_first { outputs } else { inputs };
    if columns == 0 || !from.is_multiple_of(columns) || !out.len().is_multiple_of(columns) {
        let what = "an adapter's product was asked for in parts of rows";
        return Err(Error::Mismatch(what.into()));
    }
    let (first, rows) = (from / columns, out.len() / columns);
    // left is rows by r, right r by columns, wherever their values lie.
    let mut left = Vec::with_capacity(rows * r);
    let mut right = Vec::with_capacity(r * columns);
    let scale = f64::from(pair.scale);
    if inputs_first {
        for i in first..first + rows {
            left.extend((0..r).map(|k| scale * f64::from(pair.a[k * inputs + i])));
        }
        right.extend((0..r * outputs).map(|at| {
            let (k, j) = (at / outputs, at % outputs);
            f64::from(pair.b[j * r + k])
        }));
    } else {
        let b = &pair.b[first * r..(first + rows) * r];
        left.extend(b.iter().map(|&v| scale * f64::from(v)));
        right.extend(pair.a.iter().map(|&v| f64::from(v)));
    }
    scratch.resize(out.len(), 0.0);
    multiply(&left, &right, rows, r, columns, scratch);
    for (out, sum) in out.iter_mut().zip(&*scratch) {
        *out = *sum as f32;
    }
    Ok(())
}

/// `out ← left right`, all in rows.
fn multiply(left: &[f64], right: &[f64], m: usize, k: usize, n: usize, out: &mut [f64]) {
    assert!(
        left.len() == m * k && right.len() == k * n && out.len() == m * n,
        "matrices of these sizes"
    );
    // SAFETY: the three lengths are those of the matrices, and the strides walk rows of each.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            left.as_ptr(),
            1,
            k as isize,
            right.as_ptr(),
            1,
            n as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AdapterConfig;
    use ebb_space::Key;

    #[test]
    fn rows_of_products_are_those_of_the_whole() {
        let key = Key::new(0, "pair");
        let draw = |n: u64, key: Key| (0..n).map(|i| key.normal(i) as f32).collect::<Vec<_>>();
        let (a, b) = (draw(3 * 7, key.sub("a")), draw(5 * 3, key.sub("b")));
        let factors = [("q".to_owned(), 7, a, b)];
        let adapter = Adapter::new(AdapterConfig::new(3, 6.0, ["q"]), factors).expect("an adapter");
        let pair = &adapter.pairs()["q"];
        let whole = pair.update();
        let mut scratch = Vec::new();
        for (first, rows) in [(0, 5), (1, 3), (4, 1)] {
            let mut out = vec![0.0; rows * 7];
            product(pair, false, first * 7, &mut out, &mut scratch).expect("rows");
            for (found, want) in out.iter().zip(&whole[first * 7..]) {
                assert!((found - want).abs() <= 1e-6 * want.abs().max(1.0));
            }
        }
        for (first, rows) in [(0, 7), (2, 4)] {
            let mut out = vec![0.0; rows * 5];
            product(pair, true, first * 5, &mut out, &mut scratch).expect("rows");
            for (at, found) in out.iter().enumerate() {
                let (i, j) = (first + at / 5, at % 5);
                let want = whole[j * 7 + i];
                assert!((found - want).abs() <= 1e-6 * want.abs().max(1.0));
            }
        }
        assert!(product(pair, false, 3, &mut [0.0; 7], &mut scratch).is_err());
    }
}
