//! The colours: one single-hue scale that is even to the eye, and a few line colours.
//!
//! The scale is a straight line in OKLCH lightness (Ottosson, 2020), so that equal steps of
//! accuracy look equally far apart; dark on light paper, bright on dark paper. The text on a
//! cell is whichever of the two inks has the higher WCAG contrast, always at least 4.5 : 1.

use std::fmt::{self, Write};

/// Steps of the scale: one for every two points of accuracy.
pub(crate) const STEPS: usize = 51;

/// An sRGB colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rgb(pub u8, pub u8, pub u8);

impl fmt::Display for Rgb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }
}

/// Paper the colours stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paper {
    Light,
    Dark,
}

const DARK_INK: Rgb = Rgb(0x00, 0x00, 0x00);
const LIGHT_INK: Rgb = Rgb(0xff, 0xff, 0xff);
const HUE: f64 = 238.0;

/// Line colours for up to eight series, told apart also by readers who do not see red and green alike.
const LINES_LIGHT: [Rgb; 8] = [
    Rgb(0x00, 0x6b, 0xa8),
    Rgb(0xc9, 0x55, 0x00),
    Rgb(0x00, 0x85, 0x62),
    Rgb(0xa8, 0x48, 0x82),
    Rgb(0x8f, 0x6a, 0x00),
    Rgb(0x2f, 0x97, 0xb8),
    Rgb(0x5d, 0x52, 0xc4),
    Rgb(0x6b, 0x6f, 0x76),
];
const LINES_DARK: [Rgb; 8] = [
    Rgb(0x62, 0xb4, 0xec),
    Rgb(0xf3, 0x93, 0x54),
    Rgb(0x4c, 0xc9, 0xa0),
    Rgb(0xe3, 0x96, 0xc6),
    Rgb(0xd8, 0xb4, 0x4a),
    Rgb(0x86, 0xd5, 0xee),
    Rgb(0xa9, 0xa3, 0xf5),
    Rgb(0xae, 0xb4, 0xbb),
];

/// Number of line colours; a ninth series takes the first colour again, dashed.
pub(crate) const LINES: usize = LINES_LIGHT.len();

/// Colour of a line.
pub(crate) fn line(slot: usize, paper: Paper) -> Rgb {
    match paper {
        Paper::Light => LINES_LIGHT[slot % LINES],
        Paper::Dark => LINES_DARK[slot % LINES],
    }
}

/// Step of the scale for an accuracy in `[0, 1]`.
pub(crate) fn step_of(accuracy: f64) -> usize {
    (accuracy.clamp(0.0, 1.0) * (STEPS - 1) as f64).round() as usize
}

/// Colour of a step of the scale.
pub(crate) fn scale(step: usize, paper: Paper) -> Rgb {
    let t = step.min(STEPS - 1) as f64 / (STEPS - 1) as f64;
    let (lightness, chroma) = match paper {
        Paper::Light => (0.965 - 0.575 * t, 0.008 + 0.112 * t),
        Paper::Dark => (0.265 + 0.585 * t, 0.018 + 0.092 * t),
    };
    oklch(lightness, chroma, HUE)
}

/// Ink for text on a background.
pub(crate) fn ink_on(background: Rgb) -> Rgb {
    if contrast(background, DARK_INK) >= contrast(background, LIGHT_INK) {
        DARK_INK
    } else {
        LIGHT_INK
    }
}

/// WCAG 2 contrast ratio, 1 to 21.
pub(crate) fn contrast(a: Rgb, b: Rgb) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

/// CSS of the scale and of the lines as custom properties: `.h0` … set `--cell` and `--on`.
pub(crate) fn css(paper: Paper, prefix: &str) -> String {
    let mut out = String::new();
    for step in 0..STEPS {
        let cell = scale(step, paper);
        let _ = write!(
            out,
            "{prefix} .h{step}{{--cell:{cell};--on:{}}}",
            ink_on(cell)
        );
    }
    for slot in 0..LINES {
        let _ = write!(out, "{prefix} .s{slot}{{--line:{}}}", line(slot, paper));
    }
    out
}

fn luminance(Rgb(r, g, b): Rgb) -> f64 {
    let linear = |c: u8| {
        let c = f64::from(c) / 255.0;
        if c <= 0.04045 {
            c / 12.92
        } else {
            ((c + 0.055) / 1.055).powf(2.4)
        }
    };
    0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
}

/// OKLCH to sRGB; chroma is taken back until the colour fits.
fn oklch(lightness: f64, chroma: f64, hue: f64) -> Rgb {
    let (sin, cos) = hue.to_radians().sin_cos();
    let mut c = chroma;
    loop {
        let (a, b) = (c * cos, c * sin);
        let l = (lightness + 0.396_337_777_4 * a + 0.215_803_757_3 * b).powi(3);
        let m = (lightness - 0.105_561_345_8 * a - 0.063_854_172_8 * b).powi(3);
        let s = (lightness - 0.089_484_177_5 * a - 1.291_485_548_0 * b).powi(3);
        let rgb = [
            4.076_741_662_1 * l - 3.307_711_591_3 * m + 0.230_969_929_2 * s,
            -1.268_438_004_6 * l + 2.609_757_401_1 * m - 0.341_319_396_5 * s,
            -0.004_196_086_3 * l - 0.703_418_614_7 * m + 1.707_614_701_0 * s,
        ];
        if c < 1e-3 || rgb.iter().all(|v| (-1e-4..=1.0001).contains(v)) {
            let [r, g, b] = rgb.map(|v| {
                let v = v.clamp(0.0, 1.0);
                let v = if v <= 0.003_130_8 {
                    12.92 * v
                } else {
                    1.055 * v.powf(1.0 / 2.4) - 0.055
                };
                (v * 255.0).round() as u8
            });
            return Rgb(r, g, b);
        }
        c *= 0.97;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oklch_agrees_with_published_values() {
        // CSS Color 4: white, and sRGB blue = oklch(0.45201 0.31321 264.052).
        assert_eq!(oklch(1.0, 0.0, 0.0), Rgb(255, 255, 255));
        let Rgb(r, g, b) = oklch(0.45201, 0.31321, 264.052);
        assert!(r <= 2 && g <= 2 && b >= 253, "{r} {g} {b}");
    }

    #[test]
    fn text_on_every_cell_is_readable_in_both_themes() {
        for paper in [Paper::Light, Paper::Dark] {
            for step in 0..STEPS {
                let cell = scale(step, paper);
                assert!(
                    contrast(cell, ink_on(cell)) >= 4.5,
                    "{paper:?} step {step} {cell}"
                );
            }
        }
        assert!((contrast(Rgb(0, 0, 0), Rgb(255, 255, 255)) - 21.0).abs() < 1e-9);
    }

    #[test]
    fn the_scale_is_monotone_in_luminance_and_even_in_lightness() {
        for paper in [Paper::Light, Paper::Dark] {
            let y: Vec<f64> = (0..STEPS).map(|s| luminance(scale(s, paper))).collect();
            let up = y[STEPS - 1] > y[0];
            assert!(y.windows(2).all(|w| (w[1] > w[0]) == up), "{paper:?} {y:?}");
        }
    }

    #[test]
    fn lines_stand_out_from_their_paper() {
        for slot in 0..LINES {
            assert!(
                contrast(line(slot, Paper::Light), Rgb(255, 255, 255)) >= 3.0,
                "light {slot}"
            );
            assert!(
                contrast(line(slot, Paper::Dark), Rgb(0x15, 0x18, 0x1c)) >= 3.0,
                "dark {slot}"
            );
        }
    }
}
