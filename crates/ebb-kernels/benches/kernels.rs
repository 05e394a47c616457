//! The fused operations, up and down, at the shapes that training meets: `cargo bench -p ebb-kernels`.

use burn::tensor::{Device, Tensor, TensorData};
use divan::Bencher;
use ebb_kernels::attention::Scores;
use ebb_kernels::batch_norm::Norm;
use ebb_kernels::conv::Shape;
use ebb_kernels::row_norm::Kind;
use ebb_kernels::{
    Activation, attention, batch_norm, convolution, fused_linear, gelu, max_pool, moments,
    row_norm, seed, swiglu,
};

fn main() {
    divan::main();
}

fn noise<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n)
        .map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0)
        .collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn leaf<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    noise(shape).autodiff().require_grad()
}

/// Up and down: the gradient that comes in is the result itself.
fn there_and_back(bencher: Bencher, f: impl Fn() -> Tensor<2>) {
    bencher.bench_local(|| {
        let y = f();
        let g = y.clone().inner();
        seed(y, g).backward()
    });
}

#[divan::bench(args = [(32, 784, 400), (128, 784, 400), (512, 576, 1536)])]
fn linear(bencher: Bencher, (n, inputs, outputs): (usize, usize, usize)) {
    let (x, w, b) = (leaf([n, inputs]), leaf([inputs * outputs]), leaf([outputs]));
    there_and_back(bencher, || {
        fused_linear(x.clone(), w.clone(), b.clone(), Activation::Relu)
    });
}

#[divan::bench(args = [(32, 3, 32), (32, 32, 32), (16, 64, 64), (8, 128, 128)])]
fn convolutions(bencher: Bencher, (size, inputs, outputs): (usize, usize, usize)) {
    let shape = Shape {
        images: 32,
        height: size,
        width: size,
        inputs,
        outputs,
        kernel: 3,
        stride: 1,
    };
    let x = leaf([32 * size * size, inputs]);
    let (w, b) = (leaf([outputs * inputs * 9]), leaf([outputs]));
    there_and_back(bencher, || {
        convolution(x.clone(), w.clone(), b.clone(), shape, Activation::Relu)
    });
}

#[divan::bench]
fn batch_norms(bencher: Bencher) {
    let (x, scale, shift) = (leaf([32 * 1024, 32]), leaf([32]), leaf([32]));
    let norm = Norm {
        of_these: true,
        eps: 1e-5,
        relu: true,
    };
    there_and_back(bencher, || {
        let (mean, variance) = moments(&x);
        let (mean, variance) = (mean.autodiff(), variance.autodiff());
        batch_norm(
            x.clone(),
            scale.clone(),
            shift.clone(),
            mean,
            variance,
            norm,
        )
    });
}

#[divan::bench]
fn pooling(bencher: Bencher) {
    let x = leaf([32 * 1024, 32]);
    there_and_back(bencher, || max_pool(x.clone(), 32, 32));
}

/// SmolLM2-135M's heads, two texts of 256 tokens.
#[divan::bench]
fn attentions(bencher: Bencher) {
    let (q, k, v) = (
        leaf([2, 256, 9, 64]),
        leaf([2, 256, 3, 64]),
        leaf([2, 256, 3, 64]),
    );
    let hidden = |i: usize| {
        if i % 256 > i / 256 {
            f32::NEG_INFINITY
        } else {
            0.0
        }
    };
    let mask: Vec<f32> = (0..256 * 256).map(hidden).collect();
    let mask = TensorData::new(mask, [1, 1, 256, 256]);
    let mask = Tensor::<4>::from_data(mask, &Device::flex()).autodiff();
    let scores = Scores {
        scale: 0.125,
        cap: None,
    };
    there_and_back(bencher, || {
        attention(q.clone(), k.clone(), v.clone(), mask.clone(), scores).reshape([512, 576])
    });
}

#[divan::bench(args = [false, true])]
fn row_norms(bencher: Bencher, centred: bool) {
    let (x, scale, shift) = (leaf([512, 576]), leaf([576]), leaf([576]));
    let kind = Kind {
        centred,
        eps: 1e-5,
        offset: 0.0,
    };
    there_and_back(bencher, || {
        row_norm(x.clone(), scale.clone(), shift.clone(), kind)
    });
}

#[divan::bench(args = [false, true])]
fn gelus(bencher: Bencher, tanh: bool) {
    let x = leaf([1024, 1024]);
    there_and_back(bencher, || gelu(x.clone(), tanh));
}

#[divan::bench]
fn gates(bencher: Bencher) {
    let (g, u) = (leaf([512, 1536]), leaf([512, 1536]));
    there_and_back(bencher, || swiglu(g.clone(), u.clone()));
}
