//! Standard output: text, JSON and tables.

use crate::error::{Error, Result};
use ebb_report::{Colour, Terminal};
use serde::Serialize;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// Prints text, with a newline at its end. A reader that has left is no failure.
///
/// # Errors
/// When standard output cannot be written.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let newline: &[u8] = if text.is_empty() || text.ends_with('\n') {
        b""
    } else {
        b"\n"
    };
    match out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(newline))
        .and_then(|()| out.flush())
    {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Error::Output),
    }
}

/// Prints a value as JSON.
///
/// # Errors
/// When standard output cannot be written.
pub fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Output(e.into()))?;
    print(&text)
}

/// A path as a shell takes it.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=~".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The same colours in the help as in the tables.
pub fn styled(command: clap::Command) -> clap::Command {
    use clap::builder::styling::{AnsiColor, Effects, Styles};
    let styles = Styles::styled()
        .header(AnsiColor::Yellow.on_default().effects(Effects::BOLD))
        .usage(AnsiColor::Yellow.on_default().effects(Effects::BOLD))
        .literal(AnsiColor::Green.on_default())
        .placeholder(AnsiColor::Cyan.on_default());
    command.styles(styles)
}

/// Bold text.
pub fn bold(terminal: &Terminal, text: &str) -> String {
    wrapped(terminal, "1", text)
}

/// Faint text.
pub fn dim(terminal: &Terminal, text: &str) -> String {
    wrapped(terminal, "2", text)
}

fn wrapped(terminal: &Terminal, code: &str, text: &str) -> String {
    if terminal.colour == Colour::None || text.is_empty() {
        text.to_owned()
    } else {
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// A table: a faint header, columns as wide as they need, the last one cut at the terminal's edge.
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// An empty table. A column whose title begins with `>` is set flush right.
    pub fn new(header: &[&'static str]) -> Table {
        Table {
            right: header.iter().map(|title| title.starts_with('>')).collect(),
            header: header
                .iter()
                .map(|title| title.trim_start_matches('>'))
                .collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        // Outside text must not drive the terminal.
        let clean = |cell: String| cell.replace(|c: char| c.is_control(), "\u{fffd}");
        self.rows.push(cells.map(clean).into());
    }

    /// The table as lines.
    pub fn text(&self, terminal: &Terminal) -> String {
        let columns = self.header.len();
        let wide = |c: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(c));
            cells
                .map(|cell| cell.chars().count())
                .chain([self.header[c].chars().count()])
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(wide).collect();
        let line = |cells: &[&str]| {
            let mut line = String::new();
            for (c, cell) in cells.iter().enumerate() {
                let width = widths[c];
                match (self.right[c], c + 1 == columns) {
                    (true, _) => line.push_str(&format!("{cell:>width$}")),
                    (false, true) => line.push_str(cell),
                    (false, false) => line.push_str(&format!("{cell:<width$}")),
                }
                if c + 1 < columns {
                    line.push_str("  ");
                }
            }
            fit(line.trim_end(), terminal)
        };
        let mut text = dim(terminal, &line(&self.header)) + "\n";
        for row in &self.rows {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            text.push_str(&line(&cells));
            text.push('\n');
        }
        text
    }
}

/// A line cut at the edge of a terminal; a file or a pipe gets it whole.
fn fit(line: &str, terminal: &Terminal) -> String {
    use std::io::IsTerminal;
    if !std::io::stdout().is_terminal() || line.chars().count() <= terminal.width {
        return line.to_owned();
    }
    let cut: String = line.chars().take(terminal.width - 1).collect();
    cut.trim_end().to_owned() + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_only_where_a_shell_needs_it() {
        assert_eq!(quoted(Path::new("runs/der++-1")), "runs/der++-1");
        assert_eq!(quoted(Path::new("my runs/a")), "'my runs/a'");
        assert_eq!(quoted(Path::new("it's")), r"'it'\''s'");
        assert_eq!(quoted(Path::new("")), "''");
    }

    #[test]
    fn columns_are_as_wide_as_they_need() {
        let mut table = Table::new(&["name", ">n", "about"]);
        table.row(["a".into(), "12".into(), "x\x1by".into()]);
        table.row(["long".into(), "3".into(), String::new()]);
        let terminal = Terminal {
            width: 80,
            colour: Colour::None,
        };
        assert_eq!(
            table.text(&terminal),
            "name   n  about\na     12  x\u{fffd}y\nlong   3\n"
        );
    }
}
