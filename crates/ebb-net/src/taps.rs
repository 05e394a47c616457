//! Reading, replacing and differentiating named activations.
//!
//! A network calls [`Taps::at`] wherever an activation has a name. Where nothing was asked for,
//! that is one comparison. What was asked for is kept, and nothing else.

use burn::tensor::{Gradients, Tensor};
use std::collections::BTreeMap;

/// What is asked of one activation.
#[derive(Default)]
struct Tap {
    read: bool,
    /// From this row on, these values.
    replace: Option<(usize, Tensor<2>)>,
    differentiate: bool,
}

/// The activations somebody asked for, by name, and what was found there.
///
/// Activations are given and taken as `[rows, everything else]`.
#[derive(Default)]
pub struct Taps {
    wanted: BTreeMap<String, Tap>,
    read: BTreeMap<String, Tensor<2>>,
    shapes: BTreeMap<String, Vec<usize>>,
    leaves: BTreeMap<String, Tensor<2>>,
}

impl Taps {
    /// Nothing asked for.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Keep the value at `name`.
    #[must_use]
    pub fn read(mut self, name: impl Into<String>) -> Self {
        self.wanted.entry(name.into()).or_default().read = true;
        self
    }

    /// Put `value` in the place of the activation at `name`.
    #[must_use]
    pub fn replace(self, name: impl Into<String>, value: Tensor<2>) -> Self {
        self.replace_from(name, 0, value)
    }

    /// The same for the rows from `first` on; those before it pass as they are.
    #[must_use]
    pub fn replace_from(mut self, name: impl Into<String>, first: usize, value: Tensor<2>) -> Self {
        self.wanted.entry(name.into()).or_default().replace = Some((first, value));
        self
    }

    /// Keep the gradient with respect to the activation at `name`.
    #[must_use]
    pub fn differentiate(mut self, name: impl Into<String>) -> Self {
        self.wanted.entry(name.into()).or_default().differentiate = true;
        self
    }

    /// Whether `name` was asked for (a fused path may have to be taken apart).
    pub fn wants(&self, name: &str) -> bool {
        !self.wanted.is_empty() && self.wanted.contains_key(name)
    }

    /// The network's side: `x` is the activation called `name`; what comes back goes on.
    pub fn at<const D: usize>(&mut self, name: &str, x: Tensor<D>) -> Tensor<D> {
        if self.wanted.is_empty() {
            return x;
        }
        let Some(tap) = self.wanted.get(name) else {
            return x;
        };
        let shape = x.dims();
        let rows = shape[0];
        let width = shape[1..].iter().product::<usize>();
        let mut value = match &tap.replace {
            Some((first, value)) => {
                // Behind all parameters it has no gradient, but it must still be asked for one.
                let value = match x.is_autodiff() {
                    true => value.clone().autodiff(),
                    false => value.clone(),
                };
                if *first == 0 {
                    value.reshape(shape)
                } else {
                    let before = x.reshape([rows, width]).slice([0..*first, 0..width]);
                    Tensor::cat(vec![before, value], 0).reshape(shape)
                }
            }
            None => x,
        };
        if tap.differentiate {
            // `require_grad` refuses a non-leaf: a zero leaf added here receives its gradient.
            let leaf = Tensor::<2>::zeros([rows, width], &value.device().without_autodiff())
                .autodiff()
                .require_grad();
            value = value.autodiff() + leaf.clone().reshape(shape);
            self.leaves.insert(name.to_owned(), leaf);
        }
        if tap.read {
            self.shapes.insert(name.to_owned(), shape[1..].to_vec());
            self.read.insert(
                name.to_owned(),
                value.clone().inner().reshape([rows, width]),
            );
        }
        value
    }

    /// The value read at `name`, if the pass came by.
    pub fn value(&self, name: &str) -> Option<&Tensor<2>> {
        self.read.get(name)
    }

    /// The shape of a row of what was read at `name`: channels first, then positions.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shapes.get(name).map(Vec::as_slice)
    }

    /// The gradient at `name` after a backward pass.
    pub fn gradient(&self, name: &str, gradients: &mut Gradients) -> Option<Tensor<2>> {
        self.leaves.get(name)?.grad_remove(gradients)
    }
}
