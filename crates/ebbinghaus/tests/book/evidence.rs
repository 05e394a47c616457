//! Figures in the README are those that were recorded.

use crate::{read, root};

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

/// The rows below the header that begins with `batch | system`.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let table = text
        .lines()
        .skip_while(|line| !line.starts_with("| batch | system |"));
    table
        .take_while(|line| line.starts_with('|'))
        .map(cells)
        .collect()
}

/// Of `1.69 (1.53 to 1.71)`, a median with its range, the median.
fn median(cell: &str) -> &str {
    cell.split(" (").next().unwrap_or(cell)
}

#[test]
fn the_comparison_is_the_recorded_one() {
    let readme = read(&root().join("README.md"));
    let record = read(&root().join("docs/evidence/bench.md"));
    let (said, recorded) = (rows(&readme), rows(&record));
    assert_eq!(said.len(), recorded.len());
    assert!(said.len() > 2, "the README compares systems");
    for row in &said {
        let same = recorded.iter().find(|r| r[..2] == row[..2]);
        let found = same.unwrap_or_else(|| panic!("{row:?} is not recorded"));
        let medians: Vec<&str> = found
            .iter()
            .take(row.len())
            .map(|cell| median(cell))
            .collect();
        assert_eq!(*row, medians);
    }
}

/// The cells of every line of the table whose head begins with `head`.
fn table<'a>(text: &'a str, head: &str) -> Vec<Vec<&'a str>> {
    let lines = text.lines().skip_while(|line| !line.starts_with(head));
    let body = lines.skip(2).take_while(|line| line.starts_with('|'));
    body.map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

/// The README's ratios to PyTorch, line by line.
#[test]
fn the_speeds_are_the_recorded_ones() {
    let readme = read(&root().join("README.md"));
    let record = read(&root().join("docs/evidence/speed.md"));
    let said = table(&readme, "| | time | peak memory |");
    let recorded = table(&record, "| task |");
    assert!(said.len() > 5, "the README compares speeds");
    assert_eq!(said.len(), recorded.len());
    for (said, recorded) in said.iter().zip(&recorded) {
        assert_eq!(said[1..], [recorded[3], recorded[8]], "{recorded:?}");
    }
}
