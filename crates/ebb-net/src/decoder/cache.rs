//! Keys and values kept, so that a pass computes new positions only.
//!
//! **Layout.** Every row has the same number of *slots*, taken from left to right; a chunk takes as
//! many slots in every row as its longest row has tokens. What lies in a slot is known by its
//! position in the row, and the slots behind a shorter row stay empty: queries see filled slots
//! whose position is theirs or before, within the window. So rows of different lengths read and
//! write side by side, and nothing moves when a token comes.
//!
//! **Where it equals the pass over everything**: everywhere but beyond the first context of a
//! dynamic base ([`Scaling::Dynamic`](super::Scaling)), whose frequencies change with the length
//! while kept keys stay as they were turned. `transformers` does the same.

use super::{Decoder, find_or_add};
use crate::network::Pass;
use crate::{Error, Result};
use burn::tensor::{Device, Tensor, TensorData};

/// The keys and values of one block, `[rows, key heads, slots, head width]` each.
#[derive(Clone, Debug)]
pub(crate) struct KeysValues {
    keys: Tensor<4>,
    values: Tensor<4>,
}

impl KeysValues {
    /// Writes a chunk's keys and values from slot `at` on and returns all up to its end.
    pub fn add(&mut self, at: usize, keys: Tensor<4>, values: Tensor<4>) -> [Tensor<4>; 2] {
        [(&mut self.keys, keys), (&mut self.values, values)].map(|(kept, new)| {
            let [rows, heads, n, width] = new.dims();
            // Taken out for the moment: a buffer with one owner is changed where it lies.
            let nothing = Tensor::empty([0, 0, 0, 0], &kept.device());
            let all = std::mem::replace(kept, nothing);
            let to = [0..rows, 0..heads, at..at + n, 0..width];
            *kept = all.slice_assign(to, new.inner());
            kept.clone().narrow(2, 0, at + n)
        })
    }
}

/// What a decoder remembers of rows it has read; see [`Decoder::cache`].
#[derive(Debug)]
pub struct Cache {
    layers: Vec<KeysValues>,
    /// By row and slot; `EMPTY` where there is no token.
    positions: Vec<Vec<u32>>,
    lengths: Vec<usize>,
    used: usize,
    slots: usize,
}

/// Behind every query: nobody sees it.
const EMPTY: u32 = u32::MAX;

impl Cache {
    /// Tokens each row holds.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Slots that are still free, the same number in every row.
    pub fn room(&self) -> usize {
        self.slots - self.used
    }

    /// A cache of `rows` of this one, in that order; a row may come several times.
    ///
    /// # Errors
    /// [`Error::Input`] when there is no such row.
    pub fn select(&self, rows: &[usize]) -> Result<Self> {
        if let Some(row) = rows.iter().find(|&&row| row >= self.lengths.len()) {
            return Err(Error::Input {
                reason: format!("the cache has {} rows and no row {row}", self.lengths.len()),
            });
        }
        let of = |kept: &Tensor<4>| {
            let device = kept.device();
            let at: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
            let at = Tensor::from_data(TensorData::new(at, [rows.len()]), &device);
            kept.clone().select(0, at)
        };
        Ok(Self {
            layers: self
                .layers
                .iter()
                .map(|layer| KeysValues {
                    keys: of(&layer.keys),
                    values: of(&layer.values),
                })
                .collect(),
            positions: rows.iter().map(|&r| self.positions[r].clone()).collect(),
            lengths: rows.iter().map(|&r| self.lengths[r]).collect(),
            used: self.used,
            slots: self.slots,
        })
    }

    /// Gives `chunk` its slots; returns the position of every query, `[rows, longest]`.
    ///
    /// Behind the end of a row a query takes the last token's place: it sees something, so that it
    /// is a number, and nobody reads it.
    fn place(&mut self, chunk: &[&[u32]], longest: usize) -> Vec<u32> {
        let mut queries = Vec::with_capacity(chunk.len() * longest);
        let rows = self.positions.iter_mut().zip(&mut self.lengths);
        for ((slots, length), tokens) in rows.zip(chunk) {
            let first = *length;
            *length += tokens.len();
            let last = length.saturating_sub(1);
            queries.extend((first..first + longest).map(|p| p.min(last) as u32));
            slots.extend((first..*length).map(|p| p as u32));
            slots.resize(self.used + longest, EMPTY);
        }
        self.used += longest;
        queries
    }

    /// 0 where a query sees a slot, −∞ elsewhere, `[rows, 1, queries, slots in use]`.
    fn visible(&self, queries: &[u32], window: Option<usize>, device: &Device) -> Tensor<4> {
        let rows = self.positions.len();
        let each = queries.len() / rows.max(1);
        let window = window.unwrap_or(usize::MAX);
        let mut values = Vec::with_capacity(queries.len() * self.used);
        for (slots, queries) in self.positions.iter().zip(queries.chunks(each.max(1))) {
            for &q in queries {
                let seen = |&p: &u32| match p <= q && ((q - p) as usize) < window {
                    true => 0.0,
                    false => f32::NEG_INFINITY,
                };
                values.extend(slots.iter().map(seen));
            }
        }
        Tensor::from_data(TensorData::new(values, [rows, 1, each, self.used]), device)
    }
}

impl Decoder {
    /// An empty cache for `rows` rows with `slots` slots each, all allocated now.
    ///
    /// A batch needs as many slots as its longest rows have tokens, chunk by chunk.
    pub fn cache(&self, rows: usize, slots: usize, device: &Device) -> Cache {
        let c = &self.config;
        let shape = [rows, c.key_value_heads, slots, c.head_width];
        let empty = || Tensor::zeros(shape, device);
        Cache {
            layers: (0..c.blocks.len())
                .map(|_| KeysValues {
                    keys: empty(),
                    values: empty(),
                })
                .collect(),
            positions: vec![Vec::with_capacity(slots); rows],
            lengths: vec![0; rows],
            used: 0,
            slots,
        }
    }

    /// Reads the next tokens of every row and remembers them in `cache`.
    ///
    /// Returns what the last layer reads, `[rows, longest, width]`; give the positions that are
    /// wanted to [`Decoder::logits`]. A row may be shorter than the others, even empty once it has
    /// a token: what stands behind its end is to be ignored. No gradient reaches what earlier calls
    /// have read. Taps on keys and values see the new ones only, those on scores and patterns all
    /// slots in use.
    ///
    /// # Errors
    /// [`Error::Input`] for a token that is not in the vocabulary, another number of rows than the
    /// cache has, an empty first row, no room in the cache or in the context. The cache is as
    /// before then.
    pub fn extend(
        &self,
        chunk: &[&[u32]],
        cache: &mut Cache,
        pass: &mut Pass,
    ) -> Result<Tensor<3>> {
        let refuse = |reason: String| Err(Error::Input { reason });
        if chunk.len() != cache.lengths.len() {
            return refuse(format!(
                "{} rows come to a cache of {}",
                chunk.len(),
                cache.lengths.len()
            ));
        }
        let most = self.config.longest();
        for (row, (tokens, length)) in chunk.iter().zip(&cache.lengths).enumerate() {
            match length + tokens.len() {
                0 => return refuse(format!("row {row} begins without a token")),
                n if n > most => {
                    return refuse(format!(
                        "row {row} would have {n} tokens and the context holds {most}: cut it or \
                         split it"
                    ));
                }
                _ => {}
            }
        }
        let device = match pass.params.device() {
            Some(device) => device.without_autodiff(),
            None => return refuse("the pass has no parameters".to_owned()),
        };
        let x = self.tokens(chunk, 0, &device)?;
        let longest = x.dims()[1];
        if longest > cache.room() {
            return refuse(format!(
                "{longest} tokens come to a cache with room for {} of {}: ask for more slots",
                cache.room(),
                cache.slots
            ));
        }

        let at = cache.used;
        let queries = cache.place(chunk, longest);
        let mut stream = self.embed(x, &queries, pass);
        let mut masks = Vec::new();
        let mut rotations = Vec::new();
        let mut layers = std::mem::take(&mut cache.layers);
        for ((block, is), layer) in self.blocks.iter().zip(&self.config.blocks).zip(&mut layers) {
            let window = is.window.filter(|&w| w < cache.used);
            let mask = find_or_add(&mut masks, window, || {
                cache.visible(&queries, window, &device)
            });
            let rotation = is.rotary.map(|rotary| {
                let turn = || rotary.at_lengths(&queries, &cache.lengths, &device);
                find_or_add(&mut rotations, rotary, turn)
            });
            let rotation = rotation.map(|at| &rotations[at].1);
            stream = block.forward(stream, rotation, &masks[mask].1, Some((layer, at)), pass);
        }
        cache.layers = layers;
        Ok(self.norm.forward(stream, pass))
    }

    /// The logits of `features`, `[n, width]`: `[n, vocabulary]`.
    pub fn logits(&self, features: Tensor<2>, pass: &mut Pass) -> Tensor<2> {
        let [n, width] = features.dims();
        let logits = self.head.forward(features.reshape([n, 1, width]), pass);
        let logits = self.cap(logits.reshape([n, self.config.vocabulary]));
        pass.taps.at("logits", logits)
    }
}
