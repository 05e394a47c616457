//! Exact erasure: the run as it would have been without the records.
//!
//! **What it does.** Learns again from the last state that none of the records had reached, passing them
//! over. Every draw of a run is keyed by an example's id, so a record that is not there changes no other
//! draw: what comes out is bit for bit what learning from scratch without the records comes to
//! ([`from_scratch`] proves it, at the price of that).
//! **Source.** The slices of Bourtoule et al., *Machine unlearning* (SISA), S&P 2021 (card X16), with the
//! ends of experiences as slices and the lineage of the run to say which of them are clean; its shards are
//! not needed for exactness and not here.
//! **When to use it.** Whenever it can be paid: it is the only route whose claim is *exact*. **When not.**
//! The record came early and learning takes days.
//! **Stores** what the run stored anyway. **Costs** the experiences from the record's first on, instead of
//! all of them.

use crate::error::{Error, Result};
use ebb_learn::{Around, Recipe, Session, learn_from, learn_keeping};
use ebb_record::{Artifact, RunDir, RunView, Summary, Verb};
use ebb_space::ExampleId;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;

/// What learning again would take over, and what it costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Route {
    /// Ends of experiences that no record had reached, oldest first.
    pub clean: Vec<String>,
    /// Steps up to the last of them.
    pub kept_steps: u64,
    /// Steps of the whole run.
    pub all_steps: u64,
    /// Seconds that the run took to learn, where it was measured.
    pub seconds: Option<f64>,
    /// Why clean states cannot be taken over, where they cannot.
    pub because: Option<String>,
}

impl Route {
    /// The share of the run's steps that has to be learnt again.
    pub fn share(&self) -> f64 {
        1.0 - self.kept_steps as f64 / self.all_steps.max(1) as f64
    }
}

/// How a run would be learnt again without these records.
///
/// # Errors
/// [`Error::Run`] where none of them reached it, or where they are in the model that it began with.
pub fn route(run: &Path, ids: &[ExampleId]) -> Result<Route> {
    let wrong = |reason: String| Error::Run {
        path: run.to_owned(),
        reason,
    };
    let view = RunView::load(run)?;
    let recipe = Recipe::parse(&view.recipe, &[])?;
    let states = view.states()?;
    let mut reached = BTreeSet::new();
    let lineage = view.lineage()?;
    for id in ids {
        reached.extend(lineage.reached_by_any_view(id)?);
    }
    let is_reached = |id: &str| reached.contains(&Artifact::State(id.to_owned()));
    if !states.chain().iter().any(|s| is_reached(&s.id)) {
        return Err(wrong(
            "no state of it was reached by any of the records".into(),
        ));
    }
    let file = recipe.file();
    if let Some(base) = file.start.as_ref().and_then(|start| start.run.as_ref()) {
        let base = Path::new(base);
        let lineage = RunView::load(base)?.lineage()?;
        for id in ids {
            if !lineage.reached_by_any_view(id)?.is_empty() {
                return Err(wrong(format!(
                    "it begins with `{}`, which learnt some of the records: erase them from that \
                     run first, and name its new directory under `start.run`",
                    base.display()
                )));
            }
        }
    }
    let milestones = states.chain().iter().filter(|s| s.milestone);
    let clean: Vec<_> = milestones
        .take_while(|s| !is_reached(&s.id))
        .filter(|s| s.verb == Verb::Learn && states.is_kept(&s.id))
        .collect();
    // What looks ahead to the length of the run is another run when a record is missing later.
    let looks_ahead = !file.train.schedule.rewarm || !file.plugin.is_empty();
    let because = (looks_ahead && file.train.steps.is_none()).then(|| {
        "its rate or a plugin goes by the number of steps of the whole run, which changes"
            .to_owned()
    });
    let all_steps = states.head().map_or(0, |s| s.step);
    Ok(Route {
        kept_steps: match &because {
            None => clean.last().map_or(0, |s| s.step),
            Some(_) => 0,
        },
        clean: match &because {
            None => clean.iter().map(|s| s.id.clone()).collect(),
            Some(_) => Vec::new(),
        },
        all_steps,
        seconds: view.summary.cost.train_seconds,
        because,
    })
}

/// Learns a run again by a route, into a directory that was just created with the recipe of the run
/// and its table `without`.
///
/// # Errors
/// When a run cannot be read or written, or training stops; `ebb resume` goes on then.
pub fn retrain(run: &Path, route: &Route, into: RunDir, around: &mut Around) -> Result<Summary> {
    let recipe = Recipe::parse(&into.recipe()?, &[])?;
    let session = Session::new(&recipe, around.data_dir)?;
    Ok(learn_from(session, into, run, &route.clean, around)?)
}

/// The hash of the weights that learning from scratch by this recipe comes to.
///
/// # Errors
/// When training fails.
pub fn from_scratch(recipe: &Recipe, around: &mut Around) -> Result<String> {
    let session = Session::new(recipe, around.data_dir)?;
    let (_, session) = learn_keeping(session, None, around)?;
    let digest = session.oracle.model.weights().digest();
    Ok(digest.iter().map(|b| format!("{b:02x}")).collect())
}
