//! Runs that ended, kept on disk: a study that was stopped goes on where it was, and a run that
//! several studies ask for is done once.
//!
//! A run is known by everything that its numbers follow from: the code, the recipe with its seed,
//! what it is shown of its stream and what is measured. Runs are exact, so the one that is kept is
//! the one that would be run.

use crate::measure::Measure;
use crate::variation::Variation;
use ebb_learn::Recipe;
use ebb_learn::language::TEXT;
use ebb_net::NetworkSpec;
use ebb_space::Number;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A folder of runs.
pub struct Kept {
    folder: PathBuf,
    /// Seconds that runs from the folder had taken.
    spared: Mutex<f64>,
}

/// A run that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Done {
    pub numbers: BTreeMap<String, Number>,
    pub train_seconds: f64,
    pub method: String,
    pub group: String,
}

/// Whether a run reads files that its recipe names and says nothing of: data of the user's, texts,
/// a model.
fn reads_files(recipe: &Recipe) -> bool {
    let file = recipe.file();
    let texts = file.language.iter().flat_map(|l| &l.experience);
    let mut texts = texts.filter(|e| !e.train.is_empty() || !e.test.is_empty());
    let own = |name: &str| name == TEXT || ebb_data::catalogue().iter().any(|d| d.name == name);
    texts.next().is_some()
        || !own(&file.stream.dataset)
        || matches!(file.network, NetworkSpec::Pretrained { .. })
}

/// One file of the folder.
#[derive(Serialize, Deserialize)]
struct Entry {
    /// None for a run that diverged.
    done: Option<Done>,
    seconds: f64,
}

impl Kept {
    /// Runs kept in this folder; it is made when the first one ends.
    pub fn at(folder: impl Into<PathBuf>) -> Kept {
        Kept {
            folder: folder.into(),
            spared: Mutex::new(0.0),
        }
    }

    /// Seconds that the runs found in the folder had taken when they were run.
    pub fn spared(&self) -> f64 {
        *self.spared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a run is kept; none for runs that read files of the user's, which may change.
    pub(crate) fn path(
        &self,
        code: &str,
        recipe: &Recipe,
        start: Option<&Recipe>,
        variation: Variation,
        measures: &BTreeMap<String, Measure>,
    ) -> Option<PathBuf> {
        if reads_files(recipe) || start.is_some_and(reads_files) {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        let measures = serde_json::to_string(measures).ok()?;
        for part in [code, &recipe.hash(), &format!("{variation:?}"), &measures] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        if let Some(start) = start {
            hasher.update(start.hash().as_bytes());
        }
        let name = hasher.finalize().to_hex();
        Some(self.folder.join(format!("{name}.json")))
    }

    /// The run that is kept there, if one is, and the seconds it took. A file that cannot be read
    /// is none: it is written anew.
    pub(crate) fn get(&self, path: &Path) -> Option<(Option<Done>, f64)> {
        let entry: Entry = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        *self.spared.lock().unwrap_or_else(PoisonError::into_inner) += entry.seconds;
        Some((entry.done, entry.seconds))
    }

    /// Keeps a run.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn put(
        &self,
        path: &Path,
        done: &Option<Done>,
        seconds: f64,
    ) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let done = done.clone();
        let text = serde_json::to_vec(&Entry { done, seconds })?;
        // Processes side by side may end the same run at once.
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        std::fs::write(&temporary, text)?;
        std::fs::rename(&temporary, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_on_files_of_the_users_are_not_kept() {
        let kept = |text: &str| {
            let recipe = Recipe::parse(text, &[]).expect("a recipe");
            let place = Kept::at("runs");
            let path = place.path("code", &recipe, None, Variation::Whole, &BTreeMap::new());
            path.is_some()
        };
        let of = |dataset: &str| format!("stream = {{ dataset = \"{dataset}\" }}");
        assert!(kept(&of("digits")) && kept(&of("mnist")));
        assert!(!kept(&of("mine.safetensors")));
        let texts = |network: &str, experience: &str| {
            format!(
                "stream = {{ dataset = \"text\" }}\nnetwork = {{ {network} }}\n\
                 language = {{ experience = [{{ name = \"a\", {experience} }}] }}"
            )
        };
        let (fresh, world) = (
            "kind = \"decoder\"",
            "world = { kind = \"facts\", people = 4 }",
        );
        assert!(kept(&texts(fresh, world)));
        assert!(!kept(&texts(fresh, "train = [\"a.txt\"]")));
        assert!(!kept(&texts("kind = \"pretrained\", model = \"a\"", world)));
    }
}
