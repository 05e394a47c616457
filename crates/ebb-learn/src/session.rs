//! A run's moving parts, built from a recipe, saved into a state and restored from one.

use crate::error::{Error, Result};
use crate::language::Speech;
use crate::methods::{
    agem::AGem, bottom_frozen::BottomFrozen, centre::Centres, chosen_blocks::ChosenBlocks,
    clnp::Clnp, codyra::SparseGates, cuber::Cuber, dgr::Generator, embedding_reset::EmbeddingReset,
    ewc::Ewc, fast_slow::FastSlow, fdr::Fdr, few_shot::FewShot, fpf::Fpf, gem::Gem, gere::Gere,
    gpm::Gpm, gss::Gss, hal::Hal, hfc::Compensation, hft::HalfFreeze, icarl::Herding,
    key_value::Keys, l2::L2, language_neurons::LanguageNeurons, mas::Mas, mat::Mat, mir::Mir,
    mvp::Mvp, pcr::ProxyCycle, planned::Planned, prd::PrototypePull, protocl::ProtoCl, psmt::Psmt,
    quantile::QuantileRisk, rank::Rank, refresh::Refresh, reg_lora::KeyElements, remind::Remind,
    reptile::Reptile, rer::Relational, rkd::TwoLevels, rmn::Relevance, selective_lora::SwitchPrice,
    sharp::Sharp, si::Si, ssu::Ssu, train_parts::TrainParts, views::ViewBatch, zeroth::ZerothOrder,
};
use crate::objective::{stores_features, stores_logits};
use crate::optimizer::Optimizer;
use crate::oracle::{Meter, Oracle};
use crate::penalty::Penalty;
use crate::plugin::{Kept, Plugin};
use crate::recipe::Recipe;
use crate::replay::Replay;
use crate::seen::{ClassSets, check, outputs};
use crate::spec::{DataPlan, PenaltySpec, PluginSpec, RecipeFile, UpdateSpec};
use crate::update::{Plain, Update};
use crate::without::Gone;
use burn::tensor::Device;
use ebb_data::{Item, Stream};
use ebb_memory::Payload;
use ebb_net::Model;
use ebb_record::{ForgettingEvents, RunDir, State, StateWriter};
use ebb_space::{Key, Mask, Weights};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// Where in its stream a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The experience being trained, or about to be.
    pub experience: usize,
    /// The pass over it.
    pub epoch: u64,
    /// Batches of that pass already taken.
    pub batch: usize,
    /// Steps of that experience already taken.
    pub in_experience: u64,
    /// Steps taken in all.
    pub step: u64,
}

/// What a state needs besides tensors to go on exactly.
#[derive(Serialize, Deserialize)]
pub(crate) struct Progress {
    format_version: u32,
    position: Position,
    optimizer_steps: Vec<u64>,
    meter: Meter,
    seconds: f64,
    train_seconds: f64,
    /// Names of what each penalty keeps.
    penalties: Vec<Vec<String>>,
    /// Names of the vectors each plugin keeps, and its note.
    #[serde(default)]
    plugins: Vec<(Vec<String>, serde_json::Value)>,
    /// Names of the files each plugin keeps beside them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    plugin_files: Vec<Vec<String>>,
    frozen: bool,
    /// Adapters of earlier experiences that were merged or kept.
    #[serde(default)]
    pub(crate) adapters: usize,
    /// Of a stream of text: which texts, since their files may change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) texts: Option<String>,
}

/// The version of `progress.json`.
const FORMAT: u32 = 1;

/// A run in memory.
pub struct Session {
    /// The recipe.
    pub recipe: Recipe,
    /// The stream it reads.
    pub stream: Arc<Stream>,
    /// Model, teacher and meter.
    pub oracle: Oracle,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// Penalties in weight space.
    pub penalties: Vec<Box<dyn Penalty>>,
    /// What acts at the run's events.
    pub plugins: Vec<Box<dyn Plugin>>,
    /// How a gradient becomes a step.
    pub update: Box<dyn Update>,
    /// The memory.
    pub replay: Option<Replay>,
    /// Where it stands.
    pub position: Position,
    /// What stays bit for bit as it is, and how it is.
    pub frozen: Option<(Mask, Weights)>,
    /// A fixed, keyed subset of each test set, its first half finding the worst step.
    pub panels: Vec<Vec<Item>>,
    /// How often training examples turned from right to wrong.
    pub events: ForgettingEvents,
    /// Root of the run's keyed draws.
    pub key: Key,
    /// Seconds of earlier sittings: in all, and in training.
    pub earlier: (f64, f64),
    /// What a language model has besides its weights.
    pub speech: Option<Speech>,
}

impl Session {
    /// Builds everything for the start of a run.
    ///
    /// # Errors
    /// When the data cannot be had or the recipe does not fit it.
    pub fn new(recipe: &Recipe, data_dir: &Path) -> Result<Self> {
        Self::showing(recipe, data_dir, Ok)
    }

    /// The same on what `show` makes of the recipe's stream.
    ///
    /// # Errors
    /// As [`Session::new`], and those of `show`.
    pub fn showing(
        recipe: &Recipe,
        data_dir: &Path,
        show: impl FnOnce(Stream) -> Result<Stream>,
    ) -> Result<Self> {
        let file = recipe.file();
        if file.language.is_some() {
            let (language, stream) = crate::language::open(recipe, data_dir)?;
            let stream = plan(show(stream)?, file.data);
            check(&stream)?;
            let (speech, model) = Speech::of(language);
            let mut session = Self::with(recipe, Arc::new(stream), model)?;
            session.speech = Some(speech);
            return session.begun(data_dir);
        }
        let stream = file.stream.build(data_dir, file.seed)?;
        let stream = plan(show(passed(stream, file)?)?, file.data);
        check(&stream)?;
        Self::on(recipe, Arc::new(stream))?.begun(data_dir)
    }

    /// With the weights of the run that the recipe begins from, if it names one.
    fn begun(mut self, data_dir: &Path) -> Result<Self> {
        let start = self.recipe.file().start.as_ref();
        let named = start.and_then(|start| Some((start.run.clone()?, start.state.clone())));
        if let Some((run, state)) = named {
            let model = model_of_run(Path::new(&run), state.as_deref(), data_dir)?;
            self.oracle.model.set_whole(&model.merged_weights()?)?;
        }
        Ok(self)
    }

    /// Begins with these weights of the whole network in the place of its own.
    ///
    /// # Errors
    /// When they belong to another network.
    pub fn begin_with(&mut self, weights: &Weights) -> Result<()> {
        Ok(self.oracle.model.set_whole(weights)?)
    }

    /// The same on a stream that is already built.
    ///
    /// # Errors
    /// When the recipe does not fit the stream.
    pub fn on(recipe: &Recipe, stream: Arc<Stream>) -> Result<Self> {
        let file = recipe.file();
        let key = Key::new(file.seed, "learn");
        let network = file
            .network
            .build_heads(stream.shape(), stream.classes, stream.heads)?;
        let model = Model::new(network, key.sub("initialise"), &Device::flex());
        Self::with(recipe, stream, model)
    }

    /// The same for a recipe whose model may be one that is there already.
    ///
    /// # Errors
    /// As [`Session::on`], and when the model cannot be read.
    pub fn on_model(recipe: &Recipe, stream: Arc<Stream>, data_dir: &Path) -> Result<Self> {
        match crate::language::pretrained(recipe, data_dir)? {
            Some(language) => {
                let (speech, model) = Speech::of(language);
                let mut session = Self::with(recipe, stream, model)?;
                session.speech = Some(speech);
                Ok(session)
            }
            None => Self::on(recipe, stream),
        }
    }

    /// The same with a model that is there already.
    ///
    /// # Errors
    /// When the recipe does not fit the stream.
    pub fn with(recipe: &Recipe, stream: Arc<Stream>, mut model: Model) -> Result<Self> {
        let file = recipe.file();
        let key = Key::new(file.seed, "learn");
        let outputs = outputs(&stream);
        begin_part(&mut model, file)?;
        let optimizer = Optimizer::new(recipe.optimizer(), model.layout());
        let class_sets = ClassSets::at(&stream, 0, file.train.classes);
        let replay = match &file.memory {
            None => None,
            Some(spec) => Some(Replay::new(
                spec,
                &file.draw,
                payload(file, &stream, &mut model)?,
                outputs,
                file.term.iter().any(stores_logits)
                    || file.plugin.iter().any(PluginSpec::stores_logits),
                (file.term.iter().any(stores_features)).then(|| model.network().features()),
                stream.experiences.len(),
                class_sets,
                key.sub("memory"),
            )?),
        };
        let panels = panels(&stream, file, key);
        Ok(Self {
            recipe: recipe.clone(),
            oracle: Oracle::new(model, key).in_parts(file.train.micro_batch, file.train.checkpoint),
            optimizer,
            penalties: file.penalty.iter().map(penalty).collect(),
            plugins: file.plugin.iter().map(plugin).collect(),
            update: update(&file.update),
            replay,
            position: Position::default(),
            frozen: None,
            panels,
            events: ForgettingEvents::new(),
            key,
            earlier: (0.0, 0.0),
            speech: None,
            stream,
        })
    }

    /// Writes everything but the weights (which the state holds already) into a state.
    ///
    /// # Errors
    /// When writing fails.
    pub fn save(&self, state: &mut StateWriter, seconds: f64, train_seconds: f64) -> Result<()> {
        let names = |p: &dyn Penalty| p.state().into_iter().map(|(n, _)| n).collect();
        let plugins = self.plugins.iter().map(|p| p.keep());
        let plugins: Vec<Kept> = plugins.collect::<Result<_>>()?;
        let vectors = |k: &Kept| k.vectors.iter().map(|(n, _)| n.clone()).collect();
        let files = |k: &Kept| k.bytes.iter().map(|(n, _)| n.clone()).collect();
        let progress = Progress {
            format_version: FORMAT,
            position: self.position,
            optimizer_steps: self.optimizer.steps().to_vec(),
            meter: self.oracle.meter,
            seconds,
            train_seconds,
            penalties: self.penalties.iter().map(|p| names(p.as_ref())).collect(),
            plugins: plugins
                .iter()
                .map(|k| (vectors(k), k.note.clone()))
                .collect(),
            plugin_files: match plugins.iter().any(|k| !k.bytes.is_empty()) {
                true => plugins.iter().map(files).collect(),
                false => Vec::new(),
            },
            frozen: self.frozen.is_some(),
            adapters: self.oracle.model.turned().len(),
            texts: self.texts(),
        };
        let json = serde_json::to_vec_pretty(&progress);
        state.file("progress.json", &json.map_err(unwritable("progress.json"))?)?;
        for (i, earlier) in self.oracle.model.turned().iter().enumerate() {
            state.weights(&adapter_file(i), &[("", earlier)])?;
        }
        let moments: Vec<(&str, &Weights)> = self.optimizer.state().collect();
        if !moments.is_empty() {
            state.weights("optimizer.safetensors", &moments)?;
        }
        for (i, p) in self.penalties.iter().enumerate() {
            for (name, weights) in p.state() {
                state.weights(&format!("penalty-{i}-{name}.safetensors"), &[("", weights)])?;
            }
        }
        if !self.oracle.model.buffers().layout().is_empty() {
            let buffers = self.oracle.model.buffers();
            state.weights("buffers.safetensors", &[("", buffers)])?;
        }
        if let Some(teacher) = &self.oracle.teacher {
            state.weights("teacher.safetensors", &[("", &teacher.weights())])?;
            if !teacher.buffers().layout().is_empty() {
                state.weights("teacher-buffers.safetensors", &[("", teacher.buffers())])?;
            }
        }
        if !self.events.is_empty() {
            let json = serde_json::to_vec(&self.events.histories());
            state.file("events.json", &json.map_err(unwritable("events.json"))?)?;
        }
        if let Some((mask, anchor)) = &self.frozen {
            state.weights("frozen.safetensors", &[("", anchor)])?;
            let mut chosen = anchor.zeros_like();
            for (i, v) in chosen.as_mut_slice().iter_mut().enumerate() {
                *v = f32::from(u8::from(mask.contains(i)));
            }
            state.weights("frozen-mask.safetensors", &[("", &chosen)])?;
        }
        for (i, kept) in plugins.iter().enumerate() {
            for (name, weights) in &kept.vectors {
                state.weights(&format!("plugin-{i}-{name}.safetensors"), &[("", weights)])?;
            }
            for (name, bytes) in &kept.bytes {
                state.file(&format!("plugin-{i}-{name}.bin"), bytes)?;
            }
        }
        if let Some(replay) = &self.replay {
            replay.save(&state.directory("memory")?)?;
        }
        Ok(())
    }

    /// Puts a state back.
    ///
    /// # Errors
    /// When the state is damaged or belongs to another recipe.
    pub fn restore(&mut self, state: &State) -> Result<()> {
        self.put_back(state, false)
    }

    /// The same for a state of a run that learnt other texts later, or of which some are passed over
    /// now: what reached the state itself is for the caller to know.
    ///
    /// # Errors
    /// As [`restore`](Session::restore).
    pub fn adopt(&mut self, state: &State) -> Result<()> {
        self.put_back(state, true)
    }

    fn put_back(&mut self, state: &State, other_texts: bool) -> Result<()> {
        let layout = self.oracle.model.layout().clone();
        let path = state.path("progress.json");
        let bytes = state.bytes("progress.json")?;
        let bad = |reason: String| Error::Checkpoint {
            path: path.clone(),
            reason,
        };
        let progress: Progress =
            serde_json::from_slice(&bytes).map_err(|e| bad(format!("it is not readable: {e}")))?;
        if progress.format_version > FORMAT {
            return Err(bad(format!(
                "it was written by a newer version ({}); this one reads up to {FORMAT}",
                progress.format_version
            )));
        }
        if progress.penalties.len() != self.penalties.len() {
            return Err(bad(
                "the recipe has other penalties than when it was saved".into()
            ));
        }
        if progress.plugins.len() != self.plugins.len() {
            return Err(bad(
                "the recipe has other plugins than when it was saved".into()
            ));
        }
        if !other_texts && progress.texts != self.texts() {
            return Err(bad(
                "the texts that its recipe names have changed since it was written: put them back \
                 as they were, or begin a new run"
                    .into(),
            ));
        }
        let load = |name: &str| ebb_record::load_weights(&state.path(name), &layout);
        take_in(&mut self.oracle.model, state, progress.adapters)?;
        self.oracle.model.set_weights(&state.weights(&layout)?)?;
        let buffers = self.oracle.model.buffers().layout().clone();
        if !buffers.is_empty() {
            let path = state.path("buffers.safetensors");
            let loaded = ebb_record::load_weights(&path, &buffers)?;
            self.oracle.model.set_buffers(loaded)?;
        }
        let groups: Vec<(&str, &Arc<ebb_space::Layout>)> =
            self.optimizer.state().map(|(n, _)| (n, &layout)).collect();
        let fits = if groups.is_empty() {
            self.optimizer.restore(&progress.optimizer_steps, |_| None)
        } else {
            let path = state.path("optimizer.safetensors");
            let mut loaded = ebb_record::load_groups(&path, &groups)?.into_iter();
            self.optimizer
                .restore(&progress.optimizer_steps, |_| loaded.next())
        };
        if !fits {
            return Err(bad("its optimizer state belongs to another network".into()));
        }
        for (i, (p, names)) in self
            .penalties
            .iter_mut()
            .zip(&progress.penalties)
            .enumerate()
        {
            p.restore(names, &mut |name| {
                Ok(load(&format!("penalty-{i}-{name}.safetensors"))?)
            })?;
        }
        self.oracle.teacher = None;
        if state.meta().files.contains_key("teacher.safetensors") {
            let mut teacher = self.oracle.model.clone();
            teacher.set_weights(&load("teacher.safetensors")?)?;
            if !buffers.is_empty() {
                let path = state.path("teacher-buffers.safetensors");
                teacher.set_buffers(ebb_record::load_weights(&path, &buffers)?)?;
            }
            self.oracle.teacher = Some(teacher);
        }
        if progress.frozen {
            // States of the first versions hold no mask: then it is the recipe's.
            let mask = match state.meta().files.contains_key("frozen-mask.safetensors") {
                true => {
                    let chosen = load("frozen-mask.safetensors")?;
                    Mask::from_fn(&layout, |i| chosen.as_slice()[i] != 0.0)
                }
                false => self.freeze_mask()?,
            };
            self.frozen = Some((mask, load("frozen.safetensors")?));
        }
        if let Some(replay) = &mut self.replay {
            let key = self.key.sub("memory");
            replay.memory = ebb_memory::Memory::load(&state.path("memory"), key)?;
        }
        let mut files = progress.plugin_files.into_iter();
        let saved = self.plugins.iter_mut().zip(progress.plugins);
        for (i, (plugin, (names, note))) in saved.enumerate() {
            let vectors = names.into_iter().map(|name| {
                let path = state.path(&format!("plugin-{i}-{name}.safetensors"));
                Ok((name, ebb_record::load_all(&path)?))
            });
            let bytes = files.next().unwrap_or_default().into_iter().map(|name| {
                let bytes = state.bytes(&format!("plugin-{i}-{name}.bin"))?;
                Ok((name, bytes))
            });
            let kept = Kept {
                vectors: vectors.collect::<Result<_>>()?,
                bytes: bytes.collect::<Result<_>>()?,
                note,
            };
            plugin.restore(kept, &mut self.oracle)?;
        }
        if state.meta().files.contains_key("events.json") {
            let histories = serde_json::from_slice(&state.bytes("events.json")?);
            let histories = histories.map_err(|e| bad(format!("events.json: {e}")))?;
            self.events = ForgettingEvents::from_histories(histories);
        }
        self.oracle.meter = progress.meter;
        self.position = progress.position;
        self.earlier = (progress.seconds, progress.train_seconds);
        Ok(())
    }

    /// A digest of the texts that are learnt, in their order.
    fn texts(&self) -> Option<String> {
        self.recipe.file().language.as_ref()?;
        Some(crate::language::digest(&self.stream))
    }

    /// The mask of what the recipe freezes.
    ///
    /// # Errors
    /// When a pattern matches nothing.
    pub fn freeze_mask(&self) -> Result<Mask> {
        let patterns: Vec<&str> = self
            .recipe
            .file()
            .train
            .freeze
            .iter()
            .map(String::as_str)
            .collect();
        let (mask, unmatched) = Mask::from_globs(self.oracle.model.layout(), &patterns);
        match unmatched.first() {
            Some(pattern) => Err(Error::no_such_path(pattern, self.oracle.model.layout())),
            None => Ok(mask),
        }
    }

    /// Bytes kept for the method: memory, penalties, teacher, plugins, and the weights that frozen
    /// ones are put back from.
    pub fn method_bytes(&self) -> u64 {
        let weights = |w: &Weights| 4 * w.as_slice().len();
        let penalties: usize = self
            .penalties
            .iter()
            .flat_map(|p| p.state())
            .map(|(_, w)| weights(w))
            .sum();
        let teacher = self
            .oracle
            .teacher
            .as_ref()
            .map_or(0, |t| 4 * t.layout().len());
        let memory = self.replay.as_ref().map_or(0, |r| r.memory.bytes());
        let plugins: u64 = self.plugins.iter().map(|p| p.bytes()).sum();
        let frozen = self.frozen.as_ref().map_or(0, |(_, w)| weights(w));
        let adapters = self
            .oracle
            .model
            .turned()
            .iter()
            .map(weights)
            .sum::<usize>();
        (penalties + teacher + memory + frozen + adapters) as u64 + plugins
    }

    /// New rows a step of experience `index`: the batch, less what replay displaces.
    pub fn new_rows(&self, index: usize) -> usize {
        let file = self.recipe.file();
        let displaced = file.draw.values().filter(|d| d.displaces && index > 0);
        let displaced: usize = displaced.filter_map(|d| d.size).sum();
        file.train.batch.saturating_sub(displaced).max(1)
    }
}

fn unwritable(name: &'static str) -> impl Fn(serde_json::Error) -> Error {
    move |e| Error::Checkpoint {
        path: name.into(),
        reason: e.to_string(),
    }
}

/// What the memory keeps of an example: its input, unless a plugin keeps something in its place.
fn payload(file: &RecipeFile, stream: &Stream, model: &mut Model) -> Result<(usize, Payload)> {
    for spec in &file.plugin {
        match spec {
            PluginSpec::Remind(s) => return s.payload(model),
            PluginSpec::Sharp(s) => return s.payload(model),
            _ => {}
        }
    }
    Ok((stream.features(), Payload::F32))
}

fn penalty(spec: &PenaltySpec) -> Box<dyn Penalty> {
    match spec {
        PenaltySpec::Ewc(s) => Box::new(Ewc::new(s.clone())),
        PenaltySpec::Si(s) => Box::new(Si::new(s.clone())),
        PenaltySpec::L2(s) => Box::new(L2::new(s.clone())),
        PenaltySpec::Mas(s) => Box::new(Mas::new(s.clone())),
    }
}

/// The model that a run came to: at `state`, or as it is now.
///
/// # Errors
/// When the run cannot be read or has no such state.
pub fn model_of_run(run: &Path, state: Option<&str>, data_dir: &Path) -> Result<Model> {
    let dir = RunDir::open(run)?;
    let recipe = Recipe::parse(&dir.recipe()?, &[])?;
    if recipe.file().language.is_some() {
        // It takes the run's lock itself.
        drop(dir);
        return Ok(crate::language::of_run(run, state, data_dir)?.model);
    }
    let head = dir.states().head().map(|s| s.id.clone());
    let id = state.map(str::to_owned).or(head);
    let id = id.ok_or_else(|| Error::Recipe {
        reason: format!("the run `{}` has no state yet", run.display()),
    })?;
    let mut session = Session::new(&recipe, data_dir)?;
    session.restore(&dir.states().checkout(&id)?)?;
    Ok(session.oracle.model)
}

/// The part of a model that a recipe trains, if that is not the whole.
pub(crate) fn begin_part(model: &mut Model, file: &RecipeFile) -> Result<()> {
    let only = &file.train.only;
    if !only.is_empty() || file.adapter.is_some() {
        let key = Key::new(file.seed, "learn").sub("adapter").at(0);
        model.train_part(only, file.adapter.as_ref(), key)?;
    }
    Ok(())
}

/// Gives a model the adapters of the earlier experiences of a saved state.
pub(crate) fn take_in(model: &mut Model, state: &State, adapters: usize) -> Result<()> {
    let layout = model.layout().clone();
    for i in model.turned().len()..adapters {
        let path = state.path(&adapter_file(i));
        model.take_in(ebb_record::load_weights(&path, &layout)?)?;
    }
    Ok(())
}

fn adapter_file(turn: usize) -> String {
    format!("adapter-{turn}.safetensors")
}

fn plugin(spec: &PluginSpec) -> Box<dyn Plugin> {
    match spec {
        PluginSpec::Planned(s) => Box::new(Planned::new(s.clone())),
        PluginSpec::Mir(s) => Box::new(Mir::new(s.clone())),
        PluginSpec::HalfFreeze(s) => Box::new(HalfFreeze::new(s.clone())),
        PluginSpec::FunctionDistance(s) => Box::new(Fdr::new(s.clone())),
        PluginSpec::Gss(s) => Box::new(Gss::new(s.clone())),
        PluginSpec::Hal(s) => Box::new(Hal::new(s.clone())),
        PluginSpec::Refresh(s) => Box::new(Refresh::new(s.clone())),
        PluginSpec::Fpf(s) => Box::new(Fpf::new(s.clone())),
        PluginSpec::ViewBatch(s) => Box::new(ViewBatch::new(s.clone())),
        PluginSpec::Herding(s) => Box::new(Herding::new(s.clone())),
        PluginSpec::Generator(s) => Box::new(Generator::new(s.clone())),
        PluginSpec::Centres(s) => Box::new(Centres::new(s.clone())),
        PluginSpec::MemorisationAware(s) => Box::new(Mat::new(s.clone())),
        PluginSpec::ProxyCycle(s) => Box::new(ProxyCycle::new(s.clone())),
        PluginSpec::PrototypePull(s) => Box::new(PrototypePull::new(s.clone())),
        PluginSpec::Relational(s) => Box::new(Relational::new(s.clone())),
        PluginSpec::TwoLevels(_) => Box::new(TwoLevels),
        PluginSpec::Compensation(s) => Box::new(Compensation::new(s.clone())),
        PluginSpec::Gpm(s) => Box::new(Gpm::new(s.clone())),
        PluginSpec::Cuber(s) => Box::new(Cuber::new(s.clone())),
        PluginSpec::Clnp(s) => Box::new(Clnp::new(s.clone())),
        PluginSpec::Relevance(s) => Box::new(Relevance::new(s.clone())),
        PluginSpec::Rank(s) => Box::new(Rank::new(s.clone())),
        PluginSpec::Psmt(s) => Box::new(Psmt::new(s.clone())),
        PluginSpec::FewShot(s) => Box::new(FewShot::new(s.clone())),
        PluginSpec::FastSlow(s) => Box::new(FastSlow::new(s.clone())),
        PluginSpec::Remind(s) => Box::new(Remind::new(s.clone())),
        PluginSpec::Sharp(s) => Box::new(Sharp::new(s.clone())),
        PluginSpec::Keys(s) => Box::new(Keys::new(s.clone())),
        PluginSpec::Mvp(s) => Box::new(Mvp::new(s.clone())),
        PluginSpec::ProtoCl(s) => Box::new(ProtoCl::new(s.clone())),
        PluginSpec::QuantileRisk(s) => Box::new(QuantileRisk::new(s.clone())),
        PluginSpec::SparseGates(s) => Box::new(SparseGates::new(s.clone())),
        PluginSpec::SwitchPrice(s) => Box::new(SwitchPrice::new(s.clone())),
        PluginSpec::KeyElements(s) => Box::new(KeyElements::new(s.clone())),
        PluginSpec::SourceShield(s) => Box::new(Ssu::new(s.clone())),
        PluginSpec::BottomFrozen(s) => Box::new(BottomFrozen::new(s.clone())),
        PluginSpec::TrainParts(s) => Box::new(TrainParts::new(s.clone())),
        PluginSpec::LanguageNeurons(s) => Box::new(LanguageNeurons::new(s.clone())),
        PluginSpec::EmbeddingReset(s) => Box::new(EmbeddingReset::new(s.clone())),
        PluginSpec::ChosenBlocks(s) => Box::new(ChosenBlocks::new(s.clone())),
        PluginSpec::Gere(s) => Box::new(Gere::new(s.clone())),
        PluginSpec::Reptile(s) => Box::new(Reptile::new(s.clone())),
    }
}

fn update(spec: &UpdateSpec) -> Box<dyn Update> {
    match spec {
        UpdateSpec::Plain => Box::new(Plain),
        UpdateSpec::Gem(s) => Box::new(Gem::new(s.clone())),
        UpdateSpec::AGem(s) => Box::new(AGem::new(s.clone())),
        UpdateSpec::ZerothOrder(s) => Box::new(ZerothOrder::new(s.clone())),
    }
}

/// A stream without the records that the recipe passes over.
fn passed(stream: Stream, file: &RecipeFile) -> Result<Stream> {
    match &file.without {
        Some(spec) => {
            let gone = Gone::open(spec)?;
            Ok(stream.without(|id| gone.has(id))?)
        }
        None => Ok(stream),
    }
}

/// The stream as the data plan shows it: as it is, growing, or all at once.
pub(crate) fn plan(mut stream: Stream, plan: DataPlan) -> Stream {
    let union = |parts: &[ebb_data::Experience]| {
        let mut e = parts[parts.len() - 1].clone();
        e.train = parts.iter().flat_map(|p| p.train.iter().copied()).collect();
        for field in [0, 1] {
            let mut all: Vec<u32> = parts
                .iter()
                .flat_map(|p| if field == 0 { &p.classes } else { &p.outputs })
                .copied()
                .collect();
            all.sort_unstable();
            all.dedup();
            match field {
                0 => e.classes = all,
                _ => e.outputs = all,
            }
        }
        e.origins = (0..e.origins.len())
            .map(|k| parts.iter().map(|p| p.origins[k]).sum())
            .collect();
        e
    };
    match plan {
        DataPlan::Sequential | DataPlan::Memory => {}
        DataPlan::Cumulative => {
            stream.experiences = (1..=stream.experiences.len())
                .map(|n| union(&stream.experiences[..n]))
                .collect();
        }
        DataPlan::Joint => {
            let mut all = union(&stream.experiences);
            all.index = 0;
            all.name = "all".to_owned();
            stream.experiences = vec![all];
        }
    }
    stream
}

fn panels(stream: &Stream, file: &RecipeFile, key: Key) -> Vec<Vec<Item>> {
    if file.evaluate.every == 0 {
        return Vec::new();
    }
    let key = key.sub("panel");
    stream
        .evals
        .iter()
        .map(|set| {
            let mut items = set.items.to_vec();
            key.order(&mut items, |i| i.id.mix());
            items.truncate(file.evaluate.panel);
            items
        })
        .collect()
}
