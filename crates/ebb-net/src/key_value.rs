//! A discrete key-value bottleneck (card S209): in each of many small codebooks the key nearest to
//! a fixed projection of the input fetches a learned value, and the logits are the mean of the
//! fetched values. A step touches the values it fetched and no others.
//!
//! Learned: `values` `[books · keys, outputs]`, zero at the start. Fixed, as running statistics:
//! `encoder.weight` `[features, inputs]` (random, with ReLU; none where `features` is 0),
//! `projection.weight` `[books · width, features]`, and `keys` `[books · keys, width]`, random
//! until something fits them. Taps: `input`, `encoder.out`, `projection.out`, `head.out`.

use crate::network::{Network, Output, Pass};
use crate::{Error, Result};
use burn::tensor::{Int, Tensor, TensorData};
use ebb_kernels::{Activation, fused_linear, slices};
use ebb_space::{Key, Layout, Weights, nearest};
use std::sync::Arc;

/// The network.
#[derive(Debug)]
pub struct KeyValue {
    layout: Arc<Layout>,
    buffers: Arc<Layout>,
    inputs: usize,
    features: usize,
    books: usize,
    keys: usize,
    width: usize,
    outputs: usize,
}

impl KeyValue {
    /// `books` codebooks of `keys` keys of `width` values; `features` random units before them, or
    /// none.
    ///
    /// # Errors
    /// When one of the other numbers is 0.
    pub fn new(
        inputs: usize,
        features: usize,
        [books, keys, width]: [usize; 3],
        outputs: usize,
    ) -> Result<Self> {
        if [inputs, books, keys, width, outputs].contains(&0) {
            return Err(Error::Spec {
                reason: format!(
                    "a key-value network needs at least one codebook, key and value of a key: it \
                     has books = {books}, keys = {keys}, width = {width}"
                ),
            });
        }
        let mut fixed = Vec::new();
        if features > 0 {
            fixed.push(("encoder.weight".to_owned(), vec![features, inputs]));
        }
        let seen = if features > 0 { features } else { inputs };
        fixed.push(("projection.weight".to_owned(), vec![books * width, seen]));
        fixed.push(("keys".to_owned(), vec![books * keys, width]));
        Ok(Self {
            layout: Layout::new([("values".to_owned(), vec![books * keys, outputs])])?,
            buffers: Layout::new(fixed)?,
            inputs,
            features,
            books,
            keys,
            width,
            outputs,
        })
    }

    /// `x wᵀ` with a fixed `w` of `out` rows.
    fn fixed(
        &self,
        x: Tensor<2>,
        path: &str,
        out: usize,
        act: Activation,
        pass: &Pass,
    ) -> Tensor<2> {
        let device = x.device().without_autodiff();
        let w = pass.buffers.get(path).unwrap_or_default().to_vec();
        let w = Tensor::<1>::from_data(TensorData::new(w.clone(), [w.len()]), &device);
        fused_linear(x, w, Tensor::zeros([out], &device), act)
    }
}

impl Network for KeyValue {
    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn buffers(&self) -> &Arc<Layout> {
        &self.buffers
    }

    fn initialise(&self, key: Key) -> (Weights, Weights) {
        let mut fixed = Weights::zeros(&self.buffers);
        for entry in self.buffers.entries() {
            let mut stream = key.sub(&entry.path).stream();
            // He's width before a ReLU; a projection that keeps lengths (Xavier for equal widths).
            let scale = match entry.path.as_str() {
                "encoder.weight" => (2.0 / self.inputs as f64).sqrt(),
                "projection.weight" => (1.0 / entry.shape[1] as f64).sqrt(),
                _ => 1.0,
            };
            for v in &mut fixed.as_mut_slice()[entry.range.clone()] {
                *v = (scale * stream.normal()) as f32;
            }
        }
        (Weights::zeros(&self.layout), fixed)
    }

    fn forward(&self, x: Tensor<2>, pass: &mut Pass) -> Output {
        let mut h = pass.taps.at("input", x);
        if self.features > 0 {
            h = self.fixed(h, "encoder.weight", self.features, Activation::Relu, pass);
            h = pass.taps.at("encoder.out", h);
        }
        let all = self.books * self.width;
        let z = self.fixed(h, "projection.weight", all, Activation::Identity, pass);
        let z = pass.taps.at("projection.out", z);
        let [rows, _] = z.dims();
        let keys = pass.buffers.get("keys").unwrap_or_default();
        let fetched: Vec<i64> = slices::read(&z, |z| {
            let parts = z.chunks_exact(self.width).enumerate();
            let fetch = |(i, part)| {
                let book = i % self.books;
                let size = self.keys * self.width;
                let (found, _) = nearest(&keys[book * size..][..size], part);
                (book * self.keys + found) as i64
            };
            parts.map(fetch).collect()
        });
        let values = pass.param(0);
        let device = values.device().without_autodiff();
        let fetched = TensorData::new(fetched, [rows * self.books]);
        let fetched = Tensor::<1, Int>::from_data(fetched, &device);
        let values = values.reshape([self.books * self.keys, self.outputs]);
        let chosen = values.select(0, fetched);
        let mean = chosen
            .reshape([rows, self.books, self.outputs])
            .mean_dim(1)
            .reshape([rows, self.outputs]);
        Output {
            logits: pass.taps.at("head.out", mean),
            features: z,
        }
    }

    fn inputs(&self) -> usize {
        self.inputs
    }

    fn features(&self) -> usize {
        self.books * self.width
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn taps(&self) -> Vec<String> {
        let encoder = (self.features > 0).then_some("encoder.out");
        let taps = [
            Some("input"),
            encoder,
            Some("projection.out"),
            Some("head.out"),
        ];
        taps.into_iter().flatten().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mode, Model, Taps};
    use burn::tensor::Device;
    use ebb_kernels::seed;

    const BOOKS: usize = 5;
    const KEYS: usize = 4;
    const WIDTH: usize = 3;
    const OUT: usize = 2;

    fn model(features: usize) -> Model {
        let network = KeyValue::new(6, features, [BOOKS, KEYS, WIDTH], OUT).expect("a network");
        let mut model = Model::new(Arc::new(network), Key::new(1, "net"), &Device::flex());
        let mut values = model.weights();
        let mut stream = Key::new(2, "values").stream();
        values.as_mut_slice().fill_with(|| stream.normal() as f32);
        model.set_weights(&values).expect("one layout");
        model
    }

    /// Which value each row fetches in each book, in f64 and written out.
    fn fetched(model: &Model, x: &[f32], features: usize) -> Vec<Vec<usize>> {
        let fixed = model.buffers();
        let product = |w: &[f32], x: &[f64]| -> Vec<f64> {
            let rows = w.chunks_exact(x.len());
            rows.map(|w| w.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum())
                .collect()
        };
        let row = |x: &[f32]| {
            let mut h: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
            if features > 0 {
                h = product(fixed.get("encoder.weight").expect("fixed"), &h);
                h.iter_mut().for_each(|v| *v = v.max(0.0));
            }
            let z = product(fixed.get("projection.weight").expect("fixed"), &h);
            let keys = fixed.get("keys").expect("fixed");
            let fetch = |book: usize| {
                let distance = |k: &usize| -> f64 {
                    let key = &keys[(book * KEYS + k) * WIDTH..][..WIDTH];
                    let part = &z[book * WIDTH..][..WIDTH];
                    let pairs = key.iter().zip(part);
                    pairs.map(|(k, z)| (f64::from(*k) - z).powi(2)).sum()
                };
                let nearest = |a: &usize, b: &usize| distance(a).total_cmp(&distance(b));
                book * KEYS + (0..KEYS).min_by(nearest).expect("keys")
            };
            (0..BOOKS).map(fetch).collect()
        };
        x.chunks_exact(6).map(row).collect()
    }

    #[test]
    fn logits_and_gradients_are_the_written_out_ones() {
        for features in [0, 7] {
            let mut model = model(features);
            let mut stream = Key::new(3, "x").stream();
            let mut x: Vec<f32> = (0..4 * 6).map(|_| stream.normal() as f32).collect();
            x.extend_from_within(0..6); // one row twice: its values are fetched twice
            let slots = fetched(&model, &x, features);
            let values = model.weights();
            let input = model.input(x.clone(), 5);
            let leaves = model.leaves(None);
            let mode = Mode::Eval;
            let out = model.forward_tracked(&leaves, input, mode, &mut Taps::none());
            let logits = slices::to_vec(&out.logits);
            let by_logits: Vec<f32> = (0..5 * OUT).map(|i| 0.3 * i as f32 - 1.0).collect();
            let mut want = vec![0f64; values.as_slice().len()];
            for (i, slots) in slots.iter().enumerate() {
                for j in 0..OUT {
                    let each = slots
                        .iter()
                        .map(|s| f64::from(values.as_slice()[s * OUT + j]));
                    let mean = each.sum::<f64>() / BOOKS as f64;
                    assert!((f64::from(logits[i * OUT + j]) - mean).abs() < 1e-6);
                    for s in slots {
                        want[s * OUT + j] += f64::from(by_logits[i * OUT + j]) / BOOKS as f64;
                    }
                }
            }
            let start = TensorData::new(by_logits, [5, OUT]);
            let start = Tensor::<2>::from_data(start, model.device());
            let mut gradients = seed(out.logits, start).backward();
            let mut gradient = values.zeros_like();
            leaves.collect(&mut gradients, &mut gradient);
            for (g, want) in gradient.as_slice().iter().zip(&want) {
                assert!((f64::from(*g) - want).abs() < 1e-6);
                assert_eq!(
                    *g == 0.0,
                    *want == 0.0,
                    "what was not fetched has no gradient"
                );
            }
        }
    }

    #[test]
    fn numbers_that_make_no_network_are_refused() {
        for sizes in [[0, 1, 1], [1, 0, 1], [1, 1, 0]] {
            assert!(KeyValue::new(6, 0, sizes, 2).is_err());
        }
    }
}
