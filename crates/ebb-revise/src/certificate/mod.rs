//! What was done about a request, measured, and not proven: signed.
//!
//! A certificate is JSON (`certificate.schema.json`). What is signed is everything but the
//! signature, in the canonical form of RFC 8785, so that reformatting it changes nothing and any
//! other change breaks it. It names no record: a Merkle root stands for them, and whoever holds
//! the key of names and a record can prove that the record was among them.

mod canonical;
mod page;
mod sign;
mod verify;

use std::collections::BTreeMap;

use ebb_record::ledger::{Claim, Digest, Ground, Head, Records, RequestId, Word};
use ebb_space::Number;
use serde::{Deserialize, Serialize};

use crate::reach::{How, Kind};

pub use page::page;
pub use sign::{PublicKey, Signed, Signer};
pub use verify::{Check, Verdict, verify};

/// The JSON Schema of certificates, as published.
pub const SCHEMA: &str = include_str!("../../../../docs/src/certificate.schema.json");

/// The newest version of certificates that this program writes and reads.
pub const CERTIFICATE_VERSION: u32 = 1;

/// What no certificate proves; every one says so.
pub const NOT_PROVEN: [&str; 5] = [
    "That the model is free of the records' influence: the signature proves who stated this and \
     that it was not changed since.",
    "That the requested records were all of the person's records, or that no paraphrase of them \
     remains: only what the request matched was erased.",
    "That copies outside of the run (backups, exports, models derived elsewhere) were erased, \
     unless they are listed.",
    "That attacks other than the tests listed would find nothing.",
    "That the disk no longer holds removed bytes in blocks that were not overwritten.",
];

/// What was done about a request. Times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// Version of the format.
    pub format_version: u32,
    /// When it was made.
    pub issued: u64,
    /// What was asked.
    pub request: Subject,
    /// Which records: how many, and the Merkle root over their names under the key of names.
    pub records: Records,
    /// By what they were erased, and what that claims.
    pub method: Applied,
    /// What is guaranteed.
    pub guarantee: Guarantee,
    /// The model before and after.
    pub change: Change,
    /// Everything that the records reached, and what became of it.
    pub reached: Vec<Reached>,
    /// What the result follows from.
    pub versions: Versions,
    /// What was measured afterwards.
    pub verification: Verification,
    /// What it cost.
    pub costs: Costs,
    /// Whom the model had been given to, and whether they were told.
    pub notices: Vec<Notice>,
    /// What may remain, in words.
    pub residual_risk: Vec<String>,
    /// What this does not prove, in words; [`NOT_PROVEN`] at least.
    pub not_proven: Vec<String>,
    /// The ledger up to the entry before the one that tells of this certificate.
    pub ledger: Head,
}

/// The request that a certificate is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Its name in the ledger.
    pub id: RequestId,
    /// Why.
    pub ground: Ground,
    /// On whose authority, under the key of names.
    pub authority: Digest,
    /// When it came in.
    pub received: u64,
    /// By when it had to be done.
    pub deadline: Option<u64>,
    /// When the erasing was done.
    pub done: u64,
    /// Who approved it; a name or role that may be published.
    pub approver: Option<String>,
    /// How many of the records were found only because they are like what was named.
    pub near_duplicates: u64,
    /// How many records were meant and are kept, since a law asks for them.
    pub kept_by_law: u64,
}

/// How records were erased.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Applied {
    /// The method.
    pub name: Word,
    /// What it claims.
    pub claim: Claim,
    /// Its settings.
    pub settings: BTreeMap<Word, f64>,
    /// The seed.
    pub seed: u64,
}

/// What a certificate guarantees, by how it is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "class", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Guarantee {
    /// By construction the result was never trained on the records.
    Exact,
    /// A theorem bounds what can be told apart.
    Certified {
        /// ε of (ε, δ)-unlearning.
        epsilon: f64,
        /// δ of it.
        delta: f64,
    },
    /// Tests against models retrained without the records did not tell them apart within the
    /// margins stated.
    Equivalent,
    /// Tests were passed; there was nothing to compare with, or the method only suppresses.
    EmpiricalOnly,
}

/// The model before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Before.
    pub base: StateRef,
    /// After.
    pub result: StateRef,
    /// The Euclidean norm of the change of the weights.
    pub norm: Option<f64>,
}

/// A state of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateRef {
    /// Its id.
    pub id: Word,
    /// The hash of its weights.
    pub weights: Digest,
}

/// Something that the records reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reached {
    /// What it is.
    pub kind: Kind,
    /// How the records were in it.
    pub how: How,
    /// Its name under the key of names: a path may follow from the records.
    pub name: Digest,
    /// Its length.
    pub bytes: u64,
    /// What became of it.
    pub fate: Fate,
}

/// What became of something that the records reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// Its bytes were removed.
    Purged,
    /// It was computed again without the records.
    Recomputed,
    /// The records were taken out of it.
    Edited,
    /// It is still there; `residual_risk` must say why.
    Kept,
}

/// What a result follows from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// Hash of the data that remained. One of the data before would let anyone who holds the
    /// rest and a record tell whether it was there.
    pub data: Word,
    /// Hash of the configuration.
    pub configuration: Word,
    /// Hash or version of the code.
    pub code: Word,
}

/// What was measured on the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// What the tests compared with.
    pub oracle: Oracle,
    /// The tests.
    pub tests: Vec<Test>,
    /// What the model can still do, without thresholds.
    pub utility: Vec<Number>,
}

/// What tests compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Oracle {
    /// Models retrained without the records.
    Retrained {
        /// How many.
        models: u64,
    },
    /// The shards' own training, replayed to the same bits.
    Replayed,
    /// Nothing: retraining was out of reach.
    None,
}

/// A test with the threshold that was set before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// What was measured, with its interval, sample and protocol.
    pub number: Number,
    /// The value that its interval had to keep to.
    pub threshold: f64,
    /// Whether it did.
    pub passed: bool,
}

/// What erasing cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// Seconds of work.
    pub seconds: f64,
    /// Peak memory of the process.
    pub peak_rss_bytes: Option<u64>,
    /// Rows forward through a network.
    pub forward_rows: u64,
    /// Rows backward.
    pub backward_rows: u64,
    /// What retraining without the records would have cost, in seconds, and whether that was
    /// measured or forecast.
    pub retraining: Option<Retraining>,
}

/// What retraining costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retraining {
    /// Seconds.
    pub seconds: f64,
    /// Whether it was done, and not forecast.
    pub measured: bool,
}

/// Somebody whom the model had been given to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notice {
    /// Who; a name that may be published.
    pub to: String,
    /// When they were told; `None`: not yet.
    pub at: Option<u64>,
}

impl Certificate {
    /// Why it would claim too much, if it would.
    pub(crate) fn overclaims(&self) -> Option<String> {
        let Verification { oracle, tests, .. } = &self.verification;
        let compared = !matches!(oracle, Oracle::None | Oracle::Retrained { models: 0 });
        let failed = tests.iter().find(|test| !test.passed);
        let why = match (self.guarantee, self.method.claim) {
            (Guarantee::Exact, Claim::Exact) => None,
            (Guarantee::Exact, _) => Some("only a method that claims to be exact is `exact`"),
            (Guarantee::EmpiricalOnly, _) => None,
            (_, Claim::Suppress) => Some("a method that suppresses is at most `empirical-only`"),
            (Guarantee::Certified { epsilon, delta }, _) => {
                let usable = epsilon >= 0.0 && (0.0..1.0).contains(&delta);
                (!usable).then_some("(ε, δ) must have ε of at least 0 and δ in [0, 1)")
            }
            (Guarantee::Equivalent, _) if !compared => {
                Some("without an oracle it is at most `empirical-only`")
            }
            (Guarantee::Equivalent, _) if tests.is_empty() => {
                Some("`equivalent` needs tests against the oracle")
            }
            (Guarantee::Equivalent, _) => None,
        };
        if let Some(why) = why {
            return Some(why.into());
        }
        if let (Some(test), true) = (failed, self.guarantee != Guarantee::EmpiricalOnly) {
            return Some(format!(
                "the test `{}` failed; what remains is at most `empirical-only`",
                test.number.name
            ));
        }
        let kept = self.reached.iter().any(|item| item.fate == Fate::Kept);
        if kept && self.residual_risk.is_empty() {
            return Some(
                "something that the records reached is kept: say in `residual_risk` why".into(),
            );
        }
        if self
            .reached
            .iter()
            .any(|item| item.fate == Fate::Kept && item.how == How::Holds)
            && self.guarantee != Guarantee::EmpiricalOnly
        {
            return Some("something that still holds the records is kept".into());
        }
        if self.records.count == 0 {
            return Some("it is about no records; a refusal is an entry of the ledger".into());
        }
        let missing = NOT_PROVEN
            .iter()
            .find(|says| !self.not_proven.iter().any(|s| s == *says));
        missing.map(|says| format!("it does not say what it does not prove: \"{says}\""))
    }
}
