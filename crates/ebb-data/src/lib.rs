//! Examples with stable ids, datasets, transforms and streams of experiences.
//!
//! - [`Dataset`]: labelled records; each has an [`ExampleId`](ebb_space::ExampleId) that depends
//!   on its content and label and never on its position. [`load`] reads one by name,
//!   [`fetch()`] brings it to this machine, [`catalogue`] lists the names.
//! - [`Transform`]: what happens to a record on its way into the network.
//! - [`StreamSpec`] describes a stream in a recipe; [`StreamSpec::build`] makes the [`Stream`].
//! - [`worlds`]: linear worlds whose forgetting is known in closed form.
//!
//! Every draw is keyed by the seed, its purpose and the example's id. Taking a record away
//! leaves every other draw as it was.

mod catalogue;
mod dataset;
mod digits;
mod error;
mod fetch;
mod idx;
mod mnist;
mod stream;
mod transform;
mod user;
pub mod worlds;

pub use catalogue::{Listing, Origin, catalogue, data_dir, load};
pub use dataset::{Dataset, Normalise, Pixels, Split};
pub use error::{Error, Result};
pub use fetch::{Fetched, Model, Progress, Source, fetch, models};
pub use stream::*;
pub use transform::{Corruption, Move, Step, Transform};
pub use user::from_safetensors;
