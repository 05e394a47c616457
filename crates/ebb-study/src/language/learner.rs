//! A small decoder that is trained step by step on whatever it is given.

use crate::error::Result;
use burn::tensor::Device;
use ebb_hub::Tokenizer;
use ebb_learn::batch::Collect;
use ebb_learn::language::{outcomes, signed};
use ebb_learn::methods::embedding_reset::{embedding, redraw};
use ebb_learn::objective::remembering;
use ebb_learn::optimizer::{Optimizer, OptimizerKind, OptimizerSettings};
use ebb_learn::oracle::Oracle;
use ebb_learn::places::places;
use ebb_lm::LanguageModel;
use ebb_net::decoder::{Choice, Generation, Prompt};
use ebb_net::{Decoder, NetworkSpec};
use ebb_space::{ExampleId, Key, Mask, Weights};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// The network of a study, from fresh weights, and how it is trained: AdamW at a constant rate
/// behind a warm-up, gradients cut to length 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Small {
    /// Width of the residual stream.
    pub width: usize,
    /// Blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Steps of warm-up.
    pub warmup: u64,
    /// Texts a step.
    pub batch: usize,
    /// Whether the head is the embedding.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub tied: bool,
}

fn yes() -> bool {
    true
}

fn is_yes(yes: &bool) -> bool {
    *yes
}

/// A text as tokens, all of which are predicted but the first `given`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub id: ExampleId,
    pub tokens: Vec<u32>,
    pub given: usize,
}

/// The decoder and its optimizer. A clone goes its own way.
pub(super) struct Learner {
    decoder: Arc<Decoder>,
    oracle: Oracle,
    optimizer: Optimizer,
    gradient: Weights,
    spec: Small,
    length: usize,
    steps: u64,
    /// What stays as it is, and how that is.
    held: Option<(Mask, Weights)>,
}

impl Learner {
    /// Fresh weights for texts of up to `length` tokens.
    pub fn new(spec: &Small, tokenizer: &Tokenizer, length: usize, seed: u64) -> Result<Self> {
        let network = NetworkSpec::Decoder {
            width: spec.width,
            layers: spec.layers,
            heads: spec.heads,
            inner: None,
            tied: spec.tied,
        };
        let config = network
            .decoder_config(tokenizer.len(), length)
            .unwrap_or_default();
        let key = Key::new(seed, "language study");
        let fresh = LanguageModel::fresh(
            config,
            tokenizer.clone(),
            length,
            key.sub("initialise"),
            &Device::flex(),
        );
        let model = fresh.map_err(ebb_learn::Error::from)?;
        Ok(Self::of(model, spec, length, seed))
    }

    /// A model that is there already, by its name, for texts of up to `length` tokens; with its
    /// tokenizer. Of `spec` it has the rates and the batch alone.
    pub fn pretrained(
        name: &str,
        spec: &Small,
        length: usize,
        seed: u64,
        data_dir: &Path,
    ) -> Result<(Self, Tokenizer)> {
        let open = || LanguageModel::open(LanguageModel::find(name, data_dir)?);
        let model = open().and_then(|model| model.with_positions(length));
        let model = model.map_err(ebb_learn::Error::from)?;
        let tokenizer = model.tokenizer.clone();
        Ok((Self::of(model, spec, length, seed), tokenizer))
    }

    fn of(model: LanguageModel, spec: &Small, length: usize, seed: u64) -> Self {
        let key = Key::new(seed, "language study");
        Self {
            decoder: model.decoder,
            optimizer: Optimizer::new(adamw(0.0), model.model.layout()),
            gradient: Weights::zeros(model.model.layout()),
            oracle: Oracle::new(model.model, key),
            spec: spec.clone(),
            length,
            steps: 0,
            held: None,
        }
    }

    /// The same weights and moments, to go on from twice.
    pub fn branch(&self) -> Self {
        Self {
            decoder: self.decoder.clone(),
            oracle: Oracle::new(self.oracle.model.clone(), self.oracle.key),
            optimizer: self.optimizer.clone(),
            gradient: self.gradient.clone(),
            spec: self.spec.clone(),
            length: self.length,
            steps: self.steps,
            held: self.held.clone(),
        }
    }

    /// Learns at another rate from now on; returns the one before.
    pub fn rate(&mut self, lr: f64) -> f64 {
        std::mem::replace(&mut self.spec.lr, lr)
    }

    /// Begins another stage: fresh moments, a rate and its warm-up anew, this weight decay.
    pub fn stage(&mut self, lr: f64, weight_decay: f64) {
        self.spec.lr = lr;
        self.steps = 0;
        self.optimizer = Optimizer::new(adamw(weight_decay), self.oracle.model.layout());
    }

    /// Holds what `mask` names as it is now, bit for bit, and nothing else.
    pub fn hold(&mut self, mask: Option<Mask>) {
        self.held = mask.map(|mask| (mask, self.oracle.model.weights()));
    }

    /// Draws the embedding anew, with fresh moments.
    pub fn reset_embedding(&mut self, key: Key) -> Result<()> {
        let at = embedding(&places(&self.oracle, "embedding-reset")?)?;
        redraw(&mut self.oracle.model, at, key);
        self.optimizer.reset_tensor(at);
        Ok(())
    }

    /// Draws the rows of some tokens anew.
    pub fn fresh_rows(&mut self, tokens: &[u32], key: Key) -> Result<()> {
        let at = embedding(&places(&self.oracle, "embedding-reset")?)?;
        let (fresh, _) = self.oracle.model.network().initialise(key);
        let entry = &fresh.layout().entries()[at];
        let (fresh, width) = (&fresh.as_slice()[entry.range.clone()], self.spec.width);
        self.oracle.model.update(|i, values| {
            for row in tokens.iter().filter(|_| i == at) {
                let row = *row as usize * width..(*row as usize + 1) * width;
                values[row.clone()].copy_from_slice(&fresh[row]);
            }
        });
        Ok(())
    }

    /// The model and its gradients.
    pub fn oracle(&mut self) -> &mut Oracle {
        &mut self.oracle
    }

    /// One step on `rows`.
    pub fn step(&mut self, rows: &[&Row]) -> Result<()> {
        let mut collect = Collect::default();
        collect.support("new");
        for row in rows {
            collect.row(row.id, 0, None);
            collect.x.extend(self.signed(row));
        }
        let outputs = self.decoder.config().vocabulary;
        let batch = collect.finish(&self.oracle.model, &[], outputs);
        self.oracle
            .gradient(&remembering(), &batch, None, &mut self.gradient)?;
        let norm = self.gradient.norm();
        if norm > 1.0 {
            self.gradient.scale((1.0 / norm) as f32);
        }
        self.steps += 1;
        let warm = self.steps as f64 / self.spec.warmup.max(1) as f64;
        let lr = self.spec.lr * warm.min(1.0);
        self.optimizer
            .step(&mut self.oracle.model, &self.gradient, lr);
        if let Some((mask, as_it_was)) = &self.held {
            // The gradient was used: its place serves for the weights.
            self.oracle.model.copy_weights(&mut self.gradient);
            mask.restore(&mut self.gradient, as_it_was);
            let put = self.oracle.model.set_weights(&self.gradient);
            put.map_err(ebb_learn::Error::from)?;
        }
        Ok(())
    }

    /// The mean loss of each row's predicted tokens, in nats.
    pub fn losses(&mut self, rows: &[&Row]) -> Vec<f64> {
        let all = self.signed_all(rows);
        let found = outcomes(&mut self.oracle, &all);
        found.iter().map(|o| f64::from(o.loss)).collect()
    }

    /// The share of rows whose predicted tokens are all the likeliest.
    pub fn right(&mut self, rows: &[&Row]) -> f64 {
        let all = self.signed_all(rows);
        let found = outcomes(&mut self.oracle, &all);
        found.iter().filter(|o| o.correct).count() as f64 / rows.len().max(1) as f64
    }

    /// Rows as signed ids, one behind the other.
    pub fn signed_all(&self, rows: &[&Row]) -> Vec<f32> {
        rows.iter().flat_map(|row| self.signed(row)).collect()
    }

    /// What the model says behind each of `prompts`, the likeliest token each time, `tokens` of
    /// them.
    pub fn goes_on(&mut self, prompts: &[&[u32]], tokens: usize) -> Result<Vec<Vec<u32>>> {
        let how = Generation {
            most: tokens,
            stops: Vec::new(),
            processors: Vec::new(),
            choice: Choice::Greedy,
        };
        let prompts: Vec<Prompt> = (0u64..)
            .zip(prompts)
            .map(|(example, tokens)| Prompt { example, tokens })
            .collect();
        let model = &mut self.oracle.model;
        let go = |_: usize, _: u32| ControlFlow::Continue(());
        let made = self
            .decoder
            .generate(model, &prompts, &how, go)
            .map_err(ebb_learn::Error::from)?;
        Ok(made.into_iter().map(|text| text.tokens).collect())
    }

    fn signed(&self, row: &Row) -> Vec<f32> {
        let learn: Vec<bool> = (0..row.tokens.len()).map(|i| i >= row.given).collect();
        signed(&row.tokens, &learn, self.length)
    }
}

fn adamw(weight_decay: f64) -> OptimizerSettings {
    OptimizerSettings {
        kind: OptimizerKind::Adamw,
        momentum: 0.0,
        nesterov: false,
        betas: [0.9, 0.99],
        eps: 1e-8,
        weight_decay,
    }
}
