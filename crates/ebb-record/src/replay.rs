//! The records of a run, reduced again: what the summary of an unfinished run is made from.

use crate::answers::Answers;
use crate::cell::Cell;
use crate::curriculum::Curriculum;
use crate::error::{Error, Result};
use crate::matrix::AccuracyMatrix;
use crate::panel::{Answer, Panel};
use crate::records::{Cost, Eval, ExperienceInfo, Record, Start, StateRecord};
use crate::summary::Curves;

/// Everything the records of a run tell.
#[derive(Clone, Debug)]
pub struct Replay {
    /// What the run is; a later verb that starts again replaces it.
    pub start: Start,
    /// Accuracy after each experience.
    pub matrix: AccuracyMatrix,
    /// Mean loss on each test set, in the newest row of the matrix; empty before the first row.
    pub losses: Vec<Option<f64>>,
    /// The same after each experience.
    pub loss_rows: Vec<Vec<Option<f64>>>,
    /// The reducers over the panel, their gaps closed if the run has ended.
    pub panel: Panel,
    /// Accuracy at each evaluated step.
    pub curves: Curves,
    /// Answers in the model's own words, in order.
    pub answers: Vec<Answers>,
    /// The states made, in order.
    pub states: Vec<StateRecord>,
    /// What was measured of the cost.
    pub cost: Cost,
    /// Whether the run came to its end.
    pub ended: bool,
}

impl Start {
    /// Which experience trains which test set.
    ///
    /// # Errors
    /// [`Error::Evaluation`] if an experience names a set that does not exist.
    pub fn curriculum(&self) -> Result<Curriculum> {
        let sets = if self.sets.is_empty() {
            self.experiences.len()
        } else {
            self.sets.len()
        };
        let trains = |(i, e): (usize, &ExperienceInfo)| e.sets.clone().unwrap_or_else(|| vec![i]);
        Curriculum::new(
            sets,
            self.experiences.iter().enumerate().map(trains).collect(),
        )
    }

    fn empty_matrix(&self) -> Result<AccuracyMatrix> {
        Ok(AccuracyMatrix::new(
            self.curriculum()?,
            self.protocol.clone(),
        ))
    }

    /// An empty panel of this run.
    ///
    /// # Errors
    /// As [`curriculum`](Start::curriculum).
    pub fn panel(&self) -> Result<Panel> {
        let own = [self.protocol.as_str(), self.panel_protocol.as_str()];
        let protocol: Vec<&str> = own.into_iter().filter(|p| !p.is_empty()).collect();
        Ok(Panel::new(self.curriculum()?, protocol.join("; ")))
    }
}

impl Replay {
    /// Goes through the records.
    ///
    /// # Errors
    /// [`Error::NotBegun`] if there is no start, [`Error::Evaluation`] if an evaluation cannot be.
    pub fn of(records: &[Record]) -> Result<Replay> {
        let start = records.iter().rev().find_map(|record| match record {
            Record::Start(start) => Some(start.clone()),
            _ => None,
        });
        let start = start.ok_or(Error::NotBegun)?;
        let mut replay = Replay {
            matrix: start.empty_matrix()?,
            losses: Vec::new(),
            loss_rows: Vec::new(),
            panel: start.panel()?,
            curves: Curves::new(start.curriculum()?.sets()),
            start,
            answers: Vec::new(),
            states: Vec::new(),
            cost: Cost::default(),
            ended: false,
        };
        let mut evals: Vec<Eval> = Vec::new();
        let (mut newest, sets) = (None, replay.start.curriculum()?.sets());
        for record in records {
            if let Record::Column(c) = record
                && newest.is_none_or(|n| n < c.after)
            {
                newest = Some(c.after);
                replay.losses = vec![None; sets];
            }
            if let Record::Eval(eval) = record {
                if evals
                    .first()
                    .is_some_and(|e| (e.step, e.experience) != (eval.step, eval.experience))
                {
                    replay.observe(&mut evals)?;
                }
                evals.push(*eval);
                continue;
            }
            replay.take(record)?;
        }
        replay.observe(&mut evals)?;
        if replay.ended {
            replay.panel.close();
        }
        Ok(replay)
    }

    fn take(&mut self, record: &Record) -> Result<()> {
        match record {
            Record::Column(c) => {
                let after = usize::try_from(c.after).ok();
                self.matrix.set(
                    after,
                    c.set,
                    Cell {
                        correct: c.correct,
                        n: c.n,
                    },
                )?;
                // The matrix knows the set, so its number is below theirs.
                let loss = Some(c.loss).filter(|l| l.is_finite());
                self.losses[c.set] = loss;
                if let Some(after) = after {
                    // And the experience.
                    if self.loss_rows.len() <= after {
                        self.loss_rows
                            .resize(after + 1, vec![None; self.losses.len()]);
                    }
                    self.loss_rows[after][c.set] = loss;
                }
            }
            Record::Step(step) => {
                self.cost.steps = Some(step.step);
                self.cost.total_seconds = Some(step.seconds).filter(|s| s.is_finite());
                self.ended = false;
            }
            Record::Answers(answers) => self.answers.push(answers.clone()),
            Record::State(state) => self.states.push(state.clone()),
            Record::End(cost) => {
                self.cost = *cost;
                self.ended = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// The evaluations of one step.
    fn observe(&mut self, evals: &mut Vec<Eval>) -> Result<()> {
        let Some(first) = evals.first().copied() else {
            return Ok(());
        };
        let answers: Vec<Answer> = evals
            .drain(..)
            .map(|eval| Answer {
                set: eval.set,
                cell: Cell {
                    correct: eval.correct,
                    n: eval.n,
                },
                half: eval.half.map(|(correct, n)| Cell { correct, n }),
            })
            .collect();
        self.panel.observe(first.step, first.experience, &answers)?;
        self.curves.push(first.step, first.experience, &answers);
        Ok(())
    }
}
