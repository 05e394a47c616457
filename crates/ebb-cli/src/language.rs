//! Language models by name or path.

use crate::around::Around;
use crate::error::Result;
use crate::place::is_run;
use ebb_lm::LanguageModel;
use std::path::Path;

/// Opens the model called `name`: one that `ebb data fetch` brought, a folder, a GGUF file, or the
/// directory of a run that trained it; an adapter is merged into it.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn open(name: &str, adapter: Option<&Path>, around: &Around) -> Result<LanguageModel> {
    let data_dir = around.data_dir()?;
    let mut model = match is_run(Path::new(name)) {
        true => ebb_learn::language::of_run(Path::new(name), None, &data_dir)?,
        false => LanguageModel::open(LanguageModel::find(name, &data_dir)?)?,
    };
    if let Some(adapter) = adapter {
        model.merge_adapter(adapter)?;
    }
    Ok(model)
}
