//! Tasks that each start from one base model, and what they do to its examples.
//!
//! Nothing is trained in sequence: a task is a stream of two experiences, the base's and its own,
//! entered at the second with the base's weights and a fresh optimizer, as a model from a file is
//! fine-tuned. So recipes, draws and plugins mean in a task what they mean in any run.

use crate::error::Result;
use ebb_data::{EvalSet, Experience, Item, Stream};
use ebb_learn::evaluate::{Outcome, evaluate};
use ebb_learn::{Around, Recipe, Session, learn_keeping};
use ebb_net::Model;
use std::sync::Arc;

/// The stream of one task of `stream`: experience 0 and experience `task`. What is measured on it
/// are training examples of experience 0, by [`measure`]; its own test set is one of them, so that
/// the loop measures nothing twice.
///
/// # Panics
/// Without an upstream example, or such an experience.
pub fn task_stream(stream: &Stream, task: usize, upstream: &[Item]) -> Stream {
    let upstream: Arc<[Item]> = upstream[..1].into();
    let part = |index: usize, of: &Experience| Experience {
        index,
        test: upstream.clone(),
        origins: vec![of.train.len()],
        ..of.clone()
    };
    let (base, own) = (&stream.experiences[0], &stream.experiences[task]);
    let experiences = match task {
        0 => vec![part(0, base)],
        _ => vec![part(0, base), part(1, own)],
    };
    Stream {
        experiences,
        evals: vec![EvalSet {
            name: "upstream".into(),
            task: base.task,
            items: upstream,
        }],
        // Measured are examples that were learnt from.
        test: stream.train.clone(),
        ..stream.clone()
    }
}

/// Trains the base on experience 0; a model that is there already is taken as it is.
///
/// # Errors
/// As [`ebb_learn::learn`].
pub fn base_model(
    recipe: &Recipe,
    stream: &Stream,
    model: Model,
    upstream: &[Item],
    around: &mut Around,
) -> Result<Model> {
    if matches!(
        recipe.file().network,
        ebb_net::NetworkSpec::Pretrained { .. }
    ) {
        return Ok(model);
    }
    let stream = task_stream(stream, 0, upstream);
    let session = Session::with(&quiet(recipe)?, Arc::new(stream), model)?;
    let (_, session) = learn_keeping(session, None, around)?;
    Ok(session.oracle.model)
}

/// A session that stands at the beginning of a task, with the base's weights.
///
/// # Errors
/// When the recipe does not fit the stream.
pub fn task_session(recipe: &Recipe, stream: Arc<Stream>, base: &Model) -> Result<Session> {
    let mut session = Session::with(recipe, stream, base.clone())?;
    session.position.experience = 1;
    Ok(session)
}

/// A recipe that measures nothing on its way.
fn quiet(recipe: &Recipe) -> Result<Recipe> {
    let sets = [("every", "0"), ("ends", "\"last\""), ("outcomes", "false")];
    let sets = sets.map(|(key, value)| (format!("evaluate.{key}"), value.to_owned()));
    Ok(Recipe::parse(recipe.text(), &sets)?)
}

/// Fine-tunes a copy of the base on a task, in memory.
///
/// # Errors
/// As [`ebb_learn::learn`].
pub fn fine_tune(
    recipe: &Recipe,
    stream: Arc<Stream>,
    base: &Model,
    around: &mut Around,
) -> Result<Session> {
    let session = task_session(&quiet(recipe)?, stream, base)?;
    let (_, session) = learn_keeping(session, None, around)?;
    Ok(session)
}

/// Loss and correctness of upstream examples under a session's model; its stream must be one of
/// [`task_stream`].
pub fn measure(session: &mut Session, upstream: &[Item]) -> Vec<Outcome> {
    let stream = session.stream.clone();
    evaluate(&mut session.oracle, &stream, upstream)
}

/// The same of the base itself.
///
/// # Errors
/// When the recipe does not fit the stream.
pub fn measure_base(
    recipe: &Recipe,
    stream: Arc<Stream>,
    base: &Model,
    upstream: &[Item],
) -> Result<Vec<Outcome>> {
    let mut session = task_session(recipe, stream, base)?;
    Ok(measure(&mut session, upstream))
}
