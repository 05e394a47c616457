//! How numbers are written: the same everywhere, so that columns align and readers compare.

use ebb_space::{Number, Unit};

use crate::data::finite;
use crate::metric::{self, Scale};

/// What stands where nothing was measured.
pub(crate) const MISSING: &str = "–";

/// `0.8731` as `87.3`.
pub(crate) fn percent(value: f64) -> String {
    fixed(100.0 * value, 1)
}

/// `0.8731` as `87.3`, or the sign for a missing value.
pub(crate) fn percent_or_missing(value: Option<f64>) -> String {
    finite(value).map_or_else(|| MISSING.into(), percent)
}

/// A fixed number of decimals, a real minus sign and never `-0.0`.
pub(crate) fn fixed(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return MISSING.into();
    }
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(rest) if rest.bytes().all(|b| b == b'0' || b == b'.') => rest.into(),
        Some(rest) => format!("−{rest}"),
        None => text,
    }
}

/// Four significant digits, for values of unknown kind.
pub(crate) fn plain(value: f64) -> String {
    if value == value.trunc() && value.abs() < 1e15 {
        let sign = if value < 0.0 { "−" } else { "" };
        return format!("{sign}{}", count(value.abs() as u64));
    }
    let digits = 3 - value.abs().log10().floor().clamp(-6.0, 3.0) as i32;
    fixed(value, digits.max(0) as usize)
}

/// `1234567` as `1,234,567`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Large counts in three digits: `14.4 k`, `1.20 M`.
pub(crate) fn short_count(value: f64) -> String {
    const UNITS: [&str; 4] = ["", " k", " M", " G"];
    if !value.is_finite() {
        return MISSING.into();
    }
    let mut scaled = value;
    let mut unit = 0;
    while scaled >= 999.5 && unit + 1 < UNITS.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    let decimals = match scaled {
        s if unit == 0 && s == s.trunc() => 0,
        s if s < 9.995 => 2,
        s if s < 99.95 => 1,
        _ => 0,
    };
    format!("{}{}", fixed(scaled, decimals), UNITS[unit])
}

/// A difference on the scale of the metric called `name`, with its sign.
pub(crate) fn signed(name: &str, value: f64) -> String {
    let text = on_scale(name, value.abs());
    let nothing = text.chars().all(|c| !c.is_ascii_digit() || c == '0');
    match value {
        v if !v.is_finite() => MISSING.into(),
        _ if nothing => text,
        v if v > 0.0 => format!("+{text}"),
        _ => format!("−{text}"),
    }
}

/// A probability: `0.0312`, and never a zero that it is not.
pub(crate) fn probability(p: f64) -> String {
    match p {
        p if !p.is_finite() => MISSING.into(),
        p if p > 0.0 && p < 0.000_05 => "<0.0001".into(),
        p => fixed(p, 4),
    }
}

/// Seconds as `0.84 s`, `12.3 s`, `4 min 05 s`, `2 h 07 min`.
pub(crate) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        MISSING.into()
    } else if seconds < 9.995 {
        format!("{} s", fixed(seconds, 2))
    } else if seconds < 99.95 {
        format!("{} s", fixed(seconds, 1))
    } else if seconds < 3599.5 {
        let s = seconds.round() as u64;
        format!("{} min {:02} s", s / 60, s % 60)
    } else {
        let m = (seconds / 60.0).round() as u64;
        format!("{} h {:02} min", m / 60, m % 60)
    }
}

/// Bytes as `512 B`, `1.50 MiB`: three significant digits.
pub(crate) fn bytes(value: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut scaled = value as f64;
    let mut unit = 0;
    while scaled >= 999.5 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    let decimals = match scaled {
        _ if unit == 0 => 0,
        s if s < 9.995 => 2,
        s if s < 99.95 => 1,
        _ => 0,
    };
    format!("{} {}", fixed(scaled, decimals), UNITS[unit])
}

/// The value of a number on the scale of its metric, without its unit sign.
pub(crate) fn value(number: &Number) -> String {
    on_scale(&number.name, number.value)
}

/// Any value written on the scale of the metric called `name`.
pub(crate) fn on_scale(name: &str, value: f64) -> String {
    if !value.is_finite() {
        return MISSING.into();
    }
    match metric::scale(name) {
        Scale::Percent | Scale::Points => percent(value),
        Scale::Seconds => duration(value),
        Scale::Bytes => bytes(value.max(0.0) as u64),
        Scale::Steps | Scale::Plain => plain(value),
    }
}

/// `86.1 to 88.4`, if the number has an interval.
pub(crate) fn interval(number: &Number) -> Option<String> {
    let (low, high) = (finite(number.ci_low)?, finite(number.ci_high)?);
    Some(format!(
        "{} to {}",
        on_scale(&number.name, low),
        on_scale(&number.name, high)
    ))
}

/// What the interval is over: `5 seeds`, `10,000 examples`.
pub(crate) fn over(number: &Number) -> String {
    let (one, many) = match number.unit {
        Unit::Example => ("example", "examples"),
        Unit::Seed => ("seed", "seeds"),
        Unit::Run => ("run", "runs"),
        Unit::Step => ("step", "steps"),
    };
    format!(
        "{} {}",
        count(number.n as u64),
        if number.n == 1 { one } else { many }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(percent(0.8731), "87.3");
        assert_eq!(percent(-0.00001), "0.0");
        assert_eq!(percent(-0.123), "−12.3");
        assert_eq!(percent_or_missing(Some(f64::NAN)), "–");
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(duration(0.844), "0.84 s");
        assert_eq!(duration(12.34), "12.3 s");
        assert_eq!(duration(245.2), "4 min 05 s");
        assert_eq!(duration(7620.0), "2 h 07 min");
        assert_eq!(duration(f64::NAN), "–");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1_572_864), "1.50 MiB");
        assert_eq!(bytes(1023), "1.00 KiB");
        assert_eq!(plain(3.0), "3");
        assert_eq!(plain(0.012345), "0.01235");
        assert_eq!(plain(1234.5), "1234");
        assert_eq!(plain(-2.0), "−2");
        assert_eq!(short_count(730.0), "730");
        assert_eq!(short_count(2.5), "2.50");
        assert_eq!(short_count(14_380.0), "14.4 k");
        assert_eq!(short_count(999_700.0), "1.00 M");
        assert_eq!(short_count(f64::NAN), "–");
        assert_eq!(signed("bwt", 0.123), "+12.3");
        assert_eq!(signed("bwt", -0.123), "−12.3");
        assert_eq!(signed("bwt", -0.0001), "0.0");
        assert_eq!(signed("bwt", f64::INFINITY), "–");
        assert_eq!(probability(0.03125), "0.0312");
        assert_eq!(probability(1e-9), "<0.0001");
        assert_eq!(probability(1.0), "1.0000");
    }
}
