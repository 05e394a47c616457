//! The table of floors in `ARCHITECTURE.md`, enforced.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A row of the table.
struct Room {
    floor: u32,
    /// The crates named in its last column: it must not reach them, however indirectly.
    never: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The words in backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The rows `| floor | crate | holds | never |` of a text.
fn table(text: &str) -> BTreeMap<String, Room> {
    let mut rooms = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", floor, name, _, never, ""] = cells[..] else {
            continue;
        };
        let (Ok(floor), [name]) = (floor.parse(), &quoted(name)[..]) else {
            continue;
        };
        let never = quoted(never);
        let before = rooms.insert(name.clone(), Room { floor, never });
        assert!(before.is_none(), "ARCHITECTURE.md lists `{name}` twice");
    }
    rooms
}

fn manifest(path: &Path) -> toml::Table {
    toml::from_str(&read(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Direct dependencies of every kind, also those of one platform only.
fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (key, value) in manifest {
        let Some(table) = value.as_table() else {
            continue;
        };
        match key.as_str() {
            "dependencies" | "dev-dependencies" | "build-dependencies" => {
                names.extend(table.iter().map(|(name, spec)| {
                    let renamed = spec.get("package").and_then(toml::Value::as_str);
                    renamed.unwrap_or(name).to_owned()
                }));
            }
            "target" => {
                let platforms = table.values().filter_map(toml::Value::as_table);
                platforms.for_each(|platform| names.extend(dependencies(platform)));
            }
            _ => {}
        }
    }
    names
}

/// Every crate of the workspace with its direct dependencies.
fn crates() -> BTreeMap<String, BTreeSet<String>> {
    let folder = root().join("crates");
    let entries = fs::read_dir(&folder).expect("the workspace has crates");
    let paths = entries.map(|e| e.expect("a readable entry").path().join("Cargo.toml"));
    paths
        .filter(|path| path.is_file())
        .map(|path| {
            let manifest = manifest(&path);
            let name = manifest["package"]["name"].as_str().expect("a name");
            (name.to_owned(), dependencies(&manifest))
        })
        .collect()
}

/// Arrows that point up, and what the table and the workspace do not agree on.
fn faults(
    rooms: &BTreeMap<String, Room>,
    crates: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<String> {
    let mut faults = Vec::new();
    for name in rooms.keys().filter(|name| !crates.contains_key(*name)) {
        faults.push(format!("`{name}` is in the table and not in crates/"));
    }
    for (name, needs) in crates {
        let Some(room) = rooms.get(name) else {
            faults.push(format!("`{name}` is in crates/ and not in the table"));
            continue;
        };
        for need in needs {
            if let Some(other) = rooms.get(need).filter(|other| other.floor > room.floor) {
                faults.push(format!(
                    "`{name}` on floor {} depends on `{need}` on floor {}",
                    room.floor, other.floor
                ));
            }
        }
    }
    faults
}

/// What `name` reaches in the lock file.
fn reached(lock: &toml::Table, name: &str) -> BTreeSet<String> {
    let packages = lock["package"].as_array().expect("packages");
    let mut found = BTreeSet::new();
    let mut open = vec![name.to_owned()];
    while let Some(name) = open.pop() {
        for package in packages {
            if package["name"].as_str() != Some(&name) {
                continue;
            }
            let needs = package.get("dependencies").and_then(toml::Value::as_array);
            // "name", or "name version" where two versions are in use.
            let needs = needs.into_iter().flatten().filter_map(toml::Value::as_str);
            for need in needs.filter_map(|need| need.split(' ').next()) {
                if found.insert(need.to_owned()) {
                    open.push(need.to_owned());
                }
            }
        }
    }
    found
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a source folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn no_arrow_points_up_and_no_crate_is_missing() {
    let rooms = table(&read(&root().join("ARCHITECTURE.md")));
    let faults = faults(&rooms, &crates());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn nothing_reaches_what_its_row_forbids() {
    let rooms = table(&read(&root().join("ARCHITECTURE.md")));
    let lock = manifest(&root().join("Cargo.lock"));
    let known = lock["package"].as_array().expect("packages");
    for (name, room) in &rooms {
        let reached = reached(&lock, name);
        for never in &room.never {
            let is = |p: &toml::Value| p["name"].as_str() == Some(never);
            assert!(
                known.iter().any(is),
                "`{never}` forbids nothing: no crate is called so"
            );
            assert!(!reached.contains(never), "`{name}` reaches `{never}`");
        }
    }
    // The row that all others rest on.
    assert!(rooms["ebb-space"].never.contains(&"burn".to_owned()));
}

#[test]
fn the_ground_floor_touches_nothing_outside() {
    let mut files = Vec::new();
    sources(&root().join("crates/ebb-space/src"), &mut files);
    assert!(!files.is_empty());
    for path in files {
        let text = read(&path);
        for word in ["fs", "net", "env", "process", "thread", "time"] {
            let module = format!("std::{word}");
            assert!(!text.contains(&module), "{} uses {module}", path.display());
        }
    }
}

#[test]
fn the_check_finds_what_it_is_for() {
    let rooms = table(
        "| floor | crate | holds | never |\n|---|---|---|---|\n\
         | 0 | `a` | x | `burn` |\n| 1 | `b` | y | models |\n| 1 | `gone` | z | - |\n",
    );
    assert_eq!(rooms["a"].never, ["burn"]);
    assert!(rooms["b"].never.is_empty());
    let needs = |text: &str| dependencies(&toml::from_str(text).expect("a manifest"));
    let crates = BTreeMap::from([
        (
            "a".to_owned(),
            needs("[dev-dependencies]\nx = { package = 'b' }"),
        ),
        (
            "b".to_owned(),
            needs("[target.'cfg(unix)'.dependencies]\na = '1'"),
        ),
        ("new".to_owned(), needs("")),
    ]);
    assert_eq!(
        faults(&rooms, &crates),
        [
            "`gone` is in the table and not in crates/",
            "`a` on floor 0 depends on `b` on floor 1",
            "`new` is in crates/ and not in the table",
        ]
    );
    let lock = toml::from_str(
        "[[package]]\nname = 'a'\ndependencies = ['b 1.0']\n\
         [[package]]\nname = 'b'\ndependencies = ['burn']\n[[package]]\nname = 'burn'\n",
    );
    assert!(reached(&lock.expect("a lock file"), "a").contains("burn"));
}
