//! Likelihoods are those of a softmax written out in f64.

use crate::checkpoint::{Fixture, NAMES};
use ebb_kernels::slices;
use ebb_net::decoder::{Choice, Generation, Prompt, Question, Scaling};
use ebb_net::{DecoderConfig, Model, Taps};
use std::ops::ControlFlow;

/// `ln p` of every token of `row` but the first, from all logits of one pass.
fn direct(fixture: &Fixture, config: &DecoderConfig, model: &mut Model, row: &[u32]) -> Vec<f64> {
    let (decoder, _) = fixture.both(config);
    let x = decoder.tokens(&[row], 0, model.device()).expect("its own");
    let logits = slices::to_vec(&model.forward(x, &mut Taps::none()).logits);
    logits
        .chunks(config.vocabulary)
        .zip(&row[1..])
        .map(|(z, &id)| {
            let e: Vec<f64> = z.iter().map(|&z| f64::from(z).exp()).collect();
            (e[id as usize] / e.iter().sum::<f64>()).ln()
        })
        .collect()
}

fn near(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4)
}

/// Kept keys stay as a dynamic base turned them: beyond its context scores differ.
fn without_dynamic_base(fixture: &Fixture) -> DecoderConfig {
    let mut config = fixture.config.clone();
    config.context = config.longest();
    for rotary in config.blocks.iter_mut().filter_map(|b| b.rotary.as_mut()) {
        if let Scaling::Dynamic { .. } = rotary.scaling {
            rotary.scaling = Scaling::None;
        }
    }
    config
}

#[test]
fn choices_after_prompts_of_any_length() {
    for name in NAMES {
        let fixture = Fixture::open(name);
        let config = without_dynamic_base(&fixture);
        let (decoder, mut model) = fixture.both(&config);
        let (a, b) = (fixture.ids(0), fixture.ids(1));
        let greedy = Generation {
            most: 4,
            stops: Vec::new(),
            processors: Vec::new(),
            choice: Choice::Greedy,
        };
        let prompt = Prompt {
            example: 0,
            tokens: &b[..2],
        };
        let written = decoder
            .generate(&mut model, &[prompt], &greedy, |_, _| {
                ControlFlow::Continue(())
            })
            .expect("a text");
        let first: Vec<&[u32]> = vec![&b[..5], &b[2..3], &a[4..8]];
        let second: Vec<&[u32]> = vec![&written[0].tokens, &b[9..]];
        let third: Vec<&[u32]> = vec![&a[..1]; 17];
        let questions = [
            (&a[..9], first),
            (&b[..2], second),
            (&a[..1], third),
            (&a[..4], Vec::new()),
        ];
        let asked: Vec<Question> = questions
            .iter()
            .map(|(prompt, choices)| Question { prompt, choices })
            .collect();
        let scored = decoder.choices(&mut model, &asked).expect("scores");
        assert_eq!(scored.len(), questions.len());
        for ((prompt, choices), scored) in questions.iter().zip(&scored) {
            assert_eq!(choices.len(), scored.len());
            for (choice, scored) in choices.iter().zip(scored) {
                let row = [*prompt, *choice].concat();
                let all = direct(&fixture, &config, &mut model, &row);
                let expected = &all[prompt.len() - 1..];
                assert!(near(&scored.log_probabilities, expected), "{name}");
                let sum: f64 = expected.iter().sum();
                assert!((scored.log_likelihood() - sum).abs() < 1e-3);
            }
        }
        assert!(scored[1][0].greedy, "{name}: what greedy decoding wrote");
        assert!(!scored[1][1].greedy, "{name}");
    }
}

#[test]
fn losses_window_by_window() {
    for name in NAMES {
        let fixture = Fixture::open(name);
        let (decoder, mut model) = fixture.both(&fixture.config);
        let text = [fixture.ids(0), fixture.ids(1), fixture.ids(0)].concat();
        for (window, stride) in [(14, 5), (7, 6), (10, 1)] {
            let found = decoder
                .losses(&mut model, &text, window, stride)
                .expect("losses");
            let mut expected = Vec::new();
            let mut from = 0;
            while expected.len() < text.len() - 1 {
                let to = (from + window).min(text.len());
                let all = direct(&fixture, &fixture.config, &mut model, &text[from..to]);
                let new = to - 1 - expected.len();
                expected.extend(all[all.len() - new..].iter().map(|l| -l));
                from += stride;
            }
            assert!(near(&found, &expected), "{name}, window {window}");
            let mean = expected.iter().sum::<f64>() / expected.len() as f64;
            let found = found.iter().sum::<f64>() / found.len() as f64;
            assert!((found.exp() / mean.exp() - 1.0).abs() < 1e-4);
        }
    }
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let fixture = Fixture::open("gpt2");
    let (decoder, mut model) = fixture.both(&fixture.config);
    let mut asked = |prompt: &[u32], choice: &[u32]| {
        let question = Question {
            prompt,
            choices: &[choice],
        };
        let e = decoder.choices(&mut model, &[question]);
        e.expect_err("refused").to_string()
    };
    assert!(asked(&[], &[1]).contains("empty"));
    assert!(asked(&[1], &[]).contains("empty choice"));
    assert!(asked(&[1], &[32]).contains("32"));
    assert!(asked(&[1; 10], &[1; 8]).contains("context holds 16"));
    let mut losses = |text: &[u32], window: usize, stride: usize| {
        let e = decoder.losses(&mut model, text, window, stride);
        e.expect_err("refused").to_string()
    };
    assert!(losses(&[1], 4, 2).contains("nothing to predict"));
    assert!(losses(&[1; 9], 4, 4).contains("stride"));
    assert!(losses(&[1; 9], 4, 0).contains("stride"));
    assert!(losses(&[1; 20], 18, 4).contains("context"));
}
