//! What of a `task-mlp` belongs to which task.

use crate::error::{Error, Result};
use crate::oracle::Oracle;
use crate::plugin::Scene;
use ebb_net::task_mlp::TASK;
use ebb_space::{Layout, Mask};
use std::sync::Arc;

/// The task whose own parameters `path` names; none: all tasks share them.
pub(crate) fn owner(path: &str) -> Option<usize> {
    let parts: Vec<&str> = path.split('.').collect();
    match parts[..] {
        ["heads", task, _] | ["layers", _, _, task] => task.parse().ok(),
        _ => None,
    }
}

/// Every parameter of a task other than `task`.
pub(crate) fn of_others(layout: &Arc<Layout>, task: usize) -> Mask {
    Mask::from_paths(layout, |path| owner(path).is_some_and(|t| t != task))
}

/// The task of the experience under way, from here on the one that training passes compute.
///
/// # Errors
/// When the network is no `task-mlp`, or the experience's outputs are no block of its head.
pub(crate) fn begin(scene: &mut Scene, method: &str) -> Result<usize> {
    let wrong = |reason: String| Err(Error::Recipe { reason });
    if scene.oracle.model.buffers().layout().find(TASK).is_none() {
        return wrong(format!(
            "`{method}` needs a network with parameters for each task: set network.kind = \
             \"task-mlp\""
        ));
    }
    if scene.recipe.memory.is_some() {
        return wrong(format!(
            "a training pass of `{method}` computes the task under way alone, so rows of a memory \
             would teach nothing: take it out"
        ));
    }
    let experience = &scene.stream.experiences[scene.experience];
    let task = if scene.stream.heads > 1 {
        experience.task
    } else {
        let blocks = tasks(scene.oracle);
        let width = scene.oracle.model.network().outputs() / blocks;
        let of = |o: &u32| *o as usize / width;
        let first = experience.outputs.first().map_or(0, of);
        if blocks < 2 || experience.outputs.iter().any(|o| of(o) != first) {
            return wrong(format!(
                "`{method}` needs a head a task (stream.scenario = \"task\"), or outputs in one \
                 block an experience: set network.tasks to the number of experiences and leave \
                 stream.class_order fixed"
            ));
        }
        first
    };
    let mut buffers = scene.oracle.model.buffers().clone();
    if let Some(under_way) = buffers.get_mut(TASK) {
        under_way.fill(task as f32);
    }
    scene.oracle.model.set_buffers(buffers)?;
    Ok(task)
}

/// Tasks that the network has parameters for.
pub(crate) fn tasks(oracle: &Oracle) -> usize {
    let entries = oracle.model.layout().entries().iter();
    entries
        .filter_map(|e| owner(&e.path))
        .max()
        .map_or(0, |t| t + 1)
}
