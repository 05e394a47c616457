//! What tests of plugins stand on: a session on the embedded digits, and its scene.

use crate::batch::{Batch, Collect};
use crate::learn::{Around, learn_keeping};
use crate::objective::{objective, remembering};
use crate::plugin::{Plugin, Scene};
use crate::progress::Silent;
use crate::recipe::Recipe;
use crate::replay::Offered;
use crate::seen::{ClassSets, head, outputs};
use crate::session::Session;
use ebb_data::{Item, Part};
use ebb_kernels::slices;
use ebb_net::{Model, Taps};
use ebb_space::Key;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

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
        tokenizer: session.speech.as_ref().map(|s| &s.tokenizer),
        key: session.key.sub("plugin"),
    })
}

/// The session after its whole run.
pub(crate) fn run(session: Session) -> Session {
    let mut around = Around {
        data_dir: &std::env::temp_dir(),
        progress: &mut Silent,
        stop: &AtomicBool::new(false),
    };
    let (_, session) = learn_keeping(session, None, &mut around).expect("a run");
    session
}

/// Offers everything in these experiences to the memory.
pub(crate) fn remember(session: &mut Session, experiences: Range<usize>) {
    let (stream, replay) = (
        session.stream.clone(),
        session.replay.as_mut().expect("a memory"),
    );
    for experience in experiences {
        let offered = Offered {
            stream: &stream,
            items: &stream.experiences[experience].train,
            logits: &[],
            features: &[],
            experience,
            step: 0,
        };
        replay.offer(&offered).expect("they fit");
    }
}

/// Moves every weight by a normal number times `scale`.
pub(crate) fn jolt(model: &mut Model, scale: f64) {
    let mut weights = model.weights();
    let mut draws = Key::new(1, "jolt").stream();
    let each = weights.as_mut_slice().iter_mut();
    each.for_each(|w| *w += (scale * draws.normal()) as f32);
    model.set_weights(&weights).expect("its own layout");
}

/// New examples and remembered records, by support, as one batch.
pub(crate) fn mixed(scene: &Scene, new: &[Item], draws: &[(&str, &[u32])]) -> Batch {
    let mut collect = Collect::default();
    collect.support("new");
    collect.items(scene.stream, new, scene.class_sets);
    for (name, slots) in draws {
        let replay = scene.replay.as_ref().expect("a memory");
        replay
            .add_slots(&mut collect, name, slots)
            .expect("records");
    }
    scene.finish(collect)
}

/// What a distilling method made of some rows.
pub(crate) struct Taught {
    /// Of each row its logits, the teacher's, and its label.
    pub rows: Vec<(Vec<f64>, Vec<f64>, usize)>,
    /// The value of the objective.
    pub total: f64,
}

/// The objective of `method` on twelve rows of the second experience of the digits, with a teacher
/// that is not the model itself.
pub(crate) fn taught(method: &str, scenario: &str, sets: &[(&str, &str)]) -> Taught {
    let mut session = session(method, scenario, sets);
    session.oracle.freeze_teacher();
    jolt(&mut session.oracle.model, 0.4);
    act(&mut session, 1, |scene| {
        let items = scene.train()[..12].to_vec();
        let batch = scene.batch_of("new", &items);
        let value = scene.oracle.value(scene.objective, &batch);
        let (logits, _) = scene.oracle.forward(&batch);
        let width = logits.len() / 12;
        let teacher = scene.oracle.teacher.as_mut().expect("frozen");
        let said = teacher.forward(batch.x.clone(), &mut Taps::none()).logits;
        let said = slices::to_vec(&said);
        let wide = |z: &[f32]| z.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
        let both = logits.chunks(width).zip(said.chunks(width));
        let rows = both.zip(&batch.rows.labels);
        Taught {
            rows: rows
                .map(|((s, t), y)| (wide(s), wide(t), *y as usize))
                .collect(),
            total: value.expect("a value").total,
        }
    })
}

/// Softmax of a row.
pub(crate) fn softmax(z: &[f64]) -> Vec<f64> {
    let e: Vec<f64> = z.iter().map(|v| v.exp()).collect();
    let sum: f64 = e.iter().sum();
    e.into_iter().map(|e| e / sum).collect()
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
