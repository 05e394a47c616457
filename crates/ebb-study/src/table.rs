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
         fine-tuning, our arm at strength 0 fails the row, and the protocol is known in full. \
         Coefficients are the published ones. This page is written by `ebb study`.\n",
    );
    let referenced = verdicts.iter().filter(|v| !v.rows.is_empty());
    for verdict in referenced {
        let _ = write!(
            text,
            "\n## {} {}\n\n{}\n\n",
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
            let _ = writeln!(
                text,
                "| {} | {:.2} ± {:.2} ({}) | {:.2} ± {:.2} ({}) | {:+.2} | {:.2} | {zero} | {} | {} |",
                row.name,
                row.theirs.mean,
                row.theirs.sd,
                row.theirs.n,
                row.ours.mean,
                row.ours.half_width(),
                row.ours.values.len(),
                row.ours.mean - row.theirs.mean,
                row.tolerance,
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
    text
}

fn yes(b: bool) -> &'static str {
    if b { "yes" } else { "no" }
}
