//! Parameters under their checkpoint's names, and the linear layer that reads them.

use crate::adapter::LinearMap;
use crate::network::Pass;
use burn::tensor::Tensor;
use ebb_kernels::Stored;
use ebb_space::Layout;

/// What fresh parameters are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// Drawn from a normal distribution.
    Normal,
    /// All this.
    Constant(f32),
}

/// The parameters gathered while a decoder is put together, in the order they are met.
#[derive(Default)]
pub(crate) struct Parameters {
    pub entries: Vec<(String, Vec<usize>)>,
    pub starts: Vec<Start>,
}

impl Parameters {
    /// Adds one and returns its index.
    pub fn add(&mut self, path: String, shape: &[usize], start: Start) -> usize {
        self.entries.push((path, shape.to_vec()));
        self.starts.push(start);
        self.entries.len() - 1
    }
}

/// The names of the taps around a sub-layer.
#[derive(Clone, Debug)]
pub(crate) struct Around {
    pub input: String,
    pub output: String,
}

impl Around {
    pub fn new(path: &str) -> Self {
        Self {
            input: format!("{path}.in"),
            output: format!("{path}.out"),
        }
    }

    pub fn names(&self) -> [String; 2] {
        [self.input.clone(), self.output.clone()]
    }
}

/// `y = x wᵀ + b`, position by position.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: usize,
    bias: Option<usize>,
    inputs: usize,
    outputs: usize,
    stored: Stored,
    around: Around,
}

impl Linear {
    /// The layer at `path`, whose parameters are `{path}.weight` and, with `bias`, `{path}.bias`.
    pub fn new(
        parameters: &mut Parameters,
        path: &str,
        [inputs, outputs]: [usize; 2],
        bias: bool,
        stored: Stored,
    ) -> Self {
        let shape = match stored {
            Stored::OutIn => [outputs, inputs],
            Stored::InOut => [inputs, outputs],
        };
        let weight = parameters.add(format!("{path}.weight"), &shape, Start::Normal);
        let bias =
            bias.then(|| parameters.add(format!("{path}.bias"), &[outputs], Start::Constant(0.0)));
        Self {
            weight,
            bias,
            inputs,
            outputs,
            stored,
            around: Around::new(path),
        }
    }

    /// A layer at `path` that reads the weight of another one, `[out, in]`.
    pub fn tied(weight: usize, path: &str, [inputs, outputs]: [usize; 2]) -> Self {
        Self {
            weight,
            bias: None,
            inputs,
            outputs,
            stored: Stored::OutIn,
            around: Around::new(path),
        }
    }

    /// `x` is `[rows, positions, in]`, the result `[rows, positions, out]`.
    pub fn forward(&self, x: Tensor<3>, pass: &mut Pass) -> Tensor<3> {
        let [rows, positions, _] = x.dims();
        let x = pass.taps.at(&self.around.input, x);
        let x = x.reshape([rows * positions, self.inputs]);
        let y = pass.linear(x, self.weight, self.bias, self.outputs, self.stored);
        let y = y.reshape([rows, positions, self.outputs]);
        pass.taps.at(&self.around.output, y)
    }

    pub fn taps(&self) -> Vec<String> {
        self.around.names().to_vec()
    }

    /// What an adapter needs to know of it.
    pub fn map(&self, layout: &Layout) -> LinearMap {
        let path = &layout.entries()[self.weight].path;
        LinearMap {
            path: path.strip_suffix(".weight").unwrap_or(path).to_owned(),
            weight: self.weight,
            inputs: self.inputs,
            outputs: self.outputs,
            stored: self.stored,
        }
    }
}
