//! Activations of convolutional networks: images with their channels last, as a matrix.

use crate::network::Pass;
use burn::tensor::Tensor;
use ebb_kernels::conv::Shape;
use ebb_kernels::{Activation, convolution, max_pool};

/// A batch of images, `[n · height · width, channels]`.
///
/// Everybody else (inputs, taps, linear layers) sees the usual order, channels first.
#[derive(Clone)]
pub(crate) struct Images {
    pub pixels: Tensor<2>,
    pub height: usize,
    pub width: usize,
}

impl Images {
    /// Images given as rows, `[n, channels · height · width]`.
    pub fn of_rows(x: Tensor<2>, [c, height, width]: [usize; 3]) -> Self {
        let [n, _] = x.dims();
        let pixels = match c {
            1 => x.reshape([n * height * width, 1]),
            _ => x
                .reshape([n, c, height, width])
                .permute([0, 2, 3, 1])
                .reshape([n * height * width, c]),
        };
        Self {
            pixels,
            height,
            width,
        }
    }

    fn channels_first(self) -> Tensor<4> {
        let [rows, c] = self.pixels.dims();
        let n = rows / (self.height * self.width);
        let x = self.pixels.reshape([n, self.height, self.width, c]);
        x.permute([0, 3, 1, 2])
    }

    /// As rows again, `[n, channels · height · width]`.
    pub fn into_rows(self) -> Tensor<2> {
        let x = self.channels_first();
        let [n, c, h, w] = x.dims();
        x.reshape([n, c * h * w])
    }

    /// Where the activation has a name.
    pub fn at(self, name: &str, pass: &mut Pass) -> Self {
        if !pass.taps.wants(name) {
            return self;
        }
        let (height, width) = (self.height, self.width);
        let x = pass.taps.at(name, self.channels_first());
        let [n, c, _, _] = x.dims();
        let pixels = x.permute([0, 2, 3, 1]).reshape([n * height * width, c]);
        Self {
            pixels,
            height,
            width,
        }
    }

    /// Convolution with as many zeros around as keep the size at stride 1. Shapes: `w`
    /// `[outputs · channels · kernel²]`, `b` `[outputs]`.
    pub fn convolve(
        self,
        w: Tensor<1>,
        b: Tensor<1>,
        [kernel, stride]: [usize; 2],
        act: Activation,
    ) -> Self {
        let [rows, inputs] = self.pixels.dims();
        let shape = Shape {
            images: rows / (self.height * self.width),
            height: self.height,
            width: self.width,
            inputs,
            outputs: b.dims()[0],
            kernel,
            stride,
        };
        let [height, width] = shape.out();
        Self {
            pixels: convolution(self.pixels, w, b, shape, act),
            height,
            width,
        }
    }

    /// The largest of every 2x2 pixels.
    pub fn halve(self) -> Self {
        Self {
            pixels: max_pool(self.pixels, self.height, self.width),
            height: self.height / 2,
            width: self.width / 2,
        }
    }

    /// The mean over the pixels of each image, `[n, channels]`.
    pub fn mean(self) -> Tensor<2> {
        let [rows, c] = self.pixels.dims();
        let area = self.height * self.width;
        let x = self.pixels.reshape([rows / area, area, c]);
        x.mean_dim(1).reshape([rows / area, c])
    }

    /// The same images with other numbers.
    pub fn with(self, pixels: Tensor<2>) -> Self {
        Self { pixels, ..self }
    }
}
