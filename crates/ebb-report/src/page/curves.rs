//! Accuracy at every evaluated step, so that the dip after a switch can be seen.
//!
//! The drawing stretches with the page (`preserveAspectRatio="none"`, strokes that do not
//! scale) while its labels are ordinary text, so it stays readable at any width. Coordinates
//! are whole numbers: x the step, y the accuracy in thousandths from the top.

use std::fmt::Write;

use super::section;
use crate::colour::LINES;
use crate::compare::stream_of;
use crate::data::finite;
use crate::downsample::{extremes, pieces};
use crate::escape::esc;
use crate::format;
use crate::group::{Group, MeanCurves};

/// More sets than this are drawn as small multiples, one a set.
const OVERLAY: usize = 6;
/// More experiences than this are numbered without their names.
const NAMED: usize = 8;
/// Pixel columns that keep their extremes: a wide chart, a small one.
const WIDE: usize = 520;
const SMALL: usize = 180;

pub(super) fn write(out: &mut String, groups: &[Group]) {
    let drawn: Vec<(usize, &Group)> = groups
        .iter()
        .enumerate()
        .filter(|(_, g)| has_curves(&g.curves))
        .collect();
    if drawn.is_empty() {
        return;
    }
    let band = drawn
        .iter()
        .any(|(_, g)| g.runs.len() > 1 && sets(&g.curves) <= OVERLAY);
    let read = format!(
        "Accuracy on each test set, step by step; vertical lines are the switches to the next experience. \
         A dip right after a switch that later heals is the stability gap. A ring marks the lowest point \
         of each set after its own experience has ended.{}",
        if band {
            " Lines are means, bands span the seeds."
        } else {
            ""
        }
    );
    section(out, "curves", "While learning", &read);
    let (few, many): (Vec<_>, Vec<_>) = drawn
        .into_iter()
        .partition(|(_, g)| sets(&g.curves) <= OVERLAY);
    for (_, group) in few {
        overlay(out, group, groups.len() == 1);
    }
    let mut streams: Vec<String> = Vec::new();
    for (_, group) in &many {
        let stream = stream_of(group);
        if !streams.contains(&stream) {
            streams.push(stream);
        }
    }
    for stream in &streams {
        let same: Vec<_> = many
            .iter()
            .filter(|(_, g)| stream_of(g) == *stream)
            .copied()
            .collect();
        multiples(out, &same, (streams.len() > 1).then_some(stream));
    }
    out.push_str("</section>\n");
}

fn has_curves(curves: &MeanCurves) -> bool {
    curves.mean.iter().flatten().any(|v| finite(*v).is_some())
}

fn sets(curves: &MeanCurves) -> usize {
    curves.mean.len()
}

/// One chart with a line a set.
fn overlay(out: &mut String, group: &Group, alone: bool) {
    let curves = &group.curves;
    let range = Range::of([curves]);
    let _ = writeln!(
        out,
        "<figure class=\"curves\"><figcaption>{}<span class=\"readout\" aria-live=\"polite\"></span></figcaption>",
        if alone {
            String::new()
        } else {
            format!("<h3>{}</h3>", esc(&group.label))
        }
    );
    let label = format!(
        "Accuracy of {} on {} test sets against step",
        group.label,
        sets(curves)
    );
    open_plot(out, "", &label, &range);
    segments(out, group, &range);
    open_svg(out, &range);
    grid(out, &curves.starts, &range);
    for j in 0..sets(curves) {
        band(out, curves, j, j, WIDE);
    }
    for j in 0..sets(curves) {
        line(out, group, j, j, &format!("{}", j + 1), WIDE);
    }
    for j in 0..sets(curves) {
        ring(out, group, j, j);
    }
    out.push_str("</svg>");
    axis(out, &curves.starts, &range);
    out.push_str("</div></div>\n");
    lows(out, group);
    out.push_str("</figure>\n");
}

/// One small chart a set with a line a group.
fn multiples(out: &mut String, groups: &[(usize, &Group)], stream: Option<&String>) {
    let range = Range::of(groups.iter().map(|(_, g)| &g.curves));
    let sets = groups
        .iter()
        .map(|(_, g)| sets(&g.curves))
        .max()
        .unwrap_or(0);
    let first = groups[0].1;
    out.push_str("<figure class=\"curves\"><figcaption>");
    if let Some(stream) = stream {
        let _ = write!(out, "<h3>{}</h3>", esc(stream));
    }
    out.push_str("<ul class=\"keys\">");
    for (slot, (_, group)) in groups.iter().enumerate().filter(|_| groups.len() > 1) {
        let _ = write!(
            out,
            "<li><i class=\"key s{}{}\"></i>{}</li>",
            slot % LINES,
            dashed(slot),
            esc(&group.label)
        );
    }
    out.push_str("</ul><span class=\"readout\" aria-live=\"polite\"></span></figcaption>\n<div class=\"multiples\">\n");
    for j in 0..sets {
        let name = first.first().set_name(j);
        let _ = write!(
            out,
            "<div class=\"small\"><p><b>{}</b><span>{}</span>",
            j + 1,
            esc(name)
        );
        if let ([(_, only)], Some(low)) = (groups, first.lowest(j)) {
            let _ = write!(
                out,
                "<i title=\"{} at step {}\">low {}</i>",
                esc(&only.label),
                format::count(low.step),
                format::percent(low.accuracy)
            );
        }
        out.push_str("</p>");
        open_plot(
            out,
            " mini",
            &format!("Accuracy on test set {} {name} against step", j + 1),
            &range,
        );
        open_svg(out, &range);
        own_experiences(out, first, j, &range);
        grid(out, &first.curves.starts, &range);
        for (slot, (_, group)) in groups.iter().enumerate() {
            line(out, group, j, slot, &group.label, SMALL);
        }
        for (slot, (_, group)) in groups.iter().enumerate() {
            ring(out, group, j, slot);
        }
        out.push_str("</svg></div></div></div>\n");
    }
    let _ = write!(
        out,
        "</div>\n<p class=\"scalenote\">Every panel: 0 to 100 % correct, steps {} to {}. The shaded stretch is the set's own experience.</p></figure>\n",
        format::count(range.from),
        format::count(range.to)
    );
}

/// The steps a chart covers.
struct Range {
    from: u64,
    to: u64,
}

impl Range {
    fn of<'a>(curves: impl IntoIterator<Item = &'a MeanCurves>) -> Range {
        let mut range = Range {
            from: u64::MAX,
            to: 0,
        };
        for c in curves {
            range.from = range.from.min(c.steps.first().copied().unwrap_or(u64::MAX));
            range.to = range.to.max(c.steps.last().copied().unwrap_or(0));
        }
        if range.from >= range.to {
            range.from = range.from.min(range.to);
            range.to = range.from + 1;
        }
        range
    }

    fn width(&self) -> u64 {
        self.to - self.from
    }

    /// Place of a step in per cent of the width.
    fn at(&self, step: u64) -> f64 {
        100.0 * (step.clamp(self.from, self.to) - self.from) as f64 / self.width() as f64
    }
}

fn open_plot(out: &mut String, class: &str, label: &str, range: &Range) {
    let _ = write!(
        out,
        "<div class=\"plot{class}\" role=\"img\" tabindex=\"0\" data-from=\"{}\" data-to=\"{}\" aria-label=\"{}\">",
        range.from,
        range.to,
        esc(label)
    );
}

fn open_svg(out: &mut String, range: &Range) {
    let _ = write!(
        out,
        "<div class=\"area\"><svg viewBox=\"{} 0 {} 1000\" preserveAspectRatio=\"none\" aria-hidden=\"true\">",
        range.from,
        range.width()
    );
}

/// The names of the experiences above their stretch of steps, in the colour of the set they teach.
fn segments(out: &mut String, group: &Group, range: &Range) {
    let (run, starts) = (group.first(), &group.curves.starts);
    if starts.is_empty() {
        return;
    }
    out.push_str("<div class=\"segments\" aria-hidden=\"true\">");
    for (k, &start) in starts.iter().enumerate() {
        let end = starts.get(k + 1).copied().unwrap_or(range.to);
        let (left, right) = (range.at(start), range.at(end));
        let name = if starts.len() > NAMED {
            ""
        } else {
            run.experience_name(k)
        };
        let colour = run
            .teaches_only(k)
            .map(|j| format!(" class=\"s{}\"", j % LINES))
            .unwrap_or_default();
        let _ = write!(
            out,
            "<span{colour} style=\"left:{left:.2}%;width:{:.2}%\"><b>{}</b> {}</span>",
            right - left,
            k + 1,
            esc(name)
        );
    }
    out.push_str("</div>");
}

fn grid(out: &mut String, starts: &[u64], range: &Range) {
    out.push_str("<path class=\"grid\" d=\"");
    for y in [0, 250, 500, 750, 1000] {
        let _ = write!(out, "M{} {y}h{}", range.from, range.width());
    }
    out.push_str("\"/>");
    if starts.len() > 1 {
        out.push_str("<path class=\"switch\" d=\"");
        for start in starts
            .iter()
            .skip(1)
            .filter(|s| (range.from..=range.to).contains(s))
        {
            let _ = write!(out, "M{start} 0v1000");
        }
        out.push_str("\"/>");
    }
}

/// Shades the stretches in which set `j` is taught.
fn own_experiences(out: &mut String, group: &Group, j: usize, range: &Range) {
    let starts = &group.curves.starts;
    for (k, &start) in starts
        .iter()
        .enumerate()
        .filter(|(k, _)| group.first().teaches(*k, j))
    {
        let end = starts.get(k + 1).copied().unwrap_or(range.to).min(range.to);
        if end > start {
            let width = end - start;
            let _ = write!(
                out,
                "<path class=\"ownx\" d=\"M{start} 0h{width}v1000h-{width}z\"/>"
            );
        }
    }
}

fn axis(out: &mut String, starts: &[u64], range: &Range) {
    for y in [0, 25, 50, 75, 100] {
        let _ = write!(
            out,
            "<span class=\"y\" style=\"top:{}%\">{y}{}</span>",
            100 - y,
            if y == 100 { " %" } else { "" }
        );
    }
    // Ticks stand at the switches, thinned where they would touch; the last step closes the axis.
    let mut last = f64::NEG_INFINITY;
    let ends = [range.from, range.to];
    for (n, step) in ends
        .iter()
        .chain(starts.iter().filter(|s| **s > range.from))
        .enumerate()
    {
        let at = range.at(*step);
        if n >= ends.len() && (at - last < 7.0 || 100.0 - at < 7.0 || at < 7.0) {
            continue;
        }
        if n >= ends.len() {
            last = at;
        }
        let edge = match n {
            0 => " first",
            1 => " last",
            _ => "",
        };
        let _ = write!(
            out,
            "<span class=\"x{edge}\" style=\"left:{at:.2}%\">{}{}</span>",
            if n == 0 { "step " } else { "" },
            format::count(*step)
        );
    }
}

fn dashed(slot: usize) -> &'static str {
    if slot >= LINES { " dash" } else { "" }
}

/// Accuracy in thousandths from the top.
fn down(accuracy: f64) -> i64 {
    ((1.0 - accuracy.clamp(0.0, 1.0)) * 1000.0).round() as i64
}

/// Path of a polyline: one absolute point, then whole steps relative to the one before.
fn polyline(d: &mut String, points: impl IntoIterator<Item = (f64, f64)>, first: char) {
    let mut before: Option<(i64, i64)> = None;
    for (x, accuracy) in points {
        let (x, y) = (x as i64, down(accuracy));
        match before {
            None => {
                let _ = write!(d, "{first}{x} {y}l0 0");
            }
            Some((px, py)) => {
                let _ = write!(d, " {} {}", x - px, y - py);
            }
        }
        before = Some((x, y));
    }
}

/// The line of set `j`; what lies before the set was first taught is drawn faintly.
fn line(out: &mut String, group: &Group, j: usize, slot: usize, name: &str, buckets: usize) {
    let curves = &group.curves;
    let Some(values) = curves.mean.get(j) else {
        return;
    };
    let begins = group.begins(j);
    // The point at the switch belongs to both parts, so that they meet.
    let early = curves.steps.len().min(begins + 1);
    for (class, part) in [("early", 0..early), ("line", begins..curves.steps.len())] {
        if class == "early" && begins == 0 {
            continue;
        }
        let mut d = String::new();
        for piece in pieces(&curves.steps[part.clone()], &values[part]) {
            polyline(&mut d, extremes(&piece, buckets), 'M');
        }
        if !d.is_empty() {
            let (colour, dashed) = (slot % LINES, dashed(slot));
            let _ = write!(
                out,
                "<path class=\"{class} s{colour}{dashed}\" data-name=\"{}\" d=\"{d}\"/>",
                esc(name)
            );
        }
    }
}

/// The span of the seeds; nothing for a single run.
fn band(out: &mut String, curves: &MeanCurves, j: usize, slot: usize, buckets: usize) {
    let (Some(low), Some(high)) = (curves.low.get(j), curves.high.get(j)) else {
        return;
    };
    if low == high {
        return;
    }
    let mut d = String::new();
    for (low, high) in pieces(&curves.steps, low)
        .into_iter()
        .zip(pieces(&curves.steps, high))
    {
        polyline(&mut d, extremes(&high, buckets), 'M');
        polyline(&mut d, extremes(&low, buckets).into_iter().rev(), 'L');
        d.push('z');
    }
    if !d.is_empty() {
        let _ = write!(out, "<path class=\"band s{}\" d=\"{d}\"/>", slot % LINES);
    }
}

/// A ring at the lowest point: a thick dot of the line under a smaller one of the paper.
fn ring(out: &mut String, group: &Group, j: usize, slot: usize) {
    if let Some(low) = group.lowest(j) {
        let at = format!("M{} {}h.01", low.step, down(low.accuracy));
        let _ = write!(
            out,
            "<path class=\"ring s{}\" d=\"{at}\"/><path class=\"hole\" d=\"{at}\"/>",
            slot % LINES
        );
    }
}

/// The values at the rings and at the end, aligned under the chart.
fn lows(out: &mut String, group: &Group) {
    let curves = &group.curves;
    out.push_str(
        "<div class=\"scroll\"><table class=\"lows\"><thead><tr><th scope=\"col\">test set</th>",
    );
    for j in 0..sets(curves) {
        let _ = write!(
            out,
            "<th scope=\"col\"><i class=\"key s{}\"></i>{}<span>{}</span></th>",
            j % LINES,
            j + 1,
            esc(group.first().set_name(j))
        );
    }
    out.push_str("</tr></thead><tbody>");
    let mut row = |title: &str, value: &dyn Fn(usize) -> Option<String>| {
        let _ = write!(out, "<tr><th scope=\"row\">{title}</th>");
        for j in 0..sets(curves) {
            let _ = write!(
                out,
                "<td>{}</td>",
                value(j).as_deref().unwrap_or(format::MISSING)
            );
        }
        out.push_str("</tr>");
    };
    row("lowest, %", &|j| {
        group.lowest(j).map(|l| format::percent(l.accuracy))
    });
    row("at step", &|j| {
        group.lowest(j).map(|l| format::count(l.step))
    });
    row("end, %", &|j| group.last(j).map(format::percent));
    out.push_str("</tbody></table></div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_can_be_read_back_to_its_points() {
        let mut d = String::new();
        polyline(&mut d, [(10.0, 1.0), (12.0, 0.25), (15.0, 0.5)], 'M');
        assert_eq!(d, "M10 0l0 0 2 750 3 -250");
    }

    #[test]
    fn a_range_is_never_empty() {
        let none = Range::of([&MeanCurves::default()]);
        assert!(none.to > none.from);
        let one = MeanCurves {
            steps: vec![7],
            ..MeanCurves::default()
        };
        let range = Range::of([&one]);
        assert_eq!((range.from, range.to), (7, 8));
        assert_eq!(range.at(100), 100.0);
    }
}
