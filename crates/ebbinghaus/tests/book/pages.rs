//! Pages that are written from the code and the evidence: one a method, and the tables of methods.
//! `BLESS=1 cargo test --release -p ebbinghaus --test book` writes them anew; without it they must
//! be what would be written.

use crate::recipes::{defaults, kinds};
use crate::{read, root};
use ebbinghaus::learn::MethodCard;
use ebbinghaus::learn::methods::ALL;
use ebbinghaus::study::Verdict;
use ebbinghaus::study::verdict::ArmReport;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// The file of a method: the one that names it.
fn source(method: &MethodCard) -> String {
    let folder = root().join("crates/ebb-learn/src/methods");
    let name = format!("name: \"{}\",", method.name);
    let files = fs::read_dir(folder).expect("the folder of methods");
    let found = files
        .map(|file| read(&file.expect("a readable entry").path()))
        .find(|text| text.contains(&name));
    found.unwrap_or_else(|| panic!("no file of methods says `{name}`"))
}

/// A header without its first line, a paragraph for each of its parts.
fn header(source: &str) -> String {
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    let text: Vec<&str> = lines
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    let mut text = text[1..].join("\n").trim().to_owned();
    for part in ["Source.", "Equation.", "Use it", "Stores"] {
        let bold = format!("**{part}**");
        text = text.replace(&format!("\n{bold}"), &format!("\n\n{bold}"));
    }
    text
}

fn code(language: &str, text: &str) -> String {
    format!("```{language}\n{}\n```\n", text.trim_end())
}

/// `value` in percent where it is a share.
fn percent(v: f64) -> String {
    format!("{:.2}", 100.0 * v)
}

/// What studies found in arms of the method.
fn evidence(method: &MethodCard, verdicts: &BTreeMap<String, Verdict>) -> String {
    let mut text = String::new();
    for (id, verdict) in verdicts {
        let arms = verdict.arms.iter().filter(|arm| arm.method == method.name);
        let arms: Vec<_> = arms.collect();
        let own = method.card == id || id.strip_prefix(method.card).is_some_and(|v| v.len() == 1);
        if arms.is_empty() && !own {
            continue;
        }
        let holds = if verdict.holds {
            "holds"
        } else {
            "does not hold"
        };
        let _ = writeln!(
            text,
            "**{id}, {}: {holds}.** {}.\n",
            verdict.title,
            verdict.claim.trim_end_matches('.')
        );
        let rows: Vec<String> = arms
            .iter()
            .flat_map(|arm| {
                let measures = ["average_accuracy", "forgetting", "final_accuracy"];
                let shown = arm
                    .measured
                    .iter()
                    .filter(move |n| measures.contains(&n.name.as_str()));
                shown.map(|n| {
                    let range = match (n.ci_low, n.ci_high) {
                        (Some(low), Some(high)) => {
                            format!(" ({} to {})", percent(low), percent(high))
                        }
                        _ => String::new(),
                    };
                    let value = percent(n.value);
                    format!(
                        "| `{}` | {} | {value}{range} | {} |",
                        arm.name,
                        n.name.replace('_', " "),
                        n.n
                    )
                })
            })
            .collect();
        if !rows.is_empty() {
            let _ = writeln!(
                text,
                "| arm | measure, % | value (95 % interval) | seeds |\n|---|---|---|---|\n{}\n",
                rows.join("\n")
            );
        }
    }
    match text.is_empty() {
        true => "No study of this repository has an arm of it yet.\n".to_owned(),
        false => text.trim_end().to_owned() + "\n",
    }
}

/// What the documentation of the fields in a source says, by their keys in a recipe.
fn meanings(source: &str) -> BTreeMap<String, String> {
    let mut meanings = BTreeMap::new();
    let mut said = String::new();
    for line in source.lines().map(str::trim) {
        let field = line.strip_prefix("pub ").unwrap_or(line);
        match (line.strip_prefix("/// "), field.split_once(": ")) {
            (Some(text), _) => said = format!("{said} {text}").trim().to_owned(),
            (None, Some((name, rest))) if !said.is_empty() && rest.ends_with(',') => {
                let (key, said) = (name.replace('_', "-"), std::mem::take(&mut said));
                meanings.entry(key).or_insert(said);
            }
            _ if line.starts_with('#') => {}
            _ => said.clear(),
        }
    }
    // Keys that methods share.
    for (key, meaning) in [
        ("capacity", "Examples that the memory holds."),
        ("replay", "Replayed rows a step; 0: as many as the batch."),
        ("temperature", "Divides the logits of the distillation."),
        (
            "keep",
            "Which records the memory keeps, and when it is filled.",
        ),
        // Of the term that stands beside a plugin.
        ("lambda", "Weight of the term, λ."),
        ("alpha", "Weight of the term, α."),
    ] {
        meanings
            .entry(key.to_owned())
            .or_insert_with(|| meaning.to_owned());
    }
    meanings
}

fn verdicts() -> BTreeMap<String, Verdict> {
    let files = fs::read_dir(root().join("docs/evidence")).expect("the folder of evidence");
    let paths = files.map(|file| file.expect("a readable entry").path());
    // Verdicts are named after their study, `S029.json`; other figures are in small letters.
    let studies = paths.filter(|p| {
        let name = p
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        name.ends_with(".json") && name.starts_with(|c: char| c.is_ascii_uppercase())
    });
    let read = studies.map(|p| Verdict::load(&p).unwrap_or_else(|e| panic!("{e}")));
    read.map(|v| (v.id.clone(), v)).collect()
}

fn method_page(method: &MethodCard, verdicts: &BTreeMap<String, Verdict>) -> String {
    let long = method.long_form().expect("a method's defaults expand");
    let long = toml::to_string(&long).expect("the long form is TOML");
    let mut text = format!("# {}\n\n{}\n\n", method.title, header(&source(method)));
    let also = method.aliases.iter().map(|a| format!("`{a}`"));
    let also = also.collect::<Vec<_>>().join(", ");
    let family = method.family;
    let _ = match also.is_empty() {
        true => writeln!(text, "Family: {family}.\n"),
        false => writeln!(text, "Family: {family}. It also answers to {also}.\n"),
    };
    let _ = writeln!(
        text,
        "## In a recipe\n\n{}",
        code("toml", &method.short_form())
    );
    if !long.trim().is_empty() {
        let _ = writeln!(text, "which is short for\n\n{}", code("toml", &long));
    }
    let pairs = (method.defaults)();
    if !pairs.is_empty() {
        let mut said = source(method);
        // What methods with an adapter share is said where adapters are.
        if method.family == "adapter" {
            for file in ["ebb-learn/src/methods/lora.rs", "ebb-net/src/adapter.rs"] {
                said += &read(&root().join("crates").join(file));
            }
        }
        let meanings = meanings(&said);
        let row = |(key, value): (String, toml::Value)| {
            let meaning = meanings.get(&key).map(|m| m.trim_end_matches('.'));
            let meaning =
                meaning.unwrap_or_else(|| panic!("{}: `{key}` says nothing", method.name));
            format!("| `{key}` | `{value}` | {} |", meaning.replace('|', "\\|"))
        };
        let rows: Vec<String> = pairs.into_iter().map(row).collect();
        let _ = writeln!(
            text,
            "## Parameters\n\n| key | default | meaning |\n|---|---|---|\n{}\n",
            rows.join("\n")
        );
    }
    let _ = writeln!(text, "## Evidence\n\n{}", evidence(method, verdicts));
    text.trim_end().to_owned() + "\n"
}

fn parameters() -> String {
    let mut text = "| method | parameters and defaults |\n|---|---|\n".to_owned();
    for method in ALL {
        let each = (method.defaults)()
            .into_iter()
            .map(|(k, v)| format!("`{k} = {v}`"));
        let each = each.collect::<Vec<_>>().join(", ");
        let each = if each.is_empty() {
            "none".to_owned()
        } else {
            each
        };
        let _ = writeln!(text, "| [`{0}`](methods/{0}.md) | {each} |", method.name);
    }
    text
}

fn overview() -> String {
    let mut text = "| method | family | source | use it for |\n|---|---|---|---|\n".to_owned();
    for m in ALL {
        let _ = writeln!(
            text,
            "| [`{0}`](methods/{0}.md) | {1} | {2} | {3} |",
            m.name, m.family, m.source, m.use_it
        );
    }
    text
}

/// A row a plugin: what its setting in a recipe says, and its keys.
fn plugins() -> String {
    let source = read(&root().join("crates/ebb-learn/src/spec.rs"));
    let (_, body) = source
        .split_once("pub enum PluginSpec {")
        .expect("the plugins");
    let (body, _) = body.split_once("\n}").expect("the end of the plugins");
    // What a variant's documentation says, by the type it holds.
    let mut about: Vec<(String, String)> = Vec::new();
    let mut said = String::new();
    for line in body.lines().map(str::trim) {
        match (line.strip_prefix("/// "), line.split_once('(')) {
            (Some(text), _) => said = format!("{said} {text}").trim().to_owned(),
            (None, Some((variant, _))) if !line.starts_with('#') => {
                about.push((variant.to_owned(), std::mem::take(&mut said)));
            }
            _ => {}
        }
    }
    let kinds = kinds("plugin");
    assert_eq!(
        kinds.len(),
        about.len(),
        "a kind of plugin without its line"
    );
    let mut text = "| `kind` | does | keys and defaults |\n|---|---|---|\n".to_owned();
    for (kind, (variant, about)) in kinds.iter().zip(&about) {
        let same = |name: &str| name.replace('-', "").to_lowercase();
        assert_eq!(
            same(kind),
            same(variant),
            "plugins are listed in their order"
        );
        let pairs = defaults("plugin", kind)
            .into_iter()
            .filter(|(key, _)| key != "kind");
        let pairs: Vec<String> = pairs.map(|(k, v)| format!("`{k} = {v}`")).collect();
        let pairs = if pairs.is_empty() {
            "none".to_owned()
        } else {
            pairs.join(", ")
        };
        let about = about.trim_end_matches('.');
        let _ = writeln!(text, "| `\"{kind}\"` | {about} | {pairs} |");
    }
    text
}

/// `text` with what stands between the marks of `name` replaced.
fn between(text: &str, name: &str, new: &str) -> String {
    let (before, rest) = text
        .split_once(&format!("<!-- {name}: written from "))
        .unwrap_or_else(|| panic!("no mark of {name}"));
    let (what, rest) = rest.split_once(" -->\n\n").expect("a mark is closed");
    let open = format!("<!-- {name}: written from {what} -->\n\n");
    let (_, after) = rest.split_once("\n<!-- end -->").expect("a mark is closed");
    format!("{before}{open}{new}\n<!-- end -->{after}")
}

/// Prefixes of arms by what they may store.
const BUDGETS: [(&str, &str); 3] = [
    ("none_", "nothing"),
    ("m200_", "200 examples"),
    ("m1000_", "1,000 examples"),
];

/// The best three arms of each budget in each scenario, with their intervals.
fn which(verdicts: &BTreeMap<String, Verdict>) -> String {
    let mut text = String::new();
    for (id, scenario, know) in [
        (
            "W01",
            "Class-incremental",
            "all classes compete, the experience is not given",
        ),
        (
            "W02",
            "Domain-incremental",
            "the same answers throughout, the experience is not given",
        ),
        ("W03", "Task-incremental", "the experience is given"),
    ] {
        let Some(verdict) = verdicts.get(id) else {
            continue;
        };
        let holds = if verdict.holds {
            "holds"
        } else {
            "does not hold"
        };
        let claim = verdict.claim.trim_end_matches('.');
        let _ = writeln!(
            text,
            "## {scenario}\n\nHere {know}. The claim of {id} {holds}: {}{}.\n\n\
             | stored | best | second | third | fine-tuning |\n|---|---|---|---|---|",
            claim[..1].to_lowercase(),
            &claim[1..],
        );
        let accuracy = |arm: &ArmReport| {
            let number = arm.measured.iter().find(|n| n.name == "average_accuracy")?;
            let (low, high) = (number.ci_low?, number.ci_high?);
            let said = format!(
                "{} ({} to {})",
                percent(number.value),
                percent(low),
                percent(high)
            );
            Some((number.value, said))
        };
        let base = verdict.arms.iter().find(|arm| arm.name == "none_fine_tune");
        let base = base.and_then(accuracy).map_or_else(String::new, |a| a.1);
        for (budget, stored) in BUDGETS {
            let arms = verdict
                .arms
                .iter()
                .filter(|arm| arm.name.starts_with(budget));
            let mut best: Vec<_> = arms.filter_map(|arm| Some((arm, accuracy(arm)?))).collect();
            best.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
            let three = best
                .iter()
                .take(3)
                .map(|(arm, (_, said))| format!("[`{0}`](methods/{0}.md) {said}", arm.method));
            let three: Vec<String> = three.collect();
            let _ = writeln!(text, "| {stored} | {} | {base} |", three.join(" | "));
        }
        let lost = verdict.arms.iter().filter(|arm| !arm.diverged.is_empty());
        // An arm without a run that ended has no method to name; its own name has it.
        let name = |arm: &ArmReport| {
            let name = arm
                .name
                .split_once('_')
                .map_or(arm.name.as_str(), |(_, name)| name);
            match arm.method.is_empty() {
                true => name.replace('_', "-"),
                false => arm.method.clone(),
            }
        };
        let lost: Vec<String> = lost
            .map(|arm| {
                let budget = BUDGETS.iter().find(|(b, _)| arm.name.starts_with(b));
                let with = match budget {
                    Some((_, stored)) if *stored != "nothing" => format!(" with {stored}"),
                    _ => String::new(),
                };
                format!(
                    "`{}`{with} ({} of {} seeds)",
                    name(arm),
                    arm.diverged.len(),
                    verdict.n_seeds
                )
            })
            .collect();
        if !lost.is_empty() {
            let _ = writeln!(
                text,
                "\nDiverged with the setting that was best on the first two experiences: {}.",
                lost.join(", ")
            );
        }
        text.push('\n');
    }
    match text.is_empty() {
        true => "The studies have not been run yet.\n".to_owned(),
        false => {
            "Average accuracy over the five experiences after the last one, in percent, with its 95 % \
             interval over seeds. Intervals that overlap do not decide.\n\n"
                .to_owned()
                + text.trim_end()
                + "\n"
        }
    }
}

/// `SUMMARY.md` with a line a method below the chapter on methods.
fn summary(old: &str) -> String {
    let mut text = String::new();
    for line in old.lines().filter(|line| !line.contains("](methods/")) {
        let _ = writeln!(text, "{line}");
        if line.contains("](methods.md)") {
            for m in ALL {
                let _ = writeln!(text, "  - [{}](methods/{}.md)", m.title, m.name);
            }
        }
    }
    text
}

fn written() -> Vec<(PathBuf, String)> {
    let (verdicts, docs) = (verdicts(), root().join("docs/src"));
    let page = read(&docs.join("methods.md"));
    let page = between(&page, "methods", &overview());
    let page = between(&page, "parameters", &parameters());
    let recipes = between(&read(&docs.join("recipes.md")), "plugins", &plugins());
    let which_page = between(
        &read(&docs.join("which-method.md")),
        "which",
        &which(&verdicts),
    );
    let mut files = vec![
        (docs.join("recipes.md"), recipes),
        (docs.join("which-method.md"), which_page),
        (docs.join("methods.md"), page),
        (
            docs.join("SUMMARY.md"),
            summary(&read(&docs.join("SUMMARY.md"))),
        ),
    ];
    files.extend(ALL.iter().map(|m| {
        let path = docs.join("methods").join(format!("{}.md", m.name));
        (path, method_page(m, &verdicts))
    }));
    files
}

#[test]
fn pages_are_what_the_code_and_the_evidence_say() {
    let files = written();
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(root().join("docs/src/methods")).expect("a folder for the pages");
        for (path, text) in &files {
            fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }
    let differs = |path: &Path, text: &str| fs::read_to_string(path).ok().as_deref() != Some(text);
    let old: Vec<_> = files
        .iter()
        .filter(|(path, text)| differs(path, text))
        .collect();
    let old: Vec<_> = old
        .iter()
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(
        old.is_empty(),
        "write them anew with `BLESS=1 cargo test --release -p ebbinghaus --test book`: {}",
        old.join(", ")
    );
    // A page for nothing that is no longer there.
    for entry in fs::read_dir(root().join("docs/src/methods")).expect("the folder of pages") {
        let path = entry.expect("a readable entry").path();
        assert!(
            files.iter().any(|(p, _)| *p == path),
            "{} is of no method",
            path.display()
        );
    }
}
