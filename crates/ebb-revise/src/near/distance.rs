//! Vectors close by: every distance, exactly, in blocks; and how often two records of this
//! dataset lie so close by chance.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use ebb_space::stats::proportion_ci_wilson;
use ebb_space::{Direction, ExampleId, Key, Number, Unit};

use crate::error::Result;

/// Records compared at once: few enough that a block of usual records stays in the cache.
pub(crate) const BLOCK: usize = 64;

/// Pairs that the false-positive rate is estimated on.
const PAIRS: usize = 2048;

/// The queries of a request that have one length.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nearby {
    queries: Vec<(usize, Vec<f32>, f64)>,
}

impl Nearby {
    /// `select` is looked for within `distance` of `vector`.
    pub fn add(&mut self, select: usize, vector: Vec<f32>, distance: f64) {
        self.queries.push((select, vector, distance));
    }

    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// Calls `found(record in the block, selection, distance)` for each record near a query.
    /// Vectors of another length are near nothing.
    pub fn search(&self, block: &[Vec<f32>], mut found: impl FnMut(usize, usize, f64)) {
        for (select, query, within) in &self.queries {
            for (row, vector) in block.iter().enumerate() {
                if vector.len() != query.len() {
                    continue;
                }
                let distance = squared(query, vector).sqrt();
                if distance <= *within {
                    found(row, *select, distance);
                }
            }
        }
    }
}

/// Squared Euclidean distance, summed in f64 over eight lanes.
fn squared(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 8];
    let (a_chunks, a_rest) = a.as_chunks::<8>();
    let (b_chunks, b_rest) = b.as_chunks::<8>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            let difference = f64::from(*a) - f64::from(*b);
            *lane += difference * difference;
        }
    }
    let rest = a_rest
        .iter()
        .zip(b_rest)
        .map(|(a, b)| f64::from(*a) - f64::from(*b));
    lanes.iter().sum::<f64>() + rest.map(|d| d * d).sum::<f64>()
}

/// A sample of the dataset's vectors, keyed by id: the same whatever their order.
#[derive(Debug)]
pub(crate) struct Sample {
    key: Key,
    kept: BinaryHeap<Kept>,
}

#[derive(Debug)]
struct Kept {
    draw: u64,
    vector: Vec<f32>,
}

impl PartialEq for Kept {
    fn eq(&self, other: &Kept) -> bool {
        self.draw == other.draw
    }
}

impl Eq for Kept {}

impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Kept) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kept {
    fn cmp(&self, other: &Kept) -> Ordering {
        self.draw.cmp(&other.draw)
    }
}

impl Sample {
    pub fn new() -> Sample {
        Sample {
            key: Key::new(0, "near by chance"),
            kept: BinaryHeap::new(),
        }
    }

    /// Takes a record in, if its draw is among the smallest.
    pub fn offer(&mut self, id: &ExampleId, vector: &[f32]) {
        let draw = self.key.draw(id.mix());
        if self.kept.len() == 2 * PAIRS {
            if self.kept.peek().is_none_or(|largest| largest.draw <= draw) {
                return;
            }
            self.kept.pop();
        }
        self.kept.push(Kept {
            draw,
            vector: vector.into(),
        });
    }

    /// The share of disjoint pairs of records that lie within `distance`, with Wilson's interval:
    /// how often the threshold calls two records near-duplicates that were drawn without looking.
    /// True near-duplicates in the dataset count in, so that it errs upwards. `None` with fewer
    /// than two records.
    pub fn false_positives(&self, distance: f64) -> Result<Option<Number>> {
        let mut kept: Vec<&Kept> = self.kept.iter().collect();
        kept.sort_by_key(|kept| kept.draw);
        let pairs = kept.chunks_exact(2);
        let near = |pair: &&[&Kept]| {
            let (a, b) = (&pair[0].vector, &pair[1].vector);
            a.len() == b.len() && squared(a, b).sqrt() <= distance
        };
        let n = pairs.len();
        if n == 0 {
            return Ok(None);
        }
        let hits = pairs.filter(near).count();
        let interval = proportion_ci_wilson(hits, n, 0.95)?;
        Ok(Some(Number {
            name: "false_positive_rate".into(),
            value: hits as f64 / n as f64,
            ci_low: Some(interval.low),
            ci_high: Some(interval.high),
            n,
            unit: Unit::Example,
            direction: Direction::Lower,
            protocol: format!(
                "disjoint pairs of records of the dataset, Euclidean distance at most {distance}; \
                 95 % (Wilson)"
            ),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_written_out() {
        let mut random = Key::new(1, "distance").stream();
        for length in [1, 7, 8, 9, 31, 784] {
            let mut vector = || {
                (0..length)
                    .map(|_| random.normal() as f32)
                    .collect::<Vec<f32>>()
            };
            let (a, b) = (vector(), vector());
            let expected: f64 = (0..length)
                .map(|i| (f64::from(a[i]) - f64::from(b[i])).powi(2))
                .sum();
            assert!((squared(&a, &b) - expected).abs() <= 1e-12 * expected);
        }
    }

    /// Points on a line: |x − y| ≤ t for two uniform draws has probability 2t − t².
    #[test]
    fn the_rate_by_chance_is_the_known_one() {
        let mut random = Key::new(2, "line").stream();
        let points: Vec<f32> = (0..20_000).map(|_| random.uniform() as f32).collect();
        let rate = |points: &mut dyn Iterator<Item = (usize, &f32)>| {
            let mut sample = Sample::new();
            for (n, x) in points {
                sample.offer(&ExampleId::of(&n.to_le_bytes(), 0), &[*x]);
            }
            sample.false_positives(0.1).unwrap().unwrap()
        };
        let number = rate(&mut points.iter().enumerate());
        assert_eq!(number.n, PAIRS);
        let (low, high) = (number.ci_low.unwrap(), number.ci_high.unwrap());
        assert!(low < 0.19 && 0.19 < high, "{number:?}");
        assert_eq!(
            rate(&mut points.iter().enumerate().rev()),
            number,
            "order does not matter"
        );
        assert!(Sample::new().false_positives(0.1).unwrap().is_none());
    }
}
