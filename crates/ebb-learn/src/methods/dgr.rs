//! Deep generative replay.
//!
//! **What it does.** Trains a generator beside the network; in the next experience the old generator
//! draws inputs, the old network names them, and both new ones learn from them too.
//! **Source.** Shin et al., NeurIPS 2017, "Continual learning with deep generative replay"; a
//! variational autoencoder and the numbers of van de Ven & Tolias 2019 (peers' protocol), with
//! `targets = "soft"` their "DGR + distill".
//! **Equation.** In experience t, with x' drawn from the generator before and g the network before,
//! `L = 1/t · mean CE(x, y) + (1 − 1/t) · mean CE(x', argmax g(x'))`, and for the generator
//! `L_G = 1/t · mean ELBO(x) + (1 − 1/t) · mean ELBO(x')`, ELBO the negative bound of the
//! autoencoder. Soft: `T² KL(softmax(g/T) ‖ softmax(z/T))` in the place of the second CE, with g's
//! probability 0 for new classes.
//! **Use it** where no example may be kept and a small generator can draw the data. **Not** for
//! data that it cannot: errors of the drawing accumulate.
//! **Stores** the generator with its moments, its copy before, and a copy of the network. **Costs**
//! the generated rows, and a step of the generator on twice the batch: with a small network about
//! five times plain training.
//!
//! With a head a task each generated row is asked of one earlier head, drawn by key, where the
//! authors ask all of them. The generator is trained right after the network, on the same rows, by
//! Adam; it works in [0, 1], whatever the stream's normalisation.

use crate::batch::{Batch, Collect};
use crate::error::{Error, Result};
use crate::methods::er::cross_entropy;
use crate::methods::{MethodCard, settings, take};
use crate::optimizer::{Optimizer, OptimizerKind, OptimizerSettings};
use crate::oracle::{Oracle, PassResult};
use crate::plugin::{Kept, Plugin, Scene};
use crate::seen::{head, outputs, seen_columns, seen_heads};
use crate::spec::{LossSpec, Parts, PluginSpec, ReductionSpec, ShareSpec, TermSpec};
use ebb_data::{Item, Scenario, Stream};
use ebb_kernels::slices;
use ebb_net::{Taps, Vae, VaeSpec};
use ebb_space::{ExampleId, Key, Weights};
use serde::{Deserialize, Serialize};

/// What its rows are on.
pub const SUPPORT: &str = "replay:generated";

/// The generator's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct GeneratorSettings {
    /// Widths of the encoder's hidden layers; the decoder mirrors them.
    pub hidden: Vec<usize>,
    /// Latent variables.
    pub latent: usize,
    /// Learning rate of its Adam.
    pub lr: f64,
    /// Rows generated a step; 0: as many as the batch.
    pub size: usize,
}

impl Default for GeneratorSettings {
    fn default() -> Self {
        let VaeSpec { hidden, latent, .. } = VaeSpec::default();
        Self {
            hidden,
            latent,
            lr: 0.001,
            size: 0,
        }
    }
}

/// The plugin.
pub struct Generator {
    settings: GeneratorSettings,
    learning: Option<Learning>,
    /// The generator after the last experience.
    before: Option<Vae>,
    /// The new and the generated rows of the step under way, in [0, 1], with their ids.
    new: Rows,
    generated: Rows,
}

#[derive(Default)]
struct Rows {
    x: Vec<f32>,
    ids: Vec<u64>,
}

/// The generator being trained.
struct Learning {
    vae: Vae,
    optimizer: Optimizer,
}

impl Learning {
    fn new(settings: &GeneratorSettings, inputs: usize, key: Key, oracle: &Oracle) -> Result<Self> {
        let spec = VaeSpec {
            hidden: settings.hidden.clone(),
            latent: settings.latent,
            ..VaeSpec::default()
        };
        let vae = Vae::new(&spec, inputs, key, oracle.model.device())?;
        let adam = OptimizerSettings {
            kind: OptimizerKind::Adam,
            momentum: 0.0,
            nesterov: false,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
        };
        let optimizer = Optimizer::new(adam, vae.model().layout());
        Ok(Self { vae, optimizer })
    }

    /// The gradient of `share · mean loss(new) + (1 − share) · mean loss(generated)`, or of the
    /// first mean alone where nothing is generated, and the value.
    fn gradient(
        &mut self,
        new: &Rows,
        generated: &Rows,
        share: f64,
        key: Key,
    ) -> Result<(f64, Weights)> {
        let mut gradient = Weights::zeros(self.vae.model().layout());
        let mut loss = |rows: &Rows, into: &mut Weights| -> Result<f64> {
            let loss = (self.vae).loss_and_gradient(rows.x.clone(), key, &rows.ids, into)?;
            Ok(loss.reconstruction + loss.kl)
        };
        let mut value = loss(new, &mut gradient)?;
        if !generated.ids.is_empty() {
            let mut old = gradient.zeros_like();
            value = share * value + (1.0 - share) * loss(generated, &mut old)?;
            gradient.scale(share as f32);
            gradient.axpy((1.0 - share) as f32, &old);
        }
        Ok((value, gradient))
    }
}

impl Generator {
    /// A plugin with these settings.
    pub fn new(settings: GeneratorSettings) -> Self {
        Self {
            settings,
            learning: None,
            before: None,
            new: Rows::default(),
            generated: Rows::default(),
        }
    }
}

/// What the network before calls the rows `x`: their tasks and output columns, among those that
/// earlier experiences trained.
fn name(scene: &mut Scene, x: &[f32], ids: &[u64]) -> Vec<(u16, u32)> {
    let Some(teacher) = scene.oracle.teacher.as_mut() else {
        return Vec::new();
    };
    let input = teacher.input(x.to_vec(), ids.len());
    let logits = slices::to_vec(&teacher.forward(input, &mut Taps::none()).logits);
    scene.oracle.meter.forward_rows += ids.len() as u64;
    let key = scene.key.sub("head").at(scene.step);
    let stream: &Stream = scene.stream;
    let heads = seen_heads(stream, scene.experience);
    let known: Vec<usize> = match stream.scenario {
        Scenario::Domain => (0..outputs(stream)).collect(),
        Scenario::Task | Scenario::Class => seen_columns(stream, scene.experience),
    };
    let named = logits.chunks_exact(outputs(stream)).zip(ids);
    let label = |(z, id): (&[f32], &u64)| {
        let drawn = heads[(key.uniform(*id) * heads.len() as f64) as usize];
        let range = head(stream, drawn);
        let mine = |c: &usize| stream.scenario != Scenario::Task || range.contains(c);
        let mut best = (f32::NEG_INFINITY, 0);
        for c in known.iter().copied().filter(mine) {
            if z[c] > best.0 {
                best = (z[c], c as u32);
            }
        }
        match stream.scenario {
            Scenario::Task => (drawn as u16, best.1),
            Scenario::Domain | Scenario::Class => (0, best.1),
        }
    };
    named.map(label).collect()
}

impl Plugin for Generator {
    fn name(&self) -> &'static str {
        "generator"
    }

    fn begin_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if self.learning.is_none() {
            let inputs = scene.oracle.model.network().inputs();
            let key = scene.key.sub("generator");
            self.learning = Some(Learning::new(&self.settings, inputs, key, scene.oracle)?);
        }
        Ok(())
    }

    fn add_rows(&mut self, scene: &mut Scene, new: &[Item], collect: &mut Collect) -> Result<()> {
        let scale = scene.stream.transforms[0].scale();
        let width = scene.oracle.model.network().inputs();
        let x = &collect.x[..new.len() * width];
        self.new = Rows {
            x: x.iter().map(|v| scale.to_unit(*v)).collect(),
            ids: new.iter().map(|i| i.id.mix()).collect(),
        };
        self.generated = Rows::default();
        let Some(before) = &mut self.before else {
            return Ok(());
        };
        let n = scene.size(self.settings.size);
        let drawn = before.sample(n, scene.key.sub("generate").at(scene.step));
        let ids: Vec<ExampleId> = (0..n as u32)
            .map(|i| ExampleId::of(&scene.step.to_le_bytes(), i))
            .collect();
        let mixed: Vec<u64> = ids.iter().map(ExampleId::mix).collect();
        let x: Vec<f32> = drawn.iter().map(|v| scale.from_unit(*v)).collect();
        let named = name(scene, &x, &mixed);
        collect.support(SUPPORT);
        for (id, (task, label)) in ids.into_iter().zip(named) {
            collect.row(id, label, scene.class_sets.of(usize::from(task)));
        }
        collect.x.extend(x);
        self.generated = Rows {
            x: drawn,
            ids: mixed,
        };
        Ok(())
    }

    fn after_step(&mut self, scene: &mut Scene, _: &Batch, _: &PassResult) -> Result<()> {
        let Some(learning) = self.learning.as_mut().filter(|_| !self.new.ids.is_empty()) else {
            return Ok(());
        };
        let key = scene.key.sub("noise").at(scene.step);
        let share = ShareSpec::New.factor(scene.experience, 1);
        let (value, gradient) = learning.gradient(&self.new, &self.generated, share, key)?;
        if !value.is_finite() {
            return Err(Error::Diverged {
                step: scene.step,
                experience: scene.experience,
                lr: self.settings.lr,
                term: "the generator's loss".into(),
            });
        }
        (learning.optimizer).step(learning.vae.model_mut(), &gradient, self.settings.lr);
        let rows = (self.new.ids.len() + self.generated.ids.len()) as u64;
        let meter = &mut scene.oracle.meter;
        meter.gradient_calls += 1 + u64::from(!self.generated.ids.is_empty());
        meter.forward_rows += rows;
        meter.backward_rows += rows;
        Ok(())
    }

    fn end_experience(&mut self, scene: &mut Scene) -> Result<()> {
        if !scene.last() {
            self.before = self.learning.as_ref().map(|l| l.vae.clone());
            scene.oracle.freeze_teacher();
        }
        Ok(())
    }

    fn keep(&self) -> Result<Kept> {
        let Some(learning) = &self.learning else {
            return Ok(Kept::default());
        };
        let mut vectors = vec![("weights".to_owned(), learning.vae.model().weights())];
        let state = learning.optimizer.state();
        vectors.extend(state.map(|(name, w)| (name.to_owned(), w.clone())));
        if let Some(before) = &self.before {
            vectors.push(("before".to_owned(), before.model().weights()));
        }
        Kept::vectors(vectors).with_note(&learning.optimizer.steps())
    }

    fn restore(&mut self, mut kept: Kept, oracle: &mut Oracle) -> Result<()> {
        let Some(weights) = kept.take("weights") else {
            return Ok(());
        };
        let inputs = oracle.model.network().inputs();
        // Every weight is put back, so the key of the fresh ones does not matter.
        let mut learning = Learning::new(&self.settings, inputs, oracle.key, oracle)?;
        learning.vae.model_mut().set_weights(&weights)?;
        let steps: Vec<u64> = kept.note()?;
        if !(learning.optimizer).restore(&steps, |moment| kept.take(moment)) {
            return Err(Error::Checkpoint {
                path: "a plugin's note".into(),
                reason: "the generator's moments belong to another generator".into(),
            });
        }
        self.before = match kept.take("before") {
            None => None,
            Some(weights) => {
                let mut before = learning.vae.clone();
                before.model_mut().set_weights(&weights)?;
                Some(before)
            }
        };
        self.learning = Some(learning);
        Ok(())
    }

    fn bytes(&self) -> u64 {
        let learning = self.learning.as_ref().map_or(0, |l| {
            4 * l.vae.model().layout().len() + l.optimizer.bytes()
        });
        let before = (self.before.as_ref()).map_or(0, |v| 4 * v.model().layout().len());
        (learning + before) as u64
    }
}

/// What the network learns of a generated row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Targets {
    /// The most probable class.
    Hard,
    /// All probabilities.
    Soft,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct DgrSettings {
    /// What the network learns of a generated row: the old network's most probable class (`hard`), or its probabilities (`soft`).
    targets: Targets,
    temperature: f64,
}

impl Default for DgrSettings {
    fn default() -> Self {
        Self {
            targets: Targets::Hard,
            temperature: 2.0,
        }
    }
}

/// Generative replay in the table of methods.
pub const DGR: MethodCard = MethodCard {
    name: "dgr",
    aliases: &["generative-replay", "deep-generative-replay"],
    title: "Deep generative replay",
    source: "Shin et al., NeurIPS 2017",
    card: "S124",
    family: "generative replay",
    use_it: "no example may be kept, and a small generator can draw the data",
    not_for: "data that a small generator cannot draw: its errors accumulate",
    stores: "two generators, the moments of one, and a copy of the weights",
    costs: "the generated rows, and a step of the generator on twice the batch",
    defaults: || {
        let mut table = settings(&GeneratorSettings::default());
        table.extend(settings(&DgrSettings::default()));
        table
    },
    expand: |with, _| {
        let mut with = with.clone();
        let temperature = take(&mut with, "temperature")?;
        let replayed = match take(&mut with, "targets")? {
            Targets::Hard => cross_entropy(SUPPORT, 1.0),
            Targets::Soft => TermSpec {
                temperature: Some(temperature),
                ..TermSpec::new(SUPPORT, LossSpec::PaddedDistillation)
            },
        };
        Ok(Parts {
            term: vec![
                TermSpec {
                    share: ShareSpec::New,
                    ..cross_entropy("new", 1.0)
                },
                TermSpec {
                    share: ShareSpec::Old,
                    ..replayed
                },
            ],
            reduction: Some(ReductionSpec::SumOfMeans),
            plugin: vec![PluginSpec::Generator(crate::methods::read(&with)?)],
            ..Parts::default()
        })
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::staging;
    use crate::session::Session;

    const SMALL: [(&str, &str); 2] = [("with.hidden", "[12]"), ("with.latent", "3")];

    fn small() -> GeneratorSettings {
        GeneratorSettings {
            hidden: vec![12],
            latent: 3,
            lr: 0.01,
            size: 8,
        }
    }

    /// A generator after a few steps of the first experience.
    fn begun(scenario: &str) -> (Session, Generator) {
        let mut s = staging::session("dgr", scenario, &SMALL);
        let mut plugin = Generator::new(small());
        staging::act(&mut s, 0, |scene| {
            plugin.begin_experience(scene).expect("a generator");
            let items = scene.train()[..16].to_vec();
            let batch = scene.batch_of("new", &items);
            for _ in 0..3 {
                let mut collect = collected(scene, &items);
                plugin.add_rows(scene, &items, &mut collect).expect("rows");
                assert_eq!(collect.len(), 16); // nothing is generated yet
                let loss = scene
                    .oracle
                    .evaluate(scene.remembering, &batch)
                    .expect("a pass");
                plugin.after_step(scene, &batch, &loss).expect("a step");
            }
            plugin.end_experience(scene).expect("an end");
        });
        (s, plugin)
    }

    fn collected(scene: &Scene, items: &[Item]) -> Collect {
        let mut collect = Collect::default();
        collect.support("new");
        collect.items(scene.stream, items, scene.class_sets);
        collect
    }

    /// The old generator draws, the old network names, whatever the new ones have become; and the
    /// same step draws the same.
    #[test]
    fn generated_rows_are_named_by_the_network_before() {
        for scenario in ["class", "domain", "task"] {
            let (mut s, mut plugin) = begun(scenario);
            let stream = s.stream.clone();
            let width = stream.features();
            let mut before = plugin.before.clone().expect("a generator");
            let teacher = s.oracle.teacher.clone().expect("a network");
            let mut weights = s.oracle.model.weights();
            weights.scale(-1.0);
            s.oracle.model.set_weights(&weights).expect("as many");
            let mut add = |s: &mut Session| {
                staging::act(s, 1, |scene| {
                    let items = scene.train()[..5].to_vec();
                    let mut collect = collected(scene, &items);
                    plugin.add_rows(scene, &items, &mut collect).expect("rows");
                    let drawn = before.sample(8, scene.key.sub("generate").at(scene.step));
                    (collect, drawn, scene.class_sets.sets.clone())
                })
            };
            let (collect, drawn, sets) = add(&mut s);
            assert_eq!(collect.len(), 5 + 8);
            let scale = stream.transforms[0].scale();
            let x = collect.x[5 * width..].to_vec();
            assert!(x.iter().zip(&drawn).all(|(x, u)| *x == scale.from_unit(*u)));
            let mut old = crate::oracle::Oracle::new(teacher, s.key);
            let z = old.logits(x, 8);
            let k = outputs(&stream);
            let labels = collect.labels()[5..].to_vec();
            let (again, ..) = add(&mut s);
            assert_eq!((again.labels(), &again.x), (collect.labels(), &collect.x));
            let batch = collect.finish(&s.oracle.model, &sets, k);
            assert_eq!(batch.rows.supports, ["new", SUPPORT]);
            for (i, label) in labels.into_iter().enumerate() {
                // The first experience has the outputs 0 and 1, and in `domain` there are no more.
                let want = u32::from(z[i * k + 1] > z[i * k]);
                assert_eq!(label, want, "{scenario}");
                let allowed = batch.allowed(5 + i);
                assert!(allowed.is_none_or(|set| set[label as usize]));
                if scenario == "task" {
                    let head: Vec<bool> = (0..k).map(|c| c < 2).collect();
                    assert_eq!(allowed, Some(&head[..]));
                }
            }
        }
    }

    /// `1/t` of the new rows' loss and `1 − 1/t` of the generated ones': in the terms and in the
    /// generator, against gradients taken one by one.
    #[test]
    fn old_and_new_count_by_the_number_of_experiences() {
        let (mut s, mut plugin) = begun("class");
        let stream = s.stream.clone();
        let objective = crate::objective::objective(s.recipe.file(), &stream, 2);
        let weights: Vec<f64> = objective.terms.iter().map(|t| t.weight).collect();
        assert_eq!(weights, [1.0 / 3.0, 1.0 - 1.0 / 3.0]);
        staging::act(&mut s, 2, |scene| {
            let items = scene.train()[..6].to_vec();
            let mut collect = collected(scene, &items);
            plugin.add_rows(scene, &items, &mut collect).expect("rows");
            let key = Key::new(9, "noise");
            let (new, old) = (&plugin.new, &plugin.generated);
            let learning = plugin.learning.as_mut().expect("a generator");
            let nothing = Rows::default();
            let (a, ga) = learning.gradient(new, &nothing, 0.2, key).expect("new");
            let (b, gb) = learning.gradient(old, &nothing, 0.2, key).expect("old");
            let (both, g) = learning.gradient(new, old, 0.2, key).expect("both");
            assert!((both - (0.2 * a + 0.8 * b)).abs() < 1e-9);
            let mut want = ga.clone();
            want.zip_with(&gb, |a, b| 0.2 * a + 0.8 * b);
            assert!(g.squared_distance(&want).sqrt() < 1e-5 * want.norm());
        });
    }

    /// Its noise and its draws come from keys alone, and its state survives.
    #[test]
    fn the_generator_is_kept_and_put_back() {
        let (mut s, plugin) = begun("class");
        let kept = plugin.keep().expect("kept");
        assert_eq!(kept.vectors.len(), 4);
        let mut again = Generator::new(small());
        again.restore(kept, &mut s.oracle).expect("restored");
        let key = Key::new(2, "draw");
        let draw = |vae: &Option<Vae>| vae.clone().expect("a generator").sample(5, key);
        assert_eq!(draw(&plugin.before), draw(&again.before));
        let state = |p: &Generator| {
            let l = p.learning.as_ref().expect("a generator");
            let moments = l.optimizer.state().map(|(_, w)| w.digest());
            let moments: Vec<[u8; 32]> = moments.collect();
            let weights = l.vae.model().weights().digest();
            (weights, moments, l.optimizer.steps().to_vec())
        };
        assert_eq!(state(&plugin), state(&again));
        assert_eq!(plugin.bytes(), again.bytes());
    }
}
