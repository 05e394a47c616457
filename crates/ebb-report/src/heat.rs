//! A table of many columns as a picture: rows as they come, columns in the order of their means
//! and gathered into bins, since nobody sees a hundred thousand of them.

use crate::escape::esc;
use std::fmt::Write;

/// A table with few rows and many columns, gathered into bins.
#[derive(Clone, Debug, PartialEq)]
pub struct Heat {
    names: Vec<String>,
    /// The means of the bins, row by row.
    cells: Vec<Vec<f64>>,
    low: f64,
    high: f64,
}

/// Characters from nothing to all.
const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];
/// Longest name shown.
const NAME: usize = 24;

impl Heat {
    /// Gathers the columns of `values`, row by row, into at most `bins` bins.
    pub fn new(names: &[String], values: &[f32], bins: usize) -> Heat {
        let height = names.len().max(1);
        let width = values.len() / height;
        let mut sums = vec![0.0f64; width];
        for row in values.chunks_exact(width.max(1)) {
            sums.iter_mut()
                .zip(row)
                .for_each(|(s, v)| *s += f64::from(*v));
        }
        let mut order: Vec<usize> = (0..width).collect();
        order.sort_by(|a, b| sums[*a].total_cmp(&sums[*b]).then(a.cmp(b)));
        let bins = bins.clamp(1, width.max(1));
        let of_row = |row: &[f32]| -> Vec<f64> {
            let bin = |k: usize| {
                let of = &order[k * width / bins..(k + 1) * width / bins];
                of.iter().map(|j| f64::from(row[*j])).sum::<f64>() / of.len().max(1) as f64
            };
            (0..bins).map(bin).collect()
        };
        let cells: Vec<Vec<f64>> = values.chunks_exact(width.max(1)).map(of_row).collect();
        let all = || cells.iter().flatten().copied();
        Heat {
            names: names.to_vec(),
            low: all().fold(f64::INFINITY, f64::min).min(0.0),
            high: all().fold(f64::NEG_INFINITY, f64::max).max(0.0),
            cells,
        }
    }

    /// The place of a value between the lowest (or 0) and the highest, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        match self.high > self.low {
            true => ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0),
            false => 0.0,
        }
    }

    /// As lines of text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, row) in self.names.iter().zip(&self.cells) {
            let name: String = name
                .chars()
                .filter(|c| !c.is_control())
                .take(NAME)
                .collect();
            let shade = |v: &f64| SHADES[(self.place(*v) * SHADES.len() as f64).min(4.0) as usize];
            let _ = writeln!(
                text,
                "{name:>NAME$} │{}│",
                row.iter().map(shade).collect::<String>()
            );
        }
        let _ = writeln!(
            text,
            "{:>NAME$}  ' ' {:.3} to '█' {:.3}; columns by their means",
            "", self.low, self.high
        );
        text
    }

    /// As an SVG document.
    pub fn svg(&self, title: &str) -> String {
        let (left, cell, top) = (220.0, 14.0, 48.0);
        let bins = self.cells.first().map_or(1, Vec::len);
        let step = 720.0 / bins as f64;
        let (width, height) = (left + 740.0, top + cell * self.cells.len() as f64 + 36.0);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"{0}\">\n\
             <style>text{{font:12px system-ui,sans-serif;fill:#14191f}}</style>\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n\
             <text x=\"16\" y=\"28\" style=\"font-size:16px\">{0}</text>\n",
            esc(title)
        );
        for (i, (name, row)) in self.names.iter().zip(&self.cells).enumerate() {
            let y = top + cell * i as f64;
            let short: String = name.chars().take(32).collect();
            let _ = writeln!(
                out,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                left - 8.0,
                y + 11.0,
                esc(&short)
            );
            for (k, value) in row.iter().enumerate() {
                // White to a dark blue.
                let p = self.place(*value);
                let mix = |from: f64, to: f64| (from + p * (to - from)).round() as u8;
                let (r, g, b) = (mix(255.0, 8.0), mix(255.0, 48.0), mix(255.0, 107.0));
                let _ = write!(
                    out,
                    "<rect x=\"{:.2}\" y=\"{y}\" width=\"{:.2}\" height=\"{cell}\" fill=\"#{r:02x}{g:02x}{b:02x}\"/>",
                    left + step * k as f64,
                    step + 0.3
                );
            }
            out.push('\n');
        }
        let _ = writeln!(
            out,
            "<text x=\"{left}\" y=\"{}\">white {:.3}, dark {:.3}; columns in the order of their means</text>\n</svg>",
            height - 12.0,
            self.low,
            self.high
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_ordered_by_their_means_and_gathered() {
        let names = vec!["calm".to_owned(), "wild <b>".to_owned()];
        let values = [0.0, 0.0, 0.0, 0.0, 4.0, 1.0, 3.0, 2.0];
        let heat = Heat::new(&names, &values, 2);
        assert_eq!(heat.cells, [[0.0, 0.0], [1.5, 3.5]]);
        let text = heat.text();
        assert!(
            text.contains("calm │  │") && text.contains("│▒█│"),
            "{text}"
        );
        let svg = heat.svg("z");
        assert!(svg.contains("wild &lt;b&gt;") && svg.matches("<rect").count() == 5);
        assert!(Heat::new(&names, &[1.0, 1.0], 9).text().contains('█'));
    }
}
