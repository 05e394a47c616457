//! With keys and values kept, every position answers as in the pass over everything.

use crate::checkpoint::{Fixture, NAMES, POSITIONS, furthest};
use ebb_kernels::slices;
use ebb_net::decoder::{Block, Cache, Scaling};
use ebb_net::{Decoder, DecoderConfig, Mode, Model, Network, Params, Pass, Taps};

/// A decoder with its parameters, pass by pass.
pub struct Reader {
    decoder: Decoder,
    params: Params,
    model: Model,
}

impl Reader {
    pub fn new(fixture: &Fixture, config: &DecoderConfig) -> Self {
        let (decoder, model) = fixture.both(config);
        let device = model.device().clone();
        let params = Params::new(&model.weights(), &device);
        Self {
            decoder,
            params,
            model,
        }
    }

    fn pass<R>(&self, f: impl FnOnce(&mut Pass) -> R) -> R {
        f(&mut Pass {
            params: &self.params,
            buffers: &mut self.model.buffers().clone(),
            taps: &mut Taps::none(),
            mode: Mode::Eval,
        })
    }

    fn cache(&self, rows: usize, slots: usize) -> Cache {
        self.decoder.cache(rows, slots, self.model.device())
    }

    /// Logits at every position of `tokens`, from one pass over all.
    fn whole(&self, tokens: &[u32]) -> Vec<f32> {
        let x = self
            .decoder
            .tokens(&[tokens], 0, self.model.device())
            .expect("its own");
        slices::to_vec(&self.pass(|pass| self.decoder.forward(x, pass)).logits)
    }

    /// Logits of a chunk's tokens, row by row.
    fn extend(&self, chunk: &[&[u32]], cache: &mut Cache) -> Vec<Vec<f32>> {
        let c = self.decoder.config();
        self.pass(|pass| {
            let features = self.decoder.extend(chunk, cache, pass).expect("fits");
            let [rows, longest, width] = features.dims();
            let features = features.reshape([rows * longest, width]);
            let logits = slices::to_vec(&self.decoder.logits(features, pass));
            let rows = logits.chunks_exact(longest * c.vocabulary);
            rows.zip(chunk)
                .map(|(row, tokens)| row[..tokens.len() * c.vocabulary].to_vec())
                .collect()
        })
    }
}

#[test]
fn every_position_answers_as_without_a_cache_in_a_batch_of_unequal_rows() {
    for name in NAMES {
        let fixture = Fixture::open(name);
        let mut config = fixture.config.clone();
        // Kept keys stay as a dynamic base turned them: see the next test.
        config.context = config.longest();
        for rotary in config.blocks.iter_mut().filter_map(|b| b.rotary.as_mut()) {
            if let Scaling::Dynamic { .. } = rotary.scaling {
                rotary.scaling = Scaling::None;
            }
        }
        let reader = Reader::new(&fixture, &config);
        let (a, b) = (fixture.ids(0), fixture.ids(1));
        let rows: [&[u32]; 3] = [&a, &b[..11], &b[3..]];
        // Ends of the chunks in every row: a prompt, one token each, several, some without any.
        let ends: [[usize; 3]; 6] = [
            [7, 2, 5],
            [8, 3, 6],
            [9, 4, 7],
            [9, 7, 8],
            [13, 7, 8],
            [14, 11, 11],
        ];
        let mut cache = reader.cache(3, 20);
        let mut found = vec![Vec::new(); 3];
        let mut from = [0; 3];
        for to in ends {
            let chunk: Vec<&[u32]> = (0..3).map(|r| &rows[r][from[r]..to[r]]).collect();
            for (found, logits) in found.iter_mut().zip(reader.extend(&chunk, &mut cache)) {
                found.extend(logits);
            }
            from = to;
            assert_eq!(cache.lengths(), to);
        }
        for (row, found) in rows.iter().zip(&found) {
            let off = furthest(found, &reader.whole(row));
            assert!(off <= 1e-4, "{name}: {off}");
        }
        let window = |b: &Block| b.window.is_none_or(|w| 2 * w < POSITIONS);
        assert!(config.blocks.iter().all(window), "rows outgrow windows");
    }
}

#[test]
fn a_dynamic_base_agrees_up_to_its_first_context_and_drifts_beyond() {
    let fixture = Fixture::open("qwen3");
    let Some(Scaling::Dynamic { context, .. }) = fixture.config.blocks[0].rotary.map(|r| r.scaling)
    else {
        panic!("this fixture has a dynamic base")
    };
    let reader = Reader::new(&fixture, &fixture.config);
    let ids = fixture.ids(0);
    let mut cache = reader.cache(1, POSITIONS);
    let mut step = |i: usize| reader.extend(&[&ids[i..=i]], &mut cache).concat();
    let found: Vec<f32> = (0..POSITIONS).flat_map(&mut step).collect();
    let short = context * fixture.config.vocabulary;
    assert!(furthest(&found[..short], &reader.whole(&ids[..context])) <= 1e-4);
    assert!(furthest(&found, &reader.whole(&ids)) > 1e-2);
}

#[test]
fn selected_rows_go_on_apart() {
    for name in ["llama", "gemma3"] {
        let fixture = Fixture::open(name);
        let reader = Reader::new(&fixture, &fixture.config);
        let (a, b) = (fixture.ids(0), fixture.ids(1));
        let mut cache = reader.cache(2, POSITIONS);
        reader.extend(&[&a[..6], &b[..4]], &mut cache);
        let mut branches = cache.select(&[1, 0, 1]).expect("its rows");
        let logits = reader.extend(&[&b[4..8], &a[6..9], &a[..2]], &mut branches);
        let last = |tokens: &[u32], n: usize| {
            let whole = reader.whole(tokens);
            whole[whole.len() - n * fixture.config.vocabulary..].to_vec()
        };
        assert!(furthest(&logits[0], &last(&b[..8], 4)) <= 1e-4);
        assert!(furthest(&logits[1], &last(&a[..9], 3)) <= 1e-4);
        let mixed = [&b[..4], &a[..2]].concat();
        assert!(furthest(&logits[2], &last(&mixed, 2)) <= 1e-4);
        assert_eq!(cache.lengths(), [6, 4], "the first one is untouched");
        assert_eq!(cache.room(), POSITIONS - 6);
    }
}

#[test]
fn a_cache_refuses_what_does_not_fit_and_stays_as_it_was() {
    let fixture = Fixture::open("gpt2");
    let reader = Reader::new(&fixture, &fixture.config);
    let ids = fixture.ids(0);
    let refused = |chunk: &[&[u32]], cache: &mut Cache, word: &str| {
        let before = (cache.lengths().to_vec(), cache.room());
        let e = reader
            .pass(|pass| reader.decoder.extend(chunk, cache, pass))
            .expect_err("refused")
            .to_string();
        assert!(e.contains(word), "{e}");
        assert_eq!((cache.lengths().to_vec(), cache.room()), before);
    };
    let mut cache = reader.cache(2, 18);
    refused(&[&ids[..2]], &mut cache, "1 rows come to a cache of 2");
    refused(&[&ids[..2], &[]], &mut cache, "row 1 begins without");
    refused(&[&ids[..2], &[32]], &mut cache, "token 32");
    reader.extend(&[&ids[..9], &ids[..2]], &mut cache);
    refused(&[&[], &[]], &mut cache, "single token");
    refused(&[&ids[..8], &[]], &mut cache, "context holds 16");
    refused(&[&[], &ids[..10]], &mut cache, "room for 9 of 18");
    assert!(cache.select(&[2]).is_err());
}
