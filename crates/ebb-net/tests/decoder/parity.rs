//! Logits and gradients are those of `transformers`, and every part matters.

use crate::checkpoint::{Fixture, POSITIONS, ROWS, furthest, norm};
use burn::tensor::{Device, Tensor, TensorData};
use ebb_kernels::{seed, slices};
use ebb_net::decoder::{NormKind, Scaling};
use ebb_net::{Decoder, DecoderConfig, Mode, Network, Packing, Params, Pass, Taps};
use ebb_space::Weights;

/// Logits within 1e-4, every tensor's gradient within 1e-3 of its norm.
fn agrees(name: &str) {
    let fixture = Fixture::open(name);
    let mut model = fixture.model(&fixture.config);
    let leaves = model.leaves(None);
    let x = model.input(fixture.tensor("ids"), ROWS);
    let out = model.forward_tracked(&leaves, x, Mode::Eval, &mut Taps::none());

    let expected = fixture.tensor("logits");
    let deviation = norm(expected.iter().copied()) / (expected.len() as f64).sqrt();
    assert!(deviation >= 1.0, "{name}: {deviation}");
    let off = furthest(&slices::to_vec(&out.logits), &expected);
    assert!(off <= 1e-4, "{name}: the logits differ by {off}");

    let shape = out.logits.dims();
    let g = TensorData::new(fixture.tensor("seed"), shape);
    let g = Tensor::<2>::from_data(g, model.device());
    let mut gradients = seed(out.logits, g).backward();
    let mut found = Weights::zeros(model.layout());
    leaves.collect(&mut gradients, &mut found);
    for (entry, values) in found.iter() {
        let expected = fixture.tensor(&format!("gradient.{}", entry.path));
        let size = norm(expected.iter().copied());
        let off = norm(values.iter().zip(&expected).map(|(a, b)| a - b)) / size;
        assert!(
            off <= 1e-3,
            "{name}: the gradient of {} differs by {off} of {size}",
            entry.path
        );
    }
}

// A dynamic base is what stretches the context: without it the rows have to be let in.

fn without_rotary(c: &mut DecoderConfig) {
    c.context = c.longest();
    c.blocks.iter_mut().for_each(|b| b.rotary = None);
}

fn without_scaling(c: &mut DecoderConfig) {
    c.context = c.longest();
    for rotary in c.blocks.iter_mut().filter_map(|b| b.rotary.as_mut()) {
        rotary.scaling = Scaling::None;
    }
}

fn without_windows(c: &mut DecoderConfig) {
    c.blocks.iter_mut().for_each(|b| b.window = None);
}

/// A part and how it is switched off.
type Part<'a> = (&'a str, fn(&mut DecoderConfig));

/// Every named part moves the logits by more than 1e-2 when it is switched off.
fn matters(name: &str, parts: &[Part]) {
    let fixture = Fixture::open(name);
    for (part, switch_off) in parts {
        let moved = fixture.moved(switch_off);
        assert!(moved > 1e-2, "{name}: without {part} {moved}");
    }
}

#[test]
fn llama() {
    agrees("llama");
    matters(
        "llama",
        &[
            ("rotary", without_rotary),
            ("scaling", without_scaling),
            ("biases", |c| c.biases.mlp = false),
        ],
    );
    agrees("llama-tied");
    matters(
        "llama-tied",
        &[("rotary", without_rotary), ("scaling", without_scaling)],
    );
}

#[test]
fn qwen2() {
    agrees("qwen2");
    matters(
        "qwen2",
        &[
            ("rotary", without_rotary),
            ("scaling", without_scaling),
            ("windows", without_windows),
            ("biases", |c| c.biases.query_key_value = false),
        ],
    );
}

#[test]
fn qwen3() {
    agrees("qwen3");
    matters(
        "qwen3",
        &[
            ("rotary", without_rotary),
            ("scaling", without_scaling),
            ("windows", without_windows),
            ("query and key norms", |c| c.query_key_norm = false),
        ],
    );
}

#[test]
fn gemma() {
    for name in ["gemma2", "gemma3"] {
        agrees(name);
        matters(
            name,
            &[
                ("rotary", without_rotary),
                ("windows", without_windows),
                ("cap on logits", |c| c.logit_cap = None),
                ("scale of embeddings", |c| c.embedding_scale = 1.0),
                ("1 + w", |c| c.norm = NormKind::Rms { offset: 0.0 }),
            ],
        );
    }
    matters("gemma2", &[("cap on scores", |c| c.score_cap = None)]);
    matters(
        "gemma3",
        &[
            ("scaling", without_scaling),
            ("query and key norms", |c| c.query_key_norm = false),
        ],
    );
}

#[test]
fn gpt2() {
    agrees("gpt2");
    matters(
        "gpt2",
        &[
            ("learned positions", |c| c.learned_positions = false),
            ("the scale of later layers", |c| {
                c.blocks[1].scale = c.blocks[0].scale;
            }),
        ],
    );
}

#[test]
fn gpt_neox() {
    agrees("gpt-neox");
    agrees("gpt-neox-sequential");
    matters(
        "gpt-neox",
        &[
            ("rotary", without_rotary),
            ("the parallel residual", |c| c.parallel = false),
        ],
    );
}

#[test]
fn every_tap_is_met_and_a_replaced_one_changes_what_follows() {
    for name in ["llama", "qwen3", "gemma3", "gpt2", "gpt-neox"] {
        let fixture = Fixture::open(name);
        let mut model = fixture.model(&fixture.config);
        let names = model.network().taps();
        let mut taps = names.iter().fold(Taps::none(), Taps::read);
        let x = model.input(fixture.tensor("ids"), ROWS);
        model.forward(x.clone(), &mut taps);
        for tap in &names {
            assert!(taps.value(tap).is_some(), "{name}: {tap} was not met");
        }
        let tap = &names[names.len() / 2];
        let zero = taps.value(tap).expect("met").zeros_like();
        let mut taps = Taps::none().replace(tap.clone(), zero);
        let changed = slices::to_vec(&model.forward(x, &mut taps).logits);
        let moved = furthest(&changed, &fixture.tensor("logits"));
        assert!(moved > 1e-3, "{name}: {tap} replaced moves nothing");
    }
}

#[test]
fn the_gradient_at_a_tap_is_that_of_a_small_push() {
    let fixture = Fixture::open("gemma3");
    let mut model = fixture.model(&fixture.config);
    let tap = "model.layers.1.self_attn.out";
    let ids = fixture.tensor("ids");
    let g = fixture.tensor("seed");
    let value = |logits: &Tensor<2>| -> f64 {
        slices::read(logits, |z| {
            z.iter().zip(&g).map(|(z, g)| f64::from(z * g)).sum()
        })
    };

    let mut taps = Taps::none().read(tap).differentiate(tap);
    let leaves = model.leaves(None);
    let x = model.input(ids.clone(), ROWS);
    let out = model.forward_tracked(&leaves, x, Mode::Eval, &mut taps);
    let shape = out.logits.dims();
    let of = Tensor::<2>::from_data(TensorData::new(g.clone(), shape), model.device());
    let mut gradients = seed(out.logits, of).backward();
    let gradient = taps.gradient(tap, &mut gradients).expect("asked for");
    let gradient = gradient.inner();
    let at = taps.value(tap).expect("read").clone();

    let length = norm(slices::to_vec(&gradient).into_iter());
    let step = 1e-2;
    let mut pushed = |sign: f64| {
        let push = gradient.clone() * (sign * step / length);
        let mut taps = Taps::none().replace(tap, at.clone() + push);
        let x = model.input(ids.clone(), ROWS);
        value(&model.forward(x, &mut taps).logits)
    };
    let slope = (pushed(1.0) - pushed(-1.0)) / (2.0 * step);
    assert!((slope / length - 1.0).abs() < 1e-2, "{slope} {length}");
}

#[test]
fn packed_documents_do_not_see_each_other() {
    for name in ["qwen2", "gemma3", "gpt2"] {
        let fixture = Fixture::open(name);
        let decoder = Decoder::new(fixture.config.clone(), POSITIONS).expect("a network");
        let model = fixture.model(&fixture.config);
        let params = Params::new(&model.weights(), model.device());
        let ids: Vec<u32> = fixture.tensor("ids").iter().map(|&id| id as u32).collect();
        let mut buffers = model.buffers().clone();
        let mut run = |rows: &[&[u32]], packing: Option<&Packing>| {
            let x = decoder.tokens(rows, 0, model.device()).expect("its own");
            let mut pass = Pass {
                params: &params,
                buffers: &mut buffers,
                taps: &mut Taps::none(),
                mode: Mode::Eval,
            };
            let out = match packing {
                Some(packing) => decoder.forward_packed(x, packing, &mut pass).expect("fits"),
                None => decoder.forward(x, &mut pass),
            };
            slices::to_vec(&out.logits)
        };
        let (a, b) = ids[..14].split_at(8);
        let apart = [run(&[a], None), run(&[b], None)].concat();
        let packing = Packing {
            positions: (0..8).chain(0..6).collect(),
            documents: [vec![0; 8], vec![1; 6]].concat(),
        };
        let together = run(&[&ids[..14]], Some(&packing));
        assert!(furthest(&apart, &together) < 1e-4, "{name}");
        // What is filled in behind a shorter row changes nothing before it.
        let filled = run(&[a, &ids[..14]], None);
        let cut = 8 * fixture.config.vocabulary;
        assert!(furthest(&apart[..cut], &filled[..cut]) < 1e-4, "{name}");
    }
}

const SMOLLM2: &str = r#"{"architectures": ["LlamaForCausalLM"], "attention_bias": false,
    "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536, "max_position_embeddings": 8192, "model_type": "llama",
    "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
    "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 100000,
    "tie_word_embeddings": true, "vocab_size": 49152}"#;

#[test]
fn both_spellings_of_rotary_settings_mean_the_same() {
    let old = DecoderConfig::from_json(SMOLLM2).expect("SmolLM2");
    assert_eq!((old.head_width, old.heads, old.key_value_heads), (64, 9, 3));
    let new = SMOLLM2.replace(
        r#""rope_scaling": null, "rope_theta": 100000"#,
        r#""rope_parameters": {"rope_type": "default", "rope_theta": 100000}"#,
    );
    assert_ne!(new, SMOLLM2);
    assert_eq!(DecoderConfig::from_json(&new).expect("the same"), old);
    let decoder = Decoder::new(old, 16).expect("a network");
    assert_eq!(decoder.layout().len(), 134_515_008, "its published size");

    let gemma = r#"{"model_type": "gemma3_text", "hidden_size": 640, "head_dim": 256,
        "intermediate_size": 2048, "max_position_embeddings": 32768, "num_attention_heads": 4,
        "num_hidden_layers": 6, "num_key_value_heads": 1, "query_pre_attn_scalar": 256,
        "rope_local_base_freq": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "rope_theta": 1000000.0, "sliding_window": 512, "sliding_window_pattern": 6,
        "hidden_activation": "gelu_pytorch_tanh", "vocab_size": 262144}"#;
    let gemma = DecoderConfig::from_json(gemma).expect("Gemma 3");
    let rotary = |i: usize| gemma.blocks[i].rotary.expect("rotary");
    assert_eq!(gemma.blocks[0].window, Some(512));
    assert_eq!((rotary(0).theta, rotary(0).scaling), (1e4, Scaling::None));
    assert_eq!(gemma.blocks[5].window, None);
    let eight = Scaling::Linear { factor: 8.0 };
    assert_eq!((rotary(5).theta, rotary(5).scaling), (1e6, eight));
    assert!(gemma.tied);

    let pythia = r#"{"model_type": "gpt_neox", "hidden_size": 512, "intermediate_size": 2048,
        "max_position_embeddings": 2048, "num_attention_heads": 8, "num_hidden_layers": 6,
        "rotary_emb_base": 10000, "rotary_pct": 0.25, "use_parallel_residual": true,
        "hidden_act": "gelu", "layer_norm_eps": 1e-05, "vocab_size": 50304}"#;
    let pythia = DecoderConfig::from_json(pythia).expect("Pythia");
    assert_eq!(pythia.blocks[0].rotary.expect("rotary").width, 16);
    assert!(pythia.parallel && !pythia.tied);
}

#[test]
fn what_cannot_be_computed_is_refused_by_name() {
    let refused = |from: &str, to: &str, word: &str| {
        let text = SMOLLM2.replace(from, to);
        assert_ne!(text, SMOLLM2);
        let e = DecoderConfig::from_json(&text).expect_err("refused");
        assert!(e.to_string().contains(word), "{e}");
    };
    refused("\"llama\"", "\"mamba\"", "mamba");
    refused("\"llama\"", "\"gemma3\"", "gemma3_text");
    refused("\"model_type\"", "\"kind\"", "model_type");
    refused("\"silu\"", "\"mish\"", "mish");
    refused(
        "\"num_key_value_heads\": 3",
        "\"num_key_value_heads\": 2",
        "9 query heads",
    );
    refused(
        "\"rope_scaling\": null",
        r#""rope_scaling": {"type": "su"}"#,
        "`su`",
    );
    refused(
        "\"rope_scaling\": null",
        r#""rope_scaling": {"type": "linear"}"#,
        "factor",
    );
    refused(
        "\"rope_scaling\": null",
        r#""rope_scaling": {"type": "linear", "factor": 0}"#,
        "scaling",
    );
    refused(
        "\"hidden_size\": 576",
        "\"hidden_size\": 0",
        "must not be 0",
    );
    refused("\"vocab_size\": 49152}", "", "cannot be read");
    refused(
        "\"vocab_size\": 49152",
        "\"vocab_size\": \"many\"",
        "cannot be read",
    );

    let device = Device::flex();
    let config = Fixture::open("gpt2").config;
    assert!(
        Decoder::new(config.clone(), 17).is_err(),
        "beyond the learned positions"
    );
    let decoder = Decoder::new(config, 4).expect("a network");
    let error = |rows: &[&[u32]]| {
        decoder
            .tokens(rows, 0, &device)
            .expect_err("refused")
            .to_string()
    };
    assert!(error(&[]).contains("single token"));
    assert!(error(&[&[0, 32]]).contains("32"));
    assert!(error(&[&[0; 17]]).contains("17"));
}
