//! One step's rows, new and replayed together.

use crate::language;
use crate::seen::{ClassSets, column};
use burn::tensor::Tensor;
use ebb_data::{Item, Part, Stream};
use ebb_net::{Model, Taps};
use ebb_space::{ExampleId, RowId, Rows, Thresholds};
use std::ops::Range;
use std::sync::Arc;

/// Activations that take the place of what the network finds at a tap: replayed features.
pub struct Entry {
    /// The tap's name.
    pub tap: String,
    /// The first row that enters there; the rows before it come from the input.
    pub first: usize,
    /// Their activations, `[rows − first, everything else]`.
    pub values: Tensor<2>,
}

/// Rows that go through the network in one pass.
pub struct Batch {
    /// `[examples, inputs]`, as the network sees them.
    pub x: Tensor<2>,
    /// What is known of each row: one an example, or of texts one a token, example by example.
    pub rows: Rows,
    /// Who each example is.
    pub ids: Vec<ExampleId>,
    /// Logits stored with replayed rows, aligned (other rows hold 0).
    pub stored_logits: Option<Vec<f32>>,
    /// Features stored with replayed rows, aligned (other rows hold 0).
    pub stored_features: Option<Vec<f32>>,
    /// A detached factor of each row, for terms that are weighted by row.
    pub row_weights: Option<Vec<f32>>,
    /// An additive bias of each row's logits, `[rows, outputs]`, for terms that are shifted by row.
    pub shifts: Option<Vec<f32>>,
    /// The class centre of each row, `[rows, features]`.
    pub prototypes: Option<Vec<f32>>,
    /// The bands that rows' features were in when they were kept: thresholds, and each row's codes.
    pub bands: Option<(Arc<Thresholds>, Vec<u8>)>,
    /// Rows that enter the network behind its input.
    pub entry: Option<Entry>,
}

impl Batch {
    /// What a pass of this batch taps: where rows enter behind the input.
    pub fn taps(&self) -> Taps {
        match &self.entry {
            None => Taps::none(),
            Some(e) => Taps::none().replace_from(&e.tap, e.first, e.values.clone()),
        }
    }

    /// The outputs that compete in row `i`; none: all of them.
    pub fn allowed(&self, i: usize) -> Option<&[bool]> {
        let set = self.rows.class_set.as_ref()?[i];
        Some(&self.rows.class_sets[usize::from(set)])
    }

    /// The examples `range` as a batch from their inputs, without what is stored or set beside
    /// them.
    pub fn part(&self, range: Range<usize>) -> Batch {
        let [examples, width] = self.x.dims();
        // One, but for texts.
        let each = self.rows.len() / examples.max(1);
        let rows = range.start * each..range.end * each;
        let of = |list: &[u16]| list[rows.clone()].to_vec();
        Batch {
            x: self.x.clone().slice([range.clone(), 0..width]),
            rows: Rows {
                ids: self.rows.ids[rows.clone()].to_vec(),
                labels: self.rows.labels[rows.clone()].to_vec(),
                support: of(&self.rows.support),
                supports: self.rows.supports.clone(),
                mask: self.rows.mask.as_ref().map(|m| m[rows.clone()].to_vec()),
                weight: self.rows.weight.as_ref().map(|w| w[rows.clone()].to_vec()),
                class_set: self.rows.class_set.as_deref().map(of),
                class_sets: self.rows.class_sets.clone(),
            },
            ids: self.ids[range].to_vec(),
            stored_logits: None,
            stored_features: None,
            row_weights: None,
            shifts: None,
            prototypes: None,
            bands: None,
            entry: None,
        }
    }
}

/// Collects a batch, support by support.
#[derive(Default)]
pub struct Collect {
    /// Inputs, row-major.
    pub x: Vec<f32>,
    /// Stored logits of the replayed rows, aligned.
    pub stored_logits: Vec<f32>,
    /// Stored features of the replayed rows, aligned.
    pub stored_features: Vec<f32>,
    rows: Rows,
    ids: Vec<ExampleId>,
}

impl Collect {
    /// Starts the support called `name`; rows added from here on belong to it.
    pub fn support(&mut self, name: &str) {
        self.rows.supports.push(name.to_owned());
    }

    /// Adds a row: its id, its output column and its class set.
    pub fn row(&mut self, id: ExampleId, label: u32, class_set: Option<u16>) {
        self.ids.push(id);
        self.rows.ids.push(RowId {
            example: id.mix(),
            position: 0,
        });
        self.rows.labels.push(label);
        self.rows
            .support
            .push(self.rows.supports.len().saturating_sub(1) as u16);
        if let Some(set) = class_set {
            self.rows.class_set.get_or_insert_default().push(set);
        }
    }

    /// Adds training examples of a stream with their inputs, each in its class set of `sets`.
    pub fn items(&mut self, stream: &Stream, items: &[Item], sets: &ClassSets) {
        for item in items {
            let set = sets.of(usize::from(item.task));
            self.row(item.id, column(stream, item), set);
        }
        stream.gather(Part::Train, items, &mut self.x);
    }

    /// Rows so far.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The labels so far.
    pub fn labels(&self) -> &[u32] {
        &self.rows.labels
    }

    /// Gives every row the class set `set`.
    pub fn all_in_set(&mut self, set: u16) {
        self.rows.class_set = Some(vec![set; self.ids.len()]);
    }

    /// The batch. `class_sets` are what the rows' class sets refer to; `outputs` is the width of
    /// the logits.
    pub fn finish(mut self, model: &Model, class_sets: &[Vec<bool>], outputs: usize) -> Batch {
        if model.network().tokens() {
            return language::expand(&self.x, self.rows, self.ids, model);
        }
        let n = self.ids.len();
        if self.rows.class_set.is_some() {
            self.rows.class_sets = class_sets.to_vec();
        }
        let stored_logits = (!self.stored_logits.is_empty()).then(|| {
            self.stored_logits.resize(n * outputs, 0.0);
            self.stored_logits
        });
        let stored_features = (!self.stored_features.is_empty()).then(|| {
            self.stored_features
                .resize(n * model.network().features(), 0.0);
            self.stored_features
        });
        Batch {
            x: model.input(self.x, n),
            rows: self.rows,
            ids: self.ids,
            stored_logits,
            stored_features,
            row_weights: None,
            shifts: None,
            prototypes: None,
            bands: None,
            entry: None,
        }
    }
}
