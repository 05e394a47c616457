//! A dense table of finite numbers, tasks by examples.

use crate::error::{Error, Result};
use rayon::prelude::*;

/// Rows are tasks, columns are examples. Each has an id, so that draws are keyed by who it is and
/// not by where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    rows: Vec<u64>,
    columns: Vec<u64>,
    values: Vec<f32>,
}

impl Table {
    /// A table from its values, row by row.
    ///
    /// # Errors
    /// When the lengths do not agree, nothing is there, or a value is not finite.
    pub fn new(rows: Vec<u64>, columns: Vec<u64>, values: Vec<f32>) -> Result<Table> {
        let (m, n) = (rows.len(), columns.len());
        if m == 0 || n == 0 || values.len() != m * n {
            return Err(Error::Shape(format!(
                "{m} tasks and {n} examples with {} values",
                values.len()
            )));
        }
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(Error::Shape(format!(
                "the value of task {} and example {} is {}",
                at / n,
                at % n,
                values[at]
            )));
        }
        Ok(Table {
            rows,
            columns,
            values,
        })
    }

    /// Number of tasks.
    pub fn height(&self) -> usize {
        self.rows.len()
    }

    /// Number of examples.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// The ids of the tasks.
    pub fn row_ids(&self) -> &[u64] {
        &self.rows
    }

    /// The ids of the examples.
    pub fn column_ids(&self) -> &[u64] {
        &self.columns
    }

    /// All values, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// A task's values.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.width()..(i + 1) * self.width()]
    }

    /// Its rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.width())
    }

    /// These rows alone, in this order.
    ///
    /// # Errors
    /// When there is none, or one that does not exist.
    pub fn select(&self, rows: &[usize]) -> Result<Table> {
        if let Some(row) = rows.iter().find(|r| **r >= self.height()) {
            return Err(Error::Split(format!(
                "there is no task {row}, only {}",
                self.height()
            )));
        }
        let values = rows.iter().flat_map(|r| self.row(*r)).copied().collect();
        let ids = rows.iter().map(|r| self.rows[*r]).collect();
        Table::new(ids, self.columns.clone(), values)
    }

    /// These columns alone, in this order.
    ///
    /// # Errors
    /// When there is none, or one that does not exist.
    pub fn select_columns(&self, columns: &[usize]) -> Result<Table> {
        if let Some(column) = columns.iter().find(|c| **c >= self.width()) {
            return Err(Error::Shape(format!("there is no example {column}")));
        }
        let pick = |row: &[f32]| columns.iter().map(|c| row[*c]).collect::<Vec<f32>>();
        let values = self.iter().flat_map(pick).collect();
        let ids = columns.iter().map(|c| self.columns[*c]).collect();
        Table::new(self.rows.clone(), ids, values)
    }

    /// The mean of each row, the mean of each column, and the mean of all.
    pub fn means(&self) -> (Vec<f64>, Vec<f64>, f64) {
        let n = self.width();
        let of_row = |row: &[f32]| blocked_sum(row) / n as f64;
        let rows: Vec<f64> = self.values.par_chunks_exact(n).map(of_row).collect();
        let all = rows.iter().sum::<f64>() / rows.len() as f64;
        (rows, self.column_means(), all)
    }

    /// The mean of each column.
    pub fn column_means(&self) -> Vec<f64> {
        let mut means = vec![0.0; self.width()];
        let height = self.height() as f64;
        let blocks = means.par_chunks_mut(BLOCK).enumerate();
        blocks.for_each(|(block, means)| {
            let from = block * BLOCK;
            for row in self.iter() {
                let values = &row[from..from + means.len()];
                means
                    .iter_mut()
                    .zip(values)
                    .for_each(|(m, v)| *m += f64::from(*v));
            }
            means.iter_mut().for_each(|m| *m /= height);
        });
        means
    }
}

/// Columns of a block, which is summed in one piece whatever the number of threads.
pub(crate) const BLOCK: usize = 4096;

/// The sum of numbers, block by block.
pub(crate) fn blocked_sum(values: &[f32]) -> f64 {
    let of_block = |block: &[f32]| block.iter().map(|v| f64::from(*v)).sum::<f64>();
    values.chunks(BLOCK).map(of_block).sum()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ebb_space::Key;

    /// A table whose values follow from their places.
    pub(crate) fn table(m: usize, n: usize, value: impl Fn(usize, usize) -> f64) -> Table {
        let values = (0..m * n).map(|at| value(at / n, at % n) as f32).collect();
        let ids = |count: usize| (0..count as u64).collect();
        Table::new(ids(m), ids(n), values).unwrap()
    }

    /// Row and column effects, `rank` further directions and noise.
    pub(crate) fn world(m: usize, n: usize, rank: usize, noise: f64, seed: u64) -> Table {
        let key = Key::new(seed, "world");
        let normal = |what: &str, i: usize, k: usize| key.sub(what).at(k as u64).normal(i as u64);
        table(m, n, |i, j| {
            let more: f64 = (0..rank)
                .map(|k| normal("p", i, k) * normal("q", j, k) / (k + 1) as f64)
                .sum();
            0.3 + 0.4 * normal("row", i, 0)
                + 0.5 * normal("column", j, 0)
                + 0.5 * more
                + noise * key.sub("noise").at(i as u64).normal(j as u64)
        })
    }

    #[test]
    fn means_of_a_known_table_and_of_a_wide_one() {
        let t = table(2, 3, |i, j| (10 * i + j) as f64);
        assert_eq!(t.means(), (vec![1.0, 11.0], vec![5.0, 6.0, 7.0], 6.0));
        let wide = table(3, 10_000, |i, j| (i * j) as f64);
        let (rows, columns, _) = wide.means();
        assert_eq!(rows[2], 9999.0);
        assert!(columns.iter().enumerate().all(|(j, m)| *m == j as f64));
    }

    #[test]
    fn what_is_no_table_is_refused() {
        assert!(Table::new(vec![0], vec![0, 1], vec![1.0]).is_err());
        assert!(Table::new(vec![], vec![0], vec![]).is_err());
        assert!(Table::new(vec![0], vec![0], vec![f32::NAN]).is_err());
        let t = table(2, 2, |i, j| (i + j) as f64);
        assert!(t.select(&[2]).is_err() && t.select(&[]).is_err());
        assert_eq!(t.select(&[1]).unwrap().values(), [1.0, 2.0]);
        assert_eq!(t.select_columns(&[1]).unwrap().values(), [1.0, 2.0]);
    }
}
