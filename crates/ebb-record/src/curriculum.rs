//! Which experience trains which test set: what "earlier", "seen" and "first visit" mean.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The order in which the test sets of a stream are trained. Experiences may recur, or train
/// several sets at once (joint training is one experience that trains them all).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Curriculum {
    sets: usize,
    trains: Vec<Vec<usize>>,
}

impl Curriculum {
    /// Experience `i` trains test set `i`, once.
    pub fn square(experiences: usize) -> Curriculum {
        Curriculum {
            sets: experiences,
            trains: (0..experiences).map(|i| vec![i]).collect(),
        }
    }

    /// Experience `i` trains the sets `trains[i]` of `sets` test sets.
    ///
    /// # Errors
    /// [`Error::Evaluation`] if an experience names a set that does not exist.
    pub fn new(sets: usize, mut trains: Vec<Vec<usize>>) -> Result<Curriculum> {
        for (experience, trained) in trains.iter_mut().enumerate() {
            trained.sort_unstable();
            trained.dedup();
            if let Some(set) = trained.iter().find(|&&set| set >= sets) {
                let why =
                    format!("experience {experience} trains set {set}, but there are {sets} sets");
                return Err(Error::Evaluation(why));
            }
        }
        Ok(Curriculum { sets, trains })
    }

    /// Number of test sets.
    pub fn sets(&self) -> usize {
        self.sets
    }

    /// Number of experiences.
    pub fn experiences(&self) -> usize {
        self.trains.len()
    }

    /// The sets that `experience` trains.
    pub fn trains(&self, experience: usize) -> &[usize] {
        self.trains.get(experience).map_or(&[], Vec::as_slice)
    }

    /// The first experience that trains `set`.
    pub fn first_visit(&self, set: usize) -> Option<usize> {
        self.trains
            .iter()
            .position(|trained| trained.contains(&set))
    }

    /// The last experience up to and including `by` that trains `set`.
    pub fn last_visit(&self, set: usize, by: usize) -> Option<usize> {
        let known = &self.trains[..self.trains.len().min(by + 1)];
        known.iter().rposition(|trained| trained.contains(&set))
    }

    /// The sets trained up to and including `experience`, ascending.
    pub fn seen(&self, experience: usize) -> Vec<usize> {
        (0..self.sets)
            .filter(|&set| self.last_visit(set, experience).is_some())
            .collect()
    }

    /// The sets trained before `experience` and not by it, ascending.
    pub fn earlier(&self, experience: usize) -> Vec<usize> {
        let before = |set: &usize| {
            self.last_visit(*set, experience)
                .is_some_and(|v| v < experience)
        };
        (0..self.sets).filter(before).collect()
    }
}
