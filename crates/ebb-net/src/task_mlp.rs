//! A perceptron that every task sees in its own way.
//!
//! Each task has biases and a head of its own, and reads the shared weights of the hidden layers
//! through something of its own: a relevance map over them (card S039), or weights of the shared
//! rank-1 factors (card S099). What a task reads can be frozen bit for bit while others go on.
//!
//! Tasks are the heads of a task-incremental stream. On other streams `tasks` cuts the outputs into
//! equal blocks, one a task, and a row's answer is the most confident block's: every block's
//! outputs are log-probabilities within the block, which changes no cross-entropy over a block.
//!
//! Which task is under way is the buffer `task`: a training pass computes that one alone and
//! leaves the other blocks 0; at −1, and in evaluation, all are computed.
//!
//! Paths: `layers.{l}.weight` and `layers.{l}.relevance.{t}`, or `layers.{l}.left` `[rank, out]`,
//! `layers.{l}.right` `[rank, in]` and `layers.{l}.share.{t}`; `layers.{l}.bias.{t}`,
//! `heads.{t}.weight`, `heads.{t}.bias`. Taps: `input`, `head.out`.

use crate::init::Init;
use crate::network::{Mode, Network, Output, Pass};
use burn::tensor::{Tensor, activation};
use ebb_kernels::{Activation, fused_linear};
use ebb_space::{Key, Layout, Weights};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How a task reads the shared weights of a hidden layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum TaskWeights {
    /// `σ(β(A_t − ½)) ⊙ W`, in evaluation rounded to 0 or 1.
    Relevance {
        /// `β`, 100 by default.
        #[serde(default = "sharpness")]
        sharpness: f64,
    },
    /// `Uᵀ diag(s_t) V` over the first `first + t · step` rank-1 factors.
    Factors {
        /// Factors of the first task, 11 by default.
        #[serde(default = "first_factors")]
        first: usize,
        /// Factors each later task adds, 1 by default.
        #[serde(default = "one_factor")]
        step: usize,
        /// Whether a task reads the factors of earlier ones.
        #[serde(default = "yes", skip_serializing_if = "is_yes")]
        reuse: bool,
    },
}

fn sharpness() -> f64 {
    100.0
}

fn first_factors() -> usize {
    11
}

fn one_factor() -> usize {
    1
}

fn yes() -> bool {
    true
}

fn is_yes(yes: &bool) -> bool {
    *yes
}

impl Default for TaskWeights {
    fn default() -> Self {
        TaskWeights::Relevance {
            sharpness: sharpness(),
        }
    }
}

/// The perceptron.
#[derive(Debug)]
pub struct TaskMlp {
    layout: Arc<Layout>,
    buffers: Arc<Layout>,
    widths: Vec<usize>,
    weights: TaskWeights,
    tasks: usize,
    /// Outputs of a task.
    outputs: usize,
    init: Init,
}

/// The buffer that says which task is under way.
pub const TASK: &str = "task";

impl TaskMlp {
    /// `widths` = inputs and hidden layers; `outputs` of each of `tasks` tasks.
    pub fn new(
        widths: &[usize],
        tasks: usize,
        outputs: usize,
        weights: TaskWeights,
        init: Init,
    ) -> crate::Result<Self> {
        let wrong = |reason: String| Err(crate::Error::Spec { reason });
        if widths.len() < 2 || widths.contains(&0) || outputs == 0 || tasks == 0 {
            return wrong(format!(
                "it needs a hidden layer, and a unit in every one; the widths are {widths:?}"
            ));
        }
        match weights {
            TaskWeights::Relevance { sharpness } if !(sharpness.is_finite() && sharpness > 0.0) => {
                return wrong(format!("`sharpness` must be above 0, it is {sharpness}"));
            }
            TaskWeights::Factors { first, step, .. } => {
                let rank = first + (tasks - 1) * step;
                let room = widths.iter().copied().min().unwrap_or(0);
                if first == 0 || step == 0 || rank > room {
                    return wrong(format!(
                        "{tasks} tasks need {rank} orthogonal factors, and the narrowest layer \
                         has room for {room}; `first` and `step` are at least 1"
                    ));
                }
            }
            TaskWeights::Relevance { .. } => {}
        }
        let buffers = Layout::new([(TASK.to_owned(), vec![1])])?;
        let mut mlp = Self {
            layout: buffers.clone(),
            buffers,
            widths: widths.to_vec(),
            weights,
            tasks,
            outputs,
            init,
        };
        mlp.layout = Layout::new(mlp.entries())?;
        Ok(mlp)
    }

    /// The factors that task `t` reads.
    pub fn factors(&self, t: usize) -> std::ops::Range<usize> {
        match self.weights {
            TaskWeights::Relevance { .. } => 0..0,
            TaskWeights::Factors { first, step, reuse } => {
                let own = if t == 0 { 0 } else { first + (t - 1) * step };
                let end = first + t * step;
                if reuse { 0..end } else { own..end }
            }
        }
    }

    fn layers(&self) -> usize {
        self.widths.len() - 1
    }

    /// Paths and shapes, a layer after the other, shared ones first, then those of each task.
    fn entries(&self) -> Vec<(String, Vec<usize>)> {
        let mut entries = Vec::new();
        for (l, w) in self.widths.windows(2).enumerate() {
            let mut add = |name: &str, shape: Vec<usize>| {
                entries.push((format!("layers.{l}.{name}"), shape));
            };
            match self.weights {
                TaskWeights::Relevance { .. } => add("weight", vec![w[1], w[0]]),
                TaskWeights::Factors { first, step, .. } => {
                    let rank = first + (self.tasks - 1) * step;
                    add("left", vec![rank, w[1]]);
                    add("right", vec![rank, w[0]]);
                }
            }
            for t in 0..self.tasks {
                match self.weights {
                    TaskWeights::Relevance { .. } => {
                        add(&format!("relevance.{t}"), vec![w[1], w[0]]);
                    }
                    TaskWeights::Factors { .. } => {
                        add(&format!("share.{t}"), vec![self.factors(t).len()]);
                    }
                }
                add(&format!("bias.{t}"), vec![w[1]]);
            }
        }
        let features = self.widths[self.layers()];
        for t in 0..self.tasks {
            entries.push((format!("heads.{t}.weight"), vec![self.outputs, features]));
            entries.push((format!("heads.{t}.bias"), vec![self.outputs]));
        }
        entries
    }

    /// Parameters of a layer that all tasks share.
    fn shared(&self) -> usize {
        match self.weights {
            TaskWeights::Relevance { .. } => 1,
            TaskWeights::Factors { .. } => 2,
        }
    }

    /// `W_t h + b_t` before the activation, which follows.
    fn layer(&self, l: usize, t: usize, h: Tensor<2>, pass: &Pass) -> Tensor<2> {
        let (inputs, outputs) = (self.widths[l], self.widths[l + 1]);
        let of_layer = self.shared() + 2 * self.tasks;
        let own = l * of_layer + self.shared() + 2 * t;
        let (read, bias) = (pass.param(own), pass.param(own + 1));
        match self.weights {
            TaskWeights::Relevance { sharpness } => {
                let far = (read - 0.5) * sharpness;
                let relevance = match pass.mode {
                    Mode::Train { .. } => activation::sigmoid(far),
                    // Above one half: 1 exactly; else 0 exactly.
                    Mode::Eval => far.greater_elem(0.0).float(),
                };
                let w = pass.param(l * of_layer) * relevance;
                fused_linear(h, w, bias, Activation::Relu)
            }
            TaskWeights::Factors { .. } => {
                let rows = self.factors(t);
                let cut = |at: usize, width: usize| {
                    let flat = rows.start * width..rows.end * width;
                    pass.param(l * of_layer + at)
                        .slice([flat])
                        .reshape([rows.len(), width])
                };
                let (left, right) = (cut(0, outputs), cut(1, inputs));
                let along = h.matmul(right.transpose()) * read.reshape([1, rows.len()]);
                activation::relu(along.matmul(left) + bias.reshape([1, outputs]))
            }
        }
    }

    /// The features and the block of outputs of task `t`.
    fn path(&self, t: usize, x: Tensor<2>, pass: &Pass) -> (Tensor<2>, Tensor<2>) {
        let mut h = x;
        for l in 0..self.layers() {
            h = self.layer(l, t, h, pass);
        }
        let head = self.layers() * (self.shared() + 2 * self.tasks) + 2 * t;
        let (w, b) = (pass.param(head), pass.param(head + 1));
        let z = fused_linear(h.clone(), w, b, Activation::Identity);
        (h, activation::log_softmax(z, 1))
    }
}

impl Network for TaskMlp {
    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn buffers(&self) -> &Arc<Layout> {
        &self.buffers
    }

    fn initialise(&self, key: Key) -> (Weights, Weights) {
        let mut weights = Weights::zeros(&self.layout);
        for (l, w) in self.widths.windows(2).enumerate() {
            let path = |name: &str| format!("layers.{l}.{name}");
            match self.weights {
                TaskWeights::Relevance { .. } => {
                    self.init
                        .fill(&mut weights, key, &path("weight"), None, w[0], w[1]);
                    for t in 0..self.tasks {
                        let path = path(&format!("relevance.{t}"));
                        let mut stream = key.sub(&path).stream();
                        let values = weights.get_mut(&path).unwrap_or_default();
                        values.iter_mut().for_each(|v| *v = stream.uniform() as f32);
                    }
                }
                TaskWeights::Factors { first, step, .. } => {
                    for (name, width) in [("left", w[1]), ("right", w[0])] {
                        let path = path(name);
                        if let Some(values) = weights.get_mut(&path) {
                            orthonormal(values, width, key.sub(&path));
                        }
                    }
                    for t in 0..self.tasks {
                        let own = if t == 0 { first } else { step };
                        let path = path(&format!("share.{t}"));
                        let share = weights.get_mut(&path).unwrap_or_default();
                        let old = share.len() - own;
                        share[old..].fill(1.0);
                    }
                }
            }
        }
        let features = self.widths[self.layers()];
        for t in 0..self.tasks {
            let (w, b) = (format!("heads.{t}.weight"), format!("heads.{t}.bias"));
            self.init
                .fill(&mut weights, key, &w, Some(&b), features, self.outputs);
        }
        let mut buffers = Weights::zeros(&self.buffers);
        buffers.fill(-1.0);
        (weights, buffers)
    }

    fn forward(&self, x: Tensor<2>, pass: &mut Pass) -> Output {
        let x = pass.taps.at("input", x);
        let task = pass.buffers.as_slice()[0];
        let active = match pass.mode {
            Mode::Train { .. } if task >= 0.0 => Some(task as usize),
            _ => None,
        };
        let [rows, _] = x.dims();
        let device = x.device().without_autodiff();
        let mut blocks = Vec::with_capacity(self.tasks);
        let mut features = x.clone();
        for t in 0..self.tasks {
            if active.is_some_and(|a| a != t) {
                // No class of another task may win; 0 would be certainty to a log-probability.
                blocks.push(Tensor::full([rows, self.outputs], -1e4, &device));
                continue;
            }
            let (h, z) = self.path(t, x.clone(), pass);
            blocks.push(z);
            // The features of the task under way, or of the first: what a term may look at.
            if t == active.unwrap_or(0) {
                features = h;
            }
        }
        let logits = pass.taps.at("head.out", Tensor::cat(blocks, 1));
        Output { logits, features }
    }

    fn inputs(&self) -> usize {
        self.widths[0]
    }

    fn outputs(&self) -> usize {
        self.tasks * self.outputs
    }

    fn features(&self) -> usize {
        self.widths[self.layers()]
    }

    fn taps(&self) -> Vec<String> {
        ["input", "head.out"].map(str::to_owned).into()
    }
}

/// Fills `rows` (each of `width` values) with orthonormal rows: keyed normal draws, each freed of
/// those before it, twice.
fn orthonormal(rows: &mut [f32], width: usize, key: Key) {
    let mut stream = key.stream();
    let mut basis: Vec<Vec<f64>> = Vec::new();
    for row in rows.chunks_exact_mut(width) {
        let mut v: Vec<f64> = (0..width).map(|_| stream.normal()).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for _ in 0..2 {
            for b in &basis {
                let along = dot(b, &v);
                v.iter_mut().zip(b).for_each(|(v, b)| *v -= along * b);
            }
        }
        let length = dot(&v, &v).sqrt();
        v.iter_mut().for_each(|v| *v /= length);
        row.iter_mut().zip(&v).for_each(|(r, v)| *r = *v as f32);
        basis.push(v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Model, NetworkSpec, Taps};
    use burn::tensor::Device;

    fn model(weights: &str, tasks: usize) -> Model {
        let text = format!("kind = 'task-mlp'\nhidden = [5, 4]\nweights = {weights}");
        let spec: NetworkSpec = toml::from_str(&text).expect("a network");
        let network = spec.build_heads([1, 2, 3], 2, tasks).expect("it fits");
        Model::new(network, Key::new(2, "tasks"), &Device::flex())
    }

    fn input() -> Vec<f32> {
        let mut stream = Key::new(4, "x").stream();
        (0..12).map(|_| stream.normal() as f32).collect()
    }

    fn logits(m: &mut Model) -> Vec<f32> {
        let x = m.input(input(), 2);
        ebb_kernels::slices::to_vec(&m.forward(x, &mut Taps::none()).logits)
    }

    /// The forward pass of task `t` written out in f64, given its effective weights.
    fn by_hand(
        m: &Model,
        t: usize,
        weight: impl Fn(&Weights, usize, usize, usize) -> f64,
    ) -> Vec<f64> {
        let w = m.weights();
        let get = |path: String, i: usize| f64::from(w.get(&path).expect("a path")[i]);
        let widths = [6, 5, 4];
        let mut answers = Vec::new();
        for row in input().chunks(6) {
            let mut h: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
            for l in 0..2 {
                let unit = |o: usize| {
                    let sum: f64 = (0..widths[l]).map(|i| weight(&w, l, o, i) * h[i]).sum();
                    (sum + get(format!("layers.{l}.bias.{t}"), o)).max(0.0)
                };
                h = (0..widths[l + 1]).map(unit).collect();
            }
            let z: Vec<f64> = (0..2)
                .map(|o| {
                    let at = |i: usize| get(format!("heads.{t}.weight"), 4 * o + i);
                    let sum: f64 = (0..4).map(|i| at(i) * h[i]).sum();
                    sum + get(format!("heads.{t}.bias"), o)
                })
                .collect();
            let total = z.iter().map(|z| z.exp()).sum::<f64>().ln();
            answers.extend(z.iter().map(|z| z - total));
        }
        answers
    }

    fn agree(found: &[f32], t: usize, want: &[f64]) {
        for row in 0..2 {
            for o in 0..2 {
                let (f, w) = (f64::from(found[6 * row + 2 * t + o]), want[2 * row + o]);
                assert!((f - w).abs() < 1e-5, "task {t}: {f} {w}");
            }
        }
    }

    #[test]
    fn every_task_answers_with_its_own_relevant_weights() {
        let mut m = model("{ kind = 'relevance' }", 3);
        let found = logits(&mut m);
        for t in 0..3 {
            let want = by_hand(&m, t, |w, l, o, i| {
                let inputs = [6, 5][l];
                let at =
                    |name: &str| w.get(&format!("layers.{l}.{name}")).expect("it")[o * inputs + i];
                let relevant = at(&format!("relevance.{t}")) > 0.5;
                f64::from(u8::from(relevant)) * f64::from(at("weight"))
            });
            agree(&found, t, &want);
        }
    }

    #[test]
    fn every_task_answers_with_its_own_sum_of_factors() {
        for reuse in [true, false] {
            let mut m = model(
                &format!("{{ kind = 'factors', first = 2, reuse = {reuse} }}"),
                3,
            );
            // Shares other than 0 and 1.
            let mut w = m.weights();
            let mut stream = Key::new(9, "share").stream();
            for l in 0..2 {
                for t in 0..3 {
                    let share = w.get_mut(&format!("layers.{l}.share.{t}")).expect("it");
                    assert_eq!(share.len(), if reuse { 2 + t } else { [2, 1, 1][t] });
                    share.iter_mut().for_each(|s| *s = stream.normal() as f32);
                }
            }
            m.set_weights(&w).expect("its own");
            let found = logits(&mut m);
            for t in 0..3 {
                let want = by_hand(&m, t, |w, l, o, i| {
                    let get = |name: &str| w.get(&format!("layers.{l}.{name}")).expect("it");
                    let (left, right) = (get("left"), get("right"));
                    let share = get(&format!("share.{t}"));
                    let from = 2 + t - share.len();
                    let one = |k: usize| {
                        let (k, s) = (k + from, share[k]);
                        f64::from(s)
                            * f64::from(left[k * [5, 4][l] + o])
                            * f64::from(right[k * [6, 5][l] + i])
                    };
                    (0..share.len()).map(one).sum()
                });
                agree(&found, t, &want);
            }
        }
    }

    #[test]
    fn a_training_pass_computes_the_task_under_way() {
        let mut m = model("{ kind = 'factors', first = 2 }", 3);
        let whole = logits(&mut m);
        let mut task = m.buffers().clone();
        task.fill(1.0);
        m.set_buffers(task).expect("its own");
        let x = m.input(input(), 2);
        let mode = Mode::Train {
            key: Key::new(0, "none"),
            rows: &[0, 1],
        };
        let leaves = m.leaves(None);
        let out = m.forward_tracked(&leaves, x, mode, &mut Taps::none());
        let found = ebb_kernels::slices::to_vec(&out.logits);
        for (i, (f, w)) in found.iter().zip(whole).enumerate() {
            let own = (2..4).contains(&(i % 6));
            assert!((f - if own { w } else { -1e4 }).abs() < 1e-6);
        }
    }

    #[test]
    fn tasks_may_be_blocks_of_one_head_and_what_does_not_fit_is_refused() {
        let build = |text: &str, outputs: usize| {
            let spec: NetworkSpec = toml::from_str(text).expect("a network");
            spec.build([1, 2, 3], outputs)
        };
        let five = "kind = 'task-mlp'\nhidden = [5]\ntasks = 5";
        assert_eq!(build(five, 10).expect("two each").outputs(), 10);
        let e = build(five, 9).expect_err("not evenly").to_string();
        assert!(e.contains("5"), "{e}");
        let wide =
            "kind = 'task-mlp'\nhidden = [5]\ntasks = 2\nweights = { kind = 'factors', first = 5 }";
        let e = build(wide, 4).expect_err("no room").to_string();
        assert!(e.contains("6 orthogonal factors"), "{e}");
    }
}
