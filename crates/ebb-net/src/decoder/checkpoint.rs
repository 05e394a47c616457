//! Gradients that keep the inputs of blocks alone.
//!
//! A block is computed without a graph on the way up and again, with one, on the way down. With
//! `L` blocks the activations of one block and `L` streams are held in the place of those of `L`
//! blocks; it costs a second forward pass through them (about a third more time).

use super::{Decoder, Shared};
use crate::network::{Mode, Output, Pass, Seed, Seeded};
use crate::params::Params;
use crate::taps::Taps;
use burn::tensor::{Gradients, Tensor};
use ebb_kernels::seed as root;
use ebb_space::Weights;

/// As [`Network::checkpointed`](crate::Network::checkpointed).
pub(super) fn pass(
    decoder: &Decoder,
    x: Tensor<2>,
    params: &Params,
    seed: Seed,
    collect: &mut dyn FnMut(usize, Tensor<1>),
) -> Seeded {
    let [rows, length] = x.dims();
    let device = x.device().without_autodiff();
    let positions: Vec<u32> = (0..length as u32).collect();
    let at = (positions.as_slice(), 1);
    let mut shared = Shared::default();
    let mut buffers = Weights::zeros(&decoder.buffers);
    let mut streams = Vec::with_capacity(decoder.blocks.len() + 1);

    // Up, without a graph.
    {
        let mut taps = Taps::none();
        let mut pass = evaluating(params, &mut buffers, &mut taps);
        let mut stream = decoder.embed(x.clone(), &positions, &mut pass);
        for (block, is) in decoder.blocks.iter().zip(&decoder.config.blocks) {
            let (mask, rotation) = shared.of(is, length, at, None, &device);
            streams.push(stream.clone());
            stream = block.forward(stream, rotation, mask, None, &mut pass);
        }
        streams.push(stream);
    }

    // Down: what is behind the blocks, the blocks, what is before them.
    let mut down: Option<Tensor<3>> = None;
    if let Some(stream) = streams.pop() {
        let leaves = params.tracked();
        let input = stream.autodiff().require_grad();
        let mut taps = Taps::none();
        let mut pass = evaluating(&leaves, &mut buffers, &mut taps);
        let features = decoder.norm.forward(input.clone(), &mut pass);
        let logits = decoder.head.forward(features.clone(), &mut pass);
        let c = &decoder.config;
        let output = Output {
            logits: decoder.cap(logits.reshape([rows * length, c.vocabulary])),
            features: features.reshape([rows * length, c.width]),
        };
        let (by_logits, by_features) = seed(&output)?;
        let mut end = root(output.logits, by_logits);
        if let Some(by_features) = by_features {
            end = end + root(output.features, by_features);
        }
        let mut gradients = end.backward();
        collected(&leaves, &mut gradients, collect);
        down = input.grad_remove(&mut gradients);
    }
    let blocks = decoder.blocks.iter().zip(&decoder.config.blocks);
    for ((block, is), stream) in blocks.zip(streams).rev() {
        let Some(by_output) = down.take() else { break };
        let (mask, rotation) = shared.of(is, length, at, None, &device);
        let leaves = params.tracked();
        let input = stream.autodiff().require_grad();
        let mut taps = Taps::none();
        let mut pass = evaluating(&leaves, &mut buffers, &mut taps);
        let output = block.forward(input.clone(), rotation, mask, None, &mut pass);
        let mut gradients = seeded(output, by_output).backward();
        collected(&leaves, &mut gradients, collect);
        down = input.grad_remove(&mut gradients);
    }
    let before = [Some(decoder.embedding), decoder.position_table];
    let trained = before.into_iter().flatten().any(|i| params.trains(i));
    if let Some(by_output) = down.filter(|_| trained) {
        let leaves = params.tracked();
        let mut taps = Taps::none();
        let mut pass = evaluating(&leaves, &mut buffers, &mut taps);
        let output = decoder.embed(x, &positions, &mut pass);
        let mut gradients = seeded(output, by_output).backward();
        collected(&leaves, &mut gradients, collect);
    }
    Ok(())
}

fn evaluating<'a>(params: &'a Params, buffers: &'a mut Weights, taps: &'a mut Taps) -> Pass<'a> {
    Pass {
        params,
        buffers,
        taps,
        mode: Mode::Eval,
    }
}

fn seeded(output: Tensor<3>, gradient: Tensor<3>) -> Tensor<1> {
    let [rows, length, width] = output.dims();
    let flat = [rows * length, width];
    root(output.reshape(flat), gradient.reshape(flat))
}

fn collected(
    leaves: &Params,
    gradients: &mut Gradients,
    collect: &mut dyn FnMut(usize, Tensor<1>),
) {
    for (i, leaf) in leaves.trained().into_iter().enumerate() {
        if let Some(gradient) = leaf.grad_remove(gradients) {
            collect(i, gradient);
        }
    }
}
