//! Colour and width for a terminal.

use super::Colour;
use crate::colour::{self, Paper, Rgb};

/// Text on a cell of the accuracy scale.
pub(super) fn cell(colour: Colour, accuracy: f64, text: &str) -> String {
    // The dark scale: bright means known, and it stands on dark and on light backgrounds.
    let background = colour::scale(colour::step_of(accuracy), Paper::Dark);
    let ink = colour::ink_on(background);
    match colour {
        Colour::None => text.into(),
        Colour::True => {
            format!(
                "\x1b[48;2;{};{};{};38;2;{};{};{}m{text}\x1b[0m",
                background.0, background.1, background.2, ink.0, ink.1, ink.2
            )
        }
        Colour::Ansi256 => {
            let background = nearest(background);
            let ink = if ink.0 > 128 { 231 } else { 16 };
            format!("\x1b[48;5;{background};38;5;{ink}m{text}\x1b[0m")
        }
    }
}

pub(super) fn bold(colour: Colour, text: &str) -> String {
    wrap(colour, "1", text)
}

pub(super) fn dim(colour: Colour, text: &str) -> String {
    wrap(colour, "2", text)
}

/// The lowest point of a curve.
pub(super) fn alarm(colour: Colour, text: &str) -> String {
    wrap(colour, "33;1", text)
}

fn wrap(colour: Colour, code: &str, text: &str) -> String {
    if colour == Colour::None || text.is_empty() {
        text.into()
    } else {
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Nearest colour of the 6 x 6 x 6 cube of xterm.
fn nearest(Rgb(r, g, b): Rgb) -> u8 {
    const LEVELS: [i32; 6] = [0, 95, 135, 175, 215, 255];
    let index = |c: u8| {
        let distance = |level: &i32| (level - i32::from(c)).abs();
        (0..6u8)
            .min_by_key(|&i| distance(&LEVELS[i as usize]))
            .unwrap_or(0)
    };
    16 + 36 * index(r) + 6 * index(g) + index(b)
}

/// Outside text without control characters, which could drive the terminal.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// At most `width` characters, the last an ellipsis where something is cut.
pub(super) fn fit(text: &str, width: usize) -> String {
    let text = clean(text);
    if text.chars().count() <= width {
        return text;
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        cut.push('…');
    }
    cut
}

/// Lines of at most `width` characters, broken between words.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in clean(text).split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(fit(word, width)),
        }
    }
    lines
}

/// Padded on the right to `width` characters.
pub(super) fn left(text: &str, width: usize) -> String {
    format!("{text:<width$}")
}

/// Padded on the left to `width` characters.
pub(super) fn right(text: &str, width: usize) -> String {
    format!("{text:>width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_text_cannot_drive_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb"), "a\u{fffd}[2Jb");
        assert_eq!(fit("experience", 6), "exper…");
        assert_eq!(fit("größe", 5), "größe");
        assert_eq!(wrapped("one two  three", 8), ["one two", "three"]);
    }

    #[test]
    fn no_colour_means_no_escape() {
        assert_eq!(cell(Colour::None, 0.5, "50"), "50");
        assert_eq!(bold(Colour::None, "x"), "x");
        assert!(cell(Colour::Ansi256, 0.5, "50").starts_with("\x1b[48;5;"));
        assert_eq!(nearest(Rgb(255, 0, 0)), 196);
    }
}
