//! Gradients of cross-entropy with a weight for each example that hangs on its loss.

use crate::error::Result;
use crate::subject::Subject;
use ebb_data::Item;
use ebb_learn::objective::remembering;
use ebb_space::Weights;
use std::collections::HashMap;

/// `−ln p` of each training item; of a text, the sum over what it learns.
pub(crate) fn nll(subject: &mut Subject, items: &[Item]) -> Result<Vec<f32>> {
    let mut all = Vec::with_capacity(items.len());
    for items in items.chunks(256) {
        let batch = subject.batch(items);
        let pass = subject.oracle().evaluate(&remembering(), &batch)?;
        let mut of: HashMap<u64, f32> = HashMap::new();
        for (row, loss) in batch.rows.ids.iter().zip(&pass.value.row_loss) {
            // Rows that learn nothing have no loss.
            if loss.is_finite() {
                *of.entry(row.example).or_default() += loss;
            }
        }
        all.extend(
            items
                .iter()
                .map(|i| of.get(&i.id.mix()).copied().unwrap_or(0.0)),
        );
    }
    Ok(all)
}

/// The mean over examples of `w(nll) ∂nll`, `w` held fixed; it is asked in the order of the items.
pub(crate) fn gradient(
    subject: &mut Subject,
    items: &[Item],
    into: &mut Weights,
    mut weight: impl FnMut(f32) -> f32,
) -> Result<()> {
    let weights: Vec<f32> = nll(subject, items)?.into_iter().map(&mut weight).collect();
    let of: HashMap<u64, f32> = items.iter().map(|i| i.id.mix()).zip(weights).collect();
    let mut batch = subject.batch(items);
    // The objective is a mean over the rows that count; a mean over examples is wanted.
    let mask = batch.rows.mask.as_ref();
    let rows = mask.map_or(batch.rows.len(), |m| m.iter().filter(|m| **m).count());
    let scale = rows as f32 / items.len() as f32;
    let row = |id: &ebb_space::RowId| of.get(&id.example).copied().unwrap_or(0.0) * scale;
    batch.rows.weight = Some(batch.rows.ids.iter().map(row).collect());
    subject
        .oracle()
        .gradient(&remembering(), &batch, None, into)?;
    Ok(())
}
