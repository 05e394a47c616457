//! A variational autoencoder of fully connected layers, to draw from what was learned.
//!
//! `q(z|x) = N(μ(x), diag e^{λ(x)})`, prior `N(0, I)`, and `p(x|z)` independent Bernoulli values
//! with probabilities `σ(decoder(z))` (Kingma & Welling 2014). A row's loss, in nats, is
//!
//! `Σ_pixels [ln(1 + e^y) − x y]  +  ½ Σ_latents [μ² + e^λ − 1 − λ]`
//!
//! with the decoder's outputs `y` at `z = μ + e^{λ/2} ε`. Deep generative replay (Shin et al. 2017)
//! as van de Ven & Tolias (2019) run it on Split MNIST has 2 hidden layers of 400 on either side,
//! 100 latents, ReLU, Adam at 1e-3. Their code divides both parts by the number of pixels, which
//! Adam does not see.
//!
//! Paths: `encoder.{i}.*`, `latent.*` (first the means, then the log-variances), `decoder.{i}.*`,
//! `output.*`. Taps: `input`, `encoder.{i}.out`, `latent.out`, `z`, `decoder.{i}.out`,
//! `output.out`.

use crate::init::Init;
use crate::model::Model;
use crate::network::{Mode, Network, Output, Pass};
use crate::taps::Taps;
use crate::{Error, Result};
use burn::tensor::{Device, Tensor, TensorData};
use ebb_kernels::{Activation, fused_linear, seed, slices};
use ebb_space::{Key, Layout, Weights};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// Sizes of an autoencoder; the decoder mirrors the encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct VaeSpec {
    /// Widths of the encoder's hidden layers.
    pub hidden: Vec<usize>,
    /// Latent variables.
    pub latent: usize,
    /// How the weights start.
    pub init: Init,
}

impl Default for VaeSpec {
    fn default() -> Self {
        Self {
            hidden: vec![400, 400],
            latent: 100,
            init: Init::default(),
        }
    }
}

/// A row's loss, averaged over the rows, in nats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VaeLoss {
    /// Cross-entropy of the pixels, summed over them.
    pub reconstruction: f64,
    /// `KL(q(z|x) ‖ N(0, I))`.
    pub kl: f64,
}

/// An autoencoder with its parameters. Its inputs and samples lie in [0, 1].
#[derive(Clone, Debug)]
pub struct Vae {
    network: Arc<Autoencoder>,
    model: Model,
}

impl Vae {
    /// A freshly initialised autoencoder of rows of `inputs` values; a pure function of its
    /// arguments.
    ///
    /// # Errors
    /// When a layer has no unit.
    pub fn new(spec: &VaeSpec, inputs: usize, key: Key, device: &Device) -> Result<Self> {
        let network = Arc::new(Autoencoder::new(spec, inputs)?);
        let model = Model::new(network.clone(), key, device);
        Ok(Self { network, model })
    }

    /// Its parameters.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Its parameters, to train or restore.
    pub fn model_mut(&mut self) -> &mut Model {
        &mut self.model
    }

    /// The loss of `x` and, in `gradient` (of the model's layout), the gradient of its sum. `rows`
    /// are the examples' ids: the noise of a row is drawn by `(key, id)`, so `key` is a step's.
    ///
    /// # Errors
    /// When `x` is not a row of values from 0 to 1 for each id.
    pub fn loss_and_gradient(
        &mut self,
        x: Vec<f32>,
        key: Key,
        rows: &[u64],
        gradient: &mut Weights,
    ) -> Result<VaeLoss> {
        let x = self.checked(x, rows.len())?;
        let leaves = self.model.leaves(None);
        let input = self.model.input(x.clone(), rows.len());
        let mode = Mode::Train { key, rows };
        let taps = &mut Taps::none();
        let out = self.model.forward_tracked(&leaves, input, mode, taps);
        let (reconstruction, at_output) = cross_entropy(&out.logits, &x);
        let (kl, at_code) = kl(&out.features);
        let start = seed(out.logits, at_output) + seed(out.features, at_code);
        leaves.collect(&mut start.backward(), gradient);
        Ok(VaeLoss { reconstruction, kl })
    }

    /// Means and log-variances of `q(z|x)`, `[rows, latent]` each.
    ///
    /// # Errors
    /// When `x` is not `rows` rows of values from 0 to 1.
    pub fn encode(&mut self, x: Vec<f32>, rows: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        let x = self.checked(x, rows)?;
        let input = self.model.input(x, rows);
        let network = &self.network;
        let code = self
            .model
            .pass(&mut Taps::none(), |pass| network.encode(input, pass));
        let (mean, log_variance) = network.split(&code);
        Ok((slices::to_vec(&mean), slices::to_vec(&log_variance)))
    }

    /// The probabilities `p(x|z)` at the latents `z`, `[rows, latent]`.
    ///
    /// # Errors
    /// When `z` is not `rows` rows.
    pub fn decode(&mut self, z: Vec<f32>, rows: usize) -> Result<Vec<f32>> {
        let latent = self.network.latent;
        if z.len() != rows * latent {
            let reason = format!("{} values are not {rows} rows of {latent}", z.len());
            return Err(Error::Input { reason });
        }
        Ok(self.decoded(z, rows))
    }

    /// `n` draws of the model, `[n, inputs]`: the probabilities at latents drawn from the prior.
    /// The latents of draw `i` depend on `(key, i)` alone.
    pub fn sample(&mut self, n: usize, key: Key) -> Vec<f32> {
        let draws: Vec<u64> = (0..n as u64).collect();
        self.decoded(noise(key, &draws, self.network.latent), n)
    }

    fn decoded(&mut self, z: Vec<f32>, rows: usize) -> Vec<f32> {
        let network = &self.network;
        let z = TensorData::new(z, [rows, network.latent]);
        let z = Tensor::from_data(z, self.model.device());
        let logits = self
            .model
            .pass(&mut Taps::none(), |pass| network.decode(z, pass));
        let probability = |&y: &f32| sigmoid(y).0;
        slices::read(&logits, |y| y.iter().map(probability).collect())
    }

    /// Values mapped to [0, 1] from elsewhere may miss it by rounding: those are moved to its end.
    fn checked(&self, mut x: Vec<f32>, rows: usize) -> Result<Vec<f32>> {
        const SLACK: f32 = 1e-4;
        let inputs = self.network.inputs();
        if rows == 0 || x.len() != rows * inputs {
            let reason = format!("{} values are not {rows} rows of {inputs}", x.len());
            return Err(Error::Input { reason });
        }
        for v in &mut x {
            if !(-SLACK..=1.0 + SLACK).contains(v) {
                let reason = format!(
                    "an autoencoder takes values from 0 to 1 and found {v}; undo the stream's \
                     normalisation first"
                );
                return Err(Error::Input { reason });
            }
            *v = v.clamp(0.0, 1.0);
        }
        Ok(x)
    }
}

/// `(σ(y), ln(1 + e^y))`, both without overflow.
fn sigmoid(y: f32) -> (f32, f32) {
    let e = (-y.abs()).exp();
    let s = if y >= 0.0 {
        1.0 / (1.0 + e)
    } else {
        e / (1.0 + e)
    };
    (s, y.max(0.0) + e.ln_1p())
}

/// `mean_rows Σ_pixels [ln(1 + e^y) − x y]` and its gradient at `y`.
fn cross_entropy(y: &Tensor<2>, x: &[f32]) -> (f64, Tensor<2>) {
    let [n, pixels] = y.dims();
    let mut total = 0.0;
    let gradient: Vec<f32> = slices::read(y, |y| {
        let each = y.iter().zip(x).map(|(&y, &x)| {
            let (s, softplus) = sigmoid(y);
            total += f64::from(softplus) - f64::from(x) * f64::from(y);
            (s - x) / n as f32
        });
        each.collect()
    });
    let device = y.device().without_autodiff();
    let gradient = Tensor::from_data(TensorData::new(gradient, [n, pixels]), &device);
    (total / n as f64, gradient)
}

/// `mean_rows ½ Σ [μ² + e^λ − 1 − λ]` of codes `(μ, λ)` and its gradient at them.
fn kl(code: &Tensor<2>) -> (f64, Tensor<2>) {
    let [n, width] = code.dims();
    let mut total = 0.0;
    let mut gradient = Vec::with_capacity(n * width);
    slices::read(code, |code| {
        for row in code.chunks_exact(width) {
            let (mean, log_variance) = row.split_at(width / 2);
            for &m in mean {
                total += 0.5 * f64::from(m) * f64::from(m);
                gradient.push(m / n as f32);
            }
            for &l in log_variance {
                // e^λ − 1 loses nothing near λ = 0, where the prior lies.
                let excess = f64::from(l).exp_m1();
                total += 0.5 * (excess - f64::from(l));
                gradient.push((0.5 * excess / n as f64) as f32);
            }
        }
    });
    let device = code.device().without_autodiff();
    let gradient = Tensor::from_data(TensorData::new(gradient, [n, width]), &device);
    (total / n as f64, gradient)
}

/// Standard normal values, `[ids, width]`, each drawn by `(key, id, column)`.
fn noise(key: Key, ids: &[u64], width: usize) -> Vec<f32> {
    let key = key.sub("latent");
    let rows = ids.iter().map(|&id| key.at(id));
    rows.flat_map(|row| (0..width as u64).map(move |column| row.normal(column) as f32))
        .collect()
}

/// The architecture: a pass yields the decoder's outputs as `logits` and the code as `features`.
/// While training `z` is drawn, in evaluation it is the mean.
#[derive(Debug)]
struct Autoencoder {
    layout: Arc<Layout>,
    buffers: Arc<Layout>,
    layers: Vec<Dense>,
    /// The layers up to here are the encoder.
    middle: usize,
    latent: usize,
    init: Init,
}

#[derive(Debug)]
struct Dense {
    weight: String,
    bias: String,
    out: String,
    inputs: usize,
    outputs: usize,
    activation: Activation,
}

impl Autoencoder {
    fn new(spec: &VaeSpec, inputs: usize) -> Result<Self> {
        if inputs == 0 || spec.latent == 0 || spec.hidden.contains(&0) {
            return Err(Error::Spec {
                reason: format!(
                    "every layer of an autoencoder needs at least one unit: {inputs} inputs, \
                     hidden {:?}, {} latents",
                    spec.hidden, spec.latent
                ),
            });
        }
        let mut layers = Vec::new();
        let mut chain = |part: &str, last: &str, inputs: usize, hidden: Vec<usize>, outputs| {
            let mut width = inputs;
            let named = hidden.into_iter().enumerate();
            let named = named.map(|(i, n)| (format!("{part}.{i}"), n, Activation::Relu));
            let last = (last.to_owned(), outputs, Activation::Identity);
            for (name, outputs, activation) in named.chain([last]) {
                layers.push(Dense {
                    weight: format!("{name}.weight"),
                    bias: format!("{name}.bias"),
                    out: format!("{name}.out"),
                    inputs: width,
                    outputs,
                    activation,
                });
                width = outputs;
            }
        };
        let mirrored = spec.hidden.iter().rev().copied().collect();
        chain(
            "encoder",
            "latent",
            inputs,
            spec.hidden.clone(),
            2 * spec.latent,
        );
        chain("decoder", "output", spec.latent, mirrored, inputs);
        let entries = layers.iter().flat_map(|l| {
            [
                (l.weight.clone(), vec![l.outputs, l.inputs]),
                (l.bias.clone(), vec![l.outputs]),
            ]
        });
        Ok(Self {
            layout: Layout::new(entries)?,
            buffers: Layout::new([])?,
            middle: spec.hidden.len() + 1,
            layers,
            latent: spec.latent,
            init: spec.init,
        })
    }

    fn run(&self, layers: Range<usize>, mut h: Tensor<2>, pass: &mut Pass) -> Tensor<2> {
        for i in layers {
            let layer = &self.layers[i];
            let (w, b) = (pass.param(2 * i), pass.param(2 * i + 1));
            h = fused_linear(h, w, b, layer.activation);
            h = pass.taps.at(&layer.out, h);
        }
        h
    }

    /// `[rows, 2 · latent]`: means and log-variances.
    fn encode(&self, x: Tensor<2>, pass: &mut Pass) -> Tensor<2> {
        let x = pass.taps.at("input", x);
        self.run(0..self.middle, x, pass)
    }

    fn decode(&self, z: Tensor<2>, pass: &mut Pass) -> Tensor<2> {
        let z = pass.taps.at("z", z);
        self.run(self.middle..self.layers.len(), z, pass)
    }

    fn split(&self, code: &Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let [n, width] = code.dims();
        let part = |columns: Range<usize>| code.clone().slice([0..n, columns]);
        (part(0..self.latent), part(self.latent..width))
    }
}

impl Network for Autoencoder {
    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn buffers(&self) -> &Arc<Layout> {
        &self.buffers
    }

    fn initialise(&self, key: Key) -> (Weights, Weights) {
        let mut weights = Weights::zeros(&self.layout);
        for l in &self.layers {
            let (fan_in, fan_out) = (l.inputs, l.outputs);
            self.init
                .fill(&mut weights, key, &l.weight, Some(&l.bias), fan_in, fan_out);
        }
        (weights, Weights::zeros(&self.buffers))
    }

    fn forward(&self, x: Tensor<2>, pass: &mut Pass) -> Output {
        let code = self.encode(x, pass);
        let (mean, log_variance) = self.split(&code);
        let z = match pass.mode {
            Mode::Eval => mean,
            Mode::Train { key, rows } => {
                let shape = mean.dims();
                let noise = TensorData::new(noise(key, rows, self.latent), shape);
                let noise = Tensor::<2>::from_data(noise, &mean.device().without_autodiff());
                mean + (log_variance * 0.5).exp() * noise
            }
        };
        Output {
            logits: self.decode(z, pass),
            features: code,
        }
    }

    fn inputs(&self) -> usize {
        self.layers[0].inputs
    }

    fn outputs(&self) -> usize {
        // The decoder mirrors the encoder.
        self.inputs()
    }

    fn features(&self) -> usize {
        2 * self.latent
    }

    fn taps(&self) -> Vec<String> {
        let out = |layers: &[Dense]| layers.iter().map(|l| l.out.clone()).collect::<Vec<_>>();
        let (encoder, decoder) = self.layers.split_at(self.middle);
        let (input, z) = (vec!["input".to_owned()], vec!["z".to_owned()]);
        [input, out(encoder), z, out(decoder)].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f32]) -> Tensor<2> {
        let data = TensorData::new(values.to_vec(), [1, values.len()]);
        Tensor::from_data(data, &Device::flex())
    }

    /// `∫ q ln(q/p)` by the midpoint rule, against the closed form.
    #[test]
    fn the_divergence_is_the_integral() {
        for (mean, log_variance) in [(0.0, 0.0), (0.7, -1.3), (-2.0, 0.9), (0.1, -5.0)] {
            let deviation = f64::exp(log_variance / 2.0);
            let log_density = |z: f64, m: f64, s: f64| {
                -0.5 * ((z - m) / s).powi(2) - s.ln() - 0.5 * std::f64::consts::TAU.ln()
            };
            let (cells, reach) = (20_000, 12.0);
            let width = 2.0 * reach * deviation / f64::from(cells);
            let integral: f64 = (0..cells)
                .map(|i| {
                    let z = mean - reach * deviation + (f64::from(i) + 0.5) * width;
                    let q = log_density(z, mean, deviation);
                    q.exp() * (q - log_density(z, 0.0, 1.0)) * width
                })
                .sum();
            let (closed, _) = kl(&row(&[mean as f32, log_variance as f32]));
            assert!((closed - integral).abs() < 1e-6, "{closed} and {integral}");
        }
    }

    /// Far from 0 neither part overflows, and a certain pixel that is right costs nothing.
    #[test]
    fn extreme_outputs_stay_finite() {
        let (loss, gradient) =
            cross_entropy(&row(&[200.0, -200.0, 200.0, 0.0]), &[1.0, 0.0, 0.0, 0.5]);
        assert!(
            (loss - 200.0 - std::f64::consts::LN_2).abs() < 1e-5,
            "{loss}"
        );
        assert_eq!(slices::to_vec(&gradient), [0.0, 0.0, 1.0, 0.0]);
    }
}
