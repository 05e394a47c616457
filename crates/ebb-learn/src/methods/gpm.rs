//! Gradient projection memory.
//!
//! **What it does.** After each experience it keeps, layer by layer, the directions that the
//! layer's inputs took, and from then on steps only across them: what a linear layer answers to
//! inputs in the kept span stays as it was.
//! **Source.** Saha et al., ICLR 2021, "Gradient projection memory for continual learning".
//! **Equation.** With an orthonormal basis `M` (rows) of the kept inputs of a layer,
//! `∇W ← ∇W − ∇W Mᵀ M`. After an experience, `M` takes in the fewest leading singular directions
//! of the inputs' remainders with which it holds the share `ε` of `‖X‖²_F`.
//! **Use it** where nothing may be stored and old answers must hold. **Not** with momentum, Adam
//! (refused unless accepted by name) or weight decay, which leave the projected direction; nor on
//! long streams: once the basis is full the layer stands still.
//! **Deviation.** The paper's layers have no biases; here biases stand still from the second
//! experience on. The heads of separate tasks are nobody else's and are left alone.
//! **Stores** a basis a layer. **Costs** two products of the gradient with it a step, and an
//! eigenvalue problem a layer at the end of an experience.

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::methods::{MethodCard, settings};
use crate::oracle::{Oracle, PassResult};
use crate::plugin::{Kept, Plugin, Scene};
use crate::seen::Seen;
use crate::spec::{Parts, PluginSpec};
use ebb_kernels::gemm::{Mat, matmul};
use ebb_kernels::slices;
use ebb_net::{LinearSite, Taps};
use ebb_space::{Extent, Layout, Subspace, Weights};
use serde::{Deserialize, Serialize};

/// GPM's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct GpmSettings {
    /// `ε` layer by layer, from the input on; the last one holds for all that follow.
    pub energy: Vec<f64>,
    /// Examples of an experience whose inputs are looked at.
    pub samples: usize,
}

impl Default for GpmSettings {
    fn default() -> Self {
        Self {
            energy: vec![0.95, 0.99],
            samples: 300,
        }
    }
}

impl GpmSettings {
    /// `ε` of layer `index`.
    fn share(&self, index: usize) -> f64 {
        let last = self.energy.last().copied().unwrap_or(1.0);
        self.energy.get(index).copied().unwrap_or(last)
    }
}

/// A span of inputs, projected on in f32.
#[derive(Clone)]
pub(crate) struct Span {
    wide: Subspace,
    narrow: Vec<f32>,
}

impl Span {
    pub fn new(dim: usize) -> Self {
        Self {
            wide: Subspace::new(dim),
            narrow: Vec::new(),
        }
    }

    /// From a stored basis.
    fn from_basis(dim: usize, basis: Vec<f64>) -> Result<Self> {
        let wide = Subspace::from_basis(dim, basis)?;
        let narrow = wide.basis().iter().map(|b| *b as f32).collect();
        Ok(Self { wide, narrow })
    }

    /// Takes in the inputs `rows`. The basis is kept as sums of two f32, which is what a state
    /// holds of it: a resumed run extends the same basis.
    pub fn extend(&mut self, rows: &[f32], extent: Extent) -> Result<()> {
        self.wide.extend(rows, extent)?;
        let basis = self.wide.basis().iter().map(|b| {
            let high = *b as f32;
            f64::from(high) + f64::from((b - f64::from(high)) as f32)
        });
        *self = Self::from_basis(self.wide.dim(), basis.collect())?;
        Ok(())
    }

    pub fn rank(&self) -> usize {
        self.wide.rank()
    }

    /// The basis as f32 rows.
    pub fn rows(&self) -> &[f32] {
        &self.narrow
    }

    /// `G Mᵀ M`: what the span holds of the rows of `g`.
    pub fn inside(&self, g: &[f32]) -> Vec<f32> {
        let (dim, rank) = (self.wide.dim(), self.rank());
        let rows = g.len() / dim;
        let basis = Mat::new(&self.narrow, rank, dim);
        let mut along = vec![0.0; rows * rank];
        matmul(&mut along, Mat::new(g, rows, dim), basis.t(), false);
        let mut inside = vec![0.0; g.len()];
        matmul(&mut inside, Mat::new(&along, rows, rank), basis, false);
        inside
    }

    /// `G − G Mᵀ M`.
    pub fn take_off(&self, g: &mut [f32]) {
        if self.rank() > 0 {
            let inside = self.inside(g);
            g.iter_mut().zip(inside).for_each(|(g, i)| *g -= i);
        }
    }
}

/// Spans, one a layer, as what a state holds of them.
pub(crate) fn keep_spans(spans: &[Span]) -> Result<Weights> {
    let held = || spans.iter().enumerate().filter(|(_, s)| s.rank() > 0);
    let entry = |l: usize, part: &str, s: &Span| {
        let shape = vec![s.rank(), s.wide.dim()];
        (format!("{l}.{part}"), shape)
    };
    let entries = held().flat_map(|(l, s)| [entry(l, "high", s), entry(l, "low", s)]);
    let layout = Layout::new(entries)?;
    let mut values = Vec::with_capacity(layout.len());
    for (_, span) in held() {
        values.extend_from_slice(&span.narrow);
        let parts = span.wide.basis().iter().zip(&span.narrow);
        values.extend(parts.map(|(b, high)| (b - f64::from(*high)) as f32));
    }
    Ok(Weights::from_vec(&layout, values)?)
}

/// The spans of these layers out of a state.
pub(crate) fn restore_spans(kept: &Weights, sites: &[LinearSite]) -> Result<Vec<Span>> {
    let one = |(l, site): (usize, &LinearSite)| {
        let part = |name: &str| kept.get(&format!("{l}.{name}"));
        match (part("high"), part("low")) {
            (Some(high), Some(low)) => {
                let sum = high.iter().zip(low);
                let basis = sum.map(|(h, l)| f64::from(*h) + f64::from(*l)).collect();
                Span::from_basis(site.inputs, basis)
            }
            _ => Ok(Span::new(site.inputs)),
        }
    };
    sites.iter().enumerate().map(one).collect()
}

/// The linear layers that all tasks share.
pub(crate) fn shared_sites(oracle: &Oracle, who: &str) -> Result<Vec<LinearSite>> {
    let sites = oracle.model.linear_sites();
    let sites = sites.filter(|s| s.iter().all(|s| s.positions == 1));
    let mut sites = sites.ok_or_else(|| Error::Recipe {
        reason: format!(
            "`{who}` projects the gradients of linear layers, and this network has others; use \
             an MLP with linear heads"
        ),
    })?;
    sites.retain(|s| !s.weight.starts_with("heads."));
    Ok(sites)
}

/// What each of these layers gets to see of a batch, `[rows, inputs]` each.
pub(crate) fn inputs(oracle: &mut Oracle, sites: &[LinearSite], batch: &Batch) -> Vec<Vec<f32>> {
    let mut taps = Taps::none();
    for site in sites {
        taps = taps.read(&site.input);
    }
    oracle.model.forward(batch.x.clone(), &mut taps);
    oracle.meter.forward_rows += batch.rows.len() as u64;
    let read = |site: &LinearSite| taps.value(&site.input).map(slices::to_vec);
    sites.iter().filter_map(read).collect()
}

/// The plugin.
pub struct Gpm {
    settings: GpmSettings,
    sites: Vec<LinearSite>,
    spans: Vec<Span>,
}

impl Gpm {
    /// A plugin with these settings.
    pub fn new(settings: GpmSettings) -> Self {
        Self {
            settings,
            sites: Vec::new(),
            spans: Vec::new(),
        }
    }

    /// The layers it acts on, with what they keep.
    pub(crate) fn layers(&self) -> impl Iterator<Item = (usize, &LinearSite, &Span)> {
        let pairs = self.sites.iter().zip(&self.spans).enumerate();
        pairs.map(|(l, (site, span))| (l, site, span))
    }

    fn find_sites(&mut self, oracle: &Oracle) -> Result<()> {
        if self.sites.is_empty() {
            self.sites = shared_sites(oracle, "gpm")?;
            self.spans = self.sites.iter().map(|s| Span::new(s.inputs)).collect();
        }
        Ok(())
    }

    /// Takes in the inputs of the experience that ends; gives the batch it looked at, and the
    /// span of that batch alone, layer by layer.
    pub(crate) fn take_in(&mut self, scene: &mut Scene) -> Result<(Batch, Vec<Span>)> {
        self.find_sites(scene.oracle)?;
        let seen = Seen {
            stream: scene.stream,
            experience: scene.experience,
            class_sets: scene.class_sets,
            key: scene.key.sub("gpm").at(scene.experience as u64),
        };
        let batch = seen.batch(&scene.oracle.model, &seen.sample(self.settings.samples));
        let mut own = Vec::with_capacity(self.sites.len());
        let rows = inputs(scene.oracle, &self.sites, &batch);
        for (l, rows) in rows.iter().enumerate() {
            let extent = Extent::Energy(self.settings.share(l));
            self.spans[l].extend(rows, extent)?;
            let mut span = Span::new(self.sites[l].inputs);
            span.extend(rows, extent)?;
            own.push(span);
        }
        Ok((batch, own))
    }
}

impl Plugin for Gpm {
    fn name(&self) -> &'static str {
        "gpm"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        self.find_sites(scene.oracle)
    }

    fn change_gradient(
        &mut self,
        scene: &mut Scene,
        _: &Batch,
        _: &PassResult,
        gradient: &mut Weights,
    ) -> Result<()> {
        for (_, site, span) in self.layers() {
            if let Some(g) = gradient.get_mut(&site.weight) {
                span.take_off(g);
            }
            stand_still(scene, site, gradient);
        }
        Ok(())
    }

    fn end_experience(&mut self, scene: &mut Scene) -> Result<()> {
        match scene.last() {
            true => Ok(()),
            false => self.take_in(scene).map(drop),
        }
    }

    fn keep(&self) -> Result<Kept> {
        Ok(Kept::vectors(vec![(
            "spans".into(),
            keep_spans(&self.spans)?,
        )]))
    }

    fn restore(&mut self, mut kept: Kept, oracle: &mut Oracle) -> Result<()> {
        self.find_sites(oracle)?;
        if let Some(spans) = kept.take("spans") {
            self.spans = restore_spans(&spans, &self.sites)?;
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.spans.iter().map(|s| 8 * s.narrow.len() as u64).sum()
    }
}

/// The bias of a layer whose inputs are kept does not move.
pub(crate) fn stand_still(scene: &Scene, site: &LinearSite, gradient: &mut Weights) {
    let bias = site.bias.as_ref().filter(|_| scene.experience > 0);
    if let Some(g) = bias.and_then(|path| gradient.get_mut(path)) {
        g.fill(0.0);
    }
}

/// GPM in the table of methods.
pub const GPM: MethodCard = MethodCard {
    name: "gpm",
    aliases: &["gradient-projection-memory"],
    title: "Gradient projection memory",
    source: "Saha et al., ICLR 2021",
    card: "S152",
    family: "projection",
    use_it: "plain SGD, where nothing may be stored and old answers must hold",
    not_for: "momentum or Adam (refused unless accepted by name), long streams",
    stores: "an orthonormal basis a layer",
    costs: "two products of the gradient with the basis a step",
    defaults: || settings(&GpmSettings::default()),
    expand: |with, _| {
        Ok(Parts {
            plugin: vec![PluginSpec::Gpm(crate::methods::read(with)?)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging::{act, session};

    /// Rows `4e₁, 3e₂, 2e₃, e₄` hold 16, 9, 4 and 1 of 30: four fifths need two directions.
    #[test]
    fn the_energy_decides_which_directions_a_gradient_loses() {
        let mut rows = vec![0.0; 24];
        for (i, v) in [4.0, 3.0, 2.0, 1.0].into_iter().enumerate() {
            rows[6 * i + i] = v;
        }
        let mut span = Span::new(6);
        span.extend(&rows, Extent::Energy(0.8)).expect("finite");
        assert_eq!(span.rank(), 2);
        let mut g: Vec<f32> = (1..=12).map(|v| v as f32).collect();
        span.take_off(&mut g);
        let want = [
            0.0, 0.0, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0, 9.0, 10.0, 11.0, 12.0,
        ];
        assert!(
            g.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6),
            "{g:?}"
        );
    }

    /// With the whole span kept, every linear layer answers old inputs as before, so the network
    /// does, however far steps on new data go. The same steps without the projection do not.
    #[test]
    fn old_answers_stay_while_new_examples_are_learned() {
        let few = [("with.energy", "[1.0]"), ("with.samples", "5")];
        let mut s = session("gpm", "domain", &few);
        let mut gpm = Gpm::new(GpmSettings {
            energy: vec![1.0],
            samples: 5,
        });
        let old = act(&mut s, 0, |scene| gpm.take_in(scene).expect("a pass").0);
        let start = s.oracle.model.weights();
        let mut distance = |projected: bool| {
            s.oracle.model.set_weights(&start).expect("its own");
            let (before, _) = s.oracle.forward(&old);
            let mut losses = Vec::new();
            for _ in 0..30 {
                act(&mut s, 1, |scene| {
                    let items: Vec<_> = scene.train()[..32].to_vec();
                    let batch = scene.batch_of("new", &items);
                    let mut g = start.zeros_like();
                    let pass = scene
                        .oracle
                        .gradient(scene.objective, &batch, None, &mut g)
                        .expect("a gradient");
                    losses.push(pass.value.total);
                    if projected {
                        let done = gpm.change_gradient(scene, &batch, &pass, &mut g);
                        done.expect("projected");
                    }
                    let mut w = scene.oracle.model.weights();
                    w.axpy(-0.1, &g);
                    scene.oracle.model.set_weights(&w).expect("its own");
                });
            }
            let (after, _) = s.oracle.forward(&old);
            let far = before.iter().zip(&after).map(|(a, b)| (a - b).abs());
            assert!(losses[29] < 0.9 * losses[0], "{losses:?}");
            far.fold(0.0, f32::max)
        };
        assert!(distance(true) < 1e-4);
        assert!(distance(false) > 1e-1);
    }

    #[test]
    fn a_restored_basis_is_the_same_to_the_bit() {
        let mut s = session("gpm", "domain", &[]);
        let mut gpm = Gpm::new(GpmSettings::default());
        act(&mut s, 0, |scene| gpm.take_in(scene).expect("a pass"));
        let mut again = Gpm::new(GpmSettings::default());
        let kept = gpm.keep().expect("vectors");
        again.restore(kept, &mut s.oracle).expect("its own");
        for ((_, _, a), (_, _, b)) in gpm.layers().zip(again.layers()) {
            assert!(a.rank() > 0);
            assert_eq!(a.wide, b.wide);
        }
    }
}
