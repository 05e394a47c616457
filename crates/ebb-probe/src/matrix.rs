//! The association matrix: what each task did to each upstream example.
//!
//! **Source.** Jin & Ren, NeurIPS 2025 (card S000). **Definition.** One base model `f₀`; each task
//! `i` is learnt from `f₀` alone, never one after the other, and gives `f_i`. Then
//! `z_ij = L_i(x_j) − L_0(x_j)`, the rise in loss of upstream example `j` (below 0: it got
//! better), and, among the examples that `f₀` answers right, whether `f_i` answers wrong.
//! A matrix belongs to one base and one way of fine-tuning, and carries the hashes of both.

use crate::error::{Error, Result};
use crate::table::Table;
use ebb_space::ExampleId;

/// M tasks by N upstream examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Association {
    /// BLAKE3 of the way of fine-tuning; empty where nobody said.
    pub recipe: String,
    /// BLAKE3 of the base model's weights; empty where nobody said.
    pub base: String,
    /// Names of the tasks.
    pub tasks: Vec<String>,
    /// Ids of the upstream examples: those of this program, or any text.
    pub examples: Vec<String>,
    /// `L_0` of each example; empty where nobody measured it.
    pub base_loss: Vec<f32>,
    /// Whether the base answers each example right; empty where nobody measured it.
    pub base_correct: Vec<bool>,
    /// `z`, task by task. NaN where there is no value.
    pub z: Vec<f32>,
    /// Whether the task's model answers wrong, task by task; empty where nobody measured it.
    pub wrong: Vec<bool>,
}

/// Examples that are left, and where each of them stood before.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// For each column that is left its number in the matrix it came from.
    pub columns: Vec<usize>,
}

impl Association {
    /// Checks that every part has the length that tasks and examples ask for.
    ///
    /// # Errors
    /// When one has not, or two tasks or examples have one name.
    pub fn checked(self) -> Result<Self> {
        let (m, n) = (self.tasks.len(), self.examples.len());
        let one_of = |what: &str, found: usize, wanted: usize| match found {
            0 => Ok(()),
            _ if found == wanted => Ok(()),
            _ => Err(Error::Shape(format!(
                "{found} {what} where {wanted} are needed"
            ))),
        };
        if m == 0 || n == 0 || self.z.len() != m * n {
            return Err(Error::Shape(format!(
                "{m} tasks and {n} examples with {} values",
                self.z.len()
            )));
        }
        one_of("base losses", self.base_loss.len(), n)?;
        one_of("base answers", self.base_correct.len(), n)?;
        one_of("answers", self.wrong.len(), m * n)?;
        if self.wrong.is_empty() != self.base_correct.is_empty() {
            return Err(Error::Shape(
                "answers of the base and of the tasks' models come together or not at all".into(),
            ));
        }
        for (what, names) in [("task", &self.tasks), ("example", &self.examples)] {
            let mut seen = std::collections::HashSet::new();
            if let Some(name) = names.iter().find(|name| !seen.insert(name.as_str())) {
                return Err(Error::Shape(format!("the {what} `{name}` occurs twice")));
            }
        }
        Ok(self)
    }

    /// A task's row.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn row(&self, task: usize) -> &[f32] {
        let n = self.examples.len();
        &self.z[task * n..(task + 1) * n]
    }

    /// Refuses what was made in another way or from another model; an empty hash on either side
    /// passes, since nobody said.
    ///
    /// # Errors
    /// [`Error::OtherRecipe`], [`Error::OtherBase`].
    pub fn check_made_with(&self, recipe: &str, base: &str) -> Result<()> {
        let differ = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && a != b;
        if differ(&self.recipe, recipe) {
            return Err(Error::OtherRecipe {
                matrix: self.recipe.clone(),
                asked: recipe.to_owned(),
            });
        }
        if differ(&self.base, base) {
            return Err(Error::OtherBase {
                matrix: self.base.clone(),
                asked: base.to_owned(),
            });
        }
        Ok(())
    }

    /// The matrix without the examples that lack a value for some task, and the map back.
    ///
    /// # Errors
    /// When none is left.
    pub fn without_gaps(&self) -> Result<(Association, Kept)> {
        let mut whole: Vec<bool> = vec![true; self.examples.len()];
        for row in self.z.chunks_exact(self.examples.len()) {
            whole
                .iter_mut()
                .zip(row)
                .for_each(|(w, z)| *w &= z.is_finite());
        }
        self.keep(|j| whole[j])
    }

    /// The matrix of the examples that `test` keeps, and the map back.
    ///
    /// # Errors
    /// When none is left.
    pub fn keep(&self, test: impl Fn(usize) -> bool) -> Result<(Association, Kept)> {
        let n = self.examples.len();
        let columns: Vec<usize> = (0..n).filter(|j| test(*j)).collect();
        let of_rows = |from: &[f32]| -> Vec<f32> {
            let rows = from.chunks_exact(n);
            rows.flat_map(|row| columns.iter().map(|j| row[*j]))
                .collect()
        };
        let wrong = self.wrong.chunks_exact(n);
        let kept = Association {
            recipe: self.recipe.clone(),
            base: self.base.clone(),
            tasks: self.tasks.clone(),
            examples: columns.iter().map(|j| self.examples[*j].clone()).collect(),
            base_loss: pick(&self.base_loss, &columns),
            base_correct: pick(&self.base_correct, &columns),
            z: of_rows(&self.z),
            wrong: wrong
                .flat_map(|row| columns.iter().map(|j| row[*j]))
                .collect(),
        };
        Ok((kept.checked()?, Kept { columns }))
    }

    /// The rises in loss as a table.
    ///
    /// # Errors
    /// [`Error::Gaps`] while a value is missing.
    pub fn losses(&self) -> Result<Table> {
        let n = self.examples.len();
        let gap = |j: &usize| (0..self.tasks.len()).any(|i| !self.z[i * n + j].is_finite());
        if self.z.iter().any(|z| !z.is_finite()) {
            let gaps: Vec<usize> = (0..n).filter(gap).collect();
            return Err(Error::Gaps {
                columns: gaps.len(),
                of: n,
                first: self.examples[gaps[0]].clone(),
            });
        }
        Table::new(self.task_ids(), self.example_ids(), self.z.clone())
    }

    /// Which answers turned from right to wrong, as a table of 0 and 1 over the examples that the
    /// base answers right, and the map back.
    ///
    /// # Errors
    /// [`Error::NoFlips`] when nobody measured it, or the base answers nothing right.
    pub fn flips(&self) -> Result<(Table, Kept)> {
        if self.wrong.is_empty() {
            // A file of the user's may hold flips in the place of losses.
            if self.z.iter().any(|z| *z != 0.0 && *z != 1.0) {
                return Err(Error::NoFlips);
            }
            let columns = (0..self.examples.len()).collect();
            return Ok((self.losses()?, Kept { columns }));
        }
        let n = self.examples.len();
        let columns: Vec<usize> = (0..n).filter(|j| self.base_correct[*j]).collect();
        if columns.is_empty() {
            return Err(Error::NoFlips);
        }
        let rows = self.wrong.chunks_exact(n);
        let values = rows
            .flat_map(|row| columns.iter().map(|j| f32::from(u8::from(row[*j]))))
            .collect();
        let ids = self.example_ids();
        let ids = columns.iter().map(|j| ids[*j]).collect();
        Ok((Table::new(self.task_ids(), ids, values)?, Kept { columns }))
    }

    /// The number of the task called `name`.
    pub fn task(&self, name: &str) -> Option<usize> {
        self.tasks.iter().position(|task| task == name)
    }

    fn task_ids(&self) -> Vec<u64> {
        self.tasks.iter().map(|t| digest(t)).collect()
    }

    /// What draws know the examples by.
    pub fn example_ids(&self) -> Vec<u64> {
        self.examples.iter().map(|e| digest(e)).collect()
    }
}

fn pick<T: Copy>(from: &[T], columns: &[usize]) -> Vec<T> {
    match from.is_empty() {
        true => Vec::new(),
        false => columns.iter().map(|j| from[*j]).collect(),
    }
}

/// An example id of this program by its own digest, any other name by a hash.
fn digest(name: &str) -> u64 {
    if let Ok(id) = name.parse::<ExampleId>() {
        return id.mix();
    }
    let mut hasher = blake3::Hasher::new_derive_key("ebbinghaus v1 matrix name");
    hasher.update(name.as_bytes());
    let mut eight = [0; 8];
    eight.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(eight)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn small() -> Association {
        Association {
            recipe: "r".repeat(64),
            base: "b".repeat(64),
            tasks: vec!["rotate".into(), "a, \"quoted\" task".into()],
            examples: vec!["one".into(), "two".into(), "three".into()],
            base_loss: vec![0.5, 0.25, 0.125],
            base_correct: vec![true, false, true],
            z: vec![0.5, -0.25, f32::NAN, 1.5, 0.0, 2.0],
            wrong: vec![false, true, true, true, true, false],
        }
    }

    #[test]
    fn gaps_are_refused_and_removed_with_a_map_back() {
        let all = small().checked().unwrap();
        let error = all.losses().unwrap_err();
        assert!(
            matches!(
                error,
                Error::Gaps {
                    columns: 1,
                    of: 3,
                    ..
                }
            ),
            "{error}"
        );
        let (whole, kept) = all.without_gaps().unwrap();
        assert_eq!(kept.columns, [0, 1]);
        assert_eq!(whole.losses().unwrap().values(), [0.5, -0.25, 1.5, 0.0]);
        assert_eq!(whole.wrong, [false, true, true, true]);
        assert_eq!(whole.base_loss, [0.5, 0.25]);
        let none = Association {
            z: vec![f32::NAN; 6],
            ..small()
        };
        assert!(none.without_gaps().is_err());
    }

    #[test]
    fn flips_are_over_what_the_base_answers_right() {
        let (table, kept) = small().flips().unwrap();
        assert_eq!(kept.columns, [0, 2]);
        assert_eq!(table.values(), [0.0, 1.0, 1.0, 0.0]);
        let binary = Association {
            z: vec![0.0, 1.0, 1.0, 0.0, 0.0, 1.0],
            wrong: vec![],
            base_correct: vec![],
            ..small()
        };
        assert_eq!(binary.flips().unwrap().0.values(), binary.z);
        let losses = Association {
            wrong: vec![],
            base_correct: vec![],
            ..small()
        };
        assert!(matches!(losses.flips(), Err(Error::NoFlips)));
    }

    #[test]
    fn other_recipes_bases_and_shapes_are_refused() {
        let m = small();
        assert!(m.check_made_with(&m.recipe, &m.base).is_ok());
        assert!(m.check_made_with("", "").is_ok());
        assert!(matches!(
            m.check_made_with("x", ""),
            Err(Error::OtherRecipe { .. })
        ));
        assert!(matches!(
            m.check_made_with("", "x"),
            Err(Error::OtherBase { .. })
        ));
        for broken in [
            Association {
                z: vec![0.0],
                ..small()
            },
            Association {
                base_loss: vec![0.0],
                ..small()
            },
            Association {
                wrong: vec![],
                ..small()
            },
            Association {
                tasks: vec!["a".into(), "a".into()],
                ..small()
            },
        ] {
            assert!(broken.checked().is_err());
        }
    }

    #[test]
    fn examples_of_this_program_are_drawn_as_elsewhere() {
        let id = ExampleId::of(b"x", 3);
        assert_eq!(digest(&id.to_string()), id.mix());
        assert_ne!(digest("one"), digest("two"));
    }
}
