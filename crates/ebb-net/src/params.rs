//! The parameters of a network as tensors: all of them, and what of them is trained.

use crate::adapter::{AdapterSpec, Between, Gate, LinearMap, fresh};
use crate::{Error, Result};
use burn::tensor::{Device, Tensor, TensorData};
use ebb_kernels::{Stored, slices};
use ebb_space::{Key, Layout, Weights, glob};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A low-rank update beside a linear map.
#[derive(Clone, Debug)]
pub(crate) struct Bank {
    pub map: LinearMap,
    pub rank: usize,
    pub scale: f32,
    pub gate: Gate,
    /// A, `[rank, in]`.
    pub down: Tensor<1>,
    /// B, `[out, rank]`.
    pub up: Tensor<1>,
    /// What the gate learns.
    pub gates: Option<Tensor<1>>,
    /// Ranks of earlier experiences, frozen.
    pub kept: Vec<[Tensor<1>; 2]>,
}

impl Bank {
    /// What is trained, in the layout's order.
    fn trained(&self) -> impl Iterator<Item = &Tensor<1>> {
        [&self.down, &self.up].into_iter().chain(&self.gates)
    }

    fn trained_mut(&mut self) -> impl Iterator<Item = &mut Tensor<1>> {
        [&mut self.down, &mut self.up]
            .into_iter()
            .chain(&mut self.gates)
    }
}

/// The part of a network that is trained, where it is not the whole.
#[derive(Clone, Debug)]
struct Part {
    layout: Arc<Layout>,
    /// Parameters of the network that are trained themselves.
    whole: Vec<usize>,
    banks: Vec<Bank>,
    /// The bank beside a weight.
    beside: BTreeMap<usize, usize>,
    between: Between,
    /// What was trained before each turn of the adapter, oldest first.
    turned: Vec<Weights>,
}

/// The parameters of a network: all of them, in the order of its layout, and which are trained.
#[derive(Clone, Debug)]
pub struct Params {
    all: Vec<Tensor<1>>,
    part: Option<Part>,
}

impl Params {
    /// All of `weights`, all of them trained.
    pub fn new(weights: &Weights, device: &Device) -> Self {
        Self {
            all: tensors(weights, device),
            part: None,
        }
    }

    /// How many parameters the network has.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The parameter at `index` of the network's layout, flat.
    pub fn get(&self, index: usize) -> Tensor<1> {
        self.all[index].clone()
    }

    /// Whether the parameter at `index` of the network's layout is trained itself.
    pub fn trains(&self, index: usize) -> bool {
        let part = self.part.as_ref();
        part.is_none_or(|part| part.whole.binary_search(&index).is_ok())
    }

    /// Where they live.
    pub fn device(&self) -> Option<Device> {
        self.all.first().map(Tensor::device)
    }

    /// The layout of what is trained, if that is a part.
    pub(crate) fn layout(&self) -> Option<&Arc<Layout>> {
        self.part.as_ref().map(|part| &part.layout)
    }

    /// Other values of all parameters; low-rank updates stay.
    pub(crate) fn set_all(&mut self, weights: &Weights, device: &Device) {
        self.all = tensors(weights, device);
    }

    /// The bank beside the weight at `index`.
    pub(crate) fn bank(&self, index: usize) -> Option<&Bank> {
        let part = self.part.as_ref()?;
        part.beside.get(&index).map(|at| &part.banks[*at])
    }

    /// The trained tensors, in their layout's order.
    pub(crate) fn trained(&self) -> Vec<&Tensor<1>> {
        match &self.part {
            None => self.all.iter().collect(),
            Some(part) => {
                let whole = part.whole.iter().map(|i| &self.all[*i]);
                whole
                    .chain(part.banks.iter().flat_map(Bank::trained))
                    .collect()
            }
        }
    }

    /// The same, to be changed where they lie.
    pub(crate) fn trained_mut(&mut self) -> Vec<&mut Tensor<1>> {
        match &mut self.part {
            None => self.all.iter_mut().collect(),
            Some(part) => {
                let whole = &part.whole;
                let all = self.all.iter_mut().enumerate();
                let whole = all.filter(|(i, _)| whole.binary_search(i).is_ok());
                let banks = part.banks.iter_mut().flat_map(Bank::trained_mut);
                whole.map(|(_, p)| p).chain(banks).collect()
            }
        }
    }

    /// The same parameters in one graph; what is trained are its leaves.
    pub fn tracked(&self) -> Params {
        let leaf = |p: &Tensor<1>| p.clone().autodiff().require_grad();
        let held = |p: &Tensor<1>| p.clone().autodiff();
        match &self.part {
            None => Params {
                all: self.all.iter().map(leaf).collect(),
                part: None,
            },
            Some(part) => {
                let is_leaf = |i: &usize| part.whole.binary_search(i).is_ok();
                let all = self.all.iter().enumerate();
                let bank = |bank: &Bank| Bank {
                    down: leaf(&bank.down),
                    up: leaf(&bank.up),
                    gates: bank.gates.as_ref().map(leaf),
                    kept: (bank.kept.iter())
                        .map(|pair| pair.each_ref().map(held))
                        .collect(),
                    map: bank.map.clone(),
                    ..*bank
                };
                Params {
                    all: all
                        .map(|(i, p)| if is_leaf(&i) { leaf(p) } else { held(p) })
                        .collect(),
                    part: Some(Part {
                        banks: part.banks.iter().map(bank).collect(),
                        ..part.clone()
                    }),
                }
            }
        }
    }

    /// The same parameters with other values of what is trained.
    pub(crate) fn at(&self, weights: &Weights, device: &Device) -> Params {
        let mut there = self.clone();
        let new = tensors(weights, device);
        for (old, new) in there.trained_mut().into_iter().zip(new) {
            *old = new;
        }
        there
    }

    /// A copy of what is trained; the rest, which nobody changes, is shared.
    pub(crate) fn copied(&self) -> Params {
        let mut copy = self.clone();
        for p in copy.trained_mut() {
            let values = slices::read(p, <[f32]>::to_vec);
            *p = Tensor::from_data(TensorData::new(values, p.dims()), &p.device());
        }
        copy
    }

    /// From now on low-rank updates of some of `maps` are trained, and the parameters of `network`
    /// that match `only`.
    pub(crate) fn train_part(
        &mut self,
        network: &Layout,
        only: &[String],
        adapter: Option<&AdapterSpec>,
        maps: Vec<LinearMap>,
        key: Key,
        device: &Device,
    ) -> Result<()> {
        let entries = network.entries();
        if let Some(pattern) = only
            .iter()
            .find(|p| !entries.iter().any(|e| glob(p, &e.path)))
        {
            return Err(Error::Spec {
                reason: format!(
                    "`train.only`: no parameter is called `{pattern}`; the first ones are {}",
                    (entries
                        .iter()
                        .take(8)
                        .map(|e| e.path.as_str())
                        .collect::<Vec<_>>())
                    .join(", ")
                ),
            });
        }
        let is_trained = |path: &str| only.iter().any(|p| glob(p, path));
        let whole = entries
            .iter()
            .enumerate()
            .filter(|(_, e)| is_trained(&e.path));
        let whole: Vec<usize> = whole.map(|(i, _)| i).collect();
        let mut paths: Vec<(String, Vec<usize>)> = (whole.iter())
            .map(|i| (entries[*i].path.clone(), entries[*i].shape.clone()))
            .collect();
        let mut banks = Vec::new();
        if let Some(spec) = adapter {
            spec.check()?;
            for map in spec.chosen(maps)? {
                let [down, up, gates] = fresh(spec.gate, &map, spec.rank, key);
                let (path, rank) = (&map.path, spec.rank);
                paths.push((format!("{path}.lora_A.weight"), vec![rank, map.inputs]));
                paths.push((format!("{path}.lora_B.weight"), vec![map.outputs, rank]));
                if !gates.is_empty() {
                    paths.push((format!("{path}.lora_gate"), vec![gates.len()]));
                }
                banks.push(Bank {
                    rank,
                    scale: spec.scale(),
                    gate: spec.gate,
                    down: vector(down, device),
                    up: vector(up, device),
                    gates: (!gates.is_empty()).then(|| vector(gates, device)),
                    kept: Vec::new(),
                    map,
                });
            }
        }
        let beside = banks
            .iter()
            .enumerate()
            .map(|(i, bank)| (bank.map.weight, i));
        self.part = Some(Part {
            layout: Layout::new(paths)?,
            whole,
            beside: beside.collect(),
            between: adapter.map_or(Between::Continue, |spec| spec.between),
            turned: Vec::new(),
            banks,
        });
        Ok(())
    }

    /// The end of an experience: what was trained is merged or kept, as the adapter says, and a
    /// fresh one begins. Whether anything was done.
    pub(crate) fn turn(&mut self, trained: Weights, key: Key, device: &Device) -> Result<bool> {
        let between = self.part.as_ref().map(|part| part.between);
        if matches!(between, None | Some(Between::Continue)) {
            return Ok(false);
        }
        self.take_in(trained, device)?;
        let banks = self.part.iter_mut().flat_map(|part| &mut part.banks);
        for bank in banks {
            let [down, up, gates] = fresh(bank.gate, &bank.map, bank.rank, key);
            bank.down = vector(down, device);
            bank.up = vector(up, device);
            bank.gates = bank.gates.as_ref().map(|_| vector(gates, device));
        }
        Ok(true)
    }

    /// What was trained before each turn, oldest first.
    pub(crate) fn turned(&self) -> &[Weights] {
        self.part.as_ref().map_or(&[], |part| &part.turned)
    }

    /// Merges or keeps the banks' updates at these trained values.
    pub(crate) fn take_in(&mut self, trained: Weights, device: &Device) -> Result<()> {
        let there = self.at(&trained, device);
        let (Some(part), Some(there)) = (&mut self.part, there.part) else {
            return Ok(());
        };
        for (bank, there) in part.banks.iter_mut().zip(there.banks) {
            match part.between {
                Between::Continue => {}
                Between::Merge => {
                    let weight = &mut self.all[bank.map.weight];
                    let mut values = slices::read(weight, <[f32]>::to_vec);
                    add_update(&there, &mut values)?;
                    *weight = vector(values, device);
                }
                Between::Keep => bank.kept.push([there.down, there.up]),
            }
        }
        part.turned.push(trained);
        Ok(())
    }

    /// All parameters of the network with the banks' updates added.
    pub(crate) fn merged(&self, network: &Arc<Layout>) -> Result<Weights> {
        let mut weights = Weights::zeros(network);
        let values = weights.as_mut_slice();
        for (p, entry) in self.all.iter().zip(network.entries()) {
            slices::read(p, |p| values[entry.range.clone()].copy_from_slice(p));
        }
        for bank in self.part.iter().flat_map(|part| &part.banks) {
            let range = network.entries()[bank.map.weight].range.clone();
            add_update(bank, &mut values[range])?;
        }
        Ok(weights)
    }

    /// The factors `(A, B)` of what the adapter did to each map, gates in A, with those that were
    /// merged before; and the map and what the product is multiplied by.
    pub(crate) fn factors(&self) -> Result<Vec<Factors>> {
        let Some(part) = &self.part else {
            return Ok(Vec::new());
        };
        let device = self.device().unwrap_or_default();
        let mut all = Vec::with_capacity(part.banks.len());
        for (i, bank) in part.banks.iter().enumerate() {
            let (inputs, outputs) = (bank.map.inputs, bank.map.outputs);
            let mut courses = Vec::with_capacity(part.turned.len() + 1);
            for earlier in &part.turned {
                let there = self.at(earlier, &device).part;
                courses.extend(there.and_then(|part| part.banks.into_iter().nth(i)));
            }
            courses.push(bank.clone());
            let mut down = Vec::new();
            let ups: Vec<Vec<f32>> = (courses.iter())
                .map(|bank| slices::read(&bank.up, <[f32]>::to_vec))
                .collect();
            for bank in &courses {
                down.extend(gated(bank)?);
            }
            let rows = |o: usize| {
                let row = move |up: &Vec<f32>| up[o * bank.rank..][..bank.rank].to_vec();
                ups.iter().flat_map(row)
            };
            all.push(Factors {
                map: bank.map.clone(),
                rank: down.len() / inputs.max(1),
                up: (0..outputs).flat_map(rows).collect(),
                down,
                scale: bank.scale,
            });
        }
        Ok(all)
    }
}

/// What an adapter did to a linear map: `scale · B A`.
#[derive(Clone, Debug, PartialEq)]
pub struct Factors {
    /// The map.
    pub map: LinearMap,
    /// Rank.
    pub rank: usize,
    /// A, `[rank, in]`.
    pub down: Vec<f32>,
    /// B, `[out, rank]`.
    pub up: Vec<f32>,
    /// What their product is multiplied by.
    pub scale: f32,
}

/// A with the gate's numbers in it.
fn gated(bank: &Bank) -> Result<Vec<f32>> {
    let mut down = slices::read(&bank.down, <[f32]>::to_vec);
    let gates = bank
        .gates
        .as_ref()
        .map(|g| slices::read(g, <[f32]>::to_vec));
    match (bank.gate, gates) {
        (Gate::Open, _) => {}
        (Gate::Ranks, Some(gates)) => {
            for (row, gate) in down.chunks_exact_mut(bank.map.inputs).zip(gates) {
                row.iter_mut().for_each(|a| *a *= gate);
            }
        }
        (Gate::Switch { threshold, .. }, Some(s)) if f64::from(s[0]) > threshold => {}
        (Gate::Switch { .. }, _) => down.fill(0.0),
        _ => {
            return Err(Error::Weights {
                reason:
                    "an adapter whose ranks answer the input is no matrix: it cannot be merged \
                         into the weights or written as LoRA"
                        .into(),
            });
        }
    }
    Ok(down)
}

/// `s B A` onto the weight, summed in f64.
fn add_update(bank: &Bank, weight: &mut [f32]) -> Result<()> {
    let down = gated(bank)?;
    let (inputs, outputs) = (bank.map.inputs, bank.map.outputs);
    let by = f64::from(bank.scale);
    let mut row = vec![0.0f64; inputs];
    slices::read(&bank.up, |up| {
        for (o, b) in up.chunks_exact(bank.rank).enumerate() {
            row.fill(0.0);
            for (&b, a) in b.iter().zip(down.chunks_exact(inputs)) {
                for (sum, &a) in row.iter_mut().zip(a) {
                    *sum += f64::from(b) * f64::from(a);
                }
            }
            for (i, sum) in row.iter().enumerate() {
                let at = match bank.map.stored {
                    Stored::OutIn => o * inputs + i,
                    Stored::InOut => i * outputs + o,
                };
                weight[at] = (f64::from(weight[at]) + by * sum) as f32;
            }
        }
    });
    Ok(())
}

fn vector(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let size = values.len();
    Tensor::from_data(TensorData::new(values, [size]), device)
}

fn tensors(weights: &Weights, device: &Device) -> Vec<Tensor<1>> {
    weights
        .iter()
        .map(|(_, values)| vector(values.to_vec(), device))
        .collect()
}
