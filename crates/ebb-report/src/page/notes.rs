//! What a reader must know before trusting the numbers: combinations accepted by name, runs
//! that do not count.

use std::fmt::Write;

use crate::escape::esc;
use crate::group::Group;

pub(super) fn write(out: &mut String, groups: &[Group]) {
    let mut notes = String::new();
    for group in groups {
        let mut accepted: Vec<&str> = Vec::new();
        for text in group.runs.iter().flat_map(|r| &r.accepted) {
            if !accepted.contains(&text.as_str()) {
                accepted.push(text);
            }
        }
        for text in accepted {
            let _ = writeln!(
                notes,
                "<li><b>{}</b> accepted by its recipe: {}</li>",
                esc(&group.label),
                esc(text)
            );
        }
        for (run, reason) in &group.set_aside {
            let _ = writeln!(
                notes,
                "<li><b>{}</b> left out of the means: {}</li>",
                esc(&run.name),
                esc(reason)
            );
        }
    }
    if !notes.is_empty() {
        let _ = write!(
            out,
            "<aside class=\"notes\" aria-label=\"Notes\"><h2>Before you read the numbers</h2><ul>\n{notes}</ul></aside>\n"
        );
    }
}
