//! The feed-forward half of a block.

use super::config::Nonlinearity;
use super::linear::{Around, Linear};
use crate::network::Pass;
use burn::tensor::{Tensor, activation};
use ebb_kernels::{gelu, swiglu};

/// `down(act(gate(x)) ⊙ up(x))`, or `down(act(up(x)))` without a gate.
#[derive(Debug)]
pub(crate) struct Mlp {
    pub gate: Option<Linear>,
    pub up: Linear,
    pub down: Linear,
    pub nonlinearity: Nonlinearity,
    pub around: Around,
}

impl Mlp {
    pub fn forward(&self, x: Tensor<3>, pass: &mut Pass) -> Tensor<3> {
        let x = pass.taps.at(&self.around.input, x);
        let h = match &self.gate {
            Some(gate) if self.nonlinearity == Nonlinearity::Silu => {
                let (gate, up) = (gate.forward(x.clone(), pass), self.up.forward(x, pass));
                let shape = gate.dims();
                let flat = [shape[0] * shape[1], shape[2]];
                swiglu(gate.reshape(flat), up.reshape(flat)).reshape(shape)
            }
            Some(gate) => {
                let open = self.nonlinearity.apply(gate.forward(x.clone(), pass));
                open * self.up.forward(x, pass)
            }
            None => self.nonlinearity.apply(self.up.forward(x, pass)),
        };
        let y = self.down.forward(h, pass);
        pass.taps.at(&self.around.output, y)
    }

    pub fn linears(&self) -> Vec<&Linear> {
        self.gate.iter().chain([&self.up, &self.down]).collect()
    }

    pub fn taps(&self) -> Vec<String> {
        let [input, output] = self.around.names();
        let inside = self.gate.iter().chain([&self.up, &self.down]);
        std::iter::once(input)
            .chain(inside.flat_map(Linear::taps))
            .chain([output])
            .collect()
    }
}

impl Nonlinearity {
    /// The function of every value of `z`.
    pub fn apply<const D: usize>(self, z: Tensor<D>) -> Tensor<D> {
        match self {
            Nonlinearity::Silu => activation::silu(z),
            Nonlinearity::Gelu => flat(z, |z| gelu(z, false)),
            Nonlinearity::GeluTanh => flat(z, |z| gelu(z, true)),
            Nonlinearity::Relu => activation::relu(z),
        }
    }
}

/// `f` of `z` as a matrix.
fn flat<const D: usize>(z: Tensor<D>, f: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Tensor<D> {
    let shape = z.dims();
    let rows = shape.iter().take(D - 1).product();
    f(z.reshape([rows, shape[D - 1]])).reshape(shape)
}
