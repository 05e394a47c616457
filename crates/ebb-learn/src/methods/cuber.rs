//! CUBER: projection that lets old knowledge improve.
//!
//! **What it does.** Gradient projection forbids every change along old inputs. Where the new
//! task's gradient lies strongly in an old task's inputs *and* points the way that task's own
//! gradient did, changing the old knowledge helps both: there, and there alone, it is allowed.
//! **Source.** Lin et al., NeurIPS 2022, "Beyond not-forgetting: continual learning with backward
//! knowledge transfer" (card S152); on top of GPM (`gpm.rs`).
//! **Equation.** Layer by layer, with the basis `M` of all old inputs and `S_j`, `G_j` of task
//! `j`, decided at the first step of an experience with gradient `∇`: of the `related` tasks with
//! the strongest `‖∇ S_jᵀ S_j‖ / ‖∇‖`, those where that is at least `strong` and
//! `⟨∇, G_j⟩ ≥ alike ‖∇‖ ‖G_j‖` open their `S_j`. With the span `S` of what is open,
//! `g = ∇W + 2λ (W − W₀) SᵀS` and the step is against `g SᵀS + (g − g SᵀS)(I − MᵀM)`.
//! **Use it** on streams of related tasks, with plain SGD. **Not** with momentum or Adam (refused
//! unless accepted by name).
//! **Deviation.** The paper's scaled copy of a closed subspace (`W − WSᵀS + WSᵀQS`) needs the
//! task's number at test time; here what is not open stays closed for everybody.
//! **Stores** two bases and a gradient a layer and task. **Costs** GPM's products, and two with
//! `S`, a step.

use crate::batch::Batch;
use crate::error::Result;
use crate::methods::gpm::{Gpm, GpmSettings, Span, keep_spans, restore_spans, stand_still};
use crate::methods::{MethodCard, settings};
use crate::oracle::{Oracle, PassResult};
use crate::plugin::{Kept, Plugin, Scene, unfit};
use crate::spec::{Parts, PluginSpec};
use ebb_space::{Extent, Weights};
use serde::{Deserialize, Serialize};

/// CUBER's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct CuberSettings {
    /// GPM's `ε` layer by layer; the last one holds for all that follow.
    pub energy: Vec<f64>,
    /// Examples of an experience whose inputs and gradient are looked at.
    pub samples: usize,
    /// `ε₁`: share of the gradient's length that must lie in an old task's inputs.
    pub strong: f64,
    /// `ε₂`: least cosine with that task's own gradient.
    pub alike: f64,
    /// `λ` on the way moved inside what is open.
    pub lambda: f64,
    /// Old tasks looked at in a layer, the most related first.
    pub related: usize,
}

impl Default for CuberSettings {
    fn default() -> Self {
        let gpm = GpmSettings::default();
        Self {
            energy: gpm.energy,
            samples: gpm.samples,
            strong: 0.5,
            alike: 0.05,
            lambda: 1.0,
            related: 2,
        }
    }
}

/// What is known of an old task: its inputs layer by layer, and its gradient when it ended.
struct Task {
    spans: Vec<Span>,
    gradient: Weights,
}

/// The plugin.
pub struct Cuber {
    settings: CuberSettings,
    gpm: Gpm,
    tasks: Vec<Task>,
    /// Old tasks open in this experience, layer by layer, and the span of their inputs.
    open: Vec<(Vec<usize>, Span)>,
    /// The weights at its beginning.
    start: Option<Weights>,
}

impl Cuber {
    /// A plugin with these settings.
    pub fn new(settings: CuberSettings) -> Self {
        let gpm = Gpm::new(GpmSettings {
            energy: settings.energy.clone(),
            samples: settings.samples,
        });
        Self {
            settings,
            gpm,
            tasks: Vec::new(),
            open: Vec::new(),
            start: None,
        }
    }

    /// The old tasks whose inputs may be changed in layer `l`, given its gradient.
    fn related(&self, l: usize, path: &str, g: &[f32]) -> Vec<usize> {
        let whole = norm(g);
        let share = |t: &Task| norm(&t.spans[l].inside(g)) / whole;
        let mut tasks: Vec<(usize, f64)> = self.tasks.iter().map(share).enumerate().collect();
        tasks.sort_by(|a, b| b.1.total_cmp(&a.1));
        tasks.truncate(self.settings.related);
        tasks.retain(|(j, share)| {
            let own = self.tasks[*j].gradient.get(path).unwrap_or_default();
            let alike = dot(g, own) >= self.settings.alike * whole * norm(own);
            *share >= self.settings.strong && alike
        });
        tasks.into_iter().map(|(j, _)| j).collect()
    }

    /// Opens the inputs of these tasks, a list a layer.
    fn open(&mut self, lists: Vec<Vec<usize>>) -> Result<()> {
        self.open.clear();
        let layers: Vec<(usize, usize)> =
            self.gpm.layers().map(|(l, s, _)| (l, s.inputs)).collect();
        for ((l, inputs), tasks) in layers.into_iter().zip(lists) {
            let mut span = Span::new(inputs);
            for j in &tasks {
                let task = self.tasks.get(*j).and_then(|task| task.spans.get(l));
                let task = task.ok_or_else(|| unfit("cuber"))?;
                span.extend(task.rows(), Extent::All)?;
            }
            self.open.push((tasks, span));
        }
        Ok(())
    }
}

/// `g SᵀS + (g − g SᵀS)(I − MᵀM)` with `g` first pulled back by `2λ (W − W₀) SᵀS`.
fn project(g: &mut [f32], moved: &[f32], lambda: f64, open: &Span, all: &Span) {
    if open.rank() == 0 {
        all.take_off(g);
        return;
    }
    let pull = 2.0 * lambda as f32;
    let back = open.inside(moved);
    g.iter_mut().zip(back).for_each(|(g, b)| *g += pull * b);
    let inside = open.inside(g);
    g.iter_mut().zip(&inside).for_each(|(g, i)| *g -= i);
    all.take_off(g);
    g.iter_mut().zip(inside).for_each(|(g, i)| *g += i);
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    products.sum()
}

fn norm(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

impl Plugin for Cuber {
    fn name(&self) -> &'static str {
        "cuber"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        self.gpm.begin_experience(scene)
    }

    fn change_gradient(
        &mut self,
        scene: &mut Scene,
        _: &Batch,
        _: &PassResult,
        gradient: &mut Weights,
    ) -> Result<()> {
        if scene.in_experience == 0 {
            let related = |(l, site, _): (usize, &ebb_net::LinearSite, &Span)| {
                let g = gradient.get(&site.weight).unwrap_or_default();
                self.related(l, &site.weight, g)
            };
            let lists = self.gpm.layers().map(related).collect();
            self.open(lists)?;
            self.start = Some(scene.oracle.model.weights());
        }
        let mut moved = scene.oracle.model.weights();
        if let Some(start) = &self.start {
            moved.axpy(-1.0, start);
        }
        for ((_, site, all), (_, open)) in self.gpm.layers().zip(&self.open) {
            let way = moved.get(&site.weight).unwrap_or_default();
            if let Some(g) = gradient.get_mut(&site.weight) {
                project(g, way, self.settings.lambda, open, all);
            }
            stand_still(scene, site, gradient);
        }
        Ok(())
    }

    fn end_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if scene.last() {
            return Ok(());
        }
        let (batch, spans) = self.gpm.take_in(scene)?;
        let mut gradient = Weights::zeros(scene.oracle.model.layout());
        let loss = scene.remembering;
        scene.oracle.gradient(loss, &batch, None, &mut gradient)?;
        self.tasks.push(Task { spans, gradient });
        Ok(())
    }

    fn keep(&self) -> Result<Kept> {
        let mut kept = self.gpm.keep()?;
        for (j, task) in self.tasks.iter().enumerate() {
            let spans = (format!("spans-{j}"), keep_spans(&task.spans)?);
            let gradient = (format!("gradient-{j}"), task.gradient.clone());
            kept.vectors.extend([spans, gradient]);
        }
        if let Some(start) = &self.start {
            kept.vectors.push(("start".into(), start.clone()));
        }
        let open: Vec<&Vec<usize>> = self.open.iter().map(|(tasks, _)| tasks).collect();
        kept.with_note(&open)
    }

    fn restore(&mut self, mut kept: Kept, oracle: &mut Oracle) -> Result<()> {
        let sites = crate::methods::gpm::shared_sites(oracle, "cuber")?;
        self.tasks.clear();
        for j in 0.. {
            let named = |kept: &mut Kept, what: &str| kept.take(&format!("{what}-{j}"));
            let (Some(spans), Some(gradient)) =
                (named(&mut kept, "spans"), named(&mut kept, "gradient"))
            else {
                break;
            };
            let spans = restore_spans(&spans, &sites)?;
            self.tasks.push(Task { spans, gradient });
        }
        self.start = kept.take("start");
        let lists = kept.note()?;
        self.gpm.restore(kept, oracle)?;
        self.open(lists)
    }

    fn bytes(&self) -> u64 {
        let spans = |s: &Vec<Span>| s.iter().map(|s| 8 * s.rows().len()).sum::<usize>();
        let task = |t: &Task| spans(&t.spans) + 4 * t.gradient.layout().len();
        let start = self.start.as_ref().map_or(0, |w| 4 * w.layout().len());
        self.gpm.bytes() + (self.tasks.iter().map(task).sum::<usize>() + start) as u64
    }
}

/// CUBER in the table of methods.
pub const CUBER: MethodCard = MethodCard {
    name: "cuber",
    aliases: &[],
    title: "Backward knowledge transfer by selective projection",
    source: "Lin et al., NeurIPS 2022",
    card: "S152",
    family: "projection",
    use_it: "plain SGD on related tasks, where nothing may be stored",
    not_for: "momentum or Adam (refused unless accepted by name), long streams",
    stores: "two bases and a gradient a layer and task",
    costs: "up to five products of the gradient with bases a step",
    defaults: || settings(&CuberSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            plugin: vec![PluginSpec::Cuber(crate::methods::read(with)?)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging::{act, session};
    use ebb_space::Key;

    fn span(rows: &[&[f32]]) -> Span {
        let mut span = Span::new(rows[0].len());
        span.extend(&rows.concat(), Extent::All).expect("finite");
        span
    }

    /// Against dense projectors in f64, made of the eigen-directions written out by hand.
    #[test]
    fn the_step_is_that_of_the_equation() {
        // M = span(e₁, e₂, e₃), S = span((e₁ + e₂)/√2): the projectors by hand.
        let all = span(&[&[1., 0., 0., 0.], &[0., 1., 0., 0.], &[0., 0., 1., 0.]]);
        let open = span(&[&[1., 1., 0., 0.]]);
        let s = [[0.5, 0.5, 0., 0.], [0.5, 0.5, 0., 0.], [0.; 4], [0.; 4]];
        let mut stream = Key::new(3, "cuber").stream();
        let mut draw = || -> Vec<f32> { (0..8).map(|_| stream.normal() as f32).collect() };
        let (g, moved, lambda) = (draw(), draw(), 0.7);
        let mut found = g.clone();
        project(&mut found, &moved, lambda, &open, &all);
        for row in 0..2 {
            let v = |x: &[f32], i: usize| f64::from(x[4 * row + i]);
            let on = |x: &[f64; 4]| s.map(|line| (0..4).map(|i| line[i] * x[i]).sum::<f64>());
            let way = on(&[0, 1, 2, 3].map(|i| v(&moved, i)));
            let pulled = [0, 1, 2, 3].map(|i| v(&g, i) + 2.0 * lambda * way[i]);
            let inside = on(&pulled);
            // Of the rest only e₄ lies outside of M.
            let want = [inside[0], inside[1], inside[2], pulled[3]];
            for i in 0..4 {
                assert!((v(&found, i) - want[i]).abs() < 1e-5, "{found:?} {want:?}");
            }
        }
    }

    /// One layer, one old task with inputs along `e₁` and gradient `e₁`: strong and alike opens
    /// it; strong but opposed, alike but weak, and an unlike one do not.
    #[test]
    fn what_opens_by_hand() {
        let mut s = session("cuber", "domain", &[("network.hidden", "[3]")]);
        let mut cuber = Cuber::new(CuberSettings {
            strong: 0.6,
            alike: 0.1,
            ..CuberSettings::default()
        });
        act(&mut s, 0, |scene| {
            cuber.end_experience(scene).expect("a pass")
        });
        let path = "head.weight";
        let l = cuber.gpm.layers().position(|(_, s, _)| s.weight == path);
        let l = l.expect("it is shared");
        cuber.tasks[0].spans[l] = span(&[&[1., 0., 0.]]);
        let task = &mut cuber.tasks[0].gradient;
        task.get_mut(path).expect("a weight").fill(0.0);
        task.get_mut(path).expect("a weight")[0] = 2.0;
        let g = |a: f32, b: f32| [&[a, b, 0.0][..], &[0.0; 3]].concat();
        assert_eq!(cuber.related(l, path, &g(1.0, 0.5)), [0]);
        assert!(cuber.related(l, path, &g(-1.0, 0.5)).is_empty());
        assert!(cuber.related(l, path, &g(0.5, 1.0)).is_empty());
        // In the same inputs, but of another output: cosine 0.
        let other = [&[0.0; 3][..], &[1.0, 0.0, 0.0]].concat();
        assert!(cuber.related(l, path, &other).is_empty());
    }
}
