//! Scores of weights and units by what they do to texts, and the choice of the highest.
//!
//! - [`mean_square_inputs`]: `E[x_c²]` of every channel `c` a module reads.
//! - [`column_norms`]: `‖W_:,c‖₂`, whichever way the matrix lies.
//! - [`taylor`]: `|Σ h_i · ∂L/∂h_i|`, to first order how much the loss would change without unit
//!   `i`: the sum over the tokens of a text, the absolute value, the mean over texts.
//! - [`highest`]: a share of all, the higher first, of equals the one with the lower number.
//!
//! Sums run in f64 over texts in their order, and filling is left out.

use crate::batch::Collect;
use crate::error::Result;
use crate::language;
use crate::objective::remembering;
use crate::oracle::{Oracle, no_such_tap};
use ebb_kernels::{Stored, slices};
use ebb_net::Taps;
use ebb_space::{ExampleId, Weights};

/// Tokens of one pass: what is tapped of them lies in memory at once.
const TOKENS: usize = 1024;

/// `E[x_c²]` at each of `taps`, over every token that is put in of these texts (rows of
/// [`language::signed`] ids). `channels` says how many there are at a tap; a tap with several
/// times as many (the heads of an attention) gives the mean over them.
///
/// # Errors
/// When the network has no such tap.
pub fn mean_square_inputs(
    oracle: &mut Oracle,
    texts: &[f32],
    taps: &[(String, usize)],
) -> Result<Vec<Vec<f64>>> {
    let width = oracle.model.network().inputs();
    let mut sums: Vec<Vec<f64>> = taps.iter().map(|(_, n)| vec![0.0; *n]).collect();
    let mut counts = vec![0usize; taps.len()];
    for part in texts.chunks(width * (TOKENS / width.max(1)).max(1)) {
        let (x, lengths) = language::inputs_of(part, &oracle.model);
        let [rows, positions] = x.dims();
        let read = taps.iter().fold(Taps::none(), |t, (name, _)| t.read(name));
        let mut read = read;
        oracle.model.forward(x, &mut read);
        oracle.meter.forward_rows += (rows * positions) as u64;
        for (((name, channels), sums), count) in taps.iter().zip(&mut sums).zip(&mut counts) {
            let found = read
                .value(name)
                .ok_or_else(|| no_such_tap(name, &oracle.model))?;
            let [_, all] = found.dims();
            let token = all / positions;
            slices::read(found, |values| {
                for (row, length) in values.chunks_exact(all).zip(&lengths) {
                    for x in row[..length * token].chunks_exact(*channels) {
                        let squares = x.iter().map(|x| f64::from(*x).powi(2));
                        sums.iter_mut().zip(squares).for_each(|(sum, s)| *sum += s);
                        *count += 1;
                    }
                }
            });
        }
    }
    for (sums, count) in sums.iter_mut().zip(counts) {
        sums.iter_mut().for_each(|sum| *sum /= count.max(1) as f64);
    }
    Ok(sums)
}

/// `‖W_:,c‖₂` of a matrix that reads `inputs` channels.
pub fn column_norms(weight: &[f32], inputs: usize, stored: Stored) -> Vec<f64> {
    let mut squares = vec![0.0; inputs];
    let outputs = weight.len() / inputs.max(1);
    for (i, w) in weight.iter().enumerate() {
        squares[column(i, inputs, outputs, stored)] += f64::from(*w).powi(2);
    }
    squares.iter_mut().for_each(|s| *s = s.sqrt());
    squares
}

/// The input channel that element `i` of a matrix reads.
pub fn column(i: usize, inputs: usize, outputs: usize, stored: Stored) -> usize {
    match stored {
        Stored::OutIn => i % inputs,
        Stored::InOut => i / outputs,
    }
}

/// `E |Σ_tokens h_i · ∂L/∂h_i|` of the units at each of `taps`, where `L` is the sum of the losses
/// of a text's learnt tokens.
///
/// # Errors
/// When a pass fails, or the network has no such tap.
pub fn taylor(oracle: &mut Oracle, texts: &[f32], taps: &[String]) -> Result<Vec<Vec<f64>>> {
    let width = oracle.model.network().inputs();
    let outputs = oracle.model.network().outputs();
    let mut sums: Vec<Vec<f64>> = vec![Vec::new(); taps.len()];
    let mut scratch = Weights::zeros(oracle.model.layout());
    let texts_in_all = texts.len() / width.max(1);
    for part in texts.chunks(width * (TOKENS / width.max(1)).max(1)) {
        let mut collect = Collect::default();
        collect.support("new");
        for row in 0..part.len() / width {
            // Who a text is matters to draws alone, and there are none.
            collect.row(ExampleId::of(&row.to_le_bytes(), 0), 0, None);
        }
        collect.x.extend_from_slice(part);
        let batch = collect.finish(&oracle.model, &[], outputs);
        let [rows, positions] = batch.x.dims();
        // The mean over learnt tokens becomes their sum.
        let learnt = batch.rows.mask.iter().flatten().filter(|m| **m).count() as f64;
        let found = oracle.tapped_gradients(&remembering(), &batch, taps, &mut scratch)?;
        for (sums, (values, gradients)) in sums.iter_mut().zip(found) {
            let units = values.len() / (rows * positions).max(1);
            sums.resize(units, 0.0);
            let texts = values.chunks_exact(positions * units);
            for (h, g) in texts.zip(gradients.chunks_exact(positions * units)) {
                let mut of_text = vec![0.0; units];
                for (h, g) in h.chunks_exact(units).zip(g.chunks_exact(units)) {
                    let products = h.iter().zip(g).map(|(h, g)| f64::from(*h) * f64::from(*g));
                    of_text
                        .iter_mut()
                        .zip(products)
                        .for_each(|(sum, p)| *sum += p);
                }
                let changes = of_text.into_iter().map(|p| (learnt * p).abs());
                sums.iter_mut().zip(changes).for_each(|(sum, p)| *sum += p);
            }
        }
    }
    for sum in sums.iter_mut().flatten() {
        *sum /= texts_in_all.max(1) as f64;
    }
    Ok(sums)
}

/// Which of these are among the highest `⌊share · n⌋`.
pub fn highest(scores: &[f64], share: f64) -> Vec<bool> {
    let count = (share * scores.len() as f64).floor() as usize;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    let mut chosen = vec![false; scores.len()];
    for i in order.into_iter().take(count) {
        chosen[i] = true;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_either_storage_and_the_highest_of_equals() {
        // W = [[3, 0, 1], [4, 2, 1]], rows out.
        let (out_in, in_out) = (
            [3.0, 0.0, 1.0, 4.0, 2.0, 1.0],
            [3.0, 4.0, 0.0, 2.0, 1.0, 1.0],
        );
        let want = [5.0, 2.0, 2f64.sqrt()];
        assert_eq!(column_norms(&out_in, 3, Stored::OutIn), want);
        assert_eq!(column_norms(&in_out, 3, Stored::InOut), want);
        assert_eq!(
            highest(&[1.0, 2.0, 1.0, 1.0, 0.0], 0.5),
            [true, true, false, false, false]
        );
        assert_eq!(highest(&[1.0; 3], 1.0), [true; 3]);
        assert_eq!(highest(&[], 0.5), [false; 0]);
    }
}
