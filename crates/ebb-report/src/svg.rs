//! A result as one picture: the accuracy matrix and the curves, for a README.
//!
//! It brings its own paper, ink and both themes, so it reads the same wherever it is shown.

use std::fmt::Write;

use crate::colour::{self, LINES, Paper};
use crate::data::{RunData, finite};
use crate::downsample::{extremes, pieces};
use crate::escape::esc;
use crate::format;
use crate::group::{Group, groups, mean_seen};
use crate::metric::{self, HEADLINES};

const WIDTH: f64 = 960.0;
const MARGIN: f64 = 32.0;
/// Left edge of the cells, width of the heat map, left edge of the curves.
const CELLS: f64 = MARGIN + 58.0;
const MAP: f64 = 300.0;
const PLOT: f64 = CELLS + MAP + 72.0;
/// Height of the drawings, and of a whole block with its title and axis.
const DRAWING: f64 = 236.0;
const BLOCK: f64 = DRAWING + 126.0;
/// More sets than this: the curves show each set faintly and the mean of the learned ones.
const MANY: usize = 6;

const STYLE: &str = "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;font-variant-numeric:tabular-nums;fill:var(--ink)}\
.soft{fill:var(--soft)}.title{font-size:19px;font-weight:650}.note{font-size:13px}.tick{font-size:12px}\
.paper{fill:var(--paper)}.cell{fill:var(--cell)}.on{fill:var(--on);font-size:13px;text-anchor:middle}.own{fill:none;stroke:var(--ink);stroke-width:1.5}\
.hair{stroke:var(--hair);fill:none}.rule{stroke:var(--rule);fill:none}\
.line{fill:none;stroke:var(--line);stroke-width:1.6;stroke-linejoin:round}.faint{fill:none;stroke:var(--soft);stroke-width:.8;opacity:.35}\
.ring{fill:var(--paper);stroke:var(--line);stroke-width:2}.key{fill:var(--line,var(--rule))}.mid{text-anchor:middle}.end{text-anchor:end}";
const LIGHT: &str = "--paper:#fff;--ink:#14191f;--soft:#57616b;--hair:#e2e6e9;--rule:#c6cdd3";
const DARK: &str = "--paper:#14181c;--ink:#e8ecef;--soft:#9aa6b0;--hair:#2a3138;--rule:#414b54";

/// Draws each group of runs as one block: accuracy matrix on the left, accuracy while learning
/// on the right. A complete SVG document of width 960, in the reader's theme.
pub fn matrix_svg(runs: &[RunData]) -> String {
    let groups = groups(runs);
    let height = BLOCK * groups.len().max(1) as f64 + MARGIN / 2.0;
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"Accuracy matrix and accuracy while learning\">\n\
         <style>svg{{{LIGHT}}}{STYLE}{}@media (prefers-color-scheme:dark){{svg{{{DARK}}}{}}}</style>\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\" rx=\"10\"/>\n",
        colour::css(Paper::Light, "svg"),
        colour::css(Paper::Dark, "svg"),
    );
    if groups.is_empty() {
        let _ = writeln!(
            out,
            "<text x=\"{MARGIN}\" y=\"60\" class=\"title\">No runs</text>"
        );
    }
    for (n, group) in groups.iter().enumerate() {
        let _ = writeln!(out, "<g transform=\"translate(0 {})\">", BLOCK * n as f64);
        block(&mut out, group);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

fn block(out: &mut String, group: &Group) {
    let run = group.first();
    let about: Vec<&str> = [run.stream.as_str(), run.network.as_str()]
        .into_iter()
        .filter(|s| !s.is_empty())
        .collect();
    let about = about.join(" · ");
    let _ = writeln!(
        out,
        "<text x=\"{MARGIN}\" y=\"40\" class=\"title\">{}</text>\n\
         <text x=\"{MARGIN}\" y=\"59\" class=\"note soft\"><title>{}</title>{}</text>\n\
         <text x=\"{MARGIN}\" y=\"75\" class=\"tick soft\">{}</text>",
        esc(&cut(&group.label, 44)),
        esc(&about),
        esc(&cut(&about, 58)),
        esc(&cut(&group.seeds(), 58))
    );
    let mut x = WIDTH - MARGIN;
    for names in HEADLINES.iter().rev() {
        if let Some(number) = group.number(names) {
            let title = metric::title(&number.name);
            let sign = metric::scale(&number.name).sign();
            let interval = format::interval(number).unwrap_or_else(|| "no interval".into());
            let _ = writeln!(
                out,
                "<text x=\"{x}\" y=\"40\" class=\"title end\">{}</text><text x=\"{x}\" y=\"59\" class=\"note soft end\">{}, {sign}</text><text x=\"{x}\" y=\"75\" class=\"tick soft end\">{interval}</text>",
                format::value(number),
                esc(&title),
            );
            x -= 154.0;
        }
    }
    heat(out, group);
    curves(out, group);
}

/// At most `most` characters, the last an ellipsis where something is cut.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.into();
    }
    let mut short: String = text.chars().take(most - 1).collect();
    short.push('…');
    short
}

fn top() -> f64 {
    BLOCK - DRAWING - 26.0
}

fn heat(out: &mut String, group: &Group) {
    let sets = group.matrix.iter().map(Vec::len).max().unwrap_or(0);
    let rows = group.matrix.len();
    if sets == 0 {
        return;
    }
    let (w, h) = (MAP / sets as f64, DRAWING / rows as f64);
    let every = sets.max(rows).div_ceil(12);
    for (i, row) in group.matrix.iter().enumerate() {
        let y = top() + h * i as f64;
        if i % every == 0 {
            let word = if rows <= 6 { "after " } else { "" };
            let _ = write!(
                out,
                "<text x=\"{}\" y=\"{:.1}\" class=\"tick soft end\">{word}{}</text>",
                CELLS - 9.0,
                y + h / 2.0 + 4.0,
                i + 1
            );
        }
        for (j, value) in row.iter().enumerate() {
            let x = CELLS + w * j as f64;
            let place = format!(
                "x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"2\"",
                x + 1.0,
                y + 1.0,
                w - 2.0,
                h - 2.0
            );
            match finite(*value) {
                Some(v) => {
                    let step = colour::step_of(v);
                    let _ = write!(
                        out,
                        "<g class=\"h{step}\"><rect class=\"cell\" {place}><title>{}</title></rect>",
                        format::percent(v)
                    );
                    if w >= 34.0 && h >= 16.0 {
                        let _ = write!(
                            out,
                            "<text class=\"on\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                            x + w / 2.0,
                            y + h / 2.0 + 4.5,
                            format::percent(v)
                        );
                    }
                    out.push_str("</g>");
                }
                None => {
                    let _ = write!(out, "<rect class=\"hair\" {place}/>");
                }
            }
            if group.first().teaches(i, j) {
                let _ = write!(out, "<rect class=\"own\" {place}/>");
            }
        }
        out.push('\n');
    }
    for j in (0..sets).step_by(every) {
        let x = CELLS + w * (j as f64 + 0.5);
        let _ = write!(
            out,
            "<text x=\"{x:.1}\" y=\"{:.1}\" class=\"tick soft mid\">{}</text>",
            top() + DRAWING + 18.0,
            j + 1
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{:.1}\" class=\"tick soft end\">test set</text>",
        CELLS - 9.0,
        top() + DRAWING + 18.0
    );
}

fn curves(out: &mut String, group: &Group) {
    let curves = &group.curves;
    let (Some(&from), Some(&to)) = (curves.steps.first(), curves.steps.last()) else {
        return;
    };
    let width = WIDTH - MARGIN - PLOT;
    let px = |step: f64| PLOT + width * (step - from as f64) / ((to - from).max(1)) as f64;
    let py = |accuracy: f64| top() + DRAWING * (1.0 - accuracy.clamp(0.0, 1.0));
    for k in 0..5 {
        let y = py(0.25 * f64::from(k));
        let sign = if k == 4 { " %" } else { "" };
        let _ = write!(
            out,
            "<path class=\"hair\" d=\"M{PLOT} {y:.1}h{width}\"/><text x=\"{}\" y=\"{:.1}\" class=\"tick soft end\">{}{sign}</text>",
            PLOT - 8.0,
            y + 4.0,
            25 * k
        );
    }
    let sets = curves.mean.len();
    for (k, &start) in curves
        .starts
        .iter()
        .enumerate()
        .filter(|(_, s)| (from..=to).contains(s))
    {
        let x = px(start as f64);
        if k > 0 {
            let _ = write!(
                out,
                "<path class=\"{}\" d=\"M{x:.1} {:.1}v{DRAWING}\"/>",
                if sets > MANY { "hair" } else { "rule" },
                top()
            );
        }
        if sets <= MANY {
            let colour = group
                .first()
                .teaches_only(k)
                .map(|j| format!(" class=\"s{}\"", j % LINES))
                .unwrap_or_default();
            let end = px(curves.starts.get(k + 1).copied().unwrap_or(to).min(to) as f64);
            let _ = write!(
                out,
                "<g{colour}><rect class=\"key\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"3\" rx=\"1\"/></g><text x=\"{:.1}\" y=\"{:.1}\" class=\"tick soft mid\">{}</text>",
                x + 1.0,
                top() + DRAWING + 5.0,
                (end - x - 2.0).max(0.0),
                (x + end) / 2.0,
                top() + DRAWING + 22.0,
                k + 1
            );
        }
    }
    for (j, values) in curves.mean.iter().enumerate() {
        let class = if sets <= MANY { "line" } else { "faint" };
        draw(
            out,
            &curves.steps,
            values,
            &format!("{class} s{}", j % LINES),
            &px,
            &py,
        );
    }
    if sets > MANY {
        draw(
            out,
            &curves.steps,
            &mean_of_learned(group),
            "line s0",
            &px,
            &py,
        );
        let _ = write!(
            out,
            "<text x=\"{PLOT}\" y=\"{:.1}\" class=\"tick soft\">mean of the sets learned so far; each set faint; steps {} to {}</text>",
            top() + DRAWING + 18.0,
            format::count(from),
            format::count(to)
        );
    } else {
        for j in 0..sets {
            if let Some(low) = group.lowest(j) {
                let (x, y) = (px(low.step as f64), py(low.accuracy));
                let _ = write!(
                    out,
                    "<g class=\"s{}\"><circle class=\"ring\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/></g>",
                    j % LINES
                );
            }
        }
    }
    out.push('\n');
}

fn draw(
    out: &mut String,
    steps: &[u64],
    values: &[Option<f64>],
    class: &str,
    px: &dyn Fn(f64) -> f64,
    py: &dyn Fn(f64) -> f64,
) {
    for piece in pieces(steps, values) {
        let _ = write!(out, "<path class=\"{class}\" d=\"");
        for (n, (x, y)) in extremes(&piece, 300).into_iter().enumerate() {
            let _ = write!(
                out,
                "{}{:.1} {:.1}",
                if n == 0 { 'M' } else { 'L' },
                px(x),
                py(y)
            );
        }
        out.push_str("\"/>\n");
    }
}

/// At each step, the mean over the sets whose experience has begun.
fn mean_of_learned(group: &Group) -> Vec<Option<f64>> {
    let curves = &group.curves;
    let at = |(k, step): (usize, &u64)| {
        let begun = curves.starts.iter().filter(|s| *s <= step).count().max(1);
        let row: Vec<Option<f64>> = curves.mean.iter().map(|set| set[k]).collect();
        mean_seen(group, &row, begun - 1)
    };
    curves.steps.iter().enumerate().map(at).collect()
}
