//! Text metrics against published values.

use ebb_text::metrics::{Likelihood, exact_match, normalise, normalised_match, rouge_l};
use serde_json::Value;

/// The fixture comes from `fixtures/make_rouge.py`.
#[test]
fn rouge_l_is_that_of_rouge_score() {
    let rows: Value = serde_json::from_str(include_str!("fixtures/rouge.json")).expect("JSON");
    let rows = rows.as_array().expect("rows");
    assert!(rows.len() > 10);
    for row in rows {
        let text = |key: &str| row[key].as_str().expect("a text");
        let rouge = rouge_l(text("answer"), text("truth"));
        for (got, key) in [
            (rouge.precision, "precision"),
            (rouge.recall, "recall"),
            (rouge.f1, "f1"),
        ] {
            let want = row[key].as_f64().expect("a number");
            assert!((got - want).abs() < 1e-12, "{key} of {row}: {got}");
        }
    }
}

#[test]
fn exact_match_is_raw_or_as_in_squad() {
    assert!(exact_match(" Paris\n", "Paris"));
    assert!(!exact_match("paris", "Paris"));
    for (a, b) in [
        ("The Eiffel Tower.", "eiffel tower"),
        ("  an   apple,\na pear ", "apple pear"),
        ("U.S.A.", "usa"),
        ("well-known", "wellknown"),
    ] {
        assert!(normalised_match(a, b), "{a} / {b}");
    }
    assert!(!normalised_match("theatre", "atre"));
    assert_eq!(normalise("The A an THE"), "");
    assert_eq!(normalise("Été à l'an 2000!"), "été à lan 2000");
}

#[test]
fn perplexity_and_bits_per_byte_of_a_uniform_guess() {
    // 10 tokens of 4 bytes, each guessed among 256: perplexity 256, 8 bits a token, 2 a byte.
    let mut all = Likelihood::default();
    for _ in 0..10 {
        all.add(Likelihood {
            log_likelihood: -(256f64.ln()),
            tokens: 1,
            bytes: 4,
        });
    }
    assert!((all.perplexity() - 256.0).abs() < 1e-9);
    assert!((all.bits_per_byte() - 2.0).abs() < 1e-12);
    assert!(Likelihood::default().perplexity().is_nan());
    assert!(Likelihood::default().bits_per_byte().is_nan());
}
