//! Merging as a user does it, on models of a few thousand numbers.

mod common;

use common::Desk;
use ebb_hub::{Adapter, AdapterConfig, Folder, FolderWriter, Tensors, Tokenizer};
use ebb_space::merge::{Rule, Task, task_vector};
use ebb_space::{Key, Layout, Weights};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// A llama of two blocks whose tokens are bytes; the numbers are drawn.
fn made(to: &Path, name: &str, like: Option<&Path>) -> Weights {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 257,
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "hidden_act": "silu", "torch_dtype": "float32",
    });
    let config = config.as_object().unwrap().clone();
    let mut entries = vec![
        ("model.embed_tokens.weight".to_owned(), vec![257, 16]),
        ("model.norm.weight".to_owned(), vec![16]),
    ];
    for block in 0..2 {
        for (module, shape) in [
            ("input_layernorm", vec![16]),
            ("mlp.down_proj", vec![16, 24]),
            ("mlp.gate_proj", vec![24, 16]),
            ("mlp.up_proj", vec![24, 16]),
            ("post_attention_layernorm", vec![16]),
            ("self_attn.k_proj", vec![8, 16]),
            ("self_attn.o_proj", vec![16, 16]),
            ("self_attn.q_proj", vec![16, 16]),
            ("self_attn.v_proj", vec![8, 16]),
        ] {
            entries.push((format!("model.layers.{block}.{module}.weight"), shape));
        }
    }
    let layout = Layout::new(entries).unwrap();
    let key = Key::new(1, name);
    let draws = (0..layout.len() as u64).map(|i| 0.1 * key.normal(i) as f32);
    let mut weights = Weights::from_vec(&layout, draws.collect()).unwrap();
    if let Some(base) = like {
        let base = Folder::open(base).unwrap().load(&layout).unwrap();
        weights.scale(0.1);
        weights.axpy(1.0, &base);
    }
    let mut tokenizer = Tokenizer::bytes().unwrap().files().unwrap();
    tokenizer[1].1 = tokenizer[1]
        .1
        .replacen('{', "{\"chat_template\": \"hello\",", 1);
    let mut writer = FolderWriter::new(config);
    for (name, text) in tokenizer {
        writer = writer.text(name, text);
    }
    writer.write(to, &weights).unwrap();
    weights
}

fn read(folder: &Path) -> Weights {
    Folder::open(folder).unwrap().load_all().unwrap()
}

/// Factors of rank 2 for two modules.
fn adapter(to: &Path, name: &str) -> Adapter {
    let key = Key::new(2, name);
    let draw = |n: u64, purpose: &str| -> Vec<f32> {
        (0..n)
            .map(|i| 0.3 * key.sub(purpose).normal(i) as f32)
            .collect()
    };
    let modules = [
        ("model.layers.0.self_attn.q_proj", 16, 16),
        ("model.layers.1.mlp.down_proj", 24, 16),
    ];
    let factors = modules.map(|(module, inputs, outputs)| {
        let a = draw(2 * inputs, &format!("a {module}"));
        let b = draw(2 * outputs, &format!("b {module}"));
        (module.to_owned(), inputs as usize, a, b)
    });
    let config = AdapterConfig::new(2, 4.0, ["q_proj", "down_proj"]);
    let adapter = Adapter::new(config, factors).unwrap();
    adapter.write(to).unwrap();
    adapter
}

/// A base, two models and two adapters.
struct Made {
    desk: Desk,
    base: Weights,
    tuned: [Weights; 2],
    adapters: [Adapter; 2],
}

impl Made {
    fn new() -> Made {
        let desk = Desk::new();
        made(&desk.path("base"), "base", None);
        let base = desk.path("base");
        for name in ["a", "b"] {
            made(&desk.path(name), name, Some(&base));
        }
        Made {
            base: read(&base),
            tuned: ["a", "b"].map(|name| read(&desk.path(name))),
            adapters: ["lora-1", "lora-2"].map(|name| adapter(&desk.path(name), name)),
            desk,
        }
    }

    fn read(&self, name: &str) -> Weights {
        read(&self.desk.path(name))
    }

    /// Nothing half-written stands about.
    fn is_tidy(&self) {
        for entry in fs::read_dir(self.desk.path("")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.contains("unfinished"), "{name}");
        }
    }
}

fn tasks(weights: &[f64]) -> Vec<Task> {
    let named = ["a", "b"].iter().zip(weights);
    named
        .map(|(name, &weight)| Task {
            name: (*name).to_owned(),
            weight,
        })
        .collect()
}

fn close(found: &Weights, want: &Weights) {
    assert_eq!(found.layout(), want.layout());
    let apart = found.squared_distance(want).sqrt();
    assert!(apart < 1e-6 * want.norm(), "{apart}");
}

#[test]
fn every_method_is_that_of_the_library_and_what_belongs_to_a_model_comes_along() {
    let made = Made::new();
    let key = Key::new(3, "merge");
    let taus = made.tuned.each_ref().map(|t| task_vector(t, &made.base));
    for (method, more, weights, rule) in [
        ("mean", &[][..], [1.0, 1.0], Rule::Mean),
        ("mean", &["--weight=1,3"], [1.0, 3.0], Rule::Mean),
        ("sum", &["--weight=1,-0.5"], [1.0, -0.5], Rule::Sum),
        ("ties", &[], [1.0, 1.0], Rule::Ties { density: 0.2 }),
        (
            "ties",
            &["--density=0.5", "--weight=2,1"],
            [2.0, 1.0],
            Rule::Ties { density: 0.5 },
        ),
        (
            "dare",
            &["--seed=3"],
            [1.0, 1.0],
            Rule::Dare { density: 0.5, key },
        ),
        (
            "dare-ties",
            &["--seed=3", "--density=0.3"],
            [1.0, 1.0],
            Rule::DareTies { density: 0.3, key },
        ),
        ("max-magnitude", &[], [1.0, 1.0], Rule::MaxMagnitude),
    ] {
        let out = format!("{method}{}", more.len());
        let args = [
            &["merge", "base", "a", "b", "-o", &out, "--method", method],
            more,
        ]
        .concat();
        made.desk.done(&args);
        let each: Vec<&Weights> = taus.iter().collect();
        let mut want = rule.merged(&tasks(&weights), &each).unwrap();
        want.axpy(1.0, &made.base);
        close(&made.read(&out), &want);
    }
    let text = |name: &str| fs::read_to_string(made.desk.path(name)).unwrap();
    assert_eq!(text("mean0/tokenizer.json"), text("base/tokenizer.json"));
    assert!(text("mean0/tokenizer_config.json").contains("hello"));
    made.desk.done(&["generate", "mean0", "x", "-n", "3"]);
    made.is_tidy();
}

#[test]
fn an_adapter_is_merged_as_a_product_and_taken_away_again() {
    let made = Made::new();
    let mut want = made.base.clone();
    for adapter in &made.adapters {
        adapter.merge_into(&mut want).unwrap();
    }
    let merge = |args: &[&str]| made.desk.done(&[&["merge", "--method=sum"], args].concat());
    merge(&["base", "lora-1", "lora-2", "-o", "both"]);
    close(&made.read("both"), &want);
    merge(&["both", "lora-1", "lora-2", "--weight=-1", "-o", "neither"]);
    close(&made.read("neither"), &made.base);
    // A model and an adapter in one merge.
    merge(&["base", "a", "lora-2", "-o", "mixed"]);
    let mut want = made.tuned[0].clone();
    made.adapters[1].merge_into(&mut want).unwrap();
    close(&made.read("mixed"), &want);
}

#[test]
fn layers_are_scaled_by_depth() {
    let made = Made::new();
    let merge = |layers: &str, out: &str| {
        made.desk
            .done(&["merge", "base", "a", "--layers", layers, "-o", out])
    };
    merge("1,0", "whole");
    close(&made.read("whole"), &made.tuned[0]);
    let text = merge("0", "ramp");
    assert!(text.contains("2 blocks"), "{text}");
    let ramp = made.read("ramp");
    for (entry, values) in ramp.iter() {
        // α = 0: the first block and what is in none are the base's, the last block is the tuned.
        let from = if entry.path.contains(".1.") {
            &made.tuned[0]
        } else {
            &made.base
        };
        for (found, want) in values.iter().zip(from.get(&entry.path).unwrap()) {
            assert!((found - want).abs() < 1e-7, "{}", entry.path);
        }
    }
}

#[test]
fn the_summary_says_norms_cosines_and_conflicts() {
    let made = Made::new();
    let found = made.desk.json(&[
        "merge", "base", "a", "b", "-m", "sum", "-o", "out", "--json",
    ]);
    let taus = made.tuned.each_ref().map(|t| task_vector(t, &made.base));
    let near = |found: &Value, want: f64| {
        let found = found.as_f64().unwrap();
        assert!(
            (found - want).abs() < 1e-5 * want.abs().max(1.0),
            "{found} {want}"
        );
    };
    near(&found["sources"][1]["norm"], taus[1].norm());
    near(&found["base_norm"], made.base.norm());
    let cosine = taus[0].dot(&taus[1]) / taus[0].norm() / taus[1].norm();
    near(&found["cosines"][0][1], cosine);
    near(&found["cosines"][1][1], 1.0);
    let pairs = || taus[0].as_slice().iter().zip(taus[1].as_slice());
    let conflicts = pairs().filter(|(a, b)| **a * **b < 0.0).count();
    let changed = pairs().filter(|(a, b)| **a != 0.0 || **b != 0.0).count();
    near(&found["sign_conflicts"], conflicts as f64 / changed as f64);
    near(&found["lines_alpha"], 0.5);
    assert_eq!(found["sources"][0]["name"], "a");
    assert_eq!(found["parameters"], made.base.layout().len());
    // The same bytes from one thread.
    let again = [
        "merge",
        "base",
        "a",
        "b",
        "-m",
        "sum",
        "-o",
        "one",
        "--threads=1",
    ];
    let text = made.desk.done(&again);
    assert!(
        text.contains("sign conflicts") && text.contains("LiNeS"),
        "{text}"
    );
    let bytes = |name: &str| fs::read(made.desk.path(name).join("model.safetensors")).unwrap();
    assert_eq!(bytes("out"), bytes("one"));
}

#[test]
fn what_does_not_fit_is_refused_with_the_reason_and_leaves_nothing() {
    let made = Made::new();
    let desk = &made.desk;
    let refused = |args: &[&str], says: &str| {
        let error = desk.fails(&[&["merge"], args, &["-o", "out"]].concat());
        assert!(error.contains(says), "{args:?}: {error}");
        assert!(!desk.path("out").exists(), "{args:?}");
        made.is_tidy();
    };
    // A copy of `a` with another text in one of its files.
    let other = |name: &str, file: &str, from: &str, to: &str| {
        let folder = desk.path(name);
        fs::create_dir(&folder).unwrap();
        for entry in fs::read_dir(desk.path("a")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
        let text = fs::read_to_string(folder.join(file)).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(folder.join(file), text.replace(from, to)).unwrap();
    };
    other(
        "heads",
        "config.json",
        "\"num_attention_heads\": 2",
        "\"num_attention_heads\": 4",
    );
    refused(
        &["base", "heads"],
        "its `num_attention_heads` is 4, the base has 2",
    );
    other("gpt", "config.json", "\"llama\"", "\"gpt2\"");
    refused(&["base", "gpt"], "model_type");
    other("words", "tokenizer.json", "\"A\"", "\"ŻŻ\"");
    refused(&["base", "words"], "their tokenizers differ: token");
    // Another shape, a missing tensor, and one too many.
    let layout = made.base.layout();
    let config = Folder::open(desk.path("a")).unwrap().config().clone();
    let written = |name: &str, entries: Vec<(String, Vec<usize>)>| {
        let zeros = Weights::zeros(&Layout::new(entries).unwrap());
        FolderWriter::new(config.clone())
            .write(desk.path(name), &zeros)
            .unwrap();
    };
    let entries: Vec<(String, Vec<usize>)> = layout
        .entries()
        .iter()
        .map(|e| (e.path.clone(), e.shape.clone()))
        .collect();
    let mut wide = entries.clone();
    wide[0].1[0] += 1;
    written("wide", wide);
    refused(
        &["base", "wide"],
        "has the shape [258, 16], the base's [257, 16]",
    );
    written("short", entries[1..].to_vec());
    refused(
        &["base", "a", "short"],
        "it has no tensor `model.embed_tokens.weight`",
    );
    written(
        "long",
        [entries, vec![("model.more".into(), vec![1])]].concat(),
    );
    refused(&["base", "long"], "it has a tensor `model.more`");
    // What is no number.
    let mut broken = made.tuned[0].clone();
    broken.as_mut_slice()[77] = f32::NAN;
    FolderWriter::new(config)
        .write(desk.path("nan"), &broken)
        .unwrap();
    refused(&["base", "nan"], "no finite number");
    // An adapter of another model.
    let config = AdapterConfig::new(1, 1.0, ["q_proj"]);
    let factors = [(
        "model.layers.7.q_proj".into(),
        2,
        vec![1.0; 2],
        vec![1.0; 2],
    )];
    let foreign = Adapter::new(config, factors).unwrap();
    foreign.write(desk.path("foreign")).unwrap();
    refused(&["base", "foreign"], "belongs to another model");
    // Settings.
    refused(&["base"], "nothing to merge");
    refused(&["base", "a", "a"], "given twice");
    refused(
        &["base", "a", "b", "--weight=1,2,3"],
        "3 weights for 2 sources",
    );
    refused(&["base", "a", "--density=0.5"], "no density");
    refused(&["base", "a", "--method=ties", "--density=0"], "no share");
    refused(&["base", "a", "--weight=-1"], "weights above 0");
    refused(&["base", "a", "b", "--layers=0.5"], "two numbers");
    refused(&["base", "nowhere"], "there is no model `nowhere`");
    let error = desk.fails(&["merge", "base", "a", "-o", "b"]);
    assert!(error.contains("is there already"), "{error}");
}

#[test]
fn adapters_are_kept_together_and_rebuilt() {
    let made = Made::new();
    let desk = &made.desk;
    adapter(&desk.path("lora-3"), "lora-3");
    let loras = ["lora-1", "lora-2", "lora-3"];
    let keep = |p: &str, out: &str| {
        let args = [
            &["merge", "--reversible", p],
            &loras[..],
            &["-o", out, "--json"],
        ];
        desk.json(&args.concat())
    };
    // Two directions for three adapters are all there are.
    let whole = keep("2", "all.safetensors");
    let error = |found: &Value, i: usize| found["adapters"][i]["error"].as_f64().unwrap();
    for i in 0..3 {
        assert!(error(&whole, i) < 1e-5, "{whole}");
    }
    assert_eq!(whole["directions"], 2.0);
    desk.done(&[
        "merge",
        "--extract",
        "lora-2",
        "all.safetensors",
        "-o",
        "again",
    ]);
    let again = Adapter::open(desk.path("again")).unwrap();
    for (module, pair) in made.adapters[1].pairs() {
        let update = again.pairs()[module].update();
        for (found, want) in update.iter().zip(pair.update()) {
            assert!((found - want).abs() < 1e-5, "{module}");
        }
    }
    // With fewer something is lost, and the file is smaller.
    let half = keep("1", "half.safetensors");
    assert!(error(&half, 0) > 0.01, "{half}");
    assert!(half["values"].as_u64() < whole["values"].as_u64());
    let text = desk.done(&[
        "merge",
        "--extract",
        "lora-1",
        "half.safetensors",
        "-o",
        "part",
    ]);
    assert!(text.contains("2 modules"), "{text}");
    // What is asked for must be there, and be such a file.
    for (args, says) in [
        (
            ["--extract=lora-9", "all.safetensors"],
            "it holds lora-1, lora-2, lora-3",
        ),
        (
            ["--extract=lora-1", "a/model.safetensors"],
            "no file of adapters",
        ),
        (["--reversible=1", "base"], "no folder of an adapter"),
        (["--reversible=1", "lora-1"], "give two or more"),
    ] {
        let error = desk.fails(&[&["merge"], &args[..], &["-o", "out"]].concat());
        assert!(error.contains(says), "{error}");
        assert!(!desk.path("out").exists());
    }
    // A file that was cut short or altered is refused.
    let bytes = fs::read(desk.path("half.safetensors")).unwrap();
    for (at, byte) in [(bytes.len() / 2, None), (60, Some(b'x')), (200, Some(b'9'))] {
        let mut altered = bytes.clone();
        match byte {
            None => altered.truncate(at),
            Some(byte) => altered[at] = byte,
        }
        fs::write(desk.path("altered.safetensors"), &altered).unwrap();
        let args = [
            "merge",
            "--extract=lora-1",
            "altered.safetensors",
            "-o",
            "out",
        ];
        let out = desk.ebb(&args);
        assert!(!String::from_utf8_lossy(&out.stderr).contains("panicked"));
    }
    made.is_tidy();
}
