//! What a linear world found, in the form of every other verdict.

use crate::clause::Judged;
use crate::verdict::{ControlReport, Verdict};
use crate::worlds::{Check, Finding};

/// Puts a finding into a verdict.
pub(crate) fn record(finding: Finding, verdict: &mut Verdict) {
    verdict.measured = finding.measured;
    verdict.expected = finding.expectations.into_iter().map(judged).collect();
    verdict.controls = finding
        .controls
        .into_iter()
        .map(|check| ControlReport {
            name: check.name.clone(),
            about: "the same test where the claimed cause is missing".to_owned(),
            holds: check.holds,
            undecided: false,
            clauses: vec![judged(check)],
        })
        .collect();
}

fn judged(check: Check) -> Judged {
    Judged {
        clause: check.rule,
        name: check.name,
        value: Some(check.value).filter(|v| v.is_finite()),
        bound: None,
        p: None,
        holds: check.holds,
    }
}
