//! k-means (Lloyd 1957, 1982): centres that points are near to.

use crate::{Error, Key, Result};

/// At most `k` centres of points of `width` values, `[centres, width]`, after at most `rounds`
/// rounds of assigning each point to its nearest centre and moving each centre to the mean of its
/// points. It starts at the different points with the smallest draws of their `ids`, so that with
/// as many centres as different points each is its own centre. A centre that no point is nearest
/// to moves to the point that is farthest from its own.
///
/// # Errors
/// When the points do not fit their width or ids, or there are none.
pub fn k_means(
    points: &[f32],
    ids: &[u64],
    width: usize,
    k: usize,
    rounds: usize,
    key: Key,
) -> Result<Vec<f32>> {
    if width == 0 || k == 0 || ids.is_empty() {
        return Err(Error::Length {
            what: "the width, the number of centres or the points of k-means",
            expected: 1,
            found: 0,
        });
    }
    if points.len() != ids.len() * width {
        return Err(Error::Length {
            what: "the points of k-means",
            expected: ids.len() * width,
            found: points.len(),
        });
    }
    let mut order: Vec<usize> = (0..ids.len()).collect();
    key.order(&mut order, |i| ids[*i]);
    let mut centres: Vec<f32> = Vec::with_capacity(k.min(ids.len()) * width);
    for i in order {
        let point = &points[i * width..][..width];
        if centres.len() / width == k {
            break;
        }
        if !centres.chunks_exact(width).any(|c| c == point) {
            centres.extend_from_slice(point);
        }
    }
    let k = centres.len() / width;
    let mut assigned = vec![usize::MAX; ids.len()];
    for _ in 0..rounds {
        let mut sums = vec![0f64; k * width];
        let mut counts = vec![0usize; k];
        let mut distances = Vec::with_capacity(ids.len());
        let mut moved = false;
        for (point, own) in points.chunks_exact(width).zip(&mut assigned) {
            let (centre, distance) = nearest(&centres, point);
            moved |= *own != centre;
            *own = centre;
            distances.push(distance);
            counts[centre] += 1;
            let sum = &mut sums[centre * width..][..width];
            sum.iter_mut()
                .zip(point)
                .for_each(|(s, v)| *s += f64::from(*v));
        }
        if !moved {
            break;
        }
        for c in 0..k {
            let centre = &mut centres[c * width..][..width];
            if counts[c] > 0 {
                let sum = &sums[c * width..][..width];
                let mean = sum.iter().map(|s| (s / counts[c] as f64) as f32);
                centre.iter_mut().zip(mean).for_each(|(c, m)| *c = m);
                continue;
            }
            let far = (0..distances.len()).rev();
            if let Some(far) = far.max_by(|a, b| distances[*a].total_cmp(&distances[*b])) {
                centre.copy_from_slice(&points[far * width..][..width]);
                distances[far] = 0.0;
            }
        }
    }
    Ok(centres)
}

/// The centre nearest to `point` (the first of equally near ones) and the squared distance.
///
/// # Panics
/// Without centres of the point's width.
pub fn nearest(centres: &[f32], point: &[f32]) -> (usize, f32) {
    let mut best = (0, f32::INFINITY);
    for (i, centre) in centres.chunks_exact(point.len()).enumerate() {
        let pairs = centre.iter().zip(point);
        let distance: f32 = pairs.map(|(c, v)| (c - v) * (c - v)).sum();
        if distance < best.1 {
            best = (i, distance);
        }
    }
    assert!(!centres.is_empty(), "there is a centre");
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(n: usize, width: usize) -> (Vec<f32>, Vec<u64>) {
        let mut s = Key::new(3, "k-means").stream();
        let values = (0..n * width).map(|_| s.normal() as f32).collect();
        (values, (0..n as u64).collect())
    }

    fn distortion(points: &[f32], width: usize, centres: &[f32]) -> f64 {
        let points = points.chunks_exact(width);
        points.map(|p| f64::from(nearest(centres, p).1)).sum()
    }

    #[test]
    fn with_as_many_centres_as_points_it_is_exact() {
        let (mut x, mut ids) = points(40, 3);
        x.extend_from_within(0..30); // ten points twice
        ids.extend(40..50);
        let centres = k_means(&x, &ids, 3, 50, 10, Key::new(1, "k")).expect("points");
        assert_eq!(centres.len(), 40 * 3);
        assert_eq!(distortion(&x, 3, &centres), 0.0);
    }

    #[test]
    fn on_a_line_it_finds_the_clusters_and_each_round_is_no_worse() {
        // Three tight clusters whose means are known.
        let at = [-10.0f32, 0.0, 7.0];
        let x: Vec<f32> = (0..30).map(|i| at[i % 3] + 0.01 * (i / 3) as f32).collect();
        let ids: Vec<u64> = (0..30).collect();
        let mut best = f64::INFINITY;
        let mut found = Vec::new();
        for seed in 0..10 {
            let centres = k_means(&x, &ids, 1, 3, 50, Key::new(seed, "k")).expect("points");
            let d = distortion(&x, 1, &centres);
            if d < best {
                (best, found) = (d, centres);
            }
        }
        found.sort_by(f32::total_cmp);
        for (c, m) in found.iter().zip([-9.955, 0.045, 7.045]) {
            assert!((c - m).abs() < 1e-5, "{found:?}");
        }
        let (x, ids) = points(300, 2);
        let after = |rounds| {
            let centres = k_means(&x, &ids, 2, 8, rounds, Key::new(2, "k")).expect("points");
            distortion(&x, 2, &centres)
        };
        let course: Vec<f64> = (0..12).map(after).collect();
        assert!(course.windows(2).all(|w| w[1] <= w[0] + 1e-6), "{course:?}");
        assert!(course[11] < 0.8 * course[0]);
    }
}
