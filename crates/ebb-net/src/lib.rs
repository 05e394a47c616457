//! Networks whose every activation has a name and can be read, replaced or differentiated.
//!
//! A [`Network`] is an architecture: it names its parameters and computes. A [`Model`] is a
//! network with its parameters. Nothing here trains.

pub mod activation;
pub mod adapter;
pub mod cnn;
pub mod decoder;
mod heads;
mod images;
pub mod init;
pub mod key_value;
pub mod mlp;
pub mod model;
pub mod network;
pub mod norm;
pub mod params;
pub mod resnet;
pub mod spec;
pub mod taps;
pub mod task_mlp;
pub mod units;
pub mod vae;
mod word_or_table;

pub use activation::ActivationKind;
pub use adapter::{AdapterSpec, Between, Gate, LinearMap};
pub use burn::tensor::Device;
pub use decoder::{Decoder, DecoderConfig, Packing, Place, Role};
pub use ebb_kernels::Stored;
pub use heads::{HeadKind, HeadPlan};
pub use init::Init;
pub use model::{Leaves, Model};
pub use network::{LinearSite, Mode, Network, Output, Pass, Seed, Seeded};
pub use params::{Factors, Params};
pub use spec::NetworkSpec;
pub use taps::Taps;
pub use task_mlp::{TaskMlp, TaskWeights};
pub use units::{Unit, Units};
pub use vae::{Vae, VaeLoss, VaeSpec};

/// What can go wrong when a network is built or given weights.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A description that makes no network.
    #[error("this network cannot be built: {reason}")]
    Spec {
        /// What is wrong and what would be right.
        reason: String,
    },
    /// Values that a network cannot take.
    #[error("these inputs do not fit the network: {reason}")]
    Input {
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A network's answer that is of no use.
    #[error("the network's answer is not a number: {reason}")]
    NotANumber {
        /// Where, and what the cause may be.
        reason: String,
    },
    /// Weights of another network.
    #[error("these weights belong to another network: {reason}")]
    Weights {
        /// The first difference found.
        reason: String,
    },
    /// An error of the weight space.
    #[error(transparent)]
    Space(#[from] ebb_space::Error),
}

/// The result of this crate's operations.
pub type Result<T> = std::result::Result<T, Error>;
