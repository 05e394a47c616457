//! Measures of what a model knows of a text: by hand, by their definitions, and where other programs
//! are known to be wrong.

use ebb_space::Key;
use ebb_text::metrics::{
    Token, TruthMean, against_reference, as_likely, drift, exact_memorisation, extraction_strength,
    loss, mean_loss, min_k, min_k_plus_plus, probability, probability_among, tokens, truth_ratio,
    truthful, zlib_ratio,
};

/// A text of tokens that have these probabilities.
fn text(p: &[f64]) -> Vec<Token> {
    let token = |p: &f64| Token {
        log_p: p.ln(),
        mean: 0.0,
        variance: 1.0,
        likeliest: *p > 0.5,
    };
    p.iter().map(token).collect()
}

/// A text of which the model guesses these tokens.
fn guessed(right: &[bool]) -> Vec<Token> {
    text(
        &right
            .iter()
            .map(|r| if *r { 0.9 } else { 0.1 })
            .collect::<Vec<_>>(),
    )
}

fn near(got: f64, want: f64) {
    assert!((got - want).abs() < 1e-12, "{got} is not {want}");
}

#[test]
fn a_token_is_read_from_its_logits() {
    // p = (½, ¼, ¼); log₂ p = −1, −2, −2: mean −3/2, variance 1/4.
    let row = [4f32.ln() - 2.0, 2f32.ln() - 2.0, 2f32.ln() - 2.0];
    let ln2 = std::f64::consts::LN_2;
    for (target, log2_p, likeliest) in [(0, -1.0, true), (1, -2.0, false)] {
        let got = tokens(&row, 3, &[Some(target)]).expect("a token")[0];
        for (got, want) in [
            (got.log_p, log2_p * ln2),
            (got.mean, -1.5 * ln2),
            (got.variance, 0.25 * ln2 * ln2),
        ] {
            assert!((got - want).abs() < 1e-6, "{got} {want}"); // the logits are f32
        }
        assert_eq!(got.likeliest, likeliest);
    }
    // Against sums over all tokens in f64, with one ruled out.
    let key = Key::new(1, "logits");
    let mut row: Vec<f32> = (0..50).map(|i| 5.0 * key.normal(i) as f32).collect();
    row[7] = f32::NEG_INFINITY;
    let p: Vec<f64> = {
        let e: Vec<f64> = row.iter().map(|z| f64::from(*z).exp()).collect();
        e.iter().map(|x| x / e.iter().sum::<f64>()).collect()
    };
    let mean = |f: &dyn Fn(f64) -> f64| -> f64 {
        let possible = p.iter().filter(|p| **p > 0.0);
        possible.map(|p| p * f(p.ln())).sum()
    };
    let got = tokens(&row, 50, &[Some(3)]).expect("a token")[0];
    near(got.log_p, p[3].ln());
    near(got.mean, mean(&|x| x));
    near(got.variance, mean(&|x| x * x) - mean(&|x| x).powi(2));
    // Of equals the first is what greedy decoding says.
    let flat = |target| tokens(&[0.0; 4], 4, &[Some(target)]).expect("a token")[0].likeliest;
    assert!(flat(0) && !flat(1) && !flat(3));
}

#[test]
fn logits_that_cannot_be_read_are_refused() {
    let row = [0.0, 1.0];
    assert!(tokens(&row, 2, &[Some(2)]).is_err());
    assert!(tokens(&row, 2, &[Some(0), None]).is_err());
    assert!(tokens(&row, 3, &[Some(0)]).is_err());
    assert!(tokens(&[], 0, &[]).is_err());
    assert!(tokens(&row, usize::MAX, &[None, None]).is_err());
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for bad in [
        [0.0, nan],
        [nan, nan],
        [inf, 0.0],
        [-inf, -inf],
        [-inf, 0.0],
    ] {
        assert!(tokens(&bad, 2, &[Some(0)]).is_err(), "{bad:?}");
        assert!(tokens(&bad, 2, &[None]).expect("nothing counts").is_empty());
    }
    assert!(loss(&[]).is_err() && min_k(&[], 0.2).is_err() && exact_memorisation(&[]).is_err());
    assert!(extraction_strength(&[]).is_err() && probability(&[]).is_err());
    assert!(mean_loss::<Vec<Token>>(&[]).is_err() && mean_loss(&[text(&[0.5]), vec![]]).is_err());
    for share in [0.0, -0.1, 1.1, f64::NAN] {
        assert!(min_k(&text(&[0.5]), share).is_err());
    }
}

/// Defect 1: a loop that stops one short gives 1/T where nothing matches, as where the last does.
#[test]
fn nothing_that_matches_is_an_extraction_strength_of_0() {
    let of = |right: &[bool]| extraction_strength(&guessed(right)).expect("a strength");
    assert_eq!(of(&[false; 5]), 0.0); // the defective loop says 0.2
    assert_eq!(of(&[false, false, false, false, true]), 0.2);
    assert_eq!(of(&[true, true, true, true, false]), 0.0);
    assert_eq!(of(&[true; 5]), 1.0);
    assert_eq!(of(&[false]), 0.0);
}

#[test]
fn extraction_strength_and_exact_memorisation_by_their_definitions() {
    for bits in 0u32..1 << 7 {
        let right: Vec<bool> = (0..7).map(|t| bits >> t & 1 == 1).collect();
        let fits = |k: &usize| right[*k..].iter().all(|r| *r);
        // After all 7 tokens nothing is left to be wrong.
        let k = (0..=7).find(fits).expect("the empty suffix fits");
        let text = guessed(&right);
        near(
            extraction_strength(&text).expect("a strength"),
            1.0 - k as f64 / 7.0,
        );
        let share = f64::from(bits.count_ones()) / 7.0;
        near(exact_memorisation(&text).expect("a share"), share);
    }
}

/// Defect 2: an ignore label of −100 that indexes the vocabulary from its end, and a mean over prompt
/// and padding.
#[test]
fn prompt_and_padding_are_no_labels_and_count_in_no_mean() {
    // A vocabulary of 101, so that −100 is token 1. A prompt token, two that count, one of padding.
    let vocabulary = 101;
    let mut logits = vec![0.0f32; 4 * vocabulary];
    logits[3 * vocabulary + 1] = 60.0;
    let targets = [None, Some(5), Some(100), None];
    let text = tokens(&logits, vocabulary, &targets).expect("tokens");
    assert_eq!(text.len(), 2);
    near(loss(&text).expect("a loss"), 101f64.ln());
    // The defective loss: ln 101 three times, and 0 at the padding, over four.
    let read: Vec<Option<u32>> = targets.iter().map(|t| Some(t.unwrap_or(1))).collect();
    let defective = loss(&tokens(&logits, vocabulary, &read).expect("tokens")).expect("a loss");
    near(defective, 0.75 * 101f64.ln());
    // Whatever the padding holds, the rest is the same, bit for bit.
    logits[3 * vocabulary..].fill(f32::NAN);
    assert_eq!(tokens(&logits, vocabulary, &targets).expect("tokens"), text);
}

/// Defect 3: `[b]` over `[b, 1]` broadcast to `[b, b]` gives mean(s) · mean(1/n), not mean(s/n).
#[test]
fn a_mean_over_texts_is_of_each_texts_own_mean() {
    // Sums of −ln p: 6 over 3 tokens, 1 over 1. (6/3 + 1/1)/2 = 1.5; defective: 3.5 · ⅔ = 2.333….
    let texts = [
        text(&[(-1f64).exp(), (-2f64).exp(), (-3f64).exp()]),
        text(&[(-1f64).exp()]),
    ];
    let got = mean_loss(&texts).expect("a loss");
    near(got, 1.5);
    let defective = (6.0 + 1.0) / 2.0 * (1.0 / 3.0 + 1.0) / 2.0;
    assert!((got - defective).abs() > 0.8);
}

/// Defect 4: a divergence without a mask.
#[test]
fn padding_counts_in_no_divergence() {
    let ln = |p: [f32; 2]| p.map(f32::ln);
    // KL((½, ½) ‖ (¼, ¾)) = ½ ln 2 + ½ ln ⅔ = ½ ln 4/3. At the padding: 0.8 ln 9.
    let before = [ln([0.5, 0.5]), ln([0.9, 0.1])].concat();
    let mut after = [ln([0.25, 0.75]), ln([0.1, 0.9])].concat();
    let want = 0.5 * (4f64 / 3.0).ln();
    let got = drift(&before, &after, 2, &[true, false]).expect("a divergence");
    assert!((got - want).abs() < 1e-7, "{got}");
    let defective = drift(&before, &after, 2, &[true, true]).expect("a divergence");
    assert!((defective - 0.5 * (want + 0.8 * 9f64.ln())).abs() < 1e-6);
    after[2..].fill(f32::NAN);
    assert_eq!(
        drift(&before, &after, 2, &[true, false]).expect("a divergence"),
        got
    );
    assert!(drift(&before, &after, 2, &[true, true]).is_err());
    assert!(drift(&before, &after, 2, &[false, false]).is_err());
    assert!(drift(&before, &after, 2, &[true]).is_err());
    let ruled_out = [f32::NEG_INFINITY, 0.0];
    assert!(drift(&before[..2], &ruled_out, 2, &[true]).is_err());
    assert!(drift(&ruled_out, &before[..2], 2, &[true]).is_ok());
}

/// Defect 7: NPO on raw logits.
#[test]
fn a_preference_loss_is_one_of_log_probabilities_and_not_of_logits() {
    // (2/β) ln(1 + (p/p_ref)^β).
    let npo = |log_ratio: f64, beta: f64| 2.0 / beta * (1.0 + (beta * log_ratio).exp()).ln();
    // The same distribution, its logits one higher: the ratio is 1, and the loss (2/β) ln 2.
    let (model, reference) = ([3.0f32, 1.0], [2.0f32, 0.0]);
    let sum = |row: &[f32]| -> f64 {
        let text = tokens(row, 2, &[Some(0)]).expect("tokens");
        text.iter().map(|t| t.log_p).sum()
    };
    let ratio = sum(&model) - sum(&reference);
    near(ratio, 0.0);
    near(npo(ratio, 0.5), 4.0 * 2f64.ln());
    let defective = npo(f64::from(model[0] - reference[0]), 0.5);
    assert!((npo(ratio, 0.5) - defective).abs() > 1.0);
    // And the loss of a text that is half as likely: (2/1) ln(1 + ½).
    let half = text(&[0.25])[0].log_p - text(&[0.5])[0].log_p;
    near(npo(half, 1.0), 2.0 * 1.5f64.ln());
}

#[test]
fn min_k_takes_the_lowest() {
    let p: Vec<f64> = (1..=10).map(|i| (-f64::from(i)).exp()).collect();
    let of = |share| min_k(&text(&p), share).expect("a score");
    near(of(0.2), -9.5); // −10 and −9
    near(of(0.4), -8.5);
    near(of(1.0), -5.5);
    near(of(0.01), -10.0); // at least one
    near(of(0.29), -9.5); // of 2.9 the floor
    // A share that is a whole number of tokens but for rounding.
    let flat: Vec<f64> = (1..=100).map(|i| (-f64::from(i)).exp()).collect();
    near(min_k(&text(&flat), 0.29).expect("a score"), -86.0); // −72 … −100
}

#[test]
fn min_k_plus_plus_asks_what_the_model_expected() {
    let token = |log_p, mean, variance| Token {
        log_p,
        mean,
        variance,
        likeliest: false,
    };
    // (−4 + 2)/2 = −1; (−3 + 1)/½ = −4; 0 at a token the model was sure of; −1 over the floor's 10⁻³.
    let sure = [
        token(-4.0, -2.0, 4.0),
        token(-3.0, -1.0, 0.25),
        token(-0.1, -0.1, 0.0),
    ];
    near(min_k_plus_plus(&sure, 1.0).expect("a score"), -5.0 / 3.0);
    near(min_k_plus_plus(&sure, 0.4).expect("a score"), -4.0);
    let floor = [token(-1.0, 0.0, 0.0)];
    near(min_k_plus_plus(&floor, 1.0).expect("a score"), -1000.0);
}

#[test]
fn a_loss_is_put_beside_what_compresses_and_beside_another_model() {
    let (known, unknown) = (text(&[0.5, 0.5]), text(&[0.25, 0.25]));
    let said = "The quick brown fox jumps over the lazy dog.";
    let empty = zlib_ratio(&known, "").expect("a score");
    near(empty, -(2f64.ln()) / 8.0); // the frame alone
    // Greater means rather learnt; the same loss on a text that compresses to nothing means less.
    let score = |text: &[Token], said: &str| zlib_ratio(text, said).expect("a score");
    assert!(score(&known, said) > score(&unknown, said));
    assert!(score(&known, said) > score(&known, &"a".repeat(44)));
    near(
        against_reference(&known, &unknown).expect("a score"),
        2f64.ln(),
    );
    assert!(against_reference(&known, &unknown[..1]).is_err());
    assert!(zlib_ratio(&[], said).is_err());
}

#[test]
fn probabilities_and_truth_ratios_by_hand() {
    // ∛(½ · ¼ · ⅛) = ¼.
    let right = text(&[0.5, 0.25, 0.125]);
    near(probability(&right).expect("a probability"), 0.25);
    // Wrong answers of ⅛ and ½, of other lengths.
    let wrong = [text(&[0.125]), text(&[0.5, 0.5])];
    // ¼ / (¼ + ⅛ + ½) = 2/7.
    near(
        probability_among(&right, &wrong).expect("a share"),
        2.0 / 7.0,
    );
    near(
        probability_among::<Vec<Token>>(&right, &[]).expect("a share"),
        1.0,
    );
    // (⅛ + ½)/2 / ¼ = 5/4; √(⅛ · ½) / ¼ = 1.
    let ratio = |mean| truth_ratio(&right, &wrong, mean).expect("a ratio");
    near(ratio(TruthMean::Arithmetic), 1.25);
    near(ratio(TruthMean::Geometric), 1.0);
    assert!(truth_ratio::<Vec<Token>>(&right, &[], TruthMean::Geometric).is_err());
    assert!(truth_ratio(&right, &[vec![]], TruthMean::Geometric).is_err());
    for (r, likely, true_) in [
        (1.25, 0.8, 0.0),
        (0.4, 0.4, 0.6),
        (1.0, 1.0, 0.0),
        (0.0, 0.0, 1.0),
    ] {
        near(as_likely(r), likely);
        near(truthful(r), true_);
    }
    assert_eq!(
        (as_likely(f64::INFINITY), truthful(f64::INFINITY)),
        (0.0, 0.0)
    );
    // Probabilities that vanish keep their ratio.
    let faint = |log_p| vec![Token { log_p, ..right[0] }];
    let got =
        truth_ratio(&faint(-900.0), &[faint(-900.5)], TruthMean::Arithmetic).expect("a ratio");
    near(got, (-0.5f64).exp());
    near(
        probability_among(&faint(-900.0), &[faint(-900.0)]).expect("a share"),
        0.5,
    );
}
