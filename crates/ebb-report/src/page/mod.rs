//! The page, section by section.

mod comparison;
mod cost;
mod curves;
mod detail;
mod dots;
mod lead;
mod matrix;
mod notes;
mod ticks;

use std::fmt::Write;

use crate::colour::{self, Paper};
use crate::compare::{self, Metric};
use crate::data::RunData;
use crate::escape::esc;
use crate::group::{Group, groups};
use crate::protocol::Shared;
use ebb_space::Unit;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// How a page is made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Title of the page; without one it is made from the runs.
    pub title: Option<String>,
    /// Light, dark, or as the reader's system has it.
    pub theme: Theme,
    /// A line at the foot (version of the program, time); nothing is added to it.
    pub footer: Option<String>,
}

/// Which of the two themes a page opens in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    /// As the reader's system prefers.
    #[default]
    Auto,
    /// Dark ink on light paper.
    Light,
    /// Light ink on dark paper.
    Dark,
}

/// What the sections draw from.
struct Page<'a> {
    groups: &'a [Group<'a>],
    metrics: Vec<Metric<'a>>,
    /// What every protocol has in common.
    shared: Shared,
    /// The unit of every interval, if it is one.
    unit: Option<Unit>,
}

fn one_unit(metrics: &[Metric]) -> Option<Unit> {
    let mut units = metrics.iter().flat_map(|m| &m.columns).map(|c| c.unit);
    let first = units.next()?;
    units.all(|u| u == first).then_some(first)
}

/// Renders runs as one self-contained HTML page.
///
/// Runs of one recipe with different seeds are drawn as one group (means, intervals over
/// seeds). Every outside text is escaped; values that are missing or not finite are shown as
/// missing. The same input gives the same bytes.
pub fn render(runs: &[RunData], options: &Options) -> String {
    let groups = groups(runs);
    let metrics = compare::metrics(&groups);
    let page = Page {
        groups: &groups,
        shared: Shared::of(&metrics),
        unit: one_unit(&metrics),
        metrics,
    };
    let title = options
        .title
        .clone()
        .unwrap_or_else(|| lead::title(&groups));
    let mut out = String::with_capacity(64 * 1024);
    head(&mut out, &title, options.theme);
    out.push_str("<main id=\"main\">\n");
    if groups.is_empty() {
        out.push_str("<section class=\"lead\"><h1>No runs</h1><p class=\"sub\">Give the report at least one run directory.</p></section>\n");
    } else {
        lead::write(&mut out, &page, &title);
        notes::write(&mut out, &groups);
        matrix::write(&mut out, &groups);
        curves::write(&mut out, &groups);
        comparison::write(&mut out, &page);
        cost::write(&mut out, &page);
        detail::write(&mut out, &groups);
    }
    out.push_str("</main>\n");
    if let Some(footer) = &options.footer {
        let _ = writeln!(out, "<footer class=\"foot\">{}</footer>", esc(footer));
    }
    let _ = write!(out, "<script>{SCRIPT}</script>\n</body>\n</html>\n");
    out
}

fn head(out: &mut String, title: &str, theme: Theme) {
    let forced = match theme {
        Theme::Auto => "",
        Theme::Light => " data-theme=\"light\"",
        Theme::Dark => " data-theme=\"dark\"",
    };
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"{forced}>\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
         <title>{}</title>\n<style>{STYLE}\n{}@media (prefers-color-scheme: dark){{{}}}{}@media print{{{}}}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#main\">To the content</a>\n\
         <div class=\"bar\"><span class=\"brand\"><b>ebb</b> report</span>\
         <button type=\"button\" id=\"theme\" hidden aria-label=\"Switch between light and dark\">\
         <svg viewBox=\"0 0 20 20\" width=\"18\" height=\"18\" aria-hidden=\"true\"><circle cx=\"10\" cy=\"10\" r=\"7.25\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"1.5\"/><path d=\"M10 2.75a7.25 7.25 0 0 1 0 14.5z\" fill=\"currentColor\"/></svg></button></div>\n",
        esc(title),
        colour::css(Paper::Light, ":root"),
        colour::css(Paper::Dark, ":root:not([data-theme=light])"),
        colour::css(Paper::Dark, ":root[data-theme=dark]"),
        colour::css(Paper::Light, ":root:root:root"),
    );
}

/// Opens a section with its title and one line on how to read it.
fn section(out: &mut String, id: &str, title: &str, read: &str) {
    let _ = write!(
        out,
        "<section id=\"{id}\" aria-labelledby=\"{id}-title\">\n<h2 id=\"{id}-title\">{}</h2>\n<p class=\"read\">{}</p>\n",
        esc(title),
        esc(read)
    );
}

/// `class` as `class-incremental`.
fn scenario_words(scenario: &str) -> String {
    match scenario {
        "task" | "domain" | "class" => format!("{scenario}-incremental"),
        other => other.to_string(),
    }
}

/// Parts that are not empty, joined by a middle dot.
fn dotted<S: AsRef<str>>(parts: impl IntoIterator<Item = S>) -> String {
    let parts: Vec<String> = parts
        .into_iter()
        .map(|p| p.as_ref().trim().to_string())
        .filter(|p| !p.is_empty())
        .collect();
    parts.join(" · ")
}
