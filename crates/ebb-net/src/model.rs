//! A network with its parameters.

use crate::network::{Mode, Network, Output, Pass, Seed, Seeded};
use crate::taps::Taps;
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use ebb_kernels::slices;
use ebb_space::{Key, Layout, Weights};
use std::sync::Arc;

/// A network, its parameters as tensors on a device, and its running statistics.
#[derive(Debug)]
pub struct Model {
    network: Arc<dyn Network>,
    params: Vec<Tensor<1>>,
    buffers: Weights,
    device: Device,
}

/// Parameters as the leaves of one graph.
///
/// Drop them before the parameters are changed: a shared buffer would be copied, not updated in
/// place.
pub struct Leaves(Vec<Tensor<1>>);

impl Leaves {
    /// Moves the gradients into `into` (same layout). A parameter the graph never reached gets 0.
    pub fn collect(self, gradients: &mut Gradients, into: &mut Weights) {
        let layout = into.layout().clone();
        let values = into.as_mut_slice();
        for (leaf, entry) in self.0.iter().zip(layout.entries()) {
            let target = &mut values[entry.range.clone()];
            match leaf.grad_remove(gradients) {
                Some(g) => slices::read(&g, |g| slices::copy(g, target)),
                None => target.fill(0.0),
            }
        }
    }
}

impl Model {
    /// A freshly initialised model; a pure function of `network` and `key`.
    pub fn new(network: Arc<dyn Network>, key: Key, device: &Device) -> Self {
        let (weights, buffers) = network.initialise(key);
        let params = tensors(&weights, device);
        Self {
            network,
            params,
            buffers,
            device: device.clone(),
        }
    }

    /// The same parameters in another network, whose layout must be the same.
    ///
    /// # Errors
    /// When it is not.
    pub fn with_network(mut self, network: Arc<dyn Network>) -> crate::Result<Self> {
        same_layout(network.layout(), self.network.layout())?;
        same_layout(network.buffers(), self.network.buffers())?;
        self.network = network;
        Ok(self)
    }

    /// The architecture.
    pub fn network(&self) -> &Arc<dyn Network> {
        &self.network
    }

    /// Paths and shapes of the parameters.
    pub fn layout(&self) -> &Arc<Layout> {
        self.network.layout()
    }

    /// Where the parameters live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A copy of the parameters.
    pub fn weights(&self) -> Weights {
        let mut weights = Weights::zeros(self.layout());
        self.copy_weights(&mut weights);
        weights
    }

    /// Copies the parameters into `into` (same layout).
    pub fn copy_weights(&self, into: &mut Weights) {
        let layout = self.layout().clone();
        let values = into.as_mut_slice();
        for (p, entry) in self.params.iter().zip(layout.entries()) {
            slices::read(p, |p| values[entry.range.clone()].copy_from_slice(p));
        }
    }

    /// Replaces the parameters.
    ///
    /// # Errors
    /// When the weights have another layout.
    pub fn set_weights(&mut self, weights: &Weights) -> crate::Result<()> {
        same_layout(self.layout(), weights.layout())?;
        for (p, (_, values)) in self.params.iter_mut().zip(weights.iter()) {
            slices::write(p, |p| p.copy_from_slice(values));
        }
        Ok(())
    }

    /// The running statistics (empty for networks without any).
    pub fn buffers(&self) -> &Weights {
        &self.buffers
    }

    /// Replaces the running statistics.
    ///
    /// # Errors
    /// When they have another layout.
    pub fn set_buffers(&mut self, buffers: Weights) -> crate::Result<()> {
        same_layout(self.network.buffers(), buffers.layout())?;
        self.buffers = buffers;
        Ok(())
    }

    /// Changes every parameter in place: `f` gets its index in the layout and its values.
    pub fn update(&mut self, mut f: impl FnMut(usize, &mut [f32])) {
        for (i, p) in self.params.iter_mut().enumerate() {
            slices::write(p, |values| f(i, values));
        }
    }

    /// Makes the parameters (or `at`, if given) leaves of a new graph.
    pub fn leaves(&self, at: Option<&Weights>) -> Leaves {
        let track = |p: Tensor<1>| p.autodiff().require_grad();
        Leaves(match at {
            None => self.params.iter().cloned().map(track).collect(),
            Some(weights) => tensors(weights, &self.device)
                .into_iter()
                .map(track)
                .collect(),
        })
    }

    /// A differentiable forward pass of `x`, `[rows, inputs]`.
    pub fn forward_tracked(
        &mut self,
        leaves: &Leaves,
        x: Tensor<2>,
        mode: Mode,
        taps: &mut Taps,
    ) -> Output {
        let mut pass = Pass {
            params: &leaves.0,
            buffers: &mut self.buffers,
            taps,
            mode,
        };
        self.network.forward(x, &mut pass)
    }

    /// The gradient of what `seed` makes of the output, written into `into` (same layout), with
    /// the activations of one block at a time: as
    /// [`Network::checkpointed`]. `None` where the network has no
    /// blocks.
    pub fn checkpointed(&self, x: Tensor<2>, seed: Seed, into: &mut Weights) -> Option<Seeded> {
        let layout = into.layout().clone();
        into.as_mut_slice().fill(0.0);
        let mut add = |i: usize, gradient: Tensor<1>| {
            let range = layout.entries()[i].range.clone();
            let target = &mut into.as_mut_slice()[range];
            slices::read(&gradient, |g| {
                target.iter_mut().zip(g).for_each(|(t, g)| *t += g);
            });
        };
        self.network.checkpointed(x, &self.params, seed, &mut add)
    }

    /// A forward pass without a graph, in evaluation mode.
    pub fn forward(&mut self, x: Tensor<2>, taps: &mut Taps) -> Output {
        let network = self.network.clone();
        self.pass(taps, |pass| network.forward(x, pass))
    }

    /// The same for `f`, which may be a part of the network.
    pub(crate) fn pass<R>(&mut self, taps: &mut Taps, f: impl FnOnce(&mut Pass) -> R) -> R {
        f(&mut Pass {
            params: &self.params,
            buffers: &mut self.buffers,
            taps,
            mode: Mode::Eval,
        })
    }

    /// The shape that the activation at `name` has in one row, channels first, if the network has
    /// it.
    pub fn shape_at(&mut self, name: &str) -> Option<Vec<usize>> {
        let mut taps = Taps::none().read(name);
        let blank = self.input(vec![0.0; self.network.inputs()], 1);
        self.forward(blank, &mut taps);
        taps.shape(name).map(<[usize]>::to_vec)
    }

    /// `rows x inputs` values as a tensor on the model's device (moved, not copied).
    pub fn input(&self, values: Vec<f32>, rows: usize) -> Tensor<2> {
        let width = self.network.inputs();
        Tensor::from_data(TensorData::new(values, [rows, width]), &self.device)
    }
}

impl Clone for Model {
    /// A deep copy: training one never reaches the other.
    fn clone(&self) -> Self {
        Self {
            network: self.network.clone(),
            params: tensors(&self.weights(), &self.device),
            buffers: self.buffers.clone(),
            device: self.device.clone(),
        }
    }
}

fn tensors(weights: &Weights, device: &Device) -> Vec<Tensor<1>> {
    weights
        .iter()
        .map(|(_, values)| {
            Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
        })
        .collect()
}

fn same_layout(mine: &Arc<Layout>, other: &Arc<Layout>) -> crate::Result<()> {
    let difference = mine
        .entries()
        .iter()
        .zip(other.entries())
        .find(|(a, b)| a.path != b.path || a.shape != b.shape);
    match difference {
        Some((a, b)) => Err(crate::Error::Weights {
            reason: format!(
                "`{}` of shape {:?} where `{}` of shape {:?} belongs",
                b.path, b.shape, a.path, a.shape
            ),
        }),
        None if mine.entries().len() != other.entries().len() => Err(crate::Error::Weights {
            reason: format!(
                "{} tensors where {} belong",
                other.entries().len(),
                mine.entries().len()
            ),
        }),
        None => Ok(()),
    }
}
