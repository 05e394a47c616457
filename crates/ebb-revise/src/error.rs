use std::path::PathBuf;

/// What can go wrong in this crate. Every message says what happened and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A request that cannot be read.
    #[error("this is not a request: {0}")]
    NotARequest(String),
    /// A request that was read and asks for what cannot be done.
    #[error("`forget[{index}]` cannot be looked for: {why}")]
    Select {
        /// Which of its selections, from 0.
        index: usize,
        /// What does not fit, and what to do.
        why: String,
    },
    /// A record that cannot be compared with a request.
    #[error("record {record} of the dataset cannot be compared: {why}")]
    Record {
        /// Its place, from 0.
        record: u64,
        /// What does not fit.
        why: String,
    },
    /// A certificate that may not be signed.
    #[error("this certificate is not signed, since it would claim too much: {0}")]
    Overclaim(String),
    /// A text that is no certificate.
    #[error("this is not a certificate: {0}")]
    NotACertificate(String),
    /// A text that is no public key.
    #[error("`{0}` is no ed25519 public key: give the 64 hex digits that its holder published")]
    PublicKey(String),
    /// The operating system refused something.
    #[error("cannot {action} `{path}`: {source}", path = path.display())]
    Io {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason given by the operating system.
        source: std::io::Error,
    },
    /// An error of the run's files.
    #[error(transparent)]
    Run(#[from] ebb_record::Error),
    /// An error of the ground floor.
    #[error(transparent)]
    Space(#[from] ebb_space::Error),
}

/// The result of a fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
