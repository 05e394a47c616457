//! Whether a source was made from such a base.

use std::path::Path;

use serde_json::Value;

use super::source::{Files, Source, tokenizer_in};
use crate::error::{Error, Result};
use crate::tensors::{TensorInfo, Tensors};
use crate::tokenizer::Tokenizer;

/// What of a configuration decides what the same weights compute.
const MEANS: [&str; 9] = [
    "model_type",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "hidden_activation",
    "rope_theta",
    "tie_word_embeddings",
];

/// The head, where it is the embedding by another name.
const HEAD: &str = "lm_head.weight";

/// The tensors that are merged: those of the base, without a head that is the embedding.
pub(super) fn tensors(base: &Files) -> Vec<TensorInfo> {
    let all = base.tensors().tensors().iter();
    let tied = is_tied(base);
    all.filter(|t| !(tied && t.name == HEAD)).cloned().collect()
}

/// Whether `source` can be merged into `base`.
pub(super) fn check(
    base: &Files,
    own: Option<&Tokenizer>,
    tensors: &[TensorInfo],
    source: &Source,
    path: &Path,
) -> Result<()> {
    let refuse = |what: String| {
        let source = path.display();
        Err(Error::Mismatch(format!(
            "`{source}` was not made from `{}`: {what}",
            base.path().display()
        )))
    };
    let tokenizer = match source {
        Source::Adapter(adapter) => {
            let shape = |name: &str| {
                let at = tensors.binary_search_by(|t| t.name.as_str().cmp(name));
                at.ok().map(|at| &tensors[at].shape[..])
            };
            adapter.fits(shape).or_else(|e| refuse(e.to_string()))?;
            match same_file(base, path) {
                true => None,
                false => tokenizer_in(path)?,
            }
        }
        Source::Model(files) => {
            let (own, theirs) = (base.config()?, files.config()?);
            for key in MEANS {
                if let (Some(a), Some(b)) = (given(own.get(key)), given(theirs.get(key)))
                    && !same(a, b)
                {
                    return refuse(format!("its `{key}` is {b}, the base has {a}"));
                }
            }
            for info in tensors {
                match files.tensors().find(&info.name) {
                    None => return refuse(format!("it has no tensor `{}`", info.name)),
                    Some(found) if found.shape != info.shape => {
                        return refuse(format!(
                            "its tensor `{}` has the shape {:?}, the base's {:?}",
                            info.name, found.shape, info.shape
                        ));
                    }
                    Some(_) => {}
                }
            }
            let tied = is_tied(files);
            let own = |t: &&TensorInfo| !(tied && t.name == HEAD);
            let known = |t: &TensorInfo| {
                tensors
                    .binary_search_by(|own| own.name.cmp(&t.name))
                    .is_ok()
            };
            let mut theirs = files.tensors().tensors().iter().filter(own);
            if let Some(more) = theirs.find(|t| !known(t)) {
                return refuse(format!(
                    "it has a tensor `{}`, the base has none",
                    more.name
                ));
            }
            match same_file(base, path) {
                true => None,
                false => files.tokenizer()?,
            }
        }
    };
    match (own, tokenizer) {
        (Some(own), Some(theirs)) => match other_token(own, &theirs) {
            Some(what) => refuse(format!("their tokenizers differ: {what}")),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Whether both have one `tokenizer.json`, which then need not be read.
fn same_file(base: &Files, source: &Path) -> bool {
    let read = |folder: &Path| std::fs::read(folder.join("tokenizer.json")).ok();
    match base {
        Files::Folder(folder) => read(folder.path()).is_some_and(|own| read(source) == Some(own)),
        Files::Gguf(_) => false,
    }
}

fn given(value: Option<&Value>) -> Option<&Value> {
    value.filter(|v| !v.is_null())
}

/// Numbers by value: 10000 and 10000.0 are one.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn is_tied(files: &Files) -> bool {
    let config = files.config().unwrap_or_default();
    config.get("tie_word_embeddings") == Some(&Value::Bool(true))
}

/// The first token that two tokenizers number differently. What one of them alone has at its end
/// (GGUF files fill their vocabulary up) does not count.
fn other_token(own: &Tokenizer, theirs: &Tokenizer) -> Option<String> {
    let both = own.len().min(theirs.len()) as u32;
    (0..both).find_map(|id| match (own.token(id), theirs.token(id)) {
        (Some(a), Some(b)) if a != b => {
            Some(format!("token {id} is {a:?} in the base and {b:?} in it"))
        }
        _ => None,
    })
}
