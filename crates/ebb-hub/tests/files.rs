//! Folders and GGUF files against what the packages of their inventors make of them. The files
//! come from `fixtures/make_files.py`.

use std::fs;
use std::path::{Path, PathBuf};

use ebb_hub::{BlockType, Error, Folder, FolderWriter, Gguf, NumberType, Tensors};
use serde_json::{Map, Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn floats(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).expect("a fixture");
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// A folder of one safetensors file of the fixtures, to open as a model.
fn folder_of(file: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let to = dir.path().join("model.safetensors");
    fs::copy(fixtures().join(file), to).expect("copied");
    fs::write(dir.path().join("config.json"), "{}").expect("written");
    dir
}

#[test]
fn every_block_type_is_dequantised_to_the_bits_of_the_gguf_package() {
    let gguf = Gguf::open(fixtures().join("blocks.gguf")).expect("a file");
    let expected = floats(&fixtures().join("blocks.f32"));
    let types = gguf.metadata()["test.types"].as_array().expect("a list");
    let types = types.texts().expect("texts");
    assert_eq!(types.len(), 11);
    for (i, kind) in types.iter().enumerate() {
        let name = format!("model.layers.{i}.mlp.up_proj.weight");
        let found = gguf.block_type(&name).map(|b| format!("{b:?}"));
        assert_eq!(found.as_ref(), Some(kind));
        let values = gguf.read(&name).expect("a tensor");
        let expected = &expected[1024 * i..][..1024];
        assert_eq!(bits(&values), bits(expected), "{kind:?}");
    }
    assert_eq!(gguf.block_type("nothing"), None::<BlockType>);
}

#[test]
fn models_in_gguf_have_the_names_shapes_and_values_of_transformers() {
    for model in ["llama", "qwen2", "qwen3", "gemma3", "gpt2", "gptneox"] {
        let gguf = Gguf::open(fixtures().join(format!("{model}.gguf"))).expect(model);
        let dir = folder_of(&format!("{model}.safetensors"));
        let folder = Folder::open(dir.path()).expect(model);
        assert_eq!(gguf.tensors(), folder.tensors(), "{model}");
        let (ours, theirs) = (
            gguf.load_all().expect(model),
            folder.load_all().expect(model),
        );
        // Adding one to a norm and taking it away again rounds.
        let most = if model == "gemma3" { 2e-7 } else { 0.0 };
        for (entry, values) in ours.iter() {
            let expected = theirs.get(&entry.path).expect("the same names");
            let apart = values.iter().zip(expected).map(|(a, b)| (a - b).abs());
            assert!(apart.fold(0.0, f32::max) <= most, "{model} {}", entry.path);
        }
    }
}

#[test]
fn the_configuration_of_a_gguf_file_is_that_of_its_model() {
    let config = |model: &str| {
        let gguf = Gguf::open(fixtures().join(format!("{model}.gguf"))).expect(model);
        Value::Object(gguf.config().expect(model))
    };
    let llama = config("llama");
    for (key, value) in [
        ("model_type", json!("llama")),
        ("vocab_size", json!(12)),
        ("hidden_size", json!(8)),
        ("num_hidden_layers", json!(2)),
        ("num_attention_heads", json!(2)),
        ("num_key_value_heads", json!(1)),
        ("head_dim", json!(4)),
        ("intermediate_size", json!(12)),
        ("max_position_embeddings", json!(32)),
        ("rms_norm_eps", json!(1e-5)),
        ("rope_theta", json!(10000.0)),
        ("tie_word_embeddings", json!(false)),
        ("attention_bias", json!(true)),
        ("mlp_bias", json!(false)),
    ] {
        assert_eq!(llama[key], value, "{key}");
    }
    let gemma = config("gemma3");
    assert_eq!(gemma["model_type"], "gemma3_text");
    assert_eq!(gemma["head_dim"], 6);
    assert_eq!(gemma["sliding_window"], 4);
    assert_eq!(gemma["tie_word_embeddings"], true);
    assert_eq!(config("qwen3")["attention_bias"], false);
    assert_eq!(config("gpt2")["n_inner"], 32);
    assert_eq!(config("gptneox")["rotary_pct"], 0.5);
}

#[test]
fn shards_are_read_as_one_model_and_every_number_type_becomes_f32() {
    let folder = Folder::open(fixtures().join("sharded")).expect("a folder");
    let expected: Map<String, Value> =
        serde_json::from_slice(&fs::read(fixtures().join("sharded.json")).expect("read"))
            .expect("JSON");
    assert_eq!(folder.tensors().len(), expected.len());
    for (name, values) in &expected {
        let values = values.as_array().expect("a list");
        let values: Vec<f32> = values
            .iter()
            .map(|v| v.as_f64().expect("a number") as f32)
            .collect();
        assert_eq!(
            bits(&folder.read(name).expect("a tensor")),
            bits(&values),
            "{name}"
        );
    }
    assert_eq!(folder.number_type("a.weight"), Some(NumberType::F32));
    assert_eq!(folder.number_type("b.weight"), Some(NumberType::F16));
    assert_eq!(folder.number_type("c.bias"), Some(NumberType::BF16));
    assert_eq!(folder.config()["hidden_size"], 4);
    assert!(folder.generation_config().expect("none").is_none());
}

#[test]
fn what_is_written_is_read_again_whole_and_in_shards() {
    let folder = Folder::open(fixtures().join("sharded")).expect("a folder");
    let weights = folder.load_all().expect("weights");
    let dir = tempfile::tempdir().expect("a folder");
    let base = dir.path().join("base");
    fs::create_dir(&base).expect("made");
    fs::write(base.join("tokenizer.json"), "{}").expect("written");
    for (i, bytes) in [usize::MAX, 40].into_iter().enumerate() {
        let to = dir.path().join(format!("new/model-{i}"));
        FolderWriter::new(folder.config().clone())
            .shard_bytes(bytes)
            .companions_of(&base)
            .text("generation_config.json", "{\"max_length\": 9}")
            .write(&to, &weights)
            .expect("written");
        assert_eq!(
            to.join("model.safetensors.index.json").exists(),
            bytes == 40
        );
        let again = Folder::open(&to).expect("a folder");
        assert_eq!(again.config()["torch_dtype"], "float32");
        assert_eq!(
            again.generation_config().expect("JSON").expect("there")["max_length"],
            9
        );
        let read = again.load_all().expect("weights");
        assert_eq!(read.layout(), weights.layout());
        assert_eq!(bits(read.as_slice()), bits(weights.as_slice()));
        assert!(to.join("tokenizer.json").exists());
        let refused = FolderWriter::new(Map::new()).write(&to, &weights);
        assert!(matches!(refused, Err(Error::Exists { .. })), "{refused:?}");
    }
    assert_eq!(
        fs::read_dir(dir.path().join("new")).expect("there").count(),
        2
    );
}

#[test]
fn what_is_missing_is_said() {
    let dir = tempfile::tempdir().expect("a folder");
    let error = |says: &str| {
        let error = Folder::open(dir.path()).expect_err("no model").to_string();
        assert!(error.contains(says), "{error}");
    };
    error("`config.json`");
    fs::write(dir.path().join("config.json"), "[1]").expect("written");
    error("no JSON object");
    fs::write(dir.path().join("config.json"), "{}").expect("written");
    error("`model.safetensors`");
    fs::write(dir.path().join("pytorch_model.bin"), "").expect("written");
    error("pickled");
    let index = dir.path().join("model.safetensors.index.json");
    fs::write(&index, "{}").expect("written");
    error("weight_map");
    fs::write(&index, r#"{"weight_map": {"a": "../x"}}"#).expect("written");
    error("no file of this folder");
    fs::write(&index, r#"{"weight_map": {"a": "x"}}"#).expect("written");
    error("shard `x`");
    fs::copy(fixtures().join("llama.safetensors"), dir.path().join("x")).expect("copied");
    error("holds `a`");

    let folder = Folder::open(fixtures().join("sharded")).expect("a folder");
    assert!(matches!(folder.read("d"), Err(Error::Tensor { .. })));
    assert!(matches!(
        folder.read_into("a.weight", &mut [0.0; 3]),
        Err(Error::Tensor { .. })
    ));
}

#[test]
fn a_gguf_file_of_another_kind_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("x.gguf");
    let llama = fs::read(fixtures().join("llama.gguf")).expect("a fixture");
    let refuse = |bytes: &[u8], says: &str| {
        fs::write(&path, bytes).expect("written");
        let error = Gguf::open(&path).expect_err("refused").to_string();
        assert!(error.contains(says), "{error}");
    };
    refuse(b"", "");
    refuse(b"PK\x03\x04 something else", "no GGUF file");
    refuse(b"GGUF\x01\0\0\0", "version 1");
    refuse(b"GGUF\0\0\0\x03", "big-endian");
    refuse(b"GGUF\x09\0\0\0", "version 9");
    refuse(b"GGUF\x03\0\0\0", "in all");
    let replaced = |from: &[u8], to: &[u8]| {
        let at = llama
            .windows(from.len())
            .position(|w| w == from)
            .expect("in the file");
        let mut bytes = llama.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    };
    refuse(
        &replaced(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0mamba"),
        "`mamba`",
    );
    refuse(&replaced(b"token_embd", b"token_embt"), "token_embt");
    refuse(&llama[..llama.len() - 40], "ends at byte");
    // The number of tensors, of metadata entries, and the length of the first key.
    for at in [8, 16, 24] {
        let mut bytes = llama.clone();
        bytes[at..at + 8].fill(255);
        refuse(&bytes, "");
    }
}
