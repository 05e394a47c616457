//! The matrix as a Parquet file: one row an example.
//!
//! Columns: `example` (text), `base_loss` (NaN where nobody measured it), `z0`, `z1`, … one a
//! task; where answers were measured also `base_correct`, and `wrong0`, `wrong1`, …. The tasks'
//! names, the recipe's hash and the base's hash are kept beside them (`ebb.tasks`, a JSON list;
//! `ebb.recipe`; `ebb.base`).

use crate::error::{Error, Result};
use crate::matrix::Association;
use ebb_record::{ColumnFile, ColumnReader, Disk};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, FloatType};
use std::path::Path;

/// The newest version of the matrix file that this program reads.
pub const MATRIX_VERSION: u32 = 1;

const TASKS: &str = "ebb.tasks";
const RECIPE: &str = "ebb.recipe";
const BASE: &str = "ebb.base";
const ANSWERS: &str = "ebb.answers";
/// Examples of a row group.
const GROUP: usize = 1 << 17;
/// More tasks than this in a file are damage.
const MOST_TASKS: usize = 1 << 16;

fn schema(tasks: usize, answers: bool) -> String {
    let mut text = String::from(
        "message matrix { REQUIRED BYTE_ARRAY example (UTF8); REQUIRED FLOAT base_loss; ",
    );
    (0..tasks).for_each(|i| text.push_str(&format!("REQUIRED FLOAT z{i}; ")));
    if answers {
        text.push_str("REQUIRED BOOLEAN base_correct; ");
        (0..tasks).for_each(|i| text.push_str(&format!("REQUIRED BOOLEAN wrong{i}; ")));
    }
    text + "}"
}

impl Association {
    /// Writes the matrix, in the place of a file that is there.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_parquet(&self, path: &Path) -> Result<()> {
        let (m, n) = (self.tasks.len(), self.examples.len());
        let answers = !self.wrong.is_empty();
        let tasks = serde_json::to_string(&self.tasks).map_err(|e| damaged(path, e))?;
        let pairs = [
            (TASKS, tasks),
            (RECIPE, self.recipe.clone()),
            (BASE, self.base.clone()),
            (ANSWERS, answers.to_string()),
        ];
        let bytes = (4 * m * n) as u64;
        Disk::default().replace_with(path, bytes, |file| {
            let schema = schema(m, answers);
            let mut out = ColumnFile::create(file, path, &schema, MATRIX_VERSION, &pairs)?;
            for from in (0..n).step_by(GROUP) {
                let range = from..(from + GROUP).min(n);
                let mut group = out.row_group()?;
                let names = self.examples[range.clone()].iter();
                let names: Vec<ByteArray> = names.map(|e| e.as_str().into()).collect();
                group.required::<ByteArrayType>(&names)?;
                match self.base_loss.get(range.clone()) {
                    Some(loss) => group.required::<FloatType>(loss)?,
                    None => group.required::<FloatType>(&vec![f32::NAN; range.len()])?,
                }
                for row in self.z.chunks_exact(n) {
                    group.required::<FloatType>(&row[range.clone()])?;
                }
                if answers {
                    group.required::<BoolType>(&self.base_correct[range.clone()])?;
                    for row in self.wrong.chunks_exact(n) {
                        group.required::<BoolType>(&row[range.clone()])?;
                    }
                }
                group.close()?;
            }
            out.finish()
        })?;
        Ok(())
    }

    /// Reads a matrix that [`write_parquet`](Association::write_parquet) wrote.
    ///
    /// # Errors
    /// When the file cannot be read, is newer, or is damaged.
    pub fn read_parquet(path: &Path) -> Result<Association> {
        let mut tasks: Vec<String> = Vec::new();
        let reader = ColumnReader::open_with(path, MATRIX_VERSION, |pairs| {
            let damaged = |what: &str| ebb_record::Error::Damaged {
                path: path.to_owned(),
                what: what.to_owned(),
            };
            let list = pairs
                .get(TASKS)
                .ok_or_else(|| damaged("it names no tasks"))?;
            tasks = serde_json::from_str(list).map_err(|e| damaged(&e.to_string()))?;
            if tasks.len() > MOST_TASKS {
                return Err(damaged("it names too many tasks"));
            }
            let answers = pairs.get(ANSWERS).is_some_and(|a| a == "true");
            Ok(schema(tasks.len(), answers))
        })?;
        let m = tasks.len();
        let answers = reader.pair(ANSWERS) == Some("true");
        let text = |key: &str| reader.pair(key).unwrap_or_default().to_owned();
        let (recipe, base) = (text(RECIPE), text(BASE));
        let (mut examples, mut base_loss, mut base_correct) = (Vec::new(), Vec::new(), Vec::new());
        let mut z: Vec<Vec<f32>> = vec![Vec::new(); m];
        let mut wrong: Vec<Vec<bool>> = vec![Vec::new(); if answers { m } else { 0 }];
        for index in 0..reader.row_groups() {
            let group = reader.row_group(index)?;
            for name in group.required::<ByteArrayType>(0)? {
                let name = name.as_utf8().map_err(|e| damaged(path, e))?;
                examples.push(name.to_owned());
            }
            base_loss.extend(group.required::<FloatType>(1)?);
            for (i, row) in z.iter_mut().enumerate() {
                row.extend(group.required::<FloatType>(2 + i)?);
            }
            if answers {
                base_correct.extend(group.required::<BoolType>(2 + m)?);
            }
            for (i, row) in wrong.iter_mut().enumerate() {
                row.extend(group.required::<BoolType>(3 + m + i)?);
            }
        }
        if base_loss.iter().all(|l| l.is_nan()) {
            base_loss.clear();
        }
        Association {
            recipe,
            base,
            tasks,
            examples,
            base_loss,
            base_correct,
            z: z.concat(),
            wrong: wrong.concat(),
        }
        .checked()
    }
}

fn damaged(path: &Path, what: impl ToString) -> Error {
    Error::Damaged {
        path: path.to_owned(),
        what: what.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::tests::small;

    #[test]
    fn a_matrix_comes_back_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("matrix.parquet");
        let bits = |a: &Association| a.z.iter().map(|z| z.to_bits()).collect::<Vec<_>>();
        let full = small();
        let bare = Association {
            base_loss: vec![],
            base_correct: vec![],
            wrong: vec![],
            recipe: String::new(),
            ..small()
        };
        for matrix in [full, bare] {
            matrix.write_parquet(&path).unwrap();
            let back = Association::read_parquet(&path).unwrap();
            assert_eq!(bits(&matrix), bits(&back));
            let same = |a: &Association| Association {
                z: vec![],
                ..a.clone()
            };
            assert_eq!(same(&matrix), same(&back));
        }
    }

    #[test]
    fn damaged_files_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("matrix.parquet");
        small().write_parquet(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            std::fs::write(&path, &bytes).unwrap();
            // Some flips change a value and nothing else; none may panic.
            let _ = Association::read_parquet(&path);
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(Association::read_parquet(&path).is_err());
        }
        std::fs::write(&path, b"task,example,z\n").unwrap();
        assert!(Association::read_parquet(&path).is_err());
    }
}
