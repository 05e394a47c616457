//! What a model still knows of records: statistics over scores and outputs, without a model.
//!
//! A score is one number an example; by convention **greater means rather a member** (a record that
//! was learnt), so that an area under the curve above ½ is a leak. Scores of texts are made by
//! `ebb_text::metrics`.
//!
//! - Telling members from others: [`Scores::auc`], [`Scores::tpr_at`].
//! - Scores that look at shadow models: [`lira`], [`rmia`].
//! - Beside a model that was trained without the records: [`forget_quality`], [`priv_leak`],
//!   [`activation_distance`].
//! - Of outputs alone: [`entropy_attack`], [`zrf`].
//! - Put together with what the model can do: [`harmonic_mean`], [`h_mean`], [`nomus`].
//!
//! No one of them proves that a record is gone: a destroyed model passes most. Each says in its file
//! when not to use it.

mod bootstrap;
mod entropy;
mod ks;
mod lira;
mod logistic;
mod nomus;
mod outputs;
mod priv_leak;
mod rmia;
mod roc;
mod utility;

pub use bootstrap::Bootstrap;
pub use entropy::{entropies, entropy_attack};
pub use ks::{ForgetQuality, forget_quality};
pub use lira::{Shadows, Spread, lira, log_odds};
pub use nomus::{Attack, loss_attack, nomus};
pub use outputs::{activation_distance, zrf};
pub use priv_leak::priv_leak;
pub use rmia::{Signal, rmia};
pub use roc::Scores;
pub use utility::{h_mean, harmonic_mean};
