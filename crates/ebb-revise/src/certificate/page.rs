//! A certificate for people: one plain HTML page that loads nothing and runs nothing.

use std::fmt::{self, Display, Write};

use ebb_space::Number;

use super::{Guarantee, Oracle, Signed, Verdict};

/// Text with the characters of markup replaced, and control and bidirectional ones too.
struct Text<T>(T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => f.write_char('\u{fffd}')?,
                c if c.is_control() && c != '\n' => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

const HEAD: &str = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
<meta name=\"viewport\" content=\"width=device-width\"><title>Certificate of erasure</title><style>\
body{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
h1{font-size:1.6rem}h2{font-size:1.1rem;margin-top:2rem;border-bottom:1px solid #ccc}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.25rem .5rem;vertical-align:top;border-bottom:1px solid #eee}\
code{font-size:.85em;overflow-wrap:anywhere}.no{color:#a00;font-weight:bold}</style></head><body>\n";

/// The page of a certificate. With a verdict it says what was checked; without one, that nothing
/// was.
pub fn page(signed: &Signed, verdict: Option<&Verdict>) -> String {
    let mut out = HEAD.to_owned();
    // Writing to a string cannot fail.
    let _ = write(&mut out, signed, verdict);
    out
}

fn write(out: &mut String, signed: &Signed, verdict: Option<&Verdict>) -> fmt::Result {
    let c = &signed.certificate;
    writeln!(out, "<h1>Certificate of erasure</h1>")?;
    let says = match c.guarantee {
        Guarantee::Exact => "exact: by construction, the resulting model was never trained on \
                             these records."
            .to_owned(),
        Guarantee::Certified { epsilon, delta } => {
            format!("certified: (ε, δ) = ({epsilon}, {delta}) bounds what can be told apart.")
        }
        Guarantee::Equivalent => "equivalent: tests did not tell the resulting model from models \
                                  retrained without the records, within the margins below."
            .to_owned(),
        Guarantee::EmpiricalOnly => {
            "empirical only: the tests below are all that is known.".to_owned()
        }
    };
    writeln!(
        out,
        "<p>{} record(s) were erased on request. What is guaranteed: <strong>{}</strong></p>",
        c.records.count,
        Text(says)
    )?;
    match verdict {
        None => writeln!(
            out,
            "<p class=\"no\">This page was made without checking the signature.</p>"
        )?,
        Some(verdict) => {
            writeln!(out, "<h2>What was checked</h2><ul>")?;
            for check in &verdict.checks {
                let (class, mark) = match check.holds {
                    Some(true) => ("", "holds"),
                    Some(false) => (" class=\"no\"", "fails"),
                    None => ("", "not checked"),
                };
                writeln!(out, "<li{class}>{mark}: {}</li>", Text(&check.says))?;
            }
            writeln!(out, "</ul>")?;
        }
    }
    section(out, "What this does not prove", &c.not_proven)?;
    section(out, "What may remain", &c.residual_risk)?;

    table(out, "Request")?;
    row(out, "name", c.request.id)?;
    row(out, "ground", name(&c.request.ground))?;
    row(out, "authority (keyed name)", c.request.authority)?;
    row(out, "received", time(c.request.received))?;
    row(
        out,
        "due",
        c.request.deadline.map_or("no deadline".into(), time),
    )?;
    row(out, "done", time(c.request.done))?;
    row(
        out,
        "approved by",
        c.request.approver.as_deref().unwrap_or("nobody named"),
    )?;
    row(
        out,
        "found as near-duplicates only",
        c.request.near_duplicates,
    )?;
    row(out, "kept, since a law asks for it", c.request.kept_by_law)?;
    row(out, "root over the records' keyed names", c.records.root)?;
    writeln!(out, "</table>")?;

    table(out, "Erasing")?;
    row(out, "method", &c.method.name)?;
    row(out, "claims to be", name(&c.method.claim))?;
    for (setting, value) in &c.method.settings {
        row(out, setting, value)?;
    }
    row(out, "seed", c.method.seed)?;
    row(
        out,
        "model before",
        format!("{}, weights {}", c.change.base.id, c.change.base.weights),
    )?;
    row(
        out,
        "model after",
        format!(
            "{}, weights {}",
            c.change.result.id, c.change.result.weights
        ),
    )?;
    row(out, "norm of the change", option(c.change.norm))?;
    row(out, "data that remained", &c.versions.data)?;
    row(out, "configuration", &c.versions.configuration)?;
    row(out, "code", &c.versions.code)?;
    row(out, "seconds", c.costs.seconds)?;
    row(out, "peak memory, bytes", option(c.costs.peak_rss_bytes))?;
    row(
        out,
        "rows forward, backward",
        format!("{}, {}", c.costs.forward_rows, c.costs.backward_rows),
    )?;
    if let Some(retraining) = c.costs.retraining {
        let how = if retraining.measured {
            "measured"
        } else {
            "forecast"
        };
        row(
            out,
            "retraining, seconds",
            format!("{} ({how})", retraining.seconds),
        )?;
    }
    writeln!(out, "</table>")?;

    table(out, "What the records had reached")?;
    writeln!(
        out,
        "<tr><th>what</th><th>how</th><th>became of it</th><th>bytes</th><th>keyed name</th></tr>"
    )?;
    for item in &c.reached {
        writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td><code>{}</code></td></tr>",
            Text(name(&item.kind)),
            Text(name(&item.how)),
            Text(name(&item.fate)),
            item.bytes,
            item.name
        )?;
    }
    writeln!(out, "</table>")?;

    table(out, "Tests afterwards")?;
    let oracle = match c.verification.oracle {
        Oracle::Retrained { models } => format!("{models} models retrained without the records"),
        Oracle::Replayed => "the training itself, replayed to the same bits".into(),
        Oracle::None => "nothing: no retrained model was at hand".into(),
    };
    writeln!(
        out,
        "<tr><th colspan=\"4\">compared with {}</th></tr>",
        Text(oracle)
    )?;
    for test in &c.verification.tests {
        let (class, passed) = match test.passed {
            true => ("", "passed"),
            false => (" class=\"no\"", "failed"),
        };
        number(out, &test.number)?;
        writeln!(
            out,
            "<td{class}>{passed} (threshold {})</td></tr>",
            test.threshold
        )?;
    }
    for utility in &c.verification.utility {
        number(out, utility)?;
        writeln!(out, "<td>utility</td></tr>")?;
    }
    writeln!(out, "</table>")?;

    table(out, "Notices")?;
    for notice in &c.notices {
        row(
            out,
            &notice.to,
            notice.at.map_or("not told yet".into(), time),
        )?;
    }
    writeln!(out, "</table>")?;

    table(out, "Signature")?;
    row(out, "issued", time(c.issued))?;
    row(out, "ledger up to", c.ledger)?;
    row(out, "signed with the key", signed.signer)?;
    writeln!(out, "</table></body></html>")
}

fn section(out: &mut String, title: &str, says: &[String]) -> fmt::Result {
    if says.is_empty() {
        return Ok(());
    }
    writeln!(out, "<h2>{title}</h2><ul>")?;
    for says in says {
        writeln!(out, "<li>{}</li>", Text(says))?;
    }
    writeln!(out, "</ul>")
}

fn table(out: &mut String, title: &str) -> fmt::Result {
    writeln!(out, "<h2>{title}</h2><table>")
}

fn row(out: &mut String, name: impl Display, value: impl Display) -> fmt::Result {
    writeln!(
        out,
        "<tr><td>{}</td><td><code>{}</code></td></tr>",
        Text(name),
        Text(value)
    )
}

fn number(out: &mut String, n: &Number) -> fmt::Result {
    let interval = match (n.ci_low, n.ci_high) {
        (Some(low), Some(high)) => format!("{} [{low}, {high}], n = {}", n.value, n.n),
        _ => format!("{}, n = {}", n.value, n.n),
    };
    write!(
        out,
        "<tr><td>{}</td><td>{}</td><td>{}</td>",
        Text(&n.name),
        Text(interval),
        Text(&n.protocol)
    )
}

fn option(value: Option<impl Display>) -> String {
    value.map_or("not measured".into(), |value| value.to_string())
}

/// The word that a plain enum is written as.
fn name(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word.replace('-', " "),
        _ => String::new(),
    }
}

/// A time as `YYYY-MM-DD HH:MM UTC` (Hinnant's `civil_from_days`).
fn time(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second % 3600 / 60);
    format!("{year:04}-{month:02}-{of_month:02} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_system_tool() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_827_696, "2000-02-29 12:34 UTC"),
            (1_801_439_999, "2027-01-31 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(time(seconds), text);
        }
    }
}
