//! A page of headed tables: one HTML file that needs nothing else, in light and dark.

use crate::escape::esc;
use std::fmt::Write;

/// A table under a heading, with a sentence above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The heading.
    pub title: String,
    /// What stands above the table; may be empty.
    pub about: String,
    /// Titles of the columns; a table without columns is left out.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#14191f;background:#fff}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem;display:block;overflow-x:auto}\
th,td{padding:.25rem .8rem .25rem 0;text-align:left;border-bottom:1px solid #e2e6e9}h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}\
@media(prefers-color-scheme:dark){body{color:#e8ecef;background:#14181c}th,td{border-color:#2a3138}}";

/// A complete HTML document. Every text is escaped.
pub fn sheet(title: &str, lead: &str, sections: &[Section]) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>{0}</title><style>{STYLE}</style>\n<h1>{0}</h1>\n<p>{1}</p>\n",
        esc(title),
        esc(lead)
    );
    for section in sections {
        let _ = writeln!(out, "<h2>{}</h2>", esc(&section.title));
        if !section.about.is_empty() {
            let _ = writeln!(out, "<p>{}</p>", esc(&section.about));
        }
        if section.columns.is_empty() {
            continue;
        }
        let cells = |tag: &str, row: &[String]| {
            let each = row.iter().map(|c| format!("<{tag}>{}</{tag}>", esc(c)));
            format!("<tr>{}</tr>\n", each.collect::<String>())
        };
        out += "<table>\n";
        out += &cells("th", &section.columns);
        section.rows.iter().for_each(|row| out += &cells("td", row));
        out += "</table>\n";
    }
    out + "</html>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_and_tables_whole() {
        let section = Section {
            title: "a & b".into(),
            about: String::new(),
            columns: vec!["<x>".into(), "y".into()],
            rows: vec![vec!["1".into(), "\"2\"".into()]; 3],
        };
        let page = sheet("t", "l", &[section]);
        assert!(page.contains("a &amp; b") && page.contains("<th>&lt;x&gt;</th>"));
        assert_eq!(page.matches("<tr>").count(), 4);
        assert!(!page.contains("<script"));
    }
}
