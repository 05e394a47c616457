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
    let c = &signed.certificate;
    let mut checks = vec![
        Check::new(
            signed.is_signed()?,
            format!(
                "the signature is that of the key {}, and nothing was changed since",
                signed.signer
            ),
            format!(
                "the signature is not that of the key {} over this content: it was changed, or \
                 never signed",
                signed.signer
            ),
        ),
        Check::new(
            signed.signer == *trusted,
            "that key is the one you trust".into(),
            format!("you trust {trusted}, and it was signed with another key"),
        ),
    ];
    let overclaims = c.overclaims();
    checks.push(Check::new(
        overclaims.is_none(),
        "it claims no more than its method and tests allow".into(),
        format!("it claims too much: {}", overclaims.unwrap_or_default()),
    ));
    checks.push(Check::new(
        c.request.received <= c.request.done && c.request.done <= c.issued,
        "the request came in before it was done, and it was done before this was issued".into(),
        "its times are out of order: received, done, issued".into(),
    ));
    if let Some(deadline) = c.request.deadline {
        let late = c.request.done.saturating_sub(deadline);
        checks.push(Check::new(
            late == 0,
            "it was done before the deadline".into(),
            format!("it was done {late} s after the deadline"),
        ));
    }
    checks.push(against_head(&c.ledger, head));
    checks.push(Check::open(format!(
        "the erasing itself: {}",
        match (c.guarantee, c.verification.oracle) {
            (Guarantee::Exact, _) =>
                "`exact` rests on how the result was made; whoever has the data that remained can \
                 make it again and compare the hash of the weights"
                    .to_owned(),
            (Guarantee::Certified { epsilon, delta }, _) =>
                format!("({epsilon}, {delta}) rests on a theorem and its conditions"),
            (Guarantee::Equivalent, Oracle::Retrained { models }) =>
                format!("tests against {models} retrained models, within the margins stated"),
            (Guarantee::Equivalent, _) => "tests against a replay".to_owned(),
            (Guarantee::EmpiricalOnly, Oracle::None) =>
                "empirical only, no retrained model was at hand".to_owned(),
            (Guarantee::EmpiricalOnly, _) => "empirical only".to_owned(),
        }
    )));
    Ok(Verdict { signed, checks })
}

/// Holds the reader's head of the ledger against the certificate's.
fn against_head(own: &Head, head: Option<&Head>) -> Check {
    match head {
        Some(head) if head.count == own.count => Check::new(
            head == own,
            "your head of the ledger is the certificate's".into(),
            "your head of the ledger differs from the certificate's at the same entry: one of the \
             ledgers was rewritten"
                .into(),
        ),
        Some(head) => Check::open(format!(
            "your head of the ledger is at entry {}, the certificate's at {}: verify the ledger \
             with both heads to know that they belong together",
            head.count, own.count
        )),
        None => Check::open(format!(
            "the ledger: with it at hand, verify it with the head {own}, which rules out that \
             anything up to this certificate was changed later"
        )),
    }
}

impl Check {
    fn new(holds: bool, yes: String, no: String) -> Check {
        Check {
            holds: Some(holds),
            says: if holds { yes } else { no },
        }
    }

    fn open(says: String) -> Check {
        Check { holds: None, says }
    }
}
