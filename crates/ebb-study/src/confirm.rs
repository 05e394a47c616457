//! Carrying a verdict over to newer code without running all of it again.
//!
//! A verdict is stale as soon as a source it depends on has changed, even where the change moves
//! no number. Runs are deterministic, so the first seed of every arm, run again, tells: if every
//! recorded value comes back bit for bit, the values stand for the new code too. Besides, every
//! trial of its tuning has to come to the recorded score and the same choice, and the present
//! judges have to find in the values what it says. Then the verdict stands, and says how it was
//! carried over; otherwise it has to be run again. Bits are the same on one type of CPU
//! only; elsewhere a verdict that is sound may fail to be confirmed, never the other way round.

use crate::error::Result;
use crate::runner::{Options, Watch, first_seeds, judged_alike, run, tuned_again};
use crate::study::{Plan, Study};
use crate::verdict::{
    ArmReport, Confirmed, Tuning, Verdict, code_hash, recipe_hash, recorded_hash,
};

/// What came of it.
#[derive(Debug)]
pub enum Outcome {
    /// It was not stale.
    Fresh,
    /// The same bits: the verdict with the new code's hash.
    Same(Box<Verdict>),
    /// It has to be run again, for this reason.
    RunAgain(String),
}

/// Judges again, runs the first seed of every arm and the tuning again, and compares.
///
/// # Errors
/// When a run fails or the user stops it.
pub fn confirm(
    study: &Study,
    verdict: &Verdict,
    options: &Options,
    watch: &mut dyn Watch,
) -> Result<Outcome> {
    if verdict.stale(study).is_none() {
        return Ok(Outcome::Fresh);
    }
    if verdict.recipe_hash != recipe_hash(study)
        && verdict.recipe_hash != recorded_hash(study, verdict)
    {
        return Ok(Outcome::RunAgain("the study has changed".into()));
    }
    if !judged_alike(study, verdict) {
        return Ok(Outcome::RunAgain("its rule judges it otherwise now".into()));
    }
    let compared = match study.plan {
        Plan::Native(..) => whole(study, verdict, options, watch)?,
        Plan::Arms(_) | Plan::Reference(_) => arms(study, verdict, options, watch)?,
    };
    Ok(match compared {
        Err(moved) => Outcome::RunAgain(moved),
        Ok((runs, values)) => Outcome::Same(Box::new(Verdict {
            code_hash: code_hash(study).to_owned(),
            recipe_hash: recipe_hash(study),
            arms: as_written_now(study, verdict),
            confirmed: Some(Confirmed {
                made_by: match &verdict.confirmed {
                    Some(earlier) => earlier.made_by.clone(),
                    None => verdict.code_hash.clone(),
                },
                runs,
                values,
            }),
            ..verdict.clone()
        })),
    })
}

/// The reported arms with the hashes of their recipes as these resolve now.
fn as_written_now(study: &Study, verdict: &Verdict) -> Vec<ArmReport> {
    let tuned = verdict.tuning.as_ref();
    let now = |report: &ArmReport| {
        let arm = study.plan.arms()?.get(&report.name)?;
        let untuned = tuned.is_none_or(|t| !t.arms.contains_key(&report.name));
        // A tuned arm's recipe is that of its choice, and its study has not changed.
        let recipe = arm.recipe(0, &[]).ok().filter(|_| untuned)?;
        Some(recipe.group()).filter(|_| !report.recipe.is_empty())
    };
    let each = verdict.arms.iter().map(|report| ArmReport {
        recipe: now(report).unwrap_or_else(|| report.recipe.clone()),
        ..report.clone()
    });
    each.collect()
}

/// Runs and values compared, or what moved.
type Compared = std::result::Result<(usize, usize), String>;

/// A study with code of its own is run whole.
fn whole(
    study: &Study,
    verdict: &Verdict,
    options: &Options,
    watch: &mut dyn Watch,
) -> Result<Compared> {
    let again = run(study, options, watch)?;
    let same = again.holds == verdict.holds
        && again.expected == verdict.expected
        && again.controls == verdict.controls
        && again.measured == verdict.measured
        && again.arms.len() == verdict.arms.len()
        && (again.arms.iter().zip(&verdict.arms)).all(|(a, b)| a.per_seed == b.per_seed);
    Ok(match same {
        true => Ok((
            1,
            again.measured.len() + again.expected.len() + again.controls.len(),
        )),
        false => Err("run whole, it gave other numbers".into()),
    })
}

fn arms(
    study: &Study,
    verdict: &Verdict,
    options: &Options,
    watch: &mut dyn Watch,
) -> Result<Compared> {
    let repeated = first_seeds(study, verdict, options, watch)?;
    if repeated.len() != verdict.arms.len() {
        return Ok(Err("it reports arms that the study no longer has".into()));
    }
    let first = study.seeds.first().copied().unwrap_or_default();
    let mut values = 0;
    for (report, (arm, now)) in verdict.arms.iter().zip(&repeated) {
        let Some(now) = now else {
            if report.diverged.contains(&first) {
                continue;
            }
            return Ok(Err(format!("{arm} diverges with seed {first} now")));
        };
        if report.diverged.contains(&first) {
            return Ok(Err(format!("{arm} no longer diverges with seed {first}")));
        }
        for (name, recorded) in &report.per_seed {
            match (recorded.first(), now.get(name)) {
                (Some(was), Some(is)) if was.to_bits() == is.to_bits() => values += 1,
                (was, is) => {
                    let word = |v: Option<&f64>| v.map_or("missing".to_owned(), f64::to_string);
                    return Ok(Err(format!(
                        "{arm}: {name} was {} with seed {first} and is {}",
                        word(was),
                        word(is)
                    )));
                }
            }
        }
    }
    if values == 0 {
        return Ok(Err("it has no value of a first seed to compare".into()));
    }
    let tuning = tuned_again(study, options, watch)?;
    let (was, is) = (verdict.tuning.as_ref(), tuning.as_ref());
    Ok(match was.map(choices) == is.map(choices) {
        true => Ok((repeated.len() + is.map_or(0, |t| t.trials), values)),
        false => Err("its coefficients would be chosen otherwise now".into()),
    })
}

/// What a tuning chose, and the bits of the scores by which it did.
fn choices(tuning: &Tuning) -> Vec<impl PartialEq + '_> {
    let bits = |score: &Option<f64>| score.map(f64::to_bits);
    let arms = tuning.arms.iter().map(move |(arm, tuned)| {
        let tried = tuned.tried.iter().map(|(sets, score)| (sets, bits(score)));
        (arm, &tuned.chosen, tried.collect::<Vec<_>>())
    });
    arms.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::Unwatched;
    use std::sync::atomic::AtomicBool;

    const SMALL: &str = r#"
id = "S900"
title = "Replay on digits"
claim = "Replay keeps more than fine-tuning"
source = "a test"
budget_s = 60
seeds = 2
report = ["forgetting"]
[base]
stream = { dataset = "digits", split = 2, per_experience = 60 }
network = { kind = "mlp", hidden = [8] }
train = { lr = 0.1, batch = 16 }
evaluate = { every = 0 }
[arm.er.set]
method = "er"
[arm.none.set]
method = "fine-tune"
[expect]
more = "er.average_accuracy >= none.average_accuracy - 1"
"#;

    #[test]
    fn the_same_bits_are_carried_over_and_others_are_not() {
        let study = Study::parse("small", SMALL).unwrap();
        let dir = std::env::temp_dir();
        let options = Options {
            data_dir: &dir,
            threads: 2,
            stop: &AtomicBool::new(false),
            kept: None,
        };
        let made = run(&study, &options, &mut Unwatched).unwrap();
        let again = |v: &Verdict| confirm(&study, v, &options, &mut Unwatched).unwrap();
        assert!(matches!(again(&made), Outcome::Fresh));
        let old = Verdict {
            code_hash: "older".into(),
            ..made.clone()
        };
        let Outcome::Same(carried) = again(&old) else {
            panic!("the same bits")
        };
        assert_eq!(carried.code_hash, made.code_hash);
        let confirmed = carried.confirmed.unwrap();
        assert_eq!(
            (confirmed.made_by.as_str(), confirmed.runs, confirmed.values),
            ("older", 2, 4)
        );
        // The same file, when its recipes resolved to other words.
        let mut respelt = old.clone();
        respelt.arms.iter_mut().for_each(|arm| arm.recipe.push('0'));
        respelt.recipe_hash = recorded_hash(&study, &respelt);
        let Outcome::Same(carried) = again(&respelt) else {
            panic!("the same file and the same bits")
        };
        assert!(carried.stale(&study).is_none());
        assert_eq!(carried.arms, made.arms);
        let mut moved = old.clone();
        let values = moved.arms[0].per_seed.get_mut("forgetting").unwrap();
        values[0] = f64::from_bits(values[0].to_bits() + 1);
        assert!(matches!(again(&moved), Outcome::RunAgain(why) if why.contains("er: forgetting")));
        let mut judged = old.clone();
        judged.expected[0].holds = false;
        assert!(matches!(again(&judged), Outcome::RunAgain(why) if why.contains("its rule")));
        let other = Verdict {
            recipe_hash: "another study".into(),
            ..old
        };
        assert!(matches!(again(&other), Outcome::RunAgain(why) if why.contains("study")));
    }

    #[test]
    fn trials_are_run_again_too() {
        let tune = "[tune]\nexperiences = 2\nseeds = [100]\nmaximise = 'average_accuracy'\n\
                    grid = { er = { 'train.lr' = [0.01, 0.1] } }\n";
        let study = Study::parse("tuned", &format!("{SMALL}{tune}")).unwrap();
        let dir = std::env::temp_dir();
        let options = Options {
            data_dir: &dir,
            threads: 2,
            stop: &AtomicBool::new(false),
            kept: None,
        };
        let mut old = run(&study, &options, &mut Unwatched).unwrap();
        old.code_hash = "older".into();
        let again = |v: &Verdict| confirm(&study, v, &options, &mut Unwatched).unwrap();
        let Outcome::Same(carried) = again(&old) else {
            panic!("the same bits")
        };
        assert_eq!(carried.confirmed.unwrap().runs, 2 + 2);
        let tuned = old.tuning.as_mut().and_then(|t| t.arms.get_mut("er"));
        tuned.unwrap().tried[0].1 = Some(2.0);
        assert!(matches!(again(&old), Outcome::RunAgain(why) if why.contains("coefficients")));
    }
}
