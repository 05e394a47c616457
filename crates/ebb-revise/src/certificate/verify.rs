//! Checking a certificate, with nothing but it, a trusted key and perhaps a head.

use std::fmt;

use ebb_record::ledger::Head;

use super::{CERTIFICATE_VERSION, Guarantee, Oracle, PublicKey, Signed};
use crate::error::{Error, Result};

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// `None`: it could not be checked here.
    pub holds: Option<bool>,
    /// What was found, in words.
    pub says: String,
}

/// What checking a certificate found.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The certificate, whatever was found.
    pub signed: Signed,
    /// What was checked.
    pub checks: Vec<Check>,
}

impl Verdict {
    /// Whether nothing that was checked failed.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.holds != Some(false))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let mark = match check.holds {
                Some(true) => "holds:      ",
                Some(false) => "FAILS:      ",
                None => "not checked:",
            };
            writeln!(f, "{mark} {}", check.says)?;
        }
        writeln!(f, "What it does not prove:")?;
        for says in &self.signed.certificate.not_proven {
            writeln!(f, "- {says}")?;
        }
        Ok(())
    }
}

/// Checks a certificate offline. `trusted` is the signer's public key, had from them and not from
/// the certificate; `head` a head of the ledger that the reader keeps.
///
/// # Errors
/// [`Error::NotACertificate`] if the text is no certificate of a known version. A certificate
/// that does not hold is no error: see [`Verdict::holds`].
pub fn verify(text: &str, trusted: &PublicKey, head: Option<&Head>) -> Result<Verdict> {
    let version: Option<u64> = serde_json::from_str::<serde_json::Value>(text)
        .map_err(|e| Error::NotACertificate(e.to_string()))?
        .pointer("/certificate/format_version")
        .and_then(serde_json::Value::as_u64);
    if let Some(found) = version.filter(|found| *found != u64::from(CERTIFICATE_VERSION)) {
        return Err(Error::NotACertificate(format!(
            "it has format version {found}, and this program reads {CERTIFICATE_VERSION}: use a \
             newer `ebb`"
        )));
    }
    let signed = Signed::from_json(text)?;
    let mut checks = Vec::new();
    let mut check = |holds: Option<bool>, says: String| checks.push(Check { holds, says });

    let is_signed = signed.is_signed()?;
    check(
        Some(is_signed),
        match is_signed {
            true => format!(
                "the signature is that of the key {}, and nothing was changed since",
                signed.signer
            ),
            false => format!(
                "the signature is not that of the key {} over this content: it was changed, or never signed",
                signed.signer
            ),
        },
    );
    let is_trusted = signed.signer == *trusted;
    check(
        Some(is_trusted),
        match is_trusted {
            true => "that key is the one you trust".into(),
            false => format!("you trust {trusted}, and it was signed with another key"),
        },
    );
    let c = &signed.certificate;
    let overclaims = c.overclaims();
    check(
        Some(overclaims.is_none()),
        overclaims.map_or(
            "it claims no more than its method and tests allow".into(),
            |why| format!("it claims too much: {why}"),
        ),
    );
    let ordered = c.request.received <= c.request.done && c.request.done <= c.issued;
    check(
        Some(ordered),
        match ordered {
            true => {
                "the request came in before it was done, and it was done before this was issued"
                    .into()
            }
            false => "its times are out of order: received, done, issued".into(),
        },
    );
    if let Some(deadline) = c.request.deadline {
        let in_time = c.request.done <= deadline;
        check(
            Some(in_time),
            match in_time {
                true => "it was done before the deadline".into(),
                false => format!(
                    "it was done {} s after the deadline",
                    c.request.done - deadline
                ),
            },
        );
    }
    match head {
        Some(head) if head.count == c.ledger.count => {
            let same = *head == c.ledger;
            check(
                Some(same),
                match same {
                    true => "your head of the ledger is the certificate's".into(),
                    false => "your head of the ledger differs from the certificate's at the same entry: one of the ledgers was rewritten".into(),
                },
            );
        }
        Some(head) => check(
            None,
            format!(
                "your head is at entry {}, the certificate's at {}: verify the ledger with both \
                 heads to know that they belong together",
                head.count, c.ledger.count
            ),
        ),
        None => check(
            None,
            format!(
                "the ledger: with it at hand, verify it with the head {}, which rules out that \
                 anything up to this certificate was changed later",
                c.ledger
            ),
        ),
    }
    check(
        None,
        match (c.guarantee, c.verification.oracle) {
            (Guarantee::Exact, _) => "the erasing itself: `exact` rests on how the result was made; whoever has the data that remained can make it again and compare the hash of the weights".into(),
            (Guarantee::Certified { epsilon, delta }, _) => format!("the erasing itself: ({epsilon}, {delta}) rests on a theorem and its conditions"),
            (Guarantee::Equivalent, Oracle::Retrained { models }) => format!("the erasing itself: tests against {models} retrained models, within the margins stated"),
            (Guarantee::Equivalent, _) => "the erasing itself: tests against a replay".into(),
            (Guarantee::EmpiricalOnly, Oracle::None) => "the erasing itself: empirical only, no retrained model was at hand".into(),
            (Guarantee::EmpiricalOnly, _) => "the erasing itself: empirical only".into(),
        },
    );
    Ok(Verdict { signed, checks })
}
