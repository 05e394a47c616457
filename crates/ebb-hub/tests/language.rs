//! Tokenizers, chat templates and adapters against transformers, sentencepiece and peft. The
//! files come from `fixtures/make_language.py`.

use std::fs;
use std::path::{Path, PathBuf};

use ebb_hub::{
    Adapter, AdapterConfig, ChatOptions, ChatTemplate, Error, Folder, Gguf, Message, Tensors,
    Tokenizer,
};
use serde_json::{Map, Value};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn expected(part: &str) -> Value {
    let bytes = fs::read(fixtures().join("language.json")).expect("a fixture");
    let mut all: Value = serde_json::from_slice(&bytes).expect("JSON");
    all[part].take()
}

/// Every awkward text gives the tokens, and the tokens the text, that the oracle has.
fn agrees(tokenizer: &Tokenizer, rows: &Value, special: bool, what: &str) {
    for row in rows.as_array().expect("rows") {
        let text = row["text"].as_str().expect("a text");
        let ids: Vec<u32> = serde_json::from_value(row["ids"].clone()).expect("numbers");
        assert_eq!(
            tokenizer.encode(text, special).expect("tokens"),
            ids,
            "{what}: {text:?}"
        );
        let back = tokenizer.decode(&ids, special).expect("a text");
        assert_eq!(
            back,
            row["back"].as_str().expect("a text"),
            "{what}: {text:?}"
        );
    }
}

#[test]
fn tokenizers_of_folders_and_of_gguf_files_agree_with_transformers() {
    let kinds = expected("byte_level");
    for (kind, rows) in kinds.as_object().expect("kinds") {
        let folder =
            Tokenizer::open(fixtures().join(format!("tokenizer-{kind}"))).expect("a folder");
        let gguf = Gguf::open(fixtures().join(format!("tokenizer-{kind}.gguf"))).expect("a file");
        let gguf = Tokenizer::from_gguf(&gguf).expect("a tokenizer");
        for (tokenizer, from) in [(&folder, "folder"), (&gguf, "gguf")] {
            agrees(tokenizer, rows, false, &format!("{kind} of a {from}"));
            let stored = fs::read(fixtures().join(format!("tokenizer-{kind}/tokenizer.json")));
            let stored: Value = serde_json::from_slice(&stored.expect("a fixture")).expect("JSON");
            let words = stored["model"]["vocab"].as_object().expect("tokens");
            assert_eq!(tokenizer.len(), words.len());
            assert_eq!(tokenizer.id("<|im_end|>"), Some(2));
            assert_eq!(tokenizer.token(1).as_deref(), Some("<|im_start|>"));
            assert_eq!(tokenizer.special().bos.as_deref(), Some("<|im_start|>"));
            let chat = tokenizer.chat().expect("a template");
            let prompt = chat.render(&[Message::new("user", "x")], &ChatOptions::default());
            assert_eq!(prompt.expect("a prompt"), "<|im_start|>x");
        }
    }
}

#[test]
fn scores_of_sentencepiece_give_its_tokens() {
    let gguf = Gguf::open(fixtures().join("tokenizer-spm.gguf")).expect("a file");
    let tokenizer = Tokenizer::from_gguf(&gguf).expect("a tokenizer");
    agrees(
        &tokenizer,
        &expected("sentence_piece"),
        false,
        "sentencepiece",
    );
    let with = tokenizer.encode("a", true).expect("tokens");
    assert_eq!(tokenizer.token(with[0]).as_deref(), Some("<s>"));
}

#[test]
fn a_tokenizer_of_a_gguf_file_is_written_as_a_folder_has_it() {
    let gguf = Gguf::open(fixtures().join("tokenizer-smollm.gguf")).expect("a file");
    let tokenizer = Tokenizer::from_gguf(&gguf).expect("a tokenizer");
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in tokenizer.files().expect("files") {
        fs::write(dir.path().join(name), text).expect("written");
    }
    let again = Tokenizer::open(dir.path()).expect("a tokenizer");
    agrees(&again, &expected("byte_level")["smollm"], false, "written");
    assert_eq!(again.special(), tokenizer.special());
    assert!(again.chat().is_ok());
}

#[test]
fn what_a_tokenizer_lacks_is_said() {
    let dir = tempfile::tempdir().expect("a folder");
    let error = |says: &str| {
        let error = Tokenizer::open(dir.path())
            .expect_err("no tokenizer")
            .to_string();
        assert!(error.contains(says), "{error}");
    };
    error("`tokenizer.json`");
    fs::write(dir.path().join("vocab.json"), "{}").expect("written");
    error("older format");
    fs::write(dir.path().join("tokenizer.json"), "{}").expect("written");
    error("no valid tokenizer");
    let from = fixtures().join("tokenizer-gpt-2/tokenizer.json");
    fs::copy(from, dir.path().join("tokenizer.json")).expect("copied");
    let plain = Tokenizer::open(dir.path()).expect("a tokenizer");
    let error = plain.chat().expect_err("no template").to_string();
    assert!(error.contains("base model"), "{error}");
    let llama = Gguf::open(fixtures().join("llama.gguf")).expect("a file");
    assert!(matches!(
        Tokenizer::from_gguf(&llama),
        Err(Error::Missing { .. })
    ));
}

#[test]
fn prompts_are_those_of_transformers() {
    let tokens: Map<String, Value> = [
        ("bos_token", "<|im_start|>"),
        ("eos_token", "<|im_end|>"),
        ("pad_token", "<|endoftext|>"),
    ]
    .into_iter()
    .map(|(key, token)| (key.to_owned(), token.into()))
    .collect();
    let mut refused = 0;
    for row in expected("chats").as_array().expect("rows") {
        let source = row["template"].as_str().expect("a template");
        let template = ChatTemplate::new(source, tokens.clone()).expect("valid Jinja");
        let messages: Vec<Message> =
            serde_json::from_value(row["messages"].clone()).expect("messages");
        let options = ChatOptions {
            add_generation_prompt: row["add_generation_prompt"] == true,
            tools: row["tools"].as_array().cloned(),
            now: row["now"].as_u64(),
            ..ChatOptions::default()
        };
        match (template.render(&messages, &options), row.get("prompt")) {
            (Ok(prompt), Some(expected)) => assert_eq!(prompt, expected.as_str().expect("text")),
            (Err(error), None) => {
                let reason = row["refused"].as_str().expect("a reason");
                assert!(error.to_string().contains(reason), "{error}");
                refused += 1;
            }
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }
    assert!(refused > 0);
}

/// The tensors of a safetensors file, as a folder.
fn weights(file: &Path) -> ebb_space::Weights {
    let dir = tempfile::tempdir().expect("a folder");
    fs::copy(file, dir.path().join("model.safetensors")).expect("copied");
    fs::write(dir.path().join("config.json"), "{}").expect("written");
    Folder::open(dir.path())
        .and_then(|f| f.load_all())
        .expect("weights")
}

#[test]
fn adapters_of_peft_are_merged_as_peft_merges_them() {
    for name in ["plain", "rslora"] {
        let folder = fixtures().join(format!("adapter-{name}"));
        let adapter = Adapter::open(&folder).expect(name);
        assert_eq!(adapter.pairs().len(), 2);
        assert_eq!(adapter.config().r, 2);
        let base = weights(&folder.join("base.safetensors"));
        let mut ours = base.clone();
        adapter.merge_into(&mut ours).expect("merged");
        let theirs = weights(&folder.join("merged.safetensors"));
        for (entry, values) in ours.iter() {
            let expected = theirs.get(&entry.path).expect("the same names");
            let apart = values.iter().zip(expected).map(|(a, b)| (a - b).abs());
            assert!(apart.fold(0.0, f32::max) < 1e-6, "{name} {}", entry.path);
        }
        assert!(
            ours.squared_distance(&base) > 1e-3,
            "the adapter does something"
        );

        let dir = tempfile::tempdir().expect("a folder");
        let to = dir.path().join("adapter");
        adapter.write(&to).expect("written");
        assert_eq!(Adapter::open(&to).expect("read"), adapter);
        assert!(matches!(adapter.write(&to), Err(Error::Exists { .. })));
    }
}

#[test]
fn adapters_of_another_kind_or_model_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let from = fixtures().join("adapter-plain");
    fs::copy(
        from.join("adapter_model.safetensors"),
        dir.path().join("adapter_model.safetensors"),
    )
    .expect("copied");
    let text = fs::read_to_string(from.join("adapter_config.json")).expect("a fixture");
    let config: Map<String, Value> = serde_json::from_str(&text).expect("JSON");
    for (key, value) in [
        ("peft_type", Value::from("IA3")),
        ("bias", "all".into()),
        ("use_dora", true.into()),
        ("modules_to_save", vec!["lm_head"].into()),
        ("r", "two".into()),
    ] {
        let mut config = config.clone();
        config.insert(key.into(), value);
        let text = serde_json::to_string(&config).expect("JSON");
        fs::write(dir.path().join("adapter_config.json"), text).expect("written");
        assert!(Adapter::open(dir.path()).is_err(), "{key}");
    }
    let adapter = Adapter::open(&from).expect("an adapter");
    let mut other = weights(&fixtures().join("gpt2.safetensors"));
    assert!(matches!(
        adapter.merge_into(&mut other),
        Err(Error::Mismatch(_))
    ));
    let odd = Adapter::new(
        AdapterConfig::new(2, 1.0, ["q"]),
        [("q".into(), 3, vec![0.0; 4], vec![])],
    );
    assert!(matches!(odd, Err(Error::Mismatch(_))));
}

#[test]
fn what_the_library_of_tokenizers_would_believe_is_refused() {
    let from = fixtures().join("written/byte-pairs-of-words.json");
    let whole: Value = serde_json::from_slice(&fs::read(from).expect("a fixture")).expect("JSON");
    let dir = tempfile::tempdir().expect("a folder");
    let open = |change: &dyn Fn(&mut Value)| {
        let mut json = whole.clone();
        change(&mut json);
        fs::write(dir.path().join("tokenizer.json"), json.to_string()).expect("written");
        Tokenizer::open(dir.path())
    };
    let tokenizer = open(&|_| {}).expect("a tokenizer");
    assert_eq!(tokenizer.encode("its", false).expect("tokens"), [6]);
    let refused = |says: &str, change: &dyn Fn(&mut Value)| {
        let error = open(change).expect_err("refused").to_string();
        assert!(error.contains(says), "{error}");
    };
    refused("merge to no token", &|json| {
        json["model"]["merges"][0] = "its</w> its</w>".into();
    });
    refused("numbers one of them", &|json| {
        json["model"]["vocab"]["i"] = 4_000_000_000u32.into();
    });
    // Eight gigabytes, by the first four bytes of the table.
    refused("compiled table", &|json| {
        let table =
            serde_json::json!({ "type": "Precompiled", "precompiled_charsmap": "/////w==" });
        json["normalizer"] = serde_json::json!({ "type": "Sequence", "normalizers": [table] });
    });
    // The library panics on what is left by `stop`, when a text is decoded.
    let cut = open(&|json| {
        let strip = serde_json::json!({ "type": "Strip", "content": "i", "start": 0, "stop": 9 });
        json["decoder"] = strip;
    });
    let cut = cut.expect("a tokenizer").decode(&[0], false);
    assert!(matches!(cut, Err(Error::Tokenize(_))), "{cut:?}");
}

#[test]
fn truncation_and_padding_of_a_file_are_left_aside() {
    let dir = tempfile::tempdir().expect("a folder");
    let from = fixtures().join("written/word-piece.json");
    fs::copy(from, dir.path().join("tokenizer.json")).expect("copied");
    let tokenizer = Tokenizer::open(dir.path()).expect("a tokenizer");
    for (text, ids) in [
        ("its", vec![2, 3, 4]),
        ("its its its", vec![2, 3, 4, 3, 4, 3, 4]),
    ] {
        assert_eq!(tokenizer.encode(text, true).expect("tokens"), ids);
    }
}
