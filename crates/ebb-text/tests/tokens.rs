//! Examples as tokens, and rows of them.

use std::collections::BTreeMap;
use std::path::Path;

use ebb_hub::{ChatOptions, ChatTemplate, Gguf, Message, Tokenizer};
use ebb_space::{ExampleId, Key};
use ebb_text::{
    Encoder, Encoding, Error, Example, Fill, Learn, NO_EXAMPLE, Packed, Reader, Reading, Sequence,
    TooLong, pack,
};
use serde_json::Map;

fn hub(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../ebb-hub/tests/fixtures")
        .join(name)
}

fn tokenizer() -> Tokenizer {
    Tokenizer::open(hub("tokenizer-smollm")).expect("a tokenizer")
}

const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n\
    {{ message.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, Map::new()).expect("valid Jinja")
}

/// The text of the tokens that are learnt, and of all.
fn texts(tokenizer: &Tokenizer, sequence: &Sequence) -> (String, String) {
    let learnt: Vec<u32> = (sequence.tokens.iter().zip(&sequence.learn))
        .filter_map(|(&token, &learn)| learn.then_some(token))
        .collect();
    let decode = |ids: &[u32]| tokenizer.decode(ids, true).expect("a text");
    (decode(&learnt), decode(&sequence.tokens))
}

fn one(encoder: &Encoder, example: &Example) -> Sequence {
    let mut sequences = encoder.encode(example).expect("tokens");
    assert_eq!(sequences.len(), 1);
    sequences.remove(0)
}

#[test]
fn of_a_completion_the_completion_is_learnt() {
    let tokenizer = tokenizer();
    let example = Example::completion("The dog", " barks.");
    let encoder = Encoder::new(&tokenizer, Encoding::new(64)).expect("an encoder");
    let sequence = one(&encoder, &example);
    let (learnt, all) = texts(&tokenizer, &sequence);
    assert_eq!(
        (learnt.as_str(), all.as_str()),
        (" barks.<|im_end|>", "The dog barks.<|im_end|>")
    );
    assert_eq!(sequence.id, example.id);

    let encoding = Encoding {
        learn: Learn::Everything,
        end: false,
        ..Encoding::new(64)
    };
    let encoder = Encoder::new(&tokenizer, encoding).expect("an encoder");
    let sequence = one(&encoder, &example);
    assert!(!sequence.learn[0]);
    assert!(sequence.learn[1..].iter().all(|&l| l));
    assert_eq!(texts(&tokenizer, &sequence).1, "The dog barks.");
}

#[test]
fn a_prompt_has_the_tokens_that_it_has_alone() {
    // `a ` and `b` together may be other tokens than apart; a model is prompted with those apart.
    let tokenizer = tokenizer();
    let encoder = Encoder::new(&tokenizer, Encoding::new(64)).expect("an encoder");
    for prompt in ["the ", "x\n", "  ", "th"] {
        for completion in ["the", " the", "\n\n", "e end"] {
            let sequence = one(&encoder, &Example::completion(prompt, completion));
            let alone = tokenizer.encode(prompt, false).expect("tokens");
            assert_eq!(
                sequence.tokens[..alone.len()],
                alone,
                "{prompt:?} {completion:?}"
            );
            let first = sequence.learn.iter().position(|&l| l);
            assert_eq!(first, Some(alone.len()), "{prompt:?} {completion:?}");
        }
    }
}

#[test]
fn a_tokenizer_that_adds_a_space_adds_none_between() {
    let gguf = Gguf::open(hub("tokenizer-spm.gguf")).expect("a file");
    let tokenizer = Tokenizer::from_gguf(&gguf).expect("a tokenizer");
    let encoder = Encoder::new(&tokenizer, Encoding::new(64)).expect("an encoder");
    let sequence = one(&encoder, &Example::completion("The d", "og"));
    let bos = tokenizer
        .special()
        .bos
        .as_deref()
        .and_then(|bos| tokenizer.id(bos));
    assert_eq!(sequence.tokens.first().copied(), bos);
    assert!(!sequence.learn[0]);
    let text = tokenizer.decode(&sequence.tokens, false).expect("a text");
    assert_eq!(text.trim(), "The dog");
}

#[test]
fn of_a_chat_every_answer_is_learnt_up_to_its_end() {
    let tokenizer = tokenizer();
    let encoder = Encoder::new(&tokenizer, Encoding::new(200)).expect("an encoder");
    let encoder = encoder.with_template(template(CHATML));
    let example = Example::chat(vec![
        Message::new("system", "be kind"),
        Message::new("user", "hi"),
        Message::new("assistant", "ho"),
        Message::new("user", "bye"),
        Message::new("assistant", "so long"),
    ]);
    let sequence = one(&encoder, &example);
    let (learnt, all) = texts(&tokenizer, &sequence);
    assert_eq!(learnt, "ho<|im_end|>so long<|im_end|>");
    assert_eq!(
        all,
        "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n\
         <|im_start|>assistant\nho<|im_end|>\n<|im_start|>user\nbye<|im_end|>\n\
         <|im_start|>assistant\nso long<|im_end|>\n"
    );
    // The first token is never learnt, and what is asked of the model ends where an answer begins.
    let first = sequence.learn.iter().position(|&l| l).expect("an answer");
    let asked = tokenizer
        .decode(&sequence.tokens[..first], true)
        .expect("a text");
    assert!(asked.ends_with("<|im_start|>assistant\n"), "{asked}");
}

#[test]
fn a_chat_without_a_template_or_with_one_that_rewrites_is_refused() {
    let chat = Example::chat(vec![
        Message::new("user", "hi"),
        Message::new("assistant", "ho"),
        Message::new("user", "hm"),
        Message::new("assistant", "ha"),
    ]);
    let gguf = Gguf::open(hub("tokenizer-spm.gguf")).expect("a file");
    let spm = Tokenizer::from_gguf(&gguf).expect("a tokenizer");
    let encoder = Encoder::new(&spm, Encoding::new(64)).expect("an encoder");
    let message = encoder.encode(&chat).expect_err("refused").to_string();
    assert!(message.contains(&chat.id.to_string()), "{message}");
    assert!(message.contains("it is a chat"), "{message}");

    // As the templates do that leave out the thoughts of earlier turns.
    let rewrites = "{% for m in messages %}<{{ m.role }}>{% if loop.last or m.role == 'user' %}\
        {{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    let tokenizer = tokenizer();
    let encoder = Encoder::new(&tokenizer, Encoding::new(64)).expect("an encoder");
    let encoder = encoder.with_template(template(rewrites));
    let message = encoder.encode(&chat).expect_err("refused").to_string();
    assert!(
        message.contains("does not write turn 2 the same way"),
        "{message}"
    );

    let refuses = template("{{ raise_exception('no system turns') }}");
    let encoder = encoder.with_template(refuses);
    let message = encoder.encode(&chat).expect_err("refused").to_string();
    assert!(message.contains("no system turns"), "{message}");
}

#[test]
fn what_was_read_from_a_file_is_named_by_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("train.jsonl");
    let lines = [
        r#"{"text": "one two three four five six seven"}"#,
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#,
    ];
    std::fs::write(&path, lines.join("\n\n")).expect("written");
    let gguf = Gguf::open(hub("tokenizer-spm.gguf")).expect("a file");
    let spm = Tokenizer::from_gguf(&gguf).expect("a tokenizer");
    let encoder = Encoder::new(&spm, Encoding::new(5)).expect("an encoder");
    let examples = Reader::open(&path, &Reading::default()).expect("opened");
    let messages = examples.map(|example| {
        let example = example.expect("an example");
        encoder.encode(&example).expect_err("refused").to_string()
    });
    let messages: Vec<String> = messages.collect();
    assert!(
        messages[0].contains("train.jsonl`, line 1: "),
        "{}",
        messages[0]
    );
    assert!(
        messages[0].contains("tokens are more than the 5 that fit"),
        "{}",
        messages[0]
    );
    assert!(
        messages[1].contains("train.jsonl`, line 3: it is a chat"),
        "{}",
        messages[1]
    );
    assert!(
        messages[1].contains("this is a base model"),
        "{}",
        messages[1]
    );
}

#[test]
fn a_template_that_writes_the_date_takes_it_from_the_settings() {
    let tokenizer = tokenizer();
    let dated = "{{ strftime_now('%Y') }}{% for m in messages %}{{ m.role }}:{{ m.content }}\n\
        {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
    let encoding = Encoding {
        chat: ChatOptions {
            now: Some(0),
            ..ChatOptions::default()
        },
        ..Encoding::new(64)
    };
    let encoder = Encoder::new(&tokenizer, encoding).expect("an encoder");
    let encoder = encoder.with_template(template(dated));
    let chat = Example::chat(vec![
        Message::new("user", "hi"),
        Message::new("assistant", "ho"),
    ]);
    let (learnt, all) = texts(&tokenizer, &one(&encoder, &chat));
    // A template that ends no turn has the model learn what it writes behind the answer.
    assert_eq!(
        (learnt.as_str(), all.as_str()),
        ("ho\n", "1970user:hi\nassistant:ho\n")
    );
}

#[test]
fn what_is_too_long_is_refused_cut_or_split_as_was_said() {
    let tokenizer = tokenizer();
    let encoder = |length: usize, too_long: TooLong| {
        let encoding = Encoding {
            too_long,
            ..Encoding::new(length)
        };
        Encoder::new(&tokenizer, encoding).expect("an encoder")
    };
    let document = Example::document("one two three four five six seven eight nine ten");
    let whole = one(&encoder(500, TooLong::Refuse), &document);
    let n = whole.tokens.len();
    assert!(n > 10);

    let error = encoder(8, TooLong::Refuse)
        .encode(&document)
        .expect_err("refused");
    assert!(matches!(&error, Error::TooLong { tokens, length: 8, .. } if *tokens == n));
    assert!(
        error.to_string().contains("allow longer sequences"),
        "{error}"
    );

    assert_eq!(
        one(&encoder(8, TooLong::CutEnd), &document).tokens,
        whole.tokens[..8]
    );
    assert_eq!(
        one(&encoder(8, TooLong::CutStart), &document).tokens,
        whole.tokens[n - 8..]
    );
    let pieces = encoder(8, TooLong::Split)
        .encode(&document)
        .expect("pieces");
    let joined: Vec<u32> = pieces.iter().flat_map(|p| p.tokens.clone()).collect();
    assert_eq!(joined, whole.tokens);
    for (i, piece) in pieces.iter().enumerate() {
        assert_eq!((piece.id, piece.piece), (document.id, i as u32));
        assert!(!piece.learn[0] && piece.learn[1..].iter().all(|&l| l));
    }

    let long_prompt = Example::completion("one two three four five six seven", " eight");
    let error = encoder(8, TooLong::CutEnd)
        .encode(&long_prompt)
        .expect_err("refused");
    assert!(
        error.to_string().contains("no token to learn within 8"),
        "{error}"
    );
    let cut = one(&encoder(8, TooLong::CutStart), &long_prompt);
    assert!(texts(&tokenizer, &cut).0.ends_with("<|im_end|>"));
    let error = encoder(8, TooLong::Split)
        .encode(&long_prompt)
        .expect_err("refused");
    assert!(matches!(error, Error::TooLong { .. }), "{error}");

    assert!(matches!(
        Encoder::new(&tokenizer, Encoding::new(1)),
        Err(Error::Setting(_))
    ));
}

fn sequence(name: &str, tokens: &[u32], learn: &[u8]) -> Sequence {
    Sequence {
        id: Example::document(name).id,
        piece: 0,
        tokens: tokens.to_vec(),
        learn: learn.iter().map(|&l| l == 1).collect(),
    }
}

#[test]
fn a_pack_written_out() {
    let sequences = [
        sequence("a", &[11, 12, 13], &[0, 0, 1]),
        sequence("b", &[21, 22], &[0, 1]),
        sequence("c", &[31, 32, 33, 34], &[0, 1, 0, 1]),
    ];
    let packed = pack(&sequences, 6, 0, Fill::InOrder).expect("packed");
    let no = NO_EXAMPLE;
    let yes = |learn: [u8; 12]| learn.iter().map(|&l| l == 1).collect::<Vec<_>>();
    assert_eq!(
        packed,
        Packed {
            length: 6,
            tokens: vec![11, 12, 13, 21, 22, 0, 31, 32, 33, 34, 0, 0],
            targets: vec![12, 13, 0, 22, 0, 0, 32, 33, 34, 0, 0, 0],
            learn: yes([0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0]),
            positions: vec![0, 1, 2, 0, 1, 0, 0, 1, 2, 3, 0, 1],
            documents: vec![0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 1, 1],
            examples: vec![0, 0, 0, 1, 1, no, 2, 2, 2, 2, no, no],
            ids: sequences.iter().map(|s| s.id).collect(),
        }
    );
    assert_eq!((packed.rows(), packed.learnt()), (2, 4));
    assert_eq!(packed.used(), 0.75);
    let apart = pack(&sequences, 6, 0, Fill::OneEach).expect("packed");
    assert_eq!(apart.rows(), 3);
    assert_eq!(apart.tokens[6..12], [21, 22, 0, 0, 0, 0]);
    // c and b fill a row of six, a is left.
    let best = pack(&sequences, 6, 0, Fill::Best(Key::new(0, "pack"))).expect("packed");
    assert_eq!(best.rows(), 2);
    let error = pack(&sequences, 3, 0, Fill::InOrder).expect_err("refused");
    assert!(matches!(
        error,
        Error::Row {
            tokens: 4,
            length: 3,
            ..
        }
    ));
    assert_eq!(pack(&[], 3, 0, Fill::InOrder).expect("packed").rows(), 0);
}

/// Sequences of many lengths; some are pieces of one document.
fn random(seed: u64, count: usize, length: usize) -> Vec<Sequence> {
    let mut stream = Key::new(seed, "random sequences").stream();
    let mut sequences: Vec<Sequence> = Vec::new();
    for i in 0..count {
        let n = 1 + stream.below(length as u64) as usize;
        let mut sequence = Sequence {
            id: Example::document(i.to_string()).id,
            piece: 0,
            tokens: (0..n).map(|_| 1 + stream.below(1000) as u32).collect(),
            learn: (0..n).map(|j| j > 0 && stream.below(2) == 0).collect(),
        };
        if let Some(last) = sequences.last()
            && stream.below(4) == 0
        {
            (sequence.id, sequence.piece) = (last.id, last.piece + 1);
        }
        sequences.push(sequence);
    }
    sequences
}

#[test]
fn every_token_of_every_sequence_is_there_once_and_none_looks_across() {
    for seed in 0..60 {
        let length = 4 + seed as usize % 29;
        let sequences = random(seed, 1 + seed as usize * 3, length);
        for fill in [
            Fill::OneEach,
            Fill::InOrder,
            Fill::Best(Key::new(seed, "pack")),
        ] {
            let packed = pack(&sequences, length, 0, fill).expect("packed");
            check(&sequences, &packed);
        }
    }
}

fn check(sequences: &[Sequence], packed: &Packed) {
    let n = packed.rows() * packed.length;
    let lists = [
        packed.tokens.len(),
        packed.targets.len(),
        packed.learn.len(),
        packed.positions.len(),
        packed.documents.len(),
        packed.examples.len(),
    ];
    assert_eq!(lists, [n; 6]);
    // The documents of the rows, read off the pack.
    let mut found: BTreeMap<(ExampleId, Vec<u32>, Vec<bool>), usize> = BTreeMap::new();
    for row in 0..packed.rows() {
        let range = row * packed.length..(row + 1) * packed.length;
        let mut at = range.start;
        while at < range.end {
            let document = packed.documents[at];
            let mut end = at;
            while end < range.end && packed.documents[end] == document {
                assert_eq!(packed.positions[end] as usize, end - at);
                assert_eq!(packed.examples[end], packed.examples[at]);
                end += 1;
            }
            // Numbers only grow, so equal numbers never meet again in the row.
            assert!(at == range.start || document == packed.documents[at - 1] + 1);
            if packed.examples[at] == NO_EXAMPLE {
                assert_eq!(end, range.end, "only the end of a row is filled up");
                assert!(packed.tokens[at..end].iter().all(|&t| t == 0));
                assert!(packed.learn[at..end].iter().all(|&l| !l));
            } else {
                assert_eq!(packed.targets[at..end - 1], packed.tokens[at + 1..end]);
                assert!(!packed.learn[end - 1], "no target is of another sequence");
                let mut learn = vec![false];
                learn.extend(&packed.learn[at..end - 1]);
                let id = packed.ids[packed.examples[at] as usize];
                let tokens = packed.tokens[at..end].to_vec();
                *found.entry((id, tokens, learn)).or_default() += 1;
            }
            at = end;
        }
    }
    let mut wanted = BTreeMap::new();
    for s in sequences {
        *wanted
            .entry((s.id, s.tokens.clone(), s.learn.clone()))
            .or_default() += 1;
    }
    assert_eq!(found, wanted);
    let mut ids = packed.ids.clone();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), packed.ids.len());
}

#[test]
fn the_best_fill_depends_on_ids_and_wastes_little() {
    let mut sequences = random(9, 400, 64);
    let fill = Fill::Best(Key::new(1, "pack"));
    let packed = pack(&sequences, 64, 0, fill).expect("packed");
    let in_order = pack(&sequences, 64, 0, Fill::InOrder).expect("packed");
    assert!(packed.used() > 0.95, "{}", packed.used());
    assert!(packed.rows() < in_order.rows());
    Key::new(2, "another order").order(&mut sequences, |s| s.id.mix() ^ u64::from(s.piece));
    assert_eq!(pack(&sequences, 64, 0, fill).expect("packed"), packed);
    let other = Fill::Best(Key::new(2, "pack"));
    assert_ne!(pack(&sequences, 64, 0, other).expect("packed"), packed);
}
