//! Source-shielded updates.
//!
//! **What it does.** Before a new experience it looks at which input columns of every matrix the
//! old texts use, freezes the half that matters most, and trains the rest.
//! **Source.** Yamaguchi et al., 2025, "Mitigating catastrophic forgetting in target language
//! adaptation of LLMs via source-shielded updates" (card S017).
//! **Equation.** `s_c = ‖W_:,c‖₂ · E[x_c²]` over all tokens of the old texts (`score =
//! "squared-input"`, what the published code computes), or `‖W_:,c‖₂ · √E[x_c²]` (`"wanda"`).
//! The `⌊ρ n⌋` columns of each matrix with the highest scores stay as they are, bit for bit,
//! whatever momentum and weight decay do.
//! **Use it** to go on with new text, best with `texts` in the form that users write in. **Not**
//! to judge by forgetting alone: half the weights move, so compare at equal loss on the new text.
//! **Decided here**, where the card is silent: a norm's scale is a diagonal matrix that reads the
//! input of its norm (`|w_c| · E[x_c²]`), a bias reads 1 (`|b_c|`). Embeddings, positions and head
//! are trained, but for the rows of `tokens` (name those of the chat template). Without `texts`,
//! the first experience is trained whole: there is nothing old yet.
//! **Stores** a copy of the weights. **Costs** a forward pass over the old texts an experience,
//! and a copy of the frozen values a step.

use crate::error::{Error, Result};
use crate::language;
use crate::methods::{MethodCard, settings};
use crate::oracle::Oracle;
use crate::places::places;
use crate::plugin::{Plugin, Scene};
use crate::scores::{column, column_norms, highest, mean_square_inputs};
use crate::spec::{Parts, PluginSpec};
use ebb_net::{Place, Role};
use ebb_space::{Key, Mask};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a column is scored by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ColumnScore {
    /// The norm of the column times the mean square of its input.
    #[default]
    SquaredInput,
    /// The norm of the column times the root of it.
    Wanda,
    /// A draw: a control.
    Random,
}

/// SSU's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct SsuSettings {
    /// `ρ`, the share of the columns of each matrix that is frozen.
    pub share: f64,
    /// What they are scored by.
    pub score: ColumnScore,
    /// Texts that are looked at, of the experiences before; 0: all.
    pub samples: usize,
    /// Files of texts to look at in their place.
    pub texts: Vec<PathBuf>,
    /// Tokens whose rows in embedding and head are frozen.
    pub tokens: Vec<String>,
}

impl Default for SsuSettings {
    fn default() -> Self {
        Self {
            share: 0.5,
            score: ColumnScore::SquaredInput,
            samples: 500,
            texts: Vec::new(),
            tokens: Vec::new(),
        }
    }
}

/// The plugin.
pub struct Ssu {
    settings: SsuSettings,
}

impl Ssu {
    /// A plugin with these settings.
    pub fn new(settings: SsuSettings) -> Self {
        Self { settings }
    }
}

impl SsuSettings {
    /// What stays as it is, by these old texts (rows of signed ids) and these rows of the tables.
    ///
    /// # Errors
    /// When the network has no blocks of attention and feed-forward layers.
    pub fn shield(
        &self,
        oracle: &mut Oracle,
        texts: &[f32],
        rows: &[u32],
        key: Key,
    ) -> Result<Mask> {
        let layout = oracle.model.layout().clone();
        let places = places(oracle, "ssu")?;
        let weights = oracle.model.weights();
        let shielded =
            |place: &Place| !matches!(place.role, Role::Embedding | Role::Positions | Role::Head);
        let inputs = |place: &Place, shape: &[usize]| match (place.stored, shape) {
            (Some(ebb_kernels::Stored::OutIn), [_, n]) | (_, [n, ..]) => *n,
            _ => 0,
        };
        // A bias reads nothing that varies.
        let constant = |path: &str| path.ends_with(".bias");
        let mut taps: BTreeMap<String, usize> = BTreeMap::new();
        for (place, entry) in places.iter().zip(layout.entries()) {
            if shielded(place) && !constant(&entry.path) {
                let tap = format!("{}.in", place.module);
                taps.insert(tap, inputs(place, &entry.shape));
            }
        }
        let taps: Vec<(String, usize)> = taps.into_iter().collect();
        let squares = match self.score {
            ColumnScore::Random => Vec::new(),
            _ => mean_square_inputs(oracle, texts, &taps)?,
        };
        let squares: BTreeMap<&str, Vec<f64>> = taps
            .iter()
            .map(|(tap, _)| tap.as_str())
            .zip(squares)
            .collect();

        let mut frozen = vec![false; layout.len()];
        for (place, (entry, values)) in places.iter().zip(weights.iter()) {
            let target = &mut frozen[entry.range.clone()];
            if !shielded(place) {
                let width = entry.shape.get(1).copied().unwrap_or(1);
                let table = matches!(place.role, Role::Embedding | Role::Head);
                for row in rows.iter().filter(|_| table) {
                    let at = *row as usize * width;
                    let row = target.get_mut(at..at + width);
                    row.into_iter().for_each(|row| row.fill(true));
                }
                continue;
            }
            let n = inputs(place, &entry.shape);
            let norms: Vec<f64> = match place.stored {
                Some(stored) => column_norms(values, n, stored),
                None => values.iter().map(|w| f64::from(w.abs())).collect(),
            };
            let read = squares.get(format!("{}.in", place.module).as_str());
            let read = read.filter(|_| !constant(&entry.path));
            let scores: Vec<f64> = match self.score {
                ColumnScore::Random => {
                    let key = key.sub(&entry.path);
                    (0..n as u64).map(|c| key.uniform(c)).collect()
                }
                score => {
                    let one = |(c, norm): (usize, &f64)| {
                        let square = read.and_then(|s| s.get(c)).copied().unwrap_or(1.0);
                        match score {
                            ColumnScore::Wanda => norm * square.sqrt(),
                            _ => norm * square,
                        }
                    };
                    norms.iter().enumerate().map(one).collect()
                }
            };
            let chosen = highest(&scores, self.share);
            for (i, frozen) in target.iter_mut().enumerate() {
                *frozen = match place.stored {
                    Some(stored) => chosen[column(i, n, values.len() / n.max(1), stored)],
                    None => chosen[i],
                };
            }
        }
        Ok(Mask::from_fn(&layout, |i| frozen[i]))
    }
}

impl Plugin for Ssu {
    fn name(&self) -> &'static str {
        "source-shield"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        let wrong = |reason: String| Error::Recipe { reason };
        let key = scene.key.sub("source-shield").at(scene.experience as u64);
        let s = &self.settings;
        let tokenizer = |what: &str| {
            scene.tokenizer.ok_or_else(|| {
                wrong(format!(
                    "`{what}` needs a model with its tokenizer: leave it out"
                ))
            })
        };
        let texts = match (s.texts.as_slice(), &scene.recipe.language) {
            ([], _) if scene.experience == 0 => return Ok(()),
            ([], _) => scene.earlier_texts(s.samples, key.sub("texts")),
            (files, Some(spec)) => language::rows_of_files(files, spec, tokenizer("texts")?)?,
            (_, None) => return Err(wrong("`texts` needs a table `language`".into())),
        };
        let mut rows = Vec::with_capacity(s.tokens.len());
        for token in &s.tokens {
            let id = tokenizer("tokens")?.id(token);
            rows.push(
                id.ok_or_else(|| wrong(format!("`tokens`: the model has no token `{token}`")))?,
            );
        }
        let mask = s.shield(scene.oracle, &texts, &rows, key)?;
        scene.freeze(mask);
        Ok(())
    }
}

/// Source-shielded updates in the table of methods.
pub const SSU: MethodCard = MethodCard {
    name: "ssu",
    aliases: &["source-shielded-updates"],
    title: "Source-shielded updates",
    source: "Yamaguchi et al., 2025",
    card: "S017",
    family: "frozen weights",
    use_it: "to go on with new text and keep what old texts use",
    not_for: "networks without blocks of attention and feed-forward layers (refused)",
    stores: "a copy of the weights",
    costs: "a forward pass over old texts an experience, a copy of the frozen values a step",
    defaults: || settings(&SsuSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            plugin: vec![PluginSpec::SourceShield(crate::methods::read(with)?)],
            ..Parts::default()
        })
    },
};
