//! Dots with intervals: where each learner stands on one measure, and how sure that is.

use std::fmt::Write;

use super::Page;
use super::lead::{column_protocol, column_words};
use super::ticks::ticks;
use crate::compare::{Column, Metric};
use crate::data::finite;
use crate::escape::esc;
use crate::format;
use crate::group::Group;
use crate::metric::{self, HEADLINES, Scale};
use crate::protocol::definition;
use ebb_space::Number;

/// One panel a headline measure; a measure with several protocols gets one panel each.
pub(super) fn panels(out: &mut String, page: &Page) {
    out.push_str("<div class=\"panels\">\n");
    for names in HEADLINES {
        let of_slot = |m: &&Metric| names.contains(&metric::canonical(m.name).as_str());
        let Some(metric) = page.metrics.iter().find(of_slot) else {
            continue;
        };
        for (n, column) in metric.columns.iter().filter(|c| c.has_values()).enumerate() {
            panel(out, page, metric, column, n > 0);
        }
    }
    out.push_str("</div>\n");
}

fn panel(out: &mut String, page: &Page, metric: &Metric, column: &Column, further: bool) {
    let _ = write!(
        out,
        "<figure class=\"dots\"><figcaption><h3>{}</h3><p>{}</p>",
        esc(&metric::title(column.name)),
        esc(&column_words(page, column)),
    );
    if let Some(reason) = metric.apart.as_deref().filter(|_| further) {
        let _ = write!(
            out,
            "<p class=\"apart\">Not comparable with the panel before: {}.</p>",
            esc(reason)
        );
    }
    let protocol = column_protocol(page, metric, column);
    if !protocol.is_empty() {
        let _ = write!(out, "<p class=\"protocol\">{}</p>", esc(&protocol));
    }
    out.push_str("</figcaption>\n<div class=\"chart\"><ul>\n");
    let groups = page.groups;
    let axis = axis(groups, column);
    for (group, entry) in groups.iter().zip(&column.entries) {
        if let Some(number) = entry.filter(|n| n.value.is_finite()) {
            row(out, group, number, &axis);
        }
    }
    out.push_str("</ul>\n<div class=\"axis\" aria-hidden=\"true\"><span class=\"track\">");
    for &tick in &axis {
        let _ = write!(
            out,
            "<i style=\"left:{:.2}%\">{}</i>",
            100.0 * position(tick, &axis),
            tick_text(column.name, tick)
        );
    }
    out.push_str("</span></div></div></figure>\n");
}

fn row(out: &mut String, group: &Group, number: &Number, axis: &[f64]) {
    let at = |v: f64| 100.0 * position(v, axis);
    let _ = write!(
        out,
        "<li><span class=\"who\">{}</span><span class=\"track\" aria-hidden=\"true\">",
        esc(&group.label),
    );
    for &tick in axis {
        let _ = write!(
            out,
            "<i class=\"tick\" style=\"left:{:.2}%\"></i>",
            at(tick)
        );
    }
    if let (Some(low), Some(high)) = (finite(number.ci_low), finite(number.ci_high)) {
        let (low, high) = (at(low), at(high));
        let _ = write!(
            out,
            "<i class=\"span\" style=\"left:{low:.2}%;width:{:.2}%\"></i>",
            high - low
        );
    }
    for value in seed_values(group, number) {
        let _ = write!(
            out,
            "<i class=\"seed\" style=\"left:{:.2}%\"></i>",
            at(value)
        );
    }
    let interval = format::interval(number);
    let _ = writeln!(
        out,
        "<i class=\"dot\" style=\"left:{:.2}%\"></i></span><span class=\"val\">{}<small>{}</small></span></li>",
        at(number.value),
        format::value(number),
        interval.as_deref().unwrap_or("no interval"),
    );
}

/// A single number on its whole range: the line under a large figure.
pub(super) fn bar(number: &Number) -> String {
    let axis = match metric::scale(&number.name) {
        Scale::Percent => vec![0.0, 1.0],
        Scale::Points => vec![
            finite(number.ci_low)
                .unwrap_or(number.value)
                .min(number.value)
                .min(0.0),
            1.0,
        ],
        _ => return String::new(),
    };
    let at = |v: f64| 100.0 * position(v, &axis);
    let low = at(finite(number.ci_low).unwrap_or(number.value));
    let high = at(finite(number.ci_high).unwrap_or(number.value));
    format!(
        "<span class=\"track wide\" aria-hidden=\"true\"><i class=\"span\" style=\"left:{low:.2}%;width:{:.2}%\"></i><i class=\"dot\" style=\"left:{:.2}%\"></i></span>",
        high - low,
        at(number.value)
    )
}

/// The values of the single runs behind a mean over seeds: equally defined, with an interval of
/// another kind.
fn seed_values(group: &Group, number: &Number) -> Vec<f64> {
    if group.runs.len() < 2 {
        return Vec::new();
    }
    let defined = definition(&number.protocol);
    let of_run = |n: &&Number| n.name == number.name && definition(&n.protocol) == defined;
    let of_group = group
        .runs
        .iter()
        .filter_map(|r| r.numbers.iter().find(of_run));
    of_group
        .map(|n| n.value)
        .filter(|v| v.is_finite())
        .collect()
}

/// Ticks that hold every value, seed and interval of a column.
fn axis(groups: &[Group], column: &Column) -> Vec<f64> {
    let mut values = Vec::new();
    for (group, number) in groups
        .iter()
        .zip(&column.entries)
        .filter_map(|(g, e)| Some((g, (*e)?)))
    {
        values.extend(seed_values(group, number));
        values.extend(
            [Some(number.value), number.ci_low, number.ci_high]
                .into_iter()
                .filter_map(finite),
        );
    }
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if low > high {
        return vec![0.0, 1.0];
    }
    match metric::scale(column.name) {
        // An interval may reach past what an accuracy can be; the axis does not.
        Scale::Percent => ticks(low.max(0.0), high.min(1.0), 3),
        _ => ticks(low, high, 3),
    }
}

fn position(value: f64, axis: &[f64]) -> f64 {
    let (low, high) = (axis[0], axis[axis.len() - 1]);
    ((value - low) / (high - low)).clamp(0.0, 1.0)
}

fn tick_text(name: &str, tick: f64) -> String {
    let tick = match metric::scale(name) {
        Scale::Percent | Scale::Points => 100.0 * tick,
        _ => tick,
    };
    let text = format::fixed(tick, 4);
    text.trim_end_matches('0').trim_end_matches('.').into()
}
