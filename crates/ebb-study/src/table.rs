//! The table of reference rows, as Markdown.

use crate::verdict::Verdict;
use std::fmt::Write;

/// Every reference row of these verdicts, ours beside theirs, with a sentence on each.
pub fn reference_table(verdicts: &[Verdict]) -> String {
    let mut text = String::from(
        "# Reference rows\n\n\
         Published figures and ours under the same protocol, in percent; ± is the standard \
         deviation over runs for theirs, the 95 % t interval over seeds for ours. A row *holds* when \
         |ours − theirs| ≤ 0.5 + 1.96 √(se² + se²) with our half-width at most 1.5 points. It is \
         *evidence* for a method only if the published value lies twice that tolerance from \
         fine-tuning (where none is published, from our arm at strength 0), our arm at strength 0 \
         fails the row, and the protocol is known in full. \
         Coefficients are the published ones. Where a peer publishes no figure but a bar that its own \
         test asks for, a row holds when the lower end of our interval reaches it. This page is written by \
         `ebb study table`.\n",
    );
    let mut tables: Vec<(&str, Vec<&Verdict>)> = Vec::new();
    for verdict in verdicts.iter().filter(|v| !v.rows.is_empty()) {
        let table = table_of(verdict);
        match tables.iter_mut().find(|(name, _)| *name == table) {
            Some((_, of)) => of.push(verdict),
            None => tables.push((table, vec![verdict])),
        }
    }
    for (table, verdicts) in tables {
        let _ = write!(text, "\n## {table}\n");
        for verdict in verdicts {
            rows(verdict, &mut text);
        }
    }
    text
}

/// The published table of a reference study: its source up to the row.
fn table_of(verdict: &Verdict) -> &str {
    let source = verdict.source.as_str();
    source.split(", row ").next().unwrap_or(source)
}

fn rows(verdict: &Verdict, text: &mut String) {
    let _ = write!(
        text,
        "\n### {} {}\n\n{}\n\n",
        verdict.id, verdict.title, verdict.source
    );
    text.push_str(
            "| scenario | theirs (runs) | ours (seeds) | difference | tolerance | at strength 0 | holds | evidence |\n\
             |---|---|---|---|---|---|---|---|\n",
        );
    for row in &verdict.rows {
        let zero = row.zero.as_ref().map_or("–".to_owned(), |z| {
            format!("{:.2} ± {:.2}", z.mean, z.half_width())
        });
        let (theirs, aim, tolerance) = match (&row.theirs, row.at_least) {
            (Some(t), _) => (
                format!("{:.2} ± {:.2} ({})", t.mean, t.sd, t.n),
                t.mean,
                format!("{:.2}", row.tolerance),
            ),
            (None, bar) => {
                let bar = bar.unwrap_or_default();
                (format!("≥ {bar}"), bar, "–".to_owned())
            }
        };
        let _ = writeln!(
            text,
            "| {} | {theirs} | {:.2} ± {:.2} ({}) | {:+.2} | {tolerance} | {zero} | {} | {} |",
            row.name,
            row.ours.mean,
            row.ours.half_width(),
            row.ours.values.len(),
            row.ours.mean - aim,
            yes(row.holds),
            yes(row.evidence),
        );
    }
    text.push('\n');
    for row in &verdict.rows {
        let _ = writeln!(text, "- {}: {}.", row.name, row.because);
    }
    for note in &verdict.notes {
        let _ = writeln!(text, "- Note: {note}");
    }
}

fn yes(b: bool) -> &'static str {
    if b { "yes" } else { "no" }
}
