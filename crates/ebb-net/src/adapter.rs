//! Low-rank updates of linear maps, trained in the place of the maps themselves.
//!
//! **What it does.** A bank stands beside a linear map `W` `[out, in]` that is frozen:
//! `y = W x + s Σ_i g_i(x) b_i (a_i · x)` with `a_i` the rows of A `[rank, in]` and `b_i` the columns
//! of B `[out, rank]`. `W + s B A` is never made while training.
//! **Gates** `g`: none (LoRA), one number a rank that is learnt (S013), one switch a map (S012), or
//! the ranks' own answers to the input (S054).
//! **Sources.** Hu et al., 2021 (LoRA: `s = α/r`); Kalajdzievski, 2023 (rank-stabilised:
//! `s = α/√r`); cards S012, S013, S054.

use crate::params::Bank;
use crate::{Error, Result};
use burn::tensor::{Tensor, activation};
use ebb_kernels::{Activation, Stored, adapted_linear, fused_linear, fused_linear_of, slices};
use ebb_space::{Key, glob};
use serde::{Deserialize, Serialize};

/// Which ranks answer, and how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Gate {
    /// All of them.
    #[default]
    Open,
    /// Each times a number that is learnt, from `N(0, 1)` on.
    Ranks,
    /// All or none: `1[s > threshold]`, one learnt `s` a map. The gradient passes the step as if it
    /// were `s` itself.
    #[serde(rename_all = "kebab-case")]
    Switch {
        /// Where a map's update is switched off.
        threshold: f64,
        /// What `s` is at the start.
        start: f64,
    },
    /// The `top` ranks that answer the input most, new ones and kept ones, weighed by the softmax of
    /// their answers.
    #[serde(rename_all = "kebab-case")]
    Answers {
        /// Ranks that act on a row.
        top: usize,
        /// The softmax's temperature.
        temperature: f64,
        /// Of these, so many are new ones while they are trained.
        reserved: usize,
        /// Which ranks act is drawn for each row, whatever they answer: a control.
        #[serde(default)]
        shuffled: bool,
    },
}

/// What becomes of an adapter between two experiences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Between {
    /// The same one is trained on.
    #[default]
    Continue,
    /// It is added to the weights, and a fresh one begins.
    Merge,
    /// Its ranks stay as they are and go on answering; fresh ones begin beside them.
    Keep,
}

/// A low-rank adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct AdapterSpec {
    /// Rank of each map's update.
    pub rank: usize,
    /// The update is `alpha / rank · B A`.
    pub alpha: f64,
    /// Divide by the root of the rank instead.
    pub rank_stabilised: bool,
    /// Which linear maps (their paths, with `*`).
    pub on: Vec<String>,
    /// Which ranks answer.
    pub gate: Gate,
    /// What becomes of it between two experiences.
    pub between: Between,
}

impl Default for AdapterSpec {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            rank_stabilised: false,
            on: vec!["*".to_owned()],
            gate: Gate::Open,
            between: Between::Continue,
        }
    }
}

impl AdapterSpec {
    /// What the product `B A` is multiplied by.
    pub fn scale(&self) -> f32 {
        let rank = self.rank as f64;
        let by = if self.rank_stabilised {
            rank.sqrt()
        } else {
            rank
        };
        (self.alpha / by) as f32
    }

    /// Checks what can be checked without a network.
    ///
    /// # Errors
    /// [`Error::Spec`], saying what to change.
    pub fn check(&self) -> Result<()> {
        let refuse = |reason: &str| {
            Err(Error::Spec {
                reason: reason.to_owned(),
            })
        };
        if self.rank == 0 {
            return refuse("`adapter.rank` is at least 1");
        }
        if !(self.alpha.is_finite() && self.alpha != 0.0) {
            return refuse("`adapter.alpha` is a number other than 0");
        }
        let answers = matches!(self.gate, Gate::Answers { .. });
        if self.between == Between::Merge && answers {
            return refuse(
                "ranks that answer the input are no matrix that could be merged: \
                 `adapter.between` is `keep` or `continue` with this gate",
            );
        }
        if self.between == Between::Keep && !answers {
            return refuse(
                "`adapter.between = \"keep\"` is for ranks that answer the input: `merge`",
            );
        }
        match self.gate {
            Gate::Switch { threshold, start }
                if !threshold.is_finite() || !start.is_finite() || start <= threshold =>
            {
                refuse("`adapter.gate.start` must lie above `threshold`, or nothing is ever on")
            }
            Gate::Answers {
                top, temperature, ..
            } if top == 0 || temperature.is_nan() || temperature <= 0.0 => {
                refuse("`adapter.gate` needs `top` of at least 1 and a `temperature` above 0")
            }
            _ => Ok(()),
        }
    }

    /// Those of `maps` that it is on.
    ///
    /// # Errors
    /// [`Error::Spec`] for a pattern that matches none; the message shows what there is.
    pub(crate) fn chosen(&self, maps: Vec<LinearMap>) -> Result<Vec<LinearMap>> {
        let idle = self
            .on
            .iter()
            .find(|p| !maps.iter().any(|m| glob(p, &m.path)));
        if maps.is_empty() {
            return Err(Error::Spec {
                reason: "this network has no linear maps that an adapter could stand beside".into(),
            });
        }
        if let Some(pattern) = idle {
            let paths: Vec<&str> = maps.iter().take(12).map(|m| m.path.as_str()).collect();
            return Err(Error::Spec {
                reason: format!(
                    "`adapter.on`: no linear map is called `{pattern}`; there are {}{}",
                    paths.join(", "),
                    if maps.len() > 12 { ", …" } else { "" }
                ),
            });
        }
        let on = |m: &LinearMap| self.on.iter().any(|p| glob(p, &m.path));
        Ok(maps.into_iter().filter(on).collect())
    }
}

/// A linear map of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearMap {
    /// Its path: that of the weight without `.weight`.
    pub path: String,
    /// Index of the weight in the network's layout.
    pub weight: usize,
    /// Input width.
    pub inputs: usize,
    /// Output width.
    pub outputs: usize,
    /// How the weight is stored.
    pub stored: Stored,
}

/// Fresh values of a bank's tensors: A as PEFT draws it (`U(±1/√in)`), B 0, gates as they say.
pub(crate) fn fresh(gate: Gate, map: &LinearMap, rank: usize, key: Key) -> [Vec<f32>; 3] {
    let mut stream = key.sub(&map.path).stream();
    let bound = 1.0 / (map.inputs as f64).sqrt();
    let mut a = || (bound * (2.0 * stream.uniform() - 1.0)) as f32;
    let down = (0..rank * map.inputs).map(|_| a()).collect();
    let up = vec![0.0; map.outputs * rank];
    let gates = match gate {
        Gate::Open | Gate::Answers { .. } => Vec::new(),
        Gate::Ranks => (0..rank).map(|_| stream.normal() as f32).collect(),
        Gate::Switch { start, .. } => vec![start as f32],
    };
    [down, up, gates]
}

/// `act(x wᵀ + b)` with the bank's update, for `x` `[n, in]`; `training` reserves slots for new
/// ranks.
pub(crate) fn forward(
    bank: &Bank,
    x: Tensor<2>,
    w: Tensor<1>,
    b: Tensor<1>,
    training: bool,
) -> Tensor<2> {
    let (stored, rank) = (bank.map.stored, bank.rank);
    let beside = |x, down| {
        adapted_linear(
            x,
            w.clone(),
            b.clone(),
            down,
            bank.up.clone(),
            bank.scale,
            stored,
        )
    };
    match (bank.gate, &bank.gates) {
        (Gate::Ranks, Some(gates)) => {
            let rows = bank.down.clone().reshape([rank, bank.map.inputs]);
            let down = rows * gates.clone().reshape([rank, 1]);
            beside(x, down.reshape([rank * bank.map.inputs]))
        }
        (Gate::Switch { threshold, .. }, Some(s)) => {
            let on = slices::read(s, |s| f64::from(s[0]) > threshold);
            // Its value is 0 or 1, its derivative that of `s`.
            let indicator = s.clone() - s.clone().detach() + f32::from(u8::from(on));
            beside(x, bank.down.clone() * indicator)
        }
        (
            Gate::Answers {
                top,
                temperature,
                reserved,
                shuffled,
            },
            _,
        ) => {
            let y = fused_linear_of(x.clone(), w, b, Activation::Identity, stored);
            let chosen = Chosen {
                top,
                reserved: if training { reserved } else { 0 },
                shuffled,
            };
            y + answers(bank, x, temperature as f32, chosen)
        }
        _ => beside(x, bank.down.clone()),
    }
}

/// `s Σ_i w_i m_i b_i (a_i · x)` over kept and new ranks: `w = softmax(u / (τ ‖u‖))` of the answers
/// `u_i = a_i · x`, and `m` the `top` largest. A large negative answer is no relevance.
fn answers(bank: &Bank, x: Tensor<2>, temperature: f32, chosen: Chosen) -> Tensor<2> {
    let (inputs, outputs) = (bank.map.inputs, bank.map.outputs);
    let none = |width: usize| Tensor::zeros([width], &x.device().without_autodiff());
    let all = |new: &Tensor<1>, kept: fn(&[Tensor<1>; 2]) -> &Tensor<1>| {
        let kept = bank.kept.iter().map(|pair| kept(pair).clone());
        kept.chain([new.clone()]).collect::<Vec<_>>()
    };
    let downs = all(&bank.down, |pair| &pair[0]);
    let ranks = downs.iter().map(|a| a.dims()[0] / inputs).sum::<usize>();
    let downs = match downs.len() {
        1 => downs.into_iter().next().unwrap_or_else(|| none(0)),
        _ => Tensor::cat(downs, 0),
    };
    let u = fused_linear(x.clone(), downs, none(ranks), Activation::Identity);
    let [n, _] = u.dims();
    let length = u.clone().powi_scalar(2).sum_dim(1).sqrt() + 1e-6;
    let scores = u.clone() / length;
    let mask = slices::read(&scores, |s| most(s, ranks, ranks - bank.rank, chosen));
    let mask = Tensor::<2>::from_data(
        burn::tensor::TensorData::new(mask, [n, ranks]),
        &x.device().without_autodiff(),
    );
    let mask = if u.is_autodiff() {
        mask.autodiff()
    } else {
        mask
    };
    let weights = activation::softmax(scores / temperature, 1) * mask * bank.scale;
    // B of several banks side by side: `[out, ranks]` is theirs by columns.
    let ups = all(&bank.up, |pair| &pair[1]);
    let ups: Vec<Tensor<2>> = ups
        .into_iter()
        .map(|b| {
            let rank = b.dims()[0] / outputs;
            b.reshape([outputs, rank])
        })
        .collect();
    let up = Tensor::cat(ups, 1).reshape([outputs * ranks]);
    fused_linear(weights * u, up, none(outputs), Activation::Identity)
}

/// Which ranks act on a row.
#[derive(Clone, Copy)]
struct Chosen {
    top: usize,
    reserved: usize,
    shuffled: bool,
}

/// 1 for the `top` largest scores of each row, `reserved` of them among the ranks from `new` on.
fn most(scores: &[f32], ranks: usize, new: usize, chosen: Chosen) -> Vec<f32> {
    let mut mask = vec![0.0; scores.len()];
    let mut order: Vec<usize> = Vec::with_capacity(ranks);
    let rows = scores.chunks_exact(ranks).zip(mask.chunks_exact_mut(ranks));
    for (n, (row, mask)) in rows.enumerate() {
        order.clear();
        order.extend(0..ranks);
        match chosen.shuffled {
            true => Key::new(0, "ranks")
                .at(n as u64)
                .order(&mut order, |i| *i as u64),
            false => order.sort_by(|&i, &j| row[j].total_cmp(&row[i]).then(i.cmp(&j))),
        }
        let first = order.iter().filter(|&&i| i >= new);
        let first = first.take(chosen.reserved.min(chosen.top));
        let first: Vec<usize> = first.copied().collect();
        let rest = order.iter().filter(|i| !first.contains(i));
        for &i in first.iter().chain(rest).take(chosen.top) {
            mask[i] = 1.0;
        }
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::{Chosen, most};

    #[test]
    fn the_most_relevant_ranks_act_and_new_ones_have_their_places() {
        let scores = [0.1, 0.9, -0.95, 0.5, /* new */ 0.0, -0.2];
        let chosen = |top, reserved, shuffled| Chosen {
            top,
            reserved,
            shuffled,
        };
        let mask = |chosen| most(&scores, 6, 4, chosen);
        assert_eq!(mask(chosen(2, 0, false)), [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
        assert_eq!(mask(chosen(2, 1, false)), [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]);
        assert_eq!(mask(chosen(9, 9, false)), [1.0; 6]);
        let drawn = most(&scores.repeat(100), 6, 4, chosen(2, 0, true));
        let of = |i: usize| drawn.iter().skip(i).step_by(6).sum::<f32>();
        assert!(
            (0..6).all(|i| of(i) > 15.0 && of(i) < 55.0),
            "two of six, any two"
        );
    }
}
