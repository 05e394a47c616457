//! The numbers in a terminal: one group as a list, several as a table of the headline measures.

use std::fmt::Write;

use super::{Terminal, paint};
use crate::compare::{self, Column, Metric};
use crate::data::RunData;
use crate::format;
use crate::group::{Group, groups};
use crate::metric::{self, HEADLINES};

/// The numbers of each group with their intervals. Numbers that may not be compared stand in
/// columns of their own and the reason is given.
pub fn terminal_table(runs: &[RunData], terminal: &Terminal) -> String {
    let groups = groups(runs);
    let metrics = compare::metrics(&groups);
    let mut out = String::new();
    match groups.as_slice() {
        [] => {}
        [one] => list(&mut out, one, terminal),
        _ => table(&mut out, &groups, &metrics, terminal),
    }
    out
}

fn list(out: &mut String, group: &Group, terminal: &Terminal) {
    let numbers: Vec<_> = group
        .numbers
        .iter()
        .filter(|n| n.value.is_finite())
        .collect();
    let titles: Vec<String> = numbers
        .iter()
        .map(|n| {
            paint::fit(
                &metric::title(&n.name),
                terminal.width.saturating_sub(16).min(32),
            )
        })
        .collect();
    let width = titles.iter().map(|t| t.chars().count()).max().unwrap_or(0);
    for (number, title) in numbers.iter().zip(&titles) {
        let value = paint::right(&format::value(number), 7);
        let sign = metric::scale(&number.name).sign();
        let interval = format::interval(number).unwrap_or_else(|| "no interval".into());
        let about = format!("{interval}, {}", format::over(number));
        let _ = write!(
            out,
            "{}  {}",
            paint::left(title, width),
            paint::bold(terminal.colour, &value)
        );
        let room = terminal.width.saturating_sub(width + 18);
        let _ = if about.chars().count() <= room {
            let about = paint::dim(terminal.colour, &about);
            writeln!(out, " {}  {about}", paint::left(sign, 6))
        } else {
            writeln!(out, " {sign}")
        };
    }
    if let Some([seconds, ..]) = group.cost(|c| c.train_seconds) {
        let rate = group
            .cost(crate::data::Cost::steps_per_second)
            .map(|[r, ..]| format!(", {} steps a second", format::count(r.round() as u64)));
        let memory = group
            .cost(|c| c.peak_rss_bytes.map(|b| b as f64))
            .map(|[b, ..]| format!(", peak memory {}", format::bytes(b as u64)));
        let cost = format!(
            "trained in {}{}{}",
            format::duration(seconds),
            rate.unwrap_or_default(),
            memory.unwrap_or_default()
        );
        let _ = writeln!(
            out,
            "{}",
            paint::dim(terminal.colour, &paint::fit(&cost, terminal.width))
        );
    }
}

fn table(out: &mut String, groups: &[Group], metrics: &[Metric], terminal: &Terminal) {
    let slot = |m: &&Metric| {
        HEADLINES
            .iter()
            .any(|names| names.contains(&metric::canonical(m.name).as_str()))
    };
    let mut columns: Vec<(String, &Column)> = Vec::new();
    let mut reasons = Vec::new();
    for metric in metrics.iter().filter(slot) {
        for (n, column) in metric.columns.iter().filter(|c| c.has_values()).enumerate() {
            let mark = if metric.apart.is_some() {
                format!(" [{}]", n + 1)
            } else {
                String::new()
            };
            columns.push((format!("{}{mark}", metric::title(metric.name)), column));
        }
        if let Some(reason) = &metric.apart {
            reasons.push(format!(
                "{} is shown apart, because {reason}",
                metric::title(metric.name)
            ));
        }
    }
    let names: Vec<String> = groups
        .iter()
        .map(|g| paint::fit(&g.label, (terminal.width / 3).min(24)))
        .collect();
    let first = names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
    // With room, every value brings its interval; without, the intervals stay in the report.
    let cells = |interval: bool| -> Vec<(String, Vec<String>)> {
        columns
            .iter()
            .map(|(title, c)| {
                (
                    paint::clean(title),
                    c.entries.iter().map(|n| cell(*n, interval)).collect(),
                )
            })
            .collect()
    };
    let wide = |cells: &[(String, Vec<String>)]| {
        first + cells.iter().map(|c| column_width(c) + 2).sum::<usize>()
    };
    let mut shown = cells(true);
    if wide(&shown) > terminal.width {
        shown = cells(false);
    }
    while shown.len() > 1 && wide(&shown) > terminal.width {
        shown.pop();
    }
    if shown.len() < columns.len() {
        let hidden = columns.len() - shown.len();
        reasons.push(format!(
            "{hidden} more columns: widen the terminal or see the report"
        ));
    }
    let mut header = paint::left("", first);
    for column in &shown {
        let _ = write!(
            header,
            "  {}",
            paint::right(&column.0, column_width(column))
        );
    }
    let _ = writeln!(out, "{}", paint::dim(terminal.colour, &header));
    for (g, name) in names.iter().enumerate() {
        let _ = write!(
            out,
            "{}",
            paint::bold(terminal.colour, &paint::left(name, first))
        );
        for column in &shown {
            let _ = write!(
                out,
                "  {}",
                paint::right(&column.1[g], column_width(column))
            );
        }
        out.push('\n');
    }
    for line in reasons
        .iter()
        .flat_map(|r| paint::wrapped(r, terminal.width))
    {
        let _ = writeln!(out, "{}", paint::dim(terminal.colour, &line));
    }
}

fn column_width(column: &(String, Vec<String>)) -> usize {
    column
        .1
        .iter()
        .chain([&column.0])
        .map(|t| t.chars().count())
        .max()
        .unwrap_or(0)
}

fn cell(number: Option<&ebb_space::Number>, interval: bool) -> String {
    let Some(number) = number else {
        return format::MISSING.into();
    };
    match format::interval(number).filter(|_| interval) {
        Some(interval) => format!("{} ({interval})", format::value(number)),
        None => format::value(number),
    }
}
