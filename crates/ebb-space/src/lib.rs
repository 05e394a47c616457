//! The two spaces every method of Ebbinghaus is written in, and the tools that need no model.
//!
//! - **Output space**: an [`Objective`] is a sum of [`Term`]s over the [`Rows`] of a pass, with
//!   exact gradients; [`presets`] names the published ones.
//! - **Weight space**: [`Weights`] over a [`Layout`], [`Mask`], [`Quadratic`] penalties,
//!   [`Subspace`] projections; the kernels of the diagonal Fisher, by name ([`FisherKind`]).
//! - **Merging**: [`merge`], rules that make one task vector of several.
//! - **Statistics**: [`stats`], and the [`Number`] that carries its meaning.
//! - **Audits**: [`audit`], what is still known of records, from scores and outputs.
//! - **Keyed randomness**: [`Key`], and the identity of an example, [`ExampleId`].
//!
//! Pure functions of their arguments: no files, no clocks, no threads, no global state.

pub mod audit;
mod bands;
mod batch;
mod bernoulli;
mod bregman;
mod class_means;
mod classes;
mod contrast;
mod divergence;
mod eigen;
mod error;
mod fisher;
mod id;
mod key;
mod kmeans;
mod mask;
pub mod merge;
mod number;
mod objective;
pub mod presets;
mod quadratic;
mod ranking;
mod row;
mod rows;
mod sinkhorn;
mod softmax;
mod special;
pub mod stats;
mod subspace;
mod term;
mod weighting;
mod weights;

pub use bands::{Bands, Thresholds, Violations};
pub use batch::BatchLoss;
pub use bregman::{Bregman, Normalisation};
pub use divergence::{Generator, LOG_RATIO_LIMIT};
pub use eigen::symmetric_eigen;
pub use error::{Error, Result};
pub use fisher::{Choice, FisherKind, FisherScratch, accumulate_linear_diagonal, seed_gradient};
pub use id::ExampleId;
pub use key::{Key, Stream};
pub use kmeans::{k_means, nearest};
pub use mask::{Mask, glob};
pub use number::{Comparison, Direction, Number, Unit};
pub use objective::{CarrierGrads, Objective, ObjectiveValue, Reduction};
pub use quadratic::{AnchoredSum, Kron, LowRank, Quadratic};
pub use ranking::Choices;
pub use rows::{Inputs, References, RowId, Rows, View};
pub use subspace::{Extent, Subspace};
pub use term::{
    Carrier, Classes, Combinator, Divergence, Estimator, Reference, Shift, Support, Target, Term,
};
pub use weighting::Weighting;
pub use weights::{Entry, Layer, Layout, Weights};
