//! SmolLM2-135M as `transformers` computes it, from the same GGUF file. Fetches the file (98 MB)
//! if it is not on this machine yet.

use ebb_lm::score::{Set, score};
use ebb_lm::{Ended, LanguageModel, Message, Start, Writing};
use ebb_net::decoder::Question;
use serde_json::Value;

fn model() -> LanguageModel {
    let dir = ebb_data::data_dir().expect("a data folder");
    let known = &ebb_data::models()[0];
    ebb_data::fetch(known.name, &dir, &mut |_| {}).expect("the model");
    LanguageModel::open(known.path(&dir).expect("its file")).expect("it opens")
}

fn list<T>(value: &Value, of: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    let values = value.as_array().expect("a list");
    values.iter().map(|v| of(v).expect("of its kind")).collect()
}

#[test]
fn smollm2_is_that_of_transformers_and_comes_back_from_a_folder() {
    let expected = include_str!("fixtures/smollm2.json");
    let expected: Value = serde_json::from_str(expected).expect("a fixture");
    let mut model = model();
    let decoder = model.decoder.clone();
    for case in expected["cases"].as_array().expect("cases") {
        let text = case["text"].as_str().expect("a text");
        let tokens: Vec<u32> = list(&case["tokens"], |v| Some(v.as_u64()? as u32));
        assert_eq!(model.tokenizer.encode(text, false).expect("tokens"), tokens);
        assert_eq!(
            model.tokenizer.decode(&tokens, false).expect("a text"),
            text
        );
        // Differences of log-probabilities are differences of logits.
        let ids: Vec<u32> = list(&case["ids"], |v| Some(v.as_u64()? as u32));
        let logits: Vec<f64> = list(&case["logits"], Value::as_f64);
        let choices: Vec<&[u32]> = ids.iter().map(std::slice::from_ref).collect();
        let asked = Question {
            prompt: &tokens,
            choices: &choices,
        };
        let scored = decoder.choices(&mut model.model, &[asked]).expect("scores");
        let found: Vec<f64> = scored[0].iter().map(|s| s.log_likelihood()).collect();
        let off = |of: &[f64], i: usize| of[i] - of[0];
        for (i, id) in ids.iter().enumerate() {
            let apart = off(&found, i) - off(&logits, i);
            assert!(apart.abs() < 1e-3, "{text}: token {id} is {apart} off");
        }
        let losses = decoder.losses(&mut model.model, &tokens, 64, 32);
        let sum: f64 = losses.expect("losses").iter().sum();
        let theirs = case["log_likelihood"].as_f64().expect("a number");
        assert!(
            (sum + theirs).abs() < 1e-3,
            "{text}: {sum} against {theirs}"
        );
        let greedy: Vec<u32> = list(&case["greedy"], |v| Some(v.as_u64()? as u32));
        let start = Start { example: 0, tokens };
        let how = Writing {
            most: greedy.len(),
            ..Writing::default()
        };
        let mut told = String::new();
        let made = model.write(&[start], &how, |_, piece| told.push_str(piece));
        let made = made.expect("a text");
        assert!(greedy.starts_with(&made[0].tokens), "{made:?}");
        assert!(made[0].text.starts_with(&told));
        let whole = made[0].tokens.len() == greedy.len();
        assert!(whole || made[0].ended == Ended::End);
    }
    // The conversation as the template of the file writes it.
    let messages = [
        Message::new("system", "Be brief."),
        Message::new("user", "Name three colours."),
    ];
    // A prompt is what transformers makes of it; an empty one is the start of a text.
    let plain = model.tokenizer.encode("Dear", true).expect("tokens");
    assert_eq!(model.prompt("Dear").expect("tokens"), plain);
    assert_eq!(model.prompt("").expect("tokens").len(), 1);
    let chat = model.chat(&messages);
    let chat = model.tokenizer.decode(&chat.expect("a prompt"), true);
    assert_eq!(
        Some(chat.expect("a text").as_str()),
        expected["chat"].as_str()
    );

    // Texts do not hang on their neighbours, and end where they are told to.
    let starts: Vec<Start> = ["Once upon a time", "The recipe says", "Dear"]
        .iter()
        .zip(7..)
        .map(|(text, example)| Start {
            example,
            tokens: model.begin(text).expect("tokens"),
        })
        .collect();
    let how = Writing {
        most: 12,
        temperature: 0.8,
        top_k: 50,
        repetition: 1.2,
        seed: 3,
        ..Writing::default()
    };
    let together = model.write(&starts, &how, |_, _| {}).expect("texts");
    let alone = model.write(&starts[1..2], &how, |_, _| {}).expect("a text");
    assert_eq!(together[1], alone[0]);
    let word = together[0]
        .text
        .split_whitespace()
        .nth(2)
        .expect("a third word");
    let stopping = Writing {
        stop: vec![word.to_owned()],
        ..how
    };
    let cut = model
        .write(&starts[..1], &stopping, |_, _| {})
        .expect("a text");
    assert_eq!(cut[0].ended, Ended::Stop);
    assert!(together[0].text.starts_with(&cut[0].text) && !cut[0].text.contains(word));

    // Tasks are written and compared.
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("tasks.jsonl");
    let tasks = "{\"prompt\": \"The capital of France is\", \"completion\": \" Paris.\"}\n\
                 {\"prompt\": \"The capital of France is\", \"completion\": \"the Paris\"}\n\
                 {\"prompt\": \"The capital of France is\", \"completion\": \"Lima\"}\n";
    std::fs::write(&file, tasks).expect("written");
    let set = Set::open(&file).expect("a set");
    let scores = score(&mut model, &set, &mut |_, _| {}).expect("scores");
    let found: Vec<(bool, bool, f64)> = (scores.tasks.iter())
        .map(|t| (t.exact, t.normalised, t.rouge_l))
        .collect();
    let [first, second, third] = found[..] else {
        panic!("three tasks")
    };
    assert_eq!((first, third), ((true, true, 1.0), (false, false, 0.0)));
    // One word of the answer's one is among the truth's two.
    assert!(!second.0 && second.1 && (second.2 - 2.0 / 3.0).abs() < 1e-12);
    assert!(model.merge_adapter(dir.path()).is_err());

    // A folder of it scores the same, bit for bit.
    let mut set = Set::named("general-v1").expect("the set");
    set.first(1);
    let before = score(&mut model, &set, &mut |_, _| {}).expect("scores");
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("smollm2");
    model.save(&folder).expect("it is written");
    assert!(model.save(&folder).is_err(), "nothing is overwritten");
    drop(model);
    let mut again = LanguageModel::open(&folder).expect("it opens");
    let after = score(&mut again, &set, &mut |_, _| {}).expect("scores");
    assert_eq!(before.answers.len(), set.kinds().len());
    for (a, b) in before.answers.iter().zip(&after.answers) {
        assert_eq!(a.log_likelihoods, b.log_likelihoods);
    }
    assert_eq!(before.numbers, after.numbers);
}

#[test]
fn what_is_no_model_or_no_set_says_what_it_takes() {
    let dir = tempfile::tempdir().expect("a folder");
    let said = |path: &std::path::Path| LanguageModel::open(path).err().expect("none").to_string();
    assert!(said(dir.path()).contains("config.json"));
    let text = dir.path().join("model.bin");
    std::fs::write(&text, "no model").expect("written");
    assert!(said(&text).contains(".gguf"));
    let gguf = dir.path().join("cut.gguf");
    std::fs::write(&gguf, "GGUF").expect("written");
    assert!(said(&gguf).contains("damaged"), "{}", said(&gguf));

    let set = dir.path().join("set.jsonl");
    for (line, word) in [
        (
            "{\"prompt\": \"a\", \"choices\": [\" b\"], \"answer\": 0}",
            "at least two",
        ),
        (
            "{\"prompt\": \"a\", \"choices\": [\" b\", \" c\"], \"answer\": 2}",
            "counts from 0",
        ),
        ("{\"question\": \"a\"}", "none of"),
        ("", "nothing in it"),
    ] {
        std::fs::write(&set, format!("\n{line}\n")).expect("written");
        let said = Set::open(&set).expect_err(line).to_string();
        assert!(said.contains(word), "{said}");
        assert!(line.is_empty() || said.contains("line 2"), "{said}");
    }
    std::fs::write(&set, b"\xff\xfe").expect("written");
    assert!(
        Set::open(&set)
            .expect_err("bytes")
            .to_string()
            .contains("UTF-8")
    );
    assert!(
        Set::named("general-v9")
            .expect_err("none")
            .to_string()
            .contains("general-v1")
    );
}
