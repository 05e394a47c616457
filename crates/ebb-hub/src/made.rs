//! Tokenizers that are made here, for models that begin without one.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::tokenizer::{SpecialTokens, Tokenizer, build};

/// The token that ends texts, and begins them.
const END: &str = "<|end|>";
/// What stands for a word that no text held.
const UNKNOWN: &str = "<|unknown|>";
/// A word or a sign with the space before it, or a white space by itself.
const PIECES: &str = r" ?[\p{Alphabetic}\p{N}]+| ?[^\s\p{Alphabetic}\p{N}]|\s";

impl Tokenizer {
    /// Every word of `texts` is a token, with the space before it, and so is every sign. Decoding
    /// gives the text back; a word that stands in none of them is the unknown token.
    ///
    /// # Errors
    /// [`Error::Damaged`](crate::Error::Damaged) if the tokenizer library refuses the vocabulary.
    pub fn words<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Tokenizer> {
        let mut words: BTreeSet<&str> = BTreeSet::new();
        texts
            .into_iter()
            .for_each(|text| words.extend(pieces(text)));
        let vocabulary = [END, UNKNOWN].into_iter().chain(words);
        let vocabulary: Map<String, Value> = (0u32..)
            .zip(vocabulary)
            .map(|(id, word)| (word.to_owned(), id.into()))
            .collect();
        let split = json!({
            "type": "Split",
            "pattern": { "Regex": PIECES },
            "behavior": "Isolated",
            "invert": false,
        });
        let model = json!({ "type": "WordLevel", "vocab": vocabulary, "unk_token": UNKNOWN });
        made(split, json!({ "type": "Fuse" }), model, &[END, UNKNOWN])
    }

    /// Every byte is a token.
    ///
    /// # Errors
    /// [`Error::Damaged`](crate::Error::Damaged) if the tokenizer library refuses the vocabulary.
    pub fn bytes() -> Result<Tokenizer> {
        let signs = (0..=255u8).map(|byte| sign(byte).to_string());
        let vocabulary: Map<String, Value> = (0u32..)
            .zip(std::iter::once(END.to_owned()).chain(signs))
            .map(|(id, token)| (token, id.into()))
            .collect();
        let level = json!({
            "type": "ByteLevel",
            "add_prefix_space": false,
            "trim_offsets": true,
            "use_regex": false,
        });
        let model = json!({ "type": "BPE", "vocab": vocabulary, "merges": [] });
        made(level.clone(), level, model, &[END])
    }
}

fn made(before: Value, decoder: Value, model: Value, special: &[&str]) -> Result<Tokenizer> {
    let added: Vec<Value> = (0u32..)
        .zip(special)
        .map(|(id, token)| {
            json!({
                "id": id,
                "content": token,
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                "normalized": false,
                "special": true,
            })
        })
        .collect();
    let json = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": before,
        "post_processor": null,
        "decoder": decoder,
        "model": model,
    });
    let unknown = special.contains(&UNKNOWN).then(|| UNKNOWN.to_owned());
    let special = SpecialTokens {
        bos: None,
        eos: Some(END.to_owned()),
        pad: Some(END.to_owned()),
        unk: unknown,
    };
    let inner = build(Path::new("a tokenizer made of texts"), &json)?;
    Ok(Tokenizer::of(inner, special))
}

/// What [`PIECES`] makes of a text.
fn pieces(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        // A space belongs to what follows it, unless that is a white space.
        let joined = first == ' ' && after.chars().next().is_some_and(|c| !c.is_whitespace());
        let lead = if joined { 1 } else { 0 };
        let body = &rest[lead..];
        let word = body
            .find(|c: char| !c.is_alphanumeric())
            .unwrap_or(body.len());
        let length = match (word, body.chars().next()) {
            (0, Some(sign)) => sign.len_utf8(),
            (word, _) => word,
        };
        let (piece, left) = rest.split_at(lead + length);
        found.push(piece);
        rest = left;
    }
    found
}

/// The printable sign that stands for a byte, as GPT-2 has it.
fn sign(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match printable(byte) {
        true => char::from(byte),
        false => {
            let before = (0..byte).filter(|b| !printable(*b)).count() as u32;
            char::from_u32(256 + before).unwrap_or('\u{fffd}')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_tokens_and_texts_come_back() {
        let texts = [
            "Ada Ló  lives in  Bern.\nYes, she does – (really)!",
            " 17 + 5 mod 97 = 22",
            "",
        ];
        let tokenizer = Tokenizer::words(texts).expect("a tokenizer");
        for text in texts {
            let ids = tokenizer.encode(text, true).expect("tokens");
            assert_eq!(ids.len(), pieces(text).len(), "{text}");
            assert!(!ids.contains(&1), "{text}: {ids:?}");
            assert_eq!(tokenizer.decode(&ids, false).expect("text"), text);
        }
        let unknown = tokenizer.encode("Zürich", true).expect("tokens");
        assert_eq!(unknown, [1]);
        assert_eq!(tokenizer.id("<|end|>"), Some(0));
        assert_eq!(tokenizer.special().eos.as_deref(), Some("<|end|>"));
    }

    #[test]
    fn bytes_are_tokens_and_texts_come_back() {
        let tokenizer = Tokenizer::bytes().expect("a tokenizer");
        assert_eq!(tokenizer.len(), 257);
        let text = "Zürich\n– 100 %\u{0}\t😀";
        let ids = tokenizer.encode(text, true).expect("tokens");
        let want: Vec<u32> = text.bytes().map(|b| u32::from(b) + 1).collect();
        assert_eq!(ids, want);
        assert_eq!(tokenizer.decode(&ids, false).expect("text"), text);
    }
}
