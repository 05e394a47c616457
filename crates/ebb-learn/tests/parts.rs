//! Methods that train parts of a language model: what they choose against references written out
//! by hand, and that what they hold is held bit for bit.

use burn::tensor::{Tensor, TensorData};
use ebb_data::{Item, Part};
use ebb_kernels::Stored;
use ebb_learn::methods::chosen_blocks;
use ebb_learn::methods::language_neurons::Neurons;
use ebb_learn::methods::ssu::{ColumnScore, SsuSettings};
use ebb_learn::{Around, Error, Recipe, Session, Silent, learn_keeping, resume, scores};
use ebb_net::{Role, Taps};
use ebb_space::{Key, Mask, Weights};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const TWO_WORLDS: &str = r#"
[stream]
dataset = "text"

[network]
kind = "decoder"
width = 16
layers = 3
heads = 2

[language]
length = 32

[[language.experience]]
name = "first"
world = { kind = "facts", people = 8, parts = 2, part = 0 }

[[language.experience]]
name = "second"
world = { kind = "facts", people = 8, parts = 2, part = 1 }

[train]
optimizer = "adamw"
lr = 0.01
weight-decay = 0.1
batch = 6
steps = 8
"#;

fn with(method: &str, sets: &[(&str, &str)]) -> Recipe {
    let sets: Vec<(String, String)> = sets
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    Recipe::parse(&format!("{method}\n{TWO_WORLDS}"), &sets).expect("a recipe")
}

fn session(recipe: &Recipe) -> Session {
    Session::new(recipe, &std::env::temp_dir()).expect("a session")
}

fn run(recipe: &Recipe, out: Option<&Path>, stop: &AtomicBool) -> ebb_learn::Result<Session> {
    let temp = std::env::temp_dir();
    let mut around = Around {
        data_dir: &temp,
        progress: &mut Silent,
        stop,
    };
    learn_keeping(Session::new(recipe, &temp)?, out, &mut around).map(|(_, session)| session)
}

/// The first `n` texts of an experience, as rows of signed ids.
fn texts(s: &Session, experience: usize, n: usize) -> Vec<f32> {
    let items: Vec<Item> = s.stream.experiences[experience].train[..n].to_vec();
    let mut rows = Vec::new();
    s.stream.gather(Part::Train, &items, &mut rows);
    rows
}

/// The tokens that are put in of one text, unfilled, and what follows each: the token, and
/// whether it is learnt.
fn put_in(signed: &[f32]) -> (Vec<f32>, Vec<(usize, bool)>) {
    let id = |s: f32| if s < 0.0 { -1.0 - s } else { s };
    let end = signed
        .iter()
        .rposition(|s| *s >= 0.0)
        .expect("one is learnt");
    let tokens = signed[..end].iter().map(|s| id(*s)).collect();
    let after = signed[1..=end].iter().map(|s| (id(*s) as usize, *s >= 0.0));
    (tokens, after.collect())
}

/// The activations at a tap of one text by itself, `[tokens, channels]`.
fn alone(s: &mut Session, tokens: &[f32], taps: Taps, tap: &str) -> Vec<f32> {
    let x = Tensor::<2>::from_data(
        TensorData::new(tokens.to_vec(), [1, tokens.len()]),
        s.oracle.model.device(),
    );
    let mut taps = taps.read(tap);
    s.oracle.model.forward(x, &mut taps);
    let found = taps.value(tap).expect("it is there").clone();
    found.into_data().try_to_vec().expect("floats")
}

/// What SSU holds, against scores summed text by text and column by column in f64.
#[test]
fn columns_are_held_by_the_scores_of_the_card() {
    let mut s = session(&with("", &[]));
    let rows = texts(&s, 0, 7);
    let width = s.oracle.model.network().inputs();
    let layout = s.oracle.model.layout().clone();
    let places = s.oracle.model.network().places();
    let weights = s.oracle.model.weights();
    for score in [ColumnScore::SquaredInput, ColumnScore::Wanda] {
        let settings = SsuSettings {
            share: 0.3,
            score,
            ..SsuSettings::default()
        };
        let key = Key::new(0, "");
        let mask = settings
            .shield(&mut s.oracle, &rows, &[2, 5], key)
            .expect("a mask");
        for (place, (entry, values)) in places.iter().zip(weights.iter()) {
            let held = |i: usize| mask.contains(entry.range.start + i);
            if place.role == Role::Embedding {
                let named = |i: usize| [2, 5].contains(&(i / 16));
                assert!(
                    (0..values.len()).all(|i| held(i) == named(i)),
                    "{}",
                    entry.path
                );
                continue;
            }
            let inputs = *entry.shape.last().expect("a dimension");
            let (mut squares, mut n) = (vec![0.0; inputs], 0.0);
            for row in rows.chunks_exact(width) {
                let (tokens, _) = put_in(row);
                let tap = format!("{}.in", place.module);
                for x in alone(&mut s, &tokens, Taps::none(), &tap).chunks_exact(inputs) {
                    let each = squares.iter_mut().zip(x);
                    each.for_each(|(sum, x)| *sum += f64::from(*x) * f64::from(*x));
                    n += 1.0;
                }
            }
            let mut scores: Vec<(f64, usize)> = (0..inputs)
                .map(|c| {
                    let column = values.iter().skip(c).step_by(inputs);
                    let norm = column.map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
                    let mean: f64 = squares[c] / n;
                    let read = match score {
                        ColumnScore::Wanda => mean.sqrt(),
                        _ => mean,
                    };
                    (norm * read, c)
                })
                .collect();
            scores.sort_by(|a, b| b.0.total_cmp(&a.0));
            let count = (0.3 * inputs as f64) as usize;
            let chosen: Vec<usize> = scores[..count].iter().map(|(_, c)| *c).collect();
            let right = (0..values.len()).all(|i| held(i) == chosen.contains(&(i % inputs)));
            assert!(right, "{} {score:?}", entry.path);
        }
        assert_eq!(mask.layout(), &layout);
    }
}

/// The loss of a text's learnt tokens, summed, with a unit of a tap scaled.
fn loss_with(s: &mut Session, signed: &[f32], tap: &str, unit: usize, factor: f32) -> f64 {
    let (tokens, after) = put_in(signed);
    let mut h = alone(s, &tokens, Taps::none(), tap);
    let units = h.len() / tokens.len();
    h.iter_mut()
        .skip(unit)
        .step_by(units)
        .for_each(|h| *h *= factor);
    let changed = Tensor::<2>::from_data(
        TensorData::new(h, [1, tokens.len() * units]),
        s.oracle.model.device(),
    );
    let logits = alone(s, &tokens, Taps::none().replace(tap, changed), "logits");
    let outputs = logits.len() / tokens.len();
    let learnt = after
        .iter()
        .zip(logits.chunks_exact(outputs))
        .filter(|((_, l), _)| *l);
    learnt
        .map(|((token, _), z)| {
            let sum: f64 = z.iter().map(|z| f64::from(*z).exp()).sum();
            sum.ln() - f64::from(z[*token])
        })
        .sum()
}

/// `|Σ h ∂L/∂h|` is how fast the loss changes with the unit's size: against finite differences.
#[test]
fn awareness_is_the_slope_of_the_loss_in_the_size_of_a_unit() {
    // A few steps first: in fresh weights everything is nearly nothing.
    let mut s = run(
        &with("method = \"finetune\"", &[]),
        None,
        &AtomicBool::new(false),
    )
    .expect("a run");
    let rows = texts(&s, 1, 5);
    let width = s.oracle.model.network().inputs();
    let tap = "model.layers.1.mlp.down_proj.in".to_owned();
    let found = scores::taylor(&mut s.oracle, &rows, std::slice::from_ref(&tap)).expect("scores");
    assert_eq!(found[0].len(), 48);
    for unit in [0, 7, 23, 47] {
        let slope = |s: &mut Session, row: &[f32]| {
            let e = 0.05f32;
            let up = loss_with(s, row, &tap, unit, 1.0 + e);
            let down = loss_with(s, row, &tap, unit, 1.0 - e);
            ((up - down) / (2.0 * f64::from(e))).abs()
        };
        let slopes: Vec<f64> = rows
            .chunks_exact(width)
            .map(|row| slope(&mut s, row))
            .collect();
        let mean = slopes.iter().sum::<f64>() / slopes.len() as f64;
        let (got, size) = (found[0][unit], found[0].iter().copied().fold(0.0, f64::max));
        assert!(
            (got - mean).abs() <= 0.02 * mean + 0.002 * size,
            "{unit}: {got} {mean}"
        );
    }
}

/// The mass on some tokens is the mean of their probabilities over the places that are learnt.
#[test]
fn mass_is_the_mean_probability_of_the_tokens() {
    let mut s = session(&with("", &[]));
    let rows = texts(&s, 0, 4);
    let width = s.oracle.model.network().inputs();
    let found = ebb_learn::language::mass(&mut s.oracle, &rows, &[3, 9, 11]);
    for (row, got) in rows.chunks_exact(width).zip(found) {
        let (tokens, after) = put_in(row);
        let logits = alone(&mut s, &tokens, Taps::none(), "logits");
        let outputs = logits.len() / tokens.len();
        let places = after.iter().zip(logits.chunks_exact(outputs));
        let learnt: Vec<f64> = places
            .filter(|((_, learnt), _)| *learnt)
            .map(|(_, z)| {
                let e: Vec<f64> = z.iter().map(|z| f64::from(*z).exp()).collect();
                (e[3] + e[9] + e[11]) / e.iter().sum::<f64>()
            })
            .collect();
        let want = learnt.iter().sum::<f64>() / learnt.len() as f64;
        assert!((got - want).abs() < 1e-6, "{got} {want}");
    }
}

/// A neuron is a row of gate and up and a column of down, and nothing else.
#[test]
fn a_neuron_is_two_rows_and_a_column() {
    let s = session(&with("", &[]));
    let neurons = Neurons::of(&s.oracle).expect("neurons");
    assert_eq!(neurons.len(), 3 * 48);
    let mut chosen = vec![false; neurons.len()];
    chosen[48 + 5] = true;
    let held = neurons.all_but(&chosen);
    for entry in s.oracle.model.layout().entries() {
        let trained = |i: usize| !held.contains(entry.range.start + i);
        let want = |i: usize| match entry.path.as_str() {
            "model.layers.1.mlp.gate_proj.weight" | "model.layers.1.mlp.up_proj.weight" => {
                i / 16 == 5
            }
            "model.layers.1.mlp.down_proj.weight" => i % 48 == 5,
            _ => false,
        };
        assert!(
            (0..entry.range.len()).all(|i| trained(i) == want(i)),
            "{}",
            entry.path
        );
    }
}

/// How far a block turns the stream, against angles of texts alone.
#[test]
fn turns_are_those_of_every_text_alone() {
    let mut s = session(&with("", &[]));
    let rows = texts(&s, 0, 5);
    let width = s.oracle.model.network().inputs();
    let found = chosen_blocks::turns(&mut s.oracle, &rows).expect("turns");
    for (block, got) in found.iter().enumerate() {
        let mut sum = 0.0;
        for row in rows.chunks_exact(width) {
            let (tokens, _) = put_in(row);
            let mut last = |end: &str| -> Vec<f64> {
                let tap = format!("model.layers.{block}.{end}");
                let all = alone(&mut s, &tokens, Taps::none(), &tap);
                all[all.len() - 16..]
                    .iter()
                    .map(|v| f64::from(*v))
                    .collect()
            };
            let (a, b) = (last("in"), last("out"));
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            sum += (dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()).acos();
        }
        let want = sum / 5.0 / std::f64::consts::PI;
        assert!((got - want).abs() < 1e-5, "{block}: {got} {want}");
    }
}

fn held_and_free(s: &Session) -> (&Mask, usize, usize) {
    let (mask, anchor) = s.frozen.as_ref().expect("something is held");
    let now = s.oracle.model.weights();
    let (mut moved, mut free) = (0, 0);
    for (i, (a, b)) in anchor.as_slice().iter().zip(now.as_slice()).enumerate() {
        match mask.contains(i) {
            true => assert_eq!(a.to_bits(), b.to_bits(), "element {i} is held"),
            false => {
                free += 1;
                moved += usize::from(a.to_bits() != b.to_bits());
            }
        }
    }
    (mask, moved, free)
}

/// Held means bit for bit, under AdamW with weight decay, and what is trained is what is said.
#[test]
fn what_is_held_keeps_its_bits_and_the_rest_learns() {
    let go = AtomicBool::new(false);
    let trains = |mask: &Mask, path: &str| {
        let entry = mask.layout().find(path).expect(path);
        let free = entry.range.clone().filter(|i| !mask.contains(*i)).count();
        free as f64 / entry.range.len() as f64
    };
    let of = |block: usize, part: &str| format!("model.layers.{block}.{part}.weight");
    for (method, want) in [
        (
            "method = \"attention-only\"",
            vec![
                (of(0, "self_attn.q_proj"), 1.0),
                (of(2, "self_attn.o_proj"), 1.0),
                (of(1, "mlp.up_proj"), 0.0),
                (of(1, "input_layernorm"), 0.0),
            ],
        ),
        (
            "method = \"gate-up-only\"",
            vec![
                (of(0, "mlp.gate_proj"), 1.0),
                (of(2, "mlp.up_proj"), 1.0),
                (of(2, "mlp.down_proj"), 0.0),
                (of(1, "self_attn.v_proj"), 0.0),
            ],
        ),
        (
            "method = \"bottom-frozen\"",
            vec![
                (of(0, "mlp.down_proj"), 0.0),
                (of(1, "mlp.down_proj"), 1.0),
                ("model.norm.weight".to_owned(), 1.0),
                ("model.embed_tokens.weight".to_owned(), 0.0),
            ],
        ),
        (
            "method = \"ssu\"",
            vec![
                (of(0, "mlp.down_proj"), 0.5),
                (of(1, "self_attn.k_proj"), 0.5),
                (of(1, "input_layernorm"), 0.5),
                ("model.embed_tokens.weight".to_owned(), 1.0),
            ],
        ),
        (
            "method = \"chosen-blocks\"\nwith = { blocks = 1 }",
            vec![
                ("model.norm.weight".to_owned(), 0.0),
                ("model.embed_tokens.weight".to_owned(), 0.0),
            ],
        ),
        (
            "method = \"language-neurons\"",
            vec![
                (of(0, "self_attn.q_proj"), 0.0),
                (of(1, "input_layernorm"), 0.0),
            ],
        ),
    ] {
        let s = run(&with(method, &[]), None, &go).unwrap_or_else(|e| panic!("{method}: {e}"));
        let (mask, moved, free) = held_and_free(&s);
        // Embedding rows of words that are in no text and never compete do not exist; a weight may
        // by chance come back to its place.
        assert!(
            free > 0 && moved * 100 >= free * 99,
            "{method}: {moved} of {free}"
        );
        for (path, share) in want {
            assert_eq!(trains(mask, &path), share, "{method}: {path}");
        }
    }
}

/// Texts that a recipe names stand in the place of earlier ones, and hold already in the first
/// experience, with the rows of the tokens it names.
#[test]
fn named_texts_shield_the_first_experience_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("chats.jsonl");
    let line = "{\"prompt\": \"The home of Alice is in\", \"completion\": \" Paris.\"}\n";
    std::fs::write(&file, line.repeat(3)).expect("written");
    let texts = format!("[{:?}]", file);
    let method = "method = \"ssu\"";
    let sets = [
        ("with.texts", texts.as_str()),
        ("with.tokens", "['<|end|>']"),
    ];
    let one = "[{ name = 'a', world = { kind = 'facts', people = 8 } }]";
    let s = run(
        &with(method, &[sets[0], sets[1], ("language.experience", one)]),
        None,
        &AtomicBool::new(false),
    )
    .expect("a run");
    let (mask, _, _) = held_and_free(&s);
    let table = mask
        .layout()
        .find("model.embed_tokens.weight")
        .expect("it is there");
    let held: Vec<usize> = table.range.clone().filter(|i| mask.contains(*i)).collect();
    let end = s
        .speech
        .as_ref()
        .and_then(|s| s.tokenizer.id("<|end|>"))
        .expect("a token") as usize;
    let row: Vec<usize> = (0..16).map(|c| table.range.start + 16 * end + c).collect();
    assert_eq!(held, row);
    let wrong = with(method, &[("with.tokens", "['no such token']")]);
    let message = run(&wrong, None, &AtomicBool::new(false))
        .map(|_| ())
        .expect_err("refused");
    assert!(message.to_string().contains("no such token"), "{message}");
}

/// The same bits after a stop, where the network has a head of its own.
#[test]
fn embedding_resets_resume_exactly() {
    let recipe = with(
        "method = \"embedding-reset\"\nwith = { every = 3, until = 12 }",
        &[("network.tied", "false")],
    );
    let stop = AtomicBool::new(false);
    let whole = run(&recipe, None, &stop)
        .expect("a run")
        .oracle
        .model
        .weights();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("run");
    stop.store(true, Ordering::Relaxed);
    let stopped = run(&recipe, Some(&path), &stop).map(|_| ());
    assert!(matches!(stopped, Err(Error::Interrupted { .. })));
    stop.store(false, Ordering::Relaxed);
    let temp = std::env::temp_dir();
    let mut around = Around {
        data_dir: &temp,
        progress: &mut Silent,
        stop: &stop,
    };
    resume(&path, &mut around).expect("the rest");
    let model = ebb_learn::language::of_run(&path, None, &temp).expect("a model");
    assert_eq!(model.model.weights().as_slice(), whole.as_slice());
    let tied = with("method = \"embedding-reset\"", &[]);
    let message = run(&tied, None, &stop)
        .map(|_| ())
        .expect_err("refused")
        .to_string();
    assert!(message.contains("network.tied = false"), "{message}");
}

/// L2 on attention (card S123): the pull acts on the paths it names, and on nothing else.
#[test]
fn l2_on_attention_pulls_attention_alone() {
    let go = AtomicBool::new(false);
    let sgd = [
        ("train.optimizer", "sgd"),
        ("train.weight-decay", "0.0"),
        ("train.lr", "0.1"),
        ("train.steps", "1"),
    ];
    let end = |method: &str| -> Weights {
        run(&with(method, &sgd), None, &go)
            .expect("a run")
            .oracle
            .model
            .weights()
    };
    // One step of the second experience begins at the anchor, where there is no pull yet.
    let plain = end("method = \"finetune\"");
    let one = end("method = \"l2\"\nwith = { beta = 5.0, on = [\"*self_attn*\"] }");
    assert_eq!(plain.as_slice(), one.as_slice());
    // Two steps: the second one is pulled by lr β (θ₁ − θ*), in attention alone.
    let sgd = [
        ("train.optimizer", "sgd"),
        ("train.weight-decay", "0.0"),
        ("train.lr", "0.1"),
        ("train.steps", "2"),
    ];
    let end = |method: &str| {
        run(&with(method, &sgd), None, &go)
            .expect("a run")
            .oracle
            .model
            .weights()
    };
    let plain = end("method = \"finetune\"");
    let pulled = end("method = \"l2\"\nwith = { beta = 5.0, on = [\"*self_attn*\"] }");
    for ((entry, a), (_, b)) in plain.iter().zip(pulled.iter()) {
        assert_eq!(a != b, entry.path.contains("self_attn"), "{}", entry.path);
    }
}

/// What each parameter is for, in every family.
#[test]
fn every_family_says_what_its_parameters_are_for() {
    for (kind, gated, columns) in [
        ("llama", true, Stored::OutIn),
        ("gpt2", false, Stored::InOut),
        ("gpt_neox", false, Stored::OutIn),
    ] {
        let config = match kind {
            "gpt2" => r#"{"model_type":"gpt2","vocab_size":20,"n_positions":8,"n_embd":8,"n_layer":2,"n_head":2}"#.to_owned(),
            kind => format!(
                r#"{{"model_type":"{kind}","vocab_size":20,"max_position_embeddings":8,"hidden_size":8,"intermediate_size":12,"num_hidden_layers":2,"num_attention_heads":2,"hidden_act":"silu","rotary_pct":1.0,"rms_norm_eps":1e-5,"tie_word_embeddings":false}}"#
            ),
        };
        let config =
            ebb_net::DecoderConfig::from_json(&config).unwrap_or_else(|e| panic!("{kind}: {e}"));
        let network = ebb_net::Decoder::new(config, 8).expect("a network");
        let places = ebb_net::Network::places(&network);
        let taps = ebb_net::Network::taps(&network);
        let layout = ebb_net::Network::layout(&network);
        let count = |role: Role| {
            places
                .iter()
                .zip(layout.entries())
                .filter(|(p, e)| p.role == role && e.shape.len() == 2)
                .count()
        };
        assert_eq!(count(Role::Embedding), 1, "{kind}");
        assert_eq!(count(Role::Gate), if gated { 2 } else { 0 }, "{kind}");
        assert_eq!((count(Role::Up), count(Role::Down)), (2, 2), "{kind}");
        assert_eq!(count(Role::Attention), if gated { 8 } else { 4 }, "{kind}");
        assert_eq!(count(Role::Norm), 0, "{kind}");
        for (place, entry) in places.iter().zip(layout.entries()) {
            if let Some(stored) = place.stored {
                assert!(
                    taps.contains(&format!("{}.in", place.module)),
                    "{kind} {}",
                    entry.path
                );
                assert!(
                    place.role == Role::Head || stored == columns,
                    "{kind} {}",
                    entry.path
                );
            }
            assert_eq!(
                place.block.is_none(),
                matches!(place.role, Role::Embedding | Role::Positions | Role::Head)
                    || entry.path.contains("final")
                    || entry.path.contains("ln_f")
                    || entry.path == "model.norm.weight",
                "{kind} {}",
                entry.path
            );
        }
    }
}
