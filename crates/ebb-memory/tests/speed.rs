//! Prints what a step pays for its memory: `cargo test --release -p ebb-memory --test speed --
//! --nocapture`. Nothing is asserted about time.

use std::hint::black_box;
use std::time::Instant;

use ebb_memory::{Config, Form, Keep, Memory, Meta, Offer, Payload, Records, Select, Values};
use ebb_space::{ExampleId, Key};

/// Microseconds of one call: the median of blocks, so that a busy machine does not count.
fn micros(mut call: impl FnMut(u64)) -> f64 {
    let mut blocks: Vec<f64> = (0..15u64)
        .map(|block| {
            let start = Instant::now();
            (0..40).for_each(|i| call(block * 40 + i));
            start.elapsed().as_secs_f64() * 1e6 / 40.0
        })
        .collect();
    blocks.sort_by(f64::total_cmp);
    blocks[7]
}

#[test]
fn draws_offers_and_gathers() {
    let form = Form {
        input: 784,
        payload: Payload::F32,
        logits: Some(10),
        features: None,
    };
    println!(
        "{:>8} {:>6} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "records", "size", "uniform", "cycle", "weighted", "offer", "gather"
    );
    for (capacity, size) in [
        (500, 10),
        (500, 128),
        (5000, 10),
        (5000, 128),
        (50_000, 128),
    ] {
        let config = Config {
            capacity,
            keep: Keep::Reservoir,
            form,
        };
        let mut memory = Memory::new(config, Key::new(0, "speed")).unwrap();
        let (x, logits, labels) = (vec![0.5; 784 * size], vec![0.1; 10 * size], vec![0; size]);
        let rows = Records {
            inputs: Values::F32(&x),
            logits: Some(&logits),
            features: None,
        };
        let mut next = 0u64;
        let mut ids = vec![ExampleId::of(b"", 0); size];
        let mut offer = |memory: &mut Memory| {
            ids.iter_mut().for_each(|id| {
                next += 1;
                id.base[..8].copy_from_slice(&next.to_le_bytes());
            });
            memory
                .offer(
                    &Offer {
                        ids: &ids,
                        labels: &labels,
                        experience: 0,
                        task: 0,
                        step: 0,
                    },
                    &rows,
                )
                .unwrap()
        };
        while memory.seen() < 2 * capacity as u64 {
            offer(&mut memory);
        }
        let uniform =
            micros(|step| _ = black_box(memory.draw("replay:a", Select::Uniform, size, step)));
        let cycle = micros(|step| {
            _ = black_box(memory.draw("replay:a", Select::Cycle { since: 0 }, size, step))
        });
        let weight = |meta: &Meta| 1.0 + f64::from(meta.label);
        let weighted = micros(|step| {
            _ = black_box(memory.draw("replay:a", Select::WeightedBy(&weight), size, step))
        });
        let mut out = Vec::new();
        let draw = memory.draw("replay:a", Select::Uniform, size, 0).unwrap();
        let gather = micros(|_| {
            out.clear();
            memory
                .gather(&draw.slots, None, black_box(&mut out))
                .unwrap();
        });
        let offered = micros(|_| _ = offer(&mut memory));
        println!(
            "{capacity:>8} {size:>6} {uniform:>9.2} {cycle:>9.2} {weighted:>9.2} {offered:>9.2} {gather:>9.2}  microseconds"
        );
    }
}
