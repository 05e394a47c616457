//! What can go wrong, and what to do about it.

use std::path::PathBuf;

use ebb_space::ExampleId;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong in a replay memory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The memory's own settings make no sense.
    #[error("the memory cannot be built: {0}")]
    Config(String),
    /// The allocator would not grant the columns.
    #[error(
        "a memory of {capacity} records of {record_bytes} bytes does not fit in this machine's \
         memory; lower `capacity`, or store inputs as u8 codes"
    )]
    TooLarge {
        /// Records asked for.
        capacity: usize,
        /// Bytes of each of them.
        record_bytes: usize,
    },
    /// A slice has not the length that the records need.
    #[error("{what}: got {got} values where {expected} are needed")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Values needed.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// Values are given, or asked for, in the other payload.
    #[error("the memory keeps {kept} inputs, but {what}")]
    Payload {
        /// How inputs are kept.
        kept: &'static str,
        /// What does not fit.
        what: &'static str,
    },
    /// A sidecar is needed that is not there.
    #[error("{what} are not available: {why}")]
    Sidecar {
        /// `logits` or `features`.
        what: &'static str,
        /// Who lacks them.
        why: &'static str,
    },
    /// A plan was made before the memory last changed.
    #[error("the plan was made for an earlier content of the memory; plan again, then commit")]
    StalePlan,
    /// A ring has no room for one more experience.
    #[error(
        "the ring is full: {kept} records of earlier experiences and {wanted} of experience \
         {experience} exceed the capacity {capacity}; set `capacity` to `per_task` times the number \
         of experiences"
    )]
    RingFull {
        /// The experience that finds no room.
        experience: u32,
        /// Records kept of other experiences.
        kept: usize,
        /// Records that this experience would keep.
        wanted: usize,
        /// Capacity of the memory.
        capacity: usize,
    },
    /// A draw's weights are no weights.
    #[error(
        "the weight of {id} in draw `{draw}` is {value}; weights are finite and at least 0, and so is their sum"
    )]
    Weight {
        /// Name of the draw.
        draw: String,
        /// The record, or the last one when it is the sum that is wrong.
        id: ExampleId,
        /// Its weight, or the sum.
        value: f64,
    },
    /// A cyclic draw begins after the step it is drawn for.
    #[error("draw `{draw}` cycles since step {since} but is drawn for the earlier step {step}")]
    CycleInFuture {
        /// Name of the draw.
        draw: String,
        /// First step of the cycle.
        since: u64,
        /// Step drawn for.
        step: u64,
    },
    /// Reading or writing failed.
    #[error("could not {action} {path}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The file is not a memory at all.
    #[error("{0} is not a replay memory; point to the `memory` directory of a run")]
    NotAMemory(PathBuf),
    /// There is no record in a slot.
    #[error(
        "slot {0} holds no record; slots hold until the record is deleted or the store compacted"
    )]
    Vacant(u32),
    /// The folder is not a store at all.
    #[error("{0} holds no replay store; point to a folder that `Store::create` made")]
    NotAStore(PathBuf),
    /// The folder has something in it.
    #[error("{0} is not empty; open the store that is there, or create one in a folder of its own")]
    NotEmpty(PathBuf),
    /// Another process has the store open.
    #[error("{0} is open in another process; a store has one user at a time: close it there first")]
    Locked(PathBuf),
    /// A change could not be finished in place, though it is safe in the journal.
    #[error(
        "an earlier change of {0} could not be finished; see to what stopped it (a full disk?) and \
         open the store again: nothing that was acknowledged is lost"
    )]
    Unfinished(PathBuf),
    /// The file is of another format version.
    #[error(
        "{path} has format version {found}, this program reads {known}; use the program that wrote it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version understood here.
        known: u32,
    },
    /// The file ends too early.
    #[error(
        "{path} is cut short: {got} of {expected} bytes; restore it or resume from an older state"
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes it should have.
        expected: u64,
        /// Bytes it has.
        got: u64,
    },
    /// The file's bytes are not those that were written.
    #[error("{path} is damaged ({what}); restore it or resume from an older state")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What does not agree.
        what: String,
    },
    /// The memory was filled under another key.
    #[error("{0} was filled under another seed; load it with the seed of the run that wrote it")]
    OtherKey(PathBuf),
}
