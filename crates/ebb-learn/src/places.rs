//! Parameters by what they are for, for methods that train parts of a language model.

use crate::error::{Error, Result};
use crate::oracle::Oracle;
use ebb_net::Place;
use ebb_space::{Layout, Mask};
use std::sync::Arc;

/// What each parameter is for, in the order of the layout.
///
/// # Errors
/// When the network is not made of blocks.
pub fn places(oracle: &Oracle, who: &str) -> Result<Vec<Place>> {
    let places = oracle.model.network().places();
    match places.is_empty() {
        true => Err(Error::Recipe {
            reason: format!(
                "`{who}` needs a network of blocks of attention and feed-forward layers: a \
                 `decoder` or a `pretrained` language model"
            ),
        }),
        false => Ok(places),
    }
}

/// Whole parameters, by their places.
pub fn whole(layout: &Arc<Layout>, places: &[Place], chosen: impl Fn(&Place) -> bool) -> Mask {
    let entries = layout.entries().iter().zip(places);
    let chosen: Vec<&str> = entries
        .filter(|(_, place)| chosen(place))
        .map(|(entry, _)| entry.path.as_str())
        .collect();
    Mask::from_paths(layout, |path| chosen.contains(&path))
}

/// Number of blocks.
pub fn blocks(places: &[Place]) -> usize {
    let last = places.iter().filter_map(|p| p.block).max();
    last.map_or(0, |last| last + 1)
}
