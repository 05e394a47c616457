//! Texts are those of `transformers`, do not depend on the batch, and end when they should.

use crate::checkpoint::{Fixture, NAMES};
use ebb_net::decoder::processors::{Repetition, Temperature, TopK};
use ebb_net::decoder::{Choice, End, Generated, Generation, Processor, Prompt};
use ebb_net::{Error, Model};
use ebb_space::Weights;
use serde_json::Value;
use std::ops::ControlFlow;

fn go_on(_: usize, _: u32) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn greedy(most: usize, processors: Vec<Box<dyn Processor>>) -> Generation {
    Generation {
        most,
        stops: Vec::new(),
        processors,
        choice: Choice::Greedy,
    }
}

fn sampled(most: usize, seed: u64) -> Generation {
    let warm = Temperature::new(1.5).expect("above 0");
    let few = TopK::new(20).expect("above 0");
    Generation {
        choice: Choice::Sampled { seed },
        ..greedy(most, vec![Box::new(warm), Box::new(few)])
    }
}

fn prompts<'a>(tokens: &[&'a [u32]]) -> Vec<Prompt<'a>> {
    let prompt = |(i, &tokens): (usize, &&'a [u32])| Prompt {
        example: 100 + i as u64,
        tokens,
    };
    tokens.iter().enumerate().map(prompt).collect()
}

fn tokens(value: &Value) -> Vec<u32> {
    let ids = value.as_array().expect("a list").iter();
    ids.map(|id| id.as_u64().expect("an id") as u32).collect()
}

#[test]
fn greedy_texts_are_those_of_transformers() {
    let at = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/decoder/generated.json"
    );
    let text = std::fs::read_to_string(at).expect("in the repository");
    let expected: Value = serde_json::from_str(&text).expect("JSON");
    let new = expected["new"].as_u64().expect("a number") as usize;
    let penalty = expected["penalty"].as_f64().expect("a number");
    for name in NAMES {
        let fixture = Fixture::open(name);
        let (decoder, mut model) = fixture.both(&fixture.config);
        let texts = expected["texts"][name].as_array().expect("texts");
        let given: Vec<Vec<u32>> = texts.iter().map(|t| tokens(&t["prompt"])).collect();
        let given: Vec<&[u32]> = given.iter().map(Vec::as_slice).collect();
        let mut agrees = |kind: &str, processors: Vec<Box<dyn Processor>>| {
            let how = greedy(new, processors);
            let made = decoder
                .generate(&mut model, &prompts(&given), &how, go_on)
                .expect("texts");
            for (made, expected) in made.iter().zip(texts) {
                assert_eq!(made.tokens, tokens(&expected[kind]), "{name} {kind}");
                assert_eq!(made.end, End::Length);
            }
        };
        agrees("plain", Vec::new());
        let repetition = Repetition::new(penalty).expect("above 0");
        agrees("penalised", vec![Box::new(repetition)]);
    }
}

#[test]
fn a_text_depends_on_seed_example_and_prompt_alone() {
    let fixture = Fixture::open("qwen2");
    let (decoder, mut model) = fixture.both(&fixture.config);
    let (a, b) = (fixture.ids(0), fixture.ids(1));
    let all = prompts(&[&a[..7], &b[..2], &a[..4], &b[..2]]);
    let mut make = |prompts: &[Prompt], how: &Generation| {
        let made = decoder.generate(&mut model, prompts, how, go_on);
        made.expect("texts")
            .into_iter()
            .map(|t| t.tokens)
            .collect::<Vec<_>>()
    };
    let how = sampled(12, 5);
    let together = make(&all, &how);
    for (prompt, text) in all.iter().zip(&together) {
        assert_eq!(make(&[*prompt], &how)[0], *text);
    }
    assert_ne!(together[1], together[3], "other examples, other draws");
    assert_ne!(make(&all, &sampled(12, 6)), together, "another seed");
    // A text that was cut off goes on as it would have.
    let so_far = [all[0].tokens, &together[0][..5]].concat();
    let rest = Prompt {
        tokens: &so_far,
        ..all[0]
    };
    assert_eq!(make(&[rest], &sampled(7, 5))[0], together[0][5..]);
}

#[test]
fn texts_end_at_a_stop_at_the_length_at_the_context_and_when_told() {
    let fixture = Fixture::open("gpt2");
    let (decoder, mut model) = fixture.both(&fixture.config);
    let (a, b) = (fixture.ids(0), fixture.ids(1));
    let given = prompts(&[&a[..12], &b[..3], &a[..5]]);
    let mut make = |how: &Generation, each: &mut dyn FnMut(usize, u32) -> ControlFlow<()>| {
        decoder
            .generate(&mut model, &given, how, each)
            .expect("texts")
    };
    let mut stream = vec![Vec::new(); 3];
    let long = make(&greedy(100, Vec::new()), &mut |row, id| {
        stream[row].push(id);
        ControlFlow::Continue(())
    });
    // 16 positions: the last token is predicted at the last of them and never read.
    let lengths: Vec<usize> = long.iter().map(|t| t.tokens.len()).collect();
    assert_eq!(lengths, [4, 13, 11]);
    assert!(long.iter().all(|t| t.end == End::Context));
    let texts: Vec<Vec<u32>> = long.iter().map(|t| t.tokens.clone()).collect();
    assert_eq!(stream, texts, "every token is told as it comes");

    let short = make(&greedy(6, Vec::new()), &mut go_on);
    for (short, long) in short.iter().zip(&texts) {
        let n = long.len().min(6);
        assert_eq!(short.tokens, long[..n]);
        assert_eq!(short.end, [End::Context, End::Length][usize::from(n == 6)]);
    }
    let none = make(&greedy(0, Vec::new()), &mut go_on);
    assert!(none[0].tokens.is_empty());

    let stop = texts[1][3];
    let first = |text: &[u32]| text.iter().position(|&id| id == stop);
    let how = Generation {
        stops: vec![31, stop],
        ..greedy(100, Vec::new())
    };
    for (made, long) in make(&how, &mut go_on).iter().zip(&texts) {
        let other = long.iter().position(|&id| id == 31).unwrap_or(usize::MAX);
        let expected = match first(long).unwrap_or(usize::MAX).min(other) {
            usize::MAX => Generated {
                tokens: long.clone(),
                end: End::Context,
            },
            n => Generated {
                tokens: long[..n].to_vec(),
                end: End::Stop(long[n]),
            },
        };
        assert_eq!(*made, expected);
    }

    let mut heard = [0; 3];
    let told = make(&greedy(100, Vec::new()), &mut |row, _| {
        heard[row] += 1;
        match row == 1 && heard[1] == 2 {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    assert_eq!((told[1].tokens.len(), told[1].end), (2, End::Caller));
    assert_eq!(told[2], long[2], "its neighbours go on as they were");
}

#[test]
fn what_makes_no_text_is_refused() {
    let fixture = Fixture::open("llama");
    let (decoder, mut model) = fixture.both(&fixture.config);
    let how = greedy(3, Vec::new());
    let error = |model: &mut Model, tokens: &[u32]| {
        let e = decoder.generate(model, &prompts(&[&[1, 2], tokens]), &how, go_on);
        e.expect_err("refused")
    };
    assert!(error(&mut model, &[]).to_string().contains("prompt 1"));
    assert!(error(&mut model, &[32]).to_string().contains("32"));
    assert!(error(&mut model, &[0; 65]).to_string().contains("65"));
    let none = decoder.generate(&mut model, &[], &how, go_on);
    assert!(none.expect("no text").is_empty());

    let mut broken: Weights = model.weights();
    broken.as_mut_slice().fill(f32::NAN);
    model.set_weights(&broken).expect("its own");
    let e = error(&mut model, &[1]);
    assert!(matches!(e, Error::NotANumber { .. }), "{e}");

    let other = Fixture::open("gpt2");
    let mut other = other.model(&other.config);
    assert!(matches!(error(&mut other, &[1]), Error::Weights { .. }));
}
