//! What it cost, beside what it bought.

use std::fmt::Write;

use super::ticks::ticks;
use super::{Page, section};
use crate::compare::{Column, Metric};
use crate::data::{Cost, finite};
use crate::escape::esc;
use crate::format;
use crate::group::Group;
use crate::metric::{self, HEADLINES};

/// One kind of cost: its title, how to read it from a run and how to write it.
struct Kind {
    title: &'static str,
    of: fn(&Cost) -> Option<f64>,
    text: fn(f64) -> String,
    /// Whether a bar under the value helps (a share of something that one pays for).
    bar: bool,
}

const KINDS: [Kind; 9] = [
    Kind {
        title: "Training time",
        of: |c| c.train_seconds,
        text: format::duration,
        bar: true,
    },
    Kind {
        title: "Total time",
        of: |c| c.total_seconds,
        text: format::duration,
        bar: true,
    },
    Kind {
        title: "Steps",
        of: |c| whole(c.steps),
        text: whole_text,
        bar: false,
    },
    Kind {
        title: "Steps a second",
        of: Cost::steps_per_second,
        text: rate_text,
        bar: true,
    },
    Kind {
        title: "Gradient calls",
        of: |c| whole(c.gradient_calls),
        text: whole_text,
        bar: true,
    },
    Kind {
        title: "Rows forward",
        of: |c| whole(c.forward_rows),
        text: whole_text,
        bar: true,
    },
    Kind {
        title: "Rows backward",
        of: |c| whole(c.backward_rows),
        text: whole_text,
        bar: true,
    },
    Kind {
        title: "Replay memory",
        of: |c| whole(c.memory_bytes),
        text: bytes_text,
        bar: true,
    },
    Kind {
        title: "Peak memory",
        of: |c| whole(c.peak_rss_bytes),
        text: bytes_text,
        bar: true,
    },
];

fn whole(value: Option<u64>) -> Option<f64> {
    value.map(|v| v as f64)
}

fn whole_text(value: f64) -> String {
    format::count(value.round() as u64)
}

fn rate_text(value: f64) -> String {
    if value < 10.0 {
        format::plain(value)
    } else {
        whole_text(value)
    }
}

fn bytes_text(value: f64) -> String {
    format::bytes(value.round() as u64)
}

pub(super) fn write(out: &mut String, page: &Page) {
    let (groups, metrics) = (page.groups, &page.metrics);
    let measured: Vec<&Kind> = KINDS
        .iter()
        .filter(|k| groups.iter().any(|g| g.cost(k.of).is_some()))
        .collect();
    if measured.is_empty() {
        return;
    }
    let read = if groups.iter().any(|g| g.runs.len() > 1) {
        "Means over the seeds; the small line gives the range. Time is wall time on the machine named below."
    } else {
        "Time is wall time on the machine named below."
    };
    section(out, "cost", "Cost", read);
    let accuracy = metrics
        .iter()
        .find(|m| HEADLINES[0].contains(&metric::canonical(m.name).as_str()))
        .and_then(|m| m.columns.iter().find(|c| c.has_values()).map(|c| (m, c)));
    match groups {
        [one] => list(out, one, &measured),
        _ => {
            if let Some((_, column)) = accuracy {
                plane(out, groups, column);
            }
            table(out, groups, &measured, accuracy);
        }
    }
    out.push_str("</section>\n");
}

/// One group: pairs of title and value.
fn list(out: &mut String, group: &Group, kinds: &[&Kind]) {
    out.push_str("<dl class=\"costs\">\n");
    for kind in kinds {
        if let Some([mean, low, high]) = group.cost(kind.of) {
            let _ = writeln!(
                out,
                "<div><dt>{}</dt><dd>{}{}</dd></div>",
                kind.title,
                (kind.text)(mean),
                range(kind, low, high)
            );
        }
    }
    out.push_str("</dl>\n");
}

fn range(kind: &Kind, low: f64, high: f64) -> String {
    let (low, high) = ((kind.text)(low), (kind.text)(high));
    if low == high {
        String::new()
    } else {
        format!("<span>{low} to {high}</span>")
    }
}

fn table(
    out: &mut String,
    groups: &[Group],
    kinds: &[&Kind],
    accuracy: Option<(&Metric, &Column)>,
) {
    out.push_str(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Cost, scrolls sideways\">\
         <table class=\"cost\"><thead><tr><th scope=\"col\">learner</th>",
    );
    if let Some((_, column)) = accuracy {
        let _ = write!(
            out,
            "<th scope=\"col\">{}, {}</th>",
            esc(&metric::title(column.name)),
            metric::scale(column.name).sign()
        );
    }
    for kind in kinds {
        let _ = write!(out, "<th scope=\"col\">{}</th>", kind.title);
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    let most: Vec<Option<f64>> = kinds.iter().map(|k| largest(groups, k)).collect();
    for (g, group) in groups.iter().enumerate() {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", esc(&group.label));
        if let Some((_, column)) = accuracy {
            let title = metric::title(column.name);
            let who = esc(&title);
            match column.entries[g] {
                Some(n) => {
                    let _ = write!(
                        out,
                        "<td data-who=\"{who}\">{}<span>{}</span></td>",
                        format::value(n),
                        format::interval(n).as_deref().unwrap_or("no interval")
                    );
                }
                None => {
                    let _ = write!(
                        out,
                        "<td data-who=\"{who}\" class=\"none\" title=\"under another protocol\">{}</td>",
                        format::MISSING
                    );
                }
            }
        }
        for (kind, most) in kinds.iter().zip(&most) {
            let who = kind.title;
            match group.cost(kind.of) {
                Some([mean, low, high]) => {
                    let _ = write!(
                        out,
                        "<td data-who=\"{who}\">{}{}",
                        (kind.text)(mean),
                        range(kind, low, high)
                    );
                    if kind.bar && most.is_some() {
                        let _ = write!(
                            out,
                            "<i class=\"paid\" style=\"width:{:.1}%\"></i>",
                            100.0 * mean / most.unwrap_or(mean)
                        );
                    }
                    out.push_str("</td>");
                }
                None => {
                    let _ = write!(
                        out,
                        "<td data-who=\"{who}\" class=\"none\">{}</td>",
                        format::MISSING
                    );
                }
            }
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

/// The largest mean of a kind; `None` where the learners hardly differ, and bars would say nothing.
fn largest(groups: &[Group], kind: &Kind) -> Option<f64> {
    let means = || {
        groups
            .iter()
            .filter_map(|g| g.cost(kind.of))
            .map(|[mean, ..]| mean)
    };
    let (low, high) = (
        means().fold(f64::INFINITY, f64::min),
        means().fold(0.0, f64::max),
    );
    (high > 0.0 && low < 0.95 * high).then_some(high)
}

/// Accuracy against training time: up and to the left is better.
fn plane(out: &mut String, groups: &[Group], column: &Column) {
    struct Point<'a> {
        label: &'a str,
        x: f64,
        y: [f64; 3],
    }
    let points: Vec<Point> = groups
        .iter()
        .zip(&column.entries)
        .filter_map(|(g, entry)| {
            let n = entry.filter(|n| n.value.is_finite())?;
            let [x, ..] = g.cost(|c| c.train_seconds)?;
            let y = [
                n.value,
                finite(n.ci_low).unwrap_or(n.value),
                finite(n.ci_high).unwrap_or(n.value),
            ];
            Some(Point {
                label: &g.label,
                x,
                y,
            })
        })
        .collect();
    if points.len() < 2 {
        return;
    }
    let xs = ticks(0.0, points.iter().map(|p| p.x).fold(0.0, f64::max), 4);
    let low = points.iter().map(|p| p.y[1]).fold(f64::INFINITY, f64::min);
    let high = points
        .iter()
        .map(|p| p.y[2])
        .fold(f64::NEG_INFINITY, f64::max);
    let ys = ticks(low, high, 4);
    let place = |v: f64, axis: &[f64]| 100.0 * (v - axis[0]) / (axis[axis.len() - 1] - axis[0]);
    let title = metric::title(column.name);
    let _ = write!(
        out,
        "<figure class=\"plane\"><figcaption><h3>{} against training time</h3></figcaption>\
         <div class=\"field\" role=\"img\" aria-label=\"{} against training time, {} learners; the values are in the table below\">",
        esc(&title),
        esc(&title),
        points.len()
    );
    for &y in &ys {
        let _ = write!(
            out,
            "<i class=\"h\" style=\"bottom:{:.2}%\"></i><span class=\"y\" style=\"bottom:{:.2}%\">{}</span>",
            place(y, &ys),
            place(y, &ys),
            format::on_scale(column.name, y)
        );
    }
    for (n, &x) in xs.iter().enumerate() {
        let unit = if n + 1 == xs.len() { " s" } else { "" };
        let _ = write!(
            out,
            "<span class=\"x\" style=\"left:{:.2}%\">{}{unit}</span>",
            place(x, &xs),
            format::plain(x)
        );
    }
    for p in &points {
        let x = place(p.x, &xs);
        let (y, low, high) = (place(p.y[0], &ys), place(p.y[1], &ys), place(p.y[2], &ys));
        let near =
            |q: &&Point| (place(q.y[0], &ys) - y).abs() < 9.0 && (place(q.x, &xs) - x).abs() < 34.0;
        let higher = points
            .iter()
            .filter(near)
            .filter(|q| q.y[0] > p.y[0])
            .count();
        let lower = points
            .iter()
            .filter(near)
            .filter(|q| q.y[0] < p.y[0])
            .count();
        // Labels of close points go where the others are not.
        let side = match (higher, lower) {
            (0, 0) if x > 70.0 => " left",
            (0, 1..) => " above",
            (1.., 0) => " below",
            _ => "",
        };
        let _ = write!(
            out,
            "<i class=\"span\" style=\"left:{x:.2}%;bottom:{low:.2}%;height:{:.2}%\"></i>\
             <i class=\"dot\" style=\"left:{x:.2}%;bottom:{y:.2}%\"></i>\
             <span class=\"tag{side}\" style=\"left:{x:.2}%;bottom:{y:.2}%\">{}</span>",
            high - low,
            esc(p.label)
        );
    }
    out.push_str("</div></figure>\n");
}
