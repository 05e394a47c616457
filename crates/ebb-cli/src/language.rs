//! Language models by name or path.

use crate::around::Around;
use crate::error::{Error, Result};
use ebb_lm::LanguageModel;
use std::path::{Path, PathBuf};

/// Opens the model called `name`: one that `ebb data fetch` brought, a folder or a GGUF file; an
/// adapter is merged into it.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn open(name: &str, adapter: Option<&Path>, around: &Around) -> Result<LanguageModel> {
    let path = match ebb_data::models().iter().find(|model| model.name == name) {
        None => PathBuf::from(name),
        Some(model) => model.path(&around.data_dir()?).ok_or_else(|| {
            Error::request(
                format!("the model {name} is not on this machine"),
                format!(
                    "`ebb data fetch {name}` brings it ({} MB)",
                    model.bytes / 1_000_000
                ),
            )
        })?,
    };
    if !path.exists() {
        let known: Vec<&str> = ebb_data::models().iter().map(|m| m.name).collect();
        return Err(Error::request(
            format!("there is no model `{name}`"),
            format!(
                "give a folder with config.json and safetensors, a .gguf file, or one of {}",
                known.join(", ")
            ),
        ));
    }
    let mut model = LanguageModel::open(path)?;
    if let Some(adapter) = adapter {
        model.merge_adapter(adapter)?;
    }
    Ok(model)
}
