//! Fewer points, same picture: each pixel column keeps its first, lowest, highest and last
//! point (M4, Jugel et al. 2014), so that a dip of a single step is never drawn away.

/// Keeps first, lowest, highest and last point of each of `buckets` equal intervals of `x`.
///
/// `points` are `(x, y)` with increasing `x`; the result keeps that order and is a subset.
pub(crate) fn extremes(points: &[(f64, f64)], buckets: usize) -> Vec<(f64, f64)> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return Vec::new();
    };
    if points.len() <= 2 * buckets || last.0 <= first.0 {
        return points.to_vec();
    }
    let width = (last.0 - first.0) / buckets as f64;
    let bucket_of = |x: f64| (((x - first.0) / width) as usize).min(buckets - 1);
    let mut kept = Vec::with_capacity(4 * buckets);
    let mut from = 0;
    while from < points.len() {
        let bucket = bucket_of(points[from].0);
        let to = from
            + points[from..]
                .iter()
                .take_while(|p| bucket_of(p.0) == bucket)
                .count();
        let by_y = |a: &usize, b: &usize| points[*a].1.total_cmp(&points[*b].1);
        // On ties the earliest lowest and the latest highest point; any choice draws the same.
        let lowest = (from..to).min_by(by_y).unwrap_or(from);
        let highest = (from..to).max_by(by_y).unwrap_or(from);
        let mut keep = [from, lowest, highest, to - 1];
        keep.sort_unstable();
        for (n, &k) in keep.iter().enumerate() {
            if n == 0 || keep[n - 1] != k {
                kept.push(points[k]);
            }
        }
        from = to;
    }
    kept
}

/// Splits a series at its gaps: each piece is a run of consecutive finite values.
pub(crate) fn pieces(steps: &[u64], values: &[Option<f64>]) -> Vec<Vec<(f64, f64)>> {
    let mut all = Vec::new();
    let mut piece = Vec::new();
    for (&step, &value) in steps.iter().zip(values) {
        match crate::data::finite(value) {
            Some(v) => piece.push((step as f64, v)),
            None if !piece.is_empty() => all.push(std::mem::take(&mut piece)),
            None => {}
        }
    }
    if !piece.is_empty() {
        all.push(piece);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slow wave with one-step spikes at arbitrary places.
    fn spiky(n: usize) -> Vec<(f64, f64)> {
        (0..n)
            .map(|i| {
                let spike = if i % 997 == 500 { -0.7 } else { 0.0 };
                (i as f64, 0.8 + 0.1 * (i as f64 / 300.0).sin() + spike)
            })
            .collect()
    }

    #[test]
    fn every_bucket_keeps_its_lowest_and_highest_point() {
        let points = spiky(10_000);
        let buckets = 64;
        let kept = extremes(&points, buckets);
        assert!(kept.len() <= 4 * buckets);
        let width = points[points.len() - 1].0 / buckets as f64;
        for b in 0..buckets {
            let inside = |p: &&(f64, f64)| ((p.0 / width) as usize).min(buckets - 1) == b;
            let low = |ps: &[(f64, f64)]| {
                ps.iter()
                    .filter(inside)
                    .map(|p| p.1)
                    .fold(f64::INFINITY, f64::min)
            };
            let high = |ps: &[(f64, f64)]| {
                ps.iter()
                    .filter(inside)
                    .map(|p| p.1)
                    .fold(f64::NEG_INFINITY, f64::max)
            };
            assert_eq!(low(&kept), low(&points), "bucket {b}");
            assert_eq!(high(&kept), high(&points), "bucket {b}");
        }
    }

    #[test]
    fn the_result_is_an_ordered_subset_with_both_ends() {
        let points = spiky(5_000);
        let kept = extremes(&points, 50);
        assert_eq!(kept.first(), points.first());
        assert_eq!(kept.last(), points.last());
        assert!(kept.windows(2).all(|w| w[0].0 < w[1].0));
        assert!(kept.iter().all(|p| points[p.0 as usize] == *p));
    }

    #[test]
    fn short_and_empty_series_stay_as_they_are() {
        assert!(extremes(&[], 10).is_empty());
        let two = [(0.0, 1.0), (0.0, 0.5)];
        assert_eq!(extremes(&two, 1), two);
    }

    #[test]
    fn a_gap_or_a_nan_splits_the_line() {
        let steps = [0, 1, 2, 3, 4];
        let values = [Some(0.1), None, Some(0.2), Some(0.3), Some(f64::NAN)];
        assert_eq!(
            pieces(&steps, &values),
            [vec![(0.0, 0.1)], vec![(2.0, 0.2), (3.0, 0.3)]]
        );
    }
}
