//! The sums of weights, cell by cell, at the temperature last drawn at.
//!
//! A draw needs the largest weight of each cell and the sum of all. They are kept, and made anew
//! only for cells that changed since the last draw (`n / 65,536` exponentials each), or for all
//! of them when the temperature is another.

use super::index::{CELLS, Index};

pub(crate) struct Weights {
    temperature: f64,
    /// Subtracted from every score, so that no weight overflows. It moves in steps, and so only when
    /// the largest score has moved far.
    shift: f64,
    /// The largest score of each cell.
    tops: Vec<f32>,
    /// The largest weight of each cell.
    pub bounds: Vec<f64>,
    sums: Vec<f64>,
    positive: Vec<u32>,
    /// How many weights are above 0, and their sum.
    total: (usize, f64),
    /// The largest weight.
    top: f64,
}

/// How far the largest score is below the shift, at most, in units of the temperature.
const STEP: f64 = 64.0;

impl Weights {
    /// For an index whose list of changes is empty, or about to be handed over whole.
    pub fn new(temperature: f64) -> Weights {
        Weights {
            temperature,
            shift: f64::NAN,
            tops: vec![f32::NEG_INFINITY; CELLS],
            bounds: vec![0.0; CELLS],
            sums: vec![0.0; CELLS],
            positive: vec![0; CELLS],
            total: (0, 0.0),
            top: 0.0,
        }
    }

    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// The weight of a score, up to a factor common to all.
    pub fn weight(&self, score: f32) -> f64 {
        ((f64::from(score) - self.shift) / self.temperature).exp()
    }

    /// Follows the index, whose cells `changed` are no longer what they were.
    pub fn follow(&mut self, index: &Index, changed: impl Iterator<Item = usize> + Clone) {
        if changed.clone().next().is_none() {
            return;
        }
        for cell in changed.clone() {
            let scores = index.cells[cell].scores.iter();
            self.tops[cell] = scores.fold(f32::NEG_INFINITY, |top, &z| top.max(z));
        }
        let top = self
            .tops
            .iter()
            .fold(f32::NEG_INFINITY, |top, &z| top.max(z));
        let step = STEP * self.temperature;
        let shift = (f64::from(top) / step).ceil() * step;
        if shift == self.shift || top == f32::NEG_INFINITY && !self.shift.is_nan() {
            changed.for_each(|cell| self.sum(index, cell));
        } else {
            self.shift = if shift.is_finite() { shift } else { 0.0 };
            (0..CELLS).for_each(|cell| self.sum(index, cell));
        }
        let positive = self.positive.iter().map(|&n| n as usize).sum();
        self.total = (positive, self.sums.iter().sum());
        self.top = self.bounds.iter().copied().fold(0.0, f64::max);
    }

    fn sum(&mut self, index: &Index, cell: usize) {
        let (mut sum, mut positive) = (0.0, 0);
        for &score in &index.cells[cell].scores {
            let weight = self.weight(score);
            sum += weight;
            positive += u32::from(weight > 0.0);
        }
        (self.sums[cell], self.positive[cell]) = (sum, positive);
        self.bounds[cell] = match positive {
            0 => 0.0,
            _ => self.weight(self.tops[cell]),
        };
    }

    /// How many weights are above 0, and their sum.
    pub fn total(&self) -> (usize, f64) {
        self.total
    }

    /// The largest weight.
    pub fn top(&self) -> f64 {
        self.top
    }

    pub fn bytes(&self) -> usize {
        CELLS * (4 + 8 + 8 + 4)
    }
}
