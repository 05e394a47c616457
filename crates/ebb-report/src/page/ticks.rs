//! Round numbers for an axis.

/// Round tick values that enclose `[low, high]`, about `wanted` of them (at least two).
pub(crate) fn ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let (low, high) = if low <= high {
        (low, high)
    } else {
        (high, low)
    };
    let span = if high - low > 1e-12 {
        high - low
    } else {
        low.abs().max(1.0) * 0.1
    };
    let raw = span / wanted.max(2) as f64;
    let magnitude = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .iter()
        .map(|m| m * magnitude)
        .find(|s| *s >= raw * 0.999)
        .unwrap_or(raw);
    let from = (low / step + 1e-9).floor() as i64;
    let to = ((high / step - 1e-9).ceil() as i64).max(from + 1);
    (from..=to).map(|k| k as f64 * step).collect()
}

#[cfg(test)]
mod tests {
    use super::ticks;

    #[test]
    fn ticks_enclose_and_are_round() {
        assert_eq!(ticks(0.0, 1.0, 4), [0.0, 0.25, 0.5, 0.75, 1.0]);
        let t = ticks(0.613, 0.887, 4);
        assert!(
            t[0] <= 0.613 && t[t.len() - 1] >= 0.887 && t.len() <= 6,
            "{t:?}"
        );
        let flat = ticks(5.0, 5.0, 4);
        assert!(flat.len() >= 2 && flat[0] <= 5.0 && flat[flat.len() - 1] >= 5.0);
    }
}
