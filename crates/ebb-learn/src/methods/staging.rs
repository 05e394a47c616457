//! What tests of plugins stand on: a session on the embedded digits, and its scene.

use crate::objective::{objective, remembering};
use crate::plugin::Scene;
use crate::recipe::Recipe;
use crate::seen::ClassSets;
use crate::session::Session;

/// A session of `method` on the digits in five experiences, with these changes.
pub(crate) fn session(method: &str, scenario: &str, sets: &[(&str, &str)]) -> Session {
    let text = format!(
        "method = \"{method}\"\naccept = [\"penalty-alone-on-class-incremental\"]\n\
         [stream]\ndataset = \"digits\"\nsplit = 5\nscenario = \"{scenario}\"\n\
         [network]\nkind = \"mlp\"\nhidden = [9, 7]\nactivation = {{ kind = \"tanh\" }}\n\
         [train]\nbatch = 16\nlr = 0.1\n[evaluate]\nevery = 0\n"
    );
    let sets: Vec<(String, String)> = sets
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect();
    let recipe = Recipe::parse(&text, &sets).expect("a valid recipe");
    Session::new(&recipe, &std::env::temp_dir()).expect("the digits are embedded")
}

/// Acts in the scene of `session` at the first step of `experience`.
pub(crate) fn act<R>(
    session: &mut Session,
    experience: usize,
    act: impl FnOnce(&mut Scene) -> R,
) -> R {
    let recipe = session.recipe.clone();
    let stream = session.stream.clone();
    let class_sets = ClassSets::at(&stream, experience, recipe.file().train.classes);
    if let Some(replay) = &mut session.replay {
        replay.class_sets = class_sets.clone();
    }
    act(&mut Scene {
        oracle: &mut session.oracle,
        optimizer: &mut session.optimizer,
        replay: session.replay.as_mut(),
        frozen: &mut session.frozen,
        stream: &stream,
        recipe: recipe.file(),
        class_sets: &class_sets,
        objective: &objective(recipe.file(), &stream, experience),
        remembering: &remembering(),
        experience,
        step: session.position.step,
        in_experience: 0,
        steps: 1,
        total: 1,
        lr: recipe.file().train.lr,
        key: session.key.sub("plugin"),
    })
}
