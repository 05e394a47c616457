//! A network with its parameters.

use crate::adapter::AdapterSpec;
use crate::network::{LinearSite, Mode, Network, Output, Pass, Seed, Seeded};
use crate::params::{Factors, Params};
use crate::taps::Taps;
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use ebb_kernels::slices;
use ebb_space::{Key, Layout, Weights};
use std::sync::Arc;

/// A network, its parameters as tensors on a device, and its running statistics.
///
/// What is trained may be a part of the network ([`Model::train_part`]): its layout, weights and
/// gradients are then those of that part, and the rest is frozen and shared between clones.
#[derive(Debug)]
pub struct Model {
    network: Arc<dyn Network>,
    params: Params,
    buffers: Weights,
    device: Device,
}

/// Parameters as the leaves of one graph.
///
/// Drop them before the parameters are changed: a shared buffer would be copied, not updated in
/// place.
pub struct Leaves(Params);

impl Leaves {
    /// Moves the gradients into `into` (same layout). A parameter the graph never reached gets 0.
    pub fn collect(self, gradients: &mut Gradients, into: &mut Weights) {
        let layout = into.layout().clone();
        let values = into.as_mut_slice();
        for (leaf, entry) in self.0.trained().into_iter().zip(layout.entries()) {
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
        Self {
            network,
            params: Params::new(&weights, device),
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

    /// Paths and shapes of what is trained: of every parameter, unless a part was chosen.
    pub fn layout(&self) -> &Arc<Layout> {
        let whole = || self.network.layout();
        self.params.layout().unwrap_or_else(whole)
    }

    /// From now on what is trained are the parameters that match one of `only`, and the low-rank
    /// updates of an adapter; everything else stays bit for bit as it is.
    ///
    /// # Errors
    /// When a pattern matches nothing, or the network has no linear maps to adapt.
    pub fn train_part(
        &mut self,
        only: &[String],
        adapter: Option<&AdapterSpec>,
        key: Key,
    ) -> crate::Result<()> {
        let (maps, layout) = (self.network.linear_maps(), self.network.layout().clone());
        (self.params).train_part(&layout, only, adapter, maps, key, &self.device)
    }

    /// Replaces every parameter of the network, trained or not; low-rank updates stay.
    ///
    /// # Errors
    /// When the weights have another layout than the network.
    pub fn set_whole(&mut self, weights: &Weights) -> crate::Result<()> {
        same_layout(self.network.layout(), weights.layout())?;
        self.params.set_all(weights, &self.device);
        Ok(())
    }

    /// The linear layers, if they hold everything that is trained.
    pub fn linear_sites(&self) -> Option<Vec<LinearSite>> {
        match self.trains_part() {
            true => None,
            false => self.network.linear_sites(),
        }
    }

    /// Whether an adapter or another part of the parameters is trained, and not all.
    pub fn trains_part(&self) -> bool {
        self.params.layout().is_some()
    }

    /// The end of an experience: an adapter is merged into the weights, or its ranks are kept, as
    /// it says, and a fresh one begins, a pure function of `key`. Whether one did.
    ///
    /// # Errors
    /// When it cannot be merged.
    pub fn turn_adapter(&mut self, key: Key) -> crate::Result<bool> {
        self.params.turn(self.weights(), key, &self.device)
    }

    /// What was trained before each turn of the adapter, oldest first.
    pub fn turned(&self) -> &[Weights] {
        self.params.turned()
    }

    /// Takes in what was trained before a turn that a saved state had behind it; in the order of
    /// the turns, on a model that has none.
    ///
    /// # Errors
    /// When the values have another layout.
    pub fn take_in(&mut self, trained: Weights) -> crate::Result<()> {
        same_layout(self.layout(), trained.layout())?;
        self.params.take_in(trained, &self.device)
    }

    /// Every parameter of the network, with low-rank updates added where they stand.
    ///
    /// # Errors
    /// When the updates depend on the input.
    pub fn merged_weights(&self) -> crate::Result<Weights> {
        self.params.merged(self.network.layout())
    }

    /// What the adapter did to each map, with what was merged before.
    ///
    /// # Errors
    /// When the updates depend on the input.
    pub fn adapter_factors(&self) -> crate::Result<Vec<Factors>> {
        self.params.factors()
    }

    /// Where the parameters live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A copy of what is trained.
    pub fn weights(&self) -> Weights {
        let mut weights = Weights::zeros(self.layout());
        self.copy_weights(&mut weights);
        weights
    }

    /// Copies what is trained into `into` (same layout).
    pub fn copy_weights(&self, into: &mut Weights) {
        let layout = self.layout().clone();
        let values = into.as_mut_slice();
        for (p, entry) in self.params.trained().into_iter().zip(layout.entries()) {
            slices::read(p, |p| values[entry.range.clone()].copy_from_slice(p));
        }
    }

    /// Replaces what is trained.
    ///
    /// # Errors
    /// When the weights have another layout.
    pub fn set_weights(&mut self, weights: &Weights) -> crate::Result<()> {
        same_layout(self.layout(), weights.layout())?;
        for (p, (_, values)) in self.params.trained_mut().into_iter().zip(weights.iter()) {
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

    /// Changes every trained tensor in place: `f` gets its index in the layout and its values.
    pub fn update(&mut self, mut f: impl FnMut(usize, &mut [f32])) {
        for (i, p) in self.params.trained_mut().into_iter().enumerate() {
            slices::write(p, |values| f(i, values));
        }
    }

    /// Makes what is trained (or `at`, if given) leaves of a new graph.
    pub fn leaves(&self, at: Option<&Weights>) -> Leaves {
        Leaves(match at {
            None => self.params.tracked(),
            Some(weights) => self.params.at(weights, &self.device).tracked(),
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
            params: self.params.copied(),
            buffers: self.buffers.clone(),
            device: self.device.clone(),
        }
    }
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
