//! Links lead somewhere, and every page is listed.

use crate::{page, split, texts};
use std::collections::BTreeSet;
use std::fs;

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
                (true, id) => fs::read_to_string(&target)
                    .unwrap_or_default()
                    .lines()
                    .any(|line| {
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
        let Some((_, name)) = path.to_str().and_then(|p| p.split_once("docs/src/")) else {
            continue;
        };
        if name != "SUMMARY.md" {
            assert!(listed.contains(name), "{name} is not in SUMMARY.md");
        }
    }
}
