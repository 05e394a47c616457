//! The settings of a recipe, key by key, and where recipes differ.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use crate::data::RunData;

/// Every setting by its path: `train.lr` is `0.05`. A text that is no recipe has none.
pub(crate) fn keys(recipe: &str) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    if let Ok(table) = recipe.parse::<Table>() {
        for (key, value) in &table {
            flatten(key.clone(), value, &mut keys);
        }
    }
    keys
}

fn flatten(path: String, value: &Value, keys: &mut BTreeMap<String, String>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                flatten(format!("{path}.{key}"), value, keys);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_table) => {
            for (i, item) in items.iter().enumerate() {
                flatten(format!("{path}.{i}"), item, keys);
            }
        }
        Value::String(text) => {
            keys.insert(path, text.clone());
        }
        other => {
            keys.insert(path, other.to_string());
        }
    }
}

/// The settings of each of these runs.
pub(crate) fn keys_of<'a>(
    runs: impl Iterator<Item = &'a RunData>,
) -> Vec<BTreeMap<String, String>> {
    runs.map(|r| keys(&r.recipe)).collect()
}

/// The paths at which these recipes do not all say the same. The seed and the recipe's own label
/// are no settings.
pub(crate) fn differing<'a>(
    recipes: impl Iterator<Item = &'a BTreeMap<String, String>>,
) -> Vec<String> {
    let recipes: Vec<_> = recipes.collect();
    let paths: BTreeSet<&String> = recipes.iter().flat_map(|r| r.keys()).collect();
    paths
        .into_iter()
        .filter(|path| !matches!(path.as_str(), "seed" | "label"))
        .filter(|path| {
            recipes
                .iter()
                .any(|r| r.get(*path) != recipes[0].get(*path))
        })
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_known_by_their_paths() {
        let text = "seed = 3\n[train]\nlr = 0.05\nbetas = [0.9, 0.999]\n[[term]]\non = \"new\"\n[[term]]\non = \"replay:a\"";
        let keys = keys(text);
        let get = |key: &str| keys.get(key).map(String::as_str);
        assert_eq!(get("train.lr"), Some("0.05"));
        assert_eq!(get("train.betas"), Some("[0.9, 0.999]"));
        assert_eq!(get("term.1.on"), Some("replay:a"));
        assert_eq!(get("train"), None);
        let other = super::keys("seed = 4\n[train]\nlr = 0.05\n[[term]]\non = \"new\"");
        assert_eq!(
            differing([&keys, &other].into_iter()),
            ["term.1.on", "train.betas"]
        );
        assert!(differing([&keys, &keys].into_iter()).is_empty());
        assert!(differing(std::iter::empty()).is_empty());
        assert!(super::keys("[train").is_empty());
    }
}
