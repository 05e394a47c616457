//! Every measure of every learner in one table. What may not be compared gets a row of its own,
//! with the reason.

use std::fmt::Write;

use super::lead::{column_protocol, column_words, kind_words};
use super::{Page, section};
use crate::compare::{Column, Metric};
use crate::escape::esc;
use crate::format;
use crate::metric;
use ebb_space::Number;

pub(super) fn write(out: &mut String, page: &Page) {
    let (groups, metrics) = (page.groups, &page.metrics);
    if metrics.is_empty() {
        return;
    }
    let (title, read) = match groups.len() {
        1 => (
            "All measures",
            "Each value with its 95 % interval, what the interval is over, and the protocol it was taken under.",
        ),
        _ => (
            "Side by side",
            "Each value with its 95 % interval. A measure taken under different protocols, on different streams or \
             with intervals over different units is split into rows that must not be read against one another.",
        ),
    };
    section(out, "measures", title, read);
    if let [group] = groups {
        list(out, &group.numbers, |p| page.shared.rest(p));
        out.push_str("</section>\n");
        return;
    }
    let tab = if groups.len() > 2 {
        " tabindex=\"0\" role=\"region\" aria-label=\"Measures, scrolls sideways\""
    } else {
        ""
    };
    let _ = write!(
        out,
        "<div class=\"scroll\"{tab}><table class=\"measures\"><thead><tr><th scope=\"col\">measure</th>"
    );
    for group in groups {
        let _ = write!(
            out,
            "<th scope=\"col\">{}<span>{}</span></th>",
            esc(&group.label),
            esc(&group.seeds())
        );
    }
    out.push_str("</tr></thead>\n");
    for metric in metrics {
        out.push_str("<tbody>\n");
        if let Some(reason) = &metric.apart {
            let _ = writeln!(
                out,
                "<tr class=\"apart\"><th scope=\"rowgroup\" colspan=\"{}\">{}: shown apart, because {}</th></tr>",
                groups.len() + 1,
                esc(&metric::title(metric.name)),
                esc(reason)
            );
        }
        for column in &metric.columns {
            row(out, page, metric, column);
        }
        out.push_str("</tbody>\n");
    }
    out.push_str("</table></div>\n</section>\n");
}

/// Numbers of one run or group, one a row; `protocol` shortens what is said elsewhere.
pub(super) fn list(out: &mut String, numbers: &[Number], protocol: impl Fn(&str) -> String) {
    out.push_str(
        "<div class=\"scroll\"><table class=\"numbers\"><thead><tr><th scope=\"col\">measure</th>\
         <th scope=\"col\">value</th><th scope=\"col\">95 % interval</th><th scope=\"col\">over</th>\
         <th scope=\"col\">protocol</th></tr></thead>\n<tbody>\n",
    );
    for number in numbers {
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}<span>{}</span></th><td>{}</td><td>{}</td><td>{}</td><td class=\"words\">{}</td></tr>",
            esc(&metric::title(&number.name)),
            kind_words(number),
            format::value(number),
            format::interval(number)
                .as_deref()
                .unwrap_or(format::MISSING),
            format::over(number),
            esc(&protocol(&number.protocol))
        );
    }
    out.push_str("</tbody></table></div>\n");
}

fn row(out: &mut String, page: &Page, metric: &Metric, column: &Column) {
    let _ = write!(
        out,
        "<tr><th scope=\"row\">{}<span>{}</span>",
        esc(&metric::title(column.name)),
        esc(&column_words(page, column)),
    );
    let protocol = column_protocol(page, metric, column);
    if !protocol.is_empty() {
        let _ = write!(out, "<span class=\"protocol\">{}</span>", esc(&protocol));
    }
    out.push_str("</th>");
    for (group, entry) in page.groups.iter().zip(&column.entries) {
        let who = esc(&group.label);
        match entry {
            Some(number) => {
                let interval = format::interval(number);
                let _ = write!(
                    out,
                    "<td data-who=\"{who}\" title=\"over {}\">{}<span>{}</span></td>",
                    format::over(number),
                    format::value(number),
                    interval.as_deref().unwrap_or("no interval")
                );
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
