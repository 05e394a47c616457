//! Subsets keyed by id.

use ebb_space::Key;

use super::Item;

/// The (at most) `n` items with the smallest draws, in the order in which they stood. Taking an
/// item away lets the next one in line in, and changes nothing else.
pub(super) fn sample(items: &[Item], n: usize, key: Key) -> Vec<Item> {
    if n >= items.len() {
        return items.to_vec();
    }
    let mut order: Vec<(u64, u32)> = items
        .iter()
        .zip(0..)
        .map(|(item, place)| (key.draw(item.id.mix()), place))
        .collect();
    if n > 0 {
        order.select_nth_unstable(n - 1);
    }
    let mut places: Vec<u32> = order[..n].iter().map(|(_, place)| *place).collect();
    places.sort_unstable();
    places
        .into_iter()
        .map(|place| items[place as usize])
        .collect()
}
