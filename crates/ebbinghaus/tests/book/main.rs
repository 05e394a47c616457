//! What the texts say, compared with what is there: links, recipes, keys, defaults, code and figures.

mod evidence;
mod links;
mod pages;
mod recipes;

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every text for people: the book, and what lies beside it.
fn texts() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"]
        .map(|name| root().join(name))
        .into();
    for folder in ["docs/src", "docs/src/methods"] {
        let pages = fs::read_dir(root().join(folder)).expect("the book has pages");
        paths.extend(pages.map(|e| e.expect("a readable entry").path()));
    }
    paths.retain(|path| path.extension().is_some_and(|e| e == "md"));
    paths
        .into_iter()
        .map(|path| (path.clone(), read(&path)))
        .collect()
}

fn page(name: &str) -> String {
    read(&root().join("docs/src").join(name))
}

/// Lines outside of code blocks, and the blocks by their language.
fn split(text: &str) -> (Vec<&str>, Vec<(&str, String)>) {
    let (mut prose, mut blocks, mut open) = (Vec::new(), Vec::new(), None::<(&str, String)>);
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, code)), None) => code.extend([line, "\n"]),
            (None, Some(language)) => open = Some((language, String::new())),
            (None, None) => prose.push(line),
        }
    }
    assert!(open.is_none(), "a code block is not closed");
    (prose, blocks)
}
