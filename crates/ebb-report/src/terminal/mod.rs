//! What `ebb learn` shows at its end: the accuracy matrix, the stability gap as a small picture,
//! and the numbers, within the width of the terminal; and the tables of `ebb compare`.

mod contest;
mod matrix;
mod paint;
mod spark;
mod table;

pub use contest::terminal_contest;
pub use matrix::terminal_matrix;
pub use table::terminal_table;

/// Where the text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Columns; lines are kept within them down to 40.
    pub width: usize,
    /// How much colour it shows.
    pub colour: Colour,
}

/// How much colour a terminal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Plain text: a file, a pipe, `NO_COLOR`, or a dumb terminal.
    None,
    /// The 256 colours of xterm.
    Ansi256,
    /// 24-bit colour.
    True,
}

impl Terminal {
    /// Decides from whether the stream is a terminal, its width if known, and the environment
    /// (`NO_COLOR`, `TERM`, `COLORTERM`, `COLUMNS`), which is passed in as a function.
    pub fn detect(
        is_terminal: bool,
        width: Option<usize>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Terminal {
        let set = |name: &str| variable(name).filter(|v| !v.is_empty());
        let from_environment = || set("COLUMNS").and_then(|v| v.trim().parse().ok());
        let colour =
            if !is_terminal || set("NO_COLOR").is_some() || set("TERM").is_none_or(|t| t == "dumb")
            {
                Colour::None
            } else if set("COLORTERM").is_some_and(|c| c == "truecolor" || c == "24bit") {
                Colour::True
            } else {
                Colour::Ansi256
            };
        Terminal {
            width: width.or_else(from_environment).unwrap_or(80).clamp(40, 400),
            colour,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_only_where_it_is_wanted() {
        let with = |tty, pairs: &'static [(&str, &str)]| {
            let find = |name: &str| pairs.iter().find(|p| p.0 == name).map(|p| p.1.to_string());
            Terminal::detect(tty, None, find)
        };
        assert_eq!(with(true, &[("TERM", "xterm")]).colour, Colour::Ansi256);
        assert_eq!(
            with(true, &[("TERM", "xterm"), ("COLORTERM", "truecolor")]).colour,
            Colour::True
        );
        assert_eq!(
            with(true, &[("TERM", "xterm"), ("NO_COLOR", "1")]).colour,
            Colour::None
        );
        assert_eq!(
            with(true, &[("TERM", "xterm"), ("NO_COLOR", "")]).colour,
            Colour::Ansi256
        );
        assert_eq!(with(true, &[("TERM", "dumb")]).colour, Colour::None);
        assert_eq!(with(false, &[("TERM", "xterm")]).colour, Colour::None);
        assert_eq!(with(true, &[("COLUMNS", "132")]).width, 132);
        assert_eq!(with(true, &[("COLUMNS", "x")]).width, 80);
    }
}
