//! Measuring what came out of a request.

use super::submit::bare;
use super::work::data_hash;
use super::{Case, FORMAT, Office};
use crate::equivalence::{Equivalence, equivalent};
use crate::error::{Error, Result};
use crate::exact;
use crate::left::{Relearning, left};
use crate::subject::Subject;
use ebb_learn::{Around, Recipe, Session, learn_keeping};
use ebb_record::RunView;
use ebb_record::ledger::{Claim, Digest, Entry, Word};
use ebb_revise::Oracle;
use ebb_space::{Number, Weights};
use serde::{Deserialize, Serialize};

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verifying {
    /// Models that are trained without the records, with other seeds, to compare with; 0: none.
    pub oracles: u64,
    /// The greatest difference to them that counts as none, stated before.
    pub margin: f64,
    /// Whether an exact result is also learnt from scratch, to compare bit for bit.
    pub prove: bool,
}

/// What was measured of a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Verified {
    /// Version of the format.
    pub format_version: u32,
    /// What it was compared with.
    pub oracle: Oracle,
    /// Whether learning from scratch came to the same bits, where that was tried.
    pub same_bits: Option<bool>,
    /// What is left of the records, and what the model can do.
    pub numbers: Vec<Number>,
    /// The same beside models that never saw them.
    pub equivalences: Vec<Equivalence>,
    /// The greatest difference that counted as none.
    pub margin: f64,
    /// Hash of the data that remained.
    pub data: Digest,
}

impl Verified {
    /// Whether every test was passed.
    pub fn passed(&self) -> bool {
        // Equal to the bit is more than equivalent.
        (self.same_bits).unwrap_or_else(|| self.equivalences.iter().all(|e| e.holds))
    }
}

/// What of a model is compared: shares, whose margin is one number.
fn compared(name: &str) -> bool {
    name.ends_with("_accuracy") || name == "attack_auc"
}

impl Office {
    /// Measures the result of a request, and writes it down.
    ///
    /// # Errors
    /// When nothing was done yet, or the records are no longer in the data: then nobody can measure
    /// what is left of them.
    pub fn verify(&self, case: &Case, how: &Verifying, around: &mut Around) -> Result<Verified> {
        let Some(work) = self.work(case)? else {
            return Err(Error::Request {
                reason: "it was not carried out yet: `ebb forget run` first".into(),
            });
        };
        let without = Recipe::parse(&RunView::load(&work.out)?.recipe, &[])?;
        let mut result = Session::new(&without, around.data_dir)?;
        let data = data_hash(&result);
        let states = RunView::load(&work.out)?.states()?;
        result.restore(&states.checkout(work.after.id.as_str())?)?;
        let weights = result.oracle.model.weights();
        let measure = |weights: &Weights, around: &Around| -> Result<Vec<Number>> {
            let gone = self.gone(case)?;
            let mut session = Session::new(&bare(&without)?, around.data_dir)?;
            session.position.experience = session.stream.experiences.len();
            (session.oracle.model.set_weights(weights)).map_err(ebb_learn::Error::from)?;
            let mut subject = Subject::of(session, &gone, around.stop)?;
            left(&mut subject, &Relearning::default())
        };
        let numbers = measure(&weights, around)?;
        let mut theirs: Vec<Vec<Number>> = Vec::new();
        for model in 1..=how.oracles {
            let seed = without.file().seed + model;
            let sets = [("seed".to_owned(), seed.to_string())];
            // Other weights and draws; the data stays the one that the request is about.
            let stream = without.file().stream.seed.unwrap_or(without.file().seed);
            let fixed = ("stream.seed".to_owned(), stream.to_string());
            let sets = match without.file().language.is_some() {
                true => sets.to_vec(),
                false => [&sets[..], &[fixed]].concat(),
            };
            let recipe = Recipe::parse(without.text(), &sets)?;
            let session = Session::new(&recipe, around.data_dir)?;
            let (_, session) = learn_keeping(session, None, around)?;
            theirs.push(measure(&session.oracle.model.weights(), around)?);
        }
        let mut equivalences = Vec::new();
        if how.oracles >= 2 {
            for number in numbers.iter().filter(|n| compared(&n.name)) {
                let of: Vec<f64> = (theirs.iter())
                    .filter_map(|t| t.iter().find(|n| n.name == number.name))
                    .map(|n| n.value)
                    .collect();
                equivalences.push(equivalent(number, &of, how.margin)?);
            }
        }
        let same_bits = match how.prove && work.claim == Claim::Exact {
            true => {
                let scratch = exact::from_scratch(&without, around)?;
                Some(scratch == work.after.weights.to_string())
            }
            false => None,
        };
        let verified = Verified {
            format_version: FORMAT,
            oracle: match (same_bits, how.oracles) {
                (_, n) if n >= 2 => Oracle::Retrained { models: n },
                (Some(_), _) => Oracle::Replayed,
                (None, _) => Oracle::None,
            },
            same_bits,
            numbers,
            equivalences,
            margin: how.margin,
            data,
        };
        let text = serde_json::to_vec(&verified).unwrap_or_default();
        self.tell(&[
            Entry::Verified {
                request: case.id,
                report: Digest(*blake3::hash(&text).as_bytes()),
                passed: verified.passed(),
                oracle: how.oracles >= 2,
            },
            Entry::PhaseDone {
                request: case.id,
                phase: Word::new("verify")?,
            },
        ])?;
        self.write(&case.id, "verified.json", &verified)?;
        Ok(verified)
    }
}
