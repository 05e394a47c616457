//! The ledger: what was asked to be forgotten, and what was done about it.
//!
//! An append-only list of entries, each bound to the one before by a BLAKE3. It says that records
//! were named, never which: records appear as a Merkle root over names that only the holder of a
//! key can compute ([`NameKey`]), and no entry has room for free text.
//!
//! ```text
//! entries.jsonl   one JSON object a line: n, at, entry, hash; the first is `opened`
//! head            how far it was acknowledged: number of entries, bytes, hash of the last
//! ```
//! `hash` is BLAKE3 under a context of its own over the hash before and every byte of the line
//! before `,"hash"`; the first follows on 32 zero bytes.
//!
//! **An entry counts when [`Ledger::commit`] has returned**: the entries are synced first, then
//! `head` is replaced by an atomic rename. So what lies before `head` can only have been changed
//! by somebody or by a broken disk, and is an error; what lies after it is what a crash left: its
//! whole entries are kept, a torn one is cut at the next opening.
//!
//! **What a head proves.** Whoever can write the directory can write all of it anew. A [`Head`]
//! kept elsewhere (every certificate carries one) fixes every entry up to it: [`verify`] with it
//! finds any changed bit, an entry taken out, put in or moved, a cut tail and a rewrite. Without
//! one it finds what does not fit together, but neither a tail that was cut at an entry with
//! `head` set back to match, nor a rewrite of the whole.
//!
//! Sources: chained hashes as in Schneier & Kelsey, *Secure audit logs*, TISSEC 1999; Merkle trees
//! in the form of RFC 6962.

mod check;
mod digest;
mod entry;
mod head;
mod line;
mod merkle;
mod names;
mod write;

pub use check::{Checked, Problem, for_each, verify};
pub use digest::Digest;
pub use entry::{Claim, Entry, Ground, Records, Refusal, RequestId, Word};
pub use head::Head;
pub use line::{LEDGER_VERSION, MAX_LINE};
pub use merkle::{Inclusion, Merkle};
pub use names::NameKey;
pub use write::Ledger;

const ENTRIES: &str = "entries.jsonl";
const HEAD: &str = "head";

/// Whether a ledger lies in this directory.
pub(crate) fn is_ledger(directory: &std::path::Path) -> bool {
    directory.join(ENTRIES).is_file() && directory.join(HEAD).is_file()
}
