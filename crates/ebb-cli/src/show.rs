//! What a finished run looks like: the accuracy matrix, the small picture, the headline numbers.

use crate::error::Result;
use crate::out;
use ebb_record::Summary;
use ebb_report::{RunData, Terminal};
use ebb_space::Number;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The numbers that are shown at the end of a run; the report shows all.
const HEADLINES: [&str; 8] = [
    "average_accuracy",
    "learning_accuracy",
    "forgetting",
    "bwt",
    "min_acc",
    "wc_acc",
    "gap_depth",
    "gap_recovery",
];

/// A longer accuracy matrix is shown in about this many rows.
const ROWS: usize = 25;

/// A run that has ended.
pub struct Finished {
    /// Its directory.
    pub directory: PathBuf,
    /// What it came to.
    pub summary: Summary,
}

/// A run in the machine form.
#[derive(Serialize)]
struct RunJson<'a> {
    directory: &'a Path,
    #[serde(flatten)]
    summary: &'a Summary,
}

/// Several runs in the machine form.
#[derive(Serialize)]
struct RunsJson<'a> {
    format_version: u32,
    directory: &'a Path,
    runs: Vec<RunJson<'a>>,
    /// Each number over the seeds.
    numbers: Vec<Number>,
}

impl Finished {
    fn json(&self) -> RunJson<'_> {
        RunJson {
            directory: &self.directory,
            summary: &self.summary,
        }
    }
}

/// Prints one run in the machine form.
///
/// # Errors
/// When standard output cannot be written.
pub fn json(run: &Finished) -> Result<()> {
    out::json(&run.json())
}

/// Prints several seeds of one recipe in the machine form.
///
/// # Errors
/// When standard output cannot be written.
pub fn json_of_seeds(directory: &Path, runs: &[Finished]) -> Result<()> {
    let names = runs.first().map_or(&[][..], |run| &run.summary.numbers);
    let over = |number: &Number| {
        let of_run = |run: &Finished| {
            let found = run.summary.number(&number.name)?.clone();
            Some((run.summary.seed, found))
        };
        let values: Vec<(u64, Number)> = runs.iter().filter_map(of_run).collect();
        let values: Vec<(u64, &Number)> = values.iter().map(|(s, n)| (*s, n)).collect();
        ebb_record::over_seeds(&values).ok()
    };
    out::json(&RunsJson {
        format_version: 1,
        directory,
        runs: runs.iter().map(Finished::json).collect(),
        numbers: names.iter().filter_map(over).collect(),
    })
}

/// Leaves out most rows of a long matrix, first and last kept; the picture skips empty rows.
fn thin(run: &mut RunData) {
    let rows = run.matrix.len();
    let every = rows.div_ceil(ROWS);
    for (i, row) in run.matrix.iter_mut().enumerate() {
        if i > 0 && i + 1 < rows && (i + 1) % every != 0 {
            row.fill(None);
        }
    }
}

/// The picture of one run, or of several seeds of one recipe.
///
/// # Errors
/// When a run cannot be read back.
pub fn picture(runs: &[Finished], terminal: &Terminal) -> Result<String> {
    let mut data = runs
        .iter()
        .map(|run| RunData::load(&run.directory))
        .collect::<Result<Vec<_>, _>>()?;
    data.iter_mut().for_each(thin);
    let mut text = ebb_report::terminal_matrix(&data, terminal);
    for run in &mut data {
        run.numbers.retain(|n| HEADLINES.contains(&n.name.as_str()));
    }
    text.push_str(&ebb_report::terminal_table(&data, terminal));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_matrix_keeps_its_ends() {
        let shown = |rows: usize| {
            let mut run = RunData {
                matrix: vec![vec![Some(0.5)]; rows],
                ..RunData::default()
            };
            thin(&mut run);
            let left = (0..rows).filter(|i| run.matrix[*i][0].is_some());
            left.collect::<Vec<_>>()
        };
        assert_eq!(shown(5).len(), 5);
        assert_eq!(shown(25).len(), 25);
        let long = shown(301);
        assert_eq!((long[0], long[1], *long.last().unwrap()), (0, 12, 300));
        assert!(long.len() <= ROWS + 2);
    }
}
