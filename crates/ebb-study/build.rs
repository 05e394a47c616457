//! Embeds the study files, and hashes the sources that can change a study's results, so that a
//! verdict knows whether it is stale: one hash for studies of arms, one for studies with code of
//! their own, one for studies of language models. Comments, blank lines and test modules do not count: they change no number.

use std::fs;
use std::path::{Path, PathBuf};

/// Everything between a recipe and its numbers, in the order of the floors.
const ENGINE: &[&str] = &[
    "ebb-space",
    "ebb-kernels",
    "ebb-net",
    "ebb-data",
    "ebb-memory",
    "ebb-record",
    "ebb-learn",
];
/// What of these crates changes no number: how files get onto a machine (they have checksums),
/// files that only declare modules, and language models, which have studies of their own.
const LEFT_OUT: &[(&str, &str)] = &[
    ("ebb-learn", "language/"),
    ("ebb-net", "decoder/"),
    ("ebb-net", "lib.rs"),
    ("ebb-data", "fetch/"),
    ("ebb-data", "lib.rs"),
];
/// What is added for studies of language models.
const LANGUAGE: &[(&str, &str)] = &[
    ("ebb-hub", ""),
    ("ebb-text", ""),
    ("ebb-lm", ""),
    ("ebb-net", "decoder/"),
    ("ebb-learn", "language/"),
    ("ebb-study", "language/"),
];
/// What of this crate runs arms and judges them; the rest lists, prints and stores.
const JUDGES: &[&str] = &[
    "clause.rs",
    "measure.rs",
    "reference.rs",
    "runner.rs",
    "study.rs",
    "variation.rs",
];
/// Studies with code of their own.
const NATIVE: &[&str] = &["native/", "worlds/"];

fn main() {
    let mut hasher = blake3::Hasher::new();
    hasher.update(env("CARGO_PKG_VERSION").as_bytes());
    for name in ENGINE {
        add(&mut hasher, name, &[""]);
    }
    add(&mut hasher, "ebb-study", JUDGES);
    let arms = hasher.finalize().to_hex();
    println!("cargo:rustc-env=EBB_CODE_HASH={arms}");
    let mut language = hasher.clone();
    for (name, folder) in LANGUAGE {
        add_all(&mut language, name, &[folder], &[]);
    }
    let language = language.finalize().to_hex();
    println!("cargo:rustc-env=EBB_LANGUAGE_HASH={language}");
    add(&mut hasher, "ebb-study", NATIVE);
    add(&mut hasher, "ebb-probe", &[""]);
    add(&mut hasher, "ebb-erase", &[""]);
    let native = hasher.finalize().to_hex();
    println!("cargo:rustc-env=EBB_NATIVE_HASH={native}");
    embed();
}

/// Writes the list of the study files, so that a new one is a new file and nothing else.
fn embed() {
    let folder = PathBuf::from(env("CARGO_MANIFEST_DIR")).join("../../studies");
    println!("cargo:rerun-if-changed={}", folder.display());
    let mut files: Vec<PathBuf> = match fs::read_dir(&folder) {
        Ok(entries) => entries.flatten().map(|e| e.path()).collect(),
        Err(error) => panic!("{}: {error}", folder.display()),
    };
    files.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    files.sort();
    let mut list = String::from("const FILES: &[(&str, &str)] = &[\n");
    for path in &files {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        list.push_str(&format!(
            "    ({name:?}, include_str!({:?})),\n",
            path.to_string_lossy()
        ));
    }
    list.push_str("];\n");
    let out = PathBuf::from(env("OUT_DIR")).join("studies.rs");
    if let Err(error) = fs::write(&out, list) {
        panic!("{}: {error}", out.display());
    }
}

/// Adds the sources of a crate whose names begin with one of `prefixes`, but for those left out.
fn add(hasher: &mut blake3::Hasher, name: &str, prefixes: &[&str]) {
    add_all(hasher, name, prefixes, LEFT_OUT);
}

/// The same, but for those of `left_out`.
fn add_all(hasher: &mut blake3::Hasher, name: &str, prefixes: &[&str], left_out: &[(&str, &str)]) {
    let root = PathBuf::from(env("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(name)
        .join("src");
    println!("cargo:rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    sources(&root, &mut files);
    // By name with `/`, so that every machine hashes in the same order.
    let mut named: Vec<(String, PathBuf)> = files
        .into_iter()
        .map(|path| (relative(&root, &path), path))
        .filter(|(relative, _)| prefixes.iter().any(|p| relative.starts_with(p)))
        .filter(|(relative, _)| {
            let within = |(of, folder): &(&str, &str)| *of == name && relative.starts_with(folder);
            !left_out.iter().any(within)
        })
        .collect();
    named.sort();
    for (relative, path) in named {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        hasher.update(name.as_bytes());
        hasher.update(relative.as_bytes());
        for line in code(&text) {
            hasher.update(line.as_bytes());
            hasher.update(b"\n");
        }
    }
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

fn relative(root: &Path, path: &Path) -> String {
    let parts = path.strip_prefix(root).unwrap_or(path).components();
    let parts: Vec<String> = parts
        .map(|c| c.as_os_str().to_string_lossy().into_owned())
        .collect();
    parts.join("/")
}

/// The lines that are code: trimmed, without comments, up to the file's test module.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let end = lines
        .windows(2)
        .position(|w| w[0] == "#[cfg(test)]" && w[1].starts_with("mod tests"))
        .unwrap_or(lines.len());
    lines
        .into_iter()
        .take(end)
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
}
