//! What tests of plugins stand on: a session on the embedded digits, and its scene.

use crate::objective::{objective, remembering};
use crate::plugin::{Plugin, Scene};
use crate::recipe::Recipe;
use crate::seen::{ClassSets, head, outputs};
use crate::session::Session;
use ebb_data::Part;

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

/// Trains `plugin` on an experience as the loop does, in batches of 16 in the stream's order.
pub(crate) fn train(session: &mut Session, plugin: &mut dyn Plugin, experience: usize, steps: u64) {
    let mut gradient = session.oracle.model.weights().zeros_like();
    act(session, experience, |scene| {
        plugin.begin_experience(scene).expect("it begins");
        for step in 0..steps {
            (scene.in_experience, scene.steps) = (step, steps);
            let train = scene.train();
            let start = 16 * step as usize % (train.len() - 16);
            let items = train[start..start + 16].to_vec();
            let mut batch = scene.batch_of("new", &items);
            let g = &mut gradient;
            plugin.before_step(scene, &mut batch).expect("seen");
            let pass = scene.oracle.gradient(scene.objective, &batch, None, g);
            let pass = pass.expect("a gradient");
            plugin
                .change_gradient(scene, &batch, &pass, g)
                .expect("changed");
            scene.optimizer.step(&mut scene.oracle.model, g, scene.lr);
            if let Some((mask, anchor)) = &scene.frozen {
                let mut weights = scene.oracle.model.weights();
                mask.restore(&mut weights, anchor);
                scene.oracle.model.set_weights(&weights).expect("its own");
            }
            plugin.after_step(scene, &batch, &pass).expect("after");
        }
        plugin.end_experience(scene).expect("it ends");
    });
}

/// The bits of what the head of `task` answers to test examples of that task.
pub(crate) fn answers(session: &mut Session, task: usize) -> Vec<u32> {
    let stream = session.stream.clone();
    let items = &stream.evals[task].items[..20];
    let mut x = Vec::new();
    stream.gather(Part::Test, items, &mut x);
    let logits = session.oracle.answers(x, 20);
    let own = head(&stream, task);
    let rows = logits.chunks_exact(outputs(&stream));
    rows.flat_map(|z| {
        z[own.clone()]
            .iter()
            .map(|v| v.to_bits())
            .collect::<Vec<_>>()
    })
    .collect()
}
