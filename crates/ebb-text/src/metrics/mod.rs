//! How good a text is, and how well a model knows one.
//!
//! - Texts beside each other: [`exact_match`], [`normalised_match`], [`shows`], [`rouge_l`],
//!   [`Continuation`].
//! - A model on a text: [`Likelihood`]; or, token by token, a list of [`Token`]s from [`tokens`]. It
//!   holds the tokens that count and no others, so no measure below can be told of a prompt or padding.
//! - Learnt by heart: [`exact_memorisation`], [`extraction_strength`], [`Continuation`].
//! - Learnt at all, in the form that `ebb_space::audit` asks for (greater: rather a member): [`min_k`],
//!   [`min_k_plus_plus`], [`zlib_ratio`], [`against_reference`].
//! - Believed: [`probability`], [`probability_among`], [`truth_ratio`].
//! - Beside another model: [`drift`].

mod continuation;
mod drift;
mod likelihood;
mod matching;
mod membership;
mod memorised;
mod rouge;
mod token;
mod truth;

pub use continuation::{Continuation, LOOSE};
pub use drift::drift;
pub use likelihood::Likelihood;
pub use matching::{exact_match, normalise, normalised_match, shows};
pub use membership::{against_reference, min_k, min_k_plus_plus, zlib_ratio};
pub use memorised::{exact_memorisation, extraction_strength};
pub use rouge::{Rouge, rouge_l};
pub use token::{Token, loss, mean_loss, tokens};
pub use truth::{TruthMean, as_likely, probability, probability_among, truth_ratio, truthful};
