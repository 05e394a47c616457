//! Recipes: those that come with the program, those in files, and changes from the command line.

use crate::error::{Error, Result};
use ebb_learn::Recipe;
use std::path::Path;

/// A recipe that comes with the program.
pub struct Shipped {
    /// Its name.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    text: &'static str,
}

/// Every recipe that comes with the program; the first is the default.
pub const SHIPPED: [Shipped; 8] = [
    Shipped {
        name: "digits",
        about: "five pairs of digits, one after the other; needs no download",
        text: include_str!("../../../recipes/digits.toml"),
    },
    Shipped {
        name: "split-mnist-er",
        about: "experience replay on class-incremental MNIST: the benchmark of this project",
        text: include_str!("../../../recipes/split-mnist-er.toml"),
    },
    Shipped {
        name: "permuted-mnist-ewc",
        about: "elastic weight consolidation on ten permutations of MNIST",
        text: include_str!("../../../recipes/permuted-mnist-ewc.toml"),
    },
    Shipped {
        name: "rotated-mnist-derpp",
        about: "DER++ on twenty rotations of MNIST, as in its paper",
        text: include_str!("../../../recipes/rotated-mnist-derpp.toml"),
    },
    Shipped {
        name: "recurring-mnist",
        about: "hundreds of short tasks whose classes come back: knowledge accumulates",
        text: include_str!("../../../recipes/recurring-mnist.toml"),
    },
    Shipped {
        name: "facts",
        about: "a small language model learns made-up facts in two halves; needs no download",
        text: include_str!("../../../recipes/facts.toml"),
    },
    Shipped {
        name: "smollm2-facts",
        about: "SmolLM2-135M learns such facts; needs `ebb data fetch smollm2-135m`",
        text: include_str!("../../../recipes/smollm2-facts.toml"),
    },
    Shipped {
        name: "smollm2-three",
        about: "SmolLM2-135M learns three new things with an adapter and keeps the old ones",
        text: include_str!("../../../recipes/smollm2-three.toml"),
    },
];

/// A recipe before it is read: its name for messages, and its text.
pub struct Source {
    /// Its file or name; `None` for the default.
    pub name: Option<String>,
    text: String,
}

impl Source {
    /// The recipe that the user means: a file, a name, or nothing for the default.
    ///
    /// # Errors
    /// When there is no such file or name.
    pub fn find(asked: Option<&str>) -> Result<Source> {
        let Some(asked) = asked else {
            return Ok(Source {
                name: None,
                text: SHIPPED[0].text.to_owned(),
            });
        };
        let path = Path::new(asked);
        let file = if path.is_dir() {
            path.join("recipe.toml")
        } else {
            path.to_owned()
        };
        let text = match SHIPPED.iter().find(|s| s.name == asked) {
            Some(shipped) if !file.is_file() => shipped.text.to_owned(),
            _ => std::fs::read_to_string(&file).map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => {
                    let names: Vec<&str> = SHIPPED.iter().map(|s| s.name).collect();
                    Error::request(
                        format!("there is no recipe `{asked}`"),
                        format!("give a file, or one of {}", names.join(", ")),
                    )
                }
                _ => Error::Io {
                    action: "read",
                    path: file.clone(),
                    source,
                },
            })?,
        };
        Ok(Source {
            name: Some(asked.to_owned()),
            text,
        })
    }

    /// The recipe with another method (if one is named) and other values.
    ///
    /// # Errors
    /// When it cannot be used; the message names it.
    pub fn recipe(&self, method: Option<&str>, sets: &[(String, String)]) -> Result<Recipe> {
        let all = self.changes(method, sets)?;
        Recipe::parse(&self.text, &all).map_err(|e| self.named(e.into()))
    }

    /// The recipe as it is written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The changes that make it the recipe with another method and other values.
    ///
    /// # Errors
    /// When the method cannot take the place of the recipe's own.
    pub fn changes(
        &self,
        method: Option<&str>,
        sets: &[(String, String)],
    ) -> Result<Vec<(String, String)>> {
        let mut all = match method {
            None => Vec::new(),
            Some(method) => self.swap(method).map_err(|e| self.named(e))?,
        };
        all.extend_from_slice(sets);
        Ok(all)
    }

    fn named(&self, source: Error) -> Error {
        match &self.name {
            None => source,
            Some(recipe) => Error::InRecipe {
                recipe: recipe.clone(),
                source: Box::new(source),
            },
        }
    }

    /// The changes that put another method in the place of the recipe's own.
    fn swap(&self, method: &str) -> Result<Vec<(String, String)>> {
        let card = ebb_learn::methods::find(method)?;
        let set = |key: &str, value: String| (key.to_owned(), value);
        let mut sets = vec![set("method", format!("\"{}\"", card.name))];
        // A file that is no TOML gets its error, with line and column, when it is parsed.
        let Ok(table) = toml::from_str::<toml::Table>(&self.text) else {
            return Ok(sets);
        };
        let own = table.get("method").and_then(toml::Value::as_str);
        let own = own.and_then(|name| ebb_learn::methods::find(name).ok());
        if own.is_some_and(|own| own.name == card.name) {
            return Ok(sets);
        }
        let pieces = ["memory", "draw", "term", "penalty", "update", "data"];
        if let Some(piece) = pieces.iter().find(|key| table.contains_key(**key)) {
            return Err(Error::request(
                format!(
                    "the recipe spells out its method's `{piece}`, so `--method {method}` would mix two methods"
                ),
                format!(
                    "take a recipe that names its method (`method = …`), or write one; `ebb methods show {}` prints the long form",
                    card.name
                ),
            ));
        }
        // The parameters of one method mean nothing to another.
        sets.push(set("with", "{}".to_owned()));
        if table.contains_key("label") {
            sets.push(set("label", format!("\"{}\"", card.name)));
        }
        Ok(sets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_recipe_stands_and_is_the_file_of_its_name() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
        for shipped in &SHIPPED {
            let source = Source::find(Some(shipped.name)).unwrap();
            let recipe = source
                .recipe(None, &[])
                .unwrap_or_else(|e| panic!("{}: {e}", shipped.name));
            let again = Recipe::parse(recipe.text(), &[]).unwrap();
            assert_eq!(again.hash(), recipe.hash(), "{}", shipped.name);
            let file = std::fs::read_to_string(folder.join(shipped.name).with_extension("toml"));
            assert_eq!(file.unwrap(), shipped.text, "{}", shipped.name);
        }
        let files = std::fs::read_dir(folder).unwrap().count();
        assert_eq!(files, SHIPPED.len(), "each file in recipes/ is shipped");
    }

    #[test]
    fn another_method_leaves_the_old_ones_parameters_behind() {
        let source = Source {
            name: None,
            text: "method = \"er\"\nwith = { capacity = 9 }\nlabel = \"mine\"\n\
                   [stream]\ndataset = \"digits\"\nsplit = 5\nscenario = \"task\"\n"
                .into(),
        };
        let same = source.recipe(Some("replay"), &[]).unwrap();
        assert_eq!(same.file().memory.as_ref().unwrap().capacity, 9);
        assert_eq!(same.label(), "mine");
        let lambda = [("with.lambda".to_owned(), "3".to_owned())];
        let other = source.recipe(Some("ewc"), &lambda).unwrap();
        assert!(other.file().memory.is_none() && other.file().penalty.len() == 1);
        assert_eq!(other.label(), "ewc");
        assert!(other.text().contains("lambda = 3.0"), "{}", other.text());
    }

    #[test]
    fn a_spelled_out_method_is_not_mixed_with_another() {
        let short = "method = \"er\"\n[stream]\ndataset = \"digits\"\nsplit = 5\n";
        let long = Recipe::parse(short, &[]).unwrap();
        let source = Source {
            name: Some("runs/er-1".into()),
            text: long.text().to_owned(),
        };
        let error = source.recipe(Some("lwf"), &[]).unwrap_err();
        assert!(error.to_string().contains("mix two methods"), "{error}");
        assert!(error.remedy().unwrap().contains("ebb methods show lwf"));
    }
}
