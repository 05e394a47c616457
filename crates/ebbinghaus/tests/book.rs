//! What the texts say, compared with what is there: links, recipes, keys and parameters.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ebbinghaus::learn::{Recipe, methods};

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
    let pages = fs::read_dir(root().join("docs/src")).expect("the book has pages");
    paths.extend(pages.map(|e| e.expect("a readable entry").path()));
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

/// The id of a heading, as the book and code forges make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for (path, text) in texts() {
        let folder = path.parent().expect("a file lies in a folder");
        // A link may be broken over two lines of prose.
        let prose = split(&text).0.join("\n");
        for link in links(&prose).filter(|link| !link.contains("://")) {
            let (file, id) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => folder.join(file),
            };
            let found = match (target.exists(), id) {
                (false, _) => false,
                (true, "") => true,
                (true, id) => read(&target).lines().any(|line| {
                    line.starts_with('#') && anchor(line.trim_start_matches('#')) == id
                }),
            };
            if !found {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_page_is_in_the_summary() {
    let summary = page("SUMMARY.md");
    let listed: BTreeSet<&str> = summary.lines().flat_map(links).collect();
    for (path, _) in texts() {
        let name = path
            .file_name()
            .expect("a file has a name")
            .to_string_lossy();
        let of_the_book = path.parent().is_some_and(|p| p.ends_with("docs/src"));
        if of_the_book && name != "SUMMARY.md" {
            assert!(listed.contains(&*name), "{name} is not in SUMMARY.md");
        }
    }
}

/// Every TOML block is a recipe, or a part of one.
#[test]
fn every_recipe_in_the_texts_is_accepted() {
    const STREAM: &str = "stream = { dataset = 'digits', split = 5, scenario = 'task' }\n";
    let mut recipes = 0;
    for (path, text) in texts() {
        for (_, code) in split(&text).1.iter().filter(|(l, _)| *l == "toml") {
            let whole = code.contains("[stream]") || code.contains("stream =");
            let recipe = format!("{}{code}", if whole { "" } else { STREAM });
            if let Err(e) = Recipe::parse(&recipe, &[]) {
                panic!("{}: {e}\n{code}", path.display());
            }
            recipes += 1;
        }
    }
    assert!(recipes >= 4, "the book shows recipes");
}

#[test]
fn every_method_is_in_the_book_with_its_parameters() {
    let page = page("methods.md");
    let table = page
        .split("## Parameters")
        .nth(1)
        .expect("the section on parameters");
    for method in methods::ALL {
        let name = format!("`{}`", method.name);
        let first = |line: &&str| {
            line.split('|')
                .nth(1)
                .is_some_and(|cell| cell.contains(&name))
        };
        let row = table
            .lines()
            .find(first)
            .unwrap_or_else(|| panic!("{name} is missing"));
        let parameters = (method.defaults)();
        for (key, value) in &parameters {
            let said = format!("`{key} = {value}`");
            assert!(row.contains(&said), "{said} is missing in: {row}");
        }
        let said = row.matches(" = ").count();
        assert_eq!(said, parameters.len(), "{row}");
    }
}

/// The keys that may stand where an unknown one was found: the error names them.
fn keys(place: &str) -> Vec<String> {
    const STREAM: &str = "stream = { dataset = 'digits', split = 5, scenario = 'task' }\n";
    let text = match place.starts_with("[stream]") {
        true => format!("{place}unheard-of = 1"),
        false => format!("{STREAM}{place}unheard-of = 1"),
    };
    let error = Recipe::parse(&text, &[]).expect_err(&text).to_string();
    let known = error
        .split("expected")
        .nth(1)
        .unwrap_or_else(|| panic!("{text}: {error}"));
    let names = known.split('`').skip(1).step_by(2);
    names.map(str::to_owned).collect()
}

#[test]
fn every_key_of_a_recipe_is_in_the_book() {
    let page = page("recipes.md");
    let section = |title: &str| {
        let rest = page.split(&format!("## {title}\n")).nth(1);
        let rest = rest.unwrap_or_else(|| panic!("recipes.md has no section {title}"));
        rest.split("\n## ").next().unwrap_or(rest)
    };
    let places = [
        ("Stream", "[stream]\n"),
        ("Network", "[network]\nkind = 'mlp'\n"),
        ("Network", "[network]\nkind = 'cnn'\n"),
        ("Network", "[network]\nkind = 'resnet18'\n"),
        ("Training", "[train]\n"),
        ("Training", "[train.schedule]\n"),
        ("Memory and draws", "[memory]\n"),
        ("Memory and draws", "[draw.a]\n"),
        ("Terms", "[[term]]\n"),
        ("Penalties", "[[penalty]]\nkind = 'ewc'\n"),
        ("Penalties", "[[penalty]]\nkind = 'si'\n"),
        ("Penalties", "[[penalty]]\nkind = 'l2'\n"),
        ("Update", "[update]\nkind = 'gem'\n"),
        ("Update", "[update]\nkind = 'a-gem'\n"),
        ("Evaluation", "[evaluate]\n"),
        ("Saving", "[save]\n"),
    ];
    for (title, place) in places {
        let text = section(title);
        let keys = keys(place);
        assert!(!keys.is_empty(), "{place} has no keys");
        for key in keys.iter().filter(|key| *key != "schedule") {
            // Alone (`key`), behind its table (`table.key`), or with its default (`key = …`).
            let said = [format!("`{key}`"), format!(".{key}`"), format!("`{key} = ")];
            let known = said.iter().any(|s| text.contains(s));
            assert!(known, "`{key}` is missing under {title} in recipes.md");
        }
    }
    let tables = [
        "stream", "network", "train", "memory", "draw", "term", "penalty", "update",
    ];
    for key in keys("")
        .iter()
        .filter(|key| !tables.contains(&key.as_str()))
    {
        let known = page.contains(&format!("`{key}`")) || page.contains(&format!("`[{key}]`"));
        assert!(known, "`{key}` is missing in recipes.md");
    }
}
