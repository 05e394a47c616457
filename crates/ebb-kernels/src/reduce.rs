//! Full sums whose bits do not depend on the number of threads.
//!
//! The engine's own sum over more than four million values splits the work by threads, so its
//! rounding depends on how many there are. Here blocks of a fixed size are summed on their own
//! (in parallel) and their sums added in order.

use rayon::prelude::*;

/// Values a block holds.
const BLOCK: usize = 1 << 16;
const LANES: usize = 16;

/// The sum of `values`, in f64: the same bits on one thread and on many.
pub fn sum(values: &[f32]) -> f64 {
    let blocks: Vec<f64> = values.par_chunks(BLOCK).map(block).collect();
    blocks.iter().sum()
}

fn block(values: &[f32]) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: f64 = chunks.remainder().iter().map(|v| f64::from(*v)).sum();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*v);
        }
    }
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_and_two_give_the_same_bits_and_both_work() {
        let values: Vec<f32> = (0..5_000_000u32)
            .map(|i| (i.wrapping_mul(2654435761) >> 8) as f32 / 1e4 - 700.0)
            .collect();
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("a pool");
            pool.install(|| {
                // The work is the sum's own; the pause lets a second worker take its share even
                // on a machine that is busy with other things.
                let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
                values.par_chunks(BLOCK).for_each(|chunk| {
                    std::hint::black_box(block(chunk));
                    std::thread::sleep(std::time::Duration::from_millis(2));
                    if let (Ok(mut s), Some(i)) = (seen.lock(), rayon::current_thread_index()) {
                        s.insert(i);
                    }
                });
                let workers = seen.lock().map_or(0, |s| s.len());
                (sum(&values).to_bits(), workers)
            })
        };
        let ((one, _), (two, workers)) = (on(1), on(2));
        assert_eq!(one, two);
        assert_eq!(workers, 2, "both threads were busy");
        let exact: f64 = values.iter().map(|v| f64::from(*v)).sum();
        assert!((f64::from_bits(one) - exact).abs() <= 1e-9 * exact.abs());
    }
}
