//! What a run tells whoever watches it.

/// Watches a run. Every method has an empty default.
pub trait Progress {
    /// The run begins (or goes on) at `step` of about `steps`.
    fn begin(&mut self, _experiences: usize, _step: u64, _steps: u64) {}
    /// An experience begins.
    fn experience(&mut self, _index: usize, _name: &str, _steps: u64) {}
    /// A step was taken.
    fn step(&mut self, _step: u64, _loss: f64, _rows: usize) {}
    /// An experience ended: accuracy on each test set, and the mean over those seen.
    fn column(&mut self, _after: usize, _accuracies: &[f64], _mean: f64) {}
    /// Something worth a line.
    fn note(&mut self, _text: &str) {}
    /// The run ended.
    fn end(&mut self) {}
}

/// Nobody watches.
pub struct Silent;

impl Progress for Silent {}
