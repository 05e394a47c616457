//! The certificate of a request.

use super::verify::Verified;
use super::{Case, Office};
use crate::equivalence::Equivalence;
use crate::error::{Error, Result};
use ebb_learn::Recipe;
use ebb_record::ledger::{Claim, Entry, Ledger, Word};
use ebb_record::{Disk, RunView};
use ebb_revise::{
    Applied, CERTIFICATE_VERSION, Certificate, Change, Costs, Fate, Guarantee, NOT_PROVEN, Oracle,
    PublicKey, Retraining, Signed, Signer, Subject, Test, Verification, Versions, page, verify,
};
use ebb_space::{Direction, Number, Unit};
use std::path::PathBuf;

/// Models trained without the records from which on a result may be called equivalent.
const ENOUGH: u64 = 16;

/// A certificate that was just signed.
pub struct Certifying {
    /// It.
    pub signed: Signed,
    /// Whose key signed it: to be published elsewhere.
    pub signer: PublicKey,
    /// Where it lies as JSON.
    pub json: PathBuf,
    /// Where it lies as a page.
    pub page: PathBuf,
}

/// The result beside models that never saw the records.
fn differences(verified: &Verified) -> Vec<Test> {
    let test = |e: &Equivalence| Test {
        number: Number {
            name: format!("{}_difference", e.name),
            value: e.value - e.oracle,
            ci_low: Some(e.low),
            ci_high: Some(e.high),
            n: e.models,
            unit: Unit::Seed,
            direction: Direction::Lower,
            protocol: "the erased model - the mean of models retrained without the records; 90 % \
                       interval, which has to lie within the threshold on both sides"
                .into(),
        },
        threshold: e.margin,
        passed: e.holds,
    };
    verified.equivalences.iter().map(test).collect()
}

/// Whether learning from scratch without the records came to the same weights.
fn same_bits(same: bool) -> Test {
    Test {
        number: Number {
            name: "weights_that_differ".into(),
            value: f64::from(u8::from(!same)),
            ci_low: None,
            ci_high: None,
            n: 1,
            unit: Unit::Run,
            direction: Direction::Lower,
            protocol:
                "whether learning from scratch without the records came to other weights, by \
                       their hash"
                    .into(),
        },
        threshold: 0.0,
        passed: same,
    }
}

impl Office {
    /// Signs the certificate of a request that was carried out, with the key in `signing.key` among the
    /// office's keys (made on first use).
    ///
    /// # Errors
    /// When nothing was done or measured yet, or the certificate would claim too much.
    pub fn certify(&self, case: &Case) -> Result<Certifying> {
        let missing = |what: &str| Error::Request {
            reason: format!("{what} first"),
        };
        let work = self
            .work(case)?
            .ok_or_else(|| missing("`ebb forget run`"))?;
        let verified: Verified = (self.read(&case.id, "verified.json")?)
            .ok_or_else(|| missing("`ebb forget verify`"))?;
        let key = self.keys.join("signing.key");
        let signer = match key.is_file() {
            true => Signer::load(&key)?,
            false => Signer::create(&key)?,
        };
        let recipe = Recipe::parse(&RunView::load(&work.out)?.recipe, &[])?;
        let enough = matches!(verified.oracle, Oracle::Retrained { models } if models >= ENOUGH);
        let guarantee = match work.claim {
            Claim::Exact => Guarantee::Exact,
            Claim::Approximate if enough && verified.passed() => Guarantee::Equivalent,
            _ => Guarantee::EmpiricalOnly,
        };
        let mut residual_risk = Vec::new();
        if work.reached.iter().any(|r| r.fate == Fate::Kept) {
            residual_risk.push(
                "The old run is still there, with all that the records reached: `ebb forget purge` \
                 removes it."
                    .to_owned(),
            );
        }
        if work.claim != Claim::Exact {
            residual_risk.push(
                "The method is approximate: traces of the records may remain in the weights, and may be \
                 found by attacks that were not tried."
                    .to_owned(),
            );
        }
        let mut utility = verified.numbers.clone();
        let tests = match verified.same_bits {
            // Equal to the bit: how models of other seeds scatter is told, and is no test of it.
            Some(true) => {
                utility.extend(differences(&verified).into_iter().map(|t| t.number));
                vec![same_bits(true)]
            }
            Some(false) => vec![same_bits(false)],
            None => differences(&verified),
        };
        let hex = |text: String| Word::new(&text).map_err(Error::from);
        let ledger = Ledger::open(&self.directory)?.head();
        let now = (self.clock)();
        let certificate = Certificate {
            format_version: CERTIFICATE_VERSION,
            issued: now,
            request: Subject {
                id: case.id,
                ground: case.ground,
                authority: case.authority,
                received: case.received,
                deadline: case.deadline,
                done: work.done,
                approver: case.approver.clone(),
                near_duplicates: case.near_duplicates,
                kept_by_law: case.kept_by_law,
            },
            records: case.records,
            method: Applied {
                name: work.method,
                claim: work.claim,
                settings: work.settings,
                seed: work.seed,
            },
            guarantee,
            change: Change {
                base: work.before,
                result: work.after,
                norm: work.norm,
            },
            reached: work.reached,
            versions: Versions {
                data: hex(verified.data.to_string())?,
                configuration: hex(recipe.hash())?,
                code: hex(format!("ebb-{}", env!("CARGO_PKG_VERSION")))?,
            },
            verification: Verification {
                oracle: verified.oracle,
                tests,
                utility,
            },
            costs: Costs {
                seconds: work.seconds,
                peak_rss_bytes: work.peak_rss_bytes,
                forward_rows: work.forward_rows,
                backward_rows: work.backward_rows,
                retraining: work.retraining_seconds.map(|seconds| Retraining {
                    seconds,
                    measured: false,
                }),
            },
            notices: Vec::new(),
            residual_risk,
            not_proven: NOT_PROVEN.map(str::to_owned).to_vec(),
            ledger,
        };
        let signed = signer.sign(certificate)?;
        let certified = Entry::Certified {
            request: case.id,
            certificate: signed.digest()?,
        };
        let folder = self.folder(&case.id);
        let (json, html) = (
            folder.join("certificate.json"),
            folder.join("certificate.html"),
        );
        let text = signed.to_json()?;
        let verdict = verify(&text, &signer.public(), None)?;
        let disk = Disk::default();
        disk.replace(&json, text.as_bytes())?;
        disk.replace(&html, page(&signed, Some(&verdict)).as_bytes())?;
        self.tell(&[certified])?;
        Ok(Certifying {
            signer: signer.public(),
            signed,
            json,
            page: html,
        })
    }
}
