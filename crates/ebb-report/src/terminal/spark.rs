//! Accuracy while learning, one line of blocks a test set. Each block shows the *lowest*
//! accuracy of its stretch of steps, so that the stability gap stays visible.

use std::fmt::Write;

use super::{Terminal, paint};
use crate::data::finite;
use crate::format;
use crate::group::{Group, MeanCurves};

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Width of the values after the line.
const VALUES: usize = 22;
/// Lines at most; a longer stream is told by its first sets.
const MOST: usize = 12;

/// The block for an accuracy in `[0, 1]`.
pub(super) fn block(accuracy: f64) -> char {
    BLOCKS[((accuracy.clamp(0.0, 1.0) * 8.0) as usize).min(7)]
}

pub(super) fn write(out: &mut String, group: &Group, terminal: &Terminal) {
    let curves = &group.curves;
    let sets = curves.mean.len();
    let (Some(&from), Some(&to)) = (curves.steps.first(), curves.steps.last()) else {
        return;
    };
    if sets == 0 || to <= from {
        return;
    }
    let names = names(group, sets, terminal);
    let columns = terminal.width.saturating_sub(names + VALUES).min(100);
    let column =
        |step: u64| ((step - from) as u128 * columns as u128 / (to - from + 1) as u128) as usize;
    let title = format!(
        "while learning, steps {} to {}; each block is the lowest of its stretch",
        format::count(from),
        format::count(to)
    );
    let _ = writeln!(
        out,
        "{}",
        paint::dim(terminal.colour, &paint::fit(&title, terminal.width))
    );
    let mut switches = vec![' '; columns];
    for (k, &start) in curves
        .starts
        .iter()
        .enumerate()
        .filter(|(_, s)| (from..=to).contains(s))
    {
        let label = format!("╷{}", k + 1);
        let at = column(start);
        let room = curves
            .starts
            .get(k + 1)
            .map_or(columns, |&next| column(next.clamp(from, to)));
        if at + label.chars().count() <= room {
            for (c, mark) in label.chars().enumerate() {
                switches[at + c] = mark;
            }
        }
    }
    let marks: String = switches.into_iter().collect();
    let header = format!(
        "{}{}{}{}",
        paint::left("", names),
        paint::left(&marks, columns),
        paint::right("lowest", 9),
        paint::right("end", 8)
    );
    let _ = writeln!(out, "{}", paint::dim(terminal.colour, header.trim_end()));
    for j in 0..sets.min(MOST) {
        let name = group.first().set_name(j);
        let name = paint::fit(&format!("{} {name}", j + 1), names - 1);
        let lowest = group.lowest(j);
        let _ = write!(out, "{}", paint::left(&name, names));
        let minima = minima(curves, j, columns, &column);
        let alarm = lowest.map(|l| column(l.step));
        let begins = curves
            .steps
            .get(group.begins(j))
            .map_or(columns, |&step| column(step));
        for (c, low) in minima.iter().enumerate() {
            let text = low.map_or(' ', block).to_string();
            out.push_str(&match () {
                _ if alarm == Some(c) => paint::alarm(terminal.colour, &text),
                _ if c < begins => paint::dim(terminal.colour, &text),
                _ => text,
            });
        }
        let low = paint::right(&format::percent_or_missing(lowest.map(|l| l.accuracy)), 9);
        let end = paint::right(&format::percent_or_missing(group.last(j)), 8);
        let low = if lowest.is_some() {
            paint::alarm(terminal.colour, &low)
        } else {
            low
        };
        let _ = writeln!(out, "{low}{end}");
    }
    if sets > MOST {
        let _ = writeln!(
            out,
            "{}",
            paint::dim(
                terminal.colour,
                &format!("and {} more sets: see the report", sets - MOST)
            )
        );
    }
    out.push('\n');
}

/// Width of the names: as long as the longest, but never more than a sixth of the line.
fn names(group: &Group, sets: usize, terminal: &Terminal) -> usize {
    let name = |j: usize| group.first().set_name(j).chars().count();
    let longest = (0..sets.min(MOST)).map(name).max().unwrap_or(0);
    (longest + 4).clamp(4, (terminal.width / 6).max(10))
}

/// Lowest accuracy in each column.
fn minima(
    curves: &MeanCurves,
    j: usize,
    columns: usize,
    column: &dyn Fn(u64) -> usize,
) -> Vec<Option<f64>> {
    let mut lowest: Vec<Option<f64>> = vec![None; columns];
    for (&step, &value) in curves.steps.iter().zip(&curves.mean[j]) {
        if let Some(v) = finite(value) {
            let slot = &mut lowest[column(step)];
            *slot = Some(slot.map_or(v, |low| low.min(v)));
        }
    }
    // Fewer evaluations than columns: a block stands until the next one.
    for c in 1..columns {
        if lowest[c].is_none() && lowest[c..].iter().any(Option::is_some) {
            lowest[c] = lowest[c - 1];
        }
    }
    lowest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_step_in_ten_thousand_shows() {
        let mut values = vec![Some(0.99); 10_000];
        values[7_000] = Some(0.02);
        let curves = MeanCurves {
            steps: (0..10_000).collect(),
            mean: vec![values],
            ..MeanCurves::default()
        };
        let column = |s: u64| (s as usize) * 40 / 10_000;
        let minima = minima(&curves, 0, 40, &column);
        assert_eq!(minima[28], Some(0.02));
        assert_eq!(block(0.02), '▁');
        assert_eq!(block(1.0), '█');
        assert_eq!(minima.iter().filter(|m| **m == Some(0.99)).count(), 39);
    }
}
