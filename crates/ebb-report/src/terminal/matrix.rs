//! The accuracy matrix in a terminal, and the curves under it.

use std::fmt::Write;

use super::{Colour, Terminal, paint, spark};
use crate::data::{RunData, Status, finite};
use crate::format;
use crate::group::{Group, groups, mean_seen};

/// Width of the row names.
const NAMES: usize = 10;

/// How wide a cell may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cell {
    /// `99.8`
    Decimal,
    /// `100`
    Whole,
    /// One block.
    Block,
}

impl Cell {
    fn width(self) -> usize {
        match self {
            Cell::Decimal => 6,
            Cell::Whole => 4,
            Cell::Block => 1,
        }
    }
}

/// The accuracy matrix of each group (rows: after each experience, columns: test sets, per
/// cent), and one line a set that shows its accuracy while learning, lowest value kept.
pub fn terminal_matrix(runs: &[RunData], terminal: &Terminal) -> String {
    let mut out = String::new();
    for group in &groups(runs) {
        heading(&mut out, group, terminal);
        matrix(&mut out, group, terminal);
        spark::write(&mut out, group, terminal);
    }
    out
}

fn heading(out: &mut String, group: &Group, terminal: &Terminal) {
    let run = group.first();
    let about: Vec<&str> = [run.stream.as_str(), run.network.as_str()]
        .into_iter()
        .filter(|s| !s.is_empty())
        .collect();
    let label = paint::fit(&group.label, terminal.width);
    let rest = terminal.width.saturating_sub(label.chars().count() + 2);
    let about = paint::fit(&format!("{} · {}", about.join(" · "), group.seeds()), rest);
    let _ = writeln!(
        out,
        "{}  {}",
        paint::bold(terminal.colour, &label),
        paint::dim(terminal.colour, &about)
    );
    if let Status::Unfinished(at) = &run.status {
        let _ = writeln!(
            out,
            "{}",
            paint::alarm(
                terminal.colour,
                &paint::fit(&format!("unfinished {at}"), terminal.width)
            )
        );
    }
    out.push('\n');
}

fn matrix(out: &mut String, group: &Group, terminal: &Terminal) {
    let sets = group.matrix.iter().map(Vec::len).max().unwrap_or(0);
    if sets == 0 {
        return;
    }
    let room = terminal.width.saturating_sub(NAMES + 8);
    let fits = |c: &Cell| sets * c.width() <= room;
    let kind = [Cell::Decimal, Cell::Whole]
        .into_iter()
        .find(fits)
        .unwrap_or(Cell::Block);
    let shown = sets.min(room / kind.width());
    let every = if kind == Cell::Block { 5 } else { 1 };
    let full = NAMES + shown * kind.width();
    let mut header = paint::left("test set", NAMES);
    for j in 0..shown {
        // A number over a block needs the room of its digits; it starts at its column.
        if every == 1 {
            header.push_str(&paint::right(&(j + 1).to_string(), kind.width() - 1));
            header.push(' ');
        } else if j % every == 0 {
            header.push_str(&paint::left(&(j + 1).to_string(), every));
        }
    }
    let _ = writeln!(
        out,
        "{}",
        paint::dim(
            terminal.colour,
            &format!("{}  mean", paint::left(&cut(&header, full), full))
        )
    );
    for (i, row) in group.matrix.iter().enumerate() {
        if !row.iter().any(|v| finite(*v).is_some()) {
            continue;
        }
        let _ = write!(out, "{}", paint::left(&format!("after {}", i + 1), NAMES));
        for j in 0..shown {
            out.push_str(&cell(row.get(j).copied().flatten(), kind, terminal.colour));
        }
        let mean = mean_seen(group, row, i);
        let _ = writeln!(
            out,
            "  {}",
            paint::bold(
                terminal.colour,
                &paint::right(&format::percent_or_missing(mean), 4)
            )
        );
    }
    if shown < sets {
        let hidden = format!(
            "{} more sets: widen the terminal or see the report",
            sets - shown
        );
        for line in paint::wrapped(&hidden, terminal.width) {
            let _ = writeln!(out, "{}", paint::dim(terminal.colour, &line));
        }
    }
    out.push('\n');
}

/// The last number over a block may be wider than its columns.
fn cut(header: &str, width: usize) -> String {
    header.chars().take(width).collect()
}

fn cell(value: Option<f64>, kind: Cell, colour: Colour) -> String {
    let Some(v) = finite(value) else {
        return match kind {
            Cell::Block => "·".into(),
            _ => paint::right(format::MISSING, kind.width() - 1) + " ",
        };
    };
    match kind {
        Cell::Decimal => paint::cell(
            colour,
            v,
            &format!("{} ", paint::right(&format::percent(v), 5)),
        ),
        Cell::Whole => paint::cell(
            colour,
            v,
            &format!("{} ", paint::right(&format::fixed(100.0 * v, 0), 3)),
        ),
        Cell::Block => spark::block(v).to_string(),
    }
}
