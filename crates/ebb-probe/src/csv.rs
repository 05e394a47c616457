//! A matrix from a CSV file of the user's.
//!
//! **Long**: a header with `task`, `example` and `z`, in any order, and `base_loss` if it is known;
//! a line for each value. **Wide**: a header that begins with `example`, then `base_loss` if it is
//! known, then the names of the tasks; a line for each example. An empty cell, `nan` and a pair
//! that the long form leaves out are gaps. Cells may stand in double quotes, where `""` is a quote.

use crate::error::{Error, Result};
use crate::matrix::Association;
use std::collections::HashMap;
use std::path::Path;

impl Association {
    /// Reads a CSV file, long or wide as its header says.
    ///
    /// # Errors
    /// When the file cannot be read, or a line is not what its header promises.
    pub fn read_csv(path: &Path) -> Result<Association> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        Self::parse_csv(&text, path)
    }

    /// The same from text; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`Association::read_csv`].
    pub fn parse_csv(text: &str, path: &Path) -> Result<Association> {
        let bad = |line: usize, reason: String| Error::Csv {
            path: path.to_owned(),
            line,
            reason,
        };
        let mut lines = records(text);
        let Some((_, header)) = lines.next() else {
            return Err(bad(1, "it is empty".into()));
        };
        let place = |name: &str| header.iter().position(|h| h.eq_ignore_ascii_case(name));
        let base = place("base_loss");
        let mut cells = Cells::default();
        match (place("task"), place("example"), place("z")) {
            (Some(task), Some(example), Some(z)) => {
                for (line, row) in lines {
                    let bad = |reason: String| bad(line, reason);
                    if row.len() != header.len() {
                        return Err(bad(widths(row.len(), header.len())));
                    }
                    let loss = base.map(|b| number(&row[b])).transpose().map_err(bad)?;
                    let value = number(&row[z]).map_err(bad)?;
                    let task = cells.task(&row[task]);
                    let example = cells.example(&row[example], loss);
                    if cells.values.insert((task, example), value).is_some() {
                        return Err(bad("this task and example were there already".into()));
                    }
                }
            }
            (_, Some(0), _) => {
                let tasks: Vec<usize> = (1..header.len()).filter(|c| Some(*c) != base).collect();
                let numbers: Vec<usize> = tasks.iter().map(|c| cells.task(&header[*c])).collect();
                for (line, row) in lines {
                    let bad = |reason: String| bad(line, reason);
                    if row.len() != header.len() {
                        return Err(bad(widths(row.len(), header.len())));
                    }
                    let loss = base.map(|b| number(&row[b])).transpose().map_err(bad)?;
                    let example = cells.example(&row[0], loss);
                    for (column, task) in tasks.iter().zip(&numbers) {
                        let value = number(&row[*column]).map_err(bad)?;
                        if cells.values.insert((*task, example), value).is_some() {
                            return Err(bad(format!("`{}` was there already", row[0])));
                        }
                    }
                }
            }
            _ => {
                return Err(bad(
                    1,
                    "the header must have `task`, `example` and `z`, or begin with `example` and \
                     go on with the tasks' names"
                        .into(),
                ));
            }
        }
        cells.matrix(base.is_some()).checked()
    }
}

#[derive(Default)]
struct Cells {
    tasks: Vec<String>,
    examples: Vec<String>,
    base_loss: Vec<f32>,
    task: HashMap<String, usize>,
    example: HashMap<String, usize>,
    values: HashMap<(usize, usize), f32>,
}

impl Cells {
    fn task(&mut self, name: &str) -> usize {
        let next = self.tasks.len();
        *self.task.entry(name.to_owned()).or_insert_with(|| {
            self.tasks.push(name.to_owned());
            next
        })
    }

    fn example(&mut self, name: &str, loss: Option<f32>) -> usize {
        let next = self.examples.len();
        *self.example.entry(name.to_owned()).or_insert_with(|| {
            self.examples.push(name.to_owned());
            self.base_loss.push(loss.unwrap_or(f32::NAN));
            next
        })
    }

    fn matrix(self, base: bool) -> Association {
        let n = self.examples.len();
        let mut z = vec![f32::NAN; self.tasks.len() * n];
        self.values
            .iter()
            .for_each(|((task, example), value)| z[task * n + example] = *value);
        Association {
            recipe: String::new(),
            base: String::new(),
            tasks: self.tasks,
            examples: self.examples,
            base_loss: if base { self.base_loss } else { Vec::new() },
            base_correct: Vec::new(),
            z,
            wrong: Vec::new(),
        }
    }
}

fn widths(found: usize, wanted: usize) -> String {
    format!("it has {found} cells, its header {wanted}")
}

fn number(cell: &str) -> Result<f32, String> {
    let cell = cell.trim();
    match cell.parse::<f32>() {
        _ if cell.is_empty() => Ok(f32::NAN),
        Ok(value) if !value.is_infinite() => Ok(value),
        _ => Err(format!(
            "`{cell}` is not a finite number; leave a gap empty"
        )),
    }
}

/// Lines with their numbers, cut into cells; empty lines are left out.
fn records(text: &str) -> impl Iterator<Item = (usize, Vec<String>)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rest = text.chars().peekable();
    let mut line = 1;
    std::iter::from_fn(move || {
        loop {
            rest.peek()?;
            let at = line;
            let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
            while let Some(c) = rest.next() {
                match c {
                    '"' if quoted && rest.peek() == Some(&'"') => {
                        rest.next();
                        cell.push('"');
                    }
                    '"' => quoted = !quoted,
                    ',' if !quoted => cells.push(std::mem::take(&mut cell)),
                    '\r' if !quoted => {}
                    '\n' => {
                        line += 1;
                        if !quoted {
                            break;
                        }
                        cell.push(c);
                    }
                    _ => cell.push(c),
                }
            }
            if !(cells.is_empty() && cell.trim().is_empty()) {
                cells.push(cell);
                return Some((at, cells));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Association> {
        Association::parse_csv(text, Path::new("m.csv"))
    }

    #[test]
    fn long_and_wide_say_the_same() {
        let long =
            "z,task,example,base_loss\n0.5,a,x,1\n,b,x,1\n-1e-3,\"a\",\"y, \"\"z\"\"\",2\n\n";
        let wide = "example,base_loss,a,b\r\nx,1,0.5,\r\n\"y, \"\"z\"\"\",2,-0.001,nan\r\n";
        let (long, wide) = (parse(long).unwrap(), parse(wide).unwrap());
        let bits = |m: &Association| {
            m.z.iter()
                .map(|z| if z.is_nan() { 0 } else { z.to_bits() })
                .collect::<Vec<_>>()
        };
        assert_eq!(bits(&long), bits(&wide));
        assert_eq!((&long.tasks, &long.examples), (&wide.tasks, &wide.examples));
        assert_eq!(long.examples[1], "y, \"z\"");
        assert_eq!(long.base_loss, [1.0, 2.0]);
        assert!(
            wide.losses().is_err() && wide.without_gaps().is_err(),
            "task b has no value"
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, line) in [
            ("", 1),
            ("a,b\n1,2\n", 1),
            ("example,a\nx,1\ny,1,2\n", 3),
            ("example,a\nx,high\n", 2),
            ("example,a\nx,inf\n", 2),
            ("example,a\n\"x\ny\",1\nz,?\n", 4),
            ("task,example,z\na,x,1\na,x,2\n", 3),
            ("example,a\nx,1\nx,2\n", 3),
        ] {
            match parse(text) {
                Err(Error::Csv { line: found, .. }) => assert_eq!(found, line, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
        assert!(parse("example\nx\n").is_err());
    }
}
