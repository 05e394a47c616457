//! Recipes in the texts are accepted; methods, keys and defaults are as the book says.

use crate::{page, read, root, split, texts};
use ebbinghaus::learn::Recipe;
use std::collections::BTreeSet;

/// A section of the chapter on recipes.
fn section<'a>(page: &'a str, title: &str) -> &'a str {
    let rest = page.split(&format!("## {title}\n")).nth(1);
    let rest = rest.unwrap_or_else(|| panic!("recipes.md has no section {title}"));
    rest.split("\n## ").next().unwrap_or(rest)
}

fn resolved(head: &str) -> toml::Table {
    let stream = "stream = { dataset = 'digits', split = 5, scenario = 'task' }";
    let recipe = Recipe::parse(&format!("{head}\n{stream}"), &[]);
    let recipe = recipe.unwrap_or_else(|e| panic!("{head}: {e}"));
    toml::from_str(recipe.text()).expect("a resolved recipe is TOML")
}

/// Every TOML block is a recipe, a part of one, or a request.
#[test]
fn every_recipe_in_the_texts_is_accepted() {
    const STREAM: &str = "stream = { dataset = 'digits', split = 5, scenario = 'task' }\n";
    const TEXTS: &str = "stream = { dataset = 'text' }\nnetwork = { kind = 'decoder' }\n\
                         language = { experience = [{ name = 'a', \
                         world = { kind = 'facts', people = 8 } }] }\n";
    let mut recipes = 0;
    for (path, text) in texts() {
        for (_, code) in split(&text).1.iter().filter(|(l, _)| *l == "toml") {
            if code.contains("[[forget]]") {
                let request = ebbinghaus::revise::Request::from_toml(code);
                request.unwrap_or_else(|e| panic!("{}: {e}\n{code}", path.display()));
                continue;
            }
            let whole = code.contains("[stream]") || code.contains("stream =");
            // Some methods are for language models alone.
            let streams: &[&str] = if whole { &[""] } else { &[STREAM, TEXTS] };
            let read = |stream: &&str| Recipe::parse(&format!("{stream}{code}"), &[]).err();
            let errors: Vec<_> = streams.iter().filter_map(read).collect();
            if let (Some(e), true) = (errors.first(), errors.len() == streams.len()) {
                panic!("{}: {e}\n{code}", path.display());
            }
            recipes += 1;
        }
    }
    assert!(recipes >= 4, "the book shows recipes");
}

#[test]
fn the_worked_example_is_the_code() {
    let code = read(&root().join("crates/ebb-learn/src/methods/l2.rs"));
    let lines: BTreeSet<&str> = code.lines().map(str::trim).collect();
    let page = page("adding-a-method.md");
    let (_, blocks) = split(&page);
    assert!(blocks.len() > 3, "the chapter shows code");
    for line in blocks
        .iter()
        .flat_map(|(_, code)| code.lines())
        .map(str::trim)
    {
        assert!(
            line == "// ..." || lines.contains(line),
            "l2.rs has no line `{line}`"
        );
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
    let places = [
        ("Stream", "[stream]\n"),
        ("Network", "[network]\nkind = 'mlp'\n"),
        ("Network", "[network]\nkind = 'cnn'\n"),
        ("Network", "[network]\nkind = 'resnet18'\n"),
        ("Network", "[network]\nkind = 'task-mlp'\n"),
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
        let text = section(&page, title);
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
        "stream", "network", "train", "memory", "draw", "term", "penalty", "update", "plugin",
    ];
    for key in keys("")
        .iter()
        .filter(|key| !tables.contains(&key.as_str()))
    {
        let known = page.contains(&format!("`{key}`")) || page.contains(&format!("`[{key}]`"));
        assert!(known, "`{key}` is missing in recipes.md");
    }
}

/// Every loss has a row in the table of losses: the error at an unknown one names them all.
#[test]
fn every_loss_is_in_the_book() {
    const STREAM: &str = "stream = { dataset = 'digits', split = 5, scenario = 'task' }\n";
    let text = format!("{STREAM}[[term]]\non = 'new'\nloss = 'unheard-of'");
    let error = Recipe::parse(&text, &[]).expect_err(&text).to_string();
    let known = error.split("expected one of").nth(1);
    let losses: Vec<&str> = known
        .unwrap_or_else(|| panic!("{error}"))
        .split('`')
        .collect();
    let page = page("recipes.md");
    let rows: BTreeSet<&str> = section(&page, "Terms")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert!(losses.len() > 40, "{error}");
    for loss in losses.iter().skip(1).step_by(2) {
        assert!(rows.contains(loss), "`{loss}` is missing in recipes.md");
    }
}

/// The default that the row of `key` gives in its second cell, read as TOML.
fn said(text: &str, key: &str) -> Option<toml::Value> {
    let start = format!("| `{key}` |");
    let row = text.lines().find(|line| line.starts_with(&start))?;
    let cell = row.split('|').nth(2)?.trim().trim_matches('`');
    let mut table: toml::Table = toml::from_str(&format!("v = {cell}")).ok()?;
    table.remove("v")
}

fn equal(a: &toml::Value, b: &toml::Value) -> bool {
    let number = |v: &toml::Value| v.as_float().or(v.as_integer().map(|i| i as f64));
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// Tables with a row `| key | default | meaning |` each.
#[test]
fn defaults_are_what_the_rows_say() {
    let page = page("recipes.md");
    let recipe = resolved("");
    let tables = [
        ("Training", "", &recipe["train"]),
        ("Training", "schedule.", &recipe["train"]["schedule"]),
        ("Evaluation", "", &recipe["evaluate"]),
        ("Saving", "", &recipe["save"]),
    ];
    let mut checked = 0;
    for (title, prefix, table) in tables {
        for (key, value) in table.as_table().expect("a table") {
            // A table of its own, and what the method decides.
            if key == "schedule" || key == "reduction" {
                continue;
            }
            let said = said(section(&page, title), &format!("{prefix}{key}"));
            let same = said.as_ref().is_some_and(|said| equal(said, value));
            assert!(same, "`{prefix}{key}` is {value}, recipes.md says {said:?}");
            checked += 1;
        }
    }
    assert!(checked > 20, "recipes have defaults");
}

/// The kinds that may stand in a table: the error at an unknown one names them.
pub(crate) fn kinds(table: &str) -> Vec<String> {
    let array = ["penalty", "plugin"].contains(&table);
    let (open, close) = if array { ("[[", "]]") } else { ("[", "]") };
    const STREAM: &str = "stream = { dataset = 'digits', split = 5, scenario = 'task' }\n";
    let text = format!("{STREAM}{open}{table}{close}\nkind = 'unheard-of'");
    let error = Recipe::parse(&text, &[]).expect_err(&text).to_string();
    let known = error.split("expected").nth(1);
    let known = known.unwrap_or_else(|| panic!("{text}: {error}"));
    known
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// A kind of a table of recipes with every default written out.
pub(crate) fn defaults(name: &str, kind: &str) -> toml::Table {
    // A memory of each sort, since some kinds ask for one.
    let keeps = ["reservoir", "chosen"].map(|keep| {
        let memory = format!("memory = {{ capacity = 50, keep = '{keep}' }}");
        // One kind has a key without a default.
        let more = if kind == "pretrained" {
            ", model = 'm'"
        } else {
            ""
        };
        let table = format!("{{ kind = '{kind}'{more} }}");
        let table = match name {
            "penalty" | "plugin" => format!("{name} = [{table}]"),
            _ => format!("{name} = {table}"),
        };
        let (adapter, texts) = match (name, kind) {
            ("network", "decoder" | "pretrained") => ("", true),
            ("plugin", "sparse-gates") => ("adapter = { gate = { kind = 'ranks' } }\n", false),
            ("plugin", "switch-price") => ("adapter = {}\n", false),
            ("plugin", "key-elements") => ("adapter = { between = 'merge' }\n", false),
            (
                "plugin",
                "source-shield" | "bottom-frozen" | "train-parts" | "language-neurons"
                | "embedding-reset" | "chosen-blocks",
            ) => ("network = { kind = 'decoder' }\n", true),
            _ => ("", false),
        };
        let stream = match texts {
            true => {
                "stream = { dataset = 'text' }\n[[language.experience]]\nname = 'a'\n\
                 world = { kind = 'facts', people = 8 }"
            }
            false => "stream = { dataset = 'digits', split = 5, scenario = 'task' }",
        };
        let memory = if texts { String::new() } else { memory };
        Recipe::parse(&format!("{memory}\n{adapter}{table}\n{stream}"), &[])
    });
    let recipe = match keeps {
        [Ok(recipe), _] | [_, Ok(recipe)] => recipe,
        [Err(a), Err(b)] => panic!("{name} {kind}: {a}; {b}"),
    };
    let mut resolved: toml::Table = toml::from_str(recipe.text()).expect("it is TOML");
    let table = match resolved.remove(name) {
        Some(toml::Value::Array(entries)) => entries.into_iter().next(),
        table => table,
    };
    match table {
        Some(toml::Value::Table(table)) => table,
        other => panic!("{name} {kind}: {other:?}"),
    }
}

/// Tables with a row `| kind | … key = default, … |` each.
#[test]
fn defaults_are_what_the_kinds_say() {
    let page = page("recipes.md");
    for (title, name) in [
        ("Penalties", "penalty"),
        ("Update", "update"),
        ("Network", "network"),
    ] {
        for kind in kinds(name) {
            let start = format!("| `\"{kind}\"`");
            let row = section(&page, title)
                .lines()
                .find(|line| line.starts_with(&start));
            let row = row.unwrap_or_else(|| panic!("{start} is missing under {title}"));
            for (key, value) in defaults(name, &kind) {
                let said = [format!("`{key} = {value}`"), format!("`{key}`")];
                let said = said.iter().any(|said| row.contains(said));
                assert!(
                    key == "kind" || said,
                    "{key} = {value} is missing in: {row}"
                );
            }
        }
    }
}
