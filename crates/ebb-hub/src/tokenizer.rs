//! Text to tokens and back.

use std::collections::HashMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::chat::ChatTemplate;
use crate::error::{At, Error, Result};
use crate::folder::object;
use crate::gguf::{Gguf, MetaArray, MetaValue};
use crate::tensors::Tensors;

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";

/// The tokens that have a meaning of their own, where a model has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos: Option<String>,
    /// Ends a text.
    pub eos: Option<String>,
    /// Fills a row up.
    pub pad: Option<String>,
    /// Stands for what the vocabulary lacks.
    pub unk: Option<String>,
}

impl SpecialTokens {
    fn named(&self) -> Map<String, Value> {
        let named = [
            ("bos_token", &self.bos),
            ("eos_token", &self.eos),
            ("pad_token", &self.pad),
            ("unk_token", &self.unk),
        ];
        let known = named
            .into_iter()
            .filter_map(|(key, token)| Some((key, token.clone()?)));
        known
            .map(|(key, token)| (key.to_owned(), token.into()))
            .collect()
    }
}

/// A tokenizer, its special tokens and its chat template.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: SpecialTokens,
    chat_template: Option<String>,
}

impl Tokenizer {
    /// A tokenizer without a chat template.
    pub(crate) fn of(inner: tokenizers::Tokenizer, special: SpecialTokens) -> Tokenizer {
        Tokenizer {
            inner,
            special,
            chat_template: None,
        }
    }

    /// Reads `tokenizer.json` of a Hugging Face folder, and special tokens and the chat template
    /// beside it.
    ///
    /// # Errors
    /// [`Error::Missing`] without `tokenizer.json`; [`Error::Damaged`] if it cannot be read;
    /// [`Error::Io`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Tokenizer> {
        let folder = folder.as_ref();
        let path = folder.join(TOKENIZER);
        if !path.is_file() {
            let older = ["tokenizer.model", "vocab.json"]
                .into_iter()
                .find(|f| folder.join(f).exists());
            let what = match older {
                Some(older) => format!(
                    "`{TOKENIZER}`, only `{older}` of an older format: load the tokenizer with \
                     `AutoTokenizer` and save it again"
                ),
                None => format!("`{TOKENIZER}`: copy it from the model that this one comes from"),
            };
            return Err(Error::missing(folder, what));
        }
        let bytes = fs::read(&path).at("read", &path)?;
        let json = serde_json::from_slice(&bytes)
            .map_err(|e| Error::damaged(&path, format!("it has no valid tokenizer ({e})")))?;
        let inner = build(&path, &json)?;
        let config = object(&folder.join(CONFIG))?.unwrap_or_default();
        let token = |key: &str| match config.get(key)? {
            Value::String(token) => Some(token.clone()),
            // An added token with its properties.
            Value::Object(token) => token.get("content")?.as_str().map(str::to_owned),
            _ => None,
        };
        let special = SpecialTokens {
            bos: token("bos_token"),
            eos: token("eos_token"),
            pad: token("pad_token"),
            unk: token("unk_token"),
        };
        let file = folder.join("chat_template.jinja");
        let chat_template = if file.is_file() {
            Some(fs::read_to_string(&file).at("read", &file)?)
        } else {
            config.get("chat_template").and_then(default_template)
        };
        Ok(Tokenizer {
            inner,
            special,
            chat_template,
        })
    }

    /// The tokenizer in the metadata of a GGUF file.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a kind of tokenizer, or a way to split words, that is not
    /// known; [`Error::Damaged`] where the vocabulary contradicts itself.
    pub fn from_gguf(gguf: &Gguf) -> Result<Tokenizer> {
        let vocabulary = Vocabulary::of(gguf)?;
        let inner = build(gguf.path(), &vocabulary.tokenizer()?)?;
        let special = SpecialTokens {
            bos: vocabulary.named("bos_token_id")?.map(str::to_owned),
            eos: vocabulary.named("eos_token_id")?.map(str::to_owned),
            pad: vocabulary.named("padding_token_id")?.map(str::to_owned),
            unk: vocabulary.named("unknown_token_id")?.map(str::to_owned),
        };
        Ok(Tokenizer {
            inner,
            special,
            chat_template: gguf.chat_template().map(str::to_owned),
        })
    }

    /// Tokens of a text; with `special`, those too that the model puts around every text. Special
    /// tokens that the text spells out are recognised in both cases.
    ///
    /// # Errors
    /// [`Error::Tokenize`].
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = unpanicked(|| self.inner.encode_fast(text, special));
        encoding
            .map(|e| e.get_ids().to_vec())
            .map_err(Error::Tokenize)
    }

    /// Text of tokens, with special tokens or without.
    ///
    /// # Errors
    /// [`Error::Tokenize`].
    pub fn decode(&self, ids: &[u32], special: bool) -> Result<String> {
        unpanicked(|| self.inner.decode(ids, !special)).map_err(Error::Tokenize)
    }

    /// The number of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of a number.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// How many tokens there are, added ones included.
    pub fn len(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Whether there is no token at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The special tokens.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// The chat template.
    ///
    /// # Errors
    /// [`Error::Template`] if the model has none, or one that is not valid.
    pub fn chat(&self) -> Result<ChatTemplate> {
        let source = self.chat_template.as_ref().ok_or_else(|| {
            let what = "is missing: this is a base model, which was not taught to chat. Give it \
                        prompts and completions, or use the `-Instruct` model";
            Error::Template(what.into())
        })?;
        ChatTemplate::new(source, self.special.named())
    }

    /// `tokenizer.json` and `tokenizer_config.json`, to write beside a model.
    ///
    /// # Errors
    /// [`Error::Tokenize`].
    pub fn files(&self) -> Result<[(&'static str, String); 2]> {
        let tokenizer = self
            .inner
            .to_string(true)
            .map_err(|e| Error::Tokenize(e.to_string()))?;
        let mut config = self.special.named();
        config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
        config.insert("clean_up_tokenization_spaces".into(), false.into());
        if let Some(template) = &self.chat_template {
            config.insert("chat_template".into(), template.clone().into());
        }
        Ok([
            (TOKENIZER, tokenizer),
            (CONFIG, format!("{:#}\n", Value::Object(config))),
        ])
    }
}

/// What the library says, or that it gave up: it panics on some contradictions that the checks of
/// [`build`] do not know.
fn unpanicked<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err(format!("`{TOKENIZER}` contradicts itself")),
    }
}

/// A `tokenizer.json`. Its truncation and padding are left aside, as `transformers` does: they
/// are what some earlier call asked for.
pub(crate) fn build(path: &Path, json: &Value) -> Result<tokenizers::Tokenizer> {
    let no_tokenizer = |e: String| Error::damaged(path, format!("it has no valid tokenizer ({e})"));
    if json.get("normalizer").is_some_and(is_precompiled) {
        let what = "its normalizer is a compiled table of SentencePiece, which no model has that is \
                    read here";
        return Err(Error::unsupported(path, what));
    }
    merges_fit(&json["model"]).map_err(no_tokenizer)?;
    ids_fit(json).map_err(no_tokenizer)?;
    // Written anew: of a key that a file has twice, the library must see what was checked.
    let text = json.to_string();
    let mut tokenizer =
        unpanicked(|| tokenizers::Tokenizer::from_bytes(text.as_bytes())).map_err(no_tokenizer)?;
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .map_err(|e| no_tokenizer(e.to_string()))?;
    Ok(tokenizer)
}

/// Whether this normalizer, or one inside it, is a table that the library believes unread: four
/// bytes of it can ask for gigabytes.
fn is_precompiled(normalizer: &Value) -> bool {
    match normalizer {
        Value::Object(map) => {
            map.contains_key("precompiled_charsmap")
                || map.get("type").is_some_and(|t| t == "Precompiled")
                || map.values().any(is_precompiled)
        }
        Value::Array(several) => several.iter().any(is_precompiled),
        _ => false,
    }
}

/// Whether tokens are numbered about as far as there are tokens: when it writes them the library
/// counts up to the last.
fn ids_fit(json: &Value) -> std::result::Result<(), String> {
    let (vocabulary, added) = (&json["model"]["vocab"], &json["added_tokens"]);
    let ids = vocabulary.as_object().into_iter().flat_map(Map::values);
    let added = added
        .as_array()
        .into_iter()
        .flatten()
        .map(|token| &token["id"]);
    let (mut tokens, mut last) = (0, 0);
    for id in ids.chain(added) {
        tokens += 1;
        last = last.max(id.as_u64().unwrap_or(0));
    }
    // A gap is no error: some vocabularies were filled up to a round number.
    if last > 2 * tokens + 4096 {
        return Err(format!(
            "it has {tokens} tokens and numbers one of them {last}"
        ));
    }
    Ok(())
}

/// Whether two tokens that are merged make a token: the library takes it for granted.
fn merges_fit(model: &Value) -> std::result::Result<(), String> {
    let (Some(vocabulary), Some(merges)) = (model["vocab"].as_object(), model["merges"].as_array())
    else {
        return Ok(());
    };
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or("");
    for merge in merges {
        let parts = match merge {
            Value::String(merge) => merge.split_once(' '),
            Value::Array(parts) => match &parts[..] {
                [left, right] => left.as_str().zip(right.as_str()),
                _ => None,
            },
            _ => None,
        };
        // What has no two parts the library refuses by itself.
        let Some((left, right)) = parts else { continue };
        let end = right.get(prefix.len()..);
        if !end.is_some_and(|end| vocabulary.contains_key(&format!("{left}{end}"))) {
            return Err(format!(
                "`{left}` and `{right}` merge to no token of the vocabulary"
            ));
        }
    }
    Ok(())
}

/// One template, or the one called `default` of several.
fn default_template(value: &Value) -> Option<String> {
    match value {
        Value::String(template) => Some(template.clone()),
        Value::Array(several) => {
            let default = several
                .iter()
                .find(|t| t.get("name").is_some_and(|n| n == "default"));
            default?.get("template")?.as_str().map(str::to_owned)
        }
        _ => None,
    }
}

/// Kinds of tokens in a GGUF file.
const NORMAL: usize = 1;
const CONTROL: usize = 3;
const USER_DEFINED: usize = 4;

/// More bytes than any token of a SentencePiece vocabulary has: the published ones end at a
/// hundred.
const LONGEST_TOKEN: usize = 1 << 10;

/// The words of the texts that Llama 3 and Qwen 2 were split into; they differ in how many digits
/// stay together.
fn words(digits: &str) -> String {
    [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        digits,
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
    .join("|")
}

/// What the metadata say about tokens.
struct Vocabulary<'a> {
    gguf: &'a Gguf,
    tokens: Vec<&'a str>,
    kinds: Vec<usize>,
}

impl<'a> Vocabulary<'a> {
    fn of(gguf: &'a Gguf) -> Result<Vocabulary<'a>> {
        let list = |name: &str| gguf.metadata().get(name).and_then(MetaValue::as_array);
        let tokens = list("tokenizer.ggml.tokens").and_then(MetaArray::texts);
        let tokens: Vec<&str> = match tokens {
            Some(tokens) => tokens.iter().map(String::as_str).collect(),
            None => {
                let what = "vocabulary: take the tokenizer of the model's folder";
                return Err(Error::missing(gguf.path(), what));
            }
        };
        let kinds = match gguf.metadata().get("tokenizer.ggml.token_type") {
            None => vec![NORMAL; tokens.len()],
            Some(kinds) => {
                let kinds = kinds.as_array().and_then(MetaArray::numbers);
                let kinds = kinds.unwrap_or_default().into_iter();
                kinds.map(|kind| kind as usize).collect()
            }
        };
        if kinds.len() != tokens.len() {
            let what = format!(
                "it has {} tokens and {} kinds of them",
                tokens.len(),
                kinds.len()
            );
            return Err(Error::damaged(gguf.path(), what));
        }
        let mut seen = HashMap::new();
        for (id, token) in tokens.iter().enumerate() {
            if let Some(first) = seen.insert(token, id) {
                let what = format!("tokens {first} and {id} are both {token:?}");
                return Err(Error::damaged(gguf.path(), what));
            }
        }
        Ok(Vocabulary {
            gguf,
            tokens,
            kinds,
        })
    }

    fn get(&self, key: &str) -> Option<&'a MetaValue> {
        self.gguf.metadata().get(&format!("tokenizer.ggml.{key}"))
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(MetaValue::as_bool)
    }

    /// The token whose number is under `key`.
    fn named(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(id) = self.get(key) else {
            return Ok(None);
        };
        let token = id.as_usize().and_then(|id| self.tokens.get(id));
        token.map(|token| Some(*token)).ok_or_else(|| {
            let what = format!(
                "`{key}` is {id:?} and there are {} tokens",
                self.tokens.len()
            );
            Error::damaged(self.gguf.path(), what)
        })
    }

    /// The `tokenizer.json` that says the same.
    fn tokenizer(&self) -> Result<Value> {
        let kind = self
            .get("model")
            .and_then(MetaValue::as_str)
            .unwrap_or_default();
        let (normalizer, pre_tokenizer, decoder, model, begins) = match kind {
            "gpt2" => self.byte_level()?,
            "llama" => self.sentence_piece()?,
            other => {
                let what = format!(
                    "its tokenizer is of the kind `{other}`; `gpt2` and `llama` are read: take \
                     `{TOKENIZER}` of the model's folder"
                );
                return Err(Error::unsupported(self.gguf.path(), what));
            }
        };
        let added: Vec<Value> = self
            .tokens
            .iter()
            .zip(&self.kinds)
            .enumerate()
            .filter(|(_, (_, kind))| matches!(**kind, CONTROL | USER_DEFINED))
            .map(|(id, (token, &kind))| {
                json!({
                    "id": id, "content": token, "special": kind == CONTROL, "single_word": false,
                    "lstrip": false, "rstrip": false, "normalized": false,
                })
            })
            .collect();
        let begins = self.flag("add_bos_token").unwrap_or(begins);
        let ends = self.flag("add_eos_token").unwrap_or(false);
        let bos = self.named("bos_token_id")?.filter(|_| begins);
        let eos = self.named("eos_token_id")?.filter(|_| ends);
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": added,
            "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": self.around(bos, eos),
            "decoder": decoder,
            "model": model,
        }))
    }

    /// What is put around every text.
    fn around(&self, bos: Option<&str>, eos: Option<&str>) -> Value {
        let special = |token: &str| json!({ "SpecialToken": { "id": token, "type_id": 0 } });
        let side = |name: &str| {
            let text = json!({ "Sequence": { "id": name, "type_id": 0 } });
            let parts = [bos.map(special), Some(text), eos.map(special)];
            parts.into_iter().flatten().collect::<Vec<_>>()
        };
        let mut tokens = Map::new();
        for token in [bos, eos].into_iter().flatten() {
            let id = self.tokens.iter().position(|t| *t == token);
            tokens.insert(
                token.into(),
                json!({ "id": token, "ids": [id], "tokens": [token] }),
            );
        }
        if tokens.is_empty() {
            return Value::Null;
        }
        let pair = [side("A"), side("B")].concat();
        json!({
            "type": "TemplateProcessing",
            "single": side("A"),
            "pair": pair,
            "special_tokens": tokens,
        })
    }

    fn ids(&self) -> Map<String, Value> {
        let numbered = self.tokens.iter().enumerate();
        numbered
            .map(|(id, token)| ((*token).to_owned(), id.into()))
            .collect()
    }

    /// GPT-2's: bytes spelled as letters, merged in the order of a list.
    fn byte_level(&self) -> Result<(Value, Value, Value, Value, bool)> {
        let level = |splits: bool| {
            json!({
                "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                "use_regex": splits,
            })
        };
        let then_bytes = |first: Value, splits: bool| json!({ "type": "Sequence", "pretokenizers": [first, level(splits)] });
        let split = |digits: &str| {
            let pattern = json!({ "Regex": words(digits) });
            let first = json!({
                "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false,
            });
            then_bytes(first, false)
        };
        let name = self
            .get("pre")
            .and_then(MetaValue::as_str)
            .unwrap_or("gpt-2");
        let (normalizer, pre_tokenizer) = match name {
            "gpt-2" | "olmo" => (Value::Null, level(true)),
            "smollm" => {
                let digits = json!({ "type": "Digits", "individual_digits": true });
                (Value::Null, then_bytes(digits, true))
            }
            "llama-bpe" | "llama3" | "llama-v3" => (Value::Null, split(r"\p{N}{1,3}")),
            "qwen2" => (json!({ "type": "NFC" }), split(r"\p{N}")),
            other => {
                let what = format!(
                    "its tokenizer splits words like `{other}`, which is not known: take \
                     `{TOKENIZER}` of the model's folder"
                );
                return Err(Error::unsupported(self.gguf.path(), what));
            }
        };
        let llama3 = name.starts_with("llama");
        let merges = self
            .get("merges")
            .and_then(MetaValue::as_array)
            .and_then(MetaArray::texts)
            .ok_or_else(|| Error::damaged(self.gguf.path(), "its tokenizer has no merges"))?;
        let merges = merges.iter().map(|merge| {
            let (left, right) = merge.split_once(' ')?;
            Some(json!([left, right]))
        });
        let merges: Option<Vec<Value>> = merges.collect();
        let merges =
            merges.ok_or_else(|| Error::damaged(self.gguf.path(), "a merge is not two tokens"))?;
        let model = json!({
            "type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false,
            "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "byte_fallback": false, "ignore_merges": llama3,
            "vocab": self.ids(), "merges": merges,
        });
        Ok((normalizer, pre_tokenizer, level(true), model, llama3))
    }

    /// SentencePiece's: spaces are a letter, and the pair whose token scores highest is merged
    /// first. The list of merges that this amounts to is made from the scores.
    fn sentence_piece(&self) -> Result<(Value, Value, Value, Value, bool)> {
        let scores = self
            .get("scores")
            .and_then(MetaValue::as_array)
            .and_then(MetaArray::numbers)
            .filter(|scores| scores.len() == self.tokens.len())
            .ok_or_else(|| {
                Error::damaged(
                    self.gguf.path(),
                    "its tokenizer has no score for every token",
                )
            })?;
        let ids: HashMap<&str, usize> = self
            .tokens
            .iter()
            .enumerate()
            .map(|(id, token)| (*token, id))
            .collect();
        let mut merges = Vec::new();
        for (id, token) in self.tokens.iter().enumerate() {
            if self.kinds[id] != NORMAL {
                continue;
            }
            // Every place to cut it is tried: the time grows with the square of its length.
            if token.len() > LONGEST_TOKEN {
                let what = format!("token {id} has {} bytes", token.len());
                return Err(Error::damaged(self.gguf.path(), what));
            }
            let first = merges.len();
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if let (Some(&l), Some(&r)) = (ids.get(left), ids.get(right)) {
                    merges.push((scores[id], l, r));
                }
            }
            merges[first..].sort_unstable_by_key(|&(_, l, r)| (l, r));
        }
        // Stable: tokens of one score stay in the order of the vocabulary.
        merges.sort_by(|a, b| b.0.total_cmp(&a.0));
        let merges: Vec<Value> = merges
            .iter()
            .map(|&(_, l, r)| json!([self.tokens[l], self.tokens[r]]))
            .collect();
        let unknown = self.named("unknown_token_id")?;
        let model = json!({
            "type": "BPE", "dropout": null, "unk_token": unknown, "fuse_unk": true,
            "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "byte_fallback": true, "ignore_merges": false,
            "vocab": self.ids(), "merges": merges,
        });
        let spaces = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" });
        let back = json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " });
        let bytes = json!({ "type": "ByteFallback" });
        let fuse = json!({ "type": "Fuse" });
        let (normalizers, decoders) = if self.flag("add_space_prefix").unwrap_or(true) {
            let prefix = json!({ "type": "Prepend", "prepend": "▁" });
            let strip = json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 });
            (vec![prefix, spaces], vec![back, bytes, fuse, strip])
        } else {
            (vec![spaces], vec![back, bytes, fuse])
        };
        let normalizer = json!({ "type": "Sequence", "normalizers": normalizers });
        let decoder = json!({ "type": "Sequence", "decoders": decoders });
        Ok((normalizer, Value::Null, decoder, model, true))
    }
}
