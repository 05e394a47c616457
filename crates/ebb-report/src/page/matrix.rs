//! The accuracy matrix as a heat map: a table whose cells carry both the colour and the value.

use std::fmt::Write;

use super::section;
use crate::colour::{self, STEPS};
use crate::data::finite;
use crate::escape::esc;
use crate::format;
use crate::group::{Group, mean_seen};

/// With more sets than this, cells show whole per cents and the decimals move to the tooltip.
const MANY: usize = 10;

pub(super) fn write(out: &mut String, groups: &[Group]) {
    let drawn: Vec<&Group> = groups.iter().filter(|g| width(g) > 0).collect();
    if drawn.is_empty() {
        return;
    }
    section(
        out,
        "matrix",
        "What is known after each experience",
        "Each row is the model after one experience, each column one test set; values are per cent correct. \
         Read down a column to watch that knowledge fade. Framed cells are the experience just learned.",
    );
    out.push_str("<div class=\"legend\" aria-hidden=\"true\"><span>0</span><span class=\"ramp\">");
    for step in (0..STEPS).step_by(2) {
        let _ = write!(out, "<i class=\"h{step}\"></i>");
    }
    out.push_str("</span><span>100 % correct</span></div>\n");
    let wide = drawn.iter().any(|g| width(g) > 7);
    let _ = writeln!(
        out,
        "<div class=\"matrices{}\">",
        if wide || drawn.len() == 1 { " one" } else { "" }
    );
    for group in drawn {
        table(out, group, groups.len() == 1);
    }
    out.push_str("</div>\n</section>\n");
}

fn width(group: &Group) -> usize {
    group.matrix.iter().map(Vec::len).max().unwrap_or(0)
}

/// `alone`: the title of the page has named it already.
fn table(out: &mut String, group: &Group, alone: bool) {
    let sets = width(group);
    let many = sets > MANY;
    let of = match group.runs.len() {
        1 if alone => String::new(),
        1 => group.seeds(),
        n => format!("mean of {n} seeds"),
    };
    let _ = write!(
        out,
        "<figure class=\"matrix\"><figcaption>{}<span>{}</span></figcaption>\n\
         <div class=\"scroll\"{}><table class=\"heat{}\" aria-label=\"Accuracy matrix of {}, per cent\">\n<thead><tr><td></td>",
        if alone {
            String::new()
        } else {
            format!("<h3>{}</h3>", esc(&group.label))
        },
        esc(&of),
        if many {
            " tabindex=\"0\" role=\"region\" aria-label=\"Accuracy matrix, scrolls sideways\""
        } else {
            ""
        },
        if many { " many" } else { "" },
        esc(&group.label),
    );
    for j in 0..sets {
        let name = group.first().set_name(j);
        let _ = write!(
            out,
            "<th scope=\"col\" title=\"{}\"><b>{}</b>",
            esc(name),
            j + 1
        );
        if !many && !name.is_empty() {
            let _ = write!(out, "<span>{}</span>", esc(name));
        }
        out.push_str("</th>");
    }
    out.push_str("<th scope=\"col\" class=\"mean\" title=\"Mean over the sets learned so far\"><b>mean</b><span>seen</span></th></tr></thead>\n<tbody>\n");
    if group.initial.iter().any(|v| finite(*v).is_some()) {
        out.push_str("<tr class=\"before\"><th scope=\"row\">before</th>");
        for j in 0..sets {
            cell(out, group.initial.get(j).copied().flatten(), many, false);
        }
        out.push_str("<td class=\"mean\"></td></tr>\n");
    }
    let rows = group.matrix.len().max(group.first().experiences.len());
    for i in 0..rows {
        let row = group.matrix.get(i).map_or(&[][..], Vec::as_slice);
        let _ = write!(
            out,
            "<tr><th scope=\"row\" title=\"{}\">",
            esc(group.first().experience_name(i))
        );
        let _ = write!(out, "<span>after</span> <b>{}</b></th>", i + 1);
        for j in 0..sets {
            cell(
                out,
                row.get(j).copied().flatten(),
                many,
                group.first().teaches(i, j),
            );
        }
        let _ = writeln!(
            out,
            "<td class=\"mean\">{}</td></tr>",
            format::percent_or_missing(mean_seen(group, row, i))
        );
    }
    out.push_str("</tbody>\n");
    lost(out, group, sets, many);
    out.push_str("</table></div></figure>\n");
}

fn cell(out: &mut String, value: Option<f64>, many: bool, own: bool) {
    let own = if own { " own" } else { "" };
    match finite(value) {
        Some(v) => {
            let step = colour::step_of(v);
            let exact = format::percent(v);
            if many {
                let _ = write!(
                    out,
                    "<td class=\"h{step}{own}\" title=\"{exact}\">{}</td>",
                    format::fixed(100.0 * v, 0)
                );
            } else {
                let _ = write!(out, "<td class=\"h{step}{own}\">{exact}</td>");
            }
        }
        None => {
            let _ = write!(
                out,
                "<td class=\"none{own}\" title=\"not measured\">{}</td>",
                format::MISSING
            );
        }
    }
}

/// Accuracy right after learning minus the last: linear, so it is exact for means over seeds.
fn lost(out: &mut String, group: &Group, sets: usize, many: bool) {
    let measured = |row: &&Vec<Option<f64>>| row.iter().any(|v| finite(*v).is_some());
    let Some(last) = group.matrix.iter().rev().find(measured) else {
        return;
    };
    out.push_str("<tfoot><tr><th scope=\"row\" title=\"Accuracy right after learning minus the last, in points\">lost</th>");
    for j in 0..sets {
        // A set that was taught several times counts from the last time.
        let taught = (0..group.matrix.len())
            .rev()
            .find(|&i| group.first().teaches(i, j));
        let learned = taught.and_then(|i| finite(*group.matrix[i].get(j)?));
        let now = last.get(j).and_then(|v| finite(*v));
        let _ = match learned.zip(now).map(|(a, b)| a - b) {
            Some(v) if many => write!(
                out,
                "<td title=\"{}\">{}</td>",
                format::percent(v),
                format::fixed(100.0 * v, 0)
            ),
            Some(v) => write!(out, "<td>{}</td>", format::percent(v)),
            None => write!(out, "<td>{}</td>", format::MISSING),
        };
    }
    out.push_str("<td class=\"mean\"></td></tr></tfoot>\n");
}
