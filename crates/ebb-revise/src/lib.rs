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
//!
//! ```
//! use ebb_record::ledger::{Ledger, Merkle, NameKey, verify};
//! use ebb_revise::{Content, Decision, Record, Request, decide, expand};
//! use ebb_space::ExampleId;
//!
//! let place = tempfile::tempdir()?;
//! // The key that names records lies outside of the run and its ledger.
//! let key = NameKey::create(&place.path().join("names.key"))?;
//! let mut ledger = Ledger::create(&place.path().join("run/ledger"), &key, 1_790_000_000)?;
//!
//! let text = r#"
//!     format_version = 1
//!     ground = "person"
//!     authority = "ticket 4711"
//!     [[forget]]
//!     text = "Jane Doe was born in Springfield in 1980."
//!     near = 0.8
//! "#;
//! let request = Request::from_toml(text)?;
//! let (id, submitted) = request.submitted(&key, text, 1_790_000_001);
//! ledger.append(1_790_000_001, &submitted)?;
//!
//! let texts = ["An owl sat in the oak.", "JANE DOE was born in Springfield in 1980"];
//! let records = texts.map(|text| Record {
//!     id: ExampleId::of(text.as_bytes(), 0),
//!     label: 0,
//!     content: Content::Text(text),
//! });
//! let matches = expand(&request, records)?;
//! let Decision::Accepted { records, .. } = decide(&request, &matches, 1_790_000_002, &[].into())
//! else {
//!     unreachable!("one of them is a near-duplicate");
//! };
//! assert_eq!(records, [ExampleId::of(texts[1].as_bytes(), 0)]);
//!
//! // What stands for them: a root that only the key's holder can open.
//! let tree = Merkle::new(records.iter().map(|id| key.record(id)));
//! let name = key.record(&records[0]);
//! assert!(tree.prove(&name).is_some_and(|proof| proof.proves(&name, &tree.records())));
//!
//! // To be kept elsewhere: whoever has it finds any change up to here.
//! let head = ledger.commit()?;
//! verify(&place.path().join("run/ledger"), Some(&head))?;
//! # let _ = id;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
