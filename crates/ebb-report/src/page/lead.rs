//! The top of the page: what was run, and the three numbers that matter.

use std::fmt::Write;

use super::{Page, dots, dotted, scenario_words};
use crate::compare::{Column, Metric, unit_words};
use crate::data::Status;
use crate::escape::esc;
use crate::format;
use crate::group::Group;
use crate::metric::{self, HEADLINES};
use ebb_space::{Direction, Number};

/// A title made from the runs.
pub(super) fn title(groups: &[Group]) -> String {
    let mut streams: Vec<&str> = Vec::new();
    for group in groups {
        let stream = group.first().stream.as_str();
        if !streams.contains(&stream) {
            streams.push(stream);
        }
    }
    let on = match streams.as_slice() {
        [] => return "No runs".into(),
        [""] => String::new(),
        [one] => format!(" on {one}"),
        many => format!(" on {} streams", many.len()),
    };
    match groups {
        [one] => format!("{}{on}", one.first().method),
        many => format!("{} learners{on}", many.len()),
    }
}

pub(super) fn write(out: &mut String, page: &Page, title: &str) {
    let groups = page.groups;
    let shared = |of: fn(&Group) -> String| {
        let first = of(&groups[0]);
        groups.iter().all(|g| of(g) == first).then_some(first)
    };
    let sub = dotted([
        shared(|g| scenario_words(&g.first().scenario)).unwrap_or_default(),
        shared(|g| g.first().network.clone()).unwrap_or_else(|| "several networks".into()),
        shared(|g| g.seeds()).unwrap_or_else(|| {
            let runs: usize = groups.iter().map(|g| g.runs.len()).sum();
            format!("{runs} runs")
        }),
    ]);
    let _ = write!(
        out,
        "<section class=\"lead\" aria-labelledby=\"title\">\n<h1 id=\"title\">{}</h1>\n<p class=\"sub\">{}</p>\n",
        esc(title),
        esc(&sub)
    );
    for group in groups {
        if let Status::Unfinished(at) = &group.first().status {
            let _ = writeln!(
                out,
                "<p class=\"flag\"><b>Unfinished</b> {}: {}. What follows covers what was measured so far.</p>",
                esc(&group.label),
                esc(if at.is_empty() {
                    "the run has no end record"
                } else {
                    at
                })
            );
        }
    }
    match groups {
        [one] => figures(out, page, one),
        _ => dots::panels(out, page),
    }
    below(out, page);
    out.push_str("</section>\n");
}

/// What holds for all the numbers above and below.
fn below(out: &mut String, page: &Page) {
    let mut words = Vec::new();
    let common = page.shared.common();
    if !common.is_empty() {
        words.push(format!("All numbers: {common}."));
    }
    let intervals = page.shared.intervals();
    match page.groups.len() {
        _ if intervals.is_empty() => {}
        1 => words.push(format!("Intervals: {intervals}.")),
        _ => words.push(format!("Bars: {intervals}.")),
    }
    if page.groups.len() > 1 && page.groups.iter().any(|g| g.runs.len() > 1) {
        words.push("Ticks: the single seeds.".into());
    }
    if !words.is_empty() {
        let _ = writeln!(out, "<p class=\"below\">{}</p>", esc(&words.join(" ")));
    }
}

/// Three large numbers with their intervals.
fn figures(out: &mut String, page: &Page, group: &Group) {
    out.push_str("<div class=\"figures\">\n");
    for names in HEADLINES {
        match group.number(names) {
            Some(number) => figure(out, page, number),
            None => {
                let _ = writeln!(
                    out,
                    "<div class=\"figure\"><h2>{}</h2><p class=\"big none\">{}</p><p class=\"ci\">not measured</p></div>",
                    metric::title(names[0]),
                    format::MISSING
                );
            }
        }
    }
    out.push_str("</div>\n");
}

fn figure(out: &mut String, page: &Page, number: &Number) {
    let sign = metric::scale(&number.name).sign();
    let _ = write!(
        out,
        "<div class=\"figure\"><h2>{}</h2><p class=\"big\">{}<small>{sign}</small></p>{}",
        esc(&metric::title(&number.name)),
        format::value(number),
        dots::bar(number),
    );
    let interval = match format::interval(number) {
        Some(interval) => format!("<b>{interval}</b> 95 % interval"),
        None => "no interval".into(),
    };
    let over = format!("over {}", format::over(number));
    let _ = write!(
        out,
        "<p class=\"ci\">{interval}<br>{}</p>",
        words([over.as_str(), direction_words(number.direction)])
    );
    let rest = page.shared.rest(&number.protocol);
    if !rest.is_empty() {
        let _ = write!(out, "<p class=\"protocol\">{}</p>", esc(&rest));
    }
    out.push_str("</div>\n");
}

fn direction_words(direction: Direction) -> &'static str {
    match direction {
        Direction::Higher => "higher is better",
        Direction::Lower => "lower is better",
        Direction::None => "",
    }
}

/// How a number is read: `%, higher is better`.
pub(super) fn kind_words(number: &Number) -> String {
    words([
        metric::scale(&number.name).sign(),
        direction_words(number.direction),
    ])
}

/// How a column is read: `%, higher is better`, and what its intervals are over where that is
/// not the same for the whole page.
pub(super) fn column_words(page: &Page, column: &Column) -> String {
    let unit = match page.unit {
        Some(_) => String::new(),
        None => format!("95 % interval {}", unit_words(column.unit)),
    };
    words([
        metric::scale(column.name).sign(),
        direction_words(column.direction),
        &unit,
    ])
}

/// What a column's protocol says beyond the shared one, and its stream if that tells it apart.
pub(super) fn column_protocol(page: &Page, metric: &Metric, column: &Column) -> String {
    let mut others = metric
        .columns
        .iter()
        .filter(|c| c.protocol != column.protocol && c.unit == column.unit);
    let rest = page.shared.rest(column.protocol);
    // Where the difference lies in what is said elsewhere, it is said here after all.
    let ambiguous = others.any(|c| page.shared.rest(c.protocol) == rest);
    let protocol = if ambiguous {
        column.protocol.to_string()
    } else {
        rest
    };
    let several = metric.columns.iter().any(|c| c.stream != column.stream);
    let stream = if several { column.stream.as_str() } else { "" };
    dotted([protocol.as_str(), stream])
}

fn words<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    parts
        .into_iter()
        .filter(|p| !p.is_empty())
        .collect::<Vec<_>>()
        .join(", ")
}
