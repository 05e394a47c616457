//! The mean over the train rows: how fragile an example is, whatever the task.
//!
//! **What it does.** Forecasts every task alike, and asks nothing of the new one.
//! **Source.** The baseline of card S000: a forecast that does not beat it adds nothing.
//! **Equation.** `ẑ_ij = 1/M Σ_v z_vj`.
//! **Use it** as the control. **Not** for more than a ranking of examples.
//! **Stores** one number an example. **Costs** nothing a row.

use super::{Completer, Fitted, Known};
use crate::error::Result;
use crate::table::Table;
use ebb_space::Key;

/// The mean of each column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ColumnMean;

impl Completer for ColumnMean {
    fn name(&self) -> &'static str {
        "column-mean"
    }

    fn fit<'a>(&'a self, train: &'a Table, _: Key) -> Result<Box<dyn Fitted + 'a>> {
        let means = train.column_means();
        Ok(Box::new(Means(means.iter().map(|m| *m as f32).collect())))
    }
}

struct Means(Vec<f32>);

impl Fitted for Means {
    fn complete(&self, _: &Known) -> Result<Vec<f32>> {
        Ok(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::known_of;
    use super::*;
    use crate::table::tests::table;

    #[test]
    fn means_whatever_is_known() {
        let t = table(3, 12, |i, j| (i * 12 + j) as f64);
        let known = known_of(&t, 0, &(0..10).collect::<Vec<_>>());
        let row = ColumnMean
            .fit(&t, Key::new(0, "x"))
            .unwrap()
            .complete(&known)
            .unwrap();
        assert!(row.iter().enumerate().all(|(j, z)| *z == (12 + j) as f32));
    }
}
