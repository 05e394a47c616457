//! Boundaries between experiences: sharp, blurry or gradual.

use ebb_space::Key;

use super::mixture::Mixed;
use super::origin::Origins;
use super::{Item, StreamSpec};

/// One experience an origin, with some examples met elsewhere if the recipe asks for it.
pub(super) fn experiences(spec: &StreamSpec, origins: &Origins, key: Key) -> Vec<Mixed> {
    let n = origins.sets.len();
    let mut experiences: Vec<Mixed> = (origins.sets.iter().enumerate())
        .map(|(index, set)| Mixed {
            name: set.name.clone(),
            train: vec![],
            origins: vec![0; n],
            test: Some(index),
        })
        .collect();
    let keys = [key.sub("first"), key.sub("second")];
    for (home, set) in origins.sets.iter().enumerate() {
        for item in &set.train {
            let place = match (spec.blurry, spec.gradual) {
                (Some(share), _) => strayed(item, home, n, share, keys),
                (_, Some(width)) => drifted(item, home, n, width, keys),
                _ => home,
            };
            experiences[place].train.push(*item);
            experiences[place].origins[home] += 1;
        }
    }
    experiences
}

/// With chance `share` one of the other experiences, each as likely.
fn strayed(item: &Item, home: usize, n: usize, share: f64, [first, second]: [Key; 2]) -> usize {
    let id = item.id.mix();
    if n < 2 || first.uniform(id) >= share {
        return home;
    }
    let other = (u128::from(second.draw(id)) * (n as u128 - 1)) >> 64;
    (home + 1 + other as usize) % n
}

/// The experience in which the example's time lies after it was moved.
fn drifted(item: &Item, home: usize, n: usize, width: f64, [first, second]: [Key; 2]) -> usize {
    let id = item.id.mix();
    let time = home as f64 + first.uniform(id) + width * second.normal(id);
    (time.floor().max(0.0) as usize).min(n - 1)
}
