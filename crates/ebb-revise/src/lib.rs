//! Erasing on request, and the proof of it.
//!
//! - [`Request`]: what is to be forgotten, why, by when, on whose authority; [`expand`] finds the
//!   records, near-duplicates included, and says why each matched; [`decide`] accepts or refuses.
//! - [`Traces`] and [`reach`]: which states, memories, statistics, files hold the records or were
//!   influenced by them.
//! - [`Certificate`]: what was done, measured and not proven, signed with ed25519; [`verify`]
//!   checks one offline; [`page`] shows it to people.
//!
//! What happened is told to the ledger (`ebb_record::ledger`), which never holds content.

mod certificate;
mod error;
mod expand;
mod near;
mod reach;
mod request;
mod scan;

pub use certificate::{
    Applied, CERTIFICATE_VERSION, Certificate, Change, Check, Costs, Fate, Guarantee, NOT_PROVEN,
    Notice, Oracle, PublicKey, Reached, Retraining, SCHEMA, Signed, Signer, StateRef, Subject,
    Test, Verdict, Verification, Versions, page, verify,
};
pub use error::{Error, Result};
pub use expand::{Content, Decision, Match, Matches, Record, Why, decide, expand};
pub use near::{MinHash, Overlap, jaccard};
pub use reach::{Holder, How, Kind, Reach, Trace, Traces, reach};
pub use request::{Concept, Ground, LARGEST_CONTENT, REQUEST_VERSION, Request, Select};
